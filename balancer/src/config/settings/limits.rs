//! `[timeouts]` and `[limits]`.

use clap::Args;
use serde::Deserialize;

use super::super::value::{Size, Span};
use super::first_of;

/// `[timeouts]`
#[derive(Args, Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TimeoutSettings {
    /// Time a client may take for the head of a request [default: 10s]
    #[arg(id = "timeout-head", long, env = "BALANCER_TIMEOUT_HEAD", value_name = "DURATION")]
    pub head: Option<Span>,

    /// Time a connection to a replica may take [default: 1s]
    #[arg(id = "timeout-connect", long, env = "BALANCER_TIMEOUT_CONNECT", value_name = "DURATION")]
    pub connect: Option<Span>,

    /// Time to the first byte of a replica's answer; after it: 504 [default: 30s]
    #[arg(
        id = "timeout-first-byte",
        long,
        env = "BALANCER_TIMEOUT_FIRST_BYTE",
        value_name = "DURATION"
    )]
    pub first_byte: Option<Span>,

    /// Longest silence of a client inside a request's body, or in taking its answer [default: 30s]
    #[arg(
        id = "timeout-client-body",
        long,
        env = "BALANCER_TIMEOUT_CLIENT_BODY",
        value_name = "DURATION"
    )]
    pub client_body: Option<Span>,

    /// Longest silence of a replica inside an answer's body, or in taking a request [default: 30s]
    #[arg(
        id = "timeout-replica-body",
        long,
        env = "BALANCER_TIMEOUT_REPLICA_BODY",
        value_name = "DURATION"
    )]
    pub replica_body: Option<Span>,

    /// Time a connection may idle, at either side [default: 75s]
    #[arg(
        id = "timeout-keep-alive",
        long,
        env = "BALANCER_TIMEOUT_KEEP_ALIVE",
        value_name = "DURATION"
    )]
    pub keep_alive: Option<Span>,

    /// Longest silence of both sides of an upgraded connection [default: 1h]
    #[arg(id = "timeout-tunnel", long, env = "BALANCER_TIMEOUT_TUNNEL", value_name = "DURATION")]
    pub tunnel: Option<Span>,

    /// Time that requests in flight have when their replica leaves or the balancer stops
    /// [default: 10s]
    #[arg(id = "timeout-drain", long, env = "BALANCER_TIMEOUT_DRAIN", value_name = "DURATION")]
    pub drain: Option<Span>,

    /// Time a replica has between SIGTERM and SIGKILL [default: 10s]
    #[arg(id = "timeout-stop", long, env = "BALANCER_TIMEOUT_STOP", value_name = "DURATION")]
    pub stop: Option<Span>,

    /// docker: time that pulling an image may take [default: 10m]
    #[arg(id = "timeout-pull", long, env = "BALANCER_TIMEOUT_PULL", value_name = "DURATION")]
    pub pull: Option<Span>,

    /// Longest time from the signal to the end of the process. What is not done by then is given
    /// up, logged, and the exit code is 1 [default: --timeout-drain + --timeout-stop + 5s]
    #[arg(
        id = "timeout-shutdown",
        long,
        env = "BALANCER_TIMEOUT_SHUTDOWN",
        value_name = "DURATION"
    )]
    pub shutdown: Option<Span>,
}

/// `[limits]`
#[derive(Args, Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitSettings {
    /// Most bytes of the head of a request (beyond it: 431) or of an answer (502), 1KiB to 1MiB
    /// [default: 16KiB]
    #[arg(id = "limit-head", long, env = "BALANCER_LIMIT_HEAD", value_name = "SIZE")]
    pub head: Option<Size>,

    /// Most header fields of a request; beyond it: 431 [default: 100]
    #[arg(id = "limit-fields", long, env = "BALANCER_LIMIT_FIELDS", value_name = "N")]
    pub fields: Option<u32>,

    /// Most header fields of a response; beyond it: 502 [default: 256]
    #[arg(
        id = "limit-response-fields",
        long,
        env = "BALANCER_LIMIT_RESPONSE_FIELDS",
        value_name = "N"
    )]
    pub response_fields: Option<u32>,

    /// Most bytes of a request's target, 64B to --limit-head; beyond it: 414 [default: 8KiB, or
    /// --limit-head where that is less]
    #[arg(id = "limit-target", long, env = "BALANCER_LIMIT_TARGET", value_name = "SIZE")]
    pub target: Option<Size>,

    /// Most bytes of a request's body; beyond it: 413 [default: no limit]
    #[arg(id = "limit-body", long, env = "BALANCER_LIMIT_BODY", value_name = "SIZE")]
    pub body: Option<Size>,

    /// Most connections of clients, in all; beyond it: 503 [default: three eighths of the
    /// descriptors that the process may have (ulimit -n, raised as far as it may be), less a
    /// reserve for probes and replicas: of 1024 about 288]
    #[arg(id = "limit-connections", long, env = "BALANCER_LIMIT_CONNECTIONS", value_name = "N")]
    pub connections: Option<usize>,

    /// Most connections of one client address [default: no limit]
    #[arg(
        id = "limit-connections-per-client",
        long,
        env = "BALANCER_LIMIT_CONNECTIONS_PER_CLIENT",
        value_name = "N"
    )]
    pub connections_per_client: Option<usize>,
}

impl TimeoutSettings {
    pub(super) fn or(self, other: Self) -> Self {
        first_of!(
            self, other;
            head, connect, first_byte, client_body, replica_body, keep_alive, tunnel, drain, stop,
            pull, shutdown;
        )
    }
}

impl LimitSettings {
    pub(super) fn or(self, other: Self) -> Self {
        first_of!(
            self, other;
            head, fields, response_fields, target, body, connections, connections_per_client;
        )
    }
}
