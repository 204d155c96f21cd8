//! How long a request takes, and how many are worked on at once.
//!
//! The model of a server whose work has a usual duration, a tail of slow requests ("5 % take 20
//! times as long", as in Dean and Barroso, *The Tail at Scale*, CACM 2013), a number of slots and
//! a queue of bounded length before them. How long a request takes is a pure decision: the source
//! of randomness is an argument.

use std::fmt;
use std::num::{NonZeroU32, ParseFloatError};
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rand::{Rng, RngExt as _};
use tokio::sync::{Semaphore, SemaphorePermit};

/// A part of a whole, from 0 (none) to 1 (all).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share(f64);

/// How many times as long; at least 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Factor(f64);

/// A number that is no [`Share`] or no [`Factor`].
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum OutOfRange {
    /// Not a number at all.
    #[error("must be {expected}")]
    NotANumber {
        /// The values that are allowed.
        expected: &'static str,
        /// What was wrong with the text.
        #[source]
        source: ParseFloatError,
    },
    /// A number outside the range.
    #[error("must be {0}")]
    Outside(&'static str),
}

/// How long the work on a request takes: the usual time, or for some requests the slow one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Latency {
    usual: Duration,
    slow: Duration,
    slow_share: Share,
}

/// The slots requests are worked on in, and the queue before them: first in, first out.
///
/// At most `concurrency` requests hold a [`Slot`] and at most `queue` more wait for one; the next
/// is refused with [`QueueFull`]. Giving up (dropping the future of [`enter`](Self::enter)) frees
/// the place in the queue, dropping the slot frees the slot.
#[derive(Debug)]
pub struct WorkQueue {
    bounds: Option<Bounds>,
}

/// The right to be worked on, until it is dropped.
#[derive(Debug)]
#[must_use = "dropping a slot frees it"]
pub struct Slot<'a> {
    // In this order: a place freed before its slot never refuses a request that fits.
    _place: Option<Place<'a>>,
    _permit: Option<SemaphorePermit<'a>>,
}

/// Every slot is taken and the queue before them is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the queue is full")]
pub struct QueueFull;

#[derive(Debug)]
struct Bounds {
    slots: Semaphore,
    /// Requests that hold a slot or wait for one.
    inside: AtomicUsize,
    /// How many there may be: slots and queue together.
    room: usize,
}

/// One of the `room` places, in the queue or in a slot.
#[derive(Debug)]
struct Place<'a>(&'a AtomicUsize);

// === impl Share ===

impl Share {
    /// No request at all.
    pub const NONE: Self = Self(0.0);
    /// Every one.
    pub const ALL: Self = Self(1.0);
    const ALLOWED: &'static str = "a share from 0 to 1, such as 0.05 for 5 %";

    /// # Errors
    ///
    /// [`OutOfRange`] unless `share` is from 0 to 1.
    pub fn new(share: f64) -> Result<Self, OutOfRange> {
        if (0.0..=1.0).contains(&share) {
            Ok(Self(share))
        } else {
            Err(OutOfRange::Outside(Self::ALLOWED))
        }
    }

    /// The share as a number from 0 to 1.
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }
}

impl FromStr for Share {
    type Err = OutOfRange;

    fn from_str(text: &str) -> Result<Self, OutOfRange> {
        Self::new(number(text, Self::ALLOWED)?)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

// === impl Factor ===

impl Factor {
    /// Twenty times as long: what the slow requests of the experiments take.
    pub const TWENTY: Self = Self(20.0);
    const ALLOWED: &'static str = "a number of at least 1, such as 20";

    /// # Errors
    ///
    /// [`OutOfRange`] unless `factor` is finite and at least 1.
    pub fn new(factor: f64) -> Result<Self, OutOfRange> {
        if factor.is_finite() && factor >= 1.0 {
            Ok(Self(factor))
        } else {
            Err(OutOfRange::Outside(Self::ALLOWED))
        }
    }

    /// The factor as a number of at least 1.
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }
}

impl FromStr for Factor {
    type Err = OutOfRange;

    fn from_str(text: &str) -> Result<Self, OutOfRange> {
        Self::new(number(text, Self::ALLOWED)?)
    }
}

impl fmt::Display for Factor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn number(text: &str, expected: &'static str) -> Result<f64, OutOfRange> {
    text.parse().map_err(|source| OutOfRange::NotANumber { expected, source })
}

// === impl Latency ===

impl Latency {
    /// Work of `base`, or of `base` × `slow_factor` for a share of the requests. A product beyond
    /// [`Duration::MAX`] is taken as that.
    #[must_use]
    pub fn new(base: Duration, slow_share: Share, slow_factor: Factor) -> Self {
        let slow = Duration::try_from_secs_f64(base.as_secs_f64() * slow_factor.get());
        Self { usual: base, slow: slow.unwrap_or(Duration::MAX), slow_share }
    }

    /// How long the next request takes. Always draws from `rng`, so that the same seed makes the
    /// same requests slow whatever the base time is.
    pub fn draw(&self, rng: &mut impl Rng) -> Duration {
        if rng.random_bool(self.slow_share.get()) { self.slow } else { self.usual }
    }
}

// === impl WorkQueue ===

impl WorkQueue {
    /// Every request is worked on at once.
    #[must_use]
    pub fn unlimited() -> Self {
        Self { bounds: None }
    }

    /// `concurrency` requests are worked on at once, `queue` more may wait; with a queue of 0 a
    /// request is worked on at once or refused.
    #[must_use]
    pub fn bounded(concurrency: NonZeroU32, queue: u32) -> Self {
        let slots = usize::try_from(concurrency.get()).unwrap_or(Semaphore::MAX_PERMITS);
        let slots = slots.min(Semaphore::MAX_PERMITS);
        let queue = usize::try_from(queue).unwrap_or(usize::MAX);
        Self {
            bounds: Some(Bounds {
                slots: Semaphore::new(slots),
                inside: AtomicUsize::new(0),
                room: slots.saturating_add(queue),
            }),
        }
    }

    /// Waits for a slot, after all who came before. Safe to cancel: that frees the place.
    ///
    /// # Errors
    ///
    /// [`QueueFull`], at once, when there is no place to wait in.
    pub async fn enter(&self) -> Result<Slot<'_>, QueueFull> {
        let Some(bounds) = &self.bounds else {
            return Ok(Slot { _place: None, _permit: None });
        };
        let place = bounds.place()?;
        let permit = bounds.slots.acquire().await.expect("the semaphore is never closed");
        Ok(Slot { _place: Some(place), _permit: Some(permit) })
    }
}

// === impl Bounds ===

impl Bounds {
    fn place(&self) -> Result<Place<'_>, QueueFull> {
        let one_more = |inside: usize| (inside < self.room).then_some(inside + 1);
        match self.inside.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more) {
            Ok(_) => Ok(Place(&self.inside)),
            Err(_) => Err(QueueFull),
        }
    }
}

// === impl Place ===

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;
    use tokio::time::Instant;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn one_slot(queue: u32) -> WorkQueue {
        WorkQueue::bounded(NonZeroU32::MIN, queue)
    }

    fn assert_refused(queue: &WorkQueue) {
        let answer = queue.enter().now_or_never().expect("a refusal comes at once");
        assert_eq!(answer.unwrap_err(), QueueFull);
    }

    #[test]
    fn a_share_is_a_number_from_0_to_1() {
        for good in ["0", "0.05", "1", "1.0"] {
            assert_eq!(good.parse::<Share>().unwrap().get(), good.parse::<f64>().unwrap());
        }
        for bad in ["-0.1", "1.01", "NaN", "inf", "5%", ""] {
            let error = bad.parse::<Share>().unwrap_err();
            assert_eq!(error.to_string(), "must be a share from 0 to 1, such as 0.05 for 5 %");
        }
    }

    #[test]
    fn a_factor_is_a_finite_number_of_at_least_1() {
        for good in ["1", "1.5", "20"] {
            assert_eq!(good.parse::<Factor>().unwrap().get(), good.parse::<f64>().unwrap());
        }
        for bad in ["0.99", "-20", "NaN", "inf", "x20", ""] {
            let error = bad.parse::<Factor>().unwrap_err();
            assert_eq!(error.to_string(), "must be a number of at least 1, such as 20");
        }
    }

    #[test]
    fn a_share_of_0_or_1_leaves_nothing_to_chance() {
        let mut rng = StdRng::seed_from_u64(1);
        let never = Latency::new(10 * MS, Share::NONE, Factor::TWENTY);
        let always = Latency::new(10 * MS, Share::new(1.0).unwrap(), Factor::TWENTY);
        for _ in 0..1000 {
            assert_eq!(never.draw(&mut rng), 10 * MS);
            assert_eq!(always.draw(&mut rng), 200 * MS);
        }
    }

    #[test]
    fn five_percent_of_the_requests_are_twenty_times_as_slow() {
        let latency = Latency::new(10 * MS, Share::new(0.05).unwrap(), Factor::TWENTY);
        for seed in 0..10 {
            let mut rng = StdRng::seed_from_u64(seed);
            let times: Vec<_> = (0..10_000).map(|_| latency.draw(&mut rng)).collect();
            let slow = times.iter().filter(|time| **time == 200 * MS).count();
            let usual = times.iter().filter(|time| **time == 10 * MS).count();
            assert_eq!(slow + usual, 10_000);
            // A binomial: the mean is 500, the standard deviation 21.8, four of them 87.
            assert!((413..=587).contains(&slow), "{slow} slow requests with seed {seed}");
        }
    }

    #[test]
    fn a_slow_time_beyond_all_bounds_is_the_longest_there_is() {
        let latency =
            Latency::new(Duration::MAX, Share::new(1.0).unwrap(), Factor::new(f64::MAX).unwrap());
        assert_eq!(latency.draw(&mut StdRng::seed_from_u64(1)), Duration::MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn two_slots_do_the_work_of_six_in_three_rounds() {
        let queue = WorkQueue::bounded(NonZeroU32::new(2).unwrap(), 4);
        let start = Instant::now();
        let work = || async {
            let _slot = queue.enter().await.unwrap();
            tokio::time::sleep(10 * MS).await;
            start.elapsed() / 10
        };
        let ended = tokio::join!(work(), work(), work(), work(), work(), work());
        assert_eq!(ended, (MS, MS, 2 * MS, 2 * MS, 3 * MS, 3 * MS));
    }

    #[tokio::test(start_paused = true)]
    async fn who_came_first_is_served_first() {
        let queue = one_slot(9);
        let served = std::cell::RefCell::new(Vec::new());
        let all = (0..10).map(|number| {
            let (queue, served) = (&queue, &served);
            async move {
                let _slot = queue.enter().await.unwrap();
                tokio::time::sleep(MS).await;
                served.borrow_mut().push(number);
            }
        });
        futures_util::future::join_all(all).await;
        assert_eq!(*served.borrow(), (0..10).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_full_queue_refuses_at_once_and_a_free_place_is_taken_again() {
        let queue = one_slot(1);
        let slot = queue.enter().await.unwrap();
        let mut waiting = Box::pin(queue.enter());
        assert!(waiting.as_mut().now_or_never().is_none());
        assert_refused(&queue);

        drop(slot);
        let slot = waiting.await.unwrap();
        let mut waiting = Box::pin(queue.enter());
        assert!(waiting.as_mut().now_or_never().is_none());
        assert_refused(&queue);
        drop((slot, waiting));
    }

    #[tokio::test]
    async fn without_a_queue_a_request_is_worked_on_at_once_or_refused() {
        let queue = one_slot(0);
        let slot = queue.enter().await.unwrap();
        assert_refused(&queue);
        drop(slot);
        let _slot = queue.enter().await.unwrap();
    }

    #[tokio::test]
    async fn who_gives_up_waiting_frees_the_place_and_is_passed_over() {
        let queue = one_slot(2);
        let slot = queue.enter().await.unwrap();
        let mut quitter = Box::pin(queue.enter());
        let mut patient = Box::pin(queue.enter());
        assert!(quitter.as_mut().now_or_never().is_none());
        assert!(patient.as_mut().now_or_never().is_none());
        assert_refused(&queue);

        drop(quitter);
        let mut late = Box::pin(queue.enter());
        assert!(late.as_mut().now_or_never().is_none());

        drop(slot);
        let _slot = patient.await.unwrap();
        assert!(late.as_mut().now_or_never().is_none());
    }

    #[tokio::test]
    async fn without_bounds_nobody_waits() {
        let queue = WorkQueue::unlimited();
        let mut slots = Vec::new();
        for _ in 0..10_000 {
            slots.push(queue.enter().await.unwrap());
        }
        assert_eq!(slots.len(), 10_000);
    }
}
