//! Connections that nobody uses, by replica and by age.
//!
//! Of one replica's the one that was used last is used next, so that those which are not needed grow
//! old; of all together the oldest makes room for a new one. Both take as long with ten thousand as
//! with one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use foldhash::HashMap;
use slab::Slab;

use crate::routing::table::{Replica, ReplicaId};

/// See the module. `W` is a connection.
#[derive(Debug)]
pub(super) struct Idle<W> {
    most: usize,
    most_of_one: usize,
    ages: Ages<W>,
    /// By identity, never by address: a stranger may get a dead replica's address.
    replicas: HashMap<ReplicaId, Kept>,
}

#[derive(Debug)]
struct Kept {
    replica: Arc<Replica>,
    /// Its connections' places in `ages`, from the oldest to the newest.
    places: VecDeque<usize>,
}

/// All connections, linked in the order in which they were kept.
#[derive(Debug)]
struct Ages<W> {
    links: Slab<Link<W>>,
    oldest: Option<usize>,
    newest: Option<usize>,
}

#[derive(Debug)]
struct Link<W> {
    wire: W,
    since: Instant,
    replica: ReplicaId,
    older: Option<usize>,
    newer: Option<usize>,
}

// === impl Idle ===

impl<W> Idle<W> {
    /// None, and never more than `most`, nor than `most_of_one` of one replica.
    pub(super) fn new(most: usize, most_of_one: usize) -> Self {
        Self { most, most_of_one, ages: Ages::default(), replicas: HashMap::default() }
    }

    /// Keeps one that is idle since `now`, which is not before any that was said before. One that is
    /// too many for its replica is not kept; for one that is too many in all the oldest is dropped.
    pub(super) fn push(&mut self, replica: &Arc<Replica>, wire: W, now: Instant) {
        let new = || Kept { replica: Arc::clone(replica), places: VecDeque::new() };
        let kept = self.replicas.entry(replica.id()).or_insert_with(new);
        if kept.places.len() >= self.most_of_one {
            return;
        }
        kept.places.push_back(self.ages.push(wire, now, replica.id()));
        if self.ages.links.len() > self.most {
            self.pop_oldest();
        }
    }

    /// The newest one of a replica.
    pub(super) fn pop(&mut self, replica: ReplicaId) -> Option<W> {
        let place = self.replicas.get_mut(&replica)?.places.pop_back()?;
        Some(self.ages.remove(place).wire)
    }

    /// The oldest one of all.
    pub(super) fn pop_oldest(&mut self) -> Option<W> {
        let place = self.ages.oldest?;
        let Link { wire, replica, .. } = self.ages.remove(place);
        if let Some(kept) = self.replicas.get_mut(&replica) {
            let first = kept.places.pop_front();
            debug_assert_eq!(first, Some(place), "the oldest one of all is its replica's oldest");
        }
        Some(wire)
    }

    /// Drops those that are not to `stay`, given since when they are idle.
    pub(super) fn retain(&mut self, mut stay: impl FnMut(&Replica, &mut W, Instant) -> bool) {
        let ages = &mut self.ages;
        self.replicas.retain(|_, Kept { replica, places }| {
            places.retain(|place| {
                let link = &mut ages.links[*place];
                let stays = stay(replica, &mut link.wire, link.since);
                if !stays {
                    ages.remove(*place);
                }
                stays
            });
            !places.is_empty()
        });
    }
}

// === impl Ages ===

impl<W> Default for Ages<W> {
    fn default() -> Self {
        Self { links: Slab::new(), oldest: None, newest: None }
    }
}

impl<W> Ages<W> {
    fn push(&mut self, wire: W, since: Instant, replica: ReplicaId) -> usize {
        let older = self.newest;
        let place = self.links.insert(Link { wire, since, replica, older, newer: None });
        *self.newer_of(older) = Some(place);
        self.newest = Some(place);
        place
    }

    fn remove(&mut self, place: usize) -> Link<W> {
        let link = self.links.remove(place);
        *self.newer_of(link.older) = link.newer;
        *self.older_of(link.newer) = link.older;
        link
    }

    /// What follows a place; the first one of all where there is none.
    fn newer_of(&mut self, place: Option<usize>) -> &mut Option<usize> {
        place.map_or(&mut self.oldest, |place| &mut self.links[place].newer)
    }

    /// What precedes a place; the last one of all where there is none.
    fn older_of(&mut self, place: Option<usize>) -> &mut Option<usize> {
        place.map_or(&mut self.newest, |place| &mut self.links[place].older)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::fleet::seat::{Hostname, MemberId, Seat};

    fn replica(id: u64) -> Arc<Replica> {
        let seat = MemberId::Seat(Seat::new(1).unwrap());
        let (name, address) =
            (Hostname::parse("S1").unwrap(), SocketAddr::from(([127, 0, 0, 1], 80)));
        Arc::new(Replica::new(ReplicaId(id), name, seat, address, &Arc::default()))
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push(u64),
        Pop(u64),
        PopOldest,
        /// Those whose number has this rest, divided by five, do not stay.
        Sweep(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            9 => (0_u64..4).prop_map(Step::Push),
            3 => (0_u64..4).prop_map(Step::Pop),
            1 => Just(Step::PopOldest),
            1 => (0_u64..5).prop_map(Step::Sweep),
        ];
        prop::collection::vec(step, 0..200)
    }

    proptest! {
        #[test]
        fn it_is_a_list_of_which_the_first_or_the_last_of_its_replica_is_taken(steps in steps()) {
            let replicas: Vec<Arc<Replica>> = (0..4).map(replica).collect();
            let begin = Instant::now();
            let mut idle = Idle::new(12, 5);
            // The replica and number of each, in order.
            let mut list: Vec<(u64, u64)> = Vec::new();
            for (number, step) in (0_u64..).zip(steps) {
                match step {
                    Step::Push(id) => {
                        let now = begin + Duration::from_secs(number);
                        idle.push(&replicas[usize::try_from(id).unwrap()], number, now);
                        if list.iter().filter(|(other, _)| *other == id).count() < 5 {
                            list.push((id, number));
                        }
                        if list.len() > 12 {
                            list.remove(0);
                        }
                    }
                    Step::Pop(id) => {
                        let last = list.iter().rposition(|(other, _)| *other == id);
                        let expected = last.map(|at| list.remove(at).1);
                        prop_assert_eq!(idle.pop(ReplicaId(id)), expected);
                    }
                    Step::PopOldest => {
                        let expected = (!list.is_empty()).then(|| list.remove(0).1);
                        prop_assert_eq!(idle.pop_oldest(), expected);
                    }
                    Step::Sweep(rest) => {
                        let mut seen = Vec::new();
                        idle.retain(|replica, number, since| {
                            assert_eq!(since, begin + Duration::from_secs(*number));
                            seen.push((replica.id().0, *number));
                            *number % 5 != rest
                        });
                        seen.sort_unstable_by_key(|(_, number)| *number);
                        prop_assert_eq!(&seen, &list);
                        list.retain(|(_, number)| number % 5 != rest);
                    }
                }
            }
            let rest: Vec<u64> = std::iter::from_fn(|| idle.pop_oldest()).collect();
            prop_assert_eq!(rest, list.iter().map(|(_, number)| *number).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_replica_without_connections_is_forgotten() {
        let mut idle = Idle::new(1_000, 1_000);
        for id in 0..100 {
            idle.push(&replica(id), id, Instant::now());
            idle.pop(ReplicaId(id));
        }
        idle.push(&replica(100), 100, Instant::now());
        idle.retain(|_, _, _| true);
        assert_eq!(idle.replicas.len(), 1);
        assert!(idle.ages.links.capacity() < 100, "places are used again");
    }
}
