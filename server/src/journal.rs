//! The journal: one datagram for every change that was carried out, so that a test outside can
//! count how often each was, even when the replica's memory is lost with it.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _, UdpSocket};

/// Of a request id, at most so many bytes before they are escaped.
const ID_MAX: usize = 128;

/// What stands for a request without an id.
const NO_ID: &str = "-";

/// Where changes are told.
#[derive(Debug)]
pub(crate) struct Journal {
    /// Not connected: its own address is chosen for each datagram, so that a replica which was off
    /// its network and came back with another address is heard again.
    socket: UdpSocket,
    to: SocketAddr,
}

// === impl Journal ===

impl Journal {
    /// To `address`, `host:port`. Whether somebody listens there is not known and does not matter.
    ///
    /// # Errors
    /// When the address cannot be found, or no socket is to be had: naming the address.
    pub(crate) fn open(address: &str) -> io::Result<Self> {
        let wrap = |error: io::Error| {
            io::Error::new(error.kind(), format!("cannot open the journal at {address}: {error}"))
        };
        let found = address.to_socket_addrs().map_err(wrap)?.next();
        let to = found.ok_or_else(|| wrap(io::ErrorKind::NotFound.into()))?;
        let any: SocketAddr = match to {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any).map_err(wrap)?;
        socket.set_nonblocking(true).map_err(wrap)?;
        Ok(Self { socket, to })
    }

    /// Tells of one change. Never waits, and a journal that cannot take it is no reason to fail.
    pub(crate) fn note(&self, id: Option<&[u8]>) {
        let _ = self.socket.send_to(entry(id).as_bytes(), self.to);
    }
}

/// What is sent: the id's first bytes, printable.
fn entry(id: Option<&[u8]>) -> String {
    match id {
        Some(id) if !id.is_empty() => id[..id.len().min(ID_MAX)].escape_ascii().to_string(),
        _ => NO_ID.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_bounded_and_printable() {
        assert_eq!(entry(Some(b"123456")), "123456");
        assert_eq!(entry(Some(b"a\r\n\xff\"")), "a\\r\\n\\xff\\\"");
        assert_eq!(entry(Some(&[b'x'; 4_000])), "x".repeat(ID_MAX));
        assert_eq!((entry(None), entry(Some(b""))), ("-".to_owned(), "-".to_owned()));
    }

    #[test]
    fn a_journal_nobody_reads_is_written_all_the_same() {
        let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let journal = Journal::open(&closed.to_string()).unwrap();
        (0..10).for_each(|_| journal.note(Some(b"1")));
    }

    #[test]
    fn an_address_that_is_none_is_refused_by_name() {
        let error = Journal::open("nowhere").unwrap_err().to_string();
        assert!(error.contains("cannot open the journal at nowhere"), "{error}");
    }
}
