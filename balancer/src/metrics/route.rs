//! The requests of one route.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use foldhash::HashMap;

use super::attempts::{Attempts, Replicas, is_gone};
use super::code::{CODES, Code};
use super::count::Count;
use crate::routing::table::{Replica, ReplicaId};

/// Upper bounds of the histogram of durations, in nanoseconds: Envoy's from half a millisecond to
/// half a minute, with Prometheus's own between.
pub const BOUNDS: [u64; 15] = [
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
];

/// One for what is beyond the last bound.
pub(super) const BUCKETS: usize = BOUNDS.len() + 1;

/// What is counted of a route, by all of its workers.
#[derive(Debug)]
pub struct RouteMetrics {
    name: String,
    shards: Mutex<Vec<Arc<Numbers>>>,
    replicas: Mutex<Replicas>,
}

/// What one worker counts of a route. It is not `Sync`: nobody else writes into it.
#[derive(Debug)]
pub struct RouteShard {
    route: Arc<RouteMetrics>,
    numbers: Arc<Numbers>,
    attempts: RefCell<HashMap<ReplicaId, Met>>,
}

/// A replica that a worker has met.
#[derive(Debug)]
struct Met {
    replica: Arc<Replica>,
    attempts: Arc<Attempts>,
}

/// A request under way, until dropped. One that was not [`answered`](Tally::answered) by then
/// counts as one without an answer.
#[derive(Debug)]
pub struct Tally<'a> {
    shard: &'a RouteShard,
    began: Instant,
    status: Option<u16>,
}

/// What has been counted of a route, in all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteSum {
    /// Requests that have ended, by [`Code`].
    pub ended: [u64; CODES],
    /// Requests under way.
    pub in_flight: u64,
    /// Answers by how long they took, one for each of the histogram's buckets.
    pub buckets: [u64; BUCKETS],
    /// How long all of them took.
    pub took: Duration,
    /// Requests sent to a further replica after a failure.
    pub retries: u64,
    /// Requests sent to an ejected or failing replica because no ready one could answer.
    pub last_resort: u64,
    /// Requests sent to a second replica because the first was slow.
    pub hedges: u64,
    /// Those of them where the second answered first.
    pub hedges_won: u64,
    /// Attempts of `send = all | first` that went well.
    pub fan_successes: u64,
    /// Those that did not.
    pub fan_failures: u64,
}

/// Alone on its cache lines: other workers write into theirs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Numbers {
    begun: Count,
    ended: [Count; CODES],
    buckets: [Count; BUCKETS],
    /// Nanoseconds would be too many some day.
    microseconds: Count,
    retries: Count,
    last_resort: Count,
    hedges: Count,
    hedges_won: Count,
    fan_successes: Count,
    fan_failures: Count,
}

// === impl RouteSum ===

impl RouteSum {
    /// Requests that have ended so.
    pub fn ended(&self, code: Code) -> u64 {
        self.ended[code.index()]
    }
}

// === impl RouteMetrics ===

impl RouteMetrics {
    /// Nothing has been counted.
    pub(super) fn new(name: &str) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            shards: Mutex::default(),
            replicas: Mutex::default(),
        })
    }

    /// The route's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A shard for one more worker. What it counted is kept when it is dropped.
    pub fn shard(self: &Arc<Self>) -> RouteShard {
        let numbers = Arc::<Numbers>::default();
        self.shards.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&numbers));
        RouteShard { route: Arc::clone(self), numbers, attempts: RefCell::default() }
    }

    /// What all workers have counted.
    pub fn sum(&self) -> RouteSum {
        let shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sum = RouteSum::default();
        for shard in shards.iter() {
            shard.add_to(&mut sum);
        }
        sum
    }

    /// What is kept of each replica.
    pub(super) fn replicas(&self) -> MutexGuard<'_, Replicas> {
        // Counts are right whatever panicked meanwhile.
        self.replicas.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl RouteShard ===

impl RouteShard {
    /// A request whose head was whole at `began`.
    pub fn begin(&self, began: Instant) -> Tally<'_> {
        self.numbers.begun.add(1);
        Tally { shard: self, began, status: None }
    }

    /// A request at a replica has ended so.
    pub fn attempt(&self, replica: &Arc<Replica>, code: Code) {
        self.at(replica, |attempts| attempts.ended[code.index()].add(1));
    }

    /// One of several requests of `send = all | first` has ended.
    pub fn fan_attempt(&self, replica: &Arc<Replica>, success: bool) {
        let numbers = &self.numbers;
        let total = if success { &numbers.fan_successes } else { &numbers.fan_failures };
        total.add(1);
        self.at(replica, |attempts| {
            let own = if success { &attempts.fan_successes } else { &attempts.fan_failures };
            own.add(1);
        });
    }

    /// A request is sent to a further replica after a failure.
    pub fn retry(&self) {
        self.numbers.retries.add(1);
    }

    /// Counts a request that is sent to an ejected or failing replica as a last resort.
    pub fn last_resort(&self) {
        self.numbers.last_resort.add(1);
    }

    /// A request is sent to a second replica because the first is slow.
    pub fn hedge(&self) {
        self.numbers.hedges.add(1);
    }

    /// The second replica has answered first.
    pub fn hedge_won(&self) {
        self.numbers.hedges_won.add(1);
    }

    /// Lets go of replicas that have left. To be called now and then.
    pub fn sweep(&self) {
        self.attempts.borrow_mut().retain(|_, met| !is_gone(&met.replica));
    }

    /// Only the first time that a worker meets a replica there is a lock.
    fn at(&self, replica: &Arc<Replica>, count: impl FnOnce(&Attempts)) {
        let mut met = self.attempts.borrow_mut();
        let met = met.entry(replica.id()).or_insert_with(|| Met {
            replica: Arc::clone(replica),
            attempts: self.route.replicas().join(replica, Instant::now()),
        });
        count(&met.attempts);
    }

    fn end(&self, status: Option<u16>, began: Instant) {
        let code = status.map_or(Code::None, Code::of);
        // How long a tunnel stood says nothing about answers.
        if !matches!(code, Code::None | Code::Informational) {
            self.numbers.took(began.elapsed());
        }
        self.numbers.ended[code.index()].add(1);
    }
}

// === impl Tally ===

impl Tally<'_> {
    /// When the request's head was whole.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// The client has the whole answer.
    pub fn answered(mut self, status: u16) {
        self.status = Some(status);
    }
}

impl Drop for Tally<'_> {
    fn drop(&mut self) {
        self.shard.end(self.status, self.began);
    }
}

// === impl Numbers ===

impl Numbers {
    fn took(&self, duration: Duration) {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[BOUNDS.partition_point(|bound| *bound < nanoseconds)].add(1);
        self.microseconds.add(nanoseconds / 1_000);
    }

    fn add_to(&self, sum: &mut RouteSum) {
        let mut ended = 0;
        for (to, from) in sum.ended.iter_mut().zip(&self.ended) {
            ended += from.get();
            *to += from.get();
        }
        // One may have ended between the two looks.
        sum.in_flight += self.begun.get().saturating_sub(ended);
        for (to, from) in sum.buckets.iter_mut().zip(&self.buckets) {
            *to += from.get();
        }
        sum.took += Duration::from_micros(self.microseconds.get());
        sum.retries += self.retries.get();
        sum.last_resort += self.last_resort.get();
        sum.hedges += self.hedges.get();
        sum.hedges_won += self.hedges_won.get();
        sum.fan_successes += self.fan_successes.get();
        sum.fan_failures += self.fan_failures.get();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_summed_also_those_whose_worker_has_ended() {
        let route = RouteMetrics::new("default");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let shard = route.shard();
                    for status in [200, 201, 302, 404, 503] {
                        shard.begin(Instant::now()).answered(status);
                    }
                    shard.retry();
                    shard.hedge();
                    shard.hedge();
                    shard.hedge_won();
                });
            }
        });
        let sum = route.sum();
        assert_eq!(sum.ended, [0, 8, 4, 4, 4, 0, 0]);
        assert_eq!((sum.in_flight, sum.retries, sum.hedges, sum.hedges_won), (0, 4, 8, 4));
        assert_eq!(sum.buckets.iter().sum::<u64>(), 20);
    }

    #[test]
    fn a_request_is_in_flight_until_its_tally_is_dropped() {
        let route = RouteMetrics::new("default");
        let shard = route.shard();
        let (first, second) = (shard.begin(Instant::now()), shard.begin(Instant::now()));
        assert_eq!(route.sum().in_flight, 2);
        first.answered(200);
        assert_eq!(route.sum().in_flight, 1);
        drop(second);
        let sum = route.sum();
        assert_eq!(sum.in_flight, 0);
        assert_eq!(sum.ended[Code::None.index()], 1, "nobody answered the second");
        assert_eq!(sum.buckets.iter().sum::<u64>(), 1, "and it took no time to be told of");
    }

    #[test]
    fn a_duration_falls_below_the_smallest_bound_that_is_not_less() {
        let numbers = Numbers::default();
        for nanoseconds in [0, 500_000, 500_001, 30_000_000_000, 30_000_000_001] {
            numbers.took(Duration::from_nanos(nanoseconds));
        }
        let mut sum = RouteSum::default();
        numbers.add_to(&mut sum);
        assert_eq!(sum.buckets[..2], [2, 1]);
        assert_eq!(sum.buckets[BUCKETS - 2..], [1, 1]);
        assert_eq!(sum.took, Duration::from_micros(60_001_000));
    }

    #[test]
    fn a_tunnel_is_counted_but_its_time_is_not() {
        let route = RouteMetrics::new("default");
        route.shard().begin(Instant::now()).answered(101);
        let sum = route.sum();
        assert_eq!(sum.ended[Code::Informational.index()], 1);
        assert_eq!(sum.buckets.iter().sum::<u64>(), 0);
    }
}
