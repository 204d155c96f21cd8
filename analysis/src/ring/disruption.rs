//! What moves when some seats leave, against what must: the keys of those that leave.
//!
//! The way to measure it is that of Daniel E. Eisenbud et al., *Maglev: A Fast and Reliable
//! Software Network Load Balancer*, NSDI 2016, §5.3 (figure 12): some of 1,000 backends are removed
//! by chance, the table is made anew, and its changed entries are counted, 200 times.
//!
//! ```text
//! page    files and words
//! charts  the charts
//! ```

mod charts;
mod page;

use balancer::routing::placement::{Member, Moved};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;

use super::fleet::{Runs, built, seats, side_by_side};
use super::shares::kind::Kind;
use crate::experiment::{Problems, Setup};
use crate::stats::SIGMAS;

/// What the removal of so many seats moved, draw by draw; shares of all keys.
struct Disruption {
    kind: Kind,
    seats: u32,
    removed: u32,
    share: Runs,
    needless: Runs,
    /// The shares of those that leave.
    ideal: Runs,
    /// The most by which needed and needless moves together are not all that moved.
    unexplained: f64,
    /// Whether moves were worked out, not estimated by keys.
    exact: bool,
}

/// What one draw moved.
#[derive(Clone, Copy, Debug)]
struct Drawn {
    removed: u32,
    moved: Moved,
    ideal: f64,
}

/// What the removal of one seat of so many is held against, with `maglev` and 65,537 entries.
#[derive(Clone, Copy, Debug)]
struct Expected {
    seats: u32,
    share: f64,
}

const SEATS: [u32; 4] = [3, 10, 100, 1_000];
/// How many are removed, as far as there are more seats.
const REMOVED: [u32; 6] = [1, 2, 5, 10, 20, 50];

/// In the order of the tables.
const KINDS: [Kind; 7] = [
    Kind::Ring,
    Kind::Ketama,
    Kind::Rendezvous,
    Kind::Jump,
    Kind::LargeMaglev,
    Kind::Maglev,
    Kind::Classic,
];

const EXPECTED: [Expected; 3] = [
    Expected { seats: 3, share: 0.3336 },
    Expected { seats: 100, share: 0.0160 },
    Expected { seats: 1_000, share: 0.0073 },
];
/// Half a unit of their last digit.
const ROUNDED: f64 = 0.00005;
/// The keys of an estimate.
const SAMPLE: f64 = 65_536.0;
/// By how much a sum of shares can be off for want of digits.
const ROUNDING: f64 = 1e-9;

/// Works it out, writes `ring-disruption.*` and `ring-disruption-needless.*`.
///
/// # Errors
/// When a placement cannot be built or a file cannot be written.
pub(super) fn run(setup: &Setup) -> anyhow::Result<Problems> {
    let mut all = Vec::new();
    for kind in KINDS {
        let mut counts = SEATS.map(|count| kind.seats(count)).to_vec();
        counts.dedup();
        for count in counts {
            all.extend(study(kind, count, draws(kind, count))?);
        }
    }
    page::write(setup, &all)?;
    let mut problems: Problems = all.iter().flat_map(Disruption::problems).collect();
    problems.extend(maglev_problems(&all));
    Ok(problems)
}

/// As many as are made in some seconds, and every seat the same number of times where they are more
/// than the seats.
fn draws(kind: Kind, count: u32) -> u32 {
    let most = match kind {
        Kind::Maglev => 200,
        Kind::Classic => 280,
        Kind::LargeMaglev | Kind::Jump => 20,
        Kind::Ring | Kind::RingOfSixteen | Kind::Ketama | Kind::Rendezvous => 50,
    };
    if most > count { most / count * count } else { most }
}

/// Every number of removed seats, by so many draws, each with another secret where there is one.
fn study(kind: Kind, count: u32, draws: u32) -> anyhow::Result<Vec<Disruption>> {
    let members = seats(count);
    let found = side_by_side(draws, |number| drawn(kind, &members, number))?;
    let found: Vec<Drawn> = found.into_iter().flatten().collect();
    let steps = REMOVED.into_iter().filter(|removed| *removed < count);
    Ok(steps.map(|removed| Disruption::of(kind, count, removed, &found)).collect())
}

/// Removes seats in the order of this draw, more and more of them.
fn drawn(kind: Kind, members: &[Member], number: u32) -> anyhow::Result<Vec<Drawn>> {
    let config = kind.config(number);
    let before = built(&config, members)?;
    let shares = before.shares();
    let order = order(members.len(), number);
    let mut all = Vec::new();
    for removed in REMOVED.into_iter().filter(|removed| (*removed as usize) < members.len()) {
        let leave = &order[..removed as usize];
        let stay = |index: &usize| !leave.contains(index);
        let rest: Vec<Member> =
            (0..members.len()).filter(stay).map(|index| members[index]).collect();
        let moved = before.moved(&built(&config, &rest)?);
        all.push(Drawn { removed, moved, ideal: leave.iter().map(|index| shares[*index]).sum() });
    }
    Ok(all)
}

/// The order in which members leave: shuffled, and begun at every place of it in turn, so that each
/// is the first once in as many draws as there are members.
fn order(members: usize, number: u32) -> Vec<usize> {
    let mut order: Vec<usize> = (0..members).collect();
    let (round, first) = (number as usize / members, number as usize % members);
    order.shuffle(&mut StdRng::seed_from_u64(round as u64));
    order.rotate_left(first);
    order
}

// === impl Disruption ===

impl Disruption {
    fn of(kind: Kind, seats: u32, removed: u32, found: &[Drawn]) -> Self {
        let own: Vec<&Drawn> = found.iter().filter(|drawn| drawn.removed == removed).collect();
        let unexplained =
            |drawn: &&Drawn| (drawn.moved.share - drawn.moved.needless - drawn.ideal).abs();
        Self {
            kind,
            seats,
            removed,
            share: Runs::of(own.iter().map(|drawn| drawn.moved.share)),
            needless: Runs::of(own.iter().map(|drawn| drawn.moved.needless)),
            ideal: Runs::of(own.iter().map(|drawn| drawn.ideal)),
            unexplained: own.iter().map(unexplained).fold(0.0, f64::max),
            exact: own.iter().all(|drawn| drawn.moved.exact),
        }
    }

    /// How often what must move did move, on average: 1 where nothing else did.
    fn over_ideal(&self) -> f64 {
        self.share.mean() / self.ideal.mean()
    }

    /// How far the mean of an estimate may be off by chance: a standard deviation.
    fn sampling_error(&self) -> f64 {
        let ideal = self.ideal.mean();
        (ideal * (1.0 - ideal) / (SAMPLE * self.share.count() as f64)).sqrt()
    }

    /// What nothing but chance may be wrong with.
    fn problems(&self) -> Problems {
        let mut problems = Problems::new();
        let what = || format!("{}, {} of {} removed", self.kind.name(), self.removed, self.seats);
        if self.exact && self.unexplained > ROUNDING {
            problems.push(format!(
                "{}: {:.6} of the keys moved neither because their owner left nor without need",
                what(),
                self.unexplained
            ));
        }
        let off = self.share.mean() - self.ideal.mean();
        if !self.exact && off.abs() > SIGMAS * self.sampling_error() {
            let allowed = SIGMAS * self.sampling_error();
            problems.push(format!("{}: {off:+.6} more than must (allowed: {allowed:.6})", what()));
        }
        let minimal = match self.kind {
            Kind::Ring | Kind::RingOfSixteen | Kind::Ketama | Kind::Rendezvous | Kind::Jump => true,
            Kind::Maglev | Kind::LargeMaglev | Kind::Classic => false,
        };
        if minimal && self.needless.at(1.0) > 0.0 {
            let most = self.needless.at(1.0);
            problems.push(format!("{}: {most:.6} moved without need, and none may", what()));
        }
        problems
    }
}

/// The figures that `maglev` is held against must be such as a single draw can have; and of a
/// larger table less must move without need (§5.3), by more than chance makes of it.
fn maglev_problems(all: &[Disruption]) -> Problems {
    let mut problems = Problems::new();
    let one = |seats| {
        move |it: &&Disruption| it.kind == Kind::Maglev && it.seats == seats && it.removed == 1
    };
    for expected in EXPECTED {
        let Some(ours) = all.iter().find(one(expected.seats)) else { continue };
        let off = expected.share - ours.share.mean();
        let tolerance = SIGMAS * ours.share.deviation() + ROUNDED;
        if off.abs() > tolerance {
            problems.push(format!(
                "maglev, one of {} removed: {:.4} were expected, {off:+.5} off our mean (allowed: \
                 {tolerance:.5})",
                expected.seats, expected.share
            ));
        }
    }
    for small in all.iter().filter(|it| it.kind == Kind::Maglev) {
        let alike = |it: &&Disruption| {
            it.kind == Kind::LargeMaglev && (it.seats, it.removed) == (small.seats, small.removed)
        };
        let Some(large) = all.iter().find(alike) else { continue };
        let error = small.needless.error().hypot(large.needless.error());
        // Where one is left, nothing can move without need.
        let some = small.removed + 1 < small.seats;
        if some && small.needless.mean() - large.needless.mean() < SIGMAS * error {
            problems.push(format!(
                "maglev, {} of {} removed: a larger table does not move less without need",
                small.removed, small.seats
            ));
        }
    }
    problems
}

#[cfg(test)]
mod tests;
