//! What the user typed → what the controller needs, checked once.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use http::Uri;
use http::uri::Scheme;
use thiserror::Error;
use tracing_subscriber::EnvFilter;

use crate::config::LogConfig;
use crate::config::settings::{LogFormat, level};
use crate::config::value::Span;
use crate::fleet::overload::OverloadConfig;

/// The flags of `balancer watch`. Some variables have the names that other controllers know.
#[derive(Args, Clone, Debug)]
pub struct WatchSettings {
    /// The balancer whose overload API is used, such as http://127.0.0.1:5000; a path before
    /// /loadbalancer may follow
    #[arg(long, env = "BALANCER_WATCH_API", value_name = "URL")]
    pub api: ApiUrl,

    /// Sent as 'Authorization: Bearer TOKEN' [default: nothing is sent]
    #[arg(long, env = "BALANCER_ADMIN_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub token: Option<String>,

    /// How many nodes stay enabled however loaded they are, at least 1
    #[arg(long, env = "MIN_NUMBER_OF_SERVERS", value_name = "N", default_value = "2",
          value_parser = at_least_one)]
    pub min_ready: NonZeroU32,

    /// How many requests a node can have in flight, at least 1
    #[arg(long, env = "BALANCER_OVERLOAD_CAPACITY", value_name = "N", default_value = "500",
          value_parser = at_least_one)]
    pub capacity: NonZeroU32,

    /// Above this share of the capacity a node is disabled, 0 to 1
    #[arg(long, env = "MAX_ACCEPTABLE_LOAD", value_name = "SHARE", default_value = "0.75",
          value_parser = share)]
    pub max_load: f64,

    /// At or below this share of the capacity it is enabled again; at most --max-load [default:
    /// --max-load]
    #[arg(long, env = "BALANCER_OVERLOAD_RESUME_LOAD", value_name = "SHARE", value_parser = share)]
    pub resume_load: Option<f64>,

    /// From the begin of one look at all nodes to the next; 10 is 10s
    #[arg(long, env = "UPDATE_INTERVAL", value_name = "TIME", default_value = "10s",
          value_parser = time)]
    pub interval: Duration,

    /// How long a call may take
    #[arg(long, env = "BALANCER_WATCH_TIMEOUT", value_name = "TIME", default_value = "5s",
          value_parser = time)]
    pub timeout: Duration,

    /// Look and act once, then end: with 0, or with 1 if that was not possible
    #[arg(long)]
    pub once: bool,

    /// Which log lines are written: critical, error, warning, warn, info, debug, trace, in any
    /// case, or a filter such as balancer=debug
    #[arg(long, env = "LOG_LEVEL", value_name = "FILTER", default_value = "info",
          value_parser = log_level)]
    pub log_level: String,

    /// How log lines are written
    #[arg(long, env = "BALANCER_LOG_FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,
}

/// What the controller needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// The balancer.
    pub api: ApiUrl,
    /// What its changing calls want, if they do.
    pub token: Option<Secret>,
    /// When a node is overloaded, and how many must be left.
    pub overload: OverloadConfig,
    /// From the begin of one round to the next.
    pub interval: Duration,
    /// How long a call may take.
    pub timeout: Duration,
    /// Whether there is one round only.
    pub once: bool,
    /// Logging.
    pub log: LogConfig,
}

/// Where an API is: `http://host:port` and the path before it, without a `/` at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiUrl(String);

/// A text that is sent and never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// Options that are no good, where that is not seen by looking at the text of one.
#[derive(Clone, Copy, Debug, PartialEq, Error)]
pub enum OptionsError {
    /// It cannot be sent. Found here, since what looks at the text repeats it.
    #[error("--token must be visible ASCII characters, without spaces")]
    Token,
    /// A node would be enabled and disabled at once.
    #[error("--resume-load must be 0 to {max_load} (--max-load), not {resume_load}")]
    ResumeLoad {
        /// What `--resume-load` is.
        resume_load: f64,
        /// What `--max-load` is.
        max_load: f64,
    },
}

const MIN_TIME: Duration = Duration::from_millis(1);
const MAX_TIME: Duration = Duration::from_hours(24);

// === impl WatchSettings ===

impl WatchSettings {
    /// What the controller needs, from this.
    ///
    /// # Errors
    /// [`OptionsError`], which names the flag.
    pub fn check(self) -> Result<Options, OptionsError> {
        let (max_load, resume_load) = (self.max_load, self.resume_load.unwrap_or(self.max_load));
        if resume_load > max_load {
            return Err(OptionsError::ResumeLoad { resume_load, max_load });
        }
        let sendable =
            |token: &String| !token.is_empty() && token.bytes().all(|c| c.is_ascii_graphic());
        if !self.token.as_ref().is_none_or(sendable) {
            return Err(OptionsError::Token);
        }
        Ok(Options {
            api: self.api,
            token: self.token.map(Secret),
            overload: OverloadConfig {
                min_ready: self.min_ready.get() as usize,
                capacity: self.capacity.get(),
                max_load,
                resume_load,
            },
            interval: self.interval,
            timeout: self.timeout,
            once: self.once,
            log: LogConfig { format: self.log_format, filter: self.log_level },
        })
    }
}

// === impl ApiUrl ===

impl FromStr for ApiUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let must = "must be a URL such as http://127.0.0.1:5000";
        let url: Uri = text.parse().map_err(|error| format!("{must}: {error}"))?;
        if url.scheme() != Some(&Scheme::HTTP) {
            return Err(format!("{must}: only http:// is spoken"));
        }
        let authority = url.authority().map_or("", |authority| authority.as_str());
        if authority.contains('@') {
            return Err(format!("{must}: without a name before the host, see --token"));
        }
        let host = url.host().unwrap_or_default();
        if host.is_empty() {
            return Err(format!("{must}: the host is missing"));
        }
        // Of what is no port, `Uri` tells as of none.
        if authority != host && url.port_u16().is_none_or(|port| port == 0) {
            return Err(format!("{must}: the port must be 1 to 65535"));
        }
        if text.contains(['?', '#']) {
            return Err(format!("{must}: without a query or a fragment"));
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }
}

impl fmt::Display for ApiUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl Secret ===

impl Secret {
    /// The text, to be sent.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

// === Single values ===

fn at_least_one(text: &str) -> Result<NonZeroU32, String> {
    text.parse().map_err(|_bad| format!("must be a whole number from 1 to {}", u32::MAX))
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "must be a number from 0 to 1, such as 0.75".to_owned())
}

/// A duration with its unit, or a number of seconds.
fn time(text: &str) -> Result<Duration, String> {
    let time = Span::or_seconds(text).ok().map(|Span(time)| time);
    time.filter(|time| (MIN_TIME..=MAX_TIME).contains(time)).ok_or_else(|| {
        "must be 1ms to 24h, such as 500ms, 10s or 5m, or a number of seconds".to_owned()
    })
}

/// A level as other programs call it, too, or a filter.
fn log_level(text: &str) -> Result<String, String> {
    // Another word alone would be the name of a module, and hide every line.
    if text.contains('=') && EnvFilter::builder().parse(text).is_ok() {
        return Ok(text.to_owned());
    }
    level(text).map_err(|_bad| {
        "must be critical, error, warning, warn, info, debug, trace or off, or a filter such as \
         balancer=debug"
            .to_owned()
    })
}

#[cfg(test)]
mod tests;
