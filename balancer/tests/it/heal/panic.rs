//! Most servers look bad at once: then the probe is likelier to be wrong.

use std::collections::BTreeSet;

use super::listed::over;
use super::{PROBES, events, fleet, greeting, in_state, owners, wait_for_event};
use crate::load::Load;
use crate::support::wait_for;

#[test]
fn when_most_look_bad_all_go_on_being_routed_to() {
    let (servers, balancer) = over(4, &PROBES);
    let before = owners(&balancer, 200);
    let load = Load::start(balancer.address);
    for server in &servers[..3] {
        server.health(503);
    }
    let panic = wait_for_event(&balancer, "panic");
    assert!(panic["hostname"].is_null() && panic["seat"].is_null(), "{panic}");
    assert!(panic["reason"].as_str().unwrap().contains("of 4 replicas"), "{panic}");
    wait_for("three that look bad", || (in_state(&fleet(&balancer), "ejected") == 3).then_some(()));
    let status = fleet(&balancer);
    assert_eq!((&status["panic"], &status["ready"]), (&true.into(), &4.into()), "{status}");
    assert_eq!(owners(&balancer, 200), before, "every key is where it was");

    // All of them is no more than most.
    servers[3].health(503);
    wait_for("the fourth", || (in_state(&fleet(&balancer), "ejected") == 4).then_some(()));
    assert_eq!(owners(&balancer, 200), before);
    assert_eq!(events(&balancer, "panic").len(), 1);
    assert!(events(&balancer, "panic-over").is_empty());

    servers.iter().for_each(|server| server.health(200));
    wait_for_event(&balancer, "panic-over");
    wait_for("all of them", || (in_state(&fleet(&balancer), "ready") == 4).then_some(()));
    assert_eq!(owners(&balancer, 200), before);
    load.end();
    let status = fleet(&balancer);
    assert_eq!(status["panic"], false);
    assert_eq!(status["counts"]["panic"], 1);
    assert_eq!(status["counts"]["panic-over"], 1);
}

#[test]
fn half_of_them_is_not_most_and_one_hundred_percent_is_never() {
    for (share, sick) in [("50%", 2), ("100%", 3)] {
        let (servers, balancer) = over(4, &[&PROBES[..], &["--health-panic", share]].concat());
        for server in &servers[..sick] {
            server.health(503);
        }
        wait_for("their ejection", || {
            (in_state(&fleet(&balancer), "ejected") == sick).then_some(())
        });
        let left: BTreeSet<String> = (sick..4).map(|at| at.to_string()).collect();
        assert_eq!(BTreeSet::from_iter(owners(&balancer, 100)), left, "{share}");
        assert_eq!(fleet(&balancer)["panic"], false);
        assert!(events(&balancer, "panic").is_empty());
    }
}

#[test]
fn where_nobody_listens_there_is_nothing_to_doubt() {
    let (servers, balancer) = over(3, &PROBES);
    servers.iter().for_each(super::listed::Listed::close);
    wait_for("their ejection", || (in_state(&fleet(&balancer), "ejected") == 3).then_some(()));
    let answer = greeting(&balancer, 1);
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
    assert!(answer.message().contains("no replica is ready"), "{answer:?}");
    let status = fleet(&balancer);
    assert_eq!((&status["panic"], &status["ready"]), (&false.into(), &0.into()));
    assert!(events(&balancer, "panic").is_empty());
    for replica in status["replicas"].as_array().unwrap() {
        let at = replica["address"].as_str().unwrap();
        assert_eq!(replica["reason"], format!("health check failed: connection to {at} refused"));
    }
}

#[test]
fn those_that_refuse_do_not_count_and_are_not_routed_to_in_a_panic() {
    let (servers, balancer) = over(4, &PROBES);
    servers[0].close();
    wait_for("its ejection", || (in_state(&fleet(&balancer), "ejected") == 1).then_some(()));
    let load = Load::start(balancer.address);
    for server in &servers[1..3] {
        server.health(500);
    }
    wait_for_event(&balancer, "panic");
    let reached = BTreeSet::from_iter(owners(&balancer, 200));
    assert_eq!(reached, BTreeSet::from(["1", "2", "3"].map(str::to_owned)));
    load.end();
}
