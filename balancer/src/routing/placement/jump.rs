//! `jump`: no table at all (Lamping & Veach, *A Fast, Minimal Memory, Consistent Hash Algorithm*,
//! 2014). Its buckets are numbered, and only the last may leave without moving others: so they are
//! the seats, from 1 to the highest that is taken.
//!
//! A key that falls on a seat that nobody has falls again, by another hash, 128 times at most; then
//! the first member at or after the last fall takes it. So when a seat between others is left
//! or taken, only its own keys move, evenly from or to all others, as with `ring`; each look-up pays
//! for it with as many falls as there are seats for every one that is taken. The same holds for the
//! highest seat, unless the seats just below it are empty, too: then keys that had fallen on those
//! and again fall anew among fewer, and some of them move between others. A newcomer with some
//! tenths of its share lets the other keys fall again.
//!
//! Weights mean nothing here. The next owners are where the key falls further on; after 128 falls,
//! the rest in ascending order from the last one.

use siphasher::sip::SipHasher13;

use super::words::Words;
use super::{Member, PlacementError, Secret, TENTHS};

/// How often a key falls at most. With every second seat empty, one key in 2¹²⁸ does so in vain;
/// with nine of ten, one in 700,000.
const TRIES: u32 = 128;

/// The seats that are taken, and what keys fall by.
#[derive(Clone, Debug)]
pub struct Jump {
    /// Ascending.
    seats: Box<[u32]>,
    /// For each of them, how many in ten keys that fall there it takes.
    tenths: Box<[u8]>,
    hasher: SipHasher13,
    words: Words,
}

/// Whom a key comes to, one after another; not each once.
#[derive(Debug)]
pub(super) struct Falls<'a> {
    jump: &'a Jump,
    key: u64,
    tries: u32,
    /// The first member at or after the last fall.
    at: usize,
    /// How many members were counted up to since the last fall.
    counted: usize,
}

// === impl Jump ===

impl Jump {
    pub(super) fn build(secret: Secret, members: &[Member]) -> Result<Self, PlacementError> {
        let seat = |member: &Member| {
            let seat = member.id.seat().ok_or(PlacementError::NoSeat(member.id))?;
            Ok(seat.get())
        };
        Ok(Self {
            seats: members.iter().map(seat).collect::<Result<_, _>>()?,
            tenths: members.iter().map(Member::tenths).collect(),
            hasher: secret.hasher(),
            words: Words::new(secret),
        })
    }

    pub(super) fn falls(&self, key: &[u8]) -> Falls<'_> {
        let key = self.hasher.hash(key);
        Falls { jump: self, key, tries: 0, at: 0, counted: 0 }
    }

    /// Of an ideal hash: every fall comes to every seat with the same probability.
    pub(super) fn shares(&self) -> Vec<f64> {
        let tenths = |of: u8| f64::from(of) / f64::from(TENTHS);
        let seats = f64::from(self.buckets());
        let taking: f64 = self.tenths.iter().map(|of| tenths(*of)).sum();
        let in_vain = (1.0 - taking / seats).powf(TRIES.into());
        let before = [0].into_iter().chain(self.seats.iter().copied());
        let gaps = before.zip(&self.seats).map(|(before, seat)| f64::from(seat - before - 1));
        gaps.zip(&self.tenths)
            .map(|(gap, of)| {
                let fallen = (1.0 - in_vain) * tenths(*of) / taking;
                let refused = gap + 1.0 - tenths(*of);
                // Where nobody refuses, nothing falls in vain.
                if refused > 0.0 { fallen + in_vain * refused / (seats - taking) } else { fallen }
            })
            .collect()
    }

    /// As many buckets as the highest seat.
    fn buckets(&self) -> u32 {
        self.seats.last().copied().unwrap_or_default()
    }

    /// The first member at or after the seat; there is one, for the highest seat is taken.
    fn at_or_after(&self, seat: u32) -> usize {
        // Where all seats before it are taken, and mostly they are, it is at its number.
        let at = seat as usize - 1;
        if self.seats.get(at) == Some(&seat) {
            at
        } else {
            self.seats.partition_point(|taken| *taken < seat)
        }
    }

    /// Whether the member takes a key that falls on its seat with this hash.
    fn takes(&self, member: usize, fall: u64) -> bool {
        let tenths = self.tenths[member];
        // Hashed once more: what falls here is alike in other respects.
        tenths == TENTHS
            || self.hasher.hash(&fall.to_le_bytes()) % u64::from(TENTHS) < tenths.into()
    }
}

/// The bucket of a key, from 0: figure 1 of the paper.
fn jump(mut key: u64, buckets: u32) -> u32 {
    let (mut bucket, mut next) = (0, 0);
    while next < u64::from(buckets) {
        bucket = next;
        key = key.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        let shrink = 2_f64.powi(31) / ((key >> 33) + 1) as f64;
        next = ((bucket + 1) as f64 * shrink) as u64;
    }
    u32::try_from(bucket).expect("less than buckets, which is a u32")
}

// === impl Falls ===

impl Iterator for Falls<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let Jump { seats, words, .. } = self.jump;
        if seats.is_empty() {
            return None;
        }
        while self.tries < TRIES {
            let fall = if self.tries == 0 {
                self.key
            } else {
                words.then(self.key).then(self.tries.into()).hash()
            };
            self.tries += 1;
            let seat = 1 + jump(fall, self.jump.buckets());
            self.at = self.jump.at_or_after(seat);
            if seats[self.at] == seat && self.jump.takes(self.at, fall) {
                return index(self.at);
            }
        }
        if self.counted == seats.len() {
            return None;
        }
        let at = (self.at + self.counted) % seats.len();
        self.counted += 1;
        index(at)
    }
}

fn index(member: usize) -> Option<u32> {
    Some(u32::try_from(member).expect("members are counted in u32"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::seat::{MemberId, Seat};

    fn seated(seats: impl IntoIterator<Item = u32>) -> Jump {
        let seats = seats.into_iter().filter_map(Seat::new);
        let members: Vec<Member> = seats.map(|seat| Member::new(MemberId::Seat(seat), 1)).collect();
        Jump::build(Secret::default(), &members).unwrap()
    }

    /// The seat that owns a key.
    fn owner(jump: &Jump, key: u32) -> u32 {
        let member = jump.falls(key.to_string().as_bytes()).next().unwrap();
        jump.seats[member as usize]
    }

    /// What moves, as pairs of an old and a new owner.
    fn moves(before: &Jump, after: &Jump) -> Vec<(u32, u32)> {
        let both = (0..5_000).map(|key| (owner(before, key), owner(after, key)));
        both.filter(|(old, new)| old != new).collect()
    }

    #[test]
    fn buckets_are_those_of_other_implementations() {
        for (key, buckets, bucket) in [
            (1, 1, 0),
            (42, 57, 43),
            (0xDEAD_10CC, 1, 0),
            (0xDEAD_10CC, 666, 361),
            (256, 1_024, 520),
        ] {
            assert_eq!(jump(key, buckets), bucket, "{key} of {buckets}");
        }
    }

    #[test]
    fn buckets_are_those_of_the_definition() {
        // ch(k, n) of §2: with every further bucket, a key moves there or stays.
        for key in (0..200).map(|key: u64| key.wrapping_mul(0x9E37_79B9_7F4A_7C15)) {
            let mut before = jump(key, 1);
            assert_eq!(before, 0);
            for buckets in 2..=100 {
                let after = jump(key, buckets);
                assert!(after == before || after == buckets - 1, "{key} of {buckets}");
                before = after;
            }
        }
        assert!(jump(u64::MAX, u32::MAX) < u32::MAX);
    }

    #[test]
    fn a_seat_that_comes_or_leaves_moves_only_its_keys() {
        // The highest, and one between others; beside the seats themselves, with a gap already.
        for (all, seat) in
            [(vec![1, 2, 3, 4, 5], 5), (vec![1, 2, 3, 4, 5], 2), (vec![1, 3, 6, 7], 3)]
        {
            let rest = all.iter().copied().filter(|other| *other != seat);
            let (more, less) = (seated(all.clone()), seated(rest));
            let left = moves(&more, &less);
            assert!(!left.is_empty() && left.iter().all(|(old, _)| *old == seat), "{all:?} {seat}");
            let came = moves(&less, &more);
            assert!(came.iter().all(|(_, new)| *new == seat), "{all:?} {seat}");
        }
    }

    #[test]
    fn others_move_too_when_the_highest_seat_leaves_and_those_below_it_are_empty() {
        let left = moves(&seated([1, 2, 3, 6]), &seated([1, 2, 3]));
        assert!(left.iter().any(|(old, _)| *old != 6), "{left:?}");
    }

    #[test]
    fn shares_are_what_keys_see_whatever_is_empty() {
        for seats in [vec![1], vec![7], vec![1, 2, 3], vec![2, 9, 10], vec![3, 400]] {
            let jump = seated(seats.clone());
            let shares = jump.shares();
            assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{seats:?}: {shares:?}");
            for (seat, share) in seats.iter().zip(shares) {
                let count = (0..20_000).filter(|key| owner(&jump, *key) == *seat).count();
                let measured = count as f64 / 20_000.0;
                assert!((measured - share).abs() < 0.02, "{seats:?} {seat}: {measured}, {share}");
            }
        }
    }

    #[test]
    fn shares_of_newcomers_are_what_keys_see() {
        let members: Vec<Member> = [(1, 10), (2, 1), (4, 5)]
            .into_iter()
            .map(|(seat, tenths)| {
                let id = MemberId::Seat(Seat::new(seat).unwrap());
                Member { tenths, ..Member::new(id, 1) }
            })
            .collect();
        let jump = Jump::build(Secret::default(), &members).unwrap();
        let shares = jump.shares();
        for (share, expected) in shares.iter().zip([1.0, 0.1, 0.5]) {
            assert!((share - expected / 1.6).abs() < 1e-9, "{shares:?}");
        }
        for (seat, share) in [1, 2, 4].into_iter().zip(shares) {
            let count = (0..20_000).filter(|key| owner(&jump, *key) == seat).count();
            assert!((count as f64 / 20_000.0 - share).abs() < 0.02, "{seat}: {count}");
        }
    }

    #[test]
    fn listed_members_have_no_seat() {
        let id = MemberId::Address("10.0.0.1:80".parse().unwrap());
        let error = Jump::build(Secret::default(), &[Member::new(id, 1)]).unwrap_err();
        assert_eq!(error.to_string(), "placement jump needs seats, and 10.0.0.1:80 has none");
    }
}
