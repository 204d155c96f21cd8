//! What a balancer begins with, and what another one that stops takes with it.

use super::*;
use crate::fleet::members::Seats;

fn begin(world: &mut World, begin: Begin) {
    let listing = world.engine.list();
    world.roster.begin_with(listing, begin, world.now);
    world.settle();
}

fn exactly(seats: &str) -> Begin {
    Begin::Exactly(Seats::read(seats).unwrap(), Release::default())
}

fn seats(world: &World) -> String {
    world.roster.wanted_seats().text()
}

#[test]
fn the_last_requested_seats_are_restored_and_no_others() {
    for (requested, dead) in [("1-3", 0), ("2", 1), ("1,3-5", 0), ("1-5", 3), ("", 0)] {
        let mut before = World::booted(4, 1);
        (0..dead).for_each(|index| before.kill(index));
        let mut world = before.successor(2);
        begin(&mut world, exactly(requested));
        assert_eq!(seats(&world), requested);
        let expected: Vec<u32> =
            Seats::read(requested).unwrap().0.iter().map(|seat| seat.get()).collect();
        assert_eq!(world.seats(), expected, "{requested} after {dead} deaths");
    }
}

#[test]
fn requested_seats_of_which_nothing_is_left_are_filled_by_name() {
    let mut world = World::new(1);
    begin(&mut world, exactly("1-2,4"));
    assert_eq!(world.names(), ["S1", "S2", "S4"]);
}

#[test]
fn one_that_joins_starts_nothing_at_once_and_fills_what_the_others_leave_empty() {
    for (wanted, running) in [("", 0), ("1-3", 3), ("1-3", 2)] {
        let mut before = World::booted(running, 1);
        let mut world = before.successor(2);
        let listing = world.engine.list();
        let joined = Begin::Joined(Seats::read(wanted).unwrap());
        world.roster.begin_with(listing, joined, world.now);
        world.act();
        assert!(world.under_way.is_empty(), "{wanted} {running}: {:?}", world.under_way);
        assert_eq!(seats(&world), wanted);
        world.settle();
        assert_eq!(world.engine.containers.len(), Seats::read(wanted).unwrap().0.len());
    }
}

#[test]
fn the_configured_number_takes_the_seats_that_are_there_first() {
    for (replicas, expected) in [(2, "1,3"), (3, "1,3-4"), (5, "1-5"), (0, "")] {
        let mut before = World::booted(4, 1);
        before.roster.remove(change(1, &["S2"]), &mut before.rng).unwrap();
        before.settle();
        let mut world = before.successor(2);
        begin(&mut world, Begin::Configured(replicas));
        assert_eq!(seats(&world), expected);
        assert_eq!(world.engine.containers.len(), replicas);
    }
}

#[test]
fn a_requested_release_is_rolled_out_though_no_replica_runs_it_yet() {
    let mut before = World::booted(3, 1);
    let request = RollRequest { image: Some("a:2".to_owned()), command: None, batch: 1 };
    before.roster.roll(request, before.now).unwrap();
    let release = before.roster.wanted_release().clone();
    let requested = || Begin::Exactly(Seats::read("1-3").unwrap(), release.clone());
    let runs_it = |world: &World| {
        let containers = world.engine.containers.values();
        containers.filter(|container| container.release.fits(&release)).count()
    };
    let mut world = before.successor(2);
    assert_eq!(runs_it(&world), 0);
    begin(&mut world, requested());
    assert_eq!((runs_it(&world), world.engine.containers.len()), (3, 3), "{:#?}", world.engine);
    // Where nothing runs, too.
    let mut world = World::new(1);
    begin(&mut world, requested());
    assert_eq!((runs_it(&world), world.engine.containers.len()), (3, 3), "{:#?}", world.engine);
}

#[test]
fn a_requested_release_that_all_replicas_fit_is_no_rollout() {
    // A rollback leaves the first; the second asks for a restart of every replica.
    for (since, rolls) in [(0, false), (4, true)] {
        let mut before = World::booted(3, 1);
        let spec = before.roster.wanted_release().spec().clone();
        let release = Release::new(4, since, &spec, spec.clone());
        let mut names = before.names();
        names.sort();
        let mut world = before.successor(2);
        begin(&mut world, Begin::Exactly(Seats::read("1-3").unwrap(), release.clone()));
        assert_eq!(world.roster.wanted_release(), &release);
        assert_eq!(world.events().contains(&"roll-begun"), rolls);
        let mut after = world.names();
        after.sort();
        assert_eq!(after == names, !rolls, "{names:?} {after:?}");
        let runs_it = |it: &Container| it.release.fits(&release);
        assert!(
            world.engine.containers.len() == 3 && world.engine.containers.values().all(runs_it)
        );
    }
}

#[test]
fn the_seats_of_replicas_that_a_stopping_balancer_removes_are_filled_again() {
    for noticed in [true, false] {
        let mut one = World::booted(3, 1);
        let mut other = one.successor(2);
        other.boot(3);
        other.settle();
        other.events();
        std::mem::swap(&mut one.engine, &mut other.engine);
        one.roster.stop_all();
        one.act();
        // Marked, and perhaps seen so, and then removed.
        one.finish_calls();
        std::mem::swap(&mut one.engine, &mut other.engine);
        if noticed {
            other.list();
        }
        std::mem::swap(&mut one.engine, &mut other.engine);
        while !one.roster.is_gone() {
            one.act();
            one.finish_calls();
        }
        std::mem::swap(&mut one.engine, &mut other.engine);
        other.settle();
        assert_eq!(other.seats(), [1, 2, 3], "{noticed}");
        assert_eq!(other.serving().len(), 3);
        assert_eq!(other.engine.containers.len(), 3);
    }
}
