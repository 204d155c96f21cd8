//! Hung, erring and paused replicas; spares; newcomers' shares; other balancers.

use super::world::Marked;
use super::*;
use crate::fleet::change::Death;

fn kinds(world: &World, call: impl Fn(&Call) -> bool) -> usize {
    world.under_way.iter().filter(|c| call(c)).count()
}

fn starts(world: &World) -> usize {
    kinds(world, |call| matches!(call, Call::Start(..)))
}

#[test]
fn a_hung_replica_is_replaced_after_its_deadline_and_goes_when_another_is_ready() {
    let mut world = World::booted(3, 1);
    world.engine.containers.get_mut(&name("S2")).unwrap().silent = true;
    world.fail_probes("S2");
    assert_eq!(world.serving(), ["S1", "S3"]);
    world.now += 29 * SECOND;
    world.act();
    assert_eq!(starts(&world), 0);
    world.now += SECOND;
    world.act();
    assert_eq!(starts(&world), 1);
    world.finish_calls();
    assert_eq!(world.engine.containers.len(), 4, "the hung one stays until another is ready");
    assert!(world.names().contains(&"S2".to_owned()));
    world.probe_all();
    assert!(!world.names().contains(&"S2".to_owned()));
    world.settle();
    assert_eq!(world.seats(), [1, 2, 3]);
    assert_eq!(world.serving().len(), 3);
    let events = world.events();
    assert_eq!(events.iter().filter(|name| **name == "hung").count(), 1, "{events:?}");
}

#[test]
fn a_hung_replica_that_wakes_up_in_time_stays() {
    let mut world = World::booted(3, 1);
    world.engine.containers.get_mut(&name("S2")).unwrap().silent = true;
    world.fail_probes("S2");
    world.now += 31 * SECOND;
    world.act();
    world.finish_calls();
    world.engine.containers.get_mut(&name("S2")).unwrap().silent = false;
    let (hostname, _, address) =
        world.roster.running().find(|(name, ..)| name.as_str() == "S2").unwrap();
    let (hostname, address) = (hostname.clone(), address);
    world.roster.probed(&hostname, address, Verdict::Good, None, world.now);
    world.settle();
    assert_eq!(world.serving(), ["S1", "S2", "S3"], "the older of the two stays");
    assert_eq!(world.engine.containers.len(), 3);
}

#[test]
fn a_paused_replica_leaves_at_the_engines_word_and_is_back_at_its_word() {
    let mut world = World::booted(3, 1);
    world.engine.containers.get_mut(&name("S2")).unwrap().paused = true;
    world.list();
    assert_eq!(world.serving(), ["S1", "S3"]);
    assert_eq!(world.names(), ["S1", "S2", "S3"], "it runs still");
    world.engine.containers.get_mut(&name("S2")).unwrap().paused = false;
    world.list();
    assert_eq!(world.serving(), ["S1", "S2", "S3"]);
}

#[test]
fn when_most_look_bad_all_are_routed_to_and_none_is_replaced() {
    let mut world = World::booted(3, 1);
    world.events();
    world.fail_probes("S1");
    assert_eq!(world.serving(), ["S2", "S3"]);
    world.fail_probes("S2");
    assert_eq!(world.serving(), ["S1", "S2", "S3"]);
    world.fail_probes("S3");
    world.now += 300 * SECOND;
    world.act();
    assert_eq!(starts(&world), 0);
    world.probe_all();
    assert_eq!(world.serving(), ["S1", "S2", "S3"]);
    let events = world.events();
    let of = |name: &str| events.iter().filter(|event| **event == name).count();
    assert_eq!((of("panic"), of("panic-over")), (1, 1), "{events:?}");
    assert_eq!(world.engine.containers.len(), 3);
}

#[test]
fn those_that_the_engine_knows_to_be_paused_cause_no_panic() {
    let mut world = World::booted(3, 1);
    for name in ["S1", "S2"] {
        world.engine.containers.get_mut(&Hostname::parse(name).unwrap()).unwrap().paused = true;
    }
    world.list();
    assert_eq!(world.serving(), ["S3"]);
    assert!(!world.roster.is_panicking());
    world.now += 31 * SECOND;
    world.act();
    assert_eq!(starts(&world), 2, "they are replaced all the same");
}

#[test]
fn the_only_replica_is_routed_to_while_it_hangs_and_replaced_in_time() {
    let mut world = World::booted(1, 1);
    world.engine.containers.get_mut(&name("S1")).unwrap().silent = true;
    world.fail_probes("S1");
    assert_eq!(world.serving(), ["S1"], "there is nobody else");
    world.now += 31 * SECOND;
    world.settle();
    assert_eq!(world.seats(), [1]);
    assert_ne!(world.names(), ["S1"]);
}

#[test]
fn errors_eject_for_a_time_but_never_too_many_and_never_the_last() {
    let mut world = World::booted(4, 1);
    for hostname in ["S1", "S2", "S3", "S4"] {
        world.roster.erred(&name(hostname), world.now);
    }
    world.act();
    assert_eq!(world.serving(), ["S3", "S4"], "half of the fleet at once");
    world.now += 10 * SECOND;
    world.act();
    assert_eq!(world.serving().len(), 4);
    world.roster.erred(&name("S1"), world.now);
    world.now += 10 * SECOND;
    world.act();
    assert_eq!(world.serving(), ["S2", "S3", "S4"], "the second time is twice as long");
    let mut alone = World::booted(1, 1);
    alone.roster.erred(&name("S1"), alone.now);
    alone.act();
    assert_eq!(alone.serving(), ["S1"]);
    let mut pair = World::booted(2, 1);
    pair.roster.erred(&name("S1"), pair.now);
    pair.roster.erred(&name("S2"), pair.now);
    pair.act();
    assert_eq!(pair.serving(), ["S2"]);
}

#[test]
fn replicas_that_run_and_were_ready_are_a_last_resort() {
    let mut world = World::booted_with(FleetConfig { panic: None, ..config() }, 6, 1);
    assert_eq!(world.standby(), [""; 0]);
    world.roster.erred(&name("S1"), world.now);
    world.fail_probes("S2");
    world.engine.containers.get_mut(&name("S3")).unwrap().paused = true;
    world.list();
    world.fail_probes("S5");
    world.roster.enable(&name("S5"), false, 0);
    world.act();
    // S3 is frozen and S5 switched off.
    assert_eq!(world.serving(), ["S4", "S6"]);
    assert_eq!(world.standby(), ["S1", "S2"]);
    // One that is dead is none, and its successor was never ready.
    world.kill(1);
    world.list();
    assert_eq!(world.standby(), ["S1"]);
    world.now += 60 * SECOND;
    world.act();
    assert!(!world.standby().contains(&"S1".to_owned()), "it is ready again");
}

#[test]
fn a_replica_that_was_restarted_is_a_last_resort_and_a_new_one_is_not() {
    let mut world = World::booted(2, 1);
    world.roster.add(change(1, &[]), world.now).unwrap();
    world.act();
    world.finish_calls();
    assert_eq!(world.standby(), [""; 0], "the new one was never ready");
    // It gets another address.
    world.engine.containers.get_mut(&name("S1")).unwrap().created += 1_000;
    world.list();
    assert!(!world.serving().contains(&"S1".to_owned()));
    assert_eq!(world.standby(), ["S1"]);
}

#[test]
fn a_death_is_healed_by_a_spare_at_once_and_a_new_spare_follows() {
    let mut world = World::booted_with(FleetConfig { spares: 1, ..config() }, 3, 1);
    assert_eq!(world.engine.containers.len(), 4);
    assert_eq!(world.names().len(), 3, "a spare is not listed");
    world.kill(0);
    world.list();
    assert_eq!(world.serving().len(), 3, "without a call to the engine");
    assert_eq!(world.names().len(), 3);
    assert_eq!(starts(&world), 1, "the next spare");
    world.settle();
    assert_eq!(world.engine.containers.len(), 4);
    let mut next = world.successor(2);
    next.boot(3);
    next.settle();
    assert_eq!(next.seats(), [1, 2, 3]);
    assert_eq!(next.engine.created, 5, "nothing is started needlessly");
}

#[test]
fn an_addition_without_names_takes_spares() {
    let mut world = World::booted_with(FleetConfig { spares: 2, ..config() }, 2, 1);
    world.roster.add(change(2, &[]), world.now).unwrap();
    world.act();
    assert!(matches!(world.outcomes[..], [(_, Ok(()))]), "at once");
    assert_eq!(world.serving().len(), 4);
    world.settle();
    assert_eq!(world.seats(), [1, 2, 3, 4]);
    assert_eq!(world.engine.containers.len(), 6);
}

#[test]
fn a_seat_that_could_not_be_written_down_is_written_down_later() {
    let mut world = World::booted_with(FleetConfig { spares: 1, ..config() }, 2, 1);
    world.kill(0);
    world.list();
    let mark =
        world.under_way.iter().position(|call| matches!(call, Call::Mark(_, Marked::Seated(_))));
    world.step(mark.unwrap(), true);
    world.settle();
    assert_eq!(world.seats(), [1, 2]);
    assert!(world.events().contains(&"mark-failed"));
}

#[test]
fn a_newcomers_share_grows_and_the_first_fleets_does_not() {
    let slow_start = 10 * SECOND;
    let mut world = World::booted_with(FleetConfig { slow_start, ..config() }, 2, 1);
    let tenths = |world: &World| -> Vec<u8> { world.roster.members().map(|m| m.2).collect() };
    assert_eq!(tenths(&world), [10, 10]);
    world.roster.add(change(1, &[]), world.now).unwrap();
    world.act();
    world.finish_calls();
    world.probe_all();
    assert_eq!(tenths(&world), [10, 10, 1]);
    let begin = world.now;
    for step in 1..=9_u8 {
        world.now = begin + SECOND * u32::from(step);
        world.act();
        assert_eq!(tenths(&world), [10, 10, step + 1]);
    }
    assert!(world.act().is_none(), "nothing is left to wait for");
}

#[test]
fn a_removal_that_another_balancer_makes_is_followed() {
    let mut one = World::booted(3, 1);
    let mut other = one.successor(2);
    other.boot(3);
    other.settle();
    std::mem::swap(&mut one.engine, &mut other.engine);
    one.roster.remove(change(1, &["S2"]), &mut one.rng).unwrap();
    one.act();
    one.finish_calls();
    assert_eq!(one.seats(), [1, 3]);
    std::mem::swap(&mut one.engine, &mut other.engine);
    other.settle();
    assert_eq!(other.seats(), [1, 3], "it is not respawned");
    assert_eq!(other.names(), ["S1", "S3"]);
    assert!(other.events().contains(&"died"), "it was gone when it was missed");
}

#[test]
fn an_addition_that_another_balancer_makes_is_followed_once_it_is_ready() {
    let mut one = World::booted(2, 1);
    let mut other = one.successor(2);
    other.boot(2);
    other.settle();
    std::mem::swap(&mut one.engine, &mut other.engine);
    one.roster.add(change(1, &["new"]), one.now).unwrap();
    one.act();
    one.finish_calls();
    std::mem::swap(&mut one.engine, &mut other.engine);
    other.engine.containers.get_mut(&name("new")).unwrap().silent = true;
    other.list();
    other.probe_all();
    assert_eq!(other.roster.members().count(), 2, "it may still fail");
    assert!(other.under_way.is_empty());
    other.engine.containers.get_mut(&name("new")).unwrap().silent = false;
    other.settle();
    assert_eq!(other.names(), ["S1", "S2", "new"]);
}

#[test]
fn two_balancers_that_see_a_death_ask_for_the_same_name() {
    let mut one = World::booted(2, 1);
    let mut other = one.successor(2);
    other.boot(2);
    other.settle();
    other.kill(0);
    other.list();
    std::mem::swap(&mut one.engine, &mut other.engine);
    one.list();
    let wanted = |world: &World| {
        let started = |call: &Call| {
            if let Call::Start(_, hostname, _) = call { Some(hostname.clone()) } else { None }
        };
        world.under_way.iter().find_map(started).unwrap()
    };
    assert_eq!(wanted(&one), wanted(&other));
    one.finish_calls();
    std::mem::swap(&mut one.engine, &mut other.engine);
    other.finish_calls();
    other.settle();
    assert_eq!(other.engine.created, 3, "one replacement, not two");
    assert_eq!(other.serving().len(), 2);
}

#[test]
fn what_was_being_removed_is_removed_by_the_next_balancer_and_not_respawned() {
    let mut world = World::booted(3, 1);
    world.roster.remove(change(1, &["S2"]), &mut world.rng).unwrap();
    world.act();
    let mark =
        world.under_way.iter().position(|call| matches!(call, Call::Mark(_, Marked::Leaving)));
    world.step(mark.unwrap(), false);
    let mut next = world.successor(2);
    next.boot(3);
    assert_eq!(next.roster.members().count(), 2);
    next.settle();
    assert_eq!(next.seats(), [1, 3]);
}

#[test]
fn a_seat_whose_replica_was_dead_is_filled_by_the_next_balancer() {
    let mut world = World::booted(3, 1);
    world.kill(1);
    world.list();
    assert_eq!(starts(&world), 1);
    // It dies before anything is started; the remains are all that tells of the seat.
    let mut next = world.successor(2);
    next.boot(5);
    next.settle();
    assert_eq!(next.seats(), [1, 2, 3]);
}

#[test]
fn what_was_made_and_not_started_is_started_by_the_next_balancer() {
    let mut world = World::booted(2, 1);
    world.engine.containers.get_mut(&name("S2")).unwrap().made = true;
    let mut next = world.successor(2);
    next.boot(2);
    assert_eq!(starts(&next), 1);
    next.settle();
    assert_eq!(next.names(), ["S1", "S2"]);
    assert_eq!(next.engine.created, 2);
}

#[test]
fn a_leaving_replica_that_dies_is_removed_and_told_of_once() {
    let mut world = World::booted(2, 1);
    world.events();
    world.roster.remove(change(1, &["S2"]), &mut world.rng).unwrap();
    world.act();
    world.engine.containers.get_mut(&name("S2")).unwrap().death = Some(Death::Killed(9));
    for _ in 0..3 {
        world.list();
    }
    assert_eq!(world.events(), ["draining"]);
    world.settle();
    assert_eq!(world.seats(), [1]);
    assert!(matches!(world.outcomes[..], [(_, Ok(()))]));
}

#[test]
fn an_addition_whose_replica_another_balancer_removes_fails() {
    let mut world = World::booted(1, 1);
    world.roster.add(change(1, &["new"]), world.now).unwrap();
    world.act();
    world.finish_calls();
    world.engine.containers.get_mut(&name("new")).unwrap().leaving = true;
    world.settle();
    assert!(matches!(world.outcomes[..], [(_, Err(Failed::Died { .. }))]), "{:?}", world.outcomes);
    assert_eq!(world.seats(), [1]);
}

#[test]
fn while_the_runtime_does_not_answer_nothing_is_believed_and_nothing_counts() {
    let mut world = World::booted(3, 1);
    world.roster.runtime_lost();
    for hostname in ["S1", "S2", "S3"] {
        world.fail_probes(hostname);
    }
    assert!(world.serving().is_empty() && !world.roster.is_panicking());
    world.now += 60 * SECOND;
    world.act();
    assert!(world.under_way.is_empty(), "nobody is replaced: {:?}", world.under_way);
    world.kill(0);
    world.list();
    for _ in 0..8 {
        let start = world.under_way.iter().position(|call| matches!(call, Call::Start(..)));
        if let Some(at) = start {
            world.step(at, true);
        }
        while let Some(at) = world.under_way.iter().position(|c| !matches!(c, Call::Start(..))) {
            world.step(at, false);
        }
        world.now += 20 * SECOND;
        world.act();
    }
    world.roster.runtime_back(world.now);
    world.act();
    assert_eq!(starts(&world), 1, "at once");
    world.settle();
    assert_eq!(world.seats(), [1, 2, 3]);
}
