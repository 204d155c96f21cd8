//! Who may change the fleet, and that the balancer's own paths are never forwarded.

use std::process::Command;

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
    // The replica would answer `/metrics` with a message that the endpoint does not exist.
    let balancer = Balancer::with_replicas(1, &[]);
    for path in ["/metrics", "/admin", "/admin/x/y"] {
        let answer = balancer.get(path);
        assert_eq!(answer.status, 404, "{path}");
        assert!(answer.message().contains("is no endpoint of the balancer"), "{answer:?}");
    }
}

#[test]
fn a_listener_of_their_own_moves_the_admin_routes() {
    let balancer = Balancer::with_replicas(1, &["--admin-listen", "127.0.0.1:0"]);
    assert_ne!(balancer.address, balancer.admin);
    assert_eq!(balancer.get("/rep").status, 404, "forwarded to the replica, which has no /rep");
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
