//! How many replicas there are: at first, at most, and as the load wants it.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::ConfigError;
use super::check::{must, span, within};
use super::settings::ScaleSettings;
use super::value::{Percent, Span};
use crate::fleet::scale::ScaleConfig;
use crate::routing::placement::PlacementConfig;

/// How many replicas there may be.
pub(super) struct Room {
    most: usize,
    /// Where that comes from.
    why: String,
}

/// What is asked for where nothing is said, as far as the bounds allow it.
const REPLICAS: usize = 3;

/// How often the load is looked at where nothing is said, and how often it may be: in less time
/// its mean would say little.
const INTERVAL: Duration = Duration::from_secs(15);
const INTERVALS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_hours(24);

// === impl Room ===

impl Room {
    pub(super) fn new(placement: &PlacementConfig, max_replicas: usize) -> Self {
        let capacity = placement.capacity();
        let seats = capacity.map_or("any number of".to_owned(), |seats| seats.to_string());
        Self {
            most: capacity.map_or(max_replicas, |seats| seats.min(max_replicas)),
            why: format!(
                "'max_replicas' is {max_replicas}, placement {} has {seats} seats",
                placement.name(),
            ),
        }
    }

    /// A number of replicas to begin with, or why not.
    fn check(&self, replicas: usize) -> Result<usize, ConfigError> {
        let Self { most, why } = self;
        if replicas > *most {
            let why = format!("must be at most {most} ({why}), not {replicas}");
            return Err(must("replicas", why));
        }
        Ok(replicas)
    }
}

/// How many replicas are to be started first.
pub(super) fn replicas(
    given: Option<usize>,
    scale: Option<&ScaleConfig>,
    room: &Room,
) -> Result<usize, ConfigError> {
    let Some(ScaleConfig { min, max, .. }) = scale else {
        return room.check(given.unwrap_or(REPLICAS));
    };
    let replicas = given.unwrap_or(REPLICAS.clamp(*min, *max));
    if !(*min..=*max).contains(&replicas) {
        let why = format!("must be {min} to {max} ('scale.min', 'scale.max'), not {replicas}");
        return Err(must("replicas", why));
    }
    Ok(replicas)
}

/// Off where nothing is said.
pub(super) fn scale(
    settings: &ScaleSettings,
    room: &Room,
    listed: bool,
) -> Result<Option<ScaleConfig>, ConfigError> {
    if *settings == ScaleSettings::default() {
        return Ok(None);
    }
    if listed {
        let why = "must be left out for listed replicas: they are not owned";
        return Err(must("scale", why));
    }
    let Some(target) = settings.target_in_flight else {
        let why = "must be set where another key of [scale] is: the number of requests in flight \
                   that each replica is to have";
        return Err(must("scale.target_in_flight", why));
    };
    let Room { most, why } = room;
    let max = settings.max.unwrap_or(*most);
    if !(1..=*most).contains(&max) {
        return Err(must("scale.max", format!("must be 1 to {most} ({why}), not {max}")));
    }
    let min = settings.min.unwrap_or(1);
    if !(1..=max).contains(&min) {
        return Err(must("scale.min", format!("must be 1 to {max} ('scale.max'), not {min}")));
    }
    let interval = settings.interval.unwrap_or(Span(INTERVAL));
    if !INTERVALS.contains(&interval.0) {
        return Err(must("scale.interval", format!("must be 100ms to 24h, not {interval}")));
    }
    let tolerance = settings.tolerance.unwrap_or(Percent(10.0));
    let tolerance = within("scale.tolerance", tolerance, Percent(0.0)..=Percent(90.0))?;
    Ok(Some(ScaleConfig {
        min,
        max,
        target_in_flight: within("scale.target_in_flight", target, 0.01..=1_000_000.0)?,
        interval: interval.0,
        cool_down: span("scale.cool_down", settings.cool_down, 5 * 60)?,
        tolerance: tolerance.share(),
    }))
}
