//! Who takes a request: the policy's best replica that has room. Whoever explains the choice asks
//! the same functions as whoever makes it.

use std::fmt;
use std::sync::Arc;

use rand::Rng;

use super::bounded::{Factor, Load};
use super::policy::{Pick, Policy};
use super::table::{Most, Replica, Table};

/// By what a replica is chosen.
#[derive(Clone, Copy, Debug)]
pub struct Terms<L> {
    /// Who comes first.
    pub policy: Policy,
    /// How much more than its share one may have.
    pub factor: Option<Factor>,
    /// How much may be in flight for one request more, where that is limited.
    pub limits: Option<L>,
}

/// Whether a ready replica would take a request now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// It would.
    Free,
    /// As many are in flight at it as may be.
    Full {
        /// How many are.
        in_flight: usize,
        /// How many may be.
        most: usize,
    },
    /// As many are in flight at all of them together as may be.
    AllFull {
        /// How many are.
        in_flight: usize,
        /// How many may be.
        most: usize,
    },
    /// It has its share of what is in flight, with the factor on it.
    Bounded {
        /// How many are in flight at it.
        in_flight: usize,
        /// How many may be, with this request.
        bound: usize,
        /// The factor.
        factor: Factor,
        /// What the ready replicas have together.
        load: Load,
    },
}

// === impl Terms ===

impl<L: Fn(&Replica) -> Most> Terms<L> {
    /// The replica that is asked next, and how many it may have in flight by its share of the load:
    /// one that is `fresh` and has room, none that is `shunned` or beyond its share of the load
    /// unless there is no other. `None` where none that is fresh has room.
    pub fn choose<'t>(
        &self,
        table: &'t Table,
        pick: Pick<'_>,
        rng: &mut impl Rng,
        fresh: impl Fn(&Replica) -> bool,
        shunned: impl Fn(&Replica) -> bool,
    ) -> Option<(&'t Arc<Replica>, usize)> {
        let policy = self.policy;
        let open = |replica: &Replica| {
            fresh(replica)
                && self.limits.as_ref().is_none_or(|limits| replica.has_room(limits(replica)))
        };
        let good = |replica: &Replica| open(replica) && !shunned(replica);
        if let Some(factor) = self.factor {
            let load = table.load();
            let mut bound = usize::MAX;
            let fits = |replica: &Arc<Replica>, share| {
                bound = factor.bound(share, load);
                replica.in_flight() < bound && good(replica)
            };
            if let Some(replica) = policy.choose(table, pick, rng, fits) {
                return Some((replica, bound));
            }
        }
        policy
            .choose(table, pick, rng, |replica, _| good(replica))
            .or_else(|| policy.choose(table, pick, rng, |replica, _| open(replica)))
            .map(|replica| (replica, usize::MAX))
    }

    /// Whether one of `table`'s ready replicas, whose share of the requests is `share`, would take
    /// one now, and if not why.
    pub fn room(&self, table: &Table, replica: &Replica, share: u64) -> Room {
        let in_flight = replica.in_flight();
        if let Some(limits) = &self.limits {
            let Most { at_replica: most, in_all } = limits(replica);
            if in_flight >= most {
                return Room::Full { in_flight, most };
            }
            let all = table.pool().in_flight();
            if all >= in_all {
                return Room::AllFull { in_flight: all, most: in_all };
            }
        }
        let Some(factor) = self.factor else { return Room::Free };
        let load = table.load();
        let bound = factor.bound(share, load);
        if in_flight < bound {
            Room::Free
        } else {
            Room::Bounded { in_flight, bound, factor, load }
        }
    }
}

// === impl Room ===

impl fmt::Display for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Room::Free => f.write_str("it has room"),
            Room::Full { in_flight, most } => {
                write!(f, "full: {in_flight} in flight of at most {most} ([admission])")
            }
            Room::AllFull { in_flight, most } => {
                let limit = "admission.in_flight";
                write!(f, "full: {in_flight} in flight at all replicas of at most {most} ({limit})")
            }
            Room::Bounded { in_flight, bound, factor, load } => write!(
                f,
                "beyond its bound: {in_flight} in flight of at most {bound} by balance_factor \
                 {factor}, with {} in flight in all",
                load.in_flight
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng as _;
    use rand::rngs::SmallRng;

    use super::*;
    use crate::fleet::seat::{Hostname, MemberId, Seat};
    use crate::routing::key::Key;
    use crate::routing::placement::{Member, Placement, PlacementConfig, RingConfig};
    use crate::routing::table::{InFlight, ReplicaId};

    fn table(busy: &[usize]) -> (Table, Vec<InFlight>) {
        let count = u32::try_from(busy.len()).unwrap();
        let seats: Vec<Seat> = (1..=count).filter_map(Seat::new).collect();
        let members: Vec<Member> =
            seats.iter().map(|seat| Member::new(MemberId::Seat(*seat), 1)).collect();
        let config = PlacementConfig::Ring(RingConfig::default());
        let placement = Arc::new(Placement::build(&config, &members).unwrap());
        let pool = Arc::default();
        let replica = |seat: Seat| {
            let (id, name) = (ReplicaId(seat.get().into()), Hostname::of_seat(seat));
            let address = ([127, 0, 0, 1], 1).into();
            Arc::new(Replica::new(id, name, MemberId::Seat(seat), address, &pool))
        };
        let replicas: Vec<Arc<Replica>> = seats.into_iter().map(replica).collect();
        let held = replicas.iter().zip(busy);
        let held =
            held.flat_map(|(replica, busy)| (0..*busy).filter_map(|_| replica.enter())).collect();
        (Table::new(&pool, placement, replicas, Vec::new(), Vec::new()), held)
    }

    proptest! {
        /// What is said of each owner and who is chosen agree.
        #[test]
        fn the_first_owner_that_has_room_is_chosen(
            busy in prop::collection::vec(0_usize..5, 1..8),
            key: u32,
            factor in proptest::option::of(1.01_f64..3.0),
            most in proptest::option::of((1_usize..6, 1_usize..30)),
        ) {
            let (table, _held) = table(&busy);
            let limits = most.map(|(at_replica, in_all)| move |_: &Replica| Most { at_replica, in_all });
            let factor = factor.and_then(Factor::new);
            let terms = Terms { policy: Policy::Hash, factor, limits };
            let key = Key::from(key.to_string().as_bytes());
            let rng = &mut SmallRng::seed_from_u64(1);
            let pick = Pick { key: &key, turn: 0 };
            let chosen = terms.choose(&table, pick, rng, |_| true, |_| false);
            let chosen = chosen.map(|(replica, _)| replica.member());
            let owners = table.placement().owners(key.as_bytes());
            let rooms: Vec<(MemberId, Room)> = owners
                .filter_map(|member| {
                    let replica = table.ready(member)?;
                    Some((replica.member(), terms.room(&table, replica, 10)))
                })
                .collect();
            prop_assert_eq!(rooms.len(), busy.len());
            let first = |open: fn(&Room) -> bool| {
                rooms.iter().find(|(_, room)| open(room)).map(|(member, _)| *member)
            };
            // A share of the load is no limit: where there is no other, it does not count.
            let expected = first(|room| *room == Room::Free)
                .or_else(|| first(|room| matches!(room, Room::Bounded { .. })));
            prop_assert_eq!(chosen, expected, "{:?}", rooms);
        }
    }

    #[test]
    fn what_is_in_the_way_is_told_with_its_numbers() {
        let (table, _held) = table(&[3, 0]);
        let replica = table.all_ready().next().unwrap();
        let told = |factor, most: Option<(usize, usize)>| {
            let limits =
                most.map(|(at_replica, in_all)| move |_: &Replica| Most { at_replica, in_all });
            Terms { policy: Policy::Hash, factor, limits }.room(&table, replica, 10).to_string()
        };
        let factor = Factor::new(1.25);
        assert_eq!(
            told(factor, Some((9, 9))),
            "beyond its bound: 3 in flight of at most 3 by balance_factor 1.25, with 3 in flight in all"
        );
        assert_eq!(told(factor, Some((3, 9))), "full: 3 in flight of at most 3 ([admission])");
        assert_eq!(
            told(None, Some((9, 3))),
            "full: 3 in flight at all replicas of at most 3 (admission.in_flight)"
        );
        assert_eq!(told(None, None), "it has room");
    }
}
