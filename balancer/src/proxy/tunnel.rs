//! A connection that has changed its protocol: bytes both ways until both sides have ended.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tracing::debug;

use super::timer::Timer;
use super::wire::{Wire, Writer};

/// One direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Pump {
    /// Nothing more comes.
    ended: bool,
    /// The other side knows.
    told: bool,
}

/// Passes bytes on, also those that were read already. Each side may end on its own (a half-close
/// is passed on); an error of one ends both; so does silence of both for `span`.
pub async fn tunnel(client: &mut Wire, replica: &mut Wire, timer: &mut Timer, span: Duration) {
    let (mut up, mut down) = (Pump::default(), Pump::default());
    let mut moved = true;
    let ended: io::Result<()> = poll_fn(|cx| {
        let up = up.poll(cx, client, replica, &mut moved)?;
        let down = down.poll(cx, replica, client, &mut moved)?;
        if up.is_ready() && down.is_ready() {
            return Poll::Ready(Ok(()));
        }
        if std::mem::take(&mut moved) {
            timer.set(span);
        }
        timer.poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    })
    .await;
    if let Err(error) = ended {
        debug!(%error, "tunnel broke off");
    }
}

// === impl Pump ===

impl Pump {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Wire,
        to: &mut Wire,
        moved: &mut bool,
    ) -> Poll<io::Result<()>> {
        loop {
            if self.told {
                return Poll::Ready(Ok(()));
            }
            if !from.input().is_empty() {
                let taken = ready!(to.poll_content(cx, &mut Writer::Plain, from.input()))?;
                from.consume(taken);
                *moved = true;
            } else if self.ended {
                ready!(to.poll_flush(cx))?;
                ready!(to.poll_shutdown(cx))?;
                self.told = true;
            } else {
                match from.poll_fill(cx) {
                    Poll::Ready(more) => self.ended = more? == 0,
                    Poll::Pending => {
                        ready!(to.poll_flush(cx))?;
                        return Poll::Pending;
                    }
                }
            }
        }
    }
}
