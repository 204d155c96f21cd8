//! What is sent on is good again, to this reader and to httparse: one host, one framing and that
//! which was understood, and nothing that was of the other connection only.
//!
//! The input is a request's head, and an answer's behind it.

#![no_main]

use balancer_fuzz::config::ForwardedConfig;
use balancer_fuzz::hop::passes;
use balancer_fuzz::http1::answer::{Answer, StatusLine};
use balancer_fuzz::http1::field::{Kind, is_token};
use balancer_fuzz::http1::forwarded::hops;
use balancer_fuzz::http1::head::{Head, Line, StartLine};
use balancer_fuzz::http1::request::{Request, RequestLine};
use balancer_fuzz::http1::{Framing, Options};
use balancer_fuzz::proxy::message::{Asked, Reply};
use balancer_fuzz::proxy::peer::Peer;
use balancer_fuzz::routing::key::{KeySource, RequestId};
use balancer_fuzz::{fields, read, values};
use libfuzzer_sys::fuzz_target;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

/// Room for what is added.
const FIELDS: usize = balancer_fuzz::FIELDS + 16;

/// Reads a head without this fuzzer's limits: what is added may be beyond them.
fn read_out<S: StartLine>(bytes: &[u8]) -> Head<S> {
    let limits = balancer_fuzz::http1::head::HeadLimits {
        bytes: 1 << 20,
        fields: FIELDS,
        target: balancer_fuzz::LIMITS.target + 1,
    };
    let mut head = Head::new();
    assert_eq!(head.parse(bytes, &limits), Ok(Some(bytes.len())));
    head
}

/// Whether all that had to cross did, in order, and nothing that must not.
fn assert_crossed(
    lines: &[Line],
    options: &Options,
    head: &[u8],
    out: &Head<impl StartLine>,
    bytes: &[u8],
) {
    let other = |line: &&Line| line.kind == Kind::Other && line.name.of(head) != b"Via";
    let crossing = lines.iter().filter(other);
    let crossing = crossing.filter(|line| !options.names(head, line.name.of(head)));
    let crossing = crossing.map(|line| (line.name.of(head), line.value.of(head)));
    let crossed = out.lines().iter().filter(|line| line.kind == Kind::Other);
    let crossed = crossed.map(|line| (line.name.of(bytes), line.value.of(bytes)));
    assert!(crossing.eq(crossed.filter(|(name, _)| *name != b"Via")));
}

/// Whether this is a protocol, and no HTTP.
fn is_other_protocol(protocol: &[u8]) -> bool {
    let protocol = protocol.trim_ascii_start().to_ascii_lowercase();
    let parts: Vec<&[u8]> = protocol.split(|byte| *byte == b'/').collect();
    let known = [&b"h2c"[..], b"h2", b"http", b"tls"].contains(&parts[0]);
    parts.len() <= 2 && parts.iter().all(|part| is_token(part)) && !known
}

fn request_out(asked: &Asked<'_>, forwarded: &ForwardedConfig) {
    let Asked { request, head, .. } = *asked;
    let mut bytes = Vec::new();
    asked.put_request(&mut bytes, forwarded, "127.0.0.1:5001".parse().expect("an address"));

    let mut headers = [httparse::EMPTY_HEADER; FIELDS];
    let mut other = httparse::Request::new(&mut headers);
    assert_eq!(other.parse(&bytes), Ok(httparse::Status::Complete(bytes.len())));

    let out = read_out::<RequestLine>(&bytes);
    let mut again = Request::new();
    again.read(&out, &bytes).expect("what is sent is good");
    assert_eq!(again.minor, 1);
    assert_eq!(again.framing, request.framing);
    assert_eq!(again.method.of(&bytes), request.method.of(head));
    assert_eq!(
        again.path(&bytes),
        if again.target.of(&bytes) == b"*" { b"*" } else { request.path(head) }
    );
    assert_eq!(again.query(&bytes), request.query(head));
    assert!(again.target.of(&bytes).starts_with(b"/") || again.target.of(&bytes) == b"*");

    let all = |name| values(&out, &bytes, name);
    assert_eq!(all("host").len(), 1);
    if let Some(host) = request.host {
        assert_eq!(all("host")[0], host.of(head));
    }
    assert!(all("content-length").len() + all("transfer-encoding").len() <= 1);
    for name in ["keep-alive", "proxy-connection", "trailer"] {
        assert!(all(name).is_empty(), "{name}");
    }
    // Only what the balancer itself says of its own connection.
    let (connection, upgrade, te) = (all("connection"), all("upgrade"), all("te"));
    match (request.upgrade, request.takes_trailers) {
        (Some(_), _) => {
            assert_eq!((&connection[..], &te[..]), (&[&b"Upgrade"[..]][..], &[][..]));
            assert_eq!(upgrade.len(), 1);
            assert!(upgrade[0].split(|byte| *byte == b',').all(is_other_protocol));
            assert!(again.upgrade.is_some());
        }
        (None, true) => {
            assert_eq!((&connection[..], &te[..]), (&[&b"TE"[..]][..], &[&b"trailers"[..]][..]));
        }
        (None, false) => assert!(connection.is_empty() && te.is_empty()),
    }
    assert!(request.upgrade.is_some() || upgrade.is_empty());

    // RFC 9110 10.1.1: whoever waits for a 100 waits for one that can come.
    assert_eq!(again.expects, request.expects);
    let first_id = all("x-request-id").first().copied();
    assert_eq!(first_id, Some(asked.id.as_bytes()));
    assert_eq!(all("x-forwarded-for").len(), 1);
    assert!(all("x-forwarded-for")[0].ends_with(asked.peer.text().as_bytes()));
    if !asked.peer.is_trusted() {
        assert_eq!(all("x-forwarded-for")[0], asked.peer.text().as_bytes());
        assert_eq!(all("x-forwarded-proto"), [&b"http"[..]]);
        let hosts: Vec<&[u8]> = request.host.iter().map(|host| host.of(head)).collect();
        assert_eq!(all("x-forwarded-host"), hosts);
    }
    assert!(!all("x-forwarded-proto").is_empty());
    // RFC 7239: one field, and what is written is read again.
    let standard = all("forwarded");
    let sent = asked.lines.iter().any(|line| line.kind == Kind::Forwarded);
    assert_eq!(standard.len(), usize::from(forwarded.rfc7239 || sent && asked.peer.is_trusted()));
    for value in standard {
        let hops = hops(value).expect("what is sent is good");
        let last = hops.last().copied().flatten().expect("the element of the client");
        assert_eq!(last.address, Some(asked.peer.ip()));
        assert!(asked.peer.is_trusted() || hops.len() == 1);
    }
    // A request passes once more each time.
    let earlier = asked.passes();
    assert_eq!(all("x-balancer-hop").iter().map(|value| passes(value)).sum::<usize>(), earlier + 1);
    if let Some(hops) = request.max_forwards {
        assert_eq!(again.max_forwards, Some(hops.saturating_sub(1)));
    }
    assert_crossed(asked.lines, &request.options, head, &out, &bytes);
}

fn answer_out(asked: &Asked<'_>, data: &[u8], via: Option<&str>) {
    let (head, Ok(Some(length))) = read::<StatusLine>(data, usize::MAX) else { return };
    let (data, to_head) = (&data[..length], asked.request.method.of(asked.head) == b"HEAD");
    let mut answer = Answer::new();
    // As the exchange has it: no such answer gets further.
    let refused = answer.read(&head, data, to_head).is_err();
    if refused || answer.is_interim() || answer.status == 101 && asked.request.upgrade.is_none() {
        return;
    }
    let old = asked.request.minor == 0;
    let framing = match answer.framing {
        Framing::Chunked | Framing::UntilClose if old => Framing::UntilClose,
        Framing::Chunked | Framing::UntilClose => Framing::Chunked,
        framing @ (Framing::None | Framing::Length(_)) => framing,
    };
    let close = !asked.request.wants_more() || framing == Framing::UntilClose;
    let reply = Reply { framing, close, keep_alive: old, date: b"now", via, cookie: None };
    let mut bytes = Vec::new();
    asked.put_answer(&mut bytes, &answer, &head, data, &reply);

    let mut headers = [httparse::EMPTY_HEADER; FIELDS];
    let mut other = httparse::Response::new(&mut headers);
    assert_eq!(other.parse(&bytes), Ok(httparse::Status::Complete(bytes.len())));

    let out = read_out::<StatusLine>(&bytes);
    let mut again = Answer::new();
    again.read(&out, &bytes, to_head).expect("what is sent is good");
    assert_eq!((again.status, again.framing), (answer.status, framing));
    assert_eq!(again.reason.of(&bytes), answer.reason.of(data));
    assert_eq!(again.keeps, !close);
    let all = |name| values(&out, &bytes, name);
    assert!(all("content-length").len() + all("transfer-encoding").len() <= 1);
    for name in ["keep-alive", "proxy-connection", "te", "trailer"] {
        assert!(all(name).is_empty(), "{name}");
    }
    assert!(all("connection").len() <= 1);
    assert_eq!(all("upgrade").is_empty(), answer.status != 101);
    assert!(!all("date").is_empty() && !all("x-request-id").is_empty());
    assert_crossed(head.lines(), &answer.options, data, &out, &bytes);
}

fuzz_target!(|data: &[u8]| {
    let [choice, data @ ..] = data else { return };
    let (head, Ok(Some(length))) = read::<RequestLine>(data, usize::MAX) else { return };
    let (data, behind) = data.split_at(length);
    let mut request = Request::new();
    if request.read(&head, data).is_err() {
        return;
    }
    // What the client may say of itself is different if it is trusted.
    let forwarded = ForwardedConfig {
        trust: vec!["10.0.0.0/8".parse().expect("a network")],
        via: (choice & 2 != 0).then(|| "edge".to_owned()),
        rfc7239: choice & 4 != 0,
        ..ForwardedConfig::default()
    };
    let ip = if choice & 1 == 0 { [192, 0, 2, 1] } else { [10, 0, 0, 1] };
    let given = request.id.map(|id| id.of(data));
    let mut rng = StdRng::seed_from_u64(1);
    let asked = Asked {
        request: &request,
        head: data,
        lines: head.lines(),
        peer: &Peer::new(ip.into(), "http", &forwarded.trust),
        id: &RequestId::of(given, &KeySource::RequestId, &mut rng),
    };
    assert!(fields(&head, data).count() <= balancer_fuzz::FIELDS);
    request_out(&asked, &forwarded);
    answer_out(&asked, behind, forwarded.via.as_deref());
});
