//! What it does when it does not get what it asks for: nothing, and it says so once.

use std::thread;

use super::QUICK;
use super::api::{Api, Fault};
use super::controller::{Controller, once};
use crate::support::wait_for;

const NODES: [(&str, usize); 4] = [("a", 100), ("b", 90), ("c", 0), ("d", 0)];

#[test]
fn nothing_is_done_on_partial_answers_and_that_is_said_once() {
    let node = "GET node/c";
    let other = Fault::Say(r#"{"node": "a", "enabled": true, "queued_requests": 0}"#);
    let cases = [
        (node, Fault::Status(500), "node \"c\" cannot be seen: answered 500"),
        (node, Fault::Status(403), "node \"c\" cannot be seen: answered 403"),
        (node, Fault::Close, "node \"c\" cannot be seen: no answer: "),
        (node, Fault::Cut, "node \"c\" cannot be seen: "),
        (node, Fault::Say("{}"), "node \"c\" cannot be seen: answered what the API does not"),
        (node, Fault::Say("not json"), "node \"c\" cannot be seen: answered what the API does not"),
        (node, other, "node \"c\" cannot be seen: answered for another node, \"a\""),
        ("GET node_list", Fault::Say("[]"), "the nodes cannot be listed: answered what the API"),
    ];
    thread::scope(|scope| {
        for (call, fault, why) in cases {
            scope.spawn(move || nothing_is_done(call, fault, why));
        }
    });
}

fn nothing_is_done(call: &str, fault: Fault, why: &str) {
    let api = Api::start(&NODES);
    api.fail(call, fault, None);
    let mut controller = Controller::watch(&api.url(), &QUICK);
    controller.wait_for("nothing is done");
    api.wait_for_rounds(2);
    assert_eq!(api.changes(), [""; 0], "{why}");
    let said = controller.said("nothing is done");
    assert!(said.len() == 1 && said[0].contains(why), "{why}: {said:?}");
    api.heal();
    controller.wait_for("every node can be seen again");
    controller.wait_for("Disabling node b, queued requests: 90");
    assert_eq!(api.changes(), ["a/disable", "b/disable"]);
    controller.end();
    assert_eq!(controller.said("seen again").len(), 1);
}

#[test]
fn nothing_is_done_by_a_list_with_a_name_twice() {
    let api = Api::start(&NODES);
    api.list("a");
    let controller = Controller::watch(&api.url(), &QUICK);
    controller.wait_for("nothing is done");
    api.wait_for_rounds(3);
    assert_eq!(api.changes(), [""; 0]);
    let said = controller.said("nothing is done");
    assert!(said.len() == 1 && said[0].contains("node \"a\" is listed twice"), "{said:?}");
    api.heal();
    controller.wait_for("Disabling node b, queued requests: 90");
}

#[test]
fn a_node_that_has_left_since_it_was_listed_is_none() {
    let api = Api::start(&NODES[..3]);
    api.list("gone");
    let (code, said) = once(&api.url(), &QUICK);
    // Of three, two stay.
    assert_eq!((code, api.changes()), (0, vec!["a/disable".to_owned()]), "{said}");
    assert_eq!(api.count("GET node/gone"), 1);
}

#[test]
fn a_look_that_fails_is_tried_three_times() {
    for fault in [Fault::Status(503), Fault::Close, Fault::Cut, Fault::Say("{")] {
        let api = Api::start(&NODES);
        api.fail("GET node_list", fault.clone(), Some(2));
        api.fail("GET node/c", fault.clone(), Some(2));
        let (code, said) = once(&api.url(), &QUICK);
        assert_eq!(code, 0, "{fault:?}: {said}");
        let counts = ["GET node_list", "GET node/c", "GET node/d"].map(|call| api.count(call));
        assert_eq!((counts, api.changes().len()), ([3, 3, 1], 2), "{fault:?}: {said}");
    }
}

#[test]
fn a_balancer_that_cannot_be_reached_is_told_of_once_and_again_when_it_is_back() {
    let api = Api::down_with(&NODES);
    let mut controller =
        Controller::watch(&api.url(), &[&QUICK[..], &["--log-level=debug"]].concat());
    // Two tries a round are told at debug.
    let wait_in_vain = |rounds: usize| {
        let before = controller.said("tried again").len();
        wait_for("rounds in vain", || {
            (controller.said("tried again").len() > before + 2 * rounds).then_some(())
        });
    };
    wait_in_vain(3);
    let said = controller.said("cannot be asked");
    assert!(said.len() == 1 && said[0].contains(&api.url()), "{said:?}");
    assert!(said[0].contains("Connection refused"), "{said:?}");
    assert_eq!(controller.said("answers again").len(), 0);

    api.up();
    controller.wait_for("Disabling node b");
    assert_eq!(controller.said("answers again").len(), 1);
    api.down();
    let lines = |text| controller.said(text).len();
    // The round that was under way, if one was, could not see every node.
    wait_for("the news", || (lines("cannot be asked") == 2).then_some(()));
    wait_in_vain(3);
    api.up();
    wait_for("the good news", || (lines("answers again") == 2).then_some(()));
    api.wait_for_rounds(2);
    assert_eq!((lines("cannot be asked"), lines("answers again")), (2, 2));
    assert_eq!(api.changes().len(), 2);
    controller.end();
}

#[test]
fn a_call_that_takes_too_long_has_failed() {
    let api = Api::start(&NODES);
    api.fail("GET node/c", Fault::Hang, None);
    let (code, said) = once(&api.url(), &[&QUICK[..], &["--timeout", "50ms"]].concat());
    assert_eq!((code, api.changes().len()), (1, 0), "{said}");
    let why = "node \"c\" cannot be seen: no whole answer within 50ms";
    assert!(said.contains(&format!("error: nothing is done at {}: {why}", api.url())), "{said}");
    assert_eq!(api.count("GET node/c"), 3);
}

#[test]
fn one_round_ends_with_0_when_all_was_done_and_with_1_when_not() {
    let api = Api::down_with(&NODES);
    let (code, said) = once(&api.url(), &QUICK);
    let start = format!("error: nothing is done at {}: the nodes cannot be listed: ", api.url());
    assert!(code == 1 && said.contains(&start) && said.contains("Connection refused"), "{said}");

    api.up();
    api.fail("POST node/a/disable", Fault::Status(401), Some(1));
    let (code, said) = once(&api.url(), &QUICK);
    assert_eq!((code, api.changes()), (1, vec!["a/disable".to_owned(), "b/disable".to_owned()]));
    assert!(said.contains("node cannot be disabled"), "{said}");
    assert!(said.contains("answered 401 Unauthorized: as scripted"), "{said}");
    assert!(!said.contains("Disabling node a") && said.contains("Disabling node b"), "{said}");

    assert_eq!(once(&api.url(), &QUICK).0, 0);
    assert_eq!(api.changes().last().map(String::as_str), Some("a/disable"));
}

#[test]
fn none_is_disabled_when_one_cannot_be_enabled() {
    let api = Api::start(&[("a", 100), ("b", 0), ("c", 100)]);
    assert_eq!(once(&api.url(), &QUICK).0, 0);
    api.set("a", 0);
    api.set("b", 80);
    // It says that it has, and has not.
    let idle = r#"{"node": "a", "enabled": false, "queued_requests": 0}"#;
    for (fault, why) in [
        (Fault::Status(500), "answered 500"),
        (Fault::Say(idle), "answered that nothing has changed"),
        (Fault::Say("{}"), "answered what the API does not know"),
    ] {
        api.fail("POST node/a/enable", fault, Some(1));
        let (code, said) = once(&api.url(), &QUICK);
        assert_eq!(code, 1, "{said}");
        assert!(said.contains("node cannot be enabled") && said.contains(why), "{said}");
        assert!(said.contains("node is not disabled: another could not be enabled"), "{said}");
    }
    assert_eq!(api.changes(), ["a/disable", "a/enable", "a/enable", "a/enable"]);
    assert_eq!(once(&api.url(), &QUICK).0, 0);
    assert_eq!(api.changes()[4..], ["a/enable", "c/disable"]);
}
