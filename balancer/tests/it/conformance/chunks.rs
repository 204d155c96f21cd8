//! Chunked requests (RFC 9112 7.1): good ones cross as content, broken ones are never whole.

use super::table::Expect::{Forwarded, Spoilt};
use super::table::{Case, case, run};

fn with(chunks: &[u8]) -> Vec<u8> {
    let head = b"POST /~ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    [&head[..], chunks].concat()
}

#[test]
fn a_broken_chunk_is_the_clients_fault_and_never_whole_at_the_replica() {
    let spoilt: &[(&str, &[u8])] = &[
        ("no size", b"\r\nhello\r\n0\r\n\r\n"),
        ("only an extension", b";a=b\r\nhello\r\n0\r\n\r\n"),
        ("a plus", b"+5\r\nhello\r\n0\r\n\r\n"),
        ("a minus", b"-5\r\nhello\r\n0\r\n\r\n"),
        ("minus nought", b"5\r\nhello\r\n-0\r\n\r\n"),
        ("0x", b"0x5\r\nhello\r\n0\r\n\r\n"),
        ("a leading space", b" 5\r\nhello\r\n0\r\n\r\n"),
        ("a leading tab", b"\t5\r\nhello\r\n0\r\n\r\n"),
        ("a trailing space", b"5 \r\nhello\r\n0\r\n\r\n"),
        ("a space inside", b"5 5\r\nhello\r\n0\r\n\r\n"),
        ("no hexadecimal digit", b"g\r\nhello\r\n0\r\n\r\n"),
        ("a comma", b"5,\r\nhello\r\n0\r\n\r\n"),
        ("a NUL", b"5\x00\r\nhello\r\n0\r\n\r\n"),
        // 2^64 and more: taken modulo 2^64 these would be 0 and 5.
        ("17 digits that wrap to nought", b"10000000000000000\r\nhello\r\n0\r\n\r\n"),
        ("17 digits that wrap to five", b"10000000000000005\r\nhello\r\n0\r\n\r\n"),
        ("40 digits", b"ffffffffffffffffffffffffffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
        ("a bare LF after the size", b"5\nhello\r\n0\r\n\r\n"),
        ("a bare CR after the size", b"5\rhello\r\n0\r\n\r\n"),
        ("CR CR LF after the size", b"5\r\r\nhello\r\n0\r\n\r\n"),
        ("a bare LF after the data", b"5\r\nhello\n0\r\n\r\n"),
        ("a bare CR after the data", b"5\r\nhello\r0\r\n\r\n"),
        ("nothing after the data", b"5\r\nhello0\r\n\r\n"),
        ("data longer than announced", b"4\r\nhello\r\n0\r\n\r\n"),
        ("data shorter than announced", b"6\r\nhello\r\n0\r\n\r\n"),
        ("data much shorter than announced", b"8\r\nhello\r\n0\r\n\r\n"),
        ("a second chunk that is broken", b"5\r\nhello\r\nx\r\n0\r\n\r\n"),
        ("an LF in an extension", b"5;a\nb\r\nhello\r\n0\r\n\r\n"),
        ("a bare CR in an extension", b"5;a\rb\r\nhello\r\n0\r\n\r\n"),
        ("a NUL in an extension", b"5;a=\x00\r\nhello\r\n0\r\n\r\n"),
        ("DEL in an extension", b"5;a=\x7f\r\nhello\r\n0\r\n\r\n"),
        ("ESC in an extension", b"5;\x1b\r\nhello\r\n0\r\n\r\n"),
        ("a bare LF after the last size", b"5\r\nhello\r\n0\n\r\n"),
        ("a bare LF at the very end", b"5\r\nhello\r\n0\r\n\n"),
        ("a bare CR at the very end", b"5\r\nhello\r\n0\r\n\rx\r\n\r\n"),
        ("a bare LF after a trailer", b"5\r\nhello\r\n0\r\nX-T: 1\n\r\n"),
        ("a bare CR in a trailer", b"5\r\nhello\r\n0\r\nX-T: 1\rX: 2\r\n\r\n"),
        ("a trailer without a colon", b"5\r\nhello\r\n0\r\nX-T\r\n\r\n"),
        ("a trailer with a space in its name", b"5\r\nhello\r\n0\r\nX T: 1\r\n\r\n"),
        ("a trailer with a space before its colon", b"5\r\nhello\r\n0\r\nX-T : 1\r\n\r\n"),
        ("a trailer without a name", b"5\r\nhello\r\n0\r\n: 1\r\n\r\n"),
        ("a folded trailer", b"5\r\nhello\r\n0\r\nX-T: 1\r\n 2\r\n\r\n"),
        ("a NUL in a trailer", b"5\r\nhello\r\n0\r\nX-T: \x00\r\n\r\n"),
        ("a request line where trailers are", b"0\r\nGET /evil HTTP/1.1\r\nHost: a\r\n\r\n"),
    ];
    let cases: Vec<Case> =
        spoilt.iter().map(|(name, chunks)| case(name, with(chunks), Spoilt)).collect();
    run(&cases, &[]);
}

#[test]
fn good_chunks_cross_without_extensions_and_with_harmless_trailers() {
    let good: &[(&str, &[u8], &[u8])] = &[
        ("none but the last", b"0\r\n\r\n", b""),
        ("one", b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
        ("three", b"2\r\nhe\r\n1\r\nl\r\n2\r\nlo\r\n0\r\n\r\n", b"hello"),
        ("leading noughts", b"00005\r\nhello\r\n0\r\n\r\n", b"hello"),
        ("noughts for the last", b"5\r\nhello\r\n000\r\n\r\n", b"hello"),
        ("lower case", b"a\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
        ("upper case", b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
        ("CR LF as data", b"4\r\n\r\n\r\n\r\n0\r\n\r\n", b"\r\n\r\n"),
        ("what looks like the last as data", b"5\r\n0\r\n\r\n\r\n0\r\n\r\n", b"0\r\n\r\n"),
        ("NUL and high bytes as data", b"3\r\n\x00\xff\n\r\n0\r\n\r\n", b"\x00\xff\n"),
        // RFC 9112 7.1.1: extensions are of one connection.
        ("an empty extension", b"5;\r\nhello\r\n0\r\n\r\n", b"hello"),
        ("an extension", b"5;a=b\r\nhello\r\n0;c\r\n\r\n", b"hello"),
        ("a quoted extension", b"5;a=\"b;c\"\r\nhello\r\n0\r\n\r\n", b"hello"),
        ("blanks before an extension", b"5 \t;a\r\nhello\r\n0\r\n\r\n", b"hello"),
        // RFC 9110 6.5.1: what frames, routes or is of one connection is no trailer.
        ("a trailer", b"5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n", b"hello\nX-T: 1"),
        ("two trailers", b"5\r\nhello\r\n0\r\nX-T: 1\r\nx-u:2\r\n\r\n", b"hello\nX-T: 1\nx-u: 2"),
        ("a length as trailer", b"5\r\nhello\r\n0\r\nContent-Length: 9\r\n\r\n", b"hello"),
        ("a coding as trailer", b"5\r\nhello\r\n0\r\nTransfer-Encoding: x\r\n\r\n", b"hello"),
        ("a Host as trailer", b"5\r\nhello\r\n0\r\nHost: evil\r\nX-T: 1\r\n\r\n", b"hello\nX-T: 1"),
        (
            "hop-by-hop trailers",
            {
                b"5\r\nhello\r\n0\r\nConnection: close\r\nKeep-Alive: 1\r\nTE: gzip\r\nUpgrade: x\r\n\r\n"
            },
            b"hello",
        ),
        (
            "a forwarded-for as trailer",
            b"5\r\nhello\r\n0\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n",
            b"hello",
        ),
    ];
    let cases: Vec<Case> = good
        .iter()
        .map(|(name, chunks, seen)| {
            let head = b"POST /~ HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n\n";
            case(name, with(chunks), Forwarded([&head[..], seen].concat()))
        })
        .collect();
    run(&cases, &[]);
}
