//! Balls that move when a ball or a seat comes or leaves, or when caps grow: each time it is compared
//! where all balls were and where they are then.

use balancer::routing::bounded::Factor;
use rand::seq::SliceRandom as _;

use super::super::FACTORS;
use super::super::book::{Figure, Study, Value};
use super::super::fill::{Filled, cap, cap_by_hand, fill, moved, spread};
use super::super::order::Balls;
use super::{Found, Job, thousandths};
use crate::experiment::Problems;

/// The balls of a run, and those that come later.
struct Moves<'a> {
    job: &'a Job,
    balls: Balls,
    /// Who is there at the beginning.
    there: Vec<bool>,
    /// All balls in a random order; the first ones come later.
    shuffled: Vec<usize>,
    problems: Problems,
}

/// Updates of a run: balls that come or leave, seats that leave.
const BALL_UPDATES: usize = 40;
const SEAT_UPDATES: usize = 4;

// === impl Job ===

impl Job {
    /// One ball after the other comes, caps grow by one, and seats leave.
    pub(super) fn moves(&self) -> anyhow::Result<Found> {
        let mut moves = Moves::new(self)?;
        let mut found = Found::default();
        for (c, factor) in FACTORS.into_iter().filter_map(|it| Some((it, Factor::new(it)?))) {
            for (study, value) in [
                (Study::Ball, moves.of_balls(c, factor)?),
                (Study::BallFixedCap, moves.of_balls_with_caps_that_stay(factor)?),
                (Study::Cap, moves.of_caps(c, factor)?),
                (Study::Seat, moves.of_seats(c, factor)?),
            ] {
                let case = self.case(study, Some(c));
                found.values.push(Value { case, figure: Figure::Moves, value });
            }
        }
        found.problems = moves.problems;
        Ok(found)
    }
}

// === impl Moves ===

impl<'a> Moves<'a> {
    fn new(job: &'a Job) -> anyhow::Result<Self> {
        let all = job.count() + BALL_UPDATES;
        let balls = Balls::new(job.order.owners(job.seats, job.run)?, all);
        // A ball's number is its place in the fixed order: those that come later are anywhere in it.
        let mut shuffled: Vec<usize> = (0..all).collect();
        shuffled.shuffle(&mut job.rng());
        let mut there = vec![true; all];
        shuffled.iter().take(BALL_UPDATES).for_each(|ball| there[*ball] = false);
        Ok(Self { job, balls, there, shuffled, problems: Problems::new() })
    }

    /// Fills seats whose caps add up to ⌈c · balls⌉, and counts anew that none is beyond its own.
    fn filled(
        &mut self,
        c: f64,
        factor: Factor,
        there: &[bool],
        closed: Option<usize>,
    ) -> anyhow::Result<Filled> {
        let count = there.iter().filter(|it| **it).count();
        let caps = spread(factor, count, self.job.seats(), closed);
        let filled = fill(&mut self.balls, there, &caps)?;
        let open = self.job.seats() - usize::from(closed.is_some());
        let problem = filled.problem(there, cap_by_hand(thousandths(c), count, open));
        self.problems.extend(problem.map(|what| self.job.problem(c, &what)));
        Ok(filled)
    }

    /// For each ball that comes, itself included. As many move when it leaves again: where balls
    /// are depends on who is there.
    fn of_balls(&mut self, c: f64, factor: Factor) -> anyhow::Result<f64> {
        let mut there = self.there.clone();
        let mut before = self.filled(c, factor, &there, None)?;
        let mut moves = 0;
        for nth in 0..BALL_UPDATES {
            there[self.shuffled[nth]] = true;
            let after = self.filled(c, factor, &there, None)?;
            moves += 1 + moved(&before, &after);
            before = after;
        }
        Ok(moves as f64 / BALL_UPDATES as f64)
    }

    /// The same with caps of ⌈c · balls / seats⌉ that stay: one leaves, and another comes.
    fn of_balls_with_caps_that_stay(&mut self, factor: Factor) -> anyhow::Result<f64> {
        let caps = self.fixed(factor);
        let mut there = self.there.clone();
        let mut before = fill(&mut self.balls, &there, &caps)?;
        let mut moves = 0;
        for nth in 0..BALL_UPDATES / 2 {
            for (ball, comes) in [(nth + BALL_UPDATES, false), (nth, true)] {
                there[self.shuffled[ball]] = comes;
                let after = fill(&mut self.balls, &there, &caps)?;
                moves += 1 + moved(&before, &after);
                before = after;
            }
        }
        Ok(moves as f64 / BALL_UPDATES as f64)
    }

    /// When all caps grow by one, for each of the balls that come between two such moments.
    fn of_caps(&mut self, c: f64, factor: Factor) -> anyhow::Result<f64> {
        let caps = self.fixed(factor);
        let grown: Vec<usize> = caps.iter().map(|cap| cap + 1).collect();
        let before = fill(&mut self.balls, &self.there, &caps)?;
        let after = fill(&mut self.balls, &self.there, &grown)?;
        Ok(moved(&before, &after) as f64 * c / self.job.seats() as f64)
    }

    /// When one seat leaves, over the balls of a seat; as many move when it comes back. The balls
    /// of the seat are among them.
    fn of_seats(&mut self, c: f64, factor: Factor) -> anyhow::Result<f64> {
        let there = self.there.clone();
        let before = self.filled(c, factor, &there, None)?;
        let mut moves = 0;
        for nth in 0..SEAT_UPDATES {
            // Far from each other by number, so that high and low caps are among them.
            let closed = nth * self.job.seats() / SEAT_UPDATES;
            moves += moved(&before, &self.filled(c, factor, &there, Some(closed))?);
        }
        Ok(moves as f64 / SEAT_UPDATES as f64 / f64::from(self.job.each))
    }

    fn fixed(&self, factor: Factor) -> Vec<usize> {
        let seats = self.job.seats();
        vec![cap(factor, self.job.count(), seats); seats]
    }
}
