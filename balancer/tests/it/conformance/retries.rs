//! What is sent again, where to, and what never is (RFC 9110 9.2.2; RFC 9112 9.3.1).

use super::client::Client;
use super::over;
use super::upstream::{Then, Upstream};
use crate::support::Balancer;

/// The balancer does not learn of a failure by a probe.
const UNKNOWN: [&str; 2] = ["--health-interval", "1h"];

/// Fewer retries than the budget's least of ten a second.
const REQUESTS: usize = 20;

/// Closes each connection after a request's last byte, or with `early` after its head.
fn closer(early: bool) -> Upstream {
    Upstream::start(move |exchange| {
        let _whole = early || exchange.read_body();
        Then::Close
    })
}

fn send(balancer: &Balancer, method: &str, number: usize, body: &str) -> u16 {
    let length = body.len();
    let request = format!(
        "{method} /{method}/{number} HTTP/1.1\r\nHost: a\r\nX-Request-Id: {number}\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    );
    Client::sending(balancer, request.as_bytes()).must_answer(method).status
}

#[test]
fn idempotent_requests_outlive_a_replica_that_closes() {
    for early in [false, true] {
        let (one, other, closes) = (Upstream::playing(), Upstream::playing(), closer(early));
        let balancer = over(&[&one, &other, &closes], &UNKNOWN);
        for number in 0..REQUESTS {
            let (method, body) =
                [("GET", ""), ("PUT", "again,\0byte for byte"), ("DELETE", "x"), ("OPTIONS", "")]
                    [number % 4];
            assert_eq!(send(&balancer, method, number, body), 200, "{method} {number}");
            let marker = format!("/{method}/{number} ");
            let good: Vec<_> = [&one, &other].map(|each| each.seen_with(&marker)).concat();
            assert_eq!(good.len(), 1, "{method} {number}");
            assert_eq!(good[0].body.data, body.as_bytes(), "{method} {number}");
            let tries = closes.seen_with(&marker).len();
            assert!(tries < 2, "{method} {number} went {tries} times to the same replica");
        }
        assert!(!closes.seen().is_empty(), "nothing went to the one that closes");
    }
}

#[test]
fn a_post_that_reached_a_replica_is_not_sent_again() {
    let (good, closes) = (Upstream::playing(), closer(false));
    let balancer = over(&[&good, &closes], &UNKNOWN);
    let mut failed = 0;
    for number in 0..REQUESTS {
        let status = send(&balancer, "POST", number, "once");
        let marker = format!("/POST/{number} ");
        let (there, lost) = (good.seen_with(&marker).len(), closes.seen_with(&marker).len());
        assert_eq!(there + lost, 1, "POST {number} was sent {there} + {lost} times");
        assert_eq!(status, if lost == 1 { 502 } else { 200 }, "POST {number}");
        failed += lost;
    }
    assert!(failed > 0, "nothing went to the one that closes");
}

#[test]
fn a_refused_connection_is_tried_elsewhere_by_any_method() {
    let (one, other) = (Upstream::playing(), Upstream::playing());
    let gone = Balancer::with_replicas(1, &[]);
    let list = format!("{},{},{}", one.address, other.address, gone.address);
    let balancer = Balancer::start(&[&["--servers", list.as_str()], &UNKNOWN[..]].concat());
    balancer.wait_for_replicas(3);
    drop(gone);
    for number in 0..REQUESTS {
        let (method, body) = [("GET", ""), ("POST", "x"), ("PATCH", "y")][number % 3];
        assert_eq!(send(&balancer, method, number, body), 200, "{method} {number}");
    }
    assert_eq!(one.seen().len() + other.seen().len(), REQUESTS);
}

#[test]
fn a_get_lost_to_an_idle_connection_that_closed_is_sent_again() {
    // The replica closes when the second request of a connection comes: as it looks when both
    // sides' messages cross.
    let upstream = Upstream::start({
        let busy = std::sync::Mutex::new(std::collections::BTreeSet::new());
        move |exchange| {
            let peer = exchange.wire.stream().peer_addr().unwrap();
            if busy.lock().unwrap().insert(peer) { exchange.play() } else { Then::Close }
        }
    });
    let arguments = [&UNKNOWN[..], &["--workers", "1"]].concat();
    let balancer = over(&[&upstream], &arguments);
    let mut client = Client::of(&balancer);
    for number in 0..8 {
        client.send(format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        assert_eq!(client.must_answer("a GET").status, 200, "GET {number}");
        let tries = upstream.seen_with(&format!("GET /{number} ")).len();
        assert!((1..=2).contains(&tries), "GET {number} was sent {tries} times");
    }
    assert!(upstream.connections() > 1);
}

#[test]
fn an_answer_that_began_is_never_asked_for_again() {
    let half = || {
        Upstream::start(|exchange| {
            exchange.write(b"HTTP/1.1 200 OK\r\nContent-Le");
            Then::Close
        })
    };
    let (one, other) = (half(), half());
    let balancer = over(&[&one, &other], &UNKNOWN);
    for number in 0..4 {
        assert_eq!(send(&balancer, "GET", number, ""), 502, "GET {number}");
        assert_eq!(one.seen().len() + other.seen().len(), number + 1, "GET {number}");
    }
}
