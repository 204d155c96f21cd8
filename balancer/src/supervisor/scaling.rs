//! The fleet follows its load, by the way of `/add` and `/rm`.

use std::sync::Arc;
use std::time::Instant;

use super::Supervisor;
use crate::fleet::change::{Change, Failed};
use crate::fleet::event::What;
use crate::fleet::roster::ChangeId;
use crate::fleet::scale::{Advice, Load, ScaleConfig, ScaleStatus, Scaler};
use crate::fleet::seat::Hostname;
use crate::runtime::Runtime;

/// See the module.
pub(super) struct Scaling {
    scaler: Scaler,
    /// Its own change that is not through: there is one at most.
    under_way: Option<ChangeId>,
}

// === impl Scaling ===

impl Scaling {
    pub(super) fn new(config: ScaleConfig, size: usize, now: Instant) -> Self {
        Self { scaler: Scaler::new(config, size, now), under_way: None }
    }

    /// When it wants to look again.
    pub(super) fn due(&self) -> Instant {
        self.scaler.due()
    }

    pub(super) fn status(&self) -> ScaleStatus {
        self.scaler.status()
    }
}

// === impl Supervisor ===

impl<R: Runtime> Supervisor<R> {
    /// Looks at the load if that is due, and does what is to be done about it. What cannot be done
    /// now is decided anew at the end of the next interval.
    pub(super) fn scale(&mut self) {
        let now = Instant::now();
        let size = self.roster.size();
        let Some(Advice { desired, reason, .. }) = self.observe(size, now) else { return };
        if desired == size || self.must_wait(desired < size) {
            return;
        }
        self.tell(What::Scaling { from: size, to: desired, reason });
        let accepted = if desired > size {
            self.roster.add(Change { n: desired - size, ..Change::default() }, now)
        } else {
            let change = self.least_loaded(size - desired);
            self.roster.remove(change, &mut self.rng)
        };
        match accepted {
            Ok(id) => {
                if let Some(scaling) = &mut self.scaling {
                    scaling.under_way = Some(id);
                }
            }
            Err(refused) => self.tell(What::ScaleFailed(Arc::new(refused))),
        }
    }

    /// Hears that a change is through: perhaps the one that was made here.
    pub(super) fn scaled(&mut self, id: ChangeId, result: &Result<(), Failed>) {
        let Some(scaling) = &mut self.scaling else { return };
        if scaling.under_way != Some(id) {
            return;
        }
        scaling.under_way = None;
        if let Err(failed) = result {
            self.tell(What::ScaleFailed(Arc::new(failed.clone())));
        }
    }

    fn observe(&mut self, size: usize, now: Instant) -> Option<Advice> {
        let scaling = self.scaling.as_mut().filter(|scaling| scaling.due() <= now)?;
        let ready = self.roster.serving().count();
        // What one has that is out of rotation is load as well.
        let able = self.roster.able_by_seat();
        let in_flight = able.map(|hostname| self.handles.in_flight(hostname)).sum();
        scaling.scaler.observe(Load { size, ready, in_flight }, now)
    }

    /// Whether something is under way that it had better wait for.
    fn must_wait(&self, down: bool) -> bool {
        let changing = self.scaling.as_ref().is_some_and(|scaling| scaling.under_way.is_some());
        let unknown = self.listing.error().is_some();
        // Those of an `/add` cannot be removed before it is through; others would go for them.
        let adding = down && self.roster.is_adding();
        changing || unknown || adding || self.roster.is_rolling()
    }

    /// To remove `n`: those that are not ready, which `/rm` takes first, then those with the fewest
    /// requests in flight; of equals the one that came to the ring last by its seat.
    fn least_loaded(&self, n: usize) -> Change {
        let mut ready: Vec<&Hostname> = self.roster.able_by_seat().collect();
        let not_ready = self.roster.members().count().saturating_sub(ready.len());
        ready.reverse();
        ready.sort_by_cached_key(|hostname| self.handles.in_flight(hostname));
        let named = ready.into_iter().take(n.saturating_sub(not_ready));
        Change { n, hostnames: named.cloned().collect(), ..Change::default() }
    }
}
