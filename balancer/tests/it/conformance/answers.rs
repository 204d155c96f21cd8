//! Heads of answers: bad ones are 502, odd ones are mended, bodiless ones have no body.

use super::table::Told::{Bad, Shown, ShownOnce};
use super::table::{AnswerCase, answered, asked, run_answers};
use super::upstream::Then;

#[test]
fn a_bad_answer_is_502_and_its_connection_is_not_used_again() {
    let bad: &[(&str, &[u8])] = &[
        // RFC 9112 4: the status line.
        ("no HTTP", b"this is no HTTP\r\n\r\n"),
        ("SMTP", b"220 mail.example ESMTP\r\n\r\n"),
        ("another protocol", b"ICY 200 OK\r\n\r\n"),
        ("HTTP/2.0", b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n"),
        ("HTTP/1.x", b"HTTP/1.x 200 OK\r\nContent-Length: 0\r\n\r\n"),
        ("HTTP/1.10", b"HTTP/1.10 200 OK\r\nContent-Length: 0\r\n\r\n"),
        ("http/1.1", b"http/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        ("status 99", b"HTTP/1.1 99 X\r\nContent-Length: 0\r\n\r\n"),
        ("status 099", b"HTTP/1.1 099 X\r\nContent-Length: 0\r\n\r\n"),
        ("status 000", b"HTTP/1.1 000 X\r\nContent-Length: 0\r\n\r\n"),
        ("status 1000", b"HTTP/1.1 1000 X\r\nContent-Length: 0\r\n\r\n"),
        ("status 2000", b"HTTP/1.1 2000\r\nContent-Length: 0\r\n\r\n"),
        ("status abc", b"HTTP/1.1 abc X\r\nContent-Length: 0\r\n\r\n"),
        ("status +20", b"HTTP/1.1 +20 X\r\nContent-Length: 0\r\n\r\n"),
        ("no status", b"HTTP/1.1 \r\nContent-Length: 0\r\n\r\n"),
        ("only a version", b"HTTP/1.1\r\nContent-Length: 0\r\n\r\n"),
        ("two spaces before the status", b"HTTP/1.1  200 OK\r\nContent-Length: 0\r\n\r\n"),
        ("a NUL in the reason", b"HTTP/1.1 200 O\x00K\r\nContent-Length: 0\r\n\r\n"),
        ("a bare CR in the reason", b"HTTP/1.1 200 O\rK\r\nContent-Length: 0\r\n\r\n"),
        // RFC 9112 2.2, 5.2 and RFC 9110 5.5.
        ("LF after the status line", b"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n"),
        ("LF after a field", b"HTTP/1.1 200 OK\r\nX: y\nContent-Length: 0\r\n\r\n"),
        ("LF at the end of the head", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\n"),
        ("CR in a value", b"HTTP/1.1 200 OK\r\nX: y\rz\r\nContent-Length: 0\r\n\r\n"),
        ("a folded line", b"HTTP/1.1 200 OK\r\nX: y\r\n z\r\nContent-Length: 0\r\n\r\n"),
        ("a fold after the status line", b"HTTP/1.1 200 OK\r\n X: y\r\nContent-Length: 0\r\n\r\n"),
        ("a NUL in a value", b"HTTP/1.1 200 OK\r\nX: \x00\r\nContent-Length: 0\r\n\r\n"),
        ("ESC in a value", b"HTTP/1.1 200 OK\r\nX: \x1b[m\r\nContent-Length: 0\r\n\r\n"),
        ("DEL in a value", b"HTTP/1.1 200 OK\r\nX: \x7f\r\nContent-Length: 0\r\n\r\n"),
        ("no colon", b"HTTP/1.1 200 OK\r\nX\r\nContent-Length: 0\r\n\r\n"),
        ("no name", b"HTTP/1.1 200 OK\r\n: y\r\nContent-Length: 0\r\n\r\n"),
        ("a bad name", b"HTTP/1.1 200 OK\r\nX(: y\r\nContent-Length: 0\r\n\r\n"),
        ("a blank in a name", b"HTTP/1.1 200 OK\r\nX Y: z\r\nContent-Length: 0\r\n\r\n"),
        ("a high byte in a name", b"HTTP/1.1 200 OK\r\nX\xe9: z\r\nContent-Length: 0\r\n\r\n"),
        // RFC 9112 6.3 (3, 5).
        ("a coding and a length", {
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n"
        }),
        ("a length and a coding", {
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        }),
        (
            "lengths that differ",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        ),
        ("a list that differs", b"HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nok"),
        ("a length with a plus", b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok"),
        ("a length with a minus", b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok"),
        ("a hexadecimal length", b"HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\nok"),
        ("an empty length", b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nok"),
        ("a length of letters", b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok"),
        (
            "a length that overflows",
            b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551618\r\n\r\nok",
        ),
        ("gzip", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok"),
        ("gzip and chunked", {
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
        }),
        ("chunked twice", {
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
        }),
        ("chunked in two fields", {
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        }),
        ("identity", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nok"),
        ("xchunked", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
        // RFC 9112 6.1: a coding in HTTP/1.0 is faulty framing.
        ("a coding in HTTP/1.0", {
            b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
        }),
        // RFC 9110 15.2.2: nobody asked.
        ("101 unasked", {
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        }),
    ];
    let mut cases: Vec<AnswerCase> =
        bad.iter().map(|(name, answer)| answered(name, answer, Bad)).collect();
    let large =
        format!("HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 0\r\n\r\n", "y".repeat(600_000));
    cases.push(answered("a head beyond any limit", large, Bad));
    // Not to be repeated, so that one exchange is seen: a POST.
    let post = "POST /~ HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx";
    for (name, part) in [
        ("closed before the head", ""),
        ("closed inside the status line", "HTTP/1.1 20"),
        ("closed inside the head", "HTTP/1.1 200 OK\r\nContent-Le"),
        ("closed before the empty line", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n"),
        ("closed after an interim answer", "HTTP/1.1 103 Early Hints\r\n\r\n"),
    ] {
        cases.push(asked(name, post, part, Then::Close, Bad));
    }
    run_answers(&cases, &[]);
}

#[test]
fn an_odd_answer_is_passed_on_well_formed() {
    let ok = || Shown(b"200\nContent-Length: 2\n\nok".to_vec());
    let cases = [
        // RFC 9112 4: the reason may be empty, and is not to be relied on.
        answered("an empty reason", b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok", ok()),
        answered("neither reason nor space", b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", ok()),
        answered(
            "a high byte in the reason",
            b"HTTP/1.1 200 \xe9\r\nContent-Length: 2\r\n\r\nok",
            ok(),
        ),
        // RFC 9112 5.1: a proxy removes it from a response.
        answered(
            "a space before a colon",
            b"HTTP/1.1 200 OK\r\nX : y\r\nContent-Length: 2\r\n\r\nok",
            Shown(b"200\nContent-Length: 2\nX: y\n\nok".to_vec()),
        ),
        answered(
            "lengths that agree",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
            ok(),
        ),
        answered(
            "a list of lengths that agree",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
            ok(),
        ),
        answered(
            "Chunked in another case",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: CHUNKED\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            Shown(b"200\nTransfer-Encoding: chunked\n\nok".to_vec()),
        ),
        answered("status 599", b"HTTP/1.1 599 X\r\nContent-Length: 2\r\n\r\nno", {
            Shown(b"599\nContent-Length: 2\n\nno".to_vec())
        }),
        answered("no body", b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", {
            Shown(b"404\n\n".to_vec())
        }),
        // RFC 9112 9.3: HTTP/1.0 does not keep its connection unless it says so.
        answered("HTTP/1.0 with a length", b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", {
            ShownOnce(b"200\nContent-Length: 2\n\nok".to_vec())
        }),
        answered(
            "HTTP/1.0 that keeps alive",
            b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
            ok(),
        ),
        // RFC 9112 6.3: what follows the answer is nobody's.
        answered(
            "surplus bytes",
            {
                b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
            },
            ShownOnce(b"200\nContent-Length: 2\n\nok".to_vec()),
        ),
        answered(
            "surplus after the last chunk",
            {
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"
            },
            ShownOnce(b"200\nTransfer-Encoding: chunked\n\nok".to_vec()),
        ),
    ];
    run_answers(&cases, &[]);
}

#[test]
fn an_answer_that_has_no_body_gets_none() {
    // RFC 9112 6.3 (1); RFC 9110 8.6: a length on HEAD and 304 tells of another answer.
    let head = "HEAD /~ HTTP/1.1\r\nHost: a\r\n\r\n";
    let to_head = |name, answer: &[u8], told| asked(name, head, answer, Then::GoOn, told);
    let cases = [
        answered(
            "204",
            b"HTTP/1.1 204 No Content\r\nX: y\r\n\r\n",
            Shown(b"204\nX: y\n\n".to_vec()),
        ),
        answered(
            "204 with a length of nought",
            b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
            Shown(b"204\n\n".to_vec()),
        ),
        answered("204 with a body", b"HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nevil", {
            ShownOnce(b"204\n\n".to_vec())
        }),
        answered(
            "204 with chunks",
            {
                b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n"
            },
            ShownOnce(b"204\n\n".to_vec()),
        ),
        answered("205", b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n", {
            Shown(b"205\n\n".to_vec())
        }),
        answered("304", b"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n", {
            Shown(b"304\nETag: \"x\"\n\n".to_vec())
        }),
        answered(
            "304 with a length",
            b"HTTP/1.1 304 Not Modified\r\nContent-Length: 77\r\n\r\n",
            Shown(b"304\nContent-Length: 77\n\n".to_vec()),
        ),
        answered(
            "304 with a coding",
            b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n",
            Shown(b"304\n\n".to_vec()),
        ),
        answered(
            "304 with a body",
            b"HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nevil",
            ShownOnce(b"304\nContent-Length: 4\n\n".to_vec()),
        ),
        to_head("HEAD with a length", b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n", {
            Shown(b"200\nContent-Length: 1234\n\n".to_vec())
        }),
        to_head(
            "HEAD without a length",
            b"HTTP/1.1 200 OK\r\nX: y\r\n\r\n",
            Shown(b"200\nX: y\n\n".to_vec()),
        ),
        to_head("HEAD with a coding", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", {
            Shown(b"200\n\n".to_vec())
        }),
        to_head("HEAD with a body", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", {
            ShownOnce(b"200\nContent-Length: 4\n\n".to_vec())
        }),
        to_head(
            "HEAD of what is not there",
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\n",
            Shown(b"404\nContent-Length: 9\n\n".to_vec()),
        ),
    ];
    run_answers(&cases, &[]);
}
