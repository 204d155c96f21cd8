//! Getting an image from its registry.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bollard::Docker as Api;
use bollard::errors::Error as ApiError;
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures_util::StreamExt as _;
use thiserror::Error;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tracing::info;

use crate::runtime::RuntimeError;

/// Gets images, each once at a time.
pub(super) struct Puller {
    api: Api,
    deadline: Duration,
    /// One for each image that was ever asked for: the configured one, and those of updates.
    images: RefCell<HashMap<String, Rc<Mutex<Option<Last>>>>>,
}

/// How the last attempt at an image ended, and when.
struct Last {
    at: Instant,
    result: Result<(), Arc<PullError>>,
}

/// Why an image could not be got.
#[derive(Debug, Error)]
enum PullError {
    /// The engine could not be asked, or refused, or passes on what the registry said.
    #[error(transparent)]
    Engine(#[from] ApiError),
    /// The engine broke it off without a reason.
    #[error("the engine broke it off")]
    BrokenOff,
    /// It took too long.
    #[error("it took longer than {0:?} ('timeouts.pull')")]
    Late(Duration),
}

// === impl Puller ===

impl Puller {
    pub(super) fn new(api: Api, deadline: Duration) -> Self {
        Self { api, deadline, images: RefCell::default() }
    }

    /// Gets an image, unless it was got `since` then. Who asks while it is being got waits for that,
    /// and shares how it ends.
    pub(super) async fn pull(&self, image: &str, since: Instant) -> Result<(), RuntimeError> {
        let asked = Instant::now();
        let last = Rc::clone(self.images.borrow_mut().entry(image.to_owned()).or_default());
        let mut last = last.lock().await;
        let known = last.as_ref().filter(|last| match last.result {
            Ok(()) => last.at >= since,
            Err(_) => last.at >= asked,
        });
        let result = match known {
            Some(known) => known.result.clone(),
            None => {
                let result = self.attempt(image).await.map_err(Arc::new);
                *last = Some(Last { at: Instant::now(), result: result.clone() });
                result
            }
        };
        result.map_err(|source| RuntimeError::Pull { image: image.to_owned(), source })
    }

    async fn attempt(&self, image: &str) -> Result<(), PullError> {
        info!(image, "pulling image");
        let began = Instant::now();
        let attempt = timeout(self.deadline, self.stream(image));
        attempt.await.unwrap_or(Err(PullError::Late(self.deadline)))?;
        info!(image, took_ms = began.elapsed().as_millis() as u64, "image pulled");
        Ok(())
    }

    /// Reads the engine's account of it to the end. When this is dropped, the engine breaks off.
    async fn stream(&self, image: &str) -> Result<(), PullError> {
        let options = CreateImageOptionsBuilder::new().from_image(&with_tag(image)).build();
        let mut steps = std::pin::pin!(self.api.create_image(Some(options), None, None));
        while let Some(step) = steps.next().await {
            // One with words came as an error.
            if step?.error_detail.is_some() {
                return Err(PullError::BrokenOff);
            }
        }
        Ok(())
    }
}

/// The reference with the tag that it stands for: without one the engine would get all there are.
fn with_tag(image: &str) -> String {
    let name = image.rsplit('/').next().unwrap_or(image);
    if name.contains(':') || name.contains('@') {
        image.to_owned()
    } else {
        format!("{image}:latest")
    }
}

#[cfg(test)]
mod tests {
    use super::with_tag;

    #[test]
    fn only_a_reference_without_a_tag_gets_one() {
        for (image, tagged) in [
            ("nginx", "nginx:latest"),
            ("nginx:1.27", "nginx:1.27"),
            ("127.0.0.1:5000/a/server", "127.0.0.1:5000/a/server:latest"),
            ("127.0.0.1:5000/a/server:2", "127.0.0.1:5000/a/server:2"),
            ("a/b@sha256:0123", "a/b@sha256:0123"),
        ] {
            assert_eq!(with_tag(image), tagged);
        }
    }
}
