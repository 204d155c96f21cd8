//! Changes that are only rehearsed, and who is at which seat.

use super::*;
use crate::fleet::roster::{Rehearsal, Standing};

fn rehearsal(add: usize, rm: &[&str]) -> Rehearsal {
    Rehearsal { add, servers: Vec::new(), rm: rm.iter().copied().map(name).collect() }
}

fn members(world: &World) -> Vec<(MemberId, u32, u8)> {
    let mut members: Vec<_> = world.roster.members().collect();
    members.sort_unstable();
    members
}

fn standings(world: &World) -> Vec<(&'static str, Option<String>)> {
    let occupants = world.roster.occupants();
    let seen = |it: &crate::fleet::roster::Occupant| {
        (it.standing.name(), it.hostname.as_ref().map(ToString::to_string))
    };
    occupants.iter().map(seen).collect()
}

#[test]
fn what_is_rehearsed_is_what_then_happens() {
    let mut world = World::booted(5, 1);
    world.roster.remove(change(1, &["S2"]), &mut world.rng).unwrap();
    world.settle();
    let (before, revision) = (members(&world), world.roster.revision());
    let rehearsed = world.roster.rehearse(&rehearsal(3, &["S4"])).unwrap();
    assert_eq!((members(&world), world.roster.revision()), (before, revision), "nothing changes");
    world.roster.add(change(3, &[]), world.now).unwrap();
    world.settle();
    world.roster.remove(change(1, &["S4"]), &mut world.rng).unwrap();
    world.settle();
    assert_eq!(rehearsed.members, members(&world));
    let added: Vec<u32> =
        rehearsed.added.iter().filter_map(|member| Some(member.seat()?.get())).collect();
    assert_eq!(added, [2, 6, 7]);
}

#[test]
fn what_is_refused_is_refused_in_a_rehearsal() {
    let mut world = World::booted(5, 1);
    let now = world.now;
    for n in [6, 8, 1_000] {
        let rehearsed = world.roster.rehearse(&rehearsal(n, &[])).unwrap_err();
        assert_eq!(rehearsed, world.roster.add(change(n, &[]), now).unwrap_err());
    }
    for names in [&["S9"][..], &["S1", "S9"], &["S1", "S1"]] {
        let rehearsed = world.roster.rehearse(&rehearsal(0, names)).unwrap_err();
        let change = change(names.len(), names);
        assert_eq!(rehearsed, world.roster.remove(change, &mut world.rng).unwrap_err());
    }
    let all = ["S1", "S2", "S3", "S4", "S5"];
    assert!(world.roster.rehearse(&rehearsal(0, &all)).unwrap().members.is_empty());
}

#[test]
fn a_seat_says_why_nobody_serves_there() {
    let mut world = World::booted(3, 1);
    let ready = |name: &str| ("ready", Some(name.to_owned()));
    assert_eq!(standings(&world), [ready("S1"), ready("S2"), ready("S3")]);
    world.roster.enable(&name("S1"), false, 0);
    world.act();
    assert_eq!(standings(&world)[0], ("disabled", Some("S1".to_owned())));
    world.kill(1);
    world.list();
    let second = &standings(&world)[1];
    assert!(["starting", "empty"].contains(&second.0), "{second:?}");
    world.settle();
    assert_eq!(standings(&world)[1].0, "ready");
    let (hostname, _, address) =
        world.roster.running().find(|(it, ..)| **it == name("S3")).unwrap();
    let (hostname, address) = (hostname.clone(), address);
    for _ in 0..3 {
        world.roster.probed(&hostname, address, Verdict::Bad, None, world.now);
    }
    world.act();
    let third = world.roster.occupants().pop().unwrap();
    assert_eq!((third.standing, third.hostname), (Standing::Ejected, Some(hostname)));
    assert!(third.reason.is_some());
    assert!(Standing::Disabled > Standing::Ejected && Standing::Ready > Standing::Disabled);
}
