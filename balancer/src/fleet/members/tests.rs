//! Step by step, and as random walks of whole balancers that share the code of the decisions.

use proptest::prelude::*;

use super::*;
use crate::fleet::release::Release;
use crate::fleet::seat::Seat;

const POOL: &str = "pool";

fn key(identity: &str) -> MemberKey {
    MemberKey { identity: identity.to_owned(), instance: "1".to_owned() }
}

fn lease(identity: &str, sequence: u64, stage: Stage) -> Lease {
    Lease {
        pool: POOL.to_owned(),
        key: key(identity),
        address: format!("{identity}:5000"),
        started: String::new(),
        sequence,
        shared: false,
        stage,
        adopts_earlier: false,
        wanted: None,
    }
}

/// The members as `me` sees them, and a clock.
struct View {
    members: Members,
    now: Instant,
}

impl View {
    fn of(me: &str) -> Self {
        Self { members: Members::new(POOL, key(me)), now: Instant::now() }
    }

    /// Observes after so many milliseconds. Returns the names of the news.
    fn see(&mut self, after: u64, leases: &[Lease]) -> Vec<&'static str> {
        self.now += Duration::from_millis(after);
        let news = self.members.observe(leases, self.now);
        let name = |news: &News| match news {
            News::Joined(_) => "joined",
            News::Left(_) => "left",
            News::Expired(_) => "expired",
        };
        news.iter().map(name).collect()
    }
}

#[test]
fn a_member_that_renews_refuses_others_and_one_that_does_not_expires() {
    let mut view = View::of("b");
    view.see(0, &[lease("a", 7, Stage::Serving)]);
    assert_eq!(view.members.join(false, false), Join::NotYet, "it may be dead");
    let renewed = lease("a", 8, Stage::Serving);
    view.see(1_000, std::slice::from_ref(&renewed));
    assert_eq!(view.members.join(false, false), Join::Refused(Box::new(renewed.clone())));
    for _ in 0..4 {
        view.see(1_000, std::slice::from_ref(&renewed));
        assert_ne!(view.members.join(false, false), Join::Yes);
    }
    view.see(1_000, std::slice::from_ref(&renewed));
    assert_eq!(view.members.join(false, false), Join::Yes);
    assert_eq!(view.members.litter(), [renewed]);
}

#[test]
fn time_in_which_the_engine_could_not_be_asked_does_not_count() {
    let mut view = View::of("b");
    let other = lease("a", 7, Stage::Serving);
    view.see(0, std::slice::from_ref(&other));
    view.see(3_600_000, std::slice::from_ref(&other));
    assert_eq!(view.members.living().count(), 1);
    view.see(3_600_000, &[lease("a", 8, Stage::Serving)]);
    assert_eq!(view.members.living().count(), 1);
}

#[test]
fn a_lease_that_somebody_removes_counts_until_it_would_expire() {
    let mut view = View::of("b");
    view.see(0, &[lease("a", 7, Stage::Serving)]);
    assert_eq!(view.see(1_000, &[lease("a", 8, Stage::Serving)]), ["joined"]);
    assert!(view.see(1_500, &[]).is_empty());
    assert_eq!(view.members.living().count(), 1);
    assert!(view.see(1_500, &[lease("a", 9, Stage::Serving)]).is_empty());
    view.see(1_900, &[]);
    view.see(1_900, &[]);
    assert_eq!(view.see(1_900, &[]), ["expired"]);
    assert_eq!(view.members.living().count(), 0);
    assert_eq!(view.see(1_900, &[lease("a", 10, Stage::Serving)]), ["joined"]);
}

#[test]
fn members_that_end_are_told_as_such_and_their_leases_are_litter() {
    for stage in [Stage::Gone, Stage::Kept] {
        let mut view = View::of("b");
        view.see(0, &[]);
        assert_eq!(view.see(500, &[lease("a", 1, Stage::Serving)]), ["joined"]);
        let last = lease("a", 2, stage);
        assert_eq!(view.see(500, std::slice::from_ref(&last)), ["left"]);
        assert_eq!(view.members.living().count(), 0);
        assert_eq!(view.members.litter(), [last]);
        assert!(view.see(500, &[]).is_empty());
    }
}

#[test]
fn the_own_lease_of_an_earlier_run_is_taken_over_at_once() {
    let mut view = View::of("a");
    let key = MemberKey { instance: "0".to_owned(), ..key("a") };
    let before = Lease { key, ..lease("a", 7, Stage::Serving) };
    view.see(0, std::slice::from_ref(&before));
    assert_eq!(view.members.join(false, false), Join::Yes);
    view.members.supersede();
    assert_eq!(view.members.litter(), std::slice::from_ref(&before));
    assert_eq!(view.members.living().count(), 0);
    // It may be listed until it is removed.
    assert!(view.see(1_500, std::slice::from_ref(&before)).is_empty());
    assert_eq!(view.members.living().count(), 0);
    // A renewal means that another balancer has the same name.
    let renewed = Lease { sequence: 8, ..before };
    assert_eq!(view.see(1_500, &[renewed]), ["joined"]);
}

#[test]
fn an_earlier_run_that_is_still_removing_its_replicas_is_waited_for() {
    let mut view = View::of("a");
    let key = MemberKey { instance: "0".to_owned(), ..key("a") };
    let before = Lease { key, ..lease("a", 7, Stage::Removing) };
    view.see(0, std::slice::from_ref(&before));
    assert_eq!(view.members.join(false, false), Join::NotYet);
    view.see(500, &[]);
    for _ in 0..3 {
        view.see(1_900, &[]);
    }
    assert_eq!(view.members.join(false, false), Join::Yes);
}

#[test]
fn both_have_to_share_a_pool() {
    for (mine, other, joins) in
        [(true, true, true), (true, false, false), (false, true, false), (false, false, false)]
    {
        let mut view = View::of("b");
        view.see(0, &[]);
        view.see(500, &[Lease { shared: other, ..lease("a", 1, Stage::Serving) }]);
        assert_eq!(view.members.join(mine, true) == Join::Yes, joins, "{mine} {other}");
    }
}

#[test]
fn leases_of_other_pools_do_not_matter() {
    let mut view = View::of("b");
    let other = Lease { pool: "other".to_owned(), ..lease("a", 1, Stage::Serving) };
    view.see(0, &[]);
    assert!(view.see(500, std::slice::from_ref(&other)).is_empty());
    assert_eq!(view.members.join(false, true), Join::Yes);
    view.members.doubt();
    assert_eq!(view.members.leave(), Leave::Last);
    assert_eq!(view.members.living().count(), 0);
    assert_eq!(view.members.litter(), []);
}

#[test]
fn the_containers_of_an_earlier_version_go_to_one_balancer() {
    let claims = |identity: &str, sequence, stage| Lease {
        pool: identity.to_owned(),
        adopts_earlier: true,
        ..lease(identity, sequence, stage)
    };
    let mut view = View::of("b");
    view.see(0, &[claims("a", 1, Stage::Serving)]);
    assert_eq!(view.members.may_adopt("default"), None, "it may be dead");
    view.see(500, &[claims("a", 2, Stage::Serving)]);
    assert_eq!(view.members.may_adopt("default"), Some(false));
    for _ in 0..3 {
        view.see(1_900, &[]);
    }
    assert_eq!(view.members.may_adopt("default"), Some(true));
    // Of two that start at once the one with the smaller name.
    view.see(500, &[claims("c", 1, Stage::Joining)]);
    assert_eq!(view.members.may_adopt("default"), None);
    view.see(500, &[claims("a", 3, Stage::Joining)]);
    assert_eq!(view.members.may_adopt("default"), Some(false));
}

#[test]
fn the_latest_request_decides_unless_the_configuration_has_changed() {
    let wanted = |revision, seats: &str, config: &str| Wanted {
        revision,
        config: config.to_owned(),
        seats: Seats::read(seats).unwrap(),
        release: Release::default(),
    };
    let with = |identity: &str, stage, wanted| Lease { wanted, ..lease(identity, 1, stage) };
    let mut view = View::of("c");
    let leases = [
        with("a", Stage::Kept, Some(wanted(3, "1-5", "x"))),
        with("b", Stage::Kept, Some(wanted(2, "1", "x"))),
        with("d", Stage::Kept, None),
    ];
    view.see(0, &leases);
    let origin = |view: &View, config| view.members.origin(&leases, config);
    assert_eq!(origin(&view, "x"), Origin::Requested(wanted(3, "1-5", "x")));
    assert_eq!(origin(&view, "y"), Origin::Changed(wanted(3, "1-5", "x")));
    assert_eq!(view.members.origin(&[], "x"), Origin::NoLease);
    view.see(500, &[with("e", Stage::Serving, None)]);
    assert_eq!(origin(&view, "x"), Origin::Members(None));
    let theirs = Some(wanted(1, "2-3", "z"));
    view.see(500, &[with("f", Stage::Serving, theirs.clone())]);
    assert_eq!(origin(&view, "x"), Origin::Members(theirs));
}

#[test]
fn seats_are_written_as_ranges() {
    for text in ["", "1", "1-3", "1-3,7", "2,4,6-9"] {
        assert_eq!(Seats::read(text).unwrap().text(), text);
    }
    for bad in ["0", "x", "3-1", "1-", "-", "1-99999999", "1;2"] {
        assert_eq!(Seats::read(bad), None, "{bad}");
    }
}

proptest! {
    #[test]
    fn any_seats_are_read_as_they_were_written(seats: std::collections::BTreeSet<u16>) {
        let seats = Seats(seats.into_iter().filter_map(|seat| Seat::new(seat.into())).collect());
        prop_assert_eq!(Seats::read(&seats.text()), Some(seats));
    }
}

/// A balancer of the random walks: each of its acts is one call to the engine, and what follows.
struct Walker {
    me: Lease,
    members: Members,
    state: State,
    /// Whether the own lease was written since the last listing.
    written: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Joining,
    Serving,
    Leaving,
    Removing,
    /// It was refused, has left, or has removed the replicas.
    Ended(&'static str),
    Killed,
}

impl Walker {
    fn new(identity: &str, shared: bool) -> Self {
        let me = Lease { shared, ..lease(identity, 0, Stage::Joining) };
        let members = Members::new(POOL, me.key.clone());
        Self { me, members, state: State::Joining, written: false }
    }

    fn is_over(&self) -> bool {
        matches!(self.state, State::Ended(_) | State::Killed)
    }

    fn act(&mut self, engine: &mut Vec<Lease>, now: Instant) {
        let writes = match self.state {
            // The first look comes before the first lease.
            State::Joining if self.me.sequence == 0 => false,
            State::Joining | State::Serving | State::Leaving | State::Removing => !self.written,
            State::Ended(_) | State::Killed => return,
        };
        if writes {
            return self.write(engine);
        }
        self.members.observe(engine, now);
        let written = std::mem::take(&mut self.written);
        match self.state {
            State::Joining => match self.members.join(self.me.shared, written) {
                Join::Yes if written => {
                    (self.state, self.me.stage) = (State::Serving, Stage::Serving);
                    self.write(engine);
                }
                Join::Yes => self.write(engine),
                Join::NotYet if self.me.sequence > 0 => self.write(engine),
                Join::NotYet => {}
                Join::Refused(_) => self.end("refused", engine),
            },
            State::Leaving => match self.members.leave() {
                Leave::NotYet => {}
                Leave::ToOthers => {
                    self.me.stage = Stage::Gone;
                    self.write(engine);
                    self.state = State::Ended("left");
                }
                Leave::Last => {
                    (self.state, self.me.stage) = (State::Removing, Stage::Removing);
                    self.write(engine);
                }
            },
            State::Removing => self.end("removed", engine),
            State::Serving | State::Ended(_) | State::Killed => {}
        }
    }

    fn write(&mut self, engine: &mut Vec<Lease>) {
        engine.retain(|lease| lease.key != self.me.key);
        self.me.sequence += 1;
        engine.push(self.me.clone());
        self.written = true;
    }

    fn end(&mut self, how: &'static str, engine: &mut Vec<Lease>) {
        engine.retain(|lease| lease.key != self.me.key);
        self.state = State::Ended(how);
    }

    fn stop(&mut self) {
        if self.state == State::Serving {
            (self.state, self.me.stage) = (State::Leaving, Stage::Leaving);
            self.members.doubt();
            self.written = false;
        }
    }
}

/// What may happen to a walker in a round besides its act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Act,
    Late,
    Stop,
    Kill,
}

fn rounds(kill: bool) -> impl Strategy<Value = Vec<(u64, Vec<(usize, Fate)>)>> {
    let fate = prop_oneof![
        20 => Just(Fate::Act),
        4 => Just(Fate::Late),
        2 => Just(Fate::Stop),
        1 => Just(if kill { Fate::Kill } else { Fate::Act }),
    ];
    let turns = proptest::collection::vec((0_usize..3, fate), 3..9);
    proptest::collection::vec((50_u64..300, turns), 0..60)
}

/// Lets three balancers act in turns, the last of which come to rest.
fn walk(
    shared: bool,
    rounds: &[(u64, Vec<(usize, Fate)>)],
    check: impl Fn(&[Walker]) -> Result<(), TestCaseError>,
) -> Result<Vec<Walker>, TestCaseError> {
    let mut walkers: Vec<Walker> = ["a", "b", "c"].map(|name| Walker::new(name, shared)).into();
    let (mut engine, mut now) = (Vec::new(), Instant::now());
    for (ms, turns) in rounds {
        now += Duration::from_millis(*ms);
        // Each acts at least once in a round, so that one that lives renews its lease in time.
        let also = (0..3).map(|index| (index, Fate::Act));
        for (index, fate) in turns.iter().copied().chain(also) {
            let walker = &mut walkers[index];
            match fate {
                Fate::Act => walker.act(&mut engine, now),
                Fate::Late => {}
                Fate::Stop => walker.stop(),
                Fate::Kill if !walker.is_over() => walker.state = State::Killed,
                Fate::Kill => {}
            }
            check(&walkers)?;
        }
    }
    for _ in 0..200 {
        now += Duration::from_millis(200);
        for walker in &mut walkers {
            walker.act(&mut engine, now);
            walker.stop();
        }
        check(&walkers)?;
    }
    Ok(walkers)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_pool_that_is_not_shared_has_one_balancer_at_a_time(rounds in rounds(true)) {
        walk(false, &rounds, |walkers| {
            let owns = |walker: &&Walker| {
                matches!(walker.state, State::Serving | State::Leaving | State::Removing)
            };
            prop_assert!(walkers.iter().filter(owns).count() <= 1);
            Ok(())
        })?;
    }

    #[test]
    fn replicas_are_removed_by_the_last_balancer_and_by_no_other(rounds in rounds(true)) {
        let walkers = walk(true, &rounds, |walkers| {
            let removes = |walker: &Walker| walker.state == State::Removing;
            let serves = |walker: &Walker| walker.state == State::Serving;
            prop_assert!(!(walkers.iter().any(removes) && walkers.iter().any(serves)));
            Ok(())
        })?;
        prop_assert!(walkers.iter().all(Walker::is_over), "one waits for ever");
        // A balancer left because another one served: one of them was the last, or was killed.
        let ended = |how| walkers.iter().any(|walker| walker.state == State::Ended(how));
        let killed = walkers.iter().any(|walker| walker.state == State::Killed);
        prop_assert!(!ended("left") || ended("removed") || killed);
    }
}
