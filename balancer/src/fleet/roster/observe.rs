//! What is seen of the fleet: listings, outcomes of starts and stops, probes.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Instant;

use rand::Rng;

use super::{Observed, Record, Roster, SeatRecord, StartFailed, Tick, What};
use crate::fleet::change::{Cause, Death, Failed};
use crate::fleet::health::{Health, HealthTrack};
use crate::fleet::plan::Phase;
use crate::fleet::seat::{Hostname, MemberId, Seat};

impl Roster {
    /// Takes a full listing that was asked for at `began`.
    pub fn listed(
        &mut self,
        listing: Vec<Observed>,
        began: Tick,
        now: Instant,
        rng: &mut impl Rng,
    ) {
        let names: BTreeSet<Hostname> = listing.iter().map(|o| o.hostname.clone()).collect();
        for observed in listing {
            if let Some(record) = self.records.get(&observed.hostname) {
                if record.may_be_judged(began) {
                    self.compare(observed, now, rng);
                }
            } else if let Some((_, at)) =
                self.gone.iter().find(|(name, _)| *name == observed.hostname)
            {
                if *at <= began {
                    // Removed, and there again: a start that was given up came through late.
                    self.insert(observed, Phase::Dead);
                }
            } else {
                self.adopt(observed, now);
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

    /// A start has ended.
    pub fn started(
        &mut self,
        hostname: &Hostname,
        result: Result<Observed, StartFailed>,
        now: Instant,
        rng: &mut impl Rng,
    ) {
        let stamp = self.next_tick();
        let Some(record) = self.records.get_mut(hostname) else {
            return;
        };
        record.stamp = stamp;
        match result {
            Ok(observed) => {
                record.address = observed.address;
                record.created = Some(observed.created);
                record.phase = Phase::Starting { since: now };
                if let Some(death) = observed.death {
                    self.died(hostname, death, now, rng);
                }
            }
            Err(failure) => {
                let seat = record.seat();
                let failed = match &failure {
                    StartFailed::NameTaken => {
                        // Not ours, so there is nothing to remove.
                        self.forget(hostname);
                        Failed::NameTaken(hostname.clone())
                    }
                    StartFailed::Other(cause) => {
                        record.phase = Phase::Dead;
                        Failed::Start { hostname: hostname.clone(), source: cause.clone() }
                    }
                };
                self.tell(hostname, seat.map(MemberId::Seat), What::StartFailed(failure));
                self.seat_failed(seat, failed, None, now, rng);
            }
        }
        self.revision += 1;
    }

    /// A stop has ended.
    pub fn removed(&mut self, hostname: &Hostname, result: Result<(), Cause>, now: Instant) {
        let stamp = self.next_tick();
        let again = now + self.config.remove_again;
        let Some(record) = self.records.get_mut(hostname) else {
            return;
        };
        let member = record.member;
        match result {
            Ok(()) => {
                self.forget(hostname);
                self.tell(hostname, member, What::Removed);
            }
            Err(cause) => {
                record.stamp = stamp;
                record.phase = Phase::RemoveFailed { again };
                record.remove_error = Some(cause.clone());
                self.tell(hostname, member, What::RemoveFailed(cause));
            }
        }
        self.revision += 1;
    }

    /// The last request in flight at a leaving replica has ended.
    pub fn drained(&mut self, hostname: &Hostname) {
        if let Some(record) = self.records.get_mut(hostname)
            && let Phase::Draining { idle, .. } = &mut record.phase
        {
            *idle = true;
            self.revision += 1;
        }
    }

    /// A probe of a replica at `address` has ended.
    pub fn probed(&mut self, hostname: &Hostname, address: SocketAddr, good: bool, now: Instant) {
        let limits = self.config.health;
        let Some(record) = self.records.get_mut(hostname) else {
            return;
        };
        let runs = matches!(record.phase, Phase::Starting { .. } | Phase::Up);
        if !runs || record.address != Some(address) {
            return;
        }
        let Some(health) = record.health.observe(good, limits) else {
            return;
        };
        let member = record.member;
        let what = match health {
            Health::Ready => {
                record.phase = Phase::Up;
                record.ready_since = Some(now);
                What::Ready
            }
            Health::Ejected => {
                record.ready_since = None;
                What::Ejected
            }
            Health::Starting => return,
        };
        self.tell(hostname, member, what);
        self.join(hostname);
        self.revision += 1;
    }

    pub(super) fn adopt(&mut self, observed: Observed, now: Instant) {
        if let Some(MemberId::Seat(seat)) = observed.member
            && !self.seats.contains_key(&seat)
        {
            let record = self.new_seat(now);
            // A dead one's replacement joins when it comes.
            let join = record.join.filter(|_| observed.death.is_none());
            self.seats.insert(seat, SeatRecord { join, ..record });
        }
        let phase = match observed.death {
            None => Phase::Starting { since: now },
            Some(_) => Phase::Dead,
        };
        let (hostname, member) = (observed.hostname.clone(), observed.member);
        let what = observed.death.map_or(What::Adopted, What::Died);
        self.insert(observed, phase);
        self.tell(&hostname, member, what);
    }

    fn insert(&mut self, observed: Observed, phase: Phase) {
        let record = Record {
            member: observed.member,
            address: observed.address,
            weight: observed.weight,
            created: Some(observed.created),
            phase,
            health: HealthTrack::new(),
            ready_since: None,
            joined: None,
            stamp: self.tick,
            remove_error: None,
        };
        self.records.insert(observed.hostname, record);
        self.revision += 1;
    }

    fn compare(&mut self, observed: Observed, now: Instant, rng: &mut impl Rng) {
        let hostname = &observed.hostname;
        let Some(record) = self.records.get_mut(hostname) else {
            return;
        };
        match (record.phase, observed.death) {
            (Phase::Dead | Phase::RemoveFailed { .. }, _) => {}
            (Phase::Launching | Phase::Removing, _) => {}
            (Phase::Starting { .. } | Phase::Up | Phase::Draining { .. }, Some(death)) => {
                self.died(hostname, death, now, rng);
            }
            (Phase::Starting { .. } | Phase::Up, None) if record.address != observed.address => {
                // Restarted by someone else: a new process at a new address, not ready yet.
                record.address = observed.address;
                record.phase = Phase::Starting { since: now };
                record.health = HealthTrack::new();
                record.ready_since = None;
                self.revision += 1;
            }
            (Phase::Starting { .. } | Phase::Up | Phase::Draining { .. }, None) => {}
        }
    }

    fn died(&mut self, hostname: &Hostname, death: Death, now: Instant, rng: &mut impl Rng) {
        let Some(record) = self.records.get_mut(hostname) else {
            return;
        };
        let (member, ready_since) = (record.member, record.ready_since);
        record.phase = Phase::Dead;
        record.ready_since = None;
        self.tell(hostname, member, What::Died(death));
        let failed = Failed::Died { hostname: hostname.clone(), death };
        self.seat_failed(member.and_then(MemberId::seat), failed, ready_since, now, rng);
        self.revision += 1;
    }

    fn vanished(&mut self, hostname: &Hostname, now: Instant, rng: &mut impl Rng) {
        let ended = self
            .records
            .get(hostname)
            .is_some_and(|record| matches!(record.phase, Phase::Dead | Phase::RemoveFailed { .. }));
        if !ended {
            self.died(hostname, Death::Vanished, now, rng);
        }
        self.forget(hostname);
        self.revision += 1;
    }

    /// A seat lost its replica or could not get one: its change fails, or it backs off.
    pub(super) fn seat_failed(
        &mut self,
        seat: Option<Seat>,
        failed: Failed,
        ready_since: Option<Instant>,
        now: Instant,
        rng: &mut impl Rng,
    ) {
        let Some((number, seat)) =
            seat.and_then(|number| Some((number, self.seats.get_mut(&number)?)))
        else {
            return;
        };
        match (seat.change, failed) {
            (Some(change), failed) => self.fail_change(change, failed),
            (None, Failed::Died { hostname, .. } | Failed::NeverReady { hostname, .. }) => {
                // One on a seat that has another by now does not count against it.
                let others = self.records.iter().any(|(name, record)| {
                    *name != hostname && record.seat() == Some(number) && record.runs()
                });
                if !others {
                    seat.previous = Some(hostname);
                    seat.not_before =
                        seat.backoff.fail(&self.config.backoff, ready_since, now, rng);
                }
            }
            // After a taken name a random one is tried: at once, since it is the first failure.
            (
                None,
                Failed::NameTaken(_)
                | Failed::Start { .. }
                | Failed::Remove { .. }
                | Failed::ShuttingDown,
            ) => {
                seat.not_before = seat.backoff.fail(&self.config.backoff, ready_since, now, rng);
            }
        }
    }

    /// Gives a replica that became ready its place in `/rep`.
    pub(super) fn join(&mut self, hostname: &Hostname) {
        let Some(record) = self.records.get_mut(hostname) else {
            return;
        };
        if record.joined.is_some() || !record.is_ready() {
            return;
        }
        let kept = match record.seat() {
            None => None,
            Some(seat) => match self.seats.get_mut(&seat) {
                Some(seat) if seat.on_ring => seat.join.take(),
                // On no ring yet: joins with its whole change.
                Some(_) | None => return,
            },
        };
        record.joined = Some(kept.unwrap_or(self.next_join));
        self.next_join += 1;
    }
}
