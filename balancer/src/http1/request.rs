//! What the head of a request says.

use thiserror::Error;

use super::auth::Auth;
use super::field::{Kind, is_host, is_token, is_token_byte};
use super::head::{BadHead, Head, HeadLimits, Line, Span, StartLine, minor_version};
use super::{Framing, Options, content_length};

/// `GET /path HTTP/1.1`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLine {
    /// The method: any token, its case kept.
    pub method: Span,
    /// The target as it came.
    pub target: Span,
    /// 0 or 1.
    pub minor: u8,
}

/// What a whole head means; used again for the next one.
#[derive(Clone, Debug)]
pub struct Request {
    /// How its body is delimited.
    pub framing: Framing,
    /// The method.
    pub method: Span,
    /// What is asked for, in the form in which it is forwarded. Empty where an absolute target
    /// had no path.
    pub target: Span,
    /// The host: of an absolute target, else of the `Host` field. `None` in HTTP/1.0 only.
    pub host: Option<Span>,
    /// The minor version.
    pub minor: u8,
    /// What its `Connection` fields say.
    pub options: Options,
    /// The client waits for a 100 before it sends the body (RFC 9110 10.1.1).
    pub expects: bool,
    /// The client takes trailers (RFC 9110 10.1.4).
    pub takes_trailers: bool,
    /// The protocols that it would change to, where that is forwarded.
    pub upgrade: Option<Span>,
    /// `X-Request-Id`, the first one that is not empty.
    pub id: Option<Span>,
    /// The first `X-Forwarded-For`.
    pub forwarded_for: Option<Span>,
    /// Whether there is a `Forwarded`.
    pub has_forwarded: bool,
    /// Whether there is an `X-Balancer-Hop`: a balancer has forwarded the request.
    pub has_hop: bool,
    /// `Max-Forwards`, of TRACE and OPTIONS (RFC 9110 7.6.2).
    pub max_forwards: Option<u64>,
    /// What its credentials do to the connection.
    pub auth: Auth,
}

/// Why a request is refused though its head can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadRequest {
    /// RFC 9112 6.1: a reader that believes the one and a reader that believes the other differ.
    #[error("the request has both Content-Length and Transfer-Encoding")]
    LengthAndChunks,
    /// RFC 9110 8.6.
    #[error("'Content-Length' is malformed, or there are several that differ")]
    Length,
    /// RFC 9112 6.1: anything but exactly `chunked`.
    #[error("'Transfer-Encoding' must be exactly 'chunked', once, and only in HTTP/1.1")]
    TransferEncoding,
    /// RFC 9112 3.2.
    #[error("there must be one 'Host' field")]
    Hosts,
    /// RFC 9112 3.2.
    #[error("'Host' is malformed")]
    Host,
    /// RFC 9112 3.2.1 to 3.2.4.
    #[error("the request target is malformed")]
    Target,
    /// RFC 9110 9.3.6: nothing behind this balancer is a tunnel's end.
    #[error("method CONNECT is not supported")]
    Connect,
    /// RFC 9110 7.6.2.
    #[error("'Max-Forwards' is malformed")]
    MaxForwards,
}

// === impl RequestLine ===

impl StartLine for RequestLine {
    const LOOSE_NAMES: bool = false;
    const TOO_LONG: BadHead = BadHead::TargetTooLong;

    fn may_begin(bytes: &[u8]) -> bool {
        bytes.first().is_none_or(|byte| is_token_byte(*byte))
    }

    /// RFC 9112 3: one space between the parts. What else a client may put there is refused.
    fn parse(line: &[u8], limits: &HeadLimits) -> Result<Self, BadHead> {
        let method = line.iter().position(|byte| !is_token_byte(*byte)).unwrap_or(line.len());
        if method == 0 || line.get(method) != Some(&b' ') {
            return Err(BadHead::StartLine);
        }
        let rest = &line[method + 1..];
        let length = rest.iter().position(|byte| *byte == b' ').ok_or(BadHead::StartLine)?;
        let minor = minor_version(&rest[length + 1..])?;
        if length > limits.target {
            return Err(BadHead::TargetTooLong);
        }
        // RFC 9112 3.2: a target has no white space; a fragment is no part of it. Bytes beyond
        // ASCII are not in a URI, either. All others cross byte for byte.
        let graphic = |byte: &u8| byte.is_ascii_graphic() && *byte != b'#';
        if length == 0 || !rest[..length].iter().all(graphic) {
            return Err(BadHead::Target);
        }
        let target = Span::new(method + 1, method + 1 + length);
        Ok(Self { method: Span::new(0, method), target, minor })
    }
}

// === impl Request ===

impl Request {
    /// Of nothing.
    pub fn new() -> Self {
        Self {
            framing: Framing::None,
            method: Span::default(),
            target: Span::default(),
            host: None,
            minor: 1,
            options: Options::default(),
            expects: false,
            takes_trailers: false,
            upgrade: None,
            id: None,
            forwarded_for: None,
            has_forwarded: false,
            has_hop: false,
            max_forwards: None,
            auth: Auth::default(),
        }
    }

    /// Makes sense of a whole head.
    ///
    /// # Errors
    /// [`BadRequest`], where it could be understood in two ways or not at all.
    pub fn read(&mut self, head: &Head<RequestLine>, bytes: &[u8]) -> Result<(), BadRequest> {
        let mut options = std::mem::take(&mut self.options);
        options.clear();
        let line = head.start().expect("a whole head has a start line");
        *self = Self {
            method: line.method,
            target: line.target,
            minor: line.minor,
            options,
            ..Self::new()
        };
        let seen = self.read_fields(head.lines(), bytes)?;
        self.framing = seen.framing(self.minor)?;
        self.host = seen.host(self.minor, bytes)?;
        self.read_target(bytes)?;
        // RFC 9110 7.8: an upgrade is of this connection, named in `Connection`, and of HTTP/1.1.
        // A body would have to be sent first; such a request is answered without changing over. A
        // length of 0 is no body: some clients send it with every request.
        let is_empty = matches!(self.framing, Framing::None | Framing::Length(0));
        let may_change = self.options.upgrade && self.minor == 1 && is_empty;
        let wanted = |value: &Span| value.of(bytes).split(|byte| *byte == b',').any(is_tunnelled);
        self.upgrade = seen.upgrade.filter(|value| may_change && wanted(value));
        self.expects &= self.minor == 1;
        Ok(())
    }

    fn read_fields(&mut self, lines: &[Line], bytes: &[u8]) -> Result<Seen, BadRequest> {
        let mut seen = Seen::default();
        let counts_hops = [&b"TRACE"[..], b"OPTIONS"].contains(&self.method.of(bytes));
        for line in lines {
            let value = line.value.of(bytes);
            match line.kind {
                Kind::Host => {
                    seen.hosts += 1;
                    seen.host = Some(line.value);
                }
                Kind::ContentLength => {
                    let length = content_length(seen.length, value).ok_or(BadRequest::Length)?;
                    seen.length = Some(length);
                }
                Kind::TransferEncoding => {
                    seen.codings += 1;
                    seen.chunked = value.eq_ignore_ascii_case(b"chunked");
                }
                Kind::Connection => self.options.read(bytes, line.value),
                Kind::Expect => self.expects |= value.eq_ignore_ascii_case(b"100-continue"),
                Kind::Te => self.takes_trailers |= has_trailers(value),
                Kind::Upgrade => seen.upgrade = seen.upgrade.or(Some(line.value)),
                Kind::XRequestId => {
                    self.id = self.id.or(Some(line.value).filter(|id| !id.is_empty()));
                }
                Kind::XForwardedFor => self.forwarded_for = self.forwarded_for.or(Some(line.value)),
                Kind::Forwarded => self.has_forwarded = true,
                Kind::Hop => self.has_hop = true,
                Kind::MaxForwards if !counts_hops => {}
                Kind::MaxForwards => {
                    let hops = content_length(self.max_forwards, value);
                    self.max_forwards = Some(hops.ok_or(BadRequest::MaxForwards)?);
                }
                Kind::Authorization | Kind::ProxyAuthorization => self.auth.read(value),
                Kind::Other
                | Kind::Date
                | Kind::KeepAlive
                | Kind::Lookalike
                | Kind::ProxyAuthenticate
                | Kind::ProxyConnection
                | Kind::Trailer
                | Kind::WwwAuthenticate
                | Kind::XForwardedHost
                | Kind::XForwardedOther
                | Kind::XForwardedProto
                | Kind::XRealIp => {}
            }
        }
        Ok(seen)
    }

    /// RFC 9112 3.2: the four forms. An absolute one is forwarded as the others would have been,
    /// and its authority is the host (3.2.2).
    fn read_target(&mut self, bytes: &[u8]) -> Result<(), BadRequest> {
        let (method, target) = (self.method.of(bytes), self.target.of(bytes));
        if method == b"CONNECT" {
            return Err(BadRequest::Connect);
        }
        match target {
            [b'/', ..] => return Ok(()),
            b"*" if method == b"OPTIONS" => return Ok(()),
            _ => {}
        }
        let scheme = [&b"http://"[..], b"https://"].into_iter().find(|scheme| {
            target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
        });
        let authority = self.target.start() + scheme.ok_or(BadRequest::Target)?.len();
        let rest = &bytes[authority..self.target.start() + target.len()];
        let length = rest.iter().position(|byte| matches!(byte, b'/' | b'?'));
        let length = length.unwrap_or(rest.len());
        // RFC 9110 4.2.1: with a host that is not empty.
        if matches!(rest[..length], [] | [b':', ..]) || !is_host(&rest[..length]) {
            return Err(BadRequest::Target);
        }
        self.host = Some(Span::new(authority, authority + length));
        self.target = Span::new(authority + length, authority + rest.len());
        Ok(())
    }

    /// The target as it is forwarded: what is written first, and the rest (RFC 9112 3.2.2, 3.2.4).
    pub fn target<'a>(&self, bytes: &'a [u8]) -> (&'static [u8], &'a [u8]) {
        let target = self.target.of(bytes);
        match target.first() {
            None if self.method.of(bytes) == b"OPTIONS" => (b"*", target),
            None | Some(b'?') => (b"/", target),
            Some(_) => (b"", target),
        }
    }

    /// The path of the target, without its query.
    pub fn path<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        let target = self.target.of(bytes);
        let end = target.iter().position(|byte| *byte == b'?').unwrap_or(target.len());
        if end == 0 { b"/" } else { &target[..end] }
    }

    /// The query, without its `?`.
    pub fn query<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let target = self.target.of(bytes);
        let mark = target.iter().position(|byte| *byte == b'?')?;
        Some(&target[mark + 1..])
    }

    /// Whether a request that may have been done once may be sent again (RFC 9110 9.2.2).
    pub fn is_idempotent(&self, bytes: &[u8]) -> bool {
        let method = self.method.of(bytes);
        [&b"GET"[..], b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"TRACE"].contains(&method)
    }

    /// Whether the client wants the connection to go on (RFC 9112 9.3).
    pub fn wants_more(&self) -> bool {
        !self.options.close && (self.minor == 1 || self.options.keep_alive)
    }
}

impl Default for Request {
    fn default() -> Self {
        Self::new()
    }
}

/// What the fields say that only means something together.
#[derive(Default)]
struct Seen {
    hosts: usize,
    host: Option<Span>,
    length: Option<u64>,
    codings: usize,
    chunked: bool,
    upgrade: Option<Span>,
}

// === impl Seen ===

impl Seen {
    fn framing(&self, minor: u8) -> Result<Framing, BadRequest> {
        match (self.codings, self.length) {
            (0, None) => Ok(Framing::None),
            (0, Some(length)) => Ok(Framing::Length(length)),
            (_, Some(_)) => Err(BadRequest::LengthAndChunks),
            (1, None) if self.chunked && minor == 1 => Ok(Framing::Chunked),
            (_, None) => Err(BadRequest::TransferEncoding),
        }
    }

    fn host(&self, minor: u8, bytes: &[u8]) -> Result<Option<Span>, BadRequest> {
        match (self.hosts, self.host) {
            (0, _) if minor == 0 => Ok(None),
            (1, Some(host)) if is_host(host.of(bytes)) => Ok(Some(host)),
            (1, _) => Err(BadRequest::Host),
            _ => Err(BadRequest::Hosts),
        }
    }
}

fn has_trailers(te: &[u8]) -> bool {
    te.split(|byte| *byte == b',')
        .any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

/// Whether a connection may change to this protocol. Not to another HTTP: such a tunnel would carry
/// requests that nobody here has looked at.
pub fn is_tunnelled(protocol: &[u8]) -> bool {
    let mut parts = protocol.trim_ascii().splitn(2, |byte| *byte == b'/');
    let name = parts.next().unwrap_or_default();
    // RFC 9110 7.8: tokens. Who knows what others would find in anything else.
    is_token(name)
        && parts.all(is_token)
        && ![&b"h2c"[..], b"h2", b"http", b"tls"].iter().any(|no| name.eq_ignore_ascii_case(no))
}

#[cfg(test)]
mod tests;

/// Whether all protocols that an answer changes to were asked for, and there is one.
pub fn are_offered(offered: &[u8], taken: &[u8]) -> bool {
    let mut taken = taken.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    let offered = || offered.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    taken.all(|one| is_tunnelled(one) && offered().any(|offer| offer.eq_ignore_ascii_case(one)))
}
