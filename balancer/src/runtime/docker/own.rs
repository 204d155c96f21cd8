//! Which balancer this is: its pool, and its name among the members of the pool.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;

use bollard::Docker as Api;
use bollard::query_parameters::InspectContainerOptions;

use super::call::{CALL_DEADLINE, call, is_status};
use crate::fleet::members::MemberKey;
use crate::runtime::RuntimeError;

/// This balancer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Own {
    /// The pool that it belongs to.
    pub(super) pool: String,
    /// Its name, and this run of it.
    pub(super) key: MemberKey,
    /// The address of its traffic listener.
    pub(super) address: SocketAddr,
}

/// The labels that Compose gives to a container.
const PROJECT: &str = "com.docker.compose.project";
const SERVICE: &str = "com.docker.compose.service";
const NUMBER: &str = "com.docker.compose.container-number";
const ONE_OFF: &str = "com.docker.compose.oneoff";

/// Where a container has the mounts that its engine makes.
const MOUNTS: &str = "/proc/self/mountinfo";
const HOST_NAME: &str = "/proc/sys/kernel/hostname";

// === impl Own ===

impl Own {
    /// Finds out which balancer this is. `pool` is the configured pool.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub(super) async fn find(
        api: &Api,
        pool: Option<&str>,
        listen: SocketAddr,
    ) -> Result<Self, RuntimeError> {
        let host = host_name();
        let labels = match own_container(&host) {
            Some(id) => labels_of(api, &id).await?,
            None => HashMap::new(),
        };
        let instance = format!("{:016x}", rand::random::<u64>());
        Ok(Self::new(pool, &labels, &host, listen, instance))
    }

    /// Derives the pool and the name: from Compose if it started this container, otherwise from the
    /// host name and the address.
    fn new(
        pool: Option<&str>,
        labels: &HashMap<String, String>,
        host: &str,
        listen: SocketAddr,
        instance: String,
    ) -> Self {
        let label = |name: &str| labels.get(name).map(String::as_str).filter(|it| !it.is_empty());
        let project = label(PROJECT);
        // One that `docker compose run` started has the same number as the service's own.
        let is_service = label(ONE_OFF).is_none_or(|one_off| !one_off.eq_ignore_ascii_case("true"));
        let by_address = format!("{host}-{listen}");
        let identity = match (project, label(SERVICE), label(NUMBER)) {
            (Some(project), Some(service), Some(number)) if is_service => {
                format!("{project}/{service}/{number}")
            }
            _ => by_address.clone(),
        };
        let pool = pool.or(project).map_or(by_address, str::to_owned);
        Self { pool, key: MemberKey { identity, instance }, address: listen }
    }
}

/// Returns a short hash of a text, the same in every build.
pub(super) fn hash(text: &str) -> String {
    use std::hash::Hasher as _;
    let mut hasher = siphasher::sip::SipHasher13::new();
    hasher.write(text.as_bytes());
    format!("{:016x}", hasher.finish())
}

fn host_name() -> String {
    let name = std::fs::read_to_string(HOST_NAME).unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "localhost".to_owned() } else { name.to_owned() }
}

/// Returns the id of the container that this process runs in, as far as that can be told: the
/// engine is asked whether it knows it.
fn own_container(host: &str) -> Option<String> {
    let mounts = std::fs::read_to_string(MOUNTS).unwrap_or_default();
    let in_container = || Path::new("/.dockerenv").exists();
    let is_id = |host: &&str| host.len() == 12 && host.bytes().all(|c| c.is_ascii_hexdigit());
    container_in(&mounts)
        .or_else(|| Some(host).filter(is_id).filter(|_| in_container()).map(str::to_owned))
}

/// Returns the id of the container whose own files are mounted. A host's table of mounts has those
/// of all its containers, but at other places.
fn container_in(mounts: &str) -> Option<String> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let own = ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"].contains(&point);
        let (_, rest) = root.split_once("/containers/").filter(|_| own)?;
        let id = rest.split('/').next()?;
        let is_id = id.len() == 64 && id.bytes().all(|c| c.is_ascii_hexdigit());
        is_id.then(|| id.to_owned())
    })
}

async fn labels_of(api: &Api, id: &str) -> Result<HashMap<String, String>, RuntimeError> {
    let inspected = api.inspect_container(id, None::<InspectContainerOptions>);
    let inspected = call("inspect the balancer's own container", CALL_DEADLINE, inspected).await;
    // It runs in a container of another engine.
    if is_status(&inspected, 404) {
        return Ok(HashMap::new());
    }
    Ok(inspected?.config.and_then(|config| config.labels).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(pool: Option<&str>, labels: &[(&str, &str)]) -> (String, String) {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let listen = SocketAddr::from(([127, 0, 0, 1], 5000));
        let own = Own::new(pool, &labels.collect(), "host", listen, "1".to_owned());
        (own.pool, own.key.identity)
    }

    #[test]
    fn the_pool_and_the_name_follow_from_compose_or_from_the_host_and_the_address() {
        let by_address = "host-127.0.0.1:5000".to_owned();
        let compose = [(PROJECT, "shop"), (SERVICE, "balancer"), (NUMBER, "2"), (ONE_OFF, "False")];
        assert_eq!(own(None, &[]), (by_address.clone(), by_address.clone()));
        assert_eq!(own(Some("web"), &[]), ("web".to_owned(), by_address.clone()));
        assert_eq!(own(None, &compose), ("shop".to_owned(), "shop/balancer/2".to_owned()));
        assert_eq!(own(Some("web"), &compose), ("web".to_owned(), "shop/balancer/2".to_owned()));
        // `docker compose run` numbers its containers anew.
        let once = [&compose[..3], &[(ONE_OFF, "True")]].concat();
        assert_eq!(own(None, &once), ("shop".to_owned(), by_address));
    }

    #[test]
    fn only_the_mounts_of_the_own_container_tell_its_id() {
        let id = "0123456789abcdef".repeat(4);
        let own = format!(
            "900 880 8:1 /var/lib/docker/containers/{id}/hostname /etc/hostname rw - ext4 /dev/a rw"
        );
        let hosts = format!(
            "36 25 0:33 / /var/lib/docker/containers/{id}/mounts/shm rw - tmpfs shm rw\n\
             37 25 0:34 /containers/{id}/x /mnt rw - ext4 /dev/a rw"
        );
        assert_eq!(container_in(&own), Some(id));
        assert_eq!(container_in(&hosts), None);
        assert_eq!(container_in("nonsense\n\n1 2 3"), None);
    }
}
