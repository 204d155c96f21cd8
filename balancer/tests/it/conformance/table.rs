//! Tables of cases over one balancer and one replica: all of them run, all that fail are named.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::client::{Answer, Broken, Client};
use super::message::shown;
use super::over;
use super::upstream::{Then, Upstream};
use crate::support::Balancer;

/// What a client sends, and what becomes of it. `~` stands for the case's own number in `send` and
/// in what is expected, so that nothing of it is taken for another's.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) send: Vec<u8>,
    pub(crate) expect: Expect,
}

pub(crate) enum Expect {
    /// This status, the connection closed, nothing forwarded.
    Refused(u16),
    /// The head may have been forwarded already: 400 or a close, and the message is never whole at
    /// the replica.
    Spoilt,
    /// The replica sees this ([`super::message::Head::request_text`]), the client gets its answer,
    /// the connection goes on. `Host: ?` stands for any.
    Forwarded(Vec<u8>),
    /// The same, but the connection is closed after the answer.
    Last(Vec<u8>),
}

/// What a replica answers, and what the client gets of it; `~` as in [`Case`].
pub(crate) struct AnswerCase {
    pub(crate) name: String,
    pub(crate) ask: Vec<u8>,
    pub(crate) answer: Vec<u8>,
    pub(crate) then: Then,
    pub(crate) told: Told,
}

#[derive(Clone)]
pub(crate) enum Told {
    /// This ([`super::message::Head::answer_text`]).
    Shown(Vec<u8>),
    /// This, and the connection to the replica is not used again.
    ShownOnce(Vec<u8>),
    /// 502 with the envelope, and the connection to the replica is not used again.
    Bad,
    /// This much of an answer, and then visibly no more; or 502, if nothing of it was passed on.
    Cut(Vec<u8>),
}

/// How many cases run at once: each has its own connection, and most only wait.
const LANES: usize = 8;

/// A case whose head and body are given in one.
pub(crate) fn case(name: &str, send: impl AsRef<[u8]>, expect: Expect) -> Case {
    Case { name: name.to_owned(), send: send.as_ref().to_vec(), expect }
}

/// An answer to a plain GET.
pub(crate) fn answered(name: &str, answer: impl AsRef<[u8]>, told: Told) -> AnswerCase {
    asked(name, "GET /~ HTTP/1.1\r\nHost: a\r\n\r\n", answer, Then::GoOn, told)
}

pub(crate) fn asked(
    name: &str,
    ask: impl AsRef<[u8]>,
    answer: impl AsRef<[u8]>,
    then: Then,
    told: Told,
) -> AnswerCase {
    let (ask, answer) = (ask.as_ref().to_vec(), answer.as_ref().to_vec());
    AnswerCase { name: name.to_owned(), ask, answer, then, told }
}

/// Runs requests over a balancer of their own.
pub(crate) fn run(cases: &[Case], arguments: &[&str]) {
    let upstream = Upstream::playing();
    let balancer = over(&[&upstream], arguments);
    let names: Vec<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    run_all(&names, &upstream, |number| {
        let marker = format!("case-{number}.");
        let case = &cases[number];
        let mut client = Client::sending(&balancer, &filled(&case.send, &marker));
        let answer = client.answer(method_of(&case.send));
        check(case, &marker, answer, &mut client, &upstream)
    });
}

/// Runs answers over a balancer of their own.
pub(crate) fn run_answers(cases: &[AnswerCase], arguments: &[&str]) {
    let upstream = Upstream::playing();
    let balancer = over(&[&upstream], arguments);
    let names: Vec<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    run_all(&names, &upstream, |number| {
        check_answer(&cases[number], &format!("case-{number}."), &balancer, &upstream)
    });
}

fn run_all(names: &[&str], upstream: &Upstream, run: impl Fn(usize) -> Result<(), String> + Sync) {
    assert!(!names.is_empty(), "a table without cases proves nothing");
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..LANES {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    let Some(name) = names.get(number) else { return };
                    if let Err(why) = run(number) {
                        failures.lock().unwrap().push(format!("{name}: {why}"));
                    }
                }
            });
        }
    });
    let mut failures = failures.into_inner().unwrap();
    failures.extend(upstream.faults().into_iter().map(|fault| format!("at the replica: {fault}")));
    for (at, name) in names.iter().enumerate() {
        if names[..at].contains(name) {
            failures.push(format!("two cases are called '{name}'"));
        }
    }
    failures.sort();
    let (failed, all) = (failures.len(), names.len());
    assert!(failures.is_empty(), "{failed} failures in {all} cases:\n{}", failures.join("\n"));
}

fn check(
    case: &Case,
    marker: &str,
    answer: Result<Answer, Broken>,
    client: &mut Client,
    upstream: &Upstream,
) -> Result<(), String> {
    match &case.expect {
        Expect::Refused(status) => {
            let answer = answer.map_err(|broken| format!("no answer: {broken}"))?;
            demand(answer.status == *status, || format!("{} instead", answer.status))?;
            demand(client.is_over(), || "the connection is still open".to_owned())?;
            let seen = upstream.seen_with(marker);
            demand(seen.is_empty(), || format!("forwarded: {}", shown(&seen[0].head.raw)))
        }
        Expect::Spoilt => {
            if let Ok(answer) = &answer {
                demand(answer.status == 400, || format!("{} instead of 400", answer.status))?;
            } else if let Err(broken) = &answer {
                demand(broken.part.status == 0, || format!("answered: {broken}"))?;
            }
            demand(client.is_over(), || "the connection is still open".to_owned())?;
            for seen in upstream.seen_with(marker) {
                let ended = upstream.sees_end_of(seen.connection);
                demand(ended, || "the connection to the replica is still open".to_owned())?;
            }
            let whole = upstream.seen_with(marker).into_iter().find(|seen| seen.whole);
            demand(whole.is_none(), || format!("whole at the replica: {whole:?}"))
        }
        Expect::Forwarded(text) | Expect::Last(text) => {
            let answer = answer.map_err(|broken| format!("no answer: {broken}"))?;
            let status = answer.status;
            demand(status == 200, || format!("{status} instead of the replica's answer"))?;
            let seen = upstream.seen_with(marker);
            demand(seen.len() == 1, || format!("{} times at the replica", seen.len()))?;
            demand(seen[0].whole, || "cut short at the replica".to_owned())?;
            same(&seen[0].head.request_text(&seen[0].body), &filled(text, marker))?;
            own_fields(&seen[0].head)?;
            if matches!(case.expect, Expect::Last(_)) {
                return demand(client.is_over(), || "the connection is still open".to_owned());
            }
            client.send(b"GET /after HTTP/1.1\r\nHost: a\r\n\r\n");
            let after = client.answer("GET").map_err(|broken| format!("after it: {broken}"))?;
            demand(after.status == 200, || format!("{} after it", after.status))
        }
    }
}

fn check_answer(
    case: &AnswerCase,
    marker: &str,
    balancer: &Balancer,
    upstream: &Upstream,
) -> Result<(), String> {
    let answer = filled(&case.answer, marker);
    upstream.play(&format!("/{marker}"), vec![answer], case.then);
    let mut client = Client::sending(balancer, &filled(&case.ask, marker));
    let answer = client.answer(method_of(&case.ask));
    let seen = upstream.seen_with(marker);
    demand(seen.len() == 1, || {
        let got = match &answer {
            Ok(answer) => answer.status.to_string(),
            Err(broken) => broken.to_string(),
        };
        format!("{} times at the replica; the client got {got}", seen.len())
    })?;
    let dropped = || upstream.sees_end_of(seen[0].connection);
    let reused = || "the connection to the replica is kept".to_owned();
    match &case.told {
        Told::Shown(text) | Told::ShownOnce(text) => {
            let answer = answer.map_err(|broken| format!("no whole answer: {broken}"))?;
            same(&answer.text(), &filled(text, marker))?;
            demand(answer.interim.is_empty(), || format!("interim {:?}", answer.interim))?;
            if matches!(case.told, Told::ShownOnce(_)) {
                demand(dropped(), reused)?;
            }
            if answer.unframed || answer.head.lists("connection", "close") {
                return demand(client.is_over(), || "the connection is still open".to_owned());
            }
        }
        Told::Bad => {
            let answer = answer.map_err(|broken| format!("no whole answer: {broken}"))?;
            demand(answer.status == 502, || format!("{} instead of 502", answer.status))?;
            demand(answer.is_failure(), || format!("body {}", shown(&answer.body.data)))?;
            demand(dropped(), reused)?;
            if answer.head.lists("connection", "close") {
                return Ok(());
            }
        }
        Told::Cut(text) => {
            let broken = match answer {
                // What broke before anything was passed on may still be answered for.
                Ok(answer) if answer.status == 502 && answer.is_failure() => {
                    return demand(dropped(), reused);
                }
                Ok(answer) => return Err(format!("whole: {}", shown(&answer.text()))),
                Err(broken) => broken,
            };
            let cut = broken.why.kind() != std::io::ErrorKind::TimedOut
                && broken.why.kind() != std::io::ErrorKind::WouldBlock
                && broken.why.kind() != std::io::ErrorKind::InvalidData;
            demand(cut, || format!("not cut: {broken}"))?;
            same(&broken.part.text(), &filled(text, marker))?;
            return demand(dropped(), reused);
        }
    }
    client.send(b"GET /after HTTP/1.1\r\nHost: a\r\n\r\n");
    let after = client.answer("GET").map_err(|broken| format!("after it: {broken}"))?;
    demand(after.body.data == b"ok", || format!("after it: {}", shown(&after.text())))
}

/// What the balancer says of a client by itself is there once, whatever the client says.
fn own_fields(head: &super::message::Head) -> Result<(), String> {
    let one = |name: &str| head.all(name).len() == 1;
    demand(head.only("x-forwarded-for").as_deref() == Some("127.0.0.1"), || {
        format!("x-forwarded-for: {:?}", head.all("x-forwarded-for"))
    })?;
    demand(head.only("x-forwarded-proto").as_deref() == Some("http"), || {
        format!("x-forwarded-proto: {:?}", head.all("x-forwarded-proto"))
    })?;
    demand(head.all("x-forwarded-host").len() < 2, || "x-forwarded-host twice".to_owned())?;
    demand(one("x-request-id"), || format!("x-request-id: {:?}", head.all("x-request-id")))
}

pub(crate) fn demand(holds: bool, else_why: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(else_why()) }
}

fn same(is: &[u8], expected: &[u8]) -> Result<(), String> {
    let (is, expected) = (shown(is), shown(expected));
    let host = is.split("\\n").find(|line| line.starts_with("Host: ")).unwrap_or_default();
    let expected = expected.replace("Host: ?", host);
    demand(is == expected, || format!("\n     is '{is}'\n  not '{expected}'"))
}

fn method_of(request: &[u8]) -> &'static str {
    if request.starts_with(b"HEAD ") { "HEAD" } else { "GET" }
}

fn filled(template: &[u8], marker: &str) -> Vec<u8> {
    let mut filled = Vec::with_capacity(template.len() + 8);
    for byte in template {
        match byte {
            b'~' => filled.extend(marker.as_bytes()),
            byte => filled.push(*byte),
        }
    }
    filled
}
