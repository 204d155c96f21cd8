//! What is listed, and what its names came to. No I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use crate::fleet::listed::Server;
use crate::fleet::observed::{Condition, Observed, Place};
use crate::fleet::release::Release;
use crate::fleet::seat::{Hostname, MemberId};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Book {
    entries: Vec<Entry>,
    next: u64,
}

#[derive(Debug)]
struct Entry {
    server: Server,
    /// By `/add`.
    added: bool,
    /// Why its name could not be resolved the last time, if it could not.
    unresolved: Option<Arc<str>>,
    replicas: Vec<Known>,
    /// Orders it among the others as long as it has no replica.
    created: u64,
}

/// One address of a server.
#[derive(Clone, Debug)]
struct Known {
    address: SocketAddr,
    hostname: Hostname,
    created: u64,
}

/// What a look-up of a name changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Noted {
    /// Nothing that was not known.
    Nothing,
    /// It succeeded after one that failed.
    Resolved,
    /// It failed, and the last addresses of the server stay.
    Stale,
    /// It failed, or failed otherwise than before, and the server has no address.
    Unresolved,
}

/// What names came to, by the [`id`](Server::id) of their servers.
pub(super) type Resolved = BTreeMap<String, Vec<SocketAddr>>;

// === impl Book ===

impl Book {
    /// Returns one replica for each address; of two servers with one address the first has it. A
    /// server without any address is one replica that cannot be reached.
    pub(super) fn list(&self) -> Vec<Observed> {
        let mut addresses = BTreeSet::new();
        let mut listing = Vec::with_capacity(self.entries.len());
        for entry in &self.entries {
            let own = entry.replicas.iter().filter(|known| addresses.insert(known.address));
            listing.extend(own.map(|known| known.observed(entry.server.weight)));
            if entry.replicas.is_empty() {
                listing.push(entry.unreachable());
            }
        }
        listing
    }

    /// Whether a server is listed.
    pub(super) fn lists(&self, id: &str) -> bool {
        self.entries.iter().any(|entry| entry.server.id() == id)
    }

    /// The servers whose names are to be resolved, those first that have no address yet.
    pub(super) fn names(&self) -> Vec<Server> {
        let named = self.entries.iter().filter(|entry| entry.server.literal().is_none());
        let mut named: Vec<&Entry> = named.collect();
        named.sort_by_key(|entry| !entry.replicas.is_empty());
        named.into_iter().map(|entry| entry.server.clone()).collect()
    }

    /// Lists these servers and no other. Those that were listed keep their addresses; `resolved`
    /// has those of the others, as far as they are known.
    pub(super) fn replace(&mut self, servers: Vec<Server>, resolved: &Resolved) {
        let mut before: BTreeMap<String, Entry> =
            self.entries.drain(..).map(|entry| (entry.server.id(), entry)).collect();
        for server in servers {
            let known = before.remove(&server.id());
            let replicas = known.map(|entry| entry.replicas).unwrap_or_default();
            self.enter(server, replicas, false, resolved);
        }
    }

    /// Lists one more, for an `/add`: tells its replicas, none where it or all of its addresses are
    /// listed already; then nothing is changed.
    pub(super) fn add(&mut self, server: &Server, resolved: &Resolved) -> Vec<Observed> {
        if self.lists(&server.id()) {
            return Vec::new();
        }
        let before: BTreeSet<SocketAddr> =
            self.entries.iter().flat_map(|entry| &entry.replicas).map(|r| r.address).collect();
        self.enter(server.clone(), Vec::new(), true, resolved);
        let entered = self.entries.last().into_iter().flat_map(|entry| &entry.replicas);
        let new = entered.filter(|known| !before.contains(&known.address));
        let new: Vec<Observed> = new.map(|known| known.observed(server.weight)).collect();
        if new.is_empty() {
            self.entries.pop();
        }
        new
    }

    fn enter(&mut self, server: Server, replicas: Vec<Known>, added: bool, resolved: &Resolved) {
        let id = server.id();
        let literal = server.literal().map(|address| vec![address]);
        let addresses = literal.or_else(|| resolved.get(&id).cloned());
        self.next += 1;
        let created = self.next;
        self.entries.push(Entry { server, added, unresolved: None, replicas, created });
        if let Some(addresses) = addresses {
            self.resolved(&id, &addresses);
        }
    }

    /// A name came to these addresses, at least one: whether that changes anything. What stays keeps
    /// its hostname. The first address of all, found alone, has its server's; every other one has
    /// its address in it.
    pub(super) fn resolved(&mut self, id: &str, addresses: &[SocketAddr]) -> bool {
        let next = &mut self.next;
        let Some(entry) = self.entries.iter_mut().find(|entry| entry.server.id() == id) else {
            return false;
        };
        let alone = entry.replicas.is_empty() && addresses.len() == 1;
        let before = entry.replicas.len();
        entry.replicas.retain(|known| addresses.contains(&known.address));
        let mut changed = entry.replicas.len() != before;
        for address in addresses {
            if entry.replicas.iter().any(|known| known.address == *address) {
                continue;
            }
            let name = &entry.server.address;
            let hostname =
                if alone { Hostname::listed(name) } else { Hostname::listed_at(name, *address) };
            *next += 1;
            entry.replicas.push(Known { address: *address, hostname, created: *next });
            changed = true;
        }
        changed
    }

    /// Takes the error of a look-up of a name, or its success. Returns what that changed.
    pub(super) fn note(&mut self, id: &str, error: Option<Arc<str>>) -> Noted {
        let Some(entry) = self.entries.iter_mut().find(|entry| entry.server.id() == id) else {
            return Noted::Nothing;
        };
        let before = std::mem::replace(&mut entry.unresolved, error);
        match (&before, &entry.unresolved) {
            (None, None) => Noted::Nothing,
            (Some(_), None) => Noted::Resolved,
            (before, after) if entry.replicas.is_empty() => {
                if before == after {
                    Noted::Nothing
                } else {
                    Noted::Unresolved
                }
            }
            (Some(_), Some(_)) => Noted::Nothing,
            (None, Some(_)) => Noted::Stale,
        }
    }

    /// Lists a server no more.
    pub(super) fn unlist(&mut self, id: &str) {
        self.entries.retain(|entry| entry.server.id() != id);
    }

    /// The same, unless it is listed by more than an `/add`.
    pub(super) fn withdraw(&mut self, id: &str) {
        self.entries.retain(|entry| !entry.added || entry.server.id() != id);
    }
}

// === impl Entry ===

impl Entry {
    /// Returns the replica that stands for a server without an address.
    fn unreachable(&self) -> Observed {
        let error = self.unresolved.clone();
        let error = error.unwrap_or_else(|| "its name is being resolved".into());
        Observed {
            hostname: self.server.hostname(),
            place: Place::Unknown,
            address: None,
            address_error: Some(error),
            weight: self.server.weight,
            created: self.created,
            release: Release::default(),
            condition: Condition::Running,
            leaving: false,
            seat_stays: false,
        }
    }
}

// === impl Known ===

impl Known {
    fn observed(&self, weight: u32) -> Observed {
        Observed {
            hostname: self.hostname.clone(),
            place: Place::Member(MemberId::Address(self.address)),
            address: Some(self.address),
            address_error: None,
            weight,
            created: self.created,
            release: Release::default(),
            condition: Condition::Running,
            leaving: false,
            seat_stays: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(lines: &[&str]) -> Vec<Server> {
        lines.iter().map(|line| line.parse().unwrap()).collect()
    }

    fn at(ips: &[&str]) -> Vec<SocketAddr> {
        ips.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 80)).collect()
    }

    fn book(lines: &[&str]) -> Book {
        let mut book = Book::default();
        book.replace(servers(lines), &Resolved::new());
        book
    }

    /// The replicas that have an address.
    fn names(book: &Book) -> Vec<String> {
        let mut listing = book.list();
        listing.retain(|replica| replica.address.is_some());
        listing.iter().map(|replica| replica.hostname.to_string()).collect()
    }

    #[test]
    fn an_address_needs_no_resolving_and_a_name_is_as_it_was_written() {
        let mut book = book(&["10.0.0.1:80", "Web:80 weight=3", "[::1]:80"]);
        assert_eq!(names(&book), ["10.0.0.1:80", "[::1]:80"]);
        let to_resolve = book.names();
        assert_eq!(to_resolve, servers(&["Web:80 weight=3"]));
        assert!(book.resolved("web:80", &at(&["10.0.0.2"])));
        assert!(!book.resolved("web:80", &at(&["10.0.0.2"])), "nothing new");
        assert_eq!(names(&book), ["10.0.0.1:80", "Web:80", "[::1]:80"]);
        assert_eq!(book.list()[1].weight, 3);
    }

    #[test]
    fn what_stays_of_several_addresses_keeps_its_name() {
        let mut book = book(&["web:80"]);
        book.resolved("web:80", &at(&["10.0.0.1", "10.0.0.2"]));
        assert_eq!(names(&book), ["web:80/10.0.0.1", "web:80/10.0.0.2"]);
        book.resolved("web:80", &at(&["10.0.0.2"]));
        assert_eq!(names(&book), ["web:80/10.0.0.2"]);
        book.resolved("web:80", &at(&["10.0.0.3", "10.0.0.2"]));
        assert_eq!(names(&book), ["web:80/10.0.0.2", "web:80/10.0.0.3"]);
    }

    #[test]
    fn the_first_address_keeps_the_servers_name_when_others_come() {
        let mut book = book(&["web:80"]);
        book.resolved("web:80", &at(&["10.0.0.1"]));
        book.resolved("web:80", &at(&["10.0.0.1", "10.0.0.2"]));
        assert_eq!(names(&book), ["web:80", "web:80/10.0.0.2"]);
        // Another one never gets the name of one that may still finish its requests.
        book.resolved("web:80", &at(&["10.0.0.3"]));
        assert_eq!(names(&book), ["web:80/10.0.0.3"]);
    }

    #[test]
    fn two_servers_of_one_address_are_one_replica() {
        let mut book = book(&["web:80", "10.0.0.1:80"]);
        book.resolved("web:80", &at(&["10.0.0.1"]));
        assert_eq!(names(&book), ["web:80"]);
        book.unlist("web:80");
        assert_eq!(names(&book), ["10.0.0.1:80"]);
    }

    #[test]
    fn a_new_list_replaces_all_and_keeps_what_is_known_of_those_that_stay() {
        let mut book = book(&["web:80", "a:80"]);
        book.resolved("web:80", &at(&["10.0.0.1", "10.0.0.2"]));
        book.resolved("a:80", &at(&["10.0.0.3"]));
        let created: Vec<u64> = book.list().iter().map(|replica| replica.created).collect();
        assert!(created.is_sorted(), "{created:?}");
        book.add(&servers(&["10.0.0.9:80"])[0], &Resolved::new());
        let resolved = Resolved::from([("b:80".to_owned(), at(&["10.0.0.4"]))]);
        book.replace(servers(&["b:80", "WEB:80 weight=2", "c:80"]), &resolved);
        assert_eq!(names(&book), ["b:80", "web:80/10.0.0.1", "web:80/10.0.0.2"]);
        assert_eq!(book.list()[1].weight, 2);
        assert_eq!(book.names(), servers(&["c:80", "b:80", "WEB:80 weight=2"]));
    }

    #[test]
    fn what_is_listed_already_is_not_added() {
        let mut book = book(&["web:80", "10.0.0.2:80"]);
        let resolved = Resolved::from([
            ("x:80".to_owned(), at(&["10.0.0.2"])),
            ("y:80".to_owned(), at(&["10.0.0.2", "10.0.0.3"])),
        ]);
        for line in ["web:80", "WEB:80", "10.0.0.2:80", "x:80"] {
            assert_eq!(book.add(&servers(&[line])[0], &resolved), [], "{line}");
            assert_eq!(book.entries.len(), 2, "{line}");
        }
        let added = book.add(&servers(&["y:80"])[0], &resolved);
        assert_eq!(added.len(), 1);
        assert_eq!(added[0].hostname.as_str(), "y:80/10.0.0.3");
    }

    #[test]
    fn only_what_was_added_is_withdrawn() {
        let mut book = book(&["10.0.0.1:80"]);
        let added = servers(&["10.0.0.2:80"]);
        book.add(&added[0], &Resolved::new());
        book.withdraw("10.0.0.1:80");
        assert_eq!(names(&book), ["10.0.0.1:80", "10.0.0.2:80"]);
        book.withdraw("10.0.0.2:80");
        assert_eq!(names(&book), ["10.0.0.1:80"]);
        // A new list makes it the list's own.
        book.add(&added[0], &Resolved::new());
        book.replace(servers(&["10.0.0.2:80"]), &Resolved::new());
        book.withdraw("10.0.0.2:80");
        assert_eq!(names(&book), ["10.0.0.2:80"]);
    }

    #[test]
    fn a_failed_look_up_is_news_once_per_error() {
        let mut book = book(&["web:80"]);
        let error = |text: &str| Some(Arc::from(text));
        let mut note = |error| book.note("web:80", error);
        assert_eq!(note(None), Noted::Nothing);
        assert_eq!(note(error("no such name")), Noted::Unresolved);
        assert_eq!(note(error("no such name")), Noted::Nothing);
        assert_eq!(note(error("timed out")), Noted::Unresolved);
        assert_eq!(note(None), Noted::Resolved);
        assert_eq!(book.note("gone:80", error("no such name")), Noted::Nothing);
        book.resolved("web:80", &at(&["10.0.0.1"]));
        assert_eq!(book.note("web:80", error("no such name")), Noted::Stale);
        assert_eq!(book.note("web:80", error("timed out")), Noted::Nothing);
    }

    #[test]
    fn a_server_without_an_address_is_listed_with_the_reason() {
        let mut book = book(&["web:80 weight=3", "10.0.0.9:80"]);
        let unreachable = |book: &Book| {
            let listing = book.list();
            assert_eq!(listing.len(), 2);
            let first = listing[0].clone();
            assert_eq!((first.hostname.as_str(), first.weight), ("web:80", 3));
            (first.place, first.address, first.address_error)
        };
        let reason = |text: &str| (Place::Unknown, None, Some(Arc::from(text)));
        assert_eq!(unreachable(&book), reason("its name is being resolved"));
        book.note("web:80", Some("no such name".into()));
        assert_eq!(unreachable(&book), reason("no such name"));
        book.note("web:80", None);
        book.resolved("web:80", &at(&["10.0.0.1"]));
        let address = at(&["10.0.0.1"])[0];
        let place = Place::Member(MemberId::Address(address));
        assert_eq!(unreachable(&book), (place, Some(address), None));
    }
}
