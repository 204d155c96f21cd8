//! What the threads share: the table, and the way to its one writer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::fleet::change::{Change, ChangeKind, Failed, Refused};
use crate::fleet::seat::Hostname;
use crate::routing::table::Table;

/// Changes that may wait for the supervisor: it takes each at once, so a full queue means that it
/// is gone or overwhelmed, and the caller had better be told.
const COMMANDS: usize = 1_024;

/// What handlers get.
#[derive(Debug)]
pub struct Shared {
    table: ArcSwap<Table>,
    commands: mpsc::Sender<Command>,
    stopping: AtomicBool,
    stop_begins: Notify,
}

/// A change of the fleet, with the way back for its outcome.
#[derive(Debug)]
pub struct Command {
    /// Whether replicas come or go.
    pub kind: ChangeKind,
    /// How many and which.
    pub change: Change,
    /// Told once, when the change is through: what `/rep` lists then.
    pub reply: oneshot::Sender<Result<Vec<Hostname>, ChangeError>>,
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
    /// The supervisor takes no more.
    #[error("too many changes are under way")]
    Busy,
}

// === impl Shared ===

impl Shared {
    /// Shares `table`; the supervisor takes commands from the other end.
    pub fn new(table: Table) -> (Arc<Self>, mpsc::Receiver<Command>) {
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let table = ArcSwap::from_pointee(table);
        let shared =
            Self { table, commands, stopping: AtomicBool::new(false), stop_begins: Notify::new() };
        (Arc::new(shared), receiver)
    }

    /// The table as it is now: one snapshot for every try of a request.
    pub fn table(&self) -> Arc<Table> {
        self.table.load_full()
    }

    /// Swaps the table: the supervisor's alone.
    pub fn publish(&self, table: Table) {
        self.table.store(Arc::new(table));
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
        let (reply, outcome) = oneshot::channel();
        self.commands
            .try_send(Command { kind, change, reply })
            .map_err(|_full_or_closed| ChangeError::Busy)?;
        // A dropped reply is the supervisor's end.
        outcome.await.unwrap_or(Err(ChangeError::Failed(Failed::ShuttingDown)))
    }
}
