//! how 10,000 requests fall on three replicas of the classic ring, beside its exact shares.

use serde::Serialize;

use super::{Measured, Problems, Setup, Variant};
use crate::chart::bars::{Bar, BarFigure, Group};
use crate::chart::{self, Fill, Key, Sign, theme};
use crate::report::{Table, thousands};
use crate::stats::SIGMAS;

/// Seats of this experiment.
pub(super) const SEATS: u32 = 3;

/// A line of the CSV files of.
#[derive(Serialize)]
pub(super) struct Row {
    placement: &'static str,
    replicas: usize,
    seat: u32,
    requests: u64,
    exact_share: f64,
    expected: f64,
    sigma: f64,
    owned_ids: u64,
    answered: u64,
    z: f64,
}

/// Measures, writes `a1.csv`, `a1.md`, `a1.svg`, `a1.png`.
///
/// # Errors
/// When the balancer or a file is not as it should be.
pub(crate) async fn run(setup: &Setup) -> anyhow::Result<Problems> {
    let measured = setup.measure(Variant::Classic, SEATS).await?;
    setup.report.csv("a1.csv", &rows(&measured))?;
    chart::save(&figure(&measured), &setup.report.path("a1"))?;
    setup.report.section("a1", &text(setup, &measured))?;
    Ok(measured.problems())
}

/// One row a seat.
pub(super) fn rows(measured: &Measured) -> Vec<Row> {
    let row = |load: &super::Load| {
        let deviation = measured.deviation(load);
        Row {
            placement: measured.variant.name(),
            replicas: measured.replicas.len(),
            seat: load.seat,
            requests: measured.summary.requests,
            exact_share: load.share,
            expected: deviation.expected,
            sigma: deviation.sigma,
            owned_ids: load.owned,
            answered: load.answered,
            z: deviation.z,
        }
    };
    measured.replicas.iter().map(row).collect()
}

pub(super) fn figure(measured: &Measured) -> BarFigure {
    let (answered, exact) = (Fill::Solid(theme::BLUE), Fill::Hatched(theme::ORANGE));
    let requests = measured.summary.requests;
    let percent = |part: f64| format!("{:.2} %", 100.0 * part);
    let groups = measured.replicas.iter().map(|load| {
        let deviation = measured.deviation(load);
        Group {
            name: format!("replica {}", load.seat),
            bars: vec![
                Bar {
                    value: load.answered as f64,
                    labels: vec![
                        thousands(load.answered),
                        percent(load.answered as f64 / requests.max(1) as f64),
                    ],
                    below: None,
                    whisker: None,
                    fill: answered,
                },
                Bar {
                    value: deviation.expected,
                    labels: vec![thousands(deviation.expected.round() as u64), percent(load.share)],
                    below: None,
                    whisker: Some(SIGMAS * deviation.sigma),
                    fill: exact,
                },
            ],
        }
    });
    BarFigure {
        title: "A-1: one of three replicas does five sixths of the work".to_owned(),
        subtitle: format!(
            "{} async requests with random six-digit ids on the classic ring: 512 slots, \
             9 virtual nodes a replica, H(i) = i² + 2i + 17",
            thousands(requests)
        ),
        keys: vec![
            Key { name: "measured".to_owned(), sign: Sign::Bar(answered) },
            Key {
                name: "exact share of the placement, ± 3 standard deviations".to_owned(),
                sign: Sign::Bar(exact),
            },
        ],
        y_title: "requests answered".to_owned(),
        groups: groups.collect(),
        reference: Some((
            requests as f64 / f64::from(SEATS),
            format!(
                "an even share: {}",
                thousands((requests as f64 / f64::from(SEATS)).round() as u64)
            ),
        )),
    }
}

fn text(setup: &Setup, measured: &Measured) -> String {
    let mut table =
        Table::new(&["replica", ">exact share", ">expected", ">measured", ">off by", ">owned ids"]);
    for load in &measured.replicas {
        let deviation = measured.deviation(load);
        table.row([
            load.seat.to_string(),
            format!("{:.4} %", 100.0 * load.share),
            format!("{:.1} ± {:.1}", deviation.expected, deviation.sigma),
            thousands(load.answered),
            format!("{:+.2} σ", deviation.z),
            thousands(load.owned),
        ]);
    }
    let verdict = match measured.problems().as_slice() {
        [] => format!("All shares are within {SIGMAS} σ, and no request failed."),
        problems => format!("**Failed:** {}.", problems.join("; ")),
    };
    format!(
        "{}\n{verdict} {} requests went to another replica than the owner of their id. The run took \
         {:.2} s ({} requests/s).\n\n{}",
        table.markdown(),
        measured.moved(),
        measured.summary.wall.as_secs_f64(),
        thousands(measured.summary.rate().round() as u64),
        setup.provenance_of_load()
    )
}
