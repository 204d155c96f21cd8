//! Command line: parse → `Config` → bind → run → exit code.

use std::ffi::OsString;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use balancer::config::settings::Settings;
use balancer::config::{Config, ConfigFile, RuntimeConfig};
use balancer::reload::Source;
use balancer::routing::key::KeySource;
use balancer::runtime::docker::Docker;
use balancer::runtime::fixed::Fixed;
use balancer::runtime::process::{self, Process};
use balancer::watch::options::WatchSettings;
use balancer::{Listeners, descriptors, telemetry, watch};
use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tracing::warn;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Connections that may wait to be accepted; the kernel's own limit (`somaxconn`) is the same.
const BACKLOG: i32 = 4_096;

/// A consistent-hashing HTTP load balancer that owns its replicas.
///
/// Without a subcommand it serves. Settings come from the file (--config), the environment
/// (BALANCER_*) and the flags; the later win.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Option<Task>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(Subcommand)]
enum Task {
    /// Serve: the same as no subcommand
    Serve(Box<Serve>),
    /// Say whether a configuration file is good
    Check {
        /// The file
        file: PathBuf,
    },
    /// Take overloaded replicas of a balancer out of rotation until they have recovered, through
    /// its overload API
    Watch(Box<WatchSettings>),
    /// Run the embedded demo replica: what the process runtime starts where no --command is given
    Replica(server::Options),
}

#[derive(Args)]
struct Serve {
    /// A TOML file with settings; every flag below is a key in it (--ring-secret is secret in
    /// [ring], --health-rise is rise in [health], and so on)
    #[arg(long, env = "BALANCER_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == process::SHIM) {
        return become_replica(arguments);
    }
    let cli = Cli::parse();
    let outcome = match cli.command.unwrap_or(Task::Serve(Box::new(cli.serve))) {
        Task::Serve(serve) => run(*serve),
        Task::Check { file } => check(&file),
        Task::Watch(settings) => control(*settings),
        Task::Replica(options) => server::main(options).map_err(anyhow::Error::from),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The hidden first step of a replica's process: `replica-shim PARENT -- PROGRAM…`.
fn become_replica(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.collect();
    let parent = arguments.first().and_then(|parent| parent.to_str()?.parse().ok());
    let (Some(parent), Some(program)) = (parent, arguments.get(2..)) else {
        eprintln!("error: {} is for the balancer's own use", process::SHIM);
        return ExitCode::FAILURE;
    };
    let error = process::shim(parent, program);
    let program = program.first().map(|program| program.to_string_lossy()).unwrap_or_default();
    eprintln!("error: cannot run {program:?}: {error}");
    // As shells tell that a program could not be run.
    ExitCode::from(127)
}

fn check(file: &std::path::Path) -> anyhow::Result<()> {
    let config = Config::new(Some(&ConfigFile::read(file)?), Settings::default())?;
    println!(
        "{} is good: {} replicas, placement {}, key {}, listening on {}",
        file.display(),
        match &config.runtime {
            RuntimeConfig::Process { .. } | RuntimeConfig::Docker(_) => config.replicas,
            RuntimeConfig::Static(listed) => listed.first().len(),
        },
        config.placement.name(),
        config.routes.last().map_or(&KeySource::RequestId, |route| &route.key),
        config.listen,
    );
    Ok(())
}

fn run(serve: Serve) -> anyhow::Result<()> {
    let settings = serve.settings.or_kept_names(|name| std::env::var(name).ok())?;
    let file = serve.config.as_deref().map(ConfigFile::read).transpose()?;
    let mut config = Config::new(file.as_ref(), settings.clone())?;
    let source = Source { file, settings };
    telemetry::start(&config.log).context("'log_level' is wrong")?;
    if let Some(limit) = descriptors::raise() {
        descriptors::share_out(&mut config, limit);
    }
    let listeners = Listeners {
        traffic: bind(config.listen)?,
        tls: config.tls.as_ref().and_then(|tls| tls.listen).map(bind).transpose()?,
        admin: config.admin.listen.map(bind).transpose()?,
    };
    actix_web::rt::System::new().block_on(async {
        let shutdown = shutdown()?;
        match config.runtime.clone() {
            RuntimeConfig::Process { .. } => {
                let runtime = Process::new();
                balancer::run(config, listeners, runtime, source, shutdown).await?;
            }
            RuntimeConfig::Docker(docker) => {
                let runtime = Docker::connect(docker).await?;
                balancer::run(config, listeners, runtime, source, shutdown).await?;
            }
            RuntimeConfig::Static(listed) => {
                let runtime = Fixed::open(listed).await;
                balancer::run(config, listeners, runtime, source, shutdown).await?;
            }
        }
        Ok(())
    })
}

fn control(settings: WatchSettings) -> anyhow::Result<()> {
    let options = settings.check()?;
    telemetry::start(&options.log).context("'--log-level' is wrong")?;
    actix_web::rt::System::new().block_on(async {
        watch::run(options, shutdown()?).await?;
        Ok(())
    })
}

fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener =
        TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    // The standard library asks for 128, which a burst of clients fills before it is seen.
    rustix::net::listen(&listener, BACKLOG)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Ends at the first SIGTERM or SIGINT; a second one ends the process at once.
fn shutdown() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut either = async move || {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    Ok(async move {
        either().await;
        actix_web::rt::spawn(async move {
            either().await;
            warn!("second signal: ending at once");
            #[expect(clippy::disallowed_methods, reason = "the user asked twice")]
            std::process::exit(1);
        });
    })
}
