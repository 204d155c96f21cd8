//! What came of a run, real or simulated, in the same figures.

use std::time::Duration;

use crate::experiment::Problems;
use crate::stats::Percentiles;

/// Which part of a run counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    /// So long requests come, but do not count.
    pub(super) warm_up: Duration,
    /// So long they do.
    pub(super) counted: Duration,
}

/// A look at all replicas at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Look {
    /// From the start of the run.
    pub(super) at: Duration,
    /// Requests in flight at the busiest replica.
    pub(super) longest: usize,
    /// The share of the replicas that have nothing to do while a request waits at another one.
    pub(super) stranded: f64,
    /// Replicas that take new requests.
    pub(super) enabled: usize,
}

/// A run in figures.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Outcome {
    /// Requests that came within the window.
    pub(super) requests: u64,
    /// Of them, those that were refused.
    pub(super) failed: u64,
    /// Of them, those that were placed elsewhere than at their key's first owner.
    pub(super) moved: u64,
    /// From the arrival to the answer, of those that were answered well.
    pub(super) latency: Percentiles,
    /// Good answers a second within the window, whenever their requests came.
    pub(super) throughput: f64,
    /// Every [`EVERY`], the warm-up among them.
    pub(super) looks: Vec<Look>,
    pub(super) window: Window,
    /// What was not as it must be.
    pub(super) problems: Problems,
}

/// From one look to the next.
pub(super) const EVERY: Duration = Duration::from_millis(100);

// === impl Window ===

impl Window {
    /// When the last request comes.
    pub(super) fn end(&self) -> Duration {
        self.warm_up + self.counted
    }

    /// Whether what happens then counts.
    pub(super) fn holds(&self, at: Duration) -> bool {
        (self.warm_up..self.end()).contains(&at)
    }
}

// === impl Look ===

impl Look {
    /// At replicas with so many requests in flight, of which each works on `workers` at once.
    pub(super) fn of(at: Duration, in_flight: &[usize], workers: u32, enabled: usize) -> Self {
        let somebody_waits = in_flight.iter().any(|queued| *queued > workers as usize);
        let idle = in_flight.iter().filter(|queued| **queued == 0).count();
        let share = idle as f64 / in_flight.len().max(1) as f64;
        Self {
            at,
            longest: in_flight.iter().copied().max().unwrap_or_default(),
            stranded: if somebody_waits { share } else { 0.0 },
            enabled,
        }
    }
}

// === impl Outcome ===

impl Outcome {
    /// Before anything came.
    pub(super) fn empty(window: Window) -> Self {
        Self {
            requests: 0,
            failed: 0,
            moved: 0,
            latency: Percentiles::default(),
            throughput: 0.0,
            looks: Vec::new(),
            window,
            problems: Problems::new(),
        }
    }

    /// The longest queue that was seen: requests in flight at one replica.
    pub(super) fn longest(&self) -> usize {
        self.counted_looks().map(|look| look.longest).max().unwrap_or_default()
    }

    /// The share of the replicas' time in which one has nothing to do while a request waits at
    /// another one.
    pub(super) fn stranded(&self) -> f64 {
        let (sum, count) = self
            .counted_looks()
            .fold((0.0, 0_u32), |(sum, count), look| (sum + look.stranded, count + 1));
        sum / f64::from(count.max(1))
    }

    /// The share of the requests that were placed elsewhere than at their key's first owner.
    pub(super) fn moved_share(&self) -> f64 {
        self.moved as f64 / self.requests.max(1) as f64
    }

    /// The share of the requests that were refused.
    pub(super) fn failed_share(&self) -> f64 {
        self.failed as f64 / self.requests.max(1) as f64
    }

    fn counted_looks(&self) -> impl Iterator<Item = &Look> {
        self.looks.iter().filter(|look| self.window.holds(look.at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_are_stranded_only_while_another_request_waits() {
        let look = |in_flight: &[usize], workers| Look::of(EVERY, in_flight, workers, 4);
        assert_eq!(look(&[1, 1, 0, 0], 1).stranded, 0.0);
        assert_eq!(look(&[2, 0, 0, 1], 1).stranded, 0.5);
        assert_eq!(look(&[2, 0, 0, 1], 2).stranded, 0.0);
        assert_eq!((look(&[2, 7, 0, 1], 1).longest, look(&[], 1).longest), (7, 0));
    }

    #[test]
    fn the_warm_up_does_not_count() {
        let window = Window { warm_up: EVERY, counted: 2 * EVERY };
        let look = |number: u32, longest, stranded| Look {
            at: number * EVERY,
            longest,
            stranded,
            enabled: 1,
        };
        let looks = vec![look(0, 9, 1.0), look(1, 2, 0.5), look(2, 3, 0.0), look(3, 8, 1.0)];
        let outcome = Outcome { requests: 4, failed: 1, moved: 3, looks, ..Outcome::empty(window) };
        assert_eq!((outcome.longest(), outcome.stranded()), (3, 0.25));
        assert_eq!((outcome.moved_share(), outcome.failed_share()), (0.75, 0.25));
    }
}
