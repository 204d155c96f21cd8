//! `/add` and `/rm`: accepted or refused at once, through when the fleet is what they asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use rand::Rng;
use rand::seq::SliceRandom as _;

use super::record::Record;
use super::{ChangeId, Pending, Roster, SeatRecord};
use crate::fleet::change::{Change, Failed, Refused};
use crate::fleet::seat::{Hostname, Seat};

/// How many of a replica's successors are told apart from what somebody added, and how many such
/// names are kept: a thousand removals of late.
const SUCCESSORS: u64 = 4;
const DISMISSED_KEPT: usize = 4_096;

impl Roster {
    /// Accepts an `/add`, or says why not.
    ///
    /// # Errors
    /// [`Refused`]; nothing is changed then.
    pub fn add(&mut self, change: Change, now: Instant) -> Result<ChangeId, Refused> {
        if self.config.listed {
            return self.add_listed(change, now);
        }
        let Change { n, hostnames, servers: _ } = change;
        if hostnames.len() > n {
            return Err(Refused::MoreNamesThanAdded);
        }
        let mut slugs: BTreeSet<String> = self.records.keys().map(Hostname::slug).collect();
        slugs.extend(self.seats.values().filter_map(|seat| seat.name.as_ref()).map(Hostname::slug));
        let mut new = BTreeSet::new();
        for hostname in &hostnames {
            if !new.insert(hostname.slug()) {
                return Err(Refused::Repeated(hostname.clone()));
            }
            if slugs.contains(&hostname.slug()) {
                return Err(Refused::InUse(hostname.clone()));
            }
        }
        let seats = self.free_seats(n)?;
        let id = self.next_change();
        let mut names = hostnames.into_iter();
        for seat in &seats {
            let record = self.new_seat(now);
            let (name, change) = (names.next(), Some(id));
            let record = SeatRecord { on_ring: false, name, join: None, change, ..record };
            self.seats.insert(*seat, record);
        }
        self.changes.insert(id, Pending::Add { seats, failed: None });
        self.revision += 1;
        Ok(id)
    }

    /// Accepts an `/rm`, or says why not.
    ///
    /// # Errors
    /// [`Refused`]; nothing is changed then.
    pub fn remove(&mut self, change: Change, rng: &mut impl Rng) -> Result<ChangeId, Refused> {
        if self.config.listed {
            return self.remove_listed(change);
        }
        let Change { n, hostnames, servers: _ } = change;
        if hostnames.len() > n {
            return Err(Refused::MoreNamesThanRemoved);
        }
        let mut leaving = self.seats_of(&hostnames)?;
        let on_ring = || self.seats.iter().filter(|(_, seat)| seat.on_ring).map(|(seat, _)| *seat);
        let size = on_ring().count();
        if n > size {
            return Err(Refused::TooFew { size });
        }
        let ready: BTreeSet<Seat> =
            self.records.values().filter(|r| r.is_ready()).filter_map(Record::seat).collect();
        let mut rest: Vec<Seat> = on_ring().filter(|seat| !leaving.contains(seat)).collect();
        rest.shuffle(rng);
        rest.sort_by_key(|seat| ready.contains(seat));
        leaving.extend(rest.into_iter().take(n - hostnames.len()));

        let id = self.next_change();
        for seat in &leaving {
            if let Some(record) = self.seats.remove(seat) {
                self.dismiss_successors(*seat, record.previous);
            }
        }
        let hostnames = self
            .records
            .iter()
            .filter(|(_, record)| record.seat().is_some_and(|seat| leaving.contains(&seat)))
            .map(|(hostname, _)| hostname.clone())
            .collect();
        self.changes.insert(id, Pending::Remove { hostnames });
        self.revision += 1;
        Ok(id)
    }

    /// The seats of `n` more replicas: the smallest that nobody has.
    pub(super) fn free_seats(&self, n: usize) -> Result<Vec<Seat>, Refused> {
        self.room_for(n, self.seats.len())?;
        let occupied: BTreeSet<Seat> = self.records.values().filter_map(Record::seat).collect();
        let taken = |seat: Seat| self.seats.contains_key(&seat) || occupied.contains(&seat);
        let seats = Seat::smallest_free(taken, n);
        // A seat that a leaving replica still has is free for the ring already.
        let beyond = |capacity| seats.iter().any(|seat| seat.get() as usize > capacity);
        if self.config.capacity.is_some_and(beyond) {
            return Ok(Seat::smallest_free(|seat| self.seats.contains_key(&seat), n));
        }
        Ok(seats)
    }

    /// The seats of replicas that are to go.
    pub(super) fn seats_of(&self, hostnames: &[Hostname]) -> Result<BTreeSet<Seat>, Refused> {
        let mut leaving = BTreeSet::new();
        for hostname in hostnames {
            let seat =
                self.removable(hostname).ok_or_else(|| Refused::Unknown(hostname.clone()))?;
            if !leaving.insert(seat) {
                return Err(Refused::Repeated(hostname.clone()));
            }
        }
        Ok(leaving)
    }

    /// Whether there may be `n` more than `size`.
    pub(super) fn room_for(&self, n: usize, size: usize) -> Result<(), Refused> {
        if let Some(capacity) = self.config.capacity {
            let left = capacity.saturating_sub(size);
            if n > left {
                return Err(Refused::NoSeat { left, capacity });
            }
        }
        let most = self.config.max_replicas;
        let left = most.saturating_sub(size);
        if n > left {
            return Err(Refused::TooMany { left, size, most });
        }
        Ok(())
    }

    pub(super) fn next_change(&mut self) -> ChangeId {
        self.next_change += 1;
        ChangeId(self.next_change)
    }

    /// Where the last replica of a seat is dead, another balancer may just be replacing it.
    fn dismiss_successors(&mut self, seat: Seat, previous: Option<Hostname>) {
        let names =
            (0..SUCCESSORS).filter_map(|attempt| Some(previous.as_ref()?.successor(seat, attempt)));
        self.dismissed.extend(names);
        let too_many = self.dismissed.len().saturating_sub(DISMISSED_KEPT);
        self.dismissed.drain(..too_many);
    }

    /// Gives the whole fleet up: every change fails, every replica goes.
    pub fn stop_all(&mut self) {
        self.stopping = true;
        self.seats.clear();
        for pending in self.changes.values_mut() {
            match pending {
                Pending::Add { failed, .. } => {
                    failed.get_or_insert(Failed::ShuttingDown);
                }
                Pending::Enlist(enlisting) => enlisting.fail(Failed::ShuttingDown),
                Pending::Remove { .. } => {}
            }
        }
        self.revision += 1;
    }

    /// The changes that are through since the last call.
    pub fn finished(&mut self) -> Vec<(ChangeId, Result<(), Failed>)> {
        let ids: Vec<ChangeId> = self.changes.keys().copied().collect();
        ids.into_iter().filter_map(|id| Some((id, self.outcome(id)?))).collect()
    }

    /// Undoes an `/add`: its seats are not wanted any more.
    pub(super) fn fail_change(&mut self, id: ChangeId, why: Failed) {
        if let Some(Pending::Add { seats, failed }) = self.changes.get_mut(&id) {
            failed.get_or_insert(why);
            for seat in seats {
                self.seats.remove(seat);
            }
        }
    }

    /// Whether a change is through, and how. A change that is leaves the roster.
    fn outcome(&mut self, id: ChangeId) -> Option<Result<(), Failed>> {
        let outcome = match self.changes.get(&id)? {
            Pending::Enlist(_) => return self.enlist_outcome(id),
            Pending::Add { seats, failed: Some(failed) } => {
                let left = |record: &Record| {
                    record.seat().is_some_and(|seat| {
                        seats.contains(&seat) && !self.seats.contains_key(&seat)
                    }) && !record.is_stuck()
                };
                (!self.records.values().any(left)).then(|| Err(failed.clone()))
            }
            Pending::Add { seats, failed: None } => {
                let ready: BTreeMap<Seat, &Hostname> = self
                    .records
                    .iter()
                    .filter(|(_, record)| record.is_ready())
                    .filter_map(|(hostname, record)| Some((record.seat()?, hostname)))
                    .collect();
                let all: Option<Vec<(Seat, Hostname)>> =
                    seats.iter().map(|seat| Some((*seat, (*ready.get(seat)?).clone()))).collect();
                all.map(|all| {
                    self.join_ring(all);
                    Ok(())
                })
            }
            Pending::Remove { hostnames } => {
                let mut left = hostnames.iter().filter_map(|h| Some((h, self.records.get(h)?)));
                let stuck = left.clone().find(|(_, record)| record.is_stuck());
                let failed = stuck.and_then(|(hostname, record)| {
                    let source = record.remove_error.clone()?;
                    Some(Failed::Remove { hostname: hostname.clone(), source })
                });
                left.all(|(_, record)| record.is_stuck()).then(|| failed.map_or(Ok(()), Err))
            }
        };
        if outcome.is_some() {
            self.changes.remove(&id);
        }
        outcome
    }

    fn join_ring(&mut self, replicas: Vec<(Seat, Hostname)>) {
        for (seat, hostname) in replicas {
            if let Some(record) = self.seats.get_mut(&seat) {
                record.on_ring = true;
                record.change = None;
            }
            self.join(&hostname);
            // During a rollout another replica of the seat may take over from this one.
            let others = self.records.iter().filter(|(_, record)| record.seat() == Some(seat));
            let others: Vec<Hostname> = others.map(|(name, _)| name.clone()).collect();
            others.iter().for_each(|name| self.join(name));
        }
        self.revision += 1;
    }

    /// The seat that `/rm` means by a name: of the replica that has it, or had it until just now.
    fn removable(&self, hostname: &Hostname) -> Option<Seat> {
        let seat = self.records.get(hostname).and_then(Record::seat).or_else(|| {
            let replaced = |seat: &&Seat| {
                !self.records.values().any(|r| r.seat() == Some(**seat) && r.is_ready())
            };
            let mut seats = self.seats.iter();
            let before = seats.find(|(_, seat)| seat.previous.as_ref() == Some(hostname));
            before.map(|(seat, _)| seat).filter(replaced).copied()
        })?;
        self.seats.get(&seat).is_some_and(|record| record.on_ring).then_some(seat)
    }
}
