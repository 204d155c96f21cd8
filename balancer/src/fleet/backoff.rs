//! How long a seat that keeps losing its replica stays empty: at first not at all, then longer
//! and longer.

use std::time::{Duration, Instant};

use rand::{Rng, RngExt as _};
use thiserror::Error;

/// Bounds of a back-off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackoffConfig {
    base: Duration,
    max: Duration,
    reset_after: Duration,
}

/// The failures of one seat so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
}

/// The longest delay is shorter than the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the longest back-off ({max:?}) must not be shorter than the first ({base:?})")]
pub struct BadBackoff {
    base: Duration,
    max: Duration,
}

// === impl BackoffConfig ===

impl BackoffConfig {
    /// Delays from `base`, doubling, up to `max`; forgotten after `reset_after` of good health.
    ///
    /// # Errors
    /// When `max` is shorter than `base`.
    pub fn new(base: Duration, max: Duration, reset_after: Duration) -> Result<Self, BadBackoff> {
        if max < base {
            return Err(BadBackoff { base, max });
        }
        Ok(Self { base, max, reset_after })
    }
}

impl Default for BackoffConfig {
    fn default() -> Self {
        Self {
            base: Duration::from_millis(100),
            max: Duration::from_secs(60),
            reset_after: Duration::from_secs(60),
        }
    }
}

// === impl Backoff ===

impl Backoff {
    /// Counts a failure; tells when the next try is due. The first is tried again at once, the
    /// others after `base · 2ⁿ` ± 25 %, `max` at most. `ready_since`: since when the replica that
    /// failed now had been ready; long enough, and what was before is forgotten.
    pub fn fail(
        &mut self,
        config: &BackoffConfig,
        ready_since: Option<Instant>,
        now: Instant,
        rng: &mut impl Rng,
    ) -> Instant {
        let good_for = ready_since.map(|since| now.saturating_duration_since(since));
        if good_for.is_some_and(|good_for| good_for >= config.reset_after) {
            self.failures = 0;
        }
        let before = self.failures;
        self.failures = self.failures.saturating_add(1);
        if before == 0 {
            return now;
        }
        let doubled = config.base.saturating_mul(2_u32.saturating_pow(before - 1));
        let delay = doubled.min(config.max).mul_f64(rng.random_range(0.75..=1.25));
        now + delay.min(config.max)
    }

    /// Failures in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn the_first_failure_is_tried_again_at_once_and_the_next_ever_later() {
        let mut rng = rand::rngs::StdRng::seed_from_u64(7);
        let (config, now) = (BackoffConfig::default(), Instant::now());
        let mut backoff = Backoff::default();
        assert_eq!(backoff.fail(&config, None, now, &mut rng), now);
        for n in 0..40_u32 {
            let delay = backoff.fail(&config, None, now, &mut rng) - now;
            let exact = Duration::from_millis(100).saturating_mul(2_u32.saturating_pow(n));
            let exact = exact.min(Duration::from_secs(60));
            assert!(delay >= exact.mul_f64(0.75), "{delay:?} after {n}");
            assert!(
                delay <= exact.mul_f64(1.25).min(Duration::from_secs(60)),
                "{delay:?} after {n}"
            );
        }
    }

    #[test]
    fn a_long_good_time_is_a_fresh_start_and_a_short_one_is_not() {
        let mut rng = rand::rngs::StdRng::seed_from_u64(7);
        let (config, start) = (BackoffConfig::default(), Instant::now());
        let mut backoff = Backoff::default();
        backoff.fail(&config, None, start, &mut rng);
        let soon = start + Duration::from_secs(59);
        assert!(backoff.fail(&config, Some(start), soon, &mut rng) > soon);
        let late = start + Duration::from_secs(60);
        assert_eq!(backoff.fail(&config, Some(start), late, &mut rng), late);
    }

    #[test]
    fn a_longest_delay_under_the_first_is_refused() {
        let second = Duration::from_secs(1);
        assert!(BackoffConfig::new(second, second / 2, second).is_err());
        assert!(BackoffConfig::new(second, second, second).is_ok());
    }
}
