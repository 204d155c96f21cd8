//! Measurements in turns: on a machine that others use, too, only what ran side by side compares.

use std::time::{Duration, Instant};

/// Times of one contestant, one a round.
pub type Times = Vec<Option<Duration>>;

/// Lets every one of `count` do its work once a round, in another order each round, and times it.
/// A work that is not there, and one that took longer than `patience` once, is not asked again.
pub fn in_turns(
    rounds: usize,
    count: usize,
    patience: Duration,
    mut work: impl FnMut(usize) -> Option<Duration>,
) -> Vec<Times> {
    let mut times: Vec<Times> = vec![Vec::new(); count];
    for round in 0..rounds {
        for turn in 0..count {
            // Forwards and backwards, from another one each time.
            let one = if round % 2 == 0 { turn } else { count - 1 - turn };
            let one = (one + round / 2) % count;
            let tired = times[one].iter().any(|time| time.is_none_or(|time| time > patience));
            let time = if tired { None } else { work(one) };
            times[one].push(time);
        }
    }
    times
}

/// How long it takes.
pub fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let begin = Instant::now();
    let result = work();
    (result, begin.elapsed())
}

/// The median of the rounds in which it was there.
pub fn median(times: &Times) -> Option<Duration> {
    let mut known: Vec<Duration> = times.iter().flatten().copied().collect();
    known.sort_unstable();
    known.get(known.len() / 2).copied()
}

/// The median of how many times as long as `base` it took in the same round.
pub fn ratio(times: &Times, base: &Times) -> Option<f64> {
    let pair = |(one, other): (&Option<Duration>, &Option<Duration>)| {
        Some((*one)?.as_secs_f64() / (*other)?.as_secs_f64())
    };
    let mut ratios: Vec<f64> = times.iter().zip(base).filter_map(pair).collect();
    ratios.sort_unstable_by(f64::total_cmp);
    ratios.get(ratios.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_millis(10);

    #[test]
    fn everyone_has_one_turn_a_round_and_all_are_first_at_some_time() {
        let mut order = Vec::new();
        let times = in_turns(6, 3, PATIENCE, |one| {
            order.push(one);
            Some(Duration::from_millis(one as u64))
        });
        assert_eq!(times, [0, 1, 2].map(|one| vec![Some(Duration::from_millis(one)); 6]));
        let firsts: Vec<usize> = order.iter().step_by(3).copied().collect();
        assert!([0, 1, 2].iter().all(|one| firsts.contains(one)), "{firsts:?}");
        for round in order.chunks(3) {
            assert!([0, 1, 2].iter().all(|one| round.contains(one)), "{round:?}");
        }
    }

    #[test]
    fn who_is_slow_or_not_there_is_not_asked_again() {
        let mut asked = [0; 3];
        let times = in_turns(3, 3, PATIENCE, |one| {
            asked[one] += 1;
            [Some(PATIENCE), Some(2 * PATIENCE), None][one]
        });
        assert_eq!(asked, [3, 1, 1]);
        assert_eq!(times[1], [Some(2 * PATIENCE), None, None]);
        assert_eq!([median(&times[1]), median(&times[2])], [Some(2 * PATIENCE), None]);
    }

    #[test]
    fn a_ratio_is_of_times_in_the_same_round() {
        let times =
            |millis: [Option<u64>; 3]| millis.map(|it| it.map(Duration::from_millis)).to_vec();
        let base = times([Some(10), Some(100), Some(20)]);
        assert_eq!(ratio(&times([Some(20), Some(200), Some(40)]), &base), Some(2.0));
        assert_eq!(ratio(&times([Some(30), None, None]), &base), Some(3.0));
        assert_eq!(ratio(&times([None, None, None]), &base), None);
    }
}
