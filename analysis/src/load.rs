//! The load generator: many requests to one URL, each noted with when it went and who answered.
//!
//! Two times are measured of every request. Its **latency** runs from the launch of its task to
//! the last byte of the answer's body: it includes the wait for one of the generator's
//! connections, as a person in a queue would count it. Its **service time** runs from the moment
//! it had the right to a connection: connecting if none was open, sending, waiting, reading the
//! whole body. `timeout` bounds the service time.

mod attempt;
mod failure;
pub(crate) mod summary;

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use awc::Client;
use awc::http::{Method, StatusCode, Uri, header::HeaderMap};
use bytes::Bytes;
use indicatif::{ProgressBar, ProgressStyle};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

pub(crate) use failure::Failure;

/// What to send, how often, and how many at a time.
#[derive(Clone, Debug)]
pub(crate) struct LoadPlan {
    /// Where to; absolute, `http`.
    pub(crate) url: Uri,
    /// How.
    pub(crate) method: Method,
    /// Sent with each request, beside its `X-Request-Id`.
    pub(crate) headers: HeaderMap,
    /// Sent with each request; empty for none.
    pub(crate) body: Bytes,
    /// The one status that is a success; anything below 400 where there is none.
    pub(crate) success: Option<StatusCode>,
    /// The request ids, one a request: their number is that of the requests.
    pub(crate) ids: Vec<u32>,
    /// When they are launched.
    pub(crate) pace: Pace,
    /// Connections open at a time, at most.
    pub(crate) connections: usize,
    /// The longest service time.
    pub(crate) timeout: Duration,
}

/// When requests are launched.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Pace {
    /// All as async tasks at once.
    AllAtOnce,
    /// This many in flight: the next one goes when one is done.
    InFlight(usize),
    /// So many a second, evenly, whether answers come or not (an open loop).
    PerSecond(f64),
    /// Each at its own moment from the start of the run, ascending, whether answers come or not. A
    /// launch that is late counts from the moment at which it was due.
    At(Arc<[Duration]>),
}

/// One request and what became of it. Times count from the start of the run.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// When its task was launched; with [`Pace::At`] when it was due.
    pub(crate) launched: Duration,
    /// When it had the right to a connection.
    pub(crate) sent: Duration,
    /// When its last byte or its failure was there.
    pub(crate) done: Duration,
    /// The seat of the replica that the answer names, if it names one.
    pub(crate) outcome: Result<Option<u32>, Failure>,
}

/// A run: its samples in the order of the plan's ids, and how long it took.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    /// One a request.
    pub(crate) samples: Vec<Sample>,
    /// What the times of the samples count from.
    pub(crate) start: Instant,
    /// From the first launch to the last answer.
    pub(crate) wall: Duration,
}

/// What all requests of a run share.
struct Shared {
    client: Client,
    plan: LoadPlan,
    slots: Semaphore,
    start: Instant,
}

// === impl LoadPlan ===

impl LoadPlan {
    /// `GET url` once for each of `ids`, all launched at once over 256 connections.
    ///
    /// # Errors
    /// When `url` is not an absolute `http` URL.
    pub(crate) fn get(url: &str, ids: Vec<u32>) -> anyhow::Result<Self> {
        let url: Uri = url.parse().with_context(|| format!("{url} is no URL"))?;
        ensure!(
            url.scheme_str() == Some("http") && url.host().is_some(),
            "{url} is no absolute http:// URL"
        );
        Ok(Self {
            url,
            method: Method::GET,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            success: None,
            ids,
            pace: Pace::AllAtOnce,
            connections: 256,
            timeout: Duration::from_secs(30),
        })
    }
}

/// `count` random six-digit numbers, the same for the same seed.
pub(crate) fn request_ids(seed: u64, count: usize) -> Vec<u32> {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..count).map(|_| rng.random_range(100_000..1_000_000)).collect()
}

// === impl Pace ===

impl Pace {
    /// When the request with this index is to be launched, for a pace that keeps a schedule.
    fn due(&self, index: usize) -> Option<Duration> {
        match self {
            Pace::AllAtOnce | Pace::InFlight(_) => None,
            Pace::PerSecond(rate) => Some(Duration::from_secs_f64(index as f64 / rate)),
            Pace::At(moments) => moments.get(index).copied(),
        }
    }
}

// === impl Sample ===

impl Sample {
    /// From launch to the last byte.
    pub(crate) fn latency(&self) -> Duration {
        self.done.saturating_sub(self.launched)
    }

    /// From the right to a connection to the last byte.
    pub(crate) fn service(&self) -> Duration {
        self.done.saturating_sub(self.sent)
    }
}

/// Carries the plan out, on the current thread; needs a [`LocalSet`](tokio::task::LocalSet) or an
/// actix system around it. Failures are in the samples: nothing that a server does ends the run.
pub(crate) async fn run(plan: LoadPlan, progress: &ProgressBar) -> Run {
    progress.set_length(plan.ids.len() as u64);
    let shared = Rc::new(Shared {
        client: attempt::client(&plan),
        slots: Semaphore::new(plan.connections.max(1)),
        start: Instant::now(),
        plan,
    });
    let turns = match &shared.plan.pace {
        Pace::InFlight(count) => Some(Arc::new(Semaphore::new((*count).max(1)))),
        Pace::AllAtOnce | Pace::PerSecond(_) | Pace::At(_) => None,
    };

    let mut tasks = JoinSet::new();
    for index in 0..shared.plan.ids.len() {
        let due = shared.plan.pace.due(index);
        if let Some(due) = due {
            tokio::time::sleep_until((shared.start + due).into()).await;
        }
        let turn = match &turns {
            Some(turns) => Arc::clone(turns).acquire_owned().await.ok(),
            None => None,
        };
        let (shared, progress) = (Rc::clone(&shared), progress.clone());
        let launched = match &shared.plan.pace {
            Pace::At(_) => due.unwrap_or_default(),
            Pace::AllAtOnce | Pace::InFlight(_) | Pace::PerSecond(_) => shared.start.elapsed(),
        };
        tasks.spawn_local(async move {
            let sample = shared.request(index, launched).await;
            drop(turn);
            progress.inc(1);
            (index, sample)
        });
    }
    let mut samples = tasks.join_all().await;
    samples.sort_unstable_by_key(|(index, _)| *index);
    let samples: Vec<Sample> = samples.into_iter().map(|(_, sample)| sample).collect();
    let wall = samples.iter().map(|sample| sample.done).max().unwrap_or_default();
    Run { samples, start: shared.start, wall }
}

/// A bar on standard error when that is a terminal, nothing otherwise.
pub(crate) fn progress_bar(what: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {per_sec} {eta}")
        .expect("the template names only what indicatif knows");
    ProgressBar::new(0).with_style(style).with_message(what.to_owned())
}

#[cfg(test)]
mod tests;
