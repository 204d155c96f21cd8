//! A look-up in any placement allocates nothing, nor does counting a request. A program of its own,
//! since it counts every allocation of the process.

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use balancer::fleet::seat::{Hostname, MemberId, Seat};
use balancer::metrics::{Code, Metrics};
use balancer::routing::placement::{
    ClassicConfig, MaglevConfig, Member, Placement, PlacementConfig, RingConfig, Secret, TableSize,
};
use balancer::routing::table::{Replica, ReplicaId};

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

fn allocations_of_counting() -> u64 {
    let shard = Metrics::new().route("default").shard();
    let seat = Seat::new(1).expect("not 0");
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    let replica = Replica::new(
        ReplicaId(1),
        Hostname::of_seat(seat),
        MemberId::Seat(seat),
        address,
        &Arc::default(),
    );
    let replica = Arc::new(replica);
    let count = || {
        let tally = shard.begin(Instant::now());
        shard.attempt(&replica, Code::Error);
        shard.retry();
        shard.attempt(&replica, Code::Success);
        shard.fan_attempt(&replica, true);
        tally.answered(200);
    };
    // The first time it meets the replica.
    count();
    let before = dhat::HeapStats::get().total_blocks;
    for _ in 0..1_000 {
        count();
    }
    dhat::HeapStats::get().total_blocks - before
}

#[test]
fn looking_owners_up_and_counting_allocate_nothing() {
    let _counting = dhat::Profiler::builder().testing().build();
    let before = dhat::HeapStats::get().total_blocks;
    black_box(vec![1_u8; 100]);
    assert_eq!(dhat::HeapStats::get().total_blocks - before, 1, "allocations are counted");

    for seats in [3, 56, 1_000] {
        let table_size = TableSize::new(100_003).expect("a prime");
        for config in [
            PlacementConfig::Ring(RingConfig::default()),
            PlacementConfig::Ketama,
            PlacementConfig::Maglev(MaglevConfig { table_size, ..MaglevConfig::default() }),
            PlacementConfig::Rendezvous(Secret::default()),
            PlacementConfig::Jump(Secret::default()),
        ] {
            assert_eq!(allocations_of_lookups(&config, seats), 0, "{config:?} of {seats}");
        }
    }
    let classic = PlacementConfig::Classic(ClassicConfig::default());
    assert_eq!(allocations_of_lookups(&classic, 56), 0, "classic");
    assert_eq!(allocations_of_counting(), 0, "counting");
}
