//! Each wait has an end, and nothing that moves is ended.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::client::Client;
use super::over;
use super::upstream::{OK, Then, Upstream};
use crate::support::PATIENCE;

/// Time between two pieces of something slow but steady.
const BEAT: Duration = Duration::from_millis(50);

/// A pause that is the matter of the test: how a slow side behaves, not a wait for something.
fn beat() {
    let (_kept, never) = mpsc::channel::<()>();
    assert_eq!(never.recv_timeout(BEAT), Err(RecvTimeoutError::Timeout));
}

/// 408, or a close without an answer (RFC 9110 15.5.9).
fn is_timed_out(client: &mut Client, what: &str) {
    match client.answer("GET") {
        Ok(answer) => {
            assert_eq!(answer.status, 408, "{what}");
            assert!(client.is_over(), "{what}");
        }
        Err(broken) => {
            assert!(broken.part.head.raw.is_empty(), "{what}: {broken}");
            let waited = [std::io::ErrorKind::WouldBlock, std::io::ErrorKind::TimedOut];
            assert!(!waited.contains(&broken.why.kind()), "{what}: still open");
        }
    }
}

#[test]
fn a_trickle_does_not_extend_the_time_for_a_head() {
    let upstream = Upstream::playing();
    let balancer = over(&[&upstream], &["--timeout-head", "300ms"]);
    let mut client = Client::sending(&balancer, b"GET /x HTTP/1.1\r\nHost: a\r\nX: ");
    let start = Instant::now();
    // 5 s of bytes, if nothing stops them.
    for _ in 0..100 {
        if client.wire.send(b"y").is_err() {
            break;
        }
        beat();
    }
    assert!(start.elapsed() < Duration::from_secs(4), "bytes were taken for {:?}", start.elapsed());
    assert!(upstream.seen().is_empty());
    // One that says nothing more after some bytes.
    let mut client = Client::sending(&balancer, b"GET /x HTTP/1.1\r\nHo");
    is_timed_out(&mut client, "half a head");
}

#[test]
fn an_upload_that_stops_is_ended_at_both_sides() {
    let upstream = Upstream::playing();
    let balancer = over(&[&upstream], &["--timeout-client-body", "300ms"]);
    for (number, part) in
        ["Content-Length: 9\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"]
            .into_iter()
            .enumerate()
    {
        let send = format!("POST /x HTTP/1.1\r\nHost: a\r\n{part}");
        let mut client = Client::sending(&balancer, send.as_bytes());
        is_timed_out(&mut client, part);
        let seen = upstream.seen();
        assert_eq!(seen.len(), number + 1);
        assert!(upstream.sees_end_of(seen[number].connection), "{part}");
        assert!(!upstream.seen()[number].whole, "{part}");
    }
}

#[test]
fn a_replica_that_does_not_answer_is_504() {
    let upstream = Upstream::start(|exchange| {
        exchange.write(if exchange.head.target() == "/head" { b"HTTP/1.1 200 O" } else { b"" });
        exchange.hang()
    });
    let balancer = over(&[&upstream], &["--timeout-first-byte", "300ms"]);
    let mut client = Client::sending(&balancer, b"GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = client.must_answer("nothing");
    assert!(answer.status == 504 && answer.is_failure(), "{answer:?}");
    assert!(upstream.sees_end_of(1), "the connection may still bring the late answer");
    // Part of a head is no answer either: late as well, or broken.
    let mut client = Client::sending(&balancer, b"GET /head HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = client.must_answer("half a head");
    assert!(matches!(answer.status, 502 | 504) && answer.is_failure(), "{answer:?}");
}

#[test]
fn an_answer_that_stalls_is_cut_visibly() {
    let upstream = Upstream::start(|exchange| {
        exchange.write(if exchange.head.target() == "/length" {
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello"
        } else {
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
        });
        exchange.hang()
    });
    let balancer = over(&[&upstream], &["--timeout-replica-body", "300ms"]);
    for (number, target) in ["/length", "/chunks"].into_iter().enumerate() {
        let send = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        let broken = Client::sending(&balancer, send.as_bytes()).answer("GET").unwrap_err();
        assert_eq!((broken.part.status, broken.part.body.data.as_slice()), (200, &b"hello"[..]));
        assert_ne!(broken.why.kind(), std::io::ErrorKind::WouldBlock, "{target} is still open");
        assert!(upstream.sees_end_of(number + 1), "{target}");
    }
}

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    let upstream = Upstream::playing();
    let balancer = over(&[&upstream], &["--timeout-keep-alive", "300ms"]);
    let mut client = Client::sending(&balancer, b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.must_answer("a request").status, 200);
    assert!(client.is_over(), "still open, or told something that it did not ask for");
}

#[test]
fn what_moves_slowly_but_steadily_outlives_every_timeout() {
    let upstream = Upstream::start(|exchange| {
        if !exchange.read_body() {
            return Then::Close;
        }
        exchange.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        for _ in 0..20 {
            exchange.write(b"1\r\nx\r\n");
            beat();
        }
        exchange.write(b"0\r\n\r\n");
        Then::GoOn
    });
    let short = "400ms";
    let balancer = over(
        &[&upstream],
        &[
            "--timeout-head",
            short,
            "--timeout-client-body",
            short,
            "--timeout-first-byte",
            short,
            "--timeout-replica-body",
            short,
            "--timeout-keep-alive",
            short,
        ],
    );
    let head = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n\r\n";
    let mut client = Client::sending(&balancer, head);
    // 1 s up and 1 s down, each longer than any of them.
    for _ in 0..20 {
        client.send(b"y");
        beat();
    }
    let answer = client.must_answer("a slow exchange");
    assert_eq!((answer.status, answer.body.data.len()), (200, 20));
    assert_eq!(upstream.seen()[0].body.data.len(), 20);
}

#[test]
fn a_tunnel_that_idles_is_ended() {
    let (told, ended) = mpsc::channel();
    let upstream = Upstream::start(move |exchange| {
        exchange.write(b"HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n");
        let then = exchange.hang();
        told.send(()).unwrap();
        then
    });
    let balancer = over(&[&upstream], &["--timeout-tunnel", "300ms"]);
    let ask = b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n";
    let mut client = Client::sending(&balancer, ask);
    assert_eq!(client.must_answer("an upgrade").status, 101);
    assert!(client.is_over());
    ended.recv_timeout(PATIENCE).unwrap();
}

#[test]
fn slow_heads_do_not_hinder_others() {
    let upstream = Upstream::start(|exchange| {
        exchange.write(OK);
        Then::GoOn
    });
    let balancer = over(&[&upstream], &[]);
    let slow: Vec<Client> =
        (0..200).map(|_| Client::sending(&balancer, b"GET /slow HTTP/1.1\r\nHo")).collect();
    for _ in 0..20 {
        let mut client = Client::sending(&balancer, b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.must_answer("beside slow ones").status, 200);
    }
    assert_eq!((slow.len(), upstream.seen_with("/slow").len()), (200, 0));
}
