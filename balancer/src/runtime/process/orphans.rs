//! Processes that became children of the balancer because their parent ended: it waits for them, so
//! that none stays a zombie, and kills those of a replica whose shim was killed.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, Signal, WaitOptions, getpid, getsid, kill_process, set_child_subreaper, waitpid,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;
use tracing::{debug, warn};

use super::tree;

/// Processes that tokio waits for. Filled on the thread that starts them before another task of the
/// thread runs, so that [`reap`] never takes the end of one.
static OWNED: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// How long processes of a replica whose shim was killed may take to disappear.
const KILLED_WITHIN: Duration = Duration::from_secs(5);

/// Pause between two looks at them.
const LOOK: Duration = Duration::from_millis(5);

/// A process that tokio waits for, until dropped.
#[derive(Debug)]
pub(super) struct Owned(Pid);

/// What the processes of one replica have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tree {
    /// The shim, and the session that it leads.
    pub(super) shim: Pid,
    /// The port in their environment: no other replica has the same.
    pub(super) port: u16,
}

/// Makes orphaned processes of replicas children of this process.
///
/// # Errors
/// When the kernel refuses.
pub fn adopt() -> io::Result<()> {
    Ok(set_child_subreaper(Some(getpid()))?)
}

/// Waits for children of this process that it did not start, for as long as it runs: the duty of
/// PID 1 in a container, and of a process that [`adopt`]s. Called on the thread that starts
/// replicas.
///
/// # Errors
/// When SIGCHLD cannot be handled.
pub fn reap() -> io::Result<impl Future<Output = ()>> {
    let mut ends = signal(SignalKind::child())?;
    Ok(async move {
        loop {
            if let Err(error) = reap_zombies() {
                debug!(%error, "children cannot be listed");
            }
            if ends.recv().await.is_none() {
                return;
            }
        }
    })
}

fn reap_zombies() -> io::Result<()> {
    for pid in tree::children()? {
        if !is_owned(pid) && tree::is_zombie(pid) {
            let waited = waitpid(Some(pid), WaitOptions::NOHANG);
            debug!(pid = pid.as_raw_nonzero(), ?waited, "orphan reaped");
        }
    }
    Ok(())
}

/// Kills what a shim left behind that was itself killed, and waits until it is gone.
pub(super) async fn kill(tree: Tree) {
    let until = Instant::now() + KILLED_WITHIN;
    loop {
        let left = match left_of(tree) {
            Ok(left) => left,
            Err(error) => return warn!(%error, "processes of a replica cannot be listed"),
        };
        if left.is_empty() {
            return;
        }
        if Instant::now() > until {
            return warn!(processes = left.len(), "processes of a replica do not end");
        }
        for pid in left {
            // It may have ended since.
            let _sent = kill_process(pid, Signal::KILL);
        }
        sleep(LOOK).await;
    }
}

/// Returns the living processes of a replica below this process.
fn left_of(tree: Tree) -> io::Result<Vec<Pid>> {
    let mut left = tree::descendants(getpid())?;
    left.retain(|seen| !seen.is_zombie && !is_owned(seen.pid) && tree.has(seen.pid));
    Ok(left.into_iter().map(|seen| seen.pid).collect())
}

fn owned() -> MutexGuard<'static, BTreeSet<i32>> {
    OWNED.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_owned(pid: Pid) -> bool {
    owned().contains(&pid.as_raw_nonzero().get())
}

// === impl Owned ===

impl Owned {
    pub(super) fn new(pid: Pid) -> Self {
        owned().insert(pid.as_raw_nonzero().get());
        Self(pid)
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        owned().remove(&self.0.as_raw_nonzero().get());
    }
}

// === impl Tree ===

impl Tree {
    /// Reports whether a process belongs to it: it is of the shim's session, or has its port in its
    /// environment as a daemon does that left the session.
    fn has(self, pid: Pid) -> bool {
        if getsid(Some(pid)).is_ok_and(|session| session == self.shim) {
            return true;
        }
        let environment = fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero()));
        let port = format!("PORT={}", self.port);
        let has = |name: &[u8]| {
            let variables = environment.as_deref().unwrap_or_default().split(|byte| *byte == 0);
            variables.into_iter().any(|variable| variable.starts_with(name))
        };
        let is_port = |variable: &[u8]| variable == port.as_bytes();
        has(b"SERVER_ID=")
            && environment.as_deref().unwrap_or_default().split(|byte| *byte == 0).any(is_port)
    }
}
