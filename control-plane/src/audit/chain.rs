//! The chain: each sealed row carries the SHA-256 over the row before it and its own fields.
//!
//! A row that is changed, taken out, put in or moved breaks the chain at its place. Who can write
//! to the database could chain everything anew; an *anchor* repeats the end of the chain under a
//! key that is not in the database, so that this shows too.
//!
//! What is hashed is bytes, not JSON: each field with its length in front, so that no two rows
//! look the same however their texts are cut.

use aws_lc_rs::{digest, hmac};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::KeyPair;

/// Length of a hash.
const HASH_LEN: usize = 32;

/// What the hash of a row is made with; another set of fields is another word.
const ROW_DOMAIN: &str = "bedside audit row 1";
const CHAIN_DOMAIN: &str = "bedside audit chain 1";
const ANCHOR_DOMAIN: &str = "bedside audit anchor 1";

/// A SHA-256, written as hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hash(pub [u8; HASH_LEN]);

/// Stands for the hash of a row that is gone.
pub(crate) const UNKNOWN: Hash = Hash([0; HASH_LEN]);

impl Hash {
    /// A stored hash.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl Serialize for Hash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl std::fmt::Display for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        from_hex(&text).map(Self).ok_or_else(|| serde::de::Error::custom("64 hexadecimal digits"))
    }
}

/// Reads 64 hexadecimal digits.
pub(crate) fn from_hex(text: &str) -> Option<[u8; HASH_LEN]> {
    let mut bytes = [0; HASH_LEN];
    if text.len() != 2 * HASH_LEN || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

/// A sealed row of the audit log, as it is exported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Its place in the clinic's chain, from 1.
    pub sequence: i64,
    /// Its id.
    pub id: Uuid,
    /// Whose log.
    pub clinic: String,
    /// When, to the microsecond.
    pub at: String,
    /// Who.
    pub actor_id: String,
    /// As what.
    pub actor_kind: String,
    /// By which credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
    /// What.
    pub action: String,
    /// With which consultation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<Uuid>,
    /// And with what else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The consultations that a list showed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub listed: Vec<Uuid>,
    /// `done`, `refused`, `not_found`, `rejected`, `failed`.
    pub outcome: String,
    /// From where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The request's id, which the logs have too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// The hash of the row before it.
    pub previous: Hash,
    /// The hash of that and of this row.
    pub hash: Hash,
}

/// The end of a chain at some time, signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Anchor {
    /// Whose log.
    pub clinic: String,
    /// The last row then.
    pub sequence: i64,
    /// Its hash.
    pub hash: Hash,
    /// When.
    pub at: String,
    /// The API key whose secret signs it.
    pub key: String,
    /// HMAC-SHA-256 over all of that.
    pub mac: Hash,
}

/// One line of an export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Line {
    /// A row.
    Row(Box<Record>),
    /// An anchor.
    Anchor(Box<Anchor>),
}

/// A time as it is hashed and exported.
pub(crate) fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// What stands before the first row of a clinic.
pub(crate) fn genesis(clinic: &str) -> Hash {
    let mut bytes = Vec::new();
    field(&mut bytes, Some(CHAIN_DOMAIN));
    field(&mut bytes, Some(clinic));
    sha256(&bytes)
}

/// The hash of a row that follows `previous`; its own `previous` and `hash` are not looked at.
pub(crate) fn link(previous: Hash, row: &Record) -> Hash {
    let mut bytes = Vec::with_capacity(512);
    field(&mut bytes, Some(ROW_DOMAIN));
    bytes.extend_from_slice(&previous.0);
    bytes.extend_from_slice(&row.sequence.to_be_bytes());
    bytes.extend_from_slice(row.id.as_bytes());
    field(&mut bytes, Some(&row.clinic));
    field(&mut bytes, Some(&row.at));
    field(&mut bytes, Some(&row.actor_id));
    field(&mut bytes, Some(&row.actor_kind));
    field(&mut bytes, row.credential.as_deref());
    field(&mut bytes, Some(&row.action));
    field(&mut bytes, row.session_id.map(|id| id.to_string()).as_deref());
    field(&mut bytes, row.subject.as_deref());
    let listed: Vec<String> = row.listed.iter().map(Uuid::to_string).collect();
    field(&mut bytes, Some(&listed.join(",")));
    field(&mut bytes, Some(&row.outcome));
    field(&mut bytes, row.address.as_deref());
    field(&mut bytes, row.request_id.as_deref());
    sha256(&bytes)
}

/// The signature of an anchor; its own `mac` is not looked at.
pub(crate) fn sign(pair: &KeyPair, anchor: &Anchor) -> Hash {
    let tag = hmac::sign(&anchor_key(pair), &anchor_bytes(anchor));
    Hash::read(tag.as_ref()).expect("HMAC-SHA-256 has 32 bytes")
}

/// Is the signature of an anchor right?
pub(crate) fn is_signed(pair: &KeyPair, anchor: &Anchor) -> bool {
    hmac::verify(&anchor_key(pair), &anchor_bytes(anchor), &anchor.mac.0).is_ok()
}

/// A key of its own: a signature of one door must be of no use at another.
fn anchor_key(pair: &KeyPair) -> hmac::Key {
    let secret = hmac::Key::new(hmac::HMAC_SHA256, pair.secret.reveal().as_bytes());
    let derived = hmac::sign(&secret, ANCHOR_DOMAIN.as_bytes());
    hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref())
}

fn anchor_bytes(anchor: &Anchor) -> Vec<u8> {
    let mut bytes = Vec::new();
    field(&mut bytes, Some(&anchor.clinic));
    bytes.extend_from_slice(&anchor.sequence.to_be_bytes());
    bytes.extend_from_slice(&anchor.hash.0);
    field(&mut bytes, Some(&anchor.at));
    field(&mut bytes, Some(&anchor.key));
    bytes
}

fn field(into: &mut Vec<u8>, text: Option<&str>) {
    // A length that no text has stands for "none".
    let length = text.map_or(u64::MAX, |text| text.len() as u64);
    into.extend_from_slice(&length.to_be_bytes());
    into.extend_from_slice(text.unwrap_or_default().as_bytes());
}

fn sha256(bytes: &[u8]) -> Hash {
    Hash::read(digest::digest(&digest::SHA256, bytes).as_ref()).expect("SHA-256 has 32 bytes")
}
