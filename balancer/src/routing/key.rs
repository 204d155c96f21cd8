//! The key of a request: what decides where it goes.

use std::fmt;
use std::io::Write as _;
use std::net::IpAddr;
use std::str::FromStr;

use rand::{Rng, RngExt as _};
use smallvec::SmallVec;
use thiserror::Error;

/// Which part of a request its key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// The `X-Request-Id` header, else a random six-digit number.
    RequestId,
    /// The client's address, without its port.
    ClientIp,
    /// The path, without the query.
    Path,
    /// Path and query.
    Uri,
    /// The first field of this name.
    Header(String),
    /// The first cookie of this name.
    Cookie(String),
    /// The first parameter of this name in the query, as it is written there (not decoded).
    Query(String),
}

/// What keys are made of; the proxy's request type shows itself so.
pub trait RequestView {
    /// The path as it came.
    fn path(&self) -> &[u8];
    /// The query without its `?`.
    fn query(&self) -> Option<&[u8]>;
    /// The first field of this name (lower case).
    fn header(&self, name: &str) -> Option<&[u8]>;
    /// The client's address.
    fn client_ip(&self) -> IpAddr;
}

/// What a request is called, in `X-Request-Id`: as its client says, or made here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId {
    text: SmallVec<[u8; 32]>,
    made: bool,
}

/// A key: bytes, short ones without allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key(SmallVec<[u8; 40]>);

/// Why a text names no part of a request.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{0:?} is no key: it must be request-id, client-ip, path, uri, header:NAME, cookie:NAME or \
     query:NAME"
)]
pub struct BadKeySource(String);

// === impl RequestId ===

impl RequestId {
    /// The id that a client gave, if it is not empty. Else, where requests are placed by it, a
    /// random six-digit number; else 32 random hexadecimal digits, which tell any two apart.
    pub fn of(given: Option<&[u8]>, source: &KeySource, rng: &mut impl Rng) -> Self {
        if let Some(given) = given.filter(|given| !given.is_empty()) {
            return Self { text: SmallVec::from_slice(given), made: false };
        }
        let mut text = SmallVec::new();
        let written = match source {
            KeySource::RequestId => write!(text, "{}", rng.random_range(100_000..1_000_000_u32)),
            KeySource::ClientIp
            | KeySource::Path
            | KeySource::Uri
            | KeySource::Header(_)
            | KeySource::Cookie(_)
            | KeySource::Query(_) => write!(text, "{:032x}", rng.random::<u128>()),
        };
        written.expect("writing to memory cannot fail");
        Self { text, made: true }
    }

    /// The id.
    pub fn as_bytes(&self) -> &[u8] {
        &self.text
    }

    /// Whether the client gave none.
    pub fn is_made(&self) -> bool {
        self.made
    }
}

// === impl Key ===

impl Key {
    /// The key of a request. One that has not the named part, or an empty one, falls back to its
    /// id.
    pub fn of(request: &impl RequestView, source: &KeySource, id: &RequestId) -> Self {
        Self::named(request, source).unwrap_or_else(|| Self::from(id.as_bytes()))
    }

    /// The part of a request that `source` names, unless it is missing or empty: no id is one.
    pub fn named(request: &impl RequestView, source: &KeySource) -> Option<Self> {
        let named: Option<&[u8]> = match source {
            KeySource::RequestId => None,
            KeySource::ClientIp => return Some(Self::of_ip(request.client_ip())),
            KeySource::Path => Some(request.path()),
            KeySource::Uri => {
                let mut key = SmallVec::from_slice(request.path());
                if let Some(query) = request.query() {
                    key.push(b'?');
                    key.extend_from_slice(query);
                }
                return Some(Self(key));
            }
            KeySource::Header(name) => request.header(name),
            KeySource::Cookie(name) => cookie(request, name),
            KeySource::Query(name) => {
                request.query().and_then(|all| pair(all, b'&', name.as_bytes()))
            }
        };
        named.filter(|part| !part.is_empty()).map(Self::from)
    }

    fn of_ip(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(SmallVec::from_slice(&address.octets())),
            IpAddr::V6(address) => Self(SmallVec::from_slice(&address.octets())),
        }
    }

    /// What placements hash.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<&[u8]> for Key {
    fn from(bytes: &[u8]) -> Self {
        Self(SmallVec::from_slice(bytes))
    }
}

/// The value of a request's first cookie of this name, unless it is empty.
pub fn cookie<'a>(request: &'a impl RequestView, name: &str) -> Option<&'a [u8]> {
    let value = pair(request.header("cookie")?, b';', name.as_bytes())?;
    Some(value).filter(|value| !value.is_empty())
}

/// The value of the first `name=value` among parts that `separator` parts.
fn pair<'a>(all: &'a [u8], separator: u8, name: &[u8]) -> Option<&'a [u8]> {
    all.split(|byte| *byte == separator).find_map(|part| {
        let part = part.trim_ascii();
        part.strip_prefix(name)?.strip_prefix(b"=")
    })
}

// === impl KeySource ===

impl FromStr for KeySource {
    type Err = BadKeySource;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || BadKeySource(text.to_owned());
        match text {
            "request-id" => return Ok(Self::RequestId),
            "client-ip" => return Ok(Self::ClientIp),
            "path" => return Ok(Self::Path),
            "uri" => return Ok(Self::Uri),
            _ => {}
        }
        let (kind, name) = text.split_once(':').ok_or_else(bad)?;
        let token = |c: u8| c.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&c);
        match kind {
            // RFC 9110 5.1: field names are tokens, of any case.
            "header" if !name.is_empty() && name.bytes().all(token) => {
                Ok(Self::Header(name.to_ascii_lowercase()))
            }
            // RFC 6265 4.1.1: cookie names are tokens, in which case counts.
            "cookie" if !name.is_empty() && name.bytes().all(token) => {
                Ok(Self::Cookie(name.to_owned()))
            }
            "query" if !name.is_empty() => Ok(Self::Query(name.to_owned())),
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RequestId => f.write_str("request-id"),
            Self::ClientIp => f.write_str("client-ip"),
            Self::Path => f.write_str("path"),
            Self::Uri => f.write_str("uri"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
            Self::Query(name) => write!(f, "query:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    struct Fake {
        path: &'static str,
        query: Option<&'static str>,
        headers: &'static [(&'static str, &'static str)],
    }

    impl RequestView for Fake {
        fn path(&self) -> &[u8] {
            self.path.as_bytes()
        }
        fn query(&self) -> Option<&[u8]> {
            self.query.map(str::as_bytes)
        }
        fn header(&self, name: &str) -> Option<&[u8]> {
            self.headers.iter().find(|(field, _)| *field == name).map(|(_, value)| value.as_bytes())
        }
        fn client_ip(&self) -> IpAddr {
            "::ffff:10.0.0.7".parse().unwrap()
        }
    }

    const FULL: Fake = Fake {
        path: "/a/b",
        query: Some("x=1&user=ann%20b&user=2"),
        headers: &[("x-request-id", "42"), ("cookie", "a=1; SID=abc; sid=d"), ("x-user", "u")],
    };

    fn key(request: &Fake, source: &str) -> Vec<u8> {
        let source = source.parse().unwrap();
        let mut rng = rand::rngs::StdRng::seed_from_u64(1);
        let id = RequestId::of(request.header("x-request-id"), &source, &mut rng);
        Key::of(request, &source, &id).as_bytes().to_vec()
    }

    #[test]
    fn each_source_takes_its_part() {
        for (source, expected) in [
            ("request-id", "42"),
            ("path", "/a/b"),
            ("uri", "/a/b?x=1&user=ann%20b&user=2"),
            ("header:X-User", "u"),
            ("cookie:SID", "abc"),
            ("cookie:sid", "d"),
            ("query:user", "ann%20b"),
        ] {
            assert_eq!(key(&FULL, source), expected.as_bytes(), "{source}");
        }
        assert_eq!(key(&FULL, "client-ip"), [10, 0, 0, 7]);
    }

    #[test]
    fn a_missing_or_empty_part_falls_back_to_the_request_id() {
        for source in ["header:nope", "cookie:si", "query:use"] {
            assert_eq!(key(&FULL, source), b"42", "{source}");
        }
        let empty = Fake {
            path: "/",
            query: Some("q="),
            headers: &[("x-request-id", "7"), ("x-user", "")],
        };
        assert_eq!(key(&empty, "query:q"), b"7");
        assert_eq!(key(&empty, "header:x-user"), b"7");
    }

    #[test]
    fn an_id_is_made_where_there_is_none() {
        let bare = Fake { path: "/", query: None, headers: &[] };
        let made = key(&bare, "request-id");
        assert_eq!(made.len(), 6);
        assert!(made.iter().all(u8::is_ascii_digit));
        let made = key(&bare, "cookie:a");
        assert_eq!(made.len(), 32);
        assert!(made.iter().all(u8::is_ascii_hexdigit));
    }

    #[test]
    fn sources_are_written_as_they_are_read_and_others_refused() {
        for text in
            ["request-id", "client-ip", "path", "uri", "header:x-a", "cookie:A", "query:q q"]
        {
            assert_eq!(text.parse::<KeySource>().unwrap().to_string(), text);
        }
        for text in ["", "ip", "header:", "header:a b", "cookie:a=b", "query:", "header", "x:y"] {
            assert_eq!(text.parse::<KeySource>(), Err(BadKeySource(text.to_owned())));
        }
    }
}
