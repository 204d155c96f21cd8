//! One request at several replicas: at all of them until each has succeeded, or at some for the
//! first success.
//!
//! What is sent goes on whether or not the client stays: tasks of their own, counted, so that the
//! balancer does not end before they do.

mod letter;

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use actix_web::rt::spawn;
use futures_util::future::join_all;
use tokio::sync::{Notify, oneshot};
use tokio::time::sleep;
use tracing::debug;

use super::error::{Failure, ProxyError, Unsent};
use super::exchange::{Exchange, Link, Outcome};
use super::message::CONTINUE;
use super::own::answer::read_whole;
use super::rules::{Route, Rules};
use super::session::flush;
use super::{Common, Worker};
use crate::config::FanConfig;
use crate::http1::Framing;
use crate::metrics::Code;
use crate::routing::key::Key;
use crate::routing::policy::Pick;
use crate::routing::table::{InFlight, Replica};
pub(super) use letter::{Held, Letter, Sent};

/// How often one that pauses looks whether its replica and its client are there still.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Requests under way that no connection of a client may be waiting for.
#[derive(Debug, Default)]
pub struct Background {
    under_way: AtomicUsize,
    ended: Notify,
}

/// One of them, until dropped.
struct UnderWay(Arc<Common>);

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

/// What came of one replica.
enum Delivered {
    /// It succeeded.
    Well(Box<Held>),
    /// It does not belong to the fleet any more, so nothing is wanted of it.
    Left,
    /// It was asked as often as it may be, or the client has gone.
    Failed(Unsent),
}

/// Sends a request to every ready replica. Answers, when all have succeeded, what its first owner
/// said.
pub(super) async fn all(mut exchange: Exchange<'_>, fan: &FanConfig) -> Outcome {
    let work = match prepare(&mut exchange, fan).await {
        Ok(work) => work,
        Err(outcome) => return outcome,
    };
    let replicas = work.replicas(None, exchange.route.turn());
    if replicas.is_empty() {
        return Outcome::Fail(ProxyError::NoReplica);
    }
    let (tell, told) = oneshot::channel();
    spawn(async move { work.send_to_all(replicas, tell).await });
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
    let under_way = UnderWay::begin(&exchange.worker.common);
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

    async fn send_to_all(self, replicas: Vec<Arc<Replica>>, tell: Tell<Box<Held>>) {
        // The answer of the first owner that has succeeded so far: no other is kept.
        let best: RefCell<Option<(usize, Box<Held>)>> = RefCell::default();
        let deliver = async |place, replica| match self.deliver(replica, &tell).await {
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
        let deliveries = (0..).zip(&replicas).map(|(place, replica)| deliver(place, replica));
        let failed: Vec<Unsent> = join_all(deliveries).await.into_iter().flatten().collect();
        let outcome = match best.take() {
            _ if !failed.is_empty() => Err(ProxyError::Unsent(failed)),
            Some((_, held)) => Ok(held),
            None => Err(ProxyError::NoReplica),
        };
        // Nobody waits for it whose client has gone.
        let _told = tell.send(outcome).is_ok();
    }

    /// Sends to one replica until it succeeds, or may not be asked again.
    async fn deliver(&self, replica: &Arc<Replica>, tell: &Tell<Box<Held>>) -> Delivered {
        let mut attempts = 0;
        loop {
            let Some(in_flight) = replica.enter() else { return Delivered::Left };
            let outcome = self.ask(replica).await;
            attempts += 1;
            let error = match outcome {
                Ok(sent) => {
                    let status = sent.answer.status;
                    let held = sent.hold(self, replica, self.fan.body).await;
                    match held {
                        Ok(held) if self.fan.is_success(status) => {
                            self.route.metrics.fan_attempt(replica, true);
                            return Delivered::Well(Box::new(held));
                        }
                        Ok(_) => format!("answered {status}"),
                        Err(error) => error.to_string(),
                    }
                }
                Err(failure) => crate::telemetry::chain(&failure),
            };
            drop(in_flight);
            self.route.metrics.fan_attempt(replica, false);
            let hostname = replica.hostname();
            debug!(%hostname, attempts, error, "replica did not succeed");
            if attempts >= self.fan.attempts
                || !self.pause(attempts, Some(replica), || tell.is_closed()).await
            {
                if has_left(replica) {
                    return Delivered::Left;
                }
                let replica = hostname.to_string();
                return Delivered::Failed(Unsent { replica, attempts, error });
            }
        }
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

    /// Waits until what failed so often may be sent again: whether it is wanted still, by the
    /// client where that counts, and of the replica where it is one.
    async fn pause(
        &self,
        failures: u32,
        replica: Option<&Replica>,
        gone: impl Fn() -> bool,
    ) -> bool {
        let pause = self.fan.repeat.pause(failures - 1, &mut *self.worker.rng.borrow_mut());
        let until = Instant::now() + pause;
        loop {
            let unwanted = self.fan.abandon && gone() || replica.is_some_and(has_left);
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || unwanted {
                return !unwanted;
            }
            sleep(left.min(LOOK_AGAIN)).await;
        }
    }
}

/// Whether a replica does not belong to the fleet any more.
fn has_left(replica: &Replica) -> bool {
    replica.is_closed() || replica.is_dead()
}

// === impl Background ===

impl Background {
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
    fn begin(common: &Arc<Common>) -> Self {
        common.background.under_way.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(common))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let Self(common) = self;
        if common.background.under_way.fetch_sub(1, Ordering::SeqCst) == 1 {
            common.background.ended.notify_waiters();
        }
    }
}
