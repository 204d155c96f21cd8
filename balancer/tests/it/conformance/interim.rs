//! Interim answers and `Expect` (RFC 9110 10.1.1, 15.2).

use super::client::Client;
use super::over;
use super::table::Told::{Shown, ShownOnce};
use super::table::{answered, run_answers};
use super::upstream::{OK, Then, Upstream};

#[test]
fn unasked_interim_answers_are_skipped() {
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let shown = || Shown(b"200\nContent-Length: 2\n\nok".to_vec());
    let with = |name: &str, interim: &str| answered(name, format!("{interim}{ok}"), shown());
    let cases = [
        with("100", "HTTP/1.1 100 Continue\r\n\r\n"),
        with("102", "HTTP/1.1 102 Processing\r\n\r\n"),
        with("103", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
        with("199", "HTTP/1.1 199 Odd\r\n\r\n"),
        with("100 twice", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"),
        with("102, 103 and 100", {
            "HTTP/1.1 102 P\r\n\r\nHTTP/1.1 103 E\r\nX: y\r\n\r\nHTTP/1.1 100 C\r\n\r\n"
        }),
        // An interim answer ends with its head whatever it says (RFC 9112 6.3 (1)).
        with("103 with a length", "HTTP/1.1 103 E\r\nContent-Length: 2\r\n\r\n"),
        answered("100 after the answer", format!("{ok}HTTP/1.1 100 Continue\r\n\r\n"), {
            ShownOnce(b"200\nContent-Length: 2\n\nok".to_vec())
        }),
    ];
    run_answers(&cases, &[]);
}

const ASK: &[u8] =
    b"POST /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";

#[test]
fn the_go_ahead_comes_from_the_replica_and_once() {
    let upstream = Upstream::start(|exchange| {
        if exchange.head.lists("expect", "100-continue") {
            exchange.write(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        exchange.play()
    });
    let balancer = over(&[&upstream], &[]);
    let mut client = Client::sending(&balancer, ASK);
    let interim = client.wire.head().unwrap().expect("a go-ahead");
    assert!(interim.line.starts_with("HTTP/1.1 100 "), "{interim:?}");
    client.send(b"hello");
    let answer = client.must_answer("the final one");
    assert_eq!((answer.status, answer.interim.as_slice()), (200, &[][..]));
    let seen = upstream.seen();
    assert_eq!((seen.len(), seen[0].body.data.as_slice()), (1, &b"hello"[..]));
    assert!(seen[0].head.lists("expect", "100-continue"), "{:?}", seen[0].head);
}

#[test]
fn a_refused_upload_leaves_both_sides_in_step() {
    for status in ["417 Expectation Failed", "401 Unauthorized", "413 Too Large"] {
        let upstream = Upstream::start(move |exchange| {
            if exchange.head.target() != "/x" {
                return exchange.play();
            }
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nno");
            exchange.write(answer.as_bytes());
            // Its next bytes would be the body, if they came.
            let mut more = Vec::new();
            let _ended = exchange.wire.rest(&mut more);
            assert!(more.is_empty() || more == b"hello", "{more:?}");
            Then::Close
        });
        let balancer = over(&[&upstream], &[]);
        let mut client = Client::sending(&balancer, ASK);
        let answer = client.must_answer(status);
        assert_eq!(answer.status.to_string(), status[..3]);
        assert_eq!((answer.interim.as_slice(), answer.body.data.as_slice()), (&[][..], &b"no"[..]));
        let refused = upstream.seen()[0].connection;
        assert!(upstream.sees_end_of(refused), "{status}: the connection is in an unknown state");
        let mut next = Client::sending(&balancer, b"GET /y HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(next.must_answer("the next request").status, 200);
    }
}

#[test]
fn a_client_that_does_not_wait_for_the_go_ahead_is_served() {
    let upstream = Upstream::start(|exchange| {
        assert!(exchange.read_body());
        exchange.write(&[b"HTTP/1.1 100 Continue\r\n\r\n", OK].concat());
        Then::GoOn
    });
    let balancer = over(&[&upstream], &[]);
    let mut client = Client::sending(&balancer, &[ASK, b"hello"].concat());
    let answer = client.must_answer("an eager client");
    assert_eq!(answer.status, 200);
    assert!(answer.interim.len() < 2, "{:?}", answer.interim);
    assert_eq!(upstream.seen()[0].body.data, b"hello");
}
