//! The Docker runtime on the real engine, one test at a time: names of containers are the engine's,
//! not the pool's. Each test has a pool and a network of its own, and cleans up by label.

mod heal;
mod leaving;
mod look;
mod pair;
mod proxy;
mod pull;
mod restart;
mod roll;
mod rollout;
mod spares;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Balancer, request, try_request, wait_for};

const IMAGE: &str = "ring-balancer/server";

/// The label of what the tests make beside the balancer's own.
const STRANGER: &str = "balancer-test.stranger";

static TURN: Mutex<()> = Mutex::new(());

#[test]
fn containers_are_confined_labelled_and_all_take_requests() {
    let Some(pool) = engine("confined") else { return };
    let limits = ["--memory", "64MiB", "--cpus", "0.5", "--pids", "64", "--env", "COLOUR=blue"];
    let balancer = pool.balancer(3, &limits);

    let containers = pool.containers();
    assert_eq!(containers.len(), 3);
    let listed = BTreeSet::from_iter(balancer.replicas());
    let labelled = containers.iter().map(hostname_of).collect::<BTreeSet<_>>();
    assert_eq!(labelled, listed);
    assert_eq!(containers.iter().map(seat_of).collect::<BTreeSet<_>>(), BTreeSet::from([1, 2, 3]));
    for container in &containers {
        let slug = hostname_of(container).to_lowercase();
        assert_eq!(container["Name"], format!("/{slug}"));
        assert_eq!(container["Config"]["Hostname"], slug);
        let env = container["Config"]["Env"].as_array().unwrap();
        assert!(env.contains(&json!(format!("SERVER_ID={}", seat_of(container)))), "{env:?}");
        assert!(env.contains(&json!("COLOUR=blue")), "{env:?}");

        let host = &container["HostConfig"];
        assert_eq!(host["CapDrop"], json!(["ALL"]));
        assert_eq!(host["SecurityOpt"], json!(["no-new-privileges"]));
        assert_eq!(host["Privileged"], false);
        assert_eq!(host["PidsLimit"], 64);
        assert_eq!(host["Memory"], 64 << 20);
        assert_eq!(host["NanoCpus"], 500_000_000);
        assert_eq!(host["RestartPolicy"]["Name"], "no");
        assert_eq!(container["Mounts"], json!([]));

        let network = &container["NetworkSettings"];
        assert_eq!(
            network["Networks"].as_object().unwrap().keys().collect::<Vec<_>>(),
            [&pool.name]
        );
        let ports = network["Ports"].as_object().unwrap();
        assert!(ports.values().all(Value::is_null), "published: {ports:?}");
    }

    let greeted: BTreeSet<String> = owners(&balancer).into_values().collect();
    let expected = [1, 2, 3].map(|seat| format!("Hello from Server: {seat}"));
    assert_eq!(greeted, BTreeSet::from(expected));
}

#[test]
fn the_example_starts_its_containers_and_removes_them() {
    let Some(pool) = engine("example") else { return };
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/docker.toml");
    let mut balancer = pool.start(&["--config", file]);
    balancer.wait_for_replicas(3);
    assert_eq!(balancer.get("/home").status, 200);
    for container in pool.containers() {
        assert_eq!(container["HostConfig"]["Memory"], 64 << 20);
        let env = container["Config"]["Env"].as_array().unwrap();
        assert!(env.contains(&json!("SERVER_LATENCY=5ms")), "{env:?}");
    }
    balancer.signal(Signal::TERM);
    assert_eq!(balancer.wait().code(), Some(0));
    assert!(pool.containers().is_empty());
}

#[test]
fn without_limits_only_the_number_of_processes_is_bounded() {
    let Some(pool) = engine("unlimited") else { return };
    let _balancer = pool.balancer(1, &[]);

    let host = pool.containers().remove(0)["HostConfig"].clone();
    assert_eq!(host["PidsLimit"], 512);
    assert_eq!(host["Memory"], 0);
    assert_eq!(host["NanoCpus"], 0);
}

#[test]
fn a_name_with_a_space_is_listed_as_given_and_slugged_for_the_engine() {
    let Some(pool) = engine("named") else { return };
    let balancer = pool.balancer(1, &[]);
    let first = balancer.replicas();
    // With the process in it: two runs of the tests may share an engine.
    let hostname = format!("Server 4 of {}", std::process::id());
    let slug = format!("/server-4-of-{}", std::process::id());
    let body = json!({"n": 1, "hostnames": [hostname]}).to_string();

    let added = balancer.json("POST", "/add", &body);
    assert_eq!(added.status, 200, "{added:?}");
    let both = [first[0].clone(), hostname.clone()];
    assert_eq!(added.json()["message"], json!({"N": 2, "replicas": both}));
    assert_eq!(balancer.replicas(), both);
    let container = pool.find(&hostname).unwrap();
    assert_eq!(container["Name"], slug);
    assert_eq!(seat_of(&container), 2);

    let twin = json!({"n": 1, "hostnames": [&slug[1..]]}).to_string();
    let refused = balancer.json("POST", "/add", &twin);
    assert_eq!(refused.status, 400, "{refused:?}");
    assert!(refused.message().contains(&slug[1..]), "{refused:?}");

    let removed = balancer.json("DELETE", "/rm", &body);
    assert_eq!(removed.status, 200, "{removed:?}");
    assert_eq!(removed.json()["message"], json!({"N": 1, "replicas": first}));
    let left: Vec<String> = pool.containers().iter().map(hostname_of).collect();
    assert_eq!(left, first);
}

#[test]
fn a_killed_container_is_replaced_on_its_seat_and_no_request_fails() {
    let Some(pool) = engine("killed") else { return };
    replaces_the_dead(&pool, &["kill"]);
}

#[test]
fn a_container_removed_by_force_is_replaced_on_its_seat_and_no_request_fails() {
    let Some(pool) = engine("removed") else { return };
    replaces_the_dead(&pool, &["rm", "-f"]);
}

#[test]
fn a_container_that_an_operator_stops_is_replaced_on_its_seat_and_no_request_fails() {
    let Some(pool) = engine("stopped") else { return };
    replaces_the_dead(&pool, &["stop"]);
}

#[test]
fn a_container_that_an_operator_restarts_leaves_three_and_no_request_fails() {
    let Some(pool) = engine("restarted") else { return };
    let balancer = pool.balancer(3, &[]);
    let load = Load::start(balancer.address);
    let victim = pool.containers().remove(0);

    docker(&["restart", id_of(&victim)]);
    wait_for("the seats to be filled by running containers", || {
        let seats = pool.containers().iter().filter(|it| runs(it)).map(seat_of).collect::<Vec<_>>();
        let filled = seats.len() == 3 && BTreeSet::from_iter(seats) == BTreeSet::from([1, 2, 3]);
        (filled && pool.containers().len() == 3 && balancer.replicas().len() == 3).then_some(())
    });
    wait_for("all seats to answer", || {
        let greeted: BTreeSet<String> = owners(&balancer).into_values().collect();
        (greeted.len() == 3).then_some(())
    });
    load.end();
}

#[test]
fn containers_outlive_a_killed_balancer_and_the_next_adopts_them_on_their_seats() {
    let Some(pool) = engine("adopted") else { return };
    let mut balancer = pool.balancer(3, &[]);
    let (ids, before) = (pool.ids(), owners(&balancer));
    let replicas = BTreeSet::from_iter(balancer.replicas());
    let began = unix_time();

    balancer.signal(Signal::KILL);
    balancer.wait();
    assert_eq!(pool.ids(), ids);
    assert!(pool.containers().iter().all(runs));

    let next = pool.start(&["--replicas", "3"]);
    assert_eq!(BTreeSet::from_iter(next.wait_for_replicas(3)), replicas);
    wait_for("all replicas to be ready", || {
        (owners(&next).values().collect::<BTreeSet<_>>().len() == 3).then_some(())
    });
    assert_eq!(owners(&next), before, "a key went elsewhere");
    assert_eq!(pool.ids(), ids);
    assert_eq!(pool.events("create", began), "", "something was started");
    assert_eq!(pool.events("die", began), "", "something was stopped");
}

#[test]
fn what_a_killed_balancer_left_half_made_is_finished_on_its_seat() {
    let Some(pool) = engine("half-made") else { return };
    let hostname = format!("Half {}", std::process::id());
    let slug = format!("half-{}", std::process::id());
    docker(&["network", "create", "--label", &pool.label(), &pool.name]);
    let labels =
        [pool.label(), "balancer.seat=2".to_owned(), format!("balancer.hostname={hostname}")];
    let labels: Vec<&str> = labels.iter().flat_map(|label| ["--label", label]).collect();
    let made = ["create", "--name", &slug, "--network", &pool.name];
    let half = docker(&[&made[..], &labels, &[IMAGE]].concat());

    let balancer = pool.start(&["--replicas", "1"]);
    wait_for("only running containers", || {
        let containers = pool.containers();
        let settled = !containers.is_empty() && containers.iter().all(runs);
        (settled && containers.len() == balancer.replicas().len()).then_some(())
    });
    assert_eq!(balancer.replicas(), [hostname], "nothing is started beside it");
    assert!(pool.ids().values().any(|id| *id == half), "{:?}", pool.ids());
    assert_eq!(balancer.get("/home").status, 200);
}

#[test]
fn a_clean_stop_removes_the_containers_and_the_network_that_it_made() {
    let Some(pool) = engine("clean") else { return };
    let mut balancer = pool.balancer(3, &[]);
    assert!(pool.has_network());

    let began = Instant::now();
    balancer.signal(Signal::TERM);
    let ended = balancer.wait();
    say(&format!(
        "SIGTERM to the end, three containers removed: {} ms",
        began.elapsed().as_millis()
    ));
    assert_eq!(ended.code(), Some(0));
    assert_eq!(pool.containers(), Vec::<Value>::new());
    assert!(!pool.has_network(), "its network was left");
}

#[test]
fn a_clean_stop_leaves_a_network_that_somebody_else_made() {
    let Some(pool) = engine("given-network") else { return };
    docker(&["network", "create", &pool.name]);
    let mut balancer = pool.balancer(1, &[]);

    balancer.signal(Signal::TERM);
    assert_eq!(balancer.wait().code(), Some(0));
    assert_eq!(pool.containers(), Vec::<Value>::new());
    assert!(pool.has_network(), "somebody else's network was removed");
}

#[test]
fn containers_that_are_to_be_kept_outlive_a_clean_stop() {
    let Some(pool) = engine("kept") else { return };
    let mut balancer = pool.balancer(2, &["--keep-replicas"]);
    let ids = pool.ids();

    balancer.signal(Signal::TERM);
    assert_eq!(balancer.wait().code(), Some(0));
    assert_eq!(pool.ids(), ids);
    assert!(pool.containers().iter().all(runs));
}

#[test]
fn an_image_that_is_missing_is_told_in_the_engines_words_and_leaves_nothing() {
    let Some(pool) = engine("no-image") else { return };
    let image = "ring-balancer/no-such-image";
    let balancer = pool.start(&["--replicas", "0", "--image", image, "--pull", "never"]);

    for n in [1, 3] {
        let answer = balancer.json("POST", "/add", &json!({"n": n}).to_string());
        assert_eq!(answer.status, 500, "{answer:?}");
        let message = answer.message();
        assert!(message.starts_with("<Error> "), "{message}");
        assert!(message.contains("No such image") && message.contains(image), "{message}");
        assert_eq!(balancer.replicas(), Vec::<String>::new());
        assert_eq!(pool.containers(), Vec::<Value>::new());
    }
}

#[test]
fn a_name_that_a_strangers_container_has_is_refused_and_the_stranger_left_alone() {
    let Some(pool) = engine("stranger") else { return };
    let balancer = pool.balancer(1, &[]);
    let (ids, replicas) = (pool.ids(), balancer.replicas());
    let hostname = format!("{}-guest", pool.name);
    let stranger = pool.stranger(&hostname).unwrap();
    let before = inspect(&[&stranger]);

    let other = format!("{}-other", pool.name);
    let body = json!({"n": 2, "hostnames": [other, hostname]}).to_string();
    let answer = balancer.json("POST", "/add", &body);
    assert_eq!(answer.status, 400, "{answer:?}");
    assert!(answer.message().starts_with("<Error> "), "{answer:?}");
    assert!(answer.message().contains(&hostname), "{answer:?}");
    assert_eq!(pool.ids(), ids, "something of the failed call was left");
    assert_eq!(balancer.replicas(), replicas);

    let body = json!({"n": 1, "hostnames": [hostname]}).to_string();
    assert_eq!(balancer.json("DELETE", "/rm", &body).status, 400);
    assert_eq!(inspect(&[&stranger]), before, "the stranger was touched");
}

#[test]
fn a_first_fleet_whose_names_are_taken_gets_others_and_the_stranger_is_left_alone() {
    let Some(pool) = engine("first-names") else { return };
    // Where somebody on this engine has the name already, that is as good.
    let stranger = pool.stranger("s1");
    let before = stranger.as_deref().map(|stranger| inspect(&[stranger]));

    let balancer = pool.balancer(2, &[]);
    assert_eq!(pool.ids().into_keys().collect::<Vec<_>>(), [1, 2]);
    if stranger.is_some() {
        assert!(!balancer.replicas().contains(&"S1".to_owned()));
    }
    assert_eq!(stranger.as_deref().map(|stranger| inspect(&[stranger])), before);
}

#[test]
fn an_engine_that_cannot_be_reached_is_named_and_ends_the_balancer() {
    let socket = "unix:///nonexistent.sock";
    let mut child = Command::new(env!("CARGO_BIN_EXE_balancer"))
        .args(["--listen", "127.0.0.1:0", "--runtime", "docker", "--engine-wait", "0s"])
        .env_clear()
        .env("DOCKER_HOST", socket)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let killed_late = Instant::now();
    let ended = wait_for("the end of the balancer", || {
        let ended = child.try_wait().unwrap();
        if ended.is_none() && killed_late.elapsed().as_secs() > 20 {
            child.kill().unwrap();
        }
        ended
    });
    let said = std::io::read_to_string(child.stderr.take().unwrap()).unwrap();
    assert_eq!(ended.code(), Some(1), "{said}");
    assert!(said.contains("cannot reach the container engine"), "{said}");
    assert!(said.contains("/nonexistent.sock"), "{said}");
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn a_paused_container_leaves_rotation_and_is_back_when_it_wakes() {
    let Some(pool) = engine("paused") else { return };
    let probes = ["--health-interval", "200ms", "--health-timeout", "200ms", "--health-fall", "2"];
    let short = ["--timeout-first-byte", "500ms"];
    let balancer = pool.balancer(3, &[&probes[..], &short].concat());
    let (ids, before) = (pool.ids(), owners(&balancer));
    let (key, greeting) = before.first_key_value().unwrap();
    let seat: u32 = greeting.rsplit(' ').next().unwrap().parse().unwrap();

    let began = Instant::now();
    docker(&["pause", &ids[&seat]]);
    wait_for("the paused container's keys to go elsewhere", || {
        greeting_for(&balancer, key).filter(|other| other != greeting)
    });
    say(&format!("a paused container is out after {} ms", began.elapsed().as_millis()));
    let meanwhile = owners(&balancer);
    assert!(meanwhile.values().all(|other| other != greeting), "a request went to it");
    let elsewhere = before.iter().filter(|(_, owner)| *owner != greeting);
    for (key, owner) in elsewhere {
        assert_eq!(meanwhile[key], *owner, "the key of a healthy replica moved");
    }

    let began = Instant::now();
    docker(&["unpause", &ids[&seat]]);
    wait_for("the container to be back", || {
        greeting_for(&balancer, key).filter(|owner| owner == greeting)
    });
    say(&format!("an unpaused container is back after {} ms", began.elapsed().as_millis()));
    assert_eq!(owners(&balancer), before);
    assert_eq!(pool.ids(), ids, "it was replaced, though it lived");
}

#[test]
fn a_container_cut_from_the_network_is_back_when_it_is_healed() {
    let Some(pool) = engine("cut") else { return };
    let balancer = pool.balancer(2, &["--health-interval", "200ms", "--timeout-first-byte", "1s"]);
    let (ids, replicas) = (pool.ids(), balancer.replicas());

    docker(&["network", "disconnect", &pool.name, &ids[&1]]);
    balancer.wait_for_replicas(1);
    docker(&["network", "connect", &pool.name, &ids[&1]]);
    balancer.wait_for_replicas(2);
    assert_eq!(BTreeSet::from_iter(balancer.replicas()), BTreeSet::from_iter(replicas));
    assert_eq!(pool.ids(), ids, "it was replaced, though it lived");
    wait_for("both to answer", || {
        (owners(&balancer).values().collect::<BTreeSet<_>>().len() == 2).then_some(())
    });
}

/// Ends one of three containers by `order`, under load, and waits until it is replaced.
fn replaces_the_dead(pool: &Pool, order: &[&str]) {
    let balancer = pool.balancer(3, &[]);
    let before = balancer.replicas();
    let load = Load::start(balancer.address);
    let victim = pool.find(&before[1]).unwrap();
    let (seat, id) = (seat_of(&victim), id_of(&victim).to_owned());

    let began = Instant::now();
    let order: Vec<String> = order.iter().map(|word| (*word).to_owned()).chain([id]).collect();
    let ending = thread::spawn({
        let order = order.clone();
        move || {
            docker(&order.iter().map(String::as_str).collect::<Vec<_>>());
            began.elapsed()
        }
    });
    wait_for("the dead replica to leave /rep", || {
        (!balancer.replicas().contains(&before[1])).then_some(())
    });
    let gone = began.elapsed();
    let after = balancer.wait_for_replicas(3);
    let replaced = began.elapsed();
    let ended = ending.join().unwrap();
    assert_eq!(after[..2], [before[0].clone(), before[2].clone()], "order of joining");
    let replacement = pool.find(&after[2]).unwrap();
    assert_eq!(seat_of(&replacement), seat);
    assert!(!before.contains(&after[2]), "{before:?} {after:?}");

    wait_for("three containers, all running", || {
        let containers = pool.containers();
        (containers.len() == 3 && containers.iter().all(runs)).then_some(())
    });
    let greeted: BTreeSet<String> = owners(&balancer).into_values().collect();
    assert_eq!(greeted.len(), 3, "{greeted:?}");
    let requests = load.end();
    say(&format!(
        "docker {}: {} ms for the command; from its start, out of /rep after {} ms, replaced after \
         {} ms; {requests} requests, none failed",
        order[..order.len() - 1].join(" "),
        ended.as_millis(),
        gone.as_millis(),
        replaced.as_millis(),
    ));
}

/// Many keys, and what greets each.
fn owners(balancer: &Balancer) -> BTreeMap<String, String> {
    let greeted = |key: u32| {
        let key = format!("key-{key}");
        let greeting = greeting_for(balancer, &key);
        (key.clone(), greeting.unwrap_or_else(|| panic!("no good answer for {key}")))
    };
    (0..60).map(greeted).collect()
}

/// What greets a key; `None` when the answer is not good.
fn greeting_for(balancer: &Balancer, key: &str) -> Option<String> {
    let answer = request(balancer.address, "GET", "/home", &[("X-Request-Id", key)], b"");
    (answer.status == 200).then(|| answer.message())
}

/// Clients that ask for /home without a pause; they end when dropped.
struct Load {
    stop: Arc<AtomicBool>,
    good: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    fn start(address: SocketAddr) -> Self {
        let (stop, good) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let clients = (0..4).map(|_| {
            let (stop, good) = (Arc::clone(&stop), Arc::clone(&good));
            thread::spawn(move || {
                let mut failures = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    match try_request(address, "GET", "/home", &[], b"") {
                        Ok(answer) if answer.status == 200 => {
                            good.fetch_add(1, Ordering::Relaxed);
                        }
                        other => failures.push(format!("{other:?}")),
                    }
                }
                failures
            })
        });
        let load = Self { clients: clients.collect(), stop, good };
        wait_for("the first answers", || (load.good.load(Ordering::Relaxed) >= 20).then_some(()));
        load
    }

    /// Ends it; tells how many requests there were. None may have failed.
    fn end(mut self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        let clients = std::mem::take(&mut self.clients);
        let failures: Vec<String> =
            clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
        let good = self.good.load(Ordering::Relaxed);
        let first = failures.first();
        assert!(failures.is_empty(), "{} of {good} failed, first: {first:?}", failures.len());
        good
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// A pool and a network of one name, and the turn of the test that has them. Declared before the
/// balancer, so that it is cleaned when the balancer has ended.
struct Pool {
    name: String,
    _turn: MutexGuard<'static, ()>,
}

/// A pool on the engine; `None`, and the reason told, where there is no engine or no image. With
/// `CI=true` that is a failure.
fn engine(name: &str) -> Option<Pool> {
    let version = try_docker(&["version", "--format", "{{.Server.Version}}"]);
    let image = ["image", "inspect", "--format", "{{.Id}}", IMAGE];
    if let Err(reason) = version.and_then(|_| try_docker(&image)) {
        let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
        assert!(!ci, "no engine, or not the image {IMAGE} (make images): {reason}");
        say(&format!("skipped: {reason}"));
        return None;
    }
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let name = format!("test-{}-{name}", std::process::id());
    Some(Pool { name, _turn: turn })
}

impl Pool {
    /// Starts a balancer of this pool.
    fn start(&self, arguments: &[&str]) -> Balancer {
        Balancer::start(&[&self.arguments()[..], arguments].concat())
    }

    /// The same, and waits until it has `n` replicas.
    fn balancer(&self, n: usize, arguments: &[&str]) -> Balancer {
        Balancer::with_replicas(n, &[&self.arguments()[..], arguments].concat())
    }

    fn arguments(&self) -> [&str; 6] {
        ["--runtime", "docker", "--pool", &self.name, "--network", &self.name]
    }

    fn label(&self) -> String {
        format!("balancer.pool={}", self.name)
    }

    /// Its containers, dead ones included, as the engine shows them.
    fn containers(&self) -> Vec<Value> {
        let ids = self.labelled(&self.label());
        inspect(&ids.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn find(&self, hostname: &str) -> Option<Value> {
        self.containers().into_iter().find(|container| hostname_of(container) == hostname)
    }

    /// Its containers by seat.
    fn ids(&self) -> BTreeMap<u32, String> {
        let containers = self.containers();
        let ids: BTreeMap<u32, String> =
            containers.iter().map(|it| (seat_of(it), id_of(it).to_owned())).collect();
        assert_eq!(ids.len(), containers.len(), "two on one seat: {containers:?}");
        ids
    }

    /// The events of its containers since a time, one a line.
    fn events(&self, kind: &str, since: f64) -> String {
        let (since, until) = (format!("{since:.6}"), format!("{:.6}", unix_time()));
        let (label, event) = (format!("label={}", self.label()), format!("event={kind}"));
        let filters = ["--filter", "type=container", "--filter", &label, "--filter", &event];
        docker(&[&["events", "--since", &since, "--until", &until], &filters[..]].concat())
    }

    /// The volumes that are leases of its balancers.
    fn leases(&self) -> Vec<String> {
        let filter = format!("label=balancer.lease={}", self.name);
        let names = try_docker(&["volume", "ls", "-q", "--filter", &filter]).unwrap_or_default();
        names.lines().map(str::to_owned).collect()
    }

    fn has_network(&self) -> bool {
        let networks = docker(&["network", "ls", "--format", "{{.Name}}"]);
        networks.lines().any(|network| network == self.name)
    }

    /// Makes a container without the pool's label; `None` when its name is taken.
    fn stranger(&self, name: &str) -> Option<String> {
        let label = format!("{STRANGER}={}", self.name);
        try_docker(&["create", "--name", name, "--label", &label, IMAGE]).ok()
    }

    fn labelled(&self, label: &str) -> Vec<String> {
        let filter = format!("label={label}");
        let ids = docker(&["ps", "-aq", "--no-trunc", "--filter", &filter]);
        ids.lines().map(str::to_owned).collect()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for label in [self.label(), format!("{STRANGER}={}", self.name)] {
            let filter = format!("label={label}");
            let ids = try_docker(&["ps", "-aq", "--filter", &filter]).unwrap_or_default();
            for id in ids.lines() {
                let _gone_already = try_docker(&["rm", "-fv", id]);
            }
        }
        for lease in self.leases() {
            let _gone_already = try_docker(&["volume", "rm", &lease]);
        }
        let _gone_already = try_docker(&["network", "rm", &self.name]);
    }
}

/// What the engine's client prints.
fn docker(arguments: &[&str]) -> String {
    try_docker(arguments).unwrap_or_else(|error| panic!("docker {arguments:?}: {error}"))
}

fn try_docker(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("docker").args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("cannot run docker: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// Containers as the engine shows them, without those that are gone.
fn inspect(ids: &[&str]) -> Vec<Value> {
    if ids.is_empty() {
        return Vec::new();
    }
    // It fails for one that went meanwhile, and prints the others all the same.
    let arguments = [&["inspect", "--type", "container"], ids].concat();
    let output = Command::new("docker").args(arguments).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

fn id_of(container: &Value) -> &str {
    container["Id"].as_str().unwrap()
}

fn hostname_of(container: &Value) -> String {
    container["Config"]["Labels"]["balancer.hostname"].as_str().unwrap().to_owned()
}

fn seat_of(container: &Value) -> u32 {
    container["Config"]["Labels"]["balancer.seat"].as_str().unwrap().parse().unwrap()
}

fn runs(container: &Value) -> bool {
    container["State"]["Status"] == "running"
}

fn unix_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

/// Says something even where the output of good tests is kept back.
fn say(line: &str) {
    // A closed stderr is no failure of the test.
    let _said = writeln!(std::io::stderr(), "docker: {line}");
}
