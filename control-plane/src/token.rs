//! API tokens: who calls the consultation API, with which role, in which clinic.
//!
//! HS256, signed with an API key pair: `iss` = the key, `sub` = the user, `aud` = `bedside-api`,
//! `role`, `clinic`, `exp`; `session` and `link` where the token came from a join link. The
//! audience keeps the doors apart: a room token has none and is refused here, signaling refuses
//! this one.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{KeyPair, Private};

/// The audience of every API token.
pub const AUDIENCE: &str = "bedside-api";

/// The clinic of a token that names none.
pub const DEFAULT_CLINIC: &str = "demo";

/// How far two clocks may differ.
const LEEWAY: Duration = Duration::from_secs(5);

/// A longer token is not looked at.
const MAX_TOKEN_LEN: usize = 8 * 1024;

/// What a caller may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ApiRole {
    /// Its own consultations, as the clinician.
    Doctor,
    /// Its own consultations, as the person cared for.
    Patient,
    /// One consultation, by link.
    Guest,
    /// Another service of the clinic.
    Service,
    /// The clinic's administrator.
    Admin,
}

impl ApiRole {
    /// The word in tokens and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Doctor => "doctor",
            Self::Patient => "patient",
            Self::Guest => "guest",
            Self::Service => "service",
            Self::Admin => "admin",
        }
    }
}

/// An API token to issue.
#[derive(Clone, Debug)]
pub struct ApiToken {
    /// `sub`: the user.
    pub user_id: String,
    /// Display name, if known.
    pub name: Option<Private<String>>,
    /// What the holder may do.
    pub role: ApiRole,
    /// The only clinic it is good for.
    pub clinic: String,
    /// The only consultation it is good for.
    pub session: Option<Uuid>,
    /// The join link it came from; revoking that refuses this.
    pub link: Option<Uuid>,
    /// When it ends.
    pub expires_at: DateTime<Utc>,
}

/// A token was refused. One answer for every reason: a caller learns nothing from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the token is not valid")]
pub struct InvalidToken;

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: String,
    role: ApiRole,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    clinic: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    session: Option<Uuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    link: Option<Uuid>,
    exp: i64,
}

/// Signs an API token.
pub fn issue(keys: &KeyPair, token: &ApiToken) -> String {
    let claims = Claims {
        iss: keys.key.clone(),
        sub: token.user_id.clone(),
        aud: AUDIENCE.to_owned(),
        role: token.role,
        clinic: Some(token.clinic.clone()),
        name: token.name.as_ref().map(|name| name.reveal().clone()),
        session: token.session,
        link: token.link,
        exp: token.expires_at.timestamp(),
    };
    let secret = EncodingKey::from_secret(keys.secret.reveal().as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &secret)
        .expect("claims of strings and numbers always encode, and HS256 takes any secret")
}

/// Checks signature, algorithm, issuer, audience and times.
pub fn verify(keys: &[KeyPair], jwt: &str, now: DateTime<Utc>) -> Result<ApiToken, InvalidToken> {
    if jwt.len() > MAX_TOKEN_LEN || !header_is_plain(jwt) {
        return Err(InvalidToken);
    }
    let claims = keys.iter().find_map(|pair| claims_signed_by(pair, jwt)).ok_or(InvalidToken)?;
    let expires_at = DateTime::from_timestamp(claims.exp, 0).ok_or(InvalidToken)?;
    let leeway = chrono::Duration::from_std(LEEWAY).map_err(|_| InvalidToken)?;
    let bound = claims.role != ApiRole::Guest || claims.session.is_some();
    if expires_at.checked_add_signed(leeway).is_none_or(|end| end <= now)
        || !bound
        || !crate::text::is_id(&claims.sub)
    {
        return Err(InvalidToken);
    }
    let clinic = claims.clinic.unwrap_or_else(|| DEFAULT_CLINIC.to_owned());
    if !crate::text::is_id(&clinic) {
        return Err(InvalidToken);
    }
    Ok(ApiToken {
        user_id: claims.sub,
        name: claims.name.filter(|name| crate::text::is_name(name)).map(Private::new),
        role: claims.role,
        clinic,
        session: claims.session,
        link: claims.link,
        expires_at,
    })
}

/// `alg` is HS256 and nothing in the header changes how the token is read (RFC 7515 §4.1.11).
fn header_is_plain(jwt: &str) -> bool {
    #[derive(Deserialize)]
    struct Plain {
        alg: String,
        crit: Option<serde_json::Value>,
        b64: Option<serde_json::Value>,
        zip: Option<serde_json::Value>,
        cty: Option<serde_json::Value>,
    }
    let Some((header, _)) = jwt.split_once('.') else { return false };
    let Ok(json) = URL_SAFE_NO_PAD.decode(header) else { return false };
    let Ok(header) = serde_json::from_slice::<Plain>(&json) else { return false };
    header.alg == "HS256"
        && header.crit.is_none()
        && header.b64.is_none()
        && header.zip.is_none()
        && header.cty.is_none()
}

fn claims_signed_by(pair: &KeyPair, jwt: &str) -> Option<Claims> {
    let mut validation = Validation::new(Algorithm::HS256);
    validation.set_required_spec_claims(&["iss", "sub", "aud", "exp"]);
    validation.set_issuer(&[&pair.key]);
    validation.set_audience(&[AUDIENCE]);
    // Our own clock decides, in `verify`; `nbf` is the library's, with the same leeway.
    validation.validate_exp = false;
    validation.validate_nbf = true;
    validation.leeway = LEEWAY.as_secs();
    let secret = DecodingKey::from_secret(pair.secret.reveal().as_bytes());
    jsonwebtoken::decode::<Claims>(jwt, &secret, &validation).ok().map(|data| data.claims)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Vec<KeyPair> {
        ["first", "second"]
            .into_iter()
            .map(|key| KeyPair {
                key: key.to_owned(),
                secret: Private::new(format!("{key}-secret")),
            })
            .collect()
    }

    fn token(expires_at: DateTime<Utc>) -> ApiToken {
        ApiToken {
            user_id: "doctor-1".to_owned(),
            name: Some(Private::new("Dr. Osei".to_owned())),
            role: ApiRole::Doctor,
            clinic: "north".to_owned(),
            session: None,
            link: None,
            expires_at,
        }
    }

    fn signed(header: &serde_json::Value, claims: &serde_json::Value, secret: &str) -> String {
        let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(header), part(claims));
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret.as_bytes());
        let tag = aws_lc_rs::hmac::sign(&key, message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag.as_ref()))
    }

    #[test]
    fn what_is_issued_is_accepted_under_any_known_key() {
        let now = Utc::now();
        for pair in keys() {
            let jwt = issue(&pair, &token(now + chrono::Duration::hours(1)));
            let read = verify(&keys(), &jwt, now).expect("valid");
            assert_eq!((read.user_id.as_str(), read.clinic.as_str()), ("doctor-1", "north"));
            assert_eq!(read.role, ApiRole::Doctor);
            assert_eq!(read.name, Some(Private::new("Dr. Osei".to_owned())));
        }
    }

    #[test]
    fn an_expired_token_is_refused_after_the_leeway() {
        let now = Utc::now();
        let jwt = issue(&keys()[0], &token(now));
        assert!(verify(&keys(), &jwt, now + chrono::Duration::seconds(3)).is_ok());
        assert!(verify(&keys(), &jwt, now + chrono::Duration::seconds(6)).is_err());
    }

    #[test]
    fn forged_and_foreign_tokens_are_refused() {
        use serde_json::json;
        let now = Utc::now();
        let exp = now.timestamp() + 600;
        let header = json!({"alg": "HS256", "typ": "JWT"});
        let good =
            json!({"iss": "first", "sub": "u", "aud": AUDIENCE, "role": "doctor", "exp": exp});
        assert!(verify(&keys(), &signed(&header, &good, "first-secret"), now).is_ok());
        let with = |name: &str, value: serde_json::Value| {
            let mut claims = good.clone();
            claims[name] = value;
            claims
        };
        let without = |name: &str| {
            let mut claims = good.clone();
            claims.as_object_mut().expect("object").remove(name);
            claims
        };
        let claims = [
            with("iss", json!("unknown")),
            with("iss", json!("second")),
            with("aud", json!("other")),
            with("aud", json!([AUDIENCE])),
            with("aud", json!(["other", AUDIENCE])),
            with("role", json!("root")),
            with("role", json!("guest")),
            with("sub", json!("")),
            with("sub", json!("a\nb")),
            with("clinic", json!("")),
            with("nbf", json!(exp)),
            with("exp", json!("soon")),
            with("exp", json!(i64::MAX)),
            without("iss"),
            without("sub"),
            without("aud"),
            without("role"),
            without("exp"),
            // A room token: no audience, no role.
            json!({"iss": "first", "sub": "u", "exp": exp, "video": {"room": "r", "roomJoin": true}}),
        ];
        for claims in claims {
            let jwt = signed(&header, &claims, "first-secret");
            assert!(verify(&keys(), &jwt, now).is_err(), "{claims}");
        }
        for header in [
            json!({"alg": "none"}),
            json!({"alg": "None"}),
            json!({"alg": "HS384"}),
            json!({"alg": "RS256"}),
            json!({"alg": "hs256"}),
            json!({"typ": "JWT"}),
            json!({"alg": "HS256", "crit": ["x"], "x": 1}),
            json!({"alg": "HS256", "b64": false, "crit": ["b64"]}),
            json!({"alg": "HS256", "cty": "JWT"}),
        ] {
            let jwt = signed(&header, &good, "first-secret");
            assert!(verify(&keys(), &jwt, now).is_err(), "{header}");
        }
        assert!(verify(&keys(), &signed(&header, &good, "guess"), now).is_err());
    }

    #[test]
    fn no_truncation_and_no_flipped_bit_passes() {
        let now = Utc::now();
        let jwt = issue(&keys()[0], &token(now + chrono::Duration::hours(1)));
        for end in 0..jwt.len() {
            assert!(verify(&keys(), &jwt[..end], now).is_err());
        }
        for at in 0..jwt.len() {
            let mut bytes = jwt.clone().into_bytes();
            bytes[at] ^= 1;
            let Ok(flipped) = String::from_utf8(bytes) else { continue };
            let Ok(read) = verify(&keys(), &flipped, now) else { continue };
            // The last character of base64 may carry unused bits only if the decoder allows it.
            panic!("accepted with byte {at} changed: {read:?}");
        }
        assert!(verify(&keys(), &"a".repeat(100_000), now).is_err());
        assert!(verify(&keys(), "", now).is_err());
        assert!(verify(&keys(), "..", now).is_err());
    }
}
