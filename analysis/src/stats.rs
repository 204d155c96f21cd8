//! The arithmetic of the experiments: spread, the three-sigma check, latency percentiles. Pure.

use std::time::Duration;

use hdrhistogram::Histogram;

/// How unevenly requests fell on replicas.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    /// Requests per replica, on average: always requests / replicas, whatever the placement.
    pub(crate) mean: f64,
    /// Standard deviation over the replicas (all of them are known: divided by N), in requests.
    pub(crate) deviation: f64,
    /// The busiest replica's requests over the mean; 1 is even, N is "one does it all".
    pub(crate) max_over_mean: f64,
}

/// A measured count against the exact share of its replica.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Deviation {
    /// `requests · share`.
    pub(crate) expected: f64,
    /// Standard deviation of the binomial distribution, `√(requests · share · (1 − share))`.
    pub(crate) sigma: f64,
    /// How many sigmas the count is off; infinite when sigma is 0 and the count is not expected.
    pub(crate) z: f64,
}

/// Latencies of one run, from a microsecond to an hour, to three significant digits.
#[derive(Clone, Debug)]
pub(crate) struct Latencies {
    histogram: Histogram<u64>,
}

/// What people read of a latency distribution.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Percentiles {
    /// Half are faster.
    pub(crate) p50: Duration,
    /// One in ten is slower.
    pub(crate) p90: Duration,
    /// One in a hundred is slower.
    pub(crate) p99: Duration,
    /// One in a thousand is slower.
    pub(crate) p999: Duration,
    /// The slowest.
    pub(crate) max: Duration,
}

/// What several rounds gave: the middle, and how far apart they were.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rounds {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

/// How many sigmas a measured share may be off.
pub(crate) const SIGMAS: f64 = 3.0;

const HOUR_IN_MICROS: u64 = 3_600_000_000;

// === impl Spread ===

impl Spread {
    /// Over the requests that each replica answered. No replicas, or no requests: all zero.
    pub(crate) fn of(counts: &[u64]) -> Self {
        Self::of_loads(&counts.iter().map(|count| *count as f64).collect::<Vec<_>>())
    }

    /// What the exact `shares` of the key space lead to with `requests` of them.
    pub(crate) fn expected(shares: &[f64], requests: u64) -> Self {
        Self::of_loads(&shares.iter().map(|share| share * requests as f64).collect::<Vec<_>>())
    }

    fn of_loads(loads: &[f64]) -> Self {
        let sum: f64 = loads.iter().sum();
        if loads.is_empty() || sum <= 0.0 {
            return Self { mean: 0.0, deviation: 0.0, max_over_mean: 0.0 };
        }
        let mean = sum / loads.len() as f64;
        let squares: f64 = loads.iter().map(|load| (load - mean).powi(2)).sum();
        let max = loads.iter().copied().fold(0.0, f64::max);
        Self { mean, deviation: (squares / loads.len() as f64).sqrt(), max_over_mean: max / mean }
    }
}

// === impl Deviation ===

impl Deviation {
    /// Of `count` out of `requests` for a replica that owns `share` (0 to 1) of the key space.
    pub(crate) fn of(count: u64, requests: u64, share: f64) -> Self {
        let requests = requests as f64;
        let expected = requests * share;
        let sigma = (expected * (1.0 - share)).max(0.0).sqrt();
        let off = count as f64 - expected;
        let z = if off.abs() < 0.5 && sigma < 1e-9 { 0.0 } else { off / sigma };
        Self { expected, sigma, z }
    }

    /// Whether the count is within [`SIGMAS`] of what the share says.
    pub(crate) fn is_plausible(&self) -> bool {
        self.z.abs() <= SIGMAS
    }
}

// === impl Percentiles ===

impl Percentiles {
    /// All of them, from p50 to the maximum.
    pub(crate) fn columns(&self) -> [Duration; 5] {
        [self.p50, self.p90, self.p99, self.p999, self.max]
    }
}

// === impl Latencies ===

impl Latencies {
    /// None yet.
    pub(crate) fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, HOUR_IN_MICROS, 3)
            .expect("the bounds are in order and 3 digits within the 0 to 5 it can do");
        Self { histogram }
    }

    /// Counts one; what is outside of the bounds counts as the bound.
    pub(crate) fn record(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).max(1);
        self.histogram.saturating_record(micros);
    }

    /// All zero when nothing was recorded.
    pub(crate) fn percentiles(&self) -> Percentiles {
        if self.histogram.is_empty() {
            return Percentiles::default();
        }
        let at = |quantile| Duration::from_micros(self.histogram.value_at_quantile(quantile));
        Percentiles {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: Duration::from_micros(self.histogram.max()),
        }
    }
}

impl FromIterator<Duration> for Latencies {
    fn from_iter<T: IntoIterator<Item = Duration>>(latencies: T) -> Self {
        let mut all = Self::new();
        latencies.into_iter().for_each(|latency| all.record(latency));
        all
    }
}

// === impl Rounds ===

impl Rounds {
    /// `None` of no values.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let min = values.iter().copied().reduce(f64::min)?;
        let max = values.iter().copied().reduce(f64::max)?;
        Some(Self { median: median(values)?, min, max })
    }

    /// `median (min–max)`, each as `write` has it; only the median of a single round.
    pub(crate) fn text(&self, write: impl Fn(f64) -> String) -> String {
        if self.min.total_cmp(&self.max).is_eq() {
            return write(self.median);
        }
        format!("{} ({}–{})", write(self.median), write(self.min), write(self.max))
    }
}

/// The middle of `values`, or the mean of the two in the middle; `None` of none.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_of_equal_loads_is_nothing() {
        let spread = Spread::of(&[5, 5, 5, 5]);
        assert_eq!(spread, Spread { mean: 5.0, deviation: 0.0, max_over_mean: 1.0 });
    }

    #[test]
    fn the_average_hides_what_deviation_and_max_over_mean_show() {
        let (even, skewed) = (Spread::of(&[30, 30]), Spread::of(&[60, 0]));
        assert_eq!(even.mean, skewed.mean);
        assert_eq!((skewed.deviation, skewed.max_over_mean), (30.0, 2.0));
    }

    #[test]
    fn no_replicas_and_no_requests_have_no_spread() {
        let zero = Spread { mean: 0.0, deviation: 0.0, max_over_mean: 0.0 };
        assert_eq!(Spread::of(&[]), zero);
        assert_eq!(Spread::of(&[0, 0]), zero);
    }

    #[test]
    fn exact_shares_lead_to_the_spread_of_their_loads() {
        let shares = [0.75, 0.25];
        assert_eq!(Spread::expected(&shares, 400), Spread::of(&[300, 100]));
    }

    #[test]
    fn a_count_within_three_sigmas_is_plausible_and_one_beyond_is_not() {
        // 10,000 · ½ · ½ = 2,500, so that sigma is 50.
        for (count, plausible) in
            [(5_000, true), (5_150, true), (4_850, true), (5_151, false), (4_849, false)]
        {
            let deviation = Deviation::of(count, 10_000, 0.5);
            assert_eq!((deviation.expected, deviation.sigma), (5_000.0, 50.0));
            assert_eq!(deviation.is_plausible(), plausible, "{count}");
        }
    }

    #[test]
    fn a_sure_share_allows_no_deviation_at_all() {
        assert!(Deviation::of(100, 100, 1.0).is_plausible());
        assert!(Deviation::of(0, 100, 0.0).is_plausible());
        assert!(!Deviation::of(99, 100, 1.0).is_plausible());
        assert!(!Deviation::of(1, 100, 0.0).is_plausible());
    }

    #[test]
    fn percentiles_are_within_the_resolution_of_the_histogram() {
        let latencies: Latencies = (1..=1_000).map(Duration::from_millis).collect();
        let percentiles = latencies.percentiles();
        for (measured, exact) in [
            (percentiles.p50, 500),
            (percentiles.p90, 900),
            (percentiles.p99, 990),
            (percentiles.p999, 999),
            (percentiles.max, 1_000),
        ] {
            let error = measured.as_secs_f64() / Duration::from_millis(exact).as_secs_f64() - 1.0;
            assert!(error.abs() < 0.002, "{measured:?} against {exact} ms");
        }
    }

    #[test]
    fn nothing_recorded_has_percentiles_of_zero() {
        assert_eq!(Latencies::new().percentiles(), Percentiles::default());
    }

    #[test]
    fn the_median_of_an_even_number_is_between_the_middle_two() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn rounds_have_a_middle_and_two_ends() {
        let write = |value: f64| format!("{value:.1}");
        let rounds = Rounds::of(&[3.0, 1.0, 2.0]).unwrap();
        assert_eq!(rounds, Rounds { median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!(rounds.text(write), "2.0 (1.0–3.0)");
        assert_eq!(Rounds::of(&[4.0]).unwrap().text(write), "4.0");
        assert_eq!(Rounds::of(&[]), None);
    }
}
