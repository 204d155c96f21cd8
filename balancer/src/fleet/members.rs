//! The balancers of one pool: which of them live, which may join, and which is the last to leave.
//!
//! Each balancer holds a [`Lease`] in the engine and renews it. A lease is judged by the renewals
//! that are observed, on the observer's own monotonic clock: balancers need no common clock. Time
//! in which the engine could not be asked does not count, so that an engine that hangs or restarts
//! makes no member look dead.
//!
//! ```text
//!            no other lives                   stop, requests finished
//! Joining ─────────────────────→ Serving ─────────────────────────────→ Leaving
//!    │     or all share the pool                                     another lives │ none lives
//!    ╰→ refused: a member lives and                                          Gone ←┴→ Removing
//!       one of the two does not share
//! ```
//!
//! Every decision follows a write: a balancer first writes its stage, then lists the leases, then
//! decides. Of two balancers that act at once at least one sees the other.

mod lease;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

pub use lease::{Lease, MemberKey, Seats, Stage, Wanted};

/// The time between two renewals of a lease.
pub const RENEW_EVERY: Duration = Duration::from_millis(1_500);

/// The observed time without a renewal after which a lease has expired.
pub const EXPIRES_AFTER: Duration = Duration::from_secs(5);

/// The most time that one observation counts: a longer gap says more about the engine, or about
/// this process, than about the member.
const GAP_MAX: Duration = Duration::from_secs(2);

/// The leases of a pool, as one balancer has observed them.
#[derive(Debug)]
pub struct Members {
    pool: String,
    me: MemberKey,
    others: BTreeMap<MemberKey, Other>,
    observed: Option<Instant>,
    /// Leases of earlier runs of this balancer, up to these numbers: they are no sign of life.
    superseded: BTreeMap<MemberKey, u64>,
    /// Leases of the pool that are of no use any more.
    litter: Vec<Lease>,
}

/// Another balancer, or another run of this one.
#[derive(Debug)]
struct Other {
    /// The latest that was seen.
    lease: Lease,
    /// The observed time without a renewal.
    idle: Duration,
    /// Whether the lease was renewed, or came, while this balancer looked: only then it is known
    /// to live.
    proved: bool,
    /// Whether [`News::Joined`] was told.
    told: bool,
}

/// What an observation has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Another balancer serves the pool.
    Joined(Lease),
    /// A member has ended cleanly.
    Left(Lease),
    /// A member has not renewed its lease for [`EXPIRES_AFTER`].
    Expired(Lease),
}

/// A balancer, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The balancer's name.
    pub identity: String,
    /// The address of its traffic listener.
    pub address: String,
}

/// Whether a balancer may join its pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Join {
    /// It may.
    Yes,
    /// Another observation has to decide.
    NotYet,
    /// It may not: this member lives, and one of the two does not share the pool.
    Refused(Box<Lease>),
}

/// What a balancer that leaves does about the replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// It leaves them in place: another member looks after them.
    ToOthers,
    /// Another observation has to decide.
    NotYet,
    /// It removes them: it is the last.
    Last,
}

/// Where the first fleet of a balancer comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// From the configuration: no lease tells of an earlier request.
    NoLease,
    /// From the other members of the pool, which live: their last request, if they know it.
    Members(Option<Wanted>),
    /// From the last request: the configuration is as it was then.
    Requested(Wanted),
    /// From the configuration: it has changed since the last request.
    Changed(Wanted),
}

// === impl Members ===

impl Members {
    /// Knows of no lease.
    pub fn new(pool: &str, me: MemberKey) -> Self {
        let (others, superseded) = (BTreeMap::new(), BTreeMap::new());
        Self { pool: pool.to_owned(), me, others, observed: None, superseded, litter: Vec::new() }
    }

    /// Takes a full list of leases, of all pools of the engine. Returns what has changed in this
    /// pool.
    pub fn observe(&mut self, leases: &[Lease], now: Instant) -> Vec<News> {
        let first = self.observed.is_none();
        let gap = self.observed.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.observed = Some(now);
        for other in self.others.values_mut() {
            other.idle += gap.min(GAP_MAX);
        }
        self.litter.clear();
        let mut latest: BTreeMap<&MemberKey, &Lease> = BTreeMap::new();
        for lease in leases {
            let best = latest.entry(&lease.key).or_insert(lease);
            let older =
                if lease.sequence > best.sequence { std::mem::replace(best, lease) } else { lease };
            let doubled = older.sequence < best.sequence;
            if doubled && older.pool == self.pool && older.key != self.me {
                self.litter.push(older.clone());
            }
        }
        latest.remove(&self.me);
        for (key, lease) in latest {
            if self.superseded.get(key).is_some_and(|last| lease.sequence <= *last) {
                self.litter.push(lease.clone());
                continue;
            }
            match self.others.get_mut(key) {
                Some(other) if lease.sequence > other.lease.sequence => {
                    *other = Other { lease: lease.clone(), ..*other };
                    (other.idle, other.proved) = (Duration::ZERO, true);
                }
                Some(_) => {}
                None => {
                    let (lease, idle) = (lease.clone(), Duration::ZERO);
                    let other = Other { lease, idle, proved: !first, told: false };
                    self.others.insert(key.clone(), other);
                }
            }
        }
        let news = self.news();
        // A lease that has expired or ended is removed, and forgotten once it is not listed.
        let gone = |other: &Other| !other.lives();
        let mine = |other: &&Other| other.lease.pool == self.pool;
        let ended = self.others.values().filter(|other| gone(other)).filter(mine);
        self.litter.extend(ended.map(|other| other.lease.clone()));
        let listed = |key: &MemberKey| leases.iter().any(|lease| lease.key == *key);
        self.others.retain(|key, other| other.lives() || listed(key));
        news
    }

    fn news(&mut self) -> Vec<News> {
        let mut news = Vec::new();
        for other in self.others.values_mut().filter(|other| other.lease.pool == self.pool) {
            let lease = &other.lease;
            if other.lives() && other.proved && !other.told && lease.stage == Stage::Serving {
                other.told = true;
                news.push(News::Joined(lease.clone()));
            } else if other.told && lease.stage.has_ended() {
                other.told = false;
                news.push(News::Left(lease.clone()));
            } else if other.told && !other.lives() {
                (other.told, other.proved) = (false, false);
                news.push(News::Expired(lease.clone()));
            }
        }
        news
    }

    /// Returns the other members of the pool that live.
    pub fn living(&self) -> impl Iterator<Item = &Lease> {
        self.others_of_pool().filter(|other| other.lives()).map(|other| &other.lease)
    }

    /// Returns the leases of this pool that are of no use any more: they may be removed.
    pub fn litter(&self) -> &[Lease] {
        &self.litter
    }

    fn others_of_pool(&self) -> impl Iterator<Item = &Other> {
        self.others.values().filter(|other| other.lease.pool == self.pool)
    }

    /// Reports whether this is an earlier run of this balancer: it has the same name and shows no
    /// sign of life. One that was leaving may live: it is waited for.
    fn is_predecessor(&self, other: &Other) -> bool {
        let same = other.lease.pool == self.pool && other.lease.key.identity == self.me.identity;
        let leaves = matches!(other.lease.stage, Stage::Leaving | Stage::Removing);
        same && !other.proved && !leaves
    }

    /// Takes over from earlier runs of this balancer: their leases do not count from now on.
    pub fn supersede(&mut self) {
        let before: Vec<MemberKey> = self
            .others
            .iter()
            .filter(|(_, other)| self.is_predecessor(other))
            .map(|(key, _)| key.clone())
            .collect();
        for key in before {
            if let Some(other) = self.others.remove(&key) {
                self.superseded.insert(key, other.lease.sequence);
                self.litter.push(other.lease);
            }
        }
    }

    /// Counts no other member as living before it has renewed its lease once more: to be called
    /// before [`leave`](Self::leave) is asked.
    pub fn doubt(&mut self) {
        for other in self.others.values_mut() {
            other.proved = false;
        }
    }

    /// Decides whether this balancer may join. `written` tells whether it has written a lease with
    /// [`Stage::Joining`] before the last observation.
    pub fn join(&self, shared: bool, written: bool) -> Join {
        let mut join = Join::Yes;
        let others = self.others_of_pool().filter(|other| other.lives());
        for other in others.filter(|other| !self.is_predecessor(other)) {
            let compatible = shared && other.lease.shared;
            match other.lease.stage {
                Stage::Gone | Stage::Kept => {}
                // The replicas are about to be left or removed: wait until that is decided.
                Stage::Leaving | Stage::Removing => join = Join::NotYet,
                Stage::Joining | Stage::Serving if compatible => {}
                Stage::Joining | Stage::Serving if !other.proved => join = Join::NotYet,
                // Of two that join at once the one with the smaller key goes first; the other
                // withdraws.
                Stage::Joining if written && self.me < other.lease.key => join = Join::NotYet,
                Stage::Joining | Stage::Serving => {
                    return Join::Refused(Box::new(other.lease.clone()));
                }
            }
        }
        join
    }

    /// Decides what this balancer does about the replicas, after it has written a lease with
    /// [`Stage::Leaving`].
    pub fn leave(&self) -> Leave {
        let mut leave = Leave::Last;
        for other in self.others_of_pool().filter(|other| other.lives()) {
            if !other.proved {
                leave = Leave::NotYet;
                continue;
            }
            match other.lease.stage {
                Stage::Joining | Stage::Serving | Stage::Removing => return Leave::ToOthers,
                // Of two that leave at once the one with the smaller key decides first.
                Stage::Leaving if other.lease.key < self.me => leave = Leave::NotYet,
                Stage::Leaving | Stage::Gone | Stage::Kept => {}
            }
        }
        leave
    }

    /// Decides whether this balancer may adopt the containers of an earlier version, which belong
    /// to the pool `earlier`: not while another balancer holds that pool or has adopted them.
    /// `None` when another observation has to decide. Asked after a lease that says so was written.
    pub fn may_adopt(&self, earlier: &str) -> Option<bool> {
        let holds = |other: &&Other| other.lease.pool == earlier || other.lease.adopts_earlier;
        let rivals = self.others.values().filter(|other| other.lives()).filter(holds);
        let mut decided = Some(true);
        for rival in rivals.filter(|other| !self.is_predecessor(other)) {
            let joins = rival.lease.stage == Stage::Joining;
            if !rival.proved || (joins && self.me < rival.lease.key) {
                decided = None;
            } else {
                return Some(false);
            }
        }
        decided
    }

    /// Decides where the first fleet comes from, once earlier runs are
    /// [superseded](Self::supersede). `leases` are all that were listed; `config` is the fingerprint
    /// of the configuration.
    pub fn origin(&self, leases: &[Lease], config: &str) -> Origin {
        let serving = || self.living().filter(|lease| lease.stage == Stage::Serving);
        if serving().next().is_some() {
            return Origin::Members(latest(serving()).cloned());
        }
        match latest(leases.iter().filter(|lease| lease.pool == self.pool)) {
            None => Origin::NoLease,
            Some(wanted) if wanted.config == config => Origin::Requested(wanted.clone()),
            Some(wanted) => Origin::Changed(wanted.clone()),
        }
    }
}

/// Returns the latest wanted fleet.
fn latest<'a>(leases: impl Iterator<Item = &'a Lease>) -> Option<&'a Wanted> {
    leases.filter_map(|lease| lease.wanted.as_ref()).max_by_key(|wanted| wanted.revision)
}

// === impl Member ===

impl From<&Lease> for Member {
    fn from(lease: &Lease) -> Self {
        Self { identity: lease.key.identity.clone(), address: lease.address.clone() }
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.identity, self.address)
    }
}

// === impl Other ===

impl Other {
    fn lives(&self) -> bool {
        !self.lease.stage.has_ended() && self.idle < EXPIRES_AFTER
    }
}
