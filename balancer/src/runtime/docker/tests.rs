//! The Docker runtime as a library: on the real engine (`engine`), and on one that says what a test
//! wants (`fake`).

mod engine;
mod fake;

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::*;
use crate::fleet::release::Release;
use crate::fleet::seat::Seat;

const IMAGE: &str = "ring-balancer/server";

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(20);

fn config(pool: &str) -> DockerConfig {
    DockerConfig {
        image: IMAGE.to_owned(),
        pull: PullPolicy::Never,
        pull_deadline: Duration::from_secs(20),
        network: pool.to_owned(),
        port: 5000,
        command: None,
        env: Vec::new(),
        memory: None,
        cpus: None,
        pids: 64,
        pool: Some(pool.to_owned()),
        shared: false,
    }
}

/// Connects to the engine at this address.
async fn connected(at: &str, config: DockerConfig) -> Result<Docker, RuntimeError> {
    let listen = SocketAddr::from(([127, 0, 0, 1], 5000));
    Docker::connect_to(at, config, listen, CALL_DEADLINE).await
}

fn spec(hostname: &str, seat: Option<u32>) -> ReplicaSpec {
    let seat = seat.map(|seat| Seat::new(seat).unwrap());
    let hostname = Hostname::parse(hostname).unwrap();
    ReplicaSpec { hostname, seat, release: Release::default() }
}

/// Runs a test where the runtime runs: on one thread, with its own tasks.
fn run(test: impl Future<Output = ()>) {
    actix_web::rt::System::new().block_on(test);
}

/// Lists until `found` finds something.
async fn until<T>(
    docker: &Docker,
    what: &str,
    mut found: impl FnMut(Vec<Observed>) -> Option<T>,
) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let listing = docker.list().await.unwrap();
        if let Some(found) = found(listing.clone()) {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}: {listing:?}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// A pool of containers on the real engine, removed when dropped.
struct Pool {
    name: String,
}

impl Pool {
    /// `None`, and the reason told, where there is no engine or no image. With `CI=true` that is a
    /// failure.
    fn new(test: &str) -> Option<Self> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        if let Err(reason) = try_docker(&["image", "inspect", "--format", "{{.Id}}", IMAGE]) {
            let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
            assert!(!ci, "no engine, or not the image {IMAGE} (make images): {reason}");
            eprintln!("docker: skipped: {reason}");
            return None;
        }
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Some(Self { name: format!("lib-{}-{count}-{test}", std::process::id()) })
    }

    async fn docker(&self) -> Docker {
        connected(DEFAULT_HOST, config(&self.name)).await.unwrap()
    }

    /// A hostname that nobody else on this engine has.
    fn hostname(&self, name: &str) -> String {
        format!("{} {name}", self.name)
    }

    fn slug(&self, name: &str) -> String {
        format!("{}-{name}", self.name)
    }

    /// Makes a container with these labels besides the pool's; tells its id.
    fn make(&self, name: &str, labels: &[&str], rest: &[&str]) -> String {
        let pool = format!("{POOL}={}", self.name);
        let labels = [pool.as_str()].into_iter().chain(labels.iter().copied());
        let labels: Vec<&str> = labels.flat_map(|label| ["--label", label]).collect();
        let network = ["create", "--name", name, "--network", &self.name];
        docker(&[&network[..], &labels, rest].concat())
    }

    /// The names of its containers, sorted.
    fn names(&self) -> Vec<String> {
        let filter = format!("label={POOL}={}", self.name);
        let names = docker(&["ps", "-a", "--format", "{{.Names}}", "--filter", &filter]);
        let mut names: Vec<String> = names.lines().map(str::to_owned).collect();
        names.sort();
        names
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let filter = format!("label={POOL}={}", self.name);
        let ids = try_docker(&["ps", "-aq", "--filter", &filter]).unwrap_or_default();
        for id in ids.lines() {
            let _gone_already = try_docker(&["rm", "-fv", id]);
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
