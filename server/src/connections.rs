//! How many connections are open, so that a stop ends with the last of them.

use tokio::sync::watch;

/// The count of open connections, shared by everything that opens one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Connections(watch::Sender<usize>);

/// One open connection; counted until it is dropped.
#[derive(Debug)]
pub(crate) struct Connection(watch::Sender<usize>);

// === impl Connections ===

impl Connections {
    /// Counts one more connection until the guard is dropped.
    pub(crate) fn enter(&self) -> Connection {
        self.0.send_modify(|open| *open += 1);
        Connection(self.0.clone())
    }

    /// Resolves when no connection is open: at once if there is none.
    pub(crate) async fn all_closed(&self) {
        let closed = self.0.subscribe().wait_for(|open| *open == 0).await.is_ok();
        debug_assert!(closed, "the sender lives in self");
    }
}

// === impl Connection ===

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_connection_that_closes_ends_the_wait() {
        let connections = Connections::default();
        connections.all_closed().await;

        let (first, second) = (connections.enter(), connections.enter());
        let waiting = tokio::spawn({
            let connections = connections.clone();
            async move { connections.all_closed().await }
        });
        drop(first);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(second);
        waiting.await.unwrap();
    }
}
