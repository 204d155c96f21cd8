//! `send = "all"` when replicas leave, the client goes away, or the balancer stops.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::all::failing;
use super::{QUICK, always, failures, routed, routed_with, written};
use crate::conformance::client::Client;
use crate::conformance::upstream::Upstream;
use crate::support::{Balancer, kill, wait_for};

/// A route that goes on for long.
fn patient(more: &str) -> String {
    format!(
        "[[route]]\npaths = [\"/register\"]\nsend = \"all\"\nattempts = 10000\n\
         backoff = {{ base = \"20ms\", max = \"20ms\", jitter = \"0s\" }}\n{more}\n\
         [outliers]\nconsecutive = 0\n"
    )
}

const POST: &[u8] = b"POST /register HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn those_that_leave_are_dropped_and_those_that_join_are_not_asked() {
    let text = patient("among = \"ready\"").replace("10000", "200");
    let file = written(&text);
    let config = ["--config", file.path().to_str().unwrap()];
    // A replica that knows only somebody else answers 404 to each.
    let flags = [&QUICK[..], &config, &["--env", "USERNAME=nobody"]].concat();
    let balancer = Balancer::with_replicas(3, &flags);
    assert_eq!(balancer.replicas(), ["S1", "S2", "S3"]);
    let seats = balancer.replica_processes();
    let mut client = Client::sending(&balancer, POST);
    let asked = || {
        let fleet = crate::support::request(balancer.admin, "GET", "/admin/fleet", &[], b"");
        let fleet = fleet.json()["message"].clone();
        fleet["replicas"].as_array().map(Vec::len)
    };
    assert_eq!(asked(), Some(3));
    let removed = balancer.json("POST", "/rm", r#"{"n": 1, "hostnames": ["S1"]}"#);
    assert_eq!(removed.status, 200);
    kill(seats[&2], Signal::KILL);
    let added = balancer.json("POST", "/add", r#"{"n": 1, "hostnames": ["New"]}"#);
    assert_eq!(added.status, 200);
    wait_for("a replacement", || {
        let replicas = balancer.replicas();
        (replicas.len() == 3 && !replicas.contains(&"S2".to_owned())).then_some(())
    });
    let answer = client.must_answer("when the last has failed");
    assert_eq!(answer.status, 502);
    let list = failures(&[("S3", 200, "answered 404")]);
    assert_eq!(String::from_utf8(answer.body.data).unwrap(), list);
}

#[test]
fn a_client_that_goes_away_does_not_end_the_sending() {
    let (flaky, good) = (failing(10).0, failing(0).0);
    let routed = routed(&[&flaky, &good], &patient(""));
    let client = Client::sending(&routed.balancer, POST);
    assert!(flaky.sees(1));
    drop(client);
    assert!(flaky.sees(11));
    assert_eq!(good.seen().len(), 1);
}

/// Waits until a server has not been asked for half a second.
fn comes_to_rest(upstream: &Upstream) {
    let mut last = (upstream.seen().len(), Instant::now());
    wait_for("the attempts to end", || {
        let now = upstream.seen().len();
        if now != last.0 {
            last = (now, Instant::now());
        }
        (last.1.elapsed() >= Duration::from_millis(500)).then_some(())
    });
}

#[test]
fn a_route_may_give_up_when_the_client_goes_away() {
    for send in ["all", "first"] {
        let bad = always(500);
        let text = patient("abandon = true").replace("\"all\"", &format!("\"{send}\""));
        let routed = routed(&[&bad], &text);
        let client = Client::sending(&routed.balancer, POST);
        assert!(bad.sees(3), "{send}");
        drop(client);
        comes_to_rest(&bad);
    }
}

#[test]
fn a_balancer_that_stops_finishes_what_it_sends_though_the_client_has_gone() {
    let (flaky, good) = (failing(15).0, failing(0).0);
    let mut routed = routed(&[&flaky, &good], &patient(""));
    let client = Client::sending(&routed.balancer, POST);
    assert!(flaky.sees(1));
    drop(client);
    routed.balancer.signal(Signal::TERM);
    assert_eq!(routed.balancer.wait().code(), Some(0));
    assert_eq!((flaky.seen().len(), good.seen().len()), (16, 1));
}

#[test]
fn a_balancer_that_stops_still_answers_the_client_that_waits() {
    let (flaky, good) = (failing(15).0, failing(0).0);
    let mut routed = routed(&[&flaky, &good], &patient(""));
    let mut client = Client::sending(&routed.balancer, POST);
    assert!(flaky.sees(1));
    routed.balancer.signal(Signal::TERM);
    let answer = client.must_answer("before the end");
    assert!(answer.status == 201 && answer.head.lists("connection", "close"), "{answer:?}");
    assert_eq!(routed.balancer.wait().code(), Some(0));
}

#[test]
fn a_body_that_is_still_coming_when_the_balancer_stops_is_sent_though_the_client_has_gone() {
    let (flaky, good) = (failing(15).0, failing(0).0);
    let mut routed = routed(&[&flaky, &good], &patient(""));
    let half = b"POST /register HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel";
    let mut client = Client::of(&routed.balancer);
    client.wire.send_alone(half).unwrap();
    routed.balancer.signal(Signal::TERM);
    wait_for("the stop", || {
        let told = routed.balancer.events("gracefully shutting down");
        (!told.is_empty()).then_some(())
    });
    client.wire.send_alone(b"lo").unwrap();
    drop(client);
    assert_eq!(routed.balancer.wait().code(), Some(0));
    assert_eq!((flaky.seen().len(), good.seen().len()), (16, 1));
}

#[test]
fn a_balancer_that_stops_gives_up_what_never_succeeds() {
    let bad = always(500);
    let mut routed = routed_with(&[&bad], &patient(""), &["--timeout-drain", "1s"]);
    let mut waits = Client::sending(&routed.balancer, POST);
    drop(Client::sending(&routed.balancer, POST));
    assert!(bad.sees(4));
    let began = Instant::now();
    routed.balancer.signal(Signal::TERM);
    assert_eq!(routed.balancer.wait().code(), Some(1), "a delivery was not made");
    assert!(began.elapsed() >= Duration::from_millis(990));
    assert_eq!(routed.balancer.events("deliveries given up").len(), 1);
    let reports = wait_for("the reports", || {
        let reports = routed.balancer.events("request undelivered");
        (reports.len() == 2).then_some(reports)
    });
    assert!(reports.iter().all(|report| report.fields["attempts"].as_u64() >= Some(2)));
    // The client is told or cut off, whichever is first.
    assert!(!waits.answer("POST").is_ok_and(|answer| answer.status != 502));
}
