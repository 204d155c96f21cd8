//! Engines that restart: one of the tests' own, beside the one that is there.

use std::process::Child;

use tempfile::TempDir;

use super::look::{fleet, kill_9};
use super::*;
use crate::support::kill;

/// What the balancer says once when it cannot list, and when it can again.
const UNLISTED: &str = "replicas cannot be listed; the last table stays";
const LISTED: &str = "replicas can be listed again";

/// An engine with nothing of the other's: directories, socket, containerd, addresses. It makes no
/// rules for packets, which both would share. Gone, and all that it ran, when dropped.
struct Engine {
    daemon: Option<Child>,
    directory: TempDir,
    /// Containers live on while it does not.
    live: bool,
}

impl Engine {
    /// `None`, and that told, where none can be started.
    fn start(live: bool) -> Option<Self> {
        let found = Command::new("dockerd").arg("--version").output();
        if found.is_err() || !rustix::process::geteuid().is_root() {
            let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
            assert!(!ci, "an engine of the tests' own needs root, and dockerd");
            say("skipped: an engine of the tests' own needs root, and dockerd");
            return None;
        }
        // Not "none", and no address pool: an engine with these removes the bridge of the others.
        let bridge = bridge();
        ip(&["link", "add", &bridge, "type", "bridge"]);
        ip(&["addr", "add", "10.232.0.1/24", "dev", &bridge]);
        ip(&["link", "set", &bridge, "up"]);
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("daemon.json"), "{}").unwrap();
        let mut engine = Self { daemon: None, directory, live };
        engine.up();
        let copy = format!("docker save {IMAGE} | docker -H {} load", engine.host());
        let copied = Command::new("sh").args(["-c", &copy]).output().unwrap();
        assert!(copied.status.success(), "{copied:?}");
        Some(engine)
    }

    fn host(&self) -> String {
        format!("unix://{}", self.directory.path().join("sock").display())
    }

    fn up(&mut self) {
        self.launch();
        wait_for("the second engine", || self.try_docker(&["ps"]).ok());
    }

    fn launch(&mut self) {
        let path = |name: &str| self.directory.path().join(name);
        let log = std::fs::File::create(path("log")).unwrap();
        let mut command = Command::new("dockerd");
        command.arg("--config-file").arg(path("daemon.json"));
        command.arg("--data-root").arg(path("data")).arg("--exec-root").arg(path("exec"));
        command.arg("--pidfile").arg(path("pid")).args(["--host", &self.host()]);
        command.args(["--bridge", &bridge(), "--iptables=false", "--ip6tables=false"]);
        command.args(self.live.then_some("--live-restore"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.daemon = command.spawn().ok();
    }

    /// Stops it, as a restart of its service does first.
    fn down(&mut self) {
        let Some(mut daemon) = self.daemon.take() else { return };
        kill(daemon.id(), Signal::TERM);
        wait_for("the end of the second engine", || daemon.try_wait().unwrap());
    }

    fn try_docker(&self, arguments: &[&str]) -> Result<String, String> {
        try_docker(&[&["-H", &self.host()], arguments].concat())
    }

    /// What runs, by id.
    fn running(&self) -> BTreeSet<String> {
        let ids = self.try_docker(&["ps", "-q", "--no-trunc"]).unwrap();
        ids.lines().map(str::to_owned).collect()
    }

    /// Waits until three run, and there are no remains of others.
    fn wait_for_three(&self) {
        wait_for("three containers and no remains", || {
            (self.running().len() == 3 && self.count() == 3).then_some(())
        });
    }

    /// How many containers there are, dead ones included.
    fn count(&self) -> usize {
        self.try_docker(&["ps", "-aq"]).unwrap().lines().count()
    }
}

/// The name of its bridge: at most 15 characters.
fn bridge() -> String {
    format!("rbt{}", std::process::id())
}

fn ip(arguments: &[&str]) {
    let done = Command::new("ip").args(arguments).output();
    if !done.as_ref().is_ok_and(|done| done.status.success()) {
        say(&format!("ip {arguments:?}: {done:?}"));
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if self.daemon.is_none() {
            // A test failed in between: what ran on must be ended.
            self.launch();
            let host = self.host();
            let looks = "for i in $(seq 100); do docker -H $0 ps && break; sleep 0.1; done";
            let _waited = Command::new("sh").args(["-c", looks, &host]).output();
        }
        for id in self.try_docker(&["ps", "-aq"]).unwrap_or_default().lines() {
            let _gone_already = self.try_docker(&["rm", "-fv", id]);
        }
        let _nothing_to_prune = self.try_docker(&["network", "prune", "-f"]);
        if let Some(mut daemon) = self.daemon.take() {
            kill(daemon.id(), Signal::TERM);
            let _ended = daemon.wait();
        }
        ip(&["link", "delete", &bridge()]);
        // It mounts this over itself, and leaves it so.
        let data = self.directory.path().join("data");
        let _not_mounted = Command::new("umount").arg("-l").arg(data).output();
    }
}

#[test]
fn containers_that_outlive_their_engines_restart_serve_on_and_none_is_replaced() {
    let Some(pool) = engine("live-restore") else { return };
    let Some(mut engine) = Engine::start(true) else { return };
    let arguments = [&pool.arguments()[..], &["--replicas", "3"]].concat();
    let balancer = Balancer::start_with(&arguments, &[("DOCKER_HOST", &engine.host())]);
    let replicas = balancer.wait_for_replicas(3);
    let (ids, before) = (engine.running(), owners(&balancer));
    assert_eq!(ids.len(), 3);

    let load = Load::start(balancer.address);
    engine.down();
    wait_for("the news of it", || balancer.events(UNLISTED).pop());
    let refused = balancer.json("POST", "/add", r#"{"n": 1}"#);
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.headers.contains_key("retry-after"), "{refused:?}");
    assert_eq!(balancer.replicas(), replicas);
    engine.up();
    wait_for("a good listing", || balancer.events(LISTED).pop());
    // Events are heard again, too.
    let victim = ids.first().unwrap();
    assert_eq!(engine.running(), ids, "something was replaced");
    assert_eq!(balancer.replicas(), replicas);
    engine.try_docker(&["kill", victim]).unwrap();
    wait_for("the dead one to be replaced", || {
        let running = engine.running();
        (running.len() == 3 && !running.contains(victim) && balancer.replicas().len() == 3)
            .then_some(())
    });
    let requests = load.end();
    say(&format!("restart of an engine, containers live on: {requests} requests, none failed"));
    assert_eq!(engine.running().intersection(&ids).count(), 2);
    wait_for("every key where it was", || (owners(&balancer) == before).then_some(()));
}

#[test]
fn containers_that_die_with_their_engine_are_restored_without_doubles() {
    let Some(pool) = engine("restarted-engine") else { return };
    let Some(mut engine) = Engine::start(false) else { return };
    let probes = ["--health-interval", "300ms", "--health-timeout", "300ms"];
    let arguments = [&pool.arguments()[..], &["--replicas", "3"], &probes].concat();
    let balancer = Balancer::start_with(&arguments, &[("DOCKER_HOST", &engine.host())]);
    balancer.wait_for_replicas(3);
    let (ids, before) = (engine.running(), owners(&balancer));

    engine.down();
    // The engine tells of no death when it ends; probes find them.
    wait_for("all to be missed", || {
        let fleet = fleet(&balancer);
        let out = |it: &Value| it["state"] == "ejected" || it["state"] == "dead";
        fleet["replicas"].as_array().unwrap().iter().all(out).then_some(())
    });
    let answer = balancer.get("/home");
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
    let began = Instant::now();
    engine.up();
    let up = began.elapsed();
    wait_for("a fleet that is ready", || {
        let fleet = fleet(&balancer);
        (fleet["ready"] == 3 && fleet["panic"] == false).then_some(())
    });
    let restored = began.elapsed();
    engine.wait_for_three();
    assert_eq!(engine.running().intersection(&ids).count(), 0);
    assert_eq!(owners(&balancer), before, "a key moved");
    say(&format!(
        "restart of an engine, containers die: it is up after {} ms, three serve after {} ms",
        up.as_millis(),
        restored.as_millis()
    ));

    // And so where the balancer is gone meanwhile.
    kill_9(balancer);
    engine.down();
    engine.up();
    assert_eq!((engine.running().len(), engine.count()), (0, 3));
    let next = Balancer::start_with(&arguments, &[("DOCKER_HOST", &engine.host())]);
    next.wait_for_replicas(3);
    engine.wait_for_three();
    wait_for("every key where it was", || (owners(&next) == before).then_some(()));
}
