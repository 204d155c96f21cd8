//! The runs: what is done with the balls, and what is counted of it.

mod moves;

use balancer::routing::bounded::{Factor, Load};
use balancer::routing::placement::{PlacementConfig, RingConfig};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::book::{Case, Figure, Study, Value};
use super::fill::{cap, cap_by_hand, fill};
use super::order::{Balls, Order};
use super::{FACTORS, urn};
use crate::experiment::Problems;
use crate::ring::fleet;

/// What one run is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// [`Study::Placed`].
    Placed,
    /// [`Study::Urn`].
    Urn,
    /// [`Study::Ball`], [`Study::BallFixedCap`], [`Study::Cap`] and [`Study::Seat`].
    Moves,
    /// [`Study::InFlight`].
    InFlight,
    /// [`Study::Heirs`].
    Heirs,
}

/// One run; its seed is its number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Job {
    pub(super) what: What,
    pub(super) order: Order,
    pub(super) seats: u32,
    pub(super) each: u32,
    pub(super) run: u32,
}

/// What a run found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) values: Vec<Value>,
    pub(super) problems: Problems,
}

/// Balls that are asked for the next owner with room.
const NEXT: usize = 1_000;
/// Where the numbers of requests that come and go begin: they are none of the balls.
const REQUESTS: usize = 1_000_000_000;
/// The least number of requests that come and go.
const FEWEST_REQUESTS: usize = 10_000;
/// Seats whose heirs are looked at.
const HEIRS_OF: usize = 10;

// === impl Job ===

impl Job {
    /// Does it.
    ///
    /// # Errors
    /// When a placement cannot be built or a ball finds no room.
    pub(super) fn run(&self) -> anyhow::Result<Found> {
        match self.what {
            What::Placed => self.placed(),
            What::Urn => Ok(self.urn()),
            What::Moves => self.moves(),
            What::InFlight => self.in_flight(),
            What::Heirs => self.heirs(),
        }
    }

    fn seats(&self) -> usize {
        self.seats as usize
    }

    fn count(&self) -> usize {
        self.seats() * self.each as usize
    }

    fn case(&self, study: Study, factor: Option<f64>) -> Case {
        Case { study, order: self.order, seats: self.seats, each: self.each, factor }
    }

    fn rng(&self) -> StdRng {
        let settings = u64::from(self.seats) << 40 | u64::from(self.each) << 20;
        StdRng::seed_from_u64(settings | u64::from(self.run))
    }

    fn problem(&self, factor: f64, what: &str) -> String {
        let Self { order, seats, each, .. } = self;
        format!("{}, {seats} seats, {each} balls each, c = {factor}: {what}", order.name())
    }

    /// All balls come, and then others ask who would have room for one more.
    fn placed(&self) -> anyhow::Result<Found> {
        let mut balls = Balls::new(self.order.owners(self.seats, self.run)?, self.count());
        let there = vec![true; self.count()];
        let mut found = Found::default();
        for factor in FACTORS.map(Some).into_iter().chain([None]) {
            let most = factor.and_then(Factor::new).map(|it| cap(it, self.count(), self.seats()));
            let caps = vec![most.unwrap_or(usize::MAX); self.seats()];
            // c is above 1: there is room for the next one as well.
            let filled = fill(&mut balls, &there, &caps)?;
            if let Some(factor) = factor {
                let by_hand = cap_by_hand(thousandths(factor), self.count(), self.seats());
                let problem = filled.problem(&there, by_hand);
                found.problems.extend(problem.map(|what| self.problem(factor, &what)));
            }
            let case = self.case(Study::Placed, factor);
            found.values.extend(self.loads(case, &filled.loads, &caps));
            let all = self.count() as f64;
            let room = |seat: &usize| filled.loads[*seat] < caps[*seat];
            let asked: usize = (REQUESTS..REQUESTS + NEXT)
                .map(|ball| 1 + balls.owners().of(ball).take_while(|seat| !room(seat)).count())
                .sum();
            for (figure, value) in [
                (Figure::Elsewhere, filled.elsewhere as f64 / all),
                (Figure::ProbesOfAll, filled.probes as f64 / all),
                (Figure::Probes, asked as f64 / NEXT as f64),
            ] {
                found.values.push(Value { case, figure, value });
            }
        }
        Ok(found)
    }

    fn urn(&self) -> Found {
        let mut rng = self.rng();
        let mut found = Found::default();
        for (factor, known) in FACTORS.into_iter().filter_map(|it| Some((it, Factor::new(it)?))) {
            let most = cap(known, self.count(), self.seats());
            let loads = urn::loads(self.seats(), self.count(), most, &mut rng);
            let full = loads.iter().filter(|load| **load >= most).count();
            let case = self.case(Study::Urn, Some(factor));
            found.values.extend(self.loads(case, &loads, &vec![most; self.seats()]));
            let asked: usize = (0..NEXT).map(|_| urn::probes(self.seats(), full, &mut rng)).sum();
            let value = asked as f64 / NEXT as f64;
            found.values.push(Value { case, figure: Figure::Probes, value });
        }
        found
    }

    fn loads(&self, case: Case, loads: &[usize], caps: &[usize]) -> [Value; 3] {
        let mean = f64::from(self.each);
        let busiest = loads.iter().max().copied().unwrap_or(0) as f64 / mean;
        let squares: f64 = loads.iter().map(|load| (*load as f64 - mean).powi(2)).sum();
        let full = loads.iter().zip(caps).filter(|(load, cap)| load >= cap).count();
        [
            (Figure::Busiest, busiest),
            (Figure::Deviation, (squares / loads.len() as f64).sqrt() / mean),
            (Figure::Full, full as f64 / loads.len() as f64),
        ]
        .map(|(figure, value)| Value { case, figure, value })
    }

    /// Requests leave and others come: always as many are in flight, and none of them moves.
    fn in_flight(&self) -> anyhow::Result<Found> {
        let owners = self.order.owners(self.seats, self.run)?;
        let mut found = Found::default();
        let share = u64::from(self.seats);
        for (factor, known) in FACTORS.into_iter().filter_map(|it| Some((it, Factor::new(it)?))) {
            let mut rng = self.rng();
            let mut loads = vec![0_usize; self.seats()];
            let mut inside: Vec<usize> = Vec::with_capacity(self.count());
            // Each request has left five times, on average, before the first one is counted.
            let (warm_up, counted) = (6 * self.count(), counted_requests(self.count()));
            let (mut elsewhere, mut probes) = (0, 0);
            for request in 0..warm_up + counted {
                if inside.len() == self.count() {
                    let leaves = rng.random_range(0..inside.len());
                    loads[inside.swap_remove(leaves)] -= 1;
                }
                let bound = known.bound(1, Load { in_flight: inside.len(), share });
                let mut asked = 0;
                let has_room = |seat: &usize| {
                    asked += 1;
                    loads[*seat] < bound
                };
                let Some(seat) = owners.of(REQUESTS + request).find(has_room) else {
                    found.problems.push(self.problem(factor, "a request finds no room"));
                    break;
                };
                loads[seat] += 1;
                inside.push(seat);
                let by_hand = cap_by_hand(thousandths(factor), inside.len(), self.seats());
                if loads[seat] > by_hand {
                    let what = format!("request {request} is beyond its cap of {by_hand}");
                    found.problems.push(self.problem(factor, &what));
                }
                if request >= warm_up {
                    elsewhere += usize::from(asked > 1);
                    probes += asked;
                }
            }
            let case = self.case(Study::InFlight, Some(factor));
            let caps = vec![cap(known, self.count(), self.seats()); self.seats()];
            found.values.extend(self.loads(case, &loads, &caps));
            for (figure, value) in [
                (Figure::Elsewhere, elsewhere as f64 / counted as f64),
                (Figure::Probes, probes as f64 / counted as f64),
            ] {
                found.values.push(Value { case, figure, value });
            }
        }
        Ok(found)
    }

    /// By the exact shares of the ring with a seat and without it.
    fn heirs(&self) -> anyhow::Result<Found> {
        let Order::Clockwise(virtual_nodes) = self.order else { return Ok(Found::default()) };
        let members = fleet::seats(self.seats);
        let secret = fleet::secret(self.run);
        let config = PlacementConfig::Ring(RingConfig { virtual_nodes, secret });
        let before = fleet::built(&config, &members)?.shares();
        let (mut largest, mut alike) = (0.0, 0.0);
        for seat in 0..HEIRS_OF {
            let mut others = members.clone();
            others.remove(seat);
            let mut rest = before.clone();
            let whole = rest.remove(seat);
            let after = fleet::built(&config, &others)?.shares();
            let parts: Vec<f64> =
                after.iter().zip(rest).map(|(it, was)| (it - was) / whole).collect();
            largest += parts.iter().copied().fold(0.0, f64::max) / HEIRS_OF as f64;
            alike += parts.iter().map(|part| part * part).sum::<f64>().recip() / HEIRS_OF as f64;
        }
        let case = self.case(Study::Heirs, None);
        let values = [(Figure::LargestHeir, largest), (Figure::Heirs, alike)];
        let values = values.map(|(figure, value)| Value { case, figure, value });
        Ok(Found { values: values.into(), problems: Problems::new() })
    }
}

/// Requests that are counted with so many in flight.
pub(super) fn counted_requests(in_flight: usize) -> usize {
    in_flight.max(FEWEST_REQUESTS)
}

fn thousandths(factor: f64) -> u64 {
    (factor * 1_000.0).round() as u64
}
