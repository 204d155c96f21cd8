//! What a container is made from.

use bollard::models::{
    ContainerCreateBody, EndpointSettings, HostConfig, NetworkingConfig, RestartPolicy,
    RestartPolicyNameEnum,
};

use super::labels;
use crate::config::DockerConfig;
use crate::config::runtime::{CAP_DROP, INIT, SECURITY_OPT};
use crate::config::value::{filled, seat_text};
use crate::fleet::release::Spec;
use crate::runtime::ReplicaSpec;

/// Returns the container of a replica. Everything that replicas have in common is in `spec`.
pub(super) fn body(
    config: &DockerConfig,
    pool: &str,
    what: &ReplicaSpec,
    spec: &Spec,
) -> ContainerCreateBody {
    let port = spec.port.unwrap_or(config.port);
    let network = spec.network.as_ref().unwrap_or(&config.network);
    let own = [format!("SERVER_ID={}", seat_text(what.seat)), format!("PORT={port}")];
    let command = spec.command.as_deref();
    let given = spec.env.iter().map(|(name, value)| format!("{name}={value}"));
    let endpoints = [(network.clone(), EndpointSettings::default())];
    ContainerCreateBody {
        hostname: Some(what.hostname.slug()),
        image: spec.digest.clone().or_else(|| spec.image.clone()),
        cmd: command.map(|words| filled(words, port, what.seat, &what.hostname)),
        env: Some(own.into_iter().chain(given).collect()),
        labels: Some(labels::labels(pool, what, spec)),
        host_config: Some(HostConfig {
            network_mode: Some(network.clone()),
            memory: spec.memory.map(|bytes| bytes.try_into().unwrap_or(i64::MAX)),
            nano_cpus: spec.nano_cpus.map(|cpus| cpus.try_into().unwrap_or(i64::MAX)),
            pids_limit: spec.pids.map(Into::into),
            // As process 1 a program ignores SIGTERM until it has a handler: a stop that falls
            // into its start would take the whole grace.
            init: Some(INIT),
            cap_drop: Some(vec![CAP_DROP.to_owned()]),
            security_opt: Some(vec![SECURITY_OPT.to_owned()]),
            // There is one supervisor only.
            restart_policy: Some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::NO),
                maximum_retry_count: None,
            }),
            ..HostConfig::default()
        }),
        networking_config: Some(NetworkingConfig { endpoints_config: Some(endpoints.into()) }),
        ..ContainerCreateBody::default()
    }
}
