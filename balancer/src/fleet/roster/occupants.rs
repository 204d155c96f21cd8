//! The members of the ring, and who is there: why one does not serve that has keys.

use std::collections::BTreeMap;

use super::record::Record;
use super::{Hostname, Roster};
use crate::fleet::health::Health;
use crate::fleet::plan::Phase;
use crate::fleet::seat::MemberId;

/// A member of the ring, and who is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occupant {
    /// The member.
    pub member: MemberId,
    /// Whether it serves, or why not.
    pub standing: Standing,
    /// Who is there; of several the one that is closest to serving. None where nobody is.
    pub hostname: Option<Hostname>,
    /// Why it is not ready, or how the last one ended.
    pub reason: Option<String>,
}

/// Whether a member's keys are served by somebody, or why not. The better ones are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Nobody is there.
    Empty,
    /// Who is there is leaving.
    Draining,
    /// Who is there was never ready.
    Starting,
    /// Who is there was ready, and is not.
    Ejected,
    /// Who is there could serve, but is switched off.
    Disabled,
    /// Somebody serves.
    Ready,
}

// === impl Standing ===

impl Standing {
    /// It in a word.
    pub fn name(self) -> &'static str {
        match self {
            Standing::Empty => "empty",
            Standing::Draining => "draining",
            Standing::Starting => "starting",
            Standing::Ejected => "ejected",
            Standing::Disabled => "disabled",
            Standing::Ready => "ready",
        }
    }

    fn of(record: &Record) -> Self {
        match record.phase {
            Phase::Launching | Phase::Made { .. } | Phase::Starting { .. } => Standing::Starting,
            Phase::Up => match record.standing {
                Health::Ejected(_) => Standing::Ejected,
                // One that is ready and does not serve is not on the ring yet, or another is.
                Health::Starting | Health::Ready => Standing::Starting,
            },
            Phase::Draining { .. } => Standing::Draining,
            Phase::StartFailed | Phase::Dead | Phase::Removing | Phase::RemoveFailed { .. } => {
                Standing::Empty
            }
        }
    }
}

// === impl Roster ===

impl Roster {
    /// Every member of the ring, ascending, and who is there.
    pub fn occupants(&self) -> Vec<Occupant> {
        let nobody =
            |member| Occupant { member, standing: Standing::Empty, hostname: None, reason: None };
        let mut occupants: BTreeMap<MemberId, Occupant> =
            self.members().map(|(member, ..)| (member, nobody(member))).collect();
        let mut put = |hostname: &Hostname, record: &Record, standing| {
            let occupant = record.place.member().and_then(|member| occupants.get_mut(&member));
            let Some(occupant) = occupant else { return };
            let first = occupant.hostname.is_none() && occupant.reason.is_none();
            if first || occupant.standing < standing {
                occupant.standing = standing;
                occupant.hostname = (standing != Standing::Empty).then(|| hostname.clone());
                occupant.reason = match standing {
                    Standing::Ready | Standing::Disabled => None,
                    Standing::Starting
                    | Standing::Ejected
                    | Standing::Draining
                    | Standing::Empty => super::status::reason(record),
                };
            }
        };
        for (hostname, record) in &self.records {
            put(hostname, record, Standing::of(record));
        }
        for (hostname, record) in self.fit_to_serve() {
            let serves = record.is_enabled();
            put(hostname, record, if serves { Standing::Ready } else { Standing::Disabled });
        }
        occupants.into_values().collect()
    }
}
