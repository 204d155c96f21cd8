//! Many simulated runs, side by side on all processors.

use super::arm::Arm;
use super::arrivals::{Keys, Poisson};
use super::outcome::Outcome;
use super::sim::{System, simulate};
use crate::load::progress_bar;
use crate::parallel::side_by_side;

/// A run to simulate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Job<'a> {
    pub(super) system: &'a System,
    pub(super) keys: &'a Keys,
    pub(super) arm: Arm,
    /// As a share of the system's capacity.
    pub(super) load: f64,
    /// Of the arrivals.
    pub(super) seed: u64,
    /// Of the service times and of what the policy draws.
    pub(super) work_seed: u64,
}

/// Jobs that are begun before it is looked whether the program is to end.
const AT_ONCE: usize = 8;

/// Simulates all of them; their outcomes in the same order.
///
/// # Errors
/// When there is no placement for so many replicas.
pub(super) async fn run(what: &str, jobs: Vec<Job<'_>>) -> anyhow::Result<Vec<Outcome>> {
    let progress = progress_bar(&format!("simulated: {what}"));
    progress.set_length(jobs.len() as u64);
    let mut outcomes = Vec::with_capacity(jobs.len());
    for few in jobs.chunks(AT_ONCE) {
        outcomes.extend(side_by_side(few, Job::run)?);
        progress.inc(few.len() as u64);
        tokio::task::yield_now().await;
    }
    progress.finish_and_clear();
    Ok(outcomes)
}

// === impl Job ===

impl Job<'_> {
    fn run(&self) -> anyhow::Result<Outcome> {
        let arrivals = arrivals(self.system, self.keys, self.load, self.seed);
        simulate(self.system, self.arm, arrivals, self.work_seed)
    }
}

/// When requests come that are this share of what the system can do.
pub(super) fn arrivals(system: &System, keys: &Keys, load: f64, seed: u64) -> Poisson {
    Poisson::new(load * system.capacity(), keys, system.window.end(), seed)
}
