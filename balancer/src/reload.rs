//! A configuration that changes while the balancer runs: it is read again on SIGHUP and when its
//! file has changed.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actix_web::rt::task::spawn_blocking;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;
use tracing::{info, warn};

use crate::config::settings::Settings;
use crate::config::{Config, ConfigError};
use crate::descriptors;
use crate::proxy::Common;
use crate::telemetry::chain;

/// How often the file is looked at. What has changed is taken when the next look finds the same:
/// one that is written in place is empty, or cut short, for a moment.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Where a configuration comes from.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its file, if it has one.
    pub file: Option<PathBuf>,
    /// The environment and the flags, which stay as they are.
    pub settings: Settings,
}

impl Source {
    /// Reads it as it is now.
    ///
    /// # Errors
    /// [`ConfigError`], which names the file or the field.
    pub fn load(&self) -> Result<Config, ConfigError> {
        Config::load(self.file.as_deref(), self.settings.clone())
    }

    /// Follows it for ever: what is good takes effect as far as it can, what is not changes nothing.
    /// `running` is what the balancer began with.
    ///
    /// # Errors
    /// When there is no hearing of signals.
    pub async fn follow(self, mut running: Config, common: Arc<Common>) -> io::Result<()> {
        let mut hangup = signal(SignalKind::hangup())?;
        let mut seen = self.read().await;
        let mut last = seen.clone();
        loop {
            tokio::select! {
                _ = hangup.recv() => seen = self.read().await,
                () = sleep(LOOK_EVERY), if self.file.is_some() => {
                    let now = self.read().await;
                    let stands = now == last;
                    last.clone_from(&now);
                    if now == seen || !stands {
                        continue;
                    }
                    seen = now;
                }
            }
            match self.load() {
                Ok(config) => running = apply(config, running, &common),
                Err(error) => {
                    let error = chain(&error);
                    warn!(error, "configuration is not good; the one that was read before stays");
                }
            }
        }
    }

    /// What the file says; nothing where it cannot be read.
    async fn read(&self) -> Option<String> {
        let file = self.file.clone()?;
        spawn_blocking(move || std::fs::read_to_string(file)).await.ok()?.ok()
    }
}

/// Lets a configuration take effect; what cannot is told, and stays as it is.
fn apply(mut config: Config, running: Config, common: &Common) -> Config {
    if let Some(limit) = descriptors::limit() {
        descriptors::share_out(&mut config, limit);
    }
    let (config, stays) = config.after(running);
    if !stays.is_empty() {
        let keys = stays.join(", ");
        warn!(keys, "these settings have changed and need a restart of the balancer");
    }
    common.reload(config.clone());
    info!(routes = config.routes.len(), "configuration was read again");
    config
}
