//! Servers whose probes are good and whose answers to real requests are not.

use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::listed::{Listed, over};
use super::{events, fleet, greeting, in_state};
use crate::support::{Balancer, wait_for};

/// A key of this server.
fn key_of(balancer: &Balancer, server: &Listed) -> u32 {
    let reaches = |id: &u32| {
        let before = server.asked();
        greeting(balancer, *id);
        server.asked() > before
    };
    (0..).find(reaches).unwrap()
}

fn time(event: &Value) -> SystemTime {
    humantime::parse_rfc3339(event["time"].as_str().unwrap()).unwrap()
}

#[test]
fn five_errors_in_a_row_eject_a_server_for_a_time_that_doubles() {
    let base = Duration::from_millis(400);
    let (servers, balancer) = over(3, &["--outliers-base", "400ms"]);
    let bad = &servers[1];
    let id = key_of(&balancer, bad);
    let ask = |status: u16, times: usize| {
        bad.answers(status);
        for _ in 0..times {
            assert_eq!(greeting(&balancer, id).status, status);
        }
    };
    // Not in a row.
    ask(500, 4);
    ask(200, 1);
    ask(500, 4);
    ask(200, 1);
    let mut lasted = Vec::new();
    for round in 1..=2 {
        ask(500, 5);
        let out = wait_for("its ejection", || {
            Some(events(&balancer, "ejected")).filter(|ejected| ejected.len() == round)
        });
        let out = out.last().unwrap();
        assert_eq!(out["hostname"], bad.address.to_string());
        assert_eq!(out["reason"], "too many failed requests in a row");
        // Until it is back, others answer for it, and well.
        let asked = bad.asked();
        let back = wait_for("its return", || {
            let answer = greeting(&balancer, id);
            assert!(answer.status == 200 || bad.asked() > asked, "{answer:?}");
            (bad.asked() > asked).then_some(())?;
            events(&balancer, "ready").into_iter().nth(2 + round)
        });
        assert_eq!(back["hostname"], bad.address.to_string());
        lasted.push(time(&back).duration_since(time(out)).unwrap());
        ask(200, 1);
    }
    // Times are told in whole milliseconds.
    let slack = Duration::from_millis(2);
    assert!(lasted[0] + slack >= base && lasted[1] + slack >= 2 * base, "{lasted:?}");
    assert!(lasted[0] < lasted[1], "{lasted:?}");
    assert_eq!(in_state(&fleet(&balancer), "ready"), 3);
    assert_eq!(balancer.replicas().len(), 3, "it was listed all the time");
}

#[test]
fn one_that_is_out_gets_no_request_until_it_is_back() {
    let (servers, balancer) = over(2, &["--outliers-base", "1h", "--outliers-max", "1h"]);
    let id = key_of(&balancer, &servers[0]);
    servers[0].answers(503);
    let asked = servers[0].asked();
    for _ in 0..5 {
        assert_eq!(greeting(&balancer, id).status, 503);
    }
    wait_for("its ejection", || events(&balancer, "ejected").pop());
    wait_for("its absence", || (in_state(&fleet(&balancer), "ejected") == 1).then_some(()));
    for other in 0..100 {
        assert_eq!(greeting(&balancer, other).status, 200);
    }
    assert_eq!(servers[0].asked(), asked + 5);
}

#[test]
fn the_last_one_is_never_ejected() {
    let (servers, balancer) = over(2, &["--outliers-base", "1h", "--outliers-max", "1h"]);
    servers.iter().for_each(|server| server.answers(500));
    wait_for("an ejection", || {
        (0..10).for_each(|id| assert_eq!(greeting(&balancer, id).status, 500));
        events(&balancer, "ejected").pop()
    });
    // All that come now go to the one that is left, whose answers are no better.
    for id in 0..60 {
        assert_eq!(greeting(&balancer, id).status, 500);
    }
    let status = fleet(&balancer);
    assert_eq!((in_state(&status, "ready"), in_state(&status, "ejected")), (1, 1), "{status}");
    assert_eq!(status["panic"], false);

    let (servers, balancer) = over(1, &[]);
    servers[0].answers(500);
    for id in 0..20 {
        assert_eq!(greeting(&balancer, id).status, 500);
    }
    assert_eq!(in_state(&fleet(&balancer), "ready"), 1);
    assert!(events(&balancer, "ejected").is_empty());
}

#[test]
fn no_more_than_the_given_share_is_ejected_at_once() {
    let arguments = ["--outliers-base", "1h", "--outliers-max", "1h"];
    for (share, out) in [("50%", 2), ("25%", 1), ("0%", 1)] {
        let share = ["--outliers-max-share", share];
        let (servers, balancer) = over(4, &[&arguments[..], &share].concat());
        servers.iter().for_each(|server| server.answers(500));
        let ejected = || in_state(&fleet(&balancer), "ejected");
        wait_for("as many ejections", || {
            (0..10).for_each(|id| assert_eq!(greeting(&balancer, id).status, 500));
            (ejected() == out).then_some(())
        });
        for id in 0..60 {
            assert_eq!(greeting(&balancer, id).status, 500);
        }
        assert_eq!(ejected(), out);
    }
}

#[test]
fn zero_turns_it_off_and_other_numbers_count() {
    let (servers, balancer) = over(2, &["--outliers-consecutive", "0"]);
    servers[0].answers(500);
    let id = key_of(&balancer, &servers[0]);
    for _ in 0..30 {
        assert_eq!(greeting(&balancer, id).status, 500);
    }
    assert_eq!(in_state(&fleet(&balancer), "ready"), 2);
    assert!(events(&balancer, "ejected").is_empty());

    let (servers, balancer) =
        over(2, &["--outliers-consecutive", "1", "--outliers-base", "1h", "--outliers-max", "1h"]);
    let id = key_of(&balancer, &servers[0]);
    servers[0].answers(502);
    assert_eq!(greeting(&balancer, id).status, 502);
    wait_for("its ejection", || events(&balancer, "ejected").pop());
}

#[test]
fn answers_that_blame_the_client_eject_nobody() {
    let (servers, balancer) = over(2, &["--outliers-consecutive", "2"]);
    for status in [400, 404, 429, 499] {
        servers.iter().for_each(|server| server.answers(status));
        for id in 0..20 {
            assert_eq!(greeting(&balancer, id).status, status);
        }
    }
    assert_eq!(in_state(&fleet(&balancer), "ready"), 2);
    assert!(events(&balancer, "ejected").is_empty());
}
