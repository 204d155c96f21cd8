//! `GET /admin/ring`: how the key space is divided, and who serves which part of it.

use std::net::SocketAddr;

use actix_web::http::StatusCode;
use actix_web::web::{self, Data};
use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;

use super::{Admin, READ, busy, fail, refuse};
use crate::fleet::roster::Standing;
use crate::fleet::seat::MemberId;
use crate::metrics::Metrics;
use crate::reply;
use crate::routing::placement::Member;
use crate::state::RingStatus;

/// The ring as it is shown.
#[derive(Debug, Serialize)]
struct Ring {
    placement: &'static str,
    fingerprint: String,
    members: Vec<Owned>,
}

/// A member with its part of the key space.
#[derive(Debug, Serialize)]
struct Owned {
    #[serde(flatten)]
    name: Name,
    /// 0 to 1.
    share: f64,
    weight: u32,
    /// How many tenths of its points there are, where that is not all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    tenths: Option<u8>,
    #[serde(flatten)]
    seen: Seen,
}

/// A member by its seat or its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Name {
    /// An owned replica's place.
    Seat(u32),
    /// A listed replica's address.
    Address(SocketAddr),
}

/// Who is at a member.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Seen {
    /// Who serves; null where nobody does.
    pub(super) hostname: Option<String>,
    #[serde(serialize_with = "in_a_word")]
    pub(super) state: Standing,
    /// Who is there, though not serving.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) replica: Option<String>,
    /// Why not, where that is known better.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
}

/// All tenths.
const WHOLE: u8 = 10;

pub(super) async fn ring(request: HttpRequest, admin: Data<Admin>) -> HttpResponse {
    if let Some(refusal) = refuse(&request, &admin, READ) {
        return refusal;
    }
    let status = match admin.shared.ring().await {
        Ok(status) => status,
        Err(error) => return fail(&error),
    };
    let placement = (admin.now)().placement.name();
    let shared = std::sync::Arc::clone(&admin.shared);
    // Not in the thread that others' requests wait for: a thousand members have many points.
    match web::block(move || Ring::of(placement, &status, shared.metrics())).await {
        Ok(ring) => reply::success(StatusCode::OK, ring),
        Err(error) => busy(&error),
    }
}

/// A fingerprint as it is written.
pub(super) fn shown(fingerprint: u64) -> String {
    format!("{fingerprint:016x}")
}

fn in_a_word<S: serde::Serializer>(standing: &Standing, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(standing.name())
}

// === impl Ring ===

impl Ring {
    fn of(name: &'static str, status: &RingStatus, metrics: &Metrics) -> Self {
        let placement = status.table.placement();
        let shares = metrics.shares(placement);
        let members = (0..).zip(placement.members()).zip(&*shares);
        let members = members.map(|((place, member), share)| Owned {
            name: member.id.into(),
            share: *share,
            weight: member.weight,
            tenths: growing(member),
            seen: Seen::of(status, place),
        });
        Self {
            placement: name,
            fingerprint: shown(metrics.fingerprint(placement)),
            members: members.collect(),
        }
    }
}

fn growing(member: &Member) -> Option<u8> {
    (member.tenths < WHOLE).then_some(member.tenths)
}

// === impl Name ===

impl From<MemberId> for Name {
    fn from(member: MemberId) -> Self {
        match member {
            MemberId::Seat(seat) => Self::Seat(seat.get()),
            MemberId::Address(address) => Self::Address(address),
        }
    }
}

// === impl Seen ===

impl Seen {
    /// Who is at a member, by its place among those of the placement: the table decides who serves.
    pub(super) fn of(status: &RingStatus, place: usize) -> Self {
        if let Some(replica) = status.table.ready(place) {
            let hostname = Some(replica.hostname().to_string());
            return Self { hostname, state: Standing::Ready, replica: None, reason: None };
        }
        let member = status.table.placement().members().get(place);
        let Some(occupant) = member.and_then(|member| status.occupant(member.id)) else {
            return Self { hostname: None, state: Standing::Empty, replica: None, reason: None };
        };
        Self {
            hostname: None,
            // One that is ready and not in the table is about to be.
            state: match occupant.standing {
                Standing::Ready => Standing::Starting,
                other @ (Standing::Empty
                | Standing::Draining
                | Standing::Starting
                | Standing::Ejected
                | Standing::Disabled) => other,
            },
            replica: occupant.hostname.as_ref().map(ToString::to_string),
            reason: occupant.reason.clone(),
        }
    }

    /// Why nobody serves here, in words; nothing where somebody does.
    pub(super) fn why(&self) -> Option<String> {
        let replica = self.replica.as_deref().unwrap_or_default();
        let reason = self.reason.as_deref();
        let because = |text: String| match reason {
            Some(reason) => format!("{text}: {reason}"),
            None => text,
        };
        match self.state {
            Standing::Ready => None,
            Standing::Empty => Some(match reason {
                Some(reason) => format!("no replica is here; the last one: {reason}"),
                None => "no replica is here".to_owned(),
            }),
            Standing::Starting => Some(format!("{replica:?} is starting: it is not ready")),
            Standing::Ejected => Some(because(format!("{replica:?} is ejected"))),
            Standing::Disabled => Some(format!("{replica:?} is disabled: it takes no new request")),
            Standing::Draining => Some(format!("{replica:?} is leaving")),
        }
    }
}
