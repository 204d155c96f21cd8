//! Whether an answer is a good one. Pure: bytes in, meaning out.

use super::ProbeError;
use crate::http1::Framing;
use crate::http1::answer::{Answer, StatusLine};
use crate::http1::body::Body;
use crate::http1::chunked::Next;
use crate::http1::head::{Head, HeadLimits};

/// The most content that an answer may have.
const BODY_MAX: usize = 64 << 10;

/// The most answers before the final one (RFC 9110 15.2); none is asked for.
const INTERIM_MAX: u32 = 8;

/// As many fields as fit: how many there are says nothing about a replica's health.
const LIMITS: HeadLimits = HeadLimits { bytes: 16 << 10, fields: 10_000, target: 0 };

/// An answer that is being read.
#[derive(Debug, Default)]
pub(super) struct Reading {
    head: Head<StatusLine>,
    answer: Answer,
    interim: u32,
    /// Once the head of the final answer is there.
    body: Option<Body>,
    content: usize,
    began: bool,
}

// === impl Reading ===

impl Reading {
    /// Takes in `input`, which is what is left of the last call, and what came since. Once the
    /// answer is whole, whether its connection may be used again.
    ///
    /// # Errors
    /// [`ProbeError`], as soon as it is certain.
    pub(super) fn read(&mut self, input: &mut Vec<u8>) -> Result<Option<bool>, ProbeError> {
        self.began |= !input.is_empty();
        self.read_head(input)?;
        let Some(body) = &mut self.body else { return Ok(None) };
        let mut at = 0;
        loop {
            match body.next(&input[at..])? {
                Next::Content { skip, length } => {
                    self.content += length;
                    if self.content > BODY_MAX {
                        return Err(ProbeError::TooLarge);
                    }
                    body.taken(length);
                    at += skip + length;
                }
                Next::More => {
                    input.clear();
                    return Ok(None);
                }
                Next::End { skip } => {
                    body.check_trailers()?;
                    // What comes behind an answer was not asked for.
                    let alone = at + skip == input.len();
                    return Ok(Some(self.answer.keeps && alone));
                }
            }
        }
    }

    /// The connection has ended.
    ///
    /// # Errors
    /// [`ProbeError::Closed`] where nothing has come, [`ProbeError::Cut`] where something is
    /// missing.
    pub(super) fn end(&mut self) -> Result<(), ProbeError> {
        let whole = self.body.as_mut().is_some_and(Body::ends_here);
        if whole { Ok(()) } else { Err(self.broken()) }
    }

    /// What it is when the connection broke.
    pub(super) fn broken(&self) -> ProbeError {
        if self.began { ProbeError::Cut } else { ProbeError::Closed }
    }

    /// Up to the body of the final answer, as far as it has come.
    fn read_head(&mut self, input: &mut Vec<u8>) -> Result<(), ProbeError> {
        while self.body.is_none() {
            let Some(length) = self.head.parse(input, &LIMITS)? else { return Ok(()) };
            self.answer.read(&self.head, &input[..length], false)?;
            input.drain(..length);
            let Answer { status, framing, .. } = self.answer;
            if self.answer.is_interim() {
                self.head.clear();
                self.interim += 1;
                if self.interim > INTERIM_MAX {
                    return Err(ProbeError::TooLarge);
                }
            } else if !(200..300).contains(&status) {
                return Err(ProbeError::Status(status));
            } else if matches!(framing, Framing::Length(length) if length > BODY_MAX as u64) {
                return Err(ProbeError::TooLarge);
            } else {
                self.body = Some(Body::new(framing));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the connection is kept after an answer that comes in these pieces, and then ends.
    fn judge<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<bool, ProbeError> {
        let (mut reading, mut input) = (Reading::default(), Vec::new());
        for piece in pieces {
            input.extend_from_slice(piece);
            if let Some(keeps) = reading.read(&mut input)? {
                return Ok(keeps);
            }
        }
        reading.end().map(|()| false)
    }

    #[test]
    fn an_answer_is_judged_the_same_in_whatever_pieces_it_comes() {
        use crate::http1::answer::BadAnswer;
        use crate::http1::chunked::BadChunk;
        use crate::http1::head::BadHead;

        let cases: [(&str, Result<bool, ProbeError>); 22] = [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Ok(true)),
            ("HTTP/1.1 299 OK\r\nContent-Length: 0\r\n\r\n", Ok(true)),
            ("HTTP/1.1 204 No Content\r\n\r\n", Ok(true)),
            ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", Ok(false)),
            ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", Ok(false)),
            ("HTTP/1.1 200 OK\r\n\r\nto the end", Ok(false)),
            ("HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", Ok(true)),
            ("HTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 204 None\r\n\r\n", Ok(true)),
            ("HTTP/1.1 103 Hints\r\n\r\n", Err(ProbeError::Cut)),
            ("HTTP/1.1 101 Changed\r\nUpgrade: x\r\n\r\n", Err(ProbeError::Status(101))),
            ("HTTP/1.1 301 Moved\r\nContent-Length: 0\r\n\r\n", Err(ProbeError::Status(301))),
            ("HTTP/1.1 503 Busy\r\nContent-Length: 9\r\n\r\n", Err(ProbeError::Status(503))),
            ("", Err(ProbeError::Closed)),
            ("H", Err(ProbeError::Cut)),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok", Err(ProbeError::Cut)),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
                Err(ProbeError::Cut),
            ),
            ("HTTP/1.1 200 OK\r\nContent-Length: 65537\r\n\r\n", Err(ProbeError::TooLarge)),
            ("SSH-2.0-OpenSSH\r\n", Err(BadHead::StartLine.into())),
            ("HTTP/1.1 200 OK\nContent-Length: 0\n\n", Err(BadHead::LineEnd.into())),
            ("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", Err(BadAnswer::Length.into())),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
                Err(BadChunk::Size.into()),
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n no field\r\n\r\n",
                Err(BadHead::FieldName.into()),
            ),
        ];
        for (answer, judged) in cases {
            assert_eq!(judge([answer.as_bytes()]), judged, "{answer:?}");
            assert_eq!(judge(answer.as_bytes().chunks(1)), judged, "{answer:?} byte by byte");
        }
    }

    #[test]
    fn bytes_behind_an_answer_end_the_connection() {
        assert_eq!(judge([&b"HTTP/1.1 204 None\r\n\r\nHTTP"[..]]), Ok(false));
    }

    #[test]
    fn a_body_that_does_not_end_is_not_read_to_the_end() {
        let (piece, chunk) = ([b'x'; 1_000], *b"1\r\nx\r\n");
        let head = &b"HTTP/1.1 200 OK\r\n\r\n"[..];
        let chunked = &b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"[..];
        for count in [65, 66, 1_000] {
            let pieces = [head].into_iter().chain(std::iter::repeat_n(&piece[..], count));
            let judged = if count == 65 { Ok(false) } else { Err(ProbeError::TooLarge) };
            assert_eq!(judge(pieces), judged);
        }
        let pieces = [chunked].into_iter().chain(std::iter::repeat(&chunk[..]));
        assert_eq!(judge(pieces), Err(ProbeError::TooLarge));
        let interim = std::iter::repeat(&b"HTTP/1.1 102 Wait\r\n\r\n"[..]);
        assert_eq!(judge(interim), Err(ProbeError::TooLarge));
    }
}
