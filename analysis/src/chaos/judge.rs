//! What must hold after all faults, each judged by itself. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use super::faults::{Fault, Outcome};
use super::journal::Entries;
use super::measure::{Failed, is_excused};
use super::replicas::Found;
use super::schedule::Kind;
use super::watch::Memory;
use crate::report::thousands;

/// One invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Check {
    pub(crate) what: &'static str,
    pub(crate) verdict: Verdict,
    pub(crate) detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Pass,
    Fail,
    /// This balancer, or this run, has nothing to judge by.
    NotJudged,
}

/// The fleet once it had time to settle.
#[derive(Clone, Debug)]
pub(crate) struct Settled {
    pub(crate) asked: usize,
    pub(crate) spares: usize,
    /// What `/rep` lists, if it answers.
    pub(crate) listed: Option<Vec<String>>,
    pub(crate) found: Vec<Found>,
    /// How long it took.
    pub(crate) after: Duration,
}

/// POSTs: which were sent, which were answered well, which were carried out.
#[derive(Clone, Debug)]
pub(crate) struct Posts {
    pub(crate) sent: usize,
    pub(crate) answered: Vec<u32>,
    pub(crate) entries: Entries,
    /// Entries that the kernel had no room for.
    pub(crate) dropped: Option<u64>,
}

/// How the balancer ended.
#[derive(Clone, Debug)]
pub(crate) struct Ending {
    /// Why it did not stop as it should.
    pub(crate) complaint: Option<String>,
    /// Replicas that were there afterwards.
    pub(crate) left: usize,
}

/// By how much memory may grow: this share, and this much, in KiB.
const GROWTH: f64 = 0.25;
const SLACK_KIB: u64 = 4 * 1024;
/// When memory is first looked at, in the life of a balancer.
const WARM: Duration = Duration::from_secs(120);
/// A shorter life says nothing.
const LIFE: Duration = Duration::from_secs(180);

// === impl Check ===

impl Check {
    fn of(what: &'static str, good: bool, detail: String) -> Self {
        Self { what, verdict: if good { Verdict::Pass } else { Verdict::Fail }, detail }
    }
}

// === impl Verdict ===

impl Verdict {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "FAIL",
            Self::NotJudged => "not judged",
        }
    }
}

// === impl Settled ===

impl Settled {
    /// The fleet is what was asked for.
    pub(crate) fn checks(&self) -> Vec<Check> {
        let listed = self.listed.as_ref().map(Vec::len);
        let after = self.after.as_secs_f64();
        let size = Check::of(
            "the fleet is as large as was asked for",
            listed == Some(self.asked),
            match listed {
                Some(n) => {
                    format!("/rep has {n}, asked for were {}; after {after:.1} s", self.asked)
                }
                None => "/rep does not answer".to_owned(),
            },
        );
        let expected = self.asked + self.spares;
        let orphans = Check::of(
            "no orphan, none missing",
            self.found.len() == expected && self.found.iter().all(|found| found.runs),
            format!(
                "{} are there ({} alive); {expected} should be, {} spares among them",
                self.found.len(),
                self.found.iter().filter(|found| found.runs).count(),
                self.spares
            ),
        );
        vec![size, self.seats(), orphans]
    }

    /// Whether all that can be judged is as it should be.
    pub(crate) fn is_well(&self) -> bool {
        self.checks().iter().all(|check| check.verdict != Verdict::Fail)
    }

    fn seats(&self) -> Check {
        let mut seats: Vec<u32> = self.found.iter().filter_map(|found| found.seat).collect();
        seats.sort_unstable();
        let words: Vec<String> = seats.iter().map(u32::to_string).collect();
        let expected = (1..).take(self.asked);
        let good = seats.iter().copied().eq(expected);
        Check::of("each seat is taken once", good, format!("taken are {}", words.join(", ")))
    }
}

/// No GET failed but while the balancer itself was down.
pub(crate) fn gets(sent: usize, failed: &[Failed], excused: &[(Duration, Duration)]) -> Check {
    let (down, bad): (Vec<&Failed>, Vec<&Failed>) =
        failed.iter().partition(|failed| is_excused(failed, excused));
    let mut kinds: BTreeMap<_, usize> = BTreeMap::new();
    bad.iter().for_each(|failed| *kinds.entry(&failed.failure).or_default() += 1);
    let kinds: Vec<String> =
        kinds.iter().map(|(kind, count)| format!("{count} × {kind}")).collect();
    let window: Duration = excused.iter().map(|(from, to)| to.saturating_sub(*from)).sum();
    let mut detail = format!(
        "{} of {} failed outside of the balancer's restarts",
        bad.len(),
        thousands(sent as u64)
    );
    if !kinds.is_empty() {
        detail.push_str(&format!(" ({})", kinds.join(", ")));
    }
    detail.push_str(&format!(
        "; {} within ({} restarts, {:.1} s in all)",
        down.len(),
        excused.len(),
        window.as_secs_f64()
    ));
    Check::of("no GET failed", bad.is_empty(), detail)
}

// === impl Posts ===

impl Posts {
    pub(crate) fn checks(&self) -> Vec<Check> {
        let counts = &self.entries.counts;
        let twice: Vec<u32> =
            counts.iter().filter(|(_, count)| **count > 1).map(|(id, _)| *id).collect();
        let missing: Vec<u32> =
            self.answered.iter().copied().filter(|id| !counts.contains_key(id)).collect();
        let silent = counts.len().saturating_sub(self.answered.len() - missing.len());
        let repeated = Check::of(
            "no POST was carried out twice",
            twice.is_empty() && self.entries.strange == 0,
            format!(
                "{} sent, {} carried out, {} of them twice or more{}{}",
                thousands(self.sent as u64),
                thousands(counts.len() as u64),
                twice.len(),
                first(&twice),
                match self.entries.strange {
                    0 => String::new(),
                    strange => format!("; {strange} entries are of none of them"),
                }
            ),
        );
        let dropped = match self.dropped {
            Some(0) => "no entry was lost on the way".to_owned(),
            Some(lost) => format!("{lost} entries were lost on the way"),
            None => "whether entries were lost on the way is not known".to_owned(),
        };
        let mut promised = Check::of(
            "no POST was answered 201 and not carried out",
            missing.is_empty(),
            format!(
                "{} answered 201, {} of them not carried out{}; {silent} carried out and answered \
                 otherwise; {dropped}",
                thousands(self.answered.len() as u64),
                missing.len(),
                first(&missing)
            ),
        );
        // What the journal lost may be what is missing.
        if !missing.is_empty() && self.dropped.is_some_and(|lost| lost >= missing.len() as u64) {
            promised.verdict = Verdict::NotJudged;
        }
        vec![repeated, promised]
    }
}

/// ` (17, 18, …)`; nothing of none.
fn first(ids: &[u32]) -> String {
    let words: Vec<String> = ids.iter().take(5).map(u32::to_string).collect();
    match ids.len() {
        0 => String::new(),
        1..=5 => format!(" ({})", words.join(", ")),
        _ => format!(" ({}, …)", words.join(", ")),
    }
}

/// The memory of the balancer that lived longest is flat from its second minute on. Restarts in
/// between make the figures of the whole run those of different processes: they are told, too.
pub(crate) fn memory(samples: &[Memory]) -> Check {
    let what = "the balancer's memory is flat";
    let lives = samples.chunk_by(|one, other| one.pid == other.pid);
    let span = |life: &[Memory]| match life {
        [first, .., last] => last.at.saturating_sub(first.at),
        _ => Duration::ZERO,
    };
    let Some(longest) = lives.max_by_key(|life| span(life)) else {
        return Check { what, verdict: Verdict::NotJudged, detail: "never read".to_owned() };
    };
    let at = |life: &[Memory], when| {
        let sample = life.iter().find(|sample| sample.at >= when).or(life.last());
        sample.map_or(0, |sample| sample.resident_kib)
    };
    let age = WARM.min(span(longest) / 3);
    let (early, late) =
        (at(longest, longest[0].at + age), longest.last().map_or(0, |last| last.resident_kib));
    let limit = early + (early as f64 * GROWTH) as u64 + SLACK_KIB;
    let mib = |kib: u64| kib as f64 / 1024.0;
    let detail = format!(
        "the process that lived longest ({:.0} s): {:.1} MiB after {:.0} s, {:.1} MiB at its end \
         (at most {:.1}); in the whole run {:.1} MiB at the end of the second minute, {:.1} MiB at \
         the end",
        span(longest).as_secs_f64(),
        mib(early),
        age.as_secs_f64(),
        mib(late),
        mib(limit),
        mib(at(samples, WARM)),
        mib(samples.last().map_or(0, |last| last.resident_kib)),
    );
    if span(longest) < LIFE {
        return Check { what, verdict: Verdict::NotJudged, detail: format!("{detail}; too short") };
    }
    Check::of(what, late <= limit, detail)
}

/// What hung was replaced; judged only of a balancer that says it does so.
pub(crate) fn hangs(faults: &[Fault], promised: bool) -> Check {
    let what = "every hung replica was replaced";
    let hung: Vec<&Fault> = faults.iter().filter(|fault| fault.kind == Kind::Hang).collect();
    let left = hung.iter().filter(|fault| fault.outcome == Outcome::NotReplaced).count();
    let detail = format!("{} hung and were left so, {left} of them not replaced", hung.len());
    if hung.is_empty() || !promised {
        let why = if promised { "" } else { "; this balancer has no --health-replace-after" };
        return Check { what, verdict: Verdict::NotJudged, detail: format!("{detail}{why}") };
    }
    Check::of(what, left == 0, detail)
}

/// What was to be done could be done and was seen to end.
pub(crate) fn carried_out(faults: &[Fault], left_out: usize) -> Check {
    let failed: Vec<String> = faults
        .iter()
        .enumerate()
        .filter_map(|(index, fault)| match &fault.outcome {
            Outcome::Failed(why) => Some(format!("{} ({}): {why}", index + 1, fault.kind.name())),
            Outcome::Open => Some(format!("{} ({}): not over", index + 1, fault.kind.name())),
            Outcome::Done | Outcome::Replaced | Outcome::Undone | Outcome::NotReplaced => None,
        })
        .collect();
    let mut detail = format!("{} injected, {left_out} left out for want of time", faults.len());
    if !failed.is_empty() {
        detail.push_str(&format!("; not as planned: {}", failed.join("; ")));
    }
    Check::of("every fault could be injected and was over in time", failed.is_empty(), detail)
}

// === impl Ending ===

impl Ending {
    pub(crate) fn check(&self) -> Check {
        let good = self.complaint.is_none() && self.left == 0;
        let complaint = self.complaint.clone().unwrap_or_else(|| "SIGTERM, exit code 0".to_owned());
        let detail = format!("{complaint}; {} replicas left", self.left);
        Check::of("the balancer stops and leaves nothing", good, detail)
    }
}

#[cfg(test)]
mod tests;
