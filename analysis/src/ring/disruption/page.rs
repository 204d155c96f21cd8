//! What disruption leaves in the report folder.

use serde::Serialize;

use super::{Disruption, EXPECTED, REMOVED, charts};
use crate::chart;
use crate::experiment::Setup;
use crate::report::{Table, thousands};
use crate::ring::shares::kind::Kind;

/// A line of `ring-disruption.csv`; shares of all keys.
#[derive(Serialize)]
struct Row {
    placement: &'static str,
    seats: u32,
    removed: u32,
    draws: usize,
    exact: bool,
    must_move: f64,
    moved: f64,
    moved_error: f64,
    moved_over_must: f64,
    needless: f64,
    needless_most: f64,
}

/// Writes files, charts and the section.
///
/// # Errors
/// When a file cannot be written.
pub(super) fn write(setup: &Setup, all: &[Disruption]) -> anyhow::Result<()> {
    let report = &setup.report;
    let rows: Vec<Row> = all.iter().map(row).collect();
    report.csv("ring-disruption.csv", &rows)?;
    chart::save(&charts::moved_figure(all), &report.path("ring-disruption"))?;
    chart::save(&charts::needless_figure(all), &report.path("ring-disruption-needless"))?;
    report.section("ring-disruption", &text(all))
}

fn row(it: &Disruption) -> Row {
    Row {
        placement: it.kind.name(),
        seats: it.seats,
        removed: it.removed,
        draws: it.share.count(),
        exact: it.exact,
        must_move: it.ideal.mean(),
        moved: it.share.mean(),
        moved_error: it.share.error(),
        moved_over_must: it.over_ideal(),
        needless: it.needless.mean(),
        needless_most: it.needless.at(1.0),
    }
}

fn text(all: &[Disruption]) -> String {
    format!(
        "#### One seat removed\n\nShares of all keys. ± is the standard error of the mean; of \
         jump's, which is estimated by 65,536 keys a draw, that of the estimate.\n\n{}\n\
         #### More of them removed: moved / must move\n\n{}\n\
         #### maglev by the paper's way: changed entries, 1,000 backends\n\n{}\n\
         ```sh\nanalysis ring --part disruption --out report\n```",
        one_text(all),
        more_text(all),
        maglev_text(all)
    )
}

fn one_text(all: &[Disruption]) -> String {
    let mut table = Table::new(&[
        "placement",
        ">N",
        ">draws",
        ">must move",
        ">moved",
        ">moved / must",
        ">needless",
        ">expected",
    ]);
    for it in all.iter().filter(|it| it.removed == 1) {
        let expected = EXPECTED
            .iter()
            .find(|expected| it.kind == Kind::Maglev && it.seats == expected.seats)
            .map_or_else(String::new, |expected| format!("{:.2} %", 100.0 * expected.share));
        let error = if it.exact { it.share.error() } else { it.sampling_error() };
        table.row([
            it.kind.name().to_owned(),
            thousands(it.seats.into()),
            it.share.count().to_string(),
            percent(it.ideal.mean()),
            format!("{} ± {:.3}", percent(it.share.mean()), 100.0 * error),
            format!("{:.3}", it.over_ideal()),
            needless(it),
            expected,
        ]);
    }
    table.markdown()
}

fn more_text(all: &[Disruption]) -> String {
    let heads: Vec<String> = REMOVED.iter().map(|removed| format!(">{removed} removed")).collect();
    let heads: Vec<&str> =
        ["placement", ">N"].into_iter().chain(heads.iter().map(String::as_str)).collect();
    let mut table = Table::new(&heads);
    let mut rows: Vec<(Kind, u32)> = all.iter().map(|it| (it.kind, it.seats)).collect();
    rows.dedup();
    for (kind, seats) in rows {
        let cell = |removed: &u32| {
            let alike =
                |it: &&Disruption| it.kind == kind && it.seats == seats && it.removed == *removed;
            let found = all.iter().find(alike);
            found.map_or_else(String::new, |it| format!("{:.3}", it.over_ideal()))
        };
        let cells = [kind.name().to_owned(), thousands(seats.into())];
        table.row(cells.into_iter().chain(REMOVED.iter().map(cell)));
    }
    table.markdown()
}

fn maglev_text(all: &[Disruption]) -> String {
    let mut table = Table::new(&[
        ">backends removed",
        ">must change",
        ">changed of 65,537",
        ">without need",
        ">changed of 655,373",
        ">without need",
    ]);
    for removed in REMOVED {
        let of = |kind| {
            let alike =
                |it: &&Disruption| it.kind == kind && it.seats == 1_000 && it.removed == removed;
            all.iter().find(alike)
        };
        let (Some(small), Some(large)) = (of(Kind::Maglev), of(Kind::LargeMaglev)) else {
            continue;
        };
        table.row([
            format!("{removed} ({:.1} %)", f64::from(removed) / 10.0),
            percent(small.ideal.mean()),
            percent(small.share.mean()),
            needless(small),
            percent(large.share.mean()),
            needless(large),
        ]);
    }
    table.markdown()
}

fn needless(it: &Disruption) -> String {
    match it.needless.at(1.0) > 0.0 {
        true => percent(it.needless.mean()),
        false => "0".to_owned(),
    }
}

fn percent(share: f64) -> String {
    format!("{:.3} %", 100.0 * share)
}
