//! A client that shows every byte: one connection, HTTP/1.1 written and read by hand.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// How long a test waits for what must happen before it fails.
const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) struct Client(TcpStream);

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The head, in lower case, from the status line to the empty line.
    pub(crate) head: String,
    pub(crate) body: String,
}

/// Fails the test if `future` takes longer than anything here may.
pub(crate) async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("nothing happened before the deadline")
}

// === impl Client ===

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self(in_time(TcpStream::connect(address)).await.unwrap())
    }

    /// Sends a request without a body.
    pub(crate) async fn send(&mut self, method: &str, target: &str) {
        self.write(&format!("{method} {target} HTTP/1.1\r\nHost: replica\r\n\r\n")).await;
    }

    pub(crate) async fn write(&mut self, bytes: &str) {
        in_time(self.0.write_all(bytes.as_bytes())).await.unwrap();
    }

    /// The next answer, with its body of the length that the head states.
    pub(crate) async fn receive(&mut self) -> Answer {
        let mut answer = self.receive_head().await;
        let mut body = vec![0; answer.header("content-length").unwrap().parse().unwrap()];
        in_time(self.0.read_exact(&mut body)).await.unwrap();
        answer.body = String::from_utf8(body).unwrap();
        answer
    }

    /// The next answer, to a request whose answer has no body.
    pub(crate) async fn receive_head(&mut self) -> Answer {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(in_time(self.0.read_u8()).await.unwrap());
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        let status = head["http/1.1 ".len()..][..3].parse().unwrap();
        Answer { status, head, body: String::new() }
    }

    pub(crate) async fn ask(&mut self, method: &str, target: &str) -> Answer {
        self.send(method, target).await;
        self.receive().await
    }

    /// Whether the server has answered, or closed, by now.
    pub(crate) async fn has_answer(&self) -> bool {
        let mut byte = [0];
        tokio::time::timeout(Duration::ZERO, self.0.peek(&mut byte)).await.is_ok()
    }

    /// Waits until the server closes the connection, and wants no byte before that.
    pub(crate) async fn closed(&mut self) {
        let mut rest = Vec::new();
        in_time(self.0.read_to_end(&mut rest)).await.unwrap();
        assert_eq!(rest, b"");
    }
}

// === impl Answer ===

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}
