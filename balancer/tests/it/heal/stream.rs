//! `/admin/events` live: server-sent events.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::{fleet, last_event};
use crate::support::{Balancer, PATIENCE, kill, request, wait_for};

/// A reader of the stream.
struct Reader(BufReader<TcpStream>);

/// An event as it came: its number, its name, its data.
#[derive(Debug)]
struct Told(u64, String, Value);

// === impl Reader ===

impl Reader {
    fn open(to: SocketAddr, path: &str, headers: &str) -> Self {
        let mut stream = TcpStream::connect(to).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: {to}\r\nAccept: text/html, text/event-stream;q=0.9\r\n\
             {headers}\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut reader = Self(BufReader::new(stream));
        assert_eq!(reader.line().as_deref(), Some("HTTP/1.1 200 OK"));
        let mut fields = Vec::new();
        while let Some(line) = reader.line().filter(|line| !line.is_empty()) {
            fields.push(line.to_ascii_lowercase());
        }
        assert!(fields.contains(&"content-type: text/event-stream".to_owned()), "{fields:?}");
        assert!(fields.contains(&"cache-control: no-store".to_owned()), "{fields:?}");
        reader
    }

    /// The next line without its end; `None` at the end of the connection.
    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.0.read_line(&mut line).unwrap();
        (read > 0).then(|| line.trim_end_matches(['\r', '\n']).to_owned())
    }

    /// The next line of an event or a comment: what else comes belongs to the chunked coding.
    fn told_line(&mut self) -> Option<String> {
        loop {
            let line = self.line()?;
            if ["id: ", "event: ", "data: ", ":"].iter().any(|start| line.starts_with(start)) {
                return Some(line);
            }
        }
    }

    /// The next event; `None` at the end of the stream.
    fn next(&mut self) -> Option<Told> {
        let mut line = self.told_line()?;
        while line.starts_with(':') {
            line = self.told_line()?;
        }
        let id: u64 = line.strip_prefix("id: ").unwrap().parse().unwrap();
        let event = self.told_line()?.strip_prefix("event: ").unwrap().to_owned();
        let data = self.told_line()?;
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!((&data["id"], &data["event"]), (&id.into(), &event.as_str().into()));
        Some(Told(id, event, data))
    }

    fn take(&mut self, n: usize) -> Vec<Told> {
        (0..n).map(|_| self.next().unwrap()).collect()
    }
}

fn ids(told: &[Told]) -> Vec<u64> {
    told.iter().map(|told| told.0).collect()
}

/// The same on the listener of the traffic and on one of the admin routes' own.
fn on_both(replicas: usize, test: impl Fn(Balancer)) {
    for arguments in [&[][..], &["--admin-listen", "127.0.0.1:0"]] {
        test(Balancer::with_replicas(replicas, arguments));
    }
}

#[test]
fn a_reader_gets_what_was_and_then_what_happens_as_it_happens() {
    on_both(2, |balancer| {
        let mut reader = Reader::open(balancer.admin, "/admin/events", "");
        assert_eq!(ids(&reader.take(4)), [1, 2, 3, 4]);
        let killed = Instant::now();
        kill(balancer.replica_processes()[&2], Signal::KILL);
        let Told(id, event, data) = reader.next().unwrap();
        let took = killed.elapsed();
        assert_eq!((id, event.as_str()), (5, "died"));
        assert_eq!((&data["hostname"], &data["seat"]), (&"S2".into(), &2.into()));
        assert_eq!(data["reason"], "killed by signal 9");
        assert!(took < Duration::from_secs(2), "it was told after {took:?}");
        let rest = reader.take(3);
        assert_eq!(ids(&rest), [6, 7, 8]);
        let mut events: Vec<&str> = rest.iter().map(|told| told.1.as_str()).collect();
        events.retain(|event| *event != "removed");
        assert_eq!(events, ["starting", "ready"]);
    });
}

#[test]
fn a_reader_that_comes_back_goes_on_where_it_was() {
    on_both(2, |balancer| {
        let path = "/admin/events";
        let mut reader = Reader::open(balancer.admin, path, "Last-Event-ID: 3\r\n");
        assert_eq!(ids(&reader.take(1)), [4]);
        let mut reader = Reader::open(balancer.admin, "/admin/events?since=1", "");
        assert_eq!(ids(&reader.take(3)), [2, 3, 4]);
        // What it has seen says more than where it once wanted to begin.
        let path = "/admin/events?since=0";
        let mut reader = Reader::open(balancer.admin, path, "Last-Event-ID: 4\r\n");
        let line = reader.told_line().unwrap();
        assert!(line.starts_with(": "), "it is greeted at once: {line}");
        kill(balancer.replica_processes()[&1], Signal::KILL);
        assert_eq!(ids(&reader.take(4)), [5, 6, 7, 8]);
    });
}

#[test]
fn a_reader_that_knew_the_balancer_before_its_restart_misses_nothing() {
    on_both(1, |balancer| {
        let mut reader = Reader::open(balancer.admin, "/admin/events", "Last-Event-ID: 500\r\n");
        assert_eq!(ids(&reader.take(2)), [1, 2]);
        kill(balancer.replica_processes()[&1], Signal::KILL);
        assert_eq!(ids(&reader.take(1)), [3]);
    });
}

#[test]
fn a_head_request_for_the_stream_ends_at_once() {
    on_both(1, |balancer| {
        let asked = Instant::now();
        let accept = [("Accept", "text/event-stream")];
        let answer = request(balancer.admin, "HEAD", "/admin/events", &accept, b"");
        assert_eq!((answer.status, answer.body.len()), (200, 0));
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    });
}

#[test]
fn many_readers_see_the_same() {
    on_both(1, |balancer| {
        let mut readers: Vec<Reader> =
            (0..20).map(|_| Reader::open(balancer.admin, "/admin/events", "")).collect();
        for _ in 0..3 {
            let pid = balancer.replica_processes()[&1];
            kill(pid, Signal::KILL);
            wait_for("another", || (*balancer.replica_processes().get(&1)? != pid).then_some(()));
            wait_for("its readiness", || (fleet(&balancer)["ready"] == 1).then_some(()));
        }
        let last = usize::try_from(last_event(&balancer)).unwrap();
        let numbers: Vec<u64> = (1..=last as u64).collect();
        for reader in &mut readers {
            assert_eq!(ids(&reader.take(last)), numbers);
        }
    });
}

#[test]
fn a_stop_ends_the_stream_and_is_not_held_up_by_it() {
    on_both(1, |mut balancer| {
        let mut reader = Reader::open(balancer.admin, "/admin/events", "");
        reader.take(2);
        let asked = Instant::now();
        balancer.signal(Signal::TERM);
        while reader.next().is_some() {}
        let ended = asked.elapsed();
        assert!(balancer.wait().success());
        let took = asked.elapsed();
        assert!(took < Duration::from_secs(8), "the stream {ended:?}, the balancer {took:?}");
    });
}

/// The files that a process has open.
fn open_files(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

#[test]
fn a_reader_that_goes_away_is_forgotten() {
    on_both(1, |balancer| {
        // Once, so that whatever is made for the first reader is there.
        drop(Reader::open(balancer.admin, "/admin/events", ""));
        let before = open_files(balancer.pid());
        let mut readers: Vec<Reader> =
            (0..30).map(|_| Reader::open(balancer.admin, "/admin/events", "")).collect();
        readers.iter_mut().for_each(|reader| drop(reader.take(2)));
        assert!(open_files(balancer.pid()) >= before + 25);
        drop(readers);
        if balancer.admin != balancer.address {
            // There it is found out when something is told to them, twice.
            kill(balancer.replica_processes()[&1], Signal::KILL);
        }
        // Some files may be of probes and of other requests.
        let left = Instant::now();
        wait_for("their end", || (open_files(balancer.pid()) <= before + 10).then_some(()));
        assert!(left.elapsed() < Duration::from_secs(10), "after {:?}", left.elapsed());
    });
}
