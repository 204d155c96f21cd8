//! A connection that stays open after its answer, and as little else as can be.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// An open connection, kept alive.
pub(crate) struct Client(TcpStream);

/// For one answer.
const PATIENCE: Duration = Duration::from_secs(10);

// === impl Client ===

impl Client {
    /// Connects and has one GET answered with 200.
    ///
    /// # Errors
    /// When it is not, or not in time.
    pub(crate) async fn ask_once(address: SocketAddr, path: &str) -> anyhow::Result<Self> {
        let head = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nX-Request-Id: 1\r\n\r\n");
        let exchange = async {
            let mut stream = TcpStream::connect(address).await.context("cannot connect")?;
            stream.write_all(head.as_bytes()).await.context("cannot send")?;
            let mut answer = Vec::new();
            while !is_whole(&answer)? {
                let read = stream.read_buf(&mut answer).await.context("no answer")?;
                ensure!(read > 0, "the connection was closed before the answer was whole");
            }
            Ok(Self(stream))
        };
        tokio::time::timeout(PATIENCE, exchange).await.context("no answer in time")?
    }

    /// Whether the other side has kept it open.
    pub(crate) fn is_open(&self) -> bool {
        let read = self.0.try_read(&mut [0]);
        read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    }
}

/// Whether these bytes are a whole answer.
///
/// # Errors
/// When it is another than 200, or does not have its length in its head.
fn is_whole(answer: &[u8]) -> anyhow::Result<bool> {
    let Some(end) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
        return Ok(false);
    };
    let head = String::from_utf8_lossy(&answer[..end]);
    let mut lines = head.lines();
    let status = lines.next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        bail!("answered {status:?}");
    }
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let length = length.context("the answer has no Content-Length")?;
    Ok(answer.len() - end - 4 >= length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_with_the_last_byte_of_its_body() {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";
        for length in 0..answer.len() {
            assert!(!is_whole(&answer[..length]).unwrap(), "{length}");
        }
        assert!(is_whole(answer).unwrap());
    }

    #[test]
    fn what_is_not_200_or_has_no_length_is_an_error() {
        let unavailable = is_whole(b"HTTP/1.1 503 Wait\r\ncontent-length: 0\r\n\r\n").unwrap_err();
        assert!(unavailable.to_string().contains("503"), "{unavailable}");
        assert!(is_whole(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
