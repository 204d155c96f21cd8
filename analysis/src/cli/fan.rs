//! The command line of `analysis fan`.

use std::path::PathBuf;

use anyhow::ensure;

use crate::experiment::Setup;
use crate::experiment::fan::Plan;

/// `analysis fan`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// POSTs that go to all replicas
    #[arg(short = 'n', long, default_value_t = Plan::default().posts)]
    requests: usize,
    /// Rounds, in each of which GETs are sent in every way; the median counts
    #[arg(long, default_value_t = Plan::default().rounds)]
    rounds: usize,
    /// GETs for each way to send them, in each round
    #[arg(long, default_value_t = Plan::default().gets)]
    gets: usize,
    /// GETs a second
    #[arg(long, default_value_t = Plan::default().rate)]
    rate: f64,
    /// Of the request ids, and of what replicas drop and which of their answers are slow
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The folder for figures and charts
    #[arg(long, default_value = "report", value_name = "FOLDER")]
    pub(crate) out: PathBuf,
    /// The balancer [default: the one beside this program]
    #[arg(long, value_name = "PATH")]
    balancer: Option<PathBuf>,
}

/// Most POSTs: each has a six-digit number of its own.
const POSTS_MAX: usize = 100_000;

// === impl Args ===

impl Args {
    /// What to send.
    ///
    /// # Errors
    /// When that is nothing, or too much.
    pub(crate) fn plan(&self) -> anyhow::Result<Plan> {
        ensure!(
            (1..=POSTS_MAX).contains(&self.requests),
            "--requests must be from 1 to {POSTS_MAX}"
        );
        ensure!(self.rounds > 0, "--rounds must be at least 1");
        ensure!(self.gets > 0, "--gets must be at least 1");
        ensure!(self.rate.is_finite() && self.rate > 0.0, "--rate must be above 0");
        Ok(Plan { posts: self.requests, rounds: self.rounds, gets: self.gets, rate: self.rate })
    }

    /// With what.
    ///
    /// # Errors
    /// When the report folder cannot be made.
    pub(crate) fn setup(&self) -> anyhow::Result<Setup> {
        super::on_processes(&self.out, self.balancer.as_deref(), self.requests, self.seed)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::{Cli, Command};
    use super::*;

    fn plan(arguments: &[&str]) -> anyhow::Result<Plan> {
        let words = ["analysis", "fan"].iter().chain(arguments);
        let Command::Fan(args) = Cli::try_parse_from(words)?.command else {
            anyhow::bail!("it is something else");
        };
        args.plan()
    }

    #[test]
    fn everything_can_be_set_and_has_a_default() {
        assert_eq!(plan(&[]).unwrap(), Plan::default());
        let set = plan(&["-n", "5", "--gets", "6", "--rate", "7.5", "--rounds", "1"]).unwrap();
        assert_eq!(set, Plan { posts: 5, rounds: 1, gets: 6, rate: 7.5 });
    }

    #[test]
    fn what_cannot_be_sent_is_refused() {
        for bad in
            [["-n", "0"], ["-n", "100001"], ["--gets", "0"], ["--rate", "0"], ["--rounds", "0"]]
        {
            assert!(plan(&bad).is_err(), "{bad:?}");
        }
    }
}
