//! What others wrote stays one line in the log and one string in an answer, and a log that cannot
//! be written stops nothing.

use std::fs::File;
use std::io::Read as _;
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::process::Signal;

use crate::engine::{Call, Engine, Fault};
use crate::support::{kill, request, try_request, wait_for};

/// What could pass for a line of the log, a colour, and a title of the terminal.
const FORGED: &str = "x\r\n2026-01-01T00:00:00Z  WARN forged\u{1b}[31m\u{1b}]0;t\u{7}\u{9b}y";

/// A balancer by hand, with a text log; killed when dropped.
struct Plain {
    child: std::process::Child,
    address: SocketAddr,
}

impl Plain {
    /// Starts it on a port that was free a moment ago, its log going to `log`.
    fn start(arguments: &[&str], env: &[(&str, &str)], log: Stdio, out: Stdio) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_balancer"))
            .args(["--listen", &address.to_string()])
            .args(arguments)
            .envs(env.iter().copied())
            .stdout(out)
            .stderr(log)
            .spawn()
            .unwrap();
        Self { child, address }
    }

    fn wait_for_replicas(&self, n: usize) {
        wait_for("replicas", || {
            let answer = try_request(self.address, "GET", "/rep", &[], b"").ok()?;
            (answer.json()["message"]["N"] == n).then_some(())
        });
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill.
        let _killed = self.child.kill();
        let _ended = self.child.wait();
    }
}

#[test]
fn line_ends_and_escapes_in_names_paths_fields_and_messages_never_reach_the_log_raw() {
    for format in ["text", "json"] {
        let engine = Engine::start();
        let arguments =
            ["--runtime", "docker", "--replicas", "0", "--log-format", format, "--log-level"];
        let host = engine.host();
        let mut balancer = Plain::start(
            &[&arguments[..], &["trace"]].concat(),
            &[("DOCKER_HOST", &host)],
            Stdio::piped(),
            Stdio::null(),
        );
        let log = Arc::new(Mutex::new(Vec::new()));
        let mut lines = balancer.child.stderr.take().unwrap();
        let written = Arc::clone(&log);
        let reader = thread::spawn(move || {
            let mut piece = [0; 4_096];
            while let Ok(n @ 1..) = lines.read(&mut piece) {
                written.lock().unwrap().extend_from_slice(&piece[..n]);
            }
        });
        balancer.wait_for_replicas(0);

        // The engine's words, in an answer and in the log.
        engine.fail(Call::Create, Fault::Status(500, FORGED), None);
        engine.fail(Call::List, Fault::Status(500, FORGED), Some(1));
        let json = [("Content-Type", "application/json")];
        let add = |body: &str| request(balancer.address, "POST", "/add", &json, body.as_bytes());
        let answer = add(r#"{"n":1}"#);
        assert_eq!(answer.status, 500, "{answer:?}");
        assert!(!answer.body.iter().any(u8::is_ascii_control), "{answer:?}");
        // A client's: a name, a path, fields, the start line.
        let name = serde_json::json!({"n": 1, "hostnames": [FORGED]}).to_string();
        assert_eq!(add(&name).status, 400);
        for path in ["/a%0d%0aWARN%20forged%1b[31m", "/a\u{1b}[31mforged", "/a\rforged"] {
            // Refused or not: what counts is what is written.
            let _answer = try_request(balancer.address, "GET", path, &[], b"");
        }
        for field in ["a\u{1b}[31mforged", "a\rforged", "a\u{9b}forged"] {
            for name in ["X-Request-Id", "Host", "Upgrade", "X-Forwarded-For"] {
                let _answer = try_request(balancer.address, "GET", "/", &[(name, field)], b"");
            }
        }
        // A container that somebody labelled so.
        let labels = [("pool", "default"), ("seat", FORGED), ("hostname", FORGED)];
        let labels = labels.map(|(name, value)| (format!("balancer.{name}"), value.to_owned()));
        engine.world().create("forged", labels.into(), "stranger").unwrap();
        let listed = engine.calls(Call::List).len();
        wait_for("listings", || (engine.calls(Call::List).len() >= listed + 2).then_some(()));

        kill(balancer.child.id(), Signal::TERM);
        wait_for("the end", || balancer.child.try_wait().unwrap());
        reader.join().unwrap();
        let log = String::from_utf8(log.lock().unwrap().clone()).expect("a log is text");
        assert!(log.contains("forged"), "{format}: nothing of it was logged: {log}");
        for line in log.lines() {
            let whole = match format {
                "json" => line.starts_with("{\"timestamp\"") && line.ends_with('}'),
                _ => line.starts_with("20") && !line.starts_with("2026-01-01T00:00:00Z"),
            };
            assert!(whole, "{format}: not one line for one event: {line:?}");
            assert!(!line.contains(char::is_control), "{format}: {line:?}");
        }
    }
}

#[test]
fn a_log_that_cannot_be_written_stops_nothing() {
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    let arguments = ["--replicas", "2", "--log-level", "trace"];
    let mut balancer = Plain::start(&arguments, &[], full(), full());
    balancer.wait_for_replicas(2);
    for _ in 0..20 {
        assert_eq!(request(balancer.address, "GET", "/home", &[], b"").status, 200);
    }
    let json = [("Content-Type", "application/json")];
    let change = |method: &str, path: &str| {
        request(balancer.address, method, path, &json, br#"{"n":1}"#).status
    };
    assert_eq!(change("POST", "/add"), 200);
    assert_eq!(change("DELETE", "/rm"), 200);
    kill(crate::support::children_of(balancer.child.id())[0], Signal::KILL);
    balancer.wait_for_replicas(2);
    kill(balancer.child.id(), Signal::TERM);
    let ended = wait_for("the end", || balancer.child.try_wait().unwrap());
    assert_eq!(ended.code(), Some(0));
}

#[test]
fn a_log_that_nobody_reads_any_more_stops_nothing() {
    let arguments = ["--replicas", "1", "--log-level", "trace"];
    let mut balancer = Plain::start(&arguments, &[], Stdio::piped(), Stdio::piped());
    drop((balancer.child.stderr.take(), balancer.child.stdout.take()));
    balancer.wait_for_replicas(1);
    kill(crate::support::children_of(balancer.child.id())[0], Signal::KILL);
    wait_for("an answer of the next one", || {
        let answer = try_request(balancer.address, "GET", "/home", &[], b"").ok()?;
        (answer.status == 200).then_some(())
    });
    kill(balancer.child.id(), Signal::TERM);
    let ended = wait_for("the end", || balancer.child.try_wait().unwrap());
    assert_eq!(ended.code(), Some(0));
}
