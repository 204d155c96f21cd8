//! How many replicas the load wants: the fleet grows and shrinks so that each has about as many
//! requests in flight as it is to have.
//!
//! The algorithm is that of Kubernetes' Horizontal Pod Autoscaler, with its defaults ("Horizontal
//! Pod Autoscaling", sections "Algorithm details", "Scaling policies" and "Stabilization window":
//! <https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/>):
//!
//! - At the end of each interval there should be `ceil(current · average / target)` replicas, where
//!   the average is of requests in flight at a ready replica. Nothing changes while the average is
//!   within the tolerance of the target.
//! - Replicas that are not ready make it careful: a fleet grows as if they had nothing to do, and
//!   shrinks as if they had as much as they are to have. Where that turns growing into shrinking or
//!   the other way round, nothing changes.
//! - It grows at once, by four or to its double, whichever is more, in one interval. It shrinks to
//!   the highest of what was recommended within the cool-down, so that a short calm costs nothing.
//! - A fleet that is outside of its bounds is brought back to them at once.
//!
//! Other than there, what counts is the mean of some ten samples or more, taken all through the
//! interval: how many requests are in flight at one instant says little.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use serde::Serialize;

/// How a fleet follows its load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScaleConfig {
    /// How many replicas there are at least; at least 1.
    pub min: usize,
    /// How many there are at most; at least `min`.
    pub max: usize,
    /// How many requests in flight each is to have; more than 0.
    pub target_in_flight: f64,
    /// Time between two recommendations.
    pub interval: Duration,
    /// How long a recommendation keeps the fleet from becoming smaller than that.
    pub cool_down: Duration,
    /// How far from the target, as a share of it, the average may be without any change.
    pub tolerance: f64,
}

/// A fleet at an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Replicas that there are to be, those that are still to come among them.
    pub size: usize,
    /// Those of them that take requests.
    pub ready: usize,
    /// Requests in flight at these, in all.
    pub in_flight: usize,
}

/// What an interval's load asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Advice {
    /// How many replicas there are to be now.
    pub desired: usize,
    /// How many the load asks for, within the bounds: what is reached at once, step by step, or
    /// after the cool-down.
    pub recommended: usize,
    /// Requests in flight at a ready replica, on average; none was ready where there is none.
    pub per_replica: Option<f64>,
    /// Why `desired` is not what there is, if it is not.
    pub reason: Reason,
}

/// Why a fleet becomes another size. Its text is what is told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reason {
    /// So many requests were in flight in all, on average.
    Load {
        /// How many.
        in_flight: f64,
    },
    /// It was outside of its bounds.
    Bounds {
        /// How many replicas there are at least.
        min: usize,
        /// How many at most.
        max: usize,
    },
}

/// The scaling as it is, to be shown.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ScaleStatus {
    /// How many replicas there are at least.
    pub min: usize,
    /// How many there are at most.
    pub max: usize,
    /// How many requests in flight each is to have.
    pub target_in_flight: f64,
    /// How many a ready one had in the last interval, on average.
    pub in_flight_per_replica: Option<f64>,
    /// How many replicas that asked for, within the bounds.
    pub recommended: Option<usize>,
    /// How many there were to be from then on.
    pub desired: Option<usize>,
}

/// Follows the load of one fleet. Somebody samples it when that is [`due`](Self::due).
#[derive(Clone, Debug)]
pub struct Scaler {
    config: ScaleConfig,
    /// Samples of this interval: how many, and their sum.
    samples: u32,
    sum: u64,
    sample_due: Instant,
    interval_ends: Instant,
    recommended: Window,
    last: Option<Advice>,
}

/// The highest of what was recommended within a time.
#[derive(Clone, Debug)]
struct Window {
    length: Duration,
    /// The oldest first, and each higher than all after it: others can never be the highest.
    falling: VecDeque<(Instant, usize)>,
}

/// A tenth of the interval lies between two samples, but no more than this.
const SAMPLE_EVERY_MAX: Duration = Duration::from_secs(1);
const SAMPLES: u32 = 10;

/// A fleet may become so many times as large in one interval, or by so many larger.
const GROW_FACTOR: usize = 2;
const GROW_BY: usize = 4;

/// So much more than a whole replica's load is a rounding error.
const ROUNDING: f64 = 1e-9;

// === impl Scaler ===

impl Scaler {
    /// Follows the load of a fleet of `size`, which stays so large for the first cool-down unless
    /// more are needed.
    pub fn new(config: ScaleConfig, size: usize, now: Instant) -> Self {
        let mut recommended = Window { length: config.cool_down, falling: VecDeque::new() };
        recommended.push(size, now);
        Self {
            config,
            samples: 0,
            sum: 0,
            sample_due: now + config.sample_every(),
            interval_ends: now + config.interval,
            recommended,
            last: None,
        }
    }

    /// When the next sample is to be taken.
    pub fn due(&self) -> Instant {
        self.sample_due.min(self.interval_ends)
    }

    /// Takes a sample; at the end of an interval tells what to do. Whoever comes too late is told
    /// once.
    pub fn observe(&mut self, load: Load, now: Instant) -> Option<Advice> {
        self.samples += 1;
        self.sum += load.in_flight as u64;
        self.sample_due = now + self.config.sample_every();
        if now < self.interval_ends {
            return None;
        }
        self.interval_ends = now + self.config.interval;
        let advice = self.advise(load, now);
        (self.samples, self.sum) = (0, 0);
        self.last = Some(advice);
        Some(advice)
    }

    /// How it is.
    pub fn status(&self) -> ScaleStatus {
        ScaleStatus {
            min: self.config.min,
            max: self.config.max,
            target_in_flight: self.config.target_in_flight,
            in_flight_per_replica: self.last.and_then(|advice| advice.per_replica),
            recommended: self.last.map(|advice| advice.recommended),
            desired: self.last.map(|advice| advice.desired),
        }
    }

    fn advise(&mut self, Load { size, ready, .. }: Load, now: Instant) -> Advice {
        let ScaleConfig { min, max, .. } = self.config;
        let in_flight = self.sum as f64 / f64::from(self.samples);
        let recommended = self.config.recommended(size, ready, in_flight).clamp(min, max);
        let highest = self.recommended.push(recommended, now);
        let bounded = size.clamp(min, max);
        let (desired, reason) = if bounded != size {
            (bounded, Reason::Bounds { min, max })
        } else if recommended > size {
            let most = (size * GROW_FACTOR).max(size + GROW_BY);
            (recommended.min(most), Reason::Load { in_flight })
        } else {
            (size.min(highest), Reason::Load { in_flight })
        };
        let per_replica = (ready > 0).then(|| in_flight / ready as f64);
        Advice { desired, recommended, per_replica, reason }
    }
}

// === impl ScaleConfig ===

impl ScaleConfig {
    fn sample_every(&self) -> Duration {
        (self.interval / SAMPLES).min(SAMPLE_EVERY_MAX)
    }

    /// How many replicas the load asks for, whatever the bounds.
    fn recommended(&self, size: usize, ready: usize, in_flight: f64) -> usize {
        if ready == 0 {
            // Whoever has none that could take requests learns nothing from there being none.
            return size;
        }
        let target = self.target_in_flight;
        let of_ready = in_flight / (ready as f64 * target);
        let missing = size.saturating_sub(ready) as f64;
        let in_flight = if of_ready > 1.0 { in_flight } else { in_flight + missing * target };
        let of_all = in_flight / (size as f64 * target);
        if self.tolerates(of_all) || (of_ready > 1.0) != (of_all > 1.0) {
            return size;
        }
        (in_flight / target - ROUNDING).ceil() as usize
    }

    fn tolerates(&self, ratio: f64) -> bool {
        (1.0 - self.tolerance..=1.0 + self.tolerance).contains(&ratio)
    }
}

// === impl Window ===

impl Window {
    /// Takes what is recommended now; tells the highest.
    fn push(&mut self, recommended: usize, now: Instant) -> usize {
        while self.falling.back().is_some_and(|(_, lower)| *lower <= recommended) {
            self.falling.pop_back();
        }
        self.falling.push_back((now, recommended));
        let is_old = |(at, _): &(Instant, usize)| now.saturating_duration_since(*at) > self.length;
        while self.falling.front().is_some_and(is_old) {
            self.falling.pop_front();
        }
        self.falling.front().map_or(recommended, |(_, highest)| *highest)
    }
}

// === impl Reason ===

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Load { in_flight } => {
                write!(f, "{in_flight:.1} requests were in flight on average")
            }
            Reason::Bounds { min, max } => write!(f, "there are to be {min} to {max}"),
        }
    }
}

#[cfg(test)]
mod tests;
