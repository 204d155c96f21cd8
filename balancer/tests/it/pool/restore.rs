//! What a start restores: after `kill -9` the last requested fleet, after an earlier version its
//! containers.

use std::collections::BTreeMap;

use super::*;

const RESTORED: &str = "last requested fleet restored: the configuration is unchanged";
const CONFIGURED: &str = "configuration applies: it has changed since the last requested fleet";
const ADOPTED: &str = "containers of an earlier version are adopted";

/// Starts a balancer at the address of another one that has ended.
fn start_at(engine: &Engine, address: &str, arguments: &[&str]) -> Balancer {
    let own = ["--pool", "scripted", "--listen", address];
    engine.start_balancer(&[&own[..], arguments].concat())
}

#[test]
fn after_a_kill_the_last_requested_number_is_restored_at_once() {
    let engine = Engine::start();
    let mut balancer = engine.balancer_with(3, &[]);
    let address = balancer.address.to_string();
    for (method, path, n, left) in
        [("POST", "/add", 2, 5), ("DELETE", "/rm", 4, 1), ("DELETE", "/rm", 1, 0)]
    {
        let answer = balancer.json(method, path, &format!(r#"{{"n":{n}}}"#));
        assert_eq!(answer.status, 200, "{answer:?}");
        kill_9(balancer);
        // What was answered counts, whatever became of the containers.
        let ids: Vec<String> = engine.world().ours().map(|it| it.id.clone()).collect();
        ids.iter().for_each(|id| _ = engine.world().remove(id));
        let began = Instant::now();
        balancer = start_at(&engine, &address, &["--replicas", "3"]);
        let took = began.elapsed();
        assert!(took < Duration::from_secs(4), "it waits for its own lease: {took:?}");
        engine.wait_for(left);
        assert_eq!(balancer.wait_for_replicas(left).len(), left);
        assert_eq!(fleet(&balancer)["desired"], left);
        assert_eq!(balancer.events(RESTORED).len(), 1);
    }
}

#[test]
fn after_a_kill_a_requested_release_is_restored() {
    let engine = Engine::start();
    let balancer = engine.balancer_with(2, &["--admin-programs"]);
    let address = balancer.address.to_string();
    engine.world().images.insert("second".to_owned());
    let roll = balancer.json("POST", "/admin/roll", r#"{"image":"second"}"#);
    assert_eq!(roll.status, 202, "{roll:?}");
    kill_9(balancer);
    // Nothing is left that could tell of it but the lease.
    let ids: Vec<String> = engine.world().ours().map(|it| it.id.clone()).collect();
    ids.iter().for_each(|id| _ = engine.world().remove(id));
    let next = start_at(&engine, &address, &["--replicas", "2", "--admin-programs"]);
    engine.wait_for(2);
    for container in engine.world().ours() {
        assert!(container.labels["balancer.release"].contains("second"), "{:?}", container.labels);
    }
    assert_eq!(next.events(RESTORED).len(), 1);
}

#[test]
fn a_configuration_that_has_changed_applies_instead() {
    let engine = Engine::start();
    let balancer = engine.balancer_with(3, &[]);
    let address = balancer.address.to_string();
    assert_eq!(balancer.json("POST", "/add", r#"{"n":2}"#).status, 200);
    let before = engine.wait_for(5);
    kill_9(balancer);
    let next = start_at(&engine, &address, &["--replicas", "4"]);
    let after = engine.wait_for(4);
    assert!(after.iter().all(|(seat, id)| before[seat] == *id), "{before:?} {after:?}");
    assert_eq!(next.wait_for_replicas(4).len(), 4);
    assert_eq!(next.events(CONFIGURED).len(), 1);
}

#[test]
fn a_clean_stop_ends_what_was_requested_and_one_that_keeps_replicas_does_not() {
    let engine = Engine::start();
    let mut balancer = engine.balancer_with(2, &["--keep-replicas"]);
    let address = balancer.address.to_string();
    assert_eq!(balancer.json("POST", "/add", r#"{"n":1}"#).status, 200);
    let seats = engine.wait_for(3);
    stop(&mut balancer);
    assert_eq!(engine.wait_for(3), seats);
    let mut next = start_at(&engine, &address, &["--replicas", "2"]);
    assert_eq!(next.wait_for_replicas(3).len(), 3);
    assert_eq!(next.events(RESTORED).len(), 1);
    assert_eq!(engine.wait_for(3), seats);
    stop(&mut next);
    let last = start_at(&engine, &address, &["--replicas", "2"]);
    engine.wait_for(2);
    assert!(last.events(RESTORED).is_empty());
}

#[test]
fn containers_of_an_earlier_version_are_adopted_once_and_not_from_a_living_balancer() {
    let engine = Engine::start();
    {
        let mut world = engine.world();
        world.networks.insert("net1".to_owned(), Value::Null);
        for seat in 1..=2 {
            let labels = [
                ("balancer.pool", "default".to_owned()),
                ("balancer.seat", seat.to_string()),
                ("balancer.hostname", format!("old-{seat}")),
            ];
            let labels: BTreeMap<String, String> =
                labels.map(|(name, value)| (name.to_owned(), value)).into();
            let id = world.create(&format!("old-{seat}"), labels, "ring-balancer/server").unwrap();
            let connected = world.containers.iter_mut().find(|it| it.id == id).unwrap();
            connected.network = "net1".to_owned();
            world.run(&id).unwrap();
        }
    }
    let mut one = engine.start_balancer(&["--replicas", "2"]);
    assert_eq!(one.wait_for_replicas(2), ["old-1", "old-2"]);
    assert_eq!(one.events(ADOPTED).len(), 1);
    let other = engine.start_balancer(&["--replicas", "1", "--network", "net2"]);
    other.wait_for_replicas(1);
    assert!(other.events(ADOPTED).is_empty());
    assert_eq!(one.replicas(), ["old-1", "old-2"]);
    // What replaces them is this version's.
    let first = engine.world().find("old-1").unwrap().id.clone();
    engine.kill(&first);
    wait_for("its successor", || {
        let replicas = one.replicas();
        (replicas.len() == 2 && !replicas.contains(&"old-1".to_owned())).then_some(())
    });
    wait_for("what is left of it to be removed", || {
        engine.world().find("old-1").is_none().then_some(())
    });
    stop(&mut one);
    assert_eq!(engine.world().ours().count(), 1, "only the other one's is left");
}
