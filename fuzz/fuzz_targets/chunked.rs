//! Chunks are the same in pieces and to a reader that has all of them at once, and nothing behind
//! their end is taken.

#![no_main]

#[path = "../../balancer/src/http1/chunked/tests/naive.rs"]
mod naive;

use balancer_fuzz::cut;
use balancer_fuzz::http1::Framing;
use balancer_fuzz::http1::body::Body;
use balancer_fuzz::http1::chunked::{BadChunk, Chunked, Next, put_size};
use libfuzzer_sys::fuzz_target;
use naive::{Whole, naive};

/// Reads as the bytes come in pieces of this size. `None` when more must come.
fn decode(bytes: &[u8], piece: usize) -> Result<Option<Whole>, BadChunk> {
    let (mut reader, mut at, mut end, mut content) = (Chunked::default(), 0, 0, Vec::new());
    loop {
        match reader.next(&bytes[at..end])? {
            Next::Content { skip, length } => {
                assert!(length > 0);
                content.extend_from_slice(&bytes[at + skip..at + skip + length]);
                reader.taken(length);
                at += skip + length;
            }
            Next::More => {
                at = end;
                if end == bytes.len() {
                    return Ok(None);
                }
                end = bytes.len().min(usize::saturating_add(end, piece));
            }
            Next::End { skip } => {
                assert!(reader.is_ended());
                let trailers = reader.trailers().to_vec();
                return Ok(Some(Whole { content, trailers, length: at + skip }));
            }
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let (piece, bytes) = cut(data);
    let at_once = decode(bytes, usize::MAX);
    assert_eq!(at_once, decode(bytes, piece));
    let whole = at_once.ok().flatten();
    assert_eq!(whole, naive(bytes));
    let Some(whole) = whole else { return };

    // Less is not enough, and more is not taken.
    assert_eq!(decode(&bytes[..whole.length - 1], piece), Ok(None));
    assert_eq!(decode(&bytes[..whole.length], piece).as_ref(), Ok(&Some(whole)));
    let whole = naive(bytes).expect("it was whole before");

    // Written again it is the same.
    let mut out = Vec::new();
    for chunk in whole.content.chunks(piece) {
        put_size(&mut out, chunk.len());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0\r\n");
    let kept = out.len();
    let mut body = Body::new(Framing::Chunked);
    let mut rest = &bytes[..whole.length];
    while let Ok(Next::Content { skip, length }) = body.next(rest) {
        body.taken(length);
        rest = &rest[skip + length..];
    }
    assert!(body.is_ended());
    let good = body.check_trailers().is_ok();
    assert_eq!(body.put_trailers(&mut out).is_ok(), good);
    if good {
        let crossed = out[kept..].to_vec();
        out.extend_from_slice(b"\r\n");
        let again = decode(&out, piece).ok().flatten().expect("what is written is good");
        assert_eq!((again.content, again.length), (whole.content, out.len()));
        assert_eq!(again.trailers, crossed);
    }
});
