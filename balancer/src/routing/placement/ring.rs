//! `ring`: consistent hashing on a 64-bit circle (Karger et al., STOC 1997), points and keys
//! placed by SipHash-1-3 (Aumasson & Bernstein, 2012).

use std::fmt;

use siphasher::sip::SipHasher13;

use super::Member;
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

/// The points of the circle, ascending, with an index by their leading bits: a look-up reads the
/// index once and walks on average one point.
#[derive(Clone, Debug)]
pub struct Ring {
    points: Box<[u64]>,
    owners: Box<[u32]>,
    /// `index[p]`: the first point whose leading bits are at least `p`.
    index: Box<[u32]>,
    shift: u32,
    hasher: SipHasher13,
}

// === impl RingConfig ===

impl Default for RingConfig {
    fn default() -> Self {
        Self { virtual_nodes: VIRTUAL_NODES, secret: Secret::default() }
    }
}

// === impl Secret ===

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

// === impl Ring ===

impl Ring {
    pub(super) fn build(config: &RingConfig, members: &[Member]) -> Self {
        let hasher = SipHasher13::new_with_key(&config.secret.0);
        let mut placed: Vec<(u64, u32)> = (0_u32..)
            .zip(members)
            .flat_map(|(index, member)| {
                let points = u64::from(config.virtual_nodes) * u64::from(member.weight);
                (0..member.part_of(points)).map(move |j| (point(&hasher, member.id, j), index))
            })
            .collect();
        // Two members on one point: the one of the smaller identity is first, in every build.
        placed.sort_unstable();

        let bits = placed.len().next_power_of_two().trailing_zeros().max(1);
        let shift = u64::BITS - bits;
        let mut index = vec![0_u32; 1 << bits].into_boxed_slice();
        let mut at = 0;
        for (prefix, first) in index.iter_mut().enumerate() {
            while at < placed.len() && ((placed[at].0 >> shift) as usize) < prefix {
                at += 1;
            }
            *first = u32::try_from(at).expect("fewer points than 2^32: members are u32 times u32");
        }
        let (points, owners) = placed.into_iter().unzip::<_, _, Vec<_>, Vec<_>>();
        Self { points: points.into(), owners: owners.into(), index, shift, hasher }
    }

    /// The owners of the points, clockwise.
    pub(super) fn circle(&self) -> &[u32] {
        &self.owners
    }

    /// Where on the circle `key` falls: the first point at or after its hash, wrapping round.
    pub(super) fn start(&self, key: &[u8]) -> usize {
        self.at_or_after(self.hasher.hash(key))
    }

    fn at_or_after(&self, hash: u64) -> usize {
        let mut at = self.index[(hash >> self.shift) as usize] as usize;
        while at < self.points.len() && self.points[at] < hash {
            at += 1;
        }
        if at == self.points.len() { 0 } else { at }
    }

    pub(super) fn shares(&self, members: usize) -> Vec<f64> {
        let mut arcs = vec![0_u128; members];
        let before = self.points.last().into_iter().chain(&self.points);
        for ((from, to), owner) in before.zip(&self.points).zip(&self.owners) {
            // A lone point owns the whole circle, which is 0 modulo its length.
            let arc = if self.points.len() == 1 { 1 << 64 } else { to.wrapping_sub(*from).into() };
            arcs[*owner as usize] += arc;
        }
        arcs.into_iter().map(|arc: u128| arc as f64 / 2_f64.powi(64)).collect()
    }
}

/// The `j`-th point of a member: SipHash of its seat or address, and `j`.
fn point(hasher: &SipHasher13, id: MemberId, j: u64) -> u64 {
    match id {
        MemberId::Seat(seat) => {
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&u64::from(seat.get()).to_le_bytes());
            bytes[8..].copy_from_slice(&j.to_le_bytes());
            hasher.hash(&bytes)
        }
        MemberId::Address(address) => {
            let mut bytes = address.to_string().into_bytes();
            bytes.extend_from_slice(&j.to_le_bytes());
            hasher.hash(&bytes)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::seat::Seat;

    fn ring(seats: u32, virtual_nodes: u32) -> Ring {
        let members: Vec<Member> = (1..=seats)
            .filter_map(Seat::new)
            .map(|seat| Member::new(MemberId::Seat(seat), 1))
            .collect();
        Ring::build(&RingConfig { virtual_nodes, ..RingConfig::default() }, &members)
    }

    #[test]
    fn the_index_finds_what_a_search_of_all_points_finds() {
        for (seats, virtual_nodes) in [(1, 1), (2, 1), (3, 160), (100, 7)] {
            let ring = ring(seats, virtual_nodes);
            let probes =
                ring.points.iter().flat_map(|p| [p.wrapping_sub(1), *p, p.wrapping_add(1)]);
            for hash in probes.chain([0, 1, u64::MAX, u64::MAX / 2]) {
                let naive = ring.points.iter().position(|point| *point >= hash).unwrap_or(0);
                assert_eq!(ring.at_or_after(hash), naive, "{hash} of {seats} × {virtual_nodes}");
            }
        }
    }

    #[test]
    fn one_point_owns_the_whole_circle() {
        assert_eq!(ring(1, 1).shares(1), [1.0]);
    }
}
