//! Connections of clients: what ends them, pipelining, and messages that come in pieces.

use super::client::Client;
use super::over;
use super::upstream::{Then, Upstream};
use crate::support::Balancer;

/// Answers each request with its own target.
fn echo() -> Upstream {
    Upstream::start(|exchange| {
        if !exchange.read_body() {
            return Then::Close;
        }
        let body = [exchange.head.target().as_bytes(), b" ", &exchange.body()].concat();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        exchange.write(&[head.as_bytes(), &body].concat());
        Then::GoOn
    })
}

#[test]
fn a_connection_lasts_as_its_client_asks() {
    // RFC 9112 9.3.
    let upstream = Upstream::playing();
    let until_close = b"HTTP/1.1 200 OK\r\n\r\nok".to_vec();
    upstream.play("/unknown-length", vec![until_close], Then::Close);
    let balancer = over(&[&upstream], &[]);
    let mut failures = Vec::new();
    for (head, goes_on) in [
        ("GET /x HTTP/1.1\r\nHost: a\r\n", true),
        ("GET /x HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n", true),
        ("GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n", false),
        ("GET /x HTTP/1.1\r\nHost: a\r\nConnection: CLOSE\r\n", false),
        ("GET /x HTTP/1.1\r\nHost: a\r\nConnection: x\r\nConnection: close\r\n", false),
        ("GET /x HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, close\r\n", false),
        ("GET /x HTTP/1.1\r\nHost: a\r\nConnection: closed\r\n", true),
        ("GET /unknown-length HTTP/1.1\r\nHost: a\r\n", true),
        ("GET /x HTTP/1.0\r\nHost: a\r\n", false),
        ("GET /x HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n", true),
        ("GET /x HTTP/1.0\r\nHost: a\r\nConnection: Keep-Alive\r\n", true),
        ("GET /x HTTP/1.0\r\nHost: a\r\nConnection: keep-alive, close\r\n", false),
        ("GET /unknown-length HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n", false),
    ] {
        let mut client = Client::sending(&balancer, format!("{head}\r\n").as_bytes());
        let answer = match client.answer("GET") {
            Ok(answer) => answer,
            Err(broken) => {
                failures.push(format!("{head:?}: {broken}"));
                continue;
            }
        };
        let (closes, keeps) = (
            answer.head.lists("connection", "close"),
            answer.head.lists("connection", "keep-alive"),
        );
        let old = head.contains("HTTP/1.0");
        // What it says must be what it does; HTTP/1.0 takes silence for a close.
        let says = if goes_on { !closes && (keeps || !old) } else { !keeps && (closes || old) };
        let does = if goes_on {
            client.send(b"GET /y HTTP/1.1\r\nHost: a\r\n\r\n");
            client.answer("GET").is_ok_and(|answer| answer.status == 200)
        } else {
            client.is_over()
        };
        if !says || !does || answer.body.data != b"ok" {
            failures.push(format!("{head:?}: says {says}, does {does}: {}", answer.head.line));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn pipelined_requests_are_answered_in_order_whoever_answers() {
    // RFC 9112 9.3.2.
    let upstreams = [echo(), echo(), echo()];
    let balancer = over(&upstreams.each_ref(), &[]);
    let mut send = Vec::new();
    let mut expected = Vec::new();
    for number in 0..30 {
        let (framing, body) = match number % 3 {
            0 => ("", ""),
            1 => ("Content-Length: 5\r\n", "hello"),
            _ => ("Transfer-Encoding: chunked\r\n", "2\r\nhe\r\n3;x\r\nllo\r\n0\r\nT: 1\r\n\r\n"),
        };
        let head = format!("PUT /{number} HTTP/1.1\r\nHost: a\r\nX-Request-Id: {number}\r\n");
        send.extend(format!("{head}{framing}\r\n{body}").bytes());
        expected.push(format!("/{number} {}", if number % 3 == 0 { "" } else { "hello" }));
    }
    let mut client = Client::sending(&balancer, &send);
    for expected in expected {
        let answer = client.must_answer(&expected);
        assert_eq!(String::from_utf8_lossy(&answer.body.data), expected);
    }
    let served = upstreams.iter().filter(|upstream| !upstream.seen().is_empty()).count();
    assert!(served > 1, "all went to one replica");
}

#[test]
fn nothing_is_served_after_a_close_or_a_refusal() {
    let upstream = Upstream::playing();
    let balancer = over(&[&upstream], &[]);
    let evil = "GET /evil HTTP/1.1\r\nHost: a\r\n\r\n";
    for first in [
        "GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "GET /last HTTP/1.0\r\n\r\n",
        "GET /bad HTTP/1.1\r\n\r\n",
        "POST /bad HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n",
    ] {
        let mut client = Client::sending(&balancer, format!("{first}{evil}").as_bytes());
        client.must_answer(first);
        assert!(client.is_over(), "more came after {first:?}");
        assert!(upstream.seen_with("/evil").is_empty(), "forwarded after {first:?}");
    }
}

/// One of each framing in a row, and what the echo makes of them.
const REQUESTS: &[u8] = b"POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
    5;x\r\nhello\r\n0\r\nT: 1\r\n\r\nPUT /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\
    GET /3 HTTP/1.1\r\nHost: a\r\n\r\n";
const ECHOED: [&str; 3] = ["/1 hello", "/2 abc", "/3 "];

fn check_echo(client: &mut Client, what: &str) {
    for expected in ECHOED {
        let answer = client.must_answer(what);
        assert_eq!(String::from_utf8_lossy(&answer.body.data), expected, "{what}");
    }
}

/// Runs `each` for every number below `end`, some at once.
fn side_by_side(end: usize, each: impl Fn(usize) + Sync) {
    assert!(end > 0);
    std::thread::scope(|scope| {
        for lane in 0..8 {
            let each = &each;
            scope.spawn(move || (lane..end).step_by(8).for_each(each));
        }
    });
}

#[test]
fn a_request_may_come_in_two_pieces_cut_anywhere() {
    let upstream = echo();
    let balancer = over(&[&upstream], &[]);
    side_by_side(REQUESTS.len() - 1, |before| {
        let (first, second) = REQUESTS.split_at(before + 1);
        let mut client = Client::of(&balancer);
        client.wire.send_alone(first).unwrap();
        client.send(second);
        check_echo(&mut client, &format!("cut after {} bytes", first.len()));
    });
    assert_eq!(upstream.faults(), Vec::<String>::new());
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let upstream = echo();
    // Whether a byte was read is asked of the kernel, which takes its time among many sockets.
    let balancer = over(&[&upstream], &["--timeout-head", "5m"]);
    let mut client = Client::of(&balancer);
    for byte in REQUESTS {
        client.wire.send_alone(&[*byte]).unwrap();
    }
    check_echo(&mut client, "byte by byte");
}

#[test]
fn a_bad_request_is_refused_however_it_is_cut() {
    let bad =
        b"POST /bad HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n";
    let upstream = Upstream::playing();
    let balancer = over(&[&upstream], &[]);
    side_by_side(bad.len() - 1, |before| {
        let (first, second) = bad.split_at(before + 1);
        let mut client = Client::of(&balancer);
        client.wire.send_alone(first).unwrap();
        client.send(second);
        assert_eq!(client.must_answer("a bad request").status, 400, "cut at {before}");
        assert!(client.is_over(), "cut at {before}");
    });
    assert!(upstream.seen().is_empty());
}

/// What a GET of `/x` gets when the replica answers in these pieces.
fn told(balancer: &Balancer, upstream: &Upstream, target: &str, pieces: Vec<Vec<u8>>) -> Vec<u8> {
    upstream.play(target, pieces, Then::GoOn);
    let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
    Client::sending(balancer, request.as_bytes()).must_answer(target).text()
}

#[test]
fn an_answer_may_come_in_pieces_cut_anywhere() {
    let upstream = Upstream::playing();
    let balancer = over(&[&upstream], &[]);
    let interim = "HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n";
    for (number, (answer, text)) in [
        (format!("{interim}HTTP/1.1 201 Made\r\nX-A: 1\r\nContent-Length: 5\r\n\r\nhello"), {
            "201\nContent-Length: 5\nX-A: 1\n\nhello"
        }),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\nhe\r\n3\r\nllo\r\n0\r\nT: 1\r\n\r\n"
                .to_owned(),
            "200\nTransfer-Encoding: chunked\n\nhello",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let bytes = answer.as_bytes();
        side_by_side(bytes.len() - 1, |before| {
            let (first, second) = bytes.split_at(before + 1);
            let target = format!("/{number}/{before}");
            let told = told(&balancer, &upstream, &target, vec![first.to_vec(), second.to_vec()]);
            assert_eq!(String::from_utf8_lossy(&told), text, "cut after {}", first.len());
        });
        let single = bytes.iter().map(|byte| vec![*byte]).collect();
        let told = told(&balancer, &upstream, &format!("/{number}/single"), single);
        assert_eq!(String::from_utf8_lossy(&told), text, "byte by byte");
    }
}
