//! The classic ring's exact shares, and what each change of A-4 buys: one change after the other,
//! by what the balancer's own placements say of the whole key space. Nothing is drawn but secrets.

mod page;
#[cfg(test)]
mod tests;

use balancer::fleet::seat::{MemberId, Seat};
use balancer::routing::placement::{
    ClassicConfig, ClassicHash, MaglevConfig, Member, Placement, PlacementConfig, RingConfig,
    Secret,
};

use super::fleet;
use crate::experiment::{Problems, SEATS, Setup};
use crate::report::thousands;
use crate::stats::Spread;

/// The classic ring, and one thing or another changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// Nothing: 512 slots, nine virtual nodes a seat, polynomials.
    AsGiven,
    /// `H(i) = 5i + 17`, which reaches every slot.
    LinearRequests,
    /// As many virtual nodes as fit for six seats.
    MoreNodes,
    /// Both of it.
    LinearMoreNodes,
    /// SipHash for requests and virtual nodes.
    SipHash,
    /// The same with as many virtual nodes as fit.
    SipHashMoreNodes,
    /// Another placement: the 64-bit circle, with so many points a seat.
    Ring(u32),
    /// Another placement: a table in which all have the same share.
    Maglev,
}

/// How even shares are with one placement and so many seats.
#[derive(Clone, Debug)]
struct Row {
    change: Change,
    seats: u32,
    /// Of each seat, from seat 1; of the default secret where there is one.
    shares: Vec<f64>,
    /// Of those shares.
    spread: Spread,
    /// The same by other draws of the same hash; `None` where nothing is drawn.
    others: Option<Others>,
}

/// What other draws give.
#[derive(Clone, Copy, Debug)]
struct Others {
    draws: u32,
    /// Busiest over average: mean, least and most.
    busiest: f64,
    least: f64,
    most: f64,
    /// Mean of the squared deviation over the squared average, and its standard error.
    square: f64,
    square_error: f64,
}

/// Slots of the classic ring, and as many virtual nodes as fit for six seats.
const SLOTS: u32 = 512;
const MORE_NODES: u32 = SLOTS / 6;

/// `H(i) = 5i + 17`, the constant first. 5 is odd, so that every slot is reached.
const LINEAR: [u64; 2] = [17, 5];

/// Slots that requests reach, and the slots of 512 whose requests each seat owns, for N = 2 to 6:
/// `balancer/tests/vectors/classic-ring.json`.
const REACHED: usize = 87;
const OWNED: [&[u32]; 5] = [
    &[488, 24],
    &[428, 24, 60],
    &[412, 24, 56, 20],
    &[392, 24, 48, 20, 28],
    &[372, 24, 48, 20, 28, 20],
];

/// Draws of other secrets, or of other seats where there is no secret.
const DRAWS: u32 = 400;

/// Beyond so many standard errors a mean is no chance: of ten means one in 1,600 sets has one there.
const SIGMAS: f64 = 4.0;

/// Requests that shares are told of: as many as A-4 sends.
const REQUESTS: u64 = 10_000;

/// Works it out, writes `ring-classic*`.
///
/// # Errors
/// When a placement cannot be built or a file cannot be read or written.
pub(super) fn run(setup: &Setup) -> anyhow::Result<Problems> {
    let mut rows = Vec::new();
    for change in Change::ALL {
        for seats in SEATS {
            rows.push(Row::of(change, seats)?);
        }
    }
    let mut problems: Problems = rows.iter().flat_map(Row::problems).collect();
    let reached: Vec<(Change, usize)> = [Change::AsGiven, Change::LinearRequests]
        .into_iter()
        .map(|change| Ok((change, change.reached()?)))
        .collect::<anyhow::Result<_>>()?;
    for (change, slots) in &reached {
        let expected = if *change == Change::AsGiven { REACHED } else { SLOTS as usize };
        if *slots != expected {
            problems.push(format!("{}: requests reach {slots}, not {expected}", change.name()));
        }
    }
    let measured = page::measured(setup)?;
    problems.extend(measured.iter().filter_map(|it| it.problem(&rows)));
    page::write(setup, &rows, &reached, &measured, &problems)?;
    Ok(problems)
}

// === impl Change ===

impl Change {
    /// All of them, in the order of the report.
    const ALL: [Self; 9] = [
        Self::AsGiven,
        Self::LinearRequests,
        Self::MoreNodes,
        Self::LinearMoreNodes,
        Self::SipHash,
        Self::SipHashMoreNodes,
        Self::Ring(160),
        Self::Ring(1_000),
        Self::Maglev,
    ];

    /// In a table.
    fn name(self) -> String {
        match self {
            Change::AsGiven => "as given: H = i² + 2i + 17, Φ = s² + j² + 2j + 25".to_owned(),
            Change::LinearRequests => "H = 5i + 17".to_owned(),
            Change::MoreNodes => format!("as given, {MORE_NODES} virtual nodes"),
            Change::LinearMoreNodes => format!("H = 5i + 17, {MORE_NODES} virtual nodes"),
            Change::SipHash => "SipHash for both".to_owned(),
            Change::SipHashMoreNodes => format!("SipHash for both, {MORE_NODES} virtual nodes"),
            Change::Ring(points) => format!("`ring`, {} points", thousands(points.into())),
            Change::Maglev => "`maglev`, 65,537 entries".to_owned(),
        }
    }

    /// On a chart.
    fn short(self) -> String {
        match self {
            Change::AsGiven => "as given".to_owned(),
            Change::LinearRequests => "H = 5i + 17".to_owned(),
            Change::MoreNodes => format!("{MORE_NODES} nodes"),
            Change::LinearMoreNodes => format!("5i + 17, {MORE_NODES}"),
            Change::SipHash => "SipHash".to_owned(),
            Change::SipHashMoreNodes => format!("SipHash, {MORE_NODES}"),
            Change::Ring(points) => format!("ring, {}", thousands(points.into())),
            Change::Maglev => "maglev".to_owned(),
        }
    }

    fn config(self, secret: Secret) -> PlacementConfig {
        let as_given = ClassicConfig::default();
        let more = |config| ClassicConfig { virtual_nodes: MORE_NODES, ..config };
        let sip = ClassicConfig { hash: ClassicHash::SipHash, ..as_given.clone() };
        match self {
            Change::AsGiven => PlacementConfig::Classic(as_given),
            Change::LinearRequests => PlacementConfig::Classic(linear(as_given)),
            Change::MoreNodes => PlacementConfig::Classic(more(as_given)),
            Change::LinearMoreNodes => PlacementConfig::Classic(more(linear(as_given))),
            Change::SipHash => PlacementConfig::Classic(sip),
            Change::SipHashMoreNodes => PlacementConfig::Classic(more(sip)),
            Change::Ring(virtual_nodes) => {
                PlacementConfig::Ring(RingConfig { virtual_nodes, secret })
            }
            Change::Maglev => PlacementConfig::Maglev(MaglevConfig::default()),
        }
    }

    /// As A-4 has it: seats from 1, the default secret.
    fn placement(self, seats: u32) -> anyhow::Result<Placement> {
        fleet::built(&self.config(Secret::default()), &fleet::seats(seats))
    }

    /// How many slots requests reach: with one virtual node for each of as many seats as there are
    /// slots, every slot has an owner of its own, and those that own something are reached.
    fn reached(self) -> anyhow::Result<usize> {
        let PlacementConfig::Classic(classic) = self.config(Secret::default()) else {
            anyhow::bail!("{} has no slots", self.name());
        };
        let config = PlacementConfig::Classic(ClassicConfig { virtual_nodes: 1, ..classic });
        let shares = fleet::built(&config, &fleet::seats(SLOTS))?.shares();
        Ok(shares.iter().filter(|share| **share > 0.0).count())
    }

    /// The shares of another draw of the hash. SipHash of the classic ring has no secret: other
    /// seats are other draws.
    fn drawn(self, seats: u32, draw: u32) -> anyhow::Result<Option<Vec<f64>>> {
        let (secret, members) = match self {
            // The first one is the default.
            Change::Ring(_) => (fleet::secret(draw + 1), fleet::seats(seats)),
            Change::SipHash | Change::SipHashMoreNodes => {
                let first = 1_000 + draw * seats;
                let others = (first..first + seats).filter_map(Seat::new);
                let member = |seat| Member::new(MemberId::Seat(seat), 1);
                (Secret::default(), others.map(member).collect())
            }
            Change::AsGiven
            | Change::LinearRequests
            | Change::MoreNodes
            | Change::LinearMoreNodes
            | Change::Maglev => {
                return Ok(None);
            }
        };
        Ok(Some(fleet::built(&self.config(secret), &members)?.shares()))
    }
}

/// Polynomials of which only that of requests is another.
fn linear(config: ClassicConfig) -> ClassicConfig {
    match config.hash {
        ClassicHash::Polynomial { seat, virtual_node, request: _ } => {
            let hash = ClassicHash::Polynomial { request: LINEAR.to_vec(), seat, virtual_node };
            ClassicConfig { hash, ..config }
        }
        ClassicHash::SipHash => config,
    }
}

// === impl Row ===

impl Row {
    fn of(change: Change, seats: u32) -> anyhow::Result<Self> {
        let shares = change.placement(seats)?.shares();
        let spread = Spread::expected(&shares, REQUESTS);
        let drawn: Vec<Vec<f64>> = (0..DRAWS)
            .filter_map(|draw| change.drawn(seats, draw).transpose())
            .collect::<anyhow::Result<_>>()?;
        Ok(Self { change, seats, shares, spread, others: Others::of(&drawn) })
    }

    /// The shares as slots of 512; `None` where they are none.
    fn slots(&self) -> Option<Vec<u32>> {
        let slots = self.shares.iter().map(|share| share * f64::from(SLOTS));
        let whole = slots.clone().all(|slots| slots.fract() == 0.0);
        whole.then(|| slots.map(|slots| slots as u32).collect())
    }

    /// What N seats with v points each have as the mean of their squared deviation over the squared
    /// average, points being uniform: shares are then of a Dirichlet distribution, and it is
    /// (N − 1) / (N v + 1), exactly.
    fn expected_square(&self) -> Option<f64> {
        let seats = f64::from(self.seats);
        match self.change {
            Change::Ring(points) => Some((seats - 1.0) / (seats * f64::from(points) + 1.0)),
            Change::AsGiven
            | Change::LinearRequests
            | Change::MoreNodes
            | Change::LinearMoreNodes
            | Change::SipHash
            | Change::SipHashMoreNodes
            | Change::Maglev => None,
        }
    }

    /// Busiest over average: of all draws where there are some.
    fn busiest(&self) -> f64 {
        self.others.map_or(self.spread.max_over_mean, |others| others.busiest)
    }

    fn problems(&self) -> Problems {
        let mut problems = Problems::new();
        let what = format!("{}, N = {}", self.change.name(), self.seats);
        let owned = OWNED.get((self.seats - SEATS.start()) as usize).copied();
        if self.change == Change::AsGiven && self.slots().as_deref() != owned {
            problems.push(format!("{what}: {:?} of {SLOTS}, not {owned:?}", self.slots()));
        }
        if let (Some(expected), Some(others)) = (self.expected_square(), self.others) {
            let off = (others.square - expected) / others.square_error;
            if off.abs() > SIGMAS {
                problems.push(format!(
                    "{what}: squared deviations are {:.6} on average, {off:+.1} standard errors off \
                     the exact {expected:.6}",
                    others.square
                ));
            }
        }
        problems
    }
}

// === impl Others ===

impl Others {
    fn of(drawn: &[Vec<f64>]) -> Option<Self> {
        let draws = u32::try_from(drawn.len()).ok().filter(|draws| *draws > 1)?;
        let count = f64::from(draws);
        let spreads: Vec<Spread> = drawn.iter().map(|it| Spread::expected(it, REQUESTS)).collect();
        let busiest = || spreads.iter().map(|spread| spread.max_over_mean);
        let squares = || spreads.iter().map(|spread| (spread.deviation / spread.mean).powi(2));
        let square = squares().sum::<f64>() / count;
        let variance = squares().map(|it| (it - square).powi(2)).sum::<f64>() / (count - 1.0);
        Some(Self {
            draws,
            busiest: busiest().sum::<f64>() / count,
            least: busiest().fold(f64::INFINITY, f64::min),
            most: busiest().fold(0.0, f64::max),
            square,
            square_error: (variance / count).sqrt(),
        })
    }
}
