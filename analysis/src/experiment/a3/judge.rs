//! Whether an answer is the one that the contract promises. Pure.

use anyhow::{Context as _, bail, ensure};

use crate::system::api::Answer;

/// What the contract promises for a call.
#[derive(Clone, Debug)]
pub(super) enum Expect {
    /// 200 with the envelope of `/rep`: so many replicas, those that stay in the same order, then
    /// `new` at the first places behind them.
    Fleet { n: usize, gone: Vec<String>, new: Vec<String> },
    /// 200 with the envelope of `/rep`: so many of those that were there, no matter which.
    Shrunk(usize),
    /// A refusal: this status, `<Error> …` with all of these words in it, nothing changed.
    Refused { status: u16, words: Vec<String> },
    /// A refusal with exactly this message, nothing changed.
    RefusedExactly { status: u16, message: String },
    /// A status of 4xx and nothing changed, whatever the words.
    RefusedSomehow,
    /// This status and a message that begins so, in the envelope of success.
    Message { status: u16, begins: String },
    /// This status, whatever the body.
    Status(u16),
    /// 200 and an empty body.
    Empty,
    /// 503 `<Error> no replica is ready` with `Retry-After`.
    NoReplica,
}

// === impl Expect ===

impl Expect {
    /// 400 that names these.
    pub(super) fn refused(words: &[&str]) -> Self {
        Self::Refused { status: 400, words: words.iter().map(|word| (*word).to_owned()).collect() }
    }

    /// In words, for the table.
    pub(super) fn in_words(&self) -> String {
        match self {
            Expect::Fleet { n, new, .. } if new.is_empty() => format!("200, N = {n}"),
            Expect::Fleet { n, new, .. } => {
                let names: Vec<String> = new.iter().map(|name| shortened(name)).collect();
                format!("200, N = {n}, the new ones {}, …", names.join(", "))
            }
            Expect::Shrunk(n) => format!("200, N = {n}"),
            Expect::Refused { status, words } if words.is_empty() => {
                format!("{status} `<Error> …`, nothing changed")
            }
            Expect::Refused { status, words } => {
                format!("{status} `<Error> …` with `{}`, nothing changed", words.join("`, `"))
            }
            Expect::RefusedExactly { status, message } => {
                format!("{status} `{message}`, nothing changed")
            }
            Expect::RefusedSomehow => "4xx, nothing changed".to_owned(),
            Expect::Message { status, begins } => format!("{status} `{begins}…`"),
            Expect::Status(status) => status.to_string(),
            Expect::Empty => "200, empty body".to_owned(),
            Expect::NoReplica => "503 `<Error> no replica is ready`, `Retry-After`".to_owned(),
        }
    }

    /// Checks an answer, and the fleet before and after it.
    ///
    /// # Errors
    /// What is not as promised, in words.
    pub(super) fn judge(
        &self,
        answer: &Answer,
        before: &[String],
        after: &[String],
    ) -> anyhow::Result<()> {
        let unchanged = || {
            ensure!(before == after, "the fleet changed from {before:?} to {after:?}");
            Ok(())
        };
        match self {
            Expect::Fleet { n, gone, new } => {
                let fleet = answer.fleet()?;
                ensure!(fleet.n == *n, "N is {}", fleet.n);
                let stay: Vec<&String> =
                    before.iter().filter(|name| !gone.contains(name)).collect();
                let expected = stay.into_iter().chain(new);
                ensure!(
                    fleet.replicas.iter().zip(expected.clone()).all(|(got, want)| got == want)
                        && fleet.replicas.len() >= expected.count(),
                    "the replicas are {:?}",
                    fleet.replicas
                );
                ensure!(fleet.replicas == after, "/rep then says {after:?}");
            }
            Expect::Shrunk(n) => {
                let fleet = answer.fleet()?;
                ensure!(fleet.n == *n, "N is {}", fleet.n);
                let mut old = before.iter();
                ensure!(
                    fleet.replicas.iter().all(|name| old.any(|known| known == name)),
                    "{:?} is no part of {before:?} in its order",
                    fleet.replicas
                );
                ensure!(fleet.replicas == after, "/rep then says {after:?}");
            }
            Expect::Refused { status, words } => {
                let message = failure(answer, *status)?;
                ensure!(message.starts_with("<Error> "), "the message is {message:?}");
                for word in words {
                    ensure!(has_word(&message, word), "{word:?} is not in {message:?}");
                }
                unchanged()?;
            }
            Expect::RefusedExactly { status, message } => {
                let got = failure(answer, *status)?;
                ensure!(got == *message, "the message is {got:?}");
                unchanged()?;
            }
            Expect::RefusedSomehow => {
                ensure!((400..500).contains(&answer.status), "status {}", answer.status);
                unchanged()?;
            }
            Expect::Message { status, begins } => {
                ensure!(answer.status == *status, "status {}: {}", answer.status, answer.text());
                let envelope = answer.envelope()?;
                ensure!(envelope.status == "successful", "the envelope says {:?}", envelope.status);
                let message = envelope.message.as_str().context("the message is no string")?;
                ensure!(message.starts_with(begins.as_str()), "the message is {message:?}");
            }
            Expect::Status(status) => {
                ensure!(answer.status == *status, "status {}: {}", answer.status, answer.text());
            }
            Expect::Empty => {
                ensure!(answer.status == 200, "status {}: {}", answer.status, answer.text());
                ensure!(answer.body.is_empty(), "the body is {:?}", answer.text());
            }
            Expect::NoReplica => {
                let message = failure(answer, 503)?;
                ensure!(message == "<Error> no replica is ready", "the message is {message:?}");
                let Some(after) = answer.header("retry-after") else { bail!("no Retry-After") };
                ensure!(after.parse::<u32>().is_ok(), "Retry-After is {after:?}");
            }
        }
        Ok(())
    }
}

/// A name as the table shows it: a long one by its beginning.
fn shortened(name: &str) -> String {
    match name.char_indices().nth(16) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

/// The message of a failing call.
fn failure(answer: &Answer, status: u16) -> anyhow::Result<String> {
    ensure!(answer.status == status, "status {}: {}", answer.status, answer.text());
    let envelope = answer.envelope()?;
    ensure!(envelope.status == "failure", "the envelope says {:?}", envelope.status);
    let message = envelope.message.as_str().context("the message is no string")?;
    Ok(message.to_owned())
}

/// Whether `word` is in `text` and not only as a part of a longer word.
fn has_word(text: &str, word: &str) -> bool {
    let within = |letter: Option<char>| letter.is_some_and(char::is_alphanumeric);
    text.match_indices(word).any(|(at, _)| {
        !within(text[..at].chars().next_back()) && !within(text[at + word.len()..].chars().next())
    })
}

#[cfg(test)]
mod tests {
    use awc::http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};

    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Answer { status, headers, body: body.as_bytes().to_vec() }
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn fleet_of(list: &[&str]) -> Answer {
        let list = serde_json::to_string(list).unwrap();
        let n = list.matches('"').count() / 2;
        answer(
            200,
            &format!(r#"{{"message":{{"N":{n},"replicas":{list}}},"status":"successful"}}"#),
        )
    }

    fn failing(message: &str) -> Answer {
        answer(400, &format!(r#"{{"message":"{message}","status":"failure"}}"#))
    }

    #[test]
    fn a_grown_fleet_has_the_old_ones_first_and_the_named_ones_in_their_order() {
        let expect = Expect::Fleet { n: 4, gone: Vec::new(), new: names(&["S5", "S4"]) };
        let (before, good) = (names(&["S1"]), ["S1", "S5", "S4", "S77"]);
        expect.judge(&fleet_of(&good), &before, &names(&good)).unwrap();
        for bad in [["S1", "S4", "S5", "S77"], ["S5", "S4", "S1", "S77"], ["S1", "S77", "S5", "S4"]]
        {
            assert!(expect.judge(&fleet_of(&bad), &before, &names(&bad)).is_err(), "{bad:?}");
        }
        let fewer = ["S1", "S5", "S4"];
        assert!(expect.judge(&fleet_of(&fewer), &before, &names(&fewer)).is_err());
        assert!(expect.judge(&fleet_of(&good), &before, &names(&["S1"])).is_err());
    }

    #[test]
    fn a_fleet_that_counts_wrongly_or_is_no_json_is_refused() {
        let wrong = answer(200, r#"{"message":{"N":3,"replicas":["S1"]},"status":"successful"}"#);
        let mut text = fleet_of(&["S1"]);
        text.headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        let failed = answer(200, r#"{"message":{"N":1,"replicas":["S1"]},"status":"failure"}"#);
        for bad in [wrong, text, failed, answer(500, "{}"), answer(200, "")] {
            assert!(bad.fleet().is_err(), "{bad:?}");
        }
        assert_eq!(fleet_of(&["S1"]).fleet().unwrap().replicas, ["S1"]);
    }

    #[test]
    fn a_smaller_fleet_is_a_part_of_the_old_one_in_its_order() {
        let (expect, before) = (Expect::Shrunk(2), names(&["S1", "S2", "S3"]));
        for (list, good) in [(["S1", "S3"], true), (["S3", "S1"], false), (["S1", "S9"], false)] {
            let judged = expect.judge(&fleet_of(&list), &before, &names(&list));
            assert_eq!(judged.is_ok(), good, "{list:?}: {judged:?}");
        }
    }

    #[test]
    fn a_refusal_names_the_field_and_changes_nothing() {
        let (expect, fleet) = (Expect::refused(&["n"]), names(&["S1"]));
        expect.judge(&failing("<Error> 'n' must be an integer"), &fleet, &fleet).unwrap();
        for bad in [
            failing("<Error> the number must be an integer"),
            failing("'n' must be an integer"),
            answer(500, r#"{"message":"<Error> 'n'","status":"failure"}"#),
            answer(400, r#"{"message":"<Error> 'n'","status":"successful"}"#),
        ] {
            assert!(expect.judge(&bad, &fleet, &fleet).is_err(), "{bad:?}");
        }
        let changed = expect.judge(&failing("<Error> 'n' is bad"), &fleet, &[]).unwrap_err();
        assert!(changed.to_string().contains("the fleet changed"), "{changed}");
    }

    #[test]
    fn an_empty_fleet_answers_503_with_a_time_to_come_back() {
        let mut good =
            answer(503, r#"{"message":"<Error> no replica is ready","status":"failure"}"#);
        assert!(Expect::NoReplica.judge(&good, &[], &[]).is_err());
        good.headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        Expect::NoReplica.judge(&good, &[], &[]).unwrap();
    }

    #[test]
    fn the_simple_answers_are_told_apart() {
        let greeting = answer(200, r#"{"message":"Hello from Server: 3","status":"successful"}"#);
        let hello = Expect::Message { status: 200, begins: "Hello from Server: ".to_owned() };
        hello.judge(&greeting, &[], &[]).unwrap();
        assert!(Expect::Empty.judge(&greeting, &[], &[]).is_err());
        Expect::Empty.judge(&answer(200, ""), &[], &[]).unwrap();
        Expect::Status(404).judge(&answer(404, "x"), &[], &[]).unwrap();
        assert!(Expect::RefusedSomehow.judge(&answer(302, ""), &[], &[]).is_err());
        Expect::RefusedSomehow.judge(&answer(415, ""), &[], &[]).unwrap();
    }

    #[test]
    fn headers_are_found_by_name() {
        let mut got = answer(200, "");
        got.headers.insert(HeaderName::from_static("x-a"), HeaderValue::from_static("b"));
        assert_eq!((got.header("X-A"), got.header("x-b")), (Some("b"), None));
    }
}
