//! What an intermediary takes away and adds (RFC 9110 7.6).

use super::client::Client;
use super::message::Head;
use super::over;
use super::table::Expect::{Forwarded, Last};
use super::table::{Case, Told, answered, case, run, run_answers};
use super::upstream::Upstream;

#[test]
fn fields_of_one_connection_do_not_reach_the_replica() {
    // RFC 9110 7.6.1; 10.1.4 for TE; 7.8 for Upgrade.
    let good: &[(&str, &str, &str)] = &[
        ("Connection: keep-alive", "Connection: keep-alive\r\nX: y", "X: y"),
        ("a named field", "Connection: X-Hop\r\nX-Hop: 1\r\nX: y", "X: y"),
        ("a named field, other case", "Connection: x-hop\r\nX-HOP: 1\r\nX: y", "X: y"),
        ("a field named after it came", "X-Hop: 1\r\nX: y\r\nConnection: x-hop", "X: y"),
        ("two named fields", "Connection: x-a, x-b\r\nX-A: 1\r\nX-B: 1\r\nX: y", "X: y"),
        ("two Connections", "Connection: x-a\r\nConnection: x-b\r\nX-A: 1\r\nX-B: 1", ""),
        ("a list with empty members", "Connection: , ,x-a,,\r\nX-A: 1\r\nX: y", "X: y"),
        ("a list without spaces", "Connection: keep-alive,x-a\r\nX-A: 1", ""),
        ("each of a field's lines", "Connection: x-a\r\nX-A: 1\r\nX: y\r\nX-A: 2", "X: y"),
        ("a prefix is another field", "Connection: x-a\r\nX-Ab: 1", "X-Ab: 1"),
        ("Keep-Alive", "Keep-Alive: timeout=5\r\nX: y", "X: y"),
        ("Proxy-Connection", "Proxy-Connection: keep-alive\r\nX: y", "X: y"),
        ("TE", "TE: gzip;q=0.5\r\nX: y", "X: y"),
        ("TE that Connection names", "Connection: TE\r\nTE: gzip\r\nX: y", "X: y"),
        ("TE with trailers", "Connection: TE\r\nTE: trailers\r\nX: y", "X: y"),
        ("Upgrade that Connection does not name", "Upgrade: websocket\r\nX: y", "X: y"),
        (
            "an upgrade to h2c",
            {
                "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAM\r\nX: y"
            },
            "X: y",
        ),
        // Naming these must neither take the Host nor the framing away.
        ("Connection: host", "Connection: host\r\nX: y", "X: y"),
        ("a comment is no option", "Connection: x-a(b)\r\nX-A: 1", "X-A: 1"),
    ];
    let mut cases: Vec<Case> = good
        .iter()
        .map(|(name, fields, seen)| {
            let send = format!("GET /~ HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
            let seen = if seen.is_empty() { String::new() } else { format!("{seen}\n") };
            let seen = format!("GET /~ HTTP/1.1\nHost: a\n{seen}\n");
            case(name, send, Forwarded(seen.into_bytes()))
        })
        .collect();
    cases.push(case(
        "Connection: content-length",
        b"POST /~ HTTP/1.1\r\nHost: a\r\nConnection: content-length\r\nContent-Length: 5\r\n\r\nhello",
        Forwarded(b"POST /~ HTTP/1.1\nHost: a\nContent-Length: 5\n\nhello".to_vec()),
    ));
    for (name, send) in [
        ("Connection: close", "GET /~ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
        ("Connection: Close in a list", {
            "GET /~ HTTP/1.1\r\nHost: a\r\nConnection: x-a, Close\r\nX-A: 1\r\n\r\n"
        }),
        ("Upgrade in HTTP/1.0", {
            "GET /~ HTTP/1.0\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        }),
        ("Expect in HTTP/1.0", "GET /~ HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\n\r\n"),
    ] {
        cases.push(case(name, send, Last(b"GET /~ HTTP/1.1\nHost: a\n\n".to_vec())));
    }
    for claim in [
        "X-Forwarded-For: 6.6.6.6",
        "X-Forwarded-For: 6.6.6.6\r\nx-forwarded-for: 7.7.7.7",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: evil\r\nX-Forwarded-Host: worse",
        "Connection: x-forwarded-for\r\nX-Forwarded-For: 6.6.6.6",
        "X-Forwarded-Port: 443",
        "X-Real-IP: 6.6.6.6",
        "Forwarded: for=6.6.6.6",
        "X_Forwarded_For: 6.6.6.6",
        "X-Forwarded_Proto: https\r\nX_Forwarded-Host: evil",
        "X_Real_IP: 6.6.6.6\r\nX_FORWARDED_SERVER: evil",
    ] {
        let send = format!("GET /~ HTTP/1.1\r\nHost: a\r\n{claim}\r\n\r\n");
        let seen = Forwarded(b"GET /~ HTTP/1.1\nHost: a\n\n".to_vec());
        cases.push(case(&format!("not believed: {claim}"), send, seen));
    }
    run(&cases, &[]);
}

#[test]
fn fields_of_one_connection_do_not_reach_the_client() {
    let shown = |fields: &str| Told::Shown(format!("200\nContent-Length: 2\n{fields}\nok").into());
    let good: &[(&str, &str, &str)] = &[
        ("Keep-Alive", "Keep-Alive: timeout=5\r\nX: y", "X: y\n"),
        ("Proxy-Connection", "Proxy-Connection: keep-alive\r\nX: y", "X: y\n"),
        ("a named field", "Connection: x-hop\r\nX-Hop: 1\r\nX: y", "X: y\n"),
        ("a field named after it came", "X-Hop: 1\r\nConnection: X-HOP\r\nX: y", "X: y\n"),
        ("Upgrade", "Upgrade: h2c\r\nX: y", "X: y\n"),
        ("Upgrade that is named", "Connection: upgrade\r\nUpgrade: websocket\r\nX: y", "X: y\n"),
        ("the framing, named", "Connection: content-length\r\nX: y", "X: y\n"),
        ("order and duplicates", "Set-Cookie: a\r\nX: 1\r\nset-cookie: b", {
            "Set-Cookie: a\nX: 1\nset-cookie: b\n"
        }),
        ("case of names", "x-LOWER: 1", "x-LOWER: 1\n"),
        ("any token is a name", "!#$%&'*+-.^_`|: 1", "!#$%&'*+-.^_`|: 1\n"),
        ("an empty value", "X:", "X: \n"),
        ("Server", "Server: own/1", "Server: own/1\n"),
    ];
    let mut cases = Vec::new();
    for (name, fields, seen) in good {
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{fields}\r\n\r\nok");
        cases.push(answered(name, answer, shown(seen)));
    }
    let high = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: caf\xe9 \x80\xff\r\n\r\nok";
    let seen = b"200\nContent-Length: 2\nX: caf\xe9 \x80\xff\n\nok".to_vec();
    cases.push(answered("obs-text", high, Told::Shown(seen)));
    // The replica's end is not the client's (RFC 9112 9.6).
    let close = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
    cases.push(answered("Connection: close", close, {
        Told::ShownOnce(b"200\nContent-Length: 2\n\nok".to_vec())
    }));
    run_answers(&cases, &[]);
}

/// The head at the replica and the answer's head, for a GET with these field lines.
fn heads(arguments: &[&str], fields: &str) -> (Head, Head) {
    let upstream = Upstream::playing();
    let balancer = over(&[&upstream], arguments);
    let request = format!("GET /x HTTP/1.1\r\nHost: site\r\n{fields}\r\n");
    let mut client = Client::sending(&balancer, request.as_bytes());
    let answer = client.must_answer(fields);
    assert_eq!(answer.status, 200, "{answer:?}");
    (upstream.seen()[0].head.clone(), answer.head)
}

#[test]
fn a_trusted_client_is_believed_and_joined() {
    let claims =
        "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: pub\r\n";
    let (head, _) = heads(&["--forwarded-trust", "127.0.0.0/8"], claims);
    let all = head.all("x-forwarded-for").join(", ");
    assert_eq!(all.split(',').map(str::trim).collect::<Vec<_>>(), ["6.6.6.6", "127.0.0.1"]);
    assert_eq!(head.only("x-forwarded-proto").as_deref(), Some("https"));
    assert_eq!(head.only("x-forwarded-host").as_deref(), Some("pub"));

    let (head, _) = heads(&["--forwarded-trust", "10.0.0.0/8"], claims);
    assert_eq!(head.only("x-forwarded-for").as_deref(), Some("127.0.0.1"));
    assert_eq!(head.only("x-forwarded-proto").as_deref(), Some("http"));
    assert_eq!(head.only("x-forwarded-host").as_deref(), Some("site"));
}

#[test]
fn a_trusted_client_may_tell_the_client_by_forwarded() {
    let claim = "Forwarded: for=\"6.6.6.6:40\";proto=https;host=pub\r\n";
    let (head, _) = heads(&["--forwarded-trust", "127.0.0.0/8"], claim);
    assert_eq!(head.only("x-forwarded-for").as_deref(), Some("6.6.6.6, 127.0.0.1"));
    assert_eq!(head.only("x-forwarded-proto").as_deref(), Some("https"));
    assert_eq!(head.only("x-forwarded-host").as_deref(), Some("pub"));
    let added = "for=\"6.6.6.6:40\";proto=https;host=pub, for=127.0.0.1;host=\"site\";proto=http";
    assert_eq!(head.only("forwarded").as_deref(), Some(added));

    let (head, _) = heads(&[], claim);
    assert!(head.all("forwarded").is_empty(), "{head:?}");
    let (head, _) = heads(&["--forwarded-rfc7239"], claim);
    assert_eq!(head.only("forwarded").as_deref(), Some("for=127.0.0.1;host=\"site\";proto=http"));
}

#[test]
fn the_client_of_a_trusted_proxy_is_the_key_however_its_address_is_written() {
    let upstreams = [1, 2, 3, 4].map(|_| Upstream::playing());
    let all: Vec<&Upstream> = upstreams.iter().collect();
    let balancer = over(&all, &["--key", "client-ip", "--forwarded-trust", "127.0.0.0/8"]);
    let mut client = Client::of(&balancer);
    // The replica that a request with these field lines gets to.
    let mut place = |fields: &str, marker: &str| {
        let request = format!("GET /{marker} HTTP/1.1\r\nHost: site\r\n{fields}\r\n\r\n");
        client.send(request.as_bytes());
        assert_eq!(client.must_answer(fields).status, 200);
        upstreams.iter().position(|upstream| !upstream.seen_with(marker).is_empty())
    };
    let mut places = std::collections::BTreeSet::new();
    for last in 0..16 {
        let (v4, v6) = (format!("203.0.113.{last}"), format!("2001:db8::{last}"));
        for (ip, spellings) in [
            (
                &v4,
                [
                    format!("X-Forwarded-For: {v4}:4000"),
                    format!("Forwarded: for={v4}"),
                    format!("Forwarded: for=6.6.6.6, For=\"{v4}:4000\";by=_hidden"),
                ],
            ),
            (
                &v6,
                [
                    format!("X-Forwarded-For: [{v6}]:4000"),
                    format!("X-Forwarded-For: 6.6.6.6, [{v6}]"),
                    format!("Forwarded: proto=https;for=\"[{v6}]:4000\""),
                ],
            ),
        ] {
            let expected = place(&format!("X-Forwarded-For: {ip}"), &format!("{ip}-plain."));
            places.insert(expected);
            for (number, fields) in spellings.iter().enumerate() {
                assert_eq!(place(fields, &format!("{ip}-{number}.")), expected, "{fields}");
            }
        }
    }
    assert!(places.len() > 1, "all keys have one owner: {places:?}");
}

#[test]
fn a_request_has_one_id_which_both_sides_see() {
    let (seen, answer) = heads(&[], "");
    let id = seen.only("x-request-id").unwrap();
    assert!(!id.is_empty());
    assert_eq!(answer.only("x-request-id"), Some(id));
    let (seen, answer) = heads(&[], "X-Request-Id: my own/1\r\n");
    assert_eq!(seen.only("x-request-id").as_deref(), Some("my own/1"));
    assert_eq!(answer.only("x-request-id").as_deref(), Some("my own/1"));
}

#[test]
fn via_is_added_both_ways_where_it_is_asked_for() {
    // RFC 9110 7.6.3: appended, the version received; earlier ones stay.
    let (seen, answer) = heads(&["--forwarded-via", "edge"], "Via: 1.0 first\r\n");
    assert_eq!(seen.all("via").join(", "), "1.0 first, 1.1 edge");
    assert_eq!(answer.all("via").join(", "), "1.1 edge");
    let (seen, answer) = heads(&[], "Via: 1.0 first\r\n");
    assert_eq!(seen.all("via"), ["1.0 first"]);
    assert!(answer.all("via").is_empty(), "{answer:?}");
}

#[test]
fn an_answer_has_one_date() {
    // RFC 9110 6.6.1: a recipient with a clock adds it where it is absent.
    let upstream = Upstream::playing();
    let balancer = over(&[&upstream], &[]);
    let dated =
        "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 0\r\n\r\n";
    upstream.play("/dated", vec![dated.into()], super::upstream::Then::GoOn);
    let get = |target: &str| {
        let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        Client::sending(&balancer, request.as_bytes()).must_answer(target).head
    };
    let added = get("/undated").only("date").unwrap();
    assert!(added.ends_with(" GMT") && added.len() == 29, "{added}");
    assert_eq!(get("/dated").only("date").as_deref(), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
}
