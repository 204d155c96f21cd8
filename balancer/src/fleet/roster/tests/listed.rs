//! Listed replicas: a list that changes, `/add` and `/rm` of servers.

use std::collections::BTreeSet;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use super::*;
use crate::fleet::change::Change;
use crate::fleet::listed::Server;

/// A roster over a list, without the runtime that has it.
struct Listed {
    world: World,
    list: Vec<Observed>,
}

fn address(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], 80))
}

fn listed(server: &str, last: u8) -> Observed {
    Observed {
        hostname: Hostname::listed(server),
        place: Place::Member(MemberId::Address(address(last))),
        address: Some(address(last)),
        address_error: None,
        weight: 1,
        created: last.into(),
        release: Release::default(),
        condition: Condition::Running,
        leaving: false,
        seat_stays: false,
    }
}

fn servers(n: usize, names: &[&str]) -> Change {
    let servers: Vec<Server> = names.iter().filter_map(|name| name.parse().ok()).collect();
    let hostnames = names.iter().map(|name| Hostname::listed(name)).collect();
    Change { n, hostnames, servers }
}

impl Listed {
    /// Over these servers, all of them ready; their addresses end in 1, 2, …
    fn over(names: &[&str]) -> Self {
        let world = World::with(FleetConfig { listed: true, ..config() }, 1);
        let list = (1..).zip(names).map(|(last, name)| listed(name, last)).collect();
        let mut this = Self { world, list };
        this.world.roster.boot(this.list.clone(), 3, this.world.now);
        this.probe(Verdict::Good);
        this
    }

    fn act(&mut self) -> Vec<Effect> {
        let (effects, _) = self.world.roster.act(self.world.now, &mut self.world.rng);
        self.world.outcomes.extend(self.world.roster.finished());
        effects
    }

    fn list(&mut self) -> Vec<Effect> {
        let tick = self.world.roster.tick();
        let list = self.list.clone();
        self.world.roster.listed(list, tick, self.world.now, &mut self.world.rng);
        self.act()
    }

    fn probe(&mut self, verdict: Verdict) -> Vec<Effect> {
        let running: Vec<(Hostname, SocketAddr)> =
            self.world.roster.running().map(|(name, _, at)| (name.clone(), at)).collect();
        for (name, at) in running {
            self.world.roster.probed(&name, at, verdict, None, self.world.now);
        }
        self.act()
    }

    fn enlisted(&mut self, server: &str, result: Result<Vec<Observed>, Failed>) {
        let server: Server = server.parse().unwrap();
        self.list.extend(result.iter().flatten().cloned());
        self.world.roster.enlisted(&server, result, self.world.now);
    }

    fn drained(&mut self, server: &str) -> Vec<Effect> {
        self.world.roster.drained(&Hostname::listed(server));
        self.act()
    }

    fn members(&self) -> Vec<MemberId> {
        self.world.roster.members().map(|(member, ..)| member).collect()
    }

    fn add(&mut self, names: &[&str]) -> Result<ChangeId, Refused> {
        self.world.roster.add(servers(names.len(), names), self.world.now)
    }

    fn remove(&mut self, names: &[&str]) -> Result<ChangeId, Refused> {
        self.world.roster.remove(servers(names.len(), names), &mut self.world.rng)
    }
}

fn drain(server: &str) -> Effect {
    Effect::Drain(Hostname::listed(server))
}

#[test]
fn listed_replicas_are_neither_started_nor_stopped() {
    let mut fleet = Listed::over(&["a:80"]);
    fleet.list[0].weight = 2;
    assert_eq!(fleet.list(), []);
    assert_eq!(fleet.world.names(), ["a:80"]);
    let member = MemberId::Address(address(1));
    assert_eq!(fleet.world.roster.members().collect::<Vec<_>>(), [(member, 2, 10)]);
    fleet.world.roster.stop_all();
    assert_eq!(fleet.act(), []);
    assert!(fleet.world.roster.is_gone(), "there is nothing to wait for");
}

/// A server whose name cannot be resolved.
fn unresolved(server: &str) -> Observed {
    let error = Some("no such name".into());
    Observed { place: Place::Unknown, address: None, address_error: error, ..listed(server, 9) }
}

#[test]
fn a_server_without_an_address_is_not_ready_for_that_reason_until_it_has_one() {
    let mut fleet = Listed::over(&["a:80"]);
    fleet.world.roster.events();
    fleet.list.push(unresolved("b:80"));
    assert_eq!(fleet.list(), []);
    assert_eq!(fleet.list(), []);
    let events = fleet.world.roster.events();
    let told: Vec<_> = events.iter().map(|it| (it.what.name(), it.what.reason())).collect();
    assert_eq!(told, [("listed", None), ("not-ready", Some("no such name".to_owned()))]);
    let status = fleet.world.roster.status(fleet.world.now, |_| 0);
    let replica = status.replicas.iter().find(|replica| replica.hostname == "b:80").unwrap();
    assert_eq!((replica.state, replica.address), ("starting", None));
    assert_eq!(replica.reason.as_deref(), Some("no such name"));
    assert_eq!((status.desired, fleet.members().len()), (1, 1), "it has no part of the ring");
    assert_eq!(fleet.world.roster.running().count(), 1, "there is nothing to check");

    fleet.list[1] = listed("b:80", 2);
    assert_eq!(fleet.list(), []);
    fleet.probe(Verdict::Good);
    assert_eq!(fleet.world.names(), ["a:80", "b:80"]);
    assert_eq!(fleet.members().len(), 2);
}

#[test]
fn a_server_without_an_address_goes_at_once_when_it_is_listed_no_more() {
    let mut fleet = Listed::over(&["a:80"]);
    for gone in [true, false] {
        fleet.list.push(unresolved("b:80"));
        fleet.list();
        fleet.list.pop();
        if !gone {
            // Its name has two addresses, and a replica for each.
            fleet.list.extend([listed("b:80/10.0.0.2", 2), listed("b:80/10.0.0.3", 3)]);
        }
        assert_eq!(fleet.list(), [drain("b:80")]);
        assert_eq!(fleet.drained("b:80"), [Effect::List]);
        assert!(!fleet.world.roster.knows(&Hostname::listed("b:80")));
        fleet.list();
    }
    fleet.probe(Verdict::Good);
    assert_eq!(fleet.world.names().len(), 3);
    fleet.list.push(unresolved("c:80"));
    fleet.list();
    fleet.remove(&["c:80"]).unwrap();
    assert!(fleet.act().contains(&drain("c:80")), "it can be removed by name");
}

#[test]
fn a_server_that_is_listed_no_more_finishes_its_requests() {
    let mut fleet = Listed::over(&["a:80", "b:80"]);
    fleet.list.remove(0);
    assert_eq!(fleet.list(), [drain("a:80")]);
    assert_eq!(fleet.world.names(), ["b:80"]);
    assert_eq!(fleet.members(), [MemberId::Address(address(2))]);
    let leaving = Hostname::listed("a:80");
    assert!(fleet.world.roster.lives(&leaving), "its requests go on");
    assert_eq!(fleet.list(), [], "once is enough");
    assert_eq!(fleet.drained("a:80"), [Effect::List]);
    assert!(!fleet.world.roster.knows(&leaving));
    assert_eq!(fleet.list(), []);
}

#[test]
fn requests_that_do_not_end_are_waited_for_until_the_deadline() {
    let mut fleet = Listed::over(&["a:80", "b:80"]);
    fleet.list.remove(0);
    fleet.list();
    fleet.world.now += 9 * SECOND;
    assert_eq!(fleet.act(), []);
    fleet.world.now += SECOND;
    assert_eq!(fleet.act(), [Effect::List]);
    assert!(!fleet.world.roster.knows(&Hostname::listed("a:80")));
}

#[test]
fn one_that_is_listed_again_while_it_leaves_comes_back_after_that() {
    let mut fleet = Listed::over(&["a:80", "b:80"]);
    let back = fleet.list.remove(0);
    fleet.list();
    fleet.list.push(back);
    assert_eq!(fleet.list(), []);
    assert_eq!(fleet.drained("a:80"), [Effect::List]);
    fleet.list();
    fleet.probe(Verdict::Good);
    assert_eq!(fleet.world.names(), ["b:80", "a:80"]);
}

#[test]
fn a_list_that_is_replaced_as_a_whole_leaves_nobody_without_a_replica() {
    let mut fleet = Listed::over(&["a:80", "b:80"]);
    fleet.list = vec![listed("c:80", 3)];
    assert_eq!(fleet.list(), [], "nobody else is ready");
    assert_eq!(fleet.world.serving(), ["a:80", "b:80"]);
    assert_eq!(fleet.probe(Verdict::Good), [drain("a:80"), drain("b:80")]);
    assert_eq!(fleet.world.serving(), ["c:80"]);

    // Not for ever.
    fleet.list = vec![listed("d:80", 4)];
    assert_eq!(fleet.list(), []);
    fleet.world.now += 5 * SECOND;
    assert!(fleet.act().contains(&drain("c:80")));
}

#[test]
fn an_address_under_another_name_stays_on_the_ring_once() {
    let mut fleet = Listed::over(&["localhost:80"]);
    fleet.list = vec![listed("a:80", 1)];
    assert_eq!(fleet.list(), []);
    assert_eq!(fleet.members(), [MemberId::Address(address(1))]);
    assert_eq!(fleet.world.serving(), ["localhost:80"]);
    assert_eq!(fleet.probe(Verdict::Good), [drain("localhost:80")]);
    assert_eq!(fleet.members(), [MemberId::Address(address(1))]);
    assert_eq!(fleet.world.serving(), ["a:80"]);
}

#[test]
fn added_servers_join_together_when_all_are_ready() {
    let mut fleet = Listed::over(&["a:80"]);
    fleet.add(&["c:80", "b:80"]).unwrap();
    let asked: Vec<Server> = ["c:80", "b:80"].map(|name| name.parse().unwrap()).into();
    assert_eq!(fleet.act(), asked.into_iter().map(Effect::Enlist).collect::<Vec<_>>());
    fleet.enlisted("c:80", Ok(vec![listed("c:80", 3)]));
    fleet.probe(Verdict::Good);
    assert_eq!((fleet.world.names().len(), fleet.members().len()), (1, 1));
    assert!(fleet.world.serving() == ["a:80"] && fleet.world.outcomes.is_empty());
    // A listing may tell of a server before its own answer does.
    fleet.list.push(listed("b:80", 2));
    fleet.list();
    fleet.probe(Verdict::Good);
    assert!(fleet.world.outcomes.is_empty());
    fleet.list.pop();
    fleet.enlisted("b:80", Ok(vec![listed("b:80", 2)]));
    fleet.act();
    assert!(matches!(fleet.world.outcomes[..], [(_, Ok(()))]));
    assert_eq!(fleet.world.names(), ["a:80", "c:80", "b:80"]);
    assert_eq!(fleet.members().len(), 3);
    assert_eq!(fleet.list(), []);
}

#[test]
fn an_addition_that_is_never_ready_is_taken_back_whole() {
    let mut fleet = Listed::over(&["a:80"]);
    fleet.add(&["b:80", "c:80"]).unwrap();
    fleet.act();
    fleet.enlisted("b:80", Ok(vec![listed("b:80", 2)]));
    fleet.probe(Verdict::Good);
    fleet.enlisted("c:80", Ok(vec![listed("c:80", 3)]));
    fleet.world.now += 60 * SECOND;
    let effects = fleet.act();
    for name in ["b:80", "c:80"] {
        assert!(effects.contains(&Effect::Withdraw(Hostname::listed(name))), "{effects:?}");
        assert!(effects.contains(&drain(name)), "{effects:?}");
    }
    fleet.drained("b:80");
    assert!(fleet.world.outcomes.is_empty());
    fleet.drained("c:80");
    let [(_, Err(Failed::NeverReady { hostname, .. }))] = &fleet.world.outcomes[..] else {
        panic!("{:?}", fleet.world.outcomes)
    };
    assert_eq!(hostname.as_str(), "c:80");
    assert_eq!(fleet.world.names(), ["a:80"]);
    assert_eq!(fleet.world.roster.members().count(), 1);
}

#[test]
fn a_server_that_cannot_be_listed_takes_the_others_with_it() {
    let mut fleet = Listed::over(&["a:80"]);
    fleet.add(&["b:80", "c:80"]).unwrap();
    fleet.act();
    let tick = fleet.world.roster.tick();
    let hostname = Hostname::listed("b:80");
    fleet.enlisted("b:80", Err(Failed::List { hostname, source: cause("no such name") }));
    assert_eq!(fleet.act(), []);
    assert!(fleet.world.outcomes.is_empty(), "the other one is being listed");
    fleet.enlisted("c:80", Ok(vec![listed("c:80", 3)]));
    assert_eq!(fleet.act(), [Effect::Withdraw(Hostname::listed("c:80"))]);
    assert!(matches!(fleet.world.outcomes[..], [(_, Err(Failed::List { .. }))]));
    // A listing that began before that is late.
    let late = fleet.list.clone();
    fleet.world.roster.listed(late, tick, fleet.world.now, &mut fleet.world.rng);
    assert_eq!(fleet.world.known().len(), 1);
    // Another try begins from nothing.
    fleet.list.pop();
    fleet.add(&["c:80"]).unwrap();
    assert_eq!(fleet.act().len(), 1);
}

#[test]
fn a_list_that_changes_meanwhile_decides_over_an_addition() {
    let mut fleet = Listed::over(&["a:80"]);
    fleet.add(&["b:80"]).unwrap();
    fleet.act();
    fleet.enlisted("b:80", Ok(vec![listed("b:80", 2)]));
    fleet.list.pop();
    fleet.list();
    fleet.drained("b:80");
    assert!(matches!(&fleet.world.outcomes[..], [(_, Err(Failed::Unlisted(_)))]));
}

#[test]
fn a_removed_server_drains_with_all_its_addresses() {
    let mut fleet = Listed::over(&["a:80", "Web:80/10.0.0.2", "Web:80/10.0.0.3"]);
    let one = Hostname::listed("Web:80/10.0.0.2");
    assert_eq!(fleet.remove(&["Web:80/10.0.0.2"]), Err(Refused::OneOfSeveral(one)));
    fleet.remove(&["web:80"]).unwrap();
    let effects = fleet.act();
    let unlisted = Effect::Unlist(Hostname::listed("web:80"));
    let leaving = [unlisted, drain("Web:80/10.0.0.2"), drain("Web:80/10.0.0.3")];
    assert_eq!(effects, leaving);
    assert_eq!(fleet.world.names(), ["a:80"]);
    fleet.drained("Web:80/10.0.0.2");
    assert!(fleet.world.outcomes.is_empty());
    fleet.drained("Web:80/10.0.0.3");
    assert!(matches!(fleet.world.outcomes[..], [(_, Ok(()))]));
    fleet.list.truncate(1);
    assert_eq!(fleet.list(), []);
    // The last one may go, too.
    fleet.remove(&["a:80"]).unwrap();
    fleet.act();
    fleet.drained("a:80");
    assert!(fleet.world.names().is_empty() && fleet.members().is_empty());
}

#[test]
fn the_only_address_of_a_server_can_be_removed_by_its_own_name() {
    let mut fleet = Listed::over(&["web:80/10.0.0.1"]);
    fleet.remove(&["web:80/10.0.0.1"]).unwrap();
    let effects = fleet.act();
    assert_eq!(effects, [Effect::Unlist(Hostname::listed("web:80")), drain("web:80/10.0.0.1")]);
}

#[test]
fn changes_of_a_list_that_make_no_sense_are_refused_and_change_nothing() {
    let mut fleet = Listed::over(&["a:80", "b:80"]);
    let named = Hostname::listed;
    let mut add =
        |n, names: &[&str]| fleet.world.roster.add(servers(n, names), fleet.world.now).unwrap_err();
    assert_eq!(add(1, &["c:80", "d:80"]), Refused::MoreNamesThanAdded);
    assert_eq!(add(1, &[]), Refused::Unnamed { n: 1, named: 0 });
    assert_eq!(add(2, &["c:80"]), Refused::Unnamed { n: 2, named: 1 });
    assert_eq!(add(2, &["c:80", "C:80"]), Refused::Repeated(named("C:80")));
    assert_eq!(add(1, &["A:80"]), Refused::InUse(named("A:80")));
    let many: Vec<String> = (0..9).map(|at| format!("n{at}:80")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(add(9, &many), Refused::TooMany { left: 8, size: 2, most: 10 });
    let mut rm = |n, names: &[&str]| {
        fleet.world.roster.remove(servers(n, names), &mut fleet.world.rng).unwrap_err()
    };
    assert_eq!(rm(1, &["a:80", "b:80"]), Refused::MoreNamesThanRemoved);
    assert_eq!(rm(1, &[]), Refused::Unnamed { n: 1, named: 0 });
    assert_eq!(rm(1, &["c:80"]), Refused::Unknown(named("c:80")));
    assert_eq!(rm(2, &["a:80", "A:80"]), Refused::Repeated(named("A:80")));
    assert_eq!(rm(2, &["a:80", "c:80"]), Refused::Unknown(named("c:80")));
    assert_eq!(fleet.act(), []);
    fleet.add(&["c:80"]).unwrap();
    assert_eq!(fleet.add(&["c:80"]), Err(Refused::InUse(named("c:80"))));
    assert_eq!(fleet.remove(&["c:80"]), Err(Refused::Unknown(named("c:80"))));
    assert_eq!(fleet.world.names(), ["a:80", "b:80"]);
}

#[test]
fn a_stop_ends_what_is_under_way_at_once() {
    let mut fleet = Listed::over(&["a:80"]);
    fleet.add(&["b:80"]).unwrap();
    fleet.act();
    fleet.world.roster.stop_all();
    fleet.act();
    assert!(matches!(fleet.world.outcomes[..], [(_, Err(Failed::ShuttingDown))]));
}

// === a walk ===

/// A list that is changed at random, by a file and by calls, and the roster that follows it.
struct Walk {
    fleet: Listed,
    /// Servers that calls have listed since the file changed last.
    added: Vec<String>,
    /// Asked of the list and not answered.
    asked: Vec<Server>,
    draining: Vec<Hostname>,
    accepted: usize,
}

/// How many servers there are.
const SERVERS: u8 = 5;

fn server_name(number: u8) -> String {
    format!("s{number}:80")
}

impl Walk {
    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Enlist(server) => self.asked.push(server),
                Effect::Unlist(hostname) => {
                    self.fleet.list.retain(|replica| replica.hostname != hostname);
                }
                Effect::Withdraw(hostname) => {
                    if self.added.contains(&hostname.to_string()) {
                        self.fleet.list.retain(|replica| replica.hostname != hostname);
                    }
                }
                Effect::Drain(hostname) => self.draining.push(hostname),
                Effect::List => self.list(),
                Effect::Start(..)
                | Effect::MarkSeated(..)
                | Effect::MarkLeaving(_)
                | Effect::MarkStopping(_)
                | Effect::Remove(_)
                | Effect::Kill(_) => panic!("nobody owns them: {effect:?}"),
            }
        }
    }

    fn act(&mut self) {
        let effects = self.fleet.act();
        self.carry_out(effects);
    }

    fn list(&mut self) {
        let effects = self.fleet.list();
        self.carry_out(effects);
    }

    fn answer(&mut self) {
        let Some(server) = self.asked.pop() else { return };
        let hostname = server.hostname();
        let last = server.address.as_bytes()[1] - b'0';
        let known = self.fleet.list.iter().any(|replica| replica.hostname == hostname);
        let result = if known {
            Err(Failed::ListedAlready(hostname))
        } else {
            self.added.push(server.address.clone());
            Ok(vec![listed(&server.address, last)])
        };
        self.fleet.enlisted(&server.address, result);
        self.act();
    }

    fn drained(&mut self) {
        let Some(hostname) = self.draining.pop() else { return };
        let effects = self.fleet.drained(hostname.as_str());
        self.carry_out(effects);
    }

    fn probe(&mut self, good: bool) {
        let effects = self.fleet.probe(if good { Verdict::Good } else { Verdict::Bad });
        self.carry_out(effects);
    }

    fn step(&mut self, rng: &mut StdRng) {
        let numbers: Vec<u8> = (1..=SERVERS).collect();
        match rng.random_range(0..9) {
            0 => {
                let count = rng.random_range(1..=usize::from(SERVERS));
                let some = numbers.sample(rng, count);
                self.fleet.list =
                    some.map(|number| listed(&server_name(*number), *number)).collect();
                self.added.clear();
            }
            1 | 2 => {
                let names: Vec<String> = numbers.sample(rng, 2).map(|n| server_name(*n)).collect();
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                let names = &names[..rng.random_range(1..=2)];
                let accepted =
                    if rng.random() { self.fleet.add(names) } else { self.fleet.remove(names) };
                self.accepted += usize::from(accepted.is_ok());
                self.act();
            }
            3 => self.answer(),
            4 => self.drained(),
            5 => self.list(),
            6 => self.probe(true),
            7 => self.probe(false),
            _ => {
                self.fleet.world.now += SECOND * rng.random_range(0..8);
                self.act();
            }
        }
    }

    fn settle(&mut self) {
        for _ in 0..20 {
            self.list();
            while !self.asked.is_empty() {
                self.answer();
            }
            while !self.draining.is_empty() {
                self.drained();
            }
            self.probe(true);
        }
    }
}

#[test]
fn whatever_happens_the_fleet_becomes_what_is_listed_and_every_call_is_answered() {
    for seed in 0..300 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut walk = Walk {
            fleet: Listed::over(&["s1:80", "s2:80"]),
            added: Vec::new(),
            asked: Vec::new(),
            draining: Vec::new(),
            accepted: 0,
        };
        for _ in 0..60 {
            walk.step(&mut rng);
        }
        walk.settle();
        let list: BTreeSet<String> =
            walk.fleet.list.iter().map(|replica| replica.hostname.to_string()).collect();
        let fleet = BTreeSet::from_iter(walk.fleet.world.names());
        assert_eq!(fleet, list, "seed {seed}: {:#?}", walk.fleet.world.roster);
        assert_eq!(BTreeSet::from_iter(walk.fleet.world.serving()), list, "seed {seed}");
        assert_eq!(walk.fleet.members().len(), list.len(), "seed {seed}");
        let left = &walk.fleet.world.roster.changes;
        assert_eq!(walk.fleet.world.outcomes.len(), walk.accepted, "seed {seed}: {left:#?}");
    }
}
