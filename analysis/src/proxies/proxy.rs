//! The proxies and their settings, and the replicas behind them.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::Context as _;
use clap::ValueEnum;

use super::process::{Launch, Process};
use super::tools::Tools;
use super::work::SMALL;
use crate::system::free_address;

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Proxy {
    /// Debian's nginx
    Nginx,
    /// Debian's HAProxy
    Haproxy,
    /// This balancer
    Balancer,
}

/// Where a proxy listens, and what it is in front of.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) listen: SocketAddr,
    pub(crate) replicas: [SocketAddr; 3],
}

/// The three replicas: one nginx with three ports, so that they cost as little as can be.
pub(crate) struct Replicas {
    pub(crate) addresses: [SocketAddr; 3],
    _process: Process,
}

/// Where a replica says that it is well.
const HEARTBEAT: &str = "/heartbeat";

/// The temporary folders of nginx, below its own.
const TEMPORARY: &str = "\
client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;";

// === impl Proxy ===

impl Proxy {
    /// All of them, ours last.
    pub(crate) const ALL: [Self; 3] = [Self::Nginx, Self::Haproxy, Self::Balancer];

    /// In the report.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Proxy::Nginx => "nginx",
            Proxy::Haproxy => "HAProxy",
            Proxy::Balancer => "balancer",
        }
    }

    /// What its settings are written in: the name of a file in its folder.
    fn file(self) -> Option<&'static str> {
        match self {
            Proxy::Nginx => Some("nginx.conf"),
            Proxy::Haproxy => Some("haproxy.cfg"),
            Proxy::Balancer => None,
        }
    }

    /// Its command line, but for the program.
    fn arguments(self, site: &Site, folder: &Path) -> Vec<String> {
        let folder = folder.display();
        match self {
            Proxy::Nginx => {
                words(&format!("-p {folder} -c {folder}/nginx.conf -e {folder}/error.log"))
            }
            Proxy::Haproxy => words(&format!("-db -f {folder}/haproxy.cfg")),
            Proxy::Balancer => words(&balancer_arguments(site)),
        }
    }

    /// All of its settings, as it gets them: a file, or for the balancer its command line.
    pub(crate) fn settings(self, site: &Site) -> String {
        match self {
            Proxy::Nginx => nginx(site),
            Proxy::Haproxy => haproxy(site),
            Proxy::Balancer => format!("balancer {}\n", balancer_arguments(site)),
        }
    }

    /// Starts it, with its files in `folder`, and waits until it answers.
    ///
    /// # Errors
    /// When it is not there, does not start, or does not answer.
    pub(crate) async fn start(
        self,
        tools: &Tools,
        site: &Site,
        processor: usize,
        folder: &Path,
    ) -> anyhow::Result<Process> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        if let Some(file) = self.file() {
            write(&folder.join(file), &self.settings(site))?;
        }
        let launch = Launch {
            program: tools.proxy(self).with_context(|| format!("{} is missing", self.title()))?,
            arguments: self.arguments(site, folder),
            processor,
        };
        Process::start(&launch, &folder.join("log"), site.listen, SMALL).await
    }
}

/// nginx reads and writes the bodies of answers as shipped, but never through a file; those of
/// requests it passes on as they come, as both others do.
fn nginx(Site { listen, replicas: [a, b, c] }: &Site) -> String {
    format!(
        "\
daemon off;
user root;
pid nginx.pid;
worker_processes 1;
error_log error.log error;
events {{
    worker_connections 16000;
    accept_mutex off;
}}
http {{
    access_log off;
    {TEMPORARY}
    keepalive_timeout 75s;
    keepalive_requests 1000000000;
    upstream replicas {{
        hash $http_x_request_id consistent;
        server {a};
        server {b};
        server {c};
        keepalive 512;
        keepalive_requests 1000000000;
    }}
    server {{
        listen {listen};
        location / {{
            proxy_pass http://replicas;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_request_buffering off;
            proxy_max_temp_file_size 0;
        }}
    }}
}}
"
    )
}

fn haproxy(Site { listen, replicas: [a, b, c] }: &Site) -> String {
    format!(
        "\
global
    nbthread 1
    maxconn 8000
defaults
    mode http
    option http-keep-alive
    http-reuse always
    timeout connect 1s
    timeout client 75s
    timeout server 75s
    timeout http-keep-alive 75s
frontend clients
    bind {listen}
    default_backend replicas
backend replicas
    balance hdr(X-Request-Id)
    hash-type consistent
    option httpchk GET {HEARTBEAT}
    default-server check inter 1s
    server a {a}
    server b {b}
    server c {c}
"
    )
}

fn balancer_arguments(Site { listen, replicas: [a, b, c] }: &Site) -> String {
    format!(
        "--listen {listen} --runtime static --servers {a},{b},{c} --workers 1 --key request-id \
         --health-path {HEARTBEAT} --health-interval 1s"
    )
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

// === impl Site ===

impl Site {
    /// At a port that was free a moment ago.
    ///
    /// # Errors
    /// When none is.
    pub(crate) fn before(replicas: &Replicas) -> anyhow::Result<Self> {
        Ok(Self { listen: free_address(Ipv4Addr::LOCALHOST)?, replicas: replicas.addresses })
    }

    /// One to show.
    pub(crate) fn example() -> Self {
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self { listen: at(5000), replicas: [at(5001), at(5002), at(5003)] }
    }
}

// === impl Replicas ===

impl Replicas {
    /// Starts them, with their files in `folder`.
    ///
    /// # Errors
    /// When they do not answer.
    pub(crate) async fn start(
        nginx: &Path,
        processor: usize,
        folder: &Path,
    ) -> anyhow::Result<Self> {
        let free = || free_address(Ipv4Addr::LOCALHOST);
        let addresses = [free()?, free()?, free()?];
        let files = folder.join("files");
        fs::create_dir_all(&files).with_context(|| format!("cannot make {}", files.display()))?;
        write(&files.join("10k"), &"x".repeat(10 * 1024))?;
        write(&files.join("1m"), &"x".repeat(1024 * 1024))?;
        write(&files.join("upload"), "")?;
        write(&folder.join("nginx.conf"), &replicas(&addresses))?;
        let site = Site { listen: addresses[0], replicas: addresses };
        let launch =
            Launch { program: nginx, arguments: Proxy::Nginx.arguments(&site, folder), processor };
        let log = folder.join("log");
        let process = Process::start(&launch, &log, addresses[0], SMALL).await?;
        Ok(Self { addresses, _process: process })
    }
}

/// The settings of the replicas. An upload is read to its end before it is answered: `mirror` does
/// that, and the file that then refuses the POST leads to the answer.
fn replicas(addresses: &[SocketAddr; 3]) -> String {
    let server = |(index, address): (usize, &SocketAddr)| {
        format!(
            "    server {{
        listen {address};
        root files;
        location = {SMALL} {{
            return 200 '{{\"message\":\"Hello from Server: {0}\",\"status\":\"successful\"}}';
        }}
        location = {HEARTBEAT} {{ return 200 ''; }}
        location = /upload {{ mirror /read; error_page 405 =200 @taken; }}
        location = /read {{ internal; return 204; }}
        location @taken {{ return 200 '{{\"message\":\"taken\",\"status\":\"successful\"}}'; }}
    }}
",
            index + 1
        )
    };
    let servers: String = addresses.iter().enumerate().map(server).collect();
    format!(
        "\
daemon off;
user root;
pid nginx.pid;
worker_processes 1;
error_log error.log error;
events {{ worker_connections 16000; }}
http {{
    access_log off;
    {TEMPORARY}
    default_type application/json;
    sendfile on;
    open_file_cache max=16;
    client_body_buffer_size 128k;
    keepalive_timeout 1h;
    keepalive_requests 1000000000;
{servers}}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_proxy_hashes_the_same_header_over_the_same_replicas_on_one_thread() {
        let site = Site::example();
        for (proxy, key, threads) in [
            (Proxy::Nginx, "hash $http_x_request_id consistent;", "worker_processes 1;"),
            (Proxy::Haproxy, "balance hdr(X-Request-Id)\n    hash-type consistent", "nbthread 1"),
            (Proxy::Balancer, "--key request-id", "--workers 1"),
        ] {
            let text = proxy.settings(&site);
            assert!(text.contains(key) && text.contains(threads), "{text}");
            for address in site.replicas.iter().chain([&site.listen]) {
                assert!(text.contains(&address.to_string()), "{address} in {text}");
            }
            assert_eq!(text.matches('{').count(), text.matches('}').count(), "{text}");
        }
    }

    #[test]
    fn every_replica_says_which_it_is() {
        let text = replicas(&Site::example().replicas);
        for id in 1..=3 {
            assert!(text.contains(&format!("Hello from Server: {id}\"")), "{text}");
        }
        assert_eq!(text.matches('{').count(), text.matches('}').count(), "{text}");
    }

    #[test]
    fn the_files_of_a_proxy_are_in_its_folder() {
        let arguments = Proxy::Haproxy.arguments(&Site::example(), Path::new("/x"));
        assert_eq!(arguments, ["-db", "-f", "/x/haproxy.cfg"]);
        let arguments = Proxy::Nginx.arguments(&Site::example(), Path::new("/x"));
        assert_eq!(arguments, ["-p", "/x", "-c", "/x/nginx.conf", "-e", "/x/error.log"]);
    }
}
