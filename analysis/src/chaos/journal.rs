//! What replicas say that they carried out: they send the id of each POST as a datagram, so that
//! it is known of dead ones, too.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_recv_buffer_size_force};

/// The socket that replicas send to, read by a thread of its own.
pub(crate) struct Journal {
    address: SocketAddr,
    shared: Arc<Shared>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    entries: Mutex<Entries>,
}

/// How often each request was carried out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entries {
    pub(crate) counts: BTreeMap<u32, u32>,
    /// Datagrams that are none of ours.
    pub(crate) strange: u64,
}

/// Room for datagrams that wait to be read: some ten thousand.
const BUFFER: usize = 8 * 1024 * 1024;
/// How soon the thread sees that it is to stop.
const LOOK: Duration = Duration::from_millis(100);

// === impl Journal ===

impl Journal {
    /// Listens on a free port of `address`.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn open(address: IpAddr) -> anyhow::Result<Self> {
        let socket = UdpSocket::bind((address, 0)).context("no port for the journal")?;
        // Beyond the limit for everybody only root may go.
        if set_socket_recv_buffer_size_force(&socket, BUFFER).is_err() {
            set_socket_recv_buffer_size(&socket, BUFFER).context("no buffer for the journal")?;
        }
        socket.set_read_timeout(Some(LOOK)).context("no timeout for the journal")?;
        let address = socket.local_addr().context("no address of the journal")?;
        let shared = Arc::new(Shared::default());
        let reader = {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || shared.read(&socket))
        };
        Ok(Self { address, shared, reader: Some(reader) })
    }

    /// Its port.
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// What has come so far.
    pub(crate) fn entries(&self) -> Entries {
        self.shared.entries.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Datagrams that the kernel had no room for; `None` where it does not say.
    pub(crate) fn dropped(&self) -> Option<u64> {
        dropped(&fs::read_to_string("/proc/net/udp").ok()?, self.port())
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

// === impl Shared ===

impl Shared {
    fn read(&self, socket: &UdpSocket) {
        let mut buffer = [0; 2_048];
        while !self.stop.load(Ordering::Relaxed) {
            match socket.recv(&mut buffer) {
                Ok(length) => {
                    self.entries
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .note(&buffer[..length]);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }
}

// === impl Entries ===

impl Entries {
    fn note(&mut self, datagram: &[u8]) {
        match std::str::from_utf8(datagram).ok().and_then(|text| text.parse().ok()) {
            Some(id) => *self.counts.entry(id).or_default() += 1,
            None => self.strange += 1,
        }
    }
}

/// From `/proc/net/udp`: the last column of the line of a local port, in hexadecimal figures.
fn dropped(table: &str, port: u16) -> Option<u64> {
    let local = format!(":{port:04X}");
    let line = table
        .lines()
        .find(|line| line.split_whitespace().nth(1).is_some_and(|at| at.ends_with(&local)))?;
    line.split_whitespace().last()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Instant;

    use super::*;

    #[test]
    fn what_is_sent_twice_is_counted_twice() {
        let journal = Journal::open(Ipv4Addr::LOCALHOST.into()).unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        for text in ["17", "18", "17", "-"] {
            socket.send_to(text.as_bytes(), ("127.0.0.1", journal.port())).unwrap();
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        while journal.entries().strange == 0 && Instant::now() < deadline {
            std::thread::yield_now();
        }
        let expected = Entries { counts: BTreeMap::from([(17, 2), (18, 1)]), strange: 1 };
        assert_eq!(journal.entries(), expected);
        assert_eq!(journal.dropped(), Some(0));
    }

    #[test]
    fn lost_datagrams_are_in_the_last_column_of_the_ports_line() {
        let table = "  sl  local_address rem_address   st drops\n\
                     1: 0100007F:1F90 00000000:0000 07 0 2 0000 0\n\
                     2: 00000000:1F91 00000000:0000 07 0 2 0000 12\n";
        assert_eq!((dropped(table, 8_081), dropped(table, 8_080)), (Some(12), Some(0)));
        assert_eq!(dropped(table, 1), None);
    }
}
