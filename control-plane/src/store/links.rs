//! Join links: only the hash of a link's secret is stored.

use chrono::{DateTime, Duration, Utc};
use uuid::Uuid;

use super::keys::{Revocation, insert_revocation};
use super::{Db, Tx, execute, fetch};
use crate::sessions::LINK_GRACE;

/// How long a link stays good after its consultation has ended, for whoever looks back.
const AFTER_THE_END: Duration = Duration::minutes(15);

macro_rules! columns {
    () => {
        "SELECT id, clinic, session_id, user_id, user_name, role, created_by, created_at, \
         expires_at, revoked_at FROM join_links "
    };
}

macro_rules! insert {
    ($rest:literal) => {
        concat!(
            "INSERT INTO join_links (id, clinic, session_id, user_id, user_name, role, \
             secret_hash, created_by, created_at, expires_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
            $rest
        )
    };
}

macro_rules! insert_row {
    ($on:expr, $sql:expr, $link:expr, $secret_hash:expr) => {
        execute!(
            $on,
            $sql,
            $link.id,
            &$link.clinic,
            $link.session_id,
            &$link.user_id,
            &$link.user_name,
            &$link.role,
            $secret_hash,
            &$link.created_by,
            $link.created_at,
            $link.expires_at,
        )
    };
}

/// A stored link.
#[derive(Clone, sqlx::FromRow)]
pub(crate) struct LinkRow {
    pub(crate) id: Uuid,
    pub(crate) clinic: String,
    /// None: a doctor's own day.
    pub(crate) session_id: Option<Uuid>,
    pub(crate) user_id: String,
    pub(crate) user_name: String,
    pub(crate) role: String,
    pub(crate) created_by: String,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) expires_at: DateTime<Utc>,
    pub(crate) revoked_at: Option<DateTime<Utc>>,
}

/// What a link's secret is checked against.
#[derive(sqlx::FromRow)]
pub(crate) struct LinkHashRow {
    pub(crate) secret_hash: Vec<u8>,
    pub(crate) revoked_at: Option<DateTime<Utc>>,
}

#[derive(sqlx::FromRow)]
struct EndRow {
    actual_end_time: Option<DateTime<Utc>>,
}

#[derive(sqlx::FromRow)]
struct UserRow {
    user_id: String,
}

impl Db {
    /// Stores a link under the hash of its secret.
    pub(crate) async fn insert_link(
        &self,
        link: &LinkRow,
        secret_hash: &[u8],
    ) -> Result<(), sqlx::Error> {
        const SQL: &str = insert!("");
        let mut tx = self.begin().await?;
        insert_row!(&mut tx, SQL, link, secret_hash)?;
        tx.commit().await
    }

    /// The same, for a link whose id may be there already; then nothing changes.
    pub(crate) async fn insert_link_once(
        &self,
        link: &LinkRow,
        secret_hash: &[u8],
    ) -> Result<(), sqlx::Error> {
        const SQL: &str = insert!(" ON CONFLICT (id) DO NOTHING");
        let mut tx = self.begin().await?;
        insert_row!(&mut tx, SQL, link, secret_hash)?;
        tx.commit().await
    }

    /// What a link's secret is checked against.
    pub(crate) async fn link_hash(&self, id: Uuid) -> Result<Option<LinkHashRow>, sqlx::Error> {
        const SQL: &str = "SELECT secret_hash, revoked_at FROM join_links WHERE id = $1";
        let mut reader = self.read().await?;
        fetch!(&mut reader, fetch_optional, LinkHashRow, SQL, id)
    }

    /// The link with this secret. The look-up compares hashes of secrets with 256 random bits:
    /// its timing says nothing that helps to guess one.
    pub(crate) async fn link_by_hash(
        &self,
        secret_hash: &[u8],
    ) -> Result<Option<LinkRow>, sqlx::Error> {
        const SQL: &str = concat!(columns!(), "WHERE secret_hash = $1");
        let mut reader = self.read().await?;
        fetch!(&mut reader, fetch_optional, LinkRow, SQL, secret_hash)
    }

    /// A link by its id.
    pub(crate) async fn link(&self, id: Uuid) -> Result<Option<LinkRow>, sqlx::Error> {
        const SQL: &str = concat!(columns!(), "WHERE id = $1");
        let mut reader = self.read().await?;
        fetch!(&mut reader, fetch_optional, LinkRow, SQL, id)
    }

    /// Revokes a link and tells every instance; a second time changes nothing.
    pub(crate) async fn revoke_link(
        &self,
        id: Uuid,
        revocation: &Revocation,
    ) -> Result<(), sqlx::Error> {
        const SQL: &str =
            "UPDATE join_links SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL";
        let mut tx = self.begin().await?;
        execute!(&mut tx, SQL, id, revocation.at)?;
        insert_revocation(&mut tx, revocation).await?;
        tx.commit().await
    }

    /// The guests that hold a good link to a consultation.
    pub(crate) async fn invited_guests(
        &self,
        session_id: Uuid,
        now: DateTime<Utc>,
    ) -> Result<Vec<String>, sqlx::Error> {
        const SQL: &str = "SELECT DISTINCT user_id FROM join_links WHERE session_id = $1 \
            AND role = 'guest' AND revoked_at IS NULL AND expires_at > $2";
        let mut reader = self.read().await?;
        let rows = fetch!(&mut reader, fetch_all, UserRow, SQL, session_id, now)?;
        Ok(rows.into_iter().map(|row| row.user_id).collect())
    }
}

/// A consultation ended at `end`: its links end soon after.
pub(super) async fn end_with_session(
    tx: &mut Tx,
    session_id: Uuid,
    end: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    const SQL: &str =
        "UPDATE join_links SET expires_at = $2 WHERE session_id = $1 AND expires_at > $2";
    execute!(tx, SQL, session_id, end + AFTER_THE_END)?;
    Ok(())
}

/// A consultation is planned for a later time: its links live on with it.
pub(super) async fn live_until(
    tx: &mut Tx,
    session_id: Uuid,
    planned_end: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    const SQL: &str =
        "UPDATE join_links SET expires_at = $2 WHERE session_id = $1 AND expires_at < $2";
    let grace = Duration::from_std(LINK_GRACE).unwrap_or_default();
    execute!(tx, SQL, session_id, planned_end.checked_add_signed(grace).unwrap_or(planned_end))?;
    Ok(())
}

/// An ended consultation is opened again: the links that ended with it live on, others do not.
/// To be called while the row still knows its end.
pub(super) async fn live_on(
    tx: &mut Tx,
    session_id: Uuid,
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    const END: &str = "SELECT actual_end_time FROM consultation_sessions WHERE id = $1";
    const SQL: &str =
        "UPDATE join_links SET expires_at = $3 WHERE session_id = $1 AND expires_at = $2";
    let row = fetch!(&mut *tx, fetch_optional, EndRow, END, session_id)?;
    let Some(end) = row.and_then(|row| row.actual_end_time) else { return Ok(()) };
    let grace = Duration::from_std(LINK_GRACE).unwrap_or_default();
    execute!(tx, SQL, session_id, end + AFTER_THE_END, now + grace)?;
    Ok(())
}
