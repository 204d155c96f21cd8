use super::*;
use crate::http1::head::HeadLimits;
use crate::http1::request::RequestLine;

const LIMITS: HeadLimits = HeadLimits { bytes: 16_384, fields: 64, target: 8_192 };

/// A request and the answer to it as they are sent on, without the start lines and without
/// `X-Balancer-Hop`.
fn sent_on(request: &str, answer: &str) -> (String, String) {
    sent_on_from("192.0.2.1", &ForwardedConfig::default(), request, answer)
}

/// The same, of a client at `ip`.
fn sent_on_from(
    ip: &str,
    config: &ForwardedConfig,
    request: &str,
    answer: &str,
) -> (String, String) {
    let mut head = Head::<RequestLine>::new();
    assert_eq!(head.parse(request.as_bytes(), &LIMITS), Ok(Some(request.len())));
    let mut read = Request::new();
    read.read(&head, request.as_bytes()).unwrap();
    let given = read.id.map(|id| id.of(request.as_bytes()));
    let source = crate::routing::key::KeySource::RequestId;
    let asked = Asked {
        request: &read,
        head: request.as_bytes(),
        lines: head.lines(),
        peer: &Peer::new(ip.parse().unwrap(), "http", &config.trust),
        id: &RequestId::of(given, &source, &mut rand::rng()),
    };
    let mut out = Vec::new();
    asked.put_request(&mut out, config, "127.0.0.1:9".parse().unwrap());
    let mut back = Vec::new();
    let mut head = Head::<StatusLine>::new();
    assert_eq!(head.parse(answer.as_bytes(), &LIMITS), Ok(Some(answer.len())));
    let mut read = Answer::new();
    read.read(&head, answer.as_bytes(), false).unwrap();
    let (framing, date) = (read.framing, &b"now"[..]);
    let reply = Reply { framing, close: false, keep_alive: false, date, via: None, cookie: None };
    asked.put_answer(&mut back, &read, &head, answer.as_bytes(), &reply);
    let fields = |out: Vec<u8>| {
        let text = String::from_utf8(out).unwrap();
        let fields = text.split_once("\r\n").unwrap().1.replace(hop::line(), "");
        fields.replace("\r\n", "\n")
    };
    (fields(out), fields(back))
}

fn request_on(request: &str) -> String {
    sent_on(request, "HTTP/1.1 204 No\r\n\r\n").0
}

const FORWARDED: &str = "X-Forwarded-For: 192.0.2.1\nX-Forwarded-Proto: http\n";

#[test]
fn a_request_has_one_host_also_where_it_had_no_field_of_that_name() {
    for (request, host, forwarded) in [
        ("GET / HTTP/1.0\r\n", "127.0.0.1:9", ""),
        ("GET http://a:8/ HTTP/1.0\r\n", "a:8", "X-Forwarded-Host: a:8\n"),
        ("GET http://a:8/ HTTP/1.0\r\nHost: b\r\n", "a:8", "X-Forwarded-Host: a:8\n"),
        ("GET http://a:8/ HTTP/1.1\r\nHost: b\r\n", "a:8", "X-Forwarded-Host: a:8\n"),
    ] {
        let seen = request_on(&format!("{request}X-Request-Id: 7\r\n\r\n"));
        let mut parts = [format!("Host: {host}\n"), "X-Request-Id: 7\n".to_owned()].concat();
        parts += FORWARDED;
        assert_eq!(seen, format!("{parts}{forwarded}\n"), "{request}");
    }
}

#[test]
fn a_request_has_one_id_also_where_the_first_is_empty() {
    let seen = request_on("GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id:\r\nX-Request-Id: 7\r\n\r\n");
    let parts = ["Host: a\nX-Request-Id: 7\n", FORWARDED, "X-Forwarded-Host: a\n\n"].concat();
    assert_eq!(seen, parts);
}

#[test]
fn fields_that_mean_something_here_cannot_be_named_away() {
    let (request, answer) = sent_on(
        "POST / HTTP/1.1\r\nHost: a\r\nX-Request-Id: 7\r\nExpect: 100-continue\r\nX-A: 1\r\n\
         Connection: host, x-request-id, expect, x-a\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nDate: d\r\nX-Request-Id: 8\r\nX-A: 1\r\n\
         Connection: date, x-request-id, x-a\r\nContent-Length: 5\r\n\r\n",
    );
    let kept = "Host: a\nX-Request-Id: 7\nExpect: 100-continue\n";
    let parts = [kept, FORWARDED, "X-Forwarded-Host: a\nContent-Length: 5\n\n"].concat();
    assert_eq!(request, parts);
    assert_eq!(answer, "Date: d\nX-Request-Id: 8\nContent-Length: 5\n\n");
}

/// The fields of proxies that a replica gets from a client at `ip`, in order.
fn fields_of_proxies(ip: &str, rfc7239: bool, fields: &str) -> Vec<String> {
    let trust = vec!["10.0.0.0/8".parse().unwrap()];
    let config = ForwardedConfig { trust, rfc7239, ..ForwardedConfig::default() };
    let request = format!("GET / HTTP/1.1\r\nHost: site:80\r\nX-Request-Id: 7\r\n{fields}\r\n");
    let (seen, _) = sent_on_from(ip, &config, &request, "HTTP/1.1 204 No\r\n\r\n");
    let is_of_proxies = |line: &&str| !line.starts_with("Host: ") && !line.starts_with("X-Request");
    seen.lines().filter(|line| !line.is_empty()).filter(is_of_proxies).map(Into::into).collect()
}

const CLAIMS: &str = "X-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6;proto=https\r\n\
    X-Real-IP: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: pub\r\n\
    X-Forwarded-Port: 443\r\nX_Forwarded_For: 6.6.6.6\r\nX-Forwarded_Proto: https\r\n\
    X_Real-IP: 6.6.6.6\r\n";

#[test]
fn the_claims_of_an_untrusted_client_are_removed() {
    let own =
        ["X-Forwarded-For: 192.0.2.1", "X-Forwarded-Proto: http", "X-Forwarded-Host: site:80"];
    assert_eq!(fields_of_proxies("192.0.2.1", false, CLAIMS), own);
    let standard = "Forwarded: for=192.0.2.1;host=\"site:80\";proto=http".to_owned();
    let with_standard = [&own.map(str::to_owned)[..], &[standard]].concat();
    assert_eq!(fields_of_proxies("192.0.2.1", true, CLAIMS), with_standard);
}

#[test]
fn the_claims_of_a_trusted_proxy_are_kept_and_added_to() {
    let kept = [
        "X-Real-IP: 6.6.6.6",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: pub",
        "X-Forwarded-Port: 443",
        "X-Forwarded-For: 6.6.6.6, 10.0.0.1",
        "Forwarded: for=6.6.6.6;proto=https, for=10.0.0.1;host=\"site:80\";proto=http",
    ];
    assert_eq!(fields_of_proxies("10.0.0.1", false, CLAIMS), kept);
    assert_eq!(fields_of_proxies("10.0.0.1", true, CLAIMS), kept);
}

#[test]
fn what_forwarded_tells_is_told_by_the_other_fields_too() {
    let sent = "Forwarded: for=6.6.6.6;proto=http, for=\"[2001:db8::1]:40\";proto=https;host=pub, \
        for=10.0.0.2\r\nForwarded: for=\"1.1.1.1\r\n";
    // The second field is unreadable: what it hides is not trusted, and it is not passed on.
    let unreadable = [
        "X-Forwarded-For: 6.6.6.6, 2001:db8::1, 10.0.0.2, 10.0.0.1",
        "X-Forwarded-Proto: http",
        "X-Forwarded-Host: site:80",
        "Forwarded: for=6.6.6.6;proto=http, for=\"[2001:db8::1]:40\";proto=https;host=pub, \
         for=10.0.0.2, for=10.0.0.1;host=\"site:80\";proto=http",
    ];
    assert_eq!(fields_of_proxies("10.0.0.1", false, sent), unreadable);
    let (readable, _) = sent.split_once("Forwarded: for=\"1").unwrap();
    let told = fields_of_proxies("10.0.0.1", false, readable);
    assert_eq!(told[0], unreadable[0]);
    assert_eq!(told[1..3], ["X-Forwarded-Proto: https", "X-Forwarded-Host: pub"]);
    assert_eq!(told[3], unreadable[3]);

    let listed = "X-Forwarded-For: 6.6.6.6:80, nonsense, 2001:db8::1\r\n";
    let made = fields_of_proxies("10.0.0.1", true, listed);
    assert_eq!(made[0], "X-Forwarded-For: 6.6.6.6:80, nonsense, 2001:db8::1, 10.0.0.1");
    assert_eq!(
        made[3],
        "Forwarded: for=6.6.6.6, for=unknown, for=\"[2001:db8::1]\", \
         for=10.0.0.1;host=\"site:80\";proto=http"
    );
}
