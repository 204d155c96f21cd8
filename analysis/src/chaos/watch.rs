//! Looks at the balancer all the time: who is in `/rep`, how many are ready, what it says that
//! happened, how much memory it has.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use awc::http::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::proxies::procfs::Usage;
use crate::system::api::{Api, Call};

/// What has been seen; times count from `start`.
pub(crate) struct Watch {
    api: Api,
    pub(crate) start: Instant,
    /// How many replicas were asked for.
    asked: Cell<usize>,
    pid: Cell<u32>,
    looks: RefCell<Vec<Look>>,
    looked: Cell<u64>,
    /// Of `/admin/fleet`, where there is one.
    seats: RefCell<BTreeMap<String, u32>>,
    events: RefCell<Vec<Event>>,
    memory: RefCell<Vec<Memory>>,
    retries: RefCell<Vec<(Duration, u64)>>,
    /// How long `/rep` took, each time.
    answers: RefCell<Vec<Duration>>,
    has_fleet: Cell<Known>,
    has_events: Cell<Known>,
    has_metrics: Cell<Known>,
}

/// Ends the looking when dropped.
pub(crate) struct Watching(Vec<JoinHandle<()>>);

/// The fleet from `at` until the next look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    pub(crate) at: Duration,
    /// None while the balancer does not answer.
    pub(crate) names: Option<Vec<String>>,
    pub(crate) asked: usize,
    /// Of `/admin/fleet`, where there is one.
    pub(crate) ready: Option<usize>,
}

/// Something that the balancer says has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    /// When it was heard of.
    pub(crate) at: Duration,
    pub(crate) name: String,
    pub(crate) hostname: Option<String>,
}

/// The balancer's memory at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) at: Duration,
    pub(crate) pid: u32,
    pub(crate) resident_kib: u64,
}

/// Whether the balancer has something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Known {
    #[default]
    Unknown,
    There,
    Absent,
}

#[derive(Deserialize)]
struct FleetMessage {
    ready: usize,
    #[serde(default)]
    replicas: Vec<ReplicaLine>,
}

#[derive(Deserialize)]
struct ReplicaLine {
    hostname: String,
    seat: Option<u32>,
}

#[derive(Deserialize)]
struct EventsMessage {
    events: Vec<EventLine>,
    last: u64,
}

#[derive(Deserialize)]
struct EventLine {
    event: String,
    hostname: Option<String>,
}

#[derive(Deserialize)]
struct Envelope<M> {
    message: M,
}

/// How often the fleet is looked at.
pub(crate) const LOOK: Duration = Duration::from_millis(5);
/// How often events are asked for: this much later than they came they may be heard of.
const EVENTS: Duration = Duration::from_millis(50);
/// How often memory and counters are read.
const MEMORY: Duration = Duration::from_secs(1);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(1);

// === impl Watch ===

impl Watch {
    /// Begins to look at the balancer that listens at `address` and is this process.
    pub(crate) fn begin(address: SocketAddr, pid: u32, asked: usize) -> (Rc<Self>, Watching) {
        let watch = Rc::new(Self {
            api: Api::new(address),
            start: Instant::now(),
            asked: Cell::new(asked),
            pid: Cell::new(pid),
            looks: RefCell::default(),
            looked: Cell::default(),
            seats: RefCell::default(),
            events: RefCell::default(),
            memory: RefCell::default(),
            retries: RefCell::default(),
            answers: RefCell::default(),
            has_fleet: Cell::default(),
            has_events: Cell::default(),
            has_metrics: Cell::default(),
        });
        let tasks = vec![
            tokio::task::spawn_local(Rc::clone(&watch).look_on()),
            tokio::task::spawn_local(Rc::clone(&watch).listen_on()),
            tokio::task::spawn_local(Rc::clone(&watch).measure_on()),
        ];
        (watch, Watching(tasks))
    }

    pub(crate) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.get()
    }

    /// From now on so many replicas are asked for.
    pub(crate) fn ask(&self, count: usize) {
        self.asked.set(count);
    }

    /// The balancer has another process now.
    pub(crate) fn follow(&self, pid: u32) {
        self.pid.set(pid);
    }

    pub(crate) fn looks(&self) -> Vec<Look> {
        self.looks.borrow().clone()
    }

    /// The seat of a replica by what `/admin/fleet` said last. `None`: it has none, or there is no
    /// such answer.
    pub(crate) fn seat_of(&self, hostname: &str) -> Option<u32> {
        self.seats.borrow().get(hostname).copied()
    }

    /// Whether `/rep` has this name now.
    pub(crate) fn lists(&self, name: &str) -> bool {
        let looks = self.looks.borrow();
        let names = looks.last().and_then(|look| look.names.as_ref());
        names.is_some_and(|names| names.iter().any(|known| known == name))
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.events.borrow().clone()
    }

    pub(crate) fn memory(&self) -> Vec<Memory> {
        self.memory.borrow().clone()
    }

    /// How long each answer of `/rep` took so far.
    pub(crate) fn answers(&self) -> Vec<Duration> {
        self.answers.borrow().clone()
    }

    /// The balancer's counter of retries, second by second; nothing where it has none.
    pub(crate) fn retries(&self) -> Vec<(Duration, u64)> {
        self.retries.borrow().clone()
    }

    pub(crate) fn has_events(&self) -> Known {
        self.has_events.get()
    }

    /// Waits until a look that was made from now on shows the whole fleet. False: it does not in
    /// this time.
    pub(crate) async fn is_full_within(&self, patience: Duration) -> bool {
        let (from, deadline) = (self.looked.get(), self.now() + patience);
        loop {
            tokio::time::sleep(LOOK).await;
            let full = self.looks.borrow().last().is_some_and(Look::is_full);
            // The first one to end now may have begun before.
            if full && self.looked.get() > from + 1 {
                return true;
            }
            if self.now() > deadline {
                return false;
            }
        }
    }

    async fn look_on(self: Rc<Self>) {
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let begin = Instant::now();
            let names = timeout(PATIENCE, self.api.replicas()).await.ok().and_then(Result::ok);
            if names.is_some() {
                self.answers.borrow_mut().push(begin.elapsed());
            }
            let fleet: Option<FleetMessage> = match (&names, self.has_fleet.get()) {
                (None, _) | (_, Known::Absent) => None,
                (Some(_), Known::Unknown | Known::There) => {
                    self.ask_for("/admin/fleet", &self.has_fleet).await
                }
            };
            // One that stopped to answer between the two calls does not answer.
            let names = names.filter(|_| fleet.is_some() || self.has_fleet.get() != Known::There);
            let ready = fleet.as_ref().map(|fleet| fleet.ready);
            if let Some(fleet) = fleet {
                let seated = |line: ReplicaLine| Some((line.hostname, line.seat?));
                *self.seats.borrow_mut() = fleet.replicas.into_iter().filter_map(seated).collect();
            }
            let look = Look { at: self.now(), names, asked: self.asked.get(), ready };
            let mut looks = self.looks.borrow_mut();
            if looks.last().is_none_or(|last| !last.shows_the_same(&look)) {
                looks.push(look);
            }
            self.looked.set(self.looked.get() + 1);
        }
    }

    async fn listen_on(self: Rc<Self>) {
        let (mut last, mut pid) = (0, self.pid.get());
        let mut ticks = interval(EVENTS);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.has_events.get() != Known::Absent {
            ticks.tick().await;
            // Another balancer counts from the beginning.
            if pid != self.pid.get() {
                (last, pid) = (0, self.pid.get());
            }
            let path = format!("/admin/events?since={last}");
            let Some(news) = self.ask_for::<EventsMessage>(&path, &self.has_events).await else {
                continue;
            };
            last = news.last;
            let at = self.now();
            let named = |line: EventLine| Event { at, name: line.event, hostname: line.hostname };
            self.events.borrow_mut().extend(news.events.into_iter().map(named));
        }
    }

    async fn measure_on(self: Rc<Self>) {
        let mut ticks = interval(MEMORY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let (at, pid) = (self.now(), self.pid.get());
            if let Ok(usage) = Usage::of(pid) {
                let resident_kib = usage.resident_kib;
                self.memory.borrow_mut().push(Memory { at, pid, resident_kib });
            }
            if self.has_metrics.get() != Known::Absent {
                let text = self.text_of("/metrics", &self.has_metrics).await;
                if let Some(sum) = text.and_then(|text| retries_in(&text)) {
                    self.retries.borrow_mut().push((at, sum));
                }
            }
        }
    }

    async fn ask_for<M: DeserializeOwned>(&self, path: &str, known: &Cell<Known>) -> Option<M> {
        let text = self.text_of(path, known).await?;
        serde_json::from_str(&text).ok().map(|envelope: Envelope<M>| envelope.message)
    }

    /// The body of a good answer. A 404 tells that there is none at all.
    async fn text_of(&self, path: &str, known: &Cell<Known>) -> Option<String> {
        let call = Call::new(Method::GET, path);
        let answer = timeout(PATIENCE, self.api.call(&call)).await.ok()?.ok()?;
        match answer.status {
            200 => {
                known.set(Known::There);
                Some(answer.text())
            }
            404 if known.get() == Known::Unknown => {
                known.set(Known::Absent);
                None
            }
            _ => None,
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

// === impl Look ===

impl Look {
    /// Whether as many replicas are ready as were asked for.
    pub(crate) fn is_full(&self) -> bool {
        let listed = self.names.as_ref().is_some_and(|names| names.len() == self.asked);
        listed && self.ready.is_none_or(|ready| ready == self.asked)
    }

    /// Whether the balancer answered and this name was not there.
    pub(crate) fn lacks(&self, name: &str) -> bool {
        self.names.as_ref().is_some_and(|names| names.iter().all(|known| known != name))
    }

    fn shows_the_same(&self, other: &Self) -> bool {
        (&self.names, self.asked, self.ready) == (&other.names, other.asked, other.ready)
    }
}

/// The sum of all counters of retries in a page of metrics.
fn retries_in(metrics: &str) -> Option<u64> {
    let counts = metrics.lines().filter_map(|line| {
        let name = line.split(['{', ' ']).next()?;
        let counts = name.contains("retries") && name.ends_with("_total");
        line.rsplit(' ').next().filter(|_| counts)?.parse::<f64>().ok()
    });
    counts.map(|count| count as u64).reduce(|sum, count| sum + count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fleet_is_full_when_all_that_were_asked_for_are_listed_and_ready() {
        let look = |names: Option<&[&str]>, ready| Look {
            at: Duration::ZERO,
            names: names.map(|names| names.iter().map(|name| (*name).to_owned()).collect()),
            asked: 2,
            ready,
        };
        assert!(look(Some(&["S1", "S2"]), None).is_full());
        assert!(look(Some(&["S1", "S2"]), Some(2)).is_full());
        assert!(!look(Some(&["S1", "S2"]), Some(1)).is_full());
        assert!(!look(Some(&["S1", "S2", "S3"]), None).is_full());
        assert!(!look(None, None).is_full());
        assert!(look(Some(&["S1"]), None).lacks("S2") && !look(None, None).lacks("S2"));
    }

    #[test]
    fn counters_of_retries_are_added_up() {
        let page = "# HELP x_retries_total y\n# TYPE x_retries_total counter\n\
                    x_retries_total{to=\"a\"} 3\nx_retries_total{to=\"b\"} 4\nx_total 9\n";
        assert_eq!(retries_in(page), Some(7));
        assert_eq!(retries_in("x_total 9\n"), None);
    }

    #[test]
    fn events_are_read_as_the_balancer_writes_them() {
        let text = r#"{"message":{"events":[{"id":17,"time":"2026-11-21T10:00:00.123Z",
            "event":"died","hostname":"S2","seat":2,"state":"dead","reason":"killed by signal 9"},
            {"id":18,"time":"2026-11-21T10:00:00.124Z","event":"engine-lost","hostname":null}],
            "last":18},"status":"successful"}"#;
        let news: Envelope<EventsMessage> = serde_json::from_str(text).unwrap();
        assert_eq!((news.message.last, news.message.events.len()), (18, 2));
        assert_eq!(news.message.events[0].hostname.as_deref(), Some("S2"));
        assert_eq!(news.message.events[1].event, "engine-lost");
    }
    #[test]
    fn the_fleet_is_read_as_the_balancer_writes_it() {
        let text = r#"{"message":{"desired":3,"ready":2,"panic":false,"replicas":[
            {"hostname":"S1","seat":1,"state":"ready","reason":null,"in_flight":0},
            {"hostname":"S9","seat":null,"state":"starting"}],"roll":null},
            "status":"successful"}"#;
        let fleet: Envelope<FleetMessage> = serde_json::from_str(text).unwrap();
        assert_eq!((fleet.message.ready, fleet.message.replicas.len()), (2, 2));
        assert_eq!(
            (fleet.message.replicas[0].seat, fleet.message.replicas[1].seat),
            (Some(1), None)
        );
    }
}
