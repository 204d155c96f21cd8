//! `send = "all"`: every replica, until each has succeeded.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{
    QUICK, Server, always, ask, ask_once, failures, name_of, named, owner, routed, routed_with,
    say, saying, text, three, written,
};
use crate::conformance::client::Client;
use crate::conformance::over;
use crate::conformance::upstream::{Then, Upstream};
use crate::support::{Balancer, request, wait_for};
use crate::tls::http2::{self, by_http2};
use crate::tls::{Files, tls_port};

/// A route with little patience between attempts.
pub(super) const ALL: &str = "[[route]]\nname = \"all\"\npaths = [\"/all\"]\nsend = \"all\"\n\
    backoff = { base = \"1ms\", max = \"10ms\", jitter = \"0s\" }\n";

/// A server that answers 500 to so many requests, and 201 to all others; when each came.
pub(super) fn failing(times: usize) -> (Upstream, Arc<Mutex<Vec<Instant>>>) {
    let came = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&came);
    let upstream = Upstream::start(move |exchange| {
        let asked = {
            let mut noted = noted.lock().unwrap();
            noted.push(Instant::now());
            noted.len()
        };
        say(exchange, &saying(if asked > times { 201 } else { 500 }, ""))
    });
    (upstream, came)
}

#[test]
fn each_is_asked_until_it_succeeds_and_with_the_pauses_that_are_set() {
    let (flaky, came) = failing(4);
    let (once, never) = (failing(1).0, failing(0).0);
    let text = "[[route]]\npaths = [\"/all\"]\nsend = \"all\"\nsuccess = [201]\n\
                backoff = { base = \"50ms\", max = \"150ms\", jitter = \"0s\" }\n";
    let routed = routed(&[&flaky, &once, &never], text);
    assert_eq!(ask_once(&routed.balancer, "POST /all", "").status, 201);
    let counts = [&flaky, &once, &never].map(|upstream| upstream.seen().len());
    assert_eq!(counts, [5, 2, 1]);
    let came = came.lock().unwrap();
    let pauses: Vec<Duration> = came.windows(2).map(|two| two[1] - two[0]).collect();
    // The clocks are read on both sides of a socket.
    let least = [50, 100, 150, 150].map(|ms| Duration::from_millis(ms - 1));
    assert!(pauses.iter().zip(least).all(|(pause, least)| *pause >= least), "{pauses:?}");
}

#[test]
fn one_that_answers_500_again_and_again_is_not_ejected_and_misses_nothing() {
    let (flaky, came) = failing(12);
    let steady = named("a");
    let routed = routed(&[&flaky, &steady], &format!("{ALL}attempts = 100"));
    for _ in 0..3 {
        assert!((200..300).contains(&ask_once(&routed.balancer, "POST /all", "").status));
    }
    assert_eq!((came.lock().unwrap().len(), steady.seen().len()), (15, 3));
    assert!(routed.balancer.events("replica is ejected").is_empty());
}

#[test]
fn the_answer_is_that_of_the_keys_first_owner() {
    let upstreams = ["a", "b", "c"].map(|name| {
        let answer = format!(
            "HTTP/1.1 203 From {name}\r\nX-Name: {name}\r\nX-Hop: 1\r\nConnection: X-Hop\r\n\
             Transfer-Encoding: chunked\r\n\r\n5\r\nI am \r\n1\r\n{name}\r\n0\r\n\r\n"
        );
        Upstream::start(move |exchange| say(exchange, answer.as_bytes()))
    });
    let upstreams: Vec<&Upstream> = upstreams.iter().collect();
    let routed = routed(&upstreams, ALL);
    let mut owners = [0; 3];
    let mut client = Client::of(&routed.balancer);
    for id in 0..20 {
        let fields = format!("X-Request-Id: {id}\r\n");
        let answer = ask(&mut client, "GET /name", &fields);
        let owner = answer.head.only("X-Name").unwrap();
        let all = ask(&mut client, "POST /all", &fields);
        assert_eq!((all.status, all.head.only("X-Name")), (203, Some(owner.clone())));
        assert_eq!(text(&all), format!("I am {owner}"));
        assert!(all.head.all("X-Hop").is_empty() && all.head.line.ends_with(&owner), "{all:?}");
        owners["abc".find(&owner).unwrap()] += 1;
    }
    assert!(owners.iter().all(|count| *count > 0), "{owners:?}");
}

#[test]
fn where_one_keeps_failing_the_client_gets_the_list() {
    let ([a, b, _], bad) = (three(), always(500));
    let routed = routed(&[&a, &bad, &b], &format!("{ALL}attempts = 3"));
    let mut client = Client::of(&routed.balancer);
    let answer = ask(&mut client, "POST /all", "");
    assert_eq!(answer.status, 502);
    assert_eq!(answer.head.only("Content-Type").as_deref(), Some("application/json"));
    let list = failures(&[(&name_of(&bad), 3, "answered 500")]);
    assert_eq!(text(&answer), list);
    assert_eq!([&a, &bad, &b].map(|upstream| upstream.seen().len()), [1, 3, 1]);
    // The connection goes on.
    assert_eq!(ask(&mut client, "GET /rep", "").status, 200);
    let answer = ask(&mut client, "HEAD /all", "");
    assert_eq!((answer.status, answer.body.data.len()), (502, 0));
    assert_eq!(answer.head.only("Content-Length"), Some(list.len().to_string()));
}

#[test]
fn those_that_fail_are_listed_with_what_was_wrong_the_owners_first() {
    let large = Upstream::start(|exchange| say(exchange, &saying(200, &"x".repeat(1_025))));
    let cut = Upstream::start(|exchange| {
        say(exchange, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut");
        Then::Close
    });
    let upstreams = [&large, &cut, &always(404), &named("a")];
    let routed = routed(&upstreams, &format!("{ALL}attempts = 2\nbody = \"1KiB\""));
    let answer = ask_once(&routed.balancer, "POST /all", "X-Request-Id: 1\r\n");
    assert_eq!(answer.status, 502);
    let list: serde_json::Value = serde_json::from_slice(&answer.body.data).unwrap();
    let list = list["message"].as_array().unwrap();
    assert_eq!(list.len(), 3);
    for (upstream, error) in [
        (&large, "its answer is larger than 1024 bytes"),
        (&cut, "its answer was cut short"),
        (upstreams[2], "answered 404"),
    ] {
        let name = name_of(upstream);
        let expected = serde_json::json!({ "replica": name, "attempts": 2, "error": error });
        assert!(list.contains(&expected), "{expected} in {list:?}");
        assert_eq!(upstream.seen().len(), 2, "{error}");
    }
    // An answer at the limit is not too large.
    let exact = Upstream::start(|exchange| say(exchange, &saying(200, &"x".repeat(1_024))));
    let routed = self::routed(&[&exact], &format!("{ALL}body = \"1KiB\""));
    assert_eq!(ask_once(&routed.balancer, "POST /all", "").body.data.len(), 1_024);
}

#[test]
fn reading_methods_are_sent_to_all_too() {
    let upstreams = ["a", "b"].map(|name| {
        let (get, head) = (saying(200, name), b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n");
        Upstream::start(move |exchange| {
            let is_head = exchange.head.line.starts_with("HEAD ");
            say(exchange, if is_head { head } else { &get })
        })
    });
    let [a, b] = &upstreams;
    let routed = routed_with(&[a, b], ALL, &["--workers", "1"]);
    let owner = owner(&routed.balancer, &[a, b], "1");
    let mut client = Client::of(&routed.balancer);
    let get = ask(&mut client, "GET /all?q", "X-Request-Id: 1\r\n");
    assert_eq!((get.status, text(&get).as_str()), (200, ["a", "b"][owner]));
    let head = ask(&mut client, "HEAD /all", "");
    assert_eq!((head.status, head.head.only("Content-Length").as_deref()), (200, Some("7")));
    assert_eq!(ask(&mut client, "OPTIONS /all", "").status, 200);
    for upstream in &upstreams {
        let lines: Vec<String> = upstream.seen().into_iter().map(|seen| seen.head.line).collect();
        let lines: Vec<&str> =
            lines.iter().map(String::as_str).filter(|line| line.contains("all")).collect();
        assert_eq!(lines, ["GET /all?q HTTP/1.1", "HEAD /all HTTP/1.1", "OPTIONS /all HTTP/1.1"]);
    }
}

#[test]
fn connections_are_kept_on_both_sides_and_pipelined_requests_are_answered_in_order() {
    let upstreams = three();
    let [a, b, c] = &upstreams;
    let routed = routed_with(&[a, b, c], ALL, &["--workers", "1"]);
    let mut client = Client::of(&routed.balancer);
    client.send(
        b"POST /all HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi\
          GET /rep HTTP/1.1\r\nHost: localhost\r\n\r\n\
          POST /all HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nho\r\n0\r\n\r\n\
          HEAD /all HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    );
    let first = client.must_answer("the first");
    assert!(first.status == 200 && first.body.data.len() == 1, "{first:?}");
    assert!(text(&client.must_answer("/rep")).contains("\"N\":3"));
    assert_eq!(client.must_answer("the second").status, 200);
    assert_eq!(client.answer("HEAD").unwrap().status, 200);
    assert!(client.is_over());
    for upstream in &upstreams {
        let bodies: Vec<_> = upstream.seen().into_iter().map(|seen| seen.body.data).collect();
        assert_eq!(bodies, [&b"hi"[..], b"ho", b""]);
        assert_eq!(upstream.connections(), 1);
    }
}

#[test]
fn a_replica_that_closes_its_idle_connections_gets_each_request_once() {
    let closing = Upstream::start(|exchange| {
        say(exchange, &saying(201, ""));
        Then::Close
    });
    let until_close = Upstream::start(|exchange| {
        say(exchange, b"HTTP/1.1 201 Made\r\n\r\nto the end");
        Then::Close
    });
    let routed = routed_with(&[&closing, &until_close], ALL, &["--workers", "1"]);
    let mut client = Client::of(&routed.balancer);
    for asked in 1..=10 {
        assert_eq!(ask(&mut client, "POST /all", "").status, 201);
        for upstream in [&closing, &until_close] {
            assert_eq!(upstream.seen().len(), asked);
            assert!(upstream.sees_end_of(asked));
        }
    }
}

#[test]
fn a_listed_server_that_is_down_for_a_moment_gets_its_request_when_it_is_back() {
    let mut servers = ["1", "2"].map(|id| Server::start(id, &[]));
    let list = servers.each_ref().map(|server| server.address.to_string()).join(",");
    let file = written(
        "[[route]]\npaths = [\"/register\"]\nsend = \"all\"\nattempts = 10000\n\
         backoff = { base = \"20ms\", max = \"20ms\" }",
    );
    // Slow to see that it is down: it is asked all the same.
    let flags = ["--servers", &list, "--config", file.path().to_str().unwrap()];
    let balancer = Balancer::start(&[&flags[..], &["--health-interval", "2s"]].concat());
    balancer.wait_for_replicas(2);
    let address = servers[1].address;
    servers[1].kill();
    let mut client = Client::sending(&balancer, b"POST /register HTTP/1.1\r\nHost: a\r\n\r\n");
    // Long enough that it is seen to be down, too.
    wait_for("the server to be out", || {
        let answer = request(balancer.admin, "GET", "/admin/fleet", &[], b"");
        let fleet = answer.json()["message"]["replicas"].clone();
        fleet.as_array()?.iter().any(|replica| replica["state"] != "ready").then_some(())
    });
    servers[1] = Server::start_at(address, "2", &[]);
    assert_eq!(client.must_answer("when both are there").status, 201);
}

#[test]
fn http_2_clients_send_to_all_too() {
    let (upstreams, files) = (three(), Files::new());
    let [a, b, c] = &upstreams;
    let (file, flags) = (written(ALL), files.flags());
    let config = ["--config", file.path().to_str().unwrap(), "--tls-listen", "127.0.0.1:0"];
    let flags = [&flags.each_ref().map(String::as_str)[..], &config, &QUICK].concat();
    let balancer = over(&[a, b, c], &flags);
    let port = tls_port(&balancer);
    by_http2(async || {
        let client = http2::Client::connect(&files, port).await;
        let body = [Bytes::from_static(b"first "), Bytes::from_static(b"second")];
        for body in [&body[..], &[]] {
            let request = http2::ask("POST", "/all").body(()).unwrap();
            let whole = client.send(request, body).await.unwrap();
            assert_eq!((whole.head.status().as_u16(), whole.body.len()), (200, 1));
        }
        let large = [Bytes::from(vec![0; (1 << 20) + 1])];
        let request = http2::ask("POST", "/all").body(()).unwrap();
        // It may be told before it has sent all, or be cut off.
        let status = client.send(request, &large).await.map(|whole| whole.head.status().as_u16());
        assert!(!matches!(status, Ok(status) if status != 413), "{status:?}");
        let get = client.get("/x").await.unwrap();
        assert_eq!(get.head.status().as_u16(), 200);
    });
    for upstream in &upstreams {
        let seen = upstream.seen_with("/all");
        let bodies: Vec<_> = seen.into_iter().map(|seen| seen.body.data).collect();
        assert_eq!(bodies, [&b"first second"[..], b""]);
    }
}

#[test]
fn where_nobody_is_ready_that_is_said() {
    for send in ["\"all\"\namong = \"ready\"", "\"first\""] {
        let file = written(&format!("[[route]]\nsend = {send}"));
        let config = ["--config", file.path().to_str().unwrap(), "--servers", "127.0.0.1:1"];
        let balancer = Balancer::start(&[&QUICK[..], &config].concat());
        let answer = ask_once(&balancer, "POST /x", "");
        assert_eq!(answer.status, 503, "{send}");
        assert!(answer.is_failure() && answer.head.only("Retry-After").is_some(), "{answer:?}");
    }
}

#[test]
fn requests_side_by_side_reach_each_replica_once() {
    let counts = [(); 3].map(|()| Arc::new(AtomicUsize::new(0)));
    let upstreams = counts.each_ref().map(|count| {
        let count = Arc::clone(count);
        Upstream::start(move |exchange| {
            count.fetch_add(1, Ordering::SeqCst);
            say(exchange, &saying(201, ""))
        })
    });
    let [a, b, c] = &upstreams;
    let routed = routed(&[a, b, c], ALL);
    let address = routed.balancer.address;
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..20 {
                    let body = b"some bytes";
                    assert_eq!(request(address, "POST", "/all", &[], body).status, 201);
                }
            });
        }
    });
    assert_eq!(counts.map(|count| count.load(Ordering::SeqCst)), [160; 3]);
}
