//! Tokens of a foreign identity service: RS256 or ES256, checked with the keys that it publishes
//! (a JWK set, RFC 7517).
//!
//! - The algorithms are ours to choose: a token's `alg` must be on the configured list, and a key
//!   only serves the one algorithm that its own form allows. What else a token's header offers
//!   (`jku`, `jwk`, `x5u`, `x5c`) is not looked at, so nothing is ever fetched for a token's sake
//!   but the one configured address.
//! - Keys are kept and renewed every few minutes, behind the requests. An unknown `kid` asks for
//!   new keys at once, but no more often than once in a while: tokens are free to make up.
//! - While the service is away its last keys count, for a day.
//! - Claims are read as JSON values and each must have its type: `exp` as a text is no "no `exp`".

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm as JwkAlgorithm, KeyOperations,
    PublicKeyUse,
};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

use crate::token::{self, ApiRole, ApiToken, Header, Verified};
use crate::{Private, text};

/// A longer token is not looked at; identity services put more into theirs than we into ours.
const MAX_TOKEN_LEN: usize = 16 * 1024;
/// The longest `kid`.
const MAX_KID_LEN: usize = 256;
/// The largest JWK set.
const MAX_SET_LEN: usize = 256 * 1024;
/// How many keys of a set are read.
const MAX_KEYS: usize = 64;
/// How many keys may claim the same `kid`.
const MAX_CANDIDATES: usize = 4;
/// How long a fetch may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// A signature algorithm of foreign tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForeignAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256; keys of 2048 to 8192 bits.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
}

impl ForeignAlgorithm {
    /// The word in `alg`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
        }
    }

    /// The algorithm with this word.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Rs256, Self::Es256].into_iter().find(|algorithm| algorithm.as_str() == word)
    }

    const fn library(self) -> Algorithm {
        match self {
            Self::Rs256 => Algorithm::RS256,
            Self::Es256 => Algorithm::ES256,
        }
    }
}

/// Where claims of foreign tokens are. A name is looked for as it is, then as a path with dots
/// (`realm_access.roles`).
#[derive(Clone, Debug)]
pub struct ClaimNames {
    /// The user's id.
    pub subject: String,
    /// The display name.
    pub name: String,
    /// A role, or a list of roles.
    pub role: String,
    /// The clinic.
    pub clinic: String,
}

impl Default for ClaimNames {
    fn default() -> Self {
        Self {
            subject: "sub".to_owned(),
            name: "name".to_owned(),
            role: "role".to_owned(),
            clinic: "clinic".to_owned(),
        }
    }
}

/// Whose tokens are taken, and how they are read.
#[derive(Clone, Debug)]
pub struct JwksConfig {
    /// Where the keys are published.
    pub url: String,
    /// What `iss` must be.
    pub issuer: String,
    /// What `aud` must be, or name.
    pub audience: String,
    /// What `alg` may be.
    pub algorithms: Vec<ForeignAlgorithm>,
    /// Where the claims are.
    pub claims: ClaimNames,
    /// Their words for our roles, beside our own words.
    pub roles: BTreeMap<String, ApiRole>,
    /// The clinic of tokens that name none; without it they are refused.
    pub clinic: Option<String>,
    /// How old keys may become before they are renewed, behind the requests.
    pub refresh_after: Duration,
    /// How long after a fetch an unknown `kid` may cause another one.
    pub fetch_pause: Duration,
    /// How long keys count that could not be renewed.
    pub stale_for: Duration,
    /// How far clocks may differ.
    pub leeway: Duration,
}

impl Default for JwksConfig {
    fn default() -> Self {
        Self {
            url: String::new(),
            issuer: String::new(),
            audience: String::new(),
            algorithms: vec![ForeignAlgorithm::Rs256, ForeignAlgorithm::Es256],
            claims: ClaimNames::default(),
            roles: BTreeMap::new(),
            clinic: None,
            refresh_after: Duration::from_secs(300),
            fetch_pause: Duration::from_secs(30),
            stale_for: Duration::from_secs(24 * 3600),
            leeway: Duration::from_secs(30),
        }
    }
}

/// Why a foreign token is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ForeignError {
    /// It is not valid. Nothing says why.
    Invalid,
    /// There are no keys to check it with.
    Unavailable,
}

/// One published key, good for one algorithm.
#[derive(Clone)]
struct Key {
    kid: Option<String>,
    algorithm: ForeignAlgorithm,
    key: DecodingKey,
}

#[derive(Default)]
struct Known {
    keys: Arc<Vec<Key>>,
    fetched: Option<Instant>,
    tried: Option<Instant>,
}

/// The keys of the identity service.
pub(crate) struct Jwks {
    config: JwksConfig,
    http: reqwest::Client,
    known: Mutex<Known>,
    /// One fetch at a time; those who wait for it use what it brought.
    fetching: tokio::sync::Mutex<()>,
}

impl Jwks {
    pub(crate) fn new(config: JwksConfig) -> Result<Self, reqwest::Error> {
        crate::crypto::use_one();
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(2))
            .timeout(FETCH_TIMEOUT)
            .build()?;
        Ok(Self { config, http, known: Mutex::default(), fetching: tokio::sync::Mutex::default() })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks a token and reads it as one of ours.
    pub(crate) async fn verify(
        self: &Arc<Self>,
        jwt: &str,
        header: &Header,
        now: DateTime<Utc>,
    ) -> Result<Verified, ForeignError> {
        let algorithm = ForeignAlgorithm::parse(&header.alg).ok_or(ForeignError::Invalid)?;
        let known_type = header.typ.as_deref().is_none_or(|typ| {
            ["jwt", "at+jwt", "application/at+jwt"].iter().any(|t| t.eq_ignore_ascii_case(typ))
        });
        let kid = header.kid.as_deref();
        if jwt.len() > MAX_TOKEN_LEN
            || !self.config.algorithms.contains(&algorithm)
            || !known_type
            || kid.is_some_and(|kid| kid.is_empty() || kid.len() > MAX_KID_LEN)
        {
            return Err(ForeignError::Invalid);
        }
        for key in self.candidates(kid, algorithm).await? {
            if let Some(claims) = claims_signed_by(&key, jwt) {
                return self.read(jwt, &claims, now).ok_or(ForeignError::Invalid);
            }
        }
        Err(ForeignError::Invalid)
    }

    /// The keys that may have signed it, fetched first where that may help.
    async fn candidates(
        self: &Arc<Self>,
        kid: Option<&str>,
        algorithm: ForeignAlgorithm,
    ) -> Result<Vec<Key>, ForeignError> {
        let now = Instant::now();
        let (keys, age) = self.keys(now);
        let fitting = fitting(&keys, kid, algorithm);
        if !fitting.is_empty() && age.is_some_and(|age| age <= self.config.stale_for) {
            if age.is_some_and(|age| age > self.config.refresh_after) && self.may_fetch(now) {
                let jwks = Arc::clone(self);
                tokio::spawn(async move { jwks.fetch().await });
            }
            return Ok(fitting);
        }
        self.fetch().await;
        let (keys, age) = self.keys(Instant::now());
        if age.is_none_or(|age| age > self.config.stale_for) {
            return Err(ForeignError::Unavailable);
        }
        Ok(self::fitting(&keys, kid, algorithm))
    }

    fn keys(&self, now: Instant) -> (Arc<Vec<Key>>, Option<Duration>) {
        let known = self.known();
        let age = known.fetched.map(|at| now.saturating_duration_since(at));
        (Arc::clone(&known.keys), age)
    }

    fn may_fetch(&self, now: Instant) -> bool {
        let known = self.known();
        // The very first keys are waited for more eagerly.
        let pause = match known.fetched {
            Some(_) => self.config.fetch_pause,
            None => self.config.fetch_pause / 10,
        };
        known.tried.is_none_or(|tried| now.saturating_duration_since(tried) >= pause)
    }

    /// Renews the keys, unless that was tried a moment ago. A failure leaves the old ones.
    async fn fetch(&self) {
        let _one = self.fetching.lock().await;
        let now = Instant::now();
        if !self.may_fetch(now) {
            return;
        }
        self.known().tried = Some(now);
        match self.fetch_set().await {
            Ok(keys) => {
                tracing::info!(keys = keys.len(), "the identity service's keys are here");
                let mut known = self.known();
                known.keys = Arc::new(keys);
                known.fetched = Some(Instant::now());
            }
            Err(reason) => {
                tracing::warn!(reason, "the identity service's keys could not be fetched");
            }
        }
    }

    async fn fetch_set(&self) -> Result<Vec<Key>, &'static str> {
        let answer = self.http.get(&self.config.url).header("accept", "application/json").send();
        let mut answer = answer.await.map_err(|_| "no answer")?;
        if !answer.status().is_success() {
            return Err("another status than 2xx");
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|_| "the answer broke off")? {
            if body.len() + chunk.len() > MAX_SET_LEN {
                return Err("the answer is too large");
            }
            body.extend_from_slice(&chunk);
        }
        read_set(&body).ok_or("no usable key in the answer")
    }

    /// Reads the claims of a token whose signature is right.
    fn read(&self, jwt: &str, claims: &Value, now: DateTime<Utc>) -> Option<Verified> {
        let config = &self.config;
        let expires_at = token::life(claims, config.leeway, now)?;
        let issuer = claims.get("iss")?.as_str()?;
        if issuer != config.issuer || !names(claims.get("aud")?, &config.audience) {
            return None;
        }
        let user_id = claim(claims, &config.claims.subject)?.as_str()?;
        let clinic = match claim(claims, &config.claims.clinic) {
            Some(clinic) => clinic.as_str()?,
            None => config.clinic.as_deref()?,
        };
        let name = claim(claims, &config.claims.name).and_then(Value::as_str);
        if !text::is_id(user_id) || !text::is_id(clinic) {
            return None;
        }
        let token = ApiToken {
            user_id: user_id.to_owned(),
            name: name.filter(|name| text::is_name(name)).map(|n| Private::new(n.to_owned())),
            role: self.role(claim(claims, &config.claims.role)?)?,
            clinic: clinic.to_owned(),
            session: None,
            link: None,
            expires_at,
        };
        let id = claims.get("jti").and_then(Value::as_str);
        Some(Verified { token, id: token::id_of(jwt, id) })
    }

    /// The strongest claim to treat or be treated first: who is a doctor and an administrator
    /// acts as the doctor. The role of a guest is made by links alone.
    fn role(&self, claim: &Value) -> Option<ApiRole> {
        const ORDER: [ApiRole; 5] =
            [ApiRole::Doctor, ApiRole::Admin, ApiRole::Service, ApiRole::Auditor, ApiRole::Patient];
        let ours = |word: &Value| {
            let word = word.as_str()?;
            let own = || ORDER.into_iter().find(|role| role.as_str().eq_ignore_ascii_case(word));
            self.config.roles.get(word).copied().or_else(own)
        };
        let roles: Vec<ApiRole> = match claim {
            Value::Array(words) => words.iter().filter_map(ours).collect(),
            word => ours(word).into_iter().collect(),
        };
        ORDER.into_iter().find(|role| roles.contains(role))
    }
}

/// The keys that may have signed a token with this `kid` by this algorithm. A token without one
/// is checked only where there is no choice.
fn fitting(keys: &[Key], kid: Option<&str>, algorithm: ForeignAlgorithm) -> Vec<Key> {
    let fits = |key: &&Key| {
        key.algorithm == algorithm && kid.is_none_or(|kid| key.kid.as_deref() == Some(kid))
    };
    let found: Vec<Key> = keys.iter().filter(fits).take(MAX_CANDIDATES).cloned().collect();
    if kid.is_none() && found.len() != 1 { Vec::new() } else { found }
}

/// The usable keys of a JWK set; none if there is no such key.
fn read_set(json: &[u8]) -> Option<Vec<Key>> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<Value>,
    }
    let set: Set = serde_json::from_slice(json).ok()?;
    let keys: Vec<Key> = set.keys.iter().take(MAX_KEYS).filter_map(read_key).collect();
    (!keys.is_empty()).then_some(keys)
}

fn read_key(json: &Value) -> Option<Key> {
    // A key that the library does not know is one that we do not use.
    let jwk = Jwk::deserialize(json).ok()?;
    let common = &jwk.common;
    let (algorithm, named) = match &jwk.algorithm {
        AlgorithmParameters::RSA(rsa) => {
            let bytes = URL_SAFE_NO_PAD.decode(rsa.n.trim_end_matches('=')).ok()?;
            let bits = bytes.iter().skip_while(|byte| **byte == 0).count() * 8;
            if !(2048..=8192).contains(&bits) {
                return None;
            }
            (ForeignAlgorithm::Rs256, JwkAlgorithm::RS256)
        }
        AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P256 => {
            (ForeignAlgorithm::Es256, JwkAlgorithm::ES256)
        }
        // A shared secret in a public set would let anybody sign.
        _ => return None,
    };
    let signs = common.public_key_use.as_ref().is_none_or(|u| *u == PublicKeyUse::Signature);
    let verifies = common
        .key_operations
        .as_ref()
        .is_none_or(|operations| operations.contains(&KeyOperations::Verify));
    let same = common.key_algorithm.is_none_or(|algorithm| algorithm == named);
    if !signs || !verifies || !same {
        return None;
    }
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    Some(Key { kid: common.key_id.clone(), algorithm, key })
}

fn claims_signed_by(key: &Key, jwt: &str) -> Option<Value> {
    let (message, signature) = jwt.rsplit_once('.')?;
    let algorithm = key.algorithm.library();
    let verified = jsonwebtoken::crypto::verify(signature, message.as_bytes(), &key.key, algorithm);
    if !verified.is_ok_and(|right| right) {
        return None;
    }
    let (_, claims) = message.split_once('.')?;
    let json = URL_SAFE_NO_PAD.decode(claims).ok()?;
    serde_json::from_slice::<Value>(&json).ok().filter(Value::is_object)
}

/// A claim by its name, or by a path with dots.
fn claim<'a>(claims: &'a Value, name: &str) -> Option<&'a Value> {
    claims.get(name).or_else(|| name.split('.').try_fold(claims, |at, part| at.get(part)))
}

/// Is it this text, or a list with this text in it?
fn names(claim: &Value, wanted: &str) -> bool {
    match claim {
        Value::String(text) => text == wanted,
        Value::Array(list) => list.iter().any(|item| item.as_str() == Some(wanted)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => false,
    }
}

#[cfg(test)]
mod tests;
