//! How members divide the key space: a key's owners, best first, behind one type.
//!
//! Every placement is built from the same [`Member`]s whatever order they come in, and every one
//! comes down to a circle of points: a key falls on a place of the circle, the first point at or
//! after it is its owner, and the next owners follow clockwise, each member once.

pub mod classic;
pub mod ring;

use smallvec::SmallVec;
use thiserror::Error;

use crate::fleet::seat::MemberId;

pub use classic::{Classic, ClassicConfig, ClassicHash, Probing};
pub use ring::{Ring, RingConfig, Secret};

/// One that owns a part of the key space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its identity: the only thing that its points depend on.
    pub id: MemberId,
    /// Multiplies its points; 1 for all where nothing else is said.
    pub weight: u32,
    /// How many tenths of its points there are, 1 to 10: a newcomer's share grows by them, and
    /// keys move only to it.
    pub tenths: u8,
}

/// Which placement, with its settings.
#[derive(Clone, Debug, PartialEq)]
pub enum PlacementConfig {
    /// A ring of SipHash points on a 64-bit circle.
    Ring(RingConfig),
    /// A small ring of slots with polynomial hashes and probing.
    Classic(ClassicConfig),
}

/// A placement over a set of members. Members are known by their index in ascending order of
/// [`MemberId`]: what [`members`](Placement::members) lists.
#[derive(Clone, Debug)]
pub struct Placement {
    members: Box<[Member]>,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Ring(Ring),
    Classic(Classic),
}

/// Why a placement cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PlacementError {
    /// More points than the ring has slots.
    #[error("{points} virtual nodes do not fit into {slots} slots")]
    Full {
        /// The virtual nodes of all members.
        points: u64,
        /// The slots there are.
        slots: u32,
    },
    /// A member came twice.
    #[error("member {0} is there twice")]
    Duplicate(MemberId),
}

/// A key's owners, best first: indexes of members, each once. Allocates nothing for the first
/// eight of them.
#[derive(Debug)]
pub struct Owners<'a> {
    circle: &'a [u32],
    next: usize,
    left: usize,
    members: usize,
    few: SmallVec<[u32; FEW]>,
    many: Vec<u64>,
}

/// All points of a member.
const TENTHS: u8 = 10;

/// How many owners are told apart without a bitmap.
const FEW: usize = 8;

// === impl PlacementConfig ===

impl PlacementConfig {
    /// How many seats there are at most; `None` where there is no bound.
    pub fn capacity(&self) -> Option<usize> {
        match self {
            PlacementConfig::Ring(_) => None,
            PlacementConfig::Classic(classic) => Some(classic.capacity()),
        }
    }

    /// The name that the configuration knows it by.
    pub fn name(&self) -> &'static str {
        match self {
            PlacementConfig::Ring(_) => "ring",
            PlacementConfig::Classic(_) => "classic",
        }
    }
}

// === impl Placement ===

impl Placement {
    /// Builds the placement over `members`, in whatever order they come. No members are well: no
    /// key has an owner then.
    ///
    /// # Errors
    /// When a member is there twice, or the placement has no room for so many.
    pub fn build(config: &PlacementConfig, members: &[Member]) -> Result<Self, PlacementError> {
        let mut members: Box<[Member]> = members.into();
        members.sort_unstable_by_key(|member| member.id);
        if let Some(pair) = members.windows(2).find(|pair| pair[0].id == pair[1].id) {
            return Err(PlacementError::Duplicate(pair[0].id));
        }
        let kind = match config {
            PlacementConfig::Ring(config) => Kind::Ring(Ring::build(config, &members)),
            PlacementConfig::Classic(config) => Kind::Classic(Classic::build(config, &members)?),
        };
        Ok(Self { members, kind })
    }

    /// The members, in ascending order of their identity.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The owners of `key`, best first, every member once: indexes into
    /// [`members`](Self::members).
    pub fn owners(&self, key: &[u8]) -> Owners<'_> {
        let (circle, next) = match &self.kind {
            Kind::Ring(ring) => (ring.circle(), ring.start(key)),
            Kind::Classic(classic) => (classic.circle(), classic.start(key)),
        };
        Owners {
            circle,
            next,
            left: self.members.len(),
            members: self.members.len(),
            few: SmallVec::new(),
            many: Vec::new(),
        }
    }

    /// The exact share of the key space that each member owns; they add up to 1.
    pub fn shares(&self) -> Vec<f64> {
        match &self.kind {
            Kind::Ring(ring) => ring.shares(self.members.len()),
            Kind::Classic(classic) => classic.shares(self.members.len()),
        }
    }
}

// === impl Member ===

impl Member {
    /// One of this weight with all its points.
    pub fn new(id: MemberId, weight: u32) -> Self {
        Self { id, weight, tenths: TENTHS }
    }

    /// What of the requests is for it, against others': its weight, in tenths of it.
    pub fn share(&self) -> u64 {
        u64::from(self.weight) * u64::from(self.tenths.clamp(1, TENTHS))
    }

    /// How many of `points` it has: the first ones.
    fn part_of(&self, points: u64) -> u64 {
        let tenths = u64::from(self.tenths.clamp(1, TENTHS));
        (points * tenths).div_ceil(u64::from(TENTHS))
    }
}

// === impl Owners ===

impl Owners<'_> {
    /// Notes a member; says whether it is new.
    fn first_time(&mut self, member: u32) -> bool {
        let bit = |member: u32| (member as usize / 64, 1_u64 << (member % 64));
        if self.many.is_empty() {
            if self.few.contains(&member) {
                return false;
            }
            if self.few.len() < FEW {
                self.few.push(member);
                return true;
            }
            self.many = vec![0; self.members.div_ceil(64)];
            for known in &self.few {
                let (word, mask) = bit(*known);
                self.many[word] |= mask;
            }
        }
        let (word, mask) = bit(member);
        let new = self.many[word] & mask == 0;
        self.many[word] |= mask;
        new
    }
}

impl Iterator for Owners<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.left == 0 {
            return None;
        }
        // Every member has a point, so the walk meets each of them within one turn.
        for _ in 0..self.circle.len() {
            let member = self.circle[self.next];
            self.next = if self.next + 1 == self.circle.len() { 0 } else { self.next + 1 };
            if self.first_time(member) {
                self.left -= 1;
                return Some(member as usize);
            }
        }
        None
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fleet::seat::Seat;

    fn member(seat: u32) -> Member {
        Member::new(MemberId::Seat(Seat::new(seat).unwrap()), 1)
    }

    fn configs() -> [PlacementConfig; 4] {
        [
            PlacementConfig::Ring(RingConfig::default()),
            PlacementConfig::Classic(ClassicConfig::default()),
            PlacementConfig::Classic(ClassicConfig {
                hash: ClassicHash::SipHash,
                ..ClassicConfig::default()
            }),
            PlacementConfig::Classic(ClassicConfig {
                probing: Probing::Quadratic,
                ..ClassicConfig::default()
            }),
        ]
    }

    fn owner(placement: &Placement, key: &[u8]) -> Option<MemberId> {
        placement.owners(key).next().map(|index| placement.members()[index].id)
    }

    fn seats() -> impl Strategy<Value = Vec<u32>> {
        proptest::collection::btree_set(1_u32..=56, 1..=40)
            .prop_map(|seats| seats.into_iter().collect::<Vec<_>>())
            .prop_shuffle()
    }

    proptest! {
        #[test]
        fn the_build_does_not_depend_on_the_order_of_members(seats in seats(), key: u32) {
            let given: Vec<Member> = seats.iter().copied().map(member).collect();
            let mut ascending = given.clone();
            ascending.sort_by_key(|member| member.id);
            for config in configs() {
                let a = Placement::build(&config, &given).unwrap();
                let b = Placement::build(&config, &ascending).unwrap();
                let key = key.to_string();
                prop_assert_eq!(
                    a.owners(key.as_bytes()).collect::<Vec<_>>(),
                    b.owners(key.as_bytes()).collect::<Vec<_>>()
                );
                prop_assert_eq!(a.shares(), b.shares());
            }
        }

        #[test]
        fn every_member_is_an_owner_exactly_once(seats in seats(), key: u32) {
            let members: Vec<Member> = seats.iter().copied().map(member).collect();
            for config in configs() {
                let placement = Placement::build(&config, &members).unwrap();
                let mut owners: Vec<usize> =
                    placement.owners(key.to_string().as_bytes()).collect();
                owners.sort_unstable();
                prop_assert_eq!(owners, (0..members.len()).collect::<Vec<_>>());
            }
        }

        #[test]
        fn removing_a_seat_moves_only_its_keys(seats in seats(), keys: [u32; 32]) {
            prop_assume!(seats.len() > 1);
            let members: Vec<Member> = seats.iter().copied().map(member).collect();
            let config = PlacementConfig::Ring(RingConfig::default());
            let all = Placement::build(&config, &members).unwrap();
            let rest = Placement::build(&config, &members[1..]).unwrap();
            for key in keys {
                let key = key.to_string();
                let before = owner(&all, key.as_bytes());
                let after = owner(&rest, key.as_bytes());
                if before == Some(members[0].id) {
                    // … and they go to what was their second owner.
                    let second = all.owners(key.as_bytes()).nth(1).map(|i| all.members()[i].id);
                    prop_assert_eq!(after, second);
                } else {
                    prop_assert_eq!(after, before);
                }
            }
        }

        #[test]
        fn shares_are_what_random_keys_see(seats in 1_u32..=8, seed: u64) {
            use rand::{RngExt as _, SeedableRng as _};
            let members: Vec<Member> = (1..=seats).map(member).collect();
            for config in configs() {
                let placement = Placement::build(&config, &members).unwrap();
                let shares = placement.shares();
                prop_assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-9);
                let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
                let mut counts = vec![0_u32; members.len()];
                for _ in 0..2_000 {
                    // Whole rounds of residues, so that the classic ring's shares hold.
                    let key = rng.random_range(0_u32..512 * 1_000).to_string();
                    counts[placement.owners(key.as_bytes()).next().unwrap()] += 1;
                }
                for (count, share) in counts.into_iter().zip(shares) {
                    let deviation = (share * (1.0 - share) / 2_000.0).sqrt();
                    let measured = f64::from(count) / 2_000.0;
                    prop_assert!((measured - share).abs() <= 6.0 * deviation + 1e-9);
                }
            }
        }
    }

    #[test]
    fn a_growing_share_takes_keys_from_others_and_moves_none_between_them() {
        for config in configs() {
            let keys: Vec<String> = (0..2_000_u32).map(|key| (key * 7).to_string()).collect();
            let with = |tenths| {
                let members = [member(1), member(2), Member { tenths, ..member(3) }, member(4)];
                let placement = Placement::build(&config, &members).unwrap();
                let owners = keys.iter().map(|key| owner(&placement, key.as_bytes()).unwrap());
                (owners.collect::<Vec<_>>(), placement.shares()[2])
            };
            let newcomer = member(3).id;
            let mut before = with(1);
            assert!(before.1 < 0.12, "{config:?}: {}", before.1);
            for tenths in 2..=10 {
                let after = with(tenths);
                assert!(after.1 >= before.1, "{config:?}: the share shrinks at {tenths}");
                for (old, new) in before.0.iter().zip(&after.0) {
                    assert!(old == new || *new == newcomer, "{config:?}: moved at {tenths}");
                }
                before = after;
            }
            let whole = [member(1), member(2), member(3), member(4)];
            let whole = Placement::build(&config, &whole).unwrap().shares()[2];
            assert!((before.1 - whole).abs() < 1e-9);
        }
    }

    #[test]
    fn weights_multiply_the_share() {
        let members = [member(1), Member { weight: 3, ..member(2) }];
        let config =
            PlacementConfig::Ring(RingConfig { virtual_nodes: 4_000, ..RingConfig::default() });
        let shares = Placement::build(&config, &members).unwrap().shares();
        assert!((shares[1] / shares[0] - 3.0).abs() < 0.2, "{shares:?}");
    }

    #[test]
    fn a_secret_moves_the_keys() {
        let members: Vec<Member> = (1..=8).map(member).collect();
        let with = |secret| {
            let ring = RingConfig { secret: Secret(secret), ..RingConfig::default() };
            Placement::build(&PlacementConfig::Ring(ring), &members).unwrap()
        };
        let (a, b) = (with([1; 16]), with([2; 16]));
        let moved = (0..1_000_u32)
            .filter(|key| {
                let key = key.to_string();
                owner(&a, key.as_bytes()) != owner(&b, key.as_bytes())
            })
            .count();
        assert!(moved > 800, "{moved} of 1000 moved, 875 are to be expected");
    }

    #[test]
    fn no_members_own_nothing() {
        for config in configs() {
            let placement = Placement::build(&config, &[]).unwrap();
            assert_eq!(placement.owners(b"1").next(), None);
            assert!(placement.shares().is_empty());
        }
    }

    #[test]
    fn a_member_that_comes_twice_is_refused() {
        for config in configs() {
            let error = Placement::build(&config, &[member(1), member(1)]).unwrap_err();
            assert_eq!(error, PlacementError::Duplicate(member(1).id));
        }
    }
}
