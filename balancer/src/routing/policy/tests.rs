use std::collections::BTreeMap;
use std::net::SocketAddr;

use proptest::prelude::*;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;

use super::*;
use crate::fleet::seat::{Hostname, MemberId, Seat};
use crate::routing::placement::{Member, Placement, PlacementConfig, RingConfig};
use crate::routing::pool::Pool;
use crate::routing::table::{InFlight, ReplicaId};

const ALL: [Policy; 4] =
    [Policy::Hash, Policy::RoundRobin, Policy::LeastRequests, Policy::TwoChoices];

/// Seats with these weights, of which `ready` have a ready replica.
fn weighted(weights: &[u32], ready: &[u32]) -> Table {
    let member = |seat| MemberId::Seat(Seat::new(seat).unwrap());
    let members: Vec<Member> =
        (1..).zip(weights).map(|(seat, weight)| Member::new(member(seat), *weight)).collect();
    let config = PlacementConfig::Ring(RingConfig::default());
    let placement = Arc::new(Placement::build(&config, &members).unwrap());
    let pool = Arc::<Pool>::default();
    let replicas = ready.iter().map(|seat| {
        let name = Hostname::of_seat(Seat::new(*seat).unwrap());
        let address = SocketAddr::from(([127, 0, 0, 1], 9));
        Arc::new(Replica::new(ReplicaId((*seat).into()), name, member(*seat), address, &pool))
    });
    Table::new(&pool, placement, replicas, Vec::new(), Vec::new())
}

/// Five seats, of which `ready` have a ready replica.
fn table(ready: &[u32]) -> Table {
    weighted(&[1; 5], ready)
}

fn key(number: u32) -> Key {
    Key::from(number.to_string().as_bytes())
}

fn seat(replica: &Arc<Replica>) -> u32 {
    replica.member().seat().unwrap().get()
}

/// The seats that requests 0, 1, 2, … go to, none of which ends.
fn chosen(policy: Policy, table: &Table, requests: usize) -> (Vec<u32>, Vec<InFlight>) {
    let mut rng = SmallRng::seed_from_u64(7);
    (0..requests)
        .map(|turn| {
            let key = key(turn as u32);
            let pick = Pick { key: &key, turn };
            let replica = policy.choose(table, pick, &mut rng, |_, _| true).unwrap();
            (seat(replica), replica.enter().unwrap())
        })
        .unzip()
}

fn counts(seats: &[u32]) -> BTreeMap<u32, usize> {
    let mut counts = BTreeMap::new();
    for seat in seats {
        *counts.entry(*seat).or_default() += 1;
    }
    counts
}

#[test]
fn a_key_goes_to_its_first_ready_owner_that_is_accepted() {
    let (all, some) = (table(&[1, 2, 3, 4, 5]), table(&[2, 4]));
    let mut rng = SmallRng::seed_from_u64(1);
    for number in 0..500_u32 {
        let key = key(number);
        let owners: Vec<MemberId> = all
            .placement()
            .owners(key.as_bytes())
            .map(|index| all.placement().members()[index].id)
            .collect();
        let mut chosen = |table: &Table, not: Option<MemberId>| {
            let pick = Pick { key: &key, turn: 0 };
            Policy::Hash
                .choose(table, pick, &mut rng, |replica, _| Some(replica.member()) != not)
                .map(|replica| replica.member())
        };
        assert_eq!(chosen(&all, None), Some(owners[0]));
        assert_eq!(chosen(&all, Some(owners[0])), Some(owners[1]));
        let ready = |id: &&MemberId| matches!(id.seat().unwrap().get(), 2 | 4);
        assert_eq!(chosen(&some, None), owners.iter().find(ready).copied());
    }
}

#[test]
fn turns_are_exact_and_leave_out_who_is_not_ready() {
    let (seats, _in_flight) = chosen(Policy::RoundRobin, &table(&[1, 2, 3]), 7);
    assert_eq!(seats, [1, 2, 3, 1, 2, 3, 1]);
    let (seats, _in_flight) = chosen(Policy::RoundRobin, &table(&[2, 5]), 4);
    assert_eq!(seats, [2, 5, 2, 5]);
    let (seats, _in_flight) = chosen(Policy::RoundRobin, &weighted(&[1, 2, 1], &[1, 2, 3]), 8);
    assert_eq!(counts(&seats), BTreeMap::from([(1, 2), (2, 4), (3, 2)]));
}

#[test]
fn requests_that_do_not_end_are_shared_out_by_weight() {
    let table = weighted(&[1, 2, 3], &[1, 2, 3]);
    let (seats, _in_flight) = chosen(Policy::LeastRequests, &table, 600);
    assert_eq!(counts(&seats), BTreeMap::from([(1, 100), (2, 200), (3, 300)]));
    let table = weighted(&[1, 2, 3], &[1, 2, 3]);
    let (seats, _in_flight) = chosen(Policy::TwoChoices, &table, 600);
    for (seat, count) in counts(&seats) {
        assert!(count.abs_diff(100 * seat as usize) < 10, "{seat}: {count}");
    }
}

#[test]
fn of_two_the_less_loaded_wins() {
    let table = table(&[1, 2]);
    let mut rng = SmallRng::seed_from_u64(1);
    let _busy = table.ready(0).unwrap().enter().unwrap();
    for policy in [Policy::LeastRequests, Policy::TwoChoices] {
        for turn in 0..50 {
            let key = key(turn as u32);
            let chosen = policy.choose(&table, Pick { key: &key, turn }, &mut rng, |_, _| true);
            assert_eq!(chosen.map(seat), Some(2), "{policy:?}");
        }
    }
}

proptest! {
    #[test]
    fn whoever_is_chosen_is_ready_and_accepted_and_somebody_is_if_anybody_is(
        weights in prop::collection::vec(1_u32..5, 1..9),
        ready: u16,
        tried: u16,
        busy in prop::collection::vec(0_u32..9, 0..20),
        turn: usize,
        seed: u64,
    ) {
        let in_set = |set: u16, seat: u32| set & (1 << seat) != 0;
        let seats: Vec<u32> =
            (1..).take(weights.len()).filter(|seat| in_set(ready, *seat)).collect();
        let table = weighted(&weights, &seats);
        let _in_flight: Vec<InFlight> = busy
            .iter()
            .filter_map(|member| table.ready(*member as usize)?.enter())
            .collect();
        let acceptable: Vec<u32> =
            seats.iter().copied().filter(|seat| !in_set(tried, *seat)).collect();
        let (key, mut rng) = (key(turn as u32), SmallRng::seed_from_u64(seed));
        for policy in ALL {
            let accept = |replica: &Arc<Replica>, _| acceptable.contains(&seat(replica));
            let pick = Pick { key: &key, turn };
            match policy.choose(&table, pick, &mut rng, accept) {
                Some(replica) => prop_assert!(acceptable.contains(&seat(replica))),
                None => prop_assert!(acceptable.is_empty(), "{policy:?} chose nobody"),
            }
        }
    }

    #[test]
    fn an_order_has_all_that_are_ready_once_and_begins_as_a_choice_does(
        weights in prop::collection::vec(1_u32..5, 1..9),
        ready: u16,
        turn: usize,
        seed: u64,
    ) {
        let seats: Vec<u32> = (1..)
            .take(weights.len())
            .filter(|seat| ready & (1 << seat) != 0)
            .collect();
        let table = weighted(&weights, &seats);
        let (key, mut rng) = (key(turn as u32), SmallRng::seed_from_u64(seed));
        let pick = Pick { key: &key, turn };
        for policy in ALL {
            let order: Vec<u32> = policy.order(&table, pick, &mut rng).into_iter().map(seat).collect();
            let mut sorted = order.clone();
            sorted.sort_unstable();
            prop_assert_eq!(&sorted, &seats, "{:?}", policy);
            if matches!(policy, Policy::Hash | Policy::RoundRobin) {
                let best = policy.choose(&table, pick, &mut rng, |_, _| true).map(seat);
                prop_assert_eq!(order.first().copied(), best);
            }
        }
    }

    #[test]
    fn least_requests_always_chooses_one_that_nobody_is_below(
        weights in prop::collection::vec(1_u32..5, 1..9),
        busy in prop::collection::vec(0_usize..9, 0..30),
        seed: u64,
    ) {
        let all: Vec<u32> = (1..).take(weights.len()).collect();
        let table = weighted(&weights, &all);
        let _in_flight: Vec<InFlight> =
            busy.iter().filter_map(|member| table.ready(*member)?.enter()).collect();
        let (key, mut rng) = (key(0), SmallRng::seed_from_u64(seed));
        let pick = Pick { key: &key, turn: 0 };
        let chosen = Policy::LeastRequests.choose(&table, pick, &mut rng, |_, _| true).unwrap();
        let load = |replica: &Arc<Replica>| {
            let weight = weights[seat(replica) as usize - 1];
            (replica.in_flight() + 1) as f64 / f64::from(weight)
        };
        for replica in table.all_ready() {
            prop_assert!(load(chosen) <= load(replica) + 1e-9);
        }
    }
}
