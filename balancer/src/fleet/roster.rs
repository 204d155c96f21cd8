//! What was asked for and what is known to run: the supervisor's whole memory, without its hands.
//!
//! Everything that happens comes in as a method call with the time; what is to be done comes out
//! of [`Roster::act`], what has happened out of [`Roster::events`], and which changes are through
//! out of [`Roster::finished`].

mod act;
mod begin;
mod changes;
mod listed;
mod listing;
mod observe;
mod occupants;
mod overload;
mod record;
mod rehearse;
mod roll;
mod status;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backoff::{Backoff, BackoffConfig};
use super::change::Failed;
use super::event::{Event, Subject, What};
use super::health::{Ejection, Health, HealthLimits, OutlierConfig};
use super::listed::Server;
use super::observed::{Place, Trouble};
use super::plan::Phase;
use super::release::{Fingerprint, Release};
use super::seat::{Hostname, MemberId, Seat};
pub use begin::Begin;
use listed::Enlisting;
pub use occupants::{Occupant, Standing};
use record::Record;
pub use rehearse::{Rehearsal, Rehearsed};
use roll::{Ended, Roll};
pub use roll::{OnChange, ReleaseConfig, RollRequest};
pub use status::{
    EarlierRoll, FleetStatus, ReleaseStatus, ReplicaStatus, RollStatus, SeatStatus, SpareStatus,
};

/// Bounds of a fleet.
#[derive(Clone, Debug)]
pub struct FleetConfig {
    /// Seats of the placement, where it has a bound.
    pub capacity: Option<usize>,
    /// How many replicas there may be.
    pub max_replicas: usize,
    /// How many run besides, without a seat.
    pub spares: usize,
    /// When probes change a replica's health.
    pub health: HealthLimits,
    /// Time between two health checks of a replica.
    pub check_interval: Duration,
    /// When errors on real requests do.
    pub outliers: OutlierConfig,
    /// Above which share of bad ones they are believed to be good, if ever.
    pub panic: Option<f64>,
    /// How long a seat stays empty that keeps losing its replica.
    pub backoff: BackoffConfig,
    /// How long a replica may take from its start to its first good probes.
    pub start_deadline: Duration,
    /// How long a replica may not answer before it is replaced.
    pub replace_after: Duration,
    /// How long a new replica's share grows; zero for not at all.
    pub slow_start: Duration,
    /// How long requests in flight may take once their replica is leaving.
    pub drain_deadline: Duration,
    /// How long to wait after a stop that failed.
    pub remove_again: Duration,
    /// Whether replicas are only listed: none is started or stopped then.
    pub listed: bool,
    /// Whether a replica has an image.
    pub images: bool,
    /// What replicas run, and how that changes.
    pub release: ReleaseConfig,
}

/// What the supervisor is to do for the roster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Start a replica; then [`Roster::started`].
    Start(Place, Hostname, Release),
    /// Let nobody in any more; when the last request has left, [`Roster::drained`].
    Drain(Hostname),
    /// Write down where it sits; then [`Roster::marked`].
    MarkSeated(Hostname, Seat),
    /// Write down that it goes; then [`Roster::marked`].
    MarkLeaving(Hostname),
    /// Write down that it goes because the balancer stops; then [`Roster::marked`].
    MarkStopping(Hostname),
    /// Stop it and remove what is left; then [`Roster::removed`].
    Remove(Hostname),
    /// The same without a grace: it does not hear.
    Kill(Hostname),
    /// List one more server; then [`Roster::enlisted`].
    Enlist(Server),
    /// List a server no more.
    Unlist(Hostname),
    /// Take a server back that was listed for an `/add`.
    Withdraw(Hostname),
    /// A listed replica is gone: list anew, perhaps it is wanted again.
    List,
}

/// Names a change until it is through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChangeId(u64);

/// Counts what the runtime has carried out: tells what a listing cannot know yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(u64);

/// See the module.
#[derive(Debug)]
pub struct Roster {
    config: FleetConfig,
    seats: BTreeMap<Seat, SeatRecord>,
    records: BTreeMap<Hostname, Record>,
    changes: BTreeMap<ChangeId, Pending>,
    /// What is to be listed, and what no more.
    orders: Vec<Effect>,
    /// Names that are gone: a listing that still has one is late, or the runtime was.
    gone: VecDeque<(Hostname, Tick)>,
    /// Names under which another balancer may be replacing what was removed here on purpose: it did
    /// not know of that yet.
    dismissed: VecDeque<Hostname>,
    /// What all replicas are to run.
    target: Release,
    /// The last release to which the whole fleet had converged: what seats run until a rollout
    /// comes to them, and what it falls back on.
    good: Release,
    /// The one before, until a rollback has used it.
    last_good: Option<Release>,
    roll: Option<Roll>,
    /// Rollouts that are over, the latest last.
    ended: VecDeque<Ended>,
    /// The configuration of which a warning was given.
    warned: Option<Fingerprint>,
    spare_backoff: Backoff,
    spares_not_before: Option<Instant>,
    panicking: bool,
    /// The runtime does not answer: nobody knows what runs.
    blind: bool,
    stopping: bool,
    tick: Tick,
    revision: u64,
    next_change: u64,
    next_join: u64,
    events: Vec<Event>,
}

/// A seat that must have a replica.
#[derive(Debug)]
struct SeatRecord {
    /// Its points are on the ring. Those of an `/add` join when all its replicas are ready.
    on_ring: bool,
    /// It never had a ready replica, and nor had the fleet: the first one gets its whole share.
    first: bool,
    /// The name for the next replica.
    name: Option<Hostname>,
    /// Who was there last: may still be named in `/rm`, and gives its successor its name.
    previous: Option<Hostname>,
    /// The place in `/rep` that is kept for the first replica.
    join: Option<u64>,
    backoff: Backoff,
    not_before: Instant,
    /// What it had when the runtime was lost: starts that fail meanwhile are no fault of its.
    before_outage: Option<Backoff>,
    /// Why its last replica was lost or never became ready; `None` once a replica is ready.
    failure: Option<Arc<str>>,
    change: Option<ChangeId>,
    /// The generation of the release to which it was updated, or is being updated.
    turn: Option<u64>,
}

#[derive(Debug)]
enum Pending {
    Add { seats: Vec<Seat>, failed: Option<Failed> },
    Remove { hostnames: Vec<Hostname> },
    Enlist(Enlisting),
}

/// How many names of the gone are kept: more than can be removed between two listings.
const GONE_KEPT: usize = 4_096;

// === impl Roster ===

impl Roster {
    /// A fleet of nothing.
    pub fn new(config: FleetConfig) -> Self {
        let release = Release::new(0, 0, &config.release.spec, config.release.spec.clone());
        Self {
            config,
            seats: BTreeMap::new(),
            records: BTreeMap::new(),
            changes: BTreeMap::new(),
            orders: Vec::new(),
            gone: VecDeque::new(),
            dismissed: VecDeque::new(),
            target: release.clone(),
            good: release,
            last_good: None,
            roll: None,
            ended: VecDeque::new(),
            warned: None,
            spare_backoff: Backoff::default(),
            spares_not_before: None,
            panicking: false,
            blind: false,
            stopping: false,
            tick: Tick::default(),
            revision: 0,
            next_change: 0,
            next_join: 0,
            events: Vec::new(),
        }
    }

    /// To be read before a listing is asked for, and handed to [`listed`](Self::listed) with it.
    pub fn tick(&self) -> Tick {
        self.tick
    }

    /// Whether no replica of ours is left (those that cannot be removed do not count).
    pub fn is_gone(&self) -> bool {
        self.config.listed || self.records.values().all(Record::is_stuck)
    }

    /// Returns the replicas of ours that are left, also those that cannot be removed. Empty where
    /// replicas are listed.
    pub fn remaining(&self) -> Vec<&Hostname> {
        if self.config.listed { Vec::new() } else { self.records.keys().collect() }
    }

    /// What happened since the last call.
    pub fn events(&mut self) -> Vec<Event> {
        mem::take(&mut self.events)
    }

    /// Changes whenever anything but a probe's count did.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The members of the ring, with their weights, and how many tenths of their points are on it.
    pub fn members(&self) -> impl Iterator<Item = (MemberId, u32, u8)> {
        let mut tenths: BTreeMap<Seat, u8> = BTreeMap::new();
        for record in self.records.values().filter(|record| self.may_serve(record)) {
            if let Some(seat) = record.place.seat() {
                let most = tenths.entry(seat).or_default();
                *most = record.tenths.max(*most);
            }
        }
        let seats = self.seats.iter().filter(|(_, seat)| seat.on_ring).map(move |(seat, _)| {
            (MemberId::Seat(*seat), 1, tenths.get(seat).copied().unwrap_or(record::WHOLE))
        });
        seats.chain(self.listed_members())
    }

    /// The replicas to be probed: those that run and are not leaving, with their addresses.
    pub fn running(&self) -> impl Iterator<Item = (&Hostname, Place, SocketAddr)> {
        self.records.iter().filter_map(|(hostname, record)| {
            let runs = matches!(record.phase, Phase::Starting { .. } | Phase::Up);
            runs.then_some((hostname, record.place, record.address?))
        })
    }

    /// Whether a replica is known, in whatever phase.
    pub fn knows(&self, hostname: &Hostname) -> bool {
        self.records.contains_key(hostname)
    }

    /// Whether a replica can still answer: it runs and can be reached, or drains.
    pub fn lives(&self, hostname: &Hostname) -> bool {
        let lives = |record: &Record| {
            let drains = matches!(record.phase, Phase::Draining { .. });
            drains || (record.runs() && record.address.is_some())
        };
        self.records.get(hostname).is_some_and(lives)
    }

    /// Reports whether a replica is replaced because it has not responded for too long.
    pub fn is_hung(&self, hostname: &Hostname) -> bool {
        self.records.get(hostname).is_some_and(|record| record.hung)
    }

    /// Whether a replica is frozen: it will not answer, but may one day.
    pub fn is_frozen(&self, hostname: &Hostname) -> bool {
        let frozen = Health::Ejected(Ejection::Trouble(Trouble::Paused));
        self.records.get(hostname).is_some_and(|record| record.standing == frozen)
    }

    /// The replicas that take requests, one a member.
    pub fn serving(&self) -> impl Iterator<Item = &Hostname> {
        let enabled = self.fit_to_serve().filter(|(_, record)| record.is_enabled());
        enabled.map(|(hostname, _)| hostname)
    }

    /// The replicas that take requests unless they are switched off, one a member: of two on one
    /// seat the one that is to stay.
    fn fit_to_serve(&self) -> impl Iterator<Item = (&Hostname, &Record)> {
        let mut serving: BTreeMap<MemberId, (&Hostname, &Record)> = BTreeMap::new();
        for (hostname, record) in self.records.iter().filter(|(_, record)| self.may_serve(record)) {
            let Some(member) = record.place.member().filter(|member| self.is_on_ring(*member))
            else {
                continue;
            };
            let better =
                serving.get(&member).is_none_or(|(_, other)| self.rank(other) < self.rank(record));
            if better {
                serving.insert(member, (hostname, record));
            }
        }
        serving.into_values()
    }

    /// Returns the replicas that are asked as a last resort, when no ready one can answer: those
    /// that were ready once and run, but are ejected, fail their health checks, or were restarted.
    /// Replicas that were never ready, are frozen, are told to stop or are switched off are left
    /// out: they cannot answer, or an operator does not want them to. One a member.
    pub fn standby(&self) -> impl Iterator<Item = &Hostname> {
        let mut standby: BTreeMap<MemberId, (&Hostname, &Record)> = BTreeMap::new();
        for (hostname, record) in self.records.iter().filter(|(_, record)| record.may_stand_by()) {
            let Some(member) = record.place.member().filter(|member| self.is_on_ring(*member))
            else {
                continue;
            };
            let is_better = |(_, other): &(_, &Record)| !self.is_fit(other) && self.is_fit(record);
            if standby.get(&member).is_none_or(is_better) {
                standby.insert(member, (hostname, record));
            }
        }
        standby.into_values().map(|(hostname, _)| hostname)
    }

    /// Returns the replicas that run and can be asked for what every member must get, whether or
    /// not they serve; of several at one member the best first. An owned replica that was never
    /// ready is not among them: it may not listen yet. A listed server is, in any state.
    pub fn reachable(&self) -> Vec<&Hostname> {
        let can_be_asked = |record: &Record| match record.standing {
            Health::Ready | Health::Ejected(_) => record.phase == Phase::Up,
            Health::Starting => self.config.listed && record.runs(),
        };
        let records = self.records.iter().filter(|(_, record)| {
            record.change.is_none() && record.address.is_some() && can_be_asked(record)
        });
        let mut reachable: Vec<(&Hostname, &Record)> = records.collect();
        reachable.sort_by_key(|(_, record)| !self.is_fit(record));
        reachable.into_iter().map(|(hostname, _)| hostname).collect()
    }

    /// How many owned replicas there are to be, without spares: those of an `/add` that is not
    /// through among them.
    pub fn size(&self) -> usize {
        self.seats.len()
    }

    /// Whether an `/add` of owned replicas is not through.
    pub fn is_adding(&self) -> bool {
        self.seats.values().any(|seat| !seat.on_ring)
    }

    /// Whether the runtime has no doubt that most replicas run, but their probes or answers look
    /// bad.
    pub fn is_panicking(&self) -> bool {
        self.panicking
    }

    /// What `/rep` lists: replicas that joined and run, one a member, in the order in which they
    /// joined. Of two on one seat it lists the one that takes requests.
    pub fn listing(&self) -> Vec<Hostname> {
        let mut members: BTreeMap<MemberId, (&Hostname, &Record)> = BTreeMap::new();
        for (hostname, record) in &self.records {
            let joined = record.phase == Phase::Up && record.joined.is_some();
            let Some(member) = record.place.member().filter(|_| joined) else { continue };
            let rank = |record: &Record| (self.rank(record), std::cmp::Reverse(record.joined));
            let better = members.get(&member).is_none_or(|(_, other)| rank(other) < rank(record));
            if better {
                members.insert(member, (hostname, record));
            }
        }
        let mut joined: Vec<(Option<u64>, &Hostname)> =
            members.into_values().map(|(hostname, record)| (record.joined, hostname)).collect();
        joined.sort_unstable();
        joined.into_iter().map(|(_, hostname)| hostname.clone()).collect()
    }

    /// Whether a replica may be routed to.
    fn may_serve(&self, record: &Record) -> bool {
        record.phase == Phase::Up
            && record.change.is_none()
            && (record.is_ready() || (self.panicking && record.standing.is_doubtful()))
    }

    /// Orders the replicas of one seat: the greatest takes its requests.
    fn rank(&self, record: &Record) -> (bool, bool, bool) {
        (record.is_ready(), self.is_fit(record), record.release.fits(&self.good))
    }

    fn is_on_ring(&self, member: MemberId) -> bool {
        match member {
            MemberId::Seat(seat) => self.seats.get(&seat).is_some_and(|seat| seat.on_ring),
            MemberId::Address(_) => true,
        }
    }

    fn is_fit(&self, record: &Record) -> bool {
        !record.hung && record.release.fits(&self.target)
    }

    fn new_seat(&mut self, now: Instant) -> SeatRecord {
        let join = Some(self.next_join);
        self.next_join += 1;
        SeatRecord {
            on_ring: true,
            first: false,
            name: None,
            previous: None,
            join,
            backoff: Backoff::default(),
            not_before: now,
            before_outage: None,
            failure: None,
            change: None,
            turn: None,
        }
    }

    fn forget(&mut self, hostname: &Hostname) {
        if self.records.remove(hostname).is_some() {
            self.gone.retain(|(name, _)| name != hostname);
            self.gone.push_back((hostname.clone(), self.tick));
            while self.gone.len() > GONE_KEPT {
                self.gone.pop_front();
            }
        }
    }

    fn next_tick(&mut self) -> Tick {
        self.tick = Tick(self.tick.0 + 1);
        self.tick
    }

    fn tell(&mut self, hostname: &Hostname, place: Place, what: What) {
        let subject = Some(Subject { hostname: hostname.clone(), place });
        self.events.push(Event { subject, what });
    }

    fn tell_all(&mut self, what: What) {
        self.events.push(Event { subject: None, what });
    }
}
