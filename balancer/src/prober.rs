//! Heartbeats: every running replica is asked for its health path at intervals.

use std::net::SocketAddr;
use std::time::Duration;

use actix_web::rt::spawn;
use awc::{Client, Connector};
use rand::RngExt as _;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tracing::debug;

use crate::config::HealthConfig;
use crate::fleet::seat::Hostname;

/// The first pause of a replica that is not ready yet: pauses grow by half up to the interval, so
/// that a quick start is seen at once and a slow one costs little.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// A probe's result.
#[derive(Debug)]
pub struct Probe {
    /// Of whom.
    pub hostname: Hostname,
    /// Where it was asked.
    pub address: SocketAddr,
    /// Whether it answered with success in time.
    pub good: bool,
}

/// Starts the probing of replicas.
pub struct Prober {
    client: Client,
    config: HealthConfig,
    results: mpsc::Sender<Probe>,
}

/// The probing of one replica; ends when dropped.
#[derive(Debug)]
pub struct Watch(JoinHandle<()>);

// === impl Prober ===

impl Prober {
    /// Sends every result to `results`.
    pub fn new(config: HealthConfig, results: mpsc::Sender<Probe>) -> Self {
        // A probe has a connection of its own: whether a new one is taken is part of the question.
        let connector = Connector::new().limit(0).timeout(config.timeout);
        let client = Client::builder()
            .connector(connector)
            .timeout(config.timeout)
            .disable_redirects()
            .finish();
        Self { client, config, results }
    }

    /// Probes a replica from now on.
    pub fn watch(&self, hostname: Hostname, address: SocketAddr) -> Watch {
        let (client, results) = (self.client.clone(), self.results.clone());
        let interval = self.config.interval;
        let url = format!("http://{address}{}", self.config.path);
        Watch(spawn(async move {
            let mut pause = FIRST_PAUSE.min(interval);
            loop {
                let good = ask(&client, &url).await;
                let probe = Probe { hostname: hostname.clone(), address, good };
                if results.send(probe).await.is_err() {
                    return;
                }
                if good && pause < interval {
                    // From here on at its own place in the interval, so that replicas that were
                    // started together are not probed together.
                    pause = interval;
                    sleep(interval.mul_f64(rand::rng().random_range(0.0..1.0))).await;
                    continue;
                }
                sleep(pause).await;
                pause = (pause * 3 / 2).min(interval);
            }
        }))
    }
}

async fn ask(client: &Client, url: &str) -> bool {
    match client.get(url).force_close().no_decompress().send().await {
        Ok(answer) => answer.status().is_success(),
        Err(error) => {
            debug!(%url, %error, "probe failed");
            false
        }
    }
}

// === impl Watch ===

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}
