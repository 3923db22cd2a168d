//! Credentials for a limited time.

use std::fmt;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

/// What credentials are made and checked with.
#[derive(Clone)]
pub struct Secret(hmac::Key);

impl Secret {
    /// From random bytes; 32 are enough.
    pub fn new(bytes: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Username and password for a participant until `expires` (unix seconds). The participant's name
/// goes over the wire in clear and is not interpreted: a number that says nothing is best.
pub fn credential(secret: &Secret, participant: &str, expires: u64) -> (String, String) {
    let username = format!("{expires}:{participant}");
    let password = password(secret, &username);
    (username, password)
}

fn password(secret: &Secret, username: &str) -> String {
    STANDARD_NO_PAD.encode(hmac::sign(&secret.0, username.as_bytes()))
}
