//! How one replica is chosen.

use std::collections::{BTreeMap, BTreeSet};

use super::{QUICK, Server, ask, ask_once, named, routed, routed_with, say, saying, text, three};
use crate::conformance::client::Client;
use crate::conformance::upstream::Upstream;
use crate::support::{Balancer, request, wait_for};

/// Who answers each of so many requests, made one after another over several connections, which
/// the balancer's threads share.
fn in_turn(balancer: &Balancer, requests: usize) -> Vec<String> {
    let mut clients: Vec<Client> = (0..8).map(|_| Client::of(balancer)).collect();
    let turns = (0..requests).map(|turn| {
        let answer = ask(&mut clients[turn % 8], "GET /x", "");
        assert_eq!(answer.status, 200);
        text(&answer)
    });
    turns.collect()
}

fn counted(names: &[String]) -> BTreeMap<&str, usize> {
    let mut counted = BTreeMap::new();
    for name in names {
        *counted.entry(name.as_str()).or_default() += 1;
    }
    counted
}

#[test]
fn round_robin_takes_exact_turns_over_all_threads() {
    let [a, b, c] = three();
    let routed = routed(&[&a, &b, &c], "policy = \"round-robin\"");
    let names = in_turn(&routed.balancer, 48);
    assert_eq!(names[..3].iter().collect::<BTreeSet<_>>().len(), 3, "{names:?}");
    for turn in 3..names.len() {
        assert_eq!(names[turn], names[turn - 3], "{turn} of {names:?}");
    }
}

#[test]
fn round_robin_gives_each_as_many_turns_as_it_weighs() {
    let (light, heavy) = (named("light"), named("heavy"));
    let servers = format!("{},{} weight=3", light.address, heavy.address);
    let flags = ["--servers", &servers, "--policy", "round-robin"];
    let balancer = Balancer::start(&[&QUICK[..], &flags].concat());
    balancer.wait_for_replicas(2);
    let names = in_turn(&balancer, 40);
    assert_eq!(counted(&names), BTreeMap::from([("light", 10), ("heavy", 30)]));
    for round in names.chunks(4) {
        assert_eq!(counted(round)["light"], 1, "{names:?}");
    }
}

#[test]
fn a_stopped_server_is_left_out_and_comes_back_into_its_turns() {
    let mut servers = ["1", "2", "3"].map(|id| Server::start(id, &[]));
    let list = servers.each_ref().map(|server| server.address.to_string()).join(",");
    let flags = ["--servers", &list, "--policy", "round-robin"];
    let balancer = Balancer::start(&[&QUICK[..], &flags].concat());
    balancer.wait_for_replicas(3);
    let ask = || {
        let answer = request(balancer.address, "GET", "/home", &[], b"");
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.message().pop().unwrap()
    };
    let round = |count: usize| (0..count).map(|_| ask()).collect::<BTreeSet<_>>();
    assert_eq!(round(3), BTreeSet::from(['1', '2', '3']));
    let address = servers[1].address;
    servers[1].kill();
    for _ in 0..20 {
        assert_ne!(ask(), '2');
    }
    assert_eq!(round(10), BTreeSet::from(['1', '3']));
    servers[1] = Server::start_at(address, "2", &[]);
    // Each thread passes over for a second what it could not connect to.
    wait_for("whole rounds again", || (round(6).len() == 3).then_some(()));
}

/// Three servers, each of which never answers `/hang`.
fn hanging() -> [Upstream; 3] {
    ["a", "b", "c"].map(|name| {
        let answer = saying(200, name);
        Upstream::start(move |exchange| match exchange.head.target() {
            "/hang" => exchange.hang(),
            _ => say(exchange, &answer),
        })
    })
}

/// Who answers while a request hangs at one of the first `count` servers, and who that is.
fn beside_a_hanging_request(policy: &str, count: usize) -> (Vec<String>, String) {
    let upstreams = hanging();
    let upstreams: Vec<&Upstream> = upstreams.iter().take(count).collect();
    // On one thread what has been answered is not counted any more when the next request comes.
    let policy_line = format!("policy = \"{policy}\"");
    let routed = routed_with(&upstreams, &policy_line, &["--workers", "1"]);
    let mut stuck = Client::of(&routed.balancer);
    stuck.send(b"GET /hang HTTP/1.1\r\nHost: a\r\n\r\n");
    let hangs = || upstreams.iter().position(|upstream| !upstream.seen_with("/hang").is_empty());
    let at = wait_for("the request to hang", hangs);
    let names = (0..30).map(|_| text(&ask_once(&routed.balancer, "GET /x", "")));
    (names.collect(), ["a", "b", "c"][at].to_owned())
}

#[test]
fn least_requests_avoids_the_one_with_a_hanging_request() {
    let (names, busy) = beside_a_hanging_request("least-requests", 3);
    assert!(!names.contains(&busy), "{busy} in {names:?}");
    // Those that are equal share.
    assert_eq!(counted(&names).len(), 2, "{names:?}");
}

#[test]
fn of_two_that_were_drawn_the_less_loaded_is_asked() {
    // Of two servers both are drawn.
    let (names, busy) = beside_a_hanging_request("two-choices", 2);
    assert!(!names.contains(&busy), "{busy} in {names:?}");
    let (names, _) = beside_a_hanging_request("two-choices", 3);
    assert!(counted(&names).len() >= 2, "{names:?}");
}
