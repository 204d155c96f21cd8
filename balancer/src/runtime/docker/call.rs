//! One call to the engine, with its deadline; what the engine's answer means.

use std::time::Duration;

use bollard::errors::Error as ApiError;
use tokio::time::timeout;

use crate::runtime::RuntimeError;

/// How long the engine has for any call; a stop has this on top of the replica's grace.
pub(super) const CALL_DEADLINE: Duration = Duration::from_secs(10);

/// How long creating and starting may take: a busy host needs seconds for its first container.
pub(super) const START_DEADLINE: Duration = Duration::from_secs(30);

/// Makes one call with a deadline; its error names what was asked.
pub(super) async fn call<T>(
    action: &str,
    within: Duration,
    call: impl Future<Output = Result<T, ApiError>>,
) -> Result<T, RuntimeError> {
    match timeout(within, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(source)) => {
            Err(RuntimeError::Engine { action: action.to_owned(), source: source.into() })
        }
        Err(_late) => Err(RuntimeError::Timeout { action: action.to_owned(), within }),
    }
}

/// Whether the engine answered with this status.
pub(super) fn is_status<T>(answer: &Result<T, RuntimeError>, status: u16) -> bool {
    refusal(answer).is_some_and(|(code, _)| code == status)
}

/// Whether the engine answered that something is not there, and called it this.
pub(super) fn is_missing<T>(answer: &Result<T, RuntimeError>, what: &str) -> bool {
    refusal(answer)
        .is_some_and(|(code, message)| code == 404 && message.to_lowercase().contains(what))
}

/// The status and the words with which the engine refused.
fn refusal<T>(answer: &Result<T, RuntimeError>) -> Option<(u16, &str)> {
    let Err(RuntimeError::Engine { source, .. }) = answer else { return None };
    match source.downcast_ref::<ApiError>() {
        Some(ApiError::DockerResponseServerError { status_code, message }) => {
            Some((*status_code, message))
        }
        Some(_) | None => None,
    }
}
