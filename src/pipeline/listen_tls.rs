//! TLS towards clients.

use std::sync::Arc;

use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls::{Error, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::auth::end_point_hash;
use crate::config;

/// The protocol's name in TLS (ALPN), which clients that begin with TLS at once must give:
/// <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-SSL>.
pub const ALPN: &[u8] = b"postgresql";

/// TLS 1.2 and 1.3 as a server.
pub struct ListenTls {
    /// What handshakes are made with.
    pub config: Arc<ServerConfig>,
    /// The hash of the certificate that clients see, for channel binding; `None` where its signature has none.
    pub end_point: Option<Vec<u8>>,
}

/// A server's TLS from PEM texts.
///
/// # Errors
///
/// No certificate or no key in the texts, a key that does not belong to the certificate, or an authority that is none.
pub(super) fn server_config(settings: &config::ListenTls) -> Result<ListenTls, Error> {
    let provider = Arc::new(ring::default_provider());
    let chain = certificates(settings.certificate.text.expose())?;
    let key = PrivateKeyDer::from_pem_slice(settings.key.text.expose().as_bytes())
        .map_err(|error| unreadable(&error))?;
    let end_point = chain.first().and_then(|certificate| end_point_hash(certificate));
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let builder = match &settings.client_ca {
        None => builder.with_no_client_auth(),
        Some(authorities) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates(authorities.text.expose())? {
                roots.add(authority)?;
            }
            // a certificate that is shown must be right; whether one is needed depends on the user
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .allow_unauthenticated()
                .build()
                .map_err(|error| Error::General(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(chain, key)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(ListenTls {
        config: Arc::new(config),
        end_point,
    })
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| unreadable(&error))
}

fn unreadable(error: &rustls_pki_types::pem::Error) -> Error {
    Error::General(error.to_string())
}
