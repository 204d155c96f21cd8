//! `balancer clean`.

use super::*;

fn said(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn what_a_killed_balancer_left_is_listed_and_removed() {
    let engine = Engine::start();
    let stranger = engine.stranger("somebody");
    let balancer = engine.balancer_with(3, &[]);
    let clean = |more: &[&str]| run(&engine, &[&["clean", "--pool", "scripted"], more].concat());

    let held = clean(&["--yes"]);
    let (_, errors) = said(&held);
    assert_eq!(held.status.code(), Some(1), "{errors}");
    assert!(errors.contains("is in use") && errors.contains(&balancer.address.to_string()));
    assert_eq!(engine.world().ours().count(), 3);
    kill_9(balancer);

    let (listed, errors) = said(&clean(&["--dry-run"]));
    for container in engine.world().ours() {
        assert!(listed.contains(&container.name), "{listed} {errors}");
    }
    assert!(listed.contains("network") && listed.contains("lease"), "{listed}");
    let unasked = clean(&[]);
    assert_eq!(unasked.status.code(), Some(1), "{unasked:?}");
    assert!(said(&unasked).1.contains("--yes"), "{unasked:?}");
    assert_eq!(engine.world().ours().count(), 3);

    let cleaned = clean(&["--yes"]);
    assert_eq!(cleaned.status.code(), Some(0), "{cleaned:?}");
    let (told, _) = said(&cleaned);
    assert!(told.contains("removed: 3 containers, 1 networks, "), "{told}");
    let again = clean(&["--yes"]);
    assert!(said(&again).0.contains("has left nothing"), "{again:?}");
    let world = engine.world();
    assert_eq!(world.ours().count(), 0);
    assert!(world.volumes.is_empty() && world.networks.is_empty());
    assert!(world.find(&stranger).is_some());
}

#[test]
fn another_pool_is_left_alone() {
    let engine = Engine::start();
    let balancer = engine.balancer_with(1, &[]);
    let output = run(&engine, &["clean", "--yes", "--pool", "other"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(said(&output).0.contains("has left nothing"), "{output:?}");
    assert_eq!(balancer.replicas().len(), 1);
}
