//! An answer's head that is taken is the same in pieces, the same to httparse, and has one framing.

#![no_main]

use balancer_fuzz::http1::Framing;
use balancer_fuzz::http1::answer::{Answer, StatusLine};
use balancer_fuzz::{FIELDS, assert_same_fields, cut, read_both_ways, values};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (piece, bytes) = cut(data);
    let Some((head, length)) = read_both_ways::<StatusLine>(bytes, piece) else { return };
    let line = head.start().expect("a whole head has a start line");

    let mut headers = [httparse::EMPTY_HEADER; FIELDS];
    let mut other = httparse::Response::new(&mut headers);
    let mut config = httparse::ParserConfig::default();
    config.allow_spaces_after_header_name_in_responses(true);
    let parsed = config.parse_response(&mut other, bytes);
    assert_eq!(parsed, Ok(httparse::Status::Complete(length)));
    assert_eq!((other.version, other.code), (Some(line.minor), Some(line.status)));
    let reason = line.reason.of(bytes);
    // It gives no reason that is not ASCII.
    if reason.is_ascii() {
        assert_eq!(other.reason.map(str::as_bytes), Some(reason));
    }
    assert_same_fields(&head, bytes, other.headers);

    for to_head in [false, true] {
        let mut answer = Answer::new();
        if answer.read(&head, bytes, to_head).is_err() {
            continue;
        }
        let lengths = values(&head, bytes, "content-length");
        let codings = values(&head, bytes, "transfer-encoding");
        assert!(lengths.is_empty() || codings.is_empty());
        assert_eq!(answer.length.is_some(), !lengths.is_empty());
        let bodiless = to_head || matches!(answer.status, 100..200 | 204 | 304);
        let framing = match (bodiless, answer.length, codings.len()) {
            (true, _, _) => Framing::None,
            (false, Some(length), _) => Framing::Length(length),
            (false, None, 0) => Framing::UntilClose,
            (false, None, _) => Framing::Chunked,
        };
        assert_eq!(answer.framing, framing);
        assert!(codings.is_empty() || line.minor == 1);
    }
});
