//! API tokens: who calls the consultation API, with which role, in which clinic.
//!
//! HS256, signed with an API key pair: `iss` = the key, `sub` = the user, `aud` = `bedside-api`,
//! `role`, `clinic`, `exp`; `session` and `link` where the token came from a join link. The
//! audience keeps the doors apart: a room token has none and is refused here, signaling refuses
//! this one. `jti` names the token, so that it can be revoked.
//!
//! Tokens of a foreign identity service are read by `jwks`. Which of the two a
//! token is its `alg` says, and each side accepts its own algorithms only: a public key is never
//! taken for a shared secret.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Validation};
use serde::{Deserialize, Serialize};
use serde_json::Value;
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

/// A longer token of anybody is not looked at.
const MAX_ANY_LEN: usize = 16 * 1024;

/// How ours are signed.
pub(crate) const OWN_ALGORITHM: &str = "HS256";

/// Seconds beyond this are no time of ours (the year 5138).
const MAX_SECONDS: f64 = 1e11;

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
    /// Reads the clinic's audit log, and nothing else.
    Auditor,
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
            Self::Auditor => "auditor",
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
    exp: i64,
}

/// A token that was accepted.
#[derive(Clone, Debug)]
pub(crate) struct Verified {
    pub(crate) token: ApiToken,
    /// Names this very token, so that it can be revoked: its `jti`, or a hash of it.
    pub(crate) id: String,
}

/// What a token's header says, as far as it counts. `jku`, `jwk`, `x5u` and `x5c` do not: keys
/// come from the configuration alone.
#[derive(Deserialize)]
pub(crate) struct Header {
    pub(crate) alg: String,
    pub(crate) kid: Option<String>,
    pub(crate) typ: Option<String>,
    crit: Option<Value>,
    b64: Option<Value>,
    zip: Option<Value>,
    cty: Option<Value>,
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
        jti: Some(Uuid::new_v4().to_string()),
        exp: token.expires_at.timestamp(),
    };
    let secret = EncodingKey::from_secret(keys.secret.reveal().as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::new(Algorithm::HS256), &claims, &secret)
        .expect("claims of strings and numbers always encode, and HS256 takes any secret")
}

/// Checks signature, algorithm, issuer, audience and times.
pub fn verify(keys: &[KeyPair], jwt: &str, now: DateTime<Utc>) -> Result<ApiToken, InvalidToken> {
    let header = header(jwt).ok_or(InvalidToken)?;
    verify_own(keys, jwt, &header, now).map(|verified| verified.token)
}

/// [`verify`] for a token whose header was read.
pub(crate) fn verify_own(
    keys: &[KeyPair],
    jwt: &str,
    header: &Header,
    now: DateTime<Utc>,
) -> Result<Verified, InvalidToken> {
    if jwt.len() > MAX_TOKEN_LEN || header.alg != OWN_ALGORITHM {
        return Err(InvalidToken);
    }
    let (claims, times) =
        keys.iter().find_map(|pair| claims_signed_by(pair, jwt)).ok_or(InvalidToken)?;
    let expires_at = life(&times, LEEWAY, now).ok_or(InvalidToken)?;
    let bound = claims.role != ApiRole::Guest || claims.session.is_some();
    if !bound || !crate::text::is_id(&claims.sub) {
        return Err(InvalidToken);
    }
    let clinic = claims.clinic.unwrap_or_else(|| DEFAULT_CLINIC.to_owned());
    if !crate::text::is_id(&clinic) {
        return Err(InvalidToken);
    }
    let token = ApiToken {
        user_id: claims.sub,
        name: claims.name.filter(|name| crate::text::is_name(name)).map(Private::new),
        role: claims.role,
        clinic,
        session: claims.session,
        link: claims.link,
        expires_at,
    };
    Ok(Verified { token, id: id_of(jwt, claims.jti.as_deref()) })
}

/// Reads the header of a token. None if it is none, or if something in it changes how the token is
/// read (RFC 7515 §4.1.11, RFC 7797).
pub(crate) fn header(jwt: &str) -> Option<Header> {
    if jwt.len() > MAX_ANY_LEN || jwt.bytes().filter(|byte| *byte == b'.').count() != 2 {
        return None;
    }
    let (header, _) = jwt.split_once('.')?;
    let json = URL_SAFE_NO_PAD.decode(header).ok()?;
    let header: Header = serde_json::from_slice(&json).ok()?;
    let plain = header.crit.is_none()
        && header.b64.is_none()
        && header.zip.is_none()
        && header.cty.is_none();
    plain.then_some(header)
}

/// The end of a token whose times hold now. A time of another type than a number is no time.
pub(crate) fn life(claims: &Value, leeway: Duration, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let leeway = chrono::Duration::from_std(leeway).ok()?;
    let time = |value: &Value| {
        let seconds = value.as_i64().or_else(|| {
            // Some services write fractions of seconds.
            let seconds = value.as_f64().filter(|seconds| seconds.abs() < MAX_SECONDS)?;
            #[expect(clippy::cast_possible_truncation, reason = "its size was checked")]
            Some(seconds.floor() as i64)
        })?;
        DateTime::from_timestamp(seconds, 0)
    };
    let expires_at = time(claims.get("exp")?)?;
    if expires_at.checked_add_signed(leeway)? <= now {
        return None;
    }
    for early in ["nbf", "iat"] {
        match claims.get(early) {
            Some(value) if time(value)?.checked_sub_signed(leeway)? > now => return None,
            Some(_) | None => {}
        }
    }
    Some(expires_at)
}

/// The name of a token: its own id where that is one, else a hash of the whole.
pub(crate) fn id_of(jwt: &str, jti: Option<&str>) -> String {
    match jti.filter(|jti| crate::text::is_id(jti)) {
        Some(jti) => jti.to_owned(),
        None => {
            let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, jwt.as_bytes());
            format!("sha256-{}", URL_SAFE_NO_PAD.encode(hash.as_ref()))
        }
    }
}

/// The claims as ours, and as JSON values, in which a time still has its type.
fn claims_signed_by(pair: &KeyPair, jwt: &str) -> Option<(Claims, Value)> {
    let mut validation = Validation::new(Algorithm::HS256);
    validation.set_required_spec_claims(&["iss", "sub", "aud", "exp"]);
    validation.set_issuer(&[&pair.key]);
    validation.set_audience(&[AUDIENCE]);
    // Our own clock decides, in `life`.
    validation.validate_exp = false;
    validation.validate_nbf = false;
    let secret = DecodingKey::from_secret(pair.secret.reveal().as_bytes());
    let claims = jsonwebtoken::decode::<Claims>(jwt, &secret, &validation).ok()?.claims;
    let (_, rest) = jwt.split_once('.')?;
    let json = URL_SAFE_NO_PAD.decode(rest.split_once('.')?.0).ok()?;
    Some((claims, serde_json::from_slice(&json).ok()?))
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

    fn signed(header: &Value, claims: &Value, secret: &str) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
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
        let with = |name: &str, value: Value| {
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
