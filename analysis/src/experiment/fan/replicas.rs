//! Demo replicas at free ports, each a process of its own behind a tap.

use std::net::Ipv4Addr;
use std::process::Stdio;

use anyhow::Context as _;
use tokio::process::{Child, Command};

use super::tap::Tap;
use crate::chaos::journal::Journal;
use crate::experiment::Setup;
use crate::system::free_address;

/// A replica; killed when dropped.
pub(super) struct Replica {
    /// What comes to it.
    pub(super) tap: Tap,
    /// What it carried out.
    pub(super) journal: Journal,
    _child: Child,
}

// === impl Replica ===

impl Replica {
    /// Starts the demo replica with this number and these options, and does not wait for it. It is
    /// the one in the balancer's program, which is the program `server`. What it draws follows
    /// from the setup's seed and its number alone.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) async fn start(
        setup: &Setup,
        number: u32,
        options: &[String],
    ) -> anyhow::Result<Self> {
        let address = free_address(Ipv4Addr::LOCALHOST)?;
        let journal = Journal::open(Ipv4Addr::LOCALHOST.into())?;
        let seed = setup.seed.wrapping_add(u64::from(number));
        let child = Command::new(&setup.balancer)
            .args(["replica", "--listen", &address.to_string()])
            .args(["--server-id", &number.to_string(), "--seed", &seed.to_string()])
            .args(["--journal", &format!("{}:{}", Ipv4Addr::LOCALHOST, journal.port())])
            .args(options)
            // What is set for another replica is not meant for this one.
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", setup.balancer.display()))?;
        Ok(Self { tap: Tap::before(address).await?, journal, _child: child })
    }
}
