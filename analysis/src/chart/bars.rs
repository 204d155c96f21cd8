//! Bars in groups, with their values on them.

use plotters::prelude::DrawingBackend;
use plotters::style::text_anchor::{HPos, VPos};

use super::Figure;
use super::axes::{Axes, Plot, Scale, Ticks};
use super::mark::{Fill, Key, Sign, Stroke};
use super::page::{Look, Page};
use super::theme::{BODY, GREY, INK, SMALL};

/// A bar chart.
#[derive(Clone, Debug)]
pub(crate) struct BarFigure {
    pub(crate) title: String,
    pub(crate) subtitle: String,
    pub(crate) keys: Vec<Key>,
    pub(crate) y_title: String,
    pub(crate) groups: Vec<Group>,
    /// A line across all bars, and what it says.
    pub(crate) reference: Option<(f64, String)>,
}

/// Bars that stand together.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) bars: Vec<Bar>,
}

/// One bar.
#[derive(Clone, Debug)]
pub(crate) struct Bar {
    pub(crate) value: f64,
    /// Lines of text on top of it: the first in bold.
    pub(crate) labels: Vec<String>,
    /// A word below the axis.
    pub(crate) below: Option<String>,
    /// Half the length of the error bar.
    pub(crate) whisker: Option<f64>,
    pub(crate) fill: Fill,
}

/// Height of a line of text.
const LINE: i32 = 20;
/// The part of a group's width that its bars take, and of a bar's width that is filled.
const GROUP_PART: f64 = 0.78;
const BAR_PART: f64 = 0.86;
/// The line across all bars.
const REFERENCE: Stroke = Stroke { color: GREY, width: 2, dash: Some((8.0, 6.0)) };

impl Figure for BarFigure {
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
        let mut keys = self.keys.clone();
        keys.extend(
            self.reference
                .iter()
                .map(|(_, name)| Key { name: name.clone(), sign: Sign::Line(REFERENCE, None) }),
        );
        let top = page.heading(&self.title, &self.subtitle, &keys)?;
        let (width, height) = page.size();
        let bars = || self.groups.iter().flat_map(|group| &group.bars);
        let highest = bars()
            .map(|bar| bar.value + bar.whisker.unwrap_or(0.0))
            .chain(self.reference.iter().map(|(value, _)| *value))
            .fold(1.0, f64::max);
        let lines = bars().map(|bar| bar.labels.len()).max().unwrap_or(0) as i32;
        // The labels of the highest bar have their place above it.
        let room = f64::from(height - top - 80);
        let y_max = highest * room / (room - f64::from(LINE * lines + 14));

        let words = (0_u32..)
            .zip(&self.groups)
            .map(|(index, group)| (f64::from(index) + 0.5, group.name.clone()))
            .collect();
        let has_words_below = bars().any(|bar| bar.below.is_some());
        let plot = Axes {
            within: ((12, top), (width - 12, height - 14)),
            x: 0.0..self.groups.len().max(1) as f64,
            y: 0.0..y_max,
            y_scale: Scale::Linear,
            // Leaves room for a second line of words below the axis.
            x_title: if has_words_below { " ".to_owned() } else { String::new() },
            y_title: self.y_title.clone(),
            // Words below the bars take the line of the groups' names.
            x_ticks: if has_words_below { Ticks::Words(Vec::new()) } else { Ticks::Words(words) },
        }
        .draw(page)?;

        let reference = self.reference.as_ref().map(|(value, _)| plot.y(*value));
        if let Some((value, _)) = &self.reference {
            plot.across(page, *value, REFERENCE)?;
        }
        for (index, group) in (0_u32..).zip(&self.groups) {
            let slot = GROUP_PART / group.bars.len().max(1) as f64;
            let begin = f64::from(index) + (1.0 - GROUP_PART) / 2.0;
            for (nth, bar) in (0_u32..).zip(&group.bars) {
                let left = begin + slot * (f64::from(nth) + (1.0 - BAR_PART) / 2.0);
                bar.draw(page, &plot, (left, left + slot * BAR_PART), reference)?;
            }
            if has_words_below {
                let look = Look { h: HPos::Center, bold: true, ..Look::BODY };
                let at = (plot.x(f64::from(index) + 0.5), plot.y_span.end + 42);
                page.text(&group.name, at, look)?;
            }
        }
        Ok(())
    }
}

impl Bar {
    fn draw<DB: DrawingBackend>(
        &self,
        page: &Page<'_, DB>,
        plot: &Plot,
        (left, right): (f64, f64),
        reference: Option<i32>,
    ) -> anyhow::Result<()>
    where
        DB::ErrorType: 'static,
    {
        let (left, right) = (plot.x(left), plot.x(right));
        let middle = i32::midpoint(left, right);
        page.bar((left, plot.y(self.value)), (right, plot.y(0.0)), self.fill)?;
        let mut above = plot.y(self.value);
        if let Some(half) = self.whisker {
            let (high, low) = (plot.y(self.value + half), plot.y((self.value - half).max(0.0)));
            let stroke = Stroke::solid(INK, 2);
            page.line(&[(middle, high), (middle, low)], stroke)?;
            page.line(&[(middle - 8, high), (middle + 8, high)], stroke)?;
            page.line(&[(middle - 8, low), (middle + 8, low)], stroke)?;
            above = above.min(high);
        }
        let look = Look { h: HPos::Center, v: VPos::Center, ..Look::BODY };
        // Labels do not let the line across the plot run through them: they go above it.
        let stack = above - LINE * self.labels.len() as i32 - 6..above;
        let mut y = reference.filter(|line| stack.contains(line)).unwrap_or(above) - 14;
        for (index, label) in self.labels.iter().enumerate().rev() {
            let bold = index == 0;
            let em = if bold { BODY } else { SMALL };
            let color = if bold { INK } else { GREY };
            page.text_on_paper(label, (middle, y), Look { em, bold, color, ..look })?;
            y -= LINE;
        }
        if let Some(below) = &self.below {
            let look = Look { em: SMALL, color: GREY, ..look };
            page.text(below, (middle, plot.y_span.end + 17), look)?;
        }
        Ok(())
    }
}
