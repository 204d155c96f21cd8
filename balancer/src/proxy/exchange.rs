//! One request: key → choose → send → relay, and what is done when a step fails.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use smallvec::SmallVec;
use tracing::debug;

use super::Worker;
use super::error::{Broken, Failure, ProxyError};
use super::message::{Asked, Reply};
use super::timer::Timer;
use super::tunnel::tunnel;
use super::wire::{Wire, Writer};
use crate::http1::Framing;
use crate::http1::answer::{Answer, StatusLine};
use crate::http1::body::Body;
use crate::http1::chunked::Next;
use crate::http1::head::Head;
use crate::http1::request::are_offered;
use crate::routing::key::Key;
use crate::routing::table::{InFlight, Replica, ReplicaId, Table};

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

/// The first bytes of a request's body, kept so that they can be sent again.
#[derive(Debug, Default)]
pub struct Replay {
    bytes: Vec<u8>,
    /// How many came; beyond the limit not all are kept.
    came: u64,
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

/// An answer on its way to the client.
struct Download {
    body: Body,
    writer: Writer,
    ended: bool,
}

/// Whom a request or an answer waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waits {
    /// For the client to send its body.
    ClientSends,
    /// For the client to take its answer.
    ClientTakes,
    /// For the replica to take the request.
    ReplicaTakes,
    /// For the replica's answer to begin.
    Answer,
    /// For it to go on.
    ReplicaSends,
}

/// What is waited for; the time runs from when that began or last moved.
#[derive(Default)]
struct Watch {
    timed: Option<Waits>,
    waits: Option<Waits>,
    moved: bool,
}

// === impl Exchange ===

impl Exchange<'_> {
    /// Sends the request to its owner, or where that fails and may be, to the next; relays the
    /// answer.
    pub async fn run(mut self) -> Outcome {
        let worker = self.worker;
        let key = Key::of(&worker.view(&self.asked), &worker.key, self.asked.id);
        let table = worker.shared.table();
        worker.deposit();
        let mut tried: SmallVec<[ReplicaId; 4]> = SmallVec::new();
        loop {
            let Some(replica) = worker.choose(&table, &key, &tried) else {
                return Outcome::Fail(ProxyError::NoReplica);
            };
            tried.push(replica.id());
            let Some(in_flight) = replica.enter() else {
                continue;
            };
            let failure = match self.ask(replica).await {
                Ok((link, head)) => return self.relay(link, head, replica, in_flight).await,
                Err(failure) => failure,
            };
            let hostname = replica.hostname();
            debug!(%hostname, error = ?failure, tries = tried.len(), "replica failed");
            if !self.may_go_on(&failure, tried.len(), &table) {
                let Some(error) = failure.into_error() else { return gone() };
                return Outcome::Fail(error);
            }
        }
    }

    /// Whether another replica may be asked.
    fn may_go_on(&self, failure: &Failure, tries: usize, table: &Table) -> bool {
        let retry = &self.worker.retry;
        tries < retry.attempts.min(table.ready_count())
            && self.may_repeat(failure)
            && self.began.elapsed() < retry.deadline
            && self.worker.withdraw_retry()
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
        let wire = upstream.connect(replica).await.map_err(Failure::Connect)?;
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
        let head = poll_fn(|cx| self.poll_ask(cx, &mut link, &mut watch)).await?;
        Ok((link, head))
    }

    /// Until the head of the final answer is there: its length.
    fn poll_ask(
        &mut self,
        cx: &mut Context<'_>,
        link: &mut Link,
        watch: &mut Watch,
    ) -> Poll<Result<usize, Failure>> {
        let uploaded = self.poll_upload(cx, link, watch)?.is_ready();
        if let Poll::Ready(head) = self.poll_head(cx, link)? {
            return Poll::Ready(Ok(head));
        }
        // A go-ahead that the replica gave is passed on at once.
        if let Poll::Ready(Err(_)) = self.client.poll_flush(cx) {
            return Poll::Ready(Err(Failure::Gone));
        }
        if uploaded {
            watch.waits = Some(Waits::Answer);
            if self.poll_gone(cx).is_ready() {
                return Poll::Ready(Err(Failure::Gone));
            }
        }
        match ready!(watch.poll(cx, self.timer, self.worker)) {
            Waits::ClientSends => Poll::Ready(Err(Failure::ClientLate)),
            Waits::ClientTakes | Waits::ReplicaTakes | Waits::Answer | Waits::ReplicaSends => {
                Poll::Ready(Err(Failure::Late))
            }
        }
    }

    /// Until the replica has the whole request, or takes no more of it.
    fn poll_upload(
        &mut self,
        cx: &mut Context<'_>,
        link: &mut Link,
        watch: &mut Watch,
    ) -> Poll<Result<(), Failure>> {
        while !link.refused && !link.ended {
            if ready!(self.poll_give(cx, link, watch))? {
                watch.moved = true;
            }
        }
        if link.refused || link.flushed {
            return Poll::Ready(Ok(()));
        }
        watch.waits = Some(Waits::ReplicaTakes);
        match ready!(link.wire.poll_flush(cx)) {
            Ok(()) => link.flushed = true,
            Err(error) => link.refuse(error)?,
        }
        Poll::Ready(Ok(()))
    }

    /// One step of it: whether something of the body was given.
    fn poll_give(
        &mut self,
        cx: &mut Context<'_>,
        link: &mut Link,
        watch: &mut Watch,
    ) -> Poll<Result<bool, Failure>> {
        if let Some(again) = self.replay.after(link.given) {
            watch.waits = Some(Waits::ReplicaTakes);
            let given = match ready!(link.wire.poll_content(cx, &mut link.writer, again)) {
                Ok(given) => given,
                Err(error) => return Poll::Ready(link.refuse(error).map(|()| false)),
            };
            link.given += given as u64;
            return Poll::Ready(Ok(true));
        }
        match self.body.next(self.client.input()).map_err(Failure::ClientChunk)? {
            Next::Content { skip, length } => {
                self.client.consume(skip);
                self.check_size(length)?;
                let content = &self.client.input()[..length];
                watch.waits = Some(Waits::ReplicaTakes);
                let given = match ready!(link.wire.poll_content(cx, &mut link.writer, content)) {
                    Ok(given) => given,
                    Err(error) => return Poll::Ready(link.refuse(error).map(|()| false)),
                };
                self.replay.keep(&content[..given], self.worker.retry.body);
                self.client.consume(given);
                self.body.taken(given);
                link.given += given as u64;
                Poll::Ready(Ok(true))
            }
            Next::End { skip } => {
                self.client.consume(skip);
                if let Writer::Chunked { .. } = link.writer {
                    let out = link.wire.output();
                    out.extend_from_slice(b"0\r\n");
                    self.body.put_trailers(out).map_err(Failure::ClientTrailer)?;
                    out.extend_from_slice(b"\r\n");
                }
                link.ended = true;
                Poll::Ready(Ok(false))
            }
            Next::More => {
                self.client.consume(self.client.input().len());
                if let Poll::Ready(more) = self.client.poll_fill(cx) {
                    return Poll::Ready(match more {
                        Ok(0) => Err(Failure::ClientCut),
                        Ok(_) => Ok(true),
                        Err(_) => Err(Failure::Gone),
                    });
                }
                watch.waits = Some(Waits::ClientSends);
                match link.wire.poll_flush(cx) {
                    Poll::Ready(Err(error)) => Poll::Ready(link.refuse(error).map(|()| false)),
                    Poll::Ready(Ok(())) => Poll::Pending,
                    Poll::Pending => {
                        watch.waits = Some(Waits::ReplicaTakes);
                        Poll::Pending
                    }
                }
            }
        }
    }

    fn check_size(&self, more: usize) -> Result<(), Failure> {
        match self.worker.body_limit {
            Some(limit) if self.replay.came + more as u64 > limit => Err(Failure::TooLarge(limit)),
            Some(_) | None => Ok(()),
        }
    }

    /// Until the head of the final answer is there: its length. Interim answers are passed over
    /// (RFC 9110 15.2), but for the go-ahead that the client waits for. Many clients take any
    /// other for the final one.
    fn poll_head(&mut self, cx: &mut Context<'_>, link: &mut Link) -> Poll<Result<usize, Failure>> {
        loop {
            let input = link.wire.input();
            let head = self.answer_head.parse(input, &self.worker.limits).map_err(Failure::Head)?;
            if let Some(length) = head {
                let request = self.asked.request;
                let to_head = request.method.of(self.asked.head) == b"HEAD";
                let read = self.answer.read(self.answer_head, &input[..length], to_head);
                read.map_err(Failure::Answer)?;
                if self.answer.status == 101 && !self.is_asked_change(&input[..length]) {
                    return Poll::Ready(Err(Failure::Unasked));
                }
                if !self.answer.is_interim() {
                    return Poll::Ready(Ok(length));
                }
                let waits = request.expects && !self.client_state.continued;
                if self.answer.status == 100 && waits {
                    self.client_state.continued = true;
                    self.client.begin();
                    self.client.output().extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
                }
                link.wire.consume(length);
                self.answer_head.clear();
                continue;
            }
            let more = ready!(link.wire.poll_fill(cx));
            let error = match more {
                Ok(0) => io::ErrorKind::UnexpectedEof.into(),
                Ok(_) => continue,
                Err(error) => error,
            };
            return Poll::Ready(Err(match link.wire.sent() {
                0 => Failure::NotSent(error),
                _ if self.answer_head.is_new() => Failure::Lost(error),
                _ => Failure::HeadCut(error),
            }));
        }
    }

    /// Whether the client asked for the protocol that an answer changes to (RFC 9110 7.8).
    fn is_asked_change(&self, answer: &[u8]) -> bool {
        let offered = self.asked.request.upgrade.map(|upgrade| upgrade.of(self.asked.head));
        let taken = self.answer.upgrade.map(|upgrade| upgrade.of(answer));
        offered.zip(taken).is_some_and(|(offered, taken)| are_offered(offered, taken))
    }

    /// Ready when the client has gone. What it sends already for its next request is read, as far
    /// as there is room.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.client_state.ended && self.client.has_room() {
            match ready!(self.client.poll_fill(cx)) {
                Ok(0) if self.worker.half_close => self.client_state.ended = true,
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(_) => {}
            }
        }
        Poll::Pending
    }

    /// Passes the answer on as it comes. `in_flight` counts the request until its last byte.
    async fn relay(
        mut self,
        mut link: Link,
        head: usize,
        replica: &Arc<Replica>,
        in_flight: InFlight,
    ) -> Outcome {
        let _in_flight = in_flight;
        let status = self.answer.status;
        if self.worker.unknown_path && status == 404 {
            link.wire.consume(head);
            let path = self.asked.request.path(self.asked.head);
            let path = String::from_utf8_lossy(path).into_owned();
            let mut body = Body::new(self.answer.framing);
            if let Ok(true) = discard(&mut body, &mut link.wire) {
                self.keep(link, replica);
            }
            return Outcome::Fail(ProxyError::UnknownPath(path));
        }
        let framing = self.framing();
        let close = self.closes(&link, framing);
        self.put_head(&link, head, framing, close);
        link.wire.consume(head);
        if status == 101 {
            let span = self.worker.timeouts.tunnel;
            Box::pin(tunnel(self.client, &mut link.wire, self.timer, span)).await;
            return Outcome::Close;
        }
        let mut watch = Watch::default();
        let writer = Writer::new(framing);
        let mut down = Download { body: Body::new(self.answer.framing), writer, ended: false };
        match poll_fn(|cx| self.poll_relay(cx, &mut link, &mut down, &mut watch)).await {
            Ok(()) => {
                let whole = link.flushed && self.body.is_ended();
                if self.answer.framing != Framing::UntilClose {
                    self.keep(link, replica);
                }
                match (whole, close) {
                    (true, false) => Outcome::Keep,
                    (true, true) => Outcome::Close,
                    (false, _) => Outcome::Linger,
                }
            }
            Err(Broken::Gone) => gone(),
            Err(broken) => {
                let hostname = replica.hostname();
                debug!(%hostname, error = ?broken, "answer broke off");
                Box::pin(self.cut(&broken, framing)).await;
                Outcome::Abort
            }
        }
    }

    /// How the answer's body is delimited for the client (RFC 9112 6.1: no chunks in HTTP/1.0).
    fn framing(&self) -> Framing {
        match self.answer.framing {
            Framing::Chunked | Framing::UntilClose if self.asked.request.minor == 0 => {
                Framing::UntilClose
            }
            Framing::Chunked | Framing::UntilClose => Framing::Chunked,
            framing @ (Framing::None | Framing::Length(_)) => framing,
        }
    }

    /// Whether the client's connection ends after the answer: also when that came before the end
    /// of the request, of which nobody wants the rest.
    fn closes(&self, link: &Link, framing: Framing) -> bool {
        !self.asked.request.wants_more()
            || framing == Framing::UntilClose
            || !link.ended
            || self.client_state.ended
            || self.worker.shared.is_stopping()
    }

    fn put_head(&mut self, link: &Link, head: usize, framing: Framing, close: bool) {
        self.client.begin();
        let date = self.worker.date();
        let reply = Reply {
            framing,
            close,
            keep_alive: self.asked.request.minor == 0,
            date: &date,
            via: self.worker.via.as_deref(),
        };
        let bytes = &link.wire.input()[..head];
        let out = self.client.output();
        self.asked.put_answer(out, self.answer, self.answer_head, bytes, &reply);
    }

    /// Keeps a connection on which nothing is left of this request and its answer.
    fn keep(&self, link: Link, replica: &Arc<Replica>) {
        if self.answer.keeps && link.flushed && link.wire.input().is_empty() {
            self.worker.upstream.keep(replica, link.wire, Instant::now());
        }
    }

    /// Until the client has the whole answer.
    fn poll_relay(
        &mut self,
        cx: &mut Context<'_>,
        link: &mut Link,
        down: &mut Download,
        watch: &mut Watch,
    ) -> Poll<Result<(), Broken>> {
        let uploaded = match self.poll_upload(cx, link, watch) {
            Poll::Ready(Ok(())) => true,
            Poll::Ready(Err(_)) => return Poll::Ready(Err(Broken::Gone)),
            Poll::Pending => false,
        };
        if self.poll_download(cx, link, down, watch)?.is_ready() {
            return Poll::Ready(Ok(()));
        }
        if uploaded && self.poll_gone(cx).is_ready() {
            return Poll::Ready(Err(Broken::Gone));
        }
        match ready!(watch.poll(cx, self.timer, self.worker)) {
            Waits::ClientSends | Waits::ClientTakes => Poll::Ready(Err(Broken::ClientLate)),
            Waits::ReplicaTakes | Waits::Answer | Waits::ReplicaSends => {
                Poll::Ready(Err(Broken::Late))
            }
        }
    }

    fn poll_download(
        &mut self,
        cx: &mut Context<'_>,
        link: &mut Link,
        down: &mut Download,
        watch: &mut Watch,
    ) -> Poll<Result<(), Broken>> {
        while !down.ended {
            match down.body.next(link.wire.input()).map_err(Broken::Chunk)? {
                Next::Content { skip, length } => {
                    link.wire.consume(skip);
                    watch.waits = Some(Waits::ClientTakes);
                    let content = &link.wire.input()[..length];
                    let taken = ready!(self.client.poll_content(cx, &mut down.writer, content));
                    let taken = taken.map_err(|_gone| Broken::Gone)?;
                    link.wire.consume(taken);
                    down.body.taken(taken);
                    watch.moved = true;
                }
                Next::End { skip } => {
                    link.wire.consume(skip);
                    self.put_end(down)?;
                }
                Next::More => {
                    link.wire.consume(link.wire.input().len());
                    match link.wire.poll_fill(cx) {
                        Poll::Ready(Ok(0)) if down.body.ends_here() => {}
                        Poll::Ready(Ok(0)) => return Poll::Ready(Err(Broken::Cut(None))),
                        Poll::Ready(Ok(_)) => watch.moved = true,
                        Poll::Ready(Err(error)) => {
                            return Poll::Ready(Err(Broken::Cut(Some(error))));
                        }
                        Poll::Pending => {
                            watch.waits = Some(Waits::ClientTakes);
                            ready!(self.client.poll_flush(cx)).map_err(|_gone| Broken::Gone)?;
                            watch.waits = Some(Waits::ReplicaSends);
                            return Poll::Pending;
                        }
                    }
                }
            }
        }
        watch.waits = Some(Waits::ClientTakes);
        ready!(self.client.poll_flush(cx)).map_err(|_gone| Broken::Gone)?;
        Poll::Ready(Ok(()))
    }

    /// Writes the end of the body. Trailers cross if the client takes any (RFC 9110 6.5.1).
    fn put_end(&mut self, down: &mut Download) -> Result<(), Broken> {
        down.ended = true;
        if let Writer::Chunked { .. } = down.writer {
            let out = self.client.output();
            down.body.check_trailers().map_err(Broken::Trailer)?;
            out.extend_from_slice(b"0\r\n");
            if self.asked.request.takes_trailers {
                down.body.put_trailers(out).map_err(Broken::Trailer)?;
            }
            out.extend_from_slice(b"\r\n");
        }
        Ok(())
    }

    /// The answer cannot be finished: the client gets what there is of it, and sees that it is not
    /// all. Without a length or chunks only a reset shows that.
    async fn cut(&mut self, broken: &Broken, framing: Framing) {
        match broken {
            Broken::Gone | Broken::ClientLate => {}
            Broken::Cut(_) | Broken::Chunk(_) | Broken::Trailer(_) | Broken::Late => {
                self.timer.set(Duration::from_secs(1));
                poll_fn(|cx| match self.client.poll_flush(cx) {
                    Poll::Ready(_) => Poll::Ready(()),
                    Poll::Pending => self.timer.poll(cx),
                })
                .await;
                if framing == Framing::UntilClose {
                    self.client.reset_at_close();
                }
            }
        }
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

// === impl Replay ===

impl Replay {
    /// Whether all that came is kept.
    fn is_whole(&self) -> bool {
        self.came == self.bytes.len() as u64
    }

    /// What a replica that was given so much must be given again.
    fn after(&self, given: u64) -> Option<&[u8]> {
        let again = self.bytes.get(usize::try_from(given).ok()?..)?;
        (given < self.came && !again.is_empty()).then_some(again)
    }

    fn keep(&mut self, content: &[u8], limit: usize) {
        if self.is_whole() && self.bytes.len() + content.len() <= limit {
            self.bytes.extend_from_slice(content);
        }
        self.came += content.len() as u64;
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

// === impl Watch ===

impl Watch {
    /// Ready with what was waited for in vain.
    fn poll(&mut self, cx: &mut Context<'_>, timer: &mut Timer, worker: &Worker) -> Poll<Waits> {
        let waits = self.waits.unwrap_or(Waits::Answer);
        let moved = std::mem::take(&mut self.moved);
        if self.timed != Some(waits) || (moved && waits != Waits::Answer) {
            self.timed = Some(waits);
            timer.set(match waits {
                Waits::ClientSends | Waits::ClientTakes => worker.timeouts.client_body,
                Waits::ReplicaTakes | Waits::ReplicaSends => worker.timeouts.replica_body,
                Waits::Answer => worker.timeouts.first_byte,
            });
        }
        timer.poll(cx).map(|()| waits)
    }
}
