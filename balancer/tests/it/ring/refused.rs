//! Calls that say nothing good, and who may call.

use crate::support::{Balancer, request};

const JSON: (&str, &str) = ("Content-Type", "application/json");

#[test]
fn a_bad_question_is_told_what_is_allowed() {
    let balancer = Balancer::with_replicas(1, &[]);
    for (query, begin) in [
        ("", "'key' must be there, or 'path'"),
        ("?", "'key' must be there, or 'path'"),
        ("?keys=1", "\"keys\" is no parameter of this call"),
        ("?key=1&client=::1", "'key' must be the only parameter"),
        ("?key=", "'key' must be 1 to 4096 bytes"),
        ("?key=%zz", "'key' must be percent-encoded"),
        ("?path=x", "'path' must be a path that begins with '/'"),
        ("?path=/&header=x", "'header' must be 'Name: value'"),
        ("?path=/&client=me", "'client' must be an IP address"),
    ] {
        let answer = balancer.get(&format!("/admin/explain{query}"));
        assert_eq!(answer.status, 400, "{query}: {answer:?}");
        assert!(answer.message().starts_with(&format!("<Error> {begin}")), "{answer:?}");
    }
    let long = format!("/admin/explain?key={}", "x".repeat(4_097));
    assert_eq!(balancer.get(&long).status, 400);
}

#[test]
fn a_bad_rehearsal_is_told_what_is_allowed() {
    let balancer = Balancer::with_replicas(1, &[]);
    for (body, begin) in [
        ("", "the body must be a JSON object"),
        ("[]", "the body must be a JSON object, not a list"),
        ("{}", "'add' or 'rm' must be there"),
        ("{\"n\":1}", "\"n\" is no field of this call: there are 'add' and 'rm'"),
        ("{\"add\":-1}", "'add' must be an integer of at least 1, not -1"),
        ("{\"rm\":[\"../x\"]}", "hostname \"../x\" must be"),
    ] {
        let answer = balancer.json("POST", "/admin/rehearse", body);
        assert_eq!(answer.status, 400, "{body}: {answer:?}");
        assert!(answer.message().starts_with(&format!("<Error> {begin}")), "{answer:?}");
    }
}

#[test]
fn whoever_may_look_may_ask_and_a_foreign_page_may_not() {
    let balancer = Balancer::with_replicas(1, &[]);
    let body = br#"{"add":1}"#;
    let calls =
        [("GET", "/admin/ring"), ("GET", "/admin/explain?key=1"), ("POST", "/admin/rehearse")];
    for (method, path) in calls {
        let call = |fields: &[(&str, &str)]| request(balancer.admin, method, path, fields, body);
        assert_eq!(call(&[JSON]).status, 200, "{path}");
        let foreign = call(&[JSON, ("Host", "evil.example")]);
        assert_eq!(foreign.status, 403, "{path}: {foreign:?}");
    }
    for kind in ["text/plain", "application/x-www-form-urlencoded"] {
        let fields = [("Content-Type", kind)];
        let answer = request(balancer.admin, "POST", "/admin/rehearse", &fields, body);
        assert_eq!(answer.status, 415, "{kind}");
    }
    for (method, path, allowed) in [
        ("POST", "/admin/ring", "GET, HEAD"),
        ("DELETE", "/admin/explain", "GET, HEAD"),
        ("GET", "/admin/rehearse", "POST"),
    ] {
        let answer = request(balancer.admin, method, path, &[JSON], b"");
        assert_eq!((answer.status, answer.headers["allow"].as_str()), (405, allowed), "{path}");
    }
    let guarded =
        Balancer::with_replicas(1, &["--admin-token", "s3cret", "--admin-listen=127.0.0.1:0"]);
    for (method, path) in calls {
        // They change nothing; but with explanations keys of one replica can be found.
        let needs_token = path.starts_with("/admin/explain");
        let answer = request(guarded.admin, method, path, &[JSON], body);
        assert_eq!(answer.status, if needs_token { 401 } else { 200 }, "{path}");
        let token = ("Authorization", "Bearer s3cret");
        let answer = request(guarded.admin, method, path, &[JSON, token], body);
        assert_eq!(answer.status, 200, "{path}");
    }
    assert_eq!(guarded.replicas(), ["S1"]);
}
