use proptest::collection::vec;
use proptest::prelude::*;

use super::super::answer::StatusLine;
use super::super::generated::{
    LIMITS, blanks, cuts, edited, edits, ends, field, fields, read, written,
};
use super::super::request::RequestLine;
use super::*;

/// What a request's head is refused with, all at once.
fn refusal(head: &str) -> BadHead {
    let (_, last) = read::<RequestLine>(head.as_bytes(), &[head.len()], &LIMITS);
    last.expect_err(head)
}

/// The same of an answer's.
fn answer_refusal(head: &str) -> BadHead {
    let (_, last) = read::<StatusLine>(head.as_bytes(), &[head.len()], &LIMITS);
    last.expect_err(head)
}

#[test]
fn lines_end_with_cr_lf_and_nothing_else() {
    for head in [
        "\n",
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
        "GET / HTTP/1.1\r\n\nHost: a\r\n\r\n",
    ] {
        assert_eq!(refusal(head), BadHead::LineEnd, "{head:?}");
    }
    assert_eq!(refusal("GET / HTTP/1.1\r\r\n\r\n"), BadHead::StartLine);
    assert_eq!(refusal("GET / HTTP/1.1\r\nA: b\r\r\n\r\n"), BadHead::FieldValue);
    assert_eq!(refusal("GET / HTTP/1.1\r\nA: b\rc\r\n\r\n"), BadHead::FieldValue);
    assert_eq!(refusal("GET / HTTP/1.1\r\n\r\r\n"), BadHead::FieldName);
}

#[test]
fn fields_are_a_token_a_colon_and_a_value() {
    for field in ["A", ": b", " A: b", "\tA: b", "A : b", "A\t: b", "A b: c", "\u{e4}: b", "A\0: b"]
    {
        let head = format!("GET / HTTP/1.1\r\nX: y\r\n{field}\r\n\r\n");
        assert_eq!(refusal(&head), BadHead::FieldName, "{head:?}");
    }
    for field in ["A: \0", "A: b\x7f", "A: \x1b[m", "A: b\x0bc"] {
        let head = format!("GET / HTTP/1.1\r\n{field}\r\n\r\n");
        assert_eq!(refusal(&head), BadHead::FieldValue, "{head:?}");
    }
}

#[test]
fn white_space_before_the_colon_is_overlooked_in_answers_only() {
    let head = b"HTTP/1.1 200 OK\r\nA \t: b\r\n\r\n";
    let (read, last) = read::<StatusLine>(head, &[head.len()], &LIMITS);
    assert_eq!(last, Ok(Some(head.len())));
    assert_eq!(fields(&read, head), [(b"A".to_vec(), b"b".to_vec())]);
    for field in [" A: b", "A b: c", " : b", "A"] {
        let head = format!("HTTP/1.1 200 OK\r\nX: y\r\n{field}\r\n\r\n");
        assert_eq!(answer_refusal(&head), BadHead::FieldName, "{head:?}");
    }
}

#[test]
fn what_cannot_begin_a_head_is_not_waited_for() {
    for begin in [" ", "\r", "\x16\x03\x01", "{", "/"] {
        assert_eq!(refusal(begin), BadHead::StartLine, "{begin:?}");
    }
    for begin in ["", "G", "GET /", "PRI * HTTP/2.0"] {
        let (_, last) = read::<RequestLine>(begin.as_bytes(), &[begin.len()], &LIMITS);
        assert_eq!(last, Ok(None), "{begin:?}");
    }
    for begin in ["h", "HTTP/2", "HTTP 1", "SSH-2.0"] {
        assert_eq!(answer_refusal(begin), BadHead::StartLine, "{begin:?}");
    }
    for begin in ["", "H", "HTTP/1", "HTTP/1.1 20"] {
        let (_, last) = read::<StatusLine>(begin.as_bytes(), &[begin.len()], &LIMITS);
        assert_eq!(last, Ok(None), "{begin:?}");
    }
}

/// What reading with these limits ends in: all at once, and byte by byte.
fn both_ways<S: StartLine>(bytes: &[u8], limits: &HeadLimits) -> Result<Option<usize>, BadHead> {
    let (_, at_once) = read::<S>(bytes, &[bytes.len()], limits);
    let (_, bytewise) = read::<S>(bytes, &Vec::from_iter(0..=bytes.len()), limits);
    assert_eq!(at_once, bytewise);
    at_once
}

#[test]
fn limits_are_the_most_that_is_taken() {
    let head = b"GET /abcd HTTP/1.1\r\nHost: a\r\nX: y\r\nZ: \r\n\r\n";
    let exact = HeadLimits { bytes: head.len(), fields: 3, target: 5 };
    let read = |limits| both_ways::<RequestLine>(head, &limits);
    assert_eq!(read(exact), Ok(Some(head.len())));
    for bytes in 20..head.len() {
        assert_eq!(read(HeadLimits { bytes, ..exact }), Err(BadHead::TooLarge), "{bytes}");
    }
    assert_eq!(read(HeadLimits { fields: 2, ..exact }), Err(BadHead::TooManyFields));
    assert_eq!(read(HeadLimits { fields: 0, ..exact }), Err(BadHead::TooManyFields));
    assert_eq!(read(HeadLimits { target: 4, ..exact }), Err(BadHead::TargetTooLong));
    // The first line alone is too much: of a request that is its target.
    assert_eq!(read(HeadLimits { bytes: 19, ..exact }), Err(BadHead::TargetTooLong));

    let head = b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n";
    let exact = HeadLimits { bytes: head.len(), fields: 1, target: 0 };
    let read = |limits| both_ways::<StatusLine>(head, &limits);
    assert_eq!(read(exact), Ok(Some(head.len())));
    for bytes in 8..head.len() {
        assert_eq!(read(HeadLimits { bytes, ..exact }), Err(BadHead::TooLarge), "{bytes}");
    }
    assert_eq!(read(HeadLimits { fields: 0, ..exact }), Err(BadHead::TooManyFields));
}

#[test]
fn a_head_without_an_end_is_refused_at_the_limit() {
    let limits = HeadLimits { bytes: 64, fields: 4, target: 64 };
    let endless = vec![b'A'; 64];
    assert_eq!(both_ways::<RequestLine>(&endless[..63], &limits), Ok(None));
    assert_eq!(both_ways::<RequestLine>(&endless, &limits), Err(BadHead::TargetTooLong));
    let mut endless = b"HTTP/1.1 200 ".to_vec();
    endless.resize(64, b'A');
    assert_eq!(both_ways::<StatusLine>(&endless[..63], &limits), Ok(None));
    assert_eq!(both_ways::<StatusLine>(&endless, &limits), Err(BadHead::TooLarge));
}

#[test]
fn what_is_behind_a_head_is_not_looked_at() {
    let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let limits = HeadLimits { bytes: head.len(), ..LIMITS };
    for behind in [&b"\n"[..], b"GET /", b"\0\0\0", &[b'x'; 20_000]] {
        let bytes = [&head[..], behind].concat();
        let (read, last) = read::<RequestLine>(&bytes, &[bytes.len()], &limits);
        assert_eq!(last, Ok(Some(head.len())));
        assert_eq!(read.lines().len(), 1);
    }
}

#[test]
fn a_head_is_used_again() {
    let (first, second) = (b"GET /a HTTP/1.1\r\nA: b\r\n\r\n", b"PUT /b HTTP/1.0\r\n\r\n");
    let mut head = Head::<RequestLine>::new();
    assert!(head.is_new());
    assert_eq!(head.parse(first, &LIMITS), Ok(Some(first.len())));
    assert!(!head.is_new());
    head.clear();
    assert!(head.is_new() && head.start().is_none());
    assert_eq!(head.parse(second, &LIMITS), Ok(Some(second.len())));
    assert_eq!((head.start().unwrap().minor, head.lines().len()), (0, 0));
}

/// Reads at once and in pieces: both are the same, but for what a refusal says. That depends on
/// how much was there.
fn same_in_pieces<S>(bytes: &[u8], ends: &[usize], limits: &HeadLimits) -> Result<(), TestCaseError>
where
    S: StartLine + PartialEq + std::fmt::Debug,
{
    let (whole, at_once) = read::<S>(bytes, &[bytes.len()], limits);
    let (pieces, cut) = read::<S>(bytes, ends, limits);
    prop_assert_eq!(at_once.is_err(), cut.is_err(), "{:?} {:?}", at_once, cut);
    if at_once.is_ok() {
        prop_assert_eq!(at_once, cut);
        prop_assert_eq!(whole.start(), pieces.start());
        prop_assert_eq!(fields(&whole, bytes), fields(&pieces, bytes));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn a_head_in_pieces_is_the_same_head(
        fields in vec(field(), 0..6),
        blanks in blanks(),
        edits in edits(),
        cuts in cuts(),
        spare in -3..3_isize,
    ) {
        for start in [&b"GET /a?b HTTP/1.1"[..], b"HTTP/1.1 200 OK"] {
            let bytes = edited(written(start, &fields, &blanks), &edits);
            let ends = ends(&cuts, bytes.len());
            let tight = bytes.len().saturating_add_signed(spare);
            for limits in [LIMITS, HeadLimits { bytes: tight, ..LIMITS }] {
                same_in_pieces::<RequestLine>(&bytes, &ends, &limits)?;
                same_in_pieces::<StatusLine>(&bytes, &ends, &limits)?;
            }
        }
    }

    #[test]
    fn what_is_written_is_read(fields in vec(field(), 0..6), blanks in blanks()) {
        let bytes = written(b"GET / HTTP/1.1", &fields, &blanks);
        let (head, last) = read::<RequestLine>(&bytes, &[bytes.len()], &LIMITS);
        prop_assert_eq!(last, Ok(Some(bytes.len())));
        let told: Vec<_> =
            fields.into_iter().map(|(name, value)| (name.into_bytes(), value)).collect();
        prop_assert_eq!(super::super::generated::fields(&head, &bytes), told);
    }

    #[test]
    fn a_line_that_is_read_and_written_is_read_the_same(
        (name, value) in field(),
        blanks in blanks(),
        loose: bool,
    ) {
        let bytes = [name.as_bytes(), b":", blanks[0].as_bytes(), &value, blanks[1].as_bytes()];
        let bytes = [&bytes.concat()[..], b"\r\n"].concat();
        let line = Line::parse(&bytes, 0, bytes.len() - 2, loose).unwrap();
        let (mut run, mut out) = (Run::default(), Vec::new());
        run.add(&line, &bytes, &mut out);
        run.end(&bytes, &mut out);
        let again = Line::parse(&out, 0, out.len() - 2, false).unwrap();
        prop_assert_eq!(line.name.of(&bytes), again.name.of(&out));
        prop_assert_eq!(line.value.of(&bytes), again.value.of(&out));
        prop_assert_eq!(line.kind, again.kind);
    }
}
