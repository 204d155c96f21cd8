//! Checks of single values, and how they complain.

use std::borrow::Cow;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::ConfigError;
use super::value::Span;

pub(super) fn must(field: impl Into<Cow<'static, str>>, must: impl Into<String>) -> ConfigError {
    ConfigError::Field { field: field.into(), must: must.into() }
}

pub(super) fn within<T: PartialOrd + fmt::Display>(
    field: impl Into<Cow<'static, str>>,
    value: T,
    allowed: RangeInclusive<T>,
) -> Result<T, ConfigError> {
    if allowed.contains(&value) {
        return Ok(value);
    }
    let (least, most) = allowed.into_inner();
    Err(must(field, format!("must be {least} to {most}, not {value}")))
}

pub(super) fn at_least_one(
    field: &'static str,
    value: Option<usize>,
) -> Result<Option<usize>, ConfigError> {
    if value == Some(0) {
        return Err(must(field, "must be at least 1, not 0; leave it out for no limit"));
    }
    Ok(value)
}

/// A duration of at least a millisecond and at most a day; `default` seconds where there is none.
pub(super) fn span(
    field: &'static str,
    span: Option<Span>,
    default: u64,
) -> Result<Duration, ConfigError> {
    given_span(field, span.unwrap_or(Span(Duration::from_secs(default))))
}

/// The same, where there is one.
pub(super) fn given_span(
    field: impl Into<Cow<'static, str>>,
    span: Span,
) -> Result<Duration, ConfigError> {
    let allowed = Duration::from_millis(1)..=Duration::from_hours(24);
    if allowed.contains(&span.0) {
        return Ok(span.0);
    }
    Err(must(field, format!("must be 1ms to 24h, not {span}")))
}
