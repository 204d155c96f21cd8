//! One request at a second replica where the first is late: the first answer is taken, the other
//! one given up (Dean and Barroso, "The Tail at Scale", 2013).

use std::future::{pending, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use actix_web::web::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use smallvec::SmallVec;
use tokio::time::sleep;
use tracing::debug;

use super::Worker;
use super::admission::{InLine, Shut};
use super::error::{Failure, ProxyError};
use super::exchange::{Exchange, Outcome, told};
use super::fan::{Letter, Sent, relay_sent};
use super::rules::{Hedging, Rules};
use crate::config::Timeouts;
use crate::http1::Framing;
use crate::metrics::Code;
use crate::routing::policy::Pick;
use crate::routing::table::{InFlight, Replica, ReplicaId};

/// Those that were asked.
type Tried = SmallVec<[ReplicaId; 4]>;

/// A replica that is asked.
type Entered = (Arc<Replica>, InFlight);

/// What comes next.
enum Event {
    /// A replica has answered, or failed.
    Tried(Entered, Result<Sent, Failure>),
    /// The first one is late.
    Late,
    /// The client has gone.
    Gone,
}

impl Exchange<'_> {
    /// Whether the request may be at two replicas at once: it asks for nothing that could be done
    /// twice, and has no body.
    pub(super) fn may_be_hedged(&self) -> bool {
        let request = self.asked.request;
        request.is_idempotent(self.asked.head)
            && matches!(request.framing, Framing::None | Framing::Length(0))
            && request.upgrade.is_none()
            && !request.auth.binds
    }

    /// Enters the next replica. `last_resort` tells that it may be one that is ejected or fails its
    /// health checks.
    fn enter_next(
        &self,
        pick: Pick<'_>,
        tried: &mut Tried,
        last_resort: bool,
    ) -> Result<Entered, Shut> {
        loop {
            let table = self.worker.shared.table();
            let entered = match last_resort {
                true => self.enter(&table, pick, tried),
                false => self.worker.enter(&self.route.config, &table, pick, tried),
            };
            match entered {
                Ok((replica, in_flight)) => return Ok((Arc::clone(replica), in_flight)),
                // It is passed over.
                Err(Shut::Left) => {}
                Err(shut @ (Shut::Nobody | Shut::Full)) => return Err(shut),
            }
        }
    }

    /// The first one; where all are full, once there is room.
    async fn enter_first(&mut self, pick: Pick<'_>, tried: &mut Tried) -> Result<Entered, Outcome> {
        let (mut place, mut joins) = (InLine::default(), self.finds_a_line());
        loop {
            let entered = match std::mem::take(&mut joins) {
                true => Err(Shut::Full),
                false => self.enter_next(pick, tried, true),
            };
            match entered {
                Ok(entered) => return Ok(entered),
                Err(Shut::Full) => self.wait_for_room(&mut place).await?,
                Err(Shut::Nobody | Shut::Left) => {
                    return Err(Outcome::Fail(ProxyError::NoReplica));
                }
            }
        }
    }
}

/// Sends a request to its owner, to the next one where that is late or fails, and passes on what
/// comes first.
pub(super) async fn run(mut exchange: Exchange<'_>, hedging: &Hedging) -> Outcome {
    let late_after = hedging.begin();
    exchange.rules.deposit();
    let key = exchange.key();
    let pick = Pick { key: &key, turn: exchange.route.turn() };
    let letter = Letter::new(&exchange.asked, Bytes::new());
    let (worker, rules) = (exchange.worker, exchange.rules);
    let metrics = &exchange.route.metrics;
    let timeouts = &exchange.route.config.timeouts;
    let ask = |entered| ask(&letter, worker, rules, timeouts, entered);
    let mut tried = Tried::new();
    let owner = match exchange.enter_first(pick, &mut tried).await {
        Ok(owner) => owner,
        Err(outcome) => return outcome,
    };
    let (mut asked, began) = (FuturesUnordered::new(), Instant::now());
    asked.push(ask(owner));
    let (mut late, mut is_late) = (pin!(after(late_after)), false);
    let mut hedge = None;
    let mut failed: Option<ProxyError> = None;
    loop {
        let event = poll_fn(|cx| {
            if let Poll::Ready(Some((entered, sent))) = asked.poll_next_unpin(cx) {
                return Poll::Ready(Event::Tried(entered, sent));
            }
            if !is_late && late.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Event::Late);
            }
            exchange.poll_gone(cx).map(|()| Event::Gone)
        });
        match event.await {
            Event::Tried((replica, in_flight), Ok(sent)) => {
                hedging.late.borrow_mut().note(began.elapsed());
                worker.note_status(&replica, sent.answer.status);
                metrics.attempt(&replica, Code::of(sent.answer.status));
                if hedge == Some(replica.id()) {
                    metrics.hedge_won();
                }
                // The other one's connection is closed, and so it sees that it is not wanted.
                drop(asked);
                exchange.trace(|trace| trace.asked(&replica, tried.len()));
                return relay_sent(exchange, sent, &replica, in_flight).await;
            }
            Event::Tried((replica, _), Err(failure)) => {
                if failure.blames_the_replica() {
                    worker.note(&replica, false);
                }
                metrics.attempt(&replica, failure.code());
                let hostname = replica.hostname();
                debug!(%hostname, error = ?failure, tries = tried.len(), "replica failed");
                if !asked.is_empty() {
                    continue;
                }
                exchange.note_lost(letter.lost());
                let table = worker.shared.table();
                let next = match exchange.may_go_on(&failure, &replica, &tried, &table) {
                    true => exchange.enter_next(pick, &mut tried, true).ok(),
                    false => None,
                };
                // A letter's failure is never the client's.
                let error = told(failure, &replica, &table, failed.as_ref());
                let error = error.unwrap_or(ProxyError::Lost);
                let Some(next) = next else { return Outcome::Fail(error) };
                failed = Some(error);
                metrics.retry();
                asked.push(ask(next));
            }
            Event::Late => {
                is_late = true;
                // After a loss there is one attempt more, which is under way.
                let second = match letter.lost().is_empty() && hedging.withdraw(worker.now()) {
                    true => exchange.enter_next(pick, &mut tried, false).ok(),
                    false => None,
                };
                if let Some((replica, _)) = &second {
                    hedge = Some(replica.id());
                    metrics.hedge();
                }
                asked.extend(second.map(ask));
            }
            Event::Gone => {
                debug!(status = 499, "client has gone");
                return Outcome::Abort;
            }
        }
    }
}

async fn ask(
    letter: &Letter,
    worker: &Worker,
    rules: &Rules,
    timeouts: &Timeouts,
    (replica, in_flight): Entered,
) -> (Entered, Result<Sent, Failure>) {
    let sent = letter.send(worker, rules, timeouts, &replica).await;
    ((replica, in_flight), sent)
}

async fn after(span: Option<Duration>) {
    match span {
        Some(span) => sleep(span).await,
        None => pending().await,
    }
}
