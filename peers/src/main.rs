//! `peers`: look-ups, builds and memory of the balancer's placements and of other crates, side by
//! side. Prints Markdown, and asserts nothing.

mod tables;

use std::hint::black_box;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Parser;
use peers::contestants::{self, Contestant, Placed};
use peers::fleet::{Fleet, Length, keys};
use peers::turns::{Times, in_turns, median, timed};
use tables::{Figures, Held};

/// The balancer's placements beside other crates that do the same, in turns
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Rounds, of which the median counts
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Nodes; may be given several times
    #[arg(long = "nodes", value_name = "N", default_values_t = [10, 100, 1_000, 10_000])]
    counts: Vec<u32>,
    /// So long one contestant looks keys up in a round, about
    #[arg(long, default_value_t = 20, value_name = "MILLISECONDS")]
    turn: u64,
    /// Only those whose name has this in it, and the first; may be given several times
    #[arg(long = "only", value_name = "TEXT")]
    only: Vec<String>,
    /// Where the tables go, too
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Who takes longer for one build is not asked again, nor is who would if its time grew by the square
/// of the nodes.
const PATIENCE: Duration = Duration::from_secs(30);
/// Keys that tell how many fit into a turn.
const TRIED: usize = 64;
/// Nodes, and times all keys, for how even the shares are.
const SHARED: u32 = 100;
const SHARED_ROUNDS: usize = 16;

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    ensure!(arguments.rounds > 0, "--rounds must be at least 1");
    ensure!(
        arguments.counts.iter().all(|count| (2..=50_000).contains(count)),
        "--nodes must be from 2 to 50000"
    );
    let mut contestants = contestants::all();
    let asked = |name: &str| arguments.only.iter().any(|text| name.contains(text));
    let mut first = true;
    contestants
        .retain(|it| std::mem::take(&mut first) || arguments.only.is_empty() || asked(it.name()));
    let mut all: Vec<Figures> = Vec::new();
    for count in &arguments.counts {
        let figures = measured(&contestants, *count, all.last(), &arguments)?;
        all.push(figures);
    }
    let names: Vec<_> = contestants.iter().map(|it| (it.name(), it.kind())).collect();
    let text = tables::page(&names, &evenness(&contestants), &all, arguments.rounds);
    println!("{text}");
    if let Some(path) = &arguments.out {
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn measured(
    contestants: &[Box<dyn Contestant>],
    count: u32,
    fewer: Option<&Figures>,
    arguments: &Arguments,
) -> anyhow::Result<Figures> {
    let fleet = Fleet::new(count);
    let turn = Duration::from_millis(arguments.turn);
    let hopeless = |one: usize| {
        let Some(fewer) = fewer else { return false };
        let growth = count.div_ceil(fewer.count).pow(2);
        median(&fewer.build[one]).is_none_or(|time| time * growth > PATIENCE)
    };
    eprintln!("{count} nodes: builds");
    let build = in_turns(arguments.rounds, contestants.len(), PATIENCE, |one| {
        if hopeless(one) {
            return None;
        }
        let (placed, took) = timed(|| contestants[one].build(&fleet));
        placed.map(|_| took)
    });
    let placed: Vec<_> = contestants
        .iter()
        .zip(&build)
        .map(|(contestant, times)| times[0].and_then(|_| contestant.build(&fleet)))
        .collect();
    let look_up = |length| {
        eprintln!("{count} nodes: look-ups of {length:?} keys");
        look_ups(&placed, &keys(length), arguments.rounds, turn)
    };
    let (short, long) = (look_up(Length::Short), look_up(Length::Long));
    let held = contestants
        .iter()
        .zip(&placed)
        .map(|(contestant, placed)| match placed {
            Some(_) => held(contestant.name(), count),
            None => Ok(None),
        })
        .collect::<Result<_, _>>()?;
    Ok(Figures { count, build, short, long, held })
}

/// How long a thousand look-ups take: nanoseconds are too coarse for one.
fn look_ups(
    placed: &[Option<Box<dyn Placed + '_>>],
    keys: &[String],
    rounds: usize,
    turn: Duration,
) -> Vec<Times> {
    // So many keys, and all of them so often, as fit into a turn.
    let fitting: Vec<(usize, u32)> = placed
        .iter()
        .map(|placed| {
            let Some(placed) = placed else { return (0, 0) };
            let (_, took) = timed(|| black_box(placed.sum(&keys[..TRIED])));
            let fit = turn.as_secs_f64() / took.as_secs_f64().max(1e-9) * TRIED as f64;
            let some = (fit as usize).clamp(1, keys.len());
            (some, (fit / keys.len() as f64).ceil().max(1.0) as u32)
        })
        .collect();
    in_turns(rounds, placed.len(), Duration::MAX, |one| {
        let placed = placed[one].as_ref()?;
        let (some, times) = fitting[one];
        let mine = &keys[..some];
        let (_, took) = timed(|| {
            for _ in 0..times {
                black_box(placed.sum(black_box(mine)));
            }
        });
        Some(took * 1_000 / times / u32::try_from(some).unwrap_or(u32::MAX))
    })
}

/// The busiest node's keys, as a multiple of the average, for each contestant.
fn evenness(contestants: &[Box<dyn Contestant>]) -> Vec<Option<f64>> {
    let (fleet, keys) = (Fleet::new(SHARED), keys(Length::Short));
    let keys: Vec<String> = (0..SHARED_ROUNDS)
        .flat_map(|round| keys.iter().map(move |key| format!("{key}/{round}")))
        .collect();
    contestants
        .iter()
        .map(|contestant| {
            let placed = contestant.build(&fleet)?;
            let mut counts = vec![0_u64; SHARED as usize];
            placed.look_up(&keys, &mut |owner| counts[owner as usize] += 1);
            let busiest = counts.iter().max().copied()?;
            Some(busiest as f64 * f64::from(SHARED) / keys.len() as f64)
        })
        .collect()
}

/// What one holds, as the other program counts it.
fn held(name: &str, count: u32) -> anyhow::Result<Option<Held>> {
    let program = std::env::current_exe()?.with_file_name("memory");
    let output = Command::new(&program)
        .args([name, &count.to_string()])
        .output()
        .with_context(|| format!("cannot run {}", program.display()))?;
    ensure!(output.status.success(), "{}: {name}: {}", program.display(), output.status);
    let text = String::from_utf8(output.stdout)?;
    if text.trim() == "-" {
        return Ok(None);
    }
    let (held, most) = text.trim().split_once(' ').context("two numbers are said")?;
    Ok(Some(Held { after: held.parse()?, most: most.parse()? }))
}
