//! Log lines, on standard error.

use std::borrow::Cow;
use std::io::{self, IsTerminal as _, Write};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

use crate::config::LogConfig;
use crate::config::settings::LogFormat;
pub use crate::fleet::change::chain;

/// Standard error: one line for one event, whatever others wrote into its fields. What cannot be
/// written is lost: there is nowhere to say so, and it must not take the balancer down.
struct Lines;

/// Writes log lines from now on.
///
/// # Errors
/// When the filter makes no sense.
pub fn start(config: &LogConfig) -> Result<(), ParseError> {
    // actix tells at info that it starts workers, which is nobody's news; the user's filter wins.
    let filter = EnvFilter::builder().parse(format!("actix_server=warn,{}", config.filter))?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(|| Lines);
    // A second start (tests) keeps the first.
    let _first = match config.format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    Ok(())
}

// === impl Lines ===

impl Write for Lines {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let _written = io::stderr().lock().write_all(one_line(event).as_bytes()).is_ok();
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An event without control characters but its line end and the subscriber's colours: escapes of
/// others are escaped by then.
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
            // As JSON has it, for the lines that are.
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
