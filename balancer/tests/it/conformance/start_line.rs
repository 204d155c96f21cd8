//! The request line and the Host: what is bad is refused, what is good crosses byte for byte.

use super::table::Expect::{Forwarded, Last, Refused};
use super::table::{Case, case, run};

/// A request with this first line; the marker stands in a field, since the target may be bad.
fn line(line: &[u8]) -> Vec<u8> {
    [line, b"\r\nHost: a\r\nX-Case: ~\r\n\r\n"].concat()
}

fn refused(status: u16, bad: &[(&str, &[u8])]) -> Vec<Case> {
    bad.iter().map(|(name, bytes)| case(name, line(bytes), Refused(status))).collect()
}

/// Requests whose line is to arrive as it is.
fn kept(good: &[(&str, &str)]) -> Vec<Case> {
    let seen = |line: &str| format!("{line}\nHost: a\nX-Case: ~\n\n").into_bytes();
    good.iter()
        .map(|(name, text)| case(name, line(text.as_bytes()), Forwarded(seen(text))))
        .collect()
}

#[test]
fn a_bad_request_line_is_refused() {
    // RFC 9112 3: method SP target SP version; 2.2: nothing lenient about its separators.
    run(
        &refused(
            400,
            &[
                ("no method", b" /x HTTP/1.1"),
                ("a blank in the method", b"G ET /x HTTP/1.1"),
                ("a parenthesis in the method", b"GE(T /x HTTP/1.1"),
                ("a NUL in the method", b"GET\x00 /x HTTP/1.1"),
                ("a colon in the method", b"GET: /x HTTP/1.1"),
                ("a high byte in the method", b"G\xcbT /x HTTP/1.1"),
                ("a quote in the method", b"\"GET\" /x HTTP/1.1"),
                ("a leading space", b" GET /x HTTP/1.1"),
                ("two spaces after the method", b"GET  /x HTTP/1.1"),
                ("two spaces before the version", b"GET /x  HTTP/1.1"),
                ("a tab after the method", b"GET\t/x HTTP/1.1"),
                ("a tab before the version", b"GET /x\tHTTP/1.1"),
                ("a trailing space", b"GET /x HTTP/1.1 "),
                ("a trailing tab", b"GET /x HTTP/1.1\t"),
                ("a bare CR in it", b"GET /x\rHTTP/1.1"),
                ("a bare CR before the end", b"GET /x HTTP/1.1\r"),
                ("no version", b"GET /x"),
                ("only a method", b"GET"),
                ("one word too many", b"GET /x y HTTP/1.1"),
                // RFC 9112 3.2: the forms of a target.
                ("no slash", b"GET foo HTTP/1.1"),
                ("an asterisk with GET", b"GET * HTTP/1.1"),
                ("an asterisk and more", b"OPTIONS *x HTTP/1.1"),
                ("no target", b"GET  HTTP/1.1"),
                ("authority-form with GET", b"GET a:80 HTTP/1.1"),
                ("a question mark only", b"GET ?q HTTP/1.1"),
                ("a NUL in the target", b"GET /x\x00y HTTP/1.1"),
                ("ESC in the target", b"GET /x\x1b HTTP/1.1"),
                ("DEL in the target", b"GET /x\x7f HTTP/1.1"),
                ("a high byte in the target", b"GET /\xff HTTP/1.1"),
                ("UTF-8 in the target", b"GET /\xc3\xa9 HTTP/1.1"),
                ("a fragment", b"GET /x#f HTTP/1.1"),
                ("a fragment in absolute-form", b"GET http://a/x#f HTTP/1.1"),
                ("userinfo", b"GET http://u@a/x HTTP/1.1"),
                ("userinfo with a password", b"GET http://u:p@a/x HTTP/1.1"),
                ("an empty authority", b"GET http:///x HTTP/1.1"),
                ("an authority that is only a port", b"GET http://:80/x HTTP/1.1"),
                ("a port that is none", b"GET http://a:x/ HTTP/1.1"),
                ("a scheme that is not ours", b"GET ftp://a/x HTTP/1.1"),
                ("a scheme without an authority", b"GET http:/x HTTP/1.1"),
                // RFC 9112 2.3: HTTP-name is case-sensitive, one digit on each side.
                ("a version of two digits", b"GET /x HTTP/1.10"),
                ("a version without a point", b"GET /x HTTP/11"),
                ("a version in lower case", b"GET /x http/1.1"),
                ("a version without a minor", b"GET /x HTTP/1."),
                ("a version without a major", b"GET /x HTTP/.1"),
                ("another protocol", b"GET /x FOO/1.1"),
                ("a version with a sign", b"GET /x HTTP/+1.1"),
                ("a letter in the version", b"GET /x HTTP/1.x"),
                ("a comma in the version", b"GET /x HTTP/1,1"),
                ("a space in the version", b"GET /x HTTP/ 1.1"),
            ],
        ),
        &[],
    );
}

#[test]
fn a_version_that_is_not_spoken_is_505() {
    // RFC 9110 15.6.6.
    run(
        &refused(
            505,
            &[
                ("2.0", b"GET /x HTTP/2.0"),
                ("3.0", b"GET /x HTTP/3.0"),
                ("0.9", b"GET /x HTTP/0.9"),
                ("1.2", b"GET /x HTTP/1.2"),
                ("9.9", b"GET /x HTTP/9.9"),
            ],
        ),
        &[],
    );
}

#[test]
fn what_is_no_message_at_all_is_refused() {
    let http2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let cases = [
        // RFC 9112 2.2.
        case(
            "an LF before the request line",
            b"\nGET /~ HTTP/1.1\r\nHost: a\r\n\r\n",
            Refused(400),
        ),
        case("a CR before the request line", b"\rGET /~ HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
        case(
            "a NUL before the request line",
            b"\x00GET /~ HTTP/1.1\r\nHost: a\r\n\r\n",
            Refused(400),
        ),
        // No HTTP/0.9: its answer would have no status.
        case("HTTP/0.9", b"GET /~\r\n", Refused(400)),
        case("HTTP/2 with prior knowledge", http2, Refused(505)),
        // RFC 9110 9.3.6: nothing behind the balancer is a tunnel's end.
        case("CONNECT", b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\nX: ~\r\n\r\n", Refused(501)),
        case("a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03~\r\n\r\n", Refused(400)),
        case("one empty line first", b"\r\nGET /~ HTTP/1.1\r\nHost: a\r\n\r\n", {
            Forwarded(b"GET /~ HTTP/1.1\nHost: a\n\n".to_vec())
        }),
    ];
    run(&cases, &[]);
}

#[test]
fn a_good_request_line_crosses_as_it_is() {
    let targets = [
        ("a method in lower case", "get /x HTTP/1.1"),
        ("a method of odd token bytes", "!#$%&'*+-.^_`| /x HTTP/1.1"),
        ("a method of digits", "42 /x HTTP/1.1"),
        ("a long method", "UPDATEREDIRECTREF /x HTTP/1.1"),
        ("dots and slashes", "GET /a/../b//c/./d/%2e%2e/%2F HTTP/1.1"),
        ("two slashes first", "GET //evil.example/x HTTP/1.1"),
        ("an empty query", "GET /x? HTTP/1.1"),
        ("question marks", "GET /x?a=b?c=d HTTP/1.1"),
        ("broken percent signs", "GET /%zz/%/%0 HTTP/1.1"),
        ("lower and upper hexadecimal", "GET /%c3%A9 HTTP/1.1"),
        ("a URL as path", "GET /http://a/b?c=http://d/ HTTP/1.1"),
        ("brackets and bars", "GET /x?a=[1]&b={2}|\\^`\"<> HTTP/1.1"),
        ("sub-delimiters", "GET /a:b@c;d=e,f!$&'()*+ HTTP/1.1"),
        // RFC 9112 3.2.4.
        ("OPTIONS for the server", "OPTIONS * HTTP/1.1"),
    ];
    run(&kept(&targets), &[]);
}

#[test]
fn absolute_form_becomes_origin_form_and_its_authority_the_host() {
    // RFC 9112 3.2.2; 3.2.4 for OPTIONS without a path.
    let good = [
        ("a path", "GET http://b/x?y", "GET /x?y", "b"),
        ("a port", "GET http://b:8080/x", "GET /x", "b:8080"),
        ("no path", "GET http://b", "GET /", "b"),
        ("only a query", "GET http://b?q=1", "GET /?q=1", "b"),
        ("a scheme in upper case", "GET HTTP://b/x", "GET /x", "b"),
        ("an IPv6 address", "GET http://[::1]:80/x", "GET /x", "[::1]:80"),
        ("OPTIONS without a path", "OPTIONS http://b", "OPTIONS *", "b"),
        ("OPTIONS with a path", "OPTIONS http://b/", "OPTIONS /", "b"),
        ("a path that is not normal", "GET http://b//x/../%2F", "GET //x/../%2F", "b"),
    ];
    let mut cases: Vec<Case> = good
        .iter()
        .map(|(name, line, seen, host)| {
            let send = format!("{line} HTTP/1.1\r\nHost: a\r\nX-Case: ~\r\n\r\n");
            let seen = format!("{seen} HTTP/1.1\nHost: {host}\nX-Case: ~\n\n");
            case(name, send, Forwarded(seen.into_bytes()))
        })
        .collect();
    // RFC 9112 3.2: a Host is demanded beside it all the same.
    let none = b"GET http://b/~ HTTP/1.1\r\nX: y\r\n\r\n";
    cases.push(case("without a Host", none, Refused(400)));
    let bad = b"GET http://b/~ HTTP/1.1\r\nHost: a b\r\n\r\n";
    cases.push(case("beside a bad Host", bad, Refused(400)));
    run(&cases, &[]);
}

#[test]
fn exactly_one_good_host_or_the_request_is_refused() {
    // RFC 9112 3.2: 400 for none, more than one, or an invalid value; RFC 9110 7.2: its syntax.
    let bad: &[(&str, &[u8])] = &[
        ("none", b""),
        ("two that are equal", b"Host: a\r\nHost: a\r\n"),
        ("two that differ", b"Host: a\r\nHost: b\r\n"),
        ("two, one empty", b"Host: a\r\nHost:\r\n"),
        ("two in different case", b"Host: a\r\nhOST: a\r\n"),
        ("a blank", b"Host: a b\r\n"),
        ("a slash", b"Host: a/b\r\n"),
        ("a backslash", b"Host: a\\b\r\n"),
        ("a comma", b"Host: a,b\r\n"),
        ("userinfo", b"Host: user@a\r\n"),
        ("a port that is no number", b"Host: a:port\r\n"),
        ("a port beyond 65535", b"Host: a:99999\r\n"),
        ("a negative port", b"Host: a:-1\r\n"),
        ("two ports", b"Host: a:80:80\r\n"),
        ("a bracket that stays open", b"Host: [::1\r\n"),
        ("a bracket that was not opened", b"Host: ::1]\r\n"),
        ("something after a bracket", b"Host: [::1]x\r\n"),
        ("no address in brackets", b"Host: [xyz]\r\n"),
        ("a bare IPv6 address", b"Host: ::1\r\n"),
        ("a question mark", b"Host: a?b\r\n"),
        ("a fragment", b"Host: a#b\r\n"),
        ("a URL", b"Host: http://a\r\n"),
        ("angle brackets", b"Host: <a>\r\n"),
        ("high bytes", b"Host: b\xc3\xbccher.example\r\n"),
        ("a tab inside", b"Host: a\tb\r\n"),
        ("a NUL", b"Host: a\x00\r\n"),
        ("a space before the colon", b"Host : a\r\n"),
    ];
    let mut cases = Vec::new();
    for (name, host) in bad {
        let send = [b"GET /~ HTTP/1.1\r\nX: y\r\n", *host, b"\r\n"].concat();
        cases.push(case(name, send, Refused(400)));
        if *name != "none" {
            let send = [b"GET /~ HTTP/1.0\r\nX: y\r\n", *host, b"\r\n"].concat();
            cases.push(case(&format!("{name} in HTTP/1.0"), send, Refused(400)));
        }
    }
    for good in [
        "a",
        "A.Example",
        "a.b.",
        "a_b",
        "a-b",
        "xn--bcher-kva.example",
        "1.2.3.4:80",
        "[::1]:80",
        "[2001:db8::1]",
        "a:",
        "a:0",
        "a:65535",
        "%41",
        "a!$&'()*+;=b",
    ] {
        let send = format!("GET /~ HTTP/1.1\r\nHost: {good}\r\n\r\n");
        let seen = format!("GET /~ HTTP/1.1\nHost: {good}\n\n");
        cases.push(case(&format!("good: {good}"), send, Forwarded(seen.into_bytes())));
    }
    let empty = Forwarded(b"GET /~ HTTP/1.1\nHost: \n\n".to_vec());
    cases.push(case("empty", b"GET /~ HTTP/1.1\r\nHost: \r\n\r\n", empty));
    // RFC 9112 3.2.2: what is forwarded to HTTP/1.1 has one, even where the client sent none.
    let some = Last(b"GET /~ HTTP/1.1\nHost: ?\n\n".to_vec());
    cases.push(case("none in HTTP/1.0", b"GET /~ HTTP/1.0\r\n\r\n", some));
    run(&cases, &[]);
}
