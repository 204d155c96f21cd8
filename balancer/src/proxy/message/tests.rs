use super::*;
use crate::http1::head::HeadLimits;
use crate::http1::request::RequestLine;

const LIMITS: HeadLimits = HeadLimits { bytes: 16_384, fields: 64, target: 8_192 };

/// A request and the answer to it as they are sent on, without the start lines.
fn sent_on(request: &str, answer: &str) -> (String, String) {
    let mut head = Head::<RequestLine>::new();
    assert_eq!(head.parse(request.as_bytes(), &LIMITS), Ok(Some(request.len())));
    let mut read = Request::new();
    read.read(&head, request.as_bytes()).unwrap();
    let given = read.id.map(|id| id.of(request.as_bytes()));
    let source = crate::routing::key::KeySource::RequestId;
    let asked = Asked {
        request: &read,
        head: request.as_bytes(),
        lines: head.lines(),
        peer: &Peer::new("192.0.2.1".parse().unwrap(), "http", &[]),
        id: &RequestId::of(given, &source, &mut rand::rng()),
    };
    let mut out = Vec::new();
    asked.put_request(&mut out, None, "127.0.0.1:9".parse().unwrap());
    let mut back = Vec::new();
    let mut head = Head::<StatusLine>::new();
    assert_eq!(head.parse(answer.as_bytes(), &LIMITS), Ok(Some(answer.len())));
    let mut read = Answer::new();
    read.read(&head, answer.as_bytes(), false).unwrap();
    let (framing, date) = (read.framing, &b"now"[..]);
    let reply = Reply { framing, close: false, keep_alive: false, date, via: None, cookie: None };
    asked.put_answer(&mut back, &read, &head, answer.as_bytes(), &reply);
    let fields = |out: Vec<u8>| {
        let text = String::from_utf8(out).unwrap();
        text.split_once("\r\n").unwrap().1.replace("\r\n", "\n")
    };
    (fields(out), fields(back))
}

fn request_on(request: &str) -> String {
    sent_on(request, "HTTP/1.1 204 No\r\n\r\n").0
}

const FORWARDED: &str = "X-Forwarded-For: 192.0.2.1\nX-Forwarded-Proto: http\n";

#[test]
fn a_request_has_one_host_also_where_it_had_no_field_of_that_name() {
    for (request, host, forwarded) in [
        ("GET / HTTP/1.0\r\n", "127.0.0.1:9", ""),
        ("GET http://a:8/ HTTP/1.0\r\n", "a:8", "X-Forwarded-Host: a:8\n"),
        ("GET http://a:8/ HTTP/1.0\r\nHost: b\r\n", "a:8", "X-Forwarded-Host: a:8\n"),
        ("GET http://a:8/ HTTP/1.1\r\nHost: b\r\n", "a:8", "X-Forwarded-Host: a:8\n"),
    ] {
        let seen = request_on(&format!("{request}X-Request-Id: 7\r\n\r\n"));
        let mut parts = [format!("Host: {host}\n"), "X-Request-Id: 7\n".to_owned()].concat();
        parts += FORWARDED;
        assert_eq!(seen, format!("{parts}{forwarded}\n"), "{request}");
    }
}

#[test]
fn a_request_has_one_id_also_where_the_first_is_empty() {
    let seen = request_on("GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id:\r\nX-Request-Id: 7\r\n\r\n");
    let parts = ["Host: a\nX-Request-Id: 7\n", FORWARDED, "X-Forwarded-Host: a\n\n"].concat();
    assert_eq!(seen, parts);
}

#[test]
fn fields_that_mean_something_here_cannot_be_named_away() {
    let (request, answer) = sent_on(
        "POST / HTTP/1.1\r\nHost: a\r\nX-Request-Id: 7\r\nExpect: 100-continue\r\nX-A: 1\r\n\
         Connection: host, x-request-id, expect, x-a\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nDate: d\r\nX-Request-Id: 8\r\nX-A: 1\r\n\
         Connection: date, x-request-id, x-a\r\nContent-Length: 5\r\n\r\n",
    );
    let kept = "Host: a\nX-Request-Id: 7\nExpect: 100-continue\n";
    let parts = [kept, FORWARDED, "X-Forwarded-Host: a\nContent-Length: 5\n\n"].concat();
    assert_eq!(request, parts);
    assert_eq!(answer, "Date: d\nX-Request-Id: 8\nContent-Length: 5\n\n");
}
