//! What follows the load: scaling, the overload controller, limits.

use super::*;

#[test]
fn a_fleet_follows_its_load_where_that_is_asked_for() {
    assert_eq!(checked("").unwrap().scale, None);
    assert_eq!(checked("[scale]").unwrap().scale, None);
    let defaults = ScaleConfig {
        min: 1,
        max: 1_000,
        target_in_flight: 20.0,
        interval: Duration::from_secs(15),
        cool_down: Duration::from_secs(300),
        tolerance: 0.1,
    };
    let config = checked("[scale]\ntarget_in_flight = 20").unwrap();
    assert_eq!((config.scale, config.replicas), (Some(defaults), 3));
    let by_file = checked(
        "[scale]\nmin = 2\nmax = 9\ntarget_in_flight = 0.5\ninterval = \"100ms\"\n\
         cool_down = \"1m\"\ntolerance = \"0%\"",
    );
    let by_flags = flagged(&[
        "--scale-min=2",
        "--scale-max=9",
        "--scale-target-in-flight=0.5",
        "--scale-interval=100ms",
        "--scale-cool-down=1m",
        "--scale-tolerance=0%",
    ]);
    let all = ScaleConfig {
        min: 2,
        max: 9,
        target_in_flight: 0.5,
        interval: Duration::from_millis(100),
        cool_down: Duration::from_secs(60),
        tolerance: 0.0,
    };
    assert_eq!(by_file.unwrap().scale, Some(all));
    assert_eq!(by_flags.unwrap().scale, Some(all));
}

#[test]
fn the_bounds_of_scaling_are_those_of_the_fleet_and_of_its_first_replicas() {
    let scaled = |before: &str, table: &str| {
        checked(&format!("{before}\n[scale]\ntarget_in_flight = 4\n{table}"))
    };
    let most = |before| scaled(before, "").unwrap().scale.unwrap().max;
    assert_eq!([most("max_replicas = 7"), most("placement = \"classic\"")], [7, 56]);
    let first = |table| scaled("", table).unwrap().replicas;
    assert_eq!([first("min = 5"), first("max = 2"), first("min = 2\nmax = 4")], [5, 2, 3]);
    assert_eq!(scaled("replicas = 4", "min = 4\nmax = 4").unwrap().replicas, 4);
    assert_eq!(scaled("max_replicas = 2", "").unwrap().replicas, 2);
    for (before, table, said) in [
        ("", "max = 1001", "'scale.max' must be 1 to 1000 ('max_replicas' is 1000, placement ring"),
        ("", "max = 0", "'scale.max' must be 1 to 1000 ('max_replicas' is 1000"),
        ("max_replicas = 7", "max = 8", "'scale.max' must be 1 to 7 ('max_replicas' is 7"),
        (
            "placement = \"classic\"",
            "max = 57",
            "'scale.max' must be 1 to 56 ('max_replicas' is 1000, placement classic has 56 seats), \
             not 57",
        ),
        ("", "min = 0", "'scale.min' must be 1 to 1000 ('scale.max'), not 0"),
        ("", "min = 5\nmax = 4", "'scale.min' must be 1 to 4 ('scale.max'), not 5"),
        ("replicas = 5", "max = 4", "'replicas' must be 1 to 4 ('scale.min', 'scale.max'), not 5"),
        ("replicas = 1", "min = 2", "'replicas' must be 2 to 1000 ('scale.min', 'scale.max'), not"),
        ("servers = [\"a:1\"]", "", "'scale' must be left out for listed replicas"),
        ("", "interval = \"99ms\"", "'scale.interval' must be 100ms to 24h, not 99ms"),
        ("", "cool_down = \"25h\"", "'scale.cool_down' must be 1ms to 24h, not 1day 1h"),
        ("", "tolerance = \"91%\"", "'scale.tolerance' must be 0% to 90%, not 91%"),
    ] {
        let told = scaled(before, table).expect_err(table);
        assert!(told.starts_with(said), "{before} {table}: {told}");
    }
    for (table, said) in [
        ("min = 2", "'scale.target_in_flight' must be set where another key of [scale] is"),
        ("target_in_flight = 0", "'scale.target_in_flight' must be 0.01 to 1000000, not 0"),
        ("target_in_flight = nan", "'scale.target_in_flight' must be 0.01 to 1000000, not NaN"),
        ("target_in_flight = inf", "'scale.target_in_flight' must be 0.01 to 1000000, not inf"),
        ("target = 4", "unknown field `target`, expected one of `min`, `max`"),
    ] {
        let told = checked(&format!("[scale]\n{table}")).expect_err(table);
        assert!(told.contains(said), "{table}: {told}");
    }
}

#[test]
fn the_overload_controller_is_on_where_anything_is_said_of_it() {
    assert_eq!(checked("").unwrap().overload, None);
    let relief = checked("[overload]\ncapacity = 100").unwrap().overload.unwrap();
    assert_eq!(relief.interval, Duration::from_secs(10));
    let decide = relief.decide;
    assert_eq!((decide.min_ready, decide.capacity), (2, 100));
    assert_eq!((decide.max_load, decide.resume_load), (0.75, 0.75));
    assert_eq!(checked("[overload]\ncapacity = 100\nenabled = false").unwrap().overload, None);
    assert!(flagged(&["--overload-enabled"]).unwrap().overload.is_some());
    for (text, complaint) in [
        ("min_ready = 0", "'overload.min_ready' must be 1 to 1000000, not 0"),
        ("capacity = 0", "'overload.capacity' must be 1 to 1000000000, not 0"),
        ("max_load = 1.5", "'overload.max_load' must be 0 to 1, not 1.5"),
        ("max_load = nan", "'overload.max_load' must be 0 to 1, not NaN"),
        (
            "max_load = 0.5\nresume_load = 0.6",
            "'overload.resume_load' must be 0 to 0.5 ('overload.max_load'), not 0.6",
        ),
        ("interval = \"0s\"", "'overload.interval' must be 1ms to 24h, not 0s"),
    ] {
        assert_eq!(checked(&format!("[overload]\n{text}")).unwrap_err(), complaint);
    }
}

#[test]
fn the_names_that_controllers_have_are_kept() {
    let with = |settings: Settings, variables: &[(&str, &str)]| {
        let variables: std::collections::BTreeMap<_, _> = variables.iter().copied().collect();
        let settings = settings.or_kept_names(|name| variables.get(name).map(ToString::to_string));
        settings.and_then(Config::check).map_err(|error| error.to_string())
    };
    let variables = [
        ("MIN_NUMBER_OF_SERVERS", "3"),
        ("MAX_ACCEPTABLE_LOAD", "0.5"),
        ("UPDATE_INTERVAL", "7"),
        ("LOG_LEVEL", "WARNING"),
    ];
    let config = with(Settings::default(), &variables).unwrap();
    let relief = config.overload.unwrap();
    assert_eq!((relief.decide.min_ready, relief.decide.max_load), (3, 0.5));
    assert_eq!((relief.interval, config.log.filter.as_str()), (Duration::from_secs(7), "warn"));
    // The balancer's own names win; an empty variable says nothing.
    let mut settings = Settings::default();
    settings.overload.min_ready = Some(4);
    let config = with(settings, &variables[..1]).unwrap();
    assert_eq!(config.overload.unwrap().decide.min_ready, 4);
    assert_eq!(with(Settings::default(), &[("UPDATE_INTERVAL", "")]).unwrap().overload, None);
    for (name, value, complaint) in [
        (
            "MIN_NUMBER_OF_SERVERS",
            "two",
            "'MIN_NUMBER_OF_SERVERS' must be a whole number, not \"two\"",
        ),
        ("MAX_ACCEPTABLE_LOAD", "75%", "'MAX_ACCEPTABLE_LOAD' must be 0 to 1, not \"75%\""),
        ("UPDATE_INTERVAL", "soon", "'UPDATE_INTERVAL' is wrong: \"soon\" is no duration"),
        ("UPDATE_INTERVAL", "-1", "'UPDATE_INTERVAL' is wrong: \"-1\" is no duration"),
        ("LOG_LEVEL", "loud", "'LOG_LEVEL' is wrong: \"loud\" is no level: TRACE, DEBUG"),
    ] {
        let told = with(Settings::default(), &[(name, value)]).unwrap_err();
        assert!(told.starts_with(complaint), "{told}");
    }
}

#[test]
fn admission_needs_a_limit_and_says_which_values_are_good() {
    assert_eq!(checked("").unwrap().admission, None);
    let admission = checked("[admission]\nper_replica = 3").unwrap().admission.unwrap();
    assert_eq!((admission.per_replica, admission.in_flight), (3, usize::MAX));
    assert_eq!((admission.queue, admission.wait), (1_024, Duration::from_secs(1)));
    let adaptive = checked("[admission]\ntarget_latency = \"50ms\"").unwrap().admission.unwrap();
    assert_eq!(adaptive.adaptive.unwrap().most, 1_000);
    for (text, complaint) in [
        (
            "in_flight = 0",
            "'admission.in_flight' must be at least 1, not 0; leave it out for no limit",
        ),
        (
            "per_replica = 0",
            "'admission.per_replica' must be at least 1, not 0; leave it out for no limit",
        ),
        (
            "queue = 5",
            "'admission.queue' needs a limit: 'admission.in_flight', 'per_replica' or 'target_latency'",
        ),
        ("in_flight = 1\nwait = \"0s\"", "'admission.wait' must be 1ms to 24h, not 0s"),
    ] {
        assert_eq!(checked(&format!("[admission]\n{text}")).unwrap_err(), complaint);
    }
}

#[test]
fn a_balance_factor_is_above_one_and_for_hash() {
    let factor = |text: &str| {
        let config = checked(text)?;
        Ok(config
            .routes
            .iter()
            .map(|route| route.balance_factor.map(|it| it.to_string()))
            .collect())
    };
    let given = |factor: &str| Some(factor.to_owned());
    assert_eq!(factor("balance_factor = 1.25"), Ok(vec![given("1.25")]));
    let routes = "balance_factor = 1.5\n[[route]]\npaths = [\"/a\"]\nbalance_factor = 2.0\n\
                  [[route]]\npaths = [\"/b\"]\npolicy = \"round-robin\"";
    assert_eq!(factor(routes), Ok(vec![given("2"), None, given("1.5")]));
    let refused = |text: &str| -> String {
        let factors: Result<Vec<Option<String>>, String> = factor(text);
        factors.unwrap_err()
    };
    assert_eq!(
        refused("balance_factor = 1"),
        "'balance_factor' must be above 1 and at most 1000, not 1"
    );
    assert_eq!(
        refused("balance_factor = 1.2\npolicy = \"two-choices\""),
        "'balance_factor' needs policy = \"hash\""
    );
    assert_eq!(
        refused("[[route]]\nname = \"a\"\npolicy = \"least-requests\"\nbalance_factor = 2"),
        "'route \"a\": balance_factor' needs policy = \"hash\""
    );
}
