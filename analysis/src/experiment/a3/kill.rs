//! A replica killed by SIGKILL under an open-loop load, with `/rep` watched.

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use tokio::task::JoinHandle;

use super::aftermath::Aftermath;
use crate::experiment::{Problems, Setup, Variant};
use crate::load::{self, LoadPlan, Pace, Run};
use crate::system::{Balancer, victim};

/// How the load is, and when the shot falls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shot {
    /// Requests a second.
    pub(crate) rate: f64,
    /// How long they come.
    pub(crate) length: Duration,
}

/// The moments of a kill, from the start of the load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Moments {
    /// SIGKILL was sent.
    pub(super) killed: Duration,
    /// The dead name was gone from `/rep`.
    pub(super) detected: Duration,
    /// A new name was in `/rep`.
    pub(super) replaced: Duration,
}

/// `/rep` at one moment.
#[derive(Clone, Debug)]
struct Look {
    at: Instant,
    names: Vec<String>,
}

/// Seats, and the one that is killed.
const SEATS: u32 = 3;
pub(super) const VICTIM: u32 = 2;
/// How often `/rep` is asked.
pub(super) const POLL: Duration = Duration::from_millis(5);

/// Measures and writes the files.
///
/// # Errors
/// When the balancer or a file is not as it should be, or no replacement ever comes.
pub(super) async fn run(setup: &Setup, shot: &Shot) -> anyhow::Result<Problems> {
    let balancer = Rc::new(Balancer::start(&setup.options(Variant::Ring, SEATS)).await?);
    let result = shoot(setup, shot, &balancer).await;
    let balancer = Rc::into_inner(balancer).context("the poller holds on to the balancer")?;
    let (run, ids, moments) = result?;
    balancer.stop().await?;
    Aftermath { setup, shot, run, owners: owners(&ids)?, moments }.report()
}

/// Loads the balancer, kills the victim after three eighths of the time, and watches `/rep`.
async fn shoot(
    setup: &Setup,
    shot: &Shot,
    balancer: &Rc<Balancer>,
) -> anyhow::Result<(Run, Vec<u32>, Moments)> {
    let old = balancer.api().replicas().await?;
    let count = (shot.rate * shot.length.as_secs_f64()).round() as usize;
    let ids = load::request_ids(setup.seed, count);
    let mut plan = LoadPlan::get(&balancer.url("/home"), ids.clone())?;
    plan.pace = Pace::PerSecond(shot.rate);
    let progress = load::progress_bar("one replica killed");
    let load = {
        let progress = progress.clone();
        tokio::task::spawn_local(async move { load::run(plan, &progress).await })
    };
    let watch = watch(Rc::clone(balancer), old.clone());

    tokio::time::sleep(shot.length.mul_f64(0.375)).await;
    let shot = async {
        let killed = Instant::now();
        victim::kill(balancer, VICTIM).await?;
        anyhow::Ok(killed)
    };
    let killed = shot.await;
    let run = load.await.context("the load ended early")?;
    progress.finish_and_clear();
    watch.abort();
    // An aborted task is gone only when it was waited for.
    let seen = watch.await;
    let killed = killed?;
    let looks = match seen {
        Ok(looks) => looks?,
        Err(_) => return Err(anyhow!("no replacement came while the load ran")),
    };
    let since = |at: Instant| at.saturating_duration_since(run.start);
    let (detected, replaced) = transitions(&old, &looks)?;
    let moments =
        Moments { killed: since(killed), detected: since(detected), replaced: since(replaced) };
    Ok((run, ids, moments))
}

/// Asks `/rep` until a new name is in it. Gives the looks at which something was new.
fn watch(balancer: Rc<Balancer>, old: Vec<String>) -> JoinHandle<anyhow::Result<Vec<Look>>> {
    tokio::task::spawn_local(async move {
        let mut looks: Vec<Look> = Vec::new();
        let mut ticks = tokio::time::interval(POLL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let names = balancer.api().replicas().await?;
            let at = Instant::now();
            let is_new = looks.last().is_none_or(|last| last.names != names);
            let has_replacement = names.iter().any(|name| !old.contains(name));
            if is_new {
                looks.push(Look { at, names });
            }
            if has_replacement {
                return Ok(looks);
            }
        }
    })
}

/// When an old name was gone first, and when a new one was there first.
fn transitions(old: &[String], looks: &[Look]) -> anyhow::Result<(Instant, Instant)> {
    let gone = |look: &&Look| old.iter().any(|name| !look.names.contains(name));
    let new = |look: &&Look| look.names.iter().any(|name| !old.contains(name));
    let detected = looks.iter().find(gone).context("no name ever left /rep")?;
    let replaced = looks.iter().find(new).context("no new name ever came into /rep")?;
    Ok((detected.at, replaced.at))
}

/// The seat that owns each id.
fn owners(ids: &[u32]) -> anyhow::Result<Vec<u32>> {
    let placement = Variant::Ring.placement(SEATS)?;
    let owner = |id: &u32| placement.owners(id.to_string().as_bytes()).next();
    // Members are indexed from 0 in the order of their seats, which count from 1.
    ids.iter().map(|id| Ok(owner(id).context("the placement is empty")? as u32 + 1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(start: Instant, milliseconds: u64, names: &[&str]) -> Look {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        Look { at: start + Duration::from_millis(milliseconds), names }
    }

    #[test]
    fn detection_is_when_the_name_goes_and_replacement_when_a_new_one_comes() {
        let start = Instant::now();
        let old = look(start, 0, &["S1", "S2"]).names;
        let looks = [
            look(start, 0, &["S1", "S2"]),
            look(start, 10, &["S1"]),
            look(start, 40, &["S1", "S77"]),
        ];
        let (detected, replaced) = transitions(&old, &looks).unwrap();
        assert_eq!((detected, replaced), (looks[1].at, looks[2].at));
        assert!(transitions(&old, &looks[..2]).is_err());
        assert!(transitions(&old, &looks[..1]).is_err());
    }

    #[test]
    fn a_death_that_is_replaced_between_two_looks_has_both_at_once() {
        let start = Instant::now();
        let old = look(start, 0, &["S1", "S2"]).names;
        let looks = [look(start, 0, &["S1", "S2"]), look(start, 5, &["S1", "S77"])];
        assert_eq!(transitions(&old, &looks).unwrap(), (looks[1].at, looks[1].at));
    }
}
