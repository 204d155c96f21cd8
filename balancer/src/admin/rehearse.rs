//! `POST /admin/rehearse`: what an `/add` and an `/rm` would move. Nothing changes.

use std::collections::BTreeSet;
use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::web::{self, Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;

use super::body::read_rehearsal;
use super::ring::{Name, shown};
use super::{Admin, REHEARSE, busy, fail, refuse};
use crate::fleet::roster::Rehearsed;
use crate::fleet::seat::MemberId;
use crate::reply;
use crate::routing::placement::{Member, Placement, PlacementConfig, PlacementError};
use crate::state::RingStatus;

/// What would become of the ring.
#[derive(Debug, Serialize)]
struct Draft {
    placement: &'static str,
    /// The share of the key space that would have another owner, 0 to 1.
    moved: f64,
    /// The part of it that would move between members that are there before and after.
    needless: f64,
    /// Whether these two are exact.
    exact: bool,
    fingerprint: Fingerprints,
    /// The seats of those that come; listed servers have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    seats: Option<Vec<u32>>,
    members: Vec<Part>,
}

/// Before, and after.
#[derive(Debug, Serialize)]
struct Fingerprints {
    before: String,
    after: String,
}

/// A member's part of the key space. Shares are exact.
#[derive(Debug, Serialize)]
struct Part {
    #[serde(flatten)]
    name: Name,
    /// Who is there now.
    hostname: Option<String>,
    weight: u32,
    /// Its share; null before it comes.
    before: Option<f64>,
    /// Its share; null after it has gone.
    after: Option<f64>,
    /// By how much its share grows at the two steps: as others come, and as others go.
    gains: f64,
    /// By how much it shrinks.
    loses: f64,
}

/// Needs no token: it changes nothing. What a page of another site sends is no JSON.
pub(super) async fn rehearse(
    request: HttpRequest,
    body: Payload,
    admin: Data<Admin>,
) -> HttpResponse {
    if let Some(refusal) = refuse(&request, &admin, REHEARSE) {
        return refusal;
    }
    let rehearsal = match read_rehearsal(&request, body, admin.config.listed).await {
        Ok(rehearsal) => rehearsal,
        Err(bad) => return reply::failure(bad.status(), &bad.to_string()),
    };
    let (status, rehearsed) = match admin.shared.rehearse(rehearsal).await {
        Ok(answer) => answer,
        Err(error) => return fail(&error),
    };
    let (config, owned) = ((admin.now)(), !admin.config.listed);
    let _turn = admin.shared.draft().await;
    match web::block(move || Draft::of(&config.placement, &status, &rehearsed, owned)).await {
        Ok(Ok(draft)) => reply::success(StatusCode::OK, draft),
        Ok(Err(error)) => reply::failure(StatusCode::BAD_REQUEST, &error.to_string()),
        Err(error) => busy(&error),
    }
}

// === impl Draft ===

impl Draft {
    fn of(
        config: &PlacementConfig,
        status: &RingStatus,
        rehearsed: &Rehearsed,
        owned: bool,
    ) -> Result<Self, PlacementError> {
        let members = rehearsed.members.iter();
        let members: Vec<Member> = members
            .map(|(id, weight, tenths)| Member { id: *id, weight: *weight, tenths: *tenths })
            .collect();
        let before = Arc::clone(status.table.placement());
        let after = Placement::build(config, &members)?;
        // When all have come and nobody has gone yet.
        let comes = |member: &&Member| rehearsed.added.contains(&member.id);
        let come = members.iter().filter(comes).copied();
        let all: Vec<Member> = before.members().iter().copied().chain(come).collect();
        let between = Placement::build(config, &all)?;
        let moved = before.moved(&after);
        let seats = || rehearsed.added.iter().filter_map(|member| Some(member.seat()?.get()));
        Ok(Self {
            placement: config.name(),
            moved: moved.share,
            needless: moved.needless,
            exact: moved.exact,
            fingerprint: Fingerprints {
                before: shown(before.fingerprint()),
                after: shown(after.fingerprint()),
            },
            seats: owned.then(|| seats().collect()),
            members: parts(status, [&before, &between, &after]),
        })
    }
}

/// The members of all of them, ascending; the first is how it is, the last how it would be.
fn parts(status: &RingStatus, steps: [&Placement; 3]) -> Vec<Part> {
    let steps = steps.map(Shares::of);
    let all = steps.iter().flat_map(|step| step.members);
    let all: BTreeSet<MemberId> = all.map(|member| member.id).collect();
    let part = |id: MemberId| {
        let [before, between, after] = steps.each_ref().map(|step| step.find(id));
        let weight = after.or(before).map_or(0, |(member, _)| member.weight);
        let share = |of: Option<(&Member, f64)>| of.map(|(_, share)| share);
        let shares = [before, between, after].map(|of| share(of).unwrap_or(0.0));
        let grows = || shares.windows(2).map(|pair| pair[1] - pair[0]);
        let hostname = status.occupant(id).and_then(|occupant| occupant.hostname.as_ref());
        Part {
            name: id.into(),
            hostname: hostname.map(ToString::to_string),
            weight,
            before: share(before),
            after: share(after),
            gains: grows().map(|by| by.max(0.0)).sum(),
            loses: grows().map(|by| (-by).max(0.0)).sum(),
        }
    };
    all.into_iter().map(part).collect()
}

/// The members of a placement, with their shares.
struct Shares<'a> {
    members: &'a [Member],
    shares: Vec<f64>,
}

// === impl Shares ===

impl<'a> Shares<'a> {
    fn of(placement: &'a Placement) -> Self {
        Self { members: placement.members(), shares: placement.shares() }
    }

    fn find(&self, id: MemberId) -> Option<(&'a Member, f64)> {
        let place = self.members.binary_search_by_key(&id, |member| member.id).ok()?;
        Some((&self.members[place], *self.shares.get(place)?))
    }
}
