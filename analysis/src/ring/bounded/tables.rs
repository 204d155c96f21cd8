//! The tables of bounded load.

use balancer::routing::bounded::Factor;

use super::book::{Book, Case, Figure, Mean, Study};
use super::judge::{case_of, effective, in_flight_exact};
use super::order::Order;
use super::{FACTORS, IN_FLIGHT_SEATS, SIZES, Size};
use crate::report::{Table, thousands};

/// The settings of the tables: many balls each, so that caps need no rounding, and few.
pub(super) const MANY: Size = SIZES[0];
pub(super) const FEW: Size = SIZES[1];
pub(super) const ONE: Size = SIZES[2];

pub(super) const MANY_POINTS: Order = Order::Clockwise(Order::MANY);
pub(super) const ONE_POINT: Order = Order::Clockwise(1);

/// Loads under a cap.
pub(super) fn even_text(book: &Book) -> String {
    let orders = [MANY_POINTS, ONE_POINT, Order::Jumps];
    let mut heads = vec![">c".to_owned()];
    for order in orders {
        heads.push(format!(">{}: busiest / mean", order.name()));
        heads.extend([">deviation", ">full"].map(str::to_owned));
    }
    let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
    let mut table = Table::new(&heads);
    for factor in FACTORS.map(Some).into_iter().chain([None]) {
        let mut cells = vec![factor.map_or_else(|| "no bound".to_owned(), |c| c.to_string())];
        for order in orders {
            let get = |figure| book.get(case_of(Study::Placed, order, MANY, factor), figure);
            let show = |figure, write: fn(f64) -> String| {
                get(figure).map_or_else(String::new, |it| write(it.mean))
            };
            cells.push(show(Figure::Busiest, |value| format!("{value:.2}")));
            cells.push(show(Figure::Deviation, percent));
            cells.push(match factor {
                Some(_) => show(Figure::Full, percent),
                None => String::new(),
            });
        }
        table.row(cells);
    }
    format!(
        "#### How even\n\n{} seats, {} balls each, all in; the deviation is the standard deviation \
         of the balls in a seat, over the mean.\n\n{}",
        thousands(MANY.seats.into()),
        MANY.each,
        table.markdown().trim()
    )
}

/// Owners asked, and why so many.
pub(super) fn probes_text(book: &Book) -> String {
    let mut parts = vec!["#### Owners that the next ball asks".to_owned()];
    for size in [MANY, FEW, ONE] {
        let balls = if size.each == 1 { "1 ball" } else { &format!("{} balls", size.each) };
        parts.push(format!(
            "{} seats, {balls} each:\n\n{}",
            thousands(size.seats.into()),
            by_order(size, |order, factor| {
                let case = case_of(Study::Placed, order, size, Some(factor));
                Some(with_error(book.get(case, Figure::Probes)?, 2))
            })
            .trim()
        ));
    }
    parts.push(gains_text(book));
    let mut heirs =
        Table::new(&["points for each seat", ">seats", ">largest heir", ">heirs, as if alike"]);
    for order in [ONE_POINT, MANY_POINTS] {
        for seats in [100, 1_000] {
            let case = Case { study: Study::Heirs, order, seats, each: 1, factor: None };
            let (Some(largest), Some(alike)) =
                (book.get(case, Figure::LargestHeir), book.get(case, Figure::Heirs))
            else {
                continue;
            };
            let points = if order == ONE_POINT { 1 } else { Order::MANY };
            heirs.row([
                points.to_string(),
                thousands(seats.into()),
                percent(largest.mean),
                format!("{:.1}", alike.mean),
            ]);
        }
    }
    parts.push(format!(
        "Who is the next owner of what one seat owns, by the exact shares of the ring with the seat \
         and without it. *Alike*: so many heirs of equal parts would have the same sum of squares.\
         \n\n{}",
        heirs.markdown().trim()
    ));
    parts.join("\n\n")
}

/// By how much jumps shorten the way, over all sizes and c.
fn gains_text(book: &Book) -> String {
    let range = |points: u32| {
        let mut range = (f64::INFINITY, 0.0_f64);
        for (size, factor) in SIZES.into_iter().flat_map(|it| FACTORS.map(|factor| (it, factor))) {
            let probes = |order| {
                let case = case_of(Study::Placed, order, size, Some(factor));
                Some(book.get(case, Figure::Probes)?.mean)
            };
            let (clockwise, jumps) =
                (probes(Order::Clockwise(points)), probes(Order::ThenJumps(points)));
            if let (Some(clockwise), Some(jumps)) = (clockwise, jumps) {
                range = (range.0.min(clockwise / jumps), range.1.max(clockwise / jumps));
            }
        }
        range
    };
    let ((least, most), (one_least, one_most)) = (range(Order::MANY), range(1));
    format!(
        "Of all sizes and c the way clockwise is {least:.2} to {most:.2} times as long as that with \
         jumps where seats have {} points, and {one_least:.1} to {one_most:.0} times as long where \
         they have 1.",
        Order::MANY
    )
}

/// A line for each c, a column for each order.
fn by_order(size: Size, words: impl Fn(Order, f64) -> Option<String>) -> String {
    let heads: Vec<String> = Order::ALL.iter().map(|order| format!(">{}", order.name())).collect();
    let heads: Vec<&str> =
        [">c", ">of the cap"].into_iter().chain(heads.iter().map(String::as_str)).collect();
    let mut table = Table::new(&heads);
    for factor in FACTORS {
        let c = [factor.to_string(), format!("{:.2}", effective(factor, size.each))];
        let cell = |order: Order| words(order, factor).unwrap_or_default();
        table.row(c.into_iter().chain(Order::ALL.map(cell)));
    }
    table.markdown()
}

/// What the paper counts.
pub(super) fn moves_text(book: &Book) -> String {
    let orders = [MANY_POINTS, Order::ThenJumps(Order::MANY), ONE_POINT];
    let mut parts = Vec::new();
    for size in [MANY, FEW] {
        let mut table = Table::new(&[
            "order",
            ">c",
            ">a ball: caps follow",
            ">· ε²",
            ">a ball: caps stay",
            ">all caps grow at once, for each ball",
            ">a seat, over m/n",
            ">· ε²",
        ]);
        for order in orders {
            for factor in FACTORS {
                let get =
                    |study| book.get(case_of(study, order, size, Some(factor)), Figure::Moves);
                let show = |study| get(study).map_or_else(String::new, |it| with_error(it, 2));
                let squared = |study| {
                    let square = (factor - 1.0).powi(2);
                    get(study).map_or_else(String::new, |it| format!("{:.2}", it.mean * square))
                };
                table.row([
                    order.name(),
                    factor.to_string(),
                    show(Study::Ball),
                    squared(Study::Ball),
                    show(Study::BallFixedCap),
                    show(Study::Cap),
                    show(Study::Seat),
                    squared(Study::Seat),
                ]);
            }
        }
        parts.push(format!(
            "{} seats, {} balls each:\n\n{}",
            thousands(size.seats.into()),
            size.each,
            table.markdown().trim()
        ));
    }
    format!("#### Balls that move\n\n{}", parts.join("\n\n"))
}

/// What the balancer does.
pub(super) fn in_flight_text(book: &Book) -> String {
    let mut parts = vec![format!(
        "#### Requests that come and go, {IN_FLIGHT_SEATS} seats\n\nAlways as many are in flight, \
         and each leaves when it likes. None moves: this is what the balancer does. The share of \
         requests that do not go to their first owner; in brackets what random jumps come to \
         exactly:"
    )];
    for size in SIZES.into_iter().filter(|size| size.seats == IN_FLIGHT_SEATS) {
        let table = by_order(size, |order, factor| {
            let case = case_of(Study::InFlight, order, size, Some(factor));
            let share = percent(book.get(case, Figure::Elsewhere)?.mean);
            let Some(known) = Factor::new(factor).filter(|_| order == Order::Jumps) else {
                return Some(share);
            };
            Some(format!("{share} [{}]", percent(in_flight_exact(size, known))))
        });
        parts.push(format!("{} in flight for each seat:\n\n{}", size.each, table.trim()));
    }
    parts.join("\n\n")
}

/// With its standard error, unless that is too small to be written.
pub(super) fn with_error(Mean { mean, error, .. }: Mean, digits: usize) -> String {
    // Its own precision, and no more digits than can be right.
    let digits = if error >= 1.0 { 0 } else { digits };
    match error * 10_f64.powi(digits as i32) < 0.5 {
        true => format!("{mean:.digits$}"),
        false => format!("{mean:.digits$} ± {error:.digits$}"),
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}
