//! The head of a message: a start line and fields, each line ended by CR LF and nothing else.

use memchr::memchr_iter;
use thiserror::Error;

use super::field::{Kind, controls, is_token_byte, is_value};

/// A head that is being read, or is whole; used again for the next message. It keeps places, not
/// bytes: every call that looks at it gets the bytes, which begin with the head's first.
#[derive(Debug)]
pub struct Head<S> {
    start: Option<S>,
    lines: Vec<Line>,
    /// Where the next line begins.
    at: usize,
    /// Up to where its end was looked for.
    seen: usize,
}

/// A field.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// Its name.
    pub name: Span,
    /// Its value, without the white space around it.
    pub value: Span,
    /// The whole of it, with its CR LF.
    raw: Span,
    /// What it is.
    pub kind: Kind,
}

/// Fields that cross as they came: those that came behind one another are copied at once.
#[derive(Debug, Default)]
pub struct Run(Span);

/// A place in a head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    start: u32,
    end: u32,
}

/// What a head may have at most.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    /// Bytes in all.
    pub bytes: usize,
    /// Fields.
    pub fields: usize,
    /// Bytes of a request's target.
    pub target: usize,
}

/// The first line of a head.
pub trait StartLine: Sized {
    /// Whether a head could begin with these bytes: what cannot is not waited for.
    fn may_begin(bytes: &[u8]) -> bool;

    /// Reads it, without its CR LF.
    ///
    /// # Errors
    /// [`BadHead`], when it is none.
    fn parse(line: &[u8], limits: &HeadLimits) -> Result<Self, BadHead>;

    /// Whether white space between a field's name and the colon is overlooked.
    const LOOSE_NAMES: bool;

    /// What it is when the first line alone is beyond all limits.
    const TOO_LONG: BadHead;
}

/// Why a head is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadHead {
    /// RFC 9112 2.2: a recipient may take a bare LF for a line's end; that not all do is why
    /// requests can be smuggled.
    #[error("a line does not end with CR LF")]
    LineEnd,
    /// The first line.
    #[error("the start line is malformed")]
    StartLine,
    /// The target of a request.
    #[error("the request target is malformed")]
    Target,
    /// A version that is none of 1.0 and 1.1.
    #[error("the version is not supported: use HTTP/1.1")]
    Version,
    /// RFC 9112 5.1, 5.2: no token before the colon, white space there, or a folded line.
    #[error("a field name is malformed")]
    FieldName,
    /// RFC 9110 5.5: a control byte.
    #[error("the value of a field has control characters")]
    FieldValue,
    /// Its bytes.
    #[error("the head is too large")]
    TooLarge,
    /// Its fields.
    #[error("the head has too many fields")]
    TooManyFields,
    /// The target's bytes.
    #[error("the request target is too long")]
    TargetTooLong,
}

// === impl Head ===

impl<S: StartLine> Head<S> {
    /// Nothing read yet.
    pub fn new() -> Self {
        Self { start: None, lines: Vec::new(), at: 0, seen: 0 }
    }

    /// Makes it as new, keeping its memory.
    pub fn clear(&mut self) {
        self.start = None;
        self.lines.clear();
        (self.at, self.seen) = (0, 0);
    }

    /// Goes on reading where the last call stopped; `bytes` are those of that call and more. Gives
    /// the head's length once it is whole.
    ///
    /// # Errors
    /// [`BadHead`], as soon as it is certain.
    pub fn parse(&mut self, bytes: &[u8], limits: &HeadLimits) -> Result<Option<usize>, BadHead> {
        let from = self.seen;
        for found in memchr_iter(b'\n', &bytes[from..]) {
            let end = from + found;
            if end == self.at || bytes[end - 1] != b'\r' {
                return Err(BadHead::LineEnd);
            }
            let (start, end) = (self.at, end - 1);
            (self.at, self.seen) = (end + 2, end + 2);
            if self.at > limits.bytes {
                return Err(self.too_large());
            }
            if self.start.is_none() {
                self.start = Some(S::parse(&bytes[start..end], limits)?);
            } else if start == end {
                return self.check(&bytes[..self.at]).map(Some);
            } else {
                if self.lines.len() == limits.fields {
                    return Err(BadHead::TooManyFields);
                }
                self.lines.push(Line::split(bytes, start, end, S::LOOSE_NAMES)?);
            }
        }
        self.seen = bytes.len();
        self.wait(bytes, limits)
    }

    /// All of it is there. Its values are looked into at once: every line has one CR and one LF
    /// at its end, so any other control byte is one too many.
    fn check(&self, head: &[u8]) -> Result<usize, BadHead> {
        let line_ends = 2 * (self.lines.len() + 2);
        if controls(head) == line_ends { Ok(head.len()) } else { Err(BadHead::FieldValue) }
    }

    /// More is needed: if more can help.
    fn wait(&self, bytes: &[u8], limits: &HeadLimits) -> Result<Option<usize>, BadHead> {
        if self.start.is_none() && !S::may_begin(bytes) {
            return Err(BadHead::StartLine);
        }
        if bytes.len() >= limits.bytes { Err(self.too_large()) } else { Ok(None) }
    }

    fn too_large(&self) -> BadHead {
        if self.start.is_none() { S::TOO_LONG } else { BadHead::TooLarge }
    }

    /// The first line of a head that is whole.
    pub fn start(&self) -> Option<&S> {
        self.start.as_ref()
    }

    /// The fields, in order.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// Whether nothing of it has come yet.
    pub fn is_new(&self) -> bool {
        self.seen == 0
    }
}

impl<S: StartLine> Default for Head<S> {
    fn default() -> Self {
        Self::new()
    }
}

// === impl Line ===

impl Line {
    /// Reads the field at `start..end` of `bytes`; its CR LF is behind that.
    ///
    /// # Errors
    /// [`BadHead`], when it is none.
    pub fn parse(bytes: &[u8], start: usize, end: usize, loose: bool) -> Result<Self, BadHead> {
        let line = Self::split(bytes, start, end, loose)?;
        if is_value(line.value.of(bytes)) { Ok(line) } else { Err(BadHead::FieldValue) }
    }

    /// The same, but for the bytes of the value.
    fn split(bytes: &[u8], start: usize, end: usize, loose: bool) -> Result<Self, BadHead> {
        let line = &bytes[start..end];
        let mut length = 0;
        while length < line.len() && is_token_byte(line[length]) {
            length += 1;
        }
        let mut colon = length;
        // RFC 9112 5.1: a proxy removes such white space from an answer and refuses a request.
        while loose && matches!(line.get(colon), Some(b' ' | b'\t')) {
            colon += 1;
        }
        if length == 0 || line.get(colon) != Some(&b':') {
            return Err(BadHead::FieldName);
        }
        let value = Span::trimmed(bytes, start + colon + 1, end);
        let name = Span::new(start, start + length);
        // What was overlooked before the colon does not cross.
        let raw = if colon == length { Span::new(start, end + 2) } else { Span::default() };
        Ok(Self { name, value, raw, kind: Kind::of(&line[..length]) })
    }
}

// === impl Run ===

impl Run {
    /// One more field crosses.
    #[inline]
    pub fn add(&mut self, line: &Line, bytes: &[u8], out: &mut Vec<u8>) {
        if line.raw.start == self.0.end && !line.raw.is_empty() {
            self.0.end = line.raw.end;
            return;
        }
        self.end(bytes, out);
        if line.raw.is_empty() {
            put(out, line.name.of(bytes), line.value.of(bytes));
        } else {
            self.0 = line.raw;
        }
    }

    /// Something else follows, or nothing.
    #[inline]
    pub fn end(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(std::mem::take(&mut self.0).of(bytes));
    }
}

/// Writes one field.
pub fn put(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

// === impl Span ===

impl Span {
    /// A place; heads are far smaller than 4 GiB.
    pub fn new(start: usize, end: usize) -> Self {
        Self { start: start as u32, end: end as u32 }
    }

    /// The same without the spaces and tabs at its ends.
    pub fn trimmed(bytes: &[u8], mut start: usize, mut end: usize) -> Self {
        let blank = |byte: u8| byte == b' ' || byte == b'\t';
        while start < end && blank(bytes[start]) {
            start += 1;
        }
        while start < end && blank(bytes[end - 1]) {
            end -= 1;
        }
        Self::new(start, end)
    }

    /// The bytes there.
    #[inline]
    pub fn of(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.start as usize..self.end as usize]
    }

    /// Where it begins.
    pub fn start(self) -> usize {
        self.start as usize
    }

    /// Whether nothing is there.
    pub fn is_empty(self) -> bool {
        self.start == self.end
    }
}

// === impl BadHead ===

impl BadHead {
    /// What a request with such a head gets.
    pub fn status(self) -> u16 {
        match self {
            BadHead::LineEnd
            | BadHead::StartLine
            | BadHead::Target
            | BadHead::FieldName
            | BadHead::FieldValue => 400,
            BadHead::TargetTooLong => 414,
            BadHead::TooLarge | BadHead::TooManyFields => 431,
            BadHead::Version => 505,
        }
    }
}

/// The minor version at the end of a start line (`HTTP/1.x`).
///
/// # Errors
/// [`BadHead::Version`] for another one, [`BadHead::StartLine`] for none (RFC 9112 2.3).
pub(super) fn minor_version(bytes: &[u8]) -> Result<u8, BadHead> {
    match bytes {
        b"HTTP/1.1" => Ok(1),
        b"HTTP/1.0" => Ok(0),
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => Err(BadHead::Version),
        _ => Err(BadHead::StartLine),
    }
}

#[cfg(test)]
mod tests;
