//! How one replica is chosen among the ready ones.
//!
//! Every policy is a function of the table, of what the caller draws for the request, and of the
//! caller's test of who is acceptable (health is in the table already; what was tried, and what
//! cannot be connected to, is the caller's). Where anybody is acceptable, somebody is chosen.

use std::cmp::Ordering;
use std::sync::Arc;

use rand::{Rng, RngExt as _};

use super::key::Key;
use super::table::{Replica, Table};

/// A way to choose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// By placement: the first of the key's owners that is acceptable.
    #[default]
    Hash,
    /// One after another, each as often as its weight says.
    RoundRobin,
    /// The one with the fewest requests in flight for its weight; looks at all of them.
    LeastRequests,
    /// The less loaded of two drawn at random (Mitzenmacher 2001): nearly as good, for the price
    /// of two.
    TwoChoices,
}

/// What a request is chosen for by.
#[derive(Clone, Copy, Debug)]
pub struct Pick<'a> {
    /// Its key, for [`Policy::Hash`].
    pub key: &'a Key,
    /// Its turn, for [`Policy::RoundRobin`]: counted over all requests that take turns together.
    pub turn: usize,
}

/// How often two are drawn before all are looked at.
const DRAWS: usize = 4;

// === impl Policy ===

impl Policy {
    /// The best ready replica that `accept` accepts, given its share of the requests, too; `None`
    /// when there is none.
    pub fn choose<'t>(
        self,
        table: &'t Table,
        pick: Pick<'_>,
        rng: &mut impl Rng,
        mut accept: impl FnMut(&Arc<Replica>, u64) -> bool,
    ) -> Option<&'t Arc<Replica>> {
        if table.ready_count() == 0 {
            return None;
        }
        match self {
            Policy::Hash => table
                .placement()
                .owners(pick.key.as_bytes())
                .filter_map(|member| Some((table.ready(member)?, table.share_of(member))))
                .find(|(replica, share)| accept(replica, *share))
                .map(|(replica, _)| replica),
            Policy::RoundRobin => table
                .turns()
                .from(pick.turn)
                .filter_map(|place| table.nth_ready(place))
                .find(|(replica, share)| accept(replica, *share))
                .map(|(replica, _)| replica),
            Policy::LeastRequests => least_loaded(table, rng, accept),
            Policy::TwoChoices => {
                two_choices(table, rng, &mut accept).or_else(|| least_loaded(table, rng, accept))
            }
        }
    }

    /// All ready replicas, each once, the best first.
    pub fn order<'t>(
        self,
        table: &'t Table,
        pick: Pick<'_>,
        rng: &mut impl Rng,
    ) -> Vec<&'t Arc<Replica>> {
        let count = table.ready_count();
        match self {
            Policy::Hash => table
                .placement()
                .owners(pick.key.as_bytes())
                .filter_map(|member| table.ready(member))
                .collect(),
            Policy::RoundRobin => {
                let mut had = vec![false; count];
                let places = table.turns().from(pick.turn);
                let places = places.filter(|place| !std::mem::replace(&mut had[*place], true));
                places.filter_map(|place| table.nth_ready(place)).map(|(it, _)| it).collect()
            }
            Policy::LeastRequests | Policy::TwoChoices => {
                let mut all: Vec<Loaded<'t>> = rotated(table, rng).collect();
                all.sort_by(|one, other| by_load(*one, *other));
                all.into_iter().map(|(replica, _)| replica).collect()
            }
        }
    }

    /// Returns the indexes of all members, those without a ready replica among them, each once. With
    /// [`Policy::Hash`] they are the key's owners in order; otherwise the ready ones come first, the
    /// best first.
    pub fn order_members(self, table: &Table, pick: Pick<'_>, rng: &mut impl Rng) -> Vec<usize> {
        let count = table.placement().members().len();
        let mut had = vec![false; count];
        let best: Vec<usize> = match self {
            Policy::Hash => table.placement().owners(pick.key.as_bytes()).collect(),
            Policy::RoundRobin | Policy::LeastRequests | Policy::TwoChoices => {
                let ready = self.order(table, pick, rng).into_iter();
                ready.filter_map(|replica| table.index_of(replica.member())).collect()
            }
        };
        let all = best.into_iter().chain(0..count);
        all.filter(|member| !std::mem::replace(&mut had[*member], true)).collect()
    }

    /// Whether it draws turns.
    pub fn takes_turns(self) -> bool {
        matches!(self, Policy::RoundRobin)
    }
}

/// A ready replica with what decides between two.
type Loaded<'t> = (&'t Arc<Replica>, u64);

/// Among equals the first after a random place, so that they share alike.
fn least_loaded<'t>(
    table: &'t Table,
    rng: &mut impl Rng,
    mut accept: impl FnMut(&Arc<Replica>, u64) -> bool,
) -> Option<&'t Arc<Replica>> {
    let best =
        rotated(table, rng).filter(|(replica, share)| accept(replica, *share)).reduce(less_loaded);
    best.map(|(replica, _)| replica)
}

/// All ready replicas, from a random one on.
fn rotated<'t>(table: &'t Table, rng: &mut impl Rng) -> impl Iterator<Item = Loaded<'t>> {
    let count = table.ready_count();
    let begin = rng.random_range(0..count.max(1));
    (begin..count).chain(0..begin).filter_map(|place| table.nth_ready(place))
}

fn two_choices<'t>(
    table: &'t Table,
    rng: &mut impl Rng,
    accept: &mut impl FnMut(&Arc<Replica>, u64) -> bool,
) -> Option<&'t Arc<Replica>> {
    let count = table.ready_count();
    for _ in 0..DRAWS {
        let first = rng.random_range(0..count);
        // Another one, where there is another.
        let second = (first + rng.random_range(1..count.max(2))) % count;
        let drawn = [first, second].into_iter().filter_map(|place| table.nth_ready(place));
        let best = drawn.filter(|(replica, share)| accept(replica, *share)).reduce(less_loaded);
        if let Some((replica, _)) = best {
            return Some(replica);
        }
    }
    None
}

/// Who would have less to do for its weight with one request more.
fn by_load(one: Loaded<'_>, other: Loaded<'_>) -> Ordering {
    let load =
        |(replica, _): Loaded<'_>, by: u64| (replica.in_flight() as u128 + 1) * u128::from(by);
    load(one, other.1).cmp(&load(other, one.1))
}

/// The first of equals.
fn less_loaded<'t>(one: Loaded<'t>, other: Loaded<'t>) -> Loaded<'t> {
    if by_load(other, one) == Ordering::Less { other } else { one }
}

#[cfg(test)]
mod tests;
