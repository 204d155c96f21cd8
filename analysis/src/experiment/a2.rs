//! how the load spreads over two to six replicas of the classic ring.

use serde::Serialize;

use super::{Measured, Problems, SEATS, Setup, Variant};
use crate::chart::lines::{Line, LineFigure, Panel, Point, Side};
use crate::chart::{self, Key, Marker, Scale, Sign, Stroke, theme};
use crate::report::{Table, thousands};
use crate::stats::Spread;

/// A line of the CSV files of.
#[derive(Serialize)]
pub(super) struct Row {
    placement: &'static str,
    replicas: usize,
    requests: u64,
    failed: u64,
    mean: f64,
    standard_deviation: f64,
    max_over_mean: f64,
    exact_standard_deviation: f64,
    exact_max_over_mean: f64,
    /// From seat 1, with blanks between them.
    answered: String,
}

/// Measures, writes `a2.csv`, `a2.md`, `a2.svg`, `a2.png`.
///
/// # Errors
/// When the balancer or a file is not as it should be.
pub(crate) async fn run(setup: &Setup) -> anyhow::Result<Problems> {
    let mut all = Vec::new();
    for seats in SEATS {
        all.push(setup.measure(Variant::Classic, seats).await?);
    }
    setup.report.csv("a2.csv", &all.iter().map(row).collect::<Vec<_>>())?;
    chart::save(&figure(&all), &setup.report.path("a2"))?;
    setup.report.section("a2", &text(setup, &all))?;
    Ok(all.iter().flat_map(Measured::problems).collect())
}

/// The spread of one measurement.
pub(super) fn row(measured: &Measured) -> Row {
    let (spread, expected) = (measured.spread(), measured.expected_spread());
    let counts: Vec<String> = measured.counts().iter().map(u64::to_string).collect();
    Row {
        placement: measured.variant.name(),
        replicas: measured.replicas.len(),
        requests: measured.summary.requests,
        failed: measured.summary.failed(),
        mean: spread.mean,
        standard_deviation: spread.deviation,
        max_over_mean: spread.max_over_mean,
        exact_standard_deviation: expected.deviation,
        exact_max_over_mean: expected.max_over_mean,
        answered: counts.join(" "),
    }
}

/// The numbers of replicas, as words below an axis.
pub(super) fn ticks() -> Vec<(f64, String)> {
    SEATS.map(|seats| (f64::from(seats), seats.to_string())).collect()
}

/// A line through one figure of each measurement.
pub(super) fn line(
    all: &[&Measured],
    stroke: Stroke,
    marker: Marker,
    value: impl Fn(&Spread) -> (f64, String),
    side: impl Fn(usize) -> Side,
) -> Line {
    let point = |(index, measured): (usize, &&Measured)| {
        let (y, label) = value(&measured.spread());
        Point { x: measured.replicas.len() as f64, y, label, side: side(index) }
    };
    Line { stroke, marker, points: all.iter().enumerate().map(point).collect() }
}

pub(super) fn figure(all: &[Measured]) -> LineFigure {
    let all: Vec<&Measured> = all.iter().collect();
    let whole = |value: f64| (value, thousands(value.round() as u64));
    let average = Stroke::solid(theme::BLUE, 3);
    let deviation = Stroke::dashed(theme::VERMILLION, 3, 12.0, 7.0);
    let worst = Stroke::dashed(theme::GREEN, 3, 3.0, 5.0);
    let dots = all
        .iter()
        .flat_map(|measured| {
            measured
                .counts()
                .into_iter()
                .map(|count| (measured.replicas.len() as f64, count as f64))
        })
        .collect();
    LineFigure {
        title: "A-2: with more replicas the average falls, and the imbalance grows".to_owned(),
        subtitle: format!(
            "{} async requests for each N on the classic ring. The average is requests / N whatever \
             the placement does: the spread is what tells.",
            thousands(all.first().map_or(0, |measured| measured.summary.requests))
        ),
        keys: vec![
            key("average", average, Marker::Circle),
            key("standard deviation over the replicas", deviation, Marker::Triangle),
            Key {
                name: "single replicas".to_owned(),
                sign: Sign::Dot(theme::PALE, Marker::Circle),
            },
            key("busiest / average", worst, Marker::Square),
        ],
        x_title: "replicas, N".to_owned(),
        x_ticks: ticks(),
        panels: vec![
            Panel {
                title: "Load of a replica".to_owned(),
                y_title: "requests a replica".to_owned(),
                y_scale: Scale::Linear,
                lines: vec![
                    line(
                        &all,
                        average,
                        Marker::Circle,
                        |spread| whole(spread.mean),
                        |index| {
                            if index == 0 { Side::Above } else { Side::Below }
                        },
                    ),
                    line(
                        &all,
                        deviation,
                        Marker::Triangle,
                        |spread| whole(spread.deviation),
                        |index| {
                            if index == 0 { Side::Below } else { Side::Above }
                        },
                    ),
                ],
                dots,
                reference: None,
            },
            Panel {
                title: "Busiest replica against the average (1 = even)".to_owned(),
                y_title: "busiest / average".to_owned(),
                y_scale: Scale::Linear,
                lines: vec![line(
                    &all,
                    worst,
                    Marker::Square,
                    |spread| (spread.max_over_mean, format!("{:.2}", spread.max_over_mean)),
                    |_| Side::Above,
                )],
                dots: Vec::new(),
                reference: Some(1.0),
            },
        ],
    }
}

/// The legend of a line.
pub(super) fn key(name: &str, stroke: Stroke, marker: Marker) -> Key {
    Key { name: name.to_owned(), sign: Sign::Line(stroke, Some(marker)) }
}

fn text(setup: &Setup, all: &[Measured]) -> String {
    let mut table = Table::new(&[
        ">N",
        ">average",
        ">standard deviation",
        ">by the exact shares",
        ">busiest / average",
        ">by the exact shares",
        "requests by replica",
        ">failed",
    ]);
    for measured in all {
        let (spread, expected) = (measured.spread(), measured.expected_spread());
        let counts: Vec<String> = measured.counts().into_iter().map(thousands).collect();
        table.row([
            measured.replicas.len().to_string(),
            format!("{:.1}", spread.mean),
            format!("{:.1}", spread.deviation),
            format!("{:.1}", expected.deviation),
            format!("{:.3}", spread.max_over_mean),
            format!("{:.3}", expected.max_over_mean),
            counts.join(" · "),
            measured.summary.failed().to_string(),
        ]);
    }
    format!("{}\n{}", table.markdown(), setup.provenance_of_load())
}
