//! A replica's answer on its way to the client: streamed, never held whole.

use std::pin::Pin;
use std::task::{Context, Poll};

use actix_http::body::{self, BodySize, MessageBody};
use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::CONTENT_LENGTH;
use bytes::Bytes;

use super::headers::HopByHop;
use super::upstream::{Answer, AnswerBody, BodyError};
use crate::routing::table::InFlight;

/// The body of an answer, with the guard that counts the request until its last byte.
struct Relay {
    body: AnswerBody,
    size: BodySize,
    _in_flight: InFlight,
}

/// The answer as the client gets it: status, fields that cross, and the body as it comes.
pub fn relay(answer: Answer, in_flight: InFlight) -> HttpResponse {
    let Answer { status, headers, body, length } = answer;
    let mut response = HttpResponse::build(status);
    let hop = HopByHop::of(&headers);
    for (name, value) in headers.iter().filter(|(name, _)| !hop.has(name)) {
        if name != CONTENT_LENGTH {
            response.append_header((name.clone(), value.clone()));
        }
    }
    // RFC 9110 6.4.1: these have no content; a 304 may say how long it would be (8.6).
    if status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED {
        if let (StatusCode::NOT_MODIFIED, Some(length)) = (status, length) {
            response.insert_header((CONTENT_LENGTH, length));
        }
        return response.body(body::None::new());
    }
    let size = length.map_or(BodySize::Stream, BodySize::Sized);
    response.body(Relay { body, size, _in_flight: in_flight })
}

impl MessageBody for Relay {
    type Error = BodyError;

    fn size(&self) -> BodySize {
        self.size
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        self.body.poll_next(cx)
    }
}
