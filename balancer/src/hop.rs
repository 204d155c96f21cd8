//! Forwarding loops: a field with an id of this process, which every forwarded request carries.
//!
//! A request that arrives with the id of this process has passed through it before. The name in
//! `Via` cannot tell that: it is off by default, and balancers of one tier often share it. The id
//! is drawn at random for each process, so a client that has not seen a forwarded request cannot
//! write it, and the id of another process means nothing here.

use std::sync::LazyLock;

use rand::RngExt as _;

/// The name of the field. Each hop adds one field line; an intermediary may join the lines.
const NAME: &str = "X-Balancer-Hop";

/// Digits of the id: 64 bits in hexadecimal.
const DIGITS: usize = 16;

/// The whole field line with its CR LF, written once.
static LINE: LazyLock<String> = LazyLock::new(|| {
    let id: u64 = rand::rng().random();
    format!("{NAME}: {id:0DIGITS$x}\r\n")
});

/// Returns the field line that a request to a replica carries, with its CR LF.
pub fn line() -> &'static str {
    &LINE
}

/// Returns how often the id of this process stands in a value of the field: how often the request
/// has passed through this process.
pub fn passes(value: &[u8]) -> usize {
    let start = NAME.len() + ": ".len();
    let id = &line().as_bytes()[start..start + DIGITS];
    value.split(|byte| *byte == b',').filter(|hop| hop.trim_ascii() == id).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_id_of_this_process_counts_as_a_pass() {
        let id = line().strip_prefix("X-Balancer-Hop: ").unwrap().trim_end();
        assert_eq!((id.len(), line().len()), (DIGITS, NAME.len() + 2 + DIGITS + 2));
        for (value, expected) in [
            (id.to_owned(), 1),
            (format!("0123456789abcdef, {id}"), 1),
            (format!("{id} ,\t{id},"), 2),
            ("0123456789abcdef".to_owned(), 0),
            (id[1..].to_owned(), 0),
            (format!("{id}0"), 0),
            (String::new(), 0),
        ] {
            assert_eq!(passes(value.as_bytes()), expected, "{value}");
        }
    }
}
