//! `maglev`: a table in which every member has nearly as many entries as its weight says
//! (Eisenbud et al., *Maglev: A Fast and Reliable Software Network Load Balancer*, NSDI 2016,
//! §3.4).
//!
//! Every member has an order of its own in which it prefers the entries, and they take turns in
//! taking the first that is free. The paper leaves weights open; here the turns are Envoy's
//! (`MaglevTable`): in round `r` those of weight `w` take part that have had fewer than
//! `r · w / heaviest` entries, and all in the first, so that everybody has one. A key belongs to the
//! entry that its hash falls on; next owners are those of the following entries.
//!
//! Shares are as even as it gets. The price is that when a member comes or leaves, some keys move
//! between the others, too: few where the table is large (§5.3).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use siphasher::sip::SipHasher13;
use thiserror::Error;

use super::ring::point;
use super::{Member, PlacementError, Secret, Spot};

/// Settings of the table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MaglevConfig {
    /// How many entries it has.
    pub table_size: TableSize,
    /// Keys the SipHash of members and request keys. Balancers that should agree share it.
    pub secret: Secret,
}

/// How many entries a table has: a prime number, so that whatever a member's step is, it comes to
/// every entry; 101 to 5,000,011.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableSize(u32);

/// Why a number is no size of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadTableSize {
    /// Too few entries for one member, or so many that building takes too long.
    #[error("must be {LEAST} to {MOST}, not {0}")]
    Bounds(u32),
    /// No prime.
    #[error("must be a prime number such as {}, not {size}", .next.get())]
    NotPrime {
        /// What was given.
        size: u32,
        /// The next that is one.
        next: TableSize,
    },
}

/// The entries, and what a key falls on them by.
#[derive(Clone, Debug)]
pub struct Maglev {
    /// The owner of each entry; none where there are no members.
    entries: Box<[u32]>,
    hasher: SipHasher13,
}

/// How many entries there are for each member at least: with ten, shares differ by 10 %. The paper
/// advises a hundred (§3.4), for 1 %, but tries fewer (§5.3).
const ENTRIES_EACH: u32 = 10;

/// The first prime above a hundred, and the largest table that Envoy allows: a prime, 20 MB.
const LEAST: u32 = 101;
const MOST: u32 = 5_000_011;

/// The order in which a member prefers the entries.
struct Wishes {
    /// The entry that it prefers next.
    at: u32,
    /// From one that it prefers to the next.
    step: u32,
}

/// Whose turn it is to take an entry, without an end as long as there are members.
enum Turns {
    /// Where all weights are the same: everybody in every round.
    Even {
        /// How many they are.
        members: u32,
        /// The next one.
        next: u32,
    },
    /// Otherwise those whose round is next, so that nobody is asked who would not take part.
    Weighted {
        /// The round in which each takes part again.
        waiting: BinaryHeap<Reverse<(u64, u32)>>,
        /// Each one's weight, and how many entries it has, times the greatest weight.
        members: Vec<(u64, u64)>,
        heaviest: u64,
    },
}

// === impl TableSize ===

impl TableSize {
    /// A table of so many entries.
    ///
    /// # Errors
    /// [`BadTableSize`] for what is no prime number or out of bounds.
    pub fn new(size: u32) -> Result<Self, BadTableSize> {
        if !(LEAST..=MOST).contains(&size) {
            return Err(BadTableSize::Bounds(size));
        }
        if is_prime(size) {
            return Ok(Self(size));
        }
        // The largest is a prime, so there is one.
        let next = Self((size..MOST).find(|more| is_prime(*more)).unwrap_or(MOST));
        Err(BadTableSize::NotPrime { size, next })
    }

    /// The number of entries.
    pub fn get(self) -> u32 {
        self.0
    }

    /// How many members it is for.
    pub fn members(self) -> usize {
        (self.0 / ENTRIES_EACH) as usize
    }
}

impl Default for TableSize {
    /// 65,537, the smaller of the two that the paper tries.
    fn default() -> Self {
        Self(65_537)
    }
}

fn is_prime(number: u32) -> bool {
    number >= 2
        && (2..).take_while(|d| d * d <= number).all(|divisor| !number.is_multiple_of(divisor))
}

// === impl Maglev ===

impl Maglev {
    /// Fills the table: members take turns in the order in which they are given, ascending.
    pub(super) fn build(config: &MaglevConfig, members: &[Member]) -> Result<Self, PlacementError> {
        let most = config.table_size.members();
        if members.len() > most {
            return Err(PlacementError::Crowded { members: members.len(), most });
        }
        let hasher = config.secret.hasher();
        let size = if members.is_empty() { 0 } else { config.table_size.get() };
        let mut wishes: Vec<Wishes> =
            members.iter().map(|member| Wishes::new(&hasher, member, size)).collect();
        let mut entries: Vec<Option<u32>> = vec![None; size as usize];
        for member in Turns::new(members).take(size as usize) {
            let entry = wishes[member as usize].first_free(&entries, size);
            entries[entry as usize] = Some(member);
        }
        Ok(Self { entries: entries.into_iter().flatten().collect(), hasher })
    }

    /// The owners of the entries.
    pub(super) fn entries(&self) -> &[u32] {
        &self.entries
    }

    /// The entry that `key` falls on: as many hashes for each, but for one, by a multiplication
    /// instead of a division (Lemire, *Fast Random Integer Generation in an Interval*, 2019).
    pub(super) fn start(&self, key: &[u8]) -> usize {
        let scaled = u128::from(self.hasher.hash(key)) * self.entries.len() as u128;
        (scaled >> 64) as usize
    }

    /// Where `key` falls.
    pub(super) fn spot(&self, key: &[u8]) -> Spot {
        Spot::Entry(u32::try_from(self.start(key)).expect("there are at most 2^32 entries"))
    }

    pub(super) fn shares(&self, members: usize) -> Vec<f64> {
        let mut counts = vec![0_u32; members];
        for owner in &self.entries {
            counts[*owner as usize] += 1;
        }
        counts.into_iter().map(|count| f64::from(count) / self.entries.len() as f64).collect()
    }

    /// Whether keys fall on the same entries here and there.
    pub(super) fn hashes_like(&self, other: &Self) -> bool {
        self.entries.len() == other.entries.len() && self.hasher.key() == other.hasher.key()
    }
}

// === impl Wishes ===

impl Wishes {
    fn new(hasher: &SipHasher13, member: &Member, size: u32) -> Self {
        let modulo = |hash: u64, m: u32| {
            u32::try_from(hash % u64::from(m)).expect("less than m, which is a u32")
        };
        let at = modulo(point(hasher, member.id, 0), size);
        let step = 1 + modulo(point(hasher, member.id, 1), size - 1);
        Self { at, step }
    }

    /// The first free entry in its order; there must be one.
    fn first_free(&mut self, entries: &[Option<u32>], size: u32) -> u32 {
        loop {
            let entry = self.at;
            self.at += self.step;
            if self.at >= size {
                self.at -= size;
            }
            if entries[entry as usize].is_none() {
                return entry;
            }
        }
    }
}

// === impl Turns ===

impl Turns {
    fn new(members: &[Member]) -> Self {
        let count = u32::try_from(members.len()).expect("no more than a table has entries");
        let heaviest = members.iter().map(Member::share).max().unwrap_or_default();
        if members.iter().all(|member| member.share() == heaviest) {
            return Turns::Even { members: count, next: 0 };
        }
        Turns::Weighted {
            waiting: (0..count).map(|member| Reverse((1, member))).collect(),
            members: members.iter().map(|member| (member.share(), 0)).collect(),
            heaviest,
        }
    }
}

impl Iterator for Turns {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        match self {
            Turns::Even { members: 0, .. } => None,
            Turns::Even { members, next } => {
                let member = *next;
                *next = if member + 1 == *members { 0 } else { member + 1 };
                Some(member)
            }
            Turns::Weighted { waiting, members, heaviest } => {
                let mut first = waiting.peek_mut()?;
                let Reverse((round, member)) = *first;
                let (weight, had) = &mut members[member as usize];
                *had += *heaviest;
                *first = Reverse(((round + 1).max(had.div_ceil(*weight)), member));
                Some(member)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fleet::seat::{MemberId, Seat};

    fn size(entries: u32) -> MaglevConfig {
        let table_size = TableSize::new(entries).unwrap();
        MaglevConfig { table_size, ..MaglevConfig::default() }
    }

    fn seats(numbers: impl IntoIterator<Item = u32>) -> Vec<Member> {
        let seats = numbers.into_iter().filter_map(Seat::new);
        seats.map(|seat| Member::new(MemberId::Seat(seat), 1)).collect()
    }

    /// Pseudocode 1 of the paper, with `offset` and `skip` of its text.
    fn by_the_paper(config: &MaglevConfig, members: &[Member]) -> Vec<u32> {
        let (n, m) = (members.len(), u64::from(config.table_size.get()));
        let hasher = config.secret.hasher();
        let permutation: Vec<Vec<usize>> = members
            .iter()
            .map(|member| {
                let offset = point(&hasher, member.id, 0) % m;
                let skip = point(&hasher, member.id, 1) % (m - 1) + 1;
                (0..m).map(|j| ((offset + j * skip) % m) as usize).collect()
            })
            .collect();
        let mut next = vec![0; n];
        let mut entry: Vec<i64> = vec![-1; m as usize];
        let mut filled = 0;
        loop {
            for i in 0..n {
                let mut c = permutation[i][next[i]];
                while entry[c] >= 0 {
                    next[i] += 1;
                    c = permutation[i][next[i]];
                }
                entry[c] = i as i64;
                next[i] += 1;
                filled += 1;
                if filled == m {
                    return entry.into_iter().map(|owner| owner as u32).collect();
                }
            }
        }
    }

    #[test]
    fn the_table_is_that_of_the_papers_pseudocode() {
        for (entries, count) in [(101, 1), (211, 2), (1_009, 7), (1_009, 10), (65_537, 12)] {
            let (config, members) = (size(entries), seats(1..=count));
            let maglev = Maglev::build(&config, &members).unwrap();
            assert_eq!(maglev.entries(), by_the_paper(&config, &members), "{count} of {entries}");
        }
    }

    proptest! {
        #[test]
        fn turns_are_those_of_going_round_and_asking_everybody(
            weights in prop::collection::vec(1_u32..30, 1..9),
            tenths in prop::collection::vec(1_u8..=10, 9),
        ) {
            let count = u32::try_from(weights.len()).unwrap();
            let weigh = |(member, (weight, tenths))| Member { weight, tenths, ..member };
            let members: Vec<Member> =
                seats(1..=count).into_iter().zip(weights.into_iter().zip(tenths)).map(weigh).collect();
            let heaviest = members.iter().map(Member::share).max().unwrap();
            let mut had = vec![0; members.len()];
            let mut naive = Vec::new();
            for round in 1..60 {
                for (index, member) in (0_u32..).zip(&members) {
                    let had = &mut had[index as usize];
                    if *had * heaviest <= round * member.share() {
                        *had += 1;
                        naive.push(index);
                    }
                }
            }
            let turns: Vec<u32> = Turns::new(&members).take(naive.len()).collect();
            prop_assert_eq!(turns, naive);
        }
    }

    #[test]
    fn members_have_as_many_entries_as_their_weights_say() {
        let weighted = |weights: &[u32]| -> Vec<u32> {
            let members = seats(1..=u32::try_from(weights.len()).unwrap());
            let weigh = |(member, weight): (Member, &u32)| Member { weight: *weight, ..member };
            let members: Vec<Member> = members.into_iter().zip(weights).map(weigh).collect();
            let maglev = Maglev::build(&size(1_009), &members).unwrap();
            let shares = maglev.shares(members.len());
            shares.into_iter().map(|share| (share * 1_009.0).round() as u32).collect()
        };
        assert_eq!(weighted(&[7]), [1_009]);
        assert_eq!(weighted(&[1, 1, 1]), [337, 336, 336]);
        assert_eq!(weighted(&[5, 5, 5]), [337, 336, 336]);
        assert_eq!(weighted(&[1, 2, 1]), [253, 504, 252]);
        let entries = weighted(&[1, 2, 3, 1, 5]);
        for (found, weight) in entries.iter().zip([1.0, 2.0, 3.0, 1.0, 5.0]) {
            assert!((f64::from(*found) - 1_009.0 * weight / 12.0).abs() < 2.0, "{entries:?}");
        }
        // Everybody has one, however light.
        assert_eq!(weighted(&[1, 100_000]), [1, 1_008]);
    }

    #[test]
    fn a_removal_moves_little_more_than_the_keys_of_the_one_that_leaves() {
        // 33.33 %, 10 % and 1 % must move.
        for (count, most) in [(3, 0.335), (10, 0.104), (100, 0.0165)] {
            let before = Maglev::build(&size(65_537), &seats(1..=count)).unwrap();
            let leaving = count / 2;
            let after = seats((1..=count).filter(|seat| *seat != leaving + 1));
            let after = Maglev::build(&size(65_537), &after).unwrap();
            // Behind the one that leaves, indexes are less by one.
            let both = before.entries().iter().zip(after.entries());
            let moved = both.filter(|(old, new)| **old != **new + u32::from(**new >= leaving));
            let moved = moved.count() as f64 / 65_537.0;
            let needed = 1.0 / f64::from(count);
            assert!((needed * 0.999..most).contains(&moved), "{moved} of {count}");
        }
    }

    #[test]
    fn a_table_has_a_prime_number_of_entries() {
        for prime in [101, 65_537, 655_373, 5_000_011] {
            assert_eq!(TableSize::new(prime).unwrap().get(), prime);
        }
        for (size, said) in [
            (0, "must be 101 to 5000011, not 0"),
            (97, "must be 101 to 5000011, not 97"),
            (5_000_012, "must be 101 to 5000011, not 5000012"),
            (65_536, "must be a prime number such as 65537, not 65536"),
            (5_000_010, "must be a prime number such as 5000011, not 5000010"),
        ] {
            assert_eq!(TableSize::new(size).unwrap_err().to_string(), said);
        }
    }

    #[test]
    fn a_table_has_room_for_a_tenth_of_its_entries() {
        assert_eq!(TableSize::default().members(), 6_553);
        assert!(Maglev::build(&size(211), &seats(1..=21)).is_ok());
        let error = Maglev::build(&size(211), &seats(1..=22)).unwrap_err();
        assert_eq!(error, PlacementError::Crowded { members: 22, most: 21 });
    }
}
