//! `analysis heal`: how soon the fleet is whole again after deaths, how many requests that costs,
//! and what 200 and 1,000 replicas cost when nothing happens.

mod few;
mod listed;
mod many;
mod page;
mod tick;

use crate::bench;
use crate::chaos::has_flag;
use crate::experiment::{Problems, Setup};
use crate::system::Runtime;
use few::{Healed, Round};
use page::Page;

/// What is measured.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Where one of three is killed.
    pub(crate) runtimes: Vec<Runtime>,
    /// Of which the medians count.
    pub(crate) rounds: usize,
    /// Of the fleet that is large.
    pub(crate) many: u32,
}

/// Measures, prints, and writes `heal.md` and `heal.csv`.
///
/// # Errors
/// When a balancer does not start or stop, the fleet is not whole again in time, or a file cannot
/// be written.
pub(crate) async fn run(setup: &Setup, plan: &Plan) -> anyhow::Result<Problems> {
    let has_spares = has_flag(&setup.balancer, "--spares")?;
    let mut rounds = Vec::new();
    for number in 1..=plan.rounds {
        for runtime in &plan.runtimes {
            let setup = Setup { runtime: *runtime, ..setup.clone() };
            let seed = setup.seed + number as u64;
            let healed = few::one_of_three(&setup, 0, seed).await?;
            let spared = match has_spares {
                true => Some(few::one_of_three(&setup, 1, seed).await?),
                false => None,
            };
            let bare = match runtime {
                Runtime::Docker => Some(bare(&setup.image).await?),
                Runtime::Process => None,
            };
            let round = Round { number, runtime: *runtime, healed, spared, bare };
            println!("{round}");
            rounds.push(round);
        }
    }
    let many = match plan.many {
        0 => None,
        count => Some(many::measure(setup, count).await?),
    };
    let thousand =
        page::Thousand { probes: listed::measure(&setup.balancer).await?, tick: tick::measure()? };
    let many = many.as_ref();
    let page = Page { setup, plan, rounds: &rounds, many, thousand, has_spares };
    println!("{}", page.text());
    page.write()?;
    Ok(problems(&rounds))
}

/// One container, started by hand, until it answers.
async fn bare(image: &str) -> anyhow::Result<std::time::Duration> {
    let measured = bench::docker_run(image).await;
    bench::remove_labelled().await?;
    measured.map(|(_, ready)| ready)
}

/// No GET may fail because one replica dies.
fn problems(rounds: &[Round]) -> Problems {
    let all = rounds.iter().flat_map(|round| {
        let of = |healed: Healed, what| (round.number, round.runtime, healed, what);
        [Some(of(round.healed, "")), round.spared.map(|healed| of(healed, " with a spare"))]
    });
    all.flatten()
        .filter(|(_, _, healed, _)| healed.failed > 0)
        .map(|(number, runtime, healed, what)| {
            format!(
                "{} of {} GETs failed in round {number} of {}{what}",
                healed.failed,
                healed.sent,
                runtime.name()
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_failed_get_is_a_problem_with_a_spare_and_without() {
        let healed = |failed| Healed {
            sent: 10,
            failed,
            out: Duration::ZERO,
            from_event: None,
            full: Duration::ZERO,
        };
        let round = |failed, spared: Option<usize>| Round {
            number: 1,
            runtime: Runtime::Process,
            healed: healed(failed),
            spared: spared.map(healed),
            bare: None,
        };
        assert_eq!(problems(&[round(0, None), round(0, Some(0))]), Vec::<String>::new());
        let found = problems(&[round(2, Some(1))]);
        assert_eq!(found[0], "2 of 10 GETs failed in round 1 of process");
        assert_eq!(found[1], "1 of 10 GETs failed in round 1 of process with a spare");
    }
}
