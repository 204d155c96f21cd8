//! Events that are lost, late, doubled, or in a wrong order: they hasten the next listing, and that
//! is all.

use std::time::{Duration, Instant};

use super::{Load, wait_for_seats};
use crate::engine::{Call, Engine, News};
use crate::support::wait_for;

#[test]
fn a_death_whose_event_is_lost_is_found_by_the_next_listing() {
    let engine = Engine::start();
    let balancer = engine.balancer_with(3, &[]);
    let before = engine.wait_for(3);
    let load = Load::start(balancer.address);
    engine.news(News::Lost);
    let killed = Instant::now();
    engine.kill(&before[&2]);
    wait_for("another on its seat", || {
        (engine.wait_for(3)[&2] != before[&2] && balancer.replicas().len() == 3).then_some(())
    });
    let took = killed.elapsed();
    assert!(took < Duration::from_secs(5), "it was replaced after {took:?}");
    load.end();
    let after = engine.wait_for(3);
    assert_eq!((&after[&1], &after[&3]), (&before[&1], &before[&3]));
    assert_eq!(engine.calls(Call::Create).len(), 4);
}

#[test]
fn an_event_that_comes_twice_replaces_once() {
    let engine = Engine::start();
    let balancer = engine.balancer_with(3, &[]);
    let before = engine.wait_for(3);
    engine.news(News::Doubled);
    let load = Load::start(balancer.address);
    engine.kill(&before[&2]);
    wait_for("another on its seat", || {
        (engine.wait_for(3)[&2] != before[&2] && balancer.replicas().len() == 3).then_some(())
    });
    load.end();
    wait_for_seats(&balancer, &[1, 2, 3]);
    assert_eq!(engine.calls(Call::Create).len(), 4);
}

#[test]
fn an_old_death_told_late_or_again_replaces_nothing_that_runs() {
    let engine = Engine::start();
    let balancer = engine.balancer_with(3, &[]);
    let before = engine.wait_for(3);
    let load = Load::start(balancer.address);

    // Death and start told in the wrong order, long after both; then the death once more.
    engine.news(News::Held);
    for id in before.values() {
        let mut died = engine.world().find(id).unwrap().event("die");
        died["timeNano"] = (died["timeNano"].as_u64().unwrap() - 60_000_000_000).into();
        died["Actor"]["Attributes"]["exitCode"] = "137".into();
        engine.news(News::Good);
        let start = engine.world().find(id).unwrap().event("start");
        engine.tell(start);
        engine.tell(died.clone());
        engine.tell(died);
    }
    let listings = engine.calls(Call::List).len();
    wait_for("some listings", || (engine.calls(Call::List).len() >= listings + 4).then_some(()));
    assert_eq!(engine.wait_for(3), before, "one that runs was replaced");
    assert!(balancer.events("replica is dead").is_empty());
    load.end();
}

#[test]
fn a_container_that_an_operator_restarted_is_kept_or_replaced_and_never_two_on_a_seat() {
    for news in [News::Good, News::Lost, News::Doubled, News::Held] {
        let engine = Engine::start();
        let balancer = engine.balancer_with(3, &[]);
        let before = engine.wait_for(3);
        let old = engine.world().find(&before[&2]).unwrap().address().unwrap();
        let load = Load::start(balancer.address);
        engine.news(news);
        engine.restart(&before[&2]);
        // Told from the last to the first.
        engine.news(News::Good);
        let held = std::mem::take(&mut engine.world().held);
        for event in held.into_iter().rev() {
            engine.tell(event);
        }
        wait_for_seats(&balancer, &[1, 2, 3]);
        load.end();
        let after = engine.wait_for(3);
        assert_eq!((&after[&1], &after[&3]), (&before[&1], &before[&3]), "{news:?}");
        let new = engine.world().find(&after[&2]).unwrap().address().unwrap();
        assert_ne!(new, old, "{news:?}: its address was read again");
        assert_eq!(balancer.wait_for_replicas(3).len(), 3, "{news:?}");
    }
}

#[test]
fn an_event_hastens_the_next_listing_and_a_flood_of_them_does_not_become_a_flood_of_calls() {
    let engine = Engine::start();
    let balancer = engine.balancer_with(2, &[]);
    let seats = engine.wait_for(2);
    let event = engine.world().find(&seats[&1]).unwrap().event("health_status");
    let began = Instant::now();
    for _ in 0..40 {
        let listed = engine.calls(Call::List).len();
        wait_for("a listing", || {
            engine.tell(event.clone());
            (engine.calls(Call::List).len() > listed).then_some(())
        });
    }
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(600), "forty listings within {took:?}");
    // Without a hint there is one a second.
    assert!(took < Duration::from_secs(20), "forty listings within {took:?}");
    assert_eq!(balancer.replicas().len(), 2);
    assert_eq!(engine.wait_for(2), seats);
}

#[test]
fn a_container_that_loses_its_network_leaves_the_table_at_once_and_says_why() {
    for news in [News::Good, News::Lost] {
        let engine = Engine::start();
        // Health checks would take a minute to find it.
        let balancer = engine.balancer_with(2, &["--health-interval", "1m"]);
        let seats = engine.wait_for(2);
        let load = Load::start(balancer.address);
        engine.news(news);
        engine.attach(&seats[&2], false);
        let cut = Instant::now();
        let line = wait_for("the reason", || balancer.events("replica not ready").pop());
        let took = line.at - cut;
        // An event of the network hints at it; without one the next listing finds it.
        let within = Duration::from_secs(if news == News::Good { 1 } else { 5 });
        assert!(took < within, "{news:?}: after {took:?}");
        assert_eq!(line.fields["reason"], "no address on network \"net1\"", "{news:?}");
        assert_eq!(line.fields["hostname"], "S2", "{news:?}");
        assert_eq!(balancer.replicas(), ["S1"], "{news:?}");
        wait_for_seats(&balancer, &[1]);
        engine.attach(&seats[&2], true);
        wait_for_seats(&balancer, &[1, 2]);
        load.end();
        assert_eq!(engine.wait_for(2), seats, "{news:?}: it was replaced");
        assert_eq!(balancer.events("replica not ready").len(), 1, "{news:?}: once");
    }
}
