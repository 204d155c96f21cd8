//! Requests at replicas: one for each try.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::code::{CODES, Code};
use super::count::Count;
use crate::fleet::seat::Hostname;
use crate::routing::table::Replica;

/// How long a replica that has left is still told of, so that its last failures are seen: twice
/// the longest time that Prometheus commonly leaves between two looks.
const TOLD_AFTER: Duration = Duration::from_secs(120);

/// How often it is looked who is gone, at most, where workers meet replicas: it takes a look at all of
/// them, and a fleet of thousands is met within moments.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What one worker counts of one replica.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    pub(super) ended: [Count; CODES],
    pub(super) fan_successes: Count,
    pub(super) fan_failures: Count,
}

/// What has been counted of one replica, in all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttemptSum {
    /// Attempts that have ended, by [`Code`].
    pub ended: [u64; CODES],
    /// Attempts of `send = all | first` that went well.
    pub fan_successes: u64,
    /// Those that did not.
    pub fan_failures: u64,
}

/// The replicas of a route: those of the fleet, and those that left it a moment ago.
#[derive(Debug, Default)]
pub(super) struct Replicas {
    known: BTreeMap<Hostname, Known>,
    /// When it was last looked who is gone.
    looked: Option<Instant>,
}

#[derive(Debug)]
struct Known {
    /// The last one that had this name.
    replica: Arc<Replica>,
    /// What workers still count.
    parts: Vec<Arc<Attempts>>,
    /// What is counted no more.
    done: AttemptSum,
    gone_since: Option<Instant>,
}

/// Whether a replica has left the fleet.
pub(super) fn is_gone(replica: &Replica) -> bool {
    replica.is_dead() || (replica.is_closed() && replica.in_flight() == 0)
}

// === impl AttemptSum ===

impl AttemptSum {
    /// Attempts that have ended so.
    pub fn ended(&self, code: Code) -> u64 {
        self.ended[code.index()]
    }
}

// === impl Replicas ===

impl Replicas {
    /// A worker counts a replica's attempts from now on.
    pub(super) fn join(&mut self, replica: &Arc<Replica>, now: Instant) -> Arc<Attempts> {
        if self.looked.is_none_or(|last| now.saturating_duration_since(last) >= LOOK_EVERY) {
            self.forget(now);
        }
        let attempts = Arc::<Attempts>::default();
        let known = self.known.entry(replica.hostname().clone()).or_insert_with(|| Known {
            replica: Arc::clone(replica),
            parts: Vec::new(),
            done: AttemptSum::default(),
            gone_since: None,
        });
        if known.replica.id() < replica.id() {
            known.replica = Arc::clone(replica);
            known.gone_since = None;
        }
        known.fold();
        known.parts.push(Arc::clone(&attempts));
        attempts
    }

    /// Forgets those that have been gone for long enough.
    pub(super) fn forget(&mut self, now: Instant) {
        self.looked = Some(now);
        self.known.retain(|_, known| {
            if !is_gone(&known.replica) {
                known.gone_since = None;
                return true;
            }
            let since = *known.gone_since.get_or_insert(now);
            now.saturating_duration_since(since) < TOLD_AFTER
        });
    }

    /// Each with what was counted.
    pub(super) fn sums(&self) -> impl Iterator<Item = (&Hostname, SocketAddr, AttemptSum)> {
        self.known.iter().map(|(hostname, known)| (hostname, known.replica.address(), known.sum()))
    }
}

// === impl Known ===

impl Known {
    /// Keeps only the sum of parts that no worker has any more.
    fn fold(&mut self) {
        let done = &mut self.done;
        self.parts.retain(|part| {
            let used = Arc::strong_count(part) > 1;
            if !used {
                part.add_to(done);
            }
            used
        });
    }

    fn sum(&self) -> AttemptSum {
        let mut sum = self.done.clone();
        for part in &self.parts {
            part.add_to(&mut sum);
        }
        sum
    }
}

// === impl Attempts ===

impl Attempts {
    fn add_to(&self, sum: &mut AttemptSum) {
        for (to, from) in sum.ended.iter_mut().zip(&self.ended) {
            *to += from.get();
        }
        sum.fan_successes += self.fan_successes.get();
        sum.fan_failures += self.fan_failures.get();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::seat::{MemberId, Seat};
    use crate::metrics::Metrics;
    use crate::routing::table::ReplicaId;

    fn replica(id: u64, name: &str) -> Arc<Replica> {
        let seat = Seat::new(1).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], 8_000 + u16::try_from(id).unwrap()));
        let hostname = Hostname::parse(name).unwrap();
        let (id, seat) = (ReplicaId(id), MemberId::Seat(seat));
        Arc::new(Replica::new(id, hostname, seat, address, &Arc::default()))
    }

    fn sums(replicas: &Replicas) -> Vec<(String, u64)> {
        let all = replicas.sums();
        all.map(|(name, _, sum)| (name.to_string(), sum.ended.iter().sum())).collect()
    }

    #[test]
    fn attempts_of_all_workers_are_summed_by_replica_and_code() {
        let route = Metrics::new().route("default");
        let (first, second) = (replica(1, "S1"), replica(2, "S2"));
        let workers = [route.shard(), route.shard()];
        for worker in &workers {
            worker.attempt(&first, Code::Success);
            worker.attempt(&first, Code::Error);
            worker.attempt(&second, Code::ServerError);
        }
        let replicas = route.replicas();
        let all: Vec<_> = replicas.sums().collect();
        assert_eq!(all[0].2.ended, [0, 2, 0, 0, 0, 2, 0]);
        assert_eq!(all[1].2.ended, [0, 0, 0, 0, 2, 0, 0]);
    }

    #[test]
    fn a_replica_that_left_is_told_of_for_a_while_and_then_forgotten() {
        let route = Metrics::new().route("default");
        let (stays, dies, leaves) = (replica(1, "S1"), replica(2, "S2"), replica(3, "S3"));
        let worker = route.shard();
        for replica in [&stays, &dies, &leaves] {
            worker.attempt(replica, Code::Success);
        }
        dies.give_up();
        leaves.close(|| ());
        let now = Instant::now();
        let mut replicas = route.replicas();
        replicas.forget(now);
        assert_eq!(sums(&replicas).len(), 3);
        replicas.forget(now + TOLD_AFTER);
        assert_eq!(sums(&replicas), [("S1".to_owned(), 1)]);
    }

    #[test]
    fn what_a_worker_let_go_of_is_kept_while_the_replica_has_its_name() {
        let route = Metrics::new().route("default");
        let worker = route.shard();
        for id in 1..=100 {
            let awake = replica(id, "S1");
            worker.attempt(&awake, Code::Success);
            worker.attempt(&awake, Code::Success);
            awake.give_up();
            worker.sweep();
        }
        let replicas = route.replicas();
        assert_eq!(sums(&replicas), [("S1".to_owned(), 200)]);
        assert!(replicas.known.values().all(|known| known.parts.len() == 1), "{replicas:?}");
    }

    #[test]
    fn meeting_many_at_once_is_one_look_at_who_is_gone() {
        let (gone, now) = (replica(1, "S1"), Instant::now());
        let mut replicas = Replicas::default();
        replicas.join(&gone, now);
        gone.give_up();
        for id in 2..10 {
            replicas.join(&replica(id, &format!("S{id}")), now + LOOK_EVERY / 2);
        }
        let is_noticed = |replicas: &Replicas| replicas.known[gone.hostname()].gone_since.is_some();
        assert!(!is_noticed(&replicas));
        replicas.join(&replica(10, "S10"), now + LOOK_EVERY);
        assert!(is_noticed(&replicas));
    }

    #[test]
    fn a_fleet_that_changes_for_ever_does_not_grow() {
        let route = Metrics::new().route("default");
        let worker = route.shard();
        let mut now = Instant::now();
        let mut replicas = Replicas::default();
        for id in 1..=1_000 {
            let passing = replica(id, &format!("S{id}"));
            worker.attempt(&passing, Code::Success);
            replicas.join(&passing, now);
            passing.give_up();
            worker.sweep();
            now += TOLD_AFTER / 10;
        }
        assert!(replicas.known.len() <= 12, "{}", replicas.known.len());
    }

    #[test]
    fn attempts_of_a_fan_are_counted_by_replica_and_in_all() {
        let route = Metrics::new().route("default");
        let (first, second) = (replica(1, "S1"), replica(2, "S2"));
        let worker = route.shard();
        worker.fan_attempt(&first, true);
        worker.fan_attempt(&first, true);
        worker.fan_attempt(&second, false);
        let sum = route.sum();
        assert_eq!((sum.fan_successes, sum.fan_failures), (2, 1));
        let replicas = route.replicas();
        let told = |(_, address, sum): (_, SocketAddr, AttemptSum)| {
            (address.port(), sum.fan_successes, sum.fan_failures)
        };
        assert_eq!(replicas.sums().map(told).collect::<Vec<_>>(), [(8_001, 2, 0), (8_002, 0, 1)]);
    }
}
