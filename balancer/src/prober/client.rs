//! One probe: a request and its answer, over a connection that was kept or is made.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use rustix::process::{Resource, getrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::ProbeError;
use super::answer::Reading;
use crate::config::HealthConfig;
use crate::descriptors::are_used_up;
use crate::hop;

/// One in so many probes has a new connection: whether one is taken is part of the question. To make
/// one costs several times what it costs to ask over one that stands.
pub(super) const FRESH_EVERY: u32 = 16;

/// With a longer interval, no connection is kept: many servers would close it before its use.
const KEPT_MAX: Duration = Duration::from_secs(15);

/// A pause before the next look for a file descriptor.
const STARVING_PAUSE: Duration = Duration::from_millis(20);

/// What is read at a time; nearly all answers are smaller.
const READ: usize = 2 << 10;

/// Asks one replica.
pub(super) struct Client {
    address: SocketAddr,
    timeout: Duration,
    request: Request,
    /// Counts probes around, from a random number on: replicas get their new connections at
    /// different times.
    count: u32,
    kept: Option<Kept>,
    room: Option<Arc<Semaphore>>,
    /// Waits for a file descriptor.
    is_starving: Cell<bool>,
}

/// The same request with two ends.
struct Request {
    goes_on: String,
    is_last: String,
}

/// A connection whose last answer is whole.
struct Kept {
    stream: TcpStream,
    _room: OwnedSemaphorePermit,
}

/// So many connections may be kept in all: a quarter of the descriptors that the balancer may
/// have. The rest is for requests.
pub(super) fn room_for_kept() -> Arc<Semaphore> {
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let quarter = usize::try_from(descriptors / 4).unwrap_or(usize::MAX);
    Arc::new(Semaphore::new(quarter.min(Semaphore::MAX_PERMITS)))
}

// === impl Client ===

impl Client {
    /// Nothing asked yet. A connection is kept where there is `room`.
    pub(super) fn new(config: &HealthConfig, address: SocketAddr, room: Arc<Semaphore>) -> Self {
        Self {
            address,
            timeout: config.timeout,
            request: Request::new(&config.path, address),
            count: rand::rng().random_range(0..FRESH_EVERY),
            kept: None,
            room: Some(room).filter(|_| config.interval <= KEPT_MAX),
            is_starving: Cell::new(false),
        }
    }

    /// Whom.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Asks; `fresh` wants a new connection in any case.
    ///
    /// # Errors
    /// [`ProbeError`], at the latest after the timeout. The next call makes a new connection then.
    pub(super) async fn ask(&mut self, fresh: bool) -> Result<(), ProbeError> {
        self.is_starving.set(false);
        let asked = timeout(self.timeout, self.exchange(fresh)).await;
        let late = if self.is_starving.get() { ProbeError::Starving } else { ProbeError::TimedOut };
        asked.unwrap_or(Err(late))
    }

    /// Makes a connection. Without a descriptor it waits for one, until the probe is late.
    async fn connect(&self) -> Result<TcpStream, ProbeError> {
        loop {
            let connected = connect(self.address).await;
            self.is_starving.set(matches!(connected, Err(ProbeError::Starving)));
            if !self.is_starving.get() {
                return connected;
            }
            sleep(STARVING_PAUSE).await;
        }
    }

    /// As if so many probes had been.
    #[cfg(test)]
    pub(super) fn begin_at(&mut self, count: u32) {
        self.count = count;
    }

    async fn exchange(&mut self, fresh: bool) -> Result<(), ProbeError> {
        let fresh = fresh || self.count == 0;
        self.count = (self.count + 1) % FRESH_EVERY;
        // The next probe will have a new connection: the replica is told, and closes this one.
        let last = self.count == 0 || self.room.is_none();
        let request = if last { &self.request.is_last } else { &self.request.goes_on };
        if let Some(mut kept) = self.kept.take().filter(|kept| !fresh && kept.is_silent()) {
            match converse(&mut kept.stream, request).await {
                // The replica closed it while it was idle, as it may.
                Err(ProbeError::Closed) => {}
                judged => {
                    let keeps = judged? && !last;
                    self.kept = Some(kept).filter(|_| keeps);
                    return Ok(());
                }
            }
        }
        let mut stream = self.connect().await?;
        let keeps = converse(&mut stream, request).await? && !last;
        let room = self.room.as_ref().filter(|_| keeps);
        let room = room.and_then(|room| Arc::clone(room).try_acquire_owned().ok());
        self.kept = room.map(|room| Kept { stream, _room: room });
        Ok(())
    }
}

async fn connect(address: SocketAddr) -> Result<TcpStream, ProbeError> {
    TcpStream::connect(address).await.map_err(|error| {
        if are_used_up(&error) {
            return ProbeError::Starving;
        }
        debug!(%address, %error, "probe could not connect");
        if error.kind() == io::ErrorKind::ConnectionRefused {
            ProbeError::Refused
        } else if error.kind() == io::ErrorKind::TimedOut {
            ProbeError::TimedOut
        } else {
            ProbeError::Unreachable
        }
    })
}

/// Sends a request and reads its answer; whether the connection may be used again.
async fn converse(stream: &mut TcpStream, request: &str) -> Result<bool, ProbeError> {
    let (mut reading, mut input) = (Reading::default(), Vec::new());
    if stream.write_all(request.as_bytes()).await.is_err() {
        return Err(reading.broken());
    }
    loop {
        input.reserve(READ);
        match stream.read_buf(&mut input).await {
            Ok(0) => return reading.end().map(|()| false),
            Ok(_) => {
                if let Some(keeps) = reading.read(&mut input)? {
                    return Ok(keeps);
                }
            }
            Err(_reset) => return Err(reading.broken()),
        }
    }
}

// === impl Request ===

impl Request {
    fn new(path: &str, address: SocketAddr) -> Self {
        let head =
            format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: balancer-probe\r\n");
        // A server that is this balancer answers 508 and is never ready.
        let head = head + hop::line();
        let is_last = format!("{head}Connection: close\r\n\r\n");
        Self { goes_on: head + "\r\n", is_last }
    }
}

// === impl Kept ===

impl Kept {
    /// Whether nothing came while it was idle: neither its end nor an answer that nobody asked
    /// for. No system call where nothing did.
    fn is_silent(&self) -> bool {
        let read = self.stream.try_read(&mut [0]);
        read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}
