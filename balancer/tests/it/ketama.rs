//! `ketama` beside a real nginx, where there is one: `hash … consistent` and we name the same owner
//! for every key.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use balancer::fleet::seat::MemberId;
use balancer::routing::placement::{Member, Placement, PlacementConfig};
use tempfile::TempDir;

use crate::support::{Balancer, PATIENCE, wait_for};

/// How many keys each fleet is asked for.
const KEYS: usize = 10_000;

/// As many requests are under way on a connection.
const BATCH: usize = 100;

/// One upstream block.
struct Fleet {
    name: &'static str,
    servers: Vec<Server>,
    /// The place of the one that is marked `down`.
    down: Option<usize>,
}

#[derive(Clone, Copy)]
struct Server {
    address: SocketAddr,
    weight: u32,
}

/// A real one, before the fleets and their servers in one; gone when dropped.
struct Nginx {
    process: Child,
    address: SocketAddr,
    _folder: TempDir,
}

/// A connection to a server that answers with a name.
struct Asking {
    stream: BufReader<TcpStream>,
}

/// nginx where PATH or Debian has it; none, and that told, where it is missing. In CI that is a
/// failure.
fn nginx() -> Option<&'static str> {
    let found = ["nginx", "/usr/sbin/nginx"].into_iter().find(|nginx| {
        let output = Command::new(nginx).arg("-v").output();
        output.is_ok_and(|output| output.status.success())
    });
    if found.is_none() {
        let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
        assert!(!ci, "nginx is missing: Debian has it in the package 'nginx-light'");
        // A closed stderr is no failure of the test.
        let _said = writeln!(std::io::stderr(), "ketama: skipped: nginx is missing");
    }
    found
}

/// Free ports of these addresses, all of them different.
fn free(addresses: &[IpAddr]) -> Vec<SocketAddr> {
    let taken: Vec<TcpListener> =
        addresses.iter().map(|address| TcpListener::bind((*address, 0)).unwrap()).collect();
    taken.iter().map(|listener| listener.local_addr().unwrap()).collect()
}

/// A fleet with these weights; its servers are at `address` each, at ports of their own.
fn fleet(name: &'static str, address: impl Fn(usize) -> IpAddr, weights: &[u32]) -> Fleet {
    let addresses: Vec<IpAddr> = (0..weights.len()).map(address).collect();
    let servers = free(&addresses).into_iter().zip(weights);
    let servers = servers.map(|(address, weight)| Server { address, weight: *weight }).collect();
    Fleet { name, servers, down: None }
}

/// One address of this machine, and several.
fn here(_: usize) -> IpAddr {
    Ipv4Addr::LOCALHOST.into()
}

fn there(place: usize) -> IpAddr {
    Ipv4Addr::new(127, 0, 0, u8::try_from(place + 1).unwrap()).into()
}

fn fleets() -> Vec<Fleet> {
    let mut fleets = vec![
        fleet("equal", here, &[1; 3]),
        fleet("weighted", here, &[1, 2, 3, 1, 5]),
        fleet("large", there, &[1; 8]),
        Fleet { down: Some(1), ..fleet("down", there, &[1; 4]) },
        Fleet { down: Some(2), ..fleet("heavy-down", here, &[2, 1, 5, 1]) },
    ];
    // A machine may have no IPv6.
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
        fleets.push(fleet("six", |_| Ipv6Addr::LOCALHOST.into(), &[1, 3, 1]));
    } else {
        let _said = writeln!(std::io::stderr(), "ketama: skipped: there is no IPv6");
    }
    fleets
}

// === impl Fleet ===

impl Fleet {
    fn upstream(&self) -> String {
        let mut text =
            format!("upstream {} {{ hash $arg_key consistent; keepalive 4;\n", self.name);
        for (place, Server { address, weight }) in self.servers.iter().enumerate() {
            let down = if self.down == Some(place) { " down" } else { "" };
            writeln!(text, "server {address} weight={weight}{down};").unwrap();
        }
        text + "}\n"
    }

    fn servers(&self) -> String {
        let answer = |Server { address, .. }: &Server| {
            format!("server {{ listen {address}; location / {{ return 200 \"{address}\"; }} }}\n")
        };
        self.servers.iter().map(answer).collect()
    }

    fn placement(&self) -> Placement {
        let member =
            |server: &Server| Member::new(MemberId::Address(server.address), server.weight);
        let members: Vec<Member> = self.servers.iter().map(member).collect();
        Placement::build(&PlacementConfig::Ketama, &members).unwrap()
    }

    /// The first owner that is up.
    fn owner(&self, placement: &Placement, key: &str) -> String {
        let down = self.down.map(|place| MemberId::Address(self.servers[place].address));
        let mut owners =
            placement.owners(key.as_bytes()).map(|owner| placement.members()[owner].id);
        owners.find(|owner| Some(*owner) != down).unwrap().to_string()
    }
}

// === impl Nginx ===

impl Nginx {
    fn start(program: &str, fleets: &[Fleet]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Free now; who else would take it in the next moment takes the next one.
        let address = free(&[Ipv4Addr::LOCALHOST.into()])[0];
        let mut text = "daemon off; master_process off; pid nginx.pid;\n\
             events { worker_connections 512; }\n\
             http { access_log off; keepalive_requests 1000000; server_tokens off;\n\
             client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;\n\
             uwsgi_temp_path uwsgi; scgi_temp_path scgi;\n\
             proxy_http_version 1.1; proxy_set_header Connection \"\";\n"
            .to_owned();
        let mut places = String::new();
        for fleet in fleets {
            text += &fleet.upstream();
            text += &fleet.servers();
            let name = fleet.name;
            writeln!(places, "location /{name} {{ proxy_pass http://{name}; }}").unwrap();
        }
        write!(text, "server {{ listen {address};\n{places}}}\n}}\n").unwrap();
        let config = folder.path().join("nginx.conf");
        std::fs::write(&config, text).unwrap();
        let process = Command::new(program)
            .arg("-p")
            .arg(folder.path())
            .arg("-c")
            .arg(&config)
            .args(["-e", "stderr"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let nginx = Self { process, address, _folder: folder };
        wait_for("nginx", || TcpStream::connect(address).ok());
        nginx
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill.
        let _killed = self.process.kill();
        let _ended = self.process.wait();
    }
}

// === impl Asking ===

impl Asking {
    fn at(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    /// Who answers `/PATH?key=KEY`, for each key.
    fn names(&mut self, path: &str, keys: &[String]) -> Vec<String> {
        let mut names = Vec::new();
        for batch in keys.chunks(BATCH) {
            let mut requests = String::new();
            for key in batch {
                write!(requests, "GET /{path}?key={key} HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
            }
            self.stream.get_mut().write_all(requests.as_bytes()).unwrap();
            names.extend(batch.iter().map(|_| self.answer()));
        }
        names
    }

    fn answer(&mut self) -> String {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(self.stream.read_line(&mut head).unwrap(), 0, "cut short: {head}");
        }
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let length = head.to_ascii_lowercase();
        let length = length.split_once("content-length:").unwrap().1.lines().next().unwrap().trim();
        let mut body = vec![0; length.parse().unwrap()];
        self.stream.read_exact(&mut body).unwrap();
        String::from_utf8(body).unwrap()
    }
}

#[test]
fn every_key_has_the_owner_that_nginx_gives_it() {
    let Some(program) = nginx() else { return };
    let fleets = fleets();
    let nginx = Nginx::start(program, &fleets);
    let keys: Vec<String> = (0..KEYS)
        .map(|key| if key % 2 == 0 { key.to_string() } else { format!("user-{}", key * key) })
        .collect();
    for fleet in &fleets {
        let names = Asking::at(nginx.address).names(fleet.name, &keys);
        let placement = fleet.placement();
        let owners: Vec<String> = keys.iter().map(|key| fleet.owner(&placement, key)).collect();
        let other = (0..KEYS).filter(|at| names[*at] != owners[*at]);
        let other: Vec<(&String, &String, &String)> =
            other.map(|at| (&keys[at], &names[at], &owners[at])).collect();
        assert_eq!(names.len(), KEYS);
        assert!(other.is_empty(), "{}: {} others, as {:?}", fleet.name, other.len(), other[0]);
        // All that are up are among them, or little was said.
        let up = fleet.servers.len() - usize::from(fleet.down.is_some());
        let used: std::collections::BTreeSet<String> = names.into_iter().collect();
        assert_eq!(used.len(), up, "{}: {used:?}", fleet.name);
    }
}

#[test]
fn the_balancer_sends_every_request_where_nginx_does() {
    let Some(program) = nginx() else { return };
    let fleets = [fleet("weighted", here, &[1, 2, 3, 1, 5])];
    let nginx = Nginx::start(program, &fleets);
    let servers: Vec<String> = fleets[0]
        .servers
        .iter()
        .map(|Server { address, weight }| format!("{address} weight={weight}"))
        .collect();
    let balancer = Balancer::start(&[
        "--servers",
        &servers.join(","),
        "--placement",
        "ketama",
        "--key",
        "query:key",
        "--health-interval",
        "100ms",
    ]);
    balancer.wait_for_replicas(5);
    let keys: Vec<String> = (0..500).map(|key| format!("key-{key}")).collect();
    let by_nginx = Asking::at(nginx.address).names("weighted", &keys);
    let by_us = Asking::at(balancer.address).names("weighted", &keys);
    assert_eq!(by_us, by_nginx);
}
