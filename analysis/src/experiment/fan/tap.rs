//! Counts the requests that come to a replica: bytes pass through unchanged, and the ids of the
//! requests among them are noted. It knows nothing of the balancer's own counts.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A listener in front of one replica; closed when dropped.
pub(super) struct Tap {
    address: SocketAddr,
    asked: Asked,
    task: JoinHandle<()>,
}

/// How often each request has come.
type Asked = Rc<RefCell<BTreeMap<u32, u32>>>;

/// The heads of requests in a stream of bytes. The requests must have no bodies.
#[derive(Debug, Default)]
struct Heads {
    /// The beginning of a head.
    rest: Vec<u8>,
}

/// Bytes that pass at a time.
const PIECE: usize = 16 * 1024;

/// The end of a head.
const END: &[u8] = b"\r\n\r\n";

// === impl Tap ===

impl Tap {
    /// Listens at a free port for what is for `replica`. Needs an actix system around it.
    ///
    /// # Errors
    /// When there is no port.
    pub(super) async fn before(replica: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("no free port")?;
        let address = listener.local_addr()?;
        let asked = Asked::default();
        let noted = Rc::clone(&asked);
        let task = tokio::task::spawn_local(async move {
            while let Ok((client, _)) = listener.accept().await {
                let asked = Rc::clone(&noted);
                // A connection that fails is for its two ends to see.
                tokio::task::spawn_local(async move {
                    let _ = pass(client, replica, &asked).await;
                });
            }
        });
        Ok(Self { address, asked, task })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How often each request has come, by its id. Those without a number for an id, probes among
    /// them, are not counted.
    pub(super) fn asked(&self) -> BTreeMap<u32, u32> {
        self.asked.borrow().clone()
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Passes bytes both ways until one of both ends is done; then the other one sees that, too.
async fn pass(client: TcpStream, replica: SocketAddr, asked: &Asked) -> io::Result<()> {
    let replica = TcpStream::connect(replica).await?;
    client.set_nodelay(true)?;
    replica.set_nodelay(true)?;
    let (from_client, mut to_client) = client.into_split();
    let (mut from_replica, to_replica) = replica.into_split();
    tokio::select! {
        passed = pass_requests(from_client, to_replica, asked) => passed,
        passed = tokio::io::copy(&mut from_replica, &mut to_client) => passed.map(drop),
    }
}

async fn pass_requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    asked: &Asked,
) -> io::Result<()> {
    let (mut heads, mut piece) = (Heads::default(), vec![0; PIECE]);
    loop {
        let length = from.read(&mut piece).await?;
        if length == 0 {
            return Ok(());
        }
        for id in heads.take(&piece[..length]) {
            *asked.borrow_mut().entry(id).or_default() += 1;
        }
        to.write_all(&piece[..length]).await?;
    }
}

// === impl Heads ===

impl Heads {
    /// The ids of the heads that end in these bytes, as far as they have one that is a number.
    fn take(&mut self, bytes: &[u8]) -> Vec<u32> {
        self.rest.extend_from_slice(bytes);
        let mut ids = Vec::new();
        while let Some(at) = self.rest.windows(END.len()).position(|window| window == END) {
            let head: Vec<u8> = self.rest.drain(..at + END.len()).collect();
            ids.extend(id_in(&String::from_utf8_lossy(&head)));
        }
        ids
    }
}

fn id_in(head: &str) -> Option<u32> {
    let fields = head.lines().filter_map(|line| line.split_once(':'));
    let mut ids = fields.filter(|(name, _)| name.eq_ignore_ascii_case("x-request-id"));
    ids.next()?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_found_however_the_bytes_come() {
        let stream = b"POST /register HTTP/1.1\r\nHost: a\r\nX-Request-Id: 123456\r\n\r\n\
                       GET /heartbeat HTTP/1.1\r\nhost: a\r\n\r\n\
                       GET /home HTTP/1.1\r\nx-request-id:  654321 \r\nhost: a\r\n\r\n";
        for size in 1..=stream.len() {
            let mut heads = Heads::default();
            let ids: Vec<u32> = stream.chunks(size).flat_map(|piece| heads.take(piece)).collect();
            assert_eq!(ids, [123_456, 654_321], "in pieces of {size}");
            assert!(heads.rest.is_empty());
        }
    }

    #[test]
    fn what_passes_is_not_changed_and_an_end_is_seen_on_the_other_side() {
        actix_web::rt::System::new().block_on(async {
            let replica = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let tap = Tap::before(replica.local_addr().unwrap()).await.unwrap();
            let mut client = TcpStream::connect(tap.address()).await.unwrap();
            let (mut server, _) = replica.accept().await.unwrap();

            let request = b"GET /home HTTP/1.1\r\nx-request-id: 7\r\n\r\n";
            client.write_all(request).await.unwrap();
            let mut seen = vec![0; request.len()];
            server.read_exact(&mut seen).await.unwrap();
            assert_eq!(seen, request);
            assert_eq!(tap.asked(), BTreeMap::from([(7, 1)]));

            server.write_all(b"answer").await.unwrap();
            let mut answer = [0; 6];
            client.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"answer");
            drop(client);
            assert_eq!(server.read(&mut seen).await.unwrap(), 0);
        });
    }
}
