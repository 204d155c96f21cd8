//! The latency model, as a client sees it.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use server::Options;
use server::latency::{Factor, Share};
use tokio::sync::mpsc;

use crate::client::{Client, in_time};
use crate::replica::{FOREVER, Replica};

/// One slot and a queue; who has the slot keeps it, and a stop cuts it off at once.
fn one_slot(queue: u32) -> Options {
    Options {
        concurrency: Some(NonZeroU32::MIN),
        queue: Some(queue),
        latency: FOREVER,
        shutdown_timeout: Duration::ZERO,
        ..Options::default()
    }
}

/// Sends requests until one is let in, which must happen soon; the others are refused.
async fn until_let_in(replica: &Replica) -> Client {
    in_time(async {
        loop {
            let mut client = replica.send().await;
            if !client.has_answer().await {
                return client;
            }
            assert_eq!(client.receive().await.status, 503);
        }
    })
    .await
}

#[tokio::test]
async fn a_full_queue_is_answered_503_at_once() {
    let replica = Replica::start(one_slot(2));
    let inside = [replica.send().await, replica.send().await, replica.send().await];

    for (method, target) in
        [("GET", "/home"), ("GET", "/login"), ("POST", "/register"), ("POST", "/changePassword")]
    {
        let answer = replica.ask(method, target).await;
        assert_eq!(answer.status, 503);
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let expected = r#"{"message":"<Error> the queue is full","status":"failure"}"#;
        assert_eq!(answer.body, expected);
    }
    for client in &inside {
        assert!(!client.has_answer().await);
    }
    replica.stop().await;
}

#[tokio::test]
async fn a_refused_request_leaves_its_connection_open() {
    let replica = Replica::start(one_slot(0));
    let _inside = replica.send().await;
    let mut client = replica.client().await;
    assert_eq!(client.ask("GET", "/home").await.status, 503);
    assert_eq!(client.ask("GET", "/home").await.status, 503);
    assert_eq!(client.ask("GET", "/heartbeat").await.status, 200);
    replica.stop().await;
}

#[tokio::test]
async fn probes_and_wrong_paths_pass_by_a_full_queue() {
    let replica = Replica::start(one_slot(0));
    let _inside = replica.send().await;
    for (method, target, status) in [
        ("GET", "/heartbeat", 200),
        ("GET", "/health-check", 200),
        ("GET", "/other", 404),
        ("PUT", "/home", 405),
        ("GET", "/home", 503),
    ] {
        assert_eq!(replica.ask(method, target).await.status, status, "{method} {target}");
    }
    replica.stop().await;
}

#[tokio::test]
async fn who_came_first_is_answered_first() {
    let replica = Replica::start(Options { latency: Duration::from_millis(20), ..one_slot(9) });
    let (answered, mut order) = mpsc::channel(6);
    for number in 0..6 {
        let mut client = replica.send().await;
        let answered = answered.clone();
        tokio::spawn(async move {
            assert_eq!(client.receive().await.status, 200);
            answered.send(number).await.unwrap();
        });
    }
    for number in 0..6 {
        assert_eq!(in_time(order.recv()).await, Some(number));
    }
    replica.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_the_queue_frees_its_place() {
    let replica = Replica::start(one_slot(1));
    let working = replica.send().await;
    let waiting = replica.send().await;
    assert_eq!(replica.ask("GET", "/home").await.status, 503);

    drop(waiting);
    let waiting = until_let_in(&replica).await;
    assert_eq!(replica.ask("GET", "/home").await.status, 503);
    assert!(!working.has_answer().await && !waiting.has_answer().await);
    replica.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_its_slot_frees_it() {
    let replica = Replica::start(one_slot(0));
    let working = replica.send().await;
    assert_eq!(replica.ask("GET", "/home").await.status, 503);

    drop(working);
    let working = until_let_in(&replica).await;
    assert_eq!(replica.ask("GET", "/home").await.status, 503);
    assert!(!working.has_answer().await);
    replica.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_after_a_long_body_frees_its_slot_as_well() {
    let replica = Replica::start(one_slot(0));
    let mut working = replica.client().await;
    let body = "x".repeat(1 << 20);
    let length = body.len();
    let request = format!("POST /register HTTP/1.1\r\nHost: r\r\nContent-Length: {length}\r\n\r\n");
    working.write(&request).await;
    working.write(&body).await;
    replica.has_taken_in_what_was_sent().await;

    drop(working);
    let working = until_let_in(&replica).await;
    assert_eq!(replica.ask("GET", "/home").await.status, 503);
    assert!(!working.has_answer().await);
    replica.stop().await;
}

#[tokio::test]
async fn work_takes_the_base_time_and_slow_work_as_many_times_as_long() {
    let usual = Options { latency: Duration::from_millis(20), ..Options::default() };
    let slow = Options {
        slow_share: Share::new(1.0).unwrap(),
        slow_factor: Factor::new(5.0).unwrap(),
        ..usual.clone()
    };
    for (options, least) in [(usual, 20), (slow, 100)] {
        let replica = Replica::start(options);
        for (method, target, status) in
            [("GET", "/home", 200), ("GET", "/login", 200), ("POST", "/register", 201)]
        {
            let start = Instant::now();
            assert_eq!(replica.ask(method, target).await.status, status);
            assert!(start.elapsed() >= Duration::from_millis(least), "{method} {target}");
        }
        replica.stop().await;
    }
}

#[tokio::test]
async fn without_a_limit_everything_is_worked_on_at_once() {
    let options = Options { concurrency: None, queue: None, ..one_slot(0) };
    let replica = Replica::start(options);
    let mut working = Vec::new();
    for _ in 0..50 {
        working.push(replica.send().await);
    }
    for client in &working {
        assert!(!client.has_answer().await);
    }
    replica.stop().await;
}
