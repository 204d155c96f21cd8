//! What is said of the runs: medians, ratios round by round, and whether the aims are met. Pure.

use serde::Serialize;

use super::Plan;
use super::proxy::{Proxy, Site};
use super::run::{EARLY, Figures, IDLE, Idle, MILLION, Results, Run, Sample};
use super::work::Work;
use crate::report::{Table, thousands};
use crate::stats::Rounds;

/// The text of the section, from what was measured.
pub(crate) struct Page<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) results: &'a Results,
    /// Of the proxies in the plan, in its order.
    pub(crate) versions: &'a [String],
}

/// A line of `proxies.csv`: one run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    work: &'static str,
    proxy: &'static str,
    round: usize,
    requests_per_second: Option<f64>,
    cpu_micros_per_request: Option<f64>,
    processors: Option<f64>,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
    peak_kib: Option<u64>,
    failure: String,
}

/// A column: a figure of a run, and how it is written.
struct Metric<F> {
    head: &'static str,
    of: fn(&F) -> f64,
    write: fn(f64) -> String,
}

/// Whether something wanted was reached; `None` when it was not measured.
type Verdict = Option<bool>;

/// At most this much of the processor time that another proxy needs for a small answer.
const CPU_AIM: f64 = 0.90;
/// The 99th percentile is no worse than another proxy's.
const P99_AIM: f64 = 1.00;
/// KiB for an idle connection.
const IDLE_AIM: f64 = 25.0;
/// Pairs whose ratio is told: the first over the second.
const PAIRS: [(Proxy, Proxy); 3] = [
    (Proxy::Nginx, Proxy::Haproxy),
    (Proxy::Balancer, Proxy::Haproxy),
    (Proxy::Balancer, Proxy::Nginx),
];

const CPU: Metric<Figures> = Metric {
    head: ">CPU µs/request",
    of: |figures| figures.cpu_micros,
    write: |micros| format!("{micros:.1}"),
};
const P99: Metric<Figures> =
    Metric { head: ">p99 ms", of: |figures| figures.p99.as_secs_f64() * 1e3, write: two_decimals };
const LOAD: [Metric<Figures>; 6] = [
    Metric {
        head: ">requests/s",
        of: |figures| figures.rate,
        write: |rate| thousands(rate.round() as u64),
    },
    CPU,
    Metric { head: ">processor used", of: |figures| figures.busy, write: two_decimals },
    Metric { head: ">p50 ms", of: |figures| figures.p50.as_secs_f64() * 1e3, write: two_decimals },
    P99,
    Metric {
        head: ">peak memory MiB",
        of: |figures| figures.peak_kib as f64 / 1024.0,
        write: |mib| format!("{mib:.1}"),
    },
];
const PER_CONNECTION: Metric<Idle> = Metric {
    head: ">KiB a connection",
    of: Idle::kib_per_connection,
    write: |kib| format!("{kib:.1}"),
};
const IDLE_METRICS: [Metric<Idle>; 3] = [
    Metric {
        head: ">MiB before",
        of: |idle| idle.before_kib as f64 / 1024.0,
        write: |mib| format!("{mib:.1}"),
    },
    Metric {
        head: ">MiB after",
        of: |idle| idle.after_kib as f64 / 1024.0,
        write: |mib| format!("{mib:.1}"),
    },
    PER_CONNECTION,
];

const METHOD: &str = "\
Each proxy has one worker on one processor; wrk (one thread) and the replicas (one nginx with three \
ports) share another one, so that where the proxy leaves its processor idle (\"processor used\" \
below 1), requests per second say more of the generator than of the proxy, and the time on the \
processor for a request is the figure to read. The proxies take turns at each work, a new process \
for each run, and who begins changes from round to round. Each hashes the header `X-Request-Id` \
(1,000 ids in turn; 100 for uploads) consistently over the three replicas. CPU is user and system \
time of all threads and processes of the proxy (`/proc/PID/task/*/schedstat`) over the requests \
answered. Memory is resident memory: the sum over the processes, so that nginx's two count twice \
what they share. Latency is wrk's. A run in which any request failed counts as failed: it is in no \
median.\n\n\
Cells are the median of the rounds, with the least and the greatest; a row \"a / b\" has the ratio \
of the two within each round, and the median of those: below 1 is better for a, but for requests \
per second.";

// === impl Page ===

impl Page<'_> {
    /// The section, without the line on the machine.
    pub(crate) fn text(&self) -> String {
        let Plan { rounds, seconds, works, .. } = self.plan;
        let mut text = format!(
            "{}. In turns; rounds: {rounds}, seconds a run: {seconds}.\n\n{METHOD}\n\n",
            self.versions.join("; ")
        );
        text.push_str("### What was wanted\n\n");
        for (aim, verdict) in self.aims() {
            let verdict = match verdict {
                Some(true) => "met",
                Some(false) => "missed",
                None => "not measured",
            };
            text.push_str(&format!("- {aim}: **{verdict}**\n"));
        }
        for work in works {
            text.push_str(&format!("\n### {} (`{}`)\n\n", work.title(), work.name()));
            text.push_str(&match work {
                Work::Idle => self.idle(),
                Work::Million => self.million(),
                Work::Get1
                | Work::Get64
                | Work::Get512
                | Work::Answer10k
                | Work::Answer1m
                | Work::Upload64k
                | Work::Close => section(&self.results.loads, *work, &LOAD),
            });
        }
        text.push_str("\n### Settings\n\nAll that is set; ports are free ones. nginx passes ");
        text.push_str("request bodies on as they come, as the others do, and keeps none of an ");
        text.push_str("answer in a file. None of them logs requests.\n");
        for proxy in &self.plan.proxies {
            text.push_str(&format!("\n```text\n{}```\n", proxy.settings(&Site::example())));
        }
        text
    }

    /// What was wanted, with what was measured, and whether it was reached.
    fn aims(&self) -> Vec<(String, Verdict)> {
        let mut aims = Vec::new();
        for (metric, what, most) in
            [(CPU, "CPU for a small answer", CPU_AIM), (P99, "p99 of small answers", P99_AIM)]
        {
            for other in [Proxy::Haproxy, Proxy::Nginx] {
                let runs: Vec<&Run<Figures>> = of_work(&self.results.loads, Work::Get64);
                let ratio = ratio(&runs, &metric, Proxy::Balancer, other);
                aims.push((
                    format!(
                        "{what}, 64 connections: {} of {}'s, at most {most:.2}",
                        measured(ratio, two_decimals),
                        other.title()
                    ),
                    verdict(&runs, ratio, most),
                ));
            }
        }
        let runs = of_work(&self.results.idles, Work::Idle);
        let idle = rounds(&runs, &PER_CONNECTION, Proxy::Balancer);
        let text = measured(idle, PER_CONNECTION.write);
        aims.push((
            format!("{text} KiB an idle connection, at most {IDLE_AIM:.0}"),
            verdict(&runs, idle, IDLE_AIM),
        ));
        aims
    }

    fn idle(&self) -> String {
        format!(
            "{} connections, opened one after another; each has one request answered and is left \
             open. What the kernel keeps for a connection is not in it, nor are the tables that \
             nginx and HAProxy make at their start for all the connections they may have.\n\n{}",
            thousands(IDLE as u64),
            section(&self.results.idles, Work::Idle, &IDLE_METRICS)
        )
    }

    fn million(&self) -> String {
        match &self.results.million {
            None => "Not measured: the balancer was not asked for.\n".to_owned(),
            Some(Err(problem)) => format!("**Failed**: {problem}.\n"),
            Some(Ok(samples)) => growth(samples),
        }
    }
}

/// Resident memory at the start, early, and at the end.
fn growth(samples: &[Sample]) -> String {
    let at = |requests| samples.iter().find(|sample| sample.requests >= requests);
    let mut table = Table::new(&[">requests answered", ">resident memory MiB"]);
    let (early, end) = (at(EARLY), at(MILLION));
    for Sample { requests, resident_kib } in [at(0), early, end].into_iter().flatten() {
        let mib = *resident_kib as f64 / 1024.0;
        table.row([thousands(*requests), format!("{mib:.1}")]);
    }
    let growth = match (early, end) {
        (Some(early), Some(end)) => {
            let more = end.resident_kib as f64 - early.resident_kib as f64;
            let requests = end.requests - early.requests;
            format!("{more:+.0} KiB over {} requests", thousands(requests))
        }
        _ => "not measured to its end".to_owned(),
    };
    format!(
        "The balancer's memory, small answers over 64 connections, once: **{growth}**.\n\n{}",
        table.markdown()
    )
}

/// The table of one work, and what failed.
fn section<F>(runs: &[Run<F>], work: Work, metrics: &[Metric<F>]) -> String {
    let runs = of_work(runs, work);
    let mut heads = vec!["proxy"];
    heads.extend(metrics.iter().map(|metric| metric.head));
    heads.push(">failed");
    let mut table = Table::new(&heads);
    let present = |proxy: &Proxy| runs.iter().any(|run| run.proxy == *proxy);
    for proxy in Proxy::ALL.into_iter().filter(present) {
        let mut cells = vec![proxy.title().to_owned()];
        cells.extend(
            metrics.iter().map(|metric| measured(rounds(&runs, metric, proxy), metric.write)),
        );
        let all = runs.iter().filter(|run| run.proxy == proxy);
        let failed = all.clone().filter(|run| run.outcome.is_err()).count();
        cells.push(format!("{failed} of {}", all.count()));
        table.row(cells);
    }
    for (a, b) in PAIRS.into_iter().filter(|(a, b)| present(a) && present(b)) {
        let mut cells = vec![format!("{} / {}", a.title(), b.title())];
        cells.extend(
            metrics.iter().map(|metric| measured(ratio(&runs, metric, a, b), two_decimals)),
        );
        cells.push(String::new());
        table.row(cells);
    }
    let mut text = table.markdown();
    for run in runs {
        if let Err(problem) = &run.outcome {
            let proxy = run.proxy.title();
            let problem = problem.trim_end().replace('\n', " ");
            text.push_str(&format!("\nRound {}, {proxy} **failed**: {problem}.\n", run.round));
        }
    }
    text
}

/// All runs, for `proxies.csv`.
pub(crate) fn rows(runs: &[Run<Figures>]) -> Vec<Row> {
    let row = |run: &Run<Figures>| {
        let figures = run.outcome.as_ref().ok();
        Row {
            work: run.work.name(),
            proxy: run.proxy.title(),
            round: run.round,
            requests_per_second: figures.map(|figures| figures.rate),
            cpu_micros_per_request: figures.map(|figures| figures.cpu_micros),
            processors: figures.map(|figures| figures.busy),
            p50_ms: figures.map(|figures| figures.p50.as_secs_f64() * 1e3),
            p99_ms: figures.map(|figures| figures.p99.as_secs_f64() * 1e3),
            peak_kib: figures.map(|figures| figures.peak_kib),
            failure: run.outcome.as_ref().err().cloned().unwrap_or_default(),
        }
    };
    runs.iter().map(row).collect()
}

fn of_work<F>(runs: &[Run<F>], work: Work) -> Vec<&Run<F>> {
    runs.iter().filter(|run| run.work == work).collect()
}

/// Of the runs of a proxy that did not fail; `None` when there are none.
fn rounds<F>(runs: &[&Run<F>], metric: &Metric<F>, proxy: Proxy) -> Option<Rounds> {
    let of_proxy = runs.iter().filter(|run| run.proxy == proxy);
    let values: Vec<f64> =
        of_proxy.filter_map(|run| run.outcome.as_ref().ok()).map(metric.of).collect();
    Rounds::of(&values)
}

/// `a` over `b` in each round in which neither failed; `None` when there are none.
fn ratio<F>(runs: &[&Run<F>], metric: &Metric<F>, a: Proxy, b: Proxy) -> Option<Rounds> {
    let value = |proxy, round| {
        let run = runs.iter().find(|run| run.proxy == proxy && run.round == round)?;
        run.outcome.as_ref().ok().map(metric.of)
    };
    let ratios: Vec<f64> = runs
        .iter()
        .filter(|run| run.proxy == a)
        .filter_map(|run| Some(value(a, run.round)? / value(b, run.round)?))
        .filter(|ratio| ratio.is_finite())
        .collect();
    Rounds::of(&ratios)
}

/// Whether the median, as it is written, is at most `most`, and no run of the balancer failed.
fn verdict<F>(runs: &[&Run<F>], measured: Option<Rounds>, most: f64) -> Verdict {
    let ours = |run: &&&Run<F>| run.proxy == Proxy::Balancer;
    if runs.iter().filter(ours).any(|run| run.outcome.is_err()) {
        return Some(false);
    }
    measured.map(|rounds| (rounds.median * 100.0).round() <= most * 100.0)
}

fn measured(rounds: Option<Rounds>, write: fn(f64) -> String) -> String {
    rounds.map_or_else(|| "–".to_owned(), |rounds| rounds.text(write))
}

fn two_decimals(value: f64) -> String {
    format!("{value:.2}")
}

#[cfg(test)]
mod tests;
