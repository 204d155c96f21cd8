//! What the shares leave in the report folder.

use serde::Serialize;

use super::Study;
use super::evenness::{self, Evenness, KNOWN, Measured};
use super::jump;
use super::points::{self, Points};
use super::{Fleets, charts};
use crate::chart;
use crate::experiment::Setup;
use crate::report::{Table, thousands};
use crate::ring::fleet::Runs;

/// A line of `ring-shares.csv`.
#[derive(Serialize)]
struct Row {
    study: &'static str,
    placement: &'static str,
    seats: u32,
    points: Option<u32>,
    fleets: usize,
    deviation: f64,
    deviation_of_one_fleet: f64,
    paper_deviation: Option<f64>,
    low: f64,
    paper_low: Option<f64>,
    high: f64,
    paper_high: Option<f64>,
    max_over_mean: f64,
    max_over_mean_least: f64,
    max_over_mean_most: f64,
}

/// Writes files, charts and the section.
///
/// # Errors
/// When a file cannot be written.
pub(super) fn write(setup: &Setup, study: &Study) -> anyhow::Result<()> {
    let report = &setup.report;
    let rows: Vec<Row> = study
        .points
        .iter()
        .map(Row::of_points)
        .chain(study.evenness.iter().map(Row::of_evenness))
        .chain(study.measured.iter().map(Row::of_measured))
        .collect();
    report.csv("ring-shares.csv", &rows)?;
    chart::save(&charts::points_figure(&study.points), &report.path("ring-shares"))?;
    chart::save(&charts::evenness_figure(study), &report.path("ring-shares-by-n"))?;
    report.section("ring-shares", &text(study))
}

fn text(study: &Study) -> String {
    [
        points_text(&study.points),
        evenness_text(&study.evenness),
        max_text(&study.evenness),
        ideal_text(&study.measured),
        "```sh\nanalysis ring --part shares --out report\n```".to_owned(),
    ]
    .join("\n\n")
}

fn points_text(all: &[Points]) -> String {
    let mut table = Table::new(&[
        ">points a seat",
        ">standard error",
        ">exact",
        ">paper",
        ">paper − ours",
        ">99 % of the shares",
        ">paper",
    ]);
    for it in all {
        let said = it.said.as_ref();
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "–".to_owned());
        let one = 100.0 * it.rings.deviation.deviation() / it.rings.deviation.mean();
        table.row([
            thousands(it.points.into()),
            format!("{:.5} ± {:.5}", it.rings.deviation.mean(), it.rings.deviation.error()),
            format!("{:.5}", it.exact()),
            or_none(said.map(|said| format!("{:.7}", said.error))),
            or_none(
                it.difference()
                    .map(|part| format!("{:+.2} % (one ring: ± {one:.1} %)", 100.0 * part)),
            ),
            {
                let (low, high) = it.rings.interval();
                format!("{} to {}", short(low), short(high))
            },
            or_none(said.map(|said| format!("{} to {}", said.interval.0, said.interval.1))),
        ]);
    }
    format!(
        "#### Points a seat, beside Lamping and Veach\n\nA ring of {} seats, {} secrets for each \
         number of points. Shares are exact, relative to an even one; ± is the standard error of \
         the mean. *exact*: √((N − 1) / (N · p + 1)), what N · p independent points lead to.\n\n{}",
        thousands(points::SEATS.into()),
        points::RINGS,
        table.markdown().trim()
    )
}

fn evenness_text(all: &[Evenness]) -> String {
    let mut table = Table::new(&[
        "placement",
        ">N",
        ">fleets",
        ">standard error",
        ">99 % of the shares",
        "shares are",
    ]);
    let largest = |it: &&Evenness| it.seats == it.kind.seats(1_000);
    for it in all.iter().filter(largest) {
        let ideal = it.fleets.max.mean() - 1.0 < 1e-9;
        table.row([
            it.kind.name().to_owned(),
            thousands(it.seats.into()),
            it.fleets.max.count().to_string(),
            format!("{:.4}", it.fleets.deviation.mean()),
            {
                let (low, high) = it.fleets.interval();
                format!("{low:.3} to {high:.3}")
            },
            if ideal { "those of an ideal hash" } else { "exact" }.to_owned(),
        ]);
    }
    format!(
        "#### The same of every placement\n\nWith 1,000 seats, `classic` with the 56 that it has \
         room for. `ketama` has listed addresses, drawn from 10.0.0.0/8; the others have seats \
         from 1 on and another secret for each fleet; `classic` has only one fleet.\n\n{}",
        table.markdown().trim()
    )
}

fn max_text(all: &[Evenness]) -> String {
    let mut heads = vec!["busiest / average".to_owned()];
    heads.extend(evenness::SEATS.map(|seats| format!(">N = {}", thousands(seats.into()))));
    let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
    let mut table = Table::new(&heads);
    let mut kinds: Vec<_> = all.iter().map(|it| it.kind).collect();
    kinds.dedup();
    for kind in kinds {
        let cell = |seats| {
            let it = all.iter().find(|it| it.kind == kind && it.seats == kind.seats(seats));
            it.map_or_else(String::new, |it| {
                let fewer = if it.seats < seats { "N = 56: " } else { "" };
                format!("{fewer}{}", mean_and_range(&it.fleets.max))
            })
        };
        let cells: Vec<String> =
            [kind.name().to_owned()].into_iter().chain(evenness::SEATS.map(cell)).collect();
        table.row(cells);
    }
    let known = KNOWN.map(|known| {
        let ours = all.iter().find(|it| it.kind == known.kind && it.seats == 100);
        let ours = ours.map_or(f64::NAN, |it| it.fleets.max.mean());
        format!("{} {}, {} here {ours:.2}", known.whose, known.max, known.kind.name())
    });
    format!(
        "#### The busiest seat by N\n\nMean of {} fleets, and what lies between 1 and 99 of a \
         hundred. With 100 servers, others are known for: {}.\n\n{}",
        evenness::FLEETS,
        known.join("; "),
        table.markdown().trim()
    )
}

fn ideal_text(all: &[Measured]) -> String {
    let mut measured = Table::new(&[
        "placement",
        ">standard error of the keys",
        ">by chance",
        ">busiest / average",
        ">χ² off by",
    ]);
    for it in all {
        measured.row([
            it.kind.name().to_owned(),
            format!("{:.4} ± {:.4}", it.fleets.deviation.mean(), it.fleets.deviation.error()),
            format!("{:.4}", Measured::by_chance()),
            format!("{:.3}", it.fleets.max.mean()),
            format!("{:+.2} σ", it.off),
        ]);
    }
    let mut drawn = Table::new(&[">N", ">standard error", ">least", ">most"]);
    for buckets in [10, 100, 1_000] {
        let shares = jump::shares(buckets, jump::BITS);
        let deviation = Fleets::of(std::slice::from_ref(&shares)).deviation.mean();
        let off = Runs::of(shares.iter().map(|share| share * f64::from(buckets) - 1.0));
        drawn.row([
            thousands(buckets.into()),
            format!("{deviation:.10}"),
            format!("1 − {:.10}", -off.at(0.0)),
            format!("1 + {:.10}", off.at(1.0)),
        ]);
    }
    format!(
        "#### Where shares are those of an ideal hash\n\n{} keys looked up in each of {} fleets \
         of 1,000 seats. *by chance*: √((N − 1) / keys).\n\n{}\nWhat jump's draws of 31 bits make \
         of its shares, worked out for independent draws; the paper has a standard error of \
         0.00000000764, and 0.99999998 to 1.00000002 for 99 %:\n\n{}",
        thousands(evenness::KEYS.into()),
        evenness::MEASURED_FLEETS,
        measured.markdown(),
        drawn.markdown().trim()
    )
}

/// `1.07 (1.02–1.14)`, or one figure where all are alike.
fn mean_and_range(runs: &Runs) -> String {
    let (least, most) = (runs.at(0.01), runs.at(0.99));
    match most - least < 1e-9 {
        true => format!("{:.3}", runs.mean()),
        false => format!("{:.3} ({least:.3}–{most:.3})", runs.mean()),
    }
}

fn short(value: f64) -> String {
    if value < 0.1 { format!("{value:.4}") } else { format!("{value:.3}") }
}

// === impl Row ===

impl Row {
    fn of(study: &'static str, placement: &'static str, seats: u32, fleets: &Fleets) -> Self {
        let (low, high) = fleets.interval();
        Self {
            study,
            placement,
            seats,
            points: None,
            fleets: fleets.max.count(),
            deviation: fleets.deviation.mean(),
            deviation_of_one_fleet: fleets.deviation.deviation(),
            paper_deviation: None,
            low,
            paper_low: None,
            high,
            paper_high: None,
            max_over_mean: fleets.max.mean(),
            max_over_mean_least: fleets.max.at(0.01),
            max_over_mean_most: fleets.max.at(0.99),
        }
    }

    fn of_points(it: &Points) -> Self {
        let said = it.said.as_ref();
        Self {
            points: Some(it.points),
            paper_deviation: said.map(|said| said.error),
            paper_low: said.map(|said| said.interval.0),
            paper_high: said.map(|said| said.interval.1),
            ..Self::of("points", "ring", points::SEATS, &it.rings)
        }
    }

    fn of_evenness(it: &Evenness) -> Self {
        Self::of("placements", it.kind.name(), it.seats, &it.fleets)
    }

    fn of_measured(it: &Measured) -> Self {
        Self::of("keys", it.kind.name(), evenness::MOST, &it.fleets)
    }
}
