//! `send = "first"`: several replicas at once, the first success is the answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::{
    always, ask, ask_once, failures, name_of, named, owner, routed, routed_with, say, saying, text,
    three,
};
use crate::conformance::client::Client;
use crate::conformance::upstream::{Then, Upstream};
use crate::support::{request, wait_for};

const FIRST: &str = "[[route]]\nname = \"first\"\npaths = [\"/first\"]\nsend = \"first\"\n\
    backoff = { base = \"1ms\", max = \"10ms\", jitter = \"0s\" }\n";

/// Something that threads wait for.
#[derive(Clone, Default)]
struct Gate(Arc<AtomicBool>);

impl Gate {
    fn open(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    fn wait(&self) {
        wait_for("a gate to open", || self.0.load(Ordering::SeqCst).then_some(()));
    }
}

#[test]
fn the_first_success_is_streamed_while_others_are_still_at_work() {
    let (slow_may, rest_may) = (Gate::default(), Gate::default());
    let gate = slow_may.clone();
    let slow = Upstream::start(move |exchange| {
        exchange.read_body();
        gate.wait();
        exchange.write(&saying(200, "slow"));
        Then::GoOn
    });
    let gate = rest_may.clone();
    let fast = Upstream::start(move |exchange| {
        exchange.read_body();
        exchange.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfast\r\n");
        gate.wait();
        exchange.write(b"5\r\n done\r\n0\r\n\r\n");
        Then::GoOn
    });
    let bad = always(500);
    let routed = routed_with(&[&slow, &fast, &bad], FIRST, &["--workers", "1"]);
    let mut client = Client::of(&routed.balancer);
    client.send(b"POST /first HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
    let head = client.wire.head().unwrap().unwrap();
    assert!(head.line.starts_with("HTTP/1.1 200 "), "{head:?}");
    let mut begin = Vec::new();
    client.wire.exact(9, &mut begin).unwrap();
    assert_eq!(begin, b"4\r\nfast\r\n");
    rest_may.open();
    let mut end = Vec::new();
    client.wire.exact(15, &mut end).unwrap();
    assert_eq!(end, b"5\r\n done\r\n0\r\n\r\n");
    // The client has its answer, and the slow one has the request still.
    assert!(slow.sees(1) && bad.sees(1));
    assert_eq!([&slow, &fast, &bad].map(|upstream| upstream.seen().len()), [1, 1, 1]);
    assert_eq!(slow.seen()[0].body.data, b"hi");
    slow_may.open();
    // It goes to its end, and its connection is used again.
    wait_for("all to be at rest", || {
        let answer = request(routed.balancer.admin, "GET", "/admin/fleet", &[], b"");
        let fleet = answer.json()["message"]["replicas"].clone();
        fleet.as_array()?.iter().all(|replica| replica["in_flight"] == 0).then_some(())
    });
    assert_eq!(ask(&mut client, "POST /first", "").status, 200);
    assert!(slow.sees(2));
    assert_eq!([&slow, &fast, &bad].map(Upstream::connections), [1, 1, 1]);
    assert!(slow.faults().is_empty() && fast.faults().is_empty());
}

#[test]
fn only_so_many_are_asked_as_the_route_says_the_owner_among_them() {
    let upstreams = three();
    let [a, b, c] = &upstreams;
    let routed = routed(&[a, b, c], &format!("{FIRST}fan = 2"));
    for asked in 1..=10 {
        let id = asked.to_string();
        let owner = owner(&routed.balancer, &[a, b, c], &id);
        let owners = upstreams[owner].seen_with("/first").len();
        let answer = ask_once(&routed.balancer, "POST /first", &format!("X-Request-Id: {id}\r\n"));
        assert_eq!(answer.status, 200);
        let all = || upstreams.each_ref().map(|upstream| upstream.seen_with("/first").len());
        wait_for("both to be asked", || (all().iter().sum::<usize>() == 2 * asked).then_some(()));
        assert_eq!(upstreams[owner].seen_with("/first").len(), owners + 1);
    }
    let one = self::routed(&[a, b, c], &format!("{FIRST}fan = 1"));
    let before: usize = upstreams.iter().map(|upstream| upstream.seen().len()).sum();
    assert_eq!(ask_once(&one.balancer, "POST /first", "").status, 200);
    let after: usize = upstreams.iter().map(|upstream| upstream.seen().len()).sum();
    assert_eq!(after, before + 1);
}

#[test]
fn the_success_of_one_outweighs_the_failures_of_others() {
    let bad = [always(500), always(404)];
    let good = named("good");
    let routed = routed(&[&bad[0], &good, &bad[1]], FIRST);
    for _ in 0..10 {
        let answer = ask_once(&routed.balancer, "POST /first", "");
        assert_eq!((answer.status, text(&answer).as_str()), (200, "good"));
    }
    assert_eq!(good.seen().len(), 10);
}

#[test]
fn where_none_succeeds_there_is_another_round() {
    let count = Arc::new(AtomicUsize::new(0));
    let upstreams = [(); 3].map(|()| {
        let count = Arc::clone(&count);
        Upstream::start(move |exchange| {
            let asked = count.fetch_add(1, Ordering::SeqCst);
            say(exchange, &saying(if asked < 6 { 500 } else { 201 }, ""))
        })
    });
    let [a, b, c] = &upstreams;
    let routed = routed(&[a, b, c], &format!("{FIRST}attempts = 3"));
    assert_eq!(ask_once(&routed.balancer, "POST /first", "").status, 201);
    wait_for("all of the third round", || (count.load(Ordering::SeqCst) == 9).then_some(()));
    assert!(upstreams.iter().all(|upstream| upstream.seen().len() == 3));
}

#[test]
fn where_no_round_has_a_success_the_client_gets_the_list() {
    let bad = [always(500), always(404), always(302)];
    let upstreams: Vec<&Upstream> = bad.iter().collect();
    let routed = routed(&upstreams, &format!("{FIRST}attempts = 2"));
    let mut client = Client::of(&routed.balancer);
    let answer = ask(&mut client, "POST /first", "X-Request-Id: 1\r\n");
    assert_eq!(answer.status, 502);
    let list: serde_json::Value = serde_json::from_slice(&answer.body.data).unwrap();
    let names: Vec<&str> = list["message"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["replica"].as_str().unwrap())
        .collect();
    let status = |name: &str| {
        let at = bad.iter().position(|upstream| name_of(upstream) == name).unwrap();
        ["answered 500", "answered 404", "answered 302"][at]
    };
    let expected: Vec<_> = names.iter().map(|name| (*name, 2, status(name))).collect();
    assert_eq!((names.len(), text(&answer)), (3, failures(&expected)));
    assert!(bad.iter().all(|upstream| upstream.seen().len() == 2));
    assert_eq!(ask(&mut client, "GET /rep", "").status, 200);
    // Other statuses may be a success.
    let routed = self::routed(&upstreams, &format!("{FIRST}success = [302]"));
    assert_eq!(ask_once(&routed.balancer, "POST /first", "").status, 302);
}

#[test]
fn a_replica_that_hangs_does_not_hold_up_the_balancers_other_work() {
    let hangs = Upstream::start(|exchange| exchange.hang());
    let good = named("good");
    let text =
        format!("{FIRST}timeouts = {{ first_byte = \"200ms\" }}\n[outliers]\nconsecutive = 0");
    let routed = routed(&[&hangs, &good], &text);
    for _ in 0..20 {
        assert_eq!(ask_once(&routed.balancer, "GET /first", "").status, 200);
    }
    // Each is given up after its time, and its connection ended.
    assert!(hangs.sees(20));
    for connection in 1..=hangs.connections() {
        assert!(hangs.sees_end_of(connection));
    }
}
