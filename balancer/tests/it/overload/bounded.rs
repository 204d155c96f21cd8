//! Bounded load on the ring.

use super::{Held, answered_by, hold};
use crate::support::wait_for;

#[test]
fn one_key_fills_its_owners_in_turn_and_none_beyond_its_bound() {
    let held = Held::start(&["--balance-factor", "1.25", "--workers", "2"]);
    let (balancer, key) = (&held.balancer, &held.keys()[0][0]);
    let counts = || held.servers.each_ref().map(super::Holding::holds);
    let mut clients = Vec::new();
    for all in 1..=24_usize {
        clients.extend(hold(balancer, key, 1));
        wait_for("one more", || (counts().iter().sum::<usize>() == all).then_some(()));
        // ⌈1.25 · all / 3⌉
        let bound = (5 * all).div_ceil(12);
        assert!(counts().iter().all(|count| *count <= bound), "{:?} of {all}", counts());
    }
    let [owner, ..] = counts();
    assert_eq!(owner, 10, "the owner has all that its bound allows");
    held.servers.iter().for_each(super::Holding::let_go);
    for client in &mut clients {
        assert_eq!(client.must_answer("held").status, 200);
    }
    wait_for("the owner", || (answered_by(balancer, key) == "a").then_some(()));
}

#[test]
fn without_load_every_key_is_at_its_owner() {
    let bounded = Held::start(&["--balance-factor", "1.25"]);
    let keys = bounded.keys();
    // One request at a time is below every bound, whatever the key.
    for _ in 0..5 {
        for (place, name) in [(0, "a"), (1, "b"), (2, "c")] {
            assert_eq!(answered_by(&bounded.balancer, &keys[place][1]), name);
        }
    }
}

#[test]
fn a_disabled_one_and_what_it_has_do_not_count() {
    let held = Held::start(&["--balance-factor", "1.25"]);
    let (balancer, keys) = (&held.balancer, held.keys());
    let _clients = held.hold(&keys[2][0], 1, 2);
    let path = format!("node/{}/disable", held.names()[2]);
    super::call(balancer, "POST", &path);
    // Of the two others each may have ⌈1.25 · 1 / 2⌉ = 1, then ⌈1.25 · 2 / 2⌉ = 2.
    let _first = held.hold(&keys[0][0], 2, 0);
    let next = answered_by(balancer, &keys[0][0]);
    assert_eq!(next, "b", "two of three: ⌈1.25 · 3 / 2⌉ is 2");
}
