//! Why a replica is not ready: in the log, as an event, in `/admin/fleet`, and in the errors of
//! `/add` and of rolling updates.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;

use super::listed::Listed;
use super::roll::with_token;
use super::{PROBES, events, fleet, roll, wait_for_event, wait_for_roll};
use crate::support::{Balancer, wait_for};

/// The log line of a reason.
const LINE: &str = "replica not ready";

/// A server that answers health checks by a script and keeps their connections open; ends with the
/// process.
struct Scripted {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

// === impl Scripted ===

impl Scripted {
    /// `script` tells the whole response to a health check by its number.
    fn start(script: impl Fn(usize) -> String + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (heads, script) = (Arc::new(Mutex::new(Vec::new())), Arc::new(script));
        let server = Self { address, heads: Arc::clone(&heads) };
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (heads, script) = (Arc::clone(&heads), Arc::clone(&script));
                thread::spawn(move || Self::serve(stream, &heads, &*script));
            }
        });
        server
    }

    fn serve(stream: TcpStream, heads: &Mutex<Vec<String>>, script: &dyn Fn(usize) -> String) {
        let mut stream = BufReader::new(stream);
        loop {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if stream.read_line(&mut head).unwrap_or(0) == 0 {
                    return;
                }
            }
            let number = {
                let mut heads = heads.lock().unwrap();
                heads.push(head);
                heads.len() - 1
            };
            if stream.get_mut().write_all(script(number).as_bytes()).is_err() {
                return;
            }
        }
    }

    fn checks(&self) -> usize {
        self.heads.lock().unwrap().len()
    }
}

/// The response with this status and no body.
fn status(status: u16) -> String {
    format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n")
}

/// What `/admin/fleet` tells of a replica.
fn replica(balancer: &Balancer, hostname: &str) -> Value {
    let status = fleet(balancer);
    let replicas = status["replicas"].as_array().unwrap();
    let found = replicas.iter().find(|replica| replica["hostname"] == hostname);
    found.unwrap_or_else(|| panic!("no {hostname}: {status}")).clone()
}

/// The reasons in the log so far.
fn logged(balancer: &Balancer) -> Vec<String> {
    let lines = balancer.events(LINE);
    lines.iter().map(|line| line.fields["reason"].as_str().unwrap().to_owned()).collect()
}

/// Waits until a reason is in the log and among the events; tells the event.
fn wait_for_reason(balancer: &Balancer, reason: &str) -> Value {
    wait_for(reason, || logged(balancer).iter().any(|it| it == reason).then_some(()));
    wait_for("its event", || {
        let all = events(balancer, "not-ready");
        all.into_iter().rfind(|event| event["reason"] == reason)
    })
}

#[test]
fn a_server_that_answers_404_to_health_checks_is_reported_once_per_reason() {
    let server = Listed::start("one");
    server.health(404);
    let name = server.address.to_string();
    let balancer = Balancer::start(&[&["--servers", &name], &PROBES[..]].concat());
    let (first, second) = (
        "health check failed: GET /heartbeat returned 404",
        "health check failed: GET /heartbeat returned 503",
    );
    let event = wait_for_reason(&balancer, first);
    assert_eq!((&event["hostname"], &event["state"]), (&name.as_str().into(), &"starting".into()));
    let told = replica(&balancer, &name);
    assert_eq!((&told["state"], &told["reason"]), (&"starting".into(), &first.into()));
    let line = balancer.events(LINE).remove(0).fields;
    assert_eq!((&line["level"], &line["hostname"]), (&"WARN".into(), &name.as_str().into()));

    server.health(503);
    wait_for_reason(&balancer, second);
    assert_eq!(replica(&balancer, &name)["reason"], second);
    server.health(200);
    balancer.wait_for_replicas(1);
    assert!(replica(&balancer, &name)["reason"].is_null());
    assert_eq!(logged(&balancer), [first, second], "once each");
    assert_eq!(fleet(&balancer)["counts"]["not-ready"], 2);
}

#[test]
fn the_reason_of_an_ejected_server_follows_what_its_health_checks_find() {
    let (servers, balancer) = super::listed::over(2, &PROBES);
    let (server, name) = (&servers[0], servers[0].address.to_string());
    server.health(500);
    let ejected = wait_for_event(&balancer, "ejected");
    let reason = "health check failed: GET /heartbeat returned 500";
    assert_eq!((&ejected["hostname"], &ejected["reason"]), (&name.as_str().into(), &reason.into()));
    assert_eq!(replica(&balancer, &name)["reason"], reason);
    server.close();
    let refused = format!("health check failed: connection to {name} refused");
    let event = wait_for_reason(&balancer, &refused);
    assert_eq!(event["state"], "ejected");
    assert_eq!(replica(&balancer, &name)["reason"], refused);
    assert_eq!(logged(&balancer), [refused]);
}

#[test]
fn refused_connections_and_timeouts_are_told_apart() {
    // The kernel accepts, as for a server that hangs.
    let hangs = TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let servers = format!("{closed},{}", hangs.local_addr().unwrap());
    let probes = ["--health-interval", "50ms", "--health-timeout", "100ms"];
    let balancer = Balancer::start(&[&["--servers", &servers], &probes[..]].concat());
    wait_for_reason(&balancer, &format!("health check failed: connection to {closed} refused"));
    wait_for_reason(&balancer, "health check failed: GET /heartbeat timed out after 100ms");
    assert_eq!(logged(&balancer).len(), 2);
}

#[test]
fn a_wrong_health_path_is_in_the_errors_of_add_and_of_a_rolling_update() {
    let path = ["--health-path", "/nothing", "--health-start-deadline", "1s"];
    let balancer = Balancer::start(&[&["--replicas", "0"], &path[..]].concat());
    let reason = "health check failed: GET /nothing returned 404";
    let answer = balancer.json("POST", "/add", r#"{"n":1,"hostnames":["one"]}"#);
    assert_eq!(answer.status, 500, "{answer:?}");
    let expected = format!("<Error> replica \"one\" was not ready within 1s: {reason}");
    assert_eq!(answer.message(), expected);
    assert_eq!(events(&balancer, "not-ready")[0]["reason"], reason);
    assert_eq!(events(&balancer, "never-ready")[0]["reason"], reason);

    let balancer = with_token(1, &["--health-start-deadline", "1s"]);
    assert_eq!(roll(&balancer, r#"{"command":"/bin/sleep 600"}"#).status, 202);
    let error = wait_for_roll(&balancer, "rolled-back")["error"].as_str().unwrap().to_owned();
    let refused = " was not ready within 1s: health check failed: connection to 127.0.0.1:";
    assert!(error.contains(refused) && error.ends_with(" refused"), "{error}");
}

#[test]
fn the_first_fleet_of_a_program_with_another_health_path_says_so() {
    let arguments = ["--replicas", "1", "--health-path", "/nothing"];
    let balancer = Balancer::start(&arguments);
    let reason = "health check failed: GET /nothing returned 404";
    let event = wait_for_reason(&balancer, reason);
    assert_eq!((&event["hostname"], &event["seat"]), (&"S1".into(), &1.into()));
    assert_eq!(replica(&balancer, "S1")["reason"], reason);
}

#[test]
fn a_reason_that_flaps_does_not_flood_the_log() {
    let server = Scripted::start(|number| status(if number % 2 == 0 { 404 } else { 500 }));
    let name = server.address.to_string();
    let probes = ["--health-interval", "20ms"];
    let balancer = Balancer::start(&[&["--servers", &name], &probes[..]].concat());
    wait_for("many health checks", || (server.checks() >= 200).then_some(()));
    let lines = logged(&balancer).len();
    // Five at once, and one more every ten seconds.
    assert!((2..=8).contains(&lines), "{lines} lines for 200 health checks");
    assert!(!replica(&balancer, &name)["reason"].is_null());
}

#[test]
fn health_checks_name_the_server_and_do_not_wait_for_a_body() {
    // Without a length, on a connection that stays open.
    let endless = || Scripted::start(|_| "HTTP/1.1 200 OK\r\nX: y\r\n\r\nhello".to_owned());
    let host = |server: &Scripted| {
        let heads = server.heads.lock().unwrap();
        let line = heads[0].lines().find_map(|line| line.strip_prefix("Host: "));
        line.unwrap().to_owned()
    };
    let server = endless();
    let name = format!("LocalHost:{}", server.address.port());
    let balancer = Balancer::start(&["--servers", &name]);
    balancer.wait_for_replicas(1);
    assert_eq!(host(&server), name);

    let server = endless();
    let address = server.address.to_string();
    let balancer = Balancer::start(&["--servers", &address, "--health-host", "web.example:81"]);
    balancer.wait_for_replicas(1);
    assert_eq!(host(&server), "web.example:81");
}
