//! One connection, of a client or to a replica: bytes in, bytes out, and the memory they take.
//!
//! A message is written with as few system calls as it can be: what is small is gathered until
//! somebody would have to be waited for, what is large goes out from where it was read to. A
//! connection on which nothing is under way holds no buffer.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use rustix::net::RecvFlags;
use tokio::io::{AsyncRead as _, AsyncWrite as _, DuplexStream, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::http1::Framing;
use crate::http1::chunked::put_size;

/// A buffer for heads and small bodies.
const SMALL: usize = 16 * 1024;

/// A buffer for a body that has shown to be large.
const LARGE: usize = 64 * 1024;

/// Free buffers that are kept, by size: what a worker needs at a busy time, 8 MiB at most.
const KEPT: [usize; 2] = [256, 64];

/// Content up to this is gathered, more is written from where it is.
const GATHERED: usize = 4 * 1024;

/// Free buffers of one worker.
#[derive(Default)]
pub struct Buffers {
    small: RefCell<Vec<Box<[u8]>>>,
    large: RefCell<Vec<Box<[u8]>>>,
    outputs: RefCell<Vec<Vec<u8>>>,
}

/// What bytes go over.
pub enum Stream {
    /// TCP.
    Plain(TcpStream),
    /// TLS over TCP.
    Tls(Box<TlsStream<TcpStream>>),
    /// A pipe in memory: one stream of an HTTP/2 connection.
    Pipe(DuplexStream),
}

/// A connection.
pub struct Wire {
    stream: Stream,
    buffers: Rc<Buffers>,
    /// What was read: `start..end`. Empty when nothing is held.
    input: Box<[u8]>,
    start: usize,
    end: usize,
    /// A read has filled a whole small buffer.
    busy: bool,
    /// What is to be written, from `written` on.
    output: Vec<u8>,
    written: usize,
    /// Bytes that the kernel took since [`Wire::begin`].
    sent: u64,
}

/// How content is delimited as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// As it is: its length was told, or the connection's end ends it.
    Plain,
    /// In chunks; so many bytes of the one begun are still to be written.
    Chunked {
        /// Bytes of content.
        left: usize,
    },
}

/// Bytes of a head, apart from what came behind them.
pub struct HeadBytes {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
    buffers: Rc<Buffers>,
}

// === impl Buffers ===

impl Buffers {
    fn take(&self, size: usize) -> Box<[u8]> {
        let free = match size {
            SMALL => self.small.borrow_mut().pop(),
            LARGE => self.large.borrow_mut().pop(),
            _ => None,
        };
        free.unwrap_or_else(|| vec![0; size].into_boxed_slice())
    }

    fn give(&self, buffer: Box<[u8]>) {
        let (list, kept) = match buffer.len() {
            SMALL => (&self.small, KEPT[0]),
            LARGE => (&self.large, KEPT[1]),
            // None, or one that grew for a large head.
            _ => return,
        };
        let mut list = list.borrow_mut();
        if list.len() < kept {
            list.push(buffer);
        }
    }

    fn take_output(&self) -> Vec<u8> {
        self.outputs.borrow_mut().pop().unwrap_or_default()
    }

    fn give_output(&self, mut output: Vec<u8>) {
        let mut list = self.outputs.borrow_mut();
        if (1..=SMALL).contains(&output.capacity()) && list.len() < KEPT[0] {
            output.clear();
            list.push(output);
        }
    }
}

// === impl Stream ===

impl Stream {
    fn poll_read(&mut self, cx: &mut Context<'_>, to: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut to = ReadBuf::new(to);
        ready!(match self {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, &mut to),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, &mut to),
            Self::Pipe(stream) => Pin::new(stream).poll_read(cx, &mut to),
        })?;
        Poll::Ready(Ok(to.filled().len()))
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match (self, parts) {
            (Self::Plain(stream), [one]) => Pin::new(stream).poll_write(cx, one),
            (Self::Plain(stream), _) => Pin::new(stream).poll_write_vectored(cx, parts),
            (Self::Tls(stream), _) => Pin::new(stream.as_mut()).poll_write_vectored(cx, parts),
            (Self::Pipe(stream), _) => Pin::new(stream).poll_write_vectored(cx, parts),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
            Self::Pipe(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
            Self::Pipe(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    /// Whether it is one stream of an HTTP/2 connection: its request is there already.
    pub fn is_pipe(&self) -> bool {
        matches!(self, Self::Pipe(_))
    }

    /// Whether it has an end of its own, which tells the other side that nothing was cut off.
    pub fn says_goodbye(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(_) | Self::Pipe(_) => true,
        }
    }
}

// === impl Wire ===

impl Wire {
    /// A connection on which nothing has happened.
    pub fn new(stream: Stream, buffers: Rc<Buffers>) -> Self {
        Self {
            stream,
            buffers,
            input: Box::default(),
            start: 0,
            end: 0,
            busy: false,
            output: Vec::new(),
            written: 0,
            sent: 0,
        }
    }

    /// What goes over it.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// What was read and not yet taken.
    #[inline]
    pub fn input(&self) -> &[u8] {
        &self.input[self.start..self.end]
    }

    /// Takes so many bytes of the input.
    pub fn consume(&mut self, length: usize) {
        self.start += length;
        debug_assert!(self.start <= self.end);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Takes so many bytes of the input as a head that outlives what comes behind it.
    pub fn split_head(&mut self, length: usize) -> HeadBytes {
        let (start, end) = (self.start, self.start + length);
        let rest = end..self.end;
        let mut input = Box::default();
        if !rest.is_empty() {
            input = self.buffers.take(SMALL.max(rest.len()));
            input[..rest.len()].copy_from_slice(&self.input[rest.clone()]);
        }
        let bytes = std::mem::replace(&mut self.input, input);
        (self.start, self.end) = (0, rest.len());
        HeadBytes { bytes, start, end, buffers: Rc::clone(&self.buffers) }
    }

    /// Whether another read could be of use: there is room, or there can be.
    pub fn has_room(&self) -> bool {
        self.end - self.start < SMALL
    }

    /// Reads more: 0 at the end of what the other side sends.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.make_room();
        let polled = self.stream.poll_read(cx, &mut self.input[self.end..]);
        match &polled {
            Poll::Ready(Ok(length)) => {
                self.end += length;
                self.busy = self.end == self.input.len();
            }
            Poll::Ready(Err(_)) | Poll::Pending => {}
        }
        if self.start == self.end {
            self.release_input();
        }
        polled
    }

    fn make_room(&mut self) {
        if self.start == self.end {
            let size = if self.busy { LARGE } else { SMALL };
            if self.input.len() < size {
                self.release_input();
                self.input = self.buffers.take(size);
            }
            (self.start, self.end) = (0, 0);
        } else if self.end == self.input.len() {
            if self.start == 0 {
                let mut grown = self.buffers.take(self.input.len() * 2);
                grown[..self.end].copy_from_slice(&self.input);
                self.buffers.give(std::mem::replace(&mut self.input, grown));
            } else {
                self.input.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            }
        }
    }

    fn release_input(&mut self) {
        self.buffers.give(std::mem::take(&mut self.input));
        (self.start, self.end) = (0, 0);
    }

    /// Nothing is under way: lets go of what is not needed until something is.
    pub fn rest(&mut self) {
        self.busy = false;
        if self.start == self.end {
            self.release_input();
        }
        if self.output.is_empty() {
            self.buffers.give_output(std::mem::take(&mut self.output));
        }
    }

    /// A message is begun.
    pub fn begin(&mut self) {
        self.sent = 0;
        if self.output.capacity() == 0 {
            self.output = self.buffers.take_output();
        }
    }

    /// How much of the message the kernel has taken.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Where bytes are gathered to be written.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// Takes some of `content` to be written; how much. What is small only is gathered: somebody
    /// must [flush](Self::poll_flush) before waiting. Until all of a chunk was taken, the next
    /// call's `content` begins with the rest of it.
    pub fn poll_content(
        &mut self,
        cx: &mut Context<'_>,
        writer: &mut Writer,
        content: &[u8],
    ) -> Poll<io::Result<usize>> {
        let begun = matches!(writer, Writer::Chunked { left } if *left > 0);
        if content.len() <= GATHERED && !begun && self.output.len() < SMALL {
            if let Writer::Chunked { .. } = writer {
                put_size(&mut self.output, content.len());
            }
            self.output.extend_from_slice(content);
            if let Writer::Chunked { .. } = writer {
                self.output.extend_from_slice(b"\r\n");
            }
            return Poll::Ready(Ok(content.len()));
        }
        if let Writer::Chunked { left } = writer
            && !begun
        {
            put_size(&mut self.output, content.len());
            *left = content.len();
        }
        self.poll_large(cx, writer, content)
    }

    fn poll_large(
        &mut self,
        cx: &mut Context<'_>,
        writer: &mut Writer,
        content: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let (content, end) = match writer {
                Writer::Plain => (content, &b""[..]),
                Writer::Chunked { left } => {
                    let content = &content[..content.len().min(*left)];
                    (content, if content.len() == *left { &b"\r\n"[..] } else { b"" })
                }
            };
            let gathered = &self.output[self.written..];
            let parts = [IoSlice::new(gathered), IoSlice::new(content), IoSlice::new(end)];
            let parts = if gathered.is_empty() { &parts[1..] } else { &parts[..] };
            let parts = if end.is_empty() { &parts[..parts.len() - 1] } else { parts };
            let wrote = ready!(self.stream.poll_write(cx, parts))?;
            if wrote == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += wrote as u64;
            let gathered = gathered.len();
            if wrote < gathered {
                self.written += wrote;
                continue;
            }
            self.output.clear();
            self.written = 0;
            let taken = (wrote - gathered).min(content.len());
            if taken == 0 && !content.is_empty() {
                continue;
            }
            if let Writer::Chunked { left } = writer {
                *left -= taken;
                if taken == content.len() {
                    // What the kernel did not take of the line's end goes before what comes next.
                    self.output.extend_from_slice(&end[wrote - gathered - taken..]);
                }
            }
            return Poll::Ready(Ok(taken));
        }
    }

    /// Writes what was gathered.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.output.len() {
            let rest = [IoSlice::new(&self.output[self.written..])];
            let wrote = ready!(self.stream.poll_write(cx, &rest))?;
            if wrote == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += wrote;
            self.sent += wrote as u64;
        }
        self.output.clear();
        self.written = 0;
        self.stream.poll_flush(cx)
    }

    /// Says that nothing more will be written.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_shutdown(cx)
    }

    /// Ends the connection by a reset when it is dropped.
    pub fn reset_at_close(&self) {
        let stream = match &self.stream {
            Stream::Plain(stream) => stream,
            Stream::Tls(stream) => stream.get_ref().0,
            // Its other end sees the end of a pipe before the end of a message.
            Stream::Pipe(_) => return,
        };
        // Without it the connection ends all the same.
        let _set = rustix::net::sockopt::set_socket_linger(stream, Some(std::time::Duration::ZERO));
    }

    /// Whether a connection that should be silent is: no end, no error, no bytes.
    pub fn is_silent(&mut self, cx: &mut Context<'_>) -> bool {
        let Stream::Plain(stream) = &self.stream else { return false };
        if self.start < self.end {
            return false;
        }
        match stream.poll_read_ready(cx) {
            Poll::Pending => true,
            // It may only be that the last read took all that there was.
            Poll::Ready(_) => self.stream.poll_read(cx, &mut [0]).is_pending(),
        }
    }

    /// The same, asked of the kernel: it may know of an end that has not been told yet.
    pub fn is_silent_now(&self) -> bool {
        let Stream::Plain(stream) = &self.stream else { return false };
        let asked = rustix::net::recv(stream, &mut [0][..], RecvFlags::PEEK | RecvFlags::DONTWAIT);
        matches!(asked, Err(rustix::io::Errno::AGAIN))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.release_input();
        self.buffers.give_output(std::mem::take(&mut self.output));
    }
}

// === impl Writer ===

impl Writer {
    /// How a message of this framing is written.
    pub fn new(framing: Framing) -> Self {
        match framing {
            Framing::Chunked => Self::Chunked { left: 0 },
            Framing::None | Framing::Length(_) | Framing::UntilClose => Self::Plain,
        }
    }
}

// === impl HeadBytes ===

impl HeadBytes {
    /// The bytes.
    #[inline]
    pub fn get(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }
}

impl Drop for HeadBytes {
    fn drop(&mut self) {
        self.buffers.give(std::mem::take(&mut self.bytes));
    }
}
