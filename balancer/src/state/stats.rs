//! What was counted when the statistics of `/loadbalancer/stats` were cleared last.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// See the module.
#[derive(Debug)]
pub struct Stats(Mutex<Baseline>);

/// What counts begin from.
#[derive(Clone, Debug)]
pub struct Baseline {
    /// Since when.
    pub since: SystemTime,
    /// What was counted of each replica by then.
    pub counted: BTreeMap<String, Counted>,
}

/// What is counted of a replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Requests that have ended.
    pub requests: u64,
    /// Those that went wrong.
    pub failures: u64,
}

// === impl Stats ===

impl Stats {
    /// Nothing has been counted.
    pub fn new() -> Self {
        let baseline = Baseline { since: SystemTime::now(), counted: BTreeMap::new() };
        Self(Mutex::new(baseline))
    }

    /// What counts begin from.
    pub fn baseline(&self) -> Baseline {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// They begin anew.
    pub fn clear(&self, baseline: Baseline) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = baseline;
    }
}

impl Default for Stats {
    fn default() -> Self {
        Self::new()
    }
}

// === impl Counted ===

impl Counted {
    /// What has come after `before`. One that has its name from another that left began anew.
    pub fn since(self, before: Self) -> Self {
        let went_on = self.requests >= before.requests && self.failures >= before.failures;
        let before = if went_on { before } else { Self::default() };
        Self {
            requests: self.requests - before.requests,
            failures: self.failures - before.failures,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_go_on_from_where_they_were_cleared() {
        let counted = |requests, failures| Counted { requests, failures };
        assert_eq!(counted(9, 2).since(counted(4, 2)), counted(5, 0));
        assert_eq!(counted(3, 1).since(counted(4, 1)), counted(3, 1), "another of that name");
    }
}
