//! Charts, drawn by plotters in one look, as SVG and as PNG. No font of the machine is asked for.

mod axes;
pub(crate) mod bars;
pub(crate) mod lines;
mod mark;
mod page;
mod raster;
pub(crate) mod series;
pub(crate) mod theme;
pub(crate) mod timeline;

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use plotters::prelude::{DrawingBackend, IntoDrawingArea as _, SVGBackend};

use raster::Canvas;

pub(crate) use axes::Scale;
pub(crate) use mark::{Fill, Key, Marker, Sign, Stroke};
pub(crate) use page::Page;

/// A chart: data and words, drawn the same way on whatever takes it.
pub(crate) trait Figure {
    /// Width and height of the page, in the units of an SVG.
    fn size(&self) -> (u32, u32);

    /// What it is, for people who do not see it.
    fn title(&self) -> &str;

    /// Draws it on a page of that size.
    ///
    /// # Errors
    /// When the page cannot be drawn on.
    fn draw<DB: DrawingBackend>(&self, page: &Page<'_, DB>) -> anyhow::Result<()>
    where
        DB::ErrorType: 'static;
}

/// Writes the figure to `STEM.svg` and, two pixels a unit, to `STEM.png`.
///
/// # Errors
/// When a file cannot be written.
pub(crate) fn save(figure: &impl Figure, stem: &Path) -> anyhow::Result<()> {
    let svg = stem.with_extension("svg");
    let wrap = || format!("cannot draw {}", svg.display());
    fs::write(&svg, svg_of(figure).with_context(wrap)?).with_context(wrap)?;

    let png = stem.with_extension("png");
    let wrap = || format!("cannot draw {}", png.display());
    let mut canvas = Canvas::new(figure.size());
    let area = canvas.raster().into_drawing_area();
    figure.draw(&Page { area: &area }).with_context(wrap)?;
    drop(area);
    canvas.save(&png).with_context(wrap)
}

/// The figure as the text of an SVG.
///
/// # Errors
/// When it cannot be drawn.
pub(crate) fn svg_of(figure: &impl Figure) -> anyhow::Result<String> {
    theme::register_fonts();
    let mut text = String::new();
    let area = SVGBackend::with_string(&mut text, figure.size()).into_drawing_area();
    figure.draw(&Page { area: &area })?;
    area.present()?;
    drop(area);
    // Readers of the page that do not see it get its name.
    let title = figure.title().replace('&', "&amp;").replace('<', "&lt;");
    Ok(text.replacen(">\n", &format!(" role=\"img\">\n<title>{title}</title>\n"), 1))
}

#[cfg(test)]
mod tests {
    use super::bars::{Bar, BarFigure, Group};
    use super::*;

    fn figure() -> BarFigure {
        let bar = |value: f64, fill| Bar {
            value,
            labels: vec![format!("{value}")],
            below: None,
            whisker: Some(1.0),
            fill,
        };
        BarFigure {
            title: "Bars & more".to_owned(),
            subtitle: "of a test".to_owned(),
            keys: vec![Key { name: "a".to_owned(), sign: Sign::Bar(Fill::Solid(theme::BLUE)) }],
            y_title: "how many (1)".to_owned(),
            groups: vec![Group {
                name: "group".to_owned(),
                bars: vec![
                    bar(3.0, Fill::Solid(theme::BLUE)),
                    bar(0.0, Fill::Hatched(theme::ORANGE)),
                ],
            }],
            reference: Some((2.0, "even".to_owned())),
        }
    }

    #[test]
    fn a_figure_is_written_as_svg_and_as_png_of_twice_the_pixels() {
        let folder = tempfile::tempdir().unwrap();
        let stem = folder.path().join("bars");
        save(&figure(), &stem).unwrap();

        let svg = fs::read_to_string(stem.with_extension("svg")).unwrap();
        assert!(svg.contains("<title>Bars &amp; more</title>"), "{svg}");
        assert!(svg.contains("font-family=\"DejaVu Sans, Verdana, sans-serif\""), "{svg}");
        assert!(svg.trim_end().ends_with("</svg>"), "{svg}");

        let png = fs::read(stem.with_extension("png")).unwrap();
        assert_eq!(png[..8], *b"\x89PNG\r\n\x1a\n");
        let (width, height) = figure().size();
        assert_eq!(png[16..20], (2 * width).to_be_bytes());
        assert_eq!(png[20..24], (2 * height).to_be_bytes());
    }

    #[test]
    fn the_same_figures_give_the_same_picture() {
        assert_eq!(svg_of(&figure()).unwrap(), svg_of(&figure()).unwrap());
    }
}
