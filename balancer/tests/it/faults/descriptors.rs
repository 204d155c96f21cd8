//! Descriptors run out: a flood of idle connections, under a small limit of open files.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{greeting, processor_time, seat_in};
use crate::conformance::client::Client;
use crate::conformance::upstream::{OK, Then, Upstream};
use crate::engine::replica::Replica;
use crate::support::{Answer, Balancer, kill, try_request, wait_for};

/// How many descriptors a process has open.
fn open_files(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// A thousand connections on which nothing is asked.
fn flood(balancer: &Balancer) -> Vec<TcpStream> {
    (0..1_000).map(|_| TcpStream::connect(balancer.address).unwrap()).collect()
}

/// One more request on a connection that stands.
fn ask(client: &mut TcpStream) -> bool {
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    client.write_all(b"GET /home HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut answer = [0; 4_096];
    client.read(&mut answer).is_ok_and(|read| answer[..read].starts_with(b"HTTP/1.1 200"))
}

/// Asserts that a balancer uses less than a fifth of a core until `until` gives something.
fn idles<T>(balancer: &Balancer, what: &str, until: impl FnMut() -> Option<T>) {
    let (began, used) = (Instant::now(), processor_time(balancer.pid()));
    wait_for(what, until);
    let (took, used) = (began.elapsed(), processor_time(balancer.pid()) - used);
    assert!(took >= Duration::from_secs(1), "{took:?} tell nothing");
    assert!(used < took / 5, "{used:?} of processor time within {took:?}");
}

#[test]
fn with_256_descriptors_a_flood_of_idle_connections_ejects_nobody_and_ends() {
    let local = SocketAddr::from(([127, 0, 0, 1], 0));
    let servers = [1, 2, 3].map(|name| Replica::start(local, &name.to_string()).unwrap());
    let list: Vec<String> = servers.iter().map(|server| server.address.to_string()).collect();
    let balancer = Balancer::start_under(
        "-n 256",
        &["--servers", &list.join(","), "--health-interval", "50ms", "--health-timeout", "500ms"],
    );
    balancer.wait_for_replicas(3);
    let mut old = TcpStream::connect(balancer.address).unwrap();
    assert!(ask(&mut old));

    let flood = flood(&balancer);
    assert!(ask(&mut old), "who was there is served");
    let probes = || servers.iter().map(|server| server.probes().len()).min().unwrap();
    let before = probes();
    idles(&balancer, "many probes of each", || (probes() >= before + 40).then_some(()));
    let open = open_files(balancer.pid());
    assert!(open < 220, "{open} of 256 descriptors: no reserve");
    assert!(ask(&mut old), "who was there is served");
    assert!(balancer.events("replica is ejected").is_empty());

    drop(flood);
    wait_for("an answer to a new client", || {
        let answer = try_request(balancer.address, "GET", "/home", &[], b"").ok()?;
        (answer.status == 200).then_some(())
    });
    assert!(ask(&mut old));
}

#[test]
fn with_256_descriptors_a_dead_replica_is_replaced_during_a_flood() {
    let own = ["--admin-listen", "127.0.0.1:0", "--replicas", "3"];
    let balancer = Balancer::start_under("-n 256", &own);
    balancer.wait_for_replicas(3);
    let _flood = flood(&balancer);
    let before = balancer.replica_processes();
    kill(before[&2], Signal::KILL);
    wait_for("another on its seat", || {
        let now = balancer.replica_processes();
        (now.len() == 3 && now[&2] != before[&2] && balancer.replicas().len() == 3).then_some(())
    });
    assert_eq!(balancer.json("POST", "/add", r#"{"n":3}"#).status, 200);
    assert!(balancer.events("replica is ejected").is_empty());
}

#[test]
fn where_more_connections_are_allowed_than_there_are_descriptors_for_the_reserve_is_kept() {
    let own = ["--limit-connections", "100000", "--replicas", "1", "--health-interval", "1h"];
    let balancer = Balancer::start_under("-n 256", &own);
    balancer.wait_for_replicas(1);
    assert_eq!(balancer.events(
        "'limits.connections' is more than there are descriptors for: raise the limit of open \
         files (ulimit -n)"
    ).len(), 1);
    let mut old = TcpStream::connect(balancer.address).unwrap();
    assert!(ask(&mut old));

    let flood = flood(&balancer);
    wait_for("the connections that are accepted", || {
        (open_files(balancer.pid()) >= 100).then_some(())
    });
    let began = Instant::now();
    idles(&balancer, "two seconds", || {
        let open = open_files(balancer.pid());
        assert!(open < 220, "{open} of 256 descriptors: no reserve");
        assert!(ask(&mut old), "a client that was there is served");
        (began.elapsed() > Duration::from_secs(2)).then_some(())
    });
    drop(flood);
    wait_for("an answer to a new client", || {
        let answer = try_request(balancer.address, "GET", "/home", &[], b"").ok()?;
        (answer.status == 200).then_some(())
    });
    let open = open_files(balancer.pid());
    assert!(open < 100, "{open} descriptors were left open");
}

/// Whether an answer is a good one; otherwise it must be a 503 with its reason.
fn is_good(answer: std::io::Result<Answer>) -> bool {
    let answer = answer.expect("an answer, not a reset");
    if answer.status == 200 {
        return true;
    }
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.message().starts_with("<Error> "), "{answer:?}");
    assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
    false
}

#[test]
fn more_clients_than_fit_get_200_or_an_explained_503_and_the_admin_routes_work() {
    // With 64 even the reserve is too small: connections to replicas find no descriptor.
    for (limit, admitted) in [("-n 256", 72), ("-n 64", 1)] {
        let gate = Arc::new((Mutex::new(false), Condvar::new()));
        let waits = Arc::clone(&gate);
        let upstream = Upstream::start(move |exchange| {
            let is_shut = |open: &mut bool| !*open;
            drop(waits.1.wait_while(waits.0.lock().unwrap(), is_shut).unwrap());
            exchange.write(OK);
            Then::GoOn
        });
        let server = upstream.address.to_string();
        let own = ["--servers", &server, "--health-interval", "50ms", "--workers", "2"];
        let balancer = Balancer::start_under(limit, &own);
        balancer.wait_for_replicas(1);
        let good = std::thread::scope(|scope| {
            let ask = || is_good(try_request(balancer.address, "GET", "/x", &[], b""));
            let clients: Vec<_> = (0..300).map(|_| scope.spawn(ask)).collect();
            assert!(upstream.sees(admitted), "{limit}: {} requests", upstream.seen().len());
            for _ in 0..10 {
                let rep = try_request(balancer.address, "GET", "/rep", &[], b"").unwrap();
                assert_eq!(rep.status, 200, "{limit}: {rep:?}");
            }
            let surplus = ask();
            assert!(limit == "-n 64" || !surplus, "there is no room for another one");
            *gate.0.lock().unwrap() = true;
            gate.1.notify_all();
            clients.into_iter().map(|client| client.join().unwrap()).filter(|good| *good).count()
        });
        assert!((admitted..300).contains(&good), "{limit}: {good} of 300");
        assert!(balancer.events("replica is ejected").is_empty(), "{limit}");
        assert!(is_good(try_request(balancer.address, "GET", "/x", &[], b"")), "{limit}: after it");
    }
}

#[test]
fn with_256_descriptors_connections_that_are_kept_for_later_make_room_for_others() {
    let local = SocketAddr::from(([127, 0, 0, 1], 0));
    let servers = [1, 2, 3].map(|name| Replica::start(local, &name.to_string()).unwrap());
    let list: Vec<String> = servers.iter().map(|server| server.address.to_string()).collect();
    let own = ["--servers", &list.join(","), "--workers", "2"];
    let balancer = Balancer::start_under("-n 256", &own);
    balancer.wait_for_replicas(3);
    for (name, server) in (1..).zip(&servers) {
        let id = (0..).find(|id| seat_in(&greeting(&balancer, *id)) == Some(name)).unwrap();
        let before = server.asked();
        server.pause(true);
        // As many at once as may be, each with a connection to this one replica.
        let mut clients: Vec<TcpStream> =
            (0..60).map(|_| TcpStream::connect(balancer.address).unwrap()).collect();
        for client in &mut clients {
            let head = format!("GET /home HTTP/1.1\r\nHost: a\r\nX-Request-Id: {id}\r\n\r\n");
            client.write_all(head.as_bytes()).unwrap();
        }
        wait_for("sixty requests", || (server.asked() == before + 60).then_some(()));
        server.pause(false);
        for client in &mut clients {
            let mut answer = [0; 4_096];
            let read = client.read(&mut answer).unwrap();
            assert!(answer[..read].starts_with(b"HTTP/1.1 200"), "replica {name}");
        }
    }
    let all = wait_for("the end of the clients", || {
        Some(open_files(balancer.pid())).filter(|open| *open < 100)
    });
    assert!(all > 20, "some connections are kept, in {all} descriptors");
    assert!(balancer.events("replica is ejected").is_empty());
}

#[test]
fn where_more_replicas_are_asked_than_connections_kept_the_longest_idle_make_room() {
    let servers: Vec<Upstream> = (0..60).map(|_| Upstream::playing()).collect();
    let list: Vec<String> = servers.iter().map(|server| server.address.to_string()).collect();
    let own = ["--servers", &list.join(","), "--workers", "1"];
    let balancer = Balancer::start_under("-n 256", &own);
    balancer.wait_for_replicas(60);
    let mut client = Client::of(&balancer);
    let mut ask = |key: u32| {
        let head = format!("GET /home HTTP/1.1\r\nHost: a\r\nX-Request-Id: {key}\r\n\r\n");
        client.send(head.as_bytes());
        assert_eq!(client.must_answer("a request").status, 200);
    };
    ask(0);
    let often = servers.iter().find(|server| !server.seen().is_empty()).unwrap();
    for key in 1..400 {
        ask(key);
        ask(0);
    }
    assert!(often.seen().len() >= 400);
    assert_eq!(often.connections(), 1, "it is never idle for longest");
    let others = servers.iter().map(Upstream::connections).filter(|made| *made > 1).count();
    assert!(others > 30, "{others} of 60 were let go of: fewer than that are kept");
}

#[test]
fn the_limit_of_open_files_is_raised_as_far_as_it_may_be() {
    let balancer = Balancer::start_under("-Sn 300", &["--replicas", "0"]);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", balancer.pid())).unwrap();
    let open = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let numbers: Vec<u64> = open.split_whitespace().flat_map(str::parse).collect();
    let [soft, hard] = numbers[..] else { panic!("{open}") };
    assert_eq!(soft, hard.min(1 << 20), "{open}");
}
