//! The charts of the shares.

use plotters::style::RGBColor;

use super::Study;
use super::evenness::{self, Evenness};
use super::kind::Kind;
use super::points::{Points, RINGS, SEATS, Said};
use crate::chart::lines::{Line, LineFigure, Panel, Point, Side};
use crate::chart::{Key, Marker, Scale, Sign, Stroke, theme};
use crate::report::thousands;

const OURS: (RGBColor, Marker) = (theme::GREEN, Marker::Circle);
const DEFAULT: (RGBColor, Marker) = (theme::BLUE, Marker::Square);
const PAPER: (RGBColor, Marker) = (theme::VERMILLION, Marker::Cross);
/// What independent points come to, behind the line of ours.
const EXACT: Stroke = Stroke { color: theme::PALE, width: 9, dash: None };

/// Where so many lie on the axis: equal factors are equally far apart.
fn place(count: u32) -> f64 {
    f64::from(count).log10()
}

fn tick(count: u32) -> (f64, String) {
    (place(count), thousands(count.into()))
}

/// A mark that no line goes through.
fn mark((color, marker): (RGBColor, Marker), x: f64, y: f64, label: String, side: Side) -> Line {
    let points = vec![Point { x, y, label, side }];
    Line { stroke: Stroke::solid(color, 1), marker, points }
}

/// Standard error and 99 % interval over the points of a seat, beside the paper's.
pub(super) fn points_figure(all: &[Points]) -> LineFigure {
    let dot =
        |(color, marker), name: &str| Key { name: name.to_owned(), sign: Sign::Dot(color, marker) };
    LineFigure {
        title: "Shares on a ring: a hundred times the points, a tenth of the error".to_owned(),
        subtitle: format!(
            "{} seats, exact shares relative to an even one; {RINGS} rings for each number of points",
            thousands(SEATS.into())
        ),
        keys: vec![
            dot(OURS, "ring"),
            dot(DEFAULT, "its default, 160 points"),
            dot(PAPER, "Lamping & Veach"),
            Key {
                name: "independent points, about 1 / √points".to_owned(),
                sign: Sign::Line(EXACT, None),
            },
        ],
        x_title: "points a seat".to_owned(),
        // The default has no word of its own: it would lie on that of 100.
        x_ticks: all.iter().filter(|it| it.said.is_some()).map(|it| tick(it.points)).collect(),
        panels: vec![error_panel(all), interval_panel(all)],
    }
}

fn error_panel(all: &[Points]) -> Panel {
    let exact = line(all, EXACT, Points::exact, |_| (String::new(), Side::Above));
    let value = |it: &Points| it.rings.deviation.mean();
    let ours = line(all, Stroke::solid(OURS.0, 2), value, |it| {
        let label = format!("{:.3}", value(it));
        (label, if it.said.is_some() { Side::Above } else { Side::Below })
    });
    let paper = of_paper(all, |said| said.error);
    Panel {
        title: "Standard error of a seat's share".to_owned(),
        y_title: "standard error (even share = 1)".to_owned(),
        y_scale: Scale::Log,
        lines: [exact, ours].into_iter().chain(of_default(all, value)).chain(paper).collect(),
        dots: Vec::new(),
        reference: None,
    }
}

fn interval_panel(all: &[Points]) -> Panel {
    let bound = |value: fn(&Points) -> f64, side| {
        line(all, Stroke::solid(OURS.0, 2), value, move |it| match it.said {
            // That of 100 points is near.
            None => (String::new(), side),
            Some(_) if value(it) < 0.1 => (format!("{:.3}", value(it)), Side::Above),
            Some(_) => (format!("{:.2}", value(it)), side),
        })
    };
    let low = |it: &Points| it.rings.interval().0;
    let high = |it: &Points| it.rings.interval().1;
    let paper = of_paper(all, |said| said.interval.0).chain(of_paper(all, |said| said.interval.1));
    Panel {
        title: "99 % of the seats' shares are between".to_owned(),
        y_title: "share (even share = 1)".to_owned(),
        y_scale: Scale::Log,
        lines: [bound(low, Side::Below), bound(high, Side::Above)]
            .into_iter()
            .chain(of_default(all, low))
            .chain(of_default(all, high))
            .chain(paper)
            .collect(),
        dots: Vec::new(),
        reference: Some(1.0),
    }
}

fn line(
    all: &[Points],
    stroke: Stroke,
    value: impl Fn(&Points) -> f64,
    label: impl Fn(&Points) -> (String, Side),
) -> Line {
    let point = |it: &Points| {
        let (label, side) = label(it);
        Point { x: place(it.points), y: value(it), label, side }
    };
    Line { stroke, marker: OURS.1, points: all.iter().map(point).collect() }
}

fn of_default(all: &[Points], value: impl Fn(&Points) -> f64) -> impl Iterator<Item = Line> {
    let own = all.iter().filter(|it| it.said.is_none());
    own.map(move |it| mark(DEFAULT, place(it.points), value(it), String::new(), Side::Above))
}

fn of_paper(all: &[Points], value: impl Fn(&Said) -> f64) -> impl Iterator<Item = Line> {
    all.iter().filter_map(move |it| {
        let said = it.said.as_ref()?;
        Some(mark(PAPER, place(it.points), value(said), String::new(), Side::Above))
    })
}

/// Busiest over average by N, for every placement.
pub(super) fn evenness_figure(study: &Study) -> LineFigure {
    let all = &study.evenness;
    let mut kinds: Vec<Kind> = all.iter().map(|it| it.kind).collect();
    kinds.dedup();
    let key = |kind: &Kind| {
        let (stroke, marker) = kind.look();
        Key { name: kind.name().to_owned(), sign: Sign::Line(stroke, Some(marker)) }
    };
    LineFigure {
        title: "The busiest seat: points leave much to chance, and more so the more seats"
            .to_owned(),
        subtitle: format!(
            "largest exact share over an even one; mean of {} fleets each. maglev, rendezvous and \
             jump lie on each other, ring and ketama nearly.",
            evenness::FLEETS
        ),
        keys: kinds.iter().map(key).collect(),
        x_title: "seats, N".to_owned(),
        x_ticks: evenness::SEATS.map(tick).to_vec(),
        panels: vec![Panel {
            title: "Largest share over an even one (1 = even)".to_owned(),
            y_title: "busiest / average".to_owned(),
            y_scale: Scale::Log,
            lines: kinds.into_iter().map(|kind| evenness_line(all, kind)).collect(),
            dots: Vec::new(),
            reference: None,
        }],
    }
}

fn evenness_line(all: &[Evenness], kind: Kind) -> Line {
    let (stroke, marker) = kind.look();
    let point = |it: &Evenness| {
        let y = it.fleets.max.mean();
        let label = match kind {
            // There it lies on those that are even.
            Kind::Ring if it.seats == 3 => String::new(),
            Kind::Ring | Kind::RingOfSixteen | Kind::Classic => format!("{y:.2}"),
            Kind::Ketama | Kind::Rendezvous | Kind::Jump | Kind::Maglev | Kind::LargeMaglev => {
                String::new()
            }
        };
        Point { x: place(it.seats), y, label, side: Side::Above }
    };
    let points = all.iter().filter(|it| it.kind == kind).map(point).collect();
    Line { stroke, marker, points }
}
