//! Whether the simulation tells the truth: each real run beside many simulated ones with the very
//! same arrivals. Which requests are slow is drawn anew in each of them, as it is in the real one,
//! so that they show what chance alone does.

use super::arm::Arm;
use super::outcome::Outcome;
use super::study::{self, Job};
use super::{Point, Study};

/// A figure of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Figure {
    /// In milliseconds.
    P50,
    /// In milliseconds.
    P99,
    /// Requests in flight at one replica.
    Longest,
}

/// A figure of a real run beside the same of the simulated ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Checked {
    pub(super) arm: Arm,
    pub(super) load: f64,
    pub(super) figure: Figure,
    pub(super) real: f64,
    /// The smallest, the middle, and the largest of the simulated ones.
    pub(super) least: f64,
    pub(super) median: f64,
    pub(super) most: f64,
}

/// Simulated runs of a real one. Were the real one one of them, it would be the smallest or the
/// largest of all 100 in 2 of 100 cases.
pub(super) const RUNS: u64 = 99;
/// How far beyond the simulated ones a real figure may lie: what a machine that does other things,
/// too, adds to it.
pub(super) const MARGIN: f64 = 0.05;
/// The same in milliseconds: timers know no finer ticks. In requests it is one.
pub(super) const TICK: f64 = 1.0;
/// The share of the figures that must agree for the simulation to be believed.
pub(super) const ENOUGH: f64 = 0.9;

/// Simulates each of these real runs [`RUNS`] times, and compares.
///
/// # Errors
/// When a run cannot be simulated.
pub(super) async fn check(real: &Study, seed: u64) -> anyhow::Result<Vec<Checked>> {
    let mut checked = Vec::new();
    for point in &real.points {
        let job = |work_seed| Job {
            system: &real.system,
            keys: &real.keys,
            arm: point.arm,
            load: point.load,
            seed,
            work_seed,
        };
        let name = format!("{} at {:.0} %", point.arm.name(), 100.0 * point.load);
        let runs = study::run(&name, (1..=RUNS).map(job).collect()).await?;
        checked.extend(Figure::ALL.map(|figure| Checked::of(point, figure, &runs)));
    }
    Ok(checked)
}

/// The share of the figures that agree.
pub(super) fn agreement(checked: &[Checked]) -> f64 {
    let agree = checked.iter().filter(|checked| checked.agrees()).count();
    agree as f64 / checked.len().max(1) as f64
}

// === impl Figure ===

impl Figure {
    pub(super) const ALL: [Self; 3] = [Self::P50, Self::P99, Self::Longest];

    /// On a page.
    pub(super) fn name(self) -> &'static str {
        match self {
            Figure::P50 => "p50, ms",
            Figure::P99 => "p99, ms",
            Figure::Longest => "longest queue",
        }
    }

    pub(super) fn of(self, outcome: &Outcome) -> f64 {
        match self {
            Figure::P50 => outcome.latency.p50.as_secs_f64() * 1e3,
            Figure::P99 => outcome.latency.p99.as_secs_f64() * 1e3,
            Figure::Longest => outcome.longest() as f64,
        }
    }
}

// === impl Checked ===

impl Checked {
    fn of(point: &Point, figure: Figure, runs: &[Outcome]) -> Self {
        let mut values: Vec<f64> = runs.iter().map(|run| figure.of(run)).collect();
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or_default();
        Self {
            arm: point.arm,
            load: point.load,
            figure,
            real: figure.of(&point.outcome),
            least: at(0),
            median: at(values.len() / 2),
            most: at(values.len().saturating_sub(1)),
        }
    }

    /// Whether the real figure is one that the simulation could have given.
    pub(super) fn agrees(&self) -> bool {
        let (low, high) = (self.least * (1.0 - MARGIN) - TICK, self.most * (1.0 + MARGIN) + TICK);
        (low..=high).contains(&self.real)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_within_the_simulated_runs_and_a_tick_agrees() {
        let checked = |real| Checked {
            arm: Arm::HASH,
            load: 0.9,
            figure: Figure::P50,
            real,
            least: 100.0,
            median: 150.0,
            most: 200.0,
        };
        for (real, agrees) in [(94.0, true), (93.9, false), (211.0, true), (211.1, false)] {
            assert_eq!(checked(real).agrees(), agrees, "{real}");
        }
        let half = [checked(150.0), checked(300.0)];
        assert_eq!((agreement(&half), agreement(&[])), (0.5, 0.0));
    }
}
