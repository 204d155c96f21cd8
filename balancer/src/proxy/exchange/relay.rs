//! The way down: a replica's answer to the client, streamed, never held whole.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tracing::debug;

use super::super::error::{Broken, ProxyError};
use super::super::fan::Held;
use super::super::message::Reply;
use super::super::tunnel::tunnel;
use super::super::wire::Writer;
use super::watch::{Waits, Watch};
use super::{Exchange, Link, Outcome, discard, gone};
use crate::http1::Framing;
use crate::http1::body::Body;
use crate::http1::chunked::Next;
use crate::routing::table::{InFlight, Replica};

/// An answer on its way to the client.
struct Download {
    body: Body,
    writer: Writer,
    ended: bool,
}

// === impl Exchange ===

impl Exchange<'_> {
    /// Passes the answer on as it comes. `in_flight` counts the request until its last byte.
    pub(in super::super) async fn relay(
        mut self,
        mut link: Link,
        head: usize,
        replica: &Arc<Replica>,
        in_flight: InFlight,
    ) -> Outcome {
        let _in_flight = in_flight;
        let status = self.answer.status;
        if self.rules.unknown_path && status == 404 {
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
        let binds = self.binds();
        let close = self.closes(&link, framing) || (binds && self.ends_with_answer(replica));
        self.put_head(&link.wire.input()[..head], framing, close);
        link.wire.consume(head);
        if status == 101 {
            let span = self.route.config.timeouts.tunnel;
            Box::pin(tunnel(self.client, &mut link.wire, self.timer, span)).await;
            return Outcome::Close;
        }
        let mut watch = Watch::default();
        let writer = Writer::new(framing);
        let mut down = Download { body: Body::new(self.answer.framing), writer, ended: false };
        match poll_fn(|cx| self.poll_relay(cx, &mut link, &mut down, &mut watch)).await {
            Ok(()) => {
                self.worker.survives(&self.asked);
                let whole = link.flushed && self.body.is_ended();
                if self.answer.framing != Framing::UntilClose {
                    self.keep(link, replica);
                }
                // A connection that could not be kept is not followed by another one.
                match (whole, close || (binds && !self.binding.is_idle())) {
                    (true, false) => Outcome::Keep,
                    (true, true) => Outcome::Close,
                    (false, _) => Outcome::Linger,
                }
            }
            Err(Broken::Gone) => gone(),
            Err(broken) => {
                let hostname = replica.hostname();
                debug!(%hostname, error = ?broken, "answer broke off");
                if matches!(broken, Broken::Cut(_)) {
                    self.note_loss(replica);
                }
                Box::pin(self.cut(&broken, framing)).await;
                Outcome::Abort
            }
        }
    }

    /// Passes on an answer that is there as a whole.
    pub(in super::super) async fn relay_held(mut self, held: Held) -> Outcome {
        let Held { head, answer, bytes, body, .. } = held;
        let framing = match answer.framing {
            Framing::None => Framing::None,
            Framing::Length(_) | Framing::Chunked | Framing::UntilClose => {
                Framing::Length(body.len() as u64)
            }
        };
        (*self.answer, *self.answer_head) = (answer, head);
        let close = !self.asked.request.wants_more()
            || self.client_state.ended
            || self.worker.shared.is_stopping();
        self.put_head(&bytes, framing, close);
        let (mut given, mut watch) = (0, Watch::default());
        let taken = poll_fn(|cx| {
            watch.waits = Some(Waits::ClientTakes);
            loop {
                let rest = &body[given..];
                let step = match rest {
                    [] => self.client.poll_flush(cx).map_ok(|()| 0),
                    rest => self.client.poll_content(cx, &mut Writer::Plain, rest),
                };
                match step {
                    Poll::Ready(Ok(_)) if rest.is_empty() => return Poll::Ready(true),
                    Poll::Ready(Ok(taken)) => (given, watch.moved) = (given + taken, true),
                    Poll::Ready(Err(_gone)) => return Poll::Ready(false),
                    Poll::Pending => break,
                }
            }
            let late = watch.poll(cx, self.timer, &self.route.config.timeouts, || false);
            late.map(|_client| false)
        });
        match (taken.await, close) {
            (true, false) => Outcome::Keep,
            (true, true) => Outcome::Close,
            (false, _) => gone(),
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

    fn put_head(&mut self, bytes: &[u8], framing: Framing, close: bool) {
        self.client.begin();
        let date = self.worker.date();
        let reply = Reply {
            framing,
            close,
            keep_alive: self.asked.request.minor == 0,
            date: &date,
            via: self.rules.forwarded.via.as_deref(),
            cookie: self.issued.as_deref(),
        };
        let out = self.client.output();
        self.asked.put_answer(out, self.answer, self.answer_head, bytes, &reply);
    }

    /// Reports whether the replica's connection belongs to the client's: it did before, or the
    /// request or the answer authenticates it.
    fn binds(&self) -> bool {
        self.asked.request.auth.binds || self.answer.auth.binds || self.binding.is_taken()
    }

    /// Reports whether a connection that belongs to the client ends after the answer.
    fn ends_with_answer(&self, replica: &Replica) -> bool {
        !self.answer.keeps || self.answer.framing == Framing::UntilClose || replica.is_closed()
    }

    /// Keeps a connection on which nothing is left of this request and its answer: for this client
    /// if the connection belongs to it, otherwise for all.
    fn keep(&mut self, link: Link, replica: &Arc<Replica>) {
        if !self.answer.keeps || !link.flushed || !link.wire.input().is_empty() {
            return;
        }
        if self.binds() {
            self.binding.bind(replica, link.wire);
        } else {
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
        match ready!(watch.poll(cx, self.timer, &self.route.config.timeouts, || false)) {
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
