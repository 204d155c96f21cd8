//! `[[route]]`. Only the file has routes: they have no flags.

use std::fmt;

use serde::{Deserialize, Deserializer, de};

use super::super::value::{Percent, Size, Span};
use super::PolicyKind;

/// `[[route]]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RouteSettings {
    /// What it is called in logs and metrics.
    pub name: Option<String>,
    /// Hosts that it takes; all where none is given.
    pub hosts: Vec<String>,
    /// Methods that it takes; all where none is given.
    pub methods: Vec<String>,
    /// Paths that it takes; all where none is given.
    pub paths: Vec<String>,
    /// How one replica is chosen.
    pub policy: Option<PolicyKind>,
    /// What its requests are placed by.
    pub key: Option<String>,
    /// hash: how much more than its share of what is in flight a replica may have.
    pub balance_factor: Option<f64>,
    /// Whether a request without the cookie of its key gets one.
    pub issue: Option<bool>,
    /// How many replicas one request goes to.
    pub send: Option<SendKind>,
    /// all, first: the statuses that are a success.
    pub success: Option<Vec<u16>>,
    /// all: how often each replica is asked; first: how many rounds there are.
    pub attempts: Option<Attempts>,
    /// all: which replicas the request is for.
    pub among: Option<AmongKind>,
    /// all, first: the pauses between those.
    pub backoff: Option<BackoffSettings>,
    /// first: how many replicas are asked in a round.
    pub fan: Option<u32>,
    /// all, first: whether nothing is repeated for a client that has gone.
    pub abandon: Option<bool>,
    /// all, first: the largest body of a request; all: and of the answer that is held.
    pub body: Option<Size>,
    /// one: when a second replica is asked.
    pub hedge: Option<HedgeSettings>,
    /// Its own timeouts.
    pub timeouts: RouteTimeouts,
    /// Its own bounds for retries.
    pub retry: RouteRetry,
}

/// `route.backoff`
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BackoffSettings {
    /// The first pause.
    pub base: Option<Span>,
    /// The longest.
    pub max: Option<Span>,
    /// The bound of what is added to each.
    pub jitter: Option<Span>,
}

/// `route.hedge`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HedgeSettings {
    /// How late the first answer must be: a duration, or a percentile such as p95.
    pub after: Option<String>,
    /// The share of requests that may be hedged.
    pub budget: Option<Percent>,
}

/// `route.timeouts`
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RouteTimeouts {
    /// For the first byte of a replica's answer.
    pub first_byte: Option<Span>,
    /// For a silence of the client.
    pub client_body: Option<Span>,
    /// For a silence of the replica.
    pub replica_body: Option<Span>,
    /// For a silence of both sides of a tunnel.
    pub tunnel: Option<Span>,
}

/// `route.retry`
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RouteRetry {
    /// Most replicas that one request is tried at.
    pub attempts: Option<u32>,
    /// After this none is begun.
    pub deadline: Option<Span>,
    /// How much of a body is kept for it.
    pub body: Option<Size>,
}

/// `route.attempts`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempts {
    /// So many.
    Count(u32),
    /// `"unlimited"`: until one succeeds.
    Unlimited,
}

impl<'de> Deserialize<'de> for Attempts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AttemptsVisitor)
    }
}

struct AttemptsVisitor;

impl de::Visitor<'_> for AttemptsVisitor {
    type Value = Attempts;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number or \"unlimited\"")
    }

    fn visit_i64<E: de::Error>(self, count: i64) -> Result<Attempts, E> {
        let count = u32::try_from(count);
        count.map(Attempts::Count).map_err(|_negative| {
            E::custom("invalid attempts: expected 1 to 10000 or \"unlimited\"")
        })
    }

    fn visit_u64<E: de::Error>(self, count: u64) -> Result<Attempts, E> {
        Ok(Attempts::Count(u32::try_from(count).unwrap_or(u32::MAX)))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Attempts, E> {
        match text {
            "unlimited" => Ok(Attempts::Unlimited),
            _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
        }
    }
}

/// `route.among`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AmongKind {
    /// Every member that should exist, ready or not.
    #[default]
    Members,
    /// The replicas that are ready when the request comes.
    Ready,
}

/// `route.send`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SendKind {
    /// To one replica.
    #[default]
    One,
    /// To all of them, until each has succeeded.
    All,
    /// To several; the first success is the answer.
    First,
}
