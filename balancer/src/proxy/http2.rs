//! HTTP/2 clients (RFC 9113): each of their requests is read by the same engine as any other, over
//! a pipe in memory. So there is one way to be checked, placed, sent and retried.

use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::header::{CONTENT_LENGTH, COOKIE, EXPECT, HOST, HeaderName, HeaderValue};
use http::{HeaderMap, Response, StatusCode, request};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, duplex};
use tracing::debug;

use super::Worker;
use super::peer::Peer;
use super::session::{LINGER, Session};
use super::wire::{Stream, Wire, Writer};
use crate::http1::Framing;
use crate::http1::answer::{Answer, BadAnswer, StatusLine};
use crate::http1::body::Body;
use crate::http1::chunked::{BadChunk, Next};
use crate::http1::head::{BadHead, Head, HeadLimits, Line, put};

/// Requests of one connection at once.
const STREAMS_MAX: u32 = 256;

/// The same with those that the client has reset but that have not ended here: more than these are
/// refused.
const ACTIVE_MAX: usize = 2 * STREAMS_MAX as usize;

/// What a client may send of one request, and of all, before it waits.
const WINDOW: u32 = 64 * 1024;

/// Bytes between the two ends of a pipe.
const PIPE: usize = 64 * 1024;

/// Bytes of one answer that wait to be framed, however many more the client would take.
const UNSENT: usize = 64 * 1024;

/// A connection that outlives its HTTP/2.
struct Held<T>(Rc<RefCell<T>>);

/// The requests of a connection that are under way.
struct Active {
    count: Cell<usize>,
    /// When one of them last began or ended.
    moved: Cell<Instant>,
}

/// One of them, until dropped.
struct Counted(Rc<Active>);

/// Why a stream was given up; the client sees a reset.
#[derive(Debug, Error)]
enum Broken {
    #[error("HTTP/2")]
    H2(#[from] h2::Error),
    #[error("pipe")]
    Pipe(#[from] io::Error),
    #[error("head of the answer")]
    Head(#[from] BadHead),
    #[error("answer")]
    Answer(#[from] BadAnswer),
    #[error("chunk of the answer")]
    Chunk(#[from] BadChunk),
    #[error("answer")]
    Response(#[from] http::Error),
    #[error("the client does not take its answer")]
    Late,
    #[error("the replica authenticates connections, which takes HTTP/1.1")]
    Http11Required,
}

// === impl Broken ===

impl Broken {
    /// Returns the code of the reset.
    fn reason(&self) -> Reason {
        match self {
            Broken::Http11Required => Reason::HTTP_1_1_REQUIRED,
            Broken::H2(_)
            | Broken::Pipe(_)
            | Broken::Head(_)
            | Broken::Answer(_)
            | Broken::Chunk(_)
            | Broken::Response(_)
            | Broken::Late => Reason::INTERNAL_ERROR,
        }
    }
}

// === impl Held ===

impl<T: AsyncRead + Unpin> Held<T> {
    /// Reads to the end.
    async fn drain(&self) {
        let mut bytes = [0; 1_024];
        loop {
            let mut to = ReadBuf::new(&mut bytes);
            let read = poll_fn(|cx| Pin::new(&mut *self.0.borrow_mut()).poll_read(cx, &mut to));
            if read.await.is_err() || to.filled().is_empty() {
                return;
            }
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Held<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_read(cx, to)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Held<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.borrow().is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_shutdown(cx)
    }
}

// === impl Active ===

impl Active {
    fn new() -> Rc<Self> {
        Rc::new(Self { count: Cell::new(0), moved: Cell::new(Instant::now()) })
    }

    fn begin(self: &Rc<Self>) -> Counted {
        self.count.set(self.count.get() + 1);
        self.moved.set(Instant::now());
        Counted(Rc::clone(self))
    }

    /// How long none has been under way.
    fn idle(&self) -> Duration {
        if self.count.get() > 0 { Duration::ZERO } else { self.moved.get().elapsed() }
    }
}

// === impl Counted ===

impl Drop for Counted {
    fn drop(&mut self) {
        let Self(active) = self;
        active.count.set(active.count.get() - 1);
        active.moved.set(Instant::now());
    }
}

/// Serves one connection until it has been idle for too long, or the client or the balancer ends
/// it.
pub async fn serve<T>(worker: Rc<Worker>, io: T, peer: Peer)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut builder = Builder::new();
    let rules = worker.rules();
    let head_max = rules.limits.bytes;
    builder.max_concurrent_streams(STREAMS_MAX);
    builder.max_header_list_size(u32::try_from(head_max).unwrap_or(u32::MAX));
    builder.initial_window_size(WINDOW).initial_connection_window_size(4 * WINDOW);
    builder.max_send_buffer_size(UNSENT);
    let io = Held(Rc::new(RefCell::new(io)));
    let greeting = builder.handshake(Held(Rc::clone(&io.0)));
    match tokio::time::timeout(rules.timeouts.head, greeting).await {
        Ok(Ok(connection)) => {
            requests(worker, connection, peer, head_max).await;
            // Frames that cross our last ones must not end in a reset, which destroys those.
            let _ended = tokio::time::timeout(LINGER, io.drain()).await;
        }
        Ok(Err(error)) => debug!(%error, "no HTTP/2"),
        Err(_elapsed) => debug!("HTTP/2 did not begin in time"),
    }
}

/// Serves the requests of a connection. Their heads have at most `head_max` bytes: the client was
/// told so, and that stands as long as the connection. Where the limit is raised meanwhile, the
/// client is asked for a new connection.
async fn requests<T>(
    worker: Rc<Worker>,
    mut connection: Connection<Held<T>, Bytes>,
    peer: Peer,
    head_max: usize,
) where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut reloads = worker.common.reloads();
    let active = Active::new();
    // A client that was told goodbye has so long to take its last answers in and to end.
    let (mut told, mut span) = (false, worker.rules().timeouts.keep_alive);
    let mut stopping = false;
    if peer.is_surplus {
        span = peer.patience(span);
    }
    loop {
        let wait = span.saturating_sub(active.idle()).max(Duration::from_millis(10));
        let accepted = tokio::select! {
            accepted = connection.accept() => accepted,
            () = worker.shared.stopped(), if !stopping => {
                (stopping, told, span) = (true, true, worker.rules().timeouts.client_body);
                connection.graceful_shutdown();
                active.moved.set(Instant::now());
                continue;
            }
            _ = reloads.changed(), if !told => {
                if worker.rules().limits.bytes > head_max {
                    (told, span) = (true, worker.rules().timeouts.client_body);
                    connection.graceful_shutdown();
                    active.moved.set(Instant::now());
                }
                continue;
            }
            () = tokio::time::sleep(wait) => {
                if active.idle() < span {
                    continue;
                }
                if told {
                    return debug!("client does not end its connection");
                }
                (told, span) = (true, worker.rules().timeouts.client_body);
                connection.graceful_shutdown();
                active.moved.set(Instant::now());
                continue;
            }
        };
        match accepted {
            Some(Ok((request, mut respond))) => {
                // Nothing was done for it: the client may ask again elsewhere (RFC 9113 8.7).
                if worker.shared.is_stopping() || active.count.get() >= ACTIVE_MAX {
                    respond.send_reset(Reason::REFUSED_STREAM);
                    continue;
                }
                if peer.is_surplus && !told {
                    (told, span) = (true, LINGER);
                    connection.graceful_shutdown();
                }
                let counted = active.begin();
                let one = one(Rc::clone(&worker), peer.clone(), request, respond);
                actix_web::rt::spawn(async move {
                    one.await;
                    drop(counted);
                });
            }
            Some(Err(error)) => {
                debug!(%error, "HTTP/2 connection broke off");
                return;
            }
            None => return,
        }
    }
}

/// One request, through a session of its own.
async fn one(
    worker: Rc<Worker>,
    peer: Peer,
    request: http::Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let (near, far) = duplex(PIPE);
    let wire = Wire::new(Stream::Pipe(near), Rc::clone(&worker.buffers));
    let (limits, patience) = {
        let rules = worker.rules();
        (rules.response_limits, rules.timeouts.client_body)
    };
    let session = Session::new(worker, Stream::Pipe(far), peer);
    let bridged = async {
        tokio::select! {
            bridged = bridge(RefCell::new(wire), limits, patience, request, &mut respond) => bridged,
            // The session ends when it has nothing more to say; the bridge still has to pass it
            // on.
            () = async { session.run().await; pending().await } => Ok(()),
        }
    };
    if let Err(error) = bridged.await {
        debug!(?error, "HTTP/2 request broke off");
        respond.send_reset(error.reason());
    }
}

/// Passes a request into the pipe and the answer out of it, both as they come. A client that takes
/// nothing for as long as `patience` is given up.
async fn bridge(
    wire: RefCell<Wire>,
    limits: HeadLimits,
    patience: Duration,
    request: http::Request<RecvStream>,
    respond: &mut SendResponse<Bytes>,
) -> Result<(), Broken> {
    let (head, body) = request.into_parts();
    let to_head = head.method == http::Method::HEAD;
    let framing = put_request(&head, body.is_end_stream(), wire.borrow_mut().output());
    let up = upload(&wire, body, framing);
    let down = download(&wire, &limits, patience, to_head, respond);
    tokio::pin!(up, down);
    tokio::select! {
        // An answer may come before the end of the request; then that is not wanted any more.
        answered = &mut down => answered,
        uploaded = &mut up => match uploaded {
            // Who takes no more of the request may have answered.
            Ok(()) | Err(Broken::Pipe(_)) => down.await,
            Err(error) => Err(error),
        },
    }
}

/// Writes the head of the request as HTTP/1.1 would have it.
fn put_request(head: &request::Parts, ended: bool, out: &mut Vec<u8>) -> Framing {
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    // RFC 9113 8.3.1: `:authority` is what `Host` was.
    let authority = head.uri.authority().map(|authority| authority.as_str().as_bytes());
    let host = authority.or_else(|| head.headers.get(HOST).map(HeaderValue::as_bytes));
    if let Some(host) = host {
        put(out, b"Host", host);
    }
    put_fields(&head.headers, out);
    let length = head.headers.get(CONTENT_LENGTH);
    let framing = match length.and_then(|length| length.to_str().ok()?.parse().ok()) {
        Some(length) => Framing::Length(length),
        None if ended => Framing::None,
        None => Framing::Chunked,
    };
    super::message::put_framing(out, framing);
    // The pipe carries this request only.
    out.extend_from_slice(b"Connection: close\r\n\r\n");
    framing
}

/// Fields but those that are written from elsewhere. What HTTP/2 does not let in (RFC 9113 8.2.2)
/// has been refused before. Go-aheads are not passed on: who would wait for one need not.
fn put_fields(headers: &HeaderMap, out: &mut Vec<u8>) {
    let mut cookies = headers.get_all(COOKIE).iter().peekable();
    for (name, value) in headers {
        if ![HOST, CONTENT_LENGTH, COOKIE, EXPECT].contains(name) {
            put(out, name.as_str().as_bytes(), value.as_bytes());
        }
    }
    // RFC 9113 8.2.3: one field again.
    if cookies.peek().is_some() {
        let all: Vec<&[u8]> = cookies.map(HeaderValue::as_bytes).collect();
        put(out, b"cookie", &all.join(&b"; "[..]));
    }
}

async fn upload(
    wire: &RefCell<Wire>,
    mut body: RecvStream,
    framing: Framing,
) -> Result<(), Broken> {
    let mut writer = Writer::new(framing);
    poll_fn(|cx| wire.borrow_mut().poll_flush(cx)).await?;
    while let Some(content) = body.data().await {
        let mut content = content?;
        let length = content.len();
        while !content.is_empty() {
            let taken =
                poll_fn(|cx| wire.borrow_mut().poll_content(cx, &mut writer, &content)).await?;
            let _taken = content.split_to(taken);
        }
        poll_fn(|cx| wire.borrow_mut().poll_flush(cx)).await?;
        body.flow_control().release_capacity(length)?;
    }
    let trailers = body.trailers().await?;
    if let Writer::Chunked { .. } = writer {
        let mut wire = wire.borrow_mut();
        let out = wire.output();
        out.extend_from_slice(b"0\r\n");
        for (name, value) in trailers.iter().flatten() {
            put(out, name.as_str().as_bytes(), value.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }
    poll_fn(|cx| wire.borrow_mut().poll_flush(cx)).await?;
    Ok(())
}

async fn download(
    wire: &RefCell<Wire>,
    limits: &HeadLimits,
    patience: Duration,
    to_head: bool,
    respond: &mut SendResponse<Bytes>,
) -> Result<(), Broken> {
    let (mut head, mut answer) = (Head::<StatusLine>::new(), Answer::new());
    let length = loop {
        // Our own head may be a little larger than the replica's.
        let limits =
            HeadLimits { bytes: limits.bytes + 1_024, fields: limits.fields + 8, ..*limits };
        let read = head.parse(wire.borrow().input(), &limits)?;
        if let Some(length) = read {
            answer.read(&head, &wire.borrow().input()[..length], to_head)?;
            break length;
        }
        tokio::select! {
            filled = fill(wire) => filled?,
            reason = poll_fn(|cx| respond.poll_reset(cx)) => {
                return Err(h2::Error::from(reason?).into());
            }
        }
    };
    // Requests of many streams share a client's connection, so that it cannot be authenticated as a
    // whole. A browser asks again over HTTP/1.1 (RFC 9113 7), as it does with IIS.
    if matches!(answer.status, 401 | 407) && answer.auth.binds_only() {
        return Err(Broken::Http11Required);
    }
    let response = response(&head, &answer, &wire.borrow().input()[..length])?;
    wire.borrow_mut().consume(length);
    let mut body = Body::new(answer.framing);
    let mut send = respond.send_response(response, body.is_ended())?;
    if body.is_ended() {
        return Ok(());
    }
    loop {
        let next = body.next(wire.borrow().input())?;
        match next {
            Next::Content { skip, length } => {
                wire.borrow_mut().consume(skip);
                let length = capacity(&mut send, length, patience).await?;
                let content = Bytes::copy_from_slice(&wire.borrow().input()[..length]);
                send.send_data(content, false)?;
                wire.borrow_mut().consume(length);
                body.taken(length);
            }
            Next::End { skip } => {
                wire.borrow_mut().consume(skip);
                return end(&body, &mut send);
            }
            Next::More => {
                let framing = wire.borrow().input().len();
                wire.borrow_mut().consume(framing);
                match tokio::select! {
                    filled = fill(wire) => filled,
                    reason = poll_fn(|cx| send.poll_reset(cx)) => {
                        return Err(h2::Error::from(reason?).into());
                    }
                } {
                    Err(error)
                        if error.kind() == io::ErrorKind::UnexpectedEof && body.ends_here() => {}
                    filled => filled?,
                }
            }
        }
    }
}

async fn fill(wire: &RefCell<Wire>) -> io::Result<()> {
    match poll_fn(|cx| wire.borrow_mut().poll_fill(cx)).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

/// Waits until the client takes some of `wanted` bytes; how many.
async fn capacity(
    send: &mut SendStream<Bytes>,
    wanted: usize,
    patience: Duration,
) -> Result<usize, Broken> {
    send.reserve_capacity(wanted);
    loop {
        let room = send.capacity();
        if room > 0 {
            return Ok(room.min(wanted));
        }
        match tokio::time::timeout(patience, poll_fn(|cx| send.poll_capacity(cx))).await {
            Ok(Some(room)) => room?,
            Ok(None) => return Err(io::Error::from(io::ErrorKind::BrokenPipe).into()),
            Err(_elapsed) => return Err(Broken::Late),
        };
    }
}

fn response(
    head: &Head<StatusLine>,
    answer: &Answer,
    bytes: &[u8],
) -> Result<Response<()>, Broken> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(answer.status).map_err(http::Error::from)?;
    let headers = response.headers_mut();
    let crosses = |line: &&Line| !line.kind.is_hop_by_hop();
    for line in head.lines().iter().filter(crosses) {
        let name = HeaderName::from_bytes(line.name.of(bytes)).map_err(http::Error::from)?;
        let value = HeaderValue::from_bytes(line.value.of(bytes)).map_err(http::Error::from)?;
        headers.append(name, value);
    }
    if let Some(length) = answer.length {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    Ok(response)
}

fn end(body: &Body, send: &mut SendStream<Bytes>) -> Result<(), Broken> {
    let mut raw = Vec::new();
    body.put_trailers(&mut raw)?;
    let mut trailers = HeaderMap::new();
    let mut start = 0;
    while let Some(length) = raw[start..].windows(2).position(|end| end == b"\r\n") {
        let line = Line::parse(&raw, start, start + length, false)?;
        let name = HeaderName::from_bytes(line.name.of(&raw)).map_err(http::Error::from)?;
        let value = HeaderValue::from_bytes(line.value.of(&raw)).map_err(http::Error::from)?;
        trailers.append(name, value);
        start += length + 2;
    }
    match trailers.is_empty() {
        true => send.send_data(Bytes::new(), true)?,
        false => send.send_trailers(trailers)?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_written_as_http_1_would_have_it() {
        let request = http::Request::builder()
            .method("POST")
            .uri("https://site.example:8443/a/../b?x=%2F")
            .header("cookie", "a=1")
            .header("x-one", "1")
            .header("cookie", "b=2")
            .header("host", "other.example")
            .header("expect", "100-continue")
            .body(())
            .unwrap();
        let (head, ()) = request.into_parts();
        let mut out = Vec::new();
        assert_eq!(put_request(&head, false, &mut out), Framing::Chunked);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "POST /a/../b?x=%2F HTTP/1.1\r\nHost: site.example:8443\r\nx-one: 1\r\n\
             cookie: a=1; b=2\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        );
    }
}
