//! Heartbeats: every running replica is asked for its health path at intervals.
//!
//! A replica has a place of its own in the interval, one of a few: those that share one are
//! asked in one turn of the event loop. What nobody needs to know is not told: a fleet that is well
//! is silent.

mod answer;
mod client;
mod error;
mod news;
mod place;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use actix_web::rt::spawn;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use crate::config::HealthConfig;
use crate::fleet::seat::Hostname;
use client::Client;
pub use error::ProbeError;
use news::News;
use place::{Pace, Places};

/// A probe's result.
#[derive(Debug)]
pub struct Probe {
    /// Of whom.
    pub hostname: Hostname,
    /// Where it was asked.
    pub address: SocketAddr,
    /// Why it failed; `None` if it was good.
    pub failure: Option<Failure>,
}

/// A health check that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What went wrong.
    pub error: ProbeError,
    /// The same in full, for operators.
    pub reason: Arc<str>,
}

/// Starts the probing of replicas.
pub struct Prober {
    config: Rc<HealthConfig>,
    places: Places,
    room: Arc<Semaphore>,
    results: mpsc::Sender<Probe>,
}

/// The probing of one replica; ends when dropped.
#[derive(Debug)]
pub struct Watch {
    task: JoinHandle<()>,
    bell: Rc<Bell>,
}

/// Calls for a probe before its time.
#[derive(Debug)]
struct Bell {
    rung: Notify,
    /// A probe is under way, or called for.
    under_way: Cell<bool>,
}

/// The one who asks.
struct Watcher {
    hostname: Hostname,
    config: Rc<HealthConfig>,
    client: Client,
    pace: Pace,
    news: News,
    /// How the last health check that failed did so: most fail as the one before.
    last: Option<Failure>,
    bell: Rc<Bell>,
    results: mpsc::Sender<Probe>,
}

// === impl Prober ===

impl Prober {
    /// Sends to `results` every bad result, and good ones until `rise` of them in a row are told:
    /// more would change nothing (as long as nothing but probes changes a replica's health).
    pub fn new(config: HealthConfig, results: mpsc::Sender<Probe>) -> Self {
        let places = Places::new(Instant::now(), config.interval);
        let config = Rc::new(config);
        Self { config, places, room: client::room_for_kept(), results }
    }

    /// Probes a replica from now on: the first time at once, then after pauses that grow up to the
    /// interval (in its first minute, to a second), and from its first good answer on at its place
    /// in the interval. Its requests name `host`, or the address where there is none, unless the
    /// configuration says otherwise.
    pub fn watch(&self, hostname: Hostname, address: SocketAddr, host: Option<&str>) -> Watch {
        // The first probe is as good as under way.
        let bell = Rc::new(Bell { rung: Notify::new(), under_way: Cell::new(true) });
        let watcher = Watcher {
            hostname,
            config: Rc::clone(&self.config),
            client: Client::new(&self.config, address, host, Arc::clone(&self.room)),
            pace: Pace::new(self.places),
            news: News::new(self.config.limits.rise),
            last: None,
            bell: Rc::clone(&bell),
            results: self.results.clone(),
        };
        Watch { task: spawn(watcher.run()), bell }
    }
}

// === impl Watch ===

impl Watch {
    /// Probes at once, over a new connection; one that is under way will do. The probes at its
    /// place in the interval stay where they are.
    pub fn now(&self) {
        if !self.bell.under_way.replace(true) {
            self.bell.rung.notify_one();
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

// === impl Watcher ===

impl Watcher {
    /// Until nobody listens any more, or the task is aborted.
    async fn run(mut self) {
        let mut rung = false;
        loop {
            let began = Instant::now();
            let error = self.client.ask(rung).await.err();
            self.bell.under_way.set(false);
            let due = self.pace.next(error.is_none(), began, Instant::now(), &mut rand::rng());
            // A probe that was never sent says nothing.
            let is_sent = error != Some(ProbeError::Starving);
            if is_sent && self.news.is_news(error.is_none()) && !self.tell(error).await {
                return;
            }
            rung = tokio::select! {
                biased;
                () = self.bell.rung.notified() => true,
                () = sleep_until(due) => false,
            };
            self.bell.under_way.set(true);
        }
    }

    /// Sends a result. Returns whether the supervisor still receives results.
    async fn tell(&mut self, error: Option<ProbeError>) -> bool {
        let (hostname, address) = (self.hostname.clone(), self.client.address());
        let failure = error.map(|error| self.failure(error));
        if let Some(Failure { reason, .. }) = &failure {
            debug!(hostname = hostname.as_str(), reason = &**reason, "health check failed");
        }
        let probe = Probe { hostname, address, failure };
        self.results.send(probe).await.is_ok()
    }

    fn failure(&mut self, error: ProbeError) -> Failure {
        if let Some(last) = self.last.as_ref().filter(|last| last.error == error) {
            return last.clone();
        }
        let reason = error.reason(&self.config, self.client.address()).into();
        let failure = Failure { error, reason };
        self.last = Some(failure.clone());
        failure
    }
}
