//! Rollouts of child processes: what is monitored, superseded, paused, rolled back and configured.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use serde_json::{Value, json};

use super::roll::{with_monitor, with_token};
use super::{TOKEN, events, fleet, roll, wait_for_roll};
use crate::load::Load;
use crate::support::{Answer, Balancer, children_of, request, try_request, variable_of, wait_for};

const REPLICA: &str = env!("CARGO_BIN_EXE_balancer");

/// The demo replica behind these words.
fn replica(before: &str) -> String {
    json!({ "command": format!("{before} {REPLICA} replica") }).to_string()
}

/// A call that needs no body, with the token.
fn call(balancer: &Balancer, method: &str, path: &str) -> Answer {
    let token = format!("Bearer {TOKEN}");
    request(balancer.admin, method, path, &[("Authorization", &token)], b"")
}

/// How many replicas have this mark, by mark.
fn marks(balancer: &Balancer) -> BTreeMap<String, usize> {
    let mut marks = BTreeMap::new();
    for pid in children_of(balancer.pid()) {
        let mark = variable_of(pid, "MARK=").unwrap_or_else(|| "none".to_owned());
        *marks.entry(mark).or_default() += 1;
    }
    marks
}

fn wait_for_marks(balancer: &Balancer, expected: &[(&str, usize)]) {
    let expected: BTreeMap<String, usize> =
        expected.iter().map(|(mark, count)| ((*mark).to_owned(), *count)).collect();
    wait_for(&format!("{expected:?}"), || (marks(balancer) == expected).then_some(()));
}

/// Clients that count the answers by their status.
struct Counted {
    stop: Arc<AtomicBool>,
    answers: Arc<[AtomicUsize; 6]>,
    clients: Vec<thread::JoinHandle<()>>,
}

impl Counted {
    fn start(balancer: &Balancer) -> Self {
        let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let mut counted = Self { stop, answers, clients: Vec::new() };
        for _ in 0..2 {
            let (stop, answers) = (Arc::clone(&counted.stop), Arc::clone(&counted.answers));
            let address = balancer.address;
            counted.clients.push(thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let answer = try_request(address, "GET", "/home", &[], b"");
                    let class = answer.map_or(0, |answer| usize::from(answer.status / 100));
                    answers[class].fetch_add(1, Ordering::Relaxed);
                }
            }));
        }
        counted
    }

    fn good(&self) -> usize {
        self.answers[2].load(Ordering::Relaxed)
    }

    /// Returns how many were good, and how many were not.
    fn end(mut self) -> (usize, usize) {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.drain(..).for_each(|client| client.join().unwrap());
        let all: usize = self.answers.iter().map(|count| count.load(Ordering::Relaxed)).sum();
        (self.good(), all - self.good())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_release_that_answers_500_is_rolled_back_by_itself_and_can_be_corrected_meanwhile() {
    for replicas in [1, 4] {
        let balancer = with_monitor(replicas, "5s", &[]);
        let before = balancer.replica_processes();
        let load = Counted::start(&balancer);
        assert_eq!(roll(&balancer, &replica("/usr/bin/env SERVER_FAIL_REQUESTS=1")).status, 202);
        let undone = wait_for_roll(&balancer, "rolled-back");
        let error = undone["error"].as_str().unwrap();
        assert!(error.contains("was ejected: too many failed requests in a row"), "{error}");
        let good = load.good();
        wait_for("good answers", || (load.good() > good + 50).then_some(()));
        let (good, bad) = load.end();
        // As many as eject the one replica, and those in flight at it.
        assert!(bad <= 12, "{bad} errors beside {good}");
        wait_for("the end of the bad one", || {
            (balancer.replica_processes() == before).then_some(())
        });
        assert_eq!(fleet(&balancer)["ready"], replicas);

        // A correction is taken while a rollout is under way.
        assert_eq!(roll(&balancer, &replica("/usr/bin/env MARK=bad /bin/sleep 600")).status, 202);
        let corrected = roll(&balancer, &replica("/usr/bin/env MARK=good"));
        assert_eq!(corrected.status, 202, "{corrected:?}");
        let message = corrected.json()["message"].clone();
        assert_eq!(message["earlier"][1]["state"], "superseded", "{message}");
        let done = wait_for_roll(&balancer, "done");
        assert_eq!((&done["done"], &done["total"]), (&replicas.into(), &replicas.into()));
        wait_for_marks(&balancer, &[("good", replicas)]);
        assert_eq!(events(&balancer, "roll-superseded").len(), 1);
    }
}

#[test]
fn a_release_that_exits_shortly_after_it_was_ready_is_rolled_back_and_no_request_fails() {
    let balancer = with_monitor(3, "5s", &[]);
    let before = balancer.replica_processes();
    let load = Load::start(balancer.address);
    assert_eq!(roll(&balancer, &replica("/usr/bin/timeout 1.5")).status, 202);
    let undone = wait_for_roll(&balancer, "rolled-back");
    let error = undone["error"].as_str().unwrap();
    assert!(error.contains("ended"), "{error}");
    load.end();
    wait_for("the old fleet", || (balancer.replica_processes() == before).then_some(()));
    assert_eq!(events(&balancer, "roll-done").len(), 0);
}

#[test]
fn the_next_seat_has_its_turn_when_the_new_replica_was_ready_for_the_monitoring_time() {
    let balancer = with_monitor(2, "1s", &[]);
    let load = Load::start(balancer.address);
    assert_eq!(roll(&balancer, &replica("/usr/bin/env MARK=new")).status, 202);
    wait_for_roll(&balancer, "done");
    load.end();
    let log = balancer.log();
    let at = |message: &str, seat: &str| {
        let found = log
            .iter()
            .rfind(|line| line.fields["message"] == message && line.fields["seat"] == seat);
        found.unwrap_or_else(|| panic!("{message} of seat {seat}")).at
    };
    for seat in ["1", "2"] {
        let monitored = at("replica is leaving", seat) - at("replica is ready", seat);
        assert!(monitored.as_millis() >= 950, "seat {seat}: {monitored:?}");
    }
    assert!(at("replica is starting", "2") >= at("replica is leaving", "1"));
}

#[test]
fn a_rollout_can_be_paused_resumed_and_rolled_back_even_when_it_is_done() {
    let balancer = with_token(3, &["--env", "MARK=old"]);
    let load = Load::start(balancer.address);
    assert_eq!(roll(&balancer, &replica("/usr/bin/env MARK=new")).status, 202);
    let paused = call(&balancer, "POST", "/admin/roll/pause");
    assert_eq!((paused.status, &paused.json()["message"]["state"]), (200, &json!("paused")));
    wait_for_marks(&balancer, &[("new", 1), ("old", 2)]);
    let status = wait_for("the first seat", || {
        let status = fleet(&balancer)["roll"].clone();
        (status["done"] == 1).then_some(status)
    });
    assert_eq!((&status["state"], &status["total"]), (&json!("paused"), &json!(3)));
    let resumed = call(&balancer, "POST", "/admin/roll/resume");
    assert_eq!((resumed.status, &resumed.json()["message"]["state"]), (200, &json!("rolling")));
    wait_for_roll(&balancer, "done");
    wait_for_marks(&balancer, &[("new", 3)]);

    let back = call(&balancer, "DELETE", "/admin/roll");
    assert_eq!((back.status, &back.json()["message"]["state"]), (202, &json!("rolling-back")));
    let undone = wait_for_roll(&balancer, "rolled-back");
    assert_eq!(undone["error"], Value::Null, "{undone}");
    wait_for_marks(&balancer, &[("old", 3)]);
    assert_eq!(call(&balancer, "DELETE", "/admin/roll").status, 409);

    // And in the middle of one.
    assert_eq!(roll(&balancer, &replica("/usr/bin/env MARK=other")).status, 202);
    wait_for_marks(&balancer, &[("old", 3), ("other", 1)]);
    assert_eq!(call(&balancer, "DELETE", "/admin/roll").status, 202);
    wait_for_roll(&balancer, "rolled-back");
    wait_for_marks(&balancer, &[("old", 3)]);
    load.end();
    for event in ["roll-paused", "roll-resumed"] {
        assert_eq!(events(&balancer, event).len(), 1, "{event}");
    }
    assert_eq!(events(&balancer, "rolling-back").len(), 2);
}

#[test]
fn the_release_of_each_replica_and_the_wanted_one_are_shown() {
    let balancer = with_token(2, &["--env", "MARK=old"]);
    let status = fleet(&balancer);
    let wanted = status["release"].clone();
    assert_eq!((&wanted["generation"], &wanted["digest"]), (&json!(0), &Value::Null));
    let fingerprint = wanted["fingerprint"].as_str().unwrap();
    assert_eq!(fingerprint.len(), 32, "{fingerprint}");
    for replica in status["replicas"].as_array().unwrap() {
        assert_eq!(replica["release"], wanted);
    }
    assert_eq!(roll(&balancer, &replica("/usr/bin/env MARK=new")).status, 202);
    wait_for_roll(&balancer, "done");
    let after = fleet(&balancer);
    assert_eq!(after["release"]["generation"], 1);
    assert_ne!(after["release"]["fingerprint"], fingerprint);
    assert_eq!(after["release"]["fingerprint"], after["roll"]["fingerprint"]);
}

fn replace(file: &Path, text: &str) {
    let new = file.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, file).unwrap();
}

#[test]
fn a_changed_file_is_rolled_out_and_its_difference_is_logged_without_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("balancer.toml");
    let text = |mark: &str, more: &str| {
        format!("env = [\"MARK={mark}\", \"API_TOKEN={mark}-hidden\"]\n{more}")
    };
    replace(&file, &text("one", ""));
    let path = file.to_str().unwrap();
    let arguments = ["--config", path, "--roll-monitor", "200ms"];
    let balancer = Balancer::with_replicas(2, &arguments);
    wait_for_marks(&balancer, &[("one", 2)]);
    let load = Load::start(balancer.address);
    replace(&file, &text("two", ""));
    wait_for_roll(&balancer, "done");
    wait_for_marks(&balancer, &[("two", 2)]);
    load.end();
    let changed = events(&balancer, "spec-changed");
    assert_eq!(changed.len(), 1, "{changed:?}");
    let reason = changed[0]["reason"].as_str().unwrap();
    assert_eq!(reason, "env API_TOKEN (value not shown), env MARK: \"one\" -> \"two\"");
    let log: Vec<String> = balancer.log().iter().map(|line| line.fields.to_string()).collect();
    assert!(log.iter().all(|line| !line.contains("hidden")), "{log:#?}");

    // Only a warning, and what dies is replaced by what the others run.
    replace(&file, &text("three", "on_change = \"warn\"\n"));
    wait_for("the warning", || (events(&balancer, "spec-changed").len() == 2).then_some(()));
    let victim = balancer.replica_processes()[&1];
    crate::support::kill(victim, rustix::process::Signal::KILL);
    wait_for("its replacement", || {
        let now = balancer.replica_processes();
        now.get(&1).is_some_and(|pid| *pid != victim).then_some(())
    });
    wait_for_marks(&balancer, &[("two", 2)]);
    let answer = balancer.json("POST", "/admin/roll", "{}");
    assert_eq!(answer.status, 202, "{answer:?}");
    wait_for_roll(&balancer, "done");
    wait_for_marks(&balancer, &[("three", 2)]);
}
