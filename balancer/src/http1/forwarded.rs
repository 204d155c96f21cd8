//! `Forwarded` (RFC 7239), and addresses as proxies write them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smallvec::SmallVec;

use super::field::{is_host, is_token};

/// One element of `Forwarded`: what one proxy says of the request that it received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hop<'a> {
    /// The sender of the request, if `for` gives its address. `unknown` and obfuscated identifiers
    /// (RFC 7239 6.2, 6.3) have none.
    pub address: Option<IpAddr>,
    /// The scheme that the sender used.
    pub proto: Option<&'a [u8]>,
    /// The host that the sender asked for.
    pub host: Option<&'a [u8]>,
}

/// The elements of one field value, in order. `None` stands for a malformed element.
pub type Hops<'a> = SmallVec<[Option<Hop<'a>>; 4]>;

/// Reads one value of `Forwarded`. Returns `None` where its quotes are not balanced: then it is
/// uncertain where each element ends. Empty elements are skipped (RFC 9110 5.6.1).
pub fn hops(value: &[u8]) -> Option<Hops<'_>> {
    let mut hops = Hops::new();
    let mut rest = value;
    loop {
        let (element, end) = split(rest, b',')?;
        let element = element.trim_ascii();
        if !element.is_empty() {
            hops.push(hop(element));
        }
        match end {
            Some(end) => rest = &rest[end..],
            None => return Some(hops),
        }
    }
}

/// Reads an address with or without a port: `203.0.113.7`, `203.0.113.7:4000`, `2001:db8::1`,
/// `[2001:db8::1]` or `[2001:db8::1]:4000`. IPv4 addresses inside IPv6 become plain ones.
pub fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    if let Some(rest) = text.strip_prefix('[') {
        let (ip, port) = rest.split_once(']')?;
        let ip: Ipv6Addr = ip.parse().ok()?;
        let good = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return good.then(|| IpAddr::V6(ip).to_canonical());
    }
    if let Some((ip, port)) = text.split_once(':')
        && !port.contains(':')
    {
        let ip: Ipv4Addr = ip.parse().ok()?;
        return is_port(port).then_some(IpAddr::V4(ip));
    }
    text.parse().ok().map(|ip: IpAddr| ip.to_canonical())
}

/// Reports whether text is a port: digits, or an obfuscated one (RFC 7239 6).
fn is_port(text: &str) -> bool {
    match text.strip_prefix('_') {
        Some(name) => is_token(name.as_bytes()),
        None => text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok(),
    }
}

/// Splits at the first `at` outside quotes: what is before it, and where the rest begins.
/// Returns `None` where a quote is not closed.
fn split(text: &[u8], at: u8) -> Option<(&[u8], Option<usize>)> {
    let (mut quoted, mut escaped) = (false, false);
    for (place, byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            byte if *byte == at && !quoted => return Some((&text[..place], Some(place + 1))),
            _ => {}
        }
    }
    (!quoted).then_some((text, None))
}

/// Reads one element: `name=value` pairs, each name at most once (RFC 7239 4).
fn hop(element: &[u8]) -> Option<Hop<'_>> {
    let mut hop = Hop::default();
    let (mut has_for, mut has_by) = (false, false);
    let mut rest = element;
    loop {
        let (pair, end) = split(rest, b';')?;
        let pair = pair.trim_ascii();
        if !pair.is_empty() {
            let equals = pair.iter().position(|byte| *byte == b'=')?;
            let (name, value) = (&pair[..equals], unquoted(&pair[equals + 1..])?);
            if !is_token(name) {
                return None;
            }
            if name.eq_ignore_ascii_case(b"for") {
                if std::mem::replace(&mut has_for, true) {
                    return None;
                }
                hop.address = address(value);
            } else if name.eq_ignore_ascii_case(b"by") {
                if std::mem::replace(&mut has_by, true) {
                    return None;
                }
            } else if name.eq_ignore_ascii_case(b"proto") {
                if hop.proto.is_some() || !is_scheme(value) {
                    return None;
                }
                hop.proto = Some(value);
            } else if name.eq_ignore_ascii_case(b"host") {
                if hop.host.is_some() || value.is_empty() || !is_host(value) {
                    return None;
                }
                hop.host = Some(value);
            }
        }
        match end {
            Some(end) => rest = &rest[end..],
            None => return Some(hop),
        }
    }
}

/// Returns a value without its quotes. Proxies often leave them out where the standard demands
/// them, as around a port, so any visible bytes but delimiters are a value. A quoted value with a
/// backslash is refused: none of the values that are used here needs one.
fn unquoted(value: &[u8]) -> Option<&[u8]> {
    match value {
        [b'"', inner @ .., b'"'] => {
            inner.iter().all(|byte| !b"\"\\".contains(byte)).then_some(inner)
        }
        [] => None,
        plain => {
            let good = |byte: &u8| byte.is_ascii_graphic() && !b"\"\\,;".contains(byte);
            plain.iter().all(good).then_some(plain)
        }
    }
}

/// RFC 3986 3.1.
fn is_scheme(text: &[u8]) -> bool {
    let rest = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
    text.first().is_some_and(u8::is_ascii_alphabetic) && text.iter().all(rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn addresses(value: &str) -> Option<Vec<Option<String>>> {
        let hops = hops(value.as_bytes())?;
        let text = |hop: &Option<Hop<'_>>| match hop {
            None => Some("malformed".to_owned()),
            Some(hop) => hop.address.map(|ip| ip.to_string()),
        };
        Some(hops.iter().map(text).collect())
    }

    #[test]
    fn an_address_is_read_with_and_without_a_port_and_brackets() {
        for (text, expected) in [
            ("203.0.113.7", Some("203.0.113.7")),
            ("203.0.113.7:4000", Some("203.0.113.7")),
            ("203.0.113.7:_x", Some("203.0.113.7")),
            ("2001:db8::1", Some("2001:db8::1")),
            ("[2001:db8::1]", Some("2001:db8::1")),
            ("[2001:db8::1]:4000", Some("2001:db8::1")),
            ("::ffff:1.2.3.4", Some("1.2.3.4")),
            ("[::ffff:1.2.3.4]:1", Some("1.2.3.4")),
            ("203.0.113.7:", None),
            ("203.0.113.7:65536", None),
            ("203.0.113.7:+1", None),
            ("203.0.113.7:1:2", None),
            ("[203.0.113.7]:1", None),
            ("[2001:db8::1]4000", None),
            ("[2001:db8::1", None),
            ("2001:db8::1]:4000", None),
            ("name:80", None),
            ("unknown", None),
            ("_hidden", None),
            ("", None),
        ] {
            let read = address(text.as_bytes()).map(|ip| ip.to_string());
            assert_eq!(read.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn elements_are_read_as_the_standard_writes_them() {
        // The examples of RFC 7239 4 and 7.
        for (value, expected) in [
            ("for=\"_gazonk\"", vec![None]),
            ("For=\"[2001:db8:cafe::17]:4711\"", vec![Some("2001:db8:cafe::17")]),
            ("for=192.0.2.60;proto=http;by=203.0.113.43", vec![Some("192.0.2.60")]),
            ("for=192.0.2.43, for=198.51.100.17", vec![Some("192.0.2.43"), Some("198.51.100.17")]),
            ("for=192.0.2.43,for=unknown,, ", vec![Some("192.0.2.43"), None]),
            ("for=192.0.2.43:80 ; HOST=\"a:1\"", vec![Some("192.0.2.43")]),
            ("host=\"a, b\", for=1.1.1.1", vec![Some("malformed"), Some("1.1.1.1")]),
            ("for=1.1.1.1;for=2.2.2.2", vec![Some("malformed")]),
            ("for 1.1.1.1", vec![Some("malformed")]),
            ("for=", vec![Some("malformed")]),
            ("secret=\"a;b\";for=1.1.1.1", vec![Some("1.1.1.1")]),
            ("proto=1x", vec![Some("malformed")]),
            ("", vec![]),
        ] {
            let expected: Vec<Option<String>> =
                expected.iter().map(|text| text.map(str::to_owned)).collect();
            assert_eq!(addresses(value), Some(expected), "{value}");
        }
        for unbalanced in ["for=\"1.1.1.1", "a=\"x\\\", for=1.1.1.1", "for=\"x, for=2.2.2.2"] {
            assert_eq!(addresses(unbalanced), None, "{unbalanced}");
        }
        let all = hops(b"for=1.1.1.1;proto=https;host=\"pub.example:8443\"").unwrap();
        let hop = all[0].unwrap();
        assert_eq!((hop.proto, hop.host), (Some(&b"https"[..]), Some(&b"pub.example:8443"[..])));
    }

    proptest! {
        #[test]
        fn an_appended_element_is_the_last_whatever_balanced_text_is_before_it(
            before in "([a-z=;,. ]|\"[a-z,;=]*\"){0,20}",
        ) {
            let value = format!("{before}, for=192.0.2.9;proto=http");
            let hops = hops(value.as_bytes()).expect("balanced");
            let last = hops.last().copied().flatten().expect("well-formed");
            prop_assert_eq!(last.address, Some(IpAddr::from([192, 0, 2, 9])));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(value: Vec<u8>) {
            let _read = hops(&value);
            let _address = address(&value);
        }
    }
}
