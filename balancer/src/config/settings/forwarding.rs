//! `[retry]` and `[forwarded]`.

use clap::Args;
use serde::Deserialize;

use super::super::value::{Network, Percent, Size, Span};
use super::first_of;

/// `[retry]`
#[derive(Args, Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetrySettings {
    /// Most replicas that one request is tried at, the first included [default: 5]
    #[arg(id = "retry-attempts", long, env = "BALANCER_RETRY_ATTEMPTS", value_name = "N")]
    pub attempts: Option<u32>,

    /// Share of requests that may be retries, 0% to 100% [default: 20%]
    #[arg(id = "retry-budget", long, env = "BALANCER_RETRY_BUDGET", value_name = "PERCENT")]
    pub budget: Option<Percent>,

    /// Retries a second that are always allowed, whatever the share [default: 10]
    #[arg(
        id = "retry-min-per-second",
        long,
        env = "BALANCER_RETRY_MIN_PER_SECOND",
        value_name = "N"
    )]
    pub min_per_second: Option<u32>,

    /// No retry is begun later than this after the request came [default: 30s]
    #[arg(id = "retry-deadline", long, env = "BALANCER_RETRY_DEADLINE", value_name = "DURATION")]
    pub deadline: Option<Span>,

    /// How much of a request's body is kept so that it can be sent again, at most 16MiB [default:
    /// 64KiB]
    #[arg(id = "retry-body", long, env = "BALANCER_RETRY_BODY", value_name = "SIZE")]
    pub body: Option<Size>,

    /// Time for which a request (method and target) that was in flight at two replicas when they
    /// died within a minute is answered 502 without an attempt; 0s: never [default: 30s]
    #[arg(
        id = "retry-quarantine",
        long,
        env = "BALANCER_RETRY_QUARANTINE",
        value_name = "DURATION"
    )]
    pub quarantine: Option<Span>,
}

/// `[forwarded]`
#[derive(Args, Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ForwardedSettings {
    /// Addresses or networks of trusted proxies, such as 10.0.0.0/8 or ::1, separated by commas.
    /// Their X-Forwarded-* fields, Forwarded and X-Real-IP are believed and added to; those of
    /// other clients are removed
    #[arg(
        id = "forwarded-trust",
        long,
        env = "BALANCER_FORWARDED_TRUST",
        value_name = "LIST",
        value_delimiter = ','
    )]
    pub trust: Option<Vec<Network>>,

    /// Name for 'Via: 1.1 NAME', which is added to requests and answers
    #[arg(id = "forwarded-via", long, env = "BALANCER_FORWARDED_VIA", value_name = "NAME")]
    pub via: Option<String>,

    /// Add the client to Forwarded (RFC 7239) in every request to a replica; by default only where
    /// a trusted proxy sent one [default: false]
    #[arg(id = "forwarded-rfc7239", long, env = "BALANCER_FORWARDED_RFC7239",
          value_name = "BOOL", num_args = 0..=1, default_missing_value = "true",
          require_equals = true)]
    pub rfc7239: Option<bool>,

    /// How often one request may pass through this balancer, 1 to 100; after that it is a
    /// forwarding loop: 508 [default: 1]
    #[arg(
        id = "forwarded-max-passes",
        long,
        env = "BALANCER_FORWARDED_MAX_PASSES",
        value_name = "N"
    )]
    pub max_passes: Option<u32>,
}

impl RetrySettings {
    pub(super) fn or(self, other: Self) -> Self {
        first_of!(self, other; attempts, budget, min_per_second, deadline, body, quarantine;)
    }
}

impl ForwardedSettings {
    pub(super) fn or(self, other: Self) -> Self {
        first_of!(self, other; trust, via, rfc7239, max_passes;)
    }
}
