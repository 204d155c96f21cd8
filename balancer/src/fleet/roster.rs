//! What was asked for and what is known to run: the supervisor's whole memory, without its hands.
//!
//! Everything that happens comes in as a method call with the time; what is to be done comes out
//! of [`Roster::act`], what has happened out of [`Roster::events`], and which changes are through
//! out of [`Roster::finished`].

mod changes;
mod observe;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::Rng;

use super::backoff::{Backoff, BackoffConfig};
use super::change::{Cause, Death, Failed};
use super::health::{Health, HealthLimits, HealthTrack};
use super::plan::{self, Action, Phase, Seen, Why};
use super::seat::{Hostname, MemberId, Seat};

/// Bounds of a fleet.
#[derive(Clone, Debug)]
pub struct FleetConfig {
    /// Seats of the placement, where it has a bound.
    pub capacity: Option<usize>,
    /// How many replicas there may be.
    pub max_replicas: usize,
    /// When probes change a replica's health.
    pub health: HealthLimits,
    /// How long a seat stays empty that keeps losing its replica.
    pub backoff: BackoffConfig,
    /// How long a replica may take from its start to its first good probes.
    pub start_deadline: Duration,
    /// How long requests in flight may take once their replica is leaving.
    pub drain_deadline: Duration,
    /// How long to wait after a stop that failed.
    pub remove_again: Duration,
    /// Whether replicas are only listed: none is started or stopped then.
    pub listed: bool,
}

/// A replica as a runtime sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// Its name.
    pub hostname: Hostname,
    /// Its place; `None` when its label makes no sense.
    pub member: Option<MemberId>,
    /// Where it listens; `None` when it has no address now.
    pub address: Option<SocketAddr>,
    /// Multiplies its share.
    pub weight: u32,
    /// Orders replicas by age.
    pub created: u64,
    /// How it ended, unless it runs.
    pub death: Option<Death>,
}

/// Why a start failed.
#[derive(Clone, Debug)]
pub enum StartFailed {
    /// Something that is not ours has the name.
    NameTaken,
    /// Anything else.
    Other(Cause),
}

/// What the supervisor is to do for the roster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Start a replica; then [`Roster::started`].
    Start(Seat, Hostname),
    /// Let nobody in any more; when the last request has left, [`Roster::drained`].
    Drain(Hostname),
    /// Stop it and remove what is left; then [`Roster::removed`].
    Remove(Hostname),
}

/// Something that happened to a replica, told once.
#[derive(Clone, Debug)]
pub struct Event {
    /// Whom.
    pub hostname: Hostname,
    /// Its place.
    pub member: Option<MemberId>,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum What {
    /// A start was asked for.
    Starting,
    /// It ran already when the balancer looked.
    Adopted,
    /// It takes requests.
    Ready,
    /// Its probes fail; it takes no requests.
    Ejected,
    /// It has ended.
    Died(Death),
    /// It could not be started.
    StartFailed(StartFailed),
    /// It was not ready in time.
    NeverReady,
    /// It takes no new requests, and goes.
    Draining(Why),
    /// It is gone.
    Removed,
    /// It could not be removed.
    RemoveFailed(Cause),
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
    /// Names that are gone: a listing that still has one is late, or the runtime was.
    gone: VecDeque<(Hostname, Tick)>,
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
    /// The name for the next replica.
    name: Option<Hostname>,
    /// Who was there before: may still be named in `/rm`.
    previous: Option<Hostname>,
    /// The place in `/rep` that is kept for the first replica.
    join: Option<u64>,
    backoff: Backoff,
    not_before: Instant,
    change: Option<ChangeId>,
}

#[derive(Debug)]
struct Record {
    member: Option<MemberId>,
    address: Option<SocketAddr>,
    weight: u32,
    created: Option<u64>,
    phase: Phase,
    health: HealthTrack,
    ready_since: Option<Instant>,
    joined: Option<u64>,
    stamp: Tick,
    remove_error: Option<Cause>,
}

#[derive(Debug)]
enum Pending {
    Add { seats: Vec<Seat>, failed: Option<Failed> },
    Remove { hostnames: Vec<Hostname> },
}

/// How many names of the gone are kept: more than can be removed between two listings.
const GONE_KEPT: usize = 4_096;

// === impl Roster ===

impl Roster {
    /// A fleet of nothing.
    pub fn new(config: FleetConfig) -> Self {
        Self {
            config,
            seats: BTreeMap::new(),
            records: BTreeMap::new(),
            changes: BTreeMap::new(),
            gone: VecDeque::new(),
            tick: Tick::default(),
            revision: 0,
            next_change: 0,
            next_join: 0,
            events: Vec::new(),
        }
    }

    /// Begins: adopts what runs already, on the seats it has; where nothing does, asks for
    /// `replicas` on the first seats.
    pub fn boot(&mut self, mut running: Vec<Observed>, replicas: usize, now: Instant) {
        running.sort_by_key(|replica| (replica.created, replica.member));
        for observed in running {
            self.adopt(observed, now);
        }
        if self.seats.is_empty() && !self.config.listed {
            for seat in Seat::smallest_free(|_| false, replicas) {
                let record = self.new_seat(now);
                let name = Some(Hostname::of_seat(seat));
                self.seats.insert(seat, SeatRecord { name, ..record });
            }
        }
        self.revision += 1;
    }

    /// To be read before a listing is asked for, and handed to [`listed`](Self::listed) with it.
    pub fn tick(&self) -> Tick {
        self.tick
    }

    /// Whether no replica of ours is left (those that cannot be removed do not count).
    pub fn is_gone(&self) -> bool {
        self.config.listed || self.records.values().all(Record::is_stuck)
    }

    /// What is to be done now, and when to ask again if nothing happens before.
    pub fn act(&mut self, now: Instant, rng: &mut impl Rng) -> (Vec<Effect>, Option<Instant>) {
        if self.config.listed {
            return (Vec::new(), None);
        }
        let desired = self.seats.iter().map(|(seat, record)| (*seat, record.not_before)).collect();
        let observed = self.records.iter().map(|(hostname, record)| Seen {
            hostname,
            seat: record.seat(),
            phase: record.phase,
            created: record.created,
        });
        let plan = plan::plan(&desired, observed, self.config.start_deadline, now);
        let effects =
            plan.actions.into_iter().filter_map(|action| self.begin(action, now, rng)).collect();
        (effects, plan.wake)
    }

    /// What happened since the last call.
    pub fn events(&mut self) -> Vec<Event> {
        mem::take(&mut self.events)
    }

    /// Changes whenever anything but a probe's count did.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The members of the ring, with their weights.
    pub fn members(&self) -> impl Iterator<Item = (MemberId, u32)> {
        let seats = self.seats.iter().filter(|(_, seat)| seat.on_ring);
        let listed = self.records.values().filter_map(|record| match record.member? {
            MemberId::Seat(_) => None,
            address @ MemberId::Address(_) => Some((address, record.weight)),
        });
        seats.map(|(seat, _)| (MemberId::Seat(*seat), 1)).chain(listed)
    }

    /// The replicas to be probed: those that run and are not leaving, with their addresses.
    pub fn running(&self) -> impl Iterator<Item = (&Hostname, MemberId, SocketAddr)> {
        self.records.iter().filter_map(|(hostname, record)| {
            let runs = matches!(record.phase, Phase::Starting { .. } | Phase::Up);
            runs.then_some((hostname, record.member?, record.address?))
        })
    }

    /// Whether a replica is known, in whatever phase.
    pub fn knows(&self, hostname: &Hostname) -> bool {
        self.records.contains_key(hostname)
    }

    /// Whether a replica can still answer: it runs, or drains.
    pub fn lives(&self, hostname: &Hostname) -> bool {
        let draining = |record: &Record| matches!(record.phase, Phase::Draining { .. });
        self.records.get(hostname).is_some_and(|record| record.runs() || draining(record))
    }

    /// Whether a replica takes requests.
    pub fn is_ready(&self, hostname: &Hostname) -> bool {
        self.records.get(hostname).is_some_and(Record::is_ready)
    }

    /// What `/rep` lists: replicas that joined and run, in the order in which they joined.
    pub fn listing(&self) -> Vec<Hostname> {
        let mut joined: Vec<(u64, &Hostname)> = self
            .records
            .iter()
            .filter(|(_, record)| record.phase == Phase::Up)
            .filter_map(|(hostname, record)| Some((record.joined?, hostname)))
            .collect();
        joined.sort_unstable();
        joined.into_iter().map(|(_, hostname)| hostname.clone()).collect()
    }

    fn new_seat(&mut self, now: Instant) -> SeatRecord {
        let join = Some(self.next_join);
        self.next_join += 1;
        SeatRecord {
            on_ring: true,
            name: None,
            previous: None,
            join,
            backoff: Backoff::default(),
            not_before: now,
            change: None,
        }
    }

    fn begin(&mut self, action: Action, now: Instant, rng: &mut impl Rng) -> Option<Effect> {
        self.revision += 1;
        match action {
            Action::Start(seat) => {
                let name = self.seats.get_mut(&seat)?.name.take();
                let hostname = match name.filter(|name| !self.in_use(name)) {
                    Some(name) => name,
                    None => self.random_name(rng),
                };
                let record = Record {
                    member: Some(MemberId::Seat(seat)),
                    address: None,
                    weight: 1,
                    created: None,
                    phase: Phase::Launching,
                    health: HealthTrack::new(),
                    ready_since: None,
                    joined: None,
                    stamp: self.tick,
                    remove_error: None,
                };
                let member = record.member;
                self.records.insert(hostname.clone(), record);
                self.gone.retain(|(name, _)| *name != hostname);
                self.tell(&hostname, member, What::Starting);
                Some(Effect::Start(seat, hostname))
            }
            Action::Drain(hostname, why) => {
                let until = now + self.config.drain_deadline;
                let record = self.records.get_mut(&hostname)?;
                record.phase = Phase::Draining { until, idle: false };
                let member = record.member;
                self.tell(&hostname, member, What::Draining(why));
                Some(Effect::Drain(hostname))
            }
            Action::Remove(hostname, why) => {
                let record = self.records.get_mut(&hostname)?;
                record.phase = Phase::Removing;
                let (seat, member) = (record.seat(), record.member);
                if why == Why::NeverReady {
                    self.tell(&hostname, member, What::NeverReady);
                    let within = self.config.start_deadline;
                    let failed = Failed::NeverReady { hostname: hostname.clone(), within };
                    self.seat_failed(seat, failed, None, now, rng);
                }
                Some(Effect::Remove(hostname))
            }
        }
    }

    fn in_use(&self, hostname: &Hostname) -> bool {
        let slug = hostname.slug();
        self.records.keys().any(|name| name.slug() == slug)
    }

    fn random_name(&self, rng: &mut impl Rng) -> Hostname {
        loop {
            let name = Hostname::random(rng);
            let reserved = self.seats.values().any(|seat| seat.name.as_ref() == Some(&name));
            let gone = self.gone.iter().any(|(gone, _)| *gone == name);
            if !reserved && !gone && !self.in_use(&name) {
                return name;
            }
        }
    }

    fn forget(&mut self, hostname: &Hostname) {
        if self.records.remove(hostname).is_some() {
            self.gone.retain(|(name, _)| name != hostname);
            self.gone.push_back((hostname.clone(), self.tick));
            if self.gone.len() > GONE_KEPT {
                self.gone.pop_front();
            }
        }
    }

    fn next_tick(&mut self) -> Tick {
        self.tick = Tick(self.tick.0 + 1);
        self.tick
    }

    fn tell(&mut self, hostname: &Hostname, member: Option<MemberId>, what: What) {
        self.events.push(Event { hostname: hostname.clone(), member, what });
    }
}

// === impl Record ===

impl Record {
    fn seat(&self) -> Option<Seat> {
        self.member.and_then(MemberId::seat)
    }

    fn is_ready(&self) -> bool {
        self.phase == Phase::Up && self.health.health() == Health::Ready
    }

    fn runs(&self) -> bool {
        matches!(self.phase, Phase::Launching | Phase::Starting { .. } | Phase::Up)
    }

    /// A stop failed; it is tried again, but nobody waits for it.
    fn is_stuck(&self) -> bool {
        self.remove_error.is_some()
    }

    /// Whether a listing asked for at `began` can know better than the record.
    fn may_be_judged(&self, began: Tick) -> bool {
        self.stamp <= began && !matches!(self.phase, Phase::Launching | Phase::Removing)
    }
}
