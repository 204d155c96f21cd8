//! A shutdown has one deadline, whatever hangs meanwhile.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::engine::replica::Replica;
use crate::engine::{Call, Engine, Fault, World};
use crate::support::{Balancer, wait_for};

/// The deadline, and how much of it draining and stopping may take.
const DEADLINE: Duration = Duration::from_secs(3);
const TIMES: [&str; 8] = [
    "--timeout-drain",
    "1s",
    "--timeout-stop",
    "1s",
    "--timeout-shutdown",
    "3s",
    // So that replicas which do not answer are not replaced.
    "--health-interval",
    "1h",
];

/// What a busy machine may add.
const SLACK: Duration = Duration::from_millis(1_500);

/// Connections that never end by themselves: idle ones, halves of requests, requests without an
/// answer, streams of events.
fn endless(balancer: &Balancer, engine: &Engine) -> Vec<TcpStream> {
    let asked_of = |world: &World| -> usize {
        let all = world.containers.iter().filter_map(|container| container.replica.as_ref());
        all.inspect(|replica| replica.pause(true)).map(Replica::asked).sum()
    };
    let asked = asked_of(&engine.world());
    let mut all = Vec::new();
    let mut open = |to: SocketAddr, bytes: &str| {
        let mut stream = TcpStream::connect(to).unwrap();
        stream.write_all(bytes.as_bytes()).unwrap();
        all.push(stream);
    };
    let host = "HTTP/1.1\r\nHost: localhost";
    for _ in 0..3 {
        open(balancer.address, "");
        open(balancer.address, &format!("GET /home {host}\r\n\r\n"));
        open(balancer.address, &format!("POST /home {host}\r\nContent-Length: 9\r\n\r\nhalf"));
        open(balancer.admin, "");
        open(balancer.admin, "GET /rep HTT");
        open(
            balancer.admin,
            &format!("GET /admin/events {host}\r\nAccept: text/event-stream\r\n\r\n"),
        );
    }
    wait_for("requests at the replicas", || (asked_of(&engine.world()) >= asked + 6).then_some(()));
    all
}

/// Stops a balancer with five replicas while these calls hang; tells it and its exit code.
fn stopped(calls: &[Call], admin: &[&str]) -> (Balancer, Option<i32>, Engine) {
    let engine = Engine::start();
    let mut balancer = engine.balancer_with(5, &[&TIMES, admin].concat());
    engine.wait_for(5);
    let _endless = endless(&balancer, &engine);
    for call in calls {
        engine.fail(*call, Fault::Hang, None);
    }
    let began = Instant::now();
    balancer.signal(Signal::TERM);
    let code = balancer.wait().code();
    let took = began.elapsed();
    assert!(took < DEADLINE + SLACK, "{calls:?}: {took:?}");
    (balancer, code, engine)
}

#[test]
fn an_engine_that_hangs_does_not_prolong_a_shutdown() {
    for call in [Call::Stop, Call::List, Call::Remove, Call::Any] {
        let (balancer, code, engine) = stopped(&[call], &[]);
        assert_eq!(code, Some(1), "{call:?}");
        let told = balancer.events("replicas could not be stopped in time");
        assert_eq!(told.len(), 1, "{call:?}");
        let names = told[0].fields["replicas"].as_str().unwrap();
        assert_eq!(names.split(',').count(), engine.world().ours().count(), "{call:?}: {names}");
        assert!(balancer.events("shutdown complete").is_empty());
    }
}

#[test]
fn a_network_that_cannot_be_removed_does_not_prolong_a_shutdown() {
    let (balancer, code, engine) = stopped(&[Call::Network], &["--admin-listen", "127.0.0.1:0"]);
    assert_eq!(code, Some(1));
    assert_eq!(balancer.events("runtime could not be closed in time").len(), 1);
    assert_eq!(engine.world().ours().count(), 0, "all replicas are removed");
}

#[test]
fn clients_that_never_end_do_not_prolong_a_shutdown_and_are_no_failure() {
    for admin in [&[][..], &["--admin-listen", "127.0.0.1:0"]] {
        let (balancer, code, engine) = stopped(&[], admin);
        assert_eq!(code, Some(0));
        assert_eq!(balancer.events("closing connections that did not end in time").len(), 1);
        assert_eq!(balancer.events("shutdown complete").len(), 1);
        assert_eq!(engine.world().ours().count(), 0);
        assert!(engine.world().networks.is_empty());
    }
}
