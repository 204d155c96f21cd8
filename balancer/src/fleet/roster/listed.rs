//! Listed replicas: they are neither started nor stopped, but come and go as they are listed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::record::{Leave, Record};
use super::{ChangeId, Effect, Pending, Roster};
use crate::fleet::change::{Change, Failed, Refused};
use crate::fleet::event::What;
use crate::fleet::listed::Server;
use crate::fleet::observed::Observed;
use crate::fleet::plan::{Phase, Why};
use crate::fleet::seat::{Hostname, MemberId};

/// An `/add` of servers that is not through.
#[derive(Debug)]
pub(super) struct Enlisting {
    /// In the order in which they join.
    servers: Vec<(Server, Answer)>,
    since: Instant,
    failed: Option<Failed>,
}

/// What the runtime has said of a server that is to be listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    None,
    Listed,
    Failed,
}

/// When nothing that stays is ready, those that are listed no more go on for so long, if others
/// were listed with that: a list that is replaced as a whole costs no request.
const HANDOVER: Duration = Duration::from_secs(5);

// === impl Enlisting ===

impl Enlisting {
    /// The first failure is the one that is told.
    pub(super) fn fail(&mut self, why: Failed) {
        self.failed.get_or_insert(why);
    }

    fn ids(&self) -> impl Iterator<Item = String> {
        self.servers.iter().map(|(server, _)| server.id())
    }
}

// === impl Roster ===

impl Roster {
    /// An `/add`, where replicas are listed.
    pub(super) fn add_listed(&mut self, change: Change, now: Instant) -> Result<ChangeId, Refused> {
        let Change { n, hostnames, servers } = change;
        if hostnames.len() > n {
            return Err(Refused::MoreNamesThanAdded);
        }
        self.may_enlist(n, &servers)?;
        let id = self.next_change();
        self.orders.extend(servers.iter().cloned().map(Effect::Enlist));
        let servers = servers.into_iter().map(|server| (server, Answer::None)).collect();
        let enlisting = Enlisting { servers, since: now, failed: None };
        self.changes.insert(id, Pending::Enlist(enlisting));
        self.revision += 1;
        Ok(id)
    }

    /// Whether `n` more servers may be listed.
    pub(super) fn may_enlist(&self, n: usize, servers: &[Server]) -> Result<(), Refused> {
        all_named(n, servers.len())?;
        let mut known: BTreeSet<String> = self.records.keys().map(id_of).collect();
        let known_before = known.len();
        known.extend(self.enlistings().flat_map(|(_, enlisting)| enlisting.ids()));
        let under_way = known.len() - known_before;
        let mut new = BTreeSet::new();
        for server in servers {
            if !new.insert(server.id()) {
                return Err(Refused::Repeated(server.hostname()));
            }
            if known.contains(&server.id()) {
                return Err(Refused::InUse(server.hostname()));
            }
        }
        self.room_for(n, self.listed_members().count() + under_way)
    }

    /// An `/rm`, where replicas are listed.
    pub(super) fn remove_listed(&mut self, change: Change) -> Result<ChangeId, Refused> {
        let Change { n, hostnames, servers: _ } = change;
        if hostnames.len() > n {
            return Err(Refused::MoreNamesThanRemoved);
        }
        all_named(n, hostnames.len())?;
        let leaving = self.replicas_of_all(&hostnames)?;
        let stamp = self.next_tick();
        let servers = leaving.keys().map(|server| Effect::Unlist(Hostname::listed(server)));
        self.orders.extend(servers);
        let hostnames: Vec<Hostname> = leaving.into_values().flatten().collect();
        for hostname in &hostnames {
            if let Some(record) = self.records.get_mut(hostname) {
                record.leaves = Some(Leave::AtOnce);
                record.stamp = stamp;
            }
        }
        let id = self.next_change();
        self.changes.insert(id, Pending::Remove { hostnames });
        self.revision += 1;
        Ok(id)
    }

    /// The servers that `/rm` means by these names, and their replicas.
    pub(super) fn replicas_of_all(
        &self,
        hostnames: &[Hostname],
    ) -> Result<BTreeMap<String, Vec<Hostname>>, Refused> {
        let mut leaving = BTreeMap::new();
        for hostname in hostnames {
            let (server, replicas) = self.replicas_of(hostname)?;
            if leaving.insert(server, replicas).is_some() {
                return Err(Refused::Repeated(hostname.clone()));
            }
        }
        Ok(leaving)
    }

    /// The server that `/rm` means by a name, and its replicas: all of its addresses go with it.
    fn replicas_of(&self, hostname: &Hostname) -> Result<(String, Vec<Hostname>), Refused> {
        let stay = || self.records.iter().filter(|(_, record)| record.stays());
        let of = |server: &str| -> Vec<Hostname> {
            let of = |name: &Hostname| id_of(name) == server;
            stay().filter(|(name, _)| of(name)).map(|(name, _)| name.clone()).collect()
        };
        let server = hostname.as_str().to_ascii_lowercase();
        let replicas = of(&server);
        if !replicas.is_empty() {
            return Ok((server, replicas));
        }
        if !stay().any(|(name, _)| name == hostname) {
            return Err(Refused::Unknown(hostname.clone()));
        }
        let server = id_of(hostname);
        match of(&server) {
            replicas if replicas.len() == 1 => Ok((server, replicas)),
            _ => Err(Refused::OneOfSeveral(hostname.clone())),
        }
    }

    /// The runtime has listed a server, or could not.
    pub fn enlisted(
        &mut self,
        server: &Server,
        result: Result<Vec<Observed>, Failed>,
        now: Instant,
    ) {
        let stamp = self.next_tick();
        let Some(id) = self.enlisting_of(&server.id()) else { return };
        let answer = if result.is_ok() { Answer::Listed } else { Answer::Failed };
        let mut over = true;
        if let Some(Pending::Enlist(enlisting)) = self.changes.get_mut(&id) {
            over = enlisting.failed.is_some();
            let asked = enlisting.servers.iter_mut().find(|(asked, _)| asked.id() == server.id());
            if let Some((_, given)) = asked {
                *given = answer;
            }
        }
        match result {
            Ok(replicas) if over => {
                self.orders.push(Effect::Withdraw(server.hostname()));
                // A listing that is under way may still have them.
                self.gone.extend(replicas.into_iter().map(|replica| (replica.hostname, stamp)));
            }
            Ok(replicas) => {
                for replica in replicas {
                    let hostname = replica.hostname.clone();
                    if !self.knows(&hostname) {
                        self.adopt(replica, now);
                    }
                    if let Some(record) = self.records.get_mut(&hostname) {
                        record.stamp = stamp;
                    }
                }
            }
            Err(why) => self.fail_enlisting(id, why),
        }
        self.revision += 1;
    }

    /// What to do for listed replicas now, and when to look again.
    pub(super) fn act_listed(&mut self, now: Instant) -> (Vec<Effect>, Option<Instant>) {
        let mut due = self.expire_enlistings(now);
        let mut effects = std::mem::take(&mut self.orders);
        let holds = self.holds(now);
        let (mut leaving, mut gone) = (Vec::new(), Vec::new());
        for (hostname, record) in &self.records {
            match (record.phase, record.leaves) {
                (Phase::Starting { .. } | Phase::Up, Some(Leave::By(time)))
                    if holds && now < time =>
                {
                    due = [due, Some(time)].into_iter().flatten().min();
                }
                (Phase::Starting { .. } | Phase::Up, Some(_)) => leaving.push(hostname.clone()),
                (Phase::Draining { until, idle }, _) if idle || until <= now => {
                    gone.push(hostname.clone());
                }
                (Phase::Draining { until, .. }, _) => {
                    due = [due, Some(until)].into_iter().flatten().min();
                }
                (Phase::Starting { .. } | Phase::Up, None) => {}
                // A listed one runs, or is none.
                (
                    Phase::Launching
                    | Phase::Made { .. }
                    | Phase::StartFailed
                    | Phase::Dead
                    | Phase::Removing
                    | Phase::RemoveFailed { .. },
                    _,
                ) => {}
            }
        }
        self.revision += (leaving.len() + gone.len()) as u64;
        for hostname in leaving {
            self.drain(hostname, Why::Unlisted, &mut effects, now);
        }
        if !gone.is_empty() {
            self.next_tick();
            effects.push(Effect::List);
        }
        for hostname in gone {
            let place = self.records.get(&hostname).map(|record| record.place);
            self.forget(&hostname);
            self.note_gone(&hostname);
            if let Some(place) = place {
                self.tell(&hostname, place, What::Removed);
            }
        }
        (effects, due)
    }

    /// One that an `/rm` waits for is gone; it may be listed again before the others are.
    fn note_gone(&mut self, hostname: &Hostname) {
        for pending in self.changes.values_mut() {
            match pending {
                Pending::Remove { hostnames } => hostnames.retain(|name| name != hostname),
                Pending::Add { .. } | Pending::Enlist(_) => {}
            }
        }
    }

    /// Whether those that are listed no more are to go on for now.
    fn holds(&self, now: Instant) -> bool {
        let mut staying = self.records.values().filter(|record| record.stays());
        let is_new = |record: &Record| match record.phase {
            Phase::Starting { since } => now < since + HANDOVER,
            Phase::Launching
            | Phase::Made { .. }
            | Phase::Up
            | Phase::Draining { .. }
            | Phase::StartFailed
            | Phase::Dead
            | Phase::Removing
            | Phase::RemoveFailed { .. } => false,
        };
        !staying.clone().any(Record::is_ready) && staying.any(is_new)
    }

    /// A listing has a replica that is known.
    pub(super) fn compare_listed(&mut self, observed: &Observed, now: Instant) {
        let Some(record) = self.records.get_mut(&observed.hostname) else { return };
        // What is leaving goes to its end, and is taken in anew after that.
        if !matches!(record.phase, Phase::Starting { .. } | Phase::Up) {
            return;
        }
        record.address_error.clone_from(&observed.address_error);
        if record.address.is_none() && record.leaves.is_none() && observed.address.is_some() {
            // Its name could not be resolved before.
            record.address = observed.address;
            record.place = observed.place;
            record.phase = Phase::Starting { since: now };
            self.revision += 1;
        }
        if record.address != observed.address || record.place != observed.place {
            record.leaves = Some(Leave::AtOnce);
            self.revision += 1;
        } else if record.leaves != Some(Leave::AtOnce) {
            let same = record.leaves.is_none() && record.weight == observed.weight;
            record.leaves = None;
            record.weight = observed.weight;
            self.revision += u64::from(!same);
        }
    }

    /// A listing does not have a replica any more.
    pub(super) fn unlisted(&mut self, hostname: &Hostname, now: Instant) {
        let Some(record) = self.records.get_mut(hostname) else { return };
        if record.leaves.is_some() {
            return;
        }
        let change = record.change;
        let by = Leave::By(now + HANDOVER);
        // A server without an address has no requests to finish.
        let at_once = change.is_some() || record.address.is_none();
        record.leaves = Some(if at_once { Leave::AtOnce } else { by });
        self.revision += 1;
        let server = id_of(hostname);
        let left = |(name, record): (&Hostname, &Record)| {
            record.change == change && record.leaves.is_none() && id_of(name) == server
        };
        if let Some(change) = change
            && !self.records.iter().any(left)
        {
            self.fail_enlisting(change, Failed::Unlisted(Hostname::listed(hostname.server())));
        }
    }

    /// A replica has come that an `/add` under way listed: it takes no requests until the whole
    /// change is through. When that has failed, what comes later is listed otherwise.
    pub(super) fn note_enlisted(&mut self, hostname: &Hostname) {
        let server = id_of(hostname);
        let change = self.enlistings().find_map(|(id, enlisting)| {
            let failed = enlisting.failed.is_some();
            let waits = |(asked, answer): &&(Server, Answer)| {
                asked.id() == server && (!failed || *answer == Answer::None)
            };
            enlisting.servers.iter().find(waits).map(|_| (id, failed))
        });
        if let (Some((id, failed)), Some(record)) = (change, self.records.get_mut(hostname)) {
            record.change = Some(id);
            record.leaves = failed.then_some(Leave::AtOnce);
        }
    }

    /// Whether an `/add` of servers is through, and how.
    pub(super) fn enlist_outcome(&mut self, id: ChangeId) -> Option<Result<(), Failed>> {
        let (_, enlisting) = self.enlistings().find(|(other, _)| *other == id)?;
        if let Some(failed) = &enlisting.failed {
            let answered = enlisting.servers.iter().all(|(_, answer)| *answer != Answer::None);
            let left = self.records.values().any(|record| record.change == Some(id));
            let failed = failed.clone();
            return (self.stopping || (answered && !left)).then(|| {
                self.changes.remove(&id);
                Err(failed)
            });
        }
        let through = |(server, answer): &(Server, Answer)| {
            let mut replicas = self.enlisted_by(id, server);
            *answer == Answer::Listed && replicas.next().is_some_and(|(_, r)| r.is_ready()) && {
                replicas.all(|(_, record)| record.is_ready())
            }
        };
        if !enlisting.servers.iter().all(through) {
            return None;
        }
        let servers = enlisting.servers.iter();
        let replicas = servers.flat_map(|(server, _)| self.enlisted_by(id, server));
        let hostnames: Vec<Hostname> = replicas.map(|(hostname, _)| hostname.clone()).collect();
        self.changes.remove(&id);
        for hostname in hostnames {
            if let Some(record) = self.records.get_mut(&hostname) {
                record.change = None;
            }
            self.join(&hostname);
        }
        self.revision += 1;
        Some(Ok(()))
    }

    /// The replicas of a server that an `/add` under way listed.
    fn enlisted_by(
        &self,
        id: ChangeId,
        server: &Server,
    ) -> impl Iterator<Item = (&Hostname, &Record)> {
        let server = server.id();
        self.records.iter().filter(move |(hostname, record)| {
            record.change == Some(id) && record.leaves.is_none() && id_of(hostname) == server
        })
    }

    fn enlistings(&self) -> impl Iterator<Item = (ChangeId, &Enlisting)> {
        self.changes.iter().filter_map(|(id, pending)| match pending {
            Pending::Enlist(enlisting) => Some((*id, enlisting)),
            Pending::Add { .. } | Pending::Remove { .. } => None,
        })
    }

    fn enlisting_of(&self, server: &str) -> Option<ChangeId> {
        let of = |(_, enlisting): &(ChangeId, &Enlisting)| enlisting.ids().any(|id| id == server);
        self.enlistings().find(of).map(|(id, _)| id)
    }

    /// Gives up what was not ready in time, and tells when the next one's time is up.
    fn expire_enlistings(&mut self, now: Instant) -> Option<Instant> {
        let within = self.config.start_deadline;
        let mut next: Option<Instant> = None;
        let mut late = Vec::new();
        for (id, enlisting) in self.enlistings().filter(|(_, change)| change.failed.is_none()) {
            let until = enlisting.since + within;
            if now < until {
                next = [next, Some(until)].into_iter().flatten().min();
                continue;
            }
            let unready = |(server, _): &&(Server, Answer)| {
                let mut replicas = self.enlisted_by(id, server).peekable();
                replicas.peek().is_none() || replicas.any(|(_, record)| !record.is_ready())
            };
            let first = enlisting.servers.iter().find(unready).map(|(server, _)| server);
            late.extend(first.map(|server| {
                let reason = self.enlisted_by(id, server).find_map(|(_, r)| r.not_ready());
                (id, server.hostname(), reason)
            }));
        }
        for (id, hostname, reason) in late {
            self.fail_enlisting(id, Failed::NeverReady { hostname, within, reason });
        }
        next
    }

    /// Undoes an `/add` of servers.
    fn fail_enlisting(&mut self, id: ChangeId, why: Failed) {
        let stamp = self.next_tick();
        let Some(Pending::Enlist(enlisting)) = self.changes.get_mut(&id) else { return };
        if enlisting.failed.is_some() {
            return;
        }
        enlisting.fail(why);
        let listed = enlisting.servers.iter().filter(|(_, answer)| *answer == Answer::Listed);
        self.orders.extend(listed.map(|(server, _)| Effect::Withdraw(server.hostname())));
        for record in self.records.values_mut().filter(|record| record.change == Some(id)) {
            record.leaves = Some(Leave::AtOnce);
            record.stamp = stamp;
        }
        self.revision += 1;
    }

    /// The listed members of the ring, with their weights, and how many tenths of their points are
    /// on it. What is leaving is none any more.
    pub(super) fn listed_members(&self) -> impl Iterator<Item = (MemberId, u32, u8)> {
        let mut members: BTreeMap<MemberId, (u32, u8)> = BTreeMap::new();
        for record in self.records.values().filter(|r| r.change.is_none() && r.runs()) {
            let Some(address @ MemberId::Address(_)) = record.place.member() else { continue };
            let own = (record.weight, record.tenths);
            // An address may leave under one name and come under another.
            let known = members.entry(address).or_insert(own);
            if record.leaves.is_none() {
                *known = own;
            }
        }
        members.into_iter().map(|(member, (weight, tenths))| (member, weight, tenths))
    }
}

/// The server of a replica, the same for all ways to write it.
fn id_of(hostname: &Hostname) -> String {
    hostname.server().to_ascii_lowercase()
}

fn all_named(n: usize, named: usize) -> Result<(), Refused> {
    if named == n { Ok(()) } else { Err(Refused::Unnamed { n, named }) }
}
