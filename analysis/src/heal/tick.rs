//! What a look at 1,000 replicas costs the supervisor: nothing is started for it, the balancer's
//! own roster and table are timed.

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use balancer::config::Config;
use balancer::config::settings::Settings;
use balancer::fleet::health::Verdict;
use balancer::fleet::observed::{Condition, Observed};
use balancer::fleet::release::Release;
use balancer::fleet::roster::Roster;
use balancer::fleet::seat::{Hostname, Seat};
use balancer::routing::placement::{Member, Placement};
use balancer::routing::pool::Pool;
use balancer::routing::table::{Replica, ReplicaId, Table};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

/// Replicas of the fleet that is looked at.
pub(super) const REPLICAS: u32 = 1_000;

/// Looks, of which the median counts.
const LOOKS: usize = 101;

/// How long one look takes: medians.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tick {
    /// A full listing taken in, and a plan made: once a second, and at every hint.
    pub(super) look: Duration,
    /// The same when one has died, with the new table.
    pub(super) death: Duration,
    /// A placement of all of them built anew: when the fleet grows or shrinks.
    pub(super) build: Duration,
}

/// Times a fleet in which all is well, and one in which one after another dies.
///
/// # Errors
/// When the fleet does not come up: a mistake of this program.
pub(super) fn measure() -> anyhow::Result<Tick> {
    let config = Config::new(None, Settings::default())?;
    let mut rng = StdRng::seed_from_u64(1);
    let mut roster = Roster::new(config.fleet());
    let listing: Vec<Observed> = (1..=REPLICAS).filter_map(Seat::new).map(observed).collect();
    let now = Instant::now();
    roster.boot(listing.clone(), 0, now);
    let running: Vec<(Hostname, SocketAddr)> =
        roster.running().map(|(hostname, _, address)| (hostname.clone(), address)).collect();
    for (hostname, address) in &running {
        roster.probed(hostname, *address, Verdict::Good, None, now);
    }
    let idle = roster.act(now, &mut rng).0.is_empty();
    ensure!(idle && roster.serving().count() == REPLICAS as usize, "the fleet is not ready");

    let look = median(|_| {
        let began = Instant::now();
        roster.listed(listing.clone(), roster.tick(), now, &mut rng);
        black_box(roster.act(now, &mut rng));
        began.elapsed()
    });

    let members: Vec<Member> =
        roster.members().map(|(id, weight, _)| Member::new(id, weight)).collect();
    let placement = Placement::build(&config.placement, &members).context("a placement")?;
    let placement = Arc::new(placement);
    let pool = Arc::<Pool>::default();
    let replicas: Vec<Arc<Replica>> = (0..)
        .zip(&members)
        .zip(&running)
        .map(|((id, member), (hostname, address))| {
            let (id, hostname) = (ReplicaId(id), hostname.clone());
            Arc::new(Replica::new(id, hostname, member.id, *address, &pool))
        })
        .collect();
    let death = median(|at| {
        let mut listing = listing.clone();
        listing[at].condition = Condition::Dead(balancer::fleet::change::Death::Killed(9));
        let began = Instant::now();
        roster.listed(listing, roster.tick(), now, &mut rng);
        black_box(roster.act(now, &mut rng));
        let serving = replicas.iter().take(roster.serving().count()).cloned();
        let (placement, listing) = (Arc::clone(&placement), roster.listing());
        black_box(Table::new(&pool, placement, serving, Vec::new(), listing));
        began.elapsed()
    });

    let build = median(|_| {
        let began = Instant::now();
        black_box(Placement::build(&config.placement, &members).is_ok());
        began.elapsed()
    });
    Ok(Tick { look, death, build })
}

fn median(mut look: impl FnMut(usize) -> Duration) -> Duration {
    let mut times: Vec<Duration> = (0..LOOKS).map(&mut look).collect();
    times.sort_unstable();
    times[LOOKS / 2]
}

fn observed(seat: Seat) -> Observed {
    Observed {
        hostname: Hostname::of_seat(seat),
        place: seat.into(),
        address: Some(SocketAddr::from((
            [10, 0, (seat.get() >> 8) as u8, seat.get() as u8],
            5_000,
        ))),
        address_error: None,
        weight: 1,
        created: seat.get().into(),
        release: Release::default(),
        condition: Condition::Running,
        leaving: false,
        seat_stays: false,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_fleet_of_a_thousand_can_be_timed() {
        let tick = super::measure().unwrap();
        assert!(!tick.look.is_zero() && !tick.death.is_zero() && !tick.build.is_zero());
    }
}
