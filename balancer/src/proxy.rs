//! The request path: key → choose → send → relay.
//!
//! | module | what it does |
//! |---|---|
//! | [`session`] | a client's connection: its requests, one after another |
//! | [`exchange`] | one request: choose, send, relay; what is done when a step fails |
//! | [`upstream`] | connections to replicas, kept between requests |
//! | [`message`] | the heads that are sent on |
//! | [`tls`], [`http2`] | TLS for clients; their HTTP/2 requests, through the same engine |
//! | [`tunnel`] | a connection that has changed its protocol |
//! | [`own`] | the balancer's own routes on the same listener |
//! | [`wire`] | bytes in and out of one connection |
//! | [`timer`], [`clock`], [`gate`], [`peer`], [`error`] | deadlines, dates, limits, clients, failures |

pub mod clock;
pub mod error;
pub mod exchange;
pub mod gate;
pub mod http2;
pub mod message;
pub mod own;
pub mod peer;
pub mod session;
pub mod timer;
pub mod tls;
pub mod tunnel;
pub mod upstream;
pub mod wire;

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use slab::Slab;
use tokio::net::TcpStream;
use tracing::debug;

use crate::config::{Config, RetryConfig, Timeouts};
use crate::http1::head::HeadLimits;
use crate::routing::budget::{Budget, BudgetConfig};
use crate::routing::key::{KeySource, RequestView};
use crate::routing::policy::Policy;
use crate::routing::table::{Replica, ReplicaId, Table};
use crate::state::Shared;
use clock::Clock;
use gate::Gate;
use message::Asked;
use own::Own;
use peer::Peer;
use session::Session;
use tls::Certificates;
use upstream::Upstream;
use wire::{Buffers, Stream};

/// How often a worker looks for connections that ended or idled for too long.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// What all workers of a listener share.
#[derive(Debug)]
pub struct Common {
    gate: Arc<Gate>,
    /// The part of the retry budget that does not come from a worker's own requests.
    floor: Mutex<Budget>,
    since: Instant,
}

/// What one worker thread has.
pub struct Worker {
    shared: Arc<Shared>,
    common: Arc<Common>,
    own: Option<Own>,
    upstream: Upstream,
    buffers: Rc<Buffers>,
    policy: Policy,
    key: KeySource,
    timeouts: Timeouts,
    limits: HeadLimits,
    body_limit: Option<u64>,
    retry: RetryConfig,
    /// Failures in a row that eject a replica; 0 for none.
    outliers: u32,
    share: RefCell<Budget>,
    trust: Vec<IpNet>,
    via: Option<String>,
    unknown_path: bool,
    half_close: bool,
    rng: RefCell<SmallRng>,
    clock: RefCell<Clock>,
    /// Connections on which nothing is under way, to be told when the balancer stops.
    resting: RefCell<Slab<Waker>>,
}

/// A request as keys see it.
struct View<'a> {
    asked: &'a Asked<'a>,
    trust: &'a [IpNet],
}

// === impl Common ===

impl Common {
    /// As the configuration says.
    pub fn new(config: &Config) -> Arc<Self> {
        let limits = &config.limits;
        let min_per_second = f64::from(config.retry.min_per_second);
        Arc::new(Self {
            gate: Gate::new(limits.connections, limits.connections_per_client),
            floor: Mutex::new(Budget::new(
                BudgetConfig { share: 0.0, min_per_second },
                Duration::ZERO,
            )),
            since: Instant::now(),
        })
    }
}

// === impl Worker ===

impl Worker {
    /// A worker with a pool of its own; `own` are the balancer's routes, if they are here. It
    /// looks after its connections until the balancer stops.
    pub fn start(
        config: &Config,
        shared: Arc<Shared>,
        common: Arc<Common>,
        own: Option<Own>,
    ) -> Rc<Self> {
        let Timeouts { connect, keep_alive, .. } = config.timeouts;
        let limits = &config.limits;
        let idle = limits.idle / config.workers;
        let buffers = Rc::<Buffers>::default();
        let share = BudgetConfig { share: config.retry.budget, min_per_second: 0.0 };
        let worker = Rc::new(Self {
            shared,
            own,
            upstream: Upstream::new(connect, keep_alive, idle, Rc::clone(&buffers)),
            buffers,
            policy: config.policy,
            key: config.key.clone(),
            timeouts: config.timeouts,
            limits: HeadLimits { bytes: limits.head, fields: limits.fields, target: limits.target },
            body_limit: limits.body,
            retry: config.retry,
            outliers: config.outliers.consecutive,
            share: RefCell::new(Budget::new(share, common.since.elapsed())),
            common,
            trust: config.forwarded.trust.clone(),
            via: config.forwarded.via.clone(),
            unknown_path: config.unknown_path,
            half_close: config.half_close,
            rng: RefCell::new(SmallRng::from_rng(&mut rand::rng())),
            clock: RefCell::default(),
            resting: RefCell::default(),
        });
        actix_web::rt::spawn(Self::look_after(Rc::clone(&worker)));
        worker
    }

    async fn look_after(self: Rc<Self>) {
        let stopped = self.shared.stopped();
        tokio::pin!(stopped);
        loop {
            tokio::select! {
                () = &mut stopped => break,
                () = tokio::time::sleep(SWEEP_EVERY) => self.upstream.sweep(),
            }
        }
        // Requests in flight go on; who waits for a next one waits in vain.
        for waker in self.resting.borrow_mut().drain() {
            waker.wake();
        }
    }

    /// Serves one client's connection to its end: TLS, where there is a certificate.
    pub async fn serve(self: Rc<Self>, stream: TcpStream, tls: Option<Arc<Certificates>>) {
        // One that has gone already has no address.
        let Ok(address) = stream.peer_addr() else { return };
        let gate = Arc::clone(&self.common.gate);
        let admitted = gate.admit(address.ip());
        let scheme = if tls.is_some() { "https" } else { "http" };
        let peer = Peer::new(address.ip(), scheme, &self.trust);
        match (admitted, tls) {
            (Some(_admitted), None) => {
                Session::new(self, Stream::Plain(stream), peer).run().await;
            }
            (Some(_admitted), Some(tls)) => Box::pin(self.serve_tls(stream, &tls, peer)).await,
            (None, None) => match gate.dismiss() {
                Some(_dismissed) => {
                    Box::pin(Session::new(self, Stream::Plain(stream), peer).turn_away()).await;
                }
                None => debug!("connection closed: too many are being turned away"),
            },
            // To be told so would cost the handshake that there is no room for.
            (None, Some(_)) => debug!("connection turned away"),
        }
    }

    async fn serve_tls(self: Rc<Self>, stream: TcpStream, tls: &Certificates, peer: Peer) {
        let handshake = tls.acceptor().accept(stream);
        let stream = match tokio::time::timeout(self.timeouts.head, handshake).await {
            Ok(Ok(stream)) => Box::new(stream),
            Ok(Err(error)) => return debug!(%error, client = peer.text(), "no TLS"),
            Err(_elapsed) => return debug!(client = peer.text(), "TLS did not begin in time"),
        };
        if stream.get_ref().1.alpn_protocol() == Some(tls::H2) {
            http2::serve(self, stream, peer).await;
        } else {
            Session::new(self, Stream::Tls(stream), peer).run().await;
        }
    }

    /// The replica that is asked next: none twice, and none that could not be connected to a
    /// moment ago unless there is no other.
    fn choose<'a>(
        &self,
        table: &'a Table,
        key: &crate::routing::key::Key,
        tried: &[ReplicaId],
    ) -> Option<&'a Arc<Replica>> {
        let fresh = |replica: &Arc<Replica>| !tried.contains(&replica.id());
        let good = |replica: &Arc<Replica>| fresh(replica) && !self.upstream.shuns(replica.id());
        self.policy.choose(table, key, good).or_else(|| self.policy.choose(table, key, fresh))
    }

    /// A request to a replica has ended; too many bad ends in a row are its supervisor's business.
    fn note(&self, replica: &Replica, well: bool) {
        if well {
            replica.went_well();
        } else if replica.went_wrong() == self.outliers {
            self.shared.alarm();
        }
    }

    /// A request has come.
    fn deposit(&self) {
        self.share.borrow_mut().deposit(1);
    }

    /// Whether the budget allows one more retry; then it is taken off.
    fn withdraw_retry(&self) -> bool {
        let now = self.common.since.elapsed();
        // A budget is right whatever panicked while it was locked.
        let floor = || self.common.floor.lock().unwrap_or_else(PoisonError::into_inner);
        self.share.borrow_mut().withdraw(now) || floor().withdraw(now)
    }

    fn view<'a>(&'a self, asked: &'a Asked<'a>) -> View<'a> {
        View { asked, trust: &self.trust }
    }

    /// The time for answers that do not tell it.
    fn date(&self) -> [u8; 29] {
        self.clock.borrow_mut().now()
    }
}

// === impl View ===

impl RequestView for View<'_> {
    fn path(&self) -> &[u8] {
        self.asked.request.path(self.asked.head)
    }

    fn query(&self) -> Option<&[u8]> {
        self.asked.request.query(self.asked.head)
    }

    fn header(&self, name: &str) -> Option<&[u8]> {
        let Asked { head, lines, .. } = self.asked;
        let named = |name_given: &[u8]| name_given.eq_ignore_ascii_case(name.as_bytes());
        let line = lines.iter().find(|line| named(line.name.of(head)))?;
        Some(line.value.of(head))
    }

    fn client_ip(&self) -> IpAddr {
        self.asked.peer.client_ip(self.asked.lines, self.asked.head, self.trust)
    }
}
