//! How many connections there may be, in all and of one client.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Counts the connections of all workers.
#[derive(Debug)]
pub struct Gate {
    most: AtomicUsize,
    most_per_client: AtomicUsize,
    all: AtomicUsize,
    /// Only kept when there is a limit.
    by_client: Mutex<HashMap<IpAddr, usize>>,
}

/// A connection that was let in, until dropped.
#[derive(Debug)]
pub struct Admitted {
    gate: Arc<Gate>,
    /// Where it is counted by its address.
    client: Option<IpAddr>,
}

// === impl Gate ===

impl Gate {
    /// Lets in so many in all and so many of one client's address; any number where `None`.
    pub fn new(most: Option<usize>, most_per_client: Option<usize>) -> Arc<Self> {
        let gate = Arc::new(Self {
            most: AtomicUsize::default(),
            most_per_client: AtomicUsize::default(),
            all: AtomicUsize::new(0),
            by_client: Mutex::default(),
        });
        gate.limit(most, most_per_client);
        gate
    }

    /// From now on so many are let in; who is in stays. Those that came while there was no limit
    /// for one client do not count for theirs.
    pub fn limit(&self, most: Option<usize>, most_per_client: Option<usize>) {
        self.most.store(most.unwrap_or(usize::MAX), Ordering::Relaxed);
        self.most_per_client.store(most_per_client.unwrap_or(usize::MAX), Ordering::Relaxed);
    }

    /// Lets a connection in, if there is room for it.
    pub fn admit(self: &Arc<Self>, client: IpAddr) -> Option<Admitted> {
        if self.all.fetch_add(1, Ordering::Relaxed) >= self.most.load(Ordering::Relaxed) {
            self.all.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let most_per_client = self.most_per_client.load(Ordering::Relaxed);
        let limited = most_per_client < usize::MAX;
        if limited {
            // A count is right whatever panicked while it was locked.
            let mut by_client = self.by_client.lock().unwrap_or_else(PoisonError::into_inner);
            let count = by_client.entry(client).or_default();
            if *count >= most_per_client {
                self.all.fetch_sub(1, Ordering::Relaxed);
                return None;
            }
            *count += 1;
        }
        Some(Admitted { gate: Arc::clone(self), client: limited.then_some(client) })
    }
}

// === impl Admitted ===

impl Drop for Admitted {
    fn drop(&mut self) {
        let gate = &self.gate;
        gate.all.fetch_sub(1, Ordering::Relaxed);
        if let Some(client) = &self.client {
            let mut by_client = gate.by_client.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(count) = by_client.get_mut(client) {
                *count -= 1;
                if *count == 0 {
                    by_client.remove(client);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_limits_are_let_in_and_those_who_left_make_room() {
        let gate = Gate::new(Some(3), Some(2));
        let (one, other) = ("1.1.1.1".parse().unwrap(), "2.2.2.2".parse().unwrap());
        let first = gate.admit(one).unwrap();
        let _second = gate.admit(one).unwrap();
        assert!(gate.admit(one).is_none(), "two of one client");
        let _third = gate.admit(other).unwrap();
        assert!(gate.admit(other).is_none(), "three in all");
        drop(first);
        let again = gate.admit(one).unwrap();
        drop(again);
        assert!(gate.admit(other).is_some());
        assert_eq!(gate.all.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn limits_may_change_while_connections_are_there() {
        let gate = Gate::new(None, None);
        let client = [1, 1, 1, 1].into();
        let before = gate.admit(client).unwrap();
        gate.limit(Some(2), Some(1));
        let counted = gate.admit(client).unwrap();
        assert!(gate.admit(client).is_none());
        gate.limit(None, None);
        drop((before, counted));
        assert!(gate.by_client.lock().unwrap().is_empty());
        assert_eq!(gate.all.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn without_limits_everybody_is_let_in_and_nothing_is_kept() {
        let gate = Gate::new(None, None);
        let all: Vec<_> = (0..1_000).map(|_| gate.admit([1, 1, 1, 1].into())).collect();
        assert!(all.iter().all(Option::is_some));
        assert!(gate.by_client.lock().unwrap().is_empty());
    }
}
