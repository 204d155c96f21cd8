use std::collections::BTreeSet;

use balancer::routing::bounded::Factor;
use balancer::routing::placement::{Placement, PlacementConfig, RingConfig};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::book::{Case, Figure, Study, Value};
use super::fill::{Filled, cap, cap_by_hand, fill, moved, spread};
use super::judge::Growth;
use super::order::Balls;
use super::*;
use crate::chart;
use crate::ring::fleet;

const SEATS: u32 = 20;
const COUNT: usize = 200;

fn factor(c: f64) -> Factor {
    Factor::new(c).unwrap()
}

fn balls(order: Order, count: usize) -> Balls {
    Balls::new(order.owners(SEATS, 7).unwrap(), count)
}

/// Balls that come one after another by the paper's own steps: a full seat forwards the last of
/// its balls in the fixed order, which goes on to its next owner with room or with one behind it.
fn forwarded(balls: &mut Balls, arrivals: &[usize], caps: &[usize]) -> Vec<Option<u16>> {
    let mut place = vec![None; balls.count()];
    for arrival in arrivals {
        let (mut ball, mut before) = (*arrival, 0);
        loop {
            let seat = balls.owner(ball, before).expect("there is room for all");
            let here = |it: &usize| place[*it] == Some(u16::try_from(seat).unwrap());
            let inside: Vec<usize> = (0..place.len()).filter(here).collect();
            if inside.len() < caps[seat] {
                place[ball] = u16::try_from(seat).ok();
                break;
            }
            match inside.last().filter(|last| **last > ball) {
                None => before += 1,
                Some(last) => {
                    place[*last] = None;
                    place[ball] = u16::try_from(seat).ok();
                    let owner = |nth| balls.owner(*last, nth).unwrap();
                    let mut owner = owner;
                    before = 1 + (0..).find(|nth| owner(*nth) == seat).unwrap();
                    ball = *last;
                }
            }
        }
    }
    place
}

#[test]
fn where_balls_are_does_not_depend_on_who_came_first() {
    for order in Order::ALL {
        let mut balls = balls(order, COUNT);
        let caps = vec![cap(factor(1.1), COUNT, SEATS as usize); SEATS as usize];
        let filled = fill(&mut balls, &[true; COUNT], &caps).unwrap();
        let mut arrivals: Vec<usize> = (0..COUNT).collect();
        arrivals.reverse();
        for _ in 0..2 {
            assert_eq!(forwarded(&mut balls, &arrivals, &caps), filled.place, "{order:?}");
            arrivals.rotate_left(70);
        }
    }
}

#[test]
fn no_ball_passes_a_seat_with_room_and_none_is_beyond_its_cap() {
    for order in Order::ALL {
        let mut balls = balls(order, COUNT);
        let there: Vec<bool> = (0..COUNT).map(|ball| ball % 7 != 0).collect();
        let count = there.iter().filter(|it| **it).count();
        let caps = spread(factor(1.25), count, SEATS as usize, Some(3));
        let filled = fill(&mut balls, &there, &caps).unwrap();
        let most = cap_by_hand(1_250, count, SEATS as usize - 1);
        assert_eq!(filled.problem(&there, most), None);
        assert_eq!(filled.loads[3], 0);
        let mut passed = 0;
        for (ball, seat) in filled.place.iter().enumerate() {
            assert_eq!(seat.is_some(), there[ball]);
            let Some(seat) = seat else { continue };
            for before in 0.. {
                let owner = balls.owner(ball, before).unwrap();
                if owner == usize::from(*seat) {
                    break;
                }
                passed += 1;
                assert_eq!(filled.loads[owner], caps[owner], "{order:?}: {ball} passes {owner}");
            }
        }
        assert!(passed > 10 && filled.probes == (count + passed) as u64, "{order:?}: {passed}");
    }
}

#[test]
fn a_cap_that_is_passed_and_a_ball_that_is_lost_are_problems() {
    let place = vec![Some(0), Some(0), Some(1), None];
    let filled = Filled { place, loads: vec![2, 1], probes: 3, elsewhere: 0 };
    let there = [true, true, true, false];
    assert_eq!(filled.problem(&there, 2), None);
    assert_eq!(filled.problem(&there, 1).unwrap(), "a seat has 2 balls and its cap is 1");
    assert_eq!(filled.problem(&[true; 4], 2).unwrap(), "3 of 4 balls are in a seat");
}

#[test]
fn spread_caps_add_up_to_c_times_the_balls_and_grow_by_one() {
    for (c, thousandths) in [(1.05, 1_050), (1.25, 1_250), (3.0, 3_000)] {
        for count in 1..400 {
            let caps = spread(factor(c), count, 17, None);
            let all = (thousandths * count).div_ceil(1_000);
            assert_eq!(caps.iter().sum::<usize>(), all, "{c} {count}");
            let most = cap_by_hand(thousandths as u64, count, 17);
            assert_eq!((caps.iter().max(), most), (Some(&most), cap(factor(c), count, 17)));
            let next = spread(factor(c), count + 1, 17, None);
            let grown: Vec<usize> = next.iter().zip(&caps).map(|(new, old)| new - old).collect();
            assert!(grown.iter().all(|more| *more <= 1), "{c} {count}: {grown:?}");
        }
    }
}

#[test]
fn a_seat_without_room_is_a_seat_that_is_not_there() {
    for order in Order::ALL {
        let owners = order.owners(SEATS, 3).unwrap();
        for ball in 0..50 {
            let all: Vec<usize> = owners.of(ball).collect();
            assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), SEATS as usize, "{order:?}");
        }
    }
    // What is asked here is the balancer's order, and a seat that leaves is left out of it.
    for points in [1, Order::MANY] {
        let config =
            PlacementConfig::Ring(RingConfig { virtual_nodes: points, ..RingConfig::default() });
        let mut members = fleet::seats(SEATS);
        let with = Placement::build(&config, &members).unwrap();
        members.remove(5);
        let without = Placement::build(&config, &members).unwrap();
        for key in 0..200_u32 {
            let key = key.to_string();
            let left: Vec<usize> = with.owners(key.as_bytes()).filter(|seat| *seat != 5).collect();
            let there = without.owners(key.as_bytes()).map(|seat| seat + usize::from(seat >= 5));
            assert_eq!(there.collect::<Vec<_>>(), left);
        }
    }
}

#[test]
fn moves_are_counted_of_those_that_were_there_and_still_are() {
    let filled = |place: &[Option<u16>]| Filled {
        place: place.to_vec(),
        loads: Vec::new(),
        probes: 0,
        elsewhere: 0,
    };
    let before = filled(&[Some(1), Some(2), None, Some(3)]);
    let after = filled(&[Some(1), Some(4), Some(1), None]);
    assert_eq!(
        (moved(&before, &after), moved(&after, &before), moved(&before, &before)),
        (1, 1, 0)
    );
}

#[test]
fn the_urn_is_a_poisson_distribution_that_is_cut_off() {
    // Seats with room are hit alike, so that each has min(X, 3) balls, X of a Poisson distribution
    // whose mean λ is such that there are as many balls: E min(X, 3) = 2.
    let probability = |lambda: f64, balls: i32| {
        (1..=balls).fold((-lambda).exp(), |all, nth| all * lambda / f64::from(nth))
    };
    let distribution = |lambda: f64| {
        let [none, one, two] = [0, 1, 2].map(|balls| probability(lambda, balls));
        [none, one, two, 1.0 - none - one - two]
    };
    let (mut low, mut high) = (1.0, 10.0);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        let [_, one, two, full] = distribution(middle);
        let enough = one + 2.0 * two + 3.0 * full > 2.0;
        (low, high) = if enough { (low, middle) } else { (middle, high) };
    }
    let mut rng = StdRng::seed_from_u64(1);
    let loads = urn::loads(20_000, 40_000, 3, &mut rng);
    let share = |balls| loads.iter().filter(|load| **load == balls).count() as f64 / 20_000.0;
    for (balls, expected) in distribution(low).into_iter().enumerate() {
        let sigma = (expected * (1.0 - expected) / 20_000.0_f64).sqrt();
        assert!((share(balls) - expected).abs() < 4.0 * sigma, "{balls}: {}", share(balls));
    }
}

#[test]
fn so_many_seats_are_looked_at_until_one_has_room() {
    let mut rng = StdRng::seed_from_u64(1);
    assert_eq!((0..100).map(|_| urn::probes(9, 0, &mut rng)).max(), Some(1));
    // In a random order of n seats, F of them full: (n + 1) / (n − F + 1) on average.
    let sum: usize = (0..20_000).map(|_| urn::probes(9, 6, &mut rng)).sum();
    assert!((sum as f64 / 20_000.0 - 2.5).abs() < 0.05, "{sum}");
    assert!((0..1_000).all(|_| urn::probes(9, 8, &mut rng) <= 9));
}

/// The share of full seats by all loads of three seats, each with its probability.
#[test]
fn what_a_ball_that_comes_finds_full_is_exact() {
    let factorial = |load: usize| (1..=load).product::<usize>() as f64;
    for (balls, cap) in [(4, 2), (5, 2), (6, 3), (7, 5), (3, 9)] {
        let (mut full, mut all) = (0.0, 0.0);
        for state in 0..10_usize.pow(3) {
            let loads = [state % 10, state / 10 % 10, state / 100];
            if loads.iter().sum::<usize>() == balls - 1 && loads.iter().all(|load| *load <= cap) {
                let at_cap = loads.iter().filter(|load| **load == cap).count() as f64;
                let ways: f64 = loads.map(factorial).iter().product();
                full += at_cap / 3.0 * (3.0 - at_cap) / ways;
                all += (3.0 - at_cap) / ways;
            }
        }
        let share = urn::full_share(3, balls, cap);
        assert!((share - full / all).abs() < 1e-12, "{balls}, {cap}: {share}");
    }
    // Erlang's loss formula for servers that are so many, by the usual recursion: λ is such that
    // as many balls are in as are served, λ · (1 − loss) = 10.
    let loss = |lambda: f64| {
        (1..=13).fold(1.0, |loss, server| lambda * loss / (f64::from(server) + lambda * loss))
    };
    let lambda = (0..200).fold(10.0, |lambda, _| 10.0 / (1.0 - loss(lambda)));
    assert!((urn::full_share(200, 2_000, 13) - loss(lambda)).abs() < 2e-3);
}

#[test]
fn a_power_of_epsilon_is_recognized_and_one_beyond_the_bound_is_a_problem() {
    let [.., size] = SIZES;
    for (power, wrong) in [(1.0, false), (2.0, false), (2.3, true)] {
        let mut book = Book::default();
        let case = judge::case_of(Study::Ball, Order::Clockwise(1), size, None);
        let mut rng = StdRng::seed_from_u64(1);
        for c in FACTORS {
            for _ in 0..10 {
                let value = 3.0 * (c - 1.0_f64).powf(-power) * rng.random_range(0.99..1.01);
                let case = Case { factor: Some(c), ..case };
                book.add(Value { case, figure: Figure::Moves, value });
            }
        }
        let growth = judge::growth(&book, case, Figure::Moves).unwrap();
        let Growth { exponent, constant } = growth;
        assert!((exponent.mean - power).abs() < 0.02, "{exponent:?}");
        assert!(constant >= 2.9, "{constant}");
        assert_eq!(judge::problems(&book).len(), usize::from(wrong), "{power}");
    }
}

#[test]
fn what_differs_from_the_urn_is_a_problem() {
    let [.., size] = SIZES;
    for (full, wrong) in [(0.32, false), (0.40, true)] {
        let mut book = Book::default();
        for (study, middle) in [(Study::Placed, full), (Study::Urn, 0.32)] {
            let case = judge::case_of(study, Order::Jumps, size, Some(1.25));
            for off in [-0.02, 0.0, 0.02] {
                book.add(Value { case, figure: Figure::Full, value: middle + off });
            }
        }
        assert_eq!(judge::against(&book).len(), 1);
        assert_eq!(judge::problems(&book).len(), usize::from(wrong), "{full}");
    }
}

#[test]
fn what_differs_from_the_exact_share_in_flight_is_a_problem() {
    let [.., size] = SIZES;
    let exact = judge::in_flight_exact(size, factor(1.25));
    assert!((0.25..0.33).contains(&exact), "{exact}");
    for (off, wrong) in [(0.002, false), (0.02, true)] {
        let mut book = Book::default();
        let case = judge::case_of(Study::InFlight, Order::Jumps, size, Some(1.25));
        for chance in [-0.003, 0.0, 0.003] {
            let value = exact + off + chance;
            book.add(Value { case, figure: Figure::Elsewhere, value });
        }
        assert_eq!(judge::problems(&book).len(), usize::from(wrong), "{off}");
    }
}

#[test]
fn the_cap_comes_to_more_than_c_where_balls_are_few() {
    let caps = [(1.05, 1), (1.05, 10), (1.25, 10), (1.25, 100), (3.0, 1)];
    assert_eq!(caps.map(|(c, each)| judge::effective(c, each)), [2.0, 1.1, 1.3, 1.25, 3.0]);
}

#[test]
fn every_kind_of_run_gives_its_figures_and_the_page_has_them() {
    let job = |what, order, each| Job { what, order, seats: 12, each, run: 1 };
    let mut jobs = vec![job(What::Heirs, Order::Clockwise(1), 1), job(What::Urn, Order::Jumps, 5)];
    jobs.push(job(What::InFlight, Order::Jumps, 5));
    for what in [What::Placed, What::Moves] {
        jobs.extend([Order::Clockwise(1), Order::Jumps].map(|order| job(what, order, 5)));
    }
    let found = found(&jobs).unwrap();
    assert_eq!(found.problems, Problems::new());
    let mut book = Book::default();
    book.extend(found.values);
    let get = |study, order, c, figure| {
        book.get(Case { study, order, seats: 12, each: 5, factor: c }, figure).unwrap().mean
    };
    let one_point = Order::Clockwise(1);
    // With one point a seat, all it owns goes to one heir.
    let heirs = Case { study: Study::Heirs, order: one_point, seats: 12, each: 1, factor: None };
    assert!((book.get(heirs, Figure::LargestHeir).unwrap().mean - 1.0).abs() < 1e-9);
    let busiest = |c| get(Study::Placed, one_point, c, Figure::Busiest);
    assert!(busiest(Some(1.25)) <= 1.4 && busiest(None) > 2.0);
    assert_eq!(get(Study::Placed, one_point, None, Figure::Probes), 1.0);
    assert!(get(Study::Ball, one_point, Some(1.05), Figure::Moves) > 2.0);
    let elsewhere = |c| get(Study::InFlight, Order::Jumps, Some(c), Figure::Elsewhere);
    assert!(elsewhere(1.05) > elsewhere(3.0));

    // The tables are of larger sizes: here they are of these figures.
    let mut large = Book::default();
    for entry in book.entries() {
        for Size { seats, each, .. } in SIZES {
            let Case { study, order, factor, .. } = entry.case;
            // The exact share takes a while without optimization where so many are in flight.
            if study == Study::InFlight && seats * each > 1_000 {
                continue;
            }
            let case = Case { study, order, seats, each, factor };
            large.add(Value { case, figure: entry.figure, value: entry.mean().mean });
        }
    }
    let page = page::text(&large, &Problems::new());
    for words in ["(1/ε)^", "#### How even", "no bound", "largest heir", "All of this holds"] {
        assert!(page.contains(words), "{words} is missing in {page}");
    }
    // All that is counted is below the bound that is drawn, the last line: x is 2 · ln(ε).
    for panel in charts::moves_figure(&large).panels {
        let (bound, counted) = panel.lines.split_last().unwrap();
        let bound = |x: f64| bound.points[1].y * (-x).exp();
        let points = || counted.iter().flat_map(|line| &line.points).filter(|it| it.x <= 0.0);
        assert!(points().count() > 4 && points().all(|it| it.y < bound(it.x)), "{}", panel.title);
    }
    // Two orders were asked; the moves have the paper's bound as well.
    for (figure, lines) in [(charts::probes_figure(&large), 2), (charts::moves_figure(&large), 2)] {
        assert!(chart::svg_of(&figure).unwrap().contains("ε (logarithmic)"));
        for panel in figure.panels {
            let drawn = panel.lines.iter().filter(|line| line.points.len() > 1);
            assert_eq!(drawn.count(), lines, "{}", panel.title);
        }
    }
}
