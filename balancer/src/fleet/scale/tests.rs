use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// Kubernetes' defaults, and ten requests in flight for each of 1 to 100 replicas.
const CONFIG: ScaleConfig = ScaleConfig {
    min: 1,
    max: 100,
    target_in_flight: 10.0,
    interval: Duration::from_secs(15),
    cool_down: Duration::from_secs(300),
    tolerance: 0.1,
};

/// Intervals that a recommendation counts, its own among them.
const COOL_DOWN: usize = 21;

/// A fleet that does what it is told, at once.
struct Fleet {
    scaler: Scaler,
    size: usize,
    now: Instant,
}

impl Fleet {
    fn new(config: ScaleConfig, size: usize) -> Self {
        let now = Instant::now();
        Self { scaler: Scaler::new(config, size, now), size, now }
    }

    /// One that has forgotten its beginning.
    fn settled(config: ScaleConfig, size: usize, in_flight: usize) -> Self {
        let mut fleet = Self::new(config, size);
        for _ in 0..COOL_DOWN + 10 {
            fleet.interval(in_flight);
        }
        fleet
    }

    /// An interval with this load at all of its replicas.
    fn interval(&mut self, in_flight: usize) -> Advice {
        self.interval_with(self.size, in_flight)
    }

    /// The same, where only so many are ready.
    fn interval_with(&mut self, ready: usize, in_flight: usize) -> Advice {
        let load = Load { size: self.size, ready, in_flight };
        loop {
            self.now = self.scaler.due();
            if let Some(advice) = self.scaler.observe(load, self.now) {
                self.size = advice.desired;
                return advice;
            }
        }
    }

    fn sizes(&mut self, loads: &[usize]) -> Vec<usize> {
        loads.iter().map(|in_flight| self.interval(*in_flight).desired).collect()
    }
}

#[test]
fn the_fleet_grows_and_shrinks_in_proportion_to_its_load() {
    for (size, in_flight, expected) in [
        (4, 80, 8),
        (4, 20, 2),
        (3, 31, 3),
        (3, 34, 4),
        (5, 51, 5),
        (6, 0, 1),
        (1, 10, 1),
        (1, 12, 2),
        (7, 41, 5),
    ] {
        let load = Load { size, ready: size, in_flight };
        let config = ScaleConfig { cool_down: Duration::ZERO, ..CONFIG };
        let mut fleet = Fleet::new(config, size);
        let advice = fleet.interval(in_flight);
        assert_eq!(advice.desired, expected, "{load:?}");
        assert_eq!(advice.per_replica, Some(in_flight as f64 / size as f64), "{load:?}");
    }
}

#[test]
fn within_the_tolerance_nothing_changes_and_just_beyond_it_something_does() {
    let wanted = |in_flight| CONFIG.recommended(10, 10, in_flight);
    assert_eq!([90.0, 100.0, 110.0].map(wanted), [10, 10, 10]);
    assert_eq!([89.9, 110.1].map(wanted), [9, 12]);
}

#[test]
fn replicas_that_are_not_ready_make_it_careful() {
    for (size, ready, in_flight, expected) in [
        // They have nothing to do: 60 at two of six is what six are for.
        (6, 2, 60.0, 6),
        (6, 2, 70.0, 7),
        // The two that are ready have more than enough, but all six together would not.
        (6, 2, 40.0, 6),
        // They have as much as they are to have: 1 and 30 at four.
        (4, 1, 1.0, 4),
        (4, 3, 5.0, 2),
        (4, 2, 10.0, 3),
        (40, 39, 350.0, 40),
        (3, 0, 0.0, 3),
    ] {
        let wanted = CONFIG.recommended(size, ready, in_flight);
        assert_eq!(wanted, expected, "{ready} of {size}, {in_flight}");
    }
}

#[test]
fn a_fleet_of_none_ready_stays_as_it_is() {
    let mut fleet = Fleet::new(CONFIG, 5);
    let advice = fleet.interval_with(0, 0);
    assert_eq!((advice.desired, advice.recommended, advice.per_replica), (5, 5, None));
}

#[test]
fn a_steep_rise_is_followed_by_four_or_by_the_double_in_an_interval() {
    let mut fleet = Fleet::new(CONFIG, 1);
    assert_eq!(fleet.sizes(&[1_000; 6]), [5, 10, 20, 40, 80, 100]);
}

#[test]
fn one_instant_does_not_decide() {
    let mut fleet = Fleet::new(CONFIG, 2);
    let mut loads = [20, 20, 20, 20, 20, 20, 20, 30, 20, 20, 20, 20, 20, 20, 20].into_iter();
    let advice = loop {
        fleet.now = fleet.scaler.due();
        let load = Load { size: 2, ready: 2, in_flight: loads.next().unwrap() };
        if let Some(advice) = fleet.scaler.observe(load, fleet.now) {
            break advice;
        }
    };
    assert_eq!((loads.len(), advice.desired), (0, 2));
    let mean = 310.0 / 15.0;
    assert_eq!(
        (advice.per_replica, advice.reason),
        (Some(mean / 2.0), Reason::Load { in_flight: mean })
    );
}

#[test]
fn there_are_ten_samples_in_an_interval_and_one_a_second_at_least() {
    for (interval, samples) in [(SECOND / 10, 10), (5 * SECOND, 10), (60 * SECOND, 60)] {
        let mut fleet = Fleet::new(ScaleConfig { interval, ..CONFIG }, 1);
        let begin = fleet.now;
        let load = Load { size: 1, ready: 1, in_flight: 10 };
        let due = std::iter::repeat_with(|| {
            fleet.now = fleet.scaler.due();
            fleet.scaler.observe(load, fleet.now)
        });
        assert_eq!(due.take_while(Option::is_none).count() + 1, samples, "{interval:?}");
        assert_eq!(fleet.now - begin, interval);
    }
}

#[test]
fn whoever_comes_late_is_told_once() {
    let mut scaler = Scaler::new(CONFIG, 1, Instant::now());
    let load = Load { size: 1, ready: 1, in_flight: 20 };
    let late = scaler.due() + 10 * CONFIG.interval;
    assert_eq!(scaler.observe(load, late).unwrap().desired, 2);
    assert!(scaler.due() > late);
    assert_eq!(scaler.observe(load, scaler.due()), None);
}

#[test]
fn after_a_peak_the_fleet_stays_for_the_cool_down_and_then_shrinks_at_once() {
    let mut fleet = Fleet::settled(CONFIG, 2, 20);
    assert_eq!(fleet.sizes(&[60]), [6]);
    assert_eq!(fleet.sizes(&[10; COOL_DOWN - 1]), [6; COOL_DOWN - 1]);
    assert_eq!(fleet.sizes(&[10, 10]), [1, 1]);
}

#[test]
fn it_shrinks_to_the_highest_of_what_was_wanted_of_late() {
    let mut fleet = Fleet::settled(CONFIG, 8, 80);
    let mut loads = vec![40; 10];
    loads.extend([10; 11]);
    // The last peak of 80 is over after a cool-down, that of 40 after another ten.
    loads.extend([10; 10]);
    let sizes = fleet.sizes(&loads);
    assert_eq!(sizes[..COOL_DOWN - 1], [8; COOL_DOWN - 1]);
    assert_eq!(sizes[COOL_DOWN - 1..COOL_DOWN + 9], [4; 10]);
    assert_eq!(sizes[COOL_DOWN + 9..], [1]);
}

#[test]
fn a_balancer_that_has_just_begun_does_not_shrink_its_fleet() {
    let mut fleet = Fleet::new(CONFIG, 5);
    assert_eq!(fleet.sizes(&[0; COOL_DOWN - 1]), [5; COOL_DOWN - 1]);
    assert_eq!(fleet.sizes(&[0]), [1]);
}

#[test]
fn a_fleet_outside_of_its_bounds_is_brought_back_at_once() {
    let config = ScaleConfig { min: 3, max: 6, ..CONFIG };
    for (size, expected) in [(0, 3), (2, 3), (7, 6), (90, 6)] {
        let mut fleet = Fleet::new(config, 4);
        fleet.size = size;
        let advice = fleet.interval(10 * size);
        assert_eq!(advice.desired, expected, "{size}");
        assert_eq!(advice.reason, Reason::Bounds { min: 3, max: 6 }, "{size}");
    }
}

#[test]
fn what_is_told_reads_as_a_reason() {
    let load = Reason::Load { in_flight: 12.345 };
    assert_eq!(load.to_string(), "12.3 requests were in flight on average");
    assert_eq!(Reason::Bounds { min: 1, max: 4 }.to_string(), "there are to be 1 to 4");
}

#[test]
fn the_status_tells_the_last_interval() {
    let mut fleet = Fleet::new(ScaleConfig { max: 7, ..CONFIG }, 2);
    let before = fleet.scaler.status();
    assert_eq!((before.min, before.max, before.target_in_flight), (1, 7, 10.0));
    assert_eq!(
        (before.in_flight_per_replica, before.recommended, before.desired),
        Default::default()
    );
    fleet.interval(200);
    let after = fleet.scaler.status();
    assert_eq!(after.in_flight_per_replica, Some(100.0));
    assert_eq!((after.recommended, after.desired), (Some(7), Some(6)));
}

/// The same as Kubernetes has it: one figure for each replica, and everything remembered.
struct Naive {
    config: ScaleConfig,
    history: Vec<(Instant, usize)>,
}

impl Naive {
    fn new(config: ScaleConfig, size: usize, now: Instant) -> Self {
        Self { config, history: vec![(now, size)] }
    }

    fn formula(&self, size: usize, ready: usize, in_flight: usize) -> usize {
        let target = self.config.target_in_flight;
        let close = |ratio: f64| (ratio - 1.0).abs() <= self.config.tolerance;
        if ready == 0 {
            return size;
        }
        let mut figures = vec![in_flight as f64 / ready as f64; ready];
        let ratio = |figures: &[f64]| figures.iter().sum::<f64>() / figures.len() as f64 / target;
        let before = ratio(&figures);
        if ready == size {
            if close(before) {
                return size;
            }
            return (before * size as f64 - 1e-9).ceil() as usize;
        }
        while figures.len() < size {
            figures.push(if before > 1.0 { 0.0 } else { target });
        }
        let after = ratio(&figures);
        let turned = (before < 1.0 && after > 1.0) || (before > 1.0 && after < 1.0);
        if close(after) || turned {
            return size;
        }
        (after * figures.len() as f64 - 1e-9).ceil() as usize
    }

    fn desired(&mut self, size: usize, ready: usize, in_flight: usize, now: Instant) -> usize {
        let ScaleConfig { min, max, cool_down, .. } = self.config;
        let recommended = self.formula(size, ready, in_flight).max(min).min(max);
        self.history.push((now, recommended));
        let of_late = self.history.iter().filter(|(at, _)| now - *at <= cool_down);
        let highest = of_late.map(|(_, recommended)| *recommended).max().unwrap();
        if size < min {
            min
        } else if size > max {
            max
        } else if recommended > size {
            recommended.min(2 * size).max(recommended.min(size + 4))
        } else {
            size.min(highest)
        }
    }
}

/// With a tolerance that no ratio of small numbers is exactly at.
fn configs() -> impl Strategy<Value = ScaleConfig> {
    (1_usize..6, 0_usize..30, 1_u32..40, 0_u32..20, 0.0..0.5_f64).prop_map(
        |(min, more, halves, intervals, tolerance)| ScaleConfig {
            min,
            max: min + more,
            target_in_flight: f64::from(halves) / 2.0,
            interval: 15 * SECOND,
            cool_down: 15 * SECOND * intervals,
            tolerance: tolerance + 1e-5,
        },
    )
}

proptest! {
    #[test]
    fn it_decides_as_the_naive_one_does_and_within_the_bounds(
        config in configs(),
        size in 0_usize..40,
        steps in prop::collection::vec((0_usize..500, 0_usize..4, 0_usize..40), 1..80),
    ) {
        let mut fleet = Fleet::new(config, size);
        let mut naive = Naive::new(config, size, fleet.now);
        for (in_flight, not_ready, elsewhere) in steps {
            // Now and then somebody else says how many there are to be.
            if elsewhere % 10 == 9 {
                fleet.size = elsewhere;
            }
            let (before, ready) = (fleet.size, fleet.size.saturating_sub(not_ready));
            let advice = fleet.interval_with(ready, in_flight);
            let expected = naive.desired(before, ready, in_flight, fleet.now);
            prop_assert_eq!(advice.desired, expected, "{} of {}: {}", ready, before, in_flight);
            prop_assert!((config.min..=config.max).contains(&advice.desired));
            prop_assert!((config.min..=config.max).contains(&advice.recommended));
        }
    }

    #[test]
    fn under_a_steady_load_it_settles_where_the_load_is_served_and_stays(
        config in configs(), size in 1_usize..36, in_flight in 0_usize..500,
    ) {
        let size = size.clamp(config.min, config.max);
        let mut fleet = Fleet::settled(config, size, in_flight);
        let settled = fleet.size;
        prop_assert_eq!(fleet.sizes(&[in_flight; 30]), [settled; 30]);
        let average = in_flight as f64 / settled as f64;
        let most = config.target_in_flight * (1.0 + config.tolerance) + 1e-9;
        prop_assert!(average <= most || settled == config.max, "{} at {}", average, settled);
        // One less would not do.
        let exact = (in_flight as f64 / config.target_in_flight).ceil() as usize;
        let least = config.target_in_flight * (1.0 - config.tolerance) - 1e-9;
        prop_assert!(settled <= exact.max(config.min) || average >= least);
    }

    #[test]
    fn a_load_that_swings_within_the_tolerance_changes_nothing(
        size in 1_usize..100,
        swings in prop::collection::vec(-0.1..0.1_f64, 1..100),
    ) {
        let config = ScaleConfig { target_in_flight: 1_000.0, ..CONFIG };
        let mut fleet = Fleet::new(config, size);
        for swing in swings {
            let in_flight = (size as f64 * 1_000.0 * (1.0 + swing)).round() as usize;
            prop_assert_eq!(fleet.interval(in_flight).desired, size);
        }
    }

    #[test]
    fn within_a_cool_down_after_a_peak_it_never_has_less_than_that(
        loads in prop::collection::vec(0_usize..900, 1..100),
    ) {
        let mut fleet = Fleet::new(CONFIG, 1);
        let mut advices: Vec<Advice> = Vec::new();
        for in_flight in loads {
            let before = fleet.size;
            let advice = fleet.interval(in_flight);
            advices.push(advice);
            let of_late = advices.iter().rev().take(COOL_DOWN);
            let peak = of_late.map(|advice| advice.recommended).max().unwrap();
            prop_assert!(advice.desired >= before.min(peak), "{} before", before);
        }
    }

    #[test]
    fn a_step_is_followed_both_ways(low in 1_usize..20, high in 1_usize..100) {
        let (low, high) = (low.min(high), low.max(high));
        let mut fleet = Fleet::settled(CONFIG, low, 10 * low);
        prop_assert_eq!(fleet.size, low);
        // The double of 1 is 5 by the other rule, so it takes no longer than by doubling.
        let up = (high as f64 / low as f64).log2().ceil() as usize;
        let sizes = fleet.sizes(&vec![10 * high; up + 1]);
        prop_assert!(sizes.is_sorted());
        prop_assert!(*sizes.last().unwrap() * 11 >= high * 10, "{:?}", sizes);
        let reached = fleet.size;
        let sizes = fleet.sizes(&[10 * low; COOL_DOWN + 1]);
        prop_assert_eq!(&sizes[..COOL_DOWN - 1], &[reached; COOL_DOWN - 1]);
        prop_assert!(sizes[COOL_DOWN] * 9 <= low * 10, "{:?}", sizes);
    }
}
