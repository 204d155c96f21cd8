//! A balancer by script: it speaks the overload API, remembers every call, and fails on demand.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use serde_json::{Value, json};

use crate::support::wait_for;

/// A balancer; gone when dropped.
pub(super) struct Api {
    shared: Arc<Shared>,
    address: SocketAddr,
}

#[derive(Default)]
struct Shared {
    world: Mutex<World>,
    changed: Condvar,
}

#[derive(Default)]
struct World {
    nodes: Vec<Node>,
    /// What the list has besides.
    ghosts: Vec<String>,
    /// What becomes of the calls of a kind, `GET node_list` or `POST node/a/enable`: of the next
    /// ones, or of all.
    faults: BTreeMap<String, (Fault, Option<usize>)>,
    made: Vec<Made>,
    /// Rounds that have begun.
    rounds: usize,
    /// Calls about nodes that are under way, and the most that were.
    now: usize,
    most: usize,
    /// No node is told of before so many are asked for at once.
    hold_until: usize,
    /// Which of its lives it is in, odd while it is up.
    life: u64,
    streams: Vec<TcpStream>,
}

struct Node {
    name: String,
    enabled: bool,
    queued: usize,
}

/// What becomes of a call.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// It is answered with a status.
    Status(u16),
    /// It is answered with 200 and this.
    Say(&'static str),
    /// It is answered with half of the answer.
    Cut,
    /// The connection is closed.
    Close,
    /// It is not answered.
    Hang,
}

/// A call that was made.
#[derive(Clone, Debug)]
pub(super) struct Made {
    pub(super) method: String,
    /// As it was sent.
    pub(super) path: String,
    pub(super) headers: BTreeMap<String, String>,
}

// === impl Api ===

impl Api {
    /// A balancer that has these nodes, with so many requests in flight, all enabled.
    pub(super) fn start(nodes: &[(&str, usize)]) -> Self {
        let api = Self::down_with(nodes);
        api.up();
        api
    }

    /// The same, at first not to be reached.
    pub(super) fn down_with(nodes: &[(&str, usize)]) -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        // At an address of its own, so that nobody else takes its port while it is down.
        let [.., high, low] = std::process::id().to_be_bytes();
        let ip = Ipv4Addr::new(127, 128 | low, high, NEXT.fetch_add(1, Ordering::Relaxed));
        let address = TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap();
        let api = Self { shared: Arc::default(), address };
        for (name, queued) in nodes {
            api.set(name, *queued);
        }
        api
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many requests a node has in flight; a new one is enabled.
    pub(super) fn set(&self, name: &str, queued: usize) {
        let mut world = self.shared.world();
        match world.nodes.iter_mut().find(|node| node.name == name) {
            Some(node) => node.queued = queued,
            None => world.nodes.push(Node { name: name.to_owned(), enabled: true, queued }),
        }
    }

    /// Lists a name besides.
    pub(super) fn list(&self, name: &str) {
        self.shared.world().ghosts.push(name.to_owned());
    }

    /// Fails a call such as `GET node/a` the next `times`, or until [`heal`](Self::heal).
    pub(super) fn fail(&self, call: &str, fault: Fault, times: Option<usize>) {
        self.shared.world().faults.insert(call.to_owned(), (fault, times));
    }

    /// Fails no more, and lists what there is.
    pub(super) fn heal(&self) {
        let mut world = self.shared.world();
        world.faults.clear();
        world.ghosts.clear();
    }

    /// Tells of no node before so many are asked for at once.
    pub(super) fn hold_until(&self, at_once: usize) {
        self.shared.world().hold_until = at_once;
    }

    /// The most calls about nodes that were under way at once.
    pub(super) fn most_at_once(&self) -> usize {
        self.shared.world().most
    }

    /// Every call so far.
    pub(super) fn made(&self) -> Vec<Made> {
        self.shared.world().made.clone()
    }

    /// How often a call such as `GET node/a` was made.
    pub(super) fn count(&self, call: &str) -> usize {
        self.made().iter().filter(|made| made.call() == call).count()
    }

    /// The changes that were asked for, such as `a/disable`.
    pub(super) fn changes(&self) -> Vec<String> {
        let changes = self.made().into_iter().filter(|made| made.method == "POST");
        changes.map(|made| made.about().trim_start_matches("node/").to_owned()).collect()
    }

    /// Waits until so many further rounds are over that began after this call.
    pub(super) fn wait_for_rounds(&self, n: usize) {
        let before = self.shared.world().rounds;
        wait_for(&format!("{n} rounds"), || {
            // The one that is under way, and the begin of the one after the last.
            (self.shared.world().rounds > before + n).then_some(())
        });
    }

    /// Answers from now on.
    pub(super) fn up(&self) {
        // A process that another test is just starting may hold the one before for a moment.
        let listener = wait_for("its address", || TcpListener::bind(self.address).ok());
        let shared = Arc::clone(&self.shared);
        let life = {
            let mut world = shared.world();
            world.life += 1;
            world.life
        };
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut world = shared.world();
                if world.life != life {
                    return;
                }
                world.streams.extend(stream.try_clone());
                drop(world);
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    converse(&shared, &stream, life);
                    // The world has it, too, so that to drop it would not close it.
                    let _closed_already = stream.shutdown(Shutdown::Both);
                });
            }
        });
    }

    /// Takes no connection any more and closes those there are.
    pub(super) fn down(&self) {
        let mut world = self.shared.world();
        world.life += 1;
        let streams = std::mem::take(&mut world.streams);
        drop(world);
        self.shared.changed.notify_all();
        // One more connection lets the listener see that its time is over.
        let _woken = TcpStream::connect(self.address);
        for stream in streams {
            let _closed_already = stream.shutdown(Shutdown::Both);
        }
        wait_for("the end of the listener", || TcpStream::connect(self.address).err());
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        if self.shared.world().life % 2 == 1 {
            self.down();
        }
    }
}

// === impl Made ===

impl Made {
    /// Its path from `node_list` or `node/` on.
    fn about(&self) -> &str {
        self.path.split_once("/loadbalancer/").map_or("", |(_, about)| about)
    }

    fn call(&self) -> String {
        format!("{} {}", self.method, self.about())
    }
}

// === impl Shared ===

impl Shared {
    fn world(&self) -> MutexGuard<'_, World> {
        // What a failed assertion left is good enough to be looked at.
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl World ===

impl World {
    /// What is to become of a call.
    fn fault(&mut self, call: &str) -> Option<Fault> {
        let (fault, times) = self.faults.get_mut(call)?;
        match times {
            Some(0) => return None,
            Some(left) => *left -= 1,
            None => {}
        }
        Some(fault.clone())
    }

    fn carry_out(&mut self, made: &Made) -> (u16, Value) {
        if made.about() == "node_list" {
            let names = self.nodes.iter().map(|node| &node.name).chain(&self.ghosts);
            return (200, json!({ "N": self.nodes.len(), "nodes": names.collect::<Vec<_>>() }));
        }
        let mut pieces = made.about().split('/').skip(1);
        let name = decoded(pieces.next().unwrap_or_default());
        let Some(node) = self.nodes.iter_mut().find(|node| node.name == name) else {
            return (404, json!({ "title": "no such node", "status": 404 }));
        };
        match (made.method.as_str(), pieces.next()) {
            ("GET", None) => {}
            ("POST", Some("enable")) => node.enabled = true,
            ("POST", Some("disable")) => node.enabled = false,
            _ => return (405, json!({ "title": "not so", "status": 405 })),
        }
        let Node { name, enabled, queued } = &*node;
        let weight = 1;
        (
            200,
            json!({ "node": name, "enabled": enabled, "queued_requests": queued, "weight": weight }),
        )
    }
}

/// Serves a connection of the balancer's life `life`, one request after the other.
fn converse(shared: &Shared, mut stream: &TcpStream, life: u64) {
    let mut input = BufReader::new(stream);
    while let Some(made) = read(&mut input) {
        let mut world = shared.world();
        let is_look = made.method == "GET" && made.about().starts_with("node/");
        world.rounds += usize::from(made.about() == "node_list");
        world.made.push(made.clone());
        if is_look {
            world.now += 1;
            world.most = world.most.max(world.now);
            shared.changed.notify_all();
        }
        while is_look && world.most < world.hold_until && world.life == life {
            world = shared.changed.wait(world).unwrap_or_else(PoisonError::into_inner);
        }
        let fault = world.fault(&made.call());
        let (status, body) = match fault {
            None | Some(Fault::Cut) => world.carry_out(&made),
            Some(Fault::Status(status)) => (status, json!({ "title": "as scripted" })),
            Some(Fault::Say(_)) => (200, Value::Null),
            Some(Fault::Close | Fault::Hang) => (0, Value::Null),
        };
        world.now -= usize::from(is_look);
        while matches!(fault, Some(Fault::Hang)) && world.life == life {
            world = shared.changed.wait(world).unwrap_or_else(PoisonError::into_inner);
        }
        drop(world);
        let text = match fault {
            Some(Fault::Say(text)) => text.to_owned(),
            Some(Fault::Close | Fault::Hang) => return,
            None | Some(Fault::Status(_) | Fault::Cut) => body.to_string(),
        };
        let head = format!(
            "HTTP/1.1 {status} Told\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            text.len()
        );
        let is_cut = matches!(fault, Some(Fault::Cut));
        let sent = if is_cut { &text[..text.len() / 2] } else { &text };
        if stream.write_all(format!("{head}{sent}").as_bytes()).is_err() || is_cut {
            return;
        }
    }
}

fn read(input: &mut impl std::io::BufRead) -> Option<Made> {
    let mut lines = input.lines().map_while(Result::ok);
    let line = lines.next()?;
    let mut words = line.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let fields = lines.take_while(|line| !line.is_empty());
    let headers: BTreeMap<String, String> = fields
        .filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        })
        .collect();
    // No call has a body.
    assert!(headers.get("content-length").is_none_or(|length| length == "0"), "{headers:?}");
    Some(Made { method, path, headers })
}

/// A segment without its percent signs.
fn decoded(text: &str) -> String {
    let mut bytes: VecDeque<u8> = text.bytes().collect();
    let mut plain = Vec::new();
    while let Some(byte) = bytes.pop_front() {
        plain.push(match byte {
            b'%' => {
                let digits: String = bytes.drain(..2).map(char::from).collect();
                u8::from_str_radix(&digits, 16).unwrap()
            }
            other => other,
        });
    }
    String::from_utf8(plain).unwrap()
}
