//! What was asked for and what is known to run: the supervisor's whole memory, without its hands.
//!
//! Everything that happens comes in as a method call with the time; what is to be done comes out
//! of [`Roster::act`], what has happened out of [`Roster::events`], and which changes are through
//! out of [`Roster::finished`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::Rng;
use rand::seq::SliceRandom as _;

use super::backoff::{Backoff, BackoffConfig};
use super::change::{Cause, Change, Death, Failed, Refused};
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

    /// Takes a full listing that was asked for at `began`.
    pub fn listed(
        &mut self,
        listing: Vec<Observed>,
        began: Tick,
        now: Instant,
        rng: &mut impl Rng,
    ) {
        let names: BTreeSet<Hostname> = listing.iter().map(|o| o.hostname.clone()).collect();
        for observed in listing {
            if let Some(record) = self.records.get(&observed.hostname) {
                if record.may_be_judged(began) {
                    self.compare(observed, now, rng);
                }
            } else if let Some((_, at)) =
                self.gone.iter().find(|(name, _)| *name == observed.hostname)
            {
                if *at <= began {
                    // Removed, and there again: a start that was given up came through late.
                    self.insert(observed, Phase::Dead);
                }
            } else {
                self.adopt(observed, now);
            }
        }
        let missing: Vec<Hostname> = self
            .records
            .iter()
            .filter(|(name, record)| record.may_be_judged(began) && !names.contains(*name))
            .map(|(name, _)| name.clone())
            .collect();
        for hostname in missing {
            self.vanished(&hostname, now, rng);
        }
    }

    /// Accepts an `/add`, or says why not.
    ///
    /// # Errors
    /// [`Refused`]; nothing is changed then.
    pub fn add(&mut self, change: Change, now: Instant) -> Result<ChangeId, Refused> {
        let Change { n, hostnames } = change;
        if self.config.listed {
            return Err(Refused::Listed);
        }
        if hostnames.len() > n {
            return Err(Refused::MoreNamesThanAdded);
        }
        let mut slugs: BTreeSet<String> = self.records.keys().map(Hostname::slug).collect();
        slugs.extend(self.seats.values().filter_map(|seat| seat.name.as_ref()).map(Hostname::slug));
        let mut new = BTreeSet::new();
        for hostname in &hostnames {
            if !new.insert(hostname.slug()) {
                return Err(Refused::Repeated(hostname.clone()));
            }
            if slugs.contains(&hostname.slug()) {
                return Err(Refused::InUse(hostname.clone()));
            }
        }
        let size = self.seats.len();
        if let Some(capacity) = self.config.capacity {
            let left = capacity.saturating_sub(size);
            if n > left {
                return Err(Refused::NoSeat { left, capacity });
            }
        }
        let most = self.config.max_replicas;
        let left = most.saturating_sub(size);
        if n > left {
            return Err(Refused::TooMany { left, size, most });
        }

        let occupied: BTreeSet<Seat> = self.records.values().filter_map(Record::seat).collect();
        let taken = |seat: Seat| self.seats.contains_key(&seat) || occupied.contains(&seat);
        let mut seats = Seat::smallest_free(taken, n);
        if let Some(capacity) = self.config.capacity {
            // A seat that a leaving replica still has is free for the ring already.
            let numbers = |seat: &Seat| seat.get() as usize <= capacity;
            if !seats.iter().all(numbers) {
                seats = Seat::smallest_free(|seat| self.seats.contains_key(&seat), n);
            }
        }
        let id = ChangeId(self.next_change);
        self.next_change += 1;
        let mut names = hostnames.into_iter();
        for seat in &seats {
            let record = SeatRecord {
                on_ring: false,
                name: names.next(),
                previous: None,
                join: None,
                backoff: Backoff::default(),
                not_before: now,
                change: Some(id),
            };
            self.seats.insert(*seat, record);
        }
        self.changes.insert(id, Pending::Add { seats, failed: None });
        self.revision += 1;
        Ok(id)
    }

    /// Accepts an `/rm`, or says why not.
    ///
    /// # Errors
    /// [`Refused`]; nothing is changed then.
    pub fn remove(&mut self, change: Change, rng: &mut impl Rng) -> Result<ChangeId, Refused> {
        let Change { n, hostnames } = change;
        if self.config.listed {
            return Err(Refused::Listed);
        }
        if hostnames.len() > n {
            return Err(Refused::MoreNamesThanRemoved);
        }
        let mut leaving: BTreeSet<Seat> = BTreeSet::new();
        for hostname in &hostnames {
            let seat =
                self.removable(hostname).ok_or_else(|| Refused::Unknown(hostname.clone()))?;
            if !leaving.insert(seat) {
                return Err(Refused::Repeated(hostname.clone()));
            }
        }
        let on_ring = || self.seats.iter().filter(|(_, seat)| seat.on_ring).map(|(seat, _)| *seat);
        let size = on_ring().count();
        if n > size {
            return Err(Refused::TooFew { size });
        }
        let ready: BTreeSet<Seat> =
            self.records.values().filter(|r| r.is_ready()).filter_map(Record::seat).collect();
        let mut rest: Vec<Seat> = on_ring().filter(|seat| !leaving.contains(seat)).collect();
        rest.shuffle(rng);
        rest.sort_by_key(|seat| ready.contains(seat));
        leaving.extend(rest.into_iter().take(n - hostnames.len()));

        let id = ChangeId(self.next_change);
        self.next_change += 1;
        self.seats.retain(|seat, _| !leaving.contains(seat));
        let hostnames = self
            .records
            .iter()
            .filter(|(_, record)| record.seat().is_some_and(|seat| leaving.contains(&seat)))
            .map(|(hostname, _)| hostname.clone())
            .collect();
        self.changes.insert(id, Pending::Remove { hostnames });
        self.revision += 1;
        Ok(id)
    }

    /// Gives the whole fleet up: every change fails, every replica goes.
    pub fn stop_all(&mut self) {
        self.seats.clear();
        for pending in self.changes.values_mut() {
            match pending {
                Pending::Add { failed, .. } => {
                    failed.get_or_insert(Failed::ShuttingDown);
                }
                Pending::Remove { .. } => {}
            }
        }
        self.revision += 1;
    }

    /// Whether no replica is left (those that cannot be removed do not count).
    pub fn is_gone(&self) -> bool {
        self.records.values().all(Record::is_stuck)
    }

    /// A start has ended.
    pub fn started(
        &mut self,
        hostname: &Hostname,
        result: Result<Observed, StartFailed>,
        now: Instant,
        rng: &mut impl Rng,
    ) {
        let stamp = self.next_tick();
        let Some(record) = self.records.get_mut(hostname) else {
            return;
        };
        record.stamp = stamp;
        match result {
            Ok(observed) => {
                record.address = observed.address;
                record.created = Some(observed.created);
                record.phase = Phase::Starting { since: now };
                if let Some(death) = observed.death {
                    self.died(hostname, death, now, rng);
                }
            }
            Err(failure) => {
                let seat = record.seat();
                let failed = match &failure {
                    StartFailed::NameTaken => {
                        // Not ours, so there is nothing to remove.
                        self.forget(hostname);
                        Failed::NameTaken(hostname.clone())
                    }
                    StartFailed::Other(cause) => {
                        record.phase = Phase::Dead;
                        Failed::Start { hostname: hostname.clone(), source: cause.clone() }
                    }
                };
                self.tell(hostname, seat.map(MemberId::Seat), What::StartFailed(failure));
                self.seat_failed(seat, failed, None, now, rng);
            }
        }
        self.revision += 1;
    }

    /// A stop has ended.
    pub fn removed(&mut self, hostname: &Hostname, result: Result<(), Cause>, now: Instant) {
        let stamp = self.next_tick();
        let again = now + self.config.remove_again;
        let Some(record) = self.records.get_mut(hostname) else {
            return;
        };
        let member = record.member;
        match result {
            Ok(()) => {
                self.forget(hostname);
                self.tell(hostname, member, What::Removed);
            }
            Err(cause) => {
                record.stamp = stamp;
                record.phase = Phase::RemoveFailed { again };
                record.remove_error = Some(cause.clone());
                self.tell(hostname, member, What::RemoveFailed(cause));
            }
        }
        self.revision += 1;
    }

    /// The last request in flight at a leaving replica has ended.
    pub fn drained(&mut self, hostname: &Hostname) {
        if let Some(record) = self.records.get_mut(hostname)
            && let Phase::Draining { idle, .. } = &mut record.phase
        {
            *idle = true;
            self.revision += 1;
        }
    }

    /// A probe of a replica at `address` has ended.
    pub fn probed(&mut self, hostname: &Hostname, address: SocketAddr, good: bool, now: Instant) {
        let limits = self.config.health;
        let Some(record) = self.records.get_mut(hostname) else {
            return;
        };
        let runs = matches!(record.phase, Phase::Starting { .. } | Phase::Up);
        if !runs || record.address != Some(address) {
            return;
        }
        let Some(health) = record.health.observe(good, limits) else {
            return;
        };
        let member = record.member;
        let what = match health {
            Health::Ready => {
                record.phase = Phase::Up;
                record.ready_since = Some(now);
                What::Ready
            }
            Health::Ejected => {
                record.ready_since = None;
                What::Ejected
            }
            Health::Starting => return,
        };
        self.tell(hostname, member, what);
        self.join(hostname);
        self.revision += 1;
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

    /// The changes that are through since the last call.
    pub fn finished(&mut self) -> Vec<(ChangeId, Result<(), Failed>)> {
        let ids: Vec<ChangeId> = self.changes.keys().copied().collect();
        ids.into_iter().filter_map(|id| Some((id, self.outcome(id)?))).collect()
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

    // --- observing ---

    fn adopt(&mut self, observed: Observed, now: Instant) {
        if let Some(MemberId::Seat(seat)) = observed.member
            && !self.seats.contains_key(&seat)
        {
            let record = self.new_seat(now);
            // A dead one's replacement joins when it comes.
            let join = record.join.filter(|_| observed.death.is_none());
            self.seats.insert(seat, SeatRecord { join, ..record });
        }
        let phase = match observed.death {
            None => Phase::Starting { since: now },
            Some(_) => Phase::Dead,
        };
        let (hostname, member) = (observed.hostname.clone(), observed.member);
        let what = observed.death.map_or(What::Adopted, What::Died);
        self.insert(observed, phase);
        self.tell(&hostname, member, what);
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

    fn insert(&mut self, observed: Observed, phase: Phase) {
        let record = Record {
            member: observed.member,
            address: observed.address,
            weight: observed.weight,
            created: Some(observed.created),
            phase,
            health: HealthTrack::new(),
            ready_since: None,
            joined: None,
            stamp: self.tick,
            remove_error: None,
        };
        self.records.insert(observed.hostname, record);
        self.revision += 1;
    }

    fn compare(&mut self, observed: Observed, now: Instant, rng: &mut impl Rng) {
        let hostname = &observed.hostname;
        let Some(record) = self.records.get_mut(hostname) else {
            return;
        };
        match (record.phase, observed.death) {
            (Phase::Dead | Phase::RemoveFailed { .. }, _) => {}
            (Phase::Launching | Phase::Removing, _) => {}
            (Phase::Starting { .. } | Phase::Up | Phase::Draining { .. }, Some(death)) => {
                self.died(hostname, death, now, rng);
            }
            (Phase::Starting { .. } | Phase::Up, None) if record.address != observed.address => {
                // Restarted by someone else: a new process at a new address, not ready yet.
                record.address = observed.address;
                record.phase = Phase::Starting { since: now };
                record.health = HealthTrack::new();
                record.ready_since = None;
                self.revision += 1;
            }
            (Phase::Starting { .. } | Phase::Up | Phase::Draining { .. }, None) => {}
        }
    }

    fn died(&mut self, hostname: &Hostname, death: Death, now: Instant, rng: &mut impl Rng) {
        let Some(record) = self.records.get_mut(hostname) else {
            return;
        };
        let (member, ready_since) = (record.member, record.ready_since);
        record.phase = Phase::Dead;
        record.ready_since = None;
        self.tell(hostname, member, What::Died(death));
        let failed = Failed::Died { hostname: hostname.clone(), death };
        self.seat_failed(member.and_then(MemberId::seat), failed, ready_since, now, rng);
        self.revision += 1;
    }

    fn vanished(&mut self, hostname: &Hostname, now: Instant, rng: &mut impl Rng) {
        let ended = self
            .records
            .get(hostname)
            .is_some_and(|record| matches!(record.phase, Phase::Dead | Phase::RemoveFailed { .. }));
        if !ended {
            self.died(hostname, Death::Vanished, now, rng);
        }
        self.forget(hostname);
        self.revision += 1;
    }

    /// A seat lost its replica or could not get one: its change fails, or it backs off.
    fn seat_failed(
        &mut self,
        seat: Option<Seat>,
        failed: Failed,
        ready_since: Option<Instant>,
        now: Instant,
        rng: &mut impl Rng,
    ) {
        let Some((number, seat)) =
            seat.and_then(|number| Some((number, self.seats.get_mut(&number)?)))
        else {
            return;
        };
        match (seat.change, failed) {
            (Some(change), failed) => self.fail_change(change, failed),
            (None, Failed::Died { hostname, .. } | Failed::NeverReady { hostname, .. }) => {
                // One on a seat that has another by now does not count against it.
                let others = self.records.iter().any(|(name, record)| {
                    *name != hostname && record.seat() == Some(number) && record.runs()
                });
                if !others {
                    seat.previous = Some(hostname);
                    seat.not_before =
                        seat.backoff.fail(&self.config.backoff, ready_since, now, rng);
                }
            }
            // After a taken name a random one is tried: at once, since it is the first failure.
            (
                None,
                Failed::NameTaken(_)
                | Failed::Start { .. }
                | Failed::Remove { .. }
                | Failed::ShuttingDown,
            ) => {
                seat.not_before = seat.backoff.fail(&self.config.backoff, ready_since, now, rng);
            }
        }
    }

    /// Undoes an `/add`: its seats are not wanted any more.
    fn fail_change(&mut self, id: ChangeId, why: Failed) {
        if let Some(Pending::Add { seats, failed }) = self.changes.get_mut(&id) {
            failed.get_or_insert(why);
            for seat in seats {
                self.seats.remove(seat);
            }
        }
    }

    // --- acting ---

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

    /// Gives a replica that became ready its place in `/rep`.
    fn join(&mut self, hostname: &Hostname) {
        let Some(record) = self.records.get_mut(hostname) else {
            return;
        };
        if record.joined.is_some() || !record.is_ready() {
            return;
        }
        let kept = match record.seat() {
            None => None,
            Some(seat) => match self.seats.get_mut(&seat) {
                Some(seat) if seat.on_ring => seat.join.take(),
                // On no ring yet: joins with its whole change.
                Some(_) | None => return,
            },
        };
        record.joined = Some(kept.unwrap_or(self.next_join));
        self.next_join += 1;
    }

    /// Whether a change is through, and how. A change that is leaves the roster.
    fn outcome(&mut self, id: ChangeId) -> Option<Result<(), Failed>> {
        let outcome = match self.changes.get(&id)? {
            Pending::Add { seats, failed: Some(failed) } => {
                let left = |record: &Record| {
                    record.seat().is_some_and(|seat| {
                        seats.contains(&seat) && !self.seats.contains_key(&seat)
                    }) && !record.is_stuck()
                };
                (!self.records.values().any(left)).then(|| Err(failed.clone()))
            }
            Pending::Add { seats, failed: None } => {
                let ready: BTreeMap<Seat, &Hostname> = self
                    .records
                    .iter()
                    .filter(|(_, record)| record.is_ready())
                    .filter_map(|(hostname, record)| Some((record.seat()?, hostname)))
                    .collect();
                let all: Option<Vec<(Seat, Hostname)>> =
                    seats.iter().map(|seat| Some((*seat, (*ready.get(seat)?).clone()))).collect();
                all.map(|all| {
                    self.join_ring(all);
                    Ok(())
                })
            }
            Pending::Remove { hostnames } => {
                let mut left = hostnames.iter().filter_map(|h| Some((h, self.records.get(h)?)));
                let stuck = left.clone().find(|(_, record)| record.is_stuck());
                let failed = stuck.and_then(|(hostname, record)| {
                    let source = record.remove_error.clone()?;
                    Some(Failed::Remove { hostname: hostname.clone(), source })
                });
                left.all(|(_, record)| record.is_stuck()).then(|| failed.map_or(Ok(()), Err))
            }
        };
        if outcome.is_some() {
            self.changes.remove(&id);
        }
        outcome
    }

    fn join_ring(&mut self, replicas: Vec<(Seat, Hostname)>) {
        for (seat, hostname) in replicas {
            if let Some(seat) = self.seats.get_mut(&seat) {
                seat.on_ring = true;
                seat.change = None;
            }
            self.join(&hostname);
        }
        self.revision += 1;
    }

    // --- small questions ---

    /// The seat that `/rm` means by a name: of the replica that has it, or had it until just now.
    fn removable(&self, hostname: &Hostname) -> Option<Seat> {
        let seat = self.records.get(hostname).and_then(Record::seat).or_else(|| {
            let replaced = |seat: &&Seat| {
                !self.records.values().any(|r| r.seat() == Some(**seat) && r.is_ready())
            };
            let mut seats = self.seats.iter();
            let before = seats.find(|(_, seat)| seat.previous.as_ref() == Some(hostname));
            before.map(|(seat, _)| seat).filter(replaced).copied()
        })?;
        self.seats.get(&seat).is_some_and(|record| record.on_ring).then_some(seat)
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

#[cfg(test)]
mod tests;
