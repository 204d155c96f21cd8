//! `[health]`, `[outliers]`, `[respawn]`, `[roll]` and `[scale]`.

use clap::Args;
use serde::Deserialize;

use super::super::value::{Percent, Span};
use super::first_of;

/// `[health]`
#[derive(Args, Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HealthSettings {
    /// Time between two probes of a replica [default: 1s, or 10s for listed replicas]
    #[arg(id = "health-interval", long, env = "BALANCER_HEALTH_INTERVAL", value_name = "DURATION")]
    pub interval: Option<Span>,

    /// Time a probe's answer may take [default: 1s]
    #[arg(id = "health-timeout", long, env = "BALANCER_HEALTH_TIMEOUT", value_name = "DURATION")]
    pub timeout: Option<Span>,

    /// The Host field of health checks, such as web.example:8080 [default: a listed server as it is
    /// listed, without port 80; otherwise the replica's address]
    #[arg(id = "health-host", long, env = "BALANCER_HEALTH_HOST", value_name = "HOST")]
    pub host: Option<String>,

    /// Good probes in a row until a replica takes requests [default: 1]
    #[arg(id = "health-rise", long, env = "BALANCER_HEALTH_RISE", value_name = "N")]
    pub rise: Option<u32>,

    /// Bad probes in a row until a replica takes no more requests [default: 3]
    #[arg(id = "health-fall", long, env = "BALANCER_HEALTH_FALL", value_name = "N")]
    pub fall: Option<u32>,

    /// Time from a replica's start to its first good probes [default: 60s]
    #[arg(
        id = "health-start-deadline",
        long,
        env = "BALANCER_HEALTH_START_DEADLINE",
        value_name = "DURATION"
    )]
    pub start_deadline: Option<Span>,

    /// A replica that runs but has failed its probes, been paused or called itself unhealthy for
    /// so long is replaced: it goes when another is ready [default: 30s]
    #[arg(
        id = "health-replace-after",
        long,
        env = "BALANCER_HEALTH_REPLACE_AFTER",
        value_name = "DURATION"
    )]
    pub replace_after: Option<Span>,

    /// When more than this share of the replicas that run look bad at once, the probe is taken to
    /// be wrong: all are routed to, and none is replaced; 100% for never [default: 50%]
    #[arg(id = "health-panic", long, env = "BALANCER_HEALTH_PANIC", value_name = "PERCENT")]
    pub panic: Option<Percent>,

    /// A new replica's share of the keys grows over this time, in ten steps [default: off]
    #[arg(
        id = "health-slow-start",
        long,
        env = "BALANCER_HEALTH_SLOW_START",
        value_name = "DURATION"
    )]
    pub slow_start: Option<Span>,
}

/// `[outliers]`
#[derive(Args, Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OutlierSettings {
    /// Failures in a row on real requests (no connection, no answer, 500 to 599) after which a
    /// replica is ejected for a time; 0 for never [default: 5]
    #[arg(
        id = "outliers-consecutive",
        long,
        env = "BALANCER_OUTLIERS_CONSECUTIVE",
        value_name = "N"
    )]
    pub consecutive: Option<u32>,

    /// That time; it doubles with each ejection [default: 10s]
    #[arg(id = "outliers-base", long, env = "BALANCER_OUTLIERS_BASE", value_name = "DURATION")]
    pub base: Option<Span>,

    /// Its longest; after so long without another, the next is the first again [default: 5m]
    #[arg(id = "outliers-max", long, env = "BALANCER_OUTLIERS_MAX", value_name = "DURATION")]
    pub max: Option<Span>,

    /// Share of the fleet that may be ejected so at once; of two or more replicas one always may,
    /// and the last one never [default: 50%]
    #[arg(
        id = "outliers-max-share",
        long,
        env = "BALANCER_OUTLIERS_MAX_SHARE",
        value_name = "PERCENT"
    )]
    pub max_share: Option<Percent>,
}

/// `[respawn]`
#[derive(Args, Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RespawnSettings {
    /// A seat's first lost replica is replaced at once, the second after this; then it doubles,
    /// give or take a quarter [default: 100ms]
    #[arg(id = "respawn-base", long, env = "BALANCER_RESPAWN_BASE", value_name = "DURATION")]
    pub base: Option<Span>,

    /// Its longest [default: 60s]
    #[arg(id = "respawn-max", long, env = "BALANCER_RESPAWN_MAX", value_name = "DURATION")]
    pub max: Option<Span>,

    /// A replica that was ready for so long makes its seat's next failure the first again
    /// [default: 60s]
    #[arg(
        id = "respawn-reset-after",
        long,
        env = "BALANCER_RESPAWN_RESET_AFTER",
        value_name = "DURATION"
    )]
    pub reset_after: Option<Span>,
}

/// `[roll]`
#[derive(Args, Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RollSettings {
    /// Time for which a new replica must be ready until its seat counts as updated: only then its
    /// predecessor leaves and the next seat has its turn; 0s for no time [default: 5s]
    #[arg(id = "roll-monitor", long, env = "BALANCER_ROLL_MONITOR", value_name = "DURATION")]
    pub monitor: Option<Span>,
}

/// `[scale]`
#[derive(Args, Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScaleSettings {
    /// How few replicas there are at least, where the fleet follows its load [default: 1]
    #[arg(id = "scale-min", long, env = "BALANCER_SCALE_MIN", value_name = "N")]
    pub min: Option<usize>,

    /// How many replicas there are at most then [default: as many as there may be]
    #[arg(id = "scale-max", long, env = "BALANCER_SCALE_MAX", value_name = "N")]
    pub max: Option<usize>,

    /// Requests in flight that each replica is to have on average: the fleet grows and shrinks
    /// with its load, within --scale-min and --scale-max [default: off]
    #[arg(
        id = "scale-target-in-flight",
        long,
        env = "BALANCER_SCALE_TARGET_IN_FLIGHT",
        value_name = "NUMBER"
    )]
    pub target_in_flight: Option<f64>,

    /// Time over which they are averaged, and after which the fleet may change again
    /// [default: 15s]
    #[arg(id = "scale-interval", long, env = "BALANCER_SCALE_INTERVAL", value_name = "DURATION")]
    pub interval: Option<Span>,

    /// The fleet shrinks to no fewer replicas than were wanted at any time within this one
    /// [default: 5m]
    #[arg(id = "scale-cool-down", long, env = "BALANCER_SCALE_COOL_DOWN", value_name = "DURATION")]
    pub cool_down: Option<Span>,

    /// How far the average may be from the target without any change [default: 10%]
    #[arg(id = "scale-tolerance", long, env = "BALANCER_SCALE_TOLERANCE", value_name = "PERCENT")]
    pub tolerance: Option<Percent>,
}

impl HealthSettings {
    pub(super) fn or(self, other: Self) -> Self {
        first_of!(
            self, other;
            interval, timeout, host, rise, fall, start_deadline, replace_after, panic, slow_start;
        )
    }
}

impl OutlierSettings {
    pub(super) fn or(self, other: Self) -> Self {
        first_of!(self, other; consecutive, base, max, max_share;)
    }
}

impl RespawnSettings {
    pub(super) fn or(self, other: Self) -> Self {
        first_of!(self, other; base, max, reset_after;)
    }
}

impl RollSettings {
    pub(super) fn or(self, other: Self) -> Self {
        first_of!(self, other; monitor;)
    }
}

impl ScaleSettings {
    pub(super) fn or(self, other: Self) -> Self {
        first_of!(self, other; min, max, target_in_flight, interval, cool_down, tolerance;)
    }
}
