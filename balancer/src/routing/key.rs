//! The key of a request: what decides where it goes.

use std::fmt;
use std::io::Write as _;
use std::net::IpAddr;
use std::str::FromStr;

use rand::{Rng, RngExt as _};
use smallvec::SmallVec;
use thiserror::Error;

/// The header that names a request.
pub const REQUEST_ID: &str = "x-request-id";

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
    fn path(&self) -> &str;
    /// The query without its `?`.
    fn query(&self) -> Option<&str>;
    /// The first field of this name (lower case).
    fn header(&self, name: &str) -> Option<&[u8]>;
    /// The client's address.
    fn client_ip(&self) -> IpAddr;
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

// === impl Key ===

impl Key {
    /// The key of a request. One that has not the named part, or an empty one, falls back to its
    /// request id, and without that to a random number: it may go anywhere.
    pub fn of(request: &impl RequestView, source: &KeySource, rng: &mut impl Rng) -> Self {
        let header = |name: &str| request.header(name);
        let named: Option<&[u8]> = match source {
            KeySource::RequestId => header(REQUEST_ID),
            KeySource::ClientIp => return Self::of_ip(request.client_ip()),
            KeySource::Path => Some(request.path().as_bytes()),
            KeySource::Uri => {
                let mut key = SmallVec::from_slice(request.path().as_bytes());
                if let Some(query) = request.query() {
                    key.push(b'?');
                    key.extend_from_slice(query.as_bytes());
                }
                return Self(key);
            }
            KeySource::Header(name) => header(name),
            KeySource::Cookie(name) => {
                header("cookie").and_then(|all| pair(all, b';', name.as_bytes()))
            }
            KeySource::Query(name) => {
                request.query().and_then(|all| pair(all.as_bytes(), b'&', name.as_bytes()))
            }
        };
        let part = named.filter(|part| !part.is_empty());
        match part.or_else(|| header(REQUEST_ID).filter(|id| !id.is_empty())) {
            Some(part) => Self::from(part),
            None => Self::random(rng),
        }
    }

    fn random(rng: &mut impl Rng) -> Self {
        let mut key = SmallVec::new();
        write!(key, "{}", rng.random_range(100_000..1_000_000_u32))
            .expect("writing to memory cannot fail");
        Self(key)
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
        fn path(&self) -> &str {
            self.path
        }
        fn query(&self) -> Option<&str> {
            self.query
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
        let mut rng = rand::rngs::StdRng::seed_from_u64(1);
        Key::of(request, &source.parse().unwrap(), &mut rng).as_bytes().to_vec()
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
    fn without_a_request_id_the_key_is_a_six_digit_number() {
        let bare = Fake { path: "/", query: None, headers: &[] };
        for source in ["request-id", "cookie:a"] {
            let key = key(&bare, source);
            assert_eq!(key.len(), 6);
            assert!(key.iter().all(u8::is_ascii_digit));
        }
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
