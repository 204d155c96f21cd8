//! The journal: what was carried out is told, and nothing else.

use std::net::UdpSocket;

use server::Options;

use crate::replica::Replica;

/// A journal, and the options of a replica that writes it.
fn journal() -> (UdpSocket, Options) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let address = socket.local_addr().unwrap().to_string();
    (socket, Options { journal: Some(address), ..Options::default() })
}

/// The next entry, which must be there: what is answered was told before.
fn entry(journal: &UdpSocket) -> Option<String> {
    let mut buffer = [0; 1_024];
    let length = journal.recv(&mut buffer).ok()?;
    Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
}

/// A POST with these fields, and its status.
async fn post(replica: &Replica, target: &str, fields: &str) -> u16 {
    let mut client = replica.client().await;
    let head = format!("POST {target} HTTP/1.1\r\nHost: replica\r\n{fields}\r\n");
    client.write(&head).await;
    client.receive().await.status
}

#[tokio::test]
async fn every_change_is_told_by_its_id_before_it_is_answered() {
    let (journal, options) = journal();
    let replica = Replica::start(options);
    assert_eq!(post(&replica, "/register", "X-Request-Id: 17\r\n").await, 201);
    assert_eq!(entry(&journal).unwrap(), "17");
    assert_eq!(post(&replica, "/changePassword", "X-Request-Id: 18\r\n").await, 201);
    assert_eq!(entry(&journal).unwrap(), "18");
    assert_eq!(post(&replica, "/register", "").await, 201);
    assert_eq!(entry(&journal).unwrap(), "-");
    let long = format!("X-Request-Id: {}\r\n", "\\".repeat(1_000));
    assert_eq!(post(&replica, "/register", &long).await, 201);
    assert_eq!(entry(&journal).unwrap(), "\\".repeat(256));
    replica.stop().await;
}

#[tokio::test]
async fn what_changes_nothing_is_not_told() {
    let (journal, options) = journal();
    let replica = Replica::start(Options { username: Some("bob".to_owned()), ..options });
    assert_eq!(replica.ask("GET", "/home").await.status, 200);
    assert_eq!(replica.ask("GET", "/register").await.status, 405);
    assert_eq!(post(&replica, "/register?username=eve", "X-Request-Id: 1\r\n").await, 404);
    assert_eq!(post(&replica, "/register?username=bob", "X-Request-Id: 2\r\n").await, 201);
    assert_eq!(entry(&journal).unwrap(), "2");
    assert_eq!(entry(&journal), None);
    replica.stop().await;
}

#[tokio::test]
async fn a_dropped_request_is_not_told() {
    let (journal, options) = journal();
    let options = Options { skip_some_requests: true, seed: Some(7), ..options };
    let replica = Replica::start(options);
    let mut done = Vec::new();
    for id in 0..50 {
        let field = format!("X-Request-Id: {id}\r\n");
        if post(&replica, "/register", &field).await == 201 {
            done.push(id.to_string());
        }
    }
    assert!((1..50).contains(&done.len()), "{} of 50 were carried out", done.len());
    for id in done {
        assert_eq!(entry(&journal).unwrap(), id);
    }
    assert_eq!(entry(&journal), None);
    replica.stop().await;
}
