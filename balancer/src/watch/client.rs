//! The calls of the overload API, over HTTP.

use std::io;
use std::time::Duration;

use awc::body::None as NoBody;
use awc::error::{ConnectError, SendRequestError};
use awc::http::{Method, header};
use awc::{ClientRequest, Connector};
use bytes::Bytes;
use http::StatusCode;
use serde::de::DeserializeOwned;

use super::api::{Api, CallError, Node, NodeList, segment, success};
use super::options::{ApiUrl, Options, Secret};

/// How many calls are made at once, and connections kept.
pub(super) const AT_ONCE: usize = 16;

/// Most bytes of an answer: the names of some ten thousand nodes.
const ANSWER_MAX: usize = 1 << 20;

/// A balancer that speaks the API.
pub(super) struct Client {
    http: awc::Client,
    api: ApiUrl,
    token: Option<Secret>,
    timeout: Duration,
}

impl Client {
    pub(super) fn new(options: &Options) -> Self {
        let connector = Connector::new().limit(AT_ONCE).timeout(options.timeout);
        // The time limit is kept in one place, around the whole of a call.
        let http = awc::Client::builder()
            .connector(connector)
            .disable_timeout()
            .disable_redirects()
            .finish();
        let (api, token) = (options.api.clone(), options.token.clone());
        Self { http, api, token, timeout: options.timeout }
    }

    fn request(&self, method: Method, path: &str) -> ClientRequest {
        let request = self
            .http
            .request(method, format!("{}/loadbalancer/{path}", self.api))
            .insert_header((header::ACCEPT, "application/json"))
            .insert_header((header::USER_AGENT, "balancer-watch"));
        match &self.token {
            Some(token) => request.bearer_auth(token.reveal()),
            None => request,
        }
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CallError> {
        // A GET without a body says nothing of one (RFC 9110, section 8.6).
        let sending = self.request(Method::GET, path).send_body(NoBody::new());
        self.answer(sending).await
    }

    async fn post<T: DeserializeOwned>(&self, path: &str) -> Result<T, CallError> {
        // Browsers cannot send it across origins without asking, so that some balancers want it.
        let json = (header::CONTENT_TYPE, "application/json");
        let sending = self.request(Method::POST, path).insert_header(json).send_body(Bytes::new());
        self.answer(sending).await
    }

    async fn answer<T: DeserializeOwned>(
        &self,
        sending: awc::SendClientRequest,
    ) -> Result<T, CallError> {
        let call = async {
            let mut answer = sending.await.map_err(unanswered)?;
            let body = answer.body().limit(ANSWER_MAX).await.map_err(CallError::Body)?;
            // awc's `http` is an older one.
            let status = StatusCode::from_u16(answer.status().as_u16()).expect("it is one there");
            let told = success(status, &body)?;
            serde_json::from_slice(told).map_err(CallError::Malformed)
        };
        let in_time = tokio::time::timeout(self.timeout, call).await;
        in_time.unwrap_or(Err(CallError::TimedOut(self.timeout)))
    }
}

/// awc's own error cannot leave its thread.
fn unanswered(error: SendRequestError) -> CallError {
    let text = error.to_string();
    if let SendRequestError::Connect(ConnectError::Io(cause)) | SendRequestError::Send(cause) =
        error
    {
        return CallError::Send(cause);
    }
    CallError::Send(io::Error::other(text))
}

impl Api for Client {
    async fn names(&self) -> Result<Vec<String>, CallError> {
        self.get::<NodeList>("node_list").await.map(|list| list.nodes)
    }

    async fn node(&self, name: &str) -> Result<Node, CallError> {
        self.get::<Node>(&format!("node/{}", segment(name))).await?.named(name)
    }

    async fn set(&self, name: &str, enable: bool) -> Result<Node, CallError> {
        let verb = if enable { "enable" } else { "disable" };
        let path = format!("node/{}/{verb}", segment(name));
        self.post::<Node>(&path).await?.named(name)?.set_to(enable)
    }
}
