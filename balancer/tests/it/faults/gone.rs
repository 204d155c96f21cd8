//! An engine that is away, hangs, or never was there.

use std::fs::{File, Permissions};
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{Load, greeting, seat_in, wait_for_seats};
use crate::engine::{Call, Engine, Fault, State};
use crate::support::{Balancer, kill, wait_for};

const UNKNOWN: &str = "replicas cannot be listed; the last table stays";
const WAITS: &str = "waiting for the container engine";
const KNOWN: &str = "replicas can be listed again";

/// Waits until the balancer has listed and subscribed to events again.
fn wait_until_back(engine: &Engine, balancer: &Balancer) {
    wait_for("a good listing", || balancer.events(KNOWN).pop());
    wait_for("a subscription", || (engine.world().subscribers == 1).then_some(()));
}

#[test]
fn while_the_engine_restarts_its_containers_go_on_serving_and_none_is_replaced() {
    let engine = Engine::start();
    let stranger = engine.stranger("somebody");
    let balancer = engine.balancer_with(3, &[]);
    let seats = engine.wait_for(3);
    let load = Load::start(balancer.address);

    engine.down();
    wait_for("the news that the engine is gone", || balancer.events(UNKNOWN).pop());
    for (method, path) in [("POST", "/add"), ("DELETE", "/rm")] {
        let answer = balancer.json(method, path, r#"{"n":1,"hostnames":[]}"#);
        assert!(matches!(answer.status, 500 | 503), "{answer:?}");
        assert!(answer.message().contains("the container engine could not"), "{answer:?}");
    }
    load.wait_for_more();
    engine.up();
    wait_until_back(&engine, &balancer);
    assert_eq!(balancer.events(UNKNOWN).len(), 1, "told once");

    // What the failed /rm was to remove goes as soon as that is possible, and is not replaced.
    let left = engine.wait_for(2);
    assert!(left.iter().all(|(seat, id)| seats[seat] == *id), "{seats:?} {left:?}");
    assert_eq!(balancer.wait_for_replicas(2).len(), 2);
    assert_eq!(engine.calls(Call::Create).len(), 3, "nothing was started");
    engine.kill(&left[left.keys().next().unwrap()]);
    engine.wait_for(2);
    load.end();
    assert_eq!(engine.world().find(&stranger).unwrap().state, State::Running);
    assert!(balancer.events("supervisor ended badly").is_empty());
}

#[test]
fn containers_that_died_with_the_engine_are_restored_without_doubles() {
    let engine = Engine::start();
    let balancer = engine.balancer_with(3, &[]);
    let before = engine.wait_for(3);

    engine.down();
    for id in before.values() {
        engine.world().kill(id, 137);
    }
    let answer = wait_for("the news of the last death", || {
        Some(balancer.get("/home")).filter(|answer| answer.status == 503)
    });
    assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
    engine.up();
    wait_until_back(&engine, &balancer);
    let after = engine.wait_for(3);
    assert_eq!(after.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
    assert_eq!(engine.calls(Call::Create).len(), 6, "one for each");
    wait_for_seats(&balancer, &[1, 2, 3]);
}

#[test]
fn an_engine_that_hangs_is_waited_for_and_nothing_is_removed_for_lack_of_an_answer() {
    let engine = Engine::start();
    let fast = ["--health-interval", "50ms", "--health-timeout", "100ms"];
    let balancer = engine.balancer_with(3, &fast);
    let seats = engine.wait_for(3);
    let load = Load::start(balancer.address);
    let id = (0..).find(|id| seat_in(&greeting(&balancer, *id)) == Some(2)).unwrap();

    engine.fail(Call::Any, Fault::Hang, None);
    let hangs = Instant::now();
    let adding = thread::scope(|scope| {
        let adding = scope.spawn(|| balancer.json("POST", "/add", r#"{"n":1}"#));
        let told = wait_for("the end of the listing's patience", || balancer.events(UNKNOWN).pop());
        let within = told.at - hangs;
        assert!(within < Duration::from_secs(13), "an engine call took {within:?}");
        // Probes go on: a replica that hangs, too, is found.
        let pause = |paused| {
            engine.world().find(&seats[&2]).unwrap().replica.as_ref().unwrap().pause(paused);
        };
        load.wait_for_more();
        load.end();
        pause(true);
        let ejected = "replica is ejected";
        wait_for("its ejection", || balancer.events(ejected).pop());
        assert!(seat_in(&greeting(&balancer, id)).is_some_and(|seat| seat != 2));
        pause(false);
        wait_for_seats(&balancer, &[1, 2, 3]);
        let hanging = engine.world().under_way();
        assert!(hanging < 10, "{hanging} calls wait for an engine that hangs");
        engine.heal();
        adding.join().unwrap()
    });
    assert_eq!(adding.status, 500, "{adding:?}");
    assert!(adding.message().contains("within 10s"), "{adding:?}");
    wait_until_back(&engine, &balancer);
    assert_eq!(engine.wait_for(3), seats);
    assert_eq!(engine.calls(Call::Remove).len() + engine.calls(Call::Stop).len(), 0);
    assert_eq!(balancer.json("POST", "/add", r#"{"n":1}"#).status, 200);
    let now = engine.wait_for(4);
    assert!(seats.iter().all(|(seat, id)| now[seat] == *id), "{seats:?} {now:?}");
}

#[test]
fn an_engine_that_closes_every_connection_is_not_asked_in_a_hot_loop() {
    let engine = Engine::start();
    let balancer = engine.balancer_with(2, &[]);
    let seats = engine.wait_for(2);
    let load = Load::start(balancer.address);
    engine.fail(Call::Any, Fault::Close, None);
    engine.down();
    engine.up();
    wait_for("the news that the engine is gone", || balancer.events(UNKNOWN).pop());
    let before = engine.world().calls.len();
    let began = Instant::now();
    wait_for("more calls", || (engine.world().calls.len() >= before + 15).then_some(()));
    // A listing each second, and two subscriptions and a listing after each lost subscription.
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(1_500), "fifteen calls within {took:?}");
    engine.heal();
    wait_until_back(&engine, &balancer);
    load.end();
    assert_eq!(engine.wait_for(2), seats);
}

/// Runs a balancer that must end by itself with code 1; tells what it says.
fn ends(command: &mut Command) -> String {
    let mut child = command
        .args(["--listen", "127.0.0.1:0", "--runtime", "docker"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let began = Instant::now();
    let ended = wait_for("the end of the balancer", || {
        let ended = child.try_wait().unwrap();
        if ended.is_none() && began.elapsed() > Duration::from_secs(20) {
            child.kill().unwrap();
        }
        ended
    });
    let said = std::io::read_to_string(child.stderr.take().unwrap()).unwrap();
    assert_eq!(ended.code(), Some(1), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    said
}

/// The same for one that must not wait for anything.
fn ends_at_once(mut command: Command) -> String {
    let said = ends(&mut command);
    assert!(said.starts_with("error: "), "{said}");
    assert_eq!(said.lines().count(), 1, "one clear line: {said}");
    said
}

/// The same for one that waits two seconds for its engine; tells its last line.
fn ends_after_its_wait(host: &str) -> String {
    let began = Instant::now();
    let mut command = Command::new(env!("CARGO_BIN_EXE_balancer"));
    let said = ends(command.env_clear().env("DOCKER_HOST", host).args(["--engine-wait", "2s"]));
    let took = began.elapsed();
    assert!((Duration::from_secs(2)..Duration::from_secs(10)).contains(&took), "{took:?}");
    assert_eq!(said.matches(WAITS).count(), 1, "told once: {said}");
    let error = said.lines().last().unwrap();
    assert!(error.starts_with("error: cannot reach the container engine at "), "{said}");
    assert!(error.contains(host) && error.ends_with("; waited 2s ('engine.wait')"), "{said}");
    error.to_owned()
}

#[test]
fn an_engine_that_appears_after_two_seconds_is_awaited() {
    let engine = Engine::absent();
    let balancer = thread::scope(|scope| {
        let starting = scope.spawn(|| engine.balancer(&["--replicas", "1"]));
        let until = Instant::now() + Duration::from_secs(2);
        wait_for("two seconds", || (Instant::now() >= until).then_some(()));
        assert!(!starting.is_finished());
        engine.up();
        starting.join().unwrap()
    });
    balancer.wait_for_replicas(1);
    let waits = balancer.events(WAITS);
    assert_eq!(waits.len(), 1, "told once");
    let reason = waits[0].fields["error"].as_str().unwrap();
    assert!(reason.contains("absent"), "{reason}");
    assert_eq!(balancer.events("container engine found").len(), 1);
}

#[test]
fn an_engine_that_does_not_appear_ends_the_balancer_which_says_whether_it_is_absent_or_hangs() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("engine.sock");
    let host = format!("unix://{}", socket.display());
    let said = ends_after_its_wait(&host);
    assert!(said.contains("(absent): socket ") && said.contains("does not exist"), "{said}");

    // What an engine that was killed leaves.
    drop(UnixListener::bind(&socket).unwrap());
    let said = ends_after_its_wait(&host);
    assert!(said.contains("(absent): connection refused"), "{said}");

    // The kernel accepts.
    std::fs::remove_file(&socket).unwrap();
    let _hangs = UnixListener::bind(&socket).unwrap();
    let said = ends_after_its_wait(&host);
    assert!(said.contains("the engine hangs: "), "{said}");

    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let said = ends_after_its_wait(&format!("tcp://{closed}"));
    assert!(said.contains("(absent): connection refused"), "{said}");
}

#[test]
fn an_engine_that_tells_its_version_and_hangs_at_all_else_hangs() {
    let engine = Engine::start();
    engine.fail(Call::List, Fault::Hang, None);
    let said = ends_after_its_wait(&engine.host());
    assert!(said.contains("the engine hangs: "), "{said}");
    assert!(engine.calls(Call::Create).is_empty(), "unknown is not empty");
}

#[test]
fn a_balancer_that_waits_for_its_engine_ends_at_once_when_it_is_told_to() {
    let engine = Engine::absent();
    let mut child = Command::new(env!("CARGO_BIN_EXE_balancer"))
        .args(["--listen", "127.0.0.1:0", "--runtime", "docker"])
        .env_clear()
        .env("DOCKER_HOST", engine.host())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains(WAITS)), "it does not wait");
    let told = Instant::now();
    kill(child.id(), Signal::TERM);
    let ended = wait_for("the end of the balancer", || child.try_wait().unwrap());
    assert_eq!(ended.code(), Some(0));
    assert!(told.elapsed() < Duration::from_secs(5), "after {:?}", told.elapsed());
}

#[test]
fn a_socket_that_may_not_be_used_is_named_and_ends_the_balancer() {
    let engine = Engine::start();
    let program = File::open(env!("CARGO_BIN_EXE_balancer")).unwrap();
    // By its descriptor: whoever runs it need not reach the directory it is in.
    let mut command = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()));
    if rustix::process::geteuid().is_root() {
        command.uid(65_534).gid(65_534);
    }
    std::fs::set_permissions(engine.socket(), Permissions::from_mode(0o600)).unwrap();
    if !rustix::process::geteuid().is_root() {
        std::fs::set_permissions(engine.socket(), Permissions::from_mode(0o000)).unwrap();
    }
    let said = ends_at_once({
        command.env_clear().env("DOCKER_HOST", engine.host());
        command
    });
    assert!(said.contains("cannot reach the container engine at unix://"), "{said}");
    assert!(said.contains("permission denied for user "), "{said}");
    for hint in ["`--group-add ", "`--user 0`", "group `docker`"] {
        assert!(said.contains(hint), "{hint}: {said}");
    }
    assert!(engine.world().calls.is_empty());
}

#[test]
fn an_engine_whose_api_is_too_old_or_too_new_is_named_and_ends_the_balancer() {
    let start = |engine: &Engine| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_balancer"));
        command.env_clear().env("DOCKER_HOST", engine.host());
        ends_at_once(command)
    };
    let engine = Engine::start();
    engine.world().api = "1.20";
    let said = start(&engine);
    assert!(said.contains("1.20") && said.contains("1.25"), "{said}");

    let engine = Engine::start();
    let words = "client version 1.53 is too old. Minimum supported API version is 1.60, please \
                 upgrade your client to a newer version";
    engine.fail(Call::Any, Fault::Status(400, words), None);
    assert!(start(&engine).contains(words));

    let engine = Engine::start();
    engine.fail(Call::Any, Fault::Status(200, "no engine at all"), None);
    let said = start(&engine);
    assert!(said.contains("cannot reach the container engine at unix://"), "{said}");
}

#[test]
fn what_an_engine_says_that_cannot_list_at_the_start_ends_the_balancer() {
    for fault in [Fault::Status(500, "database is locked"), Fault::Cut, Fault::Close] {
        let engine = Engine::start();
        engine.fail(Call::List, fault, None);
        let mut command = Command::new(env!("CARGO_BIN_EXE_balancer"));
        command.env_clear().env("DOCKER_HOST", engine.host());
        let said = ends_at_once(command);
        assert!(said.contains("could not list containers"), "{fault:?}: {said}");
        assert!(engine.calls(Call::Create).is_empty(), "unknown is not empty");
    }
}

#[test]
fn changes_that_an_engine_is_not_there_for_are_503_with_retry_after() {
    let engine = Engine::start();
    let balancer = engine.balancer_with(1, &[]);
    engine.down();
    wait_for("the news that the engine is gone", || balancer.events(UNKNOWN).pop());
    let answer = balancer.json("POST", "/add", r#"{"n":1}"#);
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
}
