use std::collections::BTreeMap;

use super::*;
use crate::report::Report;
use crate::system::Runtime;

/// The classic ring as its definition says it, slot by slot.
fn by_hand(seats: u32, request: impl Fn(u64) -> u64) -> Vec<u32> {
    by_hand_with(9, seats, request)
}

fn by_hand_with(nodes: u64, seats: u32, request: impl Fn(u64) -> u64) -> Vec<u32> {
    let mut slots: BTreeMap<u64, u32> = BTreeMap::new();
    for seat in 1..=u64::from(seats) {
        for j in 1..=nodes {
            let mut slot = (seat * seat + j * j + 2 * j + 25) % 512;
            while slots.contains_key(&slot) {
                slot = (slot + 1) % 512;
            }
            slots.insert(slot, seat as u32 - 1);
        }
    }
    let mut owned = vec![0; seats as usize];
    for i in 0..512_u64 {
        let at = slots.range(request(i) % 512..).chain(slots.iter()).next().unwrap();
        owned[*at.1 as usize] += 1;
    }
    owned
}

#[test]
fn the_figures_held_here_are_those_of_the_vectors() {
    let text = include_str!("../../../../balancer/tests/vectors/classic-ring.json");
    let vectors: serde_json::Value = serde_json::from_str(text).unwrap();
    assert_eq!(vectors["distinct_request_slots"], REACHED);
    for (seats, owned) in SEATS.zip(OWNED) {
        let slots: Vec<u32> =
            serde_json::from_value(vectors["shares_of_512"][seats.to_string()].clone()).unwrap();
        assert_eq!(slots, owned);
    }
}

#[test]
fn shares_are_those_of_the_definition() {
    for seats in SEATS {
        let row = Row::of(Change::AsGiven, seats).unwrap();
        assert_eq!(row.slots().unwrap(), by_hand(seats, |i| i * i + 2 * i + 17));
        assert_eq!(row.problems(), Problems::new());
        let row = Row::of(Change::LinearRequests, seats).unwrap();
        assert_eq!(row.slots().unwrap(), by_hand(seats, |i| 5 * i + 17));
        // Whatever the odd factor: every slot is reached by one residue.
        assert_eq!(row.slots().unwrap(), by_hand(seats, |i| i));
        let row = Row::of(Change::LinearMoreNodes, seats).unwrap();
        assert_eq!(row.slots().unwrap(), by_hand_with(85, seats, |i| i));
    }
}

#[test]
fn requests_reach_some_slots_with_a_square_and_all_with_an_odd_factor() {
    assert_eq!(Change::AsGiven.reached().unwrap(), REACHED);
    let squares: std::collections::BTreeSet<u64> =
        (0..512_u64).map(|i| (i * i + 2 * i + 17) % 512).collect();
    assert_eq!(squares.len(), REACHED);
    assert_eq!(Change::LinearRequests.reached().unwrap(), 512);
    assert!(Change::Maglev.reached().is_err());
}

#[test]
fn a_share_that_is_another_is_a_problem() {
    let mut row = Row::of(Change::AsGiven, 3).unwrap();
    row.shares.swap(1, 2);
    assert_eq!(row.problems().len(), 1);
    row.shares[0] += 1e-3;
    assert_eq!((row.slots(), row.problems().len()), (None, 1));
}

#[test]
fn as_many_virtual_nodes_fit_as_are_tried_and_no_more() {
    let fits = |virtual_nodes| {
        let config = ClassicConfig { virtual_nodes, ..ClassicConfig::default() };
        Placement::build(&PlacementConfig::Classic(config), &fleet::seats(6)).is_ok()
    };
    assert!(fits(MORE_NODES) && !fits(MORE_NODES + 1));
}

#[test]
fn shares_of_points_by_chance_spread_as_dirichlet_says() {
    let row = Row::of(Change::Ring(160), 4).unwrap();
    let others = row.others.unwrap();
    assert_eq!((others.draws, row.problems()), (DRAWS, Problems::new()));
    assert!((row.expected_square().unwrap() - 3.0 / 641.0).abs() < 1e-12);
    // More points than the expectation is of: that is no chance.
    let wrong = Row { others: Row::of(Change::Ring(120), 4).unwrap().others, ..row };
    assert_eq!(wrong.problems().len(), 1);
}

#[test]
fn other_seats_are_other_draws_and_polynomials_have_none() {
    let one = Change::SipHash.drawn(3, 0).unwrap().unwrap();
    let other = Change::SipHash.drawn(3, 1).unwrap().unwrap();
    assert_ne!(one, other);
    assert!((one.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    for change in [Change::AsGiven, Change::LinearRequests, Change::MoreNodes, Change::Maglev] {
        assert_eq!(change.drawn(3, 0).unwrap(), None, "{change:?}");
    }
}

fn setup(folder: &tempfile::TempDir) -> Setup {
    Setup {
        report: Report::open(folder.path()).unwrap(),
        runtime: Runtime::Process,
        image: String::new(),
        balancer: "/somewhere/release/balancer".into(),
        requests: 1,
        seed: 1,
    }
}

#[test]
fn what_was_measured_is_held_against_the_shares() {
    let folder = tempfile::tempdir().unwrap();
    let setup = setup(&folder);
    assert_eq!(page::measured(&setup).unwrap().len(), 0);
    let rows = [Row::of(Change::AsGiven, 2).unwrap()];
    let file = |share: f64, answered: u64| {
        format!(
            "placement,replicas,seat,requests,exact_share,expected,sigma,owned_ids,answered,z\n\
             classic,2,1,10000,{share},0,0,0,{answered},0\n\
             classic,2,2,10000,{},0,0,0,{},0\n",
            1.0 - share,
            10_000 - answered
        )
    };
    for (share, answered, wrong) in
        [(0.953_125, 9_549, None), (0.953_125, 9_400, Some("σ off")), (0.9, 9_549, Some("other"))]
    {
        std::fs::write(setup.report.path("a4-shares.csv"), file(share, answered)).unwrap();
        let measured = page::measured(&setup).unwrap();
        let [one] = measured.as_slice() else { panic!("{measured:?}") };
        let problem = one.problem(&rows);
        assert_eq!(problem.is_some(), wrong.is_some(), "{problem:?}");
        assert!(wrong.is_none_or(|words| problem.unwrap().contains(words)));
    }
}

#[test]
fn the_page_has_every_change_and_every_number_of_seats() {
    // Draws would take a while here: one row has some.
    let row = |change: Change, seats| {
        let shares = change.placement(seats).unwrap().shares();
        let spread = Spread::expected(&shares, REQUESTS);
        Row { change, seats, shares, spread, others: None }
    };
    let mut rows: Vec<Row> = Change::ALL
        .into_iter()
        .flat_map(|change| SEATS.map(move |it| (change, it)))
        .map(|(change, seats)| row(change, seats))
        .collect();
    rows[20].others = Others::of(&[vec![0.5, 0.5], vec![0.75, 0.25]]);
    let reached = [(Change::AsGiven, 87)];
    let text = page::text(&rows, &reached, &[], &Problems::new());
    for words in
        ["87 of 512", "372 · 24 · 48 · 20 · 28 · 20", "1.250 (1.00–1.50)", "was not measured"]
    {
        assert!(text.contains(words), "{words} is missing in {text}");
    }
    assert!(Change::ALL.iter().all(|change| text.contains(&change.name())));
    let figure = page::figure(&rows);
    assert!(figure.groups.iter().all(|group| group.bars.len() == 2));
    assert!(crate::chart::svg_of(&figure).unwrap().contains("ring, 1,000"));
}
