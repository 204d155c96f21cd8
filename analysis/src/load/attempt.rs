//! One request: sent, answered, its body read to the end and looked at.

use std::time::Duration;

use actix_web::body;
use awc::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};
use awc::http::{Method, StatusCode};
use awc::{Client, Connector};
use futures_util::StreamExt as _;
use serde::de::IgnoredAny;

use super::{Failure, LoadPlan, Sample, Shared};

/// The header that carries a request's id.
pub(crate) const REQUEST_ID: &str = "x-request-id";

/// How a demo replica begins the message that names its seat.
const GREETING: &[u8] = b"Hello from Server: ";

/// The part of a body that is kept to be looked at.
const KEPT: usize = 64 * 1024;

/// A client for the plan: as many connections as it allows, kept alive, no redirects followed, no
/// bodies unpacked.
pub(super) fn client(plan: &LoadPlan) -> Client {
    let connector = Connector::new().limit(plan.connections.max(1)).timeout(plan.timeout);
    // The timeout is kept in one place, around the whole of an attempt.
    Client::builder().connector(connector).disable_timeout().disable_redirects().finish()
}

impl Shared {
    /// Carries out the request with this index and notes when what happened.
    pub(super) async fn request(&self, index: usize, launched: Duration) -> Sample {
        let _slot = self.slots.acquire().await;
        let sent = self.start.elapsed();
        let attempt = self.attempt(self.plan.ids[index]);
        let outcome =
            tokio::time::timeout(self.plan.timeout, attempt).await.unwrap_or(Err(Failure::Timeout));
        Sample { launched, sent, done: self.start.elapsed(), outcome }
    }

    async fn attempt(&self, id: u32) -> Result<Option<u32>, Failure> {
        let plan = &self.plan;
        let mut request = self.client.request(plan.method.clone(), plan.url.clone());
        for header in &plan.headers {
            request = request.append_header(header);
        }
        request = request.insert_header((REQUEST_ID, id.to_string())).no_decompress();
        // A GET without a body says nothing of one (RFC 9110, section 8.6), as browsers do.
        let sending = match plan.body.is_empty() && plan.method.is_safe() {
            true => request.send_body(body::None::new()),
            false => request.send_body(plan.body.clone()),
        };
        let mut answer = sending.await.map_err(|error| Failure::of_request(&error))?;

        let mut length = 0;
        let mut kept = Vec::new();
        while let Some(chunk) = answer.next().await {
            let chunk = chunk.map_err(|error| Failure::of_body(&error))?;
            length += chunk.len();
            kept.extend_from_slice(&chunk[..chunk.len().min(KEPT - kept.len())]);
        }
        let status = answer.status();
        let is_success = match plan.success {
            Some(success) => status == success,
            None => !status.is_client_error() && !status.is_server_error(),
        };
        if !is_success {
            return Err(Failure::Status(status.as_u16()));
        }
        if has_body(&plan.method, status) && is_truncated(answer.headers(), length, &kept) {
            return Err(Failure::Truncated);
        }
        Ok(seat_in(&kept))
    }
}

/// Whether an answer has the body that its headers speak of (RFC 9110, section 6.4.1).
fn has_body(method: &Method, status: StatusCode) -> bool {
    *method != Method::HEAD && !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// awc takes the end of the connection for the end of the body, so that this is looked into here:
/// by the announced length, and where there is none, by the JSON that the body should be. A
/// truncated chunked body of another type cannot be told from a whole one.
fn is_truncated(headers: &HeaderMap, length: usize, kept: &[u8]) -> bool {
    let announced: Option<usize> =
        headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if let Some(announced) = announced {
        return length != announced;
    }
    let json = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.starts_with("application/json"));
    json && length == kept.len() && serde_json::from_slice::<IgnoredAny>(kept).is_err()
}

/// The seat that an answer of a demo replica names: `{"message":"Hello from Server: 3",…}` → 3.
pub(super) fn seat_in(body: &[u8]) -> Option<u32> {
    let at = body.windows(GREETING.len()).position(|window| window == GREETING)?;
    let digits = body[at + GREETING.len()..].split(|byte| !byte.is_ascii_digit()).next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}
