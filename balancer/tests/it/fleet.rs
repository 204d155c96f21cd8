//! Real child processes that are killed, stopped, and outlived.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{
    Balancer, children_of, connections_to, kill, lives, port_of, request, try_request, wait_for,
};

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
    let balancer = Balancer::with_replicas(5, &["--max-replicas", "60"]);
    let (added, removed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..5 {
            scope.spawn(|| {
                for _ in 0..10 {
                    if balancer.json("POST", "/add", r#"{"n":1}"#).status == 200 {
                        added.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
            scope.spawn(|| {
                for _ in 0..10 {
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

#[test]
fn each_kind_of_key_keeps_its_requests_together() {
    /// The seat of a request with `value` where keys are taken from; its id does not count.
    fn seat(balancer: &Balancer, source: &str, value: u32, id: u32) -> u32 {
        let (id, value) = (id.to_string(), format!("value-{value}"));
        let (cookie, query) =
            (format!("a=b; session={value}; c=d"), format!("/home?z=1&user={value}"));
        let mut headers = vec![("X-Request-Id", id.as_str())];
        let mut target = "/home";
        match source {
            "header:X-User" => headers.push(("x-user", &value)),
            "cookie:session" => headers.push(("Cookie", &cookie)),
            "query:user" | "uri" => target = &query,
            "path" | "client-ip" => {}
            other => panic!("{other}"),
        }
        let answer = request(balancer.address, "GET", target, &headers, b"");
        let message = answer.message();
        message.strip_prefix("Hello from Server: ").and_then(|seat| seat.parse().ok()).unwrap()
    }
    for source in ["header:X-User", "cookie:session", "query:user", "uri"] {
        let balancer = Balancer::with_replicas(3, &["--key", source]);
        let mut reached = BTreeSet::new();
        for value in 0..20 {
            let first = seat(&balancer, source, value, 0);
            for id in 1..5 {
                assert_eq!(seat(&balancer, source, value, id), first, "{source} {value}");
            }
            reached.insert(first);
        }
        assert_eq!(reached, BTreeSet::from([1, 2, 3]), "{source}");
    }
    for source in ["path", "client-ip"] {
        let balancer = Balancer::with_replicas(3, &["--key", source]);
        let reached: BTreeSet<u32> = (0..20).map(|id| seat(&balancer, source, 0, id)).collect();
        assert_eq!(reached.len(), 1, "{source} is the same for all of them");
    }
}

#[test]
fn requests_without_the_key_fall_back_to_their_id() {
    let balancer = Balancer::with_replicas(3, &["--key", "header:X-User"]);
    let first: Vec<u32> = (0..40).map(|id| seat_of(&balancer, id)).collect();
    let again: Vec<u32> = (0..40).map(|id| seat_of(&balancer, id)).collect();
    assert_eq!(first, again);
    assert_eq!(BTreeSet::from_iter(first), BTreeSet::from([1, 2, 3]));
}

#[test]
fn a_fleet_that_shrinks_moves_only_the_keys_of_the_one_that_went() {
    let balancer = Balancer::with_replicas(4, &[]);
    let before: Vec<u32> = (0..80).map(|id| seat_of(&balancer, id)).collect();
    let answer = balancer.json("DELETE", "/rm", r#"{"n":1,"hostnames":["S3"]}"#);
    assert_eq!(answer.status, 200, "{answer:?}");
    let after: Vec<u32> = (0..80).map(|id| seat_of(&balancer, id)).collect();
    for (was, is) in before.iter().zip(&after) {
        assert!(was == is || *was == 3, "a key moved from {was} to {is}");
        assert_ne!(*is, 3);
    }
    // The next one takes the free seat, and its keys with it.
    assert_eq!(balancer.json("POST", "/add", r#"{"n":1}"#).status, 200);
    let again: Vec<u32> = (0..80).map(|id| seat_of(&balancer, id)).collect();
    assert_eq!(before, again);
}

#[test]
fn a_crash_loop_backs_off_and_is_never_listed() {
    let balancer = Balancer::start(&["--replicas", "1", "--command", "/bin/false"]);
    let starts = wait_for("six starts", || {
        Some(balancer.events("replica is starting")).filter(|starts| starts.len() >= 6)
    });
    // At once, then after 100, 200, 400 and 800 ms, each a quarter less at the least.
    let took = starts[5].at - starts[0].at;
    assert!(took >= Duration::from_millis(1_000), "six starts within {took:?}");
    assert!(balancer.replicas().is_empty());
    assert!(balancer.events("replica is ready").is_empty());
    assert_eq!(balancer.get("/home").status, 503);
    let dead = balancer.events("replica is dead");
    assert_eq!(dead[0].fields["reason"], "exited with code 1");
    // Nothing piles up: one seat, one process at most.
    assert!(children_of(balancer.pid()).len() <= 1);
}

#[test]
fn a_crash_loop_on_one_seat_leaves_the_others_alone() {
    let program = env!("CARGO_BIN_EXE_balancer");
    let command = format!("/bin/sh -c '[ {{seat}} = 2 ] && exit 1; exec {program} replica'");
    let balancer = Balancer::start(&["--replicas", "3", "--command", &command]);
    balancer.wait_for_replicas(2);
    let others = balancer.replica_processes();
    wait_for("five deaths", || (balancer.events("replica is dead").len() >= 5).then_some(()));
    for id in 0..40 {
        assert_ne!(seat_of(&balancer, id), 2);
    }
    let now = balancer.replica_processes();
    assert_eq!((now[&1], now[&3]), (others[&1], others[&3]));
}

#[test]
fn a_hung_replica_is_ejected_after_its_third_failed_probe_and_all_requests_succeed() {
    let probes = ["--health-interval", "50ms", "--health-timeout", "100ms", "--health-fall", "3"];
    let balancer = Balancer::with_replicas(3, &probes);
    let victim = balancer.replica_processes()[&2];
    let id = (0..).find(|id| seat_of(&balancer, *id) == 2).unwrap();
    let stopped = Instant::now();
    kill(victim, Signal::STOP);
    let out = wait_for("its ejection", || balancer.events("replica is ejected").into_iter().next());
    // Three probes of 100 ms each, and the pauses between them.
    let took = out.at - stopped;
    assert!(took >= Duration::from_millis(200), "it was out after {took:?}");
    assert_eq!(out.fields["hostname"], "S2");
    for id in 0..60 {
        assert_ne!(seat_of(&balancer, id), 2);
    }
    assert_ne!(seat_of(&balancer, id), 2);
    kill(victim, Signal::CONT);
    wait_for("its return", || (seat_of(&balancer, id) == 2).then_some(()));
    assert_eq!(balancer.replica_processes()[&2], victim, "it was not replaced");
    assert_eq!(balancer.replicas(), ["S1", "S2", "S3"]);
}

#[test]
fn a_start_with_term_sent_at_once_leaves_nothing() {
    let mut balancer = Balancer::start(&["--replicas", "3"]);
    balancer.signal(Signal::TERM);
    let children = children_of(balancer.pid());
    assert!(balancer.wait().success());
    assert!(!children.iter().any(|child| lives(*child)));
}

#[test]
fn an_idle_client_connection_does_not_hold_up_a_stop() {
    let mut balancer = Balancer::with_replicas(1, &["--timeout-drain", "20s"]);
    let mut idle = std::net::TcpStream::connect(balancer.address).unwrap();
    idle.write_all(b"GET /home HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert!(idle.read(&mut [0; 1]).unwrap() > 0);
    let asked = Instant::now();
    balancer.signal(Signal::TERM);
    assert!(balancer.wait().success());
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(10), "the stop took {took:?}");
}

#[test]
fn a_request_at_a_replica_that_hangs_ends_in_time() {
    let arguments = ["--timeout-first-byte", "300ms", "--health-interval", "1h"];
    let balancer = Balancer::with_replicas(2, &arguments);
    let id = (0..).find(|id| seat_of(&balancer, *id) == 1).unwrap().to_string();
    let victim = balancer.replica_processes()[&1];
    kill(victim, Signal::STOP);
    let id = [("X-Request-Id", id.as_str())];
    for (method, path) in [("GET", "/home"), ("POST", "/register")] {
        let answer = request(balancer.address, method, path, &id, b"");
        assert_eq!(answer.status, 504, "{method}: {answer:?}");
    }
    kill(victim, Signal::CONT);
    assert_eq!(request(balancer.address, "GET", "/home", &id, b"").status, 200);
}

#[test]
fn a_stop_waits_for_a_hanging_request_no_longer_than_it_may() {
    let arguments = ["--timeout-drain", "1s", "--timeout-stop", "500ms", "--health-interval", "1h"];
    let mut balancer = Balancer::with_replicas(1, &arguments);
    let replica = balancer.replica_processes()[&1];
    let port = port_of(replica);
    // After the first probe there is no other for a long time.
    wait_for("the end of the probe", || (connections_to(port) == 0).then_some(()));
    kill(replica, Signal::STOP);
    let mut client = std::net::TcpStream::connect(balancer.address).unwrap();
    client.write_all(b"GET /home HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    wait_for("the request at the replica", || (connections_to(port) == 1).then_some(()));
    let asked = Instant::now();
    balancer.signal(Signal::TERM);
    assert!(balancer.wait().success());
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(10), "the stop took {took:?}");
    assert!(!lives(replica), "a replica that ignores SIGTERM is killed");
}

#[test]
fn a_second_signal_ends_the_balancer_at_once() {
    let arguments = ["--timeout-drain", "25s", "--health-interval", "1h"];
    let mut balancer = Balancer::with_replicas(1, &arguments);
    let replica = balancer.replica_processes()[&1];
    let port = port_of(replica);
    // After the first probe there is no other for a long time.
    wait_for("the end of the probe", || (connections_to(port) == 0).then_some(()));
    kill(replica, Signal::STOP);
    let mut client = std::net::TcpStream::connect(balancer.address).unwrap();
    client.write_all(b"GET /home HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    wait_for("the request at the replica", || (connections_to(port) == 1).then_some(()));
    balancer.signal(Signal::INT);
    wait_for("the stop", || balancer.events("gracefully shutting down").pop());
    balancer.signal(Signal::TERM);
    assert_eq!(balancer.wait().code(), Some(1));
    wait_for("the end of the replica", || (!lives(replica)).then_some(()));
}
