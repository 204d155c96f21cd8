//! The subscription to the engine's events.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use bollard::Docker as Api;
use bollard::errors::Error as ApiError;
use bollard::query_parameters::EventsOptionsBuilder;
use futures_util::StreamExt as _;
use tokio::sync::Notify;
use tokio::time::{sleep, sleep_until};
use tracing::debug;

use super::labels::POOL;
use super::witness::Witness;

/// How long to wait before subscribing again: at first, and at most. It doubles in between.
const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// The least time between two hints: a flood of events is not to become a flood of listings.
const HINT_PAUSE: Duration = Duration::from_millis(20);

/// Some changes (a pause is one) are told before they are listed, which waits for the engine's disk:
/// a hint is given again after the first of these, and then after twice as long each time, up to the
/// second. Beyond that a listing is due anyway.
const LAG: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(400));

const EVENTS: [&str; 10] =
    ["die", "oom", "kill", "stop", "destroy", "start", "restart", "pause", "unpause", "rename"];
const HEALTH: &str = "health_status";

/// A container that leaves its network loses its address, and is told of as an event of the network.
const NETWORK_EVENTS: [&str; 2] = ["connect", "disconnect"];

type Filters = HashMap<String, Vec<String>>;

/// Tells the witness of every event of the pool's containers, and hints at it and at every event
/// of their network; hints, too, whenever the subscription was lost: events may have been missed
/// then. Never ends.
pub(super) async fn subscribe(
    api: Api,
    pool: String,
    network: String,
    changed: Rc<Notify>,
    witness: Rc<RefCell<Witness>>,
) {
    let own = |key: &str, value: String| (key.to_owned(), vec![value]);
    let kinds = |kinds: &[&str]| -> (String, Vec<String>) {
        ("event".to_owned(), kinds.iter().map(|kind| (*kind).to_owned()).collect())
    };
    let containers: Filters = HashMap::from([
        own("type", "container".to_owned()),
        own("label", format!("{POOL}={pool}")),
        kinds(&[&EVENTS[..], &[HEALTH]].concat()),
    ]);
    let networks: Filters = HashMap::from([
        own("type", "network".to_owned()),
        own("network", network),
        kinds(&NETWORK_EVENTS),
    ]);
    let mut pause = AGAIN.0;
    let mut last: Option<i64> = None;
    loop {
        let began = Instant::now();
        let stream = |filters: &Filters| {
            let mut options = EventsOptionsBuilder::new().filters(filters);
            if let Some(last) = last {
                // What came meanwhile is told, too, if the engine still knows it.
                options = options.since(&since(last));
            }
            api.events(Some(options.build()))
        };
        let mut events = std::pin::pin!(stream(&containers));
        let mut others = std::pin::pin!(stream(&networks));
        // An engine that refuses the second subscription has the periodic listing.
        let mut has_others = true;
        // When to hint, and how long after it again.
        let (mut hint, mut next) = (None, tokio::time::Instant::now());
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(Ok(event)) => {
                        last = event.time_nano.or(last);
                        pause = AGAIN.0;
                        witness.borrow_mut().take(event, Instant::now(), SystemTime::now());
                        hint = Some((next, LAG.0));
                    }
                    Some(Err(error)) => {
                        debug!(%error, "subscription to container events was lost");
                        break;
                    }
                    None => break,
                },
                event = others.next(), if has_others => match event {
                    Some(Ok(event)) => {
                        last = event.time_nano.or(last);
                        hint = Some((next, LAG.0));
                    }
                    Some(Err(error @ ApiError::DockerResponseServerError { .. })) => {
                        debug!(%error, "network events are not available");
                        has_others = false;
                    }
                    Some(Err(error)) => {
                        debug!(%error, "subscription to network events was lost");
                        break;
                    }
                    None => break,
                },
                () = sleep_until(hint.map_or(next, |(at, _)| at)), if hint.is_some() => {
                    changed.notify_one();
                    let now = tokio::time::Instant::now();
                    next = now + HINT_PAUSE;
                    hint = hint.filter(|(_, lag)| *lag <= LAG.1).map(|(_, lag)| (now + lag, lag * 2));
                }
            }
        }
        witness.borrow_mut().missed_events();
        changed.notify_one();
        // One that lasted was a good one, though nothing happened.
        if began.elapsed() > AGAIN.1 {
            pause = AGAIN.0;
        }
        sleep(pause).await;
        pause = (pause * 2).min(AGAIN.1);
    }
}

/// The moment after an event, as the API writes it: seconds, a point, nanoseconds.
fn since(nanoseconds: i64) -> String {
    let after = nanoseconds.saturating_add(1).max(0);
    format!("{}.{:09}", after / 1_000_000_000, after % 1_000_000_000)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_moment_after_an_event_is_written_in_seconds() {
        assert_eq!(super::since(1_795_256_918_017_952_569), "1795256918.017952570");
        assert_eq!(super::since(999_999_999), "1.000000000");
        assert_eq!(super::since(i64::MIN), "0.000000000");
        assert_eq!(super::since(i64::MAX), "9223372036.854775807");
    }
}
