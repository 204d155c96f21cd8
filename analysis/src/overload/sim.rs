//! The system simulated: replicas with workers and queues, and requests that come whether answers
//! do or not. Everything that decides is the balancer's own code: the ring, the table, the
//! policies, the count of requests in flight, the bound and the controller. There is no clock but
//! the events', and no randomness but the seed's.

mod system;

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use balancer::fleet::overload::{NodeLoad, decide};
use balancer::fleet::seat::{Hostname, MemberId};
use balancer::routing::bounded::Factor;
use balancer::routing::key::Key;
use balancer::routing::placement::Placement;
use balancer::routing::policy::Pick;
use balancer::routing::pool::Pool;
use balancer::routing::table::{InFlight, Most, Replica, ReplicaId, Table};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::arm::Arm;
use super::arrivals::Arrival;
use super::outcome::{EVERY, Look, Outcome};
use crate::experiment::{Problems, Variant};
use crate::stats::Latencies;

pub(super) use system::{Service, System, Weak};

/// What is counted of all requests, those of the warm-up among them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Tally {
    pub(super) arrived: u64,
    pub(super) done: u64,
    pub(super) failed: u64,
    /// Requests in the system, summed up over time: request-seconds.
    pub(super) area: f64,
    /// Of those that are done, from arrival to answer, in seconds.
    pub(super) sojourn: f64,
    /// The last event.
    pub(super) end: Duration,
}

/// A request at a replica.
struct Job {
    arrived: Duration,
    service: Duration,
    /// Leaves when it is dropped.
    _in_flight: InFlight,
}

/// When a replica is done with a request. The first of all is the next event.
struct Completion {
    at: Duration,
    /// Tells those apart that are done at once.
    number: u64,
    station: usize,
    job: Job,
}

/// A replica at work.
struct Station {
    replica: Arc<Replica>,
    busy: u32,
    waiting: VecDeque<Job>,
    is_enabled: bool,
    /// How many times as long it takes as others do.
    slowness: f64,
}

/// All of it in one moment.
struct World<'a> {
    system: &'a System,
    arm: Arm,
    factor: Option<Factor>,
    placement: Arc<Placement>,
    /// By member.
    stations: Vec<Station>,
    pool: Arc<Pool>,
    table: Table,
    /// Requests at replicas that are enabled, counted here once more.
    at_enabled: usize,
    turn: usize,
    /// Of the policy.
    dice: StdRng,
    /// Of the service times.
    work: StdRng,
    completions: BinaryHeap<Reverse<Completion>>,
    now: Duration,
    tally: Tally,
    latencies: Latencies,
    requests: u64,
    failed: u64,
    moved: u64,
    /// Good answers within the window.
    answered: u64,
    looks: Vec<Look>,
    /// How often a replica took a request beyond its bound, and the controller too many replicas.
    beyond_bound: u64,
    below_minimum: u64,
    astray: u64,
}

/// Kept out of the way of the seeds of arrivals.
const WORK: u64 = 0x5EED_0000_0000_0000;

/// Runs the system until the last request is done.
///
/// # Errors
/// When there is no such placement.
pub(super) fn simulate(
    system: &System,
    arm: Arm,
    arrivals: impl Iterator<Item = Arrival>,
    seed: u64,
) -> anyhow::Result<Outcome> {
    Ok(run(system, arm, arrivals, seed)?.0)
}

fn run(
    system: &System,
    arm: Arm,
    arrivals: impl Iterator<Item = Arrival>,
    seed: u64,
) -> anyhow::Result<(Outcome, Tally)> {
    let mut world = World::new(system, arm, seed)?;
    let (mut look, mut control) = (EVERY, system.controller.interval);
    let mut arrivals = arrivals.peekable();
    loop {
        let arrival = arrivals.peek().map(|arrival| arrival.at);
        let completion = world.completions.peek().map(|Reverse(next)| next.at);
        let Some(next) = arrival.into_iter().chain(completion).min() else { break };
        if look <= next && look < system.window.end() {
            world.look(look);
            look += EVERY;
        } else if arm.controlled && control <= next {
            world.control();
            control += system.controller.interval;
        } else if completion.is_some_and(|at| at <= next) {
            world.complete();
        } else if let Some(arrival) = arrivals.next() {
            world.arrive(arrival);
        }
    }
    while look < system.window.end() {
        world.look(look);
        look += EVERY;
    }
    world.audit();
    Ok(world.outcome())
}

// === impl Completion ===

impl Completion {
    fn moment(&self) -> (Duration, u64) {
        (self.at, self.number)
    }
}

impl PartialEq for Completion {
    fn eq(&self, other: &Self) -> bool {
        self.moment() == other.moment()
    }
}

impl Eq for Completion {}

impl PartialOrd for Completion {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Completion {
    fn cmp(&self, other: &Self) -> Ordering {
        self.moment().cmp(&other.moment())
    }
}

// === impl Station ===

impl Station {
    fn new(index: usize, member: MemberId, slowness: f64, pool: &Arc<Pool>) -> Self {
        let hostname = member.seat().map(Hostname::of_seat);
        // Nobody connects to it.
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let replica = Replica::new(
            ReplicaId(index as u64),
            hostname.unwrap_or_else(|| Hostname::listed("none")),
            member,
            address,
            pool,
        );
        let (replica, waiting) = (Arc::new(replica), VecDeque::new());
        Self { replica, busy: 0, waiting, is_enabled: true, slowness }
    }
}

// === impl World ===

impl<'a> World<'a> {
    fn new(system: &'a System, arm: Arm, seed: u64) -> anyhow::Result<Self> {
        let placement = Arc::new(Variant::Ring.placement(system.replicas)?);
        let slowness = |index| if index < system.weak.replicas { system.weak.factor } else { 1.0 };
        let members = placement.members().iter().enumerate();
        let pool = Arc::<Pool>::default();
        let stations: Vec<Station> = members
            .map(|(index, member)| Station::new(index, member.id, slowness(index), &pool))
            .collect();
        let table = table_of(&pool, &placement, &stations);
        Ok(Self {
            system,
            arm,
            factor: arm.bound.and_then(Factor::new),
            pool,
            placement,
            stations,
            table,
            at_enabled: 0,
            turn: 0,
            dice: StdRng::seed_from_u64(seed),
            work: StdRng::seed_from_u64(seed ^ WORK),
            completions: BinaryHeap::new(),
            now: Duration::ZERO,
            tally: Tally::default(),
            latencies: Latencies::new(),
            requests: 0,
            failed: 0,
            moved: 0,
            answered: 0,
            looks: Vec::new(),
            beyond_bound: 0,
            below_minimum: 0,
            astray: 0,
        })
    }

    /// Requests that have come and not gone.
    fn inside(&self) -> u64 {
        self.tally.arrived - self.tally.done - self.tally.failed
    }

    fn pass(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.now).as_secs_f64();
        self.tally.area += self.inside() as f64 * passed;
        (self.now, self.tally.end) = (now, now);
    }

    /// A request comes and is placed as the balancer does it.
    fn arrive(&mut self, arrival: Arrival) {
        self.pass(arrival.at);
        // Drawn for each, so that every arm has the same work to do.
        let service = self.system.service.draw(&mut self.work);
        let counts = self.system.window.holds(arrival.at);
        self.tally.arrived += 1;
        self.requests += u64::from(counts);
        let key = Key::from(arrival.id.to_string().as_bytes());
        let pick = Pick { key: &key, turn: self.turn };
        self.turn = self.turn.wrapping_add(1);
        let (factor, load, mut bound) = (self.factor, self.table.load(), usize::MAX);
        let accept = |replica: &Arc<Replica>, share: u64| {
            bound = factor.map_or(usize::MAX, |factor| factor.bound(share, load));
            replica.in_flight() < bound
        };
        let chosen = self.arm.policy.choose(&self.table, pick, &mut self.dice, accept);
        let most = Most { at_replica: bound, ..Most::ANY };
        let entered = chosen
            .and_then(|replica| Some((replica.id().0 as usize, replica.enter_within(most).ok()?)));
        let Some((index, in_flight)) = entered else {
            return self.refuse(counts);
        };
        self.moved +=
            u64::from(counts && self.placement.owners(key.as_bytes()).next() != Some(index));
        self.note_bound(index);
        let station = &mut self.stations[index];
        let job = Job {
            arrived: arrival.at,
            service: service.mul_f64(station.slowness),
            _in_flight: in_flight,
        };
        if station.busy < self.system.workers {
            station.busy += 1;
            self.at_enabled += 1;
            self.begin(index, job);
        } else if station.waiting.len() < self.system.queue {
            station.waiting.push_back(job);
            self.at_enabled += 1;
        } else {
            self.refuse(counts);
        }
    }

    fn refuse(&mut self, counts: bool) {
        self.tally.failed += 1;
        self.failed += u64::from(counts);
    }

    /// Looks whether a replica was within its bound before the request that has just entered, by
    /// arithmetic of its own.
    fn note_bound(&mut self, index: usize) {
        let Some(factor) = self.arm.bound else { return };
        let before = self.stations[index].replica.in_flight() - 1;
        let fair = (self.at_enabled as f64 + 1.0) / self.table.ready_count().max(1) as f64;
        // A hair more, for what the arithmetic rounds.
        self.beyond_bound += u64::from(before as f64 >= (factor * fair).ceil() + 1e-9);
    }

    fn begin(&mut self, station: usize, job: Job) {
        let (at, number) = (self.now + job.service, self.tally.arrived + self.tally.done);
        self.completions.push(Reverse(Completion { at, number, station, job }));
    }

    /// The next request is done; the one behind it begins.
    fn complete(&mut self) {
        let Some(Reverse(Completion { at, station: index, job, .. })) = self.completions.pop()
        else {
            return;
        };
        self.pass(at);
        let took = at.saturating_sub(job.arrived);
        self.tally.done += 1;
        self.tally.sojourn += took.as_secs_f64();
        if self.system.window.holds(job.arrived) {
            self.latencies.record(took + self.system.path);
        }
        self.answered += u64::from(self.system.window.holds(at + self.system.path));
        drop(job);
        let station = &mut self.stations[index];
        self.at_enabled -= usize::from(station.is_enabled);
        match station.waiting.pop_front() {
            Some(next) => self.begin(index, next),
            None => station.busy -= 1,
        }
    }

    /// The requests in flight at each replica, compared with what came and what went.
    fn audit(&mut self) -> Vec<usize> {
        let in_flight: Vec<usize> =
            self.stations.iter().map(|station| station.replica.in_flight()).collect();
        let inside = in_flight.iter().sum::<usize>() as u64;
        let is_sound = inside == self.inside()
            && inside == self.pool.in_flight() as u64
            && self.at_enabled == self.table.load().in_flight;
        self.astray += u64::from(!is_sound);
        in_flight
    }

    fn look(&mut self, at: Duration) {
        let in_flight = self.audit();
        let enabled = self.table.ready_count();
        self.looks.push(Look::of(at, &in_flight, self.system.workers, enabled));
    }

    /// The controller decides, and it is done at once.
    fn control(&mut self) {
        let node = |(node, station): (usize, &Station)| NodeLoad {
            node,
            enabled: station.is_enabled,
            queued: station.replica.in_flight(),
        };
        let nodes: Vec<NodeLoad<usize>> = self.stations.iter().enumerate().map(node).collect();
        let config = self.system.controller.config;
        let actions = decide(&nodes, &config);
        if actions.is_empty() {
            return;
        }
        for action in actions {
            self.stations[action.node].is_enabled = action.enable;
        }
        let enabled = self.stations.iter().filter(|station| station.is_enabled);
        self.at_enabled = enabled.map(|station| station.replica.in_flight()).sum();
        self.table = table_of(&self.pool, &self.placement, &self.stations);
        let least = config.min_ready.min(self.stations.len());
        self.below_minimum += u64::from(self.table.ready_count() < least);
    }

    fn outcome(self) -> (Outcome, Tally) {
        let mut problems = Problems::new();
        let mut note = |count: u64, what: &str| {
            if count > 0 {
                problems.push(format!("{}: {what} ({count} times)", self.arm.name()));
            }
        };
        note(self.inside(), "requests neither done nor refused");
        note(self.astray, "requests in flight that did not come, or are counted twice");
        note(self.beyond_bound, "a replica took a request beyond its bound");
        note(self.below_minimum, "the controller left fewer than the minimum");
        let outcome = Outcome {
            requests: self.requests,
            failed: self.failed,
            moved: self.moved,
            latency: self.latencies.percentiles(),
            throughput: self.answered as f64 / self.system.window.counted.as_secs_f64(),
            looks: self.looks,
            window: self.system.window,
            problems,
        };
        (outcome, self.tally)
    }
}

/// A table of the replicas that are enabled; the others rest.
fn table_of(pool: &Arc<Pool>, placement: &Arc<Placement>, stations: &[Station]) -> Table {
    let replicas = |is_enabled: bool| {
        let wanted = stations.iter().filter(move |station| station.is_enabled == is_enabled);
        wanted.map(|station| Arc::clone(&station.replica))
    };
    Table::new(pool, Arc::clone(placement), replicas(true), replicas(false).collect(), Vec::new())
}

#[cfg(test)]
mod tests;
