//! Controllers against a real balancer, whose replicas never answer: what they have in flight is
//! what the test holds.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::TcpStream;
use std::process::Command;

use serde_json::Value;

use super::controller::{Controller, foreign, watch};
use crate::support::{Balancer, request, wait_for};

/// A node with more than two requests is overloaded; two stay enabled.
const SETTINGS: [(&str, &str); 5] = [
    ("MIN_NUMBER_OF_SERVERS", "2"),
    ("MAX_ACCEPTABLE_LOAD", "0.5"),
    ("UPDATE_INTERVAL", "0.05"),
    ("LOG_LEVEL", "DEBUG"),
    // What each of them calls the capacity; the other one does not look at it.
    ("NODE_CAPACITY", "4"),
];

/// What each of the two says at debug once a round.
const ROUND: [&str; 2] = ["every node is seen", "Updated 3 nodes"];

/// Three replicas as child processes.
struct Fleet {
    balancer: Balancer,
    /// A key of each node.
    keys: BTreeMap<String, String>,
}

/// A request without an answer; given up when dropped.
struct Request {
    _stream: TcpStream,
    /// Where it went.
    node: String,
}

#[test]
fn watch_disables_an_overloaded_node_until_it_has_recovered() {
    let fleet = Fleet::start();
    disables_and_enables(&fleet, ours(&fleet));
}

#[test]
fn watch_keeps_the_minimum_of_a_real_balancer() {
    let fleet = Fleet::start();
    keeps_the_minimum(&fleet, ours(&fleet));
}

#[test]
fn a_foreign_controller_disables_an_overloaded_node_until_it_has_recovered() {
    let Some(command) = foreign() else { return };
    let fleet = Fleet::start();
    disables_and_enables(&fleet, theirs(&fleet, command));
}

#[test]
fn a_foreign_controller_keeps_the_minimum() {
    let Some(command) = foreign() else { return };
    let fleet = Fleet::start();
    keeps_the_minimum(&fleet, theirs(&fleet, command));
}

fn ours(fleet: &Fleet) -> Command {
    let mut command = watch(&["--capacity", "4", "--api", &fleet.url(), "--token", "s3cret"]);
    command.envs(SETTINGS);
    command
}

fn theirs(fleet: &Fleet, mut command: Command) -> Command {
    command.envs(SETTINGS);
    command.env("BALANCER_API", fleet.url()).env("BALANCER_API_TOKEN", "s3cret");
    command
}

fn disables_and_enables(fleet: &Fleet, controller: Command) {
    let (before, seats) = (fleet.balancer.replicas(), fleet.seats());
    let node = before[0].as_str();
    let mut controller = Controller::run(controller);
    let held: Vec<Request> = (0..3).map(|_| fleet.send(&fleet.keys[node])).collect();
    controller.wait_for(&format!("Disabling node {node}, queued requests: 3"));
    wait_for("it to be disabled", || (!fleet.is_enabled(node)).then_some(()));
    let other = fleet.send(&fleet.keys[node]);
    assert_ne!(other.node, node);
    assert_eq!(fleet.queued()[node], 3);
    assert_eq!((fleet.balancer.replicas(), fleet.seats()), (before.clone(), seats.clone()));

    drop(held);
    controller.wait_for(&format!("Enabling node {node}, queued requests: "));
    wait_for("it to be enabled", || fleet.is_enabled(node).then_some(()));
    wait_for("its requests to be given up", || (fleet.queued()[node] == 0).then_some(()));
    assert_eq!(fleet.send(&fleet.keys[node]).node, node);
    assert_eq!((fleet.balancer.replicas(), fleet.seats()), (before.clone(), seats));
    controller.end();
    assert_eq!(controller.said("ling node").len(), 2);
}

fn keeps_the_minimum(fleet: &Fleet, controller: Command) {
    let nodes = fleet.balancer.replicas();
    let fill = |(node, count): (&String, usize)| {
        (0..count).map(|_| fleet.send(&fleet.keys[node])).collect::<Vec<_>>()
    };
    let _held: Vec<Vec<Request>> = nodes.iter().zip([3, 5, 4]).map(fill).collect();
    let mut controller = Controller::run(controller);
    controller.wait_for(&format!("Disabling node {}, queued requests: 5", nodes[1]));
    wait_for("further rounds", || {
        let rounds = ROUND.map(|text| controller.said(text).len());
        (rounds.into_iter().sum::<usize>() > 4).then_some(())
    });
    let enabled: Vec<bool> = nodes.iter().map(|node| fleet.is_enabled(node)).collect();
    assert_eq!(enabled, [true, false, true]);
    let other = fleet.send(&fleet.keys[&nodes[1]]);
    assert_ne!(other.node, nodes[1]);
    controller.end();
    assert_eq!(controller.said("ling node").len(), 1);
}

// === impl Fleet ===

impl Fleet {
    fn start() -> Self {
        let flags = ["--env=SERVER_LATENCY=1h", "--timeout-first-byte=1h", "--admin-token=s3cret"];
        let balancer = Balancer::with_replicas(3, &flags);
        let mut fleet = Self { balancer, keys: BTreeMap::new() };
        for key in 0.. {
            let key = key.to_string();
            let node = fleet.send(&key).node;
            fleet.keys.entry(node).or_insert(key);
            wait_for("its end", || {
                fleet.queued().values().all(|queued| *queued == 0).then_some(())
            });
            if fleet.keys.len() == 3 {
                break;
            }
        }
        fleet
    }

    fn url(&self) -> String {
        format!("http://{}", self.balancer.admin)
    }

    /// Sends a request with this key and waits until a node has it.
    fn send(&self, key: &str) -> Request {
        let before = self.queued();
        let mut stream = TcpStream::connect(self.balancer.address).unwrap();
        let head = format!("GET /home HTTP/1.1\r\nHost: a\r\nX-Request-Id: {key}\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let node = wait_for("a node to have it", || {
            let now = self.queued();
            now.into_iter().find(|(node, queued)| *queued > before[node]).map(|(node, _)| node)
        });
        Request { _stream: stream, node }
    }

    /// The requests in flight at each node.
    fn queued(&self) -> BTreeMap<String, u64> {
        let queued = |node: String| {
            let queued = self.node(&node)["queued_requests"].as_u64().unwrap();
            (node, queued)
        };
        self.balancer.replicas().into_iter().map(queued).collect()
    }

    fn is_enabled(&self, node: &str) -> bool {
        self.node(node)["enabled"].as_bool().unwrap()
    }

    fn node(&self, node: &str) -> Value {
        let path = format!("/loadbalancer/node/{node}");
        request(self.balancer.admin, "GET", &path, &[], b"").json()
    }

    /// The seat of each replica.
    fn seats(&self) -> BTreeMap<String, u64> {
        let fleet = request(self.balancer.admin, "GET", "/admin/fleet", &[], b"").json();
        let seat = |replica: &Value| {
            let hostname = replica["hostname"].as_str().unwrap().to_owned();
            (hostname, replica["seat"].as_u64().unwrap())
        };
        let seats: BTreeMap<_, _> =
            fleet["message"]["replicas"].as_array().unwrap().iter().map(seat).collect();
        assert_eq!(seats.len(), 3, "{fleet}");
        seats
    }
}
