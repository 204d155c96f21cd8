//! The fleet as it is, to be shown.

use std::net::SocketAddr;
use std::time::Instant;

use serde::Serialize;

use super::roll::Ended;
use super::{Record, Roster};
use crate::fleet::health::Health;
use crate::fleet::observed::Place;
use crate::fleet::plan::Phase;
use crate::fleet::release::Release;
use crate::fleet::seat::Hostname;

/// A fleet as it is.
#[derive(Clone, Debug, Serialize)]
pub struct FleetStatus {
    /// Members of the ring: seats, or listed replicas.
    pub desired: usize,
    /// Replicas that take requests.
    pub ready: usize,
    /// So many look bad at once that they are believed to be good.
    pub panic: bool,
    /// Every replica that is known of.
    pub replicas: Vec<ReplicaStatus>,
    /// Every seat.
    pub seats: Vec<SeatStatus>,
    /// Those without a seat.
    pub spares: SpareStatus,
    /// The release that replicas are to run; none where replicas are listed.
    pub release: Option<ReleaseStatus>,
    /// The last rollout, if there was one.
    pub roll: Option<RollStatus>,
}

/// A replica as it is.
#[derive(Clone, Debug, Serialize)]
pub struct ReplicaStatus {
    /// Its name.
    pub hostname: String,
    /// Its seat, if it has one.
    pub seat: Option<u32>,
    /// `starting`, `ready`, `ejected`, `draining` or `dead`.
    pub state: &'static str,
    /// Whether it takes new requests while it is ready: nobody has switched it off.
    pub enabled: bool,
    /// Why it is not ready, or how it ended; `None` for one that is ready.
    pub reason: Option<String>,
    /// Where it listens.
    pub address: Option<SocketAddr>,
    /// The number of its release.
    pub generation: u64,
    /// Its release; none where replicas are listed.
    pub release: Option<ReleaseStatus>,
    /// Requests at it now.
    pub in_flight: usize,
}

/// A seat as it is.
#[derive(Clone, Debug, Serialize)]
pub struct SeatStatus {
    /// Its number.
    pub seat: u32,
    /// Who takes its requests, if somebody does.
    pub hostname: Option<String>,
    /// Failures in a row: deaths and failed starts without a long good time between.
    pub failures: u32,
    /// Its replicas keep ending.
    pub crash_loop: bool,
    /// Milliseconds until the next start, where that is waited for.
    pub retry_in_ms: Option<u64>,
    /// Why its last replica was lost or never became ready, until a replica is ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The spares as they are.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct SpareStatus {
    /// How many there are to be.
    pub desired: usize,
    /// How many could take a seat now.
    pub ready: usize,
}

/// A release as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReleaseStatus {
    /// Its number.
    pub generation: u64,
    /// The reference of the image; none for processes.
    pub image: Option<String>,
    /// The image ID that all its replicas run; none until the first one was started.
    pub digest: Option<String>,
    /// The hash of the complete specification.
    pub fingerprint: String,
}

/// A rollout as it is.
#[derive(Clone, Debug, Serialize)]
pub struct RollStatus {
    /// `rolling`, `paused`, `done`, `rolling-back` or `rolled-back`.
    pub state: &'static str,
    /// Its number.
    pub generation: u64,
    /// The image that it rolls out; none for processes.
    pub image: Option<String>,
    /// The image ID of that; none until the first replica was started.
    pub digest: Option<String>,
    /// The fingerprint of the release that it rolls out.
    pub fingerprint: String,
    /// The program that it rolls out; none for the image's own, or the embedded demo replica.
    pub command: Option<Vec<String>>,
    /// How many seats at once.
    pub batch: usize,
    /// Seats that are updated.
    pub done: usize,
    /// Seats in all.
    pub total: usize,
    /// Why it failed; none where a rollback was asked for.
    pub error: Option<String>,
    /// The rollouts before, the latest last.
    pub earlier: Vec<EarlierRoll>,
}

/// A rollout that is over.
#[derive(Clone, Debug, Serialize)]
pub struct EarlierRoll {
    /// `done`, `rolled-back` or `superseded`.
    pub state: &'static str,
    /// Its number.
    pub generation: u64,
    /// The image that it rolled out; none for processes.
    pub image: Option<String>,
    /// Why it failed.
    pub error: Option<String>,
}

/// From so many failures in a row on, a seat's replicas keep ending.
const CRASH_LOOP: u32 = 3;

impl Roster {
    /// The fleet at `now`; `in_flight` tells a replica's requests.
    pub fn status(&self, now: Instant, in_flight: impl Fn(&Hostname) -> usize) -> FleetStatus {
        let replica = |(hostname, record): (&Hostname, &Record)| ReplicaStatus {
            hostname: hostname.to_string(),
            seat: record.seat().map(super::Seat::get),
            state: state(record),
            enabled: record.is_enabled(),
            reason: reason(record),
            address: record.address,
            generation: record.release.generation(),
            release: self.release_status(&record.release),
            in_flight: in_flight(hostname),
        };
        let spares = || self.records.values().filter(|record| record.place == Place::Spare);
        FleetStatus {
            desired: self.members().count(),
            ready: self.serving().count(),
            panic: self.panicking,
            replicas: self.records.iter().map(replica).collect(),
            seats: self.seats_status(now),
            spares: SpareStatus {
                desired: self.config.spares,
                ready: spares().filter(|record| record.is_ready()).count(),
            },
            release: self.release_status(&self.target),
            roll: self.roll_status(now),
        }
    }

    fn release_status(&self, release: &Release) -> Option<ReleaseStatus> {
        (!self.config.listed).then(|| ReleaseStatus {
            generation: release.generation(),
            image: release.spec().image.clone(),
            digest: release.spec().digest.clone(),
            fingerprint: release.fingerprint().to_string(),
        })
    }

    /// Returns the last rollout.
    pub fn roll_status(&self, now: Instant) -> Option<RollStatus> {
        let roll = self.roll.as_ref()?;
        let (done, total) = self.rolled(now);
        let earlier = |ended: &Ended| EarlierRoll {
            state: ended.state.name(),
            generation: ended.release.generation(),
            image: ended.release.spec().image.clone(),
            error: ended.state.error().cloned(),
        };
        let spec = roll.release.spec();
        Some(RollStatus {
            state: roll.name(),
            generation: roll.release.generation(),
            image: spec.image.clone(),
            digest: spec.digest.clone(),
            fingerprint: roll.release.fingerprint().to_string(),
            command: spec.command.clone(),
            batch: roll.batch,
            done,
            total,
            error: roll.state.error().cloned(),
            earlier: self.ended.iter().map(earlier).collect(),
        })
    }

    fn seats_status(&self, now: Instant) -> Vec<SeatStatus> {
        let mut hostnames: std::collections::BTreeMap<super::Seat, &Hostname> = self
            .serving()
            .filter_map(|hostname| Some((self.records.get(hostname)?.seat()?, hostname)))
            .collect();
        let status = |(seat, record): (&super::Seat, &super::SeatRecord)| {
            let hostname = hostnames.remove(seat).map(ToString::to_string);
            let wait = record.not_before.saturating_duration_since(now);
            let waits = hostname.is_none() && !wait.is_zero();
            SeatStatus {
                seat: seat.get(),
                failures: record.backoff.failures(),
                crash_loop: record.backoff.failures() >= CRASH_LOOP,
                reason: record.failure.as_ref().map(ToString::to_string),
                retry_in_ms: waits.then(|| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
                hostname,
            }
        };
        self.seats.iter().map(status).collect()
    }
}

fn state(record: &Record) -> &'static str {
    match record.phase {
        Phase::Launching | Phase::Made { .. } | Phase::Starting { .. } => "starting",
        Phase::Up => match record.standing {
            Health::Starting => "starting",
            Health::Ready => "ready",
            Health::Ejected(_) => "ejected",
        },
        Phase::Draining { .. } => "draining",
        Phase::StartFailed | Phase::Dead | Phase::Removing | Phase::RemoveFailed { .. } => "dead",
    }
}

/// Returns why a replica is not ready, or how it ended; `None` for one that is ready or leaves.
pub(super) fn reason(record: &Record) -> Option<String> {
    match record.phase {
        Phase::Starting { .. } | Phase::Up => match (record.not_ready(), record.standing) {
            (Some(reason), _) => Some(reason.to_string()),
            (None, Health::Ejected(why)) => Some(why.to_string()),
            (None, Health::Starting | Health::Ready) => None,
        },
        Phase::Dead | Phase::Removing | Phase::RemoveFailed { .. } => match record.death {
            Some(death) => Some(death.to_string()),
            None if record.ready_since.is_some() => None,
            // What never ran has no address, and that is not the reason.
            None if record.address.is_none() && record.address_error.is_none() => None,
            None => record.last_reason().map(|reason| reason.to_string()),
        },
        Phase::Launching | Phase::Made { .. } | Phase::Draining { .. } | Phase::StartFailed => None,
    }
}
