//! The balancer's own placements.

use balancer::fleet::seat::{MemberId, Seat};
use balancer::routing::placement::{
    MaglevConfig, Member, Placement, PlacementConfig, RingConfig, Secret,
};

use super::{Contestant, Kind, Placed, contestant, placed};
use crate::fleet::Fleet;

pub(super) fn all() -> Vec<Box<dyn Contestant>> {
    vec![
        contestant("**ring**", Kind::Ring, |fleet| {
            built(&PlacementConfig::Ring(RingConfig::default()), &seats(fleet))
        }),
        contestant("**ring**, of addresses", Kind::Ring, |fleet| {
            built(&PlacementConfig::Ring(RingConfig::default()), &addresses(fleet))
        }),
        contestant("**ketama**", Kind::Ring, |fleet| {
            built(&PlacementConfig::Ketama, &addresses(fleet))
        }),
        contestant("**maglev**", Kind::Table, |fleet| {
            let config = MaglevConfig { table_size: fleet.table_size(), ..MaglevConfig::default() };
            built(&PlacementConfig::Maglev(config), &seats(fleet))
        }),
        contestant("**rendezvous**", Kind::Scores, |fleet| {
            built(&PlacementConfig::Rendezvous(Secret::default()), &seats(fleet))
        }),
        contestant("**jump**", Kind::Jump, |fleet| {
            built(&PlacementConfig::Jump(Secret::default()), &seats(fleet))
        }),
    ]
}

fn seats(fleet: &Fleet) -> Vec<Member> {
    let seats = fleet.numbers.iter().filter_map(|number| Seat::new(number + 1));
    seats.map(|seat| Member::new(MemberId::Seat(seat), 1)).collect()
}

fn addresses(fleet: &Fleet) -> Vec<Member> {
    fleet.addresses.iter().map(|address| Member::new(MemberId::Address(*address), 1)).collect()
}

fn built<'a>(config: &PlacementConfig, members: &[Member]) -> Option<Box<dyn Placed + 'a>> {
    let placement = Placement::build(config, members).ok()?;
    Some(placed(placement, |placement: &Placement, key| {
        let owner = placement.owners(key.as_bytes()).next();
        owner.and_then(|owner| u32::try_from(owner).ok()).unwrap_or(u32::MAX)
    }))
}
