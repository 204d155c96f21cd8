//! Rolling updates: every replica replaced by one that runs something else, seat by seat, the new
//! one ready before the old one goes; undone when new ones do not become ready.

use std::time::Instant;

use super::Roster;
use crate::fleet::change::{Failed, Refused, chain};
use crate::fleet::event::What;
use crate::fleet::observed::Observed;
use crate::fleet::release::{Release, Spec};

/// What a rolling update is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RollRequest {
    /// Another image; as it is where nothing is said.
    pub image: Option<String>,
    /// Another program with its arguments; as it is where nothing is said.
    pub command: Option<Vec<String>>,
    /// How many seats at once; at least 1.
    pub batch: usize,
}

/// A rolling update, under way or over.
#[derive(Debug)]
pub(super) struct Roll {
    /// Its number.
    pub(super) generation: u64,
    pub(super) spec: Spec,
    /// What ran before.
    pub(super) previous: Spec,
    pub(super) batch: usize,
    pub(super) state: RollState,
    /// Failures since a new replica became ready.
    failures: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RollState {
    Rolling,
    Done,
    RollingBack { why: String },
    RolledBack { why: String },
}

/// So many new replicas in a row may end before they are ready.
const FAILURES_MAX: u32 = 3;

impl Roster {
    /// Begins a rolling update, or says why not. Tells its number.
    ///
    /// # Errors
    /// [`Refused`]; nothing is changed then.
    pub fn roll(&mut self, request: RollRequest, now: Instant) -> Result<u64, Refused> {
        if self.config.listed {
            return Err(Refused::Listed);
        }
        if request.image.is_some() && !self.config.images {
            return Err(Refused::NoImages);
        }
        // One that is being undone does not stand in the way: perhaps what ran before is no good
        // either.
        if let Some(roll) = self.roll.as_ref().filter(|roll| roll.state == RollState::Rolling) {
            return Err(Refused::Rolling { generation: roll.generation });
        }
        let previous = self.target.spec.clone();
        let spec = Spec {
            image: request.image.or_else(|| previous.image.clone()),
            command: request.command.or_else(|| previous.command.clone()),
        };
        let generation = self.target.generation + 1;
        // Those that run the same are restarted.
        let since = if spec == previous { generation } else { 0 };
        self.target = Release { generation, since, spec: spec.clone() };
        let batch = request.batch.max(1);
        self.begin_roll(Roll::new(generation, spec, previous, batch), now);
        Ok(generation)
    }

    /// Whether a rolling update, or the undoing of one, is under way.
    pub fn is_rolling(&self) -> bool {
        self.roll.as_ref().is_some_and(|roll| roll.state.is_under_way())
    }

    /// Follows the latest rolling update of which a replica knows: another balancer's, or that of
    /// this one before its restart.
    pub(super) fn follow(&mut self, listing: &[Observed], now: Instant) {
        let wanted = listing.iter().filter(|observed| !observed.leaving);
        let Some(latest) = wanted.clone().max_by_key(|observed| &observed.release) else {
            return;
        };
        if latest.release <= self.target {
            return;
        }
        let unfit = |observed: &&Observed| !observed.release.fits(&latest.release);
        let previous = wanted.filter(unfit).map(|observed| &observed.release);
        let previous = previous.max().map(|release| release.spec.clone());
        self.target = latest.release.clone();
        let Release { generation, spec, .. } = self.target.clone();
        if let Some(previous) = previous {
            self.begin_roll(Roll::new(generation, spec, previous, 1), now);
        }
    }

    /// A new replica became ready.
    pub(super) fn note_success(&mut self) {
        if let Some(roll) = &mut self.roll {
            roll.failures = 0;
        }
    }

    /// A replica of this release was never ready: whether that was a step of the rolling update
    /// that is under way. Too many of them end it.
    pub(super) fn note_failure(&mut self, release: &Release, failed: &Failed) -> bool {
        let Some(roll) = &mut self.roll else { return false };
        if roll.state != RollState::Rolling || release.generation != roll.generation {
            return false;
        }
        roll.failures += 1;
        // One that had all the time there is will not do better the next time.
        let hopeless = matches!(failed, Failed::NeverReady { .. });
        if hopeless || roll.failures >= FAILURES_MAX {
            let why = chain(failed);
            roll.state = RollState::RollingBack { why: why.clone() };
            let (generation, spec) = (roll.generation, roll.previous.clone());
            self.target = Release { generation: generation + 1, since: 0, spec };
            self.tell_all(What::RollFailed { generation, why });
            self.revision += 1;
        }
        true
    }

    /// Ends a rolling update when all replicas run what it wants.
    pub(super) fn advance_roll(&mut self) {
        let (done, total) = self.rolled();
        let unfit = self.records.values().any(|record| record.runs() && !self.is_fit(record));
        let Some(roll) = &mut self.roll else { return };
        if !roll.state.is_under_way() || done < total || unfit {
            return;
        }
        let generation = roll.generation;
        let what = if let RollState::RollingBack { why } = &roll.state {
            roll.state = RollState::RolledBack { why: why.clone() };
            What::RollUndone { generation }
        } else {
            roll.state = RollState::Done;
            What::RollDone { generation }
        };
        self.tell_all(what);
        self.revision += 1;
    }

    /// How many seats have what is wanted, ready, and how many there are.
    pub(super) fn rolled(&self) -> (usize, usize) {
        let good = |record: &&super::Record| record.is_ready() && self.is_fit(record);
        let on_ring = |seat| self.seats.get(&seat).is_some_and(|seat| seat.on_ring);
        let done = self.records.values().filter(good).filter_map(super::Record::seat);
        (
            done.filter(|seat| on_ring(*seat)).count(),
            self.seats.values().filter(|s| s.on_ring).count(),
        )
    }

    fn begin_roll(&mut self, roll: Roll, now: Instant) {
        let generation = roll.generation;
        self.roll = Some(roll);
        // What ran before may have failed ever so often: this is something else.
        for seat in self.seats.values_mut() {
            seat.backoff = super::Backoff::default();
            seat.not_before = now;
        }
        self.spare_backoff = super::Backoff::default();
        self.spares_not_before = None;
        self.tell_all(What::RollBegun { generation });
        self.revision += 1;
    }
}

// === impl Roll ===

impl Roll {
    fn new(generation: u64, spec: Spec, previous: Spec, batch: usize) -> Self {
        Self { generation, spec, previous, batch, state: RollState::Rolling, failures: 0 }
    }
}

// === impl RollState ===

impl RollState {
    pub(super) fn is_under_way(&self) -> bool {
        match self {
            RollState::Rolling | RollState::RollingBack { .. } => true,
            RollState::Done | RollState::RolledBack { .. } => false,
        }
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            RollState::Rolling => "rolling",
            RollState::Done => "done",
            RollState::RollingBack { .. } => "rolling-back",
            RollState::RolledBack { .. } => "rolled-back",
        }
    }
}
