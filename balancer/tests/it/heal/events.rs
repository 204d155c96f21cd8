//! `/admin/events` as JSON: what has happened, in order.

use std::time::{Duration, SystemTime};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{events_since, fleet, last_event};
use crate::support::{Balancer, kill, request, wait_for};

/// An event without its number and its time.
fn gist(event: &Value) -> Value {
    let keep = ["event", "hostname", "seat", "state", "reason"];
    keep.iter().map(|field| ((*field).to_owned(), event[*field].clone())).collect()
}

#[test]
fn a_death_and_its_repair_are_told_in_order_with_their_reasons() {
    let began = SystemTime::now();
    // A replica that listens late is reported after a check interval.
    let balancer = Balancer::with_replicas(2, &["--health-interval", "1m"]);
    let since = last_event(&balancer);
    assert_eq!(since, 4, "two that start and are ready");
    kill(balancer.replica_processes()[&2], Signal::KILL);
    wait_for("all of it", || (events_since(&balancer, since).len() == 4).then_some(()));
    let new = balancer.replicas().remove(1);
    let past = events_since(&balancer, since);
    let told = |event: &str, hostname: &str, state: Option<&str>, reason: Option<&str>| json!({ "event": event, "hostname": hostname, "seat": 2, "state": state, "reason": reason });
    let mut gists: Vec<Value> = past.iter().map(gist).collect();
    // Its remains are removed whenever that comes to its end.
    let removed = gists.iter().position(|gist| gist["event"] == "removed").unwrap();
    assert_eq!(gists.remove(removed), told("removed", "S2", Some("dead"), None));
    assert_eq!(
        gists,
        [
            told("died", "S2", Some("dead"), Some("killed by signal 9")),
            told("starting", &new, Some("starting"), None),
            told("ready", &new, Some("ready"), None),
        ]
    );

    let all = events_since(&balancer, 0);
    let ids: Vec<u64> = all.iter().map(|event| event["id"].as_u64().unwrap()).collect();
    assert_eq!(ids, (1..=8).collect::<Vec<u64>>());
    let times: Vec<SystemTime> = all
        .iter()
        .map(|event| humantime::parse_rfc3339(event["time"].as_str().unwrap()).unwrap())
        .collect();
    assert!(times.is_sorted(), "{all:?}");
    assert!(times[0] + Duration::from_millis(1) >= began && times[7] <= SystemTime::now());
    assert_eq!(events_since(&balancer, 6), all[6..]);
    assert_eq!(last_event(&balancer), 8);
    assert!(events_since(&balancer, 8).is_empty());
    // A number from before a restart: all of it is news.
    assert_eq!(events_since(&balancer, 1_000_000), all);
    let counts = json!({ "starting": 3, "ready": 3, "died": 1, "removed": 1 });
    assert_eq!(fleet(&balancer)["counts"], counts);
}

#[test]
fn a_bad_number_is_400() {
    let balancer = Balancer::with_replicas(1, &["--health-interval", "1m"]);
    for bad in ["x", "-1", "1.5", "", "18446744073709551616", "%31", "0x1"] {
        let path = format!("/admin/events?since={bad}");
        let answer = request(balancer.admin, "GET", &path, &[], b"");
        assert_eq!(answer.status, 400, "{bad}: {answer:?}");
        let told = answer.message();
        assert!(told.starts_with("<Error> 'since' must be the number of an event"), "{told}");
    }
    for accept in ["application/json", "text/event-stream"] {
        let headers = [("Accept", accept), ("Last-Event-ID", "x")];
        let answer = request(balancer.admin, "GET", "/admin/events", &headers, b"");
        assert_eq!(answer.status, 400, "{answer:?}");
    }
    let answer = request(balancer.admin, "GET", "/admin/events?x=1&since=1", &[], b"");
    assert_eq!(answer.json()["message"]["events"].as_array().unwrap().len(), 1);
    // What a reader has seen says more than where it wanted to begin.
    let seen = [("Last-Event-ID", "2")];
    let answer = request(balancer.admin, "GET", "/admin/events?since=0", &seen, b"");
    assert_eq!(answer.json()["message"]["events"], json!([]));
    assert_eq!(answer.json()["message"]["last"], 2);
}

#[test]
fn events_are_read_without_the_token_but_not_by_a_foreign_name() {
    let balancer = Balancer::with_replicas(1, &["--admin-token", "x", "--health-interval", "1m"]);
    assert_eq!(last_event(&balancer), 2);

    let arguments = ["--admin-listen", "127.0.0.1:0", "--health-interval", "1m"];
    let balancer = Balancer::with_replicas(1, &arguments);
    assert_eq!(last_event(&balancer), 2);
    for accept in ["*/*", "text/event-stream"] {
        let headers = [("Accept", accept), ("Host", "evil.example")];
        let answer = request(balancer.admin, "GET", "/admin/events", &headers, b"");
        assert_eq!(answer.status, 403, "{answer:?}");
    }
}

#[test]
fn names_and_reasons_of_clients_come_back_as_json() {
    let balancer = Balancer::with_replicas(1, &["--health-interval", "1m"]);
    let answer = balancer.json("POST", "/add", r#"{"n":1,"hostnames":["Server 4"]}"#);
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = balancer.json("DELETE", "/rm", r#"{"n":1,"hostnames":["Server 4"]}"#);
    assert_eq!(answer.status, 200, "{answer:?}");
    let past = events_since(&balancer, 2);
    let told: Vec<&str> = past.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(told, ["starting", "ready", "draining", "removed"]);
    assert!(past.iter().all(|event| event["hostname"] == "Server 4" && event["seat"] == 2));
    assert_eq!(past[2]["reason"], "not wanted any more");
}
