use std::time::Duration;

use super::*;

fn run(proxy: Proxy, round: usize, cpu_micros: f64) -> Run<Figures> {
    let (p50, p99) = (Duration::from_millis(1), Duration::from_millis(2));
    let figures =
        Figures { rate: 1e6 / cpu_micros, cpu_micros, busy: 1.0, p50, p99, peak_kib: 2_048 };
    Run { work: Work::Get64, proxy, round, outcome: Ok(figures) }
}

fn page(loads: Vec<Run<Figures>>) -> String {
    let plan =
        Plan { rounds: 2, seconds: 1, works: vec![Work::Get64], proxies: Proxy::ALL.to_vec() };
    let results = Results { loads, ..Results::default() };
    Page { plan: &plan, results: &results, versions: &["nginx version: 1".to_owned()] }.text()
}

#[test]
fn ratios_are_made_within_a_round() {
    let runs = [
        run(Proxy::Haproxy, 1, 10.0),
        run(Proxy::Balancer, 1, 8.0),
        run(Proxy::Haproxy, 2, 40.0),
        run(Proxy::Balancer, 2, 20.0),
        // No pair.
        run(Proxy::Balancer, 3, 99.0),
    ];
    let runs: Vec<_> = runs.iter().collect();
    let ratio = ratio(&runs, &CPU, Proxy::Balancer, Proxy::Haproxy).unwrap();
    assert_eq!((ratio.min, ratio.max), (0.5, 0.8));
    assert!((ratio.median - 0.65).abs() < 1e-9, "{ratio:?}");
}

#[test]
fn a_table_has_medians_then_ratios() {
    let text = page(vec![run(Proxy::Haproxy, 1, 10.0), run(Proxy::Balancer, 1, 8.0)]);
    assert!(text.contains("| HAProxy | 100,000 | 10.0 | 1.00 | 1.00 | 2.00 | 2.0 | 0 of 1 |"));
    assert!(text.contains("| balancer / HAProxy | 1.25 | 0.80 | 1.00 |"), "{text}");
    assert!(!text.contains("| nginx |"), "{text}");
}

#[test]
fn aims_are_met_or_missed_by_what_was_measured() {
    let text = page(vec![
        run(Proxy::Nginx, 1, 8.0),
        run(Proxy::Haproxy, 1, 10.0),
        run(Proxy::Balancer, 1, 9.0),
    ]);
    assert!(text.contains("0.90 of HAProxy's, at most 0.90: **met**"), "{text}");
    assert!(text.contains("1.12 of nginx's, at most 0.90: **missed**"), "{text}");
    assert!(text.contains("1.00 of nginx's, at most 1.00: **met**"), "{text}");
    assert!(text.contains("– KiB an idle connection, at most 25: **not measured**"), "{text}");
}

#[test]
fn a_failed_run_is_in_no_median_and_its_aims_are_missed() {
    let failed = Run { outcome: Err("1 reads failed".to_owned()), ..run(Proxy::Balancer, 2, 1.0) };
    let text = page(vec![run(Proxy::Haproxy, 1, 10.0), run(Proxy::Balancer, 1, 5.0), failed]);
    assert!(text.contains("| balancer | 200,000 | 5.0 |"), "{text}");
    assert!(text.contains("| 1 of 2 |"), "{text}");
    assert!(text.contains("Round 2, balancer **failed**: 1 reads failed."), "{text}");
    assert!(text.contains("0.50 of HAProxy's, at most 0.90: **missed**"), "{text}");
}

#[test]
fn growth_is_from_the_first_hundred_thousand_to_the_million() {
    let at = |requests, resident_kib| Sample { requests, resident_kib };
    let text = growth(&[at(0, 1_024), at(90_000, 1), at(120_000, 2_048), at(1_000_001, 2_060)]);
    assert!(text.contains("**+12 KiB over 880,001 requests**"), "{text}");
    assert!(text.contains("| 120,000 | 2.0 |"), "{text}");
}
