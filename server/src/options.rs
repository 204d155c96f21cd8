//! What the user typed: flags, environment variables and defaults, in this order of precedence.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::latency::{Factor, Latency, Share, WorkQueue};

const PORT: u16 = 5000;
const SERVER_ID: &str = "1";
const LATENCY: &str = "0ms";
const START_DELAY: &str = "0ms";
const SHUTDOWN_TIMEOUT: &str = "10s";

/// The queue when `--concurrency` is given without `--queue`: long enough for a burst, and still
/// bounded.
const QUEUE: u32 = 1024;

/// The options of the demo replica, on the command line, in the environment, or built in code.
///
/// [`Options::default`] holds the documented defaults and does not look at the environment.
#[derive(Clone, Debug, PartialEq, clap::Args)]
#[command(allow_negative_numbers = true)]
pub struct Options {
    /// Address and port to listen on, such as 0.0.0.0:5000; port 0 takes any free one
    /// [default: 127.0.0.1 and the port of --port]
    #[arg(long, env = "SERVER_LISTEN", value_name = "ADDR", value_parser = address)]
    pub listen: Option<SocketAddr>,

    /// Port to listen on at 127.0.0.1, when --listen is not given
    #[arg(long, env = "PORT", value_name = "PORT", default_value_t = PORT)]
    pub port: u16,

    /// Who this replica says it is: "Hello from Server: ID"
    #[arg(
        long,
        env = "SERVER_ID",
        value_name = "ID",
        default_value = SERVER_ID,
        value_parser = NonEmptyStringValueParser::new(),
    )]
    pub server_id: String,

    /// Threads that serve requests, 1 to 512; one is enough where many replicas share a machine
    #[arg(long, env = "SERVER_WORKERS", value_name = "N", default_value_t = Workers::ONE)]
    pub workers: Workers,

    /// Drop POST requests: each is answered 500 "request dropped by server" with a probability of
    /// 1 in 5, independently of the others and before any work [default: false]
    #[arg(long, env = "SKIP_SOME_REQUESTS", value_parser = switch)]
    pub skip_some_requests: bool,

    /// Answer every request 500 "request failed by server", but for probes: a version that looks
    /// healthy and does not work [default: false]
    #[arg(long, env = "SERVER_FAIL_REQUESTS", value_parser = switch)]
    pub fail_requests: bool,

    /// The only user there is: a POST succeeds only with ?username=NAME, and is answered 404
    /// otherwise. Many shells export USERNAME; an empty one counts as not set [default: any user]
    #[arg(long, env = "USERNAME", value_name = "NAME")]
    pub username: Option<String>,

    /// How long the work on a request takes, such as 20ms; probes take none. Timers tick once a
    /// millisecond
    #[arg(
        long,
        env = "SERVER_LATENCY",
        value_name = "TIME",
        default_value = LATENCY,
        value_parser = humantime::parse_duration,
    )]
    pub latency: Duration,

    /// Share of the requests that are slow, from 0 to 1: 0.05 means 5 %. Matters only with
    /// --latency
    #[arg(long, env = "SERVER_SLOW_SHARE", value_name = "SHARE", default_value_t = Share::NONE)]
    pub slow_share: Share,

    /// How many times as long as --latency a slow request takes, at least 1
    #[arg(long, env = "SERVER_SLOW_FACTOR", value_name = "X", default_value_t = Factor::TWENTY)]
    pub slow_factor: Factor,

    /// How many requests are worked on at once, at least 1; the others wait in the queue, first
    /// come, first served. Probes do not count [default: unlimited]
    #[arg(long, env = "SERVER_CONCURRENCY", value_name = "N", value_parser = at_least_one)]
    pub concurrency: Option<NonZeroU32>,

    /// How many requests may wait for their turn, from 0; one more is answered 503 at once. Needs
    /// --concurrency [default: 1024]
    #[arg(long, env = "SERVER_QUEUE", value_name = "LENGTH", value_parser = queue_length)]
    pub queue: Option<u32>,

    /// Makes drops and slow requests repeatable: the same seed drops the same requests, counted in
    /// the order in which they come [default: random]
    #[arg(long, env = "SERVER_SEED", value_name = "NUMBER")]
    pub seed: Option<u64>,

    /// Where every POST that was carried out is told, before it is answered: its X-Request-Id in
    /// one UDP datagram, escaped and at most 128 bytes of it, - without one. Lets a test count
    /// what replicas did that are dead by then, such as 127.0.0.1:9000 [default: nowhere]
    #[arg(long, env = "SERVER_JOURNAL", value_name = "ADDR", value_parser = journal)]
    pub journal: Option<String>,

    /// How long a start waits before it listens, such as 3s
    #[arg(
        long,
        env = "SERVER_START_DELAY",
        value_name = "TIME",
        default_value = START_DELAY,
        value_parser = humantime::parse_duration,
    )]
    pub start_delay: Duration,

    /// Share of the starts that wait so, from 0 to 1, each drawn at random (by --seed, when given)
    #[arg(
        long,
        env = "SERVER_START_DELAY_SHARE",
        value_name = "SHARE",
        default_value_t = Share::ALL,
    )]
    pub start_delay_share: Share,

    /// How long requests in flight may take to finish after SIGTERM or SIGINT
    #[arg(
        long,
        env = "SERVER_SHUTDOWN_TIMEOUT",
        value_name = "TIME",
        default_value = SHUTDOWN_TIMEOUT,
        value_parser = humantime::parse_duration,
    )]
    pub shutdown_timeout: Duration,
}

/// A number of worker threads, 1 to 512 (what actix accepts).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workers(u16);

/// Options, or one of them, that mean nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// A queue before an unlimited number of slots.
    #[error(
        "--queue {queue} is given without --concurrency: set --concurrency to how many requests \
         are worked on at once (at least 1), or leave --queue out"
    )]
    QueueWithoutConcurrency {
        /// The queue asked for.
        queue: u32,
    },
    /// Not a number of workers.
    #[error("must be a whole number from 1 to 512")]
    Workers,
}

// === impl Options ===

impl Options {
    /// Where to listen: `listen`, else `port` on 127.0.0.1.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.listen.unwrap_or_else(|| (Ipv4Addr::LOCALHOST, self.port).into())
    }

    /// # Errors
    ///
    /// [`OptionsError`] for options that contradict each other.
    pub fn check(&self) -> Result<(), OptionsError> {
        self.work_queue().map(drop)
    }

    pub(crate) fn work_queue(&self) -> Result<WorkQueue, OptionsError> {
        match (self.concurrency, self.queue) {
            (Some(concurrency), queue) => {
                Ok(WorkQueue::bounded(concurrency, queue.unwrap_or(QUEUE)))
            }
            (None, None) => Ok(WorkQueue::unlimited()),
            (None, Some(queue)) => Err(OptionsError::QueueWithoutConcurrency { queue }),
        }
    }

    pub(crate) fn latency(&self) -> Latency {
        Latency::new(self.latency, self.slow_share, self.slow_factor)
    }

    /// Whether this start waits before it listens: drawn anew at each call, unless there is a seed.
    pub(crate) fn is_delayed(&self) -> bool {
        let mut rng: StdRng = self.seed.map_or_else(rand::make_rng, StdRng::seed_from_u64);
        !self.start_delay.is_zero() && rng.random_bool(self.start_delay_share.get())
    }

    /// The only user, if there is one: an empty name is none.
    pub(crate) fn known_user(&self) -> Option<&str> {
        self.username.as_deref().filter(|name| !name.is_empty())
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: None,
            port: PORT,
            server_id: SERVER_ID.to_owned(),
            workers: Workers::ONE,
            skip_some_requests: false,
            fail_requests: false,
            username: None,
            latency: Duration::ZERO,
            slow_share: Share::NONE,
            slow_factor: Factor::TWENTY,
            concurrency: None,
            queue: None,
            seed: None,
            journal: None,
            start_delay: Duration::ZERO,
            start_delay_share: Share::ALL,
            shutdown_timeout: Duration::from_secs(10),
        }
    }
}

// === impl Workers ===

impl Workers {
    /// A single thread.
    pub const ONE: Self = Self(1);

    /// # Errors
    ///
    /// [`OptionsError::Workers`] unless `count` is from 1 to 512.
    pub fn new(count: u16) -> Result<Self, OptionsError> {
        if (1..=512).contains(&count) { Ok(Self(count)) } else { Err(OptionsError::Workers) }
    }

    /// The number of threads.
    #[must_use]
    pub fn get(self) -> usize {
        self.0.into()
    }
}

impl FromStr for Workers {
    type Err = OptionsError;

    fn from_str(text: &str) -> Result<Self, OptionsError> {
        text.parse().or(Err(OptionsError::Workers)).and_then(Self::new)
    }
}

impl fmt::Display for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

// === parsers of single values; clap adds the name of the option ===

fn address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().or(Err("must be ADDRESS:PORT, such as 127.0.0.1:5000 or [::1]:5000"))
}

/// Checked by its shape: its host is looked up only when the journal is opened.
fn journal(text: &str) -> Result<String, &'static str> {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
            Ok(text.to_owned())
        }
        _ => Err("must be HOST:PORT, such as 127.0.0.1:9000"),
    }
}

fn at_least_one(text: &str) -> Result<NonZeroU32, &'static str> {
    text.parse().or(Err("must be a whole number of at least 1"))
}

fn queue_length(text: &str) -> Result<u32, &'static str> {
    text.parse().or(Err("must be a whole number, 0 or more"))
}

/// The value of a flag in the environment: what people write for yes and no; empty is no.
fn switch(text: &str) -> Result<bool, &'static str> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" | "" => Ok(false),
        _ => Err("must be true or false"),
    }
}

#[cfg(test)]
mod tests;
