//! Signatures of the Standard Webhooks specification 1.0.0: HMAC-SHA256 over id, time and body.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::WebhookError;
use crate::Private;

/// How a secret is written.
const PREFIX: &str = "whsec_";
/// What the specification asks of a secret.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// A secret that receiver and we know.
#[derive(Clone)]
pub(super) struct Secret(hmac::Key);

impl Secret {
    /// Reads `whsec_…`.
    pub(super) fn parse(text: &Private<String>) -> Result<Self, WebhookError> {
        let encoded = text.reveal().strip_prefix(PREFIX).ok_or(WebhookError::Secret)?;
        let bytes = STANDARD.decode(encoded).map_err(|_| WebhookError::Secret)?;
        if !SECRET_BYTES.contains(&bytes.len()) {
            return Err(WebhookError::Secret);
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    fn sign(&self, id: &str, seconds: i64, body: &[u8]) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(format!("{id}.{seconds}.").as_bytes());
        context.update(body);
        format!("v1,{}", STANDARD.encode(context.sign()))
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The header `webhook-signature`: one signature for each secret, so that a receiver may know
/// either of them while they change.
pub(super) fn signature(secrets: &[Secret], id: &str, seconds: i64, body: &[u8]) -> String {
    let signatures: Vec<String> = secrets.iter().map(|s| s.sign(id, seconds, body)).collect();
    signatures.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Result<Secret, WebhookError> {
        Secret::parse(&Private::new(text.to_owned()))
    }

    /// Taken from an HMAC made by other means (`openssl dgst -sha256 -mac HMAC`).
    #[test]
    fn a_known_message_has_its_known_signature() {
        let secret = secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let (id, body) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", br#"{"test": 2432232314}"#);
        let signed = signature(std::slice::from_ref(&secret), id, 1_614_265_330, body);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        let two = signature(&[secret.clone(), secret], id, 1_614_265_330, body);
        assert_eq!(two, format!("{signed} {signed}"));
    }

    #[test]
    fn secrets_are_written_as_the_specification_says() {
        for bad in ["", "whsec_", "whsec_!!", "whsec_c2hvcnQ=", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]
        {
            assert!(secret(bad).is_err(), "{bad}");
        }
        let long = format!("whsec_{}", STANDARD.encode([7; 65]));
        assert!(secret(&long).is_err());
        assert_eq!(
            format!("{:?}", secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap()),
            "Secret(..)"
        );
    }
}
