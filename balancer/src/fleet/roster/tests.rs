//! The roster against a scripted engine: single steps, and a random walk that must always end in
//! the fleet that was asked for.

use std::io;
use std::sync::Arc;

use proptest::prelude::*;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::*;
use crate::fleet::change::{Change, Refused};

const SECOND: Duration = Duration::from_secs(1);

fn config() -> FleetConfig {
    FleetConfig {
        capacity: Some(12),
        max_replicas: 10,
        health: HealthLimits { rise: 1, fall: 3 },
        backoff: BackoffConfig::default(),
        start_deadline: 60 * SECOND,
        drain_deadline: 10 * SECOND,
        remove_again: 5 * SECOND,
        listed: false,
    }
}

fn name(text: &str) -> Hostname {
    Hostname::parse(text).unwrap()
}

fn change(n: usize, names: &[&str]) -> Change {
    Change { n, hostnames: names.iter().copied().map(name).collect() }
}

fn cause(text: &str) -> Cause {
    Arc::new(io::Error::other(text.to_owned()))
}

/// An engine whose calls take effect, and whose answers arrive, when the test says so.
struct World {
    roster: Roster,
    containers: BTreeMap<Hostname, Container>,
    under_way: Vec<Call>,
    listing: Option<(Tick, Vec<Observed>)>,
    outcomes: Vec<(ChangeId, Result<(), Failed>)>,
    created: u64,
    now: Instant,
    rng: StdRng,
}

#[derive(Clone, Debug)]
struct Container {
    seat: Seat,
    created: u64,
    death: Option<Death>,
}

/// A call to the engine: first it takes effect, then its answer arrives.
#[derive(Debug)]
enum Call {
    Start(Seat, Hostname),
    Started(Hostname, Result<Observed, StartFailed>),
    Stop(Hostname),
    Stopped(Hostname, Result<(), Cause>),
}

impl World {
    fn new(seed: u64) -> Self {
        Self::with(config(), seed)
    }

    fn with(config: FleetConfig, seed: u64) -> Self {
        Self {
            roster: Roster::new(config),
            containers: BTreeMap::new(),
            under_way: Vec::new(),
            listing: None,
            outcomes: Vec::new(),
            created: 0,
            now: Instant::now(),
            rng: StdRng::seed_from_u64(seed),
        }
    }

    /// A fleet of `replicas`, settled.
    fn booted(replicas: usize, seed: u64) -> Self {
        let mut world = Self::new(seed);
        world.roster.boot(Vec::new(), replicas, world.now);
        world.settle();
        world
    }

    fn act(&mut self) -> Option<Instant> {
        loop {
            let (effects, wake) = self.roster.act(self.now, &mut self.rng);
            let none = effects.is_empty();
            for effect in effects {
                match effect {
                    Effect::Start(seat, hostname) => {
                        self.under_way.push(Call::Start(seat, hostname));
                    }
                    Effect::Drain(hostname) => self.roster.drained(&hostname),
                    Effect::Remove(hostname) => self.under_way.push(Call::Stop(hostname)),
                }
            }
            let finished = self.roster.finished();
            if none && finished.is_empty() {
                return wake;
            }
            self.outcomes.extend(finished);
        }
    }

    /// Lets one call take effect or its answer arrive; `fails` only counts for the former.
    fn step(&mut self, index: usize, fails: bool) {
        let index = index % self.under_way.len();
        match self.under_way.swap_remove(index) {
            Call::Start(_, hostname) if fails => {
                let failed = StartFailed::Other(cause("no such image"));
                self.under_way.push(Call::Started(hostname, Err(failed)));
            }
            Call::Start(seat, hostname) => {
                self.created += 1;
                let container = Container { seat, created: self.created, death: None };
                let observed = container.observed(&hostname);
                let twice = self.containers.insert(hostname.clone(), container);
                assert!(twice.is_none(), "{hostname} was started twice");
                self.under_way.push(Call::Started(hostname, Ok(observed)));
            }
            Call::Stop(hostname) if fails => {
                self.under_way.push(Call::Stopped(hostname, Err(cause("engine gone"))));
            }
            Call::Stop(hostname) => {
                self.containers.remove(&hostname);
                self.under_way.push(Call::Stopped(hostname, Ok(())));
            }
            Call::Started(hostname, result) => {
                self.roster.started(&hostname, result, self.now, &mut self.rng);
            }
            Call::Stopped(hostname, result) => self.roster.removed(&hostname, result, self.now),
        }
        self.act();
    }

    fn begin_listing(&mut self) {
        let listing = self.containers.iter().map(|(name, c)| c.observed(name)).collect();
        self.listing = Some((self.roster.tick(), listing));
    }

    fn end_listing(&mut self) {
        if let Some((began, listing)) = self.listing.take() {
            self.roster.listed(listing, began, self.now, &mut self.rng);
            self.act();
        }
    }

    fn probe_all(&mut self) {
        let running: Vec<(Hostname, SocketAddr)> =
            self.roster.running().map(|(name, _, address)| (name.clone(), address)).collect();
        for (hostname, address) in running {
            let alive = self.containers.get(&hostname).is_some_and(|c| c.death.is_none());
            self.roster.probed(&hostname, address, alive, self.now);
        }
        self.act();
    }

    fn kill(&mut self, index: usize) {
        if !self.containers.is_empty() {
            let index = index % self.containers.len();
            let container = self.containers.values_mut().nth(index).unwrap();
            container.death = Some(Death::Killed(9));
        }
    }

    fn vanish(&mut self, index: usize) {
        if !self.containers.is_empty() {
            let hostname = self.containers.keys().nth(index % self.containers.len()).cloned();
            self.containers.remove(&hostname.unwrap());
        }
    }

    /// Lets everything take its good course until there is nothing left to do.
    fn settle(&mut self) {
        for _ in 0..1_000 {
            let wake = self.act();
            if self.under_way.is_empty() {
                self.end_listing();
                self.begin_listing();
                self.end_listing();
                self.probe_all();
                let quiet = self.under_way.is_empty() && self.act().is_none();
                if quiet {
                    return;
                }
                if self.under_way.is_empty() {
                    self.now = wake.unwrap_or(self.now).max(self.now + SECOND);
                }
            } else {
                self.step(0, false);
            }
        }
        panic!("never settles: {:#?}", self.roster);
    }

    fn names(&self) -> Vec<String> {
        self.roster.listing().iter().map(ToString::to_string).collect()
    }

    /// The seats that have a living container.
    fn seats(&self) -> Vec<u32> {
        let mut seats: Vec<u32> = self.containers.values().map(|c| c.seat.get()).collect();
        seats.sort_unstable();
        seats
    }
}

impl Container {
    fn observed(&self, hostname: &Hostname) -> Observed {
        Observed {
            hostname: hostname.clone(),
            member: Some(MemberId::Seat(self.seat)),
            address: Some(SocketAddr::from(([10, 0, 0, 1], 1_000 + self.created as u16))),
            weight: 1,
            created: self.created,
            death: self.death,
        }
    }
}

#[test]
fn the_first_fleet_is_named_by_its_seats_in_their_order() {
    let world = World::booted(3, 1);
    assert_eq!(world.names(), ["S1", "S2", "S3"]);
    assert_eq!(world.seats(), [1, 2, 3]);
}

#[test]
fn added_replicas_join_together_with_the_named_ones_first() {
    let mut world = World::booted(3, 1);
    world.roster.add(change(3, &["S5", "Server 4"]), world.now).unwrap();
    world.act();
    assert_eq!(world.under_way.len(), 3, "all are started side by side");
    while !world.under_way.is_empty() {
        world.step(0, false);
    }
    let (hostname, _, address) =
        world.roster.running().find(|(name, ..)| name.as_str() == "S5").unwrap();
    let (hostname, address) = (hostname.clone(), address);
    world.roster.probed(&hostname, address, true, world.now);
    world.act();
    assert_eq!(world.names().len(), 3, "one that is ready waits for the others");
    assert!(world.outcomes.is_empty());
    world.settle();
    assert_eq!(world.names()[..5], ["S1", "S2", "S3", "S5", "Server 4"]);
    assert_eq!(world.names().len(), 6);
    assert!(matches!(world.outcomes[..], [(_, Ok(()))]));
}

#[test]
fn a_failed_addition_leaves_nothing_behind() {
    let mut world = World::booted(3, 1);
    world.roster.add(change(3, &["S5"]), world.now).unwrap();
    world.act();
    world.step(0, false);
    let failing = world.under_way.iter().position(|call| matches!(call, Call::Start(..)));
    world.step(failing.unwrap(), true);
    world.settle();
    assert!(matches!(world.outcomes[..], [(_, Err(Failed::Start { .. }))]));
    assert_eq!(world.names(), ["S1", "S2", "S3"]);
    assert_eq!(world.seats(), [1, 2, 3]);
    // The name is free again.
    world.roster.add(change(1, &["S5"]), world.now).unwrap();
    world.settle();
    assert_eq!(world.names(), ["S1", "S2", "S3", "S5"]);
}

#[test]
fn a_replica_that_is_never_ready_fails_its_addition() {
    let mut world = World::booted(1, 1);
    world.roster.add(change(1, &[]), world.now).unwrap();
    world.act();
    while !world.under_way.is_empty() {
        world.step(0, false);
    }
    world.now += 61 * SECOND;
    world.act();
    while !world.under_way.is_empty() {
        world.step(0, false);
    }
    assert!(matches!(world.outcomes[..], [(_, Err(Failed::NeverReady { .. }))]));
    assert_eq!(world.seats(), [1]);
}

#[test]
fn a_dead_replica_is_replaced_on_its_seat_under_a_new_name() {
    let mut world = World::booted(3, 1);
    world.kill(1);
    world.begin_listing();
    world.end_listing();
    assert_eq!(world.names(), ["S1", "S3"], "its name is gone at once");
    let starts = world.under_way.iter().filter(|call| matches!(call, Call::Start(..))).count();
    assert_eq!(starts, 1, "its seat is filled at once");
    world.settle();
    assert_eq!(world.seats(), [1, 2, 3]);
    assert_eq!(world.names()[..2], ["S1", "S3"]);
    assert!(!world.names().contains(&"S2".to_owned()));
}

#[test]
fn a_listing_that_is_older_than_a_stop_revives_nothing() {
    let mut world = World::booted(3, 1);
    world.begin_listing();
    world.roster.remove(change(1, &["S2"]), &mut world.rng).unwrap();
    world.act();
    while !world.under_way.is_empty() {
        world.step(0, false);
    }
    world.end_listing();
    world.settle();
    assert_eq!(world.seats(), [1, 3]);
}

#[test]
fn a_listing_that_is_older_than_a_start_kills_nothing() {
    let mut world = World::booted(1, 1);
    world.begin_listing();
    world.roster.add(change(1, &["S9"]), world.now).unwrap();
    world.act();
    while !world.under_way.is_empty() {
        world.step(0, false);
    }
    world.end_listing();
    world.probe_all();
    assert_eq!(world.names(), ["S1", "S9"]);
}

#[test]
fn removal_takes_the_named_then_the_unready_then_any() {
    let mut world = World::booted(4, 1);
    // S3 fails its probes.
    let (hostname, _, address) =
        world.roster.running().find(|(name, ..)| name.as_str() == "S3").unwrap();
    let (hostname, address) = (hostname.clone(), address);
    for _ in 0..3 {
        world.roster.probed(&hostname, address, false, world.now);
    }
    world.roster.remove(change(2, &["S1"]), &mut world.rng).unwrap();
    world.settle();
    assert_eq!(world.names(), ["S2", "S4"]);
}

#[test]
fn everything_can_be_removed_and_stays_removed() {
    let mut world = World::booted(3, 1);
    world.roster.remove(change(3, &[]), &mut world.rng).unwrap();
    world.settle();
    assert!(world.names().is_empty() && world.containers.is_empty());
    world.roster.add(change(2, &[]), world.now).unwrap();
    world.settle();
    assert_eq!(world.seats(), [1, 2], "the smallest seats are taken again");
}

#[test]
fn a_replica_that_died_just_now_can_be_removed_by_its_name() {
    let mut world = World::booted(3, 1);
    world.kill(1);
    world.begin_listing();
    world.end_listing();
    world.roster.remove(change(1, &["S2"]), &mut world.rng).unwrap();
    world.settle();
    assert_eq!(world.names(), ["S1", "S3"]);
    assert_eq!(world.seats(), [1, 3]);
}

#[test]
fn changes_that_make_no_sense_are_refused_and_change_nothing() {
    let mut world = World::booted(3, 1);
    let mut add = |n, names: &[&str]| world.roster.add(change(n, names), world.now).unwrap_err();
    assert_eq!(add(1, &["a", "b"]), Refused::MoreNamesThanAdded);
    assert_eq!(add(2, &["a", "A"]), Refused::Repeated(name("A")));
    assert_eq!(add(1, &["s 1", "x"]), Refused::MoreNamesThanAdded);
    assert_eq!(add(1, &["s1"]), Refused::InUse(name("s1")));
    assert_eq!(add(8, &[]), Refused::TooMany { left: 7, size: 3, most: 10 });
    assert_eq!(add(10, &[]), Refused::NoSeat { left: 9, capacity: 12 });
    let rng = &mut world.rng;
    let mut rm = |n, names: &[&str]| world.roster.remove(change(n, names), rng).unwrap_err();
    assert_eq!(rm(1, &["S1", "S2"]), Refused::MoreNamesThanRemoved);
    assert_eq!(rm(1, &["S7"]), Refused::Unknown(name("S7")));
    assert_eq!(rm(2, &["S1", "S1"]), Refused::Repeated(name("S1")));
    assert_eq!(rm(4, &[]), Refused::TooFew { size: 3 });
    world.settle();
    assert_eq!(world.names(), ["S1", "S2", "S3"]);
}

#[test]
fn a_restarted_balancer_adopts_the_fleet_on_its_seats() {
    let mut before = World::booted(3, 1);
    before.kill(2);
    let mut world = World::new(2);
    let listing = before.containers.iter().map(|(name, c)| c.observed(name)).collect();
    world.containers = before.containers;
    world.created = before.created;
    world.roster.boot(listing, 5, world.now);
    world.act();
    let starts: Vec<&Call> =
        world.under_way.iter().filter(|call| matches!(call, Call::Start(..))).collect();
    assert!(matches!(starts[..], [Call::Start(seat, _)] if seat.get() == 3), "{starts:?}");
    world.settle();
    assert_eq!(world.seats(), [1, 2, 3]);
    assert_eq!(world.names()[..2], ["S1", "S2"]);
}

#[test]
fn a_seat_that_keeps_failing_backs_off_and_the_others_go_on() {
    let mut world = World::new(1);
    world.roster.boot(Vec::new(), 1, world.now);
    let start = world.now;
    let mut starts = 0;
    while world.now < start + 60 * SECOND {
        let wake = world.act();
        if let Some(at) = world.under_way.iter().position(|call| matches!(call, Call::Start(..))) {
            starts += 1;
            world.step(at, true);
        } else if !world.under_way.is_empty() {
            world.step(0, false);
        } else {
            world.now = wake.expect("it is tried again some time");
        }
    }
    // At once, then after 0.1, 0.2, 0.4, … 25.6 s, each ± 25 %.
    assert!((9..=12).contains(&starts), "{starts} starts in a minute");
}

#[test]
fn a_taken_name_fails_an_addition_and_only_costs_the_first_fleet_its_name() {
    let mut world = World::booted(1, 1);
    world.roster.add(change(1, &["web"]), world.now).unwrap();
    world.act();
    world.under_way.clear();
    world.roster.started(&name("web"), Err(StartFailed::NameTaken), world.now, &mut world.rng);
    world.act();
    assert!(world.under_way.is_empty(), "what is not ours is not stopped");
    assert!(matches!(world.outcomes[..], [(_, Err(Failed::NameTaken(_)))]));

    let mut world = World::new(1);
    world.roster.boot(Vec::new(), 1, world.now);
    world.act();
    world.under_way.clear();
    world.roster.started(&name("S1"), Err(StartFailed::NameTaken), world.now, &mut world.rng);
    world.settle();
    assert_eq!(world.seats(), [1]);
    assert_ne!(world.names(), ["S1"]);
}

#[test]
fn a_stop_that_fails_is_told_and_tried_again() {
    let mut world = World::booted(2, 1);
    world.roster.remove(change(1, &["S1"]), &mut world.rng).unwrap();
    world.act();
    world.step(0, true);
    world.step(0, false);
    assert!(matches!(world.outcomes[..], [(_, Err(Failed::Remove { .. }))]));
    assert_eq!(world.containers.len(), 2);
    world.settle();
    assert_eq!(world.seats(), [2]);
}

#[test]
fn of_two_on_one_seat_the_older_stays() {
    let mut world = World::booted(1, 1);
    let seat = Seat::new(1).unwrap();
    world.created += 1;
    let twin = Container { seat, created: world.created, death: None };
    world.containers.insert(name("twin"), twin);
    world.settle();
    assert_eq!(world.names(), ["S1"]);
    assert_eq!(world.seats(), [1]);
}

#[test]
fn stopping_leaves_nothing_and_fails_what_is_under_way() {
    let mut world = World::booted(2, 1);
    world.roster.add(change(1, &[]), world.now).unwrap();
    world.act();
    world.step(0, false);
    world.roster.stop_all();
    while !world.roster.is_gone() {
        world.act();
        if !world.under_way.is_empty() {
            world.step(0, false);
        }
    }
    assert!(world.containers.is_empty());
    assert!(matches!(world.outcomes[..], [(_, Err(Failed::ShuttingDown))]));
}

#[test]
fn listed_replicas_are_neither_changed_nor_stopped() {
    let mut world = World::with(FleetConfig { listed: true, ..config() }, 1);
    let address = SocketAddr::from(([10, 0, 0, 1], 80));
    let member = MemberId::Address(address);
    let hostname = Hostname::listed("server:80");
    let listed = Observed {
        hostname: hostname.clone(),
        member: Some(member),
        address: Some(address),
        weight: 2,
        created: 0,
        death: None,
    };
    world.roster.boot(vec![listed], 3, world.now);
    world.roster.probed(&hostname, address, true, world.now);
    assert_eq!(world.names(), ["server:80"]);
    assert_eq!(world.roster.members().collect::<Vec<_>>(), [(member, 2)]);
    assert_eq!(world.roster.add(change(1, &[]), world.now), Err(Refused::Listed));
    assert_eq!(world.roster.remove(change(1, &[]), &mut world.rng), Err(Refused::Listed));
    world.roster.stop_all();
    assert_eq!(world.roster.act(world.now, &mut world.rng), (vec![], None));
    assert!(world.roster.is_gone(), "there is nothing to wait for");
}

/// One thing that may happen.
#[derive(Clone, Debug)]
enum Step {
    Add(usize),
    Remove(usize),
    Call { index: usize, fails: bool },
    Kill(usize),
    Vanish(usize),
    BeginListing,
    EndListing,
    Probe,
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (1_usize..5).prop_map(Step::Add),
        2 => (1_usize..5).prop_map(Step::Remove),
        12 => (any::<prop::sample::Index>(), prop::bool::weighted(0.15))
            .prop_map(|(index, fails)| Step::Call { index: index.index(1_000), fails }),
        2 => (0_usize..20).prop_map(Step::Kill),
        1 => (0_usize..20).prop_map(Step::Vanish),
        3 => Just(Step::BeginListing),
        3 => Just(Step::EndListing),
        5 => Just(Step::Probe),
        2 => (1_u64..20_000).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn whatever_happens_ends_in_the_fleet_that_was_asked_for(
        seed: u64,
        steps in proptest::collection::vec(steps(), 0..120),
    ) {
        let mut world = World::booted(3, seed);
        // What was asked for and did not fail: removed ones may be of a change still to be told.
        let mut size = 3_isize;
        let mut added: BTreeMap<ChangeId, usize> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Add(n) => if let Ok(id) = world.roster.add(change(n, &[]), world.now) {
                    added.insert(id, n);
                },
                Step::Remove(n) => {
                    if world.roster.remove(change(n, &[]), &mut world.rng).is_ok() {
                        size -= n.cast_signed();
                    }
                }
                Step::Call { index, fails } => if !world.under_way.is_empty() {
                    world.step(index, fails);
                },
                Step::Kill(index) => world.kill(index),
                Step::Vanish(index) => world.vanish(index),
                Step::BeginListing => if world.listing.is_none() {
                    world.begin_listing();
                },
                Step::EndListing => world.end_listing(),
                Step::Probe => world.probe_all(),
                Step::Wait(ms) => world.now += Duration::from_millis(ms),
            }
            world.act();
            let joined: isize = added
                .iter()
                .filter(|(id, _)| world.outcomes.iter().any(|(o, r)| o == *id && r.is_ok()))
                .map(|(_, n)| n.cast_signed())
                .sum();
            let listed = world.names().len().cast_signed();
            prop_assert!(listed <= size + joined, "more are listed than were asked for");
        }
        world.settle();
        for (id, n) in &added {
            let outcome = world.outcomes.iter().find(|(finished, _)| finished == id);
            let (_, result) = outcome.expect("every change comes to an end");
            if result.is_ok() {
                size += n.cast_signed();
            }
        }
        let size = usize::try_from(size).unwrap();
        let mut seats = world.seats();
        prop_assert_eq!(seats.len(), size);
        prop_assert_eq!(world.names().len(), size);
        seats.dedup();
        prop_assert_eq!(seats.len(), size, "no seat is taken twice");
        prop_assert_eq!(world.roster.members().count(), size);
    }
}
