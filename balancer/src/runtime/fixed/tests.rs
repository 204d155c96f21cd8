use std::collections::BTreeMap;
use std::future::ready;
use std::io;
use std::net::SocketAddr;

use super::*;

const SOON: Duration = Duration::from_millis(20);

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(20);

/// What names come to, until it is changed.
type Zone = Rc<RefCell<BTreeMap<&'static str, Vec<SocketAddr>>>>;

fn at(ips: &[&str]) -> Vec<SocketAddr> {
    ips.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 80)).collect()
}

async fn open(servers: &[&str], zone: &Zone) -> Fixed {
    let servers = servers.iter().map(|server| server.parse().unwrap()).collect();
    let config = ServersConfig { servers, file: None, capacity: None };
    let zone = Rc::clone(zone);
    let lookup = move |name: String| {
        let found = zone.borrow().get(name.as_str()).cloned();
        ready(found.ok_or_else(|| io::Error::other("no such name")))
    };
    Fixed::open_with(config, Resolver::asking(lookup, SOON), SOON).await
}

async fn names(fixed: &Fixed) -> Vec<String> {
    let mut listing = fixed.list().await.unwrap();
    listing.retain(|replica| replica.address.is_some());
    listing.iter().map(|replica| replica.hostname.to_string()).collect()
}

/// With tasks of this thread.
fn run(test: impl Future<Output = ()>) {
    actix_web::rt::System::new().block_on(test);
}

#[test]
fn names_are_followed_and_what_fails_stays() {
    run(async {
        let zone = Zone::default();
        zone.borrow_mut().insert("web:80", at(&["10.0.0.1"]));
        let fixed = open(&["web:80", "nobody:80", "10.0.0.9:80"], &zone).await;
        assert_eq!(names(&fixed).await, ["web:80", "10.0.0.9:80"]);
        timeout(PATIENCE, fixed.changed()).await.expect("the news of a name without an address");
        let listing = fixed.list().await.unwrap();
        let error = listing[1].address_error.as_deref();
        assert_eq!(error, Some("cannot resolve \"nobody:80\": no such name"));
        // One more address, and a name that had none.
        zone.borrow_mut().insert("web:80", at(&["10.0.0.1", "10.0.0.2"]));
        zone.borrow_mut().insert("nobody:80", at(&["10.0.0.3"]));
        let all = ["web:80", "web:80/10.0.0.2", "nobody:80", "10.0.0.9:80"];
        while names(&fixed).await != all {
            timeout(PATIENCE, fixed.changed()).await.expect("names that are followed");
        }
        zone.borrow_mut().clear();
        // Each of the two names may have told of itself.
        let _told = timeout(5 * SOON, fixed.changed()).await.is_ok();
        let nothing = timeout(5 * SOON, fixed.changed()).await;
        assert!(nothing.is_err(), "what is not known changes nothing");
        assert_eq!(names(&fixed).await, all);
    });
}

#[test]
fn servers_are_added_and_taken_back() {
    run(async {
        let zone = Zone::default();
        zone.borrow_mut().insert("web:80", at(&["10.0.0.1", "10.0.0.2"]));
        let fixed = open(&["10.0.0.9:80"], &zone).await;
        let server = |line: &str| line.parse::<Server>().unwrap();
        let added = fixed.enlist(&server("web:80 weight=2")).await.unwrap();
        assert_eq!(added.iter().map(|replica| replica.weight).collect::<Vec<_>>(), [2, 2]);
        assert_eq!(names(&fixed).await.len(), 3);
        for (line, told) in [
            ("WEB:80", "\"WEB:80\" is listed already"),
            ("10.0.0.2:80", "\"10.0.0.2:80\" is listed already"),
            ("nobody:80", "cannot resolve \"nobody:80\""),
        ] {
            let error = fixed.enlist(&server(line)).await.unwrap_err();
            assert_eq!(error.to_string(), told);
        }
        fixed.withdraw(&Hostname::listed("10.0.0.9:80"));
        fixed.withdraw(&Hostname::listed("Web:80"));
        assert_eq!(names(&fixed).await, ["10.0.0.9:80"]);
        fixed.unlist(&Hostname::listed("10.0.0.9:80"));
        assert!(names(&fixed).await.is_empty());
    });
}

#[test]
fn a_name_that_hangs_does_not_hold_up_the_start_for_long() {
    run(async {
        let resolver = Resolver::asking(|_| future::pending(), SOON);
        let servers = ["hangs:80", "10.0.0.9:80"].map(|server| server.parse().unwrap()).into();
        let config = ServersConfig { servers, file: None, capacity: None };
        let fixed = Fixed::open_with(config, resolver, SOON).await;
        assert_eq!(names(&fixed).await, ["10.0.0.9:80"]);
    });
}
