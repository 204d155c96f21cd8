//! Rows that need a balancer with settings of their own.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{anyhow, ensure};
use awc::http::Method;

use super::Session;
use crate::experiment::a3::Check;
use crate::experiment::a3::judge::Expect;
use crate::system::api::Call;
use crate::system::victim::{descendants, is_alive};
use crate::system::{Balancer, Options, Runtime};

/// A placement of five seats: what is above them is refused, with how many are left.
pub(super) async fn few_seats(options: &Options, checks: &mut Vec<Check>) -> anyhow::Result<()> {
    let balancer = Balancer::start(options).await?;
    let mut session = Session { balancer: &balancer, checks };
    let body = r#"{"n":3}"#;
    let call = Call::json(Method::POST, "/add", body);
    session.check("classic with 2 of 5 seats left: n = 3", call, Expect::refused(&["2"])).await?;
    let five = Expect::Fleet { n: 5, gone: Vec::new(), new: Vec::new() };
    let call = Call::json(Method::POST, "/add", r#"{"n":2}"#);
    session.check("classic with 2 of 5 seats left: n = 2", call, five).await?;
    balancer.stop().await
}

/// The settings for other experiments.
pub(super) async fn compat(options: &Options, checks: &mut Vec<Check>) -> anyhow::Result<()> {
    let balancer = Balancer::start(options).await?;
    let mut session = Session { balancer: &balancer, checks };
    let unknown = Expect::RefusedExactly {
        status: 400,
        message: "<Error> '/other' endpoint does not exist in server replicas".to_owned(),
    };
    let call = Call::new(Method::GET, "/other?query=1");
    session.check("compat.unknown_path", call, unknown).await?;
    let stranger = Call::new(Method::POST, "/register?username=bob");
    let mut dropped = 0;
    let mut statuses = Vec::new();
    for _ in 0..200 {
        let known = Call::new(Method::POST, "/register?username=alice");
        let answer = balancer.api().call(&known).await?;
        let is_drop = answer.status == 500 && answer.text().contains("request dropped by server");
        dropped += u32::from(is_drop);
        if !is_drop && answer.status != 201 {
            statuses.push(answer.status);
        }
    }
    // 200 · ⅕ = 40 with a standard deviation of 5.7: five of them are allowed.
    let judged = (|| {
        ensure!(statuses.is_empty(), "other statuses came: {statuses:?}");
        ensure!((12..=68).contains(&dropped), "{dropped} of 200 were dropped");
        Ok(())
    })();
    checks.push(Check::new(
        "POST /register?username=alice",
        "`USERNAME=alice`, `SKIP_SOME_REQUESTS=true`, 200 times",
        "201, but 500 `request dropped by server` for about one in five",
        judged,
    ));
    // A stranger may be dropped as well: asked until not.
    let mut status = 500;
    for _ in 0..50 {
        status = balancer.api().call(&stranger).await?.status;
        if status != 500 {
            break;
        }
    }
    // The compatibility setting above turns a replica's 404 into 400.
    let judged = if status == 400 { Ok(()) } else { Err(anyhow!("status {status}")) };
    checks.push(Check::new(
        "POST /register?username=bob",
        "`USERNAME=alice`, compat.unknown_path",
        "the replica's 404, made 400",
        judged,
    ));
    balancer.stop().await
}

/// Changes need the token when there is one; looking does not.
pub(super) async fn token(options: &Options, checks: &mut Vec<Check>) -> anyhow::Result<()> {
    let balancer = Balancer::start(options).await?;
    let mut session = Session { balancer: &balancer, checks };
    let add = || Call::json(Method::POST, "/add", r#"{"n":1}"#);
    session.check("a token is set, none is sent", add(), Expect::RefusedSomehow).await?;
    for (case, value) in [
        ("a wrong token", "Bearer s3cres"),
        ("the beginning of the token", "Bearer s3cre"),
        ("another scheme", "Basic s3cret"),
    ] {
        let call = add().header("authorization", value);
        session.check(case, call, Expect::RefusedSomehow).await?;
    }
    let four = Expect::Fleet { n: 4, gone: Vec::new(), new: Vec::new() };
    let call = add().header("authorization", "Bearer s3cret");
    session.check("the token", call, four).await?;
    balancer.stop().await
}

/// Without a token, everybody who reaches the port could change the fleet.
pub(super) async fn open_to_the_world(
    plain: &Options,
    checks: &mut Vec<Check>,
) -> anyhow::Result<()> {
    let open = Options { listen: Ipv4Addr::UNSPECIFIED, ..plain.clone() };
    let case = "admin routes open to the world without a token";
    checks.push(refused_start("balancer --listen 0.0.0.0:PORT", case, &open, "admin").await?);
    Ok(())
}

/// A program of replicas that does not exist is an error at the start.
pub(super) async fn missing_program(
    plain: &Options,
    checks: &mut Vec<Check>,
) -> anyhow::Result<()> {
    let command = "/nonexistent/server";
    let mut missing = plain.clone();
    missing.arguments.extend(["--command", command].map(str::to_owned));
    let call = format!("balancer --command {command}");
    checks.push(refused_start(&call, "the replicas' program is missing", &missing, command).await?);
    Ok(())
}

/// Checks that the balancer does not start, and that its log has `word`.
async fn refused_start(
    call: &str,
    case: &str,
    options: &Options,
    word: &str,
) -> anyhow::Result<Check> {
    let (status, log) = Balancer::start_and_fail(options).await?;
    let judged = (|| {
        ensure!(!status.success(), "it ended well");
        ensure!(log.contains(word), "it ended for another reason:\n{log}");
        Ok(())
    })();
    Ok(Check::new(call, case, "refused at start", judged))
}

/// A runtime that cannot start replicas, or starts what is no replica: 500 that says so, and
/// nothing is left of the call.
pub(super) async fn failing_runtime(
    plain: &Options,
    checks: &mut Vec<Check>,
) -> anyhow::Result<()> {
    let with = |words: &[&str]| {
        let mut options = Options { replicas: 0, ..plain.clone() };
        options.arguments.extend(words.iter().map(|word| (*word).to_owned()));
        options
    };
    let cases = match plain.runtime {
        Runtime::Process => vec![
            ("the replicas end at once", with(&["--command", "false"])),
            (
                "the replicas never answer a heartbeat",
                with(&["--command", "sleep 60", "--health-start-deadline", "1s"]),
            ),
        ],
        Runtime::Docker => {
            let image = "ring-balancer/no-such-image:none".to_owned();
            vec![("the replicas' image is missing", Options { image, ..with(&[]) })]
        }
    };
    for (case, options) in cases {
        let balancer = Balancer::start(&options).await?;
        let mut session = Session { balancer: &balancer, checks };
        let call = Call::json(Method::POST, "/add", r#"{"n":2}"#);
        let expect = Expect::Refused { status: 500, words: Vec::new() };
        session.check(case, call, expect).await?;
        balancer.stop().await?;
    }
    Ok(())
}

/// A clean stop and an accident both end all replicas.
pub(super) async fn killed_balancer(
    options: &Options,
    checks: &mut Vec<Check>,
) -> anyhow::Result<()> {
    for (case, accident) in [("SIGTERM", false), ("SIGKILL", true)] {
        let balancer = Balancer::start(options).await?;
        let children = descendants(balancer.pid()?)?;
        let stopped = if accident { balancer.kill().await } else { balancer.stop().await };
        let deadline = Instant::now() + Duration::from_secs(5);
        while children.iter().any(|pid| is_alive(*pid)) && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let left: Vec<u32> = children.iter().copied().filter(|pid| is_alive(*pid)).collect();
        let judged = stopped.and_then(|()| {
            ensure!(children.len() >= 3, "only {} children were seen", children.len());
            ensure!(left.is_empty(), "{left:?} still run");
            Ok(())
        });
        let expected = "no replica is left";
        checks.push(Check::new("balancer", format!("ended by {case}"), expected, judged));
    }
    Ok(())
}
