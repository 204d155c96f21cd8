//! Rollouts of images that look good at first, image IDs, and changed configurations.

use std::path::Path;

use super::look::{Image, engine_with, fleet, told};
use super::roll::{ROLLS, end_of_roll, images, roll};
use super::*;

/// An image of this balancer's demo replica, which may be newer than the engine's.
fn demo(name: &str, lines: &str) -> Image {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(env!("CARGO_BIN_EXE_balancer"), folder.path().join("balancer")).unwrap();
    let copy = "COPY balancer /usr/local/bin/balancer\nENTRYPOINT [\"balancer\", \"replica\"]";
    Image::build_in(folder.path(), name, &format!("{copy}\n{lines}"))
}

/// The image IDs that its containers run.
fn ids(pool: &Pool) -> BTreeSet<String> {
    let containers = pool.containers();
    containers.iter().map(|it| it["Image"].as_str().unwrap().to_owned()).collect()
}

fn id_of_image(name: &str) -> String {
    docker(&["image", "inspect", "--format", "{{.Id}}", name])
}

/// Monitored as by default, but for a shorter time.
const MONITORED: [&str; 5] = ["--admin-programs", "--pull", "never", "--roll-monitor", "2s"];

#[test]
fn an_image_that_answers_500_is_rolled_back_by_itself_and_every_seat_serves_on() {
    let Some((bad, pool)) = engine_with("bad-500", || demo("fails", "ENV SERVER_FAIL_REQUESTS=1"))
    else {
        return;
    };
    let balancer = pool.balancer(3, &MONITORED);
    let (before, address) = (pool.ids(), balancer.address);
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<JoinHandle<(usize, usize)>> = (0..2)
        .map(|_| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                let (mut good, mut bad) = (0, 0);
                while !stop.load(Ordering::Relaxed) {
                    let answer = try_request(address, "GET", "/home", &[], b"");
                    let failed = answer.map_or(true, |answer| answer.status != 200);
                    *if failed { &mut bad } else { &mut good } += 1;
                }
                (good, bad)
            })
        })
        .collect();
    roll(&balancer, &bad.name);
    let undone = end_of_roll(&balancer, "rolled-back");
    let error = undone["error"].as_str().unwrap();
    assert!(error.contains("was ejected: too many failed requests in a row"), "{error}");
    assert_eq!(pool.settled(&balancer, 3), before);
    stop.store(true, Ordering::Relaxed);
    let (good, failed) = clients
        .into_iter()
        .map(|client| client.join().unwrap())
        .fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1));
    say(&format!("an image that answers 500: {failed} of {} requests failed", good + failed));
    assert!(failed <= 12, "{failed} beside {good}");
    // The correction is taken at any time: while another one is under way, too.
    roll(&balancer, &bad.name);
    let good = demo("works", "");
    roll(&balancer, &good.name);
    assert_eq!(end_of_roll(&balancer, "done")["earlier"][1]["state"], "superseded");
    pool.settled(&balancer, 3);
    assert_eq!(images(&pool), BTreeSet::from([good.name.clone()]));
    drop(balancer);
    drop(pool);
}

#[test]
fn an_image_whose_health_check_fails_is_never_ready_and_rolled_back_and_no_request_fails() {
    let check = "HEALTHCHECK --interval=1s --timeout=1s --retries=3 CMD false";
    let Some((bad, pool)) = engine_with("bad-check", || Image::build("unhealthy", check)) else {
        return;
    };
    let balancer = pool.balancer(2, &MONITORED);
    let (before, load) = (pool.ids(), Load::start(balancer.address));
    roll(&balancer, &bad.name);
    let undone = end_of_roll(&balancer, "rolled-back");
    let error = undone["error"].as_str().unwrap();
    assert!(error.contains("container health: unhealthy"), "{error}");
    let ready = told(&balancer).iter().filter(|it| it["event"] == "ready").count();
    assert_eq!(ready, 2, "a container was ready before its health check had passed");
    load.end();
    assert_eq!(pool.settled(&balancer, 2), before);

    // Neither is one that is added, or that replaces another.
    let unready = ["--image", &bad.name, "--health-start-deadline", "2s", "--replicas", "1"];
    drop(balancer);
    for id in pool.ids().values() {
        docker(&["rm", "-f", id]);
    }
    let other = pool.start(&[&unready[..], &["--pull", "never"]].concat());
    wait_for("its end", || told(&other).into_iter().find(|it| it["event"] == "never-ready"));
    assert!(told(&other).iter().all(|it| it["event"] != "ready"));
}

#[test]
fn an_image_whose_health_check_passes_is_ready_when_it_has() {
    let check = "HEALTHCHECK --interval=1s --start-period=1s CMD test -e /proc/1 && sleep 0.2";
    let Some((good, pool)) = engine_with("good-check", || Image::build("healthy", check)) else {
        return;
    };
    let balancer = pool.balancer(1, &["--image", &good.name, "--pull", "never"]);
    let log = balancer.log();
    let at = |message: &str| log.iter().find(|it| it.fields["message"] == message).unwrap().at;
    let took = at("replica is ready") - at("replica is starting");
    assert!(took.as_millis() >= 1_000, "the first check ends after more than a second: {took:?}");
    assert_eq!(balancer.get("/home").status, 200);
}

#[test]
fn an_image_that_exits_shortly_after_it_was_ready_is_rolled_back_and_no_request_fails() {
    let entry = "ENTRYPOINT [\"timeout\", \"1.5\", \"server\"]";
    let Some((bad, pool)) = engine_with("bad-exit", || Image::build("exits", entry)) else {
        return;
    };
    let balancer = pool.balancer(2, &MONITORED);
    let (before, load) = (pool.ids(), Load::start(balancer.address));
    roll(&balancer, &bad.name);
    let undone = end_of_roll(&balancer, "rolled-back");
    // The program has ended before its container has: requests or a probe may find that out first,
    // and the engine's news of the end come later.
    let error = undone["error"].as_str().unwrap();
    let reasons = ["exited with code", "too many failed requests in a row", "refused"];
    assert!(reasons.iter().any(|reason| error.contains(reason)), "{error}");
    load.end();
    assert_eq!(pool.settled(&balancer, 2), before);
}

#[test]
fn a_tag_that_moves_is_picked_up_by_a_rollout_only_and_a_rollback_needs_no_tag() {
    let Some((tag, pool)) = engine_with("moved", || Image::build("moves", "LABEL version=1"))
    else {
        return;
    };
    let first = id_of_image(&tag.name);
    let balancer = pool.balancer(2, &[&ROLLS[..], &["--image", &tag.name]].concat());
    assert_eq!(ids(&pool), BTreeSet::from([first.clone()]));

    tag.rebuild("LABEL version=2");
    let second = id_of_image(&tag.name);
    assert_ne!(first, second);
    let before = pool.ids();
    docker(&["kill", &before[&1]]);
    wait_for("another in its place", || {
        let after = pool.seated().filter(|after| after.len() == 2)?;
        (after[&1] != before[&1]).then_some(())
    });
    assert_eq!(ids(&pool), BTreeSet::from([first.clone()]), "a crash picked the new image up");
    let status = fleet(&balancer);
    assert_eq!(status["release"]["digest"], first.as_str());
    for replica in status["replicas"].as_array().unwrap() {
        let own = &replica["release"];
        assert_eq!(own, &status["release"], "{replica}");
    }

    roll(&balancer, &tag.name);
    end_of_roll(&balancer, "done");
    pool.settled(&balancer, 2);
    assert_eq!(ids(&pool), BTreeSet::from([second]));
    assert_eq!(fleet(&balancer)["release"]["generation"], 1);

    // By now the tag is broken; what ran before has no name any more.
    tag.rebuild("ENTRYPOINT [\"false\"]");
    let back = balancer.json("DELETE", "/admin/roll", "");
    assert_eq!(back.status, 202, "{back:?}");
    end_of_roll(&balancer, "rolled-back");
    pool.settled(&balancer, 2);
    assert_eq!(ids(&pool), BTreeSet::from([first]));
}

#[test]
fn a_restart_with_another_environment_rolls_it_out_or_warns_of_it() {
    let Some(pool) = engine("changed") else { return };
    let kept = ["--keep-replicas", "--pull", "never", "--roll-monitor", "300ms"];
    let env = |pool: &Pool| -> BTreeSet<String> {
        let containers = pool.containers();
        let all = containers.iter().flat_map(|it| it["Config"]["Env"].as_array().unwrap().clone());
        let words = all.map(|it| it.as_str().unwrap().to_owned());
        words.filter(|it| it.starts_with("COLOUR=")).collect()
    };
    let stop = |mut balancer: Balancer| {
        balancer.signal(Signal::TERM);
        assert_eq!(balancer.wait().code(), Some(0));
    };
    let blue = ["--env", "COLOUR=blue", "--env", "API_KEY=one"];
    stop(pool.balancer(2, &[&kept[..], &blue].concat()));
    let before = pool.ids();

    // The same again changes nothing.
    let same = pool.balancer(2, &[&kept[..], &blue].concat());
    assert!(told(&same).iter().all(|it| it["event"] != "spec-changed"), "{:?}", told(&same));
    stop(same);
    assert_eq!(pool.ids(), before);

    let other = ["--env", "COLOUR=green", "--env", "API_KEY=two", "--memory", "64MiB"];
    let warned = pool.balancer(2, &[&kept[..], &other, &["--on-change", "warn"]].concat());
    let reason = |balancer: &Balancer| {
        let told = told(balancer);
        let changed: Vec<&Value> = told.iter().filter(|it| it["event"] == "spec-changed").collect();
        assert_eq!(changed.len(), 1, "{told:?}");
        changed[0]["reason"].as_str().unwrap().to_owned()
    };
    let difference = "memory: unset -> \"67108864\", env API_KEY (value not shown), \
                      env COLOUR: \"blue\" -> \"green\"";
    assert_eq!(reason(&warned), difference);
    // What dies is replaced by what the others run.
    docker(&["kill", &before[&1]]);
    wait_for("another in its place", || {
        let after = pool.seated().filter(|after| after.len() == 2)?;
        (after[&1] != before[&1]).then_some(())
    });
    assert_eq!(env(&pool), BTreeSet::from(["COLOUR=blue".to_owned()]));
    stop(warned);

    let rolled = pool.balancer(2, &[&kept[..], &other].concat());
    assert_eq!(reason(&rolled), difference);
    end_of_roll(&rolled, "done");
    pool.settled(&rolled, 2);
    assert_eq!(env(&pool), BTreeSet::from(["COLOUR=green".to_owned()]));
    assert!(pool.containers().iter().all(|it| it["HostConfig"]["Memory"] == 64 << 20));
}

// === impl Image ===

impl Image {
    /// Makes one from the demo replica's, with the files of a folder.
    fn build_in(folder: &Path, name: &str, lines: &str) -> Self {
        let image = Self::named(name);
        let text = format!("FROM {IMAGE}\n{lines}\n");
        std::fs::write(folder.join("Dockerfile"), text).unwrap();
        docker(&["build", "-qt", &image.name, folder.to_str().unwrap()]);
        image
    }

    /// Lets its tag stand for another image. The one before lives as long as its containers.
    fn rebuild(&self, lines: &str) {
        let folder = tempfile::tempdir().unwrap();
        let text = format!("FROM {IMAGE}\n{lines}\n");
        std::fs::write(folder.path().join("Dockerfile"), text).unwrap();
        docker(&["build", "-qt", &self.name, folder.path().to_str().unwrap()]);
    }
}
