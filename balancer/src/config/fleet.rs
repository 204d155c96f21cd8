//! How the fleet is kept: probes, ejections, replacements.

use std::time::Duration;

use super::ConfigError;
use super::check::{given_span, must, span, within};
use super::settings::{HealthSettings, OutlierSettings, RespawnSettings, RollSettings};
use super::value::{Percent, Span};
use crate::fleet::backoff::BackoffConfig;
use crate::fleet::health::{HealthLimits, OutlierConfig};
use crate::http1::field::is_host;

/// Probes.
#[derive(Clone, Debug, PartialEq)]
pub struct HealthConfig {
    /// What they ask for.
    pub path: String,
    /// Their `Host`; `None` for the name of a listed server, and otherwise the address.
    pub host: Option<String>,
    /// Time between two of one replica.
    pub interval: Duration,
    /// Time an answer may take.
    pub timeout: Duration,
    /// How many in a row count.
    pub limits: HealthLimits,
    /// Time from a start to the first good ones.
    pub start_deadline: Duration,
    /// Time without an answer after which a replica is replaced.
    pub replace_after: Duration,
    /// Above which share of bad ones they are believed to be good, if ever: 0 to 1.
    pub panic: Option<f64>,
    /// Time over which a new replica's share grows; zero for not at all.
    pub slow_start: Duration,
}

/// `interval` is the one to take where none is given, in seconds.
pub(super) fn health(
    settings: HealthSettings,
    path: Option<String>,
    interval: u64,
) -> Result<HealthConfig, ConfigError> {
    let path = path.unwrap_or_else(|| "/heartbeat".to_owned());
    if !path.starts_with('/') || !path.bytes().all(|c| c.is_ascii_graphic()) {
        return Err(must("health_path", "must begin with '/' and have no spaces"));
    }
    if let Some(host) = settings.host.as_deref().filter(|host| !is_named_host(host)) {
        let expected = "must be a host name or an address, with a port at most, such as \
                        web.example:8080";
        return Err(must("health.host", format!("{expected}, not {host:?}")));
    }
    let limits =
        HealthLimits { rise: settings.rise.unwrap_or(1), fall: settings.fall.unwrap_or(3) };
    within("health.rise", limits.rise, 1..=1_000)?;
    within("health.fall", limits.fall, 1..=1_000)?;
    let panic = percent("health.panic", settings.panic)?;
    let slow_start = settings.slow_start.map(|span| given_span("health.slow_start", span));
    Ok(HealthConfig {
        path,
        host: settings.host,
        interval: span("health.interval", settings.interval, interval)?,
        timeout: span("health.timeout", settings.timeout, 1)?,
        limits,
        start_deadline: span("health.start_deadline", settings.start_deadline, 60)?,
        replace_after: span("health.replace_after", settings.replace_after, 30)?,
        panic: (panic < 1.0).then_some(panic),
        slow_start: slow_start.transpose()?.unwrap_or_default(),
    })
}

fn is_named_host(host: &str) -> bool {
    !host.is_empty() && !host.starts_with(':') && is_host(host.as_bytes())
}

pub(super) fn outliers(settings: &OutlierSettings) -> Result<OutlierConfig, ConfigError> {
    let base = span("outliers.base", settings.base, 10)?;
    let max = span("outliers.max", settings.max, 5 * 60)?;
    if max < base {
        return Err(must("outliers.max", "must not be shorter than 'outliers.base'"));
    }
    let consecutive = settings.consecutive.unwrap_or(5);
    Ok(OutlierConfig {
        consecutive: within("outliers.consecutive", consecutive, 0..=1_000_000)?,
        base,
        max,
        max_share: percent("outliers.max_share", settings.max_share)?,
    })
}

pub(super) fn respawn(settings: &RespawnSettings) -> Result<BackoffConfig, ConfigError> {
    let base = settings.base.map(|base| given_span("respawn.base", base)).transpose()?;
    let base = base.unwrap_or(Duration::from_millis(100));
    let max = span("respawn.max", settings.max, 60)?;
    let reset_after = span("respawn.reset_after", settings.reset_after, 60)?;
    BackoffConfig::new(base, max, reset_after)
        .map_err(|bad| must("respawn.max", format!("is wrong: {bad}")))
}

/// Returns the monitoring time of rollouts.
pub(super) fn monitor(settings: &RollSettings) -> Result<Duration, ConfigError> {
    let monitor = settings.monitor.unwrap_or(Span(Duration::from_secs(5)));
    let allowed = Span(Duration::ZERO)..=Span(Duration::from_hours(24));
    Ok(within("roll.monitor", monitor, allowed)?.0)
}

/// A share of the fleet; half where nothing is said.
fn percent(field: &'static str, given: Option<Percent>) -> Result<f64, ConfigError> {
    let percent = given.unwrap_or(Percent(50.0));
    Ok(within(field, percent, Percent(0.0)..=Percent(100.0))?.share())
}
