//! One run: a proxy is started afresh, works, and is asked what that cost.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

use super::client::Client;
use super::procfs::Usage;
use super::proxy::{Proxy, Replicas, Site};
use super::tools::Tools;
use super::work::{Load, SMALL, Work};
use super::wrk::{self, Sent};

/// What all runs share.
pub(crate) struct Bench<'a> {
    pub(crate) tools: &'a Tools,
    pub(crate) replicas: &'a Replicas,
    /// For the files of the proxies.
    pub(crate) folder: &'a Path,
    pub(crate) proxy_processor: usize,
    /// For the load generator; the replicas are there, too.
    pub(crate) load_processor: usize,
    /// Of one run.
    pub(crate) seconds: u64,
}

/// What one run gave: figures, or why there are none.
#[derive(Clone, Debug)]
pub(crate) struct Run<F> {
    pub(crate) work: Work,
    pub(crate) proxy: Proxy,
    /// From 1.
    pub(crate) round: usize,
    pub(crate) outcome: Result<F, String>,
}

/// Of a run with load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Figures {
    /// Requests per second.
    pub(crate) rate: f64,
    /// Time on a processor for one request, in microseconds.
    pub(crate) cpu_micros: f64,
    /// Time on a processor over the time of the run: 1 is a full one.
    pub(crate) busy: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    /// The most memory, in KiB.
    pub(crate) peak_kib: u64,
}

/// Of a run with idle connections: resident memory, in KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Idle {
    pub(crate) before_kib: u64,
    pub(crate) after_kib: u64,
}

/// Resident memory after so many requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) requests: u64,
    pub(crate) resident_kib: u64,
}

/// Everything that was measured.
#[derive(Clone, Debug, Default)]
pub(crate) struct Results {
    pub(crate) loads: Vec<Run<Figures>>,
    pub(crate) idles: Vec<Run<Idle>>,
    /// By number of requests, from 0; `None` when it was not asked for.
    pub(crate) million: Option<Result<Vec<Sample>, String>>,
}

/// Idle connections.
pub(crate) const IDLE: usize = 5_000;
/// Requests over which memory should be flat.
pub(crate) const MILLION: u64 = 1_000_000;
/// When the first look at the memory is due that counts: what is made once has been made.
pub(crate) const EARLY: u64 = 100_000;
/// Chunks of load that may be needed for a million requests; more is a proxy that hangs.
const MOST_CHUNKS: usize = 200;
/// For a proxy to be done with what it did.
const SETTLE: Duration = Duration::from_millis(500);

// === impl Bench ===

impl Bench<'_> {
    /// One run of wrk.
    pub(crate) async fn load(&self, work: Work, proxy: Proxy, round: usize) -> Run<Figures> {
        let outcome = self.try_load(work, proxy).await;
        let said = |figures: &Figures| {
            format!("{:.0} requests/s, {:.1} µs each", figures.rate, figures.cpu_micros)
        };
        finished(Run { work, proxy, round, outcome: in_words(outcome) }, said)
    }

    async fn try_load(&self, work: Work, proxy: Proxy) -> anyhow::Result<Figures> {
        let load = work.load().context("this work is not for wrk")?;
        let (site, mut process) = self.start(proxy).await?;
        let before = process.usage()?;
        let sent = self.send(&load, &site).await?;
        Ok(Figures::of(&sent, before, process.usage()?))
    }

    /// Connections that idle after one answer each.
    pub(crate) async fn idle(&self, proxy: Proxy, round: usize) -> Run<Idle> {
        let outcome = self.try_idle(proxy).await;
        let said = |idle: &Idle| format!("{:.1} KiB a connection", idle.kib_per_connection());
        finished(Run { work: Work::Idle, proxy, round, outcome: in_words(outcome) }, said)
    }

    async fn try_idle(&self, proxy: Proxy) -> anyhow::Result<Idle> {
        let (site, mut process) = self.start(proxy).await?;
        tokio::time::sleep(SETTLE).await;
        let before = process.usage()?;
        let mut clients = Vec::with_capacity(IDLE);
        for open in 0..IDLE {
            let client = Client::ask_once(site.listen, SMALL).await;
            clients.push(client.with_context(|| format!("with {open} connections open"))?);
        }
        tokio::time::sleep(SETTLE).await;
        let after = process.usage()?;
        let closed = clients.iter().filter(|client| !client.is_open()).count();
        ensure!(closed == 0, "{closed} of {IDLE} connections were closed");
        Ok(Idle { before_kib: before.resident_kib, after_kib: after.resident_kib })
    }

    /// The balancer's memory over a million small answers.
    ///
    /// # Errors
    /// When it does not start, or a request fails.
    pub(crate) async fn million(&self) -> anyhow::Result<Vec<Sample>> {
        let load = Work::Million.load().context("this work is not for wrk")?;
        let (site, mut process) = self.start(Proxy::Balancer).await?;
        let mut samples = vec![Sample { requests: 0, resident_kib: process.usage()?.resident_kib }];
        let mut requests = 0;
        for _ in 0..MOST_CHUNKS {
            requests += self.send(&load, &site).await?.requests;
            tokio::time::sleep(SETTLE).await;
            samples.push(Sample { requests, resident_kib: process.usage()?.resident_kib });
            if requests >= MILLION {
                return Ok(samples);
            }
        }
        bail!("only {requests} requests were answered")
    }

    async fn start(&self, proxy: Proxy) -> anyhow::Result<(Site, super::process::Process)> {
        let site = Site::before(self.replicas)?;
        let folder = self.folder.join(proxy.title());
        let process = proxy.start(self.tools, &site, self.proxy_processor, &folder).await?;
        Ok((site, process))
    }

    /// Gives what wrk did if nothing failed.
    async fn send(&self, load: &Load, site: &Site) -> anyhow::Result<Sent> {
        let url = format!("http://{}{}", site.listen, load.path);
        let wrk = self.tools.wrk.as_deref().context("wrk is missing")?;
        let processor = self.load_processor;
        let sent = wrk::run(wrk, load, &url, self.seconds, processor, self.folder).await?;
        match sent.problem() {
            None => Ok(sent),
            Some(problem) => bail!(problem),
        }
    }
}

fn in_words<F>(outcome: anyhow::Result<F>) -> Result<F, String> {
    outcome.map_err(|error| format!("{error:#}"))
}

/// Says what has just been measured: a whole bench takes minutes.
fn finished<F>(run: Run<F>, said: impl Fn(&F) -> String) -> Run<F> {
    let outcome = match &run.outcome {
        Ok(figures) => said(figures),
        Err(problem) => format!("failed: {problem}"),
    };
    eprintln!("round {}, {}, {}: {outcome}", run.round, run.work.name(), run.proxy.title());
    run
}

// === impl Figures ===

impl Figures {
    /// From what wrk did, and what the proxy had used before and after.
    fn of(sent: &Sent, before: Usage, after: Usage) -> Self {
        let time = after.time.saturating_sub(before.time).as_secs_f64();
        Self {
            rate: sent.rate(),
            cpu_micros: time * 1e6 / sent.requests as f64,
            busy: time / sent.wall().as_secs_f64(),
            p50: sent.p50(),
            p99: sent.p99(),
            peak_kib: after.peak_kib,
        }
    }
}

// === impl Idle ===

impl Idle {
    pub(crate) fn kib_per_connection(&self) -> f64 {
        (self.after_kib as f64 - self.before_kib as f64) / IDLE as f64
    }
}
