//! Starts the real binary on a free port, talks HTTP/1.1 to it over plain sockets, and waits for
//! conditions with a deadline.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::str::FromStr;
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A running balancer; killed when dropped.
pub(crate) struct Balancer {
    child: Child,
    /// Where traffic goes.
    pub(crate) address: SocketAddr,
    /// Where the admin routes are.
    pub(crate) admin: SocketAddr,
    log: Arc<Mutex<Vec<Event>>>,
    reading: Arc<Reading>,
}

/// Whether the balancer's log is read now.
#[derive(Default)]
struct Reading {
    paused: Mutex<bool>,
    changed: Condvar,
}

/// A line of the balancer's log, with the time at which it came.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) at: Instant,
    pub(crate) fields: Value,
}

/// An answer, whole.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Balancer {
    /// Starts it with `arguments` on a free port, and waits until it serves.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, &[])
    }

    /// The same, with variables in its environment.
    pub(crate) fn start_with(arguments: &[&str], env: &[(&str, &str)]) -> Self {
        let program = Command::new(env!("CARGO_BIN_EXE_balancer"));
        Self::launch(program, arguments, env, Stdio::null())
    }

    /// The same as [`start`](Self::start), with a standard output that is never read.
    pub(crate) fn start_unread(arguments: &[&str]) -> Self {
        let program = Command::new(env!("CARGO_BIN_EXE_balancer"));
        Self::launch(program, arguments, &[], Stdio::piped())
    }

    /// The same, under a limit of open files such as `-n 256`.
    pub(crate) fn start_under(limit: &str, arguments: &[&str]) -> Self {
        let mut shell = Command::new("/bin/sh");
        let exec = format!("ulimit {limit} && exec \"$0\" \"$@\"");
        shell.args(["-c", &exec, env!("CARGO_BIN_EXE_balancer")]);
        Self::launch(shell, arguments, &[], Stdio::null())
    }

    /// Starts `command`, which becomes the balancer.
    pub(crate) fn launch(
        mut command: Command,
        arguments: &[&str],
        env: &[(&str, &str)],
        stdout: Stdio,
    ) -> Self {
        command
            .args(["--log-format", "json"])
            .args(arguments)
            .stdout(stdout)
            .stderr(Stdio::piped());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("BALANCER_") {
                command.env_remove(name);
            }
        }
        if !arguments.iter().any(|argument| argument.starts_with("--listen")) {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        for (name, value) in env {
            command.env(name, value);
        }
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (told, serving) = mpsc::channel();
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines_read = Arc::clone(&log);
        let reading = Arc::<Reading>::default();
        let gate = Arc::clone(&reading);
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                gate.wait();
                let event: Value = serde_json::from_str(&line).unwrap_or_default();
                if event["message"] == "balancer is serving" {
                    let at = |field: &str| event[field].as_str().and_then(|at| at.parse().ok());
                    let _first = told.send(at("listen").zip(at("admin")));
                }
                eprintln!("balancer: {line}");
                lines_read.lock().unwrap().push(Event { at: Instant::now(), fields: event });
            }
        });
        let (address, admin) = serving.recv_timeout(PATIENCE).unwrap().unwrap();
        Self { child, address, admin, log, reading }
    }

    /// Starts it and waits until `n` replicas are ready.
    pub(crate) fn with_replicas(n: usize, arguments: &[&str]) -> Self {
        let replicas = n.to_string();
        let balancer = Self::start(&[&["--replicas", &replicas], arguments].concat());
        balancer.wait_for_replicas(n);
        balancer
    }

    /// The lines of its log that say `message`, in order.
    pub(crate) fn events(&self, message: &str) -> Vec<Event> {
        let log = self.log.lock().unwrap();
        log.iter().filter(|event| event.fields["message"] == message).cloned().collect()
    }

    /// All lines of its log, in order.
    pub(crate) fn log(&self) -> Vec<Event> {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        request(self.address, "GET", path, &[], b"")
    }

    /// A JSON body to an admin route.
    pub(crate) fn json(&self, method: &str, path: &str, body: &str) -> Answer {
        let json = [("Content-Type", "application/json")];
        request(self.admin, method, path, &json, body.as_bytes())
    }

    /// What `/rep` lists.
    pub(crate) fn replicas(&self) -> Vec<String> {
        let answer = request(self.admin, "GET", "/rep", &[], b"");
        assert_eq!(answer.status, 200, "{answer:?}");
        let names = answer.json()["message"]["replicas"].clone();
        serde_json::from_value(names).unwrap()
    }

    /// Waits until `/rep` lists `n` replicas; tells them.
    pub(crate) fn wait_for_replicas(&self, n: usize) -> Vec<String> {
        wait_for(&format!("{n} replicas"), || {
            Some(self.replicas()).filter(|replicas| replicas.len() == n)
        })
    }

    /// Reads the log no further.
    pub(crate) fn stop_reading(&self) {
        self.reading.pause(true);
    }

    /// Reads the log again, from where it stopped.
    pub(crate) fn read_on(&self) {
        self.reading.pause(false);
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal);
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        wait_for("the end of the balancer", || self.child.try_wait().unwrap())
    }

    /// Returns how it ended, if it has.
    pub(crate) fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// The processes of its replicas, by seat.
    pub(crate) fn replica_processes(&self) -> BTreeMap<u32, u32> {
        children_of(self.pid()).into_iter().filter_map(|pid| Some((seat_of(pid)?, pid))).collect()
    }
}

impl Reading {
    fn pause(&self, pause: bool) {
        *self.paused.lock().unwrap() = pause;
        self.changed.notify_all();
    }

    fn wait(&self) {
        let paused = self.paused.lock().unwrap();
        drop(self.changed.wait_while(paused, |paused| *paused).unwrap());
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill.
        let _killed = self.child.kill();
        let _ended = self.child.wait();
        self.reading.pause(false);
    }
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// The message of an envelope; its status must fit.
    pub(crate) fn message(&self) -> String {
        let json = self.json();
        let status = if self.status == 200 { "successful" } else { "failure" };
        assert_eq!(json["status"], status, "{self:?}");
        assert_eq!(self.headers["content-type"], "application/json", "{self:?}");
        json["message"].as_str().map_or_else(|| json["message"].to_string(), str::to_owned)
    }
}

/// One request on a connection of its own.
pub(crate) fn request(
    to: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    try_request(to, method, path, headers, body).unwrap()
}

/// The same; an error when no whole answer came.
pub(crate) fn try_request(
    to: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> std::io::Result<Answer> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        head += &format!("Host: {to}\r\n");
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    if !body.is_empty() {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    head += "\r\n";
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&[head.as_bytes(), body].concat())?;
    read_answer(&mut stream, method == "HEAD")
}

/// Reads an answer to the end of its connection and checks that it is whole: `InvalidData` when it
/// is not, `UnexpectedEof` when there is none at all.
pub(crate) fn read_answer(stream: &mut TcpStream, head_only: bool) -> std::io::Result<Answer> {
    let cut = || std::io::Error::new(std::io::ErrorKind::InvalidData, "answer was cut short");
    let mut raw = Vec::new();
    stream.read_to_end(&mut raw)?;
    if raw.is_empty() {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    let end = raw.windows(4).position(|window| window == b"\r\n\r\n").ok_or_else(cut)?;
    let head = String::from_utf8_lossy(&raw[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let mut body = raw[end + 4..].to_vec();
    if headers.get("transfer-encoding").is_some_and(|coding| coding == "chunked") {
        body = dechunked(&body).ok_or_else(cut)?;
    } else if let Some(length) = headers.get("content-length").filter(|_| !head_only)
        && body.len() != length.parse::<usize>().map_err(std::io::Error::other)?
    {
        return Err(cut());
    }
    Ok(Answer { status: status.ok_or_else(cut)?, headers, body })
}

/// A chunked body's content; `None` when its last chunk is missing.
fn dechunked(mut raw: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = raw.windows(2).position(|window| window == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&raw[..end]).ok()?, 16).ok()?;
        raw = &raw[end + 2..];
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(raw.get(..size)?);
        raw = raw.get(size + 2..)?;
    }
}

/// Polls until `condition` gives something; panics with `what` when that takes too long.
pub(crate) fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        #[expect(clippy::disallowed_methods, reason = "a pause between two looks, not a wait")]
        thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn kill(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid.try_into().unwrap()).unwrap();
    // The process may have ended by itself meanwhile.
    let _told = kill_process(pid, signal);
}

/// The living child processes of `parent` (a zombie does not live); for a replica's shim, the
/// processes below it in its place.
pub(crate) fn children_of(parent: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").unwrap();
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let children = pids.filter(|pid| is_child(*pid, parent));
    let below = |pid| if is_shim(pid) { children_of(pid) } else { vec![pid] };
    children.flat_map(below).collect()
}

/// Whether a process is the one between the balancer and a replica.
pub(crate) fn is_shim(pid: u32) -> bool {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim_end() == "replica-shim"
}

fn is_child(pid: u32, parent: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let Some((_, rest)) = stat.rsplit_once(')') else { return false };
    let mut fields = rest.split_whitespace();
    let lives = fields.next().is_some_and(|state| state != "Z" && state != "X");
    lives && fields.next().and_then(|ppid| ppid.parse().ok()) == Some(parent)
}

/// Whether a process lives.
pub(crate) fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

fn seat_of(pid: u32) -> Option<u32> {
    variable_of(pid, "SERVER_ID=")
}

/// The port that a replica's process listens on.
pub(crate) fn port_of(pid: u32) -> u16 {
    variable_of(pid, "PORT=").unwrap()
}

/// A variable of a process's environment; `name` ends in `=`.
pub(crate) fn variable_of<T: FromStr>(pid: u32, name: &str) -> Option<T> {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    let text = String::from_utf8_lossy(&environment).into_owned();
    text.split('\0').find_map(|variable| variable.strip_prefix(name)?.parse().ok())
}

/// How many connections are open to a port of 127.0.0.1.
pub(crate) fn connections_to(port: u16) -> usize {
    let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let local = format!("0100007F:{port:04X}");
    let established = |line: &&str| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next() == Some(local.as_str()) && fields.nth(1) == Some("01")
    };
    sockets.lines().filter(established).count()
}
