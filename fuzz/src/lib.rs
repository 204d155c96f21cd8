//! What the fuzz targets share: the balancer's pure modules, and ways to read with them.
//!
//! The modules are read in from where they are, not by depending on the balancer: that would be
//! some 250 crates to build with a sanitizer, where these few take seconds.

/// The part of the balancer that is looked at here.
#[path = "../../balancer/src"]
pub mod balancer {
    pub mod config {
        mod forwarded;

        pub use forwarded::ForwardedConfig;
    }
    pub mod hop;
    pub mod http1;
    pub mod proxy {
        pub mod message;
        pub mod peer;
    }
    pub mod routing {
        pub mod key;
    }
}

// They call each other by these names.
pub use balancer::{config, hop, http1, proxy, routing};

use http1::head::{BadHead, Head, HeadLimits, StartLine};

/// Fields that httparse is given room for, as many as [`LIMITS`] lets in.
pub const FIELDS: usize = 64;

/// Small, so that inputs get there.
pub const LIMITS: HeadLimits = HeadLimits { bytes: 2_048, fields: FIELDS, target: 512 };

/// The first byte decides how the rest is cut into pieces: 0 for not at all.
pub fn cut(data: &[u8]) -> (usize, &[u8]) {
    match data {
        [0, rest @ ..] => (usize::MAX, rest),
        [piece, rest @ ..] => ((*piece).into(), rest),
        [] => (usize::MAX, data),
    }
}

/// Reads a head as it comes in pieces of this size.
pub fn read<S: StartLine>(bytes: &[u8], piece: usize) -> (Head<S>, Result<Option<usize>, BadHead>) {
    let mut head = Head::new();
    let mut end = 0;
    loop {
        end = bytes.len().min(usize::saturating_add(end, piece));
        let last = head.parse(&bytes[..end], &LIMITS);
        if last != Ok(None) || end == bytes.len() {
            return (head, last);
        }
    }
}

/// Reads a head at once and in pieces, which must be the same; its length, where it is good.
pub fn read_both_ways<S>(bytes: &[u8], piece: usize) -> Option<(Head<S>, usize)>
where
    S: StartLine + PartialEq + std::fmt::Debug,
{
    let (whole, at_once) = read::<S>(bytes, usize::MAX);
    let (pieces, cut) = read::<S>(bytes, piece);
    // What a refusal says depends on how much was there.
    assert_eq!(at_once.is_err(), cut.is_err(), "{at_once:?} {cut:?}");
    let length = at_once.ok()??;
    assert_eq!(cut, Ok(Some(length)));
    assert_eq!(whole.start(), pieces.start());
    assert!(fields(&whole, bytes).eq(fields(&pieces, bytes)));
    assert!(length <= LIMITS.bytes && whole.lines().len() <= LIMITS.fields);
    Some((whole, length))
}

/// The names and values of a head.
pub fn fields<'a, S: StartLine>(
    head: &'a Head<S>,
    bytes: &'a [u8],
) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
    head.lines().iter().map(|line| (line.name.of(bytes), line.value.of(bytes)))
}

/// Whether httparse has the same fields.
pub fn assert_same_fields<S: StartLine>(
    head: &Head<S>,
    bytes: &[u8],
    theirs: &[httparse::Header<'_>],
) {
    let theirs = theirs.iter().map(|header| (header.name.as_bytes(), header.value));
    assert!(fields(head, bytes).eq(theirs));
}

/// The values of the fields of this name.
pub fn values<'a, S: StartLine>(
    head: &'a Head<S>,
    bytes: &'a [u8],
    name: &'a str,
) -> Vec<&'a [u8]> {
    let named = fields(head, bytes).filter(|(its, _)| its.eq_ignore_ascii_case(name.as_bytes()));
    named.map(|(_, value)| value).collect()
}
