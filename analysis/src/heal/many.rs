//! Two hundred replicas as processes: started, a quarter of them killed, and left alone.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use rustix::process::Signal;

use super::few::healed;
use crate::chaos::watch::{Look, Watch};
use crate::experiment::{Setup, Variant};
use crate::load::{self, LoadPlan, Pace, Run, Sample};
use crate::proxies::procfs::Usage;
use crate::stats::{Latencies, Percentiles};
use crate::system::{Balancer, Options, Runtime, signal, victim};

/// What a large fleet costs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Many {
    pub(super) replicas: u32,
    /// From the start of the balancer until the first was ready, and until all were.
    pub(super) first: Duration,
    pub(super) ready: Duration,
    /// Of `/rep` meanwhile.
    pub(super) rep: Percentiles,
    /// GETs meanwhile, from the first replica on.
    pub(super) starting: Gets,
    pub(super) killed: usize,
    /// GETs while they were killed.
    pub(super) dying: Gets,
    /// From the kill until all the dead were out, and until all were ready again.
    pub(super) out: Duration,
    pub(super) full: Duration,
    /// Time on a processor of the balancer alone while nothing happens, as a share of one.
    pub(super) idle: f64,
}

/// GETs in figures.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gets {
    pub(super) sent: usize,
    pub(super) failed: usize,
    pub(super) latency: Percentiles,
}

/// GETs a second while replicas start, and for how long in one piece.
pub(super) const GENTLE: f64 = 100.0;
const PIECE: usize = 25;
/// GETs a second while replicas die.
pub(super) const RATE: f64 = 500.0;
const LENGTH: Duration = Duration::from_secs(8);
const BEFORE: Duration = Duration::from_secs(2);
/// One in so many is killed.
const KILLED: usize = 4;
/// How long nothing happens.
pub(super) const IDLE: Duration = Duration::from_secs(30);
/// Until the waves are over.
const CALM: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(180);

/// Measures all of it.
///
/// # Errors
/// When the fleet is not whole in time, at first or again.
pub(super) async fn measure(setup: &Setup, replicas: u32) -> anyhow::Result<Many> {
    let mut options =
        Options { runtime: Runtime::Process, ..setup.options(Variant::Ring, replicas) };
    options.arguments.extend(["--env", "SERVER_WORKERS=1"].map(str::to_owned));
    let balancer = Balancer::launch(&options)?;
    let (watch, watching) = Watch::begin(balancer.address(), balancer.pid()?, replicas as usize);
    let starting = load_until_full(setup, &balancer, &watch).await?;
    let looks = watch.looks();
    let has_some = |look: &&Look| look.names.as_ref().is_some_and(|names| !names.is_empty());
    let first = looks.iter().find(has_some).context("a replica was ready")?.at;
    let ready = looks.iter().find(|look| look.is_full()).context("it was full")?.at;
    let rep = watch.answers().into_iter().collect::<Latencies>().percentiles();

    let (dying, killed, dead) = kill_some(setup, &balancer, &watch, replicas).await?;
    ensure!(watch.is_full_within(PATIENCE).await, "the fleet is not whole after {PATIENCE:?}");
    let (out, full) = healed(&watch.looks(), killed, dead).context("nobody noticed the deaths")?;
    drop(watching);
    tokio::time::sleep(CALM).await;
    let idle = idle(balancer.pid()?).await?;
    balancer.stop().await?;
    let (out, full) = (out - killed, full - killed);
    Ok(Many { replicas, first, ready, rep, starting, killed: dead, dying, out, full, idle })
}

/// GETs from the first replica on, until all are there.
async fn load_until_full(
    setup: &Setup,
    balancer: &Balancer,
    watch: &Watch,
) -> anyhow::Result<Gets> {
    let has_some = || {
        let looks = watch.looks();
        looks.last().is_some_and(|look| look.names.as_ref().is_some_and(|names| !names.is_empty()))
    };
    while !has_some() {
        ensure!(watch.now() < PATIENCE, "no replica after {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let mut samples = Vec::new();
    loop {
        let seed = setup.seed + samples.len() as u64;
        samples.extend(gets(balancer, seed, PIECE, GENTLE).await?.samples);
        if watch.looks().iter().any(|look| look.is_full()) {
            return Ok(Gets::of(&samples));
        }
        ensure!(watch.now() < PATIENCE, "the fleet is not whole after {PATIENCE:?}");
    }
}

async fn gets(balancer: &Balancer, seed: u64, count: usize, rate: f64) -> anyhow::Result<Run> {
    let plan = LoadPlan {
        pace: Pace::PerSecond(rate),
        ..LoadPlan::get(&balancer.url("/home"), load::request_ids(seed, count))?
    };
    let progress = load::progress_bar("many replicas");
    let run = load::run(plan, &progress).await;
    progress.finish_and_clear();
    Ok(run)
}

/// Kills one in four at once under load. Gives what the load saw, when it was, and how many.
async fn kill_some(
    setup: &Setup,
    balancer: &Balancer,
    watch: &Watch,
    replicas: u32,
) -> anyhow::Result<(Gets, Duration, usize)> {
    let kill = async {
        tokio::time::sleep(BEFORE).await;
        let all = victim::replicas(balancer.pid()?)?;
        ensure!(all.len() == replicas as usize, "{} replicas, not {replicas}", all.len());
        let victims: Vec<u32> = all.into_iter().step_by(KILLED).collect();
        let killed = watch.now();
        victims.iter().try_for_each(|pid| signal(*pid, Signal::KILL))?;
        anyhow::Ok((killed, victims.len()))
    };
    let count = (RATE * LENGTH.as_secs_f64()) as usize;
    let (run, killed) = tokio::join!(gets(balancer, setup.seed, count, RATE), kill);
    let (killed, dead) = killed?;
    Ok((Gets::of(&run?.samples), killed, dead))
}

/// The share of a processor that a process uses while nobody asks it anything.
pub(super) async fn idle(pid: u32) -> anyhow::Result<f64> {
    let before = Usage::of(pid)?.time;
    tokio::time::sleep(IDLE).await;
    let after = Usage::of(pid)?.time;
    Ok(after.saturating_sub(before).as_secs_f64() / IDLE.as_secs_f64())
}

// === impl Gets ===

impl Gets {
    fn of(samples: &[Sample]) -> Self {
        let good = samples.iter().filter(|sample| sample.outcome.is_ok());
        Self {
            sent: samples.len(),
            failed: samples.iter().filter(|sample| sample.outcome.is_err()).count(),
            latency: good.map(Sample::latency).collect::<Latencies>().percentiles(),
        }
    }
}
