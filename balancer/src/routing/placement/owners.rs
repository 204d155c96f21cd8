//! A key's owners, one after another.

use smallvec::{SmallVec, smallvec};

use super::circle::Circle;
use super::jump::Falls;
use super::rendezvous::Ranking;

/// A key's owners, best first: indexes of members, each once. Allocates nothing for the first
/// eight of them.
#[derive(Debug)]
pub struct Owners<'a> {
    way: Way<'a>,
    members: usize,
    left: usize,
    first: u32,
    /// Nobody, until a second one is asked for: mostly the first will do.
    seen: Option<Seen>,
}

/// How owners are come by. Every way meets every member, some of them more than once.
#[derive(Debug)]
pub(super) enum Way<'a> {
    /// Once round the points of a circle.
    Circle(Round<&'a Circle>),
    /// Once round slots or entries.
    Round(Round<&'a [u32]>),
    /// In the order of their scores.
    Ranking(Ranking<'a>),
    /// By one fall after another.
    Falls(Falls<'a>),
}

/// Points, slots or entries, each with its owner.
pub(super) trait Places: Copy {
    /// How many there are.
    fn count(self) -> usize;

    /// Whose this one is.
    fn owner(self, at: usize) -> u32;
}

/// Once round the places; then all members, in case that one has none.
#[derive(Debug)]
pub(super) struct Round<P> {
    places: P,
    next: usize,
    left: usize,
    rest: u32,
}

/// The members that were met.
#[derive(Debug)]
struct Seen {
    members: usize,
    few: SmallVec<[u32; FEW]>,
    /// A bit for each member, when they are more than a few.
    many: Vec<u64>,
}

/// How many owners are told apart without a bitmap.
pub(super) const FEW: usize = 8;

// === impl Owners ===

impl<'a> Owners<'a> {
    pub(super) fn new(way: Way<'a>, members: usize) -> Self {
        Self { way, members, left: members, first: 0, seen: None }
    }

    fn first(&mut self) -> Option<u32> {
        self.first = self.way.next()?;
        Some(self.first)
    }

    fn further(&mut self) -> Option<u32> {
        let seen = self.seen.get_or_insert_with(|| Seen::new(self.first, self.members));
        loop {
            let member = self.way.next()?;
            if seen.first_time(member) {
                return Some(member);
            }
        }
    }
}

impl Iterator for Owners<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.left == 0 {
            return None;
        }
        let member = if self.left == self.members { self.first()? } else { self.further()? };
        self.left -= 1;
        Some(member as usize)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

// === impl Way ===

impl<'a> Way<'a> {
    /// Once round `circle`, from the point at `start` on.
    pub(super) fn circle(circle: &'a Circle, start: usize) -> Self {
        Way::Circle(Round::new(circle, start))
    }

    /// Once round `owners`, from the one at `start` on.
    pub(super) fn round(owners: &'a [u32], start: usize) -> Self {
        Way::Round(Round::new(owners, start))
    }

    fn next(&mut self) -> Option<u32> {
        match self {
            Way::Circle(round) => Some(round.next()),
            Way::Round(round) => Some(round.next()),
            Way::Ranking(ranking) => ranking.next(),
            Way::Falls(falls) => falls.next(),
        }
    }
}

// === impl Round ===

impl<P: Places> Round<P> {
    fn new(places: P, start: usize) -> Self {
        Self { places, next: start, left: places.count(), rest: 0 }
    }

    /// The members that have no place come last: it is for the caller to stop when it has all.
    fn next(&mut self) -> u32 {
        if self.left == 0 {
            self.rest += 1;
            return self.rest - 1;
        }
        self.left -= 1;
        let member = self.places.owner(self.next);
        self.next = if self.next + 1 == self.places.count() { 0 } else { self.next + 1 };
        member
    }
}

impl Places for &[u32] {
    fn count(self) -> usize {
        self.len()
    }

    fn owner(self, at: usize) -> u32 {
        self[at]
    }
}

// === impl Seen ===

impl Seen {
    fn new(first: u32, members: usize) -> Self {
        Self { members, few: smallvec![first], many: Vec::new() }
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_without_a_point_come_last() {
        let owners = Owners::new(Way::round(&[3, 1, 3], 2), 5);
        assert_eq!(owners.collect::<Vec<_>>(), [3, 1, 0, 2, 4]);
        assert_eq!(Owners::new(Way::round(&[], 0), 0).next(), None);
        assert_eq!(Owners::new(Way::round(&[], 0), 2).collect::<Vec<_>>(), [0, 1]);
    }
}
