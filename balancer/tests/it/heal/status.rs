//! `/admin/fleet`: the fleet as it is.

use std::net::SocketAddr;

use super::{events, fleet, in_state, seat};
use crate::load::Load;
use crate::support::{Balancer, port_of, request, wait_for};

#[test]
fn a_healthy_fleet_is_told_whole() {
    // A replica that listens late is reported after a check interval.
    let balancer = Balancer::with_replicas(3, &["--spares", "1", "--health-interval", "1m"]);
    wait_for("the spare", || (fleet(&balancer)["spares"]["ready"] == 1).then_some(()));
    let answer = request(balancer.admin, "GET", "/admin/fleet", &[], b"");
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(answer.json()["status"], "successful");
    let status = answer.json()["message"].clone();
    assert_eq!((&status["desired"], &status["ready"]), (&3.into(), &3.into()));
    assert_eq!(status["panic"], false);
    assert!(status["roll"].is_null());
    assert_eq!(status["spares"], serde_json::json!({ "desired": 1, "ready": 1 }));
    assert_eq!(status["engine"], serde_json::json!({ "reachable": true, "error": null }));
    assert_eq!(status["counts"], serde_json::json!({ "starting": 4, "ready": 4 }));

    let processes = balancer.replica_processes();
    let replicas = status["replicas"].as_array().unwrap();
    assert_eq!(replicas.len(), 4);
    let spares = replicas.iter().filter(|replica| replica["seat"].is_null()).count();
    assert_eq!(spares, 1);
    for replica in replicas {
        assert_eq!((&replica["state"], &replica["generation"]), (&"ready".into(), &0.into()));
        assert!(replica["reason"].is_null(), "{replica}");
        assert_eq!(replica["in_flight"], 0);
        let address: SocketAddr = replica["address"].as_str().unwrap().parse().unwrap();
        if let Some(number) = replica["seat"].as_u64() {
            let number = u32::try_from(number).unwrap();
            assert_eq!(replica["hostname"], format!("S{number}"));
            assert_eq!(address.port(), port_of(processes[&number]));
        }
    }
    for number in 1..=3 {
        let wanted = serde_json::json!({
            "seat": number,
            "hostname": format!("S{number}"),
            "failures": 0,
            "crash_loop": false,
            "retry_in_ms": null,
        });
        assert_eq!(seat(&status, number), wanted);
    }
}

#[test]
fn requests_in_flight_are_told_with_their_replica() {
    let balancer = Balancer::with_replicas(2, &["--env", "SERVER_LATENCY=2s"]);
    let id = ("X-Request-Id", "1");
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| request(balancer.address, "GET", "/home", &[id], b""));
        wait_for("a request in flight", || {
            let status = fleet(&balancer);
            let replicas = status["replicas"].as_array().unwrap();
            let total: u64 = replicas.iter().filter_map(|r| r["in_flight"].as_u64()).sum();
            assert!(total <= 1, "{status}");
            (total == 1).then_some(())
        });
        assert_eq!(asking.join().unwrap().status, 200);
    });
    wait_for("none", || {
        let status = fleet(&balancer);
        status["replicas"].as_array().unwrap().iter().all(|r| r["in_flight"] == 0).then_some(())
    });
}

#[test]
fn a_crash_loop_is_told_of_its_seat_and_of_no_other() {
    let program = env!("CARGO_BIN_EXE_balancer");
    let command = format!("/bin/sh -c '[ {{seat}} = 2 ] && exit 3; exec {program} replica'");
    let balancer = Balancer::start(&["--replicas", "3", "--command", &command]);
    balancer.wait_for_replicas(2);
    let load = Load::start(balancer.address);
    let status = wait_for("a crash loop", || {
        let status = fleet(&balancer);
        let looping = seat(&status, 2);
        let waits = looping["retry_in_ms"].as_u64().is_some_and(|wait| wait > 0);
        (looping["crash_loop"] == true && waits).then_some(status)
    });
    let looping = seat(&status, 2);
    assert!(looping["failures"].as_u64().unwrap() >= 3, "{looping}");
    assert!(looping["hostname"].is_null(), "{looping}");
    // The delay before the next try is 100 ms doubled by each failure, a quarter more at most.
    let failures = u32::try_from(looping["failures"].as_u64().unwrap()).unwrap();
    let most = 125 * 2_u64.pow(failures - 2);
    assert!(looping["retry_in_ms"].as_u64().unwrap() <= most, "{looping}");
    assert_eq!((&status["desired"], &status["ready"]), (&3.into(), &2.into()));
    assert_eq!(in_state(&status, "ready"), 2);
    for number in [1, 3] {
        let other = seat(&status, number);
        assert_eq!((&other["failures"], &other["crash_loop"]), (&0.into(), &false.into()));
        assert!(other["retry_in_ms"].is_null());
    }
    let reasons: Vec<_> = events(&balancer, "died").iter().map(|e| e["reason"].clone()).collect();
    assert!(reasons.iter().all(|reason| reason == "exited with code 3"), "{reasons:?}");
    // One that ended stays to be looked at, no more.
    assert!(in_state(&fleet(&balancer), "dead") <= 2);
    load.end();
}

#[test]
fn a_program_that_never_listens_is_given_up_in_time() {
    let command = "/bin/sleep 600";
    let arguments = ["--replicas", "1", "--command", command, "--health-start-deadline", "300ms"];
    let balancer = Balancer::start(&arguments);
    let late = super::wait_for_event(&balancer, "never-ready");
    assert_eq!((&late["hostname"], &late["seat"]), (&"S1".into(), &1.into()));
    assert_eq!(late["state"], "dead");
    wait_for("a crash loop", || (seat(&fleet(&balancer), 1)["crash_loop"] == true).then_some(()));
    assert!(balancer.replicas().is_empty());
    assert_eq!(balancer.get("/home").status, 503);
    assert!(crate::support::children_of(balancer.pid()).len() <= 2);
}

#[test]
fn the_status_is_read_without_the_token_and_on_the_listener_of_its_own() {
    let arguments = ["--admin-token", "x", "--admin-listen", "127.0.0.1:0"];
    let balancer = Balancer::with_replicas(1, &arguments);
    assert_eq!(fleet(&balancer)["ready"], 1);
    assert_eq!(balancer.get("/admin/fleet").status, 404, "the replica has no such path");
}
