//! TLS towards clients.

use std::sync::Arc;

use rustls::crypto::ring;
use rustls::{Error, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// A server's TLS 1.2 and 1.3 from PEM texts.
///
/// # Errors
///
/// No certificate or no key in the texts, or a key that does not belong to the certificate.
pub(super) fn server_config(certificate: &str, key: &str) -> Result<Arc<ServerConfig>, Error> {
    let unreadable = |error: rustls_pki_types::pem::Error| Error::General(error.to_string());
    let chain = CertificateDer::pem_slice_iter(certificate.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(unreadable)?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(unreadable)?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    Ok(Arc::new(config))
}
