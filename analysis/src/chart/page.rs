//! What a chart is drawn with: shapes and text at places of the page, in units from its top left
//! corner, and the heading that all charts have.

use plotters::coord::Shift;
use plotters::prelude::{
    Circle, DrawingArea, DrawingBackend, FontTransform, IntoFont, PathElement, Polygon, Rectangle,
    Text,
};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, FontStyle, RGBColor, ShapeStyle, TextStyle};

use super::axes::Plot;
use super::mark::{Fill, Key, Marker, Sign, Stroke, dashes};
use super::theme::{BODY, FONT_FAMILY, GREY, INK, PAPER, SUBTITLE, TITLE};

/// A place on the page.
pub(crate) type At = (i32, i32);

/// A page under the pen.
pub(crate) struct Page<'a, DB: DrawingBackend> {
    pub(super) area: &'a DrawingArea<DB, Shift>,
}

/// How a text looks and which point of it is at its place.
#[derive(Clone, Copy)]
pub(crate) struct Look {
    pub(crate) em: f64,
    pub(crate) color: RGBColor,
    pub(crate) bold: bool,
    pub(crate) h: HPos,
    pub(crate) v: VPos,
    /// Read from below to above.
    pub(crate) upwards: bool,
}

/// Distance of stripes.
const STRIPE: i32 = 9;
/// Width of a sign in the legend.
const SIGN: i32 = 34;

// === impl Look ===

impl Look {
    /// Text of the body's size, beginning at its place, centred on it vertically.
    pub(crate) const BODY: Self =
        Self { em: BODY, color: INK, bold: false, h: HPos::Left, v: VPos::Center, upwards: false };

    fn style(&self) -> TextStyle<'_> {
        // plotters counts 1.24 units of its font size to the em.
        let font = (FONT_FAMILY, self.em * 1.24).into_font();
        let font = if self.bold { font.style(FontStyle::Bold) } else { font };
        let turn = if self.upwards { FontTransform::Rotate270 } else { FontTransform::None };
        TextStyle::from(font.transform(turn)).color(&self.color).pos(Pos::new(self.h, self.v))
    }
}

// === impl Page ===

impl<DB: DrawingBackend> Page<'_, DB>
where
    DB::ErrorType: 'static,
{
    /// Width and height.
    pub(crate) fn size(&self) -> At {
        let (width, height) = self.area.dim_in_pixel();
        (width as i32, height as i32)
    }

    /// How wide `text` is.
    pub(crate) fn width_of(&self, text: &str, look: Look) -> anyhow::Result<i32> {
        let (width, _) = self.area.estimate_text_size(text, &look.style())?;
        // plotters counts its font size as the font's height, of 1.164 em, and sets 1.24 to the em.
        Ok((f64::from(width) * 1.164 / 1.24).ceil() as i32)
    }

    pub(crate) fn text(&self, text: &str, at: At, look: Look) -> anyhow::Result<()> {
        self.area.draw(&Text::new(text.to_owned(), at, look.style()))?;
        Ok(())
    }

    /// Text on a patch of paper, so that lines behind it do not run through it.
    pub(crate) fn text_on_paper(&self, text: &str, at: At, look: Look) -> anyhow::Result<()> {
        let half = (self.width_of(text, look)? / 2 + 1, (look.em * 0.62).round() as i32);
        let middle = match look.h {
            HPos::Left => at.0 + half.0,
            HPos::Center => at.0,
            HPos::Right => at.0 - half.0,
        };
        let (from, to) = ((middle - half.0, at.1 - half.1), (middle + half.0, at.1 + half.1));
        self.rectangle(from, to, PAPER)?;
        self.text(text, at, look)
    }

    pub(crate) fn rectangle(&self, from: At, to: At, color: RGBColor) -> anyhow::Result<()> {
        self.area.draw(&Rectangle::new([from, to], color.filled()))?;
        Ok(())
    }

    pub(crate) fn line(&self, points: &[At], stroke: Stroke) -> anyhow::Result<()> {
        let style = ShapeStyle::from(stroke.color).stroke_width(stroke.width);
        let lines = match stroke.dash {
            None => vec![points.to_vec()],
            Some((line, gap)) => dashes(points, line, gap),
        };
        for line in lines {
            self.area.draw(&PathElement::new(line, style))?;
        }
        Ok(())
    }

    pub(crate) fn bar(&self, from: At, to: At, fill: Fill) -> anyhow::Result<()> {
        let color = match fill {
            Fill::Solid(color) => return self.rectangle(from, to, color),
            Fill::Hatched(color) => color,
        };
        let (left, right) = (from.0.min(to.0), from.0.max(to.0));
        let (top, bottom) = (from.1.min(to.1), from.1.max(to.1));
        self.rectangle((left, top), (right, bottom), PAPER)?;
        // Stripes rise at 45°: on each, x + y is the same.
        let mut sum = (left + top) / STRIPE * STRIPE + STRIPE;
        while sum < right + bottom {
            let (low, high) = ((sum - bottom).max(left), (sum - top).min(right));
            self.line(&[(low, sum - low), (high, sum - high)], Stroke::solid(color, 2))?;
            sum += STRIPE;
        }
        let frame = [(left, bottom), (left, top), (right, top), (right, bottom), (left, bottom)];
        self.line(&frame, Stroke::solid(color, 2))
    }

    /// A mark of about 2 · `radius` units.
    pub(crate) fn marker(
        &self,
        marker: Marker,
        (x, y): At,
        radius: i32,
        color: RGBColor,
    ) -> anyhow::Result<()> {
        let polygon = |corners: Vec<At>| self.area.draw(&Polygon::new(corners, color.filled()));
        let r = radius;
        match marker {
            Marker::Circle => {
                self.area.draw(&Circle::new((x, y), r.unsigned_abs(), color.filled()))?;
            }
            Marker::Square => self.rectangle((x - r, y - r), (x + r, y + r), color)?,
            Marker::Triangle => {
                polygon(vec![(x, y - r - 1), (x + r + 1, y + r), (x - r - 1, y + r)])?;
            }
            Marker::Diamond => {
                let r = r + r / 3;
                polygon(vec![(x, y - r), (x + r, y), (x, y + r), (x - r, y)])?;
            }
            Marker::Cross => {
                let stroke = Stroke::solid(color, 3);
                self.line(&[(x - r, y - r), (x + r, y + r)], stroke)?;
                self.line(&[(x - r, y + r), (x + r, y - r)], stroke)?;
            }
        }
        Ok(())
    }

    /// The frames of `count` panels side by side, below `top`, with room for their titles.
    pub(crate) fn panels(
        &self,
        top: i32,
        count: usize,
    ) -> impl Iterator<Item = (At, At)> + use<DB> {
        let (width, height) = self.size();
        let count = i32::try_from(count.max(1)).unwrap_or(i32::MAX);
        let each = (width - 24) / count;
        (0..count).map(move |index| {
            let left = 12 + index * each;
            ((left, top + 30), (left + each, height - 14))
        })
    }

    /// The title of a panel, over the middle of what is drawn in it.
    pub(crate) fn panel_title(&self, title: &str, top: i32, plot: &Plot) -> anyhow::Result<()> {
        let look = Look { h: HPos::Center, bold: true, ..Look::BODY };
        let middle = i32::midpoint(plot.x_span.start, plot.x_span.end);
        self.text(title, (middle, top + 20), look)
    }

    /// Title, what was measured, and the legend, on white paper. Returns where the rest of the
    /// page begins.
    pub(crate) fn heading(&self, title: &str, subtitle: &str, keys: &[Key]) -> anyhow::Result<i32> {
        self.area.fill(&PAPER)?;
        let left = 28;
        self.text(title, (left, 36), Look { em: TITLE, bold: true, ..Look::BODY })?;
        self.text(subtitle, (left, 68), Look { em: SUBTITLE, color: GREY, ..Look::BODY })?;
        if keys.is_empty() {
            return Ok(88);
        }
        let (mut x, mut y) = (left, 102);
        for key in keys {
            let width = SIGN + 10 + self.width_of(&key.name, Look::BODY)?;
            if x > left && x + width > self.size().0 - left {
                (x, y) = (left, y + 28);
            }
            self.sign(key.sign, (x, y))?;
            self.text(&key.name, (x + SIGN + 10, y), Look::BODY)?;
            x += width + 30;
        }
        Ok(y + 20)
    }

    fn sign(&self, sign: Sign, (x, y): At) -> anyhow::Result<()> {
        match sign {
            Sign::Bar(fill) => self.bar((x, y - 9), (x + SIGN, y + 9), fill),
            Sign::BarAndDot(fill, color, marker) => {
                self.bar((x, y - 9), (x + SIGN - 16, y + 9), fill)?;
                self.marker(marker, (x + SIGN - 4, y), 6, color)
            }
            Sign::Line(stroke, marker) => {
                self.line(&[(x, y), (x + SIGN, y)], stroke)?;
                marker.map_or(Ok(()), |marker| {
                    self.marker(marker, (x + SIGN / 2, y), 6, stroke.color)
                })
            }
            Sign::Dot(color, marker) => self.marker(marker, (x + SIGN / 2, y), 6, color),
        }
    }
}
