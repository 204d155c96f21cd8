//! From the fleet that runs to the fleet that was asked for: [`plan`], a pure function.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Instant;

use super::observed::Place;
use super::seat::{Hostname, Seat};

/// What there must be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// The seats that must have a replica.
    pub seats: BTreeMap<Seat, Vacancy>,
    /// How many replicas without a seat.
    pub spares: usize,
    /// No spare is started before (its back-off); none for at once.
    pub spares_not_before: Option<Instant>,
}

/// What a seat without a replica waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vacancy {
    /// None is started before (its back-off).
    pub not_before: Instant,
    /// Its replica must have a certain name, so that no spare will do.
    pub named: bool,
    /// Whether its next replica runs the wanted release. While a rollout has not come to the seat
    /// yet, it runs what ran before.
    pub current: bool,
}

/// A replica that is known of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen<'a> {
    /// Its name.
    pub hostname: &'a Hostname,
    /// What it is there for.
    pub place: Place,
    /// What it does now.
    pub phase: Phase,
    /// Orders replicas by age: of two on one seat the smaller stays. Launching ones have none yet.
    pub created: Option<u64>,
    /// It takes requests, or would if it had a seat.
    pub ready: bool,
    /// It has been ready for as long as a rollout monitors a new replica.
    pub proven: bool,
    /// Whether it runs the wanted release.
    pub current: bool,
    /// Whether it may stay, or is to be replaced by another.
    pub fitness: Fitness,
    /// Another balancer is making it, for a seat of which nothing is known here: it is left alone
    /// until then.
    pub elsewhere: Option<Instant>,
}

/// Whether a replica may stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fitness {
    /// It runs what is wanted on its seat now.
    Fit,
    /// It runs something else: it goes when another has been good for long enough.
    Stale,
    /// It does not answer: it goes when another is ready.
    Hung,
}

/// What a replica does, as far as the plan is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// A start was asked of the runtime, which has not answered.
    Launching,
    /// It was made and does not run, and nobody here is starting it.
    Made {
        /// Since when that is known.
        since: Instant,
    },
    /// It runs and was not ready yet.
    Starting {
        /// Since when it runs.
        since: Instant,
    },
    /// It runs and was ready once.
    Up,
    /// It is out of the table; requests in flight may finish.
    Draining {
        /// After this they may not.
        until: Instant,
        /// None are left, and it is known to whoever lists it next that it goes.
        idle: bool,
    },
    /// It could not be started: nothing of it should be there.
    StartFailed,
    /// It has ended, or was not ready in time; its remains are there still.
    Dead,
    /// A stop was asked of the runtime, which has not answered.
    Removing,
    /// A stop failed.
    RemoveFailed {
        /// When to ask again.
        again: Instant,
    },
}

/// One step towards the fleet that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start a replica on a seat.
    Start(Seat),
    /// Start one without a seat.
    StartSpare,
    /// Start one that was made and does not run.
    Resume(Hostname),
    /// Give a spare a seat.
    Seat(Hostname, Seat),
    /// Take a replica out of the table and let its requests finish.
    Drain(Hostname, Why),
    /// Stop a replica and remove what is left of it.
    Remove(Hostname, Why),
}

/// Why a replica goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Nobody asked for it.
    Unwanted,
    /// It is not listed any more.
    Unlisted,
    /// An older replica has its seat.
    Duplicate,
    /// Another runs what is wanted in its place.
    Replaced,
    /// It did not answer, and another is ready in its place.
    Hung,
    /// It has ended, or never began.
    Dead,
    /// Its requests have finished, or their time was up.
    Drained,
}

/// What to do now, and when to look again if nothing happens before.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The steps, independent of one another.
    pub actions: Vec<Action>,
    /// When a deadline or a back-off ends.
    pub wake: Option<Instant>,
}

/// Who runs on one seat.
#[derive(Debug, Default)]
struct Crew<'a> {
    /// The one that is to stay.
    fit: Option<Seen<'a>>,
    /// The one that is to be replaced.
    unfit: Option<Seen<'a>>,
    /// The one that ended last: it tells a balancer that knows nothing else that this seat is
    /// wanted, so it stays until another replica is there.
    remains: Option<Seen<'a>>,
}

/// Compares what is there with what was asked for. Carried out and observed again, its actions
/// come to a fleet for which it has none.
pub fn plan<'a>(
    desired: &Desired,
    observed: impl IntoIterator<Item = Seen<'a>>,
    now: Instant,
) -> Plan {
    let mut plan = Plan::default();
    let mut crews: BTreeMap<Seat, Crew<'a>> = BTreeMap::new();
    let mut spares: Vec<Seen<'a>> = Vec::new();

    for replica in observed {
        let seat = replica.place.seat().filter(|seat| desired.seats.contains_key(seat));
        if replica.elsewhere.is_some_and(|until| !plan.due(until, now)) {
            continue;
        }
        match replica.phase {
            Phase::Removing => {}
            Phase::StartFailed => plan.remove(replica.hostname, Why::Dead),
            Phase::Dead => match seat {
                Some(seat) => plan.bury(replica, &mut crews.entry(seat).or_default().remains),
                // Another balancer would think that the seat is wanted still, were it not told.
                None if replica.place.seat().is_some() => plan.leave(&replica, Why::Unwanted),
                None => plan.remove(replica.hostname, Why::Dead),
            },
            Phase::RemoveFailed { again } => {
                if plan.due(again, now) {
                    plan.remove(replica.hostname, Why::Unwanted);
                }
            }
            Phase::Draining { until, idle } => {
                if idle || plan.due(until, now) {
                    plan.remove(replica.hostname, Why::Drained);
                }
            }
            Phase::Launching | Phase::Made { .. } | Phase::Starting { .. } | Phase::Up => {
                match seat {
                    Some(seat) => plan.seat(replica, crews.entry(seat).or_default()),
                    None if replica.place == Place::Spare => spares.push(replica),
                    None => plan.leave(&replica, Why::Unwanted),
                }
            }
        }
    }

    let mut spares = plan.keep_spares(spares);
    plan.fill_seats(desired, crews, &mut spares, now);
    plan.count_spares(desired, spares, now);
    plan
}

// === impl Why ===

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Why::Unwanted => "not wanted any more",
            Why::Unlisted => "not listed any more",
            Why::Duplicate => "an older replica has its seat",
            Why::Replaced => "another runs in its place",
            Why::Hung => "it does not answer, and another is ready in its place",
            Why::Dead => "it has ended",
            Why::Drained => "its requests have finished",
        })
    }
}

// === impl Seen ===

impl Seen<'_> {
    /// Reports whether `other` on the same seat may leave for this one. A replica that takes
    /// requests waits until its successor has been monitored.
    fn may_replace(&self, other: &Self) -> bool {
        self.ready && (self.proven || !other.ready)
    }
}

// === impl Plan ===

impl Plan {
    /// Whether `time` has come; when not, it is one to wake up for.
    fn due(&mut self, time: Instant, now: Instant) -> bool {
        if time <= now {
            return true;
        }
        self.wake = Some(self.wake.map_or(time, |wake| wake.min(time)));
        false
    }

    fn remove(&mut self, hostname: &Hostname, why: Why) {
        self.actions.push(Action::Remove(hostname.clone(), why));
    }

    /// A replica that runs goes; one that is being launched cannot yet.
    fn leave(&mut self, replica: &Seen<'_>, why: Why) {
        match (replica.phase, why) {
            (Phase::Launching, _) => {}
            // It has no requests to finish, or will not finish them.
            (Phase::Made { .. }, _) | (_, Why::Hung) => self.remove(replica.hostname, why),
            _ => self.actions.push(Action::Drain(replica.hostname.clone(), why)),
        }
    }

    /// Keeps the last that ended on a seat, and removes the others.
    fn bury<'a>(&mut self, replica: Seen<'a>, remains: &mut Option<Seen<'a>>) {
        let older = match remains.take() {
            Some(other) if age(&other) > age(&replica) => {
                *remains = Some(other);
                Some(replica)
            }
            other => {
                *remains = Some(replica);
                other
            }
        };
        if let Some(older) = older {
            self.remove(older.hostname, Why::Dead);
        }
    }

    /// Seats a replica; of two that are as good, the older stays, and a younger one that takes
    /// requests leaves only when the older one does, too. Of two that are to be replaced, the one
    /// that takes requests stays.
    fn seat<'a>(&mut self, replica: Seen<'a>, crew: &mut Crew<'a>) {
        let (side, by_readiness) = match replica.fitness {
            Fitness::Fit => (&mut crew.fit, false),
            Fitness::Stale | Fitness::Hung => (&mut crew.unfit, true),
        };
        let worse = |replica: &Seen<'a>| by_readiness && !replica.ready;
        let rank = |replica: &Seen<'a>| (worse(replica), replica.created.unwrap_or(u64::MAX));
        let leaves = match side.take() {
            Some(other) if (rank(&other), other.hostname) < (rank(&replica), replica.hostname) => {
                *side = Some(other);
                Some(replica)
            }
            other => {
                *side = Some(replica);
                other
            }
        };
        let has_successor =
            |leaves: &Seen<'a>| !leaves.ready || side.as_ref().is_some_and(|stays| stays.ready);
        if let Some(leaves) = leaves.filter(has_successor) {
            self.leave(&leaves, Why::Duplicate);
        }
    }

    /// Returns the spares that may stay, the best first: ready ones, and of these the oldest.
    fn keep_spares<'a>(&mut self, spares: Vec<Seen<'a>>) -> Vec<Seen<'a>> {
        let (mut fit, unfit): (Vec<_>, Vec<_>) =
            spares.into_iter().partition(|spare| spare.fitness == Fitness::Fit);
        for spare in unfit {
            let why = if spare.fitness == Fitness::Hung { Why::Hung } else { Why::Replaced };
            self.leave(&spare, why);
        }
        fit.sort_by(|a, b| (!a.ready, age(a)).cmp(&(!b.ready, age(b))));
        fit
    }

    fn fill_seats<'a>(
        &mut self,
        desired: &Desired,
        mut crews: BTreeMap<Seat, Crew<'a>>,
        spares: &mut Vec<Seen<'a>>,
        now: Instant,
    ) {
        for (seat, vacancy) in &desired.seats {
            let Crew { fit, unfit, remains } = crews.remove(seat).unwrap_or_default();
            let runs = [&fit, &unfit].into_iter().flatten().any(|r| r.phase != Phase::Launching);
            if let Some(remains) = remains.filter(|_| runs) {
                self.remove(remains.hostname, Why::Dead);
            }
            if let Some(fit) = &fit
                && matches!(fit.phase, Phase::Made { .. })
            {
                self.actions.push(Action::Resume(fit.hostname.clone()));
            }
            match (fit, unfit) {
                (Some(fit), Some(unfit)) if fit.may_replace(&unfit) => {
                    self.leave(
                        &unfit,
                        if unfit.fitness == Fitness::Hung { Why::Hung } else { Why::Replaced },
                    );
                }
                (Some(_), _) => {}
                (None, Some(unfit)) if unfit.fitness == Fitness::Stale => {
                    if self.due(vacancy.not_before, now) {
                        self.actions.push(Action::Start(*seat));
                    }
                }
                (None, _) => self.fill(*seat, *vacancy, spares, now),
            }
        }
    }

    /// Fills a seat: by a spare that is ready, or by a new replica.
    fn fill(&mut self, seat: Seat, vacancy: Vacancy, spares: &mut Vec<Seen<'_>>, now: Instant) {
        if !self.due(vacancy.not_before, now) {
            return;
        }
        let usable = |spare: &Seen<'_>| spare.ready && spare.current == vacancy.current;
        let spare = spares.iter().position(usable).filter(|_| !vacancy.named);
        if let Some(spare) = spare.map(|at| spares.remove(at)) {
            self.actions.push(Action::Seat(spare.hostname.clone(), seat));
        } else {
            self.actions.push(Action::Start(seat));
        }
    }

    /// Starts as many spares as are missing; those too many leave.
    fn count_spares(&mut self, desired: &Desired, spares: Vec<Seen<'_>>, now: Instant) {
        let missing = desired.spares.saturating_sub(spares.len());
        let not_before = desired.spares_not_before;
        if missing > 0 && not_before.is_none_or(|not_before| self.due(not_before, now)) {
            self.actions.extend((0..missing).map(|_| Action::StartSpare));
        }
        for (at, spare) in spares.into_iter().enumerate() {
            if at >= desired.spares {
                self.leave(&spare, Why::Unwanted);
            } else if matches!(spare.phase, Phase::Made { .. }) {
                self.actions.push(Action::Resume(spare.hostname.clone()));
            }
        }
    }
}

/// Orders replicas by age, the oldest first.
fn age<'a>(replica: &Seen<'a>) -> (u64, &'a Hostname) {
    (replica.created.unwrap_or(u64::MAX), replica.hostname)
}

#[cfg(test)]
mod tests;
