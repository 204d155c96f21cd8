//! The access log: one line for a request that was forwarded, or was to be.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::info;

use super::exchange::Outcome;
use super::message::Asked;
use super::rules::Route;
use crate::routing::key::Key;
use crate::routing::table::Replica;
use crate::telemetry::ACCESS;

/// What is known of a request's way, where anybody wants to know.
#[derive(Debug, Default)]
pub struct Trace {
    key: Option<Key>,
    /// Who answered, or was asked last.
    replica: Option<Arc<Replica>>,
    /// How many were asked, where it was one after another.
    tries: Option<usize>,
    /// When the head of the answer was there.
    answered: Option<Instant>,
}

/// The status of a request whose client left before there was an answer, as nginx has it.
const CLIENT_LEFT: u16 = 499;

// === impl Trace ===

impl Trace {
    /// The request is placed by this.
    pub(super) fn placed(&mut self, key: &Key) {
        self.key = Some(key.clone());
    }

    /// This replica is asked, the `tries`-th.
    pub(super) fn asked(&mut self, replica: &Arc<Replica>, tries: usize) {
        (self.replica, self.tries) = (Some(Arc::clone(replica)), Some(tries));
    }

    /// The head of its answer is there, of several that were asked.
    pub(super) fn answered_by(&mut self, replica: &Arc<Replica>) {
        self.replica = Some(Arc::clone(replica));
        self.answered();
    }

    /// The head of the answer is there.
    pub(super) fn answered(&mut self) {
        self.answered = Some(Instant::now());
    }

    /// Writes the line of a request that began at `began` and has ended so; `status` is that of a
    /// replica's answer.
    pub(super) fn write(
        &self,
        asked: &Asked<'_>,
        route: &Route,
        began: Instant,
        outcome: &Outcome,
        status: u16,
    ) {
        let status = match outcome {
            Outcome::Abort if self.answered.is_none() => CLIENT_LEFT,
            Outcome::Keep | Outcome::Close | Outcome::Linger | Outcome::Abort => status,
            Outcome::Fail(error) => error.status(),
        };
        let (request, head) = (asked.request, asked.head);
        let text = |bytes| String::from_utf8_lossy(bytes);
        let host = request.host.map(|host| text(host.of(head)));
        let target = text(request.target(head).1);
        let key = self.key.as_ref().map(|key| text(key.as_bytes()));
        let replica = self.replica.as_ref().map(|replica| replica.hostname().as_str());
        let first_byte = self.answered.map(|at| milliseconds(at.duration_since(began)));
        info!(
            target: ACCESS,
            client = asked.peer.text(),
            method = %text(request.method.of(head)),
            host = host.as_deref(),
            target = %target,
            status,
            route = route.config.name,
            replica,
            tries = self.tries,
            key = key.as_deref(),
            id = %text(asked.id.as_bytes()),
            first_byte_ms = first_byte,
            whole = *outcome != Outcome::Abort,
            took_ms = milliseconds(began.elapsed()),
            "request"
        );
    }
}

/// To the microsecond.
fn milliseconds(span: Duration) -> f64 {
    span.as_micros() as f64 / 1e3
}
