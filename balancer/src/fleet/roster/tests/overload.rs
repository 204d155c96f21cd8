//! Replicas that are switched off and on.

use super::*;
use crate::fleet::overload::OverloadConfig;

const CONFIG: OverloadConfig =
    OverloadConfig { min_ready: 2, capacity: 100, max_load: 0.75, resume_load: 0.5 };

/// The fleet looks at itself when `S1`, `S2`, … have these requests in flight.
fn relieve(world: &mut World, queued: &[usize]) {
    let at = |hostname: &Hostname| {
        let number = hostname.as_str().strip_prefix('S').and_then(|it| it.parse::<usize>().ok());
        number.and_then(|number| queued.get(number - 1).copied()).unwrap_or(0)
    };
    world.roster.relieve(&CONFIG, at);
    world.act();
}

#[test]
fn the_overloaded_keep_their_seats_and_come_back() {
    let mut world = World::booted(3, 1);
    let members: Vec<_> = world.roster.members().collect();
    relieve(&mut world, &[76, 75, 0]);
    assert_eq!(world.serving(), ["S2", "S3"]);
    assert_eq!(world.names(), ["S1", "S2", "S3"], "they are listed");
    assert_eq!(world.roster.members().collect::<Vec<_>>(), members, "no key moves");
    relieve(&mut world, &[51, 75, 0]);
    assert_eq!(world.serving(), ["S2", "S3"], "between the two nothing changes");
    relieve(&mut world, &[50, 75, 0]);
    assert_eq!(world.serving(), ["S1", "S2", "S3"]);
    let events = world.events();
    assert_eq!(events[events.len() - 2..], ["disabled", "enabled"]);
}

#[test]
fn the_minimum_is_held_by_those_that_can_serve() {
    let mut world = World::booted(4, 1);
    relieve(&mut world, &[100, 90, 80, 99]);
    assert_eq!(world.serving(), ["S2", "S3"]);
    assert!(!world.roster.is_short(2));
    world.kill(1);
    world.list();
    assert!(world.roster.is_short(2), "one of the two is dead");
    relieve(&mut world, &[100, 0, 80, 99]);
    assert_eq!(world.serving(), ["S3", "S4"], "the least loaded of the others");
    world.settle();
    relieve(&mut world, &[]);
    assert_eq!(world.serving().len(), 4);
}

#[test]
fn what_a_caller_switches_off_is_the_callers_business() {
    let mut world = World::booted(3, 1);
    world.roster.enable(&name("S1"), false, 0);
    relieve(&mut world, &[0, 100, 100]);
    assert_eq!(world.serving(), ["S2", "S3"], "it is neither enabled nor counted");
    assert!(!world.roster.is_short(3));
    assert_eq!(world.roster.is_enabled(&name("S1")), Some(false));
    world.roster.enable(&name("S1"), true, 0);
    world.roster.enable(&name("S1"), true, 0);
    world.act();
    assert_eq!(world.serving(), ["S1", "S2", "S3"]);
    let told = world.events();
    assert_eq!(told.iter().filter(|event| **event == "enabled").count(), 1, "{told:?}");
    assert_eq!(world.roster.is_enabled(&name("S9")), None);
}

#[test]
fn the_last_one_that_is_on_is_not_ejected_for_its_answers() {
    let outliers = OutlierConfig { max_share: 1.0, ..config().outliers };
    let mut world = World::booted_with(FleetConfig { outliers, ..config() }, 2, 1);
    world.roster.enable(&name("S1"), false, 0);
    world.roster.erred(&name("S2"), world.now);
    assert_eq!(world.serving(), ["S2"]);
    world.roster.enable(&name("S1"), true, 0);
    world.roster.erred(&name("S2"), world.now);
    assert_eq!(world.serving(), ["S1"]);
}

#[test]
fn a_replacement_of_one_that_is_off_is_on() {
    let mut world = World::booted(2, 1);
    world.roster.enable(&name("S1"), false, 0);
    world.kill(0);
    world.settle();
    assert_eq!(world.serving().len(), 2);
    assert!(!world.roster.may_be_switched(&name("S1")));
}
