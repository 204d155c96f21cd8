//! Log lines, on standard error.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

use crate::config::LogConfig;
use crate::config::settings::LogFormat;

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
        .with_writer(io::stderr);
    // A second start (tests) keeps the first.
    let _first = match config.format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    Ok(())
}

/// An error with all its causes, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
