//! The overload controller.

use std::time::Duration;

use super::ConfigError;
use super::check::{must, span, within};
use super::settings::OverloadSettings;
use crate::fleet::overload::OverloadConfig;

/// The overload controller.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReliefConfig {
    /// By what it decides.
    pub decide: OverloadConfig,
    /// Time between two looks.
    pub interval: Duration,
}

/// `None` where there is to be none.
pub(super) fn overload(settings: &OverloadSettings) -> Result<Option<ReliefConfig>, ConfigError> {
    let given = *settings != OverloadSettings::default();
    let max_load = within("overload.max_load", settings.max_load.unwrap_or(0.75), 0.0..=1.0)?;
    let resume_load = settings.resume_load.unwrap_or(max_load);
    if !(0.0..=max_load).contains(&resume_load) {
        let why = format!("must be 0 to {max_load} ('overload.max_load'), not {resume_load}");
        return Err(must("overload.resume_load", why));
    }
    let decide = OverloadConfig {
        min_ready: within("overload.min_ready", settings.min_ready.unwrap_or(2), 1..=1_000_000)?,
        capacity: within("overload.capacity", settings.capacity.unwrap_or(500), 1..=1_000_000_000)?,
        max_load,
        resume_load,
    };
    let interval = span("overload.interval", settings.interval, 10)?;
    let enabled = settings.enabled.unwrap_or(given);
    Ok(enabled.then_some(ReliefConfig { decide, interval }))
}
