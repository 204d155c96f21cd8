//! How members divide the key space: a key's owners, best first, behind one type.
//!
//! Every placement is built from the same [`Member`]s whatever order they come in, and names every
//! member once for a key, in an order that depends on nothing but the key. Four of them come down
//! to a round of points, slots or entries: a key falls on a place of it, and the next owners follow
//! from there. `rendezvous` compares all members by a score, `jump` works a seat out.

mod circle;
pub mod classic;
mod fingerprint;
pub mod jump;
pub mod ketama;
pub mod maglev;
mod moved;
mod owners;
pub mod rendezvous;
pub mod ring;
mod words;

#[cfg(test)]
mod tests;

use thiserror::Error;

use crate::fleet::seat::MemberId;

pub use classic::{Classic, ClassicConfig, ClassicHash, Probing};
pub use jump::Jump;
pub use ketama::Ketama;
pub use maglev::{BadTableSize, Maglev, MaglevConfig, TableSize};
pub use moved::Moved;
pub use owners::Owners;
use owners::{FEW, Way};
pub use rendezvous::Rendezvous;
pub use ring::{Ring, RingConfig, Secret};

/// One that owns a part of the key space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its identity: the only thing that its points depend on.
    pub id: MemberId,
    /// Multiplies its points, or what else its share comes from; 1 for all where nothing else is
    /// said. `jump` has no weights.
    pub weight: u32,
    /// How many tenths of its points there are, 1 to 10: a newcomer's share grows by them, and
    /// keys move only to it (with `maglev`, nearly so).
    pub tenths: u8,
}

/// Which placement, with its settings.
#[derive(Clone, Debug, PartialEq)]
pub enum PlacementConfig {
    /// A ring of SipHash points on a 64-bit circle.
    Ring(RingConfig),
    /// A small ring of slots with polynomial hashes and probing.
    Classic(ClassicConfig),
    /// The ring of nginx's `hash … consistent`.
    Ketama,
    /// A table in which every member has its share of entries.
    Maglev(MaglevConfig),
    /// The highest score of all members for the key. The secret keys the SipHash of both.
    Rendezvous(Secret),
    /// Worked out from the number of seats. The secret keys the SipHash of request keys.
    Jump(Secret),
}

/// A placement over a set of members. Members are known by their index in ascending order of
/// [`MemberId`]: what [`members`](Placement::members) lists.
#[derive(Clone, Debug)]
pub struct Placement {
    members: Box<[Member]>,
    fingerprint: u64,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Ring(Ring),
    Classic(Classic),
    Ketama(Ketama),
    Maglev(Maglev),
    Rendezvous(Rendezvous),
    Jump(Jump),
}

/// Where a key falls, on what its owners are found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spot {
    /// On a circle of 64 bits, or of 32 above 32 zeros.
    Circle {
        /// The key's hash.
        key: u64,
        /// The first point at or after it, wrapping round: its owner's.
        point: u64,
    },
    /// On a ring of slots.
    Slots {
        /// The key's own.
        key: u32,
        /// The first occupied one at or after it, wrapping round: its owner's.
        occupied: u32,
    },
    /// On the entry of a table, from 0.
    Entry(u32),
}

/// Why a placement cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PlacementError {
    /// More points than the ring has slots.
    #[error("{points} virtual nodes do not fit into {slots} slots")]
    Full {
        /// The virtual nodes of all members.
        points: u64,
        /// The slots there are.
        slots: u32,
    },
    /// More members than the table is for.
    #[error(
        "the table is for {most} members, not {members}: a larger 'maglev.table_size' is for more"
    )]
    Crowded {
        /// The members.
        members: usize,
        /// How many it is for.
        most: usize,
    },
    /// A member has no seat, and the placement knows nothing else.
    #[error("placement jump needs seats, and {0} has none")]
    NoSeat(MemberId),
    /// A member came twice.
    #[error("member {0} is there twice")]
    Duplicate(MemberId),
}

/// All points of a member.
const TENTHS: u8 = 10;

// === impl PlacementConfig ===

impl PlacementConfig {
    /// How many seats there are at most; `None` where there is no bound.
    pub fn capacity(&self) -> Option<usize> {
        match self {
            PlacementConfig::Classic(classic) => Some(classic.capacity()),
            PlacementConfig::Maglev(maglev) => Some(maglev.table_size.members()),
            PlacementConfig::Ring(_)
            | PlacementConfig::Ketama
            | PlacementConfig::Rendezvous(_)
            | PlacementConfig::Jump(_) => None,
        }
    }

    /// Whether members must have seats: those that are only listed have none.
    pub fn needs_seats(&self) -> bool {
        matches!(self, PlacementConfig::Jump(_))
    }

    /// The name that the configuration knows it by.
    pub fn name(&self) -> &'static str {
        match self {
            PlacementConfig::Ring(_) => "ring",
            PlacementConfig::Classic(_) => "classic",
            PlacementConfig::Ketama => "ketama",
            PlacementConfig::Maglev(_) => "maglev",
            PlacementConfig::Rendezvous(_) => "rendezvous",
            PlacementConfig::Jump(_) => "jump",
        }
    }
}

// === impl Placement ===

impl Placement {
    /// Builds the placement over `members`, in whatever order they come. No members are well: no
    /// key has an owner then.
    ///
    /// # Errors
    /// When a member is there twice or has no seat where it needs one, or the placement has no room
    /// for so many.
    pub fn build(config: &PlacementConfig, members: &[Member]) -> Result<Self, PlacementError> {
        let mut members: Box<[Member]> = members.into();
        members.sort_unstable_by_key(|member| member.id);
        if let Some(pair) = members.windows(2).find(|pair| pair[0].id == pair[1].id) {
            return Err(PlacementError::Duplicate(pair[0].id));
        }
        let kind = match config {
            PlacementConfig::Ring(config) => Kind::Ring(Ring::build(config, &members)),
            PlacementConfig::Classic(config) => Kind::Classic(Classic::build(config, &members)?),
            PlacementConfig::Ketama => Kind::Ketama(Ketama::build(&members)),
            PlacementConfig::Maglev(config) => Kind::Maglev(Maglev::build(config, &members)?),
            PlacementConfig::Rendezvous(secret) => {
                Kind::Rendezvous(Rendezvous::build(*secret, &members))
            }
            PlacementConfig::Jump(secret) => Kind::Jump(Jump::build(*secret, &members)?),
        };
        let fingerprint = fingerprint::of(config, &members);
        Ok(Self { members, fingerprint, kind })
    }

    /// The members, in ascending order of their identity.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The owners of `key`, best first, every member once: indexes into
    /// [`members`](Self::members).
    pub fn owners(&self, key: &[u8]) -> Owners<'_> {
        let way = match &self.kind {
            Kind::Ring(ring) => Way::circle(ring.circle(), ring.start(key)),
            Kind::Classic(classic) => Way::round(classic.circle(), classic.start(key)),
            Kind::Ketama(ketama) => Way::circle(ketama.circle(), ketama.start(key)),
            Kind::Maglev(maglev) => Way::round(maglev.entries(), maglev.start(key)),
            Kind::Rendezvous(rendezvous) => Way::Ranking(rendezvous.ranking(key)),
            Kind::Jump(jump) => Way::Falls(jump.falls(key)),
        };
        Owners::new(way, self.members.len())
    }

    /// Where `key` falls; `None` where there are no members, and with `rendezvous` and `jump`, which
    /// have no places.
    pub fn spot(&self, key: &[u8]) -> Option<Spot> {
        if self.members.is_empty() {
            return None;
        }
        match &self.kind {
            Kind::Ring(ring) => Some(ring.spot(key)),
            Kind::Classic(classic) => Some(classic.spot(key)),
            Kind::Ketama(ketama) => Some(ketama.spot(key)),
            Kind::Maglev(maglev) => Some(maglev.spot(key)),
            Kind::Rendezvous(_) | Kind::Jump(_) => None,
        }
    }

    /// The exact share of the key space that each member owns, of an ideal hash; they add up to 1.
    pub fn shares(&self) -> Vec<f64> {
        let members = self.members.len();
        match &self.kind {
            Kind::Ring(ring) => ring.circle().shares(members),
            Kind::Classic(classic) => classic.shares(members),
            Kind::Ketama(ketama) => ketama.circle().shares(members),
            Kind::Maglev(maglev) => maglev.shares(members),
            Kind::Rendezvous(rendezvous) => rendezvous.shares(),
            Kind::Jump(jump) => jump.shares(),
        }
    }

    /// The same number for two that are built by the same settings over the same members, weights
    /// and tenths included: they agree on every key, whatever the machine. Others have another. It
    /// tells nothing of `[ring] secret` but whether that is the same.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
}

// === impl Member ===

impl Member {
    /// One of this weight with all its points.
    pub fn new(id: MemberId, weight: u32) -> Self {
        Self { id, weight, tenths: TENTHS }
    }

    /// What of the requests is for it, against others': its weight, in tenths of it.
    pub fn share(&self) -> u64 {
        u64::from(self.weight) * u64::from(self.tenths())
    }

    fn tenths(&self) -> u8 {
        self.tenths.clamp(1, TENTHS)
    }

    /// How many points it has where one of weight 1 has `each`.
    fn points(&self, each: u64) -> u32 {
        let points = self.part_of(each * u64::from(self.weight));
        // A circle has room for no more.
        u32::try_from(points).unwrap_or(u32::MAX)
    }

    /// How many of `points` it has: the first ones.
    fn part_of(&self, points: u64) -> u64 {
        (points * u64::from(self.tenths())).div_ceil(u64::from(TENTHS))
    }
}
