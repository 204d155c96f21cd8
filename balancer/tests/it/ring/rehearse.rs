//! What is rehearsed is what `/add` and `/rm` then do.

use serde_json::{Value, json};

use super::{fingerprint, first_owners, name, sampling_error, shares, told};
use crate::conformance::over;
use crate::conformance::upstream::Upstream;
use crate::metrics::samples;
use crate::support::{Answer, Balancer, wait_for};

/// The keys of an estimate.
const SAMPLE: u32 = 1 << 16;

fn rehearse(balancer: &Balancer, body: &Value) -> Answer {
    balancer.json("POST", "/admin/rehearse", &body.to_string())
}

fn rehearsed(balancer: &Balancer, body: &Value) -> Value {
    let answer = rehearse(balancer, body);
    assert_eq!(answer.status, 200, "{body}: {answer:?}");
    answer.json()["message"].clone()
}

fn must(balancer: &Balancer, method: &str, path: &str, body: &Value) {
    let answer = balancer.json(method, path, &body.to_string());
    assert_eq!(answer.status, 200, "{body}: {answer:?}");
}

/// The shares that are foretold, of those that will be there.
fn foretold(rehearsed: &Value) -> Vec<(String, f64)> {
    let members = rehearsed["members"].as_array().unwrap();
    let after = members.iter().filter_map(|it| Some((name(it), it["after"].as_f64()?)));
    after.collect()
}

/// The shares before are those of the ring, and gains and losses what is between.
fn adds_up(balancer: &Balancer, rehearsed: &Value) {
    let members = rehearsed["members"].as_array().unwrap();
    let before = members.iter().filter_map(|it| Some((name(it), it["before"].as_f64()?)));
    assert_eq!(before.collect::<Vec<_>>(), shares(balancer));
    let (mut gains, mut loses) = (0.0, 0.0);
    for member in members {
        let share = |when: &str| member[when].as_f64().unwrap_or(0.0);
        let grows = share("after") - share("before");
        assert!((share("gains") - share("loses") - grows).abs() < 1e-12, "{member}");
        gains += share("gains");
        loses += share("loses");
    }
    assert!((gains - loses).abs() < 1e-9, "{rehearsed}");
    let exact = rehearsed["exact"].as_bool().unwrap();
    let moved = rehearsed["moved"].as_f64().unwrap();
    let error = if exact { 1e-9 } else { sampling_error(moved, SAMPLE) };
    // What moves needlessly may move there and back.
    let needless = rehearsed["needless"].as_f64().unwrap();
    assert!(needless > 0.0 || (moved - gains).abs() <= error, "{rehearsed}");
}

#[test]
fn what_is_foretold_of_owned_replicas_comes_about() {
    for (flags, keys, least) in [
        (&[][..], 5_000, 0.3),
        (&["--placement", "classic"], 1_000, 0.01),
        (&["--placement", "maglev"], 1_000, 0.3),
        (&["--placement", "jump"], 1_000, 0.3),
        (&["--placement", "ketama"], 1_000, 0.3),
        (&["--placement", "rendezvous"], 1_000, 0.3),
    ] {
        let balancer = Balancer::with_replicas(4, flags);
        must(&balancer, "DELETE", "/rm", &json!({"n": 1, "hostnames": ["S2"]}));
        let body = json!({"add": 2, "rm": ["S3"]});
        let draft = rehearsed(&balancer, &body);
        assert_eq!(rehearsed(&balancer, &body), draft, "nothing has changed");
        assert_eq!(balancer.replicas(), ["S1", "S3", "S4"]);
        adds_up(&balancer, &draft);
        assert_eq!(draft["seats"], json!([2, 5]));
        assert_eq!(draft["fingerprint"]["before"], fingerprint(&balancer));
        let before = first_owners(&balancer, keys);

        must(&balancer, "POST", "/add", &json!({"n": 2}));
        must(&balancer, "DELETE", "/rm", &json!({"n": 1, "hostnames": ["S3"]}));
        assert_eq!(foretold(&draft), shares(&balancer));
        assert_eq!(draft["fingerprint"]["after"], fingerprint(&balancer));
        let seats: Vec<u64> = told(&balancer, "ring")["members"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|member| member["seat"].as_u64())
            .collect();
        assert_eq!(seats, [1, 2, 4, 5]);

        let after = first_owners(&balancer, keys);
        let pairs = || before.iter().zip(&after);
        let stays = |seat: &u64| [1, 4].contains(seat);
        let moved = pairs().filter(|(from, to)| from != to).count();
        let needless = pairs().filter(|(from, to)| from != to && stays(from) && stays(to)).count();
        let exact = draft["exact"].as_bool().unwrap();
        for (count, field) in [(moved, "moved"), (needless, "needless")] {
            let share = draft[field].as_f64().unwrap();
            let estimate = if exact { 0.0 } else { sampling_error(share, SAMPLE) };
            let error = sampling_error(share, keys) + estimate + 1e-9;
            let measured = count as f64 / f64::from(keys);
            assert!((measured - share).abs() <= error, "{field}: {measured} of {keys}: {draft}");
        }
        assert!(draft["moved"].as_f64().unwrap() > least, "{draft}");
    }
}

#[test]
fn what_is_foretold_is_what_is_counted_when_it_has_come_about() {
    for placement in ["ring", "maglev"] {
        let balancer = Balancer::with_replicas(4, &["--placement", placement]);
        let counted = || {
            ["changes", "moved_share", "needless_share"]
                .map(|what| samples(&balancer)[&format!("balancer_ring_{what}_total")])
        };
        for (method, path, change, body) in [
            ("DELETE", "/rm", json!({"rm": ["S2"]}), json!({"n": 1, "hostnames": ["S2"]})),
            ("POST", "/add", json!({"add": 1}), json!({"n": 1})),
        ] {
            let (before, draft) = (counted(), rehearsed(&balancer, &change));
            must(&balancer, method, path, &body);
            let share = |field: &str| draft[field].as_f64().unwrap();
            let expected = [1.0, share("moved"), share("needless")];
            assert_eq!(draft["exact"], true, "{draft}");
            assert_eq!(share("needless") > 0.0, placement == "maglev", "{draft}");
            // It is counted a moment after the change is there.
            wait_for("the change to be counted", || {
                let grown = counted().into_iter().zip(before).map(|(now, then)| now - then);
                let same = grown.zip(expected).all(|(grown, it)| (grown - it).abs() < 1e-9);
                same.then_some(())
            });
        }
    }
}

#[test]
fn a_ring_moves_nothing_needlessly() {
    let balancer = Balancer::with_replicas(3, &[]);
    let draft = rehearsed(&balancer, &json!({"add": 1}));
    assert_eq!(draft["needless"], 0.0);
    let gains = draft["members"][3]["gains"].as_f64().unwrap();
    let moved = draft["moved"].as_f64().unwrap();
    assert!((moved - gains).abs() <= sampling_error(gains, SAMPLE), "{draft}");
    let members = draft["members"].as_array().unwrap();
    assert!(members[..3].iter().all(|it| it["gains"] == 0.0 && it["hostname"].is_string()));
    assert!(members[3]["before"].is_null() && members[3]["hostname"].is_null());
    let all = rehearsed(&balancer, &json!({"rm": ["S1", "S2", "S3"]}));
    assert_eq!((&all["moved"], &all["seats"]), (&json!(1.0), &json!([])));
    assert!(all["members"].as_array().unwrap().iter().all(|it| it["after"].is_null()));
}

#[test]
fn what_is_foretold_of_listed_servers_comes_about() {
    let upstreams = [(); 4].map(|()| Upstream::playing());
    let [a, b, c, d] = &upstreams;
    let balancer = over(&[a, b], &["--health-interval", "100ms"]);
    let [a, b, c, d] = [a, b, c, d].map(|upstream| upstream.address.to_string());
    let heavy = format!("{c} weight=3");
    let draft = rehearsed(&balancer, &json!({"add": [heavy, d], "rm": [a]}));
    adds_up(&balancer, &draft);
    assert!(draft.get("seats").is_none(), "{draft}");
    assert!(rehearsed(&balancer, &json!({"rm": [a]})).get("seats").is_none());
    let weight = |address: &str| {
        let members = draft["members"].as_array().unwrap();
        members.iter().find(|it| it["address"] == address).unwrap()["weight"].clone()
    };
    assert_eq!([&a, &b, &c, &d].map(|it| weight(it)), [1, 1, 3, 1].map(Value::from));
    must(&balancer, "POST", "/add", &json!({"n": 2, "hostnames": [heavy, d]}));
    must(&balancer, "DELETE", "/rm", &json!({"n": 1, "hostnames": [a]}));
    assert_eq!(foretold(&draft), shares(&balancer));
    assert_eq!(draft["fingerprint"]["after"], fingerprint(&balancer));
    let port = d.rsplit_once(':').unwrap().1;
    for (body, message) in [
        (json!({"add": [d]}), format!("hostname {d:?} is in use already")),
        (json!({"add": [a, a]}), format!("hostname {a:?} is in 'hostnames' twice")),
        (json!({"add": ["localhost:1"]}), "'add' must have IP addresses".to_owned()),
        (json!({"add": 1}), "'add' must be a list of strings, not a number".to_owned()),
        (json!({"rm": [a]}), format!("hostname {a:?} is unknown")),
        (
            json!({"add": [format!("http://[::ffff:127.0.0.1]:{port}"), "[::1]:1", "[0::1]:1"]}),
            "hostname \"[0::1]:1\" is in 'hostnames' twice".to_owned(),
        ),
    ] {
        let answer = rehearse(&balancer, &body);
        assert_eq!(answer.status, 400, "{body}: {answer:?}");
        assert!(answer.message().starts_with(&format!("<Error> {message}")), "{answer:?}");
    }
}

#[test]
fn what_would_be_refused_is_refused_in_the_same_words() {
    let balancer = Balancer::with_replicas(2, &["--max-replicas", "4"]);
    let classic = Balancer::with_replicas(2, &["--placement", "classic"]);
    for (balancer, n) in [(&balancer, 3), (&classic, 55)] {
        let draft = rehearse(balancer, &json!({"add": n}));
        let really = balancer.json("POST", "/add", &json!({"n": n}).to_string());
        assert_eq!((draft.status, draft.message()), (400, really.message()));
    }
    for names in [&["S9"][..], &["S1", "S1"], &["S1", "S2", "S3"]] {
        let draft = rehearse(&balancer, &json!({"rm": names}));
        let body = json!({"n": names.len(), "hostnames": names});
        let really = balancer.json("DELETE", "/rm", &body.to_string());
        assert_eq!((draft.status, draft.message()), (400, really.message()));
    }
    assert_eq!(balancer.replicas(), ["S1", "S2"]);
}
