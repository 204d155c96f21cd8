//! How long to wait before what failed is sent again.

use std::time::Duration;

use rand::{Rng, RngExt as _};

/// Truncated exponential back-off: min(2ⁿ · base + jitter, max + jitter), n from 0, the jitter
/// drawn anew each time from zero to its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeat {
    /// The first pause.
    pub base: Duration,
    /// The longest.
    pub max: Duration,
    /// The bound of what is added to each.
    pub jitter: Duration,
}

impl Repeat {
    /// The pause after the first failure (0), the second (1), and so on.
    pub fn pause(&self, failures: u32, rng: &mut impl Rng) -> Duration {
        let factor = 1_u32.checked_shl(failures).unwrap_or(u32::MAX);
        let pause = self.base.saturating_mul(factor).min(self.max);
        let jitter = self.jitter.mul_f64(rng.random_range(0.0..=1.0));
        pause.saturating_add(jitter)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng as _;
    use rand::rngs::SmallRng;

    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let second = Duration::from_secs(1);
        let repeat = Repeat { base: second, max: 64 * second, jitter: Duration::ZERO };
        let mut rng = SmallRng::seed_from_u64(1);
        let pauses = (0..9).map(|failures| repeat.pause(failures, &mut rng).as_secs());
        assert_eq!(pauses.collect::<Vec<_>>(), [1, 2, 4, 8, 16, 32, 64, 64, 64]);
        assert_eq!(repeat.pause(u32::MAX, &mut rng), 64 * second);
    }

    proptest! {
        #[test]
        fn jitter_only_adds_and_is_bounded(failures: u32, seed: u64, base in 1_u64..5_000) {
            let ms = Duration::from_millis;
            let repeat = Repeat { base: ms(base), max: ms(9_000), jitter: ms(100) };
            let plain = Repeat { jitter: Duration::ZERO, ..repeat };
            let mut rng = SmallRng::seed_from_u64(seed);
            let least = plain.pause(failures, &mut rng);
            let pause = repeat.pause(failures, &mut rng);
            prop_assert!(least <= pause && pause <= least + ms(100), "{least:?} {pause:?}");
        }
    }
}
