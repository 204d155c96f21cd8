//! TLS for clients: a certificate and its key, read anew when their files change.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};
use tracing::{info, warn};

use crate::config::TlsConfig;
use crate::stamp::Stamp;
use crate::telemetry::chain;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// HTTP/2 by ALPN (RFC 9113 3.3).
pub const H2: &[u8] = b"h2";

/// What handshakes are made with.
#[derive(Debug)]
pub struct Certificates {
    files: TlsConfig,
    /// What the files looked like before they were first read.
    first: Stamps,
    now: ArcSwap<ServerConfig>,
}

/// Of the certificate and the key; nothing of one that is not there.
type Stamps = [Option<Stamp>; 2];

/// Why the files are no good.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read, or is not PEM.
    #[error("cannot read {}", .0.display())]
    Read(PathBuf, #[source] pem::Error),
    /// The certificate file has none.
    #[error("{} has no certificate", .0.display())]
    Empty(PathBuf),
    /// They do not fit each other, or cannot be used.
    #[error("the certificate and the key cannot be used")]
    Unusable(#[from] rustls::Error),
}

// === impl Certificates ===

impl Certificates {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn load(files: TlsConfig) -> Result<Arc<Self>, TlsError> {
        let first = stamps(&files);
        let now = ArcSwap::from_pointee(read(&files)?);
        Ok(Arc::new(Self { files, first, now }))
    }

    /// Makes the handshake of one connection.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.now.load_full())
    }

    /// Reads the files anew at SIGHUP and when they change, for as long as it is polled. What
    /// cannot be used is said and changes nothing; connections that stand go on as they are.
    ///
    /// # Errors
    /// When the signal cannot be listened to.
    pub async fn keep_fresh(self: Arc<Self>) -> io::Result<()> {
        let mut hang_up = signal(SignalKind::hangup())?;
        let mut known = self.first;
        loop {
            let asked = tokio::select! {
                _ = hang_up.recv() => true,
                () = tokio::time::sleep(LOOK_EVERY) => false,
            };
            let stamps = stamps(&self.files);
            if asked || stamps != known {
                known = stamps;
                self.reload();
            }
        }
    }

    fn reload(&self) {
        match read(&self.files) {
            Ok(config) => {
                self.now.store(Arc::new(config));
                info!(certificate = %self.files.certificate.display(), "certificate is loaded");
            }
            Err(error) => {
                warn!(error = chain(&error), "certificate is kept: the new one is no good");
            }
        }
    }
}

fn stamps(files: &TlsConfig) -> Stamps {
    [Stamp::of(&files.certificate), Stamp::of(&files.key)]
}

fn read(files: &TlsConfig) -> Result<ServerConfig, TlsError> {
    let unread = |error| TlsError::Read(files.certificate.clone(), error);
    let certificates = CertificateDer::pem_file_iter(&files.certificate).map_err(unread)?;
    let certificates = certificates.collect::<Result<Vec<_>, _>>().map_err(unread)?;
    if certificates.is_empty() {
        return Err(TlsError::Empty(files.certificate.clone()));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| TlsError::Read(files.key.clone(), error))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificates, key)?;
    config.alpn_protocols = vec![H2.to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::SystemTime;

    use super::*;

    fn write(files: &TlsConfig) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(&files.certificate, made.cert.pem()).unwrap();
        fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    }

    #[test]
    fn files_that_change_before_they_are_looked_after_are_read_anew() {
        let folder = tempfile::tempdir().unwrap();
        let files = TlsConfig {
            certificate: folder.path().join("certificate.pem"),
            key: folder.path().join("key.pem"),
            listen: None,
        };
        write(&files);
        let held = Certificates::load(files.clone()).unwrap();
        let before = held.now.load_full();
        write(&files);
        let key = fs::File::options().write(true).open(&files.key).unwrap();
        key.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let is_new = async {
                while Arc::ptr_eq(&before, &held.now.load_full()) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            let fresh = async {
                tokio::select! {
                    ended = Arc::clone(&held).keep_fresh() => ended.unwrap(),
                    () = is_new => {}
                }
            };
            tokio::time::timeout(Duration::from_secs(30), fresh).await.unwrap();
        });
    }
}
