//! Rolling updates that work: every replica replaced, no request lost, no key moved.

use std::collections::BTreeSet;

use rustix::process::Signal;
use serde_json::Value;

use super::{TOKEN, events, fleet, owners, roll, wait_for_roll};
use crate::load::Load;
use crate::support::{Balancer, children_of, kill, variable_of, wait_for};

const KEYS: u32 = 200;

/// A balancer that takes commands from clients with the token, and monitors new replicas shortly.
pub(super) fn with_token(replicas: usize, arguments: &[&str]) -> Balancer {
    with_monitor(replicas, "200ms", arguments)
}

/// The same, which monitors new replicas for this time.
pub(super) fn with_monitor(replicas: usize, monitor: &str, arguments: &[&str]) -> Balancer {
    let own = ["--admin-token", TOKEN, "--roll-monitor", monitor];
    Balancer::with_replicas(replicas, &[&own, arguments].concat())
}

/// The demo replica, with `MARK` in its environment.
fn marked(mark: &str) -> String {
    format!("/usr/bin/env MARK={mark} {} replica", env!("CARGO_BIN_EXE_balancer"))
}

/// The body of an update to that.
fn to(mark: &str, batch: usize) -> String {
    format!(r#"{{"command":"{}","batch":{batch}}}"#, marked(mark))
}

/// Samples until the update is done: every key is always answered on the same seat.
fn watch_to_the_end(balancer: &Balancer, before: &[String]) -> Value {
    wait_for("the end of the rolling update", || {
        assert_eq!(owners(balancer, KEYS), before, "a key moved");
        let status = fleet(balancer);
        assert_eq!(status["desired"], status["ready"], "{status}");
        assert_eq!(status["desired"], balancer.replicas().len(), "{status}");
        Some(status["roll"].clone()).filter(|roll| roll["state"] != "rolling")
    })
}

/// Waits until every replica is marked so, and no other is there.
fn wait_for_marks(balancer: &Balancer, replicas: usize, mark: &str) {
    wait_for("the last of the old ones", || {
        let pids = children_of(balancer.pid());
        let marks: BTreeSet<Option<String>> =
            pids.iter().map(|pid| variable_of(*pid, "MARK=")).collect();
        (pids.len() == replicas && marks == BTreeSet::from([Some(mark.to_owned())])).then_some(())
    });
}

#[test]
fn a_rolling_update_replaces_every_replica_and_nobody_notices() {
    for (replicas, batch) in [(4, 1), (4, 3), (1, 10)] {
        let balancer = with_token(replicas, &[]);
        let names = balancer.replicas();
        let before = owners(&balancer, KEYS);
        let load = Load::start(balancer.address);
        let answer = roll(&balancer, &to("new", batch));
        assert_eq!(answer.status, 202, "{answer:?}");
        assert_eq!(answer.json()["status"], "successful");
        let begun = answer.json()["message"].clone();
        assert_eq!(begun["state"], "rolling");
        assert_eq!(begun["generation"], 1);
        assert_eq!((&begun["batch"], &begun["done"]), (&batch.into(), &0.into()));
        assert_eq!(begun["total"], replicas);
        let words: Vec<String> = marked("new").split(' ').map(str::to_owned).collect();
        assert_eq!(begun["command"], Value::from(words));
        assert!(begun["image"].is_null() && begun["error"].is_null(), "{begun}");

        let done = watch_to_the_end(&balancer, &before);
        assert_eq!(done["state"], "done", "{done}");
        assert_eq!((&done["done"], &done["total"]), (&replicas.into(), &replicas.into()));
        wait_for_marks(&balancer, replicas, "new");
        load.end();
        let now = balancer.wait_for_replicas(replicas);
        assert!(now.iter().all(|name| !names.contains(name)), "{names:?} {now:?}");
        assert_eq!(owners(&balancer, KEYS), before);
        assert_eq!(events(&balancer, "roll-begun").len(), 1);
        assert_eq!(events(&balancer, "roll-done")[0]["reason"], "generation 1");
        for replica in fleet(&balancer)["replicas"].as_array().unwrap() {
            assert_eq!(replica["generation"], 1, "{replica}");
        }
    }
}

#[test]
fn no_more_than_a_batch_is_replaced_at_once() {
    for batch in [1, 2] {
        let balancer = with_token(4, &[]);
        assert_eq!(roll(&balancer, &to("new", batch)).status, 202);
        wait_for_roll(&balancer, "done");
        wait_for_marks(&balancer, 4, "new");
        // Counted by events: a start begins one, the readiness of the other ends it.
        let (mut under_way, mut most) = (0, 0);
        let begun = events(&balancer, "roll-begun")[0]["id"].as_u64().unwrap();
        for event in super::events_since(&balancer, begun) {
            match event["event"].as_str().unwrap() {
                "starting" => under_way += 1,
                "ready" => under_way -= 1,
                _ => {}
            }
            most = most.max(under_way);
        }
        assert_eq!(most, batch, "at once");
    }
}

#[test]
fn what_comes_after_an_update_runs_what_it_wanted() {
    let balancer = with_token(2, &["--spares", "1"]);
    let load = Load::start(balancer.address);
    assert_eq!(roll(&balancer, &to("one", 1)).status, 202);
    wait_for_roll(&balancer, "done");
    wait_for_marks(&balancer, 3, "one");

    // A replacement, one that is added, and a restart of all.
    kill(children_of(balancer.pid())[0], Signal::KILL);
    wait_for("its death", || events(&balancer, "died").pop());
    wait_for_marks(&balancer, 3, "one");
    let token = format!("Bearer {TOKEN}");
    let headers = [("Content-Type", "application/json"), ("Authorization", token.as_str())];
    let body = br#"{"n":1,"hostnames":["Three"]}"#;
    let added = crate::support::request(balancer.admin, "POST", "/add", &headers, body);
    assert_eq!(added.status, 200, "{added:?}");
    wait_for_marks(&balancer, 4, "one");
    let before = children_of(balancer.pid());
    let answer = roll(&balancer, "{}");
    assert_eq!(answer.status, 202, "{answer:?}");
    assert_eq!(answer.json()["message"]["generation"], 2);
    wait_for_roll(&balancer, "done");
    wait_for_marks(&balancer, 4, "one");
    wait_for("others everywhere", || {
        let now = children_of(balancer.pid());
        (now.len() == 4 && now.iter().all(|pid| !before.contains(pid))).then_some(())
    });
    // And another update.
    assert_eq!(roll(&balancer, &to("two", 2)).status, 202);
    wait_for_roll(&balancer, "done");
    wait_for_marks(&balancer, 4, "two");
    load.end();
}

#[test]
fn an_update_goes_on_while_replicas_die_and_come_and_go() {
    let balancer = with_token(4, &[]);
    let load = Load::start(balancer.address);
    assert_eq!(roll(&balancer, &to("new", 1)).status, 202);
    let token = format!("Bearer {TOKEN}");
    let headers = [("Content-Type", "application/json"), ("Authorization", token.as_str())];
    let call = |path: &str| {
        let answer = crate::support::request(balancer.admin, "POST", path, &headers, br#"{"n":1}"#);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
    };
    call("/add");
    call("/rm");
    call("/add");
    let old = children_of(balancer.pid())
        .into_iter()
        .find(|pid| variable_of::<String>(*pid, "MARK=").is_none());
    if let Some(old) = old {
        kill(old, Signal::KILL);
    }
    let done = wait_for_roll(&balancer, "done");
    assert_eq!((&done["done"], &done["total"]), (&5.into(), &5.into()), "{done}");
    wait_for_marks(&balancer, 5, "new");
    assert_eq!(balancer.replicas().len(), 5);
    load.end();
}
