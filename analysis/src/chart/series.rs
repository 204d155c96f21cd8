//! What went on over time: lines without markers, in panels side by side, each with its own axes.

use plotters::prelude::DrawingBackend;

use super::Figure;
use super::axes::{Axes, Scale, Ticks};
use super::mark::{Key, Stroke};
use super::page::Page;

/// A chart of values over time.
#[derive(Clone, Debug)]
pub(crate) struct SeriesFigure {
    pub(crate) title: String,
    pub(crate) subtitle: String,
    pub(crate) keys: Vec<Key>,
    pub(crate) x_title: String,
    pub(crate) y_title: String,
    pub(crate) y_scale: Scale,
    pub(crate) panels: Vec<Panel>,
}

/// A pair of axes with lines.
#[derive(Clone, Debug)]
pub(crate) struct Panel {
    pub(crate) title: String,
    pub(crate) lines: Vec<Series>,
}

/// A line: seconds and values, of which those of a logarithmic axis are above 0.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) stroke: Stroke,
    pub(crate) points: Vec<(f64, f64)>,
}

/// Room above the highest point and below the lowest, as a factor.
const MARGIN: f64 = 1.15;

impl Figure for SeriesFigure {
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
            let plot = self.axes(panel, within).draw(page)?;
            page.panel_title(&panel.title, top, &plot)?;
            for line in &panel.lines {
                let places: Vec<_> =
                    line.points.iter().map(|(x, y)| (plot.x(*x), plot.y(*y))).collect();
                match line.stroke.dash {
                    // Piece by piece: the corners of a jagged line would be drawn as spikes.
                    None => places.windows(2).try_for_each(|pair| page.line(pair, line.stroke))?,
                    Some(_) => page.line(&places, line.stroke)?,
                }
            }
        }
        Ok(())
    }
}

impl SeriesFigure {
    fn axes(&self, panel: &Panel, within: ((i32, i32), (i32, i32))) -> Axes {
        let points = || panel.lines.iter().flat_map(|line| &line.points);
        let last = points().map(|(x, _)| *x).fold(0.0, f64::max);
        // All panels have the same heights, so that they can be compared.
        let heights = || {
            let lines = self.panels.iter().flat_map(|panel| &panel.lines);
            lines.flat_map(|line| &line.points).map(|(_, y)| *y)
        };
        let highest = heights().fold(f64::MIN_POSITIVE, f64::max);
        let lowest = heights().fold(highest, f64::min);
        Axes {
            within,
            x: 0.0..if last > 0.0 { last } else { 1.0 },
            y: match self.y_scale {
                Scale::Linear => 0.0..highest * MARGIN,
                Scale::Log => lowest / MARGIN..highest * MARGIN,
            },
            y_scale: self.y_scale,
            x_title: self.x_title.clone(),
            y_title: self.y_title.clone(),
            x_ticks: Ticks::Numbers(8),
        }
    }
}
