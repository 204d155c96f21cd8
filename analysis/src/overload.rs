//! `analysis overload`: requests that come in an open loop at 50 to 110 % of what replicas with a
//! slow tail can do, balanced in nine ways: at the real balancer, and in a simulation that decides
//! by the balancer's own code.
//!
//! ```text
//! arm       the ways to balance
//! arrivals  when requests come, with which keys
//! sim       the system simulated: events, queues, the balancer's own decisions
//! study     many simulated runs, side by side on all processors
//! real      the real balancer with real replicas under the same arrivals
//! check     the real runs within what the simulation says of the same arrivals
//! outcome   a run in figures, real or simulated
//! page      the report
//! charts    its charts
//! ```

mod arm;
mod arrivals;
mod charts;
mod check;
mod outcome;
mod page;
mod real;
mod sim;
mod study;

use std::time::{Duration, Instant};

use balancer::fleet::overload::OverloadConfig;

use crate::experiment::{Problems, Setup};
use arm::{Arm, Controller};
use arrivals::Keys;
use outcome::{Outcome, Window};
use page::Page;
use real::Calibration;
use sim::{Service, System, Weak};
use study::Job;

/// What is measured and simulated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Plan {
    /// Of the real runs.
    pub(crate) replicas: u32,
    /// How long the requests of a real run count.
    pub(crate) counted: Duration,
    /// Of the simulated fleet.
    pub(crate) fleet: u32,
    /// Without the real runs.
    pub(crate) sim_only: bool,
}

/// An arm at a load, and what came of it.
#[derive(Clone, Debug)]
struct Point {
    arm: Arm,
    load: f64,
    outcome: Outcome,
}

/// Arms at loads, in one setting.
#[derive(Clone, Debug)]
struct Study {
    /// In the CSV files.
    name: &'static str,
    system: System,
    keys: Keys,
    points: Vec<Point>,
    /// How long it took to simulate them.
    took: Duration,
}

/// The real runs.
#[derive(Clone, Debug)]
struct Real {
    calibration: Calibration,
    study: Study,
    /// How late requests were sent: the slowest of each run.
    late: Vec<Duration>,
    checked: Vec<check::Checked>,
}

/// Requests a second, as shares of what the replicas can do.
const LOADS: [f64; 6] = [0.5, 0.7, 0.8, 0.9, 1.0, 1.1];
/// The load that charts and tables of one load show.
const SHOWN: f64 = 0.9;
/// How long replicas usually work on a request, how many they work on longer, and how many times
/// as long.
const USUAL: Duration = Duration::from_millis(10);
const SLOW_SHARE: f64 = 0.05;
const SLOW_FACTOR: u32 = 20;
/// Requests that wait at a replica at most.
const QUEUE: usize = 500;
/// The controller where a replica works on one request at a time: what it takes for too much is
/// more than half a second of work.
const CONTROLLER: Controller = Controller {
    config: OverloadConfig { min_ready: 2, capacity: 40, max_load: 0.75, resume_load: 0.75 },
    interval: Duration::from_secs(1),
};
/// As it is when nothing is set.
const DEFAULTS: Controller = Controller {
    config: OverloadConfig { min_ready: 2, capacity: 500, max_load: 0.75, resume_load: 0.75 },
    interval: Duration::from_secs(10),
};
/// So long requests come before they count: in the real runs, and where time costs little.
const WARM_UP: Duration = Duration::from_secs(2);
const LONG_WARM_UP: Duration = Duration::from_secs(10);
/// How long they count where time costs little, with many replicas and with few.
const LONG: Duration = Duration::from_secs(20);
const LONGER: Duration = Duration::from_secs(60);
/// Of a fleet with a weak replica, and of one with hot keys.
const WEAK_LOAD: f64 = 0.7;
const ZIPF_LOAD: f64 = 0.7;
/// More replicas than this are not looked at for each request of `least-requests`.
const SCANNED_MAX: u32 = 2_000;

/// Measures, simulates, and writes `overload*`.
///
/// # Errors
/// When the balancer or a file is not as it should be.
pub(crate) async fn run(setup: &Setup, plan: &Plan) -> anyhow::Result<Problems> {
    let real = match plan.sim_only {
        true => None,
        false => Some(measure(setup, plan).await?),
    };
    let service = match &real {
        Some(real) => real.study.system.service,
        None => ideal(),
    };
    let fleet = fleet(plan, service).run(setup.seed).await?;
    let mut cases = Vec::new();
    for case in cases_of(plan, service) {
        cases.push(case.run(setup.seed).await?);
    }
    let page = Page { setup, plan, real: real.as_ref(), fleet: &fleet, cases: &cases };
    page.write()?;
    println!("{}", page.verdict());
    let studies = real.iter().map(|real| &real.study).chain([&fleet]).chain(&cases);
    Ok(studies.flat_map(Study::problems).collect())
}

/// The real runs, all arms at a load one after another, and the simulation of each.
async fn measure(setup: &Setup, plan: &Plan) -> anyhow::Result<Real> {
    let calibration = real::calibrate(setup).await?;
    let system = System {
        service: calibration.service(),
        path: calibration.path,
        window: Window { warm_up: WARM_UP, counted: plan.counted },
        ..small(plan)
    };
    let (mut points, mut late) = (Vec::new(), Vec::new());
    for load in LOADS {
        for arm in Arm::ALL {
            let measured = real::measure(setup, &system, arm, load).await?;
            late.push(measured.late);
            points.push(Point { arm, load, outcome: measured.outcome });
        }
    }
    let study = Study { name: "real", system, keys: Keys::Uniform, points, took: Duration::ZERO };
    let checked = check::check(&study, setup.seed).await?;
    Ok(Real { calibration, study, late, checked })
}

/// The system of the real runs, when nothing but the replicas takes time.
fn small(plan: &Plan) -> System {
    System {
        replicas: plan.replicas,
        workers: 1,
        queue: QUEUE,
        service: ideal(),
        weak: Weak::NONE,
        controller: CONTROLLER,
        path: Duration::ZERO,
        window: Window { warm_up: LONG_WARM_UP, counted: LONGER },
    }
}

/// What the replicas are told.
fn ideal() -> Service {
    Service::Tailed { usual: USUAL, slow: USUAL * SLOW_FACTOR, slow_share: SLOW_SHARE }
}

/// Many replicas.
fn fleet(plan: &Plan, service: Service) -> Study {
    let window = Window { warm_up: LONG_WARM_UP, counted: LONG };
    let system = System { replicas: plan.fleet, service, window, ..small(plan) };
    let arms: Vec<Arm> = Arm::ALL
        .into_iter()
        .filter(|arm| *arm != Arm::LEAST_REQUESTS || plan.fleet <= SCANNED_MAX)
        .collect();
    Study::new("fleet", system, Keys::Uniform, &arms, &LOADS)
}

/// What the real runs leave open.
fn cases_of(plan: &Plan, service: Service) -> [Study; 5] {
    let system = System { service, ..small(plan) };
    let weak = System { weak: Weak { replicas: 1, factor: 3.0 }, ..system.clone() };
    let zipf = Keys::zipf(10_000, 1.0);
    // As much in flight as the default capacity says, once with requests that take so long that a
    // queue hardly grows from one look of the controller to the next, once with short ones.
    let wide = System {
        replicas: 20,
        workers: 16,
        queue: 484,
        controller: DEFAULTS,
        window: Window { warm_up: LONG, counted: 2 * LONG },
        ..system.clone()
    };
    let slow = System {
        service: service.times(10),
        weak: weak.weak,
        window: Window { warm_up: LONGER, counted: 2 * LONGER },
        ..wide.clone()
    };
    let loads = [0.7, 0.8, 0.9, 1.0, 1.1];
    [
        Study::new("long", system.clone(), Keys::Uniform, &Arm::ALL, &LOADS),
        Study::new("weak", weak, Keys::Uniform, &Arm::ALL, &[WEAK_LOAD]),
        Study::new("zipf", system, zipf, &Arm::ALL, &[ZIPF_LOAD]),
        Study::new("defaults-slow", slow, Keys::Uniform, &Arm::ALL, &loads),
        Study::new("defaults-fast", wide, Keys::Uniform, &Arm::ALL, &loads),
    ]
}

// === impl Study ===

impl Study {
    fn new(name: &'static str, system: System, keys: Keys, arms: &[Arm], loads: &[f64]) -> Self {
        let at = |load: &f64| arms.iter().map(|arm| (*arm, *load)).collect::<Vec<_>>();
        let empty = Outcome::empty(system.window);
        let points = loads.iter().flat_map(at);
        let points =
            points.map(|(arm, load)| Point { arm, load, outcome: empty.clone() }).collect();
        Self { name, system, keys, points, took: Duration::ZERO }
    }

    /// Simulates its points, each load with the same arrivals for all arms.
    async fn run(mut self, seed: u64) -> anyhow::Result<Self> {
        let job = |point: &Point| Job {
            system: &self.system,
            keys: &self.keys,
            arm: point.arm,
            load: point.load,
            seed,
            work_seed: seed,
        };
        let begun = Instant::now();
        let outcomes = study::run(self.name, self.points.iter().map(job).collect()).await?;
        for (point, outcome) in self.points.iter_mut().zip(outcomes) {
            point.outcome = outcome;
        }
        self.took = begun.elapsed();
        Ok(self)
    }

    fn arms(&self) -> Vec<Arm> {
        let is_here = |arm: &Arm| self.points.iter().any(|point| point.arm == *arm);
        Arm::ALL.into_iter().filter(is_here).collect()
    }

    fn loads(&self) -> Vec<f64> {
        let mut loads: Vec<f64> = self.points.iter().map(|point| point.load).collect();
        loads.dedup();
        loads
    }

    fn at(&self, arm: Arm, load: f64) -> Option<&Outcome> {
        let found = self.points.iter().find(|point| point.arm == arm && point.load.eq(&load));
        found.map(|point| &point.outcome)
    }

    /// That came, those of the warm-up among them.
    fn requests(&self) -> u64 {
        let end = self.system.window.end().as_secs_f64();
        let loads: f64 = self.points.iter().map(|point| point.load).sum();
        (loads * self.system.capacity() * end).round() as u64
    }

    fn problems(&self) -> Problems {
        let of = |point: &Point| {
            let (load, problems) = (100.0 * point.load, &point.outcome.problems);
            let name = self.name;
            problems.iter().map(move |problem| format!("{name}, {load:.0} %: {problem}")).collect()
        };
        self.points.iter().flat_map(|point| -> Problems { of(point) }).collect()
    }
}

// === impl Plan ===

impl Default for Plan {
    fn default() -> Self {
        Self { replicas: 8, counted: Duration::from_secs(5), fleet: 1_000, sim_only: false }
    }
}

#[cfg(test)]
mod tests;
