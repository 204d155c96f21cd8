//! The endpoints: which path and method gets which answer.

use std::io;
use std::sync::{Mutex, PoisonError};

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::{ALLOW, ContentType, HeaderValue};
use actix_web::middleware::{Next, from_fn};
use actix_web::web::{self, Data, ServiceConfig};
use actix_web::{
    FromRequest, Handler, HttpMessage as _, HttpRequest, HttpResponse, Resource, Responder,
    ResponseError,
};
use futures_util::StreamExt as _;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde::Serialize;

use crate::journal::Journal;
use crate::latency::{Latency, QueueFull, WorkQueue};
use crate::options::Options;

/// The header with a request's id.
const REQUEST_ID: &str = "x-request-id";

/// What all workers of one replica share.
#[derive(Debug)]
pub(crate) struct Replica {
    id: String,
    known_user: Option<String>,
    queue: WorkQueue,
    latency: Latency,
    journal: Option<Journal>,
    /// Two sources of randomness, so that the requests that are dropped do not depend on how many
    /// others were worked on in between.
    slowness: Mutex<StdRng>,
    drops: Option<Mutex<StdRng>>,
    fails: bool,
}

/// Why a request is not answered 200 or 201.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("request dropped by server")]
    Dropped,
    #[error("request failed by server")]
    Failed,
    #[error("<Error> {0}")]
    Busy(#[from] QueueFull),
    #[error("<Error> no such user")]
    UnknownUser,
}

/// The body of every answer that has one, but for a dropped or failed request's.
#[derive(Serialize)]
struct Envelope<'a> {
    message: &'a str,
    status: Status,
}

#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Successful,
    Failure,
}

/// The methods a path is there for.
#[derive(Clone, Copy)]
enum Access {
    /// GET, and HEAD with the same head (RFC 9110, section 9.3.2).
    Read,
    /// POST.
    Change,
}

/// The query part of a request that changes something, as pairs: a name given twice is no error.
type Query = web::Query<Vec<(String, String)>>;

/// Registers every endpoint and the answers to everything else.
pub(crate) fn routes(replica: Data<Replica>) -> impl FnOnce(&mut ServiceConfig) {
    move |config| {
        let everything = web::scope("")
            .wrap(from_fn(read_whole_request))
            .service(resource("/home", Access::Read, home))
            .service(resource("/heartbeat", Access::Read, alive))
            .service(resource("/health-check", Access::Read, alive))
            .service(resource("/login", Access::Read, login))
            .service(resource("/register", Access::Change, register))
            .service(resource("/changePassword", Access::Change, change_password))
            .default_service(web::to(unknown_path));
        config.app_data(replica).service(everything);
    }
}

fn resource<F, Args>(path: &str, access: Access, handler: F) -> Resource
where
    F: Handler<Args>,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    let resource = web::resource(path);
    let resource = match access {
        Access::Read => {
            resource.route(web::get().to(handler.clone())).route(web::head().to(handler))
        }
        Access::Change => resource.route(web::post().to(handler)),
    };
    resource.default_service(web::to(move |request| wrong_method(request, access)))
}

/// Reads the body of a request to its end before anything is decided. No endpoint looks at it; but
/// an answer before the end would cost the client its connection, and only a body that was read
/// lets the server see that the client has gone.
async fn read_whole_request(
    mut request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let mut body = request.take_payload();
    while let Some(chunk) = body.next().await {
        chunk?;
    }
    next.call(request).await
}

// === the endpoints ===

async fn home(replica: Data<Replica>) -> Result<HttpResponse, Refusal> {
    replica.work().await?;
    Ok(successful(StatusCode::OK, &format!("Hello from Server: {}", replica.id)))
}

/// The probes: always at once, however long the queue is.
async fn alive() -> HttpResponse {
    HttpResponse::Ok().finish()
}

async fn login(replica: Data<Replica>) -> Result<HttpResponse, Refusal> {
    replica.work().await?;
    Ok(successful(StatusCode::OK, "logged in"))
}

async fn register(
    replica: Data<Replica>,
    query: Query,
    request: HttpRequest,
) -> Result<HttpResponse, Refusal> {
    replica.change(&query, &request).await?;
    Ok(successful(StatusCode::CREATED, "registered"))
}

async fn change_password(
    replica: Data<Replica>,
    query: Query,
    request: HttpRequest,
) -> Result<HttpResponse, Refusal> {
    replica.change(&query, &request).await?;
    Ok(successful(StatusCode::CREATED, "password changed"))
}

async fn unknown_path(request: HttpRequest) -> HttpResponse {
    failure(StatusCode::NOT_FOUND, &format!("<Error> '{}' endpoint does not exist", request.path()))
}

async fn wrong_method(request: HttpRequest, access: Access) -> HttpResponse {
    let (method, path) = (request.method(), request.path());
    let message = format!("<Error> '{path}' does not answer {method}");
    let mut answer = failure(StatusCode::METHOD_NOT_ALLOWED, &message);
    answer.headers_mut().insert(ALLOW, access.allow());
    answer
}

// === impl Replica ===

impl Replica {
    /// # Errors
    ///
    /// When the options contradict each other, or the journal's address is none.
    pub(crate) fn new(options: &Options) -> io::Result<Self> {
        let invalid = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
        let mut seed = options.seed.map_or_else(rand::make_rng, StdRng::seed_from_u64);
        let drops = Mutex::new(StdRng::from_rng(&mut seed));
        let slowness = Mutex::new(StdRng::from_rng(&mut seed));
        Ok(Self {
            id: options.server_id.clone(),
            known_user: options.known_user().map(str::to_owned),
            queue: options.work_queue().map_err(invalid)?,
            latency: options.latency(),
            journal: options.journal.as_deref().map(Journal::open).transpose()?,
            slowness,
            drops: options.skip_some_requests.then_some(drops),
            fails: options.fail_requests,
        })
    }

    /// Waits for a slot, then holds it for as long as the work takes.
    async fn work(&self) -> Result<(), Refusal> {
        if self.fails {
            return Err(Refusal::Failed);
        }
        let _slot = self.queue.enter().await?;
        let time = roll(&self.slowness, |rng| self.latency.draw(rng));
        if !time.is_zero() {
            tokio::time::sleep(time).await;
        }
        Ok(())
    }

    /// The way of a POST: dropped, or worked on in vain for a user nobody knows, or carried out,
    /// which the journal is told.
    async fn change(&self, query: &Query, request: &HttpRequest) -> Result<(), Refusal> {
        if self.drops_next() {
            return Err(Refusal::Dropped);
        }
        self.work().await?;
        if !self.knows(query) {
            return Err(Refusal::UnknownUser);
        }
        if let Some(journal) = &self.journal {
            journal.note(request.headers().get(REQUEST_ID).map(HeaderValue::as_bytes));
        }
        Ok(())
    }

    fn drops_next(&self) -> bool {
        self.drops.as_ref().is_some_and(|drops| roll(drops, is_dropped))
    }

    fn knows(&self, query: &[(String, String)]) -> bool {
        let Some(known) = &self.known_user else {
            return true;
        };
        query.iter().find(|(name, _)| name == "username").is_some_and(|(_, user)| user == known)
    }
}

/// One request in five, each on its own.
fn is_dropped(rng: &mut StdRng) -> bool {
    rng.random_ratio(1, 5)
}

/// Takes a decision with a shared source of randomness. A decision that panicked elsewhere leaves
/// the source as good as any.
fn roll<T>(rng: &Mutex<StdRng>, decide: impl FnOnce(&mut StdRng) -> T) -> T {
    decide(&mut rng.lock().unwrap_or_else(PoisonError::into_inner))
}

// === impl Refusal ===

impl ResponseError for Refusal {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::Dropped | Self::Failed => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Busy(QueueFull) => StatusCode::SERVICE_UNAVAILABLE,
            Self::UnknownUser => StatusCode::NOT_FOUND,
        }
    }

    fn error_response(&self) -> HttpResponse {
        match self {
            Self::Dropped | Self::Failed => HttpResponse::build(self.status_code())
                .content_type(ContentType::plaintext())
                .body(self.to_string()),
            Self::Busy(_) | Self::UnknownUser => failure(self.status_code(), &self.to_string()),
        }
    }
}

// === impl Envelope ===

fn successful(code: StatusCode, message: &str) -> HttpResponse {
    HttpResponse::build(code).json(Envelope { message, status: Status::Successful })
}

fn failure(code: StatusCode, message: &str) -> HttpResponse {
    HttpResponse::build(code).json(Envelope { message, status: Status::Failure })
}

// === impl Access ===

impl Access {
    fn allow(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Read => "GET, HEAD",
            Self::Change => "POST",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dropping(seed: u64) -> Replica {
        let options = Options { skip_some_requests: true, seed: Some(seed), ..Options::default() };
        Replica::new(&options).unwrap()
    }

    #[test]
    fn one_request_in_five_is_dropped() {
        for seed in 0..10 {
            let replica = dropping(seed);
            let dropped = (0..10_000).filter(|_| replica.drops_next()).count();
            // A binomial: the mean is 2000, the standard deviation 40, four of them 160.
            assert!((1840..=2160).contains(&dropped), "{dropped} of 10000 with seed {seed}");
        }
    }

    #[test]
    fn the_same_seed_drops_the_same_requests() {
        let drops = |replica: &Replica| (0..1000).map(|_| replica.drops_next()).collect::<Vec<_>>();
        assert_eq!(drops(&dropping(7)), drops(&dropping(7)));
        assert_ne!(drops(&dropping(7)), drops(&dropping(8)));
    }

    #[tokio::test]
    async fn other_requests_in_between_change_nothing_about_who_is_dropped() {
        let (quiet, busy) = (dropping(7), dropping(7));
        for _ in 0..1000 {
            busy.work().await.unwrap();
            assert_eq!(quiet.drops_next(), busy.drops_next());
        }
    }

    #[tokio::test]
    async fn every_request_fails_where_that_is_asked_for() {
        let options = Options { fail_requests: true, ..Options::default() };
        assert!(matches!(Replica::new(&options).unwrap().work().await, Err(Refusal::Failed)));
        let good = Replica::new(&Options::default()).unwrap();
        assert!(good.work().await.is_ok());
    }

    #[test]
    fn nothing_is_dropped_unless_asked_for() {
        let replica = Replica::new(&Options::default()).unwrap();
        assert!((0..1000).all(|_| !replica.drops_next()));
    }
}
