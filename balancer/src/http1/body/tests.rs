use proptest::collection::vec;
use proptest::prelude::*;

use super::super::generated::{cuts, ends};
use super::*;

/// Reads a body as it comes in pieces: its content, and how many of the bytes are of it.
fn read(body: &mut Body, bytes: &[u8], ends: &[usize]) -> Result<(Vec<u8>, usize), BadChunk> {
    let (mut content, mut at) = (Vec::new(), 0);
    for end in ends {
        loop {
            match body.next(&bytes[at..*end])? {
                Next::Content { skip, length } => {
                    content.extend_from_slice(&bytes[at + skip..at + skip + length]);
                    body.taken(length);
                    at += skip + length;
                }
                Next::More => {
                    at = *end;
                    break;
                }
                Next::End { skip } => {
                    assert!(body.is_ended());
                    return Ok((content, at + skip));
                }
            }
        }
    }
    Ok((content, at))
}

fn ended_with(trailers: &str) -> Body {
    let mut body = Body::new(Framing::Chunked);
    let bytes = format!("0\r\n{trailers}\r\n");
    assert_eq!(body.next(bytes.as_bytes()), Ok(Next::End { skip: bytes.len() }));
    body
}

#[test]
fn only_what_is_delimited_by_the_connection_ends_with_it() {
    for (framing, ends) in [
        (Framing::None, true),
        (Framing::Length(0), true),
        (Framing::Length(1), false),
        (Framing::Chunked, false),
        (Framing::UntilClose, true),
    ] {
        let mut body = Body::new(framing);
        assert_eq!(body.ends_here(), ends, "{framing:?}");
        assert_eq!(body.is_ended(), ends, "{framing:?}");
    }
}

#[test]
fn trailers_cross_unless_they_mean_something_before_the_body() {
    let body = ended_with("X: 1\r\nx-checksum:\tab  \r\nDate: d\r\n");
    let mut out = Vec::new();
    body.put_trailers(&mut out).unwrap();
    assert_eq!(out, b"X: 1\r\nx-checksum: ab\r\nDate: d\r\n");
    for name in [
        "Authorization",
        "Connection",
        "Content-Length",
        "CONTENT-TYPE",
        "Expect",
        "Host",
        "Keep-Alive",
        "Max-Forwards",
        "Set-Cookie",
        "TE",
        "Trailer",
        "Transfer-Encoding",
        "Upgrade",
        "X-Forwarded-For",
        "X-Request-Id",
    ] {
        let body = ended_with(&format!("{name}: 1\r\n"));
        let mut out = Vec::new();
        body.put_trailers(&mut out).unwrap();
        assert_eq!(out, b"", "{name}");
        assert_eq!(body.check_trailers(), Ok(()), "{name}");
    }
}

#[test]
fn trailers_that_are_no_fields_are_refused() {
    for (trailers, error) in [
        ("x\r\n", BadHead::FieldName),
        ("A : b\r\n", BadHead::FieldName),
        ("A: b\r\n c\r\n", BadHead::FieldName),
        ("A: b\0\r\n", BadHead::FieldValue),
    ] {
        let body = ended_with(trailers);
        assert_eq!(body.put_trailers(&mut Vec::new()), Err(error), "{trailers:?}");
        assert_eq!(body.check_trailers(), Err(error), "{trailers:?}");
    }
}

proptest! {
    #[test]
    fn a_body_is_what_its_framing_says_and_nothing_behind_it(
        content in vec(any::<u8>(), 0..60),
        behind in vec(any::<u8>(), 0..20),
        cuts in cuts(),
    ) {
        let length = content.len();
        let bytes = [&content[..], &behind].concat();
        let ends = ends(&cuts, bytes.len());
        let told = |framing| {
            let mut body = Body::new(framing);
            let read = read(&mut body, &bytes, &ends).unwrap();
            (read, body.is_ended())
        };
        prop_assert_eq!(told(Framing::Length(length as u64)), ((content, length), true));
        prop_assert_eq!(told(Framing::None), ((vec![], 0), true));
        let all = (bytes.clone(), bytes.len());
        prop_assert_eq!(told(Framing::UntilClose), (all.clone(), false));
        prop_assert_eq!(told(Framing::Length(bytes.len() as u64 + 1)), (all, false));
    }
}
