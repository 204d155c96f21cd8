//! The field section of a request: bare line ends, folding, control bytes, names.

use super::table::Expect::{Forwarded, Refused};
use super::table::{Case, case, run};

#[test]
fn a_bad_field_section_is_refused() {
    let bad: &[(&str, &[u8])] = &[
        // RFC 9112 2.2: a lone LF is not taken for a line end here; a lone CR is invalid.
        ("LF after the request line", b"GET /~ HTTP/1.1\nHost: a\r\n\r\n"),
        ("LF after a field", b"GET /~ HTTP/1.1\r\nHost: a\nX: y\r\n\r\n"),
        ("LF at the end of the head", b"GET /~ HTTP/1.1\r\nHost: a\r\n\n"),
        ("LF twice at the end of the head", b"GET /~ HTTP/1.1\r\nHost: a\n\n"),
        ("LF everywhere", b"GET /~ HTTP/1.1\nHost: a\n\n"),
        ("CR in a value", b"GET /~ HTTP/1.1\r\nHost: a\r\nX: y\rz\r\n\r\n"),
        ("CR before CR LF", b"GET /~ HTTP/1.1\r\nHost: a\r\nX: y\r\r\n\r\n"),
        ("CR for a line end", b"GET /~ HTTP/1.1\r\nHost: a\rX: y\r\n\r\n"),
        ("CR before the last LF", b"GET /~ HTTP/1.1\r\nHost: a\r\n\r\r\n\r\n"),
        ("CR in a name", b"GET /~ HTTP/1.1\r\nHost: a\r\nX\rY: y\r\n\r\n"),
        // RFC 9112 5.1: 400 for whitespace before the colon.
        ("a space before the colon", b"GET /~ HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n"),
        ("a tab before the colon", b"GET /~ HTTP/1.1\r\nHost: a\r\nX\t: y\r\n\r\n"),
        // RFC 9110 5.1: a name is a token.
        ("no name", b"GET /~ HTTP/1.1\r\nHost: a\r\n: y\r\n\r\n"),
        ("no colon", b"GET /~ HTTP/1.1\r\nHost: a\r\nX\r\n\r\n"),
        ("a blank in a name", b"GET /~ HTTP/1.1\r\nHost: a\r\nX Y: z\r\n\r\n"),
        ("a parenthesis in a name", b"GET /~ HTTP/1.1\r\nHost: a\r\nX(: z\r\n\r\n"),
        ("a slash in a name", b"GET /~ HTTP/1.1\r\nHost: a\r\nX/Y: z\r\n\r\n"),
        ("a quote in a name", b"GET /~ HTTP/1.1\r\nHost: a\r\n\"X\": z\r\n\r\n"),
        ("a brace in a name", b"GET /~ HTTP/1.1\r\nHost: a\r\nX{}: z\r\n\r\n"),
        ("an at sign in a name", b"GET /~ HTTP/1.1\r\nHost: a\r\nX@Y: z\r\n\r\n"),
        ("a high byte in a name", b"GET /~ HTTP/1.1\r\nHost: a\r\nX\xe9: z\r\n\r\n"),
        ("a NUL in a name", b"GET /~ HTTP/1.1\r\nHost: a\r\nX\x00: z\r\n\r\n"),
        ("DEL in a name", b"GET /~ HTTP/1.1\r\nHost: a\r\nX\x7f: z\r\n\r\n"),
        // RFC 9112 5.2: 400 for a folded line.
        ("a folded line", b"GET /~ HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n"),
        ("a line folded with a tab", b"GET /~ HTTP/1.1\r\nHost: a\r\nX: y\r\n\tz\r\n\r\n"),
        ("a fold of blanks only", b"GET /~ HTTP/1.1\r\nHost: a\r\nX: y\r\n \r\n\r\n"),
        ("a fold after the Host", b"GET /~ HTTP/1.1\r\nHost: a\r\n .evil\r\n\r\n"),
        // RFC 9112 2.2: whitespace between the start line and the first field.
        ("a space after the request line", b"GET /~ HTTP/1.1\r\n Host: a\r\n\r\n"),
        ("a tab after the request line", b"GET /~ HTTP/1.1\r\n\tHost: a\r\n\r\n"),
        ("a folded line before the Host", b"GET /~ HTTP/1.1\r\n X: y\r\nHost: a\r\n\r\n"),
    ];
    let mut cases: Vec<Case> =
        bad.iter().map(|(name, send)| case(name, send, Refused(400))).collect();
    // RFC 9110 5.5: control bytes in a value are invalid. Tab, CR and LF are other cases.
    for byte in (0..0x20).chain([0x7f]).filter(|byte| ![b'\t', b'\n', b'\r'].contains(byte)) {
        let send = [&b"GET /~ HTTP/1.1\r\nHost: a\r\nX: y"[..], &[byte], b"z\r\n\r\n"].concat();
        cases.push(case(&format!("{byte:#04x} in a value"), send, Refused(400)));
    }
    run(&cases, &[]);
}

#[test]
fn fields_cross_in_order_and_byte_for_byte() {
    let good: &[(&str, &[u8], &[u8])] = &[
        ("order", b"X-B: 1\r\nX-A: 2\r\nX-C: 3", b"X-B: 1\nX-A: 2\nX-C: 3"),
        ("duplicates", b"X: 1\r\nY: 2\r\nX: 3\r\nx: 1", b"X: 1\nY: 2\nX: 3\nx: 1"),
        ("case of names", b"x-LOWER-Upper: 1", b"x-LOWER-Upper: 1"),
        ("any token is a name", b"!#$%&'*+-.^_`|09: 1", b"!#$%&'*+-.^_`|09: 1"),
        ("an underscore in a name", b"X_Y: 1", b"X_Y: 1"),
        ("obs-text", b"X: caf\xe9 \x80\xff", b"X: caf\xe9 \x80\xff"),
        ("UTF-8", b"X: \xe2\x82\xac", b"X: \xe2\x82\xac"),
        ("a tab inside a value", b"X: a\tb", b"X: a\tb"),
        ("blanks inside a value", b"X: a   b", b"X: a   b"),
        ("blanks around a value", b"X: \t a \t ", b"X: a"),
        ("no space before a value", b"X:a", b"X: a"),
        ("an empty value", b"X:", b"X: "),
        ("a value of blanks", b"X: \t ", b"X: "),
        ("a colon in a value", b"X: :a:b", b"X: :a:b"),
        ("quotes and commas", b"X: \"a, b\", c;d=\"\\\"\"", b"X: \"a, b\", c;d=\"\\\"\""),
        ("many cookies", b"Cookie: a=1\r\nCookie: b=2", b"Cookie: a=1\nCookie: b=2"),
        ("Range and If-Match", b"Range: bytes=0-1\r\nIf-Match: \"x\"", {
            b"Range: bytes=0-1\nIf-Match: \"x\""
        }),
        ("Authorization", b"Authorization: Basic YTpi", b"Authorization: Basic YTpi"),
        // RFC 9110 7.6.2: it counts for TRACE and OPTIONS only.
        ("Max-Forwards on a GET", b"Max-Forwards: 5", b"Max-Forwards: 5"),
    ];
    let cases: Vec<Case> = good
        .iter()
        .map(|(name, fields, seen)| {
            let send = [b"GET /~ HTTP/1.1\r\nHost: a\r\n", *fields, b"\r\n\r\n"].concat();
            let seen = [b"GET /~ HTTP/1.1\nHost: a\n", *seen, b"\n\n"].concat();
            case(name, send, Forwarded(seen))
        })
        .collect();
    run(&cases, &[]);
}
