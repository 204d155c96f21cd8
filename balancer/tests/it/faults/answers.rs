//! An engine that answers, and not as one would wish.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{Load, wait_for_seats};
use crate::engine::{Call, Engine, Fault, State};
use crate::support::wait_for;

#[test]
fn a_listing_that_fails_says_nothing_about_the_replicas() {
    let engine = Engine::start();
    let balancer = engine.balancer_with(3, &[]);
    let seats = engine.wait_for(3);
    let load = Load::start(balancer.address);
    let faults = [
        Fault::Status(500, "database is locked"),
        Fault::Status(429, "too many requests"),
        Fault::Cut,
        Fault::Close,
    ];
    for (told, fault) in (1..).zip(faults) {
        engine.fail(Call::List, fault, None);
        wait_for("the news", || {
            let unknown = "replicas cannot be listed; the last table stays";
            (balancer.events(unknown).len() == told).then_some(())
        });
        assert_eq!(balancer.replicas().len(), 3, "{fault:?}");
        engine.heal();
        wait_for("a good listing", || {
            (balancer.events("replicas can be listed again").len() == told).then_some(())
        });
    }
    load.end();
    assert_eq!(engine.wait_for(3), seats);
    assert_eq!(engine.calls(Call::Create).len(), 3);
    assert_eq!(engine.calls(Call::Remove).len() + engine.calls(Call::Stop).len(), 0);
}

#[test]
fn a_replica_that_the_engine_will_not_make_is_told_in_its_words_and_leaves_nothing() {
    let full = "error creating overlay mount: no space left on device";
    let arch = "image with reference was found but does not match the specified platform";
    let wrong = "OCI runtime create failed: exec format error";
    let engine = Engine::start();
    let stranger = engine.stranger("somebody");
    let balancer = engine.balancer_with(2, &["--max-replicas", "20"]);
    let seats = engine.wait_for(2);
    let load = Load::start(balancer.address);
    for (call, fault, said) in [
        (Call::Create, Fault::Status(500, full), full),
        (Call::Create, Fault::Status(404, "pull access denied"), "pull access denied"),
        (Call::Create, Fault::Status(404, arch), arch),
        (Call::Create, Fault::Status(429, "toomanyrequests"), "toomanyrequests"),
        (Call::Create, Fault::Close, "create container"),
        (Call::Create, Fault::Lose, "create container"),
        (Call::Create, Fault::Cut, "create container"),
        (Call::Start, Fault::Status(500, full), full),
        (Call::Start, Fault::Status(400, wrong), wrong),
    ] {
        engine.fail(call, fault, None);
        let asked = Instant::now();
        let answer = balancer.json("POST", "/add", r#"{"n":2,"hostnames":["extra"]}"#);
        assert_eq!(answer.status, 500, "{call:?} {fault:?}: {answer:?}");
        assert!(answer.message().starts_with("<Error> "), "{answer:?}");
        assert!(answer.message().contains(said), "{call:?} {fault:?}: {answer:?}");
        assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
        engine.heal();
        assert_eq!(engine.wait_for(2), seats, "{call:?} {fault:?}");
        assert_eq!(balancer.replicas().len(), 2);
    }
    // A start that was carried out is one, whether or not its answer came.
    engine.fail(Call::Start, Fault::Lose, Some(1));
    let answer = balancer.json("POST", "/add", r#"{"n":1,"hostnames":["unanswered"]}"#);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(balancer.json("DELETE", "/rm", r#"{"n":1,"hostnames":["unanswered"]}"#).status, 200);
    engine.wait_for(2);
    // Another try, now that all is well.
    let answer = balancer.json("POST", "/add", r#"{"n":2,"hostnames":["extra"]}"#);
    assert_eq!(answer.status, 200, "{answer:?}");
    wait_for_seats(&balancer, &[1, 2, 3, 4]);
    load.end();
    assert_eq!(engine.wait_for(4).len(), 4);
    assert_eq!(engine.world().find(&stranger).unwrap().state, State::Running);
}

#[test]
fn a_first_fleet_that_the_engine_will_not_make_is_tried_ever_later() {
    let engine = Engine::start();
    engine.world().images.clear();
    let balancer = engine.balancer(&["--replicas", "1", "--pull", "never"]);
    let failures = wait_for("six failures", || {
        Some(balancer.events("replica could not be started")).filter(|events| events.len() >= 6)
    });
    // At once, then after 100, 200, 400 and 800 ms, each a quarter less at the least.
    let took = failures[5].at - failures[0].at;
    assert!(took >= Duration::from_millis(1_000), "six tries within {took:?}");
    let said = failures[0].fields["reason"].as_str().unwrap();
    assert!(said.contains("No such image: ring-balancer/server"), "{said}");
    assert_eq!(balancer.get("/home").status, 503);
    assert!(engine.calls(Call::Create).len() <= 2 * failures.len() + 2, "twice for each try");

    engine.world().images.insert("ring-balancer/server".to_owned());
    balancer.wait_for_replicas(1);
    wait_for_seats(&balancer, &[1]);
    engine.wait_for(1);
}

#[test]
fn what_is_gone_or_stopped_or_started_already_is_success() {
    let engine = Engine::start();
    let balancer = engine.balancer_with(3, &[]);
    engine.wait_for(3);
    let load = Load::start(balancer.address);
    for (call, status) in
        [(Call::Stop, 304), (Call::Stop, 404), (Call::Remove, 404), (Call::Remove, 409)]
    {
        engine.fail(call, Fault::Status(status, "so it is already"), Some(1));
        let named = json!({"n": 1, "hostnames": [balancer.replicas()[2]]}).to_string();
        let answer = balancer.json("DELETE", "/rm", &named);
        assert_eq!(answer.status, 200, "{call:?} {status}: {answer:?}");
        assert_eq!(balancer.replicas().len(), 2, "{call:?} {status}");
        // Where the engine was wrong, what is left is found by its label.
        engine.wait_for(2);
        assert_eq!(balancer.json("POST", "/add", r#"{"n":1}"#).status, 200);
        engine.wait_for(3);
    }
    // It was carried out and not answered, and again it is asked to start what runs.
    engine.fail(Call::Start, Fault::Status(304, ""), Some(1));
    let answer = balancer.json("POST", "/add", r#"{"n":1}"#);
    assert!(matches!(answer.status, 200 | 500), "{answer:?}");
    load.end();
    let n = balancer.replicas().len();
    engine.wait_for(n);
}

#[test]
fn a_removal_that_fails_is_told_and_carried_out_later() {
    let engine = Engine::start();
    let balancer = engine.balancer_with(3, &[]);
    let seats = engine.wait_for(3);
    let load = Load::start(balancer.address);
    let before = balancer.replicas();
    engine.fail(Call::Remove, Fault::Status(500, "cannot remove container"), Some(1));
    let named = json!({"n": 1, "hostnames": [before[1]]}).to_string();
    let answer = balancer.json("DELETE", "/rm", &named);
    assert_eq!(answer.status, 500, "{answer:?}");
    assert!(answer.message().contains("cannot remove container"), "{answer:?}");
    assert_eq!(balancer.replicas(), [before[0].as_str(), before[2].as_str()]);
    wait_for_seats(&balancer, &[1, 3]);
    let tries = |call| engine.calls(call).len();
    let left = engine.wait_for(2);
    assert!(left.iter().all(|(seat, id)| seats[seat] == *id), "{seats:?} {left:?}");
    assert_eq!((tries(Call::Stop), tries(Call::Remove)), (2, 2), "it was tried again");
    assert_eq!(tries(Call::Create), 3, "it was not replaced");
    load.end();
}

#[test]
fn a_name_that_is_taken_by_a_stranger_is_refused_and_by_a_leftover_of_ours_made_free() {
    let engine = Engine::start();
    let stranger = engine.stranger("guest");
    let balancer = engine.balancer_with(1, &[]);
    let one = engine.wait_for(1);
    let load = Load::start(balancer.address);
    let answer = balancer.json("POST", "/add", r#"{"n":2,"hostnames":["other","Guest"]}"#);
    assert_eq!(answer.status, 400, "{answer:?}");
    assert!(answer.message().contains("Guest"), "{answer:?}");
    assert_eq!(engine.wait_for(1), one);
    assert_eq!(engine.world().find(&stranger).unwrap().state, State::Running);
    assert!(engine.calls(Call::Remove).iter().all(|made| made.about != stranger));

    // Made between a listing and the call: nobody knows of it but the engine.
    engine.fail(Call::List, Fault::Hang, Some(1));
    wait_for("a listing under way", || (engine.world().under_way() > 0).then_some(()));
    let labels = [("pool", "scripted"), ("seat", "7"), ("hostname", "late")];
    let labels = labels.map(|(name, value)| (format!("balancer.{name}"), value.to_owned()));
    let leftover = engine.world().create("late", labels.into(), "ring-balancer/server").unwrap();
    engine.world().run(&leftover).unwrap();
    engine.kill(&leftover);
    let answer = balancer.json("POST", "/add", r#"{"n":1,"hostnames":["late"]}"#);
    assert_eq!(answer.status, 200, "{answer:?}");
    engine.heal();
    let two = engine.wait_for(2);
    assert!(!two.values().any(|id| *id == leftover), "the leftover was started");
    assert_eq!(balancer.replicas()[1], "late");
    load.end();
}

#[test]
fn a_container_that_is_made_after_all_is_removed_and_no_seat_has_two() {
    let engine = Engine::start();
    let balancer = engine.balancer_with(2, &[]);
    let seats = engine.wait_for(2);
    engine.fail(Call::Create, Fault::Lose, Some(1));
    engine.kill(&seats[&1]);
    let now = wait_for("another on the seat", || {
        let now = engine.wait_for(2);
        (now[&1] != seats[&1] && balancer.replicas().len() == 2).then_some(now)
    });
    assert_eq!(now[&2], seats[&2]);
    wait_for_seats(&balancer, &[1, 2]);
}

#[test]
fn an_image_counts_as_pulled_only_when_it_is() {
    let engine = Engine::start();
    let balancer = engine.balancer(&["--replicas", "0", "--image", "absent"]);
    let answer = balancer.json("POST", "/add", r#"{"n":1}"#);
    assert_eq!(answer.status, 500, "{answer:?}");
    assert!(answer.message().contains("pull access denied"), "{answer:?}");
    assert_eq!(balancer.events("pulling image").len(), 1);
    assert!(balancer.events("image pulled").is_empty());
}
