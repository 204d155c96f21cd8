//! The command line.

pub(crate) mod chaos;
pub(crate) mod fan;
pub(crate) mod heal;
pub(crate) mod overload;
pub(crate) mod ring;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use awc::http::Method;
use awc::http::header::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use clap::{Args, Parser, Subcommand};

use crate::experiment::Setup;
use crate::experiment::a3::Shot;
use crate::load::{self, LoadPlan, Pace};
use crate::proxies::{Plan, Proxy, Work};
use crate::report::Report;
use crate::system::Runtime;

/// Load generator, experiments and charts for the balancer.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Send many requests to one URL and say what came back
    Load(LoadArgs),
    /// requests per replica on the classic ring, beside the exact shares
    A1(ExperimentArgs),
    /// average load and spread of two to six replicas on the classic ring
    A2(ExperimentArgs),
    /// the contract row by row, then a replica killed under load
    A3(ShotArgs),
    /// A-4: A-1 and A-2 with other hash functions, side by side
    A4(ExperimentArgs),
    /// F-1 and F-2: requests to all replicas, to several for the first success, or hedged
    Fan(fan::Args),
    /// Ways to balance at 50 to 110 % of what the replicas can do, measured and simulated
    Overload(overload::Args),
    /// What placements do with the key space, beside the figures of their papers
    Ring(ring::Args),
    /// All experiments, one after another
    All(ShotArgs),
    /// Time the balancer: 10,000 requests, /add against `docker run`, look-ups
    Bench(BenchArgs),
    /// Put nginx, HAProxy and the balancer through the same work, in turns
    Proxies(ProxiesArgs),
    /// Hurt the fleet at random under load, and check what must hold all the same
    Chaos(chaos::Args),
    /// Time how soon the fleet is whole again after deaths, and what 200 replicas cost
    Heal(heal::Args),
}

/// `analysis load`
#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// Where to: http://host:port/path
    url: String,
    /// Requests in all
    #[arg(short = 'n', long, default_value_t = 10_000)]
    requests: usize,
    /// Requests in flight: the next one goes when one is done; 0 launches all as async tasks at
    /// once
    #[arg(short, long, default_value_t = 0, conflicts_with = "rate")]
    concurrency: usize,
    /// Requests launched per second, evenly, whether answers come or not
    #[arg(long)]
    rate: Option<f64>,
    /// Connections open at a time, at most: what is launched beyond waits for one, and the wait
    /// is part of its latency
    #[arg(long, default_value_t = 256)]
    connections: usize,
    /// Method of the requests
    #[arg(short = 'X', long, default_value = "GET")]
    method: String,
    /// A header of the requests, 'Name: value'; may be given several times
    #[arg(short = 'H', long = "header", value_name = "HEADER")]
    headers: Vec<String>,
    /// Body of the requests
    #[arg(short = 'd', long, default_value = "", hide_default_value = true)]
    body: String,
    /// Of the request ids, six-digit random numbers sent as X-Request-Id
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The longest that one request may take, its wait for a connection not counted
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

/// What all experiments take.
#[derive(Debug, Args)]
pub(crate) struct ExperimentArgs {
    /// Where the replicas run
    #[arg(long, value_enum, default_value_t = Runtime::Process)]
    runtime: Runtime,
    /// The folder for figures and charts
    #[arg(long, default_value = "report", value_name = "FOLDER")]
    pub(crate) out: PathBuf,
    /// Requests of one measurement
    #[arg(short = 'n', long, default_value_t = 10_000)]
    requests: usize,
    /// Of the request ids
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The balancer [default: the one beside this program]
    #[arg(long, value_name = "PATH")]
    balancer: Option<PathBuf>,
    /// docker: the image of the replicas
    #[arg(long, default_value = "ring-balancer/server")]
    image: String,
}

/// What experiments take that kill a replica.
#[derive(Debug, Args)]
pub(crate) struct ShotArgs {
    #[command(flatten)]
    pub(crate) experiment: ExperimentArgs,
    /// Requests per second while a replica is killed
    #[arg(long, default_value_t = 500.0)]
    rate: f64,
    /// How long they come
    #[arg(long, default_value = "8s", value_parser = humantime::parse_duration)]
    length: Duration,
}

/// `analysis bench`
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    #[command(flatten)]
    pub(crate) experiment: ExperimentArgs,
    /// Rounds of each measurement, of which the median counts
    #[arg(long, default_value_t = 5)]
    pub(crate) rounds: usize,
}

/// `analysis proxies`
#[derive(Debug, Args)]
pub(crate) struct ProxiesArgs {
    #[command(flatten)]
    pub(crate) experiment: ExperimentArgs,
    /// Rounds, in each of which every proxy does every work; the median counts
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of one run
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Only this work; may be given several times. The report then has nothing else
    #[arg(long = "work", value_enum, value_name = "NAME")]
    works: Vec<Work>,
    /// Only this proxy; may be given several times
    #[arg(long = "only", value_enum, value_name = "PROXY")]
    proxies: Vec<Proxy>,
}

// === impl LoadArgs ===

impl LoadArgs {
    /// What to send.
    ///
    /// # Errors
    /// When the URL, the method, a header or the rate is none.
    pub(crate) fn plan(&self) -> anyhow::Result<LoadPlan> {
        let mut headers = HeaderMap::new();
        for header in &self.headers {
            let (name, value) = header
                .split_once(':')
                .with_context(|| format!("header {header:?} is not 'Name: value'"))?;
            let name = HeaderName::try_from(name.trim())
                .with_context(|| format!("{name:?} is no name of a header"))?;
            let value = HeaderValue::try_from(value.trim())
                .with_context(|| format!("{value:?} is no value of a header"))?;
            headers.append(name, value);
        }
        let pace = match (self.rate, self.concurrency) {
            (Some(rate), _) if rate.is_finite() && rate > 0.0 => Pace::PerSecond(rate),
            (Some(rate), _) => bail!("--rate {rate} is no number of requests per second"),
            (None, 0) => Pace::AllAtOnce,
            (None, concurrency) => Pace::InFlight(concurrency),
        };
        ensure!(self.connections > 0, "--connections must be at least 1");
        Ok(LoadPlan {
            method: Method::from_bytes(self.method.as_bytes())
                .with_context(|| format!("{:?} is no method", self.method))?,
            headers,
            body: Bytes::from(self.body.clone()),
            pace,
            connections: self.connections,
            timeout: self.timeout,
            ..LoadPlan::get(&self.url, load::request_ids(self.seed, self.requests))?
        })
    }
}

// === impl ExperimentArgs ===

impl ExperimentArgs {
    /// What the experiments are told.
    ///
    /// # Errors
    /// When the report folder cannot be made, or there is nothing to send.
    pub(crate) fn setup(&self) -> anyhow::Result<Setup> {
        ensure!(self.requests > 0, "-n must be at least 1");
        let balancer = balancer(self.balancer.as_deref())?;
        Ok(Setup {
            report: Report::open(&self.out)?,
            runtime: self.runtime,
            image: self.image.clone(),
            balancer,
            requests: self.requests,
            seed: self.seed,
        })
    }
}

/// What an experiment has whose replicas are child processes.
fn on_processes(
    out: &Path,
    balancer_named: Option<&Path>,
    requests: usize,
    seed: u64,
) -> anyhow::Result<Setup> {
    Ok(Setup {
        report: Report::open(out)?,
        runtime: Runtime::Process,
        image: String::new(),
        balancer: balancer(balancer_named)?,
        requests,
        seed,
    })
}

/// The balancer that was named, or the one beside this program.
fn balancer(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    match named {
        Some(path) => Ok(path.to_owned()),
        None => Ok(std::env::current_exe()
            .context("where is this program? Say --balancer PATH")?
            .with_file_name("balancer")),
    }
}

// === impl ShotArgs ===

impl ShotArgs {
    /// How a replica is killed.
    ///
    /// # Errors
    /// When the load is none.
    pub(crate) fn shot(&self) -> anyhow::Result<Shot> {
        ensure!(self.rate.is_finite() && self.rate > 0.0, "--rate must be above 0");
        ensure!(self.length >= Duration::from_secs(1), "--length must be at least 1s");
        Ok(Shot { rate: self.rate, length: self.length })
    }
}

// === impl ProxiesArgs ===

impl ProxiesArgs {
    /// What is run, and how often.
    ///
    /// # Errors
    /// When that is nothing.
    pub(crate) fn plan(&self) -> anyhow::Result<Plan> {
        ensure!(self.rounds > 0, "--rounds must be at least 1");
        ensure!(self.seconds > 0, "--seconds must be at least 1");
        let asked = |work: &Work| self.works.is_empty() || self.works.contains(work);
        let wanted = |proxy: &Proxy| self.proxies.is_empty() || self.proxies.contains(proxy);
        Ok(Plan {
            rounds: self.rounds,
            seconds: self.seconds,
            works: Work::ALL.into_iter().filter(asked).collect(),
            proxies: Proxy::ALL.into_iter().filter(wanted).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn plan(arguments: &[&str]) -> anyhow::Result<LoadPlan> {
        let words = ["analysis", "load", "http://127.0.0.1:1/x"].iter().chain(arguments);
        let Command::Load(load) = Cli::try_parse_from(words)?.command else {
            bail!("it is no load");
        };
        load.plan()
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_load_has_the_documented_defaults() {
        let plan = plan(&[]).unwrap();
        assert_eq!((plan.method, plan.pace), (Method::GET, Pace::AllAtOnce));
        assert_eq!((plan.ids.len(), plan.connections), (10_000, 256));
        assert_eq!((plan.timeout, plan.headers.len()), (Duration::from_secs(30), 0));
    }

    #[test]
    fn everything_of_a_load_can_be_set() {
        let plan = plan(&[
            "-n",
            "5",
            "-c",
            "2",
            "-X",
            "POST",
            "-H",
            "A: b",
            "-H",
            "a:c",
            "-d",
            "body",
            "--timeout",
            "250ms",
        ])
        .unwrap();
        assert_eq!((plan.method, plan.pace), (Method::POST, Pace::InFlight(2)));
        assert_eq!((plan.ids.len(), &plan.body[..]), (5, &b"body"[..]));
        assert_eq!(plan.timeout, Duration::from_millis(250));
        let values: Vec<_> = plan.headers.get_all("a").collect();
        assert_eq!(values, ["b", "c"]);
    }

    #[test]
    fn what_cannot_be_sent_is_refused() {
        for bad in [
            &["-H", "no colon"][..],
            &["-H", "b@d: x"],
            &["-X", "G T"],
            &["--rate", "0"],
            &["--rate", "5", "-c", "2"],
            &["--connections", "0"],
            &["--timeout", "soon"],
        ] {
            assert!(plan(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn proxies_do_all_the_work_unless_some_is_named() {
        let plan = |arguments: &[&str]| {
            let words = ["analysis", "proxies"].iter().chain(arguments);
            let Command::Proxies(args) = Cli::try_parse_from(words)?.command else {
                bail!("it is something else");
            };
            args.plan()
        };
        let all = plan(&[]).unwrap();
        assert_eq!((all.rounds, all.seconds), (5, 4));
        assert_eq!((&all.works[..], &all.proxies[..]), (&Work::ALL[..], &Proxy::ALL[..]));
        let some = plan(&["--work", "idle", "--work", "get-64", "--only", "haproxy"]).unwrap();
        assert_eq!(some.works, [Work::Get64, Work::Idle]);
        assert_eq!(some.proxies, [Proxy::Haproxy]);
        assert!(plan(&["--rounds", "0"]).is_err() && plan(&["--seconds", "0"]).is_err());
    }
}
