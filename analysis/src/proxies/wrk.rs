//! wrk, the load generator, and what it prints.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde::Deserialize;

use super::process::Launch;
use super::work::Load;

/// What wrk did, as the script's last line says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Sent {
    /// Answered ones.
    pub(crate) requests: u64,
    /// How long that took, in microseconds.
    micros: u64,
    /// In microseconds, too.
    p50: u64,
    p99: u64,
    /// Connections that failed to open, reads and writes that failed.
    connect: u64,
    read: u64,
    write: u64,
    /// Answers above 399.
    status: u64,
    /// Answers that took longer than [`TIMEOUT`].
    timeout: u64,
}

/// Of one answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Sends `load` for so many seconds, on one thread.
///
/// # Errors
/// When wrk cannot be run, fails, or prints something else. Failed requests are none here.
pub(crate) async fn run(
    wrk: &Path,
    load: &Load,
    url: &str,
    seconds: u64,
    processor: usize,
    folder: &Path,
) -> anyhow::Result<Sent> {
    let script = folder.join("wrk.lua");
    fs::write(&script, load.script())
        .with_context(|| format!("cannot write {}", script.display()))?;
    let connections = load.connections.to_string();
    let (duration, timeout) = (format!("{seconds}s"), format!("{}s", TIMEOUT.as_secs()));
    let script = script.display().to_string();
    let words = [
        ["-t", "1"],
        ["-c", &connections],
        ["-d", &duration],
        ["--timeout", &timeout],
        ["-s", &script],
    ];
    let mut arguments: Vec<String> = words.as_flattened().iter().map(|&it| it.to_owned()).collect();
    arguments.push(url.to_owned());
    let launch = Launch { program: wrk, arguments, processor };
    let output = launch.command().output().await.context("cannot run wrk")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "wrk failed: {}", said.trim());
    Sent::read(&String::from_utf8_lossy(&output.stdout))
}

// === impl Sent ===

impl Sent {
    fn read(printed: &str) -> anyhow::Result<Self> {
        let line = printed.lines().rev().find(|line| line.starts_with('{'));
        let line = line.with_context(|| format!("wrk printed no figures:\n{printed}"))?;
        serde_json::from_str(line).with_context(|| format!("wrk printed {line:?}"))
    }

    /// Answers per second.
    pub(crate) fn rate(&self) -> f64 {
        self.requests as f64 / self.wall().as_secs_f64()
    }

    pub(crate) fn wall(&self) -> Duration {
        Duration::from_micros(self.micros)
    }

    /// Half of the answers came faster.
    pub(crate) fn p50(&self) -> Duration {
        Duration::from_micros(self.p50)
    }

    /// One answer in a hundred came slower.
    pub(crate) fn p99(&self) -> Duration {
        Duration::from_micros(self.p99)
    }

    /// What went wrong, in words; nothing when all is well.
    pub(crate) fn problem(&self) -> Option<String> {
        if self.requests == 0 {
            return Some("no request was answered".to_owned());
        }
        let counts = [
            (self.status, "answers above 399"),
            (self.connect, "connections failed"),
            (self.read, "reads failed"),
            (self.write, "writes failed"),
            (self.timeout, "answers too late"),
        ];
        let bad = counts.iter().filter(|(count, _)| *count > 0);
        let bad: Vec<String> = bad.map(|(count, what)| format!("{count} {what}")).collect();
        let of = self.requests;
        (!bad.is_empty()).then(|| format!("{}, with {of} requests answered", bad.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = "Running 1s test @ http://127.0.0.1:1/small\n  1 threads and 64 \
        connections\n  46312 requests in 1.10s, 9.32MB read\nRequests/sec:  42073.04\n\
        {\"requests\":46312,\"micros\":2000000,\"p50\":1458,\"p99\":3022,\"connect\":0,\"read\":0,\
        \"write\":0,\"status\":0,\"timeout\":0}\n";

    #[test]
    fn the_figures_are_in_the_last_line_that_is_json() {
        let sent = Sent::read(PRINTED).unwrap();
        assert_eq!((sent.requests, sent.rate()), (46_312, 23_156.0));
        assert_eq!(sent.p50(), Duration::from_micros(1_458));
        assert_eq!(sent.p99(), Duration::from_micros(3_022));
        assert_eq!(sent.problem(), None);
    }

    #[test]
    fn what_failed_is_named() {
        let sent = Sent::read(PRINTED).unwrap();
        let bad = Sent { status: 3, timeout: 1, ..sent };
        let problem = "3 answers above 399, 1 answers too late, with 46312 requests answered";
        assert_eq!(bad.problem().as_deref(), Some(problem));
        assert!(Sent { requests: 0, ..sent }.problem().is_some());
        assert!(Sent::read("unable to connect").is_err());
    }
}
