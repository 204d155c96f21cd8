//! Replicas that die, hang, or slow down, and strangers where they were.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use super::{Load, greeting, seat_in, wait_for_seats};
use crate::engine::replica::Replica;
use crate::engine::{Engine, PORT};
use crate::support::{
    Balancer, children_of, connections_to, kill, port_of, request, try_request, wait_for,
};

#[test]
fn a_stranger_at_a_dead_replicas_address_gets_no_request() {
    let engine = Engine::start();
    let balancer = engine.balancer_with(3, &[]);
    let seats = engine.wait_for(3);
    // Connections to all of them are kept.
    wait_for_seats(&balancer, &[1, 2, 3]);
    let address = engine.world().find(&seats[&2]).unwrap().address().unwrap();

    engine.kill(&seats[&2]);
    wait_for("the news of its death", || balancer.events("replica is dead").pop());
    let stranger = wait_for("its address", || Replica::start(address, "stranger").ok());
    assert_eq!((stranger.address.port(), stranger.asked()), (PORT, 0));
    wait_for_seats(&balancer, &[1, 2, 3]);
    for id in 0..200 {
        assert!(seat_in(&greeting(&balancer, id)).is_some());
    }
    assert_eq!(stranger.asked(), 0, "a request reached the stranger");
    assert!(stranger.probes().is_empty(), "the stranger was probed");
}

#[test]
fn connections_to_a_container_go_with_it_even_if_they_stand() {
    let engine = Engine::start();
    let balancer = engine.balancer_with(3, &[]);
    let seats = engine.wait_for(3);
    wait_for_seats(&balancer, &[1, 2, 3]);
    // The engine takes it for dead; what answers at its address, and on the connections that were
    // made to it, is somebody else by now.
    let stranger = engine.replace(&seats[&2]);
    let before = stranger.asked();
    wait_for("the news of its death", || balancer.events("replica is dead").pop());
    // Requests that were begun by then may have ended there.
    wait_for_seats(&balancer, &[1, 2, 3]);
    let settled = stranger.asked();
    assert!(settled - before <= 60, "{settled} requests");
    for id in 0..200 {
        assert!(seat_in(&greeting(&balancer, id)).is_some());
    }
    assert_eq!(stranger.asked(), settled, "a request reached the stranger");
}

/// A listed server whose host can drop out of the network: then nothing that is sent to it is
/// answered, not even with a refusal.
struct Host {
    listener: TcpListener,
    address: SocketAddr,
    reachable: Arc<AtomicBool>,
    /// What fills its queue while it is out.
    filling: Vec<TcpStream>,
}

impl Host {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let reachable = Arc::new(AtomicBool::new(true));
        let host = Self { listener, address, reachable, filling: Vec::new() };
        host.serve();
        host
    }

    /// Answers one request a connection, until it is out of the network.
    fn serve(&self) {
        rustix::net::listen(&self.listener, 128).unwrap();
        let listener = self.listener.try_clone().unwrap();
        let reachable = Arc::clone(&self.reachable);
        thread::spawn(move || {
            while reachable.load(Ordering::SeqCst) {
                let Ok((mut stream, _)) = listener.accept() else { return };
                let mut head = [0; 4_096];
                // One without a request is there to wake this up.
                if stream.read(&mut head).is_ok_and(|read| read > 0) {
                    let ok = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
                    let _read_by_nobody = stream.write_all(ok.as_bytes());
                }
            }
        });
    }

    /// From now on connections to it are neither taken nor refused: its queue is full, and the
    /// kernel drops what comes.
    fn cut(&mut self) {
        self.reachable.store(false, Ordering::SeqCst);
        drop(TcpStream::connect(self.address).unwrap());
        rustix::net::listen(&self.listener, 0).unwrap();
        wait_for("a full queue", || {
            if self.waiting() > 0 {
                return Some(());
            }
            let brief = Duration::from_millis(20);
            self.filling.extend(TcpStream::connect_timeout(&self.address, brief));
            None
        });
    }

    /// How many connections wait to be accepted: with room for none, one fills the queue.
    fn waiting(&self) -> usize {
        let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let local = format!("0100007F:{:04X}", self.address.port());
        let listening = sockets.lines().find_map(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let here = fields.next() == Some(local.as_str()) && fields.nth(1) == Some("0A");
            here.then(|| fields.next().map(str::to_owned))?
        });
        let (_, received) = listening.as_deref().and_then(|it| it.split_once(':')).unwrap();
        usize::from_str_radix(received, 16).unwrap()
    }

    fn heal(&mut self) {
        self.filling.clear();
        self.reachable.store(true, Ordering::SeqCst);
        self.serve();
    }
}

#[test]
fn a_replica_whose_packets_are_dropped_is_passed_over_and_is_back_when_it_is_healed() {
    let (mut cut, whole) = (Host::start(), Host::start());
    let servers = format!("{},{}", cut.address, whole.address);
    let fast = ["--timeout-connect", "100ms", "--health-interval", "50ms"];
    let probes = ["--health-timeout", "100ms", "--servers", &servers];
    let balancer = Balancer::start(&[&fast[..], &probes].concat());
    balancer.wait_for_replicas(2);
    cut.cut();
    let asked = Instant::now();
    for id in 0..20 {
        assert_eq!(greeting(&balancer, id).status, 200);
    }
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(4), "twenty requests took {took:?}");
    let out = wait_for("its ejection", || balancer.events("replica is ejected").pop());
    assert_eq!(out.fields["hostname"], cut.address.to_string());
    let load = Load::start(balancer.address);
    let ready = balancer.events("replica is ready").len();
    cut.heal();
    wait_for("its return", || (balancer.events("replica is ready").len() > ready).then_some(()));
    load.end();
}

#[test]
fn with_all_replicas_dead_the_answer_is_503_at_once_and_they_serve_again_by_themselves() {
    let dir = TempDir::new().unwrap();
    let flag = dir.path().join("may-start");
    std::fs::write(&flag, "").unwrap();
    let program = env!("CARGO_BIN_EXE_balancer");
    let command =
        format!("/bin/sh -c '[ -e {} ] || exit 1; exec {program} replica'", flag.display());
    let balancer = Balancer::with_replicas(3, &["--command", &command]);
    std::fs::remove_file(&flag).unwrap();
    for pid in children_of(balancer.pid()) {
        kill(pid, Signal::KILL);
    }
    wait_for("an empty fleet", || balancer.replicas().is_empty().then_some(()));
    for (method, path) in [("GET", "/home"), ("POST", "/register")] {
        let asked = Instant::now();
        let answer = request(balancer.address, method, path, &[], b"");
        assert_eq!(answer.message(), "<Error> no replica is ready");
        assert_eq!((answer.status, answer.headers["retry-after"].as_str()), (503, "1"));
        let took = asked.elapsed();
        assert!(took < Duration::from_millis(500), "{method} took {took:?}");
    }
    std::fs::write(&flag, "").unwrap();
    wait_for_seats(&balancer, &[1, 2, 3]);
}

#[test]
fn one_slow_replica_slows_only_its_own_keys() {
    let program = env!("CARGO_BIN_EXE_balancer");
    let slow = "[ $SERVER_ID = 2 ] && export SERVER_LATENCY=2s";
    let command = format!("/bin/sh -c '{slow}; exec {program} replica'");
    let balancer = Balancer::with_replicas(3, &["--command", &command, "--workers", "1"]);
    // The same seats have the same keys everywhere.
    let seats: Vec<u32> = {
        let quick = Balancer::with_replicas(3, &[]);
        (0..40).map(|id| seat_in(&greeting(&quick, id)).unwrap()).collect()
    };
    let slow_id = seats.iter().position(|seat| *seat == 2).unwrap();
    let quick: Vec<usize> = (0..40).filter(|id| seats[*id] != 2).collect();
    // Many wait at it.
    let waiting: Vec<TcpStream> = (0..100)
        .map(|_| {
            let mut stream = TcpStream::connect(balancer.address).unwrap();
            let asked = format!("GET /home HTTP/1.1\r\nHost: a\r\nX-Request-Id: {slow_id}\r\n\r\n");
            stream.write_all(asked.as_bytes()).unwrap();
            stream
        })
        .collect();
    let port = port_of(balancer.replica_processes()[&2]);
    wait_for("a queue at it", || (connections_to(port) >= 100).then_some(()));
    let asked = Instant::now();
    for id in quick.into_iter().cycle().take(50) {
        assert_eq!(seat_in(&greeting(&balancer, id as u32)), Some(seats[id]));
    }
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(2), "fifty requests elsewhere took {took:?}");
    for mut stream in waiting {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        assert!(stream.read(&mut [0; 64]).unwrap() > 0, "who waited is answered");
    }
}

#[test]
fn a_balancer_that_stops_takes_no_new_connection_and_finishes_what_it_began() {
    let arguments = ["--env", "SERVER_LATENCY=1s", "--health-interval", "1h"];
    let mut balancer = Balancer::with_replicas(1, &arguments);
    let port = port_of(balancer.replica_processes()[&1]);
    wait_for("the end of the probe", || (connections_to(port) == 0).then_some(()));
    let answer = thread::scope(|scope| {
        let begun = scope.spawn(|| balancer.get("/home"));
        wait_for("the request at the replica", || (connections_to(port) == 1).then_some(()));
        balancer.signal(Signal::TERM);
        wait_for("a refusal", || {
            let asked = try_request(balancer.address, "GET", "/home", &[], b"");
            (asked.err()?.kind() == std::io::ErrorKind::ConnectionRefused).then_some(())
        });
        begun.join().unwrap()
    });
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(balancer.wait().code(), Some(0));
}
