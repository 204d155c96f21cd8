//! What a container is made from.

use bollard::models::{
    ContainerCreateBody, EndpointSettings, HostConfig, NetworkingConfig, RestartPolicy,
    RestartPolicyNameEnum,
};

use super::labels;
use crate::config::DockerConfig;
use crate::config::value::{CommandLine, filled, seat_text};
use crate::runtime::ReplicaSpec;

/// The image of a replica.
pub(super) fn image<'a>(config: &'a DockerConfig, what: &'a ReplicaSpec) -> &'a str {
    what.release.spec.image.as_deref().unwrap_or(&config.image)
}

/// The container of a replica.
pub(super) fn body(config: &DockerConfig, pool: &str, what: &ReplicaSpec) -> ContainerCreateBody {
    let own = [format!("SERVER_ID={}", seat_text(what.seat)), format!("PORT={}", config.port)];
    let configured = config.command.as_ref().map(CommandLine::words);
    let command = what.release.spec.command.as_deref().or(configured);
    let given = config.env.iter().map(|(name, value)| format!("{name}={value}"));
    let endpoints = [(config.network.clone(), EndpointSettings::default())];
    ContainerCreateBody {
        hostname: Some(what.hostname.slug()),
        image: Some(image(config, what).to_owned()),
        cmd: command.map(|words| filled(words, config.port, what.seat, &what.hostname)),
        env: Some(own.into_iter().chain(given).collect()),
        labels: Some(labels::labels(pool, what)),
        host_config: Some(HostConfig {
            network_mode: Some(config.network.clone()),
            memory: config.memory.map(|bytes| bytes.try_into().unwrap_or(i64::MAX)),
            nano_cpus: config.cpus.map(|cpus| (cpus * 1e9) as i64),
            pids_limit: Some(config.pids.into()),
            // As process 1 a program ignores SIGTERM until it has a handler: a stop that falls
            // into its start would take the whole grace.
            init: Some(true),
            cap_drop: Some(vec!["ALL".to_owned()]),
            security_opt: Some(vec!["no-new-privileges".to_owned()]),
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
