//! The charts of bounded load.

use super::book::{Book, Case, Figure, Study};
use super::judge::{case_of, effective, growth};
use super::order::Order;
use super::{FACTORS, SIZES, Size};
use crate::chart::lines::{Line, LineFigure, Panel, Point, Side};
use crate::chart::{Key, Marker, Scale, Sign, Stroke, theme};
use crate::report::thousands;

const BOUND: Stroke = Stroke { color: theme::GREY, width: 2, dash: Some((3.0, 5.0)) };

/// Places of the x axis, which is logarithmic.
const TICKS: [f64; 6] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.0];

fn look(order: Order) -> (Stroke, Marker) {
    match order {
        Order::Clockwise(1) => (Stroke::solid(theme::VERMILLION, 3), Marker::Square),
        Order::Clockwise(_) => (Stroke::solid(theme::BLUE, 3), Marker::Circle),
        Order::ThenJumps(1) => (Stroke::dashed(theme::ORANGE, 3, 9.0, 6.0), Marker::Triangle),
        Order::ThenJumps(_) => (Stroke::dashed(theme::SKY, 3, 9.0, 6.0), Marker::Diamond),
        Order::Jumps => (Stroke::dashed(theme::GREEN, 3, 3.0, 5.0), Marker::Cross),
    }
}

fn key(order: Order) -> Key {
    let (stroke, marker) = look(order);
    Key { name: order.name(), sign: Sign::Line(stroke, Some(marker)) }
}

/// Twice the logarithm: the axis has its margins in units.
fn place(epsilon: f64) -> f64 {
    2.0 * epsilon.ln()
}

fn ticks() -> Vec<(f64, String)> {
    TICKS.map(|epsilon| (place(epsilon), epsilon.to_string())).to_vec()
}

fn line(book: &Book, case: Case, figure: Figure, rounded_up: bool) -> Line {
    let (stroke, marker) = look(case.order);
    let point = |factor: f64| {
        let y = book.get(Case { factor: Some(factor), ..case }, figure)?.mean;
        let c = if rounded_up { effective(factor, case.each) } else { factor };
        Some(Point { x: place(c - 1.0), y, label: String::new(), side: Side::Above })
    };
    Line { stroke, marker, points: FACTORS.into_iter().filter_map(point).collect() }
}

/// Owners that the next ball asks, over ε.
pub(super) fn probes_figure(book: &Book) -> LineFigure {
    let panel = |size: Size| Panel {
        title: format!("{} seats, {} balls each", thousands(size.seats.into()), size.each),
        y_title: "owners asked by the next ball".to_owned(),
        y_scale: Scale::Log,
        lines: Order::ALL
            .map(|order| {
                line(book, case_of(Study::Placed, order, size, None), Figure::Probes, true)
            })
            .to_vec(),
        dots: Vec::new(),
        reference: Some(1.0),
    };
    LineFigure {
        title: "Bounded load: with many points a seat, jumps gain nothing".to_owned(),
        subtitle: "Each seat has the cap ⌈c · m/n⌉, and all balls but the next are in; c = 1 + ε. \
                   With 10 balls each, ε is that of the cap, rounded up"
            .to_owned(),
        keys: Order::ALL.map(key).to_vec(),
        x_title: "ε (logarithmic)".to_owned(),
        x_ticks: ticks(),
        panels: SIZES.into_iter().take(2).rev().map(panel).collect(),
    }
}

/// The paper's bound has no constant: the least whole one with which all that is counted is below.
fn constant(book: &Book, size: Size) -> f64 {
    let most = [Study::Ball, Study::Seat]
        .map(|study| case_of(study, Order::Clockwise(1), size, None))
        .into_iter()
        .filter_map(|case| growth(book, case, Figure::Moves))
        .map(|growth| growth.constant);
    most.fold(0.0, f64::max).floor() + 1.0
}

/// Balls that move with an update, over ε.
pub(super) fn moves_figure(book: &Book) -> LineFigure {
    let orders =
        [Order::Clockwise(Order::MANY), Order::ThenJumps(Order::MANY), Order::Clockwise(1)];
    let [size, ..] = SIZES;
    let constant = constant(book, size);
    let bound = || {
        let ends = [0.05, 1.0].map(|epsilon: f64| Point {
            x: place(epsilon),
            y: constant / epsilon.powi(2),
            label: String::new(),
            side: Side::Above,
        });
        Line { stroke: BOUND, marker: Marker::Diamond, points: ends.to_vec() }
    };
    let panel = |title: &str, y_title: &str, study| Panel {
        title: title.to_owned(),
        y_title: y_title.to_owned(),
        y_scale: Scale::Log,
        lines: orders
            .map(|order| line(book, case_of(study, order, size, None), Figure::Moves, false))
            .into_iter()
            .chain([bound()])
            .collect(),
        dots: Vec::new(),
        reference: Some(1.0),
    };
    let mut keys: Vec<Key> = orders.map(key).to_vec();
    let sign = Sign::Line(BOUND, Some(Marker::Diamond));
    keys.push(Key { name: format!("{constant}/ε²; the paper: O(1/ε²)"), sign });
    LineFigure {
        title: "Bounded load: fewer balls move than the paper's bound allows".to_owned(),
        subtitle: format!(
            "{} seats, {} balls each; a ball's place depends on who is there, in a fixed order; \
             caps add up to ⌈c · m⌉",
            thousands(size.seats.into()),
            size.each
        ),
        keys,
        x_title: "ε (logarithmic)".to_owned(),
        x_ticks: ticks(),
        panels: vec![
            panel("A ball comes or leaves", "balls that move, itself included", Study::Ball),
            panel("A seat comes or leaves", "balls that move, over m/n", Study::Seat),
        ],
    }
}
