//! Who may ask for what: credentials for a limited time, and nonces that nobody has to remember
//! (RFC 8489 §9.2).
//!
//! A username says until when it is good and for whom, and its password is an HMAC over it, so
//! that nothing is stored. A nonce is a time and an HMAC over that time and the client's address:
//! good from there and for an hour, and again nothing is stored for strangers.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use aws_lc_rs::{constant_time, digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use md5::{Digest as _, Md5};

use crate::message::{Integrity, Key, Message, attribute};

/// Begins nonces that say which security features we have (RFC 8489 §9.2).
const COOKIE: &[u8] = b"obMatJos2";
/// The features after it: bit 0, password algorithms.
const FEATURES: &[u8] = b"AAAB";
/// PASSWORD-ALGORITHMS: SHA-256 rather than MD5 (RFC 8489 §18.5).
pub(crate) const ALGORITHMS: [u8; 8] = [0, 2, 0, 0, 0, 1, 0, 0];
/// PASSWORD-ALGORITHM, SHA-256.
const SHA_256: &[u8] = &[0, 2, 0, 0];
/// PASSWORD-ALGORITHM, MD5.
const MD5: &[u8] = &[0, 1, 0, 0];
/// Nonces count time in steps of this many seconds…
const STEP: u64 = 16;
/// …and are good for this many of them: an hour (RFC 8656 §5).
const STEPS: u16 = 225;
/// Longer usernames are none (RFC 8489 §14.3).
const MAX_USERNAME: usize = 508;

/// What credentials are made and checked with.
#[derive(Clone)]
pub struct Secret(hmac::Key);

impl Secret {
    /// From random bytes; 32 are enough.
    pub fn new(bytes: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// Another secret for another purpose.
    pub(crate) fn derive(&self, purpose: &str) -> hmac::Key {
        // Usernames begin with a digit, so that no password is such a key.
        hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&self.0, purpose.as_bytes()).as_ref())
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

/// What a long-term password is hashed with (RFC 8489 §9.2.2, §18.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasswordAlgorithm {
    /// Who names none means this.
    Md5,
    /// SHA-256.
    Sha256,
}

/// The key of long-term credentials (RFC 8489 §9.2.2).
pub fn long_term_key(
    algorithm: PasswordAlgorithm,
    username: &str,
    realm: &str,
    password: &str,
) -> Key {
    let text = format!("{username}:{realm}:{password}");
    Key::new(match algorithm {
        PasswordAlgorithm::Md5 => Md5::digest(text.as_bytes()).to_vec(),
        PasswordAlgorithm::Sha256 => {
            digest::digest(&digest::SHA256, text.as_bytes()).as_ref().to_vec()
        }
    })
}

/// Who signed a request.
#[derive(Clone, Debug)]
pub(crate) struct Signer<'m> {
    pub(crate) participant: &'m str,
    /// The credential is good until then (unix seconds).
    pub(crate) expires: u64,
    pub(crate) integrity: Integrity,
    pub(crate) key: Key,
}

/// Why a request is not taken for anybody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// 400: it cannot be checked.
    BadRequest,
    /// 401: not signed, or not as we would.
    Unauthorized,
    /// 438: signed, but with a nonce that is too old or another client's.
    StaleNonce,
}

/// Checks requests.
#[derive(Clone, Debug)]
pub(crate) struct Checker {
    pub(crate) realm: String,
    secret: Secret,
    nonces: hmac::Key,
}

impl Checker {
    pub(crate) fn new(realm: String, secret: Secret) -> Self {
        let nonces = secret.derive("nonces");
        Self { realm, secret, nonces }
    }

    /// A nonce for this client. With `features` it tells that we know password algorithms.
    pub(crate) fn nonce(&self, unix: u64, client: SocketAddr, features: bool) -> Vec<u8> {
        let [.., a, b] = (unix / STEP).to_be_bytes();
        let time = [a, b];
        let mut bytes = [0; 8];
        for (to, from) in bytes.iter_mut().zip(time.iter().chain(&self.tag(time, client, features)))
        {
            *to = *from;
        }
        let mut nonce = Vec::with_capacity(COOKIE.len() + FEATURES.len() + 11);
        if features {
            nonce.extend_from_slice(COOKIE);
            nonce.extend_from_slice(FEATURES);
        }
        nonce.extend_from_slice(STANDARD_NO_PAD.encode(bytes).as_bytes());
        nonce
    }

    /// Was it made here, for this client, and not long ago?
    fn is_fresh(&self, unix: u64, client: SocketAddr, nonce: &[u8]) -> bool {
        let (features, rest) = split_features(nonce);
        let Ok(bytes) = STANDARD_NO_PAD.decode(rest) else { return false };
        let Some((time, tag)) = bytes.split_first_chunk::<2>() else { return false };
        let made = self.tag(*time, client, features);
        let [.., a, b] = (unix / STEP).to_be_bytes();
        let age = u16::from_be_bytes([a, b]).wrapping_sub(u16::from_be_bytes(*time));
        age <= STEPS && constant_time::verify_slices_are_equal(tag, &made).is_ok()
    }

    fn tag(&self, time: [u8; 2], client: SocketAddr, features: bool) -> [u8; 6] {
        let mut context = hmac::Context::with_key(&self.nonces);
        context.update(&time);
        context.update(&[u8::from(features)]);
        context.update(&client.port().to_be_bytes());
        match client.ip() {
            IpAddr::V4(ip) => context.update(&ip.octets()),
            IpAddr::V6(ip) => context.update(&ip.octets()),
        }
        let mut tag = [0; 6];
        for (to, from) in tag.iter_mut().zip(context.sign().as_ref()) {
            *to = *from;
        }
        tag
    }

    /// Whose request this is (RFC 8489 §9.2.4). Whether that participant is there and the
    /// credential still good is the caller's question.
    pub(crate) fn check<'m>(
        &self,
        unix: u64,
        client: SocketAddr,
        message: &Message<'m>,
    ) -> Result<Signer<'m>, Refusal> {
        let integrity = message.integrity().ok_or(Refusal::Unauthorized)?;
        let username = message.attribute(attribute::USERNAME);
        let realm = message.attribute(attribute::REALM).ok_or(Refusal::BadRequest)?;
        let nonce = message.attribute(attribute::NONCE).ok_or(Refusal::BadRequest)?;
        if username.is_none() && message.attribute(attribute::USERHASH).is_none() {
            return Err(Refusal::BadRequest);
        }
        let algorithm = algorithm(message, nonce)?;
        let username = username
            .filter(|name| name.len() <= MAX_USERNAME)
            .and_then(|name| std::str::from_utf8(name).ok())
            .ok_or(Refusal::Unauthorized)?;
        let (expires, participant) = username.split_once(':').ok_or(Refusal::Unauthorized)?;
        let expires = expires.parse().map_err(|_| Refusal::Unauthorized)?;
        let password = password(&self.secret, username);
        let key = long_term_key(algorithm, username, &self.realm, &password);
        if realm != self.realm.as_bytes() || !message.verify(&key) {
            return Err(Refusal::Unauthorized);
        }
        if !self.is_fresh(unix, client, nonce) {
            return Err(Refusal::StaleNonce);
        }
        Ok(Signer { participant, expires, integrity, key })
    }
}

/// Whether a nonce tells features, and what is behind them.
fn split_features(nonce: &[u8]) -> (bool, &[u8]) {
    let rest = nonce.strip_prefix(COOKIE).and_then(|rest| rest.strip_prefix(FEATURES));
    rest.map_or((false, nonce), |rest| (true, rest))
}

/// The algorithm that the client chose. Where we offered a choice, what it repeats of our offer
/// must be our offer, or somebody between us has weakened it.
fn algorithm(message: &Message<'_>, nonce: &[u8]) -> Result<PasswordAlgorithm, Refusal> {
    let offered = message.attribute(attribute::PASSWORD_ALGORITHMS);
    let chosen = message.attribute(attribute::PASSWORD_ALGORITHM);
    let (features, _) = split_features(nonce);
    match (features, offered, chosen) {
        (false, _, _) | (true, None, None) => Ok(PasswordAlgorithm::Md5),
        (true, Some(offered), Some(chosen)) if offered == ALGORITHMS => match chosen {
            SHA_256 => Ok(PasswordAlgorithm::Sha256),
            MD5 => Ok(PasswordAlgorithm::Md5),
            _ => Err(Refusal::BadRequest),
        },
        (true, Some(_) | None, _) => Err(Refusal::BadRequest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Class, Method, Writer};

    const NOW: u64 = 1_700_000_000;

    fn client() -> SocketAddr {
        "192.0.2.7:5000".parse().unwrap()
    }

    fn checker() -> Checker {
        Checker::new("bedside".to_owned(), Secret::new(&[7; 32]))
    }

    /// A request as a client would sign it, with one attribute left out or put in.
    struct Draft {
        username: String,
        password: String,
        realm: &'static str,
        nonce: Vec<u8>,
        integrity: Integrity,
        algorithm: PasswordAlgorithm,
        without: u16,
        with: Vec<(u16, Vec<u8>)>,
    }

    impl Draft {
        fn new() -> Self {
            let (username, password) = credential(&Secret::new(&[7; 32]), "42", NOW + 60);
            Self {
                username,
                password,
                realm: "bedside",
                nonce: checker().nonce(NOW, client(), false),
                integrity: Integrity::Sha1,
                algorithm: PasswordAlgorithm::Md5,
                without: 0,
                with: Vec::new(),
            }
        }

        fn check(&self) -> Result<(String, u64), Refusal> {
            let mut writer = Writer::new(Method::Refresh, Class::Request, [3; 12]);
            let common = [
                (attribute::USERNAME, self.username.as_bytes()),
                (attribute::REALM, self.realm.as_bytes()),
                (attribute::NONCE, &self.nonce),
            ];
            for (kind, value) in common.into_iter().filter(|(kind, _)| *kind != self.without) {
                writer = writer.attribute(kind, value);
            }
            for (kind, value) in &self.with {
                writer = writer.attribute(*kind, value);
            }
            let key = long_term_key(self.algorithm, &self.username, self.realm, &self.password);
            let bytes = writer.integrity(self.integrity, &key).finish();
            let message = Message::parse(&bytes).unwrap();
            let signer = checker().check(NOW, client(), &message)?;
            Ok((signer.participant.to_owned(), signer.expires))
        }
    }

    #[test]
    fn a_signed_request_names_its_participant() {
        for integrity in [Integrity::Sha1, Integrity::Sha256] {
            let draft = Draft { integrity, ..Draft::new() };
            assert_eq!(draft.check(), Ok(("42".to_owned(), NOW + 60)));
        }
    }

    #[test]
    fn the_key_of_rfc_8489_long_term_credentials() {
        // RFC 8489 §9.2.2: MD5 of "user:realm:pass".
        let key = long_term_key(PasswordAlgorithm::Md5, "user", "realm", "pass");
        let want = [
            0x84, 0x93, 0xFB, 0xC5, 0x3B, 0xA5, 0x82, 0xFB, 0x4C, 0x04, 0x4C, 0x45, 0x6B, 0xDC,
            0x40, 0xEB,
        ];
        let sign = |key: &Key| {
            Writer::new(Method::Refresh, Class::Request, [0; 12])
                .integrity(Integrity::Sha1, key)
                .finish()
        };
        assert_eq!(sign(&key), sign(&Key::new(want.to_vec())));
    }

    #[test]
    fn what_is_missing_is_named_as_the_rfc_says() {
        let without = |kind| Draft { without: kind, ..Draft::new() }.check();
        assert_eq!(without(attribute::USERNAME), Err(Refusal::BadRequest));
        assert_eq!(without(attribute::REALM), Err(Refusal::BadRequest));
        assert_eq!(without(attribute::NONCE), Err(Refusal::BadRequest));
        let bare = Writer::new(Method::Refresh, Class::Request, [3; 12]).finish();
        let refused = checker().check(NOW, client(), &Message::parse(&bare).unwrap());
        assert_eq!(refused.unwrap_err(), Refusal::Unauthorized);
    }

    #[test]
    fn nobody_elses_name_password_or_realm_will_do() {
        let mut other = Draft::new();
        other.username = format!("{}:43", NOW + 60);
        assert_eq!(other.check(), Err(Refusal::Unauthorized), "43 with the password of 42");
        let mut longer = Draft::new();
        longer.username = format!("{}:42", NOW + 61);
        assert_eq!(longer.check(), Err(Refusal::Unauthorized), "a second more");
        let realm = Draft { realm: "elsewhere", ..Draft::new() };
        assert_eq!(realm.check(), Err(Refusal::Unauthorized));
        for odd in ["42", ":", "x:42", "\u{0}", &"9".repeat(600)] {
            let draft = Draft { username: odd.to_owned(), ..Draft::new() };
            assert_eq!(draft.check(), Err(Refusal::Unauthorized), "{odd}");
        }
    }

    #[test]
    fn a_nonce_is_for_one_client_and_an_hour() {
        let stale = |nonce| Draft { nonce, ..Draft::new() }.check();
        let from = |unix, client| stale(checker().nonce(unix, client, false));
        assert!(from(NOW - 3_600, client()).is_ok());
        assert_eq!(from(NOW - 3_700, client()), Err(Refusal::StaleNonce));
        assert_eq!(from(NOW + 3_700, client()), Err(Refusal::StaleNonce));
        let other = SocketAddr::new(client().ip(), 5_001);
        assert_eq!(from(NOW, other), Err(Refusal::StaleNonce), "another port");
        let other = "192.0.2.8:5000".parse().unwrap();
        assert_eq!(from(NOW, other), Err(Refusal::StaleNonce), "another address");
        for odd in [&b""[..], b"obMatJos2", b"obMatJos2AAAB", b"0000", &[0xFF; 30]] {
            assert_eq!(stale(odd.to_vec()), Err(Refusal::StaleNonce));
        }
    }

    #[test]
    fn the_stronger_password_algorithm_is_taken_where_it_was_offered() {
        let offer = |chosen: &[u8]| {
            vec![
                (attribute::PASSWORD_ALGORITHMS, ALGORITHMS.to_vec()),
                (attribute::PASSWORD_ALGORITHM, chosen.to_vec()),
            ]
        };
        let nonce = checker().nonce(NOW, client(), true);
        assert!(nonce.starts_with(b"obMatJos2AAAB"));
        let draft = |algorithm, with| Draft {
            nonce: nonce.clone(),
            integrity: Integrity::Sha256,
            algorithm,
            with,
            ..Draft::new()
        };
        assert!(draft(PasswordAlgorithm::Sha256, offer(SHA_256)).check().is_ok());
        assert!(draft(PasswordAlgorithm::Md5, offer(MD5)).check().is_ok());
        assert!(draft(PasswordAlgorithm::Md5, Vec::new()).check().is_ok(), "an older client");
        let bad = |with| draft(PasswordAlgorithm::Sha256, with).check();
        assert_eq!(bad(offer(&[0, 3, 0, 0])), Err(Refusal::BadRequest), "unknown");
        assert_eq!(bad(offer(SHA_256)[1..].to_vec()), Err(Refusal::BadRequest), "no offer");
        assert_eq!(bad(offer(SHA_256)[..1].to_vec()), Err(Refusal::BadRequest), "no choice");
        let weakened = vec![
            (attribute::PASSWORD_ALGORITHMS, MD5.to_vec()),
            (attribute::PASSWORD_ALGORITHM, MD5.to_vec()),
        ];
        assert_eq!(bad(weakened), Err(Refusal::BadRequest), "not what was offered");
    }

    #[test]
    fn features_cannot_be_taken_out_of_a_nonce() {
        let nonce = checker().nonce(NOW, client(), true);
        let stripped = nonce.strip_prefix(b"obMatJos2AAAB").unwrap().to_vec();
        let draft = Draft { nonce: stripped, ..Draft::new() };
        assert_eq!(draft.check(), Err(Refusal::StaleNonce));
    }
}
