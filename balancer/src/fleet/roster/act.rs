//! What is to be done now: health reassessed, the plan made, its actions begun.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rand::Rng;

use super::record::{Record, WHOLE};
use super::{Effect, Roster};
use crate::fleet::change::Failed;
use crate::fleet::event::{Unready, What};
use crate::fleet::health::Health;
use crate::fleet::observed::Place;
use crate::fleet::plan::{self, Action, Desired, Fitness, Phase, Seen, Vacancy, Why};
use crate::fleet::seat::{Hostname, Seat};

/// How long an owned replica that starts may be in a condition that is usual at a start before that
/// is reported: a check interval, and at least this. Otherwise every start would be reported.
const USUAL_FOR: Duration = Duration::from_secs(1);

impl Roster {
    /// What is to be done now, and when to ask again if nothing happens before.
    pub fn act(&mut self, now: Instant, rng: &mut impl Rng) -> (Vec<Effect>, Option<Instant>) {
        let overdue = self.expire(now, rng);
        let (changed, reported) = (self.reassess_all(now), self.report_reasons(now));
        let due = [overdue, changed, reported].into_iter().flatten().min();
        if self.config.listed {
            let (effects, wake) = self.act_listed(now);
            return (effects, [wake, due].into_iter().flatten().min());
        }
        let due = [due, self.give_turns(now)].into_iter().flatten().min();
        let desired = self.desired();
        let good = if self.is_converged() { BTreeSet::new() } else { self.good_seats() };
        let observed =
            self.records.iter().map(|(hostname, record)| self.seen(hostname, record, &good, now));
        let plan = plan::plan(&desired, observed, now);
        let mut effects = Vec::new();
        let generation = self.target.generation();
        for action in plan.actions {
            // A start that was planned before a rolling update failed would run what failed.
            let starts = matches!(action, Action::Start(_) | Action::StartSpare);
            if !starts || self.target.generation() == generation {
                self.begin(action, &mut effects, now, rng);
            }
        }
        self.mark_again(&mut effects);
        self.advance_roll(now);
        (effects, [plan.wake, due].into_iter().flatten().min())
    }

    fn desired(&self) -> Desired {
        let vacancy = |(seat, record): (&Seat, &super::SeatRecord)| {
            let (not_before, named) = (record.not_before, record.name.is_some());
            (*seat, Vacancy { not_before, named, current: self.is_current((*seat).into()) })
        };
        Desired {
            seats: self.seats.iter().map(vacancy).collect(),
            spares: if self.stopping { 0 } else { self.config.spares },
            spares_not_before: self.spares_not_before,
        }
    }

    /// `good` are the seats with a replica of the release that seats keep until their turn.
    fn seen<'a>(
        &'a self,
        hostname: &'a Hostname,
        record: &Record,
        good: &BTreeSet<Seat>,
        now: Instant,
    ) -> Seen<'a> {
        let phase = match record.phase {
            Phase::Draining { until, idle } => {
                Phase::Draining { until, idle: idle && !record.marking }
            }
            Phase::Launching
            | Phase::Made { .. }
            | Phase::Starting { .. }
            | Phase::Up
            | Phase::StartFailed
            | Phase::Dead
            | Phase::Removing
            | Phase::RemoveFailed { .. } => record.phase,
        };
        let current = record.release.fits(&self.target);
        let fitness = match record.hung {
            true => Fitness::Hung,
            false if current || self.may_wait(record, good) => Fitness::Fit,
            false => Fitness::Stale,
        };
        Seen {
            hostname,
            place: record.place,
            phase,
            created: record.created,
            ready: record.is_ready(),
            proven: self.is_proven(record, now),
            current,
            fitness,
            elsewhere: record.foreign_until.filter(|_| !self.stopping),
        }
    }

    /// Reports whether a replica that does not run the wanted release stays until its seat has its
    /// turn. What a superseded rollout left beside a good replica does not.
    fn may_wait(&self, record: &Record, good: &BTreeSet<Seat>) -> bool {
        let is_good = record.release.fits(&self.good);
        match record.place {
            Place::Member(_) => {
                let turn = record.seat().and_then(|seat| self.seats.get(&seat)?.turn);
                let outbid = record.seat().is_some_and(|seat| good.contains(&seat));
                turn != Some(self.target.generation()) && (is_good || !outbid)
            }
            Place::Spare | Place::Unknown => is_good && !self.is_current(record.place),
        }
    }

    fn begin(
        &mut self,
        action: Action,
        effects: &mut Vec<Effect>,
        now: Instant,
        rng: &mut impl Rng,
    ) {
        self.revision += 1;
        match action {
            Action::Start(seat) => {
                let hostname = self.name_for(seat, rng);
                self.launch(hostname, seat.into(), effects);
            }
            Action::StartSpare => {
                let hostname = self.random_name(rng);
                self.launch(hostname, Place::Spare, effects);
            }
            Action::Resume(hostname) => {
                if let Some(record) = self.records.get_mut(&hostname) {
                    record.phase = Phase::Launching;
                    let (place, release) = (record.place, record.release.clone());
                    self.tell(&hostname, place, What::Starting);
                    effects.push(Effect::Start(place, hostname, release));
                }
            }
            Action::Seat(hostname, seat) => self.seat_spare(hostname, seat, effects, now),
            Action::Drain(hostname, why) => self.drain(hostname, why, effects, now),
            Action::Remove(hostname, why) => {
                if let Some(record) = self.records.get_mut(&hostname) {
                    record.phase = Phase::Removing;
                    effects.push(match why {
                        Why::Hung => Effect::Kill(hostname),
                        Why::Unwanted
                        | Why::Unlisted
                        | Why::Duplicate
                        | Why::Replaced
                        | Why::Dead
                        | Why::Drained => Effect::Remove(hostname),
                    });
                }
            }
        }
    }

    fn launch(&mut self, hostname: Hostname, place: Place, effects: &mut Vec<Effect>) {
        let release = self.release_for(place).clone();
        let record = Record::launching(place, release.clone(), self.tick);
        self.records.insert(hostname.clone(), record);
        self.gone.retain(|(name, _)| *name != hostname);
        self.tell(&hostname, place, What::Starting);
        effects.push(Effect::Start(place, hostname, release));
    }

    fn seat_spare(
        &mut self,
        hostname: Hostname,
        seat: Seat,
        effects: &mut Vec<Effect>,
        now: Instant,
    ) {
        // What a listing under way says of its place is out of date.
        let stamp = self.next_tick();
        let Some(record) = self.records.get_mut(&hostname) else { return };
        record.stamp = stamp;
        record.marking = true;
        self.take_seat(&hostname, seat, now);
        effects.push(Effect::MarkSeated(hostname, seat));
    }

    /// A spare has this seat from now on.
    pub(super) fn take_seat(&mut self, hostname: &Hostname, seat: Seat, now: Instant) {
        let Some(record) = self.records.get_mut(hostname) else { return };
        record.place = seat.into();
        record.joined = None;
        let place = record.place;
        self.tell(hostname, place, What::Seated(seat));
        if let Some(seat) = self.seats.get_mut(&seat) {
            seat.previous = Some(hostname.clone());
        }
        self.warm(hostname, now);
        self.join(hostname);
        self.revision += 1;
    }

    pub(super) fn drain(
        &mut self,
        hostname: Hostname,
        why: Why,
        effects: &mut Vec<Effect>,
        now: Instant,
    ) {
        let until = now + self.config.drain_deadline;
        let Some(record) = self.records.get_mut(&hostname) else { return };
        record.phase = Phase::Draining { until, idle: false };
        // Whoever lists a listed one next need not know that it is about to be stopped.
        record.marking = !self.config.listed;
        let place = record.place;
        self.tell(&hostname, place, What::Draining(why));
        if !self.config.listed {
            effects.push(if self.stopping {
                Effect::MarkStopping(hostname.clone())
            } else {
                Effect::MarkLeaving(hostname.clone())
            });
        }
        effects.push(Effect::Drain(hostname));
    }

    /// Places of former spares that could not be written down are tried again.
    fn mark_again(&mut self, effects: &mut Vec<Effect>) {
        for (hostname, record) in &mut self.records {
            if let (true, Some(seat)) = (record.unmarked, record.place.seat()) {
                record.unmarked = false;
                record.marking = true;
                effects.push(Effect::MarkSeated(hostname.clone(), seat));
            }
        }
    }

    /// The name of a seat's next replica: the one that was asked for, or one that follows from who
    /// was there before.
    fn name_for(&mut self, seat: Seat, rng: &mut impl Rng) -> Hostname {
        let asked = self.seats.get_mut(&seat).and_then(|record| record.name.take());
        let previous = self.seats.get(&seat).and_then(|record| record.previous.clone());
        let free = |name: &Hostname| !self.in_use(name);
        let name = asked.filter(free).or_else(|| {
            let previous = previous?;
            let names = (0..64).map(|attempt| previous.successor(seat, attempt));
            names.into_iter().find(|name| self.is_free(name))
        });
        let name = name.unwrap_or_else(|| self.random_name(rng));
        if let Some(record) = self.seats.get_mut(&seat) {
            record.previous.get_or_insert_with(|| name.clone());
        }
        name
    }

    fn random_name(&self, rng: &mut impl Rng) -> Hostname {
        loop {
            let name = Hostname::random(rng);
            if self.is_free(&name) {
                return name;
            }
        }
    }

    fn is_free(&self, name: &Hostname) -> bool {
        let reserved = self.seats.values().any(|seat| seat.name.as_ref() == Some(name));
        let gone = self.gone.iter().any(|(gone, _)| gone == name);
        !reserved && !gone && !self.in_use(name)
    }

    fn in_use(&self, hostname: &Hostname) -> bool {
        let slug = hostname.slug();
        self.records.keys().any(|name| name.slug() == slug)
    }

    // === health ===

    /// Gives up those that were not ready in time, and tells when the next one's time is up.
    fn expire(&mut self, now: Instant, rng: &mut impl Rng) -> Option<Instant> {
        let deadline = self.config.start_deadline;
        let mut next = None;
        let mut late = Vec::new();
        for (hostname, record) in &mut self.records {
            let (Phase::Starting { since } | Phase::Made { since }) = record.phase else {
                continue;
            };
            if self.config.listed || record.foreign_until.is_some() {
                continue;
            }
            if since + deadline <= now {
                let reason = record.not_ready();
                record.phase = Phase::Dead;
                late.push((hostname.clone(), record.place, record.release.clone(), reason));
            } else {
                next = [next, Some(since + deadline)].into_iter().flatten().min();
            }
        }
        for (hostname, place, release, reason) in late {
            self.tell(&hostname, place, What::NeverReady(reason.clone()));
            let failed = Failed::NeverReady { hostname, within: deadline, reason };
            self.place_failed(place, failed, None, &release, now, rng);
            self.revision += 1;
        }
        next
    }

    /// Follows what time alone changes: ends of ejections, deadlines, growing shares. Tells when
    /// something changes next.
    fn reassess_all(&mut self, now: Instant) -> Option<Instant> {
        let changed: Vec<Hostname> = self
            .records
            .iter()
            .filter(|(_, record)| record.health.health(now) != record.standing)
            .map(|(hostname, _)| hostname.clone())
            .collect();
        for hostname in changed {
            self.reassess(&hostname, now);
        }
        self.reassess_panic(now);
        let hung = self.reassess_hung(now);
        let slow_start = self.config.slow_start;
        let mut due = hung;
        let mut grown = false;
        for record in self.records.values_mut().filter(|record| record.phase == Phase::Up) {
            let (tenths, next) = record.share(slow_start, now);
            grown |= tenths != record.tenths;
            record.tenths = tenths;
            if tenths == WHOLE {
                record.warming_since = None;
            }
            due = [due, next, record.health.returns_at(now)].into_iter().flatten().min();
        }
        self.revision += u64::from(grown);
        due
    }

    /// Draws the consequences of what is known of a replica's health.
    pub(super) fn reassess(&mut self, hostname: &Hostname, now: Instant) {
        let Some(record) = self.records.get_mut(hostname) else { return };
        let health = record.health.health(now);
        if health == record.standing || !matches!(record.phase, Phase::Starting { .. } | Phase::Up)
        {
            return;
        }
        let (before, place) = (record.standing, record.place);
        record.standing = health;
        self.revision += 1;
        match health {
            Health::Starting => record.ready_since = None,
            Health::Ready => {
                let begins = record.phase != Phase::Up;
                record.phase = Phase::Up;
                record.ready_since = Some(now);
                let foreign = record.foreign_until.take().is_some();
                // One that replaces what was removed here goes, too, and all know by its mark.
                let claims = place.seat().filter(|_| foreign && !self.dismissed.contains(hostname));
                self.tell(hostname, place, What::Ready);
                if let Some(seat) = claims {
                    self.claim(seat, false, now);
                }
                if let Some(seat) = place.seat().and_then(|seat| self.seats.get_mut(&seat)) {
                    seat.failure = None;
                }
                if begins {
                    self.warm(hostname, now);
                }
                self.join(hostname);
            }
            Health::Ejected(why) => {
                record.ready_since = None;
                // A change of the reason of an ejected replica is reported by itself.
                if !matches!(before, Health::Ejected(_)) {
                    let reason = record.not_ready();
                    record.reports.note(reason.clone());
                    self.tell(hostname, place, What::Ejected(why, reason));
                    self.note_ejection(hostname, why, now);
                }
            }
        }
    }

    /// Reports the replicas whose reason for not being ready is another than the last one that was
    /// reported. Returns when the next report is due that has to wait.
    fn report_reasons(&mut self, now: Instant) -> Option<Instant> {
        let usual_for = self.config.check_interval.max(USUAL_FOR);
        let (mut due, mut changed) = (None, Vec::new());
        for (hostname, record) in &mut self.records {
            let Some(reason) = record.not_ready() else {
                if record.is_ready() {
                    record.reports.clear();
                }
                continue;
            };
            if record.reports.has_reported(&reason) {
                continue;
            }
            let usual = !self.config.listed && reason.is_usual_at_start();
            let reported = match record.phase {
                Phase::Starting { since } if usual && since + usual_for > now => {
                    Err(since + usual_for)
                }
                Phase::Starting { .. }
                | Phase::Up
                | Phase::Launching
                | Phase::Made { .. }
                | Phase::Draining { .. }
                | Phase::StartFailed
                | Phase::Dead
                | Phase::Removing
                | Phase::RemoveFailed { .. } => record.reports.report(&reason, now),
            };
            match reported {
                Ok(()) => {
                    let ejected = record.phase == Phase::Up;
                    let unready = Unready { reason, ejected };
                    changed.push((hostname.clone(), record.place, What::NotReady(unready)));
                }
                Err(at) => due = [due, Some(at)].into_iter().flatten().min(),
            }
        }
        for (hostname, place, what) in changed {
            self.tell(&hostname, place, what);
        }
        due
    }

    /// When most replicas that run look bad at once, the probe is likelier to be wrong (Envoy's
    /// panic threshold).
    fn reassess_panic(&mut self, now: Instant) {
        let Some(share) = self.config.panic else { return };
        let on_ring = |record: &&Record| match record.place {
            Place::Member(_) => record.phase == Phase::Up,
            Place::Spare | Place::Unknown => false,
        };
        let up = || self.records.values().filter(on_ring);
        let bad = up().filter(|record| record.standing.is_doubtful()).count();
        let good = up().filter(|record| record.is_ready()).count();
        let all = good + bad;
        // Where nobody says that they run, there is nothing to believe.
        let panicking = !self.blind && bad > 0 && bad as f64 > share * all as f64;
        if panicking != self.panicking {
            self.panicking = panicking;
            self.revision += 1;
            // Those that are not back yet have their time again: their silence was in doubt.
            let doubtful = |r: &&mut Record| r.standing.is_doubtful() && !r.hung;
            for record in self.records.values_mut().filter(doubtful) {
                record.health.forgive_silence(now);
            }
            self.tell_all(if panicking { What::Panic { bad, all } } else { What::PanicOver });
        }
    }

    /// Finds those that have not answered for too long, and tells when the next one will have.
    /// While most look bad, none is replaced for its probes alone, unless it is the only one.
    fn reassess_hung(&mut self, now: Instant) -> Option<Instant> {
        if self.config.listed {
            return None;
        }
        let doubtful = self.records.values().filter(|record| record.standing.is_doubtful()).count();
        let withheld = self.panicking && doubtful > 1;
        let (after, blind) = (self.config.replace_after, self.blind);
        let mut due = None;
        let mut newly = Vec::new();
        for (hostname, record) in &mut self.records {
            let silent = match record.phase {
                Phase::Up if blind || (withheld && record.standing.is_doubtful()) => None,
                Phase::Up => record.health.silent_since(),
                Phase::Launching
                | Phase::Made { .. }
                | Phase::Starting { .. }
                | Phase::Draining { .. }
                | Phase::StartFailed
                | Phase::Dead
                | Phase::Removing
                | Phase::RemoveFailed { .. } => None,
            };
            let hung = silent.is_some_and(|since| since + after <= now);
            if hung && !record.hung {
                newly.push((hostname.clone(), record.place));
            }
            self.revision += u64::from(hung != record.hung);
            record.hung = hung;
            let next = silent.map(|since| since + after).filter(|at| *at > now);
            due = [due, next].into_iter().flatten().min();
        }
        for (hostname, place) in newly {
            self.tell(&hostname, place, What::Hung);
        }
        due
    }

    /// Begins a newcomer's share, unless the whole fleet is new, or it takes over from another one
    /// whose keys would move to other seats and back.
    fn warm(&mut self, hostname: &Hostname, now: Instant) {
        let first = |seat: &mut super::SeatRecord| std::mem::take(&mut seat.first);
        let Some(seat) = self.records.get(hostname).and_then(Record::seat) else { return };
        let first = self.seats.get_mut(&seat).is_some_and(first);
        let takes_over = self.records.iter().any(|(name, record)| {
            name != hostname && record.seat() == Some(seat) && record.phase == Phase::Up
        });
        let Some(record) = self.records.get_mut(hostname) else { return };
        let slow = !self.config.slow_start.is_zero() && !first && !takes_over && !record.adopted;
        record.warming_since = slow.then_some(now);
        (record.tenths, _) = record.share(self.config.slow_start, now);
    }
}
