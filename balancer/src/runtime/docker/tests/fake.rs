//! On an engine that says what a test wants: errors, nonsense, nothing.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use super::*;
use crate::fleet::change::Death;
use crate::telemetry::chain;

/// Answers one request a connection, and writes down what was asked.
struct Engine {
    at: SocketAddr,
    asked: Arc<Mutex<Vec<(String, Instant)>>>,
}

/// What it answers.
struct Answer(u16, String);

/// A status at which nothing is answered until the client gives up.
const SILENCE: u16 = 0;

impl Engine {
    /// `answer` is asked first, then what a good engine says.
    fn new(answer: impl Fn(&str) -> Option<Answer> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (at, answer) = (listener.local_addr().unwrap(), Arc::new(answer));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let engine = Self { at, asked: Arc::clone(&asked) };
        // Ends with the process.
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (answer, asked) = (Arc::clone(&answer), Arc::clone(&asked));
                thread::spawn(move || serve(stream, &*answer, &asked));
            }
        });
        engine
    }

    async fn docker(&self, config: DockerConfig) -> Docker {
        connected(&format!("tcp://{}", self.at), config).await.unwrap()
    }

    /// How often it was asked for what begins so, and when.
    fn asked(&self, what: &str) -> Vec<Instant> {
        self.asked_for(what, "")
    }

    /// The same, of those questions that contain `about`.
    fn asked_for(&self, what: &str, about: &str) -> Vec<Instant> {
        let asked = self.asked.lock().unwrap();
        let meant = |line: &str| line.starts_with(what) && line.contains(about);
        asked.iter().filter(|(line, _)| meant(line)).map(|(_, at)| *at).collect()
    }
}

fn serve(
    mut stream: TcpStream,
    answer: &dyn Fn(&str) -> Option<Answer>,
    asked: &Mutex<Vec<(String, Instant)>>,
) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if line.trim().is_empty() {
            break;
        }
        lines.push(line.to_lowercase());
    }
    let mut first = lines.first()?.split(' ');
    let (method, target) = (first.next()?.to_uppercase(), first.next()?.to_owned());
    let length = lines.iter().find_map(|line| line.strip_prefix("content-length:"));
    let length = length.map_or(0, |length| length.trim().parse().unwrap());
    std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink()).ok()?;
    // Without the version, which begins all but the question for it.
    let target = match target.strip_prefix("/v1.") {
        Some(rest) => rest.split_once('/').map_or(String::new(), |(_, rest)| format!("/{rest}")),
        None => target,
    };
    let asked_for = format!("{method} {target}");
    asked.lock().unwrap().push((asked_for.clone(), Instant::now()));
    let Answer(status, body) = answer(&asked_for).unwrap_or_else(|| good(&asked_for));
    if status == SILENCE {
        let _gone = stream.read(&mut [0]);
        return None;
    }
    let head = format!("HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n");
    let end = format!("Content-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
    stream.write_all((head + &end).as_bytes()).ok()
}

fn good(asked: &str) -> Answer {
    if asked.starts_with("GET /version") {
        Answer(200, r#"{"ApiVersion":"1.41"}"#.to_owned())
    } else if asked.starts_with("GET /events") {
        Answer(SILENCE, String::new())
    } else if asked.starts_with("GET /containers/json") {
        Answer(200, "[]".to_owned())
    } else {
        Answer(200, "{}".to_owned())
    }
}

fn refused(status: u16, message: &str) -> Option<Answer> {
    Some(Answer(status, serde_json::json!({ "message": message }).to_string()))
}

#[test]
fn nonsense_of_the_engine_is_an_error_or_nothing() {
    let nonsense = [
        "",
        "{",
        "null",
        "[",
        "[null]",
        "[{}]",
        "[1]",
        r#"[{"Id":1}]"#,
        r#"[{"Labels":null}]"#,
        r#"[{"Id":"1","State":"dancing"}]"#,
        "<html>",
        "\u{0}",
        r#"[{"Id":"1","Labels":{"balancer.hostname":"../x"}}]"#,
        r#"[{"Id":"1","Created":-5,"Names":["/","//","x"],"Labels":{"balancer.hostname":"S1"}}]"#,
        r#"[{"Id":"1","State":"running","Labels":{"balancer.hostname":"S1","balancer.seat":"0"},
             "NetworkSettings":{"Networks":{"x":{"IPAddress":"x"}}}}]"#,
    ];
    let at = Arc::new(AtomicUsize::new(0));
    let now = Arc::clone(&at);
    let engine = Engine::new(move |asked| {
        let body = nonsense.get(now.load(Ordering::Relaxed)).copied().unwrap_or_default();
        let asked_for = asked.starts_with("GET /containers") || asked.starts_with("GET /events");
        asked_for.then(|| Answer(200, body.to_owned()))
    });
    run(async move {
        let docker = engine.docker(config("x")).await;
        let what = spec("S1", Some(1));
        for (turn, text) in nonsense.iter().enumerate() {
            at.store(turn, Ordering::Relaxed);
            for observed in docker.list().await.unwrap_or_default() {
                assert_eq!((observed.hostname.as_str(), observed.address), ("S1", None), "{text}");
            }
            let _started = docker.start(&what).await;
            let _marked = docker.mark(&what.hostname, Mark::Leaving).await;
            let _stopped = docker.stop(&what.hostname, Duration::ZERO).await;
        }
    });
}

#[test]
fn one_that_has_ended_is_asked_about_once() {
    let engine = Engine::new(|asked| {
        let body = if asked.starts_with("GET /containers/json") {
            r#"[{"Id":"1","State":"exited","Status":"Exited (3) 1 hour ago","Names":["/s1"],
                 "Labels":{"balancer.hostname":"S1","balancer.seat":"1"}},
                {"Id":"2","State":"exited","Status":"Exited (4) 1 hour ago","Names":["/s2"],
                 "Labels":{"balancer.hostname":"S2","balancer.seat":"2"}}]"#
        } else if asked.starts_with("GET /containers/1/json") {
            r#"{"Id":"1","State":{"ExitCode":137,"OOMKilled":true}}"#
        } else if asked.starts_with("GET /containers/2/json") {
            return refused(500, "no");
        } else {
            return None;
        };
        Some(Answer(200, body.to_owned()))
    });
    run(async move {
        let docker = engine.docker(config("x")).await;
        for _ in 0..3 {
            let listing = docker.list().await.unwrap();
            let deaths: Vec<_> = listing.iter().map(|it| it.condition.death().unwrap()).collect();
            assert_eq!(deaths, [Death::OutOfMemory, Death::Exited(4)]);
        }
        assert_eq!(engine.asked("GET /containers/1/json").len(), 1);
        assert_eq!(engine.asked("GET /containers/json").len(), 3);
    });
}

#[test]
fn replicas_that_start_side_by_side_wait_for_one_pull() {
    let engine = Engine::new(|asked| {
        if asked.starts_with("POST /images/create") {
            // Long enough for the others to come.
            #[expect(clippy::disallowed_methods, reason = "the fake takes its time")]
            thread::sleep(Duration::from_millis(100));
        }
        asked.starts_with("POST /containers/create").then(|| {
            let message = "{\"message\":\"No such image: a/b:latest\"}";
            Answer(404, message.to_owned())
        })
    });
    run(async move {
        let pull = PullPolicy::Missing;
        let docker = engine.docker(DockerConfig { image: "a/b".into(), pull, ..config("x") }).await;
        let (s1, s2, s3) = (spec("S1", Some(1)), spec("S2", Some(2)), spec("S3", Some(3)));
        let all = tokio::join!(docker.start(&s1), docker.start(&s2), docker.start(&s3));
        // It does not have it even then.
        for result in [all.0, all.1, all.2] {
            let error = chain(&result.unwrap_err());
            assert!(error.contains("No such image: a/b:latest"), "{error}");
        }
        assert_eq!(engine.asked("POST /images/create").len(), 1);
        assert_eq!(engine.asked("POST /images/create?fromimage=a%2fb%3alatest").len(), 1);
    });
}

#[test]
fn what_the_registry_says_is_passed_on_and_a_pull_ends_in_time() {
    let words = Arc::new(Mutex::new(None));
    let said = Arc::clone(&words);
    let engine = Engine::new(move |asked| {
        let pulled = asked.starts_with("POST /images/create");
        let no_image = || refused(404, "No such image: a:1").unwrap();
        let created = asked.starts_with("POST /containers/create").then(no_image);
        if pulled { said.lock().unwrap().take() } else { created }
    });
    run(async move {
        let config = DockerConfig {
            image: "a:1".into(),
            pull: PullPolicy::Missing,
            pull_deadline: Duration::from_millis(300),
            ..config("x")
        };
        let docker = engine.docker(config).await;
        let told = |words: &str| {
            let step = r#"{"status":"Pulling from a","id":"1"}"#;
            let error = serde_json::json!({"errorDetail": {"message": words}, "error": words});
            Answer(200, format!("{step}\r\n{error}\r\n"))
        };
        for (answer, expected) in [
            (told("no matching manifest for linux/amd64"), "no matching manifest for linux/amd64"),
            (Answer(200, "{\"errorDetail\":{\"code\":1}}\n".to_owned()), "broke it off"),
            (refused(404, "pull access denied for a").unwrap(), "pull access denied for a"),
            (refused(500, "unauthorized: log in").unwrap(), "unauthorized: log in"),
            (Answer(SILENCE, String::new()), "took longer than 300ms"),
            (Answer(200, "nonsense\n".to_owned()), "could not pull image \"a:1\""),
        ] {
            *words.lock().unwrap() = Some(answer);
            let error = chain(&docker.start(&spec("S1", Some(1))).await.unwrap_err());
            assert!(error.contains(expected), "{expected}: {error}");
            assert!(error.contains("could not pull image \"a:1\""), "{error}");
        }
    });
}

#[test]
fn nothing_is_pulled_that_is_not_to_be() {
    let engine = Engine::new(|asked| {
        let create = asked.starts_with("POST /containers/create");
        create.then(|| refused(404, "No such image: a:1").unwrap())
    });
    run(async move {
        let docker = engine.docker(config("x")).await;
        let error = chain(&docker.start(&spec("S1", Some(1))).await.unwrap_err());
        assert!(error.contains("No such image: a:1"), "{error}");
        assert_eq!(engine.asked("POST /images/create").len(), 0);
    });
}

#[test]
fn a_lost_subscription_is_hinted_at_and_taken_up_again_ever_more_slowly() {
    let engine = Engine::new(|asked| {
        asked.starts_with("GET /events").then(|| refused(500, "not now").unwrap())
    });
    run(async move {
        let docker = engine.docker(config("x")).await;
        let deadline = Instant::now() + PATIENCE;
        // The subscription to the network's events comes beside it.
        let subscribed = || engine.asked_for("GET /events", "container");
        while subscribed().len() < 4 {
            docker.changed().await;
            assert!(Instant::now() < deadline);
        }
        let asked = subscribed();
        let pauses: Vec<Duration> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
        for (pause, least) in pauses.iter().zip([100, 200, 400]) {
            assert!(*pause >= Duration::from_millis(least), "{pauses:?}");
        }
    });
}

#[test]
fn a_container_whose_start_failed_is_removed_unless_somebody_else_started_it() {
    for (state, address) in [("running", "10.0.0.2"), ("created", "")] {
        let engine = Engine::new(move |asked| {
            let listed = serde_json::json!([{
                "Id": "1", "State": state, "Names": ["/s1"],
                "Labels": {"balancer.hostname": "S1", "balancer.seat": "1"},
                "NetworkSettings": {"Networks": {"x": {"IPAddress": address}}},
            }]);
            let started = |asked: &str| asked.starts_with("POST /containers/1/start");
            if started(asked) {
                refused(500, "no room")
            } else if asked.starts_with("POST /containers/create") {
                Some(Answer(201, r#"{"Id":"1","Warnings":[]}"#.to_owned()))
            } else if asked.starts_with("GET /containers/json") {
                Some(Answer(200, listed.to_string()))
            } else {
                None
            }
        });
        run(async move {
            let docker = engine.docker(config("x")).await;
            let what = spec("S1", Some(1));
            let made = docker.create(&what).await.unwrap();
            let result = docker.finish(&what, Found::New(made)).await;
            let removed = engine.asked("DELETE /containers/1?");
            if state == "running" {
                assert_eq!(result.unwrap().address.unwrap().to_string(), "10.0.0.2:5000");
                assert_eq!(removed.len(), 0);
            } else {
                assert!(chain(&result.unwrap_err()).contains("no room"));
                assert_eq!(removed.len(), 1);
                assert_eq!(engine.asked("DELETE /containers/1?v=true&force=false").len(), 1);
            }
        });
    }
}
