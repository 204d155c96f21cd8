//! Full listings, and what they say of replicas: found, changed, dead, gone.

use std::collections::BTreeSet;
use std::time::Instant;

use rand::Rng;

use super::record::Record;
use super::{Roster, SeatRecord, Tick};
use crate::fleet::change::{Death, Failed};
use crate::fleet::event::What;
use crate::fleet::health::{Health, HealthTrack};
use crate::fleet::observed::{Condition, Observed, Place};
use crate::fleet::plan::Phase;
use crate::fleet::seat::{Hostname, Seat};

impl Roster {
    /// Takes a full listing that was asked for at `began`.
    pub fn listed(
        &mut self,
        mut listing: Vec<Observed>,
        began: Tick,
        now: Instant,
        rng: &mut impl Rng,
    ) {
        self.complete(&mut listing);
        self.follow(&listing, now);
        let names: BTreeSet<Hostname> = listing.iter().map(|o| o.hostname.clone()).collect();
        // Seats that have a replica which is to stay: nobody gave them up.
        let held: BTreeSet<Seat> = listing
            .iter()
            .filter(|observed| !observed.leaving && observed.condition.death().is_none())
            .filter_map(|observed| observed.place.seat())
            .collect();
        for observed in listing {
            if let Some(record) = self.records.get(&observed.hostname) {
                if record.may_be_judged(began) {
                    self.compare(observed, &held, now, rng);
                }
                continue;
            }
            if is_farewell(&observed) {
                continue;
            }
            match self.gone.iter().find(|(name, _)| *name == observed.hostname) {
                // Listed again.
                Some((_, at)) if *at <= began && self.config.listed => self.adopt(observed, now),
                // Removed, and there again: a start that was given up came through late.
                Some((_, at)) if *at <= began => self.insert(observed, Phase::StartFailed),
                Some(_) => {}
                None => self.adopt(observed, now),
            }
        }
        let missing: Vec<Hostname> = self
            .records
            .iter()
            .filter(|(name, record)| record.may_be_judged(began) && !names.contains(*name))
            .map(|(name, _)| name.clone())
            .collect();
        for hostname in missing {
            self.vanished(&hostname, now, rng);
        }
    }

    /// Completes the releases of replicas that an earlier version of the balancer started.
    pub(super) fn complete(&self, listing: &mut [Observed]) {
        let configured = &self.config.release.spec;
        for observed in listing.iter_mut().filter(|it| !it.release.is_complete()) {
            observed.release = observed.release.completed(configured);
        }
    }

    /// Takes a replica in that was not known.
    pub(super) fn adopt(&mut self, observed: Observed, now: Instant) {
        let phase = match observed.condition {
            Condition::Dead(_) => Phase::Dead,
            Condition::Made | Condition::Starting | Condition::Running | Condition::Troubled(_)
                if observed.leaving =>
            {
                // Whoever removes it lets its requests finish; if it does not, this one will.
                Phase::Draining { until: now + self.config.drain_deadline, idle: false }
            }
            Condition::Made => Phase::Made { since: now },
            Condition::Starting | Condition::Running | Condition::Troubled(_) => {
                Phase::Starting { since: now }
            }
        };
        let (hostname, place) = (observed.hostname.clone(), observed.place);
        let (condition, leaving) = (observed.condition, observed.leaving);
        let what = match (observed.condition.death(), observed.leaving) {
            (Some(death), _) => What::Died(death),
            (None, true) if observed.seat_stays => What::TakenElsewhere,
            (None, true) => What::LeftElsewhere,
            (None, false) if self.config.listed => What::Listed,
            (None, false) => What::Adopted,
        };
        self.insert(observed, phase);
        if let Some(record) = self.records.get_mut(&hostname) {
            let foreign = place.seat().is_some_and(|seat| !self.seats.contains_key(&seat));
            // One that is leaving is nobody's to come: its removal is completed here.
            record.foreign_until =
                (foreign && !leaving).then_some(now + self.config.start_deadline);
            record.health.observed(condition, now);
        }
        self.note_enlisted(&hostname);
        self.tell(&hostname, place, what);
    }

    /// A seat that somebody else filled is wanted here, too.
    pub(super) fn claim(&mut self, seat: Seat, dead: bool, now: Instant) {
        if !self.seats.contains_key(&seat) {
            let record = self.new_seat(now);
            // A dead one's replacement joins when it comes.
            let join = record.join.filter(|_| !dead);
            self.seats.insert(seat, SeatRecord { join, ..record });
            self.revision += 1;
        }
        let mut here = Vec::new();
        for (hostname, record) in &mut self.records {
            if record.seat() == Some(seat) {
                record.foreign_until = None;
                here.push(hostname.clone());
            }
        }
        // One that was ready before anybody knew here that its seat is wanted joins now.
        here.iter().for_each(|hostname| self.join(hostname));
    }

    fn insert(&mut self, observed: Observed, phase: Phase) {
        let hostname = observed.hostname.clone();
        if let Some(seat) = observed.place.seat().and_then(|seat| self.seats.get_mut(&seat)) {
            seat.previous = Some(hostname.clone());
        }
        self.records.insert(hostname, Record::found(observed, phase, self.tick));
        self.revision += 1;
    }

    fn compare(
        &mut self,
        observed: Observed,
        held: &BTreeSet<Seat>,
        now: Instant,
        rng: &mut impl Rng,
    ) {
        if self.config.listed {
            return self.compare_listed(&observed, now);
        }
        let hostname = observed.hostname.clone();
        let Some(record) = self.records.get_mut(&hostname) else {
            return;
        };
        match (record.phase, observed.condition) {
            (
                Phase::Dead
                | Phase::StartFailed
                | Phase::RemoveFailed { .. }
                | Phase::Launching
                | Phase::Removing,
                _,
            ) => return,
            (Phase::Made { .. }, Condition::Made) | (Phase::Draining { .. }, Condition::Made) => {}
            (
                Phase::Made { .. },
                Condition::Starting | Condition::Running | Condition::Troubled(_),
            ) => {
                record.address = observed.address;
                record.address_error.clone_from(&observed.address_error);
                record.phase = Phase::Starting { since: now };
                self.revision += 1;
            }
            (Phase::Draining { until, .. }, Condition::Dead(_)) => {
                // It goes anyway, and has no request to finish.
                record.phase = Phase::Draining { until, idle: true };
                self.revision += 1;
                return;
            }
            (_, Condition::Dead(death)) => {
                if observed.leaving && !observed.seat_stays {
                    self.left_elsewhere(&hostname, held, now);
                }
                self.died(&hostname, death, now, rng);
                return;
            }
            (Phase::Starting { .. } | Phase::Up, _) if record.address != observed.address => {
                // Restarted from outside: a new process at a new address, not ready yet. Or it has
                // left its network, and no request can reach it.
                record.address = observed.address;
                record.address_error.clone_from(&observed.address_error);
                record.failed_check = None;
                record.phase = Phase::Starting { since: now };
                record.health = HealthTrack::new();
                record.standing = Health::Starting;
                record.ready_since = None;
                record.hung = false;
                self.revision += 1;
            }
            (Phase::Starting { .. } | Phase::Up | Phase::Draining { .. }, _) => {}
        }
        self.compare_place(&hostname, &observed, now);
        if observed.leaving && observed.seat_stays {
            self.taken_elsewhere(&hostname, now);
        } else if observed.leaving {
            self.left_elsewhere(&hostname, held, now);
        } else if let Some(record) = self.records.get_mut(&hostname) {
            record.health.observed(observed.condition, now);
            self.reassess(&hostname, now);
        }
    }

    /// Follows a spare to the seat that another balancer gave it, also where that came later than
    /// the one that it got here; where the seat that it has here is not written down, it is to be.
    fn compare_place(&mut self, hostname: &Hostname, observed: &Observed, now: Instant) {
        let Some(record) = self.records.get_mut(hostname) else { return };
        if record.marking {
            return;
        }
        match (record.place, observed.place) {
            (here, there) if here == there => {}
            (Place::Spare | Place::Member(_), Place::Member(_)) => {
                if let Some(seat) = observed.place.seat() {
                    self.claim(seat, false, now);
                    self.take_seat(hostname, seat, now);
                }
            }
            (Place::Member(_), Place::Spare) => record.unmarked = true,
            (Place::Member(_) | Place::Spare | Place::Unknown, _) => {}
        }
    }

    /// Another balancer of the pool removes a replica: its seat is given up here, too, unless it
    /// has another one.
    fn left_elsewhere(&mut self, hostname: &Hostname, held: &BTreeSet<Seat>, now: Instant) {
        let until = now + self.config.drain_deadline;
        let Some(record) = self.records.get_mut(hostname) else { return };
        if !record.runs() {
            return;
        }
        record.phase = Phase::Draining { until, idle: false };
        let place = record.place;
        self.tell(hostname, place, What::LeftElsewhere);
        let given_up = place.seat().filter(|seat| !held.contains(seat));
        let given_up = given_up.and_then(|seat| self.seats.remove(&seat));
        if let Some(change) = given_up.and_then(|seat| seat.change) {
            let death = Death::Vanished;
            self.fail_change(change, Failed::Died { hostname: hostname.clone(), death });
        }
        self.revision += 1;
    }

    /// Takes the news that another balancer, which stops, removes a replica: no `/rm` asked for that,
    /// so its seat stays and is filled again.
    fn taken_elsewhere(&mut self, hostname: &Hostname, now: Instant) {
        let until = now + self.config.drain_deadline;
        let Some(record) = self.records.get_mut(hostname) else { return };
        if !record.runs() {
            return;
        }
        record.phase = Phase::Draining { until, idle: false };
        let place = record.place;
        self.tell(hostname, place, What::TakenElsewhere);
        self.revision += 1;
    }

    /// The runtime tells of a death before a listing does.
    pub fn told_dead(
        &mut self,
        hostname: &Hostname,
        death: Death,
        now: Instant,
        rng: &mut impl Rng,
    ) {
        let Some(record) = self.records.get_mut(hostname) else { return };
        match record.phase {
            Phase::Starting { .. } | Phase::Up => self.died(hostname, death, now, rng),
            Phase::Draining { until, .. } => {
                record.phase = Phase::Draining { until, idle: true };
                self.revision += 1;
            }
            // Its start or its end is under way, and tells how it went.
            Phase::Launching
            | Phase::Made { .. }
            | Phase::Dead
            | Phase::StartFailed
            | Phase::Removing
            | Phase::RemoveFailed { .. } => {}
        }
    }

    pub(super) fn died(
        &mut self,
        hostname: &Hostname,
        death: Death,
        now: Instant,
        rng: &mut impl Rng,
    ) {
        let Some(record) = self.records.get_mut(hostname) else {
            return;
        };
        let (place, ready_since) = (record.place, record.ready_since);
        let release = record.release.clone();
        record.phase = Phase::Dead;
        record.death = Some(death);
        record.ready_since = None;
        record.hung = false;
        self.tell(hostname, place, What::Died(death));
        let failed = Failed::Died { hostname: hostname.clone(), death };
        self.place_failed(place, failed, ready_since, &release, now, rng);
        self.revision += 1;
    }

    fn vanished(&mut self, hostname: &Hostname, now: Instant, rng: &mut impl Rng) {
        if self.config.listed {
            return self.unlisted(hostname, now);
        }
        let Some(record) = self.records.get(hostname) else { return };
        match record.phase {
            Phase::Starting { .. } | Phase::Up | Phase::Launching => {
                self.died(hostname, Death::Vanished, now, rng);
            }
            // Whoever was to remove it has, or what was left of it.
            Phase::Made { .. }
            | Phase::Draining { .. }
            | Phase::Dead
            | Phase::StartFailed
            | Phase::Removing
            | Phase::RemoveFailed { .. } => {
                let place = record.place;
                self.tell(hostname, place, What::Removed);
            }
        }
        self.forget(hostname);
        self.revision += 1;
    }
}

/// Whether this only tells that a replica was removed on purpose.
fn is_farewell(observed: &Observed) -> bool {
    observed.leaving && observed.condition == Condition::Dead(Death::Vanished)
}
