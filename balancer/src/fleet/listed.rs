//! Listed servers: replicas that somebody else runs, by the addresses that the user wrote.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use thiserror::Error;

use super::seat::Hostname;

/// A listed server: `host:port`, `http://host:port` or `host:port weight=3`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Name or address, and port: `host:port` in whatever form it was written.
    pub address: String,
    /// Multiplies its share; at least 1.
    pub weight: u32,
}

/// Why a text lists no servers: which line, counted from 1, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadList {
    /// A line is no server.
    #[error("line {line}: {why}")]
    Line {
        /// Which.
        line: usize,
        /// What is wrong.
        why: String,
    },
    /// A server is there twice.
    #[error("line {line}: {address:?} is listed already, by line {before}")]
    Twice {
        /// The second time.
        line: usize,
        /// The first.
        before: usize,
        /// The server.
        address: String,
    },
    /// There is none.
    #[error("it lists no server: there must be one at least, such as host:port, a line")]
    Empty,
}

/// The largest weight: beyond it the ring only grows.
const WEIGHT_MAX: u32 = 1_000;

/// The longest name of a host that DNS allows.
const HOST_MAX: usize = 253;

/// Reads a list: a server a line; from `#` on a line is a comment, and blank lines mean nothing.
///
/// # Errors
/// [`BadList`], with the first line that is no server or lists one again.
pub fn read(text: &str) -> Result<Vec<Server>, BadList> {
    let mut servers: Vec<Server> = Vec::new();
    let mut lines: BTreeMap<String, usize> = BTreeMap::new();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (line, content) in (1..).zip(text.lines()) {
        let content = content.split('#').next().unwrap_or_default().trim();
        if content.is_empty() {
            continue;
        }
        let server: Server = content.parse().map_err(|why| BadList::Line { line, why })?;
        if let Some(before) = lines.insert(server.id(), line) {
            return Err(BadList::Twice { line, before, address: server.address });
        }
        servers.push(server);
    }
    if servers.is_empty() { Err(BadList::Empty) } else { Ok(servers) }
}

// === impl Server ===

impl Server {
    /// What it is called: its address as it was written.
    pub fn hostname(&self) -> Hostname {
        Hostname::listed(&self.address)
    }

    /// The same for all ways to write its name: names of hosts know no upper case.
    pub fn id(&self) -> String {
        self.address.to_ascii_lowercase()
    }

    /// Its address, where no name has to be resolved.
    pub fn literal(&self) -> Option<SocketAddr> {
        self.address.parse().ok()
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

impl FromStr for Server {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = |why: &str| {
            format!("{text:?} is no host:port, http://host:port or host:port weight=3: {why}")
        };
        let mut words = text.split_whitespace();
        let address = words.next().ok_or_else(|| bad("it is empty"))?;
        let address = address_of(address).map_err(|why| bad(&why))?;
        let weight = match words.next() {
            Some(word) => weight_of(word).map_err(bad)?,
            None => 1,
        };
        match words.next() {
            Some(_) => Err(bad("nothing may follow the weight")),
            None => Ok(Self { address, weight }),
        }
    }
}

/// `host:port` of an address or a URL.
fn address_of(word: &str) -> Result<String, String> {
    let Some((scheme, rest)) = word.split_once("://") else {
        if word.contains('/') {
            return Err("a path is not allowed".to_owned());
        }
        let (host, port) = word.rsplit_once(':').ok_or("the port is missing")?;
        return checked(host, port);
    };
    if scheme.eq_ignore_ascii_case("https") {
        let why = "replicas are spoken to in plain HTTP, so https:// is not possible; http:// is";
        return Err(why.to_owned());
    }
    if !scheme.eq_ignore_ascii_case("http") {
        return Err("the scheme must be http://".to_owned());
    }
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['/', '?']) {
        return Err("a path is not allowed, but for a single '/'".to_owned());
    }
    if authority.contains('@') {
        return Err("a user is not allowed".to_owned());
    }
    match authority.rsplit_once(':') {
        // The colons of an IPv6 address without a port are inside its brackets.
        Some((host, port)) if !port.ends_with(']') => checked(host, port),
        Some(_) | None => checked(authority, "80"),
    }
}

fn checked(host: &str, port: &str) -> Result<String, String> {
    if !is_host(host) {
        let must = "the host must be a name of letters, digits, '-', '_' and '.', an IPv4 address, \
                    or an IPv6 address in brackets";
        return Err(must.to_owned());
    }
    let plain = port.bytes().all(|c| c.is_ascii_digit());
    if !plain || !matches!(port.parse::<u16>(), Ok(1..)) {
        return Err("the port must be 1 to 65535".to_owned());
    }
    Ok(format!("{host}:{port}"))
}

fn is_host(host: &str) -> bool {
    if host.starts_with('[') {
        return format!("{host}:1").parse::<SocketAddr>().is_ok();
    }
    let letter = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_');
    let label = |label: &str| !label.is_empty() && label.bytes().all(letter);
    let name = host.strip_suffix('.').unwrap_or(host);
    let mut labels = name.split('.');
    if name.len() > HOST_MAX || !labels.clone().all(label) {
        return false;
    }
    // A resolver would read `1.2` as an address, too, and no domain ends in a number.
    let numeric = labels.next_back().is_some_and(|last| last.bytes().all(|c| c.is_ascii_digit()));
    !numeric || format!("{host}:1").parse::<SocketAddr>().is_ok()
}

fn weight_of(word: &str) -> Result<u32, &'static str> {
    let given = word.strip_prefix("weight=").ok_or("only weight=N may follow the address")?;
    let plain = given.bytes().all(|c| c.is_ascii_digit());
    let known = given.parse().ok().filter(|weight| plain && (1..=WEIGHT_MAX).contains(weight));
    known.ok_or("the weight must be 1 to 1000")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn server(address: &str, weight: u32) -> Server {
        Server { address: address.to_owned(), weight }
    }

    #[test]
    fn servers_are_read_with_their_weight() {
        for (text, address, weight) in [
            ("localhost:80", "localhost:80", 1),
            ("[::1]:80 weight=3", "[::1]:80", 3),
            ("127.0.0.1:8081\tweight=1000 ", "127.0.0.1:8081", 1_000),
            ("http://a.example:8081", "a.example:8081", 1),
            ("HTTP://a.example:8081/ weight=2", "a.example:8081", 2),
            ("http://a_b-c.example", "a_b-c.example:80", 1),
            ("http://[::1]", "[::1]:80", 1),
            ("http://[::1]:81/", "[::1]:81", 1),
            ("a.example.:1", "a.example.:1", 1),
        ] {
            assert_eq!(text.parse(), Ok(server(address, weight)), "{text}");
        }
    }

    #[test]
    fn what_is_no_server_is_refused_with_what_is_allowed() {
        for (text, why) in [
            ("", "it is empty"),
            ("a", "the port is missing"),
            ("a:", "the port must be 1 to 65535"),
            ("a:0", "the port must be 1 to 65535"),
            ("a:+80", "the port must be 1 to 65535"),
            ("a:70000", "the port must be 1 to 65535"),
            ("http://a:/", "the port must be 1 to 65535"),
            (":80", "the host must be"),
            ("http://", "the host must be"),
            ("::1:80", "the host must be"),
            ("[::1:80", "the host must be"),
            ("[::x]:80", "the host must be"),
            ("a b:80", "the port is missing"),
            ("é:80", "the host must be"),
            ("a..b:80", "the host must be"),
            ("1.2:80", "the host must be"),
            ("256.1.1.1:80", "the host must be"),
            ("a:80/x", "a path is not allowed"),
            ("http://a:80/x", "a path is not allowed"),
            ("http://a:80?x", "a path is not allowed"),
            ("http://a@b:80", "a user is not allowed"),
            ("https://a:80", "replicas are spoken to in plain HTTP"),
            ("ftp://a:80", "the scheme must be http://"),
            ("a:80 x", "only weight=N may follow the address"),
            ("a:80 weight=0", "the weight must be 1 to 1000"),
            ("a:80 weight=1001", "the weight must be 1 to 1000"),
            ("a:80 weight=+1", "the weight must be 1 to 1000"),
            ("a:80 weight=1 weight=1", "nothing may follow the weight"),
        ] {
            let told = text.parse::<Server>().unwrap_err();
            assert!(told.contains(&format!(": {why}")), "{text}: {told}");
            assert!(told.starts_with(&format!("{text:?} is no host:port")), "{text}: {told}");
        }
    }

    #[test]
    fn a_list_may_have_comments_and_blank_lines() {
        let text = "\u{feff}# ours\n\n a:1 # the first\r\nhttp://b:2 weight=3#x\n\t\n   # end";
        assert_eq!(read(text), Ok(vec![server("a:1", 1), server("b:2", 3)]));
    }

    #[test]
    fn a_bad_list_is_refused_with_its_line() {
        let twice = BadList::Twice { line: 3, before: 1, address: "A:1".to_owned() };
        assert_eq!(read("a:1\nb:1\nhttp://A:1/"), Err(twice));
        let told = read("a:1\n# b\nb").unwrap_err().to_string();
        assert!(told.starts_with("line 3: \"b\" is no host:port"), "{told}");
        for text in ["", "\n\n", "# a:1"] {
            assert_eq!(read(text), Err(BadList::Empty));
        }
    }

    proptest! {
        #[test]
        fn any_line_is_a_server_or_an_error(line in "\\PC*") {
            // What is taken is taken again, and is the same.
            if let Ok(servers) = read(&line) {
                for server in servers {
                    let again = format!("{} weight={}", server.address, server.weight);
                    prop_assert_eq!(again.parse(), Ok(server));
                }
            }
        }

        #[test]
        fn anything_like_a_server_is_one_or_an_error(
            line in "(https?://)?[a-z0-9.:\\[\\]@/?_-]{0,20}(:[0-9]{0,6})?/?( weight=[0-9]{0,5})?",
        ) {
            if let Ok(server) = line.parse::<Server>() {
                let (_, port) = server.address.rsplit_once(':').unwrap();
                prop_assert!(port.parse::<u16>().unwrap() > 0);
                prop_assert!((1..=WEIGHT_MAX).contains(&server.weight));
                prop_assert!(!server.address.contains(['/', '@', '?', ' ']));
            }
        }
    }
}
