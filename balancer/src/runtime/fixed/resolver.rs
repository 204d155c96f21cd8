//! From names to addresses, each within a time.

use std::future::ready;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use tokio::net::lookup_host;
use tokio::time::timeout;

use super::super::RuntimeError;
use crate::fleet::listed::Server;

/// Asks for the addresses of `host:port`.
type Lookup = dyn Fn(String) -> Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>>>>;

/// Names that are asked for at once: each has a thread of its own while it is.
const AT_ONCE: usize = 32;

/// How long one may take.
const WITHIN: Duration = Duration::from_secs(4);

/// See the module.
pub(super) struct Resolver {
    lookup: Box<Lookup>,
    within: Duration,
}

// === impl Resolver ===

impl Resolver {
    /// Asks as this machine does.
    pub(super) fn system() -> Self {
        let lookup = |name| async { Ok(lookup_host::<String>(name).await?.collect()) };
        Self::asking(lookup, WITHIN)
    }

    /// Asks `lookup`, which has so long for a name.
    pub(super) fn asking<L>(lookup: impl Fn(String) -> L + 'static, within: Duration) -> Self
    where
        L: Future<Output = io::Result<Vec<SocketAddr>>> + 'static,
    {
        Self { lookup: Box::new(move |name| Box::pin(lookup(name))), within }
    }

    /// How long one name may take.
    pub(super) fn within(&self) -> Duration {
        self.within
    }

    /// The addresses of a server, each once, in an order of their own: the IPv4 ones, or where it
    /// has none, the IPv6 ones.
    ///
    /// # Errors
    /// When its name has none, cannot be resolved, or not in time.
    pub(super) async fn resolve(&self, server: &Server) -> Result<Vec<SocketAddr>, RuntimeError> {
        if let Some(address) = server.literal() {
            return Ok(vec![address]);
        }
        let name = server.address.clone();
        let found = match timeout(self.within, (self.lookup)(name.clone())).await {
            Ok(found) => found,
            Err(_elapsed) => {
                return Err(RuntimeError::Unresolved { name, within: self.within });
            }
        };
        let found = found.and_then(|found| match of_one_kind(found) {
            found if found.is_empty() => Err(io::Error::other("the name has no address")),
            found => Ok(found),
        });
        found.map_err(|source| RuntimeError::Resolve(name, source))
    }

    /// Resolves many, and tells of each as soon as it is known.
    pub(super) async fn resolve_all(
        &self,
        servers: Vec<Server>,
        mut tell: impl FnMut(Server, Result<Vec<SocketAddr>, RuntimeError>),
    ) {
        let lookups = stream::iter(servers).map(|server| async {
            let found = self.resolve(&server).await;
            (server, found)
        });
        let told = lookups.buffer_unordered(AT_ONCE).for_each(|(server, found)| {
            tell(server, found);
            ready(())
        });
        told.await;
    }
}

fn of_one_kind(mut found: Vec<SocketAddr>) -> Vec<SocketAddr> {
    if found.iter().any(SocketAddr::is_ipv4) {
        found.retain(SocketAddr::is_ipv4);
    }
    found.sort_unstable();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(50);

    fn asked(answers: &'static [&'static str]) -> Resolver {
        let answer = |_| {
            let found = answers.iter().map(|address| address.parse().unwrap()).collect();
            ready(Ok(found))
        };
        Resolver::asking(answer, SOON)
    }

    fn server(line: &str) -> Server {
        line.parse().unwrap()
    }

    #[tokio::test]
    async fn the_addresses_of_a_name_are_of_one_kind_and_each_is_there_once() {
        for (answers, expected) in [
            (&["[::1]:80", "127.0.0.1:80"][..], &["127.0.0.1:80"][..]),
            (&["[::2]:80", "[::1]:80", "[::2]:80"], &["[::1]:80", "[::2]:80"]),
            (&["10.0.0.2:80", "10.0.0.1:80", "10.0.0.2:80"], &["10.0.0.1:80", "10.0.0.2:80"]),
        ] {
            let found = asked(answers).resolve(&server("web:80")).await.unwrap();
            let found: Vec<String> = found.iter().map(ToString::to_string).collect();
            assert_eq!(found, expected);
        }
    }

    #[tokio::test]
    async fn an_address_is_asked_of_nobody() {
        let found = asked(&[]).resolve(&server("10.0.0.1:80")).await.unwrap();
        assert_eq!(found, ["10.0.0.1:80".parse().unwrap()]);
    }

    #[tokio::test]
    async fn a_name_without_addresses_is_an_error() {
        let told = asked(&[]).resolve(&server("web:80")).await.unwrap_err();
        assert_eq!(told.to_string(), "cannot resolve \"web:80\"");
    }

    #[tokio::test]
    async fn a_name_has_its_time_and_does_not_hold_up_others() {
        let lookup = |name| async move {
            if name == "slow:80" {
                std::future::pending::<()>().await;
            }
            Ok(vec!["10.0.0.1:80".parse().unwrap()])
        };
        let resolver = Resolver::asking(lookup, SOON);
        let mut told = Vec::new();
        let servers = vec![server("slow:80"), server("web:80")];
        resolver.resolve_all(servers, |server, found| told.push((server, found.is_ok()))).await;
        assert_eq!(told, [(server("web:80"), true), (server("slow:80"), false)]);
        let error = resolver.resolve(&server("slow:80")).await.unwrap_err();
        assert_eq!(error.to_string(), "\"slow:80\" was not resolved within 50ms");
    }
}
