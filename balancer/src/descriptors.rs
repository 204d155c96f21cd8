//! File descriptors: how many there may be, and who may have them.
//!
//! A client's connection needs one, and another one to a replica while a request is under way.
//! Whoever takes the last leaves none for probes, and then good replicas look bad; so clients, and
//! the connections that are kept for later, have their shares, and the rest is a reserve.

use std::io;

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{debug, warn};

use crate::config::Config;

/// What this process sets its limit to at most, whatever it may: programs that it starts inherit
/// it, and some close every descriptor that there could be.
const MOST: u64 = 1 << 20;

/// Of the process itself: listeners, signals, log, engine, and surplus clients.
const OWN: u64 = 64;

/// Connections that are accepted beyond the share of clients: they hear that there is no room, or
/// call the admin routes. The rest waits in the kernel's backlog.
pub const SURPLUS: usize = 16;

/// Connections to the admin listener: this part of all descriptors, and the bounds of that.
const ADMIN_SHARE: u64 = 16;
const ADMIN_LEAST: u64 = 8;
const ADMIN_MOST: u64 = 1_024;

/// For each thread of the request path.
const A_WORKER: u64 = 8;

/// For each replica: two pipes of its output, one that controls its processes, and a probe.
const A_REPLICA: u64 = 4;

/// The limit as it is now, if there is one.
pub fn limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// Raises the process's limit as far as it may be; tells it, if there is one.
pub fn raise() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let most = maximum.unwrap_or(MOST).min(MOST);
    if current.is_none_or(|current| current >= most) {
        return current;
    }
    let raised = Rlimit { current: Some(most), maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => Some(most),
        Err(error) => {
            debug!(%error, "limit of descriptors could not be raised");
            current
        }
    }
}

/// Shares out `limit` descriptors. What the process, its workers and `max_replicas` may need is a
/// reserve, a quarter of them at most. Of the rest clients get three eighths, which is the most and
/// the default of `limits.connections`, and as many are for what they ask of replicas; a fifth is
/// for idle connections to replicas. No more connections than that and [`SURPLUS`] are accepted.
pub fn share_out(config: &mut Config, limit: u64) {
    let (workers, replicas) = (config.workers as u64, config.max_replicas as u64);
    let needed = OWN + A_WORKER * workers + A_REPLICA.saturating_mul(replicas);
    let rest = limit - needed.min(limit / 4);
    let clients = usize::try_from(rest * 3 / 8).unwrap_or(usize::MAX).max(1);
    config.limits.accepted = clients + SURPLUS;
    let admin = (limit / ADMIN_SHARE).clamp(ADMIN_LEAST, ADMIN_MOST);
    config.limits.admin = usize::try_from(admin).unwrap_or(usize::MAX);
    config.limits.idle = usize::try_from(rest / 5).unwrap_or(usize::MAX);
    match config.limits.connections {
        None => config.limits.connections = Some(clients),
        Some(set) if set > clients => {
            warn!(
                descriptors = limit,
                set,
                enough_for = clients,
                "'limits.connections' is more than there are descriptors for: raise the limit of \
                 open files (ulimit -n)"
            );
            config.limits.connections = Some(clients);
        }
        Some(_fits) => {}
    }
    debug!(descriptors = limit, connections = config.limits.connections, "descriptors are shared");
}

/// Reports whether an error means that no descriptor was left. That says nothing about the other
/// side of a connection.
pub fn are_used_up(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::Settings;

    /// Clients and idle connections of a configuration with `limit` descriptors.
    fn shares(limit: u64, connections: Option<usize>) -> (Option<usize>, usize) {
        let workers = std::num::NonZeroUsize::new(2);
        let mut config = Config::new(None, Settings { workers, ..Settings::default() }).unwrap();
        config.limits.connections = connections;
        share_out(&mut config, limit);
        (config.limits.connections, config.limits.idle)
    }

    #[test]
    fn clients_their_requests_idle_connections_and_the_reserve_fit_into_the_limit() {
        assert_eq!(shares(256, None), (Some(72), 38));
        assert_eq!(shares(1_024, None), (Some(288), 153));
        assert_eq!(shares(1 << 20, None), (Some(391_686), 208_899));
        for limit in (0..5_000).chain([65_536, 1 << 20, u64::MAX / 8]) {
            let (clients, idle) = shares(limit, None);
            let used = 2 * clients.unwrap() as u64 + idle as u64;
            assert!(limit < 8 || used <= limit - limit.min(16_320) / 4, "{limit}: {used}");
        }
    }

    #[test]
    fn what_is_set_is_kept_where_there_are_descriptors_for_it() {
        assert_eq!(shares(256, Some(7)), (Some(7), 38));
        assert_eq!(shares(256, Some(5_000)), (Some(72), 38));
    }

    #[test]
    fn surplus_and_admin_connections_fit_into_the_reserve() {
        for (limit, accepted, admin) in [(256, 72 + 16, 16), (1_024, 288 + 16, 64)] {
            let mut config = Config::new(None, Settings::default()).unwrap();
            share_out(&mut config, limit);
            assert_eq!((config.limits.accepted, config.limits.admin), (accepted, admin));
            assert!((SURPLUS + admin) as u64 <= limit / 4, "{limit}");
        }
    }
}
