//! Leases as volumes: never mounted, invisible in `docker ps`, and left alone by `docker compose
//! down`. The labels of a volume cannot change, so a renewal makes the next volume and then removes
//! the one before: there is always one. Creating and removing one take 2 ms each, listing 1 ms.

use std::collections::HashMap;
use std::time::Duration;

use bollard::Docker as Api;
use bollard::models::{Volume, VolumeCreateRequest};
use bollard::query_parameters::{ListVolumesOptionsBuilder, RemoveVolumeOptions};
use tracing::debug;

use super::call::{call, is_status};
use super::own::hash;
use crate::fleet::members::{Lease, MemberKey, Stage};
use crate::runtime::RuntimeError;

/// Reads and writes leases.
pub(super) struct Leases {
    api: Api,
}

/// The label that makes a volume a lease: its pool.
const POOL: &str = "balancer.lease";
const MEMBER: &str = "balancer.member";
const INSTANCE: &str = "balancer.instance";
const ADDRESS: &str = "balancer.address";
const STARTED: &str = "balancer.started";
const SEQUENCE: &str = "balancer.sequence";
const SHARED: &str = "balancer.shared";
const STAGE: &str = "balancer.stage";
const EARLIER: &str = "balancer.adopts-earlier";
const WANTED: &str = "balancer.wanted";

/// How long a call may take: a renewal must not be held up by an engine that hangs, and answers to
/// `/add` wait for it.
const DEADLINE: Duration = Duration::from_secs(3);

// === impl Leases ===

impl Leases {
    pub(super) fn new(api: Api) -> Self {
        Self { api }
    }

    pub(super) async fn list(&self) -> Result<Vec<Lease>, RuntimeError> {
        let filters = HashMap::from([("label".to_owned(), vec![POOL.to_owned()])]);
        let options = ListVolumesOptionsBuilder::new().filters(&filters).build();
        let listed = call("list leases", DEADLINE, self.api.list_volumes(Some(options))).await?;
        Ok(listed.volumes.iter().flatten().filter_map(|volume| read(&volume.labels)).collect())
    }

    pub(super) async fn write(&self, lease: &Lease) -> Result<(), RuntimeError> {
        let request = VolumeCreateRequest {
            name: Some(name(lease)),
            labels: Some(labels(lease)),
            ..VolumeCreateRequest::default()
        };
        let created = call("write a lease", DEADLINE, self.api.create_volume(request)).await;
        created.map(|_: Volume| ())
    }

    pub(super) async fn remove(&self, lease: &Lease) -> Result<(), RuntimeError> {
        let name = name(lease);
        let removed = self.api.remove_volume(&name, None::<RemoveVolumeOptions>);
        let removed = call("remove a lease", DEADLINE, removed).await;
        if is_status(&removed, 404) { Ok(()) } else { removed }
    }
}

/// Returns the name of a lease's volume. The engine allows letters, digits and `_.-` in it.
fn name(lease: &Lease) -> String {
    let Lease { pool, key: MemberKey { identity, instance }, sequence, .. } = lease;
    let plain = |c: char| if c.is_ascii_alphanumeric() || "_.-".contains(c) { c } else { '-' };
    let pool: String = pool.chars().map(plain).take(64).collect();
    let member = hash(&format!("{:?} {identity:?} {instance:?}", lease.pool));
    format!("balancer-lease-{pool}-{member}-{sequence}")
}

fn labels(lease: &Lease) -> HashMap<String, String> {
    let Lease { pool, key, address, started, sequence, shared, stage, adopts_earlier, wanted } =
        lease;
    let wanted = wanted.as_ref().and_then(|wanted| {
        serde_json::to_string(wanted)
            .inspect_err(|error| debug!(%error, "a wanted fleet could not be written down"))
            .ok()
    });
    let labels = [
        (POOL, pool.clone()),
        (MEMBER, key.identity.clone()),
        (INSTANCE, key.instance.clone()),
        (ADDRESS, address.clone()),
        (STARTED, started.clone()),
        (SEQUENCE, sequence.to_string()),
        (SHARED, shared.to_string()),
        (STAGE, stage.name().to_owned()),
        (EARLIER, adopts_earlier.to_string()),
    ];
    let wanted = wanted.map(|wanted| (WANTED, wanted));
    labels.into_iter().chain(wanted).map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Reads the labels of a volume; `None` for one that is no lease.
fn read(labels: &HashMap<String, String>) -> Option<Lease> {
    let text = |name: &str| labels.get(name).cloned();
    let is_true = |name: &str| labels.get(name).is_some_and(|value| value == "true");
    Some(Lease {
        pool: text(POOL)?,
        key: MemberKey { identity: text(MEMBER)?, instance: text(INSTANCE)? },
        address: text(ADDRESS).unwrap_or_default(),
        started: text(STARTED).unwrap_or_default(),
        sequence: text(SEQUENCE)?.parse().ok()?,
        shared: is_true(SHARED),
        // A stage of a later version is one of a balancer that lives.
        stage: Stage::read(&text(STAGE)?).unwrap_or(Stage::Serving),
        adopts_earlier: is_true(EARLIER),
        wanted: text(WANTED).and_then(|text| serde_json::from_str(&text).ok()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::members::{Seats, Wanted};
    use crate::fleet::release::{Release, Spec};

    fn lease() -> Lease {
        Lease {
            pool: "a pool/1".to_owned(),
            key: MemberKey { identity: "host-1:5000".to_owned(), instance: "2".to_owned() },
            address: "127.0.0.1:5000".to_owned(),
            started: "now".to_owned(),
            sequence: 7,
            shared: true,
            stage: Stage::Leaving,
            adopts_earlier: false,
            wanted: Some(Wanted {
                revision: 3,
                config: "c".to_owned(),
                seats: Seats::read("1-3,7").unwrap(),
                release: Release::new(2, 0, &Spec::default(), Spec::default()),
            }),
        }
    }

    #[test]
    fn a_lease_is_read_as_it_was_written() {
        let lease = lease();
        assert_eq!(read(&labels(&lease)), Some(lease.clone()));
        let without = Lease { wanted: None, ..lease };
        assert_eq!(read(&labels(&without)), Some(without));
    }

    #[test]
    fn labels_that_make_no_sense_are_no_lease() {
        let good = labels(&lease());
        for missing in [POOL, MEMBER, INSTANCE, SEQUENCE, STAGE] {
            let mut labels = good.clone();
            labels.remove(missing);
            assert_eq!(read(&labels), None, "{missing}");
        }
        let mut odd = good;
        odd.insert(WANTED.to_owned(), "{".to_owned());
        odd.insert(STAGE.to_owned(), "resting".to_owned());
        let read = read(&odd).unwrap();
        assert_eq!((read.wanted, read.stage), (None, Stage::Serving));
    }

    #[test]
    fn a_name_has_only_what_the_engine_allows_and_tells_pools_and_runs_apart() {
        let one = name(&lease());
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        assert!(one.chars().all(allowed) && one.ends_with("-7"), "{one}");
        let other_pool = Lease { pool: "a-pool-1".to_owned(), ..lease() };
        let key = MemberKey { instance: "3".to_owned(), ..lease().key };
        let other_run = Lease { key, ..lease() };
        assert!(name(&other_pool) != one && name(&other_run) != one);
    }
}
