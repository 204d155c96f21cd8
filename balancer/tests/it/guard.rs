//! Who may change the fleet, and that the balancer's own paths are never forwarded.

use std::process::Command;

use crate::conformance::client::Client;
use crate::conformance::over;
use crate::conformance::upstream::Upstream;
use crate::support::{Answer, Balancer, request, wait_for};

const JSON: (&str, &str) = ("Content-Type", "application/json");

fn add(balancer: &Balancer, headers: &[(&str, &str)]) -> Answer {
    request(balancer.admin, "POST", "/add", headers, br#"{"n":1}"#)
}

#[test]
fn a_token_is_asked_for_changes_and_not_for_reading() {
    let balancer = Balancer::with_replicas(1, &["--admin-token", "s3cret"]);
    for wrong in ["Bearer wrong", "Bearer s3cre", "Bearer s3cret2", "Basic s3cret", "s3cret", ""] {
        let answer = add(&balancer, &[JSON, ("Authorization", wrong)]);
        assert_eq!(answer.status, 401, "{wrong:?}");
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
    }
    assert_eq!(add(&balancer, &[JSON]).status, 401);
    assert_eq!(balancer.replicas().len(), 1);
    assert_eq!(add(&balancer, &[JSON, ("Authorization", "bearer s3cret")]).status, 200);
    assert_eq!(balancer.replicas().len(), 2);
}

#[test]
fn a_page_from_elsewhere_changes_nothing() {
    let balancer = Balancer::with_replicas(1, &["--admin-hosts", "balancer"]);
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    assert_eq!(add(&balancer, &[form]).status, 415);
    assert_eq!(add(&balancer, &[]).status, 415);
    assert_eq!(add(&balancer, &[JSON, ("Host", "evil.example")]).status, 403);
    let rebound = request(balancer.admin, "GET", "/rep", &[("Host", "evil.example:5000")], b"");
    assert_eq!(rebound.status, 403);
    for path in ["/add", "/rm"] {
        let answer = request(balancer.admin, "GET", path, &[], b"");
        assert_eq!(answer.status, 405, "{path}");
        assert!(answer.headers["allow"].contains("POST"), "{answer:?}");
    }
    assert_eq!(balancer.replicas().len(), 1);
    assert_eq!(add(&balancer, &[JSON, ("Host", "balancer:5000")]).status, 200);
}

#[test]
fn the_balancers_own_paths_are_never_forwarded() {
    // The replica would answer with a message that the endpoint does not exist.
    let balancer = Balancer::with_replicas(1, &[]);
    for path in ["/admin", "/admin/x/y"] {
        let answer = balancer.get(path);
        assert_eq!(answer.status, 404, "{path}");
        assert!(answer.message().contains("is no endpoint of the balancer"), "{answer:?}");
    }
}

#[test]
fn with_a_listener_of_their_own_the_balancers_paths_are_not_found_on_the_other() {
    let upstream = Upstream::playing();
    let balancer = over(&[&upstream], &["--admin-listen", "127.0.0.1:0"]);
    let mut targets = vec!["http://site/admin/fleet".to_owned()];
    for path in ["/rep", "/add", "/rm", "/metrics", "/admin", "/admin/fleet", "/loadbalancer/x"] {
        let escaped = format!("/%{:02x}{}", path.as_bytes()[1], &path[2..]);
        targets.extend([path.to_owned(), format!("{path}?x=1"), format!("/{path}"), escaped]);
        targets.push(format!("/x/..{path}"));
    }
    for target in &targets {
        for method in ["GET", "POST"] {
            let request = format!("{method} {target} HTTP/1.1\r\nHost: a\r\nX: marked\r\n\r\n");
            let answer = Client::sending(&balancer, request.as_bytes()).must_answer(target);
            assert_eq!(answer.status, 404, "{method} {target}");
            assert!(answer.is_failure(), "{method} {target}: {answer:?}");
        }
    }
    assert!(upstream.seen_with("marked").is_empty(), "{:?}", upstream.seen_with("marked"));
    for free in ["/reports", "/administrators", "/x/admin", "/rep/x"] {
        assert_eq!(balancer.get(free).status, 200, "{free}");
    }
}

#[test]
fn on_a_common_listener_no_spelling_of_the_balancers_paths_is_forwarded() {
    let upstream = Upstream::playing();
    let balancer = over(&[&upstream], &[]);
    for path in ["/%61dmin/x", "//admin/x", "/x/../admin/x", "/admin%2Fx"] {
        assert_eq!(balancer.get(path).status, 404, "{path}");
    }
    assert!(upstream.seen().is_empty(), "{:?}", upstream.seen());
}

#[test]
fn a_listener_of_their_own_moves_the_admin_routes() {
    let balancer = Balancer::with_replicas(1, &["--admin-listen", "127.0.0.1:0"]);
    assert_ne!(balancer.address, balancer.admin);
    assert_eq!(balancer.get("/home").status, 200);
    assert_eq!(add(&balancer, &[JSON]).status, 200);
    let other = request(balancer.admin, "GET", "/home", &[], b"");
    assert_eq!(other.status, 404, "the admin listener forwards nothing");
}

#[test]
fn open_admin_routes_on_a_public_address_are_refused() {
    let output = Command::new(env!("CARGO_BIN_EXE_balancer"))
        .args(["--listen", "0.0.0.0:0"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("'admin.token' must be set"), "{told}");
}

#[test]
fn open_admin_routes_are_served_when_they_are_meant() {
    let open = Balancer::start(&["--listen=0.0.0.0:0", "--admin-open", "--replicas", "0"]);
    wait_for("an answer", || (open.get("/rep").status == 200).then_some(()));
}

#[test]
fn a_foreign_name_sees_nothing_and_changes_nothing() {
    let balancer = Balancer::with_replicas(1, &[]);
    for host in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "balancer", ""]
    {
        for (method, path) in [
            ("GET", "/rep"),
            ("POST", "/add"),
            ("DELETE", "/rm"),
            ("POST", "/rm"),
            ("GET", "/metrics"),
            ("GET", "/admin/x"),
        ] {
            let headers = [JSON, ("Host", host)];
            let answer = request(balancer.admin, method, path, &headers, br#"{"n":1}"#);
            assert_eq!(answer.status, 403, "{host:?} {method} {path}: {answer:?}");
            assert!(answer.message().starts_with("<Error> host "), "{answer:?}");
        }
        // Traffic may come by any name.
        let home = request(balancer.address, "GET", "/home", &[("Host", host)], b"");
        assert_eq!(home.status, 200, "{host:?}");
    }
    for host in ["localhost", "LOCALHOST:5000", "127.0.0.1", "127.0.0.1:1", "[::1]:5000"] {
        let answer = request(balancer.admin, "GET", "/rep", &[("Host", host)], b"");
        assert_eq!(answer.status, 200, "{host}: {answer:?}");
    }
    assert_eq!(balancer.replicas(), ["S1"]);
}

#[test]
fn removing_needs_the_token_and_json_as_well() {
    let balancer = Balancer::with_replicas(2, &["--admin-token", "s3cret"]);
    let rm = |method: &str, headers: &[(&str, &str)]| {
        request(balancer.admin, method, "/rm", headers, br#"{"n":1}"#)
    };
    let bearer = ("Authorization", "Bearer s3cret");
    for method in ["DELETE", "POST"] {
        assert_eq!(rm(method, &[JSON]).status, 401, "{method}");
        assert_eq!(rm(method, &[JSON, ("Authorization", "Bearer ")]).status, 401, "{method}");
        for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"] {
            assert_eq!(
                rm(method, &[bearer, ("Content-Type", kind)]).status,
                415,
                "{method} {kind}"
            );
        }
    }
    assert_eq!(balancer.replicas(), ["S1", "S2"]);
    let json = ("Content-Type", "Application/JSON; charset=utf-8");
    assert_eq!(rm("DELETE", &[bearer, json]).status, 200);
    assert_eq!(balancer.replicas().len(), 1);
}

#[test]
fn a_wrong_method_is_told_which_ones_there_are() {
    let balancer = Balancer::with_replicas(1, &[]);
    for (path, allowed, others) in [
        ("/rep", "GET, HEAD", &["POST", "PUT", "DELETE"][..]),
        ("/add", "POST", &["GET", "PUT", "DELETE", "PATCH"]),
        ("/rm", "DELETE, POST", &["GET", "PUT", "PATCH"]),
    ] {
        for method in others {
            let answer = request(balancer.admin, method, path, &[JSON], b"{\"n\":1}");
            assert_eq!(answer.status, 405, "{method} {path}");
            assert_eq!(answer.headers["allow"], allowed, "{method} {path}");
            assert_eq!(answer.message(), format!("<Error> '{path}' takes {allowed}, not {method}"));
        }
    }
    let head = request(balancer.admin, "HEAD", "/rep", &[], b"");
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(balancer.replicas(), ["S1"]);
}

#[test]
fn a_token_opens_a_public_address_but_an_empty_one_is_refused() {
    let open = Balancer::start(&["--listen=0.0.0.0:0", "--admin-token=x", "--replicas", "0"]);
    assert_eq!(open.get("/rep").status, 200);
    let output = Command::new(env!("CARGO_BIN_EXE_balancer"))
        .args(["--listen", "0.0.0.0:0", "--admin-token="])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("'admin.token' must be visible"), "{told}");
}

#[test]
fn replicas_do_not_get_to_see_the_token() {
    let env = [("BALANCER_ADMIN_TOKEN", "s3cret-of-the-balancer")];
    let balancer = Balancer::start_with(&["--replicas", "1"], &env);
    balancer.wait_for_replicas(1);
    assert_eq!(add(&balancer, &[JSON]).status, 401, "the token is in force");
    let replica = balancer.replica_processes()[&1];
    for file in ["environ", "cmdline"] {
        let seen = std::fs::read(format!("/proc/{replica}/{file}")).unwrap();
        let seen = String::from_utf8_lossy(&seen).into_owned();
        assert!(!seen.is_empty() && !seen.contains("s3cret"), "{file}: {seen}");
    }
}
