//! What is placed: nodes and keys, the same for all.

use std::net::{Ipv4Addr, SocketAddr};

use balancer::routing::placement::{BadTableSize, TableSize};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// Nodes, known by numbers from 0, in every form that somebody wants.
#[derive(Debug)]
pub struct Fleet {
    /// The numbers.
    pub numbers: Vec<u32>,
    /// `10.0.0.1:80` and so on.
    pub addresses: Vec<SocketAddr>,
    /// The same as texts.
    pub names: Vec<String>,
}

/// How long a key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// A request id: six digits.
    Short,
    /// A path of 38 bytes.
    Long,
}

/// Points of a node on a ring, where a crate lets them be chosen.
pub const POINTS: usize = 160;

/// Keys of one measurement: more than a processor's nearest cache holds the owners of.
const KEYS: usize = 65_536;

// === impl Fleet ===

impl Fleet {
    /// So many nodes.
    pub fn new(count: u32) -> Self {
        let numbers: Vec<u32> = (0..count).collect();
        let address =
            |number: &u32| SocketAddr::new(Ipv4Addr::from_bits(0x0a00_0001 + number).into(), 8_080);
        let addresses: Vec<SocketAddr> = numbers.iter().map(address).collect();
        let names = addresses.iter().map(SocketAddr::to_string).collect();
        Self { numbers, addresses, names }
    }

    /// How many they are.
    pub fn count(&self) -> u32 {
        u32::try_from(self.numbers.len()).unwrap_or(u32::MAX)
    }

    /// A prime number of entries for a table over them: at least a hundred each, and never less
    /// than the balancer's default.
    pub fn table_size(&self) -> TableSize {
        let default = TableSize::default();
        match TableSize::new(default.get().max(self.count().saturating_mul(100))) {
            Ok(size) | Err(BadTableSize::NotPrime { next: size, .. }) => size,
            Err(BadTableSize::Bounds(_)) => default,
        }
    }
}

/// Keys, drawn by chance, the same in every run.
pub fn keys(length: Length) -> Vec<String> {
    let mut rng = StdRng::seed_from_u64(1);
    let mut id = || rng.random_range(100_000..1_000_000_u32);
    let key = |_| match length {
        Length::Short => id().to_string(),
        Length::Long => format!("/shops/{}/customers/{}/orders/", id(), id()),
    };
    (0..KEYS).map(key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_as_long_as_they_say_and_the_same_each_time() {
        for (length, bytes) in [(Length::Short, 6), (Length::Long, 38)] {
            let all = keys(length);
            assert_eq!(all.len(), KEYS);
            assert!(all.iter().all(|key| key.len() == bytes), "{:?}", all.first());
            assert_eq!(all, keys(length));
        }
    }

    #[test]
    fn a_table_has_a_prime_number_of_entries_and_a_hundred_for_each_node() {
        for (count, size) in [(10, 65_537), (655, 65_537), (1_000, 100_003), (10_000, 1_000_003)] {
            assert_eq!(Fleet::new(count).table_size().get(), size);
        }
    }
}
