//! `/admin/ring`, `/admin/explain` and `/admin/rehearse`: what they say is what then happens.

mod agree;
mod explain;
mod refused;
mod rehearse;

use serde_json::Value;

use crate::conformance::client::Client;
use crate::support::{Balancer, request};

/// What an admin route says.
fn told(balancer: &Balancer, path: &str) -> Value {
    let answer = request(balancer.admin, "GET", &format!("/admin/{path}"), &[], b"");
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    answer.json()["message"].clone()
}

/// What is explained.
fn explained(balancer: &Balancer, query: &str) -> Value {
    told(balancer, &format!("explain?{query}"))
}

/// Who would be asked, one of them.
fn asked(explained: &Value) -> String {
    let asked = explained["asked"].as_array().unwrap_or_else(|| panic!("{explained}"));
    assert_eq!(asked.len(), 1, "{explained}");
    asked[0].as_str().unwrap().to_owned()
}

/// The seat of the first owner of each of `count` keys, all over one connection.
fn first_owners(balancer: &Balancer, count: u32) -> Vec<u64> {
    let mut client = Client::of(balancer);
    let owner = |key: u32| {
        let line = format!("GET /admin/explain?key=k{key} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        client.send(line.as_bytes());
        let answer = client.must_answer("an explanation");
        let told: Value = serde_json::from_slice(&answer.body.data).unwrap();
        let owners = told["message"]["owners"].as_array().unwrap();
        owners[0]["seat"].as_u64().unwrap_or_else(|| panic!("{told}"))
    };
    (0..count).map(owner).collect()
}

/// The shares of all members, by seat or address.
fn shares(balancer: &Balancer) -> Vec<(String, f64)> {
    let ring = told(balancer, "ring");
    let members = ring["members"].as_array().unwrap();
    members.iter().map(|member| (name(member), member["share"].as_f64().unwrap())).collect()
}

/// A member's seat or address.
fn name(member: &Value) -> String {
    match member["seat"].as_u64() {
        Some(seat) => seat.to_string(),
        None => member["address"].as_str().unwrap_or_else(|| panic!("{member}")).to_owned(),
    }
}

/// Of so many keys at random, a share is found to be within five standard deviations of itself: but
/// for one time in a million.
fn sampling_error(share: f64, keys: u32) -> f64 {
    5.0 * (share * (1.0 - share) / f64::from(keys)).sqrt()
}

fn fingerprint(balancer: &Balancer) -> String {
    let fingerprint = told(balancer, "ring")["fingerprint"].as_str().unwrap().to_owned();
    assert!(fingerprint.len() == 16 && fingerprint.bytes().all(|c| c.is_ascii_hexdigit()));
    fingerprint
}
