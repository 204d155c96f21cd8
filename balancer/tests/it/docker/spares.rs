//! Containers without a seat, ready to take one.

use super::look::{fleet, kill_9, name_of, place_of};
use super::*;

/// Waits until a spare could take a seat; tells its name.
fn spare(balancer: &Balancer) -> String {
    wait_for("a spare that is ready", || {
        let fleet = fleet(balancer);
        let replicas = fleet["replicas"].as_array().unwrap();
        let spare = replicas.iter().find(|it| it["seat"].is_null() && it["state"] == "ready")?;
        (fleet["spares"]["ready"] == 1).then(|| spare["hostname"].as_str().unwrap().to_owned())
    })
}

#[test]
fn a_spare_takes_the_seat_of_a_dead_replica_and_has_it_for_the_next_balancer_too() {
    let Some(pool) = engine("spares") else { return };
    let arguments = ["--replicas", "3", "--spares", "1"];
    let balancer = pool.start(&arguments);
    balancer.wait_for_replicas(3);
    let first = spare(&balancer);
    assert!(!balancer.replicas().contains(&first), "a spare is not in /rep");
    let containers = pool.containers();
    assert_eq!(containers.len(), 4);
    let victim = containers.iter().find(|it| place_of(it) == Some(2)).unwrap();
    let before: Vec<String> = owners(&balancer).into_values().collect();

    let load = Load::start(balancer.address);
    let began = Instant::now();
    docker(&["kill", id_of(victim)]);
    let killed = began.elapsed();
    wait_for("the spare in its place", || balancer.replicas().contains(&first).then_some(()));
    let healed = began.elapsed();
    balancer.wait_for_replicas(3);
    let second = spare(&balancer);
    let requests = load.end();
    say(&format!(
        "docker kill ({} ms) with a spare: three again after {} ms, {requests} requests, none \
         failed; the next spare after {} ms",
        killed.as_millis(),
        healed.as_millis(),
        began.elapsed().as_millis(),
    ));
    let seated = pool.find(&first).unwrap();
    assert_eq!(name_of(&seated), format!("{}.seat-2", first.to_lowercase()));
    assert_eq!(seated["Config"]["Labels"]["balancer.seat"], "spare");
    // A spare does not know its seat, but the keys are where they were.
    let expected: Vec<String> =
        before.iter().map(|it| it.replace("Server: 2", "Server: spare")).collect();
    let after: Vec<String> = owners(&balancer).into_values().collect();
    assert_eq!(after, expected);

    let all = |pool: &Pool| -> BTreeSet<String> {
        pool.containers().iter().map(|it| id_of(it).to_owned()).collect()
    };
    wait_for("the dead to be removed", || (all(&pool).len() == 4).then_some(()));
    let (ids, killed) = (all(&pool), unix_time());
    kill_9(balancer);
    let next = pool.start(&arguments);
    next.wait_for_replicas(3);
    assert_eq!(spare(&next), second);
    wait_for("the same keys", || {
        let owners = (0..60).map_while(|key| greeting_for(&next, &format!("key-{key}")));
        let owners: BTreeSet<String> = owners.collect();
        (owners.len() == 3).then_some(())
    });
    assert_eq!(owners(&next).into_values().collect::<Vec<_>>(), expected);
    assert_eq!(fleet(&next)["seats"][1]["hostname"], json!(first));
    assert_eq!(all(&pool), ids);
    assert_eq!(pool.created(killed), 0, "something was started");

    let began = Instant::now();
    let added = next.json("POST", "/add", r#"{"n": 1}"#);
    let took = began.elapsed().as_millis();
    assert_eq!(added.status, 200, "{added:?}");
    assert_eq!(added.json()["message"]["replicas"][3], json!(second));
    let third = spare(&next);
    assert!(third != first && third != second);
    wait_for("its mark", || {
        (name_of(&pool.find(&second)?) == format!("{}.seat-4", second.to_lowercase())).then_some(())
    });
    say(&format!("/add of one with a spare: {took} ms"));

    // With a name, no spare will do.
    let named = format!("Named {}", std::process::id());
    let added = next.json("POST", "/add", &json!({"n": 1, "hostnames": [named]}).to_string());
    assert_eq!(added.json()["message"]["replicas"][4], json!(named));
    assert_eq!(spare(&next), third);
    assert_eq!(pool.containers().len(), 6);
}
