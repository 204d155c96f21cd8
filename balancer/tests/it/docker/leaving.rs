//! A balancer that is killed while something comes, goes or dies.

use std::time::Duration;

use super::look::{fleet, kill_9, steady};
use super::*;

/// Requests that a replica takes two seconds for, so that its drain lasts.
const SLOW: [&str; 2] = ["--env", "SERVER_LATENCY=2s"];

/// Keeps requests at a replica; how they end does not matter.
fn occupy(balancer: &Balancer, hostname: &str) {
    let address = balancer.address;
    for key in 0..24 {
        thread::spawn(move || {
            let id = [("X-Request-Id", key.to_string())];
            let id = id.each_ref().map(|(name, value)| (*name, value.as_str()));
            try_request(address, "GET", "/home", &id, b"").ok()
        });
    }
    wait_for("a request at it", || {
        let fleet = fleet(balancer);
        let mut replicas = fleet["replicas"].as_array().unwrap().iter();
        let busy = replicas.any(|it| it["hostname"] == hostname && it["in_flight"] != 0);
        busy.then_some(())
    });
}

/// Asks for a change and does not wait for it.
fn begin(balancer: &Balancer, method: &'static str, path: &'static str, body: &Value) {
    let (admin, body) = (balancer.admin, body.to_string());
    let json = [("Content-Type", "application/json")];
    thread::spawn(move || try_request(admin, method, path, &json, body.as_bytes()).ok());
}

#[test]
fn a_removal_in_which_the_balancer_is_killed_is_completed_by_the_next() {
    let Some(pool) = engine("rm-killed") else { return };
    let drain = |span| [&SLOW[..], &["--timeout-drain", span]].concat();
    let mut balancer = pool.balancer(4, &drain("10s"));
    // While its requests finish, and while the container does.
    for (event, left) in [("rename", 3), ("kill", 2)] {
        let leaving = balancer.replicas()[0].clone();
        occupy(&balancer, &leaving);
        let began = unix_time();
        begin(&balancer, "DELETE", "/rm", &json!({"n": 1, "hostnames": [leaving]}));
        wait_for(event, || (!pool.events(event, began).is_empty()).then_some(()));
        kill_9(balancer);
        assert_eq!(pool.events("destroy", began), "", "it was not in the middle");

        balancer = pool.start(&drain("100ms"));
        pool.settled(&balancer, left);
        assert!(pool.find(&leaving).is_none(), "{event}: it is there still");
        assert_eq!(fleet(&balancer)["desired"], left, "{event}");
        steady("nothing to come", Duration::from_millis(500), || {
            pool.seated().is_some_and(|seats| seats.len() == left)
        });
        assert_eq!(pool.created(began), 0, "{event}: something was started");
    }
}

#[test]
fn an_addition_in_which_the_balancer_is_killed_leaves_no_orphan() {
    let Some(pool) = engine("add-killed") else { return };
    let late = ["--replicas", "1", "--env", "SERVER_START_DELAY=800ms"];
    let mut balancer = pool.balancer(1, &late[2..]);
    let mut least = 1;
    // While the first of them is made, and when all run and none is ready.
    for (event, times) in [("create", 1), ("start", 3)] {
        let began = unix_time();
        begin(&balancer, "POST", "/add", &json!({"n": 3}));
        wait_for(event, || (pool.events(event, began).lines().count() >= times).then_some(()));
        kill_9(balancer);

        balancer = pool.start(&late);
        let mut n = 0;
        steady("a fleet without orphans", Duration::from_millis(1_200), || {
            let (seats, replicas) = (pool.seated(), balancer.replicas().len());
            let same = n == replicas;
            n = replicas;
            same && seats.is_some_and(|seats| seats.len() == replicas)
        });
        let made = pool.created(began);
        assert!((least..=least + 3).contains(&n), "{event}: {n} of {least} and 3 more");
        assert_eq!(fleet(&balancer)["desired"], n, "{event}");
        say(&format!("killed in /add of 3 at {event:?}: {least} became {n}, {made} were made"));
        assert!(made <= 3, "{event}: {made} were made");
        least = n;
    }
}

#[test]
fn seats_whose_replicas_die_around_the_balancers_end_are_filled_by_the_next() {
    let Some(pool) = engine("both-killed") else { return };
    let mut balancer = pool.balancer(3, &[]);
    let before = owners(&balancer);
    for (together, dead) in [(true, 2), (false, 2), (false, 3)] {
        let ids: Vec<String> = pool.ids().into_values().collect();
        let kill: Vec<String> =
            std::iter::once("kill".to_owned()).chain(ids[..dead].to_vec()).collect();
        let kill = move || docker(&kill.iter().map(String::as_str).collect::<Vec<_>>());
        if together {
            let killing = thread::spawn(kill);
            kill_9(balancer);
            killing.join().unwrap();
        } else {
            kill_9(balancer);
            kill();
        }

        let began = Instant::now();
        balancer = pool.start(&["--replicas", "3"]);
        let seats = pool.settled(&balancer, 3);
        let took = began.elapsed().as_millis();
        say(&format!("{dead} of 3 dead at a balancer's start: all replaced after {took} ms"));
        assert_eq!(seats.keys().collect::<Vec<_>>(), [&1, &2, &3]);
        let kept = seats.values().filter(|id| ids.contains(id)).count();
        assert_eq!(kept, 3 - dead, "{ids:?} {seats:?}");
        wait_for("every key where it was", || (owners(&balancer) == before).then_some(()));
    }
}
