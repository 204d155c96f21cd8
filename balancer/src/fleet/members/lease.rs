//! The lease of a balancer: what each balancer of a pool tells the others, and its successor.

use std::collections::BTreeSet;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::fleet::release::Release;
use crate::fleet::seat::Seat;

/// One run of one balancer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemberKey {
    /// The balancer's name, the same after a restart.
    pub identity: String,
    /// Drawn at each start: tells two runs apart.
    pub instance: String,
}

/// What a balancer writes into the engine again and again while it lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The pool that the balancer belongs to.
    pub pool: String,
    /// The balancer, and which run of it.
    pub key: MemberKey,
    /// The address of its traffic listener.
    pub address: String,
    /// When the balancer started, in RFC 3339. For people only.
    pub started: String,
    /// Counts renewals: a greater number is a later renewal.
    pub sequence: u64,
    /// Whether the balancer shares its pool.
    pub shared: bool,
    /// What the balancer does.
    pub stage: Stage,
    /// Whether the balancer has adopted the containers of an earlier version.
    pub adopts_earlier: bool,
    /// The fleet that was last requested of the balancer, if it knows it.
    pub wanted: Option<Wanted>,
}

/// What a balancer does, as far as the others are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It starts, and looks whether the pool is free.
    Joining,
    /// It serves, and supervises the replicas.
    Serving,
    /// It has finished its requests, and decides whether it is the last of the pool.
    Leaving,
    /// It is the last of the pool and removes the replicas.
    Removing,
    /// It has left the replicas to the others of the pool.
    Gone,
    /// It has ended and kept the replicas (`keep_replicas`): its wanted fleet is for its successor.
    Kept,
}

/// The fleet that was last requested.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Counts changes: of several leases the greatest number is the latest request.
    pub revision: u64,
    /// The fingerprint of the configuration under which the fleet was requested.
    pub config: String,
    /// The seats that have a replica.
    pub seats: Seats,
    /// What all replicas run.
    pub release: Release,
}

/// A set of seats, written as ranges: `1-3,7`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seats(pub BTreeSet<Seat>);

/// The most seats that are read: more than there can be replicas.
const SEATS_MAX: u32 = 1 << 20;

// === impl Stage ===

impl Stage {
    const ALL: [(Self, &'static str); 6] = [
        (Stage::Joining, "joining"),
        (Stage::Serving, "serving"),
        (Stage::Leaving, "leaving"),
        (Stage::Removing, "removing"),
        (Stage::Gone, "gone"),
        (Stage::Kept, "kept"),
    ];

    /// Returns the name that is written into a lease.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(stage, _)| *stage == self).map_or("", |(_, name)| name)
    }

    /// Reads a name; `None` for an unknown one.
    pub fn read(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(stage, _)| *stage)
    }

    /// Reports whether the balancer has ended, so that its lease is no sign of life.
    pub fn has_ended(self) -> bool {
        match self {
            Stage::Gone | Stage::Kept => true,
            Stage::Joining | Stage::Serving | Stage::Leaving | Stage::Removing => false,
        }
    }
}

// === impl Seats ===

impl Seats {
    /// Returns the ranges, ascending.
    pub fn text(&self) -> String {
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for seat in self.0.iter().map(|seat| seat.get()) {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == seat => *last = seat,
                Some(_) | None => ranges.push((seat, seat)),
            }
        }
        let range = |(first, last): &(u32, u32)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        };
        ranges.iter().map(range).collect::<Vec<_>>().join(",")
    }

    /// Reads ranges; `None` for anything else.
    pub fn read(text: &str) -> Option<Self> {
        let mut seats = BTreeSet::new();
        for range in text.split(',').filter(|range| !range.is_empty()) {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
            if first == 0 || first > last || last > SEATS_MAX {
                return None;
            }
            seats.extend((first..=last).filter_map(Seat::new));
        }
        Some(Self(seats))
    }
}

impl Serialize for Seats {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text())
    }
}

impl<'de> Deserialize<'de> for Seats {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let expected = || de::Error::custom(format!("invalid seats {text:?}: expected 1-3,7"));
        Self::read(&text).ok_or_else(expected)
    }
}
