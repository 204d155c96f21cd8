//! Who a client is, and whom it may speak for.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::http1::field::Kind;
use crate::http1::forwarded::{address, hops};
use crate::http1::head::Line;
use crate::http1::request::Request;

/// How long a surplus connection may take for the head of its request.
const SURPLUS_PATIENCE: Duration = Duration::from_secs(1);

/// The other side of a client's connection.
#[derive(Clone, Debug)]
pub struct Peer {
    ip: IpAddr,
    text: String,
    trusted: bool,
    /// Whether it is beyond the limits: it is served the admin routes only, once.
    pub is_surplus: bool,
    /// What it speaks: `http` or `https`.
    pub scheme: &'static str,
}

/// A client as trusted proxies tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin<'a> {
    /// Its address.
    pub address: IpAddr,
    /// The scheme that it used, if that is told.
    pub proto: Option<&'a [u8]>,
    /// The host that it asked for, if that is told.
    pub host: Option<&'a [u8]>,
}

// === impl Peer ===

impl Peer {
    /// A client at `ip`, trusted if one of the networks contains it.
    pub fn new(ip: IpAddr, scheme: &'static str, trust: &[IpNet]) -> Self {
        let ip = ip.to_canonical();
        let trusted = is_in(trust, ip);
        Self { ip, text: ip.to_string(), trusted, is_surplus: false, scheme }
    }

    /// Trusts it from now on if one of these networks contains it.
    pub fn trust(&mut self, networks: &[IpNet]) {
        self.trusted = is_in(networks, self.ip);
    }

    /// Its address as text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it is a proxy whose word counts.
    pub fn is_trusted(&self) -> bool {
        self.trusted
    }

    /// Returns the time that it has for what it sends first, of the configured one: a surplus
    /// connection keeps others waiting in the backlog.
    pub fn patience(&self, configured: Duration) -> Duration {
        if self.is_surplus { configured.min(SURPLUS_PATIENCE) } else { configured }
    }

    /// Its address.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// Returns the client's address: the peer's own, or behind trusted proxies the last one in
    /// `X-Forwarded-For` that is not a trusted proxy, too. Where that field is absent, `Forwarded`
    /// takes its place.
    pub fn client_ip(
        &self,
        request: &Request,
        lines: &[Line],
        head: &[u8],
        trust: &[IpNet],
    ) -> IpAddr {
        if !self.trusted {
            return self.ip;
        }
        if request.forwarded_for.is_none() && request.has_forwarded {
            return self.origin_of_forwarded(lines, head, trust).address;
        }
        let fields = lines.iter().rev().filter(|line| line.kind == Kind::XForwardedFor);
        let hops = fields.flat_map(|line| line.value.of(head).rsplit(|byte| *byte == b','));
        let mut client = self.ip;
        for hop in hops {
            // An unreadable address may be made up, and so may all before it.
            let Some(address) = address(hop.trim_ascii()) else { break };
            client = address;
            if !is_in(trust, address) {
                break;
            }
        }
        client
    }

    /// Returns the client that the `Forwarded` of a trusted proxy tells, and what it asked the
    /// outermost trusted proxy for. The elements are read from the last to the first, as
    /// [`Self::client_ip`] reads `X-Forwarded-For`.
    pub fn origin_of_forwarded<'a>(
        &self,
        lines: &[Line],
        head: &'a [u8],
        trust: &[IpNet],
    ) -> Origin<'a> {
        let mut origin = Origin { address: self.ip, proto: None, host: None };
        for line in lines.iter().rev().filter(|line| line.kind == Kind::Forwarded) {
            let Some(hops) = hops(line.value.of(head)) else { break };
            for hop in hops.into_iter().rev() {
                let Some(hop) = hop else { return origin };
                (origin.proto, origin.host) =
                    (hop.proto.or(origin.proto), hop.host.or(origin.host));
                let Some(address) = hop.address else { return origin };
                origin.address = address;
                if !is_in(trust, address) {
                    return origin;
                }
            }
        }
        origin
    }
}

fn is_in(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::head::{Head, HeadLimits};
    use crate::http1::request::RequestLine;

    /// The client's address, behind a peer at `ip` that sends these fields.
    fn client(ip: &str, fields: &[(&str, &str)]) -> String {
        let trust = ["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
        let peer = Peer::new(ip.parse().unwrap(), "http", &trust);
        let fields = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", fields.collect::<String>());
        let limits = HeadLimits { bytes: 16_384, fields: 64, target: 8_192 };
        let (mut read, mut request) = (Head::<RequestLine>::new(), Request::new());
        assert_eq!(read.parse(head.as_bytes(), &limits), Ok(Some(head.len())));
        request.read(&read, head.as_bytes()).unwrap();
        peer.client_ip(&request, read.lines(), head.as_bytes(), &trust).to_string()
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
            ("10.0.0.1", &["203.0.113.7:4000"], "203.0.113.7"),
            ("10.0.0.1", &["6.6.6.6, [2001:db8::1]:4000, 10.0.0.2:80"], "2001:db8::1"),
        ] {
            let fields: Vec<_> =
                forwarded.iter().map(|value| ("X-Forwarded-For", *value)).collect();
            assert_eq!(client(ip, &fields), expected, "{ip} {forwarded:?}");
        }
    }

    #[test]
    fn forwarded_is_read_where_there_is_no_x_forwarded_for() {
        for (ip, forwarded, expected) in [
            ("192.0.2.1", &["for=1.1.1.1"][..], "192.0.2.1"),
            ("10.0.0.1", &["for=1.1.1.1"], "1.1.1.1"),
            (
                "10.0.0.1",
                &["for=6.6.6.6, For=\"1.1.1.1:4000\";proto=https, for=10.0.0.2"],
                "1.1.1.1",
            ),
            ("10.0.0.1", &["for=\"[2001:db8::1]:4000\"", "for=10.0.0.2"], "2001:db8::1"),
            ("10.0.0.1", &["for=6.6.6.6, for=_hidden, for=10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["for=6.6.6.6, for=unknown"], "10.0.0.1"),
            ("10.0.0.1", &["for=6.6.6.6, nonsense, for=10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["for=\"6.6.6.6, for=1.1.1.1"], "10.0.0.1"),
            ("10.0.0.1", &["proto=https"], "10.0.0.1"),
        ] {
            let fields: Vec<_> = forwarded.iter().map(|value| ("Forwarded", *value)).collect();
            assert_eq!(client(ip, &fields), expected, "{ip} {forwarded:?}");
        }
        let both = [("Forwarded", "for=6.6.6.6"), ("X-Forwarded-For", "1.1.1.1")];
        assert_eq!(client("10.0.0.1", &both), "1.1.1.1");
    }
}
