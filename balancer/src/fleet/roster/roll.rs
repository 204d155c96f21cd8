//! Rollouts: every replica is replaced by one of the wanted release, seat by seat. A seat is updated
//! when its new replica has been ready for the whole monitoring time; only then its old one leaves
//! and the next seat has its turn. New replicas that fail lead to a rollback.
//!
//! ```text
//!             pause ⇄ resume
//! rolling ──────────────────────▶ done
//!    │ failures, DELETE             │ DELETE
//!    ▼                              ▼
//! rolling-back ────────────────▶ rolled-back
//! ```
//!
//! A new rollout supersedes one in any state. It falls back on the last release to which the whole
//! fleet had converged, not on the one that it supersedes.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::record::Record;
use super::{Hostname, Place, Roster};
use crate::fleet::change::{Failed, Refused, chain};
use crate::fleet::event::What;
use crate::fleet::health::Ejection;
use crate::fleet::observed::{Observed, Trouble};
use crate::fleet::release::{Release, Spec};
use crate::fleet::seat::Seat;

/// What a rollout is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RollRequest {
    /// Another image; as it is where nothing is said.
    pub image: Option<String>,
    /// Another program with its arguments; as it is where nothing is said.
    pub command: Option<Vec<String>>,
    /// How many seats at once; at least 1.
    pub batch: usize,
}

/// What is configured of releases.
#[derive(Clone, Debug, PartialEq)]
pub struct ReleaseConfig {
    /// What replicas run, without an image ID; none where replicas are listed.
    pub spec: Spec,
    /// What a change of `spec` leads to.
    pub on_change: OnChange,
    /// How long a new replica must be ready before its seat counts as updated.
    pub monitor: Duration,
}

/// What a change of the configured specification leads to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnChange {
    /// A rollout.
    #[default]
    Roll,
    /// A warning. All replicas, replacements among them, run what they ran before until a rollout
    /// is asked for.
    Warn,
}

/// A rollout, under way or over.
#[derive(Debug)]
pub(super) struct Roll {
    /// The release that it rolls out.
    pub(super) release: Release,
    pub(super) batch: usize,
    pub(super) state: RollState,
    /// No further seat has its turn.
    pub(super) paused: bool,
    /// All seats were updated once: spares have their turn.
    spares: bool,
    /// Replicas of the release that failed.
    failures: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RollState {
    Rolling,
    Done,
    /// None where a rollback was asked for, otherwise why the rollout failed.
    RollingBack {
        why: Option<String>,
    },
    RolledBack {
        why: Option<String>,
    },
    Superseded,
}

/// A rollout that is over, in short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) release: Release,
    pub(super) state: RollState,
}

/// What the replicas of one seat are to its rollout.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    /// One runs the wanted release.
    current: bool,
    /// Such a one has been ready for the monitoring time.
    proven: bool,
    /// One runs another release.
    stale: bool,
    /// Such a one takes requests.
    stale_ready: bool,
    /// Any takes requests.
    ready: bool,
}

/// So many replicas of a release may fail in one rollout, or a tenth of the seats of a large fleet.
const FAILURES_MAX: usize = 3;
const FAILURES_SHARE: usize = 10;

/// How many rollouts that are over are remembered: enough to see what was tried of late.
const ENDED_KEPT: usize = 8;

impl Roster {
    /// Begins a rollout, which supersedes one that is under way. Returns its generation.
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
        // A changed configuration that has only been warned of takes effect now.
        let configured = self.target.is_configured_by(self.configured());
        let base = if configured { self.target.spec().clone() } else { self.with_digest() };
        let mut spec = base.clone();
        // A tag may stand for another image by now.
        let renewed = request.image.is_some();
        if let Some(image) = request.image {
            spec.image = Some(image);
            spec.digest = None;
        }
        if let Some(command) = request.command {
            spec.command = Some(command);
        }
        let generation = self.target.generation() + 1;
        // Replicas that run the same are restarted.
        let since = if renewed || spec == *self.target.spec() { generation } else { 0 };
        let release = Release::new(generation, since, &self.config.release.spec, spec);
        self.begin_roll(release, request.batch.max(1), now);
        Ok(generation)
    }

    /// Rolls back: the rollout that is under way, or the last one that is done.
    ///
    /// # Errors
    /// [`Refused`] where no good release is known from before.
    pub fn roll_back(&mut self, now: Instant) -> Result<(), Refused> {
        if self.config.listed {
            return Err(Refused::Listed);
        }
        let state = self.roll.as_ref().map(|roll| roll.state.clone());
        match state {
            Some(RollState::Rolling) => self.undo(None, now),
            Some(RollState::RollingBack { .. }) => {}
            Some(RollState::Done | RollState::RolledBack { .. } | RollState::Superseded) | None => {
                let good = self.last_good.take().ok_or(Refused::NothingToRollBackTo)?;
                self.good = good;
                self.undo(None, now);
            }
        }
        Ok(())
    }

    /// Lets no further seat have its turn.
    ///
    /// # Errors
    /// [`Refused`] unless a rollout is under way.
    pub fn pause_roll(&mut self) -> Result<(), Refused> {
        self.set_paused(true)
    }

    /// Goes on with a rollout that was paused.
    ///
    /// # Errors
    /// [`Refused`] unless a rollout is under way.
    pub fn resume_roll(&mut self) -> Result<(), Refused> {
        self.set_paused(false)
    }

    fn set_paused(&mut self, paused: bool) -> Result<(), Refused> {
        let Some(roll) = self.roll.as_mut().filter(|roll| roll.state == RollState::Rolling) else {
            let state = self.roll.as_ref().map_or("none", |roll| roll.name());
            return Err(Refused::NotRolling { state });
        };
        if roll.paused != paused {
            roll.paused = paused;
            let generation = roll.release.generation();
            self.tell_all(if paused {
                What::RollPaused { generation }
            } else {
                What::RollResumed { generation }
            });
            self.revision += 1;
        }
        Ok(())
    }

    /// Reports whether a rollout or a rollback makes progress; not while it is paused.
    pub fn is_rolling(&self) -> bool {
        self.roll.as_ref().is_some_and(|roll| roll.state.is_under_way() && !roll.paused)
    }

    /// Takes another configuration of releases. Where it changes what replicas run, the difference
    /// is told, and a rollout begins if that is configured.
    pub fn configure(&mut self, release: ReleaseConfig, now: Instant) {
        self.config.release = release;
        self.follow_configuration(now);
        self.revision += 1;
    }

    /// Compares the wanted release with the configuration.
    pub(super) fn follow_configuration(&mut self, now: Instant) {
        let configured = self.configured();
        if self.config.listed || self.target.is_configured_by(configured) {
            self.warned = None;
            return;
        }
        let spec = self.with_digest();
        let differences = self.target.spec().differences(&spec);
        if differences.is_empty() {
            // The configuration says by now what a rollout made of the fleet.
            self.target = self.target.configured_by(&self.config.release.spec);
            return;
        }
        let rolls = self.config.release.on_change == OnChange::Roll;
        if !rolls && self.warned == Some(configured) {
            return;
        }
        self.warned = (!rolls).then_some(configured);
        let differences: Vec<String> = differences.iter().map(ToString::to_string).collect();
        self.tell_all(What::SpecChanged { differences: differences.join(", "), rolls });
        if rolls {
            let generation = self.target.generation() + 1;
            let release = Release::new(generation, 0, &self.config.release.spec, spec);
            self.begin_roll(release, 1, now);
        }
    }

    fn configured(&self) -> crate::fleet::release::Fingerprint {
        self.config.release.spec.fingerprint()
    }

    /// Returns the configured specification, with the image ID that the fleet has for its image.
    fn with_digest(&self) -> Spec {
        let spec = &self.config.release.spec;
        let known = self.target.spec();
        let digest = known.digest.clone().filter(|_| known.image == spec.image);
        Spec { digest, ..spec.clone() }
    }

    /// Takes the release of a fleet that was running before the balancer was: the latest is the
    /// wanted one. Replicas that have ended count only where no other is left: theirs may be a
    /// release that was rolled back.
    pub(super) fn resume(&mut self, running: &[Observed], now: Instant) {
        let mut running = decisive(running);
        running.sort_by(|a, b| a.release.cmp(&b.release));
        let Some(latest) = running.last() else { return };
        self.target = latest.release.clone();
        self.good = self.target.clone();
        let before = running.iter().rfind(|it| !it.release.fits(&self.target));
        if let Some(before) = before {
            self.good = before.release.clone();
            self.begin_roll(self.target.clone(), 1, now);
        }
    }

    /// Takes the release that was last requested, of which no replica may know yet. It is rolled out
    /// unless all of `running` fit it: after a rollback the requested release is later than those of
    /// the replicas, but runs the same. [`resume`](Self::resume) has seen `running`.
    pub(super) fn resume_requested(
        &mut self,
        release: Release,
        running: &[Observed],
        now: Instant,
    ) {
        if release <= self.target || release.is_pinned_as(&self.target) {
            return;
        }
        let fits = decisive(running).iter().all(|it| it.release.fits(&release));
        if fits && self.roll.is_none() {
            self.target = release;
            self.good = self.target.clone();
        } else {
            self.begin_roll(release, 1, now);
        }
    }

    /// Follows a later release of which a replica knows: another balancer's.
    pub(super) fn follow(&mut self, listing: &[Observed], now: Instant) {
        let wanted = listing.iter().filter(|observed| !observed.leaving);
        if let Some(latest) = wanted.map(|observed| &observed.release).max() {
            self.follow_release(latest, now);
        }
    }

    /// Follows a release that another balancer of the pool wants, if it is later than the own one. No
    /// replica may run it: after a rollback those that were never replaced are right already.
    pub fn follow_release(&mut self, latest: &Release, now: Instant) {
        if self.config.listed || *latest <= self.target {
            return;
        }
        if latest.is_pinned_as(&self.target) {
            // Started for the same release, of which the image ID is known by now.
            self.pin(latest);
            return;
        }
        self.begin_roll(latest.clone(), 1, now);
    }

    /// Takes the image ID that the first replica of a release was started with.
    pub(super) fn pin(&mut self, started: &Release) {
        self.target.pin(started);
        self.good.pin(started);
        if let Some(last_good) = &mut self.last_good {
            last_good.pin(started);
        }
        if let Some(roll) = &mut self.roll {
            roll.release.pin(started);
        }
    }

    /// Returns the release that the next replica at a place runs. A seat whose turn has not come
    /// keeps what is known to be good.
    pub(super) fn release_for(&self, place: Place) -> &Release {
        if self.is_current(place) { &self.target } else { &self.good }
    }

    /// Reports whether the wanted release is wanted at a place already.
    pub(super) fn is_current(&self, place: Place) -> bool {
        let Some(roll) = self.roll.as_ref().filter(|roll| roll.state.is_under_way()) else {
            return true;
        };
        match place.seat().and_then(|seat| self.seats.get(&seat)) {
            Some(seat) => seat.turn == Some(self.target.generation()),
            // Spares are updated when all seats are.
            None => roll.spares || roll.state != RollState::Rolling,
        }
    }

    /// Reports whether no rollout is under way and every replica runs the wanted release.
    pub(super) fn is_converged(&self) -> bool {
        let stale = |record: &Record| record.runs() && !record.release.fits(&self.target);
        !self.roll.as_ref().is_some_and(|roll| roll.state.is_under_way())
            && !self.records.values().any(stale)
    }

    /// Returns the seats with a replica of the release that seats keep whose turn has not come.
    pub(super) fn good_seats(&self) -> BTreeSet<Seat> {
        let runs = |record: &&Record| record.runs() && record.release.fits(&self.good);
        self.records.values().filter(runs).filter_map(Record::seat).collect()
    }

    /// Reports whether a replica has been ready for the monitoring time.
    pub(super) fn is_proven(&self, record: &Record, now: Instant) -> bool {
        self.proven_at(record).is_some_and(|at| at <= now)
    }

    fn proven_at(&self, record: &Record) -> Option<Instant> {
        let since = record.ready_since.filter(|_| record.is_ready())?;
        Some(since + self.config.release.monitor)
    }

    /// Lets seats have their turn, as many as the batch allows, those without a ready replica
    /// first. Returns when a replica that is being monitored will be proven.
    pub(super) fn give_turns(&mut self, now: Instant) -> Option<Instant> {
        let generation = self.target.generation();
        if self.is_converged() {
            return None;
        }
        let under_way = self.roll.as_ref().is_some_and(|roll| roll.state.is_under_way());
        let (progress, wake) = self.progress(now);
        let roll = self.roll.as_ref().filter(|_| under_way);
        let paused = roll.is_some_and(|roll| roll.paused);
        let batch = roll.map_or(1, |roll| roll.batch);
        let back = roll.is_some_and(|roll| roll.state != RollState::Rolling);
        // Replicas of the wanted release are a step of it, whichever balancer started them.
        for (seat, progress) in &progress {
            if let Some(seat) = self.seats.get_mut(seat).filter(|_| progress.current) {
                seat.turn = Some(generation);
            }
        }
        let has_turn = |roster: &Self, seat: &Seat| {
            roster.seats.get(seat).is_some_and(|seat| seat.turn == Some(generation))
        };
        let busy = progress.iter().filter(|(seat, progress)| {
            // A rollback waits only for seats whose replicas it takes requests from.
            has_turn(self, seat) && if back { progress.stale_ready } else { !progress.proven }
        });
        let mut room = if paused { 0 } else { batch.saturating_sub(busy.count()) };
        let mut waiting: Vec<(Seat, Progress)> = progress
            .into_iter()
            .filter(|(seat, progress)| !has_turn(self, seat) && (under_way || progress.stale))
            .collect();
        waiting.sort_by_key(|(seat, progress)| (progress.ready, *seat));
        for (seat, progress) in waiting {
            // Nothing can be lost by a rollback on a seat that serves nothing.
            if !back || progress.ready {
                if room == 0 {
                    continue;
                }
                room -= 1;
            }
            if let Some(seat) = self.seats.get_mut(&seat) {
                seat.turn = Some(generation);
                self.revision += 1;
            }
        }
        wake
    }

    /// Returns how far each seat of the ring is, and when the next replica will be proven.
    fn progress(&self, now: Instant) -> (Vec<(Seat, Progress)>, Option<Instant>) {
        let mut wake = None;
        let on_ring = self.seats.iter().filter(|(_, seat)| seat.on_ring);
        let mut seats: std::collections::BTreeMap<Seat, Progress> =
            on_ring.map(|(seat, _)| (*seat, Progress::default())).collect();
        for record in self.records.values().filter(|record| record.runs()) {
            let progress = record.seat().and_then(|seat| seats.get_mut(&seat));
            let Some(progress) = progress else { continue };
            progress.ready |= record.is_ready();
            if record.release.fits(&self.target) {
                progress.current = true;
                let at = self.proven_at(record);
                progress.proven |= at.is_some_and(|at| at <= now);
                wake = [wake, at.filter(|at| *at > now)].into_iter().flatten().min();
            } else {
                progress.stale = true;
                progress.stale_ready |= record.is_ready();
            }
        }
        (seats.into_iter().collect(), wake)
    }

    /// Notes that a replica of `release` died, or could not be started. Reports whether it was a
    /// step of the rollout that is under way.
    pub(super) fn note_failure(
        &mut self,
        release: &Release,
        failed: &Failed,
        now: Instant,
    ) -> bool {
        let seats = self.seats.len();
        let Some(roll) = self.roll_of(release) else { return false };
        roll.failures += 1;
        // A replica that had all the time there is will not do better the next time.
        let hopeless = matches!(failed, Failed::NeverReady { .. });
        if hopeless || roll.failures >= FAILURES_MAX.max(seats / FAILURES_SHARE) {
            self.undo(Some(chain(failed)), now);
        }
        true
    }

    /// Notes that a replica takes no requests any more. Its own checks, or many requests in a row,
    /// say that its release is bad; an operator's pause or stop does not.
    pub(super) fn note_ejection(&mut self, hostname: &Hostname, why: Ejection, now: Instant) {
        let Some(record) = self.records.get(hostname) else { return };
        match why {
            Ejection::Trouble(Trouble::Paused | Trouble::Stopping) => return,
            Ejection::Trouble(Trouble::Unhealthy)
            | Ejection::Probes
            | Ejection::Refused
            | Ejection::Errors => {}
        }
        let (release, reason) = (record.release.clone(), record.not_ready());
        if self.roll_of(&release).is_none() {
            return;
        }
        let reason = reason.map_or_else(|| why.to_string(), |reason| reason.to_string());
        self.undo(Some(format!("replica {:?} was ejected: {reason}", hostname.as_str())), now);
    }

    /// Returns the rollout that is under way, if a replica of `release` is a step of it.
    fn roll_of(&mut self, release: &Release) -> Option<&mut Roll> {
        let roll = self.roll.as_mut()?;
        let step =
            roll.state == RollState::Rolling && release.generation() == roll.release.generation();
        step.then_some(roll)
    }

    /// Rolls back to the last good release.
    fn undo(&mut self, why: Option<String>, now: Instant) {
        let generation = self.target.generation();
        // A configuration that was rolled back is not rolled out again by the next restart.
        let target =
            Release::new(generation + 1, 0, &self.config.release.spec, self.good.spec().clone());
        let undone = std::mem::replace(&mut self.target, target);
        let rolling = self.roll.as_mut().filter(|roll| roll.state == RollState::Rolling);
        match rolling {
            Some(roll) => {
                roll.state = RollState::RollingBack { why: why.clone() };
                roll.paused = false;
            }
            None => {
                self.end_roll();
                let state = RollState::RollingBack { why: why.clone() };
                self.roll = Some(Roll { state, ..Roll::new(undone, 1) });
            }
        }
        self.forget_backoff(now);
        self.tell_all(match why {
            Some(why) => What::RollFailed { generation, why },
            None => What::RollingBack { generation },
        });
        self.revision += 1;
    }

    /// Ends a rollout when all replicas run what it wants.
    pub(super) fn advance_roll(&mut self, now: Instant) {
        let Some(state) = self.roll.as_ref().map(|roll| &roll.state) else { return };
        if !state.is_under_way() || self.stopping {
            return;
        }
        let back = *state != RollState::Rolling;
        let (done, total) = self.rolled(now);
        let unfit = self.records.values().any(|record| record.runs() && !self.is_fit(record));
        let Some(roll) = &mut self.roll else { return };
        if done < total {
            return;
        }
        self.revision += u64::from(!roll.spares);
        roll.spares = true;
        if unfit {
            return;
        }
        let generation = roll.release.generation();
        let what = if let RollState::RollingBack { why } = &roll.state {
            roll.state = RollState::RolledBack { why: why.clone() };
            What::RollUndone { generation }
        } else {
            roll.state = RollState::Done;
            roll.paused = false;
            What::RollDone { generation }
        };
        let before = std::mem::replace(&mut self.good, self.target.clone());
        if !back {
            self.last_good = Some(before);
        }
        self.tell_all(what);
        self.revision += 1;
    }

    /// Returns how many seats have a replica of the wanted release that has been ready for the
    /// monitoring time, or is ready if this is a rollback; and how many seats there are.
    pub(super) fn rolled(&self, now: Instant) -> (usize, usize) {
        let rolling = self.roll.as_ref().is_some_and(|roll| roll.state == RollState::Rolling);
        let good = |record: &&Record| {
            self.is_fit(record)
                && if rolling { self.is_proven(record, now) } else { record.is_ready() }
        };
        let on_ring = |seat| self.seats.get(&seat).is_some_and(|seat| seat.on_ring);
        let done: BTreeSet<Seat> =
            self.records.values().filter(good).filter_map(Record::seat).collect();
        (
            done.into_iter().filter(|seat| on_ring(*seat)).count(),
            self.seats.values().filter(|s| s.on_ring).count(),
        )
    }

    fn begin_roll(&mut self, release: Release, batch: usize, now: Instant) {
        let generation = release.generation();
        let superseded = self.end_roll();
        self.target = release.clone();
        self.roll = Some(Roll::new(release, batch));
        self.forget_backoff(now);
        if let Some(superseded) = superseded {
            self.tell_all(What::RollSuperseded { generation: superseded, by: generation });
        }
        self.tell_all(What::RollBegun { generation });
        self.revision += 1;
    }

    /// Remembers the last rollout in short. Returns its generation if it was under way.
    fn end_roll(&mut self) -> Option<u64> {
        let Roll { release, state, .. } = self.roll.take()?;
        let under_way = state.is_under_way();
        let generation = release.generation();
        let state = if under_way { RollState::Superseded } else { state };
        self.ended.push_back(Ended { release, state });
        if self.ended.len() > ENDED_KEPT {
            self.ended.pop_front();
        }
        under_way.then_some(generation)
    }

    /// What ran before may have failed often: what comes now is something else.
    fn forget_backoff(&mut self, now: Instant) {
        for seat in self.seats.values_mut() {
            seat.backoff = super::Backoff::default();
            seat.not_before = now;
        }
        self.spare_backoff = super::Backoff::default();
        self.spares_not_before = None;
    }
}

/// Returns the replicas that tell the release of a fleet: those that run. Replicas that have ended
/// count only where no other is left.
fn decisive(running: &[Observed]) -> Vec<&Observed> {
    let mut all: Vec<&Observed> = running.iter().filter(|it| !it.leaving).collect();
    if all.iter().any(|it| it.condition.death().is_none()) {
        all.retain(|it| it.condition.death().is_none());
    }
    all
}

// === impl Roll ===

impl Roll {
    fn new(release: Release, batch: usize) -> Self {
        Self {
            release,
            batch,
            state: RollState::Rolling,
            paused: false,
            spares: false,
            failures: 0,
        }
    }

    pub(super) fn name(&self) -> &'static str {
        if self.paused { "paused" } else { self.state.name() }
    }
}

// === impl RollState ===

impl RollState {
    pub(super) fn is_under_way(&self) -> bool {
        match self {
            RollState::Rolling | RollState::RollingBack { .. } => true,
            RollState::Done | RollState::RolledBack { .. } | RollState::Superseded => false,
        }
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            RollState::Rolling => "rolling",
            RollState::Done => "done",
            RollState::RollingBack { .. } => "rolling-back",
            RollState::RolledBack { .. } => "rolled-back",
            RollState::Superseded => "superseded",
        }
    }

    /// Why the rollout failed.
    pub(super) fn error(&self) -> Option<&String> {
        match self {
            RollState::RollingBack { why } | RollState::RolledBack { why } => why.as_ref(),
            RollState::Rolling | RollState::Done | RollState::Superseded => None,
        }
    }
}
