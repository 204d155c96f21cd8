//! How long the placements take to find an owner and to be built, against the number of seats.
//! Printed and drawn, never judged: times are the machine's. Other crates are beside them in
//! `make placements`.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use balancer::routing::placement::{
    BadTableSize, MaglevConfig, Placement, PlacementConfig, RingConfig, Secret, TableSize,
};
use plotters::style::RGBColor;
use serde::Serialize;

use super::fleet::{built, seats};
use crate::chart::lines::{Line, LineFigure, Panel, Point, Side};
use crate::chart::{self, Key, Marker, Scale, Sign, Stroke, theme};
use crate::experiment::{Problems, Setup};
use crate::load::{self, progress_bar};
use crate::report::{Table, thousands};
use crate::stats::median;

/// What is timed.
const SEATS: [u32; 4] = [10, 100, 1_000, 10_000];
/// Rounds, in each of which every placement has one turn of each kind; the median counts.
const ROUNDS: usize = 7;
/// So long a placement looks keys up in one turn, about.
const TURN: Duration = Duration::from_millis(20);
/// Keys that there are, and those that tell how many fit into a turn.
const KEYS: usize = 65_536;
const TRIED: usize = 64;

/// A placement, and what the chart draws it with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Ring,
    Ketama,
    Maglev,
    Rendezvous,
    Jump,
}

/// One of them with so many seats: the median turn.
#[derive(Clone, Copy, Debug, Serialize)]
struct Timed {
    placement: &'static str,
    seats: u32,
    lookup_ns: f64,
    build_ms: f64,
}

/// Times all, and writes `ring-speed.*`.
///
/// # Errors
/// When a file cannot be written.
pub(super) fn run(setup: &Setup) -> anyhow::Result<Problems> {
    let progress = progress_bar("look-ups and builds");
    let all = SEATS.iter().map(|count| timed(*count)).collect::<anyhow::Result<Vec<_>>>()?;
    progress.finish_and_clear();
    let all = all.concat();
    setup.report.csv("ring-speed.csv", &all)?;
    chart::save(&figure(&all), &setup.report.path("ring-speed"))?;
    setup.report.section("ring-speed", &text(setup, &all))?;
    Ok(Problems::new())
}

/// Every placement over so many seats, in turns.
fn timed(count: u32) -> anyhow::Result<Vec<Timed>> {
    let members = seats(count);
    let keys: Vec<String> = load::request_ids(1, KEYS).iter().map(u32::to_string).collect();
    let configs = Kind::ALL.map(|kind| kind.config(count));
    let placements: Vec<Placement> =
        configs.iter().map(|config| built(config, &members)).collect::<anyhow::Result<_>>()?;
    let fitting: Vec<usize> =
        placements.iter().map(|placement| fitting(placement, &keys)).collect();
    let mut lookups = vec![Vec::new(); placements.len()];
    let mut builds = vec![Vec::new(); placements.len()];
    for _ in 0..ROUNDS {
        for (one, placement) in placements.iter().enumerate() {
            let took = seconds(|| look_up(placement, keys.iter().cycle().take(fitting[one])));
            lookups[one].push(took * 1e9 / fitting[one] as f64);
            let took = seconds(|| drop(black_box(built(&configs[one], &members))));
            builds[one].push(took * 1e3);
        }
    }
    Kind::ALL
        .iter()
        .zip(lookups.iter().zip(&builds))
        .map(|(kind, (lookups, builds))| {
            Ok(Timed {
                placement: kind.config(count).name(),
                seats: count,
                lookup_ns: median(lookups).context("there were rounds")?,
                build_ms: median(builds).context("there were rounds")?,
            })
        })
        .collect()
}

/// How many look-ups fill a turn.
fn fitting(placement: &Placement, keys: &[String]) -> usize {
    let took = seconds(|| look_up(placement, keys.iter().take(TRIED)));
    let fit = TURN.as_secs_f64() / took.max(1e-9) * TRIED as f64;
    (fit as usize).max(1)
}

fn look_up<'a>(placement: &Placement, keys: impl Iterator<Item = &'a String>) {
    keys.for_each(|key| {
        black_box(placement.owners(black_box(key.as_bytes())).next());
    });
}

fn seconds(work: impl FnOnce()) -> f64 {
    let begin = Instant::now();
    work();
    begin.elapsed().as_secs_f64()
}

// === impl Kind ===

impl Kind {
    const ALL: [Self; 5] = [Self::Ring, Self::Ketama, Self::Maglev, Self::Rendezvous, Self::Jump];

    fn config(self, count: u32) -> PlacementConfig {
        match self {
            Kind::Ring => PlacementConfig::Ring(RingConfig::default()),
            Kind::Ketama => PlacementConfig::Ketama,
            Kind::Maglev => PlacementConfig::Maglev(MaglevConfig {
                table_size: table_size(count),
                ..MaglevConfig::default()
            }),
            Kind::Rendezvous => PlacementConfig::Rendezvous(Secret::default()),
            Kind::Jump => PlacementConfig::Jump(Secret::default()),
        }
    }

    fn color(self) -> RGBColor {
        match self {
            Kind::Ring => theme::BLUE,
            Kind::Ketama => theme::SKY,
            Kind::Maglev => theme::ORANGE,
            Kind::Rendezvous => theme::VERMILLION,
            Kind::Jump => theme::GREEN,
        }
    }

    fn marker(self) -> Marker {
        match self {
            Kind::Ring => Marker::Circle,
            Kind::Ketama => Marker::Cross,
            Kind::Maglev => Marker::Square,
            Kind::Rendezvous => Marker::Triangle,
            Kind::Jump => Marker::Diamond,
        }
    }

    fn stroke(self) -> Stroke {
        match self {
            Kind::Ketama => Stroke::dashed(self.color(), 3, 9.0, 6.0),
            Kind::Ring | Kind::Maglev | Kind::Rendezvous | Kind::Jump => {
                Stroke::solid(self.color(), 3)
            }
        }
    }
}

/// The default where that is a hundred entries for each seat, else the next prime that is.
fn table_size(count: u32) -> TableSize {
    let default = TableSize::default();
    match TableSize::new(default.get().max(count.saturating_mul(100))) {
        Ok(size) | Err(BadTableSize::NotPrime { next: size, .. }) => size,
        Err(BadTableSize::Bounds(_)) => default,
    }
}

fn figure(all: &[Timed]) -> LineFigure {
    // Twice the logarithm: the axis has its margins in units.
    let place = |seats: u32| 2.0 * f64::from(seats).log10();
    let lines = |value: &dyn Fn(&Timed) -> f64| {
        Kind::ALL
            .map(|kind| {
                let own = all.iter().filter(|timed| timed.placement == kind.config(1).name());
                let point = |timed: &Timed| Point {
                    x: place(timed.seats),
                    y: value(timed),
                    label: String::new(),
                    side: Side::Above,
                };
                Line {
                    stroke: kind.stroke(),
                    marker: kind.marker(),
                    points: own.map(point).collect(),
                }
            })
            .to_vec()
    };
    let panel = |title: &str, y_title: &str, lines| Panel {
        title: title.to_owned(),
        y_title: y_title.to_owned(),
        y_scale: Scale::Log,
        lines,
        dots: Vec::new(),
        reference: None,
    };
    LineFigure {
        title: "How long a look-up and a build take".to_owned(),
        subtitle: "Six-digit keys; 160 points a seat where there are points, a hundred entries a \
                   seat or 65,537 where there is a table; one core"
            .to_owned(),
        keys: Kind::ALL
            .map(|kind| Key {
                name: kind.config(1).name().to_owned(),
                sign: Sign::Line(kind.stroke(), Some(kind.marker())),
            })
            .to_vec(),
        x_title: "seats, N (logarithmic)".to_owned(),
        x_ticks: SEATS.map(|seats| (place(seats), thousands(seats.into()))).to_vec(),
        panels: vec![
            panel("One look-up", "nanoseconds", lines(&|timed| timed.lookup_ns)),
            panel("One build", "milliseconds", lines(&|timed| timed.build_ms)),
        ],
    }
}

fn text(setup: &Setup, all: &[Timed]) -> String {
    let table = |title: &str, cell: &dyn Fn(&Timed) -> String| {
        let heads = SEATS.map(|seats| format!(">N = {}", thousands(seats.into())));
        let heads: Vec<&str> =
            [title].into_iter().chain(heads.iter().map(String::as_str)).collect();
        let mut table = Table::new(&heads);
        for kind in Kind::ALL {
            let name = kind.config(1).name();
            let own = all.iter().filter(|timed| timed.placement == name).map(cell);
            table.row([format!("`{name}`")].into_iter().chain(own));
        }
        table.markdown()
    };
    format!(
        "{}\n{}\nThe median of {ROUNDS} rounds, in each of which all take their turn. {}",
        table("look-up, ns", &|timed| format!("{:.1}", timed.lookup_ns)),
        table("build, ms", &|timed| format!("{:.3}", timed.build_ms)),
        setup.machine()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_hundred_entries_for_each_seat() {
        let sizes = [1, 655, 656, 10_000].map(|count| table_size(count).get());
        assert_eq!(sizes, [65_537, 65_537, 65_609, 1_000_003]);
    }

    #[test]
    fn every_placement_is_timed_with_so_many_seats() {
        let all = timed(10).unwrap();
        let names: Vec<&str> = all.iter().map(|timed| timed.placement).collect();
        assert_eq!(names, ["ring", "ketama", "maglev", "rendezvous", "jump"]);
        for timed in &all {
            assert!(
                timed.seats == 10 && timed.lookup_ns > 0.0 && timed.build_ms > 0.0,
                "{timed:?}"
            );
        }
        let figure = figure(&all);
        assert!(figure.panels.iter().all(|panel| panel.lines.len() == 5));
        chart::svg_of(&figure).unwrap();
    }
}
