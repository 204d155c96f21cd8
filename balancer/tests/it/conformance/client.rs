//! The client's end: plain bytes out, answers read strictly.

use std::net::TcpStream;

use super::message::{Body, Framing, Head, Wire, malformed, shown};
use crate::support::Balancer;

/// A connection to the balancer.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) wire: Wire,
}

/// A whole answer, and what came before it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: Head,
    pub(crate) body: Body,
    /// The status of each interim answer that came first.
    pub(crate) interim: Vec<u16>,
    /// Whether the end of the connection ended it.
    pub(crate) unframed: bool,
}

/// Why there is no whole answer, and what came of it.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) why: std::io::Error,
    pub(crate) part: Box<Answer>,
}

impl Client {
    pub(crate) fn of(balancer: &Balancer) -> Self {
        Self { wire: Wire::new(TcpStream::connect(balancer.address).unwrap()) }
    }

    /// Connects and sends. The balancer may refuse before it has read all: then the rest is lost.
    pub(crate) fn sending(balancer: &Balancer, bytes: &[u8]) -> Self {
        let mut client = Self::of(balancer);
        client.send(bytes);
        client
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let _sent = self.wire.send(bytes);
    }

    /// The answer to a request of this method, whole and well-formed.
    pub(crate) fn answer(&mut self, method: &str) -> Result<Answer, Broken> {
        let mut answer = Answer::default();
        match self.read(method, &mut answer) {
            Ok(()) => Ok(answer),
            Err(why) => Err(Broken { why, part: Box::new(answer) }),
        }
    }

    /// The answer to a GET; anything but a whole one fails the test.
    pub(crate) fn must_answer(&mut self, what: &str) -> Answer {
        self.answer("GET").unwrap_or_else(|broken| panic!("{what}: {broken:?}"))
    }

    fn read(&mut self, method: &str, answer: &mut Answer) -> std::io::Result<()> {
        loop {
            let head = self.wire.head()?;
            let head = head.ok_or_else(|| malformed("closed without an answer"))?;
            let status = status_of(&head)?;
            let framing = head.framing()?;
            let bodiless = status < 200 || status == 204;
            // RFC 9110 8.6 and RFC 9112 6.1: no framing on these.
            if bodiless && framing.is_some() {
                return Err(malformed(&format!("{status} with {framing:?}")));
            }
            if status < 200 && status != 101 {
                answer.interim.push(status);
                continue;
            }
            // RFC 9112 6.1 allows chunked here, but this balancer promises never to send it.
            let none = method == "HEAD" || status == 304 || bodiless;
            if none && framing == Some(Framing::Chunks) {
                return Err(malformed(&format!("chunked {status} to {method}")));
            }
            let framing = if none { Framing::Nothing } else { framing.unwrap_or(Framing::Close) };
            (answer.status, answer.head) = (status, head);
            answer.unframed = framing == Framing::Close;
            return self.wire.body(framing, &mut answer.body);
        }
    }

    pub(crate) fn is_over(&mut self) -> bool {
        self.wire.is_over()
    }
}

impl Answer {
    /// Comparable, see [`Head::answer_text`].
    pub(crate) fn text(&self) -> Vec<u8> {
        self.head.answer_text(&self.body)
    }

    /// Whether it is the envelope of a failure, with the balancer's own message.
    pub(crate) fn is_failure(&self) -> bool {
        let json: serde_json::Value = serde_json::from_slice(&self.body.data).unwrap_or_default();
        json["status"] == "failure"
            && json["message"].as_str().is_some_and(|text| text.starts_with("<Error> "))
            && self.head.only("content-type").is_some_and(|kind| kind == "application/json")
    }
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Answer { head, body, interim, .. } = &*self.part;
        let (head, body) = (shown(&head.raw), shown(&body.data));
        write!(f, "{} after {interim:?}, head '{head}', body '{body}'", self.why)
    }
}

/// RFC 9112 4.
fn status_of(head: &Head) -> std::io::Result<u16> {
    let line = head.line.as_bytes();
    let good = matches!(
        line,
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0' | b'1', b' ', _, _, _, b' ', ..]
    ) && line[9..12].iter().all(u8::is_ascii_digit);
    let status = head.line.get(9..12).and_then(|digits| digits.parse().ok());
    status.filter(|_| good).ok_or_else(|| malformed(&format!("status line {:?}", head.line)))
}
