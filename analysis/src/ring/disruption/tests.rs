use super::*;

#[test]
fn everybody_is_the_first_to_leave_once_in_a_round() {
    for members in [3, 10, 56] {
        let first = |round: u32| {
            let mut first: Vec<usize> = (0..members)
                .map(|draw| order(members as usize, round * members + draw)[0])
                .collect();
            first.sort_unstable();
            first
        };
        for round in 0..3 {
            assert_eq!(first(round), (0..members as usize).collect::<Vec<_>>());
        }
    }
    assert_ne!(order(10, 0), order(10, 10), "another round, another order");
}

#[test]
fn every_seat_leaves_as_often_where_there_are_draws_enough() {
    for (kind, count, expected) in
        [(Kind::Maglev, 3, 198), (Kind::Maglev, 1_000, 200), (Kind::Classic, 56, 280)]
    {
        assert_eq!(draws(kind, count), expected, "{kind:?}");
    }
}

#[test]
fn what_moves_is_what_keys_see() {
    // Each key's owner before and after, one by one. A standard deviation of 4,000 keys is 0.8 %.
    let members = seats(7);
    for kind in [Kind::Ring, Kind::Ketama, Kind::Rendezvous, Kind::Jump, Kind::Maglev] {
        let found = drawn(kind, &members, 3).unwrap();
        let leaving = order(7, 3);
        for it in found {
            let gone = &leaving[..it.removed as usize];
            let rest: Vec<Member> =
                (0..7).filter(|index| !gone.contains(index)).map(|index| members[index]).collect();
            let config = kind.config(3);
            let (before, after) =
                (built(&config, &members).unwrap(), built(&config, &rest).unwrap());
            let moved = (0..4_000_u32)
                .map(|key| format!("key-{key}"))
                .filter(|key| {
                    let owner = before.owners(key.as_bytes()).next().unwrap();
                    let heir = after.owners(key.as_bytes()).next().unwrap();
                    before.members()[owner].id != after.members()[heir].id
                })
                .count();
            let seen = moved as f64 / 4_000.0;
            assert!((seen - it.moved.share).abs() < 0.04, "{kind:?}: {seen}, {it:?}");
        }
    }
}

#[test]
fn some_move_no_more_than_they_must_and_others_do() {
    for (kind, needless) in [(Kind::Ring, false), (Kind::Ketama, false), (Kind::Classic, true)] {
        let found = study(kind, 10, 10).unwrap();
        assert_eq!(found.iter().map(|it| it.removed).collect::<Vec<_>>(), [1, 2, 5]);
        for it in found {
            assert_eq!(it.problems(), Problems::new());
            assert_eq!(it.needless.mean() > 0.0, needless, "{kind:?}");
            assert_eq!(it.over_ideal() > 1.0 + ROUNDING, needless, "{kind:?}");
        }
    }
}

#[test]
fn an_estimate_is_held_against_its_sampling_error() {
    let jump = study(Kind::Jump, 10, 2).unwrap().remove(0);
    assert!(!jump.exact && (jump.ideal.mean() - 0.1).abs() < 1e-12);
    assert!((jump.sampling_error() - (0.09_f64 / 131_072.0).sqrt()).abs() < 1e-12);
    assert_eq!(jump.problems(), Problems::new());
    let wrong = Disruption { share: Runs::of([0.11, 0.11]), ..jump };
    assert_eq!(wrong.problems().len(), 1);
    let worse = Disruption { needless: Runs::of([0.0, 0.01]), ..wrong };
    assert_eq!(worse.problems().len(), 2);
}

#[test]
fn maglev_is_held_against_what_is_known_of_it() {
    let of = |kind, share: [f64; 3], needless: [f64; 3]| Disruption {
        kind,
        seats: 100,
        removed: 1,
        share: Runs::of(share),
        needless: Runs::of(needless),
        ideal: Runs::of([0.01; 3]),
        unexplained: 0.0,
        exact: true,
    };
    let small = || of(Kind::Maglev, [0.0155, 0.0158, 0.0161], [0.0055, 0.0058, 0.0061]);
    let large = |needless| of(Kind::LargeMaglev, [0.011; 3], [needless; 3]);
    assert_eq!(maglev_problems(&[small(), large(0.001)]), Problems::new());
    assert_eq!(maglev_problems(&[small(), large(0.0058)]).len(), 1);
    let off = of(Kind::Maglev, [0.0185, 0.0186, 0.0187], [0.0085, 0.0086, 0.0087]);
    assert_eq!(maglev_problems(&[off]).len(), 1);
}
