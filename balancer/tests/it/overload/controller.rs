//! The overload controller of the balancer's own.

use std::time::{Duration, Instant};

use super::{Held, answered_by, is_enabled, told};
use crate::support::{Balancer, wait_for};

/// Disables what has more than three of four requests in flight.
const CONTROLLER: [&str; 6] = [
    "--overload-capacity=4",
    "--overload-max-load=0.75",
    "--overload-resume-load=0.25",
    "--overload-interval=50ms",
    "--overload-min-ready=2",
    "--overload-enabled=true",
];

#[test]
fn one_that_is_overloaded_is_disabled_until_it_has_worked_it_off() {
    let held = Held::start(&CONTROLLER);
    let (balancer, names, keys) = (&held.balancer, held.names(), held.keys());
    let mut clients = held.hold(&keys[1][0], 3, 1);
    clients.extend(held.hold(&keys[1][0], 1, 1));
    wait_for("it to be disabled", || (!is_enabled(balancer, &names[1])).then_some(()));
    assert_ne!(answered_by(balancer, &keys[1][1]), "b");
    assert!(is_enabled(balancer, &names[0]) && is_enabled(balancer, &names[2]));
    held.servers[1].let_go();
    for client in &mut clients {
        assert_eq!(client.must_answer("held").status, 200);
    }
    wait_for("it to be enabled", || is_enabled(balancer, &names[1]).then_some(()));
    assert_eq!(answered_by(balancer, &keys[1][1]), "b");
    let lines = told(balancer, " node ");
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(lines[0], format!("Disabling node {}, queued requests: 4", names[1]));
    assert!(lines[1].starts_with(&format!("Enabling node {}, queued", names[1])), "{lines:?}");
}

#[test]
fn the_minimum_stays_when_all_are_overloaded() {
    let held = Held::start(&CONTROLLER);
    let (balancer, names, keys) = (&held.balancer, held.names(), held.keys());
    // The last one is the worst.
    let counts = [4, 5, 6];
    // At once, so that none is disabled before all have theirs.
    let _held: Vec<_> =
        (0..3).map(|place| super::hold(balancer, &keys[place][0], counts[place])).collect();
    let disabled = || {
        let is_off = |name: &&String| !is_enabled(balancer, name);
        names.iter().filter(is_off).count()
    };
    wait_for("one to be disabled", || (disabled() == 1).then_some(()));
    // Several looks later it is still one: nobody has anything answered.
    let since = Instant::now();
    wait_for("several looks", || {
        assert_eq!(disabled(), 1);
        (since.elapsed() > Duration::from_millis(500)).then_some(())
    });
    assert_eq!(answered_by(balancer, "1").len(), 1, "requests are answered");
}

#[test]
fn one_is_enabled_again_where_the_minimum_needs_it() {
    let held = Held::start(&CONTROLLER);
    let (balancer, names, keys) = (&held.balancer, held.names(), held.keys());
    let _clients = held.hold(&keys[0][0], 4, 0);
    wait_for("it to be disabled", || (!is_enabled(balancer, &names[0])).then_some(()));
    let remove = format!(r#"{{"n":1,"hostnames":["{}"]}}"#, names[1]);
    assert_eq!(balancer.json("DELETE", "/rm", &remove).status, 200);
    wait_for("it to be enabled", || is_enabled(balancer, &names[0]).then_some(()));
    let lines = told(balancer, "Enabling");
    assert_eq!(lines, [format!("Enabling node {}, queued requests: 4", names[0])]);
    assert_eq!(answered_by(balancer, &keys[0][1]), "a");
}

#[test]
fn existing_controllers_variables_set_it() {
    let variables = [
        ("MIN_NUMBER_OF_SERVERS", "1"),
        ("MAX_ACCEPTABLE_LOAD", "0"),
        ("UPDATE_INTERVAL", "0.05"),
        ("LOG_LEVEL", "INFO"),
    ];
    let servers = ["a", "b"].map(super::Holding::start);
    let list = servers.each_ref().map(super::Holding::name);
    let list = list.join(",");
    let flags = [&super::QUICK[..], &["--servers", &list]].concat();
    let balancer = Balancer::start_with(&flags, &variables);
    balancer.wait_for_replicas(2);
    // One request is too many for it, and one server stays in any case.
    let _held = super::hold(&balancer, "1", 1);
    wait_for("one to be disabled", || {
        let off = servers.iter().find(|server| !is_enabled(&balancer, &server.name()))?;
        assert_eq!(off.holds(), 1);
        Some(())
    });
    let lines = told(&balancer, "Disabling node ");
    assert_eq!(lines.len(), 1);
    assert!(lines[0].ends_with(", queued requests: 1"), "{lines:?}");
}
