//! Requests that kill replicas: a request that was in flight at two replicas when they died is not
//! sent to a third.
//!
//! # The rule
//!
//! A *loss* is an attempt whose connection broke before its answer was whole. A loss counts as a
//! death when the replica is known to be dead within [`DEATH_WITHIN`], or refuses connections within
//! [`WINDOW`]. Requests are the same when method and target are the same.
//!
//! - Two deaths at different replicas within [`WINDOW`], the second attempt begun after the first
//!   loss: the request is *proven* to be deadly. No attempt is made for the cool-down period.
//! - The same, but both attempts were in flight at the same time: new requests are answered without
//!   an attempt. Retries of requests under way go on: an operator may have killed both replicas.
//! - Two losses in sequence, of which it is not known yet whether they are deaths: no attempt is made
//!   for [`SUSPECTED_FOR`]. A runtime reports a death in less time.
//! - An attempt that gets its whole answer clears the request: what also succeeds does not kill. So a
//!   popular request is not blamed for replicas that an operator kills.
//!
//! After the cool-down period the last death still counts, so that one more is enough.

use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;

use super::table::Replica;
use crate::fleet::seat::Hostname;

/// Time within which two replicas must die.
pub const WINDOW: Duration = Duration::from_secs(60);

/// Time after a loss within which the replica must be known to be dead. A later end has another
/// cause: a rollout, or an operator.
pub const DEATH_WITHIN: Duration = Duration::from_secs(5);

/// Time for which two losses in sequence are taken for deaths.
pub const SUSPECTED_FOR: Duration = Duration::from_secs(1);

/// Maximum number of requests that are remembered. The one whose last loss is the oldest makes room.
pub const REQUESTS_MAX: usize = 256;

/// Maximum number of losses that are remembered of one request.
const LOSSES_MAX: usize = 4;

/// The requests that lost a connection lately. All times are those of one clock that only goes
/// forward.
#[derive(Debug, Default)]
pub struct Suspects {
    by_request: HashMap<u64, Suspect>,
}

/// An attempt that lost its connection.
#[derive(Clone, Copy, Debug)]
pub struct Lost<'a> {
    /// The hash of the request's method and target.
    pub request: u64,
    /// The replica.
    pub replica: &'a Arc<Replica>,
    /// When the attempt began; not later than `at`.
    pub sent_at: Duration,
    /// When the connection broke.
    pub at: Duration,
}

/// The start of a quarantine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    /// The request's method and path.
    pub name: String,
    /// The replicas that died.
    pub replicas: [Hostname; 2],
    /// How long no attempt is made.
    pub cool_down: Duration,
}

#[derive(Debug)]
struct Suspect {
    name: String,
    /// At different replicas, the oldest first.
    losses: Vec<Loss>,
    quarantine: Option<Until>,
}

#[derive(Debug)]
struct Loss {
    replica: Arc<Replica>,
    sent_at: Duration,
    at: Duration,
    is_death: bool,
}

#[derive(Clone, Copy, Debug)]
struct Until {
    end: Duration,
    /// The attempts were made one after the other.
    is_proven: bool,
}

// === impl Suspects ===

impl Suspects {
    /// Notes a loss. `name` is called for a request that is not known yet.
    pub fn lost(&mut self, lost: Lost<'_>, name: impl FnOnce() -> String) {
        let Lost { request, replica, sent_at, at } = lost;
        if !self.by_request.contains_key(&request)
            && self.by_request.len() >= REQUESTS_MAX
            && !self.make_room()
        {
            return;
        }
        let new = || Suspect { name: name(), losses: Vec::new(), quarantine: None };
        let suspect = self.by_request.entry(request).or_insert_with(new);
        suspect.losses.retain(|loss| loss.replica.id() != replica.id());
        if suspect.losses.len() >= LOSSES_MAX {
            suspect.losses.remove(0);
        }
        // What was noted before this loss says nothing about it.
        replica.clear_refused();
        let (replica, is_death) = (Arc::clone(replica), replica.has_ended());
        suspect.losses.push(Loss { replica, sent_at, at, is_death });
    }

    /// Notes that an attempt got its whole answer.
    pub fn succeeded(&mut self, request: u64) {
        self.by_request.remove(&request);
    }

    /// Reports whether no attempt may be made `now`. `is_retry` tells that the request has been sent
    /// before. A quarantine that starts is added to `begun`.
    pub fn blocks(
        &mut self,
        request: u64,
        is_retry: bool,
        now: Duration,
        cool_down: Duration,
        begun: &mut Vec<Begun>,
    ) -> bool {
        let Some(suspect) = self.by_request.get_mut(&request) else { return false };
        suspect.settle(now, cool_down, begun);
        match suspect.quarantine {
            Some(Until { is_proven, .. }) => is_proven || !is_retry,
            None => suspect.is_suspected(now),
        }
    }

    /// Starts and ends quarantines, and forgets losses that are older than [`WINDOW`]. To be called
    /// every second or so, so that deaths are noticed in time.
    pub fn sweep(&mut self, now: Duration, cool_down: Duration, begun: &mut Vec<Begun>) {
        self.by_request.retain(|_, suspect| {
            suspect.settle(now, cool_down, begun);
            suspect.quarantine.is_some() || !suspect.losses.is_empty()
        });
    }

    /// Returns the hashes of the requests that are remembered.
    pub fn requests(&self) -> impl ExactSizeIterator<Item = u64> {
        self.by_request.keys().copied()
    }

    /// Forgets the request whose last loss is the oldest and that is not in quarantine.
    fn make_room(&mut self) -> bool {
        let free = self.by_request.iter().filter(|(_, suspect)| suspect.quarantine.is_none());
        let last = |suspect: &Suspect| suspect.losses.last().map(|loss| loss.at);
        let oldest = free.min_by_key(|(_, suspect)| last(suspect)).map(|(request, _)| *request);
        oldest.is_some_and(|oldest| self.by_request.remove(&oldest).is_some())
    }
}

// === impl Suspect ===

impl Suspect {
    fn settle(&mut self, now: Duration, cool_down: Duration, begun: &mut Vec<Begun>) {
        if self.quarantine.is_some_and(|until| until.end <= now) {
            self.quarantine = None;
            // The last death still counts: one more is enough.
            self.losses.drain(..self.losses.len().saturating_sub(1));
        }
        self.losses.retain(|loss| now.saturating_sub(loss.at) < WINDOW);
        self.losses.iter_mut().for_each(|loss| loss.settle(now));
        let quarantine = self.quarantine.filter(|until| until.is_proven);
        if quarantine.is_some() {
            return;
        }
        let deaths = || self.pairs().filter(|(first, second)| first.is_death && second.is_death);
        let proof = deaths().find(|(first, second)| first.at <= second.sent_at);
        let Some((first, second)) = proof.or_else(|| deaths().next()) else { return };
        let replicas = [first, second].map(|loss| loss.replica.hostname().clone());
        let until = Until { end: now + cool_down, is_proven: proof.is_some() };
        match &mut self.quarantine {
            Some(before) => before.is_proven = until.is_proven,
            none => {
                *none = Some(until);
                begun.push(Begun { name: self.name.clone(), replicas, cool_down });
            }
        }
    }

    /// Reports whether two losses in sequence may be deaths that are not known yet.
    fn is_suspected(&self, now: Duration) -> bool {
        self.pairs().any(|(first, second)| {
            let is_recent = |loss: &Loss, span| now.saturating_sub(loss.at) < span;
            first.at <= second.sent_at
                && is_recent(second, SUSPECTED_FOR)
                && (first.is_death || is_recent(first, DEATH_WITHIN))
        })
    }

    /// Returns each two losses, in the order in which they happened.
    fn pairs(&self) -> impl Iterator<Item = (&Loss, &Loss)> {
        let firsts = self.losses.iter().enumerate();
        firsts.flat_map(|(place, first)| {
            self.losses[place + 1..].iter().map(move |second| (first, second))
        })
    }
}

// === impl Loss ===

impl Loss {
    fn settle(&mut self, now: Duration) {
        let is_in_time = now.saturating_sub(self.at) <= DEATH_WITHIN;
        self.is_death |= self.replica.has_refused() || (is_in_time && self.replica.has_ended());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fleet::seat::{MemberId, Seat};
    use crate::routing::table::ReplicaId;

    const COOL_DOWN: Duration = Duration::from_secs(30);
    const SECOND: Duration = Duration::from_secs(1);
    const MS: Duration = Duration::from_millis(1);
    const KILL: u64 = 7;

    fn replicas() -> Vec<Arc<Replica>> {
        let replica = |seat: u32| {
            let (id, seat) = (ReplicaId(seat.into()), Seat::new(seat).unwrap());
            let (name, address) = (Hostname::of_seat(seat), ([127, 0, 0, 1], 1).into());
            Arc::new(Replica::new(id, name, MemberId::Seat(seat), address, &Arc::default()))
        };
        (1..=6).map(replica).collect()
    }

    #[derive(Default)]
    struct World {
        suspects: Suspects,
        begun: Vec<Begun>,
    }

    impl World {
        fn loses(&mut self, replica: &Arc<Replica>, sent_at: Duration, at: Duration) {
            let lost = Lost { request: KILL, replica, sent_at, at };
            self.suspects.lost(lost, || "GET /kill".to_owned());
        }

        fn blocks(&mut self, now: Duration) -> bool {
            self.suspects.blocks(KILL, false, now, COOL_DOWN, &mut self.begun)
        }

        fn blocks_retry(&mut self, now: Duration) -> bool {
            self.suspects.blocks(KILL, true, now, COOL_DOWN, &mut self.begun)
        }

        fn sweep(&mut self, now: Duration) {
            self.suspects.sweep(now, COOL_DOWN, &mut self.begun);
        }
    }

    #[test]
    fn two_deaths_in_sequence_quarantine_the_request_for_the_cool_down_period() {
        let (mut world, replicas) = (World::default(), replicas());
        world.loses(&replicas[0], SECOND, SECOND);
        assert!(!world.blocks(SECOND), "one loss is not enough");
        world.loses(&replicas[1], SECOND, SECOND + MS);
        assert!(world.blocks(SECOND + 2 * MS), "before the deaths are known");
        assert!(world.begun.is_empty());
        replicas.iter().take(2).for_each(|replica| replica.give_up());
        assert!(world.blocks(SECOND + 3 * MS) && world.blocks_retry(SECOND + 3 * MS));
        let begun = Begun {
            name: "GET /kill".to_owned(),
            replicas: [0, 1].map(|place| replicas[place].hostname().clone()),
            cool_down: COOL_DOWN,
        };
        assert_eq!(world.begun, [begun]);
        assert!(world.blocks(COOL_DOWN + SECOND));
        let after = COOL_DOWN + SECOND + 3 * MS;
        assert!(!world.blocks(after));
        // One more death is enough then.
        replicas[2].give_up();
        world.loses(&replicas[2], after, after + MS);
        assert!(world.blocks(after + 2 * MS));
        assert_eq!(world.begun.len(), 2);
    }

    #[test]
    fn replicas_that_live_on_are_suspected_for_a_moment_only() {
        let (mut world, replicas) = (World::default(), replicas());
        world.loses(&replicas[0], SECOND, SECOND);
        world.loses(&replicas[1], SECOND, SECOND);
        assert!(world.blocks(SECOND + SUSPECTED_FOR - MS));
        assert!(!world.blocks(SECOND + SUSPECTED_FOR));
        // An end that comes much later has another cause.
        let late = SECOND + DEATH_WITHIN + MS;
        replicas.iter().for_each(|replica| replica.give_up());
        assert!(!world.blocks(late));
        assert!(world.begun.is_empty());
        world.sweep(SECOND + WINDOW);
        assert_eq!(world.suspects.requests().len(), 0);
    }

    #[test]
    fn replicas_that_are_frozen_have_not_died() {
        let (mut world, replicas) = (World::default(), replicas());
        replicas.iter().for_each(|replica| replica.give_up_frozen());
        world.loses(&replicas[0], SECOND, SECOND);
        world.loses(&replicas[1], SECOND, SECOND);
        assert!(!world.blocks(SECOND + SUSPECTED_FOR));
        assert!(world.begun.is_empty());
    }

    #[test]
    fn a_server_that_refuses_connections_after_the_loss_is_dead() {
        let (mut world, replicas) = (World::default(), replicas());
        replicas[0].note_refused();
        world.loses(&replicas[0], SECOND, SECOND);
        world.loses(&replicas[1], 10 * SECOND, 10 * SECOND);
        assert!(!world.blocks(12 * SECOND), "a refusal before the loss does not count");
        replicas[0].note_refused();
        replicas[1].note_refused();
        assert!(world.blocks(40 * SECOND));
    }

    #[test]
    fn a_success_clears_the_request() {
        let (mut world, replicas) = (World::default(), replicas());
        replicas.iter().for_each(|replica| replica.give_up());
        world.loses(&replicas[0], SECOND, SECOND);
        world.suspects.succeeded(KILL);
        world.loses(&replicas[1], 2 * SECOND, 2 * SECOND);
        assert!(!world.blocks(2 * SECOND));
        world.loses(&replicas[2], 3 * SECOND, 3 * SECOND);
        assert!(world.blocks(3 * SECOND));
        world.suspects.succeeded(KILL);
        assert!(!world.blocks(3 * SECOND));
    }

    #[test]
    fn retries_go_on_where_two_replicas_died_at_the_same_time() {
        let (mut world, replicas) = (World::default(), replicas());
        world.loses(&replicas[0], Duration::ZERO, SECOND);
        world.loses(&replicas[1], Duration::ZERO, SECOND + MS);
        assert!(!world.blocks(SECOND + MS), "neither is known to be dead");
        replicas.iter().for_each(|replica| replica.give_up());
        assert!(world.blocks(SECOND + 2 * MS));
        assert!(!world.blocks_retry(SECOND + 2 * MS));
        // The retry kills the next one: that is a proof.
        world.loses(&replicas[2], SECOND + 3 * MS, SECOND + 4 * MS);
        assert!(world.blocks_retry(SECOND + 5 * MS));
        assert_eq!(world.begun.len(), 1, "it was told once");
    }

    #[test]
    fn deaths_far_apart_or_of_one_replica_are_no_proof() {
        let (mut world, replicas) = (World::default(), replicas());
        replicas.iter().for_each(|replica| replica.give_up());
        world.loses(&replicas[0], SECOND, SECOND);
        world.loses(&replicas[0], 2 * SECOND, 2 * SECOND);
        assert!(!world.blocks(2 * SECOND));
        world.loses(&replicas[1], 2 * SECOND + WINDOW, 2 * SECOND + WINDOW);
        assert!(!world.blocks(2 * SECOND + WINDOW));
    }

    proptest! {
        /// However many requests lose connections, few are remembered, and those in quarantine
        /// stay.
        #[test]
        fn memory_is_bounded(requests in prop::collection::vec(0_u64..2_000, 1..2_000)) {
            let (mut world, replicas) = (World::default(), replicas());
            replicas.iter().take(2).for_each(|replica| replica.give_up());
            world.loses(&replicas[0], SECOND, SECOND);
            world.loses(&replicas[1], SECOND, SECOND);
            prop_assert!(world.blocks(SECOND));
            for (place, request) in requests.into_iter().enumerate() {
                let replica = &replicas[2 + place % 4];
                let at = SECOND + u32::try_from(place).unwrap() * MS;
                let lost = Lost { request: request + 100, replica, sent_at: at, at };
                world.suspects.lost(lost, String::new);
                prop_assert!(world.suspects.requests().len() <= REQUESTS_MAX);
            }
            prop_assert!(world.blocks(4 * SECOND));
        }
    }
}
