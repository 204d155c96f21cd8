//! Why replicas are not ready, and when a change of that is reported.

use std::sync::Arc;

use super::*;
use crate::fleet::event::Unready;
use crate::fleet::observed::Condition;
use crate::fleet::reason::NotReady;

/// Two replicas that were started and have not been checked yet.
fn started() -> World {
    let mut world = World::new(1);
    world.boot(2);
    world.finish_calls();
    world.events();
    world
}

fn address_of(world: &World, hostname: &str) -> SocketAddr {
    let found = world.roster.running().find(|(name, ..)| name.as_str() == hostname);
    found.unwrap().2
}

fn check(world: &mut World, hostname: &str, verdict: Verdict, why: Option<&str>) {
    let address = address_of(world, hostname);
    let why = why.map(Arc::from);
    world.roster.probed(&name(hostname), address, verdict, why, world.now);
    world.act();
}

fn fail(world: &mut World, hostname: &str, why: &str) {
    check(world, hostname, Verdict::Bad, Some(why));
}

/// The reports since the last call: the replica, its state, and the reason.
fn reports(world: &mut World) -> Vec<String> {
    let told = std::mem::take(&mut world.told);
    let report = |event: &Event| {
        let what = &event.what;
        let is_report = matches!(what, What::NotReady(_) | What::Ejected(..) | What::NeverReady(_));
        let hostname = &event.subject.as_ref()?.hostname;
        let (state, reason) = (what.state()?, what.reason().unwrap_or_default());
        is_report.then(|| format!("{hostname} {} {state}: {reason}", what.name()))
    };
    told.iter().filter_map(report).collect()
}

fn reason_of(world: &World, hostname: &str) -> Option<String> {
    let status = world.roster.status(world.now, |_| 0);
    status.replicas.into_iter().find(|it| it.hostname == hostname).unwrap().reason
}

#[test]
fn a_failed_check_is_reported_once_and_again_when_the_reason_changes() {
    let mut world = started();
    assert_eq!(reason_of(&world, "S1"), None, "nothing is known yet");
    fail(&mut world, "S1", "GET / returned 404");
    assert_eq!(reason_of(&world, "S1").unwrap(), "health check failed: GET / returned 404");
    fail(&mut world, "S1", "GET / returned 404");
    let first = "S1 not-ready starting: health check failed: GET / returned 404";
    assert_eq!(reports(&mut world), [first]);
    fail(&mut world, "S1", "GET / timed out");
    assert_eq!(
        reports(&mut world),
        ["S1 not-ready starting: health check failed: GET / timed out"]
    );
    check(&mut world, "S1", Verdict::Good, None);
    assert_eq!(reason_of(&world, "S1"), None);
    assert!(reports(&mut world).is_empty());
    assert_eq!(reason_of(&world, "S2"), None);
}

#[test]
fn an_ejection_is_the_report_of_its_reason_and_later_changes_have_their_own() {
    let mut world = World::booted(3, 1);
    world.events();
    fail(&mut world, "S2", "GET / returned 500");
    fail(&mut world, "S2", "GET / returned 500");
    assert_eq!(reason_of(&world, "S2"), None, "it is ready still");
    fail(&mut world, "S2", "GET / returned 500");
    assert_eq!(
        reports(&mut world),
        ["S2 ejected ejected: health check failed: GET / returned 500"]
    );
    check(&mut world, "S2", Verdict::Refused, Some("connection refused"));
    assert_eq!(
        reports(&mut world),
        ["S2 not-ready ejected: health check failed: connection refused"]
    );
    world.engine.containers.get_mut(&name("S2")).unwrap().paused = true;
    world.list();
    assert_eq!(reports(&mut world), ["S2 not-ready ejected: paused"]);
    assert_eq!(reason_of(&world, "S2").unwrap(), "paused");
}

#[test]
fn a_server_that_does_not_listen_yet_is_reported_when_that_lasts() {
    let mut world = started();
    check(&mut world, "S1", Verdict::Refused, Some("connection refused"));
    check(&mut world, "S2", Verdict::Refused, Some("connection refused"));
    assert!(reports(&mut world).is_empty(), "every start begins so");
    assert_eq!(reason_of(&world, "S1").unwrap(), "health check failed: connection refused");
    check(&mut world, "S2", Verdict::Good, None);
    let wake = world.act().unwrap();
    assert!(wake <= world.now + SECOND);
    world.now = wake;
    world.act();
    let report = "S1 not-ready starting: health check failed: connection refused";
    assert_eq!(reports(&mut world), [report]);
}

#[test]
fn a_lost_address_is_reported_and_the_replica_leaves_the_table_at_once() {
    let mut world = World::booted(2, 1);
    world.events();
    let mut listing = world.engine.list();
    listing[0].address = None;
    listing[0].address_error = Some("no address on network \"net1\"".into());
    let tick = world.roster.tick();
    world.roster.listed(listing.clone(), tick, world.now, &mut world.rng);
    world.act();
    assert_eq!(world.serving(), ["S2"]);
    assert_eq!(reports(&mut world), ["S1 not-ready starting: no address on network \"net1\""]);
    assert_eq!(reason_of(&world, "S1").unwrap(), "no address on network \"net1\"");
    // Once, however often it is listed so.
    world.roster.listed(listing, world.roster.tick(), world.now, &mut world.rng);
    world.act();
    assert!(reports(&mut world).is_empty());
    world.settle();
    assert_eq!(world.serving(), ["S1", "S2"]);
}

#[test]
fn the_last_reason_is_in_the_error_of_what_was_never_ready() {
    let mut world = World::booted(1, 1);
    world.roster.add(change(1, &["S9"]), world.now).unwrap();
    world.act();
    world.finish_calls();
    fail(&mut world, "S9", "GET / timed out");
    fail(&mut world, "S9", "GET / returned 404");
    reports(&mut world);
    world.now += 61 * SECOND;
    world.act();
    assert_eq!(
        reports(&mut world),
        ["S9 never-ready dead: health check failed: GET / returned 404"]
    );
    world.finish_calls();
    let [(_, Err(failed))] = &world.outcomes[..] else { panic!("{:?}", world.outcomes) };
    let told = failed.to_string();
    let expected =
        "replica \"S9\" was not ready within 60s: health check failed: GET / returned 404";
    assert_eq!(told, expected);
}

#[test]
fn a_seat_tells_why_it_has_no_replica_until_it_has_one() {
    let mut world = World::new(1);
    world.boot(1);
    world.step(0, true);
    world.step(0, false);
    let reason = |world: &World| world.roster.status(world.now, |_| 0).seats[0].reason.clone();
    assert_eq!(reason(&world).unwrap(), "replica \"S1\" could not be started: no such image");
    world.settle();
    assert_eq!(reason(&world), None);

    let mut world = World::booted(1, 1);
    world.kill(0);
    world.list();
    assert_eq!(reason(&world).unwrap(), "replica \"S1\" ended: killed by signal 9");
    world.settle();
    assert_eq!(reason(&world), None);

    // One that was never ready stays until another is there, with its reason.
    let mut world = World::new(1);
    world.boot(1);
    world.finish_calls();
    fail(&mut world, "S1", "GET / returned 404");
    world.now += 61 * SECOND;
    world.act();
    let late = "replica \"S1\" was not ready within 60s: health check failed: GET / returned 404";
    assert_eq!(reason(&world).unwrap(), late);
    assert_eq!(reason_of(&world, "S1").unwrap(), "health check failed: GET / returned 404");
}

#[test]
fn a_reason_that_flaps_is_reported_a_bounded_number_of_times() {
    let mut world = started();
    let mut made = 0;
    for number in 0..600 {
        fail(&mut world, "S1", if number % 2 == 0 { "a" } else { "b" });
        made += reports(&mut world).len();
        world.now += SECOND / 20;
    }
    assert!((5..=9).contains(&made), "{made} reports in 30 s");
    fail(&mut world, "S1", "c");
    assert_eq!(reason_of(&world, "S1").unwrap(), "health check failed: c");
    // What lasts is reported in the end, without another health check.
    world.now = world.act().unwrap();
    world.act();
    assert!(reports(&mut world).contains(&"S1 not-ready starting: health check failed: c".into()));
}

#[test]
fn only_what_is_usual_at_a_start_is_no_warning_then() {
    let starting = |reason| What::NotReady(Unready { reason, ejected: false });
    let refused = || NotReady::Refused("connection refused".into());
    assert!(!starting(refused()).is_bad());
    assert!(starting(NotReady::Failed("GET / returned 404".into())).is_bad());
    assert!(starting(NotReady::NoAddress(None)).is_bad());
    assert!(What::NotReady(Unready { reason: refused(), ejected: true }).is_bad());
}

#[test]
fn a_container_that_is_made_and_does_not_run_has_no_reason() {
    let mut world = World::booted(1, 1);
    world.events();
    let mut foreign = world.engine.containers[&name("S1")].observed(&name("S2"));
    (foreign.condition, foreign.address) = (Condition::Made, None);
    foreign.place = Seat::new(2).unwrap().into();
    let listing = [world.engine.list(), vec![foreign]].concat();
    world.roster.listed(listing, world.roster.tick(), world.now, &mut world.rng);
    world.act();
    assert_eq!(reason_of(&world, "S2"), None);
    assert!(reports(&mut world).is_empty());
}
