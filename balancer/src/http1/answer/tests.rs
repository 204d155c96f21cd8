use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::super::generated::{LIMITS, blanks, edited, edits, field, fields, read, written};
use super::*;

/// What an answer means: its start line without CR LF, its fields with it.
fn answer(start: &str, lines: &str, to_head: bool) -> Result<Answer, BadAnswer> {
    let bytes = format!("{start}\r\n{lines}\r\n");
    let (head, last) = read::<StatusLine>(bytes.as_bytes(), &[bytes.len()], &LIMITS);
    assert_eq!(last, Ok(Some(bytes.len())), "{bytes:?}");
    let mut answer = Answer::new();
    answer.read(&head, bytes.as_bytes(), to_head)?;
    Ok(answer)
}

fn ok(lines: &str) -> Result<Answer, BadAnswer> {
    answer("HTTP/1.1 200 OK", lines, false)
}

#[test]
fn status_lines_are_a_version_three_digits_and_a_reason() {
    for (line, minor, status, reason) in [
        ("HTTP/1.1 200 OK", 1, 200, &b"OK"[..]),
        ("HTTP/1.0 999 ", 0, 999, b""),
        ("HTTP/1.1 100", 1, 100, b""),
        ("HTTP/1.1 404 Not\tFound ", 1, 404, b"Not\tFound "),
        ("HTTP/1.1 200 \u{e4}", 1, 200, "\u{e4}".as_bytes()),
    ] {
        let read = StatusLine::parse(line.as_bytes(), &LIMITS).expect(line);
        assert_eq!((read.minor, read.status), (minor, status), "{line:?}");
        assert_eq!(read.reason.of(line.as_bytes()), reason, "{line:?}");
    }
    for (line, error) in [
        ("", BadHead::StartLine),
        ("HTTP/1.1", BadHead::StartLine),
        ("HTTP/1.1 ", BadHead::StartLine),
        ("HTTP/1.1 20", BadHead::StartLine),
        ("HTTP/1.1 099 OK", BadHead::StartLine),
        ("HTTP/1.1 2000 OK", BadHead::StartLine),
        ("HTTP/1.1 200OK", BadHead::StartLine),
        ("HTTP/1.1  200 OK", BadHead::StartLine),
        ("HTTP/1.1\t200 OK", BadHead::StartLine),
        ("HTTP/1.1 200\tOK", BadHead::StartLine),
        ("HTTP/1.1 +20 OK", BadHead::StartLine),
        ("HTTP/1.1 200 O\0K", BadHead::StartLine),
        ("HTTP/1.1 200 OK\r", BadHead::StartLine),
        ("http/1.1 200 OK", BadHead::StartLine),
        ("HTTP/11 200 OK", BadHead::StartLine),
        ("HTTP/1.2 200 OK", BadHead::Version),
        ("HTTP/2.0 200 OK", BadHead::Version),
    ] {
        assert_eq!(StatusLine::parse(line.as_bytes(), &LIMITS), Err(error), "{line:?}");
    }
}

#[test]
fn the_framing_is_one_of_four() {
    for (start, lines, framing) in [
        ("HTTP/1.1 200 OK", "", Ok(Framing::UntilClose)),
        ("HTTP/1.0 200 OK", "", Ok(Framing::UntilClose)),
        ("HTTP/1.1 200 OK", "Content-Length: 0\r\n", Ok(Framing::Length(0))),
        ("HTTP/1.1 200 OK", "Content-Length: 5\r\ncontent-length: 5\r\n", Ok(Framing::Length(5))),
        ("HTTP/1.1 200 OK", "Transfer-Encoding: Chunked\r\n", Ok(Framing::Chunked)),
        ("HTTP/1.1 204 No", "Content-Length: 5\r\n", Ok(Framing::None)),
        ("HTTP/1.1 304 No", "Transfer-Encoding: chunked\r\n", Ok(Framing::None)),
        ("HTTP/1.1 101 Go", "", Ok(Framing::None)),
        ("HTTP/1.1 205 Re", "", Ok(Framing::UntilClose)),
        ("HTTP/1.1 200 OK", "Content-Length: 5\r\nContent-Length: 6\r\n", Err(BadAnswer::Length)),
        ("HTTP/1.1 304 No", "Content-Length: x\r\n", Err(BadAnswer::Length)),
        (
            "HTTP/1.1 200 OK",
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            Err(BadAnswer::LengthAndChunks),
        ),
        ("HTTP/1.0 200 OK", "Transfer-Encoding: chunked\r\n", Err(BadAnswer::TransferEncoding)),
        ("HTTP/1.1 200 OK", "Transfer-Encoding: gzip, chunked\r\n", {
            Err(BadAnswer::TransferEncoding)
        }),
        (
            "HTTP/1.1 200 OK",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            Err(BadAnswer::TransferEncoding),
        ),
        ("HTTP/1.1 200 OK", "Transfer-Encoding:\r\n", Err(BadAnswer::TransferEncoding)),
    ] {
        let read = answer(start, lines, false).map(|answer| answer.framing);
        assert_eq!(read, framing, "{start} {lines:?}");
        if let Ok(answer) = answer(start, lines, true) {
            assert_eq!(answer.framing, Framing::None, "{start} {lines:?}");
        }
    }
    let to_head = answer("HTTP/1.1 200 OK", "Content-Length: 5\r\n", true).unwrap();
    assert_eq!((to_head.framing, to_head.length), (Framing::None, Some(5)));
}

#[test]
fn a_connection_is_kept_where_both_say_so() {
    for (start, lines, keeps) in [
        ("HTTP/1.1 200 OK", "", true),
        ("HTTP/1.1 200 OK", "Connection: keep-alive, Close\r\n", false),
        ("HTTP/1.0 200 OK", "", false),
        ("HTTP/1.0 200 OK", "Connection: x, keep-alive\r\n", true),
    ] {
        assert_eq!(answer(start, lines, false).unwrap().keeps, keeps, "{start} {lines:?}");
    }
}

#[test]
fn what_an_answer_says_of_itself_is_known() {
    let read = ok("DATE: d\r\nx-request-id: 7\r\nUpgrade: a\r\nUpgrade: b\r\n").unwrap();
    assert!(read.has_date && read.has_id && read.upgrade.is_some());
    let bare = ok("X-Date: d\r\n").unwrap();
    assert!(!bare.has_date && !bare.has_id && bare.upgrade.is_none());
    for (status, interim) in [(100, true), (103, true), (101, false), (200, false)] {
        let read = answer(&format!("HTTP/1.1 {status} X"), "", false).unwrap();
        assert_eq!(read.is_interim(), interim, "{status}");
    }
}

#[test]
fn nothing_of_the_last_answer_is_left() {
    let first = b"HTTP/1.0 204 No\r\nDate: d\r\nContent-Length: 5\r\nX-Request-Id: 7\r\n\
                  Connection: close, upgrade, x-a\r\nUpgrade: a\r\n\r\n";
    let second = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: 1\r\n\r\n";
    let mut answer = Answer::new();
    let (head, _) = read::<StatusLine>(first, &[first.len()], &LIMITS);
    answer.read(&head, first, false).unwrap();
    let (head, _) = read::<StatusLine>(second, &[second.len()], &LIMITS);
    answer.read(&head, second, false).unwrap();
    assert_eq!((answer.status, answer.framing, answer.length), (200, Framing::Chunked, None));
    assert!(answer.keeps && !answer.has_date && !answer.has_id && answer.upgrade.is_none());
    assert_eq!(answer.options, Options::default());
}

/// Whether httparse reads the same out of a head that is taken here; whether it is taken.
fn httparse_agrees(bytes: &[u8]) -> Result<bool, TestCaseError> {
    let (head, last) = read::<StatusLine>(bytes, &[bytes.len()], &LIMITS);
    let Ok(Some(length)) = last else { return Ok(false) };
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut other = httparse::Response::new(&mut headers);
    let mut config = httparse::ParserConfig::default();
    config.allow_spaces_after_header_name_in_responses(true);
    let parsed = config.parse_response(&mut other, bytes);
    prop_assert_eq!(parsed, Ok(httparse::Status::Complete(length)));
    let line = head.start().unwrap();
    prop_assert_eq!(other.version, Some(line.minor));
    prop_assert_eq!(other.code, Some(line.status));
    // It gives no reason that is not ASCII.
    let reason = line.reason.of(bytes);
    if reason.is_ascii() {
        prop_assert_eq!(other.reason.map(str::as_bytes), Some(reason));
    }
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
        start in select(vec![
            "HTTP/1.1 200 OK", "HTTP/1.0 304", "HTTP/1.1 100 ", "HTTP/1.1 999 a  b ",
            "HTTP/1.1 500 caf\u{e9}",
        ]),
        fields in vec(field(), 0..6),
        blanks in blanks(),
        edits in edits(),
    ) {
        let good = written(start.as_bytes(), &fields, &blanks);
        prop_assert!(httparse_agrees(&good)?, "a good head is refused");
        httparse_agrees(&edited(good, &edits))?;
    }
}
