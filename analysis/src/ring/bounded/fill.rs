//! Balls into seats that have a cap: one after another, each into the first of its owners that has
//! room.

use anyhow::Context as _;
use balancer::routing::bounded::{Factor, Load};

use super::order::Balls;

/// Where every ball is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filled {
    /// The seat of each ball; `None` for one that is not there.
    pub(super) place: Vec<Option<u16>>,
    pub(super) loads: Vec<usize>,
    /// Owners that were asked, all balls together.
    pub(super) probes: u64,
    /// Balls that are not with their first owner.
    pub(super) elsewhere: u64,
}

/// The balancer's cap for one of `seats` when there are so many balls: ⌈c · balls / seats⌉.
pub(super) fn cap(factor: Factor, balls: usize, seats: usize) -> usize {
    factor.bound(1, Load { in_flight: balls.saturating_sub(1), share: seats as u64 })
}

/// The same worked out in whole numbers from `thousandths` of c, for the checks.
pub(super) fn cap_by_hand(thousandths: u64, balls: usize, seats: usize) -> usize {
    let cap = (u128::from(thousandths) * balls as u128).div_ceil(1_000 * seats as u128);
    usize::try_from(cap).unwrap_or(usize::MAX)
}

/// Caps that add up to ⌈c · balls⌉: none is above ⌈c · balls / seats⌉, and where that is no whole
/// number, the last seats have one less. One ball more makes about c of them grow, and not all.
/// `closed` seats have no room at all, and the others have theirs.
pub(super) fn spread(
    factor: Factor,
    balls: usize,
    seats: usize,
    closed: Option<usize>,
) -> Vec<usize> {
    let open = seats - usize::from(closed.is_some());
    let share = open as u64;
    let all = factor.bound(share, Load { in_flight: balls.saturating_sub(1), share });
    let (each, more) = (all / open, all % open);
    let mut nth = 0;
    let cap = |seat| {
        if closed == Some(seat) {
            return 0;
        }
        nth += 1;
        each + usize::from(nth <= more)
    };
    (0..seats).map(cap).collect()
}

/// Puts the balls that are there into seats, in the order of their numbers: where they are depends
/// on nothing but who is there, and not on who came when.
///
/// # Errors
/// When a ball finds no room anywhere.
pub(super) fn fill(balls: &mut Balls, there: &[bool], caps: &[usize]) -> anyhow::Result<Filled> {
    let mut loads = vec![0; caps.len()];
    let mut place = vec![None; balls.count()];
    let (mut probes, mut elsewhere) = (0, 0);
    for (ball, _) in there.iter().enumerate().filter(|(_, there)| **there) {
        let mut before = 0;
        let seat = loop {
            let seat = balls.owner(ball, before).context("a ball finds no room anywhere")?;
            if loads[seat] < caps[seat] {
                break seat;
            }
            before += 1;
        };
        loads[seat] += 1;
        place[ball] = u16::try_from(seat).ok();
        probes += before as u64 + 1;
        elsewhere += u64::from(before > 0);
    }
    Ok(Filled { place, loads, probes, elsewhere })
}

/// Balls that are there before and after, and in another seat.
pub(super) fn moved(before: &Filled, after: &Filled) -> usize {
    let pairs = before.place.iter().zip(&after.place);
    pairs.filter(|(old, new)| old.is_some() && new.is_some() && old != new).count()
}

// === impl Filled ===

impl Filled {
    /// What is wrong, by a count of the places of all balls: more than `cap` in a seat, or a ball
    /// without one.
    pub(super) fn problem(&self, there: &[bool], cap: usize) -> Option<String> {
        let mut counts = vec![0_usize; self.loads.len()];
        for seat in self.place.iter().flatten() {
            counts[usize::from(*seat)] += 1;
        }
        let (balls, placed) =
            (there.iter().filter(|it| **it).count(), counts.iter().sum::<usize>());
        if placed != balls {
            return Some(format!("{placed} of {balls} balls are in a seat"));
        }
        let most = counts.iter().max().copied().unwrap_or(0);
        (most > cap).then(|| format!("a seat has {most} balls and its cap is {cap}"))
    }
}
