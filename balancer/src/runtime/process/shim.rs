//! The supervisor of one replica's processes: a small process between the balancer and the replica.
//!
//! ```text
//! balancer ── pipe ──> shim ──> program ──> its children …
//! ```
//!
//! The shim is the leader of its own session, so that a Ctrl-C in the terminal reaches the balancer
//! only, and a child subreaper (prctl(2)): a process below it whose parent ends becomes its child,
//! also one that became a daemon. When the program ends, or the balancer ends in whichever way, the
//! shim kills everything that is left below it and ends as the program did. It exits only when
//! nothing is left, so its end is the end of the replica.
//!
//! The pipe carries one command: a byte asks the processes to end, by SIGTERM; its closing kills
//! them. The kernel closes it when the balancer dies.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, Resource, Rlimit, Signal, WaitOptions, WaitStatus, getpid, set_child_subreaper, setrlimit,
    setsid, wait,
};
use signal_hook::consts::{FORBIDDEN, SIGHUP, SIGINT, SIGQUIT, SIGTERM};

use super::tree::signal_descendants;

/// The name of the process: what `ps` and `pgrep` show. Not the balancer's own, so that a `pkill`
/// of the balancer leaves the shims alive to clean up.
pub const SHIM: &str = "replica-shim";

/// The exit code of a program that cannot be run, as in shells.
const CANNOT_RUN: u8 = 127;

/// How long killed processes may take to disappear: a process in an uninterruptible system call
/// does not, and must not keep the seat.
const KILLED_WITHIN: Duration = Duration::from_secs(5);

/// Stack of the second thread.
const STACK: usize = 64 << 10;

/// What was asked of the processes.
#[derive(Debug, Default)]
struct Asked {
    /// To end: processes that outlive the program have time until they are killed.
    stop: AtomicBool,
    /// To be killed.
    kill: AtomicBool,
}

/// Runs `program` until it and everything below it have ended. Returns its exit code; ends by the
/// same signal if the program ended by one.
pub fn run(program: &[OsString]) -> ExitCode {
    let error = match start(program) {
        Ok((child, signals)) => return supervise(child, signals),
        Err(error) => error,
    };
    let program = program.first().map(|program| program.to_string_lossy()).unwrap_or_default();
    eprintln!("error: cannot run {program:?}: {error}");
    ExitCode::from(CANNOT_RUN)
}

/// Prepares this process and starts the program. Returns its process, and the stream that gets a
/// byte for each signal that asks this process to end.
fn start(program: &[OsString]) -> io::Result<(Pid, UnixStream)> {
    let Some((program, arguments)) = program.split_first() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no program given"));
    };
    rustix::thread::set_name(&std::ffi::CString::new(SHIM)?)?;
    // Fails only for the leader of a process group, started by hand.
    let _session = setsid();
    set_child_subreaper(Some(getpid()))?;
    // Descriptors that the balancer itself inherited.
    close_fds::set_fds_cloexec_threadsafe(3, &[]);
    let signals = catch_signals()?;
    let mut command = Command::new(program);
    let child = command.args(arguments).stdin(Stdio::null()).process_group(0).spawn()?;
    let child = Pid::from_child(&child);
    // The program dumps its core itself; this process ends by the same signal without one.
    let _limited = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).is_ok();
    Ok((child, signals))
}

/// Catches signals that ask this process to end (systemd sends SIGTERM to every process of a unit),
/// and those that the balancer inherited as ignored (`nohup`): a caught signal is reset to its
/// default when the program is executed, an ignored one would stay ignored.
fn catch_signals() -> io::Result<UnixStream> {
    let (reader, writer) = UnixStream::pair()?;
    for signal in [SIGTERM, SIGINT, SIGHUP, SIGQUIT] {
        signal_hook::low_level::pipe::register(signal, writer.try_clone()?)?;
    }
    let status = fs::read_to_string("/proc/self/status")?;
    // SIGILL, SIGFPE and SIGSEGV may not be caught; a program that ignores them does not go on.
    for signal in ignored(&status).into_iter().filter(|signal| !FORBIDDEN.contains(signal)) {
        // Fails for those that the C library keeps for itself.
        let _caught = signal_hook::flag::register(signal, Arc::default()).is_ok();
    }
    Ok(reader)
}

/// Returns the ignored signals in `/proc/PID/status`.
fn ignored(status: &str) -> Vec<i32> {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    (1..=64).filter(|signal| mask & (1 << (signal - 1)) != 0).collect()
}

/// Waits until nothing is left below this process.
fn supervise(program: Pid, signals: UnixStream) -> ExitCode {
    let asked = Arc::<Asked>::default();
    let heard = Arc::clone(&asked);
    let listening = thread::Builder::new().stack_size(STACK).spawn(move || listen(&heard, signals));
    if let Err(error) = listening {
        eprintln!("error: {SHIM} cannot start a thread: {error}");
        asked.kill.store(true, Ordering::SeqCst);
        kill_all();
    }
    let (mut ended, mut limited) = (None, false);
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == program => ended = Some(status),
            Ok(_) | Err(Errno::INTR) => {}
            // ECHILD: nothing is left.
            Err(_) => break,
        }
        let stopping = asked.stop.load(Ordering::SeqCst);
        if asked.kill.load(Ordering::SeqCst) || (ended.is_some() && !stopping) {
            // After each end once more: a process may have forked since the last look. That child
            // is below this process before the end of its parent can be waited for.
            if !kill_all() {
                break;
            }
            if !std::mem::replace(&mut limited, true) {
                // Without the thread this process waits for as long as it takes.
                let limit = thread::Builder::new().stack_size(STACK);
                let _limit = limit.spawn(give_up).is_ok();
            }
        }
    }
    ended.map_or(ExitCode::FAILURE, end_as)
}

/// Kills everything below this process. Reports whether `/proc` could be read.
fn kill_all() -> bool {
    let killed = signal_descendants(Signal::KILL);
    if let Err(error) = &killed {
        eprintln!("error: {SHIM} cannot find the replica's processes: {error}");
    }
    killed.is_ok()
}

/// Ends this process with processes below it that do not disappear.
fn give_up() {
    let until = Instant::now() + KILLED_WITHIN;
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        thread::park_timeout(left);
    }
    eprintln!("error: {SHIM} leaves processes behind that were killed and do not end");
    #[expect(clippy::disallowed_methods, reason = "the main thread waits in the kernel")]
    std::process::exit(1);
}

/// Carries out what the balancer asks for, until it asks to kill or has died.
fn listen(asked: &Asked, mut signals: UnixStream) {
    let mut byte = [0];
    loop {
        let stdin = rustix::stdio::stdin();
        let mut events = [PollFd::new(&stdin, PollFlags::IN), PollFd::new(&signals, PollFlags::IN)];
        match poll(&mut events, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => break,
        }
        let [from_balancer, signalled] = events.map(|event| !event.revents().is_empty());
        if from_balancer && !matches!(rustix::io::read(stdin, &mut byte), Ok(1..)) {
            break;
        }
        if signalled && !matches!(signals.read(&mut byte), Ok(1..)) {
            break;
        }
        if from_balancer || signalled {
            asked.stop.store(true, Ordering::SeqCst);
            let _sent = signal_descendants(Signal::TERM);
        }
    }
    asked.kill.store(true, Ordering::SeqCst);
    kill_all();
    give_up();
}

/// Ends this process as the program ended.
fn end_as(status: WaitStatus) -> ExitCode {
    if let Some(signal) = status.terminating_signal() {
        // Returns only for signals that it does not know, such as real-time ones.
        let _unknown = signal_hook::low_level::emulate_default_handler(signal);
        // As shells report an end by signal.
        return ExitCode::from(u8::try_from(128 + signal).unwrap_or(u8::MAX));
    }
    let code = status.exit_status().and_then(|code| u8::try_from(code).ok());
    code.map_or(ExitCode::FAILURE, ExitCode::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read_from_the_status() {
        let status = "Name:\tx\nSigBlk:\tffffffffffffffff\nSigIgn:\t8000000000001001\nSigCgt:\t0\n";
        assert_eq!(ignored(status), [1, 13, 64]);
        assert_eq!(ignored("SigIgn:\t0000000000000000\n"), [0; 0]);
        assert_eq!(ignored(""), [0; 0]);
    }
}
