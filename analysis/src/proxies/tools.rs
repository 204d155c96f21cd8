//! The programs that are needed, and what to install where one is missing.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tokio::process::Command;

use super::proxy::Proxy;

/// Where the programs are.
#[derive(Clone, Debug)]
pub(crate) struct Tools {
    pub(crate) nginx: Option<PathBuf>,
    pub(crate) haproxy: Option<PathBuf>,
    pub(crate) wrk: Option<PathBuf>,
    pub(crate) taskset: Option<PathBuf>,
    balancer: PathBuf,
}

/// Where Debian has its programs, whether `PATH` says so or not.
const USUAL_FOLDERS: [&str; 3] = ["/usr/sbin", "/usr/bin", "/sbin"];

// === impl Tools ===

impl Tools {
    /// What is there, with this balancer.
    pub(crate) fn find(balancer: &Path) -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders: Vec<PathBuf> =
            std::env::split_paths(&path).chain(USUAL_FOLDERS.iter().map(PathBuf::from)).collect();
        let find =
            |name| folders.iter().map(|folder| folder.join(name)).find(|file| file.is_file());
        Self {
            nginx: find("nginx"),
            haproxy: find("haproxy"),
            wrk: find("wrk"),
            taskset: find("taskset"),
            balancer: balancer.to_owned(),
        }
    }

    /// The program of a proxy.
    pub(crate) fn proxy(&self, proxy: Proxy) -> Option<&Path> {
        match proxy {
            Proxy::Nginx => self.nginx.as_deref(),
            Proxy::Haproxy => self.haproxy.as_deref(),
            Proxy::Balancer => Some(&self.balancer),
        }
    }

    /// For each missing program, what is not measured without it and how to get it.
    pub(crate) fn missing(&self) -> Vec<String> {
        [
            (&self.nginx, "nginx", "nginx-light", "nothing (the replicas are nginx, too)"),
            (&self.taskset, "taskset", "util-linux", "nothing"),
            (&self.haproxy, "haproxy", "haproxy", "no HAProxy"),
            (&self.wrk, "wrk", "wrk", "nothing but idle connections"),
        ]
        .into_iter()
        .filter(|(found, ..)| found.is_none())
        .map(|(_, program, package, rest)| {
            format!(
                "`{program}` is missing: {rest} is measured. Install Debian's package `{package}` \
                 (`apt-get install {package}`)."
            )
        })
        .collect()
    }

    /// What the proxies say of their version.
    ///
    /// # Errors
    /// When one cannot be run.
    pub(crate) async fn version(&self, proxy: Proxy) -> anyhow::Result<String> {
        let program = self.proxy(proxy).with_context(|| format!("{} is missing", proxy.title()))?;
        let argument = match proxy {
            Proxy::Nginx | Proxy::Haproxy => "-v",
            Proxy::Balancer => "--version",
        };
        let output = Command::new(program).arg(argument).output().await.with_context(|| {
            format!(
                "cannot run {}; the balancer is built with `cargo build --release -p balancer`, \
                 or say --balancer PATH",
                program.display()
            )
        })?;
        // nginx says it on its error stream.
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        let line = said.lines().next().unwrap_or_default();
        Ok(line.split(" - http").next().unwrap_or_default().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_its_package() {
        let mut tools = Tools::find(Path::new("balancer"));
        tools.nginx = None;
        tools.haproxy = Some(PathBuf::from("/usr/sbin/haproxy"));
        let missing = tools.missing();
        assert!(missing[0].contains("`apt-get install nginx-light`"), "{missing:?}");
        assert!(!missing.iter().any(|line| line.contains("HAProxy")), "{missing:?}");
        assert_eq!(tools.proxy(Proxy::Balancer), Some(Path::new("balancer")));
    }
}
