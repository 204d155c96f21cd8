//! Image IDs: a release runs one image for its whole life, also when its tag moves meanwhile.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bollard::Docker as Api;
use tracing::{info, warn};

use super::call::{CALL_DEADLINE, call, is_missing, is_status};
use super::pull::Puller;
use crate::config::DockerConfig;
use crate::config::settings::PullPolicy;
use crate::fleet::release::{Release, Spec};
use crate::runtime::RuntimeError;

/// How long an image that was pulled is as good as pulled anew, where it always is: releases that
/// begin side by side need it once.
const PULL_COUNTS: Duration = Duration::from_secs(5);

/// How many releases are remembered: a replica of an earlier one was started before, and its image
/// ID is recorded.
const KEPT: usize = 8;

/// The image IDs of releases, each resolved once.
#[derive(Default)]
pub(super) struct Pins {
    /// By generation and reference.
    ids: RefCell<BTreeMap<(u64, String), String>>,
}

// === impl Pins ===

impl Pins {
    /// Returns the complete specification of a release, with its image ID. Where the engine does not
    /// allow images to be inspected, there is none, and replicas run what the reference stands for.
    pub(super) async fn pinned(
        &self,
        api: &Api,
        puller: &Puller,
        config: &DockerConfig,
        release: &Release,
    ) -> Result<Spec, RuntimeError> {
        let complete = release.completed(&config.spec());
        let spec = complete.spec().clone();
        let (None, Some(image)) = (&spec.digest, spec.image.clone()) else { return Ok(spec) };
        let key = (release.generation(), image);
        let known = self.ids.borrow().get(&key).cloned();
        let id = match known {
            Some(id) => Some(id),
            None => resolve(api, puller, config.pull, &key.1).await?,
        };
        // Replicas that start side by side resolve side by side; the first decides.
        let digest = id.map(|id| {
            let mut ids = self.ids.borrow_mut();
            let id = ids.entry(key).or_insert(id).clone();
            while ids.len() > KEPT {
                ids.pop_first();
            }
            id
        });
        Ok(Spec { digest, ..spec })
    }
}

/// Returns the ID of the image that a reference stands for now.
async fn resolve(
    api: &Api,
    puller: &Puller,
    policy: PullPolicy,
    image: &str,
) -> Result<Option<String>, RuntimeError> {
    if policy == PullPolicy::Always {
        let since = Instant::now().checked_sub(PULL_COUNTS).unwrap_or_else(Instant::now);
        puller.pull(image, since).await?;
    }
    let began = Instant::now();
    let inspect = || call("inspect the image", CALL_DEADLINE, api.inspect_image(image));
    let mut inspected = inspect().await;
    if policy != PullPolicy::Never && is_missing(&inspected, "no such image") {
        puller.pull(image, began).await?;
        inspected = inspect().await;
    }
    // A socket proxy that was set up for an earlier version of the balancer.
    if is_status(&inspected, 403) {
        warn!(image, "image is not pinned: the engine's API does not allow GET /images/NAME/json");
        return Ok(None);
    }
    let id = inspected?.id;
    info!(image, digest = id, "image resolved");
    Ok(id)
}
