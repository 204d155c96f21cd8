//! One timer a connection, whatever it waits for.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::time::{Sleep, sleep_until};

/// A deadline that moves with every request. Only one that moves nearer costs anything; one that
/// moves away is looked at again when the old one has passed.
pub struct Timer {
    sleep: Pin<Box<Sleep>>,
    armed: Instant,
    deadline: Instant,
    /// The task is known to the sleep, and woken when it is over.
    known: bool,
}

// === impl Timer ===

impl Timer {
    /// A timer that runs out after `span`.
    pub fn new(span: Duration) -> Self {
        let deadline = Instant::now() + span;
        let sleep = Box::pin(sleep_until(deadline.into()));
        Self { sleep, armed: deadline, deadline, known: false }
    }

    /// From now on it runs out after `span`.
    pub fn set(&mut self, span: Duration) {
        self.set_at(Instant::now() + span);
    }

    /// From now on it runs out at `deadline`.
    pub fn set_at(&mut self, deadline: Instant) {
        self.deadline = deadline;
        if deadline < self.armed {
            self.arm();
        }
    }

    fn arm(&mut self) {
        self.armed = self.deadline;
        self.known = false;
        self.sleep.as_mut().reset(self.deadline.into());
    }

    /// Ready once it has run out, and from then on until it is set anew. Always polled in the same
    /// task, that of its connection.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.known && !self.sleep.is_elapsed() {
            return Poll::Pending;
        }
        loop {
            self.known = true;
            ready!(self.sleep.as_mut().poll(cx));
            if Instant::now() >= self.deadline {
                return Poll::Ready(());
            }
            self.arm();
        }
    }
}
