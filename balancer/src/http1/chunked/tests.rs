mod naive;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::super::generated::{cuts, ends};
use super::*;
use naive::{Whole, naive};

/// Reads a body that comes in pieces; of what is told, `bite` bytes at most are taken at once.
/// `None` when more must come.
fn decode(bytes: &[u8], ends: &[usize], bite: usize) -> Result<Option<Whole>, BadChunk> {
    let (mut reader, mut at, mut content) = (Chunked::default(), 0, Vec::new());
    for end in ends {
        loop {
            match reader.next(&bytes[at..*end])? {
                Next::Content { skip, length } => {
                    assert!(length > 0 && !reader.is_ended());
                    let length = length.min(bite);
                    content.extend_from_slice(&bytes[at + skip..at + skip + length]);
                    reader.taken(length);
                    at += skip + length;
                }
                Next::More => {
                    assert!(!reader.is_ended());
                    at = *end;
                    break;
                }
                Next::End { skip } => {
                    assert!(reader.is_ended());
                    assert_eq!(reader.next(b"more"), Ok(Next::End { skip: 0 }));
                    let trailers = reader.trailers().to_vec();
                    return Ok(Some(Whole { content, trailers, length: at + skip }));
                }
            }
        }
    }
    Ok(None)
}

fn at_once(bytes: &[u8]) -> Result<Option<Whole>, BadChunk> {
    decode(bytes, &[bytes.len()], usize::MAX)
}

#[test]
fn sizes_are_hexadecimal_digits() {
    for (body, content) in [
        ("0\r\n\r\n", ""),
        ("5\r\nhello\r\n0\r\n\r\n", "hello"),
        ("005\r\nhello\r\n000\r\n\r\n", "hello"),
        ("0000000000000005\r\nhello\r\n0\r\n\r\n", "hello"),
        ("A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", "01234567890123456789"),
        ("2;a=b;c=\"d\"\r\nhi\r\n0;x\r\n\r\n", "hi"),
        ("2 \t;a\r\nhi\r\n0\r\n\r\n", "hi"),
        ("2;\r\nhi\r\n0\r\n\r\n", "hi"),
    ] {
        let whole = at_once(body.as_bytes()).expect(body).expect(body);
        assert_eq!(whole.content, content.as_bytes(), "{body:?}");
        assert_eq!(whole.length, body.len(), "{body:?}");
    }
}

#[test]
fn what_other_readers_forgive_is_refused() {
    for (body, error) in [
        ("\r\n", BadChunk::Size),
        (" 5\r\n", BadChunk::Size),
        ("+5\r\n", BadChunk::Size),
        ("-5\r\n", BadChunk::Size),
        ("0x5\r\n", BadChunk::Size),
        ("5_0\r\n", BadChunk::Size),
        ("g\r\n", BadChunk::Size),
        (";a\r\n", BadChunk::Size),
        ("5 \r\n", BadChunk::Size),
        ("5\n", BadChunk::Size),
        ("5 5\r\n", BadChunk::Size),
        ("00000000000000005\r\n", BadChunk::Size),
        ("10000000000000000\r\n", BadChunk::Size),
        ("5;a\n", BadChunk::Extension),
        ("5;a\0\r\n", BadChunk::Extension),
        ("5;\x7f\r\n", BadChunk::Extension),
        ("5\rx", BadChunk::End),
        ("5\r\r\n", BadChunk::End),
        ("2\r\nhi\n0\r\n\r\n", BadChunk::End),
        ("2\r\nhi0\r\n\r\n", BadChunk::End),
        ("2\r\nhi!\r\n0\r\n\r\n", BadChunk::End),
        ("2\r\nhi\rx", BadChunk::End),
        ("0\r\n\n", BadChunk::Trailers),
        ("0\r\n\rx", BadChunk::Trailers),
        ("0\r\nA: b\n\r\n", BadChunk::Trailers),
        ("0\r\nA: b\rc\r\n\r\n", BadChunk::Trailers),
    ] {
        assert_eq!(at_once(body.as_bytes()), Err(error), "{body:?}");
        let bytewise = Vec::from_iter(0..=body.len());
        assert_eq!(decode(body.as_bytes(), &bytewise, 1), Err(error), "{body:?}");
    }
}

#[test]
fn a_size_may_be_the_largest_number() {
    let mut reader = Chunked::default();
    let begin = b"ffffffffffffffff\r\nx";
    assert_eq!(reader.next(begin), Ok(Next::Content { skip: 18, length: 1 }));
    reader.taken(1);
    assert_eq!(reader.next(b"yz"), Ok(Next::Content { skip: 0, length: 2 }));
}

#[test]
fn extensions_and_trailers_have_a_limit_that_is_exact() {
    for (blank, length) in [("", 1_023), (" ", 1_022), (" \t ", 1_020)] {
        let body = |length| format!("1{blank};{}\r\nx\r\n0\r\n\r\n", "e".repeat(length));
        assert!(at_once(body(length).as_bytes()).unwrap().is_some());
        assert_eq!(at_once(body(length + 1).as_bytes()), Err(BadChunk::Extension));
    }
    assert_eq!(at_once(&[b"1".to_vec(), vec![b' '; 1_026]].concat()), Err(BadChunk::Extension));

    let body = |length: usize| format!("0\r\nA: {}\r\nB: c\r\n\r\n", "b".repeat(length - 11));
    let whole = at_once(body(TRAILERS_MAX).as_bytes()).unwrap().unwrap();
    assert_eq!(whole.trailers.len(), TRAILERS_MAX);
    assert_eq!(at_once(body(TRAILERS_MAX + 1).as_bytes()), Err(BadChunk::Trailers));
}

/// Chunks of these pieces and no other, with these lines behind.
fn encode(pieces: &[Vec<u8>], trailers: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for piece in pieces {
        put_size(&mut out, piece.len());
        out.extend_from_slice(piece);
        out.extend_from_slice(b"\r\n");
    }
    put_size(&mut out, 0);
    out.extend_from_slice(trailers);
    out.extend_from_slice(b"\r\n");
    out
}

/// What chunks are made of, and what is taken for it.
fn token() -> impl Strategy<Value = &'static [u8]> {
    let often: &[&[u8]] = &[b"0", b"1", b"2", b"a", b"\r\n", b"\r\n", b"xy", b"x"];
    let rarely: &[&[u8]] = &[
        b";e=v",
        b";",
        b" ",
        b"\t",
        b"\r",
        b"\n",
        b"A: b\r\n",
        b":",
        b"+",
        b"0x",
        b"\0",
        b"\x7f",
        b"\xff",
        b"-",
        b"B",
        b"00000000000000",
        b"ffffffffffffffff",
        b"0\r\n\r\n",
        b"1\r\nx\r\n",
    ];
    prop_oneof![3 => select(often), 1 => select(rarely)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn what_was_put_into_chunks_comes_out(
        pieces in vec(vec(any::<u8>(), 1..40), 0..6),
        trailers in select(vec![&b""[..], b"A: b\r\n", b"A: b\r\nC:\r\n"]),
        behind in vec(any::<u8>(), 0..20),
        cuts in cuts(),
        bite in 1..50_usize,
    ) {
        let body = encode(&pieces, trailers);
        let bytes = [&body[..], &behind].concat();
        let whole = Whole {
            content: pieces.concat(),
            trailers: trailers.to_vec(),
            length: body.len(),
        };
        prop_assert_eq!(decode(&bytes, &ends(&cuts, bytes.len()), bite), Ok(Some(whole)));
        for short in 0..body.len() {
            prop_assert_eq!(at_once(&body[..short]), Ok(None));
        }
    }

    #[test]
    fn a_naive_reader_agrees(tokens in vec(token(), 0..14), cuts in cuts(), bite in 1..5_usize) {
        let bytes = tokens.concat();
        let read = decode(&bytes, &ends(&cuts, bytes.len()), bite);
        prop_assert_eq!(&read, &at_once(&bytes));
        prop_assert_eq!(read.ok().flatten(), naive(&bytes));
    }

    #[test]
    fn a_naive_reader_agrees_on_what_is_nearly_good(
        pieces in vec(vec(any::<u8>(), 1..20), 0..4),
        at: proptest::sample::Index,
        token in token(),
        removed in 0..3_usize,
        cuts in cuts(),
    ) {
        let mut bytes = encode(&pieces, b"A: b\r\n");
        let at = at.index(bytes.len());
        let end = (at + removed).min(bytes.len());
        bytes.splice(at..end, token.iter().copied());
        let read = decode(&bytes, &ends(&cuts, bytes.len()), usize::MAX);
        prop_assert_eq!(&read, &at_once(&bytes));
        prop_assert_eq!(read.ok().flatten(), naive(&bytes));
    }

    #[test]
    fn a_size_is_written_as_it_is_read(length: usize) {
        for length in [length, length >> 32, length >> 48, length >> 60] {
            let mut out = Vec::new();
            put_size(&mut out, length);
            prop_assert_eq!(out, format!("{length:x}\r\n").into_bytes());
        }
    }
}

#[test]
fn the_extensions_of_all_chunks_have_a_limit() {
    // Fifteen bytes of extension, behind the `;`, to one of content.
    let chunk = b"1;extension=12345\r\nx\r\n";
    let length = chunk.iter().position(|byte| *byte == b'\r').unwrap() - 2;
    let most = EXTENSIONS_MAX as usize / length;
    for (chunks, good) in [(most, true), (most + 1, false)] {
        let mut body = chunk.repeat(chunks);
        body.extend_from_slice(b"0\r\n\r\n");
        let (mut chunked, mut rest) = (Chunked::default(), &body[..]);
        let outcome = loop {
            match chunked.next(rest) {
                Ok(Next::Content { skip, length }) => {
                    chunked.taken(length);
                    rest = &rest[skip + length..];
                }
                Ok(Next::End { .. }) => break Ok(()),
                Ok(Next::More) => panic!("it is whole"),
                Err(bad) => break Err(bad),
            }
        };
        assert_eq!(outcome.is_ok(), good, "{chunks} chunks: {outcome:?}");
    }
}
