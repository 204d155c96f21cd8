//! Runs a controller and reads what it logs.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use rustix::process::Signal;

use crate::support::{kill, wait_for};

/// A running controller; killed when dropped.
pub(super) struct Controller {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

/// `balancer watch` with these flags, and none of the test's own environment that it would read.
pub(super) fn watch(flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_balancer"));
    command.arg("watch").args(flags);
    clean(&mut command);
    command
}

/// One round of it against `api`: its exit code, and all that it said.
pub(super) fn once(api: &str, flags: &[&str]) -> (i32, String) {
    let output = watch(flags).args(["--once", "--api", api]).output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (output.status.code().unwrap(), said)
}

/// A Python 3 with the foreign controller; none where there is no `python3`, which is told, and in
/// CI a failure.
pub(super) fn foreign() -> Option<Command> {
    if Command::new("python3").arg("--version").output().is_err() {
        let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
        assert!(!ci, "python3 is missing: Debian has it in the package 'python3'");
        // A closed stderr is no failure of the test.
        let _said = writeln!(std::io::stderr(), "watch: skipped: python3 is missing");
        return None;
    }
    let mut command = Command::new("python3");
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/overload_controller.py"));
    clean(&mut command);
    Some(command)
}

fn clean(command: &mut Command) {
    let others = ["MIN_NUMBER_OF_SERVERS", "MAX_ACCEPTABLE_LOAD", "UPDATE_INTERVAL", "LOG_LEVEL"];
    let proxies = ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"];
    for (name, _) in std::env::vars_os() {
        let matters = |name: &str| {
            name.starts_with("BALANCER_") || others.contains(&name) || proxies.contains(&name)
        };
        if name.to_str().is_some_and(matters) {
            command.env_remove(name);
        }
    }
}

impl Controller {
    /// `balancer watch` with these flags.
    pub(super) fn watch(api: &str, flags: &[impl AsRef<OsStr>]) -> Self {
        let mut command = watch(&["--api", api]);
        command.args(flags);
        Self::run(command)
    }

    pub(super) fn run(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines_read = Arc::clone(&log);
        // Reads to the end, so that it never waits for its log to be read.
        let reader = thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                eprintln!("controller: {line}");
                lines_read.lock().unwrap().push(line);
            }
        });
        Self { child, log, reader: Some(reader) }
    }

    /// The lines so far that contain `text`, without what comes before their level's name.
    pub(super) fn said(&self, text: &str) -> Vec<String> {
        let log = self.log.lock().unwrap();
        let message = |line: &String| {
            let level = |level| line.split_once(level).map(|(_, message)| message.to_owned());
            [" ERROR ", " WARN ", " WARNING ", " INFO ", " DEBUG "].into_iter().find_map(level)
        };
        log.iter().filter(|line| line.contains(text)).filter_map(message).collect()
    }

    /// Waits until it says `text`.
    pub(super) fn wait_for(&self, text: &str) {
        wait_for(&format!("{text:?} in the controller's log"), || {
            (!self.said(text).is_empty()).then_some(())
        });
    }

    /// Sends it a signal and waits for its end; then all that it said is known.
    pub(super) fn signal(&mut self, signal: Signal) -> ExitStatus {
        kill(self.child.id(), signal);
        let status = wait_for("the end of the controller", || self.child.try_wait().unwrap());
        self.reader.take().unwrap().join().unwrap();
        status
    }

    /// SIGTERM, after which it ends well.
    pub(super) fn end(&mut self) {
        assert_eq!(self.signal(Signal::TERM).code(), Some(0));
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill.
        let _killed = self.child.kill();
        let _ended = self.child.wait();
    }
}
