//! Room tokens: issued by us, shown by clients at the room door.
//!
//! A room token is a JWT signed with HS256 that carries LiveKit's claims, so that the client SDKs
//! and their server libraries can read and make them. The key pair is found by `iss`. Tokens of
//! our HTTP API carry `aud` = [`API_AUDIENCE`] and are refused here; room tokens carry none and
//! are refused there.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bedside_sfu::core::api::{Grant, Private, Source};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use crate::rooms::RoomSettings;

/// The audience of API tokens, which never open the room door.
pub const API_AUDIENCE: &str = "bedside-api";

/// How far clocks may differ.
pub const LEEWAY: Duration = Duration::from_secs(60);

const MAX_TOKEN: usize = 32 * 1024;
const MAX_NAME: usize = 256;
const MAX_METADATA: usize = 512 * 1024;
const MAX_ATTRIBUTES: usize = 64 * 1024;

/// A key and its secret.
#[derive(Clone, Debug)]
pub struct KeyPair {
    /// Named by `iss`.
    pub key: String,
    /// Signs and verifies.
    pub secret: Private<String>,
}

/// The `video` claim. Absent rights have the defaults of [`VideoGrant::rights`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VideoGrant {
    /// May join [`VideoGrant::room`].
    pub room_join: bool,
    /// Name of the room.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub room: String,
    /// May create and delete rooms (room admin API).
    #[serde(skip_serializing_if = "is_false")]
    pub room_create: bool,
    /// May list rooms (room admin API).
    #[serde(skip_serializing_if = "is_false")]
    pub room_list: bool,
    /// May administer [`VideoGrant::room`] (room admin API).
    #[serde(skip_serializing_if = "is_false")]
    pub room_admin: bool,
    /// May start recordings.
    #[serde(skip_serializing_if = "is_false")]
    pub room_record: bool,
    /// May publish tracks; absent = yes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_publish: Option<bool>,
    /// May receive tracks; absent = yes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_subscribe: Option<bool>,
    /// May send data; absent = as `can_publish`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_publish_data: Option<bool>,
    /// Sources it may publish; empty = all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub can_publish_sources: Vec<String>,
    /// May change its own name, metadata and attributes; absent = no.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_update_own_metadata: Option<bool>,
    /// Is not shown to others.
    #[serde(skip_serializing_if = "is_false")]
    pub hidden: bool,
    /// Is a recorder.
    #[serde(skip_serializing_if = "is_false")]
    pub recorder: bool,
    /// Is an agent.
    #[serde(skip_serializing_if = "is_false")]
    pub agent: bool,
}

impl VideoGrant {
    /// The plain grant of somebody who joins `room` and may do what everybody may.
    pub fn join(room: impl Into<String>) -> Self {
        Self { room_join: true, room: room.into(), ..Self::default() }
    }

    /// What the engine is told, with the defaults filled in.
    pub fn rights(&self) -> Grant {
        let publish = self.can_publish.unwrap_or(true);
        Grant {
            publish,
            subscribe: self.can_subscribe.unwrap_or(true),
            publish_data: self.can_publish_data.unwrap_or(publish),
            sources: self.can_publish_sources.iter().map(|name| source(name)).collect(),
            update_own_metadata: self.can_update_own_metadata.unwrap_or(false),
            hidden: self.hidden,
            recorder: self.recorder,
        }
    }

    /// The same grant with the rights that hold now.
    #[must_use]
    pub fn with_rights(&self, rights: &Grant) -> Self {
        Self {
            can_publish: Some(rights.publish),
            can_subscribe: Some(rights.subscribe),
            can_publish_data: Some(rights.publish_data),
            can_publish_sources: rights.sources.iter().map(|s| source_name(*s).into()).collect(),
            can_update_own_metadata: Some(rights.update_own_metadata),
            hidden: rights.hidden,
            recorder: rights.recorder,
            ..self.clone()
        }
    }
}

/// What a room token says, before it is signed.
#[derive(Clone, Debug, Default)]
pub struct RoomToken {
    /// Who; unique in the room.
    pub identity: Private<String>,
    /// Display name.
    pub name: Private<String>,
    /// Free text of the application.
    pub metadata: Private<String>,
    /// Free pairs of the application.
    pub attributes: Private<BTreeMap<String, String>>,
    /// `standard`, `agent` …; empty = standard.
    pub kind: String,
    /// What it opens.
    pub grant: VideoGrant,
}

/// A verified room token.
#[derive(Clone, Debug)]
pub struct Claims {
    /// What it says.
    pub token: RoomToken,
    /// The key that signed it.
    pub issuer: String,
    /// When it ends.
    pub expires: SystemTime,
    /// Its own id, where it has one.
    pub id: Option<String>,
    /// What the room is to be like if this join opens it.
    pub settings: RoomSettings,
}

impl Claims {
    /// The name of the room that it opens.
    pub fn room(&self) -> &str {
        &self.token.grant.room
    }

    /// Who shows it.
    pub fn identity(&self) -> &str {
        self.token.identity.reveal()
    }
}

/// Why a token is refused. The texts go to clients: none repeats what was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a JWT, or not one of ours in form.
    #[error("invalid authorization token")]
    Malformed,
    /// Nobody knows its `iss`.
    #[error("invalid API key")]
    UnknownKey,
    /// The signature does not fit, or the algorithm is not HS256.
    #[error("invalid token")]
    BadSignature,
    /// It has ended, not begun, or says no end.
    #[error("invalid token")]
    NotNow,
    /// It is a token for another door.
    #[error("invalid token")]
    OtherDoor,
    /// A name, metadata or the attributes are too long.
    #[error("invalid token")]
    TooLong,
}

/// Signs a token that lives from now for `ttl`.
pub fn issue(keys: &KeyPair, token: &RoomToken, ttl: Duration, now: SystemTime) -> String {
    let seconds = unix_seconds(now);
    let claims = WireClaims {
        iss: keys.key.clone(),
        sub: Some(token.identity.reveal().clone()),
        nbf: Some(seconds.saturating_sub(1)),
        exp: Some(seconds.saturating_add(ttl.as_secs())),
        iat: Some(seconds),
        jti: Some(token_id(now)),
        aud: None,
        name: token.name.reveal().clone(),
        metadata: token.metadata.reveal().clone(),
        attributes: token.attributes.reveal().clone(),
        kind: token.kind.clone(),
        video: token.grant.clone(),
        room_config: None,
    };
    let key = EncodingKey::from_secret(keys.secret.reveal().as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key)
        .expect("HS256 over plain claims cannot fail")
}

/// Checks a token: form, key, signature, times, door, sizes. What it grants is the caller's to ask.
pub fn verify(keys: &[KeyPair], jwt: &str, now: SystemTime) -> Result<Claims, TokenError> {
    if jwt.len() > MAX_TOKEN {
        return Err(TokenError::Malformed);
    }
    let (header, issuer) = unverified(jwt)?;
    let keys = keys.iter().find(|pair| pair.key == issuer).ok_or(TokenError::UnknownKey)?;
    if header.alg != "HS256" || header.crit.is_some() || header.b64.is_some() {
        return Err(TokenError::BadSignature);
    }
    // Times are checked below against the caller's clock.
    let mut validation = Validation::new(Algorithm::HS256);
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    let key = DecodingKey::from_secret(keys.secret.reveal().as_bytes());
    let claims = jsonwebtoken::decode::<WireClaims>(jwt, &key, &validation)
        .map_err(|error| match error.kind() {
            jsonwebtoken::errors::ErrorKind::Json(_) => TokenError::Malformed,
            _ => TokenError::BadSignature,
        })?
        .claims;
    accept(claims, now)
}

fn accept(claims: WireClaims, now: SystemTime) -> Result<Claims, TokenError> {
    let seconds = unix_seconds(now);
    let leeway = LEEWAY.as_secs();
    let exp = claims.exp.ok_or(TokenError::NotNow)?;
    if exp.saturating_add(leeway) < seconds
        || claims.nbf.is_some_and(|nbf| nbf > seconds.saturating_add(leeway))
    {
        return Err(TokenError::NotNow);
    }
    if claims.aud.as_ref().is_some_and(names_the_api) {
        return Err(TokenError::OtherDoor);
    }
    // A token of other libraries may carry the identity as its id.
    let identity = claims.sub.or_else(|| claims.jti.clone()).unwrap_or_default();
    let attributes: usize = claims.attributes.iter().map(|(k, v)| k.len() + v.len()).sum();
    if identity.len() > MAX_NAME
        || claims.name.len() > MAX_NAME
        || claims.video.room.len() > MAX_NAME
        || claims.metadata.len() > MAX_METADATA
        || attributes > MAX_ATTRIBUTES
    {
        return Err(TokenError::TooLong);
    }
    let settings = match claims.room_config {
        Some(config) => settings(config).ok_or(TokenError::Malformed)?,
        None => RoomSettings::default(),
    };
    let expires = UNIX_EPOCH.checked_add(Duration::from_secs(exp)).ok_or(TokenError::NotNow)?;
    Ok(Claims {
        token: RoomToken {
            identity: Private::new(identity),
            name: Private::new(claims.name),
            metadata: Private::new(claims.metadata),
            attributes: Private::new(claims.attributes),
            kind: claims.kind,
            grant: claims.video,
        },
        issuer: claims.iss,
        expires,
        id: claims.jti,
        settings,
    })
}

/// The claims on the wire.
#[derive(Serialize, Deserialize)]
struct WireClaims {
    iss: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sub: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nbf: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exp: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    iat: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    aud: Option<Audience>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    metadata: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    attributes: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    kind: String,
    #[serde(default)]
    video: VideoGrant,
    #[serde(default, rename = "roomConfig", skip_serializing_if = "Option::is_none")]
    room_config: Option<serde_json::Value>,
}

/// Of a room's configuration we serve limit, timeouts, metadata and playout delay; the rest is not
/// ours.
fn settings(config: serde_json::Value) -> Option<RoomSettings> {
    let config: livekit_protocol::RoomConfiguration = serde_json::from_value(config).ok()?;
    Some(RoomSettings::new(
        config.max_participants,
        (config.empty_timeout, config.departure_timeout),
        config.metadata,
        (config.min_playout_delay, config.max_playout_delay),
    ))
}

/// `aud` is a text or a list of texts.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

fn names_the_api(audience: &Audience) -> bool {
    match audience {
        Audience::One(name) => name == API_AUDIENCE,
        Audience::Many(names) => names.iter().any(|name| name == API_AUDIENCE),
    }
}

#[derive(Deserialize)]
struct WireHeader {
    alg: String,
    crit: Option<serde_json::Value>,
    b64: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Issuer {
    iss: String,
}

/// The header and the issuer as they are claimed, to find the key by; nothing of it is trusted.
fn unverified(jwt: &str) -> Result<(WireHeader, String), TokenError> {
    let mut parts = jwt.split('.');
    let (Some(header), Some(claims), Some(_), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(TokenError::Malformed);
    };
    let header = decode_part::<WireHeader>(header).ok_or(TokenError::Malformed)?;
    let claims = decode_part::<Issuer>(claims).ok_or(TokenError::Malformed)?;
    Ok((header, claims.iss))
}

fn decode_part<T: serde::de::DeserializeOwned>(part: &str) -> Option<T> {
    let bytes = URL_SAFE_NO_PAD.decode(part).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Unique in this process and, by the time in it, across restarts. It is a name, not a secret.
fn token_id(now: SystemTime) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let nanos = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    format!("{nanos:x}-{:x}-{:x}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

fn source(name: &str) -> Source {
    match name {
        "camera" => Source::Camera,
        "microphone" => Source::Microphone,
        "screen_share" => Source::Screen,
        "screen_share_audio" => Source::ScreenAudio,
        _ => Source::Unknown,
    }
}

const fn source_name(source: Source) -> &'static str {
    match source {
        Source::Unknown => "unknown",
        Source::Camera => "camera",
        Source::Microphone => "microphone",
        Source::Screen => "screen_share",
        Source::ScreenAudio => "screen_share_audio",
    }
}

fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
const fn is_false(value: &bool) -> bool {
    !*value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Vec<KeyPair> {
        ["one", "two"]
            .map(|key| KeyPair {
                key: key.into(),
                secret: Private::new(format!("secret-of-{key}-0123456789abcdef")),
            })
            .to_vec()
    }

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn token() -> RoomToken {
        RoomToken {
            identity: Private::new("ann".into()),
            name: Private::new("Ann".into()),
            metadata: Private::new("{}".into()),
            attributes: Private::new([("role".into(), "PATIENT".into())].into()),
            kind: String::new(),
            grant: VideoGrant::join("ward"),
        }
    }

    fn raw(header: &str, claims: &str, secret: &str) -> String {
        let head = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let key = EncodingKey::from_secret(secret.as_bytes());
        let tag = jsonwebtoken::crypto::sign(head.as_bytes(), &key, Algorithm::HS256).unwrap();
        format!("{head}.{tag}")
    }

    fn signed(claims: &str) -> String {
        raw(r#"{"alg":"HS256","typ":"JWT"}"#, claims, keys()[0].secret.reveal())
    }

    #[test]
    fn what_is_issued_verifies_with_everything_in_it() {
        for pair in keys() {
            let jwt = issue(&pair, &token(), Duration::from_secs(600), now());
            let claims = verify(&keys(), &jwt, now()).unwrap();
            assert_eq!((claims.room(), claims.identity()), ("ward", "ann"));
            assert_eq!(claims.issuer, pair.key);
            assert_eq!(claims.expires, now() + Duration::from_secs(600));
            assert_eq!(claims.token.attributes, token().attributes);
            assert_eq!(claims.token.grant, token().grant);
            assert!(claims.id.is_some());
        }
    }

    #[test]
    fn two_tokens_never_share_an_id() {
        let ids: Vec<_> = (0..2)
            .map(|_| {
                let jwt = issue(&keys()[0], &token(), Duration::from_secs(600), now());
                verify(&keys(), &jwt, now()).unwrap().id
            })
            .collect();
        assert_ne!(ids[0], ids[1]);
    }

    #[test]
    fn times_are_held_with_a_minute_of_leeway() {
        let jwt = issue(&keys()[0], &token(), Duration::from_secs(600), now());
        let at = |s| verify(&keys(), &jwt, now() + Duration::from_secs(s)).map(|_| ());
        assert_eq!(at(660), Ok(()));
        assert_eq!(at(661), Err(TokenError::NotNow));
        let before = |s| verify(&keys(), &jwt, now() - Duration::from_secs(s)).map(|_| ());
        assert_eq!(before(61), Ok(()));
        assert_eq!(before(62), Err(TokenError::NotNow));
        let endless = signed(r#"{"iss":"one","sub":"ann","video":{"roomJoin":true,"room":"r"}}"#);
        assert_eq!(verify(&keys(), &endless, now()).unwrap_err(), TokenError::NotNow);
    }

    #[test]
    fn a_time_of_the_wrong_type_is_refused_and_not_skipped() {
        for exp in [r#""1900000000""#, "null", "[]", "-1", "1e999", "true", "{}"] {
            let jwt = signed(&format!(r#"{{"iss":"one","sub":"a","exp":{exp}}}"#));
            assert!(verify(&keys(), &jwt, now()).is_err(), "{exp}");
        }
        let jwt = signed(r#"{"iss":"one","sub":"a","exp":1900000000,"nbf":"soon"}"#);
        assert!(verify(&keys(), &jwt, now()).is_err());
    }

    #[test]
    fn only_hs256_counts() {
        let claims = r#"{"iss":"one","sub":"ann","exp":1900000000,"video":{"room":"r"}}"#;
        assert!(verify(&keys(), &signed(claims), now()).is_ok());
        for alg in ["none", "None", "NONE", "nOnE", "", "HS384", "HS512", "RS256", "EdDSA", "hs256"]
        {
            let jwt = raw(&format!(r#"{{"alg":"{alg}"}}"#), claims, keys()[0].secret.reveal());
            assert!(verify(&keys(), &jwt, now()).is_err(), "{alg}");
            let (head, _) = jwt.rsplit_once('.').unwrap();
            assert!(verify(&keys(), &format!("{head}."), now()).is_err(), "{alg} unsigned");
        }
        for extra in [r#","crit":["b64"]"#, r#","b64":false"#] {
            let header = format!(r#"{{"alg":"HS256"{extra}}}"#);
            let jwt = raw(&header, claims, keys()[0].secret.reveal());
            assert_eq!(verify(&keys(), &jwt, now()).unwrap_err(), TokenError::BadSignature);
        }
        let kid = r#"{"alg":"HS256","kid":"../../../etc/passwd"}"#;
        assert!(verify(&keys(), &raw(kid, claims, "guess"), now()).is_err());
    }

    #[test]
    fn a_foreign_key_or_issuer_is_refused() {
        let mut pair = keys().remove(0);
        pair.secret = Private::new("another".into());
        let jwt = issue(&pair, &token(), Duration::from_secs(600), now());
        assert_eq!(verify(&keys(), &jwt, now()).unwrap_err(), TokenError::BadSignature);
        // Signed by the second key while it names the first.
        let mut swapped = keys().remove(1);
        swapped.key = "one".into();
        let jwt = issue(&swapped, &token(), Duration::from_secs(600), now());
        assert_eq!(verify(&keys(), &jwt, now()).unwrap_err(), TokenError::BadSignature);
        pair.key = "nobody".into();
        let jwt = issue(&pair, &token(), Duration::from_secs(600), now());
        assert_eq!(verify(&keys(), &jwt, now()).unwrap_err(), TokenError::UnknownKey);
        assert_eq!(verify(&[], &jwt, now()).unwrap_err(), TokenError::UnknownKey);
    }

    #[test]
    fn an_api_token_does_not_open_the_room_door() {
        for aud in [r#""bedside-api""#, r#"["x","bedside-api"]"#] {
            let jwt = signed(&format!(
                r#"{{"iss":"one","sub":"a","exp":1900000000,"aud":{aud},"video":{{"roomJoin":true,"room":"r"}}}}"#
            ));
            assert_eq!(verify(&keys(), &jwt, now()).unwrap_err(), TokenError::OtherDoor);
        }
    }

    #[test]
    fn garbage_is_refused_whatever_it_is() {
        let jwt = issue(&keys()[0], &token(), Duration::from_secs(600), now());
        for cut in 0..jwt.len() {
            assert!(verify(&keys(), &jwt[..cut], now()).is_err(), "cut at {cut}");
        }
        for index in 0..jwt.len() {
            let mut bytes = jwt.clone().into_bytes();
            bytes[index] = if bytes[index] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            // Two letters of the last tag character may mean the same bits.
            if index + 1 < jwt.len() {
                assert!(verify(&keys(), &changed, now()).is_err(), "changed at {index}");
            }
        }
        for text in ["", ".", "..", "...", "a.b.c", "é.é.é", &"x".repeat(100_000), "a.b.c.d.e"] {
            assert!(verify(&keys(), text, now()).is_err());
        }
    }

    #[test]
    fn long_names_are_refused() {
        let mut long = token();
        long.identity = Private::new("i".repeat(257));
        let jwt = issue(&keys()[0], &long, Duration::from_secs(600), now());
        assert_eq!(verify(&keys(), &jwt, now()).unwrap_err(), TokenError::TooLong);
    }

    #[test]
    fn absent_rights_have_the_documented_defaults() {
        let rights = VideoGrant::join("r").rights();
        assert_eq!(rights, Grant::default());
        let mute = VideoGrant { can_publish: Some(false), ..VideoGrant::join("r") };
        assert!(!mute.rights().publish_data);
        let data = VideoGrant { can_publish_data: Some(true), ..mute };
        assert!(data.rights().publish_data);
        let only = VideoGrant {
            can_publish_sources: vec!["microphone".into(), "unheard of".into()],
            ..VideoGrant::join("r")
        };
        assert_eq!(only.rights().sources, [Source::Microphone, Source::Unknown]);
    }

    #[test]
    fn rights_survive_a_round_trip_through_a_grant() {
        let rights = Grant {
            publish: false,
            subscribe: true,
            publish_data: true,
            sources: vec![Source::Camera, Source::ScreenAudio],
            update_own_metadata: true,
            hidden: true,
            recorder: true,
        };
        assert_eq!(VideoGrant::join("r").with_rights(&rights).rights(), rights);
    }

    #[test]
    fn a_room_s_configuration_may_come_along() {
        let with = |config: &str| {
            let jwt = signed(&format!(
                r#"{{"iss":"one","sub":"a","exp":1900000000,"roomConfig":{config}}}"#
            ));
            verify(&keys(), &jwt, now()).map(|claims| claims.settings)
        };
        let told = r#"{"maxParticipants":3,"departure_timeout":"60","metadata":"m","agents":[{}]}"#;
        let settings = with(told).unwrap();
        assert_eq!((settings.max_participants, settings.empty_timeout), (Some(3), None));
        assert_eq!(settings.departure_timeout, Some(Duration::from_secs(60)));
        assert_eq!(settings.metadata.unwrap().reveal(), "m");
        assert_eq!(with("{}"), Ok(RoomSettings::default()));
        assert_eq!(with("null"), Ok(RoomSettings::default()));
        for bad in ["[]", "7", r#"{"maxParticipants":-1}"#, r#"{"metadata":{}}"#] {
            assert_eq!(with(bad), Err(TokenError::Malformed), "{bad}");
        }
    }

    #[test]
    fn an_identity_may_come_as_the_token_id() {
        let jwt = signed(r#"{"iss":"one","jti":"bob","exp":1900000000}"#);
        assert_eq!(verify(&keys(), &jwt, now()).unwrap().identity(), "bob");
    }
}
