//! A newcomer's share grows, and keys move only to it.

use std::collections::BTreeMap;

use rustix::process::Signal;

use super::{events, owners};
use crate::load::Load;
use crate::support::{Balancer, kill, wait_for};

const KEYS: u32 = 600;

fn shares(owners: &[String]) -> BTreeMap<&str, usize> {
    let mut shares = BTreeMap::new();
    for owner in owners {
        *shares.entry(owner.as_str()).or_insert(0) += 1;
    }
    shares
}

/// Who owns the keys in a fleet of so many that is complete.
fn owners_among(replicas: usize) -> Vec<String> {
    owners(&Balancer::with_replicas(replicas, &[]), KEYS)
}

/// Samples until the keys are where they belong at last: each key of `whole` that is "`seat`"'s
/// moves there once, no other moves at all. Tells the seat's share in each sample.
fn watch_share_of(seat: &str, balancer: &Balancer, whole: &[String]) -> Vec<usize> {
    let mut samples: Vec<Vec<String>> = Vec::new();
    wait_for("its whole share", || {
        let sample = owners(balancer, KEYS);
        for (key, owner) in sample.iter().enumerate() {
            if owner == seat || whole[key] == seat {
                assert_eq!(whole[key], seat, "key {key} is not one of its keys");
            } else {
                assert_eq!(owner, &whole[key], "key {key} moved");
            }
            let was_there = samples.last().is_some_and(|last| last[key] == seat);
            assert!(!was_there || owner == seat, "key {key} moved away again");
        }
        samples.push(sample);
        (samples.last().unwrap() == whole).then_some(())
    });
    samples.iter().map(|sample| shares(sample).get(seat).copied().unwrap_or_default()).collect()
}

fn assert_grew(shares: &[usize]) {
    let (first, last) = (shares[0], *shares.last().unwrap());
    assert!(shares.is_sorted(), "{shares:?}");
    assert!(first * 2 < last, "it had most of its share at once: {shares:?}");
    let mut steps = shares.to_vec();
    steps.dedup();
    assert!(steps.len() >= 3, "{shares:?}");
}

#[test]
fn a_newcomers_share_grows_and_keys_move_only_to_it() {
    let whole = owners_among(3);
    let balancer = Balancer::with_replicas(2, &["--health-slow-start", "4s"]);
    let before = owners(&balancer, KEYS);
    for (was, is) in before.iter().zip(&whole) {
        assert!(was == is || is == "3");
    }
    let load = Load::start(balancer.address);
    let answer = balancer.json("POST", "/add", r#"{"n":1}"#);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["message"]["N"], 3);
    assert_grew(&watch_share_of("3", &balancer, &whole));
    load.end();
}

#[test]
fn a_replacements_share_grows_too_and_no_other_key_moves() {
    let balancer = Balancer::with_replicas(3, &["--health-slow-start", "4s"]);
    let whole = owners(&balancer, KEYS);
    let load = Load::start(balancer.address);
    kill(balancer.replica_processes()[&2], Signal::KILL);
    wait_for("the replacement", || (events(&balancer, "ready").len() == 4).then_some(()));
    assert_grew(&watch_share_of("2", &balancer, &whole));
    load.end();
}

#[test]
fn a_first_fleet_has_its_whole_share_at_once() {
    let balancer = Balancer::with_replicas(3, &["--health-slow-start", "1h"]);
    let slow = owners(&balancer, KEYS);
    let balancer = Balancer::with_replicas(3, &[]);
    assert_eq!(slow, owners(&balancer, KEYS));
}
