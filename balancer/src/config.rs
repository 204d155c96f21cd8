//! What the user typed (file < environment < flags) → [`Config`], checked once.

mod admission;
mod check;
mod engine;
mod fleet;
mod forwarded;
mod forwarding;
mod limits;
pub mod links;
mod listen;
mod overload;
mod placement;
mod route;
pub mod runtime;
mod scale;
mod servers;
pub mod settings;
pub mod value;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use thiserror::Error;

use crate::fleet::backoff::BackoffConfig;
use crate::fleet::health::OutlierConfig;
use crate::fleet::roster::{FleetConfig, OnChange, ReleaseConfig};
use crate::fleet::scale::ScaleConfig;
use crate::routing::key::KeySource;
use crate::routing::matching::Target;
use crate::routing::placement::PlacementConfig;
use crate::routing::policy::Policy;
pub use admission::AdmissionConfig;
use check::{must, within};
pub use engine::EngineConfig;
pub use fleet::HealthConfig;
pub use forwarded::ForwardedConfig;
pub use forwarding::RetryConfig;
pub use limits::{Limits, ShutdownDeadlines, Timeouts};
pub use listen::{AdminConfig, TlsConfig, Token};
pub use overload::ReliefConfig;
pub use route::{
    Among, DEFAULT_ROUTE, FanConfig, HedgeAfter, HedgeConfig, NO_ROUTE, RouteConfig, Send,
    UNLIMITED,
};
pub use runtime::{DockerConfig, RuntimeConfig};
use scale::Room;
pub use servers::{ServersConfig, ServersError, ServersFile};
use settings::{LogFormat, OnChangeKind, RuntimeKind, Settings};
pub use value::{CommandLine, Server};

/// Everything the program needs, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where traffic comes in.
    pub listen: SocketAddr,
    /// The admin routes.
    pub admin: AdminConfig,
    /// TLS for clients, if it is spoken.
    pub tls: Option<TlsConfig>,
    /// Where replicas run.
    pub runtime: RuntimeConfig,
    /// The container engine.
    pub engine: EngineConfig,
    /// How many to start first.
    pub replicas: usize,
    /// How many there may be.
    pub max_replicas: usize,
    /// Whether replicas go on when the balancer stops.
    pub keep_replicas: bool,
    /// How the key space is divided.
    pub placement: PlacementConfig,
    /// What becomes of which requests: the first that takes one decides; the last takes all.
    pub routes: Vec<RouteConfig>,
    /// How many run besides, without a seat.
    pub spares: usize,
    /// Probes.
    pub health: HealthConfig,
    /// Ejections for errors on real requests.
    pub outliers: OutlierConfig,
    /// The overload controller, if there is one.
    pub overload: Option<ReliefConfig>,
    /// How many requests may be in flight, if that is limited.
    pub admission: Option<AdmissionConfig>,
    /// How long a seat stays empty that keeps losing its replica.
    pub respawn: BackoffConfig,
    /// What a change of what replicas run leads to.
    pub on_change: OnChange,
    /// How long a rollout monitors a new replica.
    pub monitor: Duration,
    /// How the fleet follows its load, if it does.
    pub scale: Option<ScaleConfig>,
    /// Deadlines.
    pub timeouts: Timeouts,
    /// What a client may use up.
    pub limits: Limits,
    /// When a request is tried again at another replica.
    pub retry: RetryConfig,
    /// What is believed and told of the way of a request.
    pub forwarded: ForwardedConfig,
    /// Threads of the request path.
    pub workers: usize,
    /// Whether a replica's 404 becomes a 400.
    pub unknown_path: bool,
    /// Whether a client that closes its sending side still wants its answer.
    pub half_close: bool,
    /// Whether each request has a line in the log.
    pub access_log: bool,
    /// Logging.
    pub log: LogConfig,
}

/// Logging.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// How lines are written.
    pub format: LogFormat,
    /// Which are.
    pub filter: String,
}

/// Seconds between two probes of a replica where nothing is said: one that is listed has probably
/// somebody else who looks after it, and may be far away.
const OWNED_INTERVAL: u64 = 1;
const LISTED_INTERVAL: u64 = 10;

/// The file of a configuration as it was when it was read, good or bad.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFile {
    path: PathBuf,
    text: String,
}

/// Why a configuration is not good.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// The file is not TOML, or has an unknown key or a value of a wrong kind.
    #[error("invalid configuration file {}", path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: Box<toml::de::Error>,
    },
    /// The file of servers is no good.
    #[error("'servers_file' cannot be used: {}", path.display())]
    Servers {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: ServersError,
    },
    /// A value is not allowed.
    #[error("'{field}' {must}")]
    Field {
        /// The key in the file.
        field: Cow<'static, str>,
        /// What it must be.
        must: String,
    },
}

// === impl Config ===

impl Config {
    /// Of what `file` says, if there is one, under `settings` (from the environment and the
    /// flags), and checked as a whole.
    ///
    /// # Errors
    /// [`ConfigError`], which names the file or the field.
    pub fn new(file: Option<&ConfigFile>, settings: Settings) -> Result<Self, ConfigError> {
        let settings = match file {
            Some(file) => settings.or(file.settings()?),
            None => settings,
        };
        Self::check(settings)
    }

    fn check(mut settings: Settings) -> Result<Self, ConfigError> {
        let listen =
            settings.listen.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 5000)));
        let tls = listen::tls(settings.tls.clone(), listen)?;
        let listed = runtime::kind(&settings) == RuntimeKind::Static;
        let admin = listen::admin(settings.admin.clone(), listen, tls.as_ref(), listed)?;
        let placement = placement::placement(&settings, listed)?;
        let seconds = if listed { LISTED_INTERVAL } else { OWNED_INTERVAL };
        let path = settings.health_path.clone();
        let health = fleet::health(settings.health.clone(), path, seconds)?;
        let outliers = fleet::outliers(&settings.outliers)?;
        let balance_factor = admission::factor("balance_factor", settings.balance_factor)?;
        let admission = admission::admission(&settings.admission)?;
        let overload = overload::overload(&settings.overload)?;
        let respawn = fleet::respawn(&settings.respawn)?;
        let engine = engine::engine(&settings.engine)?;
        let monitor = fleet::monitor(&settings.roll)?;
        let on_change = match settings.on_change.unwrap_or_default() {
            OnChangeKind::Roll => OnChange::Roll,
            OnChangeKind::Warn => OnChange::Warn,
        };
        let spares = within("spares", settings.spares.unwrap_or(0), 0..=1_000)?;
        let timeouts = limits::timeouts(&settings.timeouts)?;
        let limits = limits::limits(&settings.limits)?;
        let retry = forwarding::retry(&settings.retry)?;
        let forwarded = forwarding::forwarded(settings.forwarded.clone())?;

        let max_replicas = settings.max_replicas.unwrap_or(1_000);
        let room = Room::new(&placement, max_replicas);
        let scale = scale::scale(&settings.scale, &room, listed)?;
        let replicas = scale::replicas(settings.replicas, scale.as_ref(), &room)?;
        let keep_replicas = settings.keep_replicas.unwrap_or(false);
        let key = settings.key.as_deref().unwrap_or("request-id").parse::<KeySource>();
        let log = LogConfig {
            format: settings.log_format.unwrap_or_default(),
            filter: settings.log_level.clone().unwrap_or_else(|| "info".to_owned()),
        };
        let unknown_path = settings.compat.unknown_path.unwrap_or(false);
        let half_close = settings.compat.half_close.unwrap_or(false);
        let access_log = settings.access_log.unwrap_or(false);
        let workers = settings.workers.map_or_else(cores, Into::into);
        let policy = settings.policy.map_or(Policy::default(), route::policy);
        let key = key.map_err(|bad| must("key", format!("is wrong: {bad}")))?;
        if balance_factor.is_some() && policy != Policy::Hash {
            return Err(must("balance_factor", "needs policy = \"hash\""));
        }
        let defaults = route::Defaults { policy, balance_factor, key: &key, timeouts, retry };
        let routes = route::routes(std::mem::take(&mut settings.route), defaults)?;
        let runtime = runtime::runtime(settings, &timeouts, placement.capacity())?;
        if keep_replicas && !matches!(runtime, RuntimeConfig::Docker(_)) {
            return Err(must("keep_replicas", "needs runtime = \"docker\": others cannot"));
        }
        if spares > 0 && listed {
            return Err(must("spares", "must be 0 for listed replicas: they are not owned"));
        }
        Ok(Self {
            listen,
            admin,
            tls,
            runtime,
            engine,
            replicas,
            max_replicas,
            keep_replicas,
            placement,
            routes,
            spares,
            health,
            outliers,
            overload,
            admission,
            respawn,
            on_change,
            monitor,
            scale,
            timeouts,
            limits,
            retry,
            forwarded,
            workers,
            unknown_path,
            half_close,
            access_log,
            log,
        })
    }

    /// This one after another that runs: what needs a restart stays as it is there. Tells the keys
    /// of what would have changed.
    pub fn after(self, running: Self) -> (Self, Vec<&'static str>) {
        let timeouts = Timeouts {
            connect: running.timeouts.connect,
            drain: running.timeouts.drain,
            stop: running.timeouts.stop,
            pull: running.timeouts.pull,
            shutdown: running.timeouts.shutdown,
            ..self.timeouts
        };
        let (runtime, runtime_stays) = self.runtime.after(&running.runtime);
        let changed = [
            ("listen", self.listen != running.listen),
            ("[admin]", self.admin != running.admin),
            ("[tls]", self.tls != running.tls),
            ("runtime, pull, network, port, pool, shared, servers", runtime_stays),
            ("[engine]", self.engine != running.engine),
            ("replicas", self.replicas != running.replicas),
            ("max_replicas", self.max_replicas != running.max_replicas),
            ("keep_replicas", self.keep_replicas != running.keep_replicas),
            ("placement", self.placement != running.placement),
            ("spares", self.spares != running.spares),
            ("[health]", self.health != running.health),
            ("[outliers]", self.outliers != running.outliers),
            ("[overload]", self.overload != running.overload),
            ("[respawn]", self.respawn != running.respawn),
            ("[scale]", self.scale != running.scale),
            ("timeouts.connect, drain, stop, pull, shutdown", self.timeouts != timeouts),
            ("workers", self.workers != running.workers),
            ("log_format, log_level", self.log != running.log),
        ];
        let config = Self {
            runtime,
            on_change: self.on_change,
            monitor: self.monitor,
            routes: self.routes,
            timeouts,
            limits: self.limits,
            admission: self.admission,
            retry: self.retry,
            forwarded: self.forwarded,
            unknown_path: self.unknown_path,
            half_close: self.half_close,
            access_log: self.access_log,
            ..running
        };
        let keys = changed.into_iter().filter(|(_, changed)| *changed).map(|(key, _)| key);
        (config, keys.collect())
    }

    /// The place among the routes of the one that takes a request.
    pub fn route_of(&self, target: &Target<'_>) -> usize {
        let last = self.routes.len().saturating_sub(1);
        let takes = |route: &RouteConfig| route.matching.takes(target);
        self.routes.iter().take(last).position(takes).unwrap_or(last)
    }

    /// The part of it that the roster needs.
    pub fn fleet(&self) -> FleetConfig {
        FleetConfig {
            capacity: self.placement.capacity(),
            max_replicas: self.max_replicas,
            spares: self.spares,
            health: self.health.limits,
            check_interval: self.health.interval,
            outliers: self.outliers,
            panic: self.health.panic,
            backoff: self.respawn,
            start_deadline: self.health.start_deadline,
            replace_after: self.health.replace_after,
            slow_start: self.health.slow_start,
            drain_deadline: self.timeouts.drain,
            remove_again: Duration::from_secs(5),
            listed: matches!(self.runtime, RuntimeConfig::Static(_)),
            images: matches!(self.runtime, RuntimeConfig::Docker(_)),
            release: self.release(),
        }
    }

    /// Returns what replicas run, and how that changes.
    pub fn release(&self) -> ReleaseConfig {
        let (on_change, monitor) = (self.on_change, self.monitor);
        ReleaseConfig { spec: self.runtime.spec(), on_change, monitor }
    }
}

// === impl ConfigFile ===

impl ConfigFile {
    /// Reads a file, whatever is in it.
    ///
    /// # Errors
    /// [`ConfigError::Read`].
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read(path.to_owned(), source))?;
        Ok(Self { path: path.to_owned(), text })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reports whether it sets nothing: it has only white space and comments.
    pub fn is_blank(&self) -> bool {
        has_no_lines(&self.text)
    }

    pub(crate) fn settings(&self) -> Result<Settings, ConfigError> {
        toml::from_str(&self.text)
            .map_err(|source| ConfigError::Toml { path: self.path.clone(), source: source.into() })
    }
}

/// Reports whether text has only white space and comments.
fn has_no_lines(text: &str) -> bool {
    text.lines().map(str::trim).all(|line| line.is_empty() || line.starts_with('#'))
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, Into::into)
}
