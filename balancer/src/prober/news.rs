//! Which results the supervisor has to know.

/// Good results that were told in a row. Once there are `rise` of them, the replica is ready, and
/// one more says nothing new. A bad one always does: how many there are is what counts.
#[derive(Debug)]
pub(super) struct News {
    rise: u32,
    told: u32,
}

// === impl News ===

impl News {
    /// Nothing told yet.
    pub(super) fn new(rise: u32) -> Self {
        Self { rise, told: 0 }
    }

    /// Whether the next result is to be told.
    pub(super) fn is_news(&mut self, good: bool) -> bool {
        if !good {
            self.told = 0;
            return true;
        }
        let news = self.told < self.rise;
        self.told += u32::from(news);
        news
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use proptest::prelude::*;

    use super::*;
    use crate::fleet::health::{HealthLimits, HealthTrack, Verdict};

    fn told(results: &str, rise: u32) -> String {
        let mut news = News::new(rise);
        results.chars().filter(|result| news.is_news(*result == '+')).collect()
    }

    #[test]
    fn good_results_are_told_up_to_rise_in_a_row() {
        assert_eq!(told("++++", 1), "+");
        assert_eq!(told("--++++-+-++++--", 2), "--++-+-++--");
        assert_eq!(told("+-+-", 3), "+-+-");
        assert_eq!(told("", 1), "");
    }

    proptest! {
        #[test]
        fn health_is_the_same_as_if_all_were_told(
            results in proptest::collection::vec(any::<bool>(), 0..200),
            rise in 1..5_u32,
            fall in 1..5_u32,
        ) {
            let (limits, now) = (HealthLimits { rise, fall }, Instant::now());
            let observe = |track: &mut HealthTrack, good| {
                track.probed(if good { Verdict::Good } else { Verdict::Bad }, limits, now);
            };
            let (mut all, mut some) = (HealthTrack::new(), HealthTrack::new());
            let mut news = News::new(rise);
            for good in results {
                observe(&mut all, good);
                if news.is_news(good) {
                    observe(&mut some, good);
                }
                prop_assert_eq!(all.health(now), some.health(now));
            }
        }
    }
}
