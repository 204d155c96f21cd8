//! The one look of all charts: colours, sizes, fonts.

use plotters::style::RGBColor;
use plotters::style::{FontStyle, register_font};

/// DejaVu Sans, as it is in `assets/` with its licence.
pub(super) const REGULAR_FONT: &[u8] = include_bytes!("../../assets/DejaVuSans.ttf");
/// Its bold cut.
pub(super) const BOLD_FONT: &[u8] = include_bytes!("../../assets/DejaVuSans-Bold.ttf");
/// The `font-family` of the SVGs. Verdana has the widths of DejaVu Sans, so that a machine without
/// the one shows the other, and one with neither shows something sane.
pub(super) const FONT_FAMILY: &str = "DejaVu Sans, Verdana, sans-serif";

/// Blue, orange, … of Okabe and Ito (2008): told apart by the colour-blind, too.
pub(crate) const BLUE: RGBColor = RGBColor(0x00, 0x72, 0xB2);
pub(crate) const ORANGE: RGBColor = RGBColor(0xE6, 0x9F, 0x00);
pub(crate) const GREEN: RGBColor = RGBColor(0x00, 0x9E, 0x73);
pub(crate) const VERMILLION: RGBColor = RGBColor(0xD5, 0x5E, 0x00);
pub(crate) const SKY: RGBColor = RGBColor(0x56, 0xB4, 0xE9);
pub(crate) const PURPLE: RGBColor = RGBColor(0xCC, 0x79, 0xA7);
/// Text.
pub(crate) const INK: RGBColor = RGBColor(0x1F, 0x23, 0x28);
/// Text of less weight, and axes.
pub(crate) const GREY: RGBColor = RGBColor(0x59, 0x63, 0x6E);
/// Reference lines and single dots behind the lines.
pub(crate) const PALE: RGBColor = RGBColor(0x9A, 0xA4, 0xAE);
/// Grid lines.
pub(super) const GRID: RGBColor = RGBColor(0xE4, 0xE8, 0xEC);
/// Paper.
pub(super) const PAPER: RGBColor = RGBColor(0xFF, 0xFF, 0xFF);

/// Sizes of text, in units to the em.
pub(super) const TITLE: f64 = 25.0;
pub(super) const SUBTITLE: f64 = 16.0;
pub(crate) const BODY: f64 = 16.0;
pub(crate) const SMALL: f64 = 14.0;

/// Makes the fonts known to plotters, which measures text with them. Doing it again does no harm.
pub(super) fn register_fonts() {
    for (style, bytes) in [(FontStyle::Normal, REGULAR_FONT), (FontStyle::Bold, BOLD_FONT)] {
        // The error has no content and cannot come: the fonts are part of the program.
        assert!(register_font(FONT_FAMILY, style, bytes).is_ok(), "assets/ holds good fonts");
    }
}
