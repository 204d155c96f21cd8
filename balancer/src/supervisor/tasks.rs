//! Calls to the runtime, side by side, each with an outcome that comes back.

use std::rc::Rc;
use std::time::{Duration, Instant};

use actix_web::rt::spawn;
use tokio::sync::{Semaphore, mpsc};
use tracing::debug;

use crate::fleet::change::Cause;
use crate::fleet::listed::Server;
use crate::fleet::members::{Lease, Stage};
use crate::fleet::observed::Observed;
use crate::fleet::release::Release;
use crate::fleet::roster::Tick;
use crate::fleet::seat::{Hostname, Seat};
use crate::runtime::{Mark, ReplicaSpec, Runtime, RuntimeError};

/// Starts that may be under way at once, and other calls: sixteen in all with the one listing and
/// the one renewal of the lease.
/// Starts may wait for an image for minutes, and stops must not wait for them.
const STARTS: usize = 7;
const OTHERS: usize = 7;

/// Outcomes that may wait: each is taken at once, and a sender that finds it full waits.
const OUTCOMES: usize = 1_024;

/// A listing that takes long comes less often: it may take this part of the time, up to a longest
/// pause. Hints are followed all the same.
const LIST_SHARE: u32 = 10;
const LIST_PAUSE_MAX: Duration = Duration::from_secs(10);

/// Starts calls.
pub(super) struct Tasks<R> {
    runtime: Rc<R>,
    starts: Rc<Semaphore>,
    others: Rc<Semaphore>,
    tell: mpsc::Sender<Outcome>,
}

/// What a call came to.
pub(super) enum Outcome {
    /// A listing that was asked for at a tick, and how long it took.
    Listed {
        began: Tick,
        took: Duration,
        listing: Result<Vec<Observed>, RuntimeError>,
    },
    /// The lease was renewed, with the wanted fleet of this version and with this stage; then all
    /// leases were listed.
    Renewed {
        version: u64,
        stage: Stage,
        result: Result<Vec<Lease>, RuntimeError>,
    },
    Started(Hostname, Result<Observed, RuntimeError>),
    Enlisted(Server, Result<Vec<Observed>, RuntimeError>),
    Marked(Hostname, Result<(), RuntimeError>),
    Stopped(Hostname, Result<(), RuntimeError>),
}

/// One listing is under way at most; a hint that comes meanwhile asks for one more.
pub(super) struct Listing {
    under_way: bool,
    again: bool,
    /// How often everything is listed anew, whether or not something hinted at a change.
    every: Duration,
    due: Instant,
    error: Option<Cause>,
}

// === impl Tasks ===

impl<R: Runtime> Tasks<R> {
    /// Calls `runtime`.
    pub(super) fn new(runtime: Rc<R>) -> (Self, mpsc::Receiver<Outcome>) {
        let (tell, outcomes) = mpsc::channel(OUTCOMES);
        let (starts, others) = (Semaphore::new(STARTS), Semaphore::new(OTHERS));
        let (starts, others) = (Rc::new(starts), Rc::new(others));
        (Self { runtime, starts, others, tell }, outcomes)
    }

    pub(super) fn start(&self, hostname: Hostname, seat: Option<Seat>, release: Release) {
        let runtime = Rc::clone(&self.runtime);
        self.call(&self.starts, async move {
            let spec = ReplicaSpec { hostname, seat, release };
            let result = runtime.start(&spec).await;
            Outcome::Started(spec.hostname, result)
        });
    }

    pub(super) fn enlist(&self, server: Server) {
        let runtime = Rc::clone(&self.runtime);
        self.call(&self.others, async move {
            let result = runtime.enlist(&server).await;
            Outcome::Enlisted(server, result)
        });
    }

    pub(super) fn mark(&self, hostname: Hostname, mark: Mark) {
        let runtime = Rc::clone(&self.runtime);
        self.call(&self.others, async move {
            let result = runtime.mark(&hostname, mark).await;
            Outcome::Marked(hostname, result)
        });
    }

    pub(super) fn stop(&self, hostname: Hostname, grace: Duration) {
        let runtime = Rc::clone(&self.runtime);
        self.call(&self.others, async move {
            let result = runtime.stop(&hostname, grace).await;
            Outcome::Stopped(hostname, result)
        });
    }

    /// Lists without waiting for other calls: what they wait for may be that it is listed.
    pub(super) fn list(&self, began: Tick) {
        let (runtime, tell) = (Rc::clone(&self.runtime), self.tell.clone());
        spawn(async move {
            let from = Instant::now();
            let listing = runtime.list().await;
            let took = from.elapsed();
            // The receiver is gone only when the supervisor has ended.
            let _told = tell.send(Outcome::Listed { began, took, listing }).await.is_ok();
        });
    }

    /// Writes the next lease, lists all of them, and removes the ones before it and the `litter`.
    /// Does not wait for other calls: they may take longer than a lease lasts.
    pub(super) fn renew(&self, lease: Lease, version: u64, litter: Vec<Lease>) {
        let (runtime, tell) = (Rc::clone(&self.runtime), self.tell.clone());
        spawn(async move {
            let stage = lease.stage;
            let result = renewed(&*runtime, &lease, litter).await;
            // The receiver is gone only when the supervisor has ended.
            let _told = tell.send(Outcome::Renewed { version, stage, result }).await.is_ok();
        });
    }

    fn call(&self, room: &Rc<Semaphore>, call: impl Future<Output = Outcome> + 'static) {
        let (room, tell) = (Rc::clone(room), self.tell.clone());
        spawn(async move {
            let permit = room.acquire().await;
            let outcome = call.await;
            drop(permit);
            let _told = tell.send(outcome).await.is_ok();
        });
    }
}

async fn renewed<R: Runtime>(
    runtime: &R,
    lease: &Lease,
    litter: Vec<Lease>,
) -> Result<Vec<Lease>, RuntimeError> {
    runtime.write_lease(lease).await?;
    let leases = runtime.leases().await?;
    let is_before = |other: &&Lease| other.key == lease.key && other.sequence < lease.sequence;
    let before = leases.iter().filter(is_before).cloned();
    for other in before.chain(litter).collect::<Vec<_>>() {
        if let Err(error) = runtime.remove_lease(&other).await {
            debug!(%error, "a lease could not be removed; it is tried again");
        }
    }
    Ok(leases)
}

// === impl Listing ===

impl Listing {
    pub(super) fn new(every: Duration, now: Instant) -> Self {
        Self { under_way: false, again: false, every, due: now + every, error: None }
    }

    /// When the next one is due, hint or not.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Whether one may be begun now; then it is. Otherwise one follows the one under way.
    pub(super) fn may_begin(&mut self) -> bool {
        self.again = self.under_way;
        // Not due while it is under way: its end says when the next one is.
        self.due = Instant::now() + Duration::from_secs(60);
        !std::mem::replace(&mut self.under_way, true)
    }

    /// One has ended: whether the next is to be begun at once.
    pub(super) fn ended(&mut self, took: Duration, now: Instant) -> bool {
        self.under_way = false;
        let slow = if self.error.is_some() { self.every } else { took * LIST_SHARE };
        self.due = now + slow.min(LIST_PAUSE_MAX).max(self.every);
        std::mem::take(&mut self.again)
    }

    /// Why the last one failed, if it did.
    pub(super) fn error(&self) -> Option<&Cause> {
        self.error.as_ref()
    }

    /// One has failed: whether that is news.
    pub(super) fn note_error(&mut self, cause: &Cause) -> bool {
        self.error.replace(Cause::clone(cause)).is_none()
    }

    /// One has not failed: whether that is news.
    pub(super) fn clear_error(&mut self) -> bool {
        self.error.take().is_some()
    }
}
