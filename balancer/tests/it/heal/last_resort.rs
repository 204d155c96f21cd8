//! Replicas that are ejected or fail their health checks and work: asked before a client gets 502
//! or 503.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use tempfile::NamedTempFile;

use super::listed::over as over_listed;
use super::{events, fleet, in_state};
use crate::conformance::over;
use crate::conformance::upstream::{Then, Upstream};
use crate::support::{Balancer, request, wait_for};
use crate::tls::http2::{Client, ask, by_http2};
use crate::tls::{Files, tls_port};

/// An ejection lasts, and those that look bad are never believed to be good.
const ARGUMENTS: [&str; 8] = [
    "--health-interval",
    "1h",
    "--health-panic",
    "100%",
    "--outliers-base",
    "1h",
    "--outliers-max",
    "1h",
];

/// A server that is ejected and works, and one that is ready and refuses connections.
struct Pair {
    works: Upstream,
    balancer: Balancer,
    _file: NamedTempFile,
}

fn pair(text: &str, more: &[&str]) -> Pair {
    let status = Arc::new(AtomicU16::new(500));
    let said = Arc::clone(&status);
    let works = Upstream::start(move |exchange| {
        if !exchange.read_body() {
            return Then::Close;
        }
        let status = said.load(Ordering::SeqCst);
        exchange.write(format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n").as_bytes());
        Then::GoOn
    });
    let gone = Balancer::with_replicas(1, &[]);
    let file = NamedTempFile::with_suffix(".toml").unwrap();
    std::fs::write(file.path(), text).unwrap();
    let list = format!("{},{}", works.address, gone.address);
    let servers = ["--servers", &list, "--config", file.path().to_str().unwrap()];
    let balancer = Balancer::start(&[&servers[..], &ARGUMENTS, more].concat());
    balancer.wait_for_replicas(2);
    wait_for("its ejection", || {
        for id in 0..20 {
            let id = id.to_string();
            request(balancer.address, "GET", "/", &[("X-Request-Id", &id)], b"");
        }
        events(&balancer, "ejected").pop()
    });
    wait_for("its absence", || (in_state(&fleet(&balancer), "ready") == 1).then_some(()));
    status.store(201, Ordering::SeqCst);
    drop(gone);
    Pair { works, balancer, _file: file }
}

/// How often a last resort was counted.
fn counted(balancer: &Balancer) -> u64 {
    let metrics = String::from_utf8(request(balancer.admin, "GET", "/metrics", &[], b"").body);
    let metrics = metrics.unwrap();
    let counts = metrics.lines().filter_map(|line| {
        line.strip_prefix("balancer_last_resort_total{")?.rsplit_once(' ')?.1.parse::<u64>().ok()
    });
    counts.sum()
}

#[test]
fn an_ejected_server_that_works_answers_where_the_ready_one_refuses() {
    let every = "[[route]]\npaths = [\"/sent/*\"]\n";
    let hedged = format!("{every}hedge = {{ after = \"20s\", budget = \"100%\" }}");
    let first = format!("{every}send = \"first\"\nattempts = 1");
    for text in ["", &hedged, &first] {
        let pair = pair(text, &[]);
        assert_eq!(counted(&pair.balancer), 0);
        // Many more than the retry budget allows.
        for id in 0..200 {
            let id = id.to_string();
            let method = ["POST", "GET", "PATCH"][id.len() % 3];
            let fields = [("X-Request-Id", id.as_str())];
            let path = format!("/sent/{id}");
            let answer = request(pair.balancer.address, method, &path, &fields, b"");
            assert_eq!(answer.status, 201, "{method} {id} {text}: {answer:?}");
            assert_eq!(pair.works.seen_with(&format!("{method} {path} ")).len(), 1, "{text}");
        }
        // The one that refuses is a last resort, too, once it is ejected.
        assert!(counted(&pair.balancer) >= 200, "{text}");
    }
}

#[test]
fn requests_of_http_2_clients_have_the_same_last_resort() {
    let files = Files::new();
    let flags = files.flags();
    let mut more: Vec<&str> = flags.iter().map(String::as_str).collect();
    more.extend(["--tls-listen", "127.0.0.1:0"]);
    let pair = pair("", &more);
    let port = tls_port(&pair.balancer);
    by_http2(async || {
        let client = Client::connect(&files, port).await;
        for _ in 0..20 {
            let request = ask("POST", "/x").body(()).unwrap();
            assert_eq!(client.send(request, &[]).await.unwrap().head.status(), 201);
        }
    });
    assert!(counted(&pair.balancer) >= 20);
}

#[test]
fn a_post_that_may_have_been_done_is_not_sent_to_a_last_resort() {
    let (status, said) = (Arc::new(AtomicU16::new(500)), Arc::new(AtomicU16::new(0)));
    let (one, other) = (Arc::clone(&status), Arc::clone(&said));
    let ejected = Upstream::start(move |exchange| {
        exchange.read_body();
        let status = one.load(Ordering::SeqCst);
        exchange.write(format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n").as_bytes());
        Then::GoOn
    });
    let closes = Upstream::start(move |exchange| {
        exchange.read_body();
        if other.load(Ordering::SeqCst) == 0 { exchange.play() } else { Then::Close }
    });
    let balancer = over(&[&ejected, &closes], &ARGUMENTS);
    wait_for("its ejection", || {
        (0..20).for_each(|id| drop(request(balancer.address, "GET", &format!("/{id}"), &[], b"")));
        events(&balancer, "ejected").pop()
    });
    wait_for("its absence", || (in_state(&fleet(&balancer), "ready") == 1).then_some(()));
    status.store(200, Ordering::SeqCst);
    said.store(1, Ordering::SeqCst);
    for id in 0..5 {
        let path = format!("/once/{id}");
        assert_eq!(request(balancer.address, "POST", &path, &[], b"x").status, 502);
        let marker = format!("POST {path} ");
        assert_eq!(ejected.seen_with(&marker).len(), 0);
        assert_eq!(closes.seen_with(&marker).len(), 1);
    }
    // What may be done twice is.
    assert_eq!(request(balancer.address, "GET", "/twice", &[], b"").status, 200);
    assert_eq!(ejected.seen_with("GET /twice ").len(), 1);
}

#[test]
fn servers_that_fail_their_health_checks_answer_where_none_is_ready() {
    let arguments = ["--health-interval", "50ms", "--health-panic", "100%"];
    let (servers, balancer) = over_listed(3, &arguments);
    servers[0].close();
    servers.iter().skip(1).for_each(|server| server.health(500));
    wait_for("all to fail", || (in_state(&fleet(&balancer), "ejected") == 3).then_some(()));
    assert_eq!(fleet(&balancer)["panic"], false);
    for id in 0..40 {
        let id = id.to_string();
        let fields = [("X-Request-Id", id.as_str())];
        let answer = request(balancer.address, "POST", "/x", &fields, b"");
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let asked: Vec<usize> = servers.iter().map(super::listed::Listed::asked).collect();
    assert!(asked[1] > 0 && asked[2] > 0, "in the order of the ring: {asked:?}");
    assert!(counted(&balancer) >= 40);
    // Where none is left the client is told at once.
    servers.iter().skip(1).for_each(super::listed::Listed::close);
    let answer = request(balancer.address, "POST", "/x", &[], b"");
    assert_eq!((answer.status, &answer.message()[..]), (503, "<Error> no replica is ready"));
}
