//! What the threads share: the table, and the way to its one writer.

pub mod history;
pub mod stats;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use serde::Serialize;
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, Semaphore, SemaphorePermit, mpsc, oneshot};

use crate::fleet::change::{Cause, Change, ChangeKind, Failed, Refused};
use crate::fleet::roster::{
    FleetStatus, Occupant, Rehearsal, Rehearsed, ReleaseConfig, RollRequest, RollStatus,
};
use crate::fleet::scale::ScaleStatus;
use crate::fleet::seat::{Hostname, MemberId};
use crate::metrics::Metrics;
use crate::routing::pool::Pool;
use crate::routing::table::Table;
use history::History;
use stats::Stats;

/// Changes that may wait for the supervisor: it takes each at once, so a full queue means that it
/// is gone or overwhelmed, and the caller had better be told.
const COMMANDS: usize = 1_024;

/// What handlers get.
#[derive(Debug)]
pub struct Shared {
    table: ArcSwap<Table>,
    pool: Arc<Pool>,
    commands: mpsc::Sender<Command>,
    alarm: Notify,
    history: History,
    metrics: Arc<Metrics>,
    stats: Stats,
    stopping: AtomicBool,
    stop_begins: Notify,
    published: Notify,
    /// One placement at a time is worked out for somebody who only wants to know.
    drafts: Semaphore,
}

/// What the supervisor is asked, with the way back for its answer.
#[derive(Debug)]
pub enum Command {
    /// To change the fleet.
    Change {
        /// Whether replicas come or go.
        kind: ChangeKind,
        /// How many and which.
        change: Change,
        /// Told once, when the change is through: what `/rep` lists then.
        reply: Reply<Vec<Hostname>>,
    },
    /// To change the rollout.
    Roll {
        /// How.
        order: RollOrder,
        /// Told at once: it goes on by itself.
        reply: Reply<RollStatus>,
    },
    /// To take another configuration of what replicas run.
    Configure {
        /// The configuration.
        release: ReleaseConfig,
        /// Told at once.
        reply: Reply<()>,
    },
    /// To tell of one replica, and perhaps to switch it on or off before.
    Node {
        /// Which.
        hostname: Hostname,
        /// Whether it takes new requests from now on; as before where nothing is said.
        enable: Option<bool>,
        /// Told at once; nothing of one that there is not.
        reply: Reply<Option<NodeStatus>>,
    },
    /// To list the replicas that can be switched on and off.
    Nodes {
        /// Told at once: those that take requests, or would if they were not switched off.
        reply: Reply<Vec<String>>,
    },
    /// To tell what there is.
    Status {
        /// Told at once.
        reply: Reply<SupervisorStatus>,
    },
    /// To tell who is at which member of the ring.
    Ring {
        /// Told at once.
        reply: Reply<RingStatus>,
    },
    /// To tell what a change would make of the ring.
    Rehearse {
        /// The change.
        rehearsal: Rehearsal,
        /// Told at once, with the ring as it is.
        reply: Reply<(RingStatus, Rehearsed)>,
    },
}

/// A change of the rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RollOrder {
    /// Begins one, which supersedes one that is under way.
    Begin(RollRequest),
    /// Rolls back.
    Back,
    /// Lets no further seat have its turn.
    Pause,
    /// Goes on after a pause.
    Resume,
}

/// The way back for an answer.
pub type Reply<T> = oneshot::Sender<Result<T, ChangeError>>;

/// A replica as controllers see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeStatus {
    /// Its name.
    pub node: String,
    /// Whether it takes new requests: nobody has switched it off.
    pub enabled: bool,
    /// Requests in flight at it.
    pub queued_requests: usize,
}

/// The fleet as its supervisor sees it.
#[derive(Debug)]
pub struct SupervisorStatus {
    /// The fleet.
    pub fleet: FleetStatus,
    /// How it follows its load, if it does.
    pub scale: Option<ScaleStatus>,
    /// The pool, where other balancers can have a part in it.
    pub pool: Option<PoolStatus>,
    /// Why the runtime does not answer, if it does not.
    pub engine_error: Option<String>,
}

/// A pool and its members as they are shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PoolStatus {
    /// The pool's name.
    pub name: String,
    /// Whether other balancers may join.
    pub shared: bool,
    /// The members that live, this balancer first.
    pub members: Vec<MemberStatus>,
}

/// A balancer of a pool as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemberStatus {
    /// The balancer's name, the same after a restart.
    pub id: String,
    /// The address of its traffic listener.
    pub address: String,
    /// Whether it is the balancer that answers.
    #[serde(rename = "self")]
    pub own: bool,
    /// `joining`, `serving`, `leaving` or `removing`.
    pub stage: &'static str,
}

/// The ring, and who is there.
#[derive(Debug)]
pub struct RingStatus {
    /// The table.
    pub table: Arc<Table>,
    /// Who is at each member of the ring, ascending.
    pub occupants: Vec<Occupant>,
}

/// Why a change did not happen.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// Nothing was tried.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// It was tried and undone.
    #[error(transparent)]
    Failed(#[from] Failed),
    /// It was not tried: the runtime does not answer.
    #[error("the fleet cannot be changed now: its runtime does not answer")]
    NoRuntime(#[source] Cause),
    /// The supervisor takes no more.
    #[error("too many changes are under way")]
    Busy,
}

// === impl RingStatus ===

impl RingStatus {
    /// Who is at a member.
    pub fn occupant(&self, member: MemberId) -> Option<&Occupant> {
        let place = self.occupants.binary_search_by_key(&member, |occupant| occupant.member);
        place.ok().map(|place| &self.occupants[place])
    }
}

// === impl Shared ===

impl Shared {
    /// Shares `table`; the supervisor takes commands from the other end.
    pub fn new(table: Table) -> (Arc<Self>, mpsc::Receiver<Command>) {
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let pool = Arc::clone(table.pool());
        let table = ArcSwap::from_pointee(table);
        let (alarm, stop_begins) = (Notify::new(), Notify::new());
        let (history, stopping) = (History::new(), AtomicBool::new(false));
        let (metrics, stats) = (Metrics::new(), Stats::new());
        let shared = Self {
            table,
            pool,
            commands,
            alarm,
            history,
            metrics,
            stats,
            stopping,
            stop_begins,
            published: Notify::new(),
            drafts: Semaphore::new(1),
        };
        (Arc::new(shared), receiver)
    }

    /// The table as it is now: one snapshot for every try of a request.
    pub fn table(&self) -> Arc<Table> {
        self.table.load_full()
    }

    /// Swaps the table: the supervisor's alone.
    pub fn publish(&self, table: Table) {
        self.table.store(Arc::new(table));
        self.published.notify_waiters();
        // Somebody may have come that has room.
        if self.pool.waiting() > 0 {
            self.pool.call_all();
        }
    }

    /// Resolves when the next table has been published after this call.
    pub fn published(&self) -> Notified<'_> {
        self.published.notified()
    }

    /// What all replicas have together: the same for all tables.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// What has happened to the fleet.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// What is counted.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// What was counted when statistics were cleared.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Something is wrong with a replica, and it has been noted there: the supervisor is to look.
    pub fn alarm(&self) {
        self.alarm.notify_one();
    }

    /// Until there was an alarm that was not looked after.
    pub async fn alarmed(&self) {
        self.alarm.notified().await;
    }

    /// From now on answers end their connections.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.stop_begins.notify_waiters();
    }

    /// Until the balancer stops.
    pub async fn stopped(&self) {
        let begins = self.stop_begins.notified();
        if !self.is_stopping() {
            begins.await;
        }
    }

    /// Whether the balancer is stopping.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Asks the supervisor for a change and waits until it is through.
    ///
    /// # Errors
    /// When it was refused or failed.
    pub async fn change(
        &self,
        kind: ChangeKind,
        change: Change,
    ) -> Result<Vec<Hostname>, ChangeError> {
        self.ask(|reply| Command::Change { kind, change, reply }).await
    }

    /// Asks the supervisor to change the rollout. Returns its state after the change.
    ///
    /// # Errors
    /// When it was refused.
    pub async fn roll(&self, order: RollOrder) -> Result<RollStatus, ChangeError> {
        self.ask(|reply| Command::Roll { order, reply }).await
    }

    /// Gives the supervisor another configuration of what replicas run.
    ///
    /// # Errors
    /// When it is not there or overwhelmed.
    pub async fn configure(&self, release: ReleaseConfig) -> Result<(), ChangeError> {
        self.ask(|reply| Command::Configure { release, reply }).await
    }

    /// Asks the supervisor what there is.
    ///
    /// # Errors
    /// When it is not there or overwhelmed.
    pub async fn status(&self) -> Result<SupervisorStatus, ChangeError> {
        self.ask(|reply| Command::Status { reply }).await
    }

    /// Asks the supervisor for one replica, and to switch it on or off before where `enable` says so.
    /// `None` for one that there is not.
    ///
    /// # Errors
    /// When it is not there or overwhelmed.
    pub async fn node(
        &self,
        hostname: Hostname,
        enable: Option<bool>,
    ) -> Result<Option<NodeStatus>, ChangeError> {
        self.ask(|reply| Command::Node { hostname, enable, reply }).await
    }

    /// Asks the supervisor which replicas take requests, or would if they were not switched off.
    ///
    /// # Errors
    /// When it is not there or overwhelmed.
    pub async fn nodes(&self) -> Result<Vec<String>, ChangeError> {
        self.ask(|reply| Command::Nodes { reply }).await
    }

    /// Asks the supervisor who is at which member of the ring.
    ///
    /// # Errors
    /// When it is not there or overwhelmed.
    pub async fn ring(&self) -> Result<RingStatus, ChangeError> {
        self.ask(|reply| Command::Ring { reply }).await
    }

    /// Asks the supervisor what a change would make of the ring. Nothing is changed.
    ///
    /// # Errors
    /// When the change itself would be refused.
    pub async fn rehearse(
        &self,
        rehearsal: Rehearsal,
    ) -> Result<(RingStatus, Rehearsed), ChangeError> {
        self.ask(|reply| Command::Rehearse { rehearsal, reply }).await
    }

    /// Until it is one's turn to work out a placement that nothing is routed by: they may be large,
    /// and whoever may only look may ask for many.
    pub async fn draft(&self) -> SemaphorePermit<'_> {
        self.drafts.acquire().await.expect("it is never closed")
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, ChangeError> {
        let (reply, outcome) = oneshot::channel();
        self.commands.try_send(command(reply)).map_err(|_full_or_closed| ChangeError::Busy)?;
        // A dropped reply is the supervisor's end.
        outcome.await.unwrap_or(Err(ChangeError::Failed(Failed::ShuttingDown)))
    }
}
