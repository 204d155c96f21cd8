//! `balancer watch`: the overload controller as a program of its own, against any balancer that
//! speaks the overload API.
//!
//! Each interval it looks at every node (`round`, over the calls of `api`, which `client` makes),
//! [`decide`](crate::fleet::overload::decide)s, and does what was decided. An incomplete look
//! decides nothing: a node that is not seen could be the one that the others cannot spare.
//! `condition` keeps a balancer that is gone for long from filling the log.

mod api;
mod client;
mod condition;
pub mod options;
mod round;

use std::time::Duration;

use futures_util::future::{FutureExt as _, LocalBoxFuture, Shared};
use thiserror::Error;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tracing::{error, info, warn};

use crate::fleet::change::chain;
use client::Client;
use condition::{Condition, News};
use options::{ApiUrl, Options};
use round::{Ended, LookError, Patience};

/// Between the tries of a look: 100 ms, then 200 ms.
const PATIENCE: Patience = Patience { tries: 3, base: Duration::from_millis(100) };

/// The end that was asked for, for everybody who waits for it.
type Stop = Shared<LocalBoxFuture<'static, ()>>;

/// Why the one round of `--once` was no good.
#[derive(Debug, Error)]
pub enum WatchError {
    /// Not every node could be looked at, so that nothing was done.
    #[error("nothing is done at {api}")]
    Look {
        /// The balancer.
        api: ApiUrl,
        /// What could not be looked at.
        source: LookError,
    },
    /// Something that was decided could not be done; what and why has been logged.
    #[error("not all that was decided could be done at {api}")]
    Act {
        /// The balancer.
        api: ApiUrl,
    },
}

/// Controls the balancer at `options.api` until `shutdown`; with `options.once` for one round.
/// Called inside an actix system. A change that is being asked for when `shutdown` comes is
/// waited for, a look is not.
///
/// # Errors
/// Only with `options.once`: when the round was no good. Without, what fails is logged and the next
/// round is another try.
pub async fn run(
    options: Options,
    shutdown: impl Future<Output = ()> + 'static,
) -> Result<(), WatchError> {
    let stop: Stop = shutdown.boxed_local().shared();
    let client = Client::new(&options);
    if options.once {
        return once(&options, &client, &stop).await;
    }
    info!(
        api = %options.api,
        interval = ?options.interval,
        min_ready = options.overload.min_ready,
        "watching"
    );
    let mut ticks = interval_at(Instant::now(), options.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut condition = Condition::default();
    loop {
        tokio::select! {
            biased;
            () = stop.clone() => break,
            _ = ticks.tick() => {}
        }
        let ended = round::round(&client, &options.overload, PATIENCE, &stop).await;
        if let Some(news) = condition.observe(&ended) {
            tell(news, &options.api);
        }
    }
    info!("stopped watching");
    Ok(())
}

async fn once(options: &Options, client: &Client, stop: &Stop) -> Result<(), WatchError> {
    match round::round(client, &options.overload, PATIENCE, stop).await {
        Ended::Done { failed: 0 } | Ended::Stopped => Ok(()),
        Ended::Done { failed: _ } => Err(WatchError::Act { api: options.api.clone() }),
        Ended::Blind(source) => Err(WatchError::Look { api: options.api.clone(), source }),
    }
}

fn tell(news: News<'_>, api: &ApiUrl) {
    match news {
        News::Lost(why) => {
            error!(%api, error = %chain(why), "balancer cannot be asked; trying on");
        }
        News::Incomplete(why) => {
            warn!(%api, error = %chain(why), "not every node can be seen; nothing is done");
        }
        News::Back => info!(%api, "balancer answers again"),
        News::Complete => info!(%api, "every node can be seen again"),
    }
}
