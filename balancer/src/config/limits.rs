//! What clients and replicas may use up: time, bytes, connections.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use super::ConfigError;
use super::check::{at_least_one, must, span, within};
use super::settings::{LimitSettings, TimeoutSettings};
use super::value::Size;

/// Deadlines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For the head of a client's request.
    pub head: Duration,
    /// For a connection to a replica.
    pub connect: Duration,
    /// For the first byte of a replica's answer.
    pub first_byte: Duration,
    /// For the longest silence of a client inside a request's body, or in taking its answer.
    pub client_body: Duration,
    /// For the longest silence of a replica inside an answer's body, or in taking a request.
    pub replica_body: Duration,
    /// For an idle connection.
    pub keep_alive: Duration,
    /// For the longest silence of both sides of an upgraded connection.
    pub tunnel: Duration,
    /// For requests in flight at a replica that leaves, or at the balancer's end.
    pub drain: Duration,
    /// Between a replica's SIGTERM and SIGKILL.
    pub stop: Duration,
    /// For pulling an image.
    pub pull: Duration,
    /// From the signal to the end of the process, whatever hangs.
    pub shutdown: Duration,
}

/// The deadlines of one shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShutdownDeadlines {
    /// For requests in flight and deliveries.
    pub traffic: Instant,
    /// For all: replicas are stopped then, or given up.
    pub end: Instant,
}

/// What a client may use up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of the head of a request (else 431) or of an answer (else 502).
    pub head: usize,
    /// Most header fields of a request; else 431.
    pub fields: usize,
    /// Most header fields of a response; else 502.
    pub response_fields: usize,
    /// Most bytes of a request's target, at most `head`; else 414.
    pub target: usize,
    /// Most bytes of a request's body, if there is a limit; else 413.
    pub body: Option<u64>,
    /// Most connections of clients, if there is a limit.
    pub connections: Option<usize>,
    /// Most idle connections to replicas that are kept.
    pub idle: usize,
    /// Most connections that are accepted at once, surplus ones included.
    pub accepted: usize,
    /// Most connections to the admin listener that are accepted at once.
    pub admin: usize,
    /// Most connections of one client address, if there is a limit.
    pub connections_per_client: Option<usize>,
    /// Most requests with `send = "all"` or `"first"` in progress, those whose client has gone among
    /// them; else 503.
    pub deliveries: usize,
}

/// What a shutdown may take beside draining and stopping: calls to the engine, above all.
const SHUTDOWN_MARGIN: Duration = Duration::from_secs(5);

/// The default of `limits.deliveries`: with the default body limit of such routes, 1 MiB, they take
/// 1 GiB at most.
const DELIVERIES: usize = 1_000;

/// The least and the most for the head of a request or an answer.
const HEAD: RangeInclusive<Size> = Size(1 << 10)..=Size(1 << 20);

/// Connections that are accepted where there is no limit of descriptors.
const ACCEPTED_MOST: usize = 1 << 24;
const ADMIN_MOST: usize = 1_024;

/// The least for `limits.target`.
const TARGET_LEAST: Size = Size(64);

pub(super) fn timeouts(settings: &TimeoutSettings) -> Result<Timeouts, ConfigError> {
    let drain = span("timeouts.drain", settings.drain, 10)?;
    let stop = span("timeouts.stop", settings.stop, 10)?;
    let shutdown = match settings.shutdown {
        Some(_) => span("timeouts.shutdown", settings.shutdown, 0)?,
        None => drain + stop + SHUTDOWN_MARGIN,
    };
    Ok(Timeouts {
        head: span("timeouts.head", settings.head, 10)?,
        connect: span("timeouts.connect", settings.connect, 1)?,
        first_byte: span("timeouts.first_byte", settings.first_byte, 30)?,
        client_body: span("timeouts.client_body", settings.client_body, 30)?,
        replica_body: span("timeouts.replica_body", settings.replica_body, 30)?,
        keep_alive: span("timeouts.keep_alive", settings.keep_alive, 75)?,
        tunnel: span("timeouts.tunnel", settings.tunnel, 60 * 60)?,
        drain,
        stop,
        pull: span("timeouts.pull", settings.pull, 10 * 60)?,
        shutdown,
    })
}

// === impl Timeouts ===

impl Timeouts {
    /// Returns the deadlines of a shutdown that begins `now`. Where `shutdown` is less than
    /// draining and stopping may take, replicas keep the time of their stop, at most half of it.
    pub fn shutdown_from(&self, now: Instant) -> ShutdownDeadlines {
        let rest = self.shutdown.saturating_sub(self.stop + SHUTDOWN_MARGIN);
        let traffic = self.drain.min(rest.max(self.shutdown / 2));
        ShutdownDeadlines { traffic: now + traffic, end: now + self.shutdown }
    }
}

pub(super) fn limits(settings: &LimitSettings) -> Result<Limits, ConfigError> {
    let head = within("limits.head", settings.head.unwrap_or(Size(16 << 10)), HEAD)?;
    // So that a small head alone is no mistake of a target that nobody set.
    let target = settings.target.unwrap_or(Size(head.0.min(8 << 10)));
    if !(TARGET_LEAST..=head).contains(&target) {
        let why = format!("must be {TARGET_LEAST} to {head} ('limits.head'), not {target}");
        return Err(must("limits.target", why));
    }
    let response_fields = settings.response_fields.unwrap_or(256);
    let per_client = settings.connections_per_client;
    Ok(Limits {
        head: head.0 as usize,
        fields: within("limits.fields", settings.fields.unwrap_or(100), 1..=10_000)? as usize,
        response_fields: within("limits.response_fields", response_fields, 1..=10_000)? as usize,
        target: target.0 as usize,
        body: settings.body.map(|size| size.0),
        connections: at_least_one("limits.connections", settings.connections)?,
        idle: usize::MAX,
        accepted: ACCEPTED_MOST,
        admin: ADMIN_MOST,
        connections_per_client: at_least_one("limits.connections_per_client", per_client)?,
        deliveries: at_least_one("limits.deliveries", settings.deliveries)?.unwrap_or(DELIVERIES),
    })
}
