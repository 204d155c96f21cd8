//! One round: look at every node, decide, act.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::future::FutureExt as _;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use rand::RngExt as _;
use thiserror::Error;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::Stop;
use super::api::{Api, CallError, Node};
use super::client::AT_ONCE;
use crate::fleet::change::chain;
use crate::fleet::overload::{Action, NodeLoad, OverloadConfig, decide};

/// How often a look is tried.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// The first included; at least 1.
    pub(super) tries: u32,
    /// The first delay; each further one is twice as long, all give or take a quarter.
    pub(super) base: Duration,
}

/// Why not every node could be looked at.
#[derive(Debug, Error)]
pub enum LookError {
    /// It is not known which there are.
    #[error("the nodes cannot be listed")]
    List(#[source] CallError),
    /// One of them cannot be seen.
    #[error("node {name:?} cannot be seen")]
    Node {
        /// Which.
        name: String,
        /// Why.
        source: CallError,
    },
    /// The list is no list of nodes.
    #[error("node {0:?} is listed twice")]
    Twice(String),
}

/// How a round ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// Every node was looked at, and what was decided was done, but for so many actions.
    Done { failed: usize },
    /// Not every node could be looked at, so that nothing was decided.
    Blind(LookError),
    /// The end of the program came first.
    Stopped,
}

/// Looks at every node, decides, and acts; when `stop` comes, it is the last call that is waited
/// for.
pub(super) async fn round(
    api: &impl Api,
    config: &OverloadConfig,
    patience: Patience,
    stop: &Stop,
) -> Ended {
    let looked = tokio::select! {
        biased;
        () = stop.clone() => return Ended::Stopped,
        looked = look(api, patience) => looked,
    };
    match looked {
        Ok(nodes) => {
            let actions = decide(&nodes, config);
            debug!(nodes = nodes.len(), actions = actions.len(), "every node is seen");
            act(api, &actions, stop).await
        }
        Err(error) => Ended::Blind(error),
    }
}

/// Every node, in the order in which they are listed, but for those that have left since.
async fn look(api: &impl Api, patience: Patience) -> Result<Vec<NodeLoad<String>>, LookError> {
    let names = patiently(patience, || api.names()).await.map_err(LookError::List)?;
    let mut seen = HashSet::new();
    if let Some(twice) = names.iter().find(|name| !seen.insert(name.as_str())) {
        return Err(LookError::Twice(twice.clone()));
    }
    let nodes: Vec<Option<Node>> = stream::iter(&names)
        .map(|name| look_at(api, name, patience))
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    let load =
        |node: Node| NodeLoad { node: node.name, enabled: node.enabled, queued: node.queued };
    Ok(nodes.into_iter().flatten().map(load).collect())
}

/// One node; `None` when it has just left.
async fn look_at(
    api: &impl Api,
    name: &str,
    patience: Patience,
) -> Result<Option<Node>, LookError> {
    match patiently(patience, || api.node(name)).await {
        Ok(node) => Ok(Some(node)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(source) => Err(LookError::Node { name: name.to_owned(), source }),
    }
}

/// Does what was decided, in its order. Where one could not be enabled, none is disabled: the
/// minimum counts on it.
async fn act(api: &impl Api, actions: &[Action<String>], stop: &Stop) -> Ended {
    let mut failed = 0;
    let mut may_disable = true;
    for action in actions {
        if stop.clone().now_or_never().is_some() {
            return Ended::Stopped;
        }
        if !action.enable && !may_disable {
            warn!(node = action.node, "node is not disabled: another could not be enabled");
            failed += 1;
            continue;
        }
        if let Err(error) = api.set(&action.node, action.enable).await {
            let verb = if action.enable { "enabled" } else { "disabled" };
            warn!(node = action.node, error = %chain(&error), "node cannot be {verb}");
            may_disable &= !action.enable;
            failed += 1;
            continue;
        }
        info!("{action}");
    }
    Ended::Done { failed }
}

/// Tries a call that changes nothing again while that may help.
async fn patiently<T, C>(patience: Patience, call: impl Fn() -> C) -> Result<T, CallError>
where
    C: Future<Output = Result<T, CallError>>,
{
    let mut delay = patience.base;
    for _ in 1..patience.tries {
        match call().await {
            Err(error) if error.may_pass() => {
                debug!(error = %chain(&error), "a look is tried again");
                sleep(delay.mul_f64(rand::rng().random_range(0.75..=1.25))).await;
                delay *= 2;
            }
            settled => return settled,
        }
    }
    call().await
}

#[cfg(test)]
mod tests;
