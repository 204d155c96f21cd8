//! Why a request was not answered by a replica, and what the client is told.

use std::io;

use serde::Serialize;
use thiserror::Error;

use crate::descriptors::are_used_up;
use crate::http1::answer::BadAnswer;
use crate::http1::chunked::BadChunk;
use crate::http1::head::BadHead;
use crate::http1::request::BadRequest;
use crate::metrics::Code;

/// The status of a forwarding loop (RFC 5842 7.2).
pub const LOOP_DETECTED: u16 = 508;

/// See the module; the messages go out behind `<Error> `.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProxyError {
    /// There is nobody to send it to.
    #[error("no replica is ready")]
    NoReplica,
    /// No replica could be connected to.
    #[error("no replica could be reached")]
    Unreachable,
    /// The connection ended, or brought nonsense, before an answer came.
    #[error("the replica failed before it answered")]
    Lost,
    /// The head of the response is beyond `limits.response_fields` or `limits.head`.
    #[error("the replica's response is beyond the limits: {0}")]
    LargeResponse(BadHead),
    /// No answer came in time.
    #[error("the replica did not answer in time")]
    Late,
    /// The client's own body broke off or is malformed.
    #[error("the request's body was cut short or malformed")]
    ClientBody,
    /// The client's body did not go on.
    #[error("the request did not come in time")]
    ClientLate,
    /// The client's body is beyond the limit.
    #[error("the request's body is larger than {0} bytes")]
    TooLarge(u64),
    /// The request's head is no head.
    #[error("{0}")]
    Head(BadHead),
    /// The request makes no sense.
    #[error("{0}")]
    Request(BadRequest),
    /// The last recipient is this balancer (RFC 9110 7.6.2), which has nothing to say of itself.
    #[error("the request goes no further: 'Max-Forwards' is 0")]
    EndOfWay,
    /// Replicas do not know the path, and that is the client's error (`compat.unknown_path`).
    #[error("'{0}' endpoint does not exist in server replicas")]
    UnknownPath(String),
    /// The path is reserved for the admin routes, which have a listener of their own.
    #[error("the path is reserved for the balancer, which serves it on its admin listener")]
    Reserved,
    /// The request has passed through this balancer before (RFC 5842 7.2).
    #[error("forwarding loop: the request has passed through this balancer before")]
    Loop,
    /// There are too many connections.
    #[error("too many connections")]
    Crowded,
    /// No file descriptor was left for a connection to a replica.
    #[error("the balancer has no file descriptor left for a connection to a replica")]
    Starving,
    /// No replica has room for it, and too many wait already, or it has waited too long.
    #[error("too many requests are under way")]
    Overloaded,
    /// It was in flight at two replicas when they died, so that it is not sent for a while.
    #[error(
        "the request was in flight at two replicas whose connections broke, and is not sent for a \
         while"
    )]
    Quarantined,
    /// Too many requests to several replicas are in progress: this many are allowed.
    #[error(
        "too many requests to several replicas are in progress: 'limits.deliveries' allows {0}"
    )]
    TooManyDeliveries(usize),
    /// Of those that it was sent to, not all succeeded, or none did.
    #[error("{} of the replicas failed", .0.len())]
    Unsent(Vec<Unsent>),
}

/// One replica at which a request that goes to several failed for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unsent {
    /// Which.
    pub replica: String,
    /// How often it was asked.
    pub attempts: u32,
    /// What came of it last.
    pub error: String,
}

/// Why a try at one replica gave no answer.
#[derive(Debug, Error)]
pub enum Failure {
    /// It could not be connected to: it has nothing of the request.
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    /// The connection ended before any of the request was written: it has nothing of it.
    #[error("connection closed")]
    NotSent(#[source] io::Error),
    /// The connection ended before the head of an answer was whole.
    #[error("connection lost")]
    Lost(#[source] io::Error),
    /// It ended inside the head of an answer.
    #[error("answer was cut short")]
    HeadCut(#[source] io::Error),
    /// The head of the answer is no head.
    #[error("bad answer")]
    Head(#[source] BadHead),
    /// The answer makes no sense.
    #[error("bad answer")]
    Answer(#[source] BadAnswer),
    /// It changes the protocol, which nobody asked for.
    #[error("answered 101 without being asked")]
    Unasked,
    /// The head of an answer did not come in time, or the request was not taken.
    #[error("late")]
    Late,
    /// The client's body broke off.
    #[error("client's body broke off")]
    ClientCut,
    /// The client's body is no chunks.
    #[error("client's body is malformed")]
    ClientChunk(#[source] BadChunk),
    /// The client's trailers are no fields.
    #[error("client's trailers are malformed")]
    ClientTrailer(#[source] BadHead),
    /// The client's body did not go on.
    #[error("client's body did not come in time")]
    ClientLate,
    /// The client's body is larger than this.
    #[error("client's body is larger than {0} bytes")]
    TooLarge(u64),
    /// The client has gone: nobody is left to answer.
    #[error("client has gone")]
    Gone,
    /// The request was in flight at two replicas when they died. It was not sent.
    #[error("the request was in flight at two replicas when they died")]
    Quarantined,
}

/// Why an answer that was begun could not be finished: all that can be done is not to hide it.
#[derive(Debug, Error)]
pub enum Broken {
    /// The client has gone.
    #[error("client has gone")]
    Gone,
    /// The client did not take it.
    #[error("client does not read")]
    ClientLate,
    /// The replica's connection ended inside.
    #[error("answer was cut short")]
    Cut(#[source] Option<io::Error>),
    /// The replica's chunks are none.
    #[error("answer is malformed")]
    Chunk(#[source] BadChunk),
    /// The replica's trailers are no fields.
    #[error("answer's trailers are malformed")]
    Trailer(#[source] BadHead),
    /// The replica did not go on.
    #[error("answer did not go on")]
    Late,
}

// === impl ProxyError ===

impl ProxyError {
    /// What it is in HTTP.
    pub fn status(&self) -> u16 {
        match self {
            ProxyError::NoReplica
            | ProxyError::Crowded
            | ProxyError::Starving
            | ProxyError::Overloaded
            | ProxyError::TooManyDeliveries(_) => 503,
            ProxyError::Unreachable
            | ProxyError::Lost
            | ProxyError::LargeResponse(_)
            | ProxyError::Quarantined
            | ProxyError::Unsent(_) => 502,
            ProxyError::Late => 504,
            ProxyError::ClientLate => 408,
            ProxyError::TooLarge(_) => 413,
            ProxyError::ClientBody | ProxyError::UnknownPath(_) => 400,
            ProxyError::Head(bad) => bad.status(),
            ProxyError::Request(BadRequest::Connect) => 501,
            ProxyError::Request(_) => 400,
            ProxyError::Reserved => 404,
            ProxyError::EndOfWay => 405,
            ProxyError::Loop => LOOP_DETECTED,
        }
    }

    /// Whether what is left of the client's message cannot be told from the next one.
    pub fn ends_connection(&self) -> bool {
        match self {
            ProxyError::ClientBody
            | ProxyError::ClientLate
            | ProxyError::TooLarge(_)
            | ProxyError::Head(_)
            | ProxyError::Request(_)
            | ProxyError::Crowded => true,
            ProxyError::NoReplica
            | ProxyError::Starving
            | ProxyError::Overloaded
            | ProxyError::TooManyDeliveries(_)
            | ProxyError::Unreachable
            | ProxyError::Lost
            | ProxyError::LargeResponse(_)
            | ProxyError::Late
            | ProxyError::Reserved
            | ProxyError::Loop
            | ProxyError::EndOfWay
            | ProxyError::Quarantined
            | ProxyError::Unsent(_)
            | ProxyError::UnknownPath(_) => false,
        }
    }

    /// The envelope that the client gets.
    pub fn body(&self) -> String {
        if let ProxyError::Unsent(all) = self {
            return crate::reply::failure_list(all);
        }
        crate::reply::failure_text(&self.to_string())
    }
}

// === impl Failure ===

impl Failure {
    /// Whether the replica cannot have any of the request.
    pub fn left_nothing(&self) -> bool {
        matches!(self, Failure::Connect(_) | Failure::NotSent(_))
    }

    /// Whether the request may be sent again, somewhere, if what it asks for can be done twice.
    pub fn may_retry(&self) -> bool {
        match self {
            // There would be no descriptor for another replica either.
            Failure::Connect(error) => !are_used_up(error),
            Failure::NotSent(_) | Failure::Lost(_) => true,
            // A replica that answers nonsense did something; a late one may still be at it, and
            // so would be the next.
            Failure::HeadCut(_)
            | Failure::Head(_)
            | Failure::Answer(_)
            | Failure::Unasked
            | Failure::Late
            | Failure::ClientCut
            | Failure::ClientChunk(_)
            | Failure::ClientTrailer(_)
            | Failure::ClientLate
            | Failure::TooLarge(_)
            | Failure::Gone
            | Failure::Quarantined => false,
        }
    }

    /// Reports whether the connection broke after some of the request was sent, as it does when the
    /// replica dies.
    pub fn is_loss(&self) -> bool {
        matches!(self, Failure::Lost(_) | Failure::HeadCut(_))
    }

    /// Whether it is the replica that failed, not its client.
    pub fn blames_the_replica(&self) -> bool {
        match self {
            Failure::Connect(error) => !are_used_up(error),
            // It works, and answers other requests: the limit is the balancer's.
            Failure::Head(BadHead::TooManyFields | BadHead::TooLarge) => false,
            Failure::NotSent(_)
            | Failure::Lost(_)
            | Failure::HeadCut(_)
            | Failure::Head(_)
            | Failure::Answer(_)
            | Failure::Unasked
            | Failure::Late => true,
            Failure::ClientCut
            | Failure::ClientChunk(_)
            | Failure::ClientTrailer(_)
            | Failure::ClientLate
            | Failure::TooLarge(_)
            | Failure::Gone
            | Failure::Quarantined => false,
        }
    }

    /// How the try is counted.
    pub fn code(&self) -> Code {
        if self.blames_the_replica() { Code::Error } else { Code::None }
    }

    /// What the client is told; nothing where it has gone.
    pub fn into_error(self) -> Option<ProxyError> {
        match self {
            Failure::Connect(error) if are_used_up(&error) => Some(ProxyError::Starving),
            Failure::Connect(_) | Failure::NotSent(_) => Some(ProxyError::Unreachable),
            Failure::Head(bad @ (BadHead::TooManyFields | BadHead::TooLarge)) => {
                Some(ProxyError::LargeResponse(bad))
            }
            Failure::Lost(_)
            | Failure::HeadCut(_)
            | Failure::Head(_)
            | Failure::Answer(_)
            | Failure::Unasked => Some(ProxyError::Lost),
            Failure::Late => Some(ProxyError::Late),
            Failure::ClientChunk(_) | Failure::ClientTrailer(_) | Failure::ClientCut => {
                Some(ProxyError::ClientBody)
            }
            Failure::ClientLate => Some(ProxyError::ClientLate),
            Failure::TooLarge(limit) => Some(ProxyError::TooLarge(limit)),
            Failure::Gone => None,
            Failure::Quarantined => Some(ProxyError::Quarantined),
        }
    }
}
