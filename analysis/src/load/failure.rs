//! Why a request failed, in kinds that can be counted.

use std::fmt;
use std::io;

use awc::error::{ConnectError, PayloadError, SendRequestError};

/// Why a request failed. Ordered, so that a table of kinds has a fixed order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Failure {
    /// Nobody listens there.
    Refused,
    /// No connection for another reason.
    Connect(String),
    /// Slower than the timeout.
    Timeout,
    /// The connection ended before the head of an answer was there.
    Disconnected,
    /// A status that is no success.
    Status(u16),
    /// The body ended before its announced end.
    Truncated,
    /// What came was no HTTP answer.
    Protocol(String),
    /// The request could not be sent.
    Send(String),
}

// === impl Failure ===

impl Failure {
    /// Of a request that got no head of an answer.
    #[expect(clippy::wildcard_enum_match_arm, reason = "awc's enums are open")]
    pub(super) fn of_request(error: &SendRequestError) -> Self {
        match error {
            SendRequestError::Connect(ConnectError::Io(error)) => Self::of_io(error),
            SendRequestError::Connect(ConnectError::Timeout) | SendRequestError::Timeout => {
                Self::Timeout
            }
            SendRequestError::Connect(ConnectError::Disconnected) => Self::Disconnected,
            SendRequestError::Connect(other) => Self::Connect(other.to_string()),
            SendRequestError::Send(error) => Self::of_io(error),
            SendRequestError::Response(error) => Self::Protocol(error.to_string()),
            other => Self::Send(other.to_string()),
        }
    }

    /// Of an answer whose body broke off.
    #[expect(clippy::wildcard_enum_match_arm, reason = "awc's enums are open")]
    pub(super) fn of_body(error: &PayloadError) -> Self {
        match error {
            PayloadError::Incomplete(_) | PayloadError::Io(_) => Self::Truncated,
            other => Self::Protocol(other.to_string()),
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the other kinds are told by their words")]
    fn of_io(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::TimedOut => Self::Timeout,
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof => Self::Disconnected,
            _ => Self::Connect(error.to_string()),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Refused => f.write_str("connection refused"),
            Failure::Connect(why) => write!(f, "no connection: {why}"),
            Failure::Timeout => f.write_str("timeout"),
            Failure::Disconnected => f.write_str("disconnected before the answer"),
            Failure::Status(code) => write!(f, "status {code}"),
            Failure::Truncated => f.write_str("truncated body"),
            Failure::Protocol(why) => write!(f, "no HTTP: {why}"),
            Failure::Send(why) => write!(f, "not sent: {why}"),
        }
    }
}
