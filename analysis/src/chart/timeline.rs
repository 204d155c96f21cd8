//! What happened when: answers stacked in buckets of time, and below them the latency of each
//! request around the event.

use std::ops::Range;

use plotters::prelude::DrawingBackend;
use plotters::style::RGBColor;

use super::Figure;
use super::axes::{Axes, Plot, Scale, Ticks};
use super::mark::{Fill, Key, Marker, Sign, Stroke};
use super::page::{Look, Page};
use super::theme::{BODY, SMALL};

/// A timeline. All times are in seconds from the start of the load.
#[derive(Clone, Debug)]
pub(crate) struct TimelineFigure {
    pub(crate) title: String,
    pub(crate) subtitle: String,
    /// Those who answer, and the failures: from the bottom of the stack to its top.
    pub(crate) layers: Vec<Layer>,
    /// How long a bucket is.
    pub(crate) bucket: f64,
    pub(crate) marks: Vec<Mark>,
    /// The part of time that the lower panel shows.
    pub(crate) zoom: Range<f64>,
}

/// What one replica did.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    pub(crate) name: String,
    pub(crate) fill: Fill,
    pub(crate) color: RGBColor,
    pub(crate) marker: Marker,
    /// Requests per bucket.
    pub(crate) counts: Vec<u64>,
    /// When each was launched, and its latency in milliseconds.
    pub(crate) requests: Vec<(f64, f64)>,
}

/// A moment.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    pub(crate) at: f64,
    pub(crate) text: String,
    pub(crate) stroke: Stroke,
}

/// Height of a line of a mark's text.
const LINE: i32 = 22;

impl Figure for TimelineFigure {
    fn size(&self) -> (u32, u32) {
        (1200, 940)
    }

    fn title(&self) -> &str {
        &self.title
    }

    fn draw<DB: DrawingBackend>(&self, page: &Page<'_, DB>) -> anyhow::Result<()>
    where
        DB::ErrorType: 'static,
    {
        let keys: Vec<Key> = self
            .layers
            .iter()
            .map(|layer| Key {
                name: layer.name.clone(),
                sign: Sign::BarAndDot(layer.fill, layer.color, layer.marker),
            })
            .collect();
        let top = page.heading(&self.title, &self.subtitle, &keys)?;
        let (width, height) = page.size();
        let middle = top + (height - top) / 2;
        self.draw_buckets(page, ((12, top), (width - 12, middle - 4)))?;
        self.draw_requests(page, ((12, middle + 4), (width - 12, height - 12)))
    }
}

impl TimelineFigure {
    fn draw_buckets<DB: DrawingBackend>(
        &self,
        page: &Page<'_, DB>,
        within: ((i32, i32), (i32, i32)),
    ) -> anyhow::Result<()>
    where
        DB::ErrorType: 'static,
    {
        let buckets = self.layers.iter().map(|layer| layer.counts.len()).max().unwrap_or(0);
        let height = |bucket: usize, below: usize| -> u64 {
            self.layers[..below].iter().filter_map(|layer| layer.counts.get(bucket)).sum()
        };
        let all = self.layers.len();
        let highest = (0..buckets).map(|bucket| height(bucket, all)).max().unwrap_or(0).max(1);
        let plot = Axes {
            within,
            x: 0.0..(buckets.max(1) as f64 * self.bucket),
            // Room for the words of the marks, above the data.
            y: 0.0..highest as f64 * 1.5,
            y_scale: Scale::Linear,
            x_title: "time since the start of the load (s)".to_owned(),
            y_title: format!("answers per {:.0} ms", self.bucket * 1e3),
            x_ticks: Ticks::Numbers(10),
        }
        .draw(page)?;
        for (index, layer) in self.layers.iter().enumerate() {
            for (bucket, count) in layer.counts.iter().enumerate() {
                let bottom = height(bucket, index);
                let (left, right) =
                    (bucket as f64 * self.bucket, (bucket + 1) as f64 * self.bucket);
                if *count > 0 {
                    let from = (plot.x(left), plot.y((bottom + count) as f64));
                    let to = (plot.x(right) - 1, plot.y(bottom as f64));
                    page.bar(from, to, layer.fill)?;
                }
            }
        }
        self.draw_marks(page, &plot, 0.0, 1.0)
    }

    fn draw_requests<DB: DrawingBackend>(
        &self,
        page: &Page<'_, DB>,
        within: ((i32, i32), (i32, i32)),
    ) -> anyhow::Result<()>
    where
        DB::ErrorType: 'static,
    {
        let zero = self.marks.first().map_or(0.0, |mark| mark.at);
        let shown = || {
            self.layers.iter().map(|layer| {
                (layer, layer.requests.iter().filter(|(at, _)| self.zoom.contains(at)))
            })
        };
        let highest =
            shown().flat_map(|(_, requests)| requests).map(|(_, ms)| *ms).fold(1.0, f64::max);
        let plot = Axes {
            within,
            x: (self.zoom.start - zero) * 1e3..(self.zoom.end - zero) * 1e3,
            y: 0.0..highest * 1.5,
            y_scale: Scale::Linear,
            x_title: "launch of the request, from the kill (ms): each mark is one request"
                .to_owned(),
            y_title: "latency (ms)".to_owned(),
            x_ticks: Ticks::Numbers(12),
        }
        .draw(page)?;
        self.draw_marks(page, &plot, zero, 1e3)?;
        for (layer, requests) in shown() {
            for (at, ms) in requests {
                let place = (plot.x((at - zero) * 1e3), plot.y(*ms));
                page.marker(layer.marker, place, 5, layer.color)?;
            }
        }
        Ok(())
    }

    /// Lines at the moments, `(at − zero) · unit` on the axis, with words in lines of their own.
    fn draw_marks<DB: DrawingBackend>(
        &self,
        page: &Page<'_, DB>,
        plot: &Plot,
        zero: f64,
        unit: f64,
    ) -> anyhow::Result<()>
    where
        DB::ErrorType: 'static,
    {
        for (index, mark) in (0..).zip(&self.marks) {
            let x = plot.x((mark.at - zero) * unit);
            let y = plot.y_span.start + 14 + index * LINE;
            page.line(&[(x, y), (x, plot.y_span.end)], mark.stroke)?;
            page.line(&[(x, y), (x + 12, y)], Stroke::solid(mark.stroke.color, 2))?;
            let look = Look { em: if unit > 1.0 { BODY } else { SMALL }, ..Look::BODY };
            page.text_on_paper(&mark.text, (x + 18, y), look)?;
        }
        Ok(())
    }
}
