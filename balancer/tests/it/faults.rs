//! What goes wrong around a balancer, and that it goes on: the engine by script, replicas and
//! networks for real.
//!
//! | fault | where it is tested |
//! |---|---|
//! | engine restarts, hangs, is unreachable or unusable | [`gone`], `docker::restart`, `docker::look` |
//! | events lost, late, doubled, too many | [`events`] |
//! | answers 500, 409, 404, 304, cut, lost; names taken | [`answers`] |
//! | replica killed, ends by itself, out of memory | [`deaths`], `docker`, `docker::look`, `fleet` |
//! | requests that kill replicas | [`deadly`] |
//! | exit loops, starts that never end | `fleet`, `heal::status`, `heal::undo` |
//! | hung, paused, woken up too late | `heal::hung`, `docker::look` |
//! | slow starts, ports that never open | [`deaths`], `heal::status` |
//! | flapping, errors to all or to probes only | `heal::outliers`, `heal::panic`, `heal::unwell` |
//! | one slow, its queue full; all overloaded | `overload`, [`neighbours`] |
//! | images missing, registries slow or refusing | `docker::pull`, `docker` |
//! | an operator's stop, restart, removal | `docker`, `docker::look`, [`events`] |
//! | a stranger at a dead one's address, packets dropped, all dead | [`neighbours`] |
//! | balancer killed in `/add`, `/rm`, an update; started again; stopped under load | `docker::leaving`, `docker::roll`, [`deaths`], [`neighbours`] |
//! | an engine or clients that hang during a shutdown | [`shutdown`] |
//! | two balancers on one engine | `docker::pair` |
//! | many changes at once, thousands of replicas | [`crowd`], `heal::many` |
//! | bad names, bad bodies, foreign pages | `contract`, `guard`, [`deaths`] |
//! | logs that cannot be written, control characters | [`text`] |
//! | no descriptors left | [`descriptors`] |
//!
//! That the clock may jump is nowhere tested: nothing but log lines and dates looks at the time of
//! day, and the freshness of an engine's event, which then waits for the next listing.

mod answers;
mod crowd;
mod deadly;
mod deaths;
mod descriptors;
mod events;
mod gone;
mod neighbours;
mod shutdown;
mod text;

use std::time::Duration;

use crate::load::{Load, greeting, seat_in};
use crate::support::{Balancer, wait_for};

/// Waits until these seats, and no others, answer for sixty keys.
fn wait_for_seats(balancer: &Balancer, seats: &[u32]) {
    wait_for(&format!("seats {seats:?} to answer"), || {
        let mut answered: Vec<u32> =
            (0..60).map_while(|id| seat_in(&greeting(balancer, id))).collect();
        let all = answered.len() == 60;
        answered.sort_unstable();
        answered.dedup();
        (all && answered == seats).then_some(())
    });
}

/// The processor time that a process has used so far.
fn processor_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, rest) = stat.rsplit_once(')').unwrap();
    // Fields 14 and 15 of the line, counted from 1; the third is the first after the name.
    let ticks: u64 =
        rest.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
    // Linux has told them in hundredths of a second for ever (USER_HZ).
    Duration::from_millis(ticks * 10)
}
