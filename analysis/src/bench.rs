//! `analysis bench`: how fast the balancer is. Prints, writes `bench.md`, and asserts nothing.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use awc::Client;
use awc::http::Method;
use futures_util::future::try_join_all;

use crate::experiment::{Setup, Variant};
use crate::load::summary::Summary;
use crate::load::{self, LoadPlan};
use crate::report::{Table, thousands};
use crate::stats::median;
use crate::system::api::Call;
use crate::system::victim::docker;
use crate::system::{Balancer, Options, Runtime};

/// Replicas that one `/add` starts.
const ADDED: usize = 4;
/// Marks the containers that are started here, to remove them whatever happens.
const LABEL: &str = "analysis.bench";
/// Look-ups of one measurement.
const LOOKUPS: usize = 2_000_000;
/// How long one container may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Measures everything and writes `bench.md`.
///
/// # Errors
/// When the balancer does not start or stop, or a file cannot be written. A missing Docker is no
/// error: it is said in the report.
pub(crate) async fn run(setup: &Setup, rounds: usize) -> anyhow::Result<()> {
    ensure!(rounds > 0, "--rounds must be at least 1");
    let mut text = String::new();
    for part in [
        requests(setup, rounds).await?,
        unread_log(setup, rounds).await?,
        docker_part(setup, rounds).await,
        lookups()?,
    ] {
        println!("{part}");
        text.push_str(&part);
        text.push('\n');
    }
    text.push_str(&setup.machine());
    setup.report.section("bench", &text)
}

/// 10,000 requests, all launched at once, against three process replicas.
async fn requests(setup: &Setup, rounds: usize) -> anyhow::Result<String> {
    let options = Options { runtime: Runtime::Process, ..setup.options(Variant::Ring, 3) };
    let balancer = Balancer::start(&options).await?;
    let heads = ["round", ">wall time", ">requests/s", ">p50", ">p99", ">slowest", ">failed"];
    let mut table = Table::new(&heads);
    let mut walls = Vec::new();
    for round in 1..=rounds {
        let ids = load::request_ids(setup.seed + round as u64 - 1, setup.requests);
        let plan = LoadPlan::get(&balancer.url("/home"), ids)?;
        let progress = load::progress_bar(&format!("round {round} of {rounds}"));
        let summary = Summary::of(&load::run(plan, &progress).await);
        progress.finish_and_clear();
        walls.push(summary.wall.as_secs_f64());
        let latency = |value: Duration| format!("{:.0} ms", value.as_secs_f64() * 1e3);
        table.row([
            round.to_string(),
            format!("{:.3} s", summary.wall.as_secs_f64()),
            thousands(summary.rate().round() as u64),
            latency(summary.latency.p50),
            latency(summary.latency.p99),
            latency(summary.latency.max),
            summary.failed().to_string(),
        ]);
    }
    balancer.stop().await?;
    let median = median(&walls).context("there was a round")?;
    Ok(format!(
        "### {} requests at once\n\n**{median:.3} s**, the median of {rounds} rounds: {0} requests \
         with random ids, all launched as async tasks, over at most 256 connections, against a \
         balancer with three process replicas (`ring`). Latency counts from the launch, so that it \
         is mostly the wait in that queue. Generator, balancer and replicas share the machine.\n\n{}",
        thousands(setup.requests as u64),
        table.markdown()
    ))
}

/// Requests with an access log that is read, and with one that is not, in turns.
async fn unread_log(setup: &Setup, rounds: usize) -> anyhow::Result<String> {
    let mut options = Options { runtime: Runtime::Process, ..setup.options(Variant::Ring, 3) };
    options.arguments.push("--access-log".to_owned());
    let balancer = Balancer::start(&options).await?;
    let output = balancer.output();
    let mut table = Table::new(&["round", ">read, requests/s", ">unread, requests/s", ">ratio"]);
    let mut ratios = Vec::new();
    for round in 1..=rounds {
        let mut rates = [0.0; 2];
        // Which comes first changes, so that neither has the warmer machine.
        let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        for unread in order {
            output.read(unread == 0);
            let ids = load::request_ids(setup.seed + round as u64 - 1, setup.requests);
            let plan = LoadPlan::get(&balancer.url("/home"), ids)?;
            let progress = load::progress_bar(&format!("access log, round {round} of {rounds}"));
            let summary = Summary::of(&load::run(plan, &progress).await);
            progress.finish_and_clear();
            ensure!(summary.failed() == 0, "{} requests failed", summary.failed());
            rates[unread] = summary.rate();
        }
        let ratio = rates[1] / rates[0];
        ratios.push(ratio);
        table.row([
            round.to_string(),
            thousands(rates[0].round() as u64),
            thousands(rates[1].round() as u64),
            format!("{ratio:.2}"),
        ]);
    }
    output.read(true);
    balancer.stop().await?;
    let median = median(&ratios).context("there was a round")?;
    Ok(format!(
        "### Access log that is not read\n\nThroughput with the access log in a pipe that is not \
         read, as a share of that in one that is read: **{median:.2}**, the median of {rounds} \
         rounds of {} requests each. Lines that do not fit are dropped and counted. The reader of \
         the pipe shares the machine.\n\n{}",
        thousands(setup.requests as u64),
        table.markdown()
    ))
}

/// `/add` of four replicas against one `docker run -d` and its readiness.
async fn docker_part(setup: &Setup, rounds: usize) -> String {
    let title = format!("### `/add` of {ADDED} replicas in Docker\n\n");
    if let Err(error) = docker(&["version", "--format", "{{.Server.Version}}"]).await {
        return format!("{title}Not measured: {error:#}.\n");
    }
    let measured = add_against_run(setup, rounds).await;
    // Whatever came of it, nothing of it stays.
    let cleaned = remove_labelled().await;
    match measured.and_then(|text| cleaned.map(|()| text)) {
        Ok(text) => format!("{title}{text}"),
        Err(error) => format!("{title}Not measured: {error:#}.\n"),
    }
}

async fn add_against_run(setup: &Setup, rounds: usize) -> anyhow::Result<String> {
    let options = Options { runtime: Runtime::Docker, ..setup.options(Variant::Ring, 1) };
    let balancer = Balancer::start(&options).await?;
    let heads = [
        "round",
        ">one `docker run -d`",
        ">and its readiness",
        ">four `docker run -d` at once",
        ">`/add` of four",
        ">ratio",
    ];
    let mut table = Table::new(&heads);
    let (mut ones, mut fours, mut adds, mut ratios) = (vec![], vec![], vec![], vec![]);
    for round in 1..=rounds {
        let (started, ready) = docker_run(&setup.image).await?;
        let four = docker_run_at_once(&setup.image).await?;
        let add = add(&balancer).await?;
        let ratio = add.as_secs_f64() / ready.as_secs_f64();
        ones.push(ready.as_secs_f64());
        fours.push(four.as_secs_f64());
        adds.push(add.as_secs_f64());
        ratios.push(ratio);
        table.row([
            round.to_string(),
            seconds(started),
            seconds(ready),
            seconds(four),
            seconds(add),
            format!("{ratio:.2}"),
        ]);
    }
    balancer.stop().await?;
    let of = |values: &[f64]| median(values).context("there was a round");
    Ok(format!(
        "**{:.2} times** one `docker run -d` and its readiness (medians: {:.3} s against {:.3} s; \
         at most 2 are wanted), in turns, {rounds} rounds. What the engine itself needs for four \
         `docker run -d` at once, without any readiness, is {:.3} s: {:.2} times. The readiness of \
         the single container is asked for every 5 ms at its own address, once `docker inspect` has \
         told it.\n\n{}",
        of(&ratios)?,
        of(&adds)?,
        of(&ones)?,
        of(&fours)?,
        of(&fours)? / of(&ones)?,
        table.markdown()
    ))
}

fn seconds(span: Duration) -> String {
    format!("{:.3} s", span.as_secs_f64())
}

/// Starts one container and removes it again. Gives how long `docker run -d` took, and how long it
/// was until the heartbeat was answered.
///
/// # Errors
/// When it does not start, or does not answer in time.
pub(crate) async fn docker_run(image: &str) -> anyhow::Result<(Duration, Duration)> {
    let (label, network) = (own_label(), own_network().await?);
    let begin = Instant::now();
    let id = docker(&["run", "-d", "--network", &network, "--label", &label, image]).await?;
    let started = begin.elapsed();
    let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let address = docker(&["inspect", "--format", format, &id]).await?;
    let url = format!("http://{address}:5000/heartbeat");
    let client = Client::builder().timeout(Duration::from_secs(1)).finish();
    let is_ready =
        async || client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success());
    while !is_ready().await {
        ensure!(begin.elapsed() < PATIENCE, "{url} is not answered after {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let ready = begin.elapsed();
    docker(&["rm", "--force", &id]).await?;
    Ok((started, ready))
}

/// Starts four containers side by side, as the command line does it, and removes them again. Gives
/// how long it was until the last had started.
async fn docker_run_at_once(image: &str) -> anyhow::Result<Duration> {
    let (label, network) = (own_label(), own_network().await?);
    let arguments = ["run", "-d", "--network", &network, "--label", &label, image];
    let begin = Instant::now();
    let ids = try_join_all((0..ADDED).map(|_| docker(&arguments))).await?;
    let took = begin.elapsed();
    for id in ids {
        docker(&["rm", "--force", &id]).await?;
    }
    Ok(took)
}

/// Adds four replicas and removes them again. Gives how long the adding took.
async fn add(balancer: &Balancer) -> anyhow::Result<Duration> {
    let body = format!(r#"{{"n":{ADDED}}}"#);
    let begin = Instant::now();
    let answer = balancer.api().call(&Call::json(Method::POST, "/add", &body)).await?;
    let took = begin.elapsed();
    answer.fleet().context("POST /add")?;
    let answer = balancer.api().call(&Call::json(Method::DELETE, "/rm", &body)).await?;
    answer.fleet().context("DELETE /rm")?;
    Ok(took)
}

/// Tells the containers and the network of this run from all others.
fn own_label() -> String {
    format!("{LABEL}={}", std::process::id())
}

/// Removes what a failure left.
///
/// # Errors
/// When the engine does not answer.
pub(crate) async fn remove_labelled() -> anyhow::Result<()> {
    let filter = format!("label={}", own_label());
    let left = docker(&["ps", "--all", "--quiet", "--filter", &filter]).await?;
    for id in left.split_whitespace() {
        docker(&["rm", "--force", id]).await?;
    }
    let left = docker(&["network", "ls", "--quiet", "--filter", &filter]).await?;
    for id in left.split_whitespace() {
        docker(&["network", "rm", id]).await?;
    }
    Ok(())
}

/// A bridge like that of the balancer's replicas, for this run's containers; made if it is absent.
async fn own_network() -> anyhow::Result<String> {
    let name = format!("analysis-{}", std::process::id());
    let (filter, label) = (format!("name=^{name}$"), own_label());
    if docker(&["network", "ls", "--quiet", "--filter", &filter]).await?.is_empty() {
        docker(&["network", "create", "--label", &label, &name]).await?;
    }
    Ok(name)
}

/// How long it takes to find the owner of a key.
fn lookups() -> anyhow::Result<String> {
    let keys: Vec<String> =
        load::request_ids(1, 4_096).into_iter().map(|id| id.to_string()).collect();
    let mut table = Table::new(&["placement", ">seats", ">ns per look-up", ">look-ups/s"]);
    for (variant, seats) in
        [(Variant::Ring, 3), (Variant::Ring, 100), (Variant::Ring, 1_000), (Variant::Classic, 3)]
    {
        let placement = variant.placement(seats)?;
        let mut times = Vec::new();
        for _ in 0..5 {
            let begin = Instant::now();
            for key in keys.iter().cycle().take(LOOKUPS) {
                black_box(placement.owners(black_box(key.as_bytes())).next());
            }
            times.push(begin.elapsed().as_secs_f64() / LOOKUPS as f64);
        }
        let time = median(&times).context("there were rounds")?;
        table.row([
            variant.title().to_owned(),
            seats.to_string(),
            format!("{:.1}", time * 1e9),
            thousands((1.0 / time).round() as u64),
        ]);
    }
    Ok(format!(
        "### Look-ups\n\nThe owner of a six-digit key, on one core; the median of 5 rounds of {} \
         look-ups.\n\n{}",
        thousands(LOOKUPS as u64),
        table.markdown()
    ))
}
