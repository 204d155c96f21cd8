//! Rolling updates of fleets that are not well, or not alone.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::roll::with_token;
use super::{PROBES, TOKEN, events, fleet, owners, roll, seat, wait_for_event, wait_for_roll};
use crate::support::{Balancer, children_of, kill, wait_for};

#[test]
fn an_update_that_undoes_nothing_good_does_not_stand_in_the_way_of_the_next() {
    // What ran before does not work, either.
    let arguments = ["--command", "/bin/false", "--admin-token", TOKEN, "--roll-monitor", "100ms"];
    let balancer = Balancer::start(&[&["--replicas", "2"], &arguments[..]].concat());
    wait_for_event(&balancer, "died");
    assert_eq!(roll(&balancer, r#"{"command":"/bin/sh -c 'exit 9'"}"#).status, 202);
    wait_for_event(&balancer, "roll-failed");
    let body = serde_json::json!({ "command": [env!("CARGO_BIN_EXE_balancer"), "replica"] });
    wait_for("an update that is taken", || {
        (roll(&balancer, &body.to_string()).status == 202).then_some(())
    });
    balancer.wait_for_replicas(2);
}

#[test]
fn an_update_does_not_wait_for_the_back_off_of_what_ran_before() {
    let arguments = ["--command", "/bin/false", "--respawn-base", "60s"];
    let token = ["--replicas", "1", "--admin-token", TOKEN];
    let balancer = Balancer::start(&[&token[..], &arguments].concat());
    wait_for("its second failure", || {
        let failures = seat(&fleet(&balancer), 1)["failures"].as_u64();
        failures.is_some_and(|failures| failures >= 2).then_some(())
    });
    let body = serde_json::json!({ "command": [env!("CARGO_BIN_EXE_balancer"), "replica"] });
    assert_eq!(roll(&balancer, &body.to_string()).status, 202);
    balancer.wait_for_replicas(1);
}

#[test]
fn an_update_that_does_not_work_leaves_good_spares_alone() {
    let balancer = with_token(2, &["--spares", "1"]);
    wait_for("the spare", || (fleet(&balancer)["spares"]["ready"] == 1).then_some(()));
    let before: BTreeSet<u32> = children_of(balancer.pid()).into_iter().collect();
    assert_eq!(roll(&balancer, r#"{"command":"/bin/false"}"#).status, 202);
    wait_for_roll(&balancer, "rolled-back");
    let after: BTreeSet<u32> = children_of(balancer.pid()).into_iter().collect();
    assert!(before.is_subset(&after), "{before:?} {after:?}");
}

#[test]
fn an_update_moves_no_key_where_shares_grow_slowly_either() {
    let balancer = with_token(3, &["--health-slow-start", "2s"]);
    let before = owners(&balancer, 100);
    assert_eq!(roll(&balancer, "{}").status, 202);
    wait_for("its end", || {
        assert_eq!(owners(&balancer, 100), before, "a key moved");
        (fleet(&balancer)["roll"]["state"] == "done").then_some(())
    });
}

#[test]
fn when_a_panic_is_over_those_that_are_not_back_yet_have_their_time_again() {
    let more = ["--health-replace-after", "1s"];
    let balancer = Balancer::with_replicas(4, &[&PROBES[..], &more].concat());
    let processes = balancer.replica_processes();
    let hung: Vec<u32> = processes.values().copied().take(3).collect();
    hung.iter().for_each(|pid| kill(*pid, Signal::STOP));
    let panic = wait_for("a panic", || {
        balancer.events("most replicas look bad: the probe is taken to be wrong").pop()
    });
    let until = panic.at + Duration::from_millis(1_500);
    wait_for("more than their time", || (Instant::now() > until).then_some(()));
    // They come back one after another, as they do when what is between them and the probe heals.
    for (at, pid) in hung.iter().enumerate() {
        kill(*pid, Signal::CONT);
        let ready = 4 + at + 1;
        wait_for("its return", || (events(&balancer, "ready").len() >= ready).then_some(()));
    }
    assert!(events(&balancer, "hung").is_empty());
    assert_eq!(balancer.replica_processes(), processes, "none was replaced");
}
