//! The body of `/add` and `/rm`.

use std::fmt;

use actix_web::HttpRequest;
use actix_web::http::{StatusCode, header};
use actix_web::web::{BytesMut, Payload};
use futures_util::StreamExt as _;
use serde_json::{Map, Value};
use thiserror::Error;

use crate::fleet::change::Change;
use crate::fleet::seat::{BadHostname, Hostname};

/// The largest body taken: room for thousands of hostnames.
const BODY_MAX: usize = 256 * 1024;

/// Why a body is not taken.
#[derive(Debug, Error)]
pub enum BadBody {
    /// There is none.
    #[error(
        "the body must be a JSON object such as {{\"n\": 1, \"hostnames\": [\"S1\"]}}; it is empty"
    )]
    Empty,
    /// It is not said to be JSON: a browser's form would not be, either.
    #[error("the header 'Content-Type' must be application/json")]
    NotSaidToBeJson,
    /// It is too large.
    #[error("the body must be at most {BODY_MAX} bytes")]
    TooLarge,
    /// It broke off.
    #[error("the body was cut short or malformed")]
    Broken,
    /// It is not JSON.
    #[error("the body must be a JSON object: {0}")]
    NotJson(#[source] serde_json::Error),
    /// It is another JSON value.
    #[error("the body must be a JSON object, not {0}")]
    NotAnObject(Kind),
    /// A field is missing or of a wrong kind.
    #[error("'{field}' must be {must}, not {found}")]
    Field {
        /// Which.
        field: &'static str,
        /// What it must be.
        must: &'static str,
        /// What it is.
        found: String,
    },
    /// A hostname is not one.
    #[error(transparent)]
    Hostname(#[from] BadHostname),
}

/// A kind of JSON value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind(&'static str);

// === impl BadBody ===

impl BadBody {
    /// What it is in HTTP.
    pub fn status(&self) -> StatusCode {
        match self {
            BadBody::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            BadBody::NotSaidToBeJson => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            BadBody::Empty
            | BadBody::Broken
            | BadBody::NotJson(_)
            | BadBody::NotAnObject(_)
            | BadBody::Field { .. }
            | BadBody::Hostname(_) => StatusCode::BAD_REQUEST,
        }
    }
}

/// Reads what a client asks for.
///
/// # Errors
/// [`BadBody`], which names the field and what it must be.
pub async fn read_change(request: &HttpRequest, payload: Payload) -> Result<Change, BadBody> {
    let body = read(payload).await?;
    if body.is_empty() {
        return Err(BadBody::Empty);
    }
    if !is_json(request) {
        return Err(BadBody::NotSaidToBeJson);
    }
    parse(&body)
}

async fn read(mut payload: Payload) -> Result<BytesMut, BadBody> {
    let mut body = BytesMut::new();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|_broken| BadBody::Broken)?;
        if body.len() + chunk.len() > BODY_MAX {
            return Err(BadBody::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn is_json(request: &HttpRequest) -> bool {
    let given = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = given.and_then(|given| given.split(';').next()).unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("application/json")
}

fn parse(body: &[u8]) -> Result<Change, BadBody> {
    let body: Value = serde_json::from_slice(body).map_err(BadBody::NotJson)?;
    let Some(fields) = body.as_object() else {
        return Err(BadBody::NotAnObject(Kind::of(&body)));
    };
    Ok(Change { n: number(fields)?, hostnames: hostnames(fields)? })
}

fn number(fields: &Map<String, Value>) -> Result<usize, BadBody> {
    let bad =
        |found: String| BadBody::Field { field: "n", must: "an integer of at least 1", found };
    let Some(value) = fields.get("n") else {
        return Err(bad("missing".to_owned()));
    };
    let shown = || match value.as_number() {
        Some(number) => number.to_string(),
        None => Kind::of(value).to_string(),
    };
    match value.as_u64().and_then(|n| usize::try_from(n).ok()) {
        Some(0) | None => Err(bad(shown())),
        Some(n) => Ok(n),
    }
}

fn hostnames(fields: &Map<String, Value>) -> Result<Vec<Hostname>, BadBody> {
    let bad =
        |found: String| BadBody::Field { field: "hostnames", must: "a list of strings", found };
    let Some(value) = fields.get("hostnames") else { return Ok(Vec::new()) };
    let names = value.as_array().ok_or_else(|| bad(Kind::of(value).to_string()))?;
    let name = |value: &Value| {
        let name = value.as_str();
        let name = name.ok_or_else(|| bad(format!("a list with {}", Kind::of(value))))?;
        Ok(Hostname::parse(name)?)
    };
    names.iter().map(name).collect()
}

// === impl Kind ===

impl Kind {
    fn of(value: &Value) -> Self {
        Self(match value {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::Array(_) => "a list",
            Value::Object(_) => "an object",
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_body_is_taken_with_and_without_names() {
        assert_eq!(parse(br#"{"n": 2}"#).unwrap(), Change { n: 2, hostnames: vec![] });
        let named = parse(br#"{"n": 2, "hostnames": ["S5", "Server 4"], "x": 1}"#).unwrap();
        let names: Vec<&str> = named.hostnames.iter().map(Hostname::as_str).collect();
        assert_eq!(names, ["S5", "Server 4"]);
    }

    #[test]
    fn a_bad_field_is_named_with_what_it_must_be() {
        for (body, message) in [
            (r"{}", "'n' must be an integer of at least 1, not missing"),
            (r#"{"n":null}"#, "'n' must be an integer of at least 1, not null"),
            (r#"{"n":0}"#, "'n' must be an integer of at least 1, not 0"),
            (r#"{"n":-1}"#, "'n' must be an integer of at least 1, not -1"),
            (r#"{"n":3.5}"#, "'n' must be an integer of at least 1, not 3.5"),
            (r#"{"n":"3"}"#, "'n' must be an integer of at least 1, not a string"),
            (r#"{"n":1,"hostnames":"S1"}"#, "'hostnames' must be a list of strings, not a string"),
            (
                r#"{"n":1,"hostnames":[null]}"#,
                "'hostnames' must be a list of strings, not a list with null",
            ),
            (r"[1]", "the body must be a JSON object, not a list"),
        ] {
            assert_eq!(parse(body.as_bytes()).unwrap_err().to_string(), message);
        }
        for body in ["{", "n=3", "{\"n\": 1e9}", "\u{feff}", "{\"n\":1,\"hostnames\":[\"../x\"]}"] {
            assert!(parse(body.as_bytes()).is_err(), "{body}");
        }
    }
}
