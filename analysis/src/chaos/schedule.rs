//! What is done when, and to whom: drawn from a seed, so that a run can be repeated. Pure.

use std::fmt;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use crate::system::Runtime;

/// A way to hurt the fleet, or to change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// SIGKILL of one replica or two.
    Kill,
    /// Hung, and left so until the balancer replaces it.
    Hang,
    /// Hung for a few seconds.
    HangBriefly,
    /// `docker stop`, or SIGTERM.
    Stop,
    /// `docker rm -f`.
    Remove,
    /// Killed again as soon as it is back, five times.
    ExitLoop,
    /// Off its network for a few seconds.
    Disconnect,
    /// SIGKILL of the balancer, started again at once.
    Balancer,
    /// A restart of the Docker daemon.
    Engine,
    /// A second balancer of the pool starts, and stops again.
    Member,
    /// The balancer's output is not read for a while.
    Unread,
    /// `/add` of one.
    Add,
    /// `/rm` of one, by its name.
    Shrink,
    /// A release that does not work is rolled out, then corrected by another rollout.
    Rollout,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// After the step before was done.
    pub(crate) pause: Duration,
    pub(crate) kind: Kind,
    /// Whom it hits; none for what hits no replica.
    pub(crate) seats: Vec<u32>,
    /// How long it lasts, where it is undone.
    pub(crate) lasts: Duration,
}

/// What a schedule is drawn for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draw {
    pub(crate) seed: u64,
    pub(crate) length: Duration,
    pub(crate) runtime: Runtime,
    /// The fleet at the start.
    pub(crate) replicas: u32,
    /// Whether there is a command that restarts the engine.
    pub(crate) engine: bool,
    /// Whether balancers can share a pool.
    pub(crate) shares: bool,
    /// Whether a rollout can be corrected while it is under way.
    pub(crate) rollouts: bool,
}

/// Between two steps, in milliseconds.
const PAUSES: std::ops::Range<u64> = 4_000..12_000;
/// How long what is undone lasts, in milliseconds.
const BRIEF: std::ops::Range<u64> = 2_000..6_000;
/// By how many replicas `/add` may have the fleet grow.
const GROWTH: u32 = 2;

// === impl Kind ===

impl Kind {
    /// How often each comes in one bag. A balancer must live for some minutes: its memory is
    /// looked at.
    const BAG: [(Self, usize); 13] = [
        (Self::Kill, 8),
        (Self::Hang, 4),
        (Self::HangBriefly, 4),
        (Self::Stop, 4),
        (Self::Remove, 4),
        (Self::ExitLoop, 2),
        (Self::Disconnect, 4),
        (Self::Balancer, 1),
        (Self::Engine, 1),
        (Self::Member, 2),
        (Self::Unread, 2),
        (Self::Rollout, 1),
        // One that changes the fleet: which way is decided by its size.
        (Self::Add, 4),
    ];

    /// In a table and a file.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Hang => "hang",
            Self::HangBriefly => "hang-briefly",
            Self::Stop => "stop",
            Self::Remove => "remove",
            Self::ExitLoop => "exit-loop",
            Self::Disconnect => "disconnect",
            Self::Balancer => "balancer",
            Self::Engine => "engine",
            Self::Member => "member",
            Self::Unread => "log-unread",
            Self::Add => "add",
            Self::Shrink => "rm",
            Self::Rollout => "rollout",
        }
    }

    /// What is done, in words.
    pub(crate) fn words(self, runtime: Runtime) -> &'static str {
        let docker = runtime == Runtime::Docker;
        match self {
            Self::Kill => "SIGKILL of one replica or two at once",
            Self::Hang if docker => "`docker pause`, left so until the balancer replaces it",
            Self::Hang => "SIGSTOP, left so until the balancer replaces it",
            Self::HangBriefly if docker => "`docker pause` for 2 to 6 s",
            Self::HangBriefly => "SIGSTOP for 2 to 6 s",
            Self::Stop if docker => "`docker stop`",
            Self::Stop => "SIGTERM",
            Self::Remove => "`docker rm -f`",
            Self::ExitLoop => "one seat's replica killed as soon as it is back, five times",
            Self::Disconnect => "off the network for 2 to 6 s",
            Self::Balancer => "SIGKILL of the balancer, started again at once",
            Self::Engine => "restart of the Docker daemon",
            Self::Member => "a second balancer of the pool joins, and leaves after 2 to 6 s",
            Self::Unread => "log and access log not read for 10 s",
            Self::Add => "`/add` of one",
            Self::Shrink => "`/rm` of one",
            Self::Rollout => "a bad release rolled out, corrected by another rollout",
        }
    }

    /// Whether what is hit is put right again from outside.
    pub(crate) fn is_undone(self) -> bool {
        matches!(self, Self::HangBriefly | Self::Disconnect | Self::Member)
    }

    fn is_possible(self, draw: &Draw) -> bool {
        match self {
            // Never more than half of the fleet hangs.
            Self::Hang | Self::HangBriefly => draw.replicas > 1,
            Self::Disconnect => draw.runtime == Runtime::Docker && draw.replicas > 1,
            Self::Remove => draw.runtime == Runtime::Docker,
            Self::Engine => draw.runtime == Runtime::Docker && draw.engine,
            Self::Member => draw.runtime == Runtime::Docker && draw.shares,
            Self::Rollout => draw.rollouts,
            Self::Kill
            | Self::Stop
            | Self::ExitLoop
            | Self::Balancer
            | Self::Unread
            | Self::Add
            | Self::Shrink => true,
        }
    }
}

/// The steps, as many as fit into the time if each were done at once: the same for the same draw.
/// Kinds come from a bag that is filled anew when it is empty, so that none is left out for long.
pub(crate) fn schedule(draw: &Draw) -> Vec<Step> {
    let mut rng = StdRng::seed_from_u64(draw.seed);
    let (mut steps, mut bag) = (Vec::new(), Vec::new());
    let (mut at, mut fleet) = (Duration::ZERO, draw.replicas);
    loop {
        let pause = Duration::from_millis(rng.random_range(PAUSES));
        at += pause;
        if at > draw.length {
            return steps;
        }
        if bag.is_empty() {
            bag = full_bag(draw);
            bag.shuffle(&mut rng);
        }
        let drawn = bag.pop().expect("a bag that is full has at least SIGKILL");
        let kind = if drawn == Kind::Add { resize(draw, fleet, &mut rng) } else { drawn };
        let lasts = if kind.is_undone() {
            Duration::from_millis(rng.random_range(BRIEF))
        } else {
            Duration::ZERO
        };
        let seats = seats(kind, draw.replicas, fleet, &mut rng);
        fleet = fleet_after(kind, draw, fleet);
        steps.push(Step { pause, kind, seats, lasts });
    }
}

fn full_bag(draw: &Draw) -> Vec<Kind> {
    let possible = Kind::BAG.into_iter().filter(|(kind, _)| kind.is_possible(draw));
    possible.flat_map(|(kind, count)| std::iter::repeat_n(kind, count)).collect()
}

/// The fleet is from what it began with to [`GROWTH`] more.
fn resize(draw: &Draw, fleet: u32, rng: &mut StdRng) -> Kind {
    let (least, most) = (draw.replicas, draw.replicas + GROWTH);
    let grows = fleet <= least || (fleet < most && rng.random_bool(0.5));
    if grows { Kind::Add } else { Kind::Shrink }
}

/// Whom it hits: one of the seats that are always there, or the last one for `/rm`.
fn seats(kind: Kind, replicas: u32, fleet: u32, rng: &mut StdRng) -> Vec<u32> {
    match kind {
        Kind::Balancer | Kind::Engine | Kind::Member | Kind::Unread | Kind::Rollout | Kind::Add => {
            Vec::new()
        }
        Kind::Shrink => vec![fleet],
        Kind::Kill => {
            let mut all: Vec<u32> = (1..=replicas).collect();
            let (some, _) = all.partial_shuffle(rng, 2);
            let two = some.len() == 2 && replicas > 3 && rng.random_bool(0.25);
            let count = if two { 2 } else { 1 };
            some[..count.min(some.len())].to_vec()
        }
        Kind::Hang
        | Kind::HangBriefly
        | Kind::Stop
        | Kind::Remove
        | Kind::ExitLoop
        | Kind::Disconnect => vec![rng.random_range(1..=replicas)],
    }
}

/// Process replicas die with the balancer, and so does what was asked for at run time.
fn fleet_after(kind: Kind, draw: &Draw, fleet: u32) -> u32 {
    match kind {
        Kind::Add => fleet + 1,
        Kind::Shrink => fleet - 1,
        Kind::Balancer if draw.runtime == Runtime::Process => draw.replicas,
        Kind::Kill
        | Kind::Hang
        | Kind::HangBriefly
        | Kind::Stop
        | Kind::Remove
        | Kind::ExitLoop
        | Kind::Disconnect
        | Kind::Balancer
        | Kind::Engine
        | Kind::Member
        | Kind::Unread
        | Kind::Rollout => fleet,
    }
}

// === impl Step ===

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "after {:6.3} s  {:<12}", self.pause.as_secs_f64(), self.kind.name())?;
        if !self.seats.is_empty() {
            let seats: Vec<String> = self.seats.iter().map(u32::to_string).collect();
            write!(f, "  seat {}", seats.join(" and "))?;
        }
        if self.kind.is_undone() {
            write!(f, " for {:.3} s", self.lasts.as_secs_f64())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(seed: u64, runtime: Runtime) -> Draw {
        Draw {
            seed,
            length: Duration::from_secs(1_800),
            runtime,
            replicas: 5,
            engine: false,
            shares: true,
            rollouts: true,
        }
    }

    #[test]
    fn the_same_seed_draws_the_same_schedule_and_another_one_another() {
        let one = schedule(&draw(7, Runtime::Docker));
        assert!(one.len() > 100, "{}", one.len());
        assert_eq!(one, schedule(&draw(7, Runtime::Docker)));
        assert_ne!(one, schedule(&draw(8, Runtime::Docker)));
    }

    #[test]
    fn a_longer_run_begins_like_a_shorter_one() {
        let short = Draw { length: Duration::from_secs(120), ..draw(7, Runtime::Docker) };
        let (short, long) = (schedule(&short), schedule(&draw(7, Runtime::Docker)));
        assert!(!short.is_empty() && long.starts_with(&short));
    }

    #[test]
    fn at_most_two_replicas_are_hit_at_once_and_only_such_as_are_there() {
        for seed in 0..20 {
            let mut fleet = 5;
            for step in schedule(&draw(seed, Runtime::Docker)) {
                assert!(step.seats.len() <= 2, "{step}");
                let most = if step.kind == Kind::Shrink { fleet } else { 5 };
                assert!(step.seats.iter().all(|seat| (1..=most).contains(seat)), "{step}");
                assert!(step.seats.len() < 2 || step.seats[0] != step.seats[1], "{step}");
                fleet = fleet_after(step.kind, &draw(seed, Runtime::Docker), fleet);
                assert!((5..=7).contains(&fleet), "{fleet} after {step}");
            }
        }
    }

    #[test]
    fn every_kind_comes_and_none_that_the_runtime_cannot_do() {
        let kinds = |draw: Draw| {
            let mut kinds: Vec<Kind> = schedule(&draw).iter().map(|step| step.kind).collect();
            kinds.sort_unstable();
            kinds.dedup();
            kinds
        };
        let process = kinds(draw(1, Runtime::Process));
        for kind in [Kind::Remove, Kind::Disconnect, Kind::Engine, Kind::Member] {
            assert!(!process.contains(&kind), "{kind:?}");
        }
        assert_eq!(process.len(), 10);
        assert_eq!(kinds(draw(1, Runtime::Docker)).len(), 13);
        assert_eq!(kinds(Draw { shares: false, ..draw(1, Runtime::Docker) }).len(), 12);
        assert_eq!(kinds(Draw { engine: true, ..draw(1, Runtime::Docker) }).len(), 14);
        let without = kinds(Draw { rollouts: false, ..draw(1, Runtime::Docker) });
        assert!(!without.contains(&Kind::Rollout));
    }

    #[test]
    fn a_restarted_balancer_of_processes_begins_with_its_first_fleet() {
        let (process, docker) = (draw(1, Runtime::Process), draw(1, Runtime::Docker));
        assert_eq!(fleet_after(Kind::Balancer, &process, 7), 5);
        assert_eq!(fleet_after(Kind::Balancer, &docker, 7), 7);
    }

    #[test]
    fn a_fleet_of_one_has_a_schedule() {
        let alone = Draw { replicas: 1, ..draw(3, Runtime::Process) };
        let steps = schedule(&alone);
        assert!(steps.iter().all(|step| step.seats.len() <= 1 && step.kind != Kind::Hang));
        assert!(!steps.is_empty());
    }

    #[test]
    fn a_step_is_one_line() {
        let step = Step {
            pause: Duration::from_millis(4_500),
            kind: Kind::HangBriefly,
            seats: vec![2],
            lasts: Duration::from_secs(3),
        };
        assert_eq!(step.to_string(), "after  4.500 s  hang-briefly  seat 2 for 3.000 s");
    }
}
