//! `placement` and its tables.

use clap::{Args, ValueEnum};
use serde::Deserialize;

use super::super::value::Hex16;
use super::first_of;

/// `[ring]`
#[derive(Args, Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RingSettings {
    /// ring: points of a replica [default: 160]
    #[arg(id = "ring-virtual-nodes", long, env = "BALANCER_RING_VIRTUAL_NODES", value_name = "N")]
    pub virtual_nodes: Option<u32>,

    /// ring, maglev, rendezvous, jump: 16 bytes in hexadecimal that key the hash of replicas and
    /// requests, so that outsiders cannot aim at a replica; balancers that should agree share it
    /// [default: zeros]
    #[arg(
        id = "ring-secret",
        long,
        env = "BALANCER_RING_SECRET",
        value_name = "HEX",
        hide_env_values = true
    )]
    pub secret: Option<Hex16>,
}

/// `[classic]`
#[derive(Args, Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClassicSettings {
    /// classic: slots of the ring [default: 512]
    #[arg(id = "classic-slots", long, env = "BALANCER_CLASSIC_SLOTS", value_name = "N")]
    pub slots: Option<u32>,

    /// classic: slots of a replica [default: 9]
    #[arg(
        id = "classic-virtual-nodes",
        long,
        env = "BALANCER_CLASSIC_VIRTUAL_NODES",
        value_name = "N"
    )]
    pub virtual_nodes: Option<u32>,

    /// classic: how requests and virtual nodes are hashed [default: polynomial]
    #[arg(id = "classic-hash", long, env = "BALANCER_CLASSIC_HASH", value_name = "HASH")]
    pub hash: Option<ClassicHashKind>,

    /// classic: where a virtual node goes whose slot is taken [default: linear]
    #[arg(id = "classic-probing", long, env = "BALANCER_CLASSIC_PROBING", value_name = "PROBING")]
    pub probing: Option<ProbingKind>,

    /// classic: coefficients of H(i), the hash of a request's number, constant first
    /// [default: 17,2,1]
    #[arg(
        id = "classic-request-coefficients",
        long,
        env = "BALANCER_CLASSIC_REQUEST_COEFFICIENTS",
        value_name = "LIST",
        value_delimiter = ','
    )]
    pub request_coefficients: Option<Vec<u64>>,

    /// classic: coefficients of the seat's part of a virtual node's hash, constant first
    /// [default: 25,0,1]
    #[arg(
        id = "classic-seat-coefficients",
        long,
        env = "BALANCER_CLASSIC_SEAT_COEFFICIENTS",
        value_name = "LIST",
        value_delimiter = ','
    )]
    pub seat_coefficients: Option<Vec<u64>>,

    /// classic: coefficients of the virtual node's own part of its hash, constant first
    /// [default: 0,2,1]
    #[arg(
        id = "classic-virtual-node-coefficients",
        long,
        env = "BALANCER_CLASSIC_VIRTUAL_NODE_COEFFICIENTS",
        value_name = "LIST",
        value_delimiter = ','
    )]
    pub virtual_node_coefficients: Option<Vec<u64>>,
}

/// `[maglev]`
#[derive(Args, Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MaglevSettings {
    /// maglev: entries of the table, a prime number, at least ten for each replica, better a hundred
    /// [default: 65537]
    #[arg(id = "maglev-table-size", long, env = "BALANCER_MAGLEV_TABLE_SIZE", value_name = "N")]
    pub table_size: Option<u32>,
}

/// `placement`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlacementKind {
    /// SipHash points on a 64-bit circle
    Ring,
    /// 512 slots, polynomial hashes, probing
    Classic,
    /// The same owners as nginx's `hash … consistent`
    Ketama,
    /// A table with an even share of entries for each
    Maglev,
    /// The highest score of all for the key
    Rendezvous,
    /// Worked out from the number of seats; not for listed replicas
    Jump,
}

/// `classic.hash`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClassicHashKind {
    /// Polynomials, by their coefficients
    Polynomial,
    /// SipHash-1-3
    #[value(name = "siphash")]
    #[serde(rename = "siphash")]
    SipHash,
}

/// `classic.probing`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProbingKind {
    /// The next slot, and the next
    Linear,
    /// At distance 1, 3, 6, 10, …
    Quadratic,
}

impl RingSettings {
    pub(super) fn or(self, other: Self) -> Self {
        first_of!(self, other; virtual_nodes, secret;)
    }
}

impl MaglevSettings {
    pub(super) fn or(self, other: Self) -> Self {
        first_of!(self, other; table_size;)
    }
}

impl ClassicSettings {
    pub(super) fn or(self, other: Self) -> Self {
        first_of!(
            self, other;
            slots, virtual_nodes, hash, probing, request_coefficients, seat_coefficients,
            virtual_node_coefficients;
        )
    }
}
