//! A replica's health: what probes, its runtime and its answers to real requests say of it.
//!
//! ```text
//! starting ──rise good probes──▶ ready ──fall bad probes, trouble, errors──▶ ejected
//!                                  ▲                                            │
//!                                  └──── rise good probes, trouble over, time ──┘
//! ```
//!
//! Rise and fall are HAProxy's; ejection for errors, for a time that grows, is Envoy's outlier
//! detection.

use std::fmt;
use std::time::{Duration, Instant};

use super::observed::{Condition, Trouble};
use super::reason::NotReady;

/// How many probes in a row it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthLimits {
    /// Good ones until a replica takes requests; at least 1.
    pub rise: u32,
    /// Bad ones until it takes none any more; at least 1.
    pub fall: u32,
}

/// When and for how long errors on real requests eject a replica.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OutlierConfig {
    /// How many in a row; 0 for never.
    pub consecutive: u32,
    /// How long the first time; doubled each time after.
    pub base: Duration,
    /// How long at most; and after so long without another, the next is the first again.
    pub max: Duration,
    /// Which share of the fleet at once, at most: 0 to 1. Of two or more replicas one may always.
    pub max_share: f64,
}

/// What is known of a replica's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Never yet good enough.
    Starting,
    /// Takes requests.
    Ready,
    /// Was ready, and takes no requests now.
    Ejected(Ejection),
}

/// Why a replica takes no requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ejection {
    /// Its runtime knows that it will not answer.
    Trouble(Trouble),
    /// Its probes fail.
    Probes,
    /// Nobody listens at its address.
    Refused,
    /// Its answers to real requests are errors.
    Errors,
}

/// Health, with all that it follows from.
#[derive(Clone, Copy, Debug)]
pub struct HealthTrack {
    probes: Probes,
    /// Probes in a row that say otherwise.
    against: u32,
    trouble: Option<Trouble>,
    /// The health check of its image has not passed yet.
    unchecked: bool,
    /// Since when probes or its runtime say that it does not answer.
    silent_since: Option<Instant>,
    /// Until when it is ejected for errors.
    out_until: Option<Instant>,
    /// Ejections for errors that count towards the length of the next.
    ejections: u32,
}

/// A probe's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It answered with success in time.
    Good,
    /// It did not; which may be the probe's fault.
    Bad,
    /// Nobody listens at its address, which is nobody else's fault.
    Refused,
}

/// What probes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Probes {
    Unknown,
    Good,
    Bad,
    Refused,
}

// === impl Health ===

impl Health {
    /// Whether it may be that only the probes or the clients are wrong: its runtime says that it
    /// runs.
    pub fn is_doubtful(self) -> bool {
        match self {
            Health::Ejected(Ejection::Probes | Ejection::Errors) => true,
            Health::Ejected(Ejection::Trouble(_) | Ejection::Refused)
            | Health::Starting
            | Health::Ready => false,
        }
    }
}

// === impl Ejection ===

impl Ejection {
    /// Every [`kind`](Self::kind) there is.
    pub const KINDS: [&str; 6] = ["paused", "unhealthy", "stopping", "probes", "refused", "errors"];

    /// Why it is ejected, in a word.
    pub fn kind(self) -> &'static str {
        match self {
            Ejection::Trouble(Trouble::Paused) => "paused",
            Ejection::Trouble(Trouble::Unhealthy) => "unhealthy",
            Ejection::Trouble(Trouble::Stopping) => "stopping",
            Ejection::Probes => "probes",
            Ejection::Refused => "refused",
            Ejection::Errors => "errors",
        }
    }
}

impl fmt::Display for Ejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ejection::Trouble(trouble) => trouble.fmt(f),
            Ejection::Probes => f.write_str("health check failed"),
            Ejection::Refused => f.write_str("health check failed: connection refused"),
            Ejection::Errors => NotReady::Errors.fmt(f),
        }
    }
}

// === impl HealthTrack ===

impl HealthTrack {
    /// A replica that was not probed yet.
    pub fn new() -> Self {
        Self {
            probes: Probes::Unknown,
            against: 0,
            trouble: None,
            unchecked: false,
            silent_since: None,
            out_until: None,
            ejections: 0,
        }
    }

    /// What is known at `now`.
    pub fn health(&self, now: Instant) -> Health {
        match (self.probes, self.trouble) {
            (Probes::Unknown, _) => Health::Starting,
            (Probes::Good | Probes::Bad | Probes::Refused, Some(trouble)) => {
                Health::Ejected(Ejection::Trouble(trouble))
            }
            (Probes::Refused, None) => Health::Ejected(Ejection::Refused),
            (Probes::Bad, None) => Health::Ejected(Ejection::Probes),
            (Probes::Good, None) if self.unchecked => Health::Starting,
            (Probes::Good, None) if self.out_until.is_some_and(|until| until > now) => {
                Health::Ejected(Ejection::Errors)
            }
            (Probes::Good, None) => Health::Ready,
        }
    }

    /// Takes a probe's result.
    pub fn probed(&mut self, verdict: Verdict, limits: HealthLimits, now: Instant) {
        let out = match verdict {
            Verdict::Good | Verdict::Bad => Probes::Bad,
            Verdict::Refused => Probes::Refused,
        };
        let good = verdict == Verdict::Good;
        let (agrees, needed, next) = match self.probes {
            Probes::Unknown | Probes::Bad | Probes::Refused => (!good, limits.rise, Probes::Good),
            Probes::Good => (good, limits.fall, out),
        };
        if matches!(self.probes, Probes::Bad | Probes::Refused) && !good {
            self.probes = out;
        }
        self.against = if agrees { 0 } else { self.against + 1 };
        if self.against >= needed {
            self.against = 0;
            self.probes = next;
            self.note_silence(now);
        }
    }

    /// Takes the condition that the runtime reports.
    pub fn observed(&mut self, condition: Condition, now: Instant) {
        self.trouble = condition.trouble();
        self.unchecked = condition == Condition::Starting;
        self.note_silence(now);
    }

    /// Reports whether the health check of its image has neither passed nor failed yet.
    pub fn is_unchecked(&self) -> bool {
        self.unchecked
    }

    /// Returns what the runtime reports that keeps the replica from responding.
    pub fn trouble(&self) -> Option<Trouble> {
        self.trouble
    }

    /// Ejects it for errors; tells until when.
    pub fn eject(&mut self, config: &OutlierConfig, now: Instant) -> Instant {
        let forgotten = self.out_until.is_some_and(|until| now >= until + config.max);
        let before = if forgotten { 0 } else { self.ejections };
        self.ejections = before.saturating_add(1);
        let doubled = config.base.saturating_mul(2_u32.saturating_pow(before));
        let until = now + doubled.min(config.max);
        self.out_until = Some(until);
        until
    }

    /// When an ejection for errors ends, if one is on.
    pub fn returns_at(&self, now: Instant) -> Option<Instant> {
        self.out_until.filter(|until| *until > now)
    }

    /// Since when it has been known not to answer although it runs.
    pub fn silent_since(&self) -> Option<Instant> {
        self.silent_since
    }

    /// Whatever it did not answer before now does not count: it was not to be believed.
    pub fn forgive_silence(&mut self, now: Instant) {
        self.silent_since = self.silent_since.map(|_| now);
    }

    fn note_silence(&mut self, now: Instant) {
        let silent = match self.trouble {
            Some(Trouble::Paused | Trouble::Unhealthy) => true,
            // Its death is being waited for.
            Some(Trouble::Stopping) => false,
            None => matches!(self.probes, Probes::Bad | Probes::Refused),
        };
        self.silent_since = silent.then(|| self.silent_since.unwrap_or(now));
    }
}

impl Default for HealthTrack {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: HealthLimits = HealthLimits { rise: 2, fall: 3 };
    const SECOND: Duration = Duration::from_secs(1);
    const OUTLIERS: OutlierConfig = OutlierConfig {
        consecutive: 5,
        base: SECOND,
        max: Duration::from_secs(10),
        max_share: 0.5,
    };

    /// The health after each of `probes`.
    fn seen(probes: &[bool]) -> Vec<Health> {
        let (mut track, now) = (HealthTrack::new(), Instant::now());
        let observe = |good: &bool| {
            track.probed(if *good { Verdict::Good } else { Verdict::Bad }, LIMITS, now);
            track.health(now)
        };
        probes.iter().map(observe).collect()
    }

    fn ready(now: Instant) -> HealthTrack {
        let mut track = HealthTrack::new();
        track.probed(Verdict::Good, LIMITS, now);
        track.probed(Verdict::Good, LIMITS, now);
        track
    }

    const OUT: Health = Health::Ejected(Ejection::Probes);

    #[test]
    fn a_replica_is_ready_after_rise_good_probes_in_a_row() {
        let all = [true, false, true, true];
        assert_eq!(
            seen(&all),
            [Health::Starting, Health::Starting, Health::Starting, Health::Ready]
        );
    }

    #[test]
    fn a_ready_replica_is_ejected_after_fall_bad_probes_in_a_row_and_comes_back() {
        let all = [true, true, false, false, true, false, false, false, true, true];
        assert_eq!(seen(&all)[2..7], [Health::Ready; 5]);
        assert_eq!(seen(&all)[7..], [OUT, OUT, Health::Ready]);
    }

    #[test]
    fn trouble_ejects_at_once_and_its_end_brings_back_at_once() {
        let now = Instant::now();
        let mut track = ready(now);
        track.observed(Condition::Troubled(Trouble::Paused), now);
        assert_eq!(track.health(now), Health::Ejected(Ejection::Trouble(Trouble::Paused)));
        assert_eq!(track.silent_since(), Some(now));
        track.observed(Condition::Running, now + SECOND);
        assert_eq!(track.health(now + SECOND), Health::Ready);
        assert_eq!(track.silent_since(), None);
    }

    #[test]
    fn a_replica_is_not_ready_before_the_health_check_of_its_image_has_passed() {
        let now = Instant::now();
        let mut track = HealthTrack::new();
        track.observed(Condition::Starting, now);
        for _ in 0..5 {
            track.probed(Verdict::Good, LIMITS, now);
        }
        assert_eq!(track.health(now), Health::Starting);
        assert_eq!(track.silent_since(), None, "it is not hung");
        track.observed(Condition::Running, now);
        assert_eq!(track.health(now), Health::Ready);
        track.observed(Condition::Troubled(Trouble::Unhealthy), now);
        assert_eq!(track.health(now), Health::Ejected(Ejection::Trouble(Trouble::Unhealthy)));
    }

    #[test]
    fn nobody_doubts_a_refusal_but_any_other_failure() {
        let now = Instant::now();
        let mut track = ready(now);
        for _ in 0..3 {
            track.probed(Verdict::Refused, LIMITS, now);
        }
        assert_eq!(track.health(now), Health::Ejected(Ejection::Refused));
        assert!(!track.health(now).is_doubtful());
        track.probed(Verdict::Bad, LIMITS, now);
        assert_eq!(track.health(now), OUT);
        assert!(track.health(now).is_doubtful());
        assert_eq!(track.silent_since(), Some(now));
    }

    #[test]
    fn silence_is_counted_from_its_first_sign() {
        let now = Instant::now();
        let mut track = ready(now);
        track.observed(Condition::Troubled(Trouble::Paused), now + SECOND);
        for _ in 0..3 {
            track.probed(Verdict::Bad, LIMITS, now + 2 * SECOND);
        }
        track.observed(Condition::Running, now + 3 * SECOND);
        assert_eq!(track.silent_since(), Some(now + SECOND));
        track.observed(Condition::Troubled(Trouble::Stopping), now + 4 * SECOND);
        assert_eq!(track.silent_since(), None, "one that is being stopped is not hung");
    }

    #[test]
    fn errors_eject_for_a_time_that_doubles_and_is_forgotten() {
        let start = Instant::now();
        let mut track = ready(start);
        let mut now = start;
        for seconds in [1, 2, 4, 8, 10, 10] {
            let until = track.eject(&OUTLIERS, now);
            assert_eq!(until - now, seconds * SECOND);
            assert_eq!(track.health(now), Health::Ejected(Ejection::Errors));
            assert_eq!(track.returns_at(now), Some(until));
            assert_eq!(track.health(until), Health::Ready);
            now = until;
        }
        now += 10 * SECOND;
        assert_eq!(track.eject(&OUTLIERS, now) - now, SECOND);
    }

    proptest! {
        #[test]
        fn only_the_last_probes_count(probes in proptest::collection::vec(any::<bool>(), 3..60)) {
            let last = *seen(&probes).last().unwrap();
            let run = |good: bool| probes.iter().rev().take_while(|probe| **probe == good).count();
            if run(true) >= 2 {
                prop_assert_eq!(last, Health::Ready);
            }
            if run(false) >= 3 {
                let ever = probes.windows(2).any(|pair| pair == [true, true]);
                prop_assert_eq!(last, if ever { OUT } else { Health::Starting });
            }
        }
    }
}
