//! `/rep`, `/add`, `/rm`, `/admin/*`, `/loadbalancer/*`: parse → command → await the answer → JSON;
//! and `/metrics`. None of these paths, nor anything under `/admin/` or `/loadbalancer/`, is ever
//! forwarded.

pub mod body;
pub mod events;
mod explain;
pub mod fleet;
pub mod guard;
mod loadbalancer;
mod metrics;
mod query;
mod rehearse;
mod ring;

use std::sync::Arc;

use actix_web::error::BlockingError;
use actix_web::http::{Method, StatusCode, header};
use actix_web::web::{self, Data, Payload, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use tracing::{info, warn};

use crate::config::{AdminConfig, Config};
use crate::fleet::change::{ChangeKind, Failed, Refused};
use crate::reply;
use crate::state::{ChangeError, Shared};
use crate::telemetry::chain;
use body::read_change;
use guard::{Denied, may_call, may_change};

/// What the admin routes need.
pub struct Admin {
    /// The way to the supervisor.
    pub shared: Arc<Shared>,
    /// Who may do what.
    pub config: AdminConfig,
    /// The whole configuration as it is now: it may have been read again.
    pub now: Now,
}

/// Tells the configuration as it is now.
pub type Now = Arc<dyn Fn() -> Arc<Config> + Send + Sync>;

/// An endpoint, by the methods that it has.
const REP: &[Method] = &[Method::GET, Method::HEAD];
const ADD: &[Method] = &[Method::POST];
const RM: &[Method] = &[Method::DELETE, Method::POST];
const READ: &[Method] = REP;
const REHEARSE: &[Method] = ADD;
const ROLL: &[Method] = &[Method::GET, Method::HEAD, Method::POST, Method::DELETE];
const ROLL_STEP: &[Method] = ADD;

/// Puts the admin routes on a listener; they need a [`Data<Admin>`].
pub fn routes(app: &mut ServiceConfig) {
    app.route("/rep", web::to(rep))
        .route("/add", web::to(add))
        .route("/rm", web::to(rm))
        .route("/admin/fleet", web::to(fleet::fleet))
        .route("/admin/events", web::to(events::events))
        .route("/admin/roll", web::to(fleet::roll))
        .route("/admin/roll/pause", web::to(fleet::pause_roll))
        .route("/admin/roll/resume", web::to(fleet::resume_roll))
        .route("/admin/ring", web::to(ring::ring))
        .route("/admin/explain", web::to(explain::explain))
        .route("/admin/rehearse", web::to(rehearse::rehearse))
        .route("/loadbalancer/{rest:.*}", web::to(loadbalancer::call))
        .route("/metrics", web::to(metrics::metrics))
        .route("/admin", web::to(unknown))
        .route("/admin/{rest:.*}", web::to(unknown));
}

async fn rep(request: HttpRequest, admin: Data<Admin>) -> HttpResponse {
    if let Some(refusal) = refuse(&request, &admin, REP) {
        return refusal;
    }
    reply::fleet(admin.shared.table().listing())
}

async fn add(request: HttpRequest, body: Payload, admin: Data<Admin>) -> HttpResponse {
    change(&request, body, &admin, ADD, ChangeKind::Add).await
}

async fn rm(request: HttpRequest, body: Payload, admin: Data<Admin>) -> HttpResponse {
    change(&request, body, &admin, RM, ChangeKind::Remove).await
}

/// What the balancer answers for paths that are its own and that nothing is at.
pub async fn unknown(request: HttpRequest, admin: Data<Admin>) -> HttpResponse {
    if let Err(denied) = may_call(&request, &admin.config) {
        return deny(&denied);
    }
    let message = format!("'{}' is no endpoint of the balancer", request.path());
    reply::failure(StatusCode::NOT_FOUND, &message)
}

async fn change(
    request: &HttpRequest,
    body: Payload,
    admin: &Admin,
    methods: &[Method],
    kind: ChangeKind,
) -> HttpResponse {
    if let Some(refusal) = refuse(request, admin, methods) {
        return refusal;
    }
    if let Err(denied) = may_change(request, &admin.config) {
        return deny(&denied);
    }
    let change = match read_change(request, body, kind, admin.config.listed).await {
        Ok(change) => change,
        Err(bad) => return reply::failure(bad.status(), &bad.to_string()),
    };
    match admin.shared.change(kind, change).await {
        Ok(listing) => {
            info!(?kind, replicas = listing.len(), "fleet is changed");
            reply::fleet(&listing)
        }
        Err(error) => fail(&error),
    }
}

/// The answer to a call that did not come to its end.
fn fail(error: &ChangeError) -> HttpResponse {
    let (status, message) = (status(error), chain(error));
    if status.is_server_error() {
        warn!(error = message, "fleet could not be changed");
    }
    reply::failure(status, &message)
}

/// The answer where something could not be worked out: the threads for that have ended.
fn busy(error: &BlockingError) -> HttpResponse {
    warn!(%error, "nothing could be worked out");
    reply::failure(StatusCode::SERVICE_UNAVAILABLE, "the balancer is shutting down")
}

/// The refusal of a call that may not come, or by another method.
fn refuse(request: &HttpRequest, admin: &Admin, methods: &[Method]) -> Option<HttpResponse> {
    if let Err(denied) = may_call(request, &admin.config) {
        return Some(deny(&denied));
    }
    if methods.contains(request.method()) {
        return None;
    }
    let allow: Vec<&str> = methods.iter().map(Method::as_str).collect();
    let allow = allow.join(", ");
    let message = format!("'{}' takes {allow}, not {}", request.path(), request.method());
    let status = StatusCode::METHOD_NOT_ALLOWED;
    let mut answer = HttpResponse::build(status);
    answer.insert_header((header::ALLOW, allow));
    Some(reply::failure_with(answer, status, &message))
}

fn deny(denied: &Denied) -> HttpResponse {
    let mut answer = HttpResponse::build(denied.status());
    if denied.status() == StatusCode::UNAUTHORIZED {
        answer.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
    }
    reply::failure_with(answer, denied.status(), &denied.to_string())
}

fn status(error: &ChangeError) -> StatusCode {
    match error {
        ChangeError::Refused(Refused::NotRolling { .. } | Refused::NothingToRollBackTo) => {
            StatusCode::CONFLICT
        }
        ChangeError::Refused(_)
        | ChangeError::Failed(Failed::NameTaken(_) | Failed::ListedAlready(_)) => {
            StatusCode::BAD_REQUEST
        }
        ChangeError::Failed(Failed::ShuttingDown)
        | ChangeError::NoRuntime(_)
        | ChangeError::Busy => StatusCode::SERVICE_UNAVAILABLE,
        ChangeError::Failed(
            Failed::Start { .. }
            | Failed::List { .. }
            | Failed::Unlisted(_)
            | Failed::RemovedElsewhere(_)
            | Failed::Died { .. }
            | Failed::NeverReady { .. }
            | Failed::Remove { .. },
        ) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
