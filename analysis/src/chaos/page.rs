//! The report of a run: one page, and one line a fault in a CSV file.

use std::collections::BTreeMap;

use super::faults::Fault;
use super::measure::{Row, is_excused};
use super::plan::{Abilities, POST_SHARE, Plan, REPLACE_AFTER, SLOW_START};
use super::schedule::Kind;
use super::watch::{Known, LOOK};
use super::{HANG, Outcome};
use crate::experiment::Setup;
use crate::report::Table;
use crate::stats::Rounds;
use crate::system::Runtime;

/// What is reported.
pub(super) struct Page<'a> {
    pub(super) setup: &'a Setup,
    pub(super) plan: &'a Plan,
    pub(super) abilities: Abilities,
    pub(super) outcome: &'a Outcome,
}

/// Failed requests that are shown one by one.
const SHOWN: usize = 20;

// === impl Page ===

impl Page<'_> {
    /// Writes `chaos-RUNTIME.md` and `chaos-RUNTIME.csv`.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(super) fn write(&self) -> anyhow::Result<()> {
        let name = format!("chaos-{}", self.setup.runtime.name());
        self.setup.report.csv(&format!("{name}.csv"), &self.outcome.rows)?;
        self.setup.report.section(&name, &self.text())
    }

    fn text(&self) -> String {
        [
            self.what_was_done(),
            self.checks(),
            by_kind(&self.outcome.faults, &self.outcome.rows, self.setup.runtime),
            self.how_to_read(),
            self.failures(),
            format!("{}\n\n```sh\n{}\n```", self.setup.provenance(), self.command()),
        ]
        .map(|part| part.trim().to_owned())
        .join("\n\n")
    }

    fn what_was_done(&self) -> String {
        let (plan, outcome) = (self.plan, self.outcome);
        let spares = match plan.spares {
            0 => String::new(),
            1 => ", one spare".to_owned(),
            many => format!(", {many} spares"),
        };
        format!(
            "### Chaos, `{}` runtime\n\n{} faults in {:.0} minutes, drawn from seed {}, upon {} \
             replicas{spares} under {:.0} requests a second in an open loop: {:.0} % GET of \
             `/home`, the others POST of `/register`, each with an id that replicas tell to a \
             journal outside of them when they carry it out. One start in ten takes {SLOW_START} \
             to listen.",
            self.setup.runtime.name(),
            outcome.faults.len(),
            plan.length.as_secs_f64() / 60.0,
            self.setup.seed,
            plan.replicas,
            plan.rate,
            100.0 * (1.0 - POST_SHARE),
        )
    }

    fn checks(&self) -> String {
        let mut table = Table::new(&["what must hold", "verdict", "seen"]);
        for check in &self.outcome.checks {
            table.row([check.what, check.verdict.word(), check.detail.as_str()]);
        }
        table.markdown()
    }

    fn how_to_read(&self) -> String {
        let events = match self.outcome.events {
            Known::There => ", or an event of it was heard of (asked for every 50 ms)",
            Known::Absent | Known::Unknown => {
                " (this balancer has no `/admin/events`, so that of a replica that only hangs and \
                 stays in `/rep` nothing can be seen: –)"
            }
        };
        let hung = if self.abilities.replaces_hung {
            format!("`--health-replace-after {REPLACE_AFTER}`")
        } else {
            "no `--health-replace-after`, which this balancer does not have".to_owned()
        };
        format!(
            "Times are in milliseconds, median (least–most), from the moment at which the command \
             or signal went out, so that with Docker they hold the 50 to 300 ms that its command \
             line takes. *Detected*: the victim's name was gone from `/rep`, which was looked at \
             every {} ms{events}. *Full*: as many were ready as were asked for, none of the lost \
             ones among them; an exit loop counts from its first kill, so that it holds the \
             back-off between its five. Faults overlap where one lasts longer than the pause \
             before the next: *full* then waits for both. A failed request is counted for the last \
             fault before it, one that took more than 2 s for the last fault before it began. A \
             POST that was cut off may fail, because nobody knows whether it was carried out: it \
             must only not be carried out twice. GETs may fail only while the balancer itself is \
             down ({} windows), which ends when all replicas are ready again. Hung replicas had {} \
             s to be replaced, with {hung}.",
            LOOK.as_millis(),
            self.outcome.excused.len(),
            HANG.as_secs(),
        )
    }

    fn failures(&self) -> String {
        let bad: Vec<_> = self
            .outcome
            .gets
            .iter()
            .filter(|failed| !is_excused(failed, &self.outcome.excused))
            .collect();
        if bad.is_empty() {
            return format!(
                "Of {} GETs none failed outside of the windows; of the POSTs {} failed in all.",
                self.outcome.gets_sent,
                self.outcome.posts.len()
            );
        }
        let mut table = Table::new(&[">launched, s", ">took, s", "why"]);
        for failed in bad.iter().take(SHOWN) {
            table.row([
                format!("{:.3}", failed.launched.as_secs_f64()),
                format!("{:.3}", failed.done.saturating_sub(failed.launched).as_secs_f64()),
                failed.failure.to_string(),
            ]);
        }
        format!(
            "GETs that failed, {} of {}:\n\n{}",
            bad.len().min(SHOWN),
            bad.len(),
            table.markdown()
        )
    }

    /// What makes this page again.
    fn command(&self) -> String {
        let (setup, plan) = (self.setup, self.plan);
        let mut command = format!(
            "analysis chaos --minutes {} --seed {} --runtime {} --replicas {} --rate {}",
            plan.length.as_secs_f64() / 60.0,
            setup.seed,
            setup.runtime.name(),
            plan.replicas,
            plan.rate,
        );
        if plan.spares > 0 {
            command.push_str(&format!(" --spares {}", plan.spares));
        }
        if let Some(restart) = &plan.restart_engine {
            command.push_str(&format!(" --restart-engine-with '{restart}'"));
        }
        command.push_str(" --out report");
        command
    }
}

/// A line a kind of fault.
fn by_kind(faults: &[Fault], rows: &[Row], runtime: Runtime) -> String {
    let mut kinds: BTreeMap<Kind, Vec<&Row>> = BTreeMap::new();
    for (fault, row) in faults.iter().zip(rows) {
        kinds.entry(fault.kind).or_default().push(row);
    }
    let mut table = Table::new(&[
        "fault",
        "what",
        ">number",
        ">not detected",
        ">detected",
        ">full",
        ">retried",
        ">failed GETs",
        ">of them excused",
        ">failed POSTs",
    ]);
    for (kind, rows) in kinds {
        let sum = |of: fn(&Row) -> usize| rows.iter().map(|row| of(row)).sum::<usize>().to_string();
        let retried: Option<u64> = rows.iter().map(|row| row.retried).sum();
        table.row([
            kind.name().to_owned(),
            kind.words(runtime).to_owned(),
            rows.len().to_string(),
            if kind.hits_a_replica() {
                rows.iter().filter(|row| row.detected_ms.is_none()).count().to_string()
            } else {
                dash()
            },
            times(&rows, |row| row.detected_ms),
            times(&rows, |row| row.full_ms),
            retried.map_or_else(dash, |count| count.to_string()),
            sum(|row| row.failed_gets),
            sum(|row| row.excused_gets),
            sum(|row| row.failed_posts),
        ]);
    }
    table.markdown()
}

fn times(rows: &[&Row], of: impl Fn(&Row) -> Option<f64>) -> String {
    let values: Vec<f64> = rows.iter().filter_map(|row| of(row)).collect();
    Rounds::of(&values).map_or_else(dash, |rounds| rounds.text(|value| format!("{value:.0}")))
}

fn dash() -> String {
    "–".to_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::chaos::faults;

    fn row(detected_ms: Option<f64>, failed_gets: usize) -> (Fault, Row) {
        let fault = Fault {
            at: Duration::ZERO,
            kind: Kind::Kill,
            seats: vec![1],
            victims: Vec::new(),
            struck: Duration::ZERO,
            ended: None,
            outcome: faults::Outcome::Replaced,
        };
        let row = Row {
            number: 1,
            at_seconds: 0.0,
            kind: "kill",
            seats: "1".to_owned(),
            hostnames: String::new(),
            outcome: String::new(),
            detected_ms,
            full_ms: None,
            retried: None,
            failed_gets,
            excused_gets: 0,
            failed_posts: 2,
        };
        (fault, row)
    }

    #[test]
    fn a_kind_has_its_middle_its_ends_and_its_sums() {
        let (faults, rows): (Vec<Fault>, Vec<Row>) =
            [row(Some(10.0), 1), row(Some(30.0), 2), row(None, 0)].into_iter().unzip();
        let text = by_kind(&faults, &rows, Runtime::Process);
        let line = text.lines().last().unwrap();
        assert!(line.starts_with("| kill | SIGKILL of one replica or two at once | 3 | 1 |"));
        assert!(line.ends_with("| 20 (10–30) | – | – | 3 | 0 | 6 |"), "{line}");
    }
}
