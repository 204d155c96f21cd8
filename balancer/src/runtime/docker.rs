//! `docker`: replicas as containers of a Docker engine, found again by their labels.
//!
//! Only containers with this pool's label are ever marked, stopped or removed. Of the engine's API
//! this needs no more than (behind a version, such as `/v1.41`):
//!
//! | method and path | for |
//! |---|---|
//! | `GET /version` | the API's version, at the start |
//! | `GET /events` | hints |
//! | `GET /containers/json` | listing, by label |
//! | `GET /containers/ID/json` | how one ended; whose a name is |
//! | `POST /containers/create` | starting |
//! | `POST /containers/ID/start` | starting |
//! | `POST /containers/ID/rename` | marks |
//! | `POST /containers/ID/stop` | stopping |
//! | `DELETE /containers/ID` | stopping |
//! | `GET /networks/NAME` | whether the network is there, and whose it is |
//! | `POST /networks/create` | unless it is |
//! | `DELETE /networks/ID` | a clean end, if it was made here |
//! | `GET /images/NAME/json` | the image ID of a release |
//! | `POST /images/create` | pulling, unless `pull = "never"` |
//! | `GET /volumes`, `POST /volumes/create`, `DELETE /volumes/NAME` | leases of the pool's balancers; none where the first is denied (403) |
//! | `GET /networks` | `balancer clean` |

mod body;
mod call;
mod clean;
mod connect;
mod events;
mod labels;
mod leases;
mod network;
mod own;
mod pins;
mod pull;
mod sight;
mod witness;

#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use actix_web::rt::spawn;
use bollard::Docker as Api;
use bollard::models::ContainerSummary;
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, ListContainersOptionsBuilder,
    RemoveContainerOptionsBuilder, RenameContainerOptionsBuilder, StartContainerOptions,
    StopContainerOptionsBuilder,
};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::{Mark, Pool, ReplicaSpec, Runtime, RuntimeError};
use crate::config::DockerConfig;
use crate::config::settings::PullPolicy;
use crate::fleet::change::Death;
use crate::fleet::members::Lease;
use crate::fleet::observed::{Condition, Observed, Trouble};
use crate::fleet::release::Spec;
use crate::fleet::seat::Hostname;
use call::{CALL_DEADLINE, START_DEADLINE, call, is_missing, is_status};
pub use clean::{Cleaning, Leftovers};
use labels::{HOSTNAME, POOL, VERSION};
use leases::Leases;
use network::Network;
use own::Own;
use pins::Pins;
use pull::Puller;
use sight::{Seen, Sight};

/// The engine's usual address.
const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";

/// How long a name may be taken by what is not to be seen: a container that somebody is just making
/// or removing.
const NAME_DEADLINE: Duration = Duration::from_secs(10);

/// A pause before the next look at such a name.
const NAME_PAUSE: Duration = Duration::from_millis(50);

/// How often a mark is tried while others mark the same container.
const MARK_ATTEMPTS: usize = 5;

/// A Docker engine.
pub struct Docker {
    api: Api,
    config: DockerConfig,
    own: Own,
    leases: Leases,
    earlier: Cell<Earlier>,
    changed: Rc<Notify>,
    sight: Sight,
    puller: Puller,
    pins: Pins,
    network: Network,
    subscription: JoinHandle<()>,
}

/// Whether the containers that a version without leases left are treated as this pool's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Earlier {
    /// They are not.
    Left,
    /// They are.
    Adopted,
    /// They were, and none is there any more.
    Replaced,
}

/// The pool of versions without leases, where none was configured.
const EARLIER_POOL: &str = "default";

/// A container to be started.
enum Found {
    /// It was made by this call.
    New(String),
    /// It was there, just made or running: somebody else starts it, or has.
    There(String),
}

// === impl Docker ===

impl Docker {
    /// Connects to the engine that `DOCKER_HOST` names (`/var/run/docker.sock` by default),
    /// negotiates the API version, finds out which pool and which member of it this balancer is,
    /// and makes the network if it is absent. `listen` is the address of the traffic listener. An
    /// engine that cannot be reached is awaited for `wait`.
    ///
    /// # Errors
    /// When the engine cannot be reached in time or may not be used, its API is too old, or the
    /// network cannot be made.
    pub async fn connect(
        config: DockerConfig,
        listen: SocketAddr,
        wait: Duration,
    ) -> Result<Self, RuntimeError> {
        let at = address();
        let attempt = async |patience| {
            let docker = Self::connect_to(&at, config.clone(), listen, patience).await?;
            // An engine that hangs may still tell its version.
            docker.containers(None).await?;
            Ok(docker)
        };
        connect::await_engine(&at, wait, attempt).await
    }

    async fn connect_to(
        at: &str,
        config: DockerConfig,
        listen: SocketAddr,
        patience: Duration,
    ) -> Result<Self, RuntimeError> {
        let api = connect::connect(at, patience).await?;
        let own = Own::find(&api, config.pool.as_deref(), listen).await?;
        let changed = Rc::new(Notify::new());
        let sight = Sight::new(api.clone(), config.network.clone(), config.port);
        let (pool, network) = (own.pool.clone(), config.network.clone());
        let (hint, witness) = (Rc::clone(&changed), Rc::clone(&sight.witness));
        let events = events::subscribe(api.clone(), pool, network, hint, witness);
        let subscription = spawn(events);
        let puller = Puller::new(api.clone(), config.pull_deadline);
        let network = Network::new(api.clone(), config.network.clone(), own.pool.clone());
        let (leases, earlier) = (Leases::new(api.clone()), Cell::new(Earlier::Left));
        let docker = Self {
            network,
            api,
            config,
            own,
            leases,
            earlier,
            changed,
            sight,
            puller,
            pins: Pins::default(),
            subscription,
        };
        docker.network.ensure().await?;
        Ok(docker)
    }

    /// Containers of this pool, dead ones included; with `label`, those that have it.
    async fn containers(
        &self,
        label: Option<String>,
    ) -> Result<Vec<ContainerSummary>, RuntimeError> {
        let mut containers = self.containers_of(&self.own.pool, label.as_ref()).await?;
        if self.earlier.get() == Earlier::Adopted {
            let adopted = self.earlier_containers(label.as_ref()).await?;
            // They were replaced one by one: there will be no more.
            if label.is_none() && adopted.is_empty() {
                self.earlier.set(Earlier::Replaced);
            }
            containers.extend(adopted);
        }
        Ok(containers)
    }

    /// Returns the containers that a version without leases left.
    async fn earlier_containers(
        &self,
        label: Option<&String>,
    ) -> Result<Vec<ContainerSummary>, RuntimeError> {
        let mut containers = self.containers_of(EARLIER_POOL, label).await?;
        let is_earlier = |labels: &HashMap<String, String>| !labels.contains_key(VERSION);
        containers.retain(|container| container.labels.as_ref().is_some_and(is_earlier));
        Ok(containers)
    }

    async fn containers_of(
        &self,
        pool: &str,
        label: Option<&String>,
    ) -> Result<Vec<ContainerSummary>, RuntimeError> {
        let mut labels = vec![format!("{POOL}={pool}")];
        labels.extend(label.cloned());
        let filters = HashMap::from([("label".to_owned(), labels)]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        call("list containers", CALL_DEADLINE, self.api.list_containers(Some(options))).await
    }

    /// The containers of a replica, whatever their names are by now.
    async fn named(&self, hostname: &Hostname) -> Result<Vec<Seen>, RuntimeError> {
        let mut named = Vec::new();
        for container in self.containers(Some(format!("{HOSTNAME}={hostname}"))).await? {
            named.extend(self.sight.see(container).await);
        }
        Ok(named)
    }

    /// Finds the replica's container, or makes it under its slug. A name that a leftover of ours
    /// has is made free.
    async fn find_or_create(&self, what: &ReplicaSpec) -> Result<Found, RuntimeError> {
        let name = what.hostname.slug();
        let began = Instant::now();
        loop {
            if let Some(id) = self.find(what).await? {
                return Ok(Found::There(id));
            }
            let created = self.create(what).await;
            if !is_status(&created, 409) {
                return created.map(Found::New);
            }
            // Somebody else may just make it, or remove it; then it cannot be seen for a moment.
            if self.is_strangers(&name).await? || began.elapsed() > NAME_DEADLINE {
                return Err(RuntimeError::NameTaken(name));
            }
            sleep(NAME_PAUSE).await;
        }
    }

    /// The container that may be taken for the replica; removes what is left of earlier ones. One
    /// that is leaving is left alone: it has another name.
    async fn find(&self, what: &ReplicaSpec) -> Result<Option<String>, RuntimeError> {
        let mut found = None;
        for Seen { id, replica, .. } in self.named(&what.hostname).await? {
            if replica.leaving {
                continue;
            }
            match replica.condition {
                Condition::Dead(_) => {
                    // Refused if somebody starts it again just now: it is seen then.
                    self.remove(&id, false).await?;
                }
                Condition::Made
                | Condition::Starting
                | Condition::Running
                | Condition::Troubled(_) => {
                    if replica.place != labels::place(what) {
                        return Err(RuntimeError::NameTaken(what.hostname.slug()));
                    }
                    found = Some(id);
                }
            }
        }
        Ok(found)
    }

    /// Makes the replica's container from the image of its release. An image that is gone from the
    /// engine is pulled again by its reference, which may stand for the same image still.
    async fn create(&self, what: &ReplicaSpec) -> Result<String, RuntimeError> {
        let spec = self.pins.pinned(&self.api, &self.puller, &self.config, &what.release).await?;
        let began = Instant::now();
        let created = self.create_now(what, &spec).await;
        let policy = self.config.pull;
        if policy != PullPolicy::Never && is_missing(&created, "no such image") {
            let image = spec.image.as_deref().unwrap_or(&self.config.image);
            self.puller.pull(image, began).await?;
            return self.create_now(what, &spec).await;
        }
        if is_missing(&created, "network") {
            self.network.ensure().await?;
            return self.create_now(what, &spec).await;
        }
        created
    }

    async fn create_now(&self, what: &ReplicaSpec, spec: &Spec) -> Result<String, RuntimeError> {
        let name = what.hostname.slug();
        let options = CreateContainerOptionsBuilder::new().name(&name).build();
        let body = body::body(&self.config, &self.own.pool, what, spec);
        let created = self.api.create_container(Some(options), body);
        let created = call(&format!("create container {name:?}"), START_DEADLINE, created).await;
        created.map(|created| created.id)
    }

    /// Whether a container has this name that is not one of this pool's.
    async fn is_strangers(&self, name: &str) -> Result<bool, RuntimeError> {
        let inspected = self.api.inspect_container(name, None::<InspectContainerOptions>);
        let inspected = call("inspect a container", CALL_DEADLINE, inspected).await;
        if is_status(&inspected, 404) {
            return Ok(false);
        }
        let inspected = inspected?;
        // The engine looks for ids that begin so, too.
        let has_name = inspected.name.is_some_and(|it| it.trim_start_matches('/') == name);
        let labels = inspected.config.and_then(|config| config.labels).unwrap_or_default();
        let adopted = self.earlier.get() == Earlier::Adopted
            && labels.get(POOL).is_some_and(|pool| pool == EARLIER_POOL)
            && !labels.contains_key(VERSION);
        Ok(has_name && labels.get(POOL) != Some(&self.own.pool) && !adopted)
    }

    /// Starts what was found or made; what was made and cannot be started is removed again, unless
    /// it runs by then: somebody else started it.
    async fn finish(&self, what: &ReplicaSpec, found: Found) -> Result<Observed, RuntimeError> {
        let (Found::New(id) | Found::There(id)) = &found;
        let observed = self.run(what, id).await;
        if let (Err(error), Found::New(id)) = (&observed, &found) {
            // One that nobody can reach is of no use to others either.
            let force = matches!(error, RuntimeError::NoAddress { .. });
            if let Err(error) = self.remove(id, force).await {
                let hostname = &what.hostname;
                warn!(%hostname, %error, "a half-made container could not be removed");
            }
        }
        observed
    }

    /// Starts a container and tells how it is then.
    async fn run(&self, what: &ReplicaSpec, id: &str) -> Result<Observed, RuntimeError> {
        let started = self.start_now(what, id).await;
        let started = if is_missing(&started, "network") {
            self.network.ensure().await?;
            self.start_now(what, id).await
        } else {
            started
        };
        let container = self.named(&what.hostname).await?.into_iter().find(|it| it.id == id);
        // Where somebody else started it, or froze it meanwhile, it does not matter what was said.
        if !container.as_ref().is_some_and(|it| is_up(it.replica.condition)) {
            started?;
        }
        let no_address = || RuntimeError::NoAddress {
            container: what.hostname.slug(),
            network: self.config.network.clone(),
        };
        let replica = container.ok_or_else(no_address)?.replica;
        self.sight.note(&replica.hostname, id);
        // One that has ended already has no address; its death says more.
        let usable = replica.address.is_some() || replica.condition.death().is_some();
        if usable { Ok(replica) } else { Err(no_address()) }
    }

    async fn start_now(&self, what: &ReplicaSpec, id: &str) -> Result<(), RuntimeError> {
        let action = format!("start container {:?}", what.hostname.slug());
        let started = self.api.start_container(id, None::<StartContainerOptions>);
        call(&action, START_DEADLINE, started).await
    }

    /// Removes a container. One that runs is removed by `force` only; without, it stays and that
    /// is no error.
    async fn remove(&self, id: &str, force: bool) -> Result<(), RuntimeError> {
        let options = RemoveContainerOptionsBuilder::new().force(force).v(true).build();
        let removed = self.api.remove_container(id, Some(options));
        let removed = call("remove a container", CALL_DEADLINE, removed).await;
        // 409: its removal is in progress already, or it runs.
        if is_status(&removed, 404) || is_status(&removed, 409) { Ok(()) } else { removed }
    }

    async fn stop_container(&self, container: &Seen, grace: Duration) -> Result<(), RuntimeError> {
        let id = &container.id;
        // A frozen one finishes nothing in its grace.
        let told = if container.paused {
            Ok(())
        } else {
            let seconds = i32::try_from(grace.as_secs_f64().ceil() as i64).unwrap_or(i32::MAX);
            let options = StopContainerOptionsBuilder::new().t(seconds).build();
            let stopped = self.api.stop_container(id, Some(options));
            call("stop a container", grace + CALL_DEADLINE, stopped).await
        };
        if let Err(RuntimeError::Timeout { .. }) = told {
            return told;
        }
        // By force, and so whatever came of that: gone is gone.
        let removed = self.remove(id, true).await;
        if removed.is_ok() {
            self.sight.witness.borrow_mut().forget(id);
        } else {
            told?;
        }
        removed
    }
}

impl Runtime for Docker {
    async fn list(&self) -> Result<Vec<Observed>, RuntimeError> {
        let containers = self.containers(None).await?;
        // Those that have ended may have to be asked about, one by one.
        let seen = timeout(CALL_DEADLINE, self.sight.see_all(containers)).await;
        seen.map_err(|_late| RuntimeError::Timeout {
            action: "tell how containers ended".to_owned(),
            within: CALL_DEADLINE,
        })
    }

    async fn start(&self, what: &ReplicaSpec) -> Result<Observed, RuntimeError> {
        let began = Instant::now();
        loop {
            let found = self.find_or_create(what).await?;
            let there = matches!(found, Found::There(_));
            let observed = self.finish(what, found).await;
            // The engine lists a container a moment before it can be started.
            let early = there && is_missing(&observed, "container");
            if !early || began.elapsed() > NAME_DEADLINE {
                return observed;
            }
            sleep(NAME_PAUSE).await;
        }
    }

    /// By the container's name: that changes in one step, and only once to the same.
    async fn mark(&self, hostname: &Hostname, mark: Mark) -> Result<(), RuntimeError> {
        let mut refused = Ok(());
        for _ in 0..MARK_ATTEMPTS {
            let mut all = true;
            for Seen { id, name, .. } in self.named(hostname).await? {
                let Some(name) = labels::marked(hostname, &name, mark) else { continue };
                all = false;
                let options = RenameContainerOptionsBuilder::new().name(&name).build();
                let renamed = self.api.rename_container(&id, options);
                let action = format!("rename a container to {name:?}");
                refused = call(&action, CALL_DEADLINE, renamed).await;
                if let Err(RuntimeError::Timeout { .. }) = refused {
                    return refused;
                }
            }
            // Whoever was faster with the same mark, or removed it: it is as it was to be.
            if all {
                return Ok(());
            }
            if refused.is_err() {
                sleep(NAME_PAUSE).await;
            }
        }
        refused
    }

    async fn stop(&self, hostname: &Hostname, grace: Duration) -> Result<(), RuntimeError> {
        for container in self.named(hostname).await? {
            self.stop_container(&container, grace).await?;
        }
        Ok(())
    }

    async fn changed(&self) {
        self.changed.notified().await;
    }

    fn deaths(&self) -> Vec<(Hostname, Death)> {
        self.sight.fresh_deaths()
    }

    async fn pool(&self) -> Result<Option<Pool>, RuntimeError> {
        let leases = self.leases.list().await;
        if is_status(&leases, 403) {
            // A proxy before the engine's socket that was set up for an earlier version.
            warn!(
                pool = self.own.pool,
                "no leases: access to the engine's volumes is denied (/volumes); other balancers \
                 of the pool are not noticed, and a restart does not restore the requested fleet"
            );
            return Ok(None);
        }
        leases?;
        let derived = self.config.pool.is_none();
        let has_earlier = derived && !self.earlier_containers(None).await?.is_empty();
        Ok(Some(Pool {
            name: self.own.pool.clone(),
            shared: self.config.shared,
            me: self.own.key.clone(),
            address: self.own.address.to_string(),
            earlier: has_earlier.then_some(EARLIER_POOL),
        }))
    }

    async fn leases(&self) -> Result<Vec<Lease>, RuntimeError> {
        self.leases.list().await
    }

    async fn write_lease(&self, lease: &Lease) -> Result<(), RuntimeError> {
        self.leases.write(lease).await
    }

    async fn remove_lease(&self, lease: &Lease) -> Result<(), RuntimeError> {
        self.leases.remove(lease).await
    }

    fn adopt_earlier(&self) {
        self.earlier.set(Earlier::Adopted);
    }

    async fn close(&self) -> Result<(), RuntimeError> {
        let adopted = self.earlier.get() != Earlier::Left;
        self.network.remove(adopted.then_some(EARLIER_POOL)).await
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        self.subscription.abort();
    }
}

/// Returns the address of the engine.
fn address() -> String {
    std::env::var("DOCKER_HOST").unwrap_or_else(|_| DEFAULT_HOST.to_owned())
}

/// Whether a container runs, well or not.
fn is_up(condition: Condition) -> bool {
    match condition {
        Condition::Starting
        | Condition::Running
        | Condition::Troubled(Trouble::Paused | Trouble::Unhealthy | Trouble::Stopping) => true,
        Condition::Made | Condition::Dead(_) => false,
    }
}
