//! Debian's `promtool` and `prometheus`, where they are.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::metrics;
use crate::support::{Balancer, request, try_request, wait_for};

/// A real one that looks at one balancer every second; gone when dropped.
struct Prometheus {
    daemon: Child,
    address: SocketAddr,
    _directory: TempDir,
}

impl Prometheus {
    fn start(target: SocketAddr) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("prometheus.yml");
        let text = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\n\
             scrape_configs: [{{job_name: balancer, static_configs: [{{targets: ['{target}']}}]}}]\n"
        );
        std::fs::write(&config, text).unwrap();
        // Free now; who else would take it in the next moment takes the next one.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let daemon = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .args(["--log.level=warn"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let prometheus = Self { daemon, address, _directory: directory };
        wait_for("prometheus", || {
            let ready = try_request(address, "GET", "/-/ready", &[], b"").ok()?;
            (ready.status == 200).then_some(())
        });
        prometheus
    }

    fn get(&self, path: &str) -> Value {
        let answer = request(self.address, "GET", path, &[], b"");
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["data"].clone()
    }

    /// The last value of the metric of this name that has these labels.
    fn value(&self, metric: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let data = self.get(&format!("/api/v1/query?query={metric}"));
        let has = |sample: &&Value| {
            labels.iter().all(|(label, value)| sample["metric"][*label] == *value)
        };
        let sample = data["result"].as_array().unwrap().iter().find(has).cloned()?;
        sample["value"][1].as_str().unwrap().parse().ok()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill.
        let _killed = self.daemon.kill();
        let _ended = self.daemon.wait();
    }
}

/// Whether a program is here; where not, that is told, and in CI it is a failure.
fn is_here(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
        assert!(!ci, "{program} is missing: Debian has it in the package 'prometheus'");
        // A closed stderr is no failure of the test.
        let _said = writeln!(std::io::stderr(), "metrics: skipped: {program} is missing");
    }
    found
}

#[test]
fn promtool_finds_fault_only_with_the_names_that_are_kept() {
    if !is_here("promtool") {
        return;
    }
    let balancer = Balancer::with_replicas(2, &[]);
    assert_eq!(balancer.get("/home").status, 200);
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool.stdin.take().unwrap().write_all(&metrics(&balancer, &[]).body).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let told = [output.stdout, output.stderr].concat();
    let told = String::from_utf8(told).unwrap();
    // 3 is for names that are not as they should be, 1 for what cannot be read.
    assert!(matches!(output.status.code(), Some(0 | 3)), "{told}");
    let kept = ["Total_domains_success_counter_total ", "Total_domains_failed_counter_total "];
    let others = told.lines().filter(|line| !kept.iter().any(|name| line.starts_with(name)));
    assert_eq!(others.collect::<Vec<_>>(), Vec::<&str>::new());
}

#[test]
fn a_real_prometheus_looks_and_finds_what_happened() {
    if !is_here("prometheus") {
        return;
    }
    let balancer = Balancer::with_replicas(2, &[]);
    let prometheus = Prometheus::start(balancer.admin);
    for _ in 0..13 {
        assert_eq!(balancer.get("/home").status, 200);
    }
    let count =
        |code| prometheus.value("balancer_requests_total", &[("route", "default"), ("code", code)]);
    wait_for("thirteen good requests", || (count("2xx") == Some(13.0)).then_some(()));
    assert_eq!(count("5xx"), Some(0.0));
    // A busy machine may have been too slow for one look.
    wait_for("a target that is up", || {
        let targets = prometheus.get("/api/v1/targets?state=active");
        let target = &targets["activeTargets"][0];
        let good = target["health"] == "up" && target["lastError"] == "";
        (good && prometheus.value("up", &[("job", "balancer")]) == Some(1.0)).then_some(())
    });
    let timed =
        prometheus.value("balancer_request_duration_seconds_count", &[("route", "default")]);
    assert_eq!(timed, Some(13.0));
    assert_eq!(prometheus.value("balancer_fleet_ready", &[]), Some(2.0));
    assert!(prometheus.value("process_cpu_seconds_total", &[]).is_some_and(|spent| spent > 0.0));
}
