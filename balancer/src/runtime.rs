//! Where replicas run, behind one small trait. Calls are idempotent and single-shot: the
//! supervisor owns retries and time.

pub mod docker;
pub mod fixed;
pub mod process;

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::fleet::change::Death;
use crate::fleet::listed::Server;
use crate::fleet::members::{Lease, MemberKey};
use crate::fleet::observed::Observed;
use crate::fleet::release::Release;
use crate::fleet::seat::{Hostname, Seat};

/// What is to be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaSpec {
    /// Its name.
    pub hostname: Hostname,
    /// Its place; none for a spare.
    pub seat: Option<Seat>,
    /// What it runs.
    pub release: Release,
}

/// What is to be known of a replica by whoever lists it next, this balancer restarted or another
/// one: written where the runtime keeps it, not in the replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// It was a spare and has this seat now.
    Seated(Seat),
    /// It is about to be removed.
    Leaving,
    /// It is about to be removed because the balancer stops: another one of the pool fills its seat
    /// again.
    Stopping,
}

/// The pool that replicas belong to, and this balancer as a member of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// The pool's name.
    pub name: String,
    /// Whether other balancers may join.
    pub shared: bool,
    /// This balancer, and this run of it.
    pub me: MemberKey,
    /// The address of its traffic listener.
    pub address: String,
    /// The pool of containers that an earlier version left, which has no leases; `None` where there
    /// are none, or they are not to be adopted.
    pub earlier: Option<&'static str>,
}

/// Starts, stops and lists replicas. Used on one thread only: the supervisor's.
#[expect(async_fn_in_trait, reason = "its futures stay on the supervisor's thread")]
pub trait Runtime: 'static {
    /// Every replica that this balancer owns, dead ones included: a restarted balancer adopts
    /// them.
    async fn list(&self) -> Result<Vec<Observed>, RuntimeError>;

    /// Starts a replica; what is half made is removed again on failure. One that is there already
    /// under this name, of this balancer's and on this seat, is started where it does not run yet,
    /// and is as good as a new one.
    async fn start(&self, what: &ReplicaSpec) -> Result<Observed, RuntimeError>;

    /// Marks a replica; gone already is success.
    async fn mark(&self, hostname: &Hostname, mark: Mark) -> Result<(), RuntimeError>;

    /// SIGTERM, then SIGKILL after `grace`, then nothing is left of it; gone already is success.
    async fn stop(&self, hostname: &Hostname, grace: Duration) -> Result<(), RuntimeError>;

    /// Resolves when something may have changed: a hint to list again, never the truth.
    async fn changed(&self);

    /// Deaths that were told since the last call and that no listing may tell of for a while yet:
    /// an engine can be busy for long with what a dead replica leaves behind.
    fn deaths(&self) -> Vec<(Hostname, Death)> {
        Vec::new()
    }

    /// How often it is to be listed where nothing hints at a change.
    fn list_every(&self) -> Duration {
        Duration::from_secs(1)
    }

    /// Lists one more server, where replicas are listed: tells its replicas, one for each of its
    /// addresses.
    async fn enlist(&self, server: &Server) -> Result<Vec<Observed>, RuntimeError> {
        Err(RuntimeError::Owned(server.address.clone()))
    }

    /// Lists a server no more.
    fn unlist(&self, _: &Hostname) {}

    /// Takes a server back that [`enlist`](Self::enlist) listed, unless it is listed otherwise by
    /// now.
    fn withdraw(&self, _: &Hostname) {}

    /// Returns the pool of the replicas; `None` for a runtime whose replicas no other balancer can
    /// own.
    async fn pool(&self) -> Result<Option<Pool>, RuntimeError> {
        Ok(None)
    }

    /// Returns the leases of all balancers, those of other pools included.
    async fn leases(&self) -> Result<Vec<Lease>, RuntimeError> {
        Ok(Vec::new())
    }

    /// Writes a lease beside those that are there.
    async fn write_lease(&self, _: &Lease) -> Result<(), RuntimeError> {
        Ok(())
    }

    /// Removes a lease; gone already is success.
    async fn remove_lease(&self, _: &Lease) -> Result<(), RuntimeError> {
        Ok(())
    }

    /// Treats the containers of [`Pool::earlier`] as those of this pool from now on.
    fn adopt_earlier(&self) {}

    /// Removes what was made beside the replicas, once they are gone.
    async fn close(&self) -> Result<(), RuntimeError>;
}

/// What went wrong in a runtime.
#[derive(Debug, Error)]
pub enum RuntimeError {
    /// Something that is not ours has the name.
    #[error("the name {0:?} is taken by something that is not this balancer's")]
    NameTaken(String),
    /// A command could not be run.
    #[error("cannot run {command:?}")]
    Spawn {
        /// Its first word.
        command: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No port is free.
    #[error("no free port between {from} and {to} on 127.0.0.1")]
    NoPort {
        /// The first that was tried.
        from: u16,
        /// The last.
        to: u16,
    },
    /// A listed address cannot be resolved.
    #[error("cannot resolve {0:?}")]
    Resolve(String, #[source] io::Error),
    /// The engine cannot be reached.
    #[error("cannot reach the container engine at {at}")]
    Unreachable {
        /// Its address.
        at: String,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The engine refused or failed.
    #[error("the container engine could not {action}")]
    Engine {
        /// What it was asked.
        action: String,
        /// What it said.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The engine did not answer.
    #[error("the container engine did not {action} within {within:?}")]
    Timeout {
        /// What it was asked.
        action: String,
        /// The time it had.
        within: Duration,
    },
    /// An image could not be got from its registry.
    #[error("the container engine could not pull image {image:?}")]
    Pull {
        /// The image.
        image: String,
        /// What the engine or the registry said.
        #[source]
        source: Arc<dyn Error + Send + Sync>,
    },
    /// A container has no address on the network.
    #[error("container {container:?} has no address on network {network:?}")]
    NoAddress {
        /// Its name.
        container: String,
        /// The network.
        network: String,
    },
    /// Listed replicas are neither started nor stopped.
    #[error("listed replicas are neither started nor stopped")]
    Listed,
    /// Replicas that are owned are not listed.
    #[error("{0:?} cannot be listed: replicas are owned")]
    Owned(String),
    /// A server, or its address by another name, is listed.
    #[error("{0:?} is listed already")]
    ListedAlready(String),
    /// A name was not resolved in time.
    #[error("{name:?} was not resolved within {within:?}")]
    Unresolved {
        /// The name.
        name: String,
        /// The time it had.
        within: Duration,
    },
}
