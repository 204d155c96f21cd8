//! Fleets of seats, the placements over them, and figures of many runs.

use anyhow::Context as _;
use balancer::fleet::seat::{MemberId, Seat};
use balancer::routing::placement::{Member, Placement, PlacementConfig, Secret};

use crate::parallel;

/// What a figure came to, run by run.
#[derive(Clone, Debug)]
pub(super) struct Runs {
    /// Ascending.
    values: Vec<f64>,
}

/// Seats from 1 on, all of weight 1.
pub(super) fn seats(count: u32) -> Vec<Member> {
    let seats = (1..=count).filter_map(Seat::new);
    seats.map(|seat| Member::new(MemberId::Seat(seat), 1)).collect()
}

/// The placement over them, as the balancer builds it.
///
/// # Errors
/// When it has no room for so many.
pub(super) fn built(config: &PlacementConfig, members: &[Member]) -> anyhow::Result<Placement> {
    let count = members.len();
    Placement::build(config, members)
        .with_context(|| format!("{} has no room for {count} seats", config.name()))
}

/// The secret of this number: with each of them, points and keys fall elsewhere.
pub(super) fn secret(number: u32) -> Secret {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    Secret(bytes)
}

/// Works something out for each number below `count`, on all processors; in the order of the
/// numbers.
///
/// # Errors
/// The first of those of `work`.
pub(super) fn side_by_side<T: Send>(
    count: u32,
    work: impl Fn(u32) -> anyhow::Result<T> + Sync,
) -> anyhow::Result<Vec<T>> {
    let numbers: Vec<u32> = (0..count).collect();
    parallel::side_by_side(&numbers, |number| work(*number))
}

// === impl Runs ===

impl Runs {
    /// Of at least one run; what no run has is NaN.
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_unstable_by(f64::total_cmp);
        Self { values }
    }

    /// A figure of each figure.
    pub(super) fn map(&self, of: impl Fn(f64) -> f64) -> Self {
        Self::of(self.values.iter().map(|value| of(*value)))
    }

    /// How many.
    pub(super) fn count(&self) -> usize {
        self.values.len()
    }

    /// The average.
    pub(super) fn mean(&self) -> f64 {
        self.values.iter().sum::<f64>() / self.values.len() as f64
    }

    /// How far a single run is from the mean: the standard deviation, estimated (divided by one
    /// less than the runs), and 0 of a single run.
    pub(super) fn deviation(&self) -> f64 {
        let mean = self.mean();
        let squares: f64 = self.values.iter().map(|value| (value - mean).powi(2)).sum();
        (squares / self.values.len().saturating_sub(1).max(1) as f64).sqrt()
    }

    /// How far the mean is from that of endlessly many runs: its standard error.
    pub(super) fn error(&self) -> f64 {
        self.deviation() / (self.values.len() as f64).sqrt()
    }

    /// What this part of the runs, 0 to 1, is not above; between two runs in proportion. The
    /// `k`-th of `n` stands for `k / (n + 1)` of them, which is its mean whatever their
    /// distribution.
    pub(super) fn at(&self, part: f64) -> f64 {
        let last = self.values.len().saturating_sub(1);
        let place = (part * (self.values.len() + 1) as f64 - 1.0).clamp(0.0, last as f64);
        let below = (place as usize).min(last);
        let (Some(from), Some(to)) = (self.values.get(below), self.values.get(last.min(below + 1)))
        else {
            return f64::NAN;
        };
        from + (to - from) * (place - below as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_have_a_mean_its_error_and_quantiles() {
        let runs = Runs::of([4.0, 2.0, 6.0, 8.0]);
        assert_eq!((runs.count(), runs.mean()), (4, 5.0));
        // (9 + 1 + 1 + 9) / 3
        assert!((runs.deviation() - (20.0_f64 / 3.0).sqrt()).abs() < 1e-12);
        assert!((runs.error() - runs.deviation() / 2.0).abs() < 1e-12);
        let quantiles = [0.0, 0.5, 0.75, 1.0].map(|part| runs.at(part));
        assert_eq!(quantiles, [2.0, 5.0, 7.5, 8.0]);
        assert_eq!((Runs::of([3.0]).deviation(), Runs::of([3.0]).at(0.99)), (0.0, 3.0));
        assert!(Runs::of([]).at(0.5).is_nan());
    }

    #[test]
    fn secrets_are_all_different() {
        let mut secrets: Vec<[u8; 16]> = (0..1_000).map(|number| secret(number).0).collect();
        secrets.sort_unstable();
        secrets.dedup();
        assert_eq!(secrets.len(), 1_000);
    }
}
