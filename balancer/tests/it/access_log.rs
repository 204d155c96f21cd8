//! The access log: one line for each request that is forwarded, where it is asked for.

use serde_json::Value;

use crate::conformance::over;
use crate::conformance::upstream::{Then, Upstream};
use crate::support::{Balancer, request, try_request, wait_for};

/// The lines of so many requests, once they are there.
fn lines(balancer: &Balancer, count: usize) -> Vec<Value> {
    wait_for("the access log", || {
        let lines = balancer.events("request");
        (lines.len() >= count).then(|| lines.into_iter().map(|line| line.fields).collect())
    })
}

#[test]
fn each_forwarded_request_has_a_line_that_says_where_it_went_and_how_it_ended() {
    let balancer = Balancer::with_replicas(2, &["--access-log"]);
    let id = [("X-Request-Id", "123456"), ("Host", "example.org")];
    let answer = request(balancer.address, "GET", "/home?a=b", &id, b"");
    assert_eq!(answer.status, 200);
    assert_eq!(request(balancer.address, "POST", "/nowhere", &[], b"x").status, 404);
    assert_eq!(balancer.json("DELETE", "/rm", r#"{"n":2}"#).status, 200);
    assert_eq!(balancer.get("/home").status, 503);

    let lines = lines(&balancer, 3);
    assert_eq!(lines.len(), 3, "the balancer's own routes have none: {lines:?}");
    let first = &lines[0];
    for (field, value) in [
        ("client", "127.0.0.1"),
        ("method", "GET"),
        ("host", "example.org"),
        ("target", "/home?a=b"),
        ("route", "default"),
        ("key", "123456"),
        ("id", "123456"),
    ] {
        assert_eq!(first[field], value, "{first}");
    }
    assert_eq!((&first["status"], &first["tries"]), (&200.into(), &1.into()));
    assert_eq!(first["whole"], true, "{first}");
    assert!(matches!(first["replica"].as_str(), Some("S1" | "S2")), "{first}");
    let ms = |field: &str| first[field].as_f64().unwrap();
    assert!(0.0 < ms("first_byte_ms") && ms("first_byte_ms") <= ms("took_ms"), "{first}");
    assert_eq!((&lines[1]["method"], &lines[1]["status"]), (&"POST".into(), &404.into()));
    let last = &lines[2];
    assert_eq!(last["status"], 503, "{last}");
    assert_eq!((&last["replica"], &last["first_byte_ms"]), (&Value::Null, &Value::Null));
}

#[test]
fn an_answer_that_breaks_off_is_told_with_its_status_and_as_not_whole() {
    let cut = Upstream::start(|exchange| {
        exchange.read_body();
        exchange.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut");
        Then::Close
    });
    let balancer = over(&[&cut], &["--access-log"]);
    assert!(try_request(balancer.address, "GET", "/", &[], b"").is_err());
    let line = &lines(&balancer, 1)[0];
    assert_eq!((&line["status"], &line["whole"]), (&200.into(), &false.into()), "{line}");
    assert!(line["first_byte_ms"].is_number(), "{line}");
}

#[test]
fn by_default_there_is_no_access_log() {
    let balancer = Balancer::with_replicas(1, &[]);
    assert_eq!(balancer.get("/home").status, 200);
    assert_eq!(balancer.json("DELETE", "/rm", r#"{"n":1}"#).status, 200);
    // What came before it is in the log by now.
    wait_for("a later line", || (!balancer.events("replica is removed").is_empty()).then_some(()));
    assert!(balancer.events("request").is_empty());
}
