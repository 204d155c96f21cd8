//! The plan against worlds in which every action succeeds, and single cases.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

const DEADLINE: Duration = Duration::from_secs(60);

/// A replica of a world in which every action succeeds.
#[derive(Clone, Debug)]
struct Fake {
    hostname: Hostname,
    place: Place,
    phase: Phase,
    created: Option<u64>,
    ready: bool,
    proven: bool,
    fitness: Fitness,
}

impl Fake {
    fn new(name: &str, place: Place, phase: Phase) -> Self {
        let hostname = Hostname::parse(name).unwrap();
        let ready = phase == Phase::Up;
        Self { hostname, place, phase, created: None, ready, proven: true, fitness: Fitness::Fit }
    }

    fn seen(&self) -> Seen<'_> {
        Seen {
            hostname: &self.hostname,
            place: self.place,
            phase: self.phase,
            created: self.created,
            ready: self.ready,
            proven: self.proven,
            current: self.fitness == Fitness::Fit,
            fitness: self.fitness,
            elsewhere: None,
        }
    }

    fn runs(&self) -> bool {
        self.phase == Phase::Up
    }
}

fn seat(number: u32) -> Seat {
    Seat::new(number).unwrap()
}

fn desired(seats: impl IntoIterator<Item = u32>, now: Instant) -> Desired {
    let vacancy = Vacancy { not_before: now, named: false, current: true };
    let seats = seats.into_iter().map(|number| (seat(number), vacancy)).collect();
    Desired { seats, ..Desired::default() }
}

fn planned(desired: &Desired, world: &[Fake], now: Instant) -> Plan {
    plan(desired, world.iter().map(Fake::seen), now)
}

/// Carries out a plan: starts come up, drains end, removals are gone.
fn carry_out(actions: &[Action], world: &mut Vec<Fake>, next: &mut u64) {
    let mut come = |world: &mut Vec<Fake>, place| {
        *next += 1;
        let fake = Fake::new(&format!("new{next}"), place, Phase::Up);
        world.push(Fake { created: Some(1_000 + *next), ..fake });
    };
    for action in actions {
        match action {
            Action::Start(seat) => come(world, (*seat).into()),
            Action::StartSpare => come(world, Place::Spare),
            Action::Resume(hostname) => {
                let replica = world.iter_mut().find(|r| r.hostname == *hostname).unwrap();
                (replica.phase, replica.ready) = (Phase::Up, true);
            }
            Action::Seat(hostname, seat) => {
                let replica = world.iter_mut().find(|r| r.hostname == *hostname).unwrap();
                replica.place = (*seat).into();
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
    let past = now.checked_sub(DEADLINE).unwrap_or(now);
    prop_oneof![
        1 => Just(Phase::Made { since: now }),
        3 => Just(Phase::Up),
        1 => Just(Phase::Draining { until: past, idle: false }),
        1 => Just(Phase::Draining { until: now + DEADLINE, idle: true }),
        1 => Just(Phase::StartFailed),
        2 => Just(Phase::Dead),
        1 => Just(Phase::RemoveFailed { again: past }),
    ]
}

fn places() -> impl Strategy<Value = Place> {
    prop_oneof![
        8 => (1_u32..14).prop_map(|number| seat(number).into()),
        2 => Just(Place::Spare),
        1 => Just(Place::Unknown),
    ]
}

fn fitnesses() -> impl Strategy<Value = Fitness> {
    prop_oneof![4 => Just(Fitness::Fit), 1 => Just(Fitness::Stale), 1 => Just(Fitness::Hung)]
}

fn worlds(now: Instant) -> impl Strategy<Value = (Desired, Vec<Fake>)> {
    let seats = proptest::collection::btree_set(1_u32..12, 0..10);
    let replica = (places(), phases(now), 0_u64..5, fitnesses());
    let replicas = proptest::collection::vec(replica, 0..20);
    (seats, 0_usize..4, replicas).prop_map(move |(seats, spares, replicas)| {
        let fakes =
            replicas.into_iter().enumerate().map(|(i, (place, phase, created, fitness))| {
                let fake = Fake::new(&format!("r{i}"), place, phase);
                // Nobody hangs who does not run.
                let fitness = match (fitness, phase) {
                    (Fitness::Hung, Phase::Up) => Fitness::Hung,
                    (Fitness::Stale, _) => Fitness::Stale,
                    (Fitness::Hung | Fitness::Fit, _) => Fitness::Fit,
                };
                let ready = fake.ready && fitness != Fitness::Hung;
                Fake { created: Some(created), fitness, ready, ..fake }
            });
        (Desired { spares, ..desired(seats, now) }, fakes.collect())
    })
}

/// As many steps as a rolling update of a whole world needs, seat by seat.
const STEPS: usize = 40;

proptest! {
    #[test]
    fn carrying_out_the_plan_comes_to_the_asked_for_fleet(
        (desired, mut world) in worlds(Instant::now())
    ) {
        let (now, mut next) = (Instant::now(), 0);
        for _ in 0..STEPS {
            let actions = planned(&desired, &world, now).actions;
            carry_out(&actions, &mut world, &mut next);
        }
        prop_assert_eq!(planned(&desired, &world, now).actions, []);
        let mut seats: Vec<Seat> = world.iter().filter_map(|r| r.place.seat()).collect();
        seats.sort();
        prop_assert_eq!(seats, desired.seats.keys().copied().collect::<Vec<_>>());
        prop_assert!(world.iter().all(|r| r.runs() && r.fitness == Fitness::Fit), "{:?}", world);
        let spares = world.iter().filter(|r| r.place == Place::Spare).count();
        prop_assert_eq!(spares, desired.spares);
        prop_assert_eq!(world.len(), desired.seats.len() + desired.spares);
    }

    #[test]
    fn the_same_world_gets_the_same_plan_and_nobody_is_named_twice(
        (desired, world) in worlds(Instant::now())
    ) {
        let now = Instant::now();
        let once = planned(&desired, &world, now);
        prop_assert_eq!(&once, &planned(&desired, &world, now));
        let spares = |action: &&Action| !matches!(action, Action::StartSpare);
        let mut names: Vec<String> = once.actions.iter().filter(spares).map(|action| match action {
            Action::Start(seat) => format!("seat {seat}"),
            Action::StartSpare => String::new(),
            Action::Resume(hostname)
            | Action::Seat(hostname, _)
            | Action::Drain(hostname, _)
            | Action::Remove(hostname, _) => hostname.to_string(),
        }).collect();
        names.sort();
        let all = names.len();
        names.dedup();
        prop_assert_eq!(names.len(), all, "{:?}", once);
    }

    /// What a rolling update, a hung replica or a twin must never cost.
    #[test]
    fn a_seat_with_a_ready_replica_keeps_one(
        (desired, mut world) in worlds(Instant::now())
    ) {
        let (now, mut next) = (Instant::now(), 0);
        let served = |world: &[Fake]| -> Vec<Seat> {
            let ready = |r: &&Fake| r.ready && r.phase == Phase::Up;
            let seats = world.iter().filter(ready).filter_map(|r| r.place.seat());
            let mut seats: Vec<Seat> =
                seats.filter(|seat| desired.seats.contains_key(seat)).collect();
            seats.sort();
            seats.dedup();
            seats
        };
        for _ in 0..STEPS {
            let before = served(&world);
            let actions = planned(&desired, &world, now).actions;
            carry_out(&actions, &mut world, &mut next);
            let after = served(&world);
            prop_assert!(before.iter().all(|seat| after.contains(seat)), "{:?}", actions);
        }
    }
}

#[test]
fn a_replica_that_takes_requests_leaves_only_for_one_that_was_monitored() {
    let now = Instant::now();
    let wanted = desired([1], now);
    let old = Fake {
        fitness: Fitness::Stale,
        created: Some(1),
        ..Fake::new("old", seat(1).into(), Phase::Up)
    };
    let new = Fake { created: Some(2), ..Fake::new("new", seat(1).into(), Phase::Up) };
    let drains = [Action::Drain(old.hostname.clone(), Why::Replaced)];
    let planned =
        |old: &Fake, new: &Fake| planned(&wanted, &[old.clone(), new.clone()], now).actions;
    assert_eq!(planned(&old, &Fake { proven: false, ..new.clone() }), []);
    assert_eq!(planned(&old, &Fake { ready: false, proven: false, ..new.clone() }), []);
    assert_eq!(planned(&old, &new), drains);
    let unready = Fake { ready: false, ..old };
    assert_eq!(planned(&unready, &Fake { proven: false, ..new.clone() }), drains);
    assert_eq!(planned(&unready, &Fake { ready: false, proven: false, ..new }), []);
}

#[test]
fn of_two_that_are_as_good_the_younger_leaves_when_no_seat_is_without_a_ready_one() {
    let now = Instant::now();
    let fit = |name, created, ready| Fake {
        created: Some(created),
        ready,
        ..Fake::new(name, seat(1).into(), Phase::Up)
    };
    let drain = Action::Drain(Hostname::parse("b").unwrap(), Why::Duplicate);
    for (older, younger, leaves) in
        [(true, true, true), (true, false, true), (false, false, true), (false, true, false)]
    {
        let world = [fit("a", 1, older), fit("b", 2, younger)];
        let actions = planned(&desired([1], now), &world, now).actions;
        assert_eq!(actions.contains(&drain), leaves, "{older} {younger}: {actions:?}");
        assert_eq!(actions.len(), usize::from(leaves), "{actions:?}");
    }
}

#[test]
fn of_two_that_are_to_be_replaced_the_one_that_takes_requests_stays() {
    let now = Instant::now();
    let stale = |name, created, ready| Fake {
        fitness: Fitness::Stale,
        created: Some(created),
        ready,
        ..Fake::new(name, seat(1).into(), Phase::Up)
    };
    for (first, second, leaves) in [(false, true, "a"), (true, true, "b"), (true, false, "b")] {
        let world = [stale("a", 1, first), stale("b", 2, second)];
        let actions = planned(&desired([1], now), &world, now).actions;
        let leaves = Action::Drain(Hostname::parse(leaves).unwrap(), Why::Duplicate);
        assert_eq!(actions, [leaves, Action::Start(seat(1))]);
    }
}

#[test]
fn a_seat_takes_only_a_spare_of_the_release_that_it_is_to_run() {
    let now = Instant::now();
    let spare = Fake::new("spare", Place::Spare, Phase::Up);
    for (current, expected) in
        [(true, Action::Seat(spare.hostname.clone(), seat(1))), (false, Action::Start(seat(1)))]
    {
        let vacancy = Vacancy { not_before: now, named: false, current };
        let seats = [(seat(1), vacancy)].into();
        let wanted = Desired { seats, spares: 1, ..Desired::default() };
        let actions = planned(&wanted, std::slice::from_ref(&spare), now).actions;
        assert_eq!(actions[0], expected);
    }
}

#[test]
fn what_the_runtime_still_works_at_is_left_alone() {
    let now = Instant::now();
    let wanted = desired([1], now);
    let fake = |phase| Fake::new("a", seat(1).into(), phase);
    assert_eq!(planned(&wanted, &[fake(Phase::Launching)], now), Plan::default());
    assert_eq!(planned(&desired([], now), &[fake(Phase::Launching)], now), Plan::default());
    assert_eq!(planned(&desired([], now), &[fake(Phase::Removing)], now), Plan::default());
    // A seat whose replica is being removed is filled at once, beside it.
    let plan = planned(&wanted, &[fake(Phase::Removing)], now);
    assert_eq!(plan.actions, [Action::Start(seat(1))]);
}

#[test]
fn a_back_off_is_waited_for_and_told() {
    let now = Instant::now();
    let later = now + Duration::from_secs(5);
    let vacancy = Vacancy { not_before: later, named: false, current: true };
    let waiting = Desired { seats: [(seat(1), vacancy)].into(), ..Desired::default() };
    assert_eq!(planned(&waiting, &[], now), Plan { actions: vec![], wake: Some(later) });
    assert_eq!(planned(&waiting, &[], later).actions, [Action::Start(seat(1))]);
}

#[test]
fn a_dead_replicas_remains_stay_until_another_is_there() {
    let now = Instant::now();
    let wanted = desired([1], now);
    let dead = Fake::new("dead", seat(1).into(), Phase::Dead);
    let starts = [Action::Start(seat(1))];
    assert_eq!(planned(&wanted, std::slice::from_ref(&dead), now).actions, starts);
    let launching = Fake::new("next", seat(1).into(), Phase::Launching);
    assert_eq!(planned(&wanted, &[dead.clone(), launching], now).actions, []);
    let starting = Fake::new("next", seat(1).into(), Phase::Starting { since: now });
    let removes = [Action::Remove(dead.hostname.clone(), Why::Dead)];
    assert_eq!(planned(&wanted, &[dead.clone(), starting], now).actions, removes);
    // Of several the last stays, and where nobody asks for the seat none does.
    let older = Fake { created: Some(1), ..Fake::new("older", seat(1).into(), Phase::Dead) };
    let actions = planned(&wanted, &[dead.clone(), older.clone()], now).actions;
    assert_eq!(actions, [Action::Remove(older.hostname, Why::Dead), Action::Start(seat(1))]);
    let drains = [Action::Drain(dead.hostname.clone(), Why::Unwanted)];
    assert_eq!(planned(&desired([], now), &[dead], now).actions, drains);
}

#[test]
fn an_empty_seat_takes_the_oldest_ready_spare_unless_it_needs_a_name() {
    let now = Instant::now();
    let spare = |name, created, phase| Fake {
        created: Some(created),
        ..Fake::new(name, Place::Spare, phase)
    };
    let spares = [
        spare("new", 3, Phase::Up),
        spare("unready", 1, Phase::Starting { since: now }),
        spare("old", 2, Phase::Up),
    ];
    let wanted = Desired { spares: 3, ..desired([7], now) };
    let old = Hostname::parse("old").unwrap();
    let actions = planned(&wanted, &spares, now).actions;
    assert_eq!(actions, [Action::Seat(old, seat(7)), Action::StartSpare]);
    let named = Vacancy { not_before: now, named: true, current: true };
    let wanted = Desired { seats: [(seat(7), named)].into(), ..wanted };
    assert_eq!(planned(&wanted, &spares, now).actions, [Action::Start(seat(7))]);
}

#[test]
fn a_hung_replica_stays_until_another_is_ready() {
    let now = Instant::now();
    let wanted = desired([1], now);
    let hung = Fake {
        fitness: Fitness::Hung,
        ready: false,
        ..Fake::new("hung", seat(1).into(), Phase::Up)
    };
    let starts = [Action::Start(seat(1))];
    assert_eq!(planned(&wanted, std::slice::from_ref(&hung), now).actions, starts);
    let next = Fake::new("next", seat(1).into(), Phase::Starting { since: now });
    assert_eq!(planned(&wanted, &[hung.clone(), next], now).actions, []);
    let next = Fake::new("next", seat(1).into(), Phase::Up);
    let removes = [Action::Remove(hung.hostname.clone(), Why::Hung)];
    assert_eq!(planned(&wanted, &[hung, next], now).actions, removes);
}

#[test]
fn what_another_balancer_is_making_is_left_alone_until_its_time_is_up() {
    let now = Instant::now();
    let made = Fake::new("made", seat(4).into(), Phase::Made { since: now });
    let seen = || [Seen { elsewhere: Some(now + DEADLINE), ..made.seen() }];
    let wanted = desired([1], now);
    let running = Fake::new("one", seat(1).into(), Phase::Up);
    let with = |now| plan(&wanted, seen().into_iter().chain([running.seen()]), now);
    assert_eq!(with(now), Plan { actions: vec![], wake: Some(now + DEADLINE) });
    let removes = [Action::Remove(made.hostname.clone(), Why::Unwanted)];
    assert_eq!(with(now + DEADLINE).actions, removes);
}
