//! F-2: GETs at six replicas, one in twenty of which takes twenty times as long: sent to one of
//! them, to several for the first success, and to a second one when the first is late.

use std::time::Duration;

use super::replicas::Replica;
use super::{Configured, Plan, Problems};
use crate::experiment::Setup;
use crate::load::summary::Summary;
use crate::load::{self, LoadPlan, Pace};
use crate::stats::Rounds;

/// How many replicas there are.
pub(super) const REPLICAS: u32 = 6;
/// How long they work on a GET, how many take longer, and how many times as long.
pub(super) const USUAL: Duration = Duration::from_millis(5);
pub(super) const SLOW_SHARE: f64 = 0.05;
pub(super) const SLOW_FACTOR: u32 = 20;

/// What becomes of a GET.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// It goes to one replica.
    One,
    /// To so many at once.
    First(u32),
    /// To one, and to a second one where the first is later than 95 % of late; for 5 % of the
    /// requests.
    HedgedByQuantile,
    /// The same after three times the usual time; for 10 % of the requests.
    HedgedByTime,
}

/// What came of it.
#[derive(Clone, Debug)]
pub(super) struct Measured {
    pub(super) mode: Mode,
    pub(super) round: usize,
    pub(super) summary: Summary,
    /// Requests that came to replicas.
    pub(super) asked: u64,
}

/// Starts replicas and a balancer, sends the GETs, and counts what came to the replicas.
///
/// # Errors
/// When a replica or the balancer is not as it should be.
pub(super) async fn measure(
    setup: &Setup,
    plan: &Plan,
    mode: Mode,
    round: usize,
) -> anyhow::Result<Measured> {
    let options = [
        format!("--latency={}ms", USUAL.as_millis()),
        format!("--slow-share={SLOW_SHARE}"),
        format!("--slow-factor={SLOW_FACTOR}"),
    ];
    let mut replicas = Vec::new();
    for number in 1..=REPLICAS {
        replicas.push(Replica::start(setup, number, &options).await?);
    }
    let configured = Configured::start(setup, &mode.config(), &replicas).await?;
    let load = LoadPlan {
        pace: Pace::PerSecond(plan.rate),
        ..LoadPlan::get(
            &configured.balancer.url("/home"),
            load::request_ids(setup.seed, plan.gets),
        )?
    };
    let progress = load::progress_bar(mode.name());
    let run = load::run(load, &progress).await;
    progress.finish_and_clear();
    // It ends when the last of what it sent has ended.
    configured.balancer.stop().await?;
    let asked = replicas.iter().flat_map(|replica| replica.tap.asked().into_values());
    let (summary, asked) = (Summary::of(&run), asked.map(u64::from).sum());
    Ok(Measured { mode, round, summary, asked })
}

/// The runs of a mode.
pub(super) fn of(mode: Mode, runs: &[Measured]) -> impl Iterator<Item = &Measured> {
    runs.iter().filter(move |run| run.mode == mode)
}

/// A percentile of a mode over its rounds, in ms; the index is that of [`Percentiles::columns`](crate::stats::Percentiles::columns).
pub(super) fn over_rounds(mode: Mode, runs: &[Measured], index: usize) -> Option<Rounds> {
    let values = of(mode, runs).map(|run| run.summary.latency.columns()[index].as_secs_f64() * 1e3);
    Rounds::of(&values.collect::<Vec<_>>())
}

/// Requests at replicas for each of a client.
pub(super) fn cost(mode: Mode, runs: &[Measured]) -> f64 {
    let asked: u64 = of(mode, runs).map(|run| run.asked).sum();
    let requests: u64 = of(mode, runs).map(|run| run.summary.requests).sum();
    asked as f64 / requests.max(1) as f64
}

// === impl Mode ===

impl Mode {
    /// All of them, in the order of the report.
    pub(super) const ALL: [Self; 5] =
        [Self::One, Self::First(2), Self::First(3), Self::HedgedByQuantile, Self::HedgedByTime];

    /// On a page.
    pub(super) fn name(self) -> &'static str {
        match self {
            Mode::One => "one",
            Mode::First(2) => "first of 2",
            Mode::First(3) => "first of 3",
            Mode::First(_) => "first",
            Mode::HedgedByQuantile => "hedged after p95",
            Mode::HedgedByTime => "hedged after 15 ms",
        }
    }

    /// What is in the route.
    pub(super) fn setting(self) -> String {
        match self {
            Mode::One => r#"send = "one""#.to_owned(),
            Mode::First(fan) => format!("send = \"first\"\nfan = {fan}"),
            Mode::HedgedByQuantile => {
                "send = \"one\"\nhedge = { after = \"p95\", budget = \"5%\" }".to_owned()
            }
            Mode::HedgedByTime => {
                "send = \"one\"\nhedge = { after = \"15ms\", budget = \"10%\" }".to_owned()
            }
        }
    }

    fn config(self) -> String {
        let setting = self.setting();
        format!(
            "[health]\ninterval = \"1s\"\n\n\
             [[route]]\nname = \"home\"\nmethods = [\"GET\"]\npaths = [\"/home\"]\n{setting}\n"
        )
    }

    /// How many requests may come to replicas for so many of clients, at least and at most.
    fn bounds(self, requests: u64) -> (u64, u64) {
        let part = |share: f64| requests + (requests as f64 * share).floor() as u64;
        match self {
            Mode::One => (requests, requests),
            Mode::First(fan) => (requests * u64::from(fan), requests * u64::from(fan)),
            Mode::HedgedByQuantile => (requests, part(0.05)),
            Mode::HedgedByTime => (requests, part(0.1)),
        }
    }

    /// What this share of the requests, 0 to 1, is not slower than, by the replicas' times alone:
    /// nothing else takes time, a hedge by quantile follows at once, and no budget is used up.
    pub(super) fn expected(self, share: f64) -> Duration {
        let usual_or = |slow: f64| if share <= 1.0 - slow { USUAL } else { USUAL * SLOW_FACTOR };
        let hedged = |after: Duration| match () {
            () if share <= 1.0 - SLOW_SHARE => USUAL,
            () if share <= 1.0 - SLOW_SHARE.powi(2) => after + USUAL,
            () => USUAL * SLOW_FACTOR,
        };
        match self {
            Mode::One => usual_or(SLOW_SHARE),
            Mode::First(fan) => usual_or(SLOW_SHARE.powf(f64::from(fan))),
            Mode::HedgedByQuantile => hedged(USUAL),
            Mode::HedgedByTime => hedged(3 * USUAL),
        }
    }
}

// === impl Measured ===

impl Measured {
    /// Requests at replicas for each of a client.
    pub(super) fn cost(&self) -> f64 {
        self.asked as f64 / self.summary.requests.max(1) as f64
    }

    /// Failed requests, and more or fewer requests at replicas than the mode allows.
    pub(super) fn problems(&self) -> Problems {
        let name = format!("{}, round {}", self.mode.name(), self.round);
        let requests = self.summary.requests;
        let mut problems = Problems::new();
        if self.summary.failed() > 0 {
            problems.push(format!(
                "{name}: {} of {requests} requests failed: {}",
                self.summary.failed(),
                self.summary.failures_in_words()
            ));
        }
        let (least, most) = self.mode.bounds(requests);
        if !(least..=most).contains(&self.asked) {
            problems.push(format!(
                "{name}: {} requests came to replicas for {requests}, not {least} to {most}",
                self.asked
            ));
        }
        problems
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::load::Failure;
    use crate::stats::Percentiles;

    /// What a mode gives when nothing but the replicas takes time.
    pub(in super::super) fn ideal(mode: Mode, requests: u64, asked: u64) -> Measured {
        let latency = Percentiles {
            p50: mode.expected(0.5),
            p90: mode.expected(0.9),
            p99: mode.expected(0.99),
            p999: mode.expected(0.999),
            max: mode.expected(1.0),
        };
        let summary = Summary {
            requests,
            wall: Duration::from_secs(1),
            latency,
            service: latency,
            by_seat: BTreeMap::from([(1, requests)]),
            unnamed: 0,
            failures: BTreeMap::new(),
        };
        Measured { mode, round: 1, summary, asked }
    }

    #[test]
    fn two_at_once_are_both_slow_for_one_in_four_hundred() {
        let slow = USUAL * SLOW_FACTOR;
        assert_eq!((Mode::One.expected(0.94), Mode::One.expected(0.96)), (USUAL, slow));
        assert_eq!((Mode::First(2).expected(0.99), Mode::First(2).expected(0.999)), (USUAL, slow));
        assert_eq!(Mode::First(3).expected(0.999), USUAL);
        let hedged = Mode::HedgedByTime;
        assert_eq!(hedged.expected(0.99), Duration::from_millis(20));
        assert_eq!((hedged.expected(0.9), hedged.expected(0.999)), (USUAL, slow));
    }

    #[test]
    fn a_replica_may_be_asked_no_more_than_the_mode_says() {
        for (mode, asked) in [(Mode::One, 100), (Mode::First(3), 300), (Mode::HedgedByTime, 110)] {
            assert_eq!(ideal(mode, 100, asked).problems(), Problems::new());
            let problems = ideal(mode, 100, asked + 1).problems();
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert!(problems[0].contains("came to replicas for 100"), "{problems:?}");
        }
    }

    #[test]
    fn a_failed_request_is_a_problem() {
        let mut measured = ideal(Mode::One, 100, 100);
        measured.summary.failures = BTreeMap::from([(Failure::Timeout, 2)]);
        assert_eq!(measured.problems(), ["one, round 1: 2 of 100 requests failed: 2 × timeout"]);
    }

    #[test]
    fn every_mode_has_a_configuration_and_a_name() {
        for mode in Mode::ALL {
            assert!(mode.config().contains(&mode.setting()), "{mode:?}");
            assert_ne!(mode.name(), "first");
        }
    }
}
