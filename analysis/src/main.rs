//! Load generator, experiments and charts.
//!
//! `analysis load` sends many requests to any URL. `analysis a1` to `a4`, `fan` and `overload` start
//! the real balancer, measure it, and leave figures and charts in `report/`; `analysis ring` asks its
//! placements alone; `analysis bench` times it, and `analysis proxies` puts it beside nginx and HAProxy.
//!
//! ```text
//! main        parse → dispatch → exit code
//! cli         what the user typed → what to do
//! load        the load generator
//! system      the balancer in a process of its own, its REST interface, its replicas' deaths
//! experiment  A-1 to A-4, F-1 and F-2
//! ring        what placements do with the key space, beside the papers
//! overload    ways to balance under too many requests, measured and simulated
//! bench       how fast the balancer is
//! proxies     nginx, HAProxy and the balancer at the same work, in turns
//! chaos       faults at random under load, and what must hold all the same
//! heal        how soon the fleet is whole again, with few and with many replicas
//! parallel    much work of one kind, on all processors
//! stats       spread, three sigmas, percentiles: pure
//! chart       figures → SVG and PNG, by plotters
//! report      CSV files, and Markdown between the markers of report/README.md
//! ```

mod bench;
mod chaos;
mod chart;
mod cli;
mod experiment;
mod heal;
mod load;
mod overload;
mod parallel;
mod proxies;
mod report;
mod ring;
mod stats;
mod system;

use std::path::Path;
use std::process::ExitCode;

use actix_web::rt::System;
use anyhow::bail;
use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};

use cli::{Cli, Command, LoadArgs, ShotArgs};
use experiment::{Problems, a1, a2, a3, a4, fan};
use load::summary::Summary;

/// How two experiments are called that are made together.
const FAN: &str = "F-1 and F-2";
/// How the one without a number is called.
const OVERLOAD: &str = "overload";
/// How the one is called that starts nothing.
const RING: &str = "ring";

/// 0: all is well. 1: a request failed, a measurement is not what it must be, or it could not be
/// made. 2: the command line is wrong.
fn main() -> ExitCode {
    let cli = Cli::parse();
    let problems = System::new().block_on(interruptible(dispatch(cli.command)));
    match problems {
        Ok(problems) if problems.is_empty() => ExitCode::SUCCESS,
        Ok(problems) => {
            problems.iter().for_each(|problem| eprintln!("failed: {problem}"));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Ends the work at SIGINT and SIGTERM, so that what it started is stopped on the way out.
async fn interruptible(
    work: impl Future<Output = anyhow::Result<Problems>>,
) -> anyhow::Result<Problems> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        problems = work => problems,
        _ = interrupt.recv() => bail!("interrupted"),
        _ = terminate.recv() => bail!("terminated"),
    }
}

async fn dispatch(command: Command) -> anyhow::Result<Problems> {
    match command {
        Command::Load(args) => load(&args).await,
        Command::A1(args) => done("A-1", &args.out, a1::run(&args.setup()?).await),
        Command::A2(args) => done("A-2", &args.out, a2::run(&args.setup()?).await),
        Command::A3(args) => {
            let out = &args.experiment.out;
            done("A-3", out, a3::run(&args.experiment.setup()?, &args.shot()?).await)
        }
        Command::A4(args) => done("A-4", &args.out, a4::run(&args.setup()?).await),
        Command::Fan(args) => done(FAN, &args.out, fan::run(&args.setup()?, &args.plan()?).await),
        Command::Overload(args) => {
            done(OVERLOAD, &args.out, overload::run(&args.setup()?, &args.plan()?).await)
        }
        Command::Ring(args) => {
            done(RING, &args.out, ring::run(&args.setup()?, &args.parts()).await)
        }
        Command::All(args) => all(&args).await,
        Command::Bench(args) => {
            bench::run(&args.experiment.setup()?, args.rounds).await?;
            Ok(Problems::new())
        }
        Command::Proxies(args) => {
            proxies::run(&args.experiment.setup()?, &args.plan()?).await?;
            Ok(Problems::new())
        }
        Command::Chaos(args) if args.dry_run => {
            chaos::dry_run(args.runtime, args.seed, &args.plan()?);
            Ok(Problems::new())
        }
        Command::Chaos(args) => chaos::run(&args.setup()?, &args.plan()?).await,
        Command::Heal(args) => heal::run(&args.setup()?, &args.plan()?).await,
    }
}

async fn load(args: &LoadArgs) -> anyhow::Result<Problems> {
    let plan = args.plan()?;
    let progress = load::progress_bar("requests");
    let summary = Summary::of(&load::run(plan, &progress).await);
    progress.finish_and_clear();
    print!("{summary}");
    // What failed is printed above.
    match summary.failed() {
        0 => Ok(Problems::new()),
        failed => Ok(vec![format!("{failed} of {} requests", summary.requests)]),
    }
}

/// All experiments; one that cannot be made does not keep the others from being made.
async fn all(args: &ShotArgs) -> anyhow::Result<Problems> {
    let (setup, shot) = (args.experiment.setup()?, args.shot()?);
    let mut problems = Problems::new();
    let mut note = |name: &str, result| match done(name, &args.experiment.out, result) {
        Ok(found) => problems.extend(found),
        Err(error) => problems.push(format!("{name} could not be made: {error:#}")),
    };
    note("A-1", a1::run(&setup).await);
    note("A-2", a2::run(&setup).await);
    note("A-3", a3::run(&setup, &shot).await);
    note("A-4", a4::run(&setup).await);
    note(FAN, fan::run(&setup, &fan::Plan::default()).await);
    note(OVERLOAD, overload::run(&setup, &overload::Plan::default()).await);
    note(RING, ring::run(&setup, &ring::Part::ALL).await);
    Ok(problems)
}

/// Says where the results are.
fn done(name: &str, out: &Path, problems: anyhow::Result<Problems>) -> anyhow::Result<Problems> {
    let problems = problems?;
    let verdict = match problems.len() {
        0 => "all is well".to_owned(),
        1 => "1 problem".to_owned(),
        many => format!("{many} problems"),
    };
    println!("{name}: {verdict}; see {}", out.join("README.md").display());
    Ok(problems)
}
