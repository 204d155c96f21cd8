//! From the fleet that runs to the fleet that was asked for: [`plan`], a pure function.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::seat::{Hostname, Seat};

/// The seats that must have a replica, each with the time before which none is started
/// (its back-off).
pub type Desired = BTreeMap<Seat, Instant>;

/// A replica that is known of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen<'a> {
    /// Its name.
    pub hostname: &'a Hostname,
    /// Its place; `None` for one whose place cannot be told: it is not wanted.
    pub seat: Option<Seat>,
    /// What it does now.
    pub phase: Phase,
    /// Orders replicas by age: of two on one seat the smaller stays. Launching ones have none yet.
    pub created: Option<u64>,
}

/// What a replica does, as far as the plan is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// A start was asked of the runtime, which has not answered.
    Launching,
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
        /// None are left.
        idle: bool,
    },
    /// It has ended; its remains are there still.
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
    /// Start a replica on an empty seat.
    Start(Seat),
    /// Take a replica out of the table and let its requests finish.
    Drain(Hostname, Why),
    /// Stop a replica and remove what is left of it.
    Remove(Hostname, Why),
}

/// Why a replica goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Nobody asked for its seat.
    Unwanted,
    /// An older replica has its seat.
    Duplicate,
    /// It has ended.
    Dead,
    /// It was not ready within the start deadline.
    NeverReady,
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

/// Compares what is there with what was asked for. Carried out and observed again, its actions
/// come to a fleet for which it has none.
pub fn plan<'a>(
    desired: &Desired,
    observed: impl IntoIterator<Item = Seen<'a>>,
    start_deadline: Duration,
    now: Instant,
) -> Plan {
    let mut plan = Plan::default();
    let mut occupants: BTreeMap<Seat, Seen<'a>> = BTreeMap::new();

    for replica in observed {
        let seat = replica.seat.filter(|seat| desired.contains_key(seat));
        match replica.phase {
            Phase::Removing => {}
            Phase::Dead => plan.remove(replica.hostname, Why::Dead),
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
            Phase::Starting { since } if plan.due(since + start_deadline, now) => {
                plan.remove(replica.hostname, Why::NeverReady);
            }
            Phase::Launching | Phase::Starting { .. } | Phase::Up => match seat {
                Some(seat) => plan.seat(seat, replica, &mut occupants),
                None => plan.leave(&replica, Why::Unwanted),
            },
        }
    }

    for (seat, not_before) in desired {
        if !occupants.contains_key(seat) && plan.due(*not_before, now) {
            plan.actions.push(Action::Start(*seat));
        }
    }
    plan
}

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
        if replica.phase != Phase::Launching {
            self.actions.push(Action::Drain(replica.hostname.clone(), why));
        }
    }

    /// Seats a replica; of two on one seat, the older stays.
    fn seat<'a>(
        &mut self,
        seat: Seat,
        replica: Seen<'a>,
        occupants: &mut BTreeMap<Seat, Seen<'a>>,
    ) {
        let age = |replica: &Seen<'a>| (replica.created.unwrap_or(u64::MAX), replica.hostname);
        let newer = match occupants.remove(&seat) {
            Some(other) if age(&other) < age(&replica) => {
                occupants.insert(seat, other);
                Some(replica)
            }
            other => {
                occupants.insert(seat, replica);
                other
            }
        };
        if let Some(newer) = newer {
            self.leave(&newer, Why::Duplicate);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(60);

    /// A replica of a world in which every action succeeds.
    #[derive(Clone, Debug)]
    struct Fake {
        hostname: Hostname,
        seat: Option<Seat>,
        phase: Phase,
        created: Option<u64>,
    }

    impl Fake {
        fn seen(&self) -> Seen<'_> {
            Seen {
                hostname: &self.hostname,
                seat: self.seat,
                phase: self.phase,
                created: self.created,
            }
        }
    }

    fn planned(desired: &Desired, world: &[Fake], now: Instant) -> Plan {
        plan(desired, world.iter().map(Fake::seen), DEADLINE, now)
    }

    /// Carries out a plan: starts come up, drains end, removals are gone.
    fn carry_out(actions: &[Action], world: &mut Vec<Fake>, next: &mut u64) {
        for action in actions {
            match action {
                Action::Start(seat) => {
                    *next += 1;
                    let hostname = Hostname::parse(&format!("new{next}")).unwrap();
                    let created = Some(1_000 + *next);
                    world.push(Fake { hostname, seat: Some(*seat), phase: Phase::Up, created });
                }
                Action::Drain(hostname, _) => {
                    let replica = world.iter_mut().find(|r| r.hostname == *hostname).unwrap();
                    let until = Instant::now() + DEADLINE;
                    replica.phase = Phase::Draining { until, idle: true };
                }
                Action::Remove(hostname, _) => world.retain(|r| r.hostname != *hostname),
            }
        }
    }

    fn phases(now: Instant) -> impl Strategy<Value = Phase> {
        let past = now.checked_sub(2 * DEADLINE).unwrap_or(now);
        prop_oneof![
            Just(Phase::Starting { since: now }),
            Just(Phase::Starting { since: past }),
            Just(Phase::Up),
            Just(Phase::Draining { until: past, idle: false }),
            Just(Phase::Draining { until: now + DEADLINE, idle: true }),
            Just(Phase::Dead),
            Just(Phase::RemoveFailed { again: past }),
        ]
    }

    fn worlds(now: Instant) -> impl Strategy<Value = (Desired, Vec<Fake>)> {
        let seats = proptest::collection::btree_set(1_u32..12, 0..10);
        let replica = (proptest::option::of(1_u32..14), phases(now), 0_u64..5);
        (seats, proptest::collection::vec(replica, 0..20)).prop_map(move |(seats, replicas)| {
            let desired = seats.into_iter().filter_map(Seat::new).map(|seat| (seat, now)).collect();
            let fakes = replicas.into_iter().enumerate().map(|(i, (seat, phase, created))| Fake {
                hostname: Hostname::parse(&format!("r{i}")).unwrap(),
                seat: seat.and_then(Seat::new),
                phase,
                created: Some(created),
            });
            (desired, fakes.collect())
        })
    }

    proptest! {
        #[test]
        fn carrying_out_the_plan_comes_to_the_asked_for_fleet(
            (desired, mut world) in worlds(Instant::now())
        ) {
            let (now, mut next) = (Instant::now(), 0);
            for _ in 0..3 {
                let actions = planned(&desired, &world, now).actions;
                carry_out(&actions, &mut world, &mut next);
            }
            prop_assert_eq!(planned(&desired, &world, now).actions, []);
            let mut seats: Vec<Seat> = world.iter().filter_map(|r| r.seat).collect();
            seats.sort();
            prop_assert_eq!(seats, desired.keys().copied().collect::<Vec<_>>());
        }

        #[test]
        fn the_same_world_gets_the_same_plan_and_a_good_one_gets_none(
            (desired, mut world) in worlds(Instant::now())
        ) {
            let (now, mut next) = (Instant::now(), 0);
            let once = planned(&desired, &world, now);
            prop_assert_eq!(&once, &planned(&desired, &world, now));
            // Each replica and each seat is named once at most.
            let mut names: Vec<String> = once.actions.iter().map(|action| match action {
                Action::Start(seat) => format!("seat {seat}"),
                Action::Drain(hostname, _) | Action::Remove(hostname, _) => hostname.to_string(),
            }).collect();
            names.sort();
            let all = names.len();
            names.dedup();
            prop_assert_eq!(names.len(), all);
            for _ in 0..3 {
                let actions = planned(&desired, &world, now).actions;
                carry_out(&actions, &mut world, &mut next);
            }
            let healthy = world.clone();
            prop_assert_eq!(planned(&desired, &healthy, now).actions, []);
        }

        #[test]
        fn the_oldest_running_replica_keeps_its_seat(
            (desired, world) in worlds(Instant::now())
        ) {
            let now = Instant::now();
            let actions = planned(&desired, &world, now).actions;
            for seat in desired.keys() {
                let running = world.iter().filter(|r| {
                    r.seat == Some(*seat)
                        && (r.phase == Phase::Up
                            || matches!(r.phase, Phase::Starting { since } if since + DEADLINE > now))
                });
                if let Some(oldest) = running.min_by_key(|r| (r.created, r.hostname.clone())) {
                    prop_assert!(!actions.contains(&Action::Start(*seat)));
                    let leaves = actions.iter().any(|action| match action {
                        Action::Start(_) => false,
                        Action::Drain(name, _) | Action::Remove(name, _) => *name == oldest.hostname,
                    });
                    prop_assert!(!leaves, "the oldest of seat {} goes", seat);
                } else {
                    prop_assert!(actions.contains(&Action::Start(*seat)));
                }
            }
        }
    }

    #[test]
    fn what_the_runtime_still_works_at_is_left_alone() {
        let (now, seat) = (Instant::now(), Seat::new(1).unwrap());
        let fake = |name, phase| Fake {
            hostname: Hostname::parse(name).unwrap(),
            seat: Some(seat),
            phase,
            created: None,
        };
        let desired = Desired::from([(seat, now)]);
        assert_eq!(planned(&desired, &[fake("a", Phase::Launching)], now), Plan::default());
        assert_eq!(planned(&Desired::new(), &[fake("a", Phase::Launching)], now), Plan::default());
        assert_eq!(planned(&Desired::new(), &[fake("a", Phase::Removing)], now), Plan::default());
        // A seat whose replica is being removed is filled at once, beside it.
        let plan = planned(&desired, &[fake("a", Phase::Removing)], now);
        assert_eq!(plan.actions, [Action::Start(seat)]);
    }

    #[test]
    fn a_back_off_and_a_deadline_are_waited_for_and_told() {
        let (now, seat) = (Instant::now(), Seat::new(1).unwrap());
        let later = now + Duration::from_secs(5);
        let desired = Desired::from([(seat, later)]);
        assert_eq!(planned(&desired, &[], now), Plan { actions: vec![], wake: Some(later) });
        assert_eq!(planned(&desired, &[], later).actions, [Action::Start(seat)]);
        let starting = Fake {
            hostname: Hostname::of_seat(seat),
            seat: Some(seat),
            phase: Phase::Starting { since: now },
            created: Some(1),
        };
        let wake = Some(now + DEADLINE);
        assert_eq!(planned(&desired, &[starting], now), Plan { actions: vec![], wake });
    }
}
