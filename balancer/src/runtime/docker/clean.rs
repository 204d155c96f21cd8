//! What a pool has left on the engine, for `balancer clean`.

use std::collections::HashMap;
use std::net::SocketAddr;

use bollard::Docker as Api;
use bollard::query_parameters::{
    ListContainersOptionsBuilder, ListNetworksOptionsBuilder, RemoveContainerOptionsBuilder,
};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::address;
use super::call::{CALL_DEADLINE, call, is_status};
use super::connect::connect;
use super::labels::POOL;
use super::leases::Leases;
use super::own::Own;
use crate::fleet::members::Lease;
use crate::runtime::RuntimeError;

/// The engine, seen as the place of what one pool has left.
pub struct Cleaning {
    api: Api,
    leases: Leases,
    pool: String,
}

/// What a pool has left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// Containers, running or not.
    pub containers: Vec<Leftover>,
    /// Networks that a balancer of the pool made.
    pub networks: Vec<Leftover>,
    /// Leases of the pool's balancers.
    pub leases: Vec<Lease>,
}

/// A container or a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What the engine says of its state; empty for a network.
    pub state: String,
}

/// Removals at once: the engine works on each for a while.
const AT_ONCE: usize = 8;

// === impl Cleaning ===

impl Cleaning {
    /// Connects to the engine that `DOCKER_HOST` names. The pool is derived as for a balancer that
    /// listens on `listen` where `pool` names none.
    ///
    /// # Errors
    /// When the engine cannot be reached.
    pub async fn connect(pool: Option<&str>, listen: SocketAddr) -> Result<Self, RuntimeError> {
        let api = connect(&address(), CALL_DEADLINE).await?;
        let own = Own::find(&api, pool, listen).await?;
        Ok(Self { leases: Leases::new(api.clone()), api, pool: own.pool })
    }

    /// Returns the name of the pool.
    pub fn pool(&self) -> &str {
        &self.pool
    }

    /// Lists what the pool has left.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn find(&self) -> Result<Leftovers, RuntimeError> {
        let filters =
            || HashMap::from([("label".to_owned(), vec![format!("{POOL}={}", self.pool)])]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters()).build();
        let containers = self.api.list_containers(Some(options));
        let containers = call("list containers", CALL_DEADLINE, containers).await?;
        let containers = containers.into_iter().filter_map(|container| {
            let name = container.names.into_iter().flatten().next().unwrap_or_default();
            Some(Leftover {
                id: container.id?,
                name: name.trim_start_matches('/').to_owned(),
                state: container.status.unwrap_or_default(),
            })
        });
        let options = ListNetworksOptionsBuilder::new().filters(&filters()).build();
        let networks = self.api.list_networks(Some(options));
        let networks = call("list networks", CALL_DEADLINE, networks).await?;
        let networks = networks.into_iter().filter_map(|network| {
            Some(Leftover { id: network.id?, name: network.name?, state: String::new() })
        });
        let mut leases = self.leases().await?;
        leases.retain(|lease| lease.pool == self.pool);
        Ok(Leftovers { containers: containers.collect(), networks: networks.collect(), leases })
    }

    /// Lists the leases of all pools.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn leases(&self) -> Result<Vec<Lease>, RuntimeError> {
        self.leases.list().await
    }

    /// Removes what was found: containers by force, then networks and leases. Returns the networks
    /// that stay because a container that is not the pool's is on them.
    ///
    /// # Errors
    /// When something cannot be removed for another reason.
    pub async fn remove(&self, found: &Leftovers) -> Result<Vec<String>, RuntimeError> {
        let removals = found.containers.iter().map(|container| self.remove_container(container));
        stream::iter(removals).buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await?;
        let mut in_use = Vec::new();
        for network in &found.networks {
            let removed = self.api.remove_network(&network.id);
            let action = format!("remove network {:?}", network.name);
            let removed = call(&action, CALL_DEADLINE, removed).await;
            if is_status(&removed, 403) {
                in_use.push(network.name.clone());
            } else if !is_status(&removed, 404) {
                removed?;
            }
        }
        for lease in &found.leases {
            self.leases.remove(lease).await?;
        }
        Ok(in_use)
    }

    async fn remove_container(&self, container: &Leftover) -> Result<(), RuntimeError> {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        let removed = self.api.remove_container(&container.id, Some(options));
        let action = format!("remove container {:?}", container.name);
        let removed = call(&action, CALL_DEADLINE, removed).await;
        // 409: its removal is in progress already.
        if is_status(&removed, 404) || is_status(&removed, 409) { Ok(()) } else { removed }
    }
}

// === impl Leftovers ===

impl Leftovers {
    /// Reports whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.containers.is_empty() && self.networks.is_empty() && self.leases.is_empty()
    }
}
