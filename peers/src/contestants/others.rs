//! Tables, scores, probes and arithmetic of others.

use std::collections::hash_map::DefaultHasher;
use std::hash::BuildHasherDefault;

use maglev::ConsistentHasher as _;
use rendezvous_hash::{DefaultNodeHasher, RendezvousNodes};

use super::{Contestant, Kind, contestant, placed};

/// Probes for each key: what `mpchash` makes, and the paper advises.
const PROBES: u64 = 21;
/// More numbers than these `hash-rings` would keep at once while it fills a table: 2 GiB.
const MOST_NUMBERS: u64 = 1 << 28;

pub(super) fn all() -> Vec<Box<dyn Contestant>> {
    vec![
        contestant("mpchash", Kind::Probes, |fleet| {
            let ring: mpchash::HashRing<u32> = mpchash::HashRing::new();
            fleet.numbers.iter().for_each(|number| ring.add(*number));
            Some(placed(ring, |ring: &mpchash::HashRing<u32>, key| {
                ring.node(&key).map_or(u32::MAX, |token| *token)
            }))
        }),
        contestant("hash-rings, multi-probe", Kind::Probes, |fleet| {
            let hasher = BuildHasherDefault::<DefaultHasher>::default();
            let mut ring = hash_rings::mpc::Ring::with_hasher(hasher, PROBES);
            fleet.numbers.iter().for_each(|number| ring.insert_node(number));
            Some(placed(ring, |ring, key| *ring.get_node(&key)))
        }),
        contestant("maglev", Kind::Table, |fleet| {
            let size = fleet.table_size().get() as usize;
            let table = maglev::Maglev::with_capacity(fleet.numbers.iter().copied(), size);
            Some(placed(table, |table: &maglev::Maglev<u32>, key: &str| {
                table.get(key).copied().unwrap_or(u32::MAX)
            }))
        }),
        contestant("maglev-hash", Kind::Table, |fleet| {
            let size = fleet.table_size().get() as usize;
            let table = maglev_hash::MaglevTable::with_capacity(fleet.numbers.clone(), size);
            Some(placed(table, |table: &maglev_hash::MaglevTable<u32>, key| {
                table.get(&key).copied().unwrap_or(u32::MAX)
            }))
        }),
        contestant("hash-rings, maglev", Kind::Table, |fleet| {
            let size = fleet.table_size().get();
            if u64::from(size) * u64::from(fleet.count()) > MOST_NUMBERS {
                return None;
            }
            let nodes = fleet.numbers.iter().collect();
            let table = hash_rings::maglev::Ring::with_capacity_hint(nodes, size as usize);
            Some(placed(table, |table, key| *table.get_node(&key)))
        }),
        contestant("rendezvous_hash", Kind::Scores, |fleet| {
            let mut nodes = RendezvousNodes::new(DefaultNodeHasher::new());
            fleet.numbers.iter().for_each(|number| {
                nodes.insert(rendezvous_hash::IdNode::new(*number));
            });
            Some(placed(nodes, |nodes, key| {
                nodes.calc_candidates(&key).next().map_or(u32::MAX, |node| **node)
            }))
        }),
        contestant("hrw-hash", Kind::Scores, |fleet| {
            let nodes = hrw_hash::HrwNodes::new(fleet.numbers.iter().copied());
            Some(placed(nodes, |nodes: &hrw_hash::HrwNodes<u32>, key| {
                nodes.sorted(&key).next().copied().unwrap_or(u32::MAX)
            }))
        }),
        contestant("hash-rings, rendezvous", Kind::Scores, |fleet| {
            let hasher = BuildHasherDefault::<DefaultHasher>::default();
            let mut ring = hash_rings::rendezvous::Ring::with_hasher(hasher);
            fleet.numbers.iter().for_each(|number| ring.insert_node(number, 1));
            Some(placed(ring, |ring, key| *ring.get_node(&key)))
        }),
        contestant("jumphash", Kind::Jump, |fleet| {
            let count = fleet.count();
            Some(placed(jumphash::JumpHasher::new(), move |hasher: &jumphash::JumpHasher, key| {
                hasher.slot(&key, count)
            }))
        }),
        contestant("anchorhash", Kind::Anchor, |fleet| {
            let builder = anchorhash::Builder::default();
            let capacity = u16::try_from(fleet.count()).ok()?;
            let anchor: anchorhash::AnchorHash<&str, u32, _> =
                builder.with_resources(fleet.numbers.iter().copied()).build(capacity);
            Some(placed(anchor, |anchor, key| {
                // Its keys are of one type, with one lifetime: a key's own would be too short.
                anchor.get_resource(key).copied().unwrap_or(u32::MAX)
            }))
        }),
    ]
}
