use std::collections::BTreeMap;

use super::*;
use crate::chart::svg_of;
use crate::load::Failure;

fn summary(by_seat: &[(u32, u64)], failures: &[(Failure, u64)]) -> Summary {
    let by_seat: BTreeMap<u32, u64> = by_seat.iter().copied().collect();
    let failures: BTreeMap<Failure, u64> = failures.iter().cloned().collect();
    Summary {
        requests: by_seat.values().chain(failures.values()).sum(),
        wall: std::time::Duration::from_secs(1),
        latency: crate::stats::Percentiles::default(),
        service: crate::stats::Percentiles::default(),
        by_seat,
        unnamed: 0,
        failures,
    }
}

#[test]
fn the_exact_shares_of_classic_are_those_of_the_published_vectors() {
    for (seats, of_512) in [
        (2, vec![488, 24]),
        (3, vec![428, 24, 60]),
        (4, vec![412, 24, 56, 20]),
        (5, vec![392, 24, 48, 20, 28]),
        (6, vec![372, 24, 48, 20, 28, 20]),
    ] {
        let shares = Variant::Classic.placement(seats).unwrap().shares();
        let exact: Vec<f64> = of_512.into_iter().map(|slots| f64::from(slots) / 512.0).collect();
        assert_eq!(shares, exact, "{seats} seats");
    }
}

#[test]
fn every_id_is_owned_by_one_seat() {
    let ids = load::request_ids(1, 5_000);
    for variant in Variant::ALL {
        let measured = Measured::new(variant, 4, &ids, summary(&[], &[])).unwrap();
        assert_eq!(measured.replicas.iter().map(|load| load.owned).sum::<u64>(), 5_000);
        let shares: f64 = measured.replicas.iter().map(|load| load.share).sum();
        assert!((shares - 1.0).abs() < 1e-9, "{variant:?}: {shares}");
    }
}

#[test]
fn answers_of_the_owners_are_no_problem() {
    let ids = load::request_ids(1, 10_000);
    for variant in Variant::ALL {
        let owned = Measured::new(variant, 3, &ids, summary(&[], &[])).unwrap().replicas;
        let by_seat: Vec<(u32, u64)> = owned.iter().map(|load| (load.seat, load.owned)).collect();
        let measured = Measured::new(variant, 3, &ids, summary(&by_seat, &[])).unwrap();
        assert_eq!(measured.problems(), Problems::new(), "{variant:?}");
        assert_eq!(measured.moved(), 0);
    }
}

#[test]
fn an_even_split_of_an_uneven_placement_is_a_problem() {
    let even = summary(&[(1, 3_333), (2, 3_333), (3, 3_334)], &[]);
    let measured = Measured::new(Variant::Classic, 3, &load::request_ids(1, 10_000), even).unwrap();
    let problems = measured.problems();
    assert_eq!(problems.len(), 3, "{problems:#?}");
    assert!(problems[0].contains("replica 1 answered 3333"), "{}", problems[0]);
}

#[test]
fn failures_and_strange_answers_are_problems() {
    let failing = summary(&[(1, 836), (2, 47), (3, 117), (9, 2)], &[(Failure::Status(503), 1)]);
    let measured =
        Measured::new(Variant::Classic, 3, &load::request_ids(1, 1_003), failing).unwrap();
    let problems = measured.problems();
    assert_eq!(problems.len(), 2, "{problems:#?}");
    assert!(problems[0].contains("1 of 1003 requests failed: 1 × status 503"), "{}", problems[0]);
    assert!(problems[1].contains("2 answers name none"), "{}", problems[1]);
}

/// What a balancer does in which every request reaches its owner.
fn ideal(variant: Variant, seats: u32) -> Measured {
    let ids = load::request_ids(1, 10_000);
    let owned = Measured::new(variant, seats, &ids, summary(&[], &[])).unwrap().replicas;
    let by_seat: Vec<(u32, u64)> = owned.iter().map(|load| (load.seat, load.owned)).collect();
    Measured::new(variant, seats, &ids, summary(&by_seat, &[])).unwrap()
}

#[test]
fn every_chart_can_be_drawn_and_says_its_figures() {
    let classic: Vec<Measured> = SEATS.map(|seats| ideal(Variant::Classic, seats)).collect();
    let all: Vec<Measured> = Variant::ALL
        .into_iter()
        .flat_map(|variant| SEATS.map(move |seats| ideal(variant, seats)))
        .collect();
    let three: Vec<&Measured> =
        all.iter().filter(|measured| measured.replicas.len() == 3).collect();
    let busiest = thousands(classic[1].counts()[0]);
    for (name, svg, words) in [
        ("a1", svg_of(&a1::figure(&classic[1])), [&*busiest, "8,359", "replica 3"]),
        ("a2", svg_of(&a2::figure(&classic)), ["5,000", "3,333", "replicas, N"]),
        ("a4-shares", svg_of(&a4::shares_figure(&three)), [&*busiest, "replica 2", "3,333"]),
        (
            "a4-spread",
            svg_of(&a4::spread_figure(&all)),
            ["1.9", "busiest / average", "replicas, N"],
        ),
    ] {
        let svg = svg.unwrap();
        for word in words {
            assert!(svg.contains(word), "{word} is not in {name}");
        }
    }
}

/// `report/README.md` explains the classic ring by these.
#[test]
fn what_the_report_says_of_the_polynomial_is_so() {
    let slots: Vec<u64> = (0..512_u64).map(|id| (id * id + 2 * id + 17) % 512).collect();
    let reached: std::collections::BTreeSet<u64> = slots.iter().copied().collect();
    assert_eq!(reached.len(), 87);
    assert_eq!(slots.iter().filter(|slot| **slot > 133 || **slot <= 29).count(), 388);
    for (seats, busiest) in [(2, "1.91"), (6, "4.36")] {
        let shares = Variant::Classic.placement(seats).unwrap().shares();
        assert_eq!(format!("{:.2}", Spread::expected(&shares, 10_000).max_over_mean), busiest);
    }
}
