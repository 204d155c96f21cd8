//! When a replica is probed. Pure: the time and the random numbers are arguments.

use std::time::Duration;

use rand::{Rng, RngExt as _};
use tokio::time::Instant;

/// The first pause of a replica that has not given a good answer yet: pauses grow by half up to
/// the interval, so that a quick start is seen at once and a slow one costs little.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// With a longer interval, pauses grow up to this alone, until so long after the first probe: what
/// has just been started is waited for.
const QUICK_PAUSE: Duration = Duration::from_secs(1);
const QUICK_FOR: Duration = Duration::from_secs(60);

/// With a longer interval, so many bad probes in a row of one that was good are each followed after
/// a second: whether it has gone is decided soon (HAProxy's `fastinter`).
const DOUBTS: u32 = 10;

/// Places in an interval, at least: enough to spread the load, and few enough that many replicas
/// share one, and with it a turn of the event loop.
const PLACES: u32 = 20;

/// In an interval of a second or longer they are so far apart: thousands that are asked every half
/// a minute are not asked a second's worth at once. At 40 ms, the kernel would acknowledge the
/// answers of one place (Linux, `TCP_DELACK_MIN`) in the midst of the next.
const APART: Duration = Duration::from_millis(50);

/// More would spread nothing: there are seldom more replicas.
const PLACES_MAX: u32 = 10_000;

/// All places of an interval, the same for all replicas.
#[derive(Clone, Copy, Debug)]
pub(super) struct Places {
    begin: Instant,
    interval: Duration,
}

/// One of them: a moment, and every interval after it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    first: Instant,
    interval: Duration,
}

/// When the next probe is due.
#[derive(Debug)]
pub(super) enum Pace {
    /// After this pause.
    Growing { places: Places, pause: Duration, since: Option<Instant> },
    /// At this place; so many in a row were bad.
    Steady { place: Place, bad: u32 },
}

// === impl Places ===

impl Places {
    /// Counted from `begin`.
    pub(super) fn new(begin: Instant, interval: Duration) -> Self {
        Self { begin, interval }
    }

    fn draw(self, rng: &mut impl Rng) -> Place {
        let places = self.count();
        let first = self.begin + self.interval * rng.random_range(0..places) / places;
        Place { first, interval: self.interval }
    }

    fn count(self) -> u32 {
        let apart = self.interval.as_nanos() / APART.as_nanos();
        u32::try_from(apart).unwrap_or(PLACES_MAX).clamp(PLACES, PLACES_MAX)
    }
}

// === impl Place ===

impl Place {
    /// The next time that is later than `now`.
    fn after(self, now: Instant) -> Instant {
        let Some(passed) = now.checked_duration_since(self.first) else { return self.first };
        let over = passed.as_nanos() % self.interval.as_nanos().max(1);
        now + self.interval.saturating_sub(Duration::from_nanos_u128(over))
    }
}

// === impl Pace ===

impl Pace {
    /// Of a replica that was not probed yet.
    pub(super) fn new(places: Places) -> Self {
        Self::Growing { places, pause: FIRST_PAUSE, since: None }
    }

    /// When the next probe is due after one that was `good` or not. One that took longer than to
    /// the next time at its place is followed at once: `fall` bad ones take no more than as many
    /// intervals, or timeouts where those are longer.
    pub(super) fn next(
        &mut self,
        good: bool,
        began: Instant,
        ended: Instant,
        rng: &mut impl Rng,
    ) -> Instant {
        match self {
            Self::Growing { places, pause, since } => {
                let since = *since.get_or_insert(began);
                if !good && *pause < places.interval.min(QUICK_PAUSE) {
                    let due = ended + *pause;
                    *pause = *pause * 3 / 2;
                    return due;
                }
                if !good && places.interval > QUICK_PAUSE && ended < since + QUICK_FOR {
                    return ended + QUICK_PAUSE;
                }
                // From here on at its own place, so that replicas that were started together are
                // not probed together.
                let place = places.draw(rng);
                // One that was never good is in no doubt.
                *self = Self::Steady { place, bad: if good { 0 } else { DOUBTS } };
                place.after(began)
            }
            Self::Steady { place, bad } => {
                *bad = if good { 0 } else { bad.saturating_add(1) };
                let next = place.after(began);
                let doubted = (1..=DOUBTS).contains(bad);
                if doubted { next.min(ended.max(began + QUICK_PAUSE)) } else { next }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn pauses_grow_until_the_first_good_probe() {
        let mut rng = StdRng::seed_from_u64(1);
        let begin = Instant::now();
        let mut pace = Pace::new(Places::new(begin, SECOND));
        let mut now = begin;
        let mut pauses = Vec::new();
        for _ in 0..12 {
            let due = pace.next(false, now, now, &mut rng);
            pauses.push((due - now).as_micros());
            now = due;
        }
        let grown = [
            10_000, 15_000, 22_500, 33_750, 50_625, 75_937, 113_906, 170_859, 256_289, 384_433,
            576_650, 864_975,
        ];
        assert_eq!(pauses, grown);
        assert!(pace.next(false, now, now, &mut rng) - now <= SECOND);
        let due = pace.next(true, now, now, &mut rng);
        assert_eq!(pace.next(true, due, due, &mut rng) - due, SECOND);
    }

    #[test]
    fn with_a_long_interval_a_newcomer_is_waited_for_for_a_minute() {
        let mut rng = StdRng::seed_from_u64(1);
        let begin = Instant::now();
        let mut pace = Pace::new(Places::new(begin, 10 * SECOND));
        let (mut now, mut probes) = (begin, 0);
        while now < begin + QUICK_FOR {
            let due = pace.next(false, now, now, &mut rng);
            assert!(due - now <= SECOND, "{:?} after {:?}", due - now, now - begin);
            (now, probes) = (due, probes + 1);
        }
        assert!((60..80).contains(&probes), "{probes} probes");
        let due = pace.next(false, now, now, &mut rng);
        assert!(due - now <= 10 * SECOND);
        assert_eq!(pace.next(false, due, due, &mut rng) - due, 10 * SECOND);
    }

    #[test]
    fn with_a_long_interval_one_that_fails_is_asked_again_soon_for_a_while() {
        let mut rng = StdRng::seed_from_u64(1);
        let begin = Instant::now();
        let mut pace = Pace::new(Places::new(begin, 10 * SECOND));
        let mut now = pace.next(true, begin, begin, &mut rng);
        for _ in 0..DOUBTS {
            let due = pace.next(false, now, now, &mut rng);
            assert!(due - now <= SECOND, "{:?}", due - now);
            now = due;
        }
        // It has gone; its place is where it was.
        let due = pace.next(false, now, now, &mut rng);
        assert_eq!(pace.next(false, due, due, &mut rng) - due, 10 * SECOND);
        let due = pace.next(true, due, due, &mut rng);
        assert!(pace.next(false, due, due, &mut rng) - due <= SECOND, "in doubt again");
    }

    #[test]
    fn a_thousand_replicas_share_all_places_evenly() {
        let mut rng = StdRng::seed_from_u64(1);
        let begin = Instant::now();
        let places = Places::new(begin, SECOND);
        let mut probed: Vec<u128> = Vec::new();
        for _ in 0..1_000 {
            let due = Pace::new(places).next(true, begin, begin, &mut rng);
            probed.push((due - begin).as_millis());
        }
        let share = |at: &u128| probed.iter().filter(|due| *due == at).count();
        let times: BTreeSet<u128> = probed.iter().copied().collect();
        assert_eq!(times, (1..=20).map(|place| place * 50).collect());
        assert!(times.iter().all(|at| (20..90).contains(&share(at))), "{probed:?}");
    }

    #[test]
    fn a_probe_that_took_too_long_is_followed_at_once_and_the_place_stays() {
        let mut rng = StdRng::seed_from_u64(1);
        let begin = Instant::now();
        let mut pace = Pace::new(Places::new(begin, SECOND));
        let due = pace.next(true, begin, begin, &mut rng);
        let late = due + SECOND * 3 / 2;
        assert!(pace.next(false, due, late, &mut rng) <= late);
        assert_eq!(pace.next(true, late, late, &mut rng), due + 2 * SECOND);
    }

    #[test]
    fn a_probe_before_its_time_does_not_move_the_place() {
        let mut rng = StdRng::seed_from_u64(1);
        let begin = Instant::now();
        let mut pace = Pace::new(Places::new(begin, SECOND));
        let due = pace.next(true, begin, begin, &mut rng);
        let early = due + SECOND / 3;
        assert_eq!(pace.next(false, early, early, &mut rng), due + SECOND);
    }

    #[test]
    fn places_are_twenty_or_so_far_apart_as_a_turn_of_the_loop_is_worth() {
        let mut rng = StdRng::seed_from_u64(1);
        let begin = Instant::now();
        for (interval, count, apart) in [
            (SECOND / 10, 20, SECOND / 200),
            (SECOND, 20, SECOND / 20),
            (20 * SECOND, 400, SECOND / 20),
            (3_600 * SECOND, 10_000, 36 * SECOND / 100),
        ] {
            let places = Places::new(begin, interval);
            let mut most = 0;
            for _ in 0..1_000 {
                let after = places.draw(&mut rng).first - begin;
                assert_eq!(after.as_nanos() % apart.as_nanos(), 0, "{interval:?}");
                most = most.max(after.as_nanos() / apart.as_nanos());
            }
            assert!((count * 9 / 10..count).contains(&most), "{most} of {count}");
        }
    }

    proptest! {
        #[test]
        fn the_next_time_is_the_first_at_the_place_that_is_later(
            interval in 1..100_000_000_000_u64,
            first in 0..100_000_000_000_u64,
            now in 0..10_000_000_000_000_u64,
        ) {
            let begin = Instant::now();
            let (interval, at) = (Duration::from_nanos(interval), Duration::from_nanos(now));
            let place = Place { first: begin + Duration::from_nanos(first), interval };
            let due = place.after(begin + at);
            prop_assert!(due > begin + at);
            prop_assert!(due == place.first || due - interval <= begin + at);
            let whole = (due - place.first).as_nanos() % interval.as_nanos();
            prop_assert_eq!(whole, 0);
        }
    }
}
