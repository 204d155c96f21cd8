//! Whom `/admin/explain` names is who answers.

use rustix::process::Signal;
use serde_json::Value;
use tempfile::NamedTempFile;

use super::{asked, explained, told};
use crate::conformance::over;
use crate::conformance::upstream::Upstream;
use crate::overload::{Held, Holding, answered_by, call};
use crate::support::{Balancer, kill, request, wait_for};

/// The seat that answers a request with this id.
fn seat_of(balancer: &Balancer, id: &str) -> u64 {
    let answer = request(balancer.address, "GET", "/home", &[("X-Request-Id", id)], b"");
    let message = answer.message();
    message.strip_prefix("Hello from Server: ").and_then(|seat| seat.parse().ok()).unwrap()
}

fn seats(explained: &Value) -> Vec<u64> {
    let owners = explained["owners"].as_array().unwrap();
    owners.iter().map(|owner| owner["seat"].as_u64().unwrap()).collect()
}

/// The one that is named for each of these keys answers it; tells how many different ones did.
fn hold_true(held: &Held, keys: u32) -> usize {
    let names = held.names();
    let mut seen = std::collections::BTreeSet::new();
    for key in 0..keys {
        let explained = explained(&held.balancer, &format!("key={key}"));
        let answered = answered_by(&held.balancer, &key.to_string());
        let place = ["a", "b", "c"].iter().position(|name| *name == answered).unwrap();
        assert_eq!(asked(&explained), names[place], "{key}: {explained}");
        seen.insert(place);
    }
    seen.len()
}

/// Waits until exactly so many requests are in flight: an answer is there a moment before its request
/// is counted out.
fn wait_for_in_flight(balancer: &Balancer, count: u64) {
    wait_for("requests in flight", || {
        let owners = explained(balancer, "key=1")["owners"].clone();
        let in_flight = owners.as_array()?.iter().filter_map(|owner| owner["in_flight"].as_u64());
        (in_flight.sum::<u64>() == count).then_some(())
    });
}

#[test]
fn where_a_key_falls_is_told() {
    for (placement, fields) in [
        ("ring", &["hash", "point"][..]),
        ("ketama", &["hash", "point"]),
        ("classic", &["occupied", "slot"]),
        ("maglev", &["entry"]),
        ("jump", &[]),
    ] {
        let balancer = Balancer::with_replicas(3, &["--placement", placement]);
        let explained = explained(&balancer, "key=7");
        let told = explained["falls_on"].as_object();
        let told: Vec<&str> = told.into_iter().flatten().map(|(name, _)| name.as_str()).collect();
        assert_eq!(told, fields, "{explained}");
        match placement {
            // CRC-32 of "7", and 49 + 14 + 17.
            "ketama" => assert_eq!(explained["falls_on"]["hash"], "6abf4a8200000000"),
            "classic" => assert_eq!(explained["falls_on"]["slot"], 80),
            _ => assert_eq!(explained["owners"].as_array().unwrap().len(), 3),
        }
    }
}

#[test]
fn the_first_owner_is_who_answers() {
    for placement in ["ring", "classic", "ketama", "maglev", "rendezvous", "jump"] {
        let balancer = Balancer::with_replicas(4, &["--placement", placement]);
        for key in 0..300 {
            let explained = explained(&balancer, &format!("key={key}"));
            let seats = seats(&explained);
            assert_eq!(seats[0], seat_of(&balancer, &key.to_string()), "{explained}");
            assert_eq!(asked(&explained), format!("S{}", seats[0]));
            let mut all = seats.clone();
            all.sort_unstable();
            assert_eq!(all, [1, 2, 3, 4], "each once");
            assert!(explained["owners"][0]["takes"].as_bool().unwrap());
            assert_eq!(explained["key"]["value"], key.to_string());
        }
        for (key, text) in [("a%20b%2Fc", "a b/c"), ("%C3%A4+%25", "ä+%")] {
            let explained = explained(&balancer, &format!("key={key}"));
            assert_eq!(explained["key"]["value"], text);
            let encoded = explained["key"]["encoded"].as_str().unwrap();
            let again = super::explained(&balancer, &format!("key={encoded}"));
            assert_eq!(seats(&explained), seats(&again), "{encoded}");
            assert_eq!(seats(&explained)[0], seat_of(&balancer, text));
        }
    }
}

#[test]
fn a_disabled_owner_is_passed_over_and_said_to_be() {
    let held = Held::start(&[]);
    assert_eq!(hold_true(&held, 100), 3);
    let name = &held.names()[0];
    call(&held.balancer, "POST", &format!("node/{name}/disable"));
    assert_eq!(hold_true(&held, 200), 2);
    let key = (0..).find(|key| {
        let owners = explained(&held.balancer, &format!("key={key}"))["owners"].clone();
        owners[0]["address"] == name.as_str()
    });
    let owners = explained(&held.balancer, &format!("key={}", key.unwrap()))["owners"].clone();
    let first = &owners[0];
    assert_eq!((&first["takes"], &first["state"]), (&false.into(), &"disabled".into()));
    assert_eq!(first["why"], format!("{name:?} is disabled: it takes no new request"));
    assert_eq!(owners[1]["takes"], true);
    for name in held.names() {
        call(&held.balancer, "POST", &format!("node/{name}/disable"));
    }
    let nobody = explained(&held.balancer, "key=1");
    assert_eq!(nobody["asked"].as_array().unwrap().len(), 0);
    assert_eq!(nobody["notes"][0], "no replica is ready: it would be answered 503");
    assert_eq!(held.balancer.get("/who").status, 503);
}

#[test]
fn a_dead_replicas_keys_go_where_they_are_said_to_go() {
    let balancer = Balancer::with_replicas(3, &["--respawn-base", "10m", "--respawn-max", "10m"]);
    let second = |ring: &Value| ring["members"][1].clone();
    // The first is replaced at once, the next one not for a long time.
    for _ in 0..2 {
        let name = second(&told(&balancer, "ring"))["hostname"].clone();
        kill(balancer.replica_processes()[&2], Signal::KILL);
        wait_for("its end", || {
            (second(&told(&balancer, "ring"))["hostname"] != name).then_some(())
        });
        wait_for("another, or none", || {
            let state = second(&told(&balancer, "ring"))["state"].clone();
            (state == "ready" || state == "empty").then_some(())
        });
    }
    wait_for("an empty seat", || {
        (second(&told(&balancer, "ring"))["state"] == "empty").then_some(())
    });
    let mut passed = 0;
    for key in 0..200 {
        let explained = explained(&balancer, &format!("key={key}"));
        let seats = seats(&explained);
        let first = seats.iter().find(|seat| **seat != 2).unwrap();
        assert_eq!(seat_of(&balancer, &key.to_string()), *first, "{explained}");
        assert_eq!(asked(&explained), format!("S{first}"));
        if seats[0] == 2 {
            passed += 1;
            let dead = &explained["owners"][0];
            assert_eq!((&dead["takes"], &dead["state"]), (&false.into(), &"empty".into()));
            assert!(dead["why"].as_str().unwrap().starts_with("no replica is here"), "{dead}");
        }
    }
    assert!(passed > 20, "{passed}");
}

#[test]
fn who_is_beyond_its_bound_is_passed_over_with_the_numbers() {
    let held = Held::start(&["--balance-factor", "1.25", "--workers", "2"]);
    let (balancer, names) = (&held.balancer, held.names());
    let key = held.keys()[0][0].clone();
    let mut clients = Vec::new();
    let mut bounded = 0;
    for all in 0..18_usize {
        wait_for_in_flight(balancer, all as u64);
        let counts = held.servers.each_ref().map(Holding::holds);
        let explained = explained(balancer, &format!("key={key}"));
        for owner in explained["owners"].as_array().unwrap() {
            let place = names.iter().position(|name| owner["address"] == name.as_str()).unwrap();
            assert_eq!(owner["in_flight"], counts[place], "{explained}");
            // ⌈1.25 · (all + 1) / 3⌉
            let bound = (5 * (all + 1)).div_ceil(12);
            assert_eq!(owner["takes"], counts[place] < bound, "{explained}");
            if counts[place] >= bound {
                bounded += 1;
                let why = format!(
                    "beyond its bound: {} in flight of at most {bound} by balance_factor 1.25, \
                     with {all} in flight in all",
                    counts[place]
                );
                assert_eq!(owner["why"], why);
            }
        }
        let place = names.iter().position(|name| *name == asked(&explained)).unwrap();
        clients.extend(held.hold(&key, 1, place));
    }
    assert!(bounded > 5, "{bounded}");
}

#[test]
fn who_is_full_is_passed_over_and_where_all_are_one_waits() {
    let held = Held::start(&["--admission-per-replica", "1", "--admission-wait", "20s"]);
    let (balancer, keys, names) = (&held.balancer, held.keys(), held.names());
    wait_for_in_flight(balancer, 0);
    let mut clients = held.hold(&keys[0][0], 1, 0);
    let first = explained(balancer, &format!("key={}", keys[0][1]));
    let owner = &first["owners"][0];
    assert_eq!(owner["why"], "full: 1 in flight of at most 1 ([admission])");
    let next = answered_by(balancer, &keys[0][1]);
    let place = ["a", "b", "c"].iter().position(|name| *name == next).unwrap();
    assert_eq!(asked(&first), names[place]);
    for place in [1, 2] {
        wait_for_in_flight(balancer, place as u64);
        clients.extend(held.hold(&keys[place][0], 1, place));
    }
    let full = explained(balancer, &format!("key={}", keys[0][1]));
    assert_eq!(full["asked"].as_array().unwrap().len(), 0, "{full}");
    assert_eq!(full["notes"][0], "nobody has room: it would wait for 20s at most");
    clients.extend(crate::overload::hold(balancer, &keys[0][1], 1));
    wait_for("one that waits", || {
        let samples = crate::metrics::samples(balancer);
        (samples["balancer_admission_waiting"] == 1.0).then_some(())
    });
}

/// Routes of every kind of key.
const ROUTED: &str = r#"
policy = "round-robin"

[[route]]
name = "by-user"
paths = ["/users/**"]
policy = "hash"
key = "header:X-User"
balance_factor = 1.5

[[route]]
name = "by-path"
methods = ["PUT"]
hosts = ["example.org"]
policy = "hash"
key = "path"

[[route]]
name = "by-client"
paths = ["/client"]
policy = "hash"
key = "client-ip"

[[route]]
name = "sticky"
paths = ["/sticky"]
policy = "hash"
key = "cookie:SID"
issue = true

[[route]]
name = "all"
paths = ["/all"]
policy = "hash"
send = "all"

[[route]]
name = "first"
paths = ["/first"]
policy = "hash"
send = "first"
fan = 2
"#;

/// Three servers that answer with their names, behind these routes.
fn routed() -> ([Holding; 3], Balancer, NamedTempFile) {
    let file = NamedTempFile::with_suffix(".toml").unwrap();
    std::fs::write(file.path(), ROUTED).unwrap();
    let servers = ["a", "b", "c"].map(Holding::start);
    let upstreams: Vec<&Upstream> = servers.iter().map(|server| &server.upstream).collect();
    let balancer = over(&upstreams, &["--config", file.path().to_str().unwrap()]);
    (servers, balancer, file)
}

/// Who answers a request, by its address.
fn answers(
    (servers, balancer): (&[Holding; 3], &Balancer),
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> String {
    let answer = request(balancer.address, method, path, headers, b"");
    let name = String::from_utf8(answer.body).unwrap();
    let place = ["a", "b", "c"].iter().position(|known| *known == name);
    servers[place.unwrap_or_else(|| panic!("{name}"))].name()
}

#[test]
fn a_request_is_explained_by_its_route_and_its_key() {
    let (servers, balancer, _file) = routed();
    let to = (&servers, &balancer);
    let mut seen = std::collections::BTreeSet::new();
    for user in 0..100 {
        let told = explained(&balancer, &format!("path=/users/x?y&header=X-User:%20u%20{user}"));
        assert_eq!(told["route"]["name"], "by-user");
        assert_eq!(told["route"]["balance_factor"], 1.5);
        assert_eq!(told["key"]["value"], format!("u {user}"));
        let name = asked(&told);
        let fields = [("X-User", &*format!("u {user}"))];
        assert_eq!(answers(to, "GET", "/users/x?y", &fields), name, "{told}");
        seen.insert(name);
        let path = format!("/{user}/z");
        let told = explained(&balancer, &format!("path={path}&method=PUT&host=example.org:80"));
        assert_eq!(
            (&told["route"]["name"], &told["key"]["source"]),
            (&"by-path".into(), &"path".into())
        );
        assert_eq!(answers(to, "PUT", &path, &[("Host", "example.org")]), asked(&told), "{told}");
        let told = explained(&balancer, &format!("path=/users/&header=X-Request-Id:{user}"));
        assert_eq!(told["key"]["fallback"], "request-id");
        let fields = [("X-Request-Id", &*user.to_string())];
        assert_eq!(answers(to, "GET", "/users/", &fields), asked(&told), "{told}");
    }
    assert_eq!(seen.len(), 3);
    for query in ["path=/client", "path=/client&client=127.0.0.1"] {
        let told = explained(&balancer, query);
        assert_eq!(
            (&told["key"]["value"], &told["key"]["encoded"]),
            (&"127.0.0.1".into(), &"%7F%00%00%01".into())
        );
        assert_eq!(answers(to, "GET", "/client", &[]), asked(&told), "{told}");
    }
    let told = explained(&balancer, "path=/sticky&header=Cookie:%20a=1;%20SID=abc");
    assert_eq!(told["key"]["value"], "abc");
    assert_eq!(answers(to, "GET", "/sticky", &[("Cookie", "SID=abc")]), asked(&told), "{told}");
}

#[test]
fn what_is_left_to_chance_is_not_foretold() {
    let (_servers, balancer, _file) = routed();
    for (query, fallback, note) in [
        ("path=/users/", "random", "without X-Request-Id the key would be a random number"),
        ("path=/sticky", "issued", "without the cookie \"SID\" the client gets one"),
    ] {
        let told = explained(&balancer, query);
        assert_eq!(told["key"]["fallback"], fallback);
        assert!(told["key"]["value"].is_null() && told["asked"].is_null(), "{told}");
        assert!(told["notes"][0].as_str().unwrap().starts_with(note), "{told}");
        assert!(told.get("owners").is_none());
    }
    let told = explained(&balancer, "path=/&header=X-Request-Id:1");
    assert_eq!(
        (&told["route"]["name"], &told["route"]["policy"]),
        (&"default".into(), &"round-robin".into())
    );
    assert_eq!(told["chooses"], "in turns, each as often as its weight says");
    assert!(told["asked"].is_null(), "{told}");
    let replicas = told["replicas"].as_array().unwrap();
    assert!(replicas.len() == 3 && replicas.iter().all(|it| it["in_flight"] == 0), "{told}");
    let key = explained(&balancer, "key=1");
    assert_eq!(key["notes"][0], "the default route's policy is round-robin: no key counts");
}

#[test]
fn a_request_to_several_names_all_that_are_asked() {
    let (servers, balancer, _file) = routed();
    for key in 0..20 {
        for (path, count) in [("/all", 3), ("/first", 2)] {
            let told = explained(&balancer, &format!("path={path}&header=x-request-id:{key}"));
            assert_eq!(told["route"]["send"], &path[1..]);
            let asked: Vec<&str> =
                told["asked"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
            assert_eq!(asked.len(), count, "{told}");
            let marker = format!("{path}?{key}");
            let fields = [("X-Request-Id", &*key.to_string())];
            assert_eq!(request(balancer.address, "GET", &marker, &fields, b"").status, 200);
            wait_for("all that were asked", || {
                let seen = servers.iter().filter(|it| !it.upstream.seen_with(&marker).is_empty());
                let seen: Vec<String> = seen.map(Holding::name).collect();
                assert!(seen.iter().all(|it| asked.contains(&&**it)), "{seen:?}: {told}");
                // Of two, the slower one may be called off before it is sent.
                (seen.len() == count || (count == 2 && !seen.is_empty())).then_some(())
            });
        }
    }
}
