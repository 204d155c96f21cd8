//! What the papers say, held against what was counted.

use balancer::routing::bounded::Factor;

use super::book::{Book, Case, Figure, Mean, Study};
use super::fill::cap;
use super::order::Order;
use super::study::counted_requests;
use super::{FACTORS, SIZES, Size, urn};
use crate::experiment::Problems;

/// How a figure grows with 1/ε: as its power.
#[derive(Clone, Copy, Debug)]
pub(super) struct Growth {
    /// The exponent, over the runs.
    pub(super) exponent: Mean,
    /// The largest of figure · ε², over c.
    pub(super) constant: f64,
}

/// One figure of the hashes against the urn's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Against {
    pub(super) size: Size,
    pub(super) factor: f64,
    pub(super) figure: Figure,
    pub(super) hashed: f64,
    pub(super) urn: f64,
    /// Standard errors between them.
    pub(super) z: f64,
}

/// What the bound of Mirrokni, Thorup and Zadimoghaddam grows by, for ε ≤ 1: 1/ε².
pub(super) const BOUND: f64 = 2.0;

/// Beyond so many standard errors an exponent or a figure is no chance: of a hundred figures one
/// in 150 sets has one there.
pub(super) const SIGMAS: f64 = 4.0;

/// Of few runs the error itself is uncertain: of Student's distribution with 11 degrees of freedom
/// one in 2,500 is further off than so many.
pub(super) const FEW_SIGMAS: f64 = 5.0;

/// What is held against the urn.
const FIGURES: [Figure; 3] = [Figure::Full, Figure::Deviation, Figure::Probes];

/// What moves too fast, and where random jumps are no random jumps.
pub(super) fn problems(book: &Book) -> Problems {
    let mut problems = Problems::new();
    for size in SIZES {
        for study in [Study::Ball, Study::BallFixedCap, Study::Seat] {
            let case = case_of(study, Order::Clockwise(1), size, None);
            let Some(growth) = growth(book, case, Figure::Moves) else { continue };
            let Mean { mean, error, .. } = growth.exponent;
            if mean - SIGMAS * error > BOUND {
                problems.push(format!(
                    "{}, {} seats, {} balls each: moves grow as 1/ε to the {mean:.2} ± {error:.2}, \
                     and the paper's bound is {BOUND}",
                    study.name(),
                    size.seats,
                    size.each
                ));
            }
        }
    }
    let placed = against(book).into_iter().filter(|it| it.z.abs() > SIGMAS);
    let in_flight = against_exact(book).into_iter().filter(|it| it.z.abs() > FEW_SIGMAS);
    problems.extend(placed.chain(in_flight).map(|it| {
        format!(
            "rendezvous: jumps, {} seats, {} balls each, c = {}: {} is {:.4}, and {:.4} of an urn, \
             {:.1} standard errors off",
            it.size.seats,
            it.size.each,
            it.factor,
            it.figure.name(),
            it.hashed,
            it.urn,
            it.z
        )
    }));
    problems
}

/// Settings as a case.
pub(super) fn case_of(study: Study, order: Order, size: Size, factor: Option<f64>) -> Case {
    Case { study, order, seats: size.seats, each: size.each, factor }
}

/// How the figure grows from ε = 1 down, by the slope of its logarithm in each run (least
/// squares). ε is that of the cap: what rounding up adds to it counts. `None` if it was not counted.
pub(super) fn growth(book: &Book, case: Case, figure: Figure) -> Option<Growth> {
    let mut constant = 0.0_f64;
    let mut lines: Vec<Vec<(f64, f64)>> = Vec::new();
    for factor in FACTORS.into_iter().filter(|factor| *factor <= 2.0) {
        let values = book.values(Case { factor: Some(factor), ..case }, figure)?;
        let epsilon = match case.study {
            // Their caps add up to c · m.
            Study::Ball | Study::Seat => factor - 1.0,
            Study::Placed
            | Study::Urn
            | Study::BallFixedCap
            | Study::Cap
            | Study::InFlight
            | Study::Heirs => effective(factor, case.each) - 1.0,
        };
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        constant = constant.max(mean * epsilon * epsilon);
        lines.resize(values.len(), Vec::new());
        for (line, value) in lines.iter_mut().zip(values) {
            line.push((-epsilon.ln(), value.ln()));
        }
    }
    let slopes: Vec<f64> = lines.iter().filter_map(|line| slope(line)).collect();
    (!slopes.is_empty()).then(|| Growth { exponent: Mean::of(&slopes), constant })
}

/// ⌈c · balls⌉ / balls: the c that a seat's cap comes to.
pub(super) fn effective(factor: f64, each: u32) -> f64 {
    let thousandths = (factor * 1_000.0).round() as u64 * u64::from(each);
    thousandths.div_ceil(1_000) as f64 / f64::from(each)
}

/// Of the straight line through them; `None` where all have one x.
fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let count = points.len() as f64;
    let mean_x = points.iter().map(|(x, _)| x).sum::<f64>() / count;
    let mean_y = points.iter().map(|(_, y)| y).sum::<f64>() / count;
    let squares: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    let products: f64 = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    (squares > 0.0).then(|| products / squares)
}

/// `rendezvous` beside the urn, wherever the urn's figure varies at all. The error is the urn's
/// deviation from run to run, which more runs tell than `rendezvous` has.
pub(super) fn against(book: &Book) -> Vec<Against> {
    let mut all = Vec::new();
    for size in SIZES {
        for factor in FACTORS {
            for figure in FIGURES {
                let of = |study| book.get(case_of(study, Order::Jumps, size, Some(factor)), figure);
                let (Some(hashed), Some(urn)) = (of(Study::Placed), of(Study::Urn)) else {
                    continue;
                };
                let error =
                    urn.deviation * (1.0 / hashed.runs as f64 + 1.0 / urn.runs as f64).sqrt();
                let off = hashed.mean - urn.mean;
                let z = if off.abs() < 1e-12 { 0.0 } else { off / error };
                let (hashed, urn) = (hashed.mean, urn.mean);
                all.push(Against { size, factor, figure, hashed, urn, z });
            }
        }
    }
    all
}

/// The share of requests that find their first owner full, of those that come and go, beside what
/// it is exactly. The error is that from run to run, and at least that of as many single draws.
pub(super) fn against_exact(book: &Book) -> Vec<Against> {
    let mut all = Vec::new();
    for size in SIZES {
        for (c, factor) in FACTORS.into_iter().filter_map(|it| Some((it, Factor::new(it)?))) {
            let case = case_of(Study::InFlight, Order::Jumps, size, Some(c));
            let Some(hashed) = book.get(case, Figure::Elsewhere) else { continue };
            let urn = in_flight_exact(size, factor);
            let draws = counted_requests((size.seats * size.each) as usize) * hashed.runs;
            let error = hashed.error.max((urn * (1.0 - urn) / draws as f64).sqrt());
            let off = hashed.mean - urn;
            let z = if off.abs() < 1e-12 { 0.0 } else { off / error };
            let (figure, hashed) = (Figure::Elsewhere, hashed.mean);
            all.push(Against { size, factor: c, figure, hashed, urn, z });
        }
    }
    all
}

/// The share that random jumps come to where requests come and go.
pub(super) fn in_flight_exact(size: Size, factor: Factor) -> f64 {
    let (seats, count) = (size.seats as usize, (size.seats * size.each) as usize);
    urn::full_share(seats, count, cap(factor, count, seats))
}
