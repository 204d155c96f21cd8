//! Seats whose replica was lost, until another is there for it.

use std::collections::BTreeMap;

use crate::fleet::event::{Event, What};
use crate::fleet::seat::{Hostname, Seat};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Losses(BTreeMap<Seat, Occupant>);

/// Who has a seat.
#[derive(Debug)]
struct Occupant {
    hostname: Hostname,
    lost: bool,
}

// === impl Losses ===

impl Losses {
    /// Takes an event: whether it is the begin of a replacement for a replica that was lost.
    pub(super) fn makes_good(&mut self, event: &Event) -> bool {
        let Some(subject) = &event.subject else { return false };
        let Some(seat) = subject.place.seat() else { return false };
        match &event.what {
            What::Starting | What::Seated(_) => {
                let before = self.0.insert(seat, Occupant::new(&subject.hostname));
                before.is_some_and(|before| before.lost)
            }
            What::Adopted => {
                self.0.insert(seat, Occupant::new(&subject.hostname));
                false
            }
            What::Hung
            | What::Died(_)
            | What::TakenElsewhere
            | What::StartFailed(_)
            | What::NeverReady(_) => {
                let occupant =
                    self.0.entry(seat).or_insert_with(|| Occupant::new(&subject.hostname));
                // The end of one that was replaced already is no loss.
                occupant.lost |= occupant.hostname == subject.hostname;
                false
            }
            What::Listed
            | What::Ready
            | What::Ejected(..)
            | What::NotReady(_)
            | What::Draining(_)
            | What::LeftElsewhere
            | What::MemberJoined(_)
            | What::MemberLeft(_)
            | What::MemberExpired(_)
            | What::MarkFailed(_)
            | What::Removed
            | What::RemoveFailed(_)
            | What::Disabled(_)
            | What::Enabled(_)
            | What::Panic { .. }
            | What::PanicOver
            | What::SpecChanged { .. }
            | What::RollBegun { .. }
            | What::RollSuperseded { .. }
            | What::RollPaused { .. }
            | What::RollResumed { .. }
            | What::RollingBack { .. }
            | What::RollDone { .. }
            | What::RollUndone { .. }
            | What::RollFailed { .. }
            | What::Scaling { .. }
            | What::ScaleFailed(_)
            | What::EngineLost(_)
            | What::EngineBack
            | What::Quarantined { .. } => false,
        }
    }
}

// === impl Occupant ===

impl Occupant {
    fn new(hostname: &Hostname) -> Self {
        Self { hostname: hostname.clone(), lost: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::change::Death;
    use crate::fleet::event::Subject;

    fn happens(losses: &mut Losses, hostname: &str, what: What) -> bool {
        let place = Seat::new(1).unwrap().into();
        let hostname = Hostname::parse(hostname).unwrap();
        losses.makes_good(&Event { subject: Some(Subject { hostname, place }), what })
    }

    #[test]
    fn only_what_was_lost_is_made_good() {
        let mut losses = Losses::default();
        assert!(!happens(&mut losses, "A", What::Starting), "the first one of a seat");
        assert!(!happens(&mut losses, "B", What::Starting), "a rolling update");
        assert!(!happens(&mut losses, "A", What::Died(Death::Exited(0))), "and its remains");
        assert!(!happens(&mut losses, "C", What::Starting));
        assert!(!happens(&mut losses, "C", What::Died(Death::OutOfMemory)));
        assert!(happens(&mut losses, "D", What::Starting));
        assert!(!happens(&mut losses, "D", What::Hung));
        assert!(happens(&mut losses, "E", What::Starting));
        assert!(!happens(&mut losses, "D", What::Died(Death::Killed(9))), "the hung one ends");
        assert!(!happens(&mut losses, "F", What::Starting));
    }

    #[test]
    fn what_was_dead_when_it_was_found_is_made_good_but_not_by_who_was_there() {
        let mut losses = Losses::default();
        assert!(!happens(&mut losses, "A", What::Died(Death::Vanished)));
        assert!(happens(&mut losses, "B", What::Starting));
        let mut losses = Losses::default();
        assert!(!happens(&mut losses, "A", What::Died(Death::Vanished)));
        assert!(!happens(&mut losses, "B", What::Adopted));
        assert!(!happens(&mut losses, "C", What::Starting));
    }
}
