//! The command line of `analysis overload`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::ensure;

use crate::experiment::Setup;
use crate::overload::Plan;

/// `analysis overload`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Replicas of the real runs, and of the small simulated fleets
    #[arg(long, default_value_t = Plan::default().replicas)]
    replicas: u32,
    /// Seconds of one real run, after 2 s of warm-up; there are 54
    #[arg(long, default_value_t = Plan::default().counted.as_secs())]
    seconds: u64,
    /// Replicas of the large simulated fleet
    #[arg(long, default_value_t = Plan::default().fleet)]
    fleet: u32,
    /// Only simulate: nothing real is started
    #[arg(long)]
    sim_only: bool,
    /// Of the arrivals and their keys, and of all that is drawn in the simulation
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The folder for figures and charts
    #[arg(long, default_value = "report", value_name = "FOLDER")]
    pub(crate) out: PathBuf,
    /// The balancer [default: the one beside this program]
    #[arg(long, value_name = "PATH")]
    balancer: Option<PathBuf>,
}

// === impl Args ===

impl Args {
    /// What to measure.
    ///
    /// # Errors
    /// When that is nothing, or too much.
    pub(crate) fn plan(&self) -> anyhow::Result<Plan> {
        ensure!((2..=50).contains(&self.replicas), "--replicas must be from 2 to 50");
        ensure!((1..=600).contains(&self.seconds), "--seconds must be from 1 to 600");
        ensure!((2..=10_000).contains(&self.fleet), "--fleet must be from 2 to 10000");
        Ok(Plan {
            replicas: self.replicas,
            counted: Duration::from_secs(self.seconds),
            fleet: self.fleet,
            sim_only: self.sim_only,
        })
    }

    /// With what.
    ///
    /// # Errors
    /// When the report folder cannot be made.
    pub(crate) fn setup(&self) -> anyhow::Result<Setup> {
        super::on_processes(&self.out, self.balancer.as_deref(), 1, self.seed)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::{Cli, Command};
    use super::*;

    fn plan(arguments: &[&str]) -> anyhow::Result<Plan> {
        let words = ["analysis", "overload"].iter().chain(arguments);
        let Command::Overload(args) = Cli::try_parse_from(words)?.command else {
            anyhow::bail!("it is something else");
        };
        args.plan()
    }

    #[test]
    fn everything_can_be_set_and_has_a_default() {
        assert_eq!(plan(&[]).unwrap(), Plan::default());
        let words = ["--replicas", "6", "--seconds", "9", "--fleet", "20", "--sim-only"];
        let set = Plan { replicas: 6, counted: Duration::from_secs(9), fleet: 20, sim_only: true };
        assert_eq!(plan(&words).unwrap(), set);
    }

    #[test]
    fn what_cannot_be_measured_is_refused() {
        for bad in [["--replicas", "1"], ["--seconds", "0"], ["--fleet", "1"], ["--replicas", "51"]]
        {
            assert!(plan(&bad).is_err(), "{bad:?}");
        }
    }
}
