//! What an exchange waits for, and for how long.

use std::task::{Context, Poll};

use super::super::Worker;
use super::super::timer::Timer;

/// Whom a request or an answer waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waits {
    /// For the client to send its body.
    ClientSends,
    /// For the client to take its answer.
    ClientTakes,
    /// For the replica to take the request.
    ReplicaTakes,
    /// For the replica's answer to begin.
    Answer,
    /// For it to go on.
    ReplicaSends,
}

/// What is waited for; the time runs from when that began or last moved.
#[derive(Default)]
pub(super) struct Watch {
    timed: Option<Waits>,
    pub(super) waits: Option<Waits>,
    pub(super) moved: bool,
}

// === impl Watch ===

impl Watch {
    /// Ready with what was waited for in vain.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        timer: &mut Timer,
        worker: &Worker,
    ) -> Poll<Waits> {
        let waits = self.waits.unwrap_or(Waits::Answer);
        let moved = std::mem::take(&mut self.moved);
        if self.timed != Some(waits) || (moved && waits != Waits::Answer) {
            self.timed = Some(waits);
            timer.set(match waits {
                Waits::ClientSends | Waits::ClientTakes => worker.timeouts.client_body,
                Waits::ReplicaTakes | Waits::ReplicaSends => worker.timeouts.replica_body,
                Waits::Answer => worker.timeouts.first_byte,
            });
        }
        timer.poll(cx).map(|()| waits)
    }
}
