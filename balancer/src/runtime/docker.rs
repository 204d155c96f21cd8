//! `docker`: replicas as containers of a Docker engine, found again by their labels.
//!
//! Only containers with this pool's label are ever stopped or removed.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use actix_web::rt::spawn;
use bollard::Docker as Api;
use bollard::errors::Error as ApiError;
use bollard::models::{
    ContainerCreateBody, ContainerSummary, ContainerSummaryStateEnum, EndpointSettings, EventActor,
    EventMessage, HostConfig, NetworkCreateRequest, NetworkingConfig, RestartPolicy,
    RestartPolicyNameEnum,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, EventsOptionsBuilder, InspectContainerOptions,
    InspectNetworkOptions, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
    StartContainerOptions, StopContainerOptionsBuilder,
};
use futures_util::StreamExt as _;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::{ReplicaSpec, Runtime, RuntimeError};
use crate::config::DockerConfig;
use crate::fleet::change::Death;
use crate::fleet::roster::Observed;
use crate::fleet::seat::{Hostname, MemberId, Seat};

const POOL: &str = "balancer.pool";
const SEAT: &str = "balancer.seat";
const HOSTNAME: &str = "balancer.hostname";

/// How long the engine has for any call; a stop has this on top of the replica's grace.
const CALL_DEADLINE: Duration = Duration::from_secs(10);

/// How long creating and starting may take: a busy host needs seconds for its first container.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// How long to wait before subscribing to events again.
const SUBSCRIBE_AGAIN: Duration = Duration::from_secs(1);

/// How long an event is believed against the listing: the engine has caught up by then.
const BELIEVED: Duration = Duration::from_secs(5);

/// Exit codes above this tell the signal that ended the process (128 + signal).
const SIGNALLED: i64 = 128;

/// A Docker engine.
pub struct Docker {
    api: Api,
    config: DockerConfig,
    changed: Rc<Notify>,
    dying: Rc<Dying>,
    subscription: JoinHandle<()>,
}

/// Containers of which the engine said that they died, and when: for a moment after that it still
/// lists them as running.
#[derive(Default)]
struct Dying {
    deaths: RefCell<HashMap<String, (Death, Instant)>>,
    /// Containers in which something ran out of memory: if they die now, it is of that.
    out_of_memory: RefCell<HashSet<String>>,
}

// === impl Docker ===

impl Docker {
    /// Connects to the engine that `DOCKER_HOST` names (`/var/run/docker.sock` by default),
    /// negotiates the API version, and makes the network if it is absent.
    ///
    /// # Errors
    /// When the engine cannot be reached or the network not made.
    pub async fn connect(config: DockerConfig) -> Result<Self, RuntimeError> {
        let at = std::env::var("DOCKER_HOST").unwrap_or_else(|_| "/var/run/docker.sock".to_owned());
        let unreachable =
            |source: ApiError| RuntimeError::Unreachable { at: at.clone(), source: source.into() };
        let api = Api::connect_with_defaults().map_err(unreachable)?;
        let api = timeout(CALL_DEADLINE, api.negotiate_version())
            .await
            .map_err(|_late| RuntimeError::Timeout {
                action: format!("answer at {at}"),
                within: CALL_DEADLINE,
            })?
            .map_err(unreachable)?;
        debug!(version = %api.client_version(), "container engine found");
        let changed = Rc::new(Notify::new());
        let dying = Rc::new(Dying::default());
        let events =
            subscribe(api.clone(), config.pool.clone(), Rc::clone(&changed), dying.clone());
        let subscription = spawn(events);
        let docker = Self { api, config, changed, dying, subscription };
        docker.ensure_network().await?;
        Ok(docker)
    }

    async fn ensure_network(&self) -> Result<(), RuntimeError> {
        let network = &self.config.network;
        let known = self.api.inspect_network(network, None::<InspectNetworkOptions>);
        let known = call(&format!("look for network {network:?}"), CALL_DEADLINE, known).await;
        if !is_status(&known, 404) {
            return known.map(drop);
        }
        let request = NetworkCreateRequest {
            name: network.clone(),
            driver: Some("bridge".to_owned()),
            labels: Some(HashMap::from([(POOL.to_owned(), self.config.pool.clone())])),
            ..NetworkCreateRequest::default()
        };
        let created = self.api.create_network(request);
        let created = call(&format!("make network {network:?}"), CALL_DEADLINE, created).await;
        // Somebody else may have been faster.
        if is_status(&created, 409) { Ok(()) } else { created.map(drop) }
    }

    /// Containers of this pool, dead ones included; with `label`, those that have it.
    async fn containers(
        &self,
        label: Option<String>,
    ) -> Result<Vec<ContainerSummary>, RuntimeError> {
        let mut labels = vec![format!("{POOL}={}", self.config.pool)];
        labels.extend(label);
        let filters = HashMap::from([("label".to_owned(), labels)]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        call("list containers", CALL_DEADLINE, self.api.list_containers(Some(options))).await
    }

    async fn named(&self, hostname: &Hostname) -> Result<Vec<ContainerSummary>, RuntimeError> {
        self.containers(Some(format!("{HOSTNAME}={hostname}"))).await
    }

    async fn observed(&self, container: ContainerSummary) -> Option<Observed> {
        let labels = container.labels.unwrap_or_default();
        let hostname = Hostname::parse(labels.get(HOSTNAME)?).ok()?;
        let seat = labels.get(SEAT).and_then(|seat| seat.parse().ok()).and_then(Seat::new);
        let state = container.state.unwrap_or(ContainerSummaryStateEnum::EMPTY);
        let death = match state {
            ContainerSummaryStateEnum::RUNNING
            | ContainerSummaryStateEnum::PAUSED
            | ContainerSummaryStateEnum::RESTARTING
            | ContainerSummaryStateEnum::STOPPING => self.dying.death(container.id.as_deref()),
            ContainerSummaryStateEnum::CREATED => Some(Death::NeverStarted),
            ContainerSummaryStateEnum::EXITED
            | ContainerSummaryStateEnum::DEAD
            | ContainerSummaryStateEnum::REMOVING
            | ContainerSummaryStateEnum::EMPTY => Some(self.death(container.id.as_deref()).await),
        };
        let networks = container.network_settings.and_then(|settings| settings.networks);
        let address = networks.and_then(|networks| {
            let text = networks.get(&self.config.network)?.ip_address.clone()?;
            Some(SocketAddr::new(text.parse::<IpAddr>().ok()?, self.config.port))
        });
        Some(Observed {
            hostname,
            member: seat.map(MemberId::Seat),
            address,
            weight: 1,
            created: container.created.and_then(|at| at.try_into().ok()).unwrap_or(0),
            death,
        })
    }

    /// How a container ended.
    async fn death(&self, id: Option<&str>) -> Death {
        let Some(id) = id else { return Death::Vanished };
        let inspected = self.api.inspect_container(id, None::<InspectContainerOptions>);
        let state = match call("inspect a container", CALL_DEADLINE, inspected).await {
            Ok(container) => container.state.unwrap_or_default(),
            Err(_gone) => return Death::Vanished,
        };
        if state.oom_killed == Some(true) {
            return Death::OutOfMemory;
        }
        exited(state.exit_code.unwrap_or(0))
    }

    /// Makes the container under its slug. A name that a leftover of ours has is made free.
    async fn create(&self, what: &ReplicaSpec) -> Result<String, RuntimeError> {
        let name = what.hostname.slug();
        for leftovers in [true, false] {
            let options = CreateContainerOptionsBuilder::new().name(&name).build();
            let created = self.api.create_container(Some(options), self.body(what));
            let created =
                call(&format!("create container {name:?}"), START_DEADLINE, created).await;
            if !is_status(&created, 409) {
                return created.map(|created| created.id);
            }
            if leftovers && !self.remove_leftover(&what.hostname).await? {
                break;
            }
        }
        Err(RuntimeError::NameTaken(name))
    }

    /// Removes a container of ours with this name that does not run; tells whether there was one.
    async fn remove_leftover(&self, hostname: &Hostname) -> Result<bool, RuntimeError> {
        let mut removed = false;
        for container in self.named(hostname).await? {
            let ended = matches!(
                container.state,
                Some(
                    ContainerSummaryStateEnum::EXITED
                        | ContainerSummaryStateEnum::CREATED
                        | ContainerSummaryStateEnum::DEAD
                )
            );
            if let (true, Some(id)) = (ended, container.id) {
                self.remove(&id).await?;
                removed = true;
            }
        }
        Ok(removed)
    }

    fn body(&self, what: &ReplicaSpec) -> ContainerCreateBody {
        let config = &self.config;
        let labels = [
            (POOL, config.pool.clone()),
            (SEAT, what.seat.to_string()),
            (HOSTNAME, what.hostname.to_string()),
        ];
        let own = [format!("SERVER_ID={}", what.seat), format!("PORT={}", config.port)];
        let given = config.env.iter().map(|(name, value)| format!("{name}={value}"));
        let endpoints = [(config.network.clone(), EndpointSettings::default())];
        ContainerCreateBody {
            hostname: Some(what.hostname.slug()),
            image: Some(config.image.clone()),
            cmd: config
                .command
                .as_ref()
                .map(|command| command.filled(config.port, what.seat, &what.hostname)),
            env: Some(own.into_iter().chain(given).collect()),
            labels: Some(labels.map(|(name, value)| (name.to_owned(), value)).into()),
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

    async fn run(&self, what: &ReplicaSpec, id: &str) -> Result<Observed, RuntimeError> {
        let name = what.hostname.slug();
        let started = self.api.start_container(id, None::<StartContainerOptions>);
        call(&format!("start container {name:?}"), START_DEADLINE, started).await?;
        let listed = self.containers(Some(format!("{HOSTNAME}={}", what.hostname))).await?;
        let container = listed.into_iter().find(|container| container.id.as_deref() == Some(id));
        let no_address = || RuntimeError::NoAddress {
            container: name.clone(),
            network: self.config.network.clone(),
        };
        let container = container.ok_or_else(no_address)?;
        let observed = self.observed(container).await.ok_or_else(no_address)?;
        // One that has ended already has no address; its death says more.
        let usable = observed.address.is_some() || observed.death.is_some();
        if usable { Ok(observed) } else { Err(no_address()) }
    }

    async fn remove(&self, id: &str) -> Result<(), RuntimeError> {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        let removed = self.api.remove_container(id, Some(options));
        let removed = call("remove a container", CALL_DEADLINE, removed).await;
        // 409: its removal is in progress already.
        if is_status(&removed, 404) || is_status(&removed, 409) { Ok(()) } else { removed }
    }
}

impl Runtime for Docker {
    async fn list(&self) -> Result<Vec<Observed>, RuntimeError> {
        let mut listing = Vec::new();
        for container in self.containers(None).await? {
            if let Some(observed) = self.observed(container).await {
                listing.push(observed);
            }
        }
        Ok(listing)
    }

    async fn start(&self, what: &ReplicaSpec) -> Result<Observed, RuntimeError> {
        let mut created = self.create(what).await;
        if is_status(&created, 404) && self.ensure_network().await.is_ok() {
            // The network may have gone since; a missing image is missing still.
            created = self.create(what).await;
        }
        let id = created?;
        let observed = self.run(what, &id).await;
        if observed.is_err()
            && let Err(error) = self.remove(&id).await
        {
            warn!(hostname = %what.hostname, %error, "a half-made container could not be removed");
        }
        observed
    }

    async fn stop(&self, hostname: &Hostname, grace: Duration) -> Result<(), RuntimeError> {
        for container in self.named(hostname).await? {
            let Some(id) = container.id else { continue };
            let seconds = i32::try_from(grace.as_secs_f64().ceil() as i64).unwrap_or(i32::MAX);
            let options = StopContainerOptionsBuilder::new().t(seconds).build();
            let stopped = self.api.stop_container(&id, Some(options));
            let stopped = call("stop a container", grace + CALL_DEADLINE, stopped).await;
            // 304: it had stopped already.
            if !is_status(&stopped, 404) && !is_status(&stopped, 304) {
                stopped?;
            }
            self.remove(&id).await?;
        }
        Ok(())
    }

    async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Removes the network if it was made here and nothing is on it.
    async fn close(&self) -> Result<(), RuntimeError> {
        let network = &self.config.network;
        let known = self.api.inspect_network(network, None::<InspectNetworkOptions>);
        let known = call(&format!("look for network {network:?}"), CALL_DEADLINE, known).await;
        if is_status(&known, 404) {
            return Ok(());
        }
        let labels = known?.labels.unwrap_or_default();
        if labels.get(POOL) != Some(&self.config.pool) {
            return Ok(());
        }
        let removed = self.api.remove_network(network);
        let removed = call(&format!("remove network {network:?}"), CALL_DEADLINE, removed).await;
        // 403: somebody's container is on it.
        if is_status(&removed, 403) || is_status(&removed, 404) { Ok(()) } else { removed }
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        self.subscription.abort();
    }
}

// === impl Dying ===

impl Dying {
    fn death(&self, id: Option<&str>) -> Option<Death> {
        let (death, at) = *self.deaths.borrow().get(id?)?;
        (at.elapsed() < BELIEVED).then_some(death)
    }

    /// Takes an event: a death, or a start after it.
    fn take(&self, event: EventMessage) {
        let Some(EventActor { id: Some(id), attributes }) = event.actor else { return };
        let mut deaths = self.deaths.borrow_mut();
        deaths.retain(|_, (_, at)| at.elapsed() < BELIEVED);
        match event.action.as_deref() {
            Some("oom") => {
                self.out_of_memory.borrow_mut().insert(id);
            }
            Some("die") => {
                let code =
                    attributes.and_then(|attributes| attributes.get("exitCode")?.parse().ok());
                let death = if self.out_of_memory.borrow_mut().remove(&id) {
                    Death::OutOfMemory
                } else {
                    exited(code.unwrap_or(0))
                };
                deaths.insert(id, (death, Instant::now()));
            }
            Some("start") => {
                deaths.remove(&id);
            }
            Some(_) | None => {}
        }
    }

    /// Events were missed: what is known may be outdated.
    fn clear(&self) {
        self.deaths.borrow_mut().clear();
        self.out_of_memory.borrow_mut().clear();
    }
}

/// Hints at every event of the pool's containers, and whenever the subscription was lost: events
/// may have been missed then.
async fn subscribe(api: Api, pool: String, changed: Rc<Notify>, dying: Rc<Dying>) {
    let text = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let filters = HashMap::from([
        ("type".to_owned(), text(&["container"])),
        ("label".to_owned(), vec![format!("{POOL}={pool}")]),
        ("event".to_owned(), text(&["die", "oom", "destroy", "start", "health_status"])),
    ]);
    loop {
        let options = EventsOptionsBuilder::new().filters(&filters).build();
        let mut events = std::pin::pin!(api.events(Some(options)));
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => dying.take(event),
                Err(error) => {
                    debug!(%error, "subscription to container events was lost");
                    break;
                }
            }
            changed.notify_one();
        }
        dying.clear();
        changed.notify_one();
        sleep(SUBSCRIBE_AGAIN).await;
    }
}

fn exited(code: i64) -> Death {
    match i32::try_from(code - SIGNALLED) {
        Ok(signal) if signal > 0 => Death::Killed(signal),
        Ok(_) | Err(_) => Death::Exited(code),
    }
}

/// Makes one call with a deadline; its error names what was asked.
async fn call<T>(
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
fn is_status<T>(answer: &Result<T, RuntimeError>, status: u16) -> bool {
    let Err(RuntimeError::Engine { source, .. }) = answer else {
        return false;
    };
    matches!(
        source.downcast_ref::<ApiError>(),
        Some(ApiError::DockerResponseServerError { status_code, .. }) if *status_code == status
    )
}
