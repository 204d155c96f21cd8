//! `process`: replicas as child processes on this machine.
//!
//! Each replica runs below a [`shim`], which ends with the balancer and takes everything below it
//! along; [`orphans`] are waited for.

pub mod orphans;
pub mod shim;
mod tree;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, PipeWriter, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::rc::Rc;
use std::time::Duration;

use actix_web::rt::spawn;
use rand::RngExt as _;
use rustix::fs::{Access, access};
use rustix::process::{Pid, Signal, kill_process};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::sync::{Notify, watch};
use tokio::task::yield_now;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::{Mark, ReplicaSpec, Runtime, RuntimeError};
use crate::config::CommandLine;
use crate::config::value::{filled, has_placeholder, seat_text};
use crate::fleet::change::Death;
use crate::fleet::observed::{Condition, Observed, Place};
use crate::fleet::release::Release;
use crate::fleet::seat::Hostname;
use crate::telemetry::print_output;
use orphans::{Owned, Tree};

/// Ports for replicas: below the range from which the kernel takes ports of outgoing connections,
/// so that none of those sits on a port between its choice and its use.
const PORTS: std::ops::Range<u16> = 20_000..32_768;

/// The longest line of a replica's output that is passed on in one piece.
const LINE_MAX: usize = 8 * 1024;

/// How long a replica may take to end after it was killed: longer than its shim waits.
const KILLED_WITHIN: Duration = Duration::from_secs(10);

/// The folders in which `execvp` looks without `PATH`.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// The reason why a command cannot be run.
#[derive(Debug, Error)]
pub enum CommandError {
    /// No file has the name.
    #[error("'command' cannot be run: {0:?}: no such file")]
    NoFile(String),
    /// The file is a folder, or may not be executed.
    #[error("'command' cannot be run: {0:?}: not an executable file")]
    NotExecutable(String),
    /// No folder has such a program.
    #[error("'command' cannot be run: {program:?}: no such program in PATH ({path:?})")]
    NotInPath {
        /// The first word.
        program: String,
        /// The folders.
        path: String,
    },
}

/// Child processes.
#[derive(Debug)]
pub struct Process {
    children: RefCell<BTreeMap<Hostname, Running>>,
    started: RefCell<u64>,
    changed: Rc<Notify>,
}

#[derive(Debug)]
struct Running {
    place: Place,
    release: Release,
    address: SocketAddr,
    created: u64,
    /// Asks the shim for the end, and kills it when dropped.
    control: Option<PipeWriter>,
    shim: Option<Pid>,
    death: watch::Receiver<Option<Death>>,
}

// === impl Process ===

impl Process {
    /// Returns the runtime without a child. What each child runs is in its release.
    pub fn new() -> Self {
        Self { children: RefCell::default(), started: RefCell::default(), changed: Rc::default() }
    }

    /// Starts the shim of a replica. Returns it with the pipe that controls it.
    fn spawn(&self, what: &ReplicaSpec, port: u16) -> Result<(Child, PipeWriter), RuntimeError> {
        let me = own_program();
        let spec = what.release.spec();
        let words: Vec<OsString> = match spec.command.as_deref() {
            Some(words) => {
                let words = filled(words, port, what.seat, &what.hostname);
                words.into_iter().map(OsString::from).collect()
            }
            None => vec![me.clone().into(), "replica".into()],
        };
        let program = words.first().map(|word| word.to_string_lossy().into_owned());
        let failed = |source| RuntimeError::Spawn { command: program.unwrap_or_default(), source };
        let (control, controlled) = match io::pipe() {
            Ok((reader, writer)) => (writer, reader),
            Err(error) => return Err(failed(error)),
        };
        let mut child = Command::new(&me);
        child
            .arg0(shim::SHIM)
            .args(&words)
            .env("PORT", port.to_string())
            .env("SERVER_ID", seat_text(what.seat))
            .envs(&spec.env)
            .stdin(controlled)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // What configures the balancer (its token above all) is none of a replica's business, and
        // an address set for all would beat each one's own port.
        for (name, _) in std::env::vars_os() {
            if name == "SERVER_LISTEN" || name.to_string_lossy().starts_with("BALANCER_") {
                child.env_remove(name);
            }
        }
        match child.spawn() {
            Ok(child) => Ok((child, control)),
            Err(error) => Err(failed(error)),
        }
    }

    /// Carries out `action` on a replica that is known.
    fn with<T>(&self, hostname: &Hostname, action: impl FnOnce(&mut Running) -> T) -> Option<T> {
        self.children.borrow_mut().get_mut(hostname).map(action)
    }

    fn free_port(&self) -> Result<u16, RuntimeError> {
        let taken = |port: u16| self.children.borrow().values().any(|r| r.address.port() == port);
        let count = PORTS.end - PORTS.start;
        let from = rand::rng().random_range(PORTS);
        let candidates = (0..count).map(|i| PORTS.start + (from - PORTS.start + i) % count);
        let bindable = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
        candidates
            .filter(|port| !taken(*port))
            .find(bindable)
            .ok_or(RuntimeError::NoPort { from: PORTS.start, to: PORTS.end - 1 })
    }
}

impl Default for Process {
    fn default() -> Self {
        Self::new()
    }
}

impl Runtime for Process {
    async fn list(&self) -> Result<Vec<Observed>, RuntimeError> {
        let children = self.children.borrow();
        Ok(children.iter().map(|(hostname, running)| running.observed(hostname)).collect())
    }

    async fn start(&self, what: &ReplicaSpec) -> Result<Observed, RuntimeError> {
        if self.children.borrow().contains_key(&what.hostname) {
            return Err(RuntimeError::NameTaken(what.hostname.to_string()));
        }
        // Forking takes some milliseconds: between two of them others on this thread, probes above
        // all, get their turn.
        yield_now().await;
        let port = self.free_port()?;
        let (mut child, control) = self.spawn(what, port)?;
        let shim = child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?));
        // Before any other task of this thread could wait for it.
        let owned = shim.map(Owned::new);
        if let Some(output) = child.stdout.take() {
            spawn(pass_on(output, what.hostname.clone()));
        }
        if let Some(output) = child.stderr.take() {
            spawn(pass_on(output, what.hostname.clone()));
        }
        let (dead, death) = watch::channel(None);
        let tree = shim.map(|shim| Tree { shim, port });
        spawn(wait_for(child, owned, tree, dead, Rc::clone(&self.changed)));

        *self.started.borrow_mut() += 1;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let created = *self.started.borrow();
        let place = what.seat.map_or(Place::Spare, Place::from);
        let release = what.release.clone();
        let control = Some(control);
        let running = Running { place, release, address, created, control, shim, death };
        let observed = running.observed(&what.hostname);
        self.children.borrow_mut().insert(what.hostname.clone(), running);
        Ok(observed)
    }

    async fn mark(&self, hostname: &Hostname, mark: Mark) -> Result<(), RuntimeError> {
        match (mark, self.children.borrow_mut().get_mut(hostname)) {
            (Mark::Seated(seat), Some(running)) => running.place = seat.into(),
            // Children end with the balancer: nobody will look for them.
            (Mark::Leaving | Mark::Stopping, _) | (Mark::Seated(_), None) => {}
        }
        Ok(())
    }

    async fn stop(&self, hostname: &Hostname, grace: Duration) -> Result<(), RuntimeError> {
        let Some(mut death) = self.with(hostname, |running| running.death.clone()) else {
            return Ok(());
        };
        self.with(hostname, Running::ask_to_end);
        if timeout(grace, death.wait_for(Option::is_some)).await.is_err() {
            self.with(hostname, |running| running.control = None);
            if timeout(KILLED_WITHIN, death.wait_for(Option::is_some)).await.is_err() {
                warn!(%hostname, "replica does not end; its shim is killed");
                self.with(hostname, Running::kill_shim);
                // An error means that the waiting task is gone, and the child with it.
                let _ended = death.wait_for(Option::is_some).await.is_ok();
            }
        }
        self.children.borrow_mut().remove(hostname);
        Ok(())
    }

    async fn changed(&self) {
        self.changed.notified().await;
    }

    async fn close(&self) -> Result<(), RuntimeError> {
        Ok(())
    }
}

// === impl Running ===

impl Running {
    fn observed(&self, hostname: &Hostname) -> Observed {
        Observed {
            hostname: hostname.clone(),
            place: self.place,
            address: Some(self.address),
            address_error: None,
            weight: 1,
            created: self.created,
            release: self.release.clone(),
            condition: self.death.borrow().map_or(Condition::Running, Condition::Dead),
            leaving: false,
            seat_stays: false,
        }
    }

    /// Asks the replica to end, by SIGTERM to all of its processes.
    fn ask_to_end(&mut self) {
        // One byte always fits into the pipe. It is broken if the replica has ended.
        if let Some(Err(error)) = self.control.as_mut().map(|control| control.write_all(b"T")) {
            debug!(%error, "replica has ended");
        }
    }

    /// Kills the shim, which does not react. It is waited for on this thread, so the process is
    /// still its own while no death was told.
    fn kill_shim(&mut self) {
        if let (Some(shim), None) = (self.shim, *self.death.borrow())
            && let Err(error) = kill_process(shim, Signal::KILL)
        {
            debug!(%error, "shim could not be killed");
        }
    }
}

/// Waits for the end of a replica's shim, which ends as the replica's program did and after all
/// processes below it; then tells it, and hints that something changed.
async fn wait_for(
    mut child: Child,
    owned: Option<Owned>,
    tree: Option<Tree>,
    dead: watch::Sender<Option<Death>>,
    changed: Rc<Notify>,
) {
    let status = child.wait().await;
    drop(owned);
    let exited = status.as_ref().is_ok_and(|status| status.code().is_some());
    if let Some(tree) = tree.filter(|_| !exited) {
        // The signal may have hit the shim itself.
        orphans::kill(tree).await;
    }
    let death = match status {
        Ok(status) => death(status),
        Err(error) => {
            warn!(%error, "cannot wait for a replica; it counts as gone");
            Death::Vanished
        }
    };
    dead.send_replace(Some(death));
    changed.notify_one();
}

fn death(status: ExitStatus) -> Death {
    match (status.code(), status.signal()) {
        (Some(code), _) => Death::Exited(code.into()),
        (None, Some(signal)) => Death::Killed(signal),
        (None, None) => Death::Vanished,
    }
}

/// Passes the output of a replica on, each line behind the replica's name. The pipe is read whether
/// or not the lines can be written, so that the replica never waits.
async fn pass_on(mut output: impl AsyncRead + Unpin, hostname: Hostname) {
    let mut buffer = Vec::with_capacity(LINE_MAX);
    loop {
        let read = output.read_buf(&mut buffer).await;
        let ended = !matches!(read, Ok(1..));
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            print_output(&hostname, &buffer[..end]);
            buffer.drain(..=end);
        }
        if !buffer.is_empty() && (ended || buffer.len() >= LINE_MAX) {
            print_output(&hostname, &buffer);
            buffer.clear();
        }
        if ended {
            return;
        }
    }
}

/// The program that runs now, also when its file was replaced since (`cargo build`, an upgrade).
fn own_program() -> PathBuf {
    std::env::current_exe()
        .ok()
        .filter(|path| path.exists())
        .unwrap_or_else(|| PathBuf::from("/proc/self/exe"))
}

/// Checks that the program of `command` exists and may be executed, as `execvp` would look for it:
/// in `PATH` of `env` or of this process. A program with a placeholder in its name is not checked.
///
/// # Errors
/// [`CommandError`].
pub fn check_command(command: &CommandLine, env: &[(String, String)]) -> Result<(), CommandError> {
    let Some(program) = command.words().first().filter(|word| !has_placeholder(word)) else {
        return Ok(());
    };
    let may_run = |path: &Path| path.is_file() && access(path, Access::EXEC_OK).is_ok();
    if program.contains('/') {
        let path = Path::new(program);
        return match path.try_exists() {
            Ok(true) if may_run(path) => Ok(()),
            Ok(true) => Err(CommandError::NotExecutable(program.clone())),
            Ok(false) | Err(_) => Err(CommandError::NoFile(program.clone())),
        };
    }
    let own = || std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
    let set = env.iter().rev().find(|(name, _)| name == "PATH");
    let path = set.map_or_else(own, |(_, path)| path.into());
    if std::env::split_paths(&path).any(|folder| may_run(&folder.join(program))) {
        return Ok(());
    }
    let path = path.to_string_lossy().into_owned();
    Err(CommandError::NotInPath { program: program.clone(), path })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(command: &str, env: &[(&str, &str)]) -> Result<(), String> {
        let env: Vec<(String, String)> =
            env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        check_command(&command.parse().unwrap(), &env).map_err(|error| error.to_string())
    }

    #[test]
    fn a_program_is_looked_for_as_it_will_be_executed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("server");
        std::fs::write(&path, "#!/bin/sh\n").unwrap();
        let (file, folder) = (path.to_str().unwrap(), folder.path().to_str().unwrap());
        let not_executable = check(file, &[]).unwrap_err();
        assert!(not_executable.contains("not an executable file"), "{not_executable}");
        assert!(check("server --x", &[("PATH", folder)]).unwrap_err().contains(folder));

        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&path, mode).unwrap();
        assert_eq!(check(file, &[]), Ok(()));
        assert_eq!(check("server --x", &[("PATH", "/nowhere"), ("PATH", folder)]), Ok(()));
        assert!(check("server", &[("PATH", "/nowhere")]).unwrap_err().contains("\"/nowhere\""));
        assert_eq!(check("sh -c true", &[]), Ok(()));
        assert!(check("./no/such", &[]).unwrap_err().contains("no such file"));
        assert!(check(folder, &[]).unwrap_err().contains("not an executable file"));
        assert_eq!(check("/opt/server-{seat}", &[]), Ok(()));
    }
}
