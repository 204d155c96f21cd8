//! Many at once: replicas, changes, calls.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{Load, greeting, processor_time};
use crate::engine::replica::Replica;
use crate::engine::{Call, Engine, Fault, State};
use crate::support::{Balancer, wait_for};

/// Calls to the engine at once.
const AT_ONCE: usize = 16;

/// Starts among them.
const STARTS: usize = 7;

#[test]
fn a_hundred_replicas_come_and_go_with_sixteen_engine_calls_at_once() {
    let engine = Engine::start();
    let stranger = engine.stranger("somebody");
    let balancer = engine.balancer_with(1, &["--max-replicas", "200"]);
    let load = Load::start(balancer.address);
    engine.fail(Call::Create, Fault::Hang, None);
    let added = thread::scope(|scope| {
        let adding = scope.spawn(|| balancer.json("POST", "/add", r#"{"n":100}"#));
        let creates = || engine.calls(Call::Create).len();
        wait_for("seven starts", || (creates() == 1 + STARTS).then_some(()));
        let listed = engine.calls(Call::List).len();
        wait_for("listings meanwhile", || {
            (engine.calls(Call::List).len() >= listed + 2).then_some(())
        });
        assert_eq!(creates(), 1 + STARTS, "one at first, then seven and no more");
        engine.heal();
        adding.join().unwrap()
    });
    assert_eq!(added.status, 200, "{added:?}");
    assert_eq!(added.json()["message"]["N"], 101);
    assert_eq!(engine.wait_for(101).len(), 101);
    let peak = engine.world().peak;
    assert!(peak <= AT_ONCE, "{peak} calls at once");

    let removed = balancer.json("DELETE", "/rm", r#"{"n":100}"#);
    assert_eq!(removed.status, 200, "{removed:?}");
    engine.wait_for(1);
    let peak = engine.world().peak;
    assert!(peak <= AT_ONCE, "{peak} calls at once");
    load.end();
    assert_eq!(engine.world().find(&stranger).unwrap().state, State::Running);
}

#[test]
fn fifty_additions_fifty_removals_and_kills_at_once_come_to_the_exact_number() {
    let engine = Engine::start();
    let stranger = engine.stranger("somebody");
    let balancer = engine.balancer_with(10, &["--max-replicas", "100"]);
    // Some calls fail on the way.
    engine.fail(Call::Create, Fault::Status(500, "busy"), Some(3));
    engine.fail(Call::Stop, Fault::Status(500, "busy"), Some(3));
    engine.fail(Call::List, Fault::Cut, Some(3));
    let (added, removed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..50 {
            scope.spawn(|| {
                if balancer.json("POST", "/add", r#"{"n":1}"#).status == 200 {
                    added.fetch_add(1, Ordering::Relaxed);
                }
            });
            scope.spawn(|| {
                // One that failed to stop has left the fleet all the same, and goes later.
                let status = balancer.json("DELETE", "/rm", r#"{"n":1}"#).status;
                if status != 400 {
                    assert!(matches!(status, 200 | 500), "{status}");
                    removed.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..10 {
                let first = engine.seats().into_values().next();
                if let Some(id) = first {
                    engine.kill(&id);
                }
                engine.tell(serde_json::json!({"Action": "none", "Actor": {}}));
            }
        });
    });
    let size = 10 + added.into_inner() - removed.into_inner();
    let replicas = balancer.wait_for_replicas(size);
    assert_eq!(BTreeSet::from_iter(&replicas).len(), size, "names are unique");
    engine.wait_for(size);
    let world = engine.world();
    let there: BTreeSet<&str> = world.ours().map(|container| container.hostname()).collect();
    assert_eq!(there, replicas.iter().map(String::as_str).collect());
    assert_eq!(world.find(&stranger).unwrap().state, State::Running);
}

#[test]
fn a_thousand_listed_replicas_start_route_and_idle_cheaply() {
    let server = Replica::start(SocketAddr::from(([0, 0, 0, 0], 0)), "one").unwrap();
    let began = Instant::now();
    let balancer = over_a_thousand(&server);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(15), "a thousand were ready after {took:?}");
    for id in 0..500 {
        assert_eq!(greeting(&balancer, id).status, 200);
    }
    let reached = server.reached();
    assert!(reached.len() > 250, "{} replicas took the requests", reached.len());

    let (from, used) = (Instant::now(), processor_time(balancer.pid()));
    wait_for("a probe of each", || {
        let probes = server.probes();
        let since = probes.iter().filter(|probe| probe.at > from).map(|probe| probe.to);
        (since.collect::<BTreeSet<SocketAddr>>().len() == 1_000).then_some(())
    });
    // Five hundred probes a second and nothing else, by a program that is not optimised.
    let (took, used) = (from.elapsed(), processor_time(balancer.pid()) - used);
    assert!(took < 3 * INTERVAL, "a probe of each took {took:?}");
    assert!(used < took / 2, "{used:?} of processor time within {took:?}");
    assert_eq!(balancer.replicas().len(), 1_000);
    assert!(balancer.events("replica is ejected").is_empty());
}

#[test]
fn a_thousand_replicas_are_probed_evenly_over_the_interval() {
    let server = Replica::start(SocketAddr::from(([0, 0, 0, 0], 0)), "one").unwrap();
    let balancer = over_a_thousand(&server);
    // One interval after the last of them was ready, each is at its own place in it.
    let from = Instant::now() + INTERVAL;
    let until = from + INTERVAL;
    wait_for("the probes of two intervals", || {
        server.probes().last().filter(|probe| probe.at > until).map(drop)
    });
    let mut tenths: BTreeMap<u128, usize> = BTreeMap::new();
    for probe in server.probes().iter().filter(|probe| (from..until).contains(&probe.at)) {
        *tenths.entry((probe.at - from).as_millis() * 10 / INTERVAL.as_millis()).or_default() += 1;
    }
    assert_eq!(tenths.len(), 10, "{tenths:?}");
    assert!(tenths.values().all(|probes| *probes <= 250), "{tenths:?}");
    assert_eq!(balancer.replicas().len(), 1_000);
}

/// Between two probes of one of the thousand.
const INTERVAL: Duration = Duration::from_secs(2);

/// A balancer over a thousand addresses of one server.
fn over_a_thousand(server: &Replica) -> Balancer {
    let first = u32::from(Ipv4Addr::new(127, 200, 0, 1));
    let port = server.address.port();
    let list: Vec<String> =
        (0..1_000).map(|i| format!("{}:{port}", Ipv4Addr::from(first + i))).collect();
    let balancer = Balancer::start(&["--servers", &list.join(","), "--health-interval", "2s"]);
    balancer.wait_for_replicas(1_000);
    balancer
}
