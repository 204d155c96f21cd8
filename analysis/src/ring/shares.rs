//! How even shares are: by points a seat, by placement and by N.
//!
//! The figures that they are held against are those of John Lamping and Eric Veach, *A Fast,
//! Minimal Memory, Consistent Hash Algorithm*, 2014: the table of bucket sizes by points per bucket.
//!
//! ```text
//! points    a ring with 1 to 1,000 points a seat, beside the paper
//! evenness  every placement, with 3 to 1,000 seats
//! jump      what jump's draws of 31 bits make of its shares
//! kind      the placements that are looked at, and their fleets
//! charts    the charts
//! page      files and words
//! ```

mod charts;
mod evenness;
mod jump;
pub(super) mod kind;
mod page;
mod points;

use crate::experiment::{Problems, Setup};
use crate::ring::fleet::Runs;
use crate::stats::Spread;
use evenness::{Evenness, Measured};
use kind::Kind;
use points::Points;

/// All that was worked out.
struct Study {
    points: Vec<Points>,
    evenness: Vec<Evenness>,
    measured: Vec<Measured>,
}

/// How unequal the shares of some fleets are, each relative to an even one: a figure of each fleet.
#[derive(Clone, Debug)]
struct Fleets {
    /// The standard deviation.
    deviation: Runs,
    /// What 0.5 % and 99.5 % of the shares are not above.
    low: Runs,
    high: Runs,
    /// The largest.
    max: Runs,
    /// All shares of all fleets.
    shares: Runs,
}

/// What is left out at either end of 99 %.
const TAIL: f64 = 0.005;

/// Works it out, writes `ring-shares.*` and `ring-shares-by-n.*`.
///
/// # Errors
/// When a placement cannot be built or a file cannot be written.
pub(super) fn run(setup: &Setup) -> anyhow::Result<Problems> {
    let measured = [Kind::Rendezvous, Kind::Jump].map(|kind| Measured::of(kind, evenness::KEYS));
    let study = Study {
        points: points::study()?,
        evenness: evenness::study()?,
        measured: measured.into_iter().collect::<Result<_, _>>()?,
    };
    page::write(setup, &study)?;
    let mut problems: Problems = study.points.iter().flat_map(Points::problems).collect();
    problems.extend(study.evenness.iter().filter_map(Evenness::problem));
    problems.extend(evenness::known_problems(&study.evenness));
    problems.extend(study.measured.iter().filter_map(Measured::problem));
    Ok(problems)
}

// === impl Fleets ===

impl Fleets {
    /// Of the shares of each fleet, which add up to 1.
    fn of(fleets: &[Vec<f64>]) -> Self {
        let relative = |shares: &Vec<f64>| {
            let seats = shares.len() as f64;
            shares.iter().map(|share| share * seats).collect()
        };
        let fleets: Vec<Vec<f64>> = fleets.iter().map(relative).collect();
        let spreads = || fleets.iter().map(|shares| Spread::expected(shares, 1));
        let sorted: Vec<Runs> = fleets.iter().map(|shares| Runs::of(shares.clone())).collect();
        Self {
            deviation: Runs::of(spreads().map(|spread| spread.deviation / spread.mean)),
            low: Runs::of(sorted.iter().map(|shares| shares.at(TAIL))),
            high: Runs::of(sorted.iter().map(|shares| shares.at(1.0 - TAIL))),
            max: Runs::of(spreads().map(|spread| spread.max_over_mean)),
            shares: Runs::of(fleets.into_iter().flatten()),
        }
    }

    /// What 99 % of all shares lie between.
    fn interval(&self) -> (f64, f64) {
        (self.shares.at(TAIL), self.shares.at(1.0 - TAIL))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fleets_have_a_figure_each_and_their_shares_together() {
        let fleets = Fleets::of(&[vec![0.5, 0.5], vec![0.25, 0.75]]);
        assert_eq!((fleets.deviation.at(0.0), fleets.deviation.at(1.0)), (0.0, 0.5));
        assert_eq!((fleets.max.at(0.0), fleets.max.at(1.0)), (1.0, 1.5));
        assert_eq!((fleets.low.at(0.0), fleets.high.at(1.0)), (0.5, 1.5));
        assert_eq!((fleets.shares.count(), fleets.interval()), (4, (0.5, 1.5)));
    }
}
