//! The charts of F-1 and F-2.

use super::all::{All, Row};
use super::first::{self, Measured, Mode, cost, over_rounds};
use super::page::{PERCENTILES, attempts_in_words, ms};
use crate::chart::bars::{Bar, BarFigure, Group};
use crate::chart::lines::{Line, LineFigure, Panel, Point, Side};
use crate::chart::{Fill, Key, Marker, Scale, Sign, Stroke, theme};
use crate::report::thousands;
use crate::stats::SIGMAS;

const MEASURED: Fill = Fill::Solid(theme::BLUE);
const EXPECTED: Fill = Fill::Hatched(theme::ORANGE);

pub(super) fn attempts_figure(all: &All) -> BarFigure {
    let groups = all.rows().into_iter().map(|row| Group {
        name: match row.attempts {
            1 => "1 attempt".to_owned(),
            _ => format!("{} attempts", attempts_in_words(&row)),
        },
        bars: attempts_bars(&row),
    });
    BarFigure {
        title: "F-1: what one replica drops is sent again, and all carry it out once".to_owned(),
        subtitle: format!(
            "{} POSTs to all of three replicas: attempts at the one that drops one in five at \
             random, and below them the median latency",
            thousands(all.posts.len() as u64)
        ),
        keys: vec![
            Key { name: "measured".to_owned(), sign: Sign::Bar(MEASURED) },
            Key {
                name: "expected, ± 3 standard deviations".to_owned(), sign: Sign::Bar(EXPECTED)
            },
        ],
        y_title: "POSTs".to_owned(),
        groups: groups.collect(),
        reference: None,
    }
}

fn attempts_bars(row: &Row) -> Vec<Bar> {
    let bar = |value: f64, labels, whisker, fill| Bar { value, labels, below: None, whisker, fill };
    let mut words = vec![thousands(row.requests)];
    words.extend(row.latency.map(|(_, median, _)| format!("{:.0} ms", ms(median))));
    let expected = row.deviation.expected;
    let figure = if expected < 10.0 { format!("{expected:.1}") } else { format!("{expected:.0}") };
    vec![
        bar(row.requests as f64, words, None, MEASURED),
        bar(expected, vec![figure], Some(SIGMAS * row.deviation.sigma), EXPECTED),
    ]
}

fn look(mode: Mode) -> (Stroke, Marker) {
    match mode {
        Mode::One => (Stroke::solid(theme::BLUE, 3), Marker::Circle),
        Mode::First(2) => (Stroke::dashed(theme::GREEN, 3, 12.0, 7.0), Marker::Square),
        Mode::First(_) => (Stroke::solid(theme::VERMILLION, 3), Marker::Diamond),
        Mode::HedgedByQuantile => (Stroke::dashed(theme::ORANGE, 3, 3.0, 5.0), Marker::Triangle),
        Mode::HedgedByTime => (Stroke::dashed(theme::PURPLE, 3, 7.0, 4.0), Marker::Cross),
    }
}

pub(super) fn latency_figure(runs: &[Measured], rate: f64) -> LineFigure {
    let requests = runs.first().map_or(0, |run| run.summary.requests);
    let key = |mode: Mode| {
        let (stroke, marker) = look(mode);
        let name = format!("{} (× {:.2})", mode.name(), cost(mode, runs));
        Key { name, sign: Sign::Line(stroke, Some(marker)) }
    };
    let ticks = (0_u32..).zip(PERCENTILES);
    LineFigure {
        title: "F-2: a second replica cuts the slow end off, if it is asked in time".to_owned(),
        subtitle: format!(
            "{} GETs a round, {rate} a second, at six replicas: {} ms, {} % of them {} times as \
             long; in parentheses: requests at replicas",
            thousands(requests),
            first::USUAL.as_millis(),
            100.0 * first::SLOW_SHARE,
            first::SLOW_FACTOR
        ),
        keys: Mode::ALL.map(key).to_vec(),
        x_title: "percentile of the requests".to_owned(),
        x_ticks: ticks.map(|(index, (name, _))| (f64::from(index), name.to_owned())).collect(),
        panels: vec![Panel {
            title: "Latency, medians of the rounds (labels: the slowest and the fastest)"
                .to_owned(),
            y_title: "latency (ms)".to_owned(),
            y_scale: Scale::Log,
            lines: Mode::ALL.map(|mode| latency_line(mode, runs)).to_vec(),
            dots: Vec::new(),
            reference: None,
        }],
    }
}

/// The line of a mode, with labels where it is the slowest or the fastest of all.
fn latency_line(mode: Mode, runs: &[Measured]) -> Line {
    let (stroke, marker) = look(mode);
    let median = |mode, index| over_rounds(mode, runs, index).map_or(1.0, |rounds| rounds.median);
    let points = (0..PERCENTILES.len()).map(|index| {
        let y = median(mode, index);
        let is_slowest = Mode::ALL.iter().all(|other| median(*other, index) <= y);
        let is_fastest = Mode::ALL.iter().all(|other| median(*other, index) >= y);
        let label = match is_slowest || is_fastest {
            true if y < 10.0 => format!("{y:.1}"),
            true => format!("{y:.0}"),
            false => String::new(),
        };
        let side = if is_slowest { Side::Above } else { Side::Below };
        Point { x: index as f64, y, label, side }
    });
    Line { stroke, marker, points: points.collect() }
}
