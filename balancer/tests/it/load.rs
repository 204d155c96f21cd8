//! A light load, and who answers it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::support::{Answer, Balancer, request, try_request, wait_for};

/// A light load: clients that ask for /home again and again, and end when this is dropped.
pub(crate) struct Load {
    good: Arc<AtomicUsize>,
    clients: Vec<(mpsc::Sender<()>, JoinHandle<Vec<String>>)>,
}

// === impl Load ===

impl Load {
    pub(crate) fn start(address: SocketAddr) -> Self {
        let good = Arc::new(AtomicUsize::new(0));
        let clients = (0..2).map(|_| {
            let (stop, stopped) = mpsc::channel::<()>();
            let good = Arc::clone(&good);
            let client = thread::spawn(move || {
                let mut failures = Vec::new();
                let pause = Duration::from_millis(10);
                while stopped.recv_timeout(pause) == Err(mpsc::RecvTimeoutError::Timeout) {
                    match try_request(address, "GET", "/home", &[], b"") {
                        Ok(answer) if answer.status == 200 => {
                            good.fetch_add(1, Ordering::Relaxed);
                        }
                        other => failures.push(format!("{other:?}")),
                    }
                }
                failures
            });
            (stop, client)
        });
        let load = Self { good: Arc::clone(&good), clients: clients.collect() };
        load.wait_for_more();
        load
    }

    /// Waits for some more good answers.
    pub(crate) fn wait_for_more(&self) {
        let before = self.good.load(Ordering::Relaxed);
        wait_for("good answers", || {
            (self.good.load(Ordering::Relaxed) >= before + 20).then_some(())
        });
    }

    /// Ends it. No request may have failed.
    pub(crate) fn end(self) {
        self.wait_for_more();
        let ended = self.clients.into_iter().map(|(stop, client)| {
            drop(stop);
            client.join().unwrap()
        });
        let failures: Vec<String> = ended.flatten().collect();
        let good = self.good.load(Ordering::Relaxed);
        assert!(failures.is_empty(), "{} beside {good}: {:?}", failures.len(), failures.first());
    }
}

/// What answers a request with this id.
pub(crate) fn greeting(balancer: &Balancer, id: u32) -> Answer {
    let id = id.to_string();
    request(balancer.address, "GET", "/home", &[("X-Request-Id", &id)], b"")
}

/// The seat that a good answer tells.
pub(crate) fn seat_in(answer: &Answer) -> Option<u32> {
    if answer.status != 200 {
        return None;
    }
    answer.json()["message"].as_str()?.strip_prefix("Hello from Server: ")?.parse().ok()
}
