//! The body of a message as it comes in.

use super::Framing;
use super::chunked::{BadChunk, Chunked, Next};
use super::head::{BadHead, Line, put};

/// How much of a body has come, and what is to come.
#[derive(Clone, Debug)]
pub enum Body {
    /// So many bytes are to come.
    Length(u64),
    /// Chunks.
    Chunked(Chunked),
    /// Whatever comes until the connection ends.
    UntilClose,
    /// All has come.
    Ended,
}

// === impl Body ===

impl Body {
    /// A body of which nothing has come.
    pub fn new(framing: Framing) -> Self {
        match framing {
            Framing::None | Framing::Length(0) => Self::Ended,
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Chunked::default()),
            Framing::UntilClose => Self::UntilClose,
        }
    }

    /// What the next bytes of the connection are.
    ///
    /// # Errors
    /// When they are no chunks and should be.
    pub fn next(&mut self, bytes: &[u8]) -> Result<Next, BadChunk> {
        match self {
            Self::Ended => Ok(Next::End { skip: 0 }),
            Self::Chunked(chunked) => chunked.next(bytes),
            Self::Length(_) | Self::UntilClose if bytes.is_empty() => Ok(Next::More),
            Self::Length(left) => {
                let length =
                    usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                Ok(Next::Content { skip: 0, length })
            }
            Self::UntilClose => Ok(Next::Content { skip: 0, length: bytes.len() }),
        }
    }

    /// So many bytes of content were taken.
    pub fn taken(&mut self, length: usize) {
        match self {
            Self::Length(left) => {
                *left -= length as u64;
                if *left == 0 {
                    *self = Self::Ended;
                }
            }
            Self::Chunked(chunked) => chunked.taken(length),
            Self::UntilClose | Self::Ended => {}
        }
    }

    /// Whether all of it was read, its last framing included.
    pub fn is_ended(&self) -> bool {
        match self {
            Self::Ended => true,
            Self::Chunked(chunked) => chunked.is_ended(),
            Self::Length(_) | Self::UntilClose => false,
        }
    }

    /// The connection has ended: whether the body has, too.
    pub fn ends_here(&mut self) -> bool {
        if matches!(self, Self::UntilClose) {
            *self = Self::Ended;
        }
        self.is_ended()
    }

    /// Writes those trailers of a body that has ended which may cross (RFC 9110 6.5.1).
    ///
    /// # Errors
    /// When one of them is no field.
    pub fn put_trailers(&self, out: &mut Vec<u8>) -> Result<(), BadHead> {
        let Self::Chunked(chunked) = self else { return Ok(()) };
        let (bytes, mut start) = (chunked.trailers(), 0);
        while let Some(length) = bytes[start..].windows(2).position(|end| end == b"\r\n") {
            let line = Line::parse(bytes, start, start + length, false)?;
            if line.kind.may_trail()
                && !FORBIDDEN.iter().any(|name| line.name.of(bytes).eq_ignore_ascii_case(name))
            {
                put(out, line.name.of(bytes), line.value.of(bytes));
            }
            start += length + 2;
        }
        Ok(())
    }

    /// Whether the trailers are fields.
    ///
    /// # Errors
    /// When one of them is none.
    pub fn check_trailers(&self) -> Result<(), BadHead> {
        let Self::Chunked(chunked) = self else { return Ok(()) };
        if chunked.trailers().is_empty() { Ok(()) } else { self.put_trailers(&mut Vec::new()) }
    }
}

/// Fields that are no trailers and that are of no other interest here: who may do what, how the
/// content is to be read, and what a cache does (RFC 9110 6.5.1).
const FORBIDDEN: [&[u8]; 10] = [
    b"authorization",
    b"cache-control",
    b"content-encoding",
    b"content-range",
    b"content-type",
    b"cookie",
    b"forwarded",
    b"proxy-authorization",
    b"set-cookie",
    b"www-authenticate",
];

#[cfg(test)]
mod tests;
