//! Who may call the admin routes.

use std::net::IpAddr;

use actix_web::HttpRequest;
use actix_web::http::{StatusCode, header};
use thiserror::Error;

use crate::config::AdminConfig;

/// Why a call is not let in.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Denied {
    /// It came by a name that is not ours.
    #[error(
        "host {0:?} is not allowed: call by IP address, localhost or a name listed in \
         'admin.hosts'"
    )]
    Host(String),
    /// It has no token, or a wrong one.
    #[error("this call needs the header 'Authorization: Bearer TOKEN' with the admin token")]
    Token,
    /// A page of another site may have sent it.
    #[error(
        "a call that changes something is not taken from a page of another site: send it without \
         'Origin', and with no 'Content-Type' but application/json"
    )]
    Foreign,
    /// It names what replicas run, and anybody could.
    #[error(
        "'image' and 'command' are taken only from whoever has the admin token: set \
         'admin.token', or 'admin.programs = true' if everybody who reaches this listener may say \
         what runs here"
    )]
    Programs,
}

impl Denied {
    /// What it is in HTTP.
    pub fn status(&self) -> StatusCode {
        match self {
            Denied::Host(_) | Denied::Programs | Denied::Foreign => StatusCode::FORBIDDEN,
            Denied::Token => StatusCode::UNAUTHORIZED,
        }
    }
}

/// Whether the name that a call came by is ours. A page whose name was rebound to our address
/// (DNS rebinding) comes by a name of its own; where a token is set, it does not know that.
///
/// # Errors
/// [`Denied::Host`].
pub fn may_call(request: &HttpRequest, config: &AdminConfig) -> Result<(), Denied> {
    if config.token.is_some() {
        return Ok(());
    }
    let named = request.headers().get(header::HOST).map(|host| host.as_bytes());
    let named = String::from_utf8_lossy(named.unwrap_or_default()).into_owned();
    let authority = request.uri().authority().map_or(named.as_str(), |given| given.as_str());
    let name = without_port(authority).to_ascii_lowercase();
    let literal = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
    if literal || name == "localhost" || config.hosts.contains(&name) {
        return Ok(());
    }
    Err(Denied::Host(name))
}

/// Whether a call may change the fleet.
///
/// # Errors
/// [`Denied::Token`].
pub fn may_change(request: &HttpRequest, config: &AdminConfig) -> Result<(), Denied> {
    let Some(token) = &config.token else {
        return Ok(());
    };
    let given = request.headers().get(header::AUTHORIZATION).map(|given| given.as_bytes());
    // RFC 9110 11.1: the scheme's case does not count.
    let bearer = given.and_then(|given| given.split_at_checked("Bearer ".len()));
    match bearer {
        Some((scheme, given)) if scheme.eq_ignore_ascii_case(b"Bearer ") && token.is(given) => {
            Ok(())
        }
        Some(_) | None => Err(Denied::Token),
    }
}

/// Whether a call that changes something and has no JSON body, which a page of another site could
/// not send, comes from no such page. Browsers send `Origin` with every such call (Fetch Standard
/// 3.1), and a form's `Content-Type` with a form.
///
/// # Errors
/// [`Denied::Foreign`].
pub fn may_come_without_json(request: &HttpRequest) -> Result<(), Denied> {
    let field = |name| request.headers().get(name).map(|value| value.as_bytes());
    let host = field(header::HOST).unwrap_or_default();
    let own = |origin: &[u8]| {
        [&b"http://"[..], b"https://"]
            .iter()
            .any(|scheme| origin.strip_prefix(*scheme) == Some(host))
    };
    let kind = field(header::CONTENT_TYPE).map(|kind| kind.split(|c| *c == b';').next());
    let json = kind.is_none_or(|kind| {
        kind.is_some_and(|kind| kind.trim_ascii().eq_ignore_ascii_case(b"application/json"))
    });
    if json && field(header::ORIGIN).is_none_or(own) { Ok(()) } else { Err(Denied::Foreign) }
}

/// Whether a call that may change the fleet may also say what it runs: whoever may can run what
/// they like on this machine.
///
/// # Errors
/// [`Denied::Programs`].
pub fn may_name_programs(config: &AdminConfig) -> Result<(), Denied> {
    if config.token.is_some() || config.programs { Ok(()) } else { Err(Denied::Programs) }
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        // The colons of an IPv6 address are inside its brackets.
        Some((host, port)) if !port.contains(']') => host,
        Some(_) | None => authority,
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn config(hosts: &[&str]) -> AdminConfig {
        let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        AdminConfig { listen: None, token: None, hosts, programs: false, listed: false }
    }

    fn called_by(host: &'static str, config: &AdminConfig) -> Result<(), Denied> {
        let request = TestRequest::get().insert_header((header::HOST, host)).to_http_request();
        may_call(&request, config)
    }

    #[test]
    fn addresses_localhost_and_listed_names_are_let_in() {
        let config = config(&["balancer"]);
        for host in [
            "127.0.0.1:5000",
            "10.1.2.3",
            "[::1]:5000",
            "localhost:5000",
            "LOCALHOST",
            "Balancer:1",
        ] {
            assert_eq!(called_by(host, &config), Ok(()), "{host}");
        }
    }

    #[test]
    fn what_changes_something_without_a_body_comes_from_no_foreign_page() {
        let call = |fields: &[(&'static str, &'static str)]| {
            let mut request = TestRequest::post().insert_header(("Host", "127.0.0.1:5000"));
            for field in fields {
                request = request.insert_header(*field);
            }
            may_come_without_json(&request.to_http_request())
        };
        assert_eq!(call(&[]), Ok(()));
        assert_eq!(call(&[("Content-Type", "application/json; charset=utf-8")]), Ok(()));
        assert_eq!(call(&[("Origin", "http://127.0.0.1:5000")]), Ok(()));
        for fields in [
            [("Origin", "http://evil.example")],
            [("Origin", "null")],
            [("Content-Type", "application/x-www-form-urlencoded")],
            [("Content-Type", "text/plain")],
        ] {
            assert_eq!(call(&fields), Err(Denied::Foreign), "{fields:?}");
        }
    }

    #[test]
    fn foreign_names_are_not() {
        for host in ["evil.example:5000", "", "127.0.0.1.evil.example", "balancer", "localhost.x"] {
            assert!(called_by(host, &config(&[])).is_err(), "{host}");
        }
    }
}
