//! The system under test: the real balancer in a process of its own, started on a free port and
//! stopped whatever happens.

pub(crate) mod api;
pub(crate) mod victim;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::ValueEnum;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::Notify;

use api::Api;

/// Where the replicas run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Runtime {
    /// As child processes of the balancer.
    Process,
    /// As containers.
    Docker,
}

/// What to start.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// The program.
    pub(crate) binary: PathBuf,
    pub(crate) runtime: Runtime,
    /// The image of the replicas, for Docker.
    pub(crate) image: String,
    pub(crate) replicas: u32,
    /// Listed replicas in place of its own: as many as `replicas` says.
    pub(crate) servers: Vec<SocketAddr>,
    /// The address that it listens on, at a free port.
    pub(crate) listen: Ipv4Addr,
    /// More of the command line.
    pub(crate) arguments: Vec<String>,
}

/// A running balancer. Dropping it stops it, too: by SIGTERM, and by SIGKILL when that takes too
/// long.
pub(crate) struct Balancer {
    options: Options,
    child: Child,
    address: SocketAddr,
    runtime: Runtime,
    /// Tells its containers from those of others.
    pool: String,
    log: Log,
    api: Api,
}

/// The last lines that the balancer wrote.
#[derive(Clone, Default)]
pub(crate) struct Log {
    lines: Rc<RefCell<VecDeque<String>>>,
    unread: Rc<Cell<bool>>,
    read_on: Rc<Notify>,
}

/// Lines of the log that are kept for an error message.
const KEPT_LINES: usize = 30;

// === impl Runtime ===

impl Runtime {
    /// As the balancer's command line calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Runtime::Process => "process",
            Runtime::Docker => "docker",
        }
    }

    /// How long the balancer may take to have its replicas ready, or to stop them.
    fn patience(self) -> Duration {
        match self {
            Runtime::Process => Duration::from_secs(20),
            Runtime::Docker => Duration::from_secs(90),
        }
    }
}

// === impl Options ===

impl Options {
    /// Of the command line: who the replicas are.
    fn fleet(&self) -> Vec<String> {
        if self.servers.is_empty() {
            let replicas = self.replicas.to_string();
            return ["--runtime", self.runtime.name(), "--replicas", &replicas]
                .map(str::to_owned)
                .to_vec();
        }
        let servers: Vec<String> = self.servers.iter().map(SocketAddr::to_string).collect();
        vec!["--servers".to_owned(), servers.join(",")]
    }
}

// === impl Balancer ===

impl Balancer {
    /// Starts it and waits until `/rep` lists as many replicas as asked for.
    ///
    /// # Errors
    /// When it cannot be started, ends, or is not ready in time: with its last lines.
    pub(crate) async fn start(options: &Options) -> anyhow::Result<Self> {
        let mut balancer = Self::launch(options)?;
        let deadline = Instant::now() + options.runtime.patience();
        loop {
            if let Some(status) = balancer.child.try_wait()? {
                // Its last lines may be on their way yet.
                tokio::time::sleep(Duration::from_millis(100)).await;
                bail!("the balancer ended at once ({status}):\n{}", balancer.log.text());
            }
            let names = balancer.api.replicas().await;
            if names.as_ref().is_ok_and(|names| names.len() == options.replicas as usize) {
                return Ok(balancer);
            }
            if Instant::now() > deadline {
                let seen =
                    names.map_or_else(|error| format!("{error:#}"), |names| names.join(", "));
                bail!(
                    "no {} replicas after {:?}; /rep says: {seen}\n{}",
                    options.replicas,
                    options.runtime.patience(),
                    balancer.log.text()
                );
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Starts it and waits until it has ended by itself: for what it must refuse.
    ///
    /// # Errors
    /// When it cannot be started, or runs on.
    pub(crate) async fn start_and_fail(options: &Options) -> anyhow::Result<(ExitStatus, String)> {
        let mut balancer = Self::launch(options)?;
        let status = tokio::time::timeout(Duration::from_secs(10), balancer.child.wait())
            .await
            .context("the balancer runs on")??;
        tokio::time::sleep(Duration::from_millis(100)).await;
        Ok((status, balancer.log.text()))
    }

    /// Starts it, and does not wait for its replicas.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn launch(options: &Options) -> anyhow::Result<Self> {
        let address = free_address(options.listen)?;
        let pool = format!("analysis-{}-{}", std::process::id(), address.port());
        let log = Log::default();
        let child = spawn(options, address, &pool, &log)?;
        let (options, runtime) = (options.clone(), options.runtime);
        Ok(Self { options, child, address, runtime, pool, log, api: Api::new(address) })
    }

    /// Starts another balancer of the same pool with the same arguments at an address of its own.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn launch_beside(&self) -> anyhow::Result<Self> {
        let (options, pool) = (self.options.clone(), self.pool.clone());
        let (address, log) = (free_address(options.listen)?, Log::default());
        let child = spawn(&options, address, &pool, &log)?;
        let (runtime, api) = (options.runtime, Api::new(address));
        Ok(Self { options, child, address, runtime, pool, log, api })
    }

    /// Waits until `/rep` lists `n` replicas.
    ///
    /// # Errors
    /// When it does not in time: with the last lines.
    pub(crate) async fn wait_for_replicas(
        &self,
        n: usize,
        patience: Duration,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + patience;
        while self.api.replicas().await.ok().is_none_or(|names| names.len() != n) {
            ensure!(
                Instant::now() < deadline,
                "no {n} replicas after {patience:?}:\n{}",
                self.log.text()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Kills it by SIGKILL, and starts it again at the same address with the same pool and
    /// arguments. Does not wait for its replicas.
    ///
    /// # Errors
    /// When it had ended before, or cannot be started.
    pub(crate) async fn crash(&mut self) -> anyhow::Result<()> {
        signal(self.pid()?, Signal::KILL)?;
        self.child.wait().await?;
        self.child = spawn(&self.options, self.address, &self.pool, &self.log)?;
        Ok(())
    }

    /// Whether it runs: it has not ended by itself.
    pub(crate) fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The URL of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// To talk to it.
    pub(crate) fn api(&self) -> &Api {
        &self.api
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Tells its containers from those of others.
    pub(crate) fn pool(&self) -> &str {
        &self.pool
    }

    /// Returns its output, to stop reading it.
    pub(crate) fn output(&self) -> Log {
        self.log.clone()
    }

    /// Its last lines, each on a line of its own.
    pub(crate) fn last_lines(&self) -> String {
        self.log.text()
    }

    /// Its process.
    ///
    /// # Errors
    /// When it has ended.
    pub(crate) fn pid(&self) -> anyhow::Result<u32> {
        self.child.id().with_context(|| format!("the balancer has ended:\n{}", self.log.text()))
    }

    /// Stops it by SIGTERM and waits until it has ended.
    ///
    /// # Errors
    /// When it had ended before, does not end in time (it is killed then), or ends with a status
    /// other than 0: with its last lines.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        signal(self.pid()?, Signal::TERM)?;
        let patience = self.runtime.patience();
        let status = tokio::time::timeout(patience, self.child.wait())
            .await
            .with_context(|| format!("the balancer still runs {patience:?} after SIGTERM"))??;
        ensure!(status.success(), "the balancer ended with {status}:\n{}", self.log.text());
        Ok(())
    }

    /// Kills it by SIGKILL, as an accident would.
    ///
    /// # Errors
    /// When it has ended before.
    pub(crate) async fn kill(mut self) -> anyhow::Result<()> {
        signal(self.pid()?, Signal::KILL)?;
        self.child.wait().await?;
        Ok(())
    }
}

/// Starts the program.
fn spawn(options: &Options, address: SocketAddr, pool: &str, log: &Log) -> anyhow::Result<Child> {
    let mut command = Command::new(&options.binary);
    command
        .args(["--listen", &address.to_string()])
        .args(options.fleet())
        .args(&options.arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if options.runtime == Runtime::Docker {
        command.args(["--image", &options.image, "--pool", pool]);
    }
    forget_settings(&mut command);
    let mut child = command.spawn().with_context(|| {
        format!(
            "cannot start {}; build it with `cargo build --release -p balancer`, or say \
             --balancer PATH",
            options.binary.display()
        )
    })?;
    log.follow(child.stdout.take());
    log.follow(child.stderr.take());
    Ok(child)
}

impl Drop for Balancer {
    /// Reached with a running balancer only when an experiment failed or was interrupted.
    fn drop(&mut self) {
        let Some(pid) = self.child.id() else { return };
        // SIGTERM first: containers outlive a killed balancer.
        let _ = signal(pid, Signal::TERM);
        let deadline = Instant::now() + self.runtime.patience();
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = self.child.start_kill();
                return;
            }
            // Nothing can be awaited here, and nothing else is to be done.
            thread::park_timeout(Duration::from_millis(10));
        }
    }
}

/// Sends a signal to a process.
///
/// # Errors
/// When there is no such process.
pub(crate) fn signal(pid: u32, signal: Signal) -> anyhow::Result<()> {
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).context("no process has this id")?;
    kill_process(raw, signal).with_context(|| format!("cannot signal process {pid}"))
}

/// Keeps `BALANCER_*` from a program: what is set for another balancer is not meant for this one.
pub(crate) fn forget_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("BALANCER_") {
            command.env_remove(name);
        }
    }
}

/// This address with a port that was free a moment ago.
pub(crate) fn free_address(address: Ipv4Addr) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((address, 0)).context("no free port")?;
    Ok(listener.local_addr()?)
}

// === impl Log ===

impl Log {
    /// Reads the output from now on, or leaves it in its pipes.
    pub(crate) fn read(&self, read: bool) {
        self.unread.set(!read);
        self.read_on.notify_waiters();
    }

    /// Keeps the last lines of `stream`, on a task that ends with the stream.
    fn follow(&self, stream: Option<impl AsyncRead + Unpin + 'static>) {
        let Some(stream) = stream else { return };
        let log = self.clone();
        tokio::task::spawn_local(async move {
            let mut lines = BufReader::new(stream).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                while log.unread.get() {
                    log.read_on.notified().await;
                }
                let mut kept = log.lines.borrow_mut();
                if kept.len() == KEPT_LINES {
                    kept.pop_front();
                }
                kept.push_back(line);
            }
        });
    }

    fn text(&self) -> String {
        let lines = self.lines.borrow();
        lines.iter().map(|line| format!("  | {line}\n")).collect()
    }
}
