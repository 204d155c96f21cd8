//! Replicas that hang: replaced when they do so for too long, left alone when they wake up in time.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{PROBES, events, owners, wait_for_event};
use crate::load::Load;
use crate::support::{Balancer, children_of, kill, lives, wait_for};

#[test]
fn a_hung_replica_is_replaced_on_its_seat_and_goes_when_the_other_is_ready() {
    let more = ["--health-replace-after", "500ms", "--timeout-stop", "300ms"];
    let balancer = Balancer::with_replicas(3, &[&PROBES[..], &more].concat());
    let before = owners(&balancer, 60);
    let processes = balancer.replica_processes();
    let hung = processes[&2];
    kill(hung, Signal::STOP);
    let ejected = wait_for_event(&balancer, "ejected");
    assert_eq!(ejected["hostname"], "S2");
    assert_eq!(ejected["reason"], "health check failed: GET /heartbeat timed out after 300ms");
    let load = Load::start(balancer.address);
    wait_for("the end of the hung one", || {
        assert!(balancer.replicas().len() <= 3, "never two of one seat");
        // Asked in this order: its end must not be seen before the other's readiness.
        let lives = lives(hung);
        let ready = events(&balancer, "ready").len();
        assert!(lives || ready == 4, "it has gone before another was ready");
        (!lives).then_some(())
    });
    load.end();

    assert_eq!(owners(&balancer, 60), before, "every key is where it was");
    let replicas = balancer.wait_for_replicas(3);
    assert_eq!(replicas[..2], ["S1", "S3"]);
    assert_ne!(replicas[2], "S2", "under a new name");
    let ready = events(&balancer, "ready").pop().unwrap();
    assert_eq!((&ready["hostname"], &ready["seat"]), (&replicas[2].as_str().into(), &2.into()));
    let removed = wait_for_event(&balancer, "removed");
    assert_eq!(removed["hostname"], "S2");
    let hung = events(&balancer, "hung");
    assert_eq!(hung.len(), 1, "{hung:?}");
    assert!(hung[0]["id"].as_u64() < ready["id"].as_u64());
    let now = balancer.replica_processes();
    assert_eq!((now[&1], now[&3]), (processes[&1], processes[&3]), "the others were left alone");
    assert_eq!(children_of(balancer.pid()).len(), 3);
}

#[test]
fn requests_at_two_replicas_that_hang_and_are_replaced_one_after_the_other_are_answered() {
    let more = ["--health-replace-after", "500ms", "--health-panic", "100%"];
    let balancer = Balancer::with_replicas(3, &[&PROBES[..], &more].concat());
    let processes = balancer.replica_processes();
    let load = Load::start(balancer.address);
    load.wait_for_more();
    kill(processes[&1], Signal::STOP);
    wait_for_event(&balancer, "hung");
    // The requests of the first one go to it when the first one is killed.
    kill(processes[&2], Signal::STOP);
    wait_for("the end of both", || (!lives(processes[&1]) && !lives(processes[&2])).then_some(()));
    balancer.wait_for_replicas(3);
    load.wait_for_more();
    load.end();
    assert!(balancer.events("request quarantined").is_empty(), "no request has ended them");
}

#[test]
fn one_that_wakes_up_in_time_stays_and_none_is_started() {
    let after = Duration::from_secs(2);
    let more = ["--health-replace-after", "2s"];
    let balancer = Balancer::with_replicas(3, &[&PROBES[..], &more].concat());
    let processes = balancer.replica_processes();
    kill(processes[&2], Signal::STOP);
    let ejected = wait_for("its ejection", || balancer.events("replica is ejected").pop());
    let load = Load::start(balancer.address);
    kill(processes[&2], Signal::CONT);
    wait_for("its return", || (events(&balancer, "ready").len() == 4).then_some(()));
    // Beyond the time at which it would have been replaced.
    let until = ejected.at + after + Duration::from_millis(300);
    wait_for("the end of its time", || (Instant::now() > until).then_some(()));
    load.end();
    assert!(events(&balancer, "hung").is_empty());
    assert_eq!(events(&balancer, "starting").len(), 3);
    assert_eq!(balancer.replicas(), ["S1", "S2", "S3"]);
    assert_eq!(balancer.replica_processes(), processes);
}

#[test]
fn one_that_wakes_up_before_its_replacement_is_ready_stays_and_the_other_goes() {
    let directory = tempfile::tempdir().unwrap();
    let gate = directory.path().join("gate");
    let (gate_path, program) = (gate.to_str().unwrap(), env!("CARGO_BIN_EXE_balancer"));
    // A replica waits before the gate while there is one.
    let wait = format!("while [ -e {gate_path} ]; do sleep 0.02; done");
    let command = format!("/bin/sh -c '{wait}; exec {program} replica'");
    let more = ["--health-replace-after", "500ms", "--command", &command];
    let balancer = Balancer::with_replicas(3, &[&PROBES[..], &more].concat());
    let before = owners(&balancer, 60);
    let processes = balancer.replica_processes();

    fs::write(&gate, "").unwrap();
    kill(processes[&2], Signal::STOP);
    wait_for("the start of another", || (events(&balancer, "starting").len() == 4).then_some(()));
    let load = Load::start(balancer.address);
    kill(processes[&2], Signal::CONT);
    let leaving = wait_for_event(&balancer, "draining");
    assert_eq!(leaving["reason"], "an older replica has its seat");
    assert_eq!(leaving["seat"], 2);
    assert_ne!(leaving["hostname"], "S2");
    fs::remove_file(&gate).unwrap();
    wait_for_event(&balancer, "removed");
    load.end();
    assert_eq!(balancer.replicas(), ["S1", "S2", "S3"]);
    assert_eq!(owners(&balancer, 60), before);
    assert_eq!(balancer.replica_processes(), processes);
    wait_for("three processes", || (children_of(balancer.pid()).len() == 3).then_some(()));
}

#[test]
fn the_only_replica_that_hangs_is_replaced_too() {
    let more = ["--health-replace-after", "500ms", "--timeout-stop", "300ms"];
    let balancer = Balancer::with_replicas(1, &[&PROBES[..], &more].concat());
    let hung = balancer.replica_processes()[&1];
    kill(hung, Signal::STOP);
    wait_for("the end of the hung one", || (!lives(hung)).then_some(()));
    let replicas = balancer.wait_for_replicas(1);
    assert_ne!(replicas, ["S1"]);
    Load::start(balancer.address).end();
    assert_eq!(children_of(balancer.pid()).len(), 1);
}
