//! Rolling updates of containers.

use super::look::{Image, engine_with, fleet, kill_9, number, told};
use super::*;

/// An image may be named, and is not looked for elsewhere.
pub(super) const ROLLS: [&str; 5] =
    ["--admin-programs", "--pull", "never", "--roll-monitor", "300ms"];

/// Begins a rolling update.
pub(super) fn roll(balancer: &Balancer, image: &str) {
    let answer = balancer.json("POST", "/admin/roll", &json!({"image": image}).to_string());
    assert_eq!(answer.status, 202, "{answer:?}");
    assert_eq!(answer.json()["message"]["state"], "rolling");
}

/// Waits for the end of an update; tells how it stands.
pub(super) fn end_of_roll(balancer: &Balancer, state: &str) -> Value {
    wait_for(&format!("a roll that is {state}"), || {
        let answer = request(balancer.admin, "GET", "/admin/roll", &[], b"");
        Some(answer.json()["message"].clone()).filter(|roll| roll["state"] == state)
    })
}

/// The references of the images of its containers.
pub(super) fn images(pool: &Pool) -> BTreeSet<String> {
    let image = |it: &Value| it["Config"]["Labels"]["balancer.image"].as_str().unwrap().to_owned();
    pool.containers().iter().map(image).collect()
}

#[test]
fn an_update_replaces_seat_by_seat_and_no_request_fails_and_lasts() {
    let Some((image, pool)) = engine_with("roll", || Image::tag("second")) else { return };
    let balancer = pool.balancer(3, &ROLLS);
    let (ids, before) = (pool.ids(), owners(&balancer));
    let new = BTreeSet::from([image.name.clone()]);

    let load = Load::start(balancer.address);
    let began = Instant::now();
    roll(&balancer, &image.name);
    let done = end_of_roll(&balancer, "done");
    let took = began.elapsed().as_millis();
    assert_eq!(
        (&done["done"], &done["total"], &done["error"]),
        (&json!(3), &json!(3), &Value::Null)
    );
    let seats = pool.settled(&balancer, 3);
    let requests = load.end();
    say(&format!("roll of three: {took} ms, {requests} requests, none failed"));
    assert_eq!(images(&pool), new);
    assert!(seats.iter().all(|(seat, id)| ids[seat] != *id), "{ids:?} {seats:?}");
    assert_eq!(owners(&balancer), before, "a key moved");
    for container in pool.containers() {
        let release = container["Config"]["Labels"]["balancer.release"].as_str().unwrap();
        let release: Value = serde_json::from_str(release).unwrap();
        assert_eq!((&release["generation"], &release["since"]), (&json!(1), &json!(1)));
        let labels = &container["Config"]["Labels"];
        assert_eq!(release["spec"]["image"], labels["balancer.image"]);
        assert_eq!(release["spec"]["digest"], container["Image"]);
        assert_eq!(labels["balancer.digest"], container["Image"]);
        assert_eq!(container["Config"]["Image"], container["Image"], "it is started by its ID");
    }
    one_at_a_time(&balancer);

    docker(&["kill", &seats[&2]]);
    wait_for("another in its place", || {
        let after = pool.seated().filter(|after| after.len() == 3)?;
        (after[&2] != seats[&2]).then_some(())
    });
    assert_eq!(images(&pool), new);
    balancer.wait_for_replicas(3);
    kill_9(balancer);
    let all: Vec<String> = pool.ids().into_values().collect();
    docker(&["kill", &all[0], &all[1], &all[2]]);
    let next = pool.start(&ROLLS);
    pool.settled(&next, 3);
    assert_eq!(images(&pool), new);
    wait_for("every key where it was", || (owners(&next) == before).then_some(()));
}

/// Each old one left when the new one of its seat was ready, before the next seat's turn.
fn one_at_a_time(balancer: &Balancer) {
    let mut events = told(balancer);
    let begun = events.iter().find(|it| it["event"] == "roll-begun").map(number).unwrap();
    events.retain(|it| number(it) > begun);
    events.retain(|it| ["starting", "ready", "draining"].iter().any(|what| it["event"] == *what));
    let steps: Vec<_> = events.iter().map(|it| (&it["event"], &it["seat"])).collect();
    assert_eq!(steps.len(), 9, "{steps:?}");
    for step in steps.chunks(3) {
        let seat = step[0].1;
        let expected = ["starting", "ready", "draining"].map(|what| (json!(what), seat));
        let expected = expected.each_ref().map(|(what, seat)| (what, *seat));
        assert_eq!(step, expected, "{steps:?}");
    }
}

#[test]
fn an_update_to_an_image_that_is_missing_or_ends_at_once_is_undone_and_touches_nothing() {
    let Some((ends, pool)) =
        engine_with("roll-bad", || Image::build("ends", "ENTRYPOINT [\"false\"]"))
    else {
        return;
    };
    let balancer = pool.balancer(3, &ROLLS);
    let (ids, before) = (pool.ids(), owners(&balancer));
    let load = Load::start(balancer.address);
    for (image, why) in
        [("balancer-test/no-such-image", "No such image"), (&ends.name, "exited with code 1")]
    {
        let began = Instant::now();
        roll(&balancer, image);
        let undone = end_of_roll(&balancer, "rolled-back");
        let error = undone["error"].as_str().unwrap();
        assert!(error.contains(why), "{error}");
        assert_eq!(pool.settled(&balancer, 3), ids, "{image}");
        say(&format!("roll undone after {} ms: {error}", began.elapsed().as_millis()));
    }
    let requests = load.end();
    assert!(requests > 0);
    assert_eq!(owners(&balancer), before);
    assert_eq!(images(&pool), BTreeSet::from([IMAGE.to_owned()]));

    // The next balancer knows of no update, and its fleet is as it is to be.
    kill_9(balancer);
    let next = pool.start(&ROLLS);
    next.wait_for_replicas(3);
    wait_for("every key where it was", || (owners(&next) == before).then_some(()));
    assert_eq!(pool.ids(), ids);
    assert_eq!(fleet(&next)["roll"], Value::Null);
}

#[test]
fn an_update_in_which_the_balancer_is_killed_is_completed_by_the_next() {
    let Some((image, pool)) = engine_with("half-rolled", || Image::tag("third")) else { return };
    let balancer = pool.balancer(4, &ROLLS);
    let (ids, before) = (pool.ids(), owners(&balancer));
    roll(&balancer, &image.name);
    wait_for("a new one", || images(&pool).contains(&image.name).then_some(()));
    kill_9(balancer);
    assert!(images(&pool).contains(IMAGE), "it was not in the middle");

    let next = pool.start(&[&ROLLS[..], &["--replicas", "4"]].concat());
    wait_for("nothing but new ones", || {
        (images(&pool) == BTreeSet::from([image.name.clone()])).then_some(())
    });
    let seats = pool.settled(&next, 4);
    assert_eq!(seats.keys().collect::<Vec<_>>(), [&1, &2, &3, &4]);
    assert!(seats.values().all(|id| !ids.values().any(|old| old == id)));
    assert_eq!(end_of_roll(&next, "done")["total"], 4);
    assert_eq!(owners(&next), before, "a key moved");
}
