//! Consistent hashing with bounded loads (Mirrokni, Thorup and Zadimoghaddam, *Consistent Hashing
//! with Bounded Loads*, SODA 2018, arXiv 1608.01350): m balls, n seats, and none takes more than
//! ⌈c · m/n⌉, c = 1 + ε. How many balls move, how many owners are asked, and whether it helps to
//! jump to a random next owner (Chen, Coleman and Shrivastava, *Revisiting Consistent Hashing with
//! Bounded Loads*, AAAI 2021, arXiv 1908.08762).
//!
//! ```text
//! order   in which order the owners of a key are asked: the balancer's placements
//! fill    balls into seats with a cap
//! urn     random jumps without any hash
//! study   the runs
//! book    what was counted
//! judge   what the papers say beside it
//! charts  page  tables
//! ```

mod book;
mod charts;
mod fill;
mod judge;
mod order;
mod page;
mod study;
mod tables;
#[cfg(test)]
mod tests;
mod urn;

use crate::experiment::{Problems, Setup};
use crate::parallel::side_by_side;
use book::Book;
use order::Order;
use study::{Found, Job, What};

/// Seats and balls, and how often it is done again with other secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Size {
    seats: u32,
    /// Balls for each seat.
    each: u32,
    runs: u32,
}

/// c.
const FACTORS: [f64; 6] = [1.05, 1.1, 1.25, 1.5, 2.0, 3.0];

/// What is placed, and moves.
const SIZES: [Size; 6] = [
    Size { seats: 1_000, each: 100, runs: 2 },
    Size { seats: 1_000, each: 10, runs: 6 },
    Size { seats: 1_000, each: 1, runs: 6 },
    Size { seats: 100, each: 100, runs: 10 },
    Size { seats: 100, each: 10, runs: 10 },
    Size { seats: 100, each: 1, runs: 10 },
];

/// Runs of the urn, and of those where requests come and go.
const URN_RUNS: u32 = 100;
const IN_FLIGHT_RUNS: u32 = 4;
/// Where these are held against what they are exactly, their own error counts.
const EXACT_RUNS: u32 = 12;
/// So many seats are enough where requests come and go.
const IN_FLIGHT_SEATS: u32 = 100;

/// Works it out, writes `ring-bounded*`.
///
/// # Errors
/// When a placement cannot be built or a file cannot be written.
pub(super) fn run(setup: &Setup) -> anyhow::Result<Problems> {
    let found = found(&jobs())?;
    let mut book = Book::default();
    book.extend(found.values);
    let mut problems = found.problems;
    problems.extend(judge::problems(&book));
    page::write(setup, &book, &problems)?;
    Ok(problems)
}

/// The long ones first, so that the processors end together.
fn jobs() -> Vec<Job> {
    let mut jobs = Vec::new();
    for Size { seats, each, runs } in SIZES {
        let mut add = |what, order, runs| {
            jobs.extend((0..runs).map(|run| Job { what, order, seats, each, run }));
        };
        for order in Order::ALL.into_iter().rev() {
            add(What::Placed, order, runs);
            // Where balls go that only jump is seen among fewer as well, and takes seconds here.
            let slow = seats * each > 50_000 && order == Order::Jumps;
            if order != Order::ThenJumps(1) && !slow {
                add(What::Moves, order, runs);
            }
            if seats == IN_FLIGHT_SEATS {
                let exact = order == Order::Jumps;
                add(What::InFlight, order, if exact { EXACT_RUNS } else { IN_FLIGHT_RUNS });
            }
        }
        add(What::Urn, Order::Jumps, URN_RUNS);
        if each == 1 {
            add(What::Heirs, Order::Clockwise(Order::MANY), runs);
            add(What::Heirs, Order::Clockwise(1), runs);
        }
    }
    jobs
}

/// What all of them found.
fn found(jobs: &[Job]) -> anyhow::Result<Found> {
    let mut all = Found::default();
    for found in side_by_side(jobs, Job::run)? {
        all.values.extend(found.values);
        all.problems.extend(found.problems);
    }
    Ok(all)
}
