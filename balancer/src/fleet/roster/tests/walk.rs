//! Random walks: whatever happens, in whatever order, ends in the fleet that was asked for.

use proptest::prelude::*;

use super::*;

/// One thing that may happen.
#[derive(Clone, Debug)]
enum Step {
    Add(usize),
    Remove(usize),
    Roll {
        image: u8,
        batch: usize,
    },
    RollBack,
    PauseRoll(bool),
    Configure {
        pids: u32,
    },
    Call {
        index: usize,
        fails: bool,
    },
    Kill(usize),
    /// Deaths are told at once.
    Tell,
    Vanish(usize),
    Pause(usize, bool),
    Silence(usize, bool),
    Err(usize),
    BeginListing,
    EndListing,
    Probe,
    Wait(u64),
    /// The other balancer of the pool goes on, where there are two.
    Switch,
}

fn step() -> impl Strategy<Value = Step> {
    let index = || any::<prop::sample::Index>().prop_map(|index| index.index(1_000));
    prop_oneof![
        2 => (1_usize..5).prop_map(Step::Add),
        2 => (1_usize..5).prop_map(Step::Remove),
        1 => (0_u8..3, 1_usize..4).prop_map(|(image, batch)| Step::Roll { image, batch }),
        1 => Just(Step::RollBack),
        1 => any::<bool>().prop_map(Step::PauseRoll),
        1 => (1_u32..3).prop_map(|pids| Step::Configure { pids }),
        14 => (index(), prop::bool::weighted(0.15))
            .prop_map(|(index, fails)| Step::Call { index, fails }),
        2 => (0_usize..20).prop_map(Step::Kill),
        1 => Just(Step::Tell),
        1 => (0_usize..20).prop_map(Step::Vanish),
        1 => (0_usize..20, any::<bool>()).prop_map(|(index, on)| Step::Pause(index, on)),
        1 => (0_usize..20, any::<bool>()).prop_map(|(index, on)| Step::Silence(index, on)),
        1 => (0_usize..20).prop_map(Step::Err),
        3 => Just(Step::BeginListing),
        3 => Just(Step::EndListing),
        5 => Just(Step::Probe),
        2 => (1_u64..20_000).prop_map(Step::Wait),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec(step(), 0..120)
}

impl World {
    /// Lets one thing happen that needs no more than this balancer.
    fn suffer(&mut self, step: &Step) {
        match *step {
            Step::Add(_) | Step::Remove(_) | Step::Switch => {}
            Step::Roll { image, batch } => {
                let image = Some(format!("image:{image}"));
                let request = RollRequest { image, command: None, batch };
                self.roster.roll(request, self.now).unwrap();
            }
            Step::RollBack => {
                let _refused = self.roster.roll_back(self.now).is_err();
            }
            Step::PauseRoll(paused) => {
                let roster = &mut self.roster;
                let result = if paused { roster.pause_roll() } else { roster.resume_roll() };
                let _refused = result.is_err();
            }
            Step::Configure { pids } => {
                let mut release = self.roster.config.release.clone();
                release.spec.pids = Some(pids);
                self.roster.configure(release, self.now);
            }
            Step::Call { index, fails } => {
                if !self.under_way.is_empty() {
                    self.step(index, fails);
                }
            }
            Step::Kill(index) => self.kill(index),
            Step::Tell => self.tell_deaths(),
            Step::Vanish(index) => self.vanish(index),
            Step::Pause(index, on) => self.hurt(index, |container| container.paused = on),
            Step::Silence(index, on) => self.hurt(index, |container| container.silent = on),
            Step::Err(index) => {
                let names: Vec<Hostname> =
                    self.roster.running().map(|(name, ..)| name.clone()).collect();
                if let Some(name) = names.get(index % names.len().max(1)) {
                    self.roster.erred(name, self.now);
                }
            }
            Step::BeginListing => {
                if self.listing.is_none() {
                    self.begin_listing();
                }
            }
            Step::EndListing => self.end_listing(),
            Step::Probe => self.probe_all(),
            Step::Wait(ms) => self.now += Duration::from_millis(ms),
        }
        self.act();
    }

    /// Nobody is hurt any more: those that were frozen wake up.
    fn heal(&mut self) {
        for container in self.engine.containers.values_mut() {
            (container.paused, container.silent) = (false, false);
        }
        let _none_is_under_way = self.roster.resume_roll().is_err();
    }

    /// Every seat of `size` is taken once by a replica that runs what is wanted, and nothing else
    /// is there but the spares.
    fn check(&self, size: usize) -> Result<(), TestCaseError> {
        let mut seats = self.seats();
        prop_assert_eq!(seats.len(), size, "{:#?}", self.engine);
        seats.dedup();
        prop_assert_eq!(seats.len(), size, "a seat is taken twice");
        prop_assert_eq!(self.names().len(), size, "{:#?}", self.known());
        prop_assert_eq!(self.serving().len(), size, "{:#?}", self.known());
        prop_assert_eq!(self.roster.members().count(), size);
        let containers = self.engine.containers.values();
        let spares = containers.clone().filter(|c| c.place == Place::Spare).count();
        prop_assert_eq!(spares, self.roster.config.spares);
        prop_assert_eq!(self.engine.containers.len(), size + spares, "{:#?}", self.engine);
        for container in containers {
            prop_assert!(container.death.is_none() && !container.leaving, "{:?}", container);
            prop_assert!(container.release.fits(&self.roster.target), "{:?}", container);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn whatever_happens_ends_in_the_fleet_that_was_asked_for(
        seed: u64,
        spares in 0_usize..3,
        steps in steps(),
    ) {
        let mut world = World::booted_with(FleetConfig { spares, ..config() }, 3, seed);
        // What was asked for and did not fail: removed ones may be of a change still to be told.
        let mut size = 3_isize;
        let mut added: BTreeMap<ChangeId, usize> = BTreeMap::new();
        for step in steps {
            if let Step::Add(n) = step
                && let Ok(id) = world.roster.add(change(n, &[]), world.now)
            {
                added.insert(id, n);
            }
            if let Step::Remove(n) = step
                && world.roster.remove(change(n, &[]), &mut world.rng).is_ok()
            {
                size -= n.cast_signed();
            }
            world.suffer(&step);
            world.act();
            let joined: isize = added
                .iter()
                .filter(|(id, _)| world.outcomes.iter().any(|(o, r)| o == *id && r.is_ok()))
                .map(|(_, n)| n.cast_signed())
                .sum();
            let served = world.serving().len().cast_signed();
            prop_assert!(served <= size + joined, "more take requests than were asked for");
        }
        world.heal();
        world.settle();
        for (id, n) in &added {
            let outcome = world.outcomes.iter().find(|(finished, _)| finished == id);
            let (_, result) = outcome.expect("every change comes to an end");
            if result.is_ok() {
                size += n.cast_signed();
            }
        }
        world.check(usize::try_from(size).unwrap())?;
    }

    /// `kill -9` at any moment: the seats that were on the ring are there again, also where their
    /// replicas were dead at that moment, and those that were being removed are not.
    #[test]
    fn a_balancer_that_dies_at_any_moment_leaves_a_fleet_that_the_next_one_completes(
        seed: u64,
        steps in steps(),
    ) {
        let mut world = World::booted(4, seed);
        world.sure = true;
        // Who vanishes without remains while no balancer looks takes the knowledge of its seat
        // with it; and an /add under way may be completed or undone.
        for step in steps.iter().filter(|step| !matches!(step, Step::Vanish(_) | Step::Add(_))) {
            if let Step::Remove(n) = step {
                // What is left of an earlier replica of the seat would speak for it.
                world.finish_calls();
                let _refused = world.roster.remove(change(*n, &[]), &mut world.rng).is_err();
                world.act();
                // Told to whoever comes next; after that, the removal is certain. One that is
                // being started can only be told of when it is there.
                let stops = |call: &Call| matches!(call, Call::Stop(..) | Call::Stopped(..));
                while let Some(at) = world.under_way.iter().position(|call| !stops(call)) {
                    world.step(at, false);
                }
            } else {
                world.suffer(step);
            }
        }
        let asked: Vec<Seat> = world.roster.seats.keys().copied().collect();
        let mut next = world.successor(seed);
        next.boot(3);
        next.heal();
        next.settle();
        if asked.is_empty() {
            // Nothing is left that could tell that nothing is wanted.
            return next.check(next.seats().len());
        }
        let seats: Vec<Seat> = next.roster.seats.keys().copied().collect();
        prop_assert_eq!(&seats, &asked);
        next.check(asked.len())?;
    }

}

/// What may happen to a fleet that nothing but its rollouts disturbs.
fn rollout_step() -> impl Strategy<Value = Step> {
    let index = || any::<prop::sample::Index>().prop_map(|index| index.index(1_000));
    prop_oneof![
        2 => (0_u8..4, 1_usize..4).prop_map(|(image, batch)| Step::Roll { image, batch }),
        1 => Just(Step::RollBack),
        1 => any::<bool>().prop_map(Step::PauseRoll),
        1 => (1_u32..3).prop_map(|pids| Step::Configure { pids }),
        12 => index().prop_map(|index| Step::Call { index, fails: index % 6 == 0 }),
        3 => Just(Step::BeginListing),
        3 => Just(Step::EndListing),
        6 => Just(Step::Probe),
        4 => (1_u64..4_000).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Good and bad releases, superseded, paused and rolled back at any moment: no seat is ever
    /// without a replica that takes requests.
    #[test]
    fn no_rollout_ever_takes_a_seat_out_of_service(
        seed: u64,
        spares in 0_usize..2,
        steps in proptest::collection::vec(rollout_step(), 0..200),
    ) {
        let mut world = World::booted_with(FleetConfig { spares, ..config() }, 3, seed);
        world.bad_image = Some("image:1".to_owned());
        for step in &steps {
            world.suffer(step);
            prop_assert_eq!(world.serving().len(), 3, "{:?}: {:#?}", step, world.known());
        }
        world.heal();
        for _ in 0..3_000 {
            let quiet = world.calm();
            prop_assert_eq!(world.serving().len(), 3, "{:#?}", world.known());
            if quiet {
                break;
            }
        }
        world.check(3)?;
        let bad = world.engine.containers.values().filter(|c| !c.answers(Some("image:1"))).count();
        prop_assert_eq!(bad, 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Two balancers on one pool: both come to the same fleet, and then nothing moves any more.
    #[test]
    fn two_balancers_come_to_the_same_fleet(
        seed: u64,
        spares in 0_usize..2,
        steps in proptest::collection::vec(
            prop_oneof![4 => step(), 3 => Just(Step::Switch)], 0..80),
    ) {
        let config = FleetConfig { spares, ..config() };
        let mut one = World::booted_with(config.clone(), 3, seed);
        let mut other = one.successor(seed.wrapping_add(1));
        other.boot(3);
        let switch = |one: &mut World, other: &mut World| {
            std::mem::swap(one, other);
            std::mem::swap(&mut one.engine, &mut other.engine);
            one.now = one.now.max(other.now);
            // What the other's lease says.
            one.roster.follow_release(other.roster.wanted_release(), one.now);
        };
        std::mem::swap(&mut one.engine, &mut other.engine);
        for step in &steps {
            if let Step::Switch = step {
                switch(&mut one, &mut other);
            }
            if let Step::Add(n) = step {
                let _refused = one.roster.add(change(*n, &[]), one.now).is_err();
            }
            if let Step::Remove(n) = step {
                let _refused = one.roster.remove(change(*n, &[]), &mut one.rng).is_err();
            }
            one.suffer(step);
            one.act();
        }
        one.heal();
        // Both go on in turns, until neither has anything to do.
        let mut quiet = 0;
        for _ in 0..2_000 {
            quiet = if one.calm() { quiet + 1 } else { 0 };
            if quiet > 20 {
                break;
            }
            switch(&mut one, &mut other);
        }
        prop_assert!(quiet > 20, "no rest: {:#?} {:#?}", one.known(), other.known());
        let seats: Vec<Seat> = one.roster.seats.keys().copied().collect();
        let others: Vec<Seat> = other.roster.seats.keys().copied().collect();
        prop_assert_eq!(&seats, &others);
        one.check(seats.len())?;
        prop_assert_eq!(one.serving(), other.serving());
    }
}
