//! What the user typed: one struct for the file, the environment and the flags.

mod admission;
mod engine;
mod fleet;
mod forwarding;
mod limits;
mod listen;
mod overload;
mod placement;
mod route;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::Deserialize;

use super::value::{CommandLine, Server, Size, Variable};
pub use admission::AdmissionSettings;
pub use engine::EngineSettings;
pub use fleet::{HealthSettings, OutlierSettings, RespawnSettings, RollSettings, ScaleSettings};
pub use forwarding::{ForwardedSettings, RetrySettings};
pub use limits::{LimitSettings, TimeoutSettings};
pub use listen::{AdminSettings, TlsSettings};
pub use overload::{OverloadSettings, level};
pub use placement::{
    ClassicHashKind, ClassicSettings, MaglevSettings, PlacementKind, ProbingKind, RingSettings,
};
pub use route::{
    AmongKind, Attempts, BackoffSettings, HedgeSettings, RouteRetry, RouteSettings, RouteTimeouts,
    SendKind,
};

/// Takes each field from the first that has it; of lists, the first that is not empty.
macro_rules! first_of {
    (
        $first:ident, $second:ident;
        $($field:ident),* $(,)?; $($table:ident),* $(,)? $(; $($list:ident),* $(,)?)?
    ) => {
        Self {
            $($field: $first.$field.or($second.$field),)*
            $($table: $first.$table.or($second.$table),)*
            $($($list: if $first.$list.is_empty() { $second.$list } else { $first.$list },)*)?
        }
    };
}
use first_of;

/// Every setting, none of them needed.
#[derive(Args, Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Where traffic comes in [default: 127.0.0.1:5000]
    #[arg(long, env = "BALANCER_LISTEN", value_name = "ADDR")]
    pub listen: Option<SocketAddr>,

    /// Where replicas run: as child processes, as Docker containers, or listed with --servers or
    /// --servers-file and not owned [default: process, or static when servers are listed]
    #[arg(long, env = "BALANCER_RUNTIME")]
    pub runtime: Option<RuntimeKind>,

    /// How many replicas to start first; later /add and /rm decide [default: 3]
    #[arg(long, env = "BALANCER_REPLICAS", value_name = "N")]
    pub replicas: Option<usize>,

    /// How many replicas there may be at most [default: 1000]
    #[arg(long, env = "BALANCER_MAX_REPLICAS", value_name = "N")]
    pub max_replicas: Option<usize>,

    /// How many replicas run besides, ready and without a place on the ring: one of them takes the
    /// place of a replica that dies, at once [default: 0]
    #[arg(long, env = "BALANCER_SPARES", value_name = "K")]
    pub spares: Option<usize>,

    /// Listed replicas, host:port, http://host:port or 'host:port weight=3', several parted by
    /// commas; a name with several addresses is several replicas; implies --runtime static
    #[arg(long, env = "BALANCER_SERVERS", value_name = "LIST", value_delimiter = ',')]
    pub servers: Option<Vec<Server>>,

    /// A file of listed replicas, besides those of --servers: one a line as there, from # on a
    /// comment. Read anew when it changes: those that it lists no more finish their requests and
    /// leave; a bad one changes nothing. Implies --runtime static
    #[arg(long, env = "BALANCER_SERVERS_FILE", value_name = "FILE")]
    pub servers_file: Option<PathBuf>,

    /// What each replica runs: a program and its arguments, run without a shell, with PORT and
    /// SERVER_ID in its environment and {port}, {seat}, {hostname} filled in [default: process:
    /// the embedded demo replica; docker: the image's own]. With the process runtime, a program that
    /// does not exist or may not be executed is an error at the start
    #[arg(long, env = "BALANCER_COMMAND", value_name = "COMMAND")]
    pub command: Option<CommandLine>,

    /// A variable for the environment of replicas, NAME=value; may be given several times
    #[arg(long, env = "BALANCER_ENV", value_name = "NAME=VALUE")]
    pub env: Option<Vec<Variable>>,

    /// docker: the image of replicas [default: ring-balancer/server]
    #[arg(long, env = "BALANCER_IMAGE")]
    pub image: Option<String>,

    /// docker: when the image of a release is pulled from its registry [default: missing]
    #[arg(long, env = "BALANCER_PULL")]
    pub pull: Option<PullPolicy>,

    /// docker: the network of replicas, made if it is absent [default: net1]
    #[arg(long, env = "BALANCER_NETWORK")]
    pub network: Option<String>,

    /// docker: the port that replicas listen on in their containers [default: 5000]
    #[arg(long, env = "BALANCER_PORT")]
    pub port: Option<u16>,

    /// docker: most memory of a replica, such as 256MiB [default: no limit]
    #[arg(long, env = "BALANCER_MEMORY", value_name = "SIZE")]
    pub memory: Option<Size>,

    /// docker: most processors of a replica, such as 0.5 [default: no limit]
    #[arg(long, env = "BALANCER_CPUS", value_name = "NUMBER")]
    pub cpus: Option<f64>,

    /// docker: most processes and threads of a replica [default: 512]
    #[arg(long, env = "BALANCER_PIDS", value_name = "N")]
    pub pids: Option<u32>,

    /// docker: the name by which this balancer finds its containers again, and other balancers that
    /// share them [default: the Compose project if it runs in one, otherwise the host name and
    /// --listen]
    #[arg(long, env = "BALANCER_POOL", value_name = "NAME")]
    pub pool: Option<String>,

    /// docker: share the pool with other balancers of the same --pool, all of which need this; the
    /// last one that stops removes the containers. Without it the start fails while another
    /// balancer holds the pool [default: false]
    #[arg(long, env = "BALANCER_SHARED", value_name = "BOOL", num_args = 0..=1,
          default_missing_value = "true", require_equals = true)]
    pub shared: Option<bool>,

    /// docker: leave the containers running when the balancer stops; the next start adopts them
    /// [default: false]
    #[arg(long, env = "BALANCER_KEEP_REPLICAS", value_name = "BOOL", num_args = 0..=1,
          default_missing_value = "true", require_equals = true)]
    pub keep_replicas: Option<bool>,

    /// What a changed image, command, environment or limit of replicas leads to, at the start or when
    /// the configuration is read again: a rollout, or only a warning [default: roll]
    #[arg(long, env = "BALANCER_ON_CHANGE")]
    pub on_change: Option<OnChangeKind>,

    /// How the key space is divided [default: ring]
    #[arg(long, env = "BALANCER_PLACEMENT")]
    pub placement: Option<PlacementKind>,

    /// How one replica is chosen [default: hash]
    #[arg(long, env = "BALANCER_POLICY")]
    pub policy: Option<PolicyKind>,

    /// What a request is placed by: request-id, client-ip, path, uri, header:NAME, cookie:NAME or
    /// query:NAME [default: request-id]
    #[arg(long, env = "BALANCER_KEY")]
    pub key: Option<String>,

    /// hash: a replica takes no request while it has this factor times its share of all that is in
    /// flight; the next owner does. Above 1, such as 1.25 [default: off]
    #[arg(long, env = "BALANCER_BALANCE_FACTOR", value_name = "NUMBER")]
    pub balance_factor: Option<f64>,

    /// The path that probes ask for [default: /heartbeat]
    #[arg(long, env = "BALANCER_HEALTH_PATH", value_name = "PATH")]
    pub health_path: Option<String>,

    /// Threads of the request path [default: the number of cores]
    #[arg(long, env = "BALANCER_WORKERS", value_name = "N")]
    pub workers: Option<NonZeroUsize>,

    /// How log lines are written [default: text]
    #[arg(long, env = "BALANCER_LOG_FORMAT")]
    pub log_format: Option<LogFormat>,

    /// One line in the log for each request that is forwarded [default: false]
    #[arg(long, env = "BALANCER_ACCESS_LOG", value_name = "BOOL", num_args = 0..=1,
          default_missing_value = "true", require_equals = true)]
    pub access_log: Option<bool>,

    /// Which log lines are written: error, warn, info, debug, trace, or a filter such as
    /// balancer=debug; a level also by LOG_LEVEL, in any case [default: info]
    #[arg(long, env = "BALANCER_LOG_LEVEL", value_name = "FILTER")]
    pub log_level: Option<String>,

    /// `[ring]`
    #[command(flatten)]
    pub ring: RingSettings,

    /// `[classic]`
    #[command(flatten)]
    pub classic: ClassicSettings,

    /// `[maglev]`
    #[command(flatten)]
    pub maglev: MaglevSettings,

    /// `[engine]`
    #[command(flatten)]
    pub engine: EngineSettings,

    /// `[health]`
    #[command(flatten)]
    pub health: HealthSettings,

    /// `[outliers]`
    #[command(flatten)]
    pub outliers: OutlierSettings,

    /// `[overload]`
    #[command(flatten)]
    pub overload: OverloadSettings,

    /// `[admission]`
    #[command(flatten)]
    pub admission: AdmissionSettings,

    /// `[respawn]`
    #[command(flatten)]
    pub respawn: RespawnSettings,

    /// `[roll]`
    #[command(flatten)]
    pub roll: RollSettings,

    /// `[scale]`
    #[command(flatten)]
    pub scale: ScaleSettings,

    /// `[timeouts]`
    #[command(flatten)]
    pub timeouts: TimeoutSettings,

    /// `[limits]`
    #[command(flatten)]
    pub limits: LimitSettings,

    /// `[retry]`
    #[command(flatten)]
    pub retry: RetrySettings,

    /// `[forwarded]`
    #[command(flatten)]
    pub forwarded: ForwardedSettings,

    /// `[tls]`
    #[command(flatten)]
    pub tls: TlsSettings,

    /// `[admin]`
    #[command(flatten)]
    pub admin: AdminSettings,

    /// `[compat]`
    #[command(flatten)]
    pub compat: CompatSettings,

    /// `[[route]]`
    #[arg(skip)]
    pub route: Vec<RouteSettings>,
}

/// `[compat]`
#[derive(Args, Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CompatSettings {
    /// Turn a replica's 404 into 400 with the message that the path does not exist in server
    /// replicas [default: false]
    #[arg(id = "compat-unknown-path", long, env = "BALANCER_COMPAT_UNKNOWN_PATH",
          value_name = "BOOL", num_args = 0..=1, default_missing_value = "true",
          require_equals = true)]
    pub unknown_path: Option<bool>,

    /// A client that closes its sending side still wants its answer; by default it counts as gone
    /// [default: false]
    #[arg(id = "compat-half-close", long, env = "BALANCER_COMPAT_HALF_CLOSE",
          value_name = "BOOL", num_args = 0..=1, default_missing_value = "true",
          require_equals = true)]
    pub half_close: Option<bool>,
}

/// `runtime`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RuntimeKind {
    /// Child processes of the balancer
    Process,
    /// Containers of a Docker engine
    Docker,
    /// Listed in the configuration, not owned
    Static,
}

/// `pull`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PullPolicy {
    /// When the engine does not have it
    #[default]
    Missing,
    /// Never: an image that the engine does not have is an error
    Never,
    /// Before the image of a release is resolved: for the first replica, and for each rollout that
    /// names an image. All replicas of a release run that image
    Always,
}

/// `on_change`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnChangeKind {
    /// Replace all replicas, seat by seat
    #[default]
    Roll,
    /// Log the difference, and go on with what replicas run until a rollout is asked for
    Warn,
}

/// `policy`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyKind {
    /// By placement
    Hash,
    /// One after another, by weight
    RoundRobin,
    /// The one with the fewest requests in flight
    LeastRequests,
    /// The less loaded of two drawn at random
    TwoChoices,
}

/// `log_format`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// Lines for people
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

impl Settings {
    /// Each setting from here, else from `other`.
    pub fn or(self, other: Self) -> Self {
        first_of!(
            self, other;
            listen, runtime, replicas, max_replicas, spares, servers, servers_file, command, env, image,
            network, port, memory, cpus, pids, pull, pool, shared, keep_replicas, on_change,
            placement, policy, key,
            balance_factor,
            health_path, workers, log_format, access_log, log_level;
            ring, classic, maglev, engine, health, outliers, overload, admission, respawn, roll, scale,
            timeouts, limits,
            retry, forwarded, tls, admin, compat;
            route
        )
    }
}

impl CompatSettings {
    fn or(self, other: Self) -> Self {
        first_of!(self, other; unknown_path, half_close;)
    }
}
