//! What is seen of single replicas: outcomes of starts and stops, probes, errors.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use rand::Rng;

use super::Roster;
use super::record::Record;
use crate::fleet::change::{Cause, Failed, chain};
use crate::fleet::event::{StartFailed, What};
use crate::fleet::health::{Ejection, Verdict};
use crate::fleet::observed::{Observed, Place};
use crate::fleet::plan::Phase;
use crate::fleet::reason::NotReady;
use crate::fleet::release::Release;
use crate::fleet::seat::Hostname;

impl Roster {
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
                record.address_error = observed.address_error;
                record.created = Some(observed.created);
                record.phase = Phase::Starting { since: now };
                record.health.observed(observed.condition, now);
                record.release = observed.release.completed(&self.config.release.spec);
                let (seat, release) = (record.seat(), record.release.clone());
                self.pin(&release);
                if let Some(seat) = seat.and_then(|seat| self.seats.get_mut(&seat)) {
                    seat.previous = Some(hostname.clone());
                }
                if let Some(death) = observed.condition.death() {
                    self.died(hostname, death, now, rng);
                }
            }
            Err(failure) => {
                let (place, release) = (record.place, record.release.clone());
                let failed = match &failure {
                    StartFailed::NameTaken => {
                        // Not ours, so there is nothing to remove.
                        self.forget(hostname);
                        Failed::NameTaken(hostname.clone())
                    }
                    StartFailed::Other(cause) => {
                        record.phase = Phase::StartFailed;
                        Failed::Start { hostname: hostname.clone(), source: cause.clone() }
                    }
                };
                self.tell(hostname, place, What::StartFailed(failure));
                self.place_failed(place, failed, None, &release, now, rng);
            }
        }
        self.revision += 1;
    }

    /// A mark was made, or could not be.
    pub fn marked(&mut self, hostname: &Hostname, result: Result<(), Cause>) {
        let stamp = self.next_tick();
        let Some(record) = self.records.get_mut(hostname) else { return };
        record.marking = false;
        record.stamp = stamp;
        let place = record.place;
        if let Err(cause) = result {
            self.tell(hostname, place, What::MarkFailed(cause));
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
        let place = record.place;
        match result {
            Ok(()) => {
                self.forget(hostname);
                self.tell(hostname, place, What::Removed);
            }
            Err(cause) => {
                record.stamp = stamp;
                record.phase = Phase::RemoveFailed { again };
                record.remove_error = Some(cause.clone());
                self.tell(hostname, place, What::RemoveFailed(cause));
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

    /// The runtime does not answer any more.
    pub fn runtime_lost(&mut self) {
        self.blind = true;
        self.revision += 1;
    }

    /// It answers again: that nothing could be started meanwhile was no seat's fault.
    pub fn runtime_back(&mut self, now: Instant) {
        self.blind = false;
        for seat in self.seats.values_mut() {
            if let Some(before) = seat.before_outage.take() {
                seat.backoff = before;
                seat.not_before = now;
            }
        }
        self.spares_not_before = None;
        self.revision += 1;
    }

    /// Takes the result of a health check of a replica at `address`; `why` says why it failed.
    pub fn probed(
        &mut self,
        hostname: &Hostname,
        address: SocketAddr,
        verdict: Verdict,
        why: Option<Arc<str>>,
        now: Instant,
    ) {
        let limits = self.config.health;
        let Some(record) = self.records.get_mut(hostname) else {
            return;
        };
        let runs = matches!(record.phase, Phase::Starting { .. } | Phase::Up);
        if runs && record.address == Some(address) {
            record.health.probed(verdict, limits, now);
            record.failed_check = why.map(|why| match verdict {
                Verdict::Refused => NotReady::Refused(why),
                Verdict::Good | Verdict::Bad => NotReady::Failed(why),
            });
            self.reassess(hostname, now);
        }
    }

    /// A replica has answered so many real requests with errors that it is to be ejected for some
    /// time; not where too many are already, nor the last one.
    pub fn erred(&mut self, hostname: &Hostname, now: Instant) {
        let outliers = self.config.outliers;
        let serves = |record: &&Record| {
            record.phase == Phase::Up && matches!(record.place, Place::Member(_))
        };
        let serving = || self.records.values().filter(serves);
        let out = serving().filter(|record| record.health.returns_at(now).is_some()).count();
        let ready = serving().filter(|record| record.is_ready() && record.is_enabled()).count();
        let allowed = (outliers.max_share * serving().count() as f64).floor().max(1.0);
        // During a rollout another replica on the same seat takes over at once.
        let place = self.records.get(hostname).map(|record| record.place);
        let covered = self.records.iter().any(|(name, record)| {
            name != hostname
                && record.place.member().is_some()
                && Some(record.place) == place
                && record.is_ready()
                && record.is_enabled()
        });
        let Some(record) = self.records.get_mut(hostname) else { return };
        if !record.is_ready() {
            return;
        }
        // One that is switched off serves nobody, so that the last one that does stays.
        let spared = ready < if record.is_enabled() { 2 } else { 1 };
        if !covered && (spared || (out + 1) as f64 > allowed) {
            // It stays in rotation, but its release is as bad as if it did not.
            return self.note_ejection(hostname, Ejection::Errors, now);
        }
        record.health.eject(&outliers, now);
        self.reassess(hostname, now);
    }

    /// A place lost its replica or could not get one: its change or its rolling update fails, or
    /// it backs off.
    pub(super) fn place_failed(
        &mut self,
        place: Place,
        failed: Failed,
        ready_since: Option<Instant>,
        release: &Release,
        now: Instant,
        rng: &mut impl Rng,
    ) {
        let backoff = self.config.backoff;
        if place == Place::Spare {
            let not_before = self.spare_backoff.fail(&backoff, ready_since, now, rng);
            self.spares_not_before = Some(not_before);
        }
        let rolls = self.note_failure(release, &failed, now);
        let Some((number, seat)) =
            place.seat().and_then(|number| Some((number, self.seats.get_mut(&number)?)))
        else {
            return;
        };
        seat.failure = Some(if let Failed::Died { hostname, death } = &failed {
            // It may have been ready before.
            format!("replica {:?} ended: {death}", hostname.as_str()).into()
        } else {
            chain(&failed).into()
        });
        if let Some(change) = seat.change {
            return self.fail_change(change, failed);
        }
        let others = match &failed {
            // One on a seat that has another by now does not count against it.
            Failed::Died { hostname, .. } | Failed::NeverReady { hostname, .. } => {
                seat.previous = Some(hostname.clone());
                self.records.iter().any(|(name, record)| {
                    name != hostname && record.seat() == Some(number) && record.runs()
                })
            }
            // After a taken name a random one is tried: at once, since it is the first failure.
            Failed::NameTaken(_)
            | Failed::Start { .. }
            | Failed::List { .. }
            | Failed::ListedAlready(_)
            | Failed::Unlisted(_)
            | Failed::RemovedElsewhere(_)
            | Failed::Remove { .. }
            | Failed::ShuttingDown => false,
        };
        if self.blind && matches!(failed, Failed::Start { .. }) {
            seat.before_outage.get_or_insert(seat.backoff);
        }
        if rolls || !others {
            seat.not_before = seat.backoff.fail(&backoff, ready_since, now, rng);
        }
    }

    /// Gives a replica that became ready its place in `/rep`.
    pub(super) fn join(&mut self, hostname: &Hostname) {
        let Some(record) = self.records.get_mut(hostname) else {
            return;
        };
        // One that an `/add` listed joins with its whole change.
        let waits = record.place == Place::Spare || record.change.is_some();
        if record.joined.is_some() || !record.is_ready() || waits {
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
