//! Every row of the contract, over real HTTP, against replicas as child processes.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Write as _};
use std::net::TcpStream;
use std::thread;

use rustix::process::Signal;

use crate::support::{
    Balancer, Event, connections_to, kill, port_of, request, try_request, wait_for,
};

/// Calls that must fail with `status` and change nothing.
fn refused(balancer: &Balancer, method: &str, path: &str, cases: &[(&str, u16, &str)]) {
    let before = balancer.replicas();
    for (body, status, message) in cases {
        let answer = balancer.json(method, path, body);
        assert_eq!(answer.status, *status, "{method} {path} {body}: {answer:?}");
        let told = answer.message();
        assert!(told.starts_with("<Error> ") && told.contains(message), "{body}: {told}");
        assert_eq!(balancer.replicas(), before, "{body} changed the fleet");
    }
}

#[test]
fn rep_lists_the_first_fleet_in_the_order_of_its_seats() {
    let balancer = Balancer::with_replicas(3, &[]);
    let answer = balancer.get("/rep");
    assert_eq!(answer.status, 200);
    let expected = r#"{"message":{"N":3,"replicas":["S1","S2","S3"]},"status":"successful"}"#;
    assert_eq!(String::from_utf8_lossy(&answer.body), expected);
    assert_eq!(answer.headers["content-type"], "application/json");
}

#[test]
fn add_lists_the_old_then_the_named_then_the_others() {
    let balancer = Balancer::with_replicas(3, &[]);
    let answer =
        balancer.json("POST", "/add", r#"{"n": 4, "hostnames": ["S5", "S4", "Server 4"]}"#);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["message"]["N"], 7);
    let replicas = balancer.replicas();
    assert_eq!(replicas[..6], ["S1", "S2", "S3", "S5", "S4", "Server 4"]);
    assert_eq!(balancer.replica_processes().len(), 7);
}

#[test]
fn add_refuses_what_makes_no_sense_and_changes_nothing() {
    let balancer = Balancer::with_replicas(3, &["--max-replicas", "10"]);
    let long = format!(r#"{{"n":1,"hostnames":["{}"]}}"#, "x".repeat(300));
    let n = "'n' must be an integer of at least 1";
    refused(
        &balancer,
        "POST",
        "/add",
        &[
            (
                r#"{"n":1,"hostnames":["A","B"]}"#,
                400,
                "Length of hostname list is more than newly added instances",
            ),
            ("", 400, "the body must be a JSON object"),
            ("nonsense", 400, "the body must be a JSON object"),
            ("[1]", 400, "the body must be a JSON object, not a list"),
            ("{}", 400, n),
            (r#"{"n":null}"#, 400, n),
            (r#"{"n":0}"#, 400, n),
            (r#"{"n":-1}"#, 400, n),
            (r#"{"n":1e9}"#, 400, n),
            (r#"{"n":"3"}"#, 400, n),
            (r#"{"n":3.5}"#, 400, n),
            (r#"{"n":8}"#, 400, "'n' must be at most 7"),
            (r#"{"n":1,"hostnames":"A"}"#, 400, "'hostnames' must be a list of strings"),
            (r#"{"n":1,"hostnames":[1]}"#, 400, "'hostnames' must be a list of strings"),
            (r#"{"n":2,"hostnames":["A","a"]}"#, 400, r#""a" is in 'hostnames' twice"#),
            (r#"{"n":2,"hostnames":["a b","A-B"]}"#, 400, r#""A-B" is in 'hostnames' twice"#),
            (r#"{"n":1,"hostnames":["s1"]}"#, 400, r#""s1" is in use already"#),
            (r#"{"n":1,"hostnames":["../x"]}"#, 400, r#"hostname "../x" must be"#),
            (r#"{"n":1,"hostnames":["-x"]}"#, 400, r#"hostname "-x" must be"#),
            (r#"{"n":1,"hostnames":["x;id"]}"#, 400, r#"hostname "x;id" must be"#),
            (r#"{"n":1,"hostnames":[""]}"#, 400, r#"hostname "" must be"#),
            (r#"{"n":1,"hostnames":["é"]}"#, 400, r#"hostname "é" must be"#),
            ("{\"n\":1,\"hostnames\":[\"a\\u0000\"]}", 400, "must be"),
            (&long, 400, "must be 1 to 63"),
        ],
    );
    let huge = format!(r#"{{"n":1,"x":"{}"}}"#, "x".repeat(300_000));
    refused(&balancer, "POST", "/add", &[(&huge, 413, "at most")]);
}

#[test]
fn the_classic_ring_has_fifty_six_seats() {
    let balancer = Balancer::with_replicas(2, &["--placement", "classic"]);
    let full = [(r#"{"n":55}"#, 400, "54 of its 56 seats left")];
    refused(&balancer, "POST", "/add", &full);
}

#[test]
fn a_replica_that_cannot_start_is_the_runtimes_failure_and_leaves_nothing() {
    let fails = Balancer::start(&["--replicas", "0", "--command", "/bin/false"]);
    refused(
        &fails,
        "POST",
        "/add",
        &[(r#"{"n":2,"hostnames":["A"]}"#, 500, "ended before it was ready: exited with code 1")],
    );
    let missing = Balancer::start(&["--replicas", "0", "--command", "/no/such/{seat}"]);
    refused(&missing, "POST", "/add", &[(r#"{"n":1}"#, 500, "exited with code 127")]);
    let mute = Balancer::start(&[
        "--replicas",
        "0",
        "--command",
        "/bin/sleep 600",
        "--health-start-deadline",
        "300ms",
    ]);
    refused(&mute, "POST", "/add", &[(r#"{"n":1}"#, 500, "was not ready within 300ms")]);
    assert!(mute.replica_processes().is_empty());
}

#[test]
fn rm_takes_the_named_first_by_delete_and_by_post() {
    let balancer = Balancer::with_replicas(4, &[]);
    let answer = balancer.json("DELETE", "/rm", r#"{"n": 1, "hostnames": ["S2"]}"#);
    assert_eq!(answer.json()["message"]["replicas"], serde_json::json!(["S1", "S3", "S4"]));
    let answer = balancer.json("POST", "/rm", r#"{"n": 2, "hostnames": ["S4"]}"#);
    assert_eq!((answer.status, &answer.json()["message"]["N"]), (200, &serde_json::json!(1)));
    assert!(!balancer.replicas().contains(&"S4".to_owned()));
    assert_eq!(balancer.replica_processes().len(), 1);
}

#[test]
fn rm_refuses_what_makes_no_sense_and_changes_nothing() {
    let balancer = Balancer::with_replicas(3, &[]);
    let cases = [
        (
            r#"{"n":1,"hostnames":["S1","S2"]}"#,
            400,
            "Length of hostname list is more than removable instances",
        ),
        (r#"{"n":2,"hostnames":["S1","S9"]}"#, 400, r#"hostname "S9" is unknown"#),
        (r#"{"n":2,"hostnames":["S1","S1"]}"#, 400, "twice"),
        (r#"{"n":4}"#, 400, "'n' must be at most 3"),
        (r#"{"n":0}"#, 400, "'n' must be"),
        ("{}", 400, "'n' must be"),
        ("", 400, "the body must be"),
    ];
    refused(&balancer, "DELETE", "/rm", &cases);
    refused(&balancer, "POST", "/rm", &cases);
}

#[test]
fn an_emptied_fleet_stays_empty_until_add() {
    let balancer = Balancer::with_replicas(2, &[]);
    let answer = balancer.json("DELETE", "/rm", r#"{"n": 2}"#);
    assert_eq!(answer.json()["message"]["N"], 0);
    let answer = balancer.get("/home");
    assert_eq!((answer.status, answer.message().as_str()), (503, "<Error> no replica is ready"));
    assert!(answer.headers.contains_key("retry-after"));
    assert!(balancer.replica_processes().is_empty());
    assert_eq!(balancer.json("POST", "/add", r#"{"n": 1}"#).status, 200);
    assert_eq!(balancer.get("/home").status, 200);
}

#[test]
fn an_unknown_path_is_the_replicas_404_or_on_demand_a_400() {
    let plain = Balancer::with_replicas(1, &[]);
    assert_eq!(plain.get("/other?x=1").status, 404);
    let compat = Balancer::with_replicas(1, &["--compat-unknown-path"]);
    let answer = compat.get("/other?x=1");
    let expected = "<Error> '/other' endpoint does not exist in server replicas";
    assert_eq!((answer.status, answer.message().as_str()), (400, expected));
    assert_eq!(compat.get("/home").status, 200);
}

#[test]
fn the_demo_replica_answers_through_the_balancer() {
    let balancer = Balancer::with_replicas(1, &[]);
    let home = balancer.get("/home");
    assert_eq!(home.message(), "Hello from Server: 1");
    for (method, path, status) in [
        ("GET", "/heartbeat", 200),
        ("GET", "/health-check", 200),
        ("GET", "/login", 200),
        ("POST", "/register", 201),
        ("POST", "/changePassword", 201),
        ("DELETE", "/home", 405),
        ("GET", "/", 404),
    ] {
        let answer = request(balancer.address, method, path, &[], b"");
        assert_eq!(answer.status, status, "{method} {path}");
    }
}

#[test]
fn every_refusal_of_add_has_its_exact_message() {
    let balancer = Balancer::with_replicas(2, &["--max-replicas", "4"]);
    let n = "'n' must be an integer of at least 1, not";
    let names = "'hostnames' must be a list of strings, not";
    exactly(
        &balancer,
        &["POST /add"],
        &[
            (
                r#"{"n":1,"hostnames":["A","B"]}"#,
                "Length of hostname list is more than newly added instances",
            ),
            ("{}", &format!("{n} missing")),
            (r#"{"N":1}"#, &format!("{n} missing")),
            (r#"{"n":null}"#, &format!("{n} null")),
            (r#"{"n":0}"#, &format!("{n} 0")),
            (r#"{"n":-1}"#, &format!("{n} -1")),
            (r#"{"n":"3"}"#, &format!("{n} a string")),
            (r#"{"n":3.5}"#, &format!("{n} 3.5")),
            (r#"{"n":true}"#, &format!("{n} a boolean")),
            (r#"{"n":[1]}"#, &format!("{n} a list")),
            (r#"{"n":{}}"#, &format!("{n} an object")),
            (r#"{"n":1,"hostnames":"A"}"#, &format!("{names} a string")),
            (r#"{"n":1,"hostnames":null}"#, &format!("{names} null")),
            (r#"{"n":1,"hostnames":{"A":1}}"#, &format!("{names} an object")),
            (r#"{"n":2,"hostnames":["A",1]}"#, &format!("{names} a list with a number")),
            ("[]", "the body must be a JSON object, not a list"),
            ("3", "the body must be a JSON object, not a number"),
            (r#""n=1""#, "the body must be a JSON object, not a string"),
            (r#"{"n":2,"hostnames":["A","A"]}"#, r#"hostname "A" is in 'hostnames' twice"#),
            (
                r#"{"n":2,"hostnames":["Server 9","server-9"]}"#,
                r#"hostname "server-9" is in 'hostnames' twice"#,
            ),
            (r#"{"n":1,"hostnames":["S2"]}"#, r#"hostname "S2" is in use already"#),
            (r#"{"n":2,"hostnames":["fine","s2"]}"#, r#"hostname "s2" is in use already"#),
            (
                r#"{"n":3}"#,
                "'n' must be at most 2: the fleet is 2 of 4 replicas ('max_replicas') already",
            ),
            (
                r#"{"n":1000000000}"#,
                "'n' must be at most 2: the fleet is 2 of 4 replicas ('max_replicas') already",
            ),
        ],
    );
    assert_eq!(balancer.replica_processes().len(), 2, "nothing was started");
}

#[test]
fn every_refusal_of_rm_has_its_exact_message() {
    let balancer = Balancer::with_replicas(2, &[]);
    let n = "'n' must be an integer of at least 1, not";
    exactly(
        &balancer,
        &["DELETE /rm", "POST /rm"],
        &[
            (
                r#"{"n":1,"hostnames":["S1","S2"]}"#,
                "Length of hostname list is more than removable instances",
            ),
            (
                r#"{"n":1,"hostnames":["S9"]}"#,
                r#"hostname "S9" is unknown: no replica has this name"#,
            ),
            (
                r#"{"n":2,"hostnames":["S1","S9"]}"#,
                r#"hostname "S9" is unknown: no replica has this name"#,
            ),
            (r#"{"n":2,"hostnames":["S1","S1"]}"#, r#"hostname "S1" is in 'hostnames' twice"#),
            (r#"{"n":3}"#, "'n' must be at most 2, the number of replicas"),
            (r#"{"n":18446744073709551615}"#, "'n' must be at most 2, the number of replicas"),
            ("{}", &format!("{n} missing")),
            (r#"{"n":0}"#, &format!("{n} 0")),
            (r#"{"n":"1"}"#, &format!("{n} a string")),
            (r#"{"n":1.5}"#, &format!("{n} 1.5")),
            ("null", "the body must be a JSON object, not null"),
        ],
    );
    assert_eq!(balancer.replica_processes().len(), 2, "nothing was stopped");
}

/// Calls that must be answered 400 with exactly this message, and change nothing.
fn exactly(balancer: &Balancer, calls: &[&str], cases: &[(&str, &str)]) {
    let before = balancer.get("/rep").body;
    for (method, path) in calls.iter().map(|call| call.split_once(' ').unwrap()) {
        for (body, message) in cases {
            let answer = balancer.json(method, path, body);
            assert_eq!(answer.message(), format!("<Error> {message}"), "{method} {path} {body}");
            assert_eq!(answer.status, 400, "{method} {path} {body}");
            assert_eq!(balancer.get("/rep").body, before, "{body} changed the fleet");
        }
    }
}

#[test]
fn bad_hostnames_are_named_and_never_break_the_answer() {
    let balancer = Balancer::with_replicas(1, &[]);
    let long = "x".repeat(64);
    for bad in [
        "",
        " ",
        " x",
        "x ",
        "-x",
        ".x",
        "_x",
        "..",
        "../x",
        "/",
        "x/y",
        "x;id",
        "$(id)",
        "`id`",
        "x\0y",
        "x\ny",
        "x\r\ny",
        "x\ty",
        "\u{1b}[31m",
        "x\u{7f}",
        "\u{202e}x",
        "straße",
        "服务器",
        "x\"y",
        "x\\y",
        "x'y",
        "x:y",
        "x@y",
        "x%20y",
        "{port}",
        &long,
    ] {
        let body = serde_json::json!({"n": 2, "hostnames": ["good", bad]}).to_string();
        let answer = balancer.json("POST", "/add", &body);
        assert_eq!(answer.status, 400, "{bad:?}: {answer:?}");
        let told = answer.message();
        assert!(told.starts_with(&format!("<Error> hostname {bad:?} must be")), "{told}");
        assert!(!told.contains(char::is_control), "{told:?}");
        assert_eq!(balancer.replicas(), ["S1"], "{bad:?}");
    }
    assert_eq!(balancer.replica_processes().len(), 1);
}

#[test]
fn good_hostnames_are_shown_as_given() {
    let balancer = Balancer::with_replicas(1, &[]);
    let longest = "y".repeat(63);
    let names = ["Server 4", "a.b_c-D", "7", "Zz", longest.as_str()];
    let body = serde_json::json!({"n": names.len(), "hostnames": names}).to_string();
    assert_eq!(balancer.json("POST", "/add", &body).status, 200);
    assert_eq!(balancer.replicas()[1..], names);
    let answer = balancer.json("DELETE", "/rm", r#"{"n":1,"hostnames":["Server 4"]}"#);
    assert_eq!(answer.status, 200);
    assert!(!balancer.replicas().contains(&"Server 4".to_owned()));
    // Its name is free again.
    let again = balancer.json("POST", "/add", r#"{"n":1,"hostnames":["server-4"]}"#);
    assert_eq!(again.status, 200, "{again:?}");
    assert_eq!(balancer.replicas().last().unwrap(), "server-4");
}

#[test]
fn add_without_names_makes_random_ones() {
    let balancer = Balancer::with_replicas(1, &[]);
    for body in [r#"{"n":2}"#, r#"{"n":2,"hostnames":[]}"#] {
        let before = balancer.replicas();
        let answer = balancer.json("POST", "/add", body);
        assert_eq!(answer.status, 200, "{answer:?}");
        let after = balancer.replicas();
        assert_eq!(answer.json()["message"]["replicas"], serde_json::json!(after));
        assert_eq!(answer.json()["message"]["N"], before.len() + 2);
        assert_eq!(after[..before.len()], before, "the old ones come first");
    }
    let names = balancer.replicas();
    let distinct: BTreeSet<_> = names.iter().collect();
    assert_eq!(distinct.len(), 5, "{names:?}");
    let seats: Vec<u32> = balancer.replica_processes().into_keys().collect();
    assert_eq!(seats, [1, 2, 3, 4, 5]);
}

#[test]
fn replicas_are_started_side_by_side() {
    let balancer = Balancer::with_replicas(1, &[]);
    assert_eq!(balancer.json("POST", "/add", r#"{"n":4}"#).status, 200);
    let starting = wait_for("five starts", || {
        Some(balancer.events("replica is starting")).filter(|events| events.len() == 5)
    });
    let ready = wait_for("five ready ones", || {
        Some(balancer.events("replica is ready")).filter(|events| events.len() == 5)
    });
    let at = |event: &Event| event.fields["timestamp"].as_str().unwrap().to_owned();
    assert!(at(&starting[4]) < at(&ready[1]), "{starting:?} {ready:?}");
}

#[test]
fn a_body_of_ten_megabytes_is_refused_and_the_balancer_goes_on() {
    let balancer = Balancer::with_replicas(1, &[]);
    let body = format!(r#"{{"n":1,"x":"{}"}}"#, "x".repeat(10_000_000));
    let json = [("Content-Type", "application/json")];
    for (method, path) in [("POST", "/add"), ("DELETE", "/rm")] {
        match try_request(balancer.admin, method, path, &json, body.as_bytes()) {
            Ok(answer) => assert_eq!(answer.status, 413, "{answer:?}"),
            // It answered and closed while the body was still being written.
            Err(error) => {
                let closed = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset];
                assert!(closed.contains(&error.kind()), "{error}");
            }
        }
        assert_eq!(balancer.replicas(), ["S1"]);
    }
}

#[test]
fn a_classic_ring_of_three_has_room_for_fifty_three_more() {
    let balancer = Balancer::with_replicas(3, &["--placement", "classic"]);
    let message = "'n' must be at most 53: the placement has 53 of its 56 seats left";
    exactly(&balancer, &["POST /add"], &[(r#"{"n":54}"#, message)]);
    assert_eq!(balancer.json("DELETE", "/rm", r#"{"n":1}"#).status, 200);
    let message = "'n' must be at most 54: the placement has 54 of its 56 seats left";
    exactly(&balancer, &["POST /add"], &[(r#"{"n":55}"#, message)]);
}

#[test]
fn a_failed_add_leaves_the_old_fleet_and_no_process() {
    // The replica on seat 3 ends at once; those on seats 1, 2, and 4 are good.
    let program = env!("CARGO_BIN_EXE_balancer");
    let command = format!("/bin/sh -c '[ $SERVER_ID = 3 ] && exit 7; exec {program} replica'");
    let balancer = Balancer::with_replicas(2, &["--command", &command]);
    let before = balancer.replica_processes();
    let answer = balancer.json("POST", "/add", r#"{"n":2,"hostnames":["A","B"]}"#);
    assert_eq!(answer.status, 500, "{answer:?}");
    assert_eq!(
        answer.message(),
        r#"<Error> replica "A" ended before it was ready: exited with code 7"#
    );
    assert_eq!(balancer.replicas(), ["S1", "S2"]);
    assert_eq!(balancer.replica_processes(), before, "what was started for it is gone again");
    assert_eq!(balancer.get("/home").status, 200);
    // Its names are free again, so it fails for the same reason.
    assert_eq!(balancer.json("POST", "/add", r#"{"n":2,"hostnames":["A","B"]}"#).status, 500);
}

#[test]
fn a_replica_that_leaves_finishes_what_it_began() {
    let slow = ["--env", "SERVER_LATENCY=600ms", "--health-interval", "1h"];
    let balancer = Balancer::with_replicas(1, &slow);
    let port = port_of(balancer.replica_processes()[&1]);
    // After the first probe there is no other for a long time.
    wait_for("the end of the probe", || (connections_to(port) == 0).then_some(()));
    thread::scope(|scope| {
        let under_way = scope.spawn(|| balancer.get("/home"));
        wait_for("a request under way", || (connections_to(port) == 1).then_some(()));
        let gone = balancer.json("DELETE", "/rm", r#"{"n":1}"#);
        assert_eq!((gone.status, &gone.json()["message"]["N"]), (200, &serde_json::json!(0)));
        let answer = under_way.join().unwrap();
        assert_eq!((answer.status, answer.message().as_str()), (200, "Hello from Server: 1"));
    });
    assert_eq!(balancer.get("/home").status, 503);
}

#[test]
fn a_removal_of_a_replica_that_just_dies_is_no_error() {
    let balancer = Balancer::with_replicas(3, &[]);
    kill(balancer.replica_processes()[&2], Signal::KILL);
    let answer = balancer.json("DELETE", "/rm", r#"{"n":1,"hostnames":["S2"]}"#);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(balancer.wait_for_replicas(2), ["S1", "S3"]);
    assert_eq!(balancer.replica_processes().into_keys().collect::<Vec<_>>(), [1, 3]);
}

#[test]
fn of_two_adds_of_one_name_at_once_one_succeeds() {
    let balancer = Balancer::with_replicas(1, &[]);
    let outcomes = thread::scope(|scope| {
        let calls = ["twin", "Twin", "twin", "TWIN"].map(|name| {
            let body = serde_json::json!({"n": 1, "hostnames": [name]}).to_string();
            let balancer = &balancer;
            scope.spawn(move || balancer.json("POST", "/add", &body).status)
        });
        calls.map(|call| call.join().unwrap())
    });
    let succeeded = outcomes.iter().filter(|status| **status == 200).count();
    let refused = outcomes.iter().filter(|status| **status == 400).count();
    assert_eq!((succeeded, refused), (1, 3), "{outcomes:?}");
    assert_eq!(balancer.replicas().len(), 2);
    assert_eq!(balancer.replica_processes().len(), 2);
}

#[test]
fn a_change_is_made_even_when_nobody_waits_for_its_answer() {
    let balancer = Balancer::with_replicas(1, &[]);
    let mut client = TcpStream::connect(balancer.admin).unwrap();
    let body = r#"{"n":1,"hostnames":["late"]}"#;
    let head = "POST /add HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json";
    let call = format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    client.write_all(call.as_bytes()).unwrap();
    wait_for("its start", || (balancer.events("replica is starting").len() == 2).then_some(()));
    drop(client);
    assert_eq!(balancer.wait_for_replicas(2), ["S1", "late"]);
}
