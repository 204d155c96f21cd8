//! `static`: replicas that are listed in the configuration, only probed and routed to.

use std::future;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::lookup_host;

use super::{Mark, ReplicaSpec, Runtime, RuntimeError};
use crate::config::Server;
use crate::fleet::observed::{Condition, Observed, Place};
use crate::fleet::release::Release;
use crate::fleet::seat::{Hostname, MemberId};

/// The listed servers. Names are resolved at every listing, so a changed address is followed.
#[derive(Debug)]
pub struct Fixed {
    servers: Vec<Server>,
}

impl Fixed {
    /// Over these servers, none of them twice.
    pub fn new(servers: Vec<Server>) -> Self {
        Self { servers }
    }
}

impl Runtime for Fixed {
    async fn list(&self) -> Result<Vec<Observed>, RuntimeError> {
        let mut listing: Vec<Observed> = Vec::with_capacity(self.servers.len());
        for (created, server) in (0..).zip(&self.servers) {
            let address = resolve(&server.address).await?;
            let place = Place::Member(MemberId::Address(address));
            // Two names of one address are one replica: the first.
            if listing.iter().all(|other| other.place != place) {
                listing.push(Observed {
                    hostname: Hostname::listed(&server.address),
                    place,
                    address: Some(address),
                    weight: server.weight,
                    created,
                    release: Release::default(),
                    condition: Condition::Running,
                    leaving: false,
                });
            }
        }
        Ok(listing)
    }

    async fn start(&self, _: &ReplicaSpec) -> Result<Observed, RuntimeError> {
        Err(RuntimeError::Listed)
    }

    async fn mark(&self, _: &Hostname, _: Mark) -> Result<(), RuntimeError> {
        Err(RuntimeError::Listed)
    }

    async fn stop(&self, _: &Hostname, _: Duration) -> Result<(), RuntimeError> {
        Err(RuntimeError::Listed)
    }

    async fn changed(&self) {
        future::pending::<()>().await;
    }

    async fn close(&self) -> Result<(), RuntimeError> {
        Ok(())
    }
}

/// The first IPv4 address of `name:port`, or the first of any kind where there is none.
async fn resolve(address: &str) -> Result<SocketAddr, RuntimeError> {
    let error = |source| RuntimeError::Resolve(address.to_owned(), source);
    let found: Vec<SocketAddr> = lookup_host(address).await.map_err(error)?.collect();
    let best = found.iter().find(|address| address.is_ipv4()).or(found.first()).copied();
    best.ok_or_else(|| error(std::io::Error::other("the name has no address")))
}
