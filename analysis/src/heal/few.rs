//! One of three replicas killed under load.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use awc::http::Method;
use rustix::process::Signal;

use crate::chaos::watch::{Look, Watch};
use crate::experiment::{Setup, Variant};
use crate::load::{self, LoadPlan, Pace};
use crate::system::api::Call;
use crate::system::victim::{self, docker, marked};
use crate::system::{Balancer, Runtime, signal};

/// What one death cost. Times count from the kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Healed {
    pub(super) sent: usize,
    pub(super) failed: usize,
    /// Its name was gone.
    pub(super) out: Duration,
    /// The same from the engine's own event on, where there is an engine.
    pub(super) from_event: Option<Duration>,
    /// As many were there as before.
    pub(super) full: Duration,
}

/// One round: the same with and without a spare, and what the engine alone needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Round {
    pub(super) number: usize,
    pub(super) runtime: Runtime,
    pub(super) healed: Healed,
    pub(super) spared: Option<Healed>,
    /// One `docker run -d` until it answers.
    pub(super) bare: Option<Duration>,
}

/// Requests a second.
pub(super) const RATE: f64 = 1_000.0;
const SEATS: u32 = 3;
const VICTIM: u32 = 2;
/// How long the load lasts, and when the blow falls.
const LENGTH: Duration = Duration::from_secs(5);
const BEFORE: Duration = Duration::from_secs(2);
/// Until all is as it was.
const PATIENCE: Duration = Duration::from_secs(60);

/// Measures one death.
///
/// # Errors
/// When the balancer does not start or stop, or no replacement comes.
pub(super) async fn one_of_three(setup: &Setup, spares: u32, seed: u64) -> anyhow::Result<Healed> {
    let mut options = setup.options(Variant::Ring, SEATS);
    if spares > 0 {
        options.arguments.extend(["--spares".to_owned(), spares.to_string()]);
    }
    let balancer = Balancer::start(&options).await?;
    if spares > 0 {
        wait_for_spares(&balancer, spares).await?;
    }
    let (watch, _watching) = Watch::begin(balancer.address(), balancer.pid()?, SEATS as usize);
    ensure!(watch.is_full_within(PATIENCE).await, "three replicas are not ready");
    let pid = victim_pid(&balancer, setup.runtime).await?;

    let count = (RATE * LENGTH.as_secs_f64()) as usize;
    let plan = LoadPlan {
        pace: Pace::PerSecond(RATE),
        ..LoadPlan::get(&balancer.url("/home"), load::request_ids(seed, count))?
    };
    let progress = load::progress_bar("one replica killed");
    let load = {
        let progress = progress.clone();
        tokio::task::spawn_local(async move { load::run(plan, &progress).await })
    };
    tokio::time::sleep(BEFORE).await;
    let (killed, killed_at) = (watch.now(), SystemTime::now());
    match pid {
        Some(pid) => signal(pid, Signal::KILL)?,
        None => victim::kill(&balancer, VICTIM).await?,
    }
    let run = load.await.context("the load ended early")?;
    progress.finish_and_clear();
    ensure!(watch.is_full_within(PATIENCE).await, "no replacement after {PATIENCE:?}");
    let (out, full) = healed(&watch.looks(), killed, 1).context("nobody noticed the death")?;
    let told = match setup.runtime {
        Runtime::Docker => Some(told_of_death(balancer.pool(), killed_at).await?),
        Runtime::Process => None,
    };
    balancer.stop().await?;
    let failed = run.samples.iter().filter(|sample| sample.outcome.is_err()).count();
    let (sent, out, full) = (run.samples.len(), out - killed, full - killed);
    // Seen in `/rep` before the engine's own time of it: it was known otherwise.
    let from_event = told.map(|told| out.saturating_sub(told));
    Ok(Healed { sent, failed, out, from_event, full })
}

/// How long after `killed` the engine tells of the death, by its own clock, which is this
/// machine's.
async fn told_of_death(pool: &str, killed: SystemTime) -> anyhow::Result<Duration> {
    let seconds = |time: SystemTime| {
        let since = time.duration_since(UNIX_EPOCH).context("the clock stands before 1970")?;
        anyhow::Ok(format!("{}.{:09}", since.as_secs(), since.subsec_nanos()))
    };
    let (since, until) = (seconds(killed)?, seconds(SystemTime::now())?);
    let pool = format!("label=balancer.pool={pool}");
    let window = ["events", "--since", &since, "--until", &until, "--filter", &pool];
    let what = ["--filter", "event=die", "--format", "{{.TimeNano}}"];
    let told = docker(&[&window[..], &what].concat()).await?;
    let first: u64 = told.lines().next().context("the engine tells of no death")?.trim().parse()?;
    let at = UNIX_EPOCH + Duration::from_nanos(first);
    at.duration_since(killed).context("the engine told of the death before it")
}

/// The moments after `killed` at which so many names were gone, and at which the fleet was whole
/// without them.
pub(super) fn healed(
    looks: &[Look],
    killed: Duration,
    dead: usize,
) -> Option<(Duration, Duration)> {
    let old = looks.iter().rfind(|look| look.at <= killed)?.names.clone()?;
    let later = || looks.iter().filter(|look| look.at > killed);
    let are_gone = |look: &&Look| old.iter().filter(|name| look.lacks(name)).count() >= dead;
    let out = later().find(are_gone)?.at;
    let full = later().find(|look| look.at >= out && look.is_full())?.at;
    Some((out, full))
}

/// The victim's process, where it can be hit without the engine's command line in between, whose
/// time would be counted for the balancer's.
async fn victim_pid(balancer: &Balancer, runtime: Runtime) -> anyhow::Result<Option<u32>> {
    if runtime == Runtime::Process {
        return Ok(None);
    }
    let pool = format!("label=balancer.pool={}", balancer.pool());
    let seat = format!("label=balancer.seat={VICTIM}");
    let id = docker(&["ps", "--quiet", "--filter", &pool, "--filter", &seat]).await?;
    let pid: u32 = docker(&["inspect", "--format", "{{.State.Pid}}", &id]).await?.parse()?;
    // An engine elsewhere counts its processes for itself.
    let ours = marked("SERVER_ID", &VICTIM.to_string())?;
    Ok(ours.iter().any(|process| process.pid == pid).then_some(pid))
}

/// Waits until the spares are ready; a balancer that does not tell has a while for it.
async fn wait_for_spares(balancer: &Balancer, spares: u32) -> anyhow::Result<()> {
    let begin = std::time::Instant::now();
    loop {
        let answer = balancer.api().call(&Call::new(Method::GET, "/admin/fleet")).await?;
        if answer.status == 404 {
            tokio::time::sleep(Duration::from_secs(5)).await;
            return Ok(());
        }
        let message = answer.envelope()?.message;
        if message["spares"]["ready"].as_u64() >= Some(spares.into()) {
            return Ok(());
        }
        ensure!(begin.elapsed() < PATIENCE, "no {spares} spares after {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

// === impl Round ===

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "round {} {:<8} {}", self.number, self.runtime.name(), self.healed)?;
        if let Some(spared) = self.spared {
            write!(f, "; with a spare {spared}")?;
        }
        if let Some(bare) = self.bare {
            write!(f, "; one docker run {} ms", bare.as_millis())?;
        }
        Ok(())
    }
}

impl fmt::Display for Healed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (out, full) = (self.out.as_millis(), self.full.as_millis());
        write!(f, "out after {out} ms")?;
        if let Some(from_event) = self.from_event {
            write!(f, " ({} ms after the engine's event)", from_event.as_millis())?;
        }
        write!(f, ", full after {full} ms, {} GETs failed", self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(at: u64, names: &[&str]) -> Look {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        Look { at: Duration::from_millis(at), names: Some(names), asked: 3, ready: None }
    }

    #[test]
    fn the_fleet_is_whole_when_another_one_is_there() {
        let looks = [
            look(0, &["S1"]),
            look(50, &["S1", "S2", "S3"]),
            look(110, &["S1", "S3"]),
            look(140, &["S1", "S3", "S9"]),
        ];
        let killed = Duration::from_millis(100);
        let expected = (Duration::from_millis(110), Duration::from_millis(140));
        assert_eq!(healed(&looks, killed, 1), Some(expected));
        assert_eq!(healed(&looks[..3], killed, 1), None);
        assert_eq!(healed(&looks, killed, 2), None);
    }
}
