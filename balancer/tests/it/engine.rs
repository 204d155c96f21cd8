//! A container engine by script: it answers on a socket of its own what the balancer asks of
//! Docker, its containers are servers in this process at loopback addresses of their own, and it
//! fails on demand.

mod api;
mod http;
pub(crate) mod replica;
mod world;

use std::collections::BTreeMap;
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Balancer, wait_for};
pub(crate) use world::{Call, Fault, News, PORT, State, World};

/// An engine; gone when dropped.
pub(crate) struct Engine {
    shared: Arc<Shared>,
    dir: TempDir,
}

/// What the threads of an engine share.
struct Shared {
    world: Mutex<World>,
    changed: Condvar,
    streams: Mutex<Vec<UnixStream>>,
}

/// A call that was made.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub(crate) call: Call,
    /// The container's name or id, where there is one.
    pub(crate) about: String,
}

// === impl Engine ===

impl Engine {
    /// An engine without containers, on a socket in a directory of its own.
    pub(crate) fn start() -> Self {
        let engine = Self::absent();
        engine.up();
        engine
    }

    /// The same, and it does not run yet.
    pub(crate) fn absent() -> Self {
        let shared = Arc::new(Shared {
            world: Mutex::new(World::new()),
            changed: Condvar::new(),
            streams: Mutex::default(),
        });
        Self { shared, dir: TempDir::new().unwrap() }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("engine.sock")
    }

    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// A balancer on this engine, serving.
    pub(crate) fn balancer(&self, arguments: &[&str]) -> Balancer {
        let port = PORT.to_string();
        let own = ["--runtime", "docker", "--pool", "scripted", "--port", &port];
        Balancer::start_with(&[&own[..], arguments].concat(), &[("DOCKER_HOST", &self.host())])
    }

    /// Starts a balancer with these arguments alone, on the port that replicas have.
    pub(crate) fn start_balancer(&self, arguments: &[&str]) -> Balancer {
        let port = PORT.to_string();
        let own = ["--runtime", "docker", "--port", &port];
        Balancer::start_with(&[&own[..], arguments].concat(), &[("DOCKER_HOST", &self.host())])
    }

    /// The same, and waits until it has `n` replicas.
    pub(crate) fn balancer_with(&self, n: usize, arguments: &[&str]) -> Balancer {
        let replicas = n.to_string();
        let balancer = self.balancer(&[&["--replicas", &replicas], arguments].concat());
        balancer.wait_for_replicas(n);
        balancer
    }

    /// What is there, to look at and to change.
    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.shared.world()
    }

    /// Answers from now on.
    pub(crate) fn up(&self) {
        let listener = UnixListener::bind(self.socket()).unwrap();
        let mut world = self.world();
        world.up = true;
        let (shared, life) = (Arc::clone(&self.shared), world.life);
        drop(world);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if shared.world().life != life {
                    return;
                }
                shared.streams().extend(stream.try_clone());
                let shared = Arc::clone(&shared);
                thread::spawn(move || http::serve(&shared, stream, life));
            }
        });
    }

    /// Closes the socket and every connection; the containers live on.
    pub(crate) fn down(&self) {
        let mut world = self.world();
        world.up = false;
        world.life += 1;
        drop(world);
        self.shared.changed.notify_all();
        // One more connection lets the listener see that its time is over.
        let _woken = UnixStream::connect(self.socket());
        let _gone_already = std::fs::remove_file(self.socket());
        for stream in self.shared.streams().drain(..) {
            let _closed_already = stream.shutdown(Shutdown::Both);
        }
    }

    /// Fails `call`, the next `times` of them, or all until [`heal`](Self::heal).
    pub(crate) fn fail(&self, call: Call, fault: Fault, times: Option<usize>) {
        self.world().fail(call, fault, times);
    }

    /// Fails no more; what hung goes on.
    pub(crate) fn heal(&self) {
        self.world().heal();
        self.shared.changed.notify_all();
    }

    /// How its events are told from now on.
    pub(crate) fn news(&self, news: News) {
        self.world().news = news;
    }

    /// Tells an event.
    pub(crate) fn tell(&self, event: Value) {
        self.world().tell(event);
        self.shared.changed.notify_all();
    }

    /// Kills what runs in a container, and tells its death as [`news`](Self::news) says.
    pub(crate) fn kill(&self, id: &str) {
        self.exit(id, 137);
    }

    /// Takes a container off its network, or back to it.
    pub(crate) fn attach(&self, id: &str, attached: bool) {
        self.world().attach(id, attached);
        self.shared.changed.notify_all();
    }

    /// Ends what runs in a container with this code.
    pub(crate) fn exit(&self, id: &str, code: i64) {
        self.world().kill(id, code);
        self.shared.changed.notify_all();
    }

    /// Ends what runs in a container for want of memory.
    pub(crate) fn starve(&self, id: &str) {
        self.world().starve(id);
        self.shared.changed.notify_all();
    }

    /// The engine takes a container for dead, but what ran in it goes on, as somebody else's.
    pub(crate) fn replace(&self, id: &str) -> replica::Replica {
        let mut world = self.world();
        let stranger = world.take_replica(id).unwrap();
        world.kill(id, 137);
        drop(world);
        self.shared.changed.notify_all();
        stranger
    }

    /// Stops a container and starts it again, as an operator does.
    pub(crate) fn restart(&self, id: &str) {
        let mut world = self.world();
        world.kill(id, 143);
        world.run(id).unwrap();
        drop(world);
        self.shared.changed.notify_all();
    }

    /// The ids of the balancer's running containers, by seat; none twice.
    pub(crate) fn seats(&self) -> BTreeMap<u32, String> {
        let world = self.world();
        let running = world.ours().filter(|container| container.state == State::Running);
        let seats: Vec<(u32, String)> =
            running.map(|container| (container.seat(), container.id.clone())).collect();
        let by_seat: BTreeMap<u32, String> = seats.iter().cloned().collect();
        assert_eq!(by_seat.len(), seats.len(), "two on one seat: {seats:?}");
        by_seat
    }

    /// Waits until the balancer's containers are `n`, all of them running.
    pub(crate) fn wait_for(&self, n: usize) -> BTreeMap<u32, String> {
        wait_for(&format!("{n} running containers and no other"), || {
            let all = self.world().ours().count();
            Some(self.seats()).filter(|seats| all == n && seats.len() == n)
        })
    }

    /// The calls so far of this kind.
    pub(crate) fn calls(&self, call: Call) -> Vec<Made> {
        self.world().calls.iter().filter(|made| made.call == call).cloned().collect()
    }

    /// Makes a container that is nobody's: not the balancer's.
    pub(crate) fn stranger(&self, name: &str) -> String {
        let mut world = self.world();
        let id = world.create(name, BTreeMap::new(), "stranger").unwrap();
        world.run(&id).unwrap();
        id
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.down();
    }
}

// === impl Shared ===

impl Shared {
    fn world(&self) -> MutexGuard<'_, World> {
        // What a failed assertion left is good enough to be looked at.
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until something changed.
    fn wait<'a>(&self, world: MutexGuard<'a, World>) -> MutexGuard<'a, World> {
        self.changed.wait(world).unwrap_or_else(PoisonError::into_inner)
    }

    fn streams(&self) -> MutexGuard<'_, Vec<UnixStream>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
