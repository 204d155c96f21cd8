//! `classic`: a small ring of slots, polynomial hashes, and probing on collision. By default 512
//! slots, 9 virtual nodes a seat, `H(i) = i² + 2i + 17` for requests and
//! `Φ(s, j) = s² + j² + 2j + 25`, j = 1..9, for virtual nodes.

use siphasher::sip::SipHasher13;

use super::{Member, PlacementError, Spot};
use crate::fleet::seat::MemberId;

/// Settings of the classic ring.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassicConfig {
    /// Slots of the ring; at least 1.
    pub slots: u32,
    /// Slots that a member of weight 1 occupies; at least 1.
    pub virtual_nodes: u32,
    /// Where requests and virtual nodes fall.
    pub hash: ClassicHash,
    /// Where a virtual node goes whose slot is taken.
    pub probing: Probing,
}

/// The two hash functions of the ring, each taken modulo its slots.
#[derive(Clone, Debug, PartialEq)]
pub enum ClassicHash {
    /// Polynomials, given by their coefficients, the constant first. A key that is no decimal
    /// number counts as the SipHash of its bytes.
    Polynomial {
        /// `H(i)`, of the request's number.
        request: Vec<u64>,
        /// The part of `Φ(s, j)` in the seat's number.
        seat: Vec<u64>,
        /// The part of `Φ(s, j)` in the virtual node's number, from 1.
        virtual_node: Vec<u64>,
    },
    /// SipHash-1-3 for both, of the key's bytes and of `(s, j)`.
    SipHash,
}

/// How a free slot is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probing {
    /// The next slot, and the next.
    Linear,
    /// At distance 1, 3, 6, 10, … (triangular numbers, which reach every slot when their number
    /// is a power of two); linear after as many tries as there are slots.
    Quadratic,
}

/// The occupied slots, ascending, and for every slot the first occupied one at or after it.
#[derive(Clone, Debug)]
pub struct Classic {
    hash: ClassicHash,
    slots: u32,
    occupied: Box<[u32]>,
    owners: Box<[u32]>,
    first: Box<[u32]>,
    collisions: u32,
}

// === impl ClassicConfig ===

impl ClassicConfig {
    /// How many seats of weight 1 the ring holds.
    pub fn capacity(&self) -> usize {
        (self.slots / self.virtual_nodes) as usize
    }
}

impl Default for ClassicConfig {
    fn default() -> Self {
        Self {
            slots: 512,
            virtual_nodes: 9,
            hash: ClassicHash::Polynomial {
                request: vec![17, 2, 1],
                seat: vec![25, 0, 1],
                virtual_node: vec![0, 2, 1],
            },
            probing: Probing::Linear,
        }
    }
}

// === impl ClassicHash ===

impl ClassicHash {
    fn request(&self, key: &[u8], slots: u32) -> u32 {
        match self {
            ClassicHash::Polynomial { request, .. } => {
                let number = decimal(key).unwrap_or_else(|| SipHasher13::new().hash(key));
                polynomial(request, number, slots)
            }
            ClassicHash::SipHash => reduce(SipHasher13::new().hash(key), slots),
        }
    }

    fn virtual_node(&self, id: MemberId, j: u64, slots: u32) -> u32 {
        let s = match id {
            MemberId::Seat(seat) => u64::from(seat.get()),
            MemberId::Address(address) => SipHasher13::new().hash(address.to_string().as_bytes()),
        };
        match self {
            ClassicHash::Polynomial { seat, virtual_node, .. } => {
                let sum = u64::from(polynomial(seat, s, slots))
                    + u64::from(polynomial(virtual_node, j, slots));
                reduce(sum, slots)
            }
            ClassicHash::SipHash => {
                let mut bytes = [0; 16];
                bytes[..8].copy_from_slice(&s.to_le_bytes());
                bytes[8..].copy_from_slice(&j.to_le_bytes());
                reduce(SipHasher13::new().hash(&bytes), slots)
            }
        }
    }
}

/// `Σ coefficients[k] · x^k` modulo `slots`, by Horner's rule; never overflows.
fn polynomial(coefficients: &[u64], x: u64, slots: u32) -> u32 {
    let m = u64::from(slots);
    let x = x % m;
    let value = coefficients.iter().rev().fold(0, |sum, c| (sum * x + c % m) % m);
    reduce(value, slots)
}

fn reduce(value: u64, slots: u32) -> u32 {
    u32::try_from(value % u64::from(slots)).expect("less than slots, which is a u32")
}

/// The number that `key` writes in decimal digits; `None` for anything else.
fn decimal(key: &[u8]) -> Option<u64> {
    if key.is_empty() || !key.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(key).ok()?.parse().ok()
}

// === impl Classic ===

impl Classic {
    /// Places the members in the order in which they are given: ascending.
    pub(super) fn build(
        config: &ClassicConfig,
        members: &[Member],
    ) -> Result<Self, PlacementError> {
        let slots = config.slots;
        let nodes = |member: &Member| u64::from(config.virtual_nodes) * u64::from(member.weight);
        let points: u64 = members.iter().map(nodes).sum();
        if points > u64::from(slots) {
            return Err(PlacementError::Full { points, slots });
        }

        let mut owner_of: Vec<Option<u32>> = vec![None; slots as usize];
        // Points that a newcomer does not have yet keep their slots, so that nobody else's move.
        let mut kept_free = Vec::new();
        let mut collisions = 0;
        for (index, member) in (0_u32..).zip(members) {
            for j in 1..=nodes(member) {
                let home = config.hash.virtual_node(member.id, j, slots);
                let (probes, slot) = (0_u32..)
                    .zip(config.probing.from(home, slots))
                    .find(|(_, slot)| owner_of[*slot as usize].is_none())
                    .expect("there are no more points than slots, and probing reaches every slot");
                collisions += probes;
                owner_of[slot as usize] = Some(index);
                if j > member.part_of(nodes(member)) {
                    kept_free.push(slot);
                }
            }
        }
        for slot in kept_free {
            owner_of[slot as usize] = None;
        }

        let (occupied, owners): (Vec<u32>, Vec<u32>) =
            (0_u32..).zip(&owner_of).filter_map(|(slot, owner)| Some((slot, (*owner)?))).unzip();
        let first = (0..slots)
            .map(|slot| {
                let at = occupied.partition_point(|taken| *taken < slot);
                let at = if at == occupied.len() { 0 } else { at };
                u32::try_from(at).expect("no more than slots, which is a u32")
            })
            .collect();
        Ok(Self {
            hash: config.hash.clone(),
            slots,
            occupied: occupied.into(),
            owners: owners.into(),
            first,
            collisions,
        })
    }

    /// The owners of the occupied slots, ascending.
    pub(super) fn circle(&self) -> &[u32] {
        &self.owners
    }

    /// Where on the circle `key` falls: the first occupied slot at or after its own.
    pub(super) fn start(&self, key: &[u8]) -> usize {
        self.first[self.hash.request(key, self.slots) as usize] as usize
    }

    /// Where `key` falls. There must be points.
    pub(super) fn spot(&self, key: &[u8]) -> Spot {
        let slot = self.hash.request(key, self.slots);
        let occupied = self.occupied[self.first[slot as usize] as usize];
        Spot::Slots { key: slot, occupied }
    }

    pub(super) fn shares(&self, members: usize) -> Vec<f64> {
        let mut counts = vec![0_u32; members];
        if !self.owners.is_empty() {
            for owner in self.by_residue() {
                counts[owner as usize] += 1;
            }
        }
        counts.into_iter().map(|count| f64::from(count) / f64::from(self.slots)).collect()
    }

    /// The owners of as many requests as there are slots, which stand for all: polynomials depend
    /// on the request's number modulo the slots only, so that one of each residue is enough;
    /// SipHash reaches all slots alike. There must be members.
    pub(super) fn by_residue(&self) -> impl Iterator<Item = u32> {
        (0..self.slots).map(|residue| {
            let slot = match &self.hash {
                ClassicHash::Polynomial { request, .. } => {
                    polynomial(request, residue.into(), self.slots)
                }
                ClassicHash::SipHash => residue,
            };
            self.owners[self.first[slot as usize] as usize]
        })
    }

    /// Whether keys fall on the same slots here and there.
    pub(super) fn hashes_like(&self, other: &Self) -> bool {
        self.slots == other.slots && self.hash == other.hash
    }

    /// The occupied slots with the index of their member, ascending.
    pub fn occupied(&self) -> impl Iterator<Item = (u32, usize)> {
        self.occupied.iter().zip(&self.owners).map(|(slot, owner)| (*slot, *owner as usize))
    }

    /// How often a virtual node met a slot that was taken, every probe counted.
    pub fn collisions(&self) -> u32 {
        self.collisions
    }
}

// === impl Probing ===

impl Probing {
    /// The slots to try, `home` first: every slot is among them.
    fn from(self, home: u32, slots: u32) -> impl Iterator<Item = u32> {
        let home = u64::from(home);
        let wide = u64::from(slots);
        let step = move |k: u64| match self {
            Probing::Linear => k,
            Probing::Quadratic if k < wide => k * (k + 1) / 2,
            Probing::Quadratic => k,
        };
        (0..2 * wide).map(move |k| reduce(home + step(k) % wide, slots))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::seat::Seat;

    fn members(seats: u32) -> Vec<Member> {
        (1..=seats).filter_map(Seat::new).map(|seat| Member::new(MemberId::Seat(seat), 1)).collect()
    }

    fn vectors() -> serde_json::Value {
        serde_json::from_str(include_str!("../../../tests/vectors/classic-ring.json")).unwrap()
    }

    fn shares_of_slots(ring: &Classic, seats: usize) -> Vec<u64> {
        ring.shares(seats).iter().map(|share| (share * 512.0).round() as u64).collect()
    }

    #[test]
    fn shares_and_collisions_equal_the_vectors() {
        let vectors = vectors();
        for seats in 2..=6_u32 {
            let ring = Classic::build(&ClassicConfig::default(), &members(seats)).unwrap();
            let n = seats.to_string();
            let expected: Vec<u64> =
                serde_json::from_value(vectors["shares_of_512"][&n].clone()).unwrap();
            assert_eq!(shares_of_slots(&ring, seats as usize), expected);
            assert_eq!(u64::from(ring.collisions()), vectors["collisions"][&n].as_u64().unwrap());
        }
    }

    #[test]
    fn occupied_slots_of_three_seats_equal_the_vectors() {
        let ring = Classic::build(&ClassicConfig::default(), &members(3)).unwrap();
        let expected: Vec<(u32, usize)> =
            serde_json::from_value(vectors()["occupied_slots_n3"].clone()).unwrap();
        let occupied: Vec<(u32, usize)> =
            ring.occupied().map(|(slot, member)| (slot, member + 1)).collect();
        assert_eq!(occupied, expected);
    }

    #[test]
    fn requests_reach_as_many_slots_as_the_vectors_say() {
        let hash = ClassicConfig::default().hash;
        let reached: std::collections::BTreeSet<u32> =
            (0..100_000_u32).map(|i| hash.request(i.to_string().as_bytes(), 512)).collect();
        assert_eq!(reached.len() as u64, vectors()["distinct_request_slots"].as_u64().unwrap());
    }

    #[test]
    fn as_many_seats_fit_as_the_vectors_say() {
        let most = u32::try_from(vectors()["most_seats_linear_probing"].as_u64().unwrap()).unwrap();
        for probing in [Probing::Linear, Probing::Quadratic] {
            let config = ClassicConfig { probing, ..ClassicConfig::default() };
            assert_eq!(config.capacity(), most as usize);
            assert!(Classic::build(&config, &members(most)).is_ok());
            assert_eq!(
                Classic::build(&config, &members(most + 1)).unwrap_err(),
                PlacementError::Full { points: 513, slots: 512 }
            );
        }
    }

    #[test]
    fn probing_reaches_every_slot_whatever_their_number() {
        for slots in [1, 2, 7, 12, 512, 1000] {
            for probing in [Probing::Linear, Probing::Quadratic] {
                let reached: std::collections::BTreeSet<u32> =
                    probing.from(slots - 1, slots).collect();
                assert_eq!(reached.len(), slots as usize, "{probing:?} of {slots}");
            }
        }
    }

    #[test]
    fn polynomials_take_the_largest_numbers_without_overflow() {
        let x = u128::from(u64::MAX) % 512;
        let naive = (x * x + 2 * x + 17) % 512;
        assert_eq!(u128::from(polynomial(&[17, 2, 1], u64::MAX, 512)), naive);
        assert!(polynomial(&[u64::MAX; 5], u64::MAX, u32::MAX) < u32::MAX);
    }

    #[test]
    fn a_key_that_is_no_number_has_an_owner_too() {
        let hash = ClassicConfig::default().hash;
        for key in ["", "abc", "12a", "+5", "99999999999999999999999"] {
            assert!(hash.request(key.as_bytes(), 512) < 512);
            assert_eq!(decimal(key.as_bytes()), None);
        }
        assert_eq!(decimal(b"000017"), Some(17));
    }
}
