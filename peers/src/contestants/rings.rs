//! Other rings.

use std::collections::hash_map::DefaultHasher;
use std::hash::BuildHasherDefault;

use hash_rings::consistent;
use pingora_ketama::{Bucket, Continuum, Version};

use super::{Contestant, Kind, Placed, contestant, placed};
use crate::fleet::{Fleet, POINTS};

pub(super) fn all() -> Vec<Box<dyn Contestant>> {
    vec![
        contestant("pingora-ketama", Kind::Ring, |fleet| continuum(fleet, Version::V1)),
        contestant("pingora-ketama, v2", Kind::Ring, |fleet| {
            continuum(fleet, Version::V2 { point_multiple: 160 })
        }),
        contestant("ketama", Kind::Ring, |fleet| {
            let builder = ketama::RingBuilder::new();
            let builder = fleet.names.iter().fold(builder, |builder, name| builder.node(name, 1));
            Some(placed(builder.build(), |ring: &ketama::Ring, key| {
                number(ring.route(key.as_bytes()))
            }))
        }),
        contestant("hashring", Kind::Ring, |fleet| {
            let points = POINTS as u32;
            let node = |number: &u32| (0..points).map(|point| (*number, point)).collect::<Vec<_>>();
            let mut ring: hashring::HashRing<(u32, u32)> = hashring::HashRing::new();
            ring.batch_add(fleet.numbers.iter().flat_map(node).collect());
            Some(placed(ring, |ring: &hashring::HashRing<(u32, u32)>, key| {
                ring.get(&key).map_or(u32::MAX, |(number, _)| *number)
            }))
        }),
        contestant("hashring_coordinator", Kind::Ring, |fleet| {
            let mut ring = hashring_coordinator::HashRing::new(0, POINTS);
            ring.batch_add(fleet.numbers.clone());
            Some(placed(ring, |ring: &hashring_coordinator::HashRing<u32>, key| {
                ring.get(&key).first().copied().unwrap_or(u32::MAX)
            }))
        }),
        contestant("consistent_hash", Kind::Ring, |fleet| {
            let nodes = fleet.numbers.iter();
            let nodes = nodes.map(|number| consistent_hash::Node::new(*number).quantity(POINTS));
            let ring = consistent_hash::StaticHashRing::new(consistent_hash::DefaultHash, nodes);
            Some(placed(ring, |ring, key| {
                ring.calc_candidates(&key).next().map_or(u32::MAX, |node| node.key)
            }))
        }),
        contestant("consistent_hash_ring", Kind::Ring, |fleet| {
            let builder = consistent_hash_ring::RingBuilder::default();
            let ring = builder.vnodes(POINTS).nodes_iter(fleet.numbers.iter().copied()).build();
            Some(placed(ring, |ring: &consistent_hash_ring::Ring<u32>, key| *ring.get(key)))
        }),
        contestant("hash-rings, consistent", Kind::Ring, |fleet| {
            let hasher = BuildHasherDefault::<DefaultHasher>::default();
            let mut ring = consistent::Ring::with_hasher(hasher);
            fleet.numbers.iter().for_each(|number| ring.insert_node(number, POINTS));
            Some(placed(ring, |ring, key| *ring.get_node(&key)))
        }),
        contestant("hash_ring", Kind::Ring, |fleet| {
            let ring = hash_ring::HashRing::new(fleet.numbers.clone(), POINTS as isize);
            Some(placed(ring, |ring: &hash_ring::HashRing<u32>, key| {
                ring.get_node(key.to_owned()).copied().unwrap_or(u32::MAX)
            }))
        }),
        contestant("conhash", Kind::Ring, |fleet| {
            let mut ring = conhash::ConsistentHash::new();
            fleet.numbers.iter().for_each(|number| ring.add(&Numbered(*number), POINTS));
            Some(placed(ring, |ring: &conhash::ConsistentHash<Numbered>, key| {
                ring.get_str(key).map_or(u32::MAX, |node| node.0)
            }))
        }),
    ]
}

/// A node as `conhash` wants it.
#[derive(Clone, Debug)]
struct Numbered(u32);

impl conhash::Node for Numbered {
    fn name(&self) -> String {
        self.0.to_string()
    }
}

fn continuum<'a>(fleet: &Fleet, version: Version) -> Option<Box<dyn Placed + 'a>> {
    let buckets: Vec<Bucket> =
        fleet.addresses.iter().map(|address| Bucket::new(*address, 1)).collect();
    let ring = Continuum::new_with_version(&buckets, version);
    // It tells the address: what that costs to look up is its own. A map from it to the number
    // is not.
    Some(placed(ring, |ring: &Continuum, key| match ring.node(key.as_bytes()) {
        Some(std::net::SocketAddr::V4(address)) => address.ip().to_bits() - 0x0a00_0001,
        Some(std::net::SocketAddr::V6(_)) | None => u32::MAX,
    }))
}

fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}
