//! What keeps slow replicas from backing up: by the real binary, over servers that hold requests
//! until a test lets them go.

mod admission;
mod api;
mod bounded;
mod controller;

use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use serde_json::Value;

use crate::conformance::client::Client;
use crate::conformance::over;
use crate::conformance::upstream::{Exchange, Then, Upstream};
use crate::support::{Balancer, PATIENCE, request, wait_for};

/// Quick probes, patient enough for a busy machine.
const QUICK: [&str; 4] = ["--health-interval", "100ms", "--health-timeout", "2s"];

/// A server that answers everything at once but `/hold`, which it keeps until it is let go.
pub(crate) struct Holding {
    pub(crate) upstream: Upstream,
    gate: Arc<Gate>,
}

#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
}

/// Three of them behind a balancer.
pub(crate) struct Held {
    pub(crate) servers: [Holding; 3],
    pub(crate) balancer: Balancer,
}

// === impl Holding ===

impl Holding {
    pub(crate) fn start(name: &str) -> Self {
        let gate = Arc::<Gate>::default();
        let (kept, length, name) = (Arc::clone(&gate), name.len(), name.to_owned());
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{name}");
        let upstream = Upstream::start(move |exchange: &mut Exchange<'_>| {
            if exchange.head.target() == "/hold" {
                kept.wait();
            }
            if !exchange.read_body() {
                return Then::Close;
            }
            exchange.write(answer.as_bytes());
            Then::GoOn
        });
        Self { upstream, gate }
    }

    pub(crate) fn let_go(&self) {
        *self.gate.open.lock().unwrap() = true;
        self.gate.opened.notify_all();
    }

    pub(crate) fn name(&self) -> String {
        self.upstream.address.to_string()
    }

    /// How many requests of `/hold` have come.
    pub(crate) fn holds(&self) -> usize {
        self.upstream.seen_with("/hold").len()
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.let_go();
    }
}

// === impl Gate ===

impl Gate {
    fn wait(&self) {
        let deadline = Instant::now() + PATIENCE;
        let mut open = self.open.lock().unwrap();
        while !*open {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            open = self.opened.wait_timeout(open, left).unwrap().0;
        }
    }
}

// === impl Held ===

impl Held {
    pub(crate) fn start(flags: &[&str]) -> Self {
        let servers = ["a", "b", "c"].map(Holding::start);
        let upstreams = servers.each_ref().map(|server| &server.upstream);
        let balancer = over(&upstreams, &[&QUICK[..], flags].concat());
        Self { servers, balancer }
    }

    pub(crate) fn names(&self) -> [String; 3] {
        self.servers.each_ref().map(Holding::name)
    }

    /// Keys of each server, two of each.
    pub(crate) fn keys(&self) -> [Vec<String>; 3] {
        let mut keys = [const { Vec::new() }; 3];
        for id in 0..200 {
            let place = self.place_of(&answered_by(&self.balancer, &id.to_string()));
            if keys[place].len() < 2 {
                keys[place].push(id.to_string());
            }
        }
        assert!(keys.iter().all(|keys| keys.len() == 2), "{keys:?}");
        keys
    }

    fn place_of(&self, name: &str) -> usize {
        ["a", "b", "c"].iter().position(|known| *known == name).unwrap()
    }

    /// Sends `count` requests of `/hold` with this key and waits until the server of the key has
    /// them.
    pub(crate) fn hold(&self, key: &str, count: usize, place: usize) -> Vec<Client> {
        let before = self.servers[place].holds();
        let held = hold(&self.balancer, key, count);
        wait_for("held requests", || (self.servers[place].holds() >= before + count).then_some(()));
        held
    }
}

/// Requests of `/hold` that nobody has answered.
pub(crate) fn hold(balancer: &Balancer, key: &str, count: usize) -> Vec<Client> {
    let head = format!("GET /hold HTTP/1.1\r\nHost: a\r\nX-Request-Id: {key}\r\n\r\n");
    (0..count).map(|_| Client::sending(balancer, head.as_bytes())).collect()
}

/// The name of the server that answers a request with this key.
pub(crate) fn answered_by(balancer: &Balancer, key: &str) -> String {
    let answer = request(balancer.address, "GET", "/who", &[("X-Request-Id", key)], b"");
    assert_eq!(answer.status, 200, "{answer:?}");
    String::from_utf8(answer.body).unwrap()
}

/// A call of the overload API.
pub(crate) fn call(balancer: &Balancer, method: &str, path: &str) -> Value {
    let answer = request(balancer.admin, method, &format!("/loadbalancer/{path}"), &[], b"");
    assert_eq!(answer.status, 200, "{method} {path}: {answer:?}");
    assert_eq!(answer.headers["content-type"], "application/json", "{answer:?}");
    answer.json()
}

/// Whether a node is enabled.
fn is_enabled(balancer: &Balancer, name: &str) -> bool {
    call(balancer, "GET", &format!("node/{name}"))["enabled"].as_bool().unwrap()
}

/// The lines of the log about nodes.
fn told(balancer: &Balancer, about: &str) -> Vec<String> {
    let lines = balancer.log();
    let messages = lines.iter().filter_map(|line| line.fields["message"].as_str());
    messages.filter(|message| message.contains(about)).map(str::to_owned).collect()
}
