//! Command line: parse → `Config` → bind → run → exit code.

use std::ffi::OsString;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use balancer::clean::{self, CleanSettings};
use balancer::config::links::is_link;
use balancer::config::settings::Settings;
use balancer::config::{Config, ConfigFile, RuntimeConfig};
use balancer::reload::Source;
use balancer::routing::key::KeySource;
use balancer::runtime::docker::Docker;
use balancer::runtime::fixed::Fixed;
use balancer::runtime::process::{Process, check_command, orphans, shim};
use balancer::watch::options::WatchSettings;
use balancer::{Listeners, descriptors, telemetry, watch};
use clap::builder::Resettable;
use clap::{Arg, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

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
    /// Remove the containers, networks and leases that a pool has left on the Docker engine, after
    /// listing them and asking; refused while a balancer of the pool runs
    Clean(CleanSettings),
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
    let mut words = std::env::args_os();
    // How the balancer starts the process between itself and a replica.
    if words.next().is_some_and(|name| name == shim::SHIM) {
        let program: Vec<OsString> = words.collect();
        return shim::run(&program);
    }
    let links = link_variables();
    let cli = parse(&links);
    let _flush = telemetry::Flush;
    let outcome = match cli.command.unwrap_or(Task::Serve(Box::new(cli.serve))) {
        Task::Serve(serve) => run(*serve, &links),
        Task::Check { file } => check(&file),
        Task::Clean(settings) => clean(settings),
        Task::Watch(settings) => control(*settings),
        Task::Replica(options) => server::main(options).map_err(anyhow::Error::from),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            telemetry::print_error(&format_args!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Returns the names of the link variables in the environment.
fn link_variables() -> Vec<String> {
    let all = std::env::vars_os();
    let all = all.filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
    let links = all.filter(|(name, value)| is_link(name, &value.to_string_lossy()));
    links.map(|(name, _)| name).collect()
}

/// Parses the command line and the environment but for these variables; ends the process where
/// that fails.
fn parse(ignored: &[String]) -> Cli {
    let own = |arg: Arg| {
        let name = arg.get_env().and_then(|name| name.to_str());
        match name.is_some_and(|name| ignored.iter().any(|ignored| ignored == name)) {
            true => arg.env(Resettable::Reset),
            false => arg,
        }
    };
    let command = Cli::command().mut_args(own).mut_subcommands(|task| task.mut_args(own));
    Cli::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit())
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

fn run(serve: Serve, links: &[String]) -> anyhow::Result<()> {
    let settings = serve.settings.or_kept_names(|name| std::env::var(name).ok())?;
    let file = serve.config.as_deref().map(ConfigFile::read).transpose()?;
    let mut config = Config::new(file.as_ref(), settings.clone())?;
    let source = Source { file, settings };
    telemetry::start(&config.log)?;
    if !links.is_empty() {
        let variables = links.join(", ");
        warn!(variables, "ignoring link variables of Kubernetes or Docker: they are no settings");
    }
    if let RuntimeConfig::Process { command: Some(command), env } = &config.runtime {
        check_command(command, env)?;
    }
    if let Some(limit) = descriptors::raise() {
        descriptors::share_out(&mut config, limit);
    }
    let listeners = Listeners {
        traffic: bind(config.listen)?,
        tls: config.tls.as_ref().and_then(|tls| tls.listen).map(bind).transpose()?,
        admin: config.admin.listen.map(bind).transpose()?,
    };
    actix_web::rt::System::new().block_on(async {
        let mut shutdown = pin!(shutdown(Some(config.timeouts.shutdown))?);
        actix_web::rt::spawn(orphans::reap()?);
        match config.runtime.clone() {
            RuntimeConfig::Process { .. } => {
                orphans::adopt()?;
                let runtime = Process::new();
                balancer::run(config, listeners, runtime, source, shutdown).await?;
            }
            RuntimeConfig::Docker(docker) => {
                let listen = listeners.traffic.local_addr()?;
                let connecting = Docker::connect(docker, listen, config.engine.wait);
                let Some(runtime) = unless(shutdown.as_mut(), connecting).await else {
                    return Ok(());
                };
                let runtime = runtime?;
                balancer::run(config, listeners, runtime, source, shutdown).await?;
            }
            RuntimeConfig::Static(listed) => {
                let opening = Fixed::open(listed);
                let Some(runtime) = unless(shutdown.as_mut(), opening).await else {
                    return Ok(());
                };
                balancer::run(config, listeners, runtime, source, shutdown).await?;
            }
        }
        Ok(())
    })
}

fn clean(settings: CleanSettings) -> anyhow::Result<()> {
    actix_web::rt::System::new()
        .block_on(async { clean::run(settings, &mut io::stdout()).await.map_err(Into::into) })
}

fn control(settings: WatchSettings) -> anyhow::Result<()> {
    let options = settings.check()?;
    telemetry::start(&options.log)?;
    actix_web::rt::System::new().block_on(async {
        watch::run(options, shutdown(None)?).await?;
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

/// Returns what `opening` comes to, or `None` if `shutdown` completes before: a start that waits
/// for something ends at once.
async fn unless<T>(
    shutdown: Pin<&mut impl Future<Output = ()>>,
    opening: impl Future<Output = T>,
) -> Option<T> {
    tokio::select! {
        biased;
        () = shutdown => {
            info!("shutting down before the start was complete");
            None
        }
        opened = opening => Some(opened),
    }
}

/// How much later than a shutdown should be over it is ended by force.
const OVERDUE: Duration = Duration::from_secs(2);

/// Ends at the first SIGTERM or SIGINT; a second one ends the process at once. So does the end of
/// the time that the shutdown `within` may take: a thread of its own sees to that, whatever blocks
/// the others.
fn shutdown(within: Option<Duration>) -> io::Result<impl Future<Output = ()>> {
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
        if let Some(within) = within {
            thread::spawn(move || end_after(within + OVERDUE));
        }
        actix_web::rt::spawn(async move {
            either().await;
            warn!("second signal: ending at once");
            telemetry::flush();
            #[expect(clippy::disallowed_methods, reason = "the user asked twice")]
            std::process::exit(1);
        });
    })
}

/// Ends the process after this time, if it has not ended by itself.
#[expect(clippy::disallowed_methods, reason = "a thread whose only task is to wait and to exit")]
fn end_after(span: Duration) {
    thread::sleep(span);
    // By a thread of its own: the log may be what hangs.
    thread::spawn(|| warn!("shutdown hangs: ending at once"));
    thread::sleep(Duration::from_millis(100));
    std::process::exit(1);
}
