//! Many replicas, and many that die at once.

use std::collections::BTreeSet;

use rustix::process::Signal;

use super::{fleet, in_state, owners};
use crate::load::Load;
use crate::support::{Balancer, children_of, kill, wait_for};

const REPLICAS: usize = 200;
const KILLED: usize = 50;

#[test]
fn two_hundred_replicas_start_and_fifty_killed_at_once_are_replaced() {
    let replicas = REPLICAS.to_string();
    let balancer = Balancer::start(&["--replicas", &replicas]);
    let mut seen = BTreeSet::new();
    wait_for("all of them", || {
        // Answered all the time.
        let now = balancer.replicas().len();
        seen.insert(now);
        (now == REPLICAS).then_some(())
    });
    assert!(seen.len() > 3, "it was seen to grow: {seen:?}");
    let status = fleet(&balancer);
    assert_eq!((&status["desired"], &status["ready"]), (&REPLICAS.into(), &REPLICAS.into()));
    assert_eq!(children_of(balancer.pid()).len(), REPLICAS);
    let before = owners(&balancer, 400);

    let processes = balancer.replica_processes();
    let load = Load::start(balancer.address);
    let victims: Vec<u32> = processes.values().copied().step_by(REPLICAS / KILLED).collect();
    assert_eq!(victims.len(), KILLED);
    victims.iter().for_each(|pid| kill(*pid, Signal::KILL));
    let names = wait_for("all of them again", || {
        let status = fleet(&balancer);
        let died = status["counts"]["died"] == KILLED;
        let again = died && in_state(&status, "ready") == REPLICAS;
        again.then(|| balancer.replicas()).filter(|names| names.len() == REPLICAS)
    });
    assert_eq!(BTreeSet::from_iter(names).len(), REPLICAS);
    load.end();
    assert_eq!(owners(&balancer, 400), before, "every key is where it was");
    let now = balancer.replica_processes();
    assert_eq!(now.len(), REPLICAS);
    let kept = now.iter().filter(|(seat, pid)| processes[seat] == **pid).count();
    assert_eq!(kept, REPLICAS - KILLED, "the others were left alone");
    wait_for("no remains", || (children_of(balancer.pid()).len() == REPLICAS).then_some(()));
}
