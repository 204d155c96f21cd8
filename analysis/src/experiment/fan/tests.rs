use std::path::PathBuf;

use super::all::tests::ideal as all;
use super::first::tests::ideal as mode;
use super::*;
use crate::chart::svg_of;
use crate::report::Report;

fn runs() -> Vec<first::Measured> {
    Mode::ALL
        .into_iter()
        .zip([10_000, 20_000, 30_000, 10_400, 10_500])
        .map(|(kind, asked)| mode(kind, 10_000, asked))
        .collect()
}

#[test]
fn every_chart_can_be_drawn_and_says_its_figures() {
    let all = all(&[800, 160, 32, 6, 2]);
    for (svg, words) in [
        (svg_of(&charts::attempts_figure(&all)), ["800", "160", "3 attempts", "6.4"]),
        (
            svg_of(&charts::latency_figure(&runs(), 400.0)),
            ["p99.9", "latency (ms)", "first of 2 (× 2.00)", "400 a second"],
        ),
    ] {
        let svg = svg.unwrap();
        for word in words {
            assert!(svg.contains(word), "{word} is not in {svg}");
        }
    }
}

#[test]
fn the_page_says_what_was_measured_and_what_went_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup {
        report: Report::open(folder.path()).unwrap(),
        runtime: Runtime::Process,
        image: String::new(),
        balancer: PathBuf::from("balancer"),
        requests: 1,
        seed: 7,
    };
    let (plan, mut runs) = (Plan::default(), runs());
    let mut all = all(&[800, 160, 32, 6, 2]);
    let text = Page { setup: &setup, plan: &plan, all: &all, runs: &runs }.text();
    for words in [
        "exactly once. The replicas were asked 1,000 · 1,000 · 1,250 times",
        "1,250 times, where 1250 ± 17.7 are expected",
        "| 2 | 160 | 160.0 ± 11.6 | +0.00 σ | 20–25 | 21.0 | 21.0 | 21.0 |",
        "| p99 | 61.0 | 60–155 |",
        "| 5 or more | 2 | 1.6 ± 1.3 | +0.32 σ | 300 or more | 301.0 | 301.0 | 301.0 |",
        "| first of 3 | 5.0 | 5.0 | 5.0 | 5.0 | 100.0 | 3.000 | 0 |",
        "|  | *5* | *5* | *20* | *100* |  |  |  |",
        "- first of 2: `send = \"first\"`, `fan = 2`",
        "analysis fan --requests 1000 --rounds 3 --gets 4000 --rate 400 --seed 7",
    ] {
        assert!(text.contains(words), "{words} is not in {text}");
    }
    all.posts[0].failure = Some(crate::load::Failure::Timeout);
    runs[0].asked += 1;
    let text = Page { setup: &setup, plan: &plan, all: &all, runs: &runs }.text();
    assert_eq!(text.matches("**Failed:**").count(), 2, "{text}");
}
