//! Balancers that leave a pool, and replicas that disappear.

use super::*;
use crate::engine::State;
use crate::load::Load;

/// The warning for a replica that a stopping balancer takes with it.
const TAKEN: &str = "replica is being removed by a balancer that stops; its seat is refilled";

#[test]
fn a_stop_leaves_the_replicas_to_the_other_balancer_and_the_last_one_removes_them() {
    let engine = Engine::start();
    let mut one = engine.start_balancer(&[&SHARED[..], &["--replicas", "3"]].concat());
    one.wait_for_replicas(3);
    let mut other = engine.start_balancer(&SHARED);
    other.wait_for_replicas(3);
    let seats = engine.wait_for(3);
    let load = Load::start(other.address);

    stop(&mut one);
    let kept = one.events("replicas are left to the other balancers of the pool");
    assert_eq!(kept.len(), 1, "it says so");
    load.wait_for_more();
    load.end();
    assert_eq!(engine.wait_for(3), seats, "none was replaced");
    assert_eq!(other.replicas().len(), 3);
    assert_eq!(fleet(&other)["desired"], 3);

    stop(&mut other);
    let world = engine.world();
    assert_eq!(world.ours().count(), 0);
    assert!(world.volumes.is_empty(), "{:?}", world.volumes);
    assert!(world.networks.is_empty(), "{:?}", world.networks);
}

#[test]
fn of_balancers_that_stop_at_once_one_removes_everything() {
    for _ in 0..3 {
        let engine = Engine::start();
        let one = engine.start_balancer(&[&SHARED[..], &["--replicas", "2"]].concat());
        one.wait_for_replicas(2);
        let other = engine.start_balancer(&SHARED);
        other.wait_for_replicas(2);
        wait_for_members(&one, 2);
        let mut both = [one, other];
        both.iter().for_each(|balancer| balancer.signal(Signal::TERM));
        for balancer in &mut both {
            assert_eq!(balancer.wait().code(), Some(0));
        }
        assert_eq!(engine.world().ours().count(), 0);
    }
}

#[test]
fn a_stop_beside_a_balancer_that_just_died_removes_everything() {
    let engine = Engine::start();
    let mut one = engine.start_balancer(&[&SHARED[..], &["--replicas", "2"]].concat());
    one.wait_for_replicas(2);
    let other = engine.start_balancer(&SHARED);
    wait_for_members(&one, 2);
    // Its lease is fresh when the other one stops.
    kill_9(other);
    stop(&mut one);
    assert_eq!(engine.world().ours().count(), 0);
}

#[test]
fn replicas_that_a_stopping_balancer_takes_with_it_are_replaced_with_a_warning() {
    let engine = Engine::start();
    let balancer = engine.balancer_with(3, &[]);
    let before = engine.wait_for(3);
    for id in before.values() {
        let mut world = engine.world();
        let name = format!("{}.stopping", world.find(id).unwrap().name);
        world.rename(id, &name).unwrap();
    }
    wait_for("the warnings", || (balancer.events(TAKEN).len() == 3).then_some(()));
    before.values().for_each(|id| _ = engine.world().remove(id));
    let after = engine.wait_for(3);
    assert!(after.values().all(|id| !before.values().any(|old| old == id)));
    assert_eq!(after.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
    assert_eq!(balancer.wait_for_replicas(3).len(), 3);
    assert!(balancer.events(TAKEN).iter().all(|event| event.fields["level"] == "WARN"));
}

#[test]
fn all_replicas_that_disappear_at_once_are_replaced() {
    let engine = Engine::start();
    let balancer = engine.balancer_with(3, &[]);
    let before = engine.wait_for(3);
    before.values().for_each(|id| _ = engine.world().remove(id));
    let after = engine.wait_for(3);
    assert_eq!(after.keys().collect::<Vec<_>>(), [&1, &2, &3]);
    assert!(after.values().all(|id| !before.values().any(|old| old == id)));
    wait_for("three warnings", || {
        let dead = balancer.events("replica is dead");
        let warned = dead.iter().filter(|event| event.fields["level"] == "WARN").count();
        (warned == 3).then_some(())
    });
}

#[test]
fn a_seat_that_one_balancer_was_asked_to_give_up_is_given_up_by_the_other() {
    let engine = Engine::start();
    let one = engine.start_balancer(&[&SHARED[..], &["--replicas", "3"]].concat());
    one.wait_for_replicas(3);
    let other = engine.start_balancer(&SHARED);
    other.wait_for_replicas(3);
    assert_eq!(one.json("DELETE", "/rm", r#"{"n":1}"#).status, 200);
    engine.wait_for(2);
    other.wait_for_replicas(2);
    assert_eq!(fleet(&other)["desired"], 2);
    assert!(other.events(TAKEN).is_empty());
    let running = engine.world().ours().all(|it| it.state == State::Running);
    assert!(running);
}
