//! Where a request's body ends: whatever two readers could cut differently is refused.

use super::table::Expect::{Forwarded, Last, Refused};
use super::table::{Case, case, run};

/// A POST with these field lines and a body that suits most of them.
fn with(fields: &[u8]) -> Vec<u8> {
    with_body(fields, b"hello")
}

fn with_body(fields: &[u8], body: &[u8]) -> Vec<u8> {
    [b"POST /~ HTTP/1.1\r\nHost: a\r\n", fields, b"\r\n\r\n", body].concat()
}

#[test]
fn a_content_length_is_one_plain_number_or_the_request_is_refused() {
    // RFC 9112 6.3 (5): an invalid Content-Length in a request is answered with 400.
    let refused: &[(&str, &[u8])] = &[
        ("two that differ", b"Content-Length: 5\r\nContent-Length: 6"),
        ("two that differ, the shorter last", b"Content-Length: 6\r\nContent-Length: 5"),
        ("two that differ, names in other case", b"content-length: 5\r\nCONTENT-LENGTH: 0"),
        ("three, the last differs", b"Content-Length: 5\r\nContent-Length: 5\r\nContent-Length: 4"),
        ("a list that differs", b"Content-Length: 5, 6"),
        ("a list with an empty member", b"Content-Length: 5,"),
        ("a list with a leading comma", b"Content-Length: ,5"),
        ("a plus", b"Content-Length: +5"),
        ("a minus", b"Content-Length: -5"),
        ("minus nought", b"Content-Length: -0"),
        ("hexadecimal", b"Content-Length: 0x5"),
        ("empty", b"Content-Length:"),
        ("only spaces", b"Content-Length:   "),
        ("a space inside", b"Content-Length: 5 5"),
        ("a fraction", b"Content-Length: 5.0"),
        ("an exponent", b"Content-Length: 5e0"),
        ("an underscore", b"Content-Length: 1_0"),
        ("beyond 64 bits", b"Content-Length: 18446744073709551621"),
        ("far beyond 64 bits", b"Content-Length: 99999999999999999999999999999999999999"),
        ("letters", b"Content-Length: five"),
        ("a digit and a letter", b"Content-Length: 5a"),
        ("quoted", b"Content-Length: \"5\""),
        ("digits of another script", b"Content-Length: \xd9\xa5"),
        ("a vertical tab before it", b"Content-Length: \x0b5"),
        ("a form feed after it", b"Content-Length: 5\x0c"),
        ("NUL after it", b"Content-Length: 5\x00"),
        ("a no-break space before it", b"Content-Length: \xa05"),
        ("one that lies in a folded line", b"Content-Length:\r\n 5"),
        ("one in a list that overflows", b"Content-Length: 5, 18446744073709551621"),
    ];
    let mut cases: Vec<Case> =
        refused.iter().map(|(name, fields)| case(name, with(fields), Refused(400))).collect();
    let five = || Forwarded(b"POST /~ HTTP/1.1\nHost: a\nContent-Length: 5\n\nhello".to_vec());
    let accepted: &[(&str, &[u8])] = &[
        ("one", b"Content-Length: 5"),
        // RFC 9112 6.3 (5): equal ones may be taken as one, and go on as one.
        ("two that agree", b"Content-Length: 5\r\nContent-Length: 5"),
        ("a list that agrees", b"Content-Length: 5, 5"),
        ("a list that agrees without a space", b"Content-Length: 5,5"),
        ("no space before it", b"Content-Length:5"),
        ("tabs and spaces around it", b"Content-Length: \t 5 \t"),
        ("its name in lower case", b"content-length: 5"),
    ];
    cases.extend(accepted.iter().map(|(name, fields)| case(name, with(fields), five())));
    let empty = || Forwarded(b"POST /~ HTTP/1.1\nHost: a\n\n".to_vec());
    cases.push(case("nought", with_body(b"Content-Length: 0", b""), empty()));
    cases.push(case("none on a POST is no body", with_body(b"X: y", b""), {
        Forwarded(b"POST /~ HTTP/1.1\nHost: a\nX: y\n\n".to_vec())
    }));
    cases.push(case(
        "a GET with a body",
        b"GET /~ HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        Forwarded(b"GET /~ HTTP/1.1\nHost: a\nContent-Length: 5\n\nhello".to_vec()),
    ));
    run(&cases, &[]);
}

#[test]
fn a_transfer_encoding_is_exactly_chunked_or_the_request_is_refused() {
    // RFC 9112 6.1, 6.3 (4): what is not known to end in chunked once has no reliable end.
    let refused: &[(&str, &[u8])] = &[
        ("a trailing comma", b"Transfer-Encoding: chunked,"),
        ("a leading comma", b"Transfer-Encoding: ,chunked"),
        ("twice in a list", b"Transfer-Encoding: chunked, chunked"),
        ("two fields", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
        ("two fields, one identity", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"),
        ("two fields, one empty", b"Transfer-Encoding: chunked\r\nTransfer-Encoding:"),
        ("two fields, gzip first", b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked"),
        ("identity", b"Transfer-Encoding: identity"),
        ("identity and chunked", b"Transfer-Encoding: identity, chunked"),
        ("gzip before it", b"Transfer-Encoding: gzip, chunked"),
        ("gzip after it", b"Transfer-Encoding: chunked, gzip"),
        ("gzip alone", b"Transfer-Encoding: gzip"),
        ("quoted", b"Transfer-Encoding: \"chunked\""),
        ("a parameter", b"Transfer-Encoding: chunked;q=1"),
        ("a semicolon", b"Transfer-Encoding: chunked;"),
        ("xchunked", b"Transfer-Encoding: xchunked"),
        ("chunkedx", b"Transfer-Encoding: chunkedx"),
        ("chunk", b"Transfer-Encoding: chunk"),
        ("a space inside", b"Transfer-Encoding: chun ked"),
        ("a vertical tab before it", b"Transfer-Encoding: \x0bchunked"),
        ("a form feed after it", b"Transfer-Encoding: chunked\x0c"),
        ("NUL after it", b"Transfer-Encoding: chunked\x00"),
        ("a bare CR before it", b"Transfer-Encoding: \rchunked"),
        ("folded", b"Transfer-Encoding:\r\n chunked"),
        ("folded with a tab", b"Transfer-Encoding:\r\n\tchunked"),
        ("empty", b"Transfer-Encoding:"),
        ("a no-break space before it", b"Transfer-Encoding: \xa0chunked"),
        ("the Kelvin sign for k", b"Transfer-Encoding: chun\xe2\x84\xaaed"),
        ("a space before the colon", b"Transfer-Encoding : chunked"),
        ("a NUL in its name", b"Transfer\x00-Encoding: chunked"),
        // RFC 9112 6.1: both are an attempt to smuggle.
        ("a Content-Length before it", b"Content-Length: 5\r\nTransfer-Encoding: chunked"),
        ("a Content-Length after it", b"Transfer-Encoding: chunked\r\nContent-Length: 5"),
        ("a Content-Length of nought", b"Transfer-Encoding: chunked\r\nContent-Length: 0"),
        ("a Content-Length with identity", b"Transfer-Encoding: identity\r\nContent-Length: 5"),
        ("a Content-Length and an odd coding", b"Content-Length: 5\r\nTransfer-Encoding: xchunked"),
    ];
    let chunks = b"5\r\nhello\r\n0\r\n\r\n";
    let mut cases: Vec<Case> = refused
        .iter()
        .map(|(name, fields)| case(name, with_body(fields, chunks), Refused(400)))
        .collect();
    let accepted: &[(&str, &[u8])] = &[
        ("chunked", b"Transfer-Encoding: chunked"),
        ("upper case", b"Transfer-Encoding: CHUNKED"),
        ("mixed case", b"transfer-encoding: ChunKed"),
        ("a tab before it", b"Transfer-Encoding:\tchunked"),
        ("blanks after it", b"Transfer-Encoding: chunked \t "),
        // RFC 9110 7.6.1: naming it in Connection must not take the framing away.
        ("named in Connection", b"Connection: transfer-encoding\r\nTransfer-Encoding: chunked"),
    ];
    let hello =
        || Forwarded(b"POST /~ HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n\nhello".to_vec());
    cases.extend(
        accepted.iter().map(|(name, fields)| case(name, with_body(fields, chunks), hello())),
    );
    run(&cases, &[]);
}

#[test]
fn http_1_0_knows_lengths_and_no_codings() {
    // RFC 9112 6.1: a Transfer-Encoding in HTTP/1.0 is faulty framing.
    let cases = [
        case(
            "chunked in HTTP/1.0",
            b"POST /~ HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            Refused(400),
        ),
        case(
            "chunked and a length in HTTP/1.0",
            b"POST /~ HTTP/1.0\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello",
            Refused(400),
        ),
        case(
            "identity in HTTP/1.0",
            b"POST /~ HTTP/1.0\r\nTransfer-Encoding: identity\r\n\r\n",
            Refused(400),
        ),
        case(
            "lengths that differ in HTTP/1.0",
            b"POST /~ HTTP/1.0\r\nContent-Length: 5\r\nContent-Length: 4\r\n\r\nhello",
            Refused(400),
        ),
        case(
            "a length in HTTP/1.0",
            b"POST /~ HTTP/1.0\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
            Last(b"POST /~ HTTP/1.1\nHost: a\nContent-Length: 5\n\nhello".to_vec()),
        ),
        // RFC 9112 6.3 (7): a request without framing has no body.
        case(
            "no length in HTTP/1.0",
            b"POST /~ HTTP/1.0\r\nHost: a\r\n\r\n",
            Last(b"POST /~ HTTP/1.1\nHost: a\n\n".to_vec()),
        ),
    ];
    run(&cases, &[]);
}
