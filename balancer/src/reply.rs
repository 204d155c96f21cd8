//! The envelope that every answer of the balancer's own has:
//! `{"message": …, "status": "successful" | "failure"}`.

use actix_web::http::StatusCode;
use actix_web::http::header::{ContentType, RETRY_AFTER};
use actix_web::{HttpResponse, HttpResponseBuilder};
use serde::Serialize;

use crate::fleet::seat::Hostname;

/// Seconds after which a client may ask again when there is nothing to answer with now.
pub const RETRY_AFTER_SECONDS: &str = "1";

#[derive(Serialize)]
struct Envelope<T> {
    message: T,
    status: &'static str,
}

#[derive(Serialize)]
struct Fleet<'a> {
    #[serde(rename = "N")]
    n: usize,
    replicas: Vec<&'a str>,
}

/// 200 with the replicas that run.
pub fn fleet(listing: &[Hostname]) -> HttpResponse {
    let replicas: Vec<&str> = listing.iter().map(Hostname::as_str).collect();
    let message = Fleet { n: replicas.len(), replicas };
    HttpResponse::Ok().json(Envelope { message, status: "successful" })
}

/// An answer that went well, with whatever it has to say.
pub fn success(status: StatusCode, message: impl Serialize) -> HttpResponse {
    HttpResponse::build(status).json(Envelope { message, status: "successful" })
}

/// A failure, its message behind `<Error> `.
pub fn failure(status: StatusCode, message: &str) -> HttpResponse {
    failure_with(HttpResponse::build(status), status, message)
}

/// A failure on an answer that has headers already. One that says "not now" says when.
pub fn failure_with(
    mut answer: HttpResponseBuilder,
    status: StatusCode,
    message: &str,
) -> HttpResponse {
    if status == StatusCode::SERVICE_UNAVAILABLE {
        answer.insert_header((RETRY_AFTER, RETRY_AFTER_SECONDS));
    }
    answer.insert_header(ContentType::json()).body(failure_text(message))
}

/// The body of a failure that has a list to say.
pub fn failure_list(list: &[impl Serialize]) -> String {
    let envelope = Envelope { message: list, status: "failure" };
    serde_json::to_string(&envelope).expect("what is listed here is always JSON")
}

/// The body of a failure.
pub fn failure_text(message: &str) -> String {
    let envelope = Envelope { message: format!("<Error> {message}"), status: "failure" };
    serde_json::to_string(&envelope).expect("two strings are always JSON")
}
