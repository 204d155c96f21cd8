use balancer::fleet::overload::OverloadConfig;

use super::super::arm::Controller;
use super::super::arrivals::{Keys, Poisson};
use super::super::outcome::Window;
use super::*;

const MS: Duration = Duration::from_millis(1);
const USUAL: Duration = Duration::from_millis(10);

fn system(replicas: u32, seconds: u64, service: Service) -> System {
    let config = OverloadConfig { min_ready: 2, capacity: 40, max_load: 0.75, resume_load: 0.5 };
    System {
        replicas,
        workers: 1,
        queue: 1_000_000,
        service,
        weak: Weak::NONE,
        controller: Controller { config, interval: Duration::from_secs(1) },
        path: Duration::ZERO,
        window: Window { warm_up: Duration::ZERO, counted: Duration::from_secs(seconds) },
    }
}

fn tailed(slow_share: f64) -> Service {
    Service::Tailed { usual: USUAL, slow: 20 * USUAL, slow_share }
}

fn arrivals(system: &System, load: f64, seed: u64) -> Poisson {
    Poisson::new(load * system.capacity(), &Keys::Uniform, system.window.end(), seed)
}

fn ran(system: &System, arm: Arm, load: f64, seed: u64) -> (Outcome, Tally) {
    let (outcome, tally) = run(system, arm, arrivals(system, load, seed), seed).unwrap();
    assert_eq!(outcome.problems, Problems::new(), "{arm:?} at {load}");
    (outcome, tally)
}

/// How long a request waits on average, in seconds.
fn wait(tally: &Tally, service: &Service) -> f64 {
    tally.sojourn / tally.done as f64 - service.mean().as_secs_f64()
}

fn assert_near(measured: f64, exact: f64, tolerance: f64) {
    let off = measured / exact - 1.0;
    assert!(off.abs() < tolerance, "{measured} is {:+.1} % off {exact}", 100.0 * off);
}

#[test]
fn one_replica_waits_as_pollaczek_and_khinchine_say() {
    // λ E[S²] / (2 (1 − ρ)): M/D/1, M/M/1, and the tail of the experiment.
    let usual = USUAL.as_secs_f64();
    let square =
        |slow_share: f64| (1.0 - slow_share) * usual.powi(2) + slow_share * (20.0 * usual).powi(2);
    for (service, square, load, tolerance) in [
        (tailed(0.0), square(0.0), 0.5, 0.02),
        (tailed(0.0), square(0.0), 0.8, 0.03),
        (Service::Exponential(USUAL), 2.0 * usual.powi(2), 0.5, 0.02),
        (Service::Exponential(USUAL), 2.0 * usual.powi(2), 0.8, 0.05),
        (tailed(0.05), square(0.05), 0.6, 0.05),
    ] {
        let system = system(1, 4_000, service);
        let (_, tally) = ran(&system, Arm::HASH, load, 1);
        let rate = load * system.capacity();
        assert_near(wait(&tally, &service), rate * square / (2.0 * (1.0 - load)), tolerance);
    }
}

#[test]
fn several_workers_wait_as_erlang_says() {
    // M/M/4 at 80 %: Erlang's C is 0.5964, the wait C / (cμ − λ).
    let service = Service::Exponential(USUAL);
    let system = System { workers: 4, ..system(1, 2_000, service) };
    let (_, tally) = ran(&system, Arm::ROUND_ROBIN, 0.8, 1);
    assert_near(wait(&tally, &service), 0.5964 / (0.2 * system.capacity()), 0.05);
}

#[test]
fn many_that_are_chosen_blindly_wait_like_one_and_with_two_choices_hardly() {
    // A Poisson process split at random is Poisson again; by hash, nearly so.
    let system = system(64, 100, Service::Exponential(USUAL));
    let mean = |arm| {
        let (_, tally) = ran(&system, arm, 0.8, 1);
        wait(&tally, &system.service) / USUAL.as_secs_f64()
    };
    let (hash, turns, two) = (mean(Arm::HASH), mean(Arm::ROUND_ROBIN), mean(Arm::TWO_CHOICES));
    assert!(hash > 4.0, "{hash}, where equal shares would wait 4 service times");
    assert!(turns < 4.0 && two < 0.6 * turns, "{turns} and {two}");
    assert!(mean(Arm::LEAST_REQUESTS) < two);
}

#[test]
fn littles_law_holds_in_every_arm() {
    for arm in Arm::ALL {
        let system = system(8, 300, tailed(0.05));
        let (_, tally) = ran(&system, arm, 0.7, 3);
        let seconds = system.window.end().as_secs_f64();
        let (inside, rate) = (tally.area / seconds, tally.arrived as f64 / seconds);
        assert_near(inside, rate * tally.sojourn / tally.done as f64, 0.001);
    }
}

#[test]
fn what_comes_is_done_or_refused_and_a_queue_is_no_longer_than_it_may_be() {
    for arm in Arm::ALL {
        let system = System { queue: 9, workers: 2, ..system(6, 30, tailed(0.05)) };
        let (outcome, tally) = ran(&system, arm, 1.5, 5);
        assert_eq!(tally.arrived, tally.done + tally.failed, "{arm:?}");
        assert_eq!((outcome.requests, outcome.failed), (tally.arrived, tally.failed));
        assert!(outcome.failed > 0 && outcome.longest() == 11, "{arm:?}: {}", outcome.longest());
        assert!(outcome.throughput <= 1.05 * system.capacity(), "{arm:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_one_another() {
    for arm in Arm::ALL {
        let system = system(5, 20, tailed(0.05));
        let (one, again) = (ran(&system, arm, 0.9, 1), ran(&system, arm, 0.9, 1));
        assert_eq!(one, again, "{arm:?}");
        assert_ne!(one, ran(&system, arm, 0.9, 2), "{arm:?}");
    }
}

#[test]
fn no_queue_grows_beyond_its_bound() {
    for (arm, factor) in [(Arm::TIGHT, 1.25), (Arm::LOOSE, 2.0)] {
        let system = system(10, 60, tailed(0.05));
        let (outcome, _) = ran(&system, arm, 1.1, 1);
        // Each time one enters it is looked at; here once more, by the most that there ever were.
        let most = outcome.requests as f64;
        assert!(outcome.longest() as f64 <= (factor * (most + 1.0) / 10.0).ceil());
        assert!(outcome.moved > 0);
    }
    let unbounded = ran(&system(10, 60, tailed(0.05)), Arm::HASH, 1.1, 1).0;
    assert_eq!(unbounded.moved, 0);
}

#[test]
fn a_look_tells_a_replica_that_took_too_much() {
    let system = system(4, 10, tailed(0.0));
    let mut world = World::new(&system, Arm::TIGHT, 1).unwrap();
    let replica = Arc::clone(&world.stations[0].replica);
    let _three = [replica.enter(), replica.enter(), replica.enter()];
    world.note_bound(0);
    world.look(EVERY);
    let problems = world.outcome().0.problems.join("; ");
    assert!(problems.contains("beyond its bound (1 times)"), "{problems}");
    assert!(problems.contains("in flight that did not come"), "{problems}");
}

#[test]
fn the_controller_takes_replicas_out_and_leaves_the_minimum() {
    let system = system(8, 60, tailed(0.05));
    let (outcome, _) = ran(&system, Arm::ROUND_ROBIN.with_controller(), 1.1, 1);
    let least = outcome.looks.iter().map(|look| look.enabled).min().unwrap();
    assert_eq!(least, 2);
    let (calm, _) = ran(&system, Arm::ROUND_ROBIN.with_controller(), 0.3, 1);
    assert!(calm.looks.iter().all(|look| look.enabled == 8));
}

#[test]
fn a_high_minimum_keeps_the_controller_from_refusing_what_nobody_had_to_refuse() {
    let minimum = |min_ready| {
        let mut system = System { queue: 500, ..system(8, 60, tailed(0.05)) };
        system.controller.config.min_ready = min_ready;
        system
    };
    for arm in [Arm::ROUND_ROBIN.with_controller(), Arm::TIGHT.with_controller()] {
        let refused = |system: &System| ran(system, arm, 1.1, 1).0.failed;
        let (low, high) = (refused(&minimum(2)), refused(&minimum(7)));
        assert!(low > 100 && high * 4 < low, "{arm:?}: {low} with 2, {high} with 7");
    }
    // And it still does what it is for, with one that is slow.
    let weak = Weak { replicas: 1, factor: 3.0 };
    let p99 = |system: System, arm| {
        let (outcome, _) = ran(&System { weak, ..system }, arm, 0.7, 1);
        outcome.latency.p99
    };
    let controlled = p99(minimum(7), Arm::ROUND_ROBIN.with_controller());
    assert!(4 * controlled < p99(minimum(7), Arm::ROUND_ROBIN), "{controlled:?}");
}

#[test]
fn a_weak_replica_does_a_part_of_the_work_of_others() {
    let weak = Weak { replicas: 1, factor: 4.0 };
    let system = System { weak, ..system(4, 10, tailed(0.0)) };
    assert_near(system.capacity(), 325.0, 1e-9);
    let (turns, _) = ran(&system, Arm::ROUND_ROBIN, 0.7, 1);
    let (least, _) = ran(&system, Arm::LEAST_REQUESTS, 0.7, 1);
    assert!(turns.longest() > 50 && least.longest() < 10, "{turns:?}");
}

#[test]
fn the_way_to_the_replica_is_part_of_the_latency() {
    let system = System { path: 5 * MS, ..system(2, 10, tailed(0.0)) };
    let (outcome, _) = ran(&system, Arm::LEAST_REQUESTS, 0.05, 1);
    let p50 = outcome.latency.p50.as_secs_f64();
    assert_near(p50, 0.015, 0.01);
}
