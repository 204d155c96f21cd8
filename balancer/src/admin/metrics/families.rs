//! Every metric, with its name and what it means.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::admin::ring::shown;
use crate::fleet::change::Death;
use crate::fleet::event::What;
use crate::fleet::health::Ejection;
use crate::metrics::process::{self, Process};
use crate::metrics::text::{Family, Value};
use crate::metrics::{BOUNDS, Code, ReplicaSum, RouteSum};
use crate::routing::table::Table;
use crate::state::history::Counts;
use crate::state::{Shared, SupervisorStatus};
use crate::telemetry;

/// Everything that is told. `status` is what the supervisor says, if it did; `placement` what the
/// placement is called.
pub(super) fn all(
    shared: &Shared,
    status: Option<&SupervisorStatus>,
    placement: &str,
) -> Vec<Family> {
    let metrics = shared.metrics();
    let (routes, replicas) = (metrics.routes(), metrics.replicas());
    let mut families = requests(&routes).to_vec();
    families.extend(retries(&routes));
    families.push(attempts(&replicas));
    families.extend(fans(&routes, &replicas));
    families.extend(fleet(&shared.table(), status));
    families.extend(history(&shared.history().all_counts()));
    families.extend(admission(shared));
    families.push(quarantined(shared));
    families.extend(ring(shared, placement));
    families.extend(balancer(shared));
    families.push(log_dropped());
    families.push(
        Family::gauge(
            "balancer_deliveries",
            "Requests with send = all | first in progress, those whose client has gone among them.",
        )
        .with(&[], shared.metrics().deliveries()),
    );
    if let Some(process) = process::read() {
        families.extend(of_process(&process));
    }
    families
}

fn requests(routes: &[(String, RouteSum)]) -> [Family; 3] {
    let mut ended = Family::counter(
        "balancer_requests",
        "Requests of clients by the class of their answer's status; none: the client went away, or \
         its answer broke off.",
    );
    let mut duration = Family::histogram(
        "balancer_request_duration_seconds",
        "Time from a request's whole head to the last byte of its answer.",
    );
    let mut in_flight = Family::gauge(
        "balancer_requests_in_flight",
        "Requests of clients under way, tunnels among them.",
    );
    for (route, sum) in routes {
        for code in Code::OF_REQUESTS {
            ended.push(&[("route", route), ("code", code.label())], sum.ended(code));
        }
        let bounds = BOUNDS.iter().map(|nanoseconds| *nanoseconds as f64 / 1e9);
        let bounds = bounds.chain([f64::INFINITY]);
        let buckets = bounds.zip(sum.buckets).collect();
        let value = Value::Histogram { sum: sum.took.as_secs_f64(), buckets };
        duration.push(&[("route", route)], value);
        in_flight.push(&[("route", route)], sum.in_flight);
    }
    [ended, duration, in_flight]
}

fn retries(routes: &[(String, RouteSum)]) -> [Family; 4] {
    let mut retries = Family::counter(
        "balancer_retries",
        "Requests sent to a further replica after one had failed.",
    );
    let mut last_resort = Family::counter(
        "balancer_last_resort",
        "Requests sent to a replica that is ejected or fails its health checks, because no ready \
         one could answer.",
    );
    let mut hedges = Family::counter(
        "balancer_hedges",
        "Requests sent to a second replica because the first was slow.",
    );
    let mut hedges_won = Family::counter(
        "balancer_hedges_won",
        "Requests sent to a second replica that answered before the first.",
    );
    for (route, sum) in routes {
        retries.push(&[("route", route)], sum.retries);
        last_resort.push(&[("route", route)], sum.last_resort);
        hedges.push(&[("route", route)], sum.hedges);
        hedges_won.push(&[("route", route)], sum.hedges_won);
    }
    [retries, last_resort, hedges, hedges_won]
}

fn attempts(replicas: &[ReplicaSum]) -> Family {
    let mut attempts = Family::counter(
        "balancer_replica_attempts",
        "Requests at a replica by the class of its answer's status; error: it gave none; none: it \
         was not its fault that it gave none.",
    );
    for ReplicaSum { route, hostname, attempts: sum, .. } in replicas {
        for code in Code::ALL.into_iter().filter(|code| sum.ended(*code) > 0) {
            let labels =
                [("route", route.as_str()), ("replica", hostname.as_str()), ("code", code.label())];
            attempts.push(&labels, sum.ended(code));
        }
    }
    attempts
}

/// Names that existing deployments look for.
fn fans(routes: &[(String, RouteSum)], replicas: &[ReplicaSum]) -> [Family; 4] {
    let mut by_address: BTreeMap<SocketAddr, (u64, u64)> = BTreeMap::new();
    for ReplicaSum { address, attempts, .. } in replicas {
        let (successes, failures) = by_address.entry(*address).or_default();
        *successes += attempts.fan_successes;
        *failures += attempts.fan_failures;
    }
    let mut successes = Family::counter(
        "target_domain_success_counter",
        "Attempts of send = all | first at a replica that went well.",
    );
    let mut failures = Family::counter(
        "target_domain_failed_counter",
        "Attempts of send = all | first at a replica that failed.",
    );
    for (address, (good, bad)) in by_address.into_iter().filter(|(_, counts)| *counts != (0, 0)) {
        let domain = address.to_string();
        successes.push(&[("domain", &domain)], good);
        failures.push(&[("domain", &domain)], bad);
    }
    let all_successes = Family::counter(
        "Total_domains_success_counter",
        "Attempts of send = all | first that went well.",
    );
    let all_failures = Family::counter(
        "Total_domains_failed_counter",
        "Attempts of send = all | first that failed.",
    );
    let total = |count: fn(&RouteSum) -> u64| routes.iter().map(|(_, sum)| count(sum)).sum::<u64>();
    [
        successes,
        failures,
        all_successes.with(&[], total(|sum| sum.fan_successes)),
        all_failures.with(&[], total(|sum| sum.fan_failures)),
    ]
}

/// What the supervisor does not say is told by the table, as far as that knows it.
fn fleet(table: &Table, status: Option<&SupervisorStatus>) -> [Family; 8] {
    let known = status.map(|status| &status.fleet);
    let desired = known.map_or(table.placement().members().len(), |fleet| fleet.desired);
    let ready = known.map_or(table.ready_count(), |fleet| fleet.ready);
    let in_flight: Vec<(&str, usize)> = match known {
        Some(fleet) => {
            fleet.replicas.iter().map(|one| (one.hostname.as_str(), one.in_flight)).collect()
        }
        None => table.all_ready().map(|one| (one.hostname().as_str(), one.in_flight())).collect(),
    };
    let mut by_replica = Family::gauge("balancer_replica_in_flight", "Requests at a replica now.");
    for (hostname, count) in in_flight {
        by_replica.push(&[("replica", hostname)], count);
    }
    let mut enabled = Family::gauge(
        "balancer_replica_enabled",
        "Whether a replica takes requests while it is ready: 0 for one out of rotation.",
    );
    let mut spares =
        Family::gauge("balancer_fleet_spares", "Replicas without a seat that could take one now.");
    let mut engine = Family::gauge(
        "balancer_engine_up",
        "Whether what runs the replicas answers: 1, or 0 while the last table stays.",
    );
    let mut scale = Family::gauge(
        "balancer_scale_desired",
        "Replicas that the load asked for at the end of the last interval of [scale].",
    );
    let mut members = Family::gauge(
        "balancer_pool_members",
        "Balancers of the pool that live, this one included.",
    );
    if let Some(pool) = status.and_then(|status| status.pool.as_ref()) {
        members.push(&[], pool.members.len());
    }
    if let Some(desired) = status.and_then(|status| status.scale?.desired) {
        scale.push(&[], desired);
    }
    if let Some(status) = status {
        for replica in &status.fleet.replicas {
            enabled.push(&[("replica", &replica.hostname)], u64::from(replica.enabled));
        }
        spares.push(&[], status.fleet.spares.ready);
        engine.push(&[], u64::from(status.engine_error.is_none()));
    }
    [
        Family::gauge("balancer_fleet_desired", "Replicas that there should be, without spares.")
            .with(&[], desired),
        Family::gauge("balancer_fleet_ready", "Replicas that take requests.").with(&[], ready),
        spares,
        by_replica,
        enabled,
        scale,
        engine,
        members,
    ]
}

fn history(counts: &Counts) -> [Family; 4] {
    let counter = |name, help, label, kinds: &[&'static str], of: &BTreeMap<&str, u64>| {
        let mut family = Family::counter(name, help);
        for kind in kinds {
            family.push(&[(label, kind)], of.get(kind).copied().unwrap_or(0));
        }
        family
    };
    let events = "Events of the fleet, by the names that /admin/events has for them.";
    let deaths = "Replicas that ended without being told to, by how.";
    let ejections = "Replicas taken off the table while they ran, by why.";
    let respawns = "Replicas begun, or spares seated, in the place of one that was lost.";
    [
        counter("balancer_events", events, "event", &What::NAMES, &counts.events),
        counter("balancer_deaths", deaths, "reason", &Death::KINDS, &counts.deaths),
        counter("balancer_ejections", ejections, "reason", &Ejection::KINDS, &counts.ejections),
        Family::counter("balancer_respawns", respawns).with(&[], counts.respawns),
    ]
}

fn admission(shared: &Shared) -> [Family; 3] {
    let [at_once, late] = shared.metrics().all_turned_away();
    let mut refused = Family::counter(
        "balancer_admission_refused",
        "Requests answered 503 because no replica had room: at once, or after they had waited.",
    );
    refused.push(&[("reason", "queue-full")], at_once);
    refused.push(&[("reason", "waited")], late);
    let waiting = Family::gauge("balancer_admission_waiting", "Requests that wait for room now.");
    let mut limits = Family::gauge(
        "balancer_replica_limit",
        "Requests that a replica's latency allows in flight, where limits follow it.",
    );
    for replica in shared.table().all_ready() {
        if let Some(limit) = replica.aimd().learnt() {
            limits.push(&[("replica", replica.hostname().as_str())], limit);
        }
    }
    [refused, waiting.with(&[], shared.pool().waiting()), limits]
}

fn quarantined(shared: &Shared) -> Family {
    Family::counter(
        "balancer_quarantined_requests",
        "Requests that were not sent to a replica because they had been in flight at two when those \
         died.",
    )
    .with(&[], shared.metrics().all_quarantined())
}

fn log_dropped() -> Family {
    let mut dropped = Family::counter(
        "balancer_log_dropped",
        "Lines that did not fit into the queue of their output stream, because the stream was not \
         read or could not be written: of the log, the access log, and replicas.",
    );
    for kind in telemetry::Kind::ALL {
        dropped.push(&[("stream", kind.stream()), ("kind", kind.name())], kind.dropped());
    }
    dropped
}

fn ring(shared: &Shared, name: &str) -> [Family; 5] {
    let (table, metrics) = (shared.table(), shared.metrics());
    let placement = table.placement();
    let mut shares = Family::gauge(
        "balancer_ring_share",
        "Share of all keys that a seat, or a listed replica, owns: 0 to 1.",
    );
    for (member, share) in placement.members().iter().zip(&*metrics.shares(placement)) {
        shares.push(&[("seat", &member.id.to_string())], *share);
    }
    let info = Family::gauge(
        "balancer_ring_info",
        "The placement's name, and the fingerprint that balancers have in common which send every \
         key to the same seat; always 1.",
    );
    let fingerprint = shown(metrics.fingerprint(placement));
    let moves = metrics.ring_moves();
    [
        shares,
        info.with(&[("placement", name), ("fingerprint", &fingerprint)], 1_u64),
        Family::counter(
            "balancer_ring_changes",
            "How often the members that own keys, or their weights, changed.",
        )
        .with(&[], moves.changes),
        Family::counter(
            "balancer_ring_moved_share",
            "Shares of all keys that got another owner, added up over all changes.",
        )
        .with(&[], moves.share),
        Family::counter(
            "balancer_ring_needless_share",
            "The part of them that no change of the members asked for.",
        )
        .with(&[], moves.needless),
    ]
}

fn balancer(shared: &Shared) -> [Family; 4] {
    let metrics = shared.metrics();
    let (connections, accepted) = metrics.connections();
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    [
        Family::gauge("balancer_connections", "Connections of clients now.").with(&[], connections),
        Family::counter("balancer_connections_accepted", "Connections of clients that came.")
            .with(&[], accepted),
        Family::gauge("balancer_build_info", "The balancer's version; always 1.")
            .with(&version, 1_u64),
        Family::gauge("balancer_uptime_seconds", "Time since the balancer's start.")
            .with(&[], metrics.uptime().as_secs_f64()),
    ]
}

/// Under the names that all of Prometheus's own clients use.
fn of_process(process: &Process) -> [Family; 7] {
    let one = |name, help, value: Option<Value>| {
        let mut family = Family::gauge(name, help);
        if let Some(value) = value {
            family.push(&[], value);
        }
        family
    };
    let Process { threads, start_time_seconds, virtual_bytes, resident_bytes, .. } = *process;
    let start_time = start_time_seconds.map(Value::from);
    let (open, most) = (process.open_files.map(Value::from), process.max_files.map(Value::from));
    [
        Family::counter("process_cpu_seconds", "Processor time, of the process and in the kernel.")
            .with(&[], process.cpu_seconds),
        one("process_open_fds", "Open file descriptors.", open),
        one("process_max_fds", "File descriptors that may be open.", most),
        one("process_virtual_memory_bytes", "Bytes of addresses.", Some(virtual_bytes.into())),
        one("process_resident_memory_bytes", "Bytes in memory.", Some(resident_bytes.into())),
        one("process_start_time_seconds", "When the process began, since 1970.", start_time),
        one("process_threads", "Threads.", Some(threads.into())),
    ]
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::DEFAULT_ROUTE;
    use crate::fleet::seat::{Hostname, MemberId, Seat};
    use crate::metrics::text::Format;
    use crate::routing::placement::{Member, Placement, PlacementConfig, RingConfig};
    use crate::routing::table::{Replica, ReplicaId};

    /// A table of one replica, and nobody who could say more.
    fn unsupervised() -> (Arc<Shared>, Arc<Replica>) {
        let seat = MemberId::Seat(Seat::new(7).unwrap());
        let ring = PlacementConfig::Ring(RingConfig::default());
        let placement = Placement::build(&ring, &[Member::new(seat, 1)]).unwrap();
        let (hostname, address) = (Hostname::parse("Server 7").unwrap(), ([10, 0, 0, 7], 80));
        let pool = Arc::default();
        let replica = Replica::new(ReplicaId(1), hostname, seat, address.into(), &pool);
        let replica = Arc::new(replica);
        let table =
            Table::new(&pool, Arc::new(placement), [Arc::clone(&replica)], Vec::new(), Vec::new());
        (Shared::new(table).0, replica)
    }

    #[test]
    fn without_a_word_of_the_supervisor_the_table_is_told_of() {
        let (shared, replica) = unsupervised();
        let _in_flight = replica.enter();
        let text = Format::Classic.write(all(&shared, None, "ring"));
        let fingerprint = shown(shared.table().placement().fingerprint());
        let info =
            format!("balancer_ring_info{{placement=\"ring\",fingerprint=\"{fingerprint}\"}} 1");
        for line in [
            "balancer_fleet_desired 1",
            "balancer_fleet_ready 1",
            "balancer_replica_in_flight{replica=\"Server 7\"} 1",
            "balancer_ring_share{seat=\"7\"} 1.0",
            &info,
        ] {
            assert!(text.lines().any(|told| told == line), "{line}: {text}");
        }
        for unknown in [
            "balancer_fleet_spares",
            "balancer_scale_desired",
            "balancer_engine_up",
            "balancer_replica_enabled",
        ] {
            assert!(!text.contains(unknown), "{unknown}: {text}");
        }
    }

    #[test]
    fn attempts_of_a_fan_have_the_names_that_are_kept() {
        let (shared, replica) = unsupervised();
        let worker = shared.metrics().route(DEFAULT_ROUTE).shard();
        worker.fan_attempt(&replica, true);
        worker.fan_attempt(&replica, true);
        worker.fan_attempt(&replica, false);
        let text = Format::Classic.write(all(&shared, None, "ring"));
        for line in [
            "target_domain_success_counter_total{domain=\"10.0.0.7:80\"} 2",
            "target_domain_failed_counter_total{domain=\"10.0.0.7:80\"} 1",
            "Total_domains_success_counter_total 2",
            "Total_domains_failed_counter_total 1",
        ] {
            assert!(text.lines().any(|told| told == line), "{line}: {text}");
        }
    }

    #[test]
    fn every_metric_has_one_name_and_one_help() {
        let (shared, _) = unsupervised();
        let text = Format::Classic.write(all(&shared, None, "ring"));
        let heads: Vec<&str> = text.lines().filter(|line| line.starts_with("# HELP ")).collect();
        let names: std::collections::BTreeSet<_> =
            heads.iter().map(|line| line.split(' ').nth(2)).collect();
        assert_eq!(names.len(), heads.len());
        assert!(heads.iter().all(|line| line.ends_with('.')), "{heads:?}");
    }
}
