//! The experiments: each starts the real balancer, measures, and leaves figures and charts in the
//! report folder.

pub(crate) mod a1;
pub(crate) mod a2;
pub(crate) mod a3;
pub(crate) mod a4;
pub(crate) mod fan;

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::Context as _;
use balancer::fleet::seat::{MemberId, Seat};
use balancer::routing::placement::{
    ClassicConfig, ClassicHash, Member, Placement, PlacementConfig, RingConfig,
};

use crate::load::summary::Summary;
use crate::load::{self, LoadPlan};
use crate::report::{Report, thousands};
use crate::stats::{Deviation, SIGMAS, Spread};
use crate::system::{Balancer, Options, Runtime};

/// What all experiments are told.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) report: Report,
    pub(crate) runtime: Runtime,
    pub(crate) image: String,
    pub(crate) balancer: PathBuf,
    /// Requests of one measurement.
    pub(crate) requests: usize,
    /// Of their ids.
    pub(crate) seed: u64,
}

/// What an experiment found wrong, in words; nothing when it is well.
pub(crate) type Problems = Vec<String>;

/// A way to place seats and requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variant {
    /// 512 slots, polynomial hashes.
    Classic,
    /// 512 slots, SipHash.
    ClassicSipHash,
    /// A 64-bit circle, SipHash, 160 virtual nodes a seat.
    Ring,
}

/// One measurement: so many requests against so many replicas.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    pub(crate) variant: Variant,
    /// One a seat, from seat 1.
    pub(crate) replicas: Vec<Load>,
    pub(crate) summary: Summary,
}

/// What one replica should do and did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Load {
    pub(crate) seat: u32,
    /// The exact share of the key space.
    pub(crate) share: f64,
    /// How many of the very ids sent the placement gives to it.
    pub(crate) owned: u64,
    /// How many requests it answered.
    pub(crate) answered: u64,
}

/// Seats measured by A-2.
pub(crate) const SEATS: std::ops::RangeInclusive<u32> = 2..=6;

// === impl Variant ===

impl Variant {
    /// All of them, in the order of the charts.
    pub(crate) const ALL: [Self; 3] = [Self::Classic, Self::ClassicSipHash, Self::Ring];

    /// In a file.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Variant::Classic => "classic",
            Variant::ClassicSipHash => "classic-siphash",
            Variant::Ring => "ring",
        }
    }

    /// On a chart.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Variant::Classic => "classic: 512 slots, polynomials",
            Variant::ClassicSipHash => "classic: 512 slots, SipHash",
            Variant::Ring => "ring: SipHash, 160 virtual nodes",
        }
    }

    fn arguments(self) -> Vec<String> {
        let words: &[&str] = match self {
            Variant::Classic => &["--placement", "classic", "--classic-hash", "polynomial"],
            Variant::ClassicSipHash => &["--placement", "classic", "--classic-hash", "siphash"],
            Variant::Ring => &["--placement", "ring", "--ring-virtual-nodes", "160"],
        };
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn config(self) -> PlacementConfig {
        match self {
            Variant::Classic => PlacementConfig::Classic(ClassicConfig::default()),
            Variant::ClassicSipHash => PlacementConfig::Classic(ClassicConfig {
                hash: ClassicHash::SipHash,
                ..ClassicConfig::default()
            }),
            Variant::Ring => PlacementConfig::Ring(RingConfig::default()),
        }
    }

    /// The placement of seats 1 to `seats`, as the balancer builds it.
    ///
    /// # Errors
    /// When it has no room for so many.
    pub(crate) fn placement(self, seats: u32) -> anyhow::Result<Placement> {
        let members: Vec<Member> = (1..=seats)
            .filter_map(Seat::new)
            .map(|seat| Member::new(MemberId::Seat(seat), 1))
            .collect();
        Placement::build(&self.config(), &members)
            .with_context(|| format!("{} has no room for {seats} seats", self.name()))
    }
}

// === impl Setup ===

impl Setup {
    /// How to start a balancer for the experiments.
    pub(crate) fn options(&self, variant: Variant, replicas: u32) -> Options {
        Options {
            binary: self.balancer.clone(),
            runtime: self.runtime,
            image: self.image.clone(),
            replicas,
            servers: Vec::new(),
            listen: Ipv4Addr::LOCALHOST,
            arguments: variant.arguments(),
        }
    }

    /// Starts a balancer with so many replicas, sends it all requests at once, stops it.
    ///
    /// # Errors
    /// When the balancer does not start or stop as it should. Failed requests are no error here:
    /// they are part of what was measured.
    pub(crate) async fn measure(&self, variant: Variant, seats: u32) -> anyhow::Result<Measured> {
        let what = || format!("{} with {seats} replicas", variant.name());
        let balancer = Balancer::start(&self.options(variant, seats)).await.with_context(what)?;
        let ids = load::request_ids(self.seed, self.requests);
        let plan = LoadPlan::get(&balancer.url("/home"), ids.clone())?;
        let progress = load::progress_bar(&format!("{:<16} N = {seats}", variant.name()));
        let run = load::run(plan, &progress).await;
        progress.finish_and_clear();
        balancer.stop().await.with_context(what)?;
        Measured::new(variant, seats, &ids, Summary::of(&run))
    }

    /// When and on what the figures were measured: a sentence of Markdown.
    pub(crate) fn machine(&self) -> String {
        let build = match self.balancer.to_string_lossy().contains("/debug/") {
            true => "debug build",
            false => "release build",
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let now = humantime::format_rfc3339_seconds(SystemTime::now());
        format!("Measured {now} on {cores} × {}, {build}.", processor())
    }

    /// The same, with where the replicas ran.
    pub(crate) fn provenance(&self) -> String {
        format!("{} Replicas: `{}` runtime.", self.machine(), self.runtime.name())
    }

    /// The same, with what was sent for each measurement.
    pub(crate) fn provenance_of_load(&self) -> String {
        let requests = thousands(self.requests as u64);
        format!("{} {requests} requests a measurement, seed {}.", self.provenance(), self.seed)
    }
}

/// The name of this machine's processor, as `/proc/cpuinfo` has it.
fn processor() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or_else(|| "unknown processor".to_owned(), |(_, name)| name.trim().to_owned())
}

// === impl Measured ===

impl Measured {
    /// What the exact shares, the very ids and the answers say of each seat.
    ///
    /// # Errors
    /// When the placement has no room for so many seats.
    pub(crate) fn new(
        variant: Variant,
        seats: u32,
        ids: &[u32],
        summary: Summary,
    ) -> anyhow::Result<Self> {
        let placement = variant.placement(seats)?;
        let mut owned = vec![0_u64; seats as usize];
        for id in ids {
            if let Some(owner) = placement.owners(id.to_string().as_bytes()).next() {
                owned[owner] += 1;
            }
        }
        let replicas = (1..=seats)
            .zip(placement.shares().into_iter().zip(owned))
            .map(|(seat, (share, owned))| Load {
                seat,
                share,
                owned,
                answered: summary.by_seat.get(&seat).copied().unwrap_or(0),
            })
            .collect();
        Ok(Self { variant, replicas, summary })
    }

    /// What each replica answered.
    pub(crate) fn counts(&self) -> Vec<u64> {
        self.replicas.iter().map(|load| load.answered).collect()
    }

    /// How unevenly.
    pub(crate) fn spread(&self) -> Spread {
        Spread::of(&self.counts())
    }

    /// How unevenly by the exact shares.
    pub(crate) fn expected_spread(&self) -> Spread {
        let shares: Vec<f64> = self.replicas.iter().map(|load| load.share).collect();
        Spread::expected(&shares, self.summary.requests)
    }

    /// The answer of a seat against its exact share.
    pub(crate) fn deviation(&self, load: &Load) -> Deviation {
        Deviation::of(load.answered, self.summary.requests, load.share)
    }

    /// How many requests went to another replica than the owner of their key, at least.
    pub(crate) fn moved(&self) -> u64 {
        self.replicas.iter().map(|load| load.owned.saturating_sub(load.answered)).sum()
    }

    /// Failed requests, answers that come from nowhere, and shares that cannot be chance.
    pub(crate) fn problems(&self) -> Problems {
        let what = format!("{}, N = {}", self.variant.name(), self.replicas.len());
        let mut problems = Vec::new();
        if self.summary.failed() > 0 {
            problems.push(format!(
                "{what}: {} of {} requests failed: {}",
                self.summary.failed(),
                self.summary.requests,
                self.summary.failures_in_words()
            ));
        }
        let known: u64 = self.replicas.iter().map(|load| load.answered).sum();
        let strange = self.summary.requests - self.summary.failed() - known;
        if strange > 0 {
            problems.push(format!("{what}: {strange} answers name none of its replicas"));
        }
        for load in &self.replicas {
            let deviation = self.deviation(load);
            if !deviation.is_plausible() {
                problems.push(format!(
                    "{what}: replica {} answered {} requests; its exact share of {:.2} % means \
                     {:.1} ± {:.1}, so that it is {:+.1} standard deviations off (allowed: {SIGMAS})",
                    load.seat,
                    load.answered,
                    100.0 * load.share,
                    deviation.expected,
                    deviation.sigma,
                    deviation.z,
                ));
            }
        }
        problems
    }
}

#[cfg(test)]
mod tests;
