//! A-4: A-1 and A-2 again with other hash functions, side by side.

use plotters::style::RGBColor;

use super::a1::{self, Row as LoadRow};
use super::a2::{self, Row as SpreadRow};
use super::{Measured, Problems, SEATS, Setup, Variant};
use crate::chart::bars::{Bar, BarFigure, Group};
use crate::chart::lines::{LineFigure, Panel, Side};
use crate::chart::{self, Fill, Marker, Scale, Stroke, theme};
use crate::report::{Table, thousands};
use crate::stats::Spread;

/// Measures all variants, writes `a4-shares.*`, `a4-spread.*` and `a4.md`.
///
/// # Errors
/// When the balancer or a file is not as it should be.
pub(crate) async fn run(setup: &Setup) -> anyhow::Result<Problems> {
    let mut all = Vec::new();
    for variant in Variant::ALL {
        for seats in SEATS {
            all.push(setup.measure(variant, seats).await?);
        }
    }
    let three: Vec<&Measured> =
        all.iter().filter(|measured| measured.replicas.len() == a1::SEATS as usize).collect();
    let shares: Vec<LoadRow> = all.iter().flat_map(a1::rows).collect();
    let spreads: Vec<SpreadRow> = all.iter().map(a2::row).collect();
    setup.report.csv("a4-shares.csv", &shares)?;
    setup.report.csv("a4-spread.csv", &spreads)?;
    chart::save(&shares_figure(&three), &setup.report.path("a4-shares"))?;
    chart::save(&spread_figure(&all), &setup.report.path("a4-spread"))?;
    setup.report.section("a4", &text(setup, &all))?;
    Ok(all.iter().flat_map(Measured::problems).collect())
}

fn color(variant: Variant) -> RGBColor {
    match variant {
        Variant::Classic => theme::BLUE,
        Variant::ClassicSipHash => theme::ORANGE,
        Variant::Ring => theme::GREEN,
    }
}

fn stroke(variant: Variant) -> Stroke {
    match variant {
        Variant::Classic => Stroke::solid(color(variant), 3),
        Variant::ClassicSipHash => Stroke::dashed(color(variant), 3, 12.0, 7.0),
        Variant::Ring => Stroke::dashed(color(variant), 3, 3.0, 5.0),
    }
}

fn marker(variant: Variant) -> Marker {
    match variant {
        Variant::Classic => Marker::Circle,
        Variant::ClassicSipHash => Marker::Triangle,
        Variant::Ring => Marker::Square,
    }
}

pub(super) fn shares_figure(three: &[&Measured]) -> BarFigure {
    let requests = three.first().map_or(0, |measured| measured.summary.requests);
    let even = requests as f64 / f64::from(a1::SEATS);
    let groups = three.iter().map(|measured| Group {
        name: measured.variant.title().to_owned(),
        bars: measured
            .replicas
            .iter()
            .map(|load| Bar {
                value: load.answered as f64,
                labels: vec![
                    thousands(load.answered),
                    format!("{:.1} %", 100.0 * load.answered as f64 / requests.max(1) as f64),
                ],
                below: Some(format!("replica {}", load.seat)),
                whisker: None,
                fill: Fill::Solid(color(measured.variant)),
            })
            .collect(),
    });
    BarFigure {
        title: "A-4: the hash decides: the same requests, three placements".to_owned(),
        subtitle: format!(
            "{} async requests on three replicas; the same ids for each placement",
            thousands(requests)
        ),
        keys: Vec::new(),
        y_title: "requests answered".to_owned(),
        groups: groups.collect(),
        reference: Some((even, format!("an even share: {}", thousands(even.round() as u64)))),
    }
}

pub(super) fn spread_figure(all: &[Measured]) -> LineFigure {
    let lines = |value: &dyn Fn(&Spread) -> (f64, String)| {
        Variant::ALL
            .map(|variant| {
                let own: Vec<&Measured> =
                    all.iter().filter(|measured| measured.variant == variant).collect();
                let side = |_| match variant {
                    Variant::Classic | Variant::ClassicSipHash => Side::Above,
                    Variant::Ring => Side::Below,
                };
                a2::line(&own, stroke(variant), marker(variant), value, side)
            })
            .to_vec()
    };
    LineFigure {
        title: "A-4: a good hash evens the load out, and many points do the rest".to_owned(),
        subtitle: format!(
            "{} async requests for each N and placement; the same ids for all. The average is \
             requests / N for every one of them.",
            thousands(all.first().map_or(0, |measured| measured.summary.requests))
        ),
        keys: Variant::ALL
            .map(|variant| a2::key(variant.title(), stroke(variant), marker(variant)))
            .to_vec(),
        x_title: "replicas, N".to_owned(),
        x_ticks: a2::ticks(),
        panels: vec![
            Panel {
                title: "Standard deviation over the replicas (0 = even)".to_owned(),
                y_title: "standard deviation (requests)".to_owned(),
                y_scale: Scale::Linear,
                lines: lines(&|spread| {
                    (spread.deviation, thousands(spread.deviation.round() as u64))
                }),
                dots: Vec::new(),
                reference: None,
            },
            Panel {
                title: "Busiest replica against the average (1 = even)".to_owned(),
                y_title: "busiest / average".to_owned(),
                y_scale: Scale::Linear,
                lines: lines(&|spread| {
                    (spread.max_over_mean, format!("{:.2}", spread.max_over_mean))
                }),
                dots: Vec::new(),
                reference: Some(1.0),
            },
        ],
    }
}

fn text(setup: &Setup, all: &[Measured]) -> String {
    let mut table = Table::new(&[
        "placement",
        ">N",
        "requests by replica",
        ">standard deviation",
        ">by the exact shares",
        ">busiest / average",
        ">worst share off by",
        ">failed",
    ]);
    for measured in all {
        let counts: Vec<String> = measured.counts().into_iter().map(thousands).collect();
        let spread = measured.spread();
        let worst = measured
            .replicas
            .iter()
            .map(|load| measured.deviation(load).z)
            .fold(0.0_f64, |worst, z| if z.abs() > worst.abs() { z } else { worst });
        table.row([
            measured.variant.title().to_owned(),
            measured.replicas.len().to_string(),
            counts.join(" · "),
            format!("{:.1}", spread.deviation),
            format!("{:.1}", measured.expected_spread().deviation),
            format!("{:.3}", spread.max_over_mean),
            format!("{worst:+.2} σ"),
            measured.summary.failed().to_string(),
        ]);
    }
    format!("{}\n{}", table.markdown(), setup.provenance_of_load())
}
