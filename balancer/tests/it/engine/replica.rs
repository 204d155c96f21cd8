//! What runs in a container of the scripted engine: a small HTTP server.

use std::collections::{BTreeSet, HashMap};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

/// A server that greets; ended when dropped.
pub(crate) struct Replica {
    pub(crate) address: SocketAddr,
    listener: TcpListener,
    inner: Arc<Inner>,
}

struct Inner {
    greeting: String,
    asked: Mutex<Vec<Asked>>,
    streams: Mutex<Streams>,
    /// While set nothing is answered.
    paused: Mutex<bool>,
    woken: Condvar,
}

#[derive(Default)]
struct Streams {
    next: u64,
    over: bool,
    open: HashMap<u64, TcpStream>,
}

/// A request that came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) at: Instant,
    /// The address it came to.
    pub(crate) to: SocketAddr,
    pub(crate) path: String,
}

// === impl Replica ===

impl Replica {
    /// Greets `name` at this address.
    pub(crate) fn start(address: SocketAddr, name: &str) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        // A burst of probes must not wait for a second try of its connections.
        rustix::net::listen(&listener, 4_096)?;
        let inner = Arc::new(Inner {
            greeting: format!(r#"{{"message":"Hello from Server: {name}","status":"successful"}}"#),
            asked: Mutex::default(),
            streams: Mutex::default(),
            paused: Mutex::new(false),
            woken: Condvar::new(),
        });
        let replica = Self { address: listener.local_addr()?, listener, inner };
        let (listener, inner) = (replica.listener.try_clone()?, Arc::clone(&replica.inner));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let inner = Arc::clone(&inner);
                thread::spawn(move || inner.serve(stream));
            }
        });
        Ok(replica)
    }

    /// The requests so far that were no probes.
    pub(crate) fn asked(&self) -> usize {
        let asked = self.inner.asked.lock().unwrap();
        asked.iter().filter(|asked| asked.path != "/heartbeat").count()
    }

    /// The addresses to which requests came that were no probes.
    pub(crate) fn reached(&self) -> BTreeSet<SocketAddr> {
        let asked = self.inner.asked.lock().unwrap();
        asked.iter().filter(|asked| asked.path != "/heartbeat").map(|asked| asked.to).collect()
    }

    /// The probes so far.
    pub(crate) fn probes(&self) -> Vec<Asked> {
        let asked = self.inner.asked.lock().unwrap();
        asked.iter().filter(|asked| asked.path == "/heartbeat").cloned().collect()
    }

    /// Takes connections and requests, and answers none, until told otherwise.
    pub(crate) fn pause(&self, paused: bool) {
        *self.inner.paused.lock().unwrap() = paused;
        self.inner.woken.notify_all();
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        // Wakes who waits for the next connection.
        let _closed = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        self.pause(false);
        let mut streams = self.inner.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.over = true;
        for (_, stream) in streams.open.drain() {
            let _closed_already = stream.shutdown(Shutdown::Both);
        }
    }
}

// === impl Inner ===

impl Inner {
    fn serve(&self, stream: TcpStream) {
        let mut streams = self.streams.lock().unwrap();
        let number = streams.next;
        streams.next += 1;
        if streams.over {
            return;
        }
        streams.open.extend(stream.try_clone().map(|stream| (number, stream)));
        drop(streams);
        self.converse(stream);
        self.streams.lock().unwrap().open.remove(&number);
    }

    fn converse(&self, stream: TcpStream) {
        let Ok(to) = stream.local_addr() else { return };
        let mut stream = BufReader::new(stream);
        loop {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if stream.read_line(&mut head).unwrap_or(0) == 0 {
                    return;
                }
            }
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            let body = if path == "/heartbeat" { "" } else { &self.greeting };
            self.asked.lock().unwrap().push(Asked { at: Instant::now(), to, path });
            let mut paused = self.paused.lock().unwrap();
            while *paused {
                paused = self.woken.wait(paused).unwrap();
            }
            drop(paused);
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            let last = head.to_ascii_lowercase().contains("\r\nconnection: close\r\n");
            if stream.get_mut().write_all(answer.as_bytes()).is_err() || last {
                return;
            }
        }
    }
}
