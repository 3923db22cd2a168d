//! Service keys: long-lived credentials of other services, each with its scopes.
//!
//! `bsk_` and 256 random bits, shown once; the database holds their SHA-256. An administrator
//! makes and revokes them over the API, the operator by `bedside keys` or in the configuration
//! (`auth.service_keys`), where a hash may stand instead of the key.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use aws_lc_rs::rand::SecureRandom as _;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use sqlx::types::Json;
use uuid::Uuid;

use crate::access::{Caller, Credential, NoCaller};
use crate::control::{ChangeError, Control};
use crate::permissions::{Permission, Scopes};
use crate::store::{self, KeyRow, Revocation};
use crate::token::{ApiRole, ApiToken};
use crate::{Private, text};

/// What every key begins with: a scanner that looks for leaked keys finds them by it.
pub(crate) const PREFIX: &str = "bsk_";
/// The longest key that is looked at.
const MAX_LEN: usize = 128;
/// How long what is known of a key counts without asking the database. A revocation is heard of
/// sooner, see [`revocation`](crate::revocation).
const KNOWN_FOR: Duration = Duration::from_secs(30);
/// How many keys are remembered.
const MAX_KNOWN: usize = 10_000;
/// How long other instances are told of a revoked key; its own row says it forever.
const TOLD_FOR: chrono::Duration = chrono::Duration::days(1);
/// A channel that was opened with a key that does not end is checked again after this long.
const NO_END: chrono::Duration = chrono::Duration::days(365);

/// A key to make.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// What it is called; who acts by it in the records.
    pub name: String,
    /// What it may do.
    pub scopes: Scopes,
    /// When it ends.
    pub expires_at: Option<DateTime<Utc>>,
}

/// A key that was made. This is the only time it is seen.
#[derive(Clone, Debug)]
pub struct MadeKey {
    /// Names it for revoking.
    pub id: Uuid,
    /// The key.
    pub key: Private<String>,
}

/// A key from the configuration.
#[derive(Clone, Debug)]
pub struct ConfiguredKey {
    /// Whose.
    pub clinic: String,
    /// What it is called.
    pub name: String,
    /// What it may do.
    pub scopes: Scopes,
    /// SHA-256 of the key.
    pub hash: [u8; 32],
}

/// A line of the configuration that is no key. The line may hold a secret, so it is not repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "entry {0} is not `CLINIC NAME SCOPE,SCOPE… KEY`, with a key `bsk_…` or `sha256:HEX` and known scopes"
)]
pub struct BadKey(pub usize);

impl ConfiguredKey {
    /// Reads `auth.service_keys`: one key a line (or between semicolons), `#` begins a comment.
    pub fn read_all(text: &str) -> Result<Vec<Self>, BadKey> {
        let entries = text.split(['\n', ';']).map(str::trim);
        entries
            .filter(|entry| !entry.is_empty() && !entry.starts_with('#'))
            .zip(1..)
            .map(|(entry, number)| Self::read(entry).ok_or(BadKey(number)))
            .collect()
    }

    fn read(entry: &str) -> Option<Self> {
        let mut words = entry.split_whitespace();
        let (clinic, name, scopes, key) =
            (words.next()?, words.next()?, words.next()?, words.next()?);
        let scopes = scopes.split(',').map(Permission::parse).collect::<Option<Scopes>>()?;
        let fits = words.next().is_none() && text::is_id(clinic) && text::is_id(name);
        let hash = match key.strip_prefix("sha256:") {
            Some(hex) => crate::audit::from_hex(hex)?,
            None if is_key(key) => hash(key),
            None => return None,
        };
        fits.then(|| Self { clinic: clinic.to_owned(), name: name.to_owned(), scopes, hash })
    }
}

/// Why a key was not made.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A field does not fit.
    #[error("{0}")]
    Invalid(&'static str),
    /// The database does not answer.
    #[error(transparent)]
    Change(#[from] ChangeError),
}

#[derive(Clone)]
struct Known {
    row: Arc<KeyRow>,
    at: Instant,
}

/// Keys that were seen a moment ago, by their hash.
#[derive(Default)]
pub(crate) struct KnownKeys(Mutex<HashMap<[u8; 32], Known>>);

impl KnownKeys {
    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, hash: [u8; 32], row: Arc<KeyRow>) {
        let mut known = self.lock();
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(hash, Known { row, at: Instant::now() });
    }
}

/// Has it the form of a key?
pub(crate) fn is_key(text: &str) -> bool {
    text.len() <= MAX_LEN
        && text.strip_prefix(PREFIX).is_some_and(|secret| {
            secret.len() >= 32
                && secret.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        })
}

fn hash(key: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, key.as_bytes()).as_ref());
    hash
}

impl Control {
    /// Checks a service key.
    pub(crate) async fn key_caller(&self, key: &str) -> Result<Caller, NoCaller> {
        if !is_key(key) {
            return Err(NoCaller::Unauthorized);
        }
        let hash = hash(key);
        if let Some(configured) = self.config.service_keys.iter().find(|key| key.hash == hash) {
            let name = format!("key:config:{}", configured.name);
            return Ok(caller(
                name,
                &configured.clinic,
                &configured.name,
                &configured.scopes,
                None,
            ));
        }
        let row = self.known_key(hash).await.map_err(NoCaller::Unavailable)?;
        let row = row.ok_or(NoCaller::Unauthorized)?;
        let name = format!("key:{}", row.id);
        let caller = caller(name, &row.clinic, &row.name, &row.scopes.0, row.expires_at);
        let ended = row.expires_at.is_some_and(|end| end <= store::now());
        if ended || row.revoked_at.is_some() {
            // The log hears of it: somebody still has this key.
            crate::audit::asked_by(caller.who());
            return Err(NoCaller::Unauthorized);
        }
        Ok(caller)
    }

    /// What was known a moment ago counts; so does what was known at all while the database is
    /// away.
    async fn known_key(&self, hash: [u8; 32]) -> Result<Option<Arc<KeyRow>>, ChangeError> {
        let known = self.keys.lock().get(&hash).cloned();
        if let Some(known) = &known
            && known.at.elapsed() < KNOWN_FOR
        {
            return Ok(Some(Arc::clone(&known.row)));
        }
        match self.within(self.db.key_by_hash(&hash)).await {
            Ok(Some(row)) => {
                let row = Arc::new(row);
                self.keys.remember(hash, Arc::clone(&row));
                Ok(Some(row))
            }
            Ok(None) => Ok(None),
            Err(error) => known.map(|known| Some(known.row)).ok_or(error),
        }
    }

    /// Makes a key of a clinic.
    pub(crate) async fn create_key(
        &self,
        clinic: &str,
        created_by: &str,
        new: &NewKey,
    ) -> Result<(KeyRow, MadeKey), KeyError> {
        if !text::is_id(&new.name) || !text::is_id(clinic) {
            return Err(KeyError::Invalid("name is empty, too long or not text"));
        }
        if new.scopes.is_empty() {
            return Err(KeyError::Invalid("a key needs at least one scope"));
        }
        let role = role_of(&new.scopes);
        if !new.scopes.iter().all(|scope| scope.granted_to(role)) {
            return Err(KeyError::Invalid(
                "keys:manage is for people, and audit:read goes with no other scope",
            ));
        }
        let now = store::now();
        if new.expires_at.is_some_and(|end| end <= now) {
            return Err(KeyError::Invalid("expiresAt is in the past"));
        }
        let mut bytes = [0; 32];
        aws_lc_rs::rand::SystemRandom::new()
            .fill(&mut bytes)
            .expect("the operating system's random numbers do not fail after the start");
        let key = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
        let row = KeyRow {
            id: Uuid::new_v4(),
            clinic: clinic.to_owned(),
            name: new.name.clone(),
            scopes: Json(new.scopes.clone()),
            created_by: created_by.to_owned(),
            created_at: now,
            expires_at: new.expires_at,
            revoked_at: None,
        };
        crate::audit::subject(&row.id.to_string());
        self.within(self.db.insert_key(&row, &hash(&key))).await?;
        tracing::info!(key = %row.id, "service key made");
        let made = MadeKey { id: row.id, key: Private::new(key) };
        Ok((row, made))
    }

    /// Revokes a clinic's key, here and on every other instance. `false`: there is no such key.
    pub(crate) async fn revoke_key(&self, clinic: &str, id: Uuid) -> Result<bool, ChangeError> {
        let now = store::now();
        let revocation = Revocation {
            credential: format!("key:{id}"),
            clinic: clinic.to_owned(),
            user_id: None,
            session_id: None,
            at: now,
            forget_at: now + TOLD_FOR,
        };
        let known = self.within(self.db.revoke_key(id, &revocation)).await?;
        if known {
            tracing::info!(key = %id, "service key revoked");
            self.take_revocation(&revocation).await;
        }
        Ok(known)
    }

    /// Forgets what is known of keys: one of them was revoked.
    pub(crate) fn forget_keys(&self) {
        self.keys.lock().clear();
    }
}

/// A key that may only read the audit log acts as an auditor, every other one as a service.
fn role_of(scopes: &Scopes) -> ApiRole {
    let audits = |scope: &Permission| *scope == Permission::ReadAudit;
    if !scopes.is_empty() && scopes.iter().all(audits) {
        ApiRole::Auditor
    } else {
        ApiRole::Service
    }
}

fn caller(
    credential: String,
    clinic: &str,
    name: &str,
    scopes: &Scopes,
    expires_at: Option<DateTime<Utc>>,
) -> Caller {
    let token = ApiToken {
        user_id: name.to_owned(),
        name: None,
        role: role_of(scopes),
        clinic: clinic.to_owned(),
        session: None,
        link: None,
        expires_at: expires_at.unwrap_or_else(|| store::now() + NO_END),
    };
    let scopes = Some(Arc::new(scopes.clone()));
    Caller(token, Credential { name: credential, token: None, scopes })
}

#[cfg(test)]
mod tests;
