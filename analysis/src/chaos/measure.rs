//! What each fault cost: how soon it was seen, how soon the fleet was whole, what failed. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::faults::{Fault, Outcome};
use super::schedule::Kind;
use super::watch::{Event, Look};
use crate::load::{Failure, Run};

/// A request that failed. Times count as those of the watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failed {
    pub(crate) launched: Duration,
    pub(crate) done: Duration,
    pub(crate) failure: Failure,
}

/// What is known of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen<'a> {
    pub(crate) faults: &'a [Fault],
    pub(crate) looks: &'a [Look],
    pub(crate) events: &'a [Event],
    pub(crate) retries: &'a [(Duration, u64)],
    pub(crate) excused: &'a [(Duration, Duration)],
    pub(crate) gets: &'a [Failed],
    pub(crate) posts: &'a [Failed],
}

/// A fault in figures, as the CSV file has it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Row {
    pub(crate) number: usize,
    pub(crate) at_seconds: f64,
    pub(crate) kind: &'static str,
    pub(crate) seats: String,
    pub(crate) hostnames: String,
    pub(crate) outcome: String,
    pub(crate) detected_ms: Option<f64>,
    pub(crate) full_ms: Option<f64>,
    pub(crate) retried: Option<u64>,
    pub(crate) failed_gets: usize,
    /// Of them, while the balancer itself was down.
    pub(crate) excused_gets: usize,
    pub(crate) failed_posts: usize,
}

/// Events that tell that something is wrong with a replica, or that it leaves.
const ALARMS: [&str; 6] = ["ejected", "died", "hung", "draining", "removed", "seated"];
/// A request that took longer than this failed for what was there when it began.
const SLOW: Duration = Duration::from_secs(2);
/// What is undone may still be noticed so much later: probes take their time.
const AFTERWARDS: Duration = Duration::from_secs(5);

/// The failures of a run that began so much after the watch.
pub(crate) fn failures(run: &Run, offset: Duration) -> Vec<Failed> {
    let failed = run.samples.iter().filter_map(|sample| {
        let failure = sample.outcome.as_ref().err()?.clone();
        let (launched, done) = (offset + sample.launched, offset + sample.done);
        Some(Failed { launched, done, failure })
    });
    failed.collect()
}

/// Whether a request may have met a window in which it was allowed to fail.
pub(crate) fn is_excused(failed: &Failed, excused: &[(Duration, Duration)]) -> bool {
    excused.iter().any(|(from, to)| failed.launched <= *to && failed.done >= *from)
}

/// The fault that a failure is counted for: the last one before it, or before its request for one
/// that took long. `None` before the first fault.
fn blame(failed: &Failed, faults: &[Fault]) -> Option<usize> {
    let took = failed.done.saturating_sub(failed.launched);
    let moment = if took > SLOW { failed.launched } else { failed.done };
    faults.iter().rposition(|fault| fault.at <= moment)
}

// === impl Seen ===

impl Seen<'_> {
    /// One row a fault.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let count = |all: &[Failed], wanted: &dyn Fn(&Failed) -> bool| {
            let mut counts = BTreeMap::new();
            for failed in all.iter().filter(|failed| wanted(failed)) {
                *counts.entry(blame(failed, self.faults)).or_insert(0) += 1;
            }
            counts
        };
        let gets = count(self.gets, &|_| true);
        let excused = count(self.gets, &|failed| is_excused(failed, self.excused));
        let posts = count(self.posts, &|_| true);
        let of = |counts: &BTreeMap<Option<usize>, usize>, index| {
            counts.get(&Some(index)).copied().unwrap_or_default()
        };
        let rows = self.faults.iter().enumerate().map(|(index, fault)| Row {
            number: index + 1,
            at_seconds: (fault.at.as_secs_f64() * 1e3).round() / 1e3,
            kind: fault.kind.name(),
            seats: fault.seats.iter().map(u32::to_string).collect::<Vec<_>>().join(" "),
            hostnames: fault.victims.join(" "),
            outcome: fault.outcome.words(),
            detected_ms: self.detected(fault).map(|at| milliseconds(at, fault.at)),
            full_ms: self.full(fault).map(|at| milliseconds(at, fault.at)),
            retried: self.retried(index),
            failed_gets: of(&gets, index),
            excused_gets: of(&excused, index),
            failed_posts: of(&posts, index),
        });
        rows.collect()
    }

    /// When the balancer had seen what happened to the last of the victims.
    fn detected(&self, fault: &Fault) -> Option<Duration> {
        if !fault.kind.hits_a_replica() {
            return None;
        }
        let until = match fault.ended {
            Some(ended) if fault.kind.is_undone() => ended + AFTERWARDS,
            // What went after it was put right went for another reason.
            Some(ended) if fault.outcome == Outcome::NotReplaced => ended,
            _ => Duration::MAX,
        };
        // Of an exit loop, the first one.
        let count = if fault.kind == Kind::ExitLoop { 1 } else { usize::MAX };
        let victims = fault.victims.iter().take(count);
        let moments: Option<Vec<Duration>> =
            victims.map(|name| self.noticed(name, fault.at).filter(|at| *at <= until)).collect();
        moments?.into_iter().max()
    }

    /// When this name was gone from `/rep`, or an event told of it.
    fn noticed(&self, name: &str, from: Duration) -> Option<Duration> {
        let gone = self.looks.iter().find(|look| look.at >= from && look.lacks(name));
        let told = self.events.iter().find(|event| {
            let alarm = ALARMS.contains(&event.name.as_str());
            event.at >= from && alarm && event.hostname.as_deref() == Some(name)
        });
        gone.map(|look| look.at).into_iter().chain(told.map(|event| event.at)).min()
    }

    /// When as many were ready as were asked for, after the last blow, none of those that are
    /// lost among them. None where nobody noticed anything.
    fn full(&self, fault: &Fault) -> Option<Duration> {
        if matches!(fault.outcome, Outcome::Failed(_)) {
            return None;
        }
        let from = match fault.kind {
            Kind::Balancer
            | Kind::Engine
            | Kind::Member
            | Kind::Unread
            | Kind::Add
            | Kind::Shrink
            | Kind::Rollout => fault.ended?,
            Kind::HangBriefly | Kind::Disconnect | Kind::Hang => self.detected(fault)?,
            Kind::Kill | Kind::Stop | Kind::Remove | Kind::ExitLoop => fault.struck,
        };
        let lost = match fault.kind {
            Kind::Kill | Kind::Stop | Kind::Remove | Kind::ExitLoop | Kind::Shrink => true,
            Kind::Hang | Kind::HangBriefly | Kind::Disconnect => fault.outcome == Outcome::Replaced,
            Kind::Balancer
            | Kind::Engine
            | Kind::Member
            | Kind::Unread
            | Kind::Add
            | Kind::Rollout => false,
        };
        let good = |look: &Look| {
            look.is_full() && !(lost && fault.victims.iter().any(|name| !look.lacks(name)))
        };
        // What was seen last before is what was so then.
        let first = self.looks.iter().rposition(|look| look.at <= from).unwrap_or(0);
        let look = self.looks[first.min(self.looks.len())..].iter().find(|look| good(look))?;
        Some(look.at.max(from))
    }

    /// By how much the counter of retries grew until the next fault.
    fn retried(&self, index: usize) -> Option<u64> {
        let at = self.faults[index].at;
        let end = self.faults.get(index + 1).map_or(Duration::MAX, |next| next.at);
        let before = self.retries.iter().rfind(|(when, _)| *when <= at)?;
        let after = self.retries.iter().rfind(|(when, _)| *when <= end)?;
        after.1.checked_sub(before.1)
    }
}

// === impl Kind ===

impl Kind {
    pub(super) fn hits_a_replica(self) -> bool {
        !matches!(self, Self::Balancer | Self::Engine | Self::Unread | Self::Add | Self::Shrink)
    }
}

// === impl Outcome ===

impl Outcome {
    fn words(&self) -> String {
        match self {
            Self::Open => "not over".to_owned(),
            Self::Done => "done".to_owned(),
            Self::Replaced => "replaced".to_owned(),
            Self::Undone => "undone".to_owned(),
            Self::NotReplaced => "not replaced".to_owned(),
            Self::Failed(why) => format!("failed: {why}"),
        }
    }
}

fn milliseconds(at: Duration, from: Duration) -> f64 {
    (at.saturating_sub(from).as_secs_f64() * 1e4).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn look(at: u64, names: &[&str]) -> Look {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        Look { at: ms(at), names: Some(names), asked: 2, ready: None }
    }

    fn fault(at: u64, kind: Kind, victims: &[&str], outcome: Outcome) -> Fault {
        Fault {
            at: ms(at),
            kind,
            seats: vec![1],
            victims: victims.iter().map(|name| (*name).to_owned()).collect(),
            struck: ms(at),
            ended: Some(ms(at + 100)),
            outcome,
        }
    }

    fn failed(launched: u64, done: u64) -> Failed {
        Failed { launched: ms(launched), done: ms(done), failure: Failure::Status(502) }
    }

    fn rows(faults: &[Fault], looks: &[Look], events: &[Event], gets: &[Failed]) -> Vec<Row> {
        let excused = [(ms(5_000), ms(6_000))];
        Seen { faults, looks, events, retries: &[], excused: &excused, gets, posts: &[] }.rows()
    }

    #[test]
    fn a_kill_is_seen_when_the_name_goes_and_over_when_another_one_has_come() {
        let faults = [fault(1_000, Kind::Kill, &["S1"], Outcome::Replaced)];
        let looks = [look(0, &["S1", "S2"]), look(1_020, &["S2"]), look(1_300, &["S2", "S7"])];
        let rows = rows(&faults, &looks, &[], &[]);
        assert_eq!((rows[0].detected_ms, rows[0].full_ms), (Some(20.0), Some(300.0)));
    }

    #[test]
    fn of_two_victims_the_later_one_counts() {
        let faults = [fault(1_000, Kind::Kill, &["S1", "S2"], Outcome::Replaced)];
        let looks = [
            look(0, &["S1", "S2"]),
            look(1_020, &["S2"]),
            look(1_030, &["S2", "S7"]),
            look(1_050, &["S7", "S8"]),
        ];
        let rows = rows(&faults, &looks, &[], &[]);
        assert_eq!((rows[0].detected_ms, rows[0].full_ms), (Some(50.0), Some(50.0)));
    }

    #[test]
    fn a_replacement_between_two_looks_is_a_whole_fleet_at_once() {
        let faults = [fault(1_000, Kind::Kill, &["S1"], Outcome::Replaced)];
        let looks = [look(0, &["S1", "S2"]), look(1_008, &["S2", "S7"])];
        assert_eq!(rows(&faults, &looks, &[], &[])[0].full_ms, Some(8.0));
    }

    #[test]
    fn a_hang_that_only_an_event_tells_of_is_seen_and_one_that_nobody_notices_is_not() {
        let faults = [fault(1_000, Kind::HangBriefly, &["S1"], Outcome::Undone)];
        let looks = [look(0, &["S1", "S2"])];
        let event = |at, name: &str, hostname: &str| Event {
            at: ms(at),
            name: name.to_owned(),
            hostname: Some(hostname.to_owned()),
        };
        let told = [event(1_500, "ready", "S1"), event(1_700, "ejected", "S1")];
        assert_eq!(rows(&faults, &looks, &told, &[])[0].detected_ms, Some(700.0));
        let of_another = [event(1_700, "ejected", "S2")];
        assert_eq!(rows(&faults, &looks, &of_another, &[])[0].detected_ms, None);
        // Long after it was undone: it is for something else.
        let late = [event(9_000, "died", "S1")];
        assert_eq!(rows(&faults, &looks, &late, &[])[0].detected_ms, None);
    }

    #[test]
    fn a_hang_that_had_to_be_undone_is_not_seen_by_what_comes_later() {
        let faults = [fault(1_000, Kind::Hang, &["S1"], Outcome::NotReplaced)];
        let looks = [look(0, &["S1", "S2"]), look(2_000, &["S2"]), look(2_100, &["S2", "S1"])];
        let rows = rows(&faults, &looks, &[], &[]);
        assert_eq!((rows[0].detected_ms, rows[0].full_ms), (None, None));
    }

    #[test]
    fn an_exit_loop_is_over_after_its_last_kill() {
        let mut fault = fault(1_000, Kind::ExitLoop, &["S1", "S7"], Outcome::Replaced);
        fault.struck = ms(3_000);
        let looks = [
            look(0, &["S1", "S2"]),
            look(1_010, &["S2"]),
            look(1_100, &["S2", "S7"]),
            look(3_010, &["S2"]),
            look(3_500, &["S2", "S8"]),
        ];
        let rows = rows(&[fault], &looks, &[], &[]);
        assert_eq!((rows[0].detected_ms, rows[0].full_ms), (Some(10.0), Some(2_500.0)));
    }

    #[test]
    fn failures_are_counted_for_the_fault_before_them_and_slow_ones_for_that_before_they_began() {
        let faults = [
            fault(1_000, Kind::Hang, &["S1"], Outcome::Replaced),
            fault(5_000, Kind::Balancer, &[], Outcome::Done),
        ];
        let gets =
            [failed(500, 600), failed(990, 1_010), failed(1_500, 6_500), failed(5_100, 5_100)];
        let rows = rows(&faults, &[look(0, &["S1", "S2"])], &[], &gets);
        assert_eq!((rows[0].failed_gets, rows[1].failed_gets), (2, 1));
        // The slow one met the window, whoever is to blame.
        assert_eq!((rows[0].excused_gets, rows[1].excused_gets), (1, 1));
    }

    #[test]
    fn retries_are_what_the_counter_grew_by() {
        let faults = [
            fault(1_000, Kind::Kill, &["S1"], Outcome::Replaced),
            fault(5_000, Kind::Kill, &["S2"], Outcome::Replaced),
        ];
        let retries = [(ms(900), 3), (ms(4_900), 10), (ms(9_900), 11)];
        let seen = Seen {
            faults: &faults,
            looks: &[],
            events: &[],
            retries: &retries,
            excused: &[],
            gets: &[],
            posts: &[],
        };
        assert_eq!((seen.retried(0), seen.retried(1)), (Some(7), Some(1)));
    }

    #[test]
    fn a_window_excuses_what_met_it() {
        let excused = [(ms(5_000), ms(6_000))];
        for (from, to, expected) in [
            (4_000, 4_999, false),
            (4_000, 5_000, true),
            (5_900, 6_100, true),
            (6_001, 6_002, false),
        ] {
            assert_eq!(is_excused(&failed(from, to), &excused), expected, "{from} to {to}");
        }
    }
}
