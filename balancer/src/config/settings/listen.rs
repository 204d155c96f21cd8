//! `[admin]` and `[tls]`: listeners besides `listen`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use serde::Deserialize;

use super::first_of;

/// `[admin]`
#[derive(Args, Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdminSettings {
    /// Where /rep, /add, /rm and /admin are answered instead of at --listen
    #[arg(id = "admin-listen", long, env = "BALANCER_ADMIN_LISTEN", value_name = "ADDR")]
    pub listen: Option<SocketAddr>,

    /// What changing calls must bring as 'Authorization: Bearer TOKEN'
    #[arg(
        id = "admin-token",
        long,
        env = "BALANCER_ADMIN_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true
    )]
    pub token: Option<String>,

    /// Let everybody who reaches the admin routes change the fleet, though they are bound to an
    /// address that is not loopback and no token is set [default: false]
    #[arg(id = "admin-open", long, env = "BALANCER_ADMIN_OPEN", value_name = "BOOL",
          num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub open: Option<bool>,

    /// Names by which the admin routes may be called, besides localhost and IP addresses, while no
    /// token is set (a defence against DNS rebinding)
    #[arg(
        id = "admin-hosts",
        long,
        env = "BALANCER_ADMIN_HOSTS",
        value_name = "LIST",
        value_delimiter = ','
    )]
    pub hosts: Option<Vec<String>>,

    /// POST /admin/roll may name an image and a command without a token: whoever reaches the admin
    /// routes can run what they like [default: false]
    #[arg(id = "admin-programs", long, env = "BALANCER_ADMIN_PROGRAMS", value_name = "BOOL",
          num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub programs: Option<bool>,
}

/// `[tls]`
#[derive(Args, Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsSettings {
    /// PEM file with the certificate for clients, and those between it and the root; needs
    /// --tls-key
    #[arg(id = "tls-certificate", long, env = "BALANCER_TLS_CERTIFICATE", value_name = "FILE")]
    pub certificate: Option<PathBuf>,

    /// PEM file with the private key of --tls-certificate
    #[arg(id = "tls-key", long, env = "BALANCER_TLS_KEY", value_name = "FILE")]
    pub key: Option<PathBuf>,

    /// Where TLS is spoken while plain HTTP goes on at --listen; without it --listen itself speaks
    /// TLS
    #[arg(id = "tls-listen", long, env = "BALANCER_TLS_LISTEN", value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
}

impl AdminSettings {
    pub(super) fn or(self, other: Self) -> Self {
        first_of!(self, other; listen, token, open, hosts, programs;)
    }
}

impl TlsSettings {
    pub(super) fn or(self, other: Self) -> Self {
        first_of!(self, other; certificate, key, listen;)
    }
}
