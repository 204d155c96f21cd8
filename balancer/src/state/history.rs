//! What has happened to the fleet, the last of it kept, all of it counted.

mod losses;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde::Serialize;
use tokio::sync::watch;

use crate::fleet::change::Death;
use crate::fleet::event::{Event, What};
use crate::fleet::health::Ejection;
use crate::fleet::observed::Place;
use losses::Losses;

/// Events that are kept: some hours of a quiet fleet, and 1,000 replicas that start at once.
const KEPT: usize = 4_096;

/// See the module.
#[derive(Debug)]
pub struct History {
    past: Mutex<Past>,
    last: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Past {
    entries: VecDeque<Arc<Entry>>,
    counts: Counts,
    losses: Losses,
}

/// How much has happened since the balancer's start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// How many of each event there were.
    pub events: BTreeMap<&'static str, u64>,
    /// Deaths, by [`Death::kind`].
    pub deaths: BTreeMap<&'static str, u64>,
    /// Ejections, by [`Ejection::kind`].
    pub ejections: BTreeMap<&'static str, u64>,
    /// Replicas that were begun, or spares that took a seat, in the place of one that was lost.
    pub respawns: u64,
}

/// An event as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Counts events from 1 since the balancer's start.
    pub id: u64,
    /// When, as RFC 3339 has it, in UTC.
    pub time: String,
    /// What.
    pub event: &'static str,
    /// To which replica, if to one.
    pub hostname: Option<String>,
    /// Its seat, if it has one.
    pub seat: Option<u32>,
    /// The replica's state after the event, where the event says so.
    pub state: Option<&'static str>,
    /// Why.
    pub reason: Option<String>,
}

// === impl History ===

impl History {
    /// Nothing has happened.
    pub fn new() -> Self {
        Self { past: Mutex::default(), last: watch::Sender::new(0) }
    }

    /// Takes an event that happened just now.
    pub fn push(&self, event: &Event) {
        let time = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        // Numbers are given under the lock: events come from the supervisor and from workers.
        let mut past = self.past();
        let id = *self.last.borrow() + 1;
        let entry = Entry::new(id, time, event);
        past.counts.add(event);
        past.counts.respawns += u64::from(past.losses.makes_good(event));
        past.entries.push_back(Arc::new(entry));
        if past.entries.len() > KEPT {
            past.entries.pop_front();
        }
        self.last.send_replace(id);
    }

    /// The events after the one with this number, the oldest first: those of them that are kept.
    pub fn since(&self, id: u64) -> Vec<Arc<Entry>> {
        let past = self.past();
        let from = past.entries.partition_point(|entry| entry.id <= id);
        past.entries.range(from..).cloned().collect()
    }

    /// How many of each event there were.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.past().counts.events.clone()
    }

    /// How much of everything there was.
    pub fn all_counts(&self) -> Counts {
        self.past().counts.clone()
    }

    /// The number of the last event; changes with each.
    pub fn last(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }

    fn past(&self) -> MutexGuard<'_, Past> {
        // Whatever panicked meanwhile: what is there is whole.
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for History {
    fn default() -> Self {
        Self::new()
    }
}

// === impl Counts ===

impl Counts {
    fn add(&mut self, event: &Event) {
        *self.events.entry(event.what.name()).or_default() += 1;
        if let What::Died(death) = &event.what {
            *self.deaths.entry(Death::kind(*death)).or_default() += 1;
        }
        if let What::Ejected(why, _) = &event.what {
            *self.ejections.entry(Ejection::kind(*why)).or_default() += 1;
        }
    }
}

// === impl Entry ===

impl Entry {
    fn new(id: u64, time: String, event: &Event) -> Self {
        let subject = event.subject.as_ref();
        Self {
            id,
            time,
            event: event.what.name(),
            hostname: subject.map(|subject| subject.hostname.to_string()),
            seat: subject.and_then(|subject| Place::seat(subject.place)).map(|seat| seat.get()),
            state: event.what.state(),
            reason: event.what.reason(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::change::Death;
    use crate::fleet::event::{Subject, What};
    use crate::fleet::seat::{Hostname, Seat};

    fn died(seat: u32) -> Event {
        let seat = Seat::new(seat).unwrap();
        let subject = Subject { hostname: Hostname::of_seat(seat), place: seat.into() };
        Event { subject: Some(subject), what: What::Died(Death::Killed(9)) }
    }

    #[test]
    fn events_are_numbered_counted_and_found_by_number() {
        let history = History::new();
        assert!(history.since(0).is_empty());
        for seat in 1..=3 {
            history.push(&died(seat));
        }
        history.push(&Event { subject: None, what: What::PanicOver });
        let ids: Vec<u64> = history.since(1).iter().map(|entry| entry.id).collect();
        assert_eq!(ids, [2, 3, 4]);
        assert_eq!(*history.last().borrow(), 4);
        assert_eq!(history.counts(), BTreeMap::from([("died", 3), ("panic-over", 1)]));
        let first = serde_json::to_value(&*history.since(0)[0]).unwrap();
        assert_eq!(first["hostname"], "S1");
        assert_eq!(first["seat"], 1);
        assert_eq!(first["state"], "dead");
        assert_eq!(first["reason"], "killed by signal 9");
        assert!(first["time"].as_str().unwrap().ends_with('Z'), "{first}");
    }

    #[test]
    fn only_the_last_events_are_kept_and_all_are_counted() {
        let history = History::new();
        for _ in 0..KEPT + 10 {
            history.push(&died(1));
        }
        let kept = history.since(0);
        assert_eq!(kept.len(), KEPT);
        assert_eq!(kept[0].id, 11);
        assert_eq!(history.counts()["died"], KEPT as u64 + 10);
    }
}
