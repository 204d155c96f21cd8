//! Two balancers of one pool.

use std::time::Duration;

use super::*;

#[test]
fn two_balancers_of_a_pool_come_to_the_same_fleet_and_rest() {
    let Some(pool) = engine("pair") else { return };
    let one = pool.balancer(4, &[]);
    let other = pool.start(&["--replicas", "4"]);
    other.wait_for_replicas(4);
    let ids = pool.ids();

    let began = unix_time();
    docker(&["kill", &ids[&1], &ids[&2]]);
    let (added, removed) = thread::scope(|scope| {
        let adding = scope.spawn(|| one.json("POST", "/add", r#"{"n": 2}"#));
        let removing = scope.spawn(|| other.json("DELETE", "/rm", r#"{"n": 1}"#));
        (adding.join().unwrap(), removing.join().unwrap())
    });
    assert_eq!((added.status, removed.status), (200, 200), "{added:?} {removed:?}");
    let from = Instant::now();
    let fleet = || {
        let [one, other] = [&one, &other].map(|it| BTreeSet::from_iter(it.replicas()));
        (one == other).then_some(one)
    };
    let agreed = wait_for("both to have the same fleet", || {
        let seats = pool.seated()?;
        fleet().filter(|both| both.len() == seats.len())
    });
    let took = from.elapsed();
    let made = pool.created(began);

    // Whatever they disagree on, they would do something about it within a listing or two.
    let (calm, before) = (unix_time(), pool.seated());
    let until = Instant::now() + Duration::from_secs(5);
    wait_for("five seconds of rest", || {
        if let Some(both) = fleet() {
            assert_eq!(both, agreed);
        }
        (Instant::now() >= until).then_some(())
    });
    assert_eq!(pool.seated(), before);
    for event in ["create", "die", "destroy", "rename"] {
        assert_eq!(pool.events(event, calm), "", "they fight");
    }
    say(&format!(
        "two balancers, two deaths, two more here and one less there: the same {} after {} ms; \
         {made} containers made, 4 needed",
        agreed.len(),
        took.as_millis(),
    ));
    assert_eq!(agreed.len(), 5);
    assert!(made <= 6, "{made} containers were made");
    for balancer in [&one, &other] {
        assert_eq!(owners(balancer).values().collect::<BTreeSet<_>>().len(), 5);
    }
    assert_eq!(owners(&one), owners(&other));
}
