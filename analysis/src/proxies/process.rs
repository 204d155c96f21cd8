//! A program on one processor of its own, ended whatever happens.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use rustix::process::Signal;
use tokio::process::{Child, Command};

use super::client::Client;
use super::procfs::Usage;
use crate::system::victim::descendants;
use crate::system::{forget_settings, signal};

/// What is started, and where.
#[derive(Clone, Debug)]
pub(crate) struct Launch<'a> {
    pub(crate) program: &'a Path,
    pub(crate) arguments: Vec<String>,
    /// The one processor for all of its threads and processes.
    pub(crate) processor: usize,
}

/// A running program with the processes below it. Dropping it kills all of them: nothing here has
/// anything to save.
pub(crate) struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

/// How long a program may take until it answers.
const PATIENCE: Duration = Duration::from_secs(10);
/// Of a log, in an error message.
const SHOWN_LINES: usize = 10;

// === impl Launch ===

impl Launch<'_> {
    /// The command, to be started by `taskset`, which becomes the program: its id is the program's.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new("taskset");
        command
            .args(["--cpu-list", &self.processor.to_string()])
            .arg(self.program)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        forget_settings(&mut command);
        command
    }
}

// === impl Process ===

impl Process {
    /// Starts it, with what it says in the file `log`, and waits until `address` answers a GET of
    /// `path` with 200.
    ///
    /// # Errors
    /// When it cannot be started, ends, or does not answer in time: with its last lines.
    pub(crate) async fn start(
        launch: &Launch<'_>,
        log: &Path,
        address: SocketAddr,
        path: &str,
    ) -> anyhow::Result<Self> {
        let name = launch.program.display().to_string();
        let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let child = launch
            .command()
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let mut process = Self { child, name, log: log.to_owned() };
        let deadline = Instant::now() + PATIENCE;
        loop {
            process.check()?;
            let Err(error) = Client::ask_once(address, path).await else { return Ok(process) };
            if Instant::now() > deadline {
                let (name, last) = (&process.name, process.last_lines());
                bail!("{name} is not ready after {PATIENCE:?}: {error:#}\n{last}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What it and the processes below it have used.
    ///
    /// # Errors
    /// When it has ended: with its last lines.
    pub(crate) fn usage(&mut self) -> anyhow::Result<Usage> {
        let mut sum = Usage::default();
        for pid in self.check()? {
            sum += Usage::of(pid)?;
        }
        Ok(sum)
    }

    /// Its process, and those below it.
    fn check(&mut self) -> anyhow::Result<Vec<u32>> {
        let ended = self.child.try_wait()?;
        ensure!(ended.is_none(), "{} has ended:\n{}", self.name, self.last_lines());
        let first = self.child.id().context("what has not ended has an id")?;
        let mut all = vec![first];
        all.extend(descendants(first)?);
        Ok(all)
    }

    fn last_lines(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(SHOWN_LINES)..];
        last.iter().map(|line| format!("  | {line}\n")).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The first one first: nginx replaces a worker that ends before its master.
        for pid in self.check().unwrap_or_default() {
            let _ = signal(pid, Signal::KILL);
        }
    }
}
