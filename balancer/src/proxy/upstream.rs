//! Connections to replicas: a small pool of HTTP/1.1 connections for each replica, one per worker
//! thread. hyper's client types stay in here.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use actix_web::HttpRequest;
use actix_web::dev::Payload;
use actix_web::error::PayloadError;
use actix_web::http::header::{self as web_header, HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{StatusCode, Version};
use actix_web::rt::spawn;
use bytes::Bytes;
use futures_util::Stream as _;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header;
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{sleep, sleep_until};
use tracing::debug;

use super::error::ProxyError;
use super::headers::HopByHop;
use crate::routing::table::{Replica, ReplicaId};

/// Idle connections kept for one replica by one worker.
const IDLE_MAX: usize = 256;

/// How often a connection under way looks whether its replica has died meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// How often a pool looks for connections that have idled too long.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// One worker's connections.
pub struct Upstream {
    connect: Duration,
    first_byte: Duration,
    keep_alive: Duration,
    pool: RefCell<Pool>,
}

struct Pool {
    /// By identity, never by address: a stranger may get a dead replica's address.
    idle: HashMap<ReplicaId, Vec<Idle>>,
    swept: Instant,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

/// A connection; its task ends with it.
struct Connection {
    sender: SendRequest<RequestBody>,
    task: JoinHandle<()>,
}

/// A client's request on its way to replicas.
pub struct Outgoing<'a> {
    request: &'a HttpRequest,
    target: hyper::Uri,
    method: hyper::Method,
    framing: Framing,
    /// Gone once it was given to a connection that took it.
    body: Option<RequestBody>,
    progress: Rc<Progress>,
}

/// How the request's body is delimited (RFC 9112 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    None,
    Length(u64),
    Chunked,
}

/// The client's body as a connection reads it.
struct RequestBody {
    payload: Option<Payload>,
    framing: Framing,
    taken: u64,
    progress: Rc<Progress>,
}

/// How far the client's body has come.
struct Progress {
    last: Cell<Instant>,
    ended: Cell<bool>,
    broken: Cell<bool>,
}

/// Why a replica did not answer.
#[derive(Debug)]
pub enum Failure {
    /// It could not be connected to: it has nothing of the request.
    Connect(io::Error),
    /// The connection closed before the request was written: it has nothing of it.
    NotSent,
    /// The connection ended, or brought nonsense, before the head of an answer was whole.
    Lost(hyper::Error),
    /// The head of an answer did not come in time.
    Late,
    /// The client's body broke off.
    Client,
}

/// A replica's answer.
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its fields, all of them.
    pub headers: HeaderMap,
    /// Its body.
    pub body: AnswerBody,
    /// The length that it announced.
    pub length: Option<u64>,
}

/// The body of an answer; its connection goes back to the pool at the end, and is closed when the
/// end is not reached.
pub struct AnswerBody {
    body: Incoming,
    back: Option<Back>,
}

struct Back {
    connection: Connection,
    to: Rc<Upstream>,
    id: ReplicaId,
    sent: Rc<Progress>,
}

/// The body of an answer ended before its announced end.
#[derive(Debug, Error)]
#[error("the replica's answer was cut short")]
pub struct BodyError(#[source] hyper::Error);

// === impl Upstream ===

impl Upstream {
    /// Connects within `connect`, waits for an answer's head for `first_byte` after the last byte
    /// of the request, keeps idle connections for `keep_alive`.
    pub fn new(connect: Duration, first_byte: Duration, keep_alive: Duration) -> Self {
        let pool = Pool { idle: HashMap::new(), swept: Instant::now() };
        Self { connect, first_byte, keep_alive, pool: RefCell::new(pool) }
    }

    /// Sends the request to `replica` and waits for the head of its answer. A connection that had
    /// closed while it was idle is not the replica's failure: a fresh one is tried, where the
    /// request cannot have been acted upon or may be repeated.
    pub async fn send(
        self: &Rc<Self>,
        replica: &Replica,
        outgoing: &mut Outgoing<'_>,
    ) -> Result<Answer, Failure> {
        while let Some(pooled) = self.take(replica.id()) {
            let Some(connection) = pooled.ready().await else {
                continue;
            };
            match self.exchange(connection, replica.id(), outgoing).await {
                Err(failure @ (Failure::NotSent | Failure::Lost(_)))
                    if outgoing.may_go_elsewhere(&failure) =>
                {
                    debug!(hostname = %replica.hostname(), "pooled connection had closed");
                }
                outcome => return outcome,
            }
        }
        let connection = self.open(replica).await?;
        self.exchange(connection, replica.id(), outgoing).await
    }

    async fn open(&self, replica: &Replica) -> Result<Connection, Failure> {
        let stream = self.dial(replica).await.map_err(Failure::Connect)?;
        stream.set_nodelay(true).map_err(Failure::Connect)?;
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(Failure::Lost)?;
        let task = spawn(async move {
            // Whoever waits for an answer gets the error too.
            if let Err(error) = connection.await {
                debug!(%error, "connection to a replica ended");
            }
        });
        Ok(Connection { sender, task })
    }

    /// Connects. The address of a container that died answers nothing at all, so a connection
    /// under way is given up as soon as the death is known.
    async fn dial(&self, replica: &Replica) -> io::Result<TcpStream> {
        let deadline = Instant::now() + self.connect;
        let mut connecting = std::pin::pin!(TcpStream::connect(replica.address()));
        loop {
            tokio::select! {
                biased;
                stream = &mut connecting => return stream,
                () = sleep(LOOK_AGAIN) => {
                    if replica.is_dead() {
                        return Err(io::ErrorKind::NotConnected.into());
                    }
                    if deadline <= Instant::now() {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
            }
        }
    }

    async fn exchange(
        self: &Rc<Self>,
        mut connection: Connection,
        id: ReplicaId,
        outgoing: &mut Outgoing<'_>,
    ) -> Result<Answer, Failure> {
        let Some(request) = outgoing.message() else {
            return Err(Failure::NotSent);
        };
        let answer = {
            let mut answer = std::pin::pin!(connection.sender.try_send_request(request));
            let progress = Rc::clone(&outgoing.progress);
            progress.last.set(Instant::now());
            loop {
                // A long upload is no late answer: the clock runs from its last byte.
                let deadline = progress.last.get() + self.first_byte;
                tokio::select! {
                    biased;
                    answer = &mut answer => break answer,
                    () = sleep_until(deadline.into()) => {
                        if progress.last.get() + self.first_byte <= Instant::now() {
                            return Err(Failure::Late);
                        }
                    }
                }
            }
        };
        match answer {
            Ok(answer) => {
                let sent = Rc::clone(&outgoing.progress);
                let back = Back { connection, to: Rc::clone(self), id, sent };
                Ok(Answer::new(answer, back))
            }
            Err(mut error) => {
                if outgoing.progress.broken.get() {
                    return Err(Failure::Client);
                }
                match error.take_message() {
                    Some(request) => {
                        outgoing.body = Some(request.into_body());
                        Err(Failure::NotSent)
                    }
                    None => Err(Failure::Lost(error.into_error())),
                }
            }
        }
    }

    fn take(&self, id: ReplicaId) -> Option<Connection> {
        let idle = self.pool.borrow_mut().idle.get_mut(&id)?.pop()?;
        Some(idle.connection)
    }

    fn put(&self, id: ReplicaId, connection: Connection) {
        let now = Instant::now();
        let mut pool = self.pool.borrow_mut();
        let idle = pool.idle.entry(id).or_default();
        if idle.len() < IDLE_MAX {
            idle.push(Idle { connection, since: now });
        }
        if now.duration_since(pool.swept) >= SWEEP_EVERY {
            pool.swept = now;
            pool.idle.retain(|_, idle| {
                idle.retain(|idle| idle.is_fresh(now, self.keep_alive));
                !idle.is_empty()
            });
        }
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").finish_non_exhaustive()
    }
}

// === impl Idle ===

impl Idle {
    fn is_fresh(&self, now: Instant, keep_alive: Duration) -> bool {
        !self.connection.sender.is_closed() && now.duration_since(self.since) < keep_alive
    }
}

// === impl Connection ===

impl Connection {
    /// Waits until the last exchange has wound up; `None` when the connection has closed.
    async fn ready(mut self) -> Option<Self> {
        self.sender.ready().await.is_ok().then_some(self)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

// === impl Outgoing ===

impl<'a> Outgoing<'a> {
    /// Takes a client's request and its body.
    ///
    /// # Errors
    /// When its method or target cannot be written to a replica.
    pub fn new(request: &'a HttpRequest, payload: Payload) -> Result<Self, ProxyError> {
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
        let target = target.parse().map_err(|_bad| ProxyError::Malformed("its target"))?;
        let method = hyper::Method::from_bytes(request.method().as_str().as_bytes())
            .map_err(|_bad| ProxyError::Malformed("its method"))?;
        let framing = Framing::of(request)?;
        let bodiless = matches!(framing, Framing::None | Framing::Length(0));
        let progress = Rc::new(Progress::new(bodiless));
        let payload = (framing != Framing::None).then_some(payload);
        let body = RequestBody { payload, framing, taken: 0, progress: Rc::clone(&progress) };
        Ok(Self { request, target, method, framing, body: Some(body), progress })
    }

    /// Whether another replica may get the request after this failure: when the first has nothing
    /// of it, or when doing it twice is as good as once (RFC 9110 9.2.2) and its body is not gone.
    pub fn may_go_elsewhere(&self, failure: &Failure) -> bool {
        match failure {
            Failure::Connect(_) | Failure::NotSent => self.message_is_whole(),
            Failure::Lost(_) => self.method.is_idempotent() && self.message_is_whole(),
            Failure::Late | Failure::Client => false,
        }
    }

    fn message_is_whole(&self) -> bool {
        self.framing == Framing::None || self.body.is_some()
    }

    /// The message to a replica; `None` when its body is gone.
    fn message(&mut self) -> Option<hyper::Request<RequestBody>> {
        let body = match self.framing {
            Framing::None => RequestBody {
                payload: None,
                framing: Framing::None,
                taken: 0,
                progress: Rc::clone(&self.progress),
            },
            Framing::Length(_) | Framing::Chunked => self.body.take()?,
        };
        let mut message = hyper::Request::new(body);
        *message.method_mut() = self.method.clone();
        *message.uri_mut() = self.target.clone();
        *message.headers_mut() = self.headers();
        Some(message)
    }

    fn headers(&self) -> hyper::HeaderMap {
        let given = self.request.headers();
        let hop = HopByHop::of(given);
        let mut headers = hyper::HeaderMap::with_capacity(given.len() + 3);
        for (name, value) in given {
            let ours = FORWARDED.contains(&name.as_str())
                || name == web_header::EXPECT
                || name == web_header::CONTENT_LENGTH;
            if hop.has(name) || ours {
                continue;
            }
            // Both are field names and values by the same grammar; what one library takes and the
            // other does not is left out.
            let name = header::HeaderName::from_bytes(name.as_str().as_bytes());
            let value = header::HeaderValue::from_bytes(value.as_bytes());
            if let (Ok(name), Ok(value)) = (name, value) {
                headers.append(name, value);
            }
        }
        match self.framing {
            Framing::None => {}
            Framing::Length(length) => {
                headers.insert(header::CONTENT_LENGTH, length.into());
            }
            Framing::Chunked => {
                let chunked = header::HeaderValue::from_static("chunked");
                headers.insert(header::TRANSFER_ENCODING, chunked);
            }
        }
        let peer = self.request.peer_addr().map(|peer| peer.ip().to_canonical().to_string());
        let peer = peer.and_then(|peer| peer.try_into().ok());
        let host = headers.get(header::HOST).cloned();
        let proto = Some(header::HeaderValue::from_static("http"));
        for (name, value) in FORWARDED.into_iter().zip([peer, proto, host]) {
            if let Some(value) = value {
                headers.insert(header::HeaderName::from_static(name), value);
            }
        }
        headers
    }
}

/// What the balancer says of the client itself; a client's own values are not believed.
const FORWARDED: [&str; 3] = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"];

// === impl Framing ===

impl Framing {
    fn of(request: &HttpRequest) -> Result<Self, ProxyError> {
        let headers = request.headers();
        if headers.contains_key(web_header::TRANSFER_ENCODING) {
            return Ok(Framing::Chunked);
        }
        let Some(length) = headers.get(web_header::CONTENT_LENGTH) else {
            // HTTP/2 bodies need no length.
            let unknown = request.version() >= Version::HTTP_2;
            return Ok(if unknown { Framing::Chunked } else { Framing::None });
        };
        let length = length.to_str().ok().and_then(|length| length.trim().parse::<u64>().ok());
        match length {
            Some(0) if request.method().is_safe() => Ok(Framing::None),
            Some(length) => Ok(Framing::Length(length)),
            None => Err(ProxyError::Malformed("its Content-Length")),
        }
    }
}

// === impl RequestBody ===

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(payload) = &mut self.payload else {
            return Poll::Ready(None);
        };
        let chunk: Option<Result<Bytes, PayloadError>> = ready!(Pin::new(payload).poll_next(cx));
        self.progress.last.set(Instant::now());
        match chunk {
            Some(Ok(bytes)) => {
                self.taken += bytes.len() as u64;
                // A body of an announced length is not asked for its end.
                self.progress.ended.set(self.framing == Framing::Length(self.taken));
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Some(Err(error)) => {
                self.progress.broken.set(true);
                Poll::Ready(Some(Err(error.to_string().into())))
            }
            None => {
                self.payload = None;
                self.progress.ended.set(true);
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.payload.is_none() || self.framing == Framing::Length(self.taken)
    }

    fn size_hint(&self) -> SizeHint {
        match self.framing {
            Framing::None => SizeHint::with_exact(0),
            Framing::Length(length) => SizeHint::with_exact(length.saturating_sub(self.taken)),
            Framing::Chunked => SizeHint::default(),
        }
    }
}

// === impl Progress ===

impl Progress {
    fn new(ended: bool) -> Self {
        Self { last: Cell::new(Instant::now()), ended: Cell::new(ended), broken: Cell::new(false) }
    }
}

// === impl Answer ===

impl Answer {
    fn new(answer: hyper::Response<Incoming>, back: Back) -> Self {
        let (head, body) = answer.into_parts();
        let status = StatusCode::from_u16(head.status.as_u16()).unwrap_or(StatusCode::BAD_GATEWAY);
        let mut headers = HeaderMap::with_capacity(head.headers.len());
        for (name, value) in &head.headers {
            let name = HeaderName::from_bytes(name.as_str().as_bytes());
            let value = HeaderValue::from_bytes(value.as_bytes());
            if let (Ok(name), Ok(value)) = (name, value) {
                headers.append(name, value);
            }
        }
        let announced = head.headers.get(header::CONTENT_LENGTH);
        let announced = announced.and_then(|length| length.to_str().ok()?.parse().ok());
        let length = body.size_hint().exact();
        let length = if body.is_end_stream() { announced.or(length) } else { length };
        let mut body = AnswerBody { body, back: Some(back) };
        if body.body.is_end_stream() {
            body.give_back();
        }
        Self { status, headers, body, length }
    }
}

// === impl AnswerBody ===

impl AnswerBody {
    /// The next bytes; an error where the answer broke off.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        loop {
            let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)) else {
                self.give_back();
                return Poll::Ready(None);
            };
            match frame {
                // Trailers are not forwarded.
                Ok(frame) => {
                    if let Ok(bytes) = frame.into_data() {
                        return Poll::Ready(Some(Ok(bytes)));
                    }
                }
                Err(error) => {
                    self.back = None;
                    return Poll::Ready(Some(Err(BodyError(error))));
                }
            }
        }
    }

    /// The answer is whole; the connection is good for another if the request is, too.
    fn give_back(&mut self) {
        if let Some(Back { connection, to, id, sent }) = self.back.take()
            && sent.ended.get()
        {
            to.put(id, connection);
        }
    }
}
