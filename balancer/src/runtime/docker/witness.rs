//! What the engine's events say that a listing does not say, or not yet.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use bollard::models::{EventActor, EventMessage};

use super::labels::Identity;
use crate::fleet::change::Death;
use crate::fleet::observed::{Condition, Observed};
use crate::fleet::seat::Hostname;

/// How long a death is believed against a listing in which the container still runs: the engine
/// has caught up by then.
const BELIEVED: Duration = Duration::from_secs(5);

/// How long a container that was told to end counts as ending.
const ENDING: Duration = Duration::from_secs(30);

/// How long a death after the news that memory ran out is one for want of memory.
const OUT_OF_MEMORY: Duration = Duration::from_secs(10);

/// How long a container that was marked as leaving is told of after that, should it be gone.
const LEFT: Duration = Duration::from_secs(10);

/// How long anything is kept.
const KEPT: Duration = Duration::from_secs(60);

/// A death that is told so soon after it happened, by the engine's clock against ours, is news.
/// What is told later may have been outlived by then: the engine is asked first.
const FRESH: Duration = Duration::from_secs(1);

/// Exit codes above this tell the signal that ended the process (128 + signal).
const SIGNALLED: i64 = 128;

/// The latest news of each container.
#[derive(Default)]
pub(super) struct Witness {
    containers: HashMap<String, News>,
    /// Deaths that were not taken yet.
    fresh: Vec<(String, Hostname, Death)>,
}

#[derive(Default)]
struct News {
    /// When the last of its events happened, by the engine's clock in nanoseconds, and when one
    /// came.
    last: Option<(i64, Instant)>,
    death: Option<Died>,
    told: Option<(Told, Instant)>,
    out_of_memory: Option<Instant>,
    /// Who it is, and when the container was marked, by the engine's clock in seconds and by ours.
    leaving: Option<(Identity, u64, Instant)>,
}

/// A death as an event told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Died {
    /// How.
    pub(super) death: Death,
    /// When the event came.
    heard: Instant,
    /// When it happened, by the engine's clock.
    pub(super) at: Option<SystemTime>,
}

/// What a container was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// To end.
    End,
    /// A signal of which only the container's configuration says what it means.
    Signal(i32),
}

// === impl Witness ===

impl Witness {
    /// Takes an event; one that makes no sense changes nothing. `clock` is the time of day.
    pub(super) fn take(&mut self, event: EventMessage, now: Instant, clock: SystemTime) {
        let Some(EventActor { id: Some(id), attributes }) = event.actor else { return };
        let attributes = attributes.unwrap_or_default();
        self.containers.retain(|_, news| news.is_fresh(now));
        let news = self.containers.entry(id.clone()).or_default();
        // Told twice, or out of its turn: no news.
        let last = news.last.map(|(at, _)| at);
        let is_next = event.time_nano.is_some() && event.time_nano > last;
        news.last = last.max(event.time_nano).map(|at| (at, now));
        match event.action.as_deref() {
            Some("oom") => news.out_of_memory = Some(now),
            Some("die") => {
                let code = attributes.get("exitCode").and_then(|code| code.parse().ok());
                let lacked = news.out_of_memory.take();
                let death = if within(lacked, OUT_OF_MEMORY, now) {
                    Death::OutOfMemory
                } else {
                    exited(code.unwrap_or(0))
                };
                let at = event.time_nano.and_then(|nanos| nanos.try_into().ok());
                let at = at.map(|nanos| SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos));
                news.death = Some(Died { death, heard: now, at });
                news.told = None;
                let name = attributes.get("name").map_or("", String::as_str);
                let identity = Identity::read(&attributes, name).filter(|it| !it.leaving);
                if let Some(identity) = identity
                    && is_next
                    && at.is_some_and(|at| apart(at, clock) < FRESH)
                {
                    self.fresh.push((id, identity.hostname, death));
                }
            }
            Some("start") => {
                *news = News { last: news.last, leaving: news.leaving.take(), ..News::default() };
                self.fresh.retain(|(dead, ..)| *dead != id);
            }
            Some("kill") => {
                let told = attributes.get("signal").and_then(|text| Told::by(text));
                let ends = matches!(news.told, Some((Told::End, _)));
                if let (Some(told), None) = (told, news.death)
                    && (told == Told::End || !ends)
                {
                    news.told = Some((told, now));
                }
            }
            // It comes after the death, unless that was missed.
            Some("stop") if news.death.is_none() => news.told = Some((Told::End, now)),
            Some("rename") => {
                let name = attributes.get("name").map_or("", String::as_str);
                let identity = Identity::read(&attributes, name).filter(|it| it.leaving);
                let at = event.time.and_then(|at| at.try_into().ok()).unwrap_or(0);
                news.leaving = identity.map(|identity| (identity, at, now));
            }
            Some(_) | None => {}
        }
    }

    /// Deaths that were told just after they happened, since the last call: of which containers,
    /// and whose those were.
    pub(super) fn take_fresh(&mut self) -> impl Iterator<Item = (String, Hostname, Death)> {
        self.fresh.drain(..)
    }

    /// How a container died that is listed as running, if an event told that lately.
    pub(super) fn death_of_running(&self, id: &str, now: Instant) -> Option<Died> {
        let died = self.containers.get(id)?.death?;
        within(Some(died.heard), BELIEVED, now).then_some(died)
    }

    /// How a container that has ended died, if that was seen.
    pub(super) fn death(&self, id: &str) -> Option<Death> {
        self.containers.get(id)?.death.map(|died| died.death)
    }

    /// What a container that runs was told lately.
    pub(super) fn told(&self, id: &str, now: Instant) -> Option<Told> {
        let (told, at) = self.containers.get(id)?.told?;
        within(Some(at), ENDING, now).then_some(told)
    }

    /// The replicas that were marked as leaving lately, with the ids of their containers. Where
    /// they are not listed any more, they are gone because somebody meant it.
    pub(super) fn left(&self, now: Instant) -> impl Iterator<Item = (&str, Observed)> {
        self.containers.iter().filter_map(move |(id, news)| {
            let (identity, created, at) = news.leaving.as_ref()?;
            within(Some(*at), LEFT, now)
                .then(|| (id.as_str(), vanished(identity.clone(), *created)))
        })
    }

    /// A container was removed by this balancer itself.
    pub(super) fn forget(&mut self, id: &str) {
        self.containers.remove(id);
    }

    /// Events were missed: what may be outdated by now is forgotten.
    pub(super) fn missed_events(&mut self) {
        self.fresh.clear();
        self.containers.retain(|_, news| {
            *news = News { leaving: news.leaving.take(), ..News::default() };
            news.leaving.is_some()
        });
    }
}

// === impl News ===

impl News {
    fn is_fresh(&self, now: Instant) -> bool {
        let times = [
            self.death.map(|died| died.heard),
            self.told.map(|(_, at)| at),
            self.out_of_memory,
            self.leaving.as_ref().map(|(_, _, at)| *at),
            self.last.map(|(_, at)| at),
        ];
        times.into_iter().any(|at| within(at, KEPT, now))
    }
}

// === impl Told ===

impl Told {
    /// What a signal tells; a number, or a name as some engines write it. `None` for what is no
    /// signal at all.
    fn by(signal: &str) -> Option<Self> {
        match signal_number(signal)? {
            // HUP does not end a server by custom; what a container's own stop signal is, only its
            // configuration says.
            2 | 3 | 9 | 15 => Some(Told::End),
            other => Some(Told::Signal(other)),
        }
    }
}

/// The number of a signal, written as a number or as a name with or without `SIG`.
pub(super) fn signal_number(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let name = if name == "POLL" { "IO" } else { name };
    if let Some(from_least) = name.strip_prefix("RTMIN+") {
        return from_least.parse::<i32>().ok().filter(|n| (0..=30).contains(n)).map(|n| 34 + n);
    }
    if name == "RTMIN" {
        return Some(34);
    }
    let names = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
        "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
        "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    (1..).zip(names).find(|(_, known)| *known == name).map(|(number, _)| number)
}

/// How a process ended, by its exit code.
pub(super) fn exited(code: i64) -> Death {
    match i32::try_from(code.saturating_sub(SIGNALLED)) {
        Ok(signal) if signal > 0 => Death::Killed(signal),
        Ok(_) | Err(_) => Death::Exited(code),
    }
}

fn vanished(identity: Identity, created: u64) -> Observed {
    Observed {
        hostname: identity.hostname,
        place: identity.place,
        address: None,
        address_error: None,
        weight: 1,
        created,
        release: identity.release,
        condition: Condition::Dead(Death::Vanished),
        leaving: true,
        seat_stays: identity.seat_stays,
    }
}

fn apart(one: SystemTime, other: SystemTime) -> Duration {
    one.duration_since(other).or_else(|_| other.duration_since(one)).unwrap_or_default()
}

fn within(at: Option<Instant>, span: Duration, now: Instant) -> bool {
    at.is_some_and(|at| now.saturating_duration_since(at) < span)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::docker::labels::{HOSTNAME, SEAT};

    fn event(action: &str, attributes: &[(&str, &str)]) -> EventMessage {
        let attributes =
            attributes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        EventMessage {
            action: Some(action.to_owned()),
            actor: Some(EventActor {
                id: Some("1".into()),
                attributes: Some(attributes.collect()),
            }),
            ..EventMessage::default()
        }
    }

    fn take(witness: &mut Witness, event: EventMessage, now: Instant) {
        witness.take(event, now, SystemTime::now());
    }

    /// A death or a start at so many milliseconds of the engine's clock.
    fn at(action: &str, milliseconds: i64, name: &str) -> EventMessage {
        let attributes = [(HOSTNAME, "S4"), (SEAT, "2"), ("name", name), ("exitCode", "137")];
        EventMessage { time_nano: Some(milliseconds * 1_000_000), ..event(action, &attributes) }
    }

    #[test]
    fn a_death_is_news_once_and_only_just_after_it_happened() {
        let now = Instant::now();
        let clock = |ms| SystemTime::UNIX_EPOCH + Duration::from_millis(ms);
        let fresh = |events: &[(EventMessage, u64)]| {
            let mut witness = Witness::default();
            for (event, heard) in events {
                witness.take(event.clone(), now, clock(*heard));
            }
            witness.take_fresh().collect::<Vec<_>>()
        };
        let news = [("1".to_owned(), Hostname::parse("S4").unwrap(), Death::Killed(9))];
        let died = at("die", 10_000, "s4");
        assert_eq!(fresh(&[(died.clone(), 10_020)]), news);
        // Clocks are never quite the same.
        assert_eq!(fresh(&[(died.clone(), 9_900)]), news);
        assert_eq!(fresh(&[(died.clone(), 11_001)]), []);
        assert_eq!(fresh(&[(died.clone(), 8_999)]), []);
        // Told twice, or after the start that came after it.
        assert_eq!(fresh(&[(died.clone(), 10_020), (died.clone(), 10_030)]), news);
        let started = (at("start", 10_100, "s4"), 10_110);
        assert_eq!(fresh(&[(died.clone(), 10_020), started.clone()]), []);
        assert_eq!(fresh(&[started.clone(), (died.clone(), 10_120)]), []);
        let again = (at("die", 10_200, "s4"), 10_210);
        assert_eq!(fresh(&[(died, 10_020), started, again]), news);
        // It is expected of one that is leaving.
        assert_eq!(fresh(&[(at("die", 10_000, "s4.leaving"), 10_020)]), []);
        let untimed = event("die", &[(HOSTNAME, "S4"), (SEAT, "2"), ("name", "s4")]);
        assert_eq!(fresh(&[(untimed, 0)]), []);
    }

    #[test]
    fn a_stop_is_seen_until_the_container_dies_or_starts_or_outlives_it() {
        let (mut witness, now) = (Witness::default(), Instant::now());
        take(&mut witness, event("kill", &[("signal", "15")]), now);
        assert_eq!(witness.told("1", now), Some(Told::End));
        assert_eq!(witness.told("2", now), None);
        assert_eq!(witness.told("1", now + ENDING), None);
        take(&mut witness, event("die", &[("exitCode", "143")]), now);
        take(&mut witness, event("stop", &[]), now);
        assert_eq!(witness.told("1", now), None);
        let died = witness.death_of_running("1", now).map(|died| died.death);
        assert_eq!(died, Some(Death::Killed(15)));
        assert_eq!(witness.death_of_running("1", now + BELIEVED), None);
        assert_eq!(witness.death("1"), Some(Death::Killed(15)));
        take(&mut witness, event("start", &[]), now);
        assert_eq!((witness.told("1", now), witness.death("1")), (None, None));
    }

    #[test]
    fn signals_are_told_by_number_or_name() {
        for (text, told) in [
            ("15", Some(Told::End)),
            ("9", Some(Told::End)),
            ("SIGINT", Some(Told::End)),
            ("quit", Some(Told::End)),
            ("10", Some(Told::Signal(10))),
            ("SIGWINCH", Some(Told::Signal(28))),
            ("SIGRTMIN+3", Some(Told::Signal(37))),
            ("0", None),
            ("-9", None),
            ("99999999999", None),
            ("x", None),
        ] {
            assert_eq!(Told::by(text), told, "{text}");
        }
    }

    #[test]
    fn memory_that_ran_out_long_ago_is_not_what_a_container_died_of() {
        let (mut witness, now) = (Witness::default(), Instant::now());
        take(&mut witness, event("oom", &[]), now);
        take(&mut witness, event("die", &[("exitCode", "137")]), now);
        assert_eq!(witness.death("1"), Some(Death::OutOfMemory));
        take(&mut witness, event("start", &[]), now);
        take(&mut witness, event("oom", &[]), now);
        take(&mut witness, event("die", &[("exitCode", "137")]), now + OUT_OF_MEMORY);
        assert_eq!(witness.death("1"), Some(Death::Killed(9)));
    }

    #[test]
    fn a_replica_that_was_leaving_is_told_of_for_a_while() {
        let (mut witness, now) = (Witness::default(), Instant::now());
        let labels = [(HOSTNAME, "S4"), (SEAT, "2")];
        take(&mut witness, event("rename", &[&labels[..], &[("name", "s4.seat-3")]].concat()), now);
        assert_eq!(witness.left(now).count(), 0);
        let leaving = [("name", "s4.seat-3.leaving"), ("oldName", "/s4.seat-3")];
        take(&mut witness, event("rename", &[&labels[..], &leaving].concat()), now);
        witness.missed_events();
        let (id, left) = witness.left(now).next().unwrap();
        assert_eq!((id, left.place.to_string().as_str(), left.leaving), ("1", "3", true));
        assert_eq!(left.condition, Condition::Dead(Death::Vanished));
        assert_eq!(witness.left(now + LEFT).count(), 0);
        witness.forget("1");
        assert_eq!(witness.left(now).count(), 0);
    }

    #[test]
    fn events_that_make_no_sense_change_nothing() {
        let (mut witness, now) = (Witness::default(), Instant::now());
        take(&mut witness, EventMessage::default(), now);
        for action in ["", "die", "kill", "rename", "oom", "health_status: unhealthy", "\u{0}"] {
            let nonsense =
                [("signal", "\u{1b}"), ("exitCode", "-9223372036854775808"), ("name", "/")];
            take(&mut witness, event(action, &nonsense), now);
            take(&mut witness, event(action, &[]), now);
        }
        assert_eq!(witness.left(now).count(), 0);
    }
}
