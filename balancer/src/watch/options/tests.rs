//! What is read, and what is said of what is not.

use clap::Parser;

use super::*;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    watch: WatchSettings,
}

/// The options of these flags; what is said of them in one line where they are wrong.
fn options(flags: &[&str]) -> Result<Options, String> {
    let api: &[&str] = match flags {
        [flag, ..] if flag.starts_with("--api") => &[],
        _ => &["--api=http://balancer:5000"],
    };
    let arguments = [&["watch"], api, flags].concat();
    let cli = Cli::try_parse_from(arguments).map_err(|error| error.to_string())?;
    cli.watch.check().map_err(|error| error.to_string())
}

#[test]
fn nothing_but_the_balancer_must_be_said() {
    let options = options(&[]).unwrap();
    let overload =
        OverloadConfig { min_ready: 2, capacity: 500, max_load: 0.75, resume_load: 0.75 };
    assert_eq!(options.overload, overload);
    assert_eq!(options.api.to_string(), "http://balancer:5000");
    assert_eq!((options.interval.as_secs(), options.timeout.as_secs()), (10, 5));
    assert_eq!((options.token, options.once, options.log.filter.as_str()), (None, false, "info"));
    let said = Cli::try_parse_from(["watch"]).err().unwrap().to_string();
    assert!(said.contains("--api <URL>"), "{said}");
}

#[test]
fn a_url_is_plain_http_up_to_a_path() {
    for (url, kept) in [
        ("http://127.0.0.1:8188", "http://127.0.0.1:8188"),
        ("http://balancer", "http://balancer"),
        ("HTTP://balancer:80/", "HTTP://balancer:80"),
        ("http://[::1]:5000/lb/one/", "http://[::1]:5000/lb/one"),
    ] {
        assert_eq!(url.parse::<ApiUrl>().unwrap().to_string(), kept);
    }
    for (url, why) in [
        ("", "such as"),
        ("balancer:5000", "such as"),
        ("/loadbalancer", "only http:// is spoken"),
        ("https://balancer", "only http:// is spoken"),
        ("ftp://balancer", "only http:// is spoken"),
        ("http://", "such as"),
        ("http://:5000", "the host is missing"),
        ("http://balancer:", "the port must be 1 to 65535"),
        ("http://balancer:0", "the port must be 1 to 65535"),
        ("http://balancer:65536", "the port must be 1 to 65535"),
        ("http://me:secret@balancer", "without a name before the host"),
        ("http://balancer/?a=b", "without a query or a fragment"),
        ("http://balancer/#a", "without a query or a fragment"),
        ("http://bal ancer", "such as"),
    ] {
        let said = url.parse::<ApiUrl>().unwrap_err();
        assert!(said.contains("http://127.0.0.1:5000") && said.contains(why), "{url}: {said}");
    }
}

#[test]
fn an_interval_has_a_unit_or_is_in_seconds() {
    for (text, ms) in
        [("10", 10_000), ("0.5", 500), ("10s", 10_000), ("250ms", 250), ("1m", 60_000)]
    {
        let interval = options(&[&format!("--interval={text}")]).unwrap().interval;
        assert_eq!(interval, Duration::from_millis(ms), "{text}");
    }
}

#[test]
fn levels_of_other_programs_are_known() {
    for (text, filter) in [
        ("CRITICAL", "error"),
        ("ERROR", "error"),
        ("Warning", "warn"),
        ("WARN", "warn"),
        ("INFO", "info"),
        ("DEBUG", "debug"),
        ("trace", "trace"),
        ("off", "off"),
        ("warn,balancer=debug", "warn,balancer=debug"),
    ] {
        assert_eq!(options(&[&format!("--log-level={text}")]).unwrap().log.filter, filter);
    }
}

#[test]
fn a_bad_value_is_refused_with_its_flag_and_what_it_must_be() {
    for (flag, value, must) in [
        ("--api", "https://balancer", "only http:// is spoken"),
        ("--min-ready", "0", "must be a whole number from 1"),
        ("--min-ready", "two", "must be a whole number from 1"),
        ("--capacity", "0", "must be a whole number from 1"),
        ("--capacity", "1.5", "must be a whole number from 1"),
        ("--max-load", "1.1", "must be a number from 0 to 1"),
        ("--max-load", "-0.1", "must be a number from 0 to 1"),
        ("--max-load", "NaN", "must be a number from 0 to 1"),
        ("--max-load", "75%", "must be a number from 0 to 1"),
        ("--resume-load", "high", "must be a number from 0 to 1"),
        ("--interval", "0", "must be 1ms to 24h"),
        ("--interval", "-1", "must be 1ms to 24h"),
        ("--interval", "inf", "must be 1ms to 24h"),
        ("--interval", "2days", "must be 1ms to 24h"),
        ("--interval", "fast", "must be 1ms to 24h"),
        ("--timeout", "0s", "must be 1ms to 24h"),
        ("--log-level", "LOUD", "must be critical, error"),
        ("--log-level", "balancer=loud", "must be critical, error"),
        ("--log-format", "xml", "possible values: text, json"),
    ] {
        let said = options(&[&format!("{flag}={value}")]).unwrap_err();
        assert!(said.contains(flag) && said.contains(value) && said.contains(must), "{said}");
    }
    assert_eq!(
        options(&["--max-load=0.5", "--resume-load=0.6"]).unwrap_err(),
        "--resume-load must be 0 to 0.5 (--max-load), not 0.6"
    );
}

#[test]
fn a_token_is_never_repeated() {
    let good = options(&["--token=s3cret"]).unwrap();
    assert_eq!(good.token.as_ref().map(Secret::reveal), Some("s3cret"));
    assert!(!format!("{good:?}").contains("s3cret"));
    for token in ["s3cret word", "", "s3cret\u{e9}"] {
        let said = options(&[&format!("--token={token}")]).unwrap_err();
        assert_eq!(said, "--token must be visible ASCII characters, without spaces");
    }
}
