//! Requests that kill replicas: processes that end as soon as they read `/kill`, and never answer
//! it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};

use rustix::process::Signal;
use tempfile::NamedTempFile;

use crate::conformance::client::Client;
use crate::conformance::over;
use crate::conformance::upstream::{Then, Upstream};
use crate::load::Load;
use crate::support::{Balancer, kill, lives, request, wait_for};

/// The name of the test that is a replica when it gets a port.
const REPLICA: &str = "faults::deadly::replica_that_ends_at_kill";

const REPLICAS: usize = 6;

/// Is no test: the balancer starts this program with this test and a port, as a replica.
#[test]
#[ignore = "a replica, started by the balancer"]
fn replica_that_ends_at_kill() {
    let port = std::env::args().next_back().and_then(|port| port.parse::<u16>().ok());
    // All ignored tests may be run by hand.
    let Some(port) = port else { return };
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    for stream in listener.incoming().map_while(Result::ok) {
        std::thread::spawn(move || answer(stream));
    }
}

/// Answers requests until the connection ends. It reads no body: no request here has one.
fn answer(stream: TcpStream) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
        }
        if head.split(' ').nth(1) == Some("/kill") {
            #[expect(clippy::disallowed_methods, reason = "it dies without an answer")]
            std::process::exit(1);
        }
        // The balancer may have given the request up.
        let _written =
            stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    }
}

/// A balancer over six such replicas, with this configuration.
fn balancer(text: &str) -> (Balancer, NamedTempFile) {
    let file = NamedTempFile::with_suffix(".toml").unwrap();
    std::fs::write(file.path(), text).unwrap();
    let program = std::env::current_exe().unwrap();
    let command =
        format!("{} --ignored --exact --nocapture {REPLICA} {{port}}", program.to_str().unwrap());
    let arguments = ["--command", &command, "--config", file.path().to_str().unwrap()];
    // Many connections are open before one is used for /kill.
    let balancer =
        Balancer::with_replicas(REPLICAS, &[&arguments[..], &["--workers", "2"]].concat());
    (balancer, file)
}

fn deaths(balancer: &Balancer) -> usize {
    balancer.events("replica is dead").len()
}

/// Sends the request with another key each time; none gets an answer of a replica.
fn sends_kill(balancer: &Balancer, method: &str, times: usize) {
    for id in 0..times {
        let id = id.to_string();
        let answer = request(balancer.address, method, "/kill", &[("X-Request-Id", &id)], b"");
        assert_eq!(answer.status, 502, "{answer:?}");
    }
}

/// All seats have a replica again that answers.
fn is_whole(balancer: &Balancer) {
    balancer.wait_for_replicas(REPLICAS);
    for id in 0..60 {
        let id = id.to_string();
        let answer = request(balancer.address, "GET", "/", &[("X-Request-Id", &id)], b"");
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

#[test]
fn a_request_that_kills_replicas_never_takes_more_than_two() {
    for (text, method) in [
        ("", "GET"),
        ("", "POST"),
        ("[[route]]\npaths = [\"/*\"]\nhedge = { after = \"5ms\", budget = \"100%\" }", "GET"),
        (
            "[[route]]\npaths = [\"/*\"]\nsend = \"first\"\nfan = 1\nattempts = 3\n\
          backoff = { base = \"1ms\", max = \"1ms\", jitter = \"0s\" }",
            "GET",
        ),
    ] {
        let (balancer, _file) = balancer(text);
        // Connections to all of them are idle.
        is_whole(&balancer);
        sends_kill(&balancer, method, 10);
        wait_for("the quarantine", || balancer.events("request quarantined").pop());
        sends_kill(&balancer, method, 10);
        // A worker may log the quarantine before the supervisor logs the deaths.
        wait_for("the news of the deaths", || (deaths(&balancer) >= 2).then_some(()));
        assert_eq!(deaths(&balancer), 2, "{method} {text}");
        let quarantined = balancer.events("request quarantined");
        assert_eq!(quarantined.len(), 1);
        assert_eq!(quarantined[0].fields["request"], format!("{method} /kill"));
        is_whole(&balancer);

        let events = request(balancer.admin, "GET", "/admin/events", &[], b"").json();
        let events = events["message"]["events"].as_array().unwrap().clone();
        let told = events.iter().find(|event| event["event"] == "quarantined").unwrap();
        let reason = told["reason"].as_str().unwrap();
        assert!(reason.starts_with(&format!("{method} /kill was in flight at S")), "{reason}");
        assert!(reason.ends_with("it is answered 502 for 30s"), "{reason}");
        let metrics = String::from_utf8(balancer.get("/metrics").body).unwrap();
        assert!(
            metrics.contains("\nbalancer_events_total{event=\"quarantined\"} 1\n"),
            "{metrics}"
        );
        let counted = metrics.lines().find_map(|line| {
            line.strip_prefix("balancer_quarantined_requests_total ")?.parse::<u64>().ok()
        });
        assert!(counted.unwrap() >= 10, "{counted:?}");
    }
}

#[test]
fn the_client_is_told_why_and_after_the_cool_down_period_one_more_replica_dies_at_most() {
    let (balancer, _file) = balancer("[retry]\nquarantine = \"1s\"");
    is_whole(&balancer);
    sends_kill(&balancer, "GET", 10);
    wait_for("the news of the deaths", || (deaths(&balancer) == 2).then_some(()));
    let answer = request(balancer.address, "GET", "/kill", &[], b"");
    let why = "in flight at two replicas whose connections broke";
    assert!(answer.message().contains(why), "{answer:?}");
    // Others are served meanwhile, also the same path with another method or query.
    assert_eq!(request(balancer.address, "GET", "/kill?other", &[], b"").status, 200);
    is_whole(&balancer);
    wait_for("the end of the quarantine", || {
        sends_kill(&balancer, "GET", 1);
        (deaths(&balancer) > 2).then_some(())
    });
    sends_kill(&balancer, "GET", 10);
    wait_for("the next quarantine", || balancer.events("request quarantined").into_iter().nth(1));
    assert!(deaths(&balancer) <= 4, "{}", deaths(&balancer));
    is_whole(&balancer);
}

#[test]
fn zero_turns_the_quarantine_off_and_each_request_still_kills_two_at_most() {
    let (balancer, _file) = balancer("[retry]\nquarantine = \"0s\"");
    is_whole(&balancer);
    for round in 1..=2 {
        sends_kill(&balancer, "GET", 1);
        wait_for("the news of the deaths", || (deaths(&balancer) == 2 * round).then_some(()));
        is_whole(&balancer);
        assert_eq!(deaths(&balancer), 2 * round, "one attempt and one retry");
    }
    assert!(balancer.events("request quarantined").is_empty());
}

#[test]
fn requests_in_flight_at_replicas_that_an_operator_kills_are_not_blamed() {
    let balancer = Balancer::with_replicas(4, &["--respawn-base", "10ms"]);
    let load = Load::start(balancer.address);
    for round in 1..=4 {
        // Two at once, again and again within a minute.
        // At the same moment, for the balancer: it does not run meanwhile.
        let victims: Vec<u32> = balancer.replica_processes().into_values().take(2).collect();
        balancer.signal(Signal::STOP);
        victims.iter().for_each(|pid| kill(*pid, Signal::KILL));
        wait_for("both deaths", || (!victims.iter().any(|pid| lives(*pid))).then_some(()));
        balancer.signal(Signal::CONT);
        wait_for("the news of the deaths", || (deaths(&balancer) >= 2 * round).then_some(()));
        wait_for("all replicas", || (balancer.replica_processes().len() == 4).then_some(()));
        balancer.wait_for_replicas(4);
        load.wait_for_more();
    }
    load.end();
    assert!(balancer.events("request quarantined").is_empty());
}

#[test]
fn a_request_that_breaks_connections_of_replicas_that_live_on_is_sent_again_later() {
    let closer = || {
        Upstream::start(|exchange| {
            if exchange.head.target() == "/bad" { Then::Close } else { exchange.play() }
        })
    };
    let upstreams = [closer(), closer(), closer()];
    let [a, b, c] = &upstreams;
    let balancer = over(&[a, b, c], &["--health-interval", "1h", "--outliers-consecutive", "0"]);
    let seen = || upstreams.iter().map(|each| each.seen_with("GET /bad ").len()).sum::<usize>();
    let ask = |path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        Client::sending(&balancer, request.as_bytes()).must_answer(path).status
    };
    assert_eq!(ask("/bad"), 502);
    assert_eq!(seen(), 2, "it is retried once");
    assert_eq!(ask("/good"), 200);
    // For a moment it cannot be told whether they have died.
    wait_for("another attempt", || {
        assert_eq!(ask("/bad"), 502);
        (seen() > 2).then_some(())
    });
    assert!(balancer.events("request quarantined").is_empty());
}
