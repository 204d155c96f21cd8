//! What crosses the balancer, between plain sockets on both sides: the replicas are scripted.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use rustix::process::Signal;

use crate::support::{Answer, Balancer, PATIENCE, read_answer, request, try_request, wait_for};

/// A server that answers probes by itself and everything else by a script.
struct Scripted {
    address: SocketAddr,
    /// Connections on which something else than a probe came.
    connections: Arc<AtomicUsize>,
    heads: Arc<Mutex<Vec<String>>>,
}

/// What a script gets: the head of a request, and the connection to read its body from and to
/// answer on. It tells whether the connection goes on.
type Script = fn(&str, &mut BufReader<TcpStream>) -> bool;

impl Scripted {
    fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, heads) = (Arc::new(AtomicUsize::new(0)), Arc::default());
        let server = Self { address, connections: Arc::clone(&connections), heads };
        let heads = Arc::clone(&server.heads);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (connections, heads) = (Arc::clone(&connections), Arc::clone(&heads));
                thread::spawn(move || {
                    serve(BufReader::new(stream), script, &connections, &heads);
                });
            }
        });
        server
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

fn serve(
    mut stream: BufReader<TcpStream>,
    script: Script,
    connections: &AtomicUsize,
    heads: &Mutex<Vec<String>>,
) {
    let mut first = true;
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
        }
        if head.starts_with("GET /heartbeat ") {
            answer(&mut stream, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            return;
        }
        if std::mem::take(&mut first) {
            connections.fetch_add(1, Ordering::SeqCst);
        }
        heads.lock().unwrap().push(head.clone());
        if !script(&head, &mut stream) {
            return;
        }
    }
}

fn answer(stream: &mut BufReader<TcpStream>, bytes: &str) {
    // The balancer may have given the request up: then nobody reads it.
    let _written = stream.get_mut().write_all(bytes.as_bytes());
}

/// 200 with a small body; the connection goes on.
fn ok(_: &str, stream: &mut BufReader<TcpStream>) -> bool {
    answer(stream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    true
}

/// A balancer over these servers, all of them ready.
fn over(servers: &[&Scripted], arguments: &[&str]) -> Balancer {
    let list: Vec<String> = servers.iter().map(|server| server.address.to_string()).collect();
    let balancer = Balancer::start(&[&["--servers", &list.join(",")], arguments].concat());
    balancer.wait_for_replicas(servers.len());
    balancer
}

fn get(balancer: &Balancer, path: &str) -> Answer {
    request(balancer.address, "GET", path, &[], b"")
}

#[test]
fn any_method_is_forwarded_with_its_target_byte_for_byte() {
    let server = Scripted::start(ok);
    let balancer = over(&[&server], &[]);
    for (method, target) in [
        ("GET", "/a/../b//c%2Fd?x=%20&y=a+b"),
        ("OPTIONS", "/x"),
        ("PATCH", "/%41"),
        ("PROPFIND", "/dav;v=1"),
        ("DELETE", "/x?"),
    ] {
        assert_eq!(request(balancer.address, method, target, &[], b"").status, 200);
        let head = server.heads().pop().unwrap();
        assert_eq!(head.lines().next().unwrap(), format!("{method} {target} HTTP/1.1"));
    }
}

#[test]
fn fields_of_one_connection_stay_behind_and_others_cross() {
    let server = Scripted::start(|_, stream| {
        answer(
            stream,
            "HTTP/1.1 201 Created\r\nContent-Length: 2\r\nConnection: x-hop\r\nX-Hop: 1\r\n\
             Keep-Alive: timeout=5\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-End: 1\r\n\r\nok",
        );
        true
    });
    let balancer = over(&[&server], &[]);
    let mut stream = TcpStream::connect(balancer.address).unwrap();
    stream
        .write_all(
            b"GET /x HTTP/1.1\r\nHost: site.example\r\nConnection: close, X-Mine\r\nX-Mine: 1\r\n\
              TE: gzip\r\nX-Forwarded-For: 6.6.6.6\r\nX-Keep: a\r\nX-Keep: b\r\n\r\n",
        )
        .unwrap();
    let mut raw = String::new();
    stream.read_to_string(&mut raw).unwrap();
    let raw = raw.to_ascii_lowercase();
    assert!(raw.starts_with("http/1.1 201 created"), "{raw}");
    assert!(raw.contains("set-cookie: a=1") && raw.contains("set-cookie: b=2"), "{raw}");
    assert!(raw.contains("x-end: 1"), "{raw}");
    assert!(!raw.contains("x-hop") && !raw.contains("timeout=5"), "{raw}");

    let head = server.heads().pop().unwrap().to_ascii_lowercase();
    assert!(head.contains("host: site.example"), "{head}");
    assert!(head.contains("x-keep: a") && head.contains("x-keep: b"), "{head}");
    assert!(head.contains("x-forwarded-for: 127.0.0.1\r\n"), "{head}");
    assert!(head.contains("x-forwarded-host: site.example"), "{head}");
    assert!(head.contains("x-forwarded-proto: http"), "{head}");
    for gone in ["x-mine", "\nte:", "6.6.6.6", "\nconnection:"] {
        assert!(!head.contains(gone), "{gone} in {head}");
    }
}

#[test]
fn large_bodies_cross_both_ways() {
    let server = Scripted::start(|head, stream| {
        let length = head.to_ascii_lowercase();
        let length = length.split("content-length: ").nth(1).and_then(|l| l.lines().next());
        let mut body = vec![0; length.unwrap().parse().unwrap()];
        stream.read_exact(&mut body).unwrap();
        answer(stream, &format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()));
        stream.get_mut().write_all(&body).is_ok()
    });
    let balancer = over(&[&server], &["--workers", "1"]);
    let body: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
    for _ in 0..2 {
        let answer = request(balancer.address, "POST", "/echo", &[], &body);
        assert!(answer.body == body, "{} bytes of {}", answer.body.len(), body.len());
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 1, "the connection is used again");
}

#[test]
fn first_bytes_cross_before_the_last_are_made() {
    // Up: the replica answers each chunk as it comes. Down: its answer is chunked.
    let server = Scripted::start(|_, stream| {
        answer(stream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).unwrap();
            let size = usize::from_str_radix(line.trim(), 16).unwrap();
            let mut chunk = vec![0; size + 2];
            stream.read_exact(&mut chunk).unwrap();
            if size == 0 {
                answer(stream, "0\r\n\r\n");
                return true;
            }
            answer(stream, &format!("{size:x}\r\n{}", String::from_utf8(chunk).unwrap()));
        }
    });
    let balancer = over(&[&server], &[]);
    let mut client = BufReader::new(TcpStream::connect(balancer.address).unwrap());
    client.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
    let head = "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.get_mut().write_all(head.as_bytes()).unwrap();
    for part in ["one", "two", "three"] {
        let chunk = format!("{:x}\r\n{part}\r\n", part.len());
        client.get_mut().write_all(chunk.as_bytes()).unwrap();
        let mut line = String::new();
        while line.trim() != part {
            line.clear();
            assert_ne!(client.read_line(&mut line).unwrap(), 0, "closed before {part}");
        }
    }
    client.get_mut().write_all(b"0\r\n\r\n").unwrap();
    let mut line = String::new();
    while line.trim() != "0" {
        line.clear();
        assert_ne!(client.read_line(&mut line).unwrap(), 0, "closed before the end");
    }
}

#[test]
fn answers_without_a_body_have_none_and_keep_the_connection_in_step() {
    let server = Scripted::start(|head, stream| {
        let target = head.split(' ').nth(1).unwrap();
        let status = match target {
            "/204" => "HTTP/1.1 204 No Content\r\n\r\n",
            "/304" => "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n",
            _ => "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n",
        };
        answer(stream, status);
        true
    });
    let balancer = over(&[&server], &[]);
    let mut stream = TcpStream::connect(balancer.address).unwrap();
    stream
        .write_all(
            b"GET /204 HTTP/1.1\r\nHost: a\r\n\r\nGET /304 HTTP/1.1\r\nHost: a\r\n\r\n\
              HEAD /head HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        )
        .unwrap();
    let mut raw = String::new();
    stream.read_to_string(&mut raw).unwrap();
    let heads: Vec<&str> = raw.split_inclusive("\r\n\r\n").collect();
    assert_eq!(heads.len(), 3, "{raw}");
    for (head, status) in heads.iter().zip(["204", "304", "200"]) {
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{raw}");
        assert!(!head.to_ascii_lowercase().contains("transfer-encoding"), "{raw}");
    }
    assert!(heads[2].contains("Content-Length: 1234"), "{raw}");
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
}

#[test]
fn a_body_that_ends_with_its_connection_is_whole() {
    let server = Scripted::start(|_, stream| {
        answer(stream, "HTTP/1.1 200 OK\r\n\r\nuntil the end");
        false
    });
    let balancer = over(&[&server], &[]);
    assert_eq!(get(&balancer, "/").body, b"until the end");
}

#[test]
fn an_answer_that_is_cut_short_is_visibly_so() {
    for short in [
        (|_, stream| {
            answer(stream, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this");
            false
        }) as Script,
        |_, stream| {
            answer(stream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nonly\r\n");
            false
        },
    ] {
        let server = Scripted::start(short);
        let balancer = over(&[&server], &[]);
        let error = try_request(balancer.address, "GET", "/", &[], b"").unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData, "{error}");
    }
}

#[test]
fn interim_answers_are_never_taken_for_the_final_one() {
    let server = Scripted::start(|_, stream| {
        answer(
            stream,
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n\
             HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        );
        true
    });
    let balancer = over(&[&server], &[]);
    for _ in 0..3 {
        let answer = get(&balancer, "/");
        assert_eq!((answer.status, answer.body.as_slice()), (200, &b"ok"[..]));
    }
}

#[test]
fn a_request_that_is_lost_goes_to_the_next_owner_only_if_that_is_safe() {
    static LOST: AtomicUsize = AtomicUsize::new(0);
    let server = Scripted::start(|head, stream| {
        if head.starts_with("GET ") {
            return ok(head, stream);
        }
        LOST.fetch_add(1, Ordering::SeqCst);
        false
    });
    let loses = Scripted::start(|_, _| {
        LOST.fetch_add(1, Ordering::SeqCst);
        false
    });
    // Or the one that loses them would be ejected after the fifth.
    let balancer = over(&[&server, &loses], &["--outliers-consecutive", "0"]);
    for id in 0..40_u32 {
        let id = id.to_string();
        let answer = request(balancer.address, "GET", "/", &[("X-Request-Id", &id)], b"");
        assert_eq!(answer.status, 200, "GET {id}");
    }
    assert!(LOST.load(Ordering::SeqCst) > 5, "some went to the one that loses them");
    for id in 0..10_u32 {
        let before = LOST.load(Ordering::SeqCst);
        let id = id.to_string();
        // One request that breaks two connections is not sent for a moment: these are different.
        let path = format!("/{id}");
        let answer = request(balancer.address, "POST", &path, &[("X-Request-Id", &id)], b"once");
        assert_eq!(answer.status, 502);
        assert_eq!(answer.message(), "<Error> the replica failed before it answered");
        assert_eq!(LOST.load(Ordering::SeqCst), before + 1, "POST {id} was sent twice");
    }
}

#[test]
fn a_refused_connection_is_tried_elsewhere_by_any_method() {
    let good = Scripted::start(ok);
    // Long intervals: the balancer does not get to know that the second one is gone.
    let interval = ["--health-interval", "1h"];
    let gone = Balancer::with_replicas(1, &[]);
    let list = format!("{},{}", good.address, gone.address);
    let balancer = Balancer::start(&[&["--servers", list.as_str()], &interval[..]].concat());
    balancer.wait_for_replicas(2);
    drop(gone);
    for id in 0..20_u32 {
        let id = id.to_string();
        for (method, body) in [("GET", &b""[..]), ("POST", b"x")] {
            let answer = request(balancer.address, method, "/", &[("X-Request-Id", &id)], body);
            assert_eq!(answer.status, 200, "{method} {id}");
        }
    }
}

#[test]
fn a_connection_that_closed_while_idle_is_nobodys_failure() {
    let server = Scripted::start(|head, stream| {
        ok(head, stream);
        false
    });
    let balancer = over(&[&server], &[]);
    for _ in 0..20 {
        assert_eq!(get(&balancer, "/").status, 200);
    }
}

#[test]
fn a_slow_replica_is_a_504() {
    let server = Scripted::start(|_, stream| {
        let mut end = [0];
        // Never answers; waits for the balancer to give up.
        stream.read(&mut end).is_ok_and(|read| read > 0)
    });
    let balancer = over(&[&server], &["--timeout-first-byte", "200ms"]);
    let answer = get(&balancer, "/");
    assert_eq!(
        (answer.status, answer.message().as_str()),
        (504, "<Error> the replica did not answer in time")
    );
}

#[test]
fn what_is_in_flight_at_a_stop_is_finished() {
    static ARRIVED: Mutex<Option<mpsc::Sender<()>>> = Mutex::new(None);
    static GO_ON: Mutex<Option<mpsc::Receiver<()>>> = Mutex::new(None);
    let server = Scripted::start(|head, stream| {
        ARRIVED.lock().unwrap().take().unwrap().send(()).unwrap();
        GO_ON.lock().unwrap().take().unwrap().recv().unwrap();
        ok(head, stream)
    });
    let (arrived, has_arrived) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel();
    *ARRIVED.lock().unwrap() = Some(arrived);
    *GO_ON.lock().unwrap() = Some(may_go_on);
    let mut balancer = over(&[&server], &[]);
    let mut client = TcpStream::connect(balancer.address).unwrap();
    client.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    has_arrived.recv_timeout(PATIENCE).unwrap();
    balancer.signal(Signal::TERM);
    wait_for("the listener to close", || TcpStream::connect(balancer.address).err());
    go_on.send(()).unwrap();
    assert_eq!(read_answer(&mut client, false).unwrap().body, b"ok");
    assert!(balancer.wait().success());
}

#[test]
fn a_connection_to_a_replica_is_used_again() {
    let server = Scripted::start(ok);
    let balancer = over(&[&server], &["--workers", "1"]);
    for method in ["GET", "DELETE", "OPTIONS", "GET", "GET"] {
        assert_eq!(request(balancer.address, method, "/", &[], b"").status, 200, "{method}");
    }
    assert_eq!(server.heads().len(), 5);
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
}

#[test]
fn a_post_after_a_replica_closed_its_idle_connection_gets_a_fresh_one() {
    static CLOSED: Mutex<Option<mpsc::Sender<()>>> = Mutex::new(None);
    let server = Scripted::start(|head, stream| {
        if head.starts_with("POST ") {
            stream.read_exact(&mut [0; 18]).unwrap();
        }
        ok(head, stream);
        // After a POST's answer the next round may have begun.
        if head.starts_with("GET ")
            && let Some(closed) = CLOSED.lock().unwrap().take()
        {
            // Waits until the balancer has closed its side as well: so it knows.
            stream.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
            assert_eq!(stream.read(&mut [0]).unwrap(), 0);
            closed.send(()).unwrap();
            return false;
        }
        true
    });
    let balancer = over(&[&server], &["--workers", "1"]);
    for _ in 0..5 {
        let (closed, has_closed) = mpsc::channel();
        *CLOSED.lock().unwrap() = Some(closed);
        assert_eq!(get(&balancer, "/").status, 200);
        has_closed.recv_timeout(PATIENCE).expect("an idle connection that ended is let go");
        let answer = request(balancer.address, "POST", "/", &[], b"not to be repeated");
        assert_eq!((answer.status, answer.body.as_slice()), (200, &b"ok"[..]));
    }
    assert_eq!(server.heads().len(), 10, "nothing was sent twice");
}

#[test]
fn an_upload_of_a_known_length_reaches_the_replica_before_its_end() {
    static GOT: Mutex<Option<mpsc::Sender<Vec<u8>>>> = Mutex::new(None);
    let (got, has_got) = mpsc::channel();
    *GOT.lock().unwrap() = Some(got);
    let server = Scripted::start(|head, stream| {
        assert!(head.to_ascii_lowercase().contains("content-length: 10\r\n"), "{head}");
        let got = GOT.lock().unwrap().take().unwrap();
        for _ in 0..2 {
            let mut half = [0; 5];
            stream.read_exact(&mut half).unwrap();
            got.send(half.to_vec()).unwrap();
        }
        ok(head, stream)
    });
    let balancer = over(&[&server], &[]);
    let mut client = TcpStream::connect(balancer.address).unwrap();
    let head = "PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\nConnection: close\r\n\r\n";
    client.write_all(format!("{head}first").as_bytes()).unwrap();
    assert_eq!(has_got.recv_timeout(PATIENCE).unwrap(), b"first");
    client.write_all(b"later").unwrap();
    assert_eq!(has_got.recv_timeout(PATIENCE).unwrap(), b"later");
    assert_eq!(read_answer(&mut client, false).unwrap().body, b"ok");
}

#[test]
fn an_unmodified_answer_keeps_the_length_that_it_tells() {
    let server = Scripted::start(|_, stream| {
        answer(stream, "HTTP/1.1 304 Not Modified\r\nContent-Length: 77\r\nETag: \"x\"\r\n\r\n");
        true
    });
    let balancer = over(&[&server], &[]);
    let mut stream = TcpStream::connect(balancer.address).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let mut raw = String::new();
    stream.read_to_string(&mut raw).unwrap();
    let raw = raw.to_ascii_lowercase();
    assert!(raw.starts_with("http/1.1 304") && raw.ends_with("\r\n\r\n"), "{raw}");
    assert_eq!(raw.matches("content-length: 77\r\n").count(), 1, "{raw}");
    assert_eq!(raw.matches("content-length").count(), 1, "{raw}");
    assert!(raw.contains("etag: \"x\""), "{raw}");
}

#[test]
fn answers_of_any_status_cross_as_they_are() {
    let server = Scripted::start(|head, stream| {
        let status = head.split(' ').nth(1).unwrap().trim_start_matches('/');
        answer(
            stream,
            &format!(
                "HTTP/1.1 {status} Whatever\r\nX-Own: {status}\r\nContent-Length: 3\r\n\r\nown"
            ),
        );
        true
    });
    let balancer = over(&[&server], &[]);
    for status in [200, 201, 206, 302, 400, 401, 403, 404, 405, 409, 418, 429, 500, 502, 503, 599] {
        let answer = get(&balancer, &format!("/{status}"));
        assert_eq!(answer.status, status);
        assert_eq!(answer.headers["x-own"], status.to_string());
        assert_eq!(answer.body, b"own", "{status}");
        assert!(!answer.headers.contains_key("retry-after"), "{status}");
    }
}

#[test]
fn a_late_request_is_executed_once_whatever_its_method() {
    static SEEN: AtomicUsize = AtomicUsize::new(0);
    let hangs: Script = |_, stream| {
        SEEN.fetch_add(1, Ordering::SeqCst);
        let mut rest = Vec::new();
        // Never answers; waits for the balancer to give up.
        stream.read_to_end(&mut rest).is_err()
    };
    let (one, other) = (Scripted::start(hangs), Scripted::start(hangs));
    let balancer = over(&[&one, &other], &["--timeout-first-byte", "200ms"]);
    for (number, method) in ["GET", "POST", "PUT"].into_iter().enumerate() {
        let body: &[u8] = if method == "GET" { b"" } else { b"x" };
        assert_eq!(request(balancer.address, method, "/", &[], body).status, 504, "{method}");
        assert_eq!(SEEN.load(Ordering::SeqCst), number + 1, "{method} went to a second replica");
    }
}

#[test]
fn a_client_that_goes_away_ends_its_request_at_the_replica() {
    static ENDED: Mutex<Option<mpsc::Sender<()>>> = Mutex::new(None);
    let server = Scripted::start(|_, stream| {
        answer(stream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
        // Nothing more comes of it; the end of the connection, by a close or by a reset.
        let ended = !matches!(stream.read(&mut [0]), Ok(1..));
        ENDED.lock().unwrap().take().unwrap().send(()).unwrap();
        !ended
    });
    let (ended, has_ended) = mpsc::channel();
    *ENDED.lock().unwrap() = Some(ended);
    let balancer = over(&[&server], &[]);
    let mut client = BufReader::new(TcpStream::connect(balancer.address).unwrap());
    client.get_mut().write_all(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut line = String::new();
    // All that there is is read, so that closing is a plain end and no reset.
    while line.trim() != "first" {
        line.clear();
        assert_ne!(client.read_line(&mut line).unwrap(), 0, "closed before the first part");
    }
    drop(client);
    has_ended.recv_timeout(PATIENCE).expect("the replica is told that nobody listens");
}

#[test]
fn an_upload_that_breaks_off_is_not_complete_at_the_replica() {
    static HEARD: Mutex<Option<mpsc::Sender<String>>> = Mutex::new(None);
    let (told, heard) = mpsc::channel();
    *HEARD.lock().unwrap() = Some(told);
    let server = Scripted::start(|_, stream| {
        let mut raw = Vec::new();
        // What came before a reset counts as well.
        let _ended = stream.read_to_end(&mut raw).is_ok();
        let raw = String::from_utf8_lossy(&raw).into_owned();
        HEARD.lock().unwrap().as_ref().unwrap().send(raw).unwrap();
        false
    });
    let balancer = over(&[&server], &[]);
    for (framing, part) in
        [("Transfer-Encoding: chunked", "5\r\nfirst\r\n"), ("Content-Length: 100", "first")]
    {
        let mut client = TcpStream::connect(balancer.address).unwrap();
        let head = format!("POST /x HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n{part}");
        client.write_all(head.as_bytes()).unwrap();
        wait_for("the head at the replica", || {
            server
                .heads()
                .last()
                .filter(|head| head.to_ascii_lowercase().contains(&framing.to_ascii_lowercase()))
                .map(|_| ())
        });
        drop(client);
        let body = heard.recv_timeout(PATIENCE).unwrap();
        assert!(!body.ends_with("0\r\n\r\n"), "{framing}: {body}");
        assert!(body.len() < 100, "{framing}: {body}");
    }
    assert_eq!(server.heads().len(), 2, "neither was sent again");
}

#[test]
fn a_request_that_two_readers_would_cut_differently_is_not_forwarded() {
    let server = Scripted::start(ok);
    let balancer = over(&[&server], &[]);
    for bad in [
        "Content-Length: 3\r\nContent-Length: 5",
        "Content-Length: 3\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked, gzip",
        "Content-Length: +3",
        "Content-Length: 3, 3 x",
        "X-A : 1",
    ] {
        let mut stream = TcpStream::connect(balancer.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = format!("POST /bad HTTP/1.1\r\nHost: a\r\n{bad}\r\n\r\n0\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut raw = Vec::new();
        // The connection may be reset, since not all of it was read.
        let _ended = stream.read_to_end(&mut raw).is_ok();
        let raw = String::from_utf8_lossy(&raw).into_owned();
        let refused =
            raw.starts_with("HTTP/1.1 400") || raw.starts_with("HTTP/1.1 501") || raw.is_empty();
        let safe = refused && server.heads().is_empty();
        assert!(safe, "{bad}: {raw} after {:?}", server.heads());
    }
}

#[test]
fn nothing_sent_to_the_balancers_own_paths_reaches_a_replica() {
    let server = Scripted::start(ok);
    let balancer = over(&[&server], &[]);
    let json = ("Content-Type", "application/json");
    let evil = ("Host", "evil.example");
    for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        for path in ["/rep", "/add", "/rm", "/metrics", "/admin", "/admin/", "/admin/x", "/add?n=1"]
        {
            for header in [json, evil, ("Content-Type", "text/plain")] {
                let body: &[u8] = if method == "POST" { b"{\"n\":0}" } else { b"" };
                let answer = request(balancer.address, method, path, &[header], body);
                assert!(answer.status < 500, "{method} {path}: {answer:?}");
            }
        }
    }
    assert_eq!(server.heads(), Vec::<String>::new());
    assert_eq!(get(&balancer, "/").status, 200);
    assert_eq!(server.heads().len(), 1);
}

#[test]
fn listed_replicas_are_added_and_removed_by_their_addresses_alone() {
    let server = Scripted::start(ok);
    let balancer = over(&[&server], &[]);
    for (method, path) in [("POST", "/add"), ("DELETE", "/rm")] {
        let answer = balancer.json(method, path, r#"{"n":1}"#);
        let expected = "<Error> replicas are listed ('servers'), not owned: 'hostnames' must have \
                        the address of each of 'n' = 1, as host:port, not 0";
        assert_eq!((answer.status, answer.message().as_str()), (400, expected));
    }
    assert_eq!(balancer.replicas(), [server.address.to_string()]);
}

/// What comes back for these bytes, until the connection ends.
fn exchange(balancer: &Balancer, bytes: &str) -> String {
    let mut stream = TcpStream::connect(balancer.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(bytes.as_bytes()).unwrap();
    let mut raw = Vec::new();
    stream.read_to_end(&mut raw).unwrap();
    String::from_utf8_lossy(&raw).into_owned()
}

#[test]
fn unusual_targets_cross_byte_for_byte() {
    let server = Scripted::start(ok);
    let balancer = over(&[&server], &[]);
    let long = format!("/{}?{}", "p".repeat(2_000), "q".repeat(2_000));
    for target in [
        "/",
        "/?",
        "//",
        "//evil.example/x",
        "/a//b/./c/../d/",
        "/%2e%2e/%2F%5c?%00",
        "/x?a=[1]&b={2}&c=|",
        "/x?a=b?c=d",
        "/a:b@c;d=e,f!$&'()*+~",
        "/rep/",
        "/rep%20",
        "/adder",
        "/rm/x",
        "/administrator",
        "/metrics/x",
        &long,
    ] {
        let answer = request(balancer.address, "GET", target, &[], b"");
        assert_eq!(answer.status, 200, "{target}: {answer:?}");
        let head = server.heads().pop().unwrap();
        assert_eq!(head.lines().next().unwrap(), format!("GET {target} HTTP/1.1"));
    }
}

#[test]
fn a_client_of_http_1_0_gets_no_chunks() {
    let server = Scripted::start(|_, stream| {
        answer(
            stream,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
        );
        true
    });
    let balancer = over(&[&server], &[]);
    let raw = exchange(&balancer, "GET /x HTTP/1.0\r\n\r\n");
    assert!(raw.ends_with("\r\n\r\nabcde"), "{raw}");
    assert!(!raw.to_ascii_lowercase().contains("transfer-encoding"), "{raw}");
}

#[test]
fn a_client_that_waits_for_a_go_ahead_gets_it_once() {
    let server = Scripted::start(|head, stream| {
        // From end to end: the replica decides.
        assert!(head.contains("Expect: 100-continue"), "{head}");
        answer(stream, "HTTP/1.1 100 Continue\r\n\r\n");
        stream.read_exact(&mut [0; 4]).unwrap();
        ok(head, stream)
    });
    let balancer = over(&[&server], &[]);
    let mut client = BufReader::new(TcpStream::connect(balancer.address).unwrap());
    client.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
    let head = "POST /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\
                Connection: close\r\n\r\n";
    client.get_mut().write_all(head.as_bytes()).unwrap();
    let mut line = String::new();
    client.read_line(&mut line).unwrap();
    assert!(line.starts_with("HTTP/1.1 100 "), "{line}");
    client.get_mut().write_all(b"body").unwrap();
    let mut rest = String::new();
    client.read_to_string(&mut rest).unwrap();
    assert_eq!(rest.matches("HTTP/1.1 ").count(), 1, "{rest}");
    assert!(rest.contains("HTTP/1.1 200") && rest.ends_with("ok"), "{rest}");
}

#[test]
fn an_answer_before_the_end_of_the_upload_reaches_the_client() {
    let server = Scripted::start(|_, stream| {
        answer(
            stream,
            "HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig",
        );
        // Closes when the other side does, so that the answer is not lost by a reset.
        let _rest = stream.read_to_end(&mut Vec::new()).is_ok();
        false
    });
    let balancer = over(&[&server], &[]);
    let mut client = BufReader::new(TcpStream::connect(balancer.address).unwrap());
    client.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
    let head = "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nsome";
    client.get_mut().write_all(head.as_bytes()).unwrap();
    let mut answered = String::new();
    while !answered.ends_with("\r\n\r\n") {
        assert_ne!(client.read_line(&mut answered).unwrap(), 0, "closed after {answered:?}");
    }
    assert!(answered.starts_with("HTTP/1.1 413"), "{answered}");
    let mut body = [0; 3];
    client.read_exact(&mut body).unwrap();
    assert_eq!(&body, b"big");
}

#[test]
fn what_a_replica_sends_unasked_is_never_the_next_requests_answer() {
    let server = Scripted::start(|_, stream| {
        answer(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok\
             HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        );
        true
    });
    let balancer = over(&[&server], &["--workers", "1"]);
    for _ in 0..20 {
        let answer = get(&balancer, "/");
        assert_eq!((answer.status, answer.body.as_slice()), (200, &b"ok"[..]));
    }
}

#[test]
fn nonsense_from_a_replica_is_a_502() {
    for nonsense in [
        (|_, stream| {
            answer(stream, "this is no HTTP\r\n\r\n");
            false
        }) as Script,
        |_, stream| {
            answer(stream, "HTTP/1.1 abc\r\n\r\n");
            false
        },
        |_, stream| {
            answer(stream, "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n");
            false
        },
        |_, stream| {
            answer(stream, "HTTP/1.1 200 OK\r\nContent-Le");
            false
        },
        |_, _| false,
    ] {
        let server = Scripted::start(nonsense);
        let balancer = over(&[&server], &[]);
        let answer = request(balancer.address, "POST", "/", &[], b"x");
        let expected = "<Error> the replica failed before it answered";
        assert_eq!((answer.status, answer.message().as_str()), (502, expected));
        assert_eq!(server.heads().len(), 1);
    }
}

#[test]
fn a_request_that_nobody_takes_leaves_its_connection_in_step() {
    let balancer = Balancer::start(&["--replicas", "0"]);
    let body = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n".repeat(50);
    let raw = exchange(
        &balancer,
        &format!(
            "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}\
             GET /rep HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            body.len()
        ),
    );
    assert!(raw.starts_with("HTTP/1.1 503"), "{raw}");
    let answers = raw.matches("HTTP/1.1 ").count();
    assert!(answers <= 2, "the body was taken for requests: {raw}");
    assert!(answers == 1 || raw.contains(r#""N":0"#), "{raw}");
}

#[test]
fn requests_that_come_in_one_piece_are_answered_in_order() {
    let server = Scripted::start(|head, stream| {
        let target = head.split(' ').nth(1).unwrap();
        answer(stream, &format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{target}"));
        true
    });
    let balancer = over(&[&server], &[]);
    let all = ["/1", "/2", "/3", "/4"];
    let mut bytes: String = all.map(|t| format!("GET {t} HTTP/1.1\r\nHost: a\r\n\r\n")).concat();
    bytes += "GET /5 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let raw = exchange(&balancer, &bytes);
    let order: Vec<usize> = ["/1", "/2", "/3", "/4", "/5"].map(|t| raw.find(t).unwrap()).to_vec();
    assert!(order.is_sorted(), "{raw}");
    assert_eq!(raw.matches("HTTP/1.1 200").count(), 5, "{raw}");
}

/// The most memory that a process has had, in KiB.
fn peak_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn bodies_larger_than_any_buffer_leave_memory_flat() {
    const SIZE: u64 = 256 << 20;
    let server = Scripted::start(|head, stream| {
        if head.starts_with("PUT ") {
            let taken = std::io::copy(&mut stream.take(SIZE), &mut std::io::sink()).unwrap();
            assert_eq!(taken, SIZE);
            return ok(head, stream);
        }
        answer(stream, &format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n"));
        std::io::copy(&mut std::io::repeat(b'x').take(SIZE), stream.get_mut()).is_ok()
    });
    let balancer = over(&[&server], &["--workers", "1"]);
    let send = |head: String, body: u64| {
        let mut client = TcpStream::connect(balancer.address).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.write_all(head.as_bytes()).unwrap();
        std::io::copy(&mut std::io::repeat(b'x').take(body), &mut client).unwrap();
        std::io::copy(&mut client, &mut std::io::sink()).unwrap()
    };
    let last = "Host: a\r\nConnection: close\r\n";
    assert!(send(format!("GET /warm HTTP/1.1\r\n{last}\r\n"), 0) > SIZE);
    let before = peak_memory(balancer.pid());
    assert!(send(format!("GET /down HTTP/1.1\r\n{last}\r\n"), 0) > SIZE);
    send(format!("PUT /up HTTP/1.1\r\n{last}Content-Length: {SIZE}\r\n\r\n"), SIZE);
    assert_eq!(server.heads().len(), 3);
    let grown = peak_memory(balancer.pid()) - before;
    assert!(grown < 4 * 1024, "{grown} KiB more for bodies of 256 MiB");
}
