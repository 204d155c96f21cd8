//! Finding the replica on a seat from outside, and killing it the hard way.

use std::fs;
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use rustix::process::Signal;
use tokio::process::Command;

use super::{Balancer, Runtime, signal};

/// A process as `/proc` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Process {
    pid: u32,
    parent: u32,
    /// Its `SERVER_ID`, when it has one.
    seat: Option<u32>,
}

/// A process with what it was started with.
#[derive(Clone, Debug)]
pub(crate) struct Marked {
    pub(crate) pid: u32,
    /// As `/proc/PID/environ` has it.
    environment: Vec<u8>,
}

/// Kills the replica on `seat` by SIGKILL.
///
/// # Errors
/// When there is none, or it cannot be killed.
pub(crate) async fn kill(balancer: &Balancer, seat: u32) -> anyhow::Result<()> {
    match balancer.runtime {
        Runtime::Process => {
            let processes = processes().context("cannot read /proc")?;
            let pid = on_seat(&processes, balancer.pid()?, seat)
                .with_context(|| format!("no child of the balancer has SERVER_ID={seat}"))?;
            signal(pid, Signal::KILL)
        }
        Runtime::Docker => {
            let pool = format!("label=balancer.pool={}", balancer.pool);
            let label = format!("label=balancer.seat={seat}");
            let listed = docker(&["ps", "--quiet", "--filter", &pool, "--filter", &label]).await?;
            let containers: Vec<&str> = listed.split_whitespace().collect();
            ensure!(
                containers.len() == 1,
                "{} containers of {} have the label balancer.seat={seat}, not one",
                containers.len(),
                balancer.pool
            );
            docker(&["kill", "--signal", "KILL", containers[0]]).await.map(drop)
        }
    }
}

/// The processes that descend from `ancestor` now.
///
/// # Errors
/// When `/proc` cannot be read.
pub(crate) fn descendants(ancestor: u32) -> anyhow::Result<Vec<u32>> {
    let processes = processes().context("cannot read /proc")?;
    Ok(below(&processes, ancestor).into_iter().map(|process| process.pid).collect())
}

/// Returns the replicas of a balancer now, without the shims between it and them.
///
/// # Errors
/// When `/proc` cannot be read.
pub(crate) fn replicas(balancer: u32) -> anyhow::Result<Vec<u32>> {
    let mut all = descendants(balancer)?;
    all.retain(|pid| !is_shim(*pid));
    Ok(all)
}

/// Whether this process runs; a dead one that nobody has waited for does not.
pub(crate) fn is_alive(pid: u32) -> bool {
    let state = fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| Some(stat.rsplit_once(')')?.1.trim().starts_with(['Z', 'X'])));
    state == Some(false)
}

/// The processes, anybody's, that have this variable in their environment, except the shims
/// between a balancer and its replicas. A dead one has none.
///
/// # Errors
/// When `/proc` cannot be read.
pub(crate) fn marked(name: &str, value: &str) -> anyhow::Result<Vec<Marked>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("cannot read /proc")? {
        let name_of = entry.context("cannot read /proc")?.file_name();
        let Some(pid) = name_of.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        if variable(&environment, name) == Some(value) && !is_shim(pid) {
            found.push(Marked { pid, environment });
        }
    }
    Ok(found)
}

fn is_shim(pid: u32) -> bool {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim_end() == balancer::runtime::process::shim::SHIM
}

/// Runs the Docker command line and gives what it printed.
///
/// # Errors
/// When it cannot be run or fails: with what it said.
pub(crate) async fn docker(arguments: &[&str]) -> anyhow::Result<String> {
    let command = format!("docker {}", arguments.join(" "));
    let output = Command::new("docker")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .await
        .with_context(|| format!("cannot run `{command}`"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`{command}` failed: {}", said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

// === impl Marked ===

impl Marked {
    /// The seat that it was started for.
    pub(crate) fn seat(&self) -> Option<u32> {
        seat_in(&self.environment)
    }

    /// A variable of its environment.
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        variable(&self.environment, name)
    }
}

fn processes() -> std::io::Result<Vec<Process>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // A process may end while it is looked at: it is none then.
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
            continue;
        };
        let Some(parent) = parent_in(&stat) else {
            continue;
        };
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        found.push(Process { pid, parent, seat: seat_in(&environment) });
    }
    Ok(found)
}

/// The parent in `/proc/PID/stat`: `PID (NAME) STATE PARENT …`, where the name may hold anything.
fn parent_in(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// A variable in `/proc/PID/environ`: `NAME=VALUE`, each closed by a zero byte.
fn variable<'a>(environment: &'a [u8], name: &str) -> Option<&'a str> {
    let value = environment
        .split(|byte| *byte == 0)
        .find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))?;
    std::str::from_utf8(value).ok()
}

/// The seat in `/proc/PID/environ`.
fn seat_in(environment: &[u8]) -> Option<u32> {
    variable(environment, "SERVER_ID")?.parse().ok()
}

fn below(processes: &[Process], ancestor: u32) -> Vec<&Process> {
    let mut found: Vec<&Process> = Vec::new();
    let mut parents = vec![ancestor];
    while let Some(parent) = parents.pop() {
        for child in processes.iter().filter(|process| process.parent == parent) {
            parents.push(child.pid);
            found.push(child);
        }
    }
    found
}

/// The replica on `seat`: where it was started through a shim that has the same environment, the
/// one at the end of the line.
fn on_seat(processes: &[Process], balancer: u32, seat: u32) -> Option<u32> {
    let mut candidates: Vec<&Process> = below(processes, balancer);
    candidates.retain(|process| process.seat == Some(seat));
    let is_parent = |pid| candidates.iter().any(|other| other.parent == pid);
    candidates.iter().map(|process| process.pid).find(|pid| !is_parent(*pid))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u32, parent: u32, seat: Option<u32>) -> Process {
        Process { pid, parent, seat }
    }

    #[test]
    fn the_parent_is_read_behind_the_name_whatever_the_name_holds() {
        assert_eq!(parent_in("12 (balancer) S 7 12 12 0 -1"), Some(7));
        assert_eq!(parent_in("12 (a) R 3 (b)) S 7 12"), Some(7));
        assert_eq!(parent_in("12"), None);
    }

    #[test]
    fn the_seat_is_read_from_the_environment() {
        assert_eq!(seat_in(b"PATH=/bin\0SERVER_ID=3\0PORT=1\0"), Some(3));
        assert_eq!(seat_in(b"MY_SERVER_ID=3\0SERVER_ID=x\0"), None);
        assert_eq!(seat_in(b""), None);
    }

    #[test]
    fn a_variable_is_found_by_its_whole_name() {
        let environment = b"AB=1\0B=2=3\0C\0";
        assert_eq!((variable(environment, "B"), variable(environment, "A")), (Some("2=3"), None));
        assert_eq!(variable(environment, "C"), None);
    }

    #[test]
    fn a_replica_is_found_among_the_children_of_its_own_balancer() {
        let all = [
            process(10, 1, None),
            process(11, 10, Some(1)),
            process(12, 10, Some(2)),
            process(20, 1, None),
            process(21, 20, Some(2)),
        ];
        assert_eq!(on_seat(&all, 10, 2), Some(12));
        assert_eq!(on_seat(&all, 10, 3), None);
    }

    #[test]
    fn a_replica_behind_a_shim_is_found_and_not_the_shim() {
        let all = [process(11, 10, Some(2)), process(12, 11, Some(2)), process(13, 10, Some(1))];
        assert_eq!(on_seat(&all, 10, 2), Some(12));
    }

    #[test]
    fn this_process_lives_and_is_below_its_parent() {
        let me = std::process::id();
        assert!(is_alive(me));
        assert!(!is_alive(u32::MAX));
        let parent = parent_in(&fs::read_to_string("/proc/self/stat").unwrap()).unwrap();
        assert!(descendants(parent).unwrap().contains(&me));
    }
}
