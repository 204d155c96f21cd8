//! Listed servers: a file of them that changes, and `/add` and `/rm` by address.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use serde_json::json;
use tempfile::TempDir;

use crate::engine::replica::Replica;
use crate::load::Load;
use crate::support::{Answer, Balancer, request, wait_for};

/// The log line of a changed file that is not taken.
const KEPT: &str = "servers file is no good; the list stays as it is";

/// A demo replica that nobody but the test owns; killed when dropped.
struct Server {
    child: Child,
    address: SocketAddr,
}

/// A file of servers.
struct List {
    folder: TempDir,
    path: PathBuf,
}

/// An address that nobody listens at.
fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn local() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn names(servers: &[&Server]) -> Vec<String> {
    servers.iter().map(|server| server.address.to_string()).collect()
}

/// Waits until `/rep` lists these, in whatever order.
fn wait_for_names(balancer: &Balancer, mut names: Vec<String>) {
    names.sort();
    wait_for(&format!("{names:?}"), || {
        let mut listed = balancer.replicas();
        listed.sort();
        (listed == names).then_some(())
    });
}

fn change(balancer: &Balancer, path: &str, hostnames: &[&str]) -> Answer {
    let body = json!({ "n": hostnames.len(), "hostnames": hostnames }).to_string();
    let method = if path == "/add" { "POST" } else { "DELETE" };
    balancer.json(method, path, &body)
}

/// Who greets.
fn greeter(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{answer:?}");
    let message = answer.json()["message"].as_str().unwrap().to_owned();
    message.strip_prefix("Hello from Server: ").unwrap().to_owned()
}

/// A start that ends at once, with what is said.
fn refused(arguments: &[&str]) -> String {
    let Output { status, stderr, .. } = Command::new(env!("CARGO_BIN_EXE_balancer"))
        .args(["--listen", "127.0.0.1:0"])
        .args(arguments)
        .output()
        .unwrap();
    assert!(!status.success(), "{arguments:?}");
    String::from_utf8(stderr).unwrap()
}

// === impl Server ===

impl Server {
    fn start() -> Self {
        Self::start_at(nobody())
    }

    fn start_at(address: SocketAddr) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_balancer"))
            .args(["replica", "--listen", &address.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { child, address };
        wait_for("a server", || TcpStream::connect(address).ok());
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _ended = self.child.wait();
    }
}

// === impl List ===

impl List {
    fn of(lines: &[String]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("servers");
        let list = Self { folder, path };
        list.write(&lines.join("\n"));
        list
    }

    fn argument(&self) -> &str {
        self.path.to_str().unwrap()
    }

    /// Writes into the file that is there.
    fn write(&self, text: &str) {
        fs::write(&self.path, text).unwrap();
    }

    /// Puts another file in its place.
    fn replace(&self, text: &str) {
        let next = self.folder.path().join("next");
        fs::write(&next, text).unwrap();
        fs::rename(next, &self.path).unwrap();
    }
}

// === the file ===

#[test]
fn a_file_that_changes_is_followed_without_a_failed_request() {
    let [a, b, c] = [Server::start(), Server::start(), Server::start()];
    let list = List::of(&names(&[&a, &b]));
    let balancer = Balancer::start(&["--servers-file", list.argument()]);
    wait_for_names(&balancer, names(&[&a, &b]));
    let load = Load::start(balancer.address);

    list.replace(&format!("# ours\nhttp://{}/ weight=2\n\n{} # new\n", b.address, c.address));
    wait_for_names(&balancer, names(&[&b, &c]));
    load.wait_for_more();
    list.write(&a.address.to_string());
    wait_for_names(&balancer, names(&[&a]));
    load.wait_for_more();
    list.write(&names(&[&c, &a, &b]).join("\n"));
    wait_for_names(&balancer, names(&[&a, &b, &c]));
    load.end();
    assert_eq!(balancer.events("servers file has changed").len(), 3);
    assert!(balancer.events("replica is dead").is_empty());
}

#[test]
fn a_server_that_is_listed_no_more_finishes_its_requests_and_takes_no_others() {
    let [slow, other] = ["slow", "other"].map(|name| Replica::start(local(), name).unwrap());
    let list = List::of(&[slow.address.to_string(), other.address.to_string()]);
    let balancer = Balancer::start(&["--servers-file", list.argument(), "--timeout-drain", "20s"]);
    balancer.wait_for_replicas(2);
    slow.pause(true);
    thread::scope(|scope| {
        let balancer = &balancer;
        let ask = |id: u32| {
            let id = id.to_string();
            request(balancer.address, "GET", "/home", &[("X-Request-Id", &id)], b"")
        };
        let clients: Vec<_> = (0..16).map(|id| scope.spawn(move || ask(id))).collect();
        wait_for("sixteen requests", || (slow.asked() + other.asked() == 16).then_some(()));
        let held = slow.asked();
        assert!(held > 0, "none has come to the slow one");
        list.write(&other.address.to_string());
        assert_eq!(balancer.wait_for_replicas(1), [other.address.to_string()]);
        for id in 0..32 {
            assert_eq!(greeter(&ask(id)), "other");
        }
        assert_eq!(slow.asked(), held, "it takes no new ones");
        slow.pause(false);
        let answers: Vec<Answer> =
            clients.into_iter().map(|client| client.join().unwrap()).collect();
        assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
        let from_it = |answer: &&Answer| greeter(answer) == "slow";
        assert_eq!(answers.iter().filter(from_it).count(), held, "each was answered where it was");
    });
    wait_for("its end", || balancer.events("replica is removed").pop());
}

#[test]
fn a_file_that_is_no_good_changes_nothing_and_is_told_once() {
    let [a, b] = [Server::start(), Server::start()];
    let own = a.address.to_string();
    let list = List::of(&names(&[&b]));
    let balancer = Balancer::start(&["--servers-file", list.argument(), "--servers", &own]);
    wait_for_names(&balancer, names(&[&a, &b]));
    let told = |number: usize| {
        let events = wait_for("a warning", || {
            Some(balancer.events(KEPT)).filter(|events| events.len() == number)
        });
        events.last().unwrap().fields["error"].as_str().unwrap().to_owned()
    };
    list.write(&format!("{}\n\nhttps://{}", b.address, b.address));
    let why = told(1);
    assert!(why.starts_with("line 3: \"https://"), "{why}");
    assert!(why.ends_with("so https:// is not possible; http:// is"), "{why}");
    list.write(&format!("{own}\n{}", b.address));
    assert_eq!(told(2), format!("{own:?} is listed already, in 'servers'"));
    list.write("# nothing\n");
    assert!(told(3).starts_with("it lists no server"));
    fs::remove_file(&list.path).unwrap();
    assert!(told(4).starts_with("it cannot be read: No such file"));
    // Some more looks at it say nothing more; and then it is as it was.
    list.write(&b.address.to_string());
    list.replace("b");
    told(5);
    assert!(balancer.events("servers file has changed").is_empty());
    assert_eq!(balancer.replicas().len(), 2);
    let c = Server::start();
    list.replace(&c.address.to_string());
    wait_for_names(&balancer, names(&[&a, &c]));
    assert_eq!(balancer.events(KEPT).len(), 5);
}

#[test]
fn a_changed_file_replaces_what_calls_have_made_of_the_list() {
    let [a, b, c] = [Server::start(), Server::start(), Server::start()];
    let list = List::of(&names(&[&a, &b]));
    let balancer = Balancer::start(&["--servers-file", list.argument()]);
    wait_for_names(&balancer, names(&[&a, &b]));
    assert_eq!(change(&balancer, "/add", &[&c.address.to_string()]).status, 200);
    assert_eq!(change(&balancer, "/rm", &[&a.address.to_string()]).status, 200);
    assert_eq!(balancer.replicas(), names(&[&b, &c]));
    list.write(&names(&[&b, &a]).join("\n"));
    wait_for_names(&balancer, names(&[&a, &b]));
}

#[test]
fn a_bad_file_is_refused_at_the_start_with_its_line() {
    for (content, said) in [
        ("a:1\nb", "line 2: \"b\" is no host:port"),
        ("https://a:1", "line 1: \"https://a:1\" is no host:port"),
        ("a:1\nhttp://a:1/", "line 2: \"a:1\" is listed already, by line 1"),
        ("", "it lists no server"),
        ("c:1", "\"c:1\" is listed already, in 'servers'"),
    ] {
        let list = List::of(&[content.to_owned()]);
        let told = refused(&["--servers-file", list.argument(), "--servers", "C:1"]);
        let begin = format!("error: 'servers_file' cannot be used: {}: ", list.argument());
        assert!(told.starts_with(&begin) && told.contains(said), "{told}");
    }
    let told = refused(&["--servers-file", "/no/such/file"]);
    assert!(told.contains("'servers_file' cannot be used: /no/such/file"), "{told}");
    let told = refused(&["--servers-file", "/etc/hosts", "--runtime", "process"]);
    assert!(told.contains("'servers_file' is for runtime"), "{told}");
    let told = refused(&["--servers", "https://a:1"]);
    assert!(told.contains("replicas are spoken to in plain HTTP"), "{told}");
}

// === names ===

#[test]
fn a_name_is_shown_as_it_was_written_and_one_that_is_unknown_stops_nothing() {
    let server = Server::start();
    let port = server.address.port();
    let servers = format!("nobody.invalid:{port},http://LocalHost:{port}");
    let balancer = Balancer::start(&["--servers", &servers]);
    assert_eq!(balancer.wait_for_replicas(1), [format!("LocalHost:{port}")]);
    assert_eq!(balancer.get("/home").status, 200);
    let unresolved = format!("nobody.invalid:{port}");
    let reason = wait_for("the reason of the other", || {
        let answer = request(balancer.admin, "GET", "/admin/fleet", &[], b"");
        let replicas = answer.json()["message"]["replicas"].clone();
        let found = replicas.as_array()?.iter().find(|it| it["hostname"] == unresolved)?.clone();
        assert_eq!((&found["state"], &found["address"]), (&json!("starting"), &json!(null)));
        Some(found["reason"].as_str()?.to_owned())
    });
    let expected = format!("cannot resolve {unresolved:?}: ");
    assert!(reason.starts_with(&expected), "{reason}");
    let told = wait_for("the log line", || balancer.events("replica not ready").pop());
    assert_eq!(
        (&told.fields["hostname"], &told.fields["reason"]),
        (&unresolved.into(), &reason.into())
    );
    assert_eq!(balancer.events("replica not ready").len(), 1);
}

// === /add and /rm ===

#[test]
fn servers_are_added_when_they_are_ready_and_removed_when_they_are_idle() {
    let [a, b] = [Server::start(), Server::start()];
    let slow = Replica::start(local(), "slow").unwrap();
    let own = a.address.to_string();
    let balancer = Balancer::start(&["--servers", &own]);
    balancer.wait_for_replicas(1);
    let (second, third) = (b.address.to_string(), slow.address.to_string());
    let added = change(&balancer, "/add", &[&format!("http://{third}/ weight=3"), &second.clone()]);
    assert_eq!(added.status, 200, "{added:?}");
    assert_eq!(added.json()["message"]["replicas"], json!([own, third, second]));
    slow.pause(true);
    thread::scope(|scope| {
        let balancer = &balancer;
        let clients: Vec<_> =
            (0..16).map(|_| scope.spawn(move || balancer.get("/home").status)).collect();
        wait_for("a request at the slow one", || (slow.asked() > 0).then_some(()));
        let leaves = scope.spawn(|| change(balancer, "/rm", &[&third]));
        wait_for("its leaving", || (balancer.replicas().len() == 2).then_some(()));
        assert!(!leaves.is_finished());
        slow.pause(false);
        let left = leaves.join().unwrap();
        assert_eq!((left.status, &left.json()["message"]["N"]), (200, &json!(2)));
        let answers: Vec<u16> = clients.into_iter().map(|client| client.join().unwrap()).collect();
        assert_eq!(answers, [200; 16]);
    });
    assert_eq!(change(&balancer, "/rm", &[&second, &own]).json()["message"]["N"], 0);
    assert_eq!(balancer.get("/home").status, 503);
    assert_eq!(change(&balancer, "/add", &[&own]).status, 200);
    assert_eq!(balancer.get("/home").status, 200);
}

#[test]
fn a_server_that_is_never_ready_is_not_listed_nor_are_those_with_it() {
    let [a, b] = [Server::start(), Server::start()];
    let own = a.address.to_string();
    let balancer = Balancer::start(&["--servers", &own, "--health-start-deadline", "1s"]);
    balancer.wait_for_replicas(1);
    let (second, gone) = (b.address.to_string(), nobody().to_string());
    let answer = change(&balancer, "/add", &[&second, &gone]);
    let expected = format!(
        "<Error> replica {gone:?} was not ready within 1s: health check failed: connection to \
         {gone} refused"
    );
    assert_eq!((answer.status, answer.message()), (500, expected));
    assert_eq!(balancer.replicas(), std::slice::from_ref(&own));
    let answer = change(&balancer, "/add", &[&second, "nobody.invalid:80"]);
    let expected = "<Error> server \"nobody.invalid:80\" could not be listed: cannot resolve";
    assert!(answer.status == 500 && answer.message().starts_with(expected), "{answer:?}");
    assert_eq!(balancer.replicas(), std::slice::from_ref(&own));
    // Nothing is left of it.
    let late = Server::start_at(gone.parse().unwrap());
    let answer = change(&balancer, "/add", &[&second, &late.address.to_string()]);
    assert_eq!((answer.status, &answer.json()["message"]["N"]), (200, &json!(3)));
}

#[test]
fn calls_that_make_no_sense_are_refused_and_change_nothing() {
    let [a, b] = [Server::start(), Server::start()];
    let (own, port) = (a.address.to_string(), a.address.port());
    let balancer = Balancer::start(&["--servers", &format!("{own},{}", b.address)]);
    balancer.wait_for_replicas(2);
    let unnamed = "replicas are listed ('servers'), not owned: 'hostnames' must have the address \
                   of each of 'n' = ";
    let no_address = "replicas are listed, so 'hostnames' must be addresses: ";
    for (path, body, told) in [
        ("/add", json!({"n": 1}), format!("{unnamed}1, as host:port, not 0")),
        ("/add", json!({"n": 2, "hostnames": ["c:1"]}), format!("{unnamed}2, as host:port, not 1")),
        ("/rm", json!({"n": 1}), format!("{unnamed}1, as host:port, not 0")),
        ("/add", json!({"n": 1, "hostnames": ["S5"]}), format!("{no_address}\"S5\" is no host")),
        ("/add", json!({"n": 1, "hostnames": ["https://c:1"]}), no_address.to_owned()),
        (
            "/add",
            json!({"n": 1, "hostnames": [own]}),
            format!("hostname {own:?} is in use already"),
        ),
        (
            "/add",
            json!({"n": 1, "hostnames": [format!("localhost:{port}")]}),
            format!("hostname \"localhost:{port}\" is in use already: its address is listed"),
        ),
        (
            "/add",
            json!({"n": 2, "hostnames": ["c:1", "C:1"]}),
            "hostname \"C:1\" is in 'hostnames' twice".to_owned(),
        ),
        ("/rm", json!({"n": 1, "hostnames": ["c:1"]}), "hostname \"c:1\" is unknown".to_owned()),
        ("/rm", json!({"n": 1, "hostnames": ["../x"]}), "hostname \"../x\" is unknown".to_owned()),
        (
            "/rm",
            json!({"n": 2, "hostnames": [own, own]}),
            format!("hostname {own:?} is in 'hostnames' twice"),
        ),
        (
            "/rm",
            json!({"n": 1, "hostnames": [own, "c:1"]}),
            "Length of hostname list is more than removable instances".to_owned(),
        ),
    ] {
        let method = if path == "/add" { "POST" } else { "DELETE" };
        let answer = balancer.json(method, path, &body.to_string());
        assert_eq!(answer.status, 400, "{body}: {answer:?}");
        let begin = format!("<Error> {told}");
        assert!(answer.message().starts_with(&begin), "{body}: {answer:?}");
    }
    assert_eq!(balancer.replicas().len(), 2);
    assert!(balancer.events("replica is leaving").is_empty());
}

#[test]
fn a_server_that_comes_back_is_routed_to_again() {
    let [a, b] = [Server::start(), Server::start()];
    let servers = names(&[&a, &b]).join(",");
    let balancer = Balancer::start(&["--servers", &servers, "--health-interval", "1s"]);
    balancer.wait_for_replicas(2);
    let address = b.address;
    drop(b);
    let ejected = || balancer.events("replica is ejected");
    wait_for("its ejection", || {
        assert_eq!(balancer.get("/home").status, 200);
        ejected().pop()
    });
    let _again = Server::start_at(address);
    wait_for("its return", || (balancer.events("replica is ready").len() == 3).then_some(()));
}
