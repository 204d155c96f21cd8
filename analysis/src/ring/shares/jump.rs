//! What the draws of jump's figure 1 make of its shares, worked out.
//!
//! A key at bucket `b` goes on to `⌊(b + 1) · 2³¹ / (draw + 1)⌋`, the draw being 31 bits long. That
//! is past a bucket by one draw too few or too many at most, and so shares are not quite even. Draws
//! are taken as independent of each other; the first one is exactly uniform over all keys of 64
//! bits, because the generator maps them one to one.

/// How many bits a draw has.
pub(super) const BITS: u32 = 31;

/// The share of each of so many buckets, with draws of so many bits.
pub(super) fn shares(buckets: u32, bits: u32) -> Vec<f64> {
    let draws = 2_f64.powi(bits as i32);
    let mut comes_here = vec![0.0; buckets as usize];
    if let Some(first) = comes_here.first_mut() {
        *first = 1.0;
    }
    let mut shares = Vec::with_capacity(buckets as usize);
    for bucket in 0..buckets {
        let here = comes_here[bucket as usize];
        let mut to_this_or_on = 1 << bits;
        for target in bucket + 1..buckets {
            let on = reaching(bucket, target + 1, bits);
            comes_here[target as usize] += here * (to_this_or_on - on) as f64 / draws;
            to_this_or_on = on;
        }
        // What does not go to another bucket goes past the last one, and the key stays.
        shares.push(here * to_this_or_on as f64 / draws);
    }
    shares
}

/// How many draws lead from a bucket to `target` or beyond it: the smallest ones.
fn reaching(bucket: u32, target: u32, bits: u32) -> u64 {
    let about = ((u64::from(bucket) + 1) << bits) / u64::from(target);
    // What is rounded may be one off.
    let first = about.saturating_sub(1);
    let reached = (first..about + 1).take_while(|draw| next(bucket, *draw, bits) >= target.into());
    (first + reached.count() as u64).min(1 << bits)
}

/// Where a key goes from a bucket: as in figure 1, rounded as there.
fn next(bucket: u32, draw: u64, bits: u32) -> u64 {
    let shrink = 2_f64.powi(bits as i32) / (draw + 1) as f64;
    (f64::from(bucket + 1) * shrink) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every draw from every bucket, one by one.
    fn naive(buckets: u32, bits: u32) -> Vec<f64> {
        let mut comes_here = vec![0.0; buckets as usize];
        let mut shares = vec![0.0; buckets as usize];
        comes_here[0] = 1.0;
        for bucket in 0..buckets {
            let each = comes_here[bucket as usize] / 2_f64.powi(bits as i32);
            for draw in 0..1 << bits {
                match usize::try_from(next(bucket, draw, bits)).unwrap() {
                    target if target < buckets as usize => comes_here[target] += each,
                    _ => shares[bucket as usize] += each,
                }
            }
        }
        shares
    }

    #[test]
    fn shares_are_those_of_all_draws_one_by_one() {
        for (buckets, bits) in [(1, 8), (2, 8), (7, 8), (10, 12), (100, 14)] {
            for (worked_out, counted) in shares(buckets, bits).iter().zip(naive(buckets, bits)) {
                assert!((worked_out - counted).abs() < 1e-12, "{buckets} of {bits} bits");
            }
        }
    }

    #[test]
    fn the_first_of_a_thousand_has_all_draws_that_go_past_the_last() {
        // ⌊2³¹ / 1000⌋ of 2³¹ draws.
        let share = shares(1_000, BITS)[0];
        assert!((share - 2_147_483.0 / 2_f64.powi(31)).abs() < 1e-15, "{share}");
        assert!((shares(1_000, BITS).iter().sum::<f64>() - 1.0).abs() < 1e-12);
    }
}
