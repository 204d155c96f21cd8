//! Why a replica is not ready, and which changes of that are reported.
//!
//! A reason is computed from what is known of a replica now ([`Roster`]), so it is the same
//! wherever it is shown. `Reports` decides which reasons become an event: each change once, and
//! no more than a bounded number per replica and time.
//!
//! [`Roster`]: super::roster::Roster

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::observed::Trouble;

/// Why a replica is not ready. Texts contain no numbers that differ from one health check to the
/// next: two reasons are equal where an operator would call them the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotReady {
    /// It has no network address; the runtime may say why.
    NoAddress(Option<Arc<str>>),
    /// Its runtime reports a condition in which it does not respond.
    Trouble(Trouble),
    /// The health check of its image has neither passed nor failed yet.
    Unchecked,
    /// It refused the connection of its last health check.
    Refused(Arc<str>),
    /// Its last health check failed otherwise.
    Failed(Arc<str>),
    /// Too many requests to it failed in a row.
    Errors,
}

/// The reports of one replica's reasons.
#[derive(Debug)]
pub(super) struct Reports {
    last: Option<NotReady>,
    /// Reports that may be made at once.
    left: u32,
    /// Since when `left` is what it is.
    since: Option<Instant>,
}

/// Changes of a replica's reason that may be reported at once, and the time after which one more
/// may be: a reason that flaps with every health check must not flood the log.
const AT_ONCE: u32 = 5;
const ONE_MORE_AFTER: Duration = Duration::from_secs(10);

// === impl NotReady ===

impl NotReady {
    /// Reports whether every replica that starts may be in this condition for a moment, such as
    /// before its server listens.
    pub fn is_usual_at_start(&self) -> bool {
        match self {
            NotReady::Unchecked | NotReady::Refused(_) => true,
            NotReady::Trouble(Trouble::Paused | Trouble::Unhealthy | Trouble::Stopping)
            | NotReady::NoAddress(_)
            | NotReady::Failed(_)
            | NotReady::Errors => false,
        }
    }
}

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotReady::NoAddress(None) => f.write_str("no network address"),
            NotReady::NoAddress(Some(why)) => f.write_str(why),
            NotReady::Trouble(trouble) => trouble.fmt(f),
            NotReady::Unchecked => f.write_str("container health: starting"),
            NotReady::Refused(why) | NotReady::Failed(why) => {
                write!(f, "health check failed: {why}")
            }
            NotReady::Errors => f.write_str("too many failed requests in a row"),
        }
    }
}

// === impl Reports ===

impl Reports {
    /// Returns the reports of a replica of which nothing was reported.
    pub(super) fn new() -> Self {
        Self { last: None, left: AT_ONCE, since: None }
    }

    /// Reports whether `reason` is what was reported last.
    pub(super) fn has_reported(&self, reason: &NotReady) -> bool {
        self.last.as_ref() == Some(reason)
    }

    /// Takes a change of the reason. Returns `Ok` if it is to be reported now, otherwise the time
    /// at which it may be, should it last until then.
    pub(super) fn report(&mut self, reason: &NotReady, now: Instant) -> Result<(), Instant> {
        let since = *self.since.get_or_insert(now);
        let passed = now.saturating_duration_since(since).as_nanos() / ONE_MORE_AFTER.as_nanos();
        let more = u32::try_from(passed).unwrap_or(u32::MAX);
        if self.left.saturating_add(more) >= AT_ONCE {
            (self.left, self.since) = (AT_ONCE, Some(now));
        } else {
            self.left += more;
            self.since = Some(since + ONE_MORE_AFTER * more);
        }
        if self.left == 0 {
            return Err(self.since.unwrap_or(now) + ONE_MORE_AFTER);
        }
        self.left -= 1;
        self.last = Some(reason.clone());
        Ok(())
    }

    /// Notes that another event has reported `reason`.
    pub(super) fn note(&mut self, reason: Option<NotReady>) {
        self.last = reason;
    }

    /// Forgets the last reason: the replica is ready, so the next reason is a change.
    pub(super) fn clear(&mut self) {
        self.last = None;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn failed(why: &str) -> NotReady {
        NotReady::Failed(why.into())
    }

    #[test]
    fn a_reason_names_the_check_the_runtime_or_the_address() {
        for (reason, text) in [
            (failed("GET /x returned 404"), "health check failed: GET /x returned 404"),
            (
                NotReady::Refused("connection refused".into()),
                "health check failed: connection refused",
            ),
            (NotReady::NoAddress(None), "no network address"),
            (NotReady::NoAddress(Some("no such name".into())), "no such name"),
            (NotReady::Trouble(Trouble::Unhealthy), "container health: unhealthy"),
            (NotReady::Unchecked, "container health: starting"),
            (NotReady::Errors, "too many failed requests in a row"),
        ] {
            assert_eq!(reason.to_string(), text);
        }
    }

    #[test]
    fn a_reason_is_a_change_again_once_the_replica_was_ready() {
        let (mut reports, now) = (Reports::new(), Instant::now());
        assert!(!reports.has_reported(&failed("a")));
        assert_eq!(reports.report(&failed("a"), now), Ok(()));
        assert!(reports.has_reported(&failed("a")) && !reports.has_reported(&failed("b")));
        reports.clear();
        assert!(!reports.has_reported(&failed("a")));
    }

    #[test]
    fn a_deferred_reason_may_be_reported_at_the_time_that_was_promised() {
        let (mut reports, now) = (Reports::new(), Instant::now());
        for number in 0..AT_ONCE {
            assert_eq!(reports.report(&failed(&number.to_string()), now), Ok(()));
        }
        let Err(due) = reports.report(&failed("x"), now) else { panic!("no bound") };
        assert_eq!(due, now + ONE_MORE_AFTER);
        assert!(reports.report(&failed("x"), due - Duration::from_nanos(1)).is_err());
        assert_eq!(reports.report(&failed("x"), due), Ok(()));
        assert!(reports.report(&failed("y"), due).is_err());
    }

    proptest! {
        #[test]
        fn reports_are_bounded_however_often_the_reason_changes(
            pauses in proptest::collection::vec(0..30_000_u64, 1..300),
        ) {
            let start = Instant::now();
            let (mut reports, mut now, mut made) = (Reports::new(), start, 0);
            for (number, pause) in pauses.into_iter().enumerate() {
                now += Duration::from_millis(pause);
                made += u64::from(reports.report(&failed(&number.to_string()), now).is_ok());
            }
            let passed = (now - start).as_secs() / ONE_MORE_AFTER.as_secs();
            prop_assert!(made <= u64::from(AT_ONCE) + passed, "{made} within {:?}", now - start);
        }
    }
}
