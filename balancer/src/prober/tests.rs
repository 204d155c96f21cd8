//! Probes over real sockets.

use std::cell::RefCell;
use std::time::Duration;

use actix_web::rt::System;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::client::FRESH_EVERY;
use super::*;
use crate::fleet::health::HealthLimits;
use crate::http1::head::BadHead;

const PATIENCE: Duration = Duration::from_secs(20);
const NEVER: Duration = Duration::from_hours(1);
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

const OK_ACT: Act = Act::Answer(OK);

/// A request by its number over all connections, and on its own.
#[derive(Clone, Copy)]
struct Request {
    number: usize,
    nth: usize,
}

/// What a replica does with a request.
enum Act {
    Answer(&'static str),
    /// The same, once it is released.
    Hold(&'static str),
    AnswerAndClose(&'static str),
    /// Answers the head, and the body in a packet of its own.
    InTwo(&'static str, &'static str),
    Close,
    /// Takes it and says nothing.
    Hang,
    /// Writes this again and again.
    Flood(&'static str),
}

/// A replica that acts by a script.
struct Replica {
    address: SocketAddr,
    heads: RefCell<Vec<String>>,
    /// Requests on each connection.
    connections: RefCell<Vec<usize>>,
    /// Connections that the prober has ended.
    ended: Cell<usize>,
    /// Something happened.
    moved: Notify,
    release: Notify,
}

impl Replica {
    async fn start(script: impl Fn(Request) -> Act + 'static) -> Rc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let replica = Rc::new(Self {
            address: listener.local_addr().unwrap(),
            heads: RefCell::default(),
            connections: RefCell::default(),
            ended: Cell::new(0),
            moved: Notify::new(),
            release: Notify::new(),
        });
        let (accepts, script) = (Rc::clone(&replica), Rc::new(script));
        spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (replica, script) = (Rc::clone(&accepts), Rc::clone(&script));
                spawn(async move { replica.serve(stream, &*script).await });
            }
        });
        replica
    }

    async fn serve(&self, mut stream: TcpStream, script: &impl Fn(Request) -> Act) {
        let index = self.connections.borrow().len();
        self.connections.borrow_mut().push(0);
        self.moved.notify_one();
        loop {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                match stream.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_end) => return self.end(),
                }
            }
            let (number, nth) = (self.requests(), self.connections.borrow()[index]);
            self.heads.borrow_mut().push(String::from_utf8(head).unwrap());
            self.connections.borrow_mut()[index] += 1;
            self.moved.notify_one();
            match script(Request { number, nth }) {
                Act::Answer(answer) => stream.write_all(answer.as_bytes()).await.unwrap(),
                Act::InTwo(head, body) => {
                    stream.set_nodelay(true).unwrap();
                    stream.write_all(head.as_bytes()).await.unwrap();
                    tokio::time::sleep(ms(20)).await;
                    stream.write_all(body.as_bytes()).await.unwrap();
                }
                Act::Hold(answer) => {
                    self.release.notified().await;
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
                Act::AnswerAndClose(answer) => {
                    return stream.write_all(answer.as_bytes()).await.unwrap();
                }
                Act::Close => return,
                Act::Hang => {}
                Act::Flood(piece) => {
                    while stream.write_all(piece.as_bytes()).await.is_ok() {}
                    return self.end();
                }
            }
        }
    }

    fn end(&self) {
        self.ended.set(self.ended.get() + 1);
        self.moved.notify_one();
    }

    fn requests(&self) -> usize {
        self.heads.borrow().len()
    }

    async fn wait_for(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let waited = timeout(PATIENCE, async {
            while !condition(self) {
                self.moved.notified().await;
            }
        });
        waited.await.unwrap_or_else(|_late| panic!("{what} did not come"));
    }
}

/// A prober with this interval and timeout, and what it tells.
fn prober(interval: Duration, timeout: Duration, rise: u32) -> (Prober, mpsc::Receiver<Probe>) {
    let config = HealthConfig {
        path: "/well?now".to_owned(),
        host: None,
        interval,
        timeout,
        limits: HealthLimits { rise, fall: 3 },
        start_deadline: NEVER,
        replace_after: Duration::from_secs(30),
        panic: None,
        slow_start: Duration::ZERO,
    };
    let (results, probes) = mpsc::channel(1);
    (Prober::new(config, results), probes)
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn name() -> Hostname {
    Hostname::listed("replica")
}

/// The next result: its error, where it is a bad one.
async fn next(probes: &mut mpsc::Receiver<Probe>) -> Option<ProbeError> {
    let probe = timeout(PATIENCE, probes.recv()).await.expect("no result came").unwrap();
    assert_eq!(probe.hostname, name());
    probe.failure.map(|failure| failure.error)
}

/// What the first probe of a replica comes to that acts like this.
fn first(timeout: Duration, act: fn() -> Act) -> Option<ProbeError> {
    System::new().block_on(async {
        let replica = Replica::start(move |_| act()).await;
        let (prober, mut probes) = prober(NEVER, timeout, 1);
        let _watch = prober.watch(name(), replica.address, None);
        next(&mut probes).await
    })
}

#[test]
fn a_probe_is_a_plain_request_and_any_2xx_is_good() {
    System::new().block_on(async {
        let replica = Replica::start(|_| Act::Answer("HTTP/1.1 204 Fine\r\n\r\n")).await;
        let (prober, mut probes) = prober(ms(10), NEVER, 1);
        let _watch = prober.watch(name(), replica.address, None);
        assert_eq!(next(&mut probes).await, None);
        let every = FRESH_EVERY as usize;
        replica.wait_for("enough probes", |replica| replica.requests() >= every).await;
        let head = format!(
            "GET /well?now HTTP/1.1\r\nHost: {}\r\nUser-Agent: balancer-probe\r\n{}",
            replica.address,
            crate::hop::line()
        );
        let heads = replica.heads.borrow();
        let (goes_on, is_last) =
            (format!("{head}\r\n"), format!("{head}Connection: close\r\n\r\n"));
        assert!(heads.iter().all(|head| *head == goes_on || *head == is_last), "{heads:?}");
        assert_eq!(heads[..every].iter().filter(|head| **head == is_last).count(), 1, "{heads:?}");
    });
}

#[test]
fn bad_answers_are_told_with_their_reason() {
    let cases: [(fn() -> Act, ProbeError); 6] = [
        (|| Act::Answer("HTTP/1.1 503 Busy\r\n"), ProbeError::TimedOut),
        (|| Act::Answer("HTTP/1.1 503 Busy\r\n\r\n"), ProbeError::Status(503)),
        (|| Act::Close, ProbeError::Closed),
        (|| Act::AnswerAndClose("HTTP/1.1 200 OK\r\nContent-Le"), ProbeError::Cut),
        (|| Act::Answer("220 mail.example ESMTP\r\n"), ProbeError::Head(BadHead::StartLine)),
        (|| Act::Hang, ProbeError::TimedOut),
    ];
    for (act, error) in cases {
        let timeout = if error == ProbeError::TimedOut { ms(50) } else { NEVER };
        assert_eq!(first(timeout, act), Some(error));
    }
}

#[test]
fn a_body_is_not_waited_for_whatever_its_length_or_framing() {
    let cases: [fn() -> Act; 5] = [
        || Act::Answer("HTTP/1.1 200 OK\r\n\r\n"),
        || Act::Answer("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhalf"),
        || Act::Answer("HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n"),
        || Act::Answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nha"),
        || Act::Flood("HTTP/1.1 200 OK\r\n\r\nand so on "),
    ];
    for act in cases {
        System::new().block_on(async {
            let replica = Replica::start(move |_| act()).await;
            // Without a timeout: a health check that waits for the body would never end.
            let (prober, mut probes) = prober(ms(1), NEVER, 2);
            let _watch = prober.watch(name(), replica.address, None);
            assert_eq!(next(&mut probes).await, None);
            assert_eq!(next(&mut probes).await, None);
            // A connection with a body that is not at its end is closed, not used again.
            replica.wait_for("the end of a connection", |replica| replica.ended.get() > 0).await;
            let connections = replica.connections.borrow();
            assert!(connections.iter().all(|requests| *requests <= 1), "{connections:?}");
        });
    }
}

#[test]
fn a_body_that_comes_after_its_head_does_not_cost_the_connection() {
    System::new().block_on(async {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n";
        let replica = Replica::start(move |_| Act::InTwo(head, "ok")).await;
        let (prober, mut probes) = prober(ms(100), NEVER, 1);
        let _watch = prober.watch(name(), replica.address, None);
        assert_eq!(next(&mut probes).await, None);
        replica
            .wait_for("a second request on a connection", |replica| {
                replica.connections.borrow().iter().any(|requests| *requests >= 2)
            })
            .await;
    });
}

#[test]
fn the_host_is_the_configured_one_then_the_servers_then_the_address() {
    System::new().block_on(async {
        let replica = Replica::start(|_| OK_ACT).await;
        let (prober, _probes) = prober(ms(10), NEVER, 1);
        let room = || Arc::new(Semaphore::new(0));
        let configured =
            HealthConfig { host: Some("set.example".to_owned()), ..(*prober.config).clone() };
        for (config, host, sent) in [
            (&*prober.config, None, replica.address.to_string()),
            (&*prober.config, Some("web:8080"), "web:8080".to_owned()),
            (&configured, Some("web:8080"), "set.example".to_owned()),
            (&configured, None, "set.example".to_owned()),
        ] {
            let mut client = Client::new(config, replica.address, host, room());
            assert_eq!(client.ask(true).await, Ok(()));
            let head = replica.heads.borrow().last().unwrap().clone();
            assert!(head.contains(&format!("\r\nHost: {sent}\r\n")), "{head}");
        }
    });
}

#[test]
fn a_failure_has_its_reason_in_full() {
    System::new().block_on(async {
        let replica = Replica::start(|_| Act::Answer("HTTP/1.1 404 No\r\n\r\n")).await;
        let (prober, mut probes) = prober(NEVER, NEVER, 1);
        let _watch = prober.watch(name(), replica.address, None);
        for _ in 0..2 {
            let probe = timeout(PATIENCE, probes.recv()).await.unwrap().unwrap();
            let reason: Arc<str> = "GET /well?now returned 404".into();
            assert_eq!(probe.failure, Some(Failure { error: ProbeError::Status(404), reason }));
        }
    });
}

#[test]
fn nobody_there_is_refused_and_seen_once_it_is_there() {
    System::new().block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let (prober, mut probes) = prober(NEVER, NEVER, 1);
        let _watch = prober.watch(name(), address, None);
        assert_eq!(next(&mut probes).await, Some(ProbeError::Refused));
        assert_eq!(next(&mut probes).await, Some(ProbeError::Refused));
        let listener = TcpListener::bind(address).await.unwrap();
        spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(OK.as_bytes()).await.unwrap();
        });
        // One more was perhaps told before.
        while let Some(error) = next(&mut probes).await {
            assert_eq!(error, ProbeError::Refused);
        }
    });
}

#[test]
fn one_that_takes_connections_and_no_more_is_found_by_the_timeout() {
    System::new().block_on(async {
        // Nobody accepts: the kernel does, as for a stopped process.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (prober, mut probes) = prober(NEVER, ms(50), 1);
        let _watch = prober.watch(name(), listener.local_addr().unwrap(), None);
        assert_eq!(next(&mut probes).await, Some(ProbeError::TimedOut));
    });
}

#[test]
fn a_connection_is_kept_for_many_probes_and_then_made_anew() {
    System::new().block_on(async {
        let replica = Replica::start(|_| OK_ACT).await;
        let (prober, mut probes) = prober(ms(1), NEVER, 1);
        let _watch = prober.watch(name(), replica.address, None);
        assert_eq!(next(&mut probes).await, None);
        replica
            .wait_for("four connections", |replica| replica.connections.borrow().len() > 3)
            .await;
        let (connections, every) = (replica.connections.borrow(), FRESH_EVERY as usize);
        // The first begins anywhere in its round.
        assert!((1..=every).contains(&connections[0]), "{connections:?}");
        assert_eq!(connections[1..3], [every, every]);
        assert!(probes.try_recv().is_err(), "nothing else was told");
    });
}

#[test]
fn a_connection_that_the_replica_ends_is_not_kept() {
    System::new().block_on(async {
        let ends = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        let replica = Replica::start(move |_| Act::Answer(ends)).await;
        let (prober, _probes) = prober(ms(1), NEVER, 1);
        let _watch = prober.watch(name(), replica.address, None);
        replica.wait_for("twenty probes", |replica| replica.requests() >= 20).await;
        assert!(replica.connections.borrow().iter().all(|requests| *requests <= 1));
    });
}

#[test]
fn no_connection_is_kept_over_a_long_interval() {
    System::new().block_on(async {
        let replica = Replica::start(|_| OK_ACT).await;
        let (prober, mut probes) = prober(NEVER, NEVER, 1);
        let _watch = prober.watch(name(), replica.address, None);
        assert_eq!(next(&mut probes).await, None);
        replica.wait_for("its end", |replica| replica.ended.get() == 1).await;
        assert!(replica.heads.borrow()[0].ends_with("\r\nConnection: close\r\n\r\n"));
    });
}

#[test]
fn a_kept_connection_that_was_closed_while_idle_is_no_failure() {
    // Closed right behind the answer; then, as late as can be: at the next request.
    let scripts: [fn(Request) -> Act; 2] =
        [|_| Act::AnswerAndClose(OK), |request| if request.nth == 0 { OK_ACT } else { Act::Close }];
    for script in scripts {
        System::new().block_on(async {
            let replica = Replica::start(script).await;
            let (prober, mut probes) = prober(ms(1), NEVER, 1);
            let _watch = prober.watch(name(), replica.address, None);
            assert_eq!(next(&mut probes).await, None);
            replica.wait_for("fifty probes", |replica| replica.requests() >= 50).await;
            assert!(probes.try_recv().is_err(), "nothing else was told");
        });
    }
}

#[test]
fn what_comes_on_a_kept_connection_unasked_is_no_answer() {
    System::new().block_on(async {
        // As servers do that close an idle connection.
        let late = "HTTP/1.1 204 Fine\r\n\r\nHTTP/1.1 408 Late\r\nConnection: close\r\n\r\n";
        let replica = Replica::start(move |_| Act::Answer(late)).await;
        let (prober, mut probes) = prober(ms(1), NEVER, 1);
        let _watch = prober.watch(name(), replica.address, None);
        assert_eq!(next(&mut probes).await, None);
        replica.wait_for("twenty probes", |replica| replica.requests() >= 20).await;
        assert!(probes.try_recv().is_err(), "nothing else was told");
    });
}

#[test]
fn a_bad_probe_and_a_wish_for_it_lead_to_a_new_connection() {
    System::new().block_on(async {
        let bad = "HTTP/1.1 500 Bad\r\nContent-Length: 0\r\n\r\n";
        let script =
            move |request: Request| Act::Answer(if request.number == 2 { bad } else { OK });
        let replica = Replica::start(script).await;
        let (prober, _probes) = prober(ms(10), NEVER, 1);
        let mut client =
            Client::new(&prober.config, replica.address, None, Arc::clone(&prober.room));
        client.begin_at(1);
        for (fresh, result) in [
            (false, Ok(())),
            (false, Ok(())),
            (false, Err(ProbeError::Status(500))),
            (false, Ok(())),
            (true, Ok(())),
            (false, Ok(())),
        ] {
            assert_eq!(client.ask(fresh).await, result);
        }
        assert_eq!(*replica.connections.borrow(), [3, 1, 2]);
    });
}

#[test]
fn no_more_connections_are_kept_than_there_is_room_for() {
    System::new().block_on(async {
        let replica = Replica::start(|_| OK_ACT).await;
        let (prober, _probes) = prober(ms(10), NEVER, 1);
        let room = Arc::new(Semaphore::new(1));
        let client = || {
            let mut client = Client::new(&prober.config, replica.address, None, Arc::clone(&room));
            client.begin_at(1);
            client
        };
        let (mut one, mut other) = (client(), client());
        for _ in 0..2 {
            assert_eq!(one.ask(false).await, Ok(()));
            assert_eq!(other.ask(false).await, Ok(()));
        }
        assert_eq!(*replica.connections.borrow(), [2, 1, 1]);
        drop(one);
        for _ in 0..2 {
            assert_eq!(other.ask(false).await, Ok(()));
        }
        assert_eq!(*replica.connections.borrow(), [2, 1, 1, 2]);
    });
}

#[test]
fn good_results_are_told_until_rise_in_a_row_and_bad_ones_always() {
    System::new().block_on(async {
        let script = |request: Request| match request.number {
            5 => Act::Answer("HTTP/1.1 500 Bad\r\n\r\n"),
            11 | 12 => Act::Answer("HTTP/1.1 503 Busy\r\n\r\n"),
            _ => OK_ACT,
        };
        let replica = Replica::start(script).await;
        let (prober, mut probes) = prober(ms(1), NEVER, 2);
        let _watch = prober.watch(name(), replica.address, None);
        let (bad, busy) = (Some(ProbeError::Status(500)), Some(ProbeError::Status(503)));
        for expected in [None, None, bad, None, None, busy, busy, None, None] {
            assert_eq!(next(&mut probes).await, expected);
        }
        replica.wait_for("thirty probes", |replica| replica.requests() >= 30).await;
        assert!(probes.try_recv().is_err(), "nothing else was told");
    });
}

#[test]
fn now_probes_at_once_unless_a_probe_is_under_way() {
    System::new().block_on(async {
        let script = |request: Request| if request.number == 1 { Act::Hold(OK) } else { OK_ACT };
        let replica = Replica::start(script).await;
        let (prober, mut probes) = prober(NEVER, NEVER, 1);
        let watch = prober.watch(name(), replica.address, None);
        watch.now();
        assert_eq!(next(&mut probes).await, None);
        replica.wait_for("the end of the first", |replica| replica.ended.get() == 1).await;
        watch.now();
        watch.now();
        replica.wait_for("the second probe", |replica| replica.requests() == 2).await;
        watch.now();
        watch.now();
        replica.release.notify_one();
        replica.wait_for("the end of the second", |replica| replica.ended.get() == 2).await;
        // A third would have been begun before this one.
        let _other = prober.watch(name(), replica.address, None);
        assert_eq!(next(&mut probes).await, None);
        assert_eq!(replica.connections.borrow().len(), 3);
        watch.now();
        replica.wait_for("one more probe", |replica| replica.requests() == 4).await;
    });
}

#[test]
fn a_dropped_watch_ends_the_probe_under_way() {
    System::new().block_on(async {
        let replica = Replica::start(|_| Act::Hang).await;
        let (prober, mut probes) = prober(ms(1), NEVER, 1);
        let watch = prober.watch(name(), replica.address, None);
        replica.wait_for("a probe", |replica| replica.requests() == 1).await;
        drop((watch, prober));
        replica.wait_for("its end", |replica| replica.ended.get() == 1).await;
        assert!(timeout(PATIENCE, probes.recv()).await.unwrap().is_none());
    });
}

#[test]
fn a_dropped_watch_ends_the_probing() {
    System::new().block_on(async {
        let replica = Replica::start(|_| OK_ACT).await;
        let (prober, mut probes) = prober(ms(5), NEVER, 1);
        let watch = prober.watch(name(), replica.address, None);
        replica.wait_for("some probes", |replica| replica.requests() == 5).await;
        drop((watch, prober));
        assert_eq!(next(&mut probes).await, None);
        // Only the probing had a sender.
        assert!(timeout(PATIENCE, probes.recv()).await.unwrap().is_none());
        replica
            .wait_for("the end of its connection", |replica| {
                replica.ended.get() == replica.connections.borrow().len()
            })
            .await;
    });
}
