//! What F-1 and F-2 leave in the report folder.

use std::time::Duration;

use serde::Serialize;

use super::all::{self, All, Row};
use super::charts;
use super::first::{Measured, Mode, cost, of, over_rounds};
use super::{Plan, Setup};
use crate::chart;
use crate::report::{Table, thousands};

/// The figures of both experiments.
pub(super) struct Page<'a> {
    pub(super) setup: &'a Setup,
    pub(super) plan: &'a Plan,
    pub(super) all: &'a All,
    /// Of F-2, round by round.
    pub(super) runs: &'a [Measured],
}

/// A line of `fan-attempts.csv`.
#[derive(Serialize)]
struct AttemptsRow {
    attempts: u32,
    or_more: bool,
    requests: u64,
    expected: f64,
    sigma: f64,
    z: f64,
    least_pauses_ms: f64,
    most_pauses_ms: Option<f64>,
    min_ms: Option<f64>,
    median_ms: Option<f64>,
    max_ms: Option<f64>,
}

/// A line of `fan-waits.csv`.
#[derive(Clone, Serialize)]
struct WaitsRow {
    percentile: &'static str,
    latency_ms: f64,
    least_pauses_ms: f64,
    most_pauses_ms: f64,
}

/// A line of `fan-latency.csv`.
#[derive(Serialize)]
struct LatencyRow {
    round: usize,
    mode: &'static str,
    requests: u64,
    failed: u64,
    at_replicas: u64,
    at_replicas_per_request: f64,
    p50_ms: f64,
    p90_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    max_ms: f64,
}

/// The percentiles of F-2, and of which share each is.
pub(super) const PERCENTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

// === impl Page ===

impl Page<'_> {
    /// Writes files, charts and the section.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(super) fn write(&self) -> anyhow::Result<()> {
        let report = &self.setup.report;
        let rows: Vec<AttemptsRow> = self.all.rows().iter().map(attempts_row).collect();
        report.csv("fan-attempts.csv", &rows)?;
        report.csv("fan-waits.csv", &self.waits())?;
        report.csv("fan-latency.csv", &self.runs.iter().map(latency_row).collect::<Vec<_>>())?;
        chart::save(&charts::attempts_figure(self.all), &report.path("fan-attempts"))?;
        chart::save(
            &charts::latency_figure(self.runs, self.plan.rate),
            &report.path("fan-latency"),
        )?;
        report.section("fan", &self.text())
    }

    /// The percentiles of F-1, each beside what its pauses add up to.
    fn waits(&self) -> Vec<WaitsRow> {
        let (latency, posts) = (&self.all.latency, self.all.posts.len());
        let percentile = |share| all::pauses_of_percentile(share, posts);
        [
            ("p50", latency.p50, percentile(0.5)),
            ("p90", latency.p90, percentile(0.9)),
            ("p99", latency.p99, percentile(0.99)),
            ("max", latency.max, all::pauses_of_slowest(posts)),
        ]
        .map(|(percentile, latency, (least, most))| WaitsRow {
            percentile,
            latency_ms: ms(latency),
            least_pauses_ms: ms(least),
            most_pauses_ms: ms(most),
        })
        .to_vec()
    }

    pub(super) fn text(&self) -> String {
        let plan = self.plan;
        format!(
            "### F-1: to all of three, one of which drops\n\n{}\n\
             ### F-2: to several, or to one and late to another\n\n{}\n\
             {} Seed {}. Balancer, replicas, taps and load share the machine.\n\n\
             ```sh\nanalysis fan --requests {} --rounds {} --gets {} --rate {} --seed {} --out report\n```",
            self.all_text(),
            self.first_text(),
            self.setup.machine(),
            self.setup.seed,
            plan.posts,
            plan.rounds,
            plan.gets,
            plan.rate,
            self.setup.seed
        )
    }

    fn all_text(&self) -> String {
        let all = self.all;
        let dropping = all::REPLICAS as usize - 1;
        let (expected, sigma) = all.expected();
        let asked: Vec<String> =
            (0..all.replicas.len()).map(|replica| thousands(all.asked(replica))).collect();
        let counted = match all.counted {
            Some(_) if all.problems().is_empty() => {
                " The balancer's own counters (`target_domain_*`) say the same."
            }
            Some(_) | None => "",
        };
        format!(
            "{} POSTs, {} a second. {} The replicas were asked {} times; the last one, which drops, \
             {} times, where {expected:.0} ± {sigma:.1} are expected.{counted}\n\n{}\n\
             Until all had answered 201, with what the pauses add up to at that percentile in 95 of \
             100 such runs:\n\n{}",
            thousands(all.posts.len() as u64),
            all::RATE,
            verdict(
                &all.problems(),
                "Each client got its 201, and each replica carried out each \
                                      POST exactly once."
            ),
            asked.join(" · "),
            thousands(all.asked(dropping)),
            self.attempts_table(),
            self.waits_table(),
        ) + &format!("\nThe settings:\n\n```toml\n{}```\n", all::CONFIG)
    }

    fn attempts_table(&self) -> String {
        let mut table = Table::new(&[
            ">attempts",
            ">POSTs",
            ">expected",
            ">off by",
            ">pauses, ms",
            ">shortest latency, ms",
            ">median, ms",
            ">longest, ms",
        ]);
        for row in self.all.rows() {
            let latency = |pick: fn((Duration, Duration, Duration)) -> Duration| {
                row.latency
                    .map_or_else(|| "–".to_owned(), |three| format!("{:.1}", ms(pick(three))))
            };
            table.row([
                attempts_in_words(&row),
                thousands(row.requests),
                format!("{:.1} ± {:.1}", row.deviation.expected, row.deviation.sigma),
                sigmas(row.deviation.z),
                range(row.pauses),
                latency(|(shortest, _, _)| shortest),
                latency(|(_, median, _)| median),
                latency(|(_, _, longest)| longest),
            ]);
        }
        table.markdown()
    }

    fn waits_table(&self) -> String {
        let mut table = Table::new(&["", ">latency, ms", ">pauses, ms"]);
        for row in self.waits() {
            let (least, most) = (row.least_pauses_ms.round(), row.most_pauses_ms.round());
            let pauses = if most > 0.0 { format!("{least}–{most}") } else { "0".to_owned() };
            table.row([row.percentile.to_owned(), format!("{:.1}", row.latency_ms), pauses]);
        }
        table.markdown()
    }

    fn first_text(&self) -> String {
        let problems: Vec<String> = self.runs.iter().flat_map(Measured::problems).collect();
        let well = "None failed, and no replica was asked more often than the mode allows.";
        format!(
            "{} GETs for each mode in each of {} rounds in turns, {} a second whether answers come \
             or not. Latency in ms, medians of the rounds (least–most), and below in italics what \
             the replicas' times alone lead to; *at replicas*: requests that came to replicas for \
             each of a client. {}\n\n{}\n{}",
            thousands(self.plan.gets as u64),
            self.plan.rounds,
            self.plan.rate,
            verdict(&problems, well),
            self.modes_table(),
            settings()
        )
    }

    fn modes_table(&self) -> String {
        let heads = ["mode", ">p50", ">p90", ">p99", ">p99.9", ">max", ">at replicas", ">failed"];
        let mut table = Table::new(&heads);
        for mode in Mode::ALL {
            let measured = (0..PERCENTILES.len()).map(|index| {
                let rounds = over_rounds(mode, self.runs, index);
                rounds.map_or_else(String::new, |rounds| rounds.text(|ms| format!("{ms:.1}")))
            });
            let failed: u64 = of(mode, self.runs).map(|run| run.summary.failed()).sum();
            let cost = format!("{:.3}", cost(mode, self.runs));
            let name = [mode.name().to_owned()].into_iter();
            table.row(name.chain(measured).chain([cost, failed.to_string()]));

            // The slowest of some thousand is chance.
            let expected = PERCENTILES.iter().filter(|(_, share)| *share < 1.0);
            let expected = expected.map(|(_, share)| format!("*{:.0}*", ms(mode.expected(*share))));
            let none = || String::new();
            table.row([none()].into_iter().chain(expected).chain([none(), none(), none()]));
        }
        table.markdown()
    }
}

/// What is in the routes.
fn settings() -> String {
    let line =
        |mode: Mode| format!("- {}: `{}`\n", mode.name(), mode.setting().replace('\n', "`, `"));
    Mode::ALL.into_iter().map(line).collect()
}

/// That all is well, or what is not.
fn verdict(problems: &[String], well: &str) -> String {
    match problems {
        [] => well.to_owned(),
        problems => format!("**Failed:** {}.", problems.join("; ")),
    }
}

pub(super) fn ms(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}

/// What pauses add up to: `20–25`, or `300 or more`.
fn range((least, most): (Duration, Option<Duration>)) -> String {
    match most {
        Some(Duration::ZERO) => "0".to_owned(),
        Some(most) => format!("{:.0}–{:.0}", ms(least), ms(most)),
        None => format!("{:.0} or more", ms(least)),
    }
}

/// `5`, or `5 or more`.
pub(super) fn attempts_in_words(row: &Row) -> String {
    if row.or_more { format!("{} or more", row.attempts) } else { row.attempts.to_string() }
}

/// `+1.25 σ`; nothing is not negative.
fn sigmas(z: f64) -> String {
    format!("{:+.2} σ", if z.abs() < 0.005 { 0.0 } else { z })
}

fn attempts_row(row: &Row) -> AttemptsRow {
    let latency = |pick: fn((Duration, Duration, Duration)) -> Duration| {
        row.latency.map(|three| ms(pick(three)))
    };
    AttemptsRow {
        attempts: row.attempts,
        or_more: row.or_more,
        requests: row.requests,
        expected: row.deviation.expected,
        sigma: row.deviation.sigma,
        z: row.deviation.z,
        least_pauses_ms: ms(row.pauses.0),
        most_pauses_ms: row.pauses.1.map(ms),
        min_ms: latency(|(shortest, _, _)| shortest),
        median_ms: latency(|(_, median, _)| median),
        max_ms: latency(|(_, _, longest)| longest),
    }
}

fn latency_row(measured: &Measured) -> LatencyRow {
    let [p50_ms, p90_ms, p99_ms, p999_ms, max_ms] = measured.summary.latency.columns().map(ms);
    LatencyRow {
        round: measured.round,
        mode: measured.mode.name(),
        requests: measured.summary.requests,
        failed: measured.summary.failed(),
        at_replicas: measured.asked,
        at_replicas_per_request: measured.cost(),
        p50_ms,
        p90_ms,
        p99_ms,
        p999_ms,
        max_ms,
    }
}
