//! What the user typed: flags, environment variables and defaults, in this order of precedence.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;

use crate::latency::{Factor, Latency, Share, WorkQueue};

const PORT: u16 = 5000;
const SERVER_ID: &str = "1";
const LATENCY: &str = "0ms";
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
            username: None,
            latency: Duration::ZERO,
            slow_share: Share::NONE,
            slow_factor: Factor::TWENTY,
            concurrency: None,
            queue: None,
            seed: None,
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
mod tests {
    use clap::builder::Resettable;
    use clap::{Args as _, Command, FromArgMatches as _};

    use super::*;

    /// Parses a command line, whatever the environment of the test is.
    fn parse(arguments: &[&str]) -> Result<Options, String> {
        Options::augment_args(Command::new("server").no_binary_name(true))
            .mut_args(|argument| argument.env(Resettable::Reset))
            .try_get_matches_from(arguments)
            .and_then(|matches| Options::from_arg_matches(&matches))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn no_arguments_give_the_defaults() {
        assert_eq!(parse(&[]).unwrap(), Options::default());
        assert_eq!(Options::default().address(), "127.0.0.1:5000".parse().unwrap());
        assert_eq!(Options::default().check(), Ok(()));
    }

    #[test]
    fn every_option_can_be_given() {
        let given = parse(&[
            "--listen=[::1]:80",
            "--port=81",
            "--server-id=Server 4",
            "--workers=2",
            "--skip-some-requests",
            "--username=alice",
            "--latency=1s 500ms",
            "--slow-share=0.05",
            "--slow-factor=10",
            "--concurrency=4",
            "--queue=0",
            "--seed=7",
            "--shutdown-timeout=1m",
        ]);
        let expected = Options {
            listen: Some("[::1]:80".parse().unwrap()),
            port: 81,
            server_id: "Server 4".to_owned(),
            workers: Workers::new(2).unwrap(),
            skip_some_requests: true,
            username: Some("alice".to_owned()),
            latency: Duration::from_millis(1500),
            slow_share: Share::new(0.05).unwrap(),
            slow_factor: Factor::new(10.0).unwrap(),
            concurrency: NonZeroU32::new(4),
            queue: Some(0),
            seed: Some(7),
            shutdown_timeout: Duration::from_secs(60),
        };
        assert_eq!(given.unwrap(), expected);
        assert_eq!(expected.check(), Ok(()));
        assert_eq!(expected.address(), "[::1]:80".parse().unwrap());
    }

    #[test]
    fn the_port_alone_stays_on_loopback() {
        assert_eq!(parse(&["--port=0"]).unwrap().address(), "127.0.0.1:0".parse().unwrap());
    }

    #[test]
    fn a_bad_value_is_refused_by_the_name_of_its_option_and_what_is_allowed() {
        for (option, value, allowed) in [
            ("--listen", "localhost", "ADDRESS:PORT"),
            ("--port", "65536", "0..=65535"),
            ("--workers", "0", "from 1 to 512"),
            ("--workers", "513", "from 1 to 512"),
            ("--latency", "5", "5ms"),
            ("--slow-share", "1.5", "from 0 to 1"),
            ("--slow-share", "-0.5", "from 0 to 1"),
            ("--slow-factor", "0.5", "at least 1"),
            ("--concurrency", "0", "at least 1"),
            ("--queue", "-1", "0 or more"),
            ("--queue", "many", "0 or more"),
            ("--seed", "-1", "invalid digit"),
            ("--shutdown-timeout", "soon", "number"),
        ] {
            let error = parse(&[option, value]).unwrap_err();
            assert!(error.contains(option), "{error}");
            assert!(error.contains(allowed), "{error}");
        }
        assert!(parse(&["--server-id="]).unwrap_err().contains("--server-id"));
    }

    #[test]
    fn a_queue_without_concurrency_is_refused() {
        let options = Options { queue: Some(3), ..Options::default() };
        let error = options.check().unwrap_err();
        assert_eq!(error, OptionsError::QueueWithoutConcurrency { queue: 3 });
        assert!(
            error.to_string().contains("--queue 3") && error.to_string().contains("at least 1")
        );
    }

    #[test]
    fn a_switch_in_the_environment_is_a_yes_or_a_no() {
        for yes in ["true", "TRUE", "1", "yes", "on"] {
            assert_eq!(switch(yes), Ok(true));
        }
        for no in ["false", "0", "no", "off", ""] {
            assert_eq!(switch(no), Ok(false));
        }
        assert_eq!(switch("maybe"), Err("must be true or false"));
    }

    #[test]
    fn an_empty_user_name_is_none() {
        let named = |name: &str| Options { username: Some(name.to_owned()), ..Options::default() };
        assert_eq!(named("").known_user(), None);
        assert_eq!(named("alice").known_user(), Some("alice"));
    }
}
