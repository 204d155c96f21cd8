//! What `/proc` says of processes: time on a processor, memory, allowed processors.

use std::fs;
use std::ops::AddAssign;
use std::time::Duration;

use anyhow::Context as _;

/// What processes have used since they started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// User and system time of all threads.
    pub(crate) time: Duration,
    /// Resident memory now (`VmRSS`), in KiB.
    pub(crate) resident_kib: u64,
    /// The most that it has been (`VmHWM`), in KiB.
    pub(crate) peak_kib: u64,
}

/// Of the times in `/proc/PID/stat`: Linux shows 100 a second to programs, whatever it counts by.
const TICKS_PER_SECOND: u32 = 100;

// === impl Usage ===

impl Usage {
    /// Of one process.
    ///
    /// # Errors
    /// When there is no such process.
    pub(crate) fn of(pid: u32) -> anyhow::Result<Self> {
        let read = |name: &str| {
            let path = format!("/proc/{pid}/{name}");
            fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
        };
        let status = read("status")?;
        let memory = |field| {
            kib(&status, field).with_context(|| format!("process {pid} has no {field}: it ended"))
        };
        // Not every kernel has the exact times.
        let time = match exact_time(pid) {
            Some(time) => time,
            None => ticks(&read("stat")?).context("/proc/PID/stat has no times")?,
        };
        Ok(Self { time, resident_kib: memory("VmRSS")?, peak_kib: memory("VmHWM")? })
    }
}

impl AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.time += other.time;
        self.resident_kib += other.resident_kib;
        self.peak_kib += other.peak_kib;
    }
}

/// The processors that this process may use, lowest first.
///
/// # Errors
/// When `/proc` does not say.
pub(crate) fn processors() -> anyhow::Result<Vec<usize>> {
    let status =
        fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
    let list = field(&status, "Cpus_allowed_list").and_then(listed);
    list.context("/proc/self/status has no list of allowed processors")
}

/// The time of all threads of a process, to the nanosecond; `None` where the kernel does not keep
/// it. What threads used that have ended is not in it.
fn exact_time(pid: u32) -> Option<Duration> {
    let mut sum = Duration::ZERO;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        sum += run_time(&fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?)?;
    }
    Some(sum)
}

/// From `schedstat`: time on a processor, time in wait for one, turns.
fn run_time(schedstat: &str) -> Option<Duration> {
    schedstat.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

/// User and system time, from `stat`: fields 14 and 15, and the name in field 2 may have anything
/// in its parentheses.
fn ticks(stat: &str) -> Option<Duration> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u32>().ok();
    let sum = ticks()? + ticks()?;
    Some(Duration::from_secs(sum.into()) / TICKS_PER_SECOND)
}

/// From `status`: a field in kB, which are 1,024 bytes each.
fn kib(status: &str, name: &str) -> Option<u64> {
    field(status, name)?.strip_suffix("kB")?.trim().parse().ok()
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// `0-2,5` → 0, 1, 2, 5.
fn listed(list: &str) -> Option<Vec<usize>> {
    let mut all = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        all.extend(first..=last);
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_figure_of_schedstat_is_the_time_in_nanoseconds() {
        assert_eq!(run_time("844013 92308 1\n"), Some(Duration::from_nanos(844_013)));
        assert_eq!(run_time(""), None);
    }

    #[test]
    fn stat_is_read_behind_a_name_that_looks_like_fields() {
        let stat = "7 (a) 1 (b) S 1 7 7 0 -1 4194560 90 0 0 0 25 175 0 0 20 0 1 0 100 5 6";
        assert_eq!(ticks(stat), Some(Duration::from_secs(2)));
        assert_eq!(ticks("7 (a"), None);
    }

    #[test]
    fn memory_is_read_by_its_name() {
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\nThreads:\t1\n";
        assert_eq!((kib(status, "VmRSS"), kib(status, "VmHWM")), (Some(1_024), Some(2_048)));
        assert_eq!((kib(status, "Vm"), kib(status, "Threads")), (None, None));
    }

    #[test]
    fn lists_of_processors_have_ranges() {
        assert_eq!(listed("0-2,5"), Some(vec![0, 1, 2, 5]));
        assert_eq!(listed("3"), Some(vec![3]));
        assert_eq!(listed(""), None);
    }

    #[test]
    fn this_process_has_used_something() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(usage.resident_kib > 0 && usage.peak_kib >= usage.resident_kib, "{usage:?}");
        assert!(!processors().unwrap().is_empty());
    }
}
