//! `ketama`: owner for owner what nginx's `hash KEY consistent` does with the same servers and
//! weights (`ngx_http_upstream_hash_module.c`; the hash is that of Perl's Cache::Memcached::Fast).
//!
//! A circle of 32 bits and CRC-32. A member of weight `w` has 160 · `w` points, each hashed from
//! the one before: `crc32(HOST \0 PORT PREVIOUS)`, `PREVIOUS` in four bytes, the lowest first, and
//! 0 at the beginning. What is parted into host and port, at its last colon, is a server as nginx's
//! configuration has it; here that is the address of a listed member, `127.0.0.1:8081` or
//! `[::1]:8081`, or the number of a seat, which is a host without a port. A key belongs to the first
//! point at or after `crc32(KEY)`; where its owner cannot take it, the following points are tried.
//!
//! nginx is not followed where it gives the circle up: a fleet of one server, an empty key, and a
//! request whose owner and the owners of the following twenty points are all down go to any server
//! there. Of equal points nginx keeps the one that its `qsort` happens to put first, mostly that of
//! the server listed first; here it is that of the smaller identity, whatever the order.
//!
//! CRC-32 is no secret, and easy to run backwards: who may choose keys can aim at a member.

use super::circle::Circle;
use super::{Member, Spot};
use crate::fleet::seat::MemberId;

/// Points of a member of weight 1.
const POINTS: u64 = 160;

/// The circle, its 32 bits above 32 zeros.
#[derive(Clone, Debug)]
pub struct Ketama {
    circle: Circle,
}

// === impl Ketama ===

impl Ketama {
    pub(super) fn build(members: &[Member]) -> Self {
        let counts: Vec<u32> = members.iter().map(|member| member.points(POINTS)).collect();
        let mut all = Vec::with_capacity(counts.iter().map(|count| *count as usize).sum());
        for (member, count) in members.iter().zip(&counts) {
            all.extend(points(member.id).take(*count as usize).map(on_circle));
        }
        Self { circle: Circle::build(&all, &counts).without_equals() }
    }

    pub(super) fn circle(&self) -> &Circle {
        &self.circle
    }

    /// Where on the circle `key` falls: the first point at or after its hash, wrapping round.
    pub(super) fn start(&self, key: &[u8]) -> usize {
        self.circle.at_or_after(on_circle(crc32fast::hash(key)))
    }

    /// Where `key` falls. There must be points.
    pub(super) fn spot(&self, key: &[u8]) -> Spot {
        self.circle.spot(on_circle(crc32fast::hash(key)))
    }
}

/// The points of a member, one after another, without an end.
fn points(id: MemberId) -> impl Iterator<Item = u32> {
    let text = id.to_string();
    let (host, port) = text.rsplit_once(':').unwrap_or((&text, ""));
    let mut base = crc32fast::Hasher::new();
    for part in [host, "\0", port] {
        base.update(part.as_bytes());
    }
    let next = move |previous: u32| {
        let mut hasher = base.clone();
        hasher.update(&previous.to_le_bytes());
        hasher.finalize()
    };
    std::iter::successors(Some(next(0)), move |previous| Some(next(*previous)))
}

fn on_circle(hash: u32) -> u64 {
    u64::from(hash) << 32
}

#[cfg(test)]
mod tests {
    use super::super::owners::Places as _;
    use super::*;
    use crate::fleet::seat::Seat;

    fn listed(address: &str) -> MemberId {
        MemberId::Address(address.parse().unwrap())
    }

    /// CRC-32 bit by bit, as RFC 1952 has it.
    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(u32::MAX, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
                if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 }
            })
        })
    }

    /// The owner of a key by a search of all points of all servers, in no order.
    fn naive(servers: &[(&str, u32)], key: &str) -> usize {
        let mut points = Vec::new();
        for (index, (server, weight)) in servers.iter().enumerate() {
            let (host, port) = server.rsplit_once(':').unwrap();
            let mut previous = 0_u32;
            for _ in 0..160 * weight {
                let text = [host.as_bytes(), &[0], port.as_bytes(), &previous.to_le_bytes()];
                previous = crc32(&text.concat());
                points.push((previous, index));
            }
        }
        let hash = crc32(key.as_bytes());
        let after = points.iter().filter(|(point, _)| *point >= hash).min();
        after.or(points.iter().min()).unwrap().1
    }

    #[test]
    fn owners_are_those_of_a_search_of_all_points() {
        let servers =
            [("10.0.0.1:80", 1), ("10.0.0.1:8080", 2), ("10.0.0.2:80", 5), ("[fd00::1]:80", 1)];
        let members = servers.map(|(server, weight)| Member::new(listed(server), weight));
        let ketama = Ketama::build(&members);
        for key in (0..2_000).map(|key| format!("key-{key}")) {
            let owner = ketama.circle().owner(ketama.start(key.as_bytes()));
            assert_eq!(owner as usize, naive(&servers, &key), "{key}");
        }
    }

    #[test]
    fn a_seat_is_a_host_without_a_port() {
        let seat = MemberId::Seat(Seat::new(12).unwrap());
        let first = crc32(b"12\0\0\0\0\0");
        let second = crc32(&[b"12\0".as_slice(), &first.to_le_bytes()].concat());
        assert_eq!(points(seat).take(2).collect::<Vec<_>>(), [first, second]);
    }

    #[test]
    fn a_newcomer_has_the_first_of_its_points() {
        let id = listed("10.0.0.1:80");
        let part = Ketama::build(&[Member { tenths: 3, ..Member::new(id, 2) }]);
        let mut first: Vec<u64> = points(id).take(96).map(on_circle).collect();
        first.sort_unstable();
        let found: Vec<usize> = first.iter().map(|point| part.circle.at_or_after(*point)).collect();
        assert_eq!(found, (0..96).collect::<Vec<_>>());
        assert_eq!(part.circle().count(), 96);
    }

    #[test]
    fn of_equal_points_only_that_of_the_smaller_identity_is_kept() {
        // As if every point were there twice.
        let (one, two) = (listed("10.0.0.1:80"), listed("10.0.0.2:80"));
        let members = [Member::new(one, 1), Member::new(one, 1), Member::new(two, 1)];
        let ketama = Ketama::build(&members);
        assert_eq!(ketama.circle().count(), 320);
        assert!((0..320).all(|at| ketama.circle().owner(at) != 1));
    }
}
