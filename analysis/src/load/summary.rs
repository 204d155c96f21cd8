//! What a run comes down to: totals, rate, percentiles, counts per replica, failures by kind.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::{Failure, Run, Sample};
use crate::stats::{Latencies, Percentiles};

/// A run in figures.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Summary {
    /// How many requests were launched.
    pub(crate) requests: u64,
    /// From the first launch to the last answer.
    pub(crate) wall: Duration,
    /// From launch to the last byte, of the requests that succeeded.
    pub(crate) latency: Percentiles,
    /// From the right to a connection to the last byte, of the same.
    pub(crate) service: Percentiles,
    /// Successful answers by the seat they name.
    pub(crate) by_seat: BTreeMap<u32, u64>,
    /// Successful answers that name none.
    pub(crate) unnamed: u64,
    /// Failures by kind.
    pub(crate) failures: BTreeMap<Failure, u64>,
}

// === impl Summary ===

impl Summary {
    /// Of a run.
    pub(crate) fn of(run: &Run) -> Self {
        let good = || run.samples.iter().filter(|sample| sample.outcome.is_ok());
        let mut summary = Self {
            requests: run.samples.len() as u64,
            wall: run.wall,
            latency: good().map(Sample::latency).collect::<Latencies>().percentiles(),
            service: good().map(Sample::service).collect::<Latencies>().percentiles(),
            by_seat: BTreeMap::new(),
            unnamed: 0,
            failures: BTreeMap::new(),
        };
        for sample in &run.samples {
            match &sample.outcome {
                Ok(Some(seat)) => *summary.by_seat.entry(*seat).or_default() += 1,
                Ok(None) => summary.unnamed += 1,
                Err(failure) => *summary.failures.entry(failure.clone()).or_default() += 1,
            }
        }
        summary
    }

    /// How many requests failed.
    pub(crate) fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    /// Requests answered well per second of wall time; 0 of an empty run.
    pub(crate) fn rate(&self) -> f64 {
        let good = (self.requests - self.failed()) as f64;
        if self.wall.is_zero() { 0.0 } else { good / self.wall.as_secs_f64() }
    }

    /// The failures in words, `3 × status 500, 1 × timeout`; empty when there are none.
    pub(crate) fn failures_in_words(&self) -> String {
        let kinds: Vec<String> =
            self.failures.iter().map(|(kind, count)| format!("{count} × {kind}")).collect();
        kinds.join(", ")
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let good = self.requests - self.failed();
        writeln!(
            f,
            "{:<16} {} ({good} good, {} failed)",
            "requests",
            self.requests,
            self.failed()
        )?;
        writeln!(f, "{:<16} {:.3} s", "wall time", self.wall.as_secs_f64())?;
        writeln!(f, "{:<16} {:.0} good answers/s", "rate", self.rate())?;
        writeln!(f)?;
        let heads = ["p50", "p90", "p99", "p99.9", "max"];
        write!(f, "{:<16}", "milliseconds")?;
        for head in heads {
            write!(f, " {head:>10}")?;
        }
        writeln!(f)?;
        for (name, percentiles) in [("latency", &self.latency), ("service time", &self.service)] {
            write!(f, "{name:<16}")?;
            for value in percentiles.columns() {
                write!(f, " {:>10.3}", value.as_secs_f64() * 1e3)?;
            }
            writeln!(f)?;
        }
        if !self.by_seat.is_empty() {
            writeln!(f)?;
        }
        for (seat, count) in &self.by_seat {
            let share = 100.0 * *count as f64 / good.max(1) as f64;
            writeln!(f, "{:<16} {count:>10} {share:>9.2} %", format!("replica {seat}"))?;
        }
        if self.unnamed > 0 {
            writeln!(f, "{:<16} {:>10}", "no replica named", self.unnamed)?;
        }
        if !self.failures.is_empty() {
            writeln!(f)?;
        }
        for (kind, count) in &self.failures {
            writeln!(f, "{:<16} {count:>10} × {kind}", "failed")?;
        }
        Ok(())
    }
}
