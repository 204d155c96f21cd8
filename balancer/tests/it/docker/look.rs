//! What a test sees of a pool and its balancers, and what it makes for them.

use std::time::Duration;

use super::*;

/// An image of this test's own, gone when dropped.
pub(super) struct Image {
    pub(super) name: String,
}

/// A pool, and an image for it. Let the image be bound first: it goes when its containers have gone.
pub(super) fn engine_with(name: &str, image: impl FnOnce() -> Image) -> Option<(Image, Pool)> {
    let pool = engine(name)?;
    Some((image(), pool))
}

// === impl Image ===

impl Image {
    /// Makes one from the demo replica's, by these lines of a Dockerfile.
    pub(super) fn build(name: &str, lines: &str) -> Self {
        let image = Self::named(name);
        let label = format!("LABEL {STRANGER}={}", std::process::id());
        let mut command = Command::new("docker");
        command.args(["build", "-qt", &image.name, "-"]).stdin(Stdio::piped());
        let mut build = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let text = format!("FROM {IMAGE}\n{label}\n{lines}\n");
        build.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(build.wait().unwrap().success(), "cannot build {text}");
        image
    }

    /// Another name of the demo replica's.
    pub(super) fn tag(name: &str) -> Self {
        let image = Self::named(name);
        docker(&["tag", IMAGE, &image.name]);
        image
    }

    pub(super) fn named(name: &str) -> Self {
        Self { name: format!("balancer-test/{name}:{}", std::process::id()) }
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _gone_already = try_docker(&["image", "rm", "-f", &self.name]);
    }
}

// === impl Pool ===

impl Pool {
    /// Waits until it has `n` containers, all running, none leaving, and `/rep` as many; tells them
    /// by the seats that they have now.
    pub(super) fn settled(&self, balancer: &Balancer, n: usize) -> BTreeMap<u32, String> {
        wait_for(&format!("{n} containers, each on a seat"), || {
            let seats = self.seated()?;
            (seats.len() == n && balancer.replicas().len() == n).then_some(seats)
        })
    }

    /// Its containers by the seats that they have now; `None` unless all run, each has a seat of
    /// its own, and none is leaving.
    pub(super) fn seated(&self) -> Option<BTreeMap<u32, String>> {
        let containers = self.containers();
        let good = |it: &Value| runs(it) && !name_of(it).ends_with(".leaving");
        let seats = containers.iter().filter(|it| good(it)).filter_map(seated);
        let seats: BTreeMap<u32, String> = seats.collect();
        (seats.len() == containers.len()).then_some(seats)
    }

    /// How many containers were made since then.
    pub(super) fn created(&self, since: f64) -> usize {
        self.events("create", since).lines().count()
    }
}

fn seated(container: &Value) -> Option<(u32, String)> {
    Some((place_of(container)?, id_of(container).to_owned()))
}

/// The seat that a container has now: by the mark in its name, or the one that it was made for.
pub(super) fn place_of(container: &Value) -> Option<u32> {
    if let Some((_, seat)) = name_of(container).split_once(".seat-") {
        return seat.trim_end_matches(".leaving").parse().ok();
    }
    container["Config"]["Labels"]["balancer.seat"].as_str()?.parse().ok()
}

pub(super) fn name_of(container: &Value) -> &str {
    container["Name"].as_str().unwrap().trim_start_matches('/')
}

/// What has happened to a balancer's fleet so far.
pub(super) fn told(balancer: &Balancer) -> Vec<Value> {
    let answer = request(balancer.admin, "GET", "/admin/events", &[], b"");
    serde_json::from_value(answer.json()["message"]["events"].clone()).unwrap()
}

/// Waits until something has happened to a replica; tells the last such event.
pub(super) fn news(balancer: &Balancer, event: &str, hostname: &str) -> Value {
    wait_for(&format!("{event} of {hostname}"), || {
        told(balancer).into_iter().rfind(|it| it["event"] == event && it["hostname"] == hostname)
    })
}

/// The number of an event: they are counted in the order in which they happened.
pub(super) fn number(event: &Value) -> u64 {
    event["id"].as_u64().unwrap()
}

/// The fleet as `/admin/fleet` shows it.
pub(super) fn fleet(balancer: &Balancer) -> Value {
    request(balancer.admin, "GET", "/admin/fleet", &[], b"").json()["message"].clone()
}

/// Ends a balancer without a chance to do anything.
pub(super) fn kill_9(mut balancer: Balancer) {
    balancer.signal(Signal::KILL);
    balancer.wait();
}

/// Waits until a condition has held for so long.
pub(super) fn steady(what: &str, span: Duration, mut condition: impl FnMut() -> bool) {
    let mut since = None;
    wait_for(what, || {
        if !condition() {
            since = None;
            return None;
        }
        (since.get_or_insert_with(Instant::now).elapsed() >= span).then_some(())
    });
}
