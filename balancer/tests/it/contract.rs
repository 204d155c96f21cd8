//! Every row of the contract, over real HTTP, against replicas as child processes.

use crate::support::{Balancer, request};

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
    let missing = Balancer::start(&["--replicas", "0", "--command", "/no/such/program"]);
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
