//! Shares on a ring with 1 to 1,000 points a seat, beside the table of Lamping and Veach.

use balancer::routing::placement::ring::VIRTUAL_NODES;
use balancer::routing::placement::{PlacementConfig, RingConfig};

use super::Fleets;
use crate::experiment::Problems;
use crate::ring::fleet::{Runs, built, seats, secret, side_by_side};
use crate::stats::SIGMAS;

/// What the paper says of one number of points.
#[derive(Clone, Copy, Debug)]
pub(super) struct Said {
    points: u32,
    /// The standard error of a bucket's size, relative to an even one.
    pub(super) error: f64,
    /// What 99 % of them are within.
    pub(super) interval: (f64, f64),
    /// Half a unit of the last digit of the two.
    rounded: (f64, f64),
}

/// What rings with so many points a seat came to.
#[derive(Clone, Debug)]
pub(super) struct Points {
    pub(super) points: u32,
    pub(super) rings: Fleets,
    /// The squares of the standard deviations.
    variance: Runs,
    pub(super) said: Option<Said>,
}

/// The seats of each ring.
pub(super) const SEATS: u32 = 1_000;
/// Rings with each number of points.
pub(super) const RINGS: u32 = 100;

const EACH: [u32; 5] = [1, 10, 100, VIRTUAL_NODES, 1_000];

/// Lamping and Veach, the table of bucket sizes by points per bucket.
const SAID: [Said; 4] = [
    Said::new(1, 0.997_906_0, (0.005, 5.25), (0.0005, 0.005)),
    Said::new(10, 0.315_181_0, (0.37, 1.98), (0.005, 0.005)),
    Said::new(100, 0.099_699_6, (0.76, 1.28), (0.005, 0.005)),
    Said::new(1_000, 0.031_572_3, (0.92, 1.09), (0.005, 0.005)),
];

/// All numbers of points.
///
/// # Errors
/// When a ring cannot be built.
pub(super) fn study() -> anyhow::Result<Vec<Points>> {
    EACH.into_iter().map(|points| Points::of(points, SEATS, RINGS)).collect()
}

// === impl Said ===

impl Said {
    const fn new(points: u32, error: f64, interval: (f64, f64), rounded: (f64, f64)) -> Self {
        Self { points, error, interval, rounded }
    }
}

// === impl Points ===

impl Points {
    fn of(points: u32, count: u32, rings: u32) -> anyhow::Result<Self> {
        let found = side_by_side(rings, |number| {
            let config = RingConfig { virtual_nodes: points, secret: secret(number) };
            Ok(built(&PlacementConfig::Ring(config), &seats(count))?.shares())
        })?;
        let rings = Fleets::of(&found);
        Ok(Self {
            points,
            variance: rings.deviation.map(|deviation| deviation.powi(2)),
            rings,
            said: SAID.into_iter().find(|said| said.points == points),
        })
    }

    /// The square of the standard deviation of points that fall independently: with `p` of them
    /// for each of `N` seats, `N · p` in all part the circle, and a seat's share is the sum of `p`
    /// of these arcs, which is distributed as Beta(p, (N − 1) · p).
    fn exact_variance(&self, seats: u32) -> f64 {
        let (n, p) = (f64::from(seats), f64::from(self.points));
        (n - 1.0) / (n * p + 1.0)
    }

    /// The same, not squared.
    pub(super) fn exact(&self) -> f64 {
        self.exact_variance(SEATS).sqrt()
    }

    /// By how much of it the paper's standard error is more than ours.
    pub(super) fn difference(&self) -> Option<f64> {
        self.said.map(|said| said.error / self.rings.deviation.mean() - 1.0)
    }

    /// Our mean must be the exact one, but for its standard error. The paper does not say how many
    /// rings its figures are of: so each must be one that a single ring can have.
    pub(super) fn problems(&self) -> Problems {
        let mut problems = Problems::new();
        let mut hold = |what: &str, figure: f64, ours: f64, tolerance: f64| {
            let off = figure - ours;
            if off.abs() > tolerance {
                problems.push(format!(
                    "ring shares, {} points: the {what} {figure} is {off:+.6} off our {ours:.6} \
                     (allowed: {tolerance:.6})",
                    self.points,
                ));
            }
        };
        let exact = self.exact_variance(SEATS);
        hold("exact variance", exact, self.variance.mean(), SIGMAS * self.variance.error());
        if let Some(said) = self.said {
            let Fleets { deviation, low, high, .. } = &self.rings;
            let single = |runs: &Runs| SIGMAS * runs.deviation();
            hold("paper's standard error", said.error, deviation.mean(), single(deviation));
            let (least, most) = self.rings.interval();
            let (below, above) = said.interval;
            hold("paper's lower bound", below, least, single(low) + said.rounded.0);
            hold("paper's upper bound", above, most, single(high) + said.rounded.1);
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::shares::TAIL;

    #[test]
    fn rings_vary_as_independent_points_do() {
        for (points, seats) in [(1, 100), (10, 50), (160, 20)] {
            let found = Points::of(points, seats, 100).unwrap();
            let off = found.variance.mean() - found.exact_variance(seats);
            assert!(off.abs() < 4.0 * found.variance.error(), "{points}: {off}");
        }
    }

    #[test]
    fn a_single_point_a_seat_has_the_quantiles_of_a_beta_distribution() {
        // Of Beta(1, N − 1): 1 − (1 − q)^(1 / (N − 1)).
        let found = Points::of(1, 1_000, 60).unwrap();
        let (low, high) = found.rings.interval();
        let each = [(low, TAIL, &found.rings.low), (high, 1.0 - TAIL, &found.rings.high)];
        for (ours, part, single) in each {
            let exact = 1_000.0 * (1.0 - (1.0 - part).powf(1.0 / 999.0));
            assert!((ours - exact).abs() < 4.0 * single.error(), "{part}: {ours} for {exact}");
        }
    }

    #[test]
    fn figures_that_no_ring_can_have_are_problems() {
        let mut found = Points::of(100, SEATS, 20).unwrap();
        assert_eq!(found.problems(), Problems::new());
        found.said = Some(Said { error: 0.12, interval: (0.5, 1.28), ..SAID[2] });
        assert_eq!(found.problems().len(), 2, "{:?}", found.problems());
        found.points = 120;
        assert_eq!(found.problems().len(), 3);
    }
}
