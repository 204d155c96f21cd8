//! What `analysis overload` leaves in the report folder.

use std::time::Duration;

use serde::Serialize;

use super::check::{Checked, ENOUGH, MARGIN, RUNS, TICK, agreement};
use super::outcome::{Look, Outcome};
use super::sim::System;
use super::{
    Plan, Real, SCANNED_MAX, SHOWN, SLOW_FACTOR, SLOW_SHARE, Study, USUAL, WEAK_LOAD, ZIPF_LOAD,
    charts,
};
use crate::chart;
use crate::experiment::{Problems, Setup};
use crate::report::{Table, thousands};

/// All that was measured and simulated.
pub(super) struct Page<'a> {
    pub(super) setup: &'a Setup,
    pub(super) plan: &'a Plan,
    pub(super) real: Option<&'a Real>,
    pub(super) fleet: &'a Study,
    pub(super) cases: &'a [Study],
}

/// A line of `overload.csv`.
#[derive(Serialize)]
struct Row {
    study: &'static str,
    replicas: u32,
    workers: u32,
    arm: String,
    load: f64,
    rate: f64,
    requests: u64,
    refused: u64,
    p50_ms: f64,
    p90_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    max_ms: f64,
    answers_per_second: f64,
    longest_queue: usize,
    idle_while_others_queue: f64,
    keys_moved: f64,
    fewest_enabled: usize,
}

/// A line of `overload-queues.csv`: what the chart shows.
#[derive(Serialize)]
struct LookRow {
    study: &'static str,
    arm: String,
    load: f64,
    seconds: f64,
    longest_queue: usize,
    idle_while_others_queue: f64,
    enabled: usize,
}

/// A line of `overload-check.csv`.
#[derive(Serialize)]
struct CheckRow {
    arm: String,
    load: f64,
    figure: &'static str,
    real: f64,
    simulated_least: f64,
    simulated_median: f64,
    simulated_most: f64,
    agrees: bool,
}

// === impl Page ===

impl Page<'_> {
    /// Writes files, charts and the section.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(super) fn write(&self) -> anyhow::Result<()> {
        let report = &self.setup.report;
        let rows: Vec<Row> = self.studies().flat_map(rows).collect();
        report.csv("overload.csv", &rows)?;
        let looks: Vec<LookRow> = self.charted().flat_map(look_rows).collect();
        report.csv("overload-queues.csv", &looks)?;
        if let Some(real) = self.real {
            let checks: Vec<CheckRow> = real.checked.iter().map(check_row).collect();
            report.csv("overload-check.csv", &checks)?;
        }
        let charted: Vec<&Study> = self.charted().collect();
        chart::save(&charts::latency_figure(&charted), &report.path("overload-latency"))?;
        chart::save(&charts::queues_figure(&charted), &report.path("overload-queues"))?;
        report.section("overload", &self.text())
    }

    /// Whether reality is as simulated, in a sentence.
    pub(super) fn verdict(&self) -> String {
        let Some(real) = self.real else { return "Nothing real was measured.".to_owned() };
        let (agree, all) = (agreement(&real.checked), real.checked.len());
        let count = (agree * all as f64).round();
        let verdict = if agree >= ENOUGH { "agree" } else { "do not agree" };
        format!(
            "Simulation and reality {verdict}: {count:.0} of {all} figures are within the \
             tolerance, and {:.0} % must be.",
            100.0 * ENOUGH
        )
    }

    fn studies(&self) -> impl Iterator<Item = &Study> {
        self.real.iter().map(|real| &real.study).chain([self.fleet]).chain(self.cases)
    }

    /// On the charts: the small fleet, real where it is, beside the large one.
    fn charted(&self) -> impl Iterator<Item = &Study> {
        let small = self.real.map(|real| &real.study).or_else(|| self.case("long"));
        small.into_iter().chain([self.fleet])
    }

    fn case(&self, name: &str) -> Option<&Study> {
        self.cases.iter().find(|case| case.name == name)
    }

    fn text(&self) -> String {
        let mut parts = Vec::new();
        parts.extend(self.real.map(real_text));
        parts.extend(self.real.map(|real| self.check_text(real)));
        parts.extend(self.case("long").map(long_text));
        parts.push(self.fleet_text());
        parts.extend(self.case("weak").map(weak_text));
        parts.extend(self.case("zipf").map(zipf_text));
        let defaults = self.case("defaults-slow").zip(self.case("defaults-fast"));
        parts.extend(defaults.map(|(slow, fast)| defaults_text(slow, fast)));
        parts.push(self.problems_text());
        parts.push(self.made());
        parts.join("\n\n")
    }

    fn check_text(&self, real: &Real) -> String {
        let mut table = Table::new(&[
            "",
            ">load",
            "figure",
            ">real",
            ">simulated: median",
            ">least–most",
            "agrees",
        ]);
        let is_shown = |it: &&Checked| it.load.eq(&SHOWN) || !it.agrees();
        for it in real.checked.iter().filter(is_shown) {
            table.row([
                it.arm.name(),
                percent(it.load),
                it.figure.name().to_owned(),
                number(it.real),
                number(it.median),
                format!("{}–{}", number(it.least), number(it.most)),
                if it.agrees() { "yes" } else { "**no**" }.to_owned(),
            ]);
        }
        let late = real.late.iter().max().copied().unwrap_or_default();
        format!(
            "#### The simulation beside them\n\n**{}** Each real run beside {RUNS} simulated ones \
             of the same length with the very same arrivals, in which it is drawn anew which \
             requests are slow. A real figure agrees when it lies between the smallest and the \
             largest of them, or at most {:.0} % and {TICK} (ms, or request) beyond: were it one \
             more simulated run, chance alone would put 2 in 100 outside. The table has those at \
             {}, and all that do not agree; `overload-check.csv` has all. The latest request of \
             all runs was sent {} ms after its moment, from which its latency counts.\n\n{}",
            self.verdict(),
            100.0 * MARGIN,
            percent(SHOWN),
            ms(late),
            table.markdown().trim()
        )
    }

    fn fleet_text(&self) -> String {
        let left_out = match self.plan.fleet > SCANNED_MAX {
            true => " Least requests is left out: it looks at all of them for every request.",
            false => "",
        };
        format!(
            "#### {} replicas, simulated\n\n{}{left_out} {} million requests in {:.0} s. p99 in \
             ms, and below all figures at {}:\n\n{}\n{}",
            thousands(u64::from(self.fleet.system.replicas)),
            window_text(&self.fleet.system),
            thousands(self.fleet.requests() / 1_000_000),
            self.fleet.took.as_secs_f64(),
            percent(SHOWN),
            by_load(self.fleet),
            at_load(self.fleet, SHOWN).trim()
        )
    }

    fn problems_text(&self) -> String {
        let problems: Problems = self.studies().flat_map(Study::problems).collect();
        if problems.is_empty() {
            return "In every run, real and simulated, what came was answered or refused, no \
                    replica took a request beyond its bound, and the controller left the minimum."
                .to_owned();
        }
        problems.iter().map(|problem| format!("- **{problem}**")).collect::<Vec<_>>().join("\n")
    }

    fn made(&self) -> String {
        let plan = self.plan;
        let sim_only = if plan.sim_only { " --sim-only" } else { "" };
        format!(
            "{} Seed {}. Balancer, replicas and load share the machine.\n\n\
             ```sh\nanalysis overload --replicas {} --seconds {} --fleet {}{sim_only} --seed {} --out report\n```",
            self.setup.machine(),
            self.setup.seed,
            plan.replicas,
            plan.counted.as_secs(),
            plan.fleet,
            self.setup.seed
        )
    }
}

fn real_text(real: &Real) -> String {
    let system = &real.study.system;
    let calibration = real.calibration;
    format!(
        "#### {} real replicas\n\nEach works on one request at a time, {} ms long, {} % of them \
         {SLOW_FACTOR} times as long, and has {} wait at most (the next is refused with 503). \
         Requests come in an open loop (Poisson, the same for all at one load), each with a \
         random key; latency counts from the moment at which one was due. Timers tick in \
         milliseconds, so that the replicas' real time was measured before: {} and {} ms, and \
         {} ms for the way to a replica and back. 100 % are therefore {:.0} requests a second. \
         {} The controller: {}.\n\np99 in ms, and the share that was refused, if any:\n\n{}\n\
         At {}: latencies in ms; *longest queue*: the most in flight at one replica, seen every \
         100 ms; *idle*: the share of the replicas' time in which one had nothing to do while a \
         request waited at another; *moved*: requests that were not answered by their key's first \
         owner.\n\n{}\nAt {}:\n\n{}",
        system.replicas,
        USUAL.as_millis(),
        100.0 * SLOW_SHARE,
        system.queue,
        ms(calibration.usual),
        ms(calibration.slow),
        ms(calibration.path),
        system.capacity(),
        window_text(system),
        system.controller.words(),
        by_load(&real.study),
        percent(SHOWN),
        at_load(&real.study, SHOWN),
        percent(1.1),
        at_load(&real.study, 1.1).trim()
    )
}

fn long_text(study: &Study) -> String {
    format!(
        "#### The same for a minute, simulated\n\n{} p99 in ms, and below all figures at {}:\n\n{}\n{}",
        window_text(&study.system),
        percent(SHOWN),
        by_load(study),
        at_load(study, SHOWN).trim()
    )
}

fn weak_text(study: &Study) -> String {
    let system = &study.system;
    format!(
        "#### One that takes {} times as long, simulated\n\nOne of {} replicas is weak; {} of \
         what they can do together, {:.0} requests a second. {}\n\n{}",
        system.weak.factor,
        system.replicas,
        percent(WEAK_LOAD),
        WEAK_LOAD * system.capacity(),
        window_text(system),
        at_load(study, WEAK_LOAD).trim()
    )
}

fn zipf_text(study: &Study) -> String {
    format!(
        "#### Hot keys, simulated\n\n{} replicas at {}, 10,000 keys by Zipf's law (exponent 1): \
         the hottest has {:.1} % of the requests, where a replica's share is {:.1} %. {}\n\n{}",
        study.system.replicas,
        percent(ZIPF_LOAD),
        100.0 * study.keys.hottest(),
        100.0 / f64::from(study.system.replicas),
        window_text(&study.system),
        at_load(study, ZIPF_LOAD).trim()
    )
}

/// The defaults where they fit, and where they do not.
fn defaults_text(slow: &Study, fast: &Study) -> String {
    let system = &slow.system;
    let work = |study: &Study| {
        let System { workers, service, controller, .. } = study.system;
        let each = service.mean().as_secs_f64() / f64::from(workers);
        let queued = controller.config.max_load * f64::from(controller.config.capacity);
        format!(
            "{:.0} a second at a replica, which takes {:.1} s to do what makes it overloaded",
            each.recip(),
            queued * each
        )
    };
    format!(
        "#### The controller with its defaults, simulated\n\n{} replicas, each of which works on \
         {} requests at once: {}. First with requests that take ten times as long as above ({}), \
         and one replica that takes {} times as long as the others. {} p99 in ms, and below all \
         figures at {}:\n\n{}\n{}\nThen with requests as short as above ({}), all replicas \
         alike. {} p99 in ms:\n\n{}",
        system.replicas,
        system.workers,
        system.controller.words(),
        work(slow),
        system.weak.factor,
        window_text(system),
        percent(SHOWN),
        by_load(slow),
        at_load(slow, SHOWN),
        work(fast),
        window_text(&fast.system),
        by_load(fast).trim()
    )
}

fn window_text(system: &System) -> String {
    let window = system.window;
    format!(
        "Runs of {} s after a warm-up of {} s.",
        window.counted.as_secs(),
        window.warm_up.as_secs()
    )
}

/// p99 of each arm at each load.
fn by_load(study: &Study) -> String {
    let loads = study.loads();
    let heads: Vec<String> = loads.iter().map(|load| format!(">{}", percent(*load))).collect();
    let heads: Vec<&str> = [""].into_iter().chain(heads.iter().map(String::as_str)).collect();
    let mut table = Table::new(&heads);
    for arm in study.arms() {
        let cell = |load: &f64| study.at(arm, *load).map_or_else(String::new, with_refused);
        let cells = [arm.name()].into_iter().chain(loads.iter().map(cell));
        table.row(cells);
    }
    table.markdown()
}

fn with_refused(outcome: &Outcome) -> String {
    let p99 = ms(outcome.latency.p99);
    match outcome.failed {
        0 => p99,
        _ => format!("{p99} ({} refused)", fine_percent(outcome.failed_share())),
    }
}

/// All figures of each arm at one load.
fn at_load(study: &Study, load: f64) -> String {
    let mut table = Table::new(&[
        "",
        ">p50",
        ">p99",
        ">p99.9",
        ">answers/s",
        ">longest queue",
        ">idle",
        ">moved",
        ">refused",
    ]);
    for arm in study.arms() {
        let Some(outcome) = study.at(arm, load) else { continue };
        let latency = outcome.latency;
        table.row([
            arm.name(),
            ms(latency.p50),
            ms(latency.p99),
            ms(latency.p999),
            number(outcome.throughput),
            thousands(outcome.longest() as u64),
            fine_percent(outcome.stranded()),
            fine_percent(outcome.moved_share()),
            fine_percent(outcome.failed_share()),
        ]);
    }
    table.markdown()
}

fn rows(study: &Study) -> impl Iterator<Item = Row> {
    let system = &study.system;
    study.points.iter().map(|point| {
        let outcome = &point.outcome;
        let [p50_ms, p90_ms, p99_ms, p999_ms, max_ms] = outcome.latency.columns().map(exact_ms);
        Row {
            study: study.name,
            replicas: system.replicas,
            workers: system.workers,
            arm: point.arm.name(),
            load: point.load,
            rate: rounded(point.load * system.capacity()),
            requests: outcome.requests,
            refused: outcome.failed,
            p50_ms,
            p90_ms,
            p99_ms,
            p999_ms,
            max_ms,
            answers_per_second: rounded(outcome.throughput),
            longest_queue: outcome.longest(),
            idle_while_others_queue: rounded(outcome.stranded()),
            keys_moved: rounded(outcome.moved_share()),
            fewest_enabled: outcome.looks.iter().map(|look| look.enabled).min().unwrap_or(0),
        }
    })
}

fn look_rows(study: &Study) -> impl Iterator<Item = LookRow> {
    let points = study.points.iter().filter(|point| point.load.eq(&SHOWN));
    points.flat_map(|point| {
        let row = |look: &Look| LookRow {
            study: study.name,
            arm: point.arm.name(),
            load: point.load,
            seconds: rounded(look.at.as_secs_f64()),
            longest_queue: look.longest,
            idle_while_others_queue: rounded(look.stranded),
            enabled: look.enabled,
        };
        point.outcome.looks.iter().map(row)
    })
}

fn check_row(checked: &Checked) -> CheckRow {
    CheckRow {
        arm: checked.arm.name(),
        load: checked.load,
        figure: checked.figure.name(),
        real: rounded(checked.real),
        simulated_least: rounded(checked.least),
        simulated_median: rounded(checked.median),
        simulated_most: rounded(checked.most),
        agrees: checked.agrees(),
    }
}

fn ms(time: Duration) -> String {
    number(time.as_secs_f64() * 1e3)
}

/// As precise as anybody wants to know it.
fn number(value: f64) -> String {
    if value < 100.0 {
        format!("{}", (value * 10.0).round() / 10.0)
    } else {
        thousands(value.round() as u64)
    }
}

pub(super) fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}

fn fine_percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

fn exact_ms(time: Duration) -> f64 {
    rounded(time.as_secs_f64() * 1e3)
}

fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}
