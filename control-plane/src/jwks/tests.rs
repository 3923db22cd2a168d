//! Tokens of a foreign identity service, good and hostile, against keys served over HTTP.

use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeySize, PublicKeyComponents};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use serde_json::json;

use super::*;
use crate::testing::{Database, World, path};

/// Somebody who signs.
enum Signer {
    Rsa(Box<RsaKeyPair>),
    Ec(Box<EcdsaKeyPair>),
}

impl Signer {
    fn rsa() -> Self {
        Self::Rsa(Box::new(RsaKeyPair::generate(KeySize::Rsa2048).expect("a key")))
    }

    fn ec() -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
        Self::Ec(Box::new(pair))
    }

    fn jwk(&self, kid: &str) -> Value {
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match self {
            Self::Rsa(pair) => {
                let parts = PublicKeyComponents::<Vec<u8>>::from(pair.public_key());
                json!({"kty": "RSA", "use": "sig", "alg": "RS256", "kid": kid,
                    "n": part(&parts.n), "e": part(&parts.e)})
            }
            Self::Ec(pair) => {
                let point = pair.public_key().as_ref();
                json!({"kty": "EC", "crv": "P-256", "kid": kid,
                    "x": part(&point[1..33]), "y": part(&point[33..])})
            }
        }
    }

    fn alg(&self) -> &'static str {
        match self {
            Self::Rsa(_) => "RS256",
            Self::Ec(_) => "ES256",
        }
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(header), part(claims));
        let random = SystemRandom::new();
        let signature = match self {
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message.as_bytes(), &mut signature)
                    .expect("signs");
                signature
            }
            Self::Ec(pair) => {
                pair.sign(&random, message.as_bytes()).expect("signs").as_ref().to_vec()
            }
        };
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn token(&self, kid: &str, claims: &Value) -> String {
        self.sign(&json!({"alg": self.alg(), "typ": "JWT", "kid": kid}), claims)
    }
}

/// An identity service on a port of its own.
struct Service {
    url: String,
    set: Arc<Mutex<String>>,
    status: Arc<AtomicU16>,
    asked: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Service {
    async fn start(keys: &[Value]) -> Self {
        let set = Arc::new(Mutex::new(json!({"keys": keys}).to_string()));
        let (status, asked) = (Arc::new(AtomicU16::new(200)), Arc::new(AtomicU64::new(0)));
        let state = (Arc::clone(&set), Arc::clone(&status), Arc::clone(&asked));
        let answer = move || {
            let (set, status, asked) = state.clone();
            async move {
                asked.fetch_add(1, Ordering::Relaxed);
                let status = axum::http::StatusCode::from_u16(status.load(Ordering::Relaxed));
                let headers = [("location", "/elsewhere")];
                (status.expect("a status"), headers, set.lock().expect("no panic").clone())
            }
        };
        let elsewhere = Arc::clone(&set);
        let router = axum::Router::new().route("/keys", axum::routing::get(answer)).route(
            "/elsewhere",
            axum::routing::get(move || async move { elsewhere.lock().expect("no panic").clone() }),
        );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/keys", listener.local_addr().expect("an address"));
        let serving = axum::serve(listener, router);
        let task = tokio::spawn(async move { serving.await.expect("serves") });
        Self { url, set, status, asked, task }
    }

    fn publish(&self, keys: &[Value]) {
        *self.set.lock().expect("no panic") = json!({"keys": keys}).to_string();
    }

    fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    fn config(&self) -> JwksConfig {
        JwksConfig {
            url: self.url.clone(),
            issuer: "https://id.example".to_owned(),
            audience: "bedside".to_owned(),
            ..JwksConfig::default()
        }
    }
}

fn claims() -> Value {
    json!({"iss": "https://id.example", "aud": "bedside", "sub": "doc", "role": "doctor",
        "clinic": "demo", "name": "Dr. Osei", "exp": Utc::now().timestamp() + 600})
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().expect("an object").remove(name);
    claims
}

async fn check(jwks: &Arc<Jwks>, jwt: &str) -> Result<Verified, ForeignError> {
    let header = token::header(jwt).ok_or(ForeignError::Invalid)?;
    jwks.verify(jwt, &header, Utc::now()).await
}

fn asking(config: JwksConfig) -> Arc<Jwks> {
    Arc::new(Jwks::new(config).expect("a client"))
}

#[tokio::test]
async fn tokens_of_both_algorithms_are_callers() {
    let (rsa, ec) = (Signer::rsa(), Signer::ec());
    let service = Service::start(&[rsa.jwk("one"), ec.jwk("two")]).await;
    let config = service.config();
    let world = World::with(Database::sqlite(), |c| c.jwks = Some(config)).await;
    let id = world.session().await;
    for (signer, kid) in [(&rsa, "one"), (&ec, "two")] {
        let (status, seen) = world.get(&path(id, ""), &signer.token(kid, &claims())).await;
        assert_eq!((status.as_u16(), &seen["doctor"]["id"]), (200, &json!("doc")));
        let stranger = signer.token(kid, &with("sub", json!("other")));
        assert_eq!(world.get(&path(id, ""), &stranger).await.0.as_u16(), 403);
        let foreign = signer.token(kid, &with("clinic", json!("south")));
        assert_eq!(world.get(&path(id, ""), &foreign).await.0.as_u16(), 404);
    }
    // Our own tokens go on beside them.
    assert_eq!(world.get(&path(id, ""), &crate::testing::doctor()).await.0.as_u16(), 200);
    assert_eq!(service.asked(), 1, "one fetch serves them all");
}

#[tokio::test]
async fn a_public_key_is_no_shared_secret() {
    let (rsa, ec) = (Signer::rsa(), Signer::ec());
    let service = Service::start(&[rsa.jwk("one"), ec.jwk("two")]).await;
    let config = service.config();
    let world = World::with(Database::sqlite(), |c| c.jwks = Some(config)).await;
    let id = world.session().await;
    let Signer::Rsa(pair) = &rsa else { unreachable!("it is") };
    let modulus = PublicKeyComponents::<Vec<u8>>::from(pair.public_key()).n;
    let der = pair.public_key().as_ref().to_vec();
    let jwk = rsa.jwk("one").to_string().into_bytes();
    for secret in [modulus, der, jwk, Vec::new()] {
        for alg in ["HS256", "HS384", "HS512", "RS256", "none", "None", "NONE", "nOnE", ""] {
            let header = json!({"alg": alg, "typ": "JWT", "kid": "one"});
            let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
            let message = format!("{}.{}", part(&header), part(&claims()));
            let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &secret);
            let tag = aws_lc_rs::hmac::sign(&key, message.as_bytes());
            for tag in [URL_SAFE_NO_PAD.encode(tag.as_ref()), String::new()] {
                let (status, _) = world.get(&path(id, ""), &format!("{message}.{tag}")).await;
                assert_eq!(status.as_u16(), 401, "{alg}");
            }
        }
    }
    // A key serves its own algorithm only, whatever the header says.
    let jwks = asking(service.config());
    for (signer, kid, alg) in
        [(&rsa, "two", "ES256"), (&ec, "one", "RS256"), (&rsa, "two", "RS256")]
    {
        let header = json!({"alg": alg, "kid": kid});
        let jwt = signer.sign(&header, &claims());
        assert_eq!(check(&jwks, &jwt).await.err(), Some(ForeignError::Invalid), "{kid} {alg}");
    }
    // Only what is configured.
    let only =
        Jwks::new(JwksConfig { algorithms: vec![ForeignAlgorithm::Es256], ..service.config() });
    let only = Arc::new(only.expect("a client"));
    assert!(check(&only, &ec.token("two", &claims())).await.is_ok());
    assert!(check(&only, &rsa.token("one", &claims())).await.is_err());
}

#[tokio::test]
async fn keys_that_a_token_brings_along_are_not_looked_at() {
    let (good, evil) = (Signer::rsa(), Signer::rsa());
    let service = Service::start(&[good.jwk("one")]).await;
    let trap = Service::start(&[evil.jwk("evil")]).await;
    let jwks = asking(service.config());
    let header = |kid: &str| {
        json!({"alg": "RS256", "kid": kid, "jku": trap.url, "x5u": trap.url,
            "jwk": evil.jwk("evil"), "x5c": ["AAAA"]})
    };
    for kid in ["one", "evil"] {
        assert!(check(&jwks, &evil.sign(&header(kid), &claims())).await.is_err(), "{kid}");
    }
    assert!(check(&jwks, &good.sign(&header("one"), &claims())).await.is_ok());
    assert_eq!(trap.asked(), 0, "nothing is fetched because a token says so");
}

#[tokio::test]
async fn a_kid_is_a_name_and_nothing_more() {
    let (one, two) = (Signer::rsa(), Signer::ec());
    let service = Service::start(&[one.jwk("one"), two.jwk("two")]).await;
    let jwks = asking(service.config());
    let long = "k".repeat(1 << 20);
    let names = ["../../../../dev/null", "' OR 1=1 --", "http://127.0.0.1:1/", "", "ONE", &long];
    for kid in names {
        assert!(check(&jwks, &one.token(kid, &claims())).await.is_err());
    }
    for kid in [json!(1), json!(["one"]), json!({"one": 1})] {
        let header = json!({"alg": "RS256", "kid": kid});
        assert!(check(&jwks, &one.sign(&header, &claims())).await.is_err(), "{kid}");
    }
    assert_eq!(service.asked(), 1, "made-up names do not make it ask again and again");
    // Without a name only where there is no choice.
    let bare = json!({"alg": "RS256"});
    assert!(check(&jwks, &one.sign(&bare, &claims())).await.is_ok());
    let crowded = Service::start(&[one.jwk("one"), Signer::rsa().jwk("three")]).await;
    let jwks = asking(crowded.config());
    assert!(check(&jwks, &one.sign(&bare, &claims())).await.is_err());
}

#[tokio::test]
async fn claims_must_be_there_and_of_their_type() {
    let signer = Signer::ec();
    let service = Service::start(&[signer.jwk("k")]).await;
    let jwks = asking(service.config());
    let now = Utc::now().timestamp();
    let good = [
        claims(),
        with("aud", json!(["other", "bedside"])),
        with("exp", json!(now as f64 + 600.5)),
        with("exp", json!(now - 25)),
        with("nbf", json!(now + 25)),
        with("role", json!(["nurse", "Doctor"])),
        with("name", json!(7)),
        with("jti", json!("an id")),
    ];
    for claims in good {
        let read = check(&jwks, &signer.token("k", &claims)).await.expect("valid");
        assert_eq!((read.token.user_id.as_str(), read.token.role), ("doc", ApiRole::Doctor));
        assert_eq!((read.token.session, read.token.link), (None, None));
    }
    let far = json!("9".repeat(400));
    let bad = [
        // A time of another type is no time, and no time is no token (CVE-2026-25537's class).
        with("exp", json!((now + 600).to_string())),
        with("exp", json!([now + 600])),
        with("exp", json!({"at": now + 600})),
        with("exp", json!(true)),
        with("exp", Value::Null),
        with("exp", far),
        with("exp", json!(1e300)),
        with("exp", json!(i64::MAX)),
        with("exp", json!(now - 31)),
        with("nbf", json!((now - 600).to_string())),
        with("nbf", Value::Null),
        with("nbf", json!(now + 32)),
        with("iat", json!("now")),
        with("iat", json!(now + 600)),
        with("iss", json!("https://id.example/")),
        with("iss", json!(["https://id.example"])),
        with("aud", json!("other")),
        with("aud", json!([])),
        with("aud", json!({"bedside": true})),
        with("role", json!("root")),
        with("role", json!("guest")),
        with("role", json!([])),
        with("role", json!({"doctor": true})),
        with("sub", json!("")),
        with("sub", json!("a\nb")),
        with("sub", json!(7)),
        with("clinic", json!("")),
        with("clinic", json!(["demo"])),
        without("exp"),
        without("iss"),
        without("aud"),
        without("sub"),
        without("role"),
        without("clinic"),
        json!([claims()]),
        json!("claims"),
    ];
    for claims in bad {
        assert!(check(&jwks, &signer.token("k", &claims)).await.is_err(), "{claims}");
    }
}

#[tokio::test]
async fn headers_that_change_how_a_token_is_read_are_refused() {
    let signer = Signer::ec();
    let service = Service::start(&[signer.jwk("k")]).await;
    let jwks = asking(service.config());
    for header in [
        json!({"alg": "ES256", "kid": "k", "crit": ["x"], "x": 1}),
        json!({"alg": "ES256", "kid": "k", "b64": false, "crit": ["b64"]}),
        json!({"alg": "ES256", "kid": "k", "cty": "JWT"}),
        json!({"alg": "ES256", "kid": "k", "zip": "DEF"}),
        json!({"alg": "ES256", "kid": "k", "typ": "logout+jwt"}),
        json!({"alg": "es256", "kid": "k"}),
        json!({"alg": ["ES256"], "kid": "k"}),
        json!({"kid": "k"}),
    ] {
        assert!(check(&jwks, &signer.sign(&header, &claims())).await.is_err(), "{header}");
    }
}

#[tokio::test]
async fn claims_are_found_where_the_configuration_says() {
    let signer = Signer::rsa();
    let service = Service::start(&[signer.jwk("k")]).await;
    let jwks = asking(JwksConfig {
        claims: ClaimNames {
            subject: "user.id".to_owned(),
            role: "realm_access.roles".to_owned(),
            clinic: "https://clinic.example/tenant".to_owned(),
            ..ClaimNames::default()
        },
        roles: [("arzt".to_owned(), ApiRole::Doctor), ("chef".to_owned(), ApiRole::Admin)].into(),
        clinic: Some("main".to_owned()),
        ..service.config()
    });
    let mut claims = without("clinic");
    claims["user"] = json!({"id": "u-7"});
    claims["realm_access"] = json!({"roles": ["offline", "chef", "arzt"]});
    let read = check(&jwks, &signer.token("k", &claims)).await.expect("valid").token;
    assert_eq!((read.user_id.as_str(), read.clinic.as_str()), ("u-7", "main"));
    assert_eq!(read.role, ApiRole::Doctor, "who treats acts as the doctor");
    claims["https://clinic.example/tenant"] = json!("branch");
    claims["realm_access"] = json!({"roles": ["chef"]});
    let read = check(&jwks, &signer.token("k", &claims)).await.expect("valid").token;
    assert_eq!((read.clinic.as_str(), read.role), ("branch", ApiRole::Admin));
}

/// Tokens of `signer` are (not) taken at last.
async fn until(jwks: &Arc<Jwks>, jwt: &str, taken: bool) {
    let late = Instant::now() + Duration::from_secs(60);
    while check(jwks, jwt).await.is_ok() != taken {
        assert!(Instant::now() < late, "taken is not {taken}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn an_unknown_name_asks_for_keys_once_in_a_while() {
    let (old, new) = (Signer::rsa(), Signer::ec());
    let service = Service::start(&[old.jwk("old")]).await;
    let hour = Duration::from_secs(3_600);
    let slow = asking(JwksConfig { fetch_pause: hour, ..service.config() });
    let quick = asking(JwksConfig { fetch_pause: Duration::ZERO, ..service.config() });
    for jwks in [&slow, &quick] {
        assert!(check(jwks, &old.token("old", &claims())).await.is_ok());
    }
    service.publish(&[old.jwk("old"), new.jwk("new")]);
    // Too soon after the last fetch, however often it is tried.
    let asked = service.asked();
    for _ in 0..50 {
        assert!(check(&slow, &new.token("new", &claims())).await.is_err());
    }
    assert_eq!(service.asked(), asked);
    assert!(check(&quick, &new.token("new", &claims())).await.is_ok(), "a new name is asked for");
}

#[tokio::test]
async fn keys_rotate_and_stale_ones_serve_while_the_service_is_away() {
    let (old, new) = (Signer::rsa(), Signer::ec());
    let service = Service::start(&[old.jwk("old"), new.jwk("new")]).await;
    let ms = Duration::from_millis;
    let often = JwksConfig { refresh_after: ms(1), fetch_pause: ms(1), ..service.config() };
    let jwks = asking(often.clone());
    assert!(check(&jwks, &old.token("old", &claims())).await.is_ok());
    service.publish(&[new.jwk("new")]);
    // Renewed behind the requests.
    until(&jwks, &old.token("old", &claims()), false).await;
    for status in [500, 404, 302] {
        service.status.store(status, Ordering::Relaxed);
        for _ in 0..5 {
            tokio::time::sleep(ms(5)).await;
            assert!(check(&jwks, &new.token("new", &claims())).await.is_ok(), "while {status}");
        }
    }
    service.status.store(200, Ordering::Relaxed);
    let short = asking(JwksConfig { stale_for: ms(50), ..often });
    until(&short, &new.token("new", &claims()), true).await;
    service.status.store(500, Ordering::Relaxed);
    until(&short, &new.token("new", &claims()), false).await;
    let gone = check(&short, &new.token("new", &claims())).await.err();
    assert_eq!(gone, Some(ForeignError::Unavailable), "not for ever");
    service.status.store(200, Ordering::Relaxed);
    until(&short, &new.token("new", &claims()), true).await;
}

#[tokio::test]
async fn without_keys_the_answer_is_try_again() {
    let signer = Signer::rsa();
    let service = Service::start(&[]).await;
    let config = service.config();
    let world = World::with(Database::sqlite(), |c| c.jwks = Some(config)).await;
    let id = world.session().await;
    let token = signer.token("k", &claims());
    assert_eq!(world.get(&path(id, ""), &token).await.0.as_u16(), 503);
    assert_eq!(world.get(&path(id, ""), &crate::testing::doctor()).await.0.as_u16(), 200);
    // Without a configured service its algorithms are unknown.
    let world = World::new(Database::sqlite()).await;
    assert_eq!(world.get(&path(id, ""), &token).await.0.as_u16(), 401);
}

#[test]
fn only_usable_keys_of_a_set_are_read() {
    let (rsa, ec) = (Signer::rsa(), Signer::ec());
    let set = |keys: &[Value]| read_set(json!({"keys": keys}).to_string().as_bytes());
    let mut encryption = rsa.jwk("enc");
    encryption["use"] = json!("enc");
    let mut other = rsa.jwk("other");
    other["alg"] = json!("RS512");
    let mut signing = ec.jwk("signing");
    signing["key_ops"] = json!(["sign"]);
    let short = json!({"kty": "RSA", "kid": "short", "e": "AQAB",
        "n": URL_SAFE_NO_PAD.encode([0xff; 128])});
    let secret = json!({"kty": "oct", "kid": "secret", "k": "AAAA"});
    let unknown = json!({"kty": "PQ", "kid": "later"});
    let odd = [encryption, other, signing, short, secret, unknown, json!(7), json!({})];
    assert!(set(&odd).is_none());
    let mut mixed = odd.to_vec();
    mixed.push(ec.jwk("good"));
    let read = set(&mixed).expect("one of them");
    assert_eq!(read.len(), 1);
    assert_eq!(read[0].kid.as_deref(), Some("good"));
    let many: Vec<Value> = (0..200).map(|n| ec.jwk(&n.to_string())).collect();
    assert_eq!(set(&many).expect("the first ones").len(), MAX_KEYS);
    let text = json!({"keys": [rsa.jwk("a")]}).to_string();
    for end in 0..text.len() {
        assert!(read_set(&text.as_bytes()[..end]).is_none());
    }
}

#[tokio::test]
async fn no_truncation_and_no_flipped_bit_passes() {
    let signer = Signer::ec();
    let service = Service::start(&[signer.jwk("k")]).await;
    let jwks = asking(service.config());
    let jwt = signer.token("k", &claims());
    for end in 0..jwt.len() {
        assert!(check(&jwks, &jwt[..end]).await.is_err());
    }
    for at in 0..jwt.len() {
        let mut bytes = jwt.clone().into_bytes();
        bytes[at] ^= 1;
        let Ok(flipped) = String::from_utf8(bytes) else { continue };
        assert!(check(&jwks, &flipped).await.is_err(), "accepted with byte {at} changed");
    }
    let huge = signer.token("k", &with("more", json!("x".repeat(20_000))));
    assert!(check(&jwks, &huge).await.is_err());
    assert!(check(&jwks, &"a".repeat(1 << 20)).await.is_err());
}
