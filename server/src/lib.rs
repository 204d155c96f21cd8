//! The demo replica: a small web server with faults and delays on demand, for a load balancer to
//! stand in front of.
//!
//! The way of a request:
//!
//! ```text
//! options      what the user typed: flags, environment, defaults       Options
//! connections  counts what is open, so that a stop need not guess      Connections
//! handlers     path and method → the whole body read → one answer      routes, Replica
//!   drop         one POST in five, when asked for: 500                 Replica::drops_next
//!   wait         a place in the queue, then a slot; none left: 503     latency::WorkQueue
//!   work         the usual time, or for some requests a longer one     latency::Latency
//!   tell         of a POST that was carried out, when asked for        journal::Journal
//!   answer       200, 201, or 404 for another user than the known one
//! ```
//!
//! Probes (`/heartbeat`, `/health-check`) skip everything between path and answer, so that a busy
//! replica does not look like a dead one.
//!
//! A client that closes its side of the connection counts as gone: the request is given up, its
//! slot or its place in the queue is free at once.
//!
//! [`run`] serves a listener until it is told to stop, and is what tests use; [`main`] does the
//! same for a program, with signals.

mod connections;
mod handlers;
mod journal;
pub mod latency;
mod options;

use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use actix_web::{App, HttpServer, web};
use tokio::net::TcpSocket;
use tokio::signal::unix::{Signal, SignalKind, signal};

pub use crate::options::{Options, OptionsError, Workers};

use crate::connections::Connections;
use crate::handlers::Replica;

/// How long an idle connection is kept open for its client. A balancer pools its connections:
/// closing them early would cut them under a request that is just being sent.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// How many connections may wait to be accepted: a load generator opens thousands at once, and
/// each one too many waits a second for its next try. The kernel caps it (`net.core.somaxconn`).
const BACKLOG: u32 = 4096;

/// Why [`main`] gave up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The options contradict each other.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// The address cannot be listened on: taken, not of this machine, or not permitted.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// SIGTERM or SIGINT cannot be caught.
    #[error("cannot catch signals")]
    Signals(#[source] io::Error),
    /// The server failed to start or while it ran.
    #[error("cannot serve")]
    Serve(#[source] io::Error),
}

/// Serves `listener` until `shutdown` resolves, then stops: no connection is accepted any more,
/// idle ones are closed, and what is in flight has `options.shutdown_timeout` to finish. Returns
/// when the listener and the last connection are closed, or at that deadline: what is left then is
/// cut off, at once when the program ends and within a second when it goes on.
///
/// `options.listen`, `options.port` and the delay of a start are not looked at: the listener is
/// there already.
/// Works in a tokio runtime and in an actix system.
///
/// # Errors
///
/// [`io::ErrorKind::InvalidInput`] with an [`OptionsError`] inside for options that contradict
/// each other; otherwise what the operating system said when threads or sockets were set up, the
/// journal's among them.
pub async fn run(
    listener: TcpListener,
    options: Options,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let replica = web::Data::new(Replica::new(&options)?);
    let connections = Connections::default();
    let opened = connections.clone();

    let server = HttpServer::new(move || App::new().configure(handlers::routes(replica.clone())))
        .workers(options.workers.get())
        .keep_alive(KEEP_ALIVE)
        .tcp_nodelay(true)
        // A client that closes its side has gone: its request is given up, its slot is free.
        .h1_allow_half_closed(false)
        .on_connect(move |_, data| {
            data.insert(opened.enter());
        })
        .disable_signals()
        // The deadline is kept below; this one only must not come first.
        .shutdown_timeout(options.shutdown_timeout.as_secs().saturating_add(1))
        .listen(listener)?
        .run();
    let handle = server.handle();

    tokio::pin!(server);
    tokio::select! {
        ended = &mut server => return ended,
        () = shutdown => {}
    }
    let stop = handle.stop(true);
    tokio::select! {
        biased; // the server must have taken the order to stop before the others count
        (ended, ()) = async { tokio::join!(&mut server, stop) } => ended,
        // The server itself looks only once a second whether its connections are gone.
        () = connections.all_closed() => Ok(()),
        () = tokio::time::sleep(options.shutdown_timeout) => Ok(()),
    }
}

/// The whole program: waits as [`Options::start_delay`] has it, binds [`Options::address`], says so
/// in one line on stderr (`server 1 listens on 127.0.0.1:5000`), serves, and returns after SIGTERM or
/// SIGINT as [`run`] does. Blocks; must not be called inside an async runtime.
///
/// # Errors
///
/// See [`Error`]. A stop by signal is no error, even one that had to cut requests off.
pub fn main(options: Options) -> Result<(), Error> {
    options.check()?;
    actix_web::rt::System::new().block_on(async {
        let id = options.server_id.clone();
        let terminate = signal(SignalKind::terminate()).map_err(Error::Signals)?;
        let interrupt = signal(SignalKind::interrupt()).map_err(Error::Signals)?;
        let told = first_of(terminate, interrupt);
        tokio::pin!(told);
        if options.is_delayed() {
            say(format_args!("server {id} waits {:?} before it listens", options.start_delay));
            tokio::select! {
                () = tokio::time::sleep(options.start_delay) => {}
                name = &mut told => {
                    say(format_args!("server {id} stops: {name}"));
                    return Ok(());
                }
            }
        }
        let asked = options.address();
        let listener = bind(asked).map_err(|source| Error::Listen { address: asked, source })?;
        let address = listener.local_addr().map_err(Error::Serve)?;

        say(format_args!("server {id} listens on {address}"));
        run(listener, options, async {
            let name = told.await;
            say(format_args!("server {id} stops: {name}"));
        })
        .await
        .map_err(Error::Serve)?;
        say(format_args!("server {id} has stopped"));
        Ok(())
    })
}

/// Needs a tokio runtime around it.
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // A replica that is started again finds its port free.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}

async fn first_of(mut terminate: Signal, mut interrupt: Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}

/// One line for whoever watches. Nobody watching any more (a closed pipe) is no reason to fail.
fn say(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{line}");
}
