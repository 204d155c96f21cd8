//! The roster on a scripted engine, step by step.

mod begin;
mod heal;
mod listed;
mod overload;
mod reasons;
mod rehearse;
mod roll;
mod walk;
mod world;

use super::*;
use crate::fleet::change::Refused;
use crate::fleet::event::StartFailed;
use crate::fleet::health::Verdict;
use crate::fleet::observed::{Condition, Observed};
use world::{Call, Container, SECOND, World, cause, change, config, name};

#[test]
fn the_first_fleet_is_named_by_its_seats_in_their_order() {
    let world = World::booted(3, 1);
    assert_eq!(world.names(), ["S1", "S2", "S3"]);
    assert_eq!(world.seats(), [1, 2, 3]);
}

#[test]
fn added_replicas_join_together_with_the_named_ones_first() {
    let mut world = World::booted(3, 1);
    world.roster.add(change(3, &["S5", "Server 4"]), world.now).unwrap();
    world.act();
    assert_eq!(world.under_way.len(), 3, "all are started side by side");
    while !world.under_way.is_empty() {
        world.step(0, false);
    }
    let (hostname, _, address) =
        world.roster.running().find(|(name, ..)| name.as_str() == "S5").unwrap();
    let (hostname, address) = (hostname.clone(), address);
    world.roster.probed(&hostname, address, Verdict::Good, None, world.now);
    world.act();
    assert_eq!(world.names().len(), 3, "one that is ready waits for the others");
    assert!(world.outcomes.is_empty());
    world.settle();
    assert_eq!(world.names()[..5], ["S1", "S2", "S3", "S5", "Server 4"]);
    assert_eq!(world.names().len(), 6);
    assert!(matches!(world.outcomes[..], [(_, Ok(()))]));
}

#[test]
fn the_size_counts_those_that_are_still_to_come() {
    let mut world = World::booted(3, 1);
    assert_eq!((world.roster.size(), world.roster.is_adding()), (3, false));
    world.roster.add(change(2, &[]), world.now).unwrap();
    world.act();
    assert_eq!((world.roster.size(), world.roster.is_adding()), (5, true));
    assert_eq!(world.roster.members().count(), 3);
    world.settle();
    assert_eq!((world.roster.size(), world.roster.is_adding()), (5, false));
    world.roster.remove(change(4, &[]), &mut world.rng).unwrap();
    assert_eq!(world.roster.size(), 1, "those that leave do not count");
}

#[test]
fn a_failed_addition_leaves_nothing_behind() {
    let mut world = World::booted(3, 1);
    world.roster.add(change(3, &["S5"]), world.now).unwrap();
    world.act();
    world.step(0, false);
    let failing = world.under_way.iter().position(|call| matches!(call, Call::Start(..)));
    world.step(failing.unwrap(), true);
    world.settle();
    assert!(matches!(world.outcomes[..], [(_, Err(Failed::Start { .. }))]));
    assert_eq!(world.names(), ["S1", "S2", "S3"]);
    assert_eq!(world.seats(), [1, 2, 3]);
    // The name is free again.
    world.roster.add(change(1, &["S5"]), world.now).unwrap();
    world.settle();
    assert_eq!(world.names(), ["S1", "S2", "S3", "S5"]);
}

#[test]
fn a_replica_that_is_never_ready_fails_its_addition() {
    let mut world = World::booted(1, 1);
    world.roster.add(change(1, &[]), world.now).unwrap();
    world.act();
    while !world.under_way.is_empty() {
        world.step(0, false);
    }
    world.now += 61 * SECOND;
    world.act();
    while !world.under_way.is_empty() {
        world.step(0, false);
    }
    assert!(matches!(world.outcomes[..], [(_, Err(Failed::NeverReady { .. }))]));
    assert_eq!(world.seats(), [1]);
}

#[test]
fn a_dead_replica_is_replaced_on_its_seat_under_a_new_name() {
    let mut world = World::booted(3, 1);
    world.kill(1);
    world.begin_listing();
    world.end_listing();
    assert_eq!(world.names(), ["S1", "S3"], "its name is gone at once");
    let starts = world.under_way.iter().filter(|call| matches!(call, Call::Start(..))).count();
    assert_eq!(starts, 1, "its seat is filled at once");
    world.settle();
    assert_eq!(world.seats(), [1, 2, 3]);
    assert_eq!(world.names()[..2], ["S1", "S3"]);
    assert!(!world.names().contains(&"S2".to_owned()));
}

#[test]
fn a_listing_that_is_older_than_a_stop_revives_nothing() {
    let mut world = World::booted(3, 1);
    world.begin_listing();
    world.roster.remove(change(1, &["S2"]), &mut world.rng).unwrap();
    world.act();
    while !world.under_way.is_empty() {
        world.step(0, false);
    }
    world.end_listing();
    world.settle();
    assert_eq!(world.seats(), [1, 3]);
}

#[test]
fn a_listing_that_is_older_than_a_start_kills_nothing() {
    let mut world = World::booted(1, 1);
    world.begin_listing();
    world.roster.add(change(1, &["S9"]), world.now).unwrap();
    world.act();
    while !world.under_way.is_empty() {
        world.step(0, false);
    }
    world.end_listing();
    world.probe_all();
    assert_eq!(world.names(), ["S1", "S9"]);
}

#[test]
fn removal_takes_the_named_then_the_unready_then_any() {
    let mut world = World::booted(4, 1);
    // S3 fails its probes.
    let (hostname, _, address) =
        world.roster.running().find(|(name, ..)| name.as_str() == "S3").unwrap();
    let (hostname, address) = (hostname.clone(), address);
    for _ in 0..3 {
        world.roster.probed(&hostname, address, Verdict::Bad, Some("silent".into()), world.now);
    }
    world.roster.remove(change(2, &["S1"]), &mut world.rng).unwrap();
    world.settle();
    assert_eq!(world.names(), ["S2", "S4"]);
}

#[test]
fn everything_can_be_removed_and_stays_removed() {
    let mut world = World::booted(3, 1);
    world.roster.remove(change(3, &[]), &mut world.rng).unwrap();
    world.settle();
    assert!(world.names().is_empty() && world.engine.containers.is_empty());
    world.roster.add(change(2, &[]), world.now).unwrap();
    world.settle();
    assert_eq!(world.seats(), [1, 2], "the smallest seats are taken again");
}

#[test]
fn a_replica_that_died_just_now_can_be_removed_by_its_name() {
    let mut world = World::booted(3, 1);
    world.kill(1);
    world.begin_listing();
    world.end_listing();
    world.roster.remove(change(1, &["S2"]), &mut world.rng).unwrap();
    world.settle();
    assert_eq!(world.names(), ["S1", "S3"]);
    assert_eq!(world.seats(), [1, 3]);
}

#[test]
fn changes_that_make_no_sense_are_refused_and_change_nothing() {
    let mut world = World::booted(3, 1);
    let mut add = |n, names: &[&str]| world.roster.add(change(n, names), world.now).unwrap_err();
    assert_eq!(add(1, &["a", "b"]), Refused::MoreNamesThanAdded);
    assert_eq!(add(2, &["a", "A"]), Refused::Repeated(name("A")));
    assert_eq!(add(1, &["s 1", "x"]), Refused::MoreNamesThanAdded);
    assert_eq!(add(1, &["s1"]), Refused::InUse(name("s1")));
    assert_eq!(add(8, &[]), Refused::TooMany { left: 7, size: 3, most: 10 });
    assert_eq!(add(10, &[]), Refused::NoSeat { left: 9, capacity: 12 });
    let rng = &mut world.rng;
    let mut rm = |n, names: &[&str]| world.roster.remove(change(n, names), rng).unwrap_err();
    assert_eq!(rm(1, &["S1", "S2"]), Refused::MoreNamesThanRemoved);
    assert_eq!(rm(1, &["S7"]), Refused::Unknown(name("S7")));
    assert_eq!(rm(2, &["S1", "S1"]), Refused::Repeated(name("S1")));
    assert_eq!(rm(4, &[]), Refused::TooFew { size: 3 });
    world.settle();
    assert_eq!(world.names(), ["S1", "S2", "S3"]);
}

#[test]
fn a_restarted_balancer_adopts_the_fleet_on_its_seats() {
    let mut before = World::booted(3, 1);
    before.kill(2);
    let mut world = before.successor(2);
    world.boot(5);
    let starts: Vec<&Call> =
        world.under_way.iter().filter(|call| matches!(call, Call::Start(..))).collect();
    assert!(
        matches!(starts[..], [Call::Start(place, ..)] if place.seat().unwrap().get() == 3),
        "{starts:?}"
    );
    world.settle();
    assert_eq!(world.seats(), [1, 2, 3]);
    assert_eq!(world.names()[..2], ["S1", "S2"]);
}

#[test]
fn a_seat_that_keeps_failing_backs_off_and_the_others_go_on() {
    let mut world = World::new(1);
    world.roster.boot(Vec::new(), 1, world.now);
    let start = world.now;
    let mut starts = 0;
    while world.now < start + 60 * SECOND {
        let wake = world.act();
        if let Some(at) = world.under_way.iter().position(|call| matches!(call, Call::Start(..))) {
            starts += 1;
            world.step(at, true);
        } else if !world.under_way.is_empty() {
            world.step(0, false);
        } else {
            world.now = wake.expect("it is tried again some time");
        }
    }
    // At once, then after 0.1, 0.2, 0.4, … 25.6 s, each ± 25 %.
    assert!((9..=12).contains(&starts), "{starts} starts in a minute");
}

#[test]
fn a_taken_name_fails_an_addition_and_only_costs_the_first_fleet_its_name() {
    let mut world = World::booted(1, 1);
    world.roster.add(change(1, &["web"]), world.now).unwrap();
    world.act();
    world.under_way.clear();
    world.roster.started(&name("web"), Err(StartFailed::NameTaken), world.now, &mut world.rng);
    world.act();
    assert!(world.under_way.is_empty(), "what is not ours is not stopped");
    assert!(matches!(world.outcomes[..], [(_, Err(Failed::NameTaken(_)))]));

    let mut world = World::new(1);
    world.roster.boot(Vec::new(), 1, world.now);
    world.act();
    world.under_way.clear();
    world.roster.started(&name("S1"), Err(StartFailed::NameTaken), world.now, &mut world.rng);
    world.settle();
    assert_eq!(world.seats(), [1]);
    assert_ne!(world.names(), ["S1"]);
}

#[test]
fn a_stop_that_fails_is_told_and_tried_again() {
    let mut world = World::booted(2, 1);
    world.roster.remove(change(1, &["S1"]), &mut world.rng).unwrap();
    world.act();
    // First others are told that it goes.
    world.step(0, false);
    world.step(0, false);
    world.step(0, true);
    world.step(0, false);
    assert!(matches!(world.outcomes[..], [(_, Err(Failed::Remove { .. }))]));
    assert_eq!(world.engine.containers.len(), 2);
    world.settle();
    assert_eq!(world.seats(), [2]);
}

#[test]
fn of_two_on_one_seat_the_older_stays() {
    let mut world = World::booted(1, 1);
    world.engine.created += 1;
    let first = world.engine.containers[&name("S1")].clone();
    let twin = Container { created: world.engine.created, ..first };
    world.engine.containers.insert(name("twin"), twin);
    world.settle();
    assert_eq!(world.names(), ["S1"]);
    assert_eq!(world.seats(), [1]);
}

#[test]
fn stopping_leaves_nothing_and_fails_what_is_under_way() {
    let mut world = World::booted(2, 1);
    world.roster.add(change(1, &[]), world.now).unwrap();
    world.act();
    world.step(0, false);
    world.roster.stop_all();
    while !world.roster.is_gone() {
        world.act();
        if !world.under_way.is_empty() {
            world.step(0, false);
        }
    }
    assert!(world.engine.containers.is_empty());
    assert!(matches!(world.outcomes[..], [(_, Err(Failed::ShuttingDown))]));
}
