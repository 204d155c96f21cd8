//! Real child processes that are killed, stopped, and outlived.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use rustix::process::Signal;

use crate::support::{Balancer, children_of, kill, lives, request, try_request, wait_for};

/// The seat that answers a request with this id.
fn seat_of(balancer: &Balancer, id: u32) -> u32 {
    let id = id.to_string();
    let answer = request(balancer.address, "GET", "/home", &[("X-Request-Id", &id)], b"");
    let message = answer.message();
    message.strip_prefix("Hello from Server: ").and_then(|seat| seat.parse().ok()).unwrap()
}

/// Runs `disturb` while four clients ask for `/home`; tells how many answers were 200 and what
/// else came.
fn under_load(balancer: &Balancer, disturb: impl FnOnce()) -> (usize, Vec<String>) {
    let (stop, good) = (AtomicBool::new(false), AtomicUsize::new(0));
    let bad = thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut bad = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        match try_request(balancer.address, "GET", "/home", &[], b"") {
                            Ok(answer) if answer.status == 200 => {
                                good.fetch_add(1, Ordering::Relaxed);
                            }
                            other => bad.push(format!("{other:?}")),
                        }
                    }
                    bad
                })
            })
            .collect();
        wait_for("a first answer", || (good.load(Ordering::Relaxed) > 50).then_some(()));
        disturb();
        let now = good.load(Ordering::Relaxed);
        wait_for("more answers", || (good.load(Ordering::Relaxed) > now + 50).then_some(()));
        stop.store(true, Ordering::Relaxed);
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    (good.into_inner(), bad)
}

#[test]
fn a_key_always_reaches_the_same_seat() {
    let balancer = Balancer::with_replicas(3, &[]);
    let first: Vec<u32> = (0..60).map(|id| seat_of(&balancer, id)).collect();
    let again: Vec<u32> = (0..60).map(|id| seat_of(&balancer, id)).collect();
    assert_eq!(first, again);
    assert_eq!(BTreeSet::from_iter(first), BTreeSet::from([1, 2, 3]));
}

#[test]
fn the_classic_ring_shares_out_over_http_as_the_vectors_say() {
    let balancer = Balancer::with_replicas(3, &["--placement", "classic"]);
    let mut counts = BTreeMap::new();
    for id in 0..512 {
        *counts.entry(seat_of(&balancer, id)).or_insert(0) += 1;
    }
    assert_eq!(counts, BTreeMap::from([(1, 428), (2, 24), (3, 60)]));
}

#[test]
fn a_killed_replica_is_replaced_on_its_seat_and_no_request_fails() {
    let balancer = Balancer::with_replicas(3, &[]);
    let before: Vec<u32> = (0..60).map(|id| seat_of(&balancer, id)).collect();
    let processes = balancer.replica_processes();
    let (good, bad) = under_load(&balancer, || {
        kill(processes[&2], Signal::KILL);
        wait_for("the replacement", || {
            let replicas = balancer.replicas();
            (replicas.len() == 3 && !replicas.contains(&"S2".to_owned())).then_some(())
        });
    });
    assert!(bad.is_empty(), "{good} good, but {bad:?}");
    let after: Vec<u32> = (0..60).map(|id| seat_of(&balancer, id)).collect();
    assert_eq!(before, after, "every key is where it was");
    assert_eq!(balancer.replicas()[..2], ["S1", "S3"]);
    let now = balancer.replica_processes();
    assert_eq!((now[&1], now[&3]), (processes[&1], processes[&3]), "the others were left alone");
}

#[test]
fn all_replicas_killed_at_once_come_back() {
    let balancer = Balancer::with_replicas(3, &[]);
    let processes = balancer.replica_processes();
    for pid in processes.values() {
        kill(*pid, Signal::KILL);
    }
    wait_for("a new fleet", || {
        let now = balancer.replica_processes();
        let new = now.values().all(|pid| !processes.values().any(|old| old == pid));
        (new && now.len() == 3 && balancer.replicas().len() == 3).then_some(())
    });
    assert_eq!(balancer.get("/home").status, 200);
}

#[test]
fn a_killed_balancer_leaves_no_child_behind() {
    for command in [None, Some("/bin/sleep 600")] {
        let arguments = command.map_or(vec![], |command| vec!["--command", command]);
        let mut balancer = Balancer::start(&arguments);
        let children = wait_for("three children", || {
            Some(children_of(balancer.pid())).filter(|children| children.len() == 3)
        });
        balancer.signal(Signal::KILL);
        assert!(!balancer.wait().success());
        wait_for("the end of all children", || {
            (!children.iter().any(|child| lives(*child))).then_some(())
        });
    }
}

#[test]
fn a_stop_under_load_finishes_what_it_began_and_exits_well() {
    let mut balancer = Balancer::with_replicas(2, &["--env", "SERVER_LATENCY=20ms"]);
    let children = children_of(balancer.pid());
    let told = AtomicBool::new(false);
    let cut = thread::scope(|scope| {
        let clients: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let mut answered = 0;
                    loop {
                        match try_request(balancer.address, "GET", "/home", &[], b"") {
                            Ok(answer) if answer.status == 200 => answered += 1,
                            // Cut off within an answer: not so if it never began.
                            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                                return Err(error.to_string());
                            }
                            // Refused, or closed before it was read.
                            Err(_) => return Ok(answered),
                            Ok(other) => return Err(format!("{other:?}")),
                        }
                        // Once: a second signal means "at once".
                        if answered == 3 && !told.swap(true, Ordering::Relaxed) {
                            balancer.signal(Signal::TERM);
                        }
                    }
                })
            })
            .collect();
        clients.into_iter().filter_map(|client| client.join().unwrap().err()).collect::<Vec<_>>()
    });
    assert!(cut.is_empty(), "{cut:?}");
    assert!(balancer.wait().success());
    assert!(!children.iter().any(|child| lives(*child)), "a replica was left behind");
}

#[test]
fn many_changes_at_once_come_to_the_exact_number() {
    let balancer = Balancer::with_replicas(5, &["--max-replicas", "25"]);
    let (added, removed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..5 {
            scope.spawn(|| {
                for _ in 0..6 {
                    if balancer.json("POST", "/add", r#"{"n":1}"#).status == 200 {
                        added.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
            scope.spawn(|| {
                for _ in 0..6 {
                    if balancer.json("DELETE", "/rm", r#"{"n":1}"#).status == 200 {
                        removed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..10 {
                if let Some((_, pid)) = balancer.replica_processes().pop_first() {
                    kill(pid, Signal::KILL);
                }
            }
        });
    });
    let size = 5 + added.into_inner() - removed.into_inner();
    let replicas = balancer.wait_for_replicas(size);
    assert_eq!(BTreeSet::from_iter(&replicas).len(), size, "names are unique");
    wait_for("as many processes", || (children_of(balancer.pid()).len() == size).then_some(()));
}

#[test]
fn a_hung_replica_leaves_rotation_and_comes_back() {
    let probes = ["--health-interval", "50ms", "--health-timeout", "100ms"];
    let balancer = Balancer::with_replicas(2, &probes);
    let victim = balancer.replica_processes()[&1];
    let id = (0..).find(|id| seat_of(&balancer, *id) == 1).unwrap();
    kill(victim, Signal::STOP);
    // Its keys go to their next owner once it is out.
    wait_for("another owner", || (seat_of_in_time(&balancer, id) == Some(2)).then_some(()));
    kill(victim, Signal::CONT);
    wait_for("the first owner", || (seat_of_in_time(&balancer, id) == Some(1)).then_some(()));
    assert_eq!(balancer.replica_processes()[&1], victim, "it was not replaced");
}

/// The same as [`seat_of`], but not for long: whoever hangs gives no seat.
fn seat_of_in_time(balancer: &Balancer, id: u32) -> Option<u32> {
    let to = balancer.address;
    let (told, heard) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let id = id.to_string();
        let answer = try_request(to, "GET", "/home", &[("X-Request-Id", &id)], b"");
        // Nobody listens any more when it took too long.
        let _heard = told.send(answer).is_ok();
    });
    let answer = heard.recv_timeout(std::time::Duration::from_millis(500)).ok()?.ok()?;
    answer.message().strip_prefix("Hello from Server: ")?.parse().ok()
}
