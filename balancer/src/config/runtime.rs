//! Where replicas run.

use std::time::Duration;

use super::ConfigError;
use super::check::must;
use super::limits::Timeouts;
use super::servers::{ServersConfig, servers};
use super::settings::{PullPolicy, RuntimeKind, Settings};
use super::value::CommandLine;
use crate::fleet::release::Spec;

/// Where replicas run.
#[derive(Clone, Debug, PartialEq)]
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
    Static(ServersConfig),
}

/// Containers of replicas.
#[derive(Clone, Debug, PartialEq)]
pub struct DockerConfig {
    /// Their image.
    pub image: String,
    /// When it is pulled.
    pub pull: PullPolicy,
    /// How long that may take.
    pub pull_deadline: Duration,
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
    /// The pool that they belong to; derived from where the balancer runs if not given.
    pub pool: Option<String>,
    /// Whether other balancers may join the pool.
    pub shared: bool,
}

/// The capabilities that no container keeps.
pub const CAP_DROP: &str = "ALL";
/// The security option of every container.
pub const SECURITY_OPT: &str = "no-new-privileges";
/// Whether an init process runs in every container.
pub const INIT: bool = true;

// === impl RuntimeConfig ===

impl RuntimeConfig {
    /// Returns what replicas run, without an image ID; nothing where they are listed.
    pub fn spec(&self) -> Spec {
        let words = |command: &Option<CommandLine>| command.as_ref().map(|it| it.words().to_vec());
        match self {
            RuntimeConfig::Process { command, env } => Spec {
                command: words(command),
                env: env.iter().cloned().collect(),
                ..Spec::default()
            },
            RuntimeConfig::Docker(docker) => docker.spec(),
            RuntimeConfig::Static(_) => Spec::default(),
        }
    }

    /// Returns this configuration after one that runs: what replicas run is taken from here if it
    /// is the same runtime, everything else stays as it is there. Reports also whether anything
    /// would have changed that stays.
    pub(super) fn after(self, running: &Self) -> (Self, bool) {
        match (self, running) {
            (process @ RuntimeConfig::Process { .. }, RuntimeConfig::Process { .. }) => {
                (process, false)
            }
            (RuntimeConfig::Docker(docker), RuntimeConfig::Docker(running)) => {
                let taken = DockerConfig {
                    image: docker.image.clone(),
                    command: docker.command.clone(),
                    env: docker.env.clone(),
                    memory: docker.memory,
                    cpus: docker.cpus,
                    pids: docker.pids,
                    ..running.clone()
                };
                let stays = docker != taken;
                (RuntimeConfig::Docker(taken), stays)
            }
            (other, running) => (running.clone(), other != *running),
        }
    }
}

// === impl DockerConfig ===

impl DockerConfig {
    /// Returns what replicas run, without an image ID.
    pub fn spec(&self) -> Spec {
        let fixed = [
            ("cap_drop", CAP_DROP.to_owned()),
            ("security_opt", SECURITY_OPT.to_owned()),
            ("init", INIT.to_string()),
        ];
        Spec {
            image: Some(self.image.clone()),
            digest: None,
            command: self.command.as_ref().map(|command| command.words().to_vec()),
            env: self.env.iter().cloned().collect(),
            memory: self.memory,
            nano_cpus: self.cpus.map(|cpus| (cpus * 1e9) as u64),
            pids: Some(self.pids),
            network: Some(self.network.clone()),
            port: Some(self.port),
            fixed: fixed.map(|(name, value)| (name.to_owned(), value)).into(),
        }
    }
}

/// Where replicas run: where nothing is said, listed servers say it.
pub(super) fn kind(settings: &Settings) -> RuntimeKind {
    let listed = settings.servers.as_ref().is_some_and(|servers| !servers.is_empty());
    let implied = if listed || settings.servers_file.is_some() {
        RuntimeKind::Static
    } else {
        RuntimeKind::Process
    };
    settings.runtime.unwrap_or(implied)
}

pub(super) fn runtime(
    settings: Settings,
    timeouts: &Timeouts,
    capacity: Option<usize>,
) -> Result<RuntimeConfig, ConfigError> {
    let kind = kind(&settings);
    let listed = settings.servers.unwrap_or_default();
    if kind != RuntimeKind::Static {
        if !listed.is_empty() {
            let why = "are for runtime = \"static\"; leave one of the two out";
            return Err(must("servers", why));
        }
        if settings.servers_file.is_some() {
            let why = "is for runtime = \"static\"; leave one of the two out";
            return Err(must("servers_file", why));
        }
    }
    if settings.shared == Some(true) && kind != RuntimeKind::Docker {
        return Err(must("shared", "needs runtime = \"docker\": replicas of others have no pool"));
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
            let shared = settings.shared.unwrap_or(false);
            if shared && settings.pool.is_none() {
                return Err(must("shared", "needs 'pool': the same name at every balancer"));
            }
            let pool = settings.pool.map(|pool| text(Some(pool), "", "pool")).transpose()?;
            Ok(RuntimeConfig::Docker(DockerConfig {
                image: text(settings.image, "ring-balancer/server", "image")?,
                pull: settings.pull.unwrap_or_default(),
                pull_deadline: timeouts.pull,
                network: text(settings.network, "net1", "network")?,
                port: settings.port.unwrap_or(5000),
                command: settings.command,
                env,
                memory: settings.memory.map(|size| size.0),
                cpus: settings.cpus,
                pids: settings.pids.unwrap_or(512),
                pool,
                shared,
            }))
        }
        RuntimeKind::Static => {
            Ok(RuntimeConfig::Static(servers(listed, settings.servers_file, capacity)?))
        }
    }
}
