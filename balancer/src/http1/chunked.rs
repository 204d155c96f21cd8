//! Chunks, read strictly (RFC 9112 7.1): what other readers forgive here is how requests are
//! smuggled.

use thiserror::Error;

/// The most bytes of one chunk's extensions; nobody uses any.
const EXTENSION_MAX: u32 = 1_024;

/// The most bytes of all extensions of a body: with a byte of content in each chunk, they would be
/// nearly all that is read.
const EXTENSIONS_MAX: u32 = 16 * 1_024;

/// The most bytes of the trailer section.
const TRAILERS_MAX: usize = 8 * 1024;

/// Reads chunks as they come, in whatever pieces.
#[derive(Clone, Debug, Default)]
pub struct Chunked {
    state: State,
    /// Bytes of extensions so far.
    extensions: u32,
    /// The trailer section as it came, each line with its CR LF, without the empty last one.
    trailers: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Before a chunk's first digit.
    #[default]
    Start,
    /// In its size, with so many digits seen.
    Size { value: u64, digits: u32 },
    /// White space after the size: an extension must follow.
    Blank { value: u64, length: u32 },
    /// In its extensions.
    Extension { value: u64, length: u32 },
    /// After the CR of its first line.
    SizeEnd { value: u64 },
    /// In its data.
    Data { left: u64 },
    /// After its data.
    DataEnd,
    /// After the CR behind its data.
    DataEndLine,
    /// At the begin of a trailer's line.
    TrailerStart,
    /// In it.
    Trailer,
    /// After its CR.
    TrailerEnd,
    /// After the CR of the empty line.
    LastEnd,
    /// After all.
    End,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// So many of the bytes are framing; then so many of content.
    Content {
        /// Bytes of framing before it.
        skip: usize,
        /// Bytes of content that are there.
        length: usize,
    },
    /// All of the bytes are framing, and more must come.
    More,
    /// The body has ended after so many of the bytes.
    End {
        /// Bytes of framing up to the end.
        skip: usize,
    },
}

/// Why a body is no chunked one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadChunk {
    /// No digits, a sign, `0x`, too many digits.
    #[error("the size of a chunk is malformed")]
    Size,
    /// Too long, or with control bytes.
    #[error("the extension of a chunk is malformed")]
    Extension,
    /// A line, or a chunk's data, does not end with CR LF where it should.
    #[error("a chunk does not end where its size says")]
    End,
    /// The trailer section.
    #[error("the trailer section is malformed or too large")]
    Trailers,
}

// === impl Chunked ===

impl Chunked {
    /// Reads on. Content that is told must be taken ([`Self::taken`]) before the next call.
    ///
    /// # Errors
    /// [`BadChunk`]; there is no going on after it.
    pub fn next(&mut self, bytes: &[u8]) -> Result<Next, BadChunk> {
        for (at, byte) in bytes.iter().copied().enumerate() {
            if let State::Data { left } = self.state {
                let here = bytes.len() - at;
                let length = usize::try_from(left).map_or(here, |left| left.min(here));
                return Ok(Next::Content { skip: at, length });
            }
            if self.state == State::End {
                return Ok(Next::End { skip: at });
            }
            self.state = self.step(byte)?;
        }
        if self.state == State::End { Ok(Next::End { skip: bytes.len() }) } else { Ok(Next::More) }
    }

    /// So many bytes of content were taken.
    pub fn taken(&mut self, length: usize) {
        if let State::Data { left } = self.state {
            let left = left - length as u64;
            self.state = if left == 0 { State::DataEnd } else { State::Data { left } };
        }
    }

    /// Whether its last byte was read.
    pub fn is_ended(&self) -> bool {
        self.state == State::End
    }

    /// The trailer section of a body that has ended.
    pub fn trailers(&self) -> &[u8] {
        &self.trailers
    }

    fn step(&mut self, byte: u8) -> Result<State, BadChunk> {
        Ok(match self.state {
            State::Start => match (byte as char).to_digit(16) {
                Some(digit) => State::Size { value: digit.into(), digits: 1 },
                None => return Err(BadChunk::Size),
            },
            State::Size { value, digits } => match (byte, (byte as char).to_digit(16)) {
                (_, Some(_)) if digits == 16 => return Err(BadChunk::Size),
                (_, Some(digit)) => {
                    State::Size { value: value << 4 | u64::from(digit), digits: digits + 1 }
                }
                (b'\r', None) => State::SizeEnd { value },
                (b';', None) => State::Extension { value, length: 0 },
                (b' ' | b'\t', None) => State::Blank { value, length: 0 },
                (_, None) => return Err(BadChunk::Size),
            },
            State::Blank { length: EXTENSION_MAX, .. }
            | State::Extension { length: EXTENSION_MAX, .. } => return Err(BadChunk::Extension),
            State::Blank { .. } | State::Extension { .. } if self.extensions == EXTENSIONS_MAX => {
                return Err(BadChunk::Extension);
            }
            State::Blank { value, length } => match byte {
                b' ' | b'\t' => State::Blank { value, length: self.longer(length) },
                b';' => State::Extension { value, length: self.longer(length) },
                _ => return Err(BadChunk::Size),
            },
            State::Extension { value, length } => match byte {
                b'\r' => State::SizeEnd { value },
                b'\t' | b' '..=b'~' | 0x80.. => {
                    State::Extension { value, length: self.longer(length) }
                }
                _ => return Err(BadChunk::Extension),
            },
            State::SizeEnd { value: 0 } if byte == b'\n' => State::TrailerStart,
            State::SizeEnd { value } if byte == b'\n' => State::Data { left: value },
            State::DataEnd if byte == b'\r' => State::DataEndLine,
            State::DataEndLine if byte == b'\n' => State::Start,
            State::SizeEnd { .. } | State::DataEnd | State::DataEndLine => {
                return Err(BadChunk::End);
            }
            State::TrailerStart if byte == b'\r' => State::LastEnd,
            State::TrailerStart | State::Trailer | State::TrailerEnd => self.trailer(byte)?,
            State::LastEnd if byte == b'\n' => State::End,
            State::LastEnd => return Err(BadChunk::Trailers),
            State::Data { .. } | State::End => unreachable!("handled by the caller"),
        })
    }

    /// An extension is a byte longer.
    fn longer(&mut self, length: u32) -> u32 {
        self.extensions += 1;
        length + 1
    }

    /// Keeps a byte of the trailer section; its lines are looked into later, all must end with
    /// CR LF here already.
    fn trailer(&mut self, byte: u8) -> Result<State, BadChunk> {
        if self.trailers.len() == TRAILERS_MAX {
            return Err(BadChunk::Trailers);
        }
        self.trailers.push(byte);
        match (self.state, byte) {
            (State::TrailerEnd, b'\n') => Ok(State::TrailerStart),
            (State::TrailerEnd, _) | (_, b'\n') => Err(BadChunk::Trailers),
            (_, b'\r') => Ok(State::TrailerEnd),
            (_, _) => Ok(State::Trailer),
        }
    }
}

/// The largest size line: sixteen digits and CR LF.
pub const SIZE_LINE_MAX: usize = 18;

/// Writes the line before a chunk's data.
pub fn put_size(out: &mut Vec<u8>, length: usize) {
    let digits = (usize::BITS - length.leading_zeros()).div_ceil(4).max(1);
    for digit in (0..digits).rev() {
        let value = (length >> (digit * 4) & 0xf) as u8;
        out.push(if value < 10 { b'0' + value } else { b'a' - 10 + value });
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests;
