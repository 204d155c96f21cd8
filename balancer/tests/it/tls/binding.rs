//! Replicas that authenticate connections, and clients of HTTP/2, whose connection has many
//! requests at once.

use super::http2::{Client, ask, by_http2};
use super::{Files, speaking_tls};
use crate::conformance::binding::ntlm;

#[test]
fn a_challenge_for_a_connection_sends_the_client_to_http_1() {
    let (upstream, files) = (ntlm(), Files::new());
    let (_balancer, port) = speaking_tls(&upstream, &files, &["--workers", "1"]);
    by_http2(async || {
        let client = Client::connect(&files, port).await;
        let reset = client.get("/page").await.map(|whole| whole.head).unwrap_err();
        assert_eq!(reset.reason(), Some(h2::Reason::HTTP_1_1_REQUIRED), "{reset:?}");
        // The connection goes on, and a client that has a choice gets it.
        assert_eq!(client.get("/open").await.unwrap().head.status(), 200);
        let refused = client.get("/basic").await.unwrap();
        assert_eq!(refused.head.status(), 401);
        assert_eq!(refused.head.headers().get_all("www-authenticate").iter().count(), 2);
    });
}

#[test]
fn a_connection_that_a_stream_has_authenticated_carries_no_other_stream() {
    let (upstream, files) = (ntlm(), Files::new());
    let (_balancer, port) = speaking_tls(&upstream, &files, &["--workers", "1"]);
    by_http2(async || {
        let client = Client::connect(&files, port).await;
        for _ in 0..5 {
            let request = ask("GET", "/basic").header("authorization", "Negotiate ticket");
            let whole = client.send(request.body(()).unwrap(), &[]).await.unwrap();
            assert_eq!((whole.head.status().as_u16(), &whole.body[..]), (200, &b"alice"[..]));
            assert_eq!(client.get("/basic").await.unwrap().head.status(), 401);
        }
    });
    let logins = upstream.seen_with("Negotiate ticket");
    assert!(logins.iter().all(|seen| upstream.sees_end_of(seen.connection)), "{logins:?}");
}
