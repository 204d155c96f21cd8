//! Who a client is, and whom it may speak for.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::http1::field::Kind;
use crate::http1::head::Line;

/// The other side of a client's connection.
#[derive(Clone, Debug)]
pub struct Peer {
    ip: IpAddr,
    text: String,
    trusted: bool,
    /// What it speaks: `http` or `https`.
    pub scheme: &'static str,
}

// === impl Peer ===

impl Peer {
    /// A client at `ip`; its `X-Forwarded-*` are believed if it is in one of the networks.
    pub fn new(ip: IpAddr, scheme: &'static str, trust: &[IpNet]) -> Self {
        let ip = ip.to_canonical();
        let trusted = trust.iter().any(|network| network.contains(&ip));
        Self { ip, text: ip.to_string(), trusted, scheme }
    }

    /// Its address as text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it is a proxy whose word counts.
    pub fn is_trusted(&self) -> bool {
        self.trusted
    }

    /// The client's address: the peer's own, or behind trusted proxies the last one in
    /// `X-Forwarded-For` that is not a trusted proxy, too.
    pub fn client_ip(&self, lines: &[Line], head: &[u8], trust: &[IpNet]) -> IpAddr {
        if !self.trusted {
            return self.ip;
        }
        let fields = lines.iter().rev().filter(|line| line.kind == Kind::XForwardedFor);
        let hops = fields.flat_map(|line| line.value.of(head).rsplit(|byte| *byte == b','));
        let mut client = self.ip;
        for hop in hops {
            let address =
                std::str::from_utf8(hop.trim_ascii()).ok().and_then(|hop| hop.parse().ok());
            // What is before something unreadable may have been made up.
            let Some(address) = address.map(|address: IpAddr| address.to_canonical()) else {
                break;
            };
            client = address;
            if !trust.iter().any(|network| network.contains(&address)) {
                break;
            }
        }
        client
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(ip: &str, forwarded: &[&str]) -> String {
        let trust = ["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
        let peer = Peer::new(ip.parse().unwrap(), "http", &trust);
        let mut head = Vec::new();
        let mut lines = Vec::new();
        for value in forwarded {
            let start = head.len();
            head.extend_from_slice(format!("X-Forwarded-For: {value}").as_bytes());
            lines.push(Line::parse(&head, start, head.len(), false).unwrap());
        }
        peer.client_ip(&lines, &head, &trust).to_string()
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        for (ip, forwarded, expected) in [
            ("192.0.2.1", &["1.1.1.1"][..], "192.0.2.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["1.1.1.1"], "1.1.1.1"),
            ("::ffff:10.0.0.1", &["1.1.1.1"], "1.1.1.1"),
            ("10.0.0.1", &["6.6.6.6, 1.1.1.1, 10.0.0.2"], "1.1.1.1"),
            ("10.0.0.1", &["6.6.6.6, 1.1.1.1", "10.0.0.2"], "1.1.1.1"),
            ("::1", &["6.6.6.6, nonsense, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["10.0.0.3,10.0.0.2"], "10.0.0.3"),
        ] {
            assert_eq!(client(ip, forwarded), expected, "{ip} {forwarded:?}");
        }
    }
}
