//! The overload API as a controller sees it: its calls, what they answer, how they fail.

use std::fmt::Display;
use std::io;
use std::time::Duration;

use actix_http::error::PayloadError;
use http::StatusCode;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use thiserror::Error;

/// Calls of the overload API, each made once and within a time limit.
pub(super) trait Api {
    /// The names of all nodes: `GET /loadbalancer/node_list`.
    async fn names(&self) -> Result<Vec<String>, CallError>;
    /// One of them: `GET /loadbalancer/node/{name}`.
    async fn node(&self, name: &str) -> Result<Node, CallError>;
    /// Has it take requests, or not: `POST /loadbalancer/node/{name}/enable` or `disable`; tells
    /// it as it is then.
    async fn set(&self, name: &str, enable: bool) -> Result<Node, CallError>;
}

/// The answer of `node_list`; what else is in it does not matter.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(super) struct NodeList {
    pub(super) nodes: Vec<String>,
}

/// A node; what else is told of it does not matter.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Node {
    /// Its name.
    #[serde(rename = "node")]
    pub(super) name: String,
    /// Whether it takes requests.
    pub(super) enabled: bool,
    /// Requests in flight at it.
    #[serde(rename = "queued_requests")]
    pub(super) queued: usize,
}

/// Why a call failed.
#[derive(Debug, Error)]
pub enum CallError {
    /// There is no answer: no such host, nobody listens, or the connection broke.
    #[error("no answer")]
    Send(#[source] io::Error),
    /// Not all of the answer came in time.
    #[error("no whole answer within {0:?}")]
    TimedOut(Duration),
    /// The answer broke off, or is too large.
    #[error("no good answer")]
    Body(#[source] PayloadError),
    /// The answer is another than 2xx.
    #[error("answered {status}{}", said(.detail.as_ref()))]
    Status {
        /// Which.
        status: StatusCode,
        /// What the answer says about it.
        detail: Option<String>,
    },
    /// The answer is no JSON, or not what the API says.
    #[error("answered what the API does not know")]
    Malformed(#[source] serde_json::Error),
    /// The answer is about another node.
    #[error("answered for another node, {0:?}")]
    OtherNode(String),
    /// The node is not what it was asked to be.
    #[error("answered that nothing has changed")]
    Unchanged,
}

/// What an error's body may say: ours, RFC 9457's, and others'.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Explanation {
    detail: Option<String>,
    message: Option<String>,
    title: Option<String>,
}

/// Most of an explanation that is repeated in a log line, in characters.
const DETAIL_MAX: usize = 200;

/// What stays as it is in a segment of a path (RFC 3986, section 2.3).
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A name as a segment of a path.
pub(super) fn segment(name: &str) -> impl Display {
    utf8_percent_encode(name, UNRESERVED)
}

/// What an answer says, if its status says that there is something.
pub(super) fn success(status: StatusCode, body: &[u8]) -> Result<&[u8], CallError> {
    if status.is_success() {
        return Ok(body);
    }
    let told: Explanation = serde_json::from_slice(body).unwrap_or_default();
    let detail = told.detail.or(told.message).or(told.title);
    let detail = detail.map(|detail| detail.chars().take(DETAIL_MAX).collect());
    Err(CallError::Status { status, detail })
}

fn said(detail: Option<&String>) -> String {
    detail.map(|detail| format!(": {detail}")).unwrap_or_default()
}

// === impl Node ===

impl Node {
    /// The node, if it is the one that was asked for.
    pub(super) fn named(self, name: &str) -> Result<Self, CallError> {
        if self.name == name { Ok(self) } else { Err(CallError::OtherNode(self.name)) }
    }

    /// The node, if it is as it was asked to be.
    pub(super) fn set_to(self, enabled: bool) -> Result<Self, CallError> {
        if self.enabled == enabled { Ok(self) } else { Err(CallError::Unchanged) }
    }
}

// === impl CallError ===

impl CallError {
    /// Whether it says that there is no such thing.
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Self::Status { status, .. } if *status == StatusCode::NOT_FOUND)
    }

    /// Whether there was an answer that cannot be read.
    pub(super) fn is_malformed(&self) -> bool {
        matches!(self, Self::Malformed(_))
    }

    /// Whether another try may do better: all but what the caller did wrong.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Send(_)
            | Self::TimedOut(_)
            | Self::Body(_)
            | Self::Malformed(_)
            | Self::OtherNode(_) => true,
            Self::Status { status, .. } => {
                !status.is_client_error()
                    || matches!(
                        *status,
                        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS
                    )
            }
            Self::Unchanged => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(text: &str) -> Result<Node, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn a_node_is_read_whatever_else_is_told_of_it() {
        let told = r#"{"weight": 3, "node": "Server 4", "enabled": false, "queued_requests": 17}"#;
        let read = node(told).unwrap();
        assert_eq!(read, Node { name: "Server 4".to_owned(), enabled: false, queued: 17 });
        let list: NodeList = serde_json::from_str(r#"{"nodes": ["a/b", ""], "N": 2}"#).unwrap();
        assert_eq!(list.nodes, ["a/b", ""]);
    }

    #[test]
    fn a_node_without_all_of_it_is_malformed() {
        for text in [
            "",
            "{}",
            "[]",
            "null",
            r#"{"node": "a", "enabled": true}"#,
            r#"{"node": "a", "enabled": "true", "queued_requests": 1}"#,
            r#"{"node": "a", "enabled": true, "queued_requests": -1}"#,
            r#"{"node": "a", "enabled": true, "queued_requests": 1.5}"#,
            r#"{"node": 1, "enabled": true, "queued_requests": 1}"#,
            r#"{"node": "a", "enabled": true, "queued_requests": 1}}"#,
        ] {
            assert!(node(text).is_err(), "{text}");
        }
        for text in ["[]", "{}", r#"{"nodes": {}}"#, r#"{"nodes": ["a", 1]}"#] {
            assert!(serde_json::from_str::<NodeList>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_name_is_one_segment_whatever_is_in_it() {
        for (name, encoded) in [
            ("server-04", "server-04"),
            ("Server 4", "Server%204"),
            ("web:80/10.0.0.1", "web%3A80%2F10.0.0.1"),
            ("a?b#c%d", "a%3Fb%23c%25d"),
            ("[::1]:80", "%5B%3A%3A1%5D%3A80"),
            ("é", "%C3%A9"),
            ("~_.", "~_."),
        ] {
            assert_eq!(segment(name).to_string(), encoded);
        }
    }

    #[test]
    fn an_error_is_told_with_what_the_answer_says() {
        for (body, text) in [
            ("", "answered 401 Unauthorized"),
            ("[1]", "answered 401 Unauthorized"),
            (r#"{"title": "no", "detail": "a token"}"#, "answered 401 Unauthorized: a token"),
            (r#"{"message": "<Error> a token"}"#, "answered 401 Unauthorized: <Error> a token"),
            (r#"{"title": "no", "status": 401}"#, "answered 401 Unauthorized: no"),
            (r#"{"message": {"N": 3}}"#, "answered 401 Unauthorized"),
        ] {
            let error = success(StatusCode::UNAUTHORIZED, body.as_bytes()).unwrap_err();
            assert_eq!(error.to_string(), text);
        }
        assert_eq!(success(StatusCode::OK, b"body").unwrap(), b"body");
        let long = format!(r#"{{"message": "{}"}}"#, "é".repeat(1_000));
        let error = success(StatusCode::BAD_GATEWAY, long.as_bytes()).unwrap_err();
        assert_eq!(error.to_string().chars().filter(|c| *c == 'é').count(), DETAIL_MAX);
    }

    #[test]
    fn what_the_caller_did_wrong_is_not_tried_again() {
        for (status, again) in [(302, true), (400, false), (401, false), (404, false)] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(CallError::Status { status, detail: None }.may_pass(), again, "{status}");
        }
        for (status, again) in [(408, true), (429, true), (500, true), (503, true)] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(CallError::Status { status, detail: None }.may_pass(), again, "{status}");
        }
    }
}
