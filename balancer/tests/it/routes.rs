//! Routes: the real binary over listed servers, scripted ones and real ones, with a configuration
//! file as users write it.

mod all;
mod bodies;
mod ending;
mod examples;
mod first;
mod hedge;
mod matching;
mod members;
mod policies;
mod reload;
mod sticky;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use tempfile::NamedTempFile;

use crate::conformance::client::{Answer, Client};
use crate::conformance::over;
use crate::conformance::upstream::{Exchange, Then, Upstream};
use crate::support::{Balancer, wait_for};

/// Quick probes, patient enough for a busy machine.
const QUICK: [&str; 4] = ["--health-interval", "100ms", "--health-timeout", "2s"];

/// A balancer and its configuration file.
struct Routed {
    balancer: Balancer,
    file: NamedTempFile,
}

/// A real replica in a process of its own; killed when dropped.
struct Server {
    child: Child,
    address: SocketAddr,
}

/// A balancer over these servers, all of them ready, with this configuration; its requests are
/// shared by two threads.
fn routed(upstreams: &[&Upstream], text: &str) -> Routed {
    routed_with(upstreams, text, &["--workers", "2"])
}

/// The same, with flags.
fn routed_with(upstreams: &[&Upstream], text: &str, flags: &[&str]) -> Routed {
    let file = written(text);
    let config = ["--config", file.path().to_str().unwrap()];
    let balancer = over(upstreams, &[&QUICK[..], &config, flags].concat());
    Routed { balancer, file }
}

fn written(text: &str) -> NamedTempFile {
    let file = NamedTempFile::with_suffix(".toml").unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

/// An answer with a body.
fn saying(status: u16, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status} Said\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
}

/// A server that answers everything with its name.
fn named(name: &str) -> Upstream {
    let answer = saying(200, name);
    Upstream::start(move |exchange| say(exchange, &answer))
}

/// A server that answers everything with this status.
fn always(status: u16) -> Upstream {
    let answer = saying(status, "");
    Upstream::start(move |exchange| say(exchange, &answer))
}

/// Takes the whole request and answers.
fn say(exchange: &mut Exchange<'_>, answer: &[u8]) -> Then {
    if !exchange.read_body() {
        return Then::Close;
    }
    exchange.write(answer);
    Then::GoOn
}

/// Three servers, by name.
fn three() -> [Upstream; 3] {
    ["a", "b", "c"].map(named)
}

/// One more request on a connection that stays, and its answer.
fn ask(client: &mut Client, line: &str, fields: &str) -> Answer {
    client.send(format!("{line} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n").as_bytes());
    let method = line.split(' ').next().unwrap();
    client.answer(method).unwrap_or_else(|broken| panic!("{line}: {broken}"))
}

/// A request on a connection of its own.
fn ask_once(balancer: &Balancer, line: &str, fields: &str) -> Answer {
    ask(&mut Client::of(balancer), line, fields)
}

/// The body of an answer as text.
fn text(answer: &Answer) -> String {
    String::from_utf8(answer.body.data.clone()).unwrap()
}

/// The place of the server that the default route sends requests with this id to.
fn owner(balancer: &Balancer, upstreams: &[&Upstream], id: &str) -> usize {
    let marker = format!("/who-owns-{id}");
    let fields = format!("X-Request-Id: {id}\r\n");
    assert_eq!(ask_once(balancer, &format!("GET {marker}"), &fields).status, 200);
    let owners: Vec<usize> = (0..upstreams.len())
        .filter(|place| !upstreams[*place].seen_with(&marker).is_empty())
        .collect();
    let [owner] = owners[..] else { panic!("{owners:?} have seen {marker}") };
    owner
}

/// How `/rep` and answers call a listed server.
fn name_of(upstream: &Upstream) -> String {
    upstream.address.to_string()
}

/// A list of failures as the client gets it.
fn failures(of: &[(&str, u32, &str)]) -> String {
    let one = |(replica, attempts, error): &(&str, u32, &str)| {
        format!(r#"{{"replica":"{replica}","attempts":{attempts},"error":"{error}"}}"#)
    };
    let all: Vec<String> = of.iter().map(one).collect();
    format!(r#"{{"message":[{}],"status":"failure"}}"#, all.join(","))
}

// === impl Server ===

impl Server {
    /// Starts one at a free port; another one where somebody was faster.
    fn start(id: &str, flags: &[&str]) -> Self {
        wait_for("a server", || {
            let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            Self::try_start(free, id, flags)
        })
    }

    /// Starts one where there was one before.
    fn start_at(address: SocketAddr, id: &str, flags: &[&str]) -> Self {
        wait_for("a server", || Self::try_start(address, id, flags))
    }

    fn try_start(address: SocketAddr, id: &str, flags: &[&str]) -> Option<Self> {
        let child = Command::new(env!("CARGO_BIN_EXE_balancer"))
            .args(["replica", "--listen", &address.to_string(), "--server-id", id])
            .args(flags)
            // Many shells export it.
            .env_remove("USERNAME")
            .stdout(Stdio::null())
            .spawn();
        let mut server = Self { child: child.unwrap(), address };
        let listens = wait_for("a server to listen or end", || {
            let ended = server.child.try_wait().unwrap().is_some();
            (ended || TcpStream::connect(address).is_ok()).then_some(!ended)
        });
        listens.then_some(server)
    }

    /// Ends it as a crash would.
    fn kill(&mut self) {
        // It may have ended already.
        let _killed = self.child.kill();
        let _ended = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
