//! Tunnels after a 101 (RFC 9110 7.8, 15.2.2).

use std::sync::mpsc;

use super::client::Client;
use super::over;
use super::upstream::{Exchange, OK, Then, Upstream};
use crate::support::{Balancer, PATIENCE};

// The sample handshake of RFC 6455 1.3.
const ASK: &[u8] = b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const AGREED: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Agrees, says `first` with its 101, and gives back what it hears until the other side's end.
fn echo(first: &'static [u8]) -> impl Fn(&mut Exchange<'_>) -> Then + Send + Sync {
    move |exchange| {
        exchange.write(&[AGREED, first].concat());
        while let Ok(heard) = exchange.wire.some()
            && !heard.is_empty()
        {
            exchange.write(&heard);
        }
        Then::Close
    }
}

fn tunnel(balancer: &Balancer, ask: &[u8]) -> Client {
    let mut client = Client::sending(balancer, ask);
    let answer = client.must_answer("an upgrade");
    assert_eq!(answer.status, 101);
    assert!(answer.head.lists("connection", "upgrade"), "{:?}", answer.head);
    assert_eq!(answer.head.only("upgrade").as_deref(), Some("websocket"));
    client
}

fn hear(client: &mut Client, expected: &[u8]) {
    let mut heard = Vec::new();
    client.wire.exact(expected.len(), &mut heard).unwrap();
    assert_eq!(heard, expected);
}

#[test]
fn bytes_cross_both_ways_and_both_nominations_arrive() {
    let upstream = Upstream::start(echo(b"early"));
    let balancer = over(&[&upstream], &[]);
    let mut client = tunnel(&balancer, ASK);
    let head = upstream.seen()[0].head.clone();
    assert!(head.lists("connection", "upgrade"), "{head:?}");
    assert_eq!(head.only("upgrade").as_deref(), Some("websocket"));
    hear(&mut client, b"early");
    for piece in [&b"one"[..], b"\x00\xff\r\n\r\n", b"0\r\n\r\n", &[7; 100_000]] {
        client.send(piece);
        hear(&mut client, piece);
    }
    // Half-close: what comes back still comes, then both ends are ended.
    client.send(b"last");
    client.wire.finish();
    hear(&mut client, b"last");
    assert!(client.is_over());
}

#[test]
fn an_upgrade_with_a_content_length_of_0_is_an_upgrade() {
    let upstream = Upstream::start(echo(b"early"));
    let balancer = over(&[&upstream], &[]);
    let ask = String::from_utf8_lossy(ASK).replace("\r\n\r\n", "\r\nContent-Length: 0\r\n\r\n");
    let mut client = tunnel(&balancer, ask.as_bytes());
    hear(&mut client, b"early");
    client.send(b"back");
    hear(&mut client, b"back");
    assert_eq!(upstream.seen()[0].head.only("content-length").as_deref(), Some("0"));
}

#[test]
fn what_a_client_sends_before_the_101_waits_for_it() {
    let (agree, may_agree) = mpsc::channel::<()>();
    let may_agree = std::sync::Mutex::new(may_agree);
    let (told, heard) = mpsc::channel();
    let upstream = Upstream::start(move |exchange| {
        may_agree.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        // A read that would block: nothing has come so far.
        exchange.wire.stream().set_nonblocking(true).unwrap();
        told.send(exchange.wire.some().map_err(|error| error.kind())).unwrap();
        exchange.wire.stream().set_nonblocking(false).unwrap();
        echo(b"")(exchange)
    });
    let balancer = over(&[&upstream], &[]);
    let mut client = Client::of(&balancer);
    // In one write with the head, and in a second that the balancer may or may not have read.
    client.wire.send_alone(&[ASK, b"eager "].concat()).unwrap();
    assert!(upstream.sees(1));
    client.send(b"bytes");
    agree.send(()).unwrap();
    let before = heard.recv_timeout(PATIENCE).unwrap();
    assert_eq!(before, Err(std::io::ErrorKind::WouldBlock), "bytes came before the 101");
    assert_eq!(client.must_answer("an upgrade").status, 101);
    hear(&mut client, b"eager bytes");
}

#[test]
fn either_side_may_end_it() {
    let upstream = Upstream::start(|exchange| {
        exchange.write(&[AGREED, b"bye"].concat());
        Then::Close
    });
    let balancer = over(&[&upstream], &[]);
    let mut client = tunnel(&balancer, ASK);
    hear(&mut client, b"bye");
    assert!(client.is_over(), "the replica has ended");

    let upstream = Upstream::start(echo(b""));
    let balancer = over(&[&upstream], &[]);
    drop(tunnel(&balancer, ASK));
    assert!(upstream.sees_end_of(1), "the client has ended");
}

#[test]
fn a_replica_that_ends_its_direction_still_hears_the_client() {
    let (told, heard) = mpsc::channel();
    let upstream = Upstream::start(move |exchange| {
        exchange.write(&[AGREED, b"that was all"].concat());
        exchange.wire.finish();
        let mut rest = Vec::new();
        exchange.wire.rest(&mut rest).unwrap();
        told.send(rest).unwrap();
        Then::Close
    });
    let balancer = over(&[&upstream], &[]);
    let mut client = tunnel(&balancer, ASK);
    hear(&mut client, b"that was all");
    assert!(client.is_over(), "the replica's end is passed on");
    client.send(b"and I say");
    client.wire.finish();
    assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), b"and I say");
}

#[test]
fn fifty_tunnels_at_once_do_not_mix() {
    let upstream = Upstream::start(echo(b""));
    let balancer = over(&[&upstream], &[]);
    let mut clients: Vec<Client> = (0..50).map(|_| tunnel(&balancer, ASK)).collect();
    for round in 0..3 {
        for (number, client) in clients.iter_mut().enumerate() {
            client.send(format!("{round}-{number};").as_bytes());
        }
        for (number, client) in clients.iter_mut().enumerate() {
            hear(client, format!("{round}-{number};").as_bytes());
        }
    }
    assert_eq!(upstream.connections(), 50);
}

#[test]
fn an_answer_that_does_not_agree_is_an_ordinary_one() {
    let upstream = Upstream::start(|exchange| {
        let agreed = exchange.head.lists("connection", "upgrade");
        exchange.write(if agreed { b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno" } else { OK });
        Then::GoOn
    });
    let balancer = over(&[&upstream], &[]);
    let mut client = Client::sending(&balancer, ASK);
    assert_eq!(client.must_answer("a refusal").status, 403);
    client.send(b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.must_answer("the next request").status, 200);
    assert_eq!(upstream.seen().len(), 2);
}

#[test]
fn an_upgrade_that_is_not_tunnelled_is_an_ordinary_request() {
    let upstream = Upstream::playing();
    let balancer = over(&[&upstream], &[]);
    for (name, head, body) in [
        ("with a body", "POST /x HTTP/1.1\r\nContent-Length: 5\r\nUpgrade: websocket", "hello"),
        ("h2c", "GET /x HTTP/1.1\r\nUpgrade: h2c", ""),
        ("h2c in upper case", "GET /x HTTP/1.1\r\nUpgrade: H2C", ""),
    ] {
        let send = format!("{head}\r\nHost: a\r\nConnection: Upgrade\r\n\r\n{body}");
        let mut client = Client::sending(&balancer, send.as_bytes());
        assert_eq!(client.must_answer(name).status, 200, "{name}");
        let seen = upstream.seen().pop().unwrap();
        assert!(seen.head.all("upgrade").is_empty(), "{name}: {:?}", seen.head);
        assert_eq!(seen.body.data, body.as_bytes(), "{name}");
        client.send(b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.must_answer(name).status, 200, "{name}");
    }
}
