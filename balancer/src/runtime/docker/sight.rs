//! From the engine's listing, and what its events said, to replicas.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Instant;

use bollard::Docker as Api;
use bollard::models::{
    ContainerSummary, ContainerSummaryHealthStatusEnum, ContainerSummaryStateEnum as State,
};
use bollard::query_parameters::InspectContainerOptions;

use super::call::{CALL_DEADLINE, call, is_status};
use super::labels::Identity;
use super::witness::{Died, Told, Witness, exited, signal_number};
use crate::fleet::change::Death;
use crate::fleet::observed::{Condition, Observed, Trouble};
use crate::fleet::seat::Hostname;

/// A container of the pool's, and its replica.
pub(super) struct Seen {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) paused: bool,
    pub(super) replica: Observed,
}

/// Reads listings.
pub(super) struct Sight {
    api: Api,
    network: String,
    port: u16,
    pub(super) witness: Rc<RefCell<Witness>>,
    /// The container that each hostname was seen at last.
    containers: RefCell<HashMap<Hostname, String>>,
    /// How containers ended that are still listed: each is asked for once.
    deaths: RefCell<HashMap<String, Death>>,
    /// The stop signals of containers that were told a signal.
    stop_signals: RefCell<HashMap<String, i32>>,
}

// === impl Sight ===

impl Sight {
    pub(super) fn new(api: Api, network: String, port: u16) -> Self {
        Self {
            api,
            network,
            port,
            witness: Rc::default(),
            containers: RefCell::default(),
            deaths: RefCell::default(),
            stop_signals: RefCell::default(),
        }
    }

    /// One container of a listing; `None` when it is not a replica's.
    pub(super) async fn see(&self, container: ContainerSummary) -> Option<Seen> {
        let labels = container.labels.as_ref()?;
        let id = container.id.clone()?;
        // Others are its names in linked containers.
        let own = |name: &&String| !name.trim_start_matches('/').contains('/');
        let name = container.names.iter().flatten().find(own).cloned().unwrap_or_default();
        let identity = Identity::read(labels, &name)?;
        // A replica of an earlier release may be on another network and port.
        let spec = identity.release.spec();
        let network = spec.network.as_ref().unwrap_or(&self.network);
        let port = spec.port.unwrap_or(self.port);
        let networks = container.network_settings.as_ref().and_then(|it| it.networks.as_ref());
        let address = networks.and_then(|networks| {
            let text = networks.get(network)?.ip_address.as_ref()?;
            Some(SocketAddr::new(text.parse::<IpAddr>().ok()?, port))
        });
        let condition = self.condition(&id, &container).await;
        let lost = address.is_none() && super::is_up(condition);
        let replica = Observed {
            hostname: identity.hostname,
            place: identity.place,
            address,
            address_error: lost.then(|| format!("no address on network {:?}", self.network).into()),
            weight: 1,
            created: container.created.and_then(|at| at.try_into().ok()).unwrap_or(0),
            release: identity.release,
            condition,
            leaving: identity.leaving,
            seat_stays: identity.seat_stays,
        };
        Some(Seen { id, name, paused: container.state == Some(State::PAUSED), replica })
    }

    /// A replica has this container from now on.
    pub(super) fn note(&self, hostname: &Hostname, id: &str) {
        self.containers.borrow_mut().insert(hostname.clone(), id.to_owned());
    }

    /// Deaths that events just told, of containers that are still those of their replicas.
    pub(super) fn fresh_deaths(&self) -> Vec<(Hostname, Death)> {
        let (mut witness, containers) = (self.witness.borrow_mut(), self.containers.borrow());
        let fresh =
            witness.take_fresh().filter(|(id, hostname, _)| containers.get(hostname) == Some(id));
        fresh.map(|(_, hostname, death)| (hostname, death)).collect()
    }

    /// A whole listing. What was leaving and is not listed any more is there as vanished; of two
    /// containers with one hostname, one that is leaving gives way, then one that has ended.
    pub(super) async fn see_all(&self, containers: Vec<ContainerSummary>) -> Vec<Observed> {
        let mut ids = HashSet::new();
        let mut replicas: BTreeMap<Hostname, Observed> = BTreeMap::new();
        let mut theirs = HashMap::new();
        for container in containers {
            let Some(Seen { id, replica, .. }) = self.see(container).await else { continue };
            ids.insert(id.clone());
            let rank = |it: &Observed| (it.leaving, it.condition.death().is_some(), it.created);
            let before = replicas.get(&replica.hostname);
            if before.is_none_or(|before| rank(&replica) < rank(before)) {
                theirs.insert(replica.hostname.clone(), id);
                replicas.insert(replica.hostname.clone(), replica);
            }
        }
        for (id, replica) in self.witness.borrow().left(Instant::now()) {
            if !ids.contains(id) {
                replicas.entry(replica.hostname.clone()).or_insert(replica);
            }
        }
        self.containers.replace(theirs);
        self.deaths.borrow_mut().retain(|id, _| ids.contains(id));
        self.stop_signals.borrow_mut().retain(|id, _| ids.contains(id));
        replicas.into_values().collect()
    }

    async fn condition(&self, id: &str, container: &ContainerSummary) -> Condition {
        let troubled = match container.state.unwrap_or(State::EMPTY) {
            State::CREATED => return Condition::Made,
            State::EXITED | State::DEAD | State::REMOVING | State::EMPTY => {
                let status = container.status.as_deref().unwrap_or_default();
                return Condition::Dead(self.death(id, status).await);
            }
            State::PAUSED => Some(Trouble::Paused),
            State::STOPPING => Some(Trouble::Stopping),
            State::RUNNING | State::RESTARTING => {
                is_unhealthy(container).then_some(Trouble::Unhealthy)
            }
        };
        self.deaths.borrow_mut().remove(id);
        let (death, told) = {
            let (witness, now) = (self.witness.borrow(), Instant::now());
            (witness.death_of_running(id, now), witness.told(id, now))
        };
        let stopping = match told {
            Some(Told::End) => true,
            Some(Told::Signal(signal)) => self.stop_signal(id).await == Some(signal),
            None => false,
        };
        let troubled = if stopping { Some(Trouble::Stopping) } else { troubled };
        let death = match death {
            Some(died) => self.confirmed(id, died).await,
            None => None,
        };
        match (death, troubled) {
            (Some(death), _) => Condition::Dead(death),
            (None, Some(trouble)) => Condition::Troubled(trouble),
            (None, None) if is_unchecked(container) => Condition::Starting,
            (None, None) => Condition::Running,
        }
    }

    /// The death of a container that is listed as running, as an event told it: the listing lags
    /// behind for a moment. One that runs since then outlived an event that came late, or twice.
    async fn confirmed(&self, id: &str, died: Died) -> Option<Death> {
        let inspected = self.api.inspect_container(id, None::<InspectContainerOptions>);
        match call("inspect a container", CALL_DEADLINE, inspected).await {
            Ok(container) => {
                let state = container.state.unwrap_or_default();
                let started = state.started_at.and_then(|at| humantime::parse_rfc3339(&at).ok());
                let outlived = started.zip(died.at).is_some_and(|(started, died)| died < started);
                let runs = state.running == Some(true);
                (!(runs && outlived)).then_some(died.death)
            }
            // Without an answer the next listing tells.
            gone @ Err(_) => is_status(&gone, 404).then_some(died.death),
        }
    }

    /// How a container ended: as its events told, or as the engine says if asked.
    async fn death(&self, id: &str, status: &str) -> Death {
        let known =
            self.deaths.borrow().get(id).copied().or_else(|| self.witness.borrow().death(id));
        let death = match known {
            Some(death) => death,
            None => {
                let inspected = self.api.inspect_container(id, None::<InspectContainerOptions>);
                let inspected = call("inspect a container", CALL_DEADLINE, inspected).await;
                if is_status(&inspected, 404) {
                    return Death::Vanished;
                }
                let Ok(inspected) = inspected else { return exited(code_in(status)) };
                let state = inspected.state.unwrap_or_default();
                if state.oom_killed == Some(true) {
                    Death::OutOfMemory
                } else {
                    exited(state.exit_code.unwrap_or(0))
                }
            }
        };
        self.deaths.borrow_mut().insert(id.to_owned(), death);
        death
    }

    /// The signal by which a container is stopped.
    async fn stop_signal(&self, id: &str) -> Option<i32> {
        if let Some(known) = self.stop_signals.borrow().get(id) {
            return Some(*known);
        }
        let inspected = self.api.inspect_container(id, None::<InspectContainerOptions>);
        let inspected = call("inspect a container", CALL_DEADLINE, inspected).await.ok()?;
        let configured = inspected.config.and_then(|config| config.stop_signal);
        let signal = signal_number(configured.as_deref().unwrap_or("TERM"))?;
        self.stop_signals.borrow_mut().insert(id.to_owned(), signal);
        Some(signal)
    }
}

/// Whether its own check says so: newer engines have a field for it, all have words.
fn is_unhealthy(container: &ContainerSummary) -> bool {
    let field = container.health.as_ref().and_then(|health| health.status);
    field == Some(ContainerSummaryHealthStatusEnum::UNHEALTHY)
        || container.status.as_deref().is_some_and(|status| status.ends_with("(unhealthy)"))
}

/// Reports whether the health check of its image has neither passed nor failed yet.
fn is_unchecked(container: &ContainerSummary) -> bool {
    let field = container.health.as_ref().and_then(|health| health.status);
    field == Some(ContainerSummaryHealthStatusEnum::STARTING)
        || container.status.as_deref().is_some_and(|status| status.ends_with("(health: starting)"))
}

/// The exit code in the words of a listing, `Exited (137) 5 seconds ago`; 0 where there is none.
fn code_in(status: &str) -> i64 {
    let code = status.split_once('(').and_then(|(_, rest)| rest.split_once(')')?.0.parse().ok());
    code.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_listing_tell_the_exit_code_and_the_health() {
        assert_eq!(code_in("Exited (137) 5 seconds ago"), 137);
        for other in ["", "Created", "Exited (", "Exited (x) now", "(99999999999999999999)"] {
            assert_eq!(code_in(other), 0, "{other}");
        }
        let status = |text: &str| ContainerSummary {
            status: Some(text.to_owned()),
            ..ContainerSummary::default()
        };
        assert!(is_unhealthy(&status("Up 5 seconds (unhealthy)")));
        assert!(!is_unhealthy(&status("Up 5 seconds (healthy)")));
        assert!(!is_unhealthy(&status("Up 5 seconds")));
        assert!(!is_unhealthy(&ContainerSummary::default()));
        assert!(is_unchecked(&status("Up 5 seconds (health: starting)")));
        for other in ["Up 5 seconds (healthy)", "Up 5 seconds (unhealthy)", "Up 5 seconds"] {
            assert!(!is_unchecked(&status(other)), "{other}");
        }
    }
}
