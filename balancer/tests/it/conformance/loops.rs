//! Forwarding loops (RFC 9110 7.6.3): a request that comes back is answered 508 after one round.

use std::net::{SocketAddr, TcpListener};

use super::client::Client;
use super::over;
use super::upstream::Upstream;
use crate::support::{Balancer, request, wait_for};

/// An address that is free now, for a balancer that others must know before it starts.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A balancer at `listen` over these servers; balancers among them are ready at once.
fn at(listen: SocketAddr, servers: &[SocketAddr], arguments: &[&str]) -> Balancer {
    let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
    let (listen, servers) = (format!("--listen={listen}"), servers.join(","));
    let own = ["--servers", &servers, "--health-path", "/rep", "--health-interval", "50ms"];
    Balancer::start(&[&[listen.as_str()], &own[..], arguments].concat())
}

/// Two balancers, each of which has only the other.
fn pair(arguments: &[&str]) -> (Balancer, Balancer) {
    let addresses = [free_address(), free_address()];
    let one = at(addresses[0], &[addresses[1]], arguments);
    let other = at(addresses[1], &[addresses[0]], arguments);
    one.wait_for_replicas(1);
    other.wait_for_replicas(1);
    (one, other)
}

/// Requests that a balancer has answered on its routes.
fn answered(balancer: &Balancer) -> f64 {
    let text = request(balancer.admin, "GET", "/metrics", &[], b"").body;
    let text = String::from_utf8(text).unwrap();
    let counts = text.lines().filter(|line| line.starts_with("balancer_requests_total{"));
    counts.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

#[test]
fn two_balancers_that_point_at_each_other_answer_508_after_one_round() {
    // The same name in Via at both: that is no loop, and does not hide one.
    for arguments in [&[][..], &["--forwarded-via", "edge"]] {
        let (one, other) = pair(arguments);
        let answer = one.get("/x");
        assert_eq!(answer.status, 508, "{answer:?}");
        assert!(answer.message().contains("forwarding loop"), "{answer:?}");
        assert_eq!(wait_for("the count", || Some(answered(&one)).filter(|n| *n >= 2.0)), 2.0);
        assert_eq!(answered(&other), 1.0);
        assert_eq!(one.events("forwarding loop").len(), 1);
        for _ in 0..9 {
            assert_eq!(one.get("/x").status, 508);
        }
        assert_eq!(one.events("forwarding loop").len(), 1, "logged once, not for each request");
        assert!(one.events("replica is ejected").is_empty(), "a loop is not the replica's fault");
    }
}

#[test]
fn as_many_passes_as_are_allowed_are_made() {
    let (one, other) = pair(&["--forwarded-max-passes", "3"]);
    assert_eq!(one.get("/x").status, 508);
    assert_eq!(wait_for("the count", || Some(answered(&one)).filter(|n| *n >= 4.0)), 4.0);
    assert_eq!(answered(&other), 3.0);
}

#[test]
fn a_balancer_among_its_own_servers_is_never_ready() {
    let (upstream, own) = (Upstream::playing(), free_address());
    let servers = [upstream.address, own].map(|address| address.to_string()).join(",");
    let listen = format!("--listen={own}");
    let probes = ["--health-interval", "50ms", "--admin-listen", "127.0.0.1:0"];
    let arguments = [&[listen.as_str(), "--servers", &servers], &probes[..]].concat();
    let balancer = Balancer::start(&arguments);
    balancer.wait_for_replicas(1);
    wait_for("many probes of itself", || (answered(&balancer) >= 20.0).then_some(()));
    for key in 0..50 {
        let id = key.to_string();
        let answer = request(balancer.address, "GET", "/x", &[("X-Request-Id", &id)], b"");
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    assert_eq!(upstream.seen().len(), 50, "each request has come once");
    assert_eq!(balancer.replicas().len(), 1);
}

#[test]
fn the_id_of_another_balancer_means_nothing_and_is_passed_on() {
    let upstream = Upstream::playing();
    let balancer = over(&[&upstream], &[]);
    let fields = "X-Balancer-Hop: 0123456789abcdef\r\nConnection: x-balancer-hop";
    let request = format!("GET /x HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
    assert_eq!(Client::sending(&balancer, request.as_bytes()).must_answer("one").status, 200);
    let hops = upstream.seen()[0].head.all("x-balancer-hop");
    assert_eq!((hops.len(), hops[0].as_str()), (2, "0123456789abcdef"));
}

#[test]
fn a_client_that_knows_the_id_of_a_balancer_blocks_nobody_else() {
    let upstream = Upstream::playing();
    let inner = over(&[&upstream], &[]);
    let outer = at(free_address(), &[inner.address], &[]);
    outer.wait_for_replicas(1);
    assert_eq!(outer.get("/x").status, 200);
    let id = upstream.seen()[0].head.all("x-balancer-hop").join(", ");
    assert_eq!(id.split(", ").count(), 2, "one of each balancer: {id}");
    for _ in 0..20 {
        let (_, inner_id) = id.split_once(", ").unwrap();
        let headers = [("X-Balancer-Hop", inner_id)];
        assert_eq!(request(outer.address, "GET", "/x", &headers, b"").status, 508);
    }
    assert!(outer.events("replica is ejected").is_empty());
    assert_eq!(outer.get("/x").status, 200);
}
