//! The real balancer with real replicas, under the arrivals that the simulation has, too.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use awc::http::Method;
use balancer::fleet::seat::Seat;
use balancer::routing::placement::Placement;
use serde::Deserialize;

use super::arm::Arm;
use super::arrivals::{Arrival, Keys};
use super::outcome::{EVERY, Look, Outcome};
use super::sim::{Service, System};
use super::{QUEUE, SLOW_FACTOR, SLOW_SHARE, USUAL, study};
use crate::experiment::{Problems, Setup, Variant};
use crate::load::summary::Summary;
use crate::load::{self, Failure, LoadPlan, Pace, Run, Sample};
use crate::stats::Latencies;
use crate::system::api::{Api, Call};
use crate::system::{Balancer, Options, Runtime};

/// How long things take on this machine, whose timers tick in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Calibration {
    /// A replica's work on a usual request, from one to the next.
    pub(super) usual: Duration,
    /// On a slow one.
    pub(super) slow: Duration,
    /// What a request takes outside of the replicas.
    pub(super) path: Duration,
}

/// A real run.
#[derive(Clone, Debug)]
pub(super) struct Measured {
    pub(super) outcome: Outcome,
    /// How much after its moment the latest request was sent.
    pub(super) late: Duration,
}

/// A look, and when it was.
type Seen = (Instant, Vec<usize>, usize);

/// The part of `/admin/fleet` that is looked at.
#[derive(Deserialize)]
struct Fleet {
    replicas: Vec<Status>,
}

#[derive(Deserialize)]
struct Status {
    in_flight: usize,
    enabled: bool,
}

/// So many may be in flight: more than all queues together are long, or the loop were closed.
const CONNECTIONS: usize = 8_192;
/// Requests of the calibration: usual ones and slow ones as fast as they go, and usual ones one by
/// one.
const USUAL_ONES: usize = 200;
const SLOW_ONES: usize = 15;
const LONE_ONES: usize = 100;

/// Measures how long one replica really works, and what comes on top.
///
/// # Errors
/// When the balancer does not start or stop, or requests fail.
pub(super) async fn calibrate(setup: &Setup) -> anyhow::Result<Calibration> {
    let usual = one_replica(setup, USUAL).await?;
    let (busy, lone) = (
        each(setup, &usual, USUAL_ONES).await?,
        run(&usual, ids(setup, LONE_ONES), lone_ones()).await?,
    );
    usual.stop().await?;
    let slow = one_replica(setup, USUAL * SLOW_FACTOR).await?;
    let slow_one = each(setup, &slow, SLOW_ONES).await?;
    slow.stop().await?;
    let path = Summary::of(&lone).latency.p50.saturating_sub(busy);
    Ok(Calibration { usual: busy, slow: slow_one, path })
}

/// A balancer with a replica that takes the same time for all.
async fn one_replica(setup: &Setup, time: Duration) -> anyhow::Result<Balancer> {
    Balancer::start(&options(setup, 1, time, 0.0, Vec::new())).await
}

/// How long each of so many takes when the next one waits already.
async fn each(setup: &Setup, balancer: &Balancer, count: usize) -> anyhow::Result<Duration> {
    let run = run(balancer, ids(setup, count), Pace::InFlight(4)).await?;
    Ok(run.wall / u32::try_from(count)?)
}

/// One after another, at moments that fall on no tick.
fn lone_ones() -> Pace {
    let gap = 3 * USUAL + USUAL / 7;
    Pace::At((1..).take(LONE_ONES).map(|number| number * gap).collect())
}

fn ids(setup: &Setup, count: usize) -> Vec<u32> {
    load::request_ids(setup.seed, count)
}

/// Sends requests, all of which must be answered.
async fn run(balancer: &Balancer, ids: Vec<u32>, pace: Pace) -> anyhow::Result<Run> {
    let plan = LoadPlan { pace, ..LoadPlan::get(&balancer.url("/home"), ids)? };
    let progress = load::progress_bar("calibration");
    let run = load::run(plan, &progress).await;
    progress.finish_and_clear();
    let summary = Summary::of(&run);
    ensure!(summary.failed() == 0, "the calibration failed: {}", summary.failures_in_words());
    Ok(run)
}

fn options(
    setup: &Setup,
    replicas: u32,
    latency: Duration,
    slow_share: f64,
    more: Vec<String>,
) -> Options {
    let mut options =
        Options { runtime: Runtime::Process, ..setup.options(Variant::Ring, replicas) };
    let environment = [
        format!("SERVER_LATENCY={}ms", latency.as_millis()),
        format!("SERVER_SLOW_SHARE={slow_share}"),
        format!("SERVER_SLOW_FACTOR={SLOW_FACTOR}"),
        "SERVER_CONCURRENCY=1".to_owned(),
        format!("SERVER_QUEUE={QUEUE}"),
        "SERVER_WORKERS=1".to_owned(),
    ];
    // One worker: two could let two requests in where there is room for one.
    let words = ["--workers", "1", "--outliers-consecutive", "0"].map(str::to_owned);
    options.arguments.extend(words);
    options.arguments.extend(environment.into_iter().flat_map(|it| ["--env".to_owned(), it]));
    options.arguments.extend(more);
    options
}

/// Runs an arm at a load.
///
/// # Errors
/// When the balancer does not start or stop, or does not tell of its replicas. Failed requests are
/// no error here: they are part of what was measured.
pub(super) async fn measure(
    setup: &Setup,
    system: &System,
    arm: Arm,
    load: f64,
) -> anyhow::Result<Measured> {
    let more = arm.arguments(&system.controller);
    let options = options(setup, system.replicas, USUAL, SLOW_SHARE, more);
    let balancer = Balancer::start(&options).await?;
    let arrivals: Vec<Arrival> =
        study::arrivals(system, &Keys::Uniform, load, setup.seed).collect();
    let moments: Arc<[Duration]> = arrivals.iter().map(|arrival| arrival.at).collect();
    let plan = LoadPlan {
        pace: Pace::At(moments),
        connections: CONNECTIONS,
        ..LoadPlan::get(
            &balancer.url("/home"),
            arrivals.iter().map(|arrival| arrival.id).collect(),
        )?
    };
    let progress = load::progress_bar(&format!("{:<24} {:.0} %", arm.name(), 100.0 * load));
    let seen = RefCell::new(Vec::new());
    let run = tokio::select! {
        run = load::run(plan, &progress) => run,
        error = watch(balancer.api(), &seen) => return Err(error),
    };
    progress.finish_and_clear();
    balancer.stop().await?;
    let placement = Variant::Ring.placement(system.replicas)?;
    let real = Observed { system, arm, arrivals: &arrivals, run: &run, placement: &placement };
    Ok(real.measured(&seen.into_inner()))
}

/// Looks at the replicas every [`EVERY`], until it cannot.
async fn watch(api: &Api, seen: &RefCell<Vec<Seen>>) -> anyhow::Error {
    let mut ticks = tokio::time::interval(EVERY);
    loop {
        ticks.tick().await;
        match look(api).await {
            Ok(look) => seen.borrow_mut().push(look),
            Err(error) => return error,
        }
    }
}

async fn look(api: &Api) -> anyhow::Result<Seen> {
    let at = Instant::now();
    let answer = api.call(&Call::new(Method::GET, "/admin/fleet")).await?;
    let fleet: Fleet = serde_json::from_value(answer.envelope()?.message)
        .context("GET /admin/fleet tells of no replicas")?;
    let enabled = fleet.replicas.iter().filter(|replica| replica.enabled).count();
    let in_flight = fleet.replicas.iter().map(|replica| replica.in_flight).collect();
    Ok((at, in_flight, enabled))
}

/// What was seen of a run.
struct Observed<'a> {
    system: &'a System,
    arm: Arm,
    arrivals: &'a [Arrival],
    run: &'a Run,
    placement: &'a Placement,
}

// === impl Calibration ===

impl Calibration {
    /// How long replicas really work.
    pub(super) fn service(&self) -> Service {
        Service::Tailed { usual: self.usual, slow: self.slow, slow_share: SLOW_SHARE }
    }
}

// === impl Observed ===

impl Observed<'_> {
    fn measured(&self, seen: &[Seen]) -> Measured {
        let window = self.system.window;
        let counted = || self.counted().map(|(_, sample)| sample);
        let good = || counted().filter(|sample| sample.outcome.is_ok());
        let all = &self.run.samples;
        let answered =
            all.iter().filter(|it| it.outcome.is_ok() && window.holds(it.done)).count() as f64;
        let looks = self.looks(seen);
        let late = all.iter().map(|sample| sample.sent.saturating_sub(sample.launched)).max();
        let outcome = Outcome {
            requests: counted().count() as u64,
            failed: counted().filter(|sample| sample.outcome.is_err()).count() as u64,
            moved: self.counted().filter(|(arrival, it)| self.is_moved(arrival, it)).count() as u64,
            latency: good().map(Sample::latency).collect::<Latencies>().percentiles(),
            throughput: answered / window.counted.as_secs_f64(),
            problems: self.problems(&looks),
            looks,
            window,
        };
        Measured { outcome, late: late.unwrap_or_default() }
    }

    fn counted(&self) -> impl Iterator<Item = (&Arrival, &Sample)> {
        let pairs = self.arrivals.iter().zip(&self.run.samples);
        pairs.filter(|(arrival, _)| self.system.window.holds(arrival.at))
    }

    /// Whether another replica than the key's first owner answered.
    fn is_moved(&self, arrival: &Arrival, sample: &Sample) -> bool {
        let Ok(Some(seat)) = sample.outcome else { return false };
        let owner = self.placement.owners(arrival.id.to_string().as_bytes()).next();
        let owner = owner.and_then(|owner| self.placement.members()[owner].id.seat());
        owner.map(Seat::get) != Some(seat)
    }

    fn looks(&self, seen: &[Seen]) -> Vec<Look> {
        let look = |(at, in_flight, enabled): &Seen| {
            let at = at.checked_duration_since(self.run.start)?;
            let is_within = at < self.system.window.end();
            is_within.then(|| Look::of(at, in_flight, self.system.workers, *enabled))
        };
        seen.iter().filter_map(look).collect()
    }

    /// What cannot be chance.
    fn problems(&self, looks: &[Look]) -> Problems {
        let mut problems = Problems::new();
        let mut note = |what: String| problems.push(format!("{}: {what}", self.arm.name()));
        let samples = &self.run.samples;
        if samples.len() != self.arrivals.len() {
            note(format!("{} of {} requests were sent", samples.len(), self.arrivals.len()));
        }
        let strange = samples.iter().filter_map(|sample| sample.outcome.as_ref().err());
        let strange: Vec<&Failure> =
            strange.filter(|failure| **failure != Failure::Status(503)).collect();
        if let Some(first) = strange.first() {
            note(format!("{} requests failed, not only for full queues: {first}", strange.len()));
        }
        let nobody = samples.iter().filter(|sample| sample.outcome == Ok(None)).count();
        if nobody > 0 {
            note(format!("{nobody} answers name no replica"));
        }
        let most = most_at_once(samples);
        if most >= CONNECTIONS {
            note(format!("{most} in flight: connections were waited for, the loop was closed"));
        }
        let replicas = self.system.replicas as usize;
        let minimum = match self.arm.controlled {
            true => self.system.controller.config.min_ready.min(replicas),
            false => replicas,
        };
        let enabled = looks.iter().map(|look| look.enabled).min();
        if enabled.is_some_and(|enabled| enabled < minimum) {
            note(format!("{enabled:?} replicas were enabled, fewer than {minimum}"));
        }
        // Whatever was in flight when a request entered, it was no more than the most.
        let bound = |factor: f64| (factor * (most as f64 + 1.0) / minimum as f64).ceil();
        let longest = looks.iter().map(|look| look.longest).max().unwrap_or_default();
        if self.arm.bound.is_some_and(|factor| longest as f64 > bound(factor)) {
            note(format!("{longest} were in flight at one replica, {most} in all"));
        }
        if looks.is_empty() {
            note("nobody looked at the replicas".to_owned());
        }
        problems
    }
}

/// The most requests that were under way at once, as their client saw it.
fn most_at_once(samples: &[Sample]) -> usize {
    let begins = samples.iter().map(|sample| (sample.launched, 1_i64));
    let ends = samples.iter().map(|sample| (sample.done, -1_i64));
    let mut changes: Vec<(Duration, i64)> = begins.chain(ends).collect();
    changes.sort_unstable();
    let inside = changes.iter().scan(0_i64, |inside, (_, change)| {
        *inside += change;
        Some(*inside)
    });
    usize::try_from(inside.max().unwrap_or_default()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use balancer::fleet::overload::OverloadConfig;

    use super::super::arm::Controller;
    use super::super::outcome::Window;
    use super::super::sim::Weak;
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn system() -> System {
        let config = OverloadConfig { min_ready: 2, capacity: 9, max_load: 1.0, resume_load: 1.0 };
        System {
            replicas: 4,
            workers: 1,
            queue: 9,
            service: Service::Tailed { usual: SECOND, slow: SECOND, slow_share: 0.0 },
            weak: Weak::NONE,
            controller: Controller { config, interval: SECOND },
            path: Duration::ZERO,
            window: Window { warm_up: SECOND, counted: 2 * SECOND },
        }
    }

    fn sample(second: u32, outcome: Result<Option<u32>, Failure>) -> Sample {
        let (launched, done) = (second * SECOND, second * SECOND + SECOND / 2);
        Sample { launched, sent: launched + SECOND / 100, done, outcome }
    }

    /// A request a second; the last of them does not count.
    fn measured(
        arm: Arm,
        outcomes: [Result<Option<u32>, Failure>; 4],
        look: (&[usize], usize),
    ) -> Measured {
        let (system, start) = (system(), Instant::now());
        let placement = Variant::Ring.placement(4).unwrap();
        let arrivals = [0, 1, 2, 3].map(|second| Arrival { at: second * SECOND, id: 100_000 });
        let samples: Vec<Sample> =
            (0..).zip(outcomes).map(|(second, outcome)| sample(second, outcome)).collect();
        let run = Run { wall: 4 * SECOND, samples, start };
        let seen = [(start + SECOND, look.0.to_vec(), look.1)];
        let real = Observed {
            system: &system,
            arm,
            arrivals: &arrivals,
            run: &run,
            placement: &placement,
        };
        real.measured(&seen)
    }

    #[test]
    fn only_what_comes_within_the_window_counts() {
        let owner = Variant::Ring.placement(4).unwrap().owners(b"100000").next().unwrap();
        let (owner, other) = (Some(owner as u32 + 1), Some((owner as u32 + 1) % 4 + 1));
        let refused = Err(Failure::Status(503));
        let Measured { outcome, late } =
            measured(Arm::HASH, [Ok(other), Ok(other), refused, Ok(owner)], (&[1, 2, 0, 0], 4));
        assert_eq!((outcome.requests, outcome.failed, outcome.moved), (2, 1, 1));
        assert_eq!((outcome.longest(), outcome.stranded()), (2, 0.5));
        assert_eq!((outcome.throughput, late), (0.5, SECOND / 100));
        assert_eq!(outcome.problems, Problems::new());
    }

    #[test]
    fn what_cannot_be_chance_is_a_problem() {
        let fine = || [Ok(Some(1)), Ok(Some(1)), Ok(Some(1)), Ok(Some(1))];
        let controlled = Arm::HASH.with_controller();
        for (arm, outcomes, look, expected) in [
            (Arm::HASH, fine(), (&[1][..], 3), "fewer than 4"),
            (controlled, fine(), (&[1][..], 1), "fewer than 2"),
            (Arm::TIGHT, fine(), (&[2][..], 4), "2 were in flight at one replica, 1 in all"),
            (
                Arm::HASH,
                [Ok(Some(1)), Err(Failure::Timeout), Ok(Some(1)), Ok(Some(1))],
                (&[1][..], 4),
                "1 requests failed, not only for full queues: timeout",
            ),
            (Arm::HASH, [Ok(None), Ok(None), Ok(None), Ok(None)], (&[1][..], 4), "name no replica"),
        ] {
            let problems = measured(arm, outcomes, look).outcome.problems;
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert!(problems[0].contains(expected), "{problems:?}");
        }
        assert!(measured(controlled, fine(), (&[1], 2)).outcome.problems.is_empty());
    }

    #[test]
    fn those_that_overlap_are_under_way_at_once() {
        let mut samples = vec![sample(0, Ok(None)), sample(1, Ok(None)), sample(1, Ok(None))];
        assert_eq!((most_at_once(&samples), most_at_once(&[])), (2, 0));
        samples[0].done = 3 * SECOND;
        assert_eq!(most_at_once(&samples), 3);
    }
}
