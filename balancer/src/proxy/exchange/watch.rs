//! What an exchange waits for, and for how long.

use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use super::super::timer::Timer;
use crate::config::Timeouts;

/// How often a request that waits for its answer looks whether its replica is there still: one
/// that was cut off the network or frozen says nothing.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Whom a request or an answer waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Waits {
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
pub(in super::super) struct Watch {
    timed: Option<Waits>,
    /// When an answer is late.
    late_at: Option<Instant>,
    pub(in super::super) waits: Option<Waits>,
    pub(in super::super) moved: bool,
}

// === impl Watch ===

impl Watch {
    /// Ready with what was waited for in vain: for an answer also once the replica is `gone`.
    pub(in super::super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        timer: &mut Timer,
        timeouts: &Timeouts,
        gone: impl Fn() -> bool,
    ) -> Poll<Waits> {
        let waits = self.waits.unwrap_or(Waits::Answer);
        let moved = std::mem::take(&mut self.moved);
        if self.timed != Some(waits) || (moved && waits != Waits::Answer) {
            self.timed = Some(waits);
            timer.set(match waits {
                Waits::ClientSends | Waits::ClientTakes => timeouts.client_body,
                Waits::ReplicaTakes | Waits::ReplicaSends => timeouts.replica_body,
                Waits::Answer => {
                    let span = timeouts.first_byte;
                    self.late_at = Some(Instant::now() + span);
                    span.min(LOOK_AGAIN)
                }
            });
        }
        loop {
            ready!(timer.poll(cx));
            let late_at = self.late_at.filter(|_| waits == Waits::Answer && !gone());
            match late_at.map(|at| at.saturating_duration_since(Instant::now())) {
                Some(left) if !left.is_zero() => timer.set(left.min(LOOK_AGAIN)),
                Some(_) | None => return Poll::Ready(waits),
            }
        }
    }
}
