use proptest::collection::vec;
use proptest::prelude::*;

use super::super::generated::{LIMITS, blanks, edited, edits, field, fields, read, written};
use super::*;

/// A request and the bytes of its head.
struct Asked {
    bytes: Vec<u8>,
    request: Request,
}

impl Asked {
    fn text(&self, span: Option<Span>) -> Option<&str> {
        span.map(|span| std::str::from_utf8(span.of(&self.bytes)).unwrap())
    }

    /// The target as it is forwarded.
    fn target(&self) -> String {
        let (first, rest) = self.request.target(&self.bytes);
        String::from_utf8([first, rest].concat()).unwrap()
    }
}

/// What a request means: its start line without CR LF, its fields with it.
fn asked(start: &str, lines: &str) -> Result<Asked, BadRequest> {
    let bytes = format!("{start}\r\n{lines}\r\n").into_bytes();
    let (head, last) = read::<RequestLine>(&bytes, &[bytes.len()], &LIMITS);
    assert_eq!(last, Ok(Some(bytes.len())), "{start} {lines:?}");
    let mut request = Request::new();
    request.read(&head, &bytes)?;
    Ok(Asked { bytes, request })
}

fn refusal(start: &str, lines: &str) -> BadRequest {
    match asked(start, lines) {
        Ok(_) => panic!("{start} {lines:?} is taken"),
        Err(error) => error,
    }
}

/// A GET of HTTP/1.1 with a host and these lines.
fn get(lines: &str) -> Asked {
    asked("GET / HTTP/1.1", &format!("Host: a\r\n{lines}")).expect(lines)
}

#[test]
fn request_lines_are_three_parts_with_a_space_between() {
    for line in ["GET / HTTP/1.1", "m-search * HTTP/1.0", "G'T|~ /?a=\"<>\\^`{|}\" HTTP/1.1"] {
        let read = RequestLine::parse(line.as_bytes(), &LIMITS).expect(line);
        let (method, target) = (read.method.of(line.as_bytes()), read.target.of(line.as_bytes()));
        assert_eq!([method, target].join(&b' '), &line.as_bytes()[..line.len() - 9]);
    }
    for (line, error) in [
        ("", BadHead::StartLine),
        ("GET", BadHead::StartLine),
        ("GET /", BadHead::StartLine),
        ("GET / ", BadHead::StartLine),
        (" GET / HTTP/1.1", BadHead::StartLine),
        ("GET\t/ HTTP/1.1", BadHead::StartLine),
        ("GET / HTTP/1.1 ", BadHead::StartLine),
        ("GET /  HTTP/1.1", BadHead::StartLine),
        ("GET  / HTTP/1.1", BadHead::StartLine),
        ("GET / x HTTP/1.1", BadHead::StartLine),
        ("GET / http/1.1", BadHead::StartLine),
        ("GET / HTTP/1.1\r", BadHead::StartLine),
        ("G(T / HTTP/1.1", BadHead::StartLine),
        ("G\u{e4}T / HTTP/1.1", BadHead::StartLine),
        ("GET / HTTP/01.1", BadHead::StartLine),
        ("GET / HTTP/1.2", BadHead::Version),
        ("PRI * HTTP/2.0", BadHead::Version),
        ("GET  HTTP/1.1", BadHead::Target),
        ("GET /\t HTTP/1.1", BadHead::Target),
        ("GET /#a HTTP/1.1", BadHead::Target),
        ("GET /\u{e4} HTTP/1.1", BadHead::Target),
        ("GET /\0 HTTP/1.1", BadHead::Target),
        ("GET /\x7f HTTP/1.1", BadHead::Target),
    ] {
        assert_eq!(RequestLine::parse(line.as_bytes(), &LIMITS), Err(error), "{line:?}");
    }
}

#[test]
fn the_framing_is_one_of_three() {
    for (lines, framing) in [
        ("", Framing::None),
        ("Content-Length: 0\r\n", Framing::Length(0)),
        ("Content-Length: 5\r\ncontent-LENGTH: 5\r\n", Framing::Length(5)),
        ("Content-Length: 5, 5\r\n", Framing::Length(5)),
        ("Transfer-Encoding: ChunkeD\r\n", Framing::Chunked),
        ("Content-Length-: 5\r\n", Framing::None),
    ] {
        assert_eq!(get(lines).request.framing, framing, "{lines:?}");
    }
    for (lines, error) in [
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", BadRequest::LengthAndChunks),
        ("Transfer-Encoding: x\r\nContent-Length: 5\r\n", BadRequest::LengthAndChunks),
        ("Content-Length: 5\r\nContent-Length: 6\r\n", BadRequest::Length),
        ("Content-Length:\r\n", BadRequest::Length),
        ("Content-Length: 5,\r\n", BadRequest::Length),
        ("Content-Length: +5\r\n", BadRequest::Length),
        ("Content-Length: 0x5\r\n", BadRequest::Length),
        ("Content-Length: 18446744073709551616\r\n", BadRequest::Length),
        ("Transfer-Encoding:\r\n", BadRequest::TransferEncoding),
        ("Transfer-Encoding: identity\r\n", BadRequest::TransferEncoding),
        ("Transfer-Encoding: gzip, chunked\r\n", BadRequest::TransferEncoding),
        ("Transfer-Encoding: chunked, identity\r\n", BadRequest::TransferEncoding),
        ("Transfer-Encoding: \"chunked\"\r\n", BadRequest::TransferEncoding),
        ("Transfer-Encoding: xchunked\r\n", BadRequest::TransferEncoding),
        ("Transfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n", BadRequest::TransferEncoding),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", {
            BadRequest::TransferEncoding
        }),
    ] {
        let lines = format!("Host: a\r\n{lines}");
        assert_eq!(refusal("POST / HTTP/1.1", &lines), error, "{lines:?}");
    }
    let lines = "Transfer-Encoding: chunked\r\n";
    assert_eq!(refusal("POST / HTTP/1.0", lines), BadRequest::TransferEncoding);
}

#[test]
fn there_is_one_host() {
    for (start, lines, host) in [
        ("GET / HTTP/1.1", "Host: a.b:80\r\n", Some("a.b:80")),
        ("GET / HTTP/1.1", "HOST:\t[::1]:80 \r\n", Some("[::1]:80")),
        ("GET / HTTP/1.1", "Host:\r\n", Some("")),
        ("GET / HTTP/1.0", "", None),
        ("GET / HTTP/1.0", "Host: a\r\n", Some("a")),
        ("GET http://b/ HTTP/1.1", "Host: a\r\n", Some("b")),
        ("GET http://b/ HTTP/1.0", "", Some("b")),
    ] {
        let asked = asked(start, lines).expect(start);
        assert_eq!(asked.text(asked.request.host), host, "{start} {lines:?}");
    }
    for (start, lines, error) in [
        ("GET / HTTP/1.1", "", BadRequest::Hosts),
        ("GET http://a/ HTTP/1.1", "", BadRequest::Hosts),
        ("GET / HTTP/1.1", "Host: a\r\nHost: a\r\n", BadRequest::Hosts),
        ("GET / HTTP/1.0", "Host: a\r\nhost: b\r\n", BadRequest::Hosts),
        ("GET / HTTP/1.1", "Host: a, b\r\n", BadRequest::Host),
        ("GET / HTTP/1.1", "Host: a/b\r\n", BadRequest::Host),
        ("GET http://a/ HTTP/1.1", "Host: a b\r\n", BadRequest::Host),
        ("GET / HTTP/1.0", "Host: a@b\r\n", BadRequest::Host),
    ] {
        assert_eq!(refusal(start, lines), error, "{start} {lines:?}");
    }
}

#[test]
fn targets_have_four_forms_of_which_one_is_no_request_here() {
    for (start, host, target, path, query) in [
        ("GET / HTTP/1.1", "a", "/", "/", None),
        ("GET //x/?y?z HTTP/1.1", "a", "//x/?y?z", "//x/", Some("y?z")),
        ("GET /? HTTP/1.1", "a", "/?", "/", Some("")),
        ("OPTIONS * HTTP/1.1", "a", "*", "*", None),
        ("GET http://b/c?d HTTP/1.1", "b", "/c?d", "/c", Some("d")),
        ("GET HTTPS://B:8?d HTTP/1.1", "B:8", "/?d", "/", Some("d")),
        ("GET http://b HTTP/1.1", "b", "/", "/", None),
        ("OPTIONS http://b HTTP/1.1", "b", "*", "/", None),
        ("OPTIONS http://b/ HTTP/1.1", "b", "/", "/", None),
        ("OPTIONS http://b?c HTTP/1.1", "b", "/?c", "/", Some("c")),
        ("GET http://b//http://c/ HTTP/1.1", "b", "//http://c/", "//http://c/", None),
    ] {
        let asked = asked(start, "Host: a\r\n").expect(start);
        assert_eq!(asked.text(asked.request.host), Some(host), "{start}");
        assert_eq!(asked.target(), target, "{start}");
        assert_eq!(asked.request.path(&asked.bytes), path.as_bytes(), "{start}");
        assert_eq!(asked.request.query(&asked.bytes), query.map(str::as_bytes), "{start}");
    }
    for start in [
        "GET * HTTP/1.1",
        "options * HTTP/1.1",
        "OPTIONS ** HTTP/1.1",
        "GET a HTTP/1.1",
        "GET ?a HTTP/1.1",
        "GET a:80 HTTP/1.1",
        "GET ftp://a/ HTTP/1.1",
        "GET http:/a HTTP/1.1",
        "GET http:// HTTP/1.1",
        "GET http:///a HTTP/1.1",
        "GET http://:80/ HTTP/1.1",
        "GET http://?a HTTP/1.1",
        "GET http://u@a/ HTTP/1.1",
        "GET http://a\\b/ HTTP/1.1",
        "GET http://a:b/ HTTP/1.1",
    ] {
        assert_eq!(refusal(start, "Host: a\r\n"), BadRequest::Target, "{start}");
    }
    for start in ["CONNECT a:80 HTTP/1.1", "CONNECT / HTTP/1.1"] {
        assert_eq!(refusal(start, "Host: a\r\n"), BadRequest::Connect, "{start}");
    }
}

#[test]
fn an_upgrade_is_named_without_a_body_and_to_no_other_http() {
    for (lines, upgrade) in [
        ("Connection: upgrade\r\nUpgrade: websocket\r\n", Some("websocket")),
        ("Upgrade: foo/2\r\nConnection: x, UPGRADE\r\n", Some("foo/2")),
        ("Connection: upgrade\r\nUpgrade: h2c, websocket\r\n", Some("h2c, websocket")),
        ("Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n", Some("websocket")),
        ("Connection: upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n", None),
        ("Upgrade: websocket\r\n", None),
        ("Connection: upgrade\r\n", None),
        ("Connection: upgrade\r\nUpgrade:\r\n", None),
        ("Connection: upgrade\r\nUpgrade: H2C\r\n", None),
        ("Connection: upgrade\r\nUpgrade: HTTP/2.0, TLS/1.3, h2\r\n", None),
        ("Connection: upgrade\r\nUpgrade: h2c x\r\n", None),
        ("Connection: upgrade\r\nUpgrade: \"h2c\"\r\n", None),
        ("Connection: upgrade\r\nUpgrade: h2c;x\r\n", None),
        ("Connection: upgrade\r\nUpgrade: h2c /1\r\n", None),
        ("Connection: upgrade\r\nUpgrade: websocket/1 h2c\r\n", None),
        ("Connection: upgrade\r\nUpgrade: websocket/\r\n", None),
    ] {
        let asked = get(lines);
        assert_eq!(asked.text(asked.request.upgrade), upgrade, "{lines:?}");
    }
    let old = asked("GET / HTTP/1.0", "Connection: upgrade\r\nUpgrade: websocket\r\n").unwrap();
    assert_eq!(old.request.upgrade, None);
}

#[test]
fn what_a_client_expects_takes_and_wants_is_known() {
    assert!(get("Expect: 100-Continue\r\n").request.expects);
    assert!(!get("Expect: 200-ok\r\n").request.expects);
    assert!(!asked("GET / HTTP/1.0", "Expect: 100-continue\r\n").unwrap().request.expects);

    assert!(get("TE: gzip;q=0.5, Trailers\r\n").request.takes_trailers);
    assert!(get("TE: gzip\r\nTE: trailers\r\n").request.takes_trailers);
    assert!(!get("TE: trailers;q=0.5\r\n").request.takes_trailers);

    for (start, lines, wants_more) in [
        ("GET / HTTP/1.1", "Host: a\r\n", true),
        ("GET / HTTP/1.1", "Host: a\r\nConnection: x\r\nConnection: close\r\n", false),
        ("GET / HTTP/1.0", "", false),
        ("GET / HTTP/1.0", "Connection: Keep-Alive\r\n", true),
        ("GET / HTTP/1.0", "Connection: keep-alive, close\r\n", false),
    ] {
        let asked = asked(start, lines).expect(start);
        assert_eq!(asked.request.wants_more(), wants_more, "{start} {lines:?}");
    }
    for (method, idempotent) in [("GET", true), ("PUT", true), ("POST", false), ("get", false)] {
        let asked = asked(&format!("{method} / HTTP/1.1"), "Host: a\r\n").unwrap();
        assert_eq!(asked.request.is_idempotent(&asked.bytes), idempotent, "{method}");
    }
}

#[test]
fn the_id_is_the_first_that_is_not_empty() {
    for (lines, id) in [
        ("", None),
        ("X-Request-Id:\r\n", None),
        ("X-Request-Id: a\r\nx-request-id: b\r\n", Some("a")),
        ("X-Request-Id:\r\nx-request-id: b\r\n", Some("b")),
    ] {
        let asked = get(lines);
        assert_eq!(asked.text(asked.request.id), id, "{lines:?}");
    }
}

#[test]
fn hops_are_counted_for_two_methods() {
    for (method, lines, hops) in [
        ("TRACE", "Max-Forwards: 0\r\n", Some(0)),
        ("OPTIONS", "Max-Forwards: 7\r\n", Some(7)),
        ("OPTIONS", "", None),
        ("GET", "Max-Forwards: 7\r\n", None),
    ] {
        let asked = asked(&format!("{method} / HTTP/1.1"), &format!("Host: a\r\n{lines}"));
        assert_eq!(asked.expect(method).request.max_forwards, hops, "{method} {lines:?}");
    }
    let lines = "Host: a\r\nMax-Forwards: -1\r\n";
    assert_eq!(refusal("TRACE / HTTP/1.1", lines), BadRequest::MaxForwards);
}

#[test]
fn nothing_of_the_last_request_is_left() {
    let first = b"OPTIONS / HTTP/1.0\r\nHost: a\r\nConnection: close, x-a\r\nExpect: 100-continue\r\n\
                  TE: trailers\r\nX-Request-Id: 7\r\nX-Forwarded-For: 1.1.1.1\r\nMax-Forwards: 3\r\n\
                  Content-Length: 5\r\n\r\n";
    let second = b"GET /b HTTP/1.1\r\nHost: b\r\n\r\n";
    let mut request = Request::new();
    let (head, _) = read::<RequestLine>(first, &[first.len()], &LIMITS);
    request.read(&head, first).unwrap();
    assert!(request.takes_trailers && request.options.names(first, b"X-A"));
    let (head, _) = read::<RequestLine>(second, &[second.len()], &LIMITS);
    request.read(&head, second).unwrap();
    let mut fresh = Request::new();
    fresh.read(&head, second).unwrap();
    assert_eq!(format!("{request:?}"), format!("{fresh:?}"));
}

/// Whether httparse reads the same out of a head that is taken here; whether it is taken.
fn httparse_agrees(bytes: &[u8]) -> Result<bool, TestCaseError> {
    let (head, last) = read::<RequestLine>(bytes, &[bytes.len()], &LIMITS);
    let Ok(Some(length)) = last else { return Ok(false) };
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut other = httparse::Request::new(&mut headers);
    prop_assert_eq!(other.parse(bytes), Ok(httparse::Status::Complete(length)));
    let line = head.start().unwrap();
    prop_assert_eq!(other.method.map(str::as_bytes), Some(line.method.of(bytes)));
    prop_assert_eq!(other.path.map(str::as_bytes), Some(line.target.of(bytes)));
    prop_assert_eq!(other.version, Some(line.minor));
    let theirs: Vec<_> = other
        .headers
        .iter()
        .map(|header| (header.name.as_bytes().to_vec(), header.value.to_vec()))
        .collect();
    prop_assert_eq!(fields(&head, bytes), theirs);
    Ok(true)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn httparse_reads_the_same_out_of_what_is_taken(
        method in "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,8}",
        target in "[!-\"$-~]{1,20}",
        minor in 0..2_u8,
        fields in vec(field(), 0..6),
        blanks in blanks(),
        edits in edits(),
    ) {
        let start = format!("{method} {target} HTTP/1.{minor}");
        let good = written(start.as_bytes(), &fields, &blanks);
        prop_assert!(httparse_agrees(&good)?, "a good head is refused");
        httparse_agrees(&edited(good, &edits))?;
    }
}

#[test]
fn a_change_of_protocol_is_to_what_was_offered() {
    for (offered, taken, good) in [
        ("websocket", "websocket", true),
        ("websocket", "WebSocket", true),
        ("h2c, websocket , x/1", "x/1", true),
        ("a, b", "b,a", true),
        ("websocket", "h2c", false),
        ("h2c, websocket", "h2c", false),
        ("websocket", "x", false),
        ("websocket", "websocket, x", false),
        ("websocket", "", false),
    ] {
        assert_eq!(are_offered(offered.as_bytes(), taken.as_bytes()), good, "{offered} {taken}");
    }
}
