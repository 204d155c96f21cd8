//! The request path: key → choose → send → relay.
//!
//! | module | what it does |
//! |---|---|
//! | [`session`] | a client's connection: its requests, one after another |
//! | [`exchange`] | one request: choose, send, relay; what is done when a step fails |
//! | `admission` | which replica takes a request, and whether it has room; the line before it |
//! | `binding` | connections to replicas that belong to one client: NTLM, Negotiate, Kerberos |
//! | `quarantine` | requests that killed replicas and are not sent |
//! | [`hedge`], [`late`] | one request at a second replica where the first is late |
//! | [`fan`] | one request at several replicas: at all of them, or for the first success |
//! | [`rules`] | what is done with which requests: the configuration as it is now |
//! | [`upstream`] | connections to replicas, kept between requests |
//! | [`message`] | the heads that are sent on |
//! | [`tls`], [`http2`] | TLS for clients; their HTTP/2 requests, through the same engine |
//! | [`tunnel`] | a connection that has changed its protocol |
//! | [`own`] | the balancer's own routes on the same listener |
//! | [`trace`] | the access log |
//! | [`wire`] | bytes in and out of one connection |
//! | [`timer`], [`clock`], [`gate`], [`peer`], [`error`] | deadlines, dates, limits, clients, failures |

mod admission;
mod binding;
pub mod clock;
pub mod error;
pub mod exchange;
pub mod fan;
pub mod gate;
pub mod hedge;
pub mod http2;
pub mod late;
pub mod message;
pub mod own;
pub mod peer;
mod quarantine;
pub mod rules;
pub mod session;
pub mod timer;
pub mod tls;
pub mod trace;
pub mod tunnel;
pub mod upstream;
pub mod wire;

use std::cell::RefCell;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use ipnet::IpNet;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use slab::Slab;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tracing::{debug, warn};

use crate::config::{Config, Limits, Timeouts};
use crate::descriptors::are_used_up;
use crate::http1::head::BadHead;
use crate::metrics::Shards;
use crate::routing::key::RequestView;
use crate::routing::pool::Pool;
use crate::routing::table::Replica;
use crate::state::Shared;
use clock::Clock;
use error::{Failure, LOOP_DETECTED};
use fan::Background;
use gate::Gate;
use message::Asked;
use own::Own;
use peer::Peer;
use quarantine::Quarantine;
use rules::{Live, Rules};
use session::Session;
use tls::Certificates;
use upstream::Upstream;
use wire::{Buffers, Stream, Wire};

/// How often a worker looks for connections that ended or idled for too long.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Seconds between two log lines about what each request may run into.
const LOGGED_EVERY: u64 = 60;

/// When something was last logged, in seconds from 1 on; 0 for never.
#[derive(Debug, Default)]
struct Throttle(AtomicU64);

/// What all workers of a listener share.
#[derive(Debug)]
pub struct Common {
    gate: Arc<Gate>,
    live: ArcSwap<Live>,
    since: Instant,
    background: Background,
    quarantine: Quarantine,
    pool: Arc<Pool>,
    /// Changes with each reload.
    reloaded: watch::Sender<()>,
    loops_logged: Throttle,
    starving_logged: Throttle,
    large_logged: Throttle,
}

/// What one worker thread has.
pub struct Worker {
    shared: Arc<Shared>,
    common: Arc<Common>,
    own: Option<Own>,
    upstream: Upstream,
    buffers: Rc<Buffers>,
    shards: Shards,
    rules: RefCell<Rc<Rules>>,
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

// === impl Throttle ===

impl Throttle {
    /// Reports whether the last log line is old enough for another one; then that is noted.
    fn is_due(&self, now: Duration) -> bool {
        let (now, Self(last)) = (now.as_secs() + 1, self);
        let logged = last.load(Ordering::Relaxed);
        let is_due = logged == 0 || now >= logged + LOGGED_EVERY;
        // Another worker may be logging the same.
        is_due && last.compare_exchange(logged, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

// === impl Common ===

impl Common {
    /// As the configuration says.
    pub fn new(config: &Config, pool: Arc<Pool>) -> Arc<Self> {
        let limits = &config.limits;
        Arc::new(Self {
            gate: Gate::new(limits.connections, limits.connections_per_client),
            live: ArcSwap::from_pointee(Live::new(config.clone(), None, Duration::ZERO)),
            since: Instant::now(),
            background: Background::default(),
            quarantine: Quarantine::default(),
            pool,
            reloaded: watch::Sender::new(()),
            loops_logged: Throttle::default(),
            starving_logged: Throttle::default(),
            large_logged: Throttle::default(),
        })
    }

    /// From now on requests are treated as `config` says; those under way go on as they began.
    pub fn reload(&self, config: Config) {
        let Limits { connections, connections_per_client, .. } = config.limits;
        self.gate.limit(connections, connections_per_client);
        let live = Live::new(config, Some(&self.live.load()), self.since.elapsed());
        self.live.store(Arc::new(live));
        self.reloaded.send_replace(());
        // Limits may be higher now.
        self.pool.call_all();
    }

    /// Returns a receiver that is told of each reload from now on.
    fn reloads(&self) -> watch::Receiver<()> {
        self.reloaded.subscribe()
    }

    /// The configuration as it is now.
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(self.live.load().config())
    }

    /// Waits until no request to several replicas is in progress.
    pub async fn all_sent(&self) {
        self.background.ended().await;
    }

    /// Ends the requests to several replicas that are in progress: each member that does not have
    /// its request is logged.
    pub fn give_up(&self) {
        self.background.give_up();
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
        let idle = config.limits.idle / config.workers;
        let buffers = Rc::<Buffers>::default();
        let shards = Shards::new(Arc::clone(shared.metrics()));
        let rules = Rules::new(common.live.load_full(), common.since.elapsed(), &shards);
        let worker = Rc::new(Self {
            shared,
            own,
            upstream: Upstream::new(connect, keep_alive, idle, Rc::clone(&buffers)),
            buffers,
            shards,
            rules: RefCell::new(Rc::new(rules)),
            common,
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
                () = tokio::time::sleep(SWEEP_EVERY) => {
                    self.upstream.sweep();
                    self.shards.sweep();
                    self.sweep_quarantine();
                }
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
        let _connected = self.shared.metrics().connected();
        // Held until the connection ends, where there is room for it.
        let admitted = self.common.gate.admit(address.ip());
        let scheme = if tls.is_some() { "https" } else { "http" };
        let mut peer = Peer::new(address.ip(), scheme, &self.rules().forwarded.trust);
        peer.is_surplus = admitted.is_none();
        match tls {
            None => Session::new(self, Stream::Plain(stream), peer).run().await,
            Some(tls) => Box::pin(self.serve_tls(stream, &tls, peer)).await,
        }
    }

    async fn serve_tls(self: Rc<Self>, stream: TcpStream, tls: &Certificates, peer: Peer) {
        let handshake = tls.acceptor().accept(stream);
        let patience = peer.patience(self.rules().timeouts.head);
        let stream = match tokio::time::timeout(patience, handshake).await {
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

    /// What is done with requests now.
    fn rules(&self) -> Rc<Rules> {
        let mut rules = self.rules.borrow_mut();
        let live = self.common.live.load();
        if !Arc::ptr_eq(&live, &rules.live) {
            *rules = Rc::new(Rules::new(Arc::clone(&live), self.now(), &self.shards));
        }
        Rc::clone(&rules)
    }

    /// The clock of budgets.
    fn now(&self) -> Duration {
        self.common.since.elapsed()
    }

    /// A new connection to a replica; whoever keeps the fleet is told where there is none.
    ///
    /// # Errors
    /// [`Failure::Connect`].
    async fn connect(&self, replica: &Replica) -> Result<Box<Wire>, Failure> {
        self.upstream.connect(replica).await.map_err(|error| {
            if error.kind() == io::ErrorKind::ConnectionRefused {
                replica.note_refused();
            }
            if are_used_up(&error) {
                self.log_starving();
            }
            let failure = Failure::Connect(error);
            if failure.blames_the_replica() && replica.was_unreachable() {
                self.shared.alarm();
            }
            failure
        })
    }

    /// A request to a replica has ended; too many bad ends in a row are its supervisor's business.
    fn note(&self, replica: &Replica, well: bool) {
        if well {
            replica.went_well();
        } else if replica.went_wrong() == self.rules.borrow().outliers {
            self.shared.alarm();
        }
    }

    /// Notes what a response says about its replica. A forwarding loop (508) says nothing: a client
    /// that knows the id of a balancer behind this one must not get that balancer ejected.
    fn note_status(&self, replica: &Replica, status: u16) {
        if status != LOOP_DETECTED {
            self.note(replica, status < 500);
        }
    }

    /// Warns of a forwarding loop that the last hop, `peer`, is part of.
    fn log_loop(&self, peer: &Peer) {
        if self.common.loops_logged.is_due(self.now()) {
            warn!(last_hop = peer.text(), "forwarding loop");
        }
    }

    /// Warns of a response that is beyond the limits.
    fn log_large(&self, bad: BadHead) {
        if self.common.large_logged.is_due(self.now()) {
            warn!(reason = %bad, "response is beyond the limits");
        }
    }

    /// Warns that no descriptor was left for a connection to a replica.
    fn log_starving(&self) {
        if self.common.starving_logged.is_due(self.now()) {
            warn!("out of file descriptors: raise the limit of open files (ulimit -n)");
        }
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
        let Asked { request, head, lines, peer, .. } = self.asked;
        peer.client_ip(request, lines, head, self.trust)
    }
}
