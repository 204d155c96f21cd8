use super::*;

fn provision(method: Method, entries: u32, over: impl IntoIterator<Item = f64>) -> Provision {
    let over: Vec<f64> = over.into_iter().collect();
    Provision { method, entries, over: Runs::of(over.clone()), under: Runs::of(over) }
}

#[test]
fn maglev_leaves_nobody_more_than_an_entry_ahead() {
    for entries in SIZES {
        let filled = Draw::new(100, 3).filled(Method::Maglev, entries).unwrap();
        let even = f64::from(entries) / 100.0;
        assert!((filled.over - (even.ceil() / even - 1.0)).abs() < 1e-9, "{filled:?}");
        assert!((filled.under - (1.0 - even.floor() / even)).abs() < 1e-9, "{filled:?}");
    }
}

#[test]
fn rendezvous_fills_a_table_as_chance_does() {
    let over = |method: Method| {
        Runs::of((0..40).map(|number| Draw::new(10, number).filled(method, 2_000).unwrap().over))
    };
    let (ours, chance) = (over(Method::Rendezvous), over(Method::Chance));
    let error = ours.error().hypot(chance.error());
    assert!((ours.mean() - chance.mean()).abs() < 4.0 * error, "{ours:?} {chance:?}");
}

#[test]
fn a_ring_fills_a_large_table_by_its_shares() {
    // Ten seats of 1,000 points: shares vary by 3 %, and 50,000 keys by 1.3 %.
    let draw = Draw::new(10, 5);
    let [shares, table] =
        [Method::RingShares, Method::RingTable].map(|method| draw.filled(method, 50_000).unwrap());
    assert!((shares.over - table.over).abs() < 0.05, "{shares:?} {table:?}");
    assert!(shares.over > 0.0 && shares.under > 0.0);
    // 66 points a seat where 65.5 entries are the average.
    let points = draw.filled(Method::RingOfEntries, 655).unwrap();
    assert_eq!(points, {
        let config = RingConfig { virtual_nodes: 66, secret: secret(5) };
        Filled::of(built(&PlacementConfig::Ring(config), &seats(10)).unwrap().shares())
    });
}

#[test]
fn the_papers_figure_agrees_with_runs_around_it_and_with_no_others() {
    let near = |middle: f64| (0..200).map(move |run| middle + f64::from(run - 100) * 1e-4);
    for (middle, agrees) in [(0.297, true), (0.305, true), (0.31, false), (0.285, false)] {
        let found = provision(Method::FirstCome, SIZES[0], near(middle));
        assert_eq!(found.agrees(), Some(agrees), "{middle}");
        assert_eq!(found.problem().is_none(), agrees);
    }
    // Too few to say, and nothing said.
    assert_eq!(provision(Method::Rendezvous, SIZES[0], [0.4, 0.5]).agrees(), None);
    assert_eq!(provision(Method::Maglev, SIZES[0], near(0.0)).agrees(), None);
    assert!(provision(Method::Maglev, SIZES[0], near(0.0)).problem().is_some());
}

#[test]
fn a_hash_that_is_worse_than_chance_is_a_problem() {
    let chance =
        provision(Method::Chance, SIZES[1], (0..200).map(|run| 0.12 + f64::from(run % 10) * 1e-3));
    let good = provision(Method::Rendezvous, SIZES[1], [0.124, 0.126]);
    let bad = provision(Method::Rendezvous, SIZES[1], [0.18, 0.2]);
    assert_eq!(problems(&[chance, good]), Problems::new());
    let chance =
        provision(Method::Chance, SIZES[1], (0..200).map(|run| 0.12 + f64::from(run % 10) * 1e-3));
    assert_eq!(problems(&[chance, bad]).len(), 1);
}
