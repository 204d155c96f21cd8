//! What is kept for each replica that is known: its part in the table, and its probing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use tokio::sync::Notify;
use tracing::error;

use super::Supervisor;
use crate::fleet::observed::Place;
use crate::fleet::roster::Roster;
use crate::fleet::seat::{Hostname, MemberId};
use crate::prober::{Prober, Watch};
use crate::routing::placement::{Member, Placement};
use crate::routing::pool::Pool;
use crate::routing::table::{Replica, ReplicaId, Table};
use crate::runtime::Runtime;

/// See the module.
pub(super) struct Handles {
    by_name: BTreeMap<Hostname, Handle>,
    prober: Prober,
    idle: Arc<Notify>,
    pool: Arc<Pool>,
    /// Every replica that somebody has still, those among them that are not known any more.
    made: Vec<Weak<Replica>>,
    next_id: u64,
}

struct Handle {
    address: SocketAddr,
    /// Its part in the table; a spare has none.
    replica: Option<Arc<Replica>>,
    /// Its probing; one that is leaving is not probed.
    watch: Option<Watch>,
}

/// The proof that the table with everything that the roster knows was published. Events are recorded
/// only with it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Published(());

/// What the request path has noted.
pub(super) struct Troubled {
    /// Replicas of which too many requests in a row went wrong.
    pub(super) failing: Vec<Hostname>,
    /// Some could not be connected to; they are being probed.
    pub(super) unreachable: bool,
}

// === impl Handles ===

impl Handles {
    pub(super) fn new(prober: Prober, pool: Arc<Pool>) -> Self {
        let (by_name, idle) = (BTreeMap::new(), Arc::default());
        Self { by_name, prober, idle, pool, made: Vec::new(), next_id: 0 }
    }

    pub(super) fn count(&self) -> usize {
        self.by_name.len()
    }

    /// Told whenever a closed replica's last request has left.
    pub(super) fn idle(&self) -> Arc<Notify> {
        Arc::clone(&self.idle)
    }

    pub(super) fn in_flight(&self, hostname: &Hostname) -> usize {
        self.replica(hostname).map_or(0, |replica| replica.in_flight())
    }

    fn replica(&self, hostname: &Hostname) -> Option<&Arc<Replica>> {
        self.by_name.get(hostname)?.replica.as_ref()
    }

    /// Notes that a replica refused the connection of a probe: no process listens at its address.
    pub(super) fn note_refused(&self, hostname: &Hostname) {
        if let Some(replica) = self.replica(hostname) {
            replica.note_refused();
        }
    }

    fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// Returns the replicas outside the table that still have requests in flight: they get no new
    /// ones.
    fn all_but(&mut self, serving: &[Arc<Replica>], standby: &[Arc<Replica>]) -> Vec<Arc<Replica>> {
        let in_table = serving.iter().chain(standby);
        let serving: BTreeSet<ReplicaId> = in_table.map(|replica| replica.id()).collect();
        self.made.retain(|replica| replica.strong_count() > 0);
        let made = self.made.iter().filter_map(Weak::upgrade);
        let busy = made.filter(|replica| replica.in_flight() > 0);
        busy.filter(|replica| !serving.contains(&replica.id())).collect()
    }

    /// Lets nobody in any more: whether there is anybody whose end will be told.
    pub(super) fn close(&mut self, hostname: &Hostname) -> bool {
        let Some(handle) = self.by_name.get_mut(hostname) else { return false };
        handle.watch = None;
        let Some(replica) = &handle.replica else { return false };
        let idle = Arc::clone(&self.idle);
        replica.close(move || idle.notify_one());
        true
    }

    /// Closed replicas without a request.
    pub(super) fn idle_ones(&self) -> impl Iterator<Item = &Hostname> {
        let idle = |handle: &Handle| {
            let replica = handle.replica.as_ref();
            replica.is_some_and(|replica| replica.is_closed() && replica.in_flight() == 0)
        };
        self.by_name.iter().filter(move |(_, handle)| idle(handle)).map(|(hostname, _)| hostname)
    }

    /// What the request path has noted since the last call: `consecutive` failures in a row are
    /// too many.
    pub(super) fn troubled(&self, consecutive: u32) -> Troubled {
        let mut troubled = Troubled { failing: Vec::new(), unreachable: false };
        for (hostname, handle) in &self.by_name {
            let Some(replica) = &handle.replica else { continue };
            if replica.has_failed(consecutive) {
                troubled.failing.push(hostname.clone());
            }
            if replica.take_unreachable() {
                troubled.unreachable = true;
                if let Some(watch) = &handle.watch {
                    watch.now();
                }
            }
        }
        troubled
    }

    /// One handle for each replica that runs, probed; one whose address changed is another.
    fn keep(&mut self, roster: &Roster) {
        for (hostname, place, address) in roster.running() {
            let known = self.by_name.get(hostname);
            if known.is_none_or(|handle| handle.watch.is_none() || handle.address != address) {
                // Servers by name may choose what they serve by it, and a health check must ask
                // for the same as requests do.
                let host = match place {
                    Place::Member(MemberId::Address(_)) => Some(host_of(hostname.server())),
                    Place::Member(MemberId::Seat(_)) | Place::Spare | Place::Unknown => None,
                };
                let watch = Some(self.prober.watch(hostname.clone(), address, host));
                let handle = Handle { address, replica: None, watch };
                let before = self.by_name.insert(hostname.clone(), handle);
                if let Some(replica) = before.and_then(|handle| handle.replica) {
                    replica.give_up();
                }
            }
            let Some(handle) = self.by_name.get_mut(hostname) else { continue };
            if roster.is_frozen(hostname) {
                // Requests that wait for it go to other replicas; if it wakes up, it is as good as new.
                if let Some(replica) = handle.replica.take() {
                    replica.give_up_frozen();
                }
                continue;
            }
            let seated = handle.replica.as_ref().map(|replica| replica.member());
            // One that another balancer gave another seat is another, too.
            if let Place::Member(member) = place
                && seated != Some(member)
            {
                self.next_id += 1;
                let id = ReplicaId(self.next_id);
                let replica = Replica::new(id, hostname.clone(), member, address, &self.pool);
                let replica = Arc::new(replica);
                self.made.push(Arc::downgrade(&replica));
                handle.replica = Some(replica);
            }
        }
        let running: BTreeSet<&Hostname> = roster.running().map(|(name, ..)| name).collect();
        self.by_name.retain(|hostname, handle| {
            if !running.contains(hostname) {
                handle.watch = None;
            }
            if let Some(replica) = handle.replica.as_ref().filter(|_| !roster.lives(hostname)) {
                // Before it is killed: its requests are not what ends it.
                if roster.is_hung(hostname) {
                    replica.give_up_frozen();
                } else {
                    replica.give_up();
                }
            }
            roster.knows(hostname)
        });
    }
}

/// Returns the `Host` of a server that is listed as `host:port`: without the port where it is the
/// default (RFC 9110 4.2.3).
fn host_of(server: &str) -> &str {
    server.strip_suffix(":80").unwrap_or(server)
}

// === impl Supervisor ===

impl<R: Runtime> Supervisor<R> {
    /// Publishes a new table if anything changed since the last one.
    pub(super) fn publish(&mut self) -> Published {
        if self.published == Some(self.roster.revision()) {
            return Published(());
        }
        self.handles.keep(&self.roster);
        let member = |(id, weight, tenths)| Member { id, weight, tenths };
        let mut members: Vec<Member> = self.roster.members().map(member).collect();
        members.sort_by_key(|member| member.id);
        let before = Arc::clone(&self.placement);
        if members != self.placement.members() {
            match Placement::build(&self.placement_config, &members) {
                Ok(placement) => self.placement = Arc::new(placement),
                // The roster keeps to the capacity, so this is a mistake of ours: say so, and
                // route by what there is.
                Err(error) => error!(%error, "placement could not be built; the last one stays"),
            }
        }
        let serving = self.roster.serving().filter_map(|name| self.handles.replica(name).cloned());
        let serving: Vec<Arc<Replica>> = serving.collect();
        let standby = self.roster.standby().filter_map(|name| self.handles.replica(name).cloned());
        let standby: Vec<Arc<Replica>> = standby.collect();
        let resting = self.handles.all_but(&serving, &standby);
        let (placement, listing) = (Arc::clone(&self.placement), self.roster.listing());
        let running = self.roster.reachable().into_iter();
        let running = running.filter_map(|name| self.handles.replica(name).cloned());
        let table = Table::new(self.handles.pool(), placement, serving, resting, listing)
            .with_standby(standby)
            .with_running(running);
        self.shared.publish(table);
        self.published = Some(self.roster.revision());
        // Only now: it takes as long as a build does.
        if !Arc::ptr_eq(&before, &self.placement) {
            self.shared.metrics().placed_anew(&before, &self.placement);
        }
        Published(())
    }
}

#[cfg(test)]
mod tests {
    use super::host_of;

    #[test]
    fn the_host_of_a_server_has_its_port_unless_it_is_the_default() {
        for (server, host) in [
            ("web.example:80", "web.example"),
            ("web.example:8080", "web.example:8080"),
            ("[::1]:80", "[::1]"),
            ("[::80]:81", "[::80]:81"),
            ("10.0.0.1:80", "10.0.0.1"),
        ] {
            assert_eq!(host_of(server), host);
        }
    }
}
