//! Rolling updates that do not work: undone, and what ran before is left alone.

use rustix::process::Signal;

use super::roll::with_token;
use super::{events, fleet, owners, roll, wait_for_roll};
use crate::load::Load;
use crate::support::{children_of, kill, wait_for};

#[test]
fn a_command_that_does_not_work_is_undone_and_the_old_replicas_are_left_alone() {
    for (command, batch, why) in [
        ("/bin/false", 1, "ended before it was ready: exited with code 1"),
        ("/bin/false", 2, "ended before it was ready: exited with code 1"),
        ("/no/such/program", 1, "ended before it was ready"),
        ("/bin/sleep 600", 1, "was not ready within 2s"),
        ("/bin/sleep 600", 9, "was not ready within 2s"),
    ] {
        let balancer = with_token(3, &["--health-start-deadline", "2s"]);
        let (names, before) = (balancer.replicas(), owners(&balancer, 100));
        let processes = balancer.replica_processes();
        let load = Load::start(balancer.address);
        let answer = roll(&balancer, &format!(r#"{{"command":"{command}","batch":{batch}}}"#));
        assert_eq!(answer.status, 202, "{answer:?}");
        let undone = wait_for_roll(&balancer, "rolled-back");
        let told = undone["error"].as_str().unwrap();
        assert!(told.contains(why), "{command}: {told}");
        assert_eq!(undone["generation"], 1);
        load.end();
        assert_eq!(balancer.replicas(), names, "{command}");
        assert_eq!(owners(&balancer, 100), before);
        wait_for("the end of the new ones", || {
            (children_of(balancer.pid()).len() == 3).then_some(())
        });
        assert_eq!(balancer.replica_processes(), processes, "{command}");
        let failed = events(&balancer, "roll-failed");
        assert_eq!(failed.len(), 1, "{failed:?}");
        let reason = failed[0]["reason"].as_str().unwrap();
        assert!(reason.starts_with("generation 1: ") && reason.contains(why), "{reason}");

        // What dies now is replaced by what ran before, and at once.
        kill(processes[&2], Signal::KILL);
        wait_for("a replacement", || {
            let now = balancer.replica_processes();
            let replaced = now.get(&2).is_some_and(|pid| *pid != processes[&2]);
            (replaced && balancer.replicas().len() == 3).then_some(())
        });
        let status = fleet(&balancer);
        assert_eq!(status["ready"], 3, "{status}");
        // And the next update is not held up by this one.
        let program = env!("CARGO_BIN_EXE_balancer");
        let good = format!(r#"{{"command":["{program}","replica"]}}"#);
        let answer = roll(&balancer, &good);
        assert_eq!(answer.status, 202, "{answer:?}");
        wait_for_roll(&balancer, "done");
    }
}

#[test]
fn an_update_that_breaks_half_way_is_undone_for_those_it_had_replaced() {
    let program = env!("CARGO_BIN_EXE_balancer");
    // It does not work on seat 3.
    let command = format!("/bin/sh -c '[ {{seat}} = 3 ] && exit 7; exec {program} replica'");
    let balancer = with_token(3, &[]);
    let before = owners(&balancer, 100);
    let processes = balancer.replica_processes();
    let load = Load::start(balancer.address);
    let body = serde_json::json!({ "command": command }).to_string();
    assert_eq!(roll(&balancer, &body).status, 202);
    let undone = wait_for_roll(&balancer, "rolled-back");
    assert!(undone["error"].as_str().unwrap().contains("exited with code 7"), "{undone}");
    load.end();
    assert_eq!(owners(&balancer, 100), before);
    wait_for("three processes", || (children_of(balancer.pid()).len() == 3).then_some(()));
    let now = balancer.replica_processes();
    assert_eq!(now[&3], processes[&3], "the one that could not be replaced was left alone");
    for pid in now.values() {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        let line = String::from_utf8_lossy(&line).into_owned();
        assert!(line.contains("replica") && !line.contains("/bin/sh"), "{line}");
    }
    for replica in fleet(&balancer)["replicas"].as_array().unwrap() {
        assert_ne!(replica["generation"], 1, "{replica}");
    }
}
