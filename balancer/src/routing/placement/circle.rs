//! Points on a circle, each with its owner: what `ring` and `ketama` look keys up in.

use std::ops::Range;

use super::Spot;
use super::owners::Places;

/// The points of the circle, ascending, in as many parts as there are numbers of so many leading
/// bits: a look-up reads where its key's part begins and ends, and counts the few points in it that
/// come before the key.
///
/// A point and its owner are one number. The part says the point's leading bits, so these are left
/// out, and the owner takes their place at the other end: `bits` are enough for it, too.
#[derive(Clone, Debug)]
pub(super) struct Circle {
    /// The rest of the point, then its owner. Behind the last one there are [`AT_ONCE`] more
    /// numbers, so that as many can be looked at anywhere.
    entries: Box<[u64]>,
    /// Where the entries of each part begin; at the end, where the last ones end.
    begins: Box<[u32]>,
    bits: u32,
}

/// How long the circle is.
pub(super) const WHOLE: u128 = 1 << 64;

/// So many points are 8 MiB of entries: with as many begins beside them there is no gain.
const MANY: usize = 1 << 20;

/// How many entries of a part are looked at without asking whether that was needed.
const AT_ONCE: usize = 4;

// === impl Circle ===

impl Circle {
    /// Of the points of each member, in any order; the members in theirs. Of two members on one
    /// point the first one is first.
    pub(super) fn build(points: &[u64], counts: &[u32]) -> Self {
        debug_assert_eq!(points.len(), counts.iter().map(|count| *count as usize).sum::<usize>());
        let bits = bits(points.len(), counts.len());
        let part = |point: u64| (point >> (u64::BITS - bits)) as usize;

        // Where each part ends, and where it begins once all its points are put there backwards.
        let mut begins = vec![0_u32; (1 << bits) + 1].into_boxed_slice();
        for point in points {
            begins[part(*point)] += 1;
        }
        let mut before = 0;
        for begin in &mut begins {
            before += *begin;
            *begin = before;
        }
        let mut entries = vec![0; points.len() + AT_ONCE].into_boxed_slice();
        let mut rest = points;
        for (owner, count) in (0_u64..).zip(counts) {
            let (own, others) = rest.split_at(*count as usize);
            rest = others;
            for point in own {
                let begin = &mut begins[part(*point)];
                *begin -= 1;
                entries[*begin as usize] = (point << bits) | owner;
            }
        }
        for part in begins.windows(2) {
            sort(&mut entries[part[0] as usize..part[1] as usize]);
        }
        Self { entries, begins, bits }
    }

    /// Keeps one of equal points: the first one's.
    pub(super) fn without_equals(self) -> Self {
        let Self { entries, mut begins, bits } = self;
        let mut kept = Vec::with_capacity(entries.len());
        let mut begin = 0;
        for part in 1..begins.len() {
            let end = begins[part] as usize;
            let own = &entries[begin..end];
            let equals = |one: &u64, other: &u64| one >> bits == other >> bits;
            let first = |at: &usize| *at == 0 || !equals(&own[at - 1], &own[*at]);
            kept.extend((0..own.len()).filter(first).map(|at| own[at]));
            begin = end;
            begins[part] = u32::try_from(kept.len()).expect("no more than there were");
        }
        kept.extend([0; AT_ONCE]);
        Self { entries: kept.into(), begins, bits }
    }

    /// The first point at or after `hash`, wrapping round.
    pub(super) fn at_or_after(&self, hash: u64) -> usize {
        let part = (hash >> (u64::BITS - self.bits)) as usize;
        let (begin, end) = (self.begins[part] as usize, self.begins[part + 1] as usize);
        // Less than the entry of a point here, whoever owns it.
        let wanted = hash << self.bits;
        let few = &self.entries[begin..][..AT_ONCE];
        // Where the part has less, those of the next one do not count.
        let before = |at: usize| usize::from(begin + at < end) & usize::from(few[at] < wanted);
        let mut at = begin + (0..AT_ONCE).map(before).sum::<usize>();
        if at == begin + AT_ONCE {
            at += self.entries[at..end].iter().take_while(|entry| **entry < wanted).count();
        }
        if at == self.count() { 0 } else { at }
    }

    /// Where `hash` falls, and the first point at or after it. There must be points.
    pub(super) fn spot(&self, hash: u64) -> Spot {
        let at = self.at_or_after(hash);
        // The last of the parts that begin there or before: others that do are empty.
        let part = self.begins.partition_point(|begin| *begin as usize <= at) - 1;
        let leading = (part as u64) << (u64::BITS - self.bits);
        Spot::Circle { key: hash, point: leading | (self.entries[at] >> self.bits) }
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
        let ends = self.points().map(|(point, owner)| (u128::from(point) + 1, owner));
        let last = self.points().next().map(|(_, owner)| (WHOLE, owner));
        ends.chain(last).scan(0, |start, (end, owner)| {
            let arc = *start..end;
            *start = end;
            Some((arc, owner))
        })
    }

    /// The points, ascending, each with its owner.
    fn points(&self) -> impl Iterator<Item = (u64, u32)> {
        (0_u64..).zip(self.begins.windows(2)).flat_map(move |(part, ends)| {
            (ends[0] as usize..ends[1] as usize).map(move |at| {
                let rest = self.entries[at] >> self.bits;
                ((part << (u64::BITS - self.bits)) | rest, self.owner(at))
            })
        })
    }
}

impl Places for &Circle {
    fn count(self) -> usize {
        self.entries.len() - AT_ONCE
    }

    fn owner(self, at: usize) -> u32 {
        let owner = self.entries[at] & !(u64::MAX << self.bits);
        u32::try_from(owner).expect("it was one")
    }
}

/// How many leading bits tell parts apart: so many that there are one to two points in each, or two
/// to four where they are too many for the nearer caches, and that no owner is greater.
fn bits(points: usize, members: usize) -> u32 {
    let most = if points > MANY { 4 } else { 2 };
    let parts = (points / most).max(members).max(2);
    parts.next_power_of_two().trailing_zeros()
}

/// Sorts the entries of one part: mostly one or two.
fn sort(entries: &mut [u64]) {
    match entries {
        [] | [_] => {}
        [one, other] => {
            if one > other {
                std::mem::swap(one, other);
            }
        }
        more => more.sort_unstable(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn points_are_sorted_and_those_at_or_after_a_hash_are_found(
            many in prop::collection::vec(prop::collection::vec(any::<u64>(), 0..40), 1..9),
            // All in one part, some of them equal.
            few in prop::collection::vec(prop::collection::vec(0_u64..30, 0..9), 1..9),
            hashes in prop::collection::vec(any::<u64>(), 20),
        ) {
            let members = [many, few].concat();
            let counts: Vec<u32> = members.iter().map(|own| own.len() as u32).collect();
            let circle = Circle::build(&members.concat(), &counts);
            let mut naive: Vec<(u64, u32)> = (0..)
                .zip(&members)
                .flat_map(|(owner, own)| own.iter().map(move |point| (*point, owner)))
                .collect();
            naive.sort_unstable();
            prop_assert_eq!(circle.points().collect::<Vec<_>>(), naive.clone());
            for hash in hashes.into_iter().chain(0..40).chain([u64::MAX]) {
                let at = naive.iter().position(|(point, _)| *point >= hash).unwrap_or(0);
                prop_assert_eq!(circle.at_or_after(hash), at);
                if let Some((point, _)) = naive.get(at) {
                    prop_assert_eq!(circle.spot(hash), Spot::Circle { key: hash, point: *point });
                }
            }
            naive.dedup_by_key(|(point, _)| *point);
            let circle = circle.without_equals();
            prop_assert_eq!(circle.points().collect::<Vec<_>>(), naive.clone());
            for hash in 0..40 {
                let at = naive.iter().position(|(point, _)| *point >= hash).unwrap_or(0);
                prop_assert_eq!(circle.at_or_after(hash), at);
            }
        }
    }

    /// `count` points that look random, for each of the members.
    fn circle(count: u64, members: u32) -> Circle {
        let all = count * u64::from(members);
        let points: Vec<u64> = (1..=all).map(|i| i.wrapping_mul(0x9E37_79B9_7F4A_7C15)).collect();
        Circle::build(&points, &vec![count as u32; members as usize])
    }

    #[test]
    fn the_index_finds_what_a_search_of_all_points_finds() {
        for count in [1, 2, 3, 160, 250] {
            let circle = circle(count, 3);
            let points: Vec<u64> = circle.points().map(|(point, _)| point).collect();
            let probes = points.iter().flat_map(|p| [p.wrapping_sub(1), *p, p.wrapping_add(1)]);
            for hash in probes.chain([0, 1, u64::MAX, u64::MAX / 2]) {
                let naive = points.iter().position(|point| *point >= hash).unwrap_or(0);
                assert_eq!(circle.at_or_after(hash), naive, "{hash} of {count}");
            }
        }
    }

    #[test]
    fn one_point_owns_the_whole_circle() {
        assert_eq!(circle(1, 1).shares(1), [1.0]);
        let lone = |point| Circle::build(&[point], &[1]);
        for point in [0, 1, u64::MAX] {
            assert_eq!(lone(point).shares(1), [1.0], "{point}");
            let pairs: u128 = lone(point).overlay(&lone(7)).map(|(length, ..)| length).sum();
            assert_eq!(pairs, WHOLE);
        }
    }

    #[test]
    fn two_circles_overlap_as_look_ups_say() {
        let (one, two) = (circle(17, 3), circle(18, 4));
        let mut start = 0_u128;
        for (length, here, there) in one.overlay(&two) {
            // Points at the ends of neighbouring arcs: some have no length.
            if length > 0 {
                for hash in [start, start + length / 2, start + length - 1] {
                    let hash = u64::try_from(hash).unwrap();
                    assert_eq!((&one).owner(one.at_or_after(hash)), here);
                    assert_eq!((&two).owner(two.at_or_after(hash)), there);
                }
            }
            start += length;
        }
        assert_eq!(start, WHOLE);
    }
}
