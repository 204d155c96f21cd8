//! TLS and HTTP/2 at the front, by real clients of both.

mod binding;
mod flow;
mod http1;
pub(crate) mod http2;
mod raw;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;
use tokio_rustls::rustls;

use crate::conformance::over;
use crate::conformance::upstream::Upstream;
use crate::support::{Balancer, PATIENCE};

/// A certificate and its key, in files.
pub(crate) struct Files {
    folder: TempDir,
}

impl Files {
    pub(crate) fn new() -> Self {
        let files = Self { folder: tempfile::tempdir().unwrap() };
        files.renew();
        files
    }

    fn certificate(&self) -> PathBuf {
        self.folder.path().join("certificate.pem")
    }

    fn key(&self) -> PathBuf {
        self.folder.path().join("key.pem")
    }

    /// Puts new ones in their place, as a program that renews certificates does it. The key goes
    /// last: the pair that is in between does not fit.
    fn renew(&self) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        replace(&self.certificate(), &made.cert.pem());
        replace(&self.key(), &made.signing_key.serialize_pem());
    }

    /// A client that believes this certificate only.
    fn client(&self, protocol: &[u8]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.certificate()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        Arc::new(config)
    }

    /// The flags that name them.
    pub(crate) fn flags(&self) -> [String; 4] {
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        let (certificate, key) = (text(self.certificate()), text(self.key()));
        ["--tls-certificate".to_owned(), certificate, "--tls-key".to_owned(), key]
    }
}

fn replace(file: &Path, text: &str) {
    let new = file.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, file).unwrap();
}

/// A balancer over one replica that speaks TLS beside plain HTTP, where it tells in its log.
fn speaking_tls(upstream: &Upstream, files: &Files, arguments: &[&str]) -> (Balancer, u16) {
    let flags = files.flags();
    let mut all: Vec<&str> = flags.iter().map(String::as_str).collect();
    all.extend(["--tls-listen", "127.0.0.1:0"]);
    all.extend(arguments);
    let balancer = over(&[upstream], &all);
    let port = tls_port(&balancer);
    (balancer, port)
}

/// Where a balancer tells that it speaks TLS.
pub(crate) fn tls_port(balancer: &Balancer) -> u16 {
    let told = balancer.events("TLS is spoken");
    let address: std::net::SocketAddr = told[0].fields["listen"].as_str().unwrap().parse().unwrap();
    address.port()
}

pub(crate) type Secured = StreamOwned<ClientConnection, TcpStream>;

pub(crate) fn connect(files: &Files, port: u16) -> Secured {
    connect_by(b"http/1.1", files, port)
}

fn connect_by(protocol: &[u8], files: &Files, port: u16) -> Secured {
    let name = ServerName::try_from("localhost").unwrap();
    let session = ClientConnection::new(files.client(protocol), name).unwrap();
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    StreamOwned::new(session, stream)
}

/// One request and its answer, to the end of the connection.
pub(crate) fn exchange(stream: &mut Secured, request: &str) -> std::io::Result<String> {
    stream.write_all(request.as_bytes())?;
    let mut raw = Vec::new();
    // An end without a goodbye is an error here.
    stream.read_to_end(&mut raw)?;
    Ok(String::from_utf8_lossy(&raw).into_owned())
}
