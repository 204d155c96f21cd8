//! What the kernel says of this process (proc(5)).

use std::fs;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Process {
    /// Processor time, of the process and in it.
    pub cpu_seconds: f64,
    /// Threads.
    pub threads: u64,
    /// When it was started, in seconds since 1970; unknown where the kernel does not tell when it
    /// was.
    pub start_time_seconds: Option<f64>,
    /// Bytes of addresses.
    pub virtual_bytes: u64,
    /// Bytes in memory.
    pub resident_bytes: u64,
    /// Open file descriptors.
    pub open_files: Option<u64>,
    /// How many there may be; `None` where there is no limit.
    pub max_files: Option<u64>,
}

/// Reads it; `None` where there is no `/proc`. May take a while where many files are open.
pub fn read() -> Option<Process> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let boot = fs::read_to_string("/proc/stat").ok().and_then(|stat| boot_time(&stat));
    let mut process = parse(&stat, boot, clock_ticks_per_second(), page_size() as u64)?;
    process.open_files = open_files();
    process.max_files = getrlimit(Resource::Nofile).current;
    Some(process)
}

/// The fields of `/proc/self/stat` behind the name, which may have spaces and brackets in it.
fn parse(stat: &str, boot: Option<f64>, ticks: u64, page: u64) -> Option<Process> {
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    // The first one here is the third of the manual.
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let seconds = |ticks_passed: u64| ticks_passed as f64 / ticks as f64;
    let started = seconds(field(22)?);
    Some(Process {
        cpu_seconds: seconds(field(14)? + field(15)?),
        threads: field(20)?,
        start_time_seconds: boot.map(|boot| boot + started),
        virtual_bytes: field(23)?,
        resident_bytes: field(24)? * page,
        open_files: None,
        max_files: None,
    })
}

fn boot_time(stat: &str) -> Option<f64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// Linux 6.2 and later tell it as the directory's size; before, they have to be counted.
fn open_files() -> Option<u64> {
    const DIRECTORY: &str = "/proc/self/fd";
    match fs::metadata(DIRECTORY).ok()?.len() {
        // Less the one that is open for this.
        0 => Some((fs::read_dir(DIRECTORY).ok()?.count() as u64).saturating_sub(1)),
        size => Some(size),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_a_name_that_looks_like_fields() {
        let stat = "7 (a) S 1 (b)) R 1 7 7 0 -1 4194560 10 0 0 0 250 50 0 0 20 0 3 0 1000 4096000 \
                    100 18446744073709551615 1 1";
        let process = parse(stat, Some(1_000.0), 100, 4_096).unwrap();
        let wanted = Process {
            cpu_seconds: 3.0,
            threads: 3,
            start_time_seconds: Some(1_010.0),
            virtual_bytes: 4_096_000,
            resident_bytes: 409_600,
            open_files: None,
            max_files: None,
        };
        assert_eq!(process, wanted);
        assert_eq!(parse("7 (a) R 1 2", None, 100, 4_096), None);
        assert_eq!(boot_time("cpu 1 2\nbtime 1700000000\nx 1\n"), Some(1_700_000_000.0));
    }

    #[test]
    fn this_process_is_described() {
        let process = read().unwrap();
        assert!(process.threads >= 1 && process.open_files.unwrap() >= 3, "{process:?}");
        assert!(process.resident_bytes > 100_000, "{process:?}");
        assert!(process.resident_bytes < process.virtual_bytes, "{process:?}");
        let now = std::time::SystemTime::now();
        let now = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        let age = now - process.start_time_seconds.unwrap();
        assert!((-2.0..3_600.0).contains(&age), "{age} s old");
    }
}
