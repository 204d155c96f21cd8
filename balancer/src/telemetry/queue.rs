//! Bounded queues of lines, one for each output stream of the process, each with a thread that
//! writes.
//!
//! Pushing a line never waits for the reader of the stream: a line that does not fit is dropped and
//! counted. The writing threads are the only ones that write to the streams while the balancer
//! runs, so lines never interleave.

use std::io::{self, ErrorKind};
use std::os::fd::BorrowedFd;
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use tracing::warn;

/// The origin of a line, with a fixed stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A line of the balancer's log, on standard error.
    Log,
    /// A line of the access log, on standard error.
    Access,
    /// A line of a replica's output, on standard output.
    Replica,
}

/// The number of kinds.
const KINDS: usize = Kind::ALL.len();

/// Limits of one queue.
#[derive(Clone, Copy, Debug)]
struct Limits {
    bytes: usize,
    lines: usize,
}

/// Limits of each queue. The access log of 30,000 requests/s takes about 10 MiB/s, so a reader may
/// pause for some 300 ms before lines are dropped; two streams take 16 MiB at most, buffers of the
/// writing threads included.
const LIMITS: Limits = Limits { bytes: 4 << 20, lines: 32_768 };

/// The part of a queue, in percent, that lines of the access log and of replicas may fill. The rest
/// is reserved for the log, so that a busy access log does not push a warning out.
const SHARE_OF_BULK: usize = 75;

/// The capacity that an empty buffer keeps; a larger one is freed.
const KEPT_CAPACITY: usize = 64 << 10;

/// Stack of a writing thread: it formats a log line at most.
const STACK: usize = 256 << 10;

static STDERR: Queue = Queue::new("stderr");
static STDOUT: Queue = Queue::new("stdout");

/// The queue of one stream.
#[derive(Debug)]
struct Queue {
    stream: &'static str,
    pending: Mutex<Pending>,
    /// Wakes the writing thread.
    work: Condvar,
    /// Wakes threads that wait in [`Queue::flush`].
    written: Condvar,
    started: OnceLock<()>,
}

/// What a queue holds.
#[derive(Debug)]
struct Pending {
    /// Whole lines, in order.
    bytes: Vec<u8>,
    /// Lines in `bytes`, by kind.
    lines: [usize; KINDS],
    /// Bytes and lines that the thread is writing now.
    in_write: (usize, usize),
    /// The thread waits for work. It does not while it reports dropped lines.
    idle: bool,
    /// The last write succeeded, so a report has a chance to be read.
    writable: bool,
    /// Dropped lines since the start, by kind.
    dropped: [u64; KINDS],
    /// The part of them that was dropped before the last successful write: a stream that is stuck
    /// reports nothing.
    reportable: [u64; KINDS],
    /// Dropped lines that the log has reported, by kind.
    reported: [u64; KINDS],
}

// === impl Kind ===

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Log, Self::Access, Self::Replica];

    /// Returns the name that logs and metrics use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Access => "access",
            Self::Replica => "replica",
        }
    }

    /// Returns the name of its stream.
    pub fn stream(self) -> &'static str {
        self.queue().stream
    }

    /// Returns how many of its lines have been dropped since the start.
    pub fn dropped(self) -> u64 {
        self.queue().lock().dropped[self as usize]
    }

    fn queue(self) -> &'static Queue {
        match self {
            Self::Log | Self::Access => &STDERR,
            Self::Replica => &STDOUT,
        }
    }
}

/// Starts the writing threads; a second call changes nothing.
///
/// # Errors
/// When a thread cannot be started.
pub(super) fn start() -> io::Result<()> {
    STDERR.start(rustix::stdio::stderr)?;
    STDOUT.start(rustix::stdio::stdout)
}

/// Reports whether the writing threads run.
pub(super) fn is_started() -> bool {
    STDERR.started.get().is_some() && STDOUT.started.get().is_some()
}

/// Queues `parts`, which together are whole lines, or drops them if there is no room. Never waits
/// for the stream.
pub(super) fn push(kind: Kind, parts: &[&[u8]]) {
    kind.queue().push(kind, parts, LIMITS);
}

/// Waits until all lines are written, `within` at most: a stream that is not read must not keep
/// the process from ending.
pub(super) fn flush(within: Duration) {
    let now = Instant::now();
    // Standard output first: what is dropped there is reported on standard error. If it is stuck,
    // half of the time is left for the log.
    STDOUT.flush(now + within / 2);
    STDERR.flush(now + within);
}

// === impl Queue ===

impl Queue {
    const fn new(stream: &'static str) -> Self {
        Self {
            stream,
            pending: Mutex::new(Pending {
                bytes: Vec::new(),
                lines: [0; KINDS],
                in_write: (0, 0),
                idle: false,
                writable: true,
                dropped: [0; KINDS],
                reportable: [0; KINDS],
                reported: [0; KINDS],
            }),
            work: Condvar::new(),
            written: Condvar::new(),
            started: OnceLock::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(&'static self, stream: fn() -> BorrowedFd<'static>) -> io::Result<()> {
        if self.started.get().is_some() {
            return Ok(());
        }
        let name = format!("write-{}", self.stream);
        let thread = thread::Builder::new().name(name).stack_size(STACK);
        let _running = thread.spawn(move || self.write_on(stream()))?;
        let _first = self.started.set(());
        Ok(())
    }

    fn push(&self, kind: Kind, parts: &[&[u8]], limits: Limits) {
        let mut pending = self.lock();
        pending.push(kind, parts, limits);
        let wake = std::mem::take(&mut pending.idle);
        drop(pending);
        if wake {
            self.work.notify_one();
        }
    }

    /// Writes lines to `stream` for the rest of the process's life.
    fn write_on(&self, stream: BorrowedFd<'_>) {
        let mut batch = Vec::new();
        loop {
            let lines = self.next(&mut batch);
            let written = write_all(stream, &batch);
            batch.clear();
            batch.shrink_to(KEPT_CAPACITY);
            let mut pending = self.lock();
            pending.in_write = (0, 0);
            pending.writable = written.is_ok();
            if written.is_ok() {
                pending.reportable = pending.dropped;
            } else {
                // The stream is closed, or its disk is full.
                for (dropped, lines) in pending.dropped.iter_mut().zip(lines) {
                    *dropped += lines as u64;
                }
            }
            drop(pending);
            // This thread is the one that the log's own lines wait for: no deadlock, `push` never
            // waits for it.
            for queue in [&STDERR, &STDOUT] {
                queue.report();
            }
        }
    }

    /// Waits for lines and moves them into `batch`. Returns their number, by kind.
    fn next(&self, batch: &mut Vec<u8>) -> [usize; KINDS] {
        let mut pending = self.lock();
        while pending.bytes.is_empty() {
            pending.idle = true;
            self.written.notify_all();
            pending = self.work.wait(pending).unwrap_or_else(PoisonError::into_inner);
        }
        pending.idle = false;
        std::mem::swap(batch, &mut pending.bytes);
        let lines = std::mem::take(&mut pending.lines);
        pending.in_write = (batch.len(), lines.iter().sum());
        lines
    }

    /// Logs what was dropped, once there is room again: here, and in the log.
    fn report(&self) {
        if !STDERR.lock().has_room(LIMITS) {
            return;
        }
        let Some(dropped) = self.lock().take_report(LIMITS) else { return };
        for kind in Kind::ALL {
            let dropped = dropped[kind as usize];
            if dropped > 0 {
                let (stream, kind) = (self.stream, kind.name());
                warn!(stream, kind, dropped, "log lines dropped");
            }
        }
    }

    fn flush(&self, deadline: Instant) {
        if self.started.get().is_none() {
            return;
        }
        let mut pending = self.lock();
        while !(pending.idle && pending.bytes.is_empty()) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            pending = match self.written.wait_timeout(pending, left) {
                Ok((pending, _timed_out)) => pending,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }
}

// === impl Pending ===

impl Pending {
    fn push(&mut self, kind: Kind, parts: &[&[u8]], limits: Limits) {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let (bytes, lines) = self.in_write;
        let (bytes, lines) = (bytes + self.bytes.len(), lines + self.lines.iter().sum::<usize>());
        let share = match kind {
            Kind::Log => 100,
            Kind::Access | Kind::Replica => SHARE_OF_BULK,
        };
        let most = |limit: usize| limit / 100 * share;
        if bytes + length > most(limits.bytes) || lines + 1 > most(limits.lines) {
            self.dropped[kind as usize] += 1;
            return;
        }
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        self.lines[kind as usize] += 1;
    }

    /// Returns the dropped lines that no report has named yet, by kind, and marks them as reported.
    /// `None` if there are none, or there is no room yet.
    fn take_report(&mut self, limits: Limits) -> Option<[u64; KINDS]> {
        if self.reportable == self.reported || !self.has_room(limits) {
            return None;
        }
        let since = std::array::from_fn(|kind| self.reportable[kind] - self.reported[kind]);
        self.reported = self.reportable;
        Some(since)
    }

    /// Reports whether the stream takes lines and a part of the log's reserve is free.
    fn has_room(&self, limits: Limits) -> bool {
        let bytes = self.bytes.len() + self.in_write.0;
        let lines = self.lines.iter().sum::<usize>() + self.in_write.1;
        self.writable && bytes <= limits.bytes / 8 * 7 && lines <= limits.lines / 8 * 7
    }
}

/// Writes all of `bytes`, waiting for the reader if need be.
fn write_all(stream: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(stream, bytes).map_err(io::Error::from) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Another process that shares the stream has made it non-blocking.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                match poll(&mut [PollFd::new(&stream, PollFlags::OUT)], None) {
                    Ok(_) | Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::fd::AsFd as _;
    use std::sync::Arc;

    use super::*;

    const SMALL: Limits = Limits { bytes: 1_000, lines: 100 };

    #[test]
    fn lines_that_do_not_fit_are_dropped_and_counted_and_the_log_has_a_reserve() {
        let queue = Queue::new("test");
        let line = [b'x'; 100];
        for _ in 0..10 {
            queue.push(Kind::Access, &[&line], SMALL);
        }
        for _ in 0..10 {
            queue.push(Kind::Log, &[&line[..50], &line[..50]], SMALL);
        }
        let mut pending = queue.lock();
        assert_eq!(pending.bytes.len(), 1_000);
        assert_eq!((pending.lines, pending.dropped), ([3, 7, 0], [7, 3, 0]));
        assert_eq!(pending.take_report(SMALL), None, "there is no room yet");
        pending.bytes.clear();
        pending.lines = [0; KINDS];
        assert_eq!(pending.take_report(SMALL), None, "nothing was written");
        pending.reportable = pending.dropped;
        assert_eq!(pending.take_report(SMALL), Some([7, 3, 0]));
        assert_eq!(pending.take_report(SMALL), None, "it is reported once");
    }

    #[test]
    fn short_lines_are_bounded_by_their_number() {
        let queue = Queue::new("test");
        for _ in 0..200 {
            queue.push(Kind::Replica, &[b"\n"], SMALL);
        }
        assert_eq!(queue.lock().lines, [0, 0, 75]);
        assert_eq!(queue.lock().dropped, [0, 0, 125]);
    }

    #[test]
    fn what_is_being_written_counts_as_held() {
        let queue = Queue::new("test");
        queue.push(Kind::Log, &[&[b'x'; 900]], SMALL);
        let mut batch = Vec::new();
        assert_eq!(queue.next(&mut batch), [1, 0, 0]);
        queue.push(Kind::Log, &[&[b'x'; 101]], SMALL);
        queue.push(Kind::Log, &[&[b'x'; 100]], SMALL);
        let pending = queue.lock();
        assert_eq!((batch.len(), pending.bytes.len(), pending.dropped[0]), (900, 100, 1));
    }

    #[test]
    fn a_stream_that_is_not_read_blocks_neither_push_nor_flush_and_loses_nothing_that_fits() {
        let (mut reader, writer) = io::pipe().unwrap();
        let queue: &'static Queue = Box::leak(Box::new(Queue::new("test")));
        queue.started.set(()).unwrap();
        let writer = Arc::new(writer);
        let held = Arc::clone(&writer);
        let _thread = thread::spawn(move || queue.write_on(held.as_fd()));
        let line = |n: usize| format!("{n:099}\n");
        // More than a pipe takes (64 KiB), less than the queue does.
        for n in 0..2_000 {
            queue.push(Kind::Log, &[line(n).as_bytes()], LIMITS);
        }
        let began = Instant::now();
        queue.flush(Instant::now() + Duration::from_millis(50));
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        let mut read = vec![0; 200_000];
        reader.read_exact(&mut read).unwrap();
        let expected: String = (0..2_000).map(line).collect();
        assert_eq!(String::from_utf8(read).unwrap(), expected);
        queue.flush(Instant::now() + Duration::from_secs(30));
        assert!(queue.lock().bytes.is_empty());
    }

    #[test]
    fn a_stream_that_another_process_made_non_blocking_loses_nothing() {
        let (mut reader, writer) = io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        let bytes = vec![b'x'; 300_000];
        let expected = bytes.len();
        let thread = thread::spawn(move || write_all(writer.as_fd(), &bytes));
        let mut read = Vec::new();
        reader.read_to_end(&mut read).unwrap();
        thread.join().unwrap().unwrap();
        assert_eq!(read.len(), expected);
    }
}
