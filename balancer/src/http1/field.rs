//! Fields: which bytes may be in them, and which of them mean something here.

use std::net::Ipv6Addr;

/// A field that the request path looks at or does not let cross; all others just cross.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any other.
    Other,
    /// `Authorization`
    Authorization,
    /// `Connection`
    Connection,
    /// `Content-Length`
    ContentLength,
    /// `Date`
    Date,
    /// `Expect`
    Expect,
    /// `Forwarded` (RFC 7239)
    Forwarded,
    /// `X-Balancer-Hop`: the balancers that a request has passed through.
    Hop,
    /// `Host`
    Host,
    /// `Keep-Alive`
    KeepAlive,
    /// A field of proxies with an underscore in its name, such as `X_Forwarded_For`. Many servers
    /// do not distinguish it from the one with hyphens (RFC 3875 4.1.18).
    Lookalike,
    /// `Max-Forwards`
    MaxForwards,
    /// `Proxy-Authenticate`
    ProxyAuthenticate,
    /// `Proxy-Authorization`
    ProxyAuthorization,
    /// `Proxy-Connection`
    ProxyConnection,
    /// `TE`
    Te,
    /// `Trailer`
    Trailer,
    /// `Transfer-Encoding`
    TransferEncoding,
    /// `Upgrade`
    Upgrade,
    /// `WWW-Authenticate`
    WwwAuthenticate,
    /// `X-Forwarded-For`
    XForwardedFor,
    /// `X-Forwarded-Host`
    XForwardedHost,
    /// Any other `X-Forwarded-` field, such as `X-Forwarded-Port`
    XForwardedOther,
    /// `X-Forwarded-Proto`
    XForwardedProto,
    /// `X-Real-IP`
    XRealIp,
    /// `X-Request-Id`
    XRequestId,
}

// === impl Kind ===

impl Kind {
    /// The kind of a field by its name, of any case.
    pub fn of(name: &[u8]) -> Self {
        // Few names get as far as a comparison.
        let Some(first) = name.first() else { return Self::Other };
        let (text, kind) = match (name.len(), first | 0x20) {
            (2, b't') => ("te", Self::Te),
            (4, b'h') => ("host", Self::Host),
            (4, b'd') => ("date", Self::Date),
            (6, b'e') => ("expect", Self::Expect),
            (7, b'u') => ("upgrade", Self::Upgrade),
            (7, b't') => ("trailer", Self::Trailer),
            (9, b'f') => ("forwarded", Self::Forwarded),
            (9 | 13.., b'x') => return Self::of_proxies(name),
            (10, b'c') => ("connection", Self::Connection),
            (10, b'k') => ("keep-alive", Self::KeepAlive),
            (12, b'x') => ("x-request-id", Self::XRequestId),
            (12, b'm') => ("max-forwards", Self::MaxForwards),
            (13, b'a') => ("authorization", Self::Authorization),
            (14, b'c') => ("content-length", Self::ContentLength),
            (16, b'w') => ("www-authenticate", Self::WwwAuthenticate),
            (16, b'p') => ("proxy-connection", Self::ProxyConnection),
            (17, b't') => ("transfer-encoding", Self::TransferEncoding),
            (18, b'p') => ("proxy-authenticate", Self::ProxyAuthenticate),
            (19, b'p') => ("proxy-authorization", Self::ProxyAuthorization),
            _ => return Self::Other,
        };
        if name.eq_ignore_ascii_case(text.as_bytes()) { kind } else { Self::Other }
    }

    /// Returns the kind of a name that begins with `x` and may be a field of proxies.
    fn of_proxies(name: &[u8]) -> Self {
        let begins = |text: &[u8]| {
            let same = |(byte, expected): (&u8, &u8)| {
                byte.eq_ignore_ascii_case(expected) || (*byte == b'_' && *expected == b'-')
            };
            name.len() >= text.len() && name.iter().zip(text).all(same)
        };
        let kind = match name.len() {
            9 if begins(b"x-real-ip") => Self::XRealIp,
            14 if name.eq_ignore_ascii_case(b"x-balancer-hop") => return Self::Hop,
            15 if begins(b"x-forwarded-for") => Self::XForwardedFor,
            16 if begins(b"x-forwarded-host") => Self::XForwardedHost,
            17 if begins(b"x-forwarded-proto") => Self::XForwardedProto,
            13.. if begins(b"x-forwarded-") => Self::XForwardedOther,
            _ => return Self::Other,
        };
        if name.contains(&b'_') { Self::Lookalike } else { kind }
    }

    /// Whether such a field speaks of one connection only (RFC 9110 7.6.1), or of the framing,
    /// which every hop makes anew. `Trailer` is for those who see the trailers; they may have
    /// lost some on the way (6.6.2).
    pub fn is_hop_by_hop(self) -> bool {
        match self {
            Self::Connection
            | Self::ContentLength
            | Self::KeepAlive
            | Self::ProxyConnection
            | Self::Te
            | Self::Trailer
            | Self::TransferEncoding
            | Self::Upgrade => true,
            Self::Other
            | Self::Authorization
            | Self::Date
            | Self::Expect
            | Self::Forwarded
            | Self::Hop
            | Self::Host
            | Self::Lookalike
            | Self::MaxForwards
            | Self::ProxyAuthenticate
            | Self::ProxyAuthorization
            | Self::WwwAuthenticate
            | Self::XForwardedFor
            | Self::XForwardedHost
            | Self::XForwardedOther
            | Self::XForwardedProto
            | Self::XRealIp
            | Self::XRequestId => false,
        }
    }

    /// Reports whether `Connection` may name such a field, so that it does not cross (RFC 9110
    /// 7.6.1): fields without a meaning here, and credentials and challenges. Credentials that do
    /// not cross authenticate nothing.
    pub fn may_be_named_away(self) -> bool {
        match self {
            Self::Other
            | Self::Authorization
            | Self::ProxyAuthenticate
            | Self::ProxyAuthorization
            | Self::WwwAuthenticate => true,
            Self::Connection
            | Self::ContentLength
            | Self::Date
            | Self::Expect
            | Self::Forwarded
            | Self::Hop
            | Self::Host
            | Self::KeepAlive
            | Self::Lookalike
            | Self::MaxForwards
            | Self::ProxyConnection
            | Self::Te
            | Self::Trailer
            | Self::TransferEncoding
            | Self::Upgrade
            | Self::XForwardedFor
            | Self::XForwardedHost
            | Self::XForwardedOther
            | Self::XForwardedProto
            | Self::XRealIp
            | Self::XRequestId => false,
        }
    }

    /// Whether a trailer may be such a field: none that says how the message is framed, where it
    /// goes or who sent it (RFC 9110 6.5.1).
    pub fn may_trail(self) -> bool {
        self == Self::Other || self == Self::Date
    }
}

/// Bytes of a token (RFC 9110 5.6.2).
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        let c = byte as u8;
        table[byte] = c.is_ascii_alphanumeric()
            || matches!(
                c,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            );
        byte += 1;
    }
    table
};

/// Whether a byte may be in a token, such as a method or a field's name.
#[inline]
pub fn is_token_byte(byte: u8) -> bool {
    TOKEN[usize::from(byte)]
}

/// Whether bytes are a token: not empty, and nothing else in them.
pub fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| is_token_byte(*byte))
}

/// Whether bytes may be a field's value: tabs, and all that is not a control (RFC 9110 5.5).
pub fn is_value(bytes: &[u8]) -> bool {
    controls(bytes) == 0
}

/// How many control bytes there are, tabs not counted. Without a branch and in sums of one byte, so
/// that it is done sixteen bytes at a time.
pub fn controls(bytes: &[u8]) -> usize {
    let count = |part: &[u8]| {
        part.iter().fold(0_u8, |sum, byte| {
            sum + (u8::from(*byte < b' ') & u8::from(*byte != b'\t')) + u8::from(*byte == 0x7f)
        })
    };
    bytes.chunks(255).map(|part| usize::from(count(part))).sum()
}

/// Whether bytes are `host [":" port]` as in a `Host` field (RFC 9110 7.2, RFC 3986 3.2.2).
pub fn is_host(bytes: &[u8]) -> bool {
    let (host, port) = match bytes {
        [b'[', rest @ ..] => {
            let Some(end) = rest.iter().position(|byte| *byte == b']') else { return false };
            if !is_ipv6(&rest[..end]) {
                return false;
            }
            match &rest[end + 1..] {
                [] => return true,
                [b':', port @ ..] => (&b""[..], port),
                _ => return false,
            }
        }
        _ => match bytes.iter().position(|byte| *byte == b':') {
            Some(colon) => (&bytes[..colon], &bytes[colon + 1..]),
            None => (bytes, &b""[..]),
        },
    };
    is_name(host) && is_port(port)
}

/// An address, with a zone at most (RFC 6874).
fn is_ipv6(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let (address, zone) = text.split_once("%25").unwrap_or((text, "zone"));
    let good_zone = !zone.is_empty() && zone.bytes().all(is_unreserved);
    address.parse::<Ipv6Addr>().is_ok() && good_zone
}

fn is_port(digits: &[u8]) -> bool {
    let value = || digits.iter().fold(0_u32, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit) && value() <= 0xffff
}

/// `reg-name`: unreserved bytes, sub-delimiters but the comma (two hosts in one field are not one
/// host), and percent-encoded ones.
fn is_name(mut host: &[u8]) -> bool {
    loop {
        host = match host {
            [] => return true,
            [b'%', high, low, rest @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                rest
            }
            [byte, rest @ ..] if is_unreserved(*byte) || b"!$&'()*+;=".contains(byte) => rest,
            _ => return false,
        };
    }
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_in_any_case() {
        for (name, kind) in [
            ("HOST", Kind::Host),
            ("content-Length", Kind::ContentLength),
            ("Transfer-Encoding", Kind::TransferEncoding),
            ("te", Kind::Te),
            ("Proxy-Connection", Kind::ProxyConnection),
            ("x-request-ID", Kind::XRequestId),
            ("X-Forwarded-For", Kind::XForwardedFor),
            ("x-forwarded-HOST", Kind::XForwardedHost),
            ("X-FORWARDED-PROTO", Kind::XForwardedProto),
            ("X-Forwarded-Port", Kind::XForwardedOther),
            ("X-Forwarded-Client-Cert", Kind::XForwardedOther),
            ("X-Real-IP", Kind::XRealIp),
            ("forwarded", Kind::Forwarded),
            ("X-Balancer-Hop", Kind::Hop),
            ("X_Forwarded_For", Kind::Lookalike),
            ("x-forwarded_for", Kind::Lookalike),
            ("X_Forwarded-Proto", Kind::Lookalike),
            ("X_FORWARDED_SERVER", Kind::Lookalike),
            ("X_Real-Ip", Kind::Lookalike),
            ("X-Forwarded", Kind::Other),
            ("X-Forwardedly-For", Kind::Other),
            ("X-Real-IPs", Kind::Other),
            ("X-Something-Else", Kind::Other),
            ("authorization", Kind::Authorization),
            ("PROXY-authorization", Kind::ProxyAuthorization),
            ("WWW-Authenticate", Kind::WwwAuthenticate),
            ("Proxy-Authenticate", Kind::ProxyAuthenticate),
            ("www-authenticatf", Kind::Other),
            ("Hosts", Kind::Other),
            ("", Kind::Other),
        ] {
            assert_eq!(Kind::of(name.as_bytes()), kind, "{name}");
        }
    }

    #[test]
    fn values_have_no_controls_but_tabs() {
        assert!(is_value(b"") && is_value("a\tb \u{e4}~".as_bytes()) && is_value(b"\xff\x80"));
        for byte in (0..=0x1f).chain([0x7f]).filter(|byte| *byte != b'\t') {
            let mut value = *b"some value that is longer than sixteen";
            value[20] = byte;
            assert!(!is_value(&value), "{byte:#x}");
        }
    }

    #[test]
    fn hosts_are_names_or_addresses_with_a_port_at_most() {
        for good in [
            "",
            "a",
            "a:80",
            "a:",
            "a.b.",
            "a_b",
            "xn--bcher-kva.example",
            "1.2.3.4:5000",
            "[::1]",
            "[::1]:80",
            "[fe80::1%25eth0]:1",
            "%41b",
            "a:65535",
        ] {
            assert!(is_host(good.as_bytes()), "{good}");
        }
        for bad in [
            "a b",
            "a/b",
            "a,b",
            "user@a",
            "a:port",
            "a:99999",
            "[::1",
            "[]",
            "[::1]x",
            "a:80:80",
            "\u{e4}",
            "a\\b",
            "a?b",
            "a#b",
            "%4",
            "%zz",
            "::1",
            "[a/b]",
            "a\"b",
            "<a>",
            "[xyz]",
            "[::1%25]",
            "[::1%zone]",
        ] {
            assert!(!is_host(bad.as_bytes()), "{bad}");
        }
    }
}
