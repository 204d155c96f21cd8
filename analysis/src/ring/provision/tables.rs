//! Tables of entries, filled as the paper may have filled them.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// How many entries the fullest and the emptiest backend have, against the average.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Filled {
    /// How much the fullest has beyond the average, as a part of it.
    pub(super) over: f64,
    /// How much the emptiest lacks.
    pub(super) under: f64,
}

// === impl Filled ===

impl Filled {
    /// Of what each backend has: entries or shares.
    pub(super) fn of(loads: impl IntoIterator<Item = f64>) -> Self {
        let loads: Vec<f64> = loads.into_iter().collect();
        let mean = loads.iter().sum::<f64>() / loads.len() as f64;
        let most = loads.iter().copied().fold(0.0, f64::max);
        let least = loads.iter().copied().fold(most, f64::min);
        Self { over: most / mean - 1.0, under: 1.0 - least / mean }
    }
}

/// How many of the entries each backend has, given their owners.
fn counted(owners: impl IntoIterator<Item = u32>, backends: u32) -> Vec<f64> {
    let mut counts = vec![0.0; backends as usize];
    owners.into_iter().for_each(|owner| counts[owner as usize] += 1.0);
    counts
}

/// Every entry goes to a backend by chance, all alike: what rendezvous with an ideal hash does. How
/// many each has.
pub(super) fn by_chance(entries: u32, backends: u32, seed: u64) -> Vec<f64> {
    let mut rng = StdRng::seed_from_u64(seed);
    let owners = (0..entries).map(|_| rng.random_range(0..backends));
    counted(owners, backends)
}

/// The table itself is the circle: backends take turns, `views` times each, in putting a point on
/// an entry by chance, and an entry is of the one whose point comes first. An entry without a point
/// is of the next one's that has one. How many each has.
pub(super) fn first_come(entries: u32, backends: u32, views: u32, seed: u64) -> Vec<f64> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut owners = vec![None; entries as usize];
    for _ in 0..views {
        for backend in 0..backends {
            let entry = rng.random_range(0..entries) as usize;
            owners[entry].get_or_insert(backend);
        }
    }
    counted(with_the_next(&owners), backends)
}

/// The owner of each entry, or of the next one that has one, wrapping round. One must have one.
fn with_the_next(owners: &[Option<u32>]) -> Vec<u32> {
    let mut next = owners.iter().flatten().next().copied();
    let mut found: Vec<u32> = Vec::with_capacity(owners.len());
    for owner in owners.iter().rev() {
        next = owner.or(next);
        found.extend(next);
    }
    found.reverse();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fullest_and_the_emptiest_are_held_against_the_average() {
        let filled = Filled::of(counted([0, 0, 0, 2, 2, 1], 3));
        assert_eq!(filled, Filled { over: 0.5, under: 0.5 });
        assert_eq!(Filled::of([0.25; 4]), Filled { over: 0.0, under: 0.0 });
        assert_eq!(Filled::of(counted([1], 2)), Filled { over: 1.0, under: 1.0 });
    }

    #[test]
    fn an_entry_without_a_point_is_of_the_next_one_with_one() {
        let found = with_the_next(&[None, Some(1), None, None, Some(2), None]);
        assert_eq!(found, [1, 1, 2, 2, 2, 1]);
    }

    #[test]
    fn what_comes_first_varies_half_as_much_as_chance() {
        // Full tables of 20 entries each on average. By chance the variance is 20; who comes
        // first has Σ f · (1 − f) for free parts f from 1 to 0, of which Σ f is 20: half of that.
        let variance = |counts: Vec<f64>| {
            counts.iter().map(|count| (count - 20.0).powi(2)).sum::<f64>() / 1_000.0
        };
        let by_chance = variance(by_chance(20_000, 1_000, 1));
        let first = variance(first_come(20_000, 1_000, 300, 1));
        assert!((by_chance - 20.0).abs() < 3.0, "{by_chance}");
        assert!((first - 10.0).abs() < 1.5, "{first}");
    }

    #[test]
    fn the_same_seed_fills_the_same_table() {
        assert_eq!(first_come(997, 10, 50, 7), first_come(997, 10, 50, 7));
        assert_ne!(first_come(997, 10, 50, 7), first_come(997, 10, 50, 8));
        assert_ne!(by_chance(997, 10, 7), by_chance(997, 10, 8));
    }
}
