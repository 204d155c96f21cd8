//! A consistent-hashing HTTP load balancer that owns its replicas: it starts them, watches them,
//! replaces the dead, drains the leaving, and routes each request by a ring of virtual nodes.
//!
//! # The map
//!
//! | module | what it does |
//! |---|---|
//! | [`config`] | what the user typed → [`Config`], checked once |
//! | [`routing`] | where a request goes. Pure |
//! | [`fleet`] | what should run, and which balancers of a pool live ([`fleet::members`]). Pure |
//! | [`state`] | what the threads share: the table, and the way to its one writer |
//! | [`http1`] | HTTP/1.1 on the wire, read strictly. Pure |
//! | [`proxy`] | the request path |
//! | [`admin`] | `/rep`, `/add`, `/rm`, `/admin/*`, `/loadbalancer/*`, `/metrics` |
//! | [`supervisor`] | the one writer: command, probe, listing → roster → plan → act → table |
//! | [`prober`] | heartbeats |
//! | [`runtime`] | where replicas run: processes, containers, listed addresses |
//! | [`hop`] | the field by which forwarding loops are detected |
//! | [`clean`] | `balancer clean`: removes what a pool has left on the engine |
//! | [`descriptors`] | how many files and sockets there may be, and who may have them |
//! | [`reload`] | a configuration that changes while the balancer runs |
//! | [`stamp`] | whether a file is as it was |
//! | [`reply`] | the envelope of the balancer's own answers |
//! | [`metrics`] | what is counted, without a lock on a request's way |
//! | [`telemetry`] | log lines, and the queues through which all output goes |
//! | [`watch`] | the overload controller as a program of its own, against any balancer |
//!
//! Arrows only point down: `main → lib → {proxy, admin, prober, supervisor} → state → routing →
//! fleet::seat`, `{proxy, prober} → {http1, hop}`, `{proxy, admin} → metrics → routing`, `lib →
//! reload → proxy`, `supervisor → {runtime, fleet}`, `main → watch → fleet::overload`, and `main →
//! clean → {runtime::docker, fleet::members}`.
//!
//! # The way of a request
//!
//! A client's connection ([`proxy::session`]) reads a head ([`http1`]); then, for each request
//! ([`proxy::exchange`]): its key ([`routing::key`]), one snapshot of the table ([`state`]), a
//! replica chosen ([`routing::choice`]), the request counted in and sent over a connection that was
//! kept or is made ([`proxy::upstream`]), the answer streamed back; or, where that is safe, the
//! next owner.

pub mod admin;
pub mod clean;
pub mod config;
pub mod descriptors;
pub mod fleet;
pub mod hop;
pub mod http1;
pub mod metrics;
pub mod prober;
pub mod proxy;
pub mod reload;
pub mod reply;
pub mod routing;
pub mod runtime;
pub mod stamp;
pub mod state;
pub mod supervisor;
pub mod telemetry;
pub mod watch;

use std::cell::Cell;
use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_service::{fn_factory, fn_service};
use actix_web::rt::task::JoinHandle;
use actix_web::web::{self, Data};
use actix_web::{App, HttpServer, dev};
use futures_util::future::join_all;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tracing::{info, warn};

use admin::{Admin, Now};
use config::Config;
use proxy::own::Own;
use proxy::tls::{Certificates, TlsError};
use proxy::{Common, Worker};
use reload::Source;
use routing::placement::Placement;
use routing::table::Table;
use runtime::{Runtime, RuntimeError};
use state::Shared;
use supervisor::{JoinError, Supervisor};

/// Where the balancer listens, bound already.
#[derive(Debug)]
pub struct Listeners {
    /// For traffic, and for the admin routes where they have no listener of their own.
    pub traffic: TcpListener,
    /// For TLS, where plain HTTP is spoken at `traffic` beside it.
    pub tls: Option<TcpListener>,
    /// For the admin routes alone.
    pub admin: Option<TcpListener>,
}

/// Why the balancer cannot run.
#[derive(Debug, Error)]
pub enum RunError {
    /// The fleet cannot be begun.
    #[error("replicas cannot be listed")]
    Runtime(#[source] RuntimeError),
    /// Another balancer holds the pool.
    #[error("cannot join the pool")]
    Join(#[source] JoinError),
    /// There is no good certificate.
    #[error("TLS cannot be spoken")]
    Tls(#[from] TlsError),
    /// A listener cannot be served.
    #[error("cannot serve")]
    Serve(#[from] io::Error),
    /// At the end of a shutdown something was left undone; the log says what.
    #[error("shutdown is incomplete: the log says what was given up")]
    Incomplete,
}

impl From<JoinError> for RunError {
    fn from(error: JoinError) -> Self {
        match error {
            JoinError::Runtime(error) => RunError::Runtime(error),
            held @ JoinError::Held { .. } => RunError::Join(held),
        }
    }
}

/// Runs the balancer, which follows what changes in the `source` of its configuration, until
/// `shutdown`: then it stops accepting, finishes what is in flight, stops what it owns, and
/// returns, `timeouts.shutdown` later at the latest. Called on the main thread of an actix system,
/// which must outlive the replicas of the process runtime.
///
/// # Errors
/// When there is no good certificate, the runtime cannot be listed at the start, a listener cannot
/// be served, or the shutdown had to give something up.
pub async fn run<R: Runtime>(
    config: Config,
    listeners: Listeners,
    runtime: R,
    source: Source,
    shutdown: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let certificates = config.tls.clone().map(Certificates::load).transpose()?;
    let placement = Placement::build(&config.placement, &[]).expect("nothing fits anywhere");
    let table = Table::new(&Arc::default(), Arc::new(placement), [], Vec::new(), Vec::new());
    let (shared, commands) = Shared::new(table);
    let mut shutdown = std::pin::pin!(shutdown);
    // The start may wait for the lease of another balancer.
    let supervisor = tokio::select! {
        supervisor = Supervisor::boot(&config, runtime, Arc::clone(&shared)) => supervisor?,
        () = &mut shutdown => return Ok(()),
    };

    let traffic = listeners.traffic.local_addr()?;
    let admin_address = listeners.admin.as_ref().map(TcpListener::local_addr).transpose()?;
    let common = Common::new(&config, Arc::clone(shared.pool()));
    let serve = |listener, tls| {
        let with_admin = admin_address.is_none();
        serve_traffic(&config, listener, &shared, &common, tls, with_admin)
    };
    let mut servers = Vec::new();
    match listeners.tls {
        Some(listener) => {
            servers.push(serve(listeners.traffic, None)?);
            let address = listener.local_addr()?;
            servers.push(serve(listener, certificates.clone())?);
            info!(listen = %address, "TLS is spoken");
        }
        None => servers.push(serve(listeners.traffic, certificates.clone())?),
    }
    if let Some(listener) = listeners.admin {
        servers.push(serve_admin(&config, listener, &shared, &common)?);
    }
    let following = source.follow(config.clone(), Arc::clone(&common), Arc::clone(&shared));
    let following = actix_web::rt::spawn(async move {
        if let Err(error) = following.await {
            warn!(%error, "changes of the configuration are not followed");
        }
    });
    let freshness = certificates.map(|held| actix_web::rt::spawn(held.keep_fresh()));
    let handles: Vec<dev::ServerHandle> = servers.iter().map(dev::Server::handle).collect();
    let serving: Vec<_> = servers.into_iter().map(actix_web::rt::spawn).collect();
    let (stop, stopped) = oneshot::channel();
    let supervising = actix_web::rt::spawn(supervisor.run(commands, stopped));
    info!(listen = %traffic, admin = %admin_address.unwrap_or(traffic), "balancer is serving");

    shutdown.await;
    let deadlines = config.timeouts.shutdown_from(Instant::now());
    info!("gracefully shutting down");
    if let Some(freshness) = freshness {
        freshness.abort();
    }
    following.abort();
    shared.stop();
    let mut is_whole = drain(&common, &shared, &handles, serving, deadlines.traffic).await;
    // The receiver is gone only when the supervisor has panicked, which is reported here.
    let _told = stop.send(deadlines.end).is_ok();
    match tokio::time::timeout_at((deadlines.end + LAST_STEPS).into(), supervising).await {
        Ok(Ok(stopped)) => is_whole &= stopped,
        Ok(Err(error)) => {
            warn!(%error, "supervisor ended badly");
            is_whole = false;
        }
        Err(_late) => {
            warn!("supervisor did not end in time");
            is_whole = false;
        }
    }
    if !is_whole {
        return Err(RunError::Incomplete);
    }
    info!("shutdown complete");
    Ok(())
}

/// How long it may take to log the deliveries that are given up: they wait for nothing else.
const REPORT_WITHIN: Duration = Duration::from_secs(1);

/// What the supervisor has beyond the deadline for noticing it.
const LAST_STEPS: Duration = Duration::from_millis(500);

/// Stops accepting, and lets requests in flight and deliveries end until the deadline; then closes
/// what is left. Reports whether all deliveries were made.
async fn drain(
    common: &Common,
    shared: &Shared,
    handles: &[dev::ServerHandle],
    serving: Vec<JoinHandle<io::Result<()>>>,
    deadline: Instant,
) -> bool {
    let is_sent = Cell::new(false);
    let ending = async {
        join_all(handles.iter().map(dev::ServerHandle::pause)).await;
        // Deliveries run on the workers, so these must not end before them.
        common.all_sent().await;
        is_sent.set(true);
        join_all(handles.iter().map(|handle| handle.stop(true))).await;
    };
    if tokio::time::timeout_at(deadline.into(), ending).await.is_err() {
        if !is_sent.get() {
            warn!(requests = shared.metrics().deliveries(), "deliveries given up");
            common.give_up();
            // Only to log them.
            let _reported = tokio::time::timeout(REPORT_WITHIN, common.all_sent()).await.is_ok();
        }
        let (connections, _) = shared.metrics().connections();
        info!(connections, "closing connections that did not end in time");
        // Dropping a server closes its connections at once.
        for server in serving {
            server.abort();
        }
        return is_sent.get();
    }
    for server in serving {
        if let Ok(Err(error)) = server.await {
            warn!(%error, "server ended badly");
        }
    }
    true
}

fn serve_traffic(
    config: &Config,
    listener: TcpListener,
    shared: &Arc<Shared>,
    common: &Arc<Common>,
    tls: Option<Arc<Certificates>>,
    with_admin: bool,
) -> io::Result<dev::Server> {
    let common = Arc::clone(common);
    let (workers, drain) = (config.workers, config.timeouts.drain);
    let accepted = config.limits.accepted;
    let (config, shared) = (config.clone(), Arc::clone(shared));
    let service = move || {
        let (config, shared, common) = (config.clone(), Arc::clone(&shared), Arc::clone(&common));
        let tls = tls.clone();
        fn_factory(move || {
            let worker =
                start_worker(config.clone(), Arc::clone(&shared), Arc::clone(&common), with_admin);
            let tls = tls.clone();
            async move {
                let worker = worker.await?;
                Ok::<_, ()>(fn_service(move |stream: TcpStream| {
                    let serving = Rc::clone(&worker).serve(stream, tls.clone());
                    async move {
                        serving.await;
                        Ok::<_, ()>(())
                    }
                }))
            }
        })
    };
    // Connections take it over from their listener: one system call less for each.
    rustix::net::sockopt::set_tcp_nodelay(&listener, true)?;
    let server = actix_server::Server::build()
        .workers(workers)
        // For each worker. Further connections wait in the kernel's backlog.
        .max_concurrent_connections(accepted.div_ceil(workers))
        .shutdown_timeout(drain.as_secs_f64().ceil() as u64)
        .disable_signals()
        .listen("traffic", listener, service)?;
    Ok(server.run())
}

async fn start_worker(
    config: Config,
    shared: Arc<Shared>,
    common: Arc<Common>,
    with_admin: bool,
) -> Result<Rc<Worker>, ()> {
    let admin =
        Admin { shared: Arc::clone(&shared), config: config.admin.clone(), now: now(&common) };
    let own = if with_admin { Some(Own::new(admin).await?) } else { None };
    Ok(Worker::start(&config, shared, common, own))
}

fn serve_admin(
    config: &Config,
    listener: TcpListener,
    shared: &Arc<Shared>,
    common: &Arc<Common>,
) -> io::Result<dev::Server> {
    let (timeouts, connections) = (config.timeouts, config.limits.admin);
    let (config, shared, now) = (config.admin.clone(), Arc::clone(shared), now(common));
    let server = HttpServer::new(move || {
        let (shared, now) = (Arc::clone(&shared), Arc::clone(&now));
        let admin = Data::new(Admin { shared, config: config.clone(), now });
        App::new().app_data(admin).configure(admin::routes).default_service(web::to(admin::unknown))
    });
    server
        .workers(1)
        .max_connections(connections)
        .client_request_timeout(timeouts.head)
        .shutdown_timeout(timeouts.drain.as_secs_f64().ceil() as u64)
        .disable_signals()
        .listen(listener)
        .map(HttpServer::run)
}

/// What tells the admin routes the configuration as it is now.
fn now(common: &Arc<Common>) -> Now {
    let common = Arc::clone(common);
    Arc::new(move || common.config())
}
