//! Points on a circle, each with its owner: what `ring` and `ketama` look keys up in.

use std::ops::Range;

/// The points of the circle, ascending, with an index by their leading bits: a look-up reads the
/// index once and walks on average one point.
#[derive(Clone, Debug)]
pub(super) struct Circle {
    points: Box<[u64]>,
    owners: Box<[u32]>,
    /// `index[p]`: the first point whose leading bits are at least `p`.
    index: Box<[u32]>,
    shift: u32,
}

/// Where it is, and the member that has it. Of two members on one point the one of the smaller
/// identity is first, in every build.
pub(super) type Point = (u64, u32);

/// How long the circle is.
pub(super) const WHOLE: u128 = 1 << 64;

// === impl Circle ===

impl Circle {
    /// Of points that are hashes, in any order.
    pub(super) fn of_hashes(placed: Vec<Point>) -> Self {
        let bits = leading_bits(placed.len());
        let mut index = vec![0; 1 << bits].into_boxed_slice();
        let (points, owners) =
            sort(placed, &mut index, bits).into_iter().unzip::<_, _, Vec<_>, Vec<_>>();
        Self { points: points.into(), owners: owners.into(), index, shift: u64::BITS - bits }
    }

    /// Of points, ascending.
    pub(super) fn build(placed: Vec<Point>) -> Self {
        debug_assert!(placed.is_sorted_by_key(|(point, _)| *point));
        let bits = leading_bits(placed.len());
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
        Self { points: points.into(), owners: owners.into(), index, shift }
    }

    /// The owners of the points, clockwise.
    pub(super) fn owners(&self) -> &[u32] {
        &self.owners
    }

    /// The first point at or after `hash`, wrapping round.
    pub(super) fn at_or_after(&self, hash: u64) -> usize {
        let mut at = self.index[(hash >> self.shift) as usize] as usize;
        while at < self.points.len() && self.points[at] < hash {
            at += 1;
        }
        if at == self.points.len() { 0 } else { at }
    }

    /// The exact share of the circle of each of so many members.
    pub(super) fn shares(&self, members: usize) -> Vec<f64> {
        let mut arcs = vec![0_u128; members];
        for (arc, owner) in self.arcs() {
            arcs[owner as usize] += arc.end - arc.start;
        }
        arcs.into_iter().map(|arc| arc as f64 / WHOLE as f64).collect()
    }

    /// The length of every arc that has one owner here and one there, with the two. Neither circle
    /// may be empty.
    pub(super) fn overlay(&self, other: &Self) -> impl Iterator<Item = (u128, u32, u32)> {
        let (mut ours, mut theirs) = (self.arcs(), other.arcs());
        let (mut mine, mut its) = (ours.next(), theirs.next());
        let mut at = 0;
        std::iter::from_fn(move || {
            let ((here, one), (there, two)) = (mine.clone()?, its.clone()?);
            let end = here.end.min(there.end);
            let length = end - at;
            at = end;
            if here.end == end {
                mine = ours.next();
            }
            if there.end == end {
                its = theirs.next();
            }
            Some((length, one, two))
        })
    }

    /// The arcs from 0 on, which all together are the whole circle; what is beyond the last point
    /// is the first one's.
    fn arcs(&self) -> impl Iterator<Item = (Range<u128>, u32)> {
        let ends = self.points.iter().map(|point| u128::from(*point) + 1);
        let (ends, owners) = (ends.chain([WHOLE]), self.owners.iter().chain(self.owners.first()));
        ends.zip(owners).scan(0, |start, (end, owner)| {
            let arc = *start..end;
            *start = end;
            Some((arc, *owner))
        })
    }
}

/// By how many of their leading bits so many points are found: about one for each number.
fn leading_bits(points: usize) -> u32 {
    points.next_power_of_two().trailing_zeros().max(1)
}

/// Sorts points, and finds in `index` where those begin whose leading `bits` are each number.
///
/// Points are hashes, so that there is about one for each number: they are counted and put where
/// they belong, first by half of these bits, so that all of a part is in the processor's cache, then
/// within each part by all of them.
fn sort(mut placed: Vec<Point>, index: &mut [u32], bits: u32) -> Vec<Point> {
    let coarse = bits.div_ceil(2);
    let fine = bits - coarse;
    let mut begins = vec![0; 1 << coarse];
    let mut spread = vec![(0, 0); placed.len()];
    distribute(&placed, &mut spread, &mut begins, |point| (point >> (u64::BITS - coarse)) as usize);
    let ends = begins.iter().skip(1).copied().chain([all(&spread)]);
    for ((from, to), index) in begins.iter().zip(ends).zip(index.chunks_mut(1 << fine)) {
        let part = *from as usize..to as usize;
        let of = |point: u64| (point >> (u64::BITS - bits)) as usize & ((1 << fine) - 1);
        let sorted = &mut placed[part.clone()];
        distribute(&spread[part], sorted, index, of);
        let ends = index.iter().skip(1).copied().chain([to - from]);
        for (begin, end) in index.iter().zip(ends) {
            sorted[*begin as usize..end as usize].sort_unstable();
        }
        index.iter_mut().for_each(|begin| *begin += from);
    }
    placed
}

/// Puts points into parts, in their order, and tells where each begins.
fn distribute(from: &[Point], to: &mut [Point], begins: &mut [u32], part: impl Fn(u64) -> usize) {
    begins.fill(0);
    for (point, _) in from {
        begins[part(*point)] += 1;
    }
    let mut before = 0;
    for begin in begins.iter_mut() {
        before += std::mem::replace(begin, before);
    }
    for placed in from {
        let at = &mut begins[part(placed.0)];
        to[*at as usize] = *placed;
        *at += 1;
    }
    // Each is at its part's end now, where the next one begins.
    begins.rotate_right(1);
    begins[0] = 0;
}

fn all(points: &[Point]) -> u32 {
    u32::try_from(points.len()).expect("fewer points than 2^32: so many fit into no memory")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn points_are_sorted_and_found_by_their_prefix(
            points in prop::collection::vec((any::<u64>(), 0_u32..5), 0..300),
            few in prop::collection::vec((0_u64..4, 0_u32..5), 0..20),
        ) {
            let placed = [points, few].concat();
            let bits = leading_bits(placed.len());
            let mut index = vec![0; 1 << bits];
            let sorted = sort(placed.clone(), &mut index, bits);
            let mut naive = placed;
            naive.sort_unstable();
            prop_assert_eq!(&sorted, &naive);
            for (prefix, first) in (0_u64..).zip(index) {
                let below = naive.iter().filter(|(point, _)| point >> (64 - bits) < prefix).count();
                prop_assert_eq!(first as usize, below);
            }
        }
    }

    /// `count` points that look random, with owners in turns.
    fn circle(count: u64, members: u32) -> Circle {
        let mut placed: Vec<(u64, u32)> = (1..=count)
            .zip((0..members).cycle())
            .map(|(i, owner)| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15), owner))
            .collect();
        placed.sort_unstable();
        Circle::build(placed)
    }

    #[test]
    fn the_index_finds_what_a_search_of_all_points_finds() {
        for count in [1, 2, 3, 480, 700] {
            let circle = circle(count, 3);
            let probes =
                circle.points.iter().flat_map(|p| [p.wrapping_sub(1), *p, p.wrapping_add(1)]);
            for hash in probes.chain([0, 1, u64::MAX, u64::MAX / 2]) {
                let naive = circle.points.iter().position(|point| *point >= hash).unwrap_or(0);
                assert_eq!(circle.at_or_after(hash), naive, "{hash} of {count}");
            }
        }
    }

    #[test]
    fn one_point_owns_the_whole_circle() {
        assert_eq!(circle(1, 1).shares(1), [1.0]);
        let lone = |point| Circle::build(vec![(point, 0)]);
        for point in [0, 1, u64::MAX] {
            assert_eq!(lone(point).shares(1), [1.0], "{point}");
            let pairs: u128 = lone(point).overlay(&lone(7)).map(|(length, ..)| length).sum();
            assert_eq!(pairs, WHOLE);
        }
    }

    #[test]
    fn two_circles_overlap_as_look_ups_say() {
        let (one, two) = (circle(50, 3), circle(70, 4));
        let mut start = 0_u128;
        for (length, here, there) in one.overlay(&two) {
            // Points at the ends of neighbouring arcs: some have no length.
            if length > 0 {
                for hash in [start, start + length / 2, start + length - 1] {
                    let hash = u64::try_from(hash).unwrap();
                    assert_eq!(one.owners[one.at_or_after(hash)], here);
                    assert_eq!(two.owners[two.at_or_after(hash)], there);
                }
            }
            start += length;
        }
        assert_eq!(start, WHOLE);
    }
}
