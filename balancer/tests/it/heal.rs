//! How a fleet heals, and how it is seen and rolled out: child processes and listed servers, by
//! the real binary, under a light load of which no request may fail.

mod events;
mod hung;
mod last_resort;
mod listed;
mod many;
mod outliers;
mod panic;
mod reasons;
mod refused;
mod roll;
mod rollout;
mod slow_start;
mod spares;
mod status;
mod stream;
mod undo;
mod unwell;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;

use serde_json::Value;

use crate::load::greeting;
use crate::support::{Answer, Balancer, PATIENCE, request, wait_for};

/// Quick probes, and patient enough for a busy machine.
const PROBES: [&str; 4] = ["--health-interval", "50ms", "--health-timeout", "300ms"];

const TOKEN: &str = "s3cret";

/// `/admin/fleet`.
fn fleet(balancer: &Balancer) -> Value {
    let answer = request(balancer.admin, "GET", "/admin/fleet", &[], b"");
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["message"].clone()
}

/// How many replicas are in a state.
fn in_state(fleet: &Value, state: &str) -> usize {
    let replicas = fleet["replicas"].as_array().unwrap();
    replicas.iter().filter(|replica| replica["state"] == state).count()
}

/// What is told of a seat.
fn seat(fleet: &Value, number: u32) -> Value {
    let seats = fleet["seats"].as_array().unwrap();
    seats.iter().find(|seat| seat["seat"] == number).cloned().unwrap_or_default()
}

/// `/admin/events` after this one.
fn events_since(balancer: &Balancer, since: u64) -> Vec<Value> {
    let path = format!("/admin/events?since={since}");
    let answer = request(balancer.admin, "GET", &path, &[], b"");
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["message"]["events"].as_array().unwrap().clone()
}

/// All events of a kind.
fn events(balancer: &Balancer, event: &str) -> Vec<Value> {
    let mut all = events_since(balancer, 0);
    all.retain(|entry| entry["event"] == event);
    all
}

/// Waits for an event of a kind; tells the first.
fn wait_for_event(balancer: &Balancer, event: &str) -> Value {
    wait_for(event, || events(balancer, event).into_iter().next())
}

/// The number of the last event so far.
fn last_event(balancer: &Balancer) -> u64 {
    let answer = request(balancer.admin, "GET", "/admin/events", &[], b"");
    answer.json()["message"]["last"].as_u64().unwrap()
}

/// `POST /admin/roll` by whoever has the token.
fn roll(balancer: &Balancer, body: &str) -> Answer {
    let token = format!("Bearer {TOKEN}");
    let headers = [("Content-Type", "application/json"), ("Authorization", token.as_str())];
    request(balancer.admin, "POST", "/admin/roll", &headers, body.as_bytes())
}

/// Waits until a rolling update is in this state; tells how it stands.
fn wait_for_roll(balancer: &Balancer, state: &str) -> Value {
    wait_for(&format!("a rolling update that is {state}"), || {
        let answer = request(balancer.admin, "GET", "/admin/roll", &[], b"");
        assert_eq!(answer.status, 200, "{answer:?}");
        Some(answer.json()["message"].clone()).filter(|roll| roll["state"] == state)
    })
}

/// Who answers for this key: the `SERVER_ID` in the greeting.
fn owner(balancer: &Balancer, id: u32) -> String {
    let answer = greeting(balancer, id);
    named_in(&answer.body).unwrap_or_else(|| panic!("no greeting: {answer:?}"))
}

fn named_in(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    body["message"].as_str()?.strip_prefix("Hello from Server: ").map(str::to_owned)
}

/// Who answers for each of the keys below `keys`, over one connection.
fn owners(balancer: &Balancer, keys: u32) -> Vec<String> {
    let mut stream = BufReader::new(TcpStream::connect(balancer.address).unwrap());
    stream.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
    stream.get_ref().set_nodelay(true).unwrap();
    let mut ask = |id: u32| {
        let head = format!("GET /home HTTP/1.1\r\nHost: a\r\nX-Request-Id: {id}\r\n\r\n");
        stream.get_mut().write_all(head.as_bytes()).unwrap();
        let (mut line, mut length) = (String::new(), 0);
        stream.read_line(&mut line).unwrap();
        assert!(line.starts_with("HTTP/1.1 200 "), "{line}");
        while line != "\r\n" {
            line.clear();
            stream.read_line(&mut line).unwrap();
            if let Some(given) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = given.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).unwrap();
        named_in(&body).unwrap()
    };
    (0..keys).map(&mut ask).collect()
}
