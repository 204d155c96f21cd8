//! `ring`: consistent hashing on a 64-bit circle (Karger et al., STOC 1997), points and keys
//! placed by SipHash-1-3 (Aumasson & Bernstein, 2012).

use std::fmt;

use siphasher::sip::SipHasher13;

use super::Member;
use super::circle::Circle;
use crate::fleet::seat::MemberId;

/// Points of a member of weight 1 where nothing else is said.
pub const VIRTUAL_NODES: u32 = 160;

/// Settings of the ring.
#[derive(Clone, Debug, PartialEq)]
pub struct RingConfig {
    /// Points of a member of weight 1; at least 1.
    pub virtual_nodes: u32,
    /// Keys the SipHash of points and request keys. Balancers that should agree share it.
    pub secret: Secret,
}

/// 16 bytes that outsiders do not know, so that they cannot aim requests at one replica.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Secret(pub [u8; 16]);

/// The circle, and what places keys on it.
#[derive(Clone, Debug)]
pub struct Ring {
    circle: Circle,
    hasher: SipHasher13,
}

// === impl RingConfig ===

impl Default for RingConfig {
    fn default() -> Self {
        Self { virtual_nodes: VIRTUAL_NODES, secret: Secret::default() }
    }
}

// === impl Secret ===

impl Secret {
    /// SipHash-1-3 that only those can work out who know it.
    pub(super) fn hasher(self) -> SipHasher13 {
        SipHasher13::new_with_key(&self.0)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

// === impl Ring ===

impl Ring {
    pub(super) fn build(config: &RingConfig, members: &[Member]) -> Self {
        let hasher = config.secret.hasher();
        let placed: Vec<(u64, u32)> = (0_u32..)
            .zip(members)
            .flat_map(|(index, member)| {
                let points = u64::from(config.virtual_nodes) * u64::from(member.weight);
                (0..member.part_of(points)).map(move |j| (point(&hasher, member.id, j), index))
            })
            .collect();
        Self { circle: Circle::of_hashes(placed), hasher }
    }

    pub(super) fn circle(&self) -> &Circle {
        &self.circle
    }

    /// Where on the circle `key` falls: the first point at or after its hash, wrapping round.
    pub(super) fn start(&self, key: &[u8]) -> usize {
        self.circle.at_or_after(self.hasher.hash(key))
    }

    /// Whether keys have the same hashes here and there.
    pub(super) fn hashes_like(&self, other: &Self) -> bool {
        self.hasher.key() == other.hasher.key()
    }
}

/// The `j`-th point of a member: SipHash of its seat or address, and `j`.
pub(super) fn point(hasher: &SipHasher13, id: MemberId, j: u64) -> u64 {
    match id {
        MemberId::Seat(seat) => of_two(hasher, seat.get().into(), j),
        MemberId::Address(address) => {
            let mut bytes = address.to_string().into_bytes();
            bytes.extend_from_slice(&j.to_le_bytes());
            hasher.hash(&bytes)
        }
    }
}

/// SipHash of two numbers.
pub(super) fn of_two(hasher: &SipHasher13, one: u64, two: u64) -> u64 {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&one.to_le_bytes());
    bytes[8..].copy_from_slice(&two.to_le_bytes());
    hasher.hash(&bytes)
}
