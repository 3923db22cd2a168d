//! Authorization of webhooks about rooms: a token of the API key that names the hash of the body, as
//! the receivers of the server SDKs check it.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;

use crate::KeyPair;

/// How long a token is good; receivers check it at once.
const LIFE: i64 = 300;

#[derive(Serialize)]
struct BodyClaims<'a> {
    iss: &'a str,
    nbf: i64,
    exp: i64,
    sha256: String,
}

/// The header `authorization`, without a scheme before it.
pub(super) fn authorization(keys: &KeyPair, body: &[u8], seconds: i64) -> String {
    let sha256 = STANDARD.encode(digest(&SHA256, body));
    let (nbf, exp) = (seconds.saturating_sub(1), seconds.saturating_add(LIFE));
    let claims = BodyClaims { iss: &keys.key, nbf, exp, sha256 };
    let key = EncodingKey::from_secret(keys.secret.reveal().as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key)
        .expect("HS256 over plain claims cannot fail")
}
