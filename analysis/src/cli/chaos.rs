//! The command line of `analysis chaos`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::chaos::Plan;
use crate::experiment::Setup;
use crate::report::Report;
use crate::system::Runtime;

/// `analysis chaos`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How long, in minutes
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Of the faults, their times and victims
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Where the replicas run
    #[arg(long, value_enum, default_value_t = Runtime::Process)]
    pub(crate) runtime: Runtime,
    /// Replicas at the start
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    replicas: u32,
    /// Spares beside them, where the balancer can have some
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=100))]
    spares: u32,
    /// Requests a second, one in five of them a POST
    #[arg(long, default_value_t = 200.0)]
    rate: f64,
    /// docker: a command that restarts the engine, such as 'systemctl restart docker'; without it
    /// the engine is let alone
    #[arg(long, value_name = "COMMAND")]
    restart_engine_with: Option<String>,
    /// docker: the network of the replicas, made if it is absent
    #[arg(long, default_value = "net1")]
    network: String,
    /// Print what would be done, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// The folder for figures
    #[arg(long, default_value = "report", value_name = "FOLDER")]
    out: PathBuf,
    /// The balancer [default: the one beside this program]
    #[arg(long, value_name = "PATH")]
    balancer: Option<PathBuf>,
    /// docker: the image of the replicas
    #[arg(long, default_value = "ring-balancer/server")]
    image: String,
}

/// Half a minute: less has no room for a fault and what comes of it.
const SHORTEST: f64 = 0.5;
/// A week.
const LONGEST: f64 = 10_080.0;

// === impl Args ===

impl Args {
    /// What to do.
    ///
    /// # Errors
    /// When there is nothing to do.
    pub(crate) fn plan(&self) -> anyhow::Result<Plan> {
        ensure!(
            (SHORTEST..=LONGEST).contains(&self.minutes),
            "--minutes must be from {SHORTEST} to {LONGEST}"
        );
        ensure!(self.rate.is_finite() && self.rate >= 1.0, "--rate must be at least 1");
        Ok(Plan {
            length: Duration::from_secs_f64(self.minutes * 60.0),
            replicas: self.replicas,
            spares: self.spares,
            rate: self.rate,
            network: self.network.clone(),
            restart_engine: self.restart_engine_with.clone(),
        })
    }

    /// With what.
    ///
    /// # Errors
    /// When the report folder cannot be made, or the balancer is not there.
    pub(crate) fn setup(&self) -> anyhow::Result<Setup> {
        let named = super::balancer(self.balancer.as_deref())?;
        let balancer = named
            .canonicalize()
            .with_context(|| format!("no balancer at {}; say --balancer PATH", named.display()))?;
        Ok(Setup {
            report: Report::open(&self.out)?,
            runtime: self.runtime,
            image: self.image.clone(),
            balancer,
            requests: 1,
            seed: self.seed,
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::{Cli, Command};
    use super::*;

    fn plan(arguments: &[&str]) -> anyhow::Result<Plan> {
        let words = ["analysis", "chaos"].iter().chain(arguments);
        let Command::Chaos(args) = Cli::try_parse_from(words)?.command else {
            anyhow::bail!("it is something else");
        };
        args.plan()
    }

    #[test]
    fn a_run_has_the_documented_defaults() {
        let plan = plan(&[]).unwrap();
        assert_eq!((plan.length, plan.replicas), (Duration::from_secs(600), 5));
        assert_eq!((plan.spares, plan.rate), (0, 200.0));
        assert_eq!((plan.network.as_str(), plan.restart_engine), ("net1", None));
    }

    #[test]
    fn a_run_that_is_none_is_refused() {
        for bad in
            [["--minutes", "0.1"], ["--rate", "0"], ["--replicas", "0"], ["--minutes", "NaN"]]
        {
            assert!(plan(&bad).is_err(), "{bad:?}");
        }
    }
}
