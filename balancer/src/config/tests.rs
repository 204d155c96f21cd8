mod load;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Instant;

use clap::{Args, Command};

use super::*;
use crate::fleet::release::Spec;
use crate::routing::placement::{MaglevConfig, RingConfig, Secret, TableSize};

fn checked(text: &str) -> Result<Config, String> {
    let settings: Settings = toml::from_str(text).map_err(|error| error.to_string())?;
    Config::check(settings).map_err(|error| error.to_string())
}

fn flagged(arguments: &[&str]) -> Result<Config, String> {
    let command = Settings::augment_args(Command::new("balancer").no_binary_name(true));
    let matches = command.try_get_matches_from(arguments).map_err(|error| error.to_string())?;
    let settings = clap::FromArgMatches::from_arg_matches(&matches).unwrap();
    Config::check(settings).map_err(|error| error.to_string())
}

/// Each table, and how the flags of its keys begin.
const TABLES: [(&str, &str); 18] = [
    ("ring", "ring"),
    ("classic", "classic"),
    ("maglev", "maglev"),
    ("engine", "engine"),
    ("health", "health"),
    ("timeouts", "timeout"),
    ("limits", "limit"),
    ("retry", "retry"),
    ("forwarded", "forwarded"),
    ("tls", "tls"),
    ("admin", "admin"),
    ("outliers", "outliers"),
    ("overload", "overload"),
    ("admission", "admission"),
    ("respawn", "respawn"),
    ("roll", "roll"),
    ("scale", "scale"),
    ("compat", "compat"),
];

/// The keys of a table, or those outside of any, as the refusal of an unknown one lists them.
fn keys(table: &str) -> Vec<String> {
    let said = toml::from_str::<Settings>(&format!("{table}\nunknown = 1")).unwrap_err();
    let names = said.message().split_once("expected ").expect("says what is known").1;
    names.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn every_key_is_a_flag_and_a_variable_and_the_other_way_round() {
    let mut expected = BTreeSet::new();
    for key in keys("") {
        match TABLES.iter().find(|(table, _)| *table == key) {
            // Several of each are of the file alone.
            None if key == "route" => {}
            Some((table, prefix)) => {
                let keys = keys(&format!("[{table}]"));
                expected.extend(keys.iter().map(|key| format!("{prefix}_{key}")));
            }
            None => _ = expected.insert(key),
        }
    }
    assert!(expected.len() > 60, "{expected:?}");
    let command = Settings::augment_args(Command::new("balancer"));
    let mut known = BTreeSet::new();
    for flag in command.get_arguments() {
        let key = flag.get_long().unwrap().replace('-', "_");
        let variable = format!("BALANCER_{}", key.to_ascii_uppercase());
        assert_eq!(flag.get_env().unwrap(), variable.as_str());
        known.insert(key);
    }
    assert_eq!(known, expected);
}

#[test]
fn a_pool_is_shared_only_under_a_name_and_only_on_an_engine() {
    let docker = |more: &str| checked(&format!("runtime = \"docker\"\n{more}"));
    let pool = |config: Config| match config.runtime {
        RuntimeConfig::Docker(docker) => (docker.pool, docker.shared),
        other @ (RuntimeConfig::Process { .. } | RuntimeConfig::Static(_)) => panic!("{other:?}"),
    };
    assert_eq!(pool(docker("").unwrap()), (None, false));
    let shared = docker("pool = \"shop\"\nshared = true").unwrap();
    assert_eq!(pool(shared), (Some("shop".to_owned()), true));
    let alone = flagged(&["--runtime", "docker", "--pool", "shop", "--shared=false"]).unwrap();
    assert_eq!(pool(alone), (Some("shop".to_owned()), false));
    assert!(pool(flagged(&["--runtime", "docker", "--pool", "x", "--shared"]).unwrap()).1);
    let refused = docker("shared = true").unwrap_err();
    assert_eq!(refused, "'shared' needs 'pool': the same name at every balancer");
    let refused = checked("shared = true").unwrap_err();
    assert!(refused.starts_with("'shared' needs runtime = \"docker\""), "{refused}");
    for bad in ["", "a b"] {
        let refused = docker(&format!("pool = \"{bad}\"")).unwrap_err();
        assert_eq!(refused, "'pool' must not be empty or have spaces");
    }
}

#[test]
fn a_change_of_the_pool_needs_a_restart() {
    let running = checked("runtime = \"docker\"\npool = \"shop\"").unwrap();
    let read = checked("runtime = \"docker\"\npool = \"shop\"\nshared = true").unwrap();
    assert_eq!(read.after(running).1, ["runtime, pull, network, port, pool, shared, servers"]);
}

#[test]
fn without_settings_the_request_path_has_its_documented_bounds() {
    let config = checked("").unwrap();
    let Timeouts { client_body, replica_body, tunnel, .. } = config.timeouts;
    assert_eq!([client_body, replica_body, tunnel].map(|time| time.as_secs()), [30, 30, 3_600]);
    let limits = Limits {
        head: 16_384,
        fields: 100,
        response_fields: 256,
        target: 8_192,
        body: None,
        connections: None,
        idle: usize::MAX,
        accepted: 1 << 24,
        admin: 1_024,
        connections_per_client: None,
        deliveries: 1_000,
    };
    assert_eq!(config.limits, limits);
    let retry = RetryConfig {
        attempts: 5,
        budget: 0.2,
        min_per_second: 10,
        deadline: Duration::from_secs(30),
        body: 65_536,
        quarantine: Duration::from_secs(30),
    };
    assert_eq!(config.retry, retry);
    assert_eq!(config.forwarded, ForwardedConfig::default());
    assert!(config.tls.is_none() && !config.half_close);
}

#[test]
fn a_shutdown_has_one_deadline_which_leaves_replicas_their_time() {
    let now = Instant::now();
    for (text, traffic, end) in [
        ("", 10_000, 25_000),
        ("[timeouts]\ndrain = \"1s\"\nstop = \"2s\"", 1_000, 8_000),
        ("[timeouts]\nshutdown = \"60s\"", 10_000, 60_000),
        ("[timeouts]\nshutdown = \"20s\"", 10_000, 20_000),
        ("[timeouts]\nshutdown = \"4s\"", 2_000, 4_000),
        ("[timeouts]\ndrain = \"1s\"\nshutdown = \"4s\"", 1_000, 4_000),
    ] {
        let deadlines = checked(text).unwrap().timeouts.shutdown_from(now);
        let [traffic, end] = [traffic, end].map(|ms| now + Duration::from_millis(ms));
        assert_eq!(deadlines, ShutdownDeadlines { traffic, end }, "{text}");
    }
}

#[test]
fn an_engine_is_awaited_for_half_a_minute_or_as_long_as_is_said() {
    let wait = |config: Config| config.engine.wait;
    assert_eq!(wait(checked("").unwrap()), Duration::from_secs(30));
    assert_eq!(wait(checked("[engine]\nwait = \"0s\"").unwrap()), Duration::ZERO);
    assert_eq!(wait(flagged(&["--engine-wait", "2m"]).unwrap()), Duration::from_mins(2));
    let told = flagged(&["--engine-wait", "25h"]).unwrap_err();
    assert_eq!(told, "'engine.wait' must be 0s to 24h, not 1day 1h");
}

#[test]
fn the_host_of_health_checks_is_a_name_or_an_address_with_a_port_at_most() {
    let host = |host: &str| checked(&format!("[health]\nhost = {host:?}"));
    for good in ["web.example", "web_1:8080", "10.0.0.1", "[::1]:80", "a:"] {
        assert_eq!(host(good).unwrap().health.host.as_deref(), Some(good));
    }
    assert_eq!(checked("").unwrap().health.host, None);
    for bad in ["", ":80", "a b", "a/b", "a:99999", "a:b", "::1", "a,b", "u@a", "a\r\nX: y"] {
        let told = host(bad).unwrap_err();
        assert!(told.starts_with("'health.host' must be a host name or an address, with a port"));
        assert!(told.ends_with(&format!(", not {bad:?}")), "{told}");
    }
    let flag = flagged(&["--health-host", "web.example:81"]).unwrap();
    assert_eq!(flag.health.host.as_deref(), Some("web.example:81"));
}

#[test]
fn settings_of_the_engine_and_of_health_checks_need_a_restart() {
    let running = checked("").unwrap();
    let changed = checked("[engine]\nwait = \"1s\"\n[health]\nhost = \"a\"").unwrap();
    let (config, keys) = changed.after(running.clone());
    assert_eq!(keys, ["[engine]", "[health]"]);
    assert_eq!((config.engine, config.health), (running.engine, running.health));
}

#[test]
fn keys_and_flags_set_the_same() {
    let by_file = checked(
        "[timeouts]\nshutdown = \"1m\"\nclient_body = \"1s\"\nreplica_body = \"2s\"\n\
         tunnel = \"3m\"\n\
         [limits]\nhead = \"1MiB\"\nfields = 10000\nresponse_fields = 9\ntarget = \"1MiB\"\n\
         body = \"0\"\n\
         connections = 7\nconnections_per_client = 1\ndeliveries = 3\n\
         [retry]\nattempts = 1\nbudget = \"0.5%\"\nmin_per_second = 0\ndeadline = \"4s\"\n\
         body = \"16MiB\"\nquarantine = \"0s\"\n\
         [forwarded]\ntrust = [\"10.0.0.0/8\", \"::1\"]\nvia = \"edge-1\"\n\
         rfc7239 = true\nmax_passes = 2\n\
         [tls]\ncertificate = \"c.pem\"\nkey = \"k.pem\"\nlisten = \"127.0.0.1:5443\"\n\
         [compat]\nhalf_close = true",
    );
    let by_flags = flagged(&[
        "--timeout-shutdown=1m",
        "--timeout-client-body=1s",
        "--timeout-replica-body=2s",
        "--timeout-tunnel=3m",
        "--limit-head=1MiB",
        "--limit-fields=10000",
        "--limit-response-fields=9",
        "--limit-target=1MiB",
        "--limit-body=0",
        "--limit-connections=7",
        "--limit-connections-per-client=1",
        "--limit-deliveries=3",
        "--retry-attempts=1",
        "--retry-budget=0.5%",
        "--retry-min-per-second=0",
        "--retry-deadline=4s",
        "--retry-body=16MiB",
        "--retry-quarantine=0s",
        "--forwarded-trust=10.0.0.0/8,::1",
        "--forwarded-via=edge-1",
        "--forwarded-rfc7239",
        "--forwarded-max-passes=2",
        "--tls-certificate=c.pem",
        "--tls-key=k.pem",
        "--tls-listen=127.0.0.1:5443",
        "--compat-half-close",
    ]);
    let config = by_file.unwrap();
    assert_eq!(format!("{config:?}"), format!("{:?}", by_flags.unwrap()));
    assert_eq!(config.timeouts.tunnel, Duration::from_secs(180));
    assert_eq!((config.limits.target, config.limits.body), (1 << 20, Some(0)));
    assert_eq!((config.retry.budget, config.retry.body), (0.005, 16 << 20));
    assert_eq!(config.retry.quarantine, Duration::ZERO);
    let trust: Vec<String> = config.forwarded.trust.iter().map(ToString::to_string).collect();
    assert_eq!(trust, ["10.0.0.0/8", "::1/128"]);
    assert_eq!(config.tls.unwrap().listen, Some(SocketAddr::from(([127, 0, 0, 1], 5443))));
}

#[test]
fn listed_replicas_are_probed_less_often_unless_it_is_said_how_often() {
    for (text, seconds) in [
        ("", 1),
        ("servers = [\"a:1\"]", 10),
        ("servers = [\"a:1\"]\n[health]\ninterval = \"2s\"", 2),
    ] {
        let config = checked(text).unwrap();
        assert_eq!(config.health.interval, Duration::from_secs(seconds), "{text}");
        assert_eq!(config.admin.listed, text.contains("servers"));
    }
}

#[test]
fn more_servers_than_the_placement_has_seats_are_refused() {
    let servers = |n: u16| {
        let list: Vec<String> = (1..=n).map(|port| format!("a:{port}")).collect();
        checked(&format!("placement = \"classic\"\nservers = {list:?}"))
    };
    assert!(servers(56).is_ok());
    let told = servers(57).unwrap_err();
    assert!(told.contains("there must be at most 56 servers in all"), "{told}");
}

#[test]
fn placements_are_set_by_name_and_share_one_secret() {
    let hex = "000102030405060708090a0b0c0d0e0f";
    let secret = Secret([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
    let table_size = TableSize::new(101).unwrap();
    for (name, expected) in [
        ("ring", PlacementConfig::Ring(RingConfig { secret, ..RingConfig::default() })),
        ("ketama", PlacementConfig::Ketama),
        ("maglev", PlacementConfig::Maglev(MaglevConfig { table_size, secret })),
        ("rendezvous", PlacementConfig::Rendezvous(secret)),
        ("jump", PlacementConfig::Jump(secret)),
    ] {
        let ring = format!("[ring]\nsecret = \"{hex}\"\n[maglev]\ntable_size = 101");
        let file = format!("placement = \"{name}\"\nreplicas = 1\n{ring}");
        assert_eq!(checked(&file).unwrap().placement, expected);
        let flags = [
            format!("--placement={name}"),
            "--replicas=1".to_owned(),
            format!("--ring-secret={hex}"),
            "--maglev-table-size=101".to_owned(),
        ];
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        assert_eq!(flagged(&flags).unwrap().placement, expected);
        assert_eq!(expected.name(), name);
    }
    let default = checked("placement = \"maglev\"").unwrap().placement;
    assert_eq!(default, PlacementConfig::Maglev(MaglevConfig::default()));
    assert_eq!(default.capacity(), Some(6_553));
}

#[test]
fn a_table_of_maglev_has_a_size_that_fits_whether_it_is_used_or_not() {
    for (text, said) in [
        ("[maglev]\ntable_size = 100", "'maglev.table_size' must be 101 to 5000011, not 100"),
        (
            "[maglev]\ntable_size = 1000",
            "'maglev.table_size' must be a prime number such as 1009, not 1000",
        ),
        (
            "placement = \"maglev\"\nreplicas = 22\n[maglev]\ntable_size = 211",
            "'replicas' must be at most 21 ('max_replicas' is 1000, placement maglev has 21 seats)",
        ),
        (
            "placement = \"jump\"\nservers = [\"a:1\"]",
            "'placement' must not be \"jump\" for listed replicas: it needs seats",
        ),
    ] {
        let told = checked(text).expect_err(text);
        assert!(told.starts_with(said), "{text}: {told}");
    }
    assert!(checked("placement = \"jump\"").is_ok());
}

#[test]
fn a_flag_takes_one_key_of_a_table_and_leaves_the_others() {
    let file = toml::from_str("[limits]\nfields = 7\nhead = \"32KiB\"").unwrap();
    let flags: Settings = toml::from_str("[limits]\nfields = 8").unwrap();
    let config = Config::check(flags.or(file)).unwrap();
    assert_eq!((config.limits.fields, config.limits.head), (8, 32_768));
}

#[test]
fn a_value_out_of_bounds_is_refused_with_its_field_and_the_bounds() {
    for (text, said) in [
        ("[timeouts]\nclient_body = \"0s\"", "'timeouts.client_body' must be 1ms to 24h, not 0s"),
        ("[timeouts]\nreplica_body = \"2days\"", "'timeouts.replica_body' must be 1ms to 24h"),
        ("[timeouts]\ntunnel = \"25h\"", "'timeouts.tunnel' must be 1ms to 24h"),
        ("[timeouts]\nshutdown = \"0s\"", "'timeouts.shutdown' must be 1ms to 24h, not 0s"),
        ("[limits]\nhead = \"1023\"", "'limits.head' must be 1KiB to 1MiB, not 1023B"),
        ("[limits]\nhead = \"2MiB\"", "'limits.head' must be 1KiB to 1MiB, not 2MiB"),
        ("[limits]\nfields = 0", "'limits.fields' must be 1 to 10000, not 0"),
        ("[limits]\nfields = 10001", "'limits.fields' must be 1 to 10000, not 10001"),
        ("[limits]\nresponse_fields = 0", "'limits.response_fields' must be 1 to 10000, not 0"),
        ("[limits]\ntarget = \"63\"", "'limits.target' must be 64B to 16KiB ('limits.head')"),
        (
            "[limits]\nhead = \"4KiB\"\ntarget = \"5KiB\"",
            "'limits.target' must be 64B to 4KiB ('limits.head'), not 5KiB",
        ),
        ("[limits]\nconnections = 0", "'limits.connections' must be at least 1, not 0"),
        ("[limits]\ndeliveries = 0", "'limits.deliveries' must be at least 1, not 0"),
        (
            "[limits]\nconnections_per_client = 0",
            "'limits.connections_per_client' must be at least 1, not 0",
        ),
        ("[retry]\nattempts = 0", "'retry.attempts' must be 1 to 100, not 0"),
        ("[retry]\nattempts = 101", "'retry.attempts' must be 1 to 100, not 101"),
        ("[retry]\nbudget = \"100.5%\"", "'retry.budget' must be 0% to 100%, not 100.5%"),
        ("[retry]\nmin_per_second = 1000001", "'retry.min_per_second' must be 0 to 1000000"),
        ("[retry]\ndeadline = \"0s\"", "'retry.deadline' must be 1ms to 24h"),
        (
            "[retry]\nquarantine = \"25h\"",
            "'retry.quarantine' must be 0s (never) or 1ms to 24h, not 1day 1h",
        ),
        ("[retry]\nbody = \"17MiB\"", "'retry.body' must be 0B to 16MiB, not 17MiB"),
        ("[forwarded]\nvia = \"\"", "'forwarded.via' must be a name of ASCII letters"),
        ("[forwarded]\nvia = \"a b\"", "'forwarded.via' must be a name of ASCII letters"),
        ("[forwarded]\nvia = \"a:80\"", "'forwarded.via' must be a name of ASCII letters"),
        ("[forwarded]\nmax_passes = 0", "'forwarded.max_passes' must be 1 to 100, not 0"),
        ("[forwarded]\nmax_passes = 101", "'forwarded.max_passes' must be 1 to 100, not 101"),
    ] {
        let told = checked(text).expect_err(text);
        assert!(told.starts_with(said), "{text}: {told}");
    }
}

#[test]
fn an_unknown_key_or_a_value_of_a_wrong_kind_is_refused_with_what_is_known() {
    for (text, said) in [
        ("[limits]\nhaed = 1", "unknown field `haed`, expected one of `head`, `fields`"),
        ("[retry]\ntries = 1", "unknown field `tries`, expected one of `attempts`"),
        ("[forwarded]\nfrom = 1", "unknown field `from`, expected one of `trust`, `via`"),
        ("[tls]\ncert = 1", "unknown field `cert`, expected one of `certificate`"),
        ("[compat]\nclose = 1", "unknown field `close`, expected `unknown_path` or `half_close`"),
        ("[limits]\nbody = \"much\"", "\"much\" is no size such as 4096"),
        ("[retry]\nbudget = \"20\"", "\"20\" is no percentage such as 20% or 0.5%"),
        ("[forwarded]\ntrust = [\"proxy\"]", "\"proxy\" is no address or network such as"),
    ] {
        let told = checked(text).expect_err(text);
        assert!(told.contains(said), "{text}: {told}");
    }
}

#[test]
fn a_small_head_takes_the_target_with_it() {
    let limits = checked("[limits]\nhead = \"1KiB\"").unwrap().limits;
    assert_eq!((limits.head, limits.target), (1_024, 1_024));
}

#[test]
fn a_certificate_needs_its_key_and_a_listener_both() {
    for (text, said) in [
        ("certificate = \"c\"", "'tls.key' must be set: 'tls.certificate' is"),
        ("key = \"k\"", "'tls.certificate' must be set: 'tls.key' is"),
        ("listen = \"[::1]:1\"", "'tls.listen' needs 'tls.certificate' and 'tls.key'"),
        ("certificate = \"\"\nkey = \"k\"", "'tls.certificate' must be the path of a PEM file"),
    ] {
        let told = checked(&format!("[tls]\n{text}")).expect_err(text);
        assert_eq!(told, said, "{text}");
    }
    let tls = checked("[tls]\ncertificate = \"c\"\nkey = \"k\"").unwrap().tls.unwrap();
    assert_eq!((tls.certificate, tls.key, tls.listen), ("c".into(), "k".into(), None));
}

/// A configuration with these three listeners.
fn listening(traffic: &str, tls: &str, more: &str) -> Result<Config, String> {
    checked(&format!(
        "listen = \"{traffic}\"\n[tls]\ncertificate = \"c\"\nkey = \"k\"\nlisten = \"{tls}\"\n\
         [admin]\n{more}"
    ))
}

#[test]
fn listeners_are_not_at_one_address() {
    let told = listening("127.0.0.1:1", "127.0.0.1:1", "").unwrap_err();
    assert!(told.starts_with("'tls.listen' must differ from 'listen'"), "{told}");
    let told = listening("127.0.0.1:1", "127.0.0.1:2", "listen = \"127.0.0.1:2\"").unwrap_err();
    assert_eq!(told, "'tls.listen' must differ from 'admin.listen'");
    listening("127.0.0.1:0", "127.0.0.1:0", "listen = \"127.0.0.1:0\"").unwrap();
    listening("127.0.0.1:1", "127.0.0.1:2", "listen = \"127.0.0.1:3\"").unwrap();
}

#[test]
fn admin_routes_that_tls_clients_reach_from_outside_need_a_token() {
    let told = listening("127.0.0.1:1", "0.0.0.0:2", "").unwrap_err();
    assert!(told.starts_with("'admin.token' must be set"), "{told}");
    assert!(told.contains("who reaches 0.0.0.0:2"), "{told}");
    for more in ["token = \"secret\"", "open = true", "listen = \"127.0.0.1:3\""] {
        listening("127.0.0.1:1", "0.0.0.0:2", more).unwrap();
    }
    let told = listening("127.0.0.1:1", "127.0.0.1:2", "listen = \"0.0.0.0:3\"").unwrap_err();
    assert!(told.contains("who reaches 0.0.0.0:3"), "{told}");
}

#[test]
fn a_wrong_value_of_a_route_is_refused_with_the_route_the_field_and_what_is_allowed() {
    let ten_days = "\"240h\"";
    for (text, said) in [
        ("hosts = [\"a:80\"]", "hosts' is wrong: \"a:80\" is no host such as example.org or *."),
        ("hosts = [\"a\", \"*\"]", "hosts' is wrong: \"*\" is no host such as"),
        ("hosts = [\"http://a\"]", "hosts' is wrong: \"http://a\" is no host such as"),
        ("methods = [\"\"]", "methods' must be a list of methods such as \"POST\", not \"\""),
        ("methods = [\"GET \"]", "methods' must be a list of methods such as \"POST\", not"),
        ("paths = [\"a\"]", "paths' is wrong: \"a\" is no path such as /exact, /users/*/avatar"),
        ("paths = [\"/a?b\"]", "paths' is wrong: \"/a?b\" is no path such as"),
        ("paths = [\"/**/a\"]", "paths' is wrong: \"/**/a\" is no path such as"),
        ("key = \"cookie:\"", "key' is wrong: "),
        ("key = \"sid\"", "key' is wrong: "),
        ("issue = true", "issue' needs key = \"cookie:NAME\" and policy = \"hash\""),
        ("issue = true\nkey = \"path\"", "issue' needs key = \"cookie:NAME\" and policy"),
        (
            "issue = true\nkey = \"cookie:a\"\npolicy = \"round-robin\"",
            "issue' needs key = \"cookie:NAME\" and policy = \"hash\"",
        ),
        ("issue = true\nkey = \"cookie:a\"\nsend = \"all\"", "issue' needs send = \"one\""),
        ("success = [200]", "success' needs send = \"all\" or send = \"first\""),
        ("attempts = 2", "attempts' needs send = \"all\" or send = \"first\""),
        ("backoff = {}", "backoff' needs send = \"all\" or send = \"first\""),
        ("abandon = true", "abandon' needs send = \"all\" or send = \"first\""),
        ("body = \"1KiB\"", "body' needs send = \"all\" or send = \"first\""),
        ("fan = 2", "fan' needs send = \"first\""),
        ("send = \"all\"\nfan = 2", "fan' needs send = \"first\""),
        ("send = \"first\"\nfan = 0", "fan' must be 1 to 1000, not 0"),
        ("send = \"first\"\nfan = 1001", "fan' must be 1 to 1000, not 1001"),
        ("send = \"all\"\nsuccess = []", "success' must be a list of statuses from 200 to 599"),
        ("send = \"all\"\nsuccess = [199]", "success' must be a list of statuses from 200"),
        ("send = \"all\"\nsuccess = [200, 600]", "success' must be a list of statuses from 200"),
        ("send = \"all\"\nattempts = 0", "attempts' must be 1 to 10000 or \"unlimited\", not 0"),
        (
            "send = \"first\"\nattempts = 10001",
            "attempts' must be 1 to 10000 or \"unlimited\", not 10001",
        ),
        ("among = \"ready\"", "among' needs send = \"all\""),
        ("send = \"first\"\namong = \"ready\"", "among' needs send = \"all\""),
        ("send = \"all\"\nbackoff.base = \"0s\"", "backoff.base' must be 1ms to 24h, not 0s"),
        (&format!("send = \"all\"\nbackoff.max = {ten_days}"), "backoff.max' must be 1ms to 24h"),
        (
            "send = \"all\"\nbackoff = { base = \"2s\", max = \"1s\" }",
            "backoff.max' must be at least 'backoff.base', which is 2s, not 1s",
        ),
        (
            &format!("send = \"all\"\nbackoff.jitter = {ten_days}"),
            "backoff.jitter' must be 1ms to 24h",
        ),
        ("send = \"all\"\nbody = \"17MiB\"", "body' must be 0B to 16MiB, not 17MiB"),
        ("send = \"all\"\nhedge = {}", "hedge' needs send = \"one\""),
        ("hedge.after = \"p0\"", "hedge.after' must be a duration, or p1 to p99.9"),
        ("hedge.after = \"p100\"", "hedge.after' must be a duration, or p1 to p99.9"),
        ("hedge.after = \"soon\"", "hedge.after' is wrong: "),
        ("hedge.after = \"0s\"", "hedge.after' must be 1ms to 24h, not 0s"),
        ("hedge.budget = \"101%\"", "hedge.budget' must be 0% to 100%, not 101%"),
        ("timeouts.first_byte = \"0s\"", "timeouts.first_byte' must be 1ms to 24h, not 0s"),
        ("timeouts.client_body = \"25h\"", "timeouts.client_body' must be 1ms to 24h"),
        ("timeouts.replica_body = \"0s\"", "timeouts.replica_body' must be 1ms to 24h"),
        ("timeouts.tunnel = \"25h\"", "timeouts.tunnel' must be 1ms to 24h"),
        ("retry.attempts = 0", "retry.attempts' must be 1 to 100, not 0"),
        ("retry.attempts = 101", "retry.attempts' must be 1 to 100, not 101"),
        ("retry.deadline = \"0s\"", "retry.deadline' must be 1ms to 24h, not 0s"),
        ("retry.body = \"17MiB\"", "retry.body' must be 0B to 16MiB, not 17MiB"),
    ] {
        let told = checked(&format!("[[route]]\n[[route]]\nname = \"r\"\n{text}")).expect_err(text);
        let said = format!("'route \"r\": {said}");
        assert!(told.starts_with(&said), "{text}: {told}");
    }
}

#[test]
fn the_name_of_a_route_is_its_own_and_made_where_there_is_none() {
    let long = "x".repeat(65);
    let taken = "must not be that of another route, nor \"default\" or \"none\"";
    for (name, said) in [
        ("", "must be 1 to 64 letters, digits, '-', '_' or '.'"),
        ("a b", "must be 1 to 64 letters, digits, '-', '_' or '.'"),
        (long.as_str(), "must be 1 to 64 letters, digits, '-', '_' or '.'"),
        ("route-1", taken),
        ("default", taken),
        ("none", taken),
    ] {
        let told = checked(&format!("[[route]]\n[[route]]\nname = \"{name}\"")).expect_err(name);
        assert_eq!(told, format!("'route \"{name}\": name' {said}"));
    }
    let names = |text: &str| -> Vec<String> {
        checked(text).unwrap().routes.into_iter().map(|route| route.name).collect()
    };
    assert_eq!(names(""), ["default"]);
    let text = "[[route]]\n[[route]]\nname = \"a.b_c-1\"\n[[route]]";
    assert_eq!(names(text), ["route-1", "a.b_c-1", "route-3", "default"]);
    let told = checked(&"[[route]]\n".repeat(1_001)).unwrap_err();
    assert_eq!(told, "'route' must be there 1000 times at most");
    assert_eq!(names(&"[[route]]\n".repeat(1_000)).len(), 1_001);
}

#[test]
fn an_unknown_key_or_a_value_of_a_wrong_kind_in_a_route_is_refused_with_what_is_known() {
    for (text, said) in [
        ("path = [\"/\"]", "unknown field `path`, expected one of `name`, `hosts`"),
        ("paths = \"/\"", "expected a sequence"),
        ("send = \"some\"", "unknown variant `some`, expected one of `one`, `all`, `first`"),
        ("policy = \"random\"", "unknown variant `random`, expected one of `hash`"),
        ("success = [\"2xx\"]", "expected u16"),
        ("attempts = -1", "expected 1 to 10000 or \"unlimited\""),
        ("attempts = \"many\"", "expected a number or \"unlimited\""),
        ("attempts = 1.5", "expected a number or \"unlimited\""),
        ("among = \"all\"", "expected `members` or `ready`"),
        ("backoff = { first = \"1s\" }", "unknown field `first`, expected one of `base`"),
        ("backoff = { base = \"soon\" }", "\"soon\" is no duration such as"),
        ("hedge = { late = \"1s\" }", "unknown field `late`, expected `after` or `budget`"),
        ("hedge = { budget = \"5\" }", "\"5\" is no percentage such as"),
        ("timeouts = { drain = \"1s\" }", "unknown field `drain`, expected one of `first_byte`"),
        ("retry = { budget = \"5%\" }", "unknown field `budget`, expected one of `attempts`"),
        ("body = \"much\"", "\"much\" is no size such as"),
    ] {
        let told = checked(&format!("[[route]]\n{text}")).expect_err(text);
        assert!(told.contains(said), "{text}: {told}");
    }
}

#[test]
fn a_route_has_its_defaults_from_the_settings_outside() {
    let config = checked(
        "policy = \"two-choices\"\nkey = \"client-ip\"\n\
         [timeouts]\nfirst_byte = \"7s\"\ntunnel = \"8s\"\n[retry]\nattempts = 9\n\
         [[route]]\n[[route]]\npolicy = \"hash\"\nkey = \"path\"\ntimeouts.tunnel = \"1s\"\n\
         retry.attempts = 2\n",
    );
    let routes = config.unwrap().routes;
    let shown = |route: &RouteConfig| {
        let (timeouts, retry) = (&route.timeouts, &route.retry);
        let seconds = [timeouts.first_byte, timeouts.tunnel].map(|time| time.as_secs());
        (route.policy, route.key.to_string(), seconds, retry.attempts)
    };
    let outside = (Policy::TwoChoices, "client-ip".to_owned(), [7, 8], 9);
    assert_eq!(shown(&routes[0]), outside);
    assert_eq!(shown(&routes[1]), (Policy::Hash, "path".to_owned(), [7, 1], 2));
    assert_eq!(shown(&routes[2]), outside);
}

#[test]
fn what_goes_to_several_has_its_documented_defaults() {
    let config = checked(
        "[[route]]\nsend = \"all\"\n[[route]]\nsend = \"first\"\nfan = 2\n\
         backoff = { base = \"2m\", jitter = \"0s\" }\n[[route]]\nhedge = {}\n\
         [[route]]\nhedge = { after = \"30ms\", budget = \"50%\" }\n",
    );
    let routes = config.unwrap().routes;
    let Send::All(fan, Among::Members) = &routes[0].send else { panic!("{:?}", routes[0]) };
    assert!(fan.is_success(200) && fan.is_success(299) && !fan.is_success(300));
    assert_eq!((fan.attempts, fan.abandon, fan.body), (10, false, 1 << 20));
    let millis = |fan: &FanConfig| {
        [fan.repeat.base, fan.repeat.max, fan.repeat.jitter].map(|time| time.as_millis())
    };
    assert_eq!(millis(fan), [1_000, 64_000, 100]);
    let Send::First(fan, Some(2)) = &routes[1].send else { panic!("{:?}", routes[1]) };
    assert_eq!(millis(fan), [120_000, 120_000, 0]);
    let hedge = |after, budget| Send::One(Some(HedgeConfig { after, budget }));
    assert_eq!(routes[2].send, hedge(HedgeAfter::Quantile(0.95), 0.05));
    assert_eq!(routes[3].send, hedge(HedgeAfter::Span(Duration::from_millis(30)), 0.5));
    assert_eq!(routes[4].send, Send::One(None));
}

#[test]
fn what_changes_while_it_runs_takes_effect_or_is_told() {
    let running = || checked("listen = \"127.0.0.1:1\"").unwrap();
    let (config, stays) = running().after(running());
    assert_eq!((stays.len(), format!("{config:?}")), (0, format!("{:?}", running())));
    for (text, key) in [
        ("listen = \"127.0.0.1:2\"", "listen"),
        ("[admin]\ntoken = \"secret\"", "[admin]"),
        ("[tls]\ncertificate = \"c\"\nkey = \"k\"", "[tls]"),
        ("runtime = \"docker\"", "runtime, pull, network, port, pool, shared, servers"),
        ("replicas = 4", "replicas"),
        ("max_replicas = 4", "max_replicas"),
        ("placement = \"classic\"", "placement"),
        ("[ring]\nvirtual_nodes = 7", "placement"),
        ("placement = \"ketama\"", "placement"),
        ("spares = 1", "spares"),
        ("[health]\nfall = 4", "[health]"),
        ("[outliers]\nconsecutive = 4", "[outliers]"),
        ("[respawn]\nbase = \"1s\"", "[respawn]"),
        ("[scale]\ntarget_in_flight = 4", "[scale]"),
        ("[timeouts]\ndrain = \"1s\"", "timeouts.connect, drain, stop, pull, shutdown"),
        ("log_level = \"debug\"", "log_format, log_level"),
    ] {
        let listen = if key == "listen" { "" } else { "listen = \"127.0.0.1:1\"\n" };
        let (mut config, stays) = checked(&format!("{listen}{text}")).unwrap().after(running());
        assert_eq!(stays, [key], "{text}");
        // Routes have those that they do not use, too.
        config.routes[0].timeouts = config.timeouts;
        assert_eq!(format!("{config:?}"), format!("{:?}", running()), "{text}");
    }
    let text = "listen = \"127.0.0.1:1\"\npolicy = \"two-choices\"\nkey = \"path\"\n\
                [limits]\nbody = \"1\"\n[retry]\nattempts = 1\nquarantine = \"1s\"\n[forwarded]\nvia = \"x\"\n\
                [timeouts]\nhead = \"1s\"\n[compat]\nunknown_path = true\nhalf_close = true\n\
                [[route]]\npaths = [\"/x\"]";
    let (config, stays) = checked(text).unwrap().after(running());
    assert_eq!(stays, [""; 0]);
    assert_eq!(format!("{config:?}"), format!("{:?}", checked(text).unwrap()));
}

#[test]
fn what_replicas_run_can_change_while_the_balancer_runs() {
    let running = checked("env = [\"A=1\"]").unwrap();
    let text =
        "command = \"run it\"\nenv = [\"A=2\"]\non_change = \"warn\"\n[roll]\nmonitor = \"1s\"";
    let (config, stays) = checked(text).unwrap().after(running);
    assert_eq!(stays, [""; 0]);
    let release = config.release();
    assert_eq!(release.spec.command, Some(vec!["run".to_owned(), "it".to_owned()]));
    assert_eq!(release.spec.env["A"], "2");
    assert_eq!((release.on_change, release.monitor), (OnChange::Warn, Duration::from_secs(1)));

    let docker = |text: &str| checked(&format!("runtime = \"docker\"\n{text}")).unwrap();
    let text = "image = \"a:2\"\nmemory = \"64MiB\"\ncpus = 0.5\npids = 7\nenv = [\"A=2\"]";
    let (config, stays) = docker(text).after(docker("image = \"a:1\""));
    assert_eq!(stays, [""; 0]);
    let spec = config.release().spec;
    assert_eq!((spec.image.as_deref(), spec.memory), (Some("a:2"), Some(64 << 20)));
    assert_eq!((spec.nano_cpus, spec.pids), (Some(500_000_000), Some(7)));
    for text in ["pull = \"never\"", "network = \"n\"", "port = 80", "pool = \"p\""] {
        let (config, stays) = docker(&format!("pids = 7\n{text}")).after(docker(""));
        assert_eq!(stays, ["runtime, pull, network, port, pool, shared, servers"], "{text}");
        let unchanged = Spec { pids: Some(7), ..docker("").release().spec };
        assert_eq!(config.release().spec, unchanged, "{text}");
    }
}

#[test]
fn rollouts_are_configured_and_checked() {
    let release = checked("").unwrap().release();
    assert_eq!((release.on_change, release.monitor), (OnChange::Roll, Duration::from_secs(5)));
    let release = checked("[roll]\nmonitor = \"0s\"").unwrap().release();
    assert_eq!(release.monitor, Duration::ZERO);
    let error = checked("[roll]\nmonitor = \"25h\"").unwrap_err().to_string();
    assert!(error.starts_with("'roll.monitor' must be 0"), "{error}");
    assert!(checked("on_change = \"restart\"").is_err());
}
