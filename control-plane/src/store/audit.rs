//! Rows of the audit log, their chains and anchors.

use chrono::{DateTime, Utc};
use sqlx::types::Json;
use uuid::Uuid;

use super::{Db, Tx, execute, fetch, unknown_word};
use crate::audit::Entry;
use crate::audit::chain::{self, Anchor, Hash, Record};

macro_rules! columns {
    () => {
        "SELECT id, clinic, at, actor_id, actor_kind, credential, action, session_id, subject, \
         listed, outcome, address, request_id, sequence, hash FROM audit_log "
    };
}

#[derive(sqlx::FromRow)]
struct Row {
    id: Uuid,
    clinic: String,
    at: DateTime<Utc>,
    actor_id: String,
    actor_kind: String,
    credential: Option<String>,
    action: String,
    session_id: Option<Uuid>,
    subject: Option<String>,
    listed: Option<Json<Vec<Uuid>>>,
    outcome: String,
    address: Option<String>,
    request_id: Option<String>,
    sequence: Option<i64>,
    hash: Option<Vec<u8>>,
}

impl Row {
    fn into_record(self) -> Result<Record, sqlx::Error> {
        let hash = match &self.hash {
            Some(hash) => read_hash(hash)?,
            None => chain::UNKNOWN,
        };
        Ok(Record {
            sequence: self.sequence.unwrap_or_default(),
            id: self.id,
            clinic: self.clinic,
            at: chain::time(self.at),
            actor_id: self.actor_id,
            actor_kind: self.actor_kind,
            credential: self.credential,
            action: self.action,
            session_id: self.session_id,
            subject: self.subject,
            listed: self.listed.map(|listed| listed.0).unwrap_or_default(),
            outcome: self.outcome,
            address: self.address,
            request_id: self.request_id,
            previous: chain::UNKNOWN,
            hash,
        })
    }
}

#[derive(sqlx::FromRow)]
struct AnchorRow {
    clinic: String,
    sequence: i64,
    hash: Vec<u8>,
    at: DateTime<Utc>,
    key_name: String,
    mac: Vec<u8>,
}

#[derive(sqlx::FromRow)]
struct ClinicRow {
    clinic: String,
}

#[derive(sqlx::FromRow)]
struct HeadRow {
    sequence: i64,
    hash: Vec<u8>,
}

#[derive(sqlx::FromRow)]
struct HashRow {
    hash: Option<Vec<u8>>,
}

/// Which sealed rows to read.
#[derive(Clone, Debug, Default)]
pub(crate) struct AuditPage {
    pub(crate) after: i64,
    pub(crate) session_id: Option<Uuid>,
    pub(crate) actor_id: Option<String>,
    pub(crate) limit: i64,
}

fn read_hash(bytes: &[u8]) -> Result<Hash, sqlx::Error> {
    Hash::read(bytes).ok_or_else(|| unknown_word("hash", "of another length"))
}

impl Db {
    /// Writes rows that no other transaction takes along.
    pub(crate) async fn insert_audit(
        &self,
        entries: impl Iterator<Item = &Entry>,
    ) -> Result<(), sqlx::Error> {
        let mut tx = self.begin().await?;
        for entry in entries {
            insert(&mut tx, entry).await?;
        }
        tx.commit_alone().await
    }

    /// The clinics with rows that have no place in the chain yet.
    pub(crate) async fn unsealed_clinics(&self) -> Result<Vec<String>, sqlx::Error> {
        const SQL: &str = "SELECT DISTINCT clinic FROM audit_log WHERE sequence IS NULL";
        let mut reader = self.read().await?;
        let rows = fetch!(&mut reader, fetch_all, ClinicRow, SQL)?;
        Ok(rows.into_iter().map(|row| row.clinic).collect())
    }

    /// Every clinic that has a chain, or rows.
    pub(crate) async fn audited_clinics(&self) -> Result<Vec<String>, sqlx::Error> {
        const SQL: &str = "SELECT clinic FROM audit_chains UNION SELECT clinic FROM audit_log \
            ORDER BY clinic";
        let mut reader = self.read().await?;
        let rows = fetch!(&mut reader, fetch_all, ClinicRow, SQL)?;
        Ok(rows.into_iter().map(|row| row.clinic).collect())
    }

    /// Takes or keeps the lease of a clinic's chain; gives its end, or nothing while another holds
    /// it.
    pub(crate) async fn lease_chain(
        &self,
        clinic: &str,
        holder: Uuid,
        now: DateTime<Utc>,
        until: DateTime<Utc>,
    ) -> Result<Option<(i64, Hash)>, sqlx::Error> {
        const SQL: &str = "INSERT INTO audit_chains (clinic, sequence, hash, holder, lease_until) \
            VALUES ($1, 0, $2, $3, $4) \
            ON CONFLICT (clinic) DO UPDATE SET holder = $3, lease_until = $4 \
            WHERE audit_chains.holder = $3 OR audit_chains.lease_until IS NULL \
               OR audit_chains.lease_until < $5 \
            RETURNING sequence, hash";
        let genesis = chain::genesis(clinic);
        let mut tx = self.begin().await?;
        let row = fetch!(
            &mut tx,
            fetch_optional,
            HeadRow,
            SQL,
            clinic,
            &genesis.0[..],
            holder,
            until,
            now
        )?;
        tx.commit_alone().await?;
        row.map(|row| Ok((row.sequence, read_hash(&row.hash)?))).transpose()
    }

    /// The oldest rows of a clinic that have no place in the chain yet.
    pub(crate) async fn unsealed(
        &self,
        clinic: &str,
        limit: i64,
    ) -> Result<Vec<Record>, sqlx::Error> {
        const SQL: &str =
            concat!(columns!(), "WHERE clinic = $1 AND sequence IS NULL ORDER BY at, id LIMIT $2");
        let mut reader = self.read().await?;
        let rows = fetch!(&mut reader, fetch_all, Row, SQL, clinic, limit)?;
        rows.into_iter().map(Row::into_record).collect()
    }

    /// Gives rows their places, moves the chain's end, and anchors it. `false`: somebody else was
    /// here, nothing has changed.
    pub(crate) async fn seal(
        &self,
        holder: Uuid,
        from: i64,
        rows: &[Record],
        anchor: &Anchor,
        at: DateTime<Utc>,
    ) -> Result<bool, sqlx::Error> {
        const HEAD: &str = "UPDATE audit_chains SET sequence = $4, hash = $5 \
            WHERE clinic = $1 AND sequence = $2 AND holder = $3";
        const ROW: &str = "UPDATE audit_log SET sequence = $2, hash = $3 \
            WHERE id = $1 AND sequence IS NULL";
        const ANCHOR: &str = "INSERT INTO audit_anchors (clinic, sequence, hash, at, key_name, mac) \
            VALUES ($1, $2, $3, $4, $5, $6)";
        let mut tx = self.begin().await?;
        let end = anchor.sequence;
        let hash = &anchor.hash.0[..];
        if execute!(&mut tx, HEAD, &anchor.clinic, from, holder, end, hash)? != 1 {
            return Ok(false);
        }
        for row in rows {
            if execute!(&mut tx, ROW, row.id, row.sequence, &row.hash.0[..])? != 1 {
                return Ok(false);
            }
        }
        let mac = &anchor.mac.0[..];
        execute!(&mut tx, ANCHOR, &anchor.clinic, end, hash, at, &anchor.key, mac)?;
        tx.commit_alone().await?;
        Ok(true)
    }

    /// Sealed rows in the order of the chain. Their `previous` is put in by [`Self::hash_at`] and
    /// the rows themselves; with a filter there are gaps, and it is told for each.
    pub(crate) async fn sealed(
        &self,
        clinic: &str,
        page: &AuditPage,
    ) -> Result<Vec<Record>, sqlx::Error> {
        const SQL: &str = concat!(
            columns!(),
            "WHERE clinic = $1 AND sequence > $2 AND ($3 IS NULL OR session_id = $3) \
             AND ($4 IS NULL OR actor_id = $4) ORDER BY sequence LIMIT $5"
        );
        let mut reader = self.read().await?;
        let rows = fetch!(
            &mut reader,
            fetch_all,
            Row,
            SQL,
            clinic,
            page.after,
            page.session_id,
            &page.actor_id,
            page.limit
        )?;
        rows.into_iter().map(Row::into_record).collect()
    }

    /// The hash of a place of the chain.
    pub(crate) async fn hash_at(
        &self,
        clinic: &str,
        sequence: i64,
    ) -> Result<Option<Hash>, sqlx::Error> {
        const SQL: &str = "SELECT hash FROM audit_log WHERE clinic = $1 AND sequence = $2";
        if sequence <= 0 {
            return Ok(Some(chain::genesis(clinic)));
        }
        let mut reader = self.read().await?;
        let row = fetch!(&mut reader, fetch_optional, HashRow, SQL, clinic, sequence)?;
        row.and_then(|row| row.hash).map(|hash| read_hash(&hash)).transpose()
    }

    /// The anchors of a stretch of the chain.
    pub(crate) async fn anchors(
        &self,
        clinic: &str,
        after: i64,
        to: i64,
    ) -> Result<Vec<Anchor>, sqlx::Error> {
        const SQL: &str = "SELECT clinic, sequence, hash, at, key_name, mac FROM audit_anchors \
            WHERE clinic = $1 AND sequence > $2 AND sequence <= $3 ORDER BY sequence";
        let mut reader = self.read().await?;
        let rows = fetch!(&mut reader, fetch_all, AnchorRow, SQL, clinic, after, to)?;
        rows.into_iter()
            .map(|row| {
                Ok(Anchor {
                    hash: read_hash(&row.hash)?,
                    mac: read_hash(&row.mac)?,
                    at: chain::time(row.at),
                    clinic: row.clinic,
                    sequence: row.sequence,
                    key: row.key_name,
                })
            })
            .collect()
    }

    /// The end of a clinic's chain as its sealer left it.
    pub(crate) async fn chain_head(
        &self,
        clinic: &str,
    ) -> Result<Option<(i64, Hash)>, sqlx::Error> {
        const SQL: &str = "SELECT sequence, hash FROM audit_chains WHERE clinic = $1";
        let mut reader = self.read().await?;
        let row = fetch!(&mut reader, fetch_optional, HeadRow, SQL, clinic)?;
        row.map(|row| Ok((row.sequence, read_hash(&row.hash)?))).transpose()
    }
}

/// Writes one row; the sealer gives it its place in the chain.
pub(super) async fn insert(tx: &mut Tx, entry: &Entry) -> Result<(), sqlx::Error> {
    const SQL: &str = "INSERT INTO audit_log (id, clinic, at, actor_id, actor_kind, credential, \
        action, session_id, subject, listed, outcome, address, request_id) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)";
    let listed = (!entry.listed.is_empty()).then_some(Json(&entry.listed));
    execute!(
        tx,
        SQL,
        entry.id,
        &entry.who.clinic,
        entry.at,
        &entry.who.id,
        entry.who.kind,
        &entry.who.credential,
        &entry.action,
        entry.session_id,
        &entry.subject,
        &listed,
        entry.outcome.as_str(),
        entry.address.map(|address| address.to_string()),
        &entry.request_id,
    )?;
    Ok(())
}
