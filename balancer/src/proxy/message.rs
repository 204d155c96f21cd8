//! The heads that are sent on, to replicas and to clients: always well-formed, with one framing.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};

use super::peer::Peer;
use crate::config::ForwardedConfig;
use crate::hop;
use crate::http1::answer::{Answer, StatusLine};
use crate::http1::field::Kind;
use crate::http1::forwarded::{address, hops};
use crate::http1::head::{Head, Line, Run, put};
use crate::http1::request::{Request, is_tunnelled};
use crate::http1::{Framing, Options, head::Span};
use crate::routing::key::RequestId;

/// The go-ahead for a body (RFC 9110 15.2.1).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A client's request.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// What its head means.
    pub request: &'a Request,
    /// The bytes of the head.
    pub head: &'a [u8],
    /// Its fields.
    pub lines: &'a [Line],
    /// Who sent it.
    pub peer: &'a Peer,
    /// Its id, given or made.
    pub id: &'a RequestId,
}

/// What is decided about an answer's head.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a> {
    /// How the body goes out.
    pub framing: Framing,
    /// The connection ends after it.
    pub close: bool,
    /// The client speaks HTTP/1.0 and its connection goes on.
    pub keep_alive: bool,
    /// The time, for an answer that does not tell it (RFC 9110 6.6.1).
    pub date: &'a [u8],
    /// The name in `Via`.
    pub via: Option<&'a str>,
    /// A cookie that the client gets.
    pub cookie: Option<&'a str>,
}

/// What becomes of a request's field.
enum Crosses<'a> {
    AsItIs,
    Not,
    /// With another value.
    As(&'a [u8]),
    /// `Max-Forwards`.
    OneHopLess(u64),
}

// === impl Asked ===

impl Asked<'_> {
    /// Writes the head for a replica.
    pub fn put_request(&self, out: &mut Vec<u8>, forwarded: &ForwardedConfig, replica: SocketAddr) {
        let Self { request, head, .. } = self;
        out.extend_from_slice(request.method.of(head));
        out.push(b' ');
        let (first, rest) = request.target(head);
        out.extend_from_slice(first);
        out.extend_from_slice(rest);
        out.extend_from_slice(b" HTTP/1.1\r\n");
        // RFC 9112 3.2: HTTP/1.1 needs one; a client of HTTP/1.0 may have none.
        if request.minor == 0 && !self.lines.iter().any(|line| line.kind == Kind::Host) {
            match request.host {
                Some(host) => put(out, b"Host", host.of(head)),
                None => put(out, b"Host", replica.to_string().as_bytes()),
            }
        }
        let mut run = Run::default();
        for line in self.lines {
            match self.crosses(line) {
                Crosses::AsItIs => run.add(line, head, out),
                Crosses::Not => {}
                Crosses::As(value) => {
                    run.end(head, out);
                    put(out, line.name.of(head), value);
                }
                Crosses::OneHopLess(hops) => {
                    run.end(head, out);
                    put(out, line.name.of(head), itoa::Buffer::new().format(hops).as_bytes());
                }
            }
        }
        run.end(head, out);
        self.put_forwarded(out, forwarded);
        out.extend_from_slice(hop::line().as_bytes());
        if self.id.is_made() {
            put(out, b"X-Request-Id", self.id.as_bytes());
        }
        if let Some(via) = &forwarded.via {
            put_via(out, request.minor, via);
        }
        match (request.upgrade, request.takes_trailers) {
            (Some(upgrade), _) => put_upgrade(out, upgrade.of(head)),
            // RFC 9110 10.1.4: whoever sends TE names it.
            (None, true) => out.extend_from_slice(b"TE: trailers\r\nConnection: TE\r\n"),
            (None, false) => {}
        }
        put_framing(out, request.framing);
        out.extend_from_slice(b"\r\n");
    }

    /// Returns how often the request has passed through this process.
    pub fn passes(&self) -> usize {
        self.values(Kind::Hop).map(hop::passes).sum()
    }

    fn crosses(&self, line: &Line) -> Crosses<'_> {
        let Self { request, head, .. } = self;
        if is_named_away(line, &request.options, head) {
            return Crosses::Not;
        }
        match line.kind {
            // RFC 9112 3.2.2: of an absolute target, not of the field.
            Kind::Host => match request.host {
                Some(host) if host != line.value => Crosses::As(host.of(head)),
                Some(_) | None => Crosses::AsItIs,
            },
            Kind::XRequestId if line.value.is_empty() => Crosses::Not,
            // RFC 9110 10.1.1: not of HTTP/1.0.
            Kind::Expect if request.minor == 0 => Crosses::Not,
            Kind::MaxForwards => match request.max_forwards {
                Some(hops) => Crosses::OneHopLess(hops.saturating_sub(1)),
                None => Crosses::AsItIs,
            },
            // Written anew: see `put_forwarded`.
            Kind::Forwarded | Kind::XForwardedFor => Crosses::Not,
            // A trusted proxy writes its fields with hyphens, so these are not its own.
            Kind::Lookalike => Crosses::Not,
            Kind::XForwardedHost
            | Kind::XForwardedOther
            | Kind::XForwardedProto
            | Kind::XRealIp
                if !self.peer.is_trusted() =>
            {
                Crosses::Not
            }
            kind if kind.is_hop_by_hop() => Crosses::Not,
            Kind::Other
            | Kind::Authorization
            | Kind::Connection
            | Kind::ContentLength
            | Kind::Date
            | Kind::Expect
            | Kind::Hop
            | Kind::KeepAlive
            | Kind::ProxyAuthenticate
            | Kind::ProxyAuthorization
            | Kind::ProxyConnection
            | Kind::Te
            | Kind::Trailer
            | Kind::TransferEncoding
            | Kind::Upgrade
            | Kind::WwwAuthenticate
            | Kind::XForwardedHost
            | Kind::XForwardedOther
            | Kind::XForwardedProto
            | Kind::XRealIp
            | Kind::XRequestId => Crosses::AsItIs,
        }
    }

    /// Writes the fields that describe the client. Only the values of a trusted proxy are kept.
    /// Where it sent `Forwarded` and no `X-Forwarded-For`, the `X-Forwarded-*` fields that it did
    /// not send are derived from `Forwarded`, so that both tell the replica the same.
    fn put_forwarded(&self, out: &mut Vec<u8>, forwarded: &ForwardedConfig) {
        let Self { request, head, peer, .. } = self;
        let trusted = peer.is_trusted();
        let has_list = trusted && request.forwarded_for.is_some();
        let has_standard = trusted && request.has_forwarded;
        let origin = (has_standard && !has_list)
            .then(|| peer.origin_of_forwarded(self.lines, head, &forwarded.trust));
        out.extend_from_slice(b"X-Forwarded-For: ");
        if has_list {
            for value in self.values(Kind::XForwardedFor) {
                out.extend_from_slice(value);
                out.extend_from_slice(b", ");
            }
        } else if has_standard {
            for hop in self.values(Kind::Forwarded).filter_map(hops).flatten() {
                put_node(out, hop.and_then(|hop| hop.address));
                out.extend_from_slice(b", ");
            }
        }
        out.extend_from_slice(peer.text().as_bytes());
        out.extend_from_slice(b"\r\n");
        let has = |kind| trusted && self.lines.iter().any(|line| line.kind == kind);
        if !has(Kind::XForwardedProto) {
            let told = origin.as_ref().and_then(|origin| origin.proto);
            put(out, b"X-Forwarded-Proto", told.unwrap_or(peer.scheme.as_bytes()));
        }
        if !has(Kind::XForwardedHost) {
            let told = origin.as_ref().and_then(|origin| origin.host);
            if let Some(host) = told.or(request.host.map(|host| host.of(head))) {
                put(out, b"X-Forwarded-Host", host);
            }
        }
        if has_standard || forwarded.rfc7239 {
            self.put_standard(out, has_list, has_standard);
        }
    }

    /// Writes `Forwarded` (RFC 7239): the elements of a trusted proxy and one for the client. Where
    /// it sent `X-Forwarded-For` only, each address there becomes an element.
    fn put_standard(&self, out: &mut Vec<u8>, has_list: bool, has_standard: bool) {
        let Self { request, head, peer, .. } = self;
        out.extend_from_slice(b"Forwarded: ");
        if has_standard {
            // A malformed value would spoil the elements that follow it.
            let is_good = |value: &&[u8]| {
                hops(value).is_some_and(|hops| !hops.is_empty() && hops.iter().all(Option::is_some))
            };
            for value in self.values(Kind::Forwarded).filter(is_good) {
                out.extend_from_slice(value);
                out.extend_from_slice(b", ");
            }
        } else if has_list {
            let all = self.values(Kind::XForwardedFor);
            for hop in all.flat_map(|value| value.split(|byte| *byte == b',')) {
                put_for(out, address(hop.trim_ascii()));
                out.extend_from_slice(b", ");
            }
        }
        put_for(out, Some(peer.ip()));
        if let Some(host) = request.host.filter(|host| !host.is_empty()) {
            out.extend_from_slice(b";host=\"");
            out.extend_from_slice(host.of(head));
            out.push(b'"');
        }
        out.extend_from_slice(b";proto=");
        out.extend_from_slice(peer.scheme.as_bytes());
        out.extend_from_slice(b"\r\n");
    }

    /// The values of all fields of a kind, in order.
    fn values(&self, kind: Kind) -> impl Iterator<Item = &[u8]> {
        let lines = self.lines.iter().filter(move |line| line.kind == kind);
        lines.map(|line| line.value.of(self.head))
    }

    /// Writes the head of a replica's answer for the client.
    pub fn put_answer(
        &self,
        out: &mut Vec<u8>,
        answer: &Answer,
        head: &Head<StatusLine>,
        bytes: &[u8],
        reply: &Reply<'_>,
    ) {
        put_status(out, answer.status, answer.reason, bytes);
        let mut run = Run::default();
        for line in head.lines() {
            let stays = line.kind.is_hop_by_hop() || is_named_away(line, &answer.options, bytes);
            if !stays {
                run.add(line, bytes, out);
            }
        }
        run.end(bytes, out);
        if !answer.has_id {
            put(out, b"X-Request-Id", self.id.as_bytes());
        }
        if let Some(cookie) = reply.cookie {
            put(out, b"Set-Cookie", cookie.as_bytes());
        }
        if !answer.has_date {
            put(out, b"Date", reply.date);
        }
        if let Some(via) = reply.via {
            let minor = head.start().map_or(1, |line| line.minor);
            put_via(out, minor, via);
        }
        match (reply.framing, answer.length) {
            // RFC 9110 8.6: what the length would be, of an answer that has no body here.
            (Framing::None, Some(length)) if answer.status >= 200 && answer.status != 204 => {
                put_framing(out, Framing::Length(length));
            }
            (framing, _) => put_framing(out, framing),
        }
        if answer.status == 101 {
            put_upgrade(out, answer.upgrade.map_or(b"", |protocol| protocol.of(bytes)));
        } else {
            put_connection(out, reply.close, reply.keep_alive);
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// Whether a field does not cross because `Connection` names it. One that means something here
/// crosses all the same (RFC 9110 7.6.1: such a field must not be named): what was understood and
/// what is sent would differ.
fn is_named_away(line: &Line, options: &Options, head: &[u8]) -> bool {
    line.kind.may_be_named_away() && options.names(head, line.name.of(head))
}

fn put_status(out: &mut Vec<u8>, status: u16, reason: Span, bytes: &[u8]) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
    out.push(b' ');
    out.extend_from_slice(reason.of(bytes));
    out.extend_from_slice(b"\r\n");
}

/// Writes what delimits a body.
pub fn put_framing(out: &mut Vec<u8>, framing: Framing) {
    match framing {
        Framing::Length(length) => {
            put(out, b"Content-Length", itoa::Buffer::new().format(length).as_bytes());
        }
        Framing::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        Framing::None | Framing::UntilClose => {}
    }
}

/// Writes whether the client's connection goes on, where that is not plain.
pub fn put_connection(out: &mut Vec<u8>, close: bool, keep_alive: bool) {
    if close {
        out.extend_from_slice(b"Connection: close\r\n");
    } else if keep_alive {
        out.extend_from_slice(b"Connection: keep-alive\r\n");
    }
}

/// Writes an address into `X-Forwarded-For`.
fn put_node(out: &mut Vec<u8>, address: Option<IpAddr>) {
    match address {
        // Writing to a vector cannot fail.
        Some(address) => _ = write!(out, "{address}"),
        None => out.extend_from_slice(b"unknown"),
    }
}

/// Writes an address into `Forwarded`: IPv6 in brackets and quotes (RFC 7239 6).
fn put_for(out: &mut Vec<u8>, address: Option<IpAddr>) {
    _ = match address {
        Some(IpAddr::V4(address)) => write!(out, "for={address}"),
        Some(IpAddr::V6(address)) => write!(out, "for=\"[{address}]\""),
        None => write!(out, "for=unknown"),
    };
}

fn put_via(out: &mut Vec<u8>, minor: u8, name: &str) {
    out.extend_from_slice(if minor == 0 { b"Via: 1.0 " } else { b"Via: 1.1 " });
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Writes a change of protocol. `h2c` is left out: a tunnel of HTTP/2 would carry requests that
/// nobody here has looked at.
fn put_upgrade(out: &mut Vec<u8>, protocols: &[u8]) {
    out.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: ");
    let mut first = true;
    for protocol in protocols.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
        if !is_tunnelled(protocol) {
            continue;
        }
        if !std::mem::take(&mut first) {
            out.extend_from_slice(b", ");
        }
        out.extend_from_slice(protocol);
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests;
