//! What is on the scripted engine, and how it is to fail.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use serde_json::{Value, json};

use super::Made;
use super::replica::Replica;

/// The port that replicas listen on.
pub(crate) const PORT: u16 = 7_381;

/// The next loopback address, counted from this process's first.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// What may be asked of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Call {
    /// Any of them: for faults.
    Any,
    Version,
    List,
    Create,
    Start,
    Stop,
    Remove,
    Inspect,
    Rename,
    Pull,
    Image,
    Network,
    Volume,
    Events,
    /// The subscription to events of the network.
    NetworkEvents,
}

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing until [`Engine::heal`](super::Engine::heal); then it is carried out and answered.
    Hang,
    /// It is not carried out, and the answer has this status and says this.
    Status(u16, &'static str),
    /// It is carried out, and the connection ends within the answer.
    Cut,
    /// The connection ends at once.
    Close,
    /// It is carried out, and the connection ends without an answer.
    Lose,
}

/// How events are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    Good,
    /// Never.
    Lost,
    /// Twice.
    Doubled,
    /// Kept in [`World::held`].
    Held,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Created,
    Running,
    Exited,
}

/// A container.
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) network: String,
    /// It was taken off its network.
    pub(super) detached: bool,
    pub(crate) state: State,
    pub(crate) exit_code: i64,
    pub(crate) out_of_memory: bool,
    pub(crate) created: i64,
    pub(crate) started: SystemTime,
    pub(crate) replica: Option<Replica>,
}

/// See the module.
pub(crate) struct World {
    pub(crate) containers: Vec<Container>,
    pub(crate) networks: BTreeMap<String, Value>,
    /// The labels of volumes, by name.
    pub(crate) volumes: BTreeMap<String, BTreeMap<String, String>>,
    pub(crate) images: BTreeSet<String>,
    /// The API version that the engine tells.
    pub(crate) api: &'static str,
    pub(crate) calls: Vec<Made>,
    /// The most calls at once so far, subscriptions left out.
    pub(crate) peak: usize,
    pub(crate) news: News,
    pub(crate) held: Vec<Value>,
    pub(crate) subscribers: usize,
    pub(super) told: Vec<Value>,
    pub(super) up: bool,
    /// Counts the engine's lives: connections of an earlier one are over.
    pub(super) life: u64,
    /// Counts what was healed.
    pub(super) healed: u64,
    faults: Vec<(Call, Fault, Option<usize>)>,
    under_way: usize,
    next_id: u64,
}

// === impl World ===

impl World {
    pub(super) fn new() -> Self {
        Self {
            containers: Vec::new(),
            networks: BTreeMap::new(),
            volumes: BTreeMap::new(),
            images: BTreeSet::from(["ring-balancer/server".to_owned(), "stranger".to_owned()]),
            api: "1.41",
            calls: Vec::new(),
            peak: 0,
            news: News::Good,
            held: Vec::new(),
            subscribers: 0,
            told: Vec::new(),
            up: false,
            life: 0,
            healed: 0,
            faults: Vec::new(),
            under_way: 0,
            next_id: 0,
        }
    }

    /// The balancer's containers.
    pub(crate) fn ours(&self) -> impl Iterator<Item = &Container> {
        self.containers.iter().filter(|it| it.labels.contains_key("balancer.pool"))
    }

    pub(crate) fn find(&self, id: &str) -> Option<&Container> {
        self.containers.iter().find(|it| it.id == id || it.name == id)
    }

    fn find_mut(&mut self, id: &str) -> Option<&mut Container> {
        self.containers.iter_mut().find(|it| it.id == id || it.name == id)
    }

    /// The calls under way now, subscriptions left out.
    pub(crate) fn under_way(&self) -> usize {
        self.under_way
    }

    pub(super) fn fail(&mut self, call: Call, fault: Fault, times: Option<usize>) {
        self.faults.push((call, fault, times));
    }

    pub(super) fn heal(&mut self) {
        self.faults.clear();
        self.healed += 1;
    }

    /// A call has come; tells how it is to fail.
    pub(super) fn begin(&mut self, call: Call, about: String) -> Option<Fault> {
        self.calls.push(Made { call, about });
        self.under_way += 1;
        if !matches!(call, Call::Events | Call::NetworkEvents) {
            self.peak = self.peak.max(self.under_way);
        }
        let meant = |(of, ..): &(Call, Fault, Option<usize>)| *of == call || *of == Call::Any;
        let at = self.faults.iter().position(meant)?;
        let (_, fault, times) = &mut self.faults[at];
        let fault = *fault;
        if let Some(left) = times {
            *left -= 1;
            if *left == 0 {
                self.faults.remove(at);
            }
        }
        Some(fault)
    }

    pub(super) fn end(&mut self) {
        self.under_way -= 1;
    }

    /// Makes a container; the status and the words when it cannot.
    pub(crate) fn create(
        &mut self,
        name: &str,
        labels: BTreeMap<String, String>,
        image: &str,
    ) -> Result<String, (u16, String)> {
        let reference = image.strip_prefix("sha256:").unwrap_or(image);
        if !self.images.contains(reference) {
            return Err((404, format!("No such image: {image}")));
        }
        if let Some(other) = self.find(name) {
            let why = format!(
                "Conflict. The container name \"/{name}\" is already in use by container \"{}\". \
                 You have to remove (or rename) that container to be able to reuse that name.",
                other.id
            );
            return Err((409, why));
        }
        self.next_id += 1;
        let id = format!("{:064x}", self.next_id);
        self.containers.push(Container {
            id: id.clone(),
            name: name.to_owned(),
            labels,
            network: String::new(),
            detached: false,
            state: State::Created,
            exit_code: 0,
            out_of_memory: false,
            created: 1_700_000_000 + self.next_id.cast_signed(),
            started: SystemTime::now(),
            replica: None,
        });
        Ok(id)
    }

    /// Sets the network of a container.
    pub(super) fn connect(&mut self, id: &str, network: &str) {
        if let Some(container) = self.find_mut(id) {
            container.network = network.to_owned();
        }
    }

    /// Runs a container; `false` when it runs already.
    pub(crate) fn run(&mut self, id: &str) -> Result<bool, (u16, String)> {
        let missing = || (404, format!("No such container: {id}"));
        let container = self.find_mut(id).ok_or_else(missing)?;
        if container.state == State::Running {
            return Ok(false);
        }
        let seat = container.labels.get("balancer.seat").cloned().unwrap_or_default();
        container.replica = Some(at_next_address(&seat));
        container.state = State::Running;
        container.started = SystemTime::now();
        let event = container.event("start");
        self.tell(event);
        Ok(true)
    }

    /// Ends what runs in a container; `false` when nothing does.
    pub(crate) fn kill(&mut self, id: &str, exit_code: i64) -> bool {
        let Some(container) = self.find_mut(id) else { return false };
        if container.state != State::Running {
            return false;
        }
        container.replica = None;
        container.state = State::Exited;
        container.exit_code = exit_code;
        let event = container.event("die");
        self.tell(event);
        true
    }

    /// Gives a container another name; the status and the words when it cannot have it.
    pub(crate) fn rename(&mut self, id: &str, name: &str) -> Result<(), (u16, String)> {
        if let Some(other) = self.find(name) {
            let status = if other.id == id { 400 } else { 409 };
            return Err((status, format!("the name /{name} is in use")));
        }
        if let Some(container) = self.find_mut(id) {
            container.name = name.to_owned();
            let event = container.event("rename");
            self.tell(event);
        }
        Ok(())
    }

    /// Takes a container off its network, or back to it; what runs in it goes on.
    pub(super) fn attach(&mut self, id: &str, attached: bool) {
        let Some(container) = self.find_mut(id) else { return };
        container.detached = !attached;
        let event = container.network_event(if attached { "connect" } else { "disconnect" });
        self.tell(event);
    }

    /// Takes out what runs in a container.
    pub(super) fn take_replica(&mut self, id: &str) -> Option<Replica> {
        self.find_mut(id)?.replica.take()
    }

    /// Ends what runs in a container for want of memory.
    pub(super) fn starve(&mut self, id: &str) {
        if let Some(container) = self.find_mut(id) {
            container.out_of_memory = true;
            let event = container.event("oom");
            self.tell(event);
            self.kill(id, 137);
        }
    }

    /// Removes a container, running or not; `false` when there is none.
    pub(crate) fn remove(&mut self, id: &str) -> bool {
        self.kill(id, 137);
        let Some(at) = self.containers.iter().position(|it| it.id == id || it.name == id) else {
            return false;
        };
        let event = self.containers.remove(at).event("destroy");
        self.tell(event);
        true
    }

    pub(super) fn tell(&mut self, event: Value) {
        match self.news {
            News::Good => self.told.push(event),
            News::Lost => {}
            News::Doubled => self.told.extend([event.clone(), event]),
            News::Held => self.held.push(event),
        }
    }
}

// === impl Container ===

impl Container {
    pub(crate) fn seat(&self) -> u32 {
        self.labels["balancer.seat"].parse().unwrap()
    }

    pub(crate) fn hostname(&self) -> &str {
        &self.labels["balancer.hostname"]
    }

    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.replica.as_ref().map(|replica| replica.address)
    }

    /// Something that happens between it and its network now, as the engine tells it.
    fn network_event(&self, action: &str) -> Value {
        let attributes = json!({"container": self.id, "name": self.network, "type": "bridge"});
        told("network", action, &format!("id-of-{}", self.network), &attributes)
    }

    /// Something that happens to it now, as the engine tells it.
    pub(crate) fn event(&self, action: &str) -> Value {
        let mut attributes = self.labels.clone();
        attributes.insert("name".to_owned(), self.name.clone());
        if action == "die" {
            attributes.insert("exitCode".to_owned(), self.exit_code.to_string());
        }
        told("container", action, &self.id, &json!(attributes))
    }
}

/// An event that happens now.
fn told(kind: &str, action: &str, id: &str, attributes: &Value) -> Value {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap();
    json!({
        "Type": kind,
        "Action": action,
        "status": action,
        "id": id,
        "Actor": {"ID": id, "Attributes": attributes},
        "scope": "local",
        "time": now.as_secs(),
        "timeNano": u64::try_from(now.as_nanos()).unwrap(),
    })
}

/// A server at a loopback address that nobody else has: not even another run of the tests.
fn at_next_address(name: &str) -> Replica {
    let block = std::process::id() % 96 + 32;
    loop {
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        assert!(next < 1 << 16, "no loopback address is free");
        let address = Ipv4Addr::from(0x7f00_0001 + (block << 16) + next);
        if let Ok(replica) = Replica::start(SocketAddr::from((address, PORT)), name) {
            return replica;
        }
    }
}
