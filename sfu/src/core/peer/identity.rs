//! Certificates: ours, and the hash that the other side's must have.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest;
use rtc_crypto::RTCCryptoProvider as _;
use rtc_dtls::crypto::Certificate;

use super::PeerError;
use super::provider::Provider;

/// The certificate that all peers of a shard show, and the cryptography behind it.
pub struct Identity {
    pub(super) provider: Arc<Provider>,
    pub(super) certificate: Certificate,
    fingerprint: String,
}

impl Identity {
    /// Makes a fresh self-signed certificate (ECDSA P-256).
    ///
    /// # Errors
    /// The cryptography library refused.
    pub fn generate() -> Result<Self, IdentityError> {
        let provider = Arc::new(Provider::new());
        let certificate =
            Certificate::generate_self_signed(vec!["bedside".to_owned()], provider.crypto())
                .map_err(|error| IdentityError(error.to_string()))?;
        let der = certificate
            .certificate
            .first()
            .ok_or_else(|| IdentityError("no certificate was made".to_owned()))?;
        let fingerprint = with_colons(digest::digest(&digest::SHA256, der).as_ref());
        Ok(Self { provider, certificate, fingerprint })
    }

    /// SHA-256 of the certificate as SDP writes it: `AB:CD:…`.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

fn with_colons(hash: &[u8]) -> String {
    hash.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

/// No certificate could be made.
#[derive(Debug, thiserror::Error)]
#[error("certificate: {0}")]
pub struct IdentityError(String);

/// The hash of a certificate, as SDP carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// `sha-256`, `sha-384` or `sha-512`, lower case.
    pub algorithm: String,
    /// `AB:CD:…`, upper case.
    pub value: String,
}

/// A fingerprint ready to be compared.
#[derive(Clone)]
pub(super) struct CertificateHash {
    algorithm: &'static digest::Algorithm,
    value: Vec<u8>,
}

impl CertificateHash {
    /// SHA-1 can be forged, so it is refused like anything unknown.
    pub(super) fn parse(fingerprint: &Fingerprint) -> Result<Self, PeerError> {
        let algorithm = match fingerprint.algorithm.to_ascii_lowercase().as_str() {
            "sha-256" => &digest::SHA256,
            "sha-384" => &digest::SHA384,
            "sha-512" => &digest::SHA512,
            _ => return Err(PeerError::FingerprintAlgorithm),
        };
        let value =
            hex::decode(fingerprint.value.replace(':', "")).map_err(|_| PeerError::Fingerprint)?;
        if value.len() != algorithm.output_len() {
            return Err(PeerError::Fingerprint);
        }
        Ok(Self { algorithm, value })
    }

    /// Whether a certificate has this hash.
    pub(super) fn matches(&self, der: &[u8]) -> bool {
        digest::digest(self.algorithm, der).as_ref() == self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(algorithm: &str, value: &str) -> Result<CertificateHash, PeerError> {
        let fingerprint = Fingerprint { algorithm: algorithm.to_owned(), value: value.to_owned() };
        CertificateHash::parse(&fingerprint)
    }

    #[test]
    fn a_certificate_matches_its_own_fingerprint_only() {
        let (ours, other) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let hash = parsed("sha-256", ours.fingerprint()).unwrap();
        assert!(hash.matches(&ours.certificate.certificate[0]));
        assert!(!hash.matches(&other.certificate.certificate[0]));
        assert!(parsed("SHA-256", &ours.fingerprint().to_lowercase()).is_ok());
    }

    #[test]
    fn weak_and_malformed_fingerprints_are_refused() {
        let sha1 = ["AB"; 20].join(":");
        assert!(matches!(parsed("sha-1", &sha1), Err(PeerError::FingerprintAlgorithm)));
        assert!(matches!(parsed("sha-256", &sha1), Err(PeerError::Fingerprint)));
        assert!(matches!(parsed("sha-256", &["GG"; 32].join(":")), Err(PeerError::Fingerprint)));
        assert!(matches!(parsed("sha-256", ""), Err(PeerError::Fingerprint)));
        assert!(parsed("sha-512", &["AB"; 64].join(":")).is_ok());
    }
}
