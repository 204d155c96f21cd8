//! `send = "all"` delivers to members: what is down, or is being replaced, gets its requests later.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::all::failing;
use super::{QUICK, Routed, Server, ask_once, routed_with, written};
use crate::metrics::samples;
use crate::support::{Answer, Balancer, kill, lives, read_answer, request, wait_for};

/// Waits for longer than a test does before it tries again: what is delivered in time is delivered
/// because the member is back.
const ALL: &str = "[[route]]\npaths = [\"/register\"]\nsend = \"all\"\nattempts = \"unlimited\"\n\
    backoff = { base = \"5m\", max = \"5m\" }\n";

/// The entries that one or more replicas write.
struct Journal(UdpSocket);

/// A request whose answer has not been read.
struct Waiting(TcpStream);

impl Journal {
    fn open() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        Self(socket)
    }

    fn address(&self) -> String {
        self.0.local_addr().unwrap().to_string()
    }

    /// Returns the new entries: which process wrote which id. A replica writes an entry before it
    /// answers.
    fn entries(&self) -> Vec<(SocketAddr, String)> {
        let mut buffer = [0; 1_024];
        let next = || {
            let (length, from) = self.0.recv_from(&mut buffer).ok()?;
            Some((from, String::from_utf8(buffer[..length].to_vec()).unwrap()))
        };
        std::iter::from_fn(next).collect()
    }

    fn ids(&self) -> Vec<String> {
        let mut ids: Vec<String> = self.entries().into_iter().map(|(_, id)| id).collect();
        ids.sort();
        ids
    }
}

impl Waiting {
    fn post(balancer: &Balancer, id: &str) -> Self {
        let mut stream = TcpStream::connect(balancer.address).unwrap();
        let head = format!(
            "POST /register?secret=1 HTTP/1.1\r\nHost: a\r\nX-Request-Id: {id}\r\n\
             Connection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        Self(stream)
    }

    /// Reports whether nothing of an answer comes within 20 ms.
    fn waits(&mut self) -> bool {
        self.0.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let read = self.0.read(&mut [0]);
        matches!(read, Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
    }

    fn answer(mut self) -> Answer {
        self.0.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
        read_answer(&mut self.0, false).unwrap()
    }
}

/// A balancer over these servers, all of them ready.
fn over_servers(servers: &[&Server], text: &str, flags: &[&str]) -> Balancer {
    let list: Vec<String> = servers.iter().map(|server| server.address.to_string()).collect();
    let (list, file) = (list.join(","), written(text));
    let config = ["--servers", &list, "--config", file.path().to_str().unwrap()];
    let balancer = Balancer::start(&[&QUICK[..], &config, flags].concat());
    balancer.wait_for_replicas(servers.len());
    balancer
}

/// Waits until a server does not take requests any more.
fn is_out(balancer: &Balancer, server: &Server) {
    let name = server.address.to_string();
    wait_for("the server to be out", || {
        let answer = request(balancer.admin, "GET", "/admin/fleet", &[], b"");
        let replicas = answer.json()["message"]["replicas"].clone();
        let replica = replicas.as_array()?.iter().find(|one| one["hostname"] == name)?.clone();
        (replica["state"] != "ready").then_some(())
    });
}

fn deliveries(balancer: &Balancer) -> f64 {
    samples(balancer)["balancer_deliveries"]
}

#[test]
fn a_server_that_is_down_gets_every_request_once_it_is_back() {
    let journals = [(); 3].map(|()| Journal::open());
    let mut servers = [0, 1, 2].map(|place: usize| {
        let journal = journals[place].address();
        Server::start(&place.to_string(), &["--journal", &journal])
    });
    let balancer = over_servers(&servers.each_ref(), ALL, &[]);
    servers[2].kill();
    is_out(&balancer, &servers[2]);
    let mut waiting: Vec<Waiting> =
        (0..5).map(|id| Waiting::post(&balancer, &format!("id-{id}"))).collect();
    assert!(waiting.iter_mut().all(Waiting::waits), "one of three does not have it");
    assert_eq!(deliveries(&balancer), 5.0);

    servers[2] = Server::start_at(servers[2].address, "2", &["--journal", &journals[2].address()]);
    for waiting in waiting {
        assert_eq!(waiting.answer().status, 201);
    }
    let expected: Vec<String> = (0..5).map(|id| format!("id-{id}")).collect();
    for journal in &journals {
        assert_eq!(journal.ids(), expected);
    }
    wait_for("the gauge", || (deliveries(&balancer) == 0.0).then_some(()));
}

#[test]
fn the_next_replica_of_a_seat_gets_what_the_killed_one_missed() {
    let (journal, file) = (Journal::open(), written(ALL));
    let env = format!("SERVER_JOURNAL={}", journal.address());
    let config = ["--config", file.path().to_str().unwrap(), "--env", &env];
    let delay = ["--env", "SERVER_START_DELAY=500ms", "--replicas", "3"];
    let balancer = Balancer::start(&[&QUICK[..], &config, &delay].concat());
    balancer.wait_for_replicas(3);
    for (round, seat) in [2, 3].into_iter().enumerate() {
        let victim = balancer.replica_processes()[&seat];
        kill(victim, Signal::KILL);
        wait_for("its end", || (!lives(victim)).then_some(()));
        // The first finds a table with the dead replica, the second may find none of its seat.
        let ids = ["a", "b"].map(|id| format!("{id}{round}"));
        let mut first = Waiting::post(&balancer, &ids[0]);
        assert!(first.waits(), "the next replica is not ready");
        let second = Waiting::post(&balancer, &ids[1]);
        assert_eq!((first.answer().status, second.answer().status), (201, 201));
        let mut by_id: BTreeMap<String, Vec<SocketAddr>> = BTreeMap::new();
        for (from, id) in journal.entries() {
            by_id.entry(id).or_default().push(from);
        }
        for id in &ids {
            let from = BTreeSet::from_iter(&by_id[id]);
            assert_eq!((from.len(), by_id[id].len()), (3, 3), "{id}: {by_id:?}");
        }
    }
}

#[test]
fn among_ready_leaves_out_who_is_not_ready() {
    let mut servers = ["0", "1"].map(|id| Server::start(id, &[]));
    let balancer = over_servers(&servers.each_ref(), &format!("{ALL}among = \"ready\""), &[]);
    servers[1].kill();
    is_out(&balancer, &servers[1]);
    assert_eq!(Waiting::post(&balancer, "1").answer().status, 201);
    servers[0].kill();
    is_out(&balancer, &servers[0]);
    let answer = Waiting::post(&balancer, "2").answer();
    assert_eq!((answer.status, answer.message()), (503, "<Error> no replica is ready".to_owned()));
}

#[test]
fn a_member_that_is_removed_leaves_the_delivery() {
    let mut servers = ["0", "1"].map(|id| Server::start(id, &[]));
    let balancer = over_servers(&servers.each_ref(), ALL, &[]);
    servers[1].kill();
    is_out(&balancer, &servers[1]);
    let mut waiting = Waiting::post(&balancer, "1");
    assert!(waiting.waits());
    let body = format!(r#"{{"n": 1, "hostnames": ["{}"]}}"#, servers[1].address);
    assert_eq!(balancer.json("DELETE", "/rm", &body).status, 200);
    assert_eq!(waiting.answer().status, 201);
}

#[test]
fn attempts_may_be_unlimited() {
    let text = "[[route]]\npaths = [\"/register\"]\nsend = \"all\"\nattempts = \"unlimited\"\n\
                backoff = { base = \"1ms\", max = \"1ms\", jitter = \"0s\" }";
    let (flaky, came) = failing(300);
    let Routed { balancer, file: _file } = routed_with(&[&flaky], text, &[]);
    assert_eq!(ask_once(&balancer, "POST /register", "").status, 201);
    assert_eq!(came.lock().unwrap().len(), 301);
}

#[test]
fn more_deliveries_than_allowed_are_refused() {
    let mut servers = ["0", "1"].map(|id| Server::start(id, &[]));
    let flags = ["--limit-deliveries", "2"];
    let balancer = over_servers(&servers.each_ref(), ALL, &flags);
    servers[1].kill();
    is_out(&balancer, &servers[1]);
    let waiting = ["1", "2"].map(|id| Waiting::post(&balancer, id));
    wait_for("both", || (deliveries(&balancer) == 2.0).then_some(()));
    let refused = Waiting::post(&balancer, "3").answer();
    assert_eq!(refused.status, 503);
    let why = "<Error> too many requests to several replicas are in progress: \
               'limits.deliveries' allows 2";
    assert_eq!(refused.message(), why);
    assert!(refused.headers.contains_key("retry-after"), "{refused:?}");
    // Others are not concerned.
    assert_eq!(balancer.get("/home").status, 200);
    servers[1] = Server::start_at(servers[1].address, "1", &[]);
    for waiting in waiting {
        assert_eq!(waiting.answer().status, 201);
    }
    assert_eq!(Waiting::post(&balancer, "4").answer().status, 201);
}

#[test]
fn a_balancer_that_stops_reports_what_it_could_not_deliver() {
    let mut servers = ["0", "1", "2"].map(|id| Server::start(id, &[]));
    let mut balancer = over_servers(&servers.each_ref(), ALL, &["--timeout-drain", "1s"]);
    servers[2].kill();
    is_out(&balancer, &servers[2]);
    let gone = Waiting::post(&balancer, "1");
    let _waits = Waiting::post(&balancer, "2");
    wait_for("both", || (deliveries(&balancer) == 2.0).then_some(()));
    drop(gone);
    let began = Instant::now();
    balancer.signal(Signal::TERM);
    assert_eq!(balancer.wait().code(), Some(1), "deliveries were given up");
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    let reports = wait_for("the reports", || {
        let reports = balancer.events("request undelivered");
        (reports.len() == 2).then_some(reports)
    });
    let name = servers[2].address.to_string();
    for report in reports {
        let fields = &report.fields;
        assert_eq!((&fields["method"], &fields["path"]), (&"POST".into(), &"/register".into()));
        assert_eq!(
            (&fields["member"], &fields["replica"]),
            (&name.clone().into(), &name.clone().into())
        );
        assert!(fields["attempts"].as_u64().unwrap() >= 1, "{fields}");
        assert!(fields["error"].as_str().unwrap().contains("cannot connect"), "{fields}");
    }
    let told = balancer.events("deliveries given up");
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].fields["requests"], 2);
}
