//! One request at a second replica where the first is late.

use super::{Routed, ask, ask_once, owner, routed_with, say, saying, text};
use crate::conformance::client::Client;
use crate::conformance::upstream::Upstream;

/// What a client asks for with this id goes to the same owner each time.
const ID: &str = "X-Request-Id: 7\r\n";

/// Two servers, each of which never answers a request that names it in `X-Late-At`.
struct Pair {
    owner: Upstream,
    other: Upstream,
    routed: Routed,
}

fn pair(hedge: &str) -> Pair {
    let start = |name: &str| {
        let (name, answer) = (name.to_owned(), saying(200, name));
        Upstream::start(move |exchange| {
            if exchange.head.only("X-Late-At").as_ref() == Some(&name) {
                exchange.read_body();
                return exchange.hang();
            }
            say(exchange, &answer)
        })
    };
    let (a, b) = (start("a"), start("b"));
    let text = format!(
        "[[route]]\npaths = [\"/late\"]\nhedge = {hedge}\ntimeouts = {{ first_byte = \"1s\" }}\n\
         [outliers]\nconsecutive = 0"
    );
    let routed = routed_with(&[&a, &b], &text, &["--workers", "1"]);
    let (owner, other) = match owner(&routed.balancer, &[&a, &b], "7") {
        0 => (a, b),
        _ => (b, a),
    };
    Pair { owner, other, routed }
}

impl Pair {
    /// The fields of a request for which the owner hangs.
    fn fields(&self) -> String {
        let mine = text(&ask_once(&self.routed.balancer, "GET /name", ID));
        format!("{ID}X-Late-At: {mine}\r\n")
    }

    /// How often the other one was asked for something that was late.
    fn hedged(&self) -> usize {
        self.other.seen_with("/late").len()
    }
}

#[test]
fn a_late_owners_request_is_answered_by_the_next_and_given_up() {
    let pair = pair("{ after = \"50ms\", budget = \"100%\" }");
    let fields = pair.fields();
    let balancer = &pair.routed.balancer;
    let mine = text(&ask_once(balancer, "GET /name", ID));
    for _ in 0..5 {
        let answer = ask_once(balancer, "GET /late", &fields);
        assert_eq!(answer.status, 200);
        assert_ne!(text(&answer), mine);
    }
    let late = pair.owner.seen_with("/late");
    assert_eq!((late.len(), pair.hedged()), (5, 5));
    for seen in late {
        assert!(pair.owner.sees_end_of(seen.connection), "the owner's connection stands");
    }
    assert_eq!(ask_once(balancer, "HEAD /late", &fields).status, 200);
    let empty = format!("{fields}Content-Length: 0\r\n");
    assert_eq!(ask_once(balancer, "GET /late", &empty).status, 200);
    assert_eq!(pair.hedged(), 7);
}

#[test]
fn one_that_is_in_time_is_not_asked_for_twice() {
    let pair = pair("{ after = \"20s\", budget = \"100%\" }");
    let mut client = Client::of(&pair.routed.balancer);
    for _ in 0..20 {
        assert_eq!(ask(&mut client, "GET /late", ID).status, 200);
    }
    assert_eq!((pair.owner.seen_with("/late").len(), pair.hedged()), (20, 0));
}

#[test]
fn what_may_not_be_done_twice_or_has_a_body_is_not_hedged() {
    let pair = pair("{ after = \"50ms\", budget = \"100%\" }");
    let fields = pair.fields();
    let balancer = &pair.routed.balancer;
    assert_eq!(ask_once(balancer, "POST /late", &fields).status, 504);
    let with_body = format!("{fields}Content-Length: 2\r\n\r\nhi");
    let mut client = Client::of(balancer);
    let request = format!("GET /late HTTP/1.1\r\nHost: a\r\n{with_body}");
    client.send(request.as_bytes());
    assert_eq!(client.must_answer("a body").status, 504);
    assert_eq!((pair.owner.seen_with("/late").len(), pair.hedged()), (2, 0));
}

#[test]
fn without_a_budget_nothing_is_hedged() {
    let pair = pair("{ after = \"50ms\", budget = \"0%\" }");
    assert_eq!(ask_once(&pair.routed.balancer, "GET /late", &pair.fields()).status, 504);
    assert_eq!(pair.hedged(), 0);
}

#[test]
fn a_percentile_is_known_after_a_hundred_answers() {
    let pair = pair("{ after = \"p95\", budget = \"100%\" }");
    let (fields, balancer) = (pair.fields(), &pair.routed.balancer);
    let mut client = Client::of(balancer);
    for _ in 0..99 {
        assert_eq!(ask(&mut client, "GET /late", ID).status, 200);
    }
    assert_eq!(ask_once(balancer, "GET /late", &fields).status, 504);
    assert_eq!(pair.hedged(), 0);
    assert_eq!(ask(&mut client, "GET /late", ID).status, 200);
    assert_eq!(ask_once(balancer, "GET /late", &fields).status, 200);
    assert!(pair.hedged() >= 1);
}
