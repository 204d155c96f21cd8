//! Replicas that authenticate connections (NTLM, Negotiate): no client gets what belongs to another
//! one, and logins work.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;

use tempfile::NamedTempFile;

use super::client::{Answer, Client};
use super::over;
use super::upstream::{Exchange, Then, Upstream};
use crate::support::Balancer;

/// The balancer does not learn of a failure by a probe, and one worker has all connections.
const ARGUMENTS: [&str; 4] = ["--health-interval", "1h", "--workers", "1"];

/// Where each connection is in its login.
type Logins = Mutex<BTreeMap<SocketAddr, Login>>;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Login {
    #[default]
    None,
    Challenged,
    Done,
}

/// A server that authenticates connections as IIS does. `/open` is for all, `/bye` ends the
/// connection after its answer and `/lost` before it.
pub(crate) fn ntlm() -> Upstream {
    let logins = Logins::default();
    Upstream::start(move |exchange| serve(exchange, &logins))
}

fn serve(exchange: &mut Exchange<'_>, logins: &Logins) -> Then {
    if !exchange.read_body() {
        return Then::Close;
    }
    let peer = exchange.wire.stream().peer_addr().unwrap();
    let credentials = exchange.head.only("Authorization").unwrap_or_default();
    let mut logins = logins.lock().unwrap();
    let login = logins.entry(peer).or_default();
    let target = exchange.head.target().to_owned();
    if target == "/lost" {
        return Then::Close;
    }
    let said = match (*login, credentials.as_str()) {
        _ if target == "/open" => "200 OK\r\nContent-Length: 4\r\n\r\nopen",
        (Login::Done, _) if target == "/bye" => {
            exchange.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbye");
            return Then::Close;
        }
        (Login::Done, _) => "200 OK\r\nContent-Length: 5\r\n\r\nalice",
        (_, "NTLM one") => {
            *login = Login::Challenged;
            "401 No\r\nWWW-Authenticate: NTLM two\r\nContent-Length: 0\r\n\r\n"
        }
        (Login::Challenged, "NTLM three") | (_, "Negotiate ticket") => {
            *login = Login::Done;
            "200 OK\r\nContent-Length: 5\r\n\r\nalice"
        }
        _ if target == "/basic" => {
            "401 No\r\nWWW-Authenticate: Negotiate\r\nWWW-Authenticate: Basic realm=\"a, b\"\r\n\
             Content-Length: 0\r\n\r\n"
        }
        _ => {
            "401 No\r\nWWW-Authenticate: Negotiate\r\nWWW-Authenticate: NTLM\r\n\
              Content-Length: 0\r\n\r\n"
        }
    };
    exchange.write(format!("HTTP/1.1 {said}").as_bytes());
    Then::GoOn
}

fn ask(client: &mut Client, line: &str, credentials: &str) -> Answer {
    let credentials = match credentials {
        "" => String::new(),
        credentials => format!("Authorization: {credentials}\r\n"),
    };
    client.send(format!("{line} HTTP/1.1\r\nHost: a\r\n{credentials}\r\n").as_bytes());
    client.answer("GET").unwrap_or_else(|broken| panic!("{line} {credentials}: {broken}"))
}

fn text(answer: &Answer) -> (u16, &str) {
    (answer.status, std::str::from_utf8(&answer.body.data).unwrap())
}

/// A client that has logged in by the three messages of NTLM.
fn logged_in(balancer: &Balancer) -> Client {
    let mut client = Client::of(balancer);
    let refused = ask(&mut client, "GET /page", "");
    assert_eq!(refused.status, 401);
    assert_eq!(refused.head.all("WWW-Authenticate"), ["Negotiate", "NTLM"]);
    let challenged = ask(&mut client, "GET /page", "NTLM one");
    assert_eq!(challenged.status, 401);
    assert_eq!(challenged.head.only("WWW-Authenticate").as_deref(), Some("NTLM two"));
    assert_eq!(text(&ask(&mut client, "GET /page", "NTLM three")), (200, "alice"));
    client
}

/// Other clients, with many keys, never get the page of the one that has logged in.
fn strangers_get_nothing(balancer: &Balancer) {
    for _ in 0..20 {
        let mut stranger = Client::of(balancer);
        assert_eq!(text(&ask(&mut stranger, "GET /open", "")), (200, "open"));
        assert_eq!(ask(&mut stranger, "GET /page", "").status, 401);
    }
}

#[test]
fn a_login_binds_one_connection_to_the_client_and_no_other_client_gets_it() {
    let (one, other) = (ntlm(), ntlm());
    let balancer = over(&[&one, &other], &ARGUMENTS);
    // Connections for all are idle at both.
    strangers_get_nothing(&balancer);
    let before = [&one, &other].map(|each| each.seen().len());
    let mut client = logged_in(&balancer);
    for line in ["GET /page", "POST /page", "GET /page?x", "GET /open", "GET /page"] {
        let page = if line.ends_with("open") { "open" } else { "alice" };
        assert_eq!(text(&ask(&mut client, line, "")), (200, page), "{line}");
        strangers_get_nothing(&balancer);
    }
    let hers = |each: &Upstream, before: usize| {
        let seen = each.seen().split_off(before);
        let hers = seen.into_iter().filter(|seen| seen.head.only("Authorization").is_some());
        hers.map(|seen| seen.connection).collect::<Vec<_>>()
    };
    let logins = [hers(&one, before[0]), hers(&other, before[1])].concat();
    assert!(logins.len() == 2 && logins[0] == logins[1], "{logins:?}");
    drop(client);
    strangers_get_nothing(&balancer);
    assert!(one.faults().is_empty() && other.faults().is_empty());
}

#[test]
fn both_connections_end_together() {
    let upstream = ntlm();
    let balancer = over(&[&upstream], &ARGUMENTS);
    // The client ends its connection.
    let client = logged_in(&balancer);
    let connection = upstream.seen().pop().unwrap().connection;
    drop(client);
    assert!(upstream.sees_end_of(connection), "the replica's connection stands");
    // The replica ends its connection after an answer, as it says.
    let mut client = logged_in(&balancer);
    let answer = ask(&mut client, "GET /bye", "");
    assert_eq!(text(&answer), (200, "bye"));
    assert!(answer.head.lists("Connection", "close"), "{answer:?}");
    assert!(client.is_over());
    // It ends it before the answer: that is no reason to ask again.
    let mut client = logged_in(&balancer);
    let answer = ask(&mut client, "GET /lost", "");
    assert_eq!(answer.status, 502);
    assert!(answer.head.lists("Connection", "close") && client.is_over(), "{answer:?}");
    assert_eq!(upstream.seen_with("GET /lost ").len(), 1);
    strangers_get_nothing(&balancer);
}

#[test]
fn the_clients_connection_ends_when_the_replicas_ends_while_it_is_idle() {
    let streams = std::sync::Arc::new(Mutex::new(Vec::new()));
    let kept = std::sync::Arc::clone(&streams);
    let logins = Logins::default();
    let upstream = Upstream::start(move |exchange| {
        kept.lock().unwrap().push(exchange.wire.stream().try_clone().unwrap());
        serve(exchange, &logins)
    });
    let balancer = over(&[&upstream], &ARGUMENTS);
    let mut client = logged_in(&balancer);
    let stream = streams.lock().unwrap().pop().unwrap();
    rustix::net::shutdown(&stream, rustix::net::Shutdown::Both).unwrap();
    assert!(client.is_over());
}

#[test]
fn credentials_that_are_taken_at_once_bind_the_connection_too() {
    let upstream = ntlm();
    let balancer = over(&[&upstream], &ARGUMENTS);
    strangers_get_nothing(&balancer);
    for scheme in ["Negotiate ticket", "negotiate ticket", "NEGOTIATE ticket"] {
        let mut client = Client::of(&balancer);
        // The server compares strictly; what it says to others is not of interest.
        let _said = ask(&mut client, "GET /page", scheme);
        strangers_get_nothing(&balancer);
        drop(client);
        strangers_get_nothing(&balancer);
    }
    // A connection that was never authenticated is shared as before.
    let before = upstream.connections();
    for _ in 0..10 {
        assert_eq!(text(&ask(&mut Client::of(&balancer), "GET /open", "")), (200, "open"));
    }
    assert!(upstream.connections() <= before + 1, "{before} {}", upstream.connections());
}

#[test]
fn a_login_is_not_retried_at_another_replica() {
    let closer = || {
        Upstream::start(|exchange| {
            exchange.read_body();
            Then::Close
        })
    };
    let (one, other) = (closer(), closer());
    let balancer = over(&[&one, &other], &ARGUMENTS);
    // Each is another request, so that none is taken for one that kills replicas.
    for number in 1..=3 {
        let line = format!("GET /login/{number}");
        assert_eq!(ask(&mut Client::of(&balancer), &line, "NTLM one").status, 502);
        assert_eq!(one.seen_with(&line).len() + other.seen_with(&line).len(), 1);
        let line = format!("GET /plain/{number}");
        assert_eq!(ask(&mut Client::of(&balancer), &line, "").status, 502);
        assert_eq!([one.seen_with(&line).len(), other.seen_with(&line).len()], [1, 1]);
    }
}

#[test]
fn routes_that_ask_several_replicas_share_no_authenticated_connection() {
    for (text, may_log_in) in [
        ("send = \"first\"\nattempts = 1", true),
        ("send = \"all\"\nattempts = 1", false),
        ("hedge = { after = \"1ms\", budget = \"100%\" }", true),
    ] {
        let file = NamedTempFile::with_suffix(".toml").unwrap();
        std::fs::write(file.path(), format!("[[route]]\npaths = [\"/page\"]\n{text}")).unwrap();
        let (one, other) = (ntlm(), ntlm());
        let config = ["--config", file.path().to_str().unwrap()];
        let balancer = over(&[&one, &other], &[&ARGUMENTS[..], &config].concat());
        let strangers = || {
            for _ in 0..10 {
                let answer = ask(&mut Client::of(&balancer), "GET /page", "");
                assert!([401, 502].contains(&answer.status), "{text}: {answer:?}");
                assert_eq!(ask(&mut Client::of(&balancer), "GET /other", "").status, 401, "{text}");
            }
        };
        let mut client = Client::of(&balancer);
        let answer = ask(&mut client, "GET /page", "Negotiate ticket");
        assert_eq!(answer.status, 200, "{text}");
        strangers();
        if may_log_in {
            for _ in 0..5 {
                let answer = ask(&mut client, "GET /page", "");
                assert_eq!((answer.status, &answer.body.data[..]), (200, &b"alice"[..]), "{text}");
            }
        }
        strangers();
        drop(client);
        strangers();
    }
}

#[test]
fn clients_beside_one_that_logs_in_again_and_again_get_nothing_of_it() {
    let (one, other) = (ntlm(), ntlm());
    let balancer = over(&[&one, &other], &["--health-interval", "1h", "--workers", "2"]);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| (0..20).for_each(|_| drop(logged_in(&balancer))));
            scope.spawn(|| (0..5).for_each(|_| strangers_get_nothing(&balancer)));
        }
    });
}
