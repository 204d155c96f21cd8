//! All shards of one worker.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use super::{Metrics, RouteShard};
use crate::config::NO_ROUTE;

/// What one worker counts, by route.
#[derive(Debug)]
pub struct Shards {
    metrics: Arc<Metrics>,
    by_route: RefCell<BTreeMap<String, Rc<RouteShard>>>,
}

// === impl Shards ===

impl Shards {
    /// Shards for one more worker.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        let shards = Self { metrics, by_route: RefCell::default() };
        // So that there are zeros from the start.
        shards.of(NO_ROUTE);
        shards
    }

    /// The shard of the route of this name: the same one whenever it is asked for, so that a
    /// configuration can be read again and again. Takes a lock the first time.
    pub fn of(&self, route: &str) -> Rc<RouteShard> {
        let mut by_route = self.by_route.borrow_mut();
        if let Some(shard) = by_route.get(route) {
            return Rc::clone(shard);
        }
        let shard = Rc::new(self.metrics.route(route).shard());
        by_route.insert(route.to_owned(), Rc::clone(&shard));
        shard
    }

    /// Lets go of replicas that have left. To be called now and then.
    pub fn sweep(&self) {
        for shard in self.by_route.borrow().values() {
            shard.sweep();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_route_has_one_shard_however_often_it_is_configured() {
        let metrics = Metrics::new();
        let shards = Shards::new(Arc::clone(&metrics));
        for _ in 0..100 {
            let shard = shards.of("a");
            shard.begin(Instant::now()).answered(200);
            assert!(Rc::ptr_eq(&shard, &shards.of("a")));
        }
        let told: Vec<_> = metrics.routes();
        let told: Vec<_> = told.iter().map(|(name, sum)| (name.as_str(), sum.ended[1])).collect();
        assert_eq!(told, [("a", 100), ("none", 0)]);
    }
}
