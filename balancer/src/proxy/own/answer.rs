//! How a request to one of the balancer's own routes is read and answered.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_http::body::{BodySize, BoxBody, MessageBody as _};
use actix_web::HttpResponse;
use actix_web::web::{Bytes, BytesMut};

use super::super::Worker;
use super::super::error::ProxyError;
use super::super::exchange::Outcome;
use super::super::message::{Asked, CONTINUE, put_connection, put_framing};
use super::super::session::{flush, put_status};
use super::super::timer::Timer;
use super::super::wire::{Wire, Writer};
use super::Own;
use crate::http1::Framing;
use crate::http1::body::Body;
use crate::http1::chunked::Next;
use crate::http1::head::put;

/// The largest body that the balancer's own routes are handed; they refuse it well below.
const OWN_BODY_MAX: usize = 1024 * 1024;

/// A request to one of the balancer's own routes.
pub async fn answer(
    own: &Own,
    worker: &Worker,
    wire: &mut Wire,
    timer: &mut Timer,
    asked: &Asked<'_>,
    body: &mut Body,
) -> Outcome {
    if asked.request.expects {
        wire.begin();
        wire.output().extend_from_slice(CONTINUE);
        if flush(wire, timer, worker).await.is_err() {
            return Outcome::Abort;
        }
    }
    let patience = worker.rules().timeouts.client_body;
    let read = match read_whole(wire, timer, body, OWN_BODY_MAX, patience).await {
        Ok(read) => read.freeze(),
        Err(error) => return Outcome::Fail(error),
    };
    let answer = own.call(asked, read).await;
    relay_own(answer, worker, wire, timer, asked, body).await
}

/// The whole body of a request, or the first `most` bytes and a bit more of it. The client may be
/// silent for as long as `patience`.
pub async fn read_whole(
    wire: &mut Wire,
    timer: &mut Timer,
    body: &mut Body,
    most: usize,
    patience: Duration,
) -> Result<BytesMut, ProxyError> {
    let mut read = BytesMut::new();
    while read.len() <= most {
        match body.next(wire.input()).map_err(|_bad| ProxyError::ClientBody)? {
            Next::Content { skip, length } => {
                wire.consume(skip);
                read.extend_from_slice(&wire.input()[..length]);
                wire.consume(length);
                body.taken(length);
            }
            Next::End { skip } => {
                wire.consume(skip);
                break;
            }
            Next::More => {
                wire.consume(wire.input().len());
                timer.set(patience);
                let more = poll_fn(|cx| match wire.poll_fill(cx) {
                    Poll::Ready(more) => Poll::Ready(Some(more)),
                    Poll::Pending => timer.poll(cx).map(|()| None),
                });
                match more.await {
                    Some(Ok(1..)) => {}
                    Some(Ok(0) | Err(_)) => return Err(ProxyError::ClientBody),
                    None => return Err(ProxyError::ClientLate),
                }
            }
        }
    }
    Ok(read)
}

/// Passes an answer of the balancer's own on, as it comes.
async fn relay_own(
    answer: HttpResponse,
    worker: &Worker,
    wire: &mut Wire,
    timer: &mut Timer,
    asked: &Asked<'_>,
    body: &Body,
) -> Outcome {
    let to_head = asked.request.method.of(asked.head) == b"HEAD";
    let framing = match answer.body().size() {
        BodySize::None => Framing::Length(0),
        BodySize::Sized(length) => Framing::Length(length),
        BodySize::Stream if asked.request.minor == 0 => Framing::UntilClose,
        BodySize::Stream => Framing::Chunked,
    };
    let close = !asked.request.wants_more()
        || !body.is_ended()
        || framing == Framing::UntilClose
        || asked.peer.is_surplus
        || worker.shared.is_stopping();
    wire.begin();
    let out = wire.output();
    put_status(out, answer.status().as_u16());
    for (name, value) in answer.headers() {
        put(out, name.as_str().as_bytes(), value.as_bytes());
    }
    put(out, b"Date", &worker.date());
    put(out, b"X-Request-Id", asked.id.as_bytes());
    put_framing(out, framing);
    put_connection(out, close, asked.request.minor == 0);
    out.extend_from_slice(b"\r\n");
    if !to_head && !send_own(answer.into_body(), Writer::new(framing), worker, wire, timer).await {
        return Outcome::Abort;
    }
    match flush(wire, timer, worker).await {
        Ok(()) if !body.is_ended() => Outcome::Linger,
        Ok(()) if close => Outcome::Close,
        Ok(()) => Outcome::Keep,
        Err(_) => Outcome::Abort,
    }
}

/// Sends the body of an answer of the balancer's own, and its end: whether that went well.
async fn send_own(
    mut content: BoxBody,
    mut writer: Writer,
    worker: &Worker,
    wire: &mut Wire,
    timer: &mut Timer,
) -> bool {
    loop {
        timer.set(worker.rules().timeouts.client_body);
        match poll_fn(|cx| poll_own(cx, Pin::new(&mut content), wire, timer)).await {
            None => break,
            Some(Err(())) => return false,
            Some(Ok(mut bytes)) => {
                while !bytes.is_empty() {
                    timer.set(worker.rules().timeouts.client_body);
                    let taken = poll_fn(|cx| match wire.poll_content(cx, &mut writer, &bytes) {
                        Poll::Ready(taken) => Poll::Ready(taken.ok()),
                        Poll::Pending => timer.poll(cx).map(|()| None),
                    });
                    let Some(taken) = taken.await else { return false };
                    let _taken = bytes.split_to(taken);
                }
            }
        }
    }
    if let Writer::Chunked { .. } = writer {
        wire.output().extend_from_slice(b"0\r\n\r\n");
    }
    true
}

/// The next bytes of an answer of the balancer's own. While there are none, what was gathered is
/// written, and the client's going away ends the answer.
fn poll_own(
    cx: &mut Context<'_>,
    content: Pin<&mut BoxBody>,
    wire: &mut Wire,
    timer: &mut Timer,
) -> Poll<Option<Result<Bytes, ()>>> {
    if let Poll::Ready(next) = content.poll_next(cx) {
        return Poll::Ready(next.map(|bytes| bytes.map_err(|_broken| ())));
    }
    match wire.poll_flush(cx) {
        Poll::Ready(Ok(())) => {}
        Poll::Ready(Err(_)) => return Poll::Ready(Some(Err(()))),
        Poll::Pending => return timer.poll(cx).map(|()| Some(Err(()))),
    }
    while wire.has_room() {
        match ready!(wire.poll_fill(cx)) {
            Ok(1..) => {}
            Ok(0) | Err(_) => return Poll::Ready(Some(Err(()))),
        }
    }
    Poll::Pending
}
