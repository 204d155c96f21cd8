//! One request at several replicas: at all of them until each has succeeded, or at some for the
//! first success.
//!
//! `send = "all"` delivers a request to members of the ring, not to the replicas that happen to be
//! ready: a member that is ejected, or whose replica is being replaced, gets its request later.
//!
//! A delivery goes on whether or not the client stays: it is a task of its own, counted, so that the
//! balancer does not end before it does.

mod letter;

use std::cell::RefCell;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use actix_web::rt::spawn;
use futures_util::future::join_all;
use tokio::sync::{Notify, oneshot};
use tokio::time::sleep;
use tracing::{debug, warn};

use super::error::{Failure, ProxyError, Unsent};
use super::exchange::{Exchange, Link, Outcome};
use super::message::CONTINUE;
use super::own::answer::read_whole;
use super::rules::{Route, Rules};
use super::session::flush;
use super::{Common, Worker};
use crate::config::{Among, FanConfig};
use crate::fleet::seat::MemberId;
use crate::http1::Framing;
use crate::metrics::{Code, Delivering};
use crate::routing::key::Key;
use crate::routing::policy::Pick;
use crate::routing::table::{InFlight, Replica, ReplicaId, Table};
pub(super) use letter::{Held, Letter, Sent};

/// How often a delivery that pauses checks whether its target and its client are still there.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Requests under way that no connection of a client may be waiting for.
#[derive(Debug, Default)]
pub struct Background {
    under_way: AtomicUsize,
    ended: Notify,
    given_up: AtomicBool,
    give_up: Notify,
}

/// One of them, until dropped.
struct UnderWay(Arc<Common>, Delivering);

/// What is to be sent, with all that it takes.
struct Work {
    worker: Rc<Worker>,
    rules: Rc<Rules>,
    route: Rc<Route>,
    fan: FanConfig,
    key: Key,
    letter: Letter,
    _under_way: UnderWay,
}

/// Where a task leaves what came of it; closed once the client has gone.
type Tell<T> = oneshot::Sender<Result<T, ProxyError>>;

/// The first success, on its way.
pub(super) struct Won {
    sent: Sent,
    replica: Arc<Replica>,
    in_flight: InFlight,
}

/// A replica, or a member of the ring, that must get a request.
enum Target {
    /// The member, whichever replica it has.
    Member(MemberId),
    /// This replica.
    Replica(Arc<Replica>),
}

/// The replica of a target now.
enum Now {
    /// The replica that can be asked.
    Here(Arc<Replica>),
    /// There is none, or it takes no requests: the next one is awaited.
    Away,
    /// The target does not belong to the fleet any more.
    Left,
}

/// An attempt that failed.
struct Tried {
    replica: ReplicaId,
    /// The replica was ready when the attempt had failed.
    was_ready: bool,
    hostname: String,
    error: String,
}

/// The outcome at one target.
enum Delivered {
    /// It succeeded.
    Well(Box<Held>),
    /// It does not belong to the fleet any more, so it need not have the request.
    Left,
    /// It has had all its attempts, or the delivery has ended for another reason.
    Failed(Unsent),
}

/// Sends a request to every member of the ring, or every ready replica. Answers, when all have
/// succeeded, what its first owner said.
pub(super) async fn all(mut exchange: Exchange<'_>, fan: &FanConfig, among: Among) -> Outcome {
    let work = match prepare(&mut exchange, fan).await {
        Ok(work) => work,
        Err(outcome) => return outcome,
    };
    let targets = work.targets(among, exchange.route.turn());
    if targets.is_empty() {
        return Outcome::Fail(ProxyError::NoReplica);
    }
    let (tell, told) = oneshot::channel();
    spawn(async move { work.send_to_all(targets, tell).await });
    match wait(&mut exchange, told).await {
        Ok(held) => {
            exchange.trace(|trace| trace.answered_by(&held.replica));
            exchange.relay_held(*held).await
        }
        Err(outcome) => outcome,
    }
}

/// Sends a request to several ready replicas at once, and answers what the first that succeeds
/// says.
pub(super) async fn first(
    mut exchange: Exchange<'_>,
    fan: &FanConfig,
    among: Option<usize>,
) -> Outcome {
    let work = match prepare(&mut exchange, fan).await {
        Ok(work) => work,
        Err(outcome) => return outcome,
    };
    let turn = exchange.route.turn();
    let (tell, told) = oneshot::channel();
    spawn(async move { work.send_for_first(among, turn, tell).await });
    match wait(&mut exchange, told).await {
        Ok(Won { sent, replica, in_flight }) => {
            relay_sent(exchange, sent, &replica, in_flight).await
        }
        Err(outcome) => outcome,
    }
}

/// Passes an answer on whose head is there.
pub(super) async fn relay_sent(
    mut exchange: Exchange<'_>,
    sent: Sent,
    replica: &Arc<Replica>,
    in_flight: InFlight,
) -> Outcome {
    exchange.trace(|trace| trace.answered_by(replica));
    *exchange.answer = sent.answer;
    *exchange.answer_head = sent.head;
    exchange.relay(Link::asked(sent.wire), sent.length, replica, in_flight).await
}

/// Reads the whole request. It counts as under way from here: the balancer must not end between
/// its last byte and the first that is sent.
async fn prepare(exchange: &mut Exchange<'_>, fan: &FanConfig) -> Result<Work, Outcome> {
    let most = exchange.rules.deliveries;
    let Some(under_way) = UnderWay::begin(exchange.worker, most) else {
        return Err(Outcome::Fail(ProxyError::TooManyDeliveries(most)));
    };
    let Exchange { worker, client, timer, body, asked, rules, route, .. } = exchange;
    let limit = rules.body_limit.unwrap_or(u64::MAX).min(fan.body as u64);
    let too_large = || Err(Outcome::Fail(ProxyError::TooLarge(limit)));
    if matches!(asked.request.framing, Framing::Length(length) if length > limit) {
        return too_large();
    }
    if asked.request.expects {
        client.begin();
        client.output().extend_from_slice(CONTINUE);
        if flush(client, timer, worker).await.is_err() {
            return Err(Outcome::Abort);
        }
    }
    let patience = route.config.timeouts.client_body;
    let read = read_whole(client, timer, body, limit as usize, patience).await;
    let read = read.map_err(Outcome::Fail)?;
    if read.len() as u64 > limit {
        return too_large();
    }
    let letter = Letter::new(asked, read.freeze());
    let (worker, rules) = (Rc::clone(worker), Rc::clone(rules));
    let (route, fan) = (Rc::clone(route), fan.clone());
    let key = exchange.key();
    Ok(Work { worker, rules, route, fan, key, letter, _under_way: under_way })
}

/// Waits for what came of it, or for the client's end.
async fn wait<T>(
    exchange: &mut Exchange<'_>,
    mut told: oneshot::Receiver<Result<T, ProxyError>>,
) -> Result<T, Outcome> {
    poll_fn(|cx| {
        if let Poll::Ready(told) = Pin::new(&mut told).poll(cx) {
            // A task that ended without a word has panicked.
            let told = told.unwrap_or(Err(ProxyError::Lost));
            return Poll::Ready(told.map_err(Outcome::Fail));
        }
        exchange.poll_gone(cx).map(|()| {
            debug!(status = 499, "client has gone");
            Err(Outcome::Abort)
        })
    })
    .await
}

// === impl Work ===

impl Work {
    /// The ready replicas that are asked, the best first.
    fn replicas(&self, among: Option<usize>, turn: usize) -> Vec<Arc<Replica>> {
        let table = self.worker.shared.table();
        let pick = Pick { key: &self.key, turn };
        let order =
            self.route.config.policy.order(&table, pick, &mut *self.worker.rng.borrow_mut());
        let Some(most) = among else { return order.into_iter().cloned().collect() };
        // Those that could not be connected to a moment ago only where there are no others.
        let shunned = |replica: &&Arc<Replica>| self.worker.upstream.shuns(replica.id());
        let (last, first): (Vec<_>, Vec<_>) = order.into_iter().partition(shunned);
        first.into_iter().chain(last).take(most).cloned().collect()
    }

    /// Returns replicas that run but are ejected or fail their health checks, in the order of the
    /// key's owners, without those in `asked`.
    fn last_resort(&self, among: Option<usize>, asked: &[Arc<Replica>]) -> Vec<Arc<Replica>> {
        let table = self.worker.shared.table();
        let is_new = |replica: &&Arc<Replica>| asked.iter().all(|other| other.id() != replica.id());
        let standby = table.standby_of(self.key.as_bytes()).filter(is_new);
        let standby: Vec<_> = standby.take(among.unwrap_or(usize::MAX)).cloned().collect();
        standby.iter().for_each(|_| self.route.metrics.last_resort());
        standby
    }

    /// Returns the targets of `send = "all"`, the key's owners in their order.
    fn targets(&self, among: Among, turn: usize) -> Vec<Target> {
        if among == Among::Ready {
            return self.replicas(None, turn).into_iter().map(Target::Replica).collect();
        }
        let table = self.worker.shared.table();
        let (members, pick) = (table.placement().members(), Pick { key: &self.key, turn });
        let policy = self.route.config.policy;
        let order = policy.order_members(&table, pick, &mut *self.worker.rng.borrow_mut());
        order.into_iter().map(|index| Target::Member(members[index].id)).collect()
    }

    async fn send_to_all(self, targets: Vec<Target>, tell: Tell<Box<Held>>) {
        // The answer of the first owner that has succeeded so far: no other is kept.
        let best: RefCell<Option<(usize, Box<Held>)>> = RefCell::default();
        let deliver = async |place, target| match self.deliver(target, &tell).await {
            Delivered::Well(held) => {
                let mut best = best.borrow_mut();
                if best.as_ref().is_none_or(|(before, _)| place < *before) {
                    *best = Some((place, held));
                }
                None
            }
            Delivered::Left => None,
            Delivered::Failed(unsent) => Some(unsent),
        };
        let deliveries = (0..).zip(&targets).map(|(place, target)| deliver(place, target));
        let failed: Vec<Unsent> = join_all(deliveries).await.into_iter().flatten().collect();
        let outcome = match best.take() {
            _ if !failed.is_empty() => Err(ProxyError::Unsent(failed)),
            Some((_, held)) => Ok(held),
            None => Err(ProxyError::NoReplica),
        };
        // The client may have gone.
        let _told = tell.send(outcome).is_ok();
    }

    /// Sends to one target until it succeeds, has had all its attempts, or leaves.
    async fn deliver(&self, target: &Target, tell: &Tell<Box<Held>>) -> Delivered {
        let (mut attempts, mut last) = (0, None::<Tried>);
        loop {
            // Before the table is read, so that no table is missed.
            let published = self.worker.shared.published();
            let entered = match target.now(&self.worker.shared.table()) {
                Now::Left => return Delivered::Left,
                Now::Away => None,
                Now::Here(replica) => replica.enter().map(|in_flight| (replica, in_flight)),
            };
            let Some((replica, in_flight)) = entered else {
                if matches!(target, Target::Replica(_)) {
                    return Delivered::Left;
                }
                // No attempt: the next replica of the member is on its way.
                if self.is_unwanted(|| tell.is_closed()) {
                    return Delivered::Failed(self.undelivered(target, attempts, last, tell));
                }
                tokio::select! {
                    () = published => {}
                    () = self.background().until_given_up() => {}
                    () = sleep(LOOK_AGAIN) => {}
                }
                continue;
            };
            let tried = tokio::select! {
                biased;
                tried = self.try_to_deliver(&replica) => tried,
                () = self.background().until_given_up() => Err("given up".to_owned()),
            };
            drop(in_flight);
            attempts += 1;
            let error = match tried {
                Ok(held) => {
                    self.route.metrics.fan_attempt(&replica, true);
                    return Delivered::Well(held);
                }
                Err(error) => error,
            };
            self.route.metrics.fan_attempt(&replica, false);
            let hostname = replica.hostname().to_string();
            debug!(hostname, attempts, error, "replica did not succeed");
            let was_ready = target.ready(&self.worker.shared.table()) == Some(replica.id());
            let tried = Tried { replica: replica.id(), was_ready, hostname, error };
            let goes_on = attempts < self.fan.attempts
                && self.pause(attempts, Some((target, &tried)), || tell.is_closed()).await;
            last = Some(tried);
            if goes_on {
                continue;
            }
            if matches!(target.now(&self.worker.shared.table()), Now::Left) {
                return Delivered::Left;
            }
            return Delivered::Failed(self.undelivered(target, attempts, last, tell));
        }
    }

    /// Sends to one replica, once: until its whole answer is there and says that it succeeded.
    async fn try_to_deliver(&self, replica: &Arc<Replica>) -> Result<Box<Held>, String> {
        let sent = self.ask(replica).await.map_err(|failure| crate::telemetry::chain(&failure))?;
        let status = sent.answer.status;
        match sent.hold(self, replica, self.fan.body).await {
            Ok(held) if self.fan.is_success(status) => Ok(Box::new(held)),
            Ok(_) => Err(format!("answered {status}")),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Describes a delivery that failed for good. It is logged if the client cannot be told: the
    /// balancer stops, or the client has gone.
    fn undelivered(
        &self,
        target: &Target,
        attempts: u32,
        last: Option<Tried>,
        tell: &Tell<Box<Held>>,
    ) -> Unsent {
        let (replica, error) = match last {
            Some(Tried { hostname, error, .. }) => (hostname, error),
            None => (target.to_string(), "no replica was ready".to_owned()),
        };
        let stops = self.background().is_given_up();
        if stops || (tell.is_closed() && !self.fan.abandon) {
            let (method, path) = self.letter.method_and_path();
            let member = target.to_string();
            warn!(%method, %path, member, replica, attempts, error, "request undelivered");
        }
        Unsent { replica, attempts, error }
    }

    fn background(&self) -> &Background {
        &self.worker.common.background
    }

    /// Reports whether nothing more is to be sent: the balancer has given up, or the client has
    /// gone and the route abandons its requests then.
    fn is_unwanted(&self, gone: impl Fn() -> bool) -> bool {
        self.background().is_given_up() || (self.fan.abandon && gone())
    }

    async fn send_for_first(self, among: Option<usize>, turn: usize, tell: Tell<Won>) {
        let tell = RefCell::new(Some(tell));
        let mut round = 1;
        let error = loop {
            let mut replicas = self.replicas(among, turn.wrapping_add(round as usize - 1));
            let none_is_ready = replicas.is_empty();
            if none_is_ready {
                replicas = self.last_resort(among, &[]);
            }
            if replicas.is_empty() && (round == 1 || round >= self.fan.attempts) {
                break ProxyError::NoReplica;
            }
            let tried = replicas.iter().map(|replica| self.try_one(replica, round, &tell));
            let mut failed: Vec<Unsent> = join_all(tried).await.into_iter().flatten().collect();
            // Somebody has succeeded.
            if tell.borrow().is_none() {
                return;
            }
            let gone = || tell.borrow().as_ref().is_none_or(oneshot::Sender::is_closed);
            if round < self.fan.attempts {
                if !self.pause(round, None, gone).await {
                    break ProxyError::Unsent(failed);
                }
                round += 1;
                continue;
            }
            let standby = self.last_resort(among, &replicas);
            let tried = standby.iter().map(|replica| self.try_one(replica, round, &tell));
            failed.extend(join_all(tried).await.into_iter().flatten());
            if tell.borrow().is_none() {
                return;
            }
            break if none_is_ready { ProxyError::NoReplica } else { ProxyError::Unsent(failed) };
        };
        if let Some(tell) = tell.take() {
            let _told = tell.send(Err(error)).is_ok();
        }
    }

    /// Sends to one replica. The first success goes to the client as it comes; of the others the
    /// rest is read. What is wrong, if anything is.
    async fn try_one(
        &self,
        replica: &Arc<Replica>,
        round: u32,
        tell: &RefCell<Option<Tell<Won>>>,
    ) -> Option<Unsent> {
        let unsent =
            |error| Unsent { replica: replica.hostname().to_string(), attempts: round, error };
        let Some(in_flight) = replica.enter() else { return Some(unsent("has left".to_owned())) };
        let sent = match self.ask(replica).await {
            Ok(sent) => sent,
            Err(failure) => {
                self.route.metrics.fan_attempt(replica, false);
                return Some(unsent(crate::telemetry::chain(&failure)));
            }
        };
        let status = sent.answer.status;
        let success = self.fan.is_success(status);
        self.route.metrics.fan_attempt(replica, success);
        if !success {
            sent.finish(self, replica).await;
            return Some(unsent(format!("answered {status}")));
        }
        let won = Won { sent, replica: Arc::clone(replica), in_flight };
        let tell = tell.borrow_mut().take();
        // Another one was faster, or the client has gone.
        let unwanted = match tell {
            Some(tell) => tell.send(Ok(won)).err().and_then(Result::ok),
            None => Some(won),
        };
        if let Some(Won { sent, in_flight, .. }) = unwanted {
            sent.finish(self, replica).await;
            drop(in_flight);
        }
        None
    }

    /// Sends the letter to one replica, once: until the head of its answer is there.
    async fn ask(&self, replica: &Arc<Replica>) -> Result<Sent, Failure> {
        let asked =
            self.letter.send(&self.worker, &self.rules, &self.route.config.timeouts, replica).await;
        match &asked {
            Ok(sent) if sent.answer.status < 500 => self.worker.note(replica, true),
            // It is asked again; were it ejected for that, it would miss what the others get.
            Ok(_) => {}
            Err(failure) if failure.blames_the_replica() => self.worker.note(replica, false),
            Err(_) => {}
        }
        let code = |sent: &Sent| Code::of(sent.answer.status);
        self.route.metrics.attempt(replica, asked.as_ref().map_or_else(Failure::code, code));
        asked
    }

    /// Waits until a request that failed so often may be sent again. Returns early if the target
    /// has another replica, or its replica has become ready. Reports whether the request is still
    /// wanted: by the client where that counts, and by the target.
    async fn pause(
        &self,
        failures: u32,
        tried: Option<(&Target, &Tried)>,
        gone: impl Fn() -> bool,
    ) -> bool {
        let pause = self.fan.repeat.pause(failures - 1, &mut *self.worker.rng.borrow_mut());
        let until = Instant::now() + pause;
        loop {
            let published = self.worker.shared.published();
            if self.is_unwanted(&gone) {
                return false;
            }
            if let Some((target, tried)) = tried {
                let table = self.worker.shared.table();
                if matches!(target.now(&table), Now::Left) {
                    return false;
                }
                if tried.is_outdated(target.ready(&table)) {
                    return true;
                }
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            tokio::select! {
                () = published => {}
                () = self.background().until_given_up() => {}
                () = sleep(left.min(LOOK_AGAIN)) => {}
            }
        }
    }
}

/// Reports whether a replica does not belong to the fleet any more.
fn has_left(replica: &Replica) -> bool {
    replica.is_closed() || replica.is_dead()
}

// === impl Target ===

impl Target {
    /// Returns its replica by this table.
    fn now(&self, table: &Table) -> Now {
        match self {
            Self::Replica(replica) if has_left(replica) => Now::Left,
            Self::Replica(replica) => Now::Here(Arc::clone(replica)),
            Self::Member(member) => match table.index_of(*member) {
                None => Now::Left,
                Some(index) => match table.running(index).filter(|replica| !has_left(replica)) {
                    Some(replica) => Now::Here(Arc::clone(replica)),
                    None => Now::Away,
                },
            },
        }
    }

    /// Returns the ready replica of a member.
    fn ready(&self, table: &Table) -> Option<ReplicaId> {
        match self {
            Self::Replica(_) => None,
            Self::Member(member) => Some(table.ready(table.index_of(*member)?)?.id()),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Member(MemberId::Seat(seat)) => write!(f, "seat {seat}"),
            Self::Member(MemberId::Address(address)) => address.fmt(f),
            Self::Replica(replica) => replica.hostname().fmt(f),
        }
    }
}

// === impl Tried ===

impl Tried {
    /// Reports whether the member has another ready replica than the one that failed, or that one
    /// has become ready.
    fn is_outdated(&self, ready: Option<ReplicaId>) -> bool {
        ready.is_some_and(|ready| ready != self.replica || !self.was_ready)
    }
}

// === impl Background ===

impl Background {
    /// Ends what is in progress.
    pub fn give_up(&self) {
        self.given_up.store(true, Ordering::SeqCst);
        self.give_up.notify_waiters();
    }

    fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::SeqCst)
    }

    async fn until_given_up(&self) {
        let given_up = self.give_up.notified();
        if !self.is_given_up() {
            given_up.await;
        }
    }

    /// Until there are none.
    pub async fn ended(&self) {
        loop {
            let ended = self.ended.notified();
            if self.under_way.load(Ordering::SeqCst) == 0 {
                return;
            }
            ended.await;
        }
    }
}

// === impl UnderWay ===

impl UnderWay {
    /// Counts a request in, unless `most` are in progress.
    fn begin(worker: &Worker, most: usize) -> Option<Self> {
        let delivering = worker.shared.metrics().delivering(most)?;
        worker.common.background.under_way.fetch_add(1, Ordering::SeqCst);
        Some(Self(Arc::clone(&worker.common), delivering))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let Self(common, _delivering) = self;
        if common.background.under_way.fetch_sub(1, Ordering::SeqCst) == 1 {
            common.background.ended.notify_waiters();
        }
    }
}
