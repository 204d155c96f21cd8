//! `/loadbalancer/*`, as controllers of other makes call it.

use serde_json::json;

use super::{Held, answered_by, call, is_enabled, told};
use crate::support::{Balancer, request};

const JSON: (&str, &str) = ("Content-Type", "application/json");

#[test]
fn a_disabled_node_takes_no_request_and_keeps_its_keys() {
    let held = Held::start(&[]);
    let balancer = &held.balancer;
    let names = held.names();
    assert_eq!(call(balancer, "GET", "node_list"), json!({"nodes": balancer.replicas()}));
    let keys = held.keys();
    let clients = held.hold(&keys[0][0], 3, 0);
    let node = format!("node/{}", names[0]);
    let before = json!({"node": names[0], "enabled": true, "queued_requests": 3});
    assert_eq!(call(balancer, "GET", &node), before);

    let disabled = json!({"node": names[0], "enabled": false, "queued_requests": 3});
    assert_eq!(call(balancer, "POST", &format!("{node}/disable")), disabled);
    assert_eq!(call(balancer, "GET", &node), disabled);
    assert_eq!(call(balancer, "POST", &format!("{node}/disable")), disabled, "twice is once");
    for key in &keys[0] {
        assert_ne!(answered_by(balancer, key), "a");
    }
    for (key, name) in [(&keys[1][0], "b"), (&keys[2][0], "c")] {
        assert_eq!(answered_by(balancer, key), name, "no other key moves");
    }
    assert_eq!(balancer.replicas().len(), 3, "it is listed still");
    assert_eq!(call(balancer, "GET", "node_list")["nodes"].as_array().unwrap().len(), 3);
    let fleet = request(balancer.admin, "GET", "/admin/fleet", &[], b"").json()["message"].clone();
    assert_eq!((&fleet["desired"], &fleet["ready"]), (&json!(3), &json!(2)));
    let replica = &fleet["replicas"].as_array().unwrap();
    let replica = replica.iter().find(|replica| replica["hostname"] == names[0]).unwrap();
    assert_eq!((&replica["state"], &replica["enabled"]), (&json!("ready"), &json!(false)));

    // What it has goes on.
    held.servers[0].let_go();
    for mut client in clients {
        assert_eq!(client.must_answer("held").status, 200);
    }
    let enabled = json!({"node": names[0], "enabled": true, "queued_requests": 0});
    assert_eq!(call(balancer, "POST", &format!("{node}/enable")), enabled);
    for key in &keys[0] {
        assert_eq!(answered_by(balancer, key), "a");
    }
    let lines = told(balancer, " node ");
    let expected = [
        format!("Disabling node {}, queued requests: 3", names[0]),
        format!("Enabling node {}, queued requests: 0", names[0]),
    ];
    assert_eq!(lines, expected);
}

#[test]
fn all_may_be_disabled_and_then_nobody_is_there() {
    let held = Held::start(&[]);
    for name in held.names() {
        call(&held.balancer, "POST", &format!("node/{name}/disable"));
    }
    let answer = held.balancer.get("/who");
    assert_eq!((answer.status, answer.headers["retry-after"].as_str()), (503, "1"));
    call(&held.balancer, "POST", &format!("node/{}/enable", held.names()[1]));
    assert_eq!(answered_by(&held.balancer, "1"), "b");
}

#[test]
fn an_unknown_node_is_a_problem() {
    let held = Held::start(&[]);
    for (method, path) in
        [("GET", "node/S9"), ("POST", "node/S9/enable"), ("POST", "node/%22%0a/disable")]
    {
        let path = format!("/loadbalancer/{path}");
        let answer = request(held.balancer.admin, method, &path, &[], b"");
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(answer.headers["content-type"], "application/problem+json");
        let problem = answer.json();
        assert_eq!((&problem["status"], &problem["title"]), (&json!(404), &json!("Not Found")));
        assert!(problem["detail"].as_str().unwrap().contains("is called"), "{problem}");
    }
    for path in ["/loadbalancer/", "/loadbalancer/x", "/loadbalancer/node/a/b/c"] {
        let answer = held.balancer.get(path);
        assert_eq!(answer.status, 404, "{path} is never forwarded");
        assert!(answer.message().contains("is no endpoint of the balancer"), "{answer:?}");
    }
    assert!(held.servers.iter().all(|server| server.upstream.seen_with("loadbalancer").is_empty()));
}

#[test]
fn a_name_with_a_space_is_percent_encoded() {
    let balancer = Balancer::with_replicas(1, &[]);
    let added = balancer.json("POST", "/add", r#"{"n":1,"hostnames":["Server 4"]}"#);
    assert_eq!(added.status, 200, "{added:?}");
    assert_eq!(call(&balancer, "GET", "node_list"), json!({"nodes": ["S1", "Server 4"]}));
    call(&balancer, "POST", "node/Server%204/disable");
    assert!(!is_enabled(&balancer, "Server%204"));
    assert!(is_enabled(&balancer, "S1"));
}

#[test]
fn statistics_are_told_and_cleared() {
    let held = Held::start(&[]);
    let balancer = &held.balancer;
    let keys = held.keys();
    let cleared = call(balancer, "DELETE", "stats")["load_balancer_stats"].clone();
    assert_eq!((&cleared["requests"], &cleared["failures"]), (&json!(0), &json!(0)));
    for _ in 0..3 {
        answered_by(balancer, &keys[1][0]);
    }
    let _clients = held.hold(&keys[2][0], 2, 2);
    let stats = call(balancer, "GET", "stats")["load_balancer_stats"].clone();
    assert_eq!((&stats["requests"], &stats["queued_requests"]), (&json!(3), &json!(2)));
    let [a, b, c] = held.names();
    let node = |name: &str| stats["nodes"][name].clone();
    let told = |requests: u64, queued: u64| json!({"enabled": true, "requests": requests, "failures": 0, "queued_requests": queued});
    assert_eq!([node(&a), node(&b), node(&c)], [told(0, 0), told(3, 0), told(0, 2)]);
    assert!(stats["since"].as_str().unwrap().ends_with('Z'), "{stats}");
}

#[test]
fn who_may_not_change_the_fleet_may_not_switch_either() {
    let held = Held::start(&["--admin-token", "s3cret"]);
    let name = &held.names()[0];
    let path = format!("/loadbalancer/node/{name}/disable");
    let post = |fields: &[(&str, &str)]| request(held.balancer.admin, "POST", &path, fields, b"");
    let token = ("Authorization", "Bearer s3cret");
    assert_eq!(post(&[]).status, 401);
    assert_eq!(post(&[token, ("Origin", "http://evil.example")]).status, 403);
    assert_eq!(post(&[token, ("Content-Type", "text/plain")]).status, 403);
    let answer = request(held.balancer.admin, "GET", &path, &[], b"");
    assert_eq!((answer.status, answer.headers["allow"].as_str()), (405, "POST"));
    let stats = request(held.balancer.admin, "DELETE", "/loadbalancer/stats", &[], b"");
    assert_eq!(stats.status, 401);
    let get = request(held.balancer.admin, "GET", "/loadbalancer/node_list", &[], b"");
    assert_eq!(get.status, 200, "who looks needs no token");
    assert!(is_enabled(&held.balancer, name));
    assert_eq!(post(&[token, JSON]).status, 200);
    assert!(!is_enabled(&held.balancer, name));
}
