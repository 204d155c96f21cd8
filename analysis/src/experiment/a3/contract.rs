//! The rows of the contract, called from outside one after another on balancers of their own.

mod settings;

use std::time::Duration;

use awc::http::Method;

use super::Check;
use super::judge::Expect;
use crate::experiment::{Setup, Variant};
use crate::system::api::Call;
use crate::system::{Balancer, Options, Runtime};

/// Calls one balancer and notes what it answers.
struct Session<'a> {
    balancer: &'a Balancer,
    checks: &'a mut Vec<Check>,
}

/// Long enough for a supervisor to start what it should not.
const A_WHILE: Duration = Duration::from_millis(2_500);

/// Checks everything that can be checked from outside.
///
/// # Errors
/// When a balancer does not start or stop; an unexpected answer is none, but a row that fails.
pub(super) async fn run(setup: &Setup) -> anyhow::Result<Vec<Check>> {
    let mut checks = Vec::new();
    let plain = setup.options(Variant::Ring, 3);

    let balancer = Balancer::start(&plain).await?;
    let mut session = Session { balancer: &balancer, checks: &mut checks };
    session.demo_replica().await?;
    session.bad_bodies().await?;
    session.bad_names().await?;
    session.add().await?;
    session.remove().await?;
    session.empty_fleet().await?;
    balancer.stop().await?;

    let with = |arguments: &[&str]| Options {
        arguments: arguments.iter().map(|word| (*word).to_owned()).collect(),
        ..plain.clone()
    };
    settings::few_seats(&with(&["--placement", "classic", "--classic-slots", "45"]), &mut checks)
        .await?;
    settings::compat(
        &with(&[
            "--compat-unknown-path",
            "--env",
            "USERNAME=alice",
            "--env",
            "SKIP_SOME_REQUESTS=true",
        ]),
        &mut checks,
    )
    .await?;
    settings::token(&with(&["--admin-token", "s3cret"]), &mut checks).await?;
    settings::open_to_the_world(&plain, &mut checks).await?;
    settings::failing_runtime(&plain, &mut checks).await?;
    if setup.runtime == Runtime::Process {
        settings::missing_program(&plain, &mut checks).await?;
        settings::killed_balancer(&plain, &mut checks).await?;
    }
    Ok(checks)
}

// === impl Session ===

impl Session<'_> {
    /// Makes a call, with the fleet looked at before and after it.
    async fn check(&mut self, case: &str, call: Call, expect: Expect) -> anyhow::Result<()> {
        let api = self.balancer.api();
        let before = api.replicas().await?;
        let judged = match api.call(&call).await {
            Ok(answer) => expect.judge(&answer, &before, &api.replicas().await?),
            Err(error) => Err(error),
        };
        let what = format!("{} {}", call.method, call.path);
        self.checks.push(Check::new(what, case, expect.in_words(), judged));
        Ok(())
    }

    async fn get(&mut self, path: &str, expect: Expect) -> anyhow::Result<()> {
        self.check("", Call::new(Method::GET, path), expect).await
    }

    /// `POST /add` with a JSON body that is the case, too.
    async fn add_json(&mut self, body: &str, expect: Expect) -> anyhow::Result<()> {
        self.check(&quoted(body), Call::json(Method::POST, "/add", body), expect).await
    }

    /// `DELETE /rm` in the same way.
    async fn rm_json(&mut self, body: &str, expect: Expect) -> anyhow::Result<()> {
        self.check(&quoted(body), Call::json(Method::DELETE, "/rm", body), expect).await
    }

    async fn demo_replica(&mut self) -> anyhow::Result<()> {
        self.get("/rep", Expect::Fleet { n: 3, gone: Vec::new(), new: Vec::new() }).await?;
        let hello = Expect::Message { status: 200, begins: "Hello from Server: ".to_owned() };
        self.get("/home", hello).await?;
        self.get("/heartbeat", Expect::Empty).await?;
        self.get("/health-check", Expect::Empty).await?;
        self.get("/login", Expect::Status(200)).await?;
        for path in ["/register", "/changePassword"] {
            self.check("", Call::new(Method::POST, path), Expect::Status(201)).await?;
        }
        self.get("/other", Expect::Status(404)).await
    }

    async fn bad_bodies(&mut self) -> anyhow::Result<()> {
        let too_many_names = |message: &str| Expect::RefusedExactly {
            status: 400,
            message: format!("<Error> Length of hostname list is more than {message}"),
        };
        let added = too_many_names("newly added instances");
        self.add_json(r#"{"n":1,"hostnames":["A","B"]}"#, added).await?;
        let removed = too_many_names("removable instances");
        self.rm_json(r#"{"n":1,"hostnames":["S1","S2"]}"#, removed).await?;

        let paths = [(Method::POST, "/add"), (Method::DELETE, "/rm"), (Method::POST, "/rm")];
        for (method, path) in paths {
            let call = |body: &str| Call::json(method.clone(), path, body);
            for body in [
                r#"{}"#,
                r#"{"hostnames":["A"]}"#,
                r#"{"n":null}"#,
                r#"{"n":"2"}"#,
                r#"{"n":1.5}"#,
                r#"{"n":true}"#,
                r#"{"n":0}"#,
                r#"{"n":-1}"#,
                r#"{"n":1001}"#,
                r#"{"n":18446744073709551616}"#,
            ] {
                self.check(&quoted(body), call(body), Expect::refused(&["n"])).await?;
            }
            for hostnames in [r#""A""#, "7", "[1]", r#"["A",null]"#, r#"{"a":"b"}"#] {
                let body = format!(r#"{{"n":2,"hostnames":{hostnames}}}"#);
                let expect = Expect::refused(&["hostnames"]);
                self.check(&quoted(&body), call(&body), expect).await?;
            }
            for (case, body) in [
                ("no body", ""),
                ("not JSON", "n=1"),
                ("half an object", r#"{"n":1"#),
                ("a list", "[1]"),
                ("a number", "1"),
                ("a string", r#""n""#),
                ("null", "null"),
            ] {
                self.check(case, call(body), Expect::refused(&[])).await?;
            }
            let mut bytes = call("");
            bytes.body = b"{\"n\":1,\"hostnames\":[\"\xff\"]}".to_vec();
            self.check("not UTF-8", bytes, Expect::refused(&[])).await?;
            let nested = "[".repeat(100_000);
            self.check("100,000 brackets", call(&nested), Expect::RefusedSomehow).await?;
            let plain = call(r#"{"n":1}"#).header("content-type", "text/plain");
            self.check("content type text/plain", plain, Expect::RefusedSomehow).await?;
            let rebound = call(r#"{"n":1}"#).header("host", "rebound.example");
            self.check("`Host` of a stranger", rebound, Expect::RefusedSomehow).await?;
        }
        self.rm_json(r#"{"n":4}"#, Expect::refused(&["n"])).await?;
        self.rm_json(r#"{"n":1,"hostnames":["S99"]}"#, Expect::refused(&["S99"])).await?;
        self.rm_json(r#"{"n":2,"hostnames":["S1","S99"]}"#, Expect::refused(&["S99"])).await?;
        self.rm_json(r#"{"n":2,"hostnames":["S1","S1"]}"#, Expect::refused(&["S1"])).await
    }

    async fn bad_names(&mut self) -> anyhow::Result<()> {
        self.add_json(r#"{"n":2,"hostnames":["A","A"]}"#, Expect::refused(&["A"])).await?;
        let slug = r#"{"n":2,"hostnames":["Server 9","server-9"]}"#;
        self.add_json(slug, Expect::refused(&["server-9"])).await?;
        self.add_json(r#"{"n":1,"hostnames":["S1"]}"#, Expect::refused(&["S1"])).await?;
        self.add_json(r#"{"n":1,"hostnames":["s1"]}"#, Expect::refused(&["s1"])).await?;
        for (name, word) in [
            ("../x", "../x"),
            ("x;id", "x;id"),
            ("", ""),
            (" x", "x"),
            ("-x", "x"),
            (".x", "x"),
            ("é", "é"),
            ("x\n", "x"),
            ("x\u{1b}[31m", "x"),
            ("$(id)", "id"),
        ] {
            let body = serde_json::json!({"n": 1, "hostnames": [name]}).to_string();
            let words = if word.is_empty() { &[][..] } else { &[word] };
            self.add_json(&body, Expect::refused(words)).await?;
        }
        let long = serde_json::json!({"n": 1, "hostnames": ["x".repeat(64)]}).to_string();
        let call = Call::json(Method::POST, "/add", &long);
        self.check("a name of 64 letters", call, Expect::refused(&[])).await
    }

    async fn add(&mut self) -> anyhow::Result<()> {
        let fleet = |n, new: &[&str]| Expect::Fleet {
            n,
            gone: Vec::new(),
            new: new.iter().map(|name| (*name).to_owned()).collect(),
        };
        self.add_json(r#"{"n":1}"#, fleet(4, &[])).await?;
        let named = r#"{"n":4,"hostnames":["S5","S4","Server 4"]}"#;
        self.add_json(named, fleet(8, &["S5", "S4", "Server 4"])).await?;
        let slug = r#"{"n":1,"hostnames":["server-4"]}"#;
        self.add_json(slug, Expect::refused(&["server-4"])).await?;
        let longest = "x".repeat(63);
        let body = serde_json::json!({"n": 1, "hostnames": [longest]}).to_string();
        let call = Call::json(Method::POST, "/add", &body);
        self.check("a name of 63 letters", call, fleet(9, &[&longest])).await
    }

    async fn remove(&mut self) -> anyhow::Result<()> {
        let without =
            |n, gone: &str| Expect::Fleet { n, gone: vec![gone.to_owned()], new: Vec::new() };
        self.rm_json(r#"{"n":1,"hostnames":["S4"]}"#, without(8, "S4")).await?;
        let body = r#"{"n":1,"hostnames":["Server 4"]}"#;
        let post = Call::json(Method::POST, "/rm", body);
        self.check(&quoted(body), post, without(7, "Server 4")).await?;
        self.rm_json(r#"{"n":3,"hostnames":["S5"]}"#, Expect::Shrunk(4)).await?;
        self.rm_json(r#"{"n":1}"#, Expect::Shrunk(3)).await
    }

    async fn empty_fleet(&mut self) -> anyhow::Result<()> {
        self.rm_json(r#"{"n":3}"#, Expect::Shrunk(0)).await?;
        self.get("/home", Expect::NoReplica).await?;
        tokio::time::sleep(A_WHILE).await;
        let empty = Expect::Fleet { n: 0, gone: Vec::new(), new: Vec::new() };
        let rep = Call::new(Method::GET, "/rep");
        self.check("what was removed on purpose is not respawned", rep, empty).await?;
        let two = Expect::Fleet { n: 2, gone: Vec::new(), new: Vec::new() };
        self.add_json(r#"{"n":2}"#, two).await?;
        let hello = Expect::Message { status: 200, begins: "Hello from Server: ".to_owned() };
        self.get("/home", hello).await
    }
}

/// A body as the table shows it: on one line, in code.
fn quoted(body: &str) -> String {
    let escaped: String = body
        .chars()
        .flat_map(|letter| match letter.is_control() {
            true => letter.escape_default().collect::<Vec<_>>(),
            false => vec![letter],
        })
        .collect();
    format!("`{escaped}`")
}
