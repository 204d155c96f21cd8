//! `static`: replicas that are listed, only probed and routed to.
//!
//! A listing is answered from memory. A task of its own follows the file of servers and asks for
//! the addresses of names, off everybody's way.

mod book;
mod resolver;
mod watched;

use std::cell::RefCell;
use std::future;
use std::rc::Rc;
use std::time::Duration;

use actix_web::rt::spawn;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{info, warn};

use super::{Mark, ReplicaSpec, Runtime, RuntimeError};
use crate::config::ServersConfig;
use crate::fleet::listed::Server;
use crate::fleet::observed::Observed;
use crate::fleet::seat::Hostname;
use crate::telemetry::chain;
use book::{Book, Noted, Resolved};
use resolver::Resolver;
use watched::Watched;

/// How often names are resolved anew.
const RESOLVE_EVERY: Duration = Duration::from_secs(10);

/// How often everything is listed anew: what changes is told.
const LIST_EVERY: Duration = Duration::from_secs(10);

/// The listed servers. A name with several addresses is several replicas.
pub struct Fixed {
    list: Rc<List>,
    keeper: JoinHandle<()>,
}

/// What is listed, and the way to its addresses.
struct List {
    book: RefCell<Book>,
    resolver: Resolver,
    changed: Notify,
}

// === impl Fixed ===

impl Fixed {
    /// Lists the servers of a configuration, and keeps to them. A name that cannot be resolved is
    /// a replica without an address, and is tried again.
    pub async fn open(config: ServersConfig) -> Self {
        Self::open_with(config, Resolver::system(), RESOLVE_EVERY).await
    }

    async fn open_with(config: ServersConfig, resolver: Resolver, every: Duration) -> Self {
        let (book, changed) = (RefCell::default(), Notify::new());
        let list = Rc::new(List { book, resolver, changed });
        list.replace(config.first()).await;
        let keeper = spawn(keep(Rc::clone(&list), Watched::new(&config), every));
        Self { list, keeper }
    }
}

impl Drop for Fixed {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl Runtime for Fixed {
    async fn list(&self) -> Result<Vec<Observed>, RuntimeError> {
        Ok(self.list.book.borrow().list())
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
        self.list.changed.notified().await;
    }

    fn list_every(&self) -> Duration {
        LIST_EVERY
    }

    async fn enlist(&self, server: &Server) -> Result<Vec<Observed>, RuntimeError> {
        let listed = || RuntimeError::ListedAlready(server.address.clone());
        if self.list.book.borrow().lists(&server.id()) {
            return Err(listed());
        }
        let addresses = self.list.resolver.resolve(server).await?;
        let resolved = Resolved::from([(server.id(), addresses)]);
        let replicas = self.list.book.borrow_mut().add(server, &resolved);
        if replicas.is_empty() { Err(listed()) } else { Ok(replicas) }
    }

    fn unlist(&self, hostname: &Hostname) {
        self.list.book.borrow_mut().unlist(&hostname.as_str().to_ascii_lowercase());
    }

    fn withdraw(&self, hostname: &Hostname) {
        self.list.book.borrow_mut().withdraw(&hostname.as_str().to_ascii_lowercase());
    }

    async fn close(&self) -> Result<(), RuntimeError> {
        self.keeper.abort();
        Ok(())
    }
}

/// Follows the file and the names, for as long as it is polled.
async fn keep(list: Rc<List>, watched: Option<Watched>, every: Duration) {
    tokio::join!(follow(&list, watched), refresh(&list, every));
}

async fn follow(list: &List, watched: Option<Watched>) {
    let Some(mut watched) = watched else { return future::pending().await };
    loop {
        let servers = watched.changed().await;
        info!(servers = servers.len(), "servers file has changed");
        list.replace(servers).await;
        list.changed.notify_one();
    }
}

async fn refresh(list: &List, every: Duration) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first is at once, when everything has just been resolved.
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let names = list.book.borrow().names();
        list.resolver.resolve_all(names, |server, found| list.note(&server, found)).await;
    }
}

// === impl List ===

impl List {
    /// Lists these servers and no other, once their names are resolved or have had their time: so
    /// that what comes and what goes does so together.
    async fn replace(&self, servers: Vec<Server>) {
        let mut results = Vec::new();
        let names = servers.iter().filter(|server| server.literal().is_none()).cloned().collect();
        let resolving =
            self.resolver.resolve_all(names, |server, found| results.push((server, found)));
        // Many names may take longer than one: they come with the next round.
        let within = self.resolver.within() * 5 / 4;
        let in_time = timeout(within, resolving).await.is_ok();
        if !in_time {
            warn!(?within, "some names are not resolved yet; they are tried again");
        }
        let found = results.iter().filter_map(|(s, found)| Some((s.id(), found.as_ref().ok()?)));
        let found = found.map(|(id, addresses)| (id, addresses.clone())).collect();
        self.book.borrow_mut().replace(servers, &found);
        for (server, found) in results {
            self.note(&server, found);
        }
    }

    /// Takes the result of a look-up. If it is an error, the last addresses of the name stay.
    fn note(&self, server: &Server, found: Result<Vec<std::net::SocketAddr>, RuntimeError>) {
        let mut book = self.book.borrow_mut();
        let error = found.as_ref().err().map(|error| chain(error));
        match book.note(&server.id(), error.as_deref().map(Into::into)) {
            Noted::Nothing => {}
            Noted::Resolved => info!(%server, "name resolved again"),
            Noted::Stale => {
                warn!(%server, error, "name not resolved; its last addresses stay in use");
            }
            // Its replica has the error as the reason why it is not ready.
            Noted::Unresolved => self.changed.notify_one(),
        }
        if let Ok(addresses) = found
            && book.resolved(&server.id(), &addresses)
        {
            self.changed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;
