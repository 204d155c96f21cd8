//! A look-up on the ring allocates nothing. A program of its own, since it counts every allocation
//! of the process.

use std::hint::black_box;

use balancer::fleet::seat::{MemberId, Seat};
use balancer::routing::placement::{ClassicConfig, Member, Placement, PlacementConfig, RingConfig};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// As many owners as a request is tried at, and a few more.
const OWNERS: usize = 8;

fn allocations_of_lookups(config: &PlacementConfig, seats: u32) -> u64 {
    let members: Vec<Member> = (1..=seats)
        .filter_map(Seat::new)
        .map(|seat| Member::new(MemberId::Seat(seat), 1))
        .collect();
    let placement = Placement::build(config, &members).expect("they fit");
    let keys: Vec<String> = (100_000..101_000).map(|id: u32| id.to_string()).collect();
    let before = dhat::HeapStats::get().total_blocks;
    for key in &keys {
        for owner in placement.owners(key.as_bytes()).take(OWNERS) {
            black_box(owner);
        }
    }
    dhat::HeapStats::get().total_blocks - before
}

#[test]
fn looking_owners_up_allocates_nothing() {
    let _counting = dhat::Profiler::builder().testing().build();
    let before = dhat::HeapStats::get().total_blocks;
    black_box(vec![1_u8; 100]);
    assert_eq!(dhat::HeapStats::get().total_blocks - before, 1, "allocations are counted");

    for seats in [3, 56, 1_000] {
        let ring = PlacementConfig::Ring(RingConfig::default());
        assert_eq!(allocations_of_lookups(&ring, seats), 0, "ring of {seats}");
    }
    let classic = PlacementConfig::Classic(ClassicConfig::default());
    assert_eq!(allocations_of_lookups(&classic, 56), 0, "classic");
}
