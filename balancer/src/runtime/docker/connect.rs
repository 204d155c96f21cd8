//! The connection to the engine at the start, and the wait for an engine that is not there yet.

use std::error::Error;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::pin::pin;
use std::time::{Duration, Instant};

use bollard::Docker as Api;
use bollard::errors::Error as ApiError;
use humantime::format_duration;
use thiserror::Error;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::call::CALL_DEADLINE;
use crate::runtime::RuntimeError;
use crate::telemetry::chain;

/// The oldest API version that has every call that is made (`init` came last): Docker 1.13.
const OLDEST_API: (usize, usize) = (1, 25);

/// The client library's own deadline, out of the way: every call has one of its own.
const NO_DEADLINE: Duration = Duration::from_hours(48);

/// The pause between two attempts to reach the engine.
const PAUSE: Duration = Duration::from_millis(250);

/// The time after which an attempt that has no result is logged.
const PROMPT: Duration = Duration::from_secs(1);

/// Why the engine cannot be reached.
#[derive(Debug, Error)]
pub(super) enum NoEngine {
    /// The engine does not run, or runs elsewhere.
    #[error("no engine runs there (absent): socket {0:?} does not exist")]
    NoSocket(String),
    /// The same: the socket is what an engine left behind.
    #[error("no engine runs there (absent): connection refused")]
    Refused,
    /// The engine does not respond, or the systemd socket waits for it.
    #[error("the engine hangs: it accepts connections but does not respond")]
    Hung,
    /// The connection failed otherwise, or a proxy before the engine says that the engine failed.
    #[error("request failed")]
    Failed(#[source] ApiError),
    /// The user that the balancer runs as may not use the socket.
    #[error(
        "permission denied for user {uid}: in a container, run the balancer with `--group-add {gid}` \
         (the group of the socket) or `--user 0`; on a host, add its user to group `docker`"
    )]
    Denied { uid: u32, gid: String },
    /// The address is wrong, or what listens there is no engine.
    #[error(transparent)]
    Other(ApiError),
    /// The wait for the engine is over.
    #[error("{}; waited {} ('engine.wait')", chain(reason.as_ref()), format_duration(*waited))]
    Waited { reason: Box<NoEngine>, waited: Duration },
}

/// Connects to the engine at `at` and negotiates the API version, within `patience`.
///
/// # Errors
/// [`RuntimeError::Unreachable`], and [`RuntimeError::Engine`] if the API is too old.
pub(super) async fn connect(at: &str, patience: Duration) -> Result<Api, RuntimeError> {
    let failed = |error| unreachable(at, NoEngine::of(error, at));
    let api = Api::connect_with_host(at).map_err(failed)?.with_timeout(NO_DEADLINE);
    let api = timeout(patience, api.negotiate_version())
        .await
        .map_err(|_elapsed| unreachable(at, NoEngine::Hung))?
        .map_err(failed)?;
    let version = api.client_version();
    if (version.major_version, version.minor_version) < OLDEST_API {
        let (major, minor) = OLDEST_API;
        return Err(RuntimeError::Engine {
            action: format!("speak version {major}.{minor} of its API or a later one"),
            source: format!("{version} is what it has at {at}").into(),
        });
    }
    debug!(%version, "container engine found");
    Ok(api)
}

/// Repeats `attempt`, which gets the time that it has, until it succeeds, fails for a reason that
/// time does not change, or `wait` is over. Logs once that it waits.
///
/// # Errors
/// The last error of `attempt`.
pub(super) async fn await_engine<T>(
    at: &str,
    wait: Duration,
    attempt: impl AsyncFn(Duration) -> Result<T, RuntimeError>,
) -> Result<T, RuntimeError> {
    let began = Instant::now();
    let mut waits = false;
    loop {
        let left = wait.saturating_sub(began.elapsed());
        // A single attempt without a wait has the time of any other call.
        let patience = if wait.is_zero() { CALL_DEADLINE } else { left.max(PAUSE) };
        let mut attempt = pin!(timeout(patience, attempt(patience.min(CALL_DEADLINE))));
        let attempted = tokio::select! {
            attempted = &mut attempt => attempted,
            () = sleep(PROMPT), if !waits && !wait.is_zero() => {
                log_wait(at, wait, &NoEngine::Hung);
                waits = true;
                attempt.await
            }
        };
        let error = match attempted.unwrap_or_else(|_| Err(unreachable(at, NoEngine::Hung))) {
            Ok(found) => {
                if waits {
                    let waited_ms = began.elapsed().as_millis() as u64;
                    info!(engine = at, waited_ms, "container engine found");
                }
                return Ok(found);
            }
            Err(error) if may_pass(&error) && !wait.is_zero() => error,
            Err(error) => return Err(error),
        };
        let left = wait.saturating_sub(began.elapsed());
        if left.is_zero() {
            return Err(waited(at, error, wait));
        }
        if !waits {
            log_wait(at, wait, &error);
            waits = true;
        }
        sleep(PAUSE.min(left)).await;
    }
}

fn log_wait(at: &str, wait: Duration, error: &dyn Error) {
    let wait = format_duration(wait);
    warn!(engine = at, error = chain(error), %wait, "waiting for the container engine");
}

/// Reports whether the engine may be reachable later.
fn may_pass(error: &RuntimeError) -> bool {
    match error {
        RuntimeError::Timeout { .. } => true,
        RuntimeError::Unreachable { source, .. } => match source.downcast_ref::<NoEngine>() {
            Some(
                NoEngine::NoSocket(_) | NoEngine::Refused | NoEngine::Hung | NoEngine::Failed(_),
            ) => true,
            Some(NoEngine::Denied { .. } | NoEngine::Other(_) | NoEngine::Waited { .. }) | None => {
                false
            }
        },
        RuntimeError::NameTaken(_)
        | RuntimeError::Spawn { .. }
        | RuntimeError::NoPort { .. }
        | RuntimeError::Resolve(..)
        | RuntimeError::Engine { .. }
        | RuntimeError::Pull { .. }
        | RuntimeError::NoAddress { .. }
        | RuntimeError::Listed
        | RuntimeError::Owned(_)
        | RuntimeError::ListedAlready(_)
        | RuntimeError::Unresolved { .. } => false,
    }
}

/// Returns the error of a wait that is over after `error`, which [`may_pass`].
fn waited(at: &str, error: RuntimeError, waited: Duration) -> RuntimeError {
    let reason = if let RuntimeError::Unreachable { source, .. } = error {
        source.downcast().ok()
    } else {
        None
    };
    let reason = reason.unwrap_or_else(|| Box::new(NoEngine::Hung));
    unreachable(at, NoEngine::Waited { reason, waited })
}

fn unreachable(at: &str, reason: NoEngine) -> RuntimeError {
    RuntimeError::Unreachable { at: at.to_owned(), source: reason.into() }
}

/// Returns the kind of the I/O error at the root of `error`, if there is one.
fn io_kind(error: &(dyn Error + 'static)) -> Option<io::ErrorKind> {
    let own = error.downcast_ref::<io::Error>().map(io::Error::kind);
    error.source().and_then(io_kind).or(own)
}

// === impl NoEngine ===

impl NoEngine {
    fn of(error: ApiError, at: &str) -> Self {
        let socket = at.strip_prefix("unix://");
        if let ApiError::SocketNotFoundError(path) = &error {
            // The client library says so, too, if it may not search the directory.
            return match fs::metadata(path).map_err(|error| error.kind()) {
                Err(io::ErrorKind::PermissionDenied) => Self::denied(path),
                Ok(_) | Err(_) => NoEngine::NoSocket(path.clone()),
            };
        }
        let kind = io_kind(&error);
        if let (Some(io::ErrorKind::PermissionDenied), Some(socket)) = (kind, socket) {
            return Self::denied(socket);
        }
        match (kind, &error) {
            (Some(io::ErrorKind::ConnectionRefused), _) => NoEngine::Refused,
            (Some(_), _) => NoEngine::Failed(error),
            (None, ApiError::DockerResponseServerError { status_code: 502..=504, .. }) => {
                NoEngine::Failed(error)
            }
            (
                None,
                ApiError::HyperResponseError { .. }
                | ApiError::HyperLegacyError { .. }
                | ApiError::RequestTimeoutError,
            ) => NoEngine::Failed(error),
            (None, _) => NoEngine::Other(error),
        }
    }

    fn denied(socket: &str) -> Self {
        let group = fs::metadata(socket).map(|socket| socket.gid().to_string());
        NoEngine::Denied {
            uid: rustix::process::geteuid().as_raw(),
            gid: group.unwrap_or_else(|_| "GID".to_owned()),
        }
    }
}
