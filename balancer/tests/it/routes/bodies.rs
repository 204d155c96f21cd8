//! Bodies that go to all replicas, and those that are too large.

use super::{ask_once, routed, routed_with, say, saying, three};
use crate::conformance::client::Client;
use crate::conformance::upstream::Upstream;

const ALL: &str =
    "[[route]]\nname = \"all\"\npaths = [\"/all\"]\nsend = \"all\"\nbody = \"1KiB\"\n";

/// What a client sends, and the body in it.
fn requests() -> Vec<(Vec<u8>, Vec<u8>)> {
    let bytes: Vec<u8> = (0..=255).cycle().take(1_024).collect();
    let head = |fields: &str| format!("POST /all HTTP/1.1\r\nHost: a\r\n{fields}\r\n").into_bytes();
    let by_length = |body: &[u8]| {
        let length = format!("Content-Length: {}\r\n", body.len());
        ([&head(&length)[..], body].concat(), body.to_vec())
    };
    let in_chunks = |body: &[u8]| {
        let mut sent = head("Transfer-Encoding: chunked\r\nTrailer: x-t\r\n");
        for chunk in body.chunks(100) {
            sent.extend(format!("{:x};a=b\r\n", chunk.len()).bytes());
            sent.extend([chunk, b"\r\n"].concat());
        }
        sent.extend(b"0\r\nx-t: 1\r\n\r\n");
        (sent, body.to_vec())
    };
    vec![
        by_length(b"hello"),
        by_length(b""),
        by_length(&bytes),
        in_chunks(b"hello"),
        in_chunks(b""),
        in_chunks(&bytes),
        (head(""), Vec::new()),
    ]
}

#[test]
fn every_replica_gets_the_body_byte_for_byte() {
    let upstreams = three();
    let [a, b, c] = &upstreams;
    let routed = routed(&[a, b, c], ALL);
    let mut client = Client::of(&routed.balancer);
    let requests = requests();
    for (sent, body) in &requests {
        client.send(sent);
        let answer = client.answer("POST").unwrap_or_else(|broken| panic!("{body:?}: {broken}"));
        assert_eq!(answer.status, 200);
    }
    for upstream in &upstreams {
        assert!(upstream.faults().is_empty(), "{:?}", upstream.faults());
        let seen = upstream.seen();
        assert_eq!(seen.len(), requests.len());
        for (seen, (_, body)) in seen.iter().zip(&requests) {
            assert_eq!((&seen.body.data, seen.whole), (body, true));
            assert_eq!(seen.head.line, "POST /all HTTP/1.1");
        }
        // RFC 9110 8.6: a POST without a body may say nothing of its length.
        assert!(seen[6].head.all("Transfer-Encoding").is_empty());
    }
}

#[test]
fn a_body_above_the_limit_is_refused_and_reaches_nobody() {
    let upstreams = three();
    let [a, b, c] = &upstreams;
    let routed = routed(&[a, b, c], ALL);
    let body = vec![b'x'; 1_025];
    let chunked = [&b"401\r\n"[..], &body, b"\r\n0\r\n\r\n"].concat();
    for (fields, body) in [
        ("Content-Length: 1025\r\n", &body),
        ("Transfer-Encoding: chunked\r\n", &chunked),
        ("Content-Length: 1025\r\nExpect: 100-continue\r\n", &body),
    ] {
        let head = format!("POST /all HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let mut client = Client::sending(&routed.balancer, &[head.as_bytes(), body].concat());
        let answer = client.answer("POST").unwrap_or_else(|broken| panic!("{fields}: {broken}"));
        assert_eq!((answer.status, answer.interim.len()), (413, 0), "{fields}");
        assert!(answer.is_failure() && answer.head.lists("connection", "close"), "{answer:?}");
        assert!(client.is_over(), "{fields}");
    }
    for upstream in &upstreams {
        assert!(upstream.seen().is_empty());
    }
}

#[test]
fn the_balancers_own_limit_of_bodies_holds_for_those_of_routes_too() {
    let [a, ..] = three();
    let routed = routed_with(&[&a], ALL, &["--limit-body", "10"]);
    let chunked = "Transfer-Encoding: chunked\r\n\r\nb\r\nhello world\r\n0\r\n";
    assert_eq!(ask_once(&routed.balancer, "POST /all", chunked).status, 413);
    let length = "Content-Length: 11\r\n";
    assert_eq!(ask_once(&routed.balancer, "POST /all", length).status, 413);
    assert!(a.seen().is_empty());
    let mut client = Client::of(&routed.balancer);
    client.send(b"POST /all HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n0123456789");
    assert_eq!(client.must_answer("ten bytes").status, 200);
}

#[test]
fn a_client_that_asks_whether_to_go_on_is_told_to() {
    let upstreams = three();
    let [a, b, c] = &upstreams;
    let routed = routed(&[a, b, c], ALL);
    let mut client = Client::of(&routed.balancer);
    client.send(
        b"POST /all HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
    );
    let go_on = client.wire.head().unwrap().unwrap();
    assert!(go_on.line.starts_with("HTTP/1.1 100 "), "{go_on:?}");
    client.send(b"hello");
    let answer = client.must_answer("the rest");
    assert_eq!((answer.status, answer.interim.len()), (200, 0));
    for upstream in &upstreams {
        let seen = upstream.seen();
        assert_eq!((seen.len(), &seen[0].body.data[..]), (1, &b"hello"[..]));
        assert!(seen[0].head.all("Expect").is_empty());
    }
}

#[test]
fn a_body_that_breaks_off_reaches_nobody() {
    let [a, ..] = three();
    let routed = routed(&[&a], ALL);
    let half = b"POST /all HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf";
    let mut client = Client::sending(&routed.balancer, half);
    client.wire.finish();
    assert_eq!(client.must_answer("half a body").status, 400);
    assert!(client.is_over());
    assert!(a.seen().is_empty());
}

#[test]
fn a_replica_that_answers_before_it_has_the_whole_body_gets_the_next_on_a_new_connection() {
    // More than sockets hold.
    let body: Vec<u8> = (0..=255).cycle().take(15 << 20).collect();
    let upstream =
        Upstream::start(|exchange| match exchange.head.only("X-Request-Id").as_deref() {
            Some("early") => {
                exchange.write(&saying(500, "early"));
                // It would go on, as one that reads bodies slowly.
                exchange.hang()
            }
            _ => say(exchange, &saying(201, "")),
        });
    for send in ["all", "first"] {
        let text = format!(
            "[[route]]\npaths = [\"/all\"]\nsend = \"{send}\"\nattempts = 1\nbody = \"16MiB\"\n\
             success = [201, 500]\n[outliers]\nconsecutive = 0\n"
        );
        let routed = routed_with(&[&upstream], &text, &["--workers", "1"]);
        let mut client = Client::of(&routed.balancer);
        let before = upstream.seen().len();
        for (id, status) in [("early", 500), ("whole", 201)] {
            let head = format!(
                "POST /all HTTP/1.1\r\nHost: a\r\nX-Request-Id: {id}\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            client.send(&[head.as_bytes(), &body].concat());
            assert_eq!(client.must_answer(id).status, status, "{send}: {id}");
        }
        let seen = upstream.seen();
        let [early, whole] = &seen[before..] else { panic!("{} requests", seen.len()) };
        assert_ne!(early.connection, whole.connection, "{send}");
        assert!(upstream.sees_end_of(early.connection), "{send}");
        assert!(whole.whole && whole.body.data == body, "{send}");
        assert!(upstream.faults().is_empty(), "{:?}", upstream.faults());
    }
}
