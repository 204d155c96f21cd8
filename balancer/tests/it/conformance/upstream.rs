//! The replica's end: reads requests strictly, keeps them, and answers as a test says.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Instant;

use super::message::{Body, DEADLINE, Framing, Head, Wire};

/// A scripted server; probes are answered and not kept.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    record: Arc<Record>,
}

/// A request that reached it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// The number of its connection.
    pub(crate) connection: usize,
    pub(crate) head: Head,
    pub(crate) body: Body,
    /// Whether its last byte came.
    pub(crate) whole: bool,
}

/// A request that a script answers.
pub(crate) struct Exchange<'a> {
    pub(crate) wire: &'a mut Wire,
    pub(crate) head: Head,
    record: &'a Record,
    index: usize,
}

/// What becomes of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// The next request is read from it.
    GoOn,
    /// It is closed.
    Close,
}

/// An answer to be given to one target: its pieces, each in a write of its own.
#[derive(Clone, Debug)]
pub(crate) struct Play {
    pub(crate) pieces: Vec<Vec<u8>>,
    pub(crate) then: Then,
}

#[derive(Default)]
struct Record {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    seen: Vec<Seen>,
    connections: usize,
    ended: BTreeSet<usize>,
    faults: Vec<String>,
    plays: BTreeMap<String, Play>,
}

type Script = Arc<dyn Fn(&mut Exchange<'_>) -> Then + Send + Sync>;

/// What it answers where nothing else is said.
pub(crate) const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

// === impl Upstream ===

impl Upstream {
    /// Runs `script` for each request, once its head is there.
    pub(crate) fn start(
        script: impl Fn(&mut Exchange<'_>) -> Then + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let record = Arc::new(Record::default());
        let script: Script = Arc::new(script);
        let kept = Arc::clone(&record);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (record, script) = (Arc::clone(&kept), Arc::clone(&script));
                std::thread::spawn(move || serve(stream, &script, &record));
            }
        });
        Self { address, record }
    }

    /// Reads each request whole and gives the answer that was set for its target, or [`OK`].
    pub(crate) fn playing() -> Self {
        Self::start(|exchange| exchange.play())
    }

    /// Sets what `target` is answered.
    pub(crate) fn play(&self, target: &str, pieces: Vec<Vec<u8>>, then: Then) {
        self.record.lock().plays.insert(target.to_owned(), Play { pieces, then });
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.record.lock().seen.clone()
    }

    /// The requests in whose head or body this text stands.
    pub(crate) fn seen_with(&self, marker: &str) -> Vec<Seen> {
        let has = |bytes: &[u8]| bytes.windows(marker.len()).any(|at| at == marker.as_bytes());
        self.seen().into_iter().filter(|seen| has(&seen.head.raw) || has(&seen.body.data)).collect()
    }

    /// Connections on which a request came.
    pub(crate) fn connections(&self) -> usize {
        self.record.lock().connections
    }

    /// Waits for the other side's end of a connection; tells whether it came.
    pub(crate) fn sees_end_of(&self, connection: usize) -> bool {
        self.record.wait(|state| state.ended.contains(&connection))
    }

    /// Waits until so many requests have come; tells whether they did.
    pub(crate) fn sees(&self, requests: usize) -> bool {
        self.record.wait(|state| state.seen.len() >= requests)
    }

    /// Messages that no sender may write: there must be none, whatever a client sends.
    pub(crate) fn faults(&self) -> Vec<String> {
        self.record.lock().faults.clone()
    }
}

// === impl Record ===

impl Record {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    fn wait(&self, condition: impl Fn(&State) -> bool) -> bool {
        let deadline = Instant::now() + DEADLINE;
        let mut state = self.lock();
        while !condition(&state) {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                return false;
            };
            state = self.changed.wait_timeout(state, left).unwrap().0;
        }
        true
    }
}

fn serve(stream: TcpStream, script: &Script, record: &Record) {
    let mut wire = Wire::new(stream);
    // An idle connection of the balancer's pool may idle for as long as the test lasts.
    wire.stream().set_read_timeout(None).unwrap();
    let mut number = None;
    loop {
        let head = match wire.head() {
            Ok(Some(head)) => head,
            Ok(None) => break,
            Err(error) => {
                if error.kind() == ErrorKind::InvalidData {
                    record.change(|state| state.faults.push(error.to_string()));
                }
                break;
            }
        };
        if head.line.starts_with("GET /heartbeat ") {
            let _probed = wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            return;
        }
        let index = keep(head.clone(), &mut number, record);
        let mut exchange = Exchange { wire: &mut wire, head, record, index };
        if script(&mut exchange) == Then::Close {
            break;
        }
    }
    if let Some(number) = number {
        record.change(|state| {
            state.ended.insert(number);
        });
    }
}

fn keep(head: Head, number: &mut Option<usize>, record: &Record) -> usize {
    let mut index = 0;
    record.change(|state| {
        let connection = *number.get_or_insert_with(|| {
            state.connections += 1;
            state.connections
        });
        state.faults.extend(head.check_request().err().map(|error| error.to_string()));
        let whole = match head.framing() {
            Ok(framing) => framing.is_none_or(|framing| framing == Framing::Length(0)),
            Err(error) => {
                state.faults.push(error.to_string());
                false
            }
        };
        index = state.seen.len();
        state.seen.push(Seen { connection, head, body: Body::default(), whole });
    });
    index
}

// === impl Exchange ===

impl Exchange<'_> {
    /// Reads the body to its end; whether there was one.
    pub(crate) fn read_body(&mut self) -> bool {
        let framing = self.head.framing().ok().flatten().unwrap_or(Framing::Nothing);
        let mut body = Body::default();
        let read = self.wire.body(framing, &mut body);
        self.record.change(|state| {
            let seen = &mut state.seen[self.index];
            (seen.body, seen.whole) = (body, read.is_ok());
            if let Err(error) = &read
                && error.kind() == ErrorKind::InvalidData
            {
                state.faults.push(error.to_string());
            }
        });
        read.is_ok()
    }

    /// The answer may find nobody who reads it.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        let _written = self.wire.send(bytes);
    }

    pub(crate) fn body(&self) -> Vec<u8> {
        self.record.lock().seen[self.index].body.data.clone()
    }

    /// Waits for the other side's end, then closes.
    pub(crate) fn hang(&mut self) -> Then {
        let _ended = self.wire.rest(&mut Vec::new());
        Then::Close
    }

    /// See [`Upstream::playing`].
    pub(crate) fn play(&mut self) -> Then {
        if !self.read_body() {
            return Then::Close;
        }
        let play = self.record.lock().plays.get(self.head.target()).cloned();
        let Some(Play { pieces, then }) = play else {
            self.write(OK);
            return Then::GoOn;
        };
        for piece in pieces {
            // A balancer that has given up takes no more: the rest is lost.
            if self.wire.send_alone(&piece).is_err() {
                break;
            }
        }
        then
    }
}
