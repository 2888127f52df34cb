//! A certificate for `localhost`, and clients that trust it.

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;

/// A certificate and its key, as files.
pub(crate) struct Certificate {
    directory: TempDir,
    certificate: CertificateDer<'static>,
}

impl Certificate {
    pub(crate) fn new() -> Self {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()])
                .expect("a certificate");
        let directory = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(directory.path().join("server.crt"), cert.pem()).expect("a file");
        std::fs::write(directory.path().join("server.key"), signing_key.serialize_pem()).expect("a file");
        Self {
            directory,
            certificate: cert.der().clone(),
        }
    }

    /// The certificate's file.
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("server.crt")
    }

    /// The setting of `[listen]`.
    pub(crate) fn setting(&self, required: bool) -> String {
        format!(
            "tls = {{ certificate = \"{}\", key = \"{}\", required = {required} }}",
            self.path().display(),
            self.directory.path().join("server.key").display()
        )
    }

    /// A client that trusts this certificate only.
    pub(crate) fn client(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("a certificate");
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions of TLS")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(config)
    }
}
