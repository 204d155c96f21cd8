//! What the classic ring leaves in the report folder.

use std::collections::BTreeMap;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::{Change, REQUESTS, Row, SIGMAS, SLOTS};
use crate::chart::bars::{Bar, BarFigure, Group};
use crate::chart::{self, Fill, Key, Sign, theme};
use crate::experiment::{Problems, SEATS, Setup, Variant};
use crate::report::{Table, thousands};
use crate::stats::{Deviation, Spread};

/// A line of `ring-classic.csv`.
#[derive(Serialize)]
struct Line {
    change: String,
    seats: u32,
    busiest_over_mean: f64,
    deviation_over_mean: f64,
    other_draws: u32,
    other_busiest_mean: Option<f64>,
    other_busiest_least: Option<f64>,
    other_busiest_most: Option<f64>,
    other_deviation_root_mean_square: Option<f64>,
    /// From seat 1, with blanks between them.
    shares: String,
}

/// A line of `a4-shares.csv`, as far as it is read.
#[derive(Debug, Deserialize)]
struct MeasuredShare {
    placement: String,
    replicas: u32,
    requests: u64,
    exact_share: f64,
    answered: u64,
}

/// What A-4 measured of one placement and so many replicas.
#[derive(Clone, Debug)]
pub(super) struct Measured {
    pub(super) change: Change,
    pub(super) seats: u32,
    /// The shares that it expected.
    pub(super) shares: Vec<f64>,
    /// What each replica answered.
    pub(super) answered: Vec<u64>,
}

/// Bars of these N: more have no room.
const SHOWN: [(u32, Fill); 2] = [(3, Fill::Solid(theme::BLUE)), (6, Fill::Solid(theme::ORANGE))];

/// What A-4 found, from its file in the report folder; nothing if there is none.
///
/// # Errors
/// When the file is not what A-4 writes.
pub(super) fn measured(setup: &Setup) -> anyhow::Result<Vec<Measured>> {
    let path = setup.report.path("a4-shares.csv");
    if !path.exists() {
        return Ok(Vec::new());
    }
    let wrap = || format!("cannot read {}", path.display());
    let mut all: BTreeMap<(usize, u32), Measured> = BTreeMap::new();
    for line in csv::Reader::from_path(&path).with_context(wrap)?.deserialize() {
        let line: MeasuredShare = line.with_context(wrap)?;
        let is_it = |(_, variant): &(usize, Variant)| variant.name() == line.placement;
        let known = Variant::ALL.into_iter().enumerate().find(is_it);
        let Some((nth, variant)) = known.filter(|_| line.requests > 0) else { continue };
        let one = all.entry((nth, line.replicas)).or_insert_with(|| Measured {
            change: change_of(variant),
            seats: line.replicas,
            shares: Vec::new(),
            answered: Vec::new(),
        });
        one.shares.push(line.exact_share);
        one.answered.push(line.answered);
    }
    Ok(all.into_values().collect())
}

fn change_of(variant: Variant) -> Change {
    match variant {
        Variant::Classic => Change::AsGiven,
        Variant::ClassicSipHash => Change::SipHash,
        Variant::Ring => Change::Ring(160),
    }
}

// === impl Measured ===

impl Measured {
    fn row<'a>(&self, rows: &'a [Row]) -> Option<&'a Row> {
        rows.iter().find(|row| row.change == self.change && row.seats == self.seats)
    }

    /// The count that is farthest from its exact share, in standard deviations.
    fn off(&self, row: &Row) -> f64 {
        let requests = self.answered.iter().sum();
        let counts = self.answered.iter().zip(&row.shares);
        let off = counts.map(|(answered, share)| Deviation::of(*answered, requests, *share).z);
        off.fold(0.0, |worst: f64, z| if z.abs() > worst.abs() { z } else { worst })
    }

    /// Measured requests that are not those of these shares.
    pub(super) fn problem(&self, rows: &[Row]) -> Option<String> {
        let row = self.row(rows)?;
        let what = format!("{}, N = {}", self.change.name(), self.seats);
        let same = |(here, there): (&f64, &f64)| (here - there).abs() < 1e-12;
        if self.shares.len() != row.shares.len() || !row.shares.iter().zip(&self.shares).all(same) {
            return Some(format!("{what}: A-4 was measured with other shares: measure it again"));
        }
        let off = self.off(row);
        (off.abs() > SIGMAS)
            .then(|| format!("{what}: what A-4 measured is {off:+.1} σ off the shares"))
    }
}

/// Writes `ring-classic.csv`, its chart and its section.
///
/// # Errors
/// When a file cannot be written.
pub(super) fn write(
    setup: &Setup,
    rows: &[Row],
    reached: &[(Change, usize)],
    measured: &[Measured],
    problems: &Problems,
) -> anyhow::Result<()> {
    let report = &setup.report;
    report.csv("ring-classic.csv", &rows.iter().map(line).collect::<Vec<_>>())?;
    chart::save(&figure(rows), &report.path("ring-classic"))?;
    report.section("ring-classic", &text(rows, reached, measured, problems))
}

fn line(row: &Row) -> Line {
    let shares: Vec<String> = row.shares.iter().map(|share| format!("{share:.6}")).collect();
    let others = row.others;
    Line {
        change: row.change.name().replace('`', ""),
        seats: row.seats,
        busiest_over_mean: rounded(row.spread.max_over_mean),
        deviation_over_mean: rounded(row.spread.deviation / row.spread.mean),
        other_draws: others.map_or(0, |it| it.draws),
        other_busiest_mean: others.map(|it| rounded(it.busiest)),
        other_busiest_least: others.map(|it| rounded(it.least)),
        other_busiest_most: others.map(|it| rounded(it.most)),
        other_deviation_root_mean_square: others.map(|it| rounded(it.square.sqrt())),
        shares: shares.join(" "),
    }
}

pub(super) fn figure(rows: &[Row]) -> BarFigure {
    let bar = |row: &Row, fill| Bar {
        value: row.busiest(),
        labels: vec![format!("{:.2}", row.busiest())],
        below: Some(format!("N = {}", row.seats)),
        whisker: None,
        fill,
    };
    let group = |change: Change| Group {
        name: change.short(),
        bars: SHOWN
            .into_iter()
            .filter_map(|(seats, fill)| {
                let row = rows.iter().find(|it| it.change == change && it.seats == seats)?;
                Some(bar(row, fill))
            })
            .collect(),
    };
    BarFigure {
        title: "The classic ring: what each change of the hash buys".to_owned(),
        subtitle: "The busiest seat's exact share of all requests over the average; with SipHash \
                   and ring the mean over many draws of the hash"
            .to_owned(),
        keys: SHOWN
            .map(|(seats, fill)| Key { name: format!("{seats} seats"), sign: Sign::Bar(fill) })
            .to_vec(),
        y_title: "busiest / average".to_owned(),
        groups: Change::ALL.map(group).to_vec(),
        reference: Some((1.0, "even".to_owned())),
    }
}

/// The section.
pub(super) fn text(
    rows: &[Row],
    reached: &[(Change, usize)],
    measured: &[Measured],
    problems: &Problems,
) -> String {
    let slots: Vec<String> = reached
        .iter()
        .map(|(change, slots)| format!("{slots} of {SLOTS} slots ({})", change.name()))
        .collect();
    let mut parts = vec![format!("Requests reach {}.", slots.join(", and "))];
    parts.push(shares_text(rows));
    let by_change = |what: &str, cell: &dyn Fn(&Row) -> String| {
        let heads = SEATS.map(|seats| format!(">N = {seats}"));
        let heads: Vec<String> = [what.to_owned()].into_iter().chain(heads).collect();
        let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
        let mut table = Table::new(&heads);
        for change in Change::ALL {
            let own = rows.iter().filter(|row| row.change == change);
            table.row([change.name()].into_iter().chain(own.map(cell)));
        }
        table.markdown().trim().to_owned()
    };
    parts.push(by_change("busiest / average", &|row| {
        let exact = format!("{:.3}", row.spread.max_over_mean);
        row.others.map_or(exact.clone(), |it| {
            format!("{exact}; {:.3} ({:.2}–{:.2})", it.busiest, it.least, it.most)
        })
    }));
    parts.push(by_change("standard deviation", &|row| {
        let percent = |share: f64| format!("{:.2} %", 100.0 * share);
        let exact = percent(row.spread.deviation / row.spread.mean);
        row.others.map_or(exact.clone(), |it| {
            let expected = row.expected_square().map(|it| format!(" [{}]", percent(it.sqrt())));
            format!("{exact}; {}{}", percent(it.square.sqrt()), expected.unwrap_or_default())
        })
    }));
    let draws = rows.iter().filter_map(|row| row.others).map(|it| it.draws).max().unwrap_or(0);
    parts.push(format!(
        "The first figure is that of seats 1 to N, with the default secret where there is one: \
         A-4's. Behind it the mean over {draws} other draws (least–most; of the deviation the root \
         of the mean square): other secrets of the `ring`, other seats where SipHash has none. In \
         brackets √((N − 1) / (N · v + 1)), which points placed by chance come to, v of them for \
         each seat."
    ));
    parts.push(measured_text(rows, measured));
    parts.push(match problems.is_empty() {
        true => "All of this agrees, or the run would have failed.".to_owned(),
        false => {
            problems.iter().map(|problem| format!("- **{problem}**")).collect::<Vec<_>>().join("\n")
        }
    });
    parts.push("```sh\nanalysis ring --part classic --out report\n```".to_owned());
    parts.join("\n\n")
}

/// The exact shares, in slots.
fn shares_text(rows: &[Row]) -> String {
    let mut table =
        Table::new(&["", ">N", "slots of 512 by seat", ">busiest / average", ">deviation"]);
    for row in rows.iter().filter(|row| row.change == Change::AsGiven) {
        let slots: Vec<String> =
            row.slots().unwrap_or_default().iter().map(u32::to_string).collect();
        table.row([
            "as given".to_owned(),
            row.seats.to_string(),
            slots.join(" · "),
            format!("{:.3}", row.spread.max_over_mean),
            format!("{:.1}", row.spread.deviation),
        ]);
    }
    format!(
        "{}\n\nThe deviation is that of {} requests, as in A-2 and A-4.",
        table.markdown().trim(),
        thousands(REQUESTS)
    )
}

fn measured_text(rows: &[Row], measured: &[Measured]) -> String {
    if measured.is_empty() {
        return "A-4 was not measured: there is no `a4-shares.csv`.".to_owned();
    }
    let mut table = Table::new(&[
        "placement",
        ">N",
        ">busiest / average: exact",
        ">measured by A-4",
        ">worst share off by",
    ]);
    for it in measured {
        let Some(row) = it.row(rows) else { continue };
        table.row([
            it.change.name(),
            it.seats.to_string(),
            format!("{:.3}", row.spread.max_over_mean),
            format!("{:.3}", Spread::of(&it.answered).max_over_mean),
            format!("{:+.2} σ", it.off(row)),
        ]);
    }
    format!(
        "What A-4 measured, beside the shares above; beyond {SIGMAS} σ it would not be chance:\
         \n\n{}",
        table.markdown().trim()
    )
}

fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}
