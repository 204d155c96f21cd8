//! The one writer of the table: `command | probe | listing | outcome → roster → plan → act →
//! publish the table`.

mod handles;
mod membership;
mod relief;
mod scaling;
mod tasks;

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep_until, timeout_at};
use tracing::{debug, info, warn};

use crate::config::Config;
use crate::fleet::change::{Cause, ChangeKind, Failed};
use crate::fleet::event::{Event, StartFailed, What};
use crate::fleet::health::Verdict;
use crate::fleet::listed::Server;
use crate::fleet::members::Stage;
use crate::fleet::observed::{Observed, Place};
use crate::fleet::roster::{ChangeId, Effect, Roster, Tick};
use crate::fleet::seat::Hostname;
use crate::prober::{Probe, ProbeError, Prober};
use crate::routing::placement::{Placement, PlacementConfig};
use crate::runtime::{Mark, Runtime, RuntimeError};
use crate::state::{ChangeError, Command, Reply, RingStatus, RollOrder, Shared, SupervisorStatus};
use crate::telemetry::chain;
use handles::{Handles, Published};
pub use membership::JoinError;
use membership::{Ending, Membership};
use relief::Relief;
use scaling::Scaling;
use tasks::{Listing, Outcome, Tasks};

/// Probes that may wait: each is taken at once, and a sender that finds it full waits.
const PROBES: usize = 1_024;

/// What of the time until the end of a shutdown is kept for killing a replica that does not stop.
const KILL_RESERVE: Duration = Duration::from_secs(1);

/// See the module.
pub struct Supervisor<R> {
    runtime: Rc<R>,
    shared: Arc<Shared>,
    roster: Roster,
    placement_config: PlacementConfig,
    placement: Arc<Placement>,
    /// Failures in a row on real requests that eject a replica; 0 for none.
    outliers: u32,
    grace: Duration,
    keep_replicas: bool,
    /// When the balancer ends, once it stops.
    ends_at: Option<Instant>,
    probes: mpsc::Receiver<Probe>,
    tasks: Tasks<R>,
    outcomes: mpsc::Receiver<Outcome>,
    handles: Handles,
    replies: HashMap<ChangeId, Reply<Vec<Hostname>>>,
    listing: Listing,
    /// Its part in the pool, where other balancers can have one.
    membership: Option<Membership>,
    ending: Ending,
    /// The fleet follows its load; not where that is off, or the balancer stops.
    scaling: Option<Scaling>,
    published: Option<u64>,
    relief: Option<Relief>,
    rng: StdRng,
}

// === impl Supervisor ===

impl<R: Runtime> Supervisor<R> {
    /// Joins the pool, lists what runs, adopts it or asks for the first fleet.
    ///
    /// # Errors
    /// When the runtime cannot list, or another balancer holds the pool.
    pub async fn boot(config: &Config, runtime: R, shared: Arc<Shared>) -> Result<Self, JoinError> {
        let (results, probes) = mpsc::channel(PROBES);
        let (membership, begin) = Membership::join(&runtime, config).await?;
        let mut roster = Roster::new(config.fleet());
        roster.begin_with(runtime.list().await?, begin, Instant::now());
        let table = shared.table();
        let (placement, pool) = (Arc::clone(table.placement()), Arc::clone(table.pool()));
        let listing = Listing::new(runtime.list_every(), Instant::now());
        let scaling = |scale| Scaling::new(scale, roster.size(), Instant::now());
        let scaling = config.scale.map(scaling);
        let runtime = Rc::new(runtime);
        let (tasks, outcomes) = Tasks::new(Rc::clone(&runtime));
        Ok(Self {
            runtime,
            shared,
            roster,
            placement_config: config.placement.clone(),
            placement,
            outliers: config.outliers.consecutive,
            grace: config.timeouts.stop,
            keep_replicas: config.keep_replicas,
            ends_at: None,
            probes,
            tasks,
            outcomes,
            handles: Handles::new(Prober::new(config.health.clone(), results), pool),
            replies: HashMap::new(),
            listing,
            membership,
            ending: Ending::No,
            scaling,
            published: None,
            relief: config.overload.map(|relief| Relief::new(relief, Instant::now())),
            rng: StdRng::from_rng(&mut rand::rng()),
        })
    }

    /// Keeps the fleet as it was asked for, until `stop`; then removes the replicas, unless they are
    /// to be kept or another balancer of the pool lives: until the deadline that `stop` gives,
    /// however many calls to the runtime hang. Reports whether nothing is left behind.
    pub async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut stop: oneshot::Receiver<Instant>,
    ) -> bool {
        let (runtime, shared) = (Rc::clone(&self.runtime), Arc::clone(&self.shared));
        let idle = self.handles.idle();
        loop {
            self.scale();
            let wake = self.settle();
            let ending = self.ending;
            if self.end() {
                break;
            }
            if self.ending != ending {
                // What follows from that is begun at once.
                continue;
            }
            let sample = self.scaling.as_ref().map(Scaling::due);
            let renewal = self.membership.as_ref().map(Membership::due);
            let wake = [wake, self.end_due(), sample].into_iter().flatten().min();
            tokio::select! {
                Some(command) = commands.recv() => self.command(command),
                Some(outcome) = self.outcomes.recv() => self.outcome(outcome),
                Some(probe) = self.probes.recv() => self.probe(&probe),
                () = idle.notified() => self.find_idle(),
                () = shared.alarmed() => self.look(),
                () = runtime.changed() => {
                    self.hear();
                    self.list();
                }
                () = sleep_until(self.listing.due().into()) => self.list(),
                () = until(renewal) => self.renew(),
                () = until(wake) => {}
                end = &mut stop, if self.ending == Ending::No => {
                    // Without a deadline the balancer has ended otherwise.
                    self.ends_at = Some(end.unwrap_or_else(|_| Instant::now() + self.grace));
                    if self.keep_replicas {
                        return self.leave_replicas(Stage::Kept).await;
                    }
                    self.begin_end();
                }
            }
            // Whatever else has come meanwhile, so that the plan is made and the table swapped
            // once for all of it.
            while let Ok(outcome) = self.outcomes.try_recv() {
                self.outcome(outcome);
            }
            while let Ok(probe) = self.probes.try_recv() {
                self.probe(&probe);
            }
        }
        if let Ending::Parting { .. } = self.ending {
            return self.leave_replicas(Stage::Gone).await;
        }
        let remaining = self.roster.remaining();
        if !remaining.is_empty() {
            let names: Vec<&str> = remaining.iter().map(|hostname| hostname.as_str()).collect();
            warn!(replicas = names.join(","), "replicas could not be stopped in time");
        }
        // The leases go last, whatever became of the rest: without one, the next start begins anew.
        let is_closed = self.close().await;
        remaining.is_empty() & is_closed & self.remove_leases().await
    }

    /// Removes what was made beside the replicas. Reports whether it is gone.
    async fn close(&self) -> bool {
        let end = self.ends_at.unwrap_or_else(Instant::now);
        match timeout_at(end.into(), self.runtime.close()).await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                warn!(error = chain(&error), "runtime could not be closed cleanly");
                false
            }
            Err(_late) => {
                warn!("runtime could not be closed in time");
                false
            }
        }
    }

    /// Returns the time that a replica has between SIGTERM and SIGKILL: the configured one, but
    /// for a shutdown that ends before it would be over.
    fn grace(&self) -> Duration {
        let left = self.ends_at.map(|end| end.saturating_duration_since(Instant::now()));
        let most = left.map_or(Duration::MAX, |left| left.saturating_sub(KILL_RESERVE));
        self.grace.min(most)
    }

    /// Decides, publishes, carries out, and tells who waits for it; tells when to look again.
    fn settle(&mut self) -> Option<Instant> {
        loop {
            let (effects, wake) = self.roster.act(Instant::now(), &mut self.rng);
            let wake = [wake, self.relieve()].into_iter().flatten().min();
            let finished = self.roster.finished();
            let events = self.roster.events();
            // Publishes the table before anything that follows from it: a reader of an event, of
            // the log or of a reply observes the change that it describes, and a request that finds
            // a replica closed finds the next owner of its key.
            let published = self.publish();
            for event in events {
                self.record(&event, published);
            }
            self.note_wanted();
            if finished.is_empty() && effects.is_empty() {
                return wake;
            }
            for effect in effects {
                self.carry_out(effect);
            }
            for (id, result) in finished {
                self.scaled(id, &result);
                self.reply(id, result);
            }
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Start(place, hostname, release) => {
                self.tasks.start(hostname, place.seat(), release);
            }
            Effect::MarkSeated(hostname, seat) => self.tasks.mark(hostname, Mark::Seated(seat)),
            Effect::MarkLeaving(hostname) => self.tasks.mark(hostname, Mark::Leaving),
            Effect::MarkStopping(hostname) => self.tasks.mark(hostname, Mark::Stopping),
            Effect::Drain(hostname) => {
                if !self.handles.close(&hostname) {
                    self.roster.drained(&hostname);
                }
            }
            Effect::Remove(hostname) => self.tasks.stop(hostname, self.grace()),
            Effect::Kill(hostname) => self.tasks.stop(hostname, Duration::ZERO),
            Effect::Enlist(server) => self.tasks.enlist(server),
            Effect::Unlist(hostname) => self.runtime.unlist(&hostname),
            Effect::Withdraw(hostname) => self.runtime.withdraw(&hostname),
            Effect::List => self.list(),
        }
    }

    /// Takes the deaths that cannot wait for a listing.
    fn hear(&mut self) {
        for (hostname, death) in self.runtime.deaths() {
            self.roster.told_dead(&hostname, death, Instant::now(), &mut self.rng);
        }
    }

    fn list(&mut self) {
        if self.listing.may_begin() {
            self.tasks.list(self.roster.tick());
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Change { kind, change, reply } => {
                if let (ChangeKind::Add, Some(cause)) = (kind, self.listing.error()) {
                    return answer(reply, Err(ChangeError::NoRuntime(Arc::clone(cause))));
                }
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
            Command::Roll { order, reply } => {
                let now = Instant::now();
                let done = match order {
                    RollOrder::Begin(request) => self.roster.roll(request, now).map(drop),
                    RollOrder::Back => self.roster.roll_back(now),
                    RollOrder::Pause => self.roster.pause_roll(),
                    RollOrder::Resume => self.roster.resume_roll(),
                };
                let status = |()| self.roster.roll_status(now).ok_or(ChangeError::Busy);
                let done = done.map_err(ChangeError::from).and_then(status);
                self.answer_once_written(reply, done);
            }
            Command::Configure { release, reply } => {
                if let Some(membership) = &mut self.membership {
                    membership.configure(&release.spec);
                }
                self.roster.configure(release, Instant::now());
                answer(reply, Ok(()));
            }
            Command::Node { hostname, enable, reply } => {
                answer(reply, Ok(self.node(&hostname, enable)));
            }
            Command::Nodes { reply } => {
                let able = self.roster.able();
                answer(reply, Ok(able.into_iter().map(ToString::to_string).collect()));
            }
            Command::Status { reply } => {
                let in_flight = |hostname: &Hostname| self.handles.in_flight(hostname);
                let fleet = self.roster.status(Instant::now(), in_flight);
                let engine_error = self.listing.error().map(|error| chain(error.as_ref()));
                let scale = self.scaling.as_ref().map(Scaling::status);
                let pool = self.membership.as_ref().map(Membership::status);
                answer(reply, Ok(SupervisorStatus { fleet, scale, pool, engine_error }));
            }
            Command::Ring { reply } => answer(reply, Ok(self.ring())),
            Command::Rehearse { rehearsal, reply } => {
                let rehearsed = self.roster.rehearse(&rehearsal).map_err(ChangeError::from);
                answer(reply, rehearsed.map(|rehearsed| (self.ring(), rehearsed)));
            }
        }
    }

    /// The table that was published last, and what is known of those who are in it or not.
    fn ring(&self) -> RingStatus {
        RingStatus { table: self.shared.table(), occupants: self.roster.occupants() }
    }

    fn outcome(&mut self, outcome: Outcome) {
        let now = Instant::now();
        match outcome {
            Outcome::Listed { began, took, listing } => {
                self.listed(began, listing, now);
                if self.listing.ended(took, now) {
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
                    | RuntimeError::Pull { .. }
                    | RuntimeError::NoAddress { .. }
                    | RuntimeError::Listed
                    | RuntimeError::Owned(_)
                    | RuntimeError::ListedAlready(_)
                    | RuntimeError::Unresolved { .. }) => StartFailed::Other(Arc::new(error)),
                });
                self.roster.started(&hostname, result, now, &mut self.rng);
            }
            Outcome::Enlisted(server, result) => {
                let result = result.map_err(|error| not_listed(&server, error));
                self.roster.enlisted(&server, result, now);
            }
            Outcome::Marked(hostname, result) => {
                self.roster.marked(&hostname, result.map_err(|error| Arc::new(error) as Cause));
            }
            Outcome::Renewed { version, stage, result } => self.renewed(version, stage, result),
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
                if self.listing.clear_error() {
                    self.tell(What::EngineBack);
                    self.roster.runtime_back(now);
                }
                self.roster.listed(listing, began, now, &mut self.rng);
            }
            Err(error) => {
                debug!(error = chain(&error), "replicas cannot be listed");
                let cause: Cause = Arc::new(error);
                if self.listing.note_error(&cause) {
                    self.tell(What::EngineLost(cause));
                    self.roster.runtime_lost();
                }
            }
        }
    }

    fn tell(&mut self, what: What) {
        let published = self.publish();
        self.record(&Event { subject: None, what }, published);
    }

    /// Logs an event, keeps it in the history and streams it: only after the table in which it can be
    /// observed was published.
    fn record(&self, event: &Event, _: Published) {
        log(event);
        self.shared.history().push(event);
    }

    fn probe(&mut self, probe: &Probe) {
        let verdict = match probe.failure.as_ref().map(|failure| failure.error) {
            None => Verdict::Good,
            Some(ProbeError::Refused) => {
                self.handles.note_refused(&probe.hostname);
                Verdict::Refused
            }
            Some(_) => Verdict::Bad,
        };
        let why = probe.failure.as_ref().map(|failure| Arc::clone(&failure.reason));
        self.roster.probed(&probe.hostname, probe.address, verdict, why, Instant::now());
    }

    /// The request path has noted something about replicas.
    fn look(&mut self) {
        let troubled = self.handles.troubled(self.outliers);
        for hostname in troubled.failing {
            self.roster.erred(&hostname, Instant::now());
        }
        if troubled.unreachable {
            self.list();
        }
    }

    fn find_idle(&mut self) {
        for hostname in self.handles.idle_ones() {
            self.roster.drained(hostname);
        }
    }

    fn reply(&mut self, id: ChangeId, result: Result<(), Failed>) {
        if let Some(reply) = self.replies.remove(&id) {
            let result = result.map(|()| self.roster.listing()).map_err(ChangeError::from);
            self.answer_once_written(reply, result);
        }
    }
}

/// Why a server could not be listed.
fn not_listed(server: &Server, error: RuntimeError) -> Failed {
    let hostname = server.hostname();
    match error {
        RuntimeError::ListedAlready(_) => Failed::ListedAlready(hostname),
        error @ (RuntimeError::NameTaken(_)
        | RuntimeError::Spawn { .. }
        | RuntimeError::NoPort { .. }
        | RuntimeError::Resolve(..)
        | RuntimeError::Unreachable { .. }
        | RuntimeError::Engine { .. }
        | RuntimeError::Timeout { .. }
        | RuntimeError::Pull { .. }
        | RuntimeError::NoAddress { .. }
        | RuntimeError::Listed
        | RuntimeError::Owned(_)
        | RuntimeError::Unresolved { .. }) => Failed::List { hostname, source: Arc::new(error) },
    }
}

fn answer<T>(reply: Reply<T>, result: Result<T, ChangeError>) {
    if reply.send(result).is_err() {
        debug!("whoever asked has gone; what was asked for is done all the same");
    }
}

async fn until(wake: Option<Instant>) {
    match wake {
        Some(wake) => sleep_until(wake.into()).await,
        None => std::future::pending().await,
    }
}

fn log(event: &Event) {
    let subject = event.subject.as_ref();
    let hostname = subject.map(|subject| subject.hostname.as_str());
    let place = subject.map(|subject| subject.place).filter(|place| *place != Place::Unknown);
    let seat = place.map(tracing::field::display);
    let reason = event.what.reason();
    let message = event.message();
    if event.what.is_bad() {
        warn!(hostname, seat, reason, "{message}");
    } else {
        info!(hostname, seat, reason, "{message}");
    }
}
