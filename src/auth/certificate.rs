//! What a login needs of a certificate: its hash for channel binding, and the name it is for.

use sha2::{Digest, Sha256, Sha384, Sha512};
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::der::asn1::{BmpString, PrintableStringRef, TeletexStringRef, Utf8StringRef};
use x509_cert::der::oid::db::rfc4519::COMMON_NAME;
use x509_cert::der::oid::db::rfc5912::{
    ECDSA_WITH_SHA_224, ECDSA_WITH_SHA_256, ECDSA_WITH_SHA_384, ECDSA_WITH_SHA_512,
    SHA_1_WITH_RSA_ENCRYPTION, SHA_224_WITH_RSA_ENCRYPTION, SHA_256_WITH_RSA_ENCRYPTION,
    SHA_384_WITH_RSA_ENCRYPTION, SHA_512_WITH_RSA_ENCRYPTION,
};

/// The hash of the certificate `der` that binds a login to its TLS connection, by the rule of RFC 5929, section 4.1: with
/// the hash function of the certificate's signature, SHA-256 in place of MD5 and SHA-1. `None` where the signature has no
/// hash function of its own (Ed25519) or one that is not known: then there is no channel binding.
pub fn end_point_hash(der: &[u8]) -> Option<Vec<u8>> {
    let certificate = Certificate::from_der(der).ok()?;
    match certificate.signature_algorithm.oid {
        SHA_1_WITH_RSA_ENCRYPTION | SHA_256_WITH_RSA_ENCRYPTION | ECDSA_WITH_SHA_256 => {
            Some(Sha256::digest(der).to_vec())
        }
        SHA_384_WITH_RSA_ENCRYPTION | ECDSA_WITH_SHA_384 => Some(Sha384::digest(der).to_vec()),
        SHA_512_WITH_RSA_ENCRYPTION | ECDSA_WITH_SHA_512 => Some(Sha512::digest(der).to_vec()),
        SHA_224_WITH_RSA_ENCRYPTION | ECDSA_WITH_SHA_224 => Some(sha2::Sha224::digest(der).to_vec()),
        _ => None,
    }
}

/// The common name of the certificate `der`; `None` where it has none, or several, or one with a NUL, which some would
/// read only up to there.
pub fn common_name(der: &[u8]) -> Option<String> {
    let certificate = Certificate::from_der(der).ok()?;
    let mut names = certificate
        .tbs_certificate
        .subject
        .0
        .iter()
        .flat_map(|part| part.0.iter())
        .filter(|attribute| attribute.oid == COMMON_NAME);
    let (name, None) = (names.next()?, names.next()) else {
        return None;
    };
    let value = &name.value;
    let text = value
        .decode_as::<Utf8StringRef<'_>>()
        .map(|text| text.as_str().to_owned())
        .or_else(|_| {
            value
                .decode_as::<PrintableStringRef<'_>>()
                .map(|text| text.as_str().to_owned())
        })
        .or_else(|_| {
            value
                .decode_as::<TeletexStringRef<'_>>()
                .map(|text| text.as_str().to_owned())
        })
        .or_else(|_| value.decode_as::<BmpString>().map(|text| text.to_string()))
        .ok()?;
    (!text.is_empty() && !text.contains('\0')).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{
        CertificateParams, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519,
    };

    fn certificate(names: &[&str], algorithm: &'static rcgen::SignatureAlgorithm) -> Vec<u8> {
        let mut parameters = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        for name in names {
            parameters.distinguished_name.push(DnType::CommonName, *name);
        }
        parameters
            .distinguished_name
            .push(DnType::OrganizationName, "Example");
        let key = KeyPair::generate_for(algorithm).unwrap();
        parameters.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn the_name_is_the_only_common_name() {
        let named = certificate(&["Ana Müller"], &PKCS_ECDSA_P256_SHA256);
        assert_eq!(common_name(&named).as_deref(), Some("Ana Müller"));
        for names in [&[][..], &[""], &["ana\0evil"]] {
            assert_eq!(
                common_name(&certificate(names, &PKCS_ECDSA_P256_SHA256)),
                None,
                "{names:?}"
            );
        }
        assert_eq!(common_name(b"no certificate"), None);
    }

    #[test]
    fn the_hash_is_that_of_the_signature() {
        for (algorithm, expected) in [
            (&PKCS_ECDSA_P256_SHA256, Some(32)),
            (&PKCS_ECDSA_P384_SHA384, Some(48)),
            (&PKCS_ED25519, None),
        ] {
            let hash = end_point_hash(&certificate(&["ana"], algorithm));
            assert_eq!(hash.map(|hash| hash.len()), expected);
        }
        assert_eq!(end_point_hash(b""), None);
    }
}
