//! One request: key → choose → send → relay, and what is done when a step fails.

mod relay;
mod upload;
mod watch;

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use smallvec::SmallVec;
use tracing::debug;

use super::Worker;
use super::error::{Failure, ProxyError};
use super::message::Asked;
use super::timer::Timer;
use super::wire::{Wire, Writer};
use crate::http1::Framing;
use crate::http1::answer::{Answer, StatusLine};
use crate::http1::body::Body;
use crate::http1::chunked::Next;
use crate::http1::head::Head;
use crate::routing::key::Key;
use crate::routing::table::{Replica, ReplicaId, Table};
pub use upload::Replay;
use watch::Watch;

/// A request on its way, with all that its connection lends it.
pub struct Exchange<'a> {
    /// What the thread has.
    pub worker: &'a Worker,
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
    /// What is known of the client.
    pub client_state: ClientState,
    /// When its head was whole.
    pub began: Instant,
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
struct Link {
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
    /// Sends the request to its owner, or where that fails and may be, to the next; relays the
    /// answer.
    pub async fn run(mut self) -> Outcome {
        let worker = self.worker;
        let key = Key::of(&worker.view(&self.asked), &worker.key, self.asked.id);
        let mut table = worker.shared.table();
        worker.deposit();
        let mut tried: SmallVec<[ReplicaId; 4]> = SmallVec::new();
        loop {
            let Some(replica) = worker.choose(&table, &key, &tried) else {
                return Outcome::Fail(ProxyError::NoReplica);
            };
            tried.push(replica.id());
            let Some(in_flight) = replica.enter() else {
                // It left just now: the table of now says who has the key.
                table = worker.shared.table();
                continue;
            };
            let failure = match self.ask(replica).await {
                Ok((link, head)) => {
                    worker.note(replica, self.answer.status < 500);
                    return self.relay(link, head, replica, in_flight).await;
                }
                Err(failure) => failure,
            };
            if failure.blames_the_replica() {
                worker.note(replica, false);
            }
            let hostname = replica.hostname();
            debug!(%hostname, error = ?failure, tries = tried.len(), "replica failed");
            if !self.may_go_on(&failure, replica, tried.len(), &table) {
                let Some(error) = failure.into_error() else { return gone() };
                return Outcome::Fail(error);
            }
        }
    }

    /// Whether another replica may be asked. Where this one has gone for good, that costs nothing
    /// of the budget: it does not have the request any more, so that nothing is multiplied.
    fn may_go_on(&self, failure: &Failure, replica: &Replica, tries: usize, table: &Table) -> bool {
        let retry = &self.worker.retry;
        tries < retry.attempts.min(table.ready_count())
            && self.may_repeat(failure)
            && self.began.elapsed() < retry.deadline
            && (replica.is_dead() || self.worker.withdraw_retry())
    }

    /// Whether the request may be sent once more after this failure (RFC 9110 9.2.2).
    fn may_repeat(&self, failure: &Failure) -> bool {
        let safe = failure.left_nothing() || self.asked.request.is_idempotent(self.asked.head);
        safe && failure.may_retry() && self.replay.is_whole()
    }

    /// Sends the request to one replica. Gives the connection and the length of the answer's
    /// head, once that is there.
    async fn ask(&mut self, replica: &Arc<Replica>) -> Result<(Link, usize), Failure> {
        let upstream = &self.worker.upstream;
        let idempotent = self.asked.request.is_idempotent(self.asked.head);
        let kept = poll_fn(|cx| Poll::Ready(upstream.reuse(replica, !idempotent, cx))).await;
        if let Some(wire) = kept {
            match self.ask_over(wire, replica).await {
                // The replica closed it while it was idle: that is no failure of its.
                Err(failure) if self.may_repeat(&failure) => {
                    debug!(error = ?failure, "idle connection was closed");
                }
                outcome => return outcome,
            }
        }
        let wire = upstream.connect(replica).await.map_err(|error| {
            let failure = Failure::Connect(error);
            if failure.blames_the_replica() && replica.was_unreachable() {
                self.worker.shared.alarm();
            }
            failure
        })?;
        self.ask_over(wire, replica).await
    }

    async fn ask_over(
        &mut self,
        mut wire: Box<Wire>,
        replica: &Replica,
    ) -> Result<(Link, usize), Failure> {
        wire.begin();
        self.asked.put_request(wire.output(), self.worker.via.as_deref(), replica.address());
        self.answer_head.clear();
        let mut link = Link::new(wire, self.asked.request.framing);
        let mut watch = Watch::default();
        let head = poll_fn(|cx| self.poll_ask(cx, &mut link, &mut watch, replica)).await?;
        Ok((link, head))
    }
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

    /// The replica takes no more. What it says about that is still read, unless it has nothing.
    fn refuse(&mut self, error: io::Error) -> Result<(), Failure> {
        self.refused = true;
        if self.wire.sent() == 0 { Err(Failure::NotSent(error)) } else { Ok(()) }
    }
}
