//! What over-provisioning leaves in the report folder.

use serde::Serialize;

use super::{Method, Provision, SIZES};
use crate::chart::bars::{Bar, BarFigure, Group};
use crate::chart::{self, Fill, Key, Sign, theme};
use crate::experiment::Setup;
use crate::report::{Table, thousands};

/// A line of `ring-provision.csv`; parts of the average.
#[derive(Serialize)]
struct Row {
    method: String,
    entries: u32,
    tables: usize,
    over: f64,
    over_least: f64,
    over_most: f64,
    over_paper: Option<f64>,
    paper_within: Option<bool>,
    under: f64,
}

/// The charted methods, with their names on the chart.
const CHARTED: [(Method, &str, Fill); 6] = [
    (Method::Maglev, "maglev", Fill::Solid(theme::VERMILLION)),
    (Method::Chance, "rendezvous (by chance)", Fill::Solid(theme::PURPLE)),
    (Method::FirstCome, "Karger: points on the entries, first come", Fill::Solid(theme::BLUE)),
    (Method::RingShares, "ring, 1,000 points a seat", Fill::Solid(theme::GREEN)),
    (Method::RingTable, "the same, its table", Fill::Hatched(theme::GREEN)),
    (Method::RingOfEntries, "ring, as many points as entries", Fill::Solid(theme::SKY)),
];

/// Writes files, chart and the section.
///
/// # Errors
/// When a file cannot be written.
pub(super) fn write(setup: &Setup, all: &[Provision]) -> anyhow::Result<()> {
    let report = &setup.report;
    let rows: Vec<Row> = all.iter().map(row).collect();
    report.csv("ring-provision.csv", &rows)?;
    chart::save(&figure(all), &report.path("ring-provision"))?;
    report.section("ring-provision", &text(all))
}

fn row(it: &Provision) -> Row {
    Row {
        method: it.method.name().replace('`', ""),
        entries: it.entries,
        tables: it.over.count(),
        over: it.over.mean(),
        over_least: it.over.at(0.01),
        over_most: it.over.at(0.99),
        over_paper: it.said(),
        paper_within: it.agrees(),
        under: it.under.mean(),
    }
}

/// One group for each size.
fn figure(all: &[Provision]) -> BarFigure {
    let bar = |entries: u32, (method, _, fill): (Method, &str, Fill)| {
        let it = all.iter().find(|it| it.method == method && it.entries == entries)?;
        let mut labels = vec![percent(it.over.mean())];
        labels.extend(it.said().map(|said| format!("({})", percent(said))));
        let two_deviations = 200.0 * it.over.deviation();
        Some(Bar {
            value: 100.0 * it.over.mean(),
            labels,
            below: None,
            whisker: (two_deviations > 0.01).then_some(two_deviations),
            fill,
        })
    };
    let group = |entries: u32| Group {
        name: format!("{} entries", thousands(entries.into())),
        bars: CHARTED.into_iter().filter_map(|charted| bar(entries, charted)).collect(),
    };
    let key = |(_, name, fill): (Method, &str, Fill)| Key {
        name: name.to_owned(),
        sign: Sign::Bar(fill),
    };
    BarFigure {
        title: "Over-provisioning: what the busiest of 1,000 needs beyond its share".to_owned(),
        subtitle: "mean of many tables, in brackets the paper's one; the lines are two standard \
                   deviations of one table either way"
            .to_owned(),
        keys: CHARTED.map(key).to_vec(),
        y_title: "over-provisioning (%)".to_owned(),
        groups: SIZES.into_iter().map(group).collect(),
        reference: None,
    }
}

fn text(all: &[Provision]) -> String {
    let mut table = Table::new(&[
        "table filled by",
        ">entries",
        ">tables",
        ">over-provisioning",
        ">1 to 99 of a hundred",
        ">paper",
        "within",
        ">the emptiest lacks",
    ]);
    for it in all {
        let enough = it.over.count() >= 100;
        let (least, most) = if enough { (0.01, 0.99) } else { (0.0, 1.0) };
        table.row([
            it.method.name().to_owned(),
            thousands(it.entries.into()),
            thousands(it.over.count() as u64),
            format!("{:.2} %", 100.0 * it.over.mean()),
            match it.method {
                Method::Maglev => "always".to_owned(),
                Method::Rendezvous
                | Method::Chance
                | Method::RingShares
                | Method::RingTable
                | Method::RingOfEntries
                | Method::FirstCome => {
                    let range = format!(
                        "{:.1} to {:.1} %",
                        100.0 * it.over.at(least),
                        100.0 * it.over.at(most)
                    );
                    if enough { range } else { format!("{range} (all)") }
                }
            },
            it.said().map_or_else(|| "almost 0".to_owned(), percent),
            match it.agrees() {
                Some(true) => "yes",
                Some(false) => "no",
                None => "–",
            }
            .to_owned(),
            format!("{:.1} %", 100.0 * it.under.mean()),
        ]);
    }
    format!(
        "1,000 backends. *the emptiest lacks*: how much fewer than the average it has.\n\n{}\n\
         ```sh\nanalysis ring --part provision --out report\n```",
        table.markdown()
    )
}

fn percent(part: f64) -> String {
    format!("{:.1} %", 100.0 * part)
}
