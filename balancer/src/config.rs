//! What the user typed (file < environment < flags) → [`Config`], checked once.

pub mod settings;
pub mod value;

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use thiserror::Error;

use crate::fleet::backoff::BackoffConfig;
use crate::fleet::health::HealthLimits;
use crate::fleet::roster::FleetConfig;
use crate::routing::key::KeySource;
use crate::routing::placement::{
    ClassicConfig, ClassicHash, PlacementConfig, Probing, RingConfig, Secret,
};
use crate::routing::policy::Policy;
use settings::{
    AdminSettings, ClassicHashKind, ClassicSettings, HealthSettings, LogFormat, PlacementKind,
    PolicyKind, ProbingKind, RingSettings, RuntimeKind, Settings, TimeoutSettings,
};
use value::Span;
pub use value::{CommandLine, Server};

/// Everything the program needs, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where traffic comes in.
    pub listen: SocketAddr,
    /// The admin routes.
    pub admin: AdminConfig,
    /// Where replicas run.
    pub runtime: RuntimeConfig,
    /// How many to start first.
    pub replicas: usize,
    /// How many there may be.
    pub max_replicas: usize,
    /// Whether replicas go on when the balancer stops.
    pub keep_replicas: bool,
    /// How the key space is divided.
    pub placement: PlacementConfig,
    /// How one replica is chosen.
    pub policy: Policy,
    /// What a request is placed by.
    pub key: KeySource,
    /// Probes.
    pub health: HealthConfig,
    /// Deadlines.
    pub timeouts: Timeouts,
    /// Threads of the request path.
    pub workers: usize,
    /// Whether a replica's 404 becomes a 400.
    pub unknown_path: bool,
    /// Logging.
    pub log: LogConfig,
}

/// Who may change the fleet, and where.
#[derive(Clone, Debug)]
pub struct AdminConfig {
    /// A listener of their own, if the admin routes have one.
    pub listen: Option<SocketAddr>,
    /// What changing calls must bring.
    pub token: Option<Token>,
    /// Names that a call may come by, besides localhost and IP addresses.
    pub hosts: Vec<String>,
}

/// A secret that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

/// Where replicas run.
#[derive(Clone, Debug)]
pub enum RuntimeConfig {
    /// As child processes.
    Process {
        /// What each runs; the embedded demo replica where nothing is given.
        command: Option<CommandLine>,
        /// Variables for its environment.
        env: Vec<(String, String)>,
    },
    /// As containers.
    Docker(DockerConfig),
    /// Listed, not owned.
    Static(Vec<Server>),
}

/// Containers of replicas.
#[derive(Clone, Debug)]
pub struct DockerConfig {
    /// Their image.
    pub image: String,
    /// Their network.
    pub network: String,
    /// The port they listen on.
    pub port: u16,
    /// What they run, if not the image's own.
    pub command: Option<CommandLine>,
    /// Variables for their environment.
    pub env: Vec<(String, String)>,
    /// Most bytes of memory of each.
    pub memory: Option<u64>,
    /// Most processors of each.
    pub cpus: Option<f64>,
    /// Most processes and threads of each.
    pub pids: u32,
    /// The value of their pool label.
    pub pool: String,
}

/// Probes.
#[derive(Clone, Debug)]
pub struct HealthConfig {
    /// What they ask for.
    pub path: String,
    /// Time between two of one replica.
    pub interval: Duration,
    /// Time an answer may take.
    pub timeout: Duration,
    /// How many in a row count.
    pub limits: HealthLimits,
    /// Time from a start to the first good ones.
    pub start_deadline: Duration,
}

/// Deadlines.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For the head of a client's request.
    pub head: Duration,
    /// For a connection to a replica.
    pub connect: Duration,
    /// For the first byte of a replica's answer.
    pub first_byte: Duration,
    /// For an idle connection.
    pub keep_alive: Duration,
    /// For requests in flight at a replica that leaves, or at the balancer's end.
    pub drain: Duration,
    /// Between a replica's SIGTERM and SIGKILL.
    pub stop: Duration,
}

/// Logging.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// How lines are written.
    pub format: LogFormat,
    /// Which are.
    pub filter: String,
}

/// Why a configuration is not good.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// The file is not TOML, or has an unknown key or a value of a wrong kind.
    #[error("{}: {source}", path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: Box<toml::de::Error>,
    },
    /// A value is not allowed.
    #[error("'{field}' {must}")]
    Field {
        /// The key in the file.
        field: &'static str,
        /// What it must be.
        must: String,
    },
}

/// The most virtual nodes of a replica: more only cost memory.
const VIRTUAL_NODES_MAX: u32 = 65_536;

/// The most slots of the classic ring.
const SLOTS_MAX: u32 = 1 << 20;

// === impl Config ===

impl Config {
    /// Reads `file`, if any, under `settings` (from the environment and the flags), and checks
    /// the whole.
    ///
    /// # Errors
    /// [`ConfigError`], which names the file or the field.
    pub fn load(file: Option<&Path>, settings: Settings) -> Result<Self, ConfigError> {
        let settings = match file {
            Some(path) => settings.or(read(path)?),
            None => settings,
        };
        Self::check(settings)
    }

    fn check(settings: Settings) -> Result<Self, ConfigError> {
        let listen =
            settings.listen.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 5000)));
        let admin = admin(settings.admin.clone(), listen)?;
        let placement = placement(&settings)?;
        let health = health(settings.health.clone(), settings.health_path.clone())?;
        let timeouts = timeouts(&settings.timeouts)?;

        let max_replicas = settings.max_replicas.unwrap_or(1_000);
        let replicas = settings.replicas.unwrap_or(3);
        let most = placement.capacity().map_or(max_replicas, |seats| seats.min(max_replicas));
        if replicas > most {
            let why = format!(
                "must be at most {most} ('max_replicas' is {max_replicas}, placement {} has {} \
                 seats), not {replicas}",
                placement.name(),
                placement.capacity().map_or("any number of".to_owned(), |seats| seats.to_string()),
            );
            return Err(must("replicas", why));
        }
        let keep_replicas = settings.keep_replicas.unwrap_or(false);
        let key = settings.key.as_deref().unwrap_or("request-id").parse::<KeySource>();
        let log = LogConfig {
            format: settings.log_format.unwrap_or_default(),
            filter: settings.log_level.clone().unwrap_or_else(|| "info".to_owned()),
        };
        let unknown_path = settings.compat.unknown_path.unwrap_or(false);
        let workers = settings.workers.map_or_else(cores, Into::into);
        let policy = match settings.policy.unwrap_or(PolicyKind::Hash) {
            PolicyKind::Hash => Policy::Hash,
        };
        let runtime = runtime(settings)?;
        if keep_replicas && !matches!(runtime, RuntimeConfig::Docker(_)) {
            return Err(must("keep_replicas", "needs runtime = \"docker\": others cannot"));
        }
        Ok(Self {
            listen,
            admin,
            runtime,
            replicas,
            max_replicas,
            keep_replicas,
            placement,
            policy,
            key: key.map_err(|bad| must("key", format!("is wrong: {bad}")))?,
            health,
            timeouts,
            workers,
            unknown_path,
            log,
        })
    }

    /// The part of it that the roster needs.
    pub fn fleet(&self) -> FleetConfig {
        FleetConfig {
            capacity: self.placement.capacity(),
            max_replicas: self.max_replicas,
            health: self.health.limits,
            backoff: BackoffConfig::default(),
            start_deadline: self.health.start_deadline,
            drain_deadline: self.timeouts.drain,
            remove_again: Duration::from_secs(5),
            listed: matches!(self.runtime, RuntimeConfig::Static(_)),
        }
    }
}

fn read(path: &Path) -> Result<Settings, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read(path.to_owned(), source))?;
    toml::from_str(&text)
        .map_err(|source| ConfigError::Toml { path: path.to_owned(), source: source.into() })
}

fn must(field: &'static str, must: impl Into<String>) -> ConfigError {
    ConfigError::Field { field, must: must.into() }
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, Into::into)
}

fn admin(settings: AdminSettings, listen: SocketAddr) -> Result<AdminConfig, ConfigError> {
    let AdminSettings { listen: own, token, open, hosts } = settings;
    let bad = |token: &String| token.is_empty() || !token.bytes().all(|c| c.is_ascii_graphic());
    if token.as_ref().is_some_and(bad) {
        return Err(must("admin.token", "must be visible ASCII characters, without spaces"));
    }
    let at = own.unwrap_or(listen);
    if token.is_none() && !open.unwrap_or(false) && !is_loopback(at.ip()) {
        let why = format!(
            "must be set: /add and /rm would be open to everybody who reaches {at}. Set it, or \
             bind them to a loopback address with 'admin.listen', or say 'admin.open = true' if \
             that is meant"
        );
        return Err(must("admin.token", why));
    }
    if own == Some(listen) && listen.port() != 0 {
        return Err(must("admin.listen", "must differ from 'listen'; leave it out to share it"));
    }
    let hosts = hosts.unwrap_or_default().iter().map(|host| host.to_ascii_lowercase()).collect();
    Ok(AdminConfig { listen: own, token: token.map(Token), hosts })
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// Both tables are checked, whichever is used: a mistake in the other would only show later.
fn placement(settings: &Settings) -> Result<PlacementConfig, ConfigError> {
    let (ring, classic) = (ring(&settings.ring)?, classic(&settings.classic)?);
    Ok(match settings.placement.unwrap_or(PlacementKind::Ring) {
        PlacementKind::Ring => PlacementConfig::Ring(ring),
        PlacementKind::Classic => PlacementConfig::Classic(classic),
    })
}

fn ring(settings: &RingSettings) -> Result<RingConfig, ConfigError> {
    let default = RingConfig::default();
    let virtual_nodes = settings.virtual_nodes.unwrap_or(default.virtual_nodes);
    within("ring.virtual_nodes", virtual_nodes, VIRTUAL_NODES_MAX)?;
    let secret = settings.secret.map_or(default.secret, |hex| Secret(hex.0));
    Ok(RingConfig { virtual_nodes, secret })
}

fn classic(settings: &ClassicSettings) -> Result<ClassicConfig, ConfigError> {
    let default = ClassicConfig::default();
    let slots = settings.slots.unwrap_or(default.slots);
    within("classic.slots", slots, SLOTS_MAX)?;
    let virtual_nodes = settings.virtual_nodes.unwrap_or(default.virtual_nodes);
    within("classic.virtual_nodes", virtual_nodes, slots)?;
    let given = [
        ("classic.request_coefficients", &settings.request_coefficients, [17, 2, 1]),
        ("classic.seat_coefficients", &settings.seat_coefficients, [25, 0, 1]),
        ("classic.virtual_node_coefficients", &settings.virtual_node_coefficients, [0, 2, 1]),
    ];
    let kind = settings.hash.unwrap_or(ClassicHashKind::Polynomial);
    for (field, coefficients, _) in &given {
        if kind == ClassicHashKind::SipHash && coefficients.is_some() {
            return Err(must(field, "is for classic.hash = \"polynomial\" only"));
        }
        if coefficients.as_ref().is_some_and(Vec::is_empty) {
            return Err(must(field, "must have one number at least"));
        }
    }
    let [request, seat, virtual_node] =
        given.map(|(_, coefficients, default)| coefficients.clone().unwrap_or(default.into()));
    let hash = match kind {
        ClassicHashKind::Polynomial => ClassicHash::Polynomial { request, seat, virtual_node },
        ClassicHashKind::SipHash => ClassicHash::SipHash,
    };
    let probing = match settings.probing.unwrap_or(ProbingKind::Linear) {
        ProbingKind::Linear => Probing::Linear,
        ProbingKind::Quadratic => Probing::Quadratic,
    };
    Ok(ClassicConfig { slots, virtual_nodes, hash, probing })
}

fn within(field: &'static str, value: u32, most: u32) -> Result<(), ConfigError> {
    if (1..=most).contains(&value) {
        return Ok(());
    }
    Err(must(field, format!("must be 1 to {most}, not {value}")))
}

fn health(settings: HealthSettings, path: Option<String>) -> Result<HealthConfig, ConfigError> {
    let path = path.unwrap_or_else(|| "/heartbeat".to_owned());
    if !path.starts_with('/') || !path.bytes().all(|c| c.is_ascii_graphic()) {
        return Err(must("health_path", "must begin with '/' and have no spaces"));
    }
    let limits =
        HealthLimits { rise: settings.rise.unwrap_or(1), fall: settings.fall.unwrap_or(3) };
    within("health.rise", limits.rise, 1_000)?;
    within("health.fall", limits.fall, 1_000)?;
    Ok(HealthConfig {
        path,
        interval: span("health.interval", settings.interval, 1)?,
        timeout: span("health.timeout", settings.timeout, 1)?,
        limits,
        start_deadline: span("health.start_deadline", settings.start_deadline, 60)?,
    })
}

fn timeouts(settings: &TimeoutSettings) -> Result<Timeouts, ConfigError> {
    Ok(Timeouts {
        head: span("timeouts.head", settings.head, 10)?,
        connect: span("timeouts.connect", settings.connect, 1)?,
        first_byte: span("timeouts.first_byte", settings.first_byte, 30)?,
        keep_alive: span("timeouts.keep_alive", settings.keep_alive, 75)?,
        drain: span("timeouts.drain", settings.drain, 10)?,
        stop: span("timeouts.stop", settings.stop, 10)?,
    })
}

/// A duration of at least a millisecond and at most a day.
fn span(field: &'static str, span: Option<Span>, default: u64) -> Result<Duration, ConfigError> {
    let duration = span.map_or(Duration::from_secs(default), |span| span.0);
    let allowed = Duration::from_millis(1)..=Duration::from_hours(24);
    if allowed.contains(&duration) {
        return Ok(duration);
    }
    Err(must(field, format!("must be 1ms to 24h, not {}", Span(duration))))
}

fn runtime(settings: Settings) -> Result<RuntimeConfig, ConfigError> {
    let servers = settings.servers.unwrap_or_default();
    let implied = if servers.is_empty() { RuntimeKind::Process } else { RuntimeKind::Static };
    let kind = settings.runtime.unwrap_or(implied);
    if kind != RuntimeKind::Static && !servers.is_empty() {
        return Err(must("servers", "are for runtime = \"static\"; leave one of the two out"));
    }
    let env = settings.env.unwrap_or_default().into_iter().map(|v| (v.0, v.1)).collect();
    match kind {
        RuntimeKind::Process => Ok(RuntimeConfig::Process { command: settings.command, env }),
        RuntimeKind::Docker => {
            if settings.cpus.is_some_and(|cpus| !(0.01..=1_024.0).contains(&cpus)) {
                return Err(must("cpus", "must be 0.01 to 1024"));
            }
            let text = |value: Option<String>, default: &str, field| match value {
                Some(text) if text.is_empty() || text.contains(char::is_whitespace) => {
                    Err(must(field, "must not be empty or have spaces"))
                }
                Some(text) => Ok(text),
                None => Ok(default.to_owned()),
            };
            Ok(RuntimeConfig::Docker(DockerConfig {
                image: text(settings.image, "ring-balancer/server", "image")?,
                network: text(settings.network, "net1", "network")?,
                port: settings.port.unwrap_or(5000),
                command: settings.command,
                env,
                memory: settings.memory.map(|size| size.0),
                cpus: settings.cpus,
                pids: settings.pids.unwrap_or(512),
                pool: text(settings.pool, "default", "pool")?,
            }))
        }
        RuntimeKind::Static => {
            let mut known = BTreeSet::new();
            if servers.is_empty() {
                return Err(must("servers", "must list at least one host:port for runtime static"));
            }
            if let Some(twice) = servers.iter().find(|server| !known.insert(&server.address)) {
                return Err(must("servers", format!("must not list {:?} twice", twice.address)));
            }
            Ok(RuntimeConfig::Static(servers))
        }
    }
}

// === impl Token ===

impl Token {
    /// Whether `given` is this token; takes the same time wherever they differ.
    pub fn is(&self, given: &[u8]) -> bool {
        let own = self.0.as_bytes();
        let differing = own.iter().zip(given).fold(0, |sum, (a, b)| sum | (a ^ b));
        own.len() == given.len() && differing == 0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}
