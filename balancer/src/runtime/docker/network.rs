//! The network that containers are on.

use std::collections::HashMap;

use bollard::Docker as Api;
use bollard::models::NetworkCreateRequest;
use bollard::query_parameters::InspectNetworkOptions;

use super::call::{CALL_DEADLINE, call, is_status};
use super::labels::POOL;
use crate::runtime::RuntimeError;

/// A network by its name. One that was made here has the pool's label.
pub(super) struct Network {
    api: Api,
    name: String,
    pool: String,
}

// === impl Network ===

impl Network {
    pub(super) fn new(api: Api, name: String, pool: String) -> Self {
        Self { api, name, pool }
    }

    /// Makes it if it is absent.
    pub(super) async fn ensure(&self) -> Result<(), RuntimeError> {
        let name = &self.name;
        let known = self.api.inspect_network(name, None::<InspectNetworkOptions>);
        let known = call(&format!("look for network {name:?}"), CALL_DEADLINE, known).await;
        if !is_status(&known, 404) {
            return known.map(drop);
        }
        let request = NetworkCreateRequest {
            name: name.clone(),
            driver: Some("bridge".to_owned()),
            labels: Some(HashMap::from([(POOL.to_owned(), self.pool.clone())])),
            ..NetworkCreateRequest::default()
        };
        let created = self.api.create_network(request);
        let created = call(&format!("make network {name:?}"), CALL_DEADLINE, created).await;
        // Somebody else may have been faster.
        if is_status(&created, 409) { Ok(()) } else { created.map(drop) }
    }

    /// Removes it if it was made for this pool, or for the pool `also`, and nothing is on it.
    pub(super) async fn remove(&self, also: Option<&str>) -> Result<(), RuntimeError> {
        let name = &self.name;
        let known = self.api.inspect_network(name, None::<InspectNetworkOptions>);
        let known = call(&format!("look for network {name:?}"), CALL_DEADLINE, known).await;
        if is_status(&known, 404) {
            return Ok(());
        }
        let labels = known?.labels.unwrap_or_default();
        let maker = labels.get(POOL).map(String::as_str);
        if maker.is_none() || (maker != Some(&self.pool) && maker != also) {
            return Ok(());
        }
        let removed = self.api.remove_network(name);
        let removed = call(&format!("remove network {name:?}"), CALL_DEADLINE, removed).await;
        // 403: somebody's container is on it.
        if is_status(&removed, 403) || is_status(&removed, 404) { Ok(()) } else { removed }
    }
}
