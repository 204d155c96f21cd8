//! Whose turn it is, where several take turns by their weights.

use std::cmp::Ordering;

/// More turns than this in a round would only cost memory: weights are rounded then.
const TURNS_MAX: u64 = 1 << 16;

/// A round of turns: each has as many as its weight says, as evenly spread as whole turns can be
/// (an earliest-deadline-first schedule, as Envoy's).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turns(Box<[u32]>);

/// The `count`-th turn of one with this weight is due in the middle of its `count`-th part of the
/// round.
struct Due {
    place: u32,
    count: u64,
    weight: u64,
}

// === impl Turns ===

impl Turns {
    /// A round of those with these weights, each known by its place among them. One whose weight
    /// is 0 counts as 1.
    pub fn new(weights: &[u64]) -> Self {
        let divisor = weights.iter().copied().map(|weight| weight.max(1)).reduce(common_divisor);
        let shares = weights.iter().map(|weight| (*weight).max(1) / divisor.unwrap_or(1));
        let mut shares: Vec<u64> = shares.collect();
        let all: u64 = shares.iter().sum();
        if all > TURNS_MAX {
            let scaled = |share: u64| {
                let scaled = u128::from(share) * u128::from(TURNS_MAX) / u128::from(all);
                u64::try_from(scaled).unwrap_or(TURNS_MAX).max(1)
            };
            shares.iter_mut().for_each(|share| *share = scaled(*share));
        }
        let turns = (0..).zip(&shares).flat_map(|(place, share)| {
            (0..*share).map(move |count| Due { place, count, weight: *share })
        });
        let mut turns: Vec<Due> = turns.collect();
        turns.sort_by(Due::before);
        Self(turns.into_iter().map(|due| due.place).collect())
    }

    /// The places from a turn on, in order, until the round is over. Turns are counted for ever.
    pub fn from(&self, turn: usize) -> impl Iterator<Item = usize> {
        let begin = turn.checked_rem(self.0.len()).unwrap_or(0);
        let (before, after) = self.0.split_at(begin);
        after.iter().chain(before).map(|place| *place as usize)
    }
}

// === impl Due ===

impl Due {
    /// By (count + ½) / weight, then by place.
    fn before(&self, other: &Self) -> Ordering {
        let scaled = |due: &Self, by: u64| u128::from(2 * due.count + 1) * u128::from(by);
        let order = scaled(self, other.weight).cmp(&scaled(other, self.weight));
        order.then(self.place.cmp(&other.place))
    }
}

/// Euclid's.
fn common_divisor(one: u64, other: u64) -> u64 {
    if other == 0 { one } else { common_divisor(other, one % other) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round(weights: &[u64]) -> Vec<usize> {
        Turns::new(weights).from(0).collect()
    }

    #[test]
    fn equals_take_exact_turns_and_others_are_spread() {
        assert_eq!(round(&[]), [0; 0]);
        assert_eq!(round(&[7, 7, 7]), [0, 1, 2]);
        assert_eq!(round(&[2, 1]), [0, 1, 0]);
        assert_eq!(round(&[1, 1, 2]), [2, 0, 1, 2]);
        assert_eq!(round(&[0, 3]), [1, 0, 1, 1]);
        assert_eq!(Turns::new(&[1, 1]).from(7).collect::<Vec<_>>(), [1, 0]);
    }

    #[test]
    fn a_round_is_bounded() {
        let round = round(&[1_000_003, 500_001, 1]);
        assert!(round.len() <= TURNS_MAX as usize + 3, "{}", round.len());
        let of = |place| round.iter().filter(|it| **it == place).count();
        assert!((of(0) as f64 / of(1) as f64 - 2.0).abs() < 0.001);
        assert_eq!(of(2), 1);
    }

    proptest! {
        #[test]
        fn a_round_is_fair_and_even(weights in prop::collection::vec(1_u64..20, 1..12)) {
            let divisor = weights.iter().copied().reduce(common_divisor).unwrap();
            let shares: Vec<u64> = weights.iter().map(|weight| weight / divisor).collect();
            let (all, round) = (shares.iter().sum::<u64>(), round(&weights));
            prop_assert_eq!(round.len() as u64, all);
            let mut had = vec![0_u64; shares.len()];
            for (place, turn) in round.iter().zip(1_u64..) {
                had[*place] += 1;
                for (had, share) in had.iter().zip(&shares) {
                    // Never a whole turn for each of the others away from its due.
                    let due = turn as f64 * *share as f64 / all as f64;
                    prop_assert!((*had as f64 - due).abs() <= shares.len() as f64 / 2.0 + 0.5);
                }
            }
            prop_assert_eq!(had, shares);
        }
    }
}
