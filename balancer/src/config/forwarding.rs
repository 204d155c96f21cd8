//! How a request is passed on: tried again, and told of its way.

use std::time::Duration;

use super::ConfigError;
use super::check::{must, span, within};
use super::forwarded::ForwardedConfig;
use super::settings::{ForwardedSettings, RetrySettings};
use super::value::{Percent, Size, Span};

/// When a request is tried again at another replica.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryConfig {
    /// Most replicas that one request is tried at, the first included.
    pub attempts: usize,
    /// The share of requests that may be retries, 0 to 1.
    pub budget: f64,
    /// Retries a second that are always allowed.
    pub min_per_second: u32,
    /// No retry is begun later than this after the request came.
    pub deadline: Duration,
    /// Most bytes of a request's body that are kept so that it can be sent again.
    pub body: usize,
    /// How long a request that was in flight at two replicas when they died is not sent; zero for
    /// never.
    pub quarantine: Duration,
}

/// The most bytes of a body that are kept, and that for each request in flight.
pub(super) const BODY_MOST: Size = Size(16 << 20);

pub(super) fn retry(settings: &RetrySettings) -> Result<RetryConfig, ConfigError> {
    let budget = settings.budget.unwrap_or(Percent(20.0));
    let min_per_second = settings.min_per_second.unwrap_or(10);
    let body = settings.body.unwrap_or(Size(64 << 10));
    Ok(RetryConfig {
        attempts: within("retry.attempts", settings.attempts.unwrap_or(5), 1..=100)? as usize,
        budget: within("retry.budget", budget, Percent(0.0)..=Percent(100.0))?.share(),
        min_per_second: within("retry.min_per_second", min_per_second, 0..=1_000_000)?,
        deadline: span("retry.deadline", settings.deadline, 30)?,
        body: within("retry.body", body, Size(0)..=BODY_MOST)?.0 as usize,
        quarantine: match settings.quarantine {
            Some(Span(Duration::ZERO)) => Duration::ZERO,
            quarantine => span("retry.quarantine", quarantine, 30).map_err(|_bad| {
                let given = quarantine.unwrap_or(Span(Duration::ZERO));
                let why = format!("must be 0s (never) or 1ms to 24h, not {given}");
                must("retry.quarantine", why)
            })?,
        },
    })
}

pub(super) fn forwarded(settings: ForwardedSettings) -> Result<ForwardedConfig, ConfigError> {
    let ForwardedSettings { trust, via, rfc7239, max_passes } = settings;
    if via.as_ref().is_some_and(|name| !is_token(name)) {
        let why = "must be a name of ASCII letters, digits and !#$%&'*+-.^_`|~";
        return Err(must("forwarded.via", why));
    }
    let trust = trust.unwrap_or_default().into_iter().map(|network| network.0).collect();
    let rfc7239 = rfc7239.unwrap_or(false);
    let max_passes = within("forwarded.max_passes", max_passes.unwrap_or(1), 1..=100)? as usize;
    Ok(ForwardedConfig { trust, via, rfc7239, max_passes })
}

/// RFC 9110, 5.6.2.
fn is_token(text: &str) -> bool {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&c);
    !text.is_empty() && text.bytes().all(allowed)
}
