//! `analysis chaos`: the real balancer under load, with one fault after the other, and what must
//! hold all the same.
//!
//! ```text
//! plan      how the balancer is started and what is sent to it
//! schedule  seed → what is done when and to whom                    pure
//! inject    carries it out: the balancer, the engine, /add and /rm
//! faults    carries it out: replicas, each followed until it is over
//! replicas  who is there, by the kernel or the engine
//! watch     /rep, /admin/fleet, /admin/events, memory, all the time
//! journal   which POSTs replicas carried out, told by datagrams
//! measure   what each fault cost                                    pure
//! judge     what must hold                                          pure
//! page      the report
//! ```

mod faults;
mod inject;
pub(crate) mod journal;
mod judge;
mod measure;
mod page;
mod plan;
mod replicas;
mod schedule;
pub(crate) mod watch;

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use awc::http::Method;
use indicatif::ProgressBar;
use tokio::task::JoinHandle;

use crate::experiment::{Problems, Setup};
use crate::load::{self, LoadPlan, Run};
use crate::system::api::Call;
use crate::system::victim::docker;
use crate::system::{Balancer, Runtime};
use faults::{Fault, PATIENCE, World};
use inject::Injector;
use journal::Journal;
use judge::{Check, Ending, Posts, Settled, Verdict};
use measure::{Failed, Row, Seen, failures};
use page::Page;
use plan::{Abilities, FIRST_POST};
pub(crate) use plan::{Plan, has_flag};
use replicas::Place;
use schedule::Step;
use watch::{Known, Memory, Watch};

/// What came of a run, judged.
struct Outcome {
    faults: Vec<Fault>,
    excused: Vec<(Duration, Duration)>,
    gets_sent: usize,
    gets: Vec<Failed>,
    posts: Vec<Failed>,
    checks: Vec<Check>,
    rows: Vec<Row>,
    events: Known,
}

/// All that was seen.
struct Evidence {
    world: Rc<World>,
    journal: Journal,
    gets: Run,
    posts: Run,
    post_ids: Vec<u32>,
    left_out: usize,
    settled: Settled,
    /// Of the balancer while it was not told to stop.
    memory: Vec<Memory>,
    ending: Ending,
}

/// Removes what is left of a pool, however the run ends.
struct Cleaner {
    pool: String,
}

/// How long the fleet may take to settle, once no replica suffers any more.
const SETTLE: Duration = Duration::from_secs(60);
/// The id of the POST that tries the journal out.
const TRIAL: u32 = FIRST_POST - 1;
/// How long a hung replica is left to the balancer, from its hanging.
const HANG: Duration = Duration::from_secs(25);
/// Prints the schedule and does nothing.
pub(crate) fn dry_run(setup_runtime: Runtime, seed: u64, plan: &Plan) {
    let mut at = Duration::ZERO;
    for step in plan.steps(setup_runtime, seed, Abilities::ALL) {
        at += step.pause;
        println!("{:8.3} s  {step}", at.as_secs_f64());
    }
}

/// Does it, judges, and writes the report.
///
/// # Errors
/// When the balancer does not start, ends by itself, or a file cannot be written.
pub(crate) async fn run(setup: &Setup, plan: &Plan) -> anyhow::Result<Problems> {
    let abilities = Abilities::of(&setup.balancer)?;
    if plan.spares > 0 && !abilities.spares {
        println!("this balancer has no --spares: it runs without");
    }
    let plan = Plan { spares: if abilities.spares { plan.spares } else { 0 }, ..plan.clone() };
    let outcome = suffer(setup, &plan, abilities).await?;
    for check in &outcome.checks {
        println!("{:<10} {}: {}", check.verdict.word(), check.what, check.detail);
    }
    Page { setup, plan: &plan, abilities, outcome: &outcome }.write()?;
    let failed = outcome.checks.iter().filter(|check| check.verdict == Verdict::Fail);
    Ok(failed.map(|check| format!("{}: {}", check.what, check.detail)).collect())
}

async fn suffer(setup: &Setup, plan: &Plan, abilities: Abilities) -> anyhow::Result<Outcome> {
    let (journal, address) = open_journal(setup.runtime, &plan.network).await?;
    let balancer = Balancer::start(&plan.options(setup, abilities, &address)).await?;
    // Dropped after the balancer, which may yet stop its containers by itself.
    let _cleaner =
        (setup.runtime == Runtime::Docker).then(|| Cleaner { pool: balancer.pool().to_owned() });
    let place = match setup.runtime {
        Runtime::Process => Place::Processes { journal: address.clone() },
        Runtime::Docker => {
            Place::Containers { pool: balancer.pool().to_owned(), network: plan.network.clone() }
        }
    };
    let replicas = plan.replicas as usize;
    let (watch, _watching) = Watch::begin(balancer.address(), balancer.pid()?, replicas);
    // Only a process that began as a spare does not know its seat.
    let asks_for_seats = setup.runtime == Runtime::Process && plan.spares > 0;
    let world = World::new(place, Rc::clone(&watch), asks_for_seats, HANG);
    let mut injector = Injector {
        world: Rc::clone(&world),
        balancer,
        runtime: setup.runtime,
        replicas,
        restart_engine: plan.restart_engine.clone(),
        command: Plan::command(setup).into(),
    };
    ensure!(watch.is_full_within(SETTLE).await, "the fleet is not whole at the beginning");
    try_out(&journal, &address, &injector.balancer).await?;

    let (gets, posts) = plan.loads(setup, &injector.balancer)?;
    let post_ids = posts.ids.clone();
    let (gets, posts) = (launch(gets, true), launch(posts, false));
    let steps = plan.steps(setup.runtime, setup.seed, abilities);
    let left_out = inject_all(&mut injector, &steps, plan).await?;
    let gets = gets.await.context("the load ended early")?;
    let posts = posts.await.context("the load ended early")?;
    world.is_calm_within(PATIENCE).await;
    let settled = settle(&injector, plan.spares as usize).await;
    let memory = watch.memory();
    ensure!(injector.balancer.runs(), "the balancer ended:\n{}", injector.balancer.last_lines());
    let complaint = injector.balancer.stop().await.err().map(|error| format!("{error:#}"));
    let ending = Ending { complaint, left: world.place.all().await?.len() };
    let evidence =
        Evidence { world, journal, gets, posts, post_ids, left_out, settled, memory, ending };
    Ok(evidence.judge(abilities))
}

/// One step after the other while there is time. Gives how many were left out.
async fn inject_all(injector: &mut Injector, steps: &[Step], plan: &Plan) -> anyhow::Result<usize> {
    let begin = Instant::now();
    for (index, step) in steps.iter().enumerate() {
        tokio::time::sleep(step.pause).await;
        if begin.elapsed() > plan.faults_until() {
            return Ok(steps.len() - index);
        }
        let runs = injector.balancer.runs();
        ensure!(runs, "the balancer ended by itself:\n{}", injector.balancer.last_lines());
        println!("{:8.3} s  {step}", begin.elapsed().as_secs_f64());
        injector.inject(step).await;
    }
    Ok(0)
}

fn launch(plan: LoadPlan, shown: bool) -> JoinHandle<Run> {
    let progress = if shown { load::progress_bar("requests") } else { ProgressBar::hidden() };
    tokio::task::spawn_local(async move {
        let run = load::run(plan, &progress).await;
        progress.finish_and_clear();
        run
    })
}

/// Looks at the fleet until it is as it should be, or time is up.
async fn settle(injector: &Injector, spares: usize) -> Settled {
    let begin = Instant::now();
    loop {
        let settled = Settled {
            asked: injector.world.watch.asked(),
            spares,
            listed: injector.balancer.api().replicas().await.ok(),
            found: injector.world.all().await.unwrap_or_default(),
            after: begin.elapsed(),
        };
        if settled.is_well() || begin.elapsed() > SETTLE {
            return settled;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// One POST to begin with: what replicas tell must be heard.
///
/// # Errors
/// When it is not.
async fn try_out(journal: &Journal, address: &str, balancer: &Balancer) -> anyhow::Result<()> {
    let call = Call::new(Method::POST, "/register").header("x-request-id", &TRIAL.to_string());
    let answer = balancer.api().call(&call).await?;
    ensure!(answer.status == 201, "POST /register: status {}", answer.status);
    let begin = Instant::now();
    while !journal.entries().counts.contains_key(&TRIAL) {
        ensure!(
            begin.elapsed() < Duration::from_secs(2),
            "replicas do not reach the journal at {address}, or do not know SERVER_JOURNAL"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// The journal, and its address as replicas know it.
async fn open_journal(runtime: Runtime, network: &str) -> anyhow::Result<(Journal, String)> {
    match runtime {
        Runtime::Process => {
            let journal = Journal::open(Ipv4Addr::LOCALHOST.into())?;
            let address = format!("{}:{}", Ipv4Addr::LOCALHOST, journal.port());
            Ok((journal, address))
        }
        Runtime::Docker => {
            let format = "{{(index .IPAM.Config 0).Gateway}}";
            let inspect = ["network", "inspect", "--format", format, network];
            let gateway = match docker(&inspect).await {
                Ok(gateway) => gateway,
                Err(_) => {
                    docker(&["network", "create", network]).await?;
                    docker(&inspect).await?
                }
            };
            let gateway: IpAddr =
                gateway.parse().with_context(|| format!("{network} has no gateway"))?;
            let journal = Journal::open(Ipv4Addr::UNSPECIFIED.into())?;
            let address = format!("{gateway}:{}", journal.port());
            Ok((journal, address))
        }
    }
}

// === impl Evidence ===

impl Evidence {
    fn judge(self, abilities: Abilities) -> Outcome {
        let watch = &self.world.watch;
        let (faults, excused) = (self.world.faults(), self.world.excused());
        let of = |run: &Run| failures(run, run.start.saturating_duration_since(watch.start));
        let (gets, posts) = (of(&self.gets), of(&self.posts));
        let gets_sent = self.gets.samples.len();
        let mut checks = self.settled.checks();
        checks.push(judge::gets(gets_sent, &gets, &excused));
        checks.extend(self.posted().checks());
        checks.push(judge::memory(&self.memory));
        checks.push(judge::hangs(&faults, abilities.replaces_hung));
        checks.push(judge::carried_out(&faults, self.left_out));
        checks.push(self.ending.check());
        let (looks, events, retries) = (watch.looks(), watch.events(), watch.retries());
        let seen = Seen {
            faults: &faults,
            looks: &looks,
            events: &events,
            retries: &retries,
            excused: &excused,
            gets: &gets,
            posts: &posts,
        };
        let rows = seen.rows();
        Outcome {
            faults,
            excused,
            gets_sent,
            gets,
            posts,
            checks,
            rows,
            events: watch.has_events(),
        }
    }

    fn posted(&self) -> Posts {
        let mut entries = self.journal.entries();
        entries.counts.remove(&TRIAL);
        let answered = self.posts.samples.iter().zip(&self.post_ids);
        let answered = answered.filter(|(sample, _)| sample.outcome.is_ok());
        Posts {
            sent: self.post_ids.len(),
            answered: answered.map(|(_, id)| *id).collect(),
            entries,
            dropped: self.journal.dropped(),
        }
    }
}

// === impl Cleaner ===

impl Drop for Cleaner {
    fn drop(&mut self) {
        let filter = format!("label=balancer.pool={}", self.pool);
        let listed =
            Command::new("docker").args(["ps", "--all", "--quiet", "--filter", &filter]).output();
        let listed = listed.map(|output| output.stdout).unwrap_or_default();
        let listed = String::from_utf8_lossy(&listed);
        let ids: Vec<&str> = listed.split_whitespace().collect();
        if !ids.is_empty() {
            let _ = Command::new("docker").args(["rm", "--force"]).args(ids).output();
        }
        let filter = format!("label=balancer.lease={}", self.pool);
        let listed =
            Command::new("docker").args(["volume", "ls", "--quiet", "--filter", &filter]).output();
        let listed = listed.map(|output| output.stdout).unwrap_or_default();
        let listed = String::from_utf8_lossy(&listed);
        let names: Vec<&str> = listed.split_whitespace().collect();
        if !names.is_empty() {
            let _ = Command::new("docker").args(["volume", "rm"]).args(names).output();
        }
    }
}
