//! How a replica stops.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::time::Duration;

use server::{Options, OptionsError};
use tokio::net::TcpStream;

use crate::client::in_time;
use crate::replica::{FOREVER, Replica};

#[tokio::test]
async fn a_request_in_flight_is_answered_before_the_replica_stops() {
    let latency = Duration::from_millis(200);
    let replica =
        Replica::start(Options { latency, shutdown_timeout: FOREVER, ..Options::default() });
    let address = replica.address;
    let mut client = replica.send().await;
    let stopped = replica.tell_to_stop();

    let answer = client.receive().await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("connection"), Some("close"));
    client.closed().await;
    in_time(stopped).await.unwrap().unwrap();
    let error = TcpStream::connect(address).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn a_request_in_the_queue_is_answered_before_the_replica_stops() {
    let replica = Replica::start(Options {
        latency: Duration::from_millis(100),
        concurrency: Some(std::num::NonZeroU32::MIN),
        shutdown_timeout: FOREVER,
        ..Options::default()
    });
    let (mut working, mut waiting) = (replica.send().await, replica.send().await);
    let stopped = replica.tell_to_stop();
    assert_eq!(working.receive().await.status, 200);
    assert_eq!(waiting.receive().await.status, 200);
    in_time(stopped).await.unwrap().unwrap();
}

#[tokio::test]
async fn idle_connections_are_closed_and_do_not_hold_up_the_stop() {
    let replica = Replica::start(Options { shutdown_timeout: FOREVER, ..Options::default() });
    let mut used = replica.client().await;
    assert_eq!(used.ask("GET", "/home").await.status, 200);
    let mut unused = replica.client().await;
    replica.has_taken_in_what_was_sent().await;

    replica.stop().await;
    used.closed().await;
    unused.closed().await;
}

#[tokio::test]
async fn after_the_deadline_what_is_still_in_flight_is_cut_off() {
    let replica = Replica::start(Options {
        latency: FOREVER,
        shutdown_timeout: Duration::from_millis(50),
        ..Options::default()
    });
    let mut client = replica.send().await;
    replica.stop().await;
    client.closed().await;
}

#[tokio::test]
async fn options_that_contradict_each_other_are_an_invalid_input() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let options = Options { queue: Some(1), ..Options::default() };
    let error = server::run(listener, options, std::future::pending()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<OptionsError>());
    assert_eq!(inner, Some(&OptionsError::QueueWithoutConcurrency { queue: 1 }));
}
