//! What is asked for: how the balancer is started, what is sent to it, what is done to it.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use awc::http::Method;

use super::replicas::{HOSTNAME, JOURNAL};
use super::schedule::{Draw, Step, schedule};
use crate::experiment::Setup;
use crate::load::{self, LoadPlan, Pace};
use crate::system::{Balancer, Options, Runtime};

/// What to do to the balancer.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// How long the load lasts.
    pub(crate) length: Duration,
    pub(crate) replicas: u32,
    pub(crate) spares: u32,
    /// Requests a second.
    pub(crate) rate: f64,
    pub(crate) network: String,
    /// Restarts the Docker daemon.
    pub(crate) restart_engine: Option<String>,
}

/// What this balancer's command line has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Abilities {
    pub(super) spares: bool,
    pub(super) replaces_hung: bool,
    pub(super) shares: bool,
    pub(super) rollouts: bool,
}

/// After the last fault, with the load still on: to see what that fault does.
const TAIL: Duration = Duration::from_secs(20);
/// Longer than the balancer's own deadline for an answer.
const TIMEOUT: Duration = Duration::from_secs(45);
/// One request in so many is a POST.
pub(super) const POST_SHARE: f64 = 0.2;
/// The ids of POSTs count from here: each is used once, and none is one of a GET's.
pub(super) const FIRST_POST: u32 = 1_000_000_000;
/// What starts slowly does so by this much, one in ten.
pub(super) const SLOW_START: &str = "3s";
const SLOW_SHARE: &str = "0.1";
/// What the balancer is told of hung replicas, where it can be told.
pub(super) const REPLACE_AFTER: &str = "5s";
/// How long a new replica is monitored, where it is.
const MONITOR: &str = "1s";

// === impl Plan ===

impl Plan {
    pub(super) fn faults_until(&self) -> Duration {
        self.length - TAIL.min(self.length / 6)
    }

    /// Returns the command of process replicas: the replica that would run anyway, with its name
    /// where it can be seen.
    pub(super) fn command(setup: &Setup) -> String {
        format!("env {HOSTNAME}={{hostname}} '{}' replica", setup.balancer.display())
    }

    pub(super) fn steps(&self, runtime: Runtime, seed: u64, abilities: Abilities) -> Vec<Step> {
        schedule(&Draw {
            seed,
            length: self.faults_until(),
            runtime,
            replicas: self.replicas,
            engine: self.restart_engine.is_some(),
            shares: abilities.shares,
            rollouts: abilities.rollouts,
        })
    }

    pub(super) fn options(&self, setup: &Setup, abilities: Abilities, journal: &str) -> Options {
        let mut arguments: Vec<String> = [
            "--env",
            &format!("{JOURNAL}={journal}"),
            "--env",
            &format!("SERVER_START_DELAY={SLOW_START}"),
            "--env",
            &format!("SERVER_START_DELAY_SHARE={SLOW_SHARE}"),
            "--access-log",
        ]
        .map(str::to_owned)
        .into();
        match setup.runtime {
            Runtime::Docker => {
                arguments.extend(["--network".to_owned(), self.network.clone()]);
                if abilities.shares {
                    arguments.push("--shared".to_owned());
                }
            }
            Runtime::Process => arguments.extend(["--command".to_owned(), Self::command(setup)]),
        }
        let mut add = |words: [&str; 2]| arguments.extend(words.map(str::to_owned));
        if abilities.replaces_hung {
            add(["--health-replace-after", REPLACE_AFTER]);
        }
        if abilities.rollouts {
            add(["--roll-monitor", MONITOR]);
            arguments.push("--admin-programs".to_owned());
        }
        let mut add = |words: [&str; 2]| arguments.extend(words.map(str::to_owned));
        if self.spares > 0 {
            add(["--spares", &self.spares.to_string()]);
        }
        Options {
            binary: setup.balancer.clone(),
            runtime: setup.runtime,
            image: setup.image.clone(),
            replicas: self.replicas,
            servers: Vec::new(),
            listen: Ipv4Addr::LOCALHOST,
            arguments,
        }
    }

    /// What is sent all the time: GETs, and POSTs each of which has an id of its own.
    pub(super) fn loads(
        &self,
        setup: &Setup,
        balancer: &Balancer,
    ) -> anyhow::Result<(LoadPlan, LoadPlan)> {
        let count = |rate: f64| (rate * self.length.as_secs_f64()).round() as usize;
        let (get_rate, post_rate) = (self.rate * (1.0 - POST_SHARE), self.rate * POST_SHARE);
        let common = |path, ids, rate| {
            anyhow::Ok(LoadPlan {
                pace: Pace::PerSecond(rate),
                connections: 2_048,
                timeout: TIMEOUT,
                ..LoadPlan::get(&balancer.url(path), ids)?
            })
        };
        let gets = common("/home", load::request_ids(setup.seed, count(get_rate)), get_rate)?;
        let ids = (FIRST_POST..).take(count(post_rate)).collect();
        let posts = LoadPlan { method: Method::POST, ..common("/register", ids, post_rate)? };
        Ok((gets, posts))
    }
}

// === impl Abilities ===

impl Abilities {
    /// Those of this version.
    pub(super) const ALL: Self =
        Self { spares: true, replaces_hung: true, shares: true, rollouts: true };

    /// Read from the help of this balancer.
    pub(super) fn of(balancer: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            spares: has_flag(balancer, "--spares")?,
            replaces_hung: has_flag(balancer, "--health-replace-after")?,
            shares: has_flag(balancer, "--shared[=<BOOL>]")?,
            rollouts: has_flag(balancer, "--roll-monitor")?,
        })
    }
}

/// Whether a balancer's help knows of a flag.
///
/// # Errors
/// When it cannot be run.
pub(crate) fn has_flag(balancer: &Path, flag: &str) -> anyhow::Result<bool> {
    let output = Command::new(balancer)
        .arg("--help")
        .output()
        .with_context(|| format!("cannot run {}", balancer.display()))?;
    let help = String::from_utf8_lossy(&output.stdout);
    Ok(help.split_whitespace().any(|word| word == flag))
}
