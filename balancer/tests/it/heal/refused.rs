//! Rolling updates that are not begun, and who may ask for them.

use super::listed::over;
use super::roll::with_token;
use super::{events, roll};
use crate::support::{Answer, Balancer, request};

const JSON: (&str, &str) = ("Content-Type", "application/json");

fn post(balancer: &Balancer, headers: &[(&str, &str)], body: &str) -> Answer {
    request(balancer.admin, "POST", "/admin/roll", headers, body.as_bytes())
}

/// The state of the last update, if there was one.
fn last(balancer: &Balancer) -> serde_json::Value {
    let answer = request(balancer.admin, "GET", "/admin/roll", &[], b"");
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["message"].clone()
}

#[test]
fn what_needs_a_rollout_is_refused_where_there_is_none_and_needs_the_token() {
    let balancer = with_token(1, &[]);
    let token = ("Authorization", "Bearer s3cret");
    let call = |method: &str, path: &str, headers: &[(&str, &str)]| {
        request(balancer.admin, method, path, headers, b"")
    };
    for (method, path, told) in [
        ("DELETE", "/admin/roll", "there is nothing to roll back to"),
        ("POST", "/admin/roll/pause", "no rollout is under way"),
        ("POST", "/admin/roll/resume", "no rollout is under way"),
    ] {
        let answer = call(method, path, &[token]);
        assert_eq!(answer.status, 409, "{answer:?}");
        assert!(answer.message().contains(told), "{answer:?}");
        assert_eq!(call(method, path, &[]).status, 401, "{path}");
        let foreign = call(method, path, &[token, ("Origin", "http://evil.example")]);
        assert_eq!(foreign.status, 403, "{path}");
    }
    assert!(last(&balancer).is_null(), "nothing has begun");
}

#[test]
fn a_stop_does_not_wait_for_a_rollout() {
    let balancer = with_token(2, &[]);
    assert!(last(&balancer).is_null());
    assert_eq!(roll(&balancer, r#"{"command":"/bin/sleep 600"}"#).status, 202);
    assert_eq!(last(&balancer)["state"], "rolling");
    assert_eq!(last(&balancer)["command"], serde_json::json!(["/bin/sleep", "600"]));
    assert_eq!(events(&balancer, "roll-begun").len(), 1);
    let mut balancer = balancer;
    let asked = std::time::Instant::now();
    balancer.signal(rustix::process::Signal::TERM);
    assert!(balancer.wait().success());
    assert!(asked.elapsed() < std::time::Duration::from_secs(8), "{:?}", asked.elapsed());
}

#[test]
fn programs_are_taken_from_those_who_may_name_them() {
    let balancer = Balancer::with_replicas(1, &[]);
    for body in [r#"{"command":"/bin/true"}"#, r#"{"image":"x"}"#, r#"{"command":["a"],"batch":1}"#]
    {
        let answer = post(&balancer, &[JSON], body);
        assert_eq!(answer.status, 403, "{answer:?}");
        let told = answer.message();
        assert!(
            told.contains("'admin.token'") && told.contains("'admin.programs = true'"),
            "{told}"
        );
    }
    assert!(last(&balancer).is_null(), "nothing has begun");
    // A restart names none.
    assert_eq!(post(&balancer, &[JSON], "{}").status, 202);

    let balancer = Balancer::with_replicas(1, &["--admin-programs"]);
    assert_eq!(post(&balancer, &[JSON], r#"{"command":"/bin/false"}"#).status, 202);

    let balancer = with_token(1, &[]);
    for headers in [&[JSON][..], &[JSON, ("Authorization", "Bearer wrong")]] {
        for body in ["{}", r#"{"command":"/bin/true"}"#] {
            let answer = post(&balancer, headers, body);
            assert_eq!(answer.status, 401, "{answer:?}");
            assert_eq!(answer.headers["www-authenticate"], "Bearer");
        }
    }
    assert!(last(&balancer).is_null(), "reading needs no token, and nothing has begun");
}

#[test]
fn an_update_that_makes_no_sense_is_400_and_names_the_field() {
    let balancer = with_token(1, &[]);
    for (body, told) in [
        (r#"{"image":"server:2"}"#, "'image' is for runtime"),
        (r#"{"imgae":"x"}"#, "\"imgae\" is no field of this call"),
        (r#"{"n":1}"#, "\"n\" is no field of this call"),
        (r#"{"image":3}"#, "'image' must be"),
        (r#"{"image":""}"#, "'image' must be"),
        (r#"{"image":"a b"}"#, "'image' must be"),
        (r#"{"command":7}"#, "'command' must be"),
        (r#"{"command":""}"#, "'command' must be"),
        (r#"{"command":"  "}"#, "'command' must be"),
        (r#"{"command":[]}"#, "'command' must be"),
        (r#"{"command":[""]}"#, "'command' must be"),
        (r#"{"command":["a",1]}"#, "'command' must be"),
        (r#"{"command":"'a"}"#, "'command' must be"),
        (r#"{"command":{"a":1}}"#, "'command' must be"),
        ("{\"command\":\"a\\u0000b\"}", "'command' must be"),
        (r#"{"batch":0}"#, "'batch' must be an integer of at least 1, not 0"),
        (r#"{"batch":-1}"#, "'batch' must be"),
        (r#"{"batch":1.5}"#, "'batch' must be"),
        (r#"{"batch":"2"}"#, "'batch' must be"),
        ("[]", "the body must be a JSON object"),
        ("{", "the body must be a JSON object"),
        ("", "it is empty"),
    ] {
        let answer = roll(&balancer, body);
        assert_eq!(answer.status, 400, "{body}: {answer:?}");
        let message = answer.message();
        assert!(message.starts_with("<Error> ") && message.contains(told), "{body}: {message}");
    }
    let token = ("Authorization", "Bearer s3cret");
    assert_eq!(post(&balancer, &[token, ("Content-Type", "text/plain")], "{}").status, 415);
    assert_eq!(post(&balancer, &[token, JSON, ("Host", "a")], "{\"batch\":0}").status, 400);
    assert!(last(&balancer).is_null(), "nothing has begun");
    assert_eq!(balancer.replicas(), ["S1"]);
}

#[test]
fn listed_servers_are_not_rolled() {
    let (_servers, balancer) = over(2, &[]);
    let answer = post(&balancer, &[JSON], "{}");
    assert_eq!(answer.status, 400, "{answer:?}");
    assert!(answer.message().contains("replicas are listed"), "{answer:?}");
}

#[test]
fn wrong_methods_are_told_which_ones_there_are() {
    let balancer = Balancer::with_replicas(1, &[]);
    for (path, allowed, others) in [
        ("/admin/roll", "GET, HEAD, POST, DELETE", &["PUT", "PATCH"][..]),
        ("/admin/fleet", "GET, HEAD", &["POST", "PUT", "DELETE"]),
        ("/admin/events", "GET, HEAD", &["POST", "PUT", "DELETE"]),
    ] {
        for method in others {
            let answer = request(balancer.admin, method, path, &[JSON], b"{}");
            assert_eq!(answer.status, 405, "{method} {path}");
            assert_eq!(answer.headers["allow"], allowed, "{method} {path}");
        }
        let head = request(balancer.admin, "HEAD", path, &[], b"");
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
        let foreign = request(balancer.admin, "GET", path, &[("Host", "evil.example")], b"");
        assert_eq!(foreign.status, 403, "{path}");
    }
    let foreign = [JSON, ("Host", "evil.example")];
    assert_eq!(post(&balancer, &foreign, "{}").status, 403);
    assert!(last(&balancer).is_null());
}
