//! The PNG side of the charts: plotters draws on [`Raster`] as it does on SVG, and [`Canvas::save`] makes
//! a smooth picture of it.
//!
//! plotters' bitmap leaves the edges of thick lines and polygons jagged and sets text without the
//! bearings of its letters. So everything is drawn several times larger and averaged down, and
//! text is set here, by the same rules as an SVG viewer sets it: the same page in both files.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use ab_glyph::{Font as _, FontRef, Glyph, OutlinedGlyph, PxScale, ScaleFont as _, point};
use plotters::backend::BitMapBackend;
use plotters_backend::text_anchor::{HPos, VPos};
use plotters_backend::{
    BackendColor, BackendCoord, BackendStyle, BackendTextStyle, DrawingBackend, DrawingErrorKind,
    FontStyle,
};

use super::theme::{BOLD_FONT, REGULAR_FONT};

/// Pixels drawn for each unit of the page.
const DRAWN: u32 = 4;
/// Pixels of the PNG for each unit of the page: sharp on screens of two pixels to the unit.
const SAVED: u32 = 2;
/// plotters counts 1.24 units of its font size to the em.
const SIZE_PER_EM: f64 = 1.24;

type Inner<'a> = BitMapBackend<'a>;
type InnerError<'a> = <Inner<'a> as DrawingBackend>::ErrorType;
type Drawn<'a> = Result<(), DrawingErrorKind<InnerError<'a>>>;

/// A page to draw on; its unit is the unit of an SVG.
pub(super) struct Raster<'a> {
    inner: Inner<'a>,
    size: (u32, u32),
    regular: FontRef<'static>,
    bold: FontRef<'static>,
}

/// A style with the width of its strokes in drawn pixels.
struct Scaled {
    color: BackendColor,
    width: u32,
}

/// The pixels of a page that is to be drawn, RGB.
pub(super) struct Canvas {
    pixels: Vec<u8>,
    size: (u32, u32),
}

// === impl Canvas ===

impl Canvas {
    /// A black page of this size in units.
    pub(super) fn new(size: (u32, u32)) -> Self {
        let count = 3 * (size.0 * DRAWN) as usize * (size.1 * DRAWN) as usize;
        Self { pixels: vec![0; count], size }
    }

    /// To draw on.
    pub(super) fn raster(&mut self) -> Raster<'_> {
        let drawn = (self.size.0 * DRAWN, self.size.1 * DRAWN);
        let font = |bytes| FontRef::try_from_slice(bytes).expect("the fonts in assets/ are fonts");
        Raster {
            inner: BitMapBackend::with_buffer(&mut self.pixels, drawn),
            size: self.size,
            regular: font(REGULAR_FONT),
            bold: font(BOLD_FONT),
        }
    }

    /// Writes the page as PNG.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn save(&self, path: &Path) -> anyhow::Result<()> {
        let (width, height) = (self.size.0 * SAVED, self.size.1 * SAVED);
        let mut encoder = png::Encoder::new(BufWriter::new(File::create(path)?), width, height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        // Large areas of one colour: a third of the size that the usual settings give.
        encoder.set_filter(png::Filter::NoFilter);
        encoder.set_compression(png::Compression::High);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&self.averaged())?;
        writer.finish()?;
        Ok(())
    }

    /// Each saved pixel is the mean of the square of drawn ones that it covers.
    fn averaged(&self) -> Vec<u8> {
        let side = (DRAWN / SAVED) as usize;
        let (width, height) = ((self.size.0 * SAVED) as usize, (self.size.1 * SAVED) as usize);
        let stride = width * side;
        let count = (side * side) as u32;
        let mut saved = Vec::with_capacity(3 * width * height);
        for y in 0..height {
            for x in 0..width {
                let mut sums = [0_u32; 3];
                for row in 0..side {
                    let at = 3 * ((y * side + row) * stride + x * side);
                    for pixel in self.pixels[at..at + 3 * side].chunks_exact(3) {
                        for (sum, value) in sums.iter_mut().zip(pixel) {
                            *sum += u32::from(*value);
                        }
                    }
                }
                saved.extend(sums.map(|sum| u8::try_from(sum / count).unwrap_or(u8::MAX)));
            }
        }
        saved
    }
}

// === impl Scaled ===

impl Scaled {
    fn of(style: &impl BackendStyle) -> Self {
        Self { color: style.color(), width: style.stroke_width() * DRAWN }
    }
}

impl BackendStyle for Scaled {
    fn color(&self) -> BackendColor {
        self.color
    }

    fn stroke_width(&self) -> u32 {
        self.width
    }
}

// === impl Raster ===

fn scaled(at: BackendCoord) -> BackendCoord {
    (at.0 * DRAWN as i32, at.1 * DRAWN as i32)
}

impl Raster<'_> {
    /// The glyphs of `text` on a baseline that begins at 0, and its width, in drawn pixels.
    fn set(font: &FontRef<'static>, text: &str, em: f32) -> (Vec<OutlinedGlyph>, f32) {
        let units = font.units_per_em().unwrap_or(2048.0);
        let scale = PxScale::from(em * font.height_unscaled() / units);
        let scaled = font.as_scaled(scale);
        let mut glyphs = Vec::new();
        let mut x = 0.0;
        let mut before = None;
        for letter in text.chars() {
            let id = font.glyph_id(letter);
            if let Some(before) = before {
                x += scaled.kern(before, id);
            }
            let glyph = Glyph { id, scale, position: point(x, 0.0) };
            glyphs.extend(font.outline_glyph(glyph));
            x += scaled.h_advance(id);
            before = Some(id);
        }
        (glyphs, x)
    }
}

impl<'a> DrawingBackend for Raster<'a> {
    type ErrorType = InnerError<'a>;

    fn get_size(&self) -> (u32, u32) {
        self.size
    }

    fn ensure_prepared(&mut self) -> Drawn<'a> {
        self.inner.ensure_prepared()
    }

    fn present(&mut self) -> Drawn<'a> {
        self.inner.present()
    }

    fn draw_pixel(&mut self, at: BackendCoord, color: BackendColor) -> Drawn<'a> {
        self.draw_rect(at, (at.0 + 1, at.1 + 1), &RgbStyle(color), true)
    }

    fn draw_line<S: BackendStyle>(
        &mut self,
        from: BackendCoord,
        to: BackendCoord,
        style: &S,
    ) -> Drawn<'a> {
        self.draw_path([from, to], style)
    }

    fn draw_rect<S: BackendStyle>(
        &mut self,
        from: BackendCoord,
        to: BackendCoord,
        style: &S,
        fill: bool,
    ) -> Drawn<'a> {
        if !fill {
            let corners = [from, (to.0, from.1), to, (from.0, to.1), from, (to.0, from.1)];
            return self.draw_path(corners, style);
        }
        let (from, to) = (scaled(from), scaled(to));
        let (left, right) = (from.0.min(to.0), from.0.max(to.0));
        let (top, bottom) = (from.1.min(to.1), from.1.max(to.1));
        self.inner.draw_rect((left, top), (right, bottom), &Scaled::of(style), true)
    }

    fn draw_path<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(
        &mut self,
        path: I,
        style: &S,
    ) -> Drawn<'a> {
        let mut points: Vec<BackendCoord> = path.into_iter().map(scaled).collect();
        points.dedup();
        if points.len() < 2 {
            return Ok(());
        }
        self.inner.draw_path(points, &Scaled::of(style))
    }

    fn draw_circle<S: BackendStyle>(
        &mut self,
        center: BackendCoord,
        radius: u32,
        style: &S,
        fill: bool,
    ) -> Drawn<'a> {
        self.inner.draw_circle(scaled(center), radius * DRAWN, &Scaled::of(style), fill)
    }

    fn fill_polygon<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(
        &mut self,
        corners: I,
        style: &S,
    ) -> Drawn<'a> {
        self.inner.fill_polygon(corners.into_iter().map(scaled), &Scaled::of(style))
    }

    /// Sets text as SVG does: the anchor says which point of it is at `at`, and it is turned about
    /// that point.
    fn draw_text<T: BackendTextStyle>(
        &mut self,
        text: &str,
        style: &T,
        at: BackendCoord,
    ) -> Drawn<'a> {
        let em = (style.size() / SIZE_PER_EM) as f32 * DRAWN as f32;
        let font = match style.style() {
            FontStyle::Bold => &self.bold,
            FontStyle::Normal | FontStyle::Oblique | FontStyle::Italic => &self.regular,
        };
        let (glyphs, width) = Self::set(font, text, em);
        let dx = match style.anchor().h_pos {
            HPos::Left => 0.0,
            HPos::Center => -width / 2.0,
            HPos::Right => -width,
        };
        // The shifts of the baseline that plotters' SVG has; an ex of DejaVu Sans is 0.547 em.
        let dy = match style.anchor().v_pos {
            VPos::Top => 0.76 * em,
            VPos::Center => 0.5 * 0.547 * em,
            VPos::Bottom => -0.5 * 0.547 * em,
        };
        let (transform, color, at) = (style.transform(), style.color(), scaled(at));
        let mut pixels = Vec::new();
        for glyph in glyphs {
            let bounds = glyph.px_bounds();
            let left = (bounds.min.x + dx).round() as i32;
            let top = (bounds.min.y + dy).round() as i32;
            glyph.draw(|x, y, coverage| {
                let (x, y) = transform.transform(left + x as i32, top + y as i32);
                pixels.push(((at.0 + x, at.1 + y), f64::from(coverage)));
            });
        }
        for (at, coverage) in pixels {
            let alpha = color.alpha * coverage.min(1.0);
            self.inner.draw_pixel(at, BackendColor { alpha, rgb: color.rgb })?;
        }
        Ok(())
    }
}

/// One colour as a style.
struct RgbStyle(BackendColor);

impl BackendStyle for RgbStyle {
    fn color(&self) -> BackendColor {
        self.0
    }
}
