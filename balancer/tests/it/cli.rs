//! The command line: files, variables, flags, and what is said of bad ones.

use std::process::{Command, Output};

use crate::support::{Balancer, wait_for};

fn balancer(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_balancer")).args(arguments).output().unwrap()
}

fn checked(text: &str) -> (bool, String) {
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    std::fs::write(file.path(), text).unwrap();
    let output = balancer(&["check", file.path().to_str().unwrap()]);
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

#[test]
fn every_example_is_good() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");
    let files: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    assert!(files.len() >= 4, "{files:?}");
    for file in files {
        let output = balancer(&["check", file.to_str().unwrap()]);
        assert!(output.status.success(), "{}: {output:?}", file.display());
    }
}

#[test]
fn a_bad_file_is_refused_with_the_field_and_what_it_must_be() {
    for (text, said) in [
        ("replica = 3", "unknown field `replica`"),
        ("[ring]\nnodes = 3", "unknown field `nodes`"),
        ("replicas = \"three\"", "replicas"),
        ("placement = \"star\"", "unknown variant `star`, expected one of `ring`, `classic`"),
        (
            "placement = \"jump\"\nservers = [\"a:1\"]",
            "'placement' must not be \"jump\" for listed",
        ),
        (
            "[maglev]\ntable_size = 65536",
            "'maglev.table_size' must be a prime number such as 65537",
        ),
        (
            "placement = \"maglev\"\nmax_replicas = 9000\nreplicas = 6554",
            "'replicas' must be at most 6553",
        ),
        ("replicas = 2000", "'replicas' must be at most 1000"),
        ("placement = \"classic\"\nreplicas = 57", "'replicas' must be at most 56"),
        ("key = \"header:\"", "'key' is wrong"),
        ("[health]\nrise = 0", "'health.rise' must be 1 to 1000"),
        ("[health]\ninterval = \"fast\"", "is no duration such as"),
        ("[engine]\nwait = \"25h\"", "'engine.wait' must be 0s to 24h, not 1day 1h"),
        ("[health]\nhost = \"a b\"", "'health.host' must be a host name or an address"),
        ("[health]\nhost = \"\"", "'health.host' must be"),
        ("[health]\nhost = \"a:99999\"", "'health.host' must be"),
        ("[timeouts]\nconnect = \"0s\"", "'timeouts.connect' must be 1ms to 24h"),
        ("servers = [\"a\"]", "the port is missing"),
        ("servers = [\"a:1\", \"a:1\"]", "must not list \"a:1\" twice"),
        ("runtime = \"docker\"\nservers = [\"a:1\"]", "'servers' are for runtime"),
        ("runtime = \"static\"", "'servers' must list at least one"),
        ("listen = \"0.0.0.0:5000\"", "'admin.token' must be set"),
        ("[classic]\nslots = 0\n", "'classic.slots' must be 1 to"),
        ("keep_replicas = true", "'keep_replicas' needs runtime"),
        ("[ring]\nsecret = \"00\"", "16 bytes in hexadecimal"),
        ("[scale]\nmax = 4", "'scale.target_in_flight' must be set where another key of [scale]"),
        ("[scale]\nmin = 3\nmax = 2\ntarget_in_flight = 1", "'scale.min' must be 1 to 2"),
        ("replicas = 9\n[scale]\nmax = 4\ntarget_in_flight = 1", "'replicas' must be 1 to 4"),
        ("servers = [\"a:1\"]\n[scale]\nmax = 4", "'scale' must be left out for listed replicas"),
        ("[limits]\nhaed = 1", "unknown field `haed`"),
        ("[limits]\nhead = \"1B\"", "'limits.head' must be 1KiB to 1MiB, not 1B"),
        ("[retry]\nattempts = 0", "'retry.attempts' must be 1 to 100, not 0"),
        ("[retry]\nbudget = \"101%\"", "'retry.budget' must be 0% to 100%, not 101%"),
        ("[forwarded]\ntrust = [\"proxy\"]", "is no address or network such as"),
        ("[forwarded]\nvia = \"a b\"", "'forwarded.via' must be a name"),
        ("[tls]\nkey = \"k.pem\"", "'tls.certificate' must be set"),
        ("not toml", ""),
    ] {
        let (good, told) = checked(text);
        assert!(!good, "{text}: {told}");
        assert!(told.contains(said), "{text}: {told}");
    }
    assert!(checked("replicas = 2\n[ring]\nvirtual_nodes = 10").0);
    assert_eq!(balancer(&["check", "/no/such/file"]).status.code(), Some(1));
    assert_eq!(balancer(&["--no-such-flag"]).status.code(), Some(2));
}

#[test]
fn a_file_that_is_not_toml_is_reported_once() {
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    let path = file.path().to_str().unwrap();
    std::fs::write(file.path(), "replicas = 1").unwrap();
    let running = Balancer::start(&["--config", path]);
    std::fs::write(file.path(), "replicas = = 1").unwrap();
    for arguments in [["check", path], ["--config", path]] {
        let said = String::from_utf8(balancer(&arguments).stderr).unwrap();
        assert_eq!(said.matches("TOML parse error").count(), 1, "{said}");
        assert_eq!(said.matches(path).count(), 1, "{said}");
    }
    running.signal(rustix::process::Signal::HUP);
    let kept = "configuration is not good; the one that was read before stays";
    let line = wait_for("the refusal of the file", || running.events(kept).pop());
    let error = line.fields["error"].as_str().unwrap();
    assert_eq!(error.matches("TOML parse error").count(), 1, "{error}");
}

#[test]
fn flags_win_over_variables_and_those_over_the_file() {
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    std::fs::write(file.path(), "replicas = 1\n[admin]\nhosts = [\"file\"]").unwrap();
    let config = ["--config", file.path().to_str().unwrap()];
    let by_file = Balancer::start(&config);
    assert_eq!(by_file.wait_for_replicas(1), ["S1"]);
    let env = [("BALANCER_REPLICAS", "2")];
    let by_env = Balancer::start_with(&config, &env);
    by_env.wait_for_replicas(2);
    let by_flag = Balancer::start_with(&[&config[..], &["--replicas", "3"]].concat(), &env);
    by_flag.wait_for_replicas(3);
}

#[test]
fn help_explains_every_flag_with_its_default_or_its_absence() {
    let help = String::from_utf8(balancer(&["--help"]).stdout).unwrap();
    let flags: Vec<&str> = help.split("\n      --").skip(1).collect();
    assert!(flags.len() > 40, "{} flags", flags.len());
    // These have no default: they are off, or empty, unless given.
    let bare = [
        "config",
        "servers",
        "servers-file",
        "env",
        "forwarded-trust",
        "forwarded-via",
        "tls-certificate",
        "tls-key",
        "tls-listen",
        "admin-listen",
        "admin-token",
        "admin-hosts",
    ];
    for flag in flags {
        let name = flag.split([' ', '=', '[', '\n']).next().unwrap();
        let words = flag.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(bare.contains(&name) || words.contains("[default: "), "{flag}");
        assert!(words.contains("[env: BALANCER_"), "{flag}");
    }
}

#[test]
fn a_bad_setting_is_refused_by_file_variable_and_flag_alike() {
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    std::fs::write(file.path(), "[health]\nfall = 0").unwrap();
    let path = file.path().to_str().unwrap();
    let checked = balancer(&["check", path]);
    let run = balancer(&["--config", path]);
    let flag = balancer(&["--health-fall", "0"]);
    let variable = Command::new(env!("CARGO_BIN_EXE_balancer"))
        .env("BALANCER_HEALTH_FALL", "0")
        .output()
        .unwrap();
    for output in [checked, run, flag, variable] {
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(said.trim_end(), "error: 'health.fall' must be 1 to 1000, not 0");
    }
}

#[test]
fn a_value_of_a_wrong_kind_is_refused_with_the_flag_that_has_it() {
    for (flag, value) in [
        ("--replicas", "three"),
        ("--replicas", "-1"),
        ("--placement", "star"),
        ("--health-interval", "fast"),
        ("--listen", "localhost"),
        ("--servers", "nobody"),
        ("--ring-secret", "xyz"),
        ("--maglev-table-size", "big"),
        ("--limit-head", "big"),
        ("--limit-connections", "-1"),
        ("--retry-budget", "20"),
        ("--forwarded-trust", "proxy"),
        ("--tls-listen", "localhost"),
    ] {
        let output = balancer(&[&format!("{flag}={value}")]);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(flag) && said.contains(value), "{said}");
    }
}

#[test]
fn a_bad_file_ends_in_code_one_and_a_good_one_in_zero() {
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    let path = file.path().to_str().unwrap();
    for (text, code) in [("replicas = 2", 0), ("replicsa = 2", 1), ("replicas = 2.5", 1), ("[", 1)]
    {
        std::fs::write(file.path(), text).unwrap();
        let output = balancer(&["check", path]);
        assert_eq!(output.status.code(), Some(code), "{text}: {output:?}");
        if code == 1 {
            let said = String::from_utf8(output.stderr).unwrap();
            assert!(said.starts_with("error: ") && said.contains(path), "{said}");
            assert!(output.stdout.is_empty());
        }
    }
}

#[test]
fn an_address_in_use_is_refused_with_the_address() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = balancer(&["--listen", &address]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains(&format!("cannot listen on {address}")), "{said}");
}

#[test]
fn link_variables_of_kubernetes_and_docker_are_ignored_with_one_warning() {
    let links = [
        ("BALANCER_PORT", "tcp://10.0.0.1:5000"),
        ("BALANCER_SERVICE_HOST", "10.0.0.1"),
        ("BALANCER_PORT_5000_TCP_ADDR", "10.0.0.1"),
    ];
    let all = [&links[..], &[("BALANCER_REPLICAS", "2")]].concat();
    let balancer = Balancer::start_with(&[], &all);
    balancer.wait_for_replicas(2);
    let told =
        balancer.events("ignoring link variables of Kubernetes or Docker: they are no settings");
    assert_eq!(told.len(), 1);
    let named = told[0].fields["variables"].as_str().unwrap();
    assert!(links.iter().all(|(name, _)| named.contains(name)), "{named}");
    assert!(!named.contains("REPLICAS"), "{named}");
    // A real value is a setting still.
    for (value, said) in [("70000", "70000"), ("tcp:5000", "tcp:5000")] {
        let output = Command::new(env!("CARGO_BIN_EXE_balancer"))
            .args(["--listen", "127.0.0.1:0"])
            .env("BALANCER_PORT", value)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && text.contains(said), "{text}");
    }
}
