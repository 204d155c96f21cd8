use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread::JoinHandle;

use actix_web::rt::System;

use super::attempt::seat_in;
use super::summary::Summary;
use super::*;

/// A server that answers the requests it gets with the answers of its script, in turn, each on
/// its own connection, and then stops listening. An empty answer: it just hangs up.
struct Scripted {
    address: SocketAddr,
    heads: mpsc::Receiver<String>,
    thread: JoinHandle<()>,
}

impl Scripted {
    fn start(script: Vec<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, heads) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            for answer in script {
                let (mut stream, _) = listener.accept().unwrap();
                sender.send(read_head(&mut stream)).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        Self { address, heads, thread }
    }

    fn stop(self) -> Vec<String> {
        self.thread.join().unwrap();
        self.heads.iter().collect()
    }
}

fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).unwrap() == 0 {
            break;
        }
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nconnection: close\r\n{headers}\r\n{body}")
}

fn greeting(seat: u32) -> String {
    let body = format!(r#"{{"message":"Hello from Server: {seat}","status":"successful"}}"#);
    let headers = format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
    answer("200 OK", &headers, &body)
}

/// One request after another, so that the script meets them in order.
fn one_by_one(address: SocketAddr, requests: usize) -> LoadPlan {
    LoadPlan {
        pace: Pace::InFlight(1),
        timeout: Duration::from_secs(10),
        ..LoadPlan::get(&format!("http://{address}/home"), request_ids(1, requests)).unwrap()
    }
}

fn summary_of(plan: LoadPlan) -> Summary {
    System::new().block_on(async { Summary::of(&run(plan, &ProgressBar::hidden()).await) })
}

#[test]
fn answers_are_counted_by_the_replica_that_they_name() {
    let server = Scripted::start(vec![greeting(3), greeting(1), greeting(3)]);
    let summary = summary_of(one_by_one(server.address, 3));
    assert_eq!(summary.by_seat, BTreeMap::from([(1, 1), (3, 2)]));
    assert_eq!((summary.requests, summary.failed(), summary.unnamed), (3, 0, 0));
    let heads = server.stop();
    for (head, id) in heads.iter().zip(request_ids(1, 3)) {
        assert!(head.starts_with("GET /home HTTP/1.1\r\n"), "{head}");
        assert!(head.contains(&format!("x-request-id: {id}\r\n")), "{head}");
        assert!(!head.contains("content-length"), "{head}");
    }
    assert_eq!(heads.len(), 3);
}

#[test]
fn failures_are_counted_by_kind() {
    let json = "content-type: application/json\r\n";
    let server = Scripted::start(vec![
        answer("500 Internal Server Error", "content-length: 0\r\n", ""),
        answer("503 Service Unavailable", "content-length: 0\r\n", ""),
        answer("500 Internal Server Error", "content-length: 2\r\n", "no"),
        answer("200 OK", &format!("{json}content-length: 100\r\n"), "{\"message\":"),
        answer("200 OK", &format!("{json}transfer-encoding: chunked\r\n"), "5\r\n{\"mes\r\n"),
        String::new(),
        greeting(2),
    ]);
    let mut plan = one_by_one(server.address, 7);
    plan.method = Method::POST;
    plan.body = Bytes::new();
    let summary = summary_of(plan);
    server.stop();
    let expected = BTreeMap::from([
        (Failure::Status(500), 2),
        (Failure::Status(503), 1),
        (Failure::Truncated, 2),
        (Failure::Disconnected, 1),
    ]);
    assert_eq!(summary.failures, expected);
    assert_eq!(summary.by_seat, BTreeMap::from([(2, 1)]));
    assert_eq!(summary.failed(), 6);
}

#[test]
fn only_the_status_that_is_asked_for_is_a_success() {
    let empty = |status| answer(status, "content-length: 0\r\n", "");
    let server = Scripted::start(vec![empty("200 OK"), empty("201 Created")]);
    let mut plan = one_by_one(server.address, 2);
    (plan.method, plan.success) = (Method::POST, Some(StatusCode::CREATED));
    let summary = summary_of(plan);
    assert!(server.stop()[0].contains("content-length: 0\r\n"));
    assert_eq!(summary.failures, BTreeMap::from([(Failure::Status(200), 1)]));
}

#[test]
fn a_port_where_nobody_listens_refuses_the_connection() {
    // The near end of a connection: its port is taken, so that no other test listens there.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let plan = one_by_one(taken.local_addr().unwrap(), 2);
    assert_eq!(summary_of(plan).failures, BTreeMap::from([(Failure::Refused, 2)]));
}

#[test]
fn a_server_that_never_answers_is_a_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut plan = one_by_one(listener.local_addr().unwrap(), 2);
    plan.pace = Pace::AllAtOnce;
    plan.timeout = Duration::from_millis(50);
    assert_eq!(summary_of(plan).failures, BTreeMap::from([(Failure::Timeout, 2)]));
}

#[test]
fn latency_includes_the_wait_for_a_connection_and_service_time_does_not() {
    let server = Scripted::start(vec![greeting(1), greeting(1), greeting(1)]);
    let plan = LoadPlan { pace: Pace::AllAtOnce, connections: 1, ..one_by_one(server.address, 3) };
    let run = System::new().block_on(run(plan, &ProgressBar::hidden()));
    server.stop();
    assert!(run.samples.iter().all(|sample| sample.outcome == Ok(Some(1))), "{run:?}");
    assert!(run.samples.iter().all(|sample| sample.launched <= sample.sent));
    // All launched before the first was done; over one connection, one at a time.
    assert!(run.samples[2].launched <= run.samples[0].done, "{run:?}");
    assert!(run.samples[2].sent >= run.samples[1].done, "{run:?}");
    assert_eq!(run.wall, run.samples[2].done);
}

#[test]
fn request_ids_have_six_digits_and_depend_on_the_seed_alone() {
    let ids = request_ids(7, 1_000);
    assert!(ids.iter().all(|id| (100_000..=999_999).contains(id)));
    assert_eq!(ids, request_ids(7, 1_000));
    assert_ne!(ids, request_ids(8, 1_000));
    assert_eq!(ids[..10], request_ids(7, 10));
}

#[test]
fn a_seat_is_read_only_from_a_replicas_greeting() {
    let greeting = br#"{"message":"Hello from Server: 12","status":"successful"}"#;
    assert_eq!(seat_in(greeting), Some(12));
    for other in ["", "Hello from Server: ", "Hello from Server: x", r#"{"message":"Hello"}"#] {
        assert_eq!(seat_in(other.as_bytes()), None, "{other}");
    }
}

#[test]
fn only_absolute_http_urls_are_taken() {
    for url in ["", "/home", "127.0.0.1:5000/home", "https://127.0.0.1/", "http://"] {
        assert!(LoadPlan::get(url, Vec::new()).is_err(), "{url}");
    }
}
