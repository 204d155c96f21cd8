//! HTTP/2 by ALPN, with the client of the crate that most others use.

use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Request, Response};
use rustix::process::Signal;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::{Files, ServerName, speaking_tls, tls_port};
use crate::conformance::upstream::{Exchange, Then, Upstream};
use crate::support::{Balancer, PATIENCE, wait_for};

/// A connection; its driver ends with an error if the other side broke the protocol.
pub(crate) struct Client {
    pub(crate) send: SendRequest<Bytes>,
    pub(crate) driver: JoinHandle<Result<(), h2::Error>>,
}

pub(crate) struct Whole {
    pub(crate) head: Response<()>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Client {
    pub(crate) async fn connect(files: &Files, port: u16) -> Self {
        Self::connect_with(&h2::client::Builder::new(), files, port).await
    }

    /// The same, with windows of the client's own.
    pub(crate) async fn connect_with(
        windows: &h2::client::Builder,
        files: &Files,
        port: u16,
    ) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let connector = TlsConnector::from(files.client(b"h2"));
        let name = ServerName::try_from("localhost").unwrap();
        let stream = connector.connect(name, stream).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (send, connection) = windows.handshake(stream).await.unwrap();
        Self { send, driver: tokio::spawn(connection) }
    }

    /// Sends a request with its body in these pieces.
    pub(crate) async fn send(
        &self,
        request: Request<()>,
        body: &[Bytes],
    ) -> Result<Whole, h2::Error> {
        let mut send = self.send.clone().ready().await?;
        let (answer, mut stream) = send.send_request(request, body.is_empty())?;
        for (index, piece) in body.iter().enumerate() {
            let mut piece = piece.clone();
            while !piece.is_empty() {
                stream.reserve_capacity(piece.len());
                let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
                let room = room.expect("the stream is open")?;
                stream.send_data(piece.split_to(room.min(piece.len())), false)?;
            }
            if index + 1 == body.len() {
                stream.send_data(Bytes::new(), true)?;
            }
        }
        let (head, mut body) = answer.await?.into_parts();
        let mut whole = Vec::new();
        while let Some(piece) = body.data().await {
            let piece = piece?;
            body.flow_control().release_capacity(piece.len())?;
            whole.extend_from_slice(&piece);
        }
        let trailers = body.trailers().await?;
        Ok(Whole { head: Response::from_parts(head, ()), body: whole, trailers })
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Whole, h2::Error> {
        self.send(ask("GET", path).body(()).unwrap(), &[]).await
    }
}

pub(crate) fn ask(method: &str, path: &str) -> http::request::Builder {
    Request::builder().method(method).uri(format!("https://localhost{path}"))
}

/// Runs a test of one connection; none may take longer than patience allows.
pub(crate) fn by_http2<F: Future<Output = ()>>(test: impl FnOnce() -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, test()).await.unwrap() });
}

fn echo(exchange: &mut Exchange<'_>) -> Then {
    exchange.read_body();
    let body = exchange.body();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    match exchange.wire.send(&[head.as_bytes(), &body].concat()) {
        Ok(()) => Then::GoOn,
        Err(_) => Then::Close,
    }
}

#[test]
fn requests_reach_the_replica_as_http_1_and_answers_come_back() {
    let (upstream, files) = (Upstream::playing(), Files::new());
    let answer = b"HTTP/1.1 201 Made\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Hop: 1\r\n\
                   Connection: X-Hop\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    upstream.play("/made?x=%2F", vec![answer.to_vec()], Then::GoOn);
    let (_balancer, port) = speaking_tls(&upstream, &files, &[]);
    by_http2(async || {
        let client = Client::connect(&files, port).await;
        let request = ask("POST", "/made?x=%2F").header("cookie", "one=1").header("x-a", "b");
        let request = request.header("cookie", "two=2").body(()).unwrap();
        let body = [Bytes::from_static(b"first "), Bytes::from_static(b"second")];
        let whole = client.send(request, &body).await.unwrap();
        assert_eq!((whole.head.status().as_u16(), &whole.body[..]), (201, &b"abc"[..]));
        let cookies: Vec<_> = whole.head.headers().get_all("set-cookie").iter().collect();
        assert_eq!(cookies, ["a=1", "b=2"]);
        for gone in ["connection", "x-hop", "transfer-encoding"] {
            assert!(!whole.head.headers().contains_key(gone), "{gone}");
        }
        assert!(whole.head.headers().contains_key("x-request-id"));
    });
    let seen = upstream.seen().remove(0);
    assert!(seen.whole && seen.body.data == b"first second", "{seen:?}");
    for (name, value) in [
        ("Host", "localhost"),
        ("cookie", "one=1; two=2"),
        ("x-a", "b"),
        ("X-Forwarded-Proto", "https"),
        ("Transfer-Encoding", "chunked"),
    ] {
        assert_eq!(seen.head.only(name).as_deref(), Some(value), "{name}");
    }
    assert!(upstream.faults().is_empty(), "{:?}", upstream.faults());
}

#[test]
fn answers_without_a_body_have_none() {
    let (upstream, files) = (Upstream::playing(), Files::new());
    for (target, answer) in [
        ("/204", "HTTP/1.1 204 No Content\r\n\r\n"),
        ("/304", "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n"),
        ("/head", "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n"),
    ] {
        upstream.play(target, vec![answer.into()], Then::GoOn);
    }
    let (_balancer, port) = speaking_tls(&upstream, &files, &[]);
    by_http2(async || {
        let client = Client::connect(&files, port).await;
        for (method, target, status, length) in [
            ("GET", "/204", 204, None),
            ("GET", "/304", 304, Some("7")),
            ("HEAD", "/head", 200, Some("1234")),
        ] {
            let request = ask(method, target).body(()).unwrap();
            let whole = client.send(request, &[]).await.unwrap();
            assert_eq!(whole.head.status().as_u16(), status);
            let told = whole.head.headers().get("content-length").map(|l| l.to_str().unwrap());
            assert_eq!((whole.body.len(), told), (0, length), "{target}");
        }
    });
}

#[test]
fn a_hundred_requests_at_once_each_get_their_own_answer() {
    let (upstream, files) = (Upstream::start(echo), Files::new());
    let (_balancer, port) = speaking_tls(&upstream, &files, &[]);
    by_http2(async || {
        let client = Client::connect(&files, port).await;
        let all = (0..100).map(|number| {
            let client = &client;
            async move {
                let body = Bytes::from(format!("{number} ").repeat(1 + number * 20));
                let request = ask("PUT", "/echo").header("content-length", body.len());
                let sent = [body.clone()];
                let whole = client.send(request.body(()).unwrap(), &sent).await.unwrap();
                assert!(whole.body == body, "{number}");
            }
        });
        futures_util::future::join_all(all).await;
    });
}

#[test]
fn large_bodies_cross_http_2_both_ways() {
    let (upstream, files) = (Upstream::start(echo), Files::new());
    let (_balancer, port) = speaking_tls(&upstream, &files, &[]);
    by_http2(async || {
        let client = Client::connect(&files, port).await;
        let body: Vec<Bytes> = (0..320_u32).map(|n| Bytes::from(vec![n as u8; 16_384])).collect();
        let whole = client.send(ask("POST", "/x").body(()).unwrap(), &body).await.unwrap();
        assert!(whole.body == body.concat(), "{} bytes", whole.body.len());
    });
}

#[test]
fn trailers_cross_to_clients_that_take_them() {
    let (upstream, files) = (Upstream::playing(), Files::new());
    let answer =
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Sum: 7\r\n\r\n";
    upstream.play("/t", vec![answer.to_vec()], Then::GoOn);
    let (_balancer, port) = speaking_tls(&upstream, &files, &[]);
    by_http2(async || {
        let client = Client::connect(&files, port).await;
        let request = ask("GET", "/t").header("te", "trailers").body(()).unwrap();
        let whole = client.send(request, &[]).await.unwrap();
        assert_eq!(whole.trailers.unwrap()["x-sum"], "7");
        assert!(client.get("/t").await.unwrap().trailers.is_none());
    });
}

#[test]
fn a_replica_that_dies_inside_an_answer_resets_the_stream_only() {
    let (upstream, files) = (Upstream::playing(), Files::new());
    for (target, answer) in [
        ("/length", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this"),
        ("/chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nonly\r\n"),
    ] {
        upstream.play(target, vec![answer.into()], Then::Close);
    }
    let (_balancer, port) = speaking_tls(&upstream, &files, &[]);
    by_http2(async || {
        let client = Client::connect(&files, port).await;
        for target in ["/length", "/chunks"] {
            let error = client.get(target).await.err().expect("it is not whole");
            assert!(error.is_reset(), "{target}: {error}");
        }
        assert_eq!(client.get("/fine").await.unwrap().body, b"ok");
    });
}

#[test]
fn a_stream_that_its_client_resets_is_given_up_at_the_replica() {
    let upstream = Upstream::start(|exchange| {
        let first = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n";
        exchange.wire.send(first).unwrap();
        // Nothing more comes of it until the other side ends it.
        assert!(exchange.wire.is_over());
        Then::Close
    });
    let files = Files::new();
    let (_balancer, port) = speaking_tls(&upstream, &files, &[]);
    by_http2(async || {
        let client = Client::connect(&files, port).await;
        let mut send = client.send.clone().ready().await.unwrap();
        let (answer, mut stream) =
            send.send_request(ask("GET", "/endless").body(()).unwrap(), true).unwrap();
        let mut body = answer.await.unwrap().into_body();
        assert_eq!(body.data().await.unwrap().unwrap(), "first");
        stream.send_reset(h2::Reason::CANCEL);
        drop((body, stream));
        let connection = upstream.seen()[0].connection;
        let ended = tokio::task::spawn_blocking(move || upstream.sees_end_of(connection));
        assert!(ended.await.unwrap(), "the replica is told that nobody listens");
        assert!(!client.driver.is_finished());
    });
}

#[test]
fn failures_are_http_2_answers() {
    let (upstream, files) = (Upstream::playing(), Files::new());
    upstream.play("/nonsense", vec![b"no HTTP\r\n\r\n".to_vec()], Then::Close);
    let (_balancer, port) = speaking_tls(&upstream, &files, &["--limit-body", "100B"]);
    by_http2(async || {
        let client = Client::connect(&files, port).await;
        let lost = client.get("/nonsense").await.unwrap();
        assert_eq!(lost.head.status(), 502);
        assert!(lost.body.starts_with(br#"{"message":"<Error> "#));
        for length in [Some(101), None] {
            let mut request = ask("POST", "/x");
            if let Some(length) = length {
                request = request.header("content-length", length);
            }
            let body = [Bytes::from(vec![b'x'; 101])];
            let whole = client.send(request.body(()).unwrap(), &body).await.unwrap();
            assert_eq!(whole.head.status(), 413, "{length:?}");
        }
        let request = Request::builder().method("CONNECT").uri("localhost:1").body(()).unwrap();
        assert_eq!(client.send(request, &[]).await.unwrap().head.status(), 501);
        assert_eq!(client.get("/x").await.unwrap().body, b"ok");
    });
}

#[test]
fn without_a_replica_the_answer_says_so() {
    let files = Files::new();
    let flags = files.flags();
    let mut all = vec!["--replicas", "0", "--tls-listen", "127.0.0.1:0"];
    all.extend(flags.iter().map(String::as_str));
    let balancer = Balancer::start(&all);
    by_http2(async || {
        let client = Client::connect(&files, tls_port(&balancer)).await;
        let whole = client.get("/x").await.unwrap();
        assert_eq!(whole.head.status(), 503);
        assert_eq!(whole.head.headers()["content-type"], "application/json");
        let body: serde_json::Value = serde_json::from_slice(&whole.body).unwrap();
        assert_eq!(body["status"], "failure");
        let rep = client.get("/rep").await.unwrap();
        assert!(rep.head.status() == 200 && rep.body.starts_with(b"{"), "{:?}", rep.head);
    });
}

#[test]
fn what_is_in_flight_at_a_stop_is_finished_and_the_client_told() {
    let (arrived, has_arrived) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let (arrived, may_go_on) = (Mutex::new(arrived), Mutex::new(may_go_on));
    let upstream = Upstream::start(move |exchange| {
        arrived.lock().unwrap().send(()).unwrap();
        may_go_on.lock().unwrap().recv().unwrap();
        exchange.play()
    });
    let files = Arc::new(Files::new());
    let (mut balancer, port) = speaking_tls(&upstream, &files, &[]);
    by_http2(async || {
        let client = Client::connect(&files, port).await;
        {
            let asked = client.get("/slow");
            tokio::pin!(asked);
            while has_arrived.try_recv().is_err() {
                let early = tokio::time::timeout(Duration::from_millis(5), &mut asked).await;
                assert!(early.is_err(), "answered before the replica did");
            }
            balancer.signal(Signal::TERM);
            let closed = || std::net::TcpStream::connect(("127.0.0.1", port)).err();
            wait_for("the listener to close", closed);
            go_on.send(()).unwrap();
            assert_eq!(asked.await.unwrap().body, b"ok");
        }
        // GOAWAY: the connection ends by itself, and well.
        drop(client.send);
        client.driver.await.unwrap().unwrap();
    });
    assert!(balancer.wait().success());
}

#[test]
fn an_idle_connection_ends_well() {
    let (upstream, files) = (Upstream::playing(), Files::new());
    let (_balancer, port) = speaking_tls(&upstream, &files, &["--timeout-keep-alive", "300ms"]);
    by_http2(async || {
        let client = Client::connect(&files, port).await;
        assert_eq!(client.get("/x").await.unwrap().body, b"ok");
        client.driver.await.unwrap().unwrap();
    });
}

#[test]
fn requests_are_counted_as_any_others() {
    let (upstream, files) = (Upstream::playing(), Files::new());
    let answer = b"HTTP/1.1 204 Nothing\r\n\r\n";
    upstream.play("/nothing", vec![answer.to_vec()], Then::GoOn);
    let (balancer, port) = speaking_tls(&upstream, &files, &[]);
    by_http2(async || {
        let client = Client::connect(&files, port).await;
        for _ in 0..3 {
            assert_eq!(client.get("/nothing").await.unwrap().head.status(), 204);
        }
    });
    wait_for("their counts", || {
        let metrics = String::from_utf8(balancer.get("/metrics").body).unwrap();
        let counted = "\nbalancer_requests_total{route=\"default\",code=\"2xx\"} 3\n";
        metrics.contains(counted).then_some(())
    });
}

#[test]
fn a_raised_limit_holds_for_the_next_request_by_way_of_a_new_connection_and_a_lowered_one_at_once()
{
    let (upstream, files) = (Upstream::playing(), Files::new());
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    let set = |head: &str| {
        std::fs::write(file.path(), format!("[limits]\nhead = \"{head}\"\ntarget = \"1KiB\""))
            .unwrap();
    };
    set("8KiB");
    let config = ["--config", file.path().to_str().unwrap()];
    let (balancer, port) = speaking_tls(&upstream, &files, &config);
    let taken = |count: usize| {
        wait_for("the configuration to be read again", || {
            (balancer.events("configuration was read again").len() >= count).then_some(())
        });
    };
    by_http2(|| async {
        let client = Client::connect(&files, port).await;
        let sized = |size: usize| ask("GET", "/x").header("x-large", "x".repeat(size));
        let sized = |size: usize| sized(size).body(()).unwrap();
        assert_eq!(client.send(sized(4_000), &[]).await.unwrap().head.status(), 200);
        set("2KiB");
        taken(1);
        assert_eq!(client.send(sized(4_000), &[]).await.unwrap().head.status(), 431);
        assert_eq!(client.send(sized(400), &[]).await.unwrap().head.status(), 200);
        set("32KiB");
        taken(2);
        // The client hears that this connection takes no more, and no request is lost.
        client.driver.await.unwrap().unwrap();
        let client = Client::connect(&files, port).await;
        assert_eq!(client.send(sized(20_000), &[]).await.unwrap().head.status(), 200);
    });
}
