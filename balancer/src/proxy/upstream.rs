//! Connections to replicas: what one worker keeps of them between requests.

mod idle;

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use foldhash::HashMap;
use tokio::net::TcpStream;
use tokio::time::{sleep, sleep_until};

use self::idle::Idle;
use super::wire::{Buffers, Stream, Wire};
use crate::descriptors::are_used_up;
use crate::routing::table::{Replica, ReplicaId};

/// Idle connections kept for one replica by one worker.
const IDLE_MAX: usize = 1_024;

/// How often a connection under way looks whether its replica has died meanwhile, and one that
/// has no descriptor whether there is one.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// How long a replica that could not be connected to is passed over. Then one request tries again.
const SHUNNED_FOR: Duration = Duration::from_secs(1);

/// One worker's connections.
pub struct Upstream {
    connect: Duration,
    keep_alive: Duration,
    buffers: Rc<Buffers>,
    idle: RefCell<Idle<Box<Wire>>>,
    shunned: RefCell<HashMap<ReplicaId, Instant>>,
}

// === impl Upstream ===

impl Upstream {
    /// No connections. One is begun within `connect`, and let go when it was idle for
    /// `keep_alive`; `idle_most` are kept at most.
    pub fn new(
        connect: Duration,
        keep_alive: Duration,
        idle_most: usize,
        buffers: Rc<Buffers>,
    ) -> Self {
        let idle = RefCell::new(Idle::new(idle_most, IDLE_MAX));
        Self { connect, keep_alive, buffers, idle, shunned: RefCell::default() }
    }

    /// A connection that was used before and still stands. Where a request must not be sent in
    /// vain (`surely`), the kernel is asked, too.
    pub fn reuse(
        &self,
        replica: &Replica,
        surely: bool,
        cx: &mut Context<'_>,
    ) -> Option<Box<Wire>> {
        let mut idle = self.idle.borrow_mut();
        while let Some(mut wire) = idle.pop(replica.id()) {
            if wire.is_silent(cx) && (!surely || wire.is_silent_now()) {
                return Some(wire);
            }
        }
        None
    }

    /// A new connection.
    ///
    /// # Errors
    /// When the replica does not accept it in time, or is known to be dead. Then it is passed over
    /// for a moment. When no descriptor is left for it within the time for a connection, which says
    /// nothing about the replica.
    pub async fn connect(&self, replica: &Replica) -> io::Result<Box<Wire>> {
        let deadline = Instant::now() + self.connect;
        let mut connected = self.dial(replica).await;
        while connected.as_ref().is_err_and(are_used_up) {
            // Other workers have idle connections, too, and other requests end.
            if !self.let_go() {
                if Instant::now() >= deadline {
                    break;
                }
                sleep(LOOK_AGAIN).await;
            }
            connected = self.dial(replica).await;
        }
        if connected.as_ref().is_err_and(|error| !are_used_up(error)) {
            self.shunned.borrow_mut().insert(replica.id(), Instant::now() + SHUNNED_FOR);
        }
        let stream = connected?;
        stream.set_nodelay(true)?;
        Ok(Box::new(Wire::new(Stream::Plain(stream), Rc::clone(&self.buffers))))
    }

    async fn dial(&self, replica: &Replica) -> io::Result<TcpStream> {
        let deadline = tokio::time::Instant::now() + self.connect;
        let dialled = TcpStream::connect(replica.address());
        tokio::pin!(dialled);
        loop {
            if replica.is_dead() {
                return Err(io::Error::other("the replica is dead"));
            }
            tokio::select! {
                stream = &mut dialled => return stream,
                () = sleep_until(deadline) => return Err(io::ErrorKind::TimedOut.into()),
                () = sleep(LOOK_AGAIN) => {}
            }
        }
    }

    /// Whether a replica could not be connected to a moment ago.
    pub fn shuns(&self, id: ReplicaId) -> bool {
        let mut shunned = self.shunned.borrow_mut();
        if shunned.is_empty() {
            return false;
        }
        let Some(until) = shunned.get(&id) else { return false };
        if *until > Instant::now() {
            return true;
        }
        shunned.remove(&id);
        false
    }

    /// Keeps a connection whose last answer is whole, `now`.
    pub fn keep(&self, replica: &Arc<Replica>, mut wire: Box<Wire>, now: Instant) {
        if !replica.is_dead() {
            wire.rest();
            self.idle.borrow_mut().push(replica, wire, now);
        }
    }

    /// Lets go of the connection that is idle for longest; tells whether there was one.
    fn let_go(&self) -> bool {
        self.idle.borrow_mut().pop_oldest().is_some()
    }

    /// Lets go of connections that ended, that were idle for too long, or whose replica takes no
    /// more requests.
    pub fn sweep(&self) {
        let now = Instant::now();
        let mut cx = Context::from_waker(Waker::noop());
        self.idle.borrow_mut().retain(|replica, wire, since| {
            let gone = replica.is_dead() || replica.is_closed();
            !gone && now.duration_since(since) < self.keep_alive && wire.is_silent(&mut cx)
        });
        self.shunned.borrow_mut().retain(|_, until| *until > now);
    }
}
