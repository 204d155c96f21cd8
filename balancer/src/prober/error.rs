//! Why a health check fails.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use thiserror::Error;

use crate::config::HealthConfig;
use crate::descriptors::are_used_up;
use crate::http1::answer::BadAnswer;
use crate::http1::head::BadHead;

/// Why a health check fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProbeError {
    /// No process listens at the address.
    #[error("connection refused")]
    Refused,
    /// The address cannot be reached, or the balancer cannot make a connection; the error number
    /// of the operating system, where it has one.
    #[error("no connection")]
    Unreachable(Option<i32>),
    /// The connection was not established in time: packets are lost, or the backlog is full.
    #[error("connection timed out")]
    ConnectTimedOut,
    /// No file descriptor was left for a connection, which says nothing about the replica.
    #[error("no file descriptor left")]
    Starving,
    /// The response head was not complete in time.
    #[error("timed out")]
    TimedOut,
    /// The connection ended before the first byte of a response.
    #[error("connection closed without a response")]
    Closed,
    /// The connection ended within the response head.
    #[error("response cut off")]
    Cut,
    /// The status of the response is not 2xx.
    #[error("status {0}")]
    Status(u16),
    /// Interim responses (1xx) come without a final one.
    #[error("too many interim responses")]
    Interim,
    /// The response head is malformed.
    #[error("malformed response")]
    Head(#[from] BadHead),
    /// The response head contradicts itself.
    #[error("malformed response")]
    Answer(#[from] BadAnswer),
}

// === impl ProbeError ===

impl ProbeError {
    /// Returns the error of a connection that could not be made.
    pub(super) fn of_connect(error: &io::Error) -> Self {
        if are_used_up(error) {
            ProbeError::Starving
        } else if error.kind() == io::ErrorKind::ConnectionRefused {
            ProbeError::Refused
        } else if error.kind() == io::ErrorKind::TimedOut {
            ProbeError::ConnectTimedOut
        } else {
            ProbeError::Unreachable(error.raw_os_error())
        }
    }

    /// Returns the reason in full, for operators. The same failure of the same replica always has
    /// the same text.
    pub(super) fn reason(&self, config: &HealthConfig, address: SocketAddr) -> String {
        let (path, within) = (&config.path, config.timeout);
        match self {
            ProbeError::Refused => format!("connection to {address} refused"),
            ProbeError::Unreachable(Some(number)) => {
                let error = io::Error::from_raw_os_error(*number);
                format!("cannot connect to {address}: {error}")
            }
            ProbeError::Unreachable(None) => format!("cannot connect to {address}"),
            ProbeError::ConnectTimedOut => {
                format!("connection to {address} timed out after {}", span(within))
            }
            ProbeError::Starving => "the balancer has no file descriptor left".to_owned(),
            ProbeError::TimedOut => format!("GET {path} timed out after {}", span(within)),
            ProbeError::Closed => format!("GET {path}: connection closed without a response"),
            ProbeError::Cut => format!("GET {path}: connection closed within the response head"),
            ProbeError::Status(status) => format!("GET {path} returned {status}"),
            ProbeError::Interim => format!("GET {path}: too many interim responses"),
            ProbeError::Head(bad) => format!("GET {path}: malformed response: {bad}"),
            ProbeError::Answer(bad) => format!("GET {path}: malformed response: {bad}"),
        }
    }
}

fn span(span: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(span)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::health::HealthLimits;

    #[test]
    fn a_reason_says_what_was_asked_and_what_came() {
        let config = HealthConfig {
            path: "/well".to_owned(),
            host: None,
            interval: Duration::from_secs(1),
            timeout: Duration::from_millis(1_500),
            limits: HealthLimits { rise: 1, fall: 1 },
            start_deadline: Duration::from_secs(1),
            replace_after: Duration::from_secs(1),
            panic: None,
            slow_start: Duration::ZERO,
        };
        let address = SocketAddr::from(([10, 0, 0, 1], 80));
        for (error, reason) in [
            (ProbeError::Status(404), "GET /well returned 404"),
            (ProbeError::TimedOut, "GET /well timed out after 1s 500ms"),
            (ProbeError::Refused, "connection to 10.0.0.1:80 refused"),
            (ProbeError::ConnectTimedOut, "connection to 10.0.0.1:80 timed out after 1s 500ms"),
            (
                ProbeError::of_connect(&io::Error::from_raw_os_error(113)),
                "cannot connect to 10.0.0.1:80: No route to host (os error 113)",
            ),
            (ProbeError::Closed, "GET /well: connection closed without a response"),
        ] {
            assert_eq!(error.reason(&config, address), reason);
        }
    }
}
