//! Rolling updates.

use super::*;
use crate::fleet::release::Spec;

fn to(image: &str, batch: usize) -> RollRequest {
    RollRequest { image: Some(image.to_owned()), command: None, batch }
}

fn images(world: &World) -> Vec<Option<String>> {
    world.engine.containers.values().map(|c| c.release.spec.image.clone()).collect()
}

#[test]
fn a_rolling_update_replaces_seat_by_seat_and_every_seat_is_served_all_the_time() {
    let mut world = World::booted(4, 1);
    assert!(!world.roster.is_rolling());
    assert_eq!(world.roster.roll(to("v2", 1), world.now).unwrap(), 1);
    assert!(world.roster.is_rolling());
    for _ in 0..1_000 {
        let quiet = world.calm();
        assert_eq!(world.serving().len(), 4);
        assert_eq!(world.names().len(), 4);
        assert!(world.engine.containers.len() <= 6, "one more, and one that leaves");
        if quiet {
            break;
        }
    }
    assert_eq!(images(&world), vec![Some("v2".to_owned()); 4]);
    assert_eq!(world.seats(), [1, 2, 3, 4]);
    let status = world.roster.roll_status().unwrap();
    assert_eq!((status.state, status.done, status.total), ("done", 4, 4));
    assert!(!world.roster.is_rolling());
    // What comes after it runs the same.
    world.kill(0);
    world.settle();
    assert_eq!(images(&world), vec![Some("v2".to_owned()); 4]);
}

#[test]
fn an_update_that_does_not_become_ready_is_undone_and_touches_one_seat_only() {
    let mut world = World::booted(3, 1);
    world.bad_image = Some("bad".to_owned());
    world.roster.roll(to("bad", 1), world.now).unwrap();
    world.settle();
    assert_eq!(world.names(), ["S1", "S2", "S3"], "nobody had to go");
    assert_eq!(images(&world), vec![None; 3]);
    let status = world.roster.roll_status().unwrap();
    assert_eq!(status.state, "rolled-back");
    assert!(status.error.unwrap().contains("was not ready within"));
    assert_eq!(world.engine.created, 4);
}

#[test]
fn an_update_that_cannot_be_started_is_undone_after_three_tries() {
    let mut world = World::booted(2, 1);
    world.roster.roll(to("missing", 1), world.now).unwrap();
    let mut failures = 0;
    while world.roster.roll_status().unwrap().state == "rolling" {
        let wake = world.act();
        if let Some(at) = world.under_way.iter().position(|call| matches!(call, Call::Start(..))) {
            failures += 1;
            world.step(at, true);
        } else if world.under_way.is_empty() {
            world.now = wake.unwrap();
        } else {
            world.step(0, false);
        }
    }
    assert_eq!(failures, 3);
    world.settle();
    assert_eq!(world.names(), ["S1", "S2"]);
    assert_eq!(world.roster.roll_status().unwrap().state, "rolled-back");
    // The next update can come.
    assert!(world.roster.roll(to("v3", 2), world.now).is_ok());
    world.settle();
    assert_eq!(images(&world), vec![Some("v3".to_owned()); 2]);
}

#[test]
fn half_of_an_update_that_fails_is_rolled_back() {
    let mut world = World::booted(3, 1);
    world.roster.roll(to("v2", 1), world.now).unwrap();
    while !images(&world).contains(&Some("v2".to_owned()))
        || world.names().contains(&"S1".to_owned())
    {
        world.calm();
    }
    world.bad_image = Some("v2".to_owned());
    // The one that runs already answers still: only new ones are bad.
    let first = world.roster.listing().last().unwrap().clone();
    world.engine.containers.get_mut(&first).unwrap().release.spec =
        Spec { image: None, command: None };
    world.settle();
    assert_eq!(images(&world), vec![None; 3]);
    assert_eq!(world.seats(), [1, 2, 3]);
}

#[test]
fn an_update_to_the_same_restarts_everybody() {
    let mut world = World::booted(3, 1);
    let nothing = RollRequest { image: None, command: None, batch: 3 };
    world.roster.roll(nothing.clone(), world.now).unwrap();
    let refused = world.roster.roll(nothing, world.now);
    assert_eq!(refused, Err(Refused::Rolling { generation: 1 }));
    world.settle();
    assert_eq!(world.engine.created, 6);
    assert!(!world.names().contains(&"S1".to_owned()), "{:?}", world.names());
    assert_eq!(world.seats(), [1, 2, 3]);
}

#[test]
fn an_update_goes_on_after_a_restart_and_a_finished_one_is_not_repeated() {
    let mut world = World::booted(3, 1);
    world.roster.roll(to("v2", 1), world.now).unwrap();
    while world.engine.created < 5 {
        world.calm();
    }
    let mut next = world.successor(2);
    next.boot(3);
    next.settle();
    assert_eq!(images(&next), vec![Some("v2".to_owned()); 3]);
    assert_eq!(next.seats(), [1, 2, 3]);
    assert!(next.engine.created <= 6, "{} starts", next.engine.created);
    let created = next.engine.created;
    let mut last = next.successor(3);
    last.boot(3);
    last.settle();
    assert_eq!(last.engine.created, created);
    assert!(last.roster.roll_status().is_none());
    last.kill(0);
    last.settle();
    assert_eq!(images(&last), vec![Some("v2".to_owned()); 3]);
}

#[test]
fn a_death_during_an_update_is_healed_and_spares_are_updated_too() {
    let mut world = World::booted_with(FleetConfig { spares: 1, ..config() }, 3, 1);
    world.roster.roll(to("v2", 1), world.now).unwrap();
    world.calm();
    world.kill(2);
    world.settle();
    assert_eq!(images(&world), vec![Some("v2".to_owned()); 4]);
    assert_eq!(world.seats(), [1, 2, 3]);
}

#[test]
fn without_images_or_ownership_an_update_is_refused() {
    let mut world = World::with(FleetConfig { images: false, ..config() }, 1);
    assert_eq!(world.roster.roll(to("v2", 1), world.now), Err(Refused::NoImages));
    let mut listed = World::with(FleetConfig { listed: true, ..config() }, 1);
    assert_eq!(listed.roster.roll(to("v2", 1), listed.now), Err(Refused::Listed));
    assert!(
        world.roster.roll(RollRequest { image: None, command: None, batch: 1 }, world.now).is_ok()
    );
    world.settle();
}
