//! The report of `analysis heal`.

use std::time::Duration;

use serde::Serialize;

use super::Plan;
use super::few::{self, Healed, Round};
use super::listed;
use super::many::{self, Gets, Many};
use super::tick::{self, Tick};
use crate::experiment::Setup;
use crate::report::{Table, thousands};
use crate::stats::Rounds;
use crate::system::Runtime;

/// What is reported.
pub(super) struct Page<'a> {
    pub(super) setup: &'a Setup,
    pub(super) plan: &'a Plan,
    pub(super) rounds: &'a [Round],
    pub(super) many: Option<&'a Many>,
    pub(super) thousand: Thousand,
    pub(super) has_spares: bool,
}

/// What 1,000 replicas cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Thousand {
    /// The share of a processor for probing them.
    pub(super) probes: f64,
    pub(super) tick: Tick,
}

/// A death in the CSV file.
#[derive(Serialize)]
struct Row {
    round: usize,
    runtime: &'static str,
    spares: u32,
    sent: usize,
    failed: usize,
    out_ms: f64,
    out_from_event_ms: Option<f64>,
    full_ms: f64,
    docker_run_ms: Option<f64>,
}

// === impl Page ===

impl Page<'_> {
    /// Writes `heal.md` and `heal.csv`.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(super) fn write(&self) -> anyhow::Result<()> {
        self.setup.report.csv("heal.csv", &self.rows())?;
        self.setup.report.section("heal", &self.text())
    }

    fn rows(&self) -> Vec<Row> {
        let rows = self.rounds.iter().flat_map(|round| {
            let row = |spares, healed: Healed| Row {
                round: round.number,
                runtime: round.runtime.name(),
                spares,
                sent: healed.sent,
                failed: healed.failed,
                out_ms: milliseconds(healed.out),
                out_from_event_ms: healed.from_event.map(milliseconds),
                full_ms: milliseconds(healed.full),
                docker_run_ms: round.bare.map(milliseconds),
            };
            [Some(row(0, round.healed)), round.spared.map(|healed| row(1, healed))]
        });
        rows.flatten().collect()
    }

    pub(super) fn text(&self) -> String {
        let mut parts = vec![self.few()];
        parts.extend(self.many.map(large));
        parts.push(self.thousand.text());
        let runtime = match self.plan.runtimes[..] {
            [one] => one.name(),
            _ => "both",
        };
        parts.push(format!(
            "{}\n\n```sh\nanalysis heal --runtime {runtime} --rounds {} --many {} --seed {} --out \
             report\n```",
            self.setup.machine(),
            self.plan.rounds,
            self.plan.many,
            self.setup.seed
        ));
        parts.iter().map(|part| part.trim()).collect::<Vec<_>>().join("\n\n")
    }

    fn few(&self) -> String {
        let heads = ["runtime", ">spares", ">failed GETs", ">out, ms", ">from the event, ms"];
        let others = [">full, ms", ">`docker run`, ms", ">full / run"];
        let mut table = Table::new(&[&heads[..], &others].concat());
        for runtime in &self.plan.runtimes {
            let rounds: Vec<&Round> =
                self.rounds.iter().filter(|round| round.runtime == *runtime).collect();
            table.row(line(*runtime, 0, &rounds, |round| Some(round.healed)));
            if self.has_spares {
                table.row(line(*runtime, 1, &rounds, |round| round.spared));
            }
        }
        let spares = match self.has_spares {
            true => "With a spare, 100 ms are aimed at. ",
            false => "This balancer has no `--spares`: nothing is said of them. ",
        };
        format!(
            "### One of three dies\n\nSIGKILL of one of three replicas under {} GETs a second, \
             medians of {} rounds (least–most). *Out*: its name was gone from `/rep`; *from \
             the event*: the same since the engine's own event of the death, 50 ms are aimed at; \
             *full*: three were ready again. `/rep` is looked at every 5 ms. `docker run` is one bare `docker \
             run -d` of the same image in the same round until its heartbeat is answered, with no \
             load beside it: 1.5 times that is aimed at for a replacement. {spares}No GET may fail.\n\n{}",
            thousands(few::RATE as u64),
            self.plan.rounds,
            table.markdown()
        )
    }
}

fn line(
    runtime: Runtime,
    spares: u32,
    rounds: &[&Round],
    of: impl Fn(&Round) -> Option<Healed>,
) -> Vec<String> {
    let all: Vec<Healed> = rounds.iter().filter_map(|round| of(round)).collect();
    let failed: usize = all.iter().map(|healed| healed.failed).sum();
    let sent: usize = all.iter().map(|healed| healed.sent).sum();
    let ratio = |round: &&Round| Some(of(round)?.full.as_secs_f64() / round.bare?.as_secs_f64());
    let whole = |value: f64| format!("{value:.0}");
    let times = |values: Vec<f64>| text(&values, whole);
    vec![
        runtime.name().to_owned(),
        spares.to_string(),
        format!("{failed} of {}", thousands(sent as u64)),
        times(all.iter().map(|healed| milliseconds(healed.out)).collect()),
        times(all.iter().filter_map(|healed| healed.from_event.map(milliseconds)).collect()),
        times(all.iter().map(|healed| milliseconds(healed.full)).collect()),
        times(rounds.iter().filter_map(|round| round.bare.map(milliseconds)).collect()),
        text(&rounds.iter().filter_map(ratio).collect::<Vec<_>>(), |value| format!("{value:.2}")),
    ]
}

fn text(values: &[f64], write: impl Fn(f64) -> String) -> String {
    Rounds::of(values).map_or_else(|| "–".to_owned(), |rounds| rounds.text(write))
}

// === impl Thousand ===

impl Thousand {
    fn text(&self) -> String {
        let Self { probes, tick: Tick { look, death, build } } = self;
        format!(
            "### {} replicas\n\nListed ones (addresses of one demo replica), idle, probed every \
             second: the balancer used {:.2} % of a core for {} s; under 2 % is aimed at. A look \
             at as many owned ones, a full listing taken in and a plan made, takes {:.2} ms \
             (median of 101), one at which one of them has died, with the new table, {:.2} ms; \
             under 5 ms is aimed at. The ring is built anew only when the fleet grows or shrinks, \
             in {:.1} ms.",
            thousands(u64::from(listed::LISTED.max(tick::REPLICAS))),
            100.0 * probes,
            many::IDLE.as_secs(),
            exact(*look),
            exact(*death),
            exact(*build),
        )
    }
}

/// The large fleet.
fn large(many: &Many) -> String {
    let Many { replicas, first, ready, rep, starting, killed, dying, out, full, idle } = many;
    let mut table = Table::new(&["GETs", ">a second", ">sent", ">failed", ">p50", ">p99", ">max"]);
    let mut row = |what: &str, rate: f64, gets: &Gets| {
        let time = |time: Duration| format!("{:.1} ms", milliseconds(time));
        table.row([
            what.to_owned(),
            format!("{rate:.0}"),
            thousands(gets.sent as u64),
            gets.failed.to_string(),
            time(gets.latency.p50),
            time(gets.latency.p99),
            time(gets.latency.max),
        ]);
    };
    row("while they start, from the first ready one on", many::GENTLE, starting);
    row("while some are killed and replaced", many::RATE, dying);
    format!(
        "### {replicas} replicas as processes\n\nThe first of them was ready \
         {:.2} s, all {replicas} {:.2} s after the start of the balancer; `/rep` answered meanwhile \
         in {:.1} ms (median; p99 {:.1} ms, slowest {:.1} ms). Then \
         {killed} were killed at once: {:.0} ms later the last of them was out of the table, {:.0} \
         ms after the kill all {replicas} were ready again.\n\n{}\nIdle, the balancer used {:.2} % \
         of a core for {} s. Replicas, balancer and load share the machine.",
        first.as_secs_f64(),
        ready.as_secs_f64(),
        milliseconds(rep.p50),
        milliseconds(rep.p99),
        milliseconds(rep.max),
        milliseconds(*out),
        milliseconds(*full),
        table.markdown(),
        100.0 * idle,
        many::IDLE.as_secs(),
    )
}

fn exact(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e4).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(full: u64, bare: u64) -> Round {
        let full = Duration::from_millis(full);
        let (out, from_event) = (Duration::from_millis(8), Some(Duration::from_millis(2)));
        let healed = Healed { sent: 5_000, failed: 1, out, from_event, full };
        Round {
            number: 1,
            runtime: Runtime::Docker,
            healed,
            spared: None,
            bare: Some(Duration::from_millis(bare)),
        }
    }

    #[test]
    fn a_line_has_medians_and_the_ratio_within_each_round() {
        let (one, two, three) = (round(600, 400), round(500, 500), round(900, 450));
        let cells = line(Runtime::Docker, 0, &[&one, &two, &three], |round| Some(round.healed));
        assert_eq!(
            cells,
            [
                "docker",
                "0",
                "3 of 15,000",
                "8",
                "2",
                "600 (500–900)",
                "450 (400–500)",
                "1.50 (1.00–2.00)"
            ]
        );
        let none = line(Runtime::Docker, 1, &[&one], |round| round.spared);
        assert_eq!(none[3..6], ["–", "–", "–"]);
    }
}
