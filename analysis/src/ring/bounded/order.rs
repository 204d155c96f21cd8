//! In which order the owners of a key are asked, and the keys that ask them.

use balancer::routing::placement::{Placement, PlacementConfig, RingConfig};

use super::super::fleet::{self, secret};

/// Who is asked after the first owner, who has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Order {
    /// The balancer's own: clockwise on a ring with so many points a seat.
    Clockwise(u32),
    /// The first owner is the ring's, and the next ones come in the order of `rendezvous`.
    ThenJumps(u32),
    /// All come in the order of `rendezvous`, the first one, too.
    Jumps,
}

/// All seats in this order for any key: the balancer's placements are asked.
#[derive(Debug)]
pub(super) struct Owners {
    ring: Option<Placement>,
    jumps: Option<Placement>,
}

/// Balls, each a key with as many of its owners as somebody asked for.
#[derive(Debug)]
pub(super) struct Balls {
    owners: Owners,
    known: Vec<Vec<u16>>,
}

/// What the two placements of an [`Order`] draw their secrets for: they must not be alike.
const RING: u32 = 1;
const JUMPS: u32 = 2;

/// Owners beyond which all of a key are found at once.
const FEW: usize = 8;

// === impl Order ===

impl Order {
    /// As many points as the balancer has by default.
    pub(super) const MANY: u32 = 160;

    /// All of them, in the order of the tables.
    pub(super) const ALL: [Self; 5] = [
        Self::Clockwise(Self::MANY),
        Self::ThenJumps(Self::MANY),
        Self::Clockwise(1),
        Self::ThenJumps(1),
        Self::Jumps,
    ];

    /// In a table.
    pub(super) fn name(self) -> String {
        match self {
            Order::Clockwise(1) => "ring, 1 point: clockwise".to_owned(),
            Order::Clockwise(points) => format!("ring, {points} points: clockwise"),
            Order::ThenJumps(1) => "ring, 1 point: jumps".to_owned(),
            Order::ThenJumps(points) => format!("ring, {points} points: jumps"),
            Order::Jumps => "rendezvous: jumps".to_owned(),
        }
    }

    /// Over so many seats; each run has its own secrets.
    ///
    /// # Errors
    /// When a placement cannot be built.
    pub(super) fn owners(self, seats: u32, run: u32) -> anyhow::Result<Owners> {
        let members = fleet::seats(seats);
        let built = |config: PlacementConfig| fleet::built(&config, &members);
        let ring = |virtual_nodes| {
            built(PlacementConfig::Ring(RingConfig {
                virtual_nodes,
                secret: secret(2 * run + RING),
            }))
        };
        let jumps = || built(PlacementConfig::Rendezvous(secret(2 * run + JUMPS)));
        Ok(match self {
            Order::Clockwise(points) => Owners { ring: Some(ring(points)?), jumps: None },
            Order::ThenJumps(points) => Owners { ring: Some(ring(points)?), jumps: Some(jumps()?) },
            Order::Jumps => Owners { ring: None, jumps: Some(jumps()?) },
        })
    }
}

// === impl Owners ===

impl Owners {
    /// The owners of the key with this number, best first, every seat once, by its index.
    pub(super) fn of(&self, number: usize) -> impl Iterator<Item = usize> + use<'_> {
        let key = number.to_string();
        let on_ring = self.ring.as_ref().map(|ring| ring.owners(key.as_bytes()));
        let jumps = self.jumps.as_ref().map(|jumps| jumps.owners(key.as_bytes()));
        // Where others jump, the ring says who is first and nothing else.
        let first = match (&self.ring, &jumps) {
            (Some(ring), Some(_)) => ring.owners(key.as_bytes()).next(),
            (Some(_) | None, None) | (None, Some(_)) => None,
        };
        let most = if jumps.is_some() { 1 } else { usize::MAX };
        let others = jumps.into_iter().flatten().filter(move |seat| Some(*seat) != first);
        on_ring.into_iter().flatten().take(most).chain(others)
    }
}

// === impl Balls ===

impl Balls {
    /// So many, numbered from 0.
    pub(super) fn new(owners: Owners, count: usize) -> Self {
        Self { owners, known: vec![Vec::new(); count] }
    }

    pub(super) fn count(&self) -> usize {
        self.known.len()
    }

    /// For keys that are none of these balls.
    pub(super) fn owners(&self) -> &Owners {
        &self.owners
    }

    /// The ball's owner after `before` others; `None` after the last.
    pub(super) fn owner(&mut self, ball: usize, before: usize) -> Option<usize> {
        let known = &mut self.known[ball];
        if before >= known.len() {
            let wanted = if before < FEW { (before + 1).next_power_of_two() } else { usize::MAX };
            let owners = self.owners.of(ball).take(wanted);
            *known = owners.filter_map(|seat| u16::try_from(seat).ok()).collect();
        }
        known.get(before).map(|seat| usize::from(*seat))
    }
}
