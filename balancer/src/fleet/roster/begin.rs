//! The first fleet of a balancer, and the fleet that its successor is to restore.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::{Roster, SeatRecord};
use crate::fleet::change::Failed;
use crate::fleet::members::{Origin, Seats, Wanted};
use crate::fleet::observed::Observed;
use crate::fleet::release::Release;
use crate::fleet::seat::{Hostname, Seat};

/// Where the seats of the first fleet come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begin {
    /// From the replicas that run; where none does, so many are started.
    Found(usize),
    /// From the replicas that run, and from other balancers, which want these seats and fill those
    /// that are empty.
    Joined(Seats),
    /// These seats and no others, running this release or a later one of a replica.
    Exactly(Seats, Release),
    /// So many seats, those of running replicas first.
    Configured(usize),
}

/// How long a balancer that joins leaves an empty seat to the others.
const FILLED_BY_OTHERS: Duration = Duration::from_secs(5);

// === impl Begin ===

impl Begin {
    /// Returns the beginning that follows from the leases of the pool. `replicas` is the configured
    /// number.
    pub fn from_origin(origin: &Origin, replicas: usize) -> Self {
        match origin {
            Origin::NoLease | Origin::Members(None) => Begin::Found(replicas),
            Origin::Members(Some(wanted)) => Begin::Joined(wanted.seats.clone()),
            Origin::Requested(Wanted { seats, release, .. }) => {
                Begin::Exactly(seats.clone(), release.clone())
            }
            Origin::Changed(_) => Begin::Configured(replicas),
        }
    }
}

// === impl Roster ===

impl Roster {
    /// Begins: adopts the replicas that run, on the seats that they have. Where none runs, asks for
    /// `replicas` on the first seats. Goes on with a rollout that was under way, and follows a change
    /// of the configuration.
    pub fn boot(&mut self, running: Vec<Observed>, replicas: usize, now: Instant) {
        self.begin_with(running, Begin::Found(replicas), now);
    }

    /// Begins as `begin` says. Replicas on other seats than those are removed, unless the replicas
    /// that run decide.
    pub fn begin_with(&mut self, mut running: Vec<Observed>, begin: Begin, now: Instant) {
        running.sort_by_key(|replica| (replica.created, replica.place));
        self.complete(&mut running);
        let held: BTreeSet<Seat> =
            running.iter().filter(|it| !it.leaving).filter_map(|it| it.place.seat()).collect();
        let joins = matches!(begin, Begin::Joined(_));
        self.resume(&running, now);
        let (seats, first) = match begin {
            Begin::Found(replicas) => {
                let first = if held.is_empty() { replicas } else { 0 };
                (None, Seat::smallest_free(|_| false, first))
            }
            Begin::Joined(Seats(seats)) => (None, seats.into_iter().collect()),
            Begin::Exactly(Seats(seats), release) => {
                self.resume_requested(release, &running, now);
                (Some(seats.clone()), seats.into_iter().collect())
            }
            Begin::Configured(replicas) => {
                let mut seats: BTreeSet<Seat> = held.iter().copied().take(replicas).collect();
                let missing = replicas - seats.len();
                seats.extend(Seat::smallest_free(|seat| held.contains(&seat), missing));
                (Some(seats.clone()), seats.into_iter().collect())
            }
        };
        let is_wanted = |seat: &Seat| seats.as_ref().is_none_or(|seats| seats.contains(seat));
        for observed in running {
            if let Some(seat) = observed.place.seat().filter(is_wanted)
                && !observed.leaving
            {
                self.claim(seat, observed.condition.death().is_some(), now);
            }
            self.adopt(observed, now);
        }
        if seats.is_some() {
            // No other balancer can be making a replica on another seat.
            for record in self.records.values_mut() {
                record.foreign_until = None;
            }
        }
        if !self.config.listed {
            for seat in first {
                // Another balancer is about to fill it.
                let not_before = if joins { now + FILLED_BY_OTHERS } else { now };
                self.begin_seat(seat, !joins && held.is_empty(), not_before, now);
            }
        }
        self.follow_configuration(now);
        self.revision += 1;
    }

    /// Asks for a replica on a seat of the first fleet, unless one is there. Where nothing runs the
    /// replica is named by its seat, and `first` of all.
    fn begin_seat(&mut self, seat: Seat, first: bool, not_before: Instant, now: Instant) {
        if !self.seats.contains_key(&seat) {
            let record = self.new_seat(now);
            let name = first.then(|| Hostname::of_seat(seat));
            self.seats.insert(seat, SeatRecord { name, first, not_before, ..record });
        }
    }

    /// Returns the seats that were last requested: those of an `/add` count once it is through.
    pub fn wanted_seats(&self) -> Seats {
        Seats(self.seats.iter().filter(|(_, it)| it.on_ring).map(|(seat, _)| *seat).collect())
    }

    /// Returns the release that was last requested.
    pub fn wanted_release(&self) -> &Release {
        &self.target
    }

    /// Gives up the additions that are under way: the balancer leaves its replicas to others, but
    /// none of a change that it cannot finish.
    pub fn give_up_changes(&mut self) {
        let adding: Vec<_> = self.changes.keys().copied().collect();
        for id in adding {
            self.fail_change(id, Failed::ShuttingDown);
        }
        self.revision += 1;
    }

    /// Reports whether a change is under way.
    pub fn is_changing(&self) -> bool {
        !self.changes.is_empty()
    }
}
