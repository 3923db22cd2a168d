//! The cryptography behind DTLS: AWS-LC, and one curve more.
//!
//! FFmpeg built with GnuTLS shows a certificate on P-224 when it publishes by WHIP, and as DTLS server it
//! signs with it. AWS-LC's Rust face has no P-224, so that signature is verified here. The certificate
//! must have the announced hash as any other.

use std::sync::Arc;

use aws_lc_rs::digest;
use p224::ecdsa::signature::hazmat::PrehashVerifier as _;
use p224::ecdsa::{Signature, VerifyingKey};
use rtc_crypto::providers::AwsLcRsProvider;
use rtc_crypto::{
    ActiveKeyExchange, AeadAlgorithm, AeadCipher, BlockCipherAlgorithm, CbcAlgorithm, CbcCipher,
    CryptoAlgorithm, CryptoError, HashAlgorithm, HmacAlgorithm, KeyExchangeAlgorithm, Mac,
    PublicKey, PublicKeyEncoding, RTCCrypto, RTCCryptoProvider, RTCRandom, SignatureScheme,
    SigningKey, StreamCipher, StreamCipherAlgorithm,
};

/// A point of P-224 as certificates carry it: 4, x, y.
const P224_POINT: usize = 57;

/// AWS-LC with P-224 for verification.
pub(in crate::core) struct Provider(AwsLcRsProvider);

impl Provider {
    pub(super) fn new() -> Self {
        Self(AwsLcRsProvider::new())
    }
}

impl RTCCryptoProvider for Provider {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn crypto(&self) -> &dyn RTCCrypto {
        self
    }

    fn random(&self) -> &dyn RTCRandom {
        self.0.random()
    }
}

impl RTCCrypto for Provider {
    fn supports(&self, algorithm: CryptoAlgorithm) -> bool {
        self.0.crypto().supports(algorithm)
    }

    fn hash(&self, algorithm: HashAlgorithm, data: &[u8]) -> Result<Vec<u8>, CryptoError> {
        self.0.crypto().hash(algorithm, data)
    }

    fn block_encrypt(
        &self,
        algorithm: BlockCipherAlgorithm,
        key: &[u8],
        block: &mut [u8],
    ) -> Result<(), CryptoError> {
        self.0.crypto().block_encrypt(algorithm, key, block)
    }

    fn new_hmac(&self, algorithm: HmacAlgorithm, key: &[u8]) -> Result<Box<dyn Mac>, CryptoError> {
        self.0.crypto().new_hmac(algorithm, key)
    }

    fn new_stream_cipher(
        &self,
        algorithm: StreamCipherAlgorithm,
        key: &[u8],
    ) -> Result<Box<dyn StreamCipher>, CryptoError> {
        self.0.crypto().new_stream_cipher(algorithm, key)
    }

    fn new_aead(
        &self,
        algorithm: AeadAlgorithm,
        key: &[u8],
    ) -> Result<Box<dyn AeadCipher>, CryptoError> {
        self.0.crypto().new_aead(algorithm, key)
    }

    fn new_cbc(
        &self,
        algorithm: CbcAlgorithm,
        key: &[u8],
    ) -> Result<Box<dyn CbcCipher>, CryptoError> {
        self.0.crypto().new_cbc(algorithm, key)
    }

    fn start_key_exchange(
        &self,
        algorithm: KeyExchangeAlgorithm,
    ) -> Result<Box<dyn ActiveKeyExchange>, CryptoError> {
        self.0.crypto().start_key_exchange(algorithm)
    }

    fn generate_signing_key(
        &self,
        scheme: SignatureScheme,
    ) -> Result<Arc<dyn SigningKey>, CryptoError> {
        self.0.crypto().generate_signing_key(scheme)
    }

    fn import_signing_key(
        &self,
        scheme: SignatureScheme,
        pkcs8_der: &[u8],
    ) -> Result<Arc<dyn SigningKey>, CryptoError> {
        self.0.crypto().import_signing_key(scheme, pkcs8_der)
    }

    fn verify_signature(
        &self,
        scheme: SignatureScheme,
        public_key: PublicKey<'_>,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), CryptoError> {
        // The DTLS library takes every short point for one of P-256.
        let is_p224 = scheme == SignatureScheme::EcdsaP256Sha256
            && public_key.encoding == PublicKeyEncoding::EcUncompressedPoint
            && public_key.bytes.len() == P224_POINT;
        if !is_p224 {
            return self.0.crypto().verify_signature(scheme, public_key, message, signature);
        }
        verify_p224(public_key.bytes, message, signature).ok_or(CryptoError::InvalidSignature)
    }
}

/// ECDSA on P-224 with SHA-256, the signature in DER.
fn verify_p224(point: &[u8], message: &[u8], signature: &[u8]) -> Option<()> {
    let key = VerifyingKey::from_sec1_bytes(point).ok()?;
    let signature = Signature::from_der(signature).ok()?;
    let hash = digest::digest(&digest::SHA256, message);
    key.verify_prehash(hash.as_ref(), &signature).ok()
}

#[cfg(test)]
mod tests {
    use p224::ecdsa::SigningKey;
    use p224::ecdsa::signature::hazmat::PrehashSigner as _;

    use super::*;

    #[test]
    fn a_signature_on_p224_is_verified_and_a_changed_one_is_not() {
        let key = SigningKey::from_slice(&[7; 28]).unwrap();
        let hash = digest::digest(&digest::SHA256, b"hello");
        let signature: Signature = key.sign_prehash(hash.as_ref()).unwrap();
        let der = signature.to_der();
        let point = key.verifying_key().to_encoded_point(false);
        let verify = |bytes: &[u8], message: &[u8], signature: &[u8]| {
            let key = PublicKey { encoding: PublicKeyEncoding::EcUncompressedPoint, bytes };
            let scheme = SignatureScheme::EcdsaP256Sha256;
            Provider::new().crypto().verify_signature(scheme, key, message, signature).is_ok()
        };
        assert!(verify(point.as_bytes(), b"hello", der.as_bytes()));
        assert!(!verify(point.as_bytes(), b"hallo", der.as_bytes()));
        for at in 0..der.as_bytes().len() {
            let mut changed = der.as_bytes().to_vec();
            changed[at] ^= 1;
            assert!(!verify(point.as_bytes(), b"hello", &changed), "{at}");
            assert!(!verify(point.as_bytes(), b"hello", &changed[..at]), "{at}");
        }
        for at in 0..P224_POINT {
            let mut changed = point.as_bytes().to_vec();
            changed[at] ^= 1;
            assert!(!verify(&changed, b"hello", der.as_bytes()), "{at}");
        }
    }
}
