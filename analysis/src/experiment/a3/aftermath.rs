//! What came of a kill: who answered when, what failed, and how long it took until the death was
//! known and the replacement ready.

use std::time::Duration;

use anyhow::anyhow;
use serde::Serialize;

use super::kill::{Moments, POLL, Shot, VICTIM};
use super::{Check, failed, table};
use crate::chart::timeline::{Layer, Mark, TimelineFigure};
use crate::chart::{self, Fill, Marker, Stroke, theme};
use crate::experiment::{Problems, Setup};
use crate::load::summary::Summary;
use crate::load::{Run, Sample};
use crate::report::{Table, thousands};
use crate::system::Runtime;

/// A kill and the load around it.
pub(super) struct Aftermath<'a> {
    pub(super) setup: &'a Setup,
    pub(super) shot: &'a Shot,
    pub(super) run: Run,
    /// The seat that owns the key of each request.
    pub(super) owners: Vec<u32>,
    pub(super) moments: Moments,
}

/// A line of `a3-timeline.csv`.
#[derive(Serialize)]
struct BucketRow {
    from_seconds: f64,
    seat_1: u64,
    seat_2: u64,
    seat_2_replacement: u64,
    seat_3: u64,
    failed: u64,
}

/// A line of `a3-requests.csv`.
#[derive(Serialize)]
struct RequestRow {
    launched_seconds: f64,
    latency_milliseconds: f64,
    owner: u32,
    answered_by: Option<u32>,
    failure: String,
}

/// The bars of the chart.
const BUCKET: Duration = Duration::from_millis(100);
/// "Within about a second", and what starting a container adds to it on a small machine.
const PROCESS_LIMIT: Duration = Duration::from_millis(1_000);
const DOCKER_LIMIT: Duration = Duration::from_millis(2_000);

// === impl Aftermath ===

impl Aftermath<'_> {
    /// Writes the files of the kill.
    ///
    /// # Errors
    /// When one cannot be written.
    pub(super) fn report(&self) -> anyhow::Result<Problems> {
        let checks = self.checks();
        let layers = layers(&self.run, &self.moments);
        self.write_csv(&layers)?;
        chart::save(&self.figure(layers), &self.setup.report.path("a3"))?;
        self.setup.report.section("a3", &self.text(&checks))?;
        Ok(failed(&checks))
    }

    /// The requests that another replica answered than the owner of their key, with the owner.
    fn strays(&self) -> impl Iterator<Item = (&Sample, u32)> {
        let all = self.run.samples.iter().zip(self.owners.iter().copied());
        all.filter(|(sample, owner)| sample.is_stray(*owner))
    }

    /// What a kill must not do.
    fn checks(&self) -> Vec<Check> {
        let (summary, moments) = (Summary::of(&self.run), &self.moments);
        let call = format!("kill -9, seat {VICTIM}");
        let check = |case: &str, expected: &str, judged| Check::new(&*call, case, expected, judged);
        let limit = match self.setup.runtime {
            Runtime::Process => PROCESS_LIMIT,
            Runtime::Docker => DOCKER_LIMIT,
        };
        let took = moments.replaced.saturating_sub(moments.killed);
        let strays: Vec<(&Sample, u32)> = self.strays().collect();
        let others = strays.iter().filter(|(_, owner)| *owner != VICTIM).count();
        let late = strays.iter().filter(|(sample, _)| sample.launched > moments.replaced).count();
        let holds = |good, instead: String| if good { Ok(()) } else { Err(anyhow!(instead)) };
        vec![
            check(
                "the load goes on",
                "no request fails for good",
                holds(summary.failed() == 0, summary.failures_in_words()),
            ),
            check(
                "`/rep`",
                &format!("a new name within {limit:?}"),
                holds(took <= limit, format!("it took {took:?}")),
            ),
            check(
                "keys of the other seats",
                "none moves",
                holds(others == 0, format!("{others} requests of other seats moved")),
            ),
            check(
                "keys of the dead seat",
                "back on it with the replacement",
                holds(late == 0, format!("{late} requests went elsewhere after it was ready")),
            ),
        ]
    }

    fn write_csv(&self, layers: &[Layer]) -> anyhow::Result<()> {
        let buckets = layers.first().map_or(0, |layer| layer.counts.len());
        let rows: Vec<BucketRow> = (0..buckets)
            .map(|bucket| BucketRow {
                from_seconds: (BUCKET * bucket as u32).as_secs_f64(),
                seat_1: layers[0].counts[bucket],
                seat_2: layers[1].counts[bucket],
                seat_2_replacement: layers[2].counts[bucket],
                seat_3: layers[3].counts[bucket],
                failed: layers[4].counts[bucket],
            })
            .collect();
        self.setup.report.csv("a3-timeline.csv", &rows)?;
        let rows: Vec<RequestRow> = self
            .run
            .samples
            .iter()
            .zip(&self.owners)
            .map(|(sample, owner)| RequestRow {
                launched_seconds: sample.launched.as_secs_f64(),
                latency_milliseconds: sample.latency().as_secs_f64() * 1e3,
                owner: *owner,
                answered_by: sample.outcome.as_ref().ok().copied().flatten(),
                failure: sample
                    .outcome
                    .as_ref()
                    .err()
                    .map_or_else(String::new, ToString::to_string),
            })
            .collect();
        self.setup.report.csv("a3-requests.csv", &rows)
    }

    fn figure(&self, layers: Vec<Layer>) -> TimelineFigure {
        let moments = &self.moments;
        let after = |moment: Duration| {
            format!("{:+.0} ms", moment.saturating_sub(moments.killed).as_secs_f64() * 1e3)
        };
        let (killed, replaced) = (moments.killed.as_secs_f64(), moments.replaced.as_secs_f64());
        let beyond = (replaced - killed).max(0.06);
        TimelineFigure {
            title: "A-3: a replica dies under load, and its seat is filled again".to_owned(),
            subtitle: format!(
                "{} requests/s on three replicas (ring, {} runtime); replica {VICTIM} is killed by \
                 SIGKILL",
                self.shot.rate,
                self.setup.runtime.name()
            ),
            layers,
            bucket: BUCKET.as_secs_f64(),
            marks: vec![
                Mark {
                    at: killed,
                    text: "replica 2 killed".to_owned(),
                    stroke: Stroke::solid(theme::INK, 2),
                },
                Mark {
                    at: moments.detected.as_secs_f64(),
                    text: format!("death known: gone from /rep ({})", after(moments.detected)),
                    stroke: Stroke::dashed(theme::GREY, 2, 9.0, 5.0),
                },
                Mark {
                    at: replaced,
                    text: format!("replacement ready: in /rep ({})", after(moments.replaced)),
                    stroke: Stroke::dashed(theme::SKY, 2, 3.0, 4.0),
                },
            ],
            zoom: (killed - 0.05).max(0.0)..replaced + beyond,
        }
    }

    fn text(&self, checks: &[Check]) -> String {
        let (summary, moments) = (Summary::of(&self.run), &self.moments);
        let milliseconds = |span: Duration| format!("{:.1} ms", span.as_secs_f64() * 1e3);
        let after = |moment: Duration| milliseconds(moment.saturating_sub(moments.killed));
        let strays = self.strays().count();
        let mut figures = Table::new(&["what", ">measured"]);
        figures.row([
            "death known (the name is gone from `/rep`)".to_owned(),
            after(moments.detected),
        ]);
        figures
            .row(["replacement ready (a new name in `/rep`)".to_owned(), after(moments.replaced)]);
        figures.row(["requests sent".to_owned(), thousands(summary.requests)]);
        figures.row(["requests failed".to_owned(), summary.failed().to_string()]);
        figures.row([
            "requests of the empty seat answered by the next owner".to_owned(),
            strays.to_string(),
        ]);
        figures.row(["latency, median".to_owned(), milliseconds(summary.latency.p50)]);
        figures.row(["latency, 99 %".to_owned(), milliseconds(summary.latency.p99)]);
        figures.row(["latency, slowest".to_owned(), milliseconds(summary.latency.max)]);
        format!(
            "{}\n{}\n{} {} requests/s; `/rep` was asked every {POLL:?}.",
            figures.markdown(),
            table(checks),
            self.setup.provenance(),
            self.shot.rate
        )
    }
}

impl Sample {
    /// Whether another replica answered than the owner of the key.
    fn is_stray(&self, owner: u32) -> bool {
        matches!(&self.outcome, Ok(seat) if *seat != Some(owner))
    }
}

/// The stack of the chart: seat 1, the victim, its replacement, seat 3, failures.
fn layers(run: &Run, moments: &Moments) -> Vec<Layer> {
    let buckets = run.wall.as_millis().div_ceil(BUCKET.as_millis()).max(1) as usize;
    let layer = |name: &str, fill, color, marker| Layer {
        name: name.to_owned(),
        fill,
        color,
        marker,
        counts: vec![0; buckets],
        requests: Vec::new(),
    };
    let mut layers = vec![
        layer("replica 1", Fill::Solid(theme::BLUE), theme::BLUE, Marker::Circle),
        layer("replica 2, killed", Fill::Solid(theme::ORANGE), theme::ORANGE, Marker::Square),
        layer("its replacement", Fill::Hatched(theme::PURPLE), theme::PURPLE, Marker::Diamond),
        layer("replica 3", Fill::Solid(theme::GREEN), theme::GREEN, Marker::Triangle),
        layer("failed", Fill::Solid(theme::VERMILLION), theme::VERMILLION, Marker::Cross),
    ];
    let failed = run.samples.iter().filter(|sample| sample.outcome.is_err()).count();
    layers[4].name = format!("failed: {failed}");
    for sample in &run.samples {
        let index = match sample.outcome {
            Ok(Some(1)) => 0,
            Ok(Some(VICTIM)) if sample.done <= moments.detected => 1,
            Ok(Some(VICTIM)) => 2,
            Ok(Some(_)) => 3,
            Ok(None) | Err(_) => 4,
        };
        let bucket = (sample.done.as_millis() / BUCKET.as_millis()) as usize;
        layers[index].counts[bucket.min(buckets - 1)] += 1;
        let milliseconds = sample.latency().as_secs_f64() * 1e3;
        layers[index].requests.push((sample.launched.as_secs_f64(), milliseconds));
    }
    layers
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::load::Failure;

    fn sample(done: u64, outcome: Result<Option<u32>, Failure>) -> Sample {
        let done = Duration::from_millis(done);
        Sample { launched: done / 2, sent: done / 2, done, outcome }
    }

    #[test]
    fn answers_fall_into_the_bucket_in_which_they_came() {
        let milliseconds = Duration::from_millis;
        let moments = Moments {
            killed: milliseconds(100),
            detected: milliseconds(110),
            replaced: milliseconds(150),
        };
        let run = Run {
            samples: vec![
                sample(10, Ok(Some(1))),
                sample(99, Ok(Some(2))),
                sample(105, Ok(Some(2))),
                sample(190, Ok(Some(2))),
                sample(200, Ok(Some(3))),
                sample(230, Err(Failure::Timeout)),
            ],
            start: Instant::now(),
            wall: milliseconds(230),
        };
        let counts: Vec<Vec<u64>> =
            layers(&run, &moments).into_iter().map(|layer| layer.counts).collect();
        assert_eq!(
            counts,
            [vec![1, 0, 0], vec![1, 1, 0], vec![0, 1, 0], vec![0, 0, 1], vec![0, 0, 1]]
        );
    }

    #[test]
    fn only_an_answer_of_another_seat_is_a_stray() {
        assert!(sample(1, Ok(Some(1))).is_stray(2));
        assert!(!sample(1, Ok(Some(2))).is_stray(2));
        assert!(!sample(1, Err(Failure::Timeout)).is_stray(2));
    }
}
