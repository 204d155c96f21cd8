//! What the tests of these modules read: heads that are good, heads that are nearly good, and both
//! in pieces.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::head::{BadHead, Head, HeadLimits, StartLine};

/// Limits that nothing generated here is beyond.
pub(super) const LIMITS: HeadLimits = HeadLimits { bytes: 16_384, fields: 64, target: 8_192 };

/// Where a message is cut, as shares of its length.
pub(super) fn cuts() -> impl Strategy<Value = Vec<Index>> {
    vec(any::<Index>(), 0..8)
}

/// The places where `length` bytes are cut, in order; the last is their end.
pub(super) fn ends(cuts: &[Index], length: usize) -> Vec<usize> {
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(length + 1)).collect();
    ends.push(length);
    ends.sort_unstable();
    ends
}

/// Reads a head of which more comes until each of `ends`.
pub(super) fn read<S: StartLine>(
    bytes: &[u8],
    ends: &[usize],
    limits: &HeadLimits,
) -> (Head<S>, Result<Option<usize>, BadHead>) {
    let mut head = Head::new();
    let mut last = Ok(None);
    for end in ends {
        last = head.parse(&bytes[..*end], limits);
        if last != Ok(None) {
            break;
        }
    }
    (head, last)
}

/// The fields of a head as text that can be compared.
pub(super) fn fields<S: StartLine>(head: &Head<S>, bytes: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let text =
        |line: &super::head::Line| (line.name.of(bytes).to_vec(), line.value.of(bytes).to_vec());
    head.lines().iter().map(text).collect()
}

/// A good field: its name and its value as they are to be read.
pub(super) fn field() -> impl Strategy<Value = (String, Vec<u8>)> {
    let known = select(vec![
        "Host",
        "Content-Length",
        "Transfer-Encoding",
        "Connection",
        "connection",
        "Upgrade",
        "Expect",
        "TE",
        "X-Request-Id",
        "X-Forwarded-For",
        "Max-Forwards",
        "Date",
        "Trailer",
    ]);
    let name = prop_oneof![known.prop_map(str::to_owned), "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,12}"];
    let known = select(vec![
        "",
        "0",
        "5",
        "5, 5",
        "chunked",
        "close",
        "keep-alive, x-a",
        "upgrade",
        "websocket",
        "100-continue",
        "trailers",
        "a.example:80",
        "10.0.0.1, ::1",
    ]);
    let inner = prop_oneof![Just(b'\t'), b' '..=b'~', 0x80..=0xff_u8];
    let any = vec(inner, 0..20).prop_map(|value| value.trim_ascii().to_vec());
    (name, prop_oneof![known.prop_map(|value| value.as_bytes().to_vec()), any])
}

/// Writes a head: blanks around each value are the writer's.
pub(super) fn written(start: &[u8], fields: &[(String, Vec<u8>)], blanks: &[&str; 2]) -> Vec<u8> {
    let mut head = start.to_vec();
    head.extend_from_slice(b"\r\n");
    for (name, value) in fields {
        head.extend_from_slice(name.as_bytes());
        head.push(b':');
        head.extend_from_slice(blanks[0].as_bytes());
        head.extend_from_slice(value);
        head.extend_from_slice(blanks[1].as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// White space before and after a value.
pub(super) fn blanks() -> impl Strategy<Value = [&'static str; 2]> {
    let one = || select(vec!["", " ", "\t", "  \t "]);
    (one(), one()).prop_map(|(before, after)| [before, after])
}

/// A change to bytes: one that is likely to matter to a reader.
#[derive(Clone, Debug)]
pub(super) enum Edit {
    Insert(Index, &'static [u8]),
    Replace(Index, &'static [u8]),
    Remove(Index),
}

/// A few changes.
pub(super) fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let likely: &[&[u8]] = &[
        b"\r",
        b"\n",
        b"\r\n",
        b"\r\n\r\n",
        b" ",
        b"\t",
        b":",
        b",",
        b"#",
        b"/",
        b"\0",
        b"\x0b",
        b"\x0c",
        b"\x7f",
        b"\x80",
        b"\xff",
        b"A",
        b"1",
        b"=",
        b"\"",
        b"\r\n ",
        b" :",
    ];
    let likely = move || select(likely);
    let edit = prop_oneof![
        (any::<Index>(), likely()).prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
        (any::<Index>(), likely()).prop_map(|(at, bytes)| Edit::Replace(at, bytes)),
        any::<Index>().prop_map(Edit::Remove),
    ];
    vec(edit, 0..4)
}

/// The bytes after these changes.
pub(super) fn edited(mut bytes: Vec<u8>, edits: &[Edit]) -> Vec<u8> {
    for edit in edits {
        let (at, removed, put) = match edit {
            Edit::Insert(at, put) => (at.index(bytes.len() + 1), 0, *put),
            Edit::Replace(at, put) => (at.index(bytes.len().max(1)), 1, *put),
            Edit::Remove(at) => (at.index(bytes.len().max(1)), 1, &b""[..]),
        };
        let end = (at + removed).min(bytes.len());
        bytes.splice(at.min(end)..end, put.iter().copied());
    }
    bytes
}
