//! Log lines on standard error, and lines of replicas on standard output.
//!
//! Every line goes through a bounded queue to a thread that writes (`queue`): no thread of the
//! balancer waits for the reader of its output. Lines that do not fit are dropped and counted.

mod queue;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::borrow::Cow;
use std::io::{self, IsTerminal as _, Write};
use std::panic;
use std::time::Duration;

use thiserror::Error;
use tracing::{Metadata, error};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::LogConfig;
use crate::config::settings::LogFormat;
pub use crate::fleet::change::chain;
use crate::fleet::seat::Hostname;
pub use queue::Kind;

/// The target of the access log's lines.
pub const ACCESS: &str = "balancer::access";

/// How long the end of the process waits for lines that are not written yet.
const FLUSH_WITHIN: Duration = Duration::from_secs(1);

/// The reason why logging cannot start.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// The filter is invalid.
    #[error("'log_level' is wrong")]
    Filter(#[from] ParseError),
    /// A thread that writes lines cannot be started.
    #[error("cannot start the thread that writes log lines")]
    Thread(#[from] io::Error),
}

/// Writes what is queued when it is dropped: held by `main`, so that the last lines are written
/// however `main` ends.
#[derive(Debug)]
pub struct Flush;

/// Makes a writer for each event.
struct Lines;

/// Queues one event as one line, whatever others wrote into its fields.
struct Line(Kind);

/// Starts writing log lines, and logs panics.
///
/// # Errors
/// When the filter is invalid, or no thread can be started.
pub fn start(config: &LogConfig) -> Result<(), TelemetryError> {
    // actix logs at info that it starts workers, which does not help users; the user's filter wins.
    let filter = EnvFilter::builder().parse(format!("actix_server=warn,{}", config.filter))?;
    queue::start()?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(Lines);
    // A second start (tests) keeps the first.
    let _first = match config.format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    // The standard hook writes to standard error itself, which blocks a worker if it is not read.
    panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// Prints one line of a replica's output on standard output, behind the replica's name.
pub fn print_output(hostname: &Hostname, line: &[u8]) {
    let line = String::from_utf8_lossy(line);
    queue::push(Kind::Replica, &[hostname.as_str().as_bytes(), b" | ", line.as_bytes(), b"\n"]);
}

/// Prints the error that ends the process on standard error, behind the lines that are queued.
pub fn print_error(error: &dyn std::fmt::Display) {
    let text = format!("error: {error}\n");
    if queue::is_started() {
        queue::push(Kind::Log, &[text.as_bytes()]);
    } else {
        // Nothing runs yet that could be blocked.
        eprint!("{text}");
    }
}

/// Waits until queued lines are written, for a second at most.
pub fn flush() {
    queue::flush(FLUSH_WITHIN);
}

fn log_panic(panic: &panic::PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then_some(backtrace);
    error!(
        thread = thread.name(),
        at = panic.location().map(tracing::field::display),
        backtrace = backtrace.map(tracing::field::display),
        reason = panic.payload_as_str(),
        "panicked"
    );
}

// === impl Flush ===

impl Drop for Flush {
    fn drop(&mut self) {
        flush();
    }
}

// === impl Lines ===

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line(Kind::Log)
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Line {
        Line(if meta.target() == ACCESS { Kind::Access } else { Kind::Log })
    }
}

// === impl Line ===

impl Write for Line {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        queue::push(self.0, &[one_line(event).as_bytes()]);
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns an event without control characters except its line end and the subscriber's colours,
/// which are the only escapes left: the subscriber escapes those in fields.
fn one_line(event: &[u8]) -> Cow<'_, str> {
    let breaks = |c: char| c.is_control() && !matches!(c, '\t' | '\u{1b}');
    let event = String::from_utf8_lossy(event);
    let line = event.strip_suffix('\n').unwrap_or(&event);
    if !line.contains(breaks) {
        return event;
    }
    let mut whole = String::with_capacity(event.len() + 16);
    for c in line.chars() {
        match c {
            '\n' => whole.push_str("\\n"),
            '\r' => whole.push_str("\\r"),
            // As in JSON, for lines in JSON.
            c if breaks(c) => whole.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => whole.push(c),
        }
    }
    whole.push_str(&event[line.len()..]);
    Cow::Owned(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_and_a_good_one_is_left_as_it_is() {
        let good = "a\tb \u{1b}[2mé\u{1b}[0m\n";
        assert!(matches!(one_line(good.as_bytes()), Cow::Borrowed(same) if same == good));
        let forged = "a\r\nWARN é\u{7}\u{9b}\n\n";
        assert_eq!(one_line(forged.as_bytes()), "a\\r\\nWARN é\\u0007\\u009b\\n\n");
        assert_eq!(one_line(b"a\nb"), "a\\nb");
        assert_eq!(one_line(b""), "");
    }
}
