//! What happens to a fleet: every transition, told once, with its reason.

use std::borrow::Cow;
use std::time::Duration;

use super::change::{Cause, Death, chain};
use super::health::Ejection;
use super::members::Member;
use super::observed::Place;
use super::overload::Action;
use super::plan::Why;
use super::reason::NotReady;
use super::scale::Reason;
use super::seat::{Hostname, Seat};

/// Something that happened, told once.
#[derive(Clone, Debug)]
pub struct Event {
    /// To whom, unless to the whole fleet.
    pub subject: Option<Subject>,
    /// What.
    pub what: What,
}

/// The replica that an event is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Its name.
    pub hostname: Hostname,
    /// What it was there for.
    pub place: Place,
}

/// Why a start failed.
#[derive(Clone, Debug)]
pub enum StartFailed {
    /// Something that is not ours has the name.
    NameTaken,
    /// Anything else.
    Other(Cause),
}

/// A replica that is switched on or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switched {
    /// Requests in flight at it.
    pub queued: usize,
    /// It was, or is, switched off for these, not by a caller of the API.
    pub by_controller: bool,
}

/// A replica that is not ready, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unready {
    /// Why.
    pub reason: NotReady,
    /// Whether it was ready since it started: its state is `ejected`, otherwise `starting`.
    pub ejected: bool,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum What {
    /// A start was asked for.
    Starting,
    /// It was there already when the balancer looked.
    Adopted,
    /// Somebody has listed it.
    Listed,
    /// It takes requests.
    Ready,
    /// It takes no requests any more, with the reason in full where it is known.
    Ejected(Ejection, Option<NotReady>),
    /// It is not ready for another reason than the last event said.
    NotReady(Unready),
    /// It has not answered for so long that it is to be replaced.
    Hung,
    /// It has ended.
    Died(Death),
    /// It could not be started.
    StartFailed(StartFailed),
    /// It was not ready in time, with the last reason.
    NeverReady(Option<NotReady>),
    /// It was a spare and has this seat now.
    Seated(Seat),
    /// It takes no new requests, and goes.
    Draining(Why),
    /// Another balancer of its pool removes it.
    LeftElsewhere,
    /// Another balancer of its pool, which stops, removes it: its seat stays.
    TakenElsewhere,
    /// It could not be told to others that it goes, or where it sits.
    MarkFailed(Cause),
    /// It is gone.
    Removed,
    /// It could not be removed.
    RemoveFailed(Cause),
    /// It takes no new requests until it is switched on.
    Disabled(Switched),
    /// It is switched on again.
    Enabled(Switched),
    /// So many replicas look bad at once that they are believed to be good.
    Panic {
        /// How many look bad.
        bad: usize,
        /// Of how many that run.
        all: usize,
    },
    /// No longer so.
    PanicOver,
    /// What replicas are to run differs from what they run.
    SpecChanged {
        /// The fields that differ, with their values where these are no secrets.
        differences: String,
        /// Whether it is rolled out.
        rolls: bool,
    },
    /// A rollout has begun.
    RollBegun {
        /// Its number.
        generation: u64,
    },
    /// Another rollout takes the place of one that is under way.
    RollSuperseded {
        /// Its number.
        generation: u64,
        /// That of the other one.
        by: u64,
    },
    /// No further seat has its turn.
    RollPaused {
        /// Its number.
        generation: u64,
    },
    /// Further seats have their turn.
    RollResumed {
        /// Its number.
        generation: u64,
    },
    /// A rollback was asked for.
    RollingBack {
        /// The number of the rollout.
        generation: u64,
    },
    /// All replicas run what it wanted.
    RollDone {
        /// Its number.
        generation: u64,
    },
    /// None runs what it wanted any more.
    RollUndone {
        /// Its number.
        generation: u64,
    },
    /// It does not work: those it replaced are replaced again by what ran before.
    RollFailed {
        /// Its number.
        generation: u64,
        /// Why.
        why: String,
    },
    /// The fleet is to become another size, for its load's sake.
    Scaling {
        /// How many replicas there were to be.
        from: usize,
        /// How many there are to be.
        to: usize,
        /// Why.
        reason: Reason,
    },
    /// It could not; it is tried again.
    ScaleFailed(Cause),
    /// Another balancer serves the pool.
    MemberJoined(Member),
    /// Another balancer of the pool has ended cleanly.
    MemberLeft(Member),
    /// Another balancer of the pool shows no sign of life.
    MemberExpired(Member),
    /// The runtime does not answer.
    EngineLost(Cause),
    /// It answers again.
    EngineBack,
    /// A request was in flight at two replicas when they died, and is not sent for a while.
    Quarantined {
        /// Its method and path, escaped and shortened.
        request: String,
        /// The replicas.
        replicas: [Hostname; 2],
        /// How long it is not sent.
        cool_down: Duration,
    },
}

// === impl Event ===

impl Event {
    /// The line that is logged.
    pub fn message(&self) -> Cow<'static, str> {
        if let Some(Subject { hostname: node, .. }) = &self.subject
            && let What::Disabled(switched) | What::Enabled(switched) = self.what
        {
            // As controllers print it.
            let enable = matches!(self.what, What::Enabled(_));
            return Cow::Owned(Action { node, enable, queued: switched.queued }.to_string());
        }
        Cow::Borrowed(self.what.message())
    }
}

// === impl What ===

impl What {
    /// Every [`name`](Self::name) there is.
    pub const NAMES: [&str; 38] = [
        "starting",
        "adopted",
        "listed",
        "ready",
        "ejected",
        "not-ready",
        "hung",
        "died",
        "start-failed",
        "never-ready",
        "seated",
        "draining",
        "left-elsewhere",
        "taken-elsewhere",
        "mark-failed",
        "removed",
        "remove-failed",
        "disabled",
        "enabled",
        "panic",
        "panic-over",
        "spec-changed",
        "roll-begun",
        "roll-superseded",
        "roll-paused",
        "roll-resumed",
        "rolling-back",
        "roll-done",
        "roll-undone",
        "roll-failed",
        "scaling",
        "scale-failed",
        "member-joined",
        "member-left",
        "member-expired",
        "engine-lost",
        "engine-back",
        "quarantined",
    ];

    /// What it is called.
    pub fn name(&self) -> &'static str {
        match self {
            What::Starting => "starting",
            What::Adopted => "adopted",
            What::Listed => "listed",
            What::Ready => "ready",
            What::Ejected(..) => "ejected",
            What::NotReady(_) => "not-ready",
            What::Hung => "hung",
            What::Died(_) => "died",
            What::StartFailed(_) => "start-failed",
            What::NeverReady(_) => "never-ready",
            What::Seated(_) => "seated",
            What::Draining(_) => "draining",
            What::LeftElsewhere => "left-elsewhere",
            What::TakenElsewhere => "taken-elsewhere",
            What::MarkFailed(_) => "mark-failed",
            What::Removed => "removed",
            What::RemoveFailed(_) => "remove-failed",
            What::Disabled(_) => "disabled",
            What::Enabled(_) => "enabled",
            What::Panic { .. } => "panic",
            What::PanicOver => "panic-over",
            What::SpecChanged { .. } => "spec-changed",
            What::RollBegun { .. } => "roll-begun",
            What::RollSuperseded { .. } => "roll-superseded",
            What::RollPaused { .. } => "roll-paused",
            What::RollResumed { .. } => "roll-resumed",
            What::RollingBack { .. } => "rolling-back",
            What::RollDone { .. } => "roll-done",
            What::RollUndone { .. } => "roll-undone",
            What::RollFailed { .. } => "roll-failed",
            What::Scaling { .. } => "scaling",
            What::ScaleFailed(_) => "scale-failed",
            What::MemberJoined(_) => "member-joined",
            What::MemberLeft(_) => "member-left",
            What::MemberExpired(_) => "member-expired",
            What::EngineLost(_) => "engine-lost",
            What::EngineBack => "engine-back",
            What::Quarantined { .. } => "quarantined",
        }
    }

    /// The line that is logged.
    pub fn message(&self) -> &'static str {
        match self {
            What::Starting => "replica is starting",
            What::Adopted => "replica was running already and is adopted",
            What::Listed => "replica is listed",
            What::Ready => "replica is ready",
            What::Ejected(..) => "replica is ejected",
            What::NotReady(_) => "replica not ready",
            What::Hung => "replica has not answered for too long and is to be replaced",
            What::Died(_) => "replica is dead",
            What::StartFailed(_) => "replica could not be started",
            What::NeverReady(_) => "replica was not ready in time and is removed",
            What::Seated(_) => "spare takes a seat",
            What::Draining(_) => "replica is leaving",
            What::LeftElsewhere => "replica is being removed by another balancer",
            What::TakenElsewhere => {
                "replica is being removed by a balancer that stops; its seat is refilled"
            }
            What::MarkFailed(_) => "replica's mark could not be written down",
            What::Removed => "replica is removed",
            What::RemoveFailed(_) => "replica could not be removed",
            What::Disabled(_) => "replica takes no new requests",
            What::Enabled(_) => "replica takes requests again",
            What::Panic { .. } => "most replicas look bad: the probe is taken to be wrong",
            What::PanicOver => "most replicas look good again",
            What::SpecChanged { rolls: true, .. } => {
                "configuration of replicas changed: rolling out"
            }
            What::SpecChanged { rolls: false, .. } => {
                "configuration of replicas changed: not rolled out, because of 'on_change'"
            }
            What::RollBegun { .. } => "rollout begins",
            What::RollSuperseded { .. } => "rollout superseded",
            What::RollPaused { .. } => "rollout paused",
            What::RollResumed { .. } => "rollout resumed",
            What::RollingBack { .. } => "rolling back as requested",
            What::RollDone { .. } => "rollout done",
            What::RollUndone { .. } => "rolled back",
            What::RollFailed { .. } => "rollout failed, rolling back",
            What::Scaling { .. } => "fleet is scaled",
            What::ScaleFailed(_) => "fleet could not be scaled; it is tried again",
            What::MemberJoined(_) => "another balancer joined the pool",
            What::MemberLeft(_) => "another balancer left the pool",
            What::MemberExpired(_) => "lease of another balancer expired",
            What::EngineLost(_) => "replicas cannot be listed; the last table stays",
            What::EngineBack => "replicas can be listed again",
            What::Quarantined { .. } => "request quarantined",
        }
    }

    /// Returns the state of the replica after the event, where the event says so.
    pub fn state(&self) -> Option<&'static str> {
        match self {
            What::Starting
            | What::Adopted
            | What::Listed
            | What::NotReady(Unready { ejected: false, .. }) => Some("starting"),
            What::Ready => Some("ready"),
            What::Ejected(..) | What::Hung | What::NotReady(Unready { ejected: true, .. }) => {
                Some("ejected")
            }
            What::Draining(_) | What::LeftElsewhere | What::TakenElsewhere => Some("draining"),
            What::Died(_) | What::StartFailed(_) | What::NeverReady(_) | What::Removed => {
                Some("dead")
            }
            What::Seated(_)
            | What::MarkFailed(_)
            | What::RemoveFailed(_)
            | What::Disabled(_)
            | What::Enabled(_)
            | What::Panic { .. }
            | What::PanicOver
            | What::SpecChanged { .. }
            | What::RollBegun { .. }
            | What::RollSuperseded { .. }
            | What::RollPaused { .. }
            | What::RollResumed { .. }
            | What::RollingBack { .. }
            | What::RollDone { .. }
            | What::RollUndone { .. }
            | What::RollFailed { .. }
            | What::Scaling { .. }
            | What::ScaleFailed(_)
            | What::MemberJoined(_)
            | What::MemberLeft(_)
            | What::MemberExpired(_)
            | What::EngineLost(_)
            | What::EngineBack
            | What::Quarantined { .. } => None,
        }
    }

    /// Why it happened, where there is more to say than its name.
    pub fn reason(&self) -> Option<String> {
        match self {
            What::Ejected(why, None) => Some(why.to_string()),
            What::Ejected(_, Some(reason)) | What::NotReady(Unready { reason, .. }) => {
                Some(reason.to_string())
            }
            What::NeverReady(reason) => reason.as_ref().map(ToString::to_string),
            What::Died(death) => Some(death.to_string()),
            What::StartFailed(StartFailed::NameTaken) => Some("its name is taken".to_owned()),
            What::StartFailed(StartFailed::Other(cause))
            | What::MarkFailed(cause)
            | What::RemoveFailed(cause)
            | What::ScaleFailed(cause)
            | What::EngineLost(cause) => Some(chain(cause.as_ref())),
            What::Seated(seat) => Some(format!("a spare takes seat {seat}")),
            What::Draining(why) => Some(why.to_string()),
            What::Disabled(Switched { queued, by_controller: true }) => {
                Some(format!("overloaded: {queued} queued requests"))
            }
            What::Enabled(Switched { queued, by_controller: true }) => {
                Some(format!("no longer overloaded, or needed: {queued} queued requests"))
            }
            What::Disabled(Switched { queued, .. }) | What::Enabled(Switched { queued, .. }) => {
                Some(format!("asked for: {queued} queued requests"))
            }
            What::Panic { bad, all } => Some(format!(
                "{bad} of {all} replicas that run look bad at once: all of them are routed to, \
                 and none is replaced"
            )),
            What::SpecChanged { differences, .. } => Some(differences.clone()),
            What::RollSuperseded { generation, by } => {
                Some(format!("generation {generation}, by generation {by}"))
            }
            What::RollBegun { generation }
            | What::RollPaused { generation }
            | What::RollResumed { generation }
            | What::RollingBack { generation }
            | What::RollDone { generation }
            | What::RollUndone { generation } => Some(format!("generation {generation}")),
            What::RollFailed { generation, why } => Some(format!("generation {generation}: {why}")),
            What::Scaling { from, to, reason } => {
                Some(format!("from {from} to {to} replicas: {reason}"))
            }
            What::Quarantined { request, replicas: [first, second], cool_down } => Some(format!(
                "{request} was in flight at {first} and {second} when they died: it is answered \
                 502 for {cool_down:?}"
            )),
            What::MemberJoined(member) | What::MemberLeft(member) | What::MemberExpired(member) => {
                Some(member.to_string())
            }
            What::Starting
            | What::Adopted
            | What::Listed
            | What::Ready
            | What::Hung
            | What::LeftElsewhere
            | What::TakenElsewhere
            | What::Removed
            | What::PanicOver
            | What::EngineBack => None,
        }
    }

    /// Reports whether an operator may have to act: such an event is logged as a warning.
    pub fn is_bad(&self) -> bool {
        match self {
            What::NotReady(Unready { reason, ejected }) => *ejected || !reason.is_usual_at_start(),
            What::Ejected(..)
            | What::Hung
            | What::Died(_)
            | What::StartFailed(_)
            | What::NeverReady(_)
            | What::TakenElsewhere
            | What::MarkFailed(_)
            | What::RemoveFailed(_)
            | What::Panic { .. }
            | What::SpecChanged { rolls: false, .. }
            | What::RollFailed { .. }
            | What::ScaleFailed(_)
            | What::MemberExpired(_)
            | What::EngineLost(_)
            | What::Quarantined { .. } => true,
            What::Starting
            | What::Adopted
            | What::Listed
            | What::Ready
            | What::Seated(_)
            | What::Draining(_)
            | What::LeftElsewhere
            | What::Removed
            | What::Disabled(_)
            | What::Enabled(_)
            | What::PanicOver
            | What::SpecChanged { rolls: true, .. }
            | What::RollBegun { .. }
            | What::RollSuperseded { .. }
            | What::RollPaused { .. }
            | What::RollResumed { .. }
            | What::RollingBack { .. }
            | What::RollDone { .. }
            | What::RollUndone { .. }
            | What::Scaling { .. }
            | What::MemberJoined(_)
            | What::MemberLeft(_)
            | What::EngineBack => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_listed_once() {
        let cause = || -> Cause { std::sync::Arc::new(std::fmt::Error) };
        let member = || Member { identity: "host".to_owned(), address: "127.0.0.1:1".to_owned() };
        let generation = 1;
        let all = [
            What::Starting,
            What::Adopted,
            What::Listed,
            What::Ready,
            What::Ejected(Ejection::Probes, None),
            What::NotReady(Unready { reason: NotReady::Errors, ejected: true }),
            What::Hung,
            What::Died(Death::OutOfMemory),
            What::StartFailed(StartFailed::NameTaken),
            What::NeverReady(None),
            What::Seated(Seat::new(1).unwrap()),
            What::Draining(Why::Dead),
            What::LeftElsewhere,
            What::TakenElsewhere,
            What::MarkFailed(cause()),
            What::Removed,
            What::RemoveFailed(cause()),
            What::Disabled(Switched { queued: 0, by_controller: true }),
            What::Enabled(Switched { queued: 0, by_controller: true }),
            What::Panic { bad: 1, all: 1 },
            What::PanicOver,
            What::SpecChanged { differences: String::new(), rolls: true },
            What::RollBegun { generation },
            What::RollSuperseded { generation, by: 2 },
            What::RollPaused { generation },
            What::RollResumed { generation },
            What::RollingBack { generation },
            What::RollDone { generation },
            What::RollUndone { generation },
            What::RollFailed { generation, why: String::new() },
            What::Scaling { from: 1, to: 2, reason: Reason::Load { in_flight: 1.0 } },
            What::ScaleFailed(cause()),
            What::MemberJoined(member()),
            What::MemberLeft(member()),
            What::MemberExpired(member()),
            What::EngineLost(cause()),
            What::EngineBack,
            What::Quarantined {
                request: String::new(),
                replicas: [1, 2].map(|seat| Hostname::of_seat(Seat::new(seat).unwrap())),
                cool_down: Duration::ZERO,
            },
        ];
        assert_eq!(all.map(|what| what.name()), What::NAMES);
    }
}
