//! The command line of `analysis heal`.

use std::path::PathBuf;

use anyhow::ensure;
use clap::ValueEnum;

use crate::experiment::Setup;
use crate::heal::Plan;
use crate::report::Report;
use crate::system::Runtime;

/// `analysis heal`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where one of three is killed
    #[arg(long, value_enum, default_value_t = Runtimes::Both)]
    runtime: Runtimes,
    /// Rounds of each measurement, of which the median counts
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How many process replicas the large fleet has; 0 leaves it out
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(0..=1000))]
    many: u32,
    /// Of the request ids
    #[arg(long, default_value_t = 1)]
    seed: u64,
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

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Runtimes {
    /// As child processes of the balancer
    Process,
    /// As containers
    Docker,
    /// In turns
    Both,
}

// === impl Args ===

impl Args {
    /// What to measure.
    ///
    /// # Errors
    /// When that is nothing.
    pub(crate) fn plan(&self) -> anyhow::Result<Plan> {
        ensure!(self.rounds > 0, "--rounds must be at least 1");
        let runtimes = match self.runtime {
            Runtimes::Process => vec![Runtime::Process],
            Runtimes::Docker => vec![Runtime::Docker],
            Runtimes::Both => vec![Runtime::Process, Runtime::Docker],
        };
        Ok(Plan { runtimes, rounds: self.rounds, many: self.many })
    }

    /// With what.
    ///
    /// # Errors
    /// When the report folder cannot be made.
    pub(crate) fn setup(&self) -> anyhow::Result<Setup> {
        Ok(Setup {
            report: Report::open(&self.out)?,
            runtime: Runtime::Process,
            image: self.image.clone(),
            balancer: super::balancer(self.balancer.as_deref())?,
            requests: 1,
            seed: self.seed,
        })
    }
}
