//! The container engine: `[engine]`.

use std::time::Duration;

use super::ConfigError;
use super::check::must;
use super::settings::EngineSettings;
use super::value::Span;

/// The container engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineConfig {
    /// Time to wait at the start for an engine that cannot be reached; zero for not at all.
    pub wait: Duration,
}

const WAIT_DEFAULT: Duration = Duration::from_secs(30);
const WAIT_MAX: Duration = Duration::from_hours(24);

pub(super) fn engine(settings: &EngineSettings) -> Result<EngineConfig, ConfigError> {
    let wait = settings.wait.map_or(WAIT_DEFAULT, |wait| wait.0);
    if wait > WAIT_MAX {
        return Err(must("engine.wait", format!("must be 0s to 24h, not {}", Span(wait))));
    }
    Ok(EngineConfig { wait })
}
