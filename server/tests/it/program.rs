//! The real program: its environment, its signals, its exit code.

use std::net::SocketAddr;
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};

use crate::client::{Client, in_time};

struct Program {
    child: Child,
    lines: Lines<BufReader<ChildStderr>>,
    address: SocketAddr,
}

/// The program with nothing in its environment but `environment`; killed when dropped.
fn command(arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_server"));
    command.args(arguments).env_clear().envs(environment.iter().copied());
    command.stdin(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// The exit status and the standard error of a program that ends by itself.
async fn fails(arguments: &[&str], environment: &[(&str, &str)]) -> (ExitStatus, String) {
    let mut child = command(arguments, environment).spawn().unwrap();
    let mut text = String::new();
    in_time(child.stderr.take().unwrap().read_to_string(&mut text)).await.unwrap();
    (in_time(child.wait()).await.unwrap(), text)
}

fn send_signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id().unwrap()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

impl Program {
    async fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut child = command(arguments, environment).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let line = in_time(lines.next_line()).await.unwrap().unwrap();
        let (_, address) = line.split_once(" listens on ").expect(&line);
        Self { address: address.parse().unwrap(), child, lines }
    }

    async fn client(&self) -> Client {
        Client::connect(self.address).await
    }

    async fn line(&mut self) -> Option<String> {
        in_time(self.lines.next_line()).await.unwrap()
    }

    async fn exit(mut self) -> ExitStatus {
        in_time(self.child.wait()).await.unwrap()
    }
}

async fn finishes_what_is_in_flight_on(signal: Signal, name: &str) {
    let mut program = Program::start(&["--port=0", "--latency=300ms"], &[]).await;
    let mut idle = program.client().await;
    assert_eq!(idle.ask("GET", "/heartbeat").await.status, 200);
    let mut client = program.client().await;
    client.send("GET", "/home").await;
    assert_eq!(program.client().await.ask("GET", "/heartbeat").await.status, 200);
    assert!(!client.has_answer().await);

    send_signal(&program.child, signal);
    assert_eq!(program.line().await, Some(format!("server 1 stops: {name}")));
    let answer = client.receive().await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body, r#"{"message":"Hello from Server: 1","status":"successful"}"#);
    idle.closed().await;
    assert_eq!(program.line().await.as_deref(), Some("server 1 has stopped"));
    assert_eq!(program.exit().await.code(), Some(0));
}

#[tokio::test]
async fn sigterm_finishes_the_request_in_flight_and_exits_0() {
    finishes_what_is_in_flight_on(Signal::TERM, "SIGTERM").await;
}

#[tokio::test]
async fn sigint_finishes_the_request_in_flight_and_exits_0() {
    finishes_what_is_in_flight_on(Signal::INT, "SIGINT").await;
}

#[tokio::test]
async fn a_request_that_outlasts_the_deadline_does_not_outlast_the_program() {
    let arguments = ["--port=0", "--latency=1h", "--shutdown-timeout=50ms"];
    let program = Program::start(&arguments, &[]).await;
    let mut client = program.client().await;
    client.send("GET", "/home").await;
    assert_eq!(program.client().await.ask("GET", "/heartbeat").await.status, 200);
    send_signal(&program.child, Signal::TERM);
    assert_eq!(program.exit().await.code(), Some(0));
    client.closed().await;
}

#[tokio::test]
async fn a_stop_needs_nobody_who_reads_the_log() {
    let Program { mut child, lines, address } = Program::start(&["--port=0"], &[]).await;
    drop(lines);
    assert_eq!(Client::connect(address).await.ask("GET", "/home").await.status, 200);
    send_signal(&child, Signal::TERM);
    assert_eq!(in_time(child.wait()).await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn the_environment_sets_what_the_contract_names() {
    let program = Program::start(
        &[],
        &[("PORT", "0"), ("SERVER_ID", "7"), ("USERNAME", "bob"), ("SKIP_SOME_REQUESTS", "true")],
    )
    .await;
    assert!(program.address.ip().is_loopback());
    let mut client = program.client().await;
    let home = client.ask("GET", "/home").await;
    assert_eq!(home.body, r#"{"message":"Hello from Server: 7","status":"successful"}"#);

    let mut seen = std::collections::BTreeSet::new();
    in_time(async {
        while seen.len() < 3 {
            seen.insert(client.ask("POST", "/register?username=bob").await.status);
            seen.insert(client.ask("POST", "/register?username=eve").await.status);
        }
    })
    .await;
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [201, 404, 500]);
}

#[tokio::test]
async fn the_listen_variable_wins_over_the_port_and_a_flag_over_both() {
    let environment = [("PORT", "1"), ("SERVER_LISTEN", "127.0.0.2:0")];
    let program = Program::start(&[], &environment).await;
    assert_eq!(program.address.ip().to_string(), "127.0.0.2");
    let program = Program::start(&["--listen=127.0.0.3:0"], &environment).await;
    assert_eq!(program.address.ip().to_string(), "127.0.0.3");
}

#[tokio::test]
async fn every_other_option_is_a_variable_too() {
    let program = Program::start(
        &[],
        &[
            ("SERVER_LISTEN", "127.0.0.1:0"),
            ("SERVER_WORKERS", "2"),
            ("SERVER_LATENCY", "1h"),
            ("SERVER_SLOW_SHARE", "0.5"),
            ("SERVER_SLOW_FACTOR", "2"),
            ("SERVER_CONCURRENCY", "1"),
            ("SERVER_QUEUE", "0"),
            ("SERVER_SEED", "1"),
            ("SERVER_JOURNAL", "127.0.0.1:9"),
            ("SERVER_START_DELAY", "1h"),
            ("SERVER_START_DELAY_SHARE", "0"),
            ("SERVER_SHUTDOWN_TIMEOUT", "0ms"),
        ],
    )
    .await;
    let mut client = program.client().await;
    client.send("GET", "/home").await;
    let mut other = program.client().await;
    other.send("GET", "/home").await;
    let refused = tokio::select! {
        answer = client.receive() => answer,
        answer = other.receive() => answer,
    };
    assert_eq!(refused.status, 503);
    send_signal(&program.child, Signal::TERM);
    assert_eq!(program.exit().await.code(), Some(0));
}

#[tokio::test]
async fn a_delayed_start_listens_later_and_can_be_stopped_meanwhile() {
    let arguments = ["--port=0", "--start-delay=50ms"];
    let mut child = command(&arguments, &[]).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut line = async || in_time(lines.next_line()).await.unwrap().unwrap();
    assert_eq!(line().await, "server 1 waits 50ms before it listens");
    assert!(line().await.starts_with("server 1 listens on "));

    let mut child = command(&["--port=0", "--start-delay=1h"], &[]).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(in_time(lines.next_line()).await.unwrap().unwrap().contains("waits 3600s"));
    send_signal(&child, Signal::TERM);
    assert_eq!(in_time(child.wait()).await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn a_bad_value_in_the_environment_is_refused_by_name() {
    for (variable, value, option) in [
        ("SERVER_SLOW_SHARE", "2", "--slow-share"),
        ("SERVER_CONCURRENCY", "none", "--concurrency"),
        ("SKIP_SOME_REQUESTS", "maybe", "--skip-some-requests"),
        ("PORT", "http", "--port"),
        ("SERVER_JOURNAL", "nowhere", "--journal"),
        ("SERVER_START_DELAY_SHARE", "7", "--start-delay-share"),
    ] {
        let (status, error) = fails(&[], &[(variable, value)]).await;
        assert_eq!(status.code(), Some(2), "{variable}");
        assert!(error.contains(option) && error.contains(value), "{error}");
    }
}

#[tokio::test]
async fn a_queue_without_concurrency_and_a_taken_port_are_refused_in_one_line() {
    let (status, error) = fails(&["--port=0", "--queue=3"], &[]).await;
    assert_eq!(status.code(), Some(1));
    assert!(error.starts_with("error: --queue 3 is given without --concurrency"), "{error}");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (status, error) = fails(&["--listen", &address], &[]).await;
    assert_eq!(status.code(), Some(1));
    let expected =
        format!("error: cannot listen on {address}: Address already in use (os error 98)\n");
    assert_eq!(error, expected);
}
