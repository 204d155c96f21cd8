//! A request's head that is taken is the same in pieces, the same to httparse, and means what a
//! simpler reader of its fields says.

#![no_main]

use balancer_fuzz::http1::Framing;
use balancer_fuzz::http1::request::{Request, RequestLine};
use balancer_fuzz::{FIELDS, LIMITS, assert_same_fields, cut, read_both_ways, values};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (piece, bytes) = cut(data);
    let Some((head, length)) = read_both_ways::<RequestLine>(bytes, piece) else { return };
    let line = head.start().expect("a whole head has a start line");

    let mut headers = [httparse::EMPTY_HEADER; FIELDS];
    let mut other = httparse::Request::new(&mut headers);
    assert_eq!(other.parse(bytes), Ok(httparse::Status::Complete(length)));
    assert_eq!(other.method.map(str::as_bytes), Some(line.method.of(bytes)));
    assert_eq!(other.path.map(str::as_bytes), Some(line.target.of(bytes)));
    assert_eq!(other.version, Some(line.minor));
    assert_same_fields(&head, bytes, other.headers);
    assert!(line.target.of(bytes).len() <= LIMITS.target);

    let mut request = Request::new();
    if request.read(&head, bytes).is_err() {
        return;
    }
    let hosts = values(&head, bytes, "host");
    assert!(hosts.len() == 1 || hosts.is_empty() && line.minor == 0);
    let lengths = values(&head, bytes, "content-length");
    let codings = values(&head, bytes, "transfer-encoding");
    match request.framing {
        Framing::None => assert!(lengths.is_empty() && codings.is_empty()),
        Framing::Length(length) => {
            assert!(!lengths.is_empty() && codings.is_empty());
            for value in lengths.iter().flat_map(|value| value.split(|byte| *byte == b',')) {
                let digits = str::from_utf8(value.trim_ascii()).expect("digits");
                assert_eq!(digits.parse(), Ok(length));
            }
        }
        Framing::Chunked => {
            assert!(lengths.is_empty() && codings.len() == 1 && line.minor == 1);
            assert!(codings[0].eq_ignore_ascii_case(b"chunked"));
        }
        Framing::UntilClose => panic!("a request does not end with its connection"),
    }
    let (first, rest) = request.target(bytes);
    let target = [first, rest].concat();
    assert!(target.starts_with(b"/") || target == b"*");
    assert!(line.target.of(bytes).ends_with(rest));
});
