//! Listed servers that answer as they are told.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::thread;

use crate::support::Balancer;

/// A server that greets with its name, each answer on a connection of its own; nobody listens
/// after [`close`](Self::close).
pub(super) struct Listed {
    pub(super) address: SocketAddr,
    listener: TcpListener,
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    /// The status of its answers to probes, and to everything else.
    health: AtomicU16,
    status: AtomicU16,
    /// Requests that were no probes.
    asked: AtomicUsize,
}

/// A balancer over `n` servers, all of them ready.
pub(super) fn over(n: usize, arguments: &[&str]) -> (Vec<Listed>, Balancer) {
    let servers: Vec<Listed> = (0..n).map(|at| Listed::start(&at.to_string())).collect();
    let list: Vec<String> = servers.iter().map(|server| server.address.to_string()).collect();
    let balancer = Balancer::start(&[&["--servers", &list.join(",")], arguments].concat());
    balancer.wait_for_replicas(n);
    (servers, balancer)
}

// === impl Listed ===

impl Listed {
    /// Starts one that greets with this name.
    pub(super) fn start(name: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let inner = Arc::new(Inner {
            name: name.to_owned(),
            health: AtomicU16::new(200),
            status: AtomicU16::new(200),
            asked: AtomicUsize::new(0),
        });
        let server = Self { address: listener.local_addr().unwrap(), listener, inner };
        let (listener, inner) = (server.listener.try_clone().unwrap(), Arc::clone(&server.inner));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let inner = Arc::clone(&inner);
                thread::spawn(move || inner.answer(BufReader::new(stream)));
            }
        });
        server
    }

    /// From now on probes are answered so.
    pub(super) fn health(&self, status: u16) {
        self.inner.health.store(status, Ordering::SeqCst);
    }

    /// From now on everything else is answered so.
    pub(super) fn answers(&self, status: u16) {
        self.inner.status.store(status, Ordering::SeqCst);
    }

    /// Requests so far that were no probes.
    pub(super) fn asked(&self) -> usize {
        self.inner.asked.load(Ordering::SeqCst)
    }

    /// Refuses connections from now on.
    pub(super) fn close(&self) {
        rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both).unwrap();
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        // Wakes who waits for the next connection; it may be closed already.
        let _closed = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
    }
}

// === impl Inner ===

impl Inner {
    fn answer(&self, mut stream: BufReader<TcpStream>) {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
        }
        let status = if head.starts_with("GET /heartbeat ") {
            &self.health
        } else {
            self.asked.fetch_add(1, Ordering::SeqCst);
            &self.status
        };
        let status = status.load(Ordering::SeqCst);
        let body = format!(r#"{{"message":"Hello from Server: {}"}}"#, self.name);
        let head = format!("HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: ");
        // The balancer may have given the request up: then nobody reads it.
        let _written =
            stream.get_mut().write_all(format!("{head}{}\r\n\r\n{body}", body.len()).as_bytes());
    }
}
