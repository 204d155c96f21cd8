//! HTTP/1.1 as it is on the wire, read strictly and written in one way only (RFC 9110, RFC 9112).
//! Pure: bytes in, meaning or bytes out; no I/O and no clock.
//!
//! What two readers could understand differently is refused here, before anything is forwarded:
//! that is what keeps one client's bytes from becoming another's request.

pub mod answer;
pub mod auth;
pub mod body;
pub mod chunked;
pub mod field;
pub mod forwarded;
#[cfg(test)]
mod generated;
pub mod head;
pub mod request;

use head::Span;

/// How the body of a message is delimited (RFC 9112 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    None,
    /// So many bytes.
    Length(u64),
    /// Chunks, the last one of size zero.
    Chunked,
    /// Whatever comes until the connection ends: answers only.
    UntilClose,
}

/// What the `Connection` fields of a message say (RFC 9110 7.6.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The connection ends after this message.
    pub close: bool,
    /// It goes on: of meaning in HTTP/1.0 only.
    pub keep_alive: bool,
    /// `Upgrade` is meant for the next hop.
    pub upgrade: bool,
    /// Fields that do not cross, besides those that never do.
    named: Vec<Span>,
}

// === impl Options ===

impl Options {
    /// Takes one `Connection` field in.
    fn read(&mut self, head: &[u8], value: Span) {
        let mut start = value.start();
        for option in value.of(head).split(|byte| *byte == b',') {
            let end = start + option.len();
            let option = Span::trimmed(head, start, end);
            start = end + 1;
            match option.of(head) {
                b"" => {}
                name if name.eq_ignore_ascii_case(b"close") => self.close = true,
                name if name.eq_ignore_ascii_case(b"keep-alive") => self.keep_alive = true,
                name if name.eq_ignore_ascii_case(b"upgrade") => self.upgrade = true,
                _ => self.named.push(option),
            }
        }
    }

    /// Makes it as new, keeping its memory.
    fn clear(&mut self) {
        self.named.clear();
        (self.close, self.keep_alive, self.upgrade) = (false, false, false);
    }

    /// Whether a field of this name stays behind because it is named here.
    pub fn names(&self, head: &[u8], name: &[u8]) -> bool {
        self.named.iter().any(|named| named.of(head).eq_ignore_ascii_case(name))
    }
}

/// The length that `Content-Length` fields tell so far, `known`, and one more value of them.
/// Several that agree are one (RFC 9110 8.6). `None` where they do not, or where one is not plainly
/// digits: no sign, no `0x`, nothing that is beyond 64 bits.
fn content_length(known: Option<u64>, value: &[u8]) -> Option<u64> {
    let mut length = known;
    for part in value.split(|byte| *byte == b',') {
        let digits = part.trim_ascii();
        if digits.is_empty() || digits.len() > 19 || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let told = digits.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
        if length.is_some_and(|length| length != told) {
            return None;
        }
        length = Some(told);
    }
    length
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lengths_are_plain_digits_that_agree() {
        for (known, value, length) in [
            (None, "0", Some(0)),
            (None, "007", Some(7)),
            (None, "5, 5", Some(5)),
            (Some(5), "5", Some(5)),
            (None, "9999999999999999999", Some(9_999_999_999_999_999_999)),
            (Some(5), "6", None),
            (None, "5,6", None),
            (None, "", None),
            (None, "5,", None),
            (None, "+5", None),
            (None, "-5", None),
            (None, "0x5", None),
            (None, "5 5", None),
            (None, "5.0", None),
            (None, "18446744073709551616", None),
        ] {
            assert_eq!(content_length(known, value.as_bytes()), length, "{known:?} {value:?}");
        }
    }

    #[test]
    fn options_are_words_of_any_case_and_the_rest_names_fields() {
        let head = b"x: Close , X-One,,keep-ALIVE,\tupgrade, x-two";
        let mut options = Options::default();
        options.read(head, Span::trimmed(head, 2, head.len()));
        assert!(options.close && options.keep_alive && options.upgrade);
        assert!(options.names(head, b"x-one") && options.names(head, b"X-TWO"));
        assert!(!options.names(head, b"close") && !options.names(head, b"x"));
    }

    /// The same in the simplest way.
    fn naive(known: Option<u64>, value: &str) -> Option<u64> {
        let mut all = Vec::from_iter(known);
        for part in value.split(',') {
            let digits = part.trim_matches([' ', '\t']);
            let plain = !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit());
            all.push(digits.parse().ok().filter(|_| plain && digits.len() <= 19)?);
        }
        all.iter().all(|length| *length == all[0]).then_some(all[0])
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn lengths_are_as_a_naive_reader_has_them(
            known in proptest::option::of(0..3_u64),
            value in "([0-2]|[0-9]{17,21}|[,+x\t -]| *5 *,){0,4}",
            length: u64,
        ) {
            prop_assert_eq!(content_length(known, value.as_bytes()), naive(known, &value));
            let told = length / 2;
            prop_assert_eq!(content_length(None, told.to_string().as_bytes()), Some(told));
            let twice = format!("{told} ,\t{told}");
            prop_assert_eq!(content_length(None, twice.as_bytes()), Some(told));
        }
    }
}
