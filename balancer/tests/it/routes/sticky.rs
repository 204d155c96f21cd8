//! Cookies that keep a client at its replica.

use std::collections::BTreeMap;
use std::io::Write as _;

use super::{QUICK, ask, ask_once, routed, routed_with, text, three, written};
use crate::conformance::client::{Answer, Client};
use crate::support::Balancer;
use crate::tls::{Files, connect, exchange, tls_port};

const STICKY: &str =
    "[[route]]\npaths = [\"/s/**\", \"/home\"]\nkey = \"cookie:SID\"\nissue = true";

/// The cookie that an answer gives, checked.
fn issued(answer: &Answer) -> Option<String> {
    let cookie = answer.head.only("Set-Cookie")?;
    let (pair, rest) = cookie.split_once("; ").unwrap();
    assert_eq!(rest, "Path=/; HttpOnly; SameSite=Lax");
    let value = pair.strip_prefix("SID=").unwrap();
    assert!(value.len() == 32 && value.bytes().all(|byte| byte.is_ascii_hexdigit()), "{cookie}");
    Some(pair.to_owned())
}

#[test]
fn a_cookie_is_given_once_and_keeps_its_client_at_its_replica() {
    let [a, b, c] = three();
    let routed = routed(&[&a, &b, &c], STICKY);
    let mut names = BTreeMap::new();
    for _ in 0..20 {
        let first = ask_once(&routed.balancer, "GET /s/1", "");
        let cookie = issued(&first).unwrap();
        let mut client = Client::of(&routed.balancer);
        for request in 0..10 {
            let fields = format!("Cookie: a=b; {cookie}\r\nX-Request-Id: {request}\r\n");
            let answer = ask(&mut client, "GET /s/2", &fields);
            assert_eq!(text(&answer), text(&first));
            assert!(answer.head.all("Set-Cookie").is_empty());
        }
        *names.entry(text(&first)).or_insert(0) += 1;
    }
    assert!(names.len() > 1, "{names:?}");
    // One that is empty places nobody; other routes give none.
    for fields in ["Cookie: SID=\r\n", "Cookie: sid=1\r\n", "Cookie: XSID=1\r\n"] {
        assert!(issued(&ask_once(&routed.balancer, "GET /s/1", fields)).is_some(), "{fields}");
    }
    assert!(ask_once(&routed.balancer, "GET /x", "").head.all("Set-Cookie").is_empty());
}

#[test]
fn over_tls_the_cookie_is_for_tls_only() {
    let ([a, ..], files) = (three(), Files::new());
    let flags = files.flags();
    let flags = [&flags.each_ref().map(String::as_str)[..], &["--tls-listen", "127.0.0.1:0"]];
    let routed = routed_with(&[&a], STICKY, &flags.concat());
    let mut stream = connect(&files, tls_port(&routed.balancer));
    stream.flush().unwrap();
    let get = "GET /s/1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let answer = exchange(&mut stream, get).unwrap();
    assert!(answer.contains("; Path=/; HttpOnly; SameSite=Lax; Secure\r\n"), "{answer}");
}

#[test]
fn when_the_fleet_grows_clients_stay_or_go_to_the_newcomer() {
    let file = written(STICKY);
    let config = ["--config", file.path().to_str().unwrap()];
    let balancer = Balancer::with_replicas(3, &[&QUICK[..], &config].concat());
    let sessions: Vec<(String, String)> = (0..60)
        .map(|_| {
            let answer = ask_once(&balancer, "GET /home", "");
            (issued(&answer).unwrap(), text(&answer))
        })
        .collect();
    assert_eq!(balancer.json("POST", "/add", r#"{"n": 1}"#).status, 200);
    let mut moved = 0;
    let mut client = Client::of(&balancer);
    for (cookie, before) in &sessions {
        let answer = ask(&mut client, "GET /home", &format!("Cookie: {cookie}\r\n"));
        assert!(answer.head.all("Set-Cookie").is_empty());
        let now = text(&answer);
        if now != *before {
            assert!(now.contains("Server: 4"), "{before} to {now}");
            moved += 1;
        }
    }
    // A quarter is due.
    assert!(moved < 40, "{moved} of 60 have moved");
}
