//! A configuration that changes while the balancer runs.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{QUICK, Routed, ask, ask_once, named, routed, text, three, written};
use crate::conformance::client::Client;
use crate::support::{Balancer, wait_for};

const HASH: &str = "policy = \"hash\"\n";
const STAYS: &str = "configuration is not good; the one that was read before stays";

/// As editors and configuration tools do it.
fn replace(file: &Path, text: &str) {
    let new = file.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, file).unwrap();
}

/// Waits until so many changes were taken.
fn taken(routed: &Routed, count: usize) {
    wait_for("the configuration to be read again", || {
        (routed.balancer.events("configuration was read again").len() >= count).then_some(())
    });
}

/// Who answers the next four requests with one key, over one connection.
fn four(client: &mut Client) -> Vec<String> {
    (0..4).map(|_| text(&ask(client, "GET /x", "X-Request-Id: 1\r\n"))).collect()
}

#[test]
fn a_changed_file_takes_effect_on_a_connection_that_stands() {
    let [a, b, c] = three();
    let routed = routed(&[&a, &b, &c], HASH);
    let mut client = Client::of(&routed.balancer);
    let names = four(&mut client);
    assert!(names.iter().all(|name| *name == names[0]), "{names:?}");

    // Another policy, by a file that takes the old one's place.
    replace(routed.file.path(), "policy = \"round-robin\"");
    taken(&routed, 1);
    let names = four(&mut client);
    assert!(names[0] != names[1] && names[1] != names[2] && names[0] == names[3], "{names:?}");

    // A route, by a file that is written in place.
    let all = "[[route]]\npaths = [\"/x\"]\nsend = \"all\"\nsuccess = [299]\nattempts = 1\n";
    std::fs::write(routed.file.path(), all).unwrap();
    taken(&routed, 2);
    assert_eq!(ask(&mut client, "GET /x", "").status, 502);
    assert_eq!(ask(&mut client, "GET /y", "").status, 200);

    // Limits. This answer ends the connection, as it says.
    replace(routed.file.path(), "[limits]\nfields = 2\nbody = \"4\"");
    taken(&routed, 3);
    assert_eq!(ask(&mut client, "GET /x", "").status, 200);
    assert_eq!(ask(&mut client, "GET /x", "Content-Length: 5\r\n").status, 413);
    assert_eq!(ask_once(&routed.balancer, "GET /x", "A: 1\r\nB: 1\r\n").status, 431);
    assert_eq!(routed.balancer.events("configuration was read again").len(), 3);
}

#[test]
fn limits_and_trust_of_a_changed_file_hold_for_the_next_request_of_a_connection_that_stands() {
    let a = named("a");
    let routed = routed(&[&a], "[limits]\nfields = 2");
    let mut clients = [(); 4].map(|()| Client::of(&routed.balancer));
    for client in &mut clients {
        assert_eq!(ask(client, "GET /x", "").status, 200);
    }
    let three = "A: 1\r\nB: 1\r\nX-Forwarded-For: 6.6.6.6\r\n";
    assert_eq!(ask(&mut clients[0], "GET /x", three).status, 431);

    // Raised: the first request on it is let in, and its client is trusted now.
    replace(routed.file.path(), "[limits]\nfields = 4\n[forwarded]\ntrust = [\"127.0.0.1\"]");
    taken(&routed, 1);
    assert_eq!(ask(&mut clients[1], "GET /trusted", three).status, 200);
    let seen = a.seen_with("/trusted");
    assert_eq!(seen[0].head.only("x-forwarded-for").as_deref(), Some("6.6.6.6, 127.0.0.1"));

    // Lowered: the first request on it is refused.
    replace(routed.file.path(), "[limits]\nfields = 1");
    taken(&routed, 2);
    assert_eq!(ask(&mut clients[2], "GET /x", "A: 1\r\n").status, 431);
    assert_eq!(ask(&mut clients[3], "GET /x", "").status, 200);
}

#[test]
fn a_file_that_has_become_empty_changes_nothing() {
    let [a, b, c] = three();
    let routed = routed(&[&a, &b, &c], "policy = \"round-robin\"");
    let mut client = Client::of(&routed.balancer);
    let told = || routed.balancer.events("configuration file is empty: it is ignored").len();
    let turns = |client: &mut Client| {
        let names = four(client);
        assert!(names[0] != names[1] && names[0] == names[3], "{names:?}");
    };
    for (round, text) in (1..).zip(["", " \n\n", "# policy = \"hash\"\n"]) {
        std::fs::write(routed.file.path(), text).unwrap();
        wait_for("a word about it", || (told() == round).then_some(()));
        turns(&mut client);
    }
    routed.balancer.signal(Signal::HUP);
    wait_for("a word about it", || (told() == 4).then_some(()));
    turns(&mut client);
    assert!(routed.balancer.events("configuration was read again").is_empty());
    replace(routed.file.path(), HASH);
    taken(&routed, 1);
    let names = four(&mut client);
    assert!(names.iter().all(|name| *name == names[0]), "{names:?}");
    assert_eq!(told(), 4);
}

#[test]
fn a_hangup_has_the_file_read_though_it_has_not_changed() {
    let [a, b, c] = three();
    let routed = routed(&[&a, &b, &c], HASH);
    let mut client = Client::of(&routed.balancer);
    let names = four(&mut client);
    routed.balancer.signal(Signal::HUP);
    taken(&routed, 1);
    assert_eq!(four(&mut client), names);
    replace(routed.file.path(), "policy = \"round-robin\"");
    routed.balancer.signal(Signal::HUP);
    wait_for("another policy", || {
        let names = four(&mut client);
        (names[0] != names[1]).then_some(())
    });
}

#[test]
fn a_balancer_without_a_file_lives_through_a_hangup() {
    let a = named("a");
    let servers = a.address.to_string();
    let balancer = Balancer::start(&[&QUICK[..], &["--servers", &servers]].concat());
    balancer.wait_for_replicas(1);
    balancer.signal(Signal::HUP);
    wait_for("the hangup to be heard", || {
        (!balancer.events("configuration was read again").is_empty()).then_some(())
    });
    assert_eq!(ask_once(&balancer, "GET /x", "").status, 200);
}

#[test]
fn a_file_that_is_not_good_changes_nothing_and_the_log_says_why() {
    let [a, b, c] = three();
    let routed = routed(&[&a, &b, &c], "policy = \"round-robin\"");
    let mut client = Client::of(&routed.balancer);
    let mut told = 0;
    for (text, why) in [
        ("policy = \"roundrobin\"", "unknown variant `roundrobin`"),
        ("policy = ", "TOML parse error"),
        (
            "[[route]]\nname = \"x\"\nsend = \"all\"\nattempts = 0",
            "'route \"x\": attempts' must be",
        ),
        ("[limits]\nfields = 0", "'limits.fields' must be"),
    ] {
        replace(routed.file.path(), text);
        told += 1;
        let events = wait_for("a complaint", || {
            Some(routed.balancer.events(STAYS)).filter(|events| events.len() == told)
        });
        let error = events[told - 1].fields["error"].as_str().unwrap().to_owned();
        assert!(error.contains(why), "{text}: {error}");
        let names = four(&mut client);
        assert!(names[0] != names[1] && names[0] == names[3], "{text}: {names:?}");
    }
    std::fs::remove_file(routed.file.path()).unwrap();
    let events = wait_for("a complaint", || {
        Some(routed.balancer.events(STAYS)).filter(|events| events.len() > told)
    });
    let error = events[told].fields["error"].to_string();
    assert!(error.contains("cannot read") && error.contains("No such file"), "{error}");
    replace(routed.file.path(), HASH);
    taken(&routed, 1);
    let names = four(&mut client);
    assert!(names.iter().all(|name| *name == names[0]), "{names:?}");
}

#[test]
fn what_needs_a_restart_is_told_and_the_rest_takes_effect() {
    let [a, b, c] = three();
    let servers = [&a, &b, &c].map(|upstream| upstream.address.to_string()).join(",");
    let file = written("placement = \"ring\"");
    let config = ["--config", file.path().to_str().unwrap(), "--servers", &servers];
    let balancer = Balancer::start(&[&QUICK[..], &config].concat());
    balancer.wait_for_replicas(3);
    let mut client = Client::of(&balancer);
    four(&mut client);
    let text = "policy = \"round-robin\"\n[ring]\nvirtual_nodes = 7\n\
                [admin]\ntoken = \"secret\"\n[timeouts]\ndrain = \"3s\"\n";
    replace(file.path(), text);
    let told = wait_for("a word about a restart", || {
        let message = "these settings have changed and need a restart of the balancer";
        balancer.events(message).pop()
    });
    assert_eq!(
        told.fields["keys"],
        "[admin], placement, timeouts.connect, drain, stop, pull, shutdown"
    );
    wait_for("another policy", || {
        let names = four(&mut client);
        (names[0] != names[1]).then_some(())
    });
}

#[test]
fn a_file_that_is_being_written_is_not_taken_before_it_stands_still() {
    // Two looks are half a second apart: only then can it have stood still.
    const PAUSE: Duration = Duration::from_millis(400);
    let [a, b, c] = three();
    let routed = routed(&[&a, &b, &c], "policy = \"round-robin\"");
    let mut client = Client::of(&routed.balancer);
    // For a moment it is empty each time, which would be a good file, and mean the defaults.
    let began = Instant::now();
    let mut written = began;
    let (mut line, mut pauses) = (0, 0);
    wait_for("some time to pass", || {
        line += 1;
        std::fs::write(routed.file.path(), format!("{HASH}# {line}\n")).unwrap();
        pauses += usize::from(written.elapsed() > PAUSE);
        written = Instant::now();
        (began.elapsed() > Duration::from_secs(2)).then_some(())
    });
    replace(routed.file.path(), "policy = \"round-robin\" # at last");
    pauses += usize::from(written.elapsed() > PAUSE);
    taken(&routed, 1);
    wait_for("what it is at last", || {
        let names = four(&mut client);
        (names[0] != names[1] && names[0] == names[3]).then_some(())
    });
    // What was taken has been told before this is.
    replace(routed.file.path(), "policy = ");
    routed.balancer.signal(Signal::HUP);
    wait_for("a complaint", || routed.balancer.events(STAYS).pop());
    let takes = routed.balancer.events("configuration was read again").len();
    assert!((1..=1 + pauses).contains(&takes), "{takes} times, with {pauses} pauses");
}

#[test]
fn turns_go_on_where_they_were() {
    let [a, b, c] = three();
    let routed = routed(&[&a, &b, &c], "policy = \"round-robin\"");
    let mut client = Client::of(&routed.balancer);
    let mut names = Vec::new();
    for reload in 1..=5 {
        names.extend(four(&mut client));
        routed.balancer.signal(Signal::HUP);
        taken(&routed, reload);
    }
    for turn in 3..names.len() {
        assert_eq!(names[turn], names[turn - 3], "{turn} of {names:?}");
    }
    assert_ne!(names[0], names[1]);
}
