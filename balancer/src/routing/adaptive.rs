//! How many requests a replica may have in flight, learnt from its latency: additive increase,
//! multiplicative decrease (Chiu and Jain 1989, as TCP's congestion window; Netflix's
//! concurrency-limits have it as `AIMDLimit`).
//!
//! An answer in time while at least half of the limit is in use raises it by 1/limit, that is by one
//! for as many answers as it allows at once; one that is late cuts it by a tenth, but once in a
//! target's time at most: the others that are late then were let in by the same limit.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What is aimed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AimdConfig {
    /// An answer that takes longer is late.
    pub target: Duration,
    /// The limit never goes beyond this.
    pub most: usize,
}

/// A limit that learns.
#[derive(Debug, Default)]
pub struct Aimd {
    /// The limit, as the bits of an `f64`; 0 until there was an answer.
    limit: AtomicU64,
    /// When it was cut last, in nanoseconds on the caller's clock.
    cut: AtomicU64,
}

/// Where limits begin.
const FIRST: f64 = 20.0;

/// What is left of a limit when an answer was late.
const KEPT: f64 = 0.9;

// === impl Aimd ===

impl Aimd {
    /// The limit.
    pub fn limit(&self, config: &AimdConfig) -> usize {
        self.learnt().unwrap_or(FIRST as usize).min(config.most).max(1)
    }

    /// What was learnt from answers, if there were any.
    pub fn learnt(&self) -> Option<usize> {
        match self.limit.load(Ordering::Relaxed) {
            0 => None,
            bits => Some(f64::from_bits(bits) as usize),
        }
    }

    /// An answer has begun after `latency`, at `now` on any clock that only goes forward; so many
    /// requests were in flight.
    pub fn note(&self, config: &AimdConfig, latency: Duration, in_flight: usize, now: Duration) {
        let most = config.most as f64;
        if latency > config.target {
            let now = nanoseconds(now);
            let cut = self.cut.load(Ordering::Relaxed);
            let again = now.saturating_sub(cut) >= nanoseconds(config.target) || cut == 0;
            let mine = || {
                let swapped =
                    self.cut.compare_exchange(cut, now, Ordering::Relaxed, Ordering::Relaxed);
                swapped.is_ok()
            };
            if again && mine() {
                self.change(|limit| (limit.min(most) * KEPT).max(1.0));
            }
        } else {
            let used = in_flight as f64 * 2.0;
            self.change(|limit| {
                if used >= limit { (limit + 1.0 / limit).min(most).max(1.0) } else { limit }
            });
        }
    }

    fn change(&self, change: impl Fn(f64) -> f64) {
        let mut bits = self.limit.load(Ordering::Relaxed);
        loop {
            let limit = if bits == 0 { FIRST } else { f64::from_bits(bits) };
            let changed = change(limit).to_bits();
            if changed == bits {
                return;
            }
            let swap = |from, to| {
                self.limit.compare_exchange_weak(from, to, Ordering::Relaxed, Ordering::Relaxed)
            };
            match swap(bits, changed) {
                Ok(_) => return,
                Err(now) => bits = now,
            }
        }
    }
}

fn nanoseconds(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const CONFIG: AimdConfig = AimdConfig { target: Duration::from_millis(100), most: 50 };

    fn in_time(aimd: &Aimd, answers: usize, in_flight: usize) {
        (0..answers).for_each(|_| aimd.note(&CONFIG, MS, in_flight, MS));
    }

    #[test]
    fn it_grows_by_one_for_as_many_answers_as_it_allows_and_while_it_is_used() {
        let aimd = Aimd::default();
        assert_eq!(aimd.limit(&CONFIG), 20);
        in_time(&aimd, 1_000, 9);
        assert_eq!(aimd.limit(&CONFIG), 20, "nobody needs more");
        in_time(&aimd, 21, 11);
        assert_eq!(aimd.limit(&CONFIG), 21);
        in_time(&aimd, 10_000, 50);
        assert_eq!(aimd.limit(&CONFIG), 50);
    }

    #[test]
    fn late_answers_cut_it_once_in_a_targets_time() {
        let aimd = Aimd::default();
        let late = |at: u32| aimd.note(&CONFIG, 101 * MS, 20, at * MS);
        late(1_000);
        assert_eq!(aimd.limit(&CONFIG), 18);
        (1_000..1_099).for_each(late);
        assert_eq!(aimd.limit(&CONFIG), 18);
        late(1_100);
        assert_eq!(aimd.limit(&CONFIG), 16);
        (0..100).for_each(|count| late(2_000 + count * 100));
        assert_eq!(aimd.limit(&CONFIG), 1, "one is always let in");
        in_time(&aimd, 2, 1);
        assert_eq!(aimd.limit(&CONFIG), 2);
    }

    proptest! {
        /// A server of `workers`, each of which takes the target's time for one request: the limit
        /// stays about what it can take in time.
        #[test]
        fn it_finds_what_a_server_can_take(workers in 2_usize..40) {
            let config = AimdConfig { most: 1_000, ..CONFIG };
            let aimd = Aimd::default();
            let mut seen = Vec::new();
            for round in 1..2_000_u32 {
                let in_flight = aimd.limit(&config);
                // Those beyond the workers wait for a second turn.
                let latency = if in_flight > workers { 150 * MS } else { 90 * MS };
                (0..in_flight).for_each(|_| aimd.note(&config, latency, in_flight, round * 100 * MS));
                if round > 1_000 {
                    seen.push(in_flight);
                }
            }
            let mean = seen.iter().sum::<usize>() as f64 / seen.len() as f64;
            prop_assert!(seen.iter().all(|limit| *limit <= workers + 1));
            prop_assert!(mean >= 0.8 * workers as f64, "{} for {}", mean, workers);
        }
    }
}
