use clap::builder::Resettable;
use clap::{Args as _, Command, FromArgMatches as _};

use super::*;

/// Parses a command line, whatever the environment of the test is.
fn parse(arguments: &[&str]) -> Result<Options, String> {
    Options::augment_args(Command::new("server").no_binary_name(true))
        .mut_args(|argument| argument.env(Resettable::Reset))
        .try_get_matches_from(arguments)
        .and_then(|matches| Options::from_arg_matches(&matches))
        .map_err(|error| error.to_string())
}

#[test]
fn no_arguments_give_the_defaults() {
    assert_eq!(parse(&[]).unwrap(), Options::default());
    assert_eq!(Options::default().address(), "127.0.0.1:5000".parse().unwrap());
    assert_eq!(Options::default().check(), Ok(()));
}

#[test]
fn every_option_can_be_given() {
    let given = parse(&[
        "--listen=[::1]:80",
        "--port=81",
        "--server-id=Server 4",
        "--workers=2",
        "--skip-some-requests",
        "--fail-requests",
        "--username=alice",
        "--latency=1s 500ms",
        "--slow-share=0.05",
        "--slow-factor=10",
        "--concurrency=4",
        "--queue=0",
        "--seed=7",
        "--journal=localhost:9000",
        "--start-delay=3s",
        "--start-delay-share=0.1",
        "--shutdown-timeout=1m",
    ]);
    let expected = Options {
        listen: Some("[::1]:80".parse().unwrap()),
        port: 81,
        server_id: "Server 4".to_owned(),
        workers: Workers::new(2).unwrap(),
        skip_some_requests: true,
        fail_requests: true,
        username: Some("alice".to_owned()),
        latency: Duration::from_millis(1500),
        slow_share: Share::new(0.05).unwrap(),
        slow_factor: Factor::new(10.0).unwrap(),
        concurrency: NonZeroU32::new(4),
        queue: Some(0),
        seed: Some(7),
        journal: Some("localhost:9000".to_owned()),
        start_delay: Duration::from_secs(3),
        start_delay_share: Share::new(0.1).unwrap(),
        shutdown_timeout: Duration::from_secs(60),
    };
    assert_eq!(given.unwrap(), expected);
    assert_eq!(expected.check(), Ok(()));
    assert_eq!(expected.address(), "[::1]:80".parse().unwrap());
}

#[test]
fn the_port_alone_stays_on_loopback() {
    assert_eq!(parse(&["--port=0"]).unwrap().address(), "127.0.0.1:0".parse().unwrap());
}

#[test]
fn a_bad_value_is_refused_by_the_name_of_its_option_and_what_is_allowed() {
    for (option, value, allowed) in [
        ("--listen", "localhost", "ADDRESS:PORT"),
        ("--port", "65536", "0..=65535"),
        ("--workers", "0", "from 1 to 512"),
        ("--workers", "513", "from 1 to 512"),
        ("--latency", "5", "5ms"),
        ("--slow-share", "1.5", "from 0 to 1"),
        ("--slow-share", "-0.5", "from 0 to 1"),
        ("--slow-factor", "0.5", "at least 1"),
        ("--concurrency", "0", "at least 1"),
        ("--queue", "-1", "0 or more"),
        ("--queue", "many", "0 or more"),
        ("--seed", "-1", "invalid digit"),
        ("--journal", "9000", "HOST:PORT"),
        ("--journal", "host:99999", "HOST:PORT"),
        ("--start-delay", "3", "3ms"),
        ("--start-delay-share", "2", "from 0 to 1"),
        ("--shutdown-timeout", "soon", "number"),
    ] {
        let error = parse(&[option, value]).unwrap_err();
        assert!(error.contains(option), "{error}");
        assert!(error.contains(allowed), "{error}");
    }
    assert!(parse(&["--server-id="]).unwrap_err().contains("--server-id"));
}

#[test]
fn a_queue_without_concurrency_is_refused() {
    let options = Options { queue: Some(3), ..Options::default() };
    let error = options.check().unwrap_err();
    assert_eq!(error, OptionsError::QueueWithoutConcurrency { queue: 3 });
    assert!(error.to_string().contains("--queue 3") && error.to_string().contains("at least 1"));
}

#[test]
fn a_switch_in_the_environment_is_a_yes_or_a_no() {
    for yes in ["true", "TRUE", "1", "yes", "on"] {
        assert_eq!(switch(yes), Ok(true));
    }
    for no in ["false", "0", "no", "off", ""] {
        assert_eq!(switch(no), Ok(false));
    }
    assert_eq!(switch("maybe"), Err("must be true or false"));
}

#[test]
fn about_the_asked_for_share_of_the_starts_is_delayed() {
    let delayed = |delay, share| {
        let share = Share::new(share).unwrap();
        let options = |seed| Options {
            start_delay: Duration::from_secs(delay),
            start_delay_share: share,
            seed: Some(seed),
            ..Options::default()
        };
        (0..1_000).filter(|seed| options(*seed).is_delayed()).count()
    };
    assert_eq!((delayed(3, 0.0), delayed(3, 1.0), delayed(0, 1.0)), (0, 1_000, 0));
    // A binomial: the mean is 100, the standard deviation 9.5, four of them 38.
    assert!((62..=138).contains(&delayed(3, 0.1)));
}

#[test]
fn an_empty_user_name_is_none() {
    let named = |name: &str| Options { username: Some(name.to_owned()), ..Options::default() };
    assert_eq!(named("").known_user(), None);
    assert_eq!(named("alice").known_user(), Some("alice"));
}
