//! The pool: balancers that share an engine, join, leave, die and start again. On the engine by
//! script; `docker::pair` has the same on the real one.

mod clean;
mod leaving;
mod restore;

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::engine::{Call, Engine, Fault, PORT};
use crate::support::{Balancer, wait_for};

/// The arguments of a balancer that shares the pool `shop`.
const SHARED: [&str; 3] = ["--pool", "shop", "--shared"];

/// Runs the binary to its end.
fn run(engine: &Engine, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_balancer"));
    command.args(arguments).env("DOCKER_HOST", engine.host()).stdin(Stdio::null());
    command.output().unwrap()
}

/// Starts a balancer that is to be refused. Returns what it says.
fn refused(engine: &Engine, arguments: &[&str]) -> String {
    let port = PORT.to_string();
    let own = ["--runtime", "docker", "--port", &port, "--listen", "127.0.0.1:0"];
    let output = run(engine, &[&own[..], arguments].concat());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    said
}

fn kill_9(mut balancer: Balancer) {
    balancer.signal(Signal::KILL);
    balancer.wait();
}

/// Ends a balancer by SIGTERM, and waits for it.
fn stop(balancer: &mut Balancer) {
    balancer.signal(Signal::TERM);
    assert_eq!(balancer.wait().code(), Some(0));
}

fn fleet(balancer: &Balancer) -> Value {
    balancer.get("/admin/fleet").json()["message"].clone()
}

/// Waits until the balancer knows `n` members of its pool. Returns their addresses.
fn wait_for_members(balancer: &Balancer, n: usize) -> Vec<String> {
    wait_for(&format!("{n} members"), || {
        let pool = fleet(balancer)["pool"].clone();
        let members = pool["members"].as_array()?.clone();
        let address = |it: &Value| it["address"].as_str().unwrap().to_owned();
        (members.len() == n).then(|| members.iter().map(address).collect())
    })
}

#[test]
fn a_second_balancer_without_a_shared_pool_is_refused_and_told_who_holds_it() {
    let engine = Engine::start();
    let balancer = engine.balancer_with(2, &[]);
    let seats = engine.wait_for(2);
    for arguments in [&["--pool", "scripted"][..], &["--pool", "scripted", "--shared"]] {
        let said = refused(&engine, arguments);
        assert!(said.contains("pool \"scripted\" is held by another balancer"), "{said}");
        assert!(said.contains(&balancer.address.to_string()), "{said}");
        assert!(said.contains("shared = true"), "{said}");
    }
    assert_eq!(engine.wait_for(2), seats);
    assert_eq!(wait_for_members(&balancer, 1), [balancer.address.to_string()]);
    assert!(balancer.events("another balancer joined the pool").is_empty());
}

#[test]
fn unrelated_balancers_have_pools_of_their_own() {
    let engine = Engine::start();
    let network = ["--network", "one"];
    let mut one = engine.start_balancer(&[&["--replicas", "2"][..], &network].concat());
    one.wait_for_replicas(2);
    let other = engine.start_balancer(&["--replicas", "1", "--network", "two"]);
    other.wait_for_replicas(1);
    let pools = [&one, &other].map(|it| fleet(it)["pool"]["name"].as_str().unwrap().to_owned());
    assert_ne!(pools[0], pools[1]);
    assert!(pools[0].ends_with(&one.address.to_string()), "{pools:?}");
    assert_eq!(one.replicas().len() + other.replicas().len(), 3);
    stop(&mut one);
    assert_eq!(engine.world().ours().count(), 1, "only its own are removed");
    assert_eq!(other.replicas().len(), 1);
}

#[test]
fn the_lease_of_a_dead_balancer_expires_and_a_start_waits_for_that() {
    let engine = Engine::start();
    let balancer = engine.balancer_with(2, &[]);
    let seats = engine.wait_for(2);
    kill_9(balancer);
    let began = Instant::now();
    // Another port, so that it is another balancer.
    let next = engine.balancer(&["--replicas", "2"]);
    let waited = began.elapsed();
    assert!((Duration::from_secs(4)..Duration::from_secs(15)).contains(&waited), "{waited:?}");
    next.wait_for_replicas(2);
    assert_eq!(engine.wait_for(2), seats);
    assert_eq!(wait_for_members(&next, 1).len(), 1);
}

#[test]
fn members_are_shown_counted_and_told_when_they_come_and_go() {
    let engine = Engine::start();
    let one = engine.start_balancer(&[&SHARED[..], &["--replicas", "2"]].concat());
    one.wait_for_replicas(2);
    let mut other = engine.start_balancer(&SHARED);
    let third = engine.start_balancer(&SHARED);
    let addresses = wait_for_members(&one, 3);
    for balancer in [&one, &other, &third] {
        assert!(addresses.contains(&balancer.address.to_string()), "{addresses:?}");
    }
    let pool = fleet(&one)["pool"].clone();
    assert_eq!((&pool["name"], &pool["shared"]), (&"shop".into(), &true.into()));
    let own: Vec<&Value> =
        pool["members"].as_array().unwrap().iter().filter(|it| it["self"] == true).collect();
    assert_eq!(own.len(), 1);
    assert_eq!(own[0]["address"], one.address.to_string());
    let metrics = String::from_utf8(one.get("/metrics").body).unwrap();
    assert!(metrics.contains("\nbalancer_pool_members 3\n"), "{metrics}");
    wait_for("the news of both", || {
        (one.events("another balancer joined the pool").len() == 2).then_some(())
    });

    let left = format!("at {}", other.address);
    stop(&mut other);
    let event = wait_for("the news of the one that left", || {
        one.events("another balancer left the pool").pop()
    });
    assert!(event.fields["reason"].as_str().unwrap().ends_with(&left), "{event:?}");
    let expired = format!("at {}", third.address);
    kill_9(third);
    let event = wait_for("the news of the one that died", || {
        one.events("lease of another balancer expired").pop()
    });
    assert!(event.fields["reason"].as_str().unwrap().ends_with(&expired), "{event:?}");
    assert_eq!(wait_for_members(&one, 1), [one.address.to_string()]);
    // Nothing of them is left.
    wait_for("the one lease", || {
        let volumes = engine.world().volumes.len();
        (volumes <= 2).then_some(())
    });
}

#[test]
fn where_volumes_are_denied_a_balancer_runs_without_leases_and_says_so() {
    let engine = Engine::start();
    engine.fail(Call::Volume, Fault::Status(403, "denied by the proxy"), None);
    let mut balancer = engine.balancer_with(2, &[]);
    let warned = balancer.log().into_iter().find(|line| {
        line.fields["message"].as_str().is_some_and(|text| text.starts_with("no leases: "))
    });
    assert_eq!(warned.unwrap().fields["level"], "WARN");
    assert!(fleet(&balancer)["pool"].is_null());
    stop(&mut balancer);
    assert_eq!(engine.world().ours().count(), 0);
}

#[test]
fn a_lease_that_is_pruned_comes_back_and_no_member_counts_as_gone() {
    let engine = Engine::start();
    let one = engine.start_balancer(&[&SHARED[..], &["--replicas", "1"]].concat());
    let other = engine.start_balancer(&SHARED);
    wait_for_members(&one, 2);
    wait_for_members(&other, 2);
    for _ in 0..3 {
        engine.world().volumes.clear();
        wait_for("both leases", || (engine.world().volumes.len() >= 2).then_some(()));
    }
    for balancer in [&one, &other] {
        assert_eq!(wait_for_members(balancer, 2).len(), 2);
        assert!(balancer.events("lease of another balancer expired").is_empty());
        assert!(balancer.events("another balancer left the pool").is_empty());
    }
}
