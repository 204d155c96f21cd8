//! SipHash-1-3 (Aumasson & Bernstein, 2012) of whole words: what `siphasher` makes of their bytes,
//! the lowest first, without asking after each whether there are more. Points and scores are hashed
//! by the million.

use super::Secret;

/// What the words so far came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Words {
    state: [u64; 4],
    bytes: u64,
}

/// What keys are mixed with: "somepseudorandomlygeneratedbytes".
const INITIAL: [u64; 4] =
    [0x736f_6d65_7073_6575, 0x646f_7261_6e64_6f6d, 0x6c79_6765_6e65_7261, 0x7465_6462_7974_6573];

// === impl Words ===

impl Words {
    /// Of none yet.
    pub(super) fn new(secret: Secret) -> Self {
        let half = |at: usize| {
            let bytes: [u8; 8] = std::array::from_fn(|byte| secret.0[at + byte]);
            u64::from_le_bytes(bytes)
        };
        let keys = [half(0), half(8)];
        Self { state: std::array::from_fn(|at| INITIAL[at] ^ keys[at % 2]), bytes: 0 }
    }

    /// With one word more.
    #[inline]
    pub(super) fn then(self, word: u64) -> Self {
        Self { bytes: self.bytes + 8, ..self.mixed(word) }
    }

    /// The hash of all of them.
    #[inline]
    pub(super) fn hash(self) -> u64 {
        let Self { mut state, .. } = self.mixed(self.bytes << 56);
        state[2] ^= 0xff;
        let [a, b, c, d] = round(round(round(state)));
        a ^ b ^ c ^ d
    }

    #[inline]
    fn mixed(self, word: u64) -> Self {
        let mut state = self.state;
        state[3] ^= word;
        state = round(state);
        state[0] ^= word;
        Self { state, ..self }
    }
}

#[inline]
fn round([mut a, mut b, mut c, mut d]: [u64; 4]) -> [u64; 4] {
    a = a.wrapping_add(b);
    b = b.rotate_left(13) ^ a;
    a = a.rotate_left(32);
    c = c.wrapping_add(d);
    d = d.rotate_left(16) ^ c;
    a = a.wrapping_add(d);
    d = d.rotate_left(21) ^ a;
    c = c.wrapping_add(b);
    b = b.rotate_left(17) ^ c;
    c = c.rotate_left(32);
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn words_have_the_hash_of_their_bytes(key: [u8; 16], words: [u64; 3], count in 0_usize..=3) {
            let secret = Secret(key);
            let own = words[..count].iter().fold(Words::new(secret), |own, word| own.then(*word));
            let bytes: Vec<u8> = words[..count].iter().flat_map(|word| word.to_le_bytes()).collect();
            prop_assert_eq!(own.hash(), secret.hasher().hash(&bytes));
        }
    }
}
