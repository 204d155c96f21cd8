//! `analysis ring`: what the placements do with the key space, exactly, beside the figures of the
//! papers they come from. Nothing is started: the balancer's own code is asked.
//!
//! ```text
//! fleet       fleets of seats, and the placements over them
//! shares      how even shares are, by points for each seat, by placement and by N
//! provision   how much more than its share the busiest needs (Maglev §5.3)
//! disruption  what moves when some leave, against what must
//! bounded     bounded load: the cap, moves, probes, and random jumps
//! speed       look-up and build time against N
//! classic     the classic ring's exact shares, and what each change of A-4 buys
//! ```

mod bounded;
mod classic;
mod disruption;
mod fleet;
mod provision;
mod shares;
mod speed;

use clap::ValueEnum;

use crate::experiment::{Problems, Setup};
use crate::parallel::aside;

/// A table of the laboratory, with its chart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// How even shares are
    Shares,
    /// How much more than its share the busiest needs
    Provision,
    /// What moves when some leave
    Disruption,
    /// Bounded load
    Bounded,
    /// Look-up and build time
    Speed,
    /// The classic ring
    Classic,
}

/// Works the parts out, one after another, and writes `ring-*`.
///
/// # Errors
/// When a placement cannot be built or a file cannot be written.
pub(crate) async fn run(setup: &Setup, parts: &[Part]) -> anyhow::Result<Problems> {
    let mut problems = Problems::new();
    for part in parts {
        let (setup, part) = (setup.clone(), *part);
        problems.extend(aside(move || part.run(&setup)).await?);
    }
    Ok(problems)
}

// === impl Part ===

impl Part {
    /// All of them, in the order of the report.
    pub(crate) const ALL: [Self; 6] = [
        Self::Shares,
        Self::Provision,
        Self::Disruption,
        Self::Bounded,
        Self::Speed,
        Self::Classic,
    ];

    fn run(self, setup: &Setup) -> anyhow::Result<Problems> {
        match self {
            Part::Shares => shares::run(setup),
            Part::Provision => provision::run(setup),
            Part::Disruption => disruption::run(setup),
            Part::Bounded => bounded::run(setup),
            Part::Speed => speed::run(setup),
            Part::Classic => classic::run(setup),
        }
    }
}
