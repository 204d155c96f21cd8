//! Limits on what is in flight: `[admission]`, and `balance_factor`.

use std::time::Duration;

use super::ConfigError;
use super::check::{at_least_one, given_span, must, span, within};
use super::settings::AdmissionSettings;
use crate::routing::adaptive::AimdConfig;
use crate::routing::bounded::Factor;
use crate::routing::table::{Most, Replica};

/// How many requests may be in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdmissionConfig {
    /// At all replicas together.
    pub in_flight: usize,
    /// At one of them.
    pub per_replica: usize,
    /// At one of them by its latency, where that decides, too.
    pub adaptive: Option<AimdConfig>,
    /// How many others may wait.
    pub queue: usize,
    /// How long.
    pub wait: Duration,
}

/// The most that a limit by latency allows where nothing else is said.
const ADAPTIVE_MOST: usize = 1_000;

/// `None` where nothing is limited.
pub(super) fn admission(
    settings: &AdmissionSettings,
) -> Result<Option<AdmissionConfig>, ConfigError> {
    let in_flight = at_least_one("admission.in_flight", settings.in_flight)?;
    let per_replica = at_least_one("admission.per_replica", settings.per_replica)?;
    let target = settings.target_latency;
    let target = target.map(|span| given_span("admission.target_latency", span)).transpose()?;
    let queue = within("admission.queue", settings.queue.unwrap_or(1_024), 0..=1_000_000)?;
    let wait = span("admission.wait", settings.wait, 1)?;
    if in_flight.is_none() && per_replica.is_none() && target.is_none() {
        let idle = [("queue", settings.queue.is_some()), ("wait", settings.wait.is_some())];
        return match idle.into_iter().find(|(_, given)| *given) {
            Some((key, _)) => Err(must(
                format!("admission.{key}"),
                "needs a limit: 'admission.in_flight', 'per_replica' or 'target_latency'",
            )),
            None => Ok(None),
        };
    }
    let most = per_replica.unwrap_or(ADAPTIVE_MOST);
    Ok(Some(AdmissionConfig {
        in_flight: in_flight.unwrap_or(usize::MAX),
        per_replica: per_replica.unwrap_or(usize::MAX),
        adaptive: target.map(|target| AimdConfig { target, most }),
        queue,
        wait,
    }))
}

/// A balance factor.
pub(super) fn factor(field: &str, factor: Option<f64>) -> Result<Option<Factor>, ConfigError> {
    let checked = |factor| {
        let why = || format!("must be above 1 and at most 1000, not {factor}");
        Factor::new(factor).ok_or_else(|| must(field.to_owned(), why()))
    };
    factor.map(checked).transpose()
}

// === impl AdmissionConfig ===

impl AdmissionConfig {
    /// How much may be in flight for a replica to take one request more.
    pub fn most(&self, replica: &Replica) -> Most {
        let by_latency = self.adaptive.map_or(usize::MAX, |config| replica.aimd().limit(&config));
        Most { at_replica: self.per_replica.min(by_latency), in_all: self.in_flight }
    }
}
