//! Each file of `balancer/examples/` does what its comments say, before real servers. (The one
//! with containers is in `docker.rs`.)

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;

use balancer::fleet::seat::MemberId;
use balancer::routing::placement::{Member, Placement, PlacementConfig};

use super::{QUICK, Server, ask, ask_once, text, written};
use crate::conformance::client::Client;
use crate::metrics::samples;
use crate::support::{Balancer, request, wait_for};

/// Where an example is.
pub(crate) fn example(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/examples")).join(name)
}

/// The real servers that an example lists, on ports of their own, and the balancer before them.
fn run(config: &str, servers: &[Server]) -> Balancer {
    let list: Vec<String> = servers.iter().map(|server| server.address.to_string()).collect();
    let flags = ["--config", config, "--servers", &list.join(","), "--listen", "127.0.0.1:0"];
    let balancer = Balancer::start(&[&flags[..], &QUICK].concat());
    balancer.wait_for_replicas(servers.len());
    balancer
}

fn run_example(name: &str, servers: &[Server]) -> Balancer {
    run(example(name).to_str().unwrap(), servers)
}

fn servers(flags: &[&str]) -> [Server; 3] {
    ["1", "2", "3"].map(|id| Server::start(id, flags))
}

/// Who answers so many requests.
fn greeters(client: &mut Client, requests: usize, fields: &str) -> Vec<char> {
    let greetings = (0..requests).map(|_| {
        let answer = ask(client, "GET /home", fields);
        assert_eq!(answer.status, 200);
        text(&answer).split_once("Server: ").unwrap().1.chars().next().unwrap()
    });
    greetings.collect()
}

/// What a server tells of the POSTs that it has carried out, by their ids.
struct Journal {
    address: String,
    entries: Arc<Mutex<Vec<String>>>,
}

impl Journal {
    /// Reads all the time: a socket does not hold many.
    fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap().to_string();
        let entries = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&entries);
        thread::spawn(move || {
            let mut buffer = [0; 1_024];
            while let Ok(length) = socket.recv(&mut buffer) {
                let entry = String::from_utf8_lossy(&buffer[..length]).into_owned();
                kept.lock().unwrap().push(entry);
            }
        });
        Self { address, entries }
    }

    fn entries(&self) -> Vec<String> {
        self.entries.lock().unwrap().clone()
    }
}

#[test]
fn round_robin_asks_the_listed_servers_in_turn() {
    let servers = servers(&[]);
    let balancer = run_example("round-robin.toml", &servers);
    let names = greeters(&mut Client::of(&balancer), 30, "");
    for turn in 3..names.len() {
        assert_eq!(names[turn], names[turn - 3], "{names:?}");
    }
    assert_eq!(names.into_iter().collect::<BTreeSet<_>>(), BTreeSet::from(['1', '2', '3']));
}

#[test]
fn fanout_all_has_each_of_a_thousand_changes_made_once_at_each_server() {
    const CLIENTS: usize = 8;
    const EACH: usize = 125;
    let journals = [(); 3].map(|()| Journal::start());
    let servers = ["1", "2", "3"].map(|id| {
        let journal = &journals[id.parse::<usize>().unwrap() - 1].address;
        let flags = ["--journal", journal, "--skip-some-requests"];
        Server::start(id, if id == "2" { &flags } else { &flags[..2] })
    });
    let patient = std::fs::read_to_string(example("fanout-all.toml")).unwrap();
    let quick = patient.replace("base = \"1s\"", "base = \"2ms\"");
    let quick = quick.replace("max = \"64s\"", "max = \"20ms\"");
    let quick = quick.replace("jitter = \"100ms\"", "jitter = \"1ms\"");
    assert!(!["\"1s\"", "\"64s\"", "\"100ms\""].iter().any(|slow| quick.contains(slow)), "{quick}");
    let file = written(&quick);
    let balancer = run(file.path().to_str().unwrap(), &servers);
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let balancer = &balancer;
            scope.spawn(move || {
                let mut connection = Client::of(balancer);
                for number in 0..EACH {
                    let id = format!("X-Request-Id: {client}-{number}\r\n");
                    let answer = ask(&mut connection, "POST /register?username=ann", &id);
                    assert_eq!(answer.status, 201, "{id}: {}", text(&answer));
                }
            });
        }
    });
    for (server, journal) in journals.iter().enumerate() {
        // What is answered was told before; it is only still to be read.
        wait_for("the journal", || (journal.entries().len() >= CLIENTS * EACH).then_some(()));
        let entries = journal.entries();
        assert_eq!(entries.len(), CLIENTS * EACH, "at server {server}");
        let different: BTreeSet<String> = entries.into_iter().collect();
        assert_eq!(different.len(), CLIENTS * EACH, "at server {server}");
    }
    // The counters say so, too.
    let (samples, all) = (samples(&balancer), (CLIENTS * EACH) as f64);
    let of = |kind: &str, server: &Server| {
        let domain = server.address;
        samples[&format!("target_domain_{kind}_counter_total{{domain=\"{domain}\"}}")]
    };
    assert_eq!([0, 1, 2].map(|place| of("success", &servers[place])), [all; 3]);
    let failed = of("failed", &servers[1]);
    assert!(failed > 0.0, "one in five was dropped");
    assert_eq!(samples["Total_domains_success_counter_total"], 3.0 * all);
    assert_eq!(samples["Total_domains_failed_counter_total"], failed);
    // What only reads goes to one.
    assert_eq!(ask_once(&balancer, "GET /home", "").status, 200);
}

#[test]
fn first_success_finds_the_server_that_knows_the_user() {
    let names = ["ann", "bob", "eve"];
    let journals = [(); 3].map(|()| Journal::start());
    let servers: Vec<Server> = names
        .iter()
        .zip(&journals)
        .map(|(name, journal)| {
            Server::start(name, &["--username", name, "--journal", &journal.address])
        })
        .collect();
    let balancer = run_example("first-success.toml", &servers);
    for (name, journal) in names.iter().zip(&journals) {
        for asked in 1..=10 {
            let line = format!("POST /register?username={name}");
            let answer = ask_once(&balancer, &line, &format!("X-Request-Id: {name}-{asked}\r\n"));
            assert_eq!(answer.status, 201, "{line}: {}", text(&answer));
            wait_for("the journal", || (journal.entries().len() == asked).then_some(()));
        }
        assert!(journal.entries().iter().all(|entry| entry.starts_with(name)));
    }
    assert_eq!(ask_once(&balancer, "POST /register?username=nobody", "").status, 502);
}

#[test]
fn sticky_keeps_each_client_at_its_server() {
    let servers = servers(&[]);
    let balancer = run_example("sticky.toml", &servers);
    let mut used = BTreeSet::new();
    for _ in 0..20 {
        let mut client = Client::of(&balancer);
        let first = ask(&mut client, "GET /home", "");
        let cookie = first.head.only("Set-Cookie").unwrap();
        let cookie = format!("Cookie: {}\r\n", cookie.split(';').next().unwrap());
        let names: BTreeSet<char> = greeters(&mut client, 5, &cookie).into_iter().collect();
        assert_eq!(names.len(), 1);
        assert!(names.iter().all(|name| text(&first).contains(&format!("Server: {name}"))));
        used.extend(names);
    }
    assert!(used.len() > 1, "{used:?}");
}

#[test]
fn ketama_sends_each_uri_to_its_owner_on_nginxs_ring() {
    let servers = servers(&[]);
    let balancer = run_example("ketama.toml", &servers);
    let members = servers.each_ref().map(|it| Member::new(MemberId::Address(it.address), 1));
    let placement = Placement::build(&PlacementConfig::Ketama, &members).unwrap();
    let mut client = Client::of(&balancer);
    for user in 0..50 {
        let uri = format!("/home?user={user}");
        let owner = placement.owners(uri.as_bytes()).next().unwrap();
        let owner = placement.members()[owner].id;
        let place = members.iter().position(|member| member.id == owner).unwrap();
        let answer = ask(&mut client, &format!("GET {uri}"), "");
        let greeting = format!("Server: {}", place + 1);
        assert!(text(&answer).contains(&greeting), "{uri}: {}", text(&answer));
    }
}

#[test]
fn listed_keeps_each_address_at_one_server() {
    let servers = servers(&[]);
    let balancer = run_example("listed.toml", &servers);
    let names: BTreeSet<char> = greeters(&mut Client::of(&balancer), 10, "").into_iter().collect();
    assert_eq!(names.len(), 1);
}

#[test]
fn those_that_start_their_replicas_themselves_do_so() {
    for name in ["process.toml", "classic.toml"] {
        let file = example(name);
        let flags = ["--config", file.to_str().unwrap(), "--listen", "127.0.0.1:0"];
        let balancer = Balancer::start(&flags);
        assert_eq!(balancer.wait_for_replicas(3), ["S1", "S2", "S3"], "{name}");
        let answer = request(balancer.address, "GET", "/home", &[], b"");
        assert_eq!(answer.status, 200, "{name}");
    }
}

#[test]
fn overload_answers_more_than_its_replicas_can_take_at_once() {
    let (balancer, stats) = crowded("overload.toml");
    let nodes = stats["nodes"].as_object().unwrap();
    // ⌈1.25 · 60 / 6⌉ and what was over before the last one came.
    assert!(nodes.values().all(|node| node["requests"].as_u64().unwrap() <= 30), "{stats}");
    assert!(balancer.events("replica is ejected").is_empty());
}

#[test]
fn controller_looks_after_requests_in_turns() {
    let (balancer, stats) = crowded("controller.toml");
    let nodes = stats["nodes"].as_object().unwrap();
    assert!(nodes.values().all(|node| node["requests"] == 10), "{stats}");
    let path = "/loadbalancer/node/S1";
    let node = request(balancer.admin, "GET", path, &[], b"").json();
    assert_eq!(node["enabled"], true, "ten are not too many: {node}");
}

/// A balancer by an example with six replicas, after sixty requests that came at once, and its
/// statistics.
fn crowded(name: &str) -> (Balancer, serde_json::Value) {
    let file = example(name);
    let flags = ["--config", file.to_str().unwrap(), "--listen", "127.0.0.1:0"];
    let balancer = Balancer::start(&flags);
    balancer.wait_for_replicas(6);
    // Four at each of six are worked on at once.
    let head = b"GET /home HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut clients: Vec<Client> = (0..60).map(|_| Client::sending(&balancer, head)).collect();
    for client in &mut clients {
        assert_eq!(client.must_answer("one of many").status, 200);
    }
    let stats = request(balancer.admin, "GET", "/loadbalancer/stats", &[], b"").json();
    let stats = stats["load_balancer_stats"].clone();
    assert_eq!(stats["requests"], 60);
    (balancer, stats)
}

#[test]
fn autoscale_has_as_many_replicas_as_the_load_wants() {
    let file = example("autoscale.toml");
    let flags = ["--config", file.to_str().unwrap(), "--listen", "127.0.0.1:0"];
    let balancer = Balancer::start(&[&flags[..], &["--scale-interval", "300ms"]].concat());
    assert_eq!(balancer.wait_for_replicas(2), ["S1", "S2"]);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..24)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = Client::of(&balancer);
                    // 24 in flight are three times eight.
                    while balancer.replicas().len() < 3 {
                        greeters(&mut client, 10, "");
                    }
                })
            })
            .collect();
        for client in clients {
            client.join().unwrap();
        }
    });
}
