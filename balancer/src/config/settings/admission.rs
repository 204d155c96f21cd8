//! `[admission]`.

use clap::Args;
use serde::Deserialize;

use super::super::value::Span;
use super::first_of;

/// `[admission]`
#[derive(Args, Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdmissionSettings {
    /// Most requests in flight at all replicas together; others wait [default: no limit]
    #[arg(
        id = "admission-in-flight",
        long,
        env = "BALANCER_ADMISSION_IN_FLIGHT",
        value_name = "N"
    )]
    pub in_flight: Option<usize>,

    /// Most requests in flight at one replica; the next owner takes what is beyond it, and where
    /// all are full the request waits [default: no limit]
    #[arg(
        id = "admission-per-replica",
        long,
        env = "BALANCER_ADMISSION_PER_REPLICA",
        value_name = "N"
    )]
    pub per_replica: Option<usize>,

    /// A replica's own limit follows its latency: it grows while answers begin within this, and is
    /// cut by a tenth when one does not (AIMD); --admission-per-replica is its most, or 1000
    /// [default: off]
    #[arg(
        id = "admission-target-latency",
        long,
        env = "BALANCER_ADMISSION_TARGET_LATENCY",
        value_name = "DURATION"
    )]
    pub target_latency: Option<Span>,

    /// How many requests may wait for room; one more is 503 at once [default: 1024]
    #[arg(id = "admission-queue", long, env = "BALANCER_ADMISSION_QUEUE", value_name = "N")]
    pub queue: Option<usize>,

    /// How long one may wait; after it 503 [default: 1s]
    #[arg(id = "admission-wait", long, env = "BALANCER_ADMISSION_WAIT", value_name = "DURATION")]
    pub wait: Option<Span>,
}

// === impl AdmissionSettings ===

impl AdmissionSettings {
    pub(super) fn or(self, other: Self) -> Self {
        first_of!(self, other; in_flight, per_replica, target_latency, queue, wait;)
    }
}
