//! Images that only a registry has.

use std::net::{Ipv4Addr, TcpListener};
use std::process::Child;

use tempfile::TempDir;

use super::*;

/// A registry on this machine, killed when dropped; what was pulled from it goes, too. Declared
/// before the pool, so that containers of its images are gone by then.
struct Registry {
    child: Child,
    at: SocketAddr,
    _directory: TempDir,
}

impl Registry {
    /// `None`, and that told, where there is none (Debian: docker-registry). With `CI=true` that
    /// is a failure.
    fn start(rest_of_config: &str) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let at = closed_port();
        let path = directory.path().display();
        let config = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    \
             rootdirectory: {path}/images\nhttp:\n  addr: {at}\n{}",
            rest_of_config.replace("DIRECTORY", &path.to_string())
        );
        let file = directory.path().join("config.yml");
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&file).stdin(Stdio::null()).stdout(Stdio::null());
        match command.stderr(Stdio::null()).spawn() {
            Ok(child) => {
                let registry = Self { child, at, _directory: directory };
                wait_for("the registry", || try_request(at, "GET", "/v2/", &[], b"").ok());
                Some(registry)
            }
            Err(error) => {
                let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
                assert!(!ci, "no docker-registry: {error}");
                say(&format!("skipped: no docker-registry: {error}"));
                None
            }
        }
    }

    fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.at)
    }

    /// Gives it an image of its own, which the engine then has not; tells the image's id.
    fn push(&self, name: &str, version: &str) -> String {
        let image = self.image(name);
        let label = format!("LABEL {STRANGER}={version}");
        let build = format!("printf 'FROM {IMAGE}\n{label}\n' | docker build -qt {image} -");
        let built = Command::new("sh").args(["-c", &build]).output().unwrap();
        assert!(built.status.success(), "{built:?}");
        let id = docker(&["image", "inspect", "--format", "{{.Id}}", &image]);
        docker(&["push", &image]);
        docker(&["image", "rm", &image]);
        id
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _ended = self.child.wait();
        // By id: one that a newer took the tag of has none any more.
        let format = ["images", "--format", "{{.ID}} {{.Repository}}"];
        let images = try_docker(&format).unwrap_or_default();
        let own = format!("{}/", self.at);
        for (id, repository) in images.lines().filter_map(|line| line.split_once(' ')) {
            if repository.starts_with(&own) {
                let _gone_already = try_docker(&["image", "rm", "-f", id]);
            }
        }
    }
}

/// An address of this machine at which nobody listens.
fn closed_port() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

/// What `/add` says of one replica more, which must fail and leave nothing.
fn refusal(balancer: &Balancer, pool: &Pool) -> String {
    let (before, containers) = (balancer.replicas(), pool.containers().len());
    let answer = balancer.json("POST", "/add", r#"{"n": 2}"#);
    assert_eq!(answer.status, 500, "{answer:?}");
    assert_eq!(balancer.replicas(), before);
    assert_eq!(pool.containers().len(), containers);
    answer.message()
}

#[test]
fn an_image_that_only_the_registry_has_is_pulled_once_and_runs() {
    let Some(registry) = Registry::start("") else { return };
    let Some(pool) = engine("pulled") else { return };
    let (image, id) = (registry.image("a/server"), registry.push("a/server", "1"));

    let never = pool.start(&["--replicas", "0", "--image", &image, "--pull", "never"]);
    let said = refusal(&never, &pool);
    assert!(said.contains("No such image") && said.contains(&image), "{said}");
    drop(never);

    let began = Instant::now();
    let balancer = pool.balancer(3, &["--image", &image]);
    say(&format!("three replicas of an image to be pulled: {} ms", began.elapsed().as_millis()));
    assert!(pool.containers().iter().all(|container| container["Image"] == id));
    assert_eq!(balancer.events("image pulled").len(), 1);
    assert_eq!(balancer.get("/home").status, 200);
}

#[test]
fn where_it_is_always_pulled_a_rollout_of_the_tag_runs_what_the_registry_has_by_then() {
    let Some(registry) = Registry::start("") else { return };
    let Some(pool) = engine("pulled-always") else { return };
    let first = registry.push("server", "1");
    let image = registry.image("server");
    let rolls = ["--admin-programs", "--roll-monitor", "0s"];
    let balancer =
        pool.balancer(1, &[&["--image", &image, "--pull", "always"], &rolls[..]].concat());
    assert_eq!(pool.containers()[0]["Image"], first);

    let second = registry.push("server", "2");
    assert_ne!(first, second);
    let added = balancer.json("POST", "/add", r#"{"n": 1}"#);
    assert_eq!(added.status, 200, "{added:?}");
    assert!(pool.containers().iter().all(|it| it["Image"] == first), "one release, one image");
    // One that was pulled a moment ago counts.
    wait_for("replicas of the second image", || {
        super::roll::roll(&balancer, &image);
        super::roll::end_of_roll(&balancer, "done");
        pool.settled(&balancer, 2);
        pool.containers().iter().all(|it| it["Image"] == second).then_some(())
    });
}

#[test]
fn what_the_registry_says_is_in_the_answer() {
    let Some(registry) = Registry::start("") else { return };
    let Some(pool) = engine("pull-refused") else { return };
    registry.push("server", "1");
    other_architecture_only(&registry);

    let refused = format!("{}/server", closed_port());
    let absent = registry.image("absent");
    let unknown = registry.image("server:no-such-tag");
    let other = registry.image("server:other");
    for (image, words) in [
        (&refused, "connection refused"),
        (&absent, "not found"),
        (&unknown, "not found"),
        (&other, "no matching manifest"),
    ] {
        let began = Instant::now();
        let balancer = pool.start(&["--replicas", "0", "--image", image]);
        let said = refusal(&balancer, &pool);
        assert!(said.contains(words) && said.contains(image.as_str()), "{words}: {said}");
        assert!(began.elapsed().as_secs() < 20, "{image}: {:?}", began.elapsed());
        say(&format!("{words}: {said}"));
    }
}

#[test]
fn a_registry_that_wants_a_password_is_told_of() {
    let auth = "auth:\n  htpasswd:\n    realm: x\n    path: DIRECTORY/htpasswd\n";
    let Some(registry) = Registry::start(auth) else { return };
    let Some(pool) = engine("pull-unauthorised") else { return };
    let balancer = pool.start(&["--replicas", "0", "--image", &registry.image("server")]);
    let said = refusal(&balancer, &pool);
    assert!(said.contains("no basic auth credentials"), "{said}");
}

#[test]
fn a_registry_that_does_not_answer_is_given_up_in_time() {
    let Some(pool) = engine("pull-late") else { return };
    // Takes connections and says nothing.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let image = format!("{}/server", silent.local_addr().unwrap());
    let balancer = pool.start(&["--replicas", "0", "--image", &image, "--timeout-pull", "500ms"]);
    let began = Instant::now();
    let said = refusal(&balancer, &pool);
    assert!(said.contains("it took longer than 500ms"), "{said}");
    assert!(began.elapsed().as_secs() < 10, "{:?}", began.elapsed());
}

/// Gives the tag `server:other` to an image of which there is none for this machine.
fn other_architecture_only(registry: &Registry) {
    let kind = "application/vnd.docker.distribution.manifest.v2+json";
    let path = "/v2/server/manifests/latest";
    let manifest = request(registry.at, "GET", path, &[("Accept", kind)], b"");
    assert_eq!(manifest.status, 200, "{manifest:?}");
    let one = json!({
        "mediaType": kind,
        "size": manifest.body.len(),
        "digest": manifest.headers["docker-content-digest"],
        "platform": {"architecture": "s390x", "os": "linux"},
    });
    let kind = "application/vnd.docker.distribution.manifest.list.v2+json";
    let list = json!({"schemaVersion": 2, "mediaType": kind, "manifests": [one]}).to_string();
    let (path, typed) = ("/v2/server/manifests/other", [("Content-Type", kind)]);
    let put = request(registry.at, "PUT", path, &typed, list.as_bytes());
    assert_eq!(put.status, 201, "{put:?}");
}
