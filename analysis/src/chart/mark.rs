//! The marks that data are drawn as, told apart by form as well as by colour.

use plotters::style::RGBColor;

use super::page::At;

/// A point of a line chart: told apart by its form as well as by its colour.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Marker {
    Circle,
    Square,
    Triangle,
    Diamond,
    Cross,
}

/// A line: told apart by its dashes as well as by its colour.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Stroke {
    pub(crate) color: RGBColor,
    pub(crate) width: u32,
    /// Units of line and of gap; `None` for a line without gaps.
    pub(crate) dash: Option<(f64, f64)>,
}

/// How a bar is filled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fill {
    Solid(RGBColor),
    /// Stripes on paper, within a frame.
    Hatched(RGBColor),
}

/// What the legend says of one kind of mark.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) name: String,
    pub(crate) sign: Sign,
}

/// The mark itself.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sign {
    Bar(Fill),
    /// A bar in one panel, a dot in another.
    BarAndDot(Fill, RGBColor, Marker),
    Line(Stroke, Option<Marker>),
    Dot(RGBColor, Marker),
}

// === impl Stroke ===

impl Stroke {
    /// Without gaps.
    pub(crate) fn solid(color: RGBColor, width: u32) -> Self {
        Self { color, width, dash: None }
    }

    /// With gaps.
    pub(crate) fn dashed(color: RGBColor, width: u32, line: f64, gap: f64) -> Self {
        Self { color, width, dash: Some((line, gap)) }
    }
}

/// Cuts a path into pieces of `line` units with `gap` units between them.
pub(super) fn dashes(points: &[At], line: f64, gap: f64) -> Vec<Vec<At>> {
    let mut pieces = Vec::new();
    let mut piece: Vec<At> = Vec::new();
    let (mut drawing, mut left) = (true, line);
    for pair in points.windows(2) {
        let (from, to) = (pair[0], pair[1]);
        let (dx, dy) = (f64::from(to.0 - from.0), f64::from(to.1 - from.1));
        let length = dx.hypot(dy);
        let at = |way: f64| {
            let part = if length > 0.0 { way / length } else { 0.0 };
            (from.0 + (dx * part).round() as i32, from.1 + (dy * part).round() as i32)
        };
        let mut way = 0.0;
        if drawing && piece.is_empty() {
            piece.push(from);
        }
        while way + left < length {
            way += left;
            if drawing {
                piece.push(at(way));
                pieces.push(std::mem::take(&mut piece));
            } else {
                piece.push(at(way));
            }
            drawing = !drawing;
            left = if drawing { line } else { gap };
        }
        left -= length - way;
        if drawing {
            piece.push(to);
        }
    }
    if piece.len() > 1 {
        pieces.push(piece);
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dashes_have_their_length_and_their_gaps() {
        let pieces = dashes(&[(0, 0), (25, 0)], 10.0, 5.0);
        assert_eq!(pieces, [vec![(0, 0), (10, 0)], vec![(15, 0), (25, 0)]]);
    }

    #[test]
    fn a_dash_goes_round_a_corner() {
        let pieces = dashes(&[(0, 0), (6, 0), (6, 6)], 10.0, 5.0);
        assert_eq!(pieces, [vec![(0, 0), (6, 0), (6, 4)]]);
    }
}
