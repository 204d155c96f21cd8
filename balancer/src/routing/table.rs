//! The table: the immutable snapshot that a request sees. Swapped whole by its one writer.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use super::adaptive::Aimd;
use super::bounded::Load;
use super::placement::{Member, Placement};
use super::pool::Pool;
use super::turns::Turns;
use crate::fleet::seat::{Hostname, MemberId};

/// Tells replicas apart, also those that had the same hostname or address after one another: what
/// is kept for a replica (connections above all) is kept under this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaId(pub u64);

/// A running replica as the request path knows it.
pub struct Replica {
    id: ReplicaId,
    hostname: Hostname,
    member: MemberId,
    address: SocketAddr,
    pool: Arc<Pool>,
    in_flight: AtomicUsize,
    aimd: Aimd,
    /// Failures of real requests since the last that went well.
    failures: AtomicU32,
    unreachable: AtomicBool,
    /// It refused a connection since its last loss (see `quarantine`).
    refused: AtomicBool,
    closed: AtomicBool,
    dead: AtomicBool,
    /// It is given up because it does not respond, not because it ended.
    frozen: AtomicBool,
    on_idle: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

/// One request in flight at a replica, until dropped.
#[derive(Debug)]
pub struct InFlight(Arc<Replica>);

/// How much may be in flight for one request more to be let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Most {
    /// At the replica.
    pub at_replica: usize,
    /// At all of them.
    pub in_all: usize,
}

/// Why a request is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoEntry {
    /// The replica lets nobody in any more.
    Closed,
    /// There is no room now.
    Full,
}

/// Placement, replicas, and who is ready.
#[derive(Debug)]
pub struct Table {
    placement: Arc<Placement>,
    /// By index of member: the ready replica, if there is one.
    ready: Vec<Option<Arc<Replica>>>,
    /// By index of member: the replica that can be asked whether or not it is ready.
    running: Vec<Option<Arc<Replica>>>,
    /// The members that have one, ascending.
    serving: Vec<u32>,
    /// Made when the first request asks for it.
    turns: OnceLock<Turns>,
    listing: Vec<Hostname>,
    pool: Arc<Pool>,
    /// By index of member: the replica that runs and was ready, but is ejected or fails its health
    /// checks, where the member has no ready one. Empty where there is none at all.
    standby: Vec<Option<Arc<Replica>>>,
    /// Replicas that take no new requests, and may have old ones.
    resting: Vec<Arc<Replica>>,
    /// The shares of those that are ready.
    share: u64,
}

// === impl Most ===

impl Most {
    /// No limit.
    pub const ANY: Self = Self { at_replica: usize::MAX, in_all: usize::MAX };
}

// === impl Replica ===

impl Replica {
    /// A replica that takes requests, one of `pool`.
    pub fn new(
        id: ReplicaId,
        hostname: Hostname,
        member: MemberId,
        address: SocketAddr,
        pool: &Arc<Pool>,
    ) -> Self {
        Self {
            id,
            hostname,
            member,
            address,
            pool: Arc::clone(pool),
            in_flight: AtomicUsize::new(0),
            aimd: Aimd::default(),
            failures: AtomicU32::new(0),
            unreachable: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            dead: AtomicBool::new(false),
            frozen: AtomicBool::new(false),
            on_idle: OnceLock::new(),
        }
    }

    /// Its identity.
    pub fn id(&self) -> ReplicaId {
        self.id
    }

    /// Its name.
    pub fn hostname(&self) -> &Hostname {
        &self.hostname
    }

    /// Its place on the ring.
    pub fn member(&self) -> MemberId {
        self.member
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Requests in flight now.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Counts a request in. `None` once [`close`](Self::close) was called: a request that still
    /// holds an old table cannot reach a replica that is about to be stopped.
    pub fn enter(self: &Arc<Self>) -> Option<InFlight> {
        self.enter_within(Most::ANY).ok()
    }

    /// The same, where there is room for it: never more are in flight than `most` says.
    ///
    /// # Errors
    /// [`NoEntry`].
    pub fn enter_within(self: &Arc<Self>, most: Most) -> Result<InFlight, NoEntry> {
        // Either this addition is seen by `close`, or `closed` is seen here: both are SeqCst.
        let here = self.in_flight.fetch_add(1, Ordering::SeqCst);
        let everywhere = self.pool.enter();
        // Dropped, it leaves again.
        let guard = InFlight(Arc::clone(self));
        if self.closed.load(Ordering::SeqCst) {
            return Err(NoEntry::Closed);
        }
        let full = here >= most.at_replica || everywhere >= most.in_all;
        if full { Err(NoEntry::Full) } else { Ok(guard) }
    }

    /// Whether there is room for one request more.
    pub fn has_room(&self, most: Most) -> bool {
        let here = self.in_flight.load(Ordering::SeqCst);
        here < most.at_replica && self.pool.in_flight() < most.in_all
    }

    /// What its latency says about how many may be in flight.
    pub fn aimd(&self) -> &Aimd {
        &self.aimd
    }

    /// Lets nobody in any more, and calls `on_idle` when the last request has left: at least once,
    /// at once where there is none. A second call changes nothing.
    pub fn close(&self, on_idle: impl Fn() + Send + Sync + 'static) {
        if self.on_idle.set(Box::new(on_idle)).is_err() {
            return;
        }
        self.closed.store(true, Ordering::SeqCst);
        if self.in_flight.load(Ordering::SeqCst) == 0 {
            self.tell_idle();
        }
    }

    /// Whether it lets nobody in any more.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Tells requests that still hold an old table that there is nothing to wait for any more.
    pub fn give_up(&self) {
        self.dead.store(true, Ordering::Relaxed);
    }

    /// Whether it is known to be dead.
    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    /// Gives it up because it does not respond: it is frozen, or hangs and is replaced. If it ends, it
    /// is not for a request that it has.
    pub fn give_up_frozen(&self) {
        self.frozen.store(true, Ordering::Relaxed);
        self.give_up();
    }

    /// Reports whether it is known to have ended.
    pub fn has_ended(&self) -> bool {
        self.is_dead() && !self.frozen.load(Ordering::Relaxed)
    }

    /// Reports whether it was given up because it does not respond.
    pub fn is_given_up(&self) -> bool {
        self.is_dead() && self.frozen.load(Ordering::Relaxed)
    }

    /// A real request went well.
    pub fn went_well(&self) {
        // Most of the time there is nothing to write, and so nothing to share between threads.
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    /// A real request went wrong. Tells how many have in a row.
    pub fn went_wrong(&self) -> u32 {
        self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    /// Whether so many real requests in a row went wrong; then they are counted anew.
    pub fn has_failed(&self, consecutive: u32) -> bool {
        let failures = self.failures.load(Ordering::Relaxed);
        let many = consecutive > 0 && failures >= consecutive;
        if many {
            self.failures.store(0, Ordering::Relaxed);
        }
        many
    }

    /// It could not be connected to. Tells whether that is news.
    pub fn was_unreachable(&self) -> bool {
        !self.unreachable.swap(true, Ordering::Relaxed)
    }

    /// Whether it could not be connected to since the last call.
    pub fn take_unreachable(&self) -> bool {
        self.unreachable.load(Ordering::Relaxed) && self.unreachable.swap(false, Ordering::Relaxed)
    }

    /// Notes that it refused a connection: no process listens at its address.
    pub fn note_refused(&self) {
        self.refused.store(true, Ordering::Relaxed);
    }

    /// Reports whether it refused a connection since [`clear_refused`](Self::clear_refused).
    pub fn has_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    /// Forgets that it refused a connection.
    pub fn clear_refused(&self) {
        self.refused.store(false, Ordering::Relaxed);
    }

    fn tell_idle(&self) {
        if let Some(on_idle) = self.on_idle.get() {
            on_idle();
        }
    }
}

impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replica")
            .field("hostname", &self.hostname)
            .field("member", &self.member)
            .field("address", &self.address)
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

// === impl InFlight ===

impl Drop for InFlight {
    fn drop(&mut self) {
        let last = self.0.in_flight.fetch_sub(1, Ordering::SeqCst) == 1;
        self.0.pool.leave();
        if last && self.0.closed.load(Ordering::SeqCst) {
            self.0.tell_idle();
        }
    }
}

// === impl Table ===

impl Table {
    /// A table over `placement`. `ready` are the replicas of `pool` that take requests (those that
    /// are no member of the placement are left out), `resting` those that do not, but may have old
    /// ones, `listing` what `/rep` lists, in its order.
    pub fn new(
        pool: &Arc<Pool>,
        placement: Arc<Placement>,
        ready: impl IntoIterator<Item = Arc<Replica>>,
        resting: Vec<Arc<Replica>>,
        listing: Vec<Hostname>,
    ) -> Self {
        let mut by_member = vec![None; placement.members().len()];
        for replica in ready {
            let index = placement.members().binary_search_by_key(&replica.member, |m| m.id);
            if let Ok(index) = index {
                by_member[index] = Some(replica);
            }
        }
        let serving = (0..).zip(&by_member).filter(|(_, replica)| replica.is_some());
        let serving: Vec<u32> = serving.map(|(member, _)| member).collect();
        let share = serving.iter().map(|member| placement.members()[*member as usize].share());
        Self {
            share: share.sum(),
            running: by_member.clone(),
            placement,
            ready: by_member,
            serving,
            turns: OnceLock::new(),
            listing,
            pool: Arc::clone(pool),
            standby: Vec::new(),
            resting,
        }
    }

    /// Adds the replicas that are asked as a last resort, when no ready one can answer: those that
    /// run but are ejected or fail their health checks. Those of members with a ready replica are
    /// left out.
    #[must_use]
    pub fn with_standby(mut self, standby: impl IntoIterator<Item = Arc<Replica>>) -> Self {
        for replica in standby {
            let Some(index) = self.index_of(replica.member) else { continue };
            if self.ready[index].is_none() {
                self.standby.resize(self.ready.len(), None);
                self.standby[index] = Some(replica);
            }
        }
        self
    }

    /// Adds the replicas that run and can be asked although they do not serve: ejected ones above
    /// all. Those that are no member of the placement are left out.
    #[must_use]
    pub fn with_running(mut self, running: impl IntoIterator<Item = Arc<Replica>>) -> Self {
        for replica in running {
            if let Some(index) = self.index_of(replica.member) {
                self.running[index].get_or_insert(replica);
            }
        }
        self
    }

    /// Returns the index of a member of the placement.
    pub fn index_of(&self, member: MemberId) -> Option<usize> {
        self.placement.members().binary_search_by_key(&member, |member| member.id).ok()
    }

    /// Returns the replica of a member that can be asked, ready or not.
    pub fn running(&self, member: usize) -> Option<&Arc<Replica>> {
        self.running.get(member)?.as_ref()
    }

    /// What all replicas have together.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// What the ready replicas have together.
    pub fn load(&self) -> Load {
        let apart = self.resting.iter().chain(self.all_standby());
        let resting: usize = apart.map(|replica| replica.in_flight()).sum();
        Load { in_flight: self.pool.in_flight().saturating_sub(resting), share: self.share }
    }

    /// How the key space is divided.
    pub fn placement(&self) -> &Arc<Placement> {
        &self.placement
    }

    /// The ready replica of a member of the placement.
    pub fn ready(&self, member: usize) -> Option<&Arc<Replica>> {
        self.ready.get(member)?.as_ref()
    }

    /// A member's share of the requests, against others'.
    pub fn share_of(&self, member: usize) -> u64 {
        self.placement.members().get(member).map_or(0, Member::share)
    }

    /// All ready replicas, by member.
    pub fn all_ready(&self) -> impl Iterator<Item = &Arc<Replica>> {
        self.ready.iter().flatten()
    }

    /// Returns the replicas that are asked as a last resort, by member.
    pub fn all_standby(&self) -> impl Iterator<Item = &Arc<Replica>> {
        self.standby.iter().flatten()
    }

    /// Returns the replicas that are asked as a last resort, in the order of the owners of `key`.
    pub fn standby_of(&self, key: &[u8]) -> impl Iterator<Item = &Arc<Replica>> {
        // Look-ups of a placement may be expensive; mostly there is nothing to look for.
        let owners = (!self.standby.is_empty()).then(|| self.placement.owners(key));
        owners.into_iter().flatten().filter_map(|member| self.standby.get(member)?.as_ref())
    }

    /// How many replicas are ready.
    pub fn ready_count(&self) -> usize {
        self.serving.len()
    }

    /// One of the ready replicas, by its place among them, and its weight.
    pub fn nth_ready(&self, place: usize) -> Option<(&Arc<Replica>, u64)> {
        let member = *self.serving.get(place)? as usize;
        Some((self.ready(member)?, self.share_of(member)))
    }

    /// Who has which turn, of those that are ready.
    pub fn turns(&self) -> &Turns {
        self.turns.get_or_init(|| {
            let weights =
                (0..self.ready_count()).filter_map(|place| Some(self.nth_ready(place)?.1));
            Turns::new(&weights.collect::<Vec<_>>())
        })
    }

    /// The replicas that run, in the order in which they joined.
    pub fn listing(&self) -> &[Hostname] {
        &self.listing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::seat::Seat;
    use crate::routing::placement::{PlacementConfig, RingConfig};

    fn replica(seat: u32) -> Arc<Replica> {
        let seat = Seat::new(seat).unwrap();
        let address = "127.0.0.1:1".parse().unwrap();
        let id = ReplicaId(seat.get().into());
        let pool = Arc::<Pool>::default();
        Arc::new(Replica::new(id, Hostname::of_seat(seat), MemberId::Seat(seat), address, &pool))
    }

    fn counter() -> (Arc<AtomicUsize>, impl Fn() + Send + Sync + 'static) {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        (calls, move || {
            counted.fetch_add(1, Ordering::SeqCst);
        })
    }

    #[test]
    fn a_replica_that_is_not_ready_can_be_found_by_its_member() {
        let [first, second, third, ejected] = [1, 2, 3, 2].map(replica);
        let members: Vec<Member> =
            [&first, &second, &third].iter().map(|one| Member::new(one.member(), 1)).collect();
        let ring = PlacementConfig::Ring(RingConfig::default());
        let placement = Arc::new(Placement::build(&ring, &members).unwrap());
        let table = Table::new(&Arc::default(), placement, [first.clone()], vec![], vec![]);
        let table = table.with_running([replica(1), ejected.clone(), replica(9)]);
        let running = |one: &Arc<Replica>| table.running(table.index_of(one.member()).unwrap());
        assert!(Arc::ptr_eq(running(&first).unwrap(), &first), "the ready one is preferred");
        assert!(Arc::ptr_eq(running(&second).unwrap(), &ejected));
        assert!(running(&third).is_none());
        assert_eq!((table.ready_count(), table.index_of(replica(9).member())), (1, None));
    }

    #[test]
    fn standby_replicas_follow_the_owners_and_leave_ready_members_out() {
        let replicas: Vec<Arc<Replica>> = (1..=6).map(replica).collect();
        let members: Vec<Member> =
            replicas.iter().map(|replica| Member::new(replica.member(), 1)).collect();
        let config = PlacementConfig::Ring(RingConfig::default());
        let placement = Arc::new(Placement::build(&config, &members).unwrap());
        let table = |standby: &[usize]| {
            let ready = [0, 3].map(|place| Arc::clone(&replicas[place]));
            let standby: Vec<_> =
                standby.iter().map(|place| Arc::clone(&replicas[*place])).collect();
            let pool = Arc::<Pool>::default();
            Table::new(&pool, Arc::clone(&placement), ready, Vec::new(), Vec::new())
                .with_standby(standby)
        };
        let all = table(&[0, 1, 4, 5]);
        for key in 0..50_u32 {
            let key = key.to_be_bytes();
            let owners = placement.owners(&key).filter(|member| [1, 4, 5].contains(member));
            let expected: Vec<ReplicaId> = owners.map(|member| replicas[member].id()).collect();
            let standby: Vec<ReplicaId> = all.standby_of(&key).map(|it| it.id()).collect();
            assert_eq!(standby, expected);
        }
        assert_eq!((all.all_standby().count(), all.ready_count()), (3, 2));
        assert_eq!(table(&[]).standby_of(b"x").count(), 0);
        assert_eq!(table(&[0, 3]).standby_of(b"x").count(), 0);
    }

    #[test]
    fn what_a_standby_replica_has_is_no_load_of_the_ready_ones() {
        let pool = Arc::<Pool>::default();
        let made = |seat: u32| {
            let seat = Seat::new(seat).unwrap();
            let (id, name) = (ReplicaId(seat.get().into()), Hostname::of_seat(seat));
            let address = "127.0.0.1:1".parse().unwrap();
            Arc::new(Replica::new(id, name, MemberId::Seat(seat), address, &pool))
        };
        let (ready, standby) = (made(1), made(2));
        let members = [&ready, &standby].map(|replica| Member::new(replica.member(), 1));
        let config = PlacementConfig::Ring(RingConfig::default());
        let placement = Arc::new(Placement::build(&config, &members).unwrap());
        let table = Table::new(&pool, placement, [Arc::clone(&ready)], Vec::new(), Vec::new())
            .with_standby([Arc::clone(&standby)]);
        let _in_flight = [ready.enter().unwrap(), standby.enter().unwrap()];
        assert_eq!(table.load().in_flight, 1);
    }

    #[test]
    fn closing_an_idle_replica_tells_at_once_and_lets_nobody_in() {
        let replica = replica(1);
        let (calls, on_idle) = counter();
        replica.close(on_idle);
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        assert!(replica.enter().is_none());
        assert_eq!(replica.in_flight(), 0);
    }

    #[test]
    fn closing_a_busy_replica_tells_when_the_last_request_has_left() {
        let replica = replica(1);
        let (first, second) = (replica.enter().unwrap(), replica.enter().unwrap());
        let (calls, on_idle) = counter();
        replica.close(on_idle);
        drop(first);
        assert_eq!(calls.load(Ordering::SeqCst), 0);
        drop(second);
        assert_eq!(calls.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_replica_is_never_told_idle_with_a_request_inside() {
        for _ in 0..200 {
            let replica = replica(1);
            let idle = Arc::new(AtomicBool::new(false));
            std::thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        if let Some(_inside) = replica.enter() {
                            for _ in 0..50 {
                                assert!(!idle.load(Ordering::SeqCst), "told idle too early");
                            }
                        }
                    });
                }
                let tell = Arc::clone(&idle);
                replica.close(move || tell.store(true, Ordering::SeqCst));
            });
            assert!(idle.load(Ordering::SeqCst), "never told idle");
        }
    }
}
