//! What `/add` and `/rm` ask for, and why it is refused or fails.

use std::error::Error;
use std::iter::successors;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use super::listed::Server;
use super::reason::NotReady;
use super::seat::Hostname;

/// A number of replicas, some of them by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// How many; at least 1.
    pub n: usize,
    /// Named ones, `n` at most.
    pub hostnames: Vec<Hostname>,
    /// The same as servers to be listed; none where replicas are owned.
    pub servers: Vec<Server>,
}

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// Replicas come.
    Add,
    /// Replicas go.
    Remove,
}

/// Why a change is refused; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// More names than replicas to add.
    #[error("Length of hostname list is more than newly added instances")]
    MoreNamesThanAdded,
    /// More names than replicas to remove.
    #[error("Length of hostname list is more than removable instances")]
    MoreNamesThanRemoved,
    /// A name, or another with the same slug, comes twice in one call.
    #[error("hostname {:?} is in 'hostnames' twice", .0.as_str())]
    Repeated(Hostname),
    /// A name, or another with the same slug, is in use.
    #[error("hostname {:?} is in use already", .0.as_str())]
    InUse(Hostname),
    /// No replica has this name.
    #[error("hostname {:?} is unknown: no replica has this name", .0.as_str())]
    Unknown(Hostname),
    /// More replicas than there may be.
    #[error(
        "'n' must be at most {left}: the fleet is {size} of {most} replicas ('max_replicas') \
         already"
    )]
    TooMany {
        /// How many more there may be.
        left: usize,
        /// How many there are.
        size: usize,
        /// How many there may be.
        most: usize,
    },
    /// The placement is full.
    #[error("'n' must be at most {left}: the placement has {left} of its {capacity} seats left")]
    NoSeat {
        /// Seats left.
        left: usize,
        /// Seats in all.
        capacity: usize,
    },
    /// More replicas than there are.
    #[error("'n' must be at most {size}, the number of replicas")]
    TooFew {
        /// How many there are.
        size: usize,
    },
    /// No rollout is under way that could be paused or resumed.
    #[error("no rollout is under way that could be paused or resumed: its state is {state}")]
    NotRolling {
        /// The state of the last one.
        state: &'static str,
    },
    /// No release is known from before the last rollout.
    #[error(
        "there is nothing to roll back to: no rollout is under way, and no earlier release is known \
         since the start of the balancer or the last rollback"
    )]
    NothingToRollBackTo,
    /// The runtime has no images.
    #[error("'image' is for runtime = \"docker\": this balancer's replicas have none")]
    NoImages,
    /// Replicas are listed, not owned.
    #[error("replicas are listed ('servers'), not owned: there is nothing here to update")]
    Listed,
    /// Replicas are listed, so none can be made up, and none is as good as another.
    #[error(
        "replicas are listed ('servers'), not owned: 'hostnames' must have the address of each \
         of 'n' = {n}, as host:port, not {named}"
    )]
    Unnamed {
        /// How many are asked for.
        n: usize,
        /// How many of them are named.
        named: usize,
    },
    /// A listed replica is one of several addresses of its server.
    #[error(
        "hostname {:?} is one of several addresses of {:?}, which is what can be removed",
        .0.as_str(), .0.server()
    )]
    OneOfSeveral(Hostname),
}

/// Why a change failed that had been accepted; nothing of it is left.
#[derive(Clone, Debug, Error)]
pub enum Failed {
    /// The name belongs to something that is not ours.
    #[error("hostname {:?} is in use already, by something that is not this balancer's", .0.as_str())]
    NameTaken(Hostname),
    /// The runtime could not start a replica.
    #[error("replica {:?} could not be started", hostname.as_str())]
    Start {
        /// Its name.
        hostname: Hostname,
        /// What the runtime said.
        #[source]
        source: Cause,
    },
    /// A server could not be listed.
    #[error("server {:?} could not be listed", hostname.as_str())]
    List {
        /// What it is called.
        hostname: Hostname,
        /// What the runtime said.
        #[source]
        source: Cause,
    },
    /// A server is listed already, by this or another name.
    #[error("hostname {:?} is in use already: its address is listed", .0.as_str())]
    ListedAlready(Hostname),
    /// A server was taken from the list before it was ready.
    #[error("server {:?} was taken from the list before it was ready", .0.as_str())]
    Unlisted(Hostname),
    /// A replica ended before it was ready.
    #[error("replica {:?} ended before it was ready: {death}", hostname.as_str())]
    Died {
        /// Its name.
        hostname: Hostname,
        /// How it ended.
        death: Death,
    },
    /// Another balancer of the pool removes a replica, whose seat stays.
    #[error("replica {:?} is removed by another balancer of the pool", .0.as_str())]
    RemovedElsewhere(Hostname),
    /// A replica was not ready in time.
    #[error(
        "replica {:?} was not ready within {within:?}{}",
        hostname.as_str(), because(reason.as_ref())
    )]
    NeverReady {
        /// Its name.
        hostname: Hostname,
        /// The start deadline.
        within: Duration,
        /// Why it was not ready in the end, where that is known.
        reason: Option<NotReady>,
    },
    /// The runtime could not stop a replica.
    #[error(
        "replica {:?} has left the ring but could not be removed; it is tried again",
        hostname.as_str()
    )]
    Remove {
        /// Its name.
        hostname: Hostname,
        /// What the runtime said.
        #[source]
        source: Cause,
    },
    /// The balancer stops.
    #[error("the balancer is shutting down")]
    ShuttingDown,
}

/// What a runtime said, kept whole.
pub type Cause = Arc<dyn Error + Send + Sync>;

/// An error with all its causes, on one line.
pub fn chain(error: &dyn Error) -> String {
    let causes = successors(error.source(), |error: &&dyn Error| (*error).source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Returns the end of a sentence that gives the reason.
fn because(reason: Option<&NotReady>) -> String {
    reason.map_or_else(String::new, |reason| format!(": {reason}"))
}

/// How a replica ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Death {
    /// By itself.
    #[error("exited with code {0}")]
    Exited(i64),
    /// By a signal.
    #[error("killed by signal {0}")]
    Killed(i32),
    /// For want of memory.
    #[error("out of memory")]
    OutOfMemory,
    /// It was made and never ran.
    #[error("never started")]
    NeverStarted,
    /// It is not there any more.
    #[error("removed by someone else")]
    Vanished,
}

// === impl Death ===

impl Death {
    /// Every [`kind`](Self::kind) there is.
    pub const KINDS: [&str; 5] = ["exited", "killed", "out-of-memory", "never-started", "vanished"];

    /// How it ended, in a word.
    pub fn kind(self) -> &'static str {
        match self {
            Death::Exited(_) => "exited",
            Death::Killed(_) => "killed",
            Death::OutOfMemory => "out-of-memory",
            Death::NeverStarted => "never-started",
            Death::Vanished => "vanished",
        }
    }
}
