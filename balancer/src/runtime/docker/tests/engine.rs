//! On the real engine. Each test has a pool of its own.

use std::thread;

use super::*;
use crate::fleet::change::Death;
use crate::fleet::observed::Place;
use crate::fleet::release::Spec;
use crate::telemetry::chain;

const DEBIAN: &str = "debian:bookworm-slim";

/// Ignores SIGTERM.
const DEAF: &str = "trap '' TERM; while :; do sleep 0.1; done";

fn seat(number: u32) -> Place {
    Seat::new(number).unwrap().into()
}

fn mark_seat(number: u32) -> Mark {
    Mark::Seated(Seat::new(number).unwrap())
}

/// A replica that runs a shell script.
fn script(hostname: &str, seat: u32, script: &str) -> ReplicaSpec {
    let command = ["sh", "-c", script].map(str::to_owned).to_vec();
    let spec = Spec { image: Some(DEBIAN.to_owned()), command: Some(command), ..Spec::default() };
    let release = Release::new(2, 1, &spec, spec.clone());
    ReplicaSpec { release, ..super::spec(hostname, Some(seat)) }
}

#[test]
fn a_replica_is_what_its_labels_and_its_name_say() {
    let Some(pool) = Pool::new("marks") else { return };
    run(async {
        let docker = pool.docker().await;
        let (spare, name) = (spec(&pool.hostname("a"), None), pool.slug("a"));
        let started = docker.start(&spare).await.unwrap();
        assert_eq!((started.place, started.condition), (Place::Spare, Condition::Running));
        assert_eq!((started.leaving, started.release.generation()), (false, 0));
        let image = super::docker(&["image", "inspect", "--format", "{{.Id}}", super::IMAGE]);
        let expected = Spec { digest: Some(image), ..config(&pool.name).spec() };
        assert_eq!(started.release.spec(), &expected);
        assert!(started.address.is_some_and(|address| address.port() == 5000), "{started:?}");
        assert_eq!(docker.list().await.unwrap(), std::slice::from_ref(&started));

        let began = Instant::now();
        docker.mark(&spare.hostname, mark_seat(7)).await.unwrap();
        let marked = began.elapsed();
        let expected = Observed { place: seat(7), ..started.clone() };
        assert_eq!(docker.list().await.unwrap(), std::slice::from_ref(&expected));
        assert_eq!(pool.names(), [format!("{name}.seat-7")]);

        docker.mark(&spare.hostname, Mark::Leaving).await.unwrap();
        docker.mark(&spare.hostname, Mark::Leaving).await.unwrap();
        assert_eq!(docker.list().await.unwrap(), [Observed { leaving: true, ..expected }]);
        assert_eq!(pool.names(), [format!("{name}.seat-7.leaving")]);

        docker.stop(&spare.hostname, Duration::from_secs(5)).await.unwrap();
        assert_eq!(pool.names(), Vec::<String>::new());
        docker.mark(&spare.hostname, Mark::Leaving).await.unwrap();
        docker.stop(&spare.hostname, Duration::from_secs(5)).await.unwrap();
        assert_eq!(docker.list().await.unwrap(), []);
        eprintln!("docker: a mark takes {} us", marked.as_micros());
    });
}

#[test]
fn a_release_is_remembered_by_its_container() {
    let Some(pool) = Pool::new("release") else { return };
    run(async {
        let docker = pool.docker().await;
        let what = script(&pool.hostname("a"), 1, "exec sleep 60");
        let started = docker.start(&what).await.unwrap();
        assert_eq!(started.release.spec().unpinned(), *what.release.spec());
        assert!(started.release.fits(&what.release) && what.release.fits(&started.release));
        let digest = started.release.spec().digest.clone().unwrap();
        assert_eq!(pool.docker().await.list().await.unwrap(), [started]);
        let image = super::docker(&["inspect", "--format", "{{.Config.Image}}", &pool.slug("a")]);
        assert_eq!(image, digest);
    });
}

#[test]
fn two_balancers_mark_the_same_containers_at_once() {
    let Some(pool) = Pool::new("marked-twice") else { return };
    run(async {
        let (one, other) = (pool.docker().await, pool.docker().await);
        let what = spec(&pool.hostname("a"), None);
        one.start(&what).await.unwrap();
        for seat in 1..=10 {
            let mark = mark_seat(seat);
            let marked =
                tokio::join!(one.mark(&what.hostname, mark), other.mark(&what.hostname, mark));
            assert!(matches!(marked, (Ok(()), Ok(()))), "{marked:?}");
            assert_eq!(pool.names(), [format!("{}.seat-{seat}", pool.slug("a"))]);
        }
        let marked = tokio::join!(
            one.mark(&what.hostname, Mark::Leaving),
            other.mark(&what.hostname, Mark::Leaving)
        );
        assert!(matches!(marked, (Ok(()), Ok(()))), "{marked:?}");
        assert_eq!(pool.names(), [format!("{}.seat-10.leaving", pool.slug("a"))]);
    });
}

#[test]
fn a_name_that_somebody_else_has_is_no_mark() {
    let Some(pool) = Pool::new("mark-taken") else { return };
    run(async {
        let docker = pool.docker().await;
        let what = spec(&pool.hostname("a"), Some(1));
        docker.start(&what).await.unwrap();
        pool.make(&format!("{}.leaving", pool.slug("a")), &[], &[IMAGE]);
        let refused = docker.mark(&what.hostname, Mark::Leaving).await.unwrap_err();
        assert!(chain(&refused).contains("already in use"), "{}", chain(&refused));
    });
}

#[test]
fn two_balancers_that_start_one_name_at_once_share_its_container() {
    let Some(pool) = Pool::new("started-twice") else { return };
    run(async {
        let (one, other) = (pool.docker().await, pool.docker().await);
        for round in 0..12 {
            let what = spec(&pool.hostname(&format!("r{round}")), Some(1));
            let (first, second) = tokio::join!(one.start(&what), other.start(&what));
            assert!(first.is_ok() && second.is_ok(), "{round}: {first:?} {second:?}");
            let (first, second) = (first.unwrap(), second.unwrap());
            assert_eq!(first.condition, Condition::Running);
            assert_eq!(first, second);
            assert_eq!(one.list().await.unwrap(), std::slice::from_ref(&first));
            // And as often as one likes.
            assert_eq!(one.start(&what).await.unwrap(), first);
            other.stop(&what.hostname, Duration::from_secs(5)).await.unwrap();
        }
    });
}

#[test]
fn what_was_made_is_started_and_what_has_ended_is_made_again() {
    let Some(pool) = Pool::new("found") else { return };
    run(async {
        let docker = pool.docker().await;
        let hostname = pool.hostname("a");
        let labels = [format!("{HOSTNAME}={hostname}"), "balancer.seat=4".to_owned()];
        let labels = labels.each_ref().map(String::as_str);
        let made = pool.make(&pool.slug("a"), &labels, &[IMAGE]);
        assert_eq!(docker.list().await.unwrap()[0].condition, Condition::Made);

        // On another seat it is another's.
        for other in [Some(5), None] {
            let refused = docker.start(&spec(&hostname, other)).await.unwrap_err();
            assert!(matches!(refused, RuntimeError::NameTaken(_)), "{refused:?}");
        }
        let what = spec(&hostname, Some(4));
        assert_eq!(docker.start(&what).await.unwrap().condition, Condition::Running);
        let id = || super::docker(&["inspect", "--format", "{{.Id}}", &pool.slug("a")]);
        assert_eq!(id(), made);

        super::docker(&["kill", &made]);
        let death = Condition::Dead(Death::Killed(9));
        until(&docker, "the death", |all| all.iter().find(|it| it.condition == death).cloned())
            .await;
        assert_eq!(docker.start(&what).await.unwrap().condition, Condition::Running);
        assert_ne!(id(), made);

        // What is leaving does not keep a new one from coming.
        docker.mark(&what.hostname, Mark::Leaving).await.unwrap();
        let again = docker.start(&spec(&hostname, Some(6))).await.unwrap();
        assert_eq!(again.place, seat(6));
        assert_eq!(docker.list().await.unwrap(), [again]);
        assert_eq!(pool.names().len(), 2);
        docker.stop(&what.hostname, Duration::from_secs(5)).await.unwrap();
        assert_eq!(pool.names(), Vec::<String>::new());
    });
}

#[test]
fn a_strangers_name_is_taken_and_nothing_happens_to_it() {
    let Some(pool) = Pool::new("taken") else { return };
    run(async {
        let docker = pool.docker().await;
        let (name, other) = (pool.slug("a"), format!("{POOL}={}-other", pool.name));
        // Of another pool, though with the same hostname.
        let hostname = format!("{HOSTNAME}={}", pool.hostname("a"));
        let labels = ["--label", &other, "--label", &hostname, "--label", "balancer.seat=1"];
        let made = [&["create", "--name", &name][..], &labels, &[IMAGE]].concat();
        let id = super::docker(&made);
        let refused = docker.start(&spec(&pool.hostname("a"), Some(1))).await;
        let listing = docker.list().await;
        docker.mark(&spec(&pool.hostname("a"), None).hostname, Mark::Leaving).await.unwrap();
        docker.stop(&spec(&pool.hostname("a"), None).hostname, Duration::ZERO).await.unwrap();
        let state = ["inspect", "--format", "{{.Id}} {{.State.Status}}", &name];
        let after = try_docker(&state);
        super::docker(&["rm", "-f", &id]);
        assert!(matches!(refused, Err(RuntimeError::NameTaken(taken)) if taken == name));
        assert_eq!(listing.unwrap(), []);
        assert_eq!(after, Ok(format!("{id} created")));
    });
}

#[test]
fn what_cannot_be_started_leaves_nothing() {
    let Some(pool) = Pool::new("half-made") else { return };
    run(async {
        let docker = pool.docker().await;
        let mut what = script(&pool.hostname("a"), 1, "");
        let command = Some(vec!["/no/such/program".to_owned()]);
        let spec = Spec { command, ..what.release.spec().clone() };
        what.release = what.release.with_spec(spec.clone());
        // Behind an init it starts, and ends at once; without one the engine refuses.
        match docker.start(&what).await {
            Ok(_started) => {
                until(&docker, "its end", |all| all.iter().find_map(|it| it.condition.death()))
                    .await;
            }
            Err(error) => {
                assert!(chain(&error).contains("/no/such/program"), "{}", chain(&error));
                assert_eq!(pool.names(), Vec::<String>::new());
            }
        }
        let image = Some("ring-balancer/no-such-image".to_owned());
        what.release = Release::new(3, 0, &spec, Spec { image, ..spec.clone() });
        let what = ReplicaSpec { hostname: Hostname::parse(&pool.hostname("b")).unwrap(), ..what };
        let refused = docker.start(&what).await.unwrap_err();
        assert!(chain(&refused).contains("No such image: ring-balancer/no-such-image"));
        assert!(!pool.names().contains(&pool.slug("b")));
    });
}

#[test]
fn what_was_made_and_cannot_be_started_is_removed_again() {
    let Some(pool) = Pool::new("half-started") else { return };
    // Room for one besides the gateway.
    let (pid, network) = (std::process::id(), ["network", "create", "--subnet"]);
    let subnet = format!("10.251.{}.{}/30", pid / 64 % 256, pid % 64 * 4);
    docker(&[&network[..], &[&subnet, &pool.name]].concat());
    run(async {
        let docker = pool.docker().await;
        docker.start(&spec(&pool.hostname("a"), Some(1))).await.unwrap();
        let refused = docker.start(&spec(&pool.hostname("b"), Some(2))).await.unwrap_err();
        assert!(chain(&refused).contains("no available IPv4 addresses"), "{}", chain(&refused));
        assert_eq!(pool.names(), [pool.slug("a")]);
    });
}

#[test]
fn a_network_that_was_removed_is_made_again() {
    let Some(pool) = Pool::new("network") else { return };
    run(async {
        let docker = pool.docker().await;
        super::docker(&["network", "rm", &pool.name]);
        let started = docker.start(&spec(&pool.hostname("a"), Some(1))).await.unwrap();
        assert!(started.address.is_some(), "{started:?}");
    });
}

#[test]
fn conditions_are_seen() {
    let Some(pool) = Pool::new("conditions") else { return };
    run(async {
        let docker = pool.docker().await;
        let what = spec(&pool.hostname("a"), Some(1));
        docker.start(&what).await.unwrap();
        super::docker(&["pause", &pool.slug("a")]);
        let one = |condition| {
            move |all: Vec<Observed>| all.iter().any(|it| it.condition == condition).then_some(())
        };
        let paused = Condition::Troubled(Trouble::Paused);
        until(&docker, "the pause", one(paused)).await;
        super::docker(&["unpause", &pool.slug("a")]);
        until(&docker, "its end", one(Condition::Running)).await;

        let labels = [format!("{HOSTNAME}={}", pool.hostname("b")), "balancer.seat=2".to_owned()];
        let labels = labels.each_ref().map(String::as_str);
        let check = ["--health-cmd", "exit 1", "--health-interval", "100ms"];
        let check = [&check[..], &["--health-retries", "1", IMAGE]].concat();
        let sick = pool.make(&pool.slug("b"), &labels, &check);
        super::docker(&["start", &sick]);
        until(&docker, "the failed check", one(Condition::Troubled(Trouble::Unhealthy))).await;
        super::docker(&["rm", "-f", &sick]);

        // Nothing came of it yet, or ever does.
        let deaf = script(&pool.hostname("c"), 3, DEAF);
        docker.start(&deaf).await.unwrap();
        let name = pool.slug("c");
        super::docker(&["kill", "--signal", "WINCH", &name]);
        sleep(Duration::from_millis(200)).await;
        let listing = docker.list().await.unwrap();
        assert!(listing.iter().all(|it| it.condition == Condition::Running), "{listing:?}");
        let stop = thread::spawn(move || super::docker(&["stop", "-t", "2", &name]));
        until(&docker, "the stop", one(Condition::Troubled(Trouble::Stopping))).await;
        until(&docker, "the death", one(Condition::Dead(Death::Killed(9)))).await;
        stop.join().unwrap();
        super::docker(&["start", &pool.slug("c")]);
        until(&docker, "the start", |all| {
            all.iter().all(|it| it.condition == Condition::Running).then_some(())
        })
        .await;
    });
}

#[test]
fn a_containers_own_stop_signal_tells_it_to_end_and_other_signals_do_not() {
    let Some(pool) = Pool::new("stop-signal") else { return };
    run(async {
        let docker = pool.docker().await;
        let labels = [format!("{HOSTNAME}={}", pool.hostname("a")), "balancer.seat=1".to_owned()];
        let labels = labels.each_ref().map(String::as_str);
        let deaf = "trap '' USR1 USR2; while :; do sleep 0.1; done";
        let rest = ["--stop-signal", "SIGUSR1", "--init", DEBIAN, "sh", "-c", deaf];
        let id = pool.make(&pool.slug("a"), &labels, &rest);
        super::docker(&["start", &id]);
        sleep(Duration::from_millis(300)).await;
        for (signal, condition) in
            [("USR2", Condition::Running), ("USR1", Condition::Troubled(Trouble::Stopping))]
        {
            super::docker(&["kill", "--signal", signal, &id]);
            sleep(Duration::from_millis(100)).await;
            assert_eq!(docker.list().await.unwrap()[0].condition, condition, "{signal}");
        }
    });
}

#[test]
fn another_balancer_learns_that_what_is_gone_was_meant_to_go() {
    let Some(pool) = Pool::new("left") else { return };
    run(async {
        let (one, other) = (pool.docker().await, pool.docker().await);
        let what = spec(&pool.hostname("a"), Some(3));
        let started = one.start(&what).await.unwrap();
        one.mark(&what.hostname, Mark::Leaving).await.unwrap();
        one.stop(&what.hostname, Duration::from_secs(5)).await.unwrap();
        let vanished = Condition::Dead(Death::Vanished);
        let left = until(&other, "what has left", |all| {
            all.into_iter().find(|it| it.condition == vanished)
        })
        .await;
        assert_eq!((left.hostname, left.place, left.leaving), (started.hostname, seat(3), true));
        assert_eq!(one.list().await.unwrap(), []);

        let again = one.start(&what).await.unwrap();
        assert_eq!(other.list().await.unwrap(), [again]);
    });
}

#[test]
fn a_stop_is_gentle_then_not_and_does_not_wait_for_the_frozen() {
    let Some(pool) = Pool::new("stops") else { return };
    run(async {
        let docker = pool.docker().await;
        let stop = async |name: &str, grace: u64| {
            let began = Instant::now();
            let hostname = Hostname::parse(&pool.hostname(name)).unwrap();
            docker.stop(&hostname, Duration::from_secs(grace)).await.unwrap();
            assert!(!pool.names().contains(&pool.slug(name)));
            began.elapsed()
        };
        docker.start(&spec(&pool.hostname("a"), Some(1))).await.unwrap();
        docker.start(&script(&pool.hostname("b"), 2, DEAF)).await.unwrap();
        docker.start(&script(&pool.hostname("c"), 3, DEAF)).await.unwrap();
        let gentle = stop("a", 15).await;
        assert!(gentle < Duration::from_secs(10), "{gentle:?}");
        let deaf = stop("b", 1).await;
        assert!(deaf >= Duration::from_secs(1), "{deaf:?}");
        super::docker(&["pause", &pool.slug("c")]);
        let frozen = stop("c", 15).await;
        assert!(frozen < Duration::from_secs(10), "{frozen:?}");
        eprintln!("docker: stop: gentle {gentle:?}, deaf with 1 s {deaf:?}, frozen {frozen:?}");

        // Two at once.
        let what = spec(&pool.hostname("d"), Some(4));
        docker.start(&what).await.unwrap();
        let (other, grace) = (pool.docker().await, Duration::from_secs(5));
        let both =
            tokio::join!(docker.stop(&what.hostname, grace), other.stop(&what.hostname, grace));
        assert!(matches!(both, (Ok(()), Ok(()))), "{both:?}");
        until(&docker, "nothing", |all| all.is_empty().then_some(())).await;
    });
}
