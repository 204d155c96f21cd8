//! The charts of what moves.

use super::{Disruption, KINDS, REMOVED};
use crate::chart::lines::{Line, LineFigure, Panel, Point, Side};
use crate::chart::{Key, Scale, Sign};
use crate::report::thousands;
use crate::ring::shares::kind::Kind;

/// `classic` has no room for so many.
const SEATS: [u32; 2] = [100, 1_000];
/// Below it, labels would lie on each other.
const LABELLED: f64 = 1.1;

/// What a chart shows.
struct Shown<'a> {
    title: &'a str,
    subtitle: &'a str,
    y_title: &'a str,
    y_scale: Scale,
    kinds: &'a [Kind],
    point: &'a dyn Fn(&Disruption) -> (f64, String, Side),
}

/// Moved over what must move, against the number removed.
pub(super) fn moved_figure(all: &[Disruption]) -> LineFigure {
    let point = |it: &Disruption| {
        let over = it.over_ideal();
        let is_labelled = over >= LABELLED;
        (over, if is_labelled { format!("{over:.2}") } else { String::new() }, Side::Above)
    };
    figure(
        all,
        &Shown {
            title: "Seats leave: ring, ketama, rendezvous and jump move only their keys",
            subtitle: "keys that moved / keys of the seats that left (1 = no others); mean of the \
                       draws. Those four lie on each other.",
            y_title: "moved / must move",
            y_scale: Scale::Log,
            // The last one has no room for so many.
            kinds: &KINDS[..KINDS.len() - 1],
            point: &point,
        },
    )
}

/// Needless moves against the number removed.
pub(super) fn needless_figure(all: &[Disruption]) -> LineFigure {
    let point = |it: &Disruption| {
        let share = 100.0 * it.needless.mean();
        let side = if it.kind == Kind::Maglev { Side::Above } else { Side::Below };
        (share, format!("{share:.2}"), side)
    };
    figure(
        all,
        &Shown {
            title: "Seats leave: what maglev moves without need, by the size of its table",
            subtitle: "keys whose owner stayed and that moved all the same; mean of the draws. \
                       None with ring, ketama, rendezvous and jump.",
            y_title: "of all keys (%)",
            y_scale: Scale::Linear,
            kinds: &[Kind::LargeMaglev, Kind::Maglev],
            point: &point,
        },
    )
}

fn figure(all: &[Disruption], shown: &Shown<'_>) -> LineFigure {
    let key = |kind: &Kind| {
        let (stroke, marker) = kind.look();
        Key { name: kind.name().to_owned(), sign: Sign::Line(stroke, Some(marker)) }
    };
    let panel = |seats: u32| Panel {
        title: format!("N = {}", thousands(seats.into())),
        y_title: shown.y_title.to_owned(),
        y_scale: shown.y_scale,
        lines: shown.kinds.iter().map(|kind| line(all, shown, *kind, seats)).collect(),
        dots: Vec::new(),
        reference: None,
    };
    LineFigure {
        title: shown.title.to_owned(),
        subtitle: shown.subtitle.to_owned(),
        keys: shown.kinds.iter().map(key).collect(),
        x_title: "seats removed".to_owned(),
        x_ticks: REMOVED.map(|removed| (place(removed), removed.to_string())).to_vec(),
        panels: SEATS.map(panel).to_vec(),
    }
}

/// Equal factors are equally far apart.
fn place(removed: u32) -> f64 {
    2.0 * f64::from(removed).log10()
}

fn line(all: &[Disruption], shown: &Shown<'_>, kind: Kind, seats: u32) -> Line {
    let (stroke, marker) = kind.look();
    let point = |it: &Disruption| {
        let (y, label, side) = (shown.point)(it);
        Point { x: place(it.removed), y, label, side }
    };
    let own = all.iter().filter(|it| it.kind == kind && it.seats == seats);
    Line { stroke, marker, points: own.map(point).collect() }
}
