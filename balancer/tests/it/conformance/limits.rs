//! Sizes and numbers: beyond a limit there is a clear answer, up to it there is none.

use super::client::Client;
use super::over;
use super::table::Expect::{Forwarded, Refused};
use super::table::{Case, case, run};
use super::upstream::{OK, Then, Upstream};
use crate::support::wait_for;

fn with_field_of(length: usize) -> String {
    format!("GET /~ HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "y".repeat(length))
}

fn with_fields(number: usize) -> String {
    // The Host is one of them.
    format!("GET /~ HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(number - 1))
}

fn with_target_of(length: usize) -> String {
    format!("GET /~{} HTTP/1.1\r\nHost: a\r\n\r\n", "t".repeat(length))
}

#[test]
fn large_heads_are_431_and_long_targets_414() {
    // RFC 6585 5; RFC 9110 15.5.15.
    let cases: Vec<Case> = vec![
        case("a field of 8 KiB", with_field_of(8_192), {
            let seen = format!("GET /~ HTTP/1.1\nHost: a\nX: {}\n\n", "y".repeat(8_192));
            Forwarded(seen.into_bytes())
        }),
        case("a field of 17 KiB", with_field_of(17 * 1_024), Refused(431)),
        case("a field of 100 KB", with_field_of(100_000), Refused(431)),
        case("100 fields", with_fields(100), {
            Forwarded(format!("GET /~ HTTP/1.1\nHost: a\n{}\n", "X: y\n".repeat(99)).into_bytes())
        }),
        case("101 fields", with_fields(101), Refused(431)),
        case("1000 fields", with_fields(1_000), Refused(431)),
        case("a target of 8,000 bytes", with_target_of(8_000), {
            let seen = format!("GET /~{} HTTP/1.1\nHost: a\n\n", "t".repeat(8_000));
            Forwarded(seen.into_bytes())
        }),
        case("a target of 9 KiB", with_target_of(9 * 1_024), Refused(414)),
        case("a target of 12 KiB", with_target_of(12 * 1_024), Refused(414)),
    ];
    run(&cases, &[]);
}

#[test]
fn limits_of_heads_are_as_set() {
    let set = ["--limit-head", "2KiB", "--limit-fields", "10", "--limit-target", "100"];
    let cases = [
        case("a field of 1 KiB", with_field_of(1_024), {
            let seen = format!("GET /~ HTTP/1.1\nHost: a\nX: {}\n\n", "y".repeat(1_024));
            Forwarded(seen.into_bytes())
        }),
        case("a field of 2 KiB", with_field_of(2_048), Refused(431)),
        case("10 fields", with_fields(10), {
            Forwarded(format!("GET /~ HTTP/1.1\nHost: a\n{}\n", "X: y\n".repeat(9)).into_bytes())
        }),
        case("11 fields", with_fields(11), Refused(431)),
        case("a target of 200 bytes", with_target_of(200), Refused(414)),
    ];
    run(&cases, &set);
}

#[test]
fn a_body_beyond_its_limit_is_413_and_whole_nowhere() {
    // RFC 9110 15.5.14.
    let upstream = Upstream::playing();
    let balancer = over(&[&upstream], &["--limit-body", "10"]);
    for (send, status) in [
        ("Content-Length: 10\r\n\r\n0123456789", 200),
        ("Content-Length: 11\r\n\r\n0123456789x", 413),
        ("Content-Length: 99999999999\r\n\r\n0123456789x", 413),
        ("Transfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n0\r\n\r\n", 200),
        ("Transfer-Encoding: chunked\r\n\r\nb\r\n0123456789x\r\n0\r\n\r\n", 413),
        ("Transfer-Encoding: chunked\r\n\r\n6\r\n012345\r\n6\r\n012345\r\n0\r\n\r\n", 413),
    ] {
        let before = upstream.seen().len();
        let request = format!("POST /x HTTP/1.1\r\nHost: a\r\n{send}");
        let mut client = Client::sending(&balancer, request.as_bytes());
        assert_eq!(client.must_answer(send).status, status, "{send}");
        let whole = upstream.seen()[before..].iter().filter(|seen| seen.whole).count();
        assert_eq!(whole, usize::from(status == 200), "{send}");
        assert!(status == 200 || client.is_over(), "{send}");
    }
}

/// Whether a new connection is served; a surplus one gets 503 or a close.
fn is_served(client: &mut Client) -> bool {
    client.send(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    match client.answer("GET") {
        Ok(answer) => {
            assert!(matches!(answer.status, 200 | 503), "{answer:?}");
            answer.status == 200
        }
        Err(broken) => {
            assert!(broken.part.head.raw.is_empty(), "{broken}");
            let waited = [std::io::ErrorKind::WouldBlock, std::io::ErrorKind::TimedOut];
            assert!(!waited.contains(&broken.why.kind()), "left without a word");
            false
        }
    }
}

#[test]
fn surplus_connections_are_turned_away_until_others_close() {
    for flag in ["--limit-connections", "--limit-connections-per-client"] {
        let upstream = Upstream::start(|exchange| {
            exchange.write(OK);
            Then::GoOn
        });
        // The admin routes have a listener of their own, so that only ours are counted.
        let arguments = [flag, "5", "--workers", "2", "--admin-listen", "127.0.0.1:0"];
        let balancer = over(&[&upstream], &arguments);
        let mut held: Vec<Client> = (0..5).map(|_| Client::of(&balancer)).collect();
        for client in &mut held {
            assert!(is_served(client), "{flag}: one of the first five");
        }
        for _ in 0..3 {
            assert!(!is_served(&mut Client::of(&balancer)), "{flag}: a sixth");
        }
        assert!(held.iter_mut().all(is_served), "{flag}: those that were there stay");
        held.pop();
        wait_for("the free place", || is_served(&mut Client::of(&balancer)).then_some(()));
        assert!(held.iter_mut().all(is_served), "{flag}: the rest stays");
    }
}

#[test]
fn a_response_with_too_many_fields_is_502_with_the_reason_and_ejects_nobody() {
    let upstream = Upstream::playing();
    let fields = |count: usize| {
        let fields: String = (0..count).map(|number| format!("X-{number}: 1\r\n")).collect();
        format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{fields}\r\nok").into_bytes()
    };
    let long =
        format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: {}\r\n\r\nok", "x".repeat(20_000));
    upstream.play("/fits", vec![fields(255)], Then::GoOn);
    upstream.play("/many", vec![fields(256)], Then::Close);
    upstream.play("/long", vec![long.into_bytes()], Then::Close);
    let balancer = over(&[&upstream], &["--limit-fields", "10", "--outliers-consecutive", "3"]);
    let ask = |target: &str| {
        let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        Client::sending(&balancer, request.as_bytes()).must_answer(target)
    };
    assert_eq!(ask("/fits").status, 200);
    for (target, reason) in [("/many", "too many fields"), ("/long", "too large")] {
        for _ in 0..10 {
            let answer = ask(target);
            assert!(answer.status == 502 && answer.is_failure(), "{target}: {answer:?}");
            let text = String::from_utf8(answer.body.data).unwrap();
            assert!(text.contains("beyond the limits") && text.contains(reason), "{text}");
        }
    }
    assert_eq!(ask("/fits").status, 200);
    assert_eq!(balancer.events("response is beyond the limits").len(), 1);
    assert!(balancer.events("replica is ejected").is_empty());

    let balancer = over(&[&upstream], &["--limit-response-fields", "255"]);
    let request = b"GET /fits HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(Client::sending(&balancer, request).must_answer("/fits").status, 502);
}
