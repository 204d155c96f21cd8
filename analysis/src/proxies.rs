//! `analysis proxies`: nginx, HAProxy and the balancer at the same work, in turns. Prints, writes
//! `proxies.md` and `proxies.csv`, and asserts nothing.
//!
//! ```text
//! work     what is asked of every proxy; the script for wrk
//! proxy    the proxies, their settings, the replicas
//! tools    which programs are there
//! process  a program on one processor, ended whatever happens
//! procfs   time and memory of a process
//! client   a connection that is kept open
//! wrk      the load generator
//! run      one run: start, load, read what it cost
//! page     medians, ratios, aims: pure
//! ```

mod client;
mod page;
mod process;
pub(crate) mod procfs;
mod proxy;
mod run;
mod tools;
mod work;
mod wrk;

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::experiment::Setup;
use page::Page;
pub(crate) use proxy::Proxy;
use proxy::Replicas;
use run::{Bench, Results};
use tools::Tools;
pub(crate) use work::Work;

/// What is run, and how often.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    /// Of one run.
    pub(crate) seconds: u64,
    pub(crate) works: Vec<Work>,
    pub(crate) proxies: Vec<Proxy>,
}

/// Measures what can be measured on this machine, and writes the section.
///
/// # Errors
/// When the balancer or the replicas cannot be started at all, or a file cannot be written. A
/// missing program, a failed run or a missed aim is no error: it is said in the report.
pub(crate) async fn run(setup: &Setup, plan: &Plan) -> anyhow::Result<()> {
    let tools = Tools::find(&setup.balancer);
    let processors = procfs::processors()?;
    let mut notes = tools.missing();
    if processors.len() < 2 {
        notes.push("Nothing is measured: it takes two processors.".to_owned());
    }
    let mut text = String::new();
    for note in &notes {
        text.push_str(&format!("**{note}**\n\n"));
    }
    if let (Some(nginx), true, [first, second, ..]) =
        (&tools.nginx, tools.taskset.is_some(), &processors[..])
    {
        raise_file_limit()?;
        let plan = possible(plan, &tools);
        let mut versions = Vec::new();
        for proxy in &plan.proxies {
            versions.push(tools.version(*proxy).await?);
        }
        let folder = tempfile::tempdir().context("no temporary folder")?;
        let own = folder.path().join("replicas");
        std::fs::create_dir(&own).with_context(|| format!("cannot make {}", own.display()))?;
        let replicas = Replicas::start(nginx, *second, &own).await?;
        let bench = Bench {
            tools: &tools,
            replicas: &replicas,
            folder: folder.path(),
            proxy_processor: *first,
            load_processor: *second,
            seconds: plan.seconds,
        };
        let results = measure(&bench, &plan).await;
        setup.report.csv("proxies.csv", &page::rows(&results.loads))?;
        text.push_str(&Page { plan: &plan, results: &results, versions: &versions }.text());
        text.push('\n');
    }
    text.push_str(&setup.machine());
    println!("{text}");
    setup.report.section("proxies", &text)
}

/// What is left of the plan with the programs that there are.
fn possible(plan: &Plan, tools: &Tools) -> Plan {
    let mut plan = plan.clone();
    plan.proxies.retain(|proxy| tools.proxy(*proxy).is_some());
    plan.works.retain(|work| tools.wrk.is_some() || work.load().is_none());
    plan
}

/// Every work on every proxy in every round. The proxies take turns at each work, so that what
/// happens on the machine meanwhile meets all of them; and who begins changes from round to round.
async fn measure(bench: &Bench<'_>, plan: &Plan) -> Results {
    let mut results = Results::default();
    for round in 1..=plan.rounds {
        let mut turns = plan.proxies.clone();
        if !turns.is_empty() {
            let length = turns.len();
            turns.rotate_left((round - 1) % length);
        }
        for work in &plan.works {
            for proxy in &turns {
                match work {
                    Work::Idle => results.idles.push(bench.idle(*proxy, round).await),
                    // Once, after the rounds.
                    Work::Million => {}
                    Work::Get1
                    | Work::Get64
                    | Work::Get512
                    | Work::Answer10k
                    | Work::Answer1m
                    | Work::Upload64k
                    | Work::Close => results.loads.push(bench.load(*work, *proxy, round).await),
                }
            }
        }
    }
    if plan.works.contains(&Work::Million) && plan.proxies.contains(&Proxy::Balancer) {
        results.million = Some(bench.million().await.map_err(|error| format!("{error:#}")));
    }
    results
}

/// Lets this program, and what it starts, open as many files as it may.
fn raise_file_limit() -> anyhow::Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
        .context("cannot raise the limit of open files")
}
