//! Limits on what is in flight, and the line before them.

use std::time::{Duration, Instant};

use super::{Held, Holding, QUICK, answered_by, call, hold};
use crate::conformance::client::Client;
use crate::conformance::over;
use crate::conformance::upstream::{Exchange, Then, Upstream};
use crate::support::{Balancer, request, wait_for};

/// What a metric says.
fn metric(balancer: &Balancer, name: &str) -> u64 {
    let answer = request(balancer.admin, "GET", "/metrics", &[], b"");
    let text = String::from_utf8(answer.body).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

fn wait_for_waiting(balancer: &Balancer, count: u64) {
    wait_for("requests in line", || {
        (metric(balancer, "balancer_admission_waiting") == count).then_some(())
    });
}

fn ask(balancer: &Balancer, path: &str, key: &str) -> Client {
    let head = format!("GET {path} HTTP/1.1\r\nHost: a\r\nX-Request-Id: {key}\r\n\r\n");
    Client::sending(balancer, head.as_bytes())
}

/// Holds as many requests at each of three servers; tells their clients and a key of the first.
fn fill(held: &Held, each: usize) -> ([Vec<Client>; 3], String) {
    let mut keys = held.keys();
    let clients = [0, 1, 2].map(|place| held.hold(&keys[place][0], each, place));
    (clients, keys[0].swap_remove(1))
}

#[test]
fn what_is_beyond_a_replicas_limit_goes_to_the_next_owner() {
    let held = Held::start(&["--admission-per-replica", "2"]);
    let (balancer, keys) = (&held.balancer, held.keys());
    let _clients = held.hold(&keys[0][0], 2, 0);
    let next = answered_by(balancer, &keys[0][1]);
    assert_ne!(next, "a");
    assert_eq!(answered_by(balancer, &keys[0][1]), next, "always the same");
    for (place, name) in [(1, "b"), (2, "c")] {
        assert_eq!(answered_by(balancer, &keys[place][0]), name, "no other key moves");
    }
    held.servers[0].let_go();
    wait_for("the owner", || (answered_by(balancer, &keys[0][1]) == "a").then_some(()));
}

#[test]
fn where_all_are_full_requests_wait_in_their_order() {
    let flags = ["--admission-per-replica=1", "--admission-wait=20s", "--workers=2"];
    let held = Held::start(&flags);
    let balancer = &held.balancer;
    let (mut clients, key) = fill(&held, 1);
    let mut waiting = Vec::new();
    for (number, count) in [("0", 1), ("1", 2), ("2", 3)] {
        waiting.push(ask(balancer, &format!("/hold?{number}"), &key));
        wait_for_waiting(balancer, count);
    }
    assert!(held.servers.iter().all(|server| server.holds() == 1));
    // Who comes now waits, too, though it may be another's key.
    held.servers[1].let_go();
    assert_eq!(clients[1][0].must_answer("held").status, 200);
    // What it lets go is answered at once from now on: all of them get in, one after another.
    for client in &mut waiting {
        assert_eq!(client.must_answer("waited").body.data, b"b");
    }
    let seen = held.servers[1].upstream.seen_with("/hold?");
    let order: Vec<String> = seen.iter().map(|seen| seen.head.target().to_owned()).collect();
    assert_eq!(order, ["/hold?0", "/hold?1", "/hold?2"]);
    assert_eq!(metric(balancer, "balancer_admission_waiting"), 0);
}

#[test]
fn the_line_is_bounded_and_so_is_the_wait() {
    let flags = ["--admission-per-replica=1", "--admission-queue=1", "--admission-wait=300ms"];
    let held = Held::start(&flags);
    let balancer = &held.balancer;
    let (_clients, key) = fill(&held, 1);
    let began = Instant::now();
    let mut waits = ask(balancer, "/x", &key);
    wait_for_waiting(balancer, 1);
    let told = request(balancer.address, "GET", "/x", &[("X-Request-Id", &key)], b"");
    assert_eq!((told.status, told.headers["retry-after"].as_str()), (503, "1"));
    assert_eq!(told.message(), "<Error> too many requests are under way");
    let late = waits.must_answer("late");
    assert_eq!(late.status, 503);
    assert!(began.elapsed() >= Duration::from_millis(300));
    let refused = |reason| {
        metric(balancer, &format!("balancer_admission_refused_total{{reason=\"{reason}\"}}"))
    };
    assert_eq!((refused("queue-full"), refused("waited")), (1, 1));
    // The connection goes on.
    held.servers[0].let_go();
    waits.send(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(waits.must_answer("next").status, 200);
}

#[test]
fn the_limit_in_all_counts_all_replicas() {
    let held = Held::start(&["--admission-in-flight=2", "--admission-wait=20s"]);
    let (balancer, keys) = (&held.balancer, held.keys());
    let _clients = held.hold(&keys[0][0], 2, 0);
    let mut waits = ask(balancer, "/x", &keys[1][0]);
    wait_for_waiting(balancer, 1);
    held.servers[0].let_go();
    assert_eq!(waits.must_answer("waited").body.data, b"b");
}

#[test]
fn who_comes_to_the_table_is_room_for_those_who_wait() {
    let held = Held::start(&["--admission-per-replica=1", "--admission-wait=20s"]);
    let balancer = &held.balancer;
    let keys = held.keys();
    let name = held.names()[2].clone();
    call(balancer, "POST", &format!("node/{name}/disable"));
    let _clients = [0, 1].map(|place| held.hold(&keys[place][0], 1, place));
    let mut waits = ask(balancer, "/x", &keys[0][0]);
    wait_for_waiting(balancer, 1);
    call(balancer, "POST", &format!("node/{name}/enable"));
    assert_eq!(waits.must_answer("waited").body.data, b"c");
}

#[test]
fn higher_limits_let_in_those_who_wait() {
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    let limit = |limit: usize| {
        let text = format!("[admission]\nper_replica = {limit}\nwait = \"20s\"\n");
        std::fs::write(file.path(), text).unwrap();
    };
    limit(1);
    let held = Held::start(&["--config", file.path().to_str().unwrap()]);
    let (_clients, key) = fill(&held, 1);
    let mut waits = ask(&held.balancer, "/x", &key);
    wait_for_waiting(&held.balancer, 1);
    limit(2);
    held.balancer.signal(rustix::process::Signal::HUP);
    assert_eq!(waits.must_answer("waited").body.data, b"a");
}

#[test]
fn a_client_that_gives_up_makes_room_in_the_line() {
    let flags = ["--admission-per-replica=1", "--admission-queue=1", "--admission-wait=20s"];
    let held = Held::start(&flags);
    let (_clients, key) = fill(&held, 1);
    drop({
        let waits = ask(&held.balancer, "/x", &key);
        wait_for_waiting(&held.balancer, 1);
        waits
    });
    wait_for_waiting(&held.balancer, 0);
    let mut waits = ask(&held.balancer, "/x", &key);
    wait_for_waiting(&held.balancer, 1);
    held.servers[0].let_go();
    assert_eq!(waits.must_answer("waited").status, 200);
}

#[test]
fn a_request_that_goes_to_all_waits_only_for_the_limit_in_all() {
    let servers = ["a", "b"].map(Holding::start);
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    let text = "[admission]\nin_flight = 2\nper_replica = 1\nwait = \"20s\"\n\
                [[route]]\nmethods = [\"POST\"]\nsend = \"all\"\n";
    std::fs::write(file.path(), text).unwrap();
    let config = ["--config", file.path().to_str().unwrap()];
    let upstreams = servers.each_ref().map(|server| &server.upstream);
    let balancer = over(&upstreams, &[&QUICK[..], &config].concat());
    // One is full, and gets it all the same.
    let mut held = hold(&balancer, "1", 1);
    wait_for("it", || (servers[0].holds() + servers[1].holds() == 1).then_some(()));
    let post = b"POST /all HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
    let mut client = Client::sending(&balancer, post);
    assert_eq!(client.must_answer("to all").status, 200);
    // Both are full: it waits.
    held.extend(hold(&balancer, "1", 1));
    wait_for("both", || (servers[0].holds() + servers[1].holds() == 2).then_some(()));
    client.send(post);
    wait_for_waiting(&balancer, 1);
    servers.iter().for_each(Holding::let_go);
    assert_eq!(client.must_answer("waited").status, 200);
}

#[test]
fn a_limit_follows_latency() {
    // Each answer takes twice the target.
    let slow = Upstream::start(|exchange: &mut Exchange<'_>| {
        if !exchange.read_body() {
            return Then::Close;
        }
        #[expect(clippy::disallowed_methods, reason = "it is a slow server")]
        std::thread::sleep(Duration::from_millis(10));
        exchange.write(crate::conformance::upstream::OK);
        Then::GoOn
    });
    let quick = Holding::start("quick");
    let flags = [&QUICK[..], &["--admission-target-latency=5ms"]].concat();
    let balancer = over(&[&slow, &quick.upstream], &flags);
    let limit = format!("balancer_replica_limit{{replica=\"{}\"}}", slow.address);
    let key = (0..).map(|id: u32| id.to_string()).find(|key| {
        let before = slow.seen().len();
        request(balancer.address, "GET", "/x", &[("X-Request-Id", key)], b"");
        slow.seen().len() > before
    });
    let key = key.unwrap();
    wait_for("the least limit", || {
        request(balancer.address, "GET", "/x", &[("X-Request-Id", &key)], b"");
        (metric(&balancer, &limit) == 1).then_some(())
    });
    // One at a time from now on: of several at once the others go elsewhere.
    let mut clients: Vec<Client> = (0..8).map(|_| ask(&balancer, "/at-once", &key)).collect();
    for client in &mut clients {
        assert_eq!(client.must_answer("at once").status, 200);
    }
    assert!(!quick.upstream.seen_with("/at-once").is_empty());
}
