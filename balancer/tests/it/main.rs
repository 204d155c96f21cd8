//! The balancer as its users meet it: the real binary, real sockets, real child processes, and the
//! real Docker engine where there is one.

#![allow(clippy::unwrap_used, reason = "a test that fails to set itself up fails")]

mod access_log;
mod cli;
mod conformance;
mod contract;
mod docker;
mod engine;
mod faults;
mod fleet;
mod forwarding;
mod guard;
mod heal;
mod ketama;
mod listed;
mod load;
mod logging;
mod metrics;
mod overload;
mod pool;
mod ring;
mod routes;
mod scale;
mod support;
mod tls;
mod trees;
mod watch;
