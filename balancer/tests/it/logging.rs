//! Output that is not read: the balancer drops lines instead of waiting for its reader.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::conformance::client::Client;
use crate::metrics::samples;
use crate::support::{Balancer, wait_for};

/// Longer than any step takes by itself, shorter than a shutdown that waits for a reader.
const SOON: Duration = Duration::from_secs(10);

/// Requests of the issue: 288 of them passed before this existed.
const REQUESTS: usize = 5_000;

/// Sends requests until their lines in the access log are more than pipe and queue hold, as fast as
/// long targets allow.
fn fill_log(balancer: &Balancer) {
    send_requests(balancer, 800, 7_500);
}

fn send_requests(balancer: &Balancer, requests: usize, query: usize) {
    let mut client = Client::of(balancer);
    let query = "x".repeat(query);
    for number in 0..requests {
        client.send(format!("GET /home?{query} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        assert_eq!(client.must_answer(&format!("request {number}")).status, 200);
    }
}

/// Lines dropped so far.
fn dropped(balancer: &Balancer, stream: &str, kind: &str) -> f64 {
    let name = format!("balancer_log_dropped_total{{stream=\"{stream}\",kind=\"{kind}\"}}");
    samples(balancer)[&name]
}

/// Lines that the log says were dropped.
fn reported(balancer: &Balancer, kind: &str) -> u64 {
    let reports = balancer.events("log lines dropped");
    let reports = reports.iter().filter(|event| event.fields["kind"] == kind);
    reports.map(|event| event.fields["dropped"].as_u64().unwrap()).sum()
}

#[test]
fn a_log_that_is_not_read_delays_no_request_and_its_dropped_lines_are_reported() {
    let balancer = Balancer::with_replicas(2, &["--access-log"]);
    balancer.stop_reading();
    send_requests(&balancer, REQUESTS, 2_000);
    assert_eq!(balancer.replicas().len(), 2);
    let lost = dropped(&balancer, "stderr", "access");
    assert!(lost > 0.0, "more was written than pipe and queue hold");
    assert_eq!(dropped(&balancer, "stderr", "log"), 0.0, "the log has a reserve");

    balancer.read_on();
    wait_for("the report", || (reported(&balancer, "access") as f64 == lost).then_some(()));
    let written = || balancer.events("request").len();
    wait_for("all other lines", || (written() + lost as usize == REQUESTS).then_some(()));
    assert_eq!(dropped(&balancer, "stderr", "access"), lost, "nothing is dropped any more");
    // Lines are whole: no two were mixed.
    assert!(balancer.log().iter().all(|event| event.fields.is_object()));
}

#[test]
fn a_balancer_whose_log_is_not_read_stops_in_time_and_with_all_its_replicas() {
    let mut balancer = Balancer::with_replicas(2, &["--access-log"]);
    let processes = balancer.replica_processes();
    balancer.stop_reading();
    fill_log(&balancer);
    let began = Instant::now();
    balancer.signal(Signal::TERM);
    assert!(balancer.wait().success());
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    assert!(!processes.values().any(|pid| crate::support::lives(*pid)));
}

#[test]
fn a_second_signal_ends_a_balancer_whose_log_is_not_read() {
    let mut balancer = Balancer::with_replicas(1, &["--access-log"]);
    balancer.stop_reading();
    fill_log(&balancer);
    // A request that never ends keeps the balancer until `timeouts.drain` is over.
    let _client =
        Client::sending(&balancer, b"POST /home HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n");
    wait_for("the request", || {
        (samples(&balancer)["balancer_requests_in_flight{route=\"default\"}"] > 0.0).then_some(())
    });
    let began = Instant::now();
    balancer.signal(Signal::TERM);
    wait_for("the second signal to end it", || {
        balancer.signal(Signal::TERM);
        balancer.has_ended()
    });
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

#[test]
fn output_of_replicas_that_is_not_read_stops_neither_them_nor_the_balancer() {
    // Serves only after 20 MB of its output were taken.
    let script = format!(
        "head -c 20000000 /dev/zero | tr '\\0' x | fold -w 999; exec {} replica",
        env!("CARGO_BIN_EXE_balancer")
    );
    let script = shlex::try_quote(&script).unwrap();
    let command = format!("sh -c {script}");
    let mut balancer = Balancer::start_unread(&["--command", &command, "--replicas", "2"]);
    balancer.wait_for_replicas(2);
    assert_eq!(balancer.get("/home").status, 200);
    let lost = dropped(&balancer, "stdout", "replica");
    assert!(lost > 30_000.0, "two replicas wrote 40 MB: {lost}");
    // Standard output is stuck; the log is not.
    assert!(!balancer.log().is_empty());
    let began = Instant::now();
    balancer.signal(Signal::TERM);
    assert!(balancer.wait().success());
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    assert!(!balancer.events("shutdown complete").is_empty());
    assert_eq!(json!(reported(&balancer, "replica")), json!(0), "there was never room again");
}

#[test]
fn an_error_at_the_end_is_the_last_line() {
    // The address is taken: the error comes after logging has begun.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_balancer"))
        .args(["--listen", &address])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.lines().last().unwrap().starts_with("error: cannot listen on"), "{error}");
}
