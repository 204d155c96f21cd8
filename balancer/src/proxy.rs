//! The request path: key → choose → send → relay.

pub mod error;
pub mod headers;
pub mod relay;
pub mod upstream;

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::Arc;

use actix_http::body::{BodySize, MessageBody as _};
use actix_web::dev::Payload;
use actix_web::http::{Method, StatusCode, Version};
use actix_web::{HttpRequest, HttpResponse, web};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use smallvec::SmallVec;
use tracing::debug;

use crate::config::{Config, Timeouts};
use crate::reply;
use crate::routing::key::{Key, KeySource, RequestView};
use crate::routing::policy::Policy;
use crate::routing::table::ReplicaId;
use crate::state::Shared;
use error::ProxyError;
use relay::relay;
use upstream::{Failure, Outgoing, Upstream};

/// How many replicas a request is tried at, at most.
const MAX_TRIES: usize = 5;

/// What one worker thread needs to forward.
pub struct Proxy {
    shared: Arc<Shared>,
    upstream: Rc<Upstream>,
    policy: Policy,
    key: KeySource,
    unknown_path: bool,
    rng: RefCell<StdRng>,
}

/// A request as keys see it.
struct View<'a>(&'a HttpRequest);

// === impl Proxy ===

impl Proxy {
    /// A worker's own, with a pool of its own.
    pub fn new(config: &Config, shared: Arc<Shared>) -> Self {
        let Timeouts { connect, first_byte, keep_alive, .. } = config.timeouts;
        Self {
            shared,
            upstream: Rc::new(Upstream::new(connect, first_byte, keep_alive)),
            policy: config.policy,
            key: config.key.clone(),
            unknown_path: config.unknown_path,
            rng: RefCell::new(StdRng::from_rng(&mut rand::rng())),
        }
    }

    async fn send(&self, request: &HttpRequest, body: Payload) -> Result<HttpResponse, ProxyError> {
        let key = Key::of(&View(request), &self.key, &mut *self.rng.borrow_mut());
        let table = self.shared.table();
        let mut outgoing = Outgoing::new(request, body)?;
        let mut tried: SmallVec<[ReplicaId; MAX_TRIES]> = SmallVec::new();
        loop {
            let accept = |id: ReplicaId| !tried.contains(&id);
            let chosen = self.policy.choose(&table, &key, |replica| accept(replica.id()));
            let Some(replica) = chosen else {
                return Err(ProxyError::NoReplica);
            };
            tried.push(replica.id());
            let Some(in_flight) = replica.enter() else {
                continue;
            };
            match self.upstream.send(replica, &mut outgoing).await {
                Ok(answer) if self.unknown_path && answer.status == StatusCode::NOT_FOUND => {
                    return Err(ProxyError::UnknownPath(request.path().to_owned()));
                }
                Ok(answer) => return Ok(relay(answer, in_flight)),
                Err(failure) => {
                    let hostname = replica.hostname();
                    debug!(%hostname, error = ?failure, tries = tried.len(), "replica failed");
                    let last = tried.len() == MAX_TRIES || tried.len() >= table.ready_count();
                    if last || !outgoing.may_go_elsewhere(&failure) {
                        return Err(failure.into());
                    }
                }
            }
        }
    }
}

/// Forwards a request; the one place where a failure becomes an answer.
pub async fn forward(
    request: HttpRequest,
    payload: web::Payload,
    proxy: web::Data<Proxy>,
) -> HttpResponse {
    // RFC 9110 9.3.6: nothing behind this balancer is a tunnel's end.
    let outcome = if request.method() == Method::CONNECT {
        Err(ProxyError::Connect)
    } else {
        proxy.send(&request, payload.into_inner()).await
    };
    let mut answer = outcome.unwrap_or_else(|error| {
        debug!(%error, path = ?request.path(), "request failed");
        let mut answer = HttpResponse::build(error.status());
        if error.ends_connection() {
            answer.force_close();
        }
        reply::failure_with(answer, error.status(), &error.to_string())
    });
    // RFC 9112 6.1: a client of HTTP/1.0 knows no chunks; the end of the connection ends the body.
    let unframed = request.version() < Version::HTTP_11 && answer.body().size() == BodySize::Stream;
    if unframed {
        answer.head_mut().no_chunking(true);
    }
    if unframed || proxy.shared.is_stopping() {
        answer.head_mut().set_connection_type(actix_http::ConnectionType::Close);
    }
    answer
}

impl From<Failure> for ProxyError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Connect(_) | Failure::NotSent => ProxyError::Unreachable,
            Failure::Lost(_) => ProxyError::Lost,
            Failure::Late => ProxyError::Late,
            Failure::Client => ProxyError::ClientBody,
        }
    }
}

// === impl View ===

impl RequestView for View<'_> {
    fn path(&self) -> &str {
        self.0.uri().path()
    }

    fn query(&self) -> Option<&str> {
        self.0.uri().query()
    }

    fn header(&self, name: &str) -> Option<&[u8]> {
        self.0.headers().get(name).map(|value| value.as_bytes())
    }

    fn client_ip(&self) -> IpAddr {
        self.0.peer_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip())
    }
}
