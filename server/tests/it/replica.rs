//! A replica that runs inside the test.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use server::Options;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::client::{Answer, Client, in_time};

/// Longer than any test: who works for so long is still at it when the test ends.
pub(crate) const FOREVER: Duration = Duration::from_secs(3600);

pub(crate) struct Replica {
    pub(crate) address: SocketAddr,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<std::io::Result<()>>,
}

impl Replica {
    /// Starts a replica on a free port of loopback.
    pub(crate) fn start(options: Options) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let ended = tokio::spawn(server::run(listener, options, async {
            let _ = stopped.await;
        }));
        Self { address, stop, ended }
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.address).await
    }

    /// One request on a connection of its own.
    pub(crate) async fn ask(&self, method: &str, target: &str) -> Answer {
        self.client().await.ask(method, target).await
    }

    /// Sends `GET /home` on a connection of its own, and returns when the replica has taken it in.
    pub(crate) async fn send(&self) -> Client {
        let mut client = self.client().await;
        client.send("GET", "/home").await;
        self.has_taken_in_what_was_sent().await;
        client
    }

    /// A replica with one worker looks at its connections in the order in which they were made:
    /// when it answers the newest, it has looked at all that was sent before.
    pub(crate) async fn has_taken_in_what_was_sent(&self) {
        assert_eq!(self.ask("GET", "/heartbeat").await.status, 200);
    }

    /// Tells the replica to stop, without waiting for it.
    pub(crate) fn tell_to_stop(self) -> JoinHandle<std::io::Result<()>> {
        self.stop.send(()).unwrap();
        self.ended
    }

    pub(crate) async fn stop(self) {
        in_time(self.tell_to_stop()).await.unwrap().unwrap();
    }
}
