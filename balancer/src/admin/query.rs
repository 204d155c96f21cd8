//! The query of `/admin/explain`: a key, or a request that is only imagined.

use std::net::IpAddr;

use percent_encoding::percent_decode_str;
use thiserror::Error;

use crate::routing::key::RequestView;
use crate::routing::matching::Target;

/// What is to be explained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// Where this key goes.
    Key(Vec<u8>),
    /// Where this request would go.
    Request(Imagined),
}

/// A request that nobody sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Imagined {
    method: String,
    path: Vec<u8>,
    query: Option<Vec<u8>>,
    /// In lower case, with their values, in their order; `host` among them.
    fields: Vec<(String, Vec<u8>)>,
    client: IpAddr,
}

/// Why a query is not taken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum BadQuery {
    /// There is nothing to explain.
    #[error(
        "'key' must be there, or 'path' with what else there is of a request: 'method', 'host', \
         'header' (as often as needed), 'client'"
    )]
    Nothing,
    /// A parameter that means nothing here.
    #[error(
        "{0:?} is no parameter of this call: there are 'key', or 'path', 'method', 'host', \
         'header' and 'client'"
    )]
    Unknown(String),
    /// A key, and a request.
    #[error("'key' must be the only parameter: the key of a request follows from the request")]
    KeyAndRequest,
    /// A parameter that may be there once.
    #[error("'{0}' must be there only once")]
    Twice(&'static str),
    /// A value that is not allowed.
    #[error("'{field}' must be {must}")]
    Field {
        /// Of which parameter.
        field: &'static str,
        /// What it must be.
        must: &'static str,
    },
}

/// The longest values, in bytes, and the most fields.
const KEY_MAX: usize = 4_096;
const PATH_MAX: usize = 8_192;
const METHOD_MAX: usize = 32;
const HOST_MAX: usize = 255;
const FIELD_MAX: usize = 8_192;
const FIELDS_MAX: usize = 100;

/// Whether a value is allowed.
type Check = fn(&[u8]) -> Result<(), BadQuery>;

/// What a request is made of, as far as it is told.
#[derive(Default)]
struct Parts {
    key: Option<Vec<u8>>,
    path: Option<Vec<u8>>,
    method: Option<Vec<u8>>,
    host: Option<Vec<u8>>,
    client: Option<Vec<u8>>,
    fields: Vec<(String, Vec<u8>)>,
}

// === impl Question ===

impl Question {
    /// Reads a query as it came. `caller` is the client where none is named.
    ///
    /// # Errors
    /// [`BadQuery`], which names the parameter and what it must be.
    pub(super) fn read(query: &str, caller: IpAddr) -> Result<Self, BadQuery> {
        let parts = Parts::read(query)?;
        let is_request = parts.path.is_some()
            || parts.method.is_some()
            || parts.host.is_some()
            || parts.client.is_some()
            || !parts.fields.is_empty();
        match parts.key {
            Some(_) if is_request => Err(BadQuery::KeyAndRequest),
            Some(key) => Ok(Question::Key(key)),
            None if is_request => parts.request(caller).map(Question::Request),
            None => Err(BadQuery::Nothing),
        }
    }
}

// === impl Parts ===

impl Parts {
    fn read(query: &str) -> Result<Self, BadQuery> {
        let mut parts = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (field, slot, check): (_, _, Check) = match name {
                "key" => ("key", &mut parts.key, key),
                "path" => ("path", &mut parts.path, path),
                "method" => ("method", &mut parts.method, method),
                "host" => ("host", &mut parts.host, host),
                "client" => ("client", &mut parts.client, |_address| Ok(())),
                "header" => {
                    let value = decoded("header", value)?;
                    parts.fields.push(header(&value)?);
                    if parts.fields.len() > FIELDS_MAX {
                        return Err(bad("header", "there 100 times at most"));
                    }
                    continue;
                }
                other => return Err(BadQuery::Unknown(other.to_owned())),
            };
            let value = decoded(field, value)?;
            check(&value)?;
            if slot.replace(value).is_some() {
                return Err(BadQuery::Twice(field));
            }
        }
        Ok(parts)
    }

    fn request(self, caller: IpAddr) -> Result<Imagined, BadQuery> {
        let mut path = self.path.ok_or(bad("path", MUST_PATH))?;
        let mark = path.iter().position(|byte| *byte == b'?');
        let query = mark.map(|mark| path.split_off(mark)[1..].to_vec());
        let method = self.method.unwrap_or_else(|| b"GET".to_vec());
        let client = match self.client {
            None => caller,
            Some(client) => {
                let client = str::from_utf8(&client).ok().and_then(|client| client.parse().ok());
                client.ok_or(bad("client", "an IP address such as 192.0.2.7"))?
            }
        };
        let host = self.host.map(|host| ("host".to_owned(), host));
        Ok(Imagined {
            method: String::from_utf8_lossy(&method).into_owned(),
            path,
            query,
            fields: host.into_iter().chain(self.fields).collect(),
            client,
        })
    }
}

const MUST_PATH: &str = "a path that begins with '/', of 8192 bytes at most, perhaps with a \
                         query; no spaces, control characters or '#'";

fn bad(field: &'static str, must: &'static str) -> BadQuery {
    BadQuery::Field { field, must }
}

/// The bytes of a value. What is no escape would mean another value than was meant.
fn decoded(field: &'static str, value: &str) -> Result<Vec<u8>, BadQuery> {
    let whole =
        |escape: &[u8]| escape.len() >= 2 && escape.iter().take(2).all(u8::is_ascii_hexdigit);
    if !value.as_bytes().split(|byte| *byte == b'%').skip(1).all(whole) {
        return Err(bad(field, "percent-encoded: each '%' followed by two hexadecimal digits"));
    }
    Ok(percent_decode_str(value).collect())
}

fn key(key: &[u8]) -> Result<(), BadQuery> {
    let good = (1..=KEY_MAX).contains(&key.len());
    if good { Ok(()) } else { Err(bad("key", "1 to 4096 bytes, percent-encoded")) }
}

fn path(path: &[u8]) -> Result<(), BadQuery> {
    let inner = |c: &u8| *c > b' ' && *c != 0x7f && *c != b'#';
    let good = path.first() == Some(&b'/') && path.len() <= PATH_MAX && path.iter().all(inner);
    if good { Ok(()) } else { Err(bad("path", MUST_PATH)) }
}

fn method(method: &[u8]) -> Result<(), BadQuery> {
    let good = (1..=METHOD_MAX).contains(&method.len()) && method.iter().all(|c| is_token(*c));
    if good {
        Ok(())
    } else {
        Err(bad("method", "a method such as POST, of 32 characters at most"))
    }
}

fn host(host: &[u8]) -> Result<(), BadQuery> {
    let good = (1..=HOST_MAX).contains(&host.len()) && host.iter().all(u8::is_ascii_graphic);
    let must = "a host such as example.org or example.org:8080, of 255 characters at most";
    if good { Ok(()) } else { Err(bad("host", must)) }
}

/// `Name: value`.
fn header(line: &[u8]) -> Result<(String, Vec<u8>), BadQuery> {
    let must = "'Name: value', of 8192 bytes at most, without control characters; not Host, which \
                'host' is for";
    let colon = line.iter().position(|byte| *byte == b':').unwrap_or(0);
    let (name, value) = line.split_at(colon);
    let value = value.get(1..).unwrap_or_default();
    let inner = |c: &u8| *c == b'\t' || (*c >= b' ' && *c != 0x7f);
    let good = !name.is_empty()
        && line.len() <= FIELD_MAX
        && name.iter().all(|c| is_token(*c))
        && !name.eq_ignore_ascii_case(b"host")
        && value.iter().all(inner);
    if !good {
        return Err(bad("header", must));
    }
    Ok((String::from_utf8_lossy(name).to_ascii_lowercase(), value.trim_ascii().to_vec()))
}

/// RFC 9110 5.6.2.
fn is_token(c: u8) -> bool {
    c.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&c)
}

// === impl Imagined ===

impl Imagined {
    /// What routes are found by.
    pub(super) fn target(&self) -> Target<'_> {
        let method = self.method.as_bytes();
        Target { host: self.header("host"), method, path: &self.path }
    }
}

impl RequestView for Imagined {
    fn path(&self) -> &[u8] {
        &self.path
    }

    fn query(&self) -> Option<&[u8]> {
        self.query.as_deref()
    }

    fn header(&self, name: &str) -> Option<&[u8]> {
        let field = self.fields.iter().find(|(field, _)| field == name)?;
        Some(&field.1)
    }

    fn client_ip(&self) -> IpAddr {
        self.client.to_canonical()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALLER: &str = "10.0.0.9";

    fn read(query: &str) -> Result<Question, BadQuery> {
        Question::read(query, CALLER.parse().unwrap())
    }

    fn request(query: &str) -> Imagined {
        match read(query) {
            Ok(Question::Request(request)) => request,
            other @ (Ok(Question::Key(_)) | Err(_)) => panic!("{query}: {other:?}"),
        }
    }

    #[test]
    fn a_key_is_decoded_and_nothing_else_of_it_means_anything() {
        for (query, key) in [
            ("key=42", &b"42"[..]),
            ("&key=a%20b+c%26d%ff&", b"a b+c&d\xff"),
            ("key=a=b", b"a=b"),
            ("key=%00", b"\0"),
        ] {
            assert_eq!(read(query), Ok(Question::Key(key.to_vec())), "{query}");
        }
    }

    #[test]
    fn a_request_is_imagined_with_what_is_said_of_it() {
        let bare = request("path=/");
        assert_eq!((bare.method.as_str(), bare.path(), bare.query()), ("GET", &b"/"[..], None));
        assert_eq!((bare.client_ip().to_string().as_str(), bare.header("host")), (CALLER, None));
        let full = request(
            "path=/x%2520y?q=1&method=POST&host=h:80&header=X-User:%20ann%20&header=x-user:%20b\
             &header=Cookie:a=1&client=::ffff:1.2.3.4",
        );
        assert_eq!((full.path(), full.query()), (&b"/x%20y"[..], Some(&b"q=1"[..])));
        assert_eq!(full.header("x-user"), Some(&b"ann"[..]), "the first of a name");
        assert_eq!(full.header("cookie"), Some(&b"a=1"[..]));
        assert_eq!(full.client_ip().to_string(), "1.2.3.4");
        let Target { host, method, path } = full.target();
        assert_eq!((host, method, path), (Some(&b"h:80"[..]), &b"POST"[..], &b"/x%20y"[..]));
        assert_eq!(request("path=/x%3Fq").query(), Some(&b"q"[..]));
    }

    #[test]
    fn what_is_wrong_is_named_with_what_it_must_be() {
        for (query, begin) in [
            ("", "'key' must be there, or 'path'"),
            ("keys=1", "\"keys\" is no parameter of this call"),
            ("key=1&path=/", "'key' must be the only parameter"),
            ("method=GET", "'path' must be a path that begins with '/'"),
            ("key", "'key' must be 1 to 4096 bytes"),
            ("key=%4", "'key' must be percent-encoded"),
            ("key=%+1", "'key' must be percent-encoded"),
            ("key=1&key=2", "'key' must be there only once"),
            ("path=x", "'path' must be a path"),
            ("path=/a%20b", "'path' must be a path"),
            ("path=/%23", "'path' must be a path"),
            ("path=/&method=G%20T", "'method' must be a method such as POST"),
            ("path=/&host=", "'host' must be a host"),
            ("path=/&header=x", "'header' must be 'Name: value'"),
            ("path=/&header=:x", "'header' must be 'Name: value'"),
            ("path=/&header=Host:x", "'header' must be 'Name: value'"),
            ("path=/&header=a:%0a", "'header' must be 'Name: value'"),
            ("path=/&client=localhost", "'client' must be an IP address"),
        ] {
            let told = read(query).unwrap_err().to_string();
            assert!(told.starts_with(begin), "{query}: {told}");
        }
    }

    #[test]
    fn nothing_is_longer_than_it_may_be() {
        let long = |name: &str, begin: &str, count: usize| {
            read(&format!("path=/&{name}={begin}{}", "x".repeat(count)))
        };
        assert!(read(&format!("key={}", "x".repeat(KEY_MAX))).is_ok());
        assert!(read(&format!("key={}", "x".repeat(KEY_MAX + 1))).is_err());
        assert!(read(&format!("path=/{}", "x".repeat(PATH_MAX))).is_err());
        assert!(
            long("method", "", METHOD_MAX).is_ok() && long("method", "", METHOD_MAX + 1).is_err()
        );
        assert!(long("host", "", HOST_MAX).is_ok() && long("host", "", HOST_MAX + 1).is_err());
        assert!(long("header", "a:", FIELD_MAX).is_err());
        assert!(read(&format!("path=/{}", "&header=a:b".repeat(FIELDS_MAX))).is_ok());
        assert!(read(&format!("path=/{}", "&header=a:b".repeat(FIELDS_MAX + 1))).is_err());
    }
}
