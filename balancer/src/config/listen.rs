//! Where it listens, and who may change the fleet there.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::ConfigError;
use super::check::must;
use super::settings::{AdminSettings, TlsSettings};

/// Who may change the fleet, and where.
#[derive(Clone, Debug, PartialEq)]
pub struct AdminConfig {
    /// A listener of their own, if the admin routes have one.
    pub listen: Option<SocketAddr>,
    /// What changing calls must bring.
    pub token: Option<Token>,
    /// Names that a call may come by, besides localhost and IP addresses.
    pub hosts: Vec<String>,
    /// Whether a call without a token may say what replicas run.
    pub programs: bool,
    /// Whether replicas are listed, so that they are called by their addresses.
    pub listed: bool,
}

/// A secret that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

/// TLS for clients.
#[derive(Clone, Debug, PartialEq)]
pub struct TlsConfig {
    /// PEM file with the certificate, and those between it and the root.
    pub certificate: PathBuf,
    /// PEM file with its private key.
    pub key: PathBuf,
    /// Where TLS is spoken while plain HTTP goes on at `listen`; without it, at `listen` itself.
    pub listen: Option<SocketAddr>,
}

/// `listen` and `tls` have been checked: they differ.
pub(super) fn admin(
    settings: AdminSettings,
    listen: SocketAddr,
    tls: Option<&TlsConfig>,
    listed: bool,
) -> Result<AdminConfig, ConfigError> {
    let AdminSettings { listen: own, token, open, hosts, programs } = settings;
    let bad = |token: &String| token.is_empty() || !token.bytes().all(|c| c.is_ascii_graphic());
    if token.as_ref().is_some_and(bad) {
        return Err(must("admin.token", "must be visible ASCII characters, without spaces"));
    }
    let tls_listen = tls.and_then(|tls| tls.listen);
    // Without a listener of their own they are answered wherever traffic comes in.
    let answered_at = if own.is_some() { [own, None] } else { [Some(listen), tls_listen] };
    let exposed = answered_at.into_iter().flatten().find(|at| !is_loopback(at.ip()));
    if let Some(at) = exposed.filter(|_| token.is_none() && !open.unwrap_or(false)) {
        let why = format!(
            "must be set: /add and /rm would be open to everybody who reaches {at}. Set it, or \
             bind them to a loopback address with 'admin.listen', or say 'admin.open = true' if \
             that is meant"
        );
        return Err(must("admin.token", why));
    }
    if own.is_some_and(|own| same(own, listen)) {
        return Err(must("admin.listen", "must differ from 'listen'; leave it out to share it"));
    }
    if let (Some(own), Some(tls)) = (own, tls_listen)
        && same(own, tls)
    {
        return Err(must("tls.listen", "must differ from 'admin.listen'"));
    }
    let hosts = hosts.unwrap_or_default().iter().map(|host| host.to_ascii_lowercase()).collect();
    let programs = programs.unwrap_or(false);
    Ok(AdminConfig { listen: own, token: token.map(Token), hosts, programs, listed })
}

pub(super) fn tls(
    settings: TlsSettings,
    listen: SocketAddr,
) -> Result<Option<TlsConfig>, ConfigError> {
    let TlsSettings { certificate, key, listen: own } = settings;
    let (certificate, key) = match (certificate, key) {
        (Some(certificate), Some(key)) => (certificate, key),
        (Some(_), None) => return Err(must("tls.key", "must be set: 'tls.certificate' is")),
        (None, Some(_)) => return Err(must("tls.certificate", "must be set: 'tls.key' is")),
        (None, None) if own.is_some() => {
            return Err(must("tls.listen", "needs 'tls.certificate' and 'tls.key'"));
        }
        (None, None) => return Ok(None),
    };
    for (field, file) in [("tls.certificate", &certificate), ("tls.key", &key)] {
        if file.as_os_str().is_empty() {
            return Err(must(field, "must be the path of a PEM file"));
        }
    }
    if own.is_some_and(|own| same(own, listen)) {
        let why = "must differ from 'listen'; leave it out to speak only TLS there";
        return Err(must("tls.listen", why));
    }
    Ok(Some(TlsConfig { certificate, key, listen: own }))
}

/// Whether both are one listener; with port 0 each gets a port of its own.
fn same(one: SocketAddr, other: SocketAddr) -> bool {
    one == other && one.port() != 0
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

// === impl Token ===

impl Token {
    /// Whether `given` is this token; takes the same time wherever they differ.
    pub fn is(&self, given: &[u8]) -> bool {
        let own = self.0.as_bytes();
        let differing = own.iter().zip(given).fold(0, |sum, (a, b)| sum | (a ^ b));
        own.len() == given.len() && differing == 0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}
