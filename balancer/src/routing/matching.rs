//! Which requests a route takes: by host, method and path. All of what is asked for must match; of
//! each kind, any one.

use std::str::FromStr;

use thiserror::Error;

/// What a route takes; what is empty is not asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matching {
    /// The request's host, without its port.
    pub hosts: Vec<HostPattern>,
    /// Its method, in which case counts (RFC 9110 9.1).
    pub methods: Vec<String>,
    /// Its path, without the query, as it came: nothing is decoded.
    pub paths: Vec<PathPattern>,
}

/// `example.org`, or `*.example.org` for all names below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPattern {
    /// In lower case.
    name: String,
    below: bool,
}

/// `/exact`, `/users/*/avatar` (`*` for anything within a segment), `/static/**` (a prefix: that
/// path and all below it).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern {
    segments: Vec<String>,
    below: bool,
}

/// What of a request routes are found by.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The host, with or without a port; HTTP/1.0 may have none.
    pub host: Option<&'a [u8]>,
    /// The method.
    pub method: &'a [u8],
    /// The path, without the query.
    pub path: &'a [u8],
}

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadPattern {
    /// Of hosts.
    #[error("{0:?} is no host such as example.org or *.example.org")]
    Host(String),
    /// Of paths.
    #[error(
        "{0:?} is no path such as /exact, /users/*/avatar or /static/**: it must begin with '/', \
         have no '?', '#' or space, and '**' only as its last segment"
    )]
    Path(String),
}

// === impl Matching ===

impl Matching {
    /// Whether a request is taken.
    pub fn takes(&self, target: &Target<'_>) -> bool {
        self.takes_method(target.method)
            && (self.paths.is_empty() || self.paths.iter().any(|path| path.matches(target.path)))
            && (self.hosts.is_empty() || target.host.is_some_and(|host| self.takes_host(host)))
    }

    fn takes_method(&self, method: &[u8]) -> bool {
        self.methods.is_empty() || self.methods.iter().any(|it| it.as_bytes() == method)
    }

    fn takes_host(&self, host: &[u8]) -> bool {
        let host = without_port(host);
        self.hosts.iter().any(|pattern| pattern.matches(host))
    }
}

// === impl HostPattern ===

impl HostPattern {
    fn matches(&self, host: &[u8]) -> bool {
        // RFC 1034 3.1: a name may end in a dot, and means the same.
        let host = host.strip_suffix(b".").unwrap_or(host);
        let name = self.name.as_bytes();
        if !self.below {
            return host.eq_ignore_ascii_case(name);
        }
        let Some(dot) = host.len().checked_sub(name.len() + 1) else { return false };
        dot > 0 && host[dot] == b'.' && host[dot + 1..].eq_ignore_ascii_case(name)
    }
}

impl FromStr for HostPattern {
    type Err = BadPattern;

    fn from_str(text: &str) -> Result<Self, BadPattern> {
        let (below, name) = match text.strip_prefix("*.") {
            Some(name) => (true, name),
            None => (false, text),
        };
        let address = name.starts_with('[') && name.ends_with(']') && !below;
        let inner = if address { &name[1..name.len() - 1] } else { name };
        let allowed = |c: char| {
            c.is_ascii_alphanumeric()
                || if address { c == ':' || c == '.' } else { "-._".contains(c) }
        };
        if inner.is_empty() || inner.ends_with('.') || !inner.chars().all(allowed) {
            return Err(BadPattern::Host(text.to_owned()));
        }
        Ok(Self { name: name.to_ascii_lowercase(), below })
    }
}

/// A host as a request has it, which may name a port.
fn without_port(host: &[u8]) -> &[u8] {
    if host.first() == Some(&b'[') {
        let end = host.iter().position(|byte| *byte == b']');
        return end.map_or(host, |end| &host[..=end]);
    }
    let end = host.iter().position(|byte| *byte == b':');
    &host[..end.unwrap_or(host.len())]
}

// === impl PathPattern ===

impl PathPattern {
    fn matches(&self, path: &[u8]) -> bool {
        let Some(path) = path.strip_prefix(b"/") else { return false };
        let mut came = path.split(|byte| *byte == b'/');
        for segment in &self.segments {
            match came.next() {
                Some(came) if is_like(segment.as_bytes(), came) => {}
                Some(_) | None => return false,
            }
        }
        self.below || came.next().is_none()
    }
}

impl FromStr for PathPattern {
    type Err = BadPattern;

    fn from_str(text: &str) -> Result<Self, BadPattern> {
        let bad = || BadPattern::Path(text.to_owned());
        let graphic = |c: char| c.is_ascii_graphic() && c != '?' && c != '#';
        let path = text.strip_prefix('/').filter(|path| path.chars().all(graphic));
        let mut segments: Vec<String> =
            path.ok_or_else(bad)?.split('/').map(str::to_owned).collect();
        let below = segments.last().is_some_and(|last| last == "**");
        if below {
            segments.pop();
        }
        if segments.iter().any(|segment| segment.contains("**")) {
            return Err(bad());
        }
        Ok(Self { segments, below })
    }
}

/// Whether a segment is like a pattern, in which each `*` stands for any bytes.
fn is_like(pattern: &[u8], segment: &[u8]) -> bool {
    let mut parts = pattern.split(|byte| *byte == b'*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = segment.strip_prefix(first) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        // The first place will do: what comes later only has less left.
        let place = (0..=rest.len()).find(|at| rest[*at..].starts_with(part));
        let Some(place) = place else { return false };
        rest = &rest[place + part.len()..];
    }
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(pattern: &str, path: &str) -> bool {
        pattern.parse::<PathPattern>().unwrap().matches(path.as_bytes())
    }

    fn host(pattern: &str, host: &str) -> bool {
        let hosts = vec![pattern.parse().unwrap()];
        let target = Target { host: Some(host.as_bytes()), method: b"GET", path: b"/" };
        Matching { hosts, ..Matching::default() }.takes(&target)
    }

    #[test]
    fn paths_match_exactly_by_pattern_or_by_prefix() {
        assert!(path("/register", "/register"));
        for other in ["/register/", "/Register", "/registers", "/", "register", "/x/register"] {
            assert!(!path("/register", other), "{other}");
        }
        assert!(path("/", "/"));
        assert!(!path("/", "/x"));
        for good in ["/static", "/static/", "/static/a", "/static/a/b"] {
            assert!(path("/static/**", good), "{good}");
        }
        assert!(!path("/static/**", "/statics"));
        assert!(path("/**", "/"));
        assert!(path("/**", "/any/thing"));
        assert!(path("/users/*/avatar", "/users/7/avatar"));
        assert!(path("/users/*/avatar", "/users//avatar"));
        assert!(!path("/users/*/avatar", "/users/7/8/avatar"));
        assert!(path("/files/*.png", "/files/a.b.png"));
        assert!(!path("/files/*.png", "/files/a.png.exe"));
        assert!(path("/a*b*c", "/aXbXXbc"));
        assert!(!path("/a*b*c", "/aXcXb"));
        assert!(!path("/a*a", "/a"));
        assert!(!path("/*", "*"));
    }

    #[test]
    fn hosts_match_whatever_their_port_and_case() {
        for good in ["example.org", "EXAMPLE.org:8080", "example.org."] {
            assert!(host("Example.org", good), "{good}");
        }
        assert!(!host("example.org", "www.example.org"));
        assert!(host("*.example.org", "a.b.example.org:1"));
        for other in ["example.org", ".example.org", "badexample.org", "example.org.evil"] {
            assert!(!host("*.example.org", other), "{other}");
        }
        assert!(host("[::1]", "[::1]:80"));
        assert!(host("127.0.0.1", "127.0.0.1:5000"));
    }

    #[test]
    fn all_kinds_must_match_and_one_of_each() {
        let matching = Matching {
            hosts: Vec::new(),
            methods: vec!["POST".to_owned(), "PUT".to_owned()],
            paths: vec!["/a".parse().unwrap(), "/b/**".parse().unwrap()],
        };
        let takes = |method: &str, path: &str| {
            let (method, path) = (method.as_bytes(), path.as_bytes());
            matching.takes(&Target { host: None, method, path })
        };
        assert!(takes("POST", "/a"));
        assert!(takes("PUT", "/b/c"));
        assert!(!takes("post", "/a"));
        assert!(!takes("GET", "/a"));
        assert!(!takes("POST", "/c"));
        let none = Target { host: None, method: b"GET", path: b"*" };
        assert!(Matching::default().takes(&none));
        let hosts = vec!["a".parse().unwrap()];
        assert!(!Matching { hosts, ..Matching::default() }.takes(&none));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in ["", "a", "/a b", "/a?b", "/a#b", "/**/a", "/a**", "/\u{e4}"] {
            assert!(text.parse::<PathPattern>().is_err(), "{text}");
        }
        for text in ["", "*", "*.", "a b", "*.*", "a:80", "http://a", "[::1", "a."] {
            assert!(text.parse::<HostPattern>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn stars_match_as_the_obvious_search_does(
            pattern in "[ab*]{0,6}", segment in "[ab]{0,8}",
        ) {
            fn naive(pattern: &[u8], segment: &[u8]) -> bool {
                match pattern.split_first() {
                    None => segment.is_empty(),
                    Some((b'*', rest)) => {
                        (0..=segment.len()).any(|skip| naive(rest, &segment[skip..]))
                    }
                    Some((byte, rest)) => {
                        segment.first() == Some(byte) && naive(rest, &segment[1..])
                    }
                }
            }
            let (pattern, segment) = (pattern.as_bytes(), segment.as_bytes());
            prop_assert_eq!(is_like(pattern, segment), naive(pattern, segment));
        }
    }
}
