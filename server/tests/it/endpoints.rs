//! Every path and method, and what it answers.

use server::Options;

use crate::client::Answer;
use crate::replica::Replica;

const CHANGES: [&str; 2] = ["/register", "/changePassword"];

fn assert_failure(answer: &Answer, status: u16, message: &str) {
    assert_eq!(answer.status, status);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.body, format!(r#"{{"message":"<Error> {message}","status":"failure"}}"#));
}

#[tokio::test]
async fn home_says_which_server_answers() {
    let replica = Replica::start(Options { server_id: "3".to_owned(), ..Options::default() });
    let answer = replica.ask("GET", "/home").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.body, r#"{"message":"Hello from Server: 3","status":"successful"}"#);
    replica.stop().await;
}

#[tokio::test]
async fn an_id_of_any_characters_is_still_json() {
    let options = Options { server_id: "a \"b\" \\ é".to_owned(), ..Options::default() };
    let replica = Replica::start(options);
    let body = replica.ask("GET", "/home").await.body;
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["message"], "Hello from Server: a \"b\" \\ é");
    replica.stop().await;
}

#[tokio::test]
async fn a_probe_is_answered_200_with_an_empty_body() {
    let replica = Replica::start(Options::default());
    for path in ["/heartbeat", "/health-check"] {
        let answer = replica.ask("GET", path).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, ""), "{path}");
    }
    replica.stop().await;
}

#[tokio::test]
async fn head_is_answered_like_get_without_a_body() {
    let replica = Replica::start(Options::default());
    let mut client = replica.client().await;
    for path in ["/home", "/heartbeat", "/health-check", "/login"] {
        let get = client.ask("GET", path).await;
        client.send("HEAD", path).await;
        let head = client.receive_head().await;
        assert_eq!(head.status, 200, "{path}");
        assert_eq!(head.header("content-type"), get.header("content-type"), "{path}");
        assert_eq!(head.header("content-length"), get.header("content-length"), "{path}");
    }
    replica.stop().await;
}

#[tokio::test]
async fn login_is_answered_200() {
    let replica = Replica::start(Options::default());
    let answer = replica.ask("GET", "/login").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body, r#"{"message":"logged in","status":"successful"}"#);
    replica.stop().await;
}

#[tokio::test]
async fn a_change_is_answered_201_whoever_asks_when_no_user_is_set() {
    let replica = Replica::start(Options::default());
    for (target, message) in [
        ("/register", "registered"),
        ("/register?username=anyone", "registered"),
        ("/changePassword", "password changed"),
        ("/changePassword?%ff&&=", "password changed"),
    ] {
        let answer = replica.ask("POST", target).await;
        assert_eq!(answer.status, 201, "{target}");
        let expected = format!(r#"{{"message":"{message}","status":"successful"}}"#);
        assert_eq!(answer.body, expected, "{target}");
    }
    replica.stop().await;
}

#[tokio::test]
async fn only_the_known_user_can_change_anything() {
    let options = Options { username: Some("ann b&c+é".to_owned()), ..Options::default() };
    let replica = Replica::start(options);
    for path in CHANGES {
        for query in [
            "username=ann%20b%26c%2B%C3%A9",
            "username=ann+b%26c%2b%c3%a9&x=1",
            "x&username=ann%20b%26c%2B%C3%A9",
        ] {
            let answer = replica.ask("POST", &format!("{path}?{query}")).await;
            assert_eq!(answer.status, 201, "{path}?{query}");
        }
        for query in [
            "",
            "?",
            "?username",
            "?username=",
            "?username=ann",
            "?username=Ann%20b%26c%2B%C3%A9",
            "?Username=ann%20b%26c%2B%C3%A9",
            "?username=%ff",
            "?username=bob&username=ann%20b%26c%2B%C3%A9",
        ] {
            let answer = replica.ask("POST", &format!("{path}{query}")).await;
            assert_failure(&answer, 404, "no such user");
        }
    }
    assert_eq!(replica.ask("GET", "/home").await.status, 200);
    assert_eq!(replica.ask("GET", "/login").await.status, 200);
    replica.stop().await;
}

#[tokio::test]
async fn an_empty_user_name_in_the_options_lets_everyone_in() {
    let options = Options { username: Some(String::new()), ..Options::default() };
    let replica = Replica::start(options);
    assert_eq!(replica.ask("POST", "/register?username=bob").await.status, 201);
    replica.stop().await;
}

#[tokio::test]
async fn dropped_requests_are_answered_500_and_repeat_with_the_seed() {
    let options = Options { skip_some_requests: true, seed: Some(7), ..Options::default() };
    let mut runs = Vec::new();
    for _ in 0..2 {
        let replica = Replica::start(options.clone());
        let mut client = replica.client().await;
        let mut dropped = Vec::new();
        for number in 0..200 {
            let answer = client.ask("POST", CHANGES[number % 2]).await;
            if answer.status == 500 {
                assert_eq!(answer.body, "request dropped by server");
                assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
                dropped.push(number);
            } else {
                assert_eq!(answer.status, 201);
            }
        }
        runs.push(dropped);
        replica.stop().await;
    }
    // A binomial: the mean is 40, the standard deviation 5.7, four of them 22.
    assert!((18..=62).contains(&runs[0].len()), "{} of 200", runs[0].len());
    assert_eq!(runs[0], runs[1]);
}

#[tokio::test]
async fn only_changes_are_dropped() {
    let replica = Replica::start(Options { skip_some_requests: true, ..Options::default() });
    let mut client = replica.client().await;
    for path in ["/home", "/login", "/heartbeat", "/health-check"] {
        for _ in 0..100 {
            assert_eq!(client.ask("GET", path).await.status, 200);
        }
    }
    replica.stop().await;
}

#[tokio::test]
async fn an_unknown_path_is_answered_404_by_its_name_without_the_query() {
    let replica = Replica::start(Options::default());
    for (method, target, path) in [
        ("GET", "/other?a=1", "/other"),
        ("POST", "/", "/"),
        ("DELETE", "/home/", "/home/"),
        ("GET", "/Home", "/Home"),
        ("OPTIONS", "/a%20b", "/a%20b"),
        ("BREW", "/heartbeat/x", "/heartbeat/x"),
    ] {
        let answer = replica.ask(method, target).await;
        assert_failure(&answer, 404, &format!("'{path}' endpoint does not exist"));
    }
    replica.stop().await;
}

#[tokio::test]
async fn another_method_is_answered_405_with_the_allowed_ones() {
    let replica = Replica::start(Options::default());
    for path in ["/home", "/heartbeat", "/health-check", "/login"] {
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"] {
            let answer = replica.ask(method, path).await;
            assert_failure(&answer, 405, &format!("'{path}' does not answer {method}"));
            assert_eq!(answer.header("allow"), Some("get, head"));
        }
    }
    for path in CHANGES {
        for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"] {
            let answer = replica.ask(method, path).await;
            assert_failure(&answer, 405, &format!("'{path}' does not answer {method}"));
            assert_eq!(answer.header("allow"), Some("post"));
        }
        let mut client = replica.client().await;
        client.send("HEAD", path).await;
        assert_eq!(client.receive_head().await.status, 405);
    }
    replica.stop().await;
}

#[tokio::test]
async fn a_body_is_read_to_its_end_and_the_connection_lives_on() {
    let replica = Replica::start(Options { skip_some_requests: true, ..Options::default() });
    let mut client = replica.client().await;
    let body = "x".repeat(1 << 20);
    for (method, path, allowed) in [
        ("POST", "/register", [201, 500]),
        ("POST", "/other", [404, 404]),
        ("PUT", "/home", [405, 405]),
        ("GET", "/heartbeat", [200, 200]),
    ] {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: replica\r\n");
        client.write(&format!("{head}Content-Length: {}\r\n\r\n{body}", body.len())).await;
        assert!(allowed.contains(&client.receive().await.status), "{method} {path}");

        let chunk = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
        client.write(&format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunk}")).await;
        assert!(allowed.contains(&client.receive().await.status), "{method} {path}, chunked");
    }
    assert_eq!(client.ask("GET", "/home").await.status, 200);
    replica.stop().await;
}

#[tokio::test]
async fn several_workers_answer_as_one_replica() {
    let workers = server::Workers::new(3).unwrap();
    let replica = Replica::start(Options { workers, ..Options::default() });
    for _ in 0..12 {
        assert_eq!(replica.ask("GET", "/home").await.status, 200);
    }
    replica.stop().await;
}
