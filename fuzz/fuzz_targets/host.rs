//! A host is taken in a field and in a target alike, is one to the crate `http`, too, and has no
//! byte that would end it.

#![no_main]

use balancer_fuzz::http1::field::is_host;
use balancer_fuzz::http1::request::{BadRequest, Request, RequestLine};
use balancer_fuzz::read;
use http::uri::Authority;
use libfuzzer_sys::fuzz_target;

/// The host of a request.
fn host_of(head: &[u8]) -> Option<Result<Vec<u8>, BadRequest>> {
    let (read, last) = read::<RequestLine>(head, usize::MAX);
    if last != Ok(Some(head.len())) {
        return None;
    }
    let mut request = Request::new();
    let done = request.read(&read, head);
    Some(done.map(|()| request.host.expect("a host was sent").of(head).to_vec()))
}

fuzz_target!(|host: &[u8]| {
    let good = is_host(host);
    if host.len() > 400 || host.contains(&b'\n') {
        assert!(!good || !host.contains(&b'\n'));
        return;
    }
    let in_field = [b"GET / HTTP/1.1\r\nHost:", host, b"\r\n\r\n"].concat();
    match host_of(&in_field) {
        Some(Ok(taken)) => assert!(is_host(&taken) && taken == host.trim_ascii()),
        Some(Err(error)) => assert!(!good, "{error}"),
        None => assert!(!good),
    }
    let in_target = [b"GET http://", host, b"/ HTTP/1.1\r\nHost: other\r\n\r\n"].concat();
    if good {
        let expected = match host {
            [] | [b':', ..] => Err(BadRequest::Target),
            _ => Ok(host.to_vec()),
        };
        assert_eq!(host_of(&in_target), Some(expected));

        let text = str::from_utf8(host).expect("a host is ASCII");
        assert!(
            text.bytes().all(|byte| byte.is_ascii_graphic() && !b"/?#@,\\\"<>".contains(&byte))
        );
        // It knows no percent-encoding in a host and takes no port that is empty.
        if !text.contains('%') && !text.starts_with(':') && !text.is_empty() {
            let authority: Authority = text.parse().expect(text);
            let (name, port) = match text.rfind(':').filter(|colon| !text[*colon..].contains(']')) {
                Some(colon) => (&text[..colon], &text[colon + 1..]),
                None => (text, ""),
            };
            assert_eq!(authority.host(), name);
            assert_eq!(authority.port_u16(), port.parse().ok());
        }
    }
});
