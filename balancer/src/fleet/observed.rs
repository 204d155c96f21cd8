//! A replica as a runtime sees it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use super::change::Death;
use super::release::Release;
use super::seat::{Hostname, MemberId, Seat};

/// A replica as a runtime sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// Its name.
    pub hostname: Hostname,
    /// What it is there for.
    pub place: Place,
    /// Where it listens; `None` when it has no address now.
    pub address: Option<SocketAddr>,
    /// Why it has no address, where the runtime knows; `None` for a replica that has one.
    pub address_error: Option<Arc<str>>,
    /// Multiplies its share.
    pub weight: u32,
    /// Orders replicas by age.
    pub created: u64,
    /// What it runs.
    pub release: Release,
    /// How it is.
    pub condition: Condition,
    /// Somebody is about to remove it: this balancer before its last restart, or another one.
    pub leaving: bool,
    /// Whether it leaves because its balancer stops, so that its seat stays wanted by the others of
    /// the pool. Only where it is `leaving`.
    pub seat_stays: bool,
}

/// What a replica is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// It is this member of the ring.
    Member(MemberId),
    /// It has no seat: it waits for one to become empty.
    Spare,
    /// It cannot be told, so it is not wanted.
    Unknown,
}

/// How a replica is, as far as its runtime knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It was made and does not run yet.
    Made,
    /// It runs, and the health check of its image has neither passed nor failed yet.
    Starting,
    /// It runs.
    Running,
    /// It runs, but will not answer.
    Troubled(Trouble),
    /// It has ended.
    Dead(Death),
}

/// What keeps a replica that runs from answering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It is frozen.
    Paused,
    /// Its own health check says so.
    Unhealthy,
    /// Somebody else has told it to end.
    Stopping,
}

// === impl Place ===

impl Place {
    /// The member of the ring, if it is one.
    pub fn member(self) -> Option<MemberId> {
        match self {
            Place::Member(member) => Some(member),
            Place::Spare | Place::Unknown => None,
        }
    }

    /// The seat, if it has one.
    pub fn seat(self) -> Option<Seat> {
        self.member().and_then(MemberId::seat)
    }
}

impl From<Seat> for Place {
    fn from(seat: Seat) -> Self {
        Place::Member(MemberId::Seat(seat))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Member(member) => member.fmt(f),
            Place::Spare => f.write_str("spare"),
            Place::Unknown => f.write_str("unknown"),
        }
    }
}

// === impl Condition ===

impl Condition {
    /// How it ended, if it did.
    pub fn death(self) -> Option<Death> {
        match self {
            Condition::Dead(death) => Some(death),
            Condition::Made | Condition::Starting | Condition::Running | Condition::Troubled(_) => {
                None
            }
        }
    }

    /// What keeps it from answering, if anything does.
    pub fn trouble(self) -> Option<Trouble> {
        match self {
            Condition::Troubled(trouble) => Some(trouble),
            Condition::Made | Condition::Starting | Condition::Running | Condition::Dead(_) => None,
        }
    }
}

// === impl Trouble ===

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Trouble::Paused => "paused",
            Trouble::Unhealthy => "container health: unhealthy",
            Trouble::Stopping => "stopped from outside the balancer",
        })
    }
}
