//! One connection of a client: its requests, one after another.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tracing::debug;

use super::Worker;
use super::binding::Binding;
use super::error::ProxyError;
use super::exchange::{Attempts, ClientState, Exchange, Outcome, Replay, discard};
use super::message::{Asked, put_connection, put_framing};
use super::own::Own;
use super::own::answer::answer;
use super::peer::Peer;
use super::rules::Rules;
use super::timer::Timer;
use super::trace::Trace;
use super::wire::{Stream, Wire};
use crate::config::NO_ROUTE;
use crate::http1::Framing;
use crate::http1::answer::{Answer, StatusLine};
use crate::http1::body::Body;
use crate::http1::head::{Head, put};
use crate::http1::request::{Request, RequestLine};
use crate::metrics::Tally;
use crate::routing::key::RequestId;
use crate::routing::matching::Target;

/// How long a client may take to take its last answer in, while what it still sends is thrown
/// away: a close with unread bytes would be a reset, which destroys the answer (RFC 9112 9.6).
pub const LINGER: Duration = Duration::from_secs(2);

/// A client's connection.
pub struct Session {
    worker: Rc<Worker>,
    rules: Rc<Rules>,
    wire: Wire,
    peer: Peer,
    timer: Timer,
    head: Head<RequestLine>,
    request: Request,
    answer_head: Head<StatusLine>,
    answer: Answer,
    /// Its place among those that are woken when the balancer stops.
    resting: Option<usize>,
    waits: Waits,
    /// The replica's connection that belongs to this one, if any.
    binding: Binding,
}

/// What the timer is set for, while no request is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Waits {
    /// For nothing yet.
    Nothing,
    /// For a next request.
    Next,
    /// For a head to be whole; the first one counts from the connection's begin.
    Head,
}

/// Why there is no next request.
enum NoHead {
    /// The client has gone, or nothing is left to do: the connection just ends.
    End,
    /// It is told why.
    Bad(ProxyError),
}

// === impl Session ===

impl Session {
    /// A connection on which nothing has happened.
    pub fn new(worker: Rc<Worker>, stream: Stream, peer: Peer) -> Self {
        let wire = Wire::new(stream, Rc::clone(&worker.buffers));
        let rules = worker.rules();
        let timer = Timer::new(peer.patience(rules.timeouts.head));
        Self {
            worker,
            rules,
            wire,
            peer,
            timer,
            head: Head::new(),
            request: Request::new(),
            answer_head: Head::new(),
            answer: Answer::new(),
            resting: None,
            waits: Waits::Head,
            binding: Binding::None,
        }
    }

    /// Answers requests until the connection ends.
    pub async fn run(mut self) {
        loop {
            match self.next_head().await {
                Ok(length) => match self.one(length).await {
                    Outcome::Keep => self.rest(),
                    Outcome::Close => return self.end().await,
                    Outcome::Linger | Outcome::Fail(_) => return self.linger().await,
                    Outcome::Abort => return,
                },
                Err(NoHead::End) => return self.end().await,
                Err(NoHead::Bad(error)) => {
                    self.refuse(&error).await;
                    return self.linger().await;
                }
            }
        }
    }

    fn rest(&mut self) {
        self.head.clear();
        self.wire.rest();
        self.waits = Waits::Nothing;
    }

    /// Waits for a request: the length of its head.
    async fn next_head(&mut self) -> Result<usize, NoHead> {
        poll_fn(|cx| self.poll_head(cx)).await
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, NoHead>> {
        let mut begun = false;
        loop {
            // RFC 9112 2.2: empty lines before a request are overlooked.
            while self.head.is_new() && self.wire.input().starts_with(b"\r\n") {
                self.wire.consume(2);
            }
            if !self.wire.input().is_empty() && self.wire.input() != b"\r" {
                if self.head.is_new() {
                    self.follow_rules();
                }
                begun = true;
                let head = self.head.parse(self.wire.input(), &self.rules.limits);
                match head {
                    Ok(None) => {}
                    Ok(Some(length)) => return Poll::Ready(Ok(length)),
                    Err(bad) => return Poll::Ready(Err(NoHead::Bad(ProxyError::Head(bad)))),
                }
            } else if self.worker.shared.is_stopping() && !self.wire.stream().is_pipe() {
                return Poll::Ready(Err(NoHead::End));
            } else if self.binding.has_ended(cx) {
                debug!(client = self.peer.text(), "authenticated connection to the replica ended");
                return Poll::Ready(Err(NoHead::End));
            }
            match self.wire.poll_fill(cx) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(NoHead::End)),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => break,
            }
        }
        if self.resting.is_none() {
            self.resting = Some(self.worker.resting.borrow_mut().insert(cx.waker().clone()));
        }
        // A head must be whole in time; bytes that trickle in do not move that.
        let waits = if begun { Waits::Head } else { self.waits.max(Waits::Next) };
        if self.waits != waits {
            self.waits = waits;
            self.timer.set(match waits {
                Waits::Head => self.peer.patience(self.rules.timeouts.head),
                Waits::Nothing | Waits::Next => self.rules.timeouts.keep_alive,
            });
        }
        ready!(self.timer.poll(cx));
        let late = match begun {
            _ if self.peer.is_surplus => NoHead::Bad(ProxyError::Crowded),
            true => NoHead::Bad(ProxyError::ClientLate),
            false => NoHead::End,
        };
        Poll::Ready(Err(late))
    }

    /// Takes the configuration as it is now for the request that begins. It may have changed since
    /// the last one, and with it the limits and whether the client is trusted.
    fn follow_rules(&mut self) {
        let rules = self.worker.rules();
        if !Rc::ptr_eq(&rules, &self.rules) {
            self.peer.trust(&rules.forwarded.trust);
            self.rules = rules;
        }
    }

    /// One request, whose head is so long.
    async fn one(&mut self, length: usize) -> Outcome {
        let head = self.wire.split_head(length);
        let head = head.get();
        if let Err(bad) = self.request.read(&self.head, head) {
            self.refuse(&ProxyError::Request(bad)).await;
            return Outcome::Linger;
        }
        let worker = Rc::clone(&self.worker);
        let (rules, request) = (Rc::clone(&self.rules), &self.request);
        let route = rules.route(&Target {
            host: request.host.map(|host| host.of(head)),
            method: request.method.of(head),
            path: request.path(head),
        });
        let given = request.id.map(|id| id.of(head));
        let id = RequestId::of(given, &route.config.key, &mut *worker.rng.borrow_mut());
        let asked = Asked {
            request: &self.request,
            head,
            lines: self.head.lines(),
            peer: &self.peer,
            id: &id,
        };
        let mut body = Body::new(asked.request.framing);
        let is_reserved = Own::has(asked.request.path(head));
        let own = worker.own.as_ref().filter(|_| is_reserved);
        let tally = own.is_none().then(|| route.metrics.begin(Instant::now()));
        let began = tally.as_ref().map_or_else(Instant::now, Tally::began);
        let mut trace = (rules.access_log && own.is_none()).then(Trace::default);
        let outcome = match settle(&rules, &asked, is_reserved, own.is_some()) {
            Some(error) => Outcome::Fail(error),
            None => match own {
                // Rare: not every connection keeps room for it.
                Some(own) => {
                    let (wire, timer) = (&mut self.wire, &mut self.timer);
                    Box::pin(answer(own, &worker, wire, timer, &asked, &mut body)).await
                }
                None => {
                    let exchange = Exchange {
                        worker: &worker,
                        rules: &rules,
                        route,
                        client: &mut self.wire,
                        timer: &mut self.timer,
                        asked,
                        body: &mut body,
                        answer_head: &mut self.answer_head,
                        answer: &mut self.answer,
                        replay: Replay::default(),
                        trace: trace.as_mut(),
                        issued: None,
                        client_state: ClientState::default(),
                        began,
                        binding: &mut self.binding,
                        attempts: Attempts::default(),
                    };
                    exchange.run().await
                }
            },
        };
        if let Some(trace) = trace {
            trace.write(&asked, route, began, &outcome, self.answer.status);
        }
        let Outcome::Fail(error) = outcome else {
            if let Some(tally) = tally.filter(|_| outcome != Outcome::Abort) {
                tally.answered(self.answer.status);
            }
            return outcome;
        };
        if error == ProxyError::Loop {
            worker.log_loop(&self.peer);
        }
        if let ProxyError::LargeResponse(bad) = error {
            worker.log_large(bad);
        }
        debug!(%error, path = ?String::from_utf8_lossy(self.request.path(head)), "request failed");
        // What is left of the request must not be taken for the next one.
        let whole = !error.ends_connection() && discard(&mut body, &mut self.wire) == Ok(true);
        let close = !whole
            || !self.request.wants_more()
            || self.binding.is_taken()
            || worker.shared.is_stopping();
        let to_head = self.request.method.of(head) == b"HEAD";
        let keep_alive = self.request.minor == 0;
        self.put_failure(&error, Some(&id), close, keep_alive, to_head);
        let taken = self.flush().await;
        if let Some(tally) = tally.filter(|_| taken) {
            tally.answered(error.status());
        }
        match taken {
            true if !close => Outcome::Keep,
            true if whole => Outcome::Close,
            _ => Outcome::Linger,
        }
    }

    /// Answers a request that cannot be understood.
    async fn refuse(&mut self, error: &ProxyError) {
        debug!(%error, client = self.peer.text(), "request refused");
        let shard = self.worker.shards.of(NO_ROUTE);
        let tally = shard.begin(Instant::now());
        self.put_failure(error, None, true, false, false);
        if self.flush().await {
            tally.answered(error.status());
        }
    }

    /// Writes an answer of the balancer's own.
    fn put_failure(
        &mut self,
        error: &ProxyError,
        id: Option<&RequestId>,
        close: bool,
        keep_alive: bool,
        to_head: bool,
    ) {
        let status = error.status();
        let body = error.body();
        let date = self.worker.date();
        self.wire.begin();
        let out = self.wire.output();
        put_status(out, status);
        put(out, b"Content-Type", b"application/json");
        put(out, b"Date", &date);
        if status == 503 {
            put(out, b"Retry-After", crate::reply::RETRY_AFTER_SECONDS.as_bytes());
        }
        if status == 405 {
            put(out, b"Allow", b"");
        }
        if let Some(id) = id {
            put(out, b"X-Request-Id", id.as_bytes());
        }
        put_framing(out, Framing::Length(body.len() as u64));
        put_connection(out, close, keep_alive);
        out.extend_from_slice(b"\r\n");
        if !to_head {
            out.extend_from_slice(body.as_bytes());
        }
    }

    /// Writes what was gathered: whether the client has taken it.
    async fn flush(&mut self) -> bool {
        flush(&mut self.wire, &mut self.timer, &self.worker).await.is_ok()
    }

    /// Ends a connection on which all that the client sent has been read.
    async fn end(&mut self) {
        if !self.wire.input().is_empty() {
            return self.linger().await;
        }
        if self.wire.stream().says_goodbye() {
            self.timer.set(LINGER);
            // A client that does not take it has gone.
            let _told = self.until(Wire::poll_shutdown).await;
        }
    }

    /// Ends the connection so that the client gets all that was written, though it may be sending
    /// still.
    async fn linger(&mut self) {
        self.timer.set(LINGER);
        if self.until(Wire::poll_shutdown).await.is_err() {
            return;
        }
        loop {
            self.wire.consume(self.wire.input().len());
            match self.until(Wire::poll_fill).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return,
            }
        }
    }

    /// Waits for something of the connection, or the timer.
    async fn until<T>(
        &mut self,
        mut poll: impl FnMut(&mut Wire, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> io::Result<T> {
        let (wire, timer) = (&mut self.wire, &mut self.timer);
        poll_fn(|cx| match poll(wire, cx) {
            Poll::Ready(done) => Poll::Ready(done),
            Poll::Pending => timer.poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into())),
        })
        .await
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(place) = self.resting {
            self.worker.resting.borrow_mut().try_remove(place);
        }
    }
}

/// Returns the error of a request that no replica is to see. `is_reserved` tells that its path is
/// the balancer's own, `is_own` that this listener serves those paths.
fn settle(rules: &Rules, asked: &Asked<'_>, is_reserved: bool, is_own: bool) -> Option<ProxyError> {
    if asked.request.max_forwards == Some(0) {
        return Some(ProxyError::EndOfWay);
    }
    if asked.peer.is_surplus && !is_own {
        return Some(ProxyError::Crowded);
    }
    if is_reserved && !is_own {
        return Some(ProxyError::Reserved);
    }
    if asked.request.has_hop && !is_own && asked.passes() >= rules.forwarded.max_passes {
        return Some(ProxyError::Loop);
    }
    match (asked.request.framing, rules.body_limit) {
        (Framing::Length(length), Some(limit)) if length > limit => {
            Some(ProxyError::TooLarge(limit))
        }
        _ => None,
    }
}

/// Writes the status line of an answer of the balancer's own.
pub fn put_status(out: &mut Vec<u8>, status: u16) {
    let known = http::StatusCode::from_u16(status).ok();
    let reason = known.and_then(|status| status.canonical_reason()).unwrap_or_default();
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
    out.push(b' ');
    out.extend_from_slice(reason.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Writes what was gathered.
///
/// # Errors
/// When the client has gone, or does not take it in time.
pub async fn flush(wire: &mut Wire, timer: &mut Timer, worker: &Worker) -> io::Result<()> {
    timer.set(worker.rules().timeouts.client_body);
    poll_fn(|cx| match wire.poll_flush(cx) {
        Poll::Ready(done) => Poll::Ready(done),
        Poll::Pending => timer.poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into())),
    })
    .await
}
