//! The engine's socket: one request after the other, each failed as it was asked for.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use serde_json::Value;

use super::world::{Call, Fault};
use super::{Shared, api};

/// A request of the balancer's.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: String,
    /// Its path without a version, in pieces.
    pub(super) path: Vec<String>,
    pub(super) query: BTreeMap<String, String>,
    pub(super) body: Value,
}

/// An answer.
#[derive(Debug)]
pub(super) struct Reply(pub(super) u16, pub(super) Value);

/// Serves a connection of the engine's life `life`.
pub(super) fn serve(shared: &Shared, stream: UnixStream, life: u64) {
    let mut stream = BufReader::new(stream);
    converse(shared, &mut stream, life);
    // The engine has it, too, so that to drop it would not close it.
    let _closed_already = stream.get_ref().shutdown(Shutdown::Both);
}

fn converse(shared: &Shared, stream: &mut BufReader<UnixStream>, life: u64) {
    while let Some(request) = read(stream) {
        let (call, about) = api::call(&request);
        if matches!(call, Call::Events | Call::NetworkEvents) {
            return events(shared, stream.get_mut(), &request, call, life);
        }
        let fault = shared.world().begin(call, about);
        let goes_on = answer(shared, stream.get_mut(), &request, fault, life);
        shared.world().end();
        if !goes_on {
            return;
        }
    }
}

/// Carries out and answers, or not; tells whether the connection goes on.
fn answer(
    shared: &Shared,
    stream: &mut UnixStream,
    request: &Request,
    fault: Option<Fault>,
    life: u64,
) -> bool {
    let carried_out = || {
        let Reply(status, body) = api::carry_out(&mut shared.world(), request);
        shared.changed.notify_all();
        (status, if body.is_null() { String::new() } else { body.to_string() })
    };
    let (status, body) = match fault {
        None => carried_out(),
        Some(Fault::Hang) => {
            let mut world = shared.world();
            let healed = world.healed;
            while world.healed == healed && world.life == life {
                world = shared.wait(world);
            }
            let over = world.life != life;
            drop(world);
            if over {
                return false;
            }
            carried_out()
        }
        Some(Fault::Close) => return false,
        Some(Fault::Lose) => {
            carried_out();
            return false;
        }
        Some(Fault::Cut) => {
            let (status, body) = carried_out();
            let half = &body[..body.len() / 2];
            let _read_by_nobody = write!(stream, "{}{half}", head(status, body.len()));
            return false;
        }
        Some(Fault::Status(status, message)) => {
            (status, serde_json::json!({ "message": message }).to_string())
        }
    };
    write!(stream, "{}{body}", head(status, body.len())).is_ok()
}

fn head(status: u16, length: usize) -> String {
    let length = match status {
        204 | 304 => String::new(),
        _ => format!("Content-Length: {length}\r\n"),
    };
    format!("HTTP/1.1 {status} Told\r\nContent-Type: application/json\r\n{length}\r\n")
}

/// Tells events as they come, as long as the connection and the engine last.
fn events(shared: &Shared, stream: &mut UnixStream, request: &Request, call: Call, life: u64) {
    let mut world = shared.world();
    let fault = world.begin(call, String::new());
    world.end();
    if let Some(fault) = fault {
        // A hanging one is as good as one that has nothing to tell.
        while fault == Fault::Hang && world.life == life {
            world = shared.wait(world);
        }
        return;
    }
    let mut next = world.told.len();
    let counts = usize::from(call == Call::Events);
    world.subscribers += counts;
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\
                Transfer-Encoding: chunked\r\n\r\n";
    let mut open = stream.write_all(head.as_bytes()).is_ok();
    while open && world.life == life {
        let wanted = |event: &&Value| api::wants(request, event);
        let lines: Vec<String> = world.told[next..]
            .iter()
            .filter(wanted)
            .map(|event| format!("{event}\n"))
            .map(|line| format!("{:x}\r\n{line}\r\n", line.len()))
            .collect();
        next = world.told.len();
        open = stream.write_all(lines.concat().as_bytes()).is_ok();
        world = shared.wait(world);
    }
    world.subscribers -= counts;
}

fn read(stream: &mut BufReader<UnixStream>) -> Option<Request> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let mut lines = head.lines();
    let (method, rest) = lines.next()?.split_once(' ')?;
    let (target, _) = rest.split_once(' ')?;
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).ok()?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let version = |piece: &&str| piece.starts_with('v') && piece.contains('.');
    Some(Request {
        method: method.to_owned(),
        path: path
            .split('/')
            .filter(|piece| !piece.is_empty())
            .filter(|piece| !version(piece))
            .map(decoded)
            .collect(),
        query: query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (decoded(name), decoded(value)))
            .collect(),
        body: serde_json::from_slice(&body).unwrap_or_default(),
    })
}

/// A piece of a target without its percent signs.
fn decoded(text: &str) -> String {
    let mut bytes = text.bytes();
    let mut plain = Vec::new();
    while let Some(byte) = bytes.next() {
        plain.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits: String = bytes.by_ref().take(2).map(char::from).collect();
                u8::from_str_radix(&digits, 16).unwrap()
            }
            other => other,
        });
    }
    String::from_utf8(plain).unwrap()
}
