//! The way up: a request to its replica, until the head of the answer is there.

use std::io;
use std::task::{Context, Poll, ready};

use super::super::error::Failure;
use super::super::message::CONTINUE;
use super::super::wire::{Wire, Writer};
use super::watch::{Waits, Watch};
use super::{Exchange, Link};
use crate::http1::answer::{Answer, StatusLine};
use crate::http1::chunked::Next;
use crate::http1::head::{Head, HeadLimits};
use crate::http1::request::are_offered;
use crate::routing::table::Replica;

/// The first bytes of a request's body, kept so that they can be sent again.
#[derive(Debug, Default)]
pub struct Replay {
    bytes: Vec<u8>,
    /// How many came; beyond the limit not all are kept.
    came: u64,
}

// === impl Exchange ===

impl Exchange<'_> {
    /// Until the head of the final answer is there: its length.
    pub(super) fn poll_ask(
        &mut self,
        cx: &mut Context<'_>,
        link: &mut Link,
        watch: &mut Watch,
        replica: &Replica,
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
        match ready!(watch.poll(cx, self.timer, &self.route.config.timeouts, || replica.is_dead()))
        {
            Waits::ClientSends => Poll::Ready(Err(Failure::ClientLate)),
            Waits::Answer if replica.is_dead() => {
                Poll::Ready(Err(Failure::Lost(io::Error::other("the replica is gone"))))
            }
            Waits::ClientTakes | Waits::ReplicaTakes | Waits::Answer | Waits::ReplicaSends => {
                Poll::Ready(Err(Failure::Late))
            }
        }
    }

    /// Until the replica has the whole request, or takes no more of it.
    pub(super) fn poll_upload(
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
                self.replay.keep(&content[..given], self.route.config.retry.body);
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
        match self.rules.body_limit {
            Some(limit) if self.replay.came + more as u64 > limit => Err(Failure::TooLarge(limit)),
            Some(_) | None => Ok(()),
        }
    }

    /// Until the head of the final answer is there: its length. Interim answers are passed over
    /// (RFC 9110 15.2), but for the go-ahead that the client waits for. Many clients take any
    /// other for the final one.
    fn poll_head(&mut self, cx: &mut Context<'_>, link: &mut Link) -> Poll<Result<usize, Failure>> {
        let request = self.asked.request;
        let to_head = request.method.of(self.asked.head) == b"HEAD";
        loop {
            let (wire, head, answer) = (&mut link.wire, &mut *self.answer_head, &mut *self.answer);
            let length =
                ready!(poll_answer(cx, wire, head, answer, &self.rules.response_limits, to_head))?;
            if self.answer.status == 101 && !self.is_asked_change(&link.wire.input()[..length]) {
                return Poll::Ready(Err(Failure::Unasked));
            }
            if !self.answer.is_interim() {
                return Poll::Ready(Ok(length));
            }
            let waits = request.expects && !self.client_state.continued;
            if self.answer.status == 100 && waits {
                self.client_state.continued = true;
                self.client.begin();
                self.client.output().extend_from_slice(CONTINUE);
            }
            link.wire.consume(length);
            self.answer_head.clear();
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
    pub(in super::super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.client_state.ended && self.client.has_room() {
            match ready!(self.client.poll_fill(cx)) {
                Ok(0) if self.rules.half_close => self.client_state.ended = true,
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(_) => {}
            }
        }
        Poll::Pending
    }
}

/// Until the head of an answer is there, interim or final: its length, and what it means.
pub(in super::super) fn poll_answer(
    cx: &mut Context<'_>,
    wire: &mut Wire,
    head: &mut Head<StatusLine>,
    answer: &mut Answer,
    limits: &HeadLimits,
    to_head: bool,
) -> Poll<Result<usize, Failure>> {
    loop {
        let input = wire.input();
        if let Some(length) = head.parse(input, limits).map_err(Failure::Head)? {
            answer.read(head, &input[..length], to_head).map_err(Failure::Answer)?;
            return Poll::Ready(Ok(length));
        }
        let error = match ready!(wire.poll_fill(cx)) {
            Ok(0) => io::ErrorKind::UnexpectedEof.into(),
            Ok(_) => continue,
            Err(error) => error,
        };
        return Poll::Ready(Err(match wire.sent() {
            0 => Failure::NotSent(error),
            _ if head.is_new() => Failure::Lost(error),
            _ => Failure::HeadCut(error),
        }));
    }
}

// === impl Replay ===

impl Replay {
    /// Whether all that came is kept.
    pub(super) fn is_whole(&self) -> bool {
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
