//! `process`: replicas as child processes on this machine.
//!
//! Each child leads a process group of its own, so that a Ctrl-C in the terminal is the
//! balancer's to handle, and is run through [`shim`], which ties its life to the balancer's.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::rc::Rc;
use std::time::Duration;

use actix_web::rt::spawn;
use rand::RngExt as _;
use rustix::process::{Pid, Signal, getppid, kill_process_group, set_parent_process_death_signal};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::sync::{Notify, watch};
use tokio::task::yield_now;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::{Mark, ReplicaSpec, Runtime, RuntimeError};
use crate::config::value::{filled, seat_text};
use crate::fleet::change::Death;
use crate::fleet::observed::{Condition, Observed, Place};
use crate::fleet::release::Release;
use crate::fleet::seat::Hostname;

/// Ports for replicas: below the range from which the kernel takes ports of outgoing connections,
/// so that none of those sits on a port between its choice and its use.
const PORTS: std::ops::Range<u16> = 20_000..32_768;

/// The longest line of a replica's output that is passed on in one piece.
const LINE_MAX: usize = 8 * 1024;

/// The subcommand under which `main` calls [`shim`].
pub const SHIM: &str = "replica-shim";

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
    group: Option<Pid>,
    death: watch::Receiver<Option<Death>>,
}

// === impl Process ===

impl Process {
    /// Returns the runtime without a child. What each child runs is in its release.
    pub fn new() -> Self {
        Self { children: RefCell::default(), started: RefCell::default(), changed: Rc::default() }
    }

    fn spawn(&self, what: &ReplicaSpec, port: u16) -> Result<Child, RuntimeError> {
        let me = own_program();
        let spec = what.release.spec();
        let words: Vec<OsString> = match spec.command.as_deref() {
            Some(words) => {
                let words = filled(words, port, what.seat, &what.hostname);
                words.into_iter().map(OsString::from).collect()
            }
            None => vec![me.clone().into(), "replica".into()],
        };
        let mut child = Command::new(&me);
        child
            .arg(SHIM)
            .arg(std::process::id().to_string())
            .arg("--")
            .args(&words)
            .env("PORT", port.to_string())
            .env("SERVER_ID", seat_text(what.seat))
            .envs(&spec.env)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        // What configures the balancer (its token above all) is none of a replica's business, and
        // an address set for all would beat each one's own port.
        for (name, _) in std::env::vars_os() {
            if name == "SERVER_LISTEN" || name.to_string_lossy().starts_with("BALANCER_") {
                child.env_remove(name);
            }
        }
        let command = words.first().map(|word| word.to_string_lossy().into_owned());
        child
            .spawn()
            .map_err(|source| RuntimeError::Spawn { command: command.unwrap_or_default(), source })
    }

    /// A child's process group, and where its end will be told.
    fn life_of(
        &self,
        hostname: &Hostname,
    ) -> Option<(Option<Pid>, watch::Receiver<Option<Death>>)> {
        let children = self.children.borrow();
        children.get(hostname).map(|running| (running.group, running.death.clone()))
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
        let mut child = self.spawn(what, port)?;
        let group = child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?));
        if let Some(output) = child.stdout.take() {
            spawn(pass_on(output, what.hostname.clone()));
        }
        if let Some(output) = child.stderr.take() {
            spawn(pass_on(output, what.hostname.clone()));
        }
        let (dead, death) = watch::channel(None);
        spawn(wait_for(child, dead, Rc::clone(&self.changed)));

        *self.started.borrow_mut() += 1;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let created = *self.started.borrow();
        let place = what.seat.map_or(Place::Spare, Place::from);
        let release = what.release.clone();
        let running = Running { place, release, address, created, group, death };
        let observed = running.observed(&what.hostname);
        self.children.borrow_mut().insert(what.hostname.clone(), running);
        Ok(observed)
    }

    async fn mark(&self, hostname: &Hostname, mark: Mark) -> Result<(), RuntimeError> {
        match (mark, self.children.borrow_mut().get_mut(hostname)) {
            (Mark::Seated(seat), Some(running)) => running.place = seat.into(),
            // Children end with the balancer: nobody will look for them.
            (Mark::Leaving, _) | (Mark::Seated(_), None) => {}
        }
        Ok(())
    }

    async fn stop(&self, hostname: &Hostname, grace: Duration) -> Result<(), RuntimeError> {
        let Some((group, mut death)) = self.life_of(hostname) else { return Ok(()) };
        // Signals are sent on the thread that reaps the children, so the group is still theirs
        // while no death was told.
        let signal = |signal: Signal, death: &watch::Receiver<Option<Death>>| {
            if let (Some(group), None) = (group, *death.borrow())
                && let Err(error) = kill_process_group(group, signal)
            {
                debug!(%hostname, %error, "replica could not be signalled");
            }
        };
        signal(Signal::TERM, &death);
        if timeout(grace, death.wait_for(Option::is_some)).await.is_err() {
            signal(Signal::KILL, &death);
            // An error means that the waiting task is gone, and the child with it.
            let _ended = death.wait_for(Option::is_some).await.is_ok();
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
            weight: 1,
            created: self.created,
            release: self.release.clone(),
            condition: self.death.borrow().map_or(Condition::Running, Condition::Dead),
            leaving: false,
        }
    }
}

/// Waits for a child's end, tells it, and hints that something changed.
async fn wait_for(mut child: Child, dead: watch::Sender<Option<Death>>, changed: Rc<Notify>) {
    let death = match child.wait().await {
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

/// Passes a replica's output on, each line behind its name.
async fn pass_on(mut output: impl AsyncRead + Unpin, hostname: Hostname) {
    let mut buffer = Vec::with_capacity(LINE_MAX);
    loop {
        let read = output.read_buf(&mut buffer).await;
        let ended = !matches!(read, Ok(1..));
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            print(&hostname, &buffer[..end]);
            buffer.drain(..=end);
        }
        if !buffer.is_empty() && (ended || buffer.len() >= LINE_MAX) {
            print(&hostname, &buffer);
            buffer.clear();
        }
        if ended {
            return;
        }
    }
}

fn print(hostname: &Hostname, line: &[u8]) {
    let mut out = io::stdout().lock();
    let line = String::from_utf8_lossy(line);
    // A closed or full output must not take the balancer down, and there is nowhere to say so.
    let _printed = writeln!(out, "{hostname} | {line}").is_ok();
}

/// The program that runs now, also when its file was replaced since (`cargo build`, an upgrade).
fn own_program() -> PathBuf {
    std::env::current_exe()
        .ok()
        .filter(|path| path.exists())
        .unwrap_or_else(|| PathBuf::from("/proc/self/exe"))
}

/// What runs between the balancer and a replica: asks the kernel to kill this process when the
/// balancer dies, however it dies, then becomes `program`. Returns only on failure.
///
/// # Errors
/// When the kernel refuses, the balancer has died already, or `program` cannot be run.
pub fn shim(parent: u32, program: &[OsString]) -> io::Error {
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return error.into();
    }
    // It may have died before the request above; then nobody would tell.
    let alive =
        getppid().is_some_and(|now| u32::try_from(now.as_raw_nonzero().get()) == Ok(parent));
    if !alive {
        return io::Error::other("the balancer has died");
    }
    match program.split_first() {
        Some((program, arguments)) => std::process::Command::new(program).args(arguments).exec(),
        None => io::Error::new(io::ErrorKind::InvalidInput, "no program given"),
    }
}
