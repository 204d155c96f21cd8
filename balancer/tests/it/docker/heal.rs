//! Containers that are frozen, ill, told to stop, or want more memory than there is.

use std::time::Duration;

use super::look::{Image, engine_with, fleet, kill_9, name_of, news, number, told};
use super::*;

/// Probes that come too seldom to find anything within the tests' time: 15 s for three.
const SELDOM: [&str; 2] = ["--health-interval", "5s"];

/// Far sooner than probes could find it, or the next listing would without a hint: from when the
/// engine has done what it was told.
const AT_ONCE: Duration = Duration::from_millis(900);

#[test]
fn a_container_that_is_paused_for_long_is_replaced_and_one_that_wakes_in_time_is_not() {
    let Some(pool) = engine("frozen") else { return };
    let balancer = pool.balancer(3, &[&SELDOM[..], &["--health-replace-after", "3s"]].concat());
    let (ids, before) = (pool.ids(), owners(&balancer));
    let victim = &pool.containers()[0];
    let (hostname, seat, id) = (hostname_of(victim), seat_of(victim), id_of(victim));
    let greeting = format!("Hello from Server: {seat}");

    docker(&["pause", id]);
    let began = Instant::now();
    let ejected = news(&balancer, "ejected", &hostname);
    let out = began.elapsed();
    assert_eq!(ejected["reason"], "paused");
    assert!(out < AT_ONCE, "out after {out:?}");
    let meanwhile = owners(&balancer);
    for (key, owner) in &before {
        assert_ne!(meanwhile[key], greeting, "a request went to it");
        assert!(*owner == greeting || meanwhile[key] == *owner, "another's key moved");
    }
    docker(&["unpause", id]);
    let began = Instant::now();
    wait_for("its keys to be back", || (owners(&balancer) == before).then_some(()));
    let back = began.elapsed();
    assert!(back < AT_ONCE, "back after {back:?}");
    assert_eq!(pool.ids(), ids, "it was replaced, though it woke in time");

    let began = Instant::now();
    docker(&["pause", id]);
    let hung = news(&balancer, "hung", &hostname);
    let replacement = wait_for("another on its seat, ready", || {
        told(&balancer).into_iter().find(|event| {
            number(event) > number(&hung) && event["event"] == "ready" && event["seat"] == seat
        })
    });
    // It may wake just now, or be gone already.
    let _gone_already = try_docker(&["unpause", id]);
    let seats = pool.settled(&balancer, 3);
    say(&format!(
        "docker pause, probes every 5 s: out after {} ms, back after {} ms; to be replaced after \
         3 s: replaced after {} ms",
        out.as_millis(),
        back.as_millis(),
        began.elapsed().as_millis(),
    ));
    assert_eq!(
        pool.find(replacement["hostname"].as_str().unwrap()).map(|it| seat_of(&it)),
        Some(seat)
    );
    assert!(inspect(&[id]).is_empty(), "the one that was replaced is there still");
    for (at, id) in &ids {
        assert_eq!(seats[at] == *id, *at != seat, "{ids:?} {seats:?}");
    }
    assert_eq!(owners(&balancer), before);
}

#[test]
fn a_container_that_calls_itself_unhealthy_is_out_until_it_is_well() {
    let check = "HEALTHCHECK --interval=200ms --timeout=5s --retries=1 CMD test ! -e /tmp/ill";
    let Some((image, pool)) = engine_with("ill", || Image::build("checked", check)) else { return };
    let balancer = pool.balancer(2, &[&SELDOM[..], &["--image", &image.name]].concat());
    let (ids, before) = (pool.ids(), owners(&balancer));
    let victim = &pool.containers()[0];
    let (hostname, id) = (hostname_of(victim), id_of(victim));

    docker(&["exec", id, "touch", "/tmp/ill"]);
    let began = Instant::now();
    let ejected = news(&balancer, "ejected", &hostname);
    let out = began.elapsed();
    assert_eq!(ejected["reason"], "container health: unhealthy");
    let greeted = owners(&balancer).into_values().collect::<BTreeSet<_>>();
    assert_eq!(greeted.len(), 1, "a request went to it");
    docker(&["exec", id, "rm", "/tmp/ill"]);
    let began = Instant::now();
    wait_for("its keys to be back", || (owners(&balancer) == before).then_some(()));
    let back = began.elapsed();
    assert!(out < AT_ONCE && back < AT_ONCE, "{out:?} {back:?}");
    assert_eq!(pool.ids(), ids, "it was replaced");
    say(&format!(
        "unhealthy: out after {} ms, back after {} ms",
        out.as_millis(),
        back.as_millis()
    ));
}

#[test]
fn a_container_taken_off_its_network_is_out_at_once_and_says_why() {
    let Some(pool) = engine("off-network") else { return };
    let balancer = pool.balancer(2, &SELDOM);
    let victim = &pool.containers()[0];
    let (hostname, id) = (hostname_of(victim), id_of(victim));
    docker(&["network", "disconnect", &pool.name, id]);
    let began = Instant::now();
    let lost = news(&balancer, "not-ready", &hostname);
    let out = began.elapsed();
    assert_eq!(lost["reason"], format!("no address on network {:?}", pool.name));
    assert_eq!(lost["state"], "starting");
    assert!(out < AT_ONCE, "after {out:?}");
    assert!(!balancer.replicas().contains(&hostname), "it is in the table still");
    let greeted = owners(&balancer).into_values().collect::<BTreeSet<_>>();
    assert_eq!(greeted.len(), 1, "a request went to it");
    docker(&["network", "connect", &pool.name, id]);
    balancer.wait_for_replicas(2);
    say(&format!("taken off its network: out after {} ms", out.as_millis()));
}

#[test]
fn a_container_that_an_operator_stops_is_out_before_it_is_dead() {
    let Some(pool) = engine("told-to-stop") else { return };
    // So it has something to finish between the signal and its end.
    let slow = ["--env", "SERVER_LATENCY=300ms"];
    let balancer = pool.balancer(3, &[&SELDOM[..], &slow].concat());
    let load = Load::start(balancer.address);
    let victim = &pool.containers()[1];
    let (hostname, seat) = (hostname_of(victim), seat_of(victim));

    docker(&["stop", id_of(victim)]);
    let ejected = news(&balancer, "ejected", &hostname);
    let died = news(&balancer, "died", &hostname);
    assert_eq!(ejected["reason"], "stopped from outside the balancer");
    assert!(number(&ejected) < number(&died), "{ejected} {died}");
    let after = pool.settled(&balancer, 3);
    assert_ne!(after[&seat], id_of(victim));
    load.end();
}

#[test]
fn a_container_that_wants_too_much_memory_is_replaced_and_that_is_the_reason() {
    let eats = r#"ENTRYPOINT ["bash", "-c", "server & until test -e /tmp/eat; do sleep 0.1; done; exec perl -e '$x .= q(x) x 1e6 while 1'"]"#;
    let Some((image, pool)) = engine_with("greedy", || Image::build("greedy", eats)) else {
        return;
    };
    let limits = ["--memory", "32MiB", "--image", &image.name];
    let balancer = pool.balancer(2, &limits);
    let load = Load::start(balancer.address);
    let victims = pool.containers();

    let first = &victims[0];
    docker(&["exec", id_of(first), "touch", "/tmp/eat"]);
    let died = news(&balancer, "died", &hostname_of(first));
    assert_eq!(died["reason"], "out of memory", "{died}");
    pool.settled(&balancer, 2);
    load.end();
    assert!(fleet(&balancer)["counts"]["died"] == 1);

    // One that dies so while nobody looks: the engine is asked.
    let second = &victims[1];
    kill_9(balancer);
    docker(&["exec", id_of(second), "touch", "/tmp/eat"]);
    wait_for("its end", || inspect(&[id_of(second)]).pop().filter(|it| !runs(it)));
    let next = pool.start(&[&limits[..], &["--replicas", "2"]].concat());
    let died = news(&next, "died", &hostname_of(second));
    assert_eq!(died["reason"], "out of memory", "{died}");
    pool.settled(&next, 2);
    assert!(pool.containers().iter().all(|it| !name_of(it).ends_with(".leaving")));
}
