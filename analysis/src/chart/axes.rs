//! A pair of axes on a part of the page, drawn by plotters, and where values lie on it.

use std::ops::Range;

use plotters::prelude::{ChartBuilder, DrawingBackend, IntoFont};
use plotters::style::{Color, ShapeStyle, TextStyle};

use super::mark::Stroke;
use super::page::{At, Look, Page};
use super::theme::{BODY, FONT_FAMILY, GREY, GRID, INK, SMALL};
use plotters::style::text_anchor::{HPos, VPos};

/// What the axes are.
#[derive(Clone, Debug)]
pub(crate) struct Axes {
    /// The part of the page that they take with their labels: left top, right bottom.
    pub(crate) within: (At, At),
    pub(crate) x: Range<f64>,
    pub(crate) y: Range<f64>,
    pub(crate) y_scale: Scale,
    /// With its unit.
    pub(crate) x_title: String,
    /// With its unit.
    pub(crate) y_title: String,
    pub(crate) x_ticks: Ticks,
}

/// What stands below the x axis.
#[derive(Clone, Debug)]
pub(crate) enum Ticks {
    /// These words at these values, without grid lines.
    Words(Vec<(f64, String)>),
    /// About so many round numbers.
    Numbers(usize),
}

/// How far apart values lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// By their difference.
    Linear,
    /// By their ratio; all must be above 0.
    Log,
}

/// Where values lie on the page.
#[derive(Clone, Debug)]
pub(crate) struct Plot {
    /// Left and right edge.
    pub(crate) x_span: Range<i32>,
    /// Top and bottom edge.
    pub(crate) y_span: Range<i32>,
    x: Range<f64>,
    y: Range<f64>,
    y_scale: Scale,
}

// === impl Axes ===

impl Axes {
    /// Draws them.
    ///
    /// # Errors
    /// When the page cannot be drawn on.
    pub(crate) fn draw<DB: DrawingBackend>(&self, page: &Page<'_, DB>) -> anyhow::Result<Plot>
    where
        DB::ErrorType: 'static,
    {
        let ((left, top), (right, bottom)) = self.within;
        let area = page.area.clone().shrink((left, top), (right - left, bottom - top));
        let mut chart = ChartBuilder::on(&area)
            .margin_top(12)
            .margin_right(16)
            .x_label_area_size(if self.x_title.is_empty() { 38 } else { 62 })
            .y_label_area_size(88)
            .build_cartesian_2d(self.x.clone(), self.y_scale.range(&self.y))?;

        let font =
            |em: f64, color| TextStyle::from((FONT_FAMILY, em * 1.24).into_font()).color(color);
        // What lies below zero is room for words.
        let number = |value: &f64| label(*value);
        let mut mesh = chart.configure_mesh();
        mesh.light_line_style(ShapeStyle::from(GRID.mix(0.0)))
            .bold_line_style(ShapeStyle::from(GRID).stroke_width(1))
            .axis_style(ShapeStyle::from(GREY).stroke_width(1))
            .label_style(font(SMALL, &GREY))
            .axis_desc_style(font(BODY, &INK))
            .y_labels(6)
            .y_label_formatter(&number)
            .y_desc(self.y_title.clone())
            .x_desc(self.x_title.clone());
        match &self.x_ticks {
            Ticks::Words(_) => mesh.disable_x_mesh().x_labels(0),
            Ticks::Numbers(count) => mesh.x_labels(*count).x_label_formatter(&number),
        };
        if self.y_scale == Scale::Log {
            mesh.disable_y_mesh().y_labels(0);
        }
        if self.y.start < 0.0 {
            // The axis is at zero, with room for words below it.
            mesh.disable_x_axis();
        }
        mesh.draw()?;

        let (x_span, y_span) = chart.plotting_area().get_pixel_range();
        let (x, y) = (self.x.clone(), self.y.clone());
        let plot = Plot { x_span, y_span, x, y, y_scale: self.y_scale };
        if self.y_scale == Scale::Log {
            plot.draw_steps(page)?;
        }
        if let Ticks::Words(words) = &self.x_ticks {
            let look = Look { h: HPos::Center, v: VPos::Top, ..Look::BODY };
            for (value, word) in words {
                page.text(word, (plot.x(*value), plot.y_span.end + 9), look)?;
            }
        }
        Ok(plot)
    }
}

/// A number as people write it: `8,000`, `0.25`, `−5`.
fn label(value: f64) -> String {
    let rounded = (value * 1e6).round() / 1e6;
    let sign = if rounded < 0.0 { "−" } else { "" };
    let magnitude = rounded.abs();
    if magnitude >= 1000.0 && magnitude.fract() == 0.0 {
        format!("{sign}{}", crate::report::thousands(magnitude as u64))
    } else {
        format!("{sign}{magnitude}")
    }
}

/// 1, 2, 5, 10, … as far as they are within the range, which is above 0.
fn steps(range: &Range<f64>) -> Vec<f64> {
    let (first, last) = (range.start.log10().floor() as i32, range.end.log10().ceil() as i32);
    (first..=last)
        .flat_map(|power| [1.0, 2.0, 5.0].map(|step| step * 10_f64.powi(power)))
        .filter(|step| range.contains(step))
        .collect()
}

// === impl Scale ===

impl Scale {
    /// Where a value lies, in no unit.
    fn place(self, value: f64) -> f64 {
        match self {
            Scale::Linear => value,
            Scale::Log => value.log10(),
        }
    }

    fn range(self, range: &Range<f64>) -> Range<f64> {
        self.place(range.start)..self.place(range.end)
    }
}

// === impl Plot ===

impl Plot {
    /// Where `value` lies horizontally.
    pub(crate) fn x(&self, value: f64) -> i32 {
        place(value, &self.x, f64::from(self.x_span.start), f64::from(self.x_span.end))
    }

    /// Where `value` lies vertically.
    pub(crate) fn y(&self, value: f64) -> i32 {
        let (value, range) = (self.y_scale.place(value), self.y_scale.range(&self.y));
        place(value, &range, f64::from(self.y_span.end), f64::from(self.y_span.start))
    }

    /// Grid lines with their values.
    fn draw_steps<DB: DrawingBackend>(&self, page: &Page<'_, DB>) -> anyhow::Result<()>
    where
        DB::ErrorType: 'static,
    {
        let look = Look { em: SMALL, color: GREY, h: HPos::Right, ..Look::BODY };
        for step in steps(&self.y) {
            self.across(page, step, Stroke::solid(GRID, 1))?;
            page.text(&label(step), (self.x_span.start - 9, self.y(step)), look)?;
        }
        Ok(())
    }

    /// A line across the plot at `value`.
    pub(crate) fn across<DB: DrawingBackend>(
        &self,
        page: &Page<'_, DB>,
        value: f64,
        stroke: Stroke,
    ) -> anyhow::Result<()>
    where
        DB::ErrorType: 'static,
    {
        let y = self.y(value);
        page.line(&[(self.x_span.start, y), (self.x_span.end, y)], stroke)
    }
}

fn place(value: f64, range: &Range<f64>, from: f64, to: f64) -> i32 {
    let part = (value - range.start) / (range.end - range.start);
    (from + part * (to - from)).round() as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_lie_between_the_edges_and_y_grows_upwards() {
        let (x, y) = (0.0..4.0, 0.0..5.0);
        let plot = Plot { x_span: 100..200, y_span: 10..60, x, y, y_scale: Scale::Linear };
        assert_eq!((plot.x(0.0), plot.x(1.0), plot.x(4.0)), (100, 125, 200));
        assert_eq!((plot.y(0.0), plot.y(1.0), plot.y(5.0)), (60, 50, 10));
    }

    #[test]
    fn equal_factors_are_equally_far_apart_on_a_logarithmic_axis() {
        let (x, y) = (0.0..1.0, 1.0..100.0);
        let plot = Plot { x_span: 0..10, y_span: 0..100, x, y, y_scale: Scale::Log };
        assert_eq!((plot.y(1.0), plot.y(10.0), plot.y(100.0)), (100, 50, 0));
        assert_eq!(steps(&(4.0..120.0)), [5.0, 10.0, 20.0, 50.0, 100.0]);
        assert_eq!(steps(&(0.3..1.5)), [0.5, 1.0]);
    }

    #[test]
    fn labels_are_numbers_as_people_write_them() {
        for (value, text) in
            [(0.0, "0"), (8_000.0, "8,000"), (0.1 + 0.2, "0.3"), (-50.0, "−50"), (2.5, "2.5")]
        {
            assert_eq!(label(value), text);
        }
    }
}
