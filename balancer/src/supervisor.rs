//! The one writer of the table: `command | probe | listing | outcome → roster → plan → act →
//! publish the table`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::rt::spawn;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, sleep_until};
use tracing::{debug, error, info, warn};

use crate::config::Config;
use crate::fleet::change::{Cause, ChangeKind, Failed};
use crate::fleet::roster::{ChangeId, Effect, Event, Observed, Roster, StartFailed, Tick, What};
use crate::fleet::seat::{Hostname, Seat};
use crate::prober::{Probe, Prober, Watch};
use crate::routing::placement::{Member, Placement, PlacementConfig};
use crate::routing::table::{Replica, ReplicaId, Table};
use crate::runtime::{ReplicaSpec, Runtime, RuntimeError};
use crate::state::{ChangeError, Command, Shared};
use crate::telemetry::chain;

/// Calls to the engine that may be under way at once.
const ENGINE_CALLS: usize = 16;

/// How often everything is listed anew, whether or not something hinted at a change.
const LIST_EVERY: Duration = Duration::from_secs(1);

/// Outcomes and probes that may wait: each is taken at once, and a sender that finds it full
/// waits.
const WAITING: usize = 1_024;

/// How long leaving replicas have at the end, besides their grace.
const STOP_MARGIN: Duration = Duration::from_secs(15);

/// See the module.
pub struct Supervisor<R> {
    runtime: Rc<R>,
    shared: Arc<Shared>,
    roster: Roster,
    placement_config: PlacementConfig,
    placement: Arc<Placement>,
    grace: Duration,
    keep_replicas: bool,
    prober: Prober,
    probes: mpsc::Receiver<Probe>,
    outcomes: mpsc::Receiver<Outcome>,
    tell: mpsc::Sender<Outcome>,
    handles: BTreeMap<Hostname, Handle>,
    replies: HashMap<ChangeId, Reply>,
    engine: Rc<Semaphore>,
    idle: Arc<Notify>,
    listing: Listing,
    published: Option<u64>,
    next_id: u64,
    rng: StdRng,
}

type Reply = oneshot::Sender<Result<Vec<Hostname>, ChangeError>>;

/// What is kept for a replica while it is known.
struct Handle {
    replica: Arc<Replica>,
    watch: Option<Watch>,
}

/// What a task of the supervisor came to.
enum Outcome {
    Listed(Tick, Result<Vec<Observed>, RuntimeError>),
    Started(Hostname, Result<Observed, RuntimeError>),
    Stopped(Hostname, Result<(), RuntimeError>),
}

/// One listing is under way at most; a hint that comes meanwhile asks for one more.
#[derive(Default)]
struct Listing {
    under_way: bool,
    again: bool,
    failing: bool,
}

// === impl Supervisor ===

impl<R: Runtime> Supervisor<R> {
    /// Lists what runs, adopts it or asks for the first fleet.
    ///
    /// # Errors
    /// When the runtime cannot list.
    pub async fn boot(
        config: &Config,
        runtime: R,
        shared: Arc<Shared>,
    ) -> Result<Self, RuntimeError> {
        let (results, probes) = mpsc::channel(WAITING);
        let (tell, outcomes) = mpsc::channel(WAITING);
        let mut roster = Roster::new(config.fleet());
        roster.boot(runtime.list().await?, config.replicas, Instant::now());
        let placement = Arc::clone(shared.table().placement());
        Ok(Self {
            runtime: Rc::new(runtime),
            shared,
            roster,
            placement_config: config.placement.clone(),
            placement,
            grace: config.timeouts.stop,
            keep_replicas: config.keep_replicas,
            prober: Prober::new(config.health.clone(), results),
            probes,
            outcomes,
            tell,
            handles: BTreeMap::new(),
            replies: HashMap::new(),
            engine: Rc::new(Semaphore::new(ENGINE_CALLS)),
            idle: Arc::new(Notify::new()),
            listing: Listing::default(),
            published: None,
            next_id: 0,
            rng: StdRng::from_rng(&mut rand::rng()),
        })
    }

    /// Keeps the fleet what it was asked to be, until `stop`; then stops what it owns.
    pub async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut stop: oneshot::Receiver<()>,
    ) {
        let runtime = Rc::clone(&self.runtime);
        let idle = Arc::clone(&self.idle);
        let mut tick = interval(LIST_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut deadline: Option<Instant> = None;
        loop {
            let wake = self.settle();
            if deadline.is_some_and(|deadline| self.roster.is_gone() || deadline <= Instant::now())
            {
                break;
            }
            let wake = [wake, deadline].into_iter().flatten().min();
            tokio::select! {
                Some(command) = commands.recv() => self.command(command),
                Some(outcome) = self.outcomes.recv() => self.outcome(outcome),
                Some(probe) = self.probes.recv() => self.probe(&probe),
                () = idle.notified() => self.find_idle(),
                () = runtime.changed() => self.list(),
                _ = tick.tick() => self.list(),
                () = until(wake) => {}
                _ = &mut stop, if deadline.is_none() => {
                    if self.keep_replicas {
                        info!(replicas = self.handles.len(), "replicas are kept");
                        return;
                    }
                    self.roster.stop_all();
                    deadline = Some(Instant::now() + self.grace + STOP_MARGIN);
                }
            }
        }
        if !self.roster.is_gone() {
            warn!("some replicas could not be stopped in time");
        }
        if let Err(error) = runtime.close().await {
            warn!(error = chain(&error), "runtime could not be closed cleanly");
        }
    }

    /// Carries out what the roster wants, publishes, and tells who waits for it; tells when to
    /// look again.
    fn settle(&mut self) -> Option<Instant> {
        loop {
            let (effects, wake) = self.roster.act(Instant::now(), &mut self.rng);
            let settled = effects.is_empty();
            for effect in effects {
                self.carry_out(effect);
            }
            let finished = self.roster.finished();
            for event in self.roster.events() {
                log(&event);
            }
            self.publish();
            if finished.is_empty() && settled {
                return wake;
            }
            for (id, result) in finished {
                self.reply(id, result);
            }
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Start(seat, hostname) => self.start(seat, hostname),
            Effect::Drain(hostname) => match self.handles.get_mut(&hostname) {
                Some(handle) => {
                    handle.watch = None;
                    let idle = Arc::clone(&self.idle);
                    handle.replica.close(move || idle.notify_one());
                }
                None => self.roster.drained(&hostname),
            },
            Effect::Remove(hostname) => self.stop(hostname),
        }
    }

    fn start(&self, seat: Seat, hostname: Hostname) {
        let (runtime, engine) = (Rc::clone(&self.runtime), Rc::clone(&self.engine));
        let tell = self.tell.clone();
        spawn(async move {
            let _permit = engine.acquire().await;
            let spec = ReplicaSpec { hostname, seat };
            let result = runtime.start(&spec).await;
            // Nobody listens any more only when the supervisor has ended.
            let _told = tell.send(Outcome::Started(spec.hostname, result)).await.is_ok();
        });
    }

    fn stop(&self, hostname: Hostname) {
        let (runtime, engine) = (Rc::clone(&self.runtime), Rc::clone(&self.engine));
        let (tell, grace) = (self.tell.clone(), self.grace);
        spawn(async move {
            let _permit = engine.acquire().await;
            let result = runtime.stop(&hostname, grace).await;
            let _told = tell.send(Outcome::Stopped(hostname, result)).await.is_ok();
        });
    }

    fn list(&mut self) {
        if self.listing.under_way {
            self.listing.again = true;
            return;
        }
        self.listing.under_way = true;
        let (runtime, tell) = (Rc::clone(&self.runtime), self.tell.clone());
        let began = self.roster.tick();
        spawn(async move {
            let listing = runtime.list().await;
            let _told = tell.send(Outcome::Listed(began, listing)).await.is_ok();
        });
    }

    fn command(&mut self, command: Command) {
        let Command { kind, change, reply } = command;
        let accepted = match kind {
            ChangeKind::Add => self.roster.add(change, Instant::now()),
            ChangeKind::Remove => self.roster.remove(change, &mut self.rng),
        };
        match accepted {
            Ok(id) => {
                self.replies.insert(id, reply);
            }
            Err(refused) => answer(reply, Err(refused.into())),
        }
    }

    fn outcome(&mut self, outcome: Outcome) {
        let now = Instant::now();
        match outcome {
            Outcome::Listed(began, listing) => {
                self.listing.under_way = false;
                self.listed(began, listing, now);
                if std::mem::take(&mut self.listing.again) {
                    self.list();
                }
            }
            Outcome::Started(hostname, result) => {
                let result = result.map_err(|error| match error {
                    RuntimeError::NameTaken(_) => StartFailed::NameTaken,
                    error @ (RuntimeError::Spawn { .. }
                    | RuntimeError::NoPort { .. }
                    | RuntimeError::Resolve(..)
                    | RuntimeError::Unreachable { .. }
                    | RuntimeError::Engine { .. }
                    | RuntimeError::Timeout { .. }
                    | RuntimeError::NoAddress { .. }
                    | RuntimeError::Listed) => StartFailed::Other(Arc::new(error)),
                });
                self.roster.started(&hostname, result, now, &mut self.rng);
            }
            Outcome::Stopped(hostname, result) => {
                let result = result.map_err(|error| Arc::new(error) as Cause);
                self.roster.removed(&hostname, result, now);
            }
        }
    }

    /// Takes a listing. One that failed says nothing: unknown is not dead.
    fn listed(&mut self, began: Tick, listing: Result<Vec<Observed>, RuntimeError>, now: Instant) {
        match listing {
            Ok(listing) => {
                if std::mem::take(&mut self.listing.failing) {
                    info!("replicas can be listed again");
                }
                self.roster.listed(listing, began, now, &mut self.rng);
            }
            Err(error) if !self.listing.failing => {
                self.listing.failing = true;
                warn!(error = chain(&error), "replicas cannot be listed; the last table stays");
            }
            Err(error) => debug!(error = chain(&error), "replicas still cannot be listed"),
        }
    }

    fn probe(&mut self, probe: &Probe) {
        self.roster.probed(&probe.hostname, probe.address, probe.good, Instant::now());
    }

    fn find_idle(&mut self) {
        let idle = |handle: &Handle| handle.watch.is_none() && handle.replica.in_flight() == 0;
        for (hostname, _) in self.handles.iter().filter(|(_, handle)| idle(handle)) {
            self.roster.drained(hostname);
        }
    }

    /// Publishes a new table if anything changed since the last one.
    fn publish(&mut self) {
        if self.published == Some(self.roster.revision()) {
            return;
        }
        self.keep_handles();
        let mut members: Vec<Member> =
            self.roster.members().map(|(id, weight)| Member { id, weight }).collect();
        members.sort_by_key(|member| member.id);
        if members != self.placement.members() {
            match Placement::build(&self.placement_config, &members) {
                Ok(placement) => self.placement = Arc::new(placement),
                // The roster keeps to the capacity, so this is a mistake of ours: say so, and
                // route by what there is.
                Err(error) => error!(%error, "placement could not be built; the last one stays"),
            }
        }
        let ready = self
            .handles
            .iter()
            .filter(|(hostname, _)| self.roster.is_ready(hostname))
            .map(|(_, handle)| Arc::clone(&handle.replica));
        let table = Table::new(Arc::clone(&self.placement), ready, self.roster.listing());
        self.shared.publish(table);
        self.published = Some(self.roster.revision());
    }

    /// One handle for each replica that runs, probed; one whose address changed is another.
    fn keep_handles(&mut self) {
        for (hostname, member, address) in self.roster.running() {
            let known = self.handles.get(hostname);
            let same = |handle: &Handle| handle.replica.address() == address;
            if known.is_some_and(|handle| handle.watch.is_some() && same(handle)) {
                continue;
            }
            self.next_id += 1;
            let id = ReplicaId(self.next_id);
            let replica = Arc::new(Replica::new(id, hostname.clone(), member, address));
            let watch = Some(self.prober.watch(hostname.clone(), address));
            let before = self.handles.insert(hostname.clone(), Handle { replica, watch });
            if let Some(before) = before {
                before.replica.give_up();
            }
        }
        let running: BTreeSet<&Hostname> = self.roster.running().map(|(name, ..)| name).collect();
        self.handles.retain(|hostname, handle| {
            if !running.contains(hostname) {
                handle.watch = None;
            }
            if !self.roster.lives(hostname) {
                handle.replica.give_up();
            }
            self.roster.knows(hostname)
        });
    }

    fn reply(&mut self, id: ChangeId, result: Result<(), Failed>) {
        if let Some(reply) = self.replies.remove(&id) {
            answer(reply, result.map(|()| self.roster.listing()).map_err(ChangeError::from));
        }
    }
}

fn answer(reply: Reply, result: Result<Vec<Hostname>, ChangeError>) {
    if reply.send(result).is_err() {
        debug!("the client that asked for a change has gone; the change is made all the same");
    }
}

async fn until(wake: Option<Instant>) {
    match wake {
        Some(wake) => sleep_until(wake.into()).await,
        None => std::future::pending().await,
    }
}

fn log(event: &Event) {
    let hostname = event.hostname.as_str();
    let seat = event.member.map(tracing::field::display);
    match &event.what {
        What::Starting => info!(hostname, seat, "replica is starting"),
        What::Adopted => info!(hostname, seat, "replica was running already and is adopted"),
        What::Ready => info!(hostname, seat, "replica is ready"),
        What::Ejected => warn!(hostname, seat, "replica is ejected: its probes fail"),
        What::Died(death) => warn!(hostname, seat, reason = %death, "replica is dead"),
        What::StartFailed(StartFailed::NameTaken) => {
            warn!(hostname, seat, "replica could not be started: its name is taken");
        }
        What::StartFailed(StartFailed::Other(cause)) => {
            warn!(hostname, seat, error = chain(cause), "replica could not be started");
        }
        What::NeverReady => warn!(hostname, seat, "replica was not ready in time and is removed"),
        What::Draining(why) => info!(hostname, seat, ?why, "replica is leaving"),
        What::Removed => info!(hostname, seat, "replica is removed"),
        What::RemoveFailed(cause) => {
            warn!(hostname, seat, error = chain(cause), "replica could not be removed");
        }
    }
}
