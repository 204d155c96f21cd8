//! What is counted for Prometheus. A request pays no lock for it: each worker counts into shards
//! of its own, and they are summed when somebody asks.
//!
//! | module | what it does |
//! |---|---|
//! | `route` | requests of a route: a shard a worker, their sum |
//! | `shards` | all shards of one worker |
//! | `attempts` | the same requests at replicas |
//! | `code` | how both end |
//! | [`process`] | what the kernel says of this process |
//! | [`text`] | the two text formats |

mod attempts;
mod code;
mod count;
pub mod process;
mod route;
mod shards;
pub mod text;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::fleet::seat::Hostname;
use crate::routing::placement::Placement;
pub use attempts::AttemptSum;
pub use code::Code;
pub use route::{BOUNDS, RouteMetrics, RouteShard, RouteSum, Tally};
pub use shards::Shards;

/// See the module.
#[derive(Debug)]
pub struct Metrics {
    since: Instant,
    routes: Mutex<BTreeMap<String, Arc<RouteMetrics>>>,
    connections: AtomicUsize,
    accepted: AtomicU64,
    /// Requests that found no place in the line, and those that waited in vain.
    turned_away: [AtomicU64; 2],
    /// Requests that were not sent because they had killed replicas.
    quarantined: AtomicU64,
    deliveries: AtomicUsize,
    drawn: Mutex<Drawn>,
    moves: Mutex<RingMoves>,
}

/// What moved whenever a placement followed another, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RingMoves {
    /// How often one did.
    pub changes: u64,
    /// Shares of the key space that went to another owner.
    pub share: f64,
    /// The part of them that no change of the members asked for.
    pub needless: f64,
}

/// What is worked out once for each placement.
#[derive(Clone, Debug, Default)]
struct Drawn {
    of: Weak<Placement>,
    shares: Arc<[f64]>,
    fingerprint: u64,
}

/// A client's connection, until dropped.
#[derive(Debug)]
pub struct Connected(Arc<Metrics>);

/// A request to several replicas in progress, until dropped.
#[derive(Debug)]
pub struct Delivering(Arc<Metrics>);

/// What has been counted of a replica on one route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaSum {
    /// The route's name.
    pub route: String,
    /// The replica's name.
    pub hostname: Hostname,
    /// Where it listens.
    pub address: SocketAddr,
    /// What was counted.
    pub attempts: AttemptSum,
}

// === impl Metrics ===

impl Metrics {
    /// Nothing has been counted.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            since: Instant::now(),
            routes: Mutex::default(),
            connections: AtomicUsize::new(0),
            accepted: AtomicU64::new(0),
            turned_away: Default::default(),
            quarantined: AtomicU64::new(0),
            deliveries: AtomicUsize::new(0),
            drawn: Mutex::default(),
            moves: Mutex::default(),
        })
    }

    /// The route of this name, made if it is new. Names come from the configuration, never from a
    /// client: each is kept for good.
    pub fn route(&self, name: &str) -> Arc<RouteMetrics> {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let route = routes.entry(name.to_owned()).or_insert_with(|| RouteMetrics::new(name));
        Arc::clone(route)
    }

    /// Counts a client's connection in.
    pub fn connected(self: &Arc<Self>) -> Connected {
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.accepted.fetch_add(1, Ordering::Relaxed);
        Connected(Arc::clone(self))
    }

    /// Connections of clients: now, and since the start.
    pub fn connections(&self) -> (usize, u64) {
        (self.connections.load(Ordering::Relaxed), self.accepted.load(Ordering::Relaxed))
    }

    /// Counts a request that was not let in: at once, or after it `waited`.
    pub fn turned_away(&self, waited: bool) {
        self.turned_away[usize::from(waited)].fetch_add(1, Ordering::Relaxed);
    }

    /// Requests that were not let in: at once, and after they had waited.
    pub fn all_turned_away(&self) -> [u64; 2] {
        self.turned_away.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    /// Counts a request that was not sent because it had killed replicas.
    pub fn quarantined(&self) {
        self.quarantined.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the number of requests that were not sent because they had killed replicas.
    pub fn all_quarantined(&self) -> u64 {
        self.quarantined.load(Ordering::Relaxed)
    }

    /// Counts a request to several replicas in, unless `most` are in progress.
    pub fn delivering(self: &Arc<Self>, most: usize) -> Option<Delivering> {
        // Dropped, it leaves again.
        let delivering = Delivering(Arc::clone(self));
        let before = self.deliveries.fetch_add(1, Ordering::SeqCst);
        (before < most).then_some(delivering)
    }

    /// Returns the number of requests to several replicas in progress.
    pub fn deliveries(&self) -> usize {
        self.deliveries.load(Ordering::SeqCst)
    }

    /// How long the balancer has been up.
    pub fn uptime(&self) -> Duration {
        self.since.elapsed()
    }

    /// Every route with its requests, by name.
    pub fn routes(&self) -> Vec<(String, RouteSum)> {
        self.all().iter().map(|route| (route.name().to_owned(), route.sum())).collect()
    }

    /// Every replica of the fleet, and those that have left it a moment ago, on every route.
    pub fn replicas(&self) -> Vec<ReplicaSum> {
        let now = Instant::now();
        let mut sums = Vec::new();
        for route in self.all() {
            let mut replicas = route.replicas();
            replicas.forget(now);
            sums.extend(replicas.sums().map(|(hostname, address, attempts)| ReplicaSum {
                route: route.name().to_owned(),
                hostname: hostname.clone(),
                address,
                attempts,
            }));
        }
        sums
    }

    /// [`Placement::shares`], worked out once for each placement.
    pub fn shares(&self, placement: &Arc<Placement>) -> Arc<[f64]> {
        self.drawn(placement).shares
    }

    /// [`Placement::fingerprint`], worked out once for each placement.
    pub fn fingerprint(&self, placement: &Arc<Placement>) -> u64 {
        self.drawn(placement).fingerprint
    }

    /// Counts what moves when `after` follows `before`. Where either has no members nothing does: no
    /// key had an owner, or has one.
    pub fn placed_anew(&self, before: &Placement, after: &Placement) {
        if before.members().is_empty() || after.members().is_empty() {
            return;
        }
        let moved = before.moved(after);
        let mut moves = self.moves.lock().unwrap_or_else(PoisonError::into_inner);
        moves.changes += 1;
        moves.share += moved.share;
        moves.needless += moved.needless;
    }

    /// All that has moved.
    pub fn ring_moves(&self) -> RingMoves {
        *self.moves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn drawn(&self, placement: &Arc<Placement>) -> Drawn {
        let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        let this = Arc::downgrade(placement);
        if !drawn.of.ptr_eq(&this) {
            let (shares, fingerprint) = (placement.shares().into(), placement.fingerprint());
            *drawn = Drawn { of: this, shares, fingerprint };
        }
        drawn.clone()
    }

    fn all(&self) -> Vec<Arc<RouteMetrics>> {
        let routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        routes.values().cloned().collect()
    }
}

// === impl Connected ===

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

// === impl Delivering ===

impl Drop for Delivering {
    fn drop(&mut self) {
        self.0.deliveries.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::seat::{MemberId, Seat};
    use crate::routing::placement::{Member, PlacementConfig, RingConfig};

    #[test]
    fn a_route_is_made_once() {
        let metrics = Metrics::new();
        let (first, again) = (metrics.route("a"), metrics.route("a"));
        assert!(Arc::ptr_eq(&first, &again));
        metrics.route("b").shard().begin(Instant::now()).answered(200);
        let names: Vec<String> = metrics.routes().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["a", "b"]);
    }

    #[test]
    fn what_moves_is_added_up_over_changes_of_members() {
        let placed = |seats: &[u32]| {
            let seats = seats.iter().filter_map(|seat| Seat::new(*seat)).map(MemberId::Seat);
            let members: Vec<Member> = seats.map(|seat| Member::new(seat, 1)).collect();
            Placement::build(&PlacementConfig::Ring(RingConfig::default()), &members).unwrap()
        };
        let metrics = Metrics::new();
        let (none, two, three) = (placed(&[]), placed(&[1, 2]), placed(&[1, 2, 3]));
        for (before, after) in [(&none, &two), (&two, &three), (&three, &two), (&two, &none)] {
            metrics.placed_anew(before, after);
        }
        let RingMoves { changes, share, needless } = metrics.ring_moves();
        assert_eq!((changes, needless), (2, 0.0));
        assert!((share - 2.0 * three.shares()[2]).abs() < 1e-9, "{share}");
    }

    #[test]
    fn no_more_deliveries_are_let_in_than_allowed() {
        let metrics = Metrics::new();
        let (first, second) = (metrics.delivering(2), metrics.delivering(2));
        assert!(first.is_some() && second.is_some() && metrics.delivering(2).is_none());
        assert_eq!(metrics.deliveries(), 2);
        drop(first);
        assert!(metrics.delivering(2).is_some());
        assert_eq!(metrics.deliveries(), 1);
    }

    #[test]
    fn connections_are_counted_while_they_stand() {
        let metrics = Metrics::new();
        let (first, _second) = (metrics.connected(), metrics.connected());
        assert_eq!(metrics.connections(), (2, 2));
        drop(first);
        assert_eq!(metrics.connections(), (1, 2));
    }

    #[test]
    fn shares_are_those_of_the_placement_and_worked_out_once() {
        let metrics = Metrics::new();
        let placement = |seats: u32| {
            let member = |seat| Member::new(MemberId::Seat(seat), 1);
            let members: Vec<Member> = (1..=seats).filter_map(Seat::new).map(member).collect();
            let config = PlacementConfig::Ring(RingConfig::default());
            Arc::new(Placement::build(&config, &members).unwrap())
        };
        let (three, five) = (placement(3), placement(5));
        let first = metrics.shares(&three);
        assert_eq!(*first, *three.shares());
        assert!(Arc::ptr_eq(&first, &metrics.shares(&three)));
        assert_eq!(metrics.shares(&five).len(), 5);
        assert_eq!(metrics.shares(&three).len(), 3);
        assert_eq!(metrics.fingerprint(&three), three.fingerprint());
        assert_ne!(metrics.fingerprint(&five), three.fingerprint());
    }
}
