//! What the head of an answer says.

use thiserror::Error;

use super::auth::Auth;
use super::field::Kind;
use super::head::{BadHead, Head, HeadLimits, Span, StartLine, minor_version};
use super::{Framing, Options, content_length};

/// `HTTP/1.1 200 OK`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusLine {
    /// 0 or 1.
    pub minor: u8,
    /// 100 to 999.
    pub status: u16,
    /// What comes behind it, if anything.
    pub reason: Span,
}

/// What a whole head means; used again for the next one.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The reason.
    pub reason: Span,
    /// How its body is delimited.
    pub framing: Framing,
    /// The length that it tells, also where there is no body (HEAD, 304).
    pub length: Option<u64>,
    /// What its `Connection` fields say.
    pub options: Options,
    /// Whether the connection may be used again once the answer is whole.
    pub keeps: bool,
    /// The protocol that it changes to.
    pub upgrade: Option<Span>,
    /// Whether it says when it was made.
    pub has_date: bool,
    /// Whether it names the request.
    pub has_id: bool,
    /// What its challenges do to the connection.
    pub auth: Auth,
}

/// Why an answer cannot be passed on though its head can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadAnswer {
    /// RFC 9112 6.3.
    #[error("the answer has both Content-Length and Transfer-Encoding")]
    LengthAndChunks,
    /// RFC 9110 8.6.
    #[error("the answer's Content-Length is malformed, or there are several that differ")]
    Length,
    /// RFC 9112 6.1: no other coding was asked for.
    #[error("the answer's Transfer-Encoding is not exactly 'chunked'")]
    TransferEncoding,
}

// === impl StatusLine ===

impl StartLine for StatusLine {
    const LOOSE_NAMES: bool = true;
    const TOO_LONG: BadHead = BadHead::TooLarge;

    fn may_begin(bytes: &[u8]) -> bool {
        let known = b"HTTP/1.";
        let common = bytes.len().min(known.len());
        bytes[..common] == known[..common]
    }

    /// RFC 9112 4. The space before a reason that is not there is often left out.
    fn parse(line: &[u8], _limits: &HeadLimits) -> Result<Self, BadHead> {
        let (version, rest) = line.split_at_checked(8).ok_or(BadHead::StartLine)?;
        let minor = minor_version(version)?;
        let [b' ', a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', reason @ ..] = rest else {
            return Err(BadHead::StartLine);
        };
        let digit = |byte: &u8| u16::from(byte - b'0');
        let status = digit(a) * 100 + digit(b) * 10 + digit(c);
        let good = matches!(reason, [] | [b' ', ..]) && super::field::is_value(reason);
        if !good {
            return Err(BadHead::StartLine);
        }
        let reason = Span::new(line.len().min(13), line.len());
        Ok(Self { minor, status, reason })
    }
}

// === impl Answer ===

impl Answer {
    /// Of nothing.
    pub fn new() -> Self {
        Self {
            status: 0,
            reason: Span::default(),
            framing: Framing::None,
            length: None,
            options: Options::default(),
            keeps: false,
            upgrade: None,
            has_date: false,
            has_id: false,
            auth: Auth::default(),
        }
    }

    /// Makes sense of a whole head; `to_head` tells that the request was HEAD.
    ///
    /// # Errors
    /// [`BadAnswer`], where it could be understood in two ways or not at all.
    pub fn read(
        &mut self,
        head: &Head<StatusLine>,
        bytes: &[u8],
        to_head: bool,
    ) -> Result<(), BadAnswer> {
        let mut options = std::mem::take(&mut self.options);
        options.clear();
        let line = head.start().expect("a whole head has a start line");
        *self = Self { status: line.status, reason: line.reason, options, ..Self::new() };
        let (mut codings, mut chunked) = (0, false);
        for line in head.lines() {
            let value = line.value.of(bytes);
            match line.kind {
                Kind::ContentLength => {
                    let length = content_length(self.length, value).ok_or(BadAnswer::Length)?;
                    self.length = Some(length);
                }
                Kind::TransferEncoding => {
                    codings += 1;
                    chunked = value.eq_ignore_ascii_case(b"chunked");
                }
                Kind::Connection => self.options.read(bytes, line.value),
                Kind::Upgrade => self.upgrade = self.upgrade.or(Some(line.value)),
                Kind::Date => self.has_date = true,
                Kind::XRequestId => self.has_id = true,
                Kind::WwwAuthenticate | Kind::ProxyAuthenticate => self.auth.read(value),
                Kind::Other
                | Kind::Authorization
                | Kind::Expect
                | Kind::Forwarded
                | Kind::Hop
                | Kind::Host
                | Kind::KeepAlive
                | Kind::Lookalike
                | Kind::MaxForwards
                | Kind::ProxyAuthorization
                | Kind::ProxyConnection
                | Kind::Te
                | Kind::Trailer
                | Kind::XForwardedFor
                | Kind::XForwardedHost
                | Kind::XForwardedOther
                | Kind::XForwardedProto
                | Kind::XRealIp => {}
            }
        }
        self.keeps = !self.options.close && (line.minor == 1 || self.options.keep_alive);
        // RFC 9112 6.3: the order of these cases is the standard's.
        self.framing = match (codings, self.length) {
            (0, _) if self.is_bodiless(to_head) => Framing::None,
            (0, Some(length)) => Framing::Length(length),
            (0, None) => Framing::UntilClose,
            (_, Some(_)) => return Err(BadAnswer::LengthAndChunks),
            (1, None) if chunked && line.minor == 1 => {
                if self.is_bodiless(to_head) {
                    Framing::None
                } else {
                    Framing::Chunked
                }
            }
            (_, None) => return Err(BadAnswer::TransferEncoding),
        };
        Ok(())
    }

    /// RFC 9110 6.4.1: these have no content whatever their fields say.
    fn is_bodiless(&self, to_head: bool) -> bool {
        to_head || self.status < 200 || self.status == 204 || self.status == 304
    }

    /// Whether the final answer is still to come (RFC 9110 15.2). A 101 is final here: HTTP ends
    /// with it.
    pub fn is_interim(&self) -> bool {
        self.status < 200 && self.status != 101
    }
}

impl Default for Answer {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
