//! What makes a probe a bad one.

use thiserror::Error;

use crate::http1::answer::BadAnswer;
use crate::http1::chunked::BadChunk;
use crate::http1::head::BadHead;

/// Why a probe is bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProbeError {
    /// Nobody listens there.
    #[error("connection refused")]
    Refused,
    /// There is no way there, or no connection could be made for another reason.
    #[error("not reachable")]
    Unreachable,
    /// No file descriptor was left for a connection, which says nothing about the replica.
    #[error("no file descriptor left")]
    Starving,
    /// The answer was not whole in time, whatever took so long.
    #[error("timed out")]
    TimedOut,
    /// The connection ended before anything of an answer came.
    #[error("connection closed without an answer")]
    Closed,
    /// The connection ended within the answer.
    #[error("answer cut off")]
    Cut,
    /// The answer is another than 2xx.
    #[error("status {0}")]
    Status(u16),
    /// The answer is larger than any health needs.
    #[error("answer too large")]
    TooLarge,
    /// The answer cannot be read.
    #[error("malformed answer")]
    Head(#[from] BadHead),
    /// It can be read in two ways.
    #[error("malformed answer")]
    Answer(#[from] BadAnswer),
    /// Its body cannot be read.
    #[error("malformed answer")]
    Body(#[from] BadChunk),
}
