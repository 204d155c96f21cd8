//! With no more of the engine's API than the README's proxy lets through.

use std::path::{Path, PathBuf};
use std::process::Child;

use tempfile::TempDir;

use super::*;

const README: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");

/// What the balancer says once when it cannot list.
const UNLISTED: &str = "replicas cannot be listed; the last table stays";

/// HAProxy before the engine's socket, set as the README says; killed when dropped.
struct Proxy {
    child: Child,
    directory: TempDir,
}

impl Proxy {
    /// `None`, and that told, where there is no HAProxy. With `CI=true` that is a failure.
    fn start() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("haproxy.cfg");
        let socket = directory.path().join("docker.sock");
        std::fs::write(&config, of_the_readme(&socket)).unwrap();
        let child = match haproxy(&config) {
            Ok(child) => child,
            Err(error) => {
                let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
                assert!(!ci, "no haproxy: {error}");
                say(&format!("skipped: no haproxy: {error}"));
                return None;
            }
        };
        wait_for("the proxy", || socket.exists().then_some(()));
        Some(Self { child, directory })
    }

    /// Ends it, for `meanwhile`.
    fn gone(&mut self, meanwhile: impl FnOnce()) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        meanwhile();
        self.child = haproxy(&self.directory.path().join("haproxy.cfg")).unwrap();
    }

    fn host(&self) -> String {
        format!("unix://{}", self.directory.path().join("docker.sock").display())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _ended = self.child.wait();
    }
}

fn haproxy(config: &Path) -> std::io::Result<Child> {
    // Debian has it where only root's PATH looks.
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin";
    let mut command = Command::new("haproxy");
    command.args(["-db", "-f"]).arg(config).env("PATH", path);
    command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()
}

/// The README's configuration, with another socket for those who come.
fn of_the_readme(socket: &Path) -> String {
    let text = std::fs::read_to_string(PathBuf::from(README)).unwrap();
    let (_, rest) = text.split_once("```haproxy\n").unwrap();
    let (config, _) = rest.split_once("```").unwrap();
    let given = "/run/balancer/docker.sock";
    assert!(config.contains(given), "{config}");
    config.replace(given, socket.to_str().unwrap())
}

#[test]
fn a_fleet_behind_a_socket_proxy_that_denies_all_else() {
    let Some(pool) = engine("proxied") else { return };
    let Some(proxy) = Proxy::start() else { return };
    let host = proxy.host();
    for denied in ["images", "info", "volume prune -f", "pull debian", "exec x sh"] {
        let words: Vec<&str> = ["-H", &host].into_iter().chain(denied.split(' ')).collect();
        let refused = try_docker(&words).unwrap_err();
        assert!(!refused.contains("annot connect"), "{denied}: {refused}");
    }

    let arguments = [&pool.arguments()[..], &["--replicas", "3"]].concat();
    let mut balancer = Balancer::start_with(&arguments, &[("DOCKER_HOST", &host)]);
    let before = balancer.wait_for_replicas(3);
    let victim = pool.find(&before[1]).unwrap();
    docker(&["kill", id_of(&victim)]);
    wait_for("the dead replica to leave /rep", || {
        (!balancer.replicas().contains(&before[1])).then_some(())
    });
    balancer.wait_for_replicas(3);
    wait_for("three containers, all running", || {
        let containers = pool.containers();
        (containers.len() == 3 && containers.iter().all(runs)).then_some(())
    });

    let added = balancer.json("POST", "/add", r#"{"n": 2}"#);
    assert_eq!(added.status, 200, "{added:?}");
    assert_eq!(pool.ids().into_keys().collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    let removed = balancer.json("DELETE", "/rm", r#"{"n": 3}"#);
    assert_eq!(removed.status, 200, "{removed:?}");
    assert_eq!(pool.containers().len(), 2);
    assert_eq!(balancer.get("/home").status, 200);

    balancer.signal(Signal::TERM);
    assert_eq!(balancer.wait().code(), Some(0));
    assert_eq!(pool.containers(), Vec::<Value>::new());
    assert!(!pool.has_network(), "its network was left");
}

#[test]
fn an_engine_that_is_gone_for_a_while_changes_nothing_and_its_dead_are_replaced_after() {
    let Some(pool) = engine("proxy-lost") else { return };
    let Some(mut proxy) = Proxy::start() else { return };
    let arguments = [&pool.arguments()[..], &["--replicas", "2"]].concat();
    let balancer = Balancer::start_with(&arguments, &[("DOCKER_HOST", &proxy.host())]);
    let before = balancer.wait_for_replicas(2);
    let victim = pool.find(&before[0]).unwrap();

    proxy.gone(|| {
        wait_for("the news of it", || balancer.events(UNLISTED).pop());
        docker(&["kill", id_of(&victim)]);
        for _ in 0..20 {
            assert_eq!(balancer.get("/home").status, 200);
        }
        assert_eq!(pool.containers().len(), 2, "something was started or removed");
    });
    let began = Instant::now();
    wait_for("the dead replica to be replaced", || {
        let replicas = balancer.replicas();
        (replicas.len() == 2 && !replicas.contains(&before[0])).then_some(())
    });
    say(&format!("engine back: the dead replaced after {} ms", began.elapsed().as_millis()));
    assert!(balancer.replicas().contains(&before[1]));
    assert_eq!(balancer.events(UNLISTED).len(), 1, "it was said again and again");
}
