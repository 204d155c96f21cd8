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
    assert!(heads[2].contains("content-length: 1234"), "{raw}");
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
    let balancer = over(&[&server, &loses], &[]);
    for id in 0..40_u32 {
        let id = id.to_string();
        let answer = request(balancer.address, "GET", "/", &[("X-Request-Id", &id)], b"");
        assert_eq!(answer.status, 200, "GET {id}");
    }
    assert!(LOST.load(Ordering::SeqCst) > 5, "some went to the one that loses them");
    for id in 0..10_u32 {
        let before = LOST.load(Ordering::SeqCst);
        let id = id.to_string();
        let answer = request(balancer.address, "POST", "/", &[("X-Request-Id", &id)], b"once");
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
