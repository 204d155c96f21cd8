//! What bounded load leaves in the report folder.

use serde::Serialize;

use super::book::{Book, Case, Entry, Figure, Study};
use super::judge::{self, FEW_SIGMAS, Growth, SIGMAS, case_of, growth};
use super::tables::{
    MANY, ONE, ONE_POINT, even_text, in_flight_text, moves_text, probes_text, with_error,
};
use super::{SIZES, charts};
use crate::chart;
use crate::experiment::{Problems, Setup};
use crate::report::{Table, thousands};

/// A line of `ring-bounded.csv`.
#[derive(Serialize)]
struct Row {
    study: &'static str,
    order: String,
    seats: u32,
    balls_each: u32,
    factor: Option<f64>,
    figure: &'static str,
    mean: f64,
    standard_error: f64,
    runs: usize,
}

/// Writes `ring-bounded.csv`, its charts and its section.
///
/// # Errors
/// When a file cannot be written.
pub(super) fn write(setup: &Setup, book: &Book, problems: &Problems) -> anyhow::Result<()> {
    let report = &setup.report;
    report.csv("ring-bounded.csv", &book.entries().map(row).collect::<Vec<_>>())?;
    chart::save(&charts::probes_figure(book), &report.path("ring-bounded-probes"))?;
    chart::save(&charts::moves_figure(book), &report.path("ring-bounded-moves"))?;
    report.section("ring-bounded", &text(book, problems))
}

fn row(entry: &Entry) -> Row {
    let (Case { study, order, seats, each, factor }, mean) = (entry.case, entry.mean());
    Row {
        study: study.name(),
        order: order.name(),
        seats,
        balls_each: each,
        factor,
        figure: entry.figure.name(),
        mean: rounded(mean.mean),
        standard_error: rounded(mean.error),
        runs: mean.runs,
    }
}

/// The section.
pub(super) fn text(book: &Book, problems: &Problems) -> String {
    let mut parts = vec![
        papers_text(book),
        problems_text(problems),
        even_text(book),
        probes_text(book),
        moves_text(book),
        in_flight_text(book),
    ];
    let runs: Vec<String> = SIZES
        .map(|it| format!("{} × {}: {}", thousands(it.seats.into()), it.each, it.runs))
        .to_vec();
    parts.push(format!(
        "± is one standard error over runs with other secrets (seats × balls for each: runs): {}. \
         `ring-bounded.csv` has all figures.\n\n\
         ```sh\nanalysis ring --part bounded --out report\n```",
        runs.join(", ")
    ));
    parts.join("\n\n")
}

/// Each statement of the papers with the figures for it.
fn papers_text(book: &Book) -> String {
    let mut table = Table::new(&["what", "paper", "here"]);
    table.row([
        "most balls in a seat".to_owned(),
        "⌈c · m/n⌉, always (Mirrokni et al.)".to_owned(),
        "counted anew from where every ball is, after every update, and at every request of those \
         that come and go: a seat with more would be named below"
            .to_owned(),
    ]);
    let at_two = |study, figure| {
        let case = case_of(study, ONE_POINT, ONE, Some(2.0));
        book.get(case, figure).map_or_else(String::new, |mean| with_error(mean, 2))
    };
    table.row([
        "n balls in n seats, c = 2".to_owned(),
        "at most 2 in a seat, and a constant number of balls moves for each update, on average"
            .to_owned(),
        format!(
            "{} in the busiest, {} balls move, the updated one included",
            at_two(Study::Placed, Figure::Busiest),
            at_two(Study::Ball, Figure::Moves)
        ),
    ]);
    for (study, what) in [
        (Study::Ball, "balls that move for one that comes or leaves, ε ≤ 1"),
        (Study::BallFixedCap, "the same, caps stay as they are"),
        (Study::Seat, "balls that move for a seat that comes or leaves, over m/n, ε ≤ 1"),
    ] {
        let case = case_of(study, ONE_POINT, MANY, None);
        let here = growth(book, case, Figure::Moves).map_or_else(String::new, growth_words);
        table.row([
            what.to_owned(),
            "within a factor O(1/ε²) of the least that must move (Theorem 4)".to_owned(),
            here,
        ]);
    }
    let asked = growth(book, case_of(Study::Placed, ONE_POINT, MANY, None), Figure::Probes);
    table.row([
        "owners that the next ball asks, ε ≤ 1".to_owned(),
        "O(1/ε²) in linear probing, the same walk with one ball in a slot (Knuth 1963)".to_owned(),
        asked.map_or_else(String::new, growth_words),
    ]);
    let beyond: Vec<String> = [2.0_f64, 3.0]
        .into_iter()
        .filter_map(|c| {
            let case = case_of(Study::BallFixedCap, ONE_POINT, MANY, Some(c));
            let moves = book.get(case, Figure::Moves)?.mean;
            Some(format!(
                "{moves:.2} at c = {c}: {:.1} · ln(c)/c beyond 1",
                (moves - 1.0) * c / c.ln()
            ))
        })
        .collect();
    table.row([
        "balls that move for one that comes or leaves, ε ≥ 1, caps stay".to_owned(),
        "within a factor 1 + O(log c / c) of the least (Theorem 3)".to_owned(),
        beyond.join("; "),
    ]);
    let against = judge::against(book);
    let worst = against.iter().map(|it| it.z.abs()).fold(0.0, f64::max);
    table.row([
        "random jumps".to_owned(),
        "every seat with room is as likely as every other to get the next ball (Chen et al.; their \
         published simulation draws so)"
            .to_owned(),
        format!(
            "`rendezvous` beside {} runs of such an urn: {} figures (share of full seats, deviation, \
             owners asked), the farthest {worst:.1} standard errors off; {SIGMAS} are allowed",
            super::URN_RUNS,
            against.len()
        ),
    ]);
    let exact = judge::against_exact(book);
    let worst = exact.iter().map(|it| it.z.abs()).fold(0.0, f64::max);
    table.row([
        "the same where requests come and go".to_owned(),
        "Erlang's loss formula, with many seats; here exactly, with so many".to_owned(),
        format!(
            "{} shares of requests that find their first owner full, the farthest {worst:.1} \
             standard errors off; {FEW_SIGMAS} are allowed, for there are {} runs",
            exact.len(),
            super::EXACT_RUNS
        ),
    ]);
    table.markdown().trim().to_owned()
}

fn growth_words(Growth { exponent, constant }: Growth) -> String {
    format!(
        "(1/ε)^{:.2} ± {:.2}, by the slope; never more than {constant:.1}/ε²",
        exponent.mean, exponent.error
    )
}

fn problems_text(problems: &Problems) -> String {
    if problems.is_empty() {
        return "All of this holds, or the run would have failed.".to_owned();
    }
    problems.iter().map(|problem| format!("- **{problem}**")).collect::<Vec<_>>().join("\n")
}

fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}
