//! What is simulated: how many replicas, how long they work, how many may wait.

use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;

use super::super::arm::Controller;
#[cfg(test)]
use super::super::arrivals::exponential;
use super::super::outcome::Window;

/// How long replicas work on a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::overload) enum Service {
    /// The usual time, or for a share of the requests the slow one.
    Tailed { usual: Duration, slow: Duration, slow_share: f64 },
    /// Memoryless, with this mean.
    #[cfg(test)]
    Exponential(Duration),
}

/// The replicas that are slower than the others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::overload) struct Weak {
    pub(in crate::overload) replicas: usize,
    /// How many times as long they take.
    pub(in crate::overload) factor: f64,
}

/// What is simulated.
#[derive(Clone, Debug)]
pub(in crate::overload) struct System {
    pub(in crate::overload) replicas: u32,
    /// Requests that a replica works on at once.
    pub(in crate::overload) workers: u32,
    /// Requests that wait at one at most; it refuses the next.
    pub(in crate::overload) queue: usize,
    pub(in crate::overload) service: Service,
    pub(in crate::overload) weak: Weak,
    pub(in crate::overload) controller: Controller,
    /// What a request takes outside of the replicas.
    pub(in crate::overload) path: Duration,
    pub(in crate::overload) window: Window,
}

// === impl Service ===

impl Service {
    /// On average.
    pub(in crate::overload) fn mean(&self) -> Duration {
        match self {
            Service::Tailed { usual, slow, slow_share } => {
                usual.mul_f64(1.0 - slow_share) + slow.mul_f64(*slow_share)
            }
            #[cfg(test)]
            Service::Exponential(mean) => *mean,
        }
    }

    /// So many times as long.
    pub(in crate::overload) fn times(self, factor: u32) -> Self {
        match self {
            Service::Tailed { usual, slow, slow_share } => {
                Service::Tailed { usual: usual * factor, slow: slow * factor, slow_share }
            }
            #[cfg(test)]
            Service::Exponential(mean) => Service::Exponential(mean * factor),
        }
    }

    pub(super) fn draw(&self, rng: &mut StdRng) -> Duration {
        match self {
            Service::Tailed { usual, slow, slow_share } => {
                if rng.random_bool(*slow_share) {
                    *slow
                } else {
                    *usual
                }
            }
            #[cfg(test)]
            Service::Exponential(mean) => mean.mul_f64(exponential(rng)),
        }
    }
}

// === impl Weak ===

impl Weak {
    /// All are equal.
    pub(in crate::overload) const NONE: Self = Self { replicas: 0, factor: 1.0 };
}

// === impl System ===

impl System {
    /// How many requests a second all replicas together can do.
    pub(in crate::overload) fn capacity(&self) -> f64 {
        let weak = self.weak.replicas.min(self.replicas as usize) as f64;
        let whole = f64::from(self.replicas) - weak + weak / self.weak.factor;
        whole * f64::from(self.workers) / self.service.mean().as_secs_f64()
    }
}
