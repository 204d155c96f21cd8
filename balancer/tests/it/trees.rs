//! Replicas that are more than one process: all of them end with the replica, and with the
//! balancer.

use std::io::Write as _;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use tempfile::NamedTempFile;

use crate::support::{Balancer, children_of, is_shim, kill, lives, wait_for};

/// A script that starts a server in the background, and before it a daemon in a session of its own,
/// whose parent has ended.
const SCRIPT: &str = "setsid sh -c 'setsid sleep 1000 &'\nBALANCER replica &\nwait\n";

/// A balancer whose replicas run [`SCRIPT`].
struct Scripted {
    balancer: Balancer,
    /// A variable of its replicas that no other process has.
    mark: String,
    _script: NamedTempFile,
}

/// The processes of one replica.
#[derive(Debug)]
struct Processes {
    script: u32,
    server: u32,
    daemon: u32,
}

impl Scripted {
    fn start() -> Self {
        let mut script = NamedTempFile::new().unwrap();
        let text = SCRIPT.replace("BALANCER", env!("CARGO_BIN_EXE_balancer"));
        script.write_all(text.as_bytes()).unwrap();
        let mark = format!("TREE={}", script.path().display());
        let command = format!("sh {}", script.path().display());
        let arguments = ["--command", &command, "--env", &mark, "--replicas", "1"];
        let balancer = Balancer::start(&arguments);
        balancer.wait_for_replicas(1);
        Self { balancer, mark, _script: script }
    }

    /// All living processes of its replicas.
    fn living(&self) -> Vec<u32> {
        let entries = std::fs::read_dir("/proc").unwrap();
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let is_marked = |pid: &u32| {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == self.mark.as_bytes())
        };
        pids.filter(|pid| is_marked(pid) && lives(*pid) && !is_shim(*pid)).collect()
    }

    /// Waits until exactly one whole replica runs.
    fn processes(&self) -> Processes {
        wait_for("script, server and daemon", || {
            let living = self.living();
            let with = |word: &str| {
                let mut with = living.iter().filter(|pid| command_line(**pid).contains(word));
                with.next().copied().filter(|_| with.next().is_none())
            };
            let script = with(self.mark.strip_prefix("TREE=").unwrap())?;
            let (server, daemon) = (with("balancer replica")?, with("sleep 1000")?);
            (living.len() == 3).then_some(Processes { script, server, daemon })
        })
    }
}

/// The words of a process.
fn command_line(pid: u32) -> String {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).replace('\0', " ")
}

/// The shims of a balancer.
fn shims(balancer: &Balancer) -> Vec<u32> {
    let list = format!("/proc/{0}/task/{0}/children", balancer.pid());
    let list = std::fs::read_to_string(list).unwrap();
    list.split_whitespace().filter_map(|pid| pid.parse().ok()).filter(|pid| is_shim(*pid)).collect()
}

/// The dead children that a process has not waited for.
fn zombies_of(parent: u32) -> usize {
    let entries = std::fs::read_dir("/proc").unwrap();
    let stats =
        entries.filter_map(|entry| std::fs::read_to_string(entry.ok()?.path().join("stat")).ok());
    let zombie = format!(" Z {parent} ");
    stats
        .filter(|stat| stat.rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(&zombie)))
        .count()
}

#[test]
fn what_a_killed_script_leaves_behind_is_killed_before_its_seat_is_filled() {
    let scripted = Scripted::start();
    let first = scripted.processes();
    kill(first.script, Signal::KILL);
    let balancer = &scripted.balancer;
    wait_for("its death", || balancer.events("replica is dead").pop());
    assert!(!lives(first.server) && !lives(first.daemon), "{first:?}");
    let second = scripted.processes();
    assert!(second.server != first.server && second.daemon != first.daemon, "{second:?}");
    wait_for("the next", || (!balancer.replicas().is_empty()).then_some(()));
    let reason = balancer.events("replica is dead").pop().unwrap().fields["reason"].clone();
    assert_eq!(reason, "killed by signal 9");
}

#[test]
fn a_clean_stop_leaves_nothing() {
    let mut scripted = Scripted::start();
    scripted.processes();
    scripted.balancer.signal(Signal::TERM);
    assert!(scripted.balancer.wait().success());
    assert!(scripted.living().is_empty(), "{:?}", scripted.living());
}

#[test]
fn a_balancer_that_is_killed_leaves_nothing() {
    let mut scripted = Scripted::start();
    scripted.processes();
    let shims = shims(&scripted.balancer);
    assert_eq!(shims.len(), 1);
    scripted.balancer.signal(Signal::KILL);
    assert!(!scripted.balancer.wait().success());
    wait_for("the end of all", || scripted.living().is_empty().then_some(()));
    wait_for("the end of the shim", || (!lives(shims[0])).then_some(()));
}

#[test]
fn a_shim_that_is_killed_leaves_nothing_and_its_seat_is_filled_once() {
    let scripted = Scripted::start();
    let first = scripted.processes();
    kill(shims(&scripted.balancer)[0], Signal::KILL);
    let balancer = &scripted.balancer;
    wait_for("its death", || balancer.events("replica is dead").pop());
    assert!([first.script, first.server, first.daemon].iter().all(|pid| !lives(*pid)));
    scripted.processes();
    wait_for("no zombie", || (zombies_of(balancer.pid()) == 0).then_some(()));
}

#[test]
fn children_that_the_balancer_inherits_do_not_stay_zombies() {
    let mut shell = Command::new("/bin/sh");
    // The child ends before or after the shell becomes the balancer.
    shell.args(["-c", "true & exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_balancer")]);
    let balancer = Balancer::launch(shell, &["--replicas", "1"], &[], Stdio::null());
    balancer.wait_for_replicas(1);
    wait_for("no zombie", || (zombies_of(balancer.pid()) == 0).then_some(()));
    assert_eq!(children_of(balancer.pid()).len(), 1);
}

#[test]
fn a_replica_inherits_no_descriptors_and_no_signal_settings() {
    let mut shell = Command::new("/bin/sh");
    let exec = "trap '' HUP INT USR1 PIPE; exec 7</dev/null; exec \"$0\" \"$@\"";
    shell.args(["-c", exec, env!("CARGO_BIN_EXE_balancer")]);
    let arguments = ["--command", "sleep 600", "--replicas", "1", "--admin-listen", "127.0.0.1:0"];
    let balancer = Balancer::launch(shell, &arguments, &[], Stdio::null());
    let replica = wait_for("the replica", || {
        let replica = *balancer.replica_processes().get(&1)?;
        command_line(replica).starts_with("sleep").then_some(replica)
    });
    assert!(std::fs::exists(format!("/proc/{}/fd/7", balancer.pid())).unwrap());
    let descriptors = std::fs::read_dir(format!("/proc/{replica}/fd")).unwrap();
    let mut descriptors: Vec<String> =
        descriptors.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    descriptors.sort();
    assert_eq!(descriptors, ["0", "1", "2"]);
    let input = std::fs::read_link(format!("/proc/{replica}/fd/0")).unwrap();
    assert_eq!(input.to_str(), Some("/dev/null"));
    let status = std::fs::read_to_string(format!("/proc/{replica}/status")).unwrap();
    let mask = |name: &str| {
        let mask = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        u64::from_str_radix(mask.trim(), 16).unwrap()
    };
    // Signals 32 and 33 belong to the C library, which lets no program change them.
    assert_eq!((mask("SigBlk:"), mask("SigIgn:") & !(3 << 31)), (0, 0), "{status}");
    // Its session and its group are its own, not those of the balancer's terminal.
    let stat = std::fs::read_to_string(format!("/proc/{replica}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let [shim] = shims(&balancer)[..] else { panic!("one replica has one shim") };
    let expected = [&shim.to_string(), &replica.to_string(), &shim.to_string()];
    assert_eq!(fields[1..4], expected, "parent, group, session");
}

#[test]
fn a_command_that_cannot_be_run_is_an_error_at_the_start() {
    for (command, why) in [
        ("no-such-program --x", "'command' cannot be run: \"no-such-program\": no such program"),
        ("/no/such/program", "'command' cannot be run: \"/no/such/program\": no such file"),
        ("/etc/passwd", "'command' cannot be run: \"/etc/passwd\": not an executable file"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_balancer"))
            .args(["--listen", "127.0.0.1:0", "--command", command])
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains(why), "{error}");
    }
}
