//! How late answers are: a quantile of those of late.

use std::time::Duration;

use hdrhistogram::Histogram;

/// So many answers make a quantile: it is that of the last so many, and told anew when the next so
/// many have come.
const COUNTED: u64 = 1_000;

/// The first quantile is told after so many.
const FIRST: u64 = 100;

/// The longest that is told apart: an hour, in microseconds.
const MOST: u64 = 3_600_000_000;

/// See the module.
#[derive(Clone, Debug)]
pub struct Late {
    now: Histogram<u32>,
    before: Option<Histogram<u32>>,
}

impl Late {
    /// An answer's head came so long after its request.
    pub fn note(&mut self, lateness: Duration) {
        let micros = u64::try_from(lateness.as_micros()).unwrap_or(MOST);
        self.now.saturating_record(micros.clamp(1, MOST));
        if self.now.len() == COUNTED || (self.before.is_none() && self.now.len() == FIRST) {
            let mut before = self.before.take().unwrap_or_else(histogram);
            before.reset();
            self.before = Some(std::mem::replace(&mut self.now, before));
        }
    }

    /// Above which this share of answers was not, 0 to 1; none while there are too few.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        Some(Duration::from_micros(self.before.as_ref()?.value_at_quantile(share)))
    }
}

impl Default for Late {
    fn default() -> Self {
        Self { now: histogram(), before: None }
    }
}

fn histogram() -> Histogram<u32> {
    Histogram::new_with_bounds(1, MOST, 2).expect("the bounds are good")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_told_once_there_are_enough_and_follows() {
        let mut late = Late::default();
        for ms in 1..100 {
            late.note(Duration::from_millis(ms));
            assert_eq!(late.quantile(0.95), None);
        }
        late.note(Duration::from_millis(100));
        let close = |told: Option<Duration>, ms: f64| {
            let told = told.unwrap().as_secs_f64() * 1e3;
            assert!((told / ms - 1.0).abs() < 0.02, "{told} for {ms}");
        };
        close(late.quantile(0.95), 95.0);
        close(late.quantile(0.5), 50.0);
        for _ in 0..COUNTED {
            late.note(Duration::from_secs(2));
        }
        close(late.quantile(0.01), 2_000.0);
        for _ in 0..COUNTED {
            late.note(Duration::MAX);
            late.note(Duration::ZERO);
        }
        assert!(late.quantile(0.999).unwrap() >= Duration::from_secs(3_500));
        assert!(late.quantile(0.001).unwrap() < Duration::from_micros(2));
    }
}
