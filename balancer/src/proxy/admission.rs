//! Which replica takes a request, and whether it has room for it: limits on what is in flight, and
//! the line before them.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use smallvec::SmallVec;
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use super::Worker;
use super::error::ProxyError;
use super::exchange::{Exchange, Outcome};
use super::rules::Route;
use crate::config::{AdmissionConfig, RouteConfig};
use crate::routing::choice::Terms;
use crate::routing::policy::Pick;
use crate::routing::pool::Waiting;
use crate::routing::table::{InFlight, Most, NoEntry, Replica, ReplicaId, Table};

/// Why a request is at no replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shut {
    /// There is none that could be asked.
    Nobody,
    /// The one that was chosen left just now: the table of now says who has the key.
    Left,
    /// Those that could be asked have no room.
    Full,
}

/// A request's place in the line, if it has one, and until when it waits.
#[derive(Debug, Default)]
pub(super) struct InLine(Option<(Waiting, Instant)>);

/// How often a replica that had room is lost to somebody faster before that counts as none.
const RACES: usize = 8;

// === impl Worker ===

impl Worker {
    /// Chooses a replica and counts the request in there; who was chosen is noted as tried.
    pub(super) fn enter<'t>(
        &self,
        route: &RouteConfig,
        table: &'t Table,
        pick: Pick<'_>,
        tried: &mut SmallVec<[ReplicaId; 4]>,
    ) -> Result<(&'t Arc<Replica>, InFlight), Shut> {
        let terms = route.terms(self.admission());
        for race in 1..=RACES {
            let (replica, bound) = self.choose(&terms, table, pick, tried)?;
            let limits = terms.limits.as_ref().map(|limits| limits(replica));
            let Most { at_replica, in_all } = limits.unwrap_or(Most::ANY);
            // A share of the load is no limit: who is always too late for it gets in all the same.
            let bound = if race < RACES { bound } else { usize::MAX };
            let most = Most { at_replica: at_replica.min(bound), in_all };
            match replica.enter_within(most) {
                Ok(in_flight) => {
                    tried.push(replica.id());
                    return Ok((replica, in_flight));
                }
                Err(NoEntry::Closed) => {
                    tried.push(replica.id());
                    return Err(Shut::Left);
                }
                Err(NoEntry::Full) => {}
            }
        }
        Err(Shut::Full)
    }

    /// Enters a replica that runs but is ejected or fails its health checks, in the order of the
    /// key's owners. Those that could not be connected to a moment ago come last.
    #[cold]
    pub(super) fn enter_last_resort<'t>(
        &self,
        route: &Route,
        table: &'t Table,
        pick: Pick<'_>,
        tried: &mut SmallVec<[ReplicaId; 4]>,
    ) -> Option<(&'t Arc<Replica>, InFlight)> {
        let standby = table.standby_of(pick.key.as_bytes());
        let mut standby: SmallVec<[&Arc<Replica>; 8]> =
            standby.filter(|replica| !tried.contains(&replica.id())).collect();
        standby.sort_by_key(|replica| self.upstream.shuns(replica.id()));
        let (replica, in_flight) = standby
            .into_iter()
            .find_map(|replica| Some((replica, self.enter_at(&route.config, replica).ok()?)))?;
        debug!(hostname = %replica.hostname(), "no ready replica can answer: last resort");
        tried.push(replica.id());
        route.metrics.last_resort();
        Some((replica, in_flight))
    }

    /// Enters this replica, within the limits of what may be in flight.
    pub(super) fn enter_at(
        &self,
        route: &RouteConfig,
        replica: &Arc<Replica>,
    ) -> Result<InFlight, NoEntry> {
        let limits = route.terms(self.admission()).limits;
        replica.enter_within(limits.map_or(Most::ANY, |limits| limits(replica)))
    }

    /// The replica that is asked next, and its share of the load: none that was tried, none without
    /// room, and none that could not be connected to a moment ago, or beyond its share of the load,
    /// unless there is no other.
    fn choose<'t>(
        &self,
        terms: &Terms<impl Fn(&Replica) -> Most>,
        table: &'t Table,
        pick: Pick<'_>,
        tried: &[ReplicaId],
    ) -> Result<(&'t Arc<Replica>, usize), Shut> {
        let rng = &mut *self.rng.borrow_mut();
        let fresh = |replica: &Replica| !tried.contains(&replica.id());
        let shunned = |replica: &Replica| self.upstream.shuns(replica.id());
        match terms.choose(table, pick, rng, fresh, shunned) {
            Some(chosen) => Ok(chosen),
            None if table.all_ready().any(|replica| fresh(replica)) => Err(Shut::Full),
            None => Err(Shut::Nobody),
        }
    }

    /// The limits of now: those of requests that wait change with the configuration.
    pub(super) fn admission(&self) -> Option<AdmissionConfig> {
        self.rules.borrow().admission
    }

    /// Whether limits follow what answers take.
    pub(super) fn learns(&self) -> bool {
        self.admission().is_some_and(|admission| admission.adaptive.is_some())
    }

    /// An answer of a replica has begun, or did not in time.
    pub(super) fn learn(&self, replica: &Replica, latency: Duration) {
        if let Some(config) = self.admission().and_then(|config| config.adaptive) {
            replica.aimd().note(&config, latency, replica.in_flight(), self.now());
        }
    }
}

// === impl Exchange ===

impl Exchange<'_> {
    /// Whether others wait already: then a request that comes joins them.
    pub(super) fn finds_a_line(&self) -> bool {
        self.worker.admission().is_some() && self.worker.shared.pool().waiting() > 0
    }

    /// Waits until there may be room: the first time at the end of the line.
    pub(super) async fn wait_for_room(&mut self, place: &mut InLine) -> Result<(), Outcome> {
        let Some(config) = self.worker.admission() else { return Ok(()) };
        let (waiting, deadline) = match &mut place.0 {
            Some((waiting, deadline)) => (waiting, *deadline),
            none => {
                let Some(waiting) = self.worker.shared.pool().wait(config.queue) else {
                    self.worker.shared.metrics().turned_away(false);
                    return Err(Outcome::Fail(ProxyError::Overloaded));
                };
                let (waiting, deadline) = none.insert((waiting, Instant::now() + config.wait));
                if waiting.is_first() {
                    // What became free before it stood there called nobody.
                    return Ok(());
                }
                (waiting, *deadline)
            }
        };
        let worker = Rc::clone(self.worker);
        let mut called = waiting.called();
        let mut late = pin!(sleep_until(deadline));
        poll_fn(|cx| {
            if Pin::new(&mut called).poll(cx).is_ready() {
                // It may have been a change of the limits.
                worker.rules();
                return Poll::Ready(Ok(()));
            }
            if late.as_mut().poll(cx).is_ready() {
                self.worker.shared.metrics().turned_away(true);
                return Poll::Ready(Err(Outcome::Fail(ProxyError::Overloaded)));
            }
            self.poll_gone(cx).map(|()| {
                debug!(status = 499, "client has gone");
                Err(Outcome::Abort)
            })
        })
        .await
    }

    /// Waits until less is in flight than may be in all.
    pub(super) async fn wait_for_all(&mut self) -> Result<(), Outcome> {
        let mut place = InLine::default();
        let mut joins = self.finds_a_line();
        loop {
            let most = self.worker.admission().map_or(usize::MAX, |config| config.in_flight);
            if !std::mem::take(&mut joins) && self.worker.shared.pool().in_flight() < most {
                return Ok(());
            }
            self.wait_for_room(&mut place).await?;
        }
    }
}
