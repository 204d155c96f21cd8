//! Names and places: [`Seat`], [`Hostname`], and the ring identity [`MemberId`].

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;

use siphasher::sip::SipHasher13;
use thiserror::Error;

/// The longest hostname taken, in bytes: the longest label that DNS allows.
pub const HOSTNAME_MAX: usize = 63;

/// A fixed place on the ring, counted from 1. A replacement takes the dead replica's seat,
/// so that no other key moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seat(NonZeroU32);

/// A replica's name: what `/rep` lists and what its container is called, by its [`slug`].
///
/// [`slug`]: Hostname::slug
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hostname(String);

/// What a replica is to the ring: its seat when the balancer owns it, its address when it is
/// only listed. Ordered, so that a placement does not depend on the order of its members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MemberId {
    /// An owned replica's place.
    Seat(Seat),
    /// A listed replica's address.
    Address(SocketAddr),
}

/// Why a text is no hostname.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "hostname {0:?} must be 1 to {HOSTNAME_MAX} letters, digits, '_', '.', '-' or inner spaces, \
     beginning with a letter or digit"
)]
pub struct BadHostname(pub String);

// === impl Seat ===

impl Seat {
    /// The seat with this number; `None` for 0.
    pub fn new(number: u32) -> Option<Self> {
        NonZeroU32::new(number).map(Self)
    }

    /// Its number, from 1.
    pub fn get(self) -> u32 {
        self.0.get()
    }

    /// The `count` smallest seats that `taken` does not hold, ascending.
    pub fn smallest_free(taken: impl Fn(Seat) -> bool, count: usize) -> Vec<Seat> {
        (1..=u32::MAX).filter_map(Seat::new).filter(|seat| !taken(*seat)).take(count).collect()
    }
}

impl fmt::Display for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

// === impl Hostname ===

impl Hostname {
    /// Checks a name that somebody asked for.
    ///
    /// # Errors
    /// [`BadHostname`] with the text as it came when it breaks the rule that the error states.
    pub fn parse(text: &str) -> Result<Self, BadHostname> {
        let inner = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-' | b' ');
        let bytes = text.as_bytes();
        let good = bytes.len() <= HOSTNAME_MAX
            && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
            && bytes.last().is_some_and(|last| *last != b' ')
            && bytes.iter().copied().all(inner);
        if good { Ok(Self(text.to_owned())) } else { Err(BadHostname(text.to_owned())) }
    }

    /// The name of a replica of the first fleet: `S1`, `S2`, …
    pub fn of_seat(seat: Seat) -> Self {
        Self(format!("S{seat}"))
    }

    /// A random name, `S` and six digits.
    pub fn random(rng: &mut impl rand::Rng) -> Self {
        use rand::RngExt as _;
        Self(format!("S{:06}", rng.random_range(0..1_000_000)))
    }

    /// The name of the replica that follows this one on `seat`: as good as random, but the same to
    /// all who look for it, so that two balancers of one pool that replace the same replica ask
    /// for the same name, which only one of them gets. `attempt` counts the names that were taken.
    pub fn successor(&self, seat: Seat, attempt: u64) -> Self {
        let hash = SipHasher13::new().hash(format!("{self}\n{seat}\n{attempt}").as_bytes());
        Self(format!("S{:06}", hash % 1_000_000))
    }

    /// The name of a listed replica: its server as it was written.
    pub fn listed(address: &str) -> Self {
        Self(address.to_owned())
    }

    /// The name of a listed replica that is one of several addresses of its server, or has been:
    /// `web:80/10.0.0.1`.
    pub fn listed_at(server: &str, address: SocketAddr) -> Self {
        Self(format!("{server}/{}", address.ip()))
    }

    /// The server that a listed replica is an address of, as it was written.
    pub fn server(&self) -> &str {
        self.0.split_once('/').map_or(&self.0, |(server, _)| server)
    }

    /// The name as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name that engines take: lower case, spaces as `-`, two characters at least (Docker
    /// refuses one). Names with the same slug are the same to an engine.
    pub fn slug(&self) -> String {
        let mut slug = self.0.to_ascii_lowercase().replace(' ', "-");
        if slug.len() == 1 {
            slug.push('-');
        }
        slug
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

// === impl MemberId ===

impl MemberId {
    /// The seat, unless the replica is only listed.
    pub fn seat(self) -> Option<Seat> {
        match self {
            MemberId::Seat(seat) => Some(seat),
            MemberId::Address(_) => None,
        }
    }
}

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MemberId::Seat(seat) => seat.fmt(f),
            MemberId::Address(address) => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostnames_of_the_contract_are_taken_and_slugged() {
        for (name, slug) in
            [("S5", "s5"), ("Server 4", "server-4"), ("a.b_c-d", "a.b_c-d"), ("7", "7-")]
        {
            assert_eq!(Hostname::parse(name).unwrap().slug(), slug);
        }
        let longest = "x".repeat(63);
        assert_eq!(Hostname::parse(&longest).unwrap().as_str(), longest);
    }

    #[test]
    fn other_hostnames_are_refused_by_name() {
        let long = "x".repeat(300);
        for name in
            ["", " ", "../x", "-x", ".x", "x;id", "x ", " x", "é", "a\0", "a\nb", "a\u{1b}", &long]
        {
            assert_eq!(Hostname::parse(name), Err(BadHostname(name.to_owned())));
        }
    }

    #[test]
    fn a_successors_name_depends_on_all_that_it_follows() {
        let (one, two) = (Seat::new(1).unwrap(), Seat::new(2).unwrap());
        let first = Hostname::of_seat(one);
        assert_eq!(first.successor(one, 0), first.successor(one, 0));
        let others = [first.successor(two, 0), first.successor(one, 1)];
        let next = first.successor(one, 0);
        assert!(!others.contains(&next), "{others:?}");
        assert_ne!(next.successor(one, 0), next);
        let digits = next.as_str().strip_prefix('S').unwrap();
        assert!(digits.len() == 6 && digits.bytes().all(|c| c.is_ascii_digit()), "{next}");
    }

    #[test]
    fn one_of_several_addresses_tells_its_server() {
        let address = "[::1]:80".parse().unwrap();
        let one = Hostname::listed_at("web:80", address);
        assert_eq!((one.as_str(), one.server()), ("web:80/::1", "web:80"));
        assert_eq!(Hostname::listed("[::1]:80").server(), "[::1]:80");
    }

    #[test]
    fn the_smallest_free_seats_are_found_between_taken_ones() {
        let taken = |seat: Seat| matches!(seat.get(), 1 | 3 | 4);
        let free: Vec<u32> = Seat::smallest_free(taken, 3).into_iter().map(Seat::get).collect();
        assert_eq!(free, [2, 5, 6]);
    }
}
