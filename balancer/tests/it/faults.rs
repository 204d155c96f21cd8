//! What goes wrong around a balancer, and that it goes on: the engine by script, replicas and
//! networks for real.

mod answers;
mod crowd;
mod deaths;
mod descriptors;
mod events;
mod gone;
mod neighbours;
mod text;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::support::{Answer, Balancer, request, try_request, wait_for};

/// A light load: clients that ask for /home again and again, and end when this is dropped.
struct Load {
    good: Arc<AtomicUsize>,
    clients: Vec<(mpsc::Sender<()>, JoinHandle<Vec<String>>)>,
}

// === impl Load ===

impl Load {
    fn start(address: SocketAddr) -> Self {
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
    fn wait_for_more(&self) {
        let before = self.good.load(Ordering::Relaxed);
        wait_for("good answers", || {
            (self.good.load(Ordering::Relaxed) >= before + 20).then_some(())
        });
    }

    /// Ends it. No request may have failed.
    fn end(self) {
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
fn greeting(balancer: &Balancer, id: u32) -> Answer {
    let id = id.to_string();
    request(balancer.address, "GET", "/home", &[("X-Request-Id", &id)], b"")
}

/// The seat that a good answer tells.
fn seat_in(answer: &Answer) -> Option<u32> {
    if answer.status != 200 {
        return None;
    }
    answer.json()["message"].as_str()?.strip_prefix("Hello from Server: ")?.parse().ok()
}

/// Waits until these seats, and no others, answer for sixty keys.
fn wait_for_seats(balancer: &Balancer, seats: &[u32]) {
    wait_for(&format!("seats {seats:?} to answer"), || {
        let mut answered: Vec<u32> =
            (0..60).map_while(|id| seat_in(&greeting(balancer, id))).collect();
        let all = answered.len() == 60;
        answered.sort_unstable();
        answered.dedup();
        (all && answered == seats).then_some(())
    });
}

/// The processor time that a process has used so far.
fn processor_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, rest) = stat.rsplit_once(')').unwrap();
    // Fields 14 and 15 of the line, counted from 1; the third is the first after the name.
    let ticks: u64 =
        rest.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
    // Linux has told them in hundredths of a second for ever (USER_HZ).
    Duration::from_millis(ticks * 10)
}
