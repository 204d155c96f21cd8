//! A whole request, sent to one replica or another, and the answer that came.

use std::borrow::Cow;
use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use actix_web::web::Bytes;
use thiserror::Error;
use tracing::debug;

use super::super::Worker;
use super::super::error::{Broken, Failure};
use super::super::exchange::Losses;
use super::super::exchange::upload::poll_answer;
use super::super::exchange::watch::{Waits, Watch};
use super::super::message::Asked;
use super::super::peer::Peer;
use super::super::rules::Rules;
use super::super::timer::Timer;
use super::super::wire::{Wire, Writer};
use super::Work;
use crate::config::Timeouts;
use crate::http1::Framing;
use crate::http1::answer::{Answer, StatusLine};
use crate::http1::body::Body;
use crate::http1::chunked::Next;
use crate::http1::field::Kind;
use crate::http1::head::{Head, Line};
use crate::http1::request::Request;
use crate::routing::key::RequestId;
use crate::routing::table::Replica;

/// A request with nothing missing, of which nothing is lent.
pub(in super::super) struct Letter {
    request: Request,
    head: Vec<u8>,
    lines: Vec<Line>,
    peer: Peer,
    id: RequestId,
    body: Bytes,
    /// Replicas whose connection broke after some of the request was sent.
    lost: Cell<Losses>,
}

/// An answer whose head is there.
pub(in super::super) struct Sent {
    pub(in super::super) wire: Box<Wire>,
    pub(in super::super) head: Head<StatusLine>,
    pub(in super::super) answer: Answer,
    /// The head's length; it is the first of the wire's input.
    pub(in super::super) length: usize,
}

/// A whole answer.
pub(in super::super) struct Held {
    /// Whose.
    pub(in super::super) replica: Arc<Replica>,
    pub(in super::super) head: Head<StatusLine>,
    pub(in super::super) answer: Answer,
    /// The head's bytes.
    pub(in super::super) bytes: Vec<u8>,
    pub(in super::super) body: Vec<u8>,
}

/// Why an answer is not held whole.
#[derive(Debug, Error)]
pub(in super::super) enum Unheld {
    #[error("its {0}")]
    Broken(#[from] Broken),
    #[error("its answer is larger than {0} bytes")]
    TooLarge(usize),
}

/// How far a letter has come.
struct Sending<'a> {
    letter: &'a Letter,
    given: usize,
    flushed: bool,
    /// The replica takes no more; it may have answered already.
    refused: bool,
}

// === impl Letter ===

impl Letter {
    /// A request whose body is `body`, and that is sent as it is to all.
    pub(in super::super) fn new(asked: &Asked<'_>, body: Bytes) -> Self {
        let framing = match asked.request.framing {
            Framing::None => Framing::None,
            Framing::Length(_) | Framing::Chunked | Framing::UntilClose => {
                Framing::Length(body.len() as u64)
            }
        };
        // The body is here, the connection stays as it is, and nobody passes trailers on.
        let request = Request {
            framing,
            expects: false,
            upgrade: None,
            takes_trailers: false,
            ..asked.request.clone()
        };
        let stays = |line: &&Line| line.kind != Kind::Expect;
        Self {
            request,
            head: asked.head.to_vec(),
            lines: asked.lines.iter().filter(stays).copied().collect(),
            peer: asked.peer.clone(),
            id: asked.id.clone(),
            body,
            lost: Cell::default(),
        }
    }

    fn asked(&self) -> Asked<'_> {
        let Self { request, head, lines, peer, id, .. } = self;
        Asked { request, head, lines, peer, id }
    }

    /// Returns the replicas whose connection broke.
    pub(in super::super) fn lost(&self) -> Losses {
        self.lost.get()
    }

    /// Returns its method and path for a log line: no query, which may be secret.
    pub(super) fn method_and_path(&self) -> (Cow<'_, str>, Cow<'_, str>) {
        let target = self.request.target(&self.head).1;
        let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
        let method = String::from_utf8_lossy(self.request.method.of(&self.head));
        (method, String::from_utf8_lossy(path))
    }

    /// Sends it to one replica: until the head of the answer is there.
    ///
    /// # Errors
    /// [`Failure`]: as for any request, but the client is never to blame. [`Failure::Quarantined`]
    /// when it has killed replicas: then it is not sent.
    pub(in super::super) async fn send(
        &self,
        worker: &Worker,
        rules: &Rules,
        timeouts: &Timeouts,
        replica: &Arc<Replica>,
    ) -> Result<Sent, Failure> {
        if worker.is_quarantined(&self.asked(), true) {
            return Err(Failure::Quarantined);
        }
        let idempotent = self.request.is_idempotent(&self.head);
        let upstream = &worker.upstream;
        let surely = !idempotent || !self.lost().is_empty();
        // What authenticates a connection begins on a new one.
        let kept = match self.request.auth.binds {
            true => None,
            false => poll_fn(|cx| Poll::Ready(upstream.reuse(replica, surely, cx))).await,
        };
        if let Some(wire) = kept {
            let may_repeat = |failure: &Failure| {
                let again = idempotent && failure.may_retry() && self.lost().may_go_on();
                failure.left_nothing() || again
            };
            match self.send_noted(wire, worker, rules, timeouts, replica).await {
                // The replica closed it while it was idle: that is no failure of its.
                Err(failure) if may_repeat(&failure) => {
                    debug!(error = ?failure, "idle connection was closed");
                }
                outcome => return outcome,
            }
        }
        let wire = worker.connect(replica).await?;
        self.send_noted(wire, worker, rules, timeouts, replica).await
    }

    /// Sends it over a connection, and notes when that is lost.
    async fn send_noted(
        &self,
        wire: Box<Wire>,
        worker: &Worker,
        rules: &Rules,
        timeouts: &Timeouts,
        replica: &Arc<Replica>,
    ) -> Result<Sent, Failure> {
        let sent_at = Instant::now();
        let sent = self.send_over(wire, rules, timeouts, replica).await;
        if let Err(failure) = &sent
            && failure.is_loss()
            && !replica.is_given_up()
        {
            let mut lost = self.lost();
            lost.note(replica.id());
            self.lost.set(lost);
            worker.loses(&self.asked(), replica, sent_at);
        }
        sent
    }

    async fn send_over(
        &self,
        mut wire: Box<Wire>,
        rules: &Rules,
        timeouts: &Timeouts,
        replica: &Replica,
    ) -> Result<Sent, Failure> {
        wire.begin();
        self.asked().put_request(wire.output(), &rules.forwarded, replica.address());
        let mut sent = Sent { wire, head: Head::new(), answer: Answer::new(), length: 0 };
        let mut sending = Sending { letter: self, given: 0, flushed: false, refused: false };
        let (mut watch, mut timer) = (Watch::default(), Timer::new(timeouts.replica_body));
        sent.length = poll_fn(|cx| {
            sending.poll_give(cx, &mut sent.wire, &mut watch)?;
            if let Poll::Ready(length) = self.poll_head(cx, &mut sent, rules)? {
                return Poll::Ready(Ok(length));
            }
            match ready!(watch.poll(cx, &mut timer, timeouts, || replica.is_dead())) {
                Waits::Answer if replica.is_dead() => {
                    Poll::Ready(Err(Failure::Lost(io::Error::other("the replica is gone"))))
                }
                Waits::ClientSends
                | Waits::ClientTakes
                | Waits::ReplicaTakes
                | Waits::Answer
                | Waits::ReplicaSends => Poll::Ready(Err(Failure::Late)),
            }
        })
        .await?;
        // One that answers before it has the whole request would take what is left for the next.
        sent.answer.keeps &= sending.flushed;
        Ok(sent)
    }

    /// Until the head of the final answer is there; those before it are passed over.
    fn poll_head(
        &self,
        cx: &mut Context<'_>,
        sent: &mut Sent,
        rules: &Rules,
    ) -> Poll<Result<usize, Failure>> {
        let to_head = self.request.method.of(&self.head) == b"HEAD";
        loop {
            let Sent { wire, head, answer, .. } = sent;
            let length =
                ready!(poll_answer(cx, wire, head, answer, &rules.response_limits, to_head))?;
            if answer.status == 101 {
                return Poll::Ready(Err(Failure::Unasked));
            }
            if !answer.is_interim() {
                return Poll::Ready(Ok(length));
            }
            wire.consume(length);
            head.clear();
        }
    }
}

// === impl Sending ===

impl Sending<'_> {
    /// Writes what the replica takes now.
    fn poll_give(
        &mut self,
        cx: &mut Context<'_>,
        wire: &mut Wire,
        watch: &mut Watch,
    ) -> Result<(), Failure> {
        while !self.refused && !self.flushed {
            watch.waits = Some(Waits::ReplicaTakes);
            let rest = &self.letter.body[self.given..];
            let step = if rest.is_empty() {
                wire.poll_flush(cx).map_ok(|()| 0)
            } else {
                wire.poll_content(cx, &mut Writer::Plain, rest)
            };
            match step {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(given)) => {
                    (self.flushed, watch.moved) = (rest.is_empty(), true);
                    self.given += given;
                }
                Poll::Ready(Err(error)) if wire.sent() == 0 => return Err(Failure::NotSent(error)),
                // What it says about that is still read.
                Poll::Ready(Err(_refused)) => self.refused = true,
            }
        }
        watch.waits = Some(Waits::Answer);
        Ok(())
    }
}

// === impl Sent ===

impl Sent {
    /// The whole answer, if it is not too large.
    pub(super) async fn hold(
        mut self,
        work: &Work,
        replica: &Arc<Replica>,
        most: usize,
    ) -> Result<Held, Unheld> {
        let bytes = self.wire.input()[..self.length].to_vec();
        let body = self.read_body(&work.route.config.timeouts, Some(most)).await?;
        let Self { wire, head, answer, .. } = self;
        work.worker.survives(&work.letter.asked());
        keep(wire, &answer, work, replica);
        Ok(Held { replica: Arc::clone(replica), head, answer, bytes, body })
    }

    /// Reads the rest of an answer that nobody wants.
    pub(super) async fn finish(mut self, work: &Work, replica: &Arc<Replica>) {
        match self.read_body(&work.route.config.timeouts, None).await {
            Ok(_) => {
                work.worker.survives(&work.letter.asked());
                keep(self.wire, &self.answer, work, replica);
            }
            Err(error) => debug!(%error, "answer broke off"),
        }
    }

    /// Reads the body, and gives it where there is a bound for it.
    async fn read_body(
        &mut self,
        timeouts: &Timeouts,
        most: Option<usize>,
    ) -> Result<Vec<u8>, Unheld> {
        self.wire.consume(self.length);
        let (mut body, mut held) = (Body::new(self.answer.framing), Vec::new());
        let mut timer = Timer::new(timeouts.replica_body);
        loop {
            match body.next(self.wire.input()).map_err(Broken::Chunk)? {
                Next::Content { skip, length } => {
                    self.wire.consume(skip);
                    if let Some(most) = most {
                        if held.len() + length > most {
                            return Err(Unheld::TooLarge(most));
                        }
                        held.extend_from_slice(&self.wire.input()[..length]);
                    }
                    self.wire.consume(length);
                    body.taken(length);
                }
                Next::End { skip } => {
                    self.wire.consume(skip);
                    return Ok(held);
                }
                Next::More => {
                    self.wire.consume(self.wire.input().len());
                    timer.set(timeouts.replica_body);
                    let more = poll_fn(|cx| match self.wire.poll_fill(cx) {
                        Poll::Ready(more) => Poll::Ready(Some(more)),
                        Poll::Pending => timer.poll(cx).map(|()| None),
                    });
                    match more.await {
                        Some(Ok(0)) if body.ends_here() => {}
                        Some(Ok(0)) => return Err(Broken::Cut(None).into()),
                        Some(Ok(_)) => {}
                        Some(Err(error)) => return Err(Broken::Cut(Some(error)).into()),
                        None => return Err(Broken::Late.into()),
                    }
                }
            }
        }
    }
}

/// Keeps a connection on which nothing is left of the request and its answer. One that may be
/// authenticated ends: it belongs to no client, and no other client may use it.
fn keep(wire: Box<Wire>, answer: &Answer, work: &Work, replica: &Arc<Replica>) {
    let is_bound = answer.auth.binds || work.letter.request.auth.binds;
    if !is_bound && answer.keeps && answer.framing != Framing::UntilClose && wire.input().is_empty()
    {
        work.worker.upstream.keep(replica, wire, Instant::now());
    }
}
