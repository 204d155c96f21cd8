//! Lines with markers, in panels side by side that share their x axis.

use plotters::prelude::DrawingBackend;
use plotters::style::RGBColor;
use plotters::style::text_anchor::HPos;

use super::Figure;
use super::axes::{Axes, Plot, Scale, Ticks};
use super::mark::{Key, Marker, Stroke};
use super::page::{Look, Page};
use super::theme::{GREY, PALE, SMALL};

/// A line chart.
#[derive(Clone, Debug)]
pub(crate) struct LineFigure {
    pub(crate) title: String,
    pub(crate) subtitle: String,
    pub(crate) keys: Vec<Key>,
    pub(crate) x_title: String,
    /// The values of the x axis, each with its word.
    pub(crate) x_ticks: Vec<(f64, String)>,
    pub(crate) panels: Vec<Panel>,
}

/// A pair of axes with lines.
#[derive(Clone, Debug)]
pub(crate) struct Panel {
    pub(crate) title: String,
    pub(crate) y_title: String,
    pub(crate) y_scale: Scale,
    pub(crate) lines: Vec<Line>,
    /// Single values behind the lines.
    pub(crate) dots: Vec<(f64, f64)>,
    /// A line across the panel.
    pub(crate) reference: Option<f64>,
}

/// One line.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) stroke: Stroke,
    pub(crate) marker: Marker,
    pub(crate) points: Vec<Point>,
}

/// One of its points.
#[derive(Clone, Debug)]
pub(crate) struct Point {
    pub(crate) x: f64,
    pub(crate) y: f64,
    /// The value in words; empty for none.
    pub(crate) label: String,
    pub(crate) side: Side,
}

/// Where a label stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Above,
    Below,
}

/// From a point to the middle of its label.
const DISTANCE: i32 = 19;
/// From the middle of a label to the next line across the panel.
const CLEARANCE: i32 = 14;
/// How far a label goes aside, and from which slope of its line on.
const NUDGE: i32 = 16;
/// Room for labels below the lowest and above the highest point of a logarithmic axis, as a factor.
const LOG_MARGIN: f64 = 1.35;
const STEEP: f64 = 0.4;

impl Figure for LineFigure {
    fn size(&self) -> (u32, u32) {
        (1200, 680)
    }

    fn title(&self) -> &str {
        &self.title
    }

    fn draw<DB: DrawingBackend>(&self, page: &Page<'_, DB>) -> anyhow::Result<()>
    where
        DB::ErrorType: 'static,
    {
        let top = page.heading(&self.title, &self.subtitle, &self.keys)?;
        for (panel, within) in self.panels.iter().zip(page.panels(top, self.panels.len())) {
            let plot = panel.axes(within, &self.x_title, &self.x_ticks).draw(page)?;
            page.panel_title(&panel.title, top, &plot)?;
            panel.draw(page, &plot)?;
        }
        Ok(())
    }
}

impl Panel {
    fn axes(
        &self,
        within: ((i32, i32), (i32, i32)),
        x_title: &str,
        x_ticks: &[(f64, String)],
    ) -> Axes {
        let edge = |value: Option<&(f64, String)>| value.map_or(0.0, |(value, _)| *value);
        let values = self.lines.iter().flat_map(|line| &line.points).map(|point| point.y);
        let lowest = values.clone().fold(f64::INFINITY, f64::min);
        let highest = values
            .chain(self.dots.iter().map(|(_, y)| *y))
            .chain(self.reference)
            .fold(0.0, f64::max);
        // Labels below points that lie low have their place below zero.
        let low = |point: &&Point| point.side == Side::Below && point.y < 0.12 * highest;
        let floor = if self.lines.iter().flat_map(|line| &line.points).any(|point| low(&point)) {
            0.06
        } else {
            0.0
        };
        Axes {
            within,
            x: edge(x_ticks.first()) - 0.45..edge(x_ticks.last()) + 0.45,
            y: match self.y_scale {
                Scale::Linear => -floor * highest..if highest > 0.0 { highest * 1.12 } else { 1.0 },
                Scale::Log => lowest / LOG_MARGIN..highest * LOG_MARGIN,
            },
            y_scale: self.y_scale,
            x_title: x_title.to_owned(),
            y_title: self.y_title.clone(),
            x_ticks: Ticks::Words(x_ticks.to_vec()),
        }
    }

    fn draw<DB: DrawingBackend>(&self, page: &Page<'_, DB>, plot: &Plot) -> anyhow::Result<()>
    where
        DB::ErrorType: 'static,
    {
        let zero = (self.y_scale == Scale::Linear).then_some(0.0);
        if let Some(zero) = zero {
            plot.across(page, zero, Stroke::solid(GREY, 1))?;
        }
        if let Some(value) = self.reference {
            plot.across(page, value, Stroke::dashed(GREY, 2, 8.0, 6.0))?;
        }
        for (x, y) in &self.dots {
            page.marker(Marker::Circle, (plot.x(*x), plot.y(*y)), 5, PALE)?;
        }
        for line in &self.lines {
            let places: Vec<_> =
                line.points.iter().map(|point| (plot.x(point.x), plot.y(point.y))).collect();
            page.line(&places, line.stroke)?;
        }
        // Markers and words lie above all lines.
        for line in &self.lines {
            for point in &line.points {
                page.marker(line.marker, (plot.x(point.x), plot.y(point.y)), 7, line.stroke.color)?;
            }
        }
        let obstacles: Vec<i32> =
            self.reference.iter().chain(&zero).map(|value| plot.y(*value)).collect();
        for line in &self.lines {
            for (index, point) in line.points.iter().enumerate() {
                if point.label.is_empty() {
                    continue;
                }
                let y = plot.y(point.y);
                let shift = match point.side {
                    Side::Above => -DISTANCE,
                    Side::Below => DISTANCE,
                };
                // A steep line into the point, or out of it, would run through the label.
                let slope = |other: Option<&Point>| {
                    other.map_or(0.0, |other| {
                        let run = f64::from((plot.x(other.x) - plot.x(point.x)).abs()).max(1.0);
                        f64::from((plot.y(other.y) - y) * shift.signum()) / run
                    })
                };
                let before = index.checked_sub(1).and_then(|before| line.points.get(before));
                let nudge = match (slope(before) > STEEP, slope(line.points.get(index + 1)) > STEEP)
                {
                    (true, false) => NUDGE,
                    (false, true) => -NUDGE,
                    (true, true) | (false, false) => 0,
                };
                let look = Look {
                    em: SMALL,
                    bold: true,
                    color: darker(line.stroke.color),
                    h: HPos::Center,
                    ..Look::BODY
                };
                let place = (plot.x(point.x) + nudge, beside(&obstacles, y + shift, shift));
                page.text(&point.label, place, look)?;
            }
        }
        Ok(())
    }
}

/// The middle of a label at `y`, moved in its direction until none of the lines runs through it.
fn beside(lines: &[i32], y: i32, direction: i32) -> i32 {
    let hit = lines.iter().find(|line| (y - **line).abs() < CLEARANCE);
    hit.map_or(y, |line| line + CLEARANCE * direction.signum())
}

/// The colour as text: dark enough to be read on white.
fn darker(RGBColor(red, green, blue): RGBColor) -> RGBColor {
    let part = |value: u8| (u32::from(value) * 7 / 10) as u8;
    RGBColor(part(red), part(green), part(blue))
}
