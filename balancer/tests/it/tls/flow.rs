//! Who waits for whom in HTTP/2: slow streams, clients that do not read, clients that go away.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use super::http2::{Client, ask, by_http2};
use super::{Files, speaking_tls};
use crate::conformance::upstream::{Then, Upstream};

#[test]
fn a_stream_that_waits_holds_no_other_up() {
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let may_go_on = Mutex::new(may_go_on);
    let upstream = Upstream::start(move |exchange| {
        if exchange.head.target() == "/slow" {
            may_go_on.lock().unwrap().recv().unwrap();
        }
        exchange.play()
    });
    let files = Files::new();
    let (_balancer, port) = speaking_tls(&upstream, &files, &[]);
    by_http2(async || {
        let client = Client::connect(&files, port).await;
        let others = async {
            for _ in 0..20 {
                assert_eq!(client.get("/fast").await.unwrap().body, b"ok");
            }
            go_on.send(()).unwrap();
        };
        let (slow, ()) = tokio::join!(client.get("/slow"), others);
        assert_eq!(slow.unwrap().body, b"ok");
    });
}

#[test]
fn a_request_that_is_given_up_before_its_answer_ends_at_the_replica() {
    let upstream = Arc::new(Upstream::start(|exchange| {
        if exchange.head.target() != "/never" {
            return exchange.play();
        }
        exchange.hang()
    }));
    let files = Files::new();
    let (_balancer, port) = speaking_tls(&upstream, &files, &[]);
    by_http2(async || {
        let client = Client::connect(&files, port).await;
        let mut send = client.send.clone().ready().await.unwrap();
        let request = ask("GET", "/never").body(()).unwrap();
        let (answer, mut stream) = send.send_request(request, true).unwrap();
        let replica = Arc::clone(&upstream);
        let came = tokio::task::spawn_blocking(move || replica.sees(1));
        assert!(came.await.unwrap());
        stream.send_reset(h2::Reason::CANCEL);
        drop((answer, stream));
        let replica = Arc::clone(&upstream);
        let connection = replica.seen()[0].connection;
        let ended = tokio::task::spawn_blocking(move || replica.sees_end_of(connection));
        assert!(ended.await.unwrap(), "the replica is told that nobody listens");
        assert_eq!(client.get("/x").await.unwrap().body, b"ok");
    });
}

#[test]
fn a_client_that_does_not_read_is_let_go_and_little_is_kept_for_it() {
    const WHOLE: usize = 256 * 1024 * 1024;
    let taken = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&taken);
    let upstream = Arc::new(Upstream::start(move |exchange| {
        if exchange.head.target() != "/large" {
            return exchange.play();
        }
        exchange.write(format!("HTTP/1.1 200 OK\r\nContent-Length: {WHOLE}\r\n\r\n").as_bytes());
        let piece = vec![b'x'; 64 * 1024];
        while counted.load(Ordering::SeqCst) < WHOLE && exchange.wire.send(&piece).is_ok() {
            counted.fetch_add(piece.len(), Ordering::SeqCst);
        }
        Then::Close
    }));
    let files = Files::new();
    let (_balancer, port) = speaking_tls(&upstream, &files, &["--timeout-client-body", "500ms"]);
    by_http2(async || {
        // The connection has room for others beside the stream that is not read.
        let mut windows = h2::client::Builder::new();
        windows.initial_connection_window_size(8 * 1024 * 1024);
        let client = Client::connect_with(&windows, &files, port).await;
        let mut send = client.send.clone().ready().await.unwrap();
        let request = ask("GET", "/large").body(()).unwrap();
        let (answer, _stream) = send.send_request(request, true).unwrap();
        let mut body = answer.await.unwrap().into_body();
        assert_eq!(client.get("/x").await.unwrap().body, b"ok");
        let replica = Arc::clone(&upstream);
        let connection = replica.seen()[0].connection;
        let ended = tokio::task::spawn_blocking(move || replica.sees_end_of(connection));
        assert!(ended.await.unwrap(), "the replica is told that nobody reads");
        // What the kernel holds between the two is the most of it.
        let taken = taken.load(Ordering::SeqCst);
        assert!(taken < 32 * 1024 * 1024, "{taken} bytes were taken for nobody");
        let error = loop {
            match body.data().await.expect("it is not whole") {
                Ok(_piece) => {}
                Err(error) => break error,
            }
        };
        assert!(error.is_reset(), "{error}");
        assert_eq!(client.get("/x").await.unwrap().body, b"ok");
    });
}

#[test]
fn an_answer_that_fits_every_buffer_is_given_up_as_well_when_nobody_takes_it() {
    let (upstream, files) = (Upstream::playing(), Files::new());
    let (_balancer, port) = speaking_tls(&upstream, &files, &["--timeout-client-body", "300ms"]);
    by_http2(async || {
        let mut windows = h2::client::Builder::new();
        windows.initial_window_size(0);
        let client = Client::connect_with(&windows, &files, port).await;
        let mut send = client.send.clone().ready().await.unwrap();
        let request = ask("GET", "/x").body(()).unwrap();
        let (answer, _stream) = send.send_request(request, true).unwrap();
        let mut body = answer.await.unwrap().into_body();
        let error = body.data().await.expect("it is not whole").unwrap_err();
        assert!(error.is_reset(), "{error}");
        assert!(!client.driver.is_finished());
    });
}

#[test]
fn a_body_that_does_not_go_on_is_late_and_others_go_on() {
    let (upstream, files) = (Upstream::playing(), Files::new());
    let (_balancer, port) = speaking_tls(&upstream, &files, &["--timeout-client-body", "300ms"]);
    by_http2(async || {
        let client = Client::connect(&files, port).await;
        let mut send = client.send.clone().ready().await.unwrap();
        let request = ask("POST", "/late").header("content-length", 10).body(()).unwrap();
        let (answer, mut stream) = send.send_request(request, false).unwrap();
        stream.send_data("part".into(), false).unwrap();
        assert_eq!(answer.await.unwrap().status(), 408);
        assert_eq!(client.get("/x").await.unwrap().body, b"ok");
    });
    let late = upstream.seen().into_iter().find(|seen| seen.head.target() == "/late");
    assert!(late.is_none_or(|seen| !seen.whole), "no replica takes it for a whole one");
}
