//! This balancer as a member of its pool: it joins, renews its lease, and leaves. Decisions are
//! made in [`members`](crate::fleet::members).

use std::time::{Duration, Instant, SystemTime};

use thiserror::Error;
use tokio::time::{sleep, timeout_at};
use tracing::{debug, info, warn};

use super::tasks::Outcome;
use super::{Supervisor, answer};
use crate::config::Config;
use crate::fleet::event::What;
use crate::fleet::members::{
    EXPIRES_AFTER, Join, Lease, Leave, Member, Members, News, Origin, RENEW_EVERY, Stage, Wanted,
};
use crate::fleet::release::Spec;
use crate::fleet::roster::{Begin, Roster};
use crate::runtime::{Pool, Runtime, RuntimeError};
use crate::state::{ChangeError, MemberStatus, PoolStatus, Reply};
use crate::telemetry::chain;

/// How often leases are looked at while a decision waits for them.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How long a start waits for balancers that are stopping: longer than a stop may take.
const JOIN_WITHIN: Duration = Duration::from_secs(60);

/// How long a stop may take to decide which balancer removes the replicas: a lease expires meanwhile. It takes
/// half of the time that the shutdown has left at most: the removal needs the rest.
const DECIDE_WITHIN: Duration = Duration::from_secs(10);

/// How long a balancer that leaves the replicas to others may take to undo its unfinished changes.
const PART_WITHIN: Duration = Duration::from_secs(5);

/// How long the last calls about leases may take together.
const FINISH_WITHIN: Duration = Duration::from_secs(4);

/// Why a balancer cannot join its pool.
#[derive(Debug, Error)]
pub enum JoinError {
    /// The runtime cannot be asked.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// Another balancer holds the pool.
    #[error("pool {pool:?} is held by another balancer: {member}; {hint}")]
    Held {
        /// The pool.
        pool: String,
        /// The other balancer.
        member: Member,
        /// What the user may do.
        hint: &'static str,
    },
}

/// See the module.
pub(super) struct Membership {
    pool: Pool,
    /// The fingerprint of the configuration.
    config: String,
    bounds: Bounds,
    members: Members,
    /// The lease that was written last, or is being written.
    lease: Lease,
    renewing: bool,
    /// Another renewal follows at once the one under way.
    again: bool,
    due: Instant,
    /// The last renewal failed.
    failing: bool,
    /// The stage of the last renewal that went well.
    told: Option<Stage>,
    /// The roster's revision of which the wanted fleet was noted.
    noted: Option<u64>,
    /// Counts the wanted fleets; and the last one whose writing was tried.
    version: u64,
    written: u64,
    /// Answers that wait until the wanted fleet of this version is written.
    held: Vec<(u64, Box<dyn FnOnce()>)>,
}

/// How far the end of a balancer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// It was not told to end.
    No,
    /// It decides whether it is the last of its pool.
    Deciding { until: Instant },
    /// It leaves the replicas to others, and undoes what it has begun.
    Parting { until: Instant },
    /// It removes the replicas, until the end of the shutdown.
    Removing,
}

/// The configured size of the fleet. A fleet that was requested under other bounds may not fit into
/// these.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    replicas: usize,
    max_replicas: usize,
    capacity: Option<usize>,
}

// === impl Bounds ===

impl Bounds {
    fn of(config: &Config) -> Self {
        let Config { replicas, max_replicas, .. } = *config;
        Self { replicas, max_replicas, capacity: config.placement.capacity() }
    }

    /// Returns the fingerprint of a configuration with these bounds, by which the next start sees
    /// whether it has changed.
    fn config_of(self, spec: &Spec) -> String {
        let Self { replicas, max_replicas, capacity } = self;
        format!("{}-{replicas}-{max_replicas}-{capacity:?}", spec.fingerprint())
    }
}

// === impl Membership ===

impl Membership {
    /// Joins the pool of the runtime. Returns `None` as the membership for a runtime that no other
    /// balancer can share; and where the first fleet comes from.
    ///
    /// # Errors
    /// When a living balancer holds the pool and one of the two does not share it.
    pub(super) async fn join<R: Runtime>(
        runtime: &R,
        settings: &Config,
    ) -> Result<(Option<Self>, Begin), JoinError> {
        let replicas = settings.replicas;
        let Some(pool) = runtime.pool().await? else {
            return Ok((None, Begin::Found(replicas)));
        };
        let mut members = Members::new(&pool.name, pool.me.clone());
        let mut lease = Lease {
            pool: pool.name.clone(),
            key: pool.me.clone(),
            address: pool.address.clone(),
            started: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            sequence: 0,
            shared: pool.shared,
            stage: Stage::Joining,
            adopts_earlier: pool.earlier.is_some(),
            wanted: None,
        };
        let leases = match wait_to_join(runtime, &pool, &mut members, &mut lease).await {
            Err(held @ JoinError::Held { .. }) => {
                // The network may have been made for this balancer alone.
                if let Err(error) = runtime.close().await {
                    debug!(error = chain(&error), "runtime could not be closed cleanly");
                }
                return Err(held);
            }
            joined => joined?,
        };
        members.supersede();
        let bounds = Bounds::of(settings);
        let config = bounds.config_of(&settings.runtime.spec());
        let origin = members.origin(&leases, &config);
        log_origin(&origin, replicas);
        lease.wanted = match &origin {
            Origin::Requested(wanted) | Origin::Changed(wanted) => Some(wanted.clone()),
            Origin::Members(wanted) => wanted.clone(),
            Origin::NoLease => None,
        };
        (lease.stage, lease.sequence) = (Stage::Serving, lease.sequence + 1);
        runtime.write_lease(&lease).await?;
        if lease.adopts_earlier {
            runtime.adopt_earlier();
            info!(pool = pool.name, "containers of an earlier version are adopted");
        }
        info!(pool = pool.name, member = pool.me.identity, shared = pool.shared, "pool joined");
        let membership = Self {
            pool,
            config,
            bounds,
            members,
            lease,
            renewing: false,
            again: false,
            due: Instant::now(),
            failing: false,
            told: None,
            noted: None,
            version: 0,
            written: 0,
            held: Vec::new(),
        };
        Ok((Some(membership), Begin::from_origin(&origin, replicas)))
    }

    /// Takes another configuration of what replicas run: the fleet is wanted under this one now.
    pub(super) fn configure(&mut self, spec: &Spec) {
        self.config = self.bounds.config_of(spec);
        self.noted = None;
    }

    /// Returns when the lease is to be renewed next.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Returns the pool as it is shown.
    pub(super) fn status(&self) -> PoolStatus {
        let status = |lease: &Lease, own| MemberStatus {
            id: lease.key.identity.clone(),
            address: lease.address.clone(),
            own,
            stage: lease.stage.name(),
        };
        let others = self.members.living().map(|lease| status(lease, false));
        PoolStatus {
            name: self.pool.name.clone(),
            shared: self.pool.shared,
            members: std::iter::once(status(&self.lease, true)).chain(others).collect(),
        }
    }

    /// Notes the fleet that is wanted now. Returns whether it has changed, so that the lease is to
    /// be renewed at once.
    fn note(&mut self, roster: &Roster) -> bool {
        let revision = roster.revision();
        if self.lease.stage != Stage::Serving || self.noted == Some(revision) {
            return false;
        }
        self.noted = Some(revision);
        let (seats, release) = (roster.wanted_seats(), roster.wanted_release());
        let same = |wanted: &&Wanted| wanted.seats == seats && wanted.release == *release;
        let own = self.lease.wanted.as_ref();
        if own.filter(same).is_some_and(|wanted| wanted.config == self.config) {
            return false;
        }
        let others = self.members.living().filter_map(|lease| lease.wanted.as_ref());
        let latest = others.chain(own).max_by_key(|wanted| wanted.revision);
        let revision = match latest {
            Some(latest) if same(&latest) => latest.revision,
            Some(latest) => latest.revision + 1,
            None => 1,
        };
        let (config, release) = (self.config.clone(), release.clone());
        self.lease.wanted = Some(Wanted { revision, config, seats, release });
        self.version += 1;
        true
    }

    /// Calls `then` once the wanted fleet of now is written, or could not be.
    fn once_written(&mut self, then: Box<dyn FnOnce()>) {
        if self.written >= self.version {
            then();
        } else {
            self.held.push((self.version, then));
        }
    }

    /// Takes the outcome of a renewal that wrote the wanted fleet of `version`. Returns what has
    /// changed.
    fn renewed(
        &mut self,
        version: u64,
        stage: Stage,
        result: Result<Vec<Lease>, RuntimeError>,
        now: Instant,
    ) -> Vec<News> {
        self.renewing = false;
        self.written = version;
        let (due, held) = self.held.drain(..).partition(|(of, _)| *of <= version);
        self.held = held;
        let due: Vec<(u64, Box<dyn FnOnce()>)> = due;
        due.into_iter().for_each(|(_, then)| then());
        let decides = self.lease.stage == Stage::Leaving;
        self.due = now + if decides { LOOK_EVERY } else { RENEW_EVERY };
        match result {
            Ok(leases) => {
                if std::mem::take(&mut self.failing) {
                    info!("lease renewed again");
                }
                self.told = Some(stage);
                let news = self.members.observe(&leases, now);
                if self.lease.stage == Stage::Leaving && stage != Stage::Leaving {
                    // A renewal from before the own stage was written proves nothing.
                    self.members.doubt();
                }
                news
            }
            Err(error) => {
                self.told = None;
                if !std::mem::replace(&mut self.failing, true) {
                    warn!(error = chain(&error), "lease could not be renewed; it is tried again");
                }
                Vec::new()
            }
        }
    }

    /// Begins to leave: the other members have to show that they live.
    fn leave(&mut self) {
        self.lease.stage = Stage::Leaving;
        self.told = None;
        self.members.doubt();
    }

    /// Decides about the replicas. `late` tells that there is no more time.
    fn decide(&self, late: bool) -> Leave {
        let others = || self.members.living().any(|lease| lease.stage != Stage::Leaving);
        let as_known = || if others() { Leave::ToOthers } else { Leave::Last };
        match self.told {
            Some(Stage::Leaving) => match self.members.leave() {
                Leave::NotYet if late => as_known(),
                decided @ (Leave::ToOthers | Leave::NotYet | Leave::Last) => decided,
            },
            // The engine does not answer: what was known before has to do.
            _ if late || self.failing => as_known(),
            _ => Leave::NotYet,
        }
    }

    fn first_other(&self) -> Option<Member> {
        self.members.living().next().map(Member::from)
    }
}

/// Looks at the leases until the balancer may join, with its own lease among them. Returns the
/// leases that were seen last.
async fn wait_to_join<R: Runtime>(
    runtime: &R,
    pool: &Pool,
    members: &mut Members,
    lease: &mut Lease,
) -> Result<Vec<Lease>, JoinError> {
    let (began, mut written, mut waits) = (Instant::now(), false, false);
    loop {
        let leases = runtime.leases().await?;
        members.observe(&leases, Instant::now());
        let adopts = match pool.earlier.filter(|_| lease.adopts_earlier && written) {
            Some(earlier) => members.may_adopt(earlier),
            None => Some(lease.adopts_earlier),
        };
        let mut join = members.join(pool.shared, written);
        if let Join::NotYet = join
            && began.elapsed() > JOIN_WITHIN
        {
            join = members
                .living()
                .next()
                .map_or(Join::NotYet, |it| Join::Refused(Box::new(it.clone())));
        }
        match (join, adopts) {
            (Join::Refused(other), _) => {
                if written && let Err(error) = runtime.remove_lease(lease).await {
                    debug!(%error, "lease could not be removed; it expires");
                }
                return Err(held(pool, &other));
            }
            (Join::Yes, Some(adopts)) if written => {
                if lease.adopts_earlier && !adopts {
                    info!("containers of an earlier version belong to another balancer");
                }
                lease.adopts_earlier = adopts;
                return Ok(leases);
            }
            // The decision is made anew with the own lease in place.
            (Join::Yes, _) => {
                let before = written.then(|| lease.clone());
                lease.sequence += 1;
                runtime.write_lease(lease).await?;
                if let Some(before) = before {
                    runtime.remove_lease(&before).await?;
                    sleep(LOOK_EVERY).await;
                }
                written = true;
            }
            (Join::NotYet, _) => {
                if !std::mem::replace(&mut waits, true) {
                    let member = members.living().next().map(|it| Member::from(it).to_string());
                    info!(
                        pool = pool.name,
                        member,
                        within_ms = EXPIRES_AFTER.as_millis() as u64,
                        "waiting: a lease of another balancer is renewed or expires"
                    );
                }
                if written {
                    let before = lease.clone();
                    lease.sequence += 1;
                    runtime.write_lease(lease).await?;
                    runtime.remove_lease(&before).await?;
                }
                sleep(LOOK_EVERY).await;
            }
        }
    }
}

fn held(pool: &Pool, other: &Lease) -> JoinError {
    let hint = match (pool.shared, other.shared) {
        (_, _) if matches!(other.stage, Stage::Leaving | Stage::Removing) => {
            "it is stopping; start again when it has ended"
        }
        (true, _) => "it does not share the pool: start it with 'shared = true', too",
        (false, true) => "set 'shared = true' to join it, or another 'pool'",
        (false, false) => "set another 'pool', or the same 'pool' and 'shared = true' at both",
    };
    JoinError::Held { pool: pool.name.clone(), member: Member::from(other), hint }
}

fn log_origin(origin: &Origin, replicas: usize) {
    match origin {
        Origin::NoLease => {}
        Origin::Members(_) => info!("other balancers serve the pool: their fleet applies"),
        Origin::Requested(wanted) => info!(
            replicas = wanted.seats.0.len(),
            generation = wanted.release.generation(),
            "last requested fleet restored: the configuration is unchanged"
        ),
        Origin::Changed(wanted) => info!(
            replicas,
            requested = wanted.seats.0.len(),
            "configuration applies: it has changed since the last requested fleet"
        ),
    }
}

// === impl Supervisor ===

impl<R: Runtime> Supervisor<R> {
    /// Notes the wanted fleet; a change of it is written at once.
    pub(super) fn note_wanted(&mut self) {
        if let Some(membership) = &mut self.membership
            && membership.note(&self.roster)
        {
            self.renew();
        }
    }

    /// Renews the lease, unless that is under way; then another renewal follows.
    pub(super) fn renew(&mut self) {
        let Some(membership) = &mut self.membership else { return };
        // Not due while it is under way: its end says when the next one is.
        membership.due = Instant::now() + Duration::from_secs(60);
        if std::mem::replace(&mut membership.renewing, true) {
            membership.again = true;
            return;
        }
        membership.again = false;
        membership.lease.sequence += 1;
        let (lease, litter) = (membership.lease.clone(), membership.members.litter().to_vec());
        self.tasks.renew(lease, membership.version, litter);
    }

    /// Takes the outcome of a renewal.
    pub(super) fn renewed(
        &mut self,
        version: u64,
        stage: Stage,
        result: Result<Vec<Lease>, RuntimeError>,
    ) {
        let Some(membership) = &mut self.membership else { return };
        let news = membership.renewed(version, stage, result, Instant::now());
        let again = membership.again;
        let wanted = membership.members.living().filter_map(|lease| lease.wanted.as_ref());
        if let Some(latest) = wanted.map(|wanted| &wanted.release).max() {
            self.roster.follow_release(latest, Instant::now());
        }
        for news in news {
            self.tell(match &news {
                News::Joined(lease) => What::MemberJoined(Member::from(lease)),
                News::Left(lease) => What::MemberLeft(Member::from(lease)),
                News::Expired(lease) => What::MemberExpired(Member::from(lease)),
            });
        }
        if again {
            self.renew();
        }
    }

    /// Answers once the wanted fleet of now is written: a successor after `kill -9` restores what
    /// was answered.
    pub(super) fn answer_once_written<T: 'static>(
        &mut self,
        reply: Reply<T>,
        result: Result<T, ChangeError>,
    ) {
        self.note_wanted();
        match &mut self.membership {
            Some(membership) => {
                membership.once_written(Box::new(move || answer(reply, result)));
            }
            None => answer(reply, result),
        }
    }

    /// Begins the end of the balancer.
    pub(super) fn begin_end(&mut self) {
        self.scaling = None;
        match &mut self.membership {
            Some(membership) => {
                membership.leave();
                let now = Instant::now();
                let half = self.ends_at().saturating_duration_since(now) / 2;
                self.ending = Ending::Deciding { until: now + half.min(DECIDE_WITHIN) };
                self.renew();
            }
            None => self.remove_all(),
        }
    }

    fn remove_all(&mut self) {
        self.roster.stop_all();
        self.ending = Ending::Removing;
    }

    /// Returns when the shutdown is over, whatever is left to do; now if it has not begun.
    fn ends_at(&self) -> Instant {
        self.ends_at.unwrap_or_else(Instant::now)
    }

    /// Returns the end of a step of the shutdown that may take `within`.
    fn step_until(&self, within: Duration) -> tokio::time::Instant {
        (Instant::now() + within).min(self.ends_at()).into()
    }

    /// Goes on with the end of the balancer. Returns whether there is nothing left to do.
    pub(super) fn end(&mut self) -> bool {
        let now = Instant::now();
        match self.ending {
            Ending::No => false,
            Ending::Deciding { until } => {
                let decided = self.membership.as_ref().map(|it| it.decide(until <= now));
                match decided {
                    Some(Leave::NotYet) => {}
                    Some(Leave::ToOthers) => {
                        self.roster.give_up_changes();
                        let until = self.step_until(PART_WITHIN).into_std();
                        self.ending = Ending::Parting { until };
                    }
                    Some(Leave::Last) | None => {
                        if let Some(membership) = &mut self.membership {
                            membership.lease.stage = Stage::Removing;
                        }
                        self.renew();
                        self.remove_all();
                    }
                }
                false
            }
            Ending::Parting { until } => !self.roster.is_changing() || until <= now,
            Ending::Removing => self.roster.is_gone() || self.ends_at() <= now,
        }
    }

    /// Returns when [`end`](Self::end) is to be asked again if nothing happens before.
    pub(super) fn end_due(&self) -> Option<Instant> {
        match self.ending {
            Ending::No => None,
            Ending::Deciding { until } | Ending::Parting { until } => Some(until),
            Ending::Removing => Some(self.ends_at()),
        }
    }

    /// Writes the last lease of a balancer that leaves its replicas, for the others of the pool or
    /// for its successor. Reports whether it was written.
    pub(super) async fn leave_replicas(&mut self, stage: Stage) -> bool {
        let replicas = self.handles.count();
        let other = self.membership.as_ref().and_then(Membership::first_other);
        match (stage, other) {
            (Stage::Kept, _) => info!(replicas, "replicas are kept"),
            (_, other) => {
                let member = other.map(|member| member.to_string());
                info!(replicas, member, "replicas are left to the other balancers of the pool");
            }
        }
        self.finish_renewal().await;
        let until = self.step_until(FINISH_WITHIN);
        let Some(membership) = &mut self.membership else { return true };
        let before = membership.lease.clone();
        (membership.lease.stage, membership.lease.sequence) = (stage, before.sequence + 1);
        let lease = membership.lease.clone();
        let finish = async {
            self.runtime.write_lease(&lease).await?;
            self.runtime.remove_lease(&before).await
        };
        is_finished(timeout_at(until, finish).await)
    }

    /// Removes the leases of the pool that no living balancer holds, this one's among them: the next
    /// start begins with the configuration. Reports whether they are gone.
    pub(super) async fn remove_leases(&mut self) -> bool {
        self.finish_renewal().await;
        let until = self.step_until(FINISH_WITHIN);
        let Some(Membership { lease, members, .. }) = &self.membership else { return true };
        let lives = |other: &Lease| members.living().any(|living| living.key == other.key);
        let finish = async {
            for other in self.runtime.leases().await? {
                if other.pool == lease.pool && !lives(&other) {
                    self.runtime.remove_lease(&other).await?;
                }
            }
            Ok(())
        };
        is_finished(timeout_at(until, finish).await)
    }

    /// Waits for the renewal under way: it would bring back a lease that was removed.
    async fn finish_renewal(&mut self) {
        let until = self.step_until(FINISH_WITHIN);
        let wait = async {
            while self.membership.as_ref().is_some_and(|it| it.renewing) {
                match self.outcomes.recv().await {
                    Some(Outcome::Renewed { version, stage, result }) => {
                        if let Some(membership) = &mut self.membership {
                            membership.again = false;
                        }
                        self.renewed(version, stage, result);
                    }
                    Some(_) => {}
                    None => return,
                }
            }
        };
        let _late = timeout_at(until, wait).await.is_err();
    }
}

/// Reports whether the last call about leases succeeded, and logs why it did not.
fn is_finished(finished: Result<Result<(), RuntimeError>, tokio::time::error::Elapsed>) -> bool {
    match finished {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            warn!(error = chain(&error), "lease stays; it expires");
            false
        }
        Err(_late) => {
            warn!("lease stays; it expires");
            false
        }
    }
}
