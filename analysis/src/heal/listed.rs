//! What probing 1,000 replicas costs: listed ones, all of them addresses of one demo replica, so
//! that the machine has to run no more than that.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::process::{Child, Command};

use super::many::idle;
use crate::system::api::Api;
use crate::system::{forget_settings, free_address};

/// How many are listed.
pub(super) const LISTED: u32 = 1_000;

/// Until all are ready.
const PATIENCE: Duration = Duration::from_secs(60);

/// The share of a processor that the balancer uses for 1,000 replicas while nobody asks it
/// anything.
///
/// # Errors
/// When one of the two does not start, or not all replicas are ready in time.
pub(super) async fn measure(binary: &Path) -> anyhow::Result<f64> {
    let port = free_address(Ipv4Addr::UNSPECIFIED)?.port();
    let _server = start(binary, &["replica", "--listen", &format!("0.0.0.0:{port}")])?;
    let first = u32::from(Ipv4Addr::new(127, 77, 0, 1));
    let servers: Vec<String> =
        (first..first + LISTED).map(|ip| format!("{}:{port}", Ipv4Addr::from(ip))).collect();
    let address = free_address(Ipv4Addr::LOCALHOST)?;
    let balancer = start(
        binary,
        &[
            "--listen",
            &address.to_string(),
            "--servers",
            &servers.join(","),
            "--health-interval",
            "1s",
        ],
    )?;
    let (api, began) = (Api::new(address), Instant::now());
    loop {
        let names = api.replicas().await;
        if names.is_ok_and(|names| names.len() == LISTED as usize) {
            break;
        }
        ensure!(began.elapsed() < PATIENCE, "{LISTED} replicas are not ready after {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Until each is probed at its own place.
    tokio::time::sleep(Duration::from_secs(5)).await;
    idle(balancer.id().context("the balancer has ended")?).await
}

fn start(binary: &Path, arguments: &[&str]) -> anyhow::Result<Child> {
    let mut command = Command::new(binary);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    forget_settings(&mut command);
    command.kill_on_drop(true).spawn().with_context(|| format!("cannot start {}", binary.display()))
}
