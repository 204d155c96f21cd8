//! HTTP/1.1 to the letter (RFC 9110, RFC 9112), as a client and a replica see it who talk over
//! plain sockets and trust nothing: each message that the balancer writes is read by a strict
//! parser, and each that it should refuse must leave no trace at the replica.

mod answers;
pub(crate) mod binding;
mod bodies;
mod chunks;
pub(crate) mod client;
mod connections;
mod fields;
mod forwarded;
mod framing;
mod interim;
mod limits;
mod loops;
pub(crate) mod message;
mod retries;
mod start_line;
mod table;
mod timeouts;
mod upgrade;
pub(crate) mod upstream;

use upstream::Upstream;

use crate::support::Balancer;

/// A balancer over these replicas, all of them ready.
pub(crate) fn over(upstreams: &[&Upstream], arguments: &[&str]) -> Balancer {
    let list: Vec<String> = upstreams.iter().map(|each| each.address.to_string()).collect();
    let list = list.join(",");
    let balancer = Balancer::start(&[&["--servers", list.as_str()], arguments].concat());
    balancer.wait_for_replicas(upstreams.len());
    balancer
}
