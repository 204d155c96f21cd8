//! `rendezvous`: every member has a score for the key, and the highest one owns it (Thaler &
//! Ravishankar, *Using Name-Based Mappings to Increase Hit Rates*, IEEE/ACM Transactions on
//! Networking 6(1), 1998), by weight `w` as `−w / ln h`, `h` being the hash of member and key
//! between 0 and 1 (Schindelhauer & Schomaker, *Weighted Distributed Hash Tables*, SPAA 2005).
//!
//! What is compared here is one by the score, `−ln h / w`, of which the lowest wins. It is
//! exponentially distributed at the rate `w`, as if all began to wait and whose bell rings first
//! had the key: so shares are in proportion to weights, exactly; and who comes, leaves or changes
//! its weight leaves the order of all others as it is. The price is a look at every member for
//! every key.

use std::cmp::Ordering;
use std::vec;

use siphasher::sip::SipHasher13;

use super::ring::point;
use super::words::Words;
use super::{FEW, Member, Secret};

/// The members, and what they and keys are hashed by.
#[derive(Clone, Debug)]
pub struct Rendezvous {
    members: Box<[Weighted]>,
    /// Whether all weights are the same.
    even: bool,
    hasher: SipHasher13,
    words: Words,
}

/// A member as the scores need it.
#[derive(Clone, Copy, Debug)]
struct Weighted {
    hash: u64,
    weight: f64,
}

/// What rounding cannot make up for.
const NEARLY_ONE: f64 = 1.0 - 1e-9;

/// How long a member waits for a key, in whatever measure; among equals the one of the smaller
/// identity is first.
#[derive(Clone, Copy, Debug)]
struct Wait {
    time: f64,
    member: u32,
}

/// All members in their order for one key. The first few are looked for one by one among all, so
/// that nothing is allocated; when more are wanted, all the rest are sorted.
#[derive(Debug)]
pub(super) struct Ranking<'a> {
    rendezvous: &'a Rendezvous,
    key: u64,
    last: Option<Wait>,
    given: usize,
    rest: Option<vec::IntoIter<Wait>>,
}

// === impl Rendezvous ===

impl Rendezvous {
    pub(super) fn build(secret: Secret, members: &[Member]) -> Self {
        let hasher = secret.hasher();
        let weighted = |member: &Member| Weighted {
            hash: point(&hasher, member.id, 0),
            weight: member.share() as f64,
        };
        let members: Box<[Weighted]> = members.iter().map(weighted).collect();
        let even = members.windows(2).all(|two| two[0].weight == two[1].weight);
        Self { members, even, hasher, words: Words::new(secret) }
    }

    pub(super) fn ranking(&self, key: &[u8]) -> Ranking<'_> {
        let key = self.hasher.hash(key);
        Ranking { rendezvous: self, key, last: None, given: 0, rest: None }
    }

    pub(super) fn shares(&self) -> Vec<f64> {
        let all: f64 = self.members.iter().map(|member| member.weight).sum();
        self.members.iter().map(|member| member.weight / all).collect()
    }

    /// Whether keys have the same hashes here and there.
    pub(super) fn hashes_like(&self, other: &Self) -> bool {
        self.hasher.key() == other.hasher.key()
    }

    /// Between 0 and 1 for every member.
    fn units(&self, key: u64) -> impl Iterator<Item = (f64, &Weighted)> {
        let unit = move |weighted: &Weighted| unit(self.words.then(weighted.hash).then(key).hash());
        self.members.iter().map(move |weighted| (unit(weighted), weighted))
    }

    /// How long the member waits, by its unit. Where all weights are the same the highest unit waits
    /// the shortest time, and no logarithm is needed to tell.
    fn wait(&self, member: u32, unit: f64, weighted: &Weighted) -> Wait {
        let time = if self.even { -unit } else { -unit.ln() / weighted.weight };
        Wait { time, member }
    }

    /// Whether the member surely waits longer than another one, which is known without a logarithm
    /// for most: `−ln h` is more than `1 − h`.
    fn is_longer(&self, unit: f64, weighted: &Weighted, than: Wait) -> bool {
        if self.even {
            -unit > than.time
        } else {
            (1.0 - unit) * NEARLY_ONE > than.time * weighted.weight
        }
    }
}

/// The hash between 0 and 1, and neither of them: the middle of one of 2⁵² parts.
fn unit(hash: u64) -> f64 {
    ((hash >> 12) as f64 + 0.5) / 2_f64.powi(52)
}

// === impl Wait ===

impl Wait {
    fn before(&self, other: &Self) -> bool {
        self.order(other) == Ordering::Less
    }

    fn order(&self, other: &Self) -> Ordering {
        self.time.total_cmp(&other.time).then(self.member.cmp(&other.member))
    }
}

// === impl Ranking ===

impl Ranking<'_> {
    /// The first one after the last.
    fn next_of_all(&self) -> Option<Wait> {
        let mut next: Option<Wait> = None;
        for (member, (unit, weighted)) in (0..).zip(self.rendezvous.units(self.key)) {
            if next.is_some_and(|next| self.rendezvous.is_longer(unit, weighted, next)) {
                continue;
            }
            let wait = self.rendezvous.wait(member, unit, weighted);
            if next.is_none_or(|next| wait.before(&next)) && self.is_left(&wait) {
                next = Some(wait);
            }
        }
        next
    }

    /// All after the last, in their order.
    fn rest(&self) -> Vec<Wait> {
        let units = (0..).zip(self.rendezvous.units(self.key));
        let waits =
            units.map(|(member, (unit, weighted))| self.rendezvous.wait(member, unit, weighted));
        let mut rest: Vec<Wait> = waits.filter(|wait| self.is_left(wait)).collect();
        rest.sort_unstable_by(Wait::order);
        rest
    }

    fn is_left(&self, wait: &Wait) -> bool {
        self.last.is_none_or(|last| last.before(wait))
    }
}

impl Iterator for Ranking<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        if self.given < FEW {
            self.given += 1;
            self.last = self.next_of_all();
            return self.last.map(|first| first.member);
        }
        if self.rest.is_none() {
            self.rest = Some(self.rest().into_iter());
        }
        self.rest.as_mut()?.next().map(|wait| wait.member)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::seat::{MemberId, Seat};

    fn weighted(weights: &[u32]) -> Rendezvous {
        let seats = (1..).filter_map(Seat::new).map(MemberId::Seat);
        let members: Vec<Member> =
            seats.zip(weights).map(|(id, weight)| Member::new(id, *weight)).collect();
        Rendezvous::build(Secret::default(), &members)
    }

    /// By scores as they are in the papers, all sorted.
    fn naive(rendezvous: &Rendezvous, key: &str) -> Vec<u32> {
        let key = rendezvous.hasher.hash(key.as_bytes());
        let score = |member: &Weighted| {
            let bytes = [member.hash.to_le_bytes(), key.to_le_bytes()].concat();
            -member.weight / unit(rendezvous.hasher.hash(&bytes)).ln()
        };
        let mut scores: Vec<(f64, u32)> = rendezvous.members.iter().map(score).zip(0..).collect();
        scores.sort_by(|one, other| other.0.total_cmp(&one.0));
        scores.into_iter().map(|(_, member)| member).collect()
    }

    #[test]
    fn owners_are_in_the_order_of_all_scores_sorted() {
        for weights in [&[1; 30][..], &[1], &[1, 2], &[5, 1, 3, 1, 1, 2, 9, 1, 1, 4, 1]] {
            let rendezvous = weighted(weights);
            for key in (0..200).map(|key| format!("key-{key}")) {
                let ranking: Vec<u32> = rendezvous.ranking(key.as_bytes()).collect();
                assert_eq!(ranking, naive(&rendezvous, &key), "{key}");
            }
        }
    }

    #[test]
    fn shares_are_the_weights() {
        assert_eq!(weighted(&[1, 2, 5]).shares(), [0.125, 0.25, 0.625]);
        let mut counts = [0_u32; 3];
        let rendezvous = weighted(&[1, 2, 5]);
        for key in 0..20_000_u32 {
            let first = rendezvous.ranking(&key.to_le_bytes()).next().unwrap();
            counts[first as usize] += 1;
        }
        for (count, share) in counts.into_iter().zip([0.125, 0.25, 0.625]) {
            assert!((f64::from(count) / 20_000.0 - share).abs() < 0.02, "{counts:?}");
        }
    }

    #[test]
    fn a_hash_is_never_zero_nor_one() {
        for hash in [0, 1, u64::MAX / 2, u64::MAX] {
            assert!(unit(hash) > 0.0 && unit(hash) < 1.0, "{hash}");
        }
    }

    #[test]
    fn equals_are_in_the_order_of_their_identities() {
        let wait = |member| Wait { time: 1.0, member };
        assert!(wait(1).before(&wait(2)) && !wait(2).before(&wait(1)));
        assert!(!wait(1).before(&wait(1)));
    }
}
