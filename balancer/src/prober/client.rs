//! One probe: a request and its answer, over a connection that was kept or is made.

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
use super::answer::{After, Reading, Rest};
use crate::config::HealthConfig;
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
    step: Step,
    /// Counts probes around, from a random number on: replicas get their new connections at
    /// different times.
    count: u32,
    kept: Option<Kept>,
    room: Option<Arc<Semaphore>>,
}

/// What a health check is doing: the reason if it is late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// It waits for a file descriptor.
    Starves,
    /// It makes a connection.
    Connects,
    /// It sends its request or reads the response.
    Talks,
}

/// The same request with two ends.
struct Request {
    goes_on: String,
    is_last: String,
}

/// A connection whose last response was good.
struct Kept {
    stream: TcpStream,
    /// What of that response may still come.
    rest: Rest,
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
    /// Nothing asked yet. The configured `Host` wins over `host`, and that over the address. A
    /// connection is kept where there is `room`.
    pub(super) fn new(
        config: &HealthConfig,
        address: SocketAddr,
        host: Option<&str>,
        room: Arc<Semaphore>,
    ) -> Self {
        let host = config.host.as_deref().or(host);
        Self {
            address,
            timeout: config.timeout,
            request: match host {
                Some(host) => Request::new(&config.path, host),
                None => Request::new(&config.path, &address.to_string()),
            },
            step: Step::Talks,
            count: rand::rng().random_range(0..FRESH_EVERY),
            kept: None,
            room: Some(room).filter(|_| config.interval <= KEPT_MAX),
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
        self.step = Step::Talks;
        match timeout(self.timeout, self.exchange(fresh)).await {
            Ok(asked) => asked,
            Err(_elapsed) => Err(match self.step {
                Step::Starves => ProbeError::Starving,
                Step::Connects => ProbeError::ConnectTimedOut,
                Step::Talks => ProbeError::TimedOut,
            }),
        }
    }

    /// Makes a connection. Without a descriptor it waits for one, until the health check is late.
    async fn connect(&mut self) -> Result<TcpStream, ProbeError> {
        loop {
            self.step = Step::Connects;
            match connect(self.address).await {
                Err(ProbeError::Starving) => {
                    self.step = Step::Starves;
                    sleep(STARVING_PAUSE).await;
                }
                connected => {
                    self.step = Step::Talks;
                    return connected;
                }
            }
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
        let kept = self.kept.take().filter(|_| !fresh).and_then(Kept::usable);
        if let Some(mut kept) = kept {
            let request = if last { &self.request.is_last } else { &self.request.goes_on };
            match converse(&mut kept.stream, request).await {
                // The replica closed it while it was idle, as it may.
                Err(ProbeError::Closed) => {}
                Err(error) => return Err(error),
                Ok(After::Keep(rest)) if !last => {
                    self.kept = Some(Kept { rest, ..kept });
                    return Ok(());
                }
                Ok(After::Keep(_) | After::Close) => return Ok(()),
            }
        }
        let mut stream = self.connect().await?;
        let request = if last { &self.request.is_last } else { &self.request.goes_on };
        let after = converse(&mut stream, request).await?;
        if let (After::Keep(rest), false, Some(room)) = (after, last, &self.room) {
            let room = Arc::clone(room).try_acquire_owned().ok();
            self.kept = room.map(|room| Kept { stream, rest, _room: room });
        }
        Ok(())
    }
}

async fn connect(address: SocketAddr) -> Result<TcpStream, ProbeError> {
    TcpStream::connect(address).await.map_err(|error| {
        debug!(%address, %error, "health check cannot connect");
        ProbeError::of_connect(&error)
    })
}

/// Sends a request and reads the head of its response.
async fn converse(stream: &mut TcpStream, request: &str) -> Result<After, ProbeError> {
    let (mut reading, mut input) = (Reading::default(), Vec::new());
    if stream.write_all(request.as_bytes()).await.is_err() {
        return Err(reading.broken());
    }
    loop {
        input.reserve(READ);
        match stream.read_buf(&mut input).await {
            Ok(1..) => {
                if let Some(after) = reading.read(&mut input)? {
                    return Ok(after);
                }
            }
            Ok(0) | Err(_) => return Err(reading.broken()),
        }
    }
}

// === impl Request ===

impl Request {
    fn new(path: &str, host: &str) -> Self {
        let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: balancer-probe\r\n");
        // A server that is this balancer answers 508 and is never ready.
        let head = head + hop::line();
        let is_last = format!("{head}Connection: close\r\n\r\n");
        Self { goes_on: head + "\r\n", is_last }
    }
}

// === impl Kept ===

impl Kept {
    /// Returns the connection if it can be used again: the last response has come whole, and
    /// nothing else, neither the end of the connection nor bytes that were not asked for. Never
    /// waits. Makes no system call where nothing has come.
    fn usable(mut self) -> Option<Self> {
        while self.rest.read().is_none() {
            let input = self.rest.input();
            input.reserve(READ);
            if !matches!(self.stream.try_read_buf(input), Ok(1..)) {
                return None;
            }
        }
        let read = self.stream.try_read(&mut [0]);
        let silent = read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        (silent && self.rest.read() == Some(true)).then_some(self)
    }
}
