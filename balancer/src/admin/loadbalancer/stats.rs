//! `GET /loadbalancer/stats`: requests at replicas since the last `DELETE` of it, or the
//! balancer's start. What `/metrics` tells is counted on whatever is cleared here.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use actix_web::HttpResponse;
use serde::Serialize;

use super::fail;
use crate::admin::Admin;
use crate::fleet::seat::Hostname;
use crate::metrics::Code;
use crate::state::Shared;
use crate::state::stats::{Baseline, Counted};

#[derive(Serialize)]
struct Stats {
    load_balancer_stats: Body,
}

#[derive(Serialize)]
struct Body {
    /// Since when, as RFC 3339 has it, in UTC.
    since: String,
    /// Requests at all replicas that were answered or failed.
    requests: u64,
    /// Those that gave no answer, or one from 500 to 599.
    failures: u64,
    /// Requests at all of them now.
    queued_requests: usize,
    nodes: BTreeMap<String, Node>,
}

#[derive(Serialize)]
struct Node {
    enabled: bool,
    requests: u64,
    failures: u64,
    queued_requests: usize,
}

/// Tells what was counted; after it is cleared, where that is asked for.
pub(super) async fn stats(admin: &Admin, clear: bool) -> HttpResponse {
    let shared = &admin.shared;
    let status = match shared.status().await {
        Ok(status) => status,
        Err(error) => return fail(&error),
    };
    let counted = counted(shared);
    if clear {
        let (since, counted) = (SystemTime::now(), counted.clone());
        shared.stats().clear(Baseline { since, counted });
    }
    let before = shared.stats().baseline();
    let table = shared.table();
    let listed: BTreeSet<&str> = table.listing().iter().map(Hostname::as_str).collect();
    let replicas = status.fleet.replicas.into_iter();
    let nodes: BTreeMap<String, Node> = replicas
        .filter(|replica| listed.contains(replica.hostname.as_str()))
        .map(|replica| {
            let of = |counts: &BTreeMap<String, Counted>| {
                counts.get(&replica.hostname).copied().unwrap_or_default()
            };
            let since = of(&counted).since(of(&before.counted));
            let node = Node {
                enabled: replica.enabled,
                requests: since.requests,
                failures: since.failures,
                queued_requests: replica.in_flight,
            };
            (replica.hostname, node)
        })
        .collect();
    HttpResponse::Ok().json(Stats {
        load_balancer_stats: Body {
            since: humantime::format_rfc3339_millis(before.since).to_string(),
            requests: nodes.values().map(|node| node.requests).sum(),
            failures: nodes.values().map(|node| node.failures).sum(),
            queued_requests: nodes.values().map(|node| node.queued_requests).sum(),
            nodes,
        },
    })
}

/// What was counted of each replica since it came.
fn counted(shared: &Shared) -> BTreeMap<String, Counted> {
    let mut counted: BTreeMap<String, Counted> = BTreeMap::new();
    for replica in shared.metrics().replicas() {
        let of = counted.entry(replica.hostname.to_string()).or_default();
        let ended = |code| replica.attempts.ended(code);
        of.requests += Code::ALL.into_iter().map(ended).sum::<u64>();
        of.failures += [Code::ServerError, Code::Error].into_iter().map(ended).sum::<u64>();
    }
    counted
}
