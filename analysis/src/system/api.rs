//! The balancer's REST interface, as a client sees it.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use awc::http::Method;
use awc::http::header::HeaderMap;
use awc::{Client, Connector};
use serde::Deserialize;
use serde_json::Value;

/// A client of one balancer.
pub(crate) struct Api {
    client: Client,
    address: SocketAddr,
}

/// A call to make.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// What came back.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

/// What all bodies of the contract are.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct Envelope {
    pub(crate) message: Value,
    pub(crate) status: String,
}

/// The message of `/rep`, `/add` and `/rm`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fleet {
    #[serde(rename = "N")]
    pub(crate) n: usize,
    pub(crate) replicas: Vec<String>,
}

/// `/add` and `/rm` wait for replicas: longer than any of their own deadlines.
const PATIENCE: Duration = Duration::from_secs(120);

// === impl Call ===

impl Call {
    /// A call without a body.
    pub(crate) fn new(method: Method, path: &str) -> Self {
        Self { method, path: path.to_owned(), headers: Vec::new(), body: Vec::new() }
    }

    /// With a JSON body.
    pub(crate) fn json(method: Method, path: &str, body: &str) -> Self {
        Self { body: body.as_bytes().to_vec(), ..Self::new(method, path) }
            .header("content-type", "application/json")
    }

    /// With this header, in place of one of that name.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

// === impl Api ===

impl Api {
    pub(crate) fn new(address: SocketAddr) -> Self {
        let connector = Connector::new().timeout(Duration::from_secs(5));
        let client =
            Client::builder().connector(connector).timeout(PATIENCE).disable_redirects().finish();
        Self { client, address }
    }

    /// Makes the call.
    ///
    /// # Errors
    /// When no whole answer comes.
    pub(crate) async fn call(&self, call: &Call) -> anyhow::Result<Answer> {
        let url = format!("http://{}{}", self.address, call.path);
        let mut request = self.client.request(call.method.clone(), &url).no_decompress();
        for (name, value) in &call.headers {
            request = request.insert_header((name.as_str(), value.as_str()));
        }
        let what = || format!("{} {} got no answer", call.method, call.path);
        let mut answer = request
            .send_body(call.body.clone())
            .await
            // The client's error cannot leave its thread, which `anyhow` asks for.
            .map_err(|error| anyhow!("{error}"))
            .with_context(what)?;
        let body = answer.body().await.map_err(|error| anyhow!("{error}")).with_context(what)?;
        Ok(Answer {
            status: answer.status().as_u16(),
            headers: answer.headers().clone(),
            body: body.to_vec(),
        })
    }

    /// The names that `/rep` lists.
    ///
    /// # Errors
    /// When no answer comes, or it is not the contract's.
    pub(crate) async fn replicas(&self) -> anyhow::Result<Vec<String>> {
        let answer = self.call(&Call::new(Method::GET, "/rep")).await?;
        Ok(answer.fleet().context("GET /rep")?.replicas)
    }
}

// === impl Answer ===

impl Answer {
    /// The value of a header, when it is there and text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body as text, for people.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as the contract's envelope.
    ///
    /// # Errors
    /// When it is not JSON by its content type and its content, or not an envelope.
    pub(crate) fn envelope(&self) -> anyhow::Result<Envelope> {
        let kind = self.header("content-type").unwrap_or("none");
        ensure!(kind.starts_with("application/json"), "content type {kind}");
        serde_json::from_slice(&self.body).with_context(|| format!("no envelope: {}", self.text()))
    }

    /// The fleet of a successful `/rep`, `/add` or `/rm`.
    ///
    /// # Errors
    /// When the answer is another one, or its `N` is not the length of its list.
    pub(crate) fn fleet(&self) -> anyhow::Result<Fleet> {
        ensure!(self.status == 200, "status {}: {}", self.status, self.text());
        let envelope = self.envelope()?;
        ensure!(envelope.status == "successful", "the envelope says {:?}", envelope.status);
        let fleet: Fleet = serde_json::from_value(envelope.message)
            .with_context(|| format!("no fleet: {}", self.text()))?;
        ensure!(
            fleet.n == fleet.replicas.len(),
            "N is {} but {} replicas are listed",
            fleet.n,
            fleet.replicas.len()
        );
        Ok(fleet)
    }
}
