//! What random jumps should come to, by no hash at all: each ball falls into one of the seats with
//! room, all of them alike (as in the simplified simulation that Chen, Coleman and Shrivastava
//! publish with their paper). For balls that stay an urn is drawn from; for those that come and go
//! it is worked out.

use rand::RngExt as _;
use rand::rngs::StdRng;

/// The loads of `seats` after so many balls. There must be room for all.
pub(super) fn loads(seats: usize, balls: usize, cap: usize, rng: &mut StdRng) -> Vec<usize> {
    let mut loads = vec![0; seats];
    let mut open: Vec<usize> = (0..seats).collect();
    for _ in 0..balls {
        let at = rng.random_range(0..open.len());
        let seat = open[at];
        loads[seat] += 1;
        if loads[seat] >= cap {
            open.swap_remove(at);
        }
    }
    loads
}

/// How many of all seats, in a random order, are looked at until one has room; one must have.
pub(super) fn probes(seats: usize, full: usize, rng: &mut StdRng) -> usize {
    // Those before were full, too.
    let next_is_full = |before: &usize| rng.random_range(0..seats - before) < full - before;
    1 + (0..full).take_while(next_is_full).count()
}

/// The share of full seats that a ball finds, where always `balls` are in and one of them, any,
/// leaves when another comes. Exact.
///
/// Loads `k` with one ball less have a probability in proportion to `N(k) · Π 1/k_i!`, `N` being
/// the seats with room: the walk is reversible, for it comes and goes between two states as often
/// by way of the state between them. So the share is a quotient of two coefficients of products of
/// `Σ t^k/k!`, cut off at the cap. With many seats it is Erlang's loss formula.
pub(super) fn full_share(seats: usize, balls: usize, cap: usize) -> f64 {
    // As probabilities of Poisson's distribution, which changes no quotient and keeps them small.
    let mean = balls as f64 / seats as f64;
    let mut all = vec![(-mean).exp()];
    for load in 1..=cap.min(balls) {
        all.push(all[load - 1] * mean / load as f64);
    }
    let open = &all[..all.len().min(cap)];
    let inside = balls - 1;
    let Some(left) = inside.checked_sub(cap) else { return 0.0 };
    let (Some(full), true) = (all.get(cap), seats > 1) else { return 0.0 };
    let others = product(&power(&all, seats - 2, inside), open, inside);
    let with_full = others.get(left).copied().unwrap_or(0.0) * full;
    let any = product(&others, &all, inside).get(inside).copied().unwrap_or(0.0);
    (1.0 - 1.0 / seats as f64) * with_full / any
}

/// To the power of `exponent`, by squaring; coefficients up to `most`.
fn power(factor: &[f64], exponent: usize, most: usize) -> Vec<f64> {
    if exponent == 0 {
        return vec![1.0];
    }
    let half = power(factor, exponent / 2, most);
    let square = product(&half, &half, most);
    if exponent.is_multiple_of(2) { square } else { product(&square, factor, most) }
}

fn product(one: &[f64], other: &[f64], most: usize) -> Vec<f64> {
    let mut all = vec![0.0; (one.len() + other.len() - 1).min(most + 1)];
    for (nth, here) in one.iter().enumerate().filter(|(_, here)| **here > 0.0) {
        for (sum, there) in all.iter_mut().skip(nth).zip(other) {
            *sum += here * there;
        }
    }
    all
}
