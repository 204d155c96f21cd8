//! A fleet that follows its load: real replicas that take their time, and clients that keep so many
//! requests in flight.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::metrics::samples;
use crate::support::{Balancer, request, try_request, wait_for};

/// One request in flight after another for each of its clients, until it is ended.
struct Crowd {
    over: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Crowd {
    fn start(address: SocketAddr, clients: usize) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let client = || {
            let over = Arc::clone(&over);
            thread::spawn(move || {
                let mut failures = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    match try_request(address, "GET", "/home", &[], b"") {
                        Ok(answer) if answer.status == 200 => {}
                        other => failures.push(format!("{other:?}")),
                    }
                }
                failures
            })
        };
        let clients = (0..clients).map(|_| client()).collect();
        Self { over, clients }
    }

    /// No request may have failed.
    fn end(self) {
        self.over.store(true, Ordering::Relaxed);
        for client in self.clients {
            assert_eq!(client.join().unwrap(), [""; 0]);
        }
    }
}

/// Intervals of a fifth of a second, and two requests in flight for each replica.
const QUICK: [&str; 4] = ["--scale-target-in-flight", "2", "--scale-interval", "200ms"];

/// Replicas that take their time for each request.
const SLOW: [&str; 2] = ["--env", "SERVER_LATENCY=100ms"];

/// A balancer of `replicas` that follows its load.
fn scaled(replicas: usize, arguments: &[&str]) -> Balancer {
    Balancer::with_replicas(replicas, &[&QUICK[..], arguments].concat())
}

/// `/admin/fleet`.
fn fleet(balancer: &Balancer) -> Value {
    let answer = request(balancer.admin, "GET", "/admin/fleet", &[], b"");
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["message"].clone()
}

/// All events of a kind.
fn events(balancer: &Balancer, event: &str) -> Vec<Value> {
    let answer = request(balancer.admin, "GET", "/admin/events", &[], b"");
    let mut all = answer.json()["message"]["events"].as_array().unwrap().clone();
    all.retain(|entry| entry["event"] == event);
    all
}

/// From how many to how many replicas each change of size was.
fn changes(balancer: &Balancer) -> Vec<(usize, usize)> {
    let change = |event: &Value| {
        assert!(event["hostname"].is_null() && event["state"].is_null(), "{event}");
        let words: Vec<&str> = event["reason"].as_str().unwrap().split(' ').collect();
        assert_eq!((words[0], words[2], words[4]), ("from", "to", "replicas:"), "{event}");
        (words[1].parse().unwrap(), words[3].parse().unwrap())
    };
    events(balancer, "scaling").iter().map(change).collect()
}

#[test]
fn the_fleet_grows_to_its_most_under_load_and_shrinks_after_the_cool_down_and_nothing_fails() {
    let bounds = ["--scale-max", "4", "--scale-cool-down", "2s"];
    let balancer = scaled(1, &[&bounds[..], &SLOW].concat());
    let few = Crowd::start(balancer.address, 1);
    let many = Crowd::start(balancer.address, 12);
    // 13 in flight are more than four replicas are to have.
    balancer.wait_for_replicas(4);
    let scale = wait_for("a whole interval at four", || {
        let scale = fleet(&balancer)["scale"].clone();
        let average = scale["in_flight_per_replica"].as_f64();
        average.is_some_and(|average| (2.2..4.0).contains(&average)).then_some(scale)
    });
    assert_eq!((&scale["recommended"], &scale["desired"]), (&4.into(), &4.into()), "{scale}");
    assert_eq!((&scale["min"], &scale["max"]), (&1.into(), &4.into()), "{scale}");
    assert_eq!(scale["target_in_flight"], 2.0, "{scale}");
    assert_eq!(samples(&balancer)["balancer_scale_desired"], 4.0);
    let grown = changes(&balancer);
    assert_eq!(grown.last().map(|(_, to)| *to), Some(4), "{grown:?}");

    let ended = Instant::now();
    many.end();
    wait_for("the first that leave", || (changes(&balancer).len() > grown.len()).then_some(()));
    // What the last interval under load wanted counts for two seconds.
    let waited = ended.elapsed();
    assert!(waited >= Duration::from_secs(1), "it shrank after {waited:?}");
    balancer.wait_for_replicas(1);
    // The last ones are gone, not only off the list.
    wait_for("their end", || (events(&balancer, "removed").len() == 3).then_some(()));
    few.end();
    assert_eq!(events(&balancer, "draining").len(), 3);
    let changes = changes(&balancer);
    assert!(changes[..grown.len()].iter().all(|(from, to)| from < to), "{changes:?}");
    assert!(changes[grown.len()..].iter().all(|(from, to)| from > to), "{changes:?}");
    assert_eq!(changes.last().map(|(_, to)| *to), Some(1), "{changes:?}");
    assert!(events(&balancer, "scale-failed").is_empty());
    let reason = events(&balancer, "scaling")[0]["reason"].clone();
    assert!(reason.as_str().unwrap().ends_with("requests were in flight on average"), "{reason}");
}

#[test]
fn those_with_the_fewest_requests_go() {
    let arguments = ["--scale-cool-down", "3s", "--env", "SERVER_LATENCY=20s"];
    let balancer = scaled(3, &arguments);
    let address = balancer.address;
    let client =
        thread::spawn(move || try_request(address, "GET", "/home", &[("X-Request-Id", "6")], b""));
    let busy = wait_for("the request at its replica", || {
        let status = fleet(&balancer);
        let mut replicas = status["replicas"].as_array().unwrap().iter();
        replicas.find(|replica| replica["in_flight"] == 1).map(|one| one["hostname"].clone())
    });
    assert_ne!(busy, "S1", "of equals the first would stay");
    assert_eq!(balancer.wait_for_replicas(1), [busy.as_str().unwrap()]);
    // In one step, or in two where those that were not ready at first made it careful.
    assert!(changes(&balancer).iter().all(|(from, to)| from > to), "{:?}", changes(&balancer));
    assert!(!client.is_finished(), "nobody waited for it");
    drop(balancer);
    assert!(client.join().unwrap().is_err());
}

#[test]
fn what_somebody_adds_or_removes_beyond_the_bounds_is_brought_back() {
    let balancer = scaled(2, &["--scale-min", "2", "--scale-max", "3"]);
    let added = balancer.json("POST", "/add", r#"{"n":3}"#);
    assert_eq!(added.status, 200, "{added:?}");
    balancer.wait_for_replicas(3);
    let removed = balancer.json("DELETE", "/rm", r#"{"n":3}"#);
    assert_eq!(removed.status, 200, "{removed:?}");
    balancer.wait_for_replicas(2);
    assert_eq!(changes(&balancer), [(5, 3), (0, 2)]);
    for (event, text) in events(&balancer, "scaling").iter().zip(["from 5 to 3", "from 0 to 2"]) {
        assert_eq!(event["reason"], format!("{text} replicas: there are to be 2 to 3"));
    }
    assert_eq!(balancer.get("/home").status, 200);
}

#[test]
fn a_start_that_fails_is_told_and_tried_again_at_the_next_interval_and_no_sooner() {
    let program = env!("CARGO_BIN_EXE_balancer");
    let command = format!("/bin/sh -c '[ {{seat}} = 1 ] || exit 3; exec {program} replica'");
    let begun = Instant::now();
    let balancer = scaled(1, &[&SLOW[..], &["--scale-max", "2", "--command", &command]].concat());
    let crowd = Crowd::start(balancer.address, 6);
    let failed = wait_for("three failures", || {
        Some(events(&balancer, "scale-failed")).filter(|failed| failed.len() >= 3)
    });
    let intervals = begun.elapsed().as_millis() / 200;
    assert!(failed.len() as u128 <= intervals, "{} in {intervals} intervals", failed.len());
    for event in &failed {
        assert!(event["hostname"].is_null(), "{event}");
        let reason = event["reason"].as_str().unwrap();
        assert!(reason.ends_with("ended before it was ready: exited with code 3"), "{reason}");
    }
    assert!(changes(&balancer).iter().all(|change| *change == (1, 2)));
    assert_eq!(balancer.replicas(), ["S1"]);
    crowd.end();
}

#[test]
fn a_rolling_update_is_not_disturbed() {
    let token = ["--admin-token", "s3cret", "--scale-max", "2"];
    let balancer = scaled(1, &[&SLOW[..], &token].concat());
    let body = r#"{"command":"/bin/sleep 600"}"#;
    let fields = [("Content-Type", "application/json"), ("Authorization", "Bearer s3cret")];
    let answer = request(balancer.admin, "POST", "/admin/roll", &fields, body.as_bytes());
    assert_eq!(answer.status, 202, "{answer:?}");
    let crowd = Crowd::start(balancer.address, 6);
    for _ in 0..3 {
        let before = fleet(&balancer)["scale"].clone();
        wait_for("another interval that wants two", || {
            let scale = fleet(&balancer)["scale"].clone();
            (scale["recommended"] == 2 && scale != before).then_some(())
        });
    }
    assert_eq!(fleet(&balancer)["roll"]["state"], "rolling");
    assert!(changes(&balancer).is_empty());
    crowd.end();
}

#[test]
fn where_it_is_off_nothing_is_told_of_it() {
    let balancer = Balancer::with_replicas(1, &[]);
    assert_eq!(fleet(&balancer).get("scale"), None);
    let samples = samples(&balancer);
    assert!(!samples.contains_key("balancer_scale_desired"));
    assert_eq!(samples["balancer_events_total{event=\"scaling\"}"], 0.0);
}
