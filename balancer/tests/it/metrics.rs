//! `/metrics`: exact counts of requests whose ends are known, and what a real Prometheus makes of
//! them.

mod prometheus;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::{Answer, Balancer, PATIENCE, kill, request, try_request, wait_for};

/// How long a slow answer takes.
const SLOW: Duration = Duration::from_secs(2);

/// A server that does what the path says: `/status/503` answers that, `/cut` breaks off inside its
/// answer, `/drop` gives none and `/slow` takes a while (but not where it is a good one). It
/// answers probes.
struct Server(SocketAddr);

impl Server {
    fn start(good: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                thread::spawn(move || serve(BufReader::new(stream), good));
            }
        });
        Self(address)
    }
}

fn serve(mut stream: BufReader<TcpStream>, good: bool) {
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
        }
        let path = head.split(' ').nth(1).unwrap_or_default();
        let (status, length) = match path.strip_prefix("/status/") {
            Some(status) => (status, 0),
            None if path == "/cut" => ("200", 100),
            None if path == "/drop" && !good => return,
            None if path == "/slow" && !good => {
                let _never = mpsc::channel::<()>().1.recv_timeout(SLOW);
                ("200", 0)
            }
            None => ("200", 0),
        };
        let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n");
        // The balancer may have given the request up: then nobody reads it.
        let _written = stream.get_mut().write_all(answer.as_bytes());
        if length > 0 {
            return;
        }
    }
}

/// A balancer over these servers, all of them ready; a failing one stays.
fn over(servers: &[&Server]) -> Balancer {
    let list: Vec<String> = servers.iter().map(|Server(address)| address.to_string()).collect();
    let balancer = Balancer::start(&["--servers", &list.join(","), "--outliers-consecutive", "0"]);
    balancer.wait_for_replicas(servers.len());
    balancer
}

/// Every sample, by its name and labels as they are written.
pub(crate) fn samples(balancer: &Balancer) -> BTreeMap<String, f64> {
    let text = String::from_utf8(metrics(balancer, &[]).body).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let samples: Vec<(String, f64)> = lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        })
        .collect();
    let count = samples.len();
    let samples = BTreeMap::from_iter(samples);
    assert_eq!(samples.len(), count, "a sample is there twice: {text}");
    samples
}

fn metrics(balancer: &Balancer, headers: &[(&str, &str)]) -> Answer {
    let answer = request(balancer.admin, "GET", "/metrics", headers, b"");
    assert_eq!(answer.status, 200, "{answer:?}");
    answer
}

/// The requests of a route by class, and how many answers were timed.
fn requests(samples: &BTreeMap<String, f64>, route: &str) -> ([f64; 6], f64) {
    let of = |code: &str| {
        samples[&format!("balancer_requests_total{{route=\"{route}\",code=\"{code}\"}}")]
    };
    let timed = samples[&format!("balancer_request_duration_seconds_count{{route=\"{route}\"}}")];
    (["1xx", "2xx", "3xx", "4xx", "5xx", "none"].map(of), timed)
}

/// Attempts at a listed server by what they came to.
fn attempts(samples: &BTreeMap<String, f64>, Server(address): &Server, code: &str) -> f64 {
    let labels = format!("route=\"default\",replica=\"{address}\",code=\"{code}\"");
    let name = format!("balancer_replica_attempts_total{{{labels}}}");
    samples.get(&name).copied().unwrap_or(0.0)
}

#[test]
fn requests_are_counted_by_what_they_came_to() {
    let server = Server::start(false);
    let balancer = over(&[&server]);
    for (status, times) in [(200, 5), (201, 2), (304, 3), (404, 4), (503, 2)] {
        for _ in 0..times {
            assert_eq!(balancer.get(&format!("/status/{status}")).status, status);
        }
    }
    assert_eq!(balancer.get("/drop").status, 502);
    let cut = try_request(balancer.address, "GET", "/cut", &[], b"");
    assert!(cut.is_err(), "{cut:?}");
    let ended = request(balancer.address, "TRACE", "/status/200", &[("Max-Forwards", "0")], b"");
    assert_eq!(ended.status, 405);
    for bad in ["GET / HTTP/1.1\r\n\r\n", "no head\r\n\r\n"] {
        let mut stream = TcpStream::connect(balancer.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(bad.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    }
    // The balancer's own routes are nobody's requests.
    assert_eq!(balancer.get("/rep").status, 200);
    assert_eq!(balancer.get("/admin/x").status, 404);

    let samples = wait_for("the end of the answer that broke off", || {
        let samples = samples(&balancer);
        (requests(&samples, "default").0[5] > 0.0).then_some(samples)
    });
    assert_eq!(requests(&samples, "default"), ([0.0, 7.0, 3.0, 5.0, 3.0, 1.0], 18.0));
    assert_eq!(requests(&samples, "none"), ([0.0, 0.0, 0.0, 2.0, 0.0, 0.0], 2.0));
    assert_eq!(samples["balancer_requests_in_flight{route=\"default\"}"], 0.0);
    let codes = ["1xx", "2xx", "3xx", "4xx", "5xx", "error", "none"];
    let of_server = codes.map(|code| attempts(&samples, &server, code));
    assert_eq!(of_server, [0.0, 8.0, 3.0, 4.0, 2.0, 1.0, 0.0], "the cut one began well");
    let last = "balancer_request_duration_seconds_bucket{le=\"+Inf\",route=\"default\"}";
    assert_eq!(samples[last], 18.0);
    let sum = samples["balancer_request_duration_seconds_sum{route=\"default\"}"];
    assert!(sum > 0.0 && sum < PATIENCE.as_secs_f64(), "{sum}");
    let share = &samples[&format!("balancer_ring_share{{seat=\"{}\"}}", server.0)];
    assert_eq!(*share, 1.0);
}

#[test]
fn a_retry_is_counted_and_both_its_attempts() {
    let (bad, good) = (Server::start(false), Server::start(true));
    let balancer = over(&[&bad, &good]);
    for id in 0..20 {
        let id = [("X-Request-Id", &*id.to_string())];
        let answer = request(balancer.address, "GET", "/drop", &id, b"");
        assert_eq!(answer.status, 200);
    }
    let samples = samples(&balancer);
    assert_eq!(requests(&samples, "default"), ([0.0, 20.0, 0.0, 0.0, 0.0, 0.0], 20.0));
    assert_eq!(attempts(&samples, &good, "2xx"), 20.0);
    let retries = samples["balancer_retries_total{route=\"default\"}"];
    assert!((1.0..20.0).contains(&retries), "{retries}: some keys belong to either");
    assert_eq!(attempts(&samples, &bad, "error"), retries);
    assert_eq!(attempts(&samples, &bad, "2xx"), 0.0);
}

/// A route of each kind, by the host that it is for, over two servers of which the first is bad.
fn routed() -> (Balancer, [Server; 2]) {
    let servers = [Server::start(false), Server::start(true)];
    let [Server(bad), Server(good)] = &servers;
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = format!(
        r#"
        servers = ["{bad}", "{good}"]
        outliers = {{consecutive = 0}}
        [[route]]
        name = "every"
        hosts = ["all.test"]
        send = "all"
        attempts = 2
        backoff = {{base = "1ms", max = "1ms", jitter = "1ms"}}
        [[route]]
        name = "late"
        hosts = ["late.test"]
        hedge = {{after = "100ms", budget = "100%"}}
        "#
    );
    std::fs::write(file.path(), text).unwrap();
    let balancer = Balancer::start(&["--config", file.path().to_str().unwrap()]);
    balancer.wait_for_replicas(2);
    (balancer, servers)
}

#[test]
fn requests_to_all_are_counted_under_the_names_that_are_kept() {
    let (balancer, [Server(bad), Server(good)]) = routed();
    let host = [("Host", "all.test")];
    assert_eq!(request(balancer.address, "GET", "/status/200", &host, b"").status, 200);
    assert!(request(balancer.address, "GET", "/drop", &host, b"").status >= 500);
    let samples = samples(&balancer);
    let of = |result: &str, address: &SocketAddr| {
        samples[&format!("target_domain_{result}_counter_total{{domain=\"{address}\"}}")]
    };
    assert_eq!((of("success", &bad), of("failed", &bad)), (1.0, 2.0));
    assert_eq!((of("success", &good), of("failed", &good)), (2.0, 0.0));
    assert_eq!(samples["Total_domains_success_counter_total"], 3.0);
    assert_eq!(samples["Total_domains_failed_counter_total"], 2.0);
    let (ended, _) = requests(&samples, "every");
    assert_eq!(ended, [0.0, 1.0, 0.0, 0.0, 1.0, 0.0]);
    assert_eq!(requests(&samples, "default").0, [0.0; 6], "each route has its own");
}

#[test]
fn second_requests_for_late_answers_are_counted_and_those_that_were_first() {
    let (balancer, _servers) = routed();
    for id in 0..10 {
        let headers = [("Host", "late.test"), ("X-Request-Id", &*id.to_string())];
        assert_eq!(request(balancer.address, "GET", "/slow", &headers, b"").status, 200);
    }
    let samples = samples(&balancer);
    let sent = samples["balancer_hedges_total{route=\"late\"}"];
    let won = samples["balancer_hedges_won_total{route=\"late\"}"];
    assert!((1.0..=10.0).contains(&won) && won <= sent, "{won} of {sent}");
    assert_eq!(requests(&samples, "late").0, [0.0, 10.0, 0.0, 0.0, 0.0, 0.0]);
    assert_eq!(samples["balancer_retries_total{route=\"late\"}"], 0.0);
}

#[test]
fn requests_in_flight_are_told_and_those_whose_client_goes_end_without_an_answer() {
    let balancer = Balancer::with_replicas(2, &["--env", "SERVER_LATENCY=20s"]);
    let mut stream = TcpStream::connect(balancer.address).unwrap();
    stream.write_all(b"GET /home HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let at_replicas = |samples: &BTreeMap<String, f64>| {
        let one =
            |name: &str| samples[&format!("balancer_replica_in_flight{{replica=\"{name}\"}}")];
        one("S1") + one("S2")
    };
    wait_for("a request in flight", || {
        let samples = samples(&balancer);
        let in_flight = samples["balancer_requests_in_flight{route=\"default\"}"];
        (in_flight == 1.0 && at_replicas(&samples) == 1.0).then_some(())
    });
    drop(stream);
    wait_for("its end", || {
        let samples = samples(&balancer);
        let (ended, timed) = requests(&samples, "default");
        (ended[5] == 1.0 && timed == 0.0 && at_replicas(&samples) == 0.0).then_some(())
    });
}

#[test]
fn a_death_is_counted_by_how_and_its_replacement() {
    let balancer = Balancer::with_replicas(3, &["--spares", "1"]);
    let ready = |n: f64| {
        wait_for("a whole fleet", || {
            let samples = samples(&balancer);
            let whole =
                samples["balancer_fleet_ready"] == n && samples["balancer_fleet_spares"] == 1.0;
            whole.then_some(samples)
        })
    };
    let before = ready(3.0);
    assert_eq!(before["balancer_respawns_total"], 0.0);
    assert_eq!(before["balancer_deaths_total{reason=\"out-of-memory\"}"], 0.0, "known before");
    assert_eq!(before["balancer_events_total{event=\"starting\"}"], 4.0);
    kill(balancer.replica_processes()[&2], Signal::KILL);
    wait_for("its replacement", || {
        (samples(&balancer)["balancer_respawns_total"] == 1.0).then_some(())
    });
    let after = ready(3.0);
    assert_eq!(after["balancer_deaths_total{reason=\"killed\"}"], 1.0);
    assert_eq!(after["balancer_events_total{event=\"died\"}"], 1.0);
    assert_eq!(after["balancer_events_total{event=\"seated\"}"], 1.0);
    assert_eq!(after["balancer_fleet_desired"], 3.0);
    assert_eq!(after["balancer_engine_up"], 1.0);
    let share = |seat: u32| after[&format!("balancer_ring_share{{seat=\"{seat}\"}}")];
    assert!((share(1) + share(2) + share(3) - 1.0).abs() < 1e-9);
}

#[test]
fn the_balancer_and_its_process_are_told_of() {
    let balancer = Balancer::with_replicas(1, &[]);
    let connections = (0..7).map(|_| TcpStream::connect(balancer.address).unwrap());
    let connections: Vec<TcpStream> = connections.collect();
    wait_for("connections", || {
        // And the one of the look itself.
        (samples(&balancer)["balancer_connections"] == 8.0).then_some(())
    });
    drop(connections);
    let samples = wait_for("their end", || {
        Some(samples(&balancer)).filter(|samples| samples["balancer_connections"] == 1.0)
    });
    assert!(samples["balancer_connections_accepted_total"] >= 9.0);
    assert_eq!(samples["balancer_build_info{version=\"0.1.0\"}"], 1.0);
    for name in [
        "balancer_uptime_seconds",
        "process_max_fds",
        "process_open_fds",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
        "process_threads",
        "process_virtual_memory_bytes",
    ] {
        assert!(samples[name] > 0.0, "{name}");
    }
    // The kernel counts it in hundredths of a second.
    wait_for("processor time", || {
        (self::samples(&balancer)["process_cpu_seconds_total"] > 0.0).then_some(())
    });
    for name in ["Total_domains_success_counter_total", "Total_domains_failed_counter_total"] {
        assert_eq!(samples[name], 0.0, "{name} is there from the start");
    }
}

#[test]
fn each_client_gets_the_format_that_it_asks_for() {
    let balancer = Balancer::with_replicas(1, &[]);
    let classic = metrics(&balancer, &[]);
    assert_eq!(classic.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let text = String::from_utf8(classic.body).unwrap();
    assert!(text.contains("# TYPE balancer_requests_total counter\n"), "{text}");
    assert!(!text.contains("# EOF"), "{text}");
    let open = metrics(&balancer, &[("Accept", "application/openmetrics-text;version=1.0.0")]);
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(open.headers["content-type"], kind);
    let text = String::from_utf8(open.body).unwrap();
    assert!(text.contains("# TYPE balancer_requests counter\n"), "{text}");
    assert!(text.ends_with("\n# EOF\n"), "{text}");
    let post = request(balancer.admin, "POST", "/metrics", &[], b"");
    assert_eq!((post.status, post.headers["allow"].as_str()), (405, "GET, HEAD"));
    let head = request(balancer.admin, "HEAD", "/metrics", &[], b"");
    assert_eq!((head.status, head.body.len()), (200, 0));
}

#[test]
fn metrics_move_with_the_admin_routes() {
    let balancer = Balancer::with_replicas(1, &["--admin-listen", "127.0.0.1:0"]);
    assert_eq!(balancer.get("/metrics").status, 404, "not served there");
    let samples = samples(&balancer);
    assert_eq!(requests(&samples, "default").0[3], 1.0);
}

/// The resident memory of a process, in MiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1_024
}

#[test]
fn readers_that_do_not_read_hold_little_memory() {
    // Many replicas make long texts; that none of them is there does not matter.
    let servers: Vec<String> = (10_001..=10_300).map(|port| format!("127.0.0.1:{port}")).collect();
    for admin in [&[][..], &["--admin-listen", "127.0.0.1:0"]] {
        let own = ["--servers", &servers.join(","), "--workers", "2"];
        let balancer = Balancer::start(&[&own[..], admin].concat());
        let open = |path: &str| {
            let mut stream = TcpStream::connect(balancer.admin).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let stream_of = "Host: localhost\r\nAccept: text/event-stream, text/plain";
            stream
                .write_all(format!("GET {path} HTTP/1.1\r\n{stream_of}\r\n\r\n").as_bytes())
                .unwrap();
            stream
        };
        // Without its first buffers it says little.
        let first = [open("/metrics"), open("/admin/events")];
        assert!(first.iter().all(|stream| stream.peek(&mut [0]).unwrap() == 1));
        let before = resident(balancer.pid());
        let readers: Vec<TcpStream> =
            (0..75).flat_map(|_| [open("/metrics"), open("/admin/events")]).collect();
        assert!(readers.iter().all(|stream| stream.peek(&mut [0]).unwrap() == 1));
        let held = resident(balancer.pid()).saturating_sub(before);
        // At most 50 are meant; the allocators of threads add some at busy times.
        assert!(held <= 64, "{held} MiB for {} readers, {admin:?}", readers.len());
    }
}
