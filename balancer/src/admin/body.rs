//! The bodies of calls: of `/add` and `/rm`, of rolling updates and rehearsals.

mod rehearsal;

use std::fmt;

use actix_web::HttpRequest;
use actix_web::http::{StatusCode, header};
use actix_web::web::{BytesMut, Payload};
use futures_util::StreamExt as _;
use serde_json::{Map, Value};
use thiserror::Error;

use crate::config::CommandLine;
use crate::fleet::change::{Change, ChangeKind};
use crate::fleet::listed::Server;
use crate::fleet::roster::{Rehearsal, RollRequest};
use crate::fleet::seat::{BadHostname, Hostname};

/// The largest body taken: room for thousands of hostnames.
const BODY_MAX: usize = 256 * 1024;

/// What a rolling update can be told.
const ROLL_FIELDS: (&[&str], &str) =
    (&["image", "command", "batch"], "'image', 'command' and 'batch'");

/// What servers may weigh together that are only rehearsed: it takes no token to ask for that, and
/// each has its points.
const WEIGHTS_MAX: u64 = 10_000;

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
    /// A field that means nothing here.
    #[error("{field:?} is no field of this call: there are {known}")]
    UnknownField {
        /// Which.
        field: String,
        /// Those that do.
        known: &'static str,
    },
    /// A rehearsal of nothing.
    #[error("'add' or 'rm' must be there")]
    Nothing,
    /// Replicas are listed, and what is to be rehearsed is no server.
    #[error("replicas are listed, so 'add' must be a list of addresses: {0}")]
    Add(String),
    /// What is to be rehearsed would have to be resolved first.
    #[error("'add' must have IP addresses: {0:?} has a name, which would have to be resolved")]
    Unresolved(String),
    /// What is to be rehearsed is too large.
    #[error("'add' must have weights of {WEIGHTS_MAX} together at most")]
    TooHeavy,
    /// A hostname is not one.
    #[error(transparent)]
    Hostname(#[from] BadHostname),
    /// Replicas are listed, and a hostname is no address.
    #[error("replicas are listed, so 'hostnames' must be addresses: {0}")]
    Server(String),
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
            | BadBody::UnknownField { .. }
            | BadBody::Nothing
            | BadBody::Add(_)
            | BadBody::Unresolved(_)
            | BadBody::TooHeavy
            | BadBody::Hostname(_)
            | BadBody::Server(_) => StatusCode::BAD_REQUEST,
        }
    }
}

/// Reads what a client asks for; where replicas are `listed`, they are called by their addresses.
///
/// # Errors
/// [`BadBody`], which names the field and what it must be.
pub async fn read_change(
    request: &HttpRequest,
    payload: Payload,
    kind: ChangeKind,
    listed: bool,
) -> Result<Change, BadBody> {
    change(&read_object(request, payload).await?, kind, listed)
}

/// Reads what a rolling update is to do.
///
/// # Errors
/// [`BadBody`], which names the field and what it must be.
pub async fn read_roll(request: &HttpRequest, payload: Payload) -> Result<RollRequest, BadBody> {
    roll(&read_object(request, payload).await?)
}

/// Reads what is to be rehearsed; where replicas are `listed`, they are called by their addresses.
///
/// # Errors
/// [`BadBody`], which names the field and what it must be.
pub async fn read_rehearsal(
    request: &HttpRequest,
    payload: Payload,
    listed: bool,
) -> Result<Rehearsal, BadBody> {
    rehearsal::read(&read_object(request, payload).await?, listed)
}

/// Reads a JSON object.
async fn read_object(
    request: &HttpRequest,
    payload: Payload,
) -> Result<Map<String, Value>, BadBody> {
    let body = read(payload).await?;
    if body.is_empty() {
        return Err(BadBody::Empty);
    }
    if !is_json(request) {
        return Err(BadBody::NotSaidToBeJson);
    }
    object(&body)
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

fn object(body: &[u8]) -> Result<Map<String, Value>, BadBody> {
    match serde_json::from_slice(body).map_err(BadBody::NotJson)? {
        Value::Object(fields) => Ok(fields),
        other @ (Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)) => Err(BadBody::NotAnObject(Kind::of(&other))),
    }
}

/// A misspelt field would mean something else than was asked for, so there is no unknown one.
fn only(
    fields: &Map<String, Value>,
    (known, shown): (&[&str], &'static str),
) -> Result<(), BadBody> {
    match fields.keys().find(|key| !known.contains(&key.as_str())) {
        Some(field) => Err(BadBody::UnknownField { field: field.clone(), known: shown }),
        None => Ok(()),
    }
}

fn roll(fields: &Map<String, Value>) -> Result<RollRequest, BadBody> {
    only(fields, ROLL_FIELDS)?;
    let bad = |field, must, value: &Value| BadBody::Field {
        field,
        must,
        found: Kind::of(value).to_string(),
    };
    let image = fields.get("image").filter(|value| !value.is_null());
    let image = image.map(|value| match value.as_str() {
        Some(image) if is_word(image) => Ok(image.to_owned()),
        Some(_) | None => Err(bad("image", "the name of an image, without spaces", value)),
    });
    let command = fields.get("command").filter(|value| !value.is_null());
    let batch = match fields.get("batch") {
        None | Some(Value::Null) => 1,
        Some(_) => positive(fields, "batch")?,
    };
    Ok(RollRequest {
        image: image.transpose()?,
        command: command
            .map(|value| {
                command_line(value).ok_or_else(|| {
                    bad(
                        "command",
                        "a command line, or a list of its words, the program first",
                        value,
                    )
                })
            })
            .transpose()?,
        batch,
    })
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control())
}

fn command_line(value: &Value) -> Option<Vec<String>> {
    let words = match value {
        Value::String(line) => line.parse::<CommandLine>().ok()?.words().to_vec(),
        Value::Array(words) => {
            words.iter().map(|word| word.as_str().map(str::to_owned)).collect::<Option<_>>()?
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => return None,
    };
    let good = words.first().is_some_and(|program| !program.is_empty());
    (good && words.iter().all(|word| !word.contains('\0'))).then_some(words)
}

fn number(fields: &Map<String, Value>) -> Result<usize, BadBody> {
    positive(fields, "n")
}

fn positive(fields: &Map<String, Value>, field: &'static str) -> Result<usize, BadBody> {
    let bad = |found: String| BadBody::Field { field, must: "an integer of at least 1", found };
    let Some(value) = fields.get(field) else {
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

fn change(fields: &Map<String, Value>, kind: ChangeKind, listed: bool) -> Result<Change, BadBody> {
    let (n, names) = (number(fields)?, names(fields, "hostnames")?);
    if !listed {
        let hostnames = names.into_iter().map(Hostname::parse).collect::<Result<_, _>>()?;
        return Ok(Change { n, hostnames, servers: Vec::new() });
    }
    let mut change = Change { n, hostnames: Vec::new(), servers: Vec::new() };
    for name in names {
        match name.parse::<Server>() {
            Ok(server) => {
                change.hostnames.push(server.hostname());
                change.servers.push(server);
            }
            // Perhaps one that `/rep` tells; if not, it is unknown.
            Err(_) if kind == ChangeKind::Remove => change.hostnames.push(Hostname::listed(name)),
            Err(bad) => return Err(BadBody::Server(bad)),
        }
    }
    Ok(change)
}

fn names<'a>(fields: &'a Map<String, Value>, field: &'static str) -> Result<Vec<&'a str>, BadBody> {
    let bad = |found: String| BadBody::Field { field, must: "a list of strings", found };
    let Some(value) = fields.get(field) else { return Ok(Vec::new()) };
    let names = value.as_array().ok_or_else(|| bad(Kind::of(value).to_string()))?;
    let name = |value| {
        let name = Value::as_str(value);
        name.ok_or_else(|| bad(format!("a list with {}", Kind::of(value))))
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

    fn parse(body: &[u8]) -> Result<Change, BadBody> {
        change(&object(body)?, ChangeKind::Add, false)
    }

    fn parse_roll(body: &str) -> Result<RollRequest, BadBody> {
        roll(&object(body.as_bytes())?)
    }

    #[test]
    fn a_rolling_update_is_read_with_defaults() {
        let nothing = RollRequest { image: None, command: None, batch: 1 };
        assert_eq!(parse_roll("{}").unwrap(), nothing);
        assert_eq!(parse_roll(r#"{"image":null,"command":null}"#).unwrap(), nothing);
        let words = Some(vec!["a".to_owned(), "b c".to_owned()]);
        for command in [r#""a 'b c'""#, r#"["a","b c"]"#] {
            let body = format!(r#"{{"image":"x:2","command":{command},"batch":3}}"#);
            let all =
                RollRequest { image: Some("x:2".to_owned()), command: words.clone(), batch: 3 };
            assert_eq!(parse_roll(&body).unwrap(), all);
        }
    }

    #[test]
    fn a_bad_rolling_update_is_refused_with_the_field() {
        for (body, message) in [
            (r#"{"imgae":"x"}"#, r#""imgae" is no field of this call"#),
            (r#"{"image":3}"#, "'image' must be the name of an image"),
            (r#"{"image":"a b"}"#, "'image' must be the name of an image"),
            (r#"{"command":[]}"#, "'command' must be a command line"),
            (r#"{"command":["a",1]}"#, "'command' must be a command line"),
            (r#"{"command":"'a"}"#, "'command' must be a command line"),
            (r#"{"batch":0}"#, "'batch' must be an integer of at least 1, not 0"),
        ] {
            let told = parse_roll(body).unwrap_err().to_string();
            assert!(told.starts_with(message), "{body}: {told}");
        }
    }

    #[test]
    fn a_good_body_is_taken_with_and_without_names() {
        assert_eq!(parse(br#"{"n": 2}"#).unwrap(), Change { n: 2, ..Change::default() });
        let named = parse(br#"{"n": 2, "hostnames": ["S5", "Server 4"], "x": 1}"#).unwrap();
        let names: Vec<&str> = named.hostnames.iter().map(Hostname::as_str).collect();
        assert_eq!(names, ["S5", "Server 4"]);
    }

    #[test]
    fn listed_replicas_are_called_by_their_addresses() {
        let read = |name: &str, kind| {
            let body = format!(r#"{{"n":1,"hostnames":["{name}"]}}"#);
            change(&object(body.as_bytes())?, kind, true)
        };
        for text in ["http://a:80/ weight=3", "a:80 weight=3"] {
            let added = read(text, ChangeKind::Add).unwrap();
            assert_eq!(added.hostnames, [Hostname::listed("a:80")]);
            assert_eq!(added.servers, [Server { address: "a:80".to_owned(), weight: 3 }]);
        }
        for text in ["S5", "../x", "https://a:80", "a:80/10.0.0.1"] {
            let told = read(text, ChangeKind::Add).unwrap_err().to_string();
            let begin = format!(
                "replicas are listed, so 'hostnames' must be addresses: {text:?} is no host:port"
            );
            assert!(told.starts_with(&begin), "{told}");
            let removed = read(text, ChangeKind::Remove).unwrap();
            assert_eq!(removed.hostnames, [Hostname::listed(text)]);
        }
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
