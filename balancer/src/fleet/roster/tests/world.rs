//! A scripted engine, and a balancer's roster on it: calls take effect, and their answers arrive,
//! when a test says so.

use std::io;
use std::sync::Arc;

use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::super::*;
use crate::fleet::change::{Cause, Change, Death};
use crate::fleet::event::StartFailed;
use crate::fleet::health::Verdict;
use crate::fleet::observed::{Condition, Observed, Trouble};
use crate::fleet::release::Spec;

pub(super) const SECOND: Duration = Duration::from_secs(1);

pub(super) fn config() -> FleetConfig {
    FleetConfig {
        capacity: Some(12),
        max_replicas: 10,
        spares: 0,
        health: HealthLimits { rise: 1, fall: 3 },
        check_interval: SECOND,
        outliers: OutlierConfig {
            consecutive: 5,
            base: 10 * SECOND,
            max: 300 * SECOND,
            max_share: 0.5,
        },
        panic: Some(0.5),
        backoff: BackoffConfig::default(),
        start_deadline: 60 * SECOND,
        replace_after: 30 * SECOND,
        slow_start: Duration::ZERO,
        drain_deadline: 10 * SECOND,
        remove_again: 5 * SECOND,
        listed: false,
        images: true,
        release: ReleaseConfig {
            spec: Spec { image: Some("v1".to_owned()), ..Spec::default() },
            on_change: OnChange::Roll,
            monitor: 2 * SECOND,
        },
    }
}

pub(super) fn name(text: &str) -> Hostname {
    Hostname::parse(text).unwrap()
}

pub(super) fn change(n: usize, names: &[&str]) -> Change {
    let hostnames = names.iter().copied().map(name).collect();
    Change { n, hostnames, servers: Vec::new() }
}

pub(super) fn cause(text: &str) -> Cause {
    Arc::new(io::Error::other(text.to_owned()))
}

/// What runs, whoever asked for it.
#[derive(Debug, Default)]
pub(super) struct Engine {
    pub(super) containers: BTreeMap<Hostname, Container>,
    /// Those that were marked as leaving and are gone.
    farewells: BTreeMap<Hostname, Observed>,
    pub(super) created: u64,
    /// What tags stand for, if not for themselves.
    pub(super) tags: BTreeMap<String, String>,
}

#[derive(Clone, Debug)]
pub(super) struct Container {
    pub(super) place: Place,
    pub(super) created: u64,
    pub(super) release: Release,
    pub(super) death: Option<Death>,
    pub(super) made: bool,
    /// The health check of its image has not passed yet.
    pub(super) unchecked: bool,
    /// Frozen, and the engine knows.
    pub(super) paused: bool,
    /// Frozen, and nobody knows.
    pub(super) silent: bool,
    pub(super) leaving: bool,
    /// Its balancer removes it because it stops.
    pub(super) seat_stays: bool,
}

/// One balancer on an engine.
pub(super) struct World {
    pub(super) roster: Roster,
    pub(super) engine: Engine,
    pub(super) under_way: Vec<Call>,
    pub(super) listing: Option<(Tick, Vec<Observed>)>,
    pub(super) outcomes: Vec<(ChangeId, Result<(), Failed>)>,
    pub(super) told: Vec<Event>,
    pub(super) now: Instant,
    pub(super) rng: StdRng,
    /// Marks are always written down, and what is to be removed is.
    pub(super) sure: bool,
    /// Replicas with such an image never become ready.
    pub(super) bad_image: Option<String>,
    /// Replicas with such an image pass their probes, and fail requests.
    pub(super) erring_image: Option<String>,
}

/// What is written down of a replica.
#[derive(Clone, Copy, Debug)]
pub(super) enum Marked {
    Seated(Seat),
    Leaving,
    Stopping,
}

/// A call to the engine: first it takes effect, then its answer arrives.
#[derive(Debug)]
pub(super) enum Call {
    Start(Place, Hostname, Release),
    Started(Hostname, Result<Observed, StartFailed>),
    Mark(Hostname, Marked),
    Marked(Hostname, Result<(), Cause>),
    Stop(Hostname),
    Stopped(Hostname, Result<(), Cause>),
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        Self::with(config(), seed)
    }

    pub(super) fn with(config: FleetConfig, seed: u64) -> Self {
        Self {
            roster: Roster::new(config),
            engine: Engine::default(),
            under_way: Vec::new(),
            listing: None,
            outcomes: Vec::new(),
            told: Vec::new(),
            now: Instant::now(),
            rng: StdRng::seed_from_u64(seed),
            sure: false,
            bad_image: None,
            erring_image: None,
        }
    }

    /// A fleet of `replicas`, settled.
    pub(super) fn booted(replicas: usize, seed: u64) -> Self {
        Self::booted_with(config(), replicas, seed)
    }

    pub(super) fn booted_with(config: FleetConfig, replicas: usize, seed: u64) -> Self {
        let mut world = Self::with(config, seed);
        world.boot(replicas);
        world.settle();
        world
    }

    pub(super) fn boot(&mut self, replicas: usize) {
        let listing = self.engine.list();
        self.roster.boot(listing, replicas, self.now);
        self.act();
    }

    /// Another balancer on the same engine, or this one after `kill -9`: with what it knows gone.
    pub(super) fn successor(&mut self, seed: u64) -> Self {
        let engine = std::mem::take(&mut self.engine);
        let roster = Roster::new(self.roster.config.clone());
        let (bad_image, erring_image) = (self.bad_image.clone(), self.erring_image.clone());
        Self { roster, engine, now: self.now, bad_image, erring_image, ..Self::new(seed) }
    }

    pub(super) fn act(&mut self) -> Option<Instant> {
        for _ in 0..1_000 {
            let (effects, wake) = self.roster.act(self.now, &mut self.rng);
            let none = effects.is_empty();
            for effect in effects {
                match effect {
                    Effect::Start(place, hostname, release) => {
                        self.under_way.push(Call::Start(place, hostname, release));
                    }
                    Effect::MarkSeated(hostname, seat) => {
                        self.under_way.push(Call::Mark(hostname, Marked::Seated(seat)));
                    }
                    Effect::MarkLeaving(hostname) => {
                        self.under_way.push(Call::Mark(hostname, Marked::Leaving));
                    }
                    Effect::MarkStopping(hostname) => {
                        self.under_way.push(Call::Mark(hostname, Marked::Stopping));
                    }
                    Effect::Drain(hostname) => self.roster.drained(&hostname),
                    Effect::Remove(hostname) | Effect::Kill(hostname) => {
                        self.under_way.push(Call::Stop(hostname));
                    }
                    Effect::Enlist(_) | Effect::Unlist(_) | Effect::Withdraw(_) | Effect::List => {
                        panic!("its replicas are owned: {effect:?}")
                    }
                }
            }
            self.told.extend(self.roster.events());
            let finished = self.roster.finished();
            if none && finished.is_empty() {
                return wake;
            }
            self.outcomes.extend(finished);
        }
        panic!("acts without end: {:#?}", self.roster);
    }

    /// Lets one call take effect or its answer arrive; `fails` only counts for the former.
    pub(super) fn step(&mut self, index: usize, fails: bool) {
        let index = index % self.under_way.len();
        let bad = || cause("engine gone");
        match self.under_way.swap_remove(index) {
            Call::Start(_, hostname, _) if fails => {
                let failed = StartFailed::Other(cause("no such image"));
                self.under_way.push(Call::Started(hostname, Err(failed)));
            }
            Call::Start(place, hostname, release) => {
                let started = self.engine.start(place, &hostname, release);
                self.under_way.push(Call::Started(hostname, started));
            }
            Call::Mark(hostname, _) if fails && !self.sure => {
                self.under_way.push(Call::Marked(hostname, Err(bad())));
            }
            Call::Mark(hostname, mark) => {
                if let Some(container) = self.engine.containers.get_mut(&hostname) {
                    match mark {
                        Marked::Seated(seat) => container.place = seat.into(),
                        Marked::Leaving => {
                            (container.leaving, container.seat_stays) = (true, false);
                        }
                        // What was asked for before stays so.
                        Marked::Stopping if container.leaving => {}
                        Marked::Stopping => {
                            (container.leaving, container.seat_stays) = (true, true);
                        }
                    }
                }
                self.under_way.push(Call::Marked(hostname, Ok(())));
            }
            Call::Stop(hostname) if fails && !self.sure => {
                self.under_way.push(Call::Stopped(hostname, Err(bad())));
            }
            Call::Stop(hostname) => {
                self.engine.remove(&hostname);
                self.under_way.push(Call::Stopped(hostname, Ok(())));
            }
            Call::Started(hostname, result) => {
                self.roster.started(&hostname, result, self.now, &mut self.rng);
            }
            Call::Marked(hostname, result) => self.roster.marked(&hostname, result),
            Call::Stopped(hostname, result) => self.roster.removed(&hostname, result, self.now),
        }
        self.act();
    }

    pub(super) fn finish_calls(&mut self) {
        while !self.under_way.is_empty() {
            self.step(0, false);
        }
    }

    pub(super) fn begin_listing(&mut self) {
        self.listing = Some((self.roster.tick(), self.engine.list()));
    }

    pub(super) fn end_listing(&mut self) {
        if let Some((began, listing)) = self.listing.take() {
            self.roster.listed(listing, began, self.now, &mut self.rng);
            self.act();
        }
    }

    pub(super) fn list(&mut self) {
        self.end_listing();
        self.begin_listing();
        self.end_listing();
    }

    pub(super) fn probe_all(&mut self) {
        let running: Vec<(Hostname, SocketAddr)> =
            self.roster.running().map(|(name, _, address)| (name.clone(), address)).collect();
        for (hostname, address) in running {
            let container = self.engine.containers.get(&hostname);
            let good = container.is_some_and(|c| c.answers(self.bad_image.as_deref()));
            let verdict = if good { Verdict::Good } else { Verdict::Bad };
            self.roster.probed(&hostname, address, verdict, None, self.now);
        }
        self.act();
        let serving: Vec<Hostname> = self.roster.serving().cloned().collect();
        for hostname in serving {
            let container = self.engine.containers.get(&hostname);
            let image = container.and_then(|it| it.release.spec().image.clone());
            if image.is_some() && image == self.erring_image {
                self.roster.erred(&hostname, self.now);
            }
        }
        self.act();
    }

    /// Fails a replica's probes until it is ejected.
    pub(super) fn fail_probes(&mut self, hostname: &str) {
        let found = self.roster.running().find(|(name, ..)| name.as_str() == hostname);
        let (name, _, address) = found.unwrap();
        let name = name.clone();
        for _ in 0..3 {
            self.roster.probed(&name, address, Verdict::Bad, Some("silent".into()), self.now);
        }
        self.act();
    }

    pub(super) fn hurt(&mut self, index: usize, hurt: impl FnOnce(&mut Container)) {
        if !self.engine.containers.is_empty() {
            let index = index % self.engine.containers.len();
            hurt(self.engine.containers.values_mut().nth(index).unwrap());
        }
    }

    pub(super) fn kill(&mut self, index: usize) {
        self.hurt(index, |container| container.death = Some(Death::Killed(9)));
    }

    /// Events tell of the dead before a listing does.
    pub(super) fn tell_deaths(&mut self) {
        for (hostname, container) in &self.engine.containers {
            if let Some(death) = container.death.filter(|_| !container.leaving) {
                self.roster.told_dead(hostname, death, self.now, &mut self.rng);
            }
        }
    }

    pub(super) fn vanish(&mut self, index: usize) {
        let containers = &mut self.engine.containers;
        if !containers.is_empty() {
            let hostname = containers.keys().nth(index % containers.len()).cloned();
            containers.remove(&hostname.unwrap());
        }
    }

    /// Lets everything take its good course for a while: whether there was nothing left to do.
    pub(super) fn calm(&mut self) -> bool {
        let wake = self.act();
        if !self.under_way.is_empty() {
            self.step(0, false);
            return false;
        }
        self.list();
        self.probe_all();
        let quiet = self.under_way.is_empty() && self.act().is_none();
        if !quiet && self.under_way.is_empty() {
            self.now = wake.unwrap_or(self.now).max(self.now + SECOND);
        }
        quiet
    }

    /// Lets everything take its good course until there is nothing left to do.
    pub(super) fn settle(&mut self) {
        for _ in 0..3_000 {
            if self.calm() {
                return;
            }
        }
        panic!("never settles: {:#?} {:#?}", self.roster, self.engine);
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.roster.listing().iter().map(ToString::to_string).collect()
    }

    /// The seats of all containers, whatever they do.
    pub(super) fn seats(&self) -> Vec<u32> {
        let seats = self.engine.containers.values().filter_map(|c| c.place.seat());
        let mut seats: Vec<u32> = seats.map(Seat::get).collect();
        seats.sort_unstable();
        seats
    }

    /// Who is known, and what of it.
    pub(super) fn known(&self) -> Vec<String> {
        let known = |(name, record): (&Hostname, &Record)| {
            format!("{name} {} {:?} {:?}", record.place, record.phase, record.standing)
        };
        self.roster.records.iter().map(known).collect()
    }

    /// The names of events since the last call.
    pub(super) fn events(&mut self) -> Vec<&'static str> {
        std::mem::take(&mut self.told).iter().map(|event| event.what.name()).collect()
    }

    pub(super) fn serving(&self) -> Vec<String> {
        let mut serving: Vec<String> = self.roster.serving().map(ToString::to_string).collect();
        serving.sort();
        serving
    }

    pub(super) fn standby(&self) -> Vec<String> {
        let mut standby: Vec<String> = self.roster.standby().map(ToString::to_string).collect();
        standby.sort();
        standby
    }
}

impl Engine {
    pub(super) fn list(&self) -> Vec<Observed> {
        let here = self.containers.iter().map(|(name, container)| container.observed(name));
        let gone = self.farewells.iter().filter(|(name, _)| !self.containers.contains_key(*name));
        here.chain(gone.map(|(_, farewell)| farewell.clone())).collect()
    }

    fn start(
        &mut self,
        place: Place,
        hostname: &Hostname,
        release: Release,
    ) -> Result<Observed, StartFailed> {
        if let Some(known) = self.containers.get_mut(hostname) {
            // Another balancer was faster.
            if known.place != place || known.leaving || known.death.is_some() {
                return Err(StartFailed::NameTaken);
            }
            known.made = false;
            return Ok(known.observed(hostname));
        }
        self.created += 1;
        let mut spec = release.spec().clone();
        if let (Some(image), None) = (&spec.image, &spec.digest) {
            let known = self.tags.get(image).cloned();
            spec.digest = Some(known.unwrap_or_else(|| format!("id of {image}")));
        }
        let release = release.with_spec(spec);
        let container = Container {
            place,
            created: self.created,
            release,
            death: None,
            made: false,
            unchecked: false,
            paused: false,
            silent: false,
            leaving: false,
            seat_stays: false,
        };
        let observed = container.observed(hostname);
        self.containers.insert(hostname.clone(), container);
        self.farewells.remove(hostname);
        Ok(observed)
    }

    fn remove(&mut self, hostname: &Hostname) {
        if let Some(container) = self.containers.remove(hostname).filter(|c| c.leaving) {
            let farewell = Observed {
                condition: Condition::Dead(Death::Vanished),
                ..container.observed(hostname)
            };
            self.farewells.insert(hostname.clone(), farewell);
        }
    }
}

impl Container {
    pub(super) fn answers(&self, bad_image: Option<&str>) -> bool {
        let bad = bad_image.is_some() && self.release.spec().image.as_deref() == bad_image;
        self.death.is_none() && !self.made && !self.paused && !self.silent && !bad
    }

    pub(super) fn observed(&self, hostname: &Hostname) -> Observed {
        let condition = match (self.death, self.made, self.paused) {
            (Some(death), ..) => Condition::Dead(death),
            (None, true, _) => Condition::Made,
            (None, false, true) => Condition::Troubled(Trouble::Paused),
            (None, false, false) if self.unchecked => Condition::Starting,
            (None, false, false) => Condition::Running,
        };
        Observed {
            hostname: hostname.clone(),
            place: self.place,
            address: Some(SocketAddr::from(([10, 0, 0, 1], 1_000 + self.created as u16))),
            address_error: None,
            weight: 1,
            created: self.created,
            release: self.release.clone(),
            condition,
            leaving: self.leaving,
            seat_stays: self.seat_stays,
        }
    }
}
