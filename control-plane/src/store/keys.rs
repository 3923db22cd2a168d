//! Service keys and revoked credentials: only the hash of a key is stored.

use chrono::{DateTime, Utc};
use sqlx::types::Json;
use uuid::Uuid;

use super::{Db, execute, fetch};
use crate::permissions::Scopes;

macro_rules! columns {
    () => {
        "SELECT id, clinic, name, scopes, created_by, created_at, expires_at, revoked_at \
         FROM service_keys "
    };
}

/// A stored service key.
#[derive(Clone, Debug, sqlx::FromRow)]
pub(crate) struct KeyRow {
    pub(crate) id: Uuid,
    pub(crate) clinic: String,
    pub(crate) name: String,
    pub(crate) scopes: Json<Scopes>,
    pub(crate) created_by: String,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) expires_at: Option<DateTime<Utc>>,
    pub(crate) revoked_at: Option<DateTime<Utc>>,
}

/// A credential that is good no more.
#[derive(Clone, Debug, sqlx::FromRow)]
pub(crate) struct Revocation {
    pub(crate) credential: String,
    pub(crate) clinic: String,
    /// Whose it was, where that is known.
    pub(crate) user_id: Option<String>,
    /// The only consultation it was good for.
    pub(crate) session_id: Option<Uuid>,
    pub(crate) at: DateTime<Utc>,
    /// By then it has ended by itself.
    pub(crate) forget_at: DateTime<Utc>,
}

/// Somebody who came into a consultation by a credential.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub(crate) struct Entrance {
    pub(crate) session_id: Uuid,
    pub(crate) subject: String,
}

impl Db {
    /// Stores a service key under its hash.
    pub(crate) async fn insert_key(&self, key: &KeyRow, hash: &[u8]) -> Result<(), sqlx::Error> {
        const SQL: &str = "INSERT INTO service_keys \
            (id, clinic, name, scopes, key_hash, created_by, created_at, expires_at) \
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
        let mut tx = self.begin().await?;
        execute!(
            &mut tx,
            SQL,
            key.id,
            &key.clinic,
            &key.name,
            &key.scopes,
            hash,
            &key.created_by,
            key.created_at,
            key.expires_at,
        )?;
        tx.commit().await
    }

    /// The key with this hash; its secret has 256 random bits, so timing tells nothing.
    pub(crate) async fn key_by_hash(&self, hash: &[u8]) -> Result<Option<KeyRow>, sqlx::Error> {
        const SQL: &str = concat!(columns!(), "WHERE key_hash = $1");
        let mut reader = self.read().await?;
        fetch!(&mut reader, fetch_optional, KeyRow, SQL, hash)
    }

    /// A clinic's keys, the newest first.
    pub(crate) async fn keys(&self, clinic: &str) -> Result<Vec<KeyRow>, sqlx::Error> {
        const SQL: &str =
            concat!(columns!(), "WHERE clinic = $1 ORDER BY created_at DESC, id DESC LIMIT 1000");
        let mut reader = self.read().await?;
        fetch!(&mut reader, fetch_all, KeyRow, SQL, clinic)
    }

    /// Revokes a clinic's key and tells every instance. `false`: the clinic has no such key.
    pub(crate) async fn revoke_key(
        &self,
        id: Uuid,
        revocation: &Revocation,
    ) -> Result<bool, sqlx::Error> {
        const SQL: &str = "UPDATE service_keys SET revoked_at = COALESCE(revoked_at, $3) \
            WHERE id = $1 AND clinic = $2";
        let mut tx = self.begin().await?;
        let known = execute!(&mut tx, SQL, id, &revocation.clinic, revocation.at)? == 1;
        if known {
            insert_revocation(&mut tx, revocation).await?;
            tx.commit().await?;
        }
        Ok(known)
    }

    /// Revokes a credential that has no row of its own: a token.
    pub(crate) async fn revoke(&self, revocation: &Revocation) -> Result<(), sqlx::Error> {
        let mut tx = self.begin().await?;
        insert_revocation(&mut tx, revocation).await?;
        tx.commit().await
    }

    /// What was revoked since `since` and has not ended by itself.
    pub(crate) async fn revocations(
        &self,
        since: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Result<Vec<Revocation>, sqlx::Error> {
        const SQL: &str = "SELECT credential, clinic, user_id, session_id, at, forget_at \
            FROM revocations WHERE at >= $1 AND forget_at > $2 ORDER BY at";
        let mut reader = self.read().await?;
        fetch!(&mut reader, fetch_all, Revocation, SQL, since, now)
    }

    /// Forgets revocations of what has ended by itself.
    pub(crate) async fn forget_revocations(&self, now: DateTime<Utc>) -> Result<u64, sqlx::Error> {
        const SQL: &str = "DELETE FROM revocations WHERE forget_at <= $1";
        let mut tx = self.begin().await?;
        let forgotten = execute!(&mut tx, SQL, now)?;
        tx.commit_alone().await?;
        Ok(forgotten)
    }

    /// Who came into which consultations by a credential: the audit log knows.
    pub(crate) async fn entrances(
        &self,
        clinic: &str,
        credential: &str,
    ) -> Result<Vec<Entrance>, sqlx::Error> {
        const SQL: &str = "SELECT DISTINCT audit_log.session_id, audit_log.subject \
            FROM audit_log \
            JOIN consultation_sessions ON consultation_sessions.id = audit_log.session_id \
            WHERE audit_log.credential = $2 AND audit_log.clinic = $1 \
              AND audit_log.session_id IS NOT NULL AND audit_log.subject IS NOT NULL \
              AND audit_log.outcome = 'done' AND consultation_sessions.clinic = $1 \
              AND consultation_sessions.status IN ('SCHEDULED', 'WAITING', 'IN_PROGRESS', 'PAUSED')";
        let mut reader = self.read().await?;
        fetch!(&mut reader, fetch_all, Entrance, SQL, clinic, credential)
    }
}

/// Tells every instance that a credential is good no more.
pub(super) async fn insert_revocation(
    tx: &mut super::Tx,
    revocation: &Revocation,
) -> Result<(), sqlx::Error> {
    const SQL: &str = "INSERT INTO revocations \
        (credential, clinic, user_id, session_id, at, forget_at) VALUES ($1, $2, $3, $4, $5, $6) \
        ON CONFLICT (clinic, credential) DO NOTHING";
    execute!(
        tx,
        SQL,
        &revocation.credential,
        &revocation.clinic,
        &revocation.user_id,
        revocation.session_id,
        revocation.at,
        revocation.forget_at,
    )?;
    Ok(())
}
