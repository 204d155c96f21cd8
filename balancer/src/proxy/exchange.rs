//! One request: key → choose → send → relay, and what is done when a step fails.

mod relay;
pub(super) mod upload;
pub(super) mod watch;

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use rand::RngExt as _;
use smallvec::SmallVec;
use tracing::debug;

use super::admission::{InLine, Shut};
use super::binding::{Binding, Bound};
use super::error::{Failure, ProxyError};
use super::message::Asked;
use super::rules::{Route, Rules};
use super::timer::Timer;
use super::trace::Trace;
use super::wire::{Wire, Writer};
use super::{View, Worker, fan, hedge};
use crate::config::Send;
use crate::http1::Framing;
use crate::http1::answer::{Answer, StatusLine};
use crate::http1::body::Body;
use crate::http1::chunked::Next;
use crate::http1::head::Head;
use crate::metrics::Code;
use crate::routing::key::{Key, KeySource, cookie};
use crate::routing::policy::Pick;
use crate::routing::table::{InFlight, NoEntry, Replica, ReplicaId, Table};
pub use upload::Replay;
use watch::Watch;

/// A request on its way, with all that its connection lends it.
pub struct Exchange<'a> {
    /// What the thread has.
    pub worker: &'a Rc<Worker>,
    /// What is done with requests.
    pub rules: &'a Rc<Rules>,
    /// What is done with this one.
    pub route: &'a Rc<Route>,
    /// The client's connection, at the request's body.
    pub client: &'a mut Wire,
    /// The connection's timer.
    pub timer: &'a mut Timer,
    /// The request.
    pub asked: Asked<'a>,
    /// What has not come of its body.
    pub body: &'a mut Body,
    /// Where the head of the answer is read into.
    pub answer_head: &'a mut Head<StatusLine>,
    /// What that means.
    pub answer: &'a mut Answer,
    /// What is kept of the request's body.
    pub replay: Replay,
    /// What is told of it, if anything.
    pub trace: Option<&'a mut Trace>,
    /// The cookie that the client gets, if any.
    pub issued: Option<String>,
    /// What is known of the client.
    pub client_state: ClientState,
    /// When its head was whole.
    pub began: Instant,
    /// What the client's connection is bound to.
    pub binding: &'a mut Binding,
    /// What has become of its attempts.
    pub attempts: Attempts,
}

/// What has become of a request's attempts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attempts {
    /// Replicas whose connection broke after some of the request was sent.
    lost: Losses,
    /// When the last one began; the first one begins with the exchange.
    last_began: Option<Instant>,
}

/// The replicas at which a request lost its connection. The request may be what kills replicas.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Losses {
    count: usize,
    last: Option<ReplicaId>,
}

/// What is known of a client while its request is under way.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClientState {
    /// It was told to go ahead with its body.
    continued: bool,
    /// It has closed its sending side, which is not taken for its going away.
    ended: bool,
}

/// What becomes of the client's connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It takes the next request.
    Keep,
    /// It ends; all that the client sent was read.
    Close,
    /// It ends, once the client has taken what was written; it may be sending still.
    Linger,
    /// It ends at once, in the middle of an answer: the client sees that.
    Abort,
    /// Nothing was answered: the client is told why.
    Fail(ProxyError),
}

/// A request at one replica.
pub(super) struct Link {
    wire: Box<Wire>,
    writer: Writer,
    /// How much of the body it was given.
    given: u64,
    /// All was given; it may still have to be written.
    ended: bool,
    /// All was written.
    flushed: bool,
    /// The replica takes no more; it may have answered already.
    refused: bool,
}

// === impl Exchange ===

impl Exchange<'_> {
    /// Sends the request where its route says, and relays the answer.
    pub async fn run(mut self) -> Outcome {
        if self.worker.is_quarantined(&self.asked, false) {
            return Outcome::Fail(ProxyError::Quarantined);
        }
        if self.binding.is_idle() && !matches!(self.route.config.send, Send::All(..)) {
            return Box::pin(self.run_bound()).await;
        }
        if self.worker.admission().is_some() && !matches!(self.route.config.send, Send::One(_)) {
            // To each of several it goes whatever is in flight there.
            if let Err(outcome) = Box::pin(self.wait_for_all()).await {
                return outcome;
            }
        }
        match (&self.route.config.send, &self.route.hedging) {
            (Send::One(_), Some(hedging)) if self.may_be_hedged() => {
                Box::pin(hedge::run(self, hedging)).await
            }
            (Send::One(_), _) => self.run_one().await,
            // Rare: not every connection keeps room for it.
            (Send::All(fan, among), _) => Box::pin(fan::all(self, fan, *among)).await,
            // Credentials for one connection mean nothing on others.
            (Send::First(..), _) if self.asked.request.auth.binds => self.run_one().await,
            (Send::First(fan, among), _) => Box::pin(fan::first(self, fan, *among)).await,
        }
    }

    /// Sends the request to its owner, or where that fails and may be, to the next; relays the
    /// answer.
    async fn run_one(mut self) -> Outcome {
        let worker = self.worker;
        let key = self.key();
        let pick = Pick { key: &key, turn: self.route.turn() };
        let mut table = worker.shared.table();
        self.rules.deposit();
        let mut tried: SmallVec<[ReplicaId; 4]> = SmallVec::new();
        let mut failed: Option<ProxyError> = None;
        let (mut place, mut joins) = (InLine::default(), self.finds_a_line());
        loop {
            let entered = match std::mem::take(&mut joins) {
                true => Err(Shut::Full),
                false => self.enter(&table, pick, &mut tried),
            };
            let (replica, in_flight) = match entered {
                Ok(entered) => entered,
                Err(Shut::Nobody) => {
                    return Outcome::Fail(failed.unwrap_or(ProxyError::NoReplica));
                }
                Err(Shut::Left) => {
                    table = worker.shared.table();
                    continue;
                }
                // One that has failed does not wait for others.
                Err(Shut::Full) if failed.is_some() => {
                    return Outcome::Fail(ProxyError::Overloaded);
                }
                Err(Shut::Full) => match Box::pin(self.wait_for_room(&mut place)).await {
                    Ok(()) => {
                        table = worker.shared.table();
                        continue;
                    }
                    Err(outcome) => return outcome,
                },
            };
            place = InLine::default();
            if failed.is_some() {
                self.route.metrics.retry();
            }
            self.trace(|trace| trace.asked(replica, tried.len()));
            let asked_at = worker.learns().then(Instant::now);
            let failure = match self.ask(replica).await {
                Ok((link, head)) => {
                    self.note_answer(replica, asked_at);
                    return self.relay(link, head, replica, in_flight).await;
                }
                Err(failure) => failure,
            };
            self.note_failure(replica, &failure, tried.len());
            let goes_on = self.may_go_on(&failure, replica, &tried, &table);
            let Some(error) = told(failure, replica, &table, failed.as_ref()) else {
                return gone();
            };
            if !goes_on {
                return Outcome::Fail(error);
            }
            if worker.is_quarantined(&self.asked, true) {
                return Outcome::Fail(ProxyError::Quarantined);
            }
            self.attempts.last_began = Some(Instant::now());
            failed = Some(error);
        }
    }

    /// Sends the request over the connection that the client's connection is bound to. It is not
    /// sent anywhere else: another connection is not authenticated. When it fails, both connections
    /// end.
    async fn run_bound(mut self) -> Outcome {
        let worker = self.worker;
        let Some(replica) = self.binding.replica() else { return self.run_one().await };
        self.rules.deposit();
        // The key is not used, but the client may get a cookie.
        self.key();
        let mut place = InLine::default();
        let in_flight = loop {
            match worker.enter_at(&self.route.config, &replica) {
                Ok(in_flight) => break in_flight,
                Err(NoEntry::Full) => {
                    if let Err(outcome) = self.wait_for_room(&mut place).await {
                        return outcome;
                    }
                }
                Err(NoEntry::Closed) => {
                    drop(self.binding.take());
                    return Outcome::Fail(ProxyError::Unreachable);
                }
            }
        };
        let Some(bound) = self.binding.take() else { return self.run_one().await };
        let Bound { replica, wire } = *bound;
        self.trace(|trace| trace.asked(&replica, 1));
        let asked_at = worker.learns().then(Instant::now);
        match self.ask_over(wire, &replica).await {
            Ok((link, head)) => {
                self.note_answer(&replica, asked_at);
                self.relay(link, head, &replica, in_flight).await
            }
            Err(failure) => {
                self.note_failure(&replica, &failure, 1);
                failure.into_error().map_or_else(gone, Outcome::Fail)
            }
        }
    }

    /// Notes that the head of an answer has come.
    fn note_answer(&mut self, replica: &Arc<Replica>, asked_at: Option<Instant>) {
        self.trace(Trace::answered);
        if let Some(asked_at) = asked_at {
            self.worker.learn(replica, asked_at.elapsed());
        }
        self.worker.note_status(replica, self.answer.status);
        self.route.metrics.attempt(replica, Code::of(self.answer.status));
    }

    /// Notes that an attempt, the `tries`-th, gave no answer.
    fn note_failure(&self, replica: &Arc<Replica>, failure: &Failure, tries: usize) {
        if failure.blames_the_replica() {
            self.worker.note(replica, false);
        }
        if matches!(failure, Failure::Late) {
            self.worker.learn(replica, Duration::MAX);
        }
        self.route.metrics.attempt(replica, failure.code());
        debug!(hostname = %replica.hostname(), error = ?failure, tries, "replica failed");
    }

    /// Enters the next replica: a ready one, or as a last resort one that runs but is ejected or
    /// fails its health checks.
    pub(super) fn enter<'t>(
        &self,
        table: &'t Table,
        pick: Pick<'_>,
        tried: &mut SmallVec<[ReplicaId; 4]>,
    ) -> Result<(&'t Arc<Replica>, InFlight), Shut> {
        match self.worker.enter(&self.route.config, table, pick, tried) {
            Err(Shut::Nobody) => {
                self.worker.enter_last_resort(self.route, table, pick, tried).ok_or(Shut::Nobody)
            }
            entered => entered,
        }
    }

    /// Notes something for the access log, where there is one.
    pub(super) fn trace(&mut self, note: impl FnOnce(&mut Trace)) {
        if let Some(trace) = &mut self.trace {
            note(trace);
        }
    }

    /// What the request is placed by. One without the cookie that it would be placed by gets one,
    /// where the route issues them.
    pub(super) fn key(&mut self) -> Key {
        let key = self.find_key();
        self.trace(|trace| trace.placed(&key));
        key
    }

    fn find_key(&mut self) -> Key {
        let view = View { asked: &self.asked, trust: &self.rules.forwarded.trust };
        let source = &self.route.config.key;
        let KeySource::Cookie(name) = source else {
            return Key::of(&view, source, self.asked.id);
        };
        if !self.route.config.issue || cookie(&view, name).is_some() {
            return Key::of(&view, source, self.asked.id);
        }
        let value = format!("{:032x}", self.worker.rng.borrow_mut().random::<u128>());
        let secure = if self.asked.peer.scheme == "https" { "; Secure" } else { "" };
        let key = Key::from(value.as_bytes());
        self.issued = Some(format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax{secure}"));
        key
    }

    /// Reports whether another replica may be asked. Two cases draw nothing from the retry budget,
    /// because they do not multiply the load: the replica is dead, or it has nothing of the request
    /// and only replicas are left that get no requests otherwise.
    pub(super) fn may_go_on(
        &self,
        failure: &Failure,
        replica: &Replica,
        tried: &[ReplicaId],
        table: &Table,
    ) -> bool {
        let retry = &self.route.config.retry;
        let is_new = |other: &Arc<Replica>| !tried.contains(&other.id());
        let is_last_resort = !table.all_ready().any(is_new);
        tried.len() < retry.attempts
            && (!is_last_resort || table.all_standby().any(is_new))
            && self.may_repeat(failure)
            && self.began.elapsed() < retry.deadline
            && (replica.is_dead()
                || (is_last_resort && failure.left_nothing())
                || self.rules.withdraw_retry(self.worker.now()))
    }

    /// Reports whether the request may be sent once more after this failure (RFC 9110 9.2.2). After a
    /// connection broke it is sent to one more replica at most: it may be what kills replicas. What
    /// authenticates a connection is not sent over another one.
    fn may_repeat(&self, failure: &Failure) -> bool {
        let request = self.asked.request;
        let safe = failure.left_nothing()
            || (request.is_idempotent(self.asked.head)
                && !request.auth.binds
                && self.attempts.lost.may_go_on());
        safe && failure.may_retry() && self.replay.is_whole()
    }

    /// Sends the request to one replica. Gives the connection and the length of the answer's
    /// head, once that is there.
    async fn ask(&mut self, replica: &Arc<Replica>) -> Result<(Link, usize), Failure> {
        let upstream = &self.worker.upstream;
        let request = self.asked.request;
        // A request that has lost a connection is not sent over one that may have ended, either.
        let surely = !self.attempts.lost.is_empty() || !request.is_idempotent(self.asked.head);
        // What authenticates a connection begins on a new one.
        let kept = match request.auth.binds {
            true => None,
            false => poll_fn(|cx| Poll::Ready(upstream.reuse(replica, surely, cx))).await,
        };
        if let Some(wire) = kept {
            match self.ask_over(wire, replica).await {
                // The replica closed it while it was idle: that is no failure of its.
                Err(failure) if self.may_repeat(&failure) => {
                    debug!(error = ?failure, "idle connection was closed");
                    self.attempts.last_began = Some(Instant::now());
                }
                outcome => return outcome,
            }
        }
        let wire = self.worker.connect(replica).await?;
        self.ask_over(wire, replica).await
    }

    async fn ask_over(
        &mut self,
        mut wire: Box<Wire>,
        replica: &Arc<Replica>,
    ) -> Result<(Link, usize), Failure> {
        wire.begin();
        self.asked.put_request(wire.output(), &self.rules.forwarded, replica.address());
        self.answer_head.clear();
        let mut link = Link::new(wire, self.asked.request.framing);
        let mut watch = Watch::default();
        match poll_fn(|cx| self.poll_ask(cx, &mut link, &mut watch, replica)).await {
            Ok(head) => Ok((link, head)),
            Err(failure) => {
                if failure.is_loss() && !replica.is_given_up() {
                    self.attempts.lost.note(replica.id());
                    self.note_loss(replica);
                }
                Err(failure)
            }
        }
    }

    /// Notes that the last attempt lost its connection before its answer was whole.
    fn note_loss(&self, replica: &Arc<Replica>) {
        let sent_at = self.attempts.last_began.unwrap_or(self.began);
        self.worker.loses(&self.asked, replica, sent_at);
    }

    /// Notes the losses of attempts that were made elsewhere.
    pub(super) fn note_lost(&mut self, lost: Losses) {
        self.attempts.lost = lost;
    }
}

// === impl Losses ===

impl Losses {
    /// Notes a loss. A second one at the same replica is the same: after a loss on an idle connection
    /// the request is sent to the replica anew, and the socket of a process that is ending still
    /// accepts.
    pub(super) fn note(&mut self, replica: ReplicaId) {
        if self.last != Some(replica) {
            self.last = Some(replica);
            self.count += 1;
        }
    }

    /// Reports whether there was none.
    pub(super) fn is_empty(self) -> bool {
        self.count == 0
    }

    /// Reports whether the request may be sent once more.
    pub(super) fn may_go_on(self) -> bool {
        self.count < 2
    }
}

/// Returns what the client is told after this failure, and those `before`: that no replica is ready,
/// where only replicas were tried that are not, and none could be connected to.
pub(super) fn told(
    failure: Failure,
    replica: &Replica,
    table: &Table,
    before: Option<&ProxyError>,
) -> Option<ProxyError> {
    let error = failure.into_error()?;
    let none_was_ready = error == ProxyError::Unreachable
        && before.is_none_or(|before| *before == ProxyError::NoReplica)
        && !table.all_ready().any(|ready| ready.id() == replica.id());
    Some(if none_was_ready { ProxyError::NoReplica } else { error })
}

/// The client has gone: nobody is to blame for what it did not get.
fn gone() -> Outcome {
    debug!(status = 499, "client has gone");
    Outcome::Abort
}

/// Passes over what has already come of a body: whether that is all of it.
pub fn discard(body: &mut Body, wire: &mut Wire) -> Result<bool, crate::http1::chunked::BadChunk> {
    loop {
        match body.next(wire.input())? {
            Next::Content { skip, length } => {
                wire.consume(skip + length);
                body.taken(length);
            }
            Next::End { skip } => {
                wire.consume(skip);
                return Ok(true);
            }
            Next::More => {
                wire.consume(wire.input().len());
                return Ok(false);
            }
        }
    }
}

// === impl Link ===

impl Link {
    fn new(wire: Box<Wire>, framing: Framing) -> Self {
        let writer = Writer::new(framing);
        Self { wire, writer, given: 0, ended: false, flushed: false, refused: false }
    }

    /// One that has the whole request.
    pub(super) fn asked(wire: Box<Wire>) -> Self {
        Self { ended: true, flushed: true, ..Self::new(wire, Framing::None) }
    }

    /// The replica takes no more. What it says about that is still read, unless it has nothing.
    fn refuse(&mut self, error: io::Error) -> Result<(), Failure> {
        self.refused = true;
        if self.wire.sent() == 0 { Err(Failure::NotSent(error)) } else { Ok(()) }
    }
}
