//! What a container tells of its replica: by its labels, which never change, and by its name,
//! which can be changed in one step and so carries the marks.
//!
//! | where | what |
//! |---|---|
//! | label `balancer.pool` | whose it is |
//! | label `balancer.hostname` | the replica's name, as given |
//! | label `balancer.seat` | its seat when it was made, or `spare` |
//! | label `balancer.release` | its release with the complete specification, as JSON |
//! | label `balancer.image` | the reference of its image |
//! | label `balancer.digest` | the image ID that the release is pinned to |
//! | label `balancer.fingerprint` | the hash of the specification |
//! | name `SLUG` | made, and not marked since |
//! | name `SLUG.seat-4` | it has seat 4 now |
//! | label `balancer.version` | the balancer's version; containers of versions before leases have none |
//! | name `….leaving` | a balancer is about to remove it, and its seat is given up |
//! | name `….stopping` | a balancer that stops is about to remove it; its seat stays |

use std::collections::HashMap;

use tracing::debug;

use crate::config::value::seat_text;
use crate::fleet::observed::Place;
use crate::fleet::release::{Release, Spec};
use crate::fleet::seat::{Hostname, Seat};
use crate::runtime::{Mark, ReplicaSpec};

/// Whose a container is.
pub(super) const POOL: &str = "balancer.pool";
/// The seat that it was made for.
pub(super) const SEAT: &str = "balancer.seat";
/// The name of its replica.
pub(super) const HOSTNAME: &str = "balancer.hostname";
/// Its release, with the complete specification.
pub(super) const RELEASE: &str = "balancer.release";
/// The reference of its image.
pub(super) const IMAGE: &str = "balancer.image";
/// The ID of its image.
pub(super) const DIGEST: &str = "balancer.digest";
/// The hash of its specification.
pub(super) const FINGERPRINT: &str = "balancer.fingerprint";

/// The version of the balancer that made it.
pub(super) const VERSION: &str = "balancer.version";

const SEATED: &str = ".seat-";
const LEAVING: &str = ".leaving";
const STOPPING: &str = ".stopping";

/// A replica, as its container tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) hostname: Hostname,
    pub(super) place: Place,
    pub(super) release: Release,
    pub(super) leaving: bool,
    pub(super) seat_stays: bool,
}

/// The marks in a container's name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Marks {
    seat: Option<Seat>,
    leaving: bool,
    /// It is leaving because its balancer stops. Never without `leaving`.
    stopping: bool,
}

/// Returns the labels of a new container that runs `spec`.
pub(super) fn labels(pool: &str, what: &ReplicaSpec, spec: &Spec) -> HashMap<String, String> {
    let release = what.release.with_spec(spec.clone());
    let mut labels = HashMap::from([
        (POOL.to_owned(), pool.to_owned()),
        (SEAT.to_owned(), seat_text(what.seat)),
        (HOSTNAME.to_owned(), what.hostname.to_string()),
        (VERSION.to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        (FINGERPRINT.to_owned(), release.fingerprint().to_string()),
    ]);
    labels.extend(spec.image.clone().map(|image| (IMAGE.to_owned(), image)));
    labels.extend(spec.digest.clone().map(|digest| (DIGEST.to_owned(), digest)));
    match serde_json::to_string(&release) {
        Ok(text) => {
            labels.insert(RELEASE.to_owned(), text);
        }
        Err(error) => debug!(%error, "release could not be recorded"),
    }
    labels
}

/// The name of a container with this mark beside those that it has; `None` where it has it
/// already.
pub(super) fn marked(hostname: &Hostname, name: &str, mark: Mark) -> Option<String> {
    let slug = hostname.slug();
    let before = Marks::read(&slug, name);
    let after = match mark {
        Mark::Seated(seat) => Marks { seat: Some(seat), ..before },
        Mark::Leaving => Marks { leaving: true, stopping: false, ..before },
        // A seat that was given up stays so.
        Mark::Stopping if before.leaving => before,
        Mark::Stopping => Marks { leaving: true, stopping: true, ..before },
    };
    (after != before).then(|| after.name(slug))
}

/// What a container's place is when it is made.
pub(super) fn place(what: &ReplicaSpec) -> Place {
    what.seat.map_or(Place::Spare, Place::from)
}

// === impl Identity ===

impl Identity {
    /// Reads it; `None` for a container whose hostname label is not there or no hostname.
    pub(super) fn read(labels: &HashMap<String, String>, name: &str) -> Option<Self> {
        let hostname = Hostname::parse(labels.get(HOSTNAME)?).ok()?;
        let marks = Marks::read(&hostname.slug(), name);
        let made = match labels.get(SEAT).map(String::as_str) {
            Some("spare") => Place::Spare,
            Some(seat) => seat.parse().ok().and_then(Seat::new).map_or(Place::Unknown, Place::from),
            None => Place::Unknown,
        };
        let release = labels.get(RELEASE).and_then(|text| serde_json::from_str(text).ok());
        Some(Self {
            place: marks.seat.map_or(made, Place::from),
            release: release.unwrap_or_default(),
            leaving: marks.leaving,
            seat_stays: marks.stopping,
            hostname,
        })
    }
}

// === impl Marks ===

impl Marks {
    /// Reads the marks of a name, with or without its leading `/`. A name that is not made of this
    /// slug and marks has none: somebody else renamed the container.
    fn read(slug: &str, name: &str) -> Self {
        let name = name.trim_start_matches('/');
        let Some(rest) = name.strip_prefix(slug) else { return Self::default() };
        let (rest, leaving, stopping) =
            match (rest.strip_suffix(LEAVING), rest.strip_suffix(STOPPING)) {
                (Some(rest), _) => (rest, true, false),
                (None, Some(rest)) => (rest, true, true),
                (None, None) => (rest, false, false),
            };
        if rest.is_empty() {
            return Self { seat: None, leaving, stopping };
        }
        let seat = rest.strip_prefix(SEATED).and_then(|seat| seat.parse().ok()).and_then(Seat::new);
        if seat.is_some() { Self { seat, leaving, stopping } } else { Self::default() }
    }

    fn name(self, mut slug: String) -> String {
        if let Some(seat) = self.seat {
            slug += &format!("{SEATED}{seat}");
        }
        if self.stopping {
            slug += STOPPING;
        } else if self.leaving {
            slug += LEAVING;
        }
        slug
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hostname(text: &str) -> Hostname {
        Hostname::parse(text).unwrap()
    }

    fn identity(seat: &str, name: &str) -> Identity {
        let labels = [(HOSTNAME, "Server 4"), (SEAT, seat)];
        let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Identity::read(&labels.into(), name).unwrap()
    }

    fn seat(number: u32) -> Place {
        Seat::new(number).unwrap().into()
    }

    #[test]
    fn marks_are_read_from_a_name_that_is_the_replicas_own() {
        for (name, place, leaving) in [
            ("/server-4", seat(2), false),
            ("server-4.leaving", seat(2), true),
            ("/server-4.seat-7", seat(7), false),
            ("/server-4.seat-7.leaving", seat(7), true),
            ("/server-4.seat-0", seat(2), false),
            ("/server-4.seat-x.leaving", seat(2), false),
            ("/server-4.leaving.seat-7", seat(2), false),
            ("/server-44.leaving", seat(2), false),
            ("/other.seat-7.leaving", seat(2), false),
            ("", seat(2), false),
        ] {
            let read = identity("2", name);
            assert_eq!((read.place, read.leaving), (place, leaving), "{name}");
        }
        assert_eq!(identity("spare", "/server-4").place, Place::Spare);
        assert_eq!(identity("spare", "/server-4.seat-7").place, seat(7));
        assert_eq!(identity("two", "/server-4").place, Place::Unknown);
    }

    #[test]
    fn a_mark_is_added_to_those_that_are_there_and_only_once() {
        let name = hostname("Server 4");
        let marked = |text: &str, mark| marked(&name, text, mark);
        let seated = Mark::Seated(Seat::new(3).unwrap());
        assert_eq!(marked("/server-4", seated).unwrap(), "server-4.seat-3");
        assert_eq!(marked("/server-4.leaving", seated).unwrap(), "server-4.seat-3.leaving");
        assert_eq!(marked("/server-4.seat-3", seated), None);
        assert_eq!(marked("/server-4.seat-3", Mark::Leaving).unwrap(), "server-4.seat-3.leaving");
        assert_eq!(marked("/server-4", Mark::Leaving).unwrap(), "server-4.leaving");
        assert_eq!(marked("/server-4.seat-3.leaving", Mark::Leaving), None);
        // Somebody else renamed it.
        assert_eq!(marked("/mine", Mark::Leaving).unwrap(), "server-4.leaving");
        // A hostname may look like a mark.
        let name = hostname("x.leaving");
        assert_eq!(super::marked(&name, "/x.leaving", Mark::Leaving).unwrap(), "x.leaving.leaving");
    }

    #[test]
    fn the_mark_of_a_shutdown_is_told_from_that_of_a_removal() {
        let name = hostname("Server 4");
        let marked = |text: &str, mark| marked(&name, text, mark);
        for (text, seat_stays) in [
            ("/server-4.stopping", true),
            ("/server-4.seat-7.stopping", true),
            ("/server-4.leaving", false),
            ("/server-4.stopping.leaving", false),
        ] {
            assert_eq!(identity("2", text).seat_stays, seat_stays, "{text}");
        }
        assert!(identity("2", "/server-4.stopping").leaving);
        assert_eq!(marked("/server-4.seat-3", Mark::Stopping).unwrap(), "server-4.seat-3.stopping");
        assert_eq!(marked("/server-4.leaving", Mark::Stopping), None);
        assert_eq!(marked("/server-4.stopping", Mark::Stopping), None);
        assert_eq!(marked("/server-4.stopping", Mark::Leaving).unwrap(), "server-4.leaving");
    }

    #[test]
    fn a_release_is_recorded_with_its_specification_and_read_leniently() {
        let spec = Spec {
            image: Some("a:2".to_owned()),
            digest: Some("sha256:1".to_owned()),
            ..Spec::default()
        };
        let release = Release::new(3, 1, &spec, spec.unpinned());
        let what = ReplicaSpec { hostname: hostname("S1"), seat: None, release: release.clone() };
        let mut written = labels("pool", &what, &spec);
        assert_eq!(written[SEAT], "spare");
        assert_eq!((written[IMAGE].as_str(), written[DIGEST].as_str()), ("a:2", "sha256:1"));
        assert_eq!(written[FINGERPRINT], spec.fingerprint().to_string());
        let read = Identity::read(&written, "/s1").unwrap();
        assert_eq!((read.release, read.place), (release.with_spec(spec), Place::Spare));
        written.insert(RELEASE.to_owned(), "{".to_owned());
        assert_eq!(Identity::read(&written, "/s1").unwrap().release, Release::default());
    }
}
