//! `balancer clean`: removes the containers, networks and leases that a pool has left on the engine,
//! after listing them and asking.

use std::fmt::Write as _;
use std::io::{self, BufRead as _, IsTerminal as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use thiserror::Error;
use tokio::time::sleep;

use crate::config::settings::{RuntimeKind, Settings};
use crate::config::{Config, ConfigError, ConfigFile, RuntimeConfig};
use crate::fleet::members::{Join, Member, MemberKey, Members};
use crate::runtime::RuntimeError;
use crate::runtime::docker::{Cleaning, Leftovers};

/// The options of `balancer clean`.
#[derive(Args, Clone, Debug, Default)]
pub struct CleanSettings {
    /// The configuration file of the balancer: its 'pool' and 'listen' count
    #[arg(long, env = "BALANCER_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// The pool [default: that of a balancer with this --listen; in a container of a Compose
    /// project: the project]
    #[arg(long, env = "BALANCER_POOL", value_name = "NAME")]
    pub pool: Option<String>,

    /// The address that the balancer listened on: part of the default pool [default:
    /// 127.0.0.1:5000]
    #[arg(long, env = "BALANCER_LISTEN", value_name = "ADDR")]
    pub listen: Option<SocketAddr>,

    /// List what would be removed, and remove nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Remove without asking
    #[arg(long)]
    pub yes: bool,
}

/// Why nothing, or not everything, was removed.
#[derive(Debug, Error)]
pub enum CleanError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The engine does not answer, or refused.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// A balancer of the pool runs.
    #[error("pool {pool:?} is in use: {member} holds it; stop that balancer first")]
    Held {
        /// The pool.
        pool: String,
        /// The balancer.
        member: Member,
    },
    /// A balancer of the pool is stopping and does not come to an end.
    #[error("pool {pool:?} is in use: a balancer is stopping; try again when it has ended")]
    Stopping {
        /// The pool.
        pool: String,
    },
    /// No replica can be asked.
    #[error("standard input is not a terminal: give --yes to remove without asking")]
    NoTerminal,
    /// The user said no.
    #[error("nothing was removed")]
    Declined,
    /// The terminal does not work.
    #[error("cannot ask")]
    Ask(#[from] io::Error),
}

/// How often leases are looked at, and how long a balancer that stops is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(250);
const STOPS_WITHIN: Duration = Duration::from_secs(60);

/// Lists what the pool has left, asks, and removes it. Writes what it finds and does to `out`.
///
/// # Errors
/// [`CleanError`]. A pool that a living balancer holds is left alone.
pub async fn run(settings: CleanSettings, out: &mut impl io::Write) -> Result<(), CleanError> {
    let (pool, listen) = settings.pool()?;
    let engine = Cleaning::connect(pool.as_deref(), listen).await?;
    let found = engine.find().await?;
    out.write_all(listed(engine.pool(), &found).as_bytes())?;
    if found.is_empty() || settings.dry_run {
        return Ok(());
    }
    if !settings.yes && !io::stdin().is_terminal() {
        return Err(CleanError::NoTerminal);
    }
    free(&engine).await?;
    if !settings.yes && !confirmed(out)? {
        return Err(CleanError::Declined);
    }
    // The answer may have taken a while: a balancer may have started.
    free(&engine).await?;
    let found = engine.find().await?;
    let in_use = engine.remove(&found).await?;
    for network in &in_use {
        writeln!(out, "network {network} stays: another container is on it")?;
    }
    writeln!(
        out,
        "removed: {} containers, {} networks, {} leases",
        found.containers.len(),
        found.networks.len() - in_use.len(),
        found.leases.len(),
    )?;
    Ok(())
}

/// Waits until it is known whether a balancer holds the pool.
async fn free(engine: &Cleaning) -> Result<(), CleanError> {
    let nobody = MemberKey { identity: String::new(), instance: String::new() };
    let mut members = Members::new(engine.pool(), nobody);
    let began = Instant::now();
    loop {
        members.observe(&engine.leases().await?, Instant::now());
        let pool = || engine.pool().to_owned();
        match members.join(false, false) {
            Join::Yes => return Ok(()),
            Join::Refused(lease) => {
                return Err(CleanError::Held { pool: pool(), member: Member::from(&*lease) });
            }
            Join::NotYet if began.elapsed() > STOPS_WITHIN => {
                return Err(CleanError::Stopping { pool: pool() });
            }
            Join::NotYet => sleep(LOOK_EVERY).await,
        }
    }
}

/// Asks on the terminal.
fn confirmed(out: &mut impl io::Write) -> io::Result<bool> {
    write!(out, "remove all of this? [y/N] ")?;
    out.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

fn listed(pool: &str, found: &Leftovers) -> String {
    if found.is_empty() {
        return format!("pool {pool:?} has left nothing\n");
    }
    let mut text = format!("pool {pool:?} has left:\n");
    let mut line = |what: &str, name: &str, state: &str| {
        let _always = writeln!(text, "  {what:<9}  {name}  {state}");
    };
    for container in &found.containers {
        line("container", &container.name, &container.state);
    }
    for network in &found.networks {
        line("network", &network.name, "");
    }
    for lease in &found.leases {
        line("lease", &Member::from(lease).to_string(), lease.stage.name());
    }
    text
}

// === impl CleanSettings ===

impl CleanSettings {
    /// Returns the configured pool, and the address of which the default pool is derived.
    fn pool(&self) -> Result<(Option<String>, SocketAddr), ConfigError> {
        let file = self.config.as_deref().map(ConfigFile::read).transpose()?;
        let settings = Settings {
            runtime: Some(RuntimeKind::Docker),
            pool: self.pool.clone(),
            listen: self.listen,
            ..Settings::default()
        };
        // Only these two count; what a file says of the rest need not fit them.
        let settings = match &file {
            Some(file) => Settings { runtime: settings.runtime, ..settings.or(file.settings()?) },
            None => settings,
        };
        let listen = settings.listen;
        let docker =
            Settings { runtime: settings.runtime, pool: settings.pool, ..Settings::default() };
        let pool = match Config::new(None, docker)?.runtime {
            RuntimeConfig::Docker(docker) => docker.pool,
            RuntimeConfig::Process { .. } | RuntimeConfig::Static(_) => None,
        };
        let default = SocketAddr::from((Ipv4Addr::LOCALHOST, 5000));
        Ok((pool, listen.unwrap_or(default)))
    }
}
