//! Rollouts.

use super::*;
use crate::fleet::change::Death;
use crate::fleet::observed::Trouble;
use crate::fleet::release::Spec;

fn to(image: &str, batch: usize) -> RollRequest {
    RollRequest { image: Some(image.to_owned()), command: None, batch }
}

fn restart(batch: usize) -> RollRequest {
    RollRequest { image: None, command: None, batch }
}

/// The images of all containers, by seat.
fn images(world: &World) -> Vec<String> {
    let image = |c: &Container| c.release.spec().image.clone().unwrap();
    let mut images: Vec<(Place, String)> =
        world.engine.containers.values().map(|c| (c.place, image(c))).collect();
    images.sort();
    images.into_iter().map(|(_, image)| image).collect()
}

fn state(world: &World) -> &'static str {
    world.roster.roll_status(world.now).unwrap().state
}

fn status(world: &World) -> RollStatus {
    world.roster.roll_status(world.now).unwrap()
}

/// Goes on until `condition`; every seat is served all the time.
fn until(world: &mut World, what: &str, condition: impl Fn(&World) -> bool) {
    let served = world.serving().len();
    for _ in 0..3_000 {
        if condition(world) {
            return;
        }
        world.calm();
        assert_eq!(world.serving().len(), served, "while waiting for {what}: {:?}", world.known());
    }
    panic!("waited in vain for {what}: {:?} {:?}", status(world), world.known());
}

/// The hostname of the replica with an image.
fn with_image(world: &World, image: &str) -> Option<Hostname> {
    let has = |c: &Container| c.release.spec().image.as_deref() == Some(image);
    world.engine.containers.iter().find(|(_, c)| has(c)).map(|(name, _)| name.clone())
}

#[test]
fn a_rollout_replaces_seat_by_seat_and_every_seat_is_served_all_the_time() {
    let mut world = World::booted(4, 1);
    assert!(!world.roster.is_rolling());
    assert_eq!(world.roster.roll(to("v2", 1), world.now).unwrap(), 1);
    assert!(world.roster.is_rolling());
    for _ in 0..1_000 {
        let quiet = world.calm();
        assert_eq!(world.serving().len(), 4);
        assert_eq!(world.names().len(), 4, "{:?}", world.names());
        assert!(world.engine.containers.len() <= 6, "one more, and one that leaves");
        if quiet {
            break;
        }
    }
    assert_eq!(images(&world), ["v2"; 4]);
    assert_eq!(world.seats(), [1, 2, 3, 4]);
    let status = status(&world);
    assert_eq!((status.state, status.done, status.total), ("done", 4, 4));
    assert!(!world.roster.is_rolling());
    // What comes after it runs the same.
    world.kill(0);
    world.settle();
    assert_eq!(images(&world), ["v2"; 4]);
}

#[test]
fn the_next_seat_waits_until_the_new_replica_was_ready_for_the_monitoring_time() {
    let mut world = World::booted(3, 1);
    world.roster.roll(to("v2", 1), world.now).unwrap();
    let began = world.now;
    until(&mut world, "the second seat", |world| world.engine.created == 5);
    assert!(world.now >= began + 2 * SECOND, "after {:?}", world.now - began);
    assert_eq!(status(&world).done, 1);
    // The new one serves while it is monitored, and the old one of its seat is there still.
    until(&mut world, "the second new one", |world| {
        world.serving().iter().filter(|name| !name.starts_with("S0") && name.len() > 2).count() == 2
    });
    assert_eq!(images(&world).len(), 4);
}

#[test]
fn no_more_seats_have_their_turn_at_once_than_the_batch() {
    for batch in [1, 2, 3] {
        let mut world = World::booted(5, 1);
        world.roster.roll(to("v2", batch), world.now).unwrap();
        until(&mut world, "its end", |world| {
            let (done, _) = world.roster.rolled(world.now);
            let new = images(world).iter().filter(|image| *image == "v2").count();
            assert!(new <= done + batch, "{new} {done}");
            state(world) == "done"
        });
        assert_eq!(world.engine.created, 10, "each seat is started once");
    }
}

#[test]
fn a_release_that_does_not_become_ready_is_rolled_back_and_touches_one_seat_only() {
    let mut world = World::booted(3, 1);
    world.bad_image = Some("bad".to_owned());
    world.roster.roll(to("bad", 1), world.now).unwrap();
    until(&mut world, "the rollback", |world| state(world) == "rolled-back");
    world.settle();
    assert_eq!(world.names(), ["S1", "S2", "S3"], "no old replica had to leave");
    assert_eq!(images(&world), ["v1"; 3]);
    assert!(status(&world).error.unwrap().contains("was not ready within"));
    assert_eq!(world.engine.created, 4);
}

#[test]
fn a_release_that_cannot_be_started_is_rolled_back_after_three_tries() {
    let mut world = World::booted(2, 1);
    world.roster.roll(to("missing", 1), world.now).unwrap();
    let mut failures = 0;
    while state(&world) == "rolling" {
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
    assert_eq!(state(&world), "rolled-back");
    world.roster.roll(to("v3", 2), world.now).unwrap();
    world.settle();
    assert_eq!(images(&world), ["v3"; 2]);
}

#[test]
fn a_release_that_fails_requests_is_rolled_back_and_the_old_replica_takes_over() {
    for replicas in [1, 2, 4] {
        let mut world = World::booted(replicas, 1);
        world.erring_image = Some("bad".to_owned());
        world.roster.roll(to("bad", 1), world.now).unwrap();
        until(&mut world, "the rollback", |world| state(world) == "rolled-back");
        world.settle();
        assert_eq!(images(&world), vec!["v1"; replicas]);
        let error = status(&world).error.unwrap();
        assert!(error.contains("was ejected: too many failed requests in a row"), "{error}");
        assert_eq!(world.engine.created, replicas as u64 + 1, "one seat was touched");
    }
}

#[test]
fn a_seat_that_was_updated_is_checked_again_until_the_rollout_is_done() {
    let mut world = World::booted(3, 1);
    world.roster.roll(to("v2", 1), world.now).unwrap();
    until(&mut world, "the second seat", |world| world.engine.created == 5);
    // The first seat has no old replica any more; its new one gets bad now.
    world.erring_image = Some("v2".to_owned());
    for _ in 0..200 {
        world.calm();
    }
    world.settle();
    assert_eq!(images(&world), ["v1"; 3]);
    assert_eq!((world.serving().len(), state(&world)), (3, "rolled-back"));
}

#[test]
fn replicas_that_die_while_they_are_monitored_or_later_roll_back() {
    // After how long each new replica ends: within the monitoring time, and beyond.
    for lives in [SECOND, 3 * SECOND] {
        let mut world = World::booted(3, 1);
        world.roster.roll(to("v2", 1), world.now).unwrap();
        let mut born: BTreeMap<Hostname, Instant> = BTreeMap::new();
        for _ in 0..2_000 {
            for (name, container) in &mut world.engine.containers {
                if container.release.generation() == 1 {
                    let since = *born.entry(name.clone()).or_insert(world.now);
                    if world.now >= since + lives {
                        container.death.get_or_insert(Death::Exited(1));
                    }
                }
            }
            world.calm();
            world.now += SECOND / 10;
            if state(&world) == "rolled-back" {
                break;
            }
        }
        world.settle();
        assert_eq!(images(&world), ["v1"; 3], "{lives:?}");
        assert!(status(&world).error.unwrap().contains("exited with code 1"));
    }
}

#[test]
fn a_container_whose_health_check_has_not_passed_is_not_ready_and_an_unhealthy_one_rolls_back() {
    let mut world = World::booted(2, 1);
    world.roster.roll(to("v2", 1), world.now).unwrap();
    world.act();
    let start = world.under_way.iter().position(|call| matches!(call, Call::Start(..)));
    world.step(start.unwrap(), false);
    let new = with_image(&world, "v2").unwrap();
    world.engine.containers.get_mut(&new).unwrap().unchecked = true;
    // As the engine reports it from the start on.
    let Some(Call::Started(_, Ok(started))) = world.under_way.last_mut() else { panic!() };
    started.condition = Condition::Starting;
    world.finish_calls();
    for _ in 0..5 {
        world.now += SECOND;
        world.list();
        world.probe_all();
        assert_eq!(world.serving(), ["S1", "S2"]);
    }
    assert_eq!((status(&world).done, state(&world)), (0, "rolling"));
    let now = world.now;
    world.roster.records.get_mut(&new).unwrap().health.observed(Condition::Running, now);
    let unhealthy = Condition::Troubled(Trouble::Unhealthy);
    world.roster.records.get_mut(&new).unwrap().health.observed(unhealthy, now);
    world.act();
    assert!(state(&world).starts_with("roll") && state(&world).contains("back"));
    world.settle();
    assert_eq!(images(&world), ["v1"; 2]);
    assert!(status(&world).error.unwrap().contains("container health: unhealthy"));
}

#[test]
fn the_pause_of_a_new_replica_by_an_operator_is_no_failure_of_its_release() {
    let mut world = World::booted(3, 1);
    world.roster.roll(to("v2", 1), world.now).unwrap();
    until(&mut world, "a new one", |world| {
        with_image(world, "v2").is_some_and(|new| world.serving().contains(&new.to_string()))
    });
    let new = with_image(&world, "v2").unwrap();
    world.engine.containers.get_mut(&new).unwrap().paused = true;
    world.list();
    assert_eq!(world.serving().len(), 3, "the old one of its seat takes over");
    assert_eq!(state(&world), "rolling");
    world.engine.containers.get_mut(&new).unwrap().paused = false;
    world.settle();
    assert_eq!((images(&world), state(&world)), (vec!["v2".to_owned(); 3], "done"));
}

#[test]
fn a_rollout_supersedes_another_one_and_falls_back_on_the_last_good_release() {
    let mut world = World::booted(3, 1);
    world.erring_image = None;
    world.roster.roll(to("v2", 1), world.now).unwrap();
    until(&mut world, "the second seat", |world| world.engine.created == 5);
    // Corrected by another one, which is no good either.
    world.bad_image = Some("v3".to_owned());
    assert_eq!(world.roster.roll(to("v3", 1), world.now), Ok(2));
    assert_eq!(state(&world), "rolling");
    let earlier = status(&world).earlier;
    assert_eq!((earlier[0].state, earlier[0].generation), ("superseded", 1));
    world.act();
    assert!(world.events().contains(&"roll-superseded"));
    until(&mut world, "the rollback", |world| state(world) == "rolled-back");
    world.settle();
    assert_eq!(images(&world), ["v1"; 3], "not what was superseded");
    // And at last a good one.
    assert_eq!(world.roster.roll(to("v4", 1), world.now), Ok(4));
    until(&mut world, "its end", |world| state(world) == "done");
    world.settle();
    assert_eq!(images(&world), ["v4"; 3]);
    let states: Vec<_> = status(&world).earlier.iter().map(|roll| roll.state).collect();
    assert_eq!(states, ["superseded", "rolled-back"]);
}

#[test]
fn superseding_in_the_middle_of_a_seat_leaves_the_good_replica_in_charge() {
    let mut world = World::booted(2, 1);
    world.roster.roll(to("v2", 1), world.now).unwrap();
    until(&mut world, "a new one", |world| {
        with_image(world, "v2").is_some_and(|new| world.serving().contains(&new.to_string()))
    });
    world.bad_image = Some("v3".to_owned());
    world.roster.roll(to("v3", 1), world.now).unwrap();
    world.roster.pause_roll().unwrap();
    until(&mut world, "the end of the one that is superseded", |world| images(world) == ["v1"; 2]);
    world.roster.resume_roll().unwrap();
    until(&mut world, "the rollback", |world| state(world) == "rolled-back");
}

#[test]
fn a_rollback_can_be_asked_for_during_a_rollout_and_after_it_and_only_once() {
    let mut world = World::booted(3, 1);
    assert_eq!(world.roster.roll_back(world.now), Err(Refused::NothingToRollBackTo));
    world.roster.roll(to("v2", 1), world.now).unwrap();
    until(&mut world, "the second seat", |world| world.engine.created == 5);
    world.roster.roll_back(world.now).unwrap();
    world.roster.roll_back(world.now).unwrap();
    assert_eq!(state(&world), "rolling-back");
    until(&mut world, "the rollback", |world| state(world) == "rolled-back");
    world.settle();
    assert_eq!((images(&world), status(&world).error), (vec!["v1".to_owned(); 3], None));
    assert_eq!(world.roster.roll_back(world.now), Err(Refused::NothingToRollBackTo));

    world.roster.roll(to("v2", 2), world.now).unwrap();
    until(&mut world, "its end", |world| state(world) == "done");
    world.settle();
    world.roster.roll_back(world.now).unwrap();
    assert_eq!((state(&world), status(&world).generation), ("rolling-back", 3));
    until(&mut world, "the rollback", |world| state(world) == "rolled-back");
    world.settle();
    assert_eq!(images(&world), ["v1"; 3]);
    assert_eq!(world.roster.roll_back(world.now), Err(Refused::NothingToRollBackTo));
}

#[test]
fn a_paused_rollout_finishes_its_seat_and_begins_no_other() {
    let mut world = World::booted(3, 1);
    let none = world.roster.pause_roll();
    assert_eq!(none, Err(Refused::NotRolling { state: "none" }));
    world.roster.roll(to("v2", 1), world.now).unwrap();
    world.act();
    world.roster.pause_roll().unwrap();
    world.roster.pause_roll().unwrap();
    assert_eq!((state(&world), world.roster.is_rolling()), ("paused", false));
    world.settle();
    assert_eq!(
        (images(&world), status(&world).done),
        (vec!["v2".into(), "v1".into(), "v1".into()], 1)
    );
    // A seat whose turn has not come gets what it had, and one that was updated the new release.
    for index in [0, 1, 2] {
        world.kill(index);
        world.settle();
        assert_eq!(images(&world), ["v2", "v1", "v1"]);
    }
    world.roster.resume_roll().unwrap();
    world.settle();
    assert_eq!((images(&world), state(&world)), (vec!["v2".to_owned(); 3], "done"));
    assert_eq!(world.roster.resume_roll(), Err(Refused::NotRolling { state: "done" }));
}

#[test]
fn what_is_added_during_a_rollout_is_updated_in_its_turn() {
    let mut world = World::booted(3, 1);
    world.roster.roll(to("v2", 1), world.now).unwrap();
    world.act();
    world.roster.pause_roll().unwrap();
    world.roster.add(change(1, &[]), world.now).unwrap();
    world.settle();
    assert_eq!(images(&world), ["v2", "v1", "v1", "v1"]);
    world.roster.resume_roll().unwrap();
    world.settle();
    assert_eq!(images(&world), ["v2"; 4]);
}

#[test]
fn seats_without_a_ready_replica_have_their_turn_first() {
    let mut world = World::booted(3, 1);
    world.engine.containers.get_mut(&name("S3")).unwrap().silent = true;
    world.fail_probes("S3");
    world.roster.roll(to("v2", 1), world.now).unwrap();
    world.act();
    let started = |call: &Call| match call {
        Call::Start(place, ..) => place.seat().map(Seat::get),
        Call::Started(..)
        | Call::Mark(..)
        | Call::Marked(..)
        | Call::Stop(..)
        | Call::Stopped(..) => None,
    };
    let starts: Vec<u32> = world.under_way.iter().filter_map(started).collect();
    assert_eq!(starts, [3]);
    world.settle();
    assert_eq!(images(&world), ["v2"; 3]);
}

#[test]
fn half_of_a_rollout_that_fails_is_rolled_back() {
    let mut world = World::booted(3, 1);
    world.roster.roll(to("v2", 1), world.now).unwrap();
    until(&mut world, "the second seat", |world| world.engine.created == 5);
    let first = with_image(&world, "v2").unwrap();
    world.bad_image = Some("v2".to_owned());
    // The first one answers still: only later ones are bad.
    let container = world.engine.containers.get_mut(&first).unwrap();
    let spec = Spec { image: Some("other".into()), ..container.release.spec().clone() };
    container.release = container.release.with_spec(spec);
    until(&mut world, "the rollback", |world| state(world) == "rolled-back");
    world.settle();
    assert_eq!(images(&world), ["v1"; 3]);
    assert_eq!(world.seats(), [1, 2, 3]);
}

#[test]
fn a_rollout_of_the_same_restarts_every_replica() {
    let mut world = World::booted(3, 1);
    world.roster.roll(restart(3), world.now).unwrap();
    until(&mut world, "its end", |world| state(world) == "done");
    world.settle();
    assert_eq!(world.engine.created, 6);
    assert!(!world.names().contains(&"S1".to_owned()), "{:?}", world.names());
    assert_eq!(world.seats(), [1, 2, 3]);
}

/// The image IDs of all containers.
fn digests(world: &World) -> Vec<String> {
    let digest = |c: &Container| c.release.spec().digest.clone().unwrap();
    world.engine.containers.values().map(digest).collect()
}

#[test]
fn a_release_keeps_its_image_id_until_a_rollout_names_the_tag_again() {
    let mut world = World::booted(3, 1);
    assert_eq!(digests(&world), ["id of v1"; 3]);
    let tags = [("v1".to_owned(), "moved".to_owned())];
    world.engine.tags = tags.into();
    world.kill(1);
    world.settle();
    assert_eq!(digests(&world), ["id of v1"; 3], "a replacement runs what the release runs");
    world.roster.add(change(1, &[]), world.now).unwrap();
    world.settle();
    world.roster.roll(restart(4), world.now).unwrap();
    world.settle();
    assert_eq!(digests(&world), ["id of v1"; 4], "a restart, too");
    let mut world = world.successor(2);
    world.boot(3);
    world.kill(1);
    world.settle();
    assert_eq!(digests(&world), ["id of v1"; 4], "and the next balancer");

    world.roster.roll(to("v1", 4), world.now).unwrap();
    until(&mut world, "its end", |world| state(world) == "done");
    world.settle();
    assert_eq!(digests(&world), ["moved"; 4]);
    // The rollback needs no tag.
    world.engine.tags = [("v1".to_owned(), "broken".to_owned())].into();
    world.roster.roll_back(world.now).unwrap();
    world.settle();
    assert_eq!(digests(&world), ["id of v1"; 4]);
}

/// The configuration with other limits.
fn with_pids(world: &World, pids: u32, on_change: OnChange) -> ReleaseConfig {
    let mut release = world.roster.config.release.clone();
    release.spec.pids = Some(pids);
    release.on_change = on_change;
    release
}

fn pids(world: &World) -> Vec<Option<u32>> {
    world.engine.containers.values().map(|c| c.release.spec().pids).collect()
}

#[test]
fn a_changed_configuration_is_told_and_rolled_out() {
    let mut world = World::booted(3, 1);
    world.events();
    let same = world.roster.config.release.clone();
    world.roster.configure(same, world.now);
    world.settle();
    assert_eq!(world.events(), [""; 0]);

    world.roster.configure(with_pids(&world, 7, OnChange::Roll), world.now);
    until(&mut world, "its end", |world| state(world) == "done");
    world.settle();
    assert_eq!((pids(&world), images(&world)), (vec![Some(7); 3], vec!["v1".to_owned(); 3]));
    assert_eq!(digests(&world), ["id of v1"; 3], "the image stays pinned");
    let told = std::mem::take(&mut world.told);
    let reason = told.iter().find(|it| it.what.name() == "spec-changed").unwrap().what.reason();
    assert_eq!(reason.unwrap(), r#"pids: unset -> "7""#);
    // And back.
    world.roster.roll_back(world.now).unwrap();
    world.settle();
    assert_eq!(pids(&world), [None; 3]);
}

#[test]
fn a_changed_configuration_may_be_warned_of_only_until_a_rollout_is_asked_for() {
    let mut world = World::booted(2, 1);
    world.events();
    let changed = with_pids(&world, 7, OnChange::Warn);
    world.roster.configure(changed.clone(), world.now);
    world.roster.configure(changed, world.now);
    world.kill(0);
    world.settle();
    assert_eq!(pids(&world), [None; 2], "a replacement runs what the others run");
    let warnings = world.events().iter().filter(|event| **event == "spec-changed").count();
    assert_eq!(warnings, 1);
    world.roster.roll(restart(1), world.now).unwrap();
    world.settle();
    assert_eq!(pids(&world), [Some(7); 2]);
}

#[test]
fn a_restart_with_another_configuration_rolls_or_warns_and_one_with_the_same_does_nothing() {
    for (on_change, expected) in [(OnChange::Roll, Some(7)), (OnChange::Warn, None)] {
        let mut world = World::booted(3, 1);
        let mut same = world.successor(2);
        same.boot(3);
        same.settle();
        assert!(same.roster.roll_status(same.now).is_none());
        let release = with_pids(&same, 7, on_change);
        let mut changed = same.successor(3);
        changed.roster.config.release = release;
        let config = changed.roster.config.clone();
        changed.roster = Roster::new(config);
        changed.boot(3);
        changed.settle();
        assert_eq!(pids(&changed), [expected; 3]);
        let told = changed.events().iter().filter(|event| **event == "spec-changed").count();
        assert_eq!(told, 1, "{on_change:?}");
        assert_eq!(changed.engine.created, if expected.is_some() { 6 } else { 3 });
    }
}

#[test]
fn a_restart_keeps_what_was_rolled_out_unless_the_configuration_has_changed_since() {
    let mut world = World::booted(2, 1);
    world.roster.roll(to("v2", 2), world.now).unwrap();
    world.settle();
    let mut same = world.successor(2);
    same.boot(2);
    same.settle();
    assert_eq!((images(&same), same.engine.created), (vec!["v2".to_owned(); 2], 4));
    let release = with_pids(&same, 7, OnChange::Roll);
    let mut changed = same.successor(3);
    let config = FleetConfig { release, ..changed.roster.config.clone() };
    changed.roster = Roster::new(config);
    changed.boot(2);
    changed.settle();
    assert_eq!((images(&changed), pids(&changed)), (vec!["v1".to_owned(); 2], vec![Some(7); 2]));
}

#[test]
fn replicas_of_an_earlier_version_of_the_balancer_are_adopted_as_they_are() {
    let mut world = World::booted(2, 1);
    for container in world.engine.containers.values_mut() {
        container.release = Release::default();
    }
    let mut next = world.successor(2);
    next.boot(2);
    next.settle();
    assert_eq!((next.engine.created, next.names().len()), (2, 2));
    assert!(next.roster.roll_status(next.now).is_none());
}

#[test]
fn a_rollout_goes_on_after_a_restart_and_a_finished_one_is_not_repeated() {
    let mut world = World::booted(3, 1);
    world.roster.roll(to("v2", 1), world.now).unwrap();
    until(&mut world, "the second seat", |world| world.engine.created == 5);
    let mut next = world.successor(2);
    next.boot(3);
    next.settle();
    assert_eq!(images(&next), ["v2"; 3]);
    assert_eq!(next.seats(), [1, 2, 3]);
    assert!(next.engine.created <= 6, "{} starts", next.engine.created);
    let created = next.engine.created;
    let mut last = next.successor(3);
    last.boot(3);
    last.settle();
    assert_eq!(last.engine.created, created);
    assert!(last.roster.roll_status(last.now).is_none());
    last.kill(0);
    last.settle();
    assert_eq!(images(&last), ["v2"; 3]);
}

#[test]
fn a_death_during_a_rollout_is_healed_and_spares_are_updated_too() {
    let mut world = World::booted_with(FleetConfig { spares: 1, ..config() }, 3, 1);
    world.roster.roll(to("v2", 1), world.now).unwrap();
    world.calm();
    world.kill(2);
    world.settle();
    assert_eq!(images(&world), ["v2"; 4]);
    assert_eq!(world.seats(), [1, 2, 3]);
    assert_eq!(state(&world), "done");
}

#[test]
fn without_images_or_ownership_a_rollout_is_refused() {
    let mut world = World::with(FleetConfig { images: false, ..config() }, 1);
    assert_eq!(world.roster.roll(to("v2", 1), world.now), Err(Refused::NoImages));
    let mut listed = World::with(FleetConfig { listed: true, ..config() }, 1);
    assert_eq!(listed.roster.roll(to("v2", 1), listed.now), Err(Refused::Listed));
    assert_eq!(listed.roster.roll_back(listed.now), Err(Refused::Listed));
    assert!(world.roster.roll(restart(1), world.now).is_ok());
    world.settle();
}
