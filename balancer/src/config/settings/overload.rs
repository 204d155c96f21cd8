//! `[overload]`, and the names that existing controllers have for its settings.

use clap::Args;
use serde::Deserialize;

use super::super::value::Span;
use super::super::{ConfigError, check};
use super::{Settings, first_of};

/// `[overload]`
#[derive(Args, Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OverloadSettings {
    /// Take replicas with too many requests in flight out of rotation until they have worked them
    /// off [default: true where any other --overload setting is given]
    #[arg(id = "overload-enabled", long, env = "BALANCER_OVERLOAD_ENABLED", value_name = "BOOL",
          num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub enabled: Option<bool>,

    /// How many ready replicas are left however loaded they are; also MIN_NUMBER_OF_SERVERS
    /// [default: 2]
    #[arg(id = "overload-min-ready", long, env = "BALANCER_OVERLOAD_MIN_READY", value_name = "N")]
    pub min_ready: Option<usize>,

    /// How many requests a replica can have in flight [default: 500]
    #[arg(id = "overload-capacity", long, env = "BALANCER_OVERLOAD_CAPACITY", value_name = "N")]
    pub capacity: Option<u32>,

    /// Above this share of the capacity a replica takes no new requests, 0 to 1; also
    /// MAX_ACCEPTABLE_LOAD [default: 0.75]
    #[arg(
        id = "overload-max-load",
        long,
        env = "BALANCER_OVERLOAD_MAX_LOAD",
        value_name = "SHARE"
    )]
    pub max_load: Option<f64>,

    /// At or below this share it takes requests again, 0 to --overload-max-load
    /// [default: --overload-max-load]
    #[arg(
        id = "overload-resume-load",
        long,
        env = "BALANCER_OVERLOAD_RESUME_LOAD",
        value_name = "SHARE"
    )]
    pub resume_load: Option<f64>,

    /// Time between two looks; also UPDATE_INTERVAL, where a number alone is seconds
    /// [default: 10s]
    #[arg(
        id = "overload-interval",
        long,
        env = "BALANCER_OVERLOAD_INTERVAL",
        value_name = "DURATION"
    )]
    pub interval: Option<Span>,
}

// === impl OverloadSettings ===

impl OverloadSettings {
    pub(super) fn or(self, other: Self) -> Self {
        first_of!(self, other; enabled, min_ready, capacity, max_load, resume_load, interval;)
    }
}

// === impl Settings ===

impl Settings {
    /// Each setting from here, else from the variables of the environment that existing overload
    /// controllers are set by: `MIN_NUMBER_OF_SERVERS`, `MAX_ACCEPTABLE_LOAD`, `UPDATE_INTERVAL`,
    /// `LOG_LEVEL`. An empty one counts as not set.
    ///
    /// # Errors
    /// [`ConfigError::Field`], which names the variable.
    pub fn or_kept_names(
        self,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let variable = |name| variable(name).filter(|value| !value.is_empty());
        let (least, load) = ("MIN_NUMBER_OF_SERVERS", "MAX_ACCEPTABLE_LOAD");
        let min_ready = variable(least).map(|text| {
            let must = |_bad| check::must(least, format!("must be a whole number, not {text:?}"));
            text.parse().map_err(must)
        });
        let max_load = variable(load).map(|text| {
            let must = |_bad| check::must(load, format!("must be 0 to 1, not {text:?}"));
            text.parse().map_err(must)
        });
        let wrong = |name, bad: String| check::must(name, format!("is wrong: {bad}"));
        let interval = variable("UPDATE_INTERVAL")
            .map(|text| Span::or_seconds(&text).map_err(|bad| wrong("UPDATE_INTERVAL", bad)));
        let log_level =
            variable("LOG_LEVEL").map(|text| level(&text).map_err(|bad| wrong("LOG_LEVEL", bad)));
        let overload = OverloadSettings {
            min_ready: min_ready.transpose()?,
            max_load: max_load.transpose()?,
            interval: interval.transpose()?,
            ..OverloadSettings::default()
        };
        Ok(self.or(Self { overload, log_level: log_level.transpose()?, ..Self::default() }))
    }
}

/// A level as other programs call it, too.
///
/// # Errors
/// What levels there are.
pub fn level(text: &str) -> Result<String, String> {
    let word = text.to_ascii_lowercase();
    match word.as_str() {
        "trace" | "debug" | "info" | "warn" | "error" | "off" => Ok(word),
        "warning" => Ok("warn".to_owned()),
        "critical" | "fatal" => Ok("error".to_owned()),
        _ => Err(format!(
            "{text:?} is no level: TRACE, DEBUG, INFO, WARN, WARNING, ERROR, CRITICAL or OFF"
        )),
    }
}
