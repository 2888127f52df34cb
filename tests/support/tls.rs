//! Certificates, and clients that trust them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CertifiedKey, DnType, IsCa, KeyPair,
    generate_simple_self_signed,
};
use rustls::client::WantsClientCert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};
use tempfile::TempDir;

/// A certificate and its key, as files.
pub(crate) struct Certificate {
    directory: TempDir,
    certificate: CertificateDer<'static>,
}

impl Certificate {
    /// For this machine.
    pub(crate) fn new() -> Self {
        Self::of(&["localhost", "127.0.0.1"])
    }

    /// For a server of one of these names or addresses.
    pub(crate) fn of(names: &[&str]) -> Self {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).expect("a certificate");
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

    /// The key's file.
    pub(crate) fn key(&self) -> PathBuf {
        self.directory.path().join("server.key")
    }

    /// Overwrites the files with those of `other`; the gateway reads them anew when it is told so.
    pub(crate) fn become_files_of(&self, other: &Self) {
        std::fs::copy(other.path(), self.path()).expect("a file");
        std::fs::copy(other.key(), self.key()).expect("a file");
    }

    /// The setting of `[listen]`.
    pub(crate) fn setting(&self, required: bool) -> String {
        self.setting_with(required, "")
    }

    /// The setting of `[listen]`, with `more` in it.
    pub(crate) fn setting_with(&self, required: bool, more: &str) -> String {
        format!(
            "tls = {{ certificate = \"{}\", key = \"{}\", required = {required}{more} }}",
            self.path().display(),
            self.key().display()
        )
    }

    fn trusting(&self) -> ConfigBuilder<ClientConfig, WantsClientCert> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("a certificate");
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions of TLS")
            .with_root_certificates(roots)
    }

    /// A client that trusts this certificate only.
    pub(crate) fn client(&self) -> Arc<ClientConfig> {
        Arc::new(self.trusting().with_no_client_auth())
    }

    /// As [`Self::client`], and knows only one version of TLS.
    pub(crate) fn client_of(&self, version: &'static rustls::SupportedProtocolVersion) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("a certificate");
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[version])
            .expect("a version of TLS")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(config)
    }

    /// As [`Self::client`], and speaks `protocol` inside.
    pub(crate) fn client_speaking(&self, protocol: &[u8]) -> Arc<ClientConfig> {
        let mut config = self.trusting().with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        Arc::new(config)
    }

    /// As [`Self::client`], and shows a certificate itself.
    pub(crate) fn client_showing(&self, shown: &ClientCertificate) -> Arc<ClientConfig> {
        let certificates = CertificateDer::pem_file_iter(&shown.certificate)
            .expect("a file")
            .collect::<Result<Vec<_>, _>>()
            .expect("a certificate");
        let key = PrivateKeyDer::from_pem_file(&shown.key).expect("a key");
        let config = self.trusting().with_client_auth_cert(certificates, key);
        Arc::new(config.expect("a certificate and its key"))
    }
}

/// A certificate for a client.
pub(crate) struct ClientCertificate {
    /// Its file.
    pub(crate) certificate: PathBuf,
    /// Its key's file.
    pub(crate) key: PathBuf,
}

/// Signs certificates of clients.
pub(crate) struct Authority {
    directory: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters
            .distinguished_name
            .push(DnType::CommonName, "an authority");
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(parameters, key).expect("a certificate");
        let directory = tempfile::tempdir().expect("a temporary directory");
        let authority: &rcgen::Certificate = issuer.as_ref();
        std::fs::write(directory.path().join("ca.crt"), authority.pem()).expect("a file");
        Self { directory, issuer }
    }

    /// Its own certificate's file.
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("ca.crt")
    }

    /// A certificate for `name`.
    pub(crate) fn sign(&self, name: &str) -> ClientCertificate {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        parameters.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let certificate = parameters.signed_by(&key, &self.issuer).expect("a certificate");
        let write = |file: String, text: String| {
            let path = self.directory.path().join(file);
            std::fs::write(&path, text).expect("a file");
            restrict(&path);
            path
        };
        let stem = name.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        ClientCertificate {
            certificate: write(format!("{stem}.crt"), certificate.pem()),
            key: write(format!("{stem}.key"), key.serialize_pem()),
        }
    }
}

/// Keeps others from reading a file, which libpq wants of keys.
fn restrict(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).expect("permissions");
}
