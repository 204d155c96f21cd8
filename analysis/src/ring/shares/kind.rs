//! The placements that are put beside each other, with their fleets.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};

use balancer::fleet::seat::MemberId;
use balancer::routing::placement::{
    ClassicConfig, MaglevConfig, Member, Placement, PlacementConfig, RingConfig, TableSize,
};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::chart::{Marker, Stroke, theme};
use crate::ring::fleet::{built, seats, secret};

/// A placement of the balancer, with the settings that it is looked at with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ring) enum Kind {
    /// As it is by default: 160 points a seat.
    Ring,
    /// 16 points a seat, as many as a server of weight 1 has in HAProxy.
    RingOfSixteen,
    /// nginx's.
    Ketama,
    Rendezvous,
    Jump,
    /// A table of 65,537 entries.
    Maglev,
    /// A table of 655,373 entries.
    LargeMaglev,
    /// 512 slots.
    Classic,
}

/// The larger of the two tables that the paper tries.
pub(in crate::ring) const LARGE_TABLE: u32 = 655_373;

// === impl Kind ===

impl Kind {
    /// In files and tables.
    pub(in crate::ring) fn name(self) -> &'static str {
        match self {
            Kind::Ring => "ring, 160 points",
            Kind::RingOfSixteen => "ring, 16 points",
            Kind::Ketama => "ketama",
            Kind::Rendezvous => "rendezvous",
            Kind::Jump => "jump",
            Kind::Maglev => "maglev, 65,537 entries",
            Kind::LargeMaglev => "maglev, 655,373 entries",
            Kind::Classic => "classic, 512 slots",
        }
    }

    /// With the secret of this number, where it has one.
    pub(in crate::ring) fn config(self, number: u32) -> PlacementConfig {
        let secret = secret(number);
        match self {
            Kind::Ring => PlacementConfig::Ring(RingConfig { secret, ..RingConfig::default() }),
            Kind::RingOfSixteen => PlacementConfig::Ring(RingConfig { virtual_nodes: 16, secret }),
            Kind::Ketama => PlacementConfig::Ketama,
            Kind::Rendezvous => PlacementConfig::Rendezvous(secret),
            Kind::Jump => PlacementConfig::Jump(secret),
            Kind::Maglev => {
                PlacementConfig::Maglev(MaglevConfig { secret, ..MaglevConfig::default() })
            }
            Kind::LargeMaglev => {
                let table_size = TableSize::new(LARGE_TABLE).expect("a prime within the bounds");
                PlacementConfig::Maglev(MaglevConfig { table_size, secret })
            }
            Kind::Classic => PlacementConfig::Classic(ClassicConfig::default()),
        }
    }

    /// Its capacity in place of `seats` where that is less.
    pub(in crate::ring) fn seats(self, seats: u32) -> u32 {
        let capacity = self.config(0).capacity().and_then(|most| u32::try_from(most).ok());
        capacity.map_or(seats, |most| most.min(seats))
    }

    /// The fleet of this number, placed: seats from 1 on, and other secrets for other numbers.
    /// `ketama` has no secret: it has other addresses. `classic` is always the same.
    ///
    /// # Errors
    /// When there is no room for so many.
    pub(super) fn placed(self, count: u32, number: u32) -> anyhow::Result<Placement> {
        let members = match self {
            Kind::Ketama => listed(count, number),
            Kind::Ring
            | Kind::RingOfSixteen
            | Kind::Rendezvous
            | Kind::Jump
            | Kind::Maglev
            | Kind::LargeMaglev
            | Kind::Classic => seats(count),
        };
        built(&self.config(number), &members)
    }

    /// On charts.
    pub(in crate::ring) fn look(self) -> (Stroke, Marker) {
        match self {
            Kind::Ring => (Stroke::solid(theme::GREEN, 3), Marker::Square),
            Kind::RingOfSixteen => (Stroke::dashed(theme::GREEN, 3, 3.0, 5.0), Marker::Diamond),
            Kind::Ketama => (Stroke::dashed(theme::SKY, 3, 12.0, 7.0), Marker::Triangle),
            Kind::Rendezvous => (Stroke::solid(theme::PURPLE, 3), Marker::Diamond),
            Kind::Jump => (Stroke::dashed(theme::INK, 3, 3.0, 5.0), Marker::Cross),
            Kind::Maglev => (Stroke::solid(theme::VERMILLION, 3), Marker::Circle),
            Kind::LargeMaglev => (Stroke::dashed(theme::ORANGE, 3, 12.0, 7.0), Marker::Circle),
            Kind::Classic => (Stroke::solid(theme::BLUE, 3), Marker::Triangle),
        }
    }
}

/// Listed members, their addresses drawn from 10.0.0.0/8.
fn listed(count: u32, number: u32) -> Vec<Member> {
    let mut rng = StdRng::seed_from_u64(number.into());
    let mut hosts = BTreeSet::new();
    while hosts.len() < count as usize {
        hosts.insert(rng.random_range(1_u32..(1 << 24) - 1));
    }
    let member = |host: u32| {
        let address = Ipv4Addr::from_bits(10 << 24 | host);
        Member::new(MemberId::Address(SocketAddr::from((address, 8080))), 1)
    };
    hosts.into_iter().map(member).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_classic_has_no_room_for_a_thousand() {
        for kind in [Kind::Ring, Kind::Ketama, Kind::Jump, Kind::Maglev, Kind::LargeMaglev] {
            assert_eq!(kind.seats(1_000), 1_000, "{kind:?}");
        }
        assert_eq!((Kind::Classic.seats(1_000), Kind::Classic.seats(10)), (56, 10));
    }

    #[test]
    fn fleets_of_other_numbers_are_others_where_anything_can_be() {
        for kind in [Kind::Ring, Kind::RingOfSixteen, Kind::Ketama] {
            let [one, two, again] = [1, 2, 1].map(|number| kind.placed(5, number).unwrap());
            assert_eq!(one.shares(), again.shares());
            assert_ne!(one.shares(), two.shares(), "{kind:?}");
        }
        assert_eq!(listed(1_000, 3).len(), 1_000);
    }
}
