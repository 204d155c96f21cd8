//! What is known of one replica.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::overload::Off;
use super::{ChangeId, Tick};
use crate::fleet::change::{Cause, Death};
use crate::fleet::health::{Ejection, Health, HealthTrack};
use crate::fleet::observed::{Observed, Place, Trouble};
use crate::fleet::plan::Phase;
use crate::fleet::reason::{NotReady, Reports};
use crate::fleet::release::Release;
use crate::fleet::seat::Seat;

/// All tenths of a replica's points are on the ring.
pub(super) const WHOLE: u8 = 10;

#[derive(Debug)]
pub(super) struct Record {
    pub(super) place: Place,
    pub(super) address: Option<SocketAddr>,
    /// Why it has no address, where the runtime knows.
    pub(super) address_error: Option<Arc<str>>,
    pub(super) weight: u32,
    pub(super) created: Option<u64>,
    pub(super) release: Release,
    pub(super) phase: Phase,
    pub(super) health: HealthTrack,
    /// What was made of `health` last.
    pub(super) standing: Health,
    /// How it ended.
    pub(super) death: Option<Death>,
    /// Why its last health check failed, if it did.
    pub(super) failed_check: Option<NotReady>,
    /// Which reasons for not being ready were reported.
    pub(super) reports: Reports,
    pub(super) ready_since: Option<Instant>,
    /// Since when its share grows; none for one that has its whole share at once.
    pub(super) warming_since: Option<Instant>,
    /// How many tenths of its points are on the ring.
    pub(super) tenths: u8,
    /// It has not answered for so long that it is to be replaced.
    pub(super) hung: bool,
    /// It was there already when the balancer looked.
    pub(super) adopted: bool,
    /// Another balancer is making it, for a seat of which nothing is known here, and has until then.
    pub(super) foreign_until: Option<Instant>,
    /// It is being written down where it sits, or that it goes.
    pub(super) marking: bool,
    /// It is not written down where it sits.
    pub(super) unmarked: bool,
    pub(super) joined: Option<u64>,
    pub(super) stamp: Tick,
    pub(super) remove_error: Option<Cause>,
    /// It is listed no more.
    pub(super) leaves: Option<Leave>,
    /// It is listed by an `/add` that is not through.
    pub(super) change: Option<ChangeId>,
    /// It takes no new requests.
    pub(super) off: Option<Off>,
}

/// When a replica leaves that is listed no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leave {
    AtOnce,
    /// When others are ready, but at this time at the latest.
    By(Instant),
}

impl Record {
    /// One that is about to be started.
    pub(super) fn launching(place: Place, release: Release, stamp: Tick) -> Self {
        Self {
            place,
            address: None,
            address_error: None,
            weight: 1,
            created: None,
            release,
            phase: Phase::Launching,
            health: HealthTrack::new(),
            standing: Health::Starting,
            death: None,
            failed_check: None,
            reports: Reports::new(),
            ready_since: None,
            warming_since: None,
            tenths: WHOLE,
            hung: false,
            adopted: false,
            foreign_until: None,
            marking: false,
            unmarked: false,
            joined: None,
            stamp,
            remove_error: None,
            leaves: None,
            change: None,
            off: None,
        }
    }

    /// One that was there already.
    pub(super) fn found(observed: Observed, phase: Phase, stamp: Tick) -> Self {
        Self {
            address: observed.address,
            address_error: observed.address_error,
            weight: observed.weight,
            created: Some(observed.created),
            phase,
            death: observed.condition.death(),
            adopted: true,
            ..Self::launching(observed.place, observed.release, stamp)
        }
    }

    pub(super) fn seat(&self) -> Option<Seat> {
        self.place.seat()
    }

    pub(super) fn is_ready(&self) -> bool {
        self.phase == Phase::Up && self.standing == Health::Ready
    }

    /// Reports whether it may be asked as a last resort: see [`Roster::standby`].
    ///
    /// [`Roster::standby`]: super::Roster::standby
    pub(super) fn may_stand_by(&self) -> bool {
        let is_failing = match self.standing {
            Health::Ejected(
                Ejection::Trouble(Trouble::Unhealthy)
                | Ejection::Probes
                | Ejection::Refused
                | Ejection::Errors,
            ) => self.phase == Phase::Up,
            Health::Ejected(Ejection::Trouble(Trouble::Paused | Trouble::Stopping))
            | Health::Ready => false,
            // It was ready before it was restarted.
            Health::Starting => {
                matches!(self.phase, Phase::Starting { .. }) && self.joined.is_some()
            }
        };
        is_failing && self.change.is_none() && self.is_enabled()
    }

    /// Returns why a replica that runs is not ready; `None` if it is ready, does not run, or
    /// nothing is known yet.
    pub(super) fn not_ready(&self) -> Option<NotReady> {
        match self.phase {
            Phase::Starting { .. } | Phase::Up if !self.is_ready() => self.last_reason(),
            Phase::Starting { .. }
            | Phase::Up
            | Phase::Launching
            | Phase::Made { .. }
            | Phase::Draining { .. }
            | Phase::StartFailed
            | Phase::Dead
            | Phase::Removing
            | Phase::RemoveFailed { .. } => None,
        }
    }

    /// Returns the same for a replica that may have been given up meanwhile.
    pub(super) fn last_reason(&self) -> Option<NotReady> {
        if self.address.is_none() {
            return Some(NotReady::NoAddress(self.address_error.clone()));
        }
        match (self.health.trouble(), self.standing) {
            (Some(trouble), _) => Some(NotReady::Trouble(trouble)),
            (None, Health::Ejected(Ejection::Errors)) => Some(NotReady::Errors),
            (None, Health::Starting | Health::Ready | Health::Ejected(_)) => {
                let unchecked = self.health.is_unchecked().then_some(NotReady::Unchecked);
                self.failed_check.clone().or(unchecked)
            }
        }
    }

    pub(super) fn is_enabled(&self) -> bool {
        self.off.is_none()
    }

    pub(super) fn runs(&self) -> bool {
        matches!(
            self.phase,
            Phase::Launching | Phase::Made { .. } | Phase::Starting { .. } | Phase::Up
        )
    }

    /// Whether it is listed still, and by no change that is under way.
    pub(super) fn stays(&self) -> bool {
        self.runs() && self.leaves.is_none() && self.change.is_none()
    }

    /// A stop failed; it is tried again, but nobody waits for it.
    pub(super) fn is_stuck(&self) -> bool {
        self.remove_error.is_some()
    }

    /// Whether a listing asked for at `began` can know better than the record.
    pub(super) fn may_be_judged(&self, began: Tick) -> bool {
        self.stamp <= began && !matches!(self.phase, Phase::Launching | Phase::Removing)
    }

    /// How many tenths of its points belong on the ring now, and when that changes next.
    pub(super) fn share(&self, slow_start: Duration, now: Instant) -> (u8, Option<Instant>) {
        let Some(since) = self.warming_since else { return (WHOLE, None) };
        let step = slow_start / u32::from(WHOLE);
        let steps = now.saturating_duration_since(since).as_nanos() / step.as_nanos().max(1);
        match u8::try_from(steps + 1) {
            Ok(tenths) if tenths < WHOLE => (tenths, Some(since + step * u32::from(tenths))),
            Ok(_) | Err(_) => (WHOLE, None),
        }
    }
}
