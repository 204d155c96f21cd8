//! Two balancers of one pool.

use std::time::Duration;

use super::look::kill_9;
use super::*;

#[test]
fn two_balancers_of_a_pool_come_to_the_same_fleet_and_rest() {
    let Some(pool) = engine("pair") else { return };
    let one = pool.balancer(4, &["--shared"]);
    let other = pool.start(&["--replicas", "4", "--shared"]);
    other.wait_for_replicas(4);
    let ids = pool.ids();

    let began = unix_time();
    docker(&["kill", &ids[&1], &ids[&2]]);
    let (added, removed) = thread::scope(|scope| {
        let adding = scope.spawn(|| one.json("POST", "/add", r#"{"n": 2}"#));
        let removing = scope.spawn(|| other.json("DELETE", "/rm", r#"{"n": 1}"#));
        (adding.join().unwrap(), removing.join().unwrap())
    });
    assert_eq!((added.status, removed.status), (200, 200), "{added:?} {removed:?}");
    let from = Instant::now();
    let fleet = || {
        let [one, other] = [&one, &other].map(|it| BTreeSet::from_iter(it.replicas()));
        (one == other).then_some(one)
    };
    let agreed = wait_for("both to have the same fleet", || {
        let seats = pool.seated()?;
        fleet().filter(|both| both.len() == seats.len())
    });
    let took = from.elapsed();
    let made = pool.created(began);

    // Whatever they disagree on, they would do something about it within a listing or two.
    let (calm, before) = (unix_time(), pool.seated());
    let until = Instant::now() + Duration::from_secs(5);
    wait_for("five seconds of rest", || {
        if let Some(both) = fleet() {
            assert_eq!(both, agreed);
        }
        (Instant::now() >= until).then_some(())
    });
    assert_eq!(pool.seated(), before);
    for event in ["create", "die", "destroy", "rename"] {
        assert_eq!(pool.events(event, calm), "", "they fight");
    }
    say(&format!(
        "two balancers, two deaths, two more here and one less there: the same {} after {} ms; \
         {made} containers made, 4 needed",
        agreed.len(),
        took.as_millis(),
    ));
    assert_eq!(agreed.len(), 5);
    assert!(made <= 6, "{made} containers were made");
    for balancer in [&one, &other] {
        assert_eq!(owners(balancer).values().collect::<BTreeSet<_>>().len(), 5);
    }
    assert_eq!(owners(&one), owners(&other));
}

#[test]
fn a_second_balancer_joins_and_leaves_and_no_request_fails() {
    let Some(pool) = engine("joined") else { return };
    let mut one = pool.balancer(3, &["--shared"]);
    let (ids, began) = (pool.ids(), unix_time());
    let load = Load::start(one.address);
    let from = Instant::now();

    let mut second = pool.start(&["--replicas", "3", "--shared"]);
    second.wait_for_replicas(3);
    assert_eq!(owners(&second), owners(&one));
    second.signal(Signal::TERM);
    assert_eq!(second.wait().code(), Some(0));
    // And the one that came first.
    let third = pool.start(&["--replicas", "3", "--shared"]);
    third.wait_for_replicas(3);
    let (seconds, requests) = (from.elapsed().as_secs_f64(), load.end());
    let load = Load::start(third.address);
    let stopping = Instant::now();
    one.signal(Signal::TERM);
    assert_eq!(one.wait().code(), Some(0));
    let stopped = stopping.elapsed();
    let more = load.end();

    for event in ["create", "die", "destroy", "rename"] {
        assert_eq!(pool.events(event, began), "", "a replica was touched");
    }
    assert_eq!(pool.ids(), ids);
    assert_eq!(third.replicas().len(), 3);
    say(&format!(
        "a balancer joins and leaves beside {requests} requests ({:.0} a second), the first one \
         leaves within {} ms beside {more}: none failed, no container was touched",
        requests as f64 / seconds,
        stopped.as_millis(),
    ));
}

#[test]
fn a_killed_balancer_takes_its_pool_over_at_once_and_another_one_waits_or_is_refused() {
    let Some(pool) = engine("taken-over") else { return };
    let balancer = pool.balancer(2, &[]);
    let (address, ids) = (balancer.address.to_string(), pool.ids());
    assert_eq!(balancer.json("POST", "/add", r#"{"n": 1}"#).status, 200);
    let arguments = [&pool.arguments()[..], &["--listen", "127.0.0.1:0"]].concat();
    let mut refused = Command::new(env!("CARGO_BIN_EXE_balancer"));
    let refused = refused.args(&arguments).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("is held by another balancer") && said.contains(&address), "{said}");

    kill_9(balancer);
    let began = Instant::now();
    let next = pool.start(&["--replicas", "2", "--listen", &address]);
    let took = began.elapsed();
    say(&format!("a killed balancer serves again after {} ms", took.as_millis()));
    assert!(took < Duration::from_secs(5), "{took:?}");
    next.wait_for_replicas(3);
    let after = pool.ids();
    assert!(after.len() == 3 && ids.iter().all(|(seat, id)| after[seat] == *id), "{after:?}");
}

#[test]
fn what_a_killed_balancer_left_is_removed_by_clean() {
    let Some(pool) = engine("left") else { return };
    let balancer = pool.balancer(2, &[]);
    kill_9(balancer);
    let clean = |more: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_balancer"));
        let output = command.args(["clean", "--pool", &pool.name, more]).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let listed = clean("--dry-run");
    assert!(listed.contains(&pool.name), "{listed}");
    assert_eq!(pool.containers().len(), 2);
    clean("--yes");
    assert!(pool.containers().is_empty() && !pool.has_network() && pool.leases().is_empty());
}
