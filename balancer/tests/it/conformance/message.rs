//! HTTP/1.1 as the suite reads it at both ends: a parser of its own that takes nothing but what
//! RFC 9112 lets a sender write, so that each message of the balancer is checked by being read.

use std::fmt;
use std::io::{Error, ErrorKind, Read as _, Result, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

/// How long one side waits for bytes of the other.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// A name and its value.
pub(crate) type Field = (Vec<u8>, Vec<u8>);

/// A start line and what follows to the empty line.
#[derive(Clone, Default)]
pub(crate) struct Head {
    pub(crate) raw: Vec<u8>,
    pub(crate) line: String,
    pub(crate) fields: Vec<Field>,
}

/// A body's content without its framing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Body {
    pub(crate) data: Vec<u8>,
    pub(crate) trailers: Vec<Field>,
}

/// What ends a body (RFC 9112 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Nothing,
    Length(usize),
    Chunks,
    Close,
}

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// The fields that the balancer adds to what it forwards.
const OWN: [&str; 6] = [
    "x-balancer-hop",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-request-id",
    "date",
];

// === impl Head ===

impl Head {
    /// Parses the bytes up to and with the empty line.
    pub(crate) fn parse(raw: Vec<u8>) -> Result<Self> {
        let text = raw.strip_suffix(b"\r\n\r\n").ok_or_else(|| malformed("no end of the head"))?;
        let mut lines = lines(text)?.into_iter();
        let line = lines.next().unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        let fields = lines.map(|line| field(&line)).collect::<Result<_>>()?;
        Ok(Self { raw, line, fields })
    }

    /// The values of all fields of this name, in order.
    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        let named = self.fields.iter().filter(|(other, _)| is(other, name));
        named.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).collect()
    }

    /// The value of the only field of this name, if there is exactly one.
    pub(crate) fn only(&self, name: &str) -> Option<String> {
        self.all(name).pop().filter(|_| self.all(name).len() == 1)
    }

    /// Whether a list field has this member.
    pub(crate) fn lists(&self, name: &str, member: &str) -> bool {
        let all = self.all(name).join(",");
        all.split(',').any(|other| other.trim().eq_ignore_ascii_case(member))
    }

    /// The second word of a request line.
    pub(crate) fn target(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or_default()
    }

    /// Its framing fields; one framing at most is well-formed (RFC 9112 6.1, 6.2).
    pub(crate) fn framing(&self) -> Result<Option<Framing>> {
        let (lengths, codings) = (self.all("content-length"), self.all("transfer-encoding"));
        match (lengths.as_slice(), codings.as_slice()) {
            ([], []) => Ok(None),
            ([], [coding]) if coding == "chunked" => Ok(Some(Framing::Chunks)),
            ([length], []) if length.bytes().all(|byte| byte.is_ascii_digit()) => {
                let length = length.parse().map_err(|_error| malformed("length"))?;
                Ok(Some(Framing::Length(length)))
            }
            _ => Err(malformed(&format!("framing: lengths {lengths:?}, codings {codings:?}"))),
        }
    }

    /// A comparable text: the start line, what leads a message (`first`) in that order under its
    /// usual name, then all else in order of arrival, byte for byte. Left out: what the balancer
    /// adds to each message, an empty body's length, and `TE: trailers` with its nomination, which
    /// an intermediary may keep or drop (RFC 9110 10.1.4).
    fn text(&self, line: &str, first: &[&str], body: &Body) -> Vec<u8> {
        let mut text = format!("{line}\n").into_bytes();
        for name in first {
            for value in self.all(name) {
                if !(*name == "Content-Length" && value == "0") {
                    text.extend(format!("{name}: {value}\n").bytes());
                }
            }
        }
        for (name, value) in &self.fields {
            let lower = String::from_utf8_lossy(name).to_ascii_lowercase();
            let is_first = first.iter().any(|first| first.eq_ignore_ascii_case(&lower));
            let te = (lower == "te" && value.eq_ignore_ascii_case(b"trailers"))
                || (lower == "connection" && value.eq_ignore_ascii_case(b"te"));
            if !(is_first || te || OWN.contains(&lower.as_str())) {
                text.extend([name, &b": "[..], value, &b"\n"[..]].concat());
            }
        }
        text.push(b'\n');
        text.extend(&body.data);
        for (name, value) in &body.trailers {
            text.extend([&b"\n"[..], name, &b": "[..], value].concat());
        }
        text
    }

    /// A request, comparable.
    pub(crate) fn request_text(&self, body: &Body) -> Vec<u8> {
        self.text(&self.line, &["Host", "Content-Length", "Transfer-Encoding"], body)
    }

    /// An answer, comparable: its status instead of its line, `Connection` only where it closes.
    pub(crate) fn answer_text(&self, body: &Body) -> Vec<u8> {
        let status = self.line.get(9..12).unwrap_or_default();
        let mut shown = self.clone();
        let closes = self.lists("connection", "close");
        shown.fields.retain(|(name, value)| {
            let only_kept = value.eq_ignore_ascii_case(b"keep-alive");
            !is(name, "connection") || !(closes || only_kept)
        });
        if closes {
            shown.fields.push((b"Connection".to_vec(), b"close".to_vec()));
        }
        let first: &[&str] = if closes {
            &["Connection", "Content-Length", "Transfer-Encoding"]
        } else {
            &["Content-Length", "Transfer-Encoding"]
        };
        shown.text(status, first, body)
    }

    /// Whether a request head is one that a sender may write (RFC 9112 3, 3.2).
    pub(crate) fn check_request(&self) -> Result<()> {
        let words: Vec<&str> = self.line.split(' ').collect();
        let [method, target, "HTTP/1.1"] = words[..] else {
            return Err(malformed(&format!("request line {:?}", self.line)));
        };
        let good = is_token(method.as_bytes())
            && !target.is_empty()
            && target.bytes().all(|byte| byte.is_ascii_graphic())
            && self.all("host").len() == 1;
        if good { Ok(()) } else { Err(malformed(&format!("request head {self:?}"))) }
    }
}

impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}'", shown(&self.raw))
    }
}

/// Splits at CR LF; a CR or LF elsewhere is an error (RFC 9112 2.2).
fn lines(text: &[u8]) -> Result<Vec<Vec<u8>>> {
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") {
        lines.push(rest[..end].to_vec());
        rest = &rest[end + 2..];
    }
    lines.push(rest.to_vec());
    let bad = |byte: &u8| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f;
    match lines.iter().find(|line| line.iter().any(bad)) {
        Some(line) => Err(malformed(&format!("control byte in {:?}", shown(line)))),
        None => Ok(lines),
    }
}

/// A field line (RFC 9112 5).
fn field(line: &[u8]) -> Result<Field> {
    let colon = line.iter().position(|byte| *byte == b':');
    let (name, value) = colon.map_or((line, &b""[..]), |at| (&line[..at], &line[at + 1..]));
    if colon.is_none() || !is_token(name) {
        return Err(malformed(&format!("field line {:?}", shown(line))));
    }
    Ok((name.to_vec(), value.trim_ascii().to_vec()))
}

fn is(name: &[u8], other: &str) -> bool {
    name.eq_ignore_ascii_case(other.as_bytes())
}

fn is_token(bytes: &[u8]) -> bool {
    let good = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !bytes.is_empty() && bytes.iter().all(good)
}

/// Bytes for a reader of a failure.
pub(crate) fn shown(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

pub(crate) fn malformed(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, format!("malformed: {what}"))
}

// === impl Wire ===

impl Wire {
    pub(crate) fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: Vec::new() }
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends and waits until the other side has taken it all out of its socket, so that what is
    /// sent next comes to it in another read.
    pub(crate) fn send_alone(&mut self, bytes: &[u8]) -> Result<()> {
        self.send(bytes)?;
        let (here, there) = (self.stream.local_addr()?, self.stream.peer_addr()?);
        let deadline = std::time::Instant::now() + DEADLINE;
        while unread(there.port(), here.port()) {
            if std::time::Instant::now() > deadline {
                return Err(ErrorKind::TimedOut.into());
            }
            std::thread::yield_now();
        }
        Ok(())
    }

    /// Ends this direction only; the other side may have ended the connection already.
    pub(crate) fn finish(&self) {
        let _ended = self.stream.shutdown(Shutdown::Write);
    }

    fn fill(&mut self) -> Result<usize> {
        let mut piece = [0; 16 * 1024];
        let read = self.stream.read(&mut piece)?;
        self.buffer.extend(&piece[..read]);
        Ok(read)
    }

    fn more(&mut self) -> Result<()> {
        if self.fill()? == 0 { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    /// What is there, at least one byte unless the other side has ended.
    pub(crate) fn some(&mut self) -> Result<Vec<u8>> {
        if self.buffer.is_empty() {
            self.fill()?;
        }
        Ok(std::mem::take(&mut self.buffer))
    }

    /// A whole head; none where the connection ends instead.
    pub(crate) fn head(&mut self) -> Result<Option<Head>> {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                return Head::parse(self.buffer.drain(..end + 4).collect()).map(Some);
            }
            if self.fill()? == 0 {
                return match self.buffer.as_slice() {
                    [] => Ok(None),
                    part => Err(malformed(&format!("ends inside a head: {:?}", shown(part)))),
                };
            }
        }
    }

    /// So many bytes; what came before an error is kept.
    pub(crate) fn exact(&mut self, length: usize, into: &mut Vec<u8>) -> Result<()> {
        let mut missing = length;
        loop {
            let take = missing.min(self.buffer.len());
            into.extend(self.buffer.drain(..take));
            missing -= take;
            if missing == 0 {
                return Ok(());
            }
            self.more()?;
        }
    }

    fn line(&mut self) -> Result<Vec<u8>> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..end + 2).collect();
                return Ok(line[..end].to_vec());
            }
            self.more()?;
        }
    }

    /// A body of this framing; what came before an error is kept.
    pub(crate) fn body(&mut self, framing: Framing, body: &mut Body) -> Result<()> {
        match framing {
            Framing::Nothing => Ok(()),
            Framing::Length(length) => self.exact(length, &mut body.data),
            Framing::Chunks => self.chunks(body),
            Framing::Close => self.rest(&mut body.data),
        }
    }

    /// RFC 9112 7.1, without extensions: the balancer must not pass them on.
    fn chunks(&mut self, body: &mut Body) -> Result<()> {
        loop {
            let line = self.line()?;
            let digits = !line.is_empty() && line.iter().all(u8::is_ascii_hexdigit);
            let size = String::from_utf8_lossy(&line).into_owned();
            let size = usize::from_str_radix(&size, 16).ok().filter(|_| digits);
            let size = size.ok_or_else(|| malformed(&format!("chunk size {:?}", shown(&line))))?;
            if size == 0 {
                return self.trailers(body);
            }
            self.exact(size, &mut body.data)?;
            let mut end = Vec::new();
            self.exact(2, &mut end)?;
            if end != b"\r\n" {
                return Err(malformed("end of a chunk"));
            }
        }
    }

    fn trailers(&mut self, body: &mut Body) -> Result<()> {
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(());
            }
            lines(&line)?;
            body.trailers.push(field(&line)?);
        }
    }

    /// All that still comes, to a plain end.
    pub(crate) fn rest(&mut self, into: &mut Vec<u8>) -> Result<()> {
        loop {
            into.append(&mut self.buffer);
            if self.fill()? == 0 {
                return Ok(());
            }
        }
    }

    /// Whether the other side has ended the connection, and sends nothing more before.
    pub(crate) fn is_over(&mut self) -> bool {
        let reset = |kind| {
            matches!(
                kind,
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::NotConnected
            )
        };
        self.buffer.is_empty()
            && match self.fill() {
                Ok(read) => read == 0,
                Err(error) => reset(error.kind()),
            }
    }
}

/// Whether the socket at `local`, connected to `remote`, holds bytes that its owner has not read.
fn unread(local: u16, remote: u16) -> bool {
    let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let (local, remote) = (format!(":{local:04X}"), format!(":{remote:04X}"));
    sockets.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().take(5).collect();
        matches!(fields[..], [_, here, there, _, queues]
            if here.ends_with(&local) && there.ends_with(&remote) && !queues.ends_with(":00000000"))
    })
}
