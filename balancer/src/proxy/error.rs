//! Why a request was not answered by a replica, and what the client is told.

use actix_web::http::StatusCode;
use thiserror::Error;

/// See the module; the messages go out behind `<Error> `.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProxyError {
    /// There is nobody to send it to.
    #[error("no replica is ready")]
    NoReplica,
    /// No replica could be connected to.
    #[error("no replica could be reached")]
    Unreachable,
    /// The connection ended before an answer came.
    #[error("the replica failed before it answered")]
    Lost,
    /// No answer came in time.
    #[error("the replica did not answer in time")]
    Late,
    /// The client's own body broke off.
    #[error("the request's body was cut short or malformed")]
    ClientBody,
    /// The request cannot be put into a message to a replica.
    #[error("the request is malformed: {0}")]
    Malformed(&'static str),
    /// A tunnel was asked for.
    #[error("method CONNECT is not supported")]
    Connect,
    /// Replicas do not know the path, and that is the client's error (`compat.unknown_path`).
    #[error("'{0}' endpoint does not exist in server replicas")]
    UnknownPath(String),
}

impl ProxyError {
    /// What it is in HTTP.
    pub fn status(&self) -> StatusCode {
        match self {
            ProxyError::NoReplica => StatusCode::SERVICE_UNAVAILABLE,
            ProxyError::Unreachable | ProxyError::Lost => StatusCode::BAD_GATEWAY,
            ProxyError::Late => StatusCode::GATEWAY_TIMEOUT,
            ProxyError::ClientBody | ProxyError::Malformed(_) | ProxyError::UnknownPath(_) => {
                StatusCode::BAD_REQUEST
            }
            ProxyError::Connect => StatusCode::NOT_IMPLEMENTED,
        }
    }

    /// Whether what is left of the client's message cannot be told from the next one.
    pub fn ends_connection(&self) -> bool {
        match self {
            ProxyError::ClientBody | ProxyError::Malformed(_) | ProxyError::Connect => true,
            ProxyError::NoReplica
            | ProxyError::Unreachable
            | ProxyError::Lost
            | ProxyError::Late
            | ProxyError::UnknownPath(_) => false,
        }
    }
}
