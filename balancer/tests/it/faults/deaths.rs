//! Replicas that end, or take their time to begin, and balancers that end in between.

use rustix::process::Signal;
use serde_json::json;

use super::{Load, greeting, seat_in, wait_for_seats};
use crate::engine::{Call, Engine, Fault, News, State};
use crate::support::{Balancer, wait_for};

#[test]
fn a_container_that_ends_is_replaced_on_its_seat_and_the_reason_is_told() {
    let engine = Engine::start();
    let balancer = engine.balancer_with(3, &[]);
    let before = engine.wait_for(3);
    for (ended, (code, reason)) in (1..).zip([
        (0, "exited with code 0"),
        (1, "exited with code 1"),
        (137, "killed by signal 9"),
    ]) {
        let load = Load::start(balancer.address);
        let victim = engine.wait_for(3)[&2].clone();
        engine.exit(&victim, code);
        let dead = wait_for("the news of its death", || {
            Some(balancer.events("replica is dead")).filter(|dead| dead.len() == ended)?.pop()
        });
        assert_eq!(dead.fields["reason"], reason);
        wait_for_seats(&balancer, &[1, 2, 3]);
        load.end();
        assert_ne!(engine.wait_for(3)[&2], victim);
    }
    let after = engine.wait_for(3);
    assert_eq!((&after[&1], &after[&3]), (&before[&1], &before[&3]));
}

#[test]
fn a_container_that_ran_out_of_memory_is_replaced_and_the_reason_is_told() {
    for news in [News::Good, News::Lost] {
        let engine = Engine::start();
        let balancer = engine.balancer_with(2, &[]);
        let before = engine.wait_for(2);
        engine.news(news);
        engine.starve(&before[&1]);
        let dead = wait_for("the news of its death", || balancer.events("replica is dead").pop());
        assert_eq!(dead.fields["reason"], "out of memory", "{news:?}");
        let metrics = String::from_utf8(balancer.get("/metrics").body).unwrap();
        let counted = "\nbalancer_deaths_total{reason=\"out-of-memory\"} 1\n";
        assert!(metrics.contains(counted), "{metrics}");
        wait_for_seats(&balancer, &[1, 2]);
        engine.wait_for(2);
    }
}

#[test]
fn a_slow_starter_gets_no_request_before_its_first_good_probe() {
    let program = env!("CARGO_BIN_EXE_balancer");
    let command = format!("/bin/sh -c '[ $SERVER_ID = 1 ] || sleep 2; exec {program} replica'");
    let balancer = Balancer::with_replicas(1, &["--command", &command]);
    let load = Load::start(balancer.address);
    std::thread::scope(|scope| {
        let adding = scope.spawn(|| balancer.json("POST", "/add", r#"{"n":2}"#));
        wait_for("the starts", || {
            (balancer.events("replica is starting").len() == 3).then_some(())
        });
        for id in 0..60 {
            assert_eq!(seat_in(&greeting(&balancer, id)), Some(1));
        }
        assert_eq!(balancer.replicas(), ["S1"]);
        assert_eq!(adding.join().unwrap().status, 200);
    });
    wait_for_seats(&balancer, &[1, 2, 3]);
    load.end();
}

#[test]
fn a_removal_of_a_container_that_is_just_dying_is_no_error_and_it_is_not_replaced() {
    for news in [News::Good, News::Lost] {
        let engine = Engine::start();
        let balancer = engine.balancer_with(3, &[]);
        let seats = engine.wait_for(3);
        let name = engine.world().find(&seats[&2]).unwrap().hostname().to_owned();
        engine.news(news);
        engine.kill(&seats[&2]);
        let named = json!({"n": 1, "hostnames": [name]}).to_string();
        let answer = balancer.json("DELETE", "/rm", &named);
        assert_eq!(answer.status, 200, "{news:?}: {answer:?}");
        assert_eq!(answer.json()["message"]["N"], 2);
        let left = engine.wait_for(2);
        assert_eq!(left.keys().collect::<Vec<_>>(), [&1, &3], "{news:?}");
        wait_for_seats(&balancer, &[1, 3]);
    }
}

#[test]
fn bad_names_never_reach_the_engine() {
    let engine = Engine::start();
    let balancer = engine.balancer_with(1, &[]);
    let long = "x".repeat(300);
    for bad in ["../x", "-x", "x;id", "", &long, "x\0", "\u{1f980}", "x\ny"] {
        let named = json!({"n": 2, "hostnames": ["good", bad]}).to_string();
        assert_eq!(balancer.json("POST", "/add", &named).status, 400, "{bad:?}");
    }
    for n in ["0", "-1", "1e9", "1000000000", "\"3\"", "3.5", "null"] {
        let body = format!(r#"{{"n":{n}}}"#);
        assert_eq!(balancer.json("POST", "/add", &body).status, 400, "{n}");
        assert_eq!(balancer.json("DELETE", "/rm", &body).status, 400, "{n}");
    }
    assert_eq!(engine.wait_for(1).len(), 1);
    assert_eq!(engine.calls(Call::Create).len(), 1);
    assert!(engine.calls(Call::Remove).is_empty());
}

#[test]
fn a_balancer_killed_in_the_middle_of_an_addition_leaves_no_orphan() {
    let engine = Engine::start();
    let stranger = engine.stranger("somebody");
    let mut balancer = engine.balancer_with(2, &[]);
    let seats = engine.wait_for(2);
    // Two of four are made and not started, the others only asked for.
    engine.fail(Call::Create, Fault::Hang, Some(2));
    engine.fail(Call::Start, Fault::Hang, None);
    let half_made = std::thread::scope(|scope| {
        let _adding = scope.spawn(|| {
            let json = [("Content-Type", "application/json")];
            let to = balancer.admin;
            // It is never answered.
            let _cut = crate::support::try_request(to, "POST", "/add", &json, br#"{"n":4}"#);
        });
        wait_for("half of it", || (engine.calls(Call::Start).len() == 4).then_some(()));
        balancer.signal(Signal::KILL);
        engine.world().ours().count()
    });
    assert_eq!(half_made, 4);
    assert!(!balancer.wait().success());
    engine.heal();

    let next = engine.balancer(&["--replicas", "2"]);
    let fleet = wait_for("as many containers as replicas", || {
        let (fleet, all) = (engine.seats(), engine.world().ours().count());
        (fleet.len() == all && next.replicas().len() == all).then_some(fleet)
    });
    assert!(seats.iter().all(|(seat, id)| fleet[seat] == *id), "{seats:?} {fleet:?}");
    wait_for_seats(&next, &fleet.into_keys().collect::<Vec<_>>());
    assert_eq!(engine.world().find(&stranger).unwrap().state, State::Running);
}

#[test]
fn a_balancer_that_starts_again_adopts_all_and_every_key_stays() {
    let engine = Engine::start();
    let mut balancer = engine.balancer_with(3, &[]);
    let seats = engine.wait_for(3);
    let owners = |balancer: &Balancer| {
        (0..60).map(|id| seat_in(&greeting(balancer, id))).collect::<Vec<_>>()
    };
    wait_for_seats(&balancer, &[1, 2, 3]);
    let before = owners(&balancer);
    balancer.signal(Signal::KILL);
    balancer.wait();

    let next = engine.balancer(&["--replicas", "3"]);
    next.wait_for_replicas(3);
    wait_for_seats(&next, &[1, 2, 3]);
    assert_eq!(owners(&next), before);
    assert_eq!(engine.wait_for(3), seats);
    assert_eq!(engine.calls(Call::Create).len(), 3);
}
