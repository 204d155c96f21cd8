//! Faults of replicas: each is injected, followed until it is over, and noted.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::replicas::{Found, Handle, Place, Strike};
use super::schedule::{Kind, Step};
use super::watch::Watch;

/// A fault and what became of it. Times count as those of the watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) at: Duration,
    pub(crate) kind: Kind,
    pub(crate) seats: Vec<u32>,
    /// The names of the replicas that it hit, all of them.
    pub(crate) victims: Vec<String>,
    /// When the last blow fell: later than `at` only for an exit loop.
    pub(crate) struck: Duration,
    /// When it was over: replaced, undone, answered.
    pub(crate) ended: Option<Duration>,
    pub(crate) outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing came of it yet.
    Open,
    /// What was asked for was done.
    Done,
    /// The seat has another replica.
    Replaced,
    /// Put right from outside, as planned.
    Undone,
    /// Put right from outside, for want of a replacement.
    NotReplaced,
    /// It could not be done, or its end was not seen: why.
    Failed(String),
}

/// What the faults share.
pub(crate) struct World {
    pub(crate) place: Place,
    pub(crate) watch: Rc<Watch>,
    /// Whether a replica cannot tell its seat, so that the balancer must: a process that began as a
    /// spare.
    pub(crate) asks_for_seats: bool,
    /// How long a hung replica is left to the balancer.
    pub(crate) hang: Duration,
    /// Seats that suffer now.
    hurt: RefCell<BTreeSet<u32>>,
    pub(super) faults: RefCell<Vec<Fault>>,
    /// Times in which requests may fail.
    pub(super) excused: RefCell<Vec<(Duration, Duration)>>,
}

/// Keeps a seat from being hit again meanwhile.
struct Hurt {
    world: Rc<World>,
    seat: u32,
}

/// Seats that suffer at a time, at most.
const MOST_HURT: usize = 2;
/// How often an exit loop kills.
const LOOPS: usize = 5;
/// How long anything but a hang may last: longer than the longest back-off, 60 s and a quarter.
pub(super) const PATIENCE: Duration = Duration::from_secs(90);
/// How often a replica is looked for.
const LOOK: Duration = Duration::from_millis(50);

// === impl World ===

impl World {
    pub(crate) fn new(
        place: Place,
        watch: Rc<Watch>,
        asks_for_seats: bool,
        hang: Duration,
    ) -> Rc<Self> {
        let (hurt, faults, excused) = Default::default();
        Rc::new(Self { place, watch, asks_for_seats, hang, hurt, faults, excused })
    }

    /// All replicas that there are, dead containers included.
    ///
    /// # Errors
    /// When `/proc` cannot be read, or the engine does not answer.
    pub(crate) async fn all(&self) -> anyhow::Result<Vec<Found>> {
        let mut all = self.place.all().await?;
        if self.asks_for_seats {
            for found in &mut all {
                found.seat = found.hostname.as_ref().and_then(|name| self.watch.seat_of(name));
            }
        }
        Ok(all)
    }

    /// The living one on `seat`.
    async fn on_seat(&self, seat: u32) -> anyhow::Result<Found> {
        let mut all = self.all().await?;
        all.retain(|found| found.runs && found.seat == Some(seat));
        ensure!(all.len() < 2, "{} replicas live on seat {seat}", all.len());
        all.pop().with_context(|| format!("no replica lives on seat {seat}"))
    }

    pub(crate) fn faults(&self) -> Vec<Fault> {
        self.faults.borrow().clone()
    }

    pub(crate) fn excused(&self) -> Vec<(Duration, Duration)> {
        self.excused.borrow().clone()
    }

    /// Waits until no replica suffers any more.
    pub(crate) async fn is_calm_within(&self, patience: Duration) -> bool {
        let deadline = self.watch.now() + patience;
        while !self.hurt.borrow().is_empty() {
            if self.watch.now() > deadline {
                return false;
            }
            tokio::time::sleep(LOOK).await;
        }
        true
    }

    pub(super) fn note(&self, kind: Kind, seats: &[u32], outcome: Outcome) -> usize {
        let at = self.watch.now();
        let mut faults = self.faults.borrow_mut();
        let (seats, victims) = (seats.to_vec(), Vec::new());
        let ended = (outcome != Outcome::Open).then_some(at);
        faults.push(Fault { at, kind, seats, victims, struck: at, ended, outcome });
        faults.len() - 1
    }

    pub(super) fn end(&self, index: usize, outcome: Outcome) {
        let fault = &mut self.faults.borrow_mut()[index];
        // The worst of two replicas counts.
        if matches!(fault.outcome, Outcome::Open | Outcome::Replaced) {
            fault.outcome = outcome;
        }
        fault.ended = Some(self.watch.now());
    }

    /// Waits until these seats may be hit, and takes them.
    async fn take(self: &Rc<Self>, step: &Step) -> anyhow::Result<Vec<Hurt>> {
        let hangs = matches!(step.kind, Kind::Hang | Kind::HangBriefly | Kind::Disconnect);
        let deadline = self.watch.now() + PATIENCE;
        loop {
            let asked = self.watch.asked();
            let most = if hangs { MOST_HURT.min(asked / 2) } else { MOST_HURT };
            ensure!(most > 0, "more than half of {asked} would hang");
            let is_free = {
                let hurt = self.hurt.borrow();
                let others = step.seats.iter().all(|seat| !hurt.contains(seat));
                others && hurt.len() + step.seats.len() <= most.max(step.seats.len())
            };
            if is_free {
                let take = |seat: &u32| {
                    self.hurt.borrow_mut().insert(*seat);
                    Hurt { world: Rc::clone(self), seat: *seat }
                };
                return Ok(step.seats.iter().map(take).collect());
            }
            ensure!(self.watch.now() < deadline, "earlier faults are not over");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The replica on a seat, once it lives and is listed.
    pub(super) async fn listed(&self, seat: u32) -> anyhow::Result<Found> {
        let deadline = self.watch.now() + PATIENCE;
        loop {
            let found = self.on_seat(seat).await.and_then(|found| {
                let listed = |name: &String| self.watch.lists(name);
                ensure!(found.hostname.as_ref().is_none_or(listed), "seat {seat} is not listed");
                Ok(found)
            });
            if found.is_ok() || self.watch.now() > deadline {
                return found;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Another replica on that seat, once it lives.
    async fn successor(&self, seat: u32, old: &Handle, patience: Duration) -> Option<Found> {
        let deadline = self.watch.now() + patience;
        while self.watch.now() < deadline {
            // The engine may be away for a moment.
            let all = self.all().await.unwrap_or_default();
            let is_new =
                |found: &Found| found.runs && found.seat == Some(seat) && found.handle != *old;
            if let Some(found) = all.into_iter().find(is_new) {
                return Some(found);
            }
            tokio::time::sleep(LOOK).await;
        }
        None
    }

    /// Hits a replica, or both, and leaves the rest to tasks of their own.
    pub(super) async fn hit(self: &Rc<Self>, step: &Step) -> anyhow::Result<()> {
        let taken = self.take(step).await?;
        let mut targets = Vec::new();
        for seat in &step.seats {
            targets.push(self.listed(*seat).await?);
        }
        let strike = strike(step.kind).context("this kind hits no replica")?;
        let index = self.note(step.kind, &step.seats, Outcome::Open);
        let names = targets.iter().filter_map(|target| target.hostname.clone());
        self.faults.borrow_mut()[index].victims = names.collect();
        // Each on its own, so that two are hit at once, however slow a command line is.
        for (target, hurt) in targets.into_iter().zip(taken) {
            let (world, step) = (Rc::clone(self), step.clone());
            tokio::task::spawn_local(async move {
                let outcome = match world.place.strike(&target.handle, strike).await {
                    Ok(()) => world.follow(index, &step, &target, hurt.seat).await,
                    Err(error) => Outcome::Failed(format!("{error:#}")),
                };
                world.end(index, outcome);
                drop(hurt);
            });
        }
        Ok(())
    }

    /// What comes after the blow.
    async fn follow(&self, index: usize, step: &Step, target: &Found, seat: u32) -> Outcome {
        match (step.kind, undoing(step.kind)) {
            (Kind::ExitLoop, _) => self.kill_on(index, target, seat).await,
            (Kind::Hang, Some(undo)) => {
                if self.successor(seat, &target.handle, self.hang).await.is_some() {
                    return Outcome::Replaced;
                }
                let _ = self.place.strike(&target.handle, undo).await;
                Outcome::NotReplaced
            }
            (_, Some(undo)) => {
                tokio::time::sleep(step.lasts).await;
                // It fails when the replica is gone, and then it was replaced.
                match self.place.strike(&target.handle, undo).await {
                    Ok(()) => Outcome::Undone,
                    Err(_) => self.replaced(seat, &target.handle).await,
                }
            }
            (_, None) => self.replaced(seat, &target.handle).await,
        }
    }

    async fn replaced(&self, seat: u32, old: &Handle) -> Outcome {
        match self.successor(seat, old, PATIENCE).await {
            Some(_) => Outcome::Replaced,
            None => Outcome::Failed(format!("no successor after {PATIENCE:?}")),
        }
    }

    async fn kill_on(&self, index: usize, first: &Found, seat: u32) -> Outcome {
        let mut last = first.handle.clone();
        for _ in 1..LOOPS {
            let Some(next) = self.successor(seat, &last, PATIENCE).await else {
                return Outcome::Failed(format!("no successor after {PATIENCE:?}"));
            };
            // It may have ended by itself meanwhile, as one that cannot start does.
            let _ = self.place.strike(&next.handle, Strike::Kill).await;
            let fault = &mut self.faults.borrow_mut()[index];
            fault.struck = self.watch.now();
            fault.victims.extend(next.hostname);
            last = next.handle;
        }
        self.replaced(seat, &last).await
    }
}

impl Drop for Hurt {
    fn drop(&mut self) {
        self.world.hurt.borrow_mut().remove(&self.seat);
    }
}

/// The blow of a kind.
fn strike(kind: Kind) -> Option<Strike> {
    match kind {
        Kind::Kill | Kind::ExitLoop => Some(Strike::Kill),
        Kind::Hang | Kind::HangBriefly => Some(Strike::Hang),
        Kind::Stop => Some(Strike::Stop),
        Kind::Remove => Some(Strike::Remove),
        Kind::Disconnect => Some(Strike::Disconnect),
        Kind::Balancer
        | Kind::Engine
        | Kind::Member
        | Kind::Unread
        | Kind::Add
        | Kind::Shrink
        | Kind::Rollout => None,
    }
}

/// What puts it right.
fn undoing(kind: Kind) -> Option<Strike> {
    match kind {
        Kind::Hang | Kind::HangBriefly => Some(Strike::WakeUp),
        Kind::Disconnect => Some(Strike::Connect),
        Kind::Kill
        | Kind::ExitLoop
        | Kind::Stop
        | Kind::Remove
        | Kind::Balancer
        | Kind::Engine
        | Kind::Member
        | Kind::Unread
        | Kind::Add
        | Kind::Shrink
        | Kind::Rollout => None,
    }
}
