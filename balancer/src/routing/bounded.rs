//! Consistent hashing with bounded loads (Mirrokni, Thorup and Zadimoghaddam, SODA 2018): no
//! replica takes a request while it has its share of all that is in flight, with a factor on it;
//! the next owner on the ring does.

use std::fmt;

/// How much more than its share a replica may have in flight: c > 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Factor(u32);

/// What several replicas have together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Requests in flight.
    pub in_flight: usize,
    /// The sum of their [shares](super::placement::Member::share).
    pub share: u64,
}

/// Factors are whole thousandths, so that bounds are exact.
const WHOLE: u32 = 1_000;

/// The largest factor: beyond it nothing is bounded.
const MOST: f64 = 1_000.0;

// === impl Factor ===

impl Factor {
    /// Rounded to thousandths; `None` unless it is above 1 and at most 1,000.
    pub fn new(factor: f64) -> Option<Self> {
        let thousandths = (factor * f64::from(WHOLE)).round();
        let good = factor <= MOST && thousandths > f64::from(WHOLE);
        good.then_some(Self(thousandths as u32))
    }

    /// It as a number.
    pub fn get(self) -> f64 {
        f64::from(self.0) / f64::from(WHOLE)
    }

    /// The most that one of this `share` may have in flight, of `load` and one request more:
    /// ⌈c · (in flight + 1) · share / all shares⌉. Of those that `load` counts, one at least has less.
    pub fn bound(self, share: u64, load: Load) -> usize {
        let all = u128::from(load.share.max(1)) * u128::from(WHOLE);
        let scaled = u128::from(self.0) * (load.in_flight as u128 + 1) * u128::from(share);
        let bound = scaled.div_ceil(all);
        usize::try_from(bound).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for Factor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use rand::SeedableRng as _;
    use rand::rngs::SmallRng;

    use super::*;
    use crate::fleet::seat::{Hostname, MemberId, Seat};
    use crate::routing::key::Key;
    use crate::routing::placement::{Member, Placement, PlacementConfig, RingConfig};
    use crate::routing::policy::{Pick, Policy};
    use crate::routing::table::{InFlight, Replica, ReplicaId, Table};

    #[test]
    fn factors_are_above_one() {
        for bad in [f64::NAN, f64::INFINITY, -2.0, 0.0, 1.0, 1.0001, 1_000.1] {
            assert_eq!(Factor::new(bad), None, "{bad}");
        }
        assert_eq!(Factor::new(1.25).unwrap().to_string(), "1.25");
        assert!(Factor::new(1.001) < Factor::new(1_000.0));
    }

    #[test]
    fn the_bound_is_the_rounded_share_of_all_and_one_more() {
        let factor = Factor::new(1.25).unwrap();
        let bound = |in_flight, share| factor.bound(share, Load { in_flight, share: 4 });
        assert_eq!([bound(0, 1), bound(2, 1), bound(3, 1), bound(99, 1)], [1, 1, 2, 32]);
        assert_eq!([bound(0, 2), bound(3, 2), bound(99, 2)], [1, 3, 63]);
    }

    proptest! {
        #[test]
        fn somebody_is_always_below_the_bound_and_that_is_the_rounded_share(
            replicas in prop::collection::vec((0_usize..2_000, 1_u64..100), 1..40),
            factor in 1.001_f64..50.0,
        ) {
            let factor = Factor::new(factor).unwrap();
            let load = Load {
                in_flight: replicas.iter().map(|(in_flight, _)| in_flight).sum(),
                share: replicas.iter().map(|(_, share)| share).sum(),
            };
            let factored = f64::from(factor.0) / 1_000.0 * (load.in_flight + 1) as f64;
            let mut anybody = false;
            for (in_flight, share) in replicas {
                let bound = factor.bound(share, load);
                let exact = factored * share as f64 / load.share as f64;
                prop_assert!(bound as f64 >= exact - 1e-6 && (bound as f64) < exact + 1.0 + 1e-6);
                anybody |= in_flight < bound;
            }
            prop_assert!(anybody);
        }

        /// Requests that come and go: each is at the first owner, in the order of the ring, that
        /// was below its bound, by a count of everything from the beginning.
        #[test]
        fn the_first_owner_below_its_bound_takes_a_request(
            weights in prop::collection::vec(1_u32..4, 2..9),
            resting in 0_usize..3,
            steps in prop::collection::vec((any::<bool>(), 0_u32..40), 1..200),
        ) {
            let factor = Factor::new(1.25).unwrap();
            let (table, _rest) = table(&weights, resting);
            let mut rng = SmallRng::seed_from_u64(1);
            let mut inside: Vec<(usize, InFlight)> = Vec::new();
            for (comes, number) in steps {
                if !comes {
                    if !inside.is_empty() {
                        let gone = number as usize % inside.len();
                        inside.swap_remove(gone);
                    }
                    continue;
                }
                let key = Key::from(number.to_string().as_bytes());
                let load = table.load();
                prop_assert_eq!(load.in_flight, inside.len(), "those that rest do not count");
                let has = |replica: &Arc<Replica>, share| {
                    replica.in_flight() < factor.bound(share, load)
                };
                let pick = Pick { key: &key, turn: 0 };
                let chosen = Policy::Hash.choose(&table, pick, &mut rng, has).unwrap();
                let all: u32 = weights.iter().sum();
                let naive = table.placement().owners(key.as_bytes()).find(|member| {
                    let here = inside.iter().filter(|(at, _)| at == member).count() as f64;
                    let share = f64::from(weights[*member]) / f64::from(all);
                    here < (1.25 * (inside.len() + 1) as f64 * share - 1e-9).ceil()
                });
                prop_assert_eq!(chosen.member(), table.placement().members()[naive.unwrap()].id);
                inside.push((naive.unwrap(), chosen.enter().unwrap()));
            }
        }
    }

    /// Ready replicas of these weights, and so many others with requests that do not end.
    fn table(weights: &[u32], resting: usize) -> (Table, Vec<InFlight>) {
        let seat = |number| Seat::new(number).unwrap();
        let members: Vec<Member> = (1..)
            .zip(weights)
            .map(|(number, weight)| Member::new(MemberId::Seat(seat(number)), *weight))
            .collect();
        let config = PlacementConfig::Ring(RingConfig::default());
        let placement = Arc::new(Placement::build(&config, &members).unwrap());
        let pool = Arc::default();
        let replica = |number: u32| {
            let (id, seat) = (ReplicaId(number.into()), seat(number));
            let (name, address) = (Hostname::of_seat(seat), ([127, 0, 0, 1], 1).into());
            Arc::new(Replica::new(id, name, MemberId::Seat(seat), address, &pool))
        };
        let ready: Vec<Arc<Replica>> = (1..=weights.len() as u32).map(replica).collect();
        let resting: Vec<Arc<Replica>> = (101..).map(replica).take(resting).collect();
        let rest = resting.iter().filter_map(Replica::enter).collect();
        (Table::new(&pool, placement, ready, resting, Vec::new()), rest)
    }
}
