//! Process trees, as `/proc` shows them.

use std::fs;
use std::io;

use rustix::process::{Pid, Signal, getpid, kill_process};

/// A process that was seen in `/proc`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) pid: Pid,
    parent: i32,
    /// It has ended, and its parent has not waited for it.
    pub(super) is_zombie: bool,
}

/// Returns the processes below `ancestor`, parents before their children.
///
/// # Errors
/// When `/proc` cannot be read.
pub(super) fn descendants(ancestor: Pid) -> io::Result<Vec<Seen>> {
    Ok(below(&all()?, ancestor))
}

/// Sends `signal` to every living process below this one. Processes that end meanwhile are passed
/// over.
///
/// # Errors
/// When `/proc` cannot be read.
pub(super) fn signal_descendants(signal: Signal) -> io::Result<()> {
    for process in descendants(getpid())?.into_iter().filter(|process| !process.is_zombie) {
        // It may have ended since, or have become another user's.
        let _sent = kill_process(process.pid, signal);
    }
    Ok(())
}

/// Returns the children of this process, zombies included.
///
/// # Errors
/// When `/proc` cannot be read.
pub(super) fn children() -> io::Result<Vec<Pid>> {
    match listed_children() {
        // The kernel was built without CONFIG_PROC_CHILDREN.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let me = getpid().as_raw_nonzero().get();
            Ok(all()?.into_iter().filter(|seen| seen.parent == me).map(|seen| seen.pid).collect())
        }
        listed => listed,
    }
}

/// Reports whether a process has ended without having been waited for.
pub(super) fn is_zombie(pid: Pid) -> bool {
    seen(pid).is_some_and(|seen| seen.is_zombie)
}

fn listed_children() -> io::Result<Vec<Pid>> {
    let mut children = Vec::new();
    for thread in fs::read_dir("/proc/self/task")? {
        let path = thread?.path().join("children");
        let list = match fs::read_to_string(&path) {
            Ok(list) => list,
            // The thread has ended since.
            Err(_) if !path.exists() && path.parent().is_some_and(|thread| !thread.exists()) => {
                continue;
            }
            Err(error) => return Err(error),
        };
        let pids = list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok());
        children.extend(pids.filter_map(Pid::from_raw));
    }
    Ok(children)
}

fn all() -> io::Result<Vec<Seen>> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let pid = name.to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        all.extend(pid.and_then(seen));
    }
    Ok(all)
}

fn seen(pid: Pid) -> Option<Seen> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    let (parent, is_zombie) = parse(&stat)?;
    Some(Seen { pid, parent, is_zombie })
}

/// Parses `PID (NAME) STATE PARENT …` (proc(5)), where the name may hold anything: returns the
/// parent, and whether the process has ended.
fn parse(stat: &str) -> Option<(i32, bool)> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    Some((fields.next()?.parse().ok()?, matches!(state, "Z" | "X")))
}

fn below(all: &[Seen], ancestor: Pid) -> Vec<Seen> {
    let mut found: Vec<Seen> = Vec::new();
    let mut parents = vec![ancestor.as_raw_nonzero().get()];
    while let Some(parent) = parents.pop() {
        for child in all.iter().filter(|process| process.parent == parent) {
            parents.push(child.pid.as_raw_nonzero().get());
            found.push(*child);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_behind_a_name_that_looks_like_fields() {
        assert_eq!(parse("12 (a) Z 3 (b)) S 7 12 12"), Some((7, false)));
        assert_eq!(parse("12 (sh) Z 7 12 12"), Some((7, true)));
        assert_eq!(parse("12 sh Z 7"), None);
    }

    #[test]
    fn descendants_are_found_over_all_generations() {
        let seen =
            |pid, parent| Seen { pid: Pid::from_raw(pid).unwrap(), parent, is_zombie: false };
        let all = [seen(5, 4), seen(2, 1), seen(4, 3), seen(3, 2), seen(9, 1)];
        let pids: Vec<i32> = below(&all, Pid::from_raw(2).unwrap())
            .iter()
            .map(|seen| seen.pid.as_raw_nonzero().get())
            .collect();
        assert_eq!(pids, [3, 4, 5]);
        assert!(below(&all, Pid::from_raw(7).unwrap()).is_empty());
    }

    #[test]
    fn both_ways_of_finding_children_find_a_child_and_its_end() {
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let pid = Pid::from_child(&child);
        assert!(children().unwrap().contains(&pid));
        assert!(descendants(getpid()).unwrap().iter().any(|seen| seen.pid == pid));
        assert!(!is_zombie(pid));
        child.kill().unwrap();
        let begin = std::time::Instant::now();
        while !is_zombie(pid) {
            assert!(begin.elapsed() < std::time::Duration::from_secs(30));
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(!is_zombie(pid));
    }
}
