//! `ring`: consistent hashing on a 64-bit circle (Karger et al., STOC 1997), points and keys
//! placed by SipHash-1-3 (Aumasson & Bernstein, 2012).

use std::fmt;
use std::hash::Hasher as _;

use siphasher::sip::SipHasher13;

use super::circle::Circle;
use super::words::Words;
use super::{Member, Spot};
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
        let (hasher, words) = (config.secret.hasher(), Words::new(config.secret));
        let each = config.virtual_nodes.into();
        let counts: Vec<u32> = members.iter().map(|member| member.points(each)).collect();
        let mut points = Vec::with_capacity(counts.iter().map(|count| *count as usize).sum());
        for (member, count) in members.iter().zip(&counts) {
            let numbers = 0..u64::from(*count);
            match member.id {
                MemberId::Seat(seat) => {
                    let own = words.then(seat.get().into());
                    points.extend(numbers.map(|j| own.then(j).hash()));
                }
                id @ MemberId::Address(_) => {
                    let hasher = begun(&hasher, id);
                    points.extend(numbers.map(|j| hasher.hash(&j.to_le_bytes())));
                }
            }
        }
        Self { circle: Circle::build(&points, &counts), hasher }
    }

    pub(super) fn circle(&self) -> &Circle {
        &self.circle
    }

    /// Where on the circle `key` falls: the first point at or after its hash, wrapping round.
    pub(super) fn start(&self, key: &[u8]) -> usize {
        self.circle.at_or_after(self.hasher.hash(key))
    }

    /// Where `key` falls. There must be points.
    pub(super) fn spot(&self, key: &[u8]) -> Spot {
        self.circle.spot(self.hasher.hash(key))
    }

    /// Whether keys have the same hashes here and there.
    pub(super) fn hashes_like(&self, other: &Self) -> bool {
        self.hasher.key() == other.hasher.key()
    }
}

/// The `j`-th point of a member: SipHash of its seat or address, and `j`.
pub(super) fn point(hasher: &SipHasher13, id: MemberId, j: u64) -> u64 {
    begun(hasher, id).hash(&j.to_le_bytes())
}

/// What hashes a member's points, with its seat or address behind it.
fn begun(hasher: &SipHasher13, id: MemberId) -> SipHasher13 {
    let mut hasher = *hasher;
    match id {
        MemberId::Seat(seat) => hasher.write(&u64::from(seat.get()).to_le_bytes()),
        MemberId::Address(address) => hasher.write(address.to_string().as_bytes()),
    }
    hasher
}
