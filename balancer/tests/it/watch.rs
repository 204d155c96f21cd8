//! Overload controllers from outside: `balancer watch` against a scripted API, and it and a
//! foreign one against a real balancer.

mod api;
mod controller;
mod failing;
mod real;

use rustix::process::Signal;

use api::Api;
use controller::{Controller, once, watch};

/// Flags for small numbers and short rounds: above 75 a node is overloaded.
const QUICK: [&str; 4] = ["--capacity", "100", "--interval", "20ms"];

#[test]
fn the_minimum_stays_when_every_node_is_overloaded() {
    let api = Api::start(&[("s-1", 400), ("s-2", 436), ("s-3", 390), ("s-4", 420)]);
    let mut controller = Controller::watch(&api.url(), &["--interval", "20ms"]);
    api.wait_for_rounds(4);
    assert_eq!(api.changes(), ["s-2/disable", "s-4/disable"]);
    assert_eq!(
        controller.said("ling node"),
        ["Disabling node s-2, queued requests: 436", "Disabling node s-4, queued requests: 420"]
    );
    // Another one that comes is one that can be spared.
    api.set("s-5", 0);
    controller.wait_for("Disabling node s-1, queued requests: 400");
    api.wait_for_rounds(4);
    assert_eq!(api.changes().len(), 3);
    controller.end();
}

#[test]
fn a_node_between_the_two_thresholds_stays_as_it_is() {
    let api = Api::start(&[("a", 75), ("b", 0), ("c", 0)]);
    let flags = [&QUICK[..], &["--resume-load", "0.5"]].concat();
    let controller = Controller::watch(&api.url(), &flags);
    api.wait_for_rounds(3);
    assert_eq!(api.changes(), [""; 0]);
    api.set("a", 76);
    controller.wait_for("Disabling node a, queued requests: 76");
    api.set("a", 51);
    api.wait_for_rounds(3);
    assert_eq!(api.changes(), ["a/disable"]);
    api.set("a", 50);
    controller.wait_for("Enabling node a, queued requests: 50");
    api.set("a", 75);
    api.wait_for_rounds(3);
    assert_eq!(api.changes(), ["a/disable", "a/enable"]);
}

#[test]
fn settings_come_from_variables_as_other_controllers_have_them() {
    let api = Api::start(&[("a", 51), ("b", 61), ("c", 71)]);
    let env = [
        ("BALANCER_WATCH_API", api.url()),
        ("BALANCER_OVERLOAD_CAPACITY", "100".to_owned()),
        ("MIN_NUMBER_OF_SERVERS", "1".to_owned()),
        ("MAX_ACCEPTABLE_LOAD", "0.6".to_owned()),
        ("UPDATE_INTERVAL", "0.02".to_owned()),
        ("LOG_LEVEL", "WARNING".to_owned()),
        ("BALANCER_ADMIN_TOKEN", "s3cret".to_owned()),
    ];
    let mut command = watch(&[]);
    command.envs(env);
    let mut controller = Controller::run(command);
    api.wait_for_rounds(3);
    assert_eq!(api.changes(), ["c/disable", "b/disable"]);
    controller.end();
    assert_eq!(controller.said(""), [""; 0]);
}

#[test]
fn the_token_is_sent_and_changes_say_that_they_are_json() {
    let api = Api::start(&[("a", 100), ("b", 0), ("c", 0)]);
    let (code, said) = once(&api.url(), &[&QUICK[..], &["--token", "s3cret"]].concat());
    assert_eq!((code, said.contains("s3cret")), (0, false), "{said}");
    let made = api.made();
    assert_eq!(made.len(), 5);
    for call in made {
        assert_eq!(call.headers["authorization"], "Bearer s3cret", "{call:?}");
        let is_json =
            call.headers.get("content-type").is_some_and(|kind| kind == "application/json");
        assert_eq!(is_json, call.method == "POST", "{call:?}");
    }
    let api = Api::start(&[("a", 0)]);
    assert_eq!(once(&api.url(), &QUICK).0, 0);
    assert!(api.made().iter().all(|call| !call.headers.contains_key("authorization")));
}

#[test]
fn names_are_encoded_and_the_api_may_be_below_a_path() {
    let (spaced, slashed) = ("Server 4", "web:80/10.0.0.1");
    let api = Api::start(&[(spaced, 90), (slashed, 100), ("c?#%", 80), ("é", 0), ("d", 0)]);
    let (code, said) = once(&format!("{}/lb/one/", api.url()), &QUICK);
    assert_eq!(code, 0, "{said}");
    assert_eq!(
        api.changes(),
        ["web%3A80%2F10.0.0.1/disable", "Server%204/disable", "c%3F%23%25/disable"]
    );
    assert!(said.contains("Disabling node Server 4, queued requests: 90"), "{said}");
    assert!(said.contains("Disabling node web:80/10.0.0.1, queued requests: 100"), "{said}");
    assert!(api.made().iter().all(|call| call.path.starts_with("/lb/one/loadbalancer/node")));
}

#[test]
fn sixteen_nodes_are_asked_at_once_and_no_more() {
    let names: Vec<String> = (0..100).map(|number| format!("s-{number}")).collect();
    let nodes: Vec<(&str, usize)> = names.iter().map(|name| (name.as_str(), 0)).collect();
    let api = Api::start(&nodes);
    api.hold_until(16);
    assert_eq!(once(&api.url(), &QUICK).0, 0);
    assert_eq!((api.most_at_once(), api.made().len()), (16, 101));
}

#[test]
fn a_signal_ends_it_well() {
    for signal in [Signal::TERM, Signal::INT] {
        let api = Api::start(&[("a", 0)]);
        let mut controller = Controller::watch(&api.url(), &["--interval", "1h"]);
        controller.wait_for("watching");
        assert_eq!(controller.signal(signal).code(), Some(0));
        assert_eq!(controller.said("stopped watching").len(), 1);
    }
}

#[test]
fn a_bad_flag_is_refused_with_its_name_and_what_it_must_be() {
    for (flags, code, said) in [
        (&[][..], 2, "--api <URL>"),
        (&["--api", "https://localhost"], 2, "only http:// is spoken"),
        (&["--api", "http://a", "--min-ready", "0"], 2, "--min-ready <N>': must be a whole number"),
        (&["--api", "http://a", "--max-load", "75"], 2, "--max-load <SHARE>': must be a number"),
        (&["--api", "http://a", "--interval", "0"], 2, "--interval <TIME>': must be 1ms to 24h"),
        (&["--api", "http://a", "--log-level", "LOUD"], 2, "--log-level <FILTER>': must be crit"),
        (
            &["--api", "http://a", "--resume-load", "0.8"],
            1,
            "error: --resume-load must be 0 to 0.75",
        ),
        (&["--api", "http://a", "--token", "a b"], 1, "error: --token must be visible ASCII"),
        (&["--replicas", "3"], 2, "unexpected argument '--replicas'"),
    ] {
        let output = watch(flags).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{flags:?}: {text}");
        assert!(text.contains(said), "{flags:?}: {text}");
    }
}

#[test]
fn help_explains_every_flag_of_it() {
    let help = String::from_utf8(watch(&["--help"]).output().unwrap().stdout).unwrap();
    let flags: Vec<&str> = help.split("\n      --").skip(1).collect();
    assert_eq!(flags.len(), 11, "{help}");
    for flag in flags {
        let words = flag.split_whitespace().collect::<Vec<_>>().join(" ");
        let bare = flag.starts_with("api") || flag.starts_with("once");
        assert!(bare || words.contains("[default: "), "{flag}");
        assert!(flag.starts_with("once") || words.contains("[env: "), "{flag}");
    }
}
