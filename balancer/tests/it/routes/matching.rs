//! Which route takes a request, and what of it is the route's own.

use std::time::Duration;

use super::{Routed, ask, ask_once, named, owner, routed, say, saying, text, three};
use crate::conformance::client::Client;
use crate::conformance::upstream::{Then, Upstream};
use crate::support::request;

/// Routes that tell themselves apart: each refuses bodies above its number.
const NUMBERED: &str = r#"
[[route]]
name = "host"
hosts = ["example.org"]
send = "all"
body = "1"

[[route]]
name = "below"
hosts = ["*.example.org"]
send = "first"
body = "2"

[[route]]
name = "method"
methods = ["PUT", "PATCH"]
send = "all"
body = "3"

[[route]]
name = "exact"
paths = ["/exact"]
send = "all"
body = "4"

[[route]]
name = "pattern"
paths = ["/users/*/avatar", "/files/*.png"]
send = "all"
body = "5"

[[route]]
name = "prefix"
paths = ["/static/**"]
send = "all"
body = "6"

[[route]]
name = "both"
methods = ["POST"]
paths = ["/both"]
send = "all"
body = "7"

[[route]]
name = "never"
paths = ["/exact", "/static/never"]
send = "all"
body = "8"
"#;

/// The number of the route that takes a request; none where it is the default one.
fn taken_by(routed: &Routed, method: &str, path: &str, host: &str) -> Option<u32> {
    let to = routed.balancer.address;
    let answer = request(to, method, path, &[("Host", host)], b"ten bytes.");
    if answer.status == 200 {
        return None;
    }
    assert_eq!(answer.status, 413, "{answer:?}");
    let message = answer.message();
    let limit = message.strip_prefix("<Error> the request's body is larger than ");
    let limit = limit.and_then(|limit| limit.strip_suffix(" bytes"));
    Some(limit.unwrap_or_else(|| panic!("{message}")).parse().unwrap())
}

#[test]
fn the_first_route_that_takes_a_request_by_host_method_and_path_decides() {
    let upstream = named("a");
    let routed = routed(&[&upstream], NUMBERED);
    for (method, path, host, route) in [
        ("POST", "/", "example.org", Some(1)),
        ("POST", "/exact", "Example.ORG:8080", Some(1)),
        ("POST", "/", "example.org.", Some(1)),
        ("POST", "/", "www.example.org", Some(2)),
        ("PUT", "/exact", "a.b.example.org:1", Some(2)),
        ("POST", "/", "badexample.org", None),
        ("PUT", "/exact", "a", Some(3)),
        ("PATCH", "/", "a", Some(3)),
        ("put", "/", "a", None),
        ("GET", "/exact", "a", Some(4)),
        ("POST", "/exact?a=/static/", "a", Some(4)),
        ("POST", "/exact/", "a", None),
        ("POST", "/Exact", "a", None),
        ("POST", "/users/7/avatar", "a", Some(5)),
        ("POST", "/users/7/8/avatar", "a", None),
        ("POST", "/files/a.png", "a", Some(5)),
        ("POST", "/files/a.png.exe", "a", None),
        ("POST", "/static", "a", Some(6)),
        ("POST", "/static/", "a", Some(6)),
        ("POST", "/static/a/b", "a", Some(6)),
        ("POST", "/static/never", "a", Some(6)),
        ("POST", "/statics", "a", None),
        ("POST", "/both", "a", Some(7)),
        ("GET", "/both", "a", None),
        // RFC 9112 3.2.2: an absolute target wins over the field.
        ("POST", "http://example.org/x", "a", Some(1)),
        ("POST", "http://a/static/x?y", "example.org", Some(6)),
    ] {
        assert_eq!(taken_by(&routed, method, path, host), route, "{method} {path} at {host}");
    }
    assert!(upstream.faults().is_empty(), "{:?}", upstream.faults());
}

#[test]
fn a_route_has_its_own_key_and_policy() {
    let [a, b, c] = three();
    let routed = routed(
        &[&a, &b, &c],
        r#"
        policy = "round-robin"
        [[route]]
        paths = ["/by-user"]
        policy = "hash"
        key = "header:X-User"
        [[route]]
        paths = ["/by-path/**"]
        policy = "hash"
        key = "path"
        "#,
    );
    let mut client = Client::of(&routed.balancer);
    let mut whose = |path: &str, fields: &str| text(&ask(&mut client, path, fields));
    let mut kinds = [0; 2];
    for user in 0..20 {
        let first = whose("GET /by-user", &format!("X-User: {user}\r\nX-Request-Id: 1\r\n"));
        let again = whose("GET /by-user", &format!("X-User: {user}\r\nX-Request-Id: 2\r\n"));
        assert_eq!(first, again, "{user}");
        kinds[0] += usize::from(first == "a");
        let path = format!("GET /by-path/{user}");
        let first = whose(&path, "X-Request-Id: 1\r\n");
        assert_eq!(first, whose(&format!("{path}?x"), "X-Request-Id: 2\r\n"), "{user}");
        kinds[1] += usize::from(first == "a");
    }
    assert!(kinds.iter().all(|a| (1..20).contains(a)), "{kinds:?}");
    // The default route still takes turns.
    let turns: Vec<String> = (0..4).map(|_| whose("GET /x", "X-Request-Id: 1\r\n")).collect();
    assert!(turns[0] != turns[1] && turns[1] != turns[2] && turns[3] == turns[0], "{turns:?}");
}

#[test]
fn a_route_has_its_own_patience() {
    let upstream = Upstream::start(|exchange| match exchange.head.target() {
        "/x" => say(exchange, &saying(200, "")),
        _ => exchange.hang(),
    });
    let text = "[[route]]\npaths = [\"/quick\"]\ntimeouts = { first_byte = \"100ms\" }";
    let routed = routed(&[&upstream], text);
    let began = std::time::Instant::now();
    assert_eq!(ask_once(&routed.balancer, "GET /quick", "").status, 504);
    assert!(began.elapsed() >= Duration::from_millis(100));
    let mut waits = Client::sending(&routed.balancer, b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    let short = Duration::from_millis(500);
    waits.wire.stream().set_read_timeout(Some(short)).unwrap();
    // Nothing has come.
    assert!(waits.answer("GET").is_err());
    assert_eq!(ask_once(&routed.balancer, "GET /x", "").status, 200);
}

#[test]
fn a_route_that_holds_a_body_waits_for_it_as_long_as_it_says() {
    let upstream = named("a");
    let text = "[[route]]\npaths = [\"/all\"]\nsend = \"all\"\n\
                timeouts = { client_body = \"100ms\" }";
    let routed = routed(&[&upstream], text);
    let half = b"POST /all HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf";
    let mut client = Client::sending(&routed.balancer, half);
    assert_eq!(client.must_answer("half a body").status, 408);
    assert!(client.is_over());
    assert!(upstream.seen().is_empty());
}

#[test]
fn a_route_has_its_own_number_of_attempts() {
    let upstreams = ["a", "b", "c"].map(|name| {
        let answer = saying(200, name);
        Upstream::start(move |exchange| match exchange.head.target() {
            "/once" | "/twice" | "/default" => Then::Close,
            _ => say(exchange, &answer),
        })
    });
    let [a, b, c] = &upstreams;
    let text = "[[route]]\npaths = [\"/once\"]\nretry = { attempts = 1 }\n\
                [[route]]\npaths = [\"/twice\"]\nretry = { attempts = 2 }\n\
                [outliers]\nconsecutive = 0";
    let routed = routed(&[a, b, c], text);
    // After a lost connection there is one attempt more at most, whatever the route says.
    for (path, attempts) in [("/once", 1), ("/twice", 2), ("/default", 2)] {
        assert_eq!(ask_once(&routed.balancer, &format!("GET {path}"), "").status, 502);
        let seen: usize = upstreams.iter().map(|upstream| upstream.seen_with(path).len()).sum();
        assert_eq!(seen, attempts, "{path}");
    }
    owner(&routed.balancer, &[a, b, c], "1");
}
