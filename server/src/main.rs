//! Command line of the demo replica.

use std::process::ExitCode;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The demo replica of the load balancer: a small web server with faults and delays on demand.
///
/// It answers GET /home, /heartbeat, /health-check and /login, POST /register and
/// /changePassword, and stops gracefully on SIGTERM and SIGINT. With --journal it tells of every POST
/// that it carried out.
#[derive(Debug, Parser)]
#[command(name = "server", version)]
struct Arguments {
    #[command(flatten)]
    options: server::Options,
}

fn main() -> ExitCode {
    match server::main(Arguments::parse().options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {:#}", anyhow::Error::from(error));
            ExitCode::FAILURE
        }
    }
}
