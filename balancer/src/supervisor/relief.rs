//! The overload controller at its work: the fleet's loads are looked at in even intervals.

use std::time::{Duration, Instant};

use super::Supervisor;
use crate::config::ReliefConfig;
use crate::fleet::overload::OverloadConfig;
use crate::fleet::seat::Hostname;
use crate::runtime::Runtime;
use crate::state::NodeStatus;

/// When it looks next, and by what it decides.
pub(super) struct Relief {
    decide: OverloadConfig,
    interval: Duration,
    due: Instant,
}

// === impl Relief ===

impl Relief {
    pub(super) fn new(config: ReliefConfig, now: Instant) -> Self {
        let ReliefConfig { decide, interval } = config;
        Self { decide, interval, due: now + interval }
    }
}

// === impl Supervisor ===

impl<R: Runtime> Supervisor<R> {
    /// Looks when it is time, or when one is missing for the minimum that could be switched on.
    /// Tells when it is time next.
    pub(super) fn relieve(&mut self) -> Option<Instant> {
        let relief = self.relief.as_mut()?;
        let now = Instant::now();
        let due = relief.due <= now;
        if due || self.roster.is_short(relief.decide.min_ready) {
            self.roster.relieve(&relief.decide, |hostname| self.handles.in_flight(hostname));
        }
        if due {
            relief.due = now + relief.interval;
        }
        Some(relief.due)
    }

    /// How a node is, after it was switched on or off where that is asked for; nothing of one that
    /// there is not.
    pub(super) fn node(&mut self, hostname: &Hostname, enable: Option<bool>) -> Option<NodeStatus> {
        let queued_requests = self.handles.in_flight(hostname);
        // One that is leaving, or dead, is no node any more.
        if !self.roster.may_be_switched(hostname) {
            return None;
        }
        if let Some(enable) = enable {
            self.roster.enable(hostname, enable, queued_requests);
            // Whoever asked may rely on it from the answer on.
            let _published = self.publish();
        }
        let enabled = self.roster.is_enabled(hostname)?;
        Some(NodeStatus { node: hostname.to_string(), enabled, queued_requests })
    }
}
