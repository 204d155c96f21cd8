//! A count that one thread writes.

use std::sync::atomic::{AtomicU64, Ordering};

/// A count that one thread writes and any thread reads: without a lock, and without an addition
/// that other processors would have to wait for.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

// === impl Count ===

impl Count {
    /// Adds so many. Two threads at once would lose some: whoever has a count to write is not
    /// `Sync`.
    pub(super) fn add(&self, more: u64) {
        let sum = self.0.load(Ordering::Relaxed).wrapping_add(more);
        self.0.store(sum, Ordering::Relaxed);
    }

    /// How many there are.
    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
