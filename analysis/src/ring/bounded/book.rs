//! What was counted, by what it was counted of: one value for each run.

use super::order::Order;

/// What was done with the balls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Study {
    /// They came, and stayed.
    Placed,
    /// The same by an urn, without any hash.
    Urn,
    /// One more came, or one left; caps grew with them.
    Ball,
    /// The same with caps that stay.
    BallFixedCap,
    /// All caps grew by one at once.
    Cap,
    /// A seat came, or one left.
    Seat,
    /// They come and go, and no one moves.
    InFlight,
    /// Who gets what a seat owns when it is full.
    Heirs,
}

/// What was done, with which settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Case {
    pub(super) study: Study,
    pub(super) order: Order,
    pub(super) seats: u32,
    /// Balls for each seat.
    pub(super) each: u32,
    /// c; `None` for no bound.
    pub(super) factor: Option<f64>,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Figure {
    /// The most balls in a seat over the mean.
    Busiest,
    /// Standard deviation of the balls in a seat over the mean.
    Deviation,
    /// Share of the seats that are full.
    Full,
    /// Share of the balls that are not with their first owner.
    Elsewhere,
    /// Owners that the next ball asks.
    Probes,
    /// Owners that a ball asked, on average over all since the first.
    ProbesOfAll,
    /// Balls that moved, the new one among them, for a ball; those that moved over m/n, for a seat.
    Moves,
    /// The largest share of one heir.
    LargestHeir,
    /// As many heirs of equal shares would be alike.
    Heirs,
}

/// The mean over the runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Mean {
    pub(super) mean: f64,
    /// Its standard error; 0 of a single run.
    pub(super) error: f64,
    /// Standard deviation from run to run.
    pub(super) deviation: f64,
    pub(super) runs: usize,
}

/// One figure of one run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Value {
    pub(super) case: Case,
    pub(super) figure: Figure,
    pub(super) value: f64,
}

/// All figures of all cases.
#[derive(Debug, Default)]
pub(super) struct Book {
    entries: Vec<Entry>,
}

/// One figure of one case.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) case: Case,
    pub(super) figure: Figure,
    values: Vec<f64>,
}

// === impl Study ===

impl Study {
    /// In a file.
    pub(super) fn name(self) -> &'static str {
        match self {
            Study::Placed => "placed",
            Study::Urn => "urn",
            Study::Ball => "ball-update",
            Study::BallFixedCap => "ball-update-fixed-cap",
            Study::Cap => "all-caps-grow",
            Study::Seat => "seat-update",
            Study::InFlight => "in-flight",
            Study::Heirs => "heirs",
        }
    }
}

// === impl Figure ===

impl Figure {
    /// In a file.
    pub(super) fn name(self) -> &'static str {
        match self {
            Figure::Busiest => "busiest/mean",
            Figure::Deviation => "deviation/mean",
            Figure::Full => "full",
            Figure::Elsewhere => "elsewhere",
            Figure::Probes => "probes",
            Figure::ProbesOfAll => "probes-of-all",
            Figure::Moves => "moves",
            Figure::LargestHeir => "largest-heir",
            Figure::Heirs => "heirs",
        }
    }
}

// === impl Mean ===

impl Mean {
    /// Of one run at least.
    pub(super) fn of(values: &[f64]) -> Self {
        let runs = values.len();
        let mean = values.iter().sum::<f64>() / runs as f64;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let deviation = if runs > 1 { (squares / (runs - 1) as f64).sqrt() } else { 0.0 };
        Self { mean, error: deviation / (runs as f64).sqrt(), deviation, runs }
    }
}

// === impl Book ===

impl Book {
    /// Adds the value of one more run.
    pub(super) fn add(&mut self, Value { case, figure, value }: Value) {
        let same = |entry: &&mut Entry| entry.case == case && entry.figure == figure;
        match self.entries.iter_mut().find(same) {
            Some(entry) => entry.values.push(value),
            None => self.entries.push(Entry { case, figure, values: vec![value] }),
        }
    }

    /// The figure of a case; `None` if it was not counted.
    pub(super) fn get(&self, case: Case, figure: Figure) -> Option<Mean> {
        self.values(case, figure).map(Mean::of)
    }

    /// The figure of a case, one value for each run.
    pub(super) fn values(&self, case: Case, figure: Figure) -> Option<&[f64]> {
        let entry = self.entries.iter().find(|it| it.case == case && it.figure == figure)?;
        Some(&entry.values)
    }

    /// All of them, in the order in which they were first added.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }
}

// === impl Entry ===

impl Entry {
    pub(super) fn mean(&self) -> Mean {
        Mean::of(&self.values)
    }
}

impl Extend<Value> for Book {
    fn extend<T: IntoIterator<Item = Value>>(&mut self, values: T) {
        values.into_iter().for_each(|value| self.add(value));
    }
}
