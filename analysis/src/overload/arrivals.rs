//! When requests come, and with which keys: an open loop, the same for the same seed.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// A request that comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arrival {
    /// From the start of the run.
    pub(super) at: Duration,
    /// Its id, which is its key.
    pub(super) id: u32,
}

/// Which keys requests carry.
#[derive(Clone, Debug)]
pub(super) enum Keys {
    /// Six-digit numbers, one as likely as the other.
    Uniform,
    /// The shares of the population, summed up: the first key is the hottest.
    Zipf(Arc<[f64]>),
}

/// A Poisson process of so many requests a second, until it is over: whoever is asked when the
/// next one comes has forgotten all the others.
#[derive(Debug)]
pub(super) struct Poisson {
    rate: f64,
    keys: Keys,
    end: Duration,
    at: f64,
    rng: StdRng,
}

/// The first of the ids.
const FIRST_ID: u32 = 100_000;
/// The first that is none.
const END_OF_IDS: u32 = 1_000_000;

// === impl Keys ===

impl Keys {
    /// Of a population in which the `k`-th key is `k` to the power of `exponent` times as rare as
    /// the first.
    pub(super) fn zipf(population: u32, exponent: f64) -> Self {
        let sum = (1..=population).scan(0.0, |sum, rank| {
            *sum += f64::from(rank).powf(-exponent);
            Some(*sum)
        });
        Self::Zipf(sum.collect())
    }

    /// The share of all requests that the hottest key has; 0 where none is hot.
    pub(super) fn hottest(&self) -> f64 {
        match self {
            Keys::Uniform => 0.0,
            Keys::Zipf(sums) => match (sums.first(), sums.last()) {
                (Some(first), Some(all)) => first / all,
                _ => 0.0,
            },
        }
    }

    fn draw(&self, rng: &mut StdRng) -> u32 {
        match self {
            Keys::Uniform => rng.random_range(FIRST_ID..END_OF_IDS),
            Keys::Zipf(sums) => {
                let at = rng.random::<f64>() * sums.last().copied().unwrap_or_default();
                let rank = sums.partition_point(|sum| *sum <= at);
                FIRST_ID + u32::try_from(rank).unwrap_or_default()
            }
        }
    }
}

// === impl Poisson ===

impl Poisson {
    /// So many a second, which must be above 0, before `end`.
    pub(super) fn new(rate: f64, keys: &Keys, end: Duration, seed: u64) -> Self {
        Self { rate, keys: keys.clone(), end, at: 0.0, rng: StdRng::seed_from_u64(seed) }
    }
}

impl Iterator for Poisson {
    type Item = Arrival;

    fn next(&mut self) -> Option<Arrival> {
        self.at += exponential(&mut self.rng) / self.rate;
        let at = Duration::try_from_secs_f64(self.at).ok().filter(|at| *at < self.end)?;
        Some(Arrival { at, id: self.keys.draw(&mut self.rng) })
    }
}

/// Of the exponential distribution with mean 1.
pub(super) fn exponential(rng: &mut StdRng) -> f64 {
    // From 0 up to, but not, 1: the logarithm is that of no 0.
    -(1.0 - rng.random::<f64>()).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: Duration = Duration::from_secs(1_000);

    fn poisson(keys: &Keys, seed: u64) -> Vec<Arrival> {
        Poisson::new(100.0, keys, END, seed).collect()
    }

    #[test]
    fn as_many_come_as_the_rate_says_and_their_gaps_are_exponential() {
        let arrivals = poisson(&Keys::Uniform, 1);
        // 100,000 ± 316.
        assert!((arrivals.len() as f64 - 100_000.0).abs() < 1_265.0, "{}", arrivals.len());
        assert!(arrivals.is_sorted_by_key(|arrival| arrival.at));
        let gaps = arrivals.windows(2).map(|pair| (pair[1].at - pair[0].at).as_secs_f64());
        let long = gaps.filter(|gap| *gap > 0.02).count() as f64 / arrivals.len() as f64;
        assert!((long - (-2.0_f64).exp()).abs() < 0.005, "{long}");
    }

    #[test]
    fn the_same_seed_brings_the_same_requests() {
        assert_eq!(poisson(&Keys::Uniform, 7), poisson(&Keys::Uniform, 7));
        assert_ne!(poisson(&Keys::Uniform, 7), poisson(&Keys::Uniform, 8));
    }

    #[test]
    fn hot_keys_come_as_often_as_zipf_says() {
        let keys = Keys::zipf(1_000, 1.0);
        // 1 / (1 + ½ + ⅓ + … + 1/1000).
        assert!((keys.hottest() - 1.0 / 7.485_470_86).abs() < 1e-9);
        let arrivals = poisson(&keys, 1);
        let share = |id| arrivals.iter().filter(|it| it.id == id).count() as f64 / 1e5;
        assert!((share(FIRST_ID) - keys.hottest()).abs() < 0.006);
        assert!((share(FIRST_ID + 1) - keys.hottest() / 2.0).abs() < 0.006);
        assert!(arrivals.iter().all(|it| (FIRST_ID..FIRST_ID + 1_000).contains(&it.id)));
    }
}
