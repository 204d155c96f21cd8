//! `GET /metrics`: what is counted, for Prometheus and what reads its formats.

mod families;

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::{StatusCode, header};
use actix_web::web::{self, Data};
use actix_web::{HttpRequest, HttpResponse};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::warn;

use super::{Admin, READ, refuse};
use crate::metrics::text::Format;
use crate::reply;

/// How long the supervisor may take to say how the fleet is. What only it knows is left out then:
/// a look that fails because of one number would lose all the others.
const STATUS_WITHIN: Duration = Duration::from_millis(500);

/// Texts that are written at once, of all workers. Each takes a thread of its own, whose memory is
/// far more than the text; one takes about a millisecond.
static WRITING: Semaphore = Semaphore::const_new(2);

pub(super) async fn metrics(request: HttpRequest, admin: Data<Admin>) -> HttpResponse {
    if let Some(refusal) = refuse(&request, &admin, READ) {
        return refusal;
    }
    let accept: Vec<&str> = request
        .headers()
        .get_all(header::ACCEPT)
        .filter_map(|accept| accept.to_str().ok())
        .collect();
    let format = Format::wanted(&accept.join(","));
    let shared = Arc::clone(&admin.shared);
    let status = timeout(STATUS_WITHIN, shared.status()).await.ok().and_then(Result::ok);
    // Not in the thread that others' requests wait for: a thousand replicas make a long text.
    let placement = (admin.now)().placement.name();
    // The semaphore is never closed; without a permit the text is written all the same.
    let permit = WRITING.acquire().await;
    let text =
        web::block(move || format.write(families::all(&shared, status.as_ref(), placement))).await;
    drop(permit);
    match text {
        Ok(text) => HttpResponse::Ok()
            .insert_header((header::CONTENT_TYPE, format.content_type()))
            .body(text),
        Err(error) => {
            warn!(%error, "metrics could not be written");
            reply::failure(StatusCode::SERVICE_UNAVAILABLE, "the balancer is shutting down")
        }
    }
}
