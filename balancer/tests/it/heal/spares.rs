//! Replicas that run without a seat, until one is empty.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::{events, events_since, fleet, last_event, owner, owners};
use crate::load::Load;
use crate::support::{Balancer, children_of, kill, variable_of, wait_for};

/// A balancer with these replicas, and spares that are ready.
fn with_spares(replicas: usize, spares: usize, arguments: &[&str]) -> Balancer {
    let given = spares.to_string();
    let arguments = [&["--spares", &given], arguments].concat();
    let balancer = Balancer::with_replicas(replicas, &arguments);
    wait_for_spares(&balancer, spares);
    balancer
}

fn wait_for_spares(balancer: &Balancer, n: usize) {
    wait_for("spares", || (fleet(balancer)["spares"]["ready"] == n).then_some(()));
}

/// The names of those without a seat.
fn names(balancer: &Balancer) -> Vec<String> {
    let fleet = fleet(balancer);
    let replicas = fleet["replicas"].as_array().unwrap().iter();
    let spares = replicas.filter(|replica| replica["seat"].is_null());
    spares.map(|replica| replica["hostname"].as_str().unwrap().to_owned()).collect()
}

/// Processes that were started without a seat.
fn processes(balancer: &Balancer) -> Vec<u32> {
    let mut pids = children_of(balancer.pid());
    pids.retain(|pid| variable_of::<String>(*pid, "SERVER_ID=").as_deref() == Some("spare"));
    pids
}

#[test]
fn spares_are_not_listed_and_get_no_requests() {
    let balancer = with_spares(3, 2, &[]);
    assert_eq!(balancer.replicas(), ["S1", "S2", "S3"]);
    assert_eq!(names(&balancer).len(), 2);
    assert_eq!(processes(&balancer).len(), 2);
    let reached = BTreeSet::from_iter(owners(&balancer, 300));
    assert_eq!(reached, BTreeSet::from(["1", "2", "3"].map(str::to_owned)));
    let status = fleet(&balancer);
    assert_eq!((&status["desired"], &status["ready"]), (&3.into(), &3.into()));
    assert_eq!(status["spares"]["desired"], 2);
    // Nor can one be named.
    let name = &names(&balancer)[0];
    let body = format!(r#"{{"n":1,"hostnames":["{name}"]}}"#);
    let answer = balancer.json("DELETE", "/rm", &body);
    assert_eq!(answer.status, 400, "{answer:?}");
    assert_eq!(names(&balancer).len(), 2);
}

#[test]
fn a_spare_takes_the_seat_of_a_dead_replica_at_once_and_another_follows() {
    let balancer = with_spares(3, 1, &[]);
    let spare = names(&balancer).remove(0);
    let before = owners(&balancer, 60);
    let (process, victim) = (processes(&balancer), balancer.replica_processes()[&2]);
    let since = last_event(&balancer);
    let load = Load::start(balancer.address);
    let killed = Instant::now();
    kill(victim, Signal::KILL);
    wait_for("the spare on the seat", || {
        (balancer.replicas() == ["S1", "S3", &spare]).then_some(())
    });
    let took = killed.elapsed();
    assert!(took < Duration::from_secs(1), "it took {took:?}");
    load.end();

    let past = events_since(&balancer, since);
    let at = |event: &str| past.iter().position(|entry| entry["event"] == event).unwrap();
    let (died, seated) = (&past[at("died")], &past[at("seated")]);
    assert_eq!((&died["hostname"], &died["seat"]), (&"S2".into(), &2.into()));
    assert_eq!((&seated["hostname"], &seated["seat"]), (&spare.as_str().into(), &2.into()));
    assert!(past[..at("seated")].iter().all(|entry| entry["event"] != "ready"), "{past:?}");

    // Every key is on its seat, whatever its replica calls itself.
    let now: Vec<String> =
        owners(&balancer, 60).iter().map(|owner| owner.replace("spare", "2")).collect();
    assert_eq!(now, before);
    wait_for_spares(&balancer, 1);
    assert_ne!(names(&balancer), [spare], "another spare follows");
    let pids = processes(&balancer);
    assert_eq!(pids.len(), 2);
    assert!(pids.contains(&process[0]), "the old one runs on, on its seat");
}

#[test]
fn an_addition_without_names_takes_a_spare_and_one_with_names_does_not() {
    let balancer = with_spares(2, 1, &[]);
    let spare = names(&balancer).remove(0);
    let answer = balancer.json("POST", "/add", r#"{"n":1}"#);
    assert_eq!(answer.status, 200, "{answer:?}");
    let message = answer.json()["message"].clone();
    let listed: Vec<Value> = ["S1", "S2", &spare].map(Value::from).into();
    assert_eq!(message["replicas"].as_array(), Some(&listed));
    let id = (0..).find(|id| owner(&balancer, *id) == "spare");
    assert!(id.is_some(), "it takes requests now");
    wait_for_spares(&balancer, 1);

    let spare = names(&balancer);
    let answer = balancer.json("POST", "/add", r#"{"n":1,"hostnames":["Four"]}"#);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["message"]["replicas"][3], "Four");
    assert_eq!(names(&balancer), spare, "the spare is still one");
    assert_eq!(events(&balancer, "seated").len(), 1);

    // More than there are: the others are started.
    let answer = balancer.json("POST", "/add", r#"{"n":3}"#);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["message"]["N"], 7);
    wait_for_spares(&balancer, 1);
    assert_eq!(children_of(balancer.pid()).len(), 8);
    assert_eq!(balancer.replicas().len(), 7);
}

#[test]
fn a_spare_that_dies_is_replaced_and_no_seat_is_touched() {
    let balancer = with_spares(2, 1, &[]);
    let (spare, seated) = (names(&balancer), balancer.replica_processes());
    let load = Load::start(balancer.address);
    kill(processes(&balancer)[0], Signal::KILL);
    wait_for("its death", || events(&balancer, "died").pop());
    wait_for_spares(&balancer, 1);
    load.end();
    assert_ne!(names(&balancer), spare);
    assert_eq!(balancer.replica_processes(), seated);
    assert_eq!(balancer.replicas(), ["S1", "S2"]);
}

#[test]
fn an_empty_fleet_keeps_its_spares_out() {
    let balancer = with_spares(2, 1, &[]);
    let answer = balancer.json("DELETE", "/rm", r#"{"n":2}"#);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["message"]["N"], 0);
    assert_eq!(balancer.get("/home").status, 503);
    assert_eq!(names(&balancer).len(), 1);
    assert_eq!(balancer.json("POST", "/add", r#"{"n":1}"#).status, 200);
    assert_eq!(owner(&balancer, 1), "spare");
}
