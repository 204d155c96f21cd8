//! F-1 and F-2: requests that go to several replicas.
//!
//! ```text
//! all       F-1: to all, of which one drops a POST in five
//! first     F-2: to several for the first success, and to a second one when the first is late
//! replicas  demo replicas at free ports, each behind a tap
//! tap       counts what comes to a replica
//! page      the report
//! charts    its charts
//! ```

mod all;
mod charts;
mod first;
mod page;
mod replicas;
mod tap;

use std::path::PathBuf;

use anyhow::Context as _;
use tempfile::TempDir;

use super::{Problems, Setup, Variant};
use crate::system::{Balancer, Options, Runtime};
use first::Mode;
use page::Page;
use replicas::Replica;

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Plan {
    /// POSTs of F-1.
    pub(crate) posts: usize,
    /// Rounds of F-2, of which the medians count.
    pub(crate) rounds: usize,
    /// GETs of each mode in each of them.
    pub(crate) gets: usize,
    /// GETs a second.
    pub(crate) rate: f64,
}

/// A balancer with a configuration file, which is gone with it.
struct Configured {
    balancer: Balancer,
    _folder: TempDir,
}

// === impl Plan ===

impl Default for Plan {
    fn default() -> Self {
        Self { posts: 1_000, rounds: 3, gets: 4_000, rate: 400.0 }
    }
}

/// Measures, writes `fan-attempts.*`, `fan-waits.csv`, `fan-latency.*` and `fan.md`.
///
/// # Errors
/// When a replica, the balancer or a file is not as it should be.
pub(crate) async fn run(setup: &Setup, plan: &Plan) -> anyhow::Result<Problems> {
    let all = all::measure(setup, plan.posts).await?;
    let mut runs = Vec::new();
    // In turns, so that a hiccup of the machine does not hit one mode alone.
    for round in 1..=plan.rounds {
        let setup = Setup { seed: setup.seed.wrapping_add(round as u64), ..setup.clone() };
        for mode in Mode::ALL {
            runs.push(first::measure(&setup, plan, mode, round).await?);
        }
    }
    Page { setup, plan, all: &all, runs: &runs }.write()?;
    let mut problems = all.problems();
    problems.extend(runs.iter().flat_map(first::Measured::problems));
    Ok(problems)
}

// === impl Configured ===

impl Configured {
    /// Starts a balancer before these replicas, and waits until all are ready.
    async fn start(setup: &Setup, config: &str, replicas: &[Replica]) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("no folder for the configuration")?;
        let file: PathBuf = folder.path().join("balancer.toml");
        std::fs::write(&file, config)
            .with_context(|| format!("cannot write {}", file.display()))?;
        let mut options = Options {
            runtime: Runtime::Process,
            servers: replicas.iter().map(|replica| replica.tap.address()).collect(),
            ..setup.options(Variant::Ring, replicas.len() as u32)
        };
        options.arguments.extend(["--config".to_owned(), file.display().to_string()]);
        Ok(Self { balancer: Balancer::start(&options).await?, _folder: folder })
    }
}

#[cfg(test)]
mod tests;
