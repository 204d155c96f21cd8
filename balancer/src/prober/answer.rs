//! The response to a health check. Pure: bytes in, verdict out.
//!
//! The head decides. A body that follows is only of interest to a connection that is used again:
//! it has to be read first, and is where it is short ([`Rest`]).

use super::ProbeError;
use crate::http1::Framing;
use crate::http1::answer::{Answer, StatusLine};
use crate::http1::body::Body;
use crate::http1::chunked::Next;
use crate::http1::head::{Head, HeadLimits};

/// Maximum number of body bytes that are read for the sake of the connection.
const BODY_MAX: usize = 64 << 10;

/// Maximum number of interim responses (RFC 9110 15.2); the request asks for none.
const INTERIM_MAX: u32 = 8;

/// As many fields as fit: how many there are says nothing about a replica's health.
const LIMITS: HeadLimits = HeadLimits { bytes: 16 << 10, fields: 10_000, target: 0 };

/// A response whose head is being read.
#[derive(Debug, Default)]
pub(super) struct Reading {
    head: Head<StatusLine>,
    answer: Answer,
    interim: u32,
    began: bool,
}

/// A connection after a good response.
#[derive(Debug)]
pub(super) enum After {
    /// It cannot be used again, or not soon.
    Close,
    /// It can be used again once the rest of the body was read.
    Keep(Rest),
}

/// The rest of a body, and the bytes after the head that have come.
#[derive(Debug)]
pub(super) struct Rest {
    body: Body,
    input: Vec<u8>,
    content: usize,
}

// === impl Reading ===

impl Reading {
    /// Takes `input`, which is what the last call left and what has come since. Returns what
    /// becomes of the connection once the head of the final response is complete and good; the
    /// bytes after the head are taken out of `input` then.
    ///
    /// # Errors
    /// [`ProbeError`], as soon as it is certain.
    pub(super) fn read(&mut self, input: &mut Vec<u8>) -> Result<Option<After>, ProbeError> {
        self.began |= !input.is_empty();
        loop {
            let Some(length) = self.head.parse(input, &LIMITS)? else { return Ok(None) };
            self.answer.read(&self.head, &input[..length], false)?;
            input.drain(..length);
            if !self.answer.is_interim() {
                break;
            }
            self.head.clear();
            self.interim += 1;
            if self.interim > INTERIM_MAX {
                return Err(ProbeError::Interim);
            }
        }
        let Answer { status, framing, keeps, .. } = self.answer;
        if !(200..300).contains(&status) {
            return Err(ProbeError::Status(status));
        }
        let is_short = match framing {
            Framing::None | Framing::Chunked => true,
            Framing::Length(length) => length <= BODY_MAX as u64,
            Framing::UntilClose => false,
        };
        if !keeps || !is_short {
            return Ok(Some(After::Close));
        }
        let input = std::mem::take(input);
        let mut rest = Rest { body: Body::new(framing), input, content: 0 };
        // Most bodies have come with their heads, and need no memory until the next check.
        let usable = rest.read() != Some(false);
        Ok(Some(if usable { After::Keep(rest) } else { After::Close }))
    }

    /// Returns the error of a connection that ended before the head was complete.
    pub(super) fn broken(&self) -> ProbeError {
        if self.began { ProbeError::Cut } else { ProbeError::Closed }
    }
}

// === impl Rest ===

impl Rest {
    /// The buffer to which what comes on the connection is appended.
    pub(super) fn input(&mut self) -> &mut Vec<u8> {
        &mut self.input
    }

    /// Reads what has come. Returns whether the connection can be used again; `None` as long as
    /// that depends on bytes that have not come yet.
    pub(super) fn read(&mut self) -> Option<bool> {
        let mut at = 0;
        loop {
            match self.body.next(&self.input[at..]) {
                Ok(Next::Content { skip, length }) => {
                    self.content += length;
                    if self.content > BODY_MAX {
                        return Some(false);
                    }
                    self.body.taken(length);
                    at += skip + length;
                }
                Ok(Next::More) => {
                    self.input.clear();
                    return None;
                }
                Ok(Next::End { skip }) => {
                    // Bytes after the response are a response to no request.
                    let alone = at + skip == self.input.len();
                    if !alone || self.body.check_trailers().is_err() {
                        return Some(false);
                    }
                    (self.input, self.body) = (Vec::new(), Body::new(Framing::None));
                    return Some(true);
                }
                Err(_bad_chunk) => return Some(false),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::answer::BadAnswer;
    use crate::http1::head::BadHead;

    /// Whether the connection can be used again after a response that comes in these pieces and
    /// then ends, where it is good.
    fn judge<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<bool, ProbeError> {
        let (mut reading, mut input) = (Reading::default(), Vec::new());
        let mut pieces = pieces.into_iter();
        let after = loop {
            let Some(piece) = pieces.next() else { return Err(reading.broken()) };
            input.extend_from_slice(piece);
            if let Some(after) = reading.read(&mut input)? {
                break after;
            }
        };
        let After::Keep(mut rest) = after else { return Ok(false) };
        loop {
            if let Some(usable) = rest.read() {
                return Ok(usable && pieces.next().is_none());
            }
            let Some(piece) = pieces.next() else { return Ok(false) };
            rest.input().extend_from_slice(piece);
        }
    }

    #[test]
    fn a_response_is_judged_by_its_head_in_whatever_pieces_it_comes() {
        let chunked = "HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n";
        let cases: [(String, Result<bool, ProbeError>); 22] = [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".into(), Ok(true)),
            ("HTTP/1.1 299 OK\r\nContent-Length: 0\r\n\r\n".into(), Ok(true)),
            ("HTTP/1.1 204 No Content\r\n\r\n".into(), Ok(true)),
            ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".into(), Ok(false)),
            ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n".into(), Ok(false)),
            // Without a length, however long it goes on.
            ("HTTP/1.1 200 OK\r\n\r\n".into(), Ok(false)),
            ("HTTP/1.1 200 OK\r\n\r\nto the end".into(), Ok(false)),
            // Cut off, too large or malformed after a good head.
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok".into(), Ok(false)),
            ("HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n".into(), Ok(false)),
            (format!("{chunked}1\r\na\r\n0\r\n\r\n"), Ok(true)),
            (format!("{chunked}2\r\nok\r\n"), Ok(false)),
            (format!("{chunked}x\r\n"), Ok(false)),
            ("HTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 204 None\r\n\r\n".into(), Ok(true)),
            ("HTTP/1.1 103 Hints\r\n\r\n".into(), Err(ProbeError::Cut)),
            ("HTTP/1.1 101 Changed\r\nUpgrade: x\r\n\r\n".into(), Err(ProbeError::Status(101))),
            (
                "HTTP/1.1 301 Moved\r\nContent-Length: 0\r\n\r\n".into(),
                Err(ProbeError::Status(301)),
            ),
            ("HTTP/1.1 503 Busy\r\nContent-Length: 9\r\n\r\n".into(), Err(ProbeError::Status(503))),
            (String::new(), Err(ProbeError::Closed)),
            ("H".into(), Err(ProbeError::Cut)),
            ("SSH-2.0-OpenSSH\r\n".into(), Err(BadHead::StartLine.into())),
            ("HTTP/1.1 200 OK\nContent-Length: 0\n\n".into(), Err(BadHead::LineEnd.into())),
            ("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n".into(), Err(BadAnswer::Length.into())),
        ];
        for (answer, judged) in cases {
            assert_eq!(judge([answer.as_bytes()]), judged, "{answer:?}");
            assert_eq!(judge(answer.as_bytes().chunks(1)), judged, "{answer:?} byte by byte");
        }
    }

    #[test]
    fn bytes_after_a_response_end_the_connection() {
        assert_eq!(judge([&b"HTTP/1.1 204 None\r\n\r\nHTTP"[..]]), Ok(false));
    }

    #[test]
    fn no_more_of_a_body_is_read_than_its_bound() {
        let head = &b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"[..];
        let pieces = [head].into_iter().chain(std::iter::repeat(&b"1\r\nx\r\n"[..]));
        assert_eq!(judge(pieces), Ok(false));
        let interim = std::iter::repeat(&b"HTTP/1.1 102 Wait\r\n\r\n"[..]);
        assert_eq!(judge(interim), Err(ProbeError::Interim));
    }
}
