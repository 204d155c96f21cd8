//! HTTP/1.1 over TLS, and the certificate's files.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Signal;
use tokio_rustls::rustls;

use super::{Files, connect, exchange, replace, speaking_tls};
use crate::conformance::over;
use crate::conformance::upstream::{Then, Upstream};
use crate::support::{PATIENCE, request, wait_for};

const LAST: &str = "GET /x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

#[test]
fn a_request_over_tls_is_answered_beside_plain_ones() {
    let (upstream, files) = (Upstream::playing(), Files::new());
    let (balancer, port) = speaking_tls(&upstream, &files, &[]);
    let mut stream = connect(&files, port);
    for _ in 0..2 {
        stream.write_all(b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\nok") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            answer.push(byte[0]);
        }
        assert!(answer.starts_with(b"HTTP/1.1 200"));
    }
    // `read_to_end` insists on the goodbye of TLS.
    let last = exchange(&mut stream, LAST).unwrap();
    assert!(last.starts_with("HTTP/1.1 200") && last.ends_with("\r\n\r\nok"), "{last}");
    let schemes = |seen: &[crate::conformance::upstream::Seen]| -> Vec<_> {
        seen.iter().map(|seen| seen.head.only("X-Forwarded-Proto")).collect()
    };
    assert_eq!(schemes(&upstream.seen()), vec![Some("https".to_owned()); 3]);
    assert_eq!(request(balancer.address, "GET", "/x", &[], b"").status, 200);
    assert_eq!(schemes(&upstream.seen()[3..]), [Some("http".to_owned())]);
    let rep = exchange(&mut connect(&files, port), &LAST.replace("/x", "/rep")).unwrap();
    assert!(rep.contains(r#""N":1"#), "{rep}");
}

#[test]
fn large_bodies_cross_tls_both_ways() {
    let upstream = Upstream::start(|exchange| {
        exchange.read_body();
        let body = exchange.body();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        exchange.wire.send(&[head.as_bytes(), &body].concat()).unwrap();
        Then::GoOn
    });
    let files = Files::new();
    let (_balancer, port) = speaking_tls(&upstream, &files, &[]);
    let body = "0123456789abcdef".repeat(200_000);
    let head = format!(
        "POST /x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let raw = exchange(&mut connect(&files, port), &(head + &body)).unwrap();
    assert!(raw.ends_with(&body), "{} bytes", raw.len());
}

#[test]
fn an_answer_that_is_cut_short_has_no_goodbye() {
    let upstream = Upstream::playing();
    let cut = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this".to_vec();
    upstream.play("/x", vec![cut], Then::Close);
    let files = Files::new();
    let (_balancer, port) = speaking_tls(&upstream, &files, &[]);
    let error = exchange(&mut connect(&files, port), LAST).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "{error}");
}

#[test]
fn without_a_listener_of_its_own_tls_takes_the_plain_ones_place() {
    let (upstream, files) = (Upstream::playing(), Files::new());
    let flags = files.flags();
    let mut all: Vec<&str> = flags.iter().map(String::as_str).collect();
    let admin = ["--admin-listen", "127.0.0.1:0"];
    all.extend(admin);
    let balancer = over(&[&upstream], &all);
    let mut stream = connect(&files, balancer.address.port());
    assert!(exchange(&mut stream, LAST).unwrap().starts_with("HTTP/1.1 200"));
    let mut plain = TcpStream::connect(balancer.address).unwrap();
    plain.set_read_timeout(Some(PATIENCE)).unwrap();
    plain.write_all(LAST.as_bytes()).unwrap();
    let mut raw = Vec::new();
    // An alert, and the end or a reset.
    let _ended = plain.read_to_end(&mut raw);
    assert!(!raw.starts_with(b"HTTP"), "{:?}", String::from_utf8_lossy(&raw));
    assert_eq!(upstream.seen().len(), 1);
}

#[test]
fn files_that_are_no_good_are_refused_at_the_start() {
    let (files, other) = (Files::new(), Files::new());
    let missing = files.folder.path().join("none.pem");
    let empty = files.folder.path().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    let (good, key) = (files.certificate(), files.key());
    for (certificate, key, said) in [
        (&missing, &key, "none.pem"),
        (&good, &missing, "none.pem"),
        (&empty, &key, "empty.pem"),
        (&good, &empty, "empty.pem"),
        (&good, &other.key(), "cannot be used"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_balancer"))
            .args(["--listen", "127.0.0.1:0", "--replicas", "0", "--tls-certificate"])
            .args([certificate.as_os_str(), "--tls-key".as_ref(), key.as_os_str()])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}: {text}");
        assert!(text.contains(said), "{said}: {text}");
        assert!(!text.contains("balancer is serving"), "{said}: {text}");
    }
}

#[test]
fn a_new_certificate_is_taken_without_a_lost_request() {
    let (upstream, files) = (Upstream::playing(), Files::new());
    let (balancer, port) = speaking_tls(&upstream, &files, &[]);
    let mut standing = connect(&files, port);
    standing.write_all(b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut byte = [0];
    standing.read_exact(&mut byte).unwrap();

    // Clients that take any of the two certificates go on all the while.
    let (old, stop) = (files.client(b"http/1.1"), Arc::new(AtomicBool::new(false)));
    let stopped = Arc::clone(&stop);
    let loaded = || balancer.events("certificate is loaded").len();
    files.renew();
    let new = files.client(b"http/1.1");
    let requests = std::thread::spawn(move || {
        let mut count = 0;
        while !stopped.load(Ordering::SeqCst) {
            let tried = [&old, &new].map(|config| {
                let name = super::ServerName::try_from("localhost").unwrap();
                let session = super::ClientConnection::new(Arc::clone(config), name).unwrap();
                let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                exchange(&mut super::StreamOwned::new(session, stream), LAST).is_ok()
            });
            assert!(tried[0] || tried[1], "a request was lost");
            count += 1;
        }
        count
    });
    wait_for("the new certificate", || (loaded() >= 1).then_some(()));
    wait_for("its use", || exchange(&mut connect(&files, port), LAST).ok());
    stop.store(true, Ordering::SeqCst);
    assert!(requests.join().unwrap() > 0);
    let rest = exchange(&mut standing, LAST).unwrap();
    assert!(rest.ends_with("\r\n\r\nok"), "the standing connection goes on: {rest}");

    // One that is no good changes nothing, and is said; SIGHUP reads as well.
    replace(&files.key(), "nonsense");
    let kept = "certificate is kept: the new one is no good";
    wait_for("the refusal", || balancer.events(kept).pop());
    balancer.signal(Signal::HUP);
    wait_for("the second refusal", || (balancer.events(kept).len() >= 2).then_some(()));
    assert!(exchange(&mut connect(&files, port), LAST).is_ok());
}

/// Makes files that nothing but their content tells from others of this kind: a certificate is a
/// few bytes longer or shorter each time.
fn unremarkable(files: &Files) {
    for file in [files.certificate(), files.key()] {
        let mut text = std::fs::read_to_string(&file).unwrap();
        text += &"\n".repeat(2_000 - text.len());
        std::fs::write(&file, text).unwrap();
        let written = std::fs::File::options().write(true).open(&file).unwrap();
        written.set_modified(std::time::UNIX_EPOCH).unwrap();
    }
}

#[test]
fn a_hang_up_reads_files_that_do_not_look_new() {
    let (upstream, files) = (Upstream::playing(), Files::new());
    unremarkable(&files);
    let (balancer, port) = speaking_tls(&upstream, &files, &[]);
    let old = files.client(b"http/1.1");
    let next = Files::new();
    unremarkable(&next);
    std::fs::rename(next.certificate(), files.certificate()).unwrap();
    std::fs::rename(next.key(), files.key()).unwrap();
    let new = files.client(b"http/1.1");
    let accepts = |config: &Arc<rustls::ClientConfig>| {
        let name = super::ServerName::try_from("localhost").unwrap();
        let session = super::ClientConnection::new(Arc::clone(config), name).unwrap();
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        exchange(&mut super::StreamOwned::new(session, stream), LAST).is_ok()
    };
    assert!(accepts(&old) && !accepts(&new), "nothing says that they are new");
    balancer.signal(Signal::HUP);
    wait_for("the new certificate", || accepts(&new).then_some(()));
    assert!(!accepts(&old));
}

#[test]
fn a_client_that_never_says_hello_is_let_go() {
    let (upstream, files) = (Upstream::playing(), Files::new());
    let (_balancer, port) = speaking_tls(&upstream, &files, &["--timeout-head", "300ms"]);
    let silent = TcpStream::connect(("127.0.0.1", port)).unwrap();
    silent.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut noisy = TcpStream::connect(("127.0.0.1", port)).unwrap();
    noisy.set_read_timeout(Some(PATIENCE)).unwrap();
    noisy.write_all(&[0xff; 500]).unwrap();
    assert!(exchange(&mut connect(&files, port), LAST).is_ok(), "others are served");
    for mut stream in [silent, noisy] {
        let mut raw = Vec::new();
        // The end or a reset; not the time-out of this test.
        let ended = stream.read_to_end(&mut raw);
        let timed_out = |error: &std::io::Error| error.kind() == ErrorKind::WouldBlock;
        assert!(!ended.as_ref().is_err_and(timed_out), "{ended:?}");
    }
}
