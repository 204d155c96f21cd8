//! F-1: POSTs that go to all of three replicas, one of which drops one in five of them. What the
//! chances and the pauses between attempts lead to is computed here a second time, and compared.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::ensure;
use awc::http::{Method, StatusCode};
use tokio::time::Instant;

use super::replicas::Replica;
use super::{Configured, Problems};
use crate::experiment::Setup;
use crate::load::{self, Failure, LoadPlan, Pace, Run, Sample};
use crate::stats::{Deviation, Latencies, Percentiles, SIGMAS};
use crate::system::api::{Api, Call};

/// How many replicas there are. The last one drops requests.
pub(super) const REPLICAS: u32 = 3;
/// The chance that it drops a POST.
const DROPPED: f64 = 0.2;
/// POSTs a second.
pub(super) const RATE: f64 = 200.0;
/// The pauses between attempts.
const BASE: Duration = Duration::from_millis(20);
const MAX: Duration = Duration::from_secs(1);
const JITTER: Duration = Duration::from_millis(5);
/// A route such as README's "accounts", quicker. Ejection is off: it would change nothing, since
/// ejected replicas get their requests, too.
pub(super) const CONFIG: &str = r#"[health]
interval = "1s"

[outliers]
consecutive = 0

[[route]]
name = "accounts"
methods = ["POST"]
paths = ["/register", "/changePassword"]
send = "all"
success = [201]
attempts = 100
backoff = { base = "20ms", max = "1s", jitter = "5ms" }
"#;
/// How many POSTs must be expected for a row of their own.
const EXPECTED_LEAST: f64 = 5.0;
/// How long the last words of the replicas may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What came of it.
#[derive(Clone, Debug)]
pub(super) struct All {
    pub(super) posts: Vec<Post>,
    /// One a replica.
    pub(super) replicas: Vec<Told>,
    pub(super) latency: Percentiles,
    /// The balancer's own counts of attempts that went well and that failed, where it has them.
    pub(super) counted: Option<(u64, u64)>,
}

/// What the client of one POST saw.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Post {
    pub(super) id: u32,
    pub(super) latency: Duration,
    /// Why it got no 201.
    pub(super) failure: Option<Failure>,
}

/// What one replica was asked and what it did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// How often each POST has come.
    pub(super) asked: BTreeMap<u32, u32>,
    /// How often it was carried out.
    pub(super) done: BTreeMap<u32, u32>,
}

/// The POSTs that the dropping replica was asked for so often.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Row {
    pub(super) attempts: u32,
    /// Or more often: the last row, since chances of a few are nothing to compare with.
    pub(super) or_more: bool,
    pub(super) requests: u64,
    pub(super) deviation: Deviation,
    /// What their pauses add up to, at least and, where it is bounded, at most.
    pub(super) pauses: (Duration, Option<Duration>),
    /// The shortest, the median and the longest of their latencies; none without requests.
    pub(super) latency: Option<(Duration, Duration, Duration)>,
}

/// Starts replicas and a balancer, sends the POSTs, and asks everybody what happened.
///
/// # Errors
/// When a replica, the balancer or the journal is not as it should be.
pub(super) async fn measure(setup: &Setup, posts: usize) -> anyhow::Result<All> {
    let mut replicas = Vec::new();
    for number in 1..=REPLICAS {
        let drops = (number == REPLICAS).then(|| "--skip-some-requests".to_owned());
        replicas.push(Replica::start(setup, number, drops.as_slice()).await?);
    }
    let configured = Configured::start(setup, CONFIG, &replicas).await?;
    let plan = LoadPlan {
        method: Method::POST,
        success: Some(StatusCode::CREATED),
        pace: Pace::PerSecond(RATE),
        ..LoadPlan::get(&configured.balancer.url("/register"), distinct_ids(setup.seed, posts))?
    };
    let ids = plan.ids.clone();
    let progress = load::progress_bar("to all");
    let run = load::run(plan, &progress).await;
    progress.finish_and_clear();
    let counted = counted(configured.balancer.api()).await?;
    let told = all_told(&replicas, posts).await?;
    configured.balancer.stop().await?;
    Ok(All::new(&ids, &run, told, counted))
}

/// What the replicas say, once they have told of all POSTs or will not any more.
async fn all_told(replicas: &[Replica], posts: usize) -> anyhow::Result<Vec<Told>> {
    let deadline = Instant::now() + PATIENCE;
    let is_missing = |replica: &Replica| replica.journal.entries().counts.len() < posts;
    while replicas.iter().any(is_missing) && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut told = Vec::new();
    for replica in replicas {
        let (entries, lost) = (replica.journal.entries(), replica.journal.dropped().unwrap_or(0));
        ensure!(lost == 0, "the journal lost {lost} entries, so that nothing is known");
        ensure!(entries.strange == 0, "{} entries of the journal have no id", entries.strange);
        told.push(Told { asked: replica.tap.asked(), done: entries.counts });
    }
    Ok(told)
}

/// Six-digit numbers that are all different, the same for the same seed.
fn distinct_ids(seed: u64, count: usize) -> Vec<u32> {
    let mut known = std::collections::BTreeSet::new();
    let many = load::request_ids(seed, 2 * count + 100).into_iter();
    many.filter(|id| known.insert(*id)).take(count).collect()
}

/// The balancer's own counts, where it has a page of them.
async fn counted(api: &Api) -> anyhow::Result<Option<(u64, u64)>> {
    let answer = api.call(&Call::new(Method::GET, "/metrics")).await?;
    if answer.status != 200 {
        return Ok(None);
    }
    let page = answer.text();
    let sum = |name| sum_of(&page, name);
    let good = sum("target_domain_success_counter_total");
    Ok(good.map(|good| (good, sum("target_domain_failed_counter_total").unwrap_or(0))))
}

/// The sum of a counter over its labels, from a page in Prometheus' text format.
fn sum_of(page: &str, name: &str) -> Option<u64> {
    let value = |line: &str| {
        let rest = line.strip_prefix(name)?;
        let value = rest.starts_with(['{', ' ']).then(|| rest.rsplit_once(' '))??.1;
        value.parse::<f64>().ok()
    };
    let values: Vec<f64> = page.lines().filter_map(value).collect();
    (!values.is_empty()).then(|| values.iter().sum::<f64>() as u64)
}

/// The chance of so many attempts: all of them but the last are dropped.
fn chance(attempts: u32) -> f64 {
    (1.0 - DROPPED) * DROPPED.powf(f64::from(attempts) - 1.0)
}

/// The number of attempts that this share of the requests, 0 to 1, does not exceed.
fn quantile(share: f64) -> u32 {
    let mut attempts = 1;
    while 1.0 - DROPPED.powf(f64::from(attempts)) < share {
        attempts += 1;
    }
    attempts
}

/// What the pauses between so many attempts add up to, at least and at most.
fn pauses(attempts: u32) -> (Duration, Duration) {
    let mut least = Duration::ZERO;
    let mut pause = BASE;
    for _ in 1..attempts {
        least += pause.min(MAX);
        pause = pause.saturating_mul(2);
    }
    (least, least + JITTER * (attempts.max(1) - 1))
}

/// What the pauses of a percentile add up to, at least and at most, in 95 of 100 runs with so many
/// POSTs.
pub(super) fn pauses_of_percentile(share: f64, posts: usize) -> (Duration, Duration) {
    let sigma = (share * (1.0 - share) / posts.max(1) as f64).sqrt();
    pauses_between(share - 2.0 * sigma, share + 2.0 * sigma)
}

/// The same of the slowest POST: none of the others takes more attempts.
pub(super) fn pauses_of_slowest(posts: usize) -> (Duration, Duration) {
    let each = |all: f64| all.powf(1.0 / posts.max(1) as f64);
    pauses_between(each(0.025), each(0.975))
}

fn pauses_between(least: f64, most: f64) -> (Duration, Duration) {
    // The number of attempts has no bound.
    (pauses(quantile(least)).0, pauses(quantile(most.min(1.0 - 1e-9))).1)
}

// === impl All ===

impl All {
    fn new(ids: &[u32], run: &Run, replicas: Vec<Told>, counted: Option<(u64, u64)>) -> Self {
        let post = |(id, sample): (&u32, &Sample)| Post {
            id: *id,
            latency: sample.latency(),
            failure: sample.outcome.as_ref().err().cloned(),
        };
        let posts: Vec<Post> = ids.iter().zip(&run.samples).map(post).collect();
        let good = posts.iter().filter(|post| post.failure.is_none());
        let latency = good.map(|post| post.latency).collect::<Latencies>().percentiles();
        Self { posts, replicas, latency, counted }
    }

    /// How often the dropping replica was asked for a POST.
    fn attempts(&self, id: u32) -> u32 {
        self.replicas.last().and_then(|told| told.asked.get(&id)).copied().unwrap_or(0)
    }

    /// How often a replica was asked in all.
    pub(super) fn asked(&self, replica: usize) -> u64 {
        self.replicas.get(replica).map_or(0, Told::all_asked)
    }

    /// The attempts that all POSTs are expected to take at the dropping replica, and its standard
    /// deviation: a negative binomial distribution.
    pub(super) fn expected(&self) -> (f64, f64) {
        let posts = self.posts.len() as f64;
        (posts / (1.0 - DROPPED), (posts * DROPPED).sqrt() / (1.0 - DROPPED))
    }

    /// One row for each number of attempts that some are expected to take, and one for the rest.
    pub(super) fn rows(&self) -> Vec<Row> {
        let posts = self.posts.len() as f64;
        let is_expected = |attempts: &u32| posts * chance(*attempts) >= EXPECTED_LEAST;
        let own = (1..).take_while(is_expected).last().unwrap_or(0);
        (1..=own)
            .map(|attempts| self.row(attempts, false))
            .chain([self.row(own + 1, true)])
            .collect()
    }

    fn row(&self, attempts: u32, or_more: bool) -> Row {
        let is_own = |post: &&Post| match self.attempts(post.id) {
            more if more > attempts => or_more,
            count => count == attempts,
        };
        let mut latencies: Vec<Duration> =
            self.posts.iter().filter(is_own).map(|post| post.latency).collect();
        latencies.sort_unstable();
        let latency = match latencies.as_slice() {
            [] => None,
            [.., longest] => Some((latencies[0], latencies[(latencies.len() - 1) / 2], *longest)),
        };
        let share =
            if or_more { DROPPED.powf(f64::from(attempts) - 1.0) } else { chance(attempts) };
        let (least, most) = pauses(attempts);
        let requests = latencies.len() as u64;
        Row {
            attempts,
            or_more,
            requests,
            deviation: Deviation::of(requests, self.posts.len() as u64, share),
            pauses: (least, (!or_more).then_some(most)),
            latency,
        }
    }

    /// POSTs without a 201, carried out twice or not at all, answered sooner than their pauses
    /// take, and drops that cannot be chance.
    pub(super) fn problems(&self) -> Problems {
        let mut problems = self.failures();
        for (number, told) in (1..).zip(&self.replicas) {
            problems.extend(told.problems(number, &self.posts));
        }
        problems.extend(self.hasty());
        problems.extend(self.strange_drops());
        problems.extend(self.miscounted());
        problems
    }

    fn failures(&self) -> Problems {
        let failures: Vec<&Failure> =
            self.posts.iter().filter_map(|post| post.failure.as_ref()).collect();
        match failures.first() {
            Some(first) => vec![format!(
                "to all: {} of {} clients got no 201; the first: {first}",
                failures.len(),
                self.posts.len()
            )],
            None => Problems::new(),
        }
    }

    /// A POST that was asked for so often cannot be done before its pauses are over.
    fn hasty(&self) -> Option<String> {
        let is_hasty = |post: &&Post| post.latency < pauses(self.attempts(post.id)).0;
        let count = self.posts.iter().filter(is_hasty).count();
        (count > 0).then(|| format!("to all: {count} POSTs were repeated sooner than they may be"))
    }

    fn strange_drops(&self) -> Option<String> {
        let (expected, sigma) = self.expected();
        let asked = self.asked(REPLICAS as usize - 1);
        let off = (asked as f64 - expected) / sigma;
        (off.abs() > SIGMAS).then(|| {
            format!(
                "to all: the dropping replica was asked {asked} times, not {expected:.0} ± \
                 {sigma:.1}: {off:+.1} standard deviations off (allowed: {SIGMAS})"
            )
        })
    }

    /// The balancer's own counts, where it has them, must be those of the taps.
    fn miscounted(&self) -> Option<String> {
        let (good, bad) = self.counted?;
        let asked: u64 = self.replicas.iter().map(Told::all_asked).sum();
        let done: u64 = self.replicas.iter().map(Told::all_done).sum();
        (good != done || good + bad != asked).then(|| {
            format!(
                "to all: the balancer counts {good} attempts that went well and {bad} that failed; \
                 its replicas were asked {asked} times and carried out {done}"
            )
        })
    }
}

// === impl Told ===

impl Told {
    pub(super) fn all_asked(&self) -> u64 {
        self.asked.values().map(|count| u64::from(*count)).sum()
    }

    pub(super) fn all_done(&self) -> u64 {
        self.done.values().map(|count| u64::from(*count)).sum()
    }

    fn problems(&self, number: u32, posts: &[Post]) -> Problems {
        let never = posts.iter().filter(|post| !self.done.contains_key(&post.id)).count();
        let again = self.done.values().filter(|count| **count > 1).count();
        let problem = |count, what| {
            (count > 0)
                .then(|| format!("to all: replica {number} carried out {count} POSTs {what}"))
        };
        [problem(never, "not at all"), problem(again, "more than once")]
            .into_iter()
            .flatten()
            .collect()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// What a balancer does that repeats as it should, with so many POSTs by attempts.
    pub(in super::super) fn ideal(by_attempts: &[u32]) -> All {
        let mut all =
            All { posts: vec![], replicas: vec![], latency: Percentiles::default(), counted: None };
        let (mut told, mut id) = (vec![Told::default(); REPLICAS as usize], 100_000);
        for (attempts, count) in (1..).zip(by_attempts) {
            for _ in 0..*count {
                id += 1;
                let latency = pauses(attempts).0 + ms(1);
                all.posts.push(Post { id, latency, failure: None });
                for (number, told) in (1..).zip(&mut told) {
                    told.asked.insert(id, if number == REPLICAS { attempts } else { 1 });
                    told.done.insert(id, 1);
                }
            }
        }
        all.latency =
            all.posts.iter().map(|post| post.latency).collect::<Latencies>().percentiles();
        All { replicas: told, ..all }
    }

    #[test]
    fn the_chances_of_all_numbers_of_attempts_add_up() {
        assert!((chance(1) - 0.8).abs() < 1e-12 && (chance(3) - 0.032).abs() < 1e-12);
        assert!(((1..60).map(chance).sum::<f64>() - 1.0).abs() < 1e-12);
        for (share, attempts) in [(0.5, 1), (0.79, 1), (0.9, 2), (0.99, 3), (0.999, 5)] {
            assert_eq!(quantile(share), attempts, "{share}");
        }
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let least: Vec<u128> = (1..=9).map(|attempts| pauses(attempts).0.as_millis()).collect();
        assert_eq!(least, [0, 20, 60, 140, 300, 620, 1_260, 2_260, 3_260]);
        assert_eq!(pauses(3), (ms(60), ms(70)));
        assert_eq!(pauses(1), (ms(0), ms(0)));
    }

    #[test]
    fn a_percentile_near_an_edge_may_fall_on_either_side() {
        // Of 1,000 POSTs 8 are expected to take more than three attempts, and p99 is the tenth.
        assert_eq!(pauses_of_percentile(0.99, 1_000), (ms(60), ms(155)));
        assert_eq!(pauses_of_percentile(0.99, 1_000_000), (ms(60), ms(70)));
        assert_eq!(pauses_of_percentile(0.9, 1_000), (ms(20), ms(25)));
        assert_eq!(pauses_of_percentile(0.5, 1_000), (ms(0), ms(0)));
        // 0.9984 to the power of 1,000 is 0.2, and 0.9999872 is 0.987: four to seven attempts.
        assert_eq!(pauses_of_slowest(1_000), (ms(140), ms(1_290)));
    }

    #[test]
    fn the_configuration_is_a_good_one_with_these_pauses() {
        let format = |span| humantime::format_duration(span).to_string();
        for (name, span) in [("base", BASE), ("max", MAX), ("jitter", JITTER)] {
            let words = format!("{name} = \"{}\"", format(span));
            assert!(CONFIG.contains(&words), "{words}");
        }
    }

    #[test]
    fn what_is_as_expected_is_no_problem() {
        let all = ideal(&[800, 160, 32, 6, 2]);
        assert_eq!(all.problems(), Problems::new());
        assert_eq!((all.asked(0), all.asked(2)), (1_000, 1_250));
        let rows = all.rows();
        assert_eq!((rows.len(), rows[4].or_more, rows[3].or_more), (5, true, false));
        assert_eq!((rows[4].requests, rows[4].pauses), (2, (ms(300), None)));
        assert!((rows[4].deviation.expected - 1.6).abs() < 1e-9);
        assert_eq!((rows[1].requests, rows[1].deviation.expected.round()), (160, 160.0));
        assert_eq!(rows[1].latency, Some((ms(21), ms(21), ms(21))));
    }

    #[test]
    fn every_kind_of_harm_is_a_problem() {
        let good = ideal(&[800, 160, 32, 6, 2]);
        let id = good.posts[0].id;
        let problem = |harm: &dyn Fn(&mut All)| {
            let mut all = good.clone();
            harm(&mut all);
            let problems = all.problems();
            assert_eq!(problems.len(), 1, "{problems:?}");
            problems[0].clone()
        };
        let failed = problem(&|all| all.posts[0].failure = Some(Failure::Status(502)));
        assert!(failed.contains("1 of 1000 clients got no 201; the first: status 502"), "{failed}");
        let never = problem(&|all| all.replicas[1].done.retain(|known, _| *known != id));
        assert!(never.contains("replica 2 carried out 1 POSTs not at all"), "{never}");
        let twice = problem(&|all| all.replicas[2].done.extend([(id, 2)]));
        assert!(twice.contains("replica 3 carried out 1 POSTs more than once"), "{twice}");
        let hasty = problem(&|all| all.posts[999].latency = ms(299));
        assert!(hasty.contains("1 POSTs were repeated sooner"), "{hasty}");
        let counted = problem(&|all| all.counted = Some((3_000, 249)));
        assert!(counted.contains("counts 3000 attempts that went well and 249"), "{counted}");
        let drops = ideal(&[700, 200, 60, 30, 10]).problems();
        assert!(drops[0].contains("standard deviations off"), "{drops:?}");
    }

    #[test]
    fn counts_are_summed_over_their_labels() {
        let page = "# HELP good_total x\n# TYPE good_total counter\n\
                    good_total{domain=\"a:1\"} 40\ngood_total{domain=\"b:2\"} 2\n\
                    good_total_more 7\nbad_total 5\n";
        assert_eq!((sum_of(page, "good_total"), sum_of(page, "bad_total")), (Some(42), Some(5)));
        assert_eq!(sum_of(page, "none"), None);
    }

    #[test]
    fn ids_are_all_different() {
        let ids = distinct_ids(1, 100_000);
        assert_eq!(ids.len(), 100_000);
        assert_eq!(ids.iter().collect::<std::collections::BTreeSet<_>>().len(), 100_000);
        assert_eq!(ids, distinct_ids(1, 100_000));
    }
}
