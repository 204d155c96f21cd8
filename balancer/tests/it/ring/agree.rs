//! The ring as it is: its shares, who serves, and that balancers know whether they agree.

use super::{fingerprint, shares, told};
use crate::conformance::upstream::Upstream;
use crate::metrics::samples;
use crate::support::{Balancer, request, wait_for};

fn over(upstreams: &[&Upstream], weight: u32, flags: &[&str]) -> Balancer {
    let last = upstreams.len() - 1;
    let server = |(place, upstream): (usize, &&Upstream)| {
        let weight = if place == last { weight } else { 1 };
        format!("{} weight={weight}", upstream.address)
    };
    let servers: Vec<String> = upstreams.iter().enumerate().map(server).collect();
    let balancer = Balancer::start(&[&["--servers", &servers.join(",")], flags].concat());
    balancer.wait_for_replicas(upstreams.len());
    balancer
}

#[test]
fn two_balancers_agree_by_their_fingerprints() {
    let [a, b, c] = [(); 3].map(|()| Upstream::playing());
    let all = [&a, &b, &c];
    let ours = over(&all, 1, &[]);
    let print = fingerprint(&ours);
    assert_eq!(fingerprint(&over(&[&c, &a, &b], 1, &[])), print, "in whatever order");
    let secret = ["--ring-secret", "000102030405060708090a0b0c0d0e0f"];
    let secret_print = fingerprint(&over(&all, 1, &secret));
    assert_eq!(fingerprint(&over(&all, 1, &secret)), secret_print);
    let others = [
        secret_print,
        fingerprint(&over(&all, 3, &[])),
        fingerprint(&over(&all[..2], 1, &[])),
        fingerprint(&over(&all, 1, &["--ring-virtual-nodes", "161"])),
    ];
    assert!(!others.contains(&print), "{others:?} {print}");
    let info = format!("balancer_ring_info{{placement=\"ring\",fingerprint=\"{print}\"}}");
    assert_eq!(samples(&ours)[&info], 1.0);
}

#[test]
fn owned_fleets_agree_whatever_their_replicas_are_called() {
    let [one, other] = [(); 2].map(|()| Balancer::with_replicas(2, &[]));
    assert_eq!(fingerprint(&one), fingerprint(&other));
    for (balancer, name) in [(&one, "a"), (&other, "b")] {
        let body = format!("{{\"n\":1,\"hostnames\":[\"{name}\"]}}");
        assert_eq!(balancer.json("POST", "/add", &body).status, 200);
    }
    assert_eq!(fingerprint(&one), fingerprint(&other));
    assert_eq!(one.json("DELETE", "/rm", "{\"n\":1}").status, 200);
    assert_ne!(fingerprint(&one), fingerprint(&other));
}

#[test]
fn the_ring_tells_shares_and_who_serves() {
    let balancer = Balancer::with_replicas(3, &[]);
    let ring = told(&balancer, "ring");
    assert_eq!(ring["placement"], "ring");
    let all: f64 = shares(&balancer).iter().map(|(_, share)| share).sum();
    assert!((all - 1.0).abs() < 1e-9, "{all}");
    let samples = samples(&balancer);
    for (seat, share) in shares(&balancer) {
        let counted = samples[&format!("balancer_ring_share{{seat=\"{seat}\"}}")];
        assert!((counted - share).abs() < 1e-12, "{counted} {share}");
    }
    for (place, member) in ring["members"].as_array().unwrap().iter().enumerate() {
        assert_eq!(member["hostname"], format!("S{}", place + 1));
        assert_eq!((&member["state"], &member["weight"]), (&"ready".into(), &1.into()));
        assert!(member.get("tenths").is_none() && member.get("replica").is_none(), "{member}");
    }
    let path = "/loadbalancer/node/S2/disable";
    assert_eq!(request(balancer.admin, "POST", path, &[], b"").status, 200);
    let second = told(&balancer, "ring")["members"][1].clone();
    assert!(second["hostname"].is_null(), "{second}");
    assert_eq!((&second["state"], &second["replica"]), (&"disabled".into(), &"S2".into()));
    assert_eq!(request(balancer.admin, "HEAD", "/admin/ring", &[], b"").body, b"");
}

#[test]
fn a_newcomers_share_is_told_as_it_grows() {
    let balancer = Balancer::with_replicas(2, &["--health-slow-start", "1h"]);
    let before = shares(&balancer);
    assert_eq!(balancer.json("POST", "/add", "{\"n\":1}").status, 200);
    let ring = wait_for("a share that grows", || {
        let ring = told(&balancer, "ring");
        (ring["members"].as_array()?.len() == 3).then_some(ring)
    });
    let newcomer = &ring["members"][2];
    assert_eq!(newcomer["tenths"], 1, "{ring}");
    assert!(newcomer["share"].as_f64().unwrap() < 0.15, "{ring}");
    for (place, (_, share)) in before.into_iter().enumerate() {
        assert!(ring["members"][place]["share"].as_f64().unwrap() <= share, "{ring}");
    }
}
