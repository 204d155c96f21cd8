//! Whose request it is behind trusted proxies, against a reader that joins the fields first: and
//! an address that no trusted proxy told is never believed.

#![no_main]

use std::net::{IpAddr, SocketAddr};

use balancer_fuzz::http1::field::is_token;
use balancer_fuzz::http1::head::Line;
use balancer_fuzz::http1::request::Request;
use balancer_fuzz::proxy::peer::Peer;
use ipnet::IpNet;
use libfuzzer_sys::fuzz_target;

/// Each line is the value of one field of this name.
fn fields(name: &[u8], data: &[u8]) -> (Vec<u8>, Vec<Line>) {
    let (mut head, mut lines) = (Vec::new(), Vec::new());
    for value in data.split(|byte| *byte == b'\n') {
        let start = head.len();
        head.extend_from_slice(name);
        head.push(b':');
        head.extend_from_slice(value);
        match Line::parse(&head, start, head.len(), false) {
            Ok(line) => lines.push(line),
            Err(_) => head.truncate(start),
        }
    }
    (head, lines)
}

/// An address with or without a port, by the standard library's own reader of both.
fn address(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address);
    }
    // RFC 7239 6: a port may be obfuscated.
    let name = text.rsplit_once(":_").filter(|(_, name)| is_token(name.as_bytes()));
    let text = name.map_or(text.to_owned(), |(address, _)| format!("{address}:1"));
    let text = if text.ends_with(']') { text + ":1" } else { text };
    // Networks are told by addresses, not by interfaces.
    let socket = text.parse::<SocketAddr>().ok().filter(|_| !text.contains('%'));
    socket.map(|socket| socket.ip())
}

fn naive(peer: IpAddr, joined: &[u8], trusted: impl Fn(&IpAddr) -> bool) -> IpAddr {
    let mut client = peer.to_canonical();
    let mut hops: Vec<&[u8]> = joined.split(|byte| *byte == b',').collect();
    while trusted(&client) {
        let told = hops.pop().and_then(|hop| str::from_utf8(hop).ok());
        let Some(address) = told.and_then(|hop| address(hop.trim_matches([' ', '\t']))) else {
            break;
        };
        client = address.to_canonical();
    }
    client
}

fuzz_target!(|data: &[u8]| {
    let [peer, data @ ..] = data else { return };
    let peer: IpAddr = match peer % 4 {
        0 => [192, 0, 2, 1].into(),
        1 => [10, 0, 0, 1].into(),
        2 => "::1".parse().expect("an address"),
        _ => "::ffff:10.9.8.7".parse().expect("an address"),
    };
    let trust: [IpNet; 2] =
        ["10.0.0.0/8".parse().expect("a network"), "::1/128".parse().expect("a network")];
    let trusted = |ip: &IpAddr| trust.iter().any(|network| network.contains(ip));
    let told = |name, set: fn(&mut Request, &Line)| {
        let (head, lines) = fields(name, data);
        let mut request = Request::new();
        lines.first().into_iter().for_each(|line| set(&mut request, line));
        let client = Peer::new(peer, "http", &trust).client_ip(&request, &lines, &head, &trust);
        if !trusted(&peer.to_canonical()) {
            assert_eq!(client, peer);
        }
        assert_eq!(client, client.to_canonical());
        (head, lines, client)
    };
    told(b"forwarded", |request, _| request.has_forwarded = true);
    let (head, lines, client) = told(b"x-forwarded-for", |request, line| {
        request.forwarded_for = Some(line.value);
    });
    let values: Vec<&[u8]> = lines.iter().map(|line| line.value.of(&head)).collect();
    let expected = match values.is_empty() {
        true => peer.to_canonical(),
        false => naive(peer, &values.join(&b','), trusted),
    };
    assert_eq!(client, expected);
});
